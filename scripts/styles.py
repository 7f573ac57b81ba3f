"""Test the checker on correct files in other styles than ours, and on mutants of them.

    python scripts/styles.py                     every project
    python scripts/styles.py p04_attention       one
    python scripts/styles.py --quick             no hints, one failing check is enough

Every file in tests/other_styles must pass all checks of its project, and every mutant of it must
fail one. For a mutant that repeats a known sabotage, the hint should name that sabotage. The exit
status is 1 if a correct file is refused or a mutant passes.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import p01_autograd.lab.startup  # noqa: E402, F401  isort: skip

from p01_autograd.lab import hint, session  # noqa: E402
from p01_autograd.lab.cli import Parser  # noqa: E402

STYLES = ROOT / "tests/other_styles"


class EveryFile:
    """Runs a project's checks on each correct file and each mutant, in one session."""

    def __init__(self, project: str, quick: bool, few: bool = False):
        self.project, self.quick = project, quick
        folder = STYLES / project
        self.sources = {
            path.stem: path.read_text(encoding="utf-8")
            for path in sorted(folder.glob("*.py"))
            if path.stem not in ("__init__", "mutants")
        }
        self.mutants = importlib.import_module(f"tests.other_styles.{project}.mutants").MUTANTS
        if few:
            self.sources = dict(list(self.sources.items())[:2])
            self.mutants = [
                mutant
                for style in self.sources
                for mutant in [m for m in self.mutants if m.style == style][:2]
            ]
        self.refused, self.survived, self.hints, self.wrong_hints = [], [], [], []

    def run(self, checker, items) -> None:
        """Check every file; called inside a session."""
        from p01_autograd.lab.checker import is_check, variant

        self.checker, self.items = checker, [item for item in items if is_check(item)]
        sabotages = []
        if not self.quick:
            sabotages = importlib.import_module(f"{self.project}.break_it").SABOTAGES
            sabotages = [s for s in sabotages if s.module == "build"]
        known = {s.name: self.failures(variant(self.project, s)) for s in sabotages}
        for style, source in self.sources.items():
            failed = self.failures(self.module(style, source))
            for item, text in failed.items():
                self.refused.append(f"{style}: {item.name}: {text[:300]}")
            for mutant in self.mutants:
                if mutant.style == style:
                    self.try_mutant(mutant, source, failed, sabotages, known)

    def try_mutant(self, mutant, source, failed, sabotages, known) -> None:
        """Check a mutant; note whether it is refused and what the hint says."""
        where = f"{mutant.style}/{mutant.name}"
        count = source.count(mutant.old)
        if count != 1:
            self.survived.append(f"{where}: its old text occurs {count} times")
            return
        module = self.module(mutant.style, source.replace(mutant.old, mutant.new))
        found = self.failures(module, first_only=self.quick)
        if not set(found) - set(failed):
            self.survived.append(where)
        elif not self.quick:
            said = hint.best_fit(found, known, {s.name: s.caught_by for s in sabotages})
            if mutant.looks_like:
                self.hints.append((where, mutant.looks_like, said))
            elif said:
                self.wrong_hints.append(f"{where} is no sabotage, and the hint says {said}")

    def module(self, style: str, source: str):
        """The module that --build loads from the file, or the exception that it raises."""
        from p01_autograd.lab.loading import run_file

        file = Path(self.folder) / f"{style}.py"
        file.write_text(source, encoding="utf-8")
        try:
            return run_file(file, self.project)
        except Exception as error:
            return error

    def failures(self, module, first_only: bool = False) -> dict:
        """The failing checks of a module: {check: text}.

        `first_only` stops at the first one, and runs the checks that were slow before at the end.
        """
        if isinstance(module, Exception):
            return {self.items[0]: f"it does not load: {module}"}
        slow = self.checker.slow if first_only else ()
        items = sorted(self.items, key=lambda item: item.nodeid in slow)
        found = session.failures(self.checker, module, items, first_only)
        return {item: failure.text for item, failure in found.items()}


def check_styles(project: str, quick: bool, few: bool = False) -> bool:
    """Print the checker's verdicts on a project's files; True if all of them are right.

    `few` takes two files of a project, and two mutants of each.
    """
    files, start = EveryFile(project, quick, few), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        files.folder = folder
        session.in_session([ROOT / project / "test_build.py"], files.run, "--limit", "20")
    n, m = len(files.sources), len(files.mutants)
    refused = {line.partition(":")[0] for line in files.refused}
    print(f"\n{project}: {n - len(refused)} of {n} correct files pass, ", end="")
    print(f"{m - len(files.survived)} of {m} mutants are refused", end="")
    if not quick:
        right = sum(meant == said for _, meant, said in files.hints)
        print(f", {right} of {len(files.hints)} known sabotages named", end="")
        print(f", {len(files.wrong_hints)} wrong hints", end="")
    print(f" ({time.perf_counter() - start:.0f} s)")
    for line in files.refused:
        print(f"  refused: {line}")
    for line in files.survived:
        print(f"  survived: {line}")
    for where, meant, said in files.hints:
        if meant != said:
            print(f"  hint: {where} is {meant}, and the hint says {said or 'nothing'}")
    for line in files.wrong_hints:
        print(f"  hint: {line}")
    return not files.refused and not files.survived


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    projects = sorted(path.parent.name for path in STYLES.glob("p[0-9][0-9]_*/mutants.py"))
    parser = Parser(prog="python scripts/styles.py", description="The checker on other styles.")
    parser.add_argument("projects", nargs="*", metavar="PROJECT", help=", ".join(projects))
    parser.add_argument("--quick", action="store_true", help="no hints, one failing check each")
    flags = parser.parse_args(argv)
    for project in flags.projects:
        if project not in projects:
            parser.error(f"there is no {project}; there are {', '.join(projects)}")
    right = [check_styles(project, flags.quick) for project in flags.projects or projects]
    return int(not all(right))


if __name__ == "__main__":
    sys.exit(main())
