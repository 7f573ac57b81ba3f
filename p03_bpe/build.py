"""Byte-level byte-pair encoding: the minbpe algorithm, and characters for comparison.

Sources: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units"
(2016); Radford et al. (GPT-2, 2019) for bytes and the split pattern; Karpathy's minbpe for the
merge order and the file format.
"""

from __future__ import annotations

import heapq
import json
import re
import unicodedata
import warnings
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby, pairwise
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


def learn_merges(chunks: Iterable[str], n_merges: int) -> Iterator[tuple[Pair, int]]:
    """Merge the most frequent pair again and again; yields each pair and how often it occurred.

    Of equally frequent pairs, the one that occurs first is merged. Ends early when no pair is left.
    Every merge reads the whole text: this is the algorithm as the book has it, and minbpe.
    """
    words = [list(chunk.encode("utf-8")) for chunk in chunks]
    for new_id in range(256, 256 + n_merges):
        counts: dict[Pair, int] = {}
        for ids in words:
            get_stats(ids, counts)
        if not counts:
            return
        pair = max(counts, key=counts.get)  # the first of the most frequent
        yield pair, counts[pair]
        words = [merge(ids, pair, new_id) for ids in words]


def apply_merges(ids: list[int], merges: dict[Pair, int]) -> list[int]:
    """Merge what was merged first in training, again and again, until nothing can be merged."""
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: merges.get(pair, float("inf")))
        if pair not in merges:
            break
        ids = merge(ids, pair, merges[pair])
    return ids


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
        self._known = Known(self._encode_chunk, self.merges)  # chunks met before
        self._build_vocab()

    def _build_vocab(self):
        self.vocab = {self.byte_ids[byte]: bytes([byte]) for byte in range(256)}
        for (left, right), new_id in self.merges.items():
            self.vocab[new_id] = self.vocab[left] + self.vocab[right]
        for token, special_id in self.special_tokens.items():
            self.vocab[special_id] = token.encode("utf-8")

    def chunks(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """The pieces that are encoded by themselves, in lists: here one, all texts joined."""
        yield ["".join(texts)]

    def train(self, text: str | Iterable[str], vocab_size: int, verbose: bool = False) -> None:
        """Learn vocab_size - 256 merges from a text, or from pieces of one, in place of old merges.

        Raises ValueError for a vocab_size under 256; warns when no pair is left to merge.
        """
        if vocab_size < 256:
            raise ValueError(f"vocab_size {vocab_size} is too small: the bytes alone take 256")
        for token, special_id in self.special_tokens.items():
            if special_id < vocab_size:
                raise ValueError(f"the id {special_id} of {token!r} would be taken by training")
        chunks = chain.from_iterable(self.chunks([text] if isinstance(text, str) else text))
        self.merges, self.byte_ids = {}, list(range(256))
        known: dict[str, list[int]] = {}
        for pair, count in learn_merges_quickly(chunks, vocab_size - 256, known):
            self.merges[pair] = new_id = 256 + len(self.merges)
            if verbose:
                print(f"merge {new_id - 255}: {pair} -> {new_id}, {count} occurrences")
        self._build_vocab()
        self._known = Known(self._encode_chunk, self.merges, known)
        if len(self.merges) < vocab_size - 256:
            warnings.warn(
                f"no pair is left to merge: {256 + len(self.merges)} tokens, not {vocab_size}",
                stacklevel=2,
            )

    def register_special_tokens(self, special_tokens: dict[str, int]) -> None:
        """Give strings such as <|endoftext|> ids of their own; they are never merged or split."""
        taken = {*self.byte_ids, *self.merges.values()}
        for token, special_id in special_tokens.items():
            if not token or special_id in taken:
                raise ValueError(f"{token!r} cannot be {special_id}: no text, or the id is taken")
            taken.add(special_id)
        self.special_tokens = dict(special_tokens)
        self._build_vocab()

    def encode(self, text: str, allowed_special: str | set[str] = "none_raise") -> list[int]:
        """The ids of a text. Special tokens in it count as such where they are allowed.

        allowed_special is "all", a set of those allowed, "none" (they are plain text) or
        "none_raise". With a set and with "none_raise", a special token that stands in the text
        and is not allowed raises ValueError: text from outside must not smuggle in control tokens.
        """
        return list(self.encode_iterable([text], allowed_special))

    def encode_iterable(
        self, texts: Iterable[str], allowed_special: str | set[str] = "none_raise"
    ) -> Iterator[int]:
        """The ids of texts that follow each other, such as the lines of a file, one by one.

        They are those of the texts joined, except that a special token cut in two is plain text.
        With RegexTokenizer, no more than a text and what `chunks` holds back is in memory.
        """
        specials = set(self.special_tokens)
        if isinstance(allowed_special, str):
            if allowed_special not in ("all", "none", "none_raise"):
                raise ValueError(
                    "allowed_special is 'all', 'none', 'none_raise' or a set, "
                    f"not {allowed_special!r}"
                )
            allowed = specials if allowed_special == "all" else set()
        else:
            allowed = specials & set(allowed_special)
        forbidden = set() if allowed_special == "none" else specials - allowed
        parts = (part for text in texts for part in self._parts(text, allowed, forbidden))
        return chain.from_iterable(self._runs(parts))

    def _runs(self, parts: Iterable[str | int]) -> Iterator[Iterable[int]]:
        """Special tokens that follow each other, or the ids of some chunks."""
        if not self._known.are_of(self.merges):
            self._known = Known(self._encode_chunk, self.merges)
        for special, group in groupby(parts, key=lambda part: isinstance(part, int)):
            if special:
                yield group
            else:
                for chunks in self.chunks(group):
                    yield chain.from_iterable(map(self._known.__getitem__, chunks))

    def _parts(self, text: str, allowed: set[str], forbidden: set[str]) -> Iterator[str | int]:
        """The text, cut at allowed special tokens, with their ids between the parts."""
        if forbidden and (found := any_of(forbidden).search(text)):
            raise ValueError(
                f"the text holds the special token {found[0]!r} at position {found.start()}; allow "
                'it with allowed_special, or encode it as plain text with allowed_special="none"'
            )
        start = 0
        for found in any_of(allowed).finditer(text) if allowed else ():
            yield text[start : found.start()]
            yield self.special_tokens[found[0]]
            start = found.end()
        yield text[start:]

    def _encode_chunk(self, chunk: str) -> list[int]:
        ids = [self.byte_ids[byte] for byte in chunk.encode("utf-8")]
        return apply_merges_quickly(ids, self.merges)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are not valid UTF-8 become U+FFFD.

        Raises ValueError for an id outside the vocabulary.
        """
        try:
            text = b"".join([self.vocab[i] for i in ids])
        except KeyError as error:
            raise ValueError(
                f"id {error.args[0]} is not in the vocabulary of {len(self.vocab)} tokens"
            ) from None
        return text.decode("utf-8", errors="replace")

    def save(self, prefix: str) -> None:
        """Write prefix.model, which load reads, and prefix.vocab, for people; minbpe's format."""
        if self.byte_ids != list(range(256)):
            raise ValueError("minbpe's format has no place for GPT-2's order of the bytes")
        if "\n" in "".join([self.pattern, *self.special_tokens]):
            raise ValueError("minbpe's format has no place for a newline in a pattern or a special")
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
        lines = Path(path).read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
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
                    known = range(256 + len(merges))
                    if left not in known or right not in known or (left, right) in merges:
                        raise ValueError
                    merges[left, right] = 256 + len(merges)
        except (ValueError, IndexError):
            raise ValueError(f"{path} is damaged: a line of it is not in minbpe's format") from None
        self._use_pattern(lines[1])
        self.byte_ids, self.merges = list(range(256)), merges
        self.register_special_tokens(specials)

    def _use_pattern(self, pattern: str) -> None:
        if pattern:
            raise ValueError("the file has a split pattern: load it with RegexTokenizer")

    def to_tiktoken(self, name: str) -> tiktoken.Encoding:
        """The same tokenizer as a tiktoken.Encoding, which encodes many times as fast."""
        specials = set(self.special_tokens.values())
        ranks = {token: i for i, token in self.vocab.items() if i not in specials}
        if len(ranks) < 256 + len(self.merges):
            raise ValueError("two merges give the same bytes, which tiktoken cannot express")
        return tiktoken.Encoding(
            name,
            pat_str=self.pattern or r"(?s:.+)",
            mergeable_ranks=ranks,
            special_tokens=self.special_tokens,
        )


class RegexTokenizer(BasicTokenizer):
    """Byte-pair encoding within the chunks that `pattern` cuts the text into."""

    def __init__(self, pattern: str = GPT2_PATTERN):
        self._use_pattern(pattern)
        super().__init__()

    def _use_pattern(self, pattern: str) -> None:
        if not pattern:
            raise ValueError("there is no split pattern: that is BasicTokenizer")
        try:
            self._compiled = regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"the split pattern {pattern!r} is wrong: {error}") from None
        if self._compiled.groups:
            raise ValueError(f"the split pattern {pattern!r} has a group: use (?:...) for (...)")
        ours = pattern in (GPT2_PATTERN, GPT4_PATTERN)
        self._for_ascii = for_ascii(pattern) if ours else self._compiled
        self.pattern = pattern

    def split(self, text: str) -> list[str]:
        """The pieces of the text that are encoded by themselves.

        >>> RegexTokenizer().split("we're  here")
        ['we', "'re", ' ', ' here']
        """
        pattern = self._for_ascii if text.isascii() else self._compiled
        return pattern.findall(text)

    def chunks(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """The pieces of the texts joined; the last two are held back until more text has come.

        What follows may change them ("'l" and "l" are one piece, spaces before a word are two) but,
        with patterns like GPT-2's and GPT-4's, nothing before them.
        """
        held: list[str] = []
        for text in texts:
            held = self.split("".join([*held, text]))
            yield held[:-2]
            held = held[-2:]
        yield held

    @classmethod
    def from_tiktoken(cls, encoding: tiktoken.Encoding) -> RegexTokenizer:
        """The tokenizer of a tiktoken.Encoding, special tokens and all.

        tiktoken keeps the bytes of each token and its rank, not the pair it was made of. The pair
        is what the token's bytes become when only earlier merges are applied.
        """
        tokenizer = cls(encoding._pat_str)
        ranks = encoding._mergeable_ranks
        if any(bytes([byte]) not in ranks for byte in range(256)):
            raise ValueError(f"{encoding.name} does not know all 256 bytes")
        tokenizer.byte_ids = [ranks[bytes([byte])] for byte in range(256)]
        for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
            if len(token) > 1:
                ids = [tokenizer.byte_ids[byte] for byte in token]
                pair = tuple(apply_merges_quickly(ids, tokenizer.merges))
                if len(pair) != 2:
                    raise ValueError(f"{token!r} of {encoding.name} is not made of two tokens")
                tokenizer.merges[pair] = rank
        tokenizer.register_special_tokens(encoding._special_tokens)
        return tokenizer


def any_of(specials: Iterable[str]) -> regex.Pattern:
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


# The same, quickly. These give what the plain forms above give, merge for merge and id for id.


def for_ascii(pattern: str) -> re.Pattern:
    """GPT-2's or GPT-4's pattern for a text of ASCII alone; the standard library is faster."""
    pattern = pattern.replace(r"\p{L}\p{N}]", "A-Za-z0-9]")
    return re.compile(pattern.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]"), re.ASCII)


LONG, MANY = 100, 100_000  # chunks of more characters, and more chunks, are not remembered


class Known(dict):
    """The ids of chunks, worked out by `encode` when first asked for, and remembered."""

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        merges: dict[Pair, int],
        known: dict[str, list[int]] | None = None,
    ):
        super().__init__(known or {})
        self.encode, self.merges, self.n_merges = encode, merges, len(merges)

    def are_of(self, merges: dict[Pair, int]) -> bool:
        """Whether they still hold: other merges give other ids."""
        return self.merges is merges and self.n_merges == len(merges)

    def __missing__(self, chunk: str) -> list[int]:
        ids = self.encode(chunk)
        if len(chunk) <= LONG:
            if len(self) >= MANY:
                self.clear()
            self[chunk] = ids
        return ids


