"""A limit of time and memory for code that may never end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

MEMORY = 3 * 2**30  # bytes; a loop that appends for ever is stopped before the machine is
BUSY = 4  # on a busy machine a limit of processor time may take as many times longer


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
def at_most(seconds: float, stop: Callable[[str], None] | None = None) -> Iterator[threading.Event]:
    """Stop the block when it takes longer, by an exception that is raised inside it.

    Seconds are those of the processor, so that other programs do not count; a block that waits
    for something is stopped after BUSY times as many.
    `stop(message)` is called where that does not help: the block is not in Python code. Yields the
    event that ends the limit early, for somebody who is in the debugger.
    """
    thread, finished = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def watch() -> None:
        cpu, end = time.process_time() + seconds, time.monotonic() + BUSY * seconds
        memory, attempts = peak_memory(), 0
        while not finished.wait(0.1):
            full, up = peak_memory() - memory > MEMORY, time.process_time() > cpu
            if full or time.monotonic() > end or (up and not attempts):
                kind = ctypes.py_object(MemoryIsFull if full else TimeIsUp)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, kind)
                end, memory = time.monotonic() + 1, peak_memory()
                attempts += 1
            if attempts > 15 and stop is not None:
                stop(f"\nstopped: a call did not come back within {seconds:g} s")
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield finished
    finally:
        finished.set()
        watcher.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)
