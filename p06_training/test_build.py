"""Is what I typed right? `pytest p06_training` asks that of the training loop's parts, in the
book's order: the schedule, the clipping, the checkpoint, and the loop that uses them."""

import copy
import inspect
import math
import os
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

# lr_at


def rates(build, steps, **changed):
    schedule = {"max_lr": 8.0, "min_lr": 2.0, "warmup_steps": 4, "total_steps": 12} | changed
    return [float(build.lr_at(step, **schedule)) for step in steps]


def shown(numbers):
    return "[" + ", ".join(f"{number:.4g}" for number in numbers) + "]"


def why(got, mistakes):
    for reason, result in mistakes.items():
        if got == pytest.approx(result, abs=1e-6):
            return f"\nThe usual reason: {reason}."
    return ""


@pytest.mark.checks("lr_at")
def test_lr_at_gives_one_number(build):
    for step, where in ((3, "in the warmup"), (50, "on the cosine"), (100, "at the end")):
        got = build.lr_at(step, max_lr=1e-3, min_lr=1e-4, warmup_steps=10, total_steps=100)
        assert isinstance(got, float | int), (
            f"lr_at should return a number, got {type(got).__name__} {where} (a missing return?)"
        )


@pytest.mark.checks("lr_at")
def test_lr_at_the_first_step_already_learns(build):
    (got,) = rates(build, [0])
    assert got == pytest.approx(2.0), (
        f"with max_lr 8 and 4 warmup steps, step 0 should have 8 * 1 / 4 = 2, got {got:.4g}"
        + why(
            got,
            {
                "step / warmup_steps is zero at step 0, a step that learns nothing": 0.0,
                "no warmup": 8.0,
                "the warmup starts from min_lr": 2.0 + 6.0 / 4,
            },
        )
    )


@pytest.mark.checks("lr_at")
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
def test_lr_at_begins_below_min_lr_when_the_warmup_is_long(build):
    (got,) = rates(build, [0], warmup_steps=16, total_steps=40)
    assert got == pytest.approx(0.5), (
        f"the first of 16 warmup steps to 8 has 8 / 16 = 0.5, got {got:.4g}"
        + why(got, {"min_lr holds only after the warmup": 2.0})
    )


@pytest.mark.checks("lr_at")
def test_lr_at_leaves_max_lr_where_the_warmup_ends(build):
    (got,) = rates(build, [4])
    assert got == pytest.approx(8.0), (
        f"step 4, the first after 4 warmup steps, is where the cosine begins: 8, got {got:.4g}"
        + why(
            got,
            {
                "the cosine has been running since step 0": 2 + 3 * (1 + math.cos(math.pi / 3)),
                "the cosine is a step ahead": 2 + 3 * (1 + math.cos(math.pi / 8)),
                "the warmup goes on a step too long": 10.0,
            },
        )
    )


@pytest.mark.checks("lr_at")
def test_lr_at_half_way_down_is_half_way_between(build):
    got, expected = rates(build, [6, 8, 10]), [5 + 3 / math.sqrt(2), 5.0, 5 - 3 / math.sqrt(2)]
    straight = [6.5, 5.0, 3.5]
    assert got == pytest.approx(expected), (
        "a quarter, half and three quarters of the way from 8 down to 2 a cosine stands at "
        f"{shown(expected)}, got {shown(got)}"
        + why(
            got,
            {
                "a straight line, not a cosine": straight,
                "the cosine runs over all steps, the warmup's too": [
                    2 + 3 * (1 + math.cos(math.pi * step / 12)) for step in (6, 8, 10)
                ],
                "total_steps counts from the end of the warmup": [
                    2 + 3 * (1 + math.cos(math.pi * (step - 4) / 12)) for step in (6, 8, 10)
                ],
                "min_lr is added to the whole of max_lr, not to what is between them": [
                    2 + 4 * (1 + math.cos(math.pi * q)) for q in (0.25, 0.5, 0.75)
                ],
                "min_lr is left out": [4 * (1 + math.cos(math.pi * q)) for q in (0.25, 0.5, 0.75)],
                "min_lr cuts the cosine off instead of being where it ends": [
                    max(2.0, 4 * (1 + math.cos(math.pi * q))) for q in (0.25, 0.5, 0.75)
                ],
                "cosine of half a turn too little: cos(pi/2 * x)": [
                    2 + 6 * math.cos(math.pi / 2 * q) for q in (0.25, 0.5, 0.75)
                ],
                "the cosine goes up": [5 - 3 / math.sqrt(2), 5.0, 5 + 3 / math.sqrt(2)],
                "no decay": [8.0, 8.0, 8.0],
            },
        )
    )


