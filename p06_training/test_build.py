"""Is what I typed right? `pytest p06_training` checks the training loop, step by step: schedule,
clipping, checkpoints, and the Trainer that uses them."""

import contextlib
import copy
import errno
import math
import os
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn


def why(got, mistakes, abs=1e-6):
    """A line with the reason whose result is `got`, if there is one."""
    for reason, result in mistakes.items():
        if got == pytest.approx(result, abs=abs):
            return f"\nThe usual reason: {reason}."
    return ""


def shown(numbers):
    return "[" + ", ".join(f"{number:.4g}" for number in numbers) + "]"


# 1. The learning-rate schedule


def cosine(progress):
    """A cosine from 8 to 2, at `progress` from 0 to 1."""
    return 2 + 3 * (1 + math.cos(math.pi * progress))


def schedule(step, max_lr, min_lr, warmup_steps, total_steps):
    """The learning rate of a step, as in the chapter."""
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return min_lr + (max_lr - min_lr) / 2 * (1 + math.cos(math.pi * progress))


def rates(build, steps, **changed):
    given = {"max_lr": 8.0, "min_lr": 2.0, "warmup_steps": 4, "total_steps": 12} | changed
    got = [build.lr_at(step, **given) for step in steps]
    assert None not in got, f"lr_at returned None for {given} (a missing return?)"
    return [float(rate) for rate in got]


@pytest.mark.checks("lr_at")
@pytest.mark.step(1)
def test_lr_at_the_first_step_already_learns(build):
    (got,) = rates(build, [0])
    assert got == pytest.approx(2.0), (
        f"with max_lr 8 and 4 warmup steps, step 0 should have 8 * 1 / 4 = 2, got {got:.4g}"
        + why(
            got,
            {
                "step / warmup_steps is zero at step 0, so that the step has no effect": 0.0,
                "no warmup": 8.0,
                "the warmup starts from min_lr": 2.0 + 6.0 / 4,
            },
        )
    )


@pytest.mark.checks("lr_at")
@pytest.mark.step(1)
def test_lr_at_climbs_in_a_straight_line_and_arrives_with_the_last_warmup_step(build):
    got, expected = rates(build, range(4)), [2.0, 4.0, 6.0, 8.0]
    assert got == pytest.approx(expected), (
        f"steps 0 to 3 of a warmup of 4 to 8 should have {shown(expected)}, got {shown(got)}"
        + why(
            got,
            {
                "step / warmup_steps instead of (step + 1) / warmup_steps": [0.0, 2.0, 4.0, 6.0],
                "the warmup is divided by one step too many": [1.6, 3.2, 4.8, 6.4],
                "no warmup": [8.0] * 4,
            },
        )
    )


@pytest.mark.checks("lr_at")
@pytest.mark.step(1)
def test_lr_at_begins_below_min_lr_when_the_warmup_is_long(build):
    (got,) = rates(build, [0], warmup_steps=16, total_steps=40)
    assert got == pytest.approx(0.5), (
        f"the first of 16 warmup steps to 8 has 8 / 16 = 0.5, got {got:.4g}"
        + why(got, {"min_lr holds only after the warmup": 2.0})
    )


@pytest.mark.checks("lr_at")
@pytest.mark.step(1)
def test_lr_at_leaves_max_lr_where_the_warmup_ends(build):
    (got,) = rates(build, [4])
    assert got == pytest.approx(8.0), (
        f"step 4, the first after 4 warmup steps, starts the cosine at 8, got {got:.4g}"
        + why(
            got,
            {
                "the cosine has been running since step 0": cosine(1 / 3),
                "the cosine is a step ahead": cosine(1 / 8),
                "the warmup lasts one step too long": 10.0,
            },
        )
    )


@pytest.mark.checks("lr_at")
@pytest.mark.step(1)
def test_lr_at_half_way_down_is_half_way_between(build):
    got, expected = rates(build, [6, 8, 10]), [cosine(q) for q in (0.25, 0.5, 0.75)]
    assert got == pytest.approx(expected), (
        "a cosine from 8 to 2 is at a quarter, half and three quarters of the way "
        f"{shown(expected)}, got {shown(got)}"
        + why(
            got,
            {
                "a straight line, not a cosine": [6.5, 5.0, 3.5],
                "the cosine runs over all steps, those of the warmup included": [
                    cosine(step / 12) for step in (6, 8, 10)
                ],
                "total_steps counts from the end of the warmup": [
                    cosine((step - 4) / 12) for step in (6, 8, 10)
                ],
                "min_lr is added to a cosine over max_lr, not over max_lr - min_lr": [
                    2 + 4 * (1 + math.cos(math.pi * q)) for q in (0.25, 0.5, 0.75)
                ],
                "min_lr is left out": [4 * (1 + math.cos(math.pi * q)) for q in (0.25, 0.5, 0.75)],
                "the cosine goes to zero and is cut off at min_lr": [
                    max(2.0, 4 * (1 + math.cos(math.pi * q))) for q in (0.25, 0.5, 0.75)
                ],
                "cos(pi/2 * x), a quarter of a period instead of half": [
                    2 + 6 * math.cos(math.pi / 2 * q) for q in (0.25, 0.5, 0.75)
                ],
                "the cosine goes up": expected[::-1],
                "no decay": [8.0, 8.0, 8.0],
            },
        )
    )


