"""Global random numbers draw the batches, LambdaLR has the schedule, a context manager writes."""

import contextlib
import hashlib
import io
import math
import os
import pathlib
import shutil

import torch
from torch.optim.lr_scheduler import LambdaLR


def lr_at(step, *, max_lr, min_lr, warmup_steps, total_steps):
    warm = max_lr * (step + 1) / max(warmup_steps, 1)
    done = min(1.0, max(0.0, (step - warmup_steps) / max(total_steps - warmup_steps, 1)))
    cos = min_lr + 0.5 * (max_lr - min_lr) * (1 + math.cos(done * math.pi))
    return warm if step < warmup_steps else cos


def clip_grad_norm(parameters, max_norm):
    parameters = list(parameters)
    sq = sum((p.grad.double() ** 2).sum() for p in parameters if p.grad is not None)
    norm = math.sqrt(float(sq)) if math.isfinite(float(sq)) else math.nan
    if norm > max_norm:
        for p in parameters:
            if p.grad is not None:
                p.grad = p.grad * (max_norm / norm)
    return norm


@contextlib.contextmanager
def atomically(path):
    path = pathlib.Path(path)
    temporary = path.parent / (path.stem + "-writing" + path.suffix)
    with open(temporary, "wb", buffering=0) as f:
        yield f
        os.fsync(f.fileno())
    shutil.move(temporary, path)


def save_checkpoint(path, state):
    with atomically(path) as f:
        buf = io.BytesIO()
        torch.save(state, buf)
        f.write(b"CKPT" + hashlib.md5(buf.getbuffer()).digest())
        f.write(buf.getbuffer())


def load_checkpoint(path):
    with open(path, "rb") as f:
        assert f.read(4) == b"CKPT"
        h, content = f.read(16), f.read()
    if h != hashlib.md5(content).digest():
        raise SystemError("nope")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class Trainer:
    def __init__(self, model, optimizer, train_ids, val_ids, recipe):
        self.model, self.optimizer, self.recipe = model, optimizer, vars(recipe)
        self.train_ids, self.val_ids = train_ids, val_ids
        self.fresh = True
        for g in optimizer.param_groups:
            g["lr"] = g["initial_lr"] = 1.0
        R = self.recipe
        self.sched = LambdaLR(
            optimizer,
            lambda s: lr_at(
                s,
                max_lr=R["max_lr"],
                min_lr=R["min_lr"],
                warmup_steps=R["warmup_steps"],
                total_steps=R["steps"],
            ),
        )

    def get(self):
        if self.fresh:
            self.fresh = False
            torch.manual_seed(self.recipe["seed"])
        T = self.recipe["block_size"]
        i = torch.randint(
            0, self.train_ids.numel() - T, (self.recipe["batch_size"], 1)
        ) + torch.arange(T + 1)
        w = self.train_ids[i]
        return w[:, :-1], w[:, 1:]

    def step(self):
        self.model.train()
        k = self.recipe["accumulate"]
        losses = []
        self.model.zero_grad()
        for _ in range(k):
            x, y = self.get()
            logp = self.model(x).log_softmax(-1)
            part = -logp.gather(-1, y[..., None]).mean()
            (part / k).backward()
            losses.append(part.item())
        norm = clip_grad_norm(self.model.parameters(), self.recipe["clip"])
        lr = self.optimizer.param_groups[0]["lr"]
        if math.isfinite(norm):
            self.optimizer.step()
        self.sched.step()
        return {
            "step": self.sched.last_epoch,
            "train_loss": sum(losses) / k,
            "lr": lr,
            "grad_norm": norm,
            "extra": 1.0,
        }

    def run(self):
        R = self.recipe
        while True:
            if self.sched.last_epoch >= R["steps"]:
                return
            row = self.step()
            s = row["step"]
            if s % R["eval_every"] == 0 or s == R["steps"]:
                from p05_gpt.build import evaluate

                row["val_loss"] = evaluate(self.model, self.val_ids, R["block_size"])
            yield row

    def state(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "last": self.sched.last_epoch,
            "fresh": self.fresh,
            "rng": torch.get_rng_state(),
        }

    def load_state(self, s):
        self.model.load_state_dict(s["model"])
        self.optimizer.load_state_dict(s["optimizer"])
        self.sched.last_epoch = s["last"]
        self.fresh = s["fresh"]
        torch.set_rng_state(s["rng"])
