"""Every sabotage of every project: one small edit, caught by the test that it names.

Projects are found by their break_it.py; a new one needs no change here. The tests that a project's
sabotages name run in a pytest of their own, each on the healthy module and on every edited one.
"""

import functools
import importlib
from pathlib import Path

import pytest

from p01_autograd.lab.sabotage import edited, sabotaged

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = sorted(path.parent.name for path in ROOT.glob("p[0-9][0-9]_*/break_it.py"))
SABOTAGES = {
    project: importlib.import_module(f"{project}.break_it").SABOTAGES for project in PROJECTS
}
ALL = [(project, sabotage) for project in PROJECTS for sabotage in SABOTAGES[project]]


def every(pairs):
    ids = [f"{project}-{sabotage.name}" for project, sabotage in pairs]
    return pytest.mark.parametrize("project, sabotage", pairs, ids=ids)


class OnEveryModule:
    """A pytest plugin: the named tests alone, with `build` the healthy and each edited module."""

    def __init__(self, project):
        self.tests = {(f"test_{s.module}", s.caught_by) for s in SABOTAGES[project]}
        self.modules = {}  # by test file and "healthy" or the sabotage's name
        for sabotage in SABOTAGES[project]:
            modules = self.modules.setdefault(f"test_{sabotage.module}", {})
            modules["healthy"] = importlib.import_module(f"{project}.{sabotage.module}")
            modules[sabotage.name] = sabotaged(project, sabotage)
        self.errors = {}  # by test file, test and module: {case: what it says, or ""}

    def pytest_generate_tests(self, metafunc):
        file, test = metafunc.module.__name__.rpartition(".")[2], metafunc.function.__name__
        if (file, test) in self.tests:
            modules = self.modules[file]
            metafunc.parametrize("build", list(modules.values()), ids=list(modules))

    def pytest_collection_modifyitems(self, items):
        items[:] = [i for i in items if (i.path.stem, getattr(i, "originalname", "")) in self.tests]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session):
        from p01_autograd.lab.checker import CHECKER

        session.config.stash[CHECKER].items = []  # nothing to sum up, and no hint to look for

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if report.failed or report.when == "call":
            given = item.callspec.params["build"]
            (module,) = [n for n, m in self.modules[item.path.stem].items() if m is given]
            cases = self.errors.setdefault((item.path.stem, item.originalname, module), {})
            case = item.name.replace(module, "", 1)
            cases[case] = report.failed and getattr(report, "failure", call.excinfo.exconly())
        return report


@functools.cache
def errors(project):
    """What each named test says of each module: by test file, test and module's name."""
    plugin = OnEveryModule(project)
    files = sorted({f"{ROOT}/{project}/{file}.py" for file, _ in plugin.tests})
    pytest.main(["-q", "--no-summary", *files], plugins=[plugin])
    return plugin.errors


@every(ALL)
def test_it_edits_one_place_of_at_most_three_lines(project, sabotage):
    before, after = edited(project, sabotage)  # a ValueError unless old stands there once
    assert after != before
    for text in (sabotage.old, sabotage.new):
        assert len(text.strip("\n").splitlines()) <= 3, f"{sabotage.name} edits more than 3 lines"


@every(ALL)
def test_the_test_it_names_catches_it_and_passes_on_the_healthy_build(project, sabotage):
    test, found = (f"test_{sabotage.module}", sabotage.caught_by), errors(project)
    assert (*test, "healthy") in found, f"no test that takes `build` is {'.py::'.join(test)}"
    assert not any(found[*test, "healthy"].values()), "it fails on the healthy build"
    assert any(found[*test, sabotage.name].values()), f"{sabotage.caught_by} passes on it"


@every([(project, sabotage) for project, sabotage in ALL if sabotage.module == "build"])
def test_the_hint_can_tell_it_from_every_other(project, sabotage):
    """The hint is the sabotage that fails the same checks in the same words; no two may agree."""

    def findings(name):
        return {
            (test, case): getattr(error, "text", error)
            for (file, test, module), cases in errors(project).items()
            if file == "test_build" and module == name
            for case, error in cases.items()
        }

    same = [
        other.name
        for other in SABOTAGES[project]
        if other.module == "build"
        and other is not sabotage
        and findings(other.name) == findings(sabotage.name)
    ]
    assert not same, f"no check tells {sabotage.name} from {', '.join(same)}"
