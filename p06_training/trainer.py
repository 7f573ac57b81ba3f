"""The Trainer that the package exports, built on the listing's.

It adds elapsed time, counts of skipped steps, warnings by the doctor, and resuming from the newest
good checkpoint of the same run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import nn

from . import build
from .checkpoints import CheckpointError, first_line, resume_newest, save_newest
from .distributed import DataParallelTrainer, any_rank, in_many_processes, this_rank

if TYPE_CHECKING:
    from .doctor import Finding

# Settings that may differ when a run is resumed, perhaps on another machine.
MAY_DIFFER = {"data", "device", "threads", "torch_version", "checkpoint_every"}


class Trainer:
    """Trains a language model, data-parallel if torch.distributed is initialised.

    The arguments are those of build.Trainer. `loop` is the listing's Trainer, of which only step,
    run, state and load_state are used. `metrics` has one row per step, as in metrics.jsonl: losses
    in nats per token, `seconds` since the start of training, `grad_norm` before clipping.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        train_ids: torch.Tensor,
        val_ids: torch.Tensor,
        recipe: SimpleNamespace,
    ):
        kind = DataParallelTrainer if in_many_processes() else build.Trainer
        self.loop = kind(model, optimizer, train_ids, val_ids, recipe)
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        self.steps_done, self.skipped, self.consecutive_skips = 0, 0, 0
        self.best_loss, self.seconds = math.inf, 0.0
        self.metrics: list[dict] = []
        self.warned: set[str] = set()  # names of findings

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[dict]:
        """Train to the last step, or until stop() is true in any process; yield each step's row."""
        start, rows = time.perf_counter() - self.seconds, self.loop.run()
        while not any_rank(stop()):
            row = next(rows, None)
            if row is None:
                return
            yield self.record(row, time.perf_counter() - start)

    def step(self) -> dict:
        """One step, as in the listing; returns its row. Does not advance `seconds`."""
        return self.record(self.loop.step(), self.seconds)

    def record(self, row: dict, seconds: float) -> dict:
        """Append the row, with its time, to the metrics; count skipped steps."""
        self.steps_done, self.seconds = int(row["step"]), seconds
        if math.isfinite(row["grad_norm"]):
            self.consecutive_skips = 0
        else:
            self.skipped, self.consecutive_skips = self.skipped + 1, self.consecutive_skips + 1
        numbers = {key: float(value) for key, value in row.items() if key != "step"}
        row = {"step": self.steps_done, "seconds": round(seconds, 4), **numbers}
        self.metrics.append(row)
        return row

    def warnings(self) -> list[Finding]:
        """The doctor's findings on the curve so far, without notes and those returned before."""
        from .doctor import diagnose  # only here: the doctor is a command of its own

        alarms = [finding for finding in diagnose(self.metrics) if not finding.note]
        new = [finding for finding in alarms if finding.name not in self.warned]
        self.warned |= {finding.name for finding in new}
        return new

    def state(self) -> dict:
        """The state of model, optimizer, random generators and counters, and the recipe."""
        return {
            "loop": self.loop.state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
            "steps_done": self.steps_done,
            "skips": [self.skipped, self.consecutive_skips],
            "best_loss": self.best_loss,
            "seconds": self.seconds,
            "recipe": dict(vars(self.recipe)),
        }

    def load_state(self, state: dict) -> None:
        """Restore a state; training continues exactly where it was taken.

        Raises CheckpointError for the state of another run.
        """
        try:
            theirs, ours = state["recipe"], vars(self.recipe)
            other = [key for key in ours if key not in MAY_DIFFER and theirs[key] != ours[key]]
            if other:
                raise CheckpointError(f"it is from another run: {', '.join(other)} differ")
            self.loop.load_state(state["loop"])
            self.steps_done, self.best_loss = state["steps_done"], state["best_loss"]
            self.skipped, self.consecutive_skips = state["skips"]
            self.seconds = state["seconds"]
            if this_rank() == 0 and len(state["random_cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["random_cuda"])
        except CheckpointError:
            raise
        except Exception as error:  # torch raises many kinds for missing or misshapen parts
            raise CheckpointError(f"it does not fit this run ({first_line(error)})") from None

    def save(self, folder: Path) -> Path:
        """Write a checkpoint into `folder` and keep the newest three; returns its path."""
        return save_newest(folder, self.steps_done, self.state())

    def resume(self, folder: Path) -> tuple[Path, list[str]]:
        """Load the newest good checkpoint; returns its path and a line per newer, rejected one.

        Raises CheckpointError if there is none.
        """
        return resume_newest(folder, self.load_state)
