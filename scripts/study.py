"""The reader's loop: save your file, and see at once whether it is right.

    python scripts/study.py                 the first step that does not pass yet
    python scripts/study.py p04_attention   ... of this project

Creates my/PROJECT.py, one step at a time, and watches it. At every save the step's checks run in a
process of their own, and the first failure is shown. Keys: h hint, s the book's lines, b break
something, d difference to the book, n and p next and previous step, a all checks, q quit. Without a
terminal it checks once; the exit status is the verdict.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import difflib
import importlib
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import p01_autograd.lab.startup  # noqa: E402, F401  isort: skip

import blank  # noqa: E402

from p01_autograd.lab import steps  # noqa: E402
from p01_autograd.lab.cli import Parser, UsageError, print_anything, quiet_end  # noqa: E402
from p01_autograd.lab.sabotage import change  # noqa: E402
from p01_autograd.lab.steps import PROJECTS, shipped_text  # noqa: E402

POLL = 0.05  # seconds between two looks at the file
LIMIT = 5  # seconds per check
WAIT = 0.7  # seconds after which the screen says that checks are running
GIVE_UP = 60  # seconds after which a process without an answer is killed
MISSING = "not written yet"  # the start of the checker's message for a missing name
CHOICES = "123456789cefgijklmortuvwxyz"  # keys that are not commands
AFTERWARDS = {  # suggestions once all checks pass: sabotage, seconds, measurement, seconds
    "p01_autograd": ("no_order", 10, "chain", 15),
    "p02_tensors": ("no_unbroadcast", 2, "matmul", 20),
    "p03_bpe": ("no_split", 10, "growth", 10),
    "p04_attention": ("no_scale", 15, "saturation", 3),
    "p05_gpt": ("no_pos_emb", 30, "count", 3),
    "p06_training": ("no_warmup", 10, "plan", 10),
}


# The checks of a file


@dataclass
class Result:
    """The results of a file's checks, by step."""

    counts: dict[int, tuple[int, int]] = field(default_factory=dict)  # passed, total
    first: dict[int, str] = field(default_factory=dict)  # message of the first failing check
    error: str = ""  # why nothing could be checked
    complete: bool = False  # whether all steps were checked, not only the requested one
    seconds: float = 0.0

    def passes(self, step: int) -> bool:
        passed, total = self.counts.get(step, (0, 1))
        return not self.error and passed == total

    @property
    def passed(self) -> bool:
        return bool(self.counts) and all(map(self.passes, self.counts))

    def first_open(self) -> int:
        """The first step that does not pass; the last one if all do; 1 without any result."""
        return next((n for n in self.counts if not self.passes(n)), max(self.counts, default=1))


Job = tuple[str, int | None]  # a file, and the step to check first


def run_checks(project: str, wait: Callable[[], Job], tell: Callable[[Result], None]) -> None:
    """Collect the checks of a project, wait() for a file, check it, and tell() the results.

    Collecting takes longer than most checks, so it is done while the reader is typing. A requested
    step is checked first and its result sent at once; the last result has all steps.
    """
    from p01_autograd.lab.checker import public_names
    from p01_autograd.lab.loading import CannotLoad, load
    from p01_autograd.lab.session import in_session

    names = public_names(project)
    placeholder = types.ModuleType("build_to_come")  # for --build, until there is a file
    vars(placeholder).update(dict.fromkeys(names))
    sys.modules[placeholder.__name__] = placeholder

    def work(checker, items) -> None:
        file, step = wait()
        try:
            checker.module, checker.given = load(file, project, os.getcwd(), LIMIT), file
            if not items:
                raise CannotLoad(f"the checks cannot be collected; pytest {project} says why")
            if not any(hasattr(checker.module, name) for name in names):
                raise CannotLoad(f"{file} has none of the names of {project}: {names[0]}, ...")
        except CannotLoad as error:
            tell(Result(error=str(error).removeprefix(f"{file} cannot be used: ")))
        else:
            run_steps(project, checker, items, step, tell)

    arguments = ("--build", placeholder.__name__, "--limit", str(LIMIT))
    try:
        in_session([ROOT / project / "test_build.py"], work, *arguments)
    except RuntimeError as error:
        wait()
        tell(Result(error=str(error)))


