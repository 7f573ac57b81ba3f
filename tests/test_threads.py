"""What is set before PyTorch is loaded, and on how many threads commands and tests compute."""

import functools
import importlib
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from p01_autograd.lab import threads

SETTINGS = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OPENBLAS_NUM_THREADS")


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, ["20000", "1", "1"]),
        ({"GOMP_SPINCOUNT": "7", "OPENBLAS_NUM_THREADS": "3"}, ["7", "1", "3"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, [None, None, "1"]),
    ],
    ids=["nothing set", "numbers set", "policy set"],
)
@pytest.mark.parametrize("project", ["p02_tensors", "p05_gpt"])
def test_importing_a_project_sets_what_is_not_set(project, given, expected):
    code = f"""
import os, platform, sys
sys.modules |= dict.fromkeys(["numpy", "torch"])  # importing these fails: it is set before
platform.machine = lambda: "x86_64"
try:
    import {project}
except ImportError:
    print([os.environ.get(name) for name in {SETTINGS}])
"""
    ours = (*SETTINGS, "OMP_WAIT_POLICY")
    environment = {key: value for key, value in os.environ.items() if key not in ours} | given
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(expected)


@pytest.mark.parametrize("before, after", [("", "True"), ("gc.disable()", "False")])
def test_importing_a_project_with_pytorch_leaves_the_collector_as_it_was(before, after):
    code = f"""
import atexit, gc
atexit.register(lambda: print(gc.get_objects() == []))  # runs last
{before}
import p05_gpt
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [after, "True", "True"], "frozen: after the import, at the end"


def test_what_a_notebook_has_made_since_it_imported_torch_is_still_collected():
    code = "import gc, torch, p05_gpt; print(gc.isenabled(), gc.get_freeze_count())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0"]


@pytest.mark.parametrize(
    "count, share, whole",
    [(1, 0.5, 0), (1, 0.9, 1), (2, 0.9, 2), (2, 0.75, 1), (2, 0.5, 1), (8, 0.94, 7), (8, 0.1, 1)],
)
def test_whole_cores_adds_the_processor_time_that_threads_get(count, share, whole, monkeypatch):
    clock = SimpleNamespace(
        perf_counter=time.perf_counter, thread_time=lambda: share * time.perf_counter()
    )
    monkeypatch.setattr(threads, "time", clock)
    assert threads.whole_cores(count, seconds=0.002) == whole


def test_whole_cores_forgives_a_moment_of_other_work(monkeypatch):
    got = iter([0.6, 0.6, 1.0, 1.0])
    pool = SimpleNamespace(map=lambda share, cores: [next(got) for _ in cores])
    fake = type("Pool", (), {"__enter__": lambda self: pool, "__exit__": lambda *_: None})
    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor", lambda cores: fake())
    assert threads.whole_cores(2, 0.1) == 2


@pytest.mark.parametrize(
    "cores, busy, free",
    [
        *[(1, 0, 1), (2, 0, 2), (2, 1, 1), (2, 2, 1)],
        *[(4, 0, 4), (4, 1, 3), (4, 2, 2), (4, 3, 1), (4, 4, 2)],
        *[(16, 1, 15), (16, 8, 8), (16, 15, 1), (16, 16, 8)],
    ],
)
def test_free_cores_are_those_that_no_busy_program_is_on(cores, busy, free, monkeypatch):
    def whole(count, seconds):  # who finds no free core shares one with a program
        alone = min(count, cores - busy)
        return int(alone + (count - alone) / 2 + 0.25)

    monkeypatch.setattr(threads, "whole_cores", whole)
    assert threads.free_cores(cores) == free


@pytest.fixture
def two_threads(monkeypatch):
    """PyTorch on two threads, as without OMP_NUM_THREADS on a machine with two cores."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "found", (0, 0))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_use_free_cores_leaves_the_busy_ones(two_threads, monkeypatch, capsys):
    monkeypatch.setattr(threads, "free_cores", lambda cores: cores)
    threads.use_free_cores()
    assert torch.get_num_threads() == 2 and capsys.readouterr().err == ""
    monkeypatch.setattr(threads, "free_cores", lambda cores: cores - 1)
    threads.use_free_cores()
    said = capsys.readouterr()
    assert torch.get_num_threads() == 1 and not said.out
    assert said.err.startswith("computing on 1 of 2 threads, since no more cores are free")


