"""A context manager for the atomic write, a BLAKE2 trailer; gradients are divided afterwards."""

import hashlib
import hmac
import io
import os
from contextlib import contextmanager
from math import cos, inf, pi
from pathlib import Path

import torch
import torch.nn.functional as F

from p05_gpt.build import evaluate, get_batch

MAGIC = b"GPTCKPT1"


def lr_at(step: int, *, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int) -> float:
    match step:
        case _ if step < warmup_steps:
            return (step + 1) * max_lr / warmup_steps
        case _ if step < total_steps:
            t = (step - warmup_steps) / (total_steps - warmup_steps)
            return (max_lr + min_lr) / 2 + (max_lr - min_lr) / 2 * cos(pi * t)
        case _:
            return min_lr


def clip_grad_norm(parameters, max_norm: float) -> float:
    parameters = [p for p in parameters if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in parameters] or [torch.zeros(1)])
    norm = float(torch.linalg.vector_norm(flat))
    if max_norm < norm < inf:
        for p in parameters:
            p.grad *= max_norm / norm
    return norm


@contextmanager
def replacing(path: Path):
    """A new file that takes the place of `path` once all of it is on the disk."""
    new = path.with_suffix(path.suffix + ".new")
    try:
        with open(new, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def seal(content: bytes) -> bytes:
    return hashlib.blake2b(MAGIC + content).digest()


def save_checkpoint(path, state: dict) -> None:
    file = io.BytesIO()
    torch.save(state, file)
    content = file.getvalue()
    with replacing(Path(path)) as f:
        f.write(MAGIC)
        f.write(content)
        f.write(seal(content))


def load_checkpoint(path) -> dict:
    raw = Path(path).read_bytes()
    if not raw.startswith(MAGIC):
        raise ValueError(f"{path} is something else, not a checkpoint")
    content, trailer = raw[len(MAGIC) : -64], raw[-64:]
    if not hmac.compare_digest(seal(content), trailer):
        raise ValueError(f"{path} is damaged")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class Trainer:
    """The loop, with its parts as methods."""

    __slots__ = (
        "data", "generator", "held_out", "model", "optimizer", "recipe", "skips", "steps_done",
    )  # fmt: skip

    def __init__(self, model, optimizer, train_ids, val_ids, recipe):
        self.model = model
        self.optimizer = optimizer
        self.data = train_ids
        self.held_out = val_ids
        self.recipe = recipe
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.steps_done = 0
        self.skips = 0

    def set_rate(self):
        names = ("max_lr", "min_lr", "warmup_steps")
        settings = {name: getattr(self.recipe, name) for name in names}
        lr = lr_at(self.steps_done, total_steps=self.recipe.steps, **settings)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def gradients(self):
        """Gradients of the mean loss over the micro-batches; returns that mean."""
        r = self.recipe
        for p in self.model.parameters():
            p.grad = None
        costs = []
        for _ in range(r.accumulate):
            x, y = get_batch(self.data, r.block_size, r.batch_size, self.generator)
            cost = F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())
            cost.backward()
            costs.append(cost.detach())
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad.div_(r.accumulate)
        return torch.stack(costs).mean().item()

    def step(self):
        self.model.train(True)
        lr = self.set_rate()
        train_loss = self.gradients()
        norm = clip_grad_norm(self.model.parameters(), self.recipe.clip)
        if -inf < norm < inf:
            self.optimizer.step()
        else:
            self.skips += 1
            print(f"step {self.steps_done + 1}: gradient norm {norm}, skipped")
        self.steps_done += 1
        return {
            "step": self.steps_done,
            "train_loss": train_loss,
            "lr": lr,
            "grad_norm": norm,
        }

    def run(self):
        r = self.recipe
        while self.steps_done < r.steps:
            row = self.step()
            last = self.steps_done == r.steps
            if last or self.steps_done % r.eval_every == 0:
                row |= {"val_loss": evaluate(self.model, self.held_out, r.block_size)}
            yield row

    def state(self):
        """Live references, as state_dict gives them: save it before the next step."""
        return {
            "weights": self.model.state_dict(),
            "moments": self.optimizer.state_dict(),
            "counts": [self.steps_done, self.skips],
            "random": [self.generator.get_state(), torch.get_rng_state()],
        }

    def load_state(self, state):
        self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["moments"])
        self.steps_done, self.skips = state["counts"]
        batches, everything_else = state["random"]
        self.generator.set_state(batches)
        torch.set_rng_state(everything_else)