@pytest.mark.checks("lr_at")
def test_lr_at_reaches_min_lr_at_total_steps_and_not_before(build):
    got = rates(build, [11, 12])
    last = 2 + 3 * (1 + math.cos(math.pi * 7 / 8))
    assert got == pytest.approx([last, 2.0]), (
        f"steps 11 and 12 of 12 should have {shown([last, 2.0])}: the cosine ends at total_steps, "
        f"not at the step before it; got {shown(got)}"
        + why(got, {"it ends at total_steps - 1": [2.0, 2.0]})
    )


@pytest.mark.checks("lr_at")
def test_lr_at_stays_at_min_lr_ever_after(build):
    got = rates(build, [12, 13, 16, 20, 28, 1000])
    assert got == pytest.approx([2.0] * 6), (
        f"from total_steps on the rate is min_lr = 2, got {shown(got)}: "
        "without a stop the cosine climbs again"
    )


@pytest.mark.checks("lr_at")
@pytest.mark.parametrize("warmup", [1, 0], ids=["warmup=1", "warmup=0"])
def test_lr_at_with_hardly_a_warmup(build, warmup):
    got = rates(build, [0, warmup], warmup_steps=warmup)
    assert got == pytest.approx([8.0, 8.0]), (
        f"with warmup_steps={warmup} steps 0 and {warmup} should have max_lr = 8, got {shown(got)}"
    )


@pytest.mark.checks("lr_at")
def test_lr_at_can_end_at_zero(build):
    got = rates(build, [8, 12, 50], min_lr=0.0)
    assert got == pytest.approx([4.0, 0.0, 0.0], abs=1e-9), (
        f"from 8 to 0, half way, at the end and after it: [4, 0, 0], got {shown(got)}"
    )


@pytest.mark.checks("lr_at")
@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0])
def test_lr_at_scales_with_its_two_rates(build, scale):
    got = rates(build, range(0, 14), max_lr=8 * scale, min_lr=2 * scale)
    expected = [scale * rate for rate in rates(build, range(0, 14))]
    assert got == pytest.approx(expected), (
        f"twice the two rates is twice the schedule; times {scale}:\n{shown(expected)}\ngot\n"
        f"{shown(got)}\nIs a number built in that should come from max_lr or min_lr?"
    )


@pytest.mark.checks("lr_at")
def test_lr_at_rises_then_falls_and_never_leaves_its_bounds(build):
    schedule = {"max_lr": 3e-3, "min_lr": 1e-4, "warmup_steps": 37, "total_steps": 500}
    got = rates(build, range(600), **schedule)
    up, down = got[:37], got[37:]
    assert all(a < b for a, b in pairwise(up)), "the warmup should only rise"
    assert all(a >= b for a, b in pairwise(down)), "after the warmup the rate should only fall"
    assert max(got) == pytest.approx(3e-3) and min(down) == pytest.approx(1e-4), (
        f"the rates should span min_lr 1e-4 to max_lr 3e-3, got {min(down):.3g} to {max(got):.3g}"
    )


# clip_grad_norm


def parameters(*grads):
    """A parameter of ones for each gradient; None for one that has none."""
    made = []
    for grad in grads:
        values = torch.zeros(2) if grad is None else torch.as_tensor(grad, dtype=torch.float32)
        made.append(nn.Parameter(torch.ones_like(values)))
        made[-1].grad = None if grad is None else values.clone()
    return made


def grads_of(made):
    return [None if p.grad is None else p.grad.tolist() for p in made]


def norm_returned(build, made, max_norm):
    got = build.clip_grad_norm(made, max_norm)
    assert got is not None, "clip_grad_norm should return the norm, got None (a missing return?)"
    return float(got)


