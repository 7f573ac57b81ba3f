"""The checker: is what I typed right?

    pytest p04_attention                                  checks p04_attention/build.py
    pytest p04_attention --build my/p04_attention.py      checks your own file instead
    pytest p04_attention --step 3                         only the checks of the chapter's step 3
    pytest p04_attention --build FILE --homework 2        the second homework, if the file has it

The tests in a project's test_build.py take the module under test as `build`. The mark `step(3)`
says to which step of the chapter one belongs, and `checks("softmax")` which public name it is
about. What they find is told in their own words, without the test runner's, and summed up by step.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import importlib
import linecache
import re
import shlex
import sys
import textwrap
import threading
import types
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import pytest

from p01_autograd.lab import hint, steps
from p01_autograd.lab.limits import MemoryIsFull, TimeIsUp, at_most
from p01_autograd.lab.loading import CannotLoad, load, reason, shown, traceback_frames
from p01_autograd.lab.sabotage import Sabotage, sabotaged
from p01_autograd.lab.steps import PROJECTS, ROOT, sabotages_find_their_text, shipped_text

LINES_PER_FAILURE = 18
SECONDS_OF_A_SLOW_CHECK = 0.1


@dataclass
class Failure:
    """What a failed check says to the learner."""

    text: str
    missing: str = ""  # the name that is not written yet
    hung: bool = False


@dataclass
class Checker:
    """The state of one run of pytest, kept in config.stash."""

    projects: list[str]  # selected
    given: str | None = None  # --build as it was typed
    module: types.ModuleType | None = None  # what the fixture gives instead of the project's own
    retyped: list[str] = field(default_factory=list)  # projects that no longer hold our text
    items: list[pytest.Function] = field(default_factory=list)  # from test_build.py
    nothing: bool = False  # -k, or what was given, selects no test at all
    results: dict[str, Failure | None] = field(default_factory=dict)  # by node id; None: passed
    slow: set[str] = field(default_factory=set)  # node ids that the hint does not run again
    told: bool = False
    quiet: bool = False  # another program reports the results
    no_limit: threading.Event | None = None  # set, it lifts the limit of the running check
    hung: dict[str, int] = field(default_factory=dict)  # public name -> how many checks
    homework: bool = False
    skipped: list[str] = field(default_factory=list)  # what the file does not have yet

    def file(self, project: str) -> str:
        return self.given or f"{project}/build.py"


CHECKER = pytest.StashKey[Checker]()


# What is checked


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("build it")
    group.addoption("--build", metavar="FILE", help="check this file, or dotted module, instead")
    group.addoption(
        "--limit",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long one check of test_build.py may take; default: %(default)s",
    )
    group.addoption(
        "--step", type=int, metavar="N", help="only the checks of this step of the chapter"
    )
    group.addoption(
        "--homework", type=int, metavar="N", help="only the check of this homework of the chapter"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "checks(name, ...): the public names that a test is about")
    config.addinivalue_line("markers", "step(number): the step of the chapter that it belongs to")
    config.addinivalue_line("markers", "homework(number): the homework that it checks")
    checker = config.stash[CHECKER] = Checker(selected_projects(config), config.option.build)
    checker.homework = config.option.homework is not None
    if checker.given is None:
        for project in checker.projects:
            import_in_place(project, checker, config.option.limit)
        return
    if len(checker.projects) != 1:
        raise pytest.UsageError(
            f"--build needs one project, {len(checker.projects) or 'none'} selected; say which: "
            f"pytest p04_attention --build {shlex.quote(checker.given)}"
        )
    project = checker.projects[0]
    config.option.disable_warnings = True  # of libraries, in the words of libraries
    stand_in_package(project)
    try:
        folder = config.invocation_params.dir
        checker.module = load(checker.given, project, folder, config.option.limit)
    except CannotLoad as error:
        raise pytest.UsageError(f"--build {error}") from None
    names = public_names(project)
    own = checker.homework or any(hasattr(checker.module, name) for name in names)
    if names and not own:
        raise pytest.UsageError(
            f"--build {checker.given} has none of the names of {project}: {', '.join(names[:8])}"
            + (", ..." if len(names) > 8 else "")
        )


def selected_projects(config: pytest.Config) -> list[str]:
    found = set()
    for argument in config.args:
        path = Path(config.invocation_params.dir, argument.split("::")[0]).resolve()
        for project in PROJECTS:
            folder = ROOT / project
            if path == folder or folder in path.parents or path in folder.parents:
                found.add(project)
    return sorted(found)


def import_in_place(project: str, checker: Checker, limit: float) -> None:
    """Import the project; what a reader typed into its build.py may be unfinished."""
    path = ROOT / project / "build.py"
    if not path.is_file():
        return
    complete = stand_in_package(project)
    try:
        with at_most(limit):
            importlib.import_module(f"{project}.build")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise pytest.UsageError(f"{project}/build.py cannot be used: {reason(error)}") from None
    stubs = "raise NotImplementedError" in path.read_text(encoding="utf-8")
    if not complete or stubs or not sabotages_find_their_text(project):
        checker.retyped.append(project)


def stand_in_package(project: str) -> bool:
    """True if the package imports; if not, stand an empty one in, so that its modules can."""
    try:
        importlib.import_module(project)
        return True
    except Exception:
        package = types.ModuleType(project)
        package.__path__ = [str(ROOT / project)]
        package.__file__ = str(ROOT / project / "__init__.py")
        sys.modules[project] = package
        return False


def public_names(project: str) -> list[str]:
    """The functions and classes of the listing."""
    return [
        node.name
        for node in ast.parse(shipped_text(project)).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]


def pytest_report_header(config: pytest.Config) -> list[str]:
    checker = config.stash[CHECKER]
    lines = []
    if checker.given:
        lines.append(f"checking {checker.given} ({checker.projects[0]})")
    elif checker.projects:
        lines.append("checking " + ", ".join(f"{name}/build.py" for name in checker.projects))
    for project in checker.retyped:
        lines.append(
            f"{project}: only test_build.py is run, since break_it and the other tests need the "
            f"shipped build.py (git checkout {project}/build.py)"
        )
    return lines


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The other tests of a project are about our build.py, not about the reader's."""
    checker = config.stash[CHECKER]
    if collection_path.is_dir():
        return None
    if checker.homework or collection_path.name == "test_homework.py":
        return True if (collection_path.name == "test_homework.py") != checker.homework else None
    for project in checker.projects if checker.given else checker.retyped:
        if ROOT / project in collection_path.parents and collection_path.name != "test_build.py":
            return True
    return None


