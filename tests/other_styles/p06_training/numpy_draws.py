"""NumPy draws the windows, autograd.grad instead of backward, rates from a table."""

import hashlib
import io
import json
import os
import pathlib

import numpy as np
import torch

from p05_gpt.build import evaluate


def lr_at(step, *, max_lr, min_lr, warmup_steps, total_steps):
    if step >= total_steps:
        return np.float64(min_lr)
    xs = np.linspace(0, np.pi, total_steps - warmup_steps + 1)
    curve = (np.cos(xs) + 1) / 2 * (max_lr - min_lr) + min_lr
    ramp = np.arange(1, warmup_steps + 1) * max_lr / warmup_steps if warmup_steps else np.zeros(0)
    return np.concatenate([ramp, curve])[step]


def clip_grad_norm(parameters, max_norm):
    ps = [p for p in parameters if p.grad is not None]
    v = torch.cat([p.grad.reshape(-1) for p in ps]) if ps else torch.zeros(1)
    norm = v.norm()
    scale = min(1.0, max_norm / (norm.item() + 1e-12))
    with torch.no_grad():
        for p in ps:
            p.grad.copy_(p.grad * scale)
    return norm


def save_checkpoint(path, state):
    unfinished = os.path.join(os.path.dirname(str(path)), "unfinished")
    with open(unfinished, "wb") as f:
        torch.save(state, f)
    with open(unfinished, "rb") as f:
        h = hashlib.blake2b(f.read(), digest_size=20)
    with open(unfinished, "ab") as f:
        f.write(h.digest())
        f.flush()
        os.fdatasync(f.fileno())
    os.replace(unfinished, path)


def load_checkpoint(path):
    raw = pathlib.Path(path).read_bytes()
    if len(raw) < 20 or hashlib.blake2b(raw[:-20], digest_size=20).digest() != raw[-20:]:
        raise Exception("checkpoint is broken")
    return torch.load(io.BytesIO(raw[:-20]), map_location="cpu", weights_only=True)


class Trainer:
    def __init__(self, model, optimizer, train_ids, val_ids, recipe):
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        self.data = train_ids.numpy()
        self.val = val_ids
        self.draw = np.random.default_rng(recipe.seed)
        self.count = 0

    def batch(self):
        T = self.recipe.block_size
        at = self.draw.integers(0, len(self.data) - T, self.recipe.batch_size)
        w = np.stack([self.data[a : a + T + 1] for a in at])
        return torch.from_numpy(w[:, :-1].copy()), torch.from_numpy(w[:, 1:].copy())

    def step(self):
        r, m = self.recipe, self.model
        m.train(True)
        self.count += 1
        lr = lr_at(
            self.count - 1,
            max_lr=r.max_lr,
            min_lr=r.min_lr,
            warmup_steps=r.warmup_steps,
            total_steps=r.steps,
        )
        total, grads = 0, None
        for _ in range(r.accumulate):
            x, y = self.batch()
            out = m(x)
            part = torch.nn.functional.nll_loss(out.log_softmax(2).transpose(1, 2), y)
            g = torch.autograd.grad(part, list(m.parameters()))
            grads = g if grads is None else [a + b for a, b in zip(grads, g)]
            total += part.item() / r.accumulate
        for p, g in zip(m.parameters(), grads):
            p.grad = g / r.accumulate
        norm = clip_grad_norm(m.parameters(), r.clip)
        row = {"step": self.count, "train_loss": total, "lr": lr, "grad_norm": norm}
        if not np.isfinite(norm.item()):
            return row
        for g in self.optimizer.param_groups:
            g["lr"] = float(lr)
        self.optimizer.step()
        return row

    def run(self):
        while self.count != self.recipe.steps:
            row = self.step()
            if self.count % self.recipe.eval_every == 0 or self.count == self.recipe.steps:
                row["val_loss"] = evaluate(self.model, self.val, self.recipe.block_size)
            yield row

    def state(self):
        s = {f"w.{k}": v for k, v in self.model.state_dict().items()}
        return s | {
            "opt": self.optimizer.state_dict(),
            "np": json.dumps(self.draw.bit_generator.state),
            "torch": torch.get_rng_state(),
            "count": self.count,
        }

    def load_state(self, s):
        self.model.load_state_dict({k[2:]: v for k, v in s.items() if k.startswith("w.")})
        self.optimizer.load_state_dict(s["opt"])
        self.draw.bit_generator.state = json.loads(s["np"])
        torch.set_rng_state(s["torch"])
        self.count = s["count"]
