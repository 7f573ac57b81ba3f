"""Byte-level byte-pair encoding: the minbpe algorithm, and characters for comparison.

Sources: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units"
(2016); Radford et al. (GPT-2, 2019) for bytes and the split pattern; Karpathy's minbpe for the
merge order and the file format.
"""

from __future__ import annotations

import heapq
import json
import unicodedata
import warnings
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import regex
import tiktoken

# How GPT-2 and GPT-4 cut a text before merging; no token crosses a cut (OpenAI's tiktoken).
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)

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


def learn_merges(
    chunks: dict[bytes, int], vocab_size: int, verbose: bool = False
) -> dict[Pair, int]:
    """Merge the most frequent pair again and again until there are `vocab_size` tokens.

    `chunks` says how often each piece of the text occurs, in order of first occurrence. Of equally
    frequent pairs, the one that occurs first is merged. Returns {pair: new id} in training order;
    it is shorter than asked for, with a warning, when no pair is left.

    Equal chunks are counted once, and a merge touches only the chunks that hold its pair. What is
    known of a pair can only get worse while others are merged (fewer occurrences, a later first
    one), so the heap may be out of date: its top is checked and, if it got worse, put back.
    """
    words, weights = [list(chunk) for chunk in chunks], list(chunks.values())
    counts: dict[Pair, int] = defaultdict(int)
    where: dict[Pair, set[int]] = defaultdict(set)  # the words that a pair occurs in
    for w, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += weights[w]
            where[pair].add(w)

    lengths = [1] * 256  # of each token, in bytes

    def key(pair: Pair) -> tuple[int, int, int, Pair]:
        first = min(where[pair])
        offset = 0
        for at in pairwise(words[first]):
            if at == pair:
                break
            offset += lengths[at[0]]
        return -counts[pair], first, offset, pair

    heap = [key(pair) for pair in counts]
    heapq.heapify(heap)
    merges: dict[Pair, int] = {}
    while len(lengths) < vocab_size and heap:
        claimed = heapq.heappop(heap)
        pair = claimed[3]
        if not where[pair]:
            continue
        if (now := key(pair)) != claimed:
            heapq.heappush(heap, now)
            continue
        new_id = len(lengths)
        if verbose:
            print(f"merge {len(merges) + 1}: {pair} -> {new_id}, {counts[pair]} occurrences")
        lengths.append(lengths[pair[0]] + lengths[pair[1]])
        merges[pair] = new_id
        changed = set()
        for w in list(where[pair]):
            before, words[w] = words[w], merge(words[w], pair, new_id)
            for old in pairwise(before):
                counts[old] -= weights[w]
                where[old].discard(w)
            for new in pairwise(words[w]):
                counts[new] += weights[w]
                where[new].add(w)
                if new_id in new:
                    changed.add(new)
        for new in changed:
            heapq.heappush(heap, key(new))
    if len(lengths) < vocab_size:
        warnings.warn(
            f"no pair is left to merge: the vocabulary has {len(lengths)} tokens, not {vocab_size}",
            stacklevel=3,
        )
    return merges


