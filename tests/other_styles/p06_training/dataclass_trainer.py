"""A Trainer that is a dataclass; foreach kernels for clipping; a JSON line before the content."""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from p05_gpt.build import evaluate, get_batch, loss


def lr_at(step, *, max_lr, min_lr, warmup_steps, total_steps):
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    if step >= total_steps:
        return min_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def clip_grad_norm(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return 0.0
    norm = torch.stack(torch._foreach_norm(grads)).norm().item()
    if math.isfinite(norm) and norm > max_norm:
        torch._foreach_mul_(grads, max_norm / norm)
    return norm


def save_checkpoint(path, state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    header = json.dumps({"bytes": len(content), "sha256": digest}).encode() + b"\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as f:
            f.write(header + content)
            f.flush()
            os.fsync(f.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def load_checkpoint(path):
    header, newline, content = Path(path).read_bytes().partition(b"\n")
    want = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if not newline or header != json.dumps(want).encode():
        raise ValueError(f"{path} is not a whole checkpoint")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


@dataclass
class Trainer:
    model: nn.Module
    optimizer: torch.optim.Optimizer
    train_ids: Tensor
    val_ids: Tensor
    recipe: InitVar[Any]
    steps_done: int = 0
    skipped: int = 0
    rng: torch.Generator = field(default_factory=torch.Generator, repr=False)

    def __post_init__(self, recipe):
        self.r = recipe
        self.rng.manual_seed(recipe.seed)

    def _rate(self) -> float:
        r = self.r
        return lr_at(
            self.steps_done,
            max_lr=r.max_lr,
            min_lr=r.min_lr,
            warmup_steps=r.warmup_steps,
            total_steps=r.steps,
        )

    def step(self) -> dict:
        r, lr = self.r, self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        self.optimizer.zero_grad()
        total = 0.0
        for _ in range(r.accumulate):
            x, y = get_batch(self.train_ids, r.block_size, r.batch_size, self.rng)
            part = loss(self.model(x), y) / r.accumulate
            part.backward()
            total += part.item()
        norm = clip_grad_norm(self.model.parameters(), r.clip)
        if math.isfinite(norm):
            self.optimizer.step()
        else:
            self.skipped += 1
        self.steps_done += 1
        return {"step": self.steps_done, "train_loss": total, "lr": lr, "grad_norm": norm}

    def run(self) -> Iterator[dict]:
        while self.steps_done < self.r.steps:
            row = self.step()
            if self.steps_done % self.r.eval_every == 0 or self.steps_done == self.r.steps:
                row["val_loss"] = evaluate(self.model, self.val_ids, self.r.block_size)
            yield row

    def state(self) -> dict:
        buffer = io.BytesIO()  # a copy, so that training on does not change it
        live = {
            "steps_done": self.steps_done,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.rng.get_state(),
            "dropout": torch.get_rng_state(),
        }
        torch.save(live, buffer)
        return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)

    def load_state(self, state: dict) -> None:
        self.steps_done = state["steps_done"]
        self.skipped = state["skipped"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.set_state(state["batches"])
        torch.set_rng_state(state["dropout"])
