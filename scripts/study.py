"""The reader's loop: you save, and you know.

    python scripts/study.py                 the first step that does not pass yet
    python scripts/study.py p04_attention   ... of this project

Writes my/PROJECT.py if there is none, a step at a time, and watches it. At every save the step's
checks run in a process of their own, and the first that fails is shown. Keys: h a hint, s the
book's lines, b break something, d the difference to the book, n and p another step, a all checks,
q the end. Without a terminal it checks once and ends with the status of the check.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import io
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import p01_autograd.lab.threads  # noqa: E402, F401  isort: skip

import blank  # noqa: E402

from p01_autograd.lab import steps  # noqa: E402
from p01_autograd.lab.cli import Parser, UsageError, print_anything  # noqa: E402
from p01_autograd.lab.steps import PROJECTS, shipped_text  # noqa: E402

POLL = 0.05  # seconds between two looks at the file and the keys
LIMIT = 5  # seconds that one check may take before it is stopped and told
WAIT = 0.7  # seconds after which the screen says that a check is under way
GIVE_UP = 60  # seconds after which a process that does not answer is killed


# One check of a file, in a process of its own


@dataclass
class Result:
    """What the checks of a step, or of all steps, came to."""

    counts: dict[int, tuple[int, int]] = field(default_factory=dict)  # step: passed, of
    first: str = ""  # what the first failing check says
    others: int = 0  # how many more fail
    error: str = ""  # why nothing could be checked
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.error and bool(self.counts) and all(p == n for p, n in self.counts.values())

    def first_open(self, chapter: list[steps.Step]) -> int:
        """The first step that does not pass; the last one if all do."""
        for step in chapter:
            passed, total = self.counts.get(step.number, (0, 1))
            if passed < total:
                return step.number
        return chapter[-1].number


def preload(project: str) -> None:
    """Import what every check of the project needs, so that a forked child has it already."""
    import pytest  # noqa: F401

    with contextlib.suppress(Exception):  # a reader may be typing into build.py itself
        importlib.import_module(f"{project}.break_it")
    if project != "p03_bpe":
        import torch  # noqa: F401


def check(project: str, file: str, step: int | None) -> Result:
    """Run the checks of a step, or of all, on a file."""
    import pytest

    from p01_autograd.lab.checker import CHECKER, step_of

    result = Result()

    class Collect:
        def pytest_collection_finish(self, session):
            session.config.stash[CHECKER].quiet = True

        @pytest.hookimpl(trylast=True)
        def pytest_runtest_logreport(self, report):
            if getattr(report, "failure", None) and report.failure.hung:
                raise pytest.exit.Exception("a loop without end: the first one says it")

        def pytest_sessionfinish(self, session):
            checker = session.config.stash[CHECKER]
            for item in checker.items:
                if item.nodeid not in checker.results:
                    continue
                failure = checker.results[item.nodeid]
                passed, total = result.counts.get(step_of(item), (0, 0))
                result.counts[step_of(item)] = passed + (failure is None), total + 1
                if failure and not result.first:
                    result.first = failure.text
                elif failure:
                    result.others += 1

    arguments = [str(ROOT / project), "--build", file, "-q", "-p", "no:cacheprovider"]
    arguments += ["--limit", str(LIMIT), *(["--step", str(step)] if step else [])]
    errors, start = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        pytest.main(arguments, plugins=[Collect()])
    if not result.counts:
        text = errors.getvalue().strip() or "no check was run"
        text = text.removeprefix("ERROR: ").removeprefix("--build ")
        result.error = text.removeprefix(f"{file} cannot be used: ")
    result.seconds = time.perf_counter() - start
    return result


def child(connection, project: str, folder: str) -> None:
    """The body of a process: wait for one job, do it, send the result."""
    os.chdir(folder)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    preload(project)
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        connection.send(check(*connection.recv()))
    os._exit(0)


class Runner:
    """One check at a time in a fresh process, which is forked or, elsewhere, started ahead."""

    def __init__(self, project: str):
        self.project = project
        self.forks = sys.platform.startswith("linux")
        self.context = multiprocessing.get_context("fork" if self.forks else "spawn")
        self.process = self.connection = None
        self.started = 0.0
        if self.forks:
            preload(project)
        else:
            self.prepare()

    def prepare(self) -> None:
        self.connection, theirs = self.context.Pipe()
        arguments = (theirs, self.project, os.getcwd())
        self.process = self.context.Process(target=child, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def start(self, file: Path, step: int | None) -> None:
        """Begin a check; one that is under way is given up."""
        if self.started or self.process is None:
            self.stop()
            self.prepare()
        with contextlib.suppress(OSError):  # it ended already; `result` says so
            self.connection.send((self.project, str(file), step))
        self.started = time.monotonic()

    @property
    def waited(self) -> float:
        """For how many seconds a check has been under way."""
        return time.monotonic() - self.started if self.started else 0.0

    def result(self) -> Result | None:
        """The result once it is there; an error if the process died or does not answer."""
        if not self.started:
            return None
        found = None
        try:
            if self.connection.poll():
                found = self.connection.recv()
            elif not self.process.is_alive():
                found = Result(error="the check ended without an answer: did the file call exit?")
        except (EOFError, OSError):
            found = Result(error="the check was stopped: a call in the file did not come back")
        if found is None and time.monotonic() - self.started > GIVE_UP:
            found = Result(error=f"a call in the file did not come back within {GIVE_UP} s")
        if found is not None:
            self.stop()
            if not self.forks:
                self.prepare()
        return found

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
        self.process, self.started = None, 0.0


# What the chapter says


def sentence_of(project: str, number: int) -> str:
    """The sentence that the chapter's table has for a step."""
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