@pytest.fixture
def build(request: pytest.FixtureRequest) -> types.ModuleType:
    """The module under test: of test_build.py the project's build.py, or what --build names."""
    module = request.config.stash[CHECKER].module
    if module is not None:
        return module
    project, name = request.path.parent, request.path.stem.removeprefix("test_")
    name = name if (project / f"{name}.py").is_file() else "build"
    return importlib.import_module(f"{project.name}.{name}")


# Running


def is_check(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Whether this is a test of the module under test."""
    return (
        isinstance(item, pytest.Function)
        and item.path.name in ("test_build.py", "test_homework.py")
        and item.path.parent.parent == ROOT
    )


def checked_names(item: pytest.Item) -> tuple[str, ...]:
    mark = item.get_closest_marker("checks")
    return mark.args if mark and mark.args else ("the rest",)


def step_of(item: pytest.Item) -> int:
    """The chapter's step that a check belongs to; 0 for none."""
    mark = item.get_closest_marker("step")
    return mark.args[0] if mark else 0


def homework_of(item: pytest.Item) -> int:
    """The homework that a check belongs to; 0 for none."""
    mark = item.get_closest_marker("homework")
    return mark.args[0] if mark else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The checks in the order of the chapter's steps; with --step, those of one step alone."""
    checks = [item for item in items if is_check(item)]
    ordered = iter(sorted(checks, key=lambda item: (item.path, step_of(item))))
    items[:] = [next(ordered) if is_check(item) else item for item in items]
    number = homework_of if config.option.homework is not None else step_of
    wanted = config.option.step if number is step_of else config.option.homework
    if wanted is None:
        return
    there = sorted({number(item) for item in checks})
    if wanted not in there:
        known = ", ".join(map(str, there)) or "none"
        if number is homework_of:
            raise pytest.UsageError(
                f"homework {wanted} has no check, NOTES.md may have its answer; checks: {known}"
            )
        raise pytest.UsageError(f"there is no step {wanted}; there are {known}")
    kept = [item for item in checks if number(item) == wanted]
    kept.sort(key=items.index)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # what has been imported stays: not to be searched for garbage again and again
    checker = session.config.stash[CHECKER]
    checker.items = [item for item in session.items if is_check(item)]
    checker.nothing = not session.items


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if not is_check(item) or item.config.option.usepdb:
        return (yield)
    limit, name = item.config.option.limit, checked_names(item)[0]
    hung = item.config.stash[CHECKER].hung.get(name, 0)
    if hung >= 3:
        pytest.fail(f"not run: {hung} checks of {name} did not finish", pytrace=False)
    seconds = min(limit, 5.0) if hung else limit
    with at_most(seconds, lambda message: give_up(item, message)) as no_limit:
        item.config.stash[CHECKER].no_limit = no_limit
        return (yield)


def pytest_enter_pdb(config: pytest.Config) -> None:
    """No limit while somebody is in the debugger: `breakpoint()` in the reader's file."""
    no_limit = config.stash[CHECKER].no_limit
    if no_limit is not None:
        no_limit.set()


def give_up(item: pytest.Item, message: str) -> None:
    """Say why the whole run ends: a call that no exception can stop."""
    item.config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
    print(message, flush=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    if not is_check(item):
        return (yield)
    if item.config.option.tbstyle == "auto":
        its: Any = item
        its.repr_failure = lambda error: ""  # pytest's traceback is slow to make and not shown
    report = yield
    checker = item.config.stash[CHECKER]
    if call.when == "call" and call.duration > SECONDS_OF_A_SLOW_CHECK:
        checker.slow.add(item.nodeid)
    if report.failed:
        report.failure = explain(call.excinfo.value, item, report)
        if report.failure.hung:
            name = checked_names(item)[0]
            checker.hung[name] = checker.hung.get(name, 0) + 1
        checker.results[item.nodeid] = report.failure
        if item.config.option.tbstyle == "auto":
            report.longrepr = report.failure.text
    elif report.when == "call" and report.passed:
        checker.results[item.nodeid] = None
    elif report.skipped and checker.homework:
        checker.skipped.append(f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}")
    return report


def explain(error: BaseException, item: pytest.Function, report: Any) -> Failure:
    """A failed check in the learner's terms: the law, then what came, or where their code broke."""
    checker, project = item.config.stash[CHECKER], item.path.parent.name
    module = checker.module or sys.modules[f"{project}.build"]
    name = not_written(error, module, project)
    if name:
        return Failure(f"not written yet: {name}", missing=name)
    frames = traceback_frames(error)
    theirs = [frame for frame in frames if frame[2].f_globals is vars(module)]
    function = readable(theirs[-1][2].f_code) if theirs else checked_names(item)[0]
    hung = isinstance(error, TimeIsUp)
    if hung:
        lines = [
            f"{function} did not finish within {item.config.option.limit:g} s: "
            "is there a loop that never ends?"
        ]
    elif isinstance(error, MemoryIsFull | MemoryError):
        lines = [f"{function} keeps asking for more memory: is there a loop that never ends?"]
    elif isinstance(error, RecursionError):
        lines = [
            f"{function} calls itself too deeply (RecursionError): does it ever stop?",
            "If it does, the graph is too deep for recursion: keep a list of nodes to visit.",
        ]
    elif isinstance(error, AssertionError | pytest.fail.Exception) and not theirs:
        lines = plain_message(error)
    elif isinstance(error, AssertionError) and not str(error):
        lines = ["your own assert failed:"]
    else:
        lines = f"{type(error).__name__}: {error}".rstrip(": ").split("\n")
    if theirs:
        one = hung or isinstance(error, RecursionError)
        lines += source_lines(theirs[-1:] if one else theirs[-2:])
    elif not isinstance(error, AssertionError | pytest.fail.Exception):
        ours = [frame for frame in frames if frame[0] == str(item.path)]
        lines += ["while the check did this:", *source_lines(ours[-1:], where=False)]
    printed = [line for line in report.capstdout.splitlines() if line.strip()]
    room = LINES_PER_FAILURE - min(len(printed), 5)
    lines = [line[:400] for line in lines]
    if len(lines) > room:
        lines = [*lines[: room - 4], "...", *lines[-3:]]
    if printed:
        lines += ["your code printed:", *(f"    {line[:200]}" for line in printed[-4:])]
    return Failure("\n".join([sentence(item), *(f"    {line}" for line in lines)]), hung=hung)


def not_written(error: BaseException | None, module: types.ModuleType, project: str) -> str:
    """The name that an exception, or one that it came from, says is not there yet."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, NotImplementedError):
            codes = [
                frame.f_code
                for _, _, frame in traceback_frames(error)
                if frame.f_globals is vars(module)
            ]
            return readable(codes[-1]) if codes else ""
        if isinstance(error, AttributeError):
            if error.obj is module:
                return error.name or ""
            kind = error.obj if isinstance(error.obj, type) else type(error.obj)
            if kind.__module__ == module.__name__ and error.name in methods(project, kind.__name__):
                return f"{kind.__name__}.{error.name}"
        if isinstance(error, TypeError):
            name = missing_operator(str(error), module)
            if name:
                return name
        error = error.__cause__ or error.__context__
    return ""


OPERATORS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "truediv",
    "** or pow()": "pow",
    "@": "matmul",
}


def missing_operator(message: str, module: types.ModuleType) -> str:
    """The method behind Python's "unsupported operand", if a class of the module lacks it."""
    unary = re.match(r"bad operand type for unary -: '(\w+)'", message)
    binary = re.match(r"unsupported operand type\(s\) for (.+?)=?: '(\w+)' and '(\w+)'", message)
    tried = []
    if unary:
        tried = [(unary[1], "__neg__")]
    elif binary and binary[1] in OPERATORS:
        operator = OPERATORS[binary[1]]
        tried = [(binary[2], f"__{operator}__"), (binary[3], f"__r{operator}__")]
    for name, method in tried:
        kind = getattr(module, name, None)
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            return "" if hasattr(kind, method) else f"{name}.{method}"
    return ""


def readable(code: types.CodeType) -> str:
    return code.co_qualname.split(".<locals>")[0].removesuffix(".__init__")


@functools.cache
def methods(project: str, cls: str) -> set[str]:
    """The methods of our class of that name, inherited ones included."""
    found = set()
    for node in ast.walk(ast.parse(shipped_text(project))):
        if isinstance(node, ast.ClassDef) and node.name == cls:
            found |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            for base in node.bases:
                found |= methods(project, getattr(base, "id", ""))
    return found


def plain_message(error: BaseException) -> list[str]:
    """The message of an assertion, without what pytest adds to it."""
    lines = str(error.msg if isinstance(error, pytest.fail.Exception) else error).split("\n")
    added = next((i for i, line in enumerate(lines) if line.startswith("assert ")), len(lines))
    if added == 0:
        return lines
    first, *rest = lines[:added]
    if added < len(lines):  # pytest indents every line of the message but the first
        rest = [line.removeprefix("  ") for line in rest]
    return [first, *rest]


def source_lines(frames: list[tuple[str, int, types.FrameType]], where: bool = True) -> list[str]:
    lines = []
    for filename, number, frame in frames:
        number = number or frame.f_code.co_firstlineno  # some instructions belong to no line
        told = [f"{shown(filename)}:{number}, in {readable(frame.f_code)}"] if where else []
        told.append("    " + linecache.getline(filename, number, frame.f_globals).strip())
        if lines[-len(told) :] != told:  # a comprehension is a frame of its own
            lines += told
    return lines


def sentence(item: pytest.Item) -> str:
    """test_softmax_sums_to_one[dim=0] as words: softmax sums to one [dim=0]."""
    words, _, case = item.name.removeprefix("test_").partition("[")
    for name in checked_names(item):
        words = words.replace(name.lower(), name.replace("_", "\0"))
    words = words.replace("_", " ").replace("\0", "_")
    return f"{words} [{case}" if case else words


# Reporting


def pytest_report_teststatus(report: Any) -> tuple[str, str, Any] | None:
    failure = getattr(report, "failure", None)
    if failure is not None and failure.missing:
        return "failed", "-", ("NOT WRITTEN YET", {"yellow": True})
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, Any, Any]:
    """Tell what was found as soon as it is known; then look for the sabotage it resembles."""
    try:
        return (yield)
    finally:  # also after -x and Ctrl-C
        tell(session.config)


def tell(config: pytest.Config) -> None:
    """The findings, the summary, and last the hint, which takes a moment."""
    checker, terminal = config.stash[CHECKER], config.pluginmanager.getplugin("terminalreporter")
    silent = checker.quiet or config.option.tbstyle != "auto" or config.option.collectonly
    if terminal is None or silent:
        return
    terminal.ensure_newline()
    something = checker.given or checker.nothing or any(checker.results.values())
    if something and terminal._tw.width_of_current_line:  # the dots of -q
        terminal.line("")
    tell_failures(terminal, checker)
    tell_summary(terminal, checker)
    checker.told = True
    own = len(checker.projects) == 1 and not checker.homework
    if own and any(checker.results.values()):
        # A hint is a courtesy: nothing that goes wrong with it may spoil the findings above it.
        with contextlib.suppress(Exception):
            name = hint.known_sabotage(checker, checker.projects[0], variant)
            if name:
                command = f"python -m {checker.projects[0]}.break_it {name}"
                terminal.write_line(f"this is what {name} looks like: {command}")


def variant(project: str, sabotage: Sabotage) -> types.ModuleType:
    """Our build.py with the sabotage in it, also where the reader has typed over the file."""
    return sabotaged(project, sabotage, shipped_text(project))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: Any, config: pytest.Config
) -> Generator[None, Any, Any]:
    """pytest's own summary, without the failures that have been told already."""
    stats = terminalreporter.stats
    if not config.stash[CHECKER].told:
        return (yield)
    reports = [
        (key, report)
        for key in ("failed", "error")
        for report in stats.get(key, [])
        if getattr(report, "failure", None)
    ]
    for key, report in reports:
        stats[key].remove(report)
    outcome = yield
    for key, report in reports:
        stats[key].append(report)
    return outcome


