"""One session of pytest that checks one module after another.

Starting a session takes longer than most checks. The hint, scripts/styles.py and the tests of the
checker have many modules, so they collect the checks once and exchange the module under test.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import pytest
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from p01_autograd.lab.checker import Checker, Failure

T = TypeVar("T")


def failures(
    checker: Checker,
    module: ModuleType,
    items: Sequence[pytest.Item],
    first_only: bool = False,
    deadline: float = math.inf,
) -> dict[pytest.Item, Failure]:
    """What the tests `items` say of a module: a Failure for each one that fails.

    `first_only` stops at the first one. TimeoutError after `deadline`, a time.monotonic().
    """
    from p01_autograd.lab.checker import Failure

    kept = checker.module, checker.results, checker.hung
    checker.module, checker.results, checker.hung = module, {}, {}
    found = {}
    try:
        for item, following in zip(items, [*items[1:], None]):
            if time.monotonic() > deadline:
                raise TimeoutError
            for report in runtestprotocol(item, log=False, nextitem=following):
                if report.failed and item not in found:
                    found[item] = getattr(report, "failure", None) or Failure(report.longreprtext)
            if found and first_only:
                break
    finally:
        if items:
            items[0].session._setupstate.teardown_exact(None)
        checker.module, checker.results, checker.hung = kept
    return found


def in_session(
    paths: Sequence[str | Path],
    work: Callable[[Checker, list[pytest.Item]], T],
    *arguments: str,
) -> T:
    """Collect the tests in `paths` and return `work(checker, items)`, called inside the session.

    RuntimeError with what pytest printed if it did not come to that.
    """
    from p01_autograd.lab.checker import CHECKER

    done: list[T] = []
    errors: list[BaseException] = []

    class Plugin:
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session: pytest.Session) -> bool:
            checker = session.config.stash[CHECKER]
            checker.quiet = True
            try:
                done.append(work(checker, session.items))
            except BaseException as error:
                errors.append(error)
            return True

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        quiet = ["-q", "-W", "ignore", "-p", "no:cacheprovider"]
        pytest.main([*quiet, *map(str, paths), *arguments], plugins=[Plugin()])
    if errors:
        raise errors[0]
    if not done:
        raise RuntimeError(f"pytest ended before the checks: {printed.getvalue()[-2000:]}")
    return done[0]
