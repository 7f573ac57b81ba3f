"""A run's checkpoints: keep the newest three, find the newest good one, report damage in a line.

Built on save_checkpoint and load_checkpoint of the listing, or of a reader's own.
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
    """A file that is not a whole, unchanged checkpoint of this run; one readable line."""


def save_checkpoint(path: str | Path, state: dict) -> None:
    """As in the listing; a file that is locked for a moment is tried again.

    Raises OSError if it cannot be written: then the earlier file is kept and nothing unfinished is
    left behind.
    """
    path = Path(path)
    try:
        retry_while_locked(lambda: build.save_checkpoint(path, state), path)
    except BaseException:
        remove_unfinished(path.parent)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk; Windows does so by itself."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove the files of saves that were interrupted."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict:
    """As in the listing; raises CheckpointError if the file cannot be loaded, for any reason."""
    try:
        state = build.load_checkpoint(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path} holds more than tensors and numbers; not loaded") from None
    except Exception as error:  # of a reader's own listing: any kind
        reason = first_line(error)
        raise CheckpointError(reason if str(path) in reason else f"{path}: {reason}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} does not hold a dictionary")
    return state


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def save_newest(folder: Path, step: int, state: dict, keep: int = KEPT) -> Path:
    """Write step_NNNNNNN.pt into `folder` and remove all but the newest `keep` up to it."""
    path = folder / f"step_{step:07d}.pt"
    save_checkpoint(path, state)
    older = sorted(other for other in folder.glob("step_*.pt") if other.name <= path.name)
    for other in older[:-keep]:
        retry_while_locked(other.unlink, other)
    return path


def resume_newest(folder: Path, load_state: Callable[[dict], None]) -> tuple[Path, list[str]]:
    """Load the newest checkpoint that is good; returns its path and what was wrong with newer ones.

    load_state raises CheckpointError for a state that it cannot use. Raises CheckpointError if no
    checkpoint is good.
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
