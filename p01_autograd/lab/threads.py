"""Threads that wait for work soon sleep, so that a busy laptop is not many times slower.

By default OpenMP's threads, and with them PyTorch's, wait for each other by spinning for
milliseconds: on a core that another program wants, the one that all wait for does not get its turn.
Here they spin for some fifty microseconds, which is about what lies between two operations, and
then sleep; sleeping at once costs a quiet machine half as much again. NumPy's OpenBLAS has no such
setting: beside one busy program, a step of the GPT on NumPy took six times as long with two threads
and as long as before with one, which costs a quiet machine a tenth. So it gets one. The runtimes
read these variables when they are loaded, so this is imported before NumPy and PyTorch; child
processes and torchrun's workers inherit them. What is set already stays as it is.

Two threads beside one busy program are still three to eight times slower than alone: the one on
the busy core waits for its turn at every operation. So a command that computes for long counts the
free cores first, and uses as many threads; of eight cores or more it leaves a quarter, which would
gain 2 to 5 %, to programs that start later. The small models of break_it gain a sixth from a second
thread, and lose far more beside another break_it: they get one.
"""

import hashlib
import os
import platform
import sys
import time

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # GNU's runtime; by default 300,000
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # Intel's and LLVM's, in milliseconds; 200
if sys.platform != "linux" or platform.machine() == "x86_64":  # PyTorch has another BLAS there
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COUNTED = 0.25 if sys.platform == "win32" else 0.1  # seconds; Windows has ticks of 16 ms
found: tuple[int, int] | None = None  # PyTorch's own number of threads, and the one set here


def free_cores(cores: int, seconds: float = COUNTED) -> int:
    """How many of `cores` no other program uses; if all are in use, our share, at least 1.

    Threads that compute find that many cores free if each gets a whole one. One per core is tried
    first, then as many as those found room for, until the room is theirs.
    """
    if cores == 1:
        return 1
    share = threads = whole_cores(cores, seconds)
    while 0 < threads < cores and (room := whole_cores(threads, seconds)) < threads:
        threads = room
    return threads or max(share, 1)


def whole_cores(threads: int, seconds: float, tries: int = 3) -> int:
    """How many cores so many threads get if they compute for so long: their processor time in it.

    The best try counts: a moment's work of another program is not a busy one.
    """
    from concurrent.futures import ThreadPoolExecutor  # only here: it takes long to import

    block = bytes(1 << 23)  # hashing it releases Python's lock for some milliseconds

    def share(_: int) -> float:
        start, start_cpu = time.perf_counter(), time.thread_time()
        while time.perf_counter() - start < seconds:
            hashlib.sha256(block)
        return (time.thread_time() - start_cpu) / (time.perf_counter() - start)

    most = 0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(tries):
            got = sum(pool.map(share, range(threads)))
            most = max(most, min(int(got + max(0.25, 0.03 * threads)), threads))  # the tolerance
            if most == threads:
                break
    return most


def own_threads() -> int:
    """PyTorch's own number of threads; 0 if it is not loaded, or the user has set a number."""
    global found
    torch = sys.modules.get("torch")
    if torch is None or {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        return 0
    now = torch.get_num_threads()
    found = found or (now, now)
    return found[0] if now == found[1] else 0  # else torch.set_num_threads was called elsewhere


def set_threads(threads: int) -> None:
    global found
    found = found[0], threads
    if threads != sys.modules["torch"].get_num_threads():
        sys.modules["torch"].set_num_threads(threads)


def use_one_core() -> None:
    """Let PyTorch compute on one thread, unless the user has set a number."""
    if own_threads():
        set_threads(1)


def use_free_cores(before: object = None) -> None:
    """Let PyTorch compute on as many threads as there are free cores; says so if on fewer.

    A quarter of eight cores or more is left to programs that start later. `before`, the number that
    a resumed run had, is kept, since another one changes the last digits. Does nothing where the
    user has set a number, or PyTorch is not loaded.
    """
    if (most := own_threads()) == 0:
        return
    usual = most if most < 8 else most - most // 4
    kept = before if type(before) is int and 1 <= before <= most else None
    threads = kept or min(free_cores(most), usual)
    set_threads(threads)
    if threads != usual:
        why = "as the run began" if kept else "since other programs use the cores"
        print(
            f"computing on {threads} of {most} threads, {why}; OMP_NUM_THREADS sets another number",
            file=sys.stderr,
        )
