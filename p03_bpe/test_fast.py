"""The quick forms give what the listing gives, merge for merge, id for id, on difficult texts."""

import random
import re
import tracemalloc
import warnings
from itertools import chain

import pytest
import regex
import tiktoken

from p03_bpe import GPT2_PATTERN, GPT4_PATTERN, build, fast
from p03_bpe.corpus import load_corpus
from p03_bpe.fast import BasicTokenizer, RegexTokenizer, apply_merges, ascii_pattern, learn_merges

PATTERNS = [GPT2_PATTERN, GPT4_PATTERN]


def planes(draw):
    """A character of each of Unicode's seventeen planes, surrogates left out."""
    firsts = [0xE000, *range(1 << 16, 17 << 16, 1 << 16)]
    return [chr(draw.randrange(first, (first | 0xFFFF) - 1)) for first in firsts]


def difficult(kind, draw):
    """A text of one kind."""
    if kind == "one letter":
        return "a" * draw.randrange(1, 200)
    if kind == "runs":
        return "".join(draw.choice("ab \n") * draw.randrange(1, 12) for _ in range(25))
    if kind == "all planes":
        return "".join(draw.choices([*planes(draw), " ", "a", "é", "1"], k=80))
    if kind == "doubled":  # many pairs of the same count
        text = "".join(draw.choices("abcdefgh ", k=40))
        return text + text[::-1] + text
    alphabet = {"two letters": "ab", "words": "ab c", "spaces": " \t\n\r\u00a0x1!'s"}[kind]
    return "".join(draw.choices(alphabet, k=draw.randrange(1, 150)))


KINDS = ["one letter", "two letters", "words", "runs", "doubled", "spaces", "all planes"]


BOTH = pytest.mark.parametrize("cls", ["BasicTokenizer", "RegexTokenizer"], ids=["basic", "regex"])


def trained(cls, text, vocab_size):
    tokenizer = cls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer.train(text, vocab_size)
    return tokenizer


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_quick_is_what_the_listing_gives(cls, kind):
    draw = random.Random(kind)
    for _ in range(25):
        text, other = difficult(kind, draw), difficult(kind, draw)
        plain, quick = (trained(getattr(m, cls), text, 316) for m in (build, fast))
        assert list(quick.merges.items()) == list(plain.merges.items()), text
        assert quick.vocab == plain.vocab
        for probe in (text, other):  # text: from memory
            assert quick.encode(probe) == plain.encode(probe), (text, probe)
        ids = draw.choices(range(len(plain.vocab)), k=20)
        assert quick.decode(ids) == plain.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_quick_is_what_the_listing_gives_for_single_chunks(kind):
    draw = random.Random(kind)
    for _ in range(25):
        texts = [difficult(kind, draw) for _ in range(4)]
        known, plain = {}, build.BasicTokenizer()
        plain.split = lambda texts: texts  # each a chunk
        pairs = dict(learn_merges(texts, 60, known))
        merges = plain.merges = {pair: 256 + n for n, pair in enumerate(pairs)}
        for chunk in (*texts, difficult(kind, draw)):
            expected = plain.encode(chunk)
            assert apply_merges(list(chunk.encode("utf-8")), merges) == expected, chunk
            assert known.get(chunk, expected) == expected, chunk


@BOTH
def test_quick_is_what_the_listing_gives_on_the_beginning_of_the_corpus(cls):
    text = load_corpus()[:12_000]
    plain, quick = (trained(getattr(module, cls), text[:8_000], 300) for module in (build, fast))
    assert list(quick.merges.items()) == list(plain.merges.items())
    unseen = text[8_000:] if cls == "RegexTokenizer" else text[8_000:8_600]
    assert quick.encode(unseen) == plain.encode(unseen)


def test_special_tokens_are_those_of_the_listing():
    draw, specials = random.Random(7), {"<|e|>": 900, "<|e|>!": 901, "a": 902}
    plain, quick = (trained(m.RegexTokenizer, "abc abc <|e|> " * 3, 270) for m in (build, fast))
    for tokenizer in (plain, quick):
        tokenizer.register_special_tokens(specials)
    for _ in range(200):
        text = "".join(draw.choices(["<|e|>", "!", "a", "b", " abc", "<|", "|>", "\n"], k=6))
        for allowed in ("all", "none", "none_raise", {"<|e|>"}, {"<|e|>!", "a"}, {"<|e|>", "zz"}):
            ids = []
            for tokenizer in (plain, quick):
                try:
                    ids.append(tokenizer.encode(text, allowed))
                except ValueError:
                    ids.append("refused")
            assert ids[0] == ids[1], (text, allowed)


def test_files_go_from_one_to_the_other(tmp_path):
    plain, quick = (trained(module.RegexTokenizer, "abc abc ab", 260) for module in (build, fast))
    for tokenizer, name in ((plain, "plain"), (quick, "quick")):
        tokenizer.register_special_tokens({"<|e|>": 900})
        tokenizer.save(str(tmp_path / name))
    assert (tmp_path / "plain.model").read_bytes() == (tmp_path / "quick.model").read_bytes()
    other = build.RegexTokenizer("x|.")
    other.load(str(tmp_path / "quick.model"))
    assert vars(other) == vars(plain)


@pytest.mark.parametrize("pattern", PATTERNS, ids=["gpt2", "gpt4"])
def test_the_standard_library_cuts_ascii_alike(pattern):
    draw, whole = random.Random(3), regex.compile(pattern)
    everything = "".join(map(chr, range(128)))
    blanks = " \n\r\x0b\x0c\x1c\x1fa!1"
    for alphabet in (everything, "ab1 \n\r\t'!sSLlVvEe", blanks, "'sStTrReEvV a"):
        for _ in range(1500):
            text = "".join(draw.choices(alphabet, k=draw.randrange(25)))
            assert ascii_pattern(pattern).findall(text) == whole.findall(text), repr(text)


