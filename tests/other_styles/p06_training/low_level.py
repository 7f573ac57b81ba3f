"""os.open and os.write, a JSON header, foreach clipping, gradients divided after the parts."""

import io
import json
import math
import os
import zlib
from os import fsync as force
from pathlib import Path

import torch

from p05_gpt import evaluate, get_batch
from p05_gpt import loss as lm_loss


def lr_at(step, *, max_lr, min_lr, warmup_steps, total_steps):
    match step:
        case s if s < warmup_steps:
            return max_lr / warmup_steps * (s + 1)
        case s if s < total_steps:
            x = (s - warmup_steps) / (total_steps - warmup_steps)
            return min_lr + (max_lr - min_lr) * math.cos(math.pi * x / 2) ** 2
        case _:
            return min_lr


def clip_grad_norm(parameters, max_norm):
    gs = [p.grad for p in parameters if p.grad is not None]
    if not gs:
        return torch.tensor(0.0)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gs)))
    torch._foreach_mul_(gs, torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    return norm


def save_checkpoint(path, state):
    b = io.BytesIO()
    torch.save(state, b)
    raw = b.getvalue()
    head = json.dumps(
        {"length": len(raw), "crc": zlib.crc32(raw), "adler": zlib.adler32(raw)}
    ).encode()
    tmp = Path(str(path) + ".tmp")
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    view = memoryview(len(head).to_bytes(4, "big") + head + raw)
    while view:
        view = view[os.write(fd, view) :]
    force(fd)
    os.close(fd)
    tmp.replace(path)
    d = os.open(Path(path).parent, os.O_RDONLY)
    force(d)
    os.close(d)


def load_checkpoint(path):
    data = Path(path).read_bytes()
    n = int.from_bytes(data[:4], "big")
    head = json.loads(data[4 : 4 + n])
    raw = data[4 + n :]
    if (
        head != {"length": len(raw), "crc": zlib.crc32(raw), "adler": zlib.adler32(raw)}
        or json.dumps(head).encode() != data[4 : 4 + n]
    ):
        raise RuntimeError("damaged")
    return torch.load(io.BytesIO(raw), map_location=torch.device("cpu"), weights_only=True)


class Trainer:
    def __init__(self, model, optimizer, train_ids, val_ids, recipe):
        self.__dict__.update(
            model=model, optimizer=optimizer, train=train_ids, val=val_ids, r=recipe
        )
        self.gen = torch.Generator().manual_seed(recipe.seed)
        self.i = 0

    def grads(self):
        tot = 0.0
        for _ in range(self.r.accumulate):
            x, y = get_batch(self.train, self.r.block_size, self.r.batch_size, self.gen)
            part = lm_loss(self.model(x), y)
            part.backward()
            tot += float(part)
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad /= self.r.accumulate
        return tot / self.r.accumulate

    def step(self):
        self.model.train()
        r = self.r
        lr = lr_at(
            self.i,
            max_lr=r.max_lr,
            min_lr=r.min_lr,
            warmup_steps=r.warmup_steps,
            total_steps=r.steps,
        )
        [g.update(lr=lr) for g in self.optimizer.param_groups]
        part = self.grads()
        n = clip_grad_norm(self.model.parameters(), r.clip).item()
        if not (math.isnan(n) or math.isinf(n)):
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.i += 1
        return {"step": self.i, "train_loss": part, "lr": lr, "grad_norm": n}

    def run(self):
        for i in range(self.i, self.r.steps):
            row = self.step()
            if (i + 1) % self.r.eval_every == 0 or i + 1 == self.r.steps:
                row = {**row, "val_loss": evaluate(self.model, self.val, self.r.block_size)}
            yield row

    def state(self):
        return {
            "m": self.model.state_dict(),
            "o": self.optimizer.state_dict(),
            "g": self.gen.get_state(),
            "t": torch.get_rng_state(),
            "i": self.i,
        }

    def load_state(self, st):
        self.i = st["i"]
        torch.set_rng_state(st["t"])
        self.gen.set_state(st["g"])
        self.optimizer.load_state_dict(st["o"])
        self.model.load_state_dict(st["m"])
