"""Project 5: a GPT in twenty lines."""

from .build import (
    GPT,
    Block,
    evaluate,
    generate,
    get_batch,
    init_weights,
    loss,
    next_token,
)

__all__ = [
    "GPT",
    "Block",
    "evaluate",
    "generate",
    "get_batch",
    "init_weights",
    "loss",
    "next_token",
]
