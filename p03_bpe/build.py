"""Byte-level byte-pair encoding: the minbpe algorithm, and characters for comparison.

Sources: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units"
(2016); Radford et al. (GPT-2, 2019) for bytes and the split pattern; Karpathy's minbpe for the
merge order and the file format.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import regex

# 1. get_stats: how often each pair occurs

Pair = tuple[int, int]


def get_stats(ids: list[int], counts: dict[Pair, int] | None = None) -> dict[Pair, int]:
    """How often each pair of neighbours occurs, in order of first occurrence; added to `counts`.

    >>> get_stats([1, 2, 3, 1, 2])
    {(1, 2): 2, (2, 3): 1, (3, 1): 1}
    """
    counts = {} if counts is None else counts
    for pair in pairwise(ids):
        counts[pair] = counts.get(pair, 0) + 1
    return counts


# 2. merge: a pair becomes one id


def merge(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every occurrence of `pair` in `ids`, left to right, with `new_id`.

    >>> merge([5, 6, 6, 1, 5, 6], (5, 6), 9)
    [9, 6, 1, 9]
    """
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


# 3. BasicTokenizer: training


class BasicTokenizer:
    """Byte-pair encoding on the whole text as one chunk.

    merges is {pair: id} in training order, vocab {id: bytes}. A fresh tokenizer knows the 256
    bytes and nothing else.
    """

    def __init__(self):
        self.pattern = ""  # of RegexTokenizer
        self.special_tokens: dict[str, int] = {}  # of RegexTokenizer
        self.merges: dict[Pair, int] = {}
        self.build_vocab()

    def build_vocab(self) -> None:
        """The bytes of every id."""
        self.vocab = {byte: bytes([byte]) for byte in range(256)}
        for (left, right), new_id in self.merges.items():
            self.vocab[new_id] = self.vocab[left] + self.vocab[right]
        for token, special_id in self.special_tokens.items():
            self.vocab[special_id] = token.encode("utf-8")

    def split(self, text: str) -> list[str]:
        """The chunks that are merged each by itself: here one, the text."""
        return [text]

    def train(self, text: str, vocab_size: int) -> None:
        """Learn vocab_size - 256 merges from a text, in place of old ones.

        Each time the most frequent pair is merged; of equals, the one that occurs first in the
        chunks as they are now. Ends early when no pair is left. Raises ValueError for a vocab_size
        under 256.
        """
        if vocab_size < 256:
            raise ValueError(f"vocab_size {vocab_size} is too small: the bytes alone take 256")
        chunks = [list(chunk.encode("utf-8")) for chunk in self.split(text)]
        self.merges = {}
        for new_id in range(256, vocab_size):
            counts = {}
            for ids in chunks:
                get_stats(ids, counts)
            if not counts:
                break
            pair = max(counts, key=lambda pair: counts[pair])  # the first of the most frequent
            chunks = [merge(ids, pair, new_id) for ids in chunks]
            self.merges[pair] = new_id
        self.build_vocab()

    # 4. Encoding and decoding

    def encode(self, text: str) -> list[int]:
        """The ids of a text: its bytes, merged in the order in which the merges were learned."""
        ids = list(text.encode("utf-8"))
        while len(ids) > 1:
            pair = min(pairwise(ids), key=lambda pair: self.merges.get(pair, math.inf))
            if pair not in self.merges:
                break
            ids = merge(ids, pair, self.merges[pair])
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids; bytes that are not valid UTF-8 become U+FFFD."""
        text = b"".join(self.vocab[i] for i in ids)
        return text.decode("utf-8", errors="replace")

    # 5. Files

    def save(self, prefix: str) -> None:
        """Write prefix.model in minbpe's format: pattern, special tokens, merges."""
        lines = ["minbpe v1", self.pattern, str(len(self.special_tokens))]
        lines += [f"{token} {special_id}" for token, special_id in self.special_tokens.items()]
        lines += [f"{left} {right}" for left, right in self.merges]
        Path(f"{prefix}.model").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")

    def load(self, path: str) -> None:
        """Read a .model file; its pattern, special tokens and merges replace this one's."""
        lines = Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n")
        if lines[0] != "minbpe v1":
            raise ValueError(f"{path} is not in minbpe's format: its first line is {lines[0]!r}")
        self.pattern = lines[1]
        n_special = int(lines[2])
        self.special_tokens = {}
        for line in lines[3 : 3 + n_special]:
            token, special_id = line.rsplit(" ", 1)
            self.special_tokens[token] = int(special_id)
        self.merges = {}
        for line in lines[3 + n_special :]:
            left, right = map(int, line.split())
            self.merges[left, right] = 256 + len(self.merges)
        self.build_vocab()


# 6. RegexTokenizer: chunks and special tokens

# How GPT-2 and GPT-4 cut a text before merging; no token crosses a cut (OpenAI's tiktoken).
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


class RegexTokenizer(BasicTokenizer):
    """Byte-pair encoding within the chunks that `pattern` cuts the text into."""

    def __init__(self, pattern: str = GPT2_PATTERN):
        super().__init__()
        self.pattern = pattern

    def split(self, text: str) -> list[str]:
        """The chunks that are merged each by itself.

        >>> RegexTokenizer().split("we're  here")
        ['we', "'re", ' ', ' here']
        """
        return regex.findall(self.pattern, text)

    def register_special_tokens(self, special_tokens: dict[str, int]) -> None:
        """Give strings such as <|endoftext|> ids of their own; they are never merged or split."""
        self.special_tokens = dict(special_tokens)
        self.build_vocab()

    def encode(self, text: str, allowed_special: str | set[str] = "none_raise") -> list[int]:
        """The ids of a text. Special tokens in it count as such where they are allowed.

        allowed_special is "all", a set of those allowed, "none" (they are plain text) or
        "none_raise". With a set and with "none_raise", a special token that stands in the text
        and is not allowed raises ValueError: text from outside must not smuggle in control tokens.
        """
        if isinstance(allowed_special, str):
            allowed = list(self.special_tokens) if allowed_special == "all" else []
        else:
            allowed = [token for token in self.special_tokens if token in allowed_special]
        for token in self.special_tokens:
            if token in text and token not in allowed and allowed_special != "none":
                raise ValueError(f"the text holds the special token {token!r}; see allowed_special")
        parts = [text]
        if allowed:
            longest_first = sorted(allowed, key=len, reverse=True)
            parts = regex.split(f"({'|'.join(map(regex.escape, longest_first))})", text)
        ids = []
        for part in parts:
            if part in allowed:
                ids.append(self.special_tokens[part])
            else:
                for chunk in self.split(part):
                    ids.extend(super().encode(chunk))
        return ids


# 7. CharTokenizer: a token for each character


class CharTokenizer:
    """Every distinct character of `text` is a token, in the order of their code points."""

    def __init__(self, text: str):
        self.vocab = dict(enumerate(sorted(set(text))))  # id -> character
        self.ids = {char: i for i, char in self.vocab.items()}

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a character never seen is an error."""
        return [self.ids[char] for char in text]

    def decode(self, ids: list[int]) -> str:
        """The text of ids; an id outside the vocabulary is an error."""
        return "".join(self.vocab[i] for i in ids)
