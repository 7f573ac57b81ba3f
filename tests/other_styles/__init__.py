"""Correct listings in other styles than ours, and wrong edits of them."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A wrong edit of one style file: `old`, which occurs there exactly once, becomes `new`."""

    style: str  # the file's name without .py
    old: str
    new: str
    name: str
    looks_like: str = ""  # the project's sabotage that this edit re-makes, if it re-makes one
