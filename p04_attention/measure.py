"""What attention costs and why it is scaled: python -m p04_attention.measure

Without a name the first four, under a minute together; --all is every part:

    scores      variance of the scores against head size, with and without the division
    saturation  entropy, largest weight and gradient against head size, with and without it
    cost        time and memory against length, plain, blocked and PyTorch's fused kernel
    speed       forward and backward pass at two sizes, each over the fused kernel
    plateau     "without the scale it plateaus 30 percent earlier and at a worse loss": 100 runs
"""

from __future__ import annotations

import math
import sys
import time
from functools import partial
from statistics import linear_regression, mean, median

import torch
from torch import nn
from torch.nn import functional as F

from p01_autograd.lab.cli import at_least, measure
from p01_autograd.lab.sabotage import sabotaged

from . import build, lm
from .blocked import BlockedSelfAttention
from .break_it import SABOTAGES

HEAD_SIZES = (4, 16, 64, 256, 1024)
KEYS = 64  # what a query chooses from
LENGTHS = (64, 128, 256, 512, 1024, 2048)
SHAPES = ((12, 64, 128, 4), (4, 256, 256, 8))  # B, T, C, nh

# plateau
SEEDS, SIZES, STEPS = 5, (16, 32, 64, 128, 256), 600
SETTINGS = dict(n_embd=64, block_size=32, batch_size=16, steps=STEPS, lr=5e-3)
SHARE = 0.95  # of a run's own progress: there its plateau begins
FLAT = 0.02  # nats per character that PATIENCE steps must gain, or it is flat
PATIENCE = 100


class FusedAttention(build.CausalSelfAttention):
    """The same module with PyTorch's fused kernel, which never holds the T x T weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = (self.split_heads(part(x)) for part in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, nh, T, hs)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


def unscaled():
    """build.py without the division by the root of the head size."""
    return sabotaged("p04_attention", next(s for s in SABOTAGES if s.name == "no_scale"))


def slope(xs, ys) -> float:
    """The exponent of the power law that fits ys against xs best."""
    return linear_regression([math.log(x) for x in xs], [math.log(y) for y in ys]).slope


# scores, saturation


def projected(n: int, hs: int, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """n queries and n keys, projections of unit variance of normalised inputs: (n, hs) each."""
    C = 256
    x = torch.randn(2, n, C, generator=generator)
    w = torch.randn(2, C, hs, generator=generator) / math.sqrt(C)
    return (x @ w).unbind()


def scores(args):
    from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

    generator = torch.Generator().manual_seed(args.seed)
    raw = []
    print(f"{'head size':>9} {'variance of q.k':>16} {'over head size':>15} {'of q.k / root':>14}")
    for hs in HEAD_SIZES:
        found = [projected(256, hs, generator) for _ in range(8)]
        raw.append(mean((q @ k.T).var().item() for q, k in found))
        print(f"{hs:9} {raw[-1]:16.2f} {raw[-1] / hs:15.3f} {raw[-1] / hs:14.3f}")
    print(f"the variance grows like head size ** {slope(HEAD_SIZES, raw):.3f}; theory says 1")
    drawing, ax = subplots()
    ax.loglog(HEAD_SIZES, HEAD_SIZES, color=REFERENCE, ls="--", label="head size")
    ax.loglog(HEAD_SIZES, raw, "o", color=BROKEN, label="not divided")
    divided = [variance / hs for variance, hs in zip(raw, HEAD_SIZES, strict=True)]
    ax.loglog(HEAD_SIZES, divided, "o-", color=HEALTHY, label="divided by the root")
    ax.set(xlabel="head size", ylabel="variance of the scores")
    ax.legend()
    return drawing


def saturation_of(module, hs: int, generator) -> dict[str, float]:
    """What the module's weights over KEYS keys are like, and what gradient they let through."""
    q, k = projected(8 * KEYS, hs, generator)
    q, k = q.view(8, KEYS, hs), k.view(8, KEYS, hs)
    upstream = torch.randn(8, KEYS, KEYS, generator=generator)
    with lm.watched(module) as seen:
        weights = module.attention_weights(q.requires_grad_(), k)
        (weights * upstream).sum().backward()
    return {
        "entropy": lm.entropy(weights).mean().item(),
        "largest": weights.amax(-1).mean().item(),
        "gradient": seen.scores[0].grad.norm(dim=-1).median().item(),
    }


