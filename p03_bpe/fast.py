"""The tokenizers that the package exports: the listing's, quick, and for texts in pieces.

Everything here gives what the listing (build.py) gives, merge for merge and id for id;
test_fast.py holds the two equal. What makes it quick:

- equal chunks are counted once, with how often they occur;
- in training every token knows its neighbours, so that a merge visits the places of its pair and no
  others, and a heap knows the most frequent pair;
- encoding remembers the ids of chunks; training leaves it those of its own text.
"""

from __future__ import annotations

import heapq
import json
import operator
import re
import unicodedata
import warnings
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import regex
from tqdm import tqdm

from . import build
from .build import GPT2_PATTERN, GPT4_PATTERN

if TYPE_CHECKING:
    import tiktoken

Pair = tuple[int, int]
LONG, MANY = 100, 100_000  # chunks of more characters, and more chunks, are not remembered
NONE = -1  # stands before, between and after the chunks, and where a token was swallowed


def learn_merges(
    chunks: Iterable[str], n_merges: int, known: dict[str, list[int]] | None = None
) -> Iterator[tuple[Pair, int]]:
    """The merges that training makes, in order, each with how often its pair occurred.

    Tokens stay at the place of their first byte. A heap holds (-count, first place, pair): while
    others are merged, a pair loses places and never gains one, so an entry can only be too good,
    and the top is counted again until it is right. After the last merge the ids of the chunks are
    written into `known`.
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


def apply_merges(ids: list[int], merges: dict[Pair, int]) -> list[int]:
    """Merge what was merged first in training, again and again, until nothing can be merged.

    The places of each merge are collected, and the merges made in their order.
    """
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

    def belong_to(self, merges: dict[Pair, int]) -> bool:
        """Whether the ids are those of these merges."""
        return self.merges is merges and self.n_merges == len(merges)

    def __missing__(self, chunk: str) -> list[int]:
        ids = self.encode(chunk)
        if len(chunk) <= LONG:
            if len(self) >= MANY:
                self.clear()
            self[chunk] = ids
        return ids


class Quick:
    """What both tokenizers have beyond the listing's."""

    byte_ids: Sequence[int] = range(256)  # the id of each byte; GPT-2's are in another order
    _known: Known | None = None  # chunks met before

    def build_vocab(self) -> None:
        """The bytes of every id."""
        self.vocab = {self.byte_ids[byte]: bytes([byte]) for byte in range(256)}
        for (left, right), new_id in self.merges.items():
            self.vocab[new_id] = self.vocab[left] + self.vocab[right]
        for token, special_id in self.special_tokens.items():
            self.vocab[special_id] = token.encode("utf-8")

    def train(self, text: str | Iterable[str], vocab_size: int, verbose: bool = False) -> None:
        """Learn vocab_size - 256 merges from a text, or from pieces of one, in place of old merges.

        Raises ValueError for a vocab_size under 256; warns when no pair is left to merge.
        """
        if vocab_size < 256:
            raise ValueError(f"vocab_size {vocab_size} is too small: the bytes alone take 256")
        for token, special_id in self.special_tokens.items():
            if special_id < vocab_size:
                raise ValueError(f"the id {special_id} of {token!r} would be taken by training")
        pieces = map(without_surrogates, [text] if isinstance(text, str) else text)
        chunks = chain.from_iterable(self.chunks(pieces))
        self.merges, self.byte_ids = {}, range(256)
        known: dict[str, list[int]] = {}
        merges = learn_merges(chunks, vocab_size - 256, known)
        bar = tqdm(merges, "merging", vocab_size - 256, leave=False, unit="merge", delay=2)
        for pair, count in bar:
            self.merges[pair] = new_id = 256 + len(self.merges)
            if verbose:
                print(f"merge {new_id - 255}: {pair} -> {new_id}, {count} occurrences")
        self.build_vocab()
        self._known = Known(self._encode_chunk, self.merges, known)
        if len(self.merges) < vocab_size - 256:
            warnings.warn(
                f"no pair is left to merge: {256 + len(self.merges)} tokens, not {vocab_size}",
                stacklevel=2,
            )

    def register_special_tokens(self, special_tokens: dict[str, int]) -> None:
        """Give strings such as <|endoftext|> ids of their own; they are never merged or split.

        Raises ValueError for an empty string and for an id that is taken.
        """
        taken = {*self.byte_ids, *self.merges.values()}
        for token, special_id in special_tokens.items():
            if not token or special_id in taken:
                raise ValueError(f"{token!r} cannot be {special_id}: no text, or the id is taken")
            taken.add(special_id)
        self.special_tokens = dict(special_tokens)
        self.build_vocab()

    def encode(self, text: str, allowed_special: str | set[str] = "none_raise") -> list[int]:
        """The ids of a text, special tokens as in the listing's RegexTokenizer.

        A half of a surrogate pair, which UTF-8 cannot hold, is encoded as U+FFFD.
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
        if self._known is None or not self._known.belong_to(self.merges):
            self._known = Known(self._encode_chunk, self.merges)
        for special, group in groupby(parts, key=lambda part: isinstance(part, int)):
            if special:
                yield group
            else:
                for chunks in self.chunks(group):
                    yield chain.from_iterable(map(self._known.__getitem__, chunks))

    def _parts(self, text: str, allowed: set[str], forbidden: set[str]) -> Iterator[str | int]:
        """The text, cut at allowed special tokens, with their ids between the parts."""
        text = without_surrogates(text)
        if forbidden and (found := pattern_of(forbidden).search(text)):
            raise ValueError(
                f"the text holds the special token {found[0]!r} at position {found.start()}; allow "
                'it with allowed_special, or encode it as plain text with allowed_special="none"'
            )
        start = 0
        for found in pattern_of(allowed).finditer(text) if allowed else ():
            yield text[start : found.start()]
            yield self.special_tokens[found[0]]
            start = found.end()
        yield text[start:]

    def _encode_chunk(self, chunk: str) -> list[int]:
        return apply_merges([self.byte_ids[byte] for byte in chunk.encode("utf-8")], self.merges)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, integers of any kind; bytes that are not valid UTF-8 become U+FFFD.

        Raises ValueError for an id outside the vocabulary.
        """
        return checked(super().decode, ids, f"vocabulary of {len(self.vocab)} tokens")

    def save(self, prefix: str) -> None:
        """Write prefix.model, which load reads, and prefix.vocab, for people; minbpe's format."""
        if list(self.byte_ids) != list(range(256)):
            raise ValueError("minbpe's format has no place for GPT-2's order of the bytes")
        if set("\r\n") & set("".join([self.pattern, *self.special_tokens])):
            raise ValueError("minbpe's format has no place for a newline in a pattern or a special")
        super().save(prefix)
        parents = {new_id: pair for pair, new_id in self.merges.items()}
        with open(f"{prefix}.vocab", "w", encoding="utf-8", newline="\n") as file:
            for i, token in self.vocab.items():
                if i in parents:
                    left, right = (printable(self.vocab[parent]) for parent in parents[i])
                    file.write(f"[{left}][{right}] -> [{printable(token)}] {i}\n")
                else:
                    file.write(f"[{printable(token)}] {i}\n")

    def load(self, path: str) -> None:
        """Read a .model file; its pattern, special tokens and merges replace this one's.

        Raises ValueError for a file that is damaged or another tokenizer's, and then nothing has
        changed.
        """
        if not str(path).endswith(".model"):
            raise ValueError(f"{path} is not a .model file")
        other = type(self)()
        try:
            super(Quick, other).load(path)
            lines = Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n")
            n_special, n_merges = len(other.special_tokens), len(other.merges)
            if int(lines[2]) != n_special or len(lines) != 3 + n_special + n_merges:
                raise ValueError
            known = set(range(256))
            for pair, new_id in other.merges.items():
                if not known.issuperset(pair) or new_id != len(known):
                    raise ValueError
                known.add(new_id)
        except (KeyError, IndexError, ValueError):
            raise ValueError(f"{path} is damaged, or not in minbpe's format") from None
        other._use_pattern(other.pattern)
        other.register_special_tokens(other.special_tokens)
        self.byte_ids = Quick.byte_ids
        self.__dict__.update(other.__dict__)

    def to_tiktoken(self, name: str) -> tiktoken.Encoding:
        """The same tokenizer as a tiktoken.Encoding; ValueError where that cannot express it."""
        from .tiktoken_io import to_tiktoken

        return to_tiktoken(self, name)


