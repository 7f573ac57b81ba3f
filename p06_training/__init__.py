"""Project 6: the training loop that survives contact."""

import p01_autograd.lab.quick_torch  # noqa: F401  isort: skip

from .build import clip_grad_norm, lr_at
from .checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from .trainer import Trainer

__all__ = [
    "CheckpointError",
    "Trainer",
    "clip_grad_norm",
    "load_checkpoint",
    "lr_at",
    "save_checkpoint",
]