# Texts in pieces


@pytest.mark.parametrize("pattern", PATTERNS, ids=["gpt2", "gpt4"])
def test_pieces_of_a_text_are_encoded_like_the_whole(pattern):
    draw, tokenizer = random.Random(4), RegexTokenizer(pattern)
    tokenizer.train("we'll see   the\n\n  thing's end, we've said 1234!\n" * 3, 283)
    for _ in range(400):
        text = "".join(draw.choices("we'lstv  \n\r\t1!é", k=draw.randrange(60)))
        cuts = sorted(draw.choices(range(len(text) + 1), k=draw.randrange(6)))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]
        assert list(tokenizer.encode_iterable(parts)) == tokenizer.encode(text), parts


def test_special_tokens_stand_between_pieces_and_are_not_put_together():
    tokenizer = RegexTokenizer()
    tokenizer.register_special_tokens({"<|end|>": 1000})
    parts = ["a ", "<|end|>", "<|end|> b", "<|e", "nd|>"]
    ids = list(tokenizer.encode_iterable(parts, "all"))
    assert ids == [97, 32, 1000, 1000, 32, 98, *b"<|end|>"]
    assert list(tokenizer.encode_iterable(["<|e", "nd|>"])) == list(b"<|end|>"), "cut in two"
    with pytest.raises(ValueError, match=re.escape("'<|end|>' at position 2")):
        list(tokenizer.encode_iterable(["b", "a <|end|>"]))


def test_where_a_pattern_looks_further_pieces_are_not_the_whole():
    """What is held back is enough for GPT-2's and GPT-4's patterns, not for every pattern."""
    far = RegexTokenizer(r"[ab]+(?=.*!)|.")  # letters are together if an exclamation mark follows
    assert far.split("aab!") == ["aab", "!"]
    assert list(chain.from_iterable(far.chunks("aab!"))) == ["a", "ab", "!"]


def test_training_takes_pieces_of_a_text():
    text = "the thistle sifter\nsifted a sieve of unsifted thistles\n" * 5
    whole, parts = RegexTokenizer(), RegexTokenizer()
    whole.train(text, 280)
    parts.train(iter(text.splitlines(keepends=True)), 280)
    assert list(parts.merges) == list(whole.merges)


def test_memory_stays_flat():
    """A text a hundred times as long takes no more memory, to train on and to encode."""
    tokenizer, draw = RegexTokenizer(), random.Random(5)
    words = [" " + "".join(draw.choices("abcdef", k=5)) for _ in range(200)]
    lines = ["".join(draw.choices(words, k=20)) + "\n" for _ in range(20)]

    def peak(n):
        tracemalloc.start()
        endless = (line for _ in range(n) for line in lines)
        tokenizer.train(endless, 280)
        for _ in tokenizer.encode_iterable(line for _ in range(n) for line in lines):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    assert peak(100) < 1.3 * peak(1)


# What is remembered


def test_other_merges_are_not_answered_from_memory():
    tokenizer = RegexTokenizer()
    tokenizer.train("ab ab abc", 258)
    assert tokenizer.encode("ab") == [256]
    tokenizer.merges = {}
    assert tokenizer.encode("ab") == [97, 98]
    tokenizer.train("bc bc", 257)
    assert tokenizer.encode("abc") == [97, 256]


def test_what_is_remembered_has_an_end(monkeypatch):
    tokenizer = BasicTokenizer()
    tokenizer.encode("x" * 1000)
    assert tokenizer._known == {}, "a long chunk was kept"
    monkeypatch.setattr(fast, "MANY", 50)
    tokenizer, text = RegexTokenizer(), "".join(f" {n}" for n in range(1000))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert 0 < len(tokenizer._known) <= 50


# tiktoken


@pytest.mark.parametrize("cls", [BasicTokenizer, RegexTokenizer], ids=["basic", "regex"])
def test_tiktoken_gives_the_same_ids_on_difficult_texts(cls):
    draw = random.Random(6)
    for kind in KINDS:
        tokenizer = cls()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer.train("".join(difficult(kind, draw) for _ in range(5)), 300)
        if len(set(tokenizer.vocab.values())) < len(tokenizer.vocab):
            continue  # two merges, the same bytes: to_tiktoken says so
        encoding = tokenizer.to_tiktoken(kind)
        for _ in range(10):
            text = difficult(kind, draw)
            assert encoding.encode(text) == tokenizer.encode(text), (kind, text)


def test_from_tiktoken_gives_the_same_ids():
    by_size = [bytes([b]) for b in (*range(97, 123), *range(97), *range(123, 256))]
    extra = [b"he", b"th", b"the", b"34", b" the", b"er", b"ther", b" t", b"\xc3\xa9"]
    encoding = tiktoken.Encoding(
        "shuffled",
        pat_str=GPT4_PATTERN,
        special_tokens={"<|end|>": 500},
        mergeable_ranks={token: rank for rank, token in enumerate(by_size + extra)},
    )
    tokenizer = RegexTokenizer.from_tiktoken(encoding)
    for text in ("a", "the other there then", "thé 1234 THE\n\n", "naïve 東京 😀"):
        ids = tokenizer.encode(text)
        assert ids == encoding.encode(text), text
        assert tokenizer.decode(ids) == text
    text = "a<|end|>"
    assert tokenizer.encode(text, "all") == encoding.encode(text, allowed_special="all")
    again = tokenizer.to_tiktoken("again")
    assert again._mergeable_ranks == encoding._mergeable_ranks
