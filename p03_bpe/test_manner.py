"""What our own tokenizers promise beyond the book: errors to act on, warnings, any integers."""

import re
import warnings

import numpy as np
import pytest

from p03_bpe import BasicTokenizer, CharTokenizer, RegexTokenizer, build

TEXT = "First Citizen: speak, speak, resolved.\n" * 5
BOTH = pytest.mark.parametrize("cls", [BasicTokenizer, RegexTokenizer], ids=["basic", "regex"])


def with_specials(cls=RegexTokenizer):
    tokenizer = cls()
    tokenizer.train(TEXT, 270)
    tokenizer.register_special_tokens({"<|endoftext|>": 1000, "<|end|>": 1001})
    return tokenizer


# Training


@BOTH
def test_training_ends_early_with_a_warning(cls):
    tokenizer = cls()
    with pytest.warns(UserWarning, match="no pair is left to merge: 258 tokens, not 300") as seen:
        tokenizer.train("abab", 300)
    assert seen[0].filename == __file__, "the warning points to the caller"


@BOTH
def test_a_full_vocabulary_gives_no_warning(cls):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cls().train(TEXT, 270)


@pytest.mark.parametrize("kind", ["BasicTokenizer", "RegexTokenizer"])
@pytest.mark.parametrize("size", [255, 0, -1], ids=str)
def test_a_small_vocabulary_is_a_value_error_that_says_why(kind, size):
    for module in (build, __import__("p03_bpe")):
        with pytest.raises(ValueError, match=f"vocab_size {size} .* bytes alone take 256"):
            getattr(module, kind)().train(TEXT, size)


@BOTH
def test_training_says_what_it_merges_when_asked(cls, capsys):
    cls().train(TEXT, 258)
    assert capsys.readouterr().out == ""
    cls().train("ababab", 257, verbose=True)
    assert capsys.readouterr().out == "merge 1: (97, 98) -> 256, 3 occurrences\n"


@BOTH
def test_training_does_not_take_the_id_of_a_special_token(cls):
    tokenizer = cls()
    tokenizer.register_special_tokens({"<|end|>": 260})
    with pytest.raises(ValueError, match=r"id 260 of '<\|end\|>'"):
        tokenizer.train(TEXT, 270)


# Special tokens


@BOTH
@pytest.mark.parametrize("allowed", ["none_raise", {"<|end|>"}, set()], ids=repr)
def test_a_special_token_that_is_not_allowed_is_named_with_its_place(cls, allowed):
    with pytest.raises(ValueError, match=re.escape("'<|endoftext|>' at position 1")):
        with_specials(cls).encode("a<|endoftext|>", allowed)


def test_the_listing_names_the_special_token():
    tokenizer = build.RegexTokenizer()
    tokenizer.register_special_tokens({"<|end|>": 1000})
    for allowed in ("none_raise", set()):
        with pytest.raises(ValueError, match=r"'<\|end\|>'"):
            tokenizer.encode("a<|end|>", allowed)


@BOTH
def test_basic_and_regex_have_special_tokens(cls, tmp_path):
    tokenizer, text = with_specials(cls), "a<|endoftext|>b"
    tokenizer.save(str(tmp_path / "t"))
    loaded = cls()
    loaded.load(tmp_path / "t.model")
    for one in (tokenizer, loaded):
        assert one.encode(text, "all") == [97, 1000, 98]
        assert one.decode([97, 1000, 98]) == text
        assert one.to_tiktoken("t").encode(text, allowed_special="all") == [97, 1000, 98]


def test_an_unknown_way_to_allow_specials_is_a_value_error():
    with pytest.raises(ValueError, match="'some'"):
        with_specials().encode("a", allowed_special="some")


@pytest.mark.parametrize("specials", [{"": 1000}, {"x": 97}, {"x": 256}, {"x": 900, "y": 900}])
def test_an_id_that_is_taken_is_a_value_error(specials):
    tokenizer = with_specials()
    with pytest.raises(ValueError, match="no text, or the id is taken"):
        tokenizer.register_special_tokens(specials)
    assert tokenizer.encode("<|end|>", "all") == [1001], "and nothing has changed"


# Encoding and decoding


@BOTH
def test_a_lone_surrogate_is_encoded_as_tiktoken_does(cls):
    tokenizer = with_specials(cls)
    theirs = tokenizer.to_tiktoken("t")
    for text in ("\ud800", "speak\udc00 speak", "\ud83d\ude00", "é\udfff東<|end|>"):
        ids = tokenizer.encode(text, "all")
        assert ids == theirs.encode(text, allowed_special="all")
        assert "\ud800" not in tokenizer.decode(ids)
    tokenizer.train("\ud800\ud800", 257)


class Whole:
    """A whole number, as a tensor of one is: no int, and no key of a dict."""

    __hash__ = None

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number


@BOTH
def test_decode_takes_integers_of_any_kind(cls):
    tokenizer = cls()
    assert tokenizer.decode(np.array([104, 105])) == "hi"
    assert tokenizer.decode([Whole(104), np.uint8(105)]) == "hi"
    assert tokenizer.decode(iter([104, 105])) == "hi"
    assert CharTokenizer("hi").decode([Whole(0), np.int16(1)]) == "hi"
    with pytest.raises(TypeError):
        tokenizer.decode([104.0])


@BOTH
@pytest.mark.parametrize("bad", [300, -1], ids=str)
def test_an_unknown_id_is_a_value_error_that_names_it(cls, bad):
    with pytest.raises(ValueError, match=f"id {bad} is not in the vocabulary of 256 tokens"):
        cls().decode([97, bad])


