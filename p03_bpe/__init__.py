"""Project 3: byte-level byte-pair encoding."""

import p01_autograd.lab.threads  # noqa: F401  isort: skip

from .build import (
    GPT2_PATTERN,
    GPT4_PATTERN,
    BasicTokenizer,
    CharTokenizer,
    RegexTokenizer,
    get_stats,
    merge,
)

__all__ = [
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "BasicTokenizer",
    "CharTokenizer",
    "RegexTokenizer",
    "get_stats",
    "merge",
]
