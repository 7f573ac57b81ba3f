"""Parse training logs in common formats: JSON, JSON lines, CSV and text.

The format is detected from the content. Each parser returns records, dictionaries with the keys of
the log; `meaning` maps these keys to the columns of metrics.jsonl, and `to_rows` builds the rows.
"""

from __future__ import annotations

import csv
import functools
import gzip
import itertools
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from p01_autograd.lab.cli import UsageError

NUMBER = re.compile(
    r"(?<![\w.])([-+]?(?:1\.#\w+|\d{1,3}(?:,\d{3})+(?![\d,])|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    r"|(?:nan|inf(?:inity)?)(?!\w)))",
    re.IGNORECASE,
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
VOCABULARY = re.compile(r"vocab(?:ulary)?[ _]?size\W{1,12}(\d{2,7})\b", re.IGNORECASE)
FILES = (  # log files in a run's folder, by priority
    "metrics.jsonl",
    "trainer_state.json",
    "trainer_log.jsonl",
    "metrics.csv",
    "main.log",
    "log.txt",
    "train.log",
)
ENDINGS = [".jsonl", ".json", ".csv", ".tsv", ".log", ".txt", ".out", ".ndjson"]

STEPS = "step global_step trainer_global_step train_step iter iteration iters iterations it itr"
STEPS += " current_steps current_step num_updates update updates step_num optimizer_step batches"
STEPS += " train_global_step training_step iter_num s steps _step batch i"
STEPS = STEPS.split()
SECONDS = "seconds elapsed elapsed_time wall_time walltime runtime train_time relative_time"
SECONDS = [*SECONDS.split(), "relative_time_process", "total_time"]
VALIDATION = {"val", "valid", "validation", "eval", "dev", "test", "evaluation", "holdout", "tel"}
TRAINING = {"train", "training", "trn", "tr"}
LOSSES = {"loss", "nll", "xent", "trl", "tel", "crossentropy", "ce", "losses"}
OTHER_LOSS = "aux z kl scale scaler best balance router reg l2 l1 weight std delta diff mask lb"
OTHER_LOSS += " policy value entropy min max var distill teacher critic rate token tokens acc mtp"
OTHER_LOSS += " accuracy ppl perplexity time"
OTHER_LOSS = set(OTHER_LOSS.split())
SMOOTHED = set(["avg", "average", "mean", "ema", "smoothed", "smooth", "epoch", "running", "total"])


@dataclass
class Log:
    """A parsed log: rows with the columns of metrics.jsonl, sorted by step."""

    rows: list[dict]
    kind: str  # the format, for the summary
    names: dict[str, str] = field(default_factory=dict)  # column -> key in the log
    remarks: list[str] = field(default_factory=list)  # how ambiguities were resolved
    vocab: int | None = None  # the vocabulary size, if the log or its config.json has it

    def summary(self) -> str:
        """One line: format, number of rows, range and spacing of steps, columns, remarks."""
        steps = [row["step"] for row in self.rows]
        every = float(np.median(np.diff(steps))) if len(steps) > 1 else 0
        columns = ", ".join(
            ours if theirs == ours else f"{ours} ({theirs})" for ours, theirs in self.names.items()
        )
        text = f"{self.kind}: {len(self.rows):,} row{'s' * (len(steps) != 1)}"
        text += f", steps {steps[0]:,} to {steps[-1]:,}" if len(steps) > 1 else ""
        text += f", one every {every:,g} step{'s' * (every != 1)}" if every else ""
        return "; ".join([f"{text}; {columns}", *self.remarks])


# Keys and values


