"""Diagnose a training curve: python -m p06_training.doctor PATH [--vocab N]

A rule looks for one fault in the rows of a run and returns a Finding or None. RULES lists what each
rule needs from the log; a rule whose needs are not met is skipped. Losses are compared with the
local noise of the run and with its scale, so that their unit does not matter; thresholds grow with
the number of rows. DOCTOR.md explains the rules.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from p01_autograd.lab.cli import Parser, UsageError, at_least, print_anything, quiet_end

from .logs import Log, as_number, read_log

FEWEST = 20  # rows that are needed to call a curve healthy
MATERIAL = 0.05, 0.08  # least rise that matters, of the first loss: with and without a beginning
GUESSING = 2.5  # nats: if the vocabulary is unknown, a first loss below may be a trained model's
UNLEARNED = 0.6  # of the first loss: no lower than token frequencies alone can bring it
FREQUENCIES = 7.5  # nats: the most that token frequencies cost, with up to 100,000 tokens
WORST = 14.0  # nats: more than a uniform guess costs, with up to a million tokens
LEARNED = 0.5  # of the first loss: a run below has recovered from a bad start
LOW_RATE, HIGH_RATE, HOPELESS_RATE = 2e-4, 0.15, 0.25  # learning rates of AdamW and Muon
JOLT = 12  # times the usual gradient norm: the sign of a bad batch, not of a restart


@dataclass(frozen=True)
class Finding:
    """What is wrong, the step where it began, the evidence, and what to try.

    A note (`note` is True) is information, not a fault.
    """

    name: str
    step: int
    evidence: str
    advice: str
    note: bool = False


class Curve:
    """The columns of a run as arrays, and statistics that the rules share.

    `rows` are sorted and have a finite train_loss. Missing values are NaN.
    """

    def __init__(self, rows: list[dict], vocab: int | None = None):
        def column(name):
            return np.array([number(row.get(name)) for row in rows])

        self.step, self.loss = [row["step"] for row in rows], column("train_loss")
        self.lr, self.grad_norm, self.seconds = column("lr"), column("grad_norm"), column("seconds")
        val = [
            (i, number(row["val_loss"])) for i, row in enumerate(rows) if present(row, "val_loss")
        ]
        self.val_at = np.array([i for i, _ in val], dtype=int)
        self.val = np.array([value for _, value in val])
        self.norm_at = np.array([i for i, row in enumerate(rows) if present(row, "grad_norm")], int)
        self.n, self.vocab = len(rows), vocab
        self.every = float(np.median(np.diff(self.step))) if self.n > 1 else 1.0
        self.first = float(self.loss[0])
        self.scale = max(float(np.median(self.loss[:5])), 0.3)
        self.material = self.scale * MATERIAL[bool(self.no_beginning())]
        self.end = level_before(self.loss, self.n)
        self.sigma = local_noise(self.loss)  # of every row
        self.bar = noise_threshold(self.n)
        self.low = lowest(self.loss)
        rate = self.lr[np.isfinite(self.lr)]
        self.rate = float(rate.max()) if len(rate) else 0.0
        self.has_rate = len(rate) > 0.9 * self.n and self.rate > 0
        self.dead = self.n >= 8 and bool((self.grad_norm == 0).all())

    def no_beginning(self) -> str:
        """Why the log does not start with an untrained model; "" if it does."""
        # in steps: a model is no longer untrained after more of them
        near = 1.5 * self.every if self.vocab else min(1.5 * self.every, 100)
        if self.step[0] > max(1.0, near):
            return f"the log starts at step {self.step[0]}"
        if self.vocab:
            guess = math.log(self.vocab)
            if self.first < 0.8 * guess:
                return (
                    f"the first loss of {self.first:.2f} is a trained model's: "
                    f"guessing costs {guess:.2f}"
                )
            return ""
        if self.first < GUESSING:
            return f"the first loss of {self.first:.2f} may be a trained model's; use --vocab"
        return ""

    def lacks(self, need: str) -> str:
        """Why the log lacks what a rule needs; "" if it has it. A number is a number of rows."""
        if need == "a beginning":
            return self.no_beginning()
        if need == "every step":
            return "" if self.every == 1 else f"one row every {self.every:g} steps"
        if need == "rates":
            return "" if self.has_rate else "no learning rate"
        if need == "gradient norms":
            return "" if len(self.norm_at) > 0.9 * self.n else "no gradient norm"
        if need == "validation":
            return "" if np.isfinite(self.val).sum() >= 4 else "fewer than four validation losses"
        return "" if self.n >= int(need) else f"fewer than {need} rows"


def number(value) -> float:
    """A value of a row as a float; NaN if it is missing or not numeric."""
    value = as_number(value)
    return math.nan if value is None else value


def present(row: dict, name: str) -> bool:
    return row.get(name) is not None


# Noise, levels and thresholds


def noise_threshold(count: int) -> float:
    """The threshold, in standard deviations, for the largest of `count` noise values.

    The maximum of `count` normal numbers is near sqrt(2 ln count); it exceeds that by three in one
    of some thousand logs. The last factor allows for the error of a standard deviation estimated
    from few rows.
    """
    return (math.sqrt(2 * math.log(max(2, count))) + 3) * (1 + 4 / max(4, count))


def running_medians(values: np.ndarray, width: int, every: int = 1) -> np.ndarray:
    """Running medians over windows of `width` values that start at multiples of `every`."""
    windows = np.lib.stride_tricks.sliding_window_view(values, width)[::every]
    parts = [windows[i : i + 100_000] for i in range(0, len(windows), 100_000)]
    return np.concatenate([np.median(part, axis=1) for part in parts])


def local_noise(values: np.ndarray) -> np.ndarray:
    """The local standard deviation of the noise at every row, estimated in stretches of rows.

    Uses the median absolute second difference, which is independent of the slope and of outliers,
    at lags of one and of three rows, since the loss may be logged as a moving average. The factor
    0.605 makes it the standard deviation of normal noise.
    """
    n = len(values)
    stretch = min(max(30, n // 16), 400)
    noise = []
    for start in range(0, n, stretch):
        part = values[max(0, min(start, n - stretch)) : start + stretch]
        lags = [k for k in (1, 3) if len(part) > 8 * k - 6]
        bends = [part[2 * k :] - 2 * part[k:-k] + part[: -2 * k] for k in lags]
        noise.append(max((0.605 * float(np.median(np.abs(bend))) for bend in bends), default=0.0))
    return np.repeat(noise, stretch)[:n]


def level_before(values: np.ndarray, end: int) -> float:
    """The level of the curve before row `end`: the median over a tenth of all rows."""
    width = max(min(5, len(values) // 4 + 1), len(values) // 10)
    return float(np.median(values[max(0, end - width) : max(1, end)]))


def blocks(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Medians of at most two hundred blocks of rows, and the number of rows per block."""
    width = max(1, math.ceil(len(values) / 200))
    return running_medians(values, width, width), width


