"""NumPy: all pairs are counted and replaced at once; -1 stands between chunks."""

import io
import warnings

import numpy as np
import regex

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT4_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""
)
BETWEEN = -1


def count(ids):
    """The pairs of an array, their counts, and where each occurs first."""
    a, b = ids[:-1], ids[1:]
    inside = np.flatnonzero((a != BETWEEN) & (b != BETWEEN))
    keys = a[inside] << 32 | b[inside]
    keys, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return keys, counts, inside[first]


def replace(ids, pair, new_id):
    at = np.flatnonzero((ids[:-1] == pair[0]) & (ids[1:] == pair[1]))
    if pair[0] == pair[1] and len(at):
        # In a run of neighbours only every second one begins a pair.
        run_starts = np.concatenate([[True], np.diff(at) != 1])
        start = np.maximum.accumulate(np.where(run_starts, at, 0))
        at = at[(at - start) % 2 == 0]
    ids = ids.copy()
    ids[at] = new_id
    return np.delete(ids, at + 1)


def get_stats(ids, counts=None):
    counts = {} if counts is None else counts
    keys, numbers, first = count(np.array(ids, dtype=np.int64).reshape(-1))
    for k in np.argsort(first):
        pair = int(keys[k] >> 32), int(keys[k] & 0xFFFFFFFF)
        counts[pair] = counts.get(pair, 0) + int(numbers[k])
    return counts


def merge(ids, pair, new_id):
    return replace(np.array(ids, dtype=np.int64).reshape(-1), pair, new_id).tolist()


class BasicTokenizer:
    def __init__(self):
        self.pattern = ""
        self.merges = {}
        self.special_tokens = {}

    @property
    def vocab(self):
        table = [bytes([i]) for i in range(256)]
        for a, b in self.merges:
            table.append(table[a] + table[b])
        vocab = dict(enumerate(table))
        vocab |= {i: token.encode("utf-8") for token, i in self.special_tokens.items()}
        return vocab

    def _split(self, text):
        return [text]

    def _array(self, text):
        pieces = []
        for chunk in self._split(text):
            pieces.append(np.frombuffer(chunk.encode("utf-8"), np.uint8).astype(np.int64))
            pieces.append(np.array([BETWEEN]))
        return np.concatenate(pieces) if pieces else np.array([], np.int64)

    def train(self, text, vocab_size, verbose=False):
        if vocab_size < 256:
            raise ValueError(f"vocab_size {vocab_size} < 256")
        ids = self._array(text)
        self.merges = {}
        for new_id in range(256, vocab_size):
            keys, counts, first = count(ids)
            if keys.size == 0:
                warnings.warn(f"training stops at {new_id} tokens", RuntimeWarning, stacklevel=2)
                break
            best = np.lexsort((first, -counts))[0]
            pair = int(keys[best]) >> 32, int(keys[best]) & (2**32 - 1)
            ids = replace(ids, pair, new_id)
            self.merges[pair] = new_id
            if verbose:
                print(f"{pair} -> {new_id} ({counts[best]})")

    def _encode(self, text):
        """Every merge in turn, over the whole text at once."""
        ids = self._array(text)
        for pair, new_id in self.merges.items():
            if len(ids) < 2:
                break
            ids = replace(ids, pair, new_id)
        return ids[ids != BETWEEN].tolist()

    def encode(self, text, allowed_special="none_raise"):
        known = self.special_tokens
        if allowed_special == "none" or not known:
            return self._encode(text)
        if allowed_special == "all":
            allowed = list(known)
        elif allowed_special == "none_raise":
            allowed = []
        else:
            allowed = [token for token in known if token in allowed_special]
        for token in known:
            if token not in allowed and token in text:
                raise ValueError(f"the text holds the special token {token}")
        if not allowed:
            return self._encode(text)
        token = max(allowed, key=lambda t: (t in text, len(t)))
        if token not in text:
            return self._encode(text)
        # The longest one splits the text; the parts may hold shorter ones.
        ids = []
        for k, part in enumerate(text.split(token)):
            ids += [known[token]] if k else []
            ids += self.encode(part, set(allowed))
        return ids

    def decode(self, ids):
        vocab, out = self.vocab, io.BytesIO()
        for i in ids:
            piece = vocab.get(int(i))
            if piece is None:
                raise ValueError(f"unknown id {i}")
            out.write(piece)
        return out.getvalue().decode("utf-8", errors="replace")

    def register_special_tokens(self, special_tokens):
        self.special_tokens = dict(special_tokens)

    def save(self, prefix):
        with open(f"{prefix}.model", "wb") as f:
            f.write(f"minbpe v1\n{self.pattern}\n{len(self.special_tokens)}\n".encode())
            for token, i in self.special_tokens.items():
                f.write(f"{token} {i}\n".encode())
            pairs = np.array(list(self.merges), dtype=np.int64).reshape(-1, 2)
            np.savetxt(f, pairs, fmt="%d")
        with open(f"{prefix}.vocab", "w", encoding="utf-8") as f:
            f.writelines(f"{i} {piece!r}\n" for i, piece in self.vocab.items())

    def load(self, path):
        with open(path, "rb") as f:
            if f.readline() != b"minbpe v1\n":
                raise ValueError(f"not a model: {path}")
            self._use(f.readline()[:-1].decode("utf-8"))
            specials = [f.readline()[:-1].decode("utf-8") for _ in range(int(f.readline()))]
            pairs = [tuple(int(n) for n in line.split()) for line in f]
        self.special_tokens = {s.rsplit(" ", 1)[0]: int(s.rsplit(" ", 1)[1]) for s in specials}
        self.merges = dict(zip(pairs, range(256, 256 + len(pairs))))

    def _use(self, pattern):
        self.pattern = pattern


class RegexTokenizer(BasicTokenizer):
    def __init__(self, pattern=GPT2_PATTERN):
        super().__init__()
        self._use(pattern)

    def _split(self, text):
        return regex.findall(self.pattern, text)


class CharTokenizer:
    def __init__(self, text):
        self.codes = np.unique(np.array([ord(c) for c in text], dtype=np.int64))

    def encode(self, text):
        codes = np.array([ord(c) for c in text], dtype=np.int64)
        new = codes[~np.isin(codes, self.codes)]
        if new.size:
            raise ValueError(f"{chr(new[0])!r} is not in the vocabulary")
        return np.searchsorted(self.codes, codes).tolist()

    def decode(self, ids):
        ids = np.array(list(ids), dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.codes.size):
            raise ValueError(f"an id is outside 0..{self.codes.size - 1}")
        return "".join(map(chr, self.codes[ids]))