@pytest.mark.parametrize(
    "cores, free, used, said",
    [(2, 2, 2, 0), (4, 4, 4, 0), (4, 3, 3, 1), (8, 8, 6, 0), (8, 6, 6, 0), (8, 5, 5, 1)],
)
def test_use_free_cores_leaves_a_quarter_of_eight_or_more(
    cores, free, used, said, two_threads, monkeypatch, capsys
):
    monkeypatch.setattr(threads, "found", (cores, 2))
    monkeypatch.setattr(threads, "free_cores", lambda most: min(free, most))
    threads.use_free_cores()
    assert torch.get_num_threads() == used
    assert bool(capsys.readouterr().err) == said


def test_use_one_core_and_then_the_free_ones(two_threads, monkeypatch, capsys):
    threads.use_one_core()
    assert torch.get_num_threads() == 1 and capsys.readouterr().err == ""
    monkeypatch.setattr(threads, "free_cores", lambda cores: cores)
    threads.use_free_cores()
    assert torch.get_num_threads() == 2


def test_use_free_cores_counts_again_from_all_of_them(two_threads, monkeypatch):
    for free in (1, 2, 1):
        monkeypatch.setattr(threads, "free_cores", lambda cores, free=free: min(free, cores))
        threads.use_free_cores()
        assert torch.get_num_threads() == free


@pytest.mark.parametrize(
    "before, threads_after", [(2, 2), (1, 1), (3, 1), (True, 1), (2.0, 1), ("2", 1), (None, 1)]
)
def test_use_free_cores_keeps_the_number_that_a_run_began_with(
    two_threads, monkeypatch, capsys, before, threads_after
):
    monkeypatch.setattr(threads, "free_cores", lambda cores: 1)
    threads.use_free_cores(before)
    assert torch.get_num_threads() == threads_after
    assert ("as the run began" in capsys.readouterr().err) is (before == 1 and before is not True)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_in_the_environment_stays(two_threads, monkeypatch, name):
    monkeypatch.setenv(name, "2")
    monkeypatch.setattr(threads, "free_cores", lambda cores: 1)
    threads.use_free_cores()
    threads.use_one_core()
    assert torch.get_num_threads() == 2


def test_a_number_that_was_set_elsewhere_stays(two_threads, monkeypatch):
    monkeypatch.setattr(threads, "free_cores", lambda cores: 2)
    threads.use_free_cores()
    torch.set_num_threads(3)
    threads.use_free_cores()
    threads.use_one_core()
    assert torch.get_num_threads() == 3


def test_tests_compute_on_the_cpu_and_on_one_thread():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1" and not torch.cuda.is_available()
    assert str(torch.get_num_threads()) == os.environ["OMP_NUM_THREADS"]


class Counted(Exception):
    """Raised in place of counting, which ends the command before its work."""


@pytest.mark.parametrize(
    "module, patched, argv",
    [
        ("p04_attention.break_it", "p01_autograd.lab.sabotage", ["no_scale"]),
        ("p05_gpt.break_it", "p01_autograd.lab.sabotage", ["--all"]),
        ("p05_gpt.measure", "p01_autograd.lab.cli", ["cache"]),
        ("p04_attention.heatmap", "p04_attention.heatmap", []),
        ("p05_gpt.checkup", "p05_gpt.checkup", ["--demo"]),
        ("p05_gpt.train", "p05_gpt.train", ["--data", "text", "--out", "run"]),
        ("p05_gpt.train", "p05_gpt.engine", ["--data", "text", "--engine", "p02_tensors"]),
        ("p06_training.train", "p06_training.train", ["--data", "text", "--out", "run"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_command_that_computes_for_long_counts_first(
    module, patched, argv, tmp_path, monkeypatch
):
    def count(before=None):
        raise Counted

    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("to be or not to be, " * 200, encoding="utf-8")
    name = "use_one_core" if patched.endswith("sabotage") else "use_free_cores"
    monkeypatch.setattr(importlib.import_module(patched), name, count)
    main = importlib.import_module(module).main
    if module.endswith("break_it"):
        parts = ("SABOTAGES", "experiment", "figure")
        parts = (getattr(importlib.import_module(module), part) for part in parts)
        main = functools.partial(main, module.split(".")[0], *parts)
    with pytest.raises(Counted):
        main(argv=argv)