def run_steps(project: str, checker, items, step: int | None, tell: Callable) -> None:
    """Run the checks, those of `step` first; stop after one that exceeds the time limit."""
    from _pytest.runner import runtestprotocol

    from p01_autograd.lab.checker import step_of

    start, result = time.perf_counter(), Result()
    groups: dict[int, list] = {}
    for item in items:
        groups.setdefault(step_of(item), []).append(item)
    result.counts = {number: (0, len(group)) for number, group in sorted(groups.items())}
    order = [name for known in steps.steps(shipped_text(project)) for name in known.names]

    def rank(text: str) -> int:
        """Wrong results come first, then missing names in the order of the listing."""
        name = text.removeprefix(MISSING).strip(": ")
        here = [at for at, known in enumerate(order) if known.startswith(name)]
        return 1 + min(here, default=0) if text.startswith(MISSING) else 0

    for number in sorted(groups, key=lambda number: (number != step, number)):
        for item, following in zip(groups[number], [*groups[number][1:], None]):
            runtestprotocol(item, log=False, nextitem=following)
            failure = checker.results.get(item.nodeid)
            if failure is None:
                passed, total = result.counts[number]
                result.counts[number] = passed + 1, total
                continue
            shown = result.first.setdefault(number, failure.text)
            if rank(failure.text) < rank(shown):
                result.first[number] = failure.text
            if failure.hung:
                tell(result)
                return
        result.seconds = time.perf_counter() - start
        if number == step:
            tell(copy.deepcopy(result))
    result.complete = True
    tell(result)


def preload(project: str) -> None:
    """Import slow libraries that do not change, so that a forked child has them already."""
    import doctest  # noqa: F401
    import pdb  # noqa: F401

    import numpy  # noqa: F401
    import pytest  # noqa: F401

    if project != "p03_bpe":
        import p01_autograd.lab.quick_torch  # noqa: F401
    with contextlib.suppress(ImportError):
        if project in ("p02_tensors", "p06_training"):  # imported by the first `backward`
            importlib.import_module("torch.fx.experimental.symbolic_shapes")
        if project == "p06_training":  # imported by the first optimizer
            importlib.import_module("torch._dynamo")


def child(connection, project: str, folder: str, patient: bool) -> None:
    """The main function of a process: prepare, wait for one job, do it, send the results."""
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if patient and hasattr(os, "nice"):
        os.nice(10)
    parent = os.getppid()

    def wait() -> Job:
        while not connection.poll(1):
            if os.getppid() != parent:  # the parent has ended
                os._exit(0)
        return connection.recv()

    with contextlib.suppress(EOFError, OSError):
        preload(project)
        run_checks(project, wait, connection.send)
    os._exit(0)


