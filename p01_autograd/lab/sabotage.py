"""Break a project on purpose: the smallest edit of its code, and what it does to the numbers.

A sabotage is one piece of text of a module and what to put in its place. The edited copy is a
module like the real one and is never written to disk. Every project's break_it.py lists its
sabotages, says how a module is measured, and leaves the rest to `main`.
"""

import dataclasses
import difflib
import importlib
import linecache
import math
import random
import shutil
import sys
import textwrap
import time
import traceback
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p01_autograd.lab.cli import (
    Parser,
    UsageError,
    at_least,
    output_folder,
    print_anything,
    quiet_end,
)
from p01_autograd.lab.threads import use_one_core

Experiment = Callable[..., Any]  # (build=module, seed=seed) -> numbers
Drawing = Callable[[list, list], Any]  # (healthy, broken) -> figure


@dataclass(frozen=True)
class Sabotage:
    """The smallest edit of a module that breaks it.

    `old` is the text that goes, which stands exactly once in the project's `module`, and `new`
    what comes instead. `predict` says in words what the book expects, and `symptom(healthy,
    broken)` says from the measured numbers of the two runs whether it is there. `caught_by` names
    the test of test_<module>.py that fails on the edited module.

    The rest is for the field guide (symptoms.py): what one sees, as keys of SYMPTOMS, and the
    names of the numbers that show it; the class of FAULTS that it belongs to; how to tell it from
    what looks the same; and the finding of the doctor or the checkup that names it.
    """

    name: str
    old: str
    new: str
    predict: str
    symptom: Callable[[Any, Any], bool]
    caught_by: str
    module: str = "build"
    looks_like: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    fault: str = ""
    tell: str = ""
    named_by: str = ""


def edited(package: str, sabotage: Sabotage, source: str | None = None) -> tuple[str, str]:
    """The source of the module, or another text of it, before and after the edit.

    ValueError if the old text does not stand there exactly once.
    """
    if source is None:
        (folder,) = map(Path, importlib.import_module(package).__path__)
        source = (folder / f"{sabotage.module}.py").read_text(encoding="utf-8")
    found = source.count(sabotage.old)
    if found != 1:
        where = f"{package}/{sabotage.module}.py"
        raise ValueError(
            f"{where} holds the text that {sabotage.name} replaces {found} times, not once: "
            f"{sabotage.old.strip()}"
        )
    return source, source.replace(sabotage.old, sabotage.new)


def sabotaged(package: str, sabotage: Sabotage, source: str | None = None) -> types.ModuleType:
    """A fresh module: the project's source with the edit, a full drop-in for the real one.

    It can be imported as `PACKAGE.MODULE_NAME`, so an edit may build on another's module.
    Tracebacks and `inspect.getsource` show its text. Errors as in `edited`.
    """
    _, source = edited(package, sabotage, source)
    module = types.ModuleType(f"{package}.{sabotage.module}_{sabotage.name}")
    module.__package__ = package
    module.__file__ = f"<{package}/{sabotage.module}.py with {sabotage.name}>"
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(True), module.__file__)
    sys.modules[module.__name__] = module
    exec(compile(source, module.__file__, "exec"), vars(module))
    return module


def diff(package: str, sabotage: Sabotage) -> str:
    """The edit as a unified diff."""
    before, after = edited(package, sabotage)
    path = f"{package}/{sabotage.module}.py"
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), path, f"{path} with {sabotage.name}", "", "", 2, ""
    )
    return "\n".join(lines)


def change(sabotage: Sabotage) -> str:
    """The edit in one line: what goes -> what comes, without what both share."""
    old, new = sabotage.old.split(), sabotage.new.split()
    head = shared(old, new)
    tail = shared(old[head:][::-1], new[head:][::-1])
    parts = []
    for words in (old, new):
        start, end = max(head - 1, 0), min(len(words) - tail + 1, len(words))
        text = " ".join(words[start:end]) or "(nothing)"
        parts.append(textwrap.shorten(text, 60, placeholder=" ..."))
    return " -> ".join(parts)