class BasicTokenizer:
    """Byte-pair encoding on the whole text as one piece.

    merges is {pair: id} in training order, vocab {id: bytes}. A fresh tokenizer knows the 256
    bytes and nothing else.
    """

    pattern = ""

    def __init__(self):
        self.merges: dict[Pair, int] = {}
        self.special_tokens: dict[str, int] = {}
        self.byte_ids = list(range(256))  # the id of each byte; GPT-2's are in another order
        self._build_vocab()

    def _build_vocab(self):
        self.vocab = {self.byte_ids[byte]: bytes([byte]) for byte in range(256)}
        for (left, right), new_id in self.merges.items():
            self.vocab[new_id] = self.vocab[left] + self.vocab[right]
        for token, special_id in self.special_tokens.items():
            self.vocab[special_id] = token.encode("utf-8")

    def split(self, text: str) -> list[str]:
        """The pieces of the text that are encoded by themselves: here, the text."""
        return [text] if text else []

    def train(self, text: str, vocab_size: int, verbose: bool = False) -> None:
        """Learn vocab_size - 256 merges from the text, forgetting any earlier ones.

        Raises ValueError for a vocab_size under 256; warns when no pair is left to merge.
        """
        if vocab_size < 256:
            raise ValueError(f"vocab_size {vocab_size} is too small: the bytes alone take 256")
        chunks = Counter(chunk.encode("utf-8") for chunk in self.split(text))
        self.byte_ids = list(range(256))
        self.merges = learn_merges(chunks, vocab_size, verbose)
        self.special_tokens = {}
        self._build_vocab()

    def register_special_tokens(self, special_tokens: dict[str, int]) -> None:
        """Give strings such as <|endoftext|> ids of their own; they are never merged or split."""
        self.special_tokens = dict(special_tokens)
        self._build_vocab()

    def _encode_chunk(self, chunk: bytes) -> list[int]:
        """Merge what was merged first in training, until nothing in the chunk can be merged."""
        ids = [self.byte_ids[byte] for byte in chunk]
        while len(ids) > 1:
            pair = min(pairwise(ids), key=lambda pair: self.merges.get(pair, float("inf")))
            if pair not in self.merges:
                break
            ids = merge(ids, pair, self.merges[pair])
        return ids

    def _encode_ordinary(self, text: str) -> list[int]:
        ids, known = [], {}  # most chunks come again: encode each once
        for chunk in self.split(text):
            if chunk not in known:
                known[chunk] = self._encode_chunk(chunk.encode("utf-8"))
            ids.extend(known[chunk])
        return ids

    def encode(self, text: str, allowed_special: str | set[str] = "none_raise") -> list[int]:
        """The ids of a text. Special tokens in it count as such where they are allowed.

        allowed_special is "all", a set of those allowed, "none" (they are plain text) or
        "none_raise". With a set and with "none_raise", a special token that stands in the text
        and is not allowed raises ValueError: text from outside must not smuggle in control tokens.
        """
        specials = self.special_tokens
        if allowed_special == "all":
            allowed = set(specials)
        elif allowed_special in ("none", "none_raise"):
            allowed = set()
        elif isinstance(allowed_special, str):
            raise ValueError(
                f"allowed_special is 'all', 'none', 'none_raise' or a set, not {allowed_special!r}"
            )
        else:
            allowed = set(allowed_special) & set(specials)
        forbidden = set() if allowed_special == "none" else set(specials) - allowed
        if forbidden and (found := any_of(forbidden).search(text)):
            raise ValueError(
                f"the text holds the special token {found[0]!r} at position {found.start()}; allow "
                'it with allowed_special, or encode it as plain text with allowed_special="none"'
            )
        if not allowed:
            return self._encode_ordinary(text)
        ids, start = [], 0
        for found in any_of(allowed).finditer(text):
            ids += self._encode_ordinary(text[start : found.start()])
            ids.append(specials[found[0]])
            start = found.end()
        return ids + self._encode_ordinary(text[start:])

    def decode(self, ids: list[int]) -> str:
        """The text of ids; bytes that are not valid UTF-8 become U+FFFD.

        Raises ValueError for an id outside the vocabulary.
        """
        for i in ids:
            if i not in self.vocab:
                raise ValueError(f"id {i} is not in the vocabulary of {len(self.vocab)} tokens")
        return b"".join(self.vocab[i] for i in ids).decode("utf-8", errors="replace")

    def save(self, prefix: str) -> None:
        """Write prefix.model, which load reads, and prefix.vocab, for people; minbpe's format."""
        if self.byte_ids != list(range(256)):
            raise ValueError("minbpe's format has no place for GPT-2's order of the bytes")
        lines = ["minbpe v1", self.pattern, str(len(self.special_tokens))]
        lines += [f"{token} {i}" for token, i in self.special_tokens.items()]
        lines += [f"{left} {right}" for left, right in self.merges]
        Path(f"{prefix}.model").write_bytes(("\n".join(lines) + "\n").encode("utf-8"))
        parents = {new_id: pair for pair, new_id in self.merges.items()}
        with open(f"{prefix}.vocab", "w", encoding="utf-8", newline="\n") as file:
            for i, token in self.vocab.items():
                if i in parents:
                    left, right = (printable(self.vocab[parent]) for parent in parents[i])
                    file.write(f"[{left}][{right}] -> [{printable(token)}] {i}\n")
                else:
                    file.write(f"[{printable(token)}] {i}\n")

    def load(self, path: str) -> None:
        """Read a .model file; its pattern, special tokens and merges replace this one's."""
        if not str(path).endswith(".model"):
            raise ValueError(f"{path} is not a .model file")
        lines = Path(path).read_bytes().decode("utf-8").split("\n")
        if lines[0] != "minbpe v1":
            raise ValueError(f"{path} is not in minbpe's format: its first line is {lines[0]!r}")
        try:
            n_special = int(lines[2])
            specials = {}
            for line in lines[3 : 3 + n_special]:
                token, special_id = line.rsplit(" ", 1)
                specials[token] = int(special_id)
            merges = {}
            for line in lines[3 + n_special :]:
                if line:
                    left, right = map(int, line.split())
                    merges[left, right] = 256 + len(merges)
        except (ValueError, IndexError):
            raise ValueError(f"{path} is damaged: a line of it is not in minbpe's format") from None
        self._use_pattern(lines[1])
        self.byte_ids = list(range(256))
        self.merges, self.special_tokens = merges, specials
        self._build_vocab()

    def _use_pattern(self, pattern: str) -> None:
        if pattern:
            raise ValueError("the file has a split pattern: load it with RegexTokenizer")

    def to_tiktoken(self, name: str) -> tiktoken.Encoding:
        """The same tokenizer as a tiktoken.Encoding, which encodes many times as fast."""
        ranks = {token: i for i, token in self.vocab.items() if i not in self._special_ids()}
        if len(ranks) < 256 + len(self.merges):
            raise ValueError("two merges give the same bytes, which tiktoken cannot express")
        return tiktoken.Encoding(
            name,
            pat_str=self.pattern or r"(?s:.+)",
            mergeable_ranks=ranks,
            special_tokens=self.special_tokens,
        )

    def _special_ids(self) -> set[int]:
        return set(self.special_tokens.values())


