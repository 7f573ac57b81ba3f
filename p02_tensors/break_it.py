"""Nine ways to break a tensor library, each on a small network that reads handwritten digits.

    python -m p02_tensors.break_it

Images have 64 pixels, the hidden layers 64 units, a batch 64 images: on purpose, since a shape
that is wrong then fits all the same, and only the numbers can tell.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from math import isfinite
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from p01_autograd.lab.figures import BROKEN, HEALTHY, subplots
from p01_autograd.lab.sabotage import Sabotage, main, sabotaged
from p02_tensors import build as shipped_build
from p02_tensors.digits import digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from p02_tensors.torch_like import Tensor

N, STEPS, LR = 64, 300, 0.02  # at 0.03 the healthy run ends higher
TRAINING, TEST = 4096, 1024  # images
BRIGHTNESS = (1, 3, 10, 30, 100)
DIRECTIONS = 8  # in which a gradient is measured


@dataclass
class Numbers:
    """The results of one training run; losses in nats per image."""

    gradient_error: float  # of backward against finite differences, before the first step
    early_loss: float  # mean of the first 20 steps
    last_loss: float  # mean of the last 20 steps
    accuracy: float  # on unseen images, in batches of 64
    answers_to_one: int  # rows of scores for a single image
    bright_loss: float  # on unseen images a hundred times as bright
    losses: list[float]
    by_brightness: list[float]


def parameters(build: ModuleType, rng: np.random.Generator, dtype: np.dtype) -> list[Tensor]:
    """w1 (64, 64), b1 (64,), w2 (64, 64), b2 (64,), w3 (64, 10)."""
    sizes = [(N, N), (N,), (N, N), (N,), (N, 10)]
    scales = [np.sqrt(2 / N) if len(size) == 2 else 0.1 for size in sizes]
    return [
        build.tensor(scale * rng.standard_normal(size), dtype, requires_grad=True)
        for size, scale in zip(sizes, scales)
    ]


def scores(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor) -> Tensor:
    """One hidden layer, a second one that adds to it, ten scores: (B, 64) -> (B, 10)."""
    h = (x @ w1 + b1).relu()
    h = h + (h @ w2 + b2).relu()
    return h @ w3


def loss(build: ModuleType, x: Tensor, labels: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Mean cross-entropy in nats: x (B, 64), labels (B,) int64 -> scalar."""
    logp = scores(x, *weights).log_softmax(-1)
    return -logp[build.arange(len(x)), labels].mean()


@cache
def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """digits(count, seed), drawn once."""
    return digits(count, seed)