def shared(a: list, b: list) -> int:
    """How many items both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


@dataclass
class Comparison:
    """The numbers of the healthy and the broken runs of one sabotage, one pair for each seed."""

    sabotage: Sabotage
    healthy: list
    broken: list
    seconds: float

    @property
    def there(self) -> int:
        """With how many seeds the predicted symptom was there."""
        return sum(map(self._there, self.healthy, self.broken))

    def _there(self, healthy: Any, broken: Any) -> bool:
        try:
            return bool(self.sabotage.symptom(healthy, broken))
        except (AttributeError, TypeError):  # a run that ended with an error has no such numbers
            return False

    @property
    def verdict(self) -> str:
        """What the numbers say of the prediction."""
        seeds, there = len(self.healthy), self.there
        word = "as predicted" if there == seeds else "mixed" if there else "not as predicted"
        return f"{word} ({there or seeds} of {seeds} seeds)"


_healthy: dict = {}  # the healthy run is the same for every sabotage of a module


def compare(
    package: str, sabotage: Sabotage, experiment: Experiment, seeds: Sequence[int]
) -> Comparison:
    """Run the experiment on the shipped module and on the edited one, with the same seeds."""
    broken_module = sabotaged(package, sabotage)
    shipped = importlib.import_module(f"{package}.{sabotage.module}")
    start, healthy, broken = time.perf_counter(), [], []
    for seed in seeds:
        key = experiment, sabotage.module, seed
        if key not in _healthy:
            _healthy[key] = experiment(**{sabotage.module: shipped}, seed=seed)
        healthy.append(_healthy[key])
        try:
            broken.append(experiment(**{sabotage.module: broken_module}, seed=seed))
        except Exception as error:
            text = f"{type(error).__name__}: {error}".split("\n")[0]
            broken.append(types.SimpleNamespace(error=text))
    return Comparison(sabotage, healthy, broken, time.perf_counter() - start)


# What is printed


def scalars(numbers: Any) -> dict[str, Any]:
    """The numbers and words of a run that fit into a table, by name."""
    if dataclasses.is_dataclass(numbers):
        names = [field.name for field in dataclasses.fields(numbers)]
    else:
        names = list(vars(numbers))
    found = {name: getattr(numbers, name) for name in names}
    return {n: value for n, value in found.items() if isinstance(value, int | float | str)}


def cell(values: list) -> str:
    """One number, or the mean of several with half their range."""
    if all(value == values[0] for value in values) or any(isinstance(v, str) for v in values):
        value = values[0]
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, str):
            return textwrap.shorten(value, 40, placeholder=" ...") or "(nothing)"
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if isinstance(values[0], bool):
        return f"{sum(values)} of {len(values)}"
    if not all(map(math.isfinite, values)):
        return " ".join(f"{value:.4g}" for value in values)
    return f"{sum(values) / len(values):.4g} ±{(max(values) - min(values)) / 2:.2g}"


def row(runs: list) -> dict[str, str]:
    """The cells of several runs of one module, by name; long texts and errors left out."""
    tables = [scalars(run) for run in runs]
    names = [name for name in tables[0] if name != "error" and not long_text(tables[0][name])]
    return {n: cell([table[n] for table in tables if n in table]) for n in names}


def long_text(value: Any) -> bool:
    return isinstance(value, str) and (len(value) > 40 or "\n" in value)


def texts(runs: list) -> list[str]:
    """The errors and the long texts of the first run, which do not fit into a table."""
    found = scalars(runs[0])
    return [
        f"{name}: {value}" for name, value in found.items() if name == "error" or long_text(value)
    ]


def print_table(rows: list[dict[str, str]]) -> None:
    """Columns as wide as they need; a number ends where its column ends."""
    names = list(dict.fromkeys(name for line in rows for name in line))
    lines = [names, *([line.get(name, "-") for name in names] for line in rows)]
    lines[0] = [name.replace("_", " ") for name in names]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        first, *rest = line
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:])]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())


def print_sides(result: Comparison) -> None:
    """The numbers of one comparison, healthy and broken side by side."""
    healthy, broken = row(result.healthy), row(result.broken)
    names = dict.fromkeys([*healthy, *broken])
    print_table(
        [
            {"": n.replace("_", " "), "healthy": healthy.get(n, "-"), "broken": broken.get(n, "-")}
            for n in names
        ]
    )
    for side, runs in (("healthy", result.healthy), ("broken", result.broken)):
        for text in texts(runs):
            print(f"{side} {text}")


def wrapped(text: str, indent: str = "") -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False)


def save(drawing: Any, package: str, name: str, title: str = "") -> str:
    """Write a figure into runs/PACKAGE/break_it; returns where."""
    path = output_folder("runs", package, "break_it") / f"{name}.png"
    if title:
        drawing.suptitle(title)
    drawing.savefig(path)
    return path.as_posix()


# The command line


def main(
    package: str,
    sabotages: list[Sabotage],
    experiment: Experiment,
    figure: Drawing,
    damage: str | None = None,
    argv: list[str] | None = None,
) -> int:
    """The command line of a project's break_it.py; returns the exit status.

    `experiment(build=module, seed=seed)` turns a module into numbers: an object whose numbers and
    words become the table and whose lists are for the figure. The keyword is the name of the
    sabotage's module. `figure(healthy, broken)` draws two lists of such objects, one for each
    seed. `damage` names the number by which --all sorts, the largest first.
    """
    print_anything()
    by_name = {sabotage.name: sabotage for sabotage in sabotages}
    parser = Parser(
        prog=f"python -m {package}.break_it",
        description=f"Break {package} on purpose and measure what that does. "
        "Without a name: the list of sabotages.",
    )
    what = parser.add_mutually_exclusive_group()
    parser.add_argument(
        "names", nargs="*", default=[], metavar="NAME", help="healthy against broken"
    )
    what.add_argument("--all", action="store_true", help="every sabotage, in one table")
    what.add_argument("--diff", action="store_true", help="show the edit of NAME, run nothing")
    what.add_argument("--quiz", action="store_true", help="see the symptoms, name the line")
    parser.add_argument("--seed", type=at_least(0), help="the first seed; default: 1337")
    parser.add_argument(
        "--seeds", type=at_least(1), default=1, metavar="N", help="how many seeds; default: 1"
    )
    flags = parser.parse_args(argv)
    for name in flags.names:
        if name not in by_name:
            parser.error(f"there is no sabotage {name}; there are {', '.join(by_name)}")
    if flags.names and (flags.all or flags.quiz):
        parser.error("a NAME goes with --diff or alone, not with --all or --quiz")
    if flags.diff and not flags.names:
        parser.error(f"--diff needs a NAME; there are {', '.join(by_name)}")
    first = 1337 if flags.seed is None else flags.seed
    seeds = range(first, first + flags.seeds)
    try:
        for sabotage in sabotages:
            if flags.all or flags.quiz or sabotage.name in flags.names:
                check_shipped(package, sabotage)
        if (flags.all or flags.quiz or flags.names) and not flags.diff:
            output_folder("runs", package, "break_it")  # before the work, not after it
            use_one_core()
        if flags.diff:
            print("\n".join(diff(package, by_name[name]) for name in flags.names))
        elif flags.quiz:
            quiz(package, sabotages, experiment, figure, seeds, random.Random(flags.seed))
        elif flags.all:
            show_all(package, sabotages, experiment, figure, damage, seeds)
        elif flags.names:
            for name in flags.names:
                show_one(package, by_name[name], experiment, figure, seeds)
        else:
            width = max(map(len, by_name))
            for name, sabotage in by_name.items():
                print(f"{name:{width}}  {change(sabotage)}")
            print(f"\nto see one: python -m {package}.break_it {next(iter(by_name))}")
    except UsageError as error:
        parser.error(str(error))
    except NotImplementedError as error:  # a reader's own file, which others build on
        last = traceback.extract_tb(error.__traceback__)[-1]
        parser.error(f"{last.name} in {last.filename} is not written yet")
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # | head
        quiet_end()
    return 0


def check_shipped(package: str, sabotage: Sabotage) -> None:
    """UsageError if the module is no longer the text that the sabotage edits."""
    try:
        edited(package, sabotage)
    except ValueError:
        file = f"{package}/{sabotage.module}.py"
        raise UsageError(
            f"{sabotage.name} edits the shipped {file}, and this one is yours; keep a copy of it, "
            f"then: git checkout {file}"
        ) from None


def show_one(
    package: str,
    sabotage: Sabotage,
    experiment: Experiment,
    figure: Drawing,
    seeds: Sequence[int],
) -> None:
    """Diff, prediction, table, verdict and figure of one sabotage."""
    print(f"{diff(package, sabotage)}\n")
    print(wrapped(f"prediction: {sabotage.predict}", "  "), flush=True)
    print()
    (result,) = run(package, [sabotage], experiment, seeds)
    print_sides(result)
    print(f"\nverdict: {result.verdict}")
    drawing = figure(result.healthy, result.broken)
    print(f"figure: {save(drawing, package, sabotage.name, sabotage.name)}")
    print(f"took {result.seconds:.0f} s\n")


def show_all(
    package: str,
    sabotages: list[Sabotage],
    experiment: Experiment,
    figure: Drawing,
    damage: str | None,
    seeds: Sequence[int],
) -> None:
    """Every sabotage in one table, under it the predictions and what does not fit in a table."""
    results = run(package, sabotages, experiment, seeds)
    if damage:
        results.sort(key=lambda result: how_bad(result, damage), reverse=True)
    modules = {result.sabotage.module: result for result in results}
    rows = []
    for module, result in modules.items():
        name = "healthy" if len(modules) == 1 else f"healthy ({module})"
        rows.append({"": name, **row(result.healthy), "verdict": ""})
    for result in results:
        cells = row(result.broken) or {"error": "yes"}
        cells.pop("error", None)
        rows.append({"": result.sabotage.name, **cells, "verdict": result.verdict})
    print_table(rows)
    if len(seeds) > 1:
        print(f"± is half the range over {len(seeds)} seeds")
    for result in results:
        sabotage = result.sabotage
        print()
        print(wrapped(f"{sabotage.name}: {change(sabotage)}", "  "))
        print(wrapped(f"  prediction: {sabotage.predict}", "    "))
        for text in texts(result.broken):
            print(textwrap.shorten(f"  {text!r}", 100, placeholder=" ..."))
        drawing = figure(result.healthy, result.broken)
        save(drawing, package, sabotage.name, sabotage.name)
    print(f"\nfigures: runs/{package}/break_it")


def how_bad(result: Comparison, damage: str) -> float:
    """The mean of the number that measures the damage; endless for runs that did not survive."""
    values = [getattr(run, damage, math.nan) for run in result.broken]
    mean = sum(values) / len(values)
    return math.inf if math.isnan(mean) else mean


def run(
    package: str,
    sabotages: list[Sabotage],
    experiment: Experiment,
    seeds: Sequence[int],
    hidden: bool = False,
) -> list[Comparison]:
    """Compare each; a bar on the terminal when there are several. `hidden` does not say which."""
    from tqdm import tqdm

    several = len(sabotages) > 1
    if not sys.stderr.isatty():  # no bar there
        names = "a sabotage" if hidden else sabotages[0].name
        names = "every sabotage" if several else names
        print(f"running {names}, healthy and broken ...", file=sys.stderr, flush=True)
    bar = tqdm(sabotages, disable=None if several else True, leave=False, delay=2, unit="sabotage")
    return [compare(package, sabotage, experiment, seeds) for sabotage in bar]


def quiz(
    package: str,
    sabotages: list[Sabotage],
    experiment: Experiment,
    figure: Drawing,
    seeds: Sequence[int],
    draw: random.Random,
) -> None:
    """Show the symptoms of one sabotage after another, in random order; the reader names them."""
    print(f"{len(sabotages)} sabotages, one line each. Which one is at work? q ends the quiz.")
    right = asked = 0
    for sabotage in draw.sample(sabotages, len(sabotages)):
        if asked and not go_on():
            break
        (result,) = run(package, [sabotage], experiment, seeds, hidden=True)
        print(f"\n--- question {asked + 1}")
        print_sides(result)
        drawing = figure(result.healthy, result.broken)
        print(f"figure: {save(drawing, package, 'quiz')}\n")
        for number, option in enumerate(sabotages, 1):
            print(f"{number:3}  {option.name}: {change(option)}")
        answer = ask(sabotages)
        if answer is None:
            break
        asked += 1
        right += answer is sabotage
        if answer is sabotage:
            print("Yes.\n")
        else:
            print(f"No, it was {sabotage.name}. Beside it, what {answer.name} looks like:\n")
            (chosen,) = run(package, [answer], experiment, seeds)
            print_beside({sabotage.name: result.broken, answer.name: chosen.broken})
            print()
        print(f"{diff(package, sabotage)}\n")
        print(wrapped(sabotage.predict))
        print(f"\nscore: {right} of {asked}")
    print(f"\nYou named {right} of {asked}.")
    if asked:
        path = output_folder("runs", package, "break_it") / "quiz.txt"
        path.write_text(f"{right} of {asked}\n", encoding="utf-8")


def print_beside(runs_by_name: dict[str, list]) -> None:
    """The numbers of broken runs, a column for each sabotage."""
    cells = {name: row(runs) for name, runs in runs_by_name.items()}
    names = dict.fromkeys(name for column in cells.values() for name in column)
    print_table(
        [
            {"": n.replace("_", " ")} | {name: column.get(n, "-") for name, column in cells.items()}
            for n in names
        ]
    )


def go_on() -> bool:
    """Wait for Enter before the next training; False at the end of the input or after q."""
    print("Enter: the next question. ", end="", flush=True)
    line = sys.stdin.readline()
    return bool(line) and line.strip().lower() not in ("q", "quit")


def ask(sabotages: list[Sabotage]) -> Sabotage | None:
    """The reader's choice by number or name, or None at the end of the input."""
    choices = {str(number): sabotage for number, sabotage in enumerate(sabotages, 1)}
    choices |= {sabotage.name: sabotage for sabotage in sabotages}
    while True:
        print(f"Which one (1 to {len(sabotages)}, or its name)? ", end="", flush=True)
        line = sys.stdin.readline()
        answer = line.strip().lower()
        if not line or answer in ("q", "quit"):
            print()
            return None
        if answer in choices:
            return choices[answer]
        print(f"'{answer}' is none of them.")
