"""Data-parallel training: the same steps as in one process, and the command under torchrun.

The processes are forks of this one, which has imported PyTorch.
"""

import os
import signal
import socket
import sys

import pytest
import torch
from torch import distributed, multiprocessing

from p06_training import build, train
from p06_training.distributed import DataParallelTrainer, any_rank, sum_over_ranks
from p06_training.test_manner import trainer
from p06_training.test_train import Command, flags, quick, rows_of, text_file, wait_for_rows

__all__ = ["quick", "text_file"]  # fixtures
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process with PyTorch")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def ranks(folder, *argv, processes=2):
    """Start the command in several processes, with the environment that torchrun sets."""
    port = free_port()
    return [
        Command(
            folder, *argv, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(processes)
    ]  # fmt: skip


def test_two_processes_give_the_losses_of_one_and_resume_as_one(text_file, tmp_path):
    more = ["--batch-size", 5, "--accumulate", 2, "--steps", 20]
    assert train.main(flags(text_file, tmp_path / "one", *more)) == 0
    two = tmp_path / "two"
    first, second = (command.wait() for command in ranks(tmp_path, *flags(text_file, two, *more)))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "in 2 processes" in first[1] and not second[1], "only rank 0 prints"
    losses = [[row["train_loss"] for row in rows_of(folder)] for folder in (tmp_path / "one", two)]
    assert len(losses[1]) == 20 and losses[0] == pytest.approx(losses[1], abs=1e-4)
    for path in (two / "checkpoints").glob("step_*.pt"):
        if path.name > "step_0000010.pt":
            path.unlink()
    assert (two / "checkpoints" / "step_0000010.pt").exists()
    assert train.main(["--resume", "--out", str(two)]) == 0
    rows = rows_of(two)
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert [row["train_loss"] for row in rows] == pytest.approx(losses[0], abs=1e-4)


def test_when_one_process_dies_the_others_end_with_an_error(text_file, tmp_path):
    more = ["--steps", 100_000, "--eval-every", 50_000]
    first, second = ranks(tmp_path, *flags(text_file, tmp_path / "run", *more))
    wait_for_rows(first, tmp_path / "run", 10)
    os.kill(second.process.pid, signal.SIGKILL)
    status, _, complained = first.wait()
    assert status == 1 and "another process is gone" in complained, complained


def test_a_signal_to_one_process_stops_all_after_the_same_step(text_file, tmp_path):
    more = ["--steps", 100_000, "--eval-every", 50_000]
    first, second = ranks(tmp_path, *flags(text_file, tmp_path / "run", *more))
    wait_for_rows(first, tmp_path / "run", 10)
    os.kill(second.process.pid, signal.SIGTERM)
    status, said, complained = first.wait()
    assert status == 0 and "stopped after step" in said, complained
    assert second.wait()[0] == 0


def in_each(rank, folder, work):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    torch.save(work(rank), folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def both(folder, work):
    """The results of work(rank) in two processes."""
    multiprocessing.start_processes(in_each, (folder, work), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_the_parallel_trainer_makes_the_steps_of_the_listing(tmp_path):
    given = {"batch_size": 5, "accumulate": 3, "steps": 6, "eval_every": 3}
    alone = trainer(**given)
    expected = list(alone.run())
    assert type(alone.loop) is build.Trainer

    def work(rank):
        one = trainer(**given)
        assert type(one.loop) is DataParallelTrainer
        rows = list(one.run())
        return rows, one.model.state_dict(), any_rank(rank == 1), sum_over_ranks(rank + 1.0)

    for rows, weights, stop, total in both(tmp_path, work):
        for ours, theirs in zip(rows, expected, strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours.keys() - {"seconds"}:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
        for name, value in alone.model.state_dict().items():
            assert torch.allclose(weights[name], value, atol=1e-5)
        assert stop is True and total == 3.0


def test_a_readers_trainer_without_the_needed_attributes_is_refused(monkeypatch):
    monkeypatch.setattr(build, "Trainer", lambda *_: object())
    with pytest.raises(train.UsageError, match="model, optimizer, train_ids"):
        DataParallelTrainer(*[None] * 5)


def test_a_single_process_of_torchrun_leaves_its_group(text_file, tmp_path, monkeypatch):
    variables = dict(RANK=0, WORLD_SIZE=1, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    assert train.main(flags(text_file, tmp_path / "run", "--device", "cpu")) == 0
    assert not distributed.is_initialized()


@pytest.mark.parametrize("rank", [0, 1])
def test_more_processes_than_gpus_is_an_error_in_one_line(
    rank, text_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    variables = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=4, LOCAL_WORLD_SIZE=2)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(SystemExit) as end:
        train.main([*flags(text_file, tmp_path / "run"), "--device", "cuda"])
    complained = capsys.readouterr().err
    assert end.value.code == 2 and complained.count("\n") == 1
    assert "2 processes need a GPU each, and this machine has 1" in complained
    assert not (tmp_path / "run").exists()


class Joined(Exception):
    """Raised in place of joining the other processes."""


def test_processes_on_several_machines_take_the_gpus_of_their_own(monkeypatch):
    def join(backend, timeout):
        raise Joined(backend)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setattr(distributed, "init_process_group", join)
    variables = dict(RANK=1, LOCAL_RANK=0, WORLD_SIZE=2, LOCAL_WORLD_SIZE=1)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(Joined, match="nccl"):
        train.join_processes("auto")