@pytest.mark.checks("clip_grad_norm")
def test_clip_grad_norm_returns_the_joint_norm(build):
    got = norm_returned(build, parameters([3.0, 0.0], [[0.0], [4.0]]), 100.0)
    assert got == pytest.approx(5.0), (
        f"gradients of norm 3 and 4 have the joint norm sqrt(9 + 16) = 5, got {got:.4g}"
        + why(
            got,
            {
                "the norms are added": 7.0,
                "the root is missing": 25.0,
                "the largest entry, not the length": 4.0,
                "the mean of the squares instead of their sum": 2.5,
                "the length of the weights, not of the gradients": 2.0,
                "the mean of the norms": 3.5,
                "max_norm is returned": 100.0,
            },
        )
    )


@pytest.mark.checks("clip_grad_norm")
def test_clip_grad_norm_returns_the_norm_before_clipping(build):
    got = norm_returned(build, parameters([30.0], [40.0]), 1.0)
    assert got == pytest.approx(50.0), f"the norm before clipping is 50, got {got:.4g}" + why(
        got,
        {
            "it is measured after the gradients were scaled": 1.0,
            "the factor is returned": 0.02,
        },
    )


@pytest.mark.checks("clip_grad_norm")
def test_clip_grad_norm_scales_all_gradients_by_one_factor(build):
    made = parameters([3.0, 0.0], [[0.0], [4.0]])
    norm_returned(build, made, 1.0)
    flat = torch.cat([p.grad.flatten() for p in made]).tolist()
    assert flat == pytest.approx([0.6, 0, 0, 0.8], abs=1e-4), (
        "gradients [3, 0] and [0, 4], joint norm 5, clipped to 1: all divided by 5, "
        f"[0.6, 0, 0, 0.8], got {shown(flat)}"
        + why(
            [round(number, 3) for number in flat],
            {
                "each tensor is clipped by itself, which turns the step": [1.0, 0, 0, 1.0],
                "each number is cut off, which turns the step": [1.0, 0, 0, 1.0],
                "nothing was changed in place; assign to or scale parameter.grad": [3.0, 0, 0, 4.0],
                "divided by the square of the norm": [0.12, 0, 0, 0.16],
                "only the first gradient was scaled": [0.6, 0, 0, 4.0],
                "the factor is applied twice": [0.12, 0, 0, 0.16],
                "divided by the norm's sum over tensors": [0.429, 0, 0, 0.571],
            },
        )
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.parametrize("max_norm", [0.5, 2.0, 7.0])
def test_clip_grad_norm_cuts_to_max_norm(build, max_norm):
    made = parameters([30.0, -10.0], [[5.0, 1.0]], [2.0])
    norm_returned(build, made, max_norm)
    after = torch.cat([p.grad.flatten() for p in made]).norm().item()
    assert after == pytest.approx(max_norm, rel=1e-3), (
        f"after clipping to {max_norm} the joint norm should be {max_norm}, got {after:.4g}"
        + why(after, {"the result has norm 1 whatever max_norm is": 1.0})
    )


@pytest.mark.checks("clip_grad_norm")
def test_clip_grad_norm_leaves_short_gradients_alone(build):
    made = parameters([0.3, 0.0], [0.0, 0.4])
    norm_returned(build, made, 1.0)
    got, expected = grads_of(made), grads_of(parameters([0.3, 0.0], [0.0, 0.4]))
    assert got == expected, (
        f"a joint norm of 0.5 is below max_norm 1: nothing to do, yet the gradients became {got}. "
        "Clipping never makes a gradient longer"
    )


@pytest.mark.checks("clip_grad_norm")
def test_clip_grad_norm_takes_a_generator(build):
    made = parameters([3.0], [4.0])
    got = norm_returned(build, (p for p in made), 1.0)
    assert got == pytest.approx(5.0), f"given a generator the norm should be 5, got {got:.4g}"
    flat = [p.grad.item() for p in made]
    assert flat == pytest.approx([0.6, 0.8], abs=1e-4), (
        f"model.parameters() is a generator and can be walked once; the gradients are {flat} "
        "instead of [0.6, 0.8]. Put it into a list before the first loop"
    )


@pytest.mark.checks("clip_grad_norm")
def test_clip_grad_norm_passes_over_parameters_without_gradient(build):
    made = parameters(None, [3.0, 4.0], None)
    got = norm_returned(build, made, 1.0)
    assert got == pytest.approx(5.0), f"the norm should be 5, got {got:.4g}"
    assert made[0].grad is None and made[2].grad is None, "a gradient appeared where there was none"
    assert made[1].grad.tolist() == pytest.approx([0.6, 0.8], abs=1e-4)


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.parametrize("grads", [[], [None, None]], ids=["no parameters", "no gradients"])
def test_clip_grad_norm_without_any_gradient_is_zero(build, grads):
    got = norm_returned(build, parameters(*grads), 1.0)
    assert got == 0.0, f"no gradient has length 0, got {got}"


@pytest.mark.checks("clip_grad_norm")
def test_clip_grad_norm_of_zero_gradients_is_zero(build):
    made = parameters([0.0, 0.0], [0.0])
    got = norm_returned(build, made, 1.0)
    assert got == 0.0 and grads_of(made) == [[0.0, 0.0], [0.0]], (
        f"zero gradients stay zero with norm 0; got norm {got}, gradients {grads_of(made)} "
        "(0 / 0 is NaN)"
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=["nan", "inf", "-inf"])
def test_clip_grad_norm_keeps_its_hands_off_a_norm_that_is_no_number(build, bad):
    made = parameters([1.0, bad], [2.0, 300.0])
    got = norm_returned(build, made, 1.0)
    assert not math.isfinite(got), (
        f"a gradient with {bad} has no finite norm, got {got}: the caller must be able to see it"
    )
    if math.isinf(bad):
        assert got == math.inf, f"the norm of an infinite gradient is infinite, got {got}"
    first, second = grads_of(made)
    assert second == [2.0, 300.0] and first[0] == 1.0 and str(first[1]) == str(bad), (
        f"with {bad} among the gradients they should stay as they are, got {first} and {second}: "
        "dividing by the norm spreads the damage, replacing it hides it"
    )


@pytest.mark.checks("clip_grad_norm")
def test_clip_grad_norm_leaves_the_weights_alone(build):
    made = parameters([30.0], [40.0, 1.0])
    norm_returned(build, made, 1.0)
    assert all(torch.equal(p.detach(), torch.ones_like(p)) for p in made), (
        "the weights changed; only their .grad should"
    )


@pytest.mark.checks("clip_grad_norm")
@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e6], ids=["cut", "cut less", "not cut"])
def test_clip_grad_norm_agrees_with_torch(build, max_norm):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    theirs = copy.deepcopy(ours)
    x = torch.randn(4, 5)
    for model in (ours, theirs):
        (model(x) ** 2).sum().backward()
    got = norm_returned(build, ours.parameters(), max_norm)
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm).item()
    assert got == pytest.approx(expected, rel=1e-5)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3), (
            f"max_norm {max_norm}: gradients differ from torch.nn.utils.clip_grad_norm_ by a "
            f"factor of {(p.grad.norm() / q.grad.norm()).item():.4g}"
        )


