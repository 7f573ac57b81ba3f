"""Which of a project's sabotages a failing build behaves like.

The checks that the reader's code fails are run again on each sabotage that fails the check which
names it. A sabotage fits as far as both fail the same checks with the same words; a check that
many sabotages fail says little, one that few fail says much.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from p01_autograd.lab.sabotage import Sabotage
from p01_autograd.lab.session import failures

if TYPE_CHECKING:
    from p01_autograd.lab.checker import Checker

SECONDS = 15
ENOUGH = 0.45


def known_sabotage(
    checker: Checker, project: str, variant: Callable[[str, Sabotage], ModuleType]
) -> str:
    """The name of the sabotage that fits best and well enough, or ""."""
    results = {i: checker.results[i.nodeid] for i in checker.items if i.nodeid in checker.results}
    results = {item: found for item, found in results.items() if not (found and found.missing)}
    if any(found and found.hung for found in results.values()):
        return ""
    quick = {i: found for i, found in results.items() if i.nodeid not in checker.slow}
    results = quick if any(quick.values()) else results
    mine = {item: found.text for item, found in results.items() if found}
    failing = {item.function.__name__ for item in mine}
    sabotages = importlib.import_module(f"{project}.break_it").SABOTAGES
    sabotages = [s for s in sabotages if s.module == "build"]
    candidates = [s for s in sabotages if s.caught_by in failing]
    named = {s.caught_by for s in sabotages}
    items = [i for i in results if i in mine or i.function.__name__ in named]
    deadline, theirs = time.monotonic() + SECONDS, {}
    for sabotage in candidates:
        try:
            found = failures(checker, variant(project, sabotage), items, deadline=deadline)
        except (TimeoutError, ValueError):
            break
        theirs[sabotage.name] = {item: failure.text for item, failure in found.items()}
    return best_fit(mine, theirs, {s.name: s.caught_by for s in candidates})


def best_fit(mine: dict, theirs: dict[str, dict], caught_by: dict[str, str]) -> str:
    """The sabotage whose failures are most like mine, or "". Failures are texts by check."""
    failing = {item.function.__name__ for item in mine}
    fits = {
        name: fit(mine, texts, theirs)
        for name, texts in theirs.items()
        if caught_by[name] in failing
    }
    best = max(fits, key=lambda name: fits[name], default="")
    return best if best and fits[best] >= ENOUGH else ""


def fit(mine: dict, theirs: dict, all_of_them: dict) -> float:
    """Between 0 and 1: how much of what either fails both fail, in how far the same words."""
    agree = total = 0.0
    for item in {*mine, *theirs}:
        weight = 1 / max(sum(item in texts for texts in all_of_them.values()), 1)
        total += weight
        if item in mine and item in theirs:
            agree += weight * alike(mine[item], theirs[item])
    return agree / total if total else 0.0


def alike(mine: str, theirs: str) -> float:
    """How far two messages of one check agree: not at all where they name different reasons."""
    if words(mine) == words(theirs):
        return 1.0
    reasons = [re.findall(r"The usual reason: (.*)", text) for text in (mine, theirs)]
    return 0.0 if all(reasons) and reasons[0] != reasons[1] else 0.7


def words(text: str) -> str:
    """A message without its numbers and places, which differ between two ways to write a line."""
    lines = [line for line in text.split("\n") if not re.search(r"\.py:\d+, in ", line)]
    return re.sub(r"-?\d[\d.e+-]*", "#", " ".join(" ".join(lines).split()))
