"""A zip file as the container, compared with its own repacking; a LambdaLR drives the rate."""

import copy
import io
import math
import os
import pathlib
import zipfile

import torch
from torch.optim.lr_scheduler import LambdaLR

import p05_gpt.build as gpt
from p05_gpt.build import evaluate, get_batch


def lr_at(step, *, max_lr, min_lr, warmup_steps, total_steps):
    warmup = max_lr * min(1, (step + 1) / warmup_steps) if warmup_steps else max_lr
    if step < warmup_steps:
        return warmup
    length = max(1, total_steps - warmup_steps)
    done = min(1.0, (step - warmup_steps) / length) if step < total_steps else 1.0
    weight = 0.5 + 0.5 * math.cos(math.pi * done)
    return weight * max_lr + (1 - weight) * min_lr


def clip_grad_norm(parameters, max_norm):
    grads = []
    for p in parameters:
        if p.grad is not None:
            grads.append(p.grad.detach())
    squares = sum((g.double() ** 2).sum() for g in grads) if grads else torch.zeros(())
    norm = torch.sqrt(squares)
    if torch.isfinite(norm):
        factor = (max_norm / norm.clamp(min=1e-300)).clamp(max=1.0)
        for g in grads:
            g.mul_(factor.item())
    return norm


MEMBER = "state.pt"


def pack(content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        z.writestr(zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0)), content)
    return out.getvalue()


def save_checkpoint(path, state):
    content = io.BytesIO()
    torch.save(state, content)
    path = pathlib.Path(path)
    temporary = path.parent / ("." + path.name + ".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0))
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(pack(content.getvalue()))
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


def load_checkpoint(path):
    raw = pathlib.Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as z:
            content = z.read(MEMBER)
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint: {error}") from None
    if pack(content) != raw:
        raise ValueError(f"{path}: something was changed or added")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class Trainer:
    def __init__(self, model, optimizer, train_ids, val_ids, recipe):
        self.model = model
        self.optimizer = optimizer
        self.train_ids = train_ids
        self.val_ids = val_ids
        self.recipe = recipe
        self.batches = torch.Generator().manual_seed(recipe.seed)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = 1.0  # the lambda gives the rate itself
        self.scheduler = LambdaLR(optimizer, self.rate)
        self.steps_done = 0

    def rate(self, step):
        return lr_at(
            step,
            max_lr=self.recipe.max_lr,
            min_lr=self.recipe.min_lr,
            warmup_steps=self.recipe.warmup_steps,
            total_steps=self.recipe.steps,
        )

    def step(self):
        """All the sequences of a step are drawn at once and go through the model in turns."""
        r = self.recipe
        self.model.train()
        xs, ys = get_batch(self.train_ids, r.block_size, r.batch_size * r.accumulate, self.batches)
        mean = 0.0
        for x, y in zip(xs.chunk(r.accumulate), ys.chunk(r.accumulate)):
            cost = gpt.loss(self.model(x), y)
            cost.backward(torch.tensor(1 / r.accumulate))
            mean += cost.item() / r.accumulate
        norm = clip_grad_norm(self.model.parameters(), r.clip).item()
        lr = self.scheduler.get_last_lr()[0]
        if norm == norm and norm != math.inf:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.steps_done += 1
        return {"step": self.steps_done, "train_loss": mean, "lr": lr, "grad_norm": norm}

    def run(self):
        r = self.recipe
        while self.steps_done < r.steps:
            row = self.step()
            if row["step"] % r.eval_every == 0 or row["step"] == r.steps:
                row["val_loss"] = evaluate(self.model, self.val_ids, r.block_size)
            yield row

    def state(self):
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.scheduler.last_epoch,
                "batches": self.batches.get_state(),
                "global": torch.get_rng_state(),
            }
        )

    def load_state(self, state):
        state = copy.deepcopy(state)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_done = self.scheduler.last_epoch = state["schedule"]
        self.scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        self.batches.set_state(state["batches"])
        torch.set_rng_state(state["global"])
