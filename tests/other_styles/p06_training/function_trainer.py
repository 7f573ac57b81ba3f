"""Closures: Trainer is a function, seed and step give the batch, one forward for all, a zip."""

import hashlib
import io
import math
import os
import pathlib
import types
import zipfile

import torch

from p05_gpt.build import evaluate, loss


def lr_at(step, *, max_lr, min_lr, warmup_steps, total_steps):
    return (
        max_lr * (step + 1) / warmup_steps
        if step < warmup_steps
        else min_lr
        if step >= total_steps
        else (max_lr + min_lr) / 2
        + (max_lr - min_lr)
        / 2
        * math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps))
    )


def clip_grad_norm(parameters, max_norm):
    gs = [p.grad for p in list(parameters) if p.grad is not None]
    norm = sum(float(g.pow(2).sum()) for g in gs) ** 0.5
    if not math.isfinite(norm):
        for g in gs:
            g.zero_()
    elif norm > max_norm:
        for g in gs:
            g.div_(norm / max_norm)
    return norm


def save_checkpoint(path, state):
    b = io.BytesIO()
    torch.save(state, b)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("state", b.getvalue())
    blob = out.getvalue()
    blob = hashlib.sha1(blob).hexdigest().encode() + blob
    t = f"{path}.{os.getpid()}~"
    with open(t, "wb") as f:
        f.write(blob)
        f.flush()
        os.fsync(f.fileno())
    os.replace(t, path)


def load_checkpoint(path):
    blob = pathlib.Path(path).read_bytes()
    if hashlib.sha1(blob[40:]).hexdigest().encode() != blob[:40]:
        raise ValueError("x")
    with zipfile.ZipFile(io.BytesIO(blob[40:])) as z:
        return torch.load(io.BytesIO(z.read("state")), map_location="cpu", weights_only=True)


def Trainer(model, optimizer, train_ids, val_ids, recipe):
    self = types.SimpleNamespace(n=0)

    def step():
        g = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.n)
        B, T = recipe.batch_size * recipe.accumulate, recipe.block_size
        i = torch.randint(len(train_ids) - T, (B,), generator=g)[:, None] + torch.arange(T)
        optimizer.zero_grad()
        model.train()
        part = loss(model(train_ids[i]), train_ids[i + 1])
        part.backward()
        norm = clip_grad_norm(model.parameters(), recipe.clip)
        lr = lr_at(
            self.n,
            max_lr=recipe.max_lr,
            min_lr=recipe.min_lr,
            warmup_steps=recipe.warmup_steps,
            total_steps=recipe.steps,
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        if norm < float("inf"):
            optimizer.step()
        self.n += 1
        return {"step": self.n, "train_loss": part.item(), "lr": lr, "grad_norm": norm}

    def run():
        while self.n < recipe.steps:
            row = step()
            if self.n % recipe.eval_every == 0 or self.n == recipe.steps:
                row["val_loss"] = evaluate(model, val_ids, recipe.block_size)
            yield row

    def state():
        return {
            "a": model.state_dict(),
            "b": optimizer.state_dict(),
            "c": self.n,
            "d": torch.get_rng_state(),
        }

    def load_state(s):
        model.load_state_dict(s["a"])
        optimizer.load_state_dict(s["b"])
        self.n = s["c"]
        torch.set_rng_state(s["d"])

    self.step, self.run, self.state, self.load_state = step, run, state, load_state
    return self