# Patterns


def test_a_pattern_with_a_group_is_refused():
    with pytest.raises(ValueError, match=r"use \(\?:"):
        RegexTokenizer(r"(a|b)+|.")


@pytest.mark.parametrize(
    "pattern, says", [("", "that is BasicTokenizer"), ("(", "is wrong")], ids=["none", "wrong"]
)
def test_a_pattern_that_cannot_be_used_is_a_value_error(pattern, says):
    with pytest.raises(ValueError, match=says):
        RegexTokenizer(pattern)


# Files


def test_the_vocab_file_shows_what_each_token_is_made_of(tmp_path):
    tokenizer = RegexTokenizer()
    tokenizer.train("ab ab ab\n\n", 258)
    tokenizer.save(str(tmp_path / "t"))
    lines = (tmp_path / "t.vocab").read_text(encoding="utf-8").split("\n")
    assert lines[10] == r"[\u000a] 10" and lines[195] == "[\ufffd] 195"
    assert lines[256:258] == ["[a][b] -> [ab] 256", "[ ][ab] -> [ ab] 257"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"minbpe v2\n\n0\n",
        b"minbpe v1\n",
        b"minbpe v1\nx\nmany\n",
        b"minbpe v1\nx\n2\n<|a|> 300\n",
        b"minbpe v1\nx\n0\n97\n",
        b"minbpe v1\nx\n0\n97 98 99\n",
        b"minbpe v1\nx\n0\n97 300\n",
        b"minbpe v1\nx\n0\n97 -1\n",
        b"minbpe v1\nx\n0\n97 98\n97 98\n",
        b"minbpe v1\nx\n1\n<|a|> 97\n",
        b"minbpe v1\n\xff\n0\n",
        b"minbpe v1\n(\n0\n",
        b"minbpe v1\n\n0\n",
    ],
    ids=[
        "empty",
        "version",
        "cut",
        "number",
        "specials",
        "one",
        "three",
        "later",
        "negative",
        "twice",
        "taken",
        "bytes",
        "pattern",
        "basic",
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing(content, tmp_path):
    (tmp_path / "t.model").write_bytes(content)
    tokenizer = with_specials()
    before = dict(vars(tokenizer))
    with pytest.raises(ValueError):
        tokenizer.load(tmp_path / "t.model")
    assert vars(tokenizer) == before


def test_only_model_files_are_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"not a \.model file"):
        RegexTokenizer().load(tmp_path / "t.vocab")


def test_a_file_with_a_pattern_is_not_for_basic(tmp_path):
    with_specials().save(str(tmp_path / "t"))
    with pytest.raises(ValueError, match="RegexTokenizer"):
        BasicTokenizer().load(tmp_path / "t.model")


def test_lines_that_end_as_on_windows_are_read(tmp_path):
    (tmp_path / "t.model").write_bytes(b"minbpe v1\r\n\\S+|\\s+\r\n1\r\n<|e|> 300\r\n97 98\r\n")
    tokenizer = RegexTokenizer()
    tokenizer.load(tmp_path / "t.model")
    assert tokenizer.pattern == r"\S+|\s+"
    assert tokenizer.encode("ab<|e|>", "all") == [256, 300]


def test_what_minbpes_format_cannot_hold_is_not_saved(tmp_path):
    tokenizer = RegexTokenizer()
    tokenizer.register_special_tokens({"a\nb": 300})
    with pytest.raises(ValueError, match="newline"):
        tokenizer.save(str(tmp_path / "t"))
    shuffled = RegexTokenizer()
    shuffled.byte_ids = [*range(255, -1, -1)]
    with pytest.raises(ValueError, match="order of the bytes"):
        shuffled.save(str(tmp_path / "t"))
    assert list(tmp_path.iterdir()) == []


def test_merges_with_the_same_bytes_have_no_tiktoken():
    tokenizer = BasicTokenizer()
    tokenizer.merges = {(97, 97): 256, (256, 97): 257, (97, 256): 258}
    tokenizer.build_vocab()
    with pytest.raises(ValueError, match="same bytes"):
        tokenizer.to_tiktoken("t")


# Characters


def test_an_unseen_character_is_named():
    with pytest.raises(ValueError, match="'z' is not among the 3"):
        CharTokenizer("abc").encode("abzy")


@pytest.mark.parametrize("bad", [3, -1], ids=str)
def test_an_unknown_char_id_is_a_value_error(bad):
    with pytest.raises(ValueError, match=f"id {bad} is not in the vocabulary of 3 characters"):
        CharTokenizer("abc").decode([0, bad])


def test_characters_are_saved_and_loaded(tmp_path):
    tokenizer = CharTokenizer("hé 東😀\n\u2028")
    tokenizer.save(str(tmp_path / "t"))
    loaded = CharTokenizer("x")
    loaded.load(tmp_path / "t.json")
    assert vars(loaded) == vars(tokenizer)
    (tmp_path / "bad.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="does not hold the characters"):
        loaded.load(tmp_path / "bad.json")


@BOTH
def test_of_two_special_tokens_that_begin_alike_the_longer_is_meant(cls):
    tokenizer = with_specials(cls)
    tokenizer.register_special_tokens({"<|end|>": 1001, "<|end|>!": 1002})
    assert tokenizer.encode("x<|end|>!y", allowed_special="all") == [120, 1002, 121]