# save_checkpoint and load_checkpoint


def some_state(seed=0, size=40):
    draw = torch.Generator().manual_seed(seed)
    return {
        "model": {"weight": torch.randn(size, 3, generator=draw), "n": torch.tensor(7)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(5, generator=draw)}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95), "fused": None, "params": [0, 1]}],
        },
        "generator": draw.get_state(),
        "half": torch.randn(4, generator=draw).bfloat16(),
        "step": 250,
        "best_loss": math.inf,
        "name": "Zoë",
        "done": False,
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def refused(build, path, what):
    """load_checkpoint(path) must raise CheckpointError; returns its line."""
    try:
        build.load_checkpoint(path)
    except build.CheckpointError as error:
        text = str(error)
        assert text.strip() and "\n" not in text.strip(), (
            f"{what}: the CheckpointError should say in one line what is wrong, it says {text!r}"
        )
        return text
    except Exception as error:
        raise AssertionError(
            f"{what} should raise CheckpointError, got {type(error).__name__}: {error}"
        ) from None
    raise AssertionError(f"{what} was loaded as if nothing were wrong")


@pytest.mark.checks("save_checkpoint", "load_checkpoint")
@pytest.mark.parametrize("kind", [str, Path], ids=["path as str", "path as Path"])
def test_save_checkpoint_then_load_checkpoint_gives_the_same(build, tmp_path, kind):
    path, state = kind(tmp_path / "step_0000250.pt"), some_state()
    build.save_checkpoint(path, state)
    assert Path(path).is_file(), f"save_checkpoint wrote no file of the name it was given: {path}"
    got = build.load_checkpoint(path)
    assert got is not None, "load_checkpoint should return the state (a missing return?)"
    for key, value in state.items():
        assert key in got, f"{key!r} did not come back; there are {sorted(got)}"
        assert same(value, got[key]), f"{key!r} went in as {value!r}\nand came back as {got[key]!r}"


