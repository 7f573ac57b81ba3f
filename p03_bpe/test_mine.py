"""A reader's tokenizer in another style, put in place of ours, is used for all but learning."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OTHER_STYLE = '''
import regex
from p03_bpe.build import GPT2_PATTERN


class RegexTokenizer:
    """Merges as a list of pairs of bytes, everything else derived from it."""

    def __init__(self, pattern=GPT2_PATTERN):
        self._pat, self._pairs, self._extra = regex.compile(pattern), [], {}

    @property
    def vocab(self):
        table = [bytes([b]) for b in range(256)] + [a + b for a, b in self._pairs]
        return dict(enumerate(table)) | {i: t.encode() for t, i in self._extra.items()}

    @property
    def merges(self):
        ids = {token: i for i, token in reversed(self.vocab.items())}
        return {(ids[a], ids[b]): 256 + n for n, (a, b) in enumerate(self._pairs)}

    def train(self, text, vocab_size):
        raise MemoryError("too slow to be called")

    def encode(self, text, allowed_special="none_raise"):
        assert allowed_special == "none" or not any(t in text for t in self._extra)
        out = []
        for chunk in self._pat.findall(text):
            parts = [bytes([b]) for b in chunk.encode()]
            for a, b in self._pairs:
                i = 0
                while i < len(parts) - 1:
                    if (parts[i], parts[i + 1]) == (a, b):
                        parts[i : i + 2] = [a + b]
                    i += 1
            ids = {token: i for i, token in reversed(self.vocab.items())}
            out += [ids[part] for part in parts]
        return out

    def decode(self, ids):
        vocab = self.vocab
        return b"".join(vocab[i] for i in ids).decode("utf-8", "replace")

    def register_special_tokens(self, extra):
        self._extra = extra

    def load(self, path):
        lines = open(path, encoding="utf-8").read().split("\\\\n")
        self.__init__(lines[1])
        for line in lines[3:-1]:
            a, b = (self.vocab[int(i)] for i in line.split())
            self._pairs.append((a, b))
'''
PROGRAM = """
import importlib, sys, types
name, text = "p03_bpe.build_of_yours", sys.argv[1]
package = types.ModuleType("p03_bpe")
package.__path__ = [sys.argv[2]]
sys.modules["p03_bpe"] = package
build = importlib.import_module("p03_bpe.build")
ours = build.RegexTokenizer()
ours.train(text, 280)
theirs = types.ModuleType(name)
exec(sys.stdin.read(), vars(theirs))
build.RegexTokenizer = theirs.RegexTokenizer
del sys.modules["p03_bpe"]
import p03_bpe
tokenizer = p03_bpe.RegexTokenizer()
assert isinstance(tokenizer, theirs.RegexTokenizer)
tokenizer.train(text, 280)
assert tokenizer.merges == ours.merges, tokenizer.merges
for _ in range(2):
    assert tokenizer.encode(text + " new", allowed_special="none") == ours.encode(text + " new")
assert tokenizer.encode("a new text") == ours.encode("a new text")
assert tokenizer.decode(ours.encode(text)) == text
tokenizer.train("xyxy", 300)
assert tokenizer.encode("xyxy", "none") == [257]
print("all of it")
"""


def test_a_readers_class_is_used_by_its_public_names():
    text = "the three thistles sifted, the sieve of thistles\n" * 3
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, text, str(ROOT / "p03_bpe")],
        input=OTHER_STYLE.replace("\\\\", "\\"),
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
    )
    assert done.stdout == "all of it\n", done.stderr


def test_ours_is_known_as_ours():
    from p03_bpe import fast, mine

    assert mine.is_ours()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mine.build, "RegexTokenizer", fast.RegexTokenizer)
        assert not mine.is_ours()
