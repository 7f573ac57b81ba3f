"""Project 3: byte-level byte-pair encoding."""

import p01_autograd.lab.startup  # noqa: F401  isort: skip

from . import mine
from .build import GPT2_PATTERN, GPT4_PATTERN, get_stats, merge
from .fast import BasicTokenizer, CharTokenizer, RegexTokenizer

if not mine.is_ours():  # build.py holds a reader's own tokenizers
    from .build import BasicTokenizer
    from .mine import RegexTokenizer

__all__ = [
    "GPT2_PATTERN",
    "GPT4_PATTERN",
    "BasicTokenizer",
    "CharTokenizer",
    "RegexTokenizer",
    "get_stats",
    "merge",
]
