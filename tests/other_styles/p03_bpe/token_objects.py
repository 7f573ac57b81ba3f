"""Tokens are objects with bytes and an id; a text is a list of them."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import regex

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT4_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""
)


@dataclass(eq=False, frozen=True, slots=True)
class Token:
    id: int
    content: bytes
    made_of: tuple[Token, Token] | None = None


def get_stats(ids, counts=None):
    if counts is None:
        counts = Counter()
    for i in range(len(ids) - 1):
        pair = (ids[i], ids[i + 1])
        counts[pair] = counts.get(pair, 0) + 1
    return counts


def merge(ids, pair, new_id):
    left, right = pair
    out = []
    rest = iter(range(len(ids)))
    for i in rest:
        if i + 1 < len(ids) and ids[i] == left and ids[i + 1] == right:
            out.append(new_id)
            next(rest)
        else:
            out.append(ids[i])
    return out


class BasicTokenizer:
    def __init__(self):
        self.special = {}
        self._start_over()

    def _start_over(self):
        self.bytes = [Token(b, bytes((b,))) for b in range(256)]
        self.made = {}  # (Token, Token) -> Token, in the order of training

    @property
    def merges(self):
        return {(a.id, b.id): token.id for (a, b), token in self.made.items()}

    @property
    def vocab(self):
        tokens = [*self.bytes, *self.made.values()]
        vocab = {token.id: token.content for token in tokens}
        vocab.update((i, name.encode()) for name, i in self.special.items())
        return vocab

    @property
    def pattern(self):
        return ""

    def pieces(self, text):
        return [text] if text else []

    def spell(self, piece):
        return [self.bytes[b] for b in piece.encode("utf-8")]

    def train(self, text, vocab_size, verbose=False):
        if vocab_size < 256:
            raise ValueError(f"{vocab_size} ids do not even hold the 256 bytes")
        self._start_over()
        # Equal pieces are counted once, with their number.
        words = {piece: self.spell(piece) for piece in self.pieces(text)}
        number = Counter(self.pieces(text))
        for new_id in range(256, vocab_size):
            counts = {}
            for piece, tokens in words.items():
                for pair in pairwise(tokens):
                    counts[pair] = counts.get(pair, 0) + number[piece]
            if not counts:
                warnings.warn(f"no pair is left after {new_id} ids", stacklevel=2)
                return
            best = max(counts.values())
            a, b = pair = next(pair for pair, n in counts.items() if n == best)
            self.made[pair] = token = Token(new_id, a.content + b.content, pair)
            words = {piece: merge(tokens, pair, token) for piece, tokens in words.items()}
            if verbose:
                print(new_id, token.content, best)

    def encode(self, text, allowed_special="none_raise"):
        allowed = self._allowed(text, allowed_special)
        ids, start = [], 0
        while start <= len(text):
            found = [(text.find(s, start), -len(s), s) for s in allowed if text.find(s, start) >= 0]
            end, _, special = min(found, default=(len(text), 0, ""))
            for piece in self.pieces(text[start:end]):
                ids += [token.id for token in self._join(self.spell(piece))]
            if not special:
                break
            ids.append(self.special[special])
            start = end + len(special)
        return ids

    def _allowed(self, text, allowed_special):
        if allowed_special == "all":
            return set(self.special)
        if allowed_special == "none":
            return set()
        allowed = set() if allowed_special == "none_raise" else set(allowed_special)
        for name in self.special.keys() - allowed:
            if name in text:
                raise ValueError(f"{name!r} stands in the text and is not allowed")
        return allowed & self.special.keys()

    def _join(self, tokens):
        while True:
            known = [self.made[p] for p in pairwise(tokens) if p in self.made]
            if not known:
                return tokens
            first = min(known, key=lambda token: token.id)
            tokens = merge(tokens, first.made_of, first)

    def decode(self, ids):
        vocab = self.vocab
        unknown = [i for i in ids if i not in vocab]
        if unknown:
            raise ValueError(f"not in the vocabulary: {unknown}")
        return str(b"".join(vocab[i] for i in ids), encoding="utf-8", errors="replace")

    def register_special_tokens(self, special_tokens):
        taken = range(256 + len(self.made))
        for name, i in special_tokens.items():
            if i in taken:
                raise ValueError(f"id {i} of {name!r} is taken")
        self.special = dict(special_tokens)

    def save(self, prefix):
        lines = ["minbpe v1", self.pattern, str(len(self.special))]
        lines += [f"{name} {i}" for name, i in self.special.items()]
        lines += [f"{a} {b}" for a, b in self.merges]
        Path(f"{prefix}.model").write_bytes("".join(line + "\n" for line in lines).encode())
        readable = [f"{i}\t{content!r}\n" for i, content in self.vocab.items()]
        Path(f"{prefix}.vocab").write_text("".join(readable), encoding="utf-8")

    def load(self, path):
        version, pattern, count, *rest = Path(path).read_bytes().decode().split("\n")
        if version != "minbpe v1":
            raise ValueError(f"{path} is not a minbpe model")
        specials, rest = rest[: int(count)], rest[int(count) :]
        self._start_over()
        tokens = list(self.bytes)
        for line in rest:
            if line:
                a, b = (tokens[int(i)] for i in line.split())
                tokens.append(Token(len(tokens), a.content + b.content, (a, b)))
                self.made[a, b] = tokens[-1]
        self.special = {s[: s.rindex(" ")]: int(s[s.rindex(" ") :]) for s in specials}
        self._read_pattern(pattern)

    def _read_pattern(self, pattern):
        pass


class RegexTokenizer(BasicTokenizer):
    def __init__(self, pattern=GPT2_PATTERN):
        self.compiled = regex.compile(pattern)
        super().__init__()

    @property
    def pattern(self):
        return self.compiled.pattern

    def pieces(self, text):
        return [m.group() for m in self.compiled.finditer(text)]

    def _read_pattern(self, pattern):
        self.compiled = regex.compile(pattern)


class CharTokenizer:
    def __init__(self, text):
        self.alphabet = "".join(sorted(set(text)))

    def encode(self, text):
        unknown = set(text) - set(self.alphabet)
        if unknown:
            raise ValueError(f"unknown: {', '.join(map(repr, sorted(unknown)))}")
        return list(map(self.alphabet.index, text))

    def decode(self, ids):
        ids = list(ids)
        if any(not 0 <= i < len(self.alphabet) for i in ids):
            raise ValueError(f"ids run from 0 to {len(self.alphabet) - 1}")
        return "".join([self.alphabet[i] for i in ids])
