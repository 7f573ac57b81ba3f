"""The checker: is what I typed right?

    pytest p04_attention                                  checks p04_attention/build.py
    pytest p04_attention --build my/p04_attention.py      checks your own file instead

The tests in a project's test_build.py take the module under test as `build` and say with the mark
`checks("softmax")` which public name they are about. What they find is told in their own words,
without the test runner's, and summed up per function in the book's order.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import functools
import importlib
import linecache
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = sorted(path.parent.name for path in ROOT.glob("p[0-9][0-9]_*/__init__.py"))
LINES_PER_FAILURE = 18
MEMORY_PER_TEST = 3 * 2**30  # bytes; a loop that appends for ever is stopped before the machine is
SECONDS_FOR_THE_HINT = 20
SECONDS_OF_A_SLOW_CHECK = 0.1


@dataclass
class Failure:
    """What a failed check says to the learner."""

    text: str
    missing: str = ""  # the name that is not written yet
    hung: bool = False


@dataclass
class Checker:
    """What one run of pytest knows; it lives on config.stash."""

    projects: list[str]  # selected
    given: str | None = None  # --build as it was typed
    module: types.ModuleType | None = None  # what the fixture gives instead of the project's own
    retyped: list[str] = field(default_factory=list)  # projects that no longer hold our text
    items: list[pytest.Item] = field(default_factory=list)  # from test_build.py
    results: dict[str, Failure | None] = field(default_factory=dict)  # by node id; None: passed
    slow: set[str] = field(default_factory=set)  # node ids that the hint does not run again
    hint: str = ""
    hung: dict[str, int] = field(default_factory=dict)  # public name -> how many checks

    def file(self, project: str) -> str:
        return self.given or f"{project}/build.py"


CHECKER = pytest.StashKey[Checker]()


# What is checked


def pytest_addoption(parser):
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


def pytest_configure(config):
    config.addinivalue_line("markers", "checks(name, ...): the public names that a test is about")
    config.addinivalue_line("markers", "step(number): the step of the chapter that it belongs to")
    checker = config.stash[CHECKER] = Checker(selected_projects(config), config.option.build)
    if checker.given is None:
        for project in checker.projects:
            import_in_place(project, checker, config.option.limit)
        return
    if len(checker.projects) != 1:
        raise pytest.UsageError(
            f"--build needs one project, {len(checker.projects) or 'none'} selected; say which: "
            f"pytest p04_attention --build {checker.given}"
        )
    project = checker.projects[0]
    config.option.disable_warnings = True  # of libraries, in the words of libraries
    stand_in_package(project)
    checker.module = load(checker.given, project, config)
    names = public_names(project)
    if names and not any(hasattr(checker.module, name) for name in names):
        raise pytest.UsageError(
            f"--build {checker.given} has none of the names of {project}: {', '.join(names[:8])}"
            + (", ..." if len(names) > 8 else "")
        )


def selected_projects(config) -> list[str]:
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


def sabotages_find_their_text(project: str) -> bool:
    """Whether every sabotage's old text is there once; read, not run, so that nothing can fail."""
    path = ROOT / project / "break_it.py"
    if not path.is_file():
        return True
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Sabotage":
            constants = [key for key in call.keywords if isinstance(key.value, ast.Constant)]
            given = {key.arg: key.value.value for key in constants}
            source = ROOT / project / f"{given.get('module', 'build')}.py"
            old = given.get("old")
            if old is not None and source.read_text(encoding="utf-8").count(old) != 1:
                return False
    return True