def tell_failures(terminal: Any, checker: Checker) -> None:
    """By function: a few in full, what says the same or comes after them in a line a test."""
    groups, told = {}, set()
    for item in checker.items:
        failure = checker.results.get(item.nodeid)
        if failure and not failure.missing:
            key = item.path.parent.name, checked_names(item)[0]
            groups.setdefault(key, []).append((item, failure))
    for (project, name), found in groups.items():
        terminal.write_sep("-", f"{name} ({checker.file(project)})")
        room, others = 5 if len(found) <= 5 else 3, {}
        for item, failure in found:
            finding = hint.words(failure.text.partition("\n")[2])
            if room and finding not in told:
                told.add(finding)
                room -= 1
                terminal.write_line(failure.text)
                terminal.write_line("")
            else:
                others.setdefault(item.originalname, []).append(item)
        for items in others.values():
            cases = f" ({len(items)} cases)" if len(items) > 1 else ""
            what = sentence(items[0]).partition(" [")[0] if cases else sentence(items[0])
            terminal.write_line(f"also wrong: {what}{cases}")
        if others:
            terminal.write_line("")
    missing = [failure.missing for failure in checker.results.values() if failure]
    names = ", ".join(dict.fromkeys(filter(None, missing)))
    if names:
        for line in textwrap.wrap(f"not written yet: {names}", 90, subsequent_indent="    "):
            terminal.write_line(line, yellow=True)