@pytest.mark.checks("lr_at")
@pytest.mark.step(1)
def test_lr_at_reaches_min_lr_at_total_steps_and_not_before(build):
    got, expected = rates(build, [11, 12]), [cosine(7 / 8), 2.0]
    assert got == pytest.approx(expected), (
        f"steps 11 and 12 of 12 should have {shown(expected)}: the cosine ends at total_steps, "
        f"not at total_steps - 1; got {shown(got)}"
        + why(got, {"it ends at total_steps - 1": [2.0, 2.0]})
    )


@pytest.mark.checks("lr_at")
@pytest.mark.step(1)
def test_lr_at_stays_at_min_lr_ever_after(build):
    got = rates(build, [12, 13, 16, 20, 28, 1000])
    assert got == pytest.approx([2.0] * 6), (
        f"from total_steps on the rate is min_lr = 2, got {shown(got)}: "
        "after its end the cosine would rise again"
    )


@pytest.mark.checks("lr_at")
@pytest.mark.step(1)
@pytest.mark.parametrize("warmup", [1, 0], ids=["warmup=1", "warmup=0"])
def test_lr_at_with_hardly_a_warmup(build, warmup):
    got = rates(build, [0, warmup], warmup_steps=warmup)
    assert got == pytest.approx([8.0, 8.0]), (
        f"with warmup_steps={warmup} steps 0 and {warmup} should have max_lr = 8, got {shown(got)}"
    )


SCHEDULES = {
    "as in a run": {"max_lr": 3e-3, "min_lr": 1e-4, "warmup_steps": 7, "total_steps": 90},
    "down to zero": {"max_lr": 1.0, "min_lr": 0.0, "warmup_steps": 1, "total_steps": 10},
    "large rates": {"max_lr": 240.0, "min_lr": 60.0, "warmup_steps": 4, "total_steps": 12},
    "a constant rate": {"max_lr": 0.5, "min_lr": 0.5, "warmup_steps": 3, "total_steps": 9},
}


@pytest.mark.checks("lr_at")
@pytest.mark.step(1)
@pytest.mark.parametrize("given", SCHEDULES.values(), ids=list(SCHEDULES))
def test_lr_at_of_every_step_of_other_schedules(build, given):
    steps = range(given["total_steps"] + 3)
    expected = [schedule(step, **given) for step in steps]
    got = rates(build, steps, **given)
    wrong = [i for i in steps if got[i] != pytest.approx(expected[i], abs=1e-9)]
    assert not wrong, (
        f"with {given}, step {wrong[0]} should have {expected[wrong[0]]:.6g}, got "
        f"{got[wrong[0]]:.6g}. Is a number hard-coded that should come from the arguments?"
    )


# 2. Gradient clipping


def parameters(*grads):
    """A parameter of ones for each gradient; None for one that has none."""
    made = []
    for grad in grads:
        values = torch.zeros(2) if grad is None else torch.as_tensor(grad, dtype=torch.float32)
        made.append(nn.Parameter(torch.ones_like(values)))
        made[-1].grad = None if grad is None else values.clone()
    return made


def flat(made):
    """The gradients of all parameters, one after the other."""
    return torch.cat([p.grad.flatten() for p in made]).tolist()