def lowest(values: np.ndarray) -> float:
    """The lowest level of the curve, robust against single low rows."""
    level, _ = blocks(values)
    return float(running_medians(level, min(3, len(level))).min())


def mann_kendall(values: np.ndarray) -> float:
    """The Mann-Kendall test for a rising trend, in standard deviations."""
    n = len(values)
    pairs = sum(float(np.sign(values[i + 1 :] - values[i]).sum()) for i in range(n - 1))
    return pairs / math.sqrt(n * (n - 1) * (2 * n + 5) / 18) if n > 2 else 0.0


# The rules, causes before consequences


def non_finite(c: Curve, losses: np.ndarray, steps: list) -> Finding | None:
    """A NaN or infinite loss, in training or, after finite ones, in validation."""
    advice = (
        "lower the learning rate, clip the gradients, and look for a division by zero or a "
        "logarithm of zero in the latest changes"
    )
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        step = steps[bad[0]]
        often = f", and {len(bad) - 1:,} times more" if len(bad) > 1 else ""
        return Finding(
            "NaN", step, f"the training loss is {losses[bad[0]]} at step {step}{often}", advice
        )
    bad = np.flatnonzero(~np.isfinite(c.val))
    if len(bad) and c.n:
        step, value = c.step[c.val_at[bad[0]]], c.val[bad[0]]
        never = len(bad) == len(c.val)  # nobody computed it
        return Finding("NaN", step, f"the validation loss is {value} at step {step}", advice, never)
    return None