def sabotages_of(project: str, number: int) -> list[str]:
    """The sabotages that edit a line of this step."""
    source, found = shipped_text(project), []
    lines = {section.number: [] for section in steps.sections(source)}
    for section in steps.sections(source):
        lines[section.number].append((section.first, section.last))
    try:
        sabotages = importlib.import_module(f"{project}.break_it").SABOTAGES
    except Exception:  # a reader may be typing into build.py itself
        return []
    for sabotage in sabotages:
        if sabotage.module == "build" and source.count(sabotage.old) == 1:
            old = sabotage.old.lstrip("\n")
            line = source[: source.index(old)].count("\n") + 1
            if any(first <= line <= last for first, last in lines.get(number, [])):
                found.append(sabotage.name)
    return found


def book_lines(project: str, step: steps.Step) -> str:
    """The book's functions of a step."""
    source = shipped_text(project)
    texts = [ast.get_source_segment(source, node, padded=True) for _, node in nodes(source, step)]
    return "\n\n".join(textwrap.dedent(text) for text in texts)


def nodes(source: str, step: steps.Step) -> list:
    return [(name, n) for name, n in steps.definitions(ast.parse(source)) if name in step.names]


def difference(project: str, step: steps.Step, file: Path) -> list[str]:
    """The step's functions in the book and in the file, as a unified diff."""
    mine = file.read_text(encoding="utf-8")
    texts = []
    for source in (shipped_text(project), mine):
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
    """Single keys from a terminal, without waiting; the terminal is as before afterwards."""

    def __enter__(self):
        try:
            import termios
            import tty

            self.restore = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        except ImportError:  # Windows
            self.restore = None
        return self

    def __exit__(self, *error):
        if self.restore is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self.restore)

    def get(self, seconds: float) -> str:
        """A key that was pressed within so many seconds, or ""."""
        if self.restore is not None:
            import select

            ready, _, _ = select.select([sys.stdin], [], [], seconds)
            return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if ready else ""
        import msvcrt

        end = time.monotonic() + seconds
        while not msvcrt.kbhit():
            if time.monotonic() > end:
                return ""
            time.sleep(0.02)
        return msvcrt.getwch()


