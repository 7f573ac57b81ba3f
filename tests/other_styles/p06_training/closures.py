"""Lambdas and closures for the schedule; mkstemp; a CRC-32 as the last four bytes of the file."""

import contextlib
import math
import os
import tempfile
import zlib
from io import BytesIO

import torch

from p05_gpt.build import evaluate, get_batch, loss


def warmup_cosine(max_lr, min_lr, warmup_steps, total_steps):
    rising = lambda step: max_lr / warmup_steps * (step + 1)  # noqa: E731
    passed = lambda step: (step - warmup_steps) / (total_steps - warmup_steps)  # noqa: E731
    share = lambda step: math.cos(math.pi / 2 * passed(step)) ** 2  # noqa: E731
    falling = lambda step: min_lr + (max_lr - min_lr) * share(step)  # noqa: E731

    def schedule(step):
        if step < warmup_steps:
            return rising(step)
        return falling(step) if step < total_steps else min_lr

    return schedule


def lr_at(step, **schedule):
    return warmup_cosine(**schedule)(step)


def clip_grad_norm(parameters, max_norm):
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def save_checkpoint(path, state):
    path = os.path.abspath(path)
    data = BytesIO()
    torch.save(state, data)
    data = data.getvalue()
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
            f.write(zlib.crc32(data).to_bytes(4, "little"))
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def load_checkpoint(path):
    with open(path, "rb") as f:
        raw = f.read()
    data, crc = raw[:-4], raw[-4:]
    if len(raw) < 5 or zlib.crc32(data) != int.from_bytes(crc, "little"):
        raise ValueError(f"checkpoint {path} is damaged: its checksum does not fit")
    return torch.load(BytesIO(data), map_location=torch.device("cpu"), weights_only=True)


class Trainer:
    def __init__(self, model, optimizer, train_ids, val_ids, recipe):
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        self.steps_done = 0
        self.generator = torch.Generator()
        self.generator.manual_seed(recipe.seed)
        self.next_batch = lambda: get_batch(
            train_ids, recipe.block_size, recipe.batch_size, self.generator
        )
        self.validate = lambda: evaluate(model, val_ids, recipe.block_size)
        self.rate = warmup_cosine(recipe.max_lr, recipe.min_lr, recipe.warmup_steps, recipe.steps)

    def step(self):
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for _ in range(self.recipe.accumulate):
            x, y = self.next_batch()
            losses.append(loss(self.model(x), y))
            (losses[-1] / self.recipe.accumulate).backward()
        lr = self.rate(self.steps_done)
        for group in self.optimizer.param_groups:
            group.update(lr=lr)
        norm = clip_grad_norm(self.model.parameters(), self.recipe.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.steps_done += 1
        return dict(
            step=self.steps_done,
            train_loss=sum(cost.item() for cost in losses) / len(losses),
            lr=lr,
            grad_norm=float(norm),
        )

    def run(self):
        last = self.recipe.steps
        for number in range(self.steps_done + 1, last + 1):
            row = self.step()
            if number == last or number % self.recipe.eval_every == 0:
                row.update(val_loss=self.validate())
            yield row

    def state(self):
        return dict(
            model={name: t.clone() for name, t in self.model.state_dict().items()},
            optimizer=_cloned(self.optimizer.state_dict()),
            generator=self.generator.get_state(),
            torch_rng=torch.random.get_rng_state(),
            steps_done=self.steps_done,
        )

    def load_state(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(_cloned(state["optimizer"]))
        self.generator.set_state(state["generator"])
        torch.random.set_rng_state(state["torch_rng"])
        self.steps_done = state["steps_done"]


def _cloned(tree):
    if isinstance(tree, torch.Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return {key: _cloned(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_cloned(value) for value in tree]
    return tree
