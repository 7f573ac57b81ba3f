"""A run's checkpoints: keep the newest three, resume from the newest good one, report damage.

Built on the listing's save_checkpoint and load_checkpoint, or on a reader's own.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

from p03_bpe.corpus import retry_while_locked

from . import build

KEPT = 3  # checkpoints of a run, besides the best one


class CheckpointError(ValueError):
    """Raised for a file that is not an intact checkpoint of this run; its message is one line."""


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write `state` to `path`, atomically and with a checksum; retries while the file is locked.

    Raises OSError if it cannot be written. An earlier file at `path` is then unchanged, and no
    partial file is left behind.
    """
    path = Path(path)
    try:
        retry_while_locked(lambda: build.save_checkpoint(path, state), path)
    except BaseException:
        remove_unfinished(path.parent)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a crash; not needed on Windows."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove the partial files of interrupted saves."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict:
    """Read the state that save_checkpoint wrote, onto the CPU, without running code from the file.

    Raises CheckpointError for a file that is missing, damaged, extended or not a checkpoint.
    """
    try:
        state = build.load_checkpoint(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path} holds more than tensors and numbers; not loaded") from None
    except Exception as error:  # a reader's own listing may raise anything
        reason = first_line(error)
        raise CheckpointError(reason if str(path) in reason else f"{path}: {reason}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} does not hold a dictionary")
    return state


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def save_newest(folder: Path, step: int, state: dict, keep: int = KEPT) -> Path:
    """Write step_NNNNNNN.pt into `folder` and keep only the newest `keep` of the steps up to it.

    Returns the path.
    """
    path = folder / f"step_{step:07d}.pt"
    save_checkpoint(path, state)
    older = sorted(other for other in folder.glob("step_*.pt") if other.name <= path.name)
    for other in older[:-keep]:
        retry_while_locked(other.unlink, other)
    return path


def resume_newest(folder: Path, load_state: Callable[[dict], None]) -> tuple[Path, list[str]]:
    """Load the newest good checkpoint in `folder`, best.pt if no other is good.

    Returns its path and a line for each newer checkpoint that was rejected. load_state should raise
    CheckpointError for a state that it cannot use. Raises CheckpointError if no checkpoint is good.
    """
    complaints = []
    for path in [*sorted(folder.glob("step_*.pt"), reverse=True), folder / "best.pt"]:
        try:
            load_state(load_checkpoint(path))
            return path, complaints
        except CheckpointError as error:
            if path.exists():
                complaints.append(f"{path.name}: {error}")
    raise CheckpointError("; ".join(complaints) or f"there is no checkpoint in {folder}")
