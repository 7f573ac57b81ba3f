"""What a chapter's test_homework.py needs: the reader's names, or a skip that says what is missing.

pytest p01_autograd --build my/p01_autograd.py --homework 1
"""

from __future__ import annotations

import types
from typing import Any

import pytest

from p01_autograd.lab.sabotage import Sabotage, sabotaged
from p01_autograd.lab.steps import shipped_text


def written(build: types.ModuleType, *names: str) -> list[Any]:
    """The names of the reader's file, methods as `Value.sigmoid`; skips if one is not there."""
    found = []
    for name in names:
        here: Any = build
        for part in name.split("."):
            here = getattr(here, part, None)
        if here is None:
            pytest.skip(f"there is no {name} yet")
        found.append(here)
    return found


def variant(project: str, name: str, pair: object) -> types.ModuleType:
    """The module that a reader's sabotage makes of our build.py; `pair` is (old, new)."""
    old, new = pair if isinstance(pair, tuple | list) and len(pair) == 2 else (None, None)
    message = f"{name} should be a pair of texts, (old, new)"
    assert isinstance(old, str) and isinstance(new, str), message
    source = shipped_text(project)
    found = source.count(old) if old else 0
    assert found == 1, (
        f"the old text of {name} stands {found} times in {project}/build.py, not once: {old!r}"
    )
    edit = Sabotage(name, old, new, predict="", symptom=lambda *runs: False, caught_by="")
    try:
        return sabotaged(project, edit, source)
    except SyntaxError as error:
        pytest.fail(f"the new text of {name} does not parse: {error.msg}", pytrace=False)
