"""Train on your own layers: python -m p05_gpt.train --mine my/

Each my/pNN_*.py that passes its project's checks replaces that project's build.py: the names that
the checks cover come from the reader's file, in copies of the projects that are imported for this
run alone. Where a file is missing or fails, and for all other names, the book's code is used.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import textwrap
import traceback
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path

from p01_autograd.lab.cli import UsageError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = re.compile(r"p\d\d_\w+")
ALWAYS_OURS = {"CharTokenizer"}  # a run needs more of it than the checks cover

in_use: dict[str, Path] = {}  # project -> the reader's file that replaces its build.py


def add_flag(parser) -> None:
    """Add --mine to a training command."""
    help = "train on your own layers: the pNN_*.py in this folder that pass their checks"
    parser.add_argument("--mine", metavar="DIR", help=help)


# Which files are used


def passing_files(folder: str, used: tuple[str, ...]) -> dict[str, Path]:
    """The reader's files, by project, that pass their checks; prints a verdict on each.

    Looks for one file per project in `used`. Raises UsageError if none passes.
    """
    if not Path(folder).is_dir():
        raise UsageError(
            f"there is no folder {folder}; python scripts/blank.py p04_attention creates one"
        )
    files = {}
    for project in sorted(path.parent.name for path in ROOT.glob("p[0-9][0-9]_*/build.py")):
        file = Path(folder, f"{project}.py")
        if project in used:
            print(f"{project:14} ", end="", flush=True)
            passes, verdict = check(project, file)
            print(f"{'yours' if passes else 'ours '}  {verdict}", flush=True)
            if passes:
                files[project] = file
                print_left_to_ours(project)
        elif file.is_file():
            print(f"{project:14} ours   {file.as_posix()} is not used by this command")
    if not files:
        raise UsageError(
            f"no file in {folder} passes its checks, so there is nothing of yours to train on; to "
            "see what is missing: pytest PROJECT --build FILE; to train the book's own, omit --mine"
        )
    return files


def print_left_to_ours(project: str) -> None:
    """Print where a project's package does not use the reader's functions, as its mine.py says."""
    if importlib.util.find_spec(f"{project}.mine"):
        module = importlib.import_module(f"{project}.mine")
        for line in textwrap.wrap(getattr(module, "LEFT_TO_OURS", ""), 78):
            print(f"{'':21} {line}", flush=True)


def check(project: str, file: Path) -> tuple[bool, str]:
    """Run a project's checks on a file: whether it passes, and the summary in one line."""
    if not file.is_file():
        return False, f"there is no {file.as_posix()}"
    command = [sys.executable, "-m", "pytest", "-q", str(ROOT / project), "--build", str(file)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
    )
    summary = re.search(r"^\d+ of \d+ pass.*", done.stdout, re.MULTILINE)
    if summary:
        return done.returncode == 0, f"{file.as_posix()}: {summary[0]}"
    said = (done.stderr.strip() or done.stdout.strip()).split("\n")[-1]
    return False, said.removeprefix("ERROR: --build ")


# Importing the projects with these files


def call_with(files: dict[str, Path], function, *args):
    """Call function(*args), with the function from a copy of its module that uses `files`.

    Raises UsageError if one of the files computes with tensors on two devices.
    """
    if not files:
        return function(*args)
    name = function.__module__
    if name == "__main__":
        name = sys.modules["__main__"].__spec__.name
    with imported_on(files):
        importlib.import_module("p05_gpt.mine").in_use = files
        try:
            return getattr(importlib.import_module(name), function.__name__)(*args)
        except RuntimeError as error:
            lines = traceback.extract_tb(error.__traceback__)
            theirs = [line for line in lines if line.filename in map(str, files.values())]
            if "same device" not in str(error) or not theirs:
                raise
            raise UsageError(
                f"{theirs[-1].filename}, line {theirs[-1].lineno}: one tensor is on the CPU and "
                "another is not; put every new one on its input's device, as in "
                "causal_mask(T).to(x.device), or train with --device cpu"
            ) from None


@contextlib.contextmanager
def imported_on(files: dict[str, Path]):
    """Import the projects again, with `files`, inside the block; then restore sys.modules."""
    before = {name: module for name, module in sys.modules.items() if PROJECT.match(name)}
    for name in before:
        if name != "p01_autograd.lab.cli":  # its UsageError is caught outside
            del sys.modules[name]
    finder = Finder(files)
    sys.meta_path.insert(0, finder)
    # The reader's folder last, or my/p04_attention.py would hide the project of that name.
    folders = [str(ROOT), *{str(path.resolve().parent) for path in files.values()}]
    sys.path += folders
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        del sys.path[-len(folders) :]
        for name in [name for name in sys.modules if PROJECT.match(name)]:
            del sys.modules[name]
        sys.modules.update(before)


class Finder:
    """A sys.meta_path finder for pNN.build of the projects that the reader has a file for."""

    def __init__(self, files: dict[str, Path]):
        self.files = files

    def find_spec(self, name, path=None, target=None):
        project, _, module = name.partition(".")
        if project not in self.files or module != "build":
            return None
        ours = str(ROOT / project / "build.py")
        loader = Loader(name, ours, self.files[project])
        return importlib.util.spec_from_file_location(name, ours, loader=loader)


class Loader(SourceFileLoader):
    """Executes our build.py, then the reader's, whose checked names replace ours."""

    def __init__(self, name: str, ours: str, file: Path):
        super().__init__(name, ours)
        self.file = file

    def exec_module(self, module):
        super().exec_module(module)
        project, path = module.__package__, str(self.file)
        theirs = types.ModuleType(f"{project}.build_of_yours")
        theirs.__file__, theirs.__package__ = path, project
        sys.modules[theirs.__name__] = theirs
        exec(compile(self.file.read_bytes(), path, "exec"), vars(theirs))
        checks = (ROOT / project / "test_build.py").read_text(encoding="utf-8")
        for name in set(re.findall(r'checks\("(\w+)', checks)) - ALWAYS_OURS:
            if hasattr(module, name) and hasattr(theirs, name):
                setattr(module, name, getattr(theirs, name))


# Copies in the run's folder, so that it can be sampled and resumed after the files have changed


def copy_into_run(run_folder: Path) -> None:
    """Copy the files in use, and other modules from their folders, into the run's folder."""
    target = run_folder / "mine"
    if target.is_dir():  # of a run that is being replaced
        shutil.rmtree(target)
    for folder in {path.parent for path in in_use.values()}:
        target.mkdir(exist_ok=True)
        for path in folder.glob("*.py"):
            if path in in_use.values() or not PROJECT.match(path.stem):
                shutil.copy(path, target)


def files_of_run(run_folder: Path) -> dict[str, Path]:
    """The reader's files that a run was trained with, by project; {} for a run on ours alone."""
    files = sorted(Path(run_folder, "mine").glob("p[0-9][0-9]_*.py"))
    return {path.stem: path for path in files}
