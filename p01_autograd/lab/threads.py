"""How many threads a command computes on.

Two threads beside one busy program are three to eight times slower than alone, although they sleep
while they wait (startup.py): the one on the busy core waits for its turn at every operation. So a
command that computes for long counts the free cores first, and uses as many threads; of eight cores
or more three quarters at most, since the last quarter gains 2 to 5 % and is what a program that
starts later needs. The small models of break_it gain a sixth from a second thread, and lose far
more beside another break_it: they get one.
"""

import hashlib
import os
import sys
import time

COUNTED = 0.25 if sys.platform == "win32" else 0.1  # seconds; Windows has ticks of 16 ms
found = 0, 0  # PyTorch's own number of threads, and the one set here; 0 until it is asked


def free_cores(cores: int, seconds: float = COUNTED) -> int:
    """How many of `cores` no other program uses; half of them if all are in use, at least 1.

    Counted with one thread per core, then with as many as got a whole core, until all of them do.
    """
    threads = cores
    while threads > 0 and (room := whole_cores(threads, seconds)) < threads:
        threads = room
    return threads or max(cores // 2, 1)


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
    """PyTorch's own number of threads; 0 if it is not loaded, or another number was set.

    Set in the environment, or by torch.set_num_threads since a command here has set its own.
    """
    global found
    torch = sys.modules.get("torch")
    if torch is None or {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        return 0
    now = torch.get_num_threads()
    if found == (0, 0):
        found = now, now
    return found[0] if now == found[1] else 0


def set_threads(threads: int) -> None:
    """Let PyTorch compute on so many threads; own_threads has been called."""
    global found
    found = found[0], threads
    if threads != sys.modules["torch"].get_num_threads():
        sys.modules["torch"].set_num_threads(threads)


def use_one_core() -> None:
    """Let PyTorch compute on one thread, unless OMP_NUM_THREADS says another number."""
    if own_threads():
        set_threads(1)


def use_free_cores(before: object = None) -> None:
    """Let PyTorch compute on as many threads as there are free cores; says so if some are in use.

    Of eight cores or more it uses three quarters at most. `before`, the number that a resumed run
    had, is kept, since another one changes the last digits. Does nothing where OMP_NUM_THREADS says
    a number, or PyTorch is not loaded.
    """
    if (most := own_threads()) == 0:
        return
    usual = most if most < 8 else most - most // 4
    kept = before if type(before) is int and 1 <= before <= most else None
    threads = kept or min(free_cores(most), usual)
    set_threads(threads)
    if threads != usual:
        why = "as the run began" if kept else "since no more cores are free"
        print(
            f"computing on {threads} of {most} threads, {why}; OMP_NUM_THREADS sets another number",
            file=sys.stderr,
        )