def saturation(args):
    from p01_autograd.lab.figures import BROKEN, HEALTHY, subplots

    sides = {"scaled": build, "not scaled": unscaled()}
    rows = {}
    for name, module in sides.items():
        generator = torch.Generator().manual_seed(args.seed)
        rows[name] = [saturation_of(module, hs, generator) for hs in HEAD_SIZES]
    print(f"over {KEYS} keys; even weights have entropy {math.log(KEYS):.2f}")
    print(f"{'':10} {'entropy, nats':>23} {'largest weight':>23} {'median gradient':>23}")
    print(f"{'head size':>10}" + 3 * f" {'scaled':>11} {'not scaled':>11}")
    for hs, *both in zip(HEAD_SIZES, *rows.values(), strict=True):
        cells = [f"{side[what]:11.3g}" for what in both[0] for side in both]
        print(f"{hs:10} " + " ".join(cells))
    drawing, axes = subplots(1, 2, width=9.6)
    for ax, what, label in (
        (axes[0], "entropy", "entropy of the weights, nats"),
        (axes[1], "gradient", "gradient that reaches the scores"),
    ):
        for (name, found), color in zip(rows.items(), (HEALTHY, BROKEN), strict=True):
            ax.plot(HEAD_SIZES, [row[what] for row in found], "o-", color=color, label=name)
        ax.set(xlabel="head size", ylabel=label, xscale="log")
    axes[0].set(ylim=(0, None))
    axes[1].set(yscale="log")
    axes[0].legend()
    return drawing


# cost, speed


def seconds(modules: dict, shape, repeats: int) -> dict[str, float]:
    """The median time of a forward and a backward pass of each; the modules take turns."""
    x, times = torch.randn(shape, requires_grad=True), {name: [] for name in modules}
    upstream = torch.randn(shape)
    for repeat in range(repeats + 2):
        for name, module in modules.items():
            for _ in range(2):  # the first finds the other module's data in the caches
                start = time.perf_counter()
                module(x).backward(upstream)
                taken = time.perf_counter() - start
            if repeat >= 2:
                times[name].append(taken)
    return {name: median(found) for name, found in times.items()}


def kept_bytes(module, shape) -> int:
    """The bytes that a forward pass keeps for the backward pass, weights left out."""
    known = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(torch.randn(shape, requires_grad=True))
    return sum(storage.nbytes() for storage in kept.values())


FORMS = {
    "plain": build.CausalSelfAttention,
    "blocked": BlockedSelfAttention,
    "fused": FusedAttention,
}


def forms(C: int, nh: int, seed: int) -> dict[str, nn.Module]:
    """The same attention in its three forms."""
    torch.manual_seed(seed)
    return {name: kind(C, nh) for name, kind in FORMS.items()}


