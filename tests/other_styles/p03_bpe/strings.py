"""Ids are characters: a text is a str, and a merge is str.replace; two unrelated classes."""

from itertools import pairwise

import regex as re

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT4_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""
)
WALL = chr(0x10FFFF)  # between chunks; no vocabulary is that large


def get_stats(ids, counts=None):
    counts = counts if counts is not None else {}
    for pair in pairwise(ids):
        counts[pair] = counts.get(pair, 0) + 1
    return counts


def merge(ids, pair, new_id):
    text = "".join(map(chr, ids))
    return [ord(c) for c in text.replace(chr(pair[0]) + chr(pair[1]), chr(new_id))]


def as_characters(chunks):
    return WALL.join(chunk.encode("utf-8").decode("latin-1") for chunk in chunks)


def find_merges(text, vocab_size, verbose):
    if vocab_size < 256:
        raise ValueError("vocab_size counts the 256 bytes too")
    merges = {}
    for new in range(256, vocab_size):
        stats = {p: n for p, n in get_stats(text).items() if WALL not in p}
        if not stats:
            print(f"stopped early: {new} tokens")
            break
        (a, b), n = max(stats.items(), key=lambda item: item[1])
        text = text.replace(a + b, chr(new))
        merges[ord(a), ord(b)] = new
        if verbose:
            print(new, (ord(a), ord(b)), n)
    return merges


def merge_all(text, merges):
    for (a, b), new in merges.items():
        text = text.replace(chr(a) + chr(b), chr(new))
    return [ord(c) for c in text if c != WALL]


def expand(merges, specials):
    vocab = {i: bytes([i]) for i in range(256)}
    for (a, b), new in merges.items():
        vocab[new] = vocab[a] + vocab[b]
    for token, i in specials.items():
        vocab[i] = token.encode("utf-8")
    return vocab


def cut(text, specials, allowed):
    """Pieces of text and special tokens in turn: odd places are specials."""
    if allowed == "all":
        use = list(specials)
    elif allowed in ("none", "none_raise"):
        use = []
    elif isinstance(allowed, str):
        raise ValueError(f"allowed_special={allowed!r}")
    else:
        use = [t for t in specials if t in allowed]
    if allowed not in ("all", "none"):
        for token in specials:
            if token in text and token not in use:
                raise ValueError(f"special token not allowed here: {token}")
    if not use:
        return [text]
    use.sort(key=len, reverse=True)
    return re.split("(" + "|".join(map(re.escape, use)) + ")", text)


def write(prefix, pattern, specials, merges):
    lines = ["minbpe v1", pattern, len(specials)]
    lines += [f"{token} {i}" for token, i in specials.items()]
    lines += [f"{a} {b}" for a, b in merges]
    with open(str(prefix) + ".model", "w", encoding="utf-8", newline="") as f:
        f.write("\n".join(map(str, lines)) + "\n")


def read(path):
    with open(path, encoding="utf-8", newline="") as f:
        head, pattern, n, *lines = f.read().removesuffix("\n").split("\n")
    if head != "minbpe v1":
        raise ValueError(f"cannot read {path}")
    specials = dict(line.rsplit(" ", 1) for line in lines[: int(n)])
    pairs = [tuple(map(int, line.split(" "))) for line in lines[int(n) :]]
    merges = {pair: i for i, pair in enumerate(pairs, start=256)}
    return pattern, {token: int(i) for token, i in specials.items()}, merges


def text_of(ids, vocab):
    for i in ids:
        if i not in vocab:
            raise ValueError(f"{i} is no id of this vocabulary")
    return b"".join(vocab[i] for i in ids).decode("utf-8", errors="replace")


class BasicTokenizer:
    def __init__(self):
        self.merges, self.specials = {}, {}
        self.vocab = expand({}, {})

    def train(self, text, vocab_size, verbose=False):
        self.merges = find_merges(as_characters([text]), vocab_size, verbose)
        self.vocab = expand(self.merges, self.specials)

    def register_special_tokens(self, tokens):
        self.specials = dict(tokens)
        self.vocab = expand(self.merges, self.specials)

    def encode(self, text, allowed_special="none_raise"):
        ids = []
        for k, part in enumerate(cut(text, self.specials, allowed_special)):
            if k % 2:
                ids.append(self.specials[part])
            else:
                ids += merge_all(as_characters([part]), self.merges)
        return ids

    def decode(self, ids):
        return text_of(ids, self.vocab)

    def save(self, prefix):
        write(prefix, "", self.specials, self.merges)

    def load(self, path):
        _, self.specials, self.merges = read(path)
        self.vocab = expand(self.merges, self.specials)


class RegexTokenizer:
    def __init__(self, pattern=GPT2_PATTERN):
        self.pattern = pattern
        self.merges, self.special_tokens = {}, {}
        self.vocab = expand({}, {})

    def train(self, text, vocab_size, verbose=False):
        chunks = re.findall(self.pattern, text)
        self.merges = find_merges(as_characters(chunks), vocab_size, verbose)
        self.vocab = expand(self.merges, self.special_tokens)

    def register_special_tokens(self, tokens):
        self.special_tokens = dict(tokens)
        self.vocab = expand(self.merges, self.special_tokens)

    def encode(self, text, allowed_special="none_raise"):
        ids = []
        for k, part in enumerate(cut(text, self.special_tokens, allowed_special)):
            if k % 2:
                ids.append(self.special_tokens[part])
                continue
            chunks = as_characters(re.findall(self.pattern, part))
            ids.extend(merge_all(chunks, self.merges))
        return ids

    def decode(self, ids):
        return text_of(ids, self.vocab)

    def save(self, prefix):
        write(prefix, self.pattern, self.special_tokens, self.merges)

    def load(self, path):
        self.pattern, self.special_tokens, self.merges = read(path)
        self.vocab = expand(self.merges, self.special_tokens)


class CharTokenizer:
    def __init__(self, text):
        self.to_char = dict(enumerate(sorted(set(text))))
        self.to_id = dict(zip(self.to_char.values(), self.to_char))

    def encode(self, text):
        ids = []
        for c in text:
            if c not in self.to_id:
                raise ValueError(f"{c!r} (U+{ord(c):04X}) does not occur in the training text")
            ids.append(self.to_id[c])
        return ids

    def decode(self, ids):
        text = ""
        for i in ids:
            if i not in self.to_char:
                raise ValueError(f"there is no character {i}")
            text += self.to_char[i]
        return text