def batches(
    build: ModuleType, count: int, seed: int, dtype: np.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (64, 64) and labels (64,), `count` images in all."""
    x, labels = images(count, seed)
    for i in range(0, count, N):
        yield build.tensor(x[i : i + N], dtype), build.tensor(labels[i : i + N])


@np.errstate(all="ignore")  # NaN and infinity are symptoms here
def experiment(
    build: ModuleType = shipped_build, optim: ModuleType | None = None, seed: int = 1337
) -> Numbers:
    """Train with the given core or optimizer, then evaluate on unseen images."""
    optim = on(build, "optim") if optim is None else optim
    build = on(build, "torch_like")
    error = gradient_error(build, seed)
    weights = parameters(build, np.random.default_rng(seed), build.float32)
    adam = optim.Adam(weights, lr=LR)
    training = list(batches(build, TRAINING, seed, build.float32))
    losses = []
    for step in range(STEPS):
        batch_loss = loss(build, *training[step % len(training)], weights)
        adam.zero_grad()
        batch_loss.backward()
        adam.step()
        losses.append(batch_loss.item())
    right, unseen = [], []
    with build.no_grad():
        for x, labels in batches(build, TEST, seed + 1, build.float32):
            right.append((scores(x, *weights).argmax(-1) == labels).float().mean().item())
            unseen.append([loss(build, x * times, labels, weights).item() for times in BRIGHTNESS])
        one = scores(x[:1], *weights)
    by_brightness = np.mean(unseen, 0).tolist()
    return Numbers(
        gradient_error=error,
        early_loss=float(np.mean(losses[:20])),
        last_loss=float(np.mean(losses[-20:])),
        accuracy=float(np.mean(right)),
        answers_to_one=len(one),
        bright_loss=by_brightness[-1],
        losses=losses,
        by_brightness=by_brightness,
    )


def gradient_error(build: ModuleType, seed: int, step: float = 1e-6) -> float:
    """The relative error of backward's directional derivatives, for the worst parameter.

    The reference are central differences along random directions, in float64; the error is the
    root mean square of the differences over that of the reference.
    """
    rng = np.random.default_rng(seed)
    weights = parameters(build, rng, build.float64)
    x, labels = next(batches(build, N, seed, build.float64))
    loss(build, x, labels, weights).backward()
    errors = []
    for i, weight in enumerate(weights):
        ways = rng.standard_normal((DIRECTIONS, *weight.shape))
        by_backward = np.array([(weight.grad.numpy() * way).sum() for way in ways])
        slopes = []
        for way in ways:
            there, back = (
                loss(build, x, labels, [*weights[:i], build.tensor(moved), *weights[i + 1 :]])
                for moved in (weight.tolist() + step * way, weight.tolist() - step * way)
            )
            slopes.append((there - back).item() / (2 * step))
        errors.append(np.linalg.norm(by_backward - slopes) / np.linalg.norm(slopes))
    return float(max(errors))


@cache
def on(build: ModuleType, module: str) -> ModuleType:
    """The library's torch_like or optim, on another core."""
    if build is shipped_build:
        return import_module(f"p02_tensors.{module}")
    old, new = "from p02_tensors import build\n", f"import {build.__name__} as build\n"
    if module == "optim":
        torch_like = on(build, "torch_like").__name__
        old, new = "from p02_tensors.torch_like import", f"from {torch_like} import"
    name = f"on_{build.__name__.rpartition('.')[2]}"
    edit = Sabotage(name, old, new, predict="", symptom=None, caught_by="", module=module)
    return sabotaged("p02_tensors", edit)


def overflows_on_bright_images(healthy: Numbers, broken: Numbers) -> bool:
    """Training ends as it does in the healthy run, give or take rounding; bright images do not."""
    as_before = broken.last_loss < 2 * healthy.last_loss
    return as_before and isfinite(healthy.bright_loss) and not isfinite(broken.bright_loss)


SABOTAGES = [
    Sabotage(
        name="no_unbroadcast",
        old="(self, lambda g: unbroadcast(g, self.shape))",
        new="(self, lambda g: g)",
        predict="What was expanded gets a gradient of the expanded shape: a bias one of the "
        "whole batch's. backward, which compares the two shapes, stops in the first step.",
        symptom=lambda healthy, broken: "backward: gradient" in broken.error,
        caught_by="test_expand_agrees_with_torch",
        looks_like=("crash",),
        fault="the framework itself",
        tell="It comes in backward, not in forward, and the shape that it names has the batch in "
        "it. A `sum` alone works; a bias does not.",
    ),
    Sabotage(
        name="left_aligned",
        old="return (1,) * (ndim - len(shape)) + tuple(shape)",
        new="return tuple(shape) + (1,) * (ndim - len(shape))",
        predict="A bias (64,) becomes a column: it belongs to a place in the batch and no longer "
        "to a unit. In batches of 64 it trains as well as ever; asked about one image it "
        "answers 64 times.",
        symptom=lambda healthy, broken: (
            broken.answers_to_one == N and broken.last_loss < 2 * healthy.last_loss
        ),
        caught_by="test_broadcast_shapes_aligns_right_and_widens_ones",
        looks_like=("unusual inputs",),
        shows=("last_loss", "answers_to_one"),
        fault="the framework itself",
        tell="It needs a batch as large as a layer. With most other batch sizes it is an error, "
        "so train one step with an odd one.",
    ),
    Sabotage(
        name="no_transpose",
        old="(b, lambda g: a_t @ g)",
        new="(b, lambda g: a.data @ g)",
        predict="Where all sizes are equal the product without the transpose fits, too: the "
        "matrices follow slopes of something else, and the loss hardly falls.",
        symptom=lambda healthy, broken: (
            broken.gradient_error > 0.5 and broken.last_loss > 5 * healthy.last_loss
        ),
        caught_by="test_matmul_by_hand",
        looks_like=("flat",),
        shows=("gradient_error", "last_loss"),
        fault="the framework itself",
        tell="It fits only where sizes are equal. With a layer of another width it is an error; "
        "a gradient check finds it at once.",
    ),
    Sabotage(
        name="sum_not_expanded",
        old="(self, lambda g: broadcast_to(g, self.shape))",
        new="(self, lambda g: g)",
        predict="The gradient of a sum keeps the shape of the sum: backward stops in the first "
        "step, as without unbroadcast.",
        symptom=lambda healthy, broken: "backward: gradient" in broken.error,
        caught_by="test_sum_by_hand",
        looks_like=("crash",),
        fault="the framework itself",
        tell="It comes in backward, and the gradient that it names is smaller than the tensor; "
        "with `no_unbroadcast` it is larger.",
    ),
    Sabotage(
        name="added_in_place",
        old="return Tensor.record(a.data + b.data, ",
        new="a.data += b.data  # x + y takes the place of x\n        return Tensor.record(a.data, ",
        predict="The second layer adds to h what it made of h, and backward then finds the sum "
        "where it needs h. One matrix of three gets a wrong gradient; the curve looks like any "
        "other.",
        symptom=lambda healthy, broken: (
            broken.gradient_error > 0.1 and broken.last_loss < 2 * healthy.last_loss
        ),
        caught_by="test_no_operation_changes_its_input",
        looks_like=("nothing",),
        shows=("gradient_error", "last_loss"),
        fault="the framework itself",
        tell="Compare an input before and after the operation, or one gradient with a finite "
        "difference. PyTorch counts the writes and refuses.",
    ),
    Sabotage(
        name="no_shift",
        old="shifted = self - self.detach().max(dim, keepdim=True)",
        new="shifted = self",
        predict="exp of a score above 88 is infinite in float32. In training no score comes near; "
        "on images a hundred times as bright the loss is infinite.",
        symptom=overflows_on_bright_images,
        caught_by="test_softmax_is_not_changed_by_a_constant",
        looks_like=("unusual inputs",),
        shows=("last_loss", "bright_loss"),
        fault="wrong calculation of the loss",
        tell="Add 1,000 to all scores: a softmax must not change. Here exp overflows on large "
        "scores; `log_of_softmax` fails on a large difference between two.",
    ),
    Sabotage(
        name="log_of_softmax",
        old="return shifted - shifted.exp().sum(dim, keepdim=True).log()",
        new="return (shifted.exp() / shifted.exp().sum(dim, keepdim=True)).log()",
        predict="A probability below e^-103 is 0 in float32 and its logarithm infinite. Training "
        "does not meet one; a confident mistake on a bright image costs infinitely much.",
        symptom=overflows_on_bright_images,
        caught_by="test_log_softmax_stays_finite_where_softmax_rounds_to_zero",
        looks_like=("unusual inputs",),
        shows=("last_loss", "bright_loss"),
        fault="missing masking of invalid values",
        tell="Adding 1,000 to all scores does no harm, a difference of 200 between two does: a "
        "probability rounds to 0 and its logarithm is infinite.",
    ),
    Sabotage(
        name="no_bias_correction",
        old="            m_hat = m / (1 - beta1**t)  # both start at zero, which is too small\n"
        "            v_hat = v / (1 - beta2**t)\n",
        new="            m_hat, v_hat = m, v\n",
        predict="v needs a thousand steps to grow to its size and m only ten: early steps are up "
        "to 6.6 times too long. At a learning rate near the limit the loss leaps, and it is still "
        "higher at the end.",
        symptom=lambda healthy, broken: (
            max(broken.losses) > 1.5 * max(healthy.losses) and broken.last_loss > healthy.last_loss
        ),
        caught_by="test_adams_first_step_is_as_long_as_the_learning_rate",
        module="optim",
        looks_like=("bad beginning",),
        shows=("early_loss", "last_loss"),
        fault="wrong optimisation function",
        tell="Adam's first step should be as long as the learning rate, whatever the gradient; "
        "here it is three times that. With a warmup (`no_warmup` is the lack of one) it "
        "hardly shows.",
    ),
    Sabotage(
        name="no_epsilon",
        old="self.lr * m_hat / (np.sqrt(v_hat) + self.eps)",
        new="self.lr * m_hat / np.sqrt(v_hat)",
        predict="A pixel that is dark in the whole first batch gives its weights a gradient of "
        "exactly 0, and 0 / 0 is NaN: the first step spoils them, and the loss is NaN for good.",
        symptom=lambda healthy, broken: (
            isfinite(broken.losses[0]) and not isfinite(broken.last_loss)
        ),
        caught_by="test_an_optimizer_takes_the_steps_of_torchs",
        module="optim",
        looks_like=("nan",),
        shows=("early_loss", "last_loss"),
        fault="epsilon of Adam too low",
        tell="The first loss is right and the second is NaN; the NaN is in the weights whose "
        "gradient is exactly 0 (dark pixels, tokens that do not occur). SGD in its place "
        "trains.",
    ),
]


def figure(healthy: list, broken: list) -> Figure:
    """The loss over the steps and over the brightness of unseen images, a line for each seed."""
    drawing, (left, right) = subplots(1, 2, width=9.6)
    for runs, colour, name in ((healthy, HEALTHY, "healthy"), (broken, BROKEN, "broken")):
        for i, run in enumerate(run for run in runs if not hasattr(run, "error")):
            style = {"color": colour, "alpha": 0.8, "label": name if i == 0 else None}
            left.plot(run.losses, linewidth=1, **style)
            right.plot(BRIGHTNESS, run.by_brightness, marker="o", **style)
    left.set(xlabel="step", ylabel="loss, nats per image", ylim=(0, 5))
    right.set(xlabel="times as bright", ylabel="loss on unseen images, nats")
    right.set(xscale="log", yscale="log")
    left.legend()
    right.legend()
    return drawing


if __name__ == "__main__":
    sys.exit(main("p02_tensors", SABOTAGES, experiment, figure, damage="last_loss"))