class Runner:
    """Checks a file in a fresh process that is forked (on Linux) or started ahead of time."""

    def __init__(self, project: str, patient: bool = False):
        self.project, self.patient = project, patient
        forks = sys.platform.startswith("linux")
        self.context = multiprocessing.get_context("fork" if forks else "spawn")
        if forks:
            preload(project)
        self.process, self.started, self.told = None, 0.0, False
        self.prepare()

    def prepare(self) -> None:
        """Start the process for the next check."""
        self.stop()
        self.others = self.other_files()
        self.connection, theirs = self.context.Pipe()
        arguments = (theirs, self.project, os.getcwd(), self.patient)
        self.process = self.context.Process(target=child, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def other_files(self) -> list:
        """The state of the files that the checked file may import."""
        return [Watched.look(ROOT / project / "build.py") for project in PROJECTS]

    def start(self, file: Path | str, step: int | None) -> None:
        """Start a check, this step first; a running check is abandoned."""
        if self.started or not self.process.is_alive() or self.others != self.other_files():
            self.prepare()
        with contextlib.suppress(OSError):  # the process has ended; `result` reports it
            self.connection.send((str(file), step))
        self.started, self.told = time.monotonic(), False

    @property
    def waited(self) -> float:
        """Seconds since the start of a check that has not sent a result yet; else 0."""
        return time.monotonic() - self.started if self.started and not self.told else 0.0

    def result(self) -> Result | None:
        """A new result, or None: first that of the requested step, then that of all steps."""
        if not self.started:
            return None
        found = None
        try:
            if self.connection.poll():
                found = self.connection.recv()
            elif not self.process.is_alive() and not self.connection.poll():
                raise EOFError
        except (EOFError, OSError):
            if not self.told:
                error = "the check ended without an answer: does the file call exit?"
                if self.waited > LIMIT:
                    error = f"a call in the file did not return within {LIMIT} s"
                found = Result(error=error)
            self.prepare()
        if found is None and self.started and time.monotonic() - self.started > GIVE_UP:
            found = Result(error=f"a call in the file did not return within {GIVE_UP} s")
            self.prepare()
        if found is not None:
            self.told = True
            if found.complete:
                self.prepare()
        return found

    def stop(self) -> None:
        """Kill the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
        self.process, self.started = None, 0.0


# Texts from the chapter


def sentence_of(project: str, number: int) -> str:
    """The sentence on a step in the table of the chapter's README."""
    readme = (ROOT / project / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| *{number} *\| *(.+?) *\|.*--step {number}\b", readme, re.MULTILINE)
    return row[1].replace("`", "") if row else ""


def hints_of(project: str, number: int) -> list[str]:
    """The two hints for a step, from hints.md."""
    path = ROOT / project / "hints.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    part = re.search(rf"^## Step {number}\..*?$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.split(r"^\d\. ", part[1], flags=re.MULTILINE)[1:] if part else []
    return [" ".join(hint.split()) for hint in found]


def edits_of(project: str, number: int) -> dict[str, str]:
    """The sabotages that edit a line of this step: name -> the edit in one line.

    Parsed from the text of break_it.py, since importing it would import a build.py that the reader
    may be editing.
    """
    source, found = shipped_text(project), {}
    ranges = [(s.first, s.last) for s in steps.sections(source) if s.number == number]
    break_it = ast.parse((ROOT / project / "break_it.py").read_text(encoding="utf-8"))
    for call in ast.walk(break_it):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Sabotage":
            given = {
                k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)
            }
            edit = types.SimpleNamespace(**given)
            if not {"name", "old", "new"} <= set(given) or given.get("module", "build") != "build":
                continue
            if source.count(edit.old) == 1:
                start = source.index(edit.old) + len(edit.old) - len(edit.old.lstrip("\n"))
                line = source[:start].count("\n") + 1
                if any(first <= line <= last for first, last in ranges):
                    found[edit.name] = change(edit)
    return found


def book_lines(project: str, step: steps.Step) -> str:
    """The source of a step's functions in the book."""
    source = shipped_text(project)
    texts = [ast.get_source_segment(source, node, padded=True) for _, node in nodes(source, step)]
    return "\n\n".join(textwrap.dedent(text) for text in texts)


def nodes(source: str, step: steps.Step) -> list:
    return [(name, n) for name, n in steps.definitions(ast.parse(source)) if name in step.names]


def difference(project: str, step: steps.Step, file: Path) -> list[str]:
    """The step's functions in the book and in the file, as a unified diff."""
    texts = []
    for source in (shipped_text(project), file.read_text(encoding="utf-8", errors="replace")):
        try:
            found = nodes(source, step)
        except SyntaxError as error:
            return [f"{file.as_posix()}:{error.lineno} does not parse: {error.msg}"]
        parts = [ast.get_source_segment(source, node, padded=True) for _, node in found]
        texts.append([line for part in parts for line in [*part.splitlines(), ""]])
    names = f"{project}/build.py", file.as_posix()
    return list(difflib.unified_diff(*texts, *names, "", "", 3, "")) or ["the same, line for line"]


# The terminal


class Keys:
    """Reads single keys from a terminal; afterwards its settings are restored."""

    def __enter__(self):
        try:
            import termios
            import tty
        except ImportError:  # Windows
            self.restore = None
            return self
        self.restore = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        signal.signal(signal.SIGCONT, lambda *_: tty.setcbreak(sys.stdin))  # after Ctrl-Z and fg
        for number in (signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
            signal.signal(number, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *error):
        if self.restore is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self.restore)

    def get(self, seconds: float, connections: list) -> str:
        """The key pressed; "" after `seconds`, or as soon as a connection has data."""
        if self.restore is not None:
            import select

            ready, _, _ = select.select([sys.stdin, *connections], [], [], seconds)
            if sys.stdin not in ready:
                return ""
            return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or "q"  # end of file
        import msvcrt

        end = time.monotonic() + seconds
        while not msvcrt.kbhit():
            if time.monotonic() > end or any(connection.poll() for connection in connections):
                return ""
            time.sleep(0.01)
        return msvcrt.getwch()


Line = tuple[str, str]  # a text, and its colour; "code" before the colour: do not wrap


class Screen:
    """Prints text wrapped to the terminal's width, in colour if it supports that."""

    def __init__(self):
        self.tty = sys.stdout.isatty()
        self.colours = self.tty and not os.environ.get("NO_COLOR")
        self.blocks = "█▌·" if shows_blocks() else "#=."

    @property
    def width(self) -> int:
        return max(40, min(shutil.get_terminal_size().columns, 100)) - 1

    def show(self, lines: list[Line]) -> None:
        """Clear the terminal and print the lines."""
        start = "\x1b[H\x1b[2J" if self.tty else ""
        print(start + "\n".join(map(self.formatted, lines)), flush=True)

    def write(self, text: str, colour: str = "") -> None:
        print(self.formatted((text, colour)), flush=True)

    def formatted(self, line: Line) -> str:
        text, colour = line
        is_code, colour = colour.startswith("code"), colour.removeprefix("code").strip()
        code = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "faint": 2}.get(colour)
        parts = text.split("\n") if is_code else []
        for row in [] if is_code else text.split("\n"):
            start = row[: len(row) - len(row.lstrip())]
            if row.lstrip().startswith("[") and len(row) > self.width:  # a row of numbers
                parts.append(row[: self.width - 4].rpartition(",")[0] + ", ...")
                continue
            parts += textwrap.wrap(
                row.strip(), self.width, initial_indent=start, subsequent_indent=start
            ) or [""]
        if self.colours and code:
            parts = [f"\x1b[{code}m{part}\x1b[0m" if part else "" for part in parts]
        return "\n".join(parts)

    def row(self, items: list[str]) -> str:
        """The items side by side, wrapped only between items."""
        lines = [""]
        for item in items:
            if lines[-1] and len(lines[-1]) + 2 + len(item) > self.width:
                lines.append("")
            lines[-1] += ("  " if lines[-1] else "") + item
        return "\n".join(lines)

    def bar(self, share: float, width: int = 6) -> str:
        full, half, empty = self.blocks
        halves = int(2 * width * share)
        return full * (halves // 2) + half * (halves % 2) + empty * (width - (halves + 1) // 2)


def shows_blocks() -> bool:
    """Whether the terminal shows block characters: both Python and the locale say UTF-8.

    Python alone is not enough: in a C locale it writes UTF-8 too, and sets LC_CTYPE to C.UTF-8.
    """
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        return False
    if os.name == "nt" or os.environ.get("PYTHONIOENCODING"):
        return True
    names = [os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    if names[1] == "C.UTF-8" and names[2] in ("", "C", "POSIX"):
        names[1] = names[2]
    return "utf" in next(filter(None, names), "").lower()


# The loop


@dataclass
class Watched:
    """The state of a file; equal to an earlier one as long as the file was not saved."""

    stamp: tuple

    @classmethod
    def look(cls, file: Path) -> Watched | None:
        try:
            status = file.stat()
        except OSError:  # while an editor renames it, the file is missing for a moment
            return None
        return cls((status.st_mtime_ns, status.st_size, status.st_ino))


class Study:
    """The loop over the steps of one project."""

    def __init__(self, project: str, screen: Screen, known: dict[str, Result] | None = None):
        self.project, self.screen = project, screen
        self.file = Path("my") / f"{project}.py"
        self.source = shipped_text(project)
        self.chapter = steps.steps(self.source)
        self.blank = blank.blank(self.source, project, blank.optional(project, self.source))
        self.progress: dict[str, Result] = dict(known or {})  # of all steps, by project
        self.number = 0  # the current step; 0: not known yet
        self.verdict: list[Line] = []
        self.notice: list[Line] = []  # what has happened since the last save
        self.below: list[Line] = []  # what a key has asked for
        self.hints_shown = 0
        self.visiting = False  # whether n or p led to this step, since the last save
        self.waiting = False  # for the verdict on the step
        self.asked: dict[str, str] = {}  # answers to a question: key -> meaning
        self.may_show: set[int] = set()  # steps whose lines in the book may be shown
        self.finished = False  # all checks pass, and the screen says so
        self.current = False  # whether `progress` is that of the last save
        self.all_wanted = False  # whether a was pressed before `progress` was current
        self.other_output = False  # whether the screen shows a sabotage's output
        self.seen: Watched | None = None  # the last save that was noticed
        self.drawn: Watched | None = None  # the save that the screen shows
        if not self.file.exists():
            blank.write(self.file, steps.only(self.blank, self.chapter[0].number))
        self.begun = {p: Path("my") / f"{p}.py" for p in PROJECTS}
        self.begun = {p: file for p, file in self.begun.items() if file.is_file()}

    @property
    def step(self) -> steps.Step:
        return next(step for step in self.chapter if step.number == self.number)

    # The screen

    def progress_line(self) -> str:
        """The progress of each project in one line."""
        parts = []
        for project in PROJECTS:
            result, name = self.progress.get(project), project[:3]
            if project not in self.begun:
                parts.append(f"{name} {self.screen.bar(0)}")
            elif result is None:
                parts.append(f"{name} ...")
            elif result.error:
                parts.append(f"{name} {self.screen.bar(0)} does not load")
            else:
                passed = sum(p for p, _ in result.counts.values())
                total = sum(n for _, n in result.counts.values())
                parts.append(f"{name} {self.screen.bar(passed / total)}")
                if result.passed:
                    parts[-1] += f" {passed}/{total}"
                else:
                    parts[-1] += f" step {result.first_open()} of {len(result.counts)}"
        return self.screen.row(parts)

    def head(self) -> list[Line]:
        """The progress line, the file, the step and the chapter's sentence on it."""
        lines = [(self.progress_line(), "faint"), ("", "")]
        if self.finished:
            lines += [(f"{self.file.as_posix()}, all {len(self.chapter)} steps", "bold")]
        elif self.number:
            step = self.step
            lines += [(f"{self.file.as_posix()}, step {step.number}. {step.title}", "bold")]
            sentence = sentence_of(self.project, step.number).removeprefix(step.title)
            sentence = sentence.removeprefix(":").strip()
            if sentence:
                lines.append((sentence, ""))
        return [*lines, ("", "")]

    def draw(self) -> None:
        """Draw the whole screen: head, notices, verdict, the answer to a key, the keys."""
        foot = ["h hint", "s the book's lines", "b break it", "d difference", "n p another step"]
        foot = self.screen.row([*foot, "a all checks", "q end"])
        lines = self.head()
        for part in (self.notice, self.verdict, self.below):
            lines += [*part, ("", "")] if part else []
        self.screen.show([*lines, (foot, "faint")])
        self.drawn, self.other_output = self.seen, False

    def describe(self, result: Result) -> list[Line]:
        """The verdict on the step: the first failure, or the number of passed checks."""
        if result.error:
            return [(result.error, "red")]
        passed, total = result.counts.get(self.number, (0, 0))
        if passed == total:
            lines = [(f"{passed} check{'s pass' if passed != 1 else ' passes'}", "green")]
            return lines + [("checking the other steps ...", "faint")] * (not result.complete)
        first = result.first.get(self.number, "")
        missing = first.startswith(MISSING)
        lines = [(first, "yellow" if missing else "red")]
        if (others := total - passed - 1) > 0:
            more = "check" if others == 1 else "checks"
            lines += [("", ""), (f"{others} more {more} of this step behind it", "faint")]
        return lines

    def afterwards(self) -> list[Line]:
        """What to do next when all checks pass."""
        total = sum(n for _, n in self.progress[self.project].counts.values())
        sabotage, breaking, part, measuring = AFTERWARDS[self.project]
        lines = [
            (f"all {total} checks of {self.project} pass", "green"),
            ("", ""),
            (
                f"break it:    python -m {self.project}.break_it {sabotage}  (about {breaking} s)",
                "",
            ),
            (f"measure it:  python -m {self.project}.measure {part}  (about {measuring} s)", ""),
        ]
        later = [project for project in PROJECTS if project > self.project]
        if later:
            lines.append((f"go on:       python scripts/study.py {later[0]}", ""))
        return lines

    # Without a terminal

    def once(self) -> int:
        """Check the file once and print the verdict on its first open step; returns the status."""
        found: list[Result] = []
        run_checks(self.project, lambda: (str(self.file), None), found.append)
        result = found[-1]
        if result.error:
            print(f"{self.file.as_posix()}: {result.error}")
            return 1
        self.number = result.first_open()
        print(f"{self.file.as_posix()}, step {self.number}. {self.step.title}")
        if result.passed:
            print(f"all {sum(n for _, n in result.counts.values())} checks pass")
            return 0
        for text, _ in self.describe(result):
            print(text)
        return 1

    # With a terminal

    def run(self, keys: Keys) -> int:
        """Watch the file until q is pressed; returns the exit status."""
        self.screen.write(f"checking {self.file.as_posix()} ...")
        others = [p for p in self.begun if p != self.project and p not in self.progress]
        other, runners = "", []  # the project that is checked for the progress line
        try:
            self.runner = Runner(self.project)
            runners = [self.runner]
            self.seen, size = Watched.look(self.file), shutil.get_terminal_size()
            if found := self.progress.pop(self.project, None):
                self.hear(found)
            else:
                self.check()
            while True:
                now = Watched.look(self.file)
                if now is not None and now != self.seen:
                    self.saved(now)
                if self.runner.waited > WAIT and self.waiting and self.number:
                    self.waiting = False
                    self.screen.write("\nchecking ...", "faint")
                if (result := self.runner.result()) is not None:
                    self.hear(result)
                if not self.runner.started and others and not other:
                    other = others.pop(0)
                    runners.append(Runner(other, patient=True))
                    runners[1].start(self.begun[other], None)
                if other and (result := runners[1].result()) is not None:
                    self.progress[other] = result
                    runners.pop().stop()
                    other = ""
                    self.draw_again()
                if size != (size := shutil.get_terminal_size()):
                    self.draw_again()
                key = keys.get(POLL, [runner.connection for runner in runners if runner.started])
                if key in ("q", "\x04"):
                    return 0
                if key and self.number:
                    self.pressed(key)
        except KeyboardInterrupt:
            return 130
        finally:
            for runner in runners:
                runner.stop()
            print()

    def check(self) -> None:
        """Start to check the file, the current step first."""
        self.waiting, self.current = True, False
        self.runner.start(self.file, self.number or None)

    def saved(self, now: Watched) -> None:
        self.seen, self.notice, self.below, self.asked = now, [], [], {}
        self.visiting = self.all_wanted = False
        self.check()

    def hear(self, result: Result) -> None:
        """Handle a result: show it, and change the step if all steps were checked."""
        self.waiting = False
        if not self.number and not result.passed:
            self.progress[self.project] = result
            self.current = result.complete
            self.go_to(result.first_open(), result)
        elif result.error or not result.complete:
            if not (self.finished and result.passes(self.number)):  # else wait for the other steps
                self.show(self.describe(result))
        else:
            before, self.progress[self.project] = self.progress.get(self.project), result
            self.current = True
            self.hear_all(before, result)

    def hear_all(self, before: Result | None, result: Result) -> None:
        """Handle the result of all steps: stay, or go to the first open one."""
        here, first = self.number, result.first_open()
        if self.all_wanted:
            self.show_all()
        elif self.visiting or (self.finished and result.passed):
            self.draw_again()
        elif first < here and before and before.passes(first):
            self.notice.append((f"step {first} no longer passes", "red"))
            self.go_to(first, result)
        elif not here:
            self.go_to(first, result)
        elif result.passes(here):
            self.notice.append((f"step {here} passes", "green"))
            if names := edits_of(self.project, here):
                back = " (b)" if first == here else " (p, then b)" if first == here + 1 else ""
                self.notice.append((f"it can be broken now: {', '.join(names)}{back}", ""))
            if first < here:
                self.notice.append((f"step {first} is still open", ""))
            self.go_to(first, result)
        else:
            self.draw_again()

    def go_to(self, number: int, result: Result) -> None:
        """Make this the current step."""
        self.number, self.hints_shown, self.below = number, 0, []
        self.finished = result.passed
        if self.add_stubs():
            text = f"the file has the stubs of step {number} now: reload it if your editor does not"
            self.notice.append((text, ""))
        self.verdict = self.afterwards() if self.finished else self.describe(result)
        self.draw()

    def show(self, verdict: list[Line]) -> None:
        """Draw the screen with this verdict, unless it shows it already."""
        self.finished = False
        if verdict != self.verdict or self.drawn != self.seen:
            self.verdict = verdict
            self.draw()

    def draw_again(self) -> None:
        """Redraw the screen, unless it shows a sabotage's output."""
        if self.number and not self.other_output:
            self.draw()

    def add_stubs(self) -> bool:
        """Add the missing stubs of the steps up to this one; returns whether there were any."""
        before = Watched.look(self.file)
        try:
            mine = more = self.file.read_text(encoding="utf-8")
            for step in self.chapter:
                if step.number <= self.number:
                    more = steps.with_step(more, self.blank, step.number)
        except (SyntaxError, OSError, UnicodeDecodeError):
            return False
        if more == mine or Watched.look(self.file) != before:  # do not overwrite a newer save
            return False
        blank.write(self.file, more, "w")
        self.seen = Watched.look(self.file)
        return True

    # The keys

    def pressed(self, key: str) -> None:
        """Handle a key."""
        chosen = self.asked.get(key, "")
        back, self.asked = bool(self.asked) or self.other_output, {}
        if chosen in ("s", "d"):
            self.may_show.add(self.number)
            key = chosen
        elif chosen:
            self.run_sabotage(chosen)
            return
        if key == "h":
            self.show_hints()
        elif key in ("s", "d"):
            self.show_book(key)
        elif key == "b":
            self.offer_sabotages()
        elif key in ("n", "p"):
            self.visit(1 if key == "n" else -1)
        elif key == "a":
            self.all_wanted = True
            if self.current:
                self.show_all()
            elif not self.runner.started:
                self.check()
        elif back:
            self.below = []
            self.draw()

    def show_hints(self) -> None:
        """Show the hints so far and the next one."""
        hints = hints_of(self.project, self.number)
        self.hints_shown = min(self.hints_shown + 1, len(hints))
        self.below = [
            (f"hint {at} of {len(hints)}: {hint}", "yellow")
            for at, hint in enumerate(hints[: self.hints_shown], 1)
        ] or [("there is no hint for this step", "")]
        self.draw()

    def show_book(self, key: str) -> None:
        """Show the book's lines (s) or the difference to them (d); confirm it for an open step."""
        passes = self.current and self.progress[self.project].passes(self.number)
        if self.number not in self.may_show and not passes:
            self.asked = {"y": key}
            self.below = [("y shows the book's lines of this step", "yellow")]
        elif key == "s":
            self.below = [(book_lines(self.project, self.step), "code")]
        else:
            lines = difference(self.project, self.step, self.file)
            colours = {"+": "green", "-": "red"}
            self.below = [(line, "code " + colours.get(line[:1], "")) for line in lines]
        self.draw()

    def offer_sabotages(self) -> None:
        edits = edits_of(self.project, self.number)
        self.asked = dict(zip(CHOICES, edits))
        self.below = [(f"{k} {name}: {edits[name]}", "") for k, name in self.asked.items()]
        if self.below:
            self.below.append(("which one? any other key: none", "yellow"))
        else:
            self.below = [("no sabotage edits a line of this step", "")]
        self.draw()

    def run_sabotage(self, name: str) -> None:
        """Run break_it on the shipped code; Ctrl-C ends it but not the loop."""
        self.below = []
        self.draw()
        command = [sys.executable, "-m", f"{self.project}.break_it", name]
        self.screen.write(f"\npython -m {self.project}.break_it {name}\n", "bold")
        with contextlib.suppress(KeyboardInterrupt):
            subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
        self.screen.write("any key: back to the step", "faint")
        self.other_output = True

    def visit(self, steps_away: int) -> None:
        """Go to another step and stay there until the next save."""
        numbers = [step.number for step in self.chapter]
        at = numbers.index(self.number) + steps_away
        self.number, self.hints_shown = numbers[max(0, min(at, len(numbers) - 1))], 0
        self.notice, self.below, self.finished, self.visiting = [], [], False, True
        self.add_stubs()
        if self.current:
            self.verdict = self.describe(self.progress[self.project])
            self.draw()
        else:
            self.check()

    def show_all(self) -> None:
        """Show how many checks of each step pass."""
        self.all_wanted, result = False, self.progress[self.project]
        self.below = []
        for step in self.chapter:
            passed, total = result.counts.get(step.number, (0, 0))
            colour = "green" if passed == total else ""
            text = f"{passed:3} of {total:2}  {step.number}. {step.title}"
            self.below.append((text, colour))
        self.draw()


def where_was_i(screen: Screen) -> tuple[str, dict[str, Result]]:
    """The first started project that does not pass, or else the next one, and the known results."""
    begun = [project for project in PROJECTS if Path("my", f"{project}.py").is_file()]
    known: dict[str, Result] = {}
    for project in begun:
        if screen.tty:
            screen.write(f"checking my/{project}.py ...")
        runner = Runner(project)
        runner.start(Path("my", f"{project}.py"), None)
        while (result := runner.result()) is None:
            time.sleep(POLL)
        runner.stop()
        known[project] = result
        if not result.passed:
            return project, known
    later = [project for project in PROJECTS if not begun or project > begun[-1]]
    return later[0] if later else begun[-1], known


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python scripts/study.py",
        description="Check my/PROJECT.py at every save, step by step.",
    )
    parser.add_argument("project", nargs="?", metavar="PROJECT", help=", ".join(PROJECTS))
    flags = parser.parse_args(argv)
    screen, known, project = Screen(), {}, flags.project
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:  # Ctrl-C works even if the parent process ignores it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        project = project and blank.whole_name(project)
        with Keys() if interactive else contextlib.nullcontext() as keys:
            if not project:
                project, known = where_was_i(screen)
            study = Study(project, screen, known)
            return study.run(keys) if interactive else study.once()
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # | head
        quiet_end()
        return 0


if __name__ == "__main__":
    sys.exit(main())
