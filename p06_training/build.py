"""The training loop that survives contact: schedule, clipping, crash-safe checkpoints, the loop.

Sources: Goyal et al., "Accurate, Large Minibatch SGD" (2017) for the warmup; Loshchilov and
Hutter, "SGDR" (2017) for the cosine; Pascanu et al., "On the difficulty of training recurrent
neural networks" (2013) for clipping by the norm.
Shapes: B batch, T time; N the length of a corpus in tokens.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from p05_gpt.build import evaluate, get_batch, loss

# 1. The learning-rate schedule


def lr_at(step: int, *, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int) -> float:
    """The learning rate of `step`, counted from 0: linear warmup, then half a cosine down.

    The first step has a nonzero rate, and the last step of the warmup has max_lr. The cosine starts
    from max_lr at warmup_steps and reaches min_lr at total_steps; the rate stays there.

    >>> [lr_at(s, max_lr=8.0, min_lr=2.0, warmup_steps=4, total_steps=8) for s in (0, 3, 4, 6, 9)]
    [2.0, 8.0, 8.0, 5.0, 2.0]
    """
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    if step >= total_steps:
        return min_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)  # 0 to 1
    return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


# 2. Gradient clipping


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients by one factor, in place, so that their joint norm is at most max_norm.

    Returns the norm before clipping, 0.0 if no parameter has a gradient. If it is infinite or NaN,
    the gradients stay unchanged, and the caller should skip the step.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        return 0.0
    norm = torch.stack([grad.norm() for grad in grads]).norm().item()  # of all gradients as one
    if max_norm < norm < math.inf:
        for grad in grads:
            grad.mul_(max_norm / norm)
    return norm


# 3. A crash-safe checkpoint


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write `state` atomically: after a crash `path` holds all of it, or its previous content.

    The file is a SHA-256 checksum (32 bytes) and the content, as torch.save writes it. Raises
    OSError if it cannot be written.
    """
    path, buffer = Path(path), io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    partial = path.with_name(f".{path.name}.partial")  # same folder, so that replace is one step
    with open(partial, "wb") as file:
        file.write(hashlib.sha256(content).digest() + content)
        file.flush()  # out of Python's buffer
        os.fsync(file.fileno())  # out of the system's cache, before the name is given
    os.replace(partial, path)


# 4. Reading it back


def load_checkpoint(path: str | Path) -> dict:
    """Read what save_checkpoint wrote, onto the CPU, without running any code in the file.

    Raises ValueError for a file that was truncated, changed or extended, or is not a checkpoint.
    """
    file = Path(path).read_bytes()
    checksum, content = file[:32], file[32:]
    if hashlib.sha256(content).digest() != checksum:
        raise ValueError(f"{path} is damaged or not a checkpoint: its checksum does not fit")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class Trainer:
    """Trains a language model in one process. Losses are mean nats per token.

    model maps token ids (B, T) to logits (B, T, V). train_ids and val_ids are int64 (N,), on its
    device. recipe has the attributes steps, batch_size (windows), block_size (tokens), accumulate
    (batches a step), max_lr, min_lr, warmup_steps, clip (largest gradient norm), eval_every (steps)
    and seed. Other code calls step, run, state and load_state; only distributed.py, for several
    processes, uses model, optimizer, train_ids, recipe, generator and steps_done as well.
    """

    # 5. One step of training

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        train_ids: torch.Tensor,
        val_ids: torch.Tensor,
        recipe,
    ):
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        self.train_ids = train_ids
        self.val_ids = val_ids
        self.generator = torch.Generator().manual_seed(recipe.seed)  # draws the batches
        self.steps_done = 0

    def step(self) -> dict:
        """Update the weights once; returns a row: step (from 1), train_loss, lr and grad_norm.

        train_loss is that of the step's own windows before the update, grad_norm the norm before
        clipping. If the norm is infinite or NaN, the update is skipped, and the step still counts.
        """
        recipe = self.recipe
        lr = lr_at(
            self.steps_done,
            max_lr=recipe.max_lr,
            min_lr=recipe.min_lr,
            warmup_steps=recipe.warmup_steps,
            total_steps=recipe.steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr

        self.model.train()
        self.optimizer.zero_grad()
        train_loss = 0.0
        for _ in range(recipe.accumulate):
            x, y = get_batch(self.train_ids, recipe.block_size, recipe.batch_size, self.generator)
            part = loss(self.model(x), y) / recipe.accumulate  # the parts add up to the mean
            part.backward()
            train_loss += part.item()

        grad_norm = float(clip_grad_norm(self.model.parameters(), recipe.clip))
        if math.isfinite(grad_norm):  # one bad batch must not end up in the weights
            self.optimizer.step()
        self.steps_done += 1
        return {
            "step": self.steps_done,
            "train_loss": train_loss,
            "lr": lr,
            "grad_norm": grad_norm,
        }

    # 6. The loop

    def run(self) -> Iterator[dict]:
        """Train to the last step; yields each step's row as soon as the step is done.

        Every eval_every steps, and at the last one, the row also has val_loss, over all of val_ids.
        """
        recipe = self.recipe
        while self.steps_done < recipe.steps:
            row = self.step()
            if self.steps_done % recipe.eval_every == 0 or self.steps_done == recipe.steps:
                row["val_loss"] = evaluate(self.model, self.val_ids, recipe.block_size)
            yield row

    # 7. Stop and resume

    def state(self) -> dict:
        """All state that training changes: with it a new process continues the run exactly."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.generator.get_state(),
            "random": torch.get_rng_state(),  # dropout draws from it
            "steps_done": self.steps_done,
        }

    def load_state(self, state: dict) -> None:
        """Restore a state from state()."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["batches"])
        torch.set_rng_state(state["random"])
        self.steps_done = state["steps_done"]