def load(given: str, project: str, config) -> types.ModuleType:
    """The reader's module; whatever keeps it from loading ends the run with one line."""
    path = Path(config.invocation_params.dir, given)
    try:
        with at_most(config.option.limit):
            if path.is_dir():
                raise pytest.UsageError(f"--build {given} is a folder; give a file in it")
            if path.is_file():
                return run_file(path.resolve(), project)
            if path.suffix == ".py" or path.name != given:
                raise pytest.UsageError(
                    f"--build {given}: there is no such file; "
                    f"python scripts/blank.py {project} writes one to begin with"
                )
            module = importlib.import_module(given)
            if getattr(module, "__path__", None) is not None and module.__file__ is None:
                raise pytest.UsageError(f"--build {given} is a folder; give a module in it")
            return module
    except (pytest.UsageError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and f"{given}.".startswith(f"{error.name}."):
            raise pytest.UsageError(f"--build {given}: there is no such module") from None
        raise pytest.UsageError(f"--build {given} cannot be used: {reason(error)}") from None


def run_file(path: Path, project: str) -> types.ModuleType:
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, or my/p04_attention.py would hide the project of that name
    module = types.ModuleType("build_under_test")
    module.__file__, module.__package__ = str(path), project  # "from ." means the project's
    sys.modules[module.__name__] = module
    linecache.checkcache(str(path))
    # Compiled here: a cached .pyc would hide an edit made within the same second.
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    return module


def reason(error: BaseException) -> str:
    """One line for a file that does not load."""
    if isinstance(error, SyntaxError):
        where = f"{shown(error.filename)}:{error.lineno}"
        return f"{where} does not parse: {error.msg}: {(error.text or '').strip()}"
    frames = [
        f
        for f in traceback_frames(error)
        if f[0] != __file__ and "importlib" not in f[0] and not f[0].startswith("<")
    ]
    where = f"{shown(frames[-1][0])}:{frames[-1][1]}: " if frames else ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{where}it imports {error.name}, which is not installed"
    if isinstance(error, TimeIsUp):
        return f"{where}importing it does not finish"
    return f"{where}{type(error).__name__}: {error}".split("\n")[0]


def traceback_frames(error: BaseException) -> list[tuple[str, int, types.FrameType]]:
    frames, tb = [], error.__traceback__
    while tb is not None:
        frames.append((tb.tb_frame.f_code.co_filename, tb.tb_lineno, tb.tb_frame))
        tb = tb.tb_next
    return frames


def shown(path) -> str:
    with contextlib.suppress(ValueError, TypeError):
        return Path(path).resolve().relative_to(Path.cwd()).as_posix()
    return str(path)


def public_names(project: str) -> list[str]:
    """What the project's __init__.py takes from its build.py."""
    tree = ast.parse((ROOT / project / "__init__.py").read_text(encoding="utf-8"))
    return [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("build", f"{project}.build")
        for alias in node.names
    ]


def pytest_report_header(config):
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


def pytest_ignore_collect(collection_path, config):
    """The other tests of a project are about our build.py, not about the reader's."""
    checker = config.stash[CHECKER]
    if checker.given is None and not checker.retyped:
        return None
    for project in checker.projects if checker.given else checker.retyped:
        if ROOT / project in collection_path.parents and collection_path.name != "test_build.py":
            return True
    return None


@pytest.fixture
def build(request):
    """The module under test: of test_build.py the project's build.py, or what --build names."""
    module = request.config.stash[CHECKER].module
    if module is not None:
        return module
    project, name = request.path.parent, request.path.stem.removeprefix("test_")
    name = name if (project / f"{name}.py").is_file() else "build"
    return importlib.import_module(f"{project.name}.{name}")


# Running


class TimeIsUp(BaseException):
    """Raised inside a check that does not finish."""


class MemoryIsFull(BaseException):
    """Raised inside a check that asks for memory without end."""


def peak_memory() -> int:
    """The most memory this process has held, in bytes; 0 where there is no way to know."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def at_most(seconds: float, config=None):
    """Stop the block when it takes longer, by an exception that is raised inside it."""
    thread, finished = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def watch():
        end, memory, attempts = time.monotonic() + seconds, peak_memory(), 0
        while not finished.wait(0.1):
            full = peak_memory() - memory > MEMORY_PER_TEST
            if full or time.monotonic() > end:
                kind = ctypes.py_object(MemoryIsFull if full else TimeIsUp)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, kind)
                end, memory = time.monotonic() + 1, peak_memory()
                attempts += 1
            if attempts > 15 and config is not None:  # it is not in Python code: nothing helps
                config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
                print(f"\nstopped: a call did not come back within {seconds:g} s", flush=True)
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)


def is_check(item) -> bool:
    """Whether this is a test of the module under test."""
    return (
        isinstance(item, pytest.Function)
        and item.path.name == "test_build.py"
        and item.path.parent.parent == ROOT
    )


def checked_names(item) -> tuple[str, ...]:
    mark = item.get_closest_marker("checks")
    return mark.args if mark and mark.args else ("the rest",)


def step_of(item) -> int | None:
    mark = item.get_closest_marker("step")
    return mark.args[0] if mark else None


def pytest_collection_modifyitems(config, items):
    wanted = config.option.step
    if wanted is None:
        return
    there = sorted({step_of(item) for item in items if is_check(item)} - {None})
    if wanted not in there:
        known = ", ".join(map(str, there))
        raise pytest.UsageError(f"there is no step {wanted}; there are {known or 'none'}")
    config.hook.pytest_deselected(items=[i for i in items if step_of(i) != wanted])
    items[:] = [item for item in items if is_check(item) and step_of(item) == wanted]


def pytest_collection_finish(session):
    session.config.stash[CHECKER].items = [item for item in session.items if is_check(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if not is_check(item) or item.config.option.usepdb:
        return (yield)
    limit, name = item.config.option.limit, checked_names(item)[0]
    hung = item.config.stash[CHECKER].hung.get(name, 0)
    if hung >= 3:
        pytest.fail(f"not run: {hung} checks of {name} did not finish", pytrace=False)
    with at_most(min(limit, 5.0) if hung else limit, item.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    if not is_check(item):
        return (yield)
    if item.config.option.tbstyle == "auto":
        item.repr_failure = lambda error: ""  # pytest's traceback is slow to make and not shown
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
    return report


def explain(error: BaseException, item, report) -> Failure:
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
        lines = [f"{function} asks for ever more memory: is there a loop that never ends?"]
    elif isinstance(error, RecursionError):
        lines = [
            f"{function} calls itself too deeply (RecursionError): does it ever stop?",
            "If it does, what it walks is too deep for that: keep a list of what is left to do.",
        ]
    elif isinstance(error, AssertionError | pytest.fail.Exception) and not theirs:
        lines = plain_message(error)
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


def not_written(error: BaseException | None, module, project: str) -> str:
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
                return error.name
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


def missing_operator(message: str, module) -> str:
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
    """The public methods of our class of that name."""
    return {
        part.name
        for node in ast.walk(ast.parse(shipped_text(project)))
        if isinstance(node, ast.ClassDef) and node.name == cls
        for part in node.body
        if isinstance(part, ast.FunctionDef)
    }


@functools.cache
def shipped_text(project: str) -> str:
    """Our build.py, from the repository's history if the reader has typed over the file."""
    path = ROOT / project / "build.py"
    if sabotages_find_their_text(project):
        return path.read_text(encoding="utf-8")
    command = ["git", "-C", str(ROOT), "show", f"HEAD:{project}/build.py"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=10)
        return done.stdout.decode("utf-8").replace("\r\n", "\n")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""


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


def source_lines(frames, where: bool = True) -> list[str]:
    lines = []
    for filename, number, frame in frames:
        told = [f"{shown(filename)}:{number}, in {readable(frame.f_code)}"] if where else []
        told.append("    " + linecache.getline(filename, number, frame.f_globals).strip())
        if lines[-len(told) :] != told:  # a comprehension is a frame of its own
            lines += told
    return lines


def sentence(item) -> str:
    """test_softmax_sums_to_one[dim=0] as words: softmax sums to one [dim=0]."""
    words, _, case = item.name.removeprefix("test_").partition("[")
    for name in checked_names(item):
        words = words.replace(name.lower(), name.replace("_", "\0"))
    words = words.replace("_", " ").replace("\0", "_")
    return f"{words} [{case}" if case else words


# The hint


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session):
    outcome = yield
    checker = session.config.stash[CHECKER]
    if len(checker.projects) == 1 and not session.config.option.collectonly:
        # A hint is a courtesy: if it cannot be had, the findings above it must still be shown.
        with contextlib.suppress(Exception):
            checker.hint = known_sabotage(checker, checker.projects[0])
    return outcome