def tell_summary(terminal: Any, checker: Checker) -> None:
    """How many checks of each step pass, and what to write or mend next."""
    failing = any(checker.results.values())
    if checker.skipped:
        terminal.write_line("")
    for line in dict.fromkeys(checker.skipped):
        terminal.write_line(line, yellow=True)
    worth_it = failing or checker.given or checker.nothing
    if len(checker.projects) != 1 or not worth_it or checker.homework:
        return
    project = checker.projects[0]
    chapter = steps.steps(shipped_text(project))
    terminal.write_sep("-", checker.file(project))
    if not checker.items:
        known = ", ".join(f"--step {step.number}" for step in chapter)
        terminal.write_line(f"no check was selected; the chapter's steps are {known}")
        return
    titles = {step.number: f"{step.number}. {step.title}" for step in chapter}
    titles[0] = "no step"
    table: dict[int, list] = {}
    for item in checker.items:
        if item.nodeid in checker.results:
            table.setdefault(step_of(item), []).append(item)
    width = min(max((len(titles.get(step, "")) for step in table), default=0), 60)
    for step, items in table.items():
        results = [checker.results[item.nodeid] for item in items]
        line = f"{titles.get(step, ''):{width}}  {results.count(None):3} of {len(results)}"
        if all(failure and failure.missing for failure in results):
            line += "   not written yet"
        elif any(results):
            bad = [name_of(item, checker) for item in items if checker.results[item.nodeid]]
            line += "   " + textwrap.shorten(", ".join(dict.fromkeys(bad)), 50, placeholder=" ...")
        terminal.write_line(line)
    total, passed = len(checker.results), list(checker.results.values()).count(None)
    verdict, following = f"{passed} of {total} pass", what_next(checker)
    terminal.write_line(f"{verdict}; next: {following}" if following else verdict, bold=True)


def name_of(item: pytest.Item, checker: Checker) -> str:
    """The function that a failed check is about, or the one it lacked."""
    failure = checker.results[item.nodeid]
    return (failure and failure.missing) or checked_names(item)[0]


def what_next(checker: Checker) -> str:
    """The first function that is wrong; if none is, the first that is missing."""
    results = [(item, checker.results.get(item.nodeid)) for item in checker.items]
    failed = [item for item, failure in results if failure]
    wrong = [item for item, failure in results if failure and not failure.missing]
    return name_of((wrong or failed)[0], checker) if failed else ""
