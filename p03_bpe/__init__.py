"""Project 3: byte-level byte-pair encoding."""

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