@pytest.mark.checks("save_checkpoint", "load_checkpoint")
def test_save_checkpoint_holds_what_an_optimizer_goes_on_from(build, tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    build.save_checkpoint(tmp_path / "a.pt", state)
    kept = copy.deepcopy(state)
    with torch.no_grad():
        model.weight.zero_()
    got = build.load_checkpoint(tmp_path / "a.pt")
    assert same(
        kept,
        {"model": dict(got["model"]), "optimizer": got["optimizer"]}
        | {"model": type(kept["model"])(got["model"])},
    ), "the weights or the optimizer's state changed on their way through the file"
    torch.optim.AdamW(nn.Linear(3, 2).parameters()).load_state_dict(got["optimizer"])


@pytest.mark.checks("save_checkpoint")
def test_save_checkpoint_replaces_the_one_before(build, tmp_path):
    path = tmp_path / "a.pt"
    build.save_checkpoint(path, some_state(1, size=900))
    build.save_checkpoint(path, some_state(2, size=10))
    assert same(build.load_checkpoint(path), some_state(2, size=10)), (
        "saving to the same name again should leave the second state, all of it and only it"
    )


@pytest.mark.checks("save_checkpoint")
def test_save_checkpoint_that_fails_leaves_the_one_before(build, tmp_path):
    path = tmp_path / "a.pt"
    build.save_checkpoint(path, some_state())
    cannot_be_saved = some_state() | {"oops": lambda: None}
    try:
        build.save_checkpoint(path, cannot_be_saved)
    except Exception:
        pass
    else:
        pytest.skip("this one can even save a function")
    try:
        left = build.load_checkpoint(path)
    except Exception as error:
        raise AssertionError(
            "saving failed half way, and the checkpoint that was there before is gone "
            f"({type(error).__name__}). Write to another name first, rename when all is there"
        ) from None
    assert same(left, some_state())


@pytest.mark.checks("save_checkpoint")
@pytest.mark.skipif(sys.platform == "win32", reason="a full disk is played with setrlimit")
def test_save_checkpoint_on_a_full_disk_says_so_and_leaves_the_one_before(build, tmp_path):
    import resource

    path = tmp_path / "a.pt"
    build.save_checkpoint(path, some_state())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        build.save_checkpoint(path, some_state(size=100_000))
    except Exception:
        pass
    else:
        raise AssertionError("the disk was full and save_checkpoint did not raise")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(build.load_checkpoint(path), some_state()), "the checkpoint of before was changed"
    good = [other for other in tmp_path.iterdir() if not other.name.startswith(".")]
    for other in good:
        if other != path and other.stat().st_size > 100_000:
            raise AssertionError(
                f"{other.name}, cut short by the full disk, is left behind under a name that does "
                "not begin with a dot"
            )


class Watch:
    """Notes in which order files are forced to the disk and given their name."""

    def __init__(self, build, monkeypatch):
        self.synced, self.renamed = [], []
        for name, note in (
            ("fsync", self.sync),
            ("fdatasync", self.sync),
            ("replace", self.rename),
            ("rename", self.rename),
        ):
            real = getattr(os, name, None)
            if real is None:
                continue
            wrapped = note(real)
            monkeypatch.setattr(os, name, wrapped)
            if getattr(build, name, None) is real:  # from os import fsync
                monkeypatch.setattr(build, name, wrapped)

    def sync(self, real):
        def noted(file, *rest, **named):
            descriptor = file if isinstance(file, int) else file.fileno()
            status = os.fstat(descriptor)
            self.synced.append((status.st_ino, status.st_size))
            return real(file, *rest, **named)

        return noted

    def rename(self, real):
        def noted(source, target, *rest, **named):
            status = os.stat(source)
            self.renamed.append(
                (Path(source), Path(target), (status.st_ino, status.st_size) in self.synced)
            )
            return real(source, target, *rest, **named)

        return noted


@pytest.mark.checks("save_checkpoint")
@pytest.mark.parametrize("size", [1, 2000], ids=["small", "large"])
def test_save_checkpoint_forces_the_content_to_the_disk_before_it_gets_its_name(
    build, tmp_path, monkeypatch, size
):
    path = tmp_path / "a.pt"
    with monkeypatch.context() as patch:
        watch = Watch(build, patch)
        build.save_checkpoint(path, some_state(size=size) if size > 1 else {"step": 1})
    given = [rename for rename in watch.renamed if rename[1].name == path.name]
    assert given, (
        f"{path.name} was written in place: a kill half way leaves half a file. Write to another "
        "name in the same folder, then os.replace"
    )
    source, _, synced = given[-1]
    assert source.parent.resolve() == tmp_path.resolve(), (
        f"the unfinished file is in {source.parent}, another folder: renaming is one step only "
        "within a file system"
    )
    assert source.name.startswith(".") or not source.name.endswith(".pt"), (
        f"{source.name} is what a kill half way leaves, and whoever looks for *.pt finds it: "
        "give the unfinished file a name that begins with a dot"
    )
    assert watch.synced, (
        "os.fsync was never called: after a power failure the name may be there without the content"
    )
    assert synced, (
        "when the file got its name, not all of it had been forced to the disk; the order is "
        "write, flush, os.fsync(file.fileno()), os.replace"
    )


@pytest.mark.checks("save_checkpoint")
def test_save_checkpoint_leaves_nothing_else_behind(build, tmp_path):
    for seed in range(3):
        build.save_checkpoint(tmp_path / "a.pt", some_state(seed))
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    size = max(sizes.values())
    copies = [name for name in sizes if name != "a.pt" and sizes[name] > size / 2]
    assert not copies, f"unfinished files were left behind: {copies}"


def damaged_copies(content):
    """What may happen to a file, as (description, content)."""
    yield "an empty file", b""
    for share in (0.02, 0.3, 0.7, 0.98):
        yield f"a file cut off after {share:.0%}", content[: int(share * len(content))]
    yield "a file without its last byte", content[:-1]
    for extra in (b"\0", b"\n", b"x", content[-100:], content):
        yield f"a file with {len(extra)} byte(s) more at its end", content + extra
    spread = set(range(0, len(content), max(1, len(content) // 400)))
    for at in sorted(spread | set(range(min(300, len(content))))):  # every byte of a header
        flipped = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
        yield f"a file whose byte {at} of {len(content)} was changed", flipped
    middle = len(content) // 2
    yield "a file with a hole of zeros", content[:middle] + bytes(512) + content[middle + 512 :]


@pytest.mark.checks("load_checkpoint")
def test_load_checkpoint_raises_a_ValueError_of_its_own(build, tmp_path):
    refused(build, tmp_path / "missing.pt", "a file that is not there")
    assert issubclass(build.CheckpointError, ValueError), (
        "CheckpointError should be derived from ValueError"
    )
    assert build.CheckpointError is not ValueError, "CheckpointError should be a class of its own"


@pytest.mark.checks("load_checkpoint")
def test_load_checkpoint_refuses_a_damaged_file(build, tmp_path):
    path, wrong = tmp_path / "a.pt", tmp_path / "b.pt"
    build.save_checkpoint(path, some_state())
    assert same(build.load_checkpoint(path), some_state())
    files = [file for file in tmp_path.iterdir() if file != path]
    for file in files:  # a checksum may live in a file of its own
        wrong.with_name(file.name.replace("a.pt", "b.pt")).write_bytes(file.read_bytes())
    for what, content in damaged_copies(path.read_bytes()):
        wrong.write_bytes(content)
        refused(build, wrong, what)


@pytest.mark.checks("load_checkpoint")
def test_load_checkpoint_refuses_what_is_not_a_checkpoint(build, tmp_path):
    path = tmp_path / "a.pt"
    torch.save(some_state(), path)
    refused(build, path, "a file that torch.save wrote by itself, without any checksum,")
    for what, content in (
        ("a text", b"To be, or not to be, that is the question.\n" * 50),
        ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8),
        ("zeros", bytes(4096)),
    ):
        path.write_bytes(content)
        refused(build, path, what)
    path.unlink()
    path.mkdir()
    refused(build, path, "a folder")


class Hostile:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.checks("load_checkpoint")
def test_load_checkpoint_runs_no_code_from_the_file(build, tmp_path):
    path, trap = tmp_path / "a.pt", tmp_path / "trap"
    build.save_checkpoint(path, some_state())
    build.load_checkpoint(path)
    try:
        build.save_checkpoint(path, some_state() | {"model": Hostile(trap)})
    except Exception:
        return  # a save that takes only numbers is as good
    try:
        build.load_checkpoint(path)
    except build.CheckpointError:
        outcome = "refused"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}".split("\n")[0]
    else:
        outcome = "loaded"
    assert not trap.exists(), (
        "loading the file ran a command that stood in it. torch.load needs weights_only=True"
    )
    assert outcome == "refused", (
        f"a file with more than tensors and numbers should raise CheckpointError, got: {outcome}"
    )


# Trainer


class Bigram(nn.Module):
    """The least that a trainer can train: a row of logits for each token; notes what it reads."""

    def __init__(self, vocab=16):
        super().__init__()
        self.logits = nn.Embedding(vocab, vocab)
        self.seen = set()

    def forward(self, idx):
        if self.training:
            self.seen |= set(idx.flatten().tolist())
        return self.logits(idx)


OURS = ["model", "optimizers", "train_ids", "val_ids", "recipe"]
RECIPE = {
    "steps": 20, "batch_size": 4, "block_size": 6, "accumulate": 1, "max_lr": 0.1, "min_lr": 0.01,
    "warmup_steps": 3, "clip": 1.0, "eval_every": 5, "seed": 7,
}  # fmt: skip


def trainer(build, optimizer=torch.optim.AdamW, **changed):
    """A Trainer on sixteen tokens: 0 to 9 in the training part, 10 to 15 in the validation part."""
    given = build.Trainer
    if list(inspect.signature(given).parameters)[: len(OURS)] != OURS:
        pytest.skip("this Trainer takes other arguments; test_train.py checks the command line")
    torch.manual_seed(0)
    model = Bigram()
    draw = torch.Generator().manual_seed(1)
    train_ids = torch.randint(0, 10, (300,), generator=draw)
    val_ids = torch.randint(10, 16, (60,), generator=draw)
    optimizers = [optimizer(model.parameters(), lr=1.0)]
    recipe = SimpleNamespace(**RECIPE | changed)
    return given(model, optimizers, train_ids, val_ids, recipe)


@pytest.fixture
def has_trainer(build):
    """Whoever leaves the loop to us, or writes it with other arguments, skips its checks."""
    if not hasattr(build, "Trainer"):
        pytest.skip("there is no Trainer here")


@pytest.mark.checks("Trainer")
@pytest.mark.usefixtures("has_trainer")
def test_Trainer_gives_a_row_for_every_step(build):
    rows = list(trainer(build).run())
    assert [row["step"] for row in rows] == list(range(1, 21)), "20 steps, counted from 1"
    assert [row["step"] for row in rows if "val_loss" in row] == [5, 10, 15, 20]
    expected = [
        build.lr_at(i, max_lr=0.1, min_lr=0.01, warmup_steps=3, total_steps=20) for i in range(20)
    ]
    assert [row["lr"] for row in rows] == pytest.approx(expected), "the rates are those of lr_at"
    assert rows[-1]["train_loss"] < rows[0]["train_loss"], "the loss does not fall"


@pytest.mark.checks("Trainer")
@pytest.mark.usefixtures("has_trainer")
def test_Trainer_forgets_the_gradients_of_the_step_before(build):
    one = trainer(build, torch.optim.SGD, max_lr=1e-9, min_lr=1e-9, clip=1e9)  # stands still
    norms = [row["grad_norm"] for row in one.run()]
    assert norms[-1] < 2 * norms[0], (
        f"on weights that hardly move the gradient norm grows from {norms[0]:.3g} to "
        f"{norms[-1]:.3g} in {len(norms)} steps: the gradients of earlier steps are still in it. "
        "Call optimizer.zero_grad() before each step's backward()"
    )


@pytest.mark.checks("Trainer")
@pytest.mark.usefixtures("has_trainer")
def test_Trainer_never_trains_on_the_validation_part(build):
    one = trainer(build)
    list(one.run())
    leaked = sorted(token for token in one.model.seen if token >= 10)
    assert not leaked, (
        f"tokens {leaked} stand only in the validation part, and the model was trained on them: "
        "its validation loss now measures memory"
    )


@pytest.mark.checks("Trainer")
@pytest.mark.usefixtures("has_trainer")
def test_Trainer_adds_up_the_parts_of_a_batch(build):
    whole, parts = trainer(build, batch_size=12), trainer(build, batch_size=4, accumulate=3)
    for _ in range(4):
        a, b = whole.step(), parts.step()
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5), (
            "3 batches of 4 windows should give the loss of one of 12: the mean over all windows"
        )
        assert float(b["grad_norm"]) == pytest.approx(float(a["grad_norm"]), rel=1e-4), (
            f"3 batches of 4 windows should give the gradient of one of 12; its norm is "
            f"{b['grad_norm']:.4g}, not {a['grad_norm']:.4g}. Divide each part's loss"
        )


@pytest.mark.checks("Trainer")
@pytest.mark.usefixtures("has_trainer")
def test_Trainer_steps_over_a_gradient_that_is_no_number(build):
    one = trainer(build)
    one.step()
    hook = one.model.logits.weight.register_hook(lambda grad: grad * math.inf)
    before = one.model.logits.weight.detach().clone()
    row = one.step()
    hook.remove()
    assert not math.isfinite(row["grad_norm"]) and one.skipped == 1
    assert torch.equal(before, one.model.logits.weight), "a gradient of NaN reached the weights"
    assert math.isfinite(one.step()["grad_norm"])


@pytest.mark.checks("Trainer")
@pytest.mark.usefixtures("has_trainer")
def test_Trainer_goes_on_exactly_where_its_state_was_taken(build):
    straight, first = trainer(build), trainer(build)
    rows = list(straight.run())
    for _ in range(9):
        first.step()
    state = copy.deepcopy(first.state())
    second = trainer(build)
    second.load_state(state)
    again = list(second.run())
    assert [row["step"] for row in again] == list(range(10, 21))
    for theirs, ours in zip(rows[9:], again, strict=True):
        assert ours["train_loss"] == theirs["train_loss"], (
            f"step {ours['step']} after a restart at 9 has loss {ours['train_loss']:.6f}, without "
            f"one {theirs['train_loss']:.6f}. Weights, optimizer, position in the data and step "
            "number all belong in the state"
        )
    assert torch.equal(straight.model.logits.weight, second.model.logits.weight)


@pytest.mark.checks("Trainer")
@pytest.mark.usefixtures("has_trainer")
def test_Trainer_keeps_the_newest_three_and_falls_back_from_a_damaged_one(build, tmp_path):
    one = trainer(build)
    for _ in one.run():
        one.save(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert names == ["step_0000018.pt", "step_0000019.pt", "step_0000020.pt"]
    newest = tmp_path / names[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    second = trainer(build)
    path, complaints = second.resume(tmp_path)
    assert path.name == names[-2] and second.steps_done == 19
    assert len(complaints) == 1 and names[-1] in complaints[0]
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(build.CheckpointError):
        trainer(build).resume(tmp_path)


@pytest.mark.checks("Trainer")
@pytest.mark.usefixtures("has_trainer")
def test_Trainer_refuses_the_state_of_another_run(build):
    state = trainer(build).state()
    with pytest.raises(build.CheckpointError, match="max_lr"):
        trainer(build, max_lr=0.2).load_state(state)
    with pytest.raises(build.CheckpointError):
        trainer(build).load_state({"recipe": dict(vars(trainer(build).recipe))})
