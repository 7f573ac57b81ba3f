"""Checks of the chapter's homework.

    pytest p06_training --build my/p06_training.py --homework 1

A check is skipped until the file has what the homework asks for.
"""

from types import SimpleNamespace

import pytest
import torch

from p01_autograd.lab.homework import variant, written
from p05_gpt.build import GPT
from p06_training import build as listing

FIRST, SECOND = "a", "b"


@pytest.mark.homework(1)
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/step_0000070", "a/step_0000080", "b/step_0000050"], "a/step_0000080"),
        (["a/step_0000080", "b/step_0000100"], "b/step_0000100"),
        (["b/step_0000100"], "b/step_0000100"),
        (["a/step_0000080", "b/step_0000090 damaged"], "a/step_0000080"),
        (["a/step_0000120 damaged", "a/step_0000110 damaged", "b/step_0000100"], "b/step_0000100"),
        (["a/.step_0000090", "b/step_0000010"], "b/step_0000010"),
        (["b/step_0000080 written last", "a/step_0000090"], "a/step_0000090"),
    ],
    ids=[
        "first",
        "second",
        "one empty",
        "damaged",
        "two damaged",
        "unfinished",
        "older file newer",
    ],
)
def test_the_newest_good_checkpoint_of_both_folders(build, tmp_path, files, expected):
    (newest,) = written(build, "newest_checkpoint")
    folders = tmp_path / FIRST, tmp_path / SECOND
    for folder in folders:
        folder.mkdir()
    for name in sorted(files, key=lambda name: "written last" in name):
        path = tmp_path / f"{name.split()[0]}.pt"
        build.save_checkpoint(path, {"steps_done": int(path.stem[-7:])})
        if "damaged" in name:
            path.write_bytes(path.read_bytes()[:-1])
    got = newest(*folders)
    assert got is not None, f"newest_checkpoint found none among {', '.join(files)}"
    got = tmp_path.joinpath(got).relative_to(tmp_path).with_suffix("").as_posix()
    assert got == expected, f"among {', '.join(files)} the newest is {expected}, got {got}"


def grad_norm(build, accumulate):
    """The gradient norm of the first step."""
    recipe = SimpleNamespace(
        steps=10, batch_size=2, block_size=8, accumulate=accumulate, max_lr=1e-3, min_lr=1e-4,
        warmup_steps=2, clip=1e9, eval_every=10, seed=1337,
    )  # fmt: skip
    torch.manual_seed(1337)
    ids = torch.randint(20, (500,))
    model = GPT(20, 16, 2, 1, 8)
    trainer = build.Trainer(model, torch.optim.AdamW(model.parameters()), ids, ids, recipe)
    return trainer.step()["grad_norm"]


@pytest.mark.homework(3)
def test_the_sabotage_adds_the_parts_without_dividing(build):
    (pair,) = written(build, "not_divided")
    broken = variant("p06_training", "not_divided", pair)
    for accumulate in (1, 4):
        expected, got = accumulate * grad_norm(listing, accumulate), grad_norm(broken, accumulate)
        assert abs(got / expected - 1) < 1e-4, (
            f"with {accumulate} parts the gradient norm should be {accumulate} times the healthy "
            f"one, {expected:.4f}, got {got:.4f}"
        )
