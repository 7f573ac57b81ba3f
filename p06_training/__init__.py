"""Project 6: the training loop that survives contact."""

import p01_autograd.lab.threads  # noqa: F401  isort: skip

from .build import (
    CheckpointError,
    Trainer,
    clip_grad_norm,
    load_checkpoint,
    lr_at,
    save_checkpoint,
)

__all__ = [
    "CheckpointError",
    "Trainer",
    "clip_grad_norm",
    "load_checkpoint",
    "lr_at",
    "save_checkpoint",
]