def cost(args):
    from p01_autograd.lab.figures import HEALTHY, REFERENCE, subplots

    C, nh, rows = 128, 4, {name: [] for name in FORMS}
    modules = forms(C, nh, args.seed)
    print(
        f"one sequence, C {C}, {nh} heads, forward and backward, {torch.get_num_threads()} threads"
    )
    print(f"{'':6} {'milliseconds':>26}   {'megabytes kept':>26}")
    print(f"{'T':>6} " + "   ".join(2 * [" ".join(f"{name:>8}" for name in FORMS)]))
    for T in LENGTHS:
        times = seconds(modules, (1, T, C), args.repeats if T < 1024 else 3)
        for name, module in modules.items():
            rows[name].append((1e3 * times[name], kept_bytes(module, (1, T, C)) / 1e6))
        columns = ([found[-1][i] for found in rows.values()] for i in (0, 1))
        print(f"{T:6} " + "   ".join(" ".join(f"{x:8.2f}" for x in column) for column in columns))
    tail = LENGTHS.index(256)
    for i, what in enumerate(("time", "memory")):
        fits = [f"{slope(LENGTHS[tail:], [r[i] for r in rows[n][tail:]]):.2f} ({n})" for n in rows]
        print(f"{what} grows like T ** {', '.join(fits)} from T = 256 on")
    drawing, axes = subplots(1, 2, width=9.6)
    for i, (ax, label) in enumerate(zip(axes, ("milliseconds", "megabytes kept"), strict=True)):
        for name, style, color in (
            ("plain", "o-", HEALTHY),
            ("blocked", "^:", HEALTHY),
            ("fused", "s--", REFERENCE),
        ):
            ax.loglog(LENGTHS, [row[i] for row in rows[name]], style, color=color, label=name)
        ax.set(xlabel="T", ylabel=label)
    axes[0].legend()
    return drawing


def speed(args):
    print(f"forward and backward, median of {5 * args.repeats}, {torch.get_num_threads()} threads")
    for B, T, C, nh in SHAPES:
        times = seconds(forms(C, nh, args.seed), (B, T, C), 5 * args.repeats)
        found = ", ".join(
            f"{name} {1e3 * taken:.2f} ms ({taken / times['fused']:.2f})"
            for name, taken in times.items()
        )
        print(f"B {B}, T {T}, C {C}, {nh} heads: {found}; in brackets over fused")


# plateau


def plateau_step(val: list[tuple[int, float]], share: float = SHARE) -> int:
    """Where the plateau begins: the step at which a run has made `share` of its own progress."""
    first, best = val[0][1], min(loss for _, loss in val)
    return next(step for step, loss in val if loss <= first - share * (first - best))


def flat_step(val: list[tuple[int, float]]) -> int:
    """Another definition: the first step from which PATIENCE more gain less than FLAT nats.

    The last step where that never happens.
    """
    for step, loss in val:
        later = [other for at, other in val if step < at <= step + PATIENCE]
        if step + PATIENCE <= val[-1][0] and loss - min(later) < FLAT:
            return step
    return val[-1][0]


def final(val: list[tuple[int, float]]) -> float:
    """The mean of the last three validation losses."""
    return mean(loss for _, loss in val[-3:])


def one_head(module, hs: int) -> nn.Module:
    """One head of any size as a layer, so that nothing else changes with the head size."""
    C = SETTINGS["n_embd"]
    return nn.Sequential(module.SelfAttention(C, hs), nn.Linear(hs, C, bias=False))


def plateau_runs(seeds) -> dict:
    """Validation curves by (init, head size, side): one for each seed."""
    from tqdm import tqdm

    sides = {"healthy": build, "broken": unscaled()}
    keys = [(i, hs, side) for i in lm.INITS for hs in SIZES for side in sides]
    curves = {}
    for init, hs, side in tqdm(keys, disable=None, leave=False, unit="setting"):
        layer = partial(one_head, sides[side], hs)
        curves[init, hs, side] = [
            lm.train(layer, seed, init=init, **SETTINGS).val for seed in seeds
        ]
    return curves


def spread(values, form: str = ".2f") -> str:
    """The mean and the range."""
    return f"{mean(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def compared(healthy: list, broken: list) -> dict[str, list[float]]:
    """For each seed: ratio of plateau steps by both definitions, and what is lost in nats."""
    pairs = list(zip(healthy, broken, strict=True))
    return {
        "ratio": [plateau_step(b) / plateau_step(h) for h, b in pairs],
        "flat": [flat_step(b) / flat_step(h) for h, b in pairs],
        "worse": [final(b) - final(h) for h, b in pairs],
    }