class BasicTokenizer(Quick, build.BasicTokenizer):
    """Byte-pair encoding on the whole text as one chunk."""

    def chunks(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """The chunks of the texts joined, in lists: here one."""
        yield ["".join(texts)]

    def _use_pattern(self, pattern: str) -> None:
        if pattern:
            raise ValueError("the file has a split pattern: load it with RegexTokenizer")


class RegexTokenizer(Quick, build.RegexTokenizer):
    """Byte-pair encoding within the chunks that `pattern` cuts the text into."""

    def __init__(self, pattern: str = GPT2_PATTERN):
        super().__init__(pattern)
        self._use_pattern(pattern)

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
        self._for_ascii = ascii_pattern(pattern) if ours else self._compiled
        self.pattern = pattern

    def split(self, text: str) -> list[str]:
        """The chunks that are merged each by itself.

        >>> RegexTokenizer().split("we're  here")
        ['we', "'re", ' ', ' here']
        """
        pattern = self._for_ascii if text.isascii() else self._compiled
        return pattern.findall(text)

    def chunks(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """The chunks of the texts joined; the last two are held back until more text has come.

        What follows may change them ("'l" and "l" are one chunk, spaces before a word are two) but,
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
        """The tokenizer of a tiktoken.Encoding, special tokens and all."""
        from .tiktoken_io import merges_of

        tokenizer = cls(encoding._pat_str)
        tokenizer.byte_ids, tokenizer.merges = merges_of(encoding)
        tokenizer.register_special_tokens(encoding._special_tokens)
        return tokenizer


class CharTokenizer(build.CharTokenizer):
    """Every distinct character of `text` is a token, in the order of their code points."""

    def __init__(self, text: str):
        super().__init__(text)
        self.characters = "".join(sorted(set(text)))
        self.special_tokens: dict[str, int] = {}

    def register_special_tokens(self, special_tokens: dict[str, int]) -> None:
        """Give strings such as <|endoftext|> ids after those of the characters; for decode alone.

        Raises ValueError for an id that is taken.
        """
        if set(special_tokens.values()) & set(range(len(self.characters))):
            raise ValueError(f"an id of {special_tokens} is taken")
        self.vocab = dict(enumerate(self.characters))
        self.vocab |= {special_id: token for token, special_id in special_tokens.items()}
        self.special_tokens = dict(special_tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a character never seen is a ValueError that names it."""
        if unknown := set(text).difference(self.characters):
            raise ValueError(
                f"the character {min(unknown, key=text.index)!r} is not among the "
                f"{len(self.characters)} that this tokenizer knows"
            )
        return super().encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, integers of any kind; one outside the vocabulary is a ValueError."""
        return checked(super().decode, ids, f"vocabulary of {len(self.characters)} characters")

    def save(self, prefix: str) -> None:
        """Write prefix.json."""
        content: dict = {"characters": self.characters}
        if self.special_tokens:
            content["special_tokens"] = self.special_tokens
        text = json.dumps(content) + "\n"
        Path(f"{prefix}.json").write_text(text, encoding="utf-8", newline="\n")

    def load(self, path: str) -> None:
        """Read what save wrote; its characters and special tokens replace this one's."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            specials = dict(content.get("special_tokens", {}))
            if any(type(i) is not int for i in specials.values()):
                raise ValueError
            other = type(self)(content["characters"])
            other.register_special_tokens(specials)
            self.__dict__.update(other.__dict__)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path} does not hold the characters of a CharTokenizer") from None


# What they share


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, as tiktoken has it."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def checked(decode: Callable[[list[int]], str], ids: Iterable[int], where: str) -> str:
    """decode(ids), for integers of any kind; an id that is not there is a ValueError."""
    try:
        return decode(list(map(operator.index, ids)))
    except KeyError as error:
        raise ValueError(f"id {error.args[0]} is not in the {where}") from None


def pattern_of(specials: Iterable[str]) -> regex.Pattern:
    """A pattern that finds special tokens, the longest first where several begin."""
    return regex.compile(
        "|".join(regex.escape(token) for token in sorted(specials, key=len, reverse=True))
    )


def ascii_pattern(pattern: str) -> re.Pattern:
    """GPT-2's or GPT-4's pattern for a text of ASCII alone; the standard library is faster."""
    pattern = pattern.replace(r"\p{L}\p{N}]", "A-Za-z0-9]")
    return re.compile(pattern.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]"), re.ASCII)


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
