"""The training loop that survives contact: a schedule, a leash, a safe place, and the loop.

Sources: Goyal et al., "Accurate, Large Minibatch SGD" (2017) for the warmup; Loshchilov and
Hutter, "SGDR" (2017) for the cosine; Pascanu et al., "On the difficulty of training recurrent
neural networks" (2013) for clipping by the norm.
Shapes: B batch, T time; N the length of a corpus in tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import distributed, nn

from p05_gpt.build import evaluate, get_batch, loss


def lr_at(step: int, *, max_lr: float, min_lr: float, warmup_steps: int, total_steps: int) -> float:
    """The learning rate of `step`, counted from 0: a straight line up, then half a cosine down.

    The first step already learns, the last of the warmup has max_lr; the cosine leaves max_lr at
    warmup_steps and reaches min_lr at total_steps, where it stays.

    >>> [lr_at(s, max_lr=8.0, min_lr=2.0, warmup_steps=4, total_steps=8) for s in (0, 3, 4, 6, 9)]
    [2.0, 8.0, 8.0, 5.0, 2.0]
    """
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    if step >= total_steps:
        return min_lr
    done = (step - warmup_steps) / (total_steps - warmup_steps)  # 0 to 1
    return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients together, in place, so that their joint norm is at most max_norm.

    Returns the norm as it was before. Shorter gradients are left as they are, parameters without
    a gradient do not count. A norm that is infinite or NaN has no direction to keep: it is
    returned and the gradients stay, so that the caller can skip the step.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        return 0.0
    norm = torch.stack([grad.norm() for grad in grads]).norm().item()  # of all of them as one
    if max_norm < norm < math.inf:
        for grad in grads:
            grad.mul_(max_norm / norm)
    return norm


class CheckpointError(ValueError):
    """A file that is not a whole, unchanged checkpoint of this project; one readable line."""


HEADER = b"p06_training checkpoint, format 1\n"


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write `state` so that `path` holds all of it or what it held before, even without power.

    The file: HEADER, the SHA-256 of the rest in hexadecimal and a newline, then torch.save's
    bytes. Raises OSError when the disk is full.
    """
    path, buffer = Path(path), io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    partial = path.with_name(f".{path.name}.partial")  # same folder: renaming cannot half happen
    try:
        with open(partial, "wb") as file:
            file.write(HEADER + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            file.flush()  # out of Python
            os.fsync(file.fileno())  # and out of the system's memory, before the name is given
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder; Windows does so by itself."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load_checkpoint(path: str | Path) -> dict:
    """Read what save_checkpoint wrote, onto the CPU; no code from the file is ever run.

    Raises CheckpointError for a file that is missing, cut short, changed, extended or foreign.
    """
    try:
        file = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if not file.startswith(HEADER):
        raise CheckpointError(f"{path} is damaged, or not a checkpoint of this project")
    checksum, content = file[len(HEADER) :][:64], file[len(HEADER) + 65 :]
    if file[len(HEADER) + 64 :][:1] != b"\n" or (
        checksum != hashlib.sha256(content).hexdigest().encode()
    ):
        raise CheckpointError(f"{path} is damaged: its checksum does not fit its content")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # a pickle raises whatever it likes
        raise CheckpointError(f"{path} holds more than tensors and numbers; not loaded") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} does not hold a dictionary")
    return state


# A run may be continued elsewhere: these may differ from one part of it to the next.
MAY_DIFFER = {"data", "device", "threads", "torch_version", "checkpoint_every"}