def skipped_steps(c: Curve) -> Finding | None:
    """NaN or infinite gradient norms with finite losses, as when loss scaling skips a step."""
    bad = c.norm_at[~np.isfinite(c.grad_norm[c.norm_at])]
    if not len(bad) or len(bad) > 0.5 * len(c.norm_at):
        return None
    step = c.step[bad[0]]
    return Finding(
        "NaN",
        step,
        f"the gradient norm is {c.grad_norm[bad[0]]} in {len(bad):,} of {len(c.norm_at):,} rows, "
        f"first at step {step}, and the loss stays finite",
        "nothing, if loss scaling skips such steps; otherwise skip them",
        note=True,
    )


def collapsed(c: Curve) -> Finding | None:
    """The loss drops to zero from one row to the next and stays there."""
    zero = np.abs(c.loss) <= 1e-4 * c.scale
    alive = np.flatnonzero(~zero)
    i = int(alive[-1]) + 1 if len(alive) else 0
    if c.n - i < 3:
        return None
    if i and abs(float(np.median(c.loss[max(0, i - 3) : i]))) < 0.1 * c.scale:
        return None  # it came down gradually
    before = f"was {c.loss[i - 1]:.3g} and " if i else ""
    return Finding(
        "collapsed",
        c.step[i],
        f"the loss {before}is {c.loss[i]:.3g} from step {c.step[i]} on",
        "look for labels that are all masked, for targets that leak into the input, and for "
        "overflow in 16-bit numbers",
    )


def frozen(c: Curve) -> Finding | None:
    """A loss that is constant to the last digit: the weights do not change, or have no effect."""
    if c.n < 8 or np.ptp(c.loss) > 0 or c.first < 0.1:
        return None
    return Finding(
        "plateau from the start",
        c.step[0],
        f"the loss is {c.first:.6g} in all {c.n:,} rows, to the last digit",
        "check that the optimizer has the model's parameters, that gradients reach them, and "
        "that the learning rate is not zero",
    )


def accumulating(c: Curve) -> Finding | None:
    """The gradient norm about doubles at step 2 and stays high: gradients are never zeroed."""
    g = c.grad_norm
    if c.step[0] > 1 or not (g[0] > 0 and np.isfinite(g).all()):
        return None
    second, next_ones = g[1] / g[0], g[2:5].mean() / g[0]
    least = np.quantile(g[5:], 0.05) / g[0]
    if c.has_rate and c.lr[0] > 0.01:  # at such a rate the step itself can raise the norm
        least = g[5:].min() / g[0] - 0.1
    if 1.4 < second < 3 and next_ones > 1.4 and least > 0.7:
        return Finding(
            "gradients accumulating",
            c.step[1],
            f"the gradient norm was {g[0]:.2g}, then {g[1]:.2g} and {g[2]:.2g}, and has been at "
            f"least {g[5:].min():.2g} since",
            "call optimizer.zero_grad() before every backward pass",
        )
    return None