class RegexTokenizer(BasicTokenizer):
    """Byte-pair encoding within the chunks that `pattern` cuts the text into."""

    def __init__(self, pattern: str = GPT2_PATTERN):
        self._use_pattern(pattern)
        super().__init__()

    def _use_pattern(self, pattern: str) -> None:
        self.pattern = pattern
        self._compiled = regex.compile(pattern)

    def split(self, text: str) -> list[str]:
        """The pieces of the text that are encoded by themselves.

        >>> RegexTokenizer().split("we're  here")
        ['we', "'re", ' ', ' here']
        """
        return [found[0] for found in self._compiled.finditer(text)]

    @classmethod
    def from_tiktoken(cls, encoding: tiktoken.Encoding) -> RegexTokenizer:
        """The tokenizer of a tiktoken.Encoding, special tokens and all.

        tiktoken keeps the bytes of each token and its rank, not the pair it was made of. The pair
        is what the token's bytes become when only earlier merges are applied.
        """
        tokenizer = cls(encoding._pat_str)
        ranks = encoding._mergeable_ranks
        tokenizer.byte_ids = [ranks[bytes([byte])] for byte in range(256)]
        tokenizer.merges = {}
        for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
            if len(token) > 1:
                left, right = tokenizer._encode_chunk(token)
                tokenizer.merges[left, right] = rank
        tokenizer.register_special_tokens(encoding._special_tokens)
        return tokenizer


def any_of(specials: set[str]) -> regex.Pattern:
    """A pattern that finds special tokens, the longest first where several begin."""
    return regex.compile(
        "|".join(regex.escape(token) for token in sorted(specials, key=len, reverse=True))
    )


def printable(token: bytes) -> str:
    r"""A token as one line of text: control characters escaped, broken UTF-8 as U+FFFD.

    >>> print(printable(b"a\n"))
    a\u000a
    """
    text = token.decode("utf-8", errors="replace")
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char).startswith("C") else char
        for char in text
    )


class CharTokenizer:
    """Every distinct character of `text` is a token, in the order of their code points."""

    def __init__(self, text: str):
        self._use("".join(sorted(set(text))))

    def _use(self, characters: str) -> None:
        self.vocab = {i: char.encode("utf-8") for i, char in enumerate(characters)}
        self.characters = characters
        self._ids = {char: i for i, char in enumerate(characters)}

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a character never seen is a ValueError that names it."""
        try:
            return [self._ids[char] for char in text]
        except KeyError as error:
            raise ValueError(
                f"the character {error.args[0]!r} is not among the {len(self._ids)} that this "
                "tokenizer knows"
            ) from None

    def decode(self, ids: list[int]) -> str:
        """The text of ids; an id outside the vocabulary is a ValueError."""
        for i in ids:
            if i not in self.vocab:
                raise ValueError(f"id {i} is not in the vocabulary of {len(self.vocab)} characters")
        return "".join(self.characters[i] for i in ids)

    def save(self, prefix: str) -> None:
        """Write prefix.json."""
        text = json.dumps({"characters": self.characters}, ensure_ascii=False) + "\n"
        Path(f"{prefix}.json").write_bytes(text.encode("utf-8"))

    def load(self, path: str) -> None:
        """Read what save wrote; its characters replace this one's."""
        try:
            characters = json.loads(Path(path).read_bytes().decode("utf-8"))["characters"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} does not hold the characters of a CharTokenizer") from None
        self._use(characters)
