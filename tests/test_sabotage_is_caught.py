"""Every sabotage of every project is one small edit that the test it names catches.

The tests that a project's sabotages name run in one session, on the healthy module and on the
edited ones. Projects are found by their break_it.py.
"""

import functools
import importlib
import itertools
import time
from pathlib import Path

import pytest

from p01_autograd.lab import hint
from p01_autograd.lab.sabotage import edited, sabotaged
from p01_autograd.lab.session import failures, in_session

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = sorted(path.parent.name for path in ROOT.glob("p[0-9][0-9]_*/break_it.py"))
SABOTAGES = {
    project: importlib.import_module(f"{project}.break_it").SABOTAGES for project in PROJECTS
}
ALL = [(project, sabotage) for project in PROJECTS for sabotage in SABOTAGES[project]]


def every(pairs):
    ids = [f"{project}-{sabotage.name}" for project, sabotage in pairs]
    return pytest.mark.parametrize("project, sabotage", pairs, ids=ids)


class Findings:
    """The results of the tests that a project's sabotages name, on each of its modules."""

    def __init__(self, project, checker, items):
        self.project, self.checker, self.seconds, self.said = project, checker, {}, {}
        self.items = {}  # by test file and test
        for item in items:
            self.items.setdefault((item.path.stem, getattr(item, "originalname", "")), []).append(
                item
            )
        self.modules = {s.name: sabotaged(project, s) for s in SABOTAGES[project]}
        self.caught = {s.name: self.of(s, s.name) for s in SABOTAGES[project]}
        self.healthy = {s.name: self.of(s, "") for s in SABOTAGES[project]}
        self.alike = list(self.pairs_that_are_alike())

    def of(self, sabotage, name):
        """The failures {case: text} of a sabotage's test on the module edited by `name`.

        The name "" stands for the healthy module.
        """
        test = f"test_{sabotage.module}", sabotage.caught_by
        if (*test, name) not in self.said:
            module = self.modules.get(name)
            module = module or importlib.import_module(f"{self.project}.{sabotage.module}")
            start = time.process_time()
            found = failures(self.checker, module, self.items.get(test, []))
            self.seconds[test[1]] = time.process_time() - start
            said = {item.name: hint.words(failure.text) for item, failure in found.items()}
            self.said[*test, name] = said
        return self.said[*test, name]

    def pairs_that_are_alike(self):
        """Pairs of sabotages of build.py with equal results in all tests; quick tests run first."""
        sabotages = [s for s in SABOTAGES[self.project] if s.module == "build"]
        order = sorted(sabotages, key=lambda s: self.seconds[s.caught_by])
        for one, other in itertools.combinations([s.name for s in sabotages], 2):
            if all(self.of(s, one) == self.of(s, other) for s in order):
                yield {one, other}


@functools.cache
def findings(project):
    """The Findings of a project, from one session."""
    files = sorted({f"{ROOT}/{project}/test_{s.module}.py" for s in SABOTAGES[project]})
    return in_session(files, lambda checker, items: Findings(project, checker, items))


@every(ALL)
def test_it_edits_one_place_of_at_most_three_lines(project, sabotage):
    before, after = edited(project, sabotage)  # raises ValueError unless old occurs exactly once
    assert after != before
    for text in (sabotage.old, sabotage.new):
        assert len(text.strip("\n").splitlines()) <= 3, f"{sabotage.name} edits more than 3 lines"


@every(ALL)
def test_the_test_it_names_catches_it_and_passes_on_the_healthy_build(project, sabotage):
    found = findings(project)
    where = f"test_{sabotage.module}", sabotage.caught_by
    tests = found.items.get(where, [])
    takes_build = [item for item in tests if "build" in item.fixturenames]
    assert takes_build, f"there is no test {'.py::'.join(where)} with the fixture `build`"
    assert not found.healthy[sabotage.name], f"{sabotage.caught_by} fails on the healthy build"
    assert found.caught[sabotage.name], f"{sabotage.caught_by} passes on the edited build"


@pytest.mark.parametrize("project", PROJECTS)
def test_the_hint_can_tell_every_sabotage_from_every_other(project):
    """The hint names the sabotage with the same failures, so no two may have equal ones."""
    alike = findings(project).alike
    assert not alike, f"no check distinguishes these sabotages: {alike}"
