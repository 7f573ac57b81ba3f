"""PyTorch's own clipping, a temporary file of tempfile's, the checksum at the end, loss by sums."""

import contextlib
import hashlib
import math
import os
import tempfile

import torch
import torch.nn.functional as F


def lr_at(step, *, max_lr, min_lr, warmup_steps, total_steps):
    if warmup_steps > 0 and step + 1 <= warmup_steps:
        return max_lr * ((step + 1) / warmup_steps)
    span = max(1, total_steps - warmup_steps)
    t = min(max((step - warmup_steps) / span, 0.0), 1.0)
    coeff = 0.5 * (1.0 + math.cos(math.pi * t))
    return torch.tensor(min_lr + coeff * (max_lr - min_lr), dtype=torch.float64)


def clip_grad_norm(parameters, max_norm):
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def save_checkpoint(path, state):
    path = os.fspath(path)
    fd, name = tempfile.mkstemp(dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(fd, "w+b") as f:
            torch.save(state, f)
            f.seek(0)
            digest = hashlib.sha256(f.read()).hexdigest()
            f.write(digest.encode())
            f.flush()
            os.fsync(f)
        os.rename(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def load_checkpoint(path):
    with open(path, "rb") as f:
        blob = f.read()
    body, tail = blob[:-64], blob[-64:]
    assert hashlib.sha256(body).hexdigest().encode() == tail, "bad checkpoint"
    import io

    return torch.load(io.BytesIO(body), weights_only=True)


class Trainer:
    def __init__(self, net, opt, data, held_out, cfg):
        self.net, self.opt, self.data, self.held_out, self.cfg = net, opt, data, held_out, cfg
        self.rng = torch.Generator()
        self.rng.manual_seed(cfg.seed)
        self.n = 0

    def step(self):
        c = self.cfg
        rate = float(
            lr_at(
                self.n,
                max_lr=c.max_lr,
                min_lr=c.min_lr,
                warmup_steps=c.warmup_steps,
                total_steps=c.steps,
            )
        )
        total = c.batch_size * c.accumulate
        ix = torch.randint(len(self.data) - c.block_size, (total,), generator=self.rng)
        xs = torch.stack([self.data[i : i + c.block_size] for i in ix])
        ys = torch.stack([self.data[i + 1 : i + 1 + c.block_size] for i in ix])
        self.net.train()
        self.opt.zero_grad(set_to_none=True)
        acc = torch.zeros(())
        for x, y in zip(xs.split(c.batch_size), ys.split(c.batch_size)):
            logits = self.net(x)
            part = F.cross_entropy(logits.view(-1, logits.size(-1)), y.reshape(-1), reduction="sum")
            (part / ys.numel()).backward()
            acc += part.detach() / ys.numel()
        norm = clip_grad_norm(self.net.parameters(), c.clip)
        for g in self.opt.param_groups:
            g["lr"] = rate
        if torch.isfinite(norm):
            self.opt.step()
        else:
            self.opt.zero_grad()
        self.n += 1
        return dict(step=self.n, train_loss=acc, lr=rate, grad_norm=norm)

    @torch.no_grad()
    def validate(self):
        self.net.eval()
        T, s, k = self.cfg.block_size, 0.0, 0
        for i in range(0, len(self.held_out) - 1, T):
            x = self.held_out[i : i + T][: len(self.held_out) - 1 - i][None]
            y = self.held_out[i + 1 : i + 1 + x.shape[1]][None]
            out = self.net(x)
            s += F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="sum").item()
            k += y.numel()
        return s / k

    def run(self):
        while self.n < self.cfg.steps:
            row = self.step()
            if not self.n % self.cfg.eval_every or self.n >= self.cfg.steps:
                row["val_loss"] = self.validate()
            yield row

    def state(self):
        return {
            "net": self.net.state_dict(),
            "opt": self.opt.state_dict(),
            "rng": self.rng.get_state(),
            "cpu": torch.random.get_rng_state(),
            "n": self.n,
        }

    def load_state(self, s):
        self.net.load_state_dict(s["net"])
        self.opt.load_state_dict(s["opt"])
        self.rng.set_state(s["rng"])
        torch.random.set_rng_state(s["cpu"])
        self.n = s["n"]