class Screen:
    """Text as wide as the terminal, in colour where it has any."""

    def __init__(self):
        self.tty = sys.stdout.isatty()
        self.colours = self.tty and not os.environ.get("NO_COLOR")
        encoding = (sys.stdout.encoding or "").lower().replace("-", "")
        self.blocks = "█▌·" if encoding == "utf8" else "#=."

    @property
    def width(self) -> int:
        return max(40, min(shutil.get_terminal_size().columns, 100)) - 1

    def clear(self) -> None:
        if self.tty:
            print("\x1b[2J\x1b[H", end="")

    def write(self, text: str = "", colour: str = "", indent: str = "") -> None:
        """Print a text, each of its lines wrapped at the width of the terminal."""
        code = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "faint": 2}.get(colour)
        for line in text.split("\n"):
            start = indent + line[: len(line) - len(line.lstrip())]
            parts = textwrap.wrap(
                line.strip(), self.width, initial_indent=start, subsequent_indent=start
            )
            for part in parts or [""]:
                coloured = f"\x1b[{code}m{part}\x1b[0m" if self.colours and code else part
                print(coloured, flush=True)

    def bar(self, share: float, width: int = 6) -> str:
        full, half, empty = self.blocks
        halves = int(2 * width * share)
        return full * (halves // 2) + half * (halves % 2) + empty * (width - (halves + 1) // 2)


# The loop


@dataclass
class Watched:
    """One look at a file: equal as long as nobody saved it."""

    stamp: tuple

    @classmethod
    def look(cls, file: Path) -> Watched | None:
        try:
            status = file.stat()
        except OSError:  # an editor that renames: there is no file for a moment
            return None
        return cls((status.st_mtime_ns, status.st_size, status.st_ino))


class Study:
    """The loop over the steps of one project."""

    def __init__(self, project: str, screen: Screen):
        self.project, self.screen = project, screen
        self.file = Path("my") / f"{project}.py"
        self.source = shipped_text(project)
        self.chapter = steps.steps(self.source)
        self.blank = blank.blank(self.source, project, blank.optional(project, self.source))
        self.begun = {p: Path("my") / f"{p}.py" for p in PROJECTS}
        self.begun = {p: file for p, file in self.begun.items() if file.is_file()}
        self.progress: dict[str, Result] = {}
        self.number = 0  # not known yet
        self.notice: list[tuple[str, str]] = []  # what happened since the last save
        self.hints_shown = 0
        self.visiting = False  # a step that n or p went to, until the next save
        self.seen: Watched | None = None  # the save that was noticed last
        if not self.file.exists():
            blank.write(self.file, steps.only(self.blank, self.chapter[0].number))
            self.begun[project] = self.file

    @property
    def step(self) -> steps.Step:
        return next(step for step in self.chapter if step.number == self.number)

    def progress_line(self) -> str:
        """One part for each project; what is being worked out is left open."""
        parts = []
        for project in PROJECTS:
            result, total = self.progress.get(project), None
            name = project[:3]
            if project not in self.begun:
                parts.append(f"{name} {self.screen.bar(0)}")
            elif result is None:
                parts.append(f"{name} ...")
            else:
                chapter = steps.steps(shipped_text(project))
                passed = sum(p for p, _ in result.counts.values())
                total = sum(n for _, n in result.counts.values())
                bar = self.screen.bar(passed / total if total else 0)
                if result.passed:
                    parts.append(f"{name} {bar} {passed}/{total}")
                else:
                    at = result.first_open(chapter)
                    parts.append(f"{name} {bar} step {at} of {len(chapter)}")
        return "  ".join(parts)

    def head(self) -> None:
        """Which project, file and step, and what the chapter says of it."""
        self.screen.clear()
        self.screen.write(self.progress_line(), "faint")
        self.screen.write()
        step = self.step
        self.screen.write(f"{self.file.as_posix()}, step {step.number}. {step.title}", "bold")
        sentence = sentence_of(self.project, step.number).removeprefix(step.title)
        sentence = sentence.removeprefix(":").strip()
        if sentence:
            self.screen.write(sentence)
        self.screen.write()
        for text, colour in self.notice:
            self.screen.write(text, colour)
        if self.notice:
            self.screen.write()

    def tell(self, result: Result) -> None:
        """The verdict on the step: what fails first, or what can be broken now."""
        if result.error:
            self.screen.write(result.error, "red")
        elif not result.passed:
            missing = result.first.startswith("not written yet")
            self.screen.write(result.first, "yellow" if missing else "red")
            if result.others:
                more = "check" if result.others == 1 else "checks"
                self.screen.write(f"\n{result.others} more {more} of this step behind it", "faint")
        else:
            passed = sum(p for p, _ in result.counts.values())
            word = "check passes" if passed == 1 else "checks pass"
            self.screen.write(f"{passed} {word}", "green")
        self.screen.write()

    def foot(self) -> None:
        keys = "h hint  s the book's lines  b break it  d difference  n p step  a all checks  q end"
        self.screen.write(keys, "faint")

    # Without a terminal

    def once(self) -> int:
        """Check the first open step and end with the status of the check."""
        everything = check(self.project, str(self.file), None)
        self.progress[self.project] = everything
        if everything.error:
            print(f"{self.file.as_posix()}: {everything.error}")
            return 1
        self.number = everything.first_open(self.chapter)
        step = self.step
        print(f"{self.file.as_posix()}, step {step.number}. {step.title}")
        if everything.passed:
            print(f"all {sum(n for _, n in everything.counts.values())} checks pass")
            return 0
        print(everything.first)
        return 1

    # With a terminal

    def run(self) -> int:
        """Watch the file until q."""
        self.screen.write(f"checking {self.file.as_posix()} ...")
        runner = Runner(self.project)
        others = [project for project in self.begun if project != self.project]
        job, queue, background = None, [None], None
        self.seen, told = Watched.look(self.file), True
        try:
            with Keys() as keys:
                while True:
                    now = Watched.look(self.file)
                    if now is not None and now != self.seen:
                        self.seen, queue, self.notice = now, [self.number or None], []
                        self.visiting = False
                        runner.stop()
                        job = None
                        if not runner.forks:
                            runner.prepare()
                    if job is None and queue:
                        job = (queue.pop(0),)
                        runner.start(self.file, job[0])
                        told = False
                    if job is not None and not told and runner.waited > WAIT:
                        told = True
                        self.screen.write("checking ...", "faint")
                    if job is not None and (result := runner.result()) is not None:
                        number, job = job[0], None
                        queue += self.after(number, result)
                    if job is None and not queue and background is None and others:
                        project = others.pop(0)
                        background = project, Runner(project)
                        background[1].start(self.begun[project], None)
                    if background and (result := background[1].result()) is not None:
                        self.progress[background[0]] = result
                        background[1].stop()
                        background = None
                    key = keys.get(POLL)
                    if key in ("q", "\x04"):
                        return 0
                    if key:
                        queue += self.pressed(key, keys)
        except KeyboardInterrupt:
            return 130
        finally:
            runner.stop()
            if background:
                background[1].stop()
            print()

    def after(self, number: int | None, result: Result) -> list:
        """Show a result and go on to where it leads; returns the checks to run next."""
        if number is not None:
            if result.passed and number == self.number and not self.visiting:
                return [None]  # all of them, to see where to go on
            self.head()
            self.tell(result)
            self.foot()
            return []
        self.progress[self.project] = result
        if result.error:
            self.number = self.number or self.chapter[0].number
            self.head()
            self.tell(result)
            self.foot()
            return []
        before, self.number = self.number, result.first_open(self.chapter)
        if before and before < self.number:
            self.notice.append((f"step {before} passes", "green"))
            names = sabotages_of(self.project, before)
            if names:
                self.notice.append((f"it can be broken now: {', '.join(names)} (p, then b)", ""))
        elif before > self.number:
            self.notice.append((f"step {self.number} no longer passes", "red"))
        self.hints_shown = 0
        if self.add_stubs():
            self.notice.append((f"the stubs of step {self.number} are in the file now", ""))
        if result.passed:
            self.head()
            self.finished()
            return []
        return [self.number]

    def finished(self) -> None:
        """All checks pass: what to do with it."""
        total = sum(n for _, n in self.progress[self.project].counts.values())
        self.screen.write(f"all {total} checks of {self.project} pass", "green")
        names = [name for step in self.chapter for name in sabotages_of(self.project, step.number)]
        self.screen.write()
        if names:
            self.screen.write(f"break it:    python -m {self.project}.break_it {names[0]}")
        self.screen.write(f"measure it:  python -m {self.project}.measure")
        later = [project for project in PROJECTS if project > self.project]
        if later:
            self.screen.write(f"go on:       python scripts/study.py {later[0]}")
        self.screen.write()
        self.foot()

    def add_stubs(self) -> bool:
        """Add what the file lacks of the steps up to this one; whether there was anything."""
        before = Watched.look(self.file)
        try:
            mine = more = self.file.read_text(encoding="utf-8")
            for step in self.chapter:
                if step.number <= self.number:
                    more = steps.with_step(more, self.blank, step.number)
        except (SyntaxError, OSError, UnicodeDecodeError):
            return False
        if more == mine or Watched.look(self.file) != before:  # saved meanwhile: that comes first
            return False
        blank.write(self.file, more, "w")
        self.seen = Watched.look(self.file)
        return True

    def pressed(self, key: str, keys: Keys) -> list:
        """Do what a key asks for; returns the checks to run next."""
        if not self.number:
            return []
        if key == "h":
            self.show_hint()
        elif key == "s":
            self.screen.write("the book's lines of this step: y shows them", "yellow")
            if keys.get(30) == "y":
                self.screen.write()
                print(book_lines(self.project, self.step), flush=True)
        elif key == "d":
            print("\n".join(difference(self.project, self.step, self.file)), flush=True)
        elif key == "b":
            self.break_something(keys)
        elif key in "np":
            numbers = [step.number for step in self.chapter]
            at = numbers.index(self.number) + (1 if key == "n" else -1)
            self.number, self.hints_shown = numbers[max(0, min(at, len(numbers) - 1))], 0
            self.notice, self.visiting = [], True
            self.add_stubs()
            return [self.number]
        elif key == "a":
            return [None]
        return []

    def show_hint(self) -> None:
        hints = hints_of(self.project, self.number)
        if not hints:
            self.screen.write("there is no hint for this step")
            return
        at = min(self.hints_shown, len(hints) - 1)
        self.screen.write(f"hint {at + 1} of {len(hints)}: {hints[at]}", "yellow")
        self.hints_shown += 1

    def break_something(self, keys: Keys) -> None:
        names = sabotages_of(self.project, self.number)
        if not names:
            self.screen.write("no sabotage edits a line of this step")
            return
        for number, name in enumerate(names, 1):
            self.screen.write(f"{number} {name}")
        self.screen.write("which one? any other key: none", "yellow")
        key = keys.get(60)
        if not key.isdigit() or not 1 <= int(key) <= len(names):
            return
        command = [sys.executable, "-m", f"{self.project}.break_it", names[int(key) - 1]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends the sabotage, not the loop
            subprocess.run(command, env=environment)
        self.foot()


def where_was_i() -> str:
    """The first project that was begun and does not pass; the next one if all of them do."""
    begun = [project for project in PROJECTS if Path("my", f"{project}.py").is_file()]
    for project in begun:
        runner = Runner(project)
        runner.start(Path("my", f"{project}.py"), None)
        while (result := runner.result()) is None:
            time.sleep(POLL)
        runner.stop()
        if not result.passed:
            return project
    later = [project for project in PROJECTS if not begun or project > begun[-1]]
    return later[0] if later else begun[-1]


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python scripts/study.py",
        description="Check my/PROJECT.py at every save, step by step.",
    )
    parser.add_argument("project", nargs="?", metavar="PROJECT", help=", ".join(PROJECTS))
    flags = parser.parse_args(argv)
    screen = Screen()
    try:
        project = blank.whole_name(flags.project) if flags.project else where_was_i()
        study = Study(project, screen)
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return study.once()
        return study.run()
    except UsageError as error:
        parser.error(str(error))
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
