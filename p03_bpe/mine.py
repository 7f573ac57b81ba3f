"""RegexTokenizer on a reader's own listing, written in any style: p05_gpt.train --mine my/

It uses the public names of the reader's class alone. Training on a corpus takes the algorithm of
the book minutes, so fast.py learns the merges and hands them over in minbpe's format, which the
reader's `load` reads. Encoding, decoding and saving are the reader's; of equal chunks of a corpus,
one is encoded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import regex

from . import build
from .fast import learn_merges

LEFT_TO_OURS = (
    "your RegexTokenizer encodes each chunk, decodes, saves and loads; its merges were learned by "
    "p03_bpe/fast.py, since yours would read the whole text for every merge"
)


def is_ours() -> bool:
    """Whether build.py's tokenizers are the book's, which the classes of fast.py build on."""
    needed = ("split", "build_vocab")
    cls = build.RegexTokenizer
    return cls.__module__ == build.__name__ and all(hasattr(cls, name) for name in needed)


class RegexTokenizer(build.RegexTokenizer):
    """The reader's tokenizer, in reasonable time."""

    def __init__(self, pattern: str = build.GPT2_PATTERN):
        super().__init__(pattern)
        self._cut_by, self._ids_of = pattern, {}

    def train(self, text: str, vocab_size: int) -> None:
        """Learn vocab_size - 256 merges from a text, fewer if no pair is left."""
        chunks = regex.findall(self._cut_by, text)
        merges = [f"{left} {right}" for (left, right), _ in learn_merges(chunks, vocab_size - 256)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "learned.model")
            lines = ["minbpe v1", self._cut_by, "0", *merges]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
            self.load(str(path))

    def encode(self, text: str, allowed_special: str | set[str] = "none_raise") -> list[int]:
        """The ids of a text; one in which no special token counts is encoded chunk by chunk."""
        if allowed_special != "none":
            return super().encode(text, allowed_special=allowed_special)
        ids = []
        for chunk in regex.findall(self._cut_by, text):
            if chunk not in self._ids_of:
                self._ids_of[chunk] = super().encode(chunk, allowed_special="none")
            ids.extend(self._ids_of[chunk])
        return ids

    def load(self, path: str) -> None:
        """Read a .model file; its pattern, special tokens and merges replace this one's."""
        super().load(path)
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        self._cut_by, self._ids_of = lines[1], {}
