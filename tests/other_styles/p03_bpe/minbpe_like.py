"""minbpe's way: a base class with save and load; the lowest merge first until none is left."""

import unicodedata

import regex as re


def get_stats(ids, counts=None):
    counts = {} if counts is None else counts
    for pair in zip(ids, ids[1:]):  # noqa: RUF007
        counts[pair] = counts.get(pair, 0) + 1
    return counts


def merge(ids, pair, idx):
    newids = []
    i = 0
    while i < len(ids):
        if ids[i] == pair[0] and i < len(ids) - 1 and ids[i + 1] == pair[1]:
            newids.append(idx)
            i += 2
        else:
            newids.append(ids[i])
            i += 1
    return newids


def replace_control_characters(s):
    chars = []
    for ch in s:
        chars.append(ch if unicodedata.category(ch)[0] != "C" else f"\\u{ord(ch):04x}")
    return "".join(chars)


def render_token(t):
    return replace_control_characters(t.decode("utf-8", errors="replace"))


class Tokenizer:
    def __init__(self):
        self.merges = {}
        self.pattern = ""
        self.special_tokens = {}
        self.vocab = self._build_vocab()

    def _build_vocab(self):
        vocab = {idx: bytes([idx]) for idx in range(256)}
        for (p0, p1), idx in self.merges.items():
            vocab[idx] = vocab[p0] + vocab[p1]
        for special, idx in self.special_tokens.items():
            vocab[idx] = special.encode("utf-8")
        return vocab

    def register_special_tokens(self, special_tokens):
        self.special_tokens = dict(special_tokens)
        self.vocab = self._build_vocab()

    def _chunks(self, text):
        raise NotImplementedError

    def train(self, text, vocab_size, verbose=False):
        if vocab_size < 256:
            raise ValueError("vocab_size must be at least 256")
        ids = [list(ch.encode("utf-8")) for ch in self._chunks(text)]
        self.merges = {}
        for idx in range(256, vocab_size):
            stats = {}
            for chunk_ids in ids:
                get_stats(chunk_ids, stats)
            if not stats:
                print(f"warning: nothing left to merge, the vocabulary ends at {idx}")
                break
            pair = max(stats, key=stats.get)
            ids = [merge(chunk_ids, pair, idx) for chunk_ids in ids]
            self.merges[pair] = idx
            if verbose:
                print(f"merge {idx}: {pair} had {stats[pair]} occurrences")
        self.vocab = self._build_vocab()

    def decode(self, ids):
        part_bytes = []
        for idx in ids:
            if idx not in self.vocab:
                raise ValueError(f"invalid token id: {idx}")
            part_bytes.append(self.vocab[idx])
        return b"".join(part_bytes).decode("utf-8", errors="replace")

    def _encode_chunk(self, text_bytes):
        ids = list(text_bytes)
        while len(ids) >= 2:
            stats = get_stats(ids)
            pair = min(stats, key=lambda p: self.merges.get(p, float("inf")))
            if pair not in self.merges:
                break
            ids = merge(ids, pair, self.merges[pair])
        return ids

    def encode_ordinary(self, text):
        ids = []
        for chunk in self._chunks(text):
            ids.extend(self._encode_chunk(chunk.encode("utf-8")))
        return ids

    def encode(self, text, allowed_special="none_raise"):
        if allowed_special == "all":
            special = self.special_tokens
        elif allowed_special == "none":
            special = {}
        elif allowed_special == "none_raise" or isinstance(allowed_special, (set, frozenset)):
            allowed = set() if allowed_special == "none_raise" else allowed_special
            special = {k: v for k, v in self.special_tokens.items() if k in allowed}
            for token in self.special_tokens:
                if token not in allowed and token in text:
                    raise ValueError(f"special token {token!r} in the text is not allowed")
        else:
            raise ValueError(f"allowed_special={allowed_special} not understood")
        if not special:
            return self.encode_ordinary(text)
        by_length = sorted(special, key=len, reverse=True)
        special_pattern = "(" + "|".join(re.escape(k) for k in by_length) + ")"
        ids = []
        for part in re.split(special_pattern, text):
            if part in special:
                ids.append(special[part])
            else:
                ids.extend(self.encode_ordinary(part))
        return ids

    def save(self, file_prefix):
        with open(file_prefix + ".model", "w", encoding="utf-8", newline="\n") as f:
            f.write("minbpe v1\n")
            f.write(f"{self.pattern}\n")
            f.write(f"{len(self.special_tokens)}\n")
            for special, idx in self.special_tokens.items():
                f.write(f"{special} {idx}\n")
            for idx1, idx2 in self.merges:
                f.write(f"{idx1} {idx2}\n")
        inverted_merges = {idx: pair for pair, idx in self.merges.items()}
        with open(file_prefix + ".vocab", "w", encoding="utf-8") as f:
            for idx, token in self.vocab.items():
                s = render_token(token)
                if idx in inverted_merges:
                    s0, s1 = (render_token(self.vocab[i]) for i in inverted_merges[idx])
                    f.write(f"[{s0}][{s1}] -> [{s}] {idx}\n")
                else:
                    f.write(f"[{s}] {idx}\n")

    def load(self, model_file):
        assert str(model_file).endswith(".model")
        merges, special_tokens = {}, {}
        idx = 256
        with open(model_file, encoding="utf-8", newline="\n") as f:
            version = f.readline().strip()
            assert version == "minbpe v1"
            self._set_pattern(f.readline().rstrip("\n"))
            num_special = int(f.readline().strip())
            for _ in range(num_special):
                special, special_idx = f.readline().rstrip("\n").rsplit(" ", 1)
                special_tokens[special] = int(special_idx)
            for line in f:
                idx1, idx2 = map(int, line.split())
                merges[(idx1, idx2)] = idx
                idx += 1
        self.merges = merges
        self.special_tokens = special_tokens
        self.vocab = self._build_vocab()

    def _set_pattern(self, pattern):
        self.pattern = pattern


GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT4_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""
)


class BasicTokenizer(Tokenizer):
    def _chunks(self, text):
        return [text]


class RegexTokenizer(Tokenizer):
    def __init__(self, pattern=None):
        super().__init__()
        self._set_pattern(GPT2_PATTERN if pattern is None else pattern)

    def _set_pattern(self, pattern):
        self.pattern = pattern
        self.compiled_pattern = re.compile(pattern)

    def _chunks(self, text):
        return re.findall(self.compiled_pattern, text)


class CharTokenizer:
    def __init__(self, text):
        self.chars = sorted(set(text))
        self.stoi = {ch: i for i, ch in enumerate(self.chars)}
        self.itos = dict(enumerate(self.chars))

    def encode(self, text):
        for ch in text:
            if ch not in self.stoi:
                raise ValueError(f"character {ch!r} was not in the training text")
        return [self.stoi[ch] for ch in text]

    def decode(self, ids):
        try:
            return "".join(self.itos[int(i)] for i in ids)
        except KeyError as e:
            raise ValueError(f"no character has the id {e}") from None