def known_sabotage(checker: Checker, project: str) -> str:
    """The name of the sabotage that fails the very checks that the reader's code fails, or ""."""
    done = {
        item: checker.results[item.nodeid]
        for item in checker.items
        if item.nodeid in checker.results
    }
    done = {item: found for item, found in done.items() if not (found and found.missing)}
    failed = {item: found.text for item, found in done.items() if found}
    if not failed or any(found and found.hung for found in done.values()):
        return ""
    quick = {item: found for item, found in done.items() if item.nodeid not in checker.slow}
    if any(quick.values()):
        done = quick
        failed = {item: found.text for item, found in done.items() if found}
    functions = {item.function.__name__ for item in failed}
    sabotages = importlib.import_module(f"{project}.break_it").SABOTAGES
    best, best_score = "", 0.5
    deadline = time.monotonic() + SECONDS_FOR_THE_HINT
    kept = checker.module, checker.results
    for sabotage in sabotages:
        if sabotage.module != "build" or sabotage.caught_by not in functions:
            continue
        try:
            checker.module = variant(project, sabotage)
            theirs = rerun(checker, failed, done, deadline)
        finally:
            checker.module, checker.results = kept
        if theirs is None:
            continue
        same = [
            (words(theirs[item]) == words(text), theirs[item] == text)
            for item, text in failed.items()
        ]
        score = sum(a + 0.01 * b for a, b in same) / len(same)
        if score >= best_score:
            best, best_score = sabotage.name, score + 1e-9
    return best