@functools.cache
def meaning(key: str) -> tuple[str, int] | None:
    """The column that a key of a log stands for, and a rank (0 is the most explicit); else None.

    >>> meaning("train/loss"), meaning("eval_loss"), meaning("lr-AdamW"), meaning("loss_scale")
    (('train_loss', 0), ('val_loss', 1), ('lr', 1), None)
    """
    key = key.rsplit(" - ", 1)[-1]  # wandb's exports prefix the run's name
    if key.endswith(("__MIN", "__MAX")):
        return None
    key = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key)
    words = [word for word in re.split(r"[^a-z0-9]+", key.lower()) if word]
    plain = "_".join(words)
    if plain in STEPS or plain in ("trainer_step",):
        return "step", STEPS.index(plain) if plain in STEPS else 3
    if plain in ("epoch", "epochs"):
        return "epoch", 0
    if plain in ("value", "values"):
        return "value", 0
    if plain in ("tag", "metric", "name", "key"):
        return "tag", 0
    has = set(words)
    if plain in SECONDS or plain in ("wall_time", "train_runtime_so_far"):
        return "seconds", SECONDS.index(plain) if plain in SECONDS else 9
    if has & {"lr", "lrate"} or {"learning", "rate"} <= has or "learningrate" in has:
        if has & {"min", "max", "scale", "mult", "ratio", "base", "init", "decay", "peak"}:
            return None
        return "lr", int(plain not in ("lr", "learning_rate"))
    if has & {"norm", "gnorm", "gradnorm", "norms"}:
        if has & {"param", "params", "weight", "weights", "layer", "update", "rms", "batch"}:
            return None
        if has & {"grad", "gradient", "gnorm", "gradnorm", "total", "global", "g"} or len(has) == 1:
            return "grad_norm", int(plain not in ("grad_norm", "norm", "gnorm"))
        return None
    if has & LOSSES or {"cross", "entropy"} <= has:
        if has & OTHER_LOSS - ({"entropy"} if "cross" in has else set()):
            return None
        if not set(words[-2:]) & (
            LOSSES | {"entropy", "step", "epoch", *SMOOTHED, *TRAINING, *VALIDATION}
        ):
            return None  # "loss improved from"
        unsure = 4 * len(has & SMOOTHED) + len(
            has - LOSSES - TRAINING - VALIDATION - SMOOTHED - {"step"}
        )
        if has & VALIDATION:
            return "val_loss", unsure + ("test" in has) + int(plain != "val_loss")
        return "train_loss", unsure + int(plain not in ("loss", "train_loss", "train_loss_step"))
    if len(words) == 1 and has & {"train", "training"}:
        return "train_loss", 3
    if len(words) == 1 and has & {"val", "valid", "validation"}:
        return "val_loss", 3
    return None


MISSING = {"", "none", "null", "n/a", "na", "-", "--", "nil", "?"}