def norm_returned(build, made, max_norm):
    got = build.clip_grad_norm(made, max_norm)
    assert got is not None, "clip_grad_norm should return the norm, got None (a missing return?)"
    return float(got)


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
def test_clip_grad_norm_returns_the_joint_norm(build):
    got = norm_returned(build, parameters([3.0, 0.0], [[0.0], [4.0]]), 100.0)
    assert got == pytest.approx(5.0), (
        f"gradients of norm 3 and 4 have the joint norm sqrt(9 + 16) = 5, got {got:.4g}"
        + why(
            got,
            {
                "the norms are added": 7.0,
                "the square root is missing": 25.0,
                "the largest entry, not the norm": 4.0,
                "the mean of the squares instead of their sum": 2.5,
                "the norm of the weights, not of the gradients": 2.0,
                "the mean of the norms": 3.5,
                "max_norm is returned": 100.0,
            },
        )
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
def test_clip_grad_norm_returns_the_norm_before_clipping(build):
    got = norm_returned(build, parameters([30.0], [40.0]), 1.0)
    assert got == pytest.approx(50.0), f"the norm before clipping is 50, got {got:.4g}" + why(
        got,
        {
            "it is measured after the gradients were scaled": 1.0,
            "the factor is returned": 0.02,
        },
        abs=1e-3,
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
def test_clip_grad_norm_scales_all_gradients_by_one_factor(build):
    made = parameters([3.0, 0.0], [[0.0], [4.0]])
    norm_returned(build, made, 1.0)
    got = flat(made)
    assert got == pytest.approx([0.6, 0, 0, 0.8], abs=1e-4), (
        "gradients [3, 0] and [0, 4], joint norm 5, clipped to 1: all divided by 5, "
        f"[0.6, 0, 0, 0.8], got {shown(got)}"
        + why(
            got,
            {
                "each tensor, or each number, is clipped on its own, which changes the direction": [
                    1.0, 0, 0, 1.0
                ],
                "nothing was changed in place; assign to or scale parameter.grad": [3.0, 0, 0, 4.0],
                "divided by the square of the norm": [0.12, 0, 0, 0.16],
                "only the first gradient was scaled": [0.6, 0, 0, 4.0],
                "divided by the norms' sum over tensors": [3 / 7, 0, 0, 4 / 7],
            },
            abs=1e-3,
        )
    )  # fmt: skip


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
@pytest.mark.parametrize("max_norm", [0.5, 2.0, 7.0])
def test_clip_grad_norm_cuts_to_max_norm(build, max_norm):
    made = parameters([30.0, -10.0], [[5.0, 1.0]], [2.0])
    norm_returned(build, made, max_norm)
    after = math.hypot(*flat(made))
    assert after == pytest.approx(max_norm, rel=1e-3), (
        f"after clipping to {max_norm} the joint norm should be {max_norm}, got {after:.4g}"
        + why(after, {"the result has norm 1 whatever max_norm is": 1.0}, abs=1e-3)
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
def test_clip_grad_norm_leaves_short_gradients_alone(build):
    made = parameters([0.3, 0.0], [0.0, 0.4])
    norm_returned(build, made, 1.0)
    assert flat(made) == pytest.approx([0.3, 0.0, 0.0, 0.4], abs=1e-5), (
        "a joint norm of 0.5 is below max_norm 1, so the gradients [0.3, 0, 0, 0.4] should not "
        f"change, got {shown(flat(made))}. Clipping never increases a gradient"
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
def test_clip_grad_norm_takes_a_generator(build):
    made = parameters([3.0], [4.0])
    got = norm_returned(build, (p for p in made), 1.0)
    assert got == pytest.approx(5.0), f"given a generator the norm should be 5, got {got:.4g}"
    assert flat(made) == pytest.approx([0.6, 0.8], abs=1e-4), (
        f"model.parameters() is a generator and can be iterated once; the gradients are "
        f"{flat(made)} instead of [0.6, 0.8]. Put it into a list before the first loop"
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
def test_clip_grad_norm_passes_over_parameters_without_gradient(build):
    made = parameters(None, [3.0, 4.0], None)
    got = norm_returned(build, made, 1.0)
    assert got == pytest.approx(5.0), f"the norm should be 5, got {got:.4g}"
    assert made[1].grad.tolist() == pytest.approx([0.6, 0.8], abs=1e-4), (
        f"[3, 4] between two parameters without a gradient should become [0.6, 0.8], got "
        f"{made[1].grad.tolist()}"
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
def test_clip_grad_norm_of_zero_gradients_is_zero(build):
    made = parameters([0.0, 0.0], [0.0])
    got = norm_returned(build, made, 1.0)
    assert got == 0.0 and flat(made) == [0.0, 0.0, 0.0], (
        f"zero gradients stay zero with norm 0; got norm {got}, gradients {flat(made)} "
        "(0 / 0 is NaN)"
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=["nan", "inf", "-inf"])
def test_clip_grad_norm_tells_of_a_gradient_that_is_not_finite(build, bad):
    got = norm_returned(build, parameters([1.0, bad], [2.0, 300.0]), 1.0)
    assert not math.isfinite(got), (
        f"the norm of a gradient with {bad} is not finite, got {got:.4g}: the Trainer relies on "
        "it, or one bad batch ruins the weights"
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
def test_clip_grad_norm_leaves_the_weights_alone(build):
    made = parameters([30.0], [40.0, 1.0])
    norm_returned(build, made, 1.0)
    assert all(torch.equal(p.detach(), torch.ones_like(p)) for p in made), (
        "the weights changed; only their .grad should"
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.step(2)
@pytest.mark.parametrize("max_norm", [0.1, 1e6], ids=["clipped", "not clipped"])
def test_clip_grad_norm_agrees_with_torch(build, max_norm):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    (ours(torch.randn(4, 5)) ** 2).sum().backward()
    theirs = copy.deepcopy(ours)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        q.grad = p.grad.clone()
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm).item()
    got = norm_returned(build, ours.parameters(), max_norm)
    assert got == pytest.approx(expected, rel=1e-4), f"the norm is {expected:.6g}, got {got:.6g}"
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3), (
            f"max_norm {max_norm}: gradients differ from torch.nn.utils.clip_grad_norm_ by a "
            f"factor of {(p.grad.norm() / q.grad.norm()).item():.4g}"
        )


# 3. A crash-safe checkpoint


def some_state(seed=0, size=40):
    draw = torch.Generator().manual_seed(seed)
    return {
        "model": {"weight": torch.randn(size, 3, generator=draw), "n": torch.tensor(7)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(5, generator=draw)}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95), "fused": None, "params": [0, 1]}],
        },
        "generator": draw.get_state(),
        "step": 250 + seed,
        "best_loss": math.inf,
        "name": "Zoë",
        "done": False,
    }


class Killed(BaseException):
    """Raised to simulate a crash."""


class Disk:
    """Records the module's calls of os.fsync and of os.replace or os.rename.

    The moments before and after each call are counted, from 1; at moment `at` it raises `error`.
    """

    def __init__(self, build, monkeypatch, at=0, error=None):
        self.moments, self.at, self.error = 0, at, error
        self.failed, self.synced, self.renamed = "", [], []
        for name, wrapped in (
            ("fsync", self.sync),
            ("fdatasync", self.sync),
            ("replace", self.rename),
            ("rename", self.rename),
        ):
            real = getattr(os, name, None)
            if real is None:
                continue
            monkeypatch.setattr(os, name, wrapped(real))
            for theirs, value in list(vars(build).items()):  # from os import fsync
                if value is real:
                    monkeypatch.setattr(build, theirs, getattr(os, name))

    def moment(self, doing):
        self.moments += 1
        if self.moments == self.at:
            self.failed = doing
            raise self.error

    def sync(self, real):
        def noted(file, *rest, **named):
            self.moment("fsync")
            status = os.fstat(file if isinstance(file, int) else file.fileno())
            real(file, *rest, **named)
            self.synced.append((status.st_ino, status.st_size))
            self.moment("fsync")

        return noted

    def rename(self, real):
        def noted(source, target, *rest, **named):
            self.moment("rename")
            status = os.stat(source)
            real(source, target, *rest, **named)
            whole = (status.st_ino, status.st_size) in self.synced
            self.renamed.append((Path(source), Path(target), whole))
            self.moment("rename")

        return noted

    def given(self, path):
        """(source, whether all of it was synced) for each file that was renamed to `path`."""
        return [
            (source, whole) for source, target, whole in self.renamed if target.name == path.name
        ]


@pytest.mark.checks("save_checkpoint")
@pytest.mark.step(3)
@pytest.mark.parametrize("kind", [str, Path], ids=["path as str", "path as Path"])
def test_save_checkpoint_writes_the_file_and_leaves_nothing_else(build, tmp_path, kind):
    path = tmp_path / "step_0000250.pt"
    sizes = []
    for seed in range(2):
        build.save_checkpoint(kind(path), some_state(seed))
        assert path.is_file(), f"save_checkpoint wrote no file of the name it was given: {path}"
        sizes.append(path.stat().st_size)
    least = some_state()["model"]["weight"].numel() * 4
    assert min(sizes) > least, (
        f"the state's tensors alone are {least} bytes, and the file has {min(sizes)}"
    )
    others = [p.name for p in tmp_path.rglob("*") if p != path and p.is_file()]
    large = [name for name in others if (tmp_path / name).stat().st_size > least]
    assert not large, f"after two saves, temporary files are left behind: {large}"


@pytest.mark.checks("save_checkpoint")
@pytest.mark.step(3)
@pytest.mark.parametrize("size", [1, 2000], ids=["small", "large"])
def test_save_checkpoint_forces_the_content_to_the_disk_before_it_gets_its_name(
    build, tmp_path, monkeypatch, size
):
    path = tmp_path / "a.pt"
    with monkeypatch.context() as patch:
        disk = Disk(build, patch)
        build.save_checkpoint(path, some_state(size=size) if size > 1 else {"step": 1})
    assert disk.given(path), (
        f"{path.name} was written in place: a crash in the middle leaves half a file. Write to "
        "another name in the same folder, then call os.replace"
    )
    source, whole = disk.given(path)[-1]
    assert tmp_path.resolve() in source.resolve().parents, (
        f"the temporary file is in {source.parent}, another folder: renaming is atomic only within "
        "a file system"
    )
    assert disk.synced, (
        "os.fsync was never called: after a power failure the file may exist without its content"
    )
    assert whole, (
        "the file was renamed before all of it was on the disk; the order is write, flush, "
        "os.fsync(file.fileno()), os.replace"
    )


@pytest.mark.checks("save_checkpoint")
@pytest.mark.step(3)
def test_save_checkpoint_that_fails_says_so_and_leaves_the_one_before(build, tmp_path, monkeypatch):
    path, full = tmp_path / "a.pt", OSError(errno.ENOSPC, "No space left on device")
    for moment in count(1):
        build.save_checkpoint(path, some_state())
        before, raised = path.read_bytes(), False
        with monkeypatch.context() as patch:
            disk = Disk(build, patch, moment, full)
            try:
                build.save_checkpoint(path, some_state(1))
            except Exception:
                raised = True
        if not disk.failed:
            assert moment > 1, "os.fsync and os.replace were never called"
            return
        given, left = disk.given(path), path.read_bytes() if path.is_file() else None
        assert given or left == before or (left and not raised), (
            "the disk was full, and the earlier checkpoint is gone or changed. Write to another "
            "name first, and rename it when all of it is on the disk"
        )
        copied = disk.failed == "rename" and left != before  # as shutil.move does
        assert raised or (given and given[-1][1]) or copied, (
            "the disk was full, os.fsync or os.replace raised an OSError, and save_checkpoint "
            "returned as if it had succeeded"
        )


# 4. Reading it back


def same(a, b):
    """Whether two nested states are equal; a list may stand for a tuple."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def loaded(build, path):
    got = build.load_checkpoint(path)
    assert got is not None, "load_checkpoint should return the state, got None (a missing return?)"
    return got


def refused(build, path, what):
    """load_checkpoint(path) must raise an exception of any type."""
    try:
        got = build.load_checkpoint(path)
    except Exception:
        return
    came = "" if got is not None else " (it returned None instead of raising an error)"
    raise AssertionError(f"{what} was loaded without an error{came}")


@pytest.mark.checks("load_checkpoint")
@pytest.mark.step(4)
@pytest.mark.parametrize("kind", [str, Path], ids=["path as str", "path as Path"])
def test_load_checkpoint_gives_what_save_checkpoint_was_given(build, tmp_path, kind):
    path, state = kind(tmp_path / "step_0000250.pt"), some_state()
    build.save_checkpoint(path, some_state(1, size=900))
    build.save_checkpoint(path, some_state())
    got = loaded(build, path)
    for key, value in state.items():
        assert key in got, f"{key!r} is missing from the loaded state, which has {sorted(got)}"
        assert same(value, got[key]), f"{key!r} was saved as {value!r}\nand loaded as {got[key]!r}"


@pytest.mark.checks("load_checkpoint")
@pytest.mark.step(4)
def test_load_checkpoint_gives_what_an_optimizer_goes_on_from(build, tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    state = {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}
    kept = copy.deepcopy(state)
    build.save_checkpoint(tmp_path / "a.pt", state)
    with torch.no_grad():
        model.weight.zero_()
    got = loaded(build, tmp_path / "a.pt")
    assert same(kept["model"], dict(got["model"])), "the loaded weights are not those saved"
    assert same(kept["optimizer"], got["optimizer"]), (
        "the loaded state of the optimizer is not that saved"
    )
    torch.optim.AdamW(nn.Linear(3, 2).parameters()).load_state_dict(got["optimizer"])


@pytest.mark.checks("load_checkpoint")
@pytest.mark.step(4)
def test_load_checkpoint_after_a_death_at_any_moment_gives_one_of_the_two(
    build, tmp_path, monkeypatch
):
    path, old, new = tmp_path / "a.pt", some_state(1), some_state(2)
    for moment in count(1):
        build.save_checkpoint(path, old)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            disk = Disk(build, patch, moment, Killed())
            build.save_checkpoint(path, new)
        try:
            left = loaded(build, path)
        except Exception as error:
            raise AssertionError(
                "after a crash while the second checkpoint was saved (moment "
                f"{moment} before or after a call of os.fsync or os.replace), neither the old nor "
                f"the new one can be loaded ({type(error).__name__})"
            ) from None
        assert same(left, old) or same(left, new), "neither the old nor the new state was loaded"
        if not disk.failed:
            return


def damaged_copies(content):
    """Yield damaged versions of a file, as (description, content)."""
    yield "an empty file", b""
    for share in (0.02, 0.3, 0.7, 0.98):
        yield f"a file cut off after {share:.0%}", content[: int(share * len(content))]
    yield "a file without its last byte", content[:-1]
    for extra in (b"\0", b"\n", b"x", content[-100:], content):
        yield f"a file with {len(extra)} extra byte(s) at its end", content + extra
    spread = set(range(0, len(content), max(1, len(content) // 300)))
    for at in sorted(spread | set(range(min(150, len(content))))):  # every byte of a header
        flipped = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
        yield f"a file whose byte {at} of {len(content)} was changed", flipped
    middle = len(content) // 2
    yield "a file with a hole of zeros", content[:middle] + bytes(512) + content[middle + 512 :]


@pytest.mark.checks("load_checkpoint")
@pytest.mark.step(4)
def test_load_checkpoint_refuses_a_damaged_file(build, tmp_path):
    path, wrong = tmp_path / "a.pt", tmp_path / "b.pt"
    build.save_checkpoint(path, some_state())
    assert same(loaded(build, path), some_state()), "an intact file was not loaded correctly"
    for file in [file for file in tmp_path.iterdir() if file != path]:
        # the checksum may be in a separate file
        wrong.with_name(file.name.replace("a.pt", "b.pt")).write_bytes(file.read_bytes())
    for what, content in damaged_copies(path.read_bytes()):
        wrong.write_bytes(content)
        refused(build, wrong, what)


@pytest.mark.checks("load_checkpoint")
@pytest.mark.step(4)
def test_load_checkpoint_refuses_what_is_not_a_checkpoint(build, tmp_path):
    path = tmp_path / "a.pt"
    build.save_checkpoint(path, some_state())
    loaded(build, path)
    path.unlink()
    refused(build, path, "a file that is not there")
    torch.save(some_state(), path)
    refused(build, path, "a file that torch.save wrote by itself, without any checksum,")
    for what, content in (
        ("a text", b"To be, or not to be, that is the question.\n" * 50),
        ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8),
        ("zeros", bytes(4096)),
    ):
        path.write_bytes(content)
        refused(build, path, what)


class Hostile:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.checks("load_checkpoint")
@pytest.mark.step(4)
def test_load_checkpoint_runs_no_code_from_the_file(build, tmp_path):
    path, trap = tmp_path / "a.pt", tmp_path / "trap"
    build.save_checkpoint(path, some_state())
    loaded(build, path)
    try:
        build.save_checkpoint(path, some_state() | {"model": Hostile(trap)})
    except Exception:
        return  # a save that refuses such objects is as good
    with contextlib.suppress(Exception):
        build.load_checkpoint(path)
    assert not trap.exists(), (
        "loading the file ran code from it. torch.load needs weights_only=True"
    )


# 5. One step of training

TOKENS, VOCAB = 50, 60  # the training part repeats 0 to 49; the other tokens are for validation


class Bigram(nn.Module):
    """A minimal language model, a row of logits for each token, that records its inputs."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.logits = nn.Embedding(VOCAB, VOCAB)
        self.scale = nn.Parameter(torch.ones(VOCAB))
        self.dropout = nn.Dropout(dropout)
        self.read, self.modes = [], []  # of each forward pass with gradients

    def forward(self, idx):
        if torch.is_grad_enabled():
            self.read.append(idx.clone())
            self.modes.append(self.training)
        return self.dropout(self.logits(idx) * self.scale)


class Watched(torch.optim.SGD):
    """SGD that records the learning rates and gradients of each step."""

    def __init__(self, model):
        groups = [{"params": [model.logits.weight]}, {"params": [model.scale]}]
        super().__init__(groups, lr=0.3)
        self.rates, self.grads = [], []

    def step(self, closure=None):
        self.rates.append([float(group["lr"]) for group in self.param_groups])
        self.grads.append([group["params"][0].grad.clone() for group in self.param_groups])
        return super().step(closure)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.3)


RECIPE = {
    "steps": 22, "batch_size": 4, "block_size": 6, "accumulate": 1, "max_lr": 0.1, "min_lr": 0.01,
    "warmup_steps": 3, "clip": 100.0, "eval_every": 5, "seed": 7,
}  # fmt: skip
RATES = [
    schedule(step, max_lr=0.1, min_lr=0.01, warmup_steps=3, total_steps=22) for step in range(22)
]


class Run:
    """A Trainer of the module under test, with its arguments."""

    def __init__(self, build, optimizer=Watched, dropout=0.0, weights=0, **changed):
        torch.manual_seed(weights)
        self.model = Bigram(dropout)
        self.optimizer = optimizer(self.model)
        self.recipe = SimpleNamespace(**RECIPE | changed)
        draw = torch.Generator().manual_seed(1)
        self.val_ids = torch.randint(TOKENS, VOCAB, (60,), generator=draw)
        train_ids = torch.arange(600) % TOKENS
        self.trainer = build.Trainer(
            self.model, self.optimizer, train_ids, self.val_ids, self.recipe
        )
        torch.manual_seed(11)  # for dropout

    def step(self):
        """One step: its row, and the expected values, computed from the windows it has read."""
        before, seen = copy.deepcopy(self.model), len(self.model.read)
        row = self.trainer.step()
        assert isinstance(row, dict), f"step should return a dict of its numbers, got {row!r}"
        windows = self.model.read[seen:]
        assert windows, "the model was not called"
        before.zero_grad()
        parts = [nn.functional.cross_entropy(
            before(x).flatten(0, 1), (x.flatten() + 1) % TOKENS
        ) for x in windows]  # fmt: skip
        sizes = [len(x) for x in windows]
        loss = sum(part * size for part, size in zip(parts, sizes, strict=True)) / sum(sizes)
        loss.backward()
        grads = [before.logits.weight.grad, before.scale.grad]
        expected = SimpleNamespace(
            loss=loss.item(),
            losses=[part.item() for part in parts],
            grads=grads,
            norm=math.sqrt(sum(grad.square().sum().item() for grad in grads)),
            windows=torch.cat(windows),
        )
        return row, expected


def number(row, name):
    assert name in row, f"the row of a step should have {name!r}, it has {', '.join(map(str, row))}"
    return float(row[name])


def factor(got, expected):
    """The norm of the gradients over the expected one; NaN if their directions differ."""
    a, b = (torch.cat([grad.flatten() for grad in grads]) for grads in (got, expected))
    if nn.functional.cosine_similarity(a, b, dim=0) < 0.9999:
        return math.nan
    return (a.norm() / b.norm()).item()


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
def test_Trainer_applies_the_rate_of_the_schedule(build):
    run = Run(build)
    rows = [run.trainer.step() for _ in range(6)]
    assert len(run.optimizer.rates) == 6, (
        f"6 steps should call optimizer.step() 6 times, got {len(run.optimizer.rates)} calls"
    )
    got, expected = [lrs[0] for lrs in run.optimizer.rates], RATES[:6]
    assert got == pytest.approx(expected), (
        f"the first 6 steps should use lr_at's learning rates {shown(expected)}; the optimizer "
        f"had {shown(got)}"
        + why(
            got,
            {
                'the schedule is computed but not applied: group["lr"] = lr': [0.3] * 6,
                "the rate is set after optimizer.step(), for the next step": [0.3, *RATES[:5]],
                "the optimizer's own lr is multiplied by the rate": [0.3 * lr for lr in RATES[:6]],
                "steps count from 1 here, but lr_at counts from 0": RATES[1:7],
            },
        )
    )
    for lrs in run.optimizer.rates:
        assert lrs[1] == pytest.approx(lrs[0]), (
            f"the schedule should set the rate of every parameter group; those of two are {lrs}"
        )
    told = [number(row, "lr") for row in rows]
    assert told == pytest.approx(expected), (
        f'the rows\' "lr" should be {shown(expected)}, got {shown(told)}'
    )


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
def test_Trainer_counts_its_steps_from_one(build):
    run = Run(build)
    got = [number(run.trainer.step(), "step") for _ in range(3)]
    assert got == [1, 2, 3], f'the rows\' "step" should be 1, 2, 3, got {shown(got)}'


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_Trainer_reads_batch_size_windows_and_accumulates_them(build, accumulate):
    run = Run(build, accumulate=accumulate)
    _, expected = run.step()
    B, T = expected.windows.shape
    assert T == 6, f"with block_size=6 the model should read windows of 6 tokens, got {T}"
    assert B == 4 * accumulate, (
        f"a step with batch_size=4 and accumulate={accumulate} should read {4 * accumulate} "
        f"windows, it read {B}"
        + why(B, {"recipe.accumulate is not used": 4.0} if accumulate > 1 else {})
    )
    if accumulate > 1:
        parts = [tuple(window[:, 0].tolist()) for window in expected.windows.split(4)]
        assert len(set(parts)) > 1, f"all {accumulate} parts of a step are the same batch"


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_Trainer_follows_the_mean_gradient_of_its_windows(build, accumulate):
    run = Run(build, accumulate=accumulate)
    _, expected = run.step()
    (got,) = run.optimizer.grads
    times = factor(got, expected.grads)
    assert times == pytest.approx(1.0, rel=1e-3), (
        f"the optimizer should get the gradient of the mean loss over the step's "
        f"{4 * accumulate} windows; "
        + (
            "its gradient has another direction"
            if math.isnan(times)
            else f"its gradient is {times:.4g} times as large"
        )
        + why(
            times,
            {"the parts' losses are added and not averaged": accumulate}
            if accumulate > 1
            else {"backward() is called twice": 2.0},
            abs=1e-2,
        )
    )


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
def test_Trainer_forgets_the_gradients_of_the_step_before(build):
    run = Run(build)
    run.step()
    _, expected = run.step()
    first, got = run.optimizer.grads
    if factor(got, expected.grads) == pytest.approx(1.0, rel=1e-3):
        return
    both = [a + b for a, b in zip(first, expected.grads, strict=True)]
    reason = ""
    if factor(got, both) == pytest.approx(1.0, rel=1e-2):
        reason = (
            ": it is the sum of the first and the second. Call optimizer.zero_grad() before "
            "backward() in every step"
        )
    raise AssertionError(f"the gradient of the second step is not that of its own batch{reason}")


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_Trainer_tells_the_loss_and_the_norm_of_its_batch(build, accumulate):
    run = Run(build, accumulate=accumulate)
    run.step()
    row, expected = run.step()
    got = number(row, "train_loss")
    assert got == pytest.approx(expected.loss, rel=1e-4), (
        f"the mean loss of the step's {4 * accumulate} windows, before the update, is "
        f"{expected.loss:.5f}; train_loss is {got:.5f}"
        + why(
            got,
            {
                "the parts' losses are added and not averaged": sum(expected.losses),
                "it is the loss of the last part alone": expected.losses[-1],
                "it is the last part's share of the loss": expected.losses[-1] / accumulate,
            },
            abs=1e-4,
        )
    )
    got = number(row, "grad_norm")
    assert got == pytest.approx(expected.norm, rel=1e-3), (
        f"the norm of the gradient is {expected.norm:.5f}, grad_norm is {got:.5f}"
    )


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
def test_Trainer_draws_new_windows_for_every_step_from_its_seed(build):
    def read(**changed):
        run = Run(build, **changed)
        for _ in range(3):
            run.trainer.step()
        return run.model.read

    first, again, other = read(), read(), read(seed=8)
    assert not torch.equal(first[0], first[1]), "the second step read the first one's windows again"
    assert torch.equal(torch.cat(first), torch.cat(again)), (
        "two Trainers with the same recipe read different windows: recipe.seed should decide"
    )
    assert not torch.equal(torch.cat(first), torch.cat(other)), (
        "Trainers with seed=7 and seed=8 read the same windows: recipe.seed should decide"
    )


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
def test_Trainer_never_trains_on_the_validation_part(build):
    run = Run(build, batch_size=40)
    for _ in range(5):
        run.trainer.step()
    leaked = sorted(set(torch.cat(run.model.read).flatten().tolist()) & set(range(TOKENS, VOCAB)))
    assert not leaked, (
        f"tokens {leaked} occur only in the validation part, and the model was trained on them: "
        "its validation loss now measures memorisation"
    )


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
def test_Trainer_clips_the_gradient_of_the_whole_step(build):
    run = Run(build, accumulate=2, clip=0.01)
    row, expected = run.step()
    (got,) = run.optimizer.grads
    clipped = [grad * 0.01 / expected.norm for grad in expected.grads]
    times = factor(got, clipped)
    assert times == pytest.approx(1.0, rel=1e-2), (
        f"with clip=0.01 the optimizer should get the gradient, of norm {expected.norm:.4f}, "
        "scaled to norm 0.01; "
        + (
            "its gradient has another direction: are the parts clipped one by one?"
            if math.isnan(times)
            else f"its gradient has norm {0.01 * times:.4f}"
        )
        + why(times, {"the gradients were not clipped": expected.norm / 0.01}, abs=1.0)
    )
    told = number(row, "grad_norm")
    assert told == pytest.approx(expected.norm, rel=1e-3), (
        f"grad_norm should be the norm before clipping, {expected.norm:.4f}, got {told:.4f}"
        + why(told, {"it is the norm after clipping": 0.01}, abs=1e-3)
    )


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
def test_Trainer_skips_a_step_whose_gradient_is_not_finite(build, bad):
    run = Run(build, adamw)
    run.trainer.step()
    weights = copy.deepcopy(run.model.state_dict())
    optimizer = copy.deepcopy(run.optimizer.state_dict()["state"])
    damage = torch.zeros(VOCAB, VOCAB)
    damage[0, 0] = bad
    hook = run.model.logits.weight.register_hook(lambda grad: grad + damage)
    row = run.trainer.step()
    hook.remove()
    for name, value in run.model.state_dict().items():
        assert torch.equal(weights[name], value), (
            f"a gradient of {bad} changed the weights: the update should be skipped if the norm is "
            "not finite"
        )
    assert same(optimizer, run.optimizer.state_dict()["state"]), (
        f"a gradient of {bad} did not change the weights, but the optimizer's state: skip "
        "optimizer.step()"
    )
    assert not math.isfinite(number(row, "grad_norm")), (
        f"grad_norm should be the norm of that gradient, got {row['grad_norm']}"
    )
    following = run.trainer.step()
    assert math.isfinite(number(following, "grad_norm")), (
        "the step after a skipped one still has its gradient"
    )
    assert number(following, "step") == 3, (
        f"a skipped step counts: the next one is step 3, not {following['step']}"
    )


@pytest.mark.checks("Trainer")
@pytest.mark.step(5)
def test_Trainer_trains_in_training_mode(build):
    run = Run(build)
    run.model.eval()
    run.trainer.step()
    assert all(run.model.modes), (
        "the model was in evaluation mode in a training step, without dropout: call model.train()"
    )


# 6. The loop


@pytest.mark.checks("Trainer")
@pytest.mark.step(6)
def test_Trainer_run_goes_to_the_last_step_and_the_loss_falls(build):
    run = Run(build, adamw)
    rows = list(run.trainer.run())
    got = [int(number(row, "step")) for row in rows]
    assert got == list(range(1, 23)), f"a run of 22 steps should yield rows 1 to 22, got {got}"
    first, last = (number(rows[i], "train_loss") for i in (0, -1))
    assert last < first - 0.1, f"the loss does not fall: from {first:.3f} to {last:.3f}"


@pytest.mark.checks("Trainer")
@pytest.mark.step(6)
def test_Trainer_run_gives_each_row_when_its_step_is_done(build):
    run = Run(build)
    run.trainer.step()
    row = next(iter(run.trainer.run()))
    assert number(row, "step") == 2, (
        f"after one step() the first row of run() should be that of step 2, got {row['step']}"
    )
    done = len(run.optimizer.rates)
    assert done == 2, (
        f"when run() yields the row of step 2, {done} steps are done: yield each row right after "
        "its step, so that the caller can save or stop"
    )


@pytest.mark.checks("Trainer")
@pytest.mark.step(6)
def test_Trainer_run_validates_every_eval_every_steps_and_at_the_end(build):
    run = Run(build, adamw, dropout=0.5)
    found = {}
    for row in run.trainer.run():
        if "val_loss" in row:
            logits = (run.model.logits.weight * run.model.scale).detach()[run.val_ids[:-1]]
            expected = nn.functional.cross_entropy(logits, run.val_ids[1:]).item()
            found[int(row["step"])] = float(row["val_loss"]), expected
    assert list(found) == [5, 10, 15, 20, 22], (
        "with eval_every=5 and 22 steps, the rows of steps 5, 10, 15, 20 and 22 should have "
        f"val_loss; those of {list(found)} have"
    )
    for step, (got, expected) in found.items():
        assert got == pytest.approx(expected, rel=1e-4), (
            f"after step {step} the loss over the whole validation part is {expected:.5f}, "
            f"val_loss is {got:.5f}"
        )
    assert all(run.model.modes), "after a validation the model stays in evaluation mode"


# 7. Stop and resume


def describe_first_difference(first, second):
    """What the resumed Trainer did not restore; or None."""
    if not same(dict(first.model.state_dict()), dict(second.model.state_dict())):
        return "the weights are not those of the state"
    if not same(first.optimizer.state_dict()["state"], second.optimizer.state_dict()["state"]):
        return "the optimizer's state (AdamW's moments) was not restored"
    return None


@pytest.mark.checks("Trainer")
@pytest.mark.step(7)
@pytest.mark.parametrize("dropout", [0.0, 0.5], ids=["no dropout", "dropout"])
def test_Trainer_goes_on_exactly_where_its_state_was_taken(build, tmp_path, dropout):
    given = {"optimizer": adamw, "dropout": dropout}
    straight = Run(build, **given)
    rows = list(straight.trainer.run())
    first = Run(build, **given)
    for _ in range(9):
        first.trainer.step()
    state = first.trainer.state()
    assert isinstance(state, dict), f"state should return a dict, got {type(state).__name__}"
    build.save_checkpoint(tmp_path / "a.pt", state)
    second = Run(build, weights=5, **given)  # another process: other weights, other random numbers
    second.trainer.load_state(loaded(build, tmp_path / "a.pt"))
    wrong = describe_first_difference(first, second)
    assert not wrong, f"after load_state {wrong}"
    again = list(second.trainer.run())
    steps = [int(number(row, "step")) for row in again]
    assert steps == list(range(10, 23)), (
        f"a run of 22 steps that is resumed after step 9 should do steps 10 to 22, got {steps}: "
        "the number of steps done belongs in the state"
    )
    got, expected = (number(row, "lr") for row in (again[0], rows[9]))
    assert got == pytest.approx(expected), (
        f"step 10 has the learning rate {got:.4g} after a restart, and {expected:.4g} without one"
    )
    read = second.model.read[0]
    assert torch.equal(read, straight.model.read[9]), (
        "step 10 after a restart reads other windows than without one"
        + (
            ": those of the first batch. The generator's state belongs in the state"
            if torch.equal(read, straight.model.read[0])
            else ". The state of the generator that draws them belongs in the state"
        )
    )
    for theirs, ours in zip(rows[9:], again, strict=True):
        got, expected = number(ours, "train_loss"), number(theirs, "train_loss")
        assert got == pytest.approx(expected, rel=1e-5), (
            f"step {ours['step']} after a restart at 9 has loss {got:.6f}, without one "
            f"{expected:.6f}, with the same weights and windows"
            + (
                ": dropout draws from torch's global random state, which belongs in the state too "
                "(torch.get_rng_state)"
                if dropout
                else ""
            )
        )
    for name, value in straight.model.state_dict().items():
        assert torch.allclose(value, second.model.state_dict()[name], rtol=1e-4, atol=1e-6), (
            "the resumed run has the same rows as an uninterrupted one, but other final weights"
        )