def bad_start(c: Curve) -> Finding | None:
    """The loss rises at the start and does not recover: the learning rate is too high."""
    rows = max(12, c.n // 6)
    i = 1 + int(c.loss[1:rows].argmax())
    surge = c.loss[i] > 1.06 * c.first + 2 * c.sigma[0]
    early = float(np.median(c.loss[rows // 2 : 2 * rows]))
    rises_on = c.end > 1.15 * max(c.first, early) and slow_rise(c) is not None
    learned = c.end < LEARNED * c.first
    rate = float(np.nanquantile(c.lr[: c.n // 3 + 1], 0.8)) if c.has_rate else 0.0
    cold = c.has_rate and c.lr[0] > 0.6 * rate
    too_long = c.n >= 50 and c.end > 0.55 * c.first and rate >= HIGH_RATE
    if rises_on or not (too_long or (surge and not learned)):
        return None
    if surge:
        what = f"the loss starts at {c.first:.2f} and rises to {c.loss[i]:.2f}"
    else:
        what = f"the loss starts at {c.first:.2f} and falls little"
    what += f"; it is {c.end:.2f} at the end"
    constant = c.has_rate and np.nanmin(c.lr) > 0.99 * rate
    if cold and rate < HOPELESS_RATE and not (constant and not learned):
        return Finding(
            "no warmup",
            c.step[i],
            f"the learning rate is {c.lr[0]:.2g} from the first step on, and {what}",
            "warm the learning rate up over the first 5 % of the steps (--warmup-steps)",
        )
    return Finding(
        "learning rate too high",
        c.step[i],
        f"at learning rates up to {rate:.2g} {what}" if c.has_rate else what,
        "divide the learning rate by ten, then find the highest that trains well",
    )


def rise(c: Curve) -> Finding | None:
    """The loss rises after it has fallen: a slow divergence, a spike or a jump."""
    slow = slow_rise(c)
    i = sudden_rise(c)
    if i is None:
        return slow
    base, after = level_before_jump(c.loss, i), c.loss[i:]
    top = float(np.median(after[:3]))
    height = max(top - base, 1e-9)
    at_end = level_before(after, len(after))
    left = (at_end - base) / height
    if slow and left > 1.2:
        return slow  # it kept rising
    width = min(3, len(after))
    low = np.flatnonzero(running_medians(after, width) < base + height / 2)
    length = int(low[0]) if len(low) else len(after)  # rows until it is half as high
    g = c.grad_norm
    usual = np.median(g[max(0, i - 15) : i])
    jolt = float(g[max(0, i - 1) : i + 3].max() / usual) if usual > 0 else math.nan
    clue = restarted(c, i)
    at_once = c.loss[i] - base > 0.5 * height
    tail = float(np.median(after[4:12])) - base if len(after) > 12 else 0.0
    learned_down = left < 1 and tail > max(0.1 * height, 1.5 * c.sigma[i])
    pushed = jolt > JOLT or (
        c.has_rate and c.lr[max(0, i - 2) : i + 2].max() > 1.5 * c.lr[: i - 1].max()
    )
    familiar = top < 1.15 * c.first  # a batch of noise may cost more than guessing
    if clue or (at_once and learned_down and familiar and not pushed):
        clue = f"; {clue}" if clue else ""
        return Finding(
            "jump at a restart",
            c.step[i],
            f"the loss was {base:.2f}, jumps to {top:.2f} at step {c.step[i]}, and is "
            f"{at_end:.2f} at the end{clue}",
            "restore the whole state: weights, optimizer, schedule, position in the data",
        )
    learned = max(c.first - base, 0.1 * c.scale)
    unsure = 2 * float(c.sigma[-1]) / math.sqrt(max(3, len(after) // 10))
    if left > 0.5 or left * height > 0.15 * learned + unsure:
        return Finding(
            "spike and lost",
            c.step[i],
            f"the loss was {base:.2f}, rose to {top:.2f}, and is {at_end:.2f} at the end",
            "resume from a checkpoint before that step, with a lower learning rate or clipping",
        )
    return recovered(c, i, base, top, length)


def recovered(c: Curve, i: int, base: float, top: float, length: int) -> Finding:
    """The finding for a spike that went away; a note if it lasted two rows or was low."""
    rows = f"{max(1, length)} row{'s' if length > 1 else ''}"
    return Finding(
        "spike and recovered",
        c.step[i],
        f"the loss was {base:.2f}, rose to {top:.2f}, and was back after {rows}",
        "look at the batches of these steps; clip the gradients (--clip)",
        note=length <= 2 or top - base < 0.2 * c.scale,
    )


def level_before_jump(loss: np.ndarray, i: int) -> float:
    return float(np.median(loss[max(0, i - 10) : i]))


def sudden_rise(c: Curve) -> int | None:
    """The row at which the loss jumps above its earlier level for several rows; or None."""
    start = 3 if c.n < FEWEST else max(10, c.n // 12 if not c.no_beginning() else 0)
    if c.n < start + 4:
        return None
    best, where, height = 0.0, None, 0.0
    longer = np.full(c.n - start, -np.inf)  # a longer past: the last ten rows may have been easy
    long_past = min(c.n // 50, 200)
    if long_past > 10:
        every = long_past // 10
        levels = np.repeat(running_medians(c.loss, long_past, every), every)
        at = np.arange(start, c.n) - long_past
        longer = np.where(at >= 0, levels[np.clip(at, 0, len(levels) - 1)], -np.inf)
    for width in (3, 20):
        past_rows = min(10, start)
        if c.n < start + width:
            break
        past = running_medians(c.loss[: c.n - width], past_rows)[start - past_rows :]
        past = np.maximum(past, longer[: len(past)])
        here = running_medians(c.loss[start:], width)
        m = min(len(past), len(here))
        up, sigma = here[:m] - past[:m], c.sigma[start : start + m]
        error = sigma * math.sqrt(1.57 * (1 / width + 1 / past_rows))
        enough = np.maximum(c.bar * error, c.material)
        if c.n < FEWEST:
            enough = np.maximum(enough, 0.5 * past[:m])
        ratio = np.where(enough > 0, up / enough, 0.0)
        k = int(ratio.argmax())
        if ratio[k] > max(1.0, best):
            best, where = float(ratio[k]), start + k
            height = up[k]
    if where is None:
        return None
    near = range(max(3, where - 4), min(c.n - 3, where + 9))
    # the largest difference between the three rows from k on and the three before
    steps = [np.median(c.loss[k : k + 3]) - np.median(c.loss[k - 3 : k]) for k in near]
    k = near[int(np.argmax(steps))]
    return k + int(c.loss[k] < c.loss[k - 1] + 0.1 * height)


def lone_spike(c: Curve) -> Finding | None:
    """One row or two far above their neighbours on both sides."""
    if c.n < 12:
        return None
    around = running_medians(c.loss, 9)
    around = np.concatenate([around[:1].repeat(4), around, around[-1:].repeat(4)])
    up = c.loss - around
    up[: max(10, c.n // 12)] = 0
    up[-2:] = 0
    ratio = up / np.maximum(0.75 * c.bar * c.sigma, c.material)
    i = int(ratio.argmax())
    if ratio[i] < 1:
        return None
    return recovered(c, i, float(around[i]), float(c.loss[i]), 1)


def restarted(c: Curve, i: int) -> str:
    """Evidence of a restart near row i, from the time or the learning rate; "" if none."""
    if (np.diff(c.seconds)[max(0, i - 4) : i + 1] < 0).any():
        return "the elapsed time started over"
    earlier, later = c.lr[: max(1, i - 3)], c.lr[max(0, i - 4) : i + 12]
    falls = earlier.max() > 1.02 * later.min()
    if falls and 1.03 * later.min() < later[later.argmin() :].max() < 1.1 * earlier.max():
        return "the learning rate started over"
    return ""


def rate_restarted(c: Curve) -> Finding | None:
    """The learning rate rises a second time, without an effect on the loss."""
    change = np.diff(c.lr)
    falls = np.flatnonzero(change < 0)
    if not len(falls):
        return None
    i = int(falls[0]) + int(change[falls[0] :].argmax()) + 1
    if not restarted(c, i):
        return None
    return Finding(
        "jump at a restart",
        c.step[i],
        f"the learning rate, {c.lr[i - 1]:.2g}, rises again at step {c.step[i]}",
        "if the schedule does not do that, a restart has lost its state: restore it too",
        note=True,
    )


def slow_rise(c: Curve) -> Finding | None:
    """The loss has risen over many rows and is still high."""
    level, width = blocks(c.loss)
    k = min(max(3, len(level) // 20), len(level))
    smooth = running_medians(level, k)
    low = int(smooth.argmin())
    since = level[low:]
    if len(since) < 6:
        return None
    last = float(np.median(level[-k:]))
    risen = last - float(smooth[low])
    error = float(np.median(local_noise(since))) * math.sqrt(2 * 1.57 / k)
    perfect = mann_kendall(np.arange(len(since)))
    if risen < max(1.4 * c.material, 4 * error):
        return None
    if mann_kendall(since) < min(4, 0.85 * perfect):
        return None
    return Finding(
        "diverging",
        c.step[min(c.n - 1, low * width + width // 2)],
        f"the loss has risen from {smooth[low]:.2f} to {last:.2f} over many steps",
        "stop; lower the learning rate, and check the sign of the loss and of the update",
    )


def worse_than_guessing(c: Curve) -> Finding | None:
    """The loss is far above that of a uniform guess and does not fall."""
    most = 1.3 * math.log(c.vocab) if c.vocab else WORST
    level, _ = blocks(c.loss)
    if float(np.median(level)) < most or c.end < most or mann_kendall(level) < -2:
        return None
    return Finding(
        "diverging",
        c.step[0],
        f"the loss is {c.end:.2f} and does not fall; a uniform guess costs less",
        "resume from an earlier checkpoint, with a lower learning rate or clipping",
    )


def too_low(c: Curve) -> Finding | None:
    """The loss falls in proportion to the learning rate, without levelling off."""
    if not settled(c) or c.end < 0.75 * c.first or c.dead or c.rate >= LOW_RATE:
        return None
    fallen = c.first - c.end
    way = np.nancumsum(c.lr)
    half = int(np.searchsorted(way, way[-1] / 2))
    second_half = level_before(c.loss, half + 3) - c.end
    if not (second_half > 0.3 * fallen or c.end > 0.9 * c.first):
        return None
    return Finding(
        "learning rate too low",
        c.step[0],
        f"in {c.n:,} rows at learning rates up to {c.rate:.2g} the loss went from {c.first:.2f} to "
        f"{c.end:.2f} and has not begun to level off",
        "multiply the learning rate by ten",
    )


def plateau(c: Curve) -> Finding | None:
    """The loss stays at its first level, or at that of token frequencies."""
    guess = math.log(c.vocab) if c.vocab else FREQUENCIES / 0.93
    ignorant = c.low > 0.93 * guess  # wherever the log starts
    if not ignorant and (c.no_beginning() or not settled(c) or c.end < UNLEARNED * c.first):
        return None
    start = int(0.2 * c.n)
    x, y = np.arange(c.n - start), c.loss[start:]
    level, width = blocks(y)
    where = np.arange(len(level)) * width
    slope = float(np.polyfit(where, level, 1)[0])
    noise, k = float(np.median(local_noise(level))), min(max(3, len(level) // 10), len(level))
    smooth = running_medians(level, k)
    fall = max(
        -slope * len(x) + 2 * noise * math.sqrt(12 / len(level)),
        float(smooth[0] - smooth.min()) - 3 * noise * math.sqrt(1.57 / k),
    )
    if fall > 0.05 * (c.first - c.end) + 0.02 * c.first and not c.dead:
        return None
    early = level_before(c.loss, start + 3)
    return Finding(
        "plateau from the start",
        c.step[0],
        f"the loss starts at {c.first:.2f}, is {early:.2f} at step {c.step[start]} and "
        f"{c.end:.2f} at the end: no better than token frequencies",
        "check that inputs and targets belong together and that gradients reach all weights",
    )


def settled(c: Curve) -> bool:
    """Whether there are enough steps after the learning rate's peak to expect some learning."""
    peak = int(np.nanargmax(c.lr)) if c.has_rate else 0
    return (c.n - peak > 50 and c.n >= 100) or (
        c.n - peak >= 12 and c.step[-1] - c.step[peak] >= 1000
    )


def leak(c: Curve) -> Finding | None:
    """Validation falls together with a training loss that only memorised text can have."""
    val = float(np.median(c.val[-3:]))
    at = int(c.val_at[-2])
    train = float(np.median(c.loss[max(0, at - 20) : at + 20]))
    by_heart = c.end < 0.35 * c.first and c.end < 0.75 * level_before(c.loss, c.n // 2)
    if not by_heart or val - train > 0.06 * c.first:
        return None
    since = next(i for i, v in zip(c.val_at, c.val) if v <= 2 * val or v <= 0.5 * c.first)
    return Finding(
        "leak",
        c.step[since],
        f"the validation loss is {val:.2f} where training has {train:.2f}, down from "
        f"{level_before(c.loss, c.n // 2):.2f} halfway: memorised",
        "check that no text of the validation split is in the training split",
    )


def memorising(c: Curve) -> Finding | None:
    """The validation loss rises while the training loss falls: overfitting."""
    at, val = c.val_at[np.isfinite(c.val)], c.val[np.isfinite(c.val)]
    low = int(val.argmin())
    now = float(np.median(val[-3:])) if len(val) > 8 else float(val[-2:].min())
    around = c.loss[max(0, at[low] - c.n // 50 - 2) : at[low] + c.n // 50 + 2]
    then = float(np.median(around))
    noise = float(np.median(local_noise(val[low:]))) if len(val) - low > 2 else 0.0
    risen = now - float(val[low])
    if low > len(val) - 3 or risen < 0.03 * val[low] or mann_kendall(val[low:]) < 1.6:
        return None
    if risen < 2 * noise or c.end > 0.97 * then:
        return None
    return Finding(
        "memorising",
        c.step[at[low]],
        f"since then the validation loss rose from {val[low]:.2f} to {now:.2f}, while the training "
        f"loss went from {then:.2f} to {c.end:.2f}",
        "stop there; use more text, dropout, weight decay or a smaller model",
    )


def missing_warmup(c: Curve) -> Finding | None:
    """A high learning rate from the first step on, without an effect on the loss."""
    if c.lr[0] < 0.03 or c.lr[0] < 0.9 * c.rate:
        return None
    return Finding(
        "no warmup",
        c.step[0],
        f"the learning rate is {c.lr[0]:.2g} from the first step on; the loss shows no effect",
        "warm the learning rate up over the first 5 % of the steps (--warmup-steps)",
        note=True,
    )


#: Groups of (name for the list of skipped rules, rule, its needs), in the order of the findings. Of
#: each group only the first finding counts, since later ones would be its consequences.
RULES = (
    (
        ("collapsed", collapsed, ("4",)),
        ("constant loss", frozen, ("8",)),
        (
            "gradients accumulating",
            accumulating,
            ("20", "a beginning", "every step", "gradient norms"),
        ),
        ("learning rate too high, no warmup", bad_start, ("12", "a beginning")),
        ("diverging, spike, jump", rise, ("8",)),
        ("worse than guessing", worse_than_guessing, ("8",)),
        ("learning rate too low", too_low, ("20", "a beginning", "rates")),
        ("plateau from the start", plateau, ("20",)),
    ),
    (
        ("leak", leak, ("20", "a beginning", "validation")),
        ("memorising", memorising, ("8", "validation")),
    ),
    (
        (
            "high rate without warmup",
            missing_warmup,
            ("20", "a beginning", "every step", "rates"),
        ),
    ),
    (("lone spike", lone_spike, ("12",)),),
    (("restarted schedule", rate_restarted, ("8", "rates")),),
    (("skipped steps", skipped_steps, ("gradient norms",)),),
)


def prepared(metrics: list[dict], vocab: int | None) -> tuple[list[dict], Curve | None]:
    """The rows with a loss, sorted by step, and the Curve of those whose loss is finite."""
    rows = {row["step"]: row for row in metrics if present(row, "train_loss")}
    rows = [rows[step] for step in sorted(rows)]  # of a repeated step, the last row
    finite = [row for row in rows if math.isfinite(number(row["train_loss"]))]
    return rows, Curve(finite, vocab) if finite else None


def skipped_rules(c: Curve) -> dict[str, list[str]]:
    """The rules that this log does not meet the needs of, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, _, needs in (rule for group in RULES for rule in group):
        reason = next(filter(None, map(c.lacks, needs)), "")
        if reason:
            reasons.setdefault(reason, []).append(name)
    return reasons


def diagnose(metrics: list[dict], vocab: int | None = None) -> list[Finding]:
    """Diagnose a run from rows like those of metrics.jsonl; returns [] for a healthy one.

    A row needs `step` and `train_loss` (nats per token); `val_loss`, `lr`, `grad_norm` and
    `seconds` are used if present. `vocab`, the vocabulary size, gives the loss of a uniform guess.
    The most important finding comes first, notes last. Unfinished runs can be diagnosed too.
    """
    rows, c = prepared(metrics, vocab)
    if not rows:
        return []
    losses = np.array([number(row["train_loss"]) for row in rows])
    if c is None:
        c = Curve([rows[0] | {"train_loss": 0.0}])
        return [non_finite(c, losses, [row["step"] for row in rows])]
    found = [non_finite(c, losses, [row["step"] for row in rows])]
    for group in RULES:
        for _, rule, needs in group:
            if not any(map(c.lacks, needs)):
                finding = rule(c)
                if finding:
                    found.append(finding)
                    break
    found = [finding for finding in found if finding]
    found = [finding for finding in found if not finding.note] + [
        finding
        for k, finding in enumerate(found)
        if finding.note and finding.name not in [other.name for other in found[:k]]
    ]
    if len(rows) < FEWEST and all(finding.note for finding in found):
        found.append(
            Finding(
                "too few rows",
                rows[-1]["step"],
                f"{len(rows)} rows; at least {FEWEST} are needed to call a curve healthy",
                "log more often, or wait",
                note=True,
            )
        )
    return found


# The command


def thinned(points: list[tuple[float, float]], most: int = 4000) -> list[tuple[float, float]]:
    """Thin a long curve for a figure: every k-th point, and the highest of each k."""
    every = math.ceil(len(points) / most)
    if every <= 1:
        return points
    parts = (points[i : i + every] for i in range(0, len(points), every))
    return [point for part in parts for point in sorted({part[0], max(part, key=lambda p: p[1])})]


def draw(rows: list[dict], findings: list[Finding], path: Path) -> None:
    """Plot loss, gradient norm and learning rate, and mark where each finding began."""
    from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

    figure, (loss, grad_norm, lr) = subplots(3, 1, height=6.4)
    for ax, name in ((loss, "train_loss"), (grad_norm, "grad_norm"), (lr, "lr")):
        points = [(row["step"], number(row.get(name))) for row in rows]
        points = thinned([point for point in points if math.isfinite(point[1])])
        if points:
            ax.plot(*zip(*points), color=HEALTHY, lw=0.8, alpha=0.6)
        for finding in findings:
            ax.axvline(finding.step, color=BROKEN, lw=1.2, ls=":" if finding.note else "--")
    val = [(row["step"], number(row.get("val_loss"))) for row in rows]
    val = thinned([point for point in val if math.isfinite(point[1])])
    if val:
        loss.plot(*zip(*val), color=REFERENCE, marker=".", lw=1, label="validation")
        loss.legend(loc="upper right")
    finite = [
        value for value in (number(row["train_loss"]) for row in rows) if math.isfinite(value)
    ]
    if finite and 0 < min(finite) and max(finite) > 3 * finite[0]:
        loss.set_yscale("log")
    for k, finding in enumerate(findings):
        loss.annotate(
            finding.name,
            (finding.step, 0.95 - 0.12 * k),
            (4, 0),
            ("data", "axes fraction"),
            "offset points",
            color=BROKEN,
            va="top",
        )
    alarms = [finding.name for finding in findings if not finding.note]
    loss.set(ylabel="nats per token", title=alarms[0] if alarms else "healthy")
    grad_norm.set(ylabel="gradient norm")
    lr.set(ylabel="rate", xlabel="step")
    figure.savefig(path)


def what_was_read(log: Log, vocab: int | None) -> str:
    """One line: the format, the rows and columns, and which rules were skipped for what reason."""
    text = log.summary()
    _, c = prepared(log.rows, vocab)
    reasons = skipped_rules(c) if c else {}
    if reasons:
        parts = [f"{', '.join(names)} ({reason})" for reason, names in reasons.items()]
        text += f"; rules skipped: {'; '.join(parts)}"
    return f"read {text}"


def report(path: Path, vocab: int | None) -> int:
    """Read a log, diagnose it, print and plot the findings; returns the exit status."""
    log = read_log(path)
    vocab = vocab or log.vocab
    findings = diagnose(log.rows, vocab)
    alarms = [finding for finding in findings if not finding.note]
    lines = [what_was_read(log, vocab)]
    for finding in findings:
        note = "note: " if finding.note else ""
        lines.append(f"{note}{finding.name}, from step {finding.step}: {finding.evidence}")
        lines.append(f"    try: {finding.advice}")
    if not alarms:
        few = any(finding.name == "too few rows" for finding in findings)
        healthy = f"healthy: {len(log.rows):,} rows, nothing found"
        lines.append("no findings, but too few rows to call it healthy" if few else healthy)
    figure = path / "doctor.png" if path.is_dir() else path.with_name(f"{path.name}.doctor.png")
    try:
        draw(log.rows, findings, figure)
        lines.append(f"figure: {figure}")
    except OSError as error:  # the log's folder may be read-only
        lines.append(f"no figure: cannot write to {figure.parent} ({error.strerror or error})")
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # | head
        quiet_end()
    return 1 if alarms else 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 0 for a healthy run, 1 with findings, 2 for an unreadable log."""
    print_anything()
    parser = Parser(
        prog="python -m p06_training.doctor",
        description="Diagnose the curve of a training run from its log, in any common format.",
    )
    parser.add_argument("path", metavar="PATH", help="a run's folder, or a log file")
    parser.add_argument(
        "--vocab",
        type=at_least(2),
        metavar="N",
        help="vocabulary size, from which the loss of a uniform guess follows",
    )
    flags = parser.parse_args(argv)
    try:
        return report(Path(flags.path), flags.vocab)
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
