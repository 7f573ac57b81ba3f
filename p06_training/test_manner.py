"""What our own listing, checkpoints and Trainer do beyond what `--build` requires."""

import errno
import json
import math
import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from p03_bpe import corpus
from p06_training import CheckpointError, Trainer, build, load_checkpoint
from p06_training import save_checkpoint as save
from p06_training.muon import Combined

STATE = {"weights": torch.arange(1000.0), "step": 3, "name": "Zoë"}
RECIPE = {
    "steps": 20, "batch_size": 4, "block_size": 6, "accumulate": 1, "max_lr": 0.1, "min_lr": 0.01,
    "warmup_steps": 3, "clip": 1.0, "eval_every": 5, "seed": 7,
}  # fmt: skip


class Bigram(nn.Module):
    def __init__(self):
        super().__init__()
        self.logits = nn.Embedding(16, 16)

    def forward(self, idx):
        return self.logits(idx)


def trainer(**changed):
    torch.manual_seed(0)
    model, ids = Bigram(), torch.arange(300) % 16
    optimizer = torch.optim.AdamW(model.parameters())
    return Trainer(model, optimizer, ids, ids[:60], SimpleNamespace(**RECIPE | changed))


# The listing's manner


def test_the_listing_returns_numbers_and_leaves_an_infinite_gradient_alone():
    assert type(build.lr_at(0, max_lr=8, min_lr=2, warmup_steps=4, total_steps=9)) is float
    parameter = nn.Parameter(torch.ones(2))
    assert build.clip_grad_norm([parameter], 1.0) == 0.0, "without any gradient"
    for bad in (math.nan, math.inf, -math.inf):
        parameter.grad = torch.tensor([1.0, bad])
        norm = build.clip_grad_norm([parameter], 1.0)
        assert type(norm) is float and str(norm) == str(abs(bad))
        assert parameter.grad[0] == 1.0 and str(parameter.grad[1].item()) == str(bad)


def test_the_listings_unfinished_file_is_hidden_and_damage_is_a_ValueError(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(build.os, "replace", lambda old, new: seen.append(old))
    build.save_checkpoint(tmp_path / "a.pt", STATE)
    assert seen[0].name.startswith(".") and seen[0].parent == tmp_path
    with pytest.raises(ValueError, match=r"a\.pt is damaged"):
        (tmp_path / "a.pt").write_bytes(b"x" * 100)
        build.load_checkpoint(tmp_path / "a.pt")


# Checkpoints


class Hostile:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: torch.save(STATE, path), "not a checkpoint"),
        (lambda path: save(path, [1, 2]), "does not hold a dictionary"),
        (lambda path: save(path, {"a": Hostile(path.with_name("trap"))}), "holds more than"),
    ],
    ids=["missing", "folder", "cut", "extended", "empty", "foreign", "list", "hostile"],
)
def test_a_file_that_is_not_a_checkpoint_is_reported_in_one_line(tmp_path, damage, says):
    path = tmp_path / "a.pt"
    save(path, STATE)
    damage(path)
    with pytest.raises(CheckpointError, match=says) as raised:
        load_checkpoint(path)
    assert "\n" not in str(raised.value) and "a.pt" in str(raised.value)
    assert isinstance(raised.value, ValueError) and not (tmp_path / "trap").exists()


def test_whatever_a_readers_load_checkpoint_raises_is_a_CheckpointError(monkeypatch):
    def theirs(path):
        raise SystemError("broken\nwith details")

    monkeypatch.setattr(build, "load_checkpoint", theirs)
    with pytest.raises(CheckpointError, match=r"^a\.pt: broken$"):
        load_checkpoint("a.pt")


@pytest.mark.skipif(os.name == "nt", reason="a full disk is played with setrlimit")
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_partial_file(tmp_path):
    import resource

    path = tmp_path / "a.pt"
    save(path, STATE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError):
            save(path, STATE | {"weights": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(path)["step"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_a_short_lock_is_waited_for_and_a_long_one_is_reported(tmp_path, monkeypatch):
    real, locked = os.replace, [PermissionError(errno.EACCES, "Access is denied")] * 3

    def replace(old, new):
        if locked:
            raise locked.pop()
        real(old, new)

    monkeypatch.setattr(build.os, "replace", replace)
    monkeypatch.setattr(corpus.time, "sleep", lambda seconds: None)
    save(tmp_path / "a.pt", STATE)
    assert load_checkpoint(tmp_path / "a.pt")["step"] == 3
    monkeypatch.setattr(corpus.time, "monotonic", iter(range(100)).__next__)
    locked += [PermissionError(errno.EACCES, "Access is denied")] * 100
    with pytest.raises(PermissionError, match="locked") as raised:
        save(tmp_path / "b.pt", STATE)
    assert raised.value.filename == str(tmp_path / "b.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


# The Trainer


def test_rows_are_those_of_the_listing_plus_seconds():
    rows = list(trainer().run())
    one = trainer()
    expected = list(build.Trainer(one.model, one.optimizer, *ids_of(one), one.recipe).run())
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in rows] == expected
    assert list(rows[4]) == ["step", "seconds", "train_loss", "lr", "grad_norm", "val_loss"]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert json.dumps(rows)


def ids_of(one):
    return one.loop.train_ids, one.loop.val_ids


def test_run_stops_when_asked_and_can_continue():
    one = trainer()
    assert len(list(one.run(stop=lambda: one.steps_done >= 7))) == 7
    assert [row["step"] for row in one.run()] == list(range(8, 21))
    assert len(one.metrics) == 20


def test_skipped_steps_are_counted():
    one = trainer()
    one.step()
    hook = one.model.logits.weight.register_hook(lambda grad: grad * math.nan)
    one.step(), one.step()
    assert (one.skipped, one.consecutive_skips) == (2, 2)
    hook.remove()
    one.step()
    assert (one.skipped, one.consecutive_skips) == (2, 0) and one.steps_done == 4
    one.best_loss, again = 1.5, trainer()
    again.load_state(one.state())
    assert (again.skipped, again.best_loss) == (2, 1.5), "a worse model must not become the best"


def test_the_newest_three_are_kept_and_a_damaged_one_is_skipped(tmp_path):
    one = trainer()
    for _ in one.run():
        one.save(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step_0000018.pt", "step_0000019.pt", "step_0000020.pt"]
    newest = tmp_path / names[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    second = trainer()
    path, complaints = second.resume(tmp_path)
    assert path.name == names[-2] and second.steps_done == second.loop.steps_done == 19
    assert len(complaints) == 1 and names[-1] in complaints[0]
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="step_0000018"):
        trainer().resume(tmp_path)


def test_the_state_of_another_run_is_refused():
    state = trainer().state()
    with pytest.raises(CheckpointError, match="another run: max_lr"):
        trainer(max_lr=0.2).load_state(state)
    with pytest.raises(CheckpointError, match="does not fit this run"):
        trainer().load_state({"recipe": state["recipe"]})


def test_combined_optimizers_behave_like_one():
    def trained(split):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        parts = [torch.optim.AdamW(part.parameters()) for part in model]
        optimizer = Combined(*parts) if split else torch.optim.AdamW(model.parameters())
        for _ in range(3):
            for group in optimizer.param_groups:
                group["lr"] = 0.1
            optimizer.zero_grad()
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        return model, optimizer

    (one, plain), (other, combined) = trained(False), trained(True)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    _, fresh = trained(True)
    fresh.load_state_dict(combined.state_dict())
    assert len(fresh.param_groups) == 2 and len(plain.param_groups) == 1
    assert str(fresh.state_dict()) == str(combined.state_dict())
