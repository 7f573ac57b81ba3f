"""Project 5: a GPT in twenty lines."""

import p01_autograd.lab.quick_torch  # noqa: F401  isort: skip

from .build import GPT, Block, evaluate, get_batch, loss
from .init import init_weights
from .sampling import generate, next_token


def on_our_tensors():
    """A copy of p05_gpt.build on project 2: a module whose GPT, Block and loss use its tensors.

    Project 2 is imported only when this is called.
    """
    from .engine import on_our_tensors

    return on_our_tensors()


__all__ = [
    "GPT",
    "Block",
    "evaluate",
    "generate",
    "get_batch",
    "init_weights",
    "loss",
    "next_token",
    "on_our_tensors",
]
