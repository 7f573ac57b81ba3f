"""The Trainer that the package exports: the listing's, with what a run of a night needs.

Around the listing's loop it measures the time, counts skipped steps, asks the doctor, and goes on
from the newest good checkpoint of the same run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from . import build
from .checkpoints import CheckpointError, first_line, resume_newest, save_newest
from .distributed import DataParallelTrainer, any_rank, in_many_processes, this_rank

# A run may be continued elsewhere: these may differ from one part of it to the next.
MAY_DIFFER = {"data", "device", "threads", "torch_version", "checkpoint_every"}


class Trainer:
    """Trains `model` by `recipe` (see build.Trainer); under torch.distributed in all processes.

    Of the listing's Trainer, the attribute `loop`, it uses run, state and load_state alone.
    """

    def __init__(self, model: nn.Module, optimizer, train_ids, val_ids, recipe):
        kind = DataParallelTrainer if in_many_processes() else build.Trainer
        self.loop = kind(model, optimizer, train_ids, val_ids, recipe)
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        self.steps_done, self.skipped, self.consecutive_skips = 0, 0, 0
        self.best_loss, self.seconds = math.inf, 0.0
        self.metrics: list[dict] = []  # a row for each step, as in metrics.jsonl
        self.told: set[str] = set()

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[dict]:
        """Train to the last step; yields a row for each. Ends early once stop() is true."""
        start, rows = time.perf_counter() - self.seconds, self.loop.run()
        while not any_rank(stop()):
            row = next(rows, None)
            if row is None:
                return
            yield self.noted(row, time.perf_counter() - start)

    def step(self) -> dict:
        """The listing's step, counted; the time is the caller's."""
        return self.noted(self.loop.step(), self.seconds)

    def noted(self, row: dict, seconds: float) -> dict:
        """The row as it is kept, and what it says about the run."""
        self.steps_done, self.seconds = int(row["step"]), seconds
        if math.isfinite(row["grad_norm"]):
            self.consecutive_skips = 0
        else:
            self.skipped, self.consecutive_skips = self.skipped + 1, self.consecutive_skips + 1
        numbers = {key: float(value) for key, value in row.items() if key != "step"}
        row = {"step": self.steps_done, "seconds": round(seconds, 4), **numbers}
        self.metrics.append(row)
        return row

    def warnings(self) -> list:
        """What the doctor finds in the curve so far and has not said before."""
        from .doctor import diagnose  # only here: the doctor is a command of its own

        alarms = [finding for finding in diagnose(self.metrics) if not finding.note]
        new = [finding for finding in alarms if finding.name not in self.told]
        self.told |= {finding.name for finding in new}
        return new

    def state(self) -> dict:
        """Everything that moves, and the recipe it moves by."""
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
        """Go on exactly where state() was taken; a CheckpointError if it is not of this run."""
        try:
            theirs, ours = state["recipe"], vars(self.recipe)
            other = [key for key in ours if key not in MAY_DIFFER and theirs[key] != ours[key]]
            if other:
                raise CheckpointError(f"it is of another run: {', '.join(other)} differ")
            self.loop.load_state(state["loop"])
            self.steps_done, self.best_loss = state["steps_done"], state["best_loss"]
            self.skipped, self.consecutive_skips = state["skips"]
            self.seconds = state["seconds"]
            if this_rank() == 0 and len(state["random_cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["random_cuda"])
        except CheckpointError:
            raise
        except Exception as error:  # whatever a missing or misshapen part makes torch raise
            raise CheckpointError(f"it does not fit this run ({first_line(error)})") from None

    def save(self, folder: Path) -> Path:
        """Write this step's checkpoint into `folder`, where the newest three are kept."""
        return save_newest(folder, self.steps_done, self.state())

    def resume(self, folder: Path) -> tuple[Path, list[str]]:
        """Go on from the newest good checkpoint; returns it and what was wrong with newer ones.

        Raises CheckpointError when there is none.
        """
        return resume_newest(folder, self.load_state)
