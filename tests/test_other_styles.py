"""Correct files in other styles pass the checks, and mutants of them fail: two files per project.

For all files: python scripts/styles.py
"""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = sorted(path.parent.name for path in ROOT.glob("tests/other_styles/p0*/mutants.py"))


def load_styles():
    spec = importlib.util.spec_from_file_location("styles", ROOT / "scripts/styles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("project", PROJECTS)
def test_two_files_of_a_project(project, capsys):
    right = load_styles().check_styles(project, quick=True, few=True)
    assert right, capsys.readouterr().out
