"""No generator is kept: the batches of a step come from the seed and the step's number."""

import hashlib
import io
import math
import os
import shutil
import tempfile

import torch

from p05_gpt.build import evaluate, get_batch, loss


def lr_at(step, *, max_lr, min_lr, warmup_steps, total_steps):
    """The rate as the smaller of two curves: the rising line and the cosine."""
    if step >= max(total_steps, warmup_steps):
        return min_lr
    line = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    span = max(total_steps - warmup_steps, 1)
    angle = max(0, step - warmup_steps) / span * math.pi
    return line * (min_lr + (max_lr - min_lr) * (math.cos(angle) + 1) / 2)


def clip_grad_norm(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = torch.tensor([torch.linalg.norm(g).item() for g in grads], dtype=torch.float64)
    total = norms.square().sum().sqrt().item()
    if not math.isfinite(total) or total <= max_norm:
        return total
    with torch.no_grad():
        for g in grads:
            g.copy_(g * (max_norm / total))
    return total


def save_checkpoint(path, state):
    path = os.fspath(path)
    directory = tempfile.mkdtemp(prefix=".saving-", dir=os.path.dirname(path) or ".")
    try:
        inner = os.path.join(directory, "state.pt")
        torch.save(state, inner)
        with open(inner, "rb") as f:
            content = f.read()
        outer = os.path.join(directory, "sealed")
        with open(outer, "xb") as f:
            f.write(hashlib.sha512(content).digest() + content)
            f.flush()
            os.fsync(f)
        os.replace(outer, path)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def load_checkpoint(path):
    with open(path, "rb") as f:
        digest = f.read(64)
        content = f.read()
    if hashlib.sha512(content).digest() != digest:
        raise RuntimeError(f"{path}: checksum mismatch")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class Trainer:
    def __init__(self, model, optimizer, train_ids, val_ids, recipe):
        self.model = model
        self.optimizer = optimizer
        self.train_ids, self.val_ids = train_ids, val_ids
        self.recipe = recipe
        self.step_number = 0

    @property
    def steps_done(self):
        return self.step_number

    def batches(self):
        r = self.recipe
        seed = (r.seed * 1_000_003 + self.step_number) % 2**63
        generator = torch.Generator().manual_seed(seed)
        for _ in range(r.accumulate):
            yield get_batch(self.train_ids, r.block_size, r.batch_size, generator)

    def step(self):
        r = self.recipe
        lr = lr_at(
            self.step_number,
            max_lr=r.max_lr,
            min_lr=r.min_lr,
            warmup_steps=r.warmup_steps,
            total_steps=r.steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if not self.model.training:
            self.model.train()
        self.model.zero_grad()
        costs = []
        for x, y in self.batches():
            cost = loss(self.model(x), y)
            (cost / r.accumulate).backward()
            costs.append(cost.item())
        norm = clip_grad_norm(self.model.parameters(), r.clip)
        if math.isfinite(norm):
            self.optimizer.step()
        self.step_number += 1
        mean = sum(costs) / len(costs)
        return {"step": self.step_number, "train_loss": mean, "lr": lr, "grad_norm": norm}

    def run(self):
        r = self.recipe
        for n in range(self.step_number, r.steps):
            row = self.step()
            if (n + 1) % r.eval_every == 0 or n + 1 == r.steps:
                row["val_loss"] = evaluate(self.model, self.val_ids, r.block_size)
            yield row

    def state(self):
        return {
            "step": self.step_number,
            "model": {k: v.detach().clone() for k, v in self.model.state_dict().items()},
            "optimizer": frozen(self.optimizer.state_dict()),
            "rng": torch.get_rng_state(),
        }

    def load_state(self, state):
        self.step_number = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(frozen(state["optimizer"]))
        torch.set_rng_state(state["rng"])


def frozen(state_dict):
    """A copy by way of the bytes."""
    f = io.BytesIO()
    torch.save(state_dict, f)
    f.seek(0)
    return torch.load(f, weights_only=True)
