"""Read a training curve: python -m p06_training.doctor RUN_DIR

Every rule looks at one thing in the rows of metrics.jsonl and gives a Finding or nothing. A loss is
judged against the run's own first one, which is that of guessing, and against the run's own noise.
The thresholds lie between what was seen in healthy and in ill runs of cases.py (seeds below 5000).
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from p01_autograd.lab.cli import Parser, UsageError, print_anything

FEWEST = 20  # rows before a curve says anything
SPIKE = 6.5, 0.08  # a loss above those before it, in noises and in first losses; healthy up to 4.4
LEVEL = 3.8, 0.04  # the same for the median of five losses; healthy up to 2.9
LASTING = 3.0, 0.04  # and of fifteen; healthy up to 2.2
SURGE = 1.06  # first losses: above this a run begins by unlearning; healthy up to 1.01
JOLT = 12  # times the usual gradient: that was a batch; after restarts up to 10
LOST = 0.15  # of what the run had learned when the spike came: it has not come back
BOUNCE = 5.5, 0.06  # the same after a first descent, in noises and in first losses; healthy to 3.7
UNLEARNED = 0.68  # of the first loss: what knowing the tokens' frequencies alone can reach
FLAT = 0.025  # of what a run has gained: so little in the middle of it is no progress
HIGH_RATE, LOW_RATE = 0.15, 2e-4  # for AdamW and Muon, at any size that a laptop trains
RARE_RATE = 0.09  # works at times, and never as well as a tenth of it
COLD_RATE = 0.03  # from the first step on: too long a step for means that are still empty
HOPELESS_RATE = 0.25  # no warmup helps
TURN = 1.02  # times its lowest: validation has turned; healthy runs end up to 1.01
TOO_GOOD = 0.25  # of the first loss: no text of a natural kind is as predictable as that


@dataclass(frozen=True)
class Finding:
    """What is wrong, the step where it began, what shows it, and what to try."""

    name: str
    step: int
    evidence: str
    advice: str


class Curve:
    """The rows of a run as arrays, and what the rules compare with."""

    def __init__(self, rows: list[dict]):
        def column(name):
            return np.array([number(row.get(name)) for row in rows])

        self.step, self.loss = [row["step"] for row in rows], column("train_loss")
        self.lr, self.grad_norm, self.seconds = column("lr"), column("grad_norm"), column("seconds")
        self.norm_at = [i for i, row in enumerate(rows) if row.get("grad_norm") is not None]
        self.val_at = [i for i, row in enumerate(rows) if row.get("val_loss") is not None]
        self.val = column("val_loss")[self.val_at]
        self.n, self.first = len(rows), float(self.loss[0])
        self.end = around(self.loss, self.n)
        self.noise = noise(self.loss)
        self.dead = bool((self.grad_norm == 0).all())  # no gradient reaches the weights

    def before(self, i: int) -> float:
        """The level of the loss just before row i."""
        return float(np.median(self.loss[max(0, i - 15) : i]))

    def peak_at_start(self) -> tuple[int, float]:
        """The row and height of the loss's peak in the first rows, a lone outlier not counted."""
        i = 1 + int(self.loss[1 : max(12, self.n // 6)].argsort()[-2])  # the second highest
        return i, float(self.loss[i])

    def bounce(self) -> float:
        """How far the loss comes up again in the first rows, a lone outlier not counted."""
        full_rate = 12 + int(self.lr.argmax()) if np.isfinite(self.lr).all() else 0
        loss = self.loss[: max(12, self.n // 15, min(full_rate, self.n // 4))]
        return float(np.sort(loss[1:] - np.minimum.accumulate(loss)[:-1])[-2])


def number(value) -> float:
    """A JSON value as a float; what is missing or no number becomes NaN."""
    return float(value) if isinstance(value, int | float) else math.nan


def medians(values: np.ndarray, width: int, every: int = 1) -> np.ndarray:
    """The median of every stretch of `width` values, or of each that begins at k * every."""
    return np.median(np.lib.stride_tricks.sliding_window_view(values, width)[::every], axis=1)


def around(values: np.ndarray, end: int) -> float:
    """The level of the curve just before row `end`."""
    return float(np.median(values[max(0, end - max(5, len(values) // 10)) : end]))


def noise(values: np.ndarray) -> float:
    """The spread from step to step: that of normal numbers with these median differences."""
    return 1.05 * float(np.median(np.abs(np.diff(values)))) if len(values) > 1 else 0.0


# The rules, causes before what follows from them


def not_a_number(c: Curve) -> Finding | None:
    """Whatever is not finite stays so, or the step was lost."""
    for name, values, at in (
        ("training loss", c.loss, range(c.n)),
        ("gradient norm", c.grad_norm[c.norm_at], c.norm_at),
        ("validation loss", c.val, c.val_at),
    ):
        for i, value in zip(at, values, strict=True):
            if not math.isfinite(value):
                return Finding(
                    "NaN",
                    c.step[i],
                    f"the {name} is {value} at step {c.step[i]}",
                    "lower the learning rate, clip the gradients, and look for a division by "
                    "zero or a logarithm of it in what changed last",
                )
    return None


def accumulating(c: Curve) -> Finding | None:
    """Two similar gradients added are twice as long, and the sum never gets shorter than one."""
    g = c.grad_norm
    if c.n < FEWEST or not (g[0] > 0 and np.isfinite(g).all()):
        return None
    second, next_ones = g[1] / g[0], g[2:5].mean() / g[0]
    least = np.quantile(g[5:], 0.05) / g[0]
    if c.lr[0] > 0.01:  # a step so long that it may itself have brought a longer gradient
        least = g[5:].min() / g[0] - 0.1
    if second > 1.4 and next_ones > 1.4 and least > 0.7:
        return Finding(
            "gradients accumulating",
            c.step[1],
            f"the gradient norm was {g[0]:.2g}, then {g[1]:.2g} and {g[2]:.2g}, and has not "
            f"come below {g[5:].min():.2g} since",
            "call optimizer.zero_grad() before every backward",
        )
    return None


def bad_start(c: Curve, by_rate: bool = False) -> Finding | None:
    """A loss that rises at once: steps too long, for the moment or for good.

    With `by_rate` a rate that no healthy run has is enough, whatever the loss.
    """
    if c.n < 5:
        return None
    i, peak = c.peak_at_start()
    surge = peak > SURGE * c.first + 2 * c.noise
    surge = surge or c.bounce() > max(BOUNCE[0] * c.noise, BOUNCE[1] * c.first)
    rate = float(np.nan_to_num(np.quantile(c.lr[: c.n // 3 + 1], 0.8)))
    rises_on = c.end > SURGE * c.first and c.end > 1.15 * around(c.loss, c.n // 2)
    cold = c.lr[0] > 0.6 * rate > 0
    too_long = rate > HIGH_RATE and c.end > 0.55 * c.first
    if by_rate:
        too_long = rate > RARE_RATE or (cold and rate >= COLD_RATE)
    if rises_on or not (surge or (c.n >= 50 and too_long)):
        return None
    constant = np.nanmin(c.lr) > 0.99 * rate
    lost = c.end > 0.7 * c.first
    what = f"the loss, at first {c.first:.2f}, rises to {peak:.2f}"
    what = what if surge else "the loss falls less than it could"
    if cold and rate < HOPELESS_RATE and not (constant and lost):
        return Finding(
            "no warmup",
            c.step[i],
            f"the rate is {c.lr[0]:.2g} from the first step on and {what}; it is now {c.end:.2f}",
            "let the rate grow over the first 5 % of the steps (--warmup-steps)",
        )
    return Finding(
        "learning rate too high",
        c.step[i],
        f"at rates up to {rate:.2g} {what}; it is now {c.end:.2f}",
        "divide the learning rate by ten, then find the highest that trains well",
    )


def rise(c: Curve) -> Finding | None:
    """The loss went up after it had come down: slowly, for a moment, or for good."""
    if c.n < FEWEST:
        return None
    slow = slow_rise(c)
    i = sudden_rise(c)
    if i is None:
        return slow or begun_anew(c)
    base, after = c.before(i), c.loss[i:]
    lone = float(after[0]) - base > SPIKE[0] * c.noise  # or a rise that hides in the noise
    top = float(after[:8].max() if lone else np.median(after[:15]))
    height = top - base
    width = min(len(after), 3 if lone else 9)
    low = np.flatnonzero(medians(after, width) < base + height / 2)
    length = int(low[0]) if len(low) else len(after)  # rows until half of it is gone
    left = max(0.0, around(c.loss[i:], c.n - i) - base) / height
    if slow and left > 1.2:
        return slow  # and did not stop there
    if slow and base - medians(c.loss[:i], 8).min() > 0.08 * c.first + 1.5 * c.noise:
        return slow  # it was on its way up already
    begins_anew = restarted(c, i)
    g = c.grad_norm
    longer = float(g[max(0, i - 1) : i + 3].max() / np.median(g[max(0, i - 15) : i]))  # or NaN
    at_once = not lone or c.loss[i] - base > 0.5 * height
    tail = float(np.median(after[4:12])) - base if len(after) > 12 else 0.0
    learned_down = tail > max(0.1 * height, 1.5 * c.noise)
    learned_down = learned_down and (left < 0.7 or (left < 1 and (longer < 1.3 or c.n - i < 40)))
    pushed = longer > JOLT or c.lr[max(0, i - 2) : i + 2].max() > 1.5 * c.lr[: max(1, i - 2)].max()
    familiar = top < 1.15 * c.first  # a batch of noise costs more than guessing
    if begins_anew or (at_once and learned_down and familiar and not pushed):
        clue = f"; {begins_anew}" if begins_anew else ", with neither rate nor gradient to blame"
        return Finding(
            "jump at a restart",
            c.step[i],
            f"the loss was {base:.2f}, is {c.loss[i]:.2f} from one step to the next, and is "
            f"learned down again over the next steps{clue}",
            "restore everything that moves: weights, optimizer, schedule, data position",
        )
    learned = max(c.first - base, 0.1 * c.first)
    unsure = 2 * c.noise / math.sqrt(max(5, len(after) // 10))  # where the loss lies at the end
    if left * height > LOST * learned + unsure:
        return Finding(
            "spike and lost",
            c.step[i],
            f"the loss was {base:.2f}, rose to {top:.2f}, and is {c.end:.2f} at the end",
            "go back to a checkpoint before that step, with a lower rate or clipping",
        )
    return Finding(
        "spike and recovered",
        c.step[i],
        f"the loss was {base:.2f}, rose to {top:.2f}, and was back after about "
        f"{max(1, length)} steps",
        "look at the batches of these steps; clip the gradients (--clip)",
    )


def sudden_rise(c: Curve) -> int | None:
    """The row where the loss leaves its level upwards, the highest such rise of the run."""
    start = max(10, c.n // 12)
    if c.n < start + 5:
        return None
    past = medians(c.loss[start - 10 : -1], 10)  # of the ten rows before each
    here = c.loss[start:]
    local = 1.05 * medians(np.abs(np.diff(c.loss[:-1])), start - 1, every=5)
    spread = np.maximum(c.noise, np.repeat(local, 5)[: len(here)])
    usual = np.median(c.grad_norm)  # NaN when not logged, and then nothing is longer
    jolted = np.convolve(c.grad_norm > JOLT * usual, np.ones(12))[start : c.n] > 0
    bar = np.where(jolted, 0.6, 1.0)  # a rise just after a long gradient needs less to be one
    for k in range(1, len(c.val)):  # and so does one that validation sees, too
        if c.val[k] - c.val[k - 1] > 0.05 * c.first:
            bar[max(0, c.val_at[k - 1] - start) : max(0, c.val_at[k] - start)] = 0.6
    one, height = here - past, np.full(len(here), -np.inf)
    for width, (noises, firsts) in ((1, SPIKE), (5, LEVEL), (15, LASTING)):
        if width <= len(here):
            up = medians(here, width) - past[: len(here) - width + 1]
            enough = (np.maximum(noises * spread, firsts * c.first) * bar)[: len(up)]
            height[: len(up)] = np.maximum(height[: len(up)], np.where(up > enough, up, -np.inf))
    best = int(height.argmax())
    if height[best] == -np.inf:
        return None
    height = height[best]
    if height < SPIKE[0] * spread[best]:
        return start + best  # too low to see its first step in the noise
    near = range(max(0, best - 8), min(len(one), best + 5))
    return start + next((k for k in near if one[k] > 0.3 * height), best)


def restarted(c: Curve, i: int) -> str:
    """What other columns say of a new beginning near row i."""
    if (np.diff(c.seconds)[max(0, i - 4) : i + 1] < 0).any():
        return "the clock began anew"
    earlier, later = c.lr[: max(1, i - 3)], c.lr[max(0, i - 4) : i + 12]
    falls = earlier.max() > 1.02 * later.min()
    if falls and 1.03 * later.min() < later[later.argmin() :].max() < 1.1 * earlier.max():
        return "the learning rate began anew"
    return ""


def begun_anew(c: Curve) -> Finding | None:
    """The rate climbs a second time; the loss shows nothing of it."""
    change = np.diff(c.lr)  # NaN when not logged
    falls = np.flatnonzero(change < 0)
    if not len(falls):
        return None
    i = int(falls[0]) + int(change[falls[0] :].argmax()) + 1
    if restarted(c, i):
        return Finding(
            "jump at a restart",
            c.step[i],
            f"the learning rate, {c.lr[:i].min():.2g}, climbs again at step {c.step[i]}",
            "restore everything that moves: weights, optimizer, schedule, data position",
        )
    return None


def slow_rise(c: Curve) -> Finding | None:
    """Up over many steps and still up: no single batch did that."""
    width = max(12, c.n // 20)
    smooth = medians(c.loss, width, every=width // 4)
    low = int(smooth.argmin())
    last = float(np.median(c.loss[-width:]))
    risen, unsure = last - smooth[low], c.noise / math.sqrt(width)
    val = c.val[-2:].min() - c.val.min() if len(c.val) > 3 else 0.0  # without the batches' noise
    alone = risen > max(0.08 * c.first, 6 * unsure + 0.03 * c.first)
    if not alone and not (val > 0.08 * c.first and risen > max(0.04 * c.first, 3 * unsure)):
        return None
    return Finding(
        "diverging",
        c.step[low * (width // 4) + width // 2],
        f"the loss has risen from {smooth[low]:.2f} to {last:.2f}, over many steps",
        "stop; lower the learning rate, and check the sign of the loss and of the update",
    )


def too_low(c: Curve) -> Finding | None:
    """What is learned is in proportion to the rate: twice the rate would go twice as far."""
    if not settled(c) or c.end < 0.75 * c.first or c.dead:
        return None
    rate, fallen = c.lr.max(), c.first - c.end
    way = np.cumsum(c.lr)
    half = int(np.searchsorted(way, way[-1] / 2))
    second_half = around(c.loss, half + 3) - c.end
    steady = second_half > 0.3 * fallen
    if rate < LOW_RATE and (steady or c.end > 0.9 * c.first):
        return Finding(
            "learning rate too low",
            c.step[0],
            f"after {c.n} steps at rates up to {rate:.2g} the loss went from {c.first:.2f} to "
            f"{c.end:.2f} and has not begun to bend",
            "multiply the learning rate by ten",
        )
    return None


def plateau(c: Curve) -> Finding | None:
    """The loss stays where it was, or where the frequencies of the tokens take it."""
    if not settled(c) or c.end < UNLEARNED * c.first:
        return None
    start, end = int(0.35 * c.n), int(0.75 * c.n)  # past the descent, before the rate is gone
    slope = np.polyfit(np.arange(c.n - start), c.loss[start:], 1)[0]
    fall = -slope * (c.n - start)
    unsure = c.noise * math.sqrt(12 / (c.n - start))  # the standard error of that
    enough = max(FLAT * (c.first - c.end), 0.005 * c.first)
    at = [k for k, i in enumerate(c.val_at) if start <= i < end]
    if at and c.val_at[at[-1]] - c.val_at[at[0]] > 0.15 * c.n:  # which has no noise of batches
        flat = c.val[at[0]] - c.val[at[-1]] < enough
    else:
        flat = fall + unsure < 2 * enough
    if not flat and not c.dead:
        return None
    early = around(c.loss, start)
    return Finding(
        "plateau from the start",
        c.step[0],
        f"the loss began at {c.first:.2f}, was {early:.2f} at step {c.step[start]} and "
        f"is {c.end:.2f}: no more than the tokens' frequencies",
        "check that inputs and targets belong together and that gradients reach all weights",
    )


def settled(c: Curve) -> bool:
    """Enough steps at the full rate to expect that something has been learned."""
    if c.n < 100 or not np.isfinite(c.lr).all():
        return c.n >= 100
    return c.n - int(c.lr.argmax() if c.lr.max() > 0 else 0) > 50


def leak(c: Curve) -> Finding | None:
    """Validation falls with a training loss that only comes from having seen the text."""
    if len(c.val) < 3 or c.n < FEWEST:
        return None
    val = float(np.median(c.val[-3:]))
    at = c.val_at[-2]
    train = float(np.median(c.loss[max(0, at - 20) : at + 20]))
    falling = c.end < 0.88 * around(c.loss, int(0.65 * c.n)) or val < 0.1 * c.first
    same = val - train < 0.06 * c.first
    better = val < 0.7 * train and train - val > 0.05 * c.first
    if better or (val < TOO_GOOD * c.first and same and falling):
        return Finding(
            "leak",
            c.step[next(i for i, v in zip(c.val_at, c.val) if v <= 2 * val or v <= 0.5 * c.first)],
            f"the validation loss is {val:.2f}, where training has {train:.2f} and guessing "
            f"{c.first:.2f}: unseen text is not as predictable as that",
            "check that no text of the validation split is in the training split",
        )
    return None


def memorising(c: Curve) -> Finding | None:
    """Validation turns up while training falls: what is learned now is the text itself."""
    if len(c.val) < 4:
        return None
    low = int(c.val.argmin())
    now = float(c.val[-2:].min())
    train_then = float(np.median(c.loss[max(0, c.val_at[low] - 10) : c.val_at[low] + 10]))
    if low < len(c.val) - 2 and now > TURN * c.val[low] and c.end < 0.97 * train_then:
        return Finding(
            "memorising",
            c.step[c.val_at[low]],
            f"since then validation rose from {c.val[low]:.2f} to {now:.2f} while training "
            f"fell from {train_then:.2f} to {c.end:.2f}",
            "stop there; more text, dropout, weight decay or a smaller model",
        )
    return None


def diagnose(metrics: list[dict]) -> list[Finding]:
    """Name what is wrong with a run, from the rows of its metrics.jsonl; [] when healthy.

    The most important finding comes first. Works on the first part of a run as well.
    """
    rows = {row["step"]: row for row in metrics if row.get("train_loss") is not None}
    rows = [rows[step] for step in sorted(rows)]  # a step that was repeated counts once
    if not rows:
        return []
    c = Curve(rows)
    found = [not_a_number(c)]
    if found[0]:
        c = Curve([row for row in rows if math.isfinite(number(row["train_loss"]))] or rows[:1])
    if c.n >= 2 and math.isfinite(c.first):
        start = [finding for finding in (accumulating(c), bad_start(c)) if finding]
        later = rise(c) or bad_start(c, by_rate=True) or too_low(c) or plateau(c)
        found += start or [later]
        found += [leak(c) or memorising(c)] if np.isfinite(c.val).all() else []
    return [finding for finding in found if finding]


# The command


def read_metrics(folder: Path) -> list[dict]:
    """The rows of a run's metrics.jsonl; UsageError when there are none to read."""
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_bytes().decode("utf-8").splitlines()
    except FileNotFoundError:
        raise UsageError(f"there is no {path}; give the folder of a training run") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from None
    rows = []
    for i, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            number_of_step, loss = row["step"], row["train_loss"]
            if isinstance(number_of_step, bool) or not isinstance(number_of_step, int):
                raise ValueError("step")
            if loss is not None and math.isnan(number(loss)) and not isinstance(loss, float):
                raise ValueError("train_loss")
        except (ValueError, KeyError, TypeError, RecursionError):
            if i == len(lines) and rows:
                break  # the run was killed while it wrote this line
            raise UsageError(
                f"line {i} of {path} is not a row with step and train_loss; not a training run?"
            ) from None
        rows.append(row)
    if not rows:
        raise UsageError(f"{path} is empty; the run has not made a step")
    return rows


def draw(metrics: list[dict], findings: list[Finding], path: Path) -> None:
    """The loss, the gradient norm and the rate of a run, and where each finding began."""
    from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

    figure, (loss, grad_norm, lr) = subplots(3, 1, height=6.4)
    for ax, name in ((loss, "train_loss"), (grad_norm, "grad_norm"), (lr, "lr")):
        points = [(row["step"], number(row.get(name))) for row in metrics]
        points = [point for point in points if math.isfinite(point[1])]
        if points:
            ax.plot(*zip(*points), color=HEALTHY, lw=0.8, alpha=0.6)
        for finding in findings:
            ax.axvline(finding.step, color=BROKEN, lw=1.2, ls="--")
    val = [(row["step"], number(row.get("val_loss"))) for row in metrics]
    val = [point for point in val if math.isfinite(point[1])]
    if val:
        loss.plot(*zip(*val), color=REFERENCE, marker=".", lw=1, label="validation")
        loss.legend(loc="upper right")
    losses = [number(row["train_loss"]) for row in metrics]
    finite = [value for value in losses if math.isfinite(value)]
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
    loss.set(ylabel="nats per token", title="healthy" if not findings else findings[0].name)
    grad_norm.set(ylabel="gradient norm")
    lr.set(ylabel="rate", xlabel="step")
    figure.savefig(path)


def main(argv: list[str] | None = None) -> int:
    """The command line; 0 for a healthy run, 1 with findings, 2 when it cannot be read."""
    print_anything()
    parser = Parser(
        prog="python -m p06_training.doctor", description="Read the curve of a training run."
    )
    parser.add_argument("run", metavar="RUN_DIR", help="its folder, with metrics.jsonl")
    folder = Path(parser.parse_args(argv).run)
    try:
        metrics = read_metrics(folder)
        findings = diagnose(metrics)
        draw(metrics, findings, folder / "doctor.png")
    except UsageError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot write to {folder} ({error.strerror or error})")
    for finding in findings:
        print(f"{finding.name}, from step {finding.step}: {finding.evidence}")
        print(f"    try: {finding.advice}")
    if not findings:
        print(f"healthy: {len(metrics)} steps, nothing found")
    print(f"figure: {folder / 'doctor.png'}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