# Tokens stay at the place of their first byte and know their neighbours, so that a merge reads the
# places of its pair and no others. NONE stands before, between and after the chunks, and where a
# token was swallowed.
NONE = -1


def learn_merges_quickly(
    chunks: Iterable[str], n_merges: int, known: dict[str, list[int]] | None = None
) -> Iterator[tuple[Pair, int]]:
    """learn_merges; equal chunks are stored once, with how often they occur.

    A heap holds (-count, first place, pair). While others are merged, a pair loses places and never
    gains one, so an entry can only be too good: the top is counted again until it is right.
    After the last merge the ids of the chunks are written into `known`.
    """
    ids, weights, starts = [NONE], array("i", [0]), {}
    for chunk, count in Counter(chunks).items():
        if known is not None and len(chunk) <= LONG:
            starts[chunk] = len(ids)
        ids += [*chunk.encode("utf-8"), NONE]
        weights.extend([count] * (len(ids) - len(weights)))
    before, after = array("i", range(-1, len(ids) - 1)), array("i", range(1, len(ids) + 1))
    where: dict[Pair, array] = {}  # the places of the left half, in order
    heap: list[tuple[int, int, Pair]] = []

    def entry(pair: Pair) -> tuple[int, int, Pair]:
        places = where[pair]
        return -sum(map(weights.__getitem__, places)), places[0] if places else 0, pair

    def counted_again(pair: Pair) -> tuple[int, int, Pair]:
        left, right = pair
        still = [i for i in where[pair] if ids[i] == left and ids[after[i]] == right]
        where[pair] = array("i", still)
        return entry(pair)

    found = defaultdict(lambda: array("i"))  # the places of new pairs
    for i, pair in enumerate(pairwise(ids)):
        found[pair].append(i)
    for new_id in range(256, 256 + n_merges):
        for pair in found:
            if NONE not in pair:
                where[pair] = found[pair]
                heapq.heappush(heap, entry(pair))
        while heap and heap[0] != (now := counted_again(heap[0][2])):
            heapq.heapreplace(heap, now)
        if not heap or heap[0][0] == 0:
            break
        count, _, (left, right) = heapq.heappop(heap)
        yield (left, right), -count
        found = defaultdict(lambda: array("i"))
        for i in where.pop((left, right)):
            j = after[i]
            if ids[i] == left and ids[j] == right:  # "aaa" holds the pair twice, merges it once
                h, k = before[i], after[j]
                ids[i], ids[j] = new_id, NONE
                after[i], before[k] = k, i
                found[ids[h], new_id].append(h)
                found[new_id, ids[k]].append(i)
    for chunk, i in starts.items():
        known[chunk] = []
        while ids[i] != NONE:
            known[chunk].append(ids[i])
            i = after[i]


def apply_merges_quickly(ids: list[int], merges: dict[Pair, int]) -> list[int]:
    """apply_merges; the places of each merge are collected, and merges done in their order."""
    ids = [NONE, *ids, NONE]
    before, after = list(range(-1, len(ids) - 1)), list(range(1, len(ids) + 1))
    where = defaultdict(list)  # the places where each new id can be made, in order
    for i, pair in enumerate(pairwise(ids)):
        if pair in merges:
            where[merges[pair]].append(i)
    waiting = list(where)
    heapq.heapify(waiting)
    while waiting:
        new_id = heapq.heappop(waiting)
        for i in where[new_id]:
            j = after[i]
            if merges.get((ids[i], ids[j])) == new_id:
                h, k = before[i], after[j]
                ids[i], ids[j] = new_id, NONE
                after[i], before[k] = k, i
                for place, pair in (h, (ids[h], new_id)), (i, (new_id, ids[k])):
                    if (later := merges.get(pair)) is not None:
                        if later not in where:
                            heapq.heappush(waiting, later)
                        where[later].append(place)
    return [token for token in ids if token != NONE]