def rerun(checker, failed, done, deadline) -> dict | None:
    """Try the same checks on checker.module: the messages, if the same ones fail, else None."""
    checker.results, texts = {}, {}
    items = [*failed, *(item for item in done if item not in failed)]
    for item, following in zip(items, [*items[1:], None], strict=True):
        if time.monotonic() > deadline:
            return None
        runtestprotocol(item, log=False, nextitem=following)
        found = checker.results.get(item.nodeid)
        if (found is not None) != (item in failed):
            item.session._setupstate.teardown_exact(None)
            return None
        if found:
            texts[item] = found.text
    return texts


def words(text: str) -> str:
    """A message without its numbers and places, which differ between two ways to write a line."""
    lines = [line for line in text.split("\n") if not re.search(r"\.py:\d+, in ", line)]
    return re.sub(r"-?\d[\d.e+-]*", "#", " ".join(" ".join(lines).split()))


def variant(project: str, sabotage) -> types.ModuleType:
    """Our build.py with the sabotage in it."""
    source = shipped_text(project)
    if source.count(sabotage.old) != 1:
        raise LookupError(sabotage.name)
    module = types.ModuleType(f"{project}.build")
    module.__file__, module.__package__ = f"<{project} with {sabotage.name}>", project
    module.__dict__["__builtins__"] = __builtins__
    edited = source.replace(sabotage.old, sabotage.new)
    exec(compile(edited, module.__file__, "exec"), vars(module))
    return module


# Telling


def pytest_report_teststatus(report):
    failure = getattr(report, "failure", None)
    if failure is not None and failure.missing:
        return "failed", "-", ("NOT WRITTEN YET", {"yellow": True})
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter, config):
    checker, stats = config.stash[CHECKER], terminalreporter.stats
    if config.option.tbstyle != "auto":
        return (yield)
    reports = [
        (key, report)
        for key in ("failed", "error")
        for report in stats.get(key, [])
        if getattr(report, "failure", None)
    ]
    for key, report in reports:  # ours to tell; pytest tells the others
        stats[key].remove(report)
    tell_failures(terminalreporter, checker)
    outcome = yield
    for key, report in reports:
        stats[key].append(report)
    tell_summary(terminalreporter, checker)
    return outcome


def tell_failures(terminal, checker: Checker) -> None:
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
            finding = words(failure.text.partition("\n")[2])
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


def tell_summary(terminal, checker: Checker) -> None:
    """How many checks pass, per function in the book's order, and what to write next."""
    failing = any(checker.results.values())
    if not checker.items or len(checker.projects) != 1 or not (failing or checker.given):
        return
    project = checker.projects[0]
    table: dict[str, list] = {}
    following = ""
    for item in checker.items:
        if item.nodeid in checker.results:
            name, failure = checked_names(item)[0], checker.results[item.nodeid]
            table.setdefault(name, []).append(failure)
            if failure and not following:
                following = failure.missing or name
    total, passed = len(checker.results), list(checker.results.values()).count(None)
    terminal.write_sep("-", checker.file(project))
    width = max(map(len, table), default=0)
    for name, results in table.items():
        state = f"{results.count(None):3} of {len(results)}"
        if all(failure and failure.missing for failure in results):
            state += "   not written yet"
        terminal.write_line(f"{name:{width}}  {state}")
    verdict = f"{passed} of {total} pass"
    terminal.write_line(f"{verdict}; next: {following}" if following else verdict, bold=True)
    if checker.hint:
        terminal.write_line(
            f"this is what {checker.hint} looks like: python -m {project}.break_it {checker.hint}"
        )
