"""Data-parallel training: each process computes its share of every batch.

All processes draw the same batch, and each takes every n-th window of it; DistributedDataParallel
averages the gradients. Every process therefore makes the same update, which is that of a single
process up to rounding.
"""

from __future__ import annotations

import contextlib
import math
from types import SimpleNamespace

import torch
from torch import distributed, nn

from p01_autograd.lab.cli import UsageError
from p05_gpt.build import get_batch, loss

from . import build

ATTRIBUTES = ("model", "optimizer", "train_ids", "recipe", "generator", "steps_done")


class DataParallelTrainer:
    """The listing's Trainer with a data-parallel step.

    The arguments are those of build.Trainer, the same in all processes; torch.distributed must be
    initialised. Raises UsageError for a reader's Trainer without the listing's attributes.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        train_ids: torch.Tensor,
        val_ids: torch.Tensor,
        recipe: SimpleNamespace,
    ):
        self.one = build.Trainer(model, optimizer, train_ids, val_ids, recipe)
        missing = [name for name in ATTRIBUTES if not hasattr(self.one, name)]
        if missing:
            raise UsageError(
                f"in several processes a Trainer needs the attributes {', '.join(missing)}; "
                "train in one process, or give them these names"
            )
        self.one.step = self.step
        self.run, self.state = self.one.run, self.one.state
        self.rank, self.processes = distributed.get_rank(), distributed.get_world_size()
        self.parallel = nn.parallel.DistributedDataParallel(model)

    def step(self) -> dict:
        """As in the listing; train_loss and grad_norm are those of the whole batch."""
        one, recipe = self.one, self.one.recipe
        lr = build.lr_at(
            one.steps_done,
            max_lr=recipe.max_lr,
            min_lr=recipe.min_lr,
            warmup_steps=recipe.warmup_steps,
            total_steps=recipe.steps,
        )
        for group in one.optimizer.param_groups:
            group["lr"] = lr

        one.model.train()
        one.optimizer.zero_grad()
        train_loss, parts = 0.0, self.parts()
        for i, (x, y) in enumerate(parts, 1):
            share = len(x) / (recipe.batch_size * recipe.accumulate)
            last = i == len(parts)  # its backward exchanges the gradients of all parts
            with contextlib.nullcontext() if last else self.parallel.no_sync():
                part = loss(self.parallel(x), y) * share
                (part * self.processes).backward()  # since the exchange takes the mean
            train_loss += part.item()

        grad_norm = float(build.clip_grad_norm(one.model.parameters(), recipe.clip))
        if math.isfinite(grad_norm):
            one.optimizer.step()
        one.steps_done += 1
        return {
            "step": one.steps_done,
            "train_loss": sum_over_ranks(train_loss),
            "lr": lr,
            "grad_norm": grad_norm,
        }

    def parts(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """This process's share of a batch: pairs x, y of at most batch_size / processes windows."""
        one, recipe = self.one, self.one.recipe
        drawn = [
            get_batch(one.train_ids, recipe.block_size, recipe.batch_size, one.generator)
            for _ in range(recipe.accumulate)
        ]
        at_once = math.ceil(recipe.batch_size / self.processes)
        x, y = (torch.cat(ids)[self.rank :: self.processes] for ids in zip(*drawn, strict=True))
        return list(zip(x.split(at_once), y.split(at_once), strict=True))

    def load_state(self, state: dict) -> None:
        """Restore a state, taken with any number of processes."""
        self.one.load_state(state)
        if self.rank > 0:  # its dropout must differ from rank 0's
            seed = self.one.recipe.seed
            torch.manual_seed(seed + self.one.steps_done * self.processes + self.rank)


def in_many_processes() -> bool:
    """Whether torch.distributed is initialised."""
    return distributed.is_available() and distributed.is_initialized()


def this_rank() -> int:
    """This process's rank, 0 in a single process. Only rank 0 reads and writes files."""
    return distributed.get_rank() if in_many_processes() else 0


def sum_over_ranks(number: float) -> float:
    """The sum of a number over all processes, in each of them."""
    if not in_many_processes():
        return number
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor([number], dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return total.item()


def any_rank(flag: bool) -> bool:
    """Whether the flag is true in any process: all ranks then leave a loop together."""
    return sum_over_ranks(float(flag)) > 0