def as_number(value) -> float | None:
    """Parse a number in any common notation; None if there is none.

    Handles trailing units, thousands separators and all spellings of NaN and infinity. Clock times
    become seconds.

    >>> [as_number(v) for v in ("2.85 BPC", "1.#QNAN", "-Inf", "1e-3", "0:01:40", True, "n/a")]
    [2.85, nan, -inf, 0.001, 100.0, None, None]
    """
    if isinstance(value, float):
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return float(value)
    if not isinstance(value, str):
        return as_number(value[0]) if isinstance(value, list) and len(value) == 1 else None
    try:
        return float(value)
    except ValueError:
        pass
    text = value.strip().strip("\"'").lower()
    if text in MISSING:
        return None
    clock = re.fullmatch(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
    if clock:
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return 86400 * days + 3600 * hours + 60 * minutes + seconds
    if re.search(r"\bnan\b|#(qnan|snan|ind|num)", text):
        return math.nan
    if re.search(r"#inf|\binf(inity)?\b|∞", text):
        return -math.inf if text.lstrip("\"' ").startswith("-") else math.inf
    found = NUMBER.search(text)
    return float(found.group().replace(",", "")) if found else None


# Parsers: each returns (format, records in the file's order), or None for another format


def from_json(text: str) -> tuple[str, list[dict]] | None:
    """Parse one JSON value: trainer_state.json, rows, columns, or TensorBoard's triples."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        for key in ("log_history", "history", "logs", "metrics", "log", "rows", "data"):
            inner = value.get(key)
            if isinstance(inner, list) and inner and isinstance(inner[0], dict):
                kind = "Hugging Face's trainer_state.json" if key == "log_history" else "JSON"
                return kind, [flat(row) for row in inner if isinstance(row, dict)]
            if isinstance(inner, dict):
                value = inner
                break
        columns = {k: v for k, v in flat(value, keep_lists=True).items() if isinstance(v, list)}
        known = {k: v for k, v in columns.items() if meaning(k)}
        if not known:
            return None
        longest = max(len(v) for v in known.values())
        known = {
            k: v for k, v in known.items() if len(v) == longest or meaning(k)[0] == "train_loss"
        }
        return "JSON of columns", [
            {k: v[i] for k, v in known.items() if i < len(v)} for i in range(longest)
        ]
    if isinstance(value, list) and value:
        if all(isinstance(row, dict) for row in value):
            return "a JSON list", [flat(row) for row in value]
        if all(isinstance(row, list) and len(row) == 3 for row in value):
            names = ("wall_time", "step", "loss")
            return "TensorBoard's JSON", [dict(zip(names, row)) for row in value]
    return None


def flat(row: dict, keep_lists: bool = False, before: str = "") -> dict:
    """Flatten nested dictionaries; keys are joined by slashes."""
    out = {}
    for key, value in row.items():
        if isinstance(value, dict):
            out |= flat(value, keep_lists, f"{before}{key}/")
        elif keep_lists or not isinstance(value, list) or len(value) == 1:
            out[f"{before}{key}"] = value
    return out


BARE = re.compile(r"(?<=[:\s,\[])([-+]?)(?:nan|inf(?:inity)?)(?=\s*[,}\]])", re.IGNORECASE)


def loads(line: str) -> dict | None:
    """Parse the JSON object or the printed Python dictionary in a line; None if there is none."""
    start, end = line.find("{"), line.rfind("}")
    if start < 0 or end < start:
        return None
    line = line[start : end + 1]
    for attempt in (0, 1):
        try:
            row = json.loads(line)
            return flat(row) if isinstance(row, dict) else None
        except (ValueError, RecursionError):
            if attempt:
                return None
        line = BARE.sub(
            lambda m: (
                "NaN" if "n" == m[0].lstrip("+-")[0].lower() else m[1].replace("+", "") + "Infinity"
            ),
            line,
        )
        line = line.replace("'", '"').replace(": None", ": null")
        line = line.replace(": True", ": true").replace(": False", ": false")
    return None


def from_json_lines(lines: list[str]) -> tuple[str, list[dict]] | None:
    """Parse JSON lines; other lines in between are ignored."""
    sample = [line for line in lines if "{" in line][:200]
    if not any(row and kinds(row) & {"train_loss", "val_loss"} for row in map(loads, sample)):
        return None
    records = [row for row in map(loads, lines) if row]
    useful = sum(bool(kinds(row) & {"train_loss", "val_loss"}) for row in records)
    if useful < 0.3 * len(records) and useful < 8:
        return None
    factory = records and "current_steps" in records[0]
    return "LLaMA-Factory's trainer_log.jsonl" if factory else "lines of JSON", records


def kinds(keys) -> set[str]:
    """The columns that these keys stand for."""
    return {found[0] for found in map(meaning, keys) if found}


def from_csv(lines: list[str]) -> tuple[str, list[dict]] | None:
    """Parse CSV with a header that names a loss or a value; other lines may come before it."""
    for i, line in enumerate(lines[:2000]):
        for mark in (",", "\t", ";", "|"):
            if mark not in line:
                continue
            head = split(line.lstrip("#"), mark)
            if len(head) < 2 or any(number_like(name) for name in head):
                continue
            known = kinds(head)
            if not (known & {"train_loss", "val_loss"} or {"step", "value"} <= known):
                continue
            rows = [line for line in lines[i + 1 :] if mark in line]
            fields = [split(row, mark) for row in rows[:5] if not set(row) <= set("|-+: ")]
            if not fields or any(abs(len(row) - len(head)) > 1 for row in fields):
                continue
            if not any(number_like(cell) for cell in fields[0]):
                continue
            return csv_kind(head), list(csv_records(head, rows, mark))
    return None


def csv_records(head, rows, mark):
    """Yield a dictionary per row; pairs of tag and value become columns."""
    named = {found[0]: name for name, found in ((name, meaning(name)) for name in head) if found}
    tag, value = (named.get(kind) for kind in ("tag", "value"))
    reader = csv.reader(rows, delimiter=mark) if mark != "|" else (split(r, mark) for r in rows)
    for cells in reader:
        row = {name: cell for name, cell in zip(head, cells) if cell.strip()}
        if tag and value and tag in row and value in row:
            row[row.pop(tag)] = row.pop(value)
        elif value and value in row and not kinds(head) & {"train_loss", "val_loss"}:
            row["loss"] = row.pop(value)
        yield row


def csv_kind(head: list[str]) -> str:
    names = set(head)
    if {"Wall time", "Step", "Value"} <= names:
        return "TensorBoard's CSV"
    if any(name.endswith("__MIN") for name in head):
        return "wandb's CSV of a panel"
    return "CSV"


def split(line: str, mark: str) -> list[str]:
    """Split a line of CSV or of a Markdown table into fields."""
    if mark == "|":
        return [cell.strip() for cell in line.strip().strip("|").split("|")]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=mark))]


def number_like(text: str) -> bool:
    text = text.strip().strip("\"'")
    found = NUMBER.match(text)
    return bool(found and found.end() == len(text))


def from_text(lines: list[str]) -> tuple[str, list[dict]] | None:
    """Parse text in which a number follows its name, such as "step 3 | loss 2.1"."""
    templates: dict[tuple, list] = {}  # the words between the numbers -> keys_of(words)
    records = []
    for line in lines:
        parts = NUMBER.split(line)
        if len(parts) < 2:
            continue
        words = tuple(parts[::2])
        if words not in templates:
            templates[words] = keys_of(words)
        keys = templates[words]
        if keys:
            record = {}
            for at, key in keys:
                record.setdefault(
                    key,
                    as_number(parts[at])
                    if "," not in parts[at]
                    else as_number(parts[at].replace(",", "")),
                )
            records.append(record)
    if not kinds({key for keys in templates.values() for _, key in keys}) & {
        "train_loss",
        "val_loss",
    }:
        return None
    return "text", records


def keys_of(words: tuple[str, ...]) -> list[tuple[int, str]]:
    """The known keys in the words between a line's numbers, as (index of the number, key)."""
    keys, loss = [], ""
    for k, before in enumerate(words[:-1]):
        before = re.sub(r"\((?:[a-zA-Z%/ ]*)\)(?=\s*[:=]?\s*$)", "", before)
        before = re.sub(r"(?:tensor|array|float\d*|item)\(\s*$", "", before)
        phrase = before.rstrip(" \t:=\"'>~")
        phrase = re.split(r"[,;|{}\[\]()\t:=\"']|\s-\s", phrase)[-1].strip()
        nearest = phrase.removesuffix(" value").split()[-4:]
        found = None
        for count in range(len(nearest), 0, -1):
            key = " ".join(nearest[-count:])
            found = meaning(key)
            if found:
                break
        aside = not keys or [name for _, name in keys] == ["iteration"]
        if found and found[0] == "train_loss" and aside and "valid" in words[0].lower():
            key = f"val {key}"  # Megatron's: validation loss at iteration 8 | lm loss value: 2.25
        if found and found[0] not in ("value", "tag"):
            if loss and key in ("train", "val", "valid"):
                key = f"{key} loss"
            keys.append((2 * k + 1, key))
        elif (
            k == 0
            and not before.strip()
            and re.match(r"\s+[a-zA-Z]|\s*[:,|]\s*[a-zA-Z]|/\d", words[1] + " ")
        ):
            keys.append((1, "step"))  # the line starts with an unnamed number
        loss = loss or "loss" in before
    if [key for _, key in keys] == ["step"] and words[0].strip() == "":
        return []
    return keys


# From records to rows


def pick(all_keys: Counter, kind: str) -> str | None:
    """The key for a column: among the frequent ones, the one with the most explicit name."""
    counts = {key: n for key, n in all_keys.items() if (meaning(key) or ("",))[0] == kind}
    if not counts:
        return None
    most = max(counts.values())
    often = [key for key, count in counts.items() if count >= 0.5 * most]
    return min(often, key=lambda key: (meaning(key)[1], -counts[key]))


@dataclass
class Columns:
    """Which keys of the records are used, by column; a column that the log lacks has None."""

    keys: dict[str, str | None]
    other_steps: list[str]  # further keys for the step, where the first is missing
    dated: set[str]  # losses that nearly always come with a step: without one it is ordinary text

    def value(self, record: dict, column: str) -> float | None:
        key = self.keys[column]
        return as_number(record.get(key)) if key else None

    def step(self, record: dict) -> float | None:
        step = self.value(record, "step")
        others = (as_number(record[key]) for key in self.other_steps if key in record)
        return next(others, None) if step is None else step

    def loss(self, record: dict, column: str, step: float | None) -> float | None:
        return None if step is None and column in self.dated else self.value(record, column)


def columns(records: list[dict], remarks: list[str]) -> Columns:
    """Choose the keys. A validation loss that is the only loss is used as the training loss."""
    wanted = ("step", "train_loss", "val_loss", "lr", "grad_norm", "seconds", "epoch")
    all_keys = Counter(itertools.chain.from_iterable(records))
    keys = {column: pick(all_keys, column) for column in wanted}
    train, val, step = keys["train_loss"], keys["val_loss"], keys["step"]
    if val and (not train or count_with(records, train) < 4) and count_with(records, val) >= 4:
        keys["train_loss"], keys["val_loss"] = val, None
        remarks.append("the validation loss is the only loss and is used in its place")
    dated = {
        column
        for column in ("train_loss", "val_loss")
        if (key := keys[column])
        and step
        and count_with(records, key, step) > 0.5 * count_with(records, key)
    }
    other_steps = [key for key in all_keys if (meaning(key) or ("",))[0] == "step"]
    return Columns(keys, other_steps, dated)


@dataclass
class Timeline:
    """The run so far, read record by record: a row per step, and values that belong to a step."""

    rows: list[dict] = field(default_factory=list)
    vals: list[tuple[float, float]] = field(default_factory=list)  # (step, value)
    others: dict[str, list] = field(
        default_factory=lambda: {"lr": [], "grad_norm": [], "seconds": []}
    )
    step: float | None = None
    offset: float = 0  # of the steps, where they start over in each epoch
    epoch: float | None = None
    restarts: int = 0
    earlier: list[list[dict]] = field(default_factory=list)  # rows of runs before a new one began

    def move_to(self, step: float, epoch: float | None) -> None:
        """Go to the step of a row. If it lies back, that is a new epoch or a restart."""
        step += self.offset
        last = self.rows[-1]["step"] if self.rows else -math.inf
        if step < last:
            later = epoch is not None and self.epoch is not None and epoch > self.epoch
            if later and self.offset + 2 * (step - self.offset) < last:
                step, self.offset = step - self.offset + last, last
            elif step < last - 1.5 * gap(self.rows):
                self.restart_at(step)
        if epoch is not None:
            self.epoch = epoch
        self.step = whole(step)

    def restart_at(self, step: float) -> None:
        """Drop what comes after this step. If nothing comes before it, another run begins."""
        self.restarts += 1
        kept = [row for row in self.rows if row["step"] < step]
        if not kept:
            self.earlier.append(self.rows)
        self.rows = kept
        for pairs in (self.vals, *self.others.values()):
            pairs[:] = [pair for pair in pairs if pair[0] < step]

    def add_row(self, loss: float) -> None:
        """The last loss of a step counts."""
        if self.rows and self.rows[-1]["step"] == self.step:
            self.rows[-1]["train_loss"] = loss
        else:
            self.rows.append({"step": self.step, "train_loss": loss})

    def choose_run(self) -> str | None:
        """Choose between several runs in one file; returns what was done about steps going back."""
        runs = len(self.earlier) + 1
        if self.earlier and len(self.rows) < min(20, max(map(len, self.earlier))):
            self.rows, self.vals, self.others = max(self.earlier, key=len), [], {}
            return f"{runs} runs in one file: the longest is used"
        if self.earlier:
            return f"{runs} runs in one file: the last is used"
        if self.restarts:
            times = f"{self.restarts} time{'s' * (self.restarts > 1)}"
            return f"steps go back {times}: later rows replace earlier ones"
        return None


def to_rows(kind: str, records: list[dict]) -> Log:
    """Build rows from records: one per step, sorted, with the columns of metrics.jsonl.

    Where steps go back, a restart is assumed and the later part replaces the earlier one; where
    they start over in a new epoch, they are counted on.
    """
    log = Log([], kind)
    chosen, run = columns(records, log.remarks), Timeline()
    if not chosen.keys["train_loss"]:
        return log
    for record in records:
        step = chosen.step(record)
        loss, val = (chosen.loss(record, column, step) for column in ("train_loss", "val_loss"))
        if step is not None and math.isfinite(step):
            if loss is not None:
                run.move_to(step, chosen.value(record, "epoch"))
            else:
                run.step = whole(step + run.offset)
        elif loss is not None and not chosen.keys["step"]:
            run.step = len(run.rows) + 1
        if val is not None:
            run.vals.append((-math.inf if run.step is None else run.step, val))
        if run.step is None:
            continue
        if loss is not None:
            run.add_row(loss)
        for column, pairs in run.others.items():
            value = chosen.value(record, column)
            if value is not None:
                pairs.append((run.step, value))
    log.remarks += [remark] if (remark := run.choose_run()) else []
    if run.rows and not chosen.keys["step"]:
        log.remarks.append("no steps in the log: rows are counted")
    run.rows.sort(key=lambda row: row["step"])
    log.rows = list({row["step"]: row for row in run.rows}.values())
    attach(log.rows, run.vals, run.others)
    for column in ("train_loss", "val_loss", "lr", "grad_norm", "seconds"):
        if chosen.keys[column] and any(column in row for row in log.rows):
            log.names[column] = chosen.keys[column]
    return log


def whole(step: float) -> float:
    """The step as an int if it is a whole number."""
    return int(step) if float(step).is_integer() else step


def count_with(records: list[dict], *keys: str) -> int:
    """The number of records that have all these keys."""
    return sum(all(key in record for key in keys) for record in records)


def gap(rows: list[dict]) -> float:
    """The median distance of the last rows, in steps."""
    steps = [row["step"] for row in rows[-9:]]
    return float(np.median(np.abs(np.diff(steps)))) if len(steps) > 1 else 1.0


def attach(rows: list[dict], vals: list, others: dict) -> None:
    """Add the other columns to the rows.

    A validation loss goes to the last row up to its step; other values to the row of their step, a
    learning rate that is logged often enough also to the rows until the next one.
    """
    if not rows:
        return
    steps = np.array([row["step"] for row in rows], dtype=float)
    for step, value in vals:
        rows[max(0, int(np.searchsorted(steps, step, side="right")) - 1)]["val_loss"] = value
    for ours, pairs in others.items():
        if not pairs:
            continue
        exact = dict(pairs)
        pairs = sorted(exact.items())
        at = np.searchsorted([step for step, _ in pairs], steps, side="right") - 1
        often = len(pairs) > 0.1 * len(rows)
        for row, i in zip(rows, at.tolist()):
            if row["step"] in exact:
                row[ours] = exact[row["step"]]
            elif ours == "lr" and often:
                row[ours] = pairs[max(0, i)][1]


# Files


def decoded(data: bytes) -> str:
    """Decode a log file: UTF-8 or UTF-16, possibly compressed by gzip; raises UsageError."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise UsageError(f"its gzip compression is damaged ({error})") from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    head = data[:2000]
    if head.count(b"\0") > 0.3 * len(head) > 0:
        return data.decode("utf-16-le" if head[1:2] == b"\0" else "utf-16-be", errors="replace")
    if b"\0" in head:
        raise UsageError("it is not text")
    return data.decode("utf-8-sig", errors="replace")


def find_log(path: Path) -> Path:
    """The log file in a run's folder, or `path` itself if it is a file; raises UsageError."""
    if not path.is_dir():
        return path
    places = [path, *sorted(path.glob("checkpoint-*"), key=lambda p: (len(p.name), p.name))[::-1]]
    places += [path / "version_0", path / "logs"]
    for place in places:
        for name in FILES:
            if (place / name).is_file():
                return place / name
    found = [p for p in sorted(path.iterdir()) if p.is_file() and p.suffix in ENDINGS]
    found = [p for p in found if p.name != "config.json" and not p.name.startswith(".")] or found
    if not found:
        raise UsageError(
            f"there is no log in {path}; give the folder of a training run or a log file"
        )
    return max(found, key=lambda p: p.stat().st_size)


def config_vocab(folder: Path) -> int | None:
    """The vocabulary size in a run's config.json, if there is one."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        vocab = config.get("vocab") or config.get("vocab_size")
    except (OSError, ValueError, AttributeError):
        return None
    return vocab if isinstance(vocab, int) and vocab > 1 else None


def read_log(path: str | Path) -> Log:
    """Read a log file, or the log in a run's folder; raises UsageError if it has no rows."""
    path = Path(path)
    if not path.exists():
        raise UsageError(f"there is no {path}; give the folder of a training run or a log file")
    file = find_log(path)
    try:
        text = decoded(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror or error})") from None
    except UsageError as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    log = parse(text)
    if not log.rows:
        raise UsageError(f"{file} has no row with a step and a loss; is it a training log?")
    log.vocab = log.vocab or config_vocab(file.parent)
    return log


def parse(text: str) -> Log:
    """Parse the text of a log; a text that is not one gives a Log without rows."""
    found = from_json(text) if text.lstrip()[:1] in ("{", "[") else None
    tried = [found] if found else []
    if not found:
        lines = re.split(r"[\r\n]+", ESCAPES.sub("", text) if "\x1b" in text else text)
        lines = [line for line in lines if line.strip()]
        tried = (read(lines) for read in (from_json_lines, from_csv, from_text))
    for found in tried:
        if found:
            log = to_rows(*found)
            if len(log.rows) >= (1 if "step" in kinds(key for r in found[1] for key in r) else 4):
                size = VOCABULARY.search(text[:20_000])
                log.vocab = int(size.group(1)) if size else None
                return log
    return Log([], "")