def plateau(args):
    return print_plateau(plateau_runs(range(args.seed, args.seed + SEEDS)))


def print_plateau(curves: dict):
    seeds = len(next(iter(curves.values())))
    print(
        f"{seeds} seeds, {STEPS} steps; a plateau begins where a run has made {SHARE:.0%} of its\n"
        f"progress; flat: where {PATIENCE} more steps gain less than {FLAT} nats; mean [range]\n"
        f"a bigram model reaches {lm.bigram_loss():.2f} nats"
    )
    print(
        f"{'init':5} {'head size':>9} {'healthy':>8} {'broken':>7} {'worse by, nats':>21} "
        f"{'plateau at':>11} {'broken / healthy':>20} {'by flat':>20}"
    )
    everything = {}
    for init in lm.INITS:
        for hs in SIZES:
            healthy, broken = curves[init, hs, "healthy"], curves[init, hs, "broken"]
            found = compared(healthy, broken)
            everything[init, hs] = found
            steps = f"{mean(map(plateau_step, healthy)):.0f}, {mean(map(plateau_step, broken)):.0f}"
            print(
                f"{init:5} {hs:9} {mean(map(final, healthy)):8.3f} {mean(map(final, broken)):7.3f} "
                f"{spread(found['worse']):>21} {steps:>11} {spread(found['ratio']):>20} "
                f"{spread(found['flat']):>20}"
            )
    for init in lm.INITS:
        mine = [everything[init, hs] for hs in SIZES]
        ratios, flats, worse = (
            [value for found in mine for value in found[what]] for what in mine[0]
        )
        print(
            f"{init}: of {len(worse)} pairs of runs, broken ends worse by over 0.03 nats in "
            f"{sum(w > 0.03 for w in worse)},\n      plateaus earlier in "
            f"{sum(r < 1 for r in ratios)}, later in {sum(r > 1 for r in ratios)}; "
            f"mean ratio of steps {mean(ratios):.2f}, by flat {mean(flats):.2f}"
        )
    return draw_plateau(curves, everything)


def draw_plateau(curves: dict, everything: dict):
    from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

    drawing, (left, right) = subplots(1, 2, width=9.6)
    hs = SIZES[-1]
    for side, color in (("healthy", HEALTHY), ("broken", BROKEN)):
        for i, val in enumerate(curves["unit", hs, side]):
            left.plot(*zip(*val, strict=True), color=color, lw=1, label=None if i else side)
    left.axhline(lm.bigram_loss(), color=REFERENCE, ls="--", lw=1, label="bigram model")
    left.set(xlabel="step", ylabel="validation loss, nats per character", ylim=(2, 4))
    left.set_title(f"unit variance, head size {hs}", size=12)
    left.legend()
    for init, style in zip(lm.INITS, ("o-", "s--"), strict=True):
        worse = [everything[init, hs]["worse"] for hs in SIZES]
        middle = [mean(w) for w in worse]
        low = [m - min(w) for m, w in zip(middle, worse, strict=True)]
        high = [max(w) - m for m, w in zip(middle, worse, strict=True)]
        right.errorbar(SIZES, middle, (low, high), fmt=style, color=BROKEN, capsize=3, label=init)
    right.axhline(0, color=HEALTHY, lw=1)
    right.set_xscale("log", base=2)
    right.set_xticks(SIZES, SIZES)
    right.set(xlabel="head size", ylabel="broken minus healthy, nats")
    right.legend()
    return drawing


PARTS = {p.__name__: p for p in (scores, saturation, cost, speed, plateau)}
QUICK = ("scores", "saturation", "cost", "speed")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = (
        ("--repeats", at_least(1), 7, "the median is shown"),
        ("--seed", at_least(0), 1, "the first seed"),
    )
    return measure("p04_attention", __doc__, PARTS, QUICK, options=options, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