class Trainer:
    """Trains `model` by `recipe`, a step at a time; state() is all of it that moves.

    recipe: an object with the attributes steps, batch_size, block_size, accumulate, max_lr,
    min_lr, warmup_steps, clip, eval_every and seed. A step's batch is batch_size * accumulate
    windows. Under torch.distributed every process takes its share of that batch; `parallel` is
    then the model in its DistributedDataParallel wrapper.
    """

    def __init__(self, model, optimizers, train_ids, val_ids, recipe, parallel=None):
        self.model, self.optimizers, self.recipe = model, optimizers, recipe
        self.parallel = parallel or model
        self.train_ids = train_ids  # (N,)
        self.val_ids = val_ids.to(next(model.parameters()).device)
        self.rank, self.processes = 0, 1
        if parallel is not None:
            self.rank, self.processes = distributed.get_rank(), distributed.get_world_size()
        self.generator = torch.Generator().manual_seed(recipe.seed)  # draws the batches
        self.steps_done, self.skipped, self.in_a_row = 0, 0, 0
        self.best_loss, self.seconds = math.inf, 0.0
        self.metrics: list[dict] = []  # a row for each step, as in metrics.jsonl
        self.warned: set[str] = set()

    def run(self, stop=lambda: False) -> Iterator[dict]:
        """Train to the last step; yields a row for each. Ends early once stop() is true."""
        start = time.perf_counter() - self.seconds
        while self.steps_done < self.recipe.steps and not self.agree(stop()):
            row = self.step()
            last = self.steps_done == self.recipe.steps
            if self.rank == 0 and (last or self.steps_done % self.recipe.eval_every == 0):
                row["val_loss"] = evaluate(self.model, self.val_ids, self.recipe.block_size)
            self.seconds = time.perf_counter() - start
            row["seconds"] = round(self.seconds, 4)
            self.metrics.append(row)
            yield row

    def step(self) -> dict:
        """One update of the weights from one batch; returns its numbers."""
        recipe = self.recipe
        lr = lr_at(
            self.steps_done,
            max_lr=recipe.max_lr,
            min_lr=recipe.min_lr,
            warmup_steps=recipe.warmup_steps,
            total_steps=recipe.steps,
        )
        self.model.train()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        train_loss = self.backward()
        grad_norm = float(clip_grad_norm(self.model.parameters(), recipe.clip))
        if math.isfinite(grad_norm):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = float(lr * group.get("lr_factor", 1.0))
                optimizer.step()
            self.in_a_row = 0
        else:  # one bad batch must not end up in the weights
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        self.steps_done += 1
        return {
            "step": self.steps_done,
            "seconds": 0.0,
            "train_loss": train_loss,
            "lr": lr,
            "grad_norm": grad_norm,
        }

    def backward(self) -> float:
        """Add up the gradients of a batch, part by part; returns its mean loss."""
        B, device = self.recipe.batch_size * self.recipe.accumulate, self.val_ids.device
        x, y = get_batch(self.train_ids, self.recipe.block_size, B, self.generator)  # (B, T)
        mine = slice(self.rank, None, self.processes)  # all draw the same batch and share it out
        at_once = math.ceil(self.recipe.batch_size / self.processes)
        parts = list(zip(x[mine].split(at_once), y[mine].split(at_once), strict=True))
        total = 0.0
        for i, (x, y) in enumerate(parts, 1):
            wait = self.processes > 1 and i < len(parts)  # the last part exchanges the gradients
            with self.parallel.no_sync() if wait else contextlib.nullcontext():
                part = loss(self.parallel(x.to(device)), y.to(device)) * (len(x) / B)
                (part * self.processes).backward()  # since the exchange takes the mean
            total += part.item()
        return self.sum_over_processes(total)

    def sum_over_processes(self, number: float) -> float:
        if self.processes == 1:
            return number
        total = torch.tensor([number], dtype=torch.float64, device=self.val_ids.device)
        distributed.all_reduce(total)
        return total.item()

    def agree(self, stop: bool) -> bool:
        """True in all processes if it is in one: none must wait for another that has left."""
        return self.sum_over_processes(float(stop)) > 0

    def warnings(self) -> list:
        """What the doctor finds in the curve so far and has not been said before."""
        from .doctor import diagnose  # only here: the doctor is a command of its own

        new = [finding for finding in diagnose(self.metrics) if finding.name not in self.warned]
        self.warned |= {finding.name for finding in new}
        return new

    def state(self) -> dict:
        """Everything that moves, and the recipe it moves by."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "batches": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
            "steps_done": self.steps_done,
            "skipped": (self.skipped, self.in_a_row),
            "best_loss": self.best_loss,
            "seconds": self.seconds,
            "recipe": dict(vars(self.recipe)),
        }

    def load_state(self, state: dict) -> None:
        """Go on exactly where state() was taken; a CheckpointError if it is not of this run."""
        try:
            theirs, ours = state["recipe"], vars(self.recipe)
            other = [key for key in ours if key not in MAY_DIFFER and theirs[key] != ours[key]]
            if other:
                raise CheckpointError(f"it is of another run: {', '.join(other)} differ")
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.generator.set_state(state["batches"])
            self.steps_done, self.best_loss = state["steps_done"], state["best_loss"]
            self.skipped, self.in_a_row = state["skipped"]
            self.seconds = state["seconds"]
            torch.set_rng_state(state["random"])
            if self.rank > 0:  # the others' dropout must not repeat the first one's
                torch.manual_seed(self.recipe.seed + self.steps_done * self.processes + self.rank)
            elif len(state["random_cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["random_cuda"])
        except CheckpointError:
            raise
        except Exception as error:  # whatever a missing or misshapen part makes torch raise
            reason = str(error).split("\n")[0]
            raise CheckpointError(f"it does not fit this run ({reason})") from None

    def save(self, folder: Path, keep: int = 3) -> Path:
        """Write step_NNNNNNN.pt into `folder` and let go of all but the newest `keep`."""
        path = folder / f"step_{self.steps_done:07d}.pt"
        save_checkpoint(path, self.state())
        older = sorted(other for other in folder.glob("step_*.pt") if other.name <= path.name)
        for other in older[:-keep]:
            other.unlink()
        return path

    def resume(self, folder: Path) -> tuple[Path, list[str]]:
        """Continue from the newest good checkpoint; returns it and what was wrong with newer ones.

        Raises CheckpointError when there is none.
        """
        complaints = []
        for path in [*sorted(folder.glob("step_*.pt"), reverse=True), folder / "best.pt"]:
            try:
                self.load_state(load_checkpoint(path))
                return path, complaints
            except CheckpointError as error:
                if path.exists():
                    complaints.append(f"{path.name}: {error}")
        raise CheckpointError("; ".join(complaints) or f"there is no checkpoint in {folder}")
