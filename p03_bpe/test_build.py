"""Is what I typed right? `pytest p03_bpe` asks that of the tokenizers, in the book's order."""

import random
import warnings
from itertools import pairwise

import pytest
import regex
import tiktoken

TEXT = (
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n"
    "First Citizen:\nYou are all resolved rather to die than to famish?\n\n"
    "All:\nResolved. resolved."
) * 3
UNICODE = "naïve café — 東京, Ωmega; 😀😀 e\u0301\u200d\u00a0x\tend  \n\n   "
SPECIALS = {"<|endoftext|>": 1000, "<|end|>": 1001, "<|end|>!": 1002}


def both(build):
    return [build.BasicTokenizer(), build.RegexTokenizer()]


def quietly(tokenizer, text, vocab_size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer.train(text, vocab_size)
    return tokenizer


def merges_by_the_book(chunks, n):
    """Count all pairs, merge the most frequent, the first of equals; again and again."""
    chunks, merges = [list(chunk.encode("utf-8")) for chunk in chunks], {}
    while len(merges) < n:
        counts = {}
        for ids in chunks:
            for pair in pairwise(ids):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        best = max(counts, key=counts.get)
        merges[best] = 256 + len(merges)
        for ids in chunks:
            i = 0
            while i < len(ids) - 1:
                if (ids[i], ids[i + 1]) == best:
                    ids[i : i + 2] = [merges[best]]
                i += 1
    return merges


def must_have_merges(got, expected, text):
    got, expected = list(got.items()), list(expected.items())
    for i, (mine, theirs) in enumerate(zip(got, expected, strict=False)):
        assert (tuple(mine[0]), mine[1]) == theirs, (
            f"merge {i + 1} of {text[:60]!r} should be {theirs[0]} -> {theirs[1]}, "
            f"yours is {mine[0]} -> {mine[1]}.\nThe most frequent pair is merged; of equals, the "
            "one that occurs first in the sequence as it is now"
        )
    assert len(got) == len(expected), (
        f"{text[:60]!r} should give {len(expected)} merges, yours gave {len(got)}"
    )


# get_stats


@pytest.mark.checks("get_stats")
@pytest.mark.parametrize(
    "ids, expected",
    [
        ([1, 2, 3, 1, 2], {(1, 2): 2, (2, 3): 1, (3, 1): 1}),
        ([7, 7, 7, 7], {(7, 7): 3}),
        ([5, 6], {(5, 6): 1}),
        ([5], {}),
        ([], {}),
    ],
    ids=["five", "aaaa", "two", "one", "none"],
)
def test_get_stats_counts_neighbours(build, ids, expected):
    got = dict(build.get_stats(ids))
    assert got == expected, f"the pairs of {ids} are {expected}, got {got}"


@pytest.mark.checks("get_stats")
def test_get_stats_keeps_the_order_of_first_occurrence(build):
    got = list(build.get_stats([9, 1, 9, 2, 9, 1]))
    expected = [(9, 1), (1, 9), (9, 2), (2, 9)]
    assert got == expected, (
        f"pairs should come in the order {expected}, got {got}: ties are decided by it"
    )


@pytest.mark.checks("get_stats")
def test_get_stats_adds_to_counts_it_is_given(build):
    counts = {(1, 2): 5}
    got = build.get_stats([1, 2, 3], counts)
    assert dict(got) == {(1, 2): 6, (2, 3): 1}, (
        f"[1, 2, 3] added to {{(1, 2): 5}} gives {{(1, 2): 6, (2, 3): 1}}, got {dict(got)}"
    )
    assert counts == dict(got), "the dict that was given should be updated and returned"
    again = build.get_stats([4, 5])
    assert dict(again) == {(4, 5): 1}, (
        f"a new call should start from nothing, got {dict(again)}: a default of {{}} in the "
        "signature is shared by all calls"
    )


# merge


@pytest.mark.checks("merge")
@pytest.mark.parametrize(
    "ids, pair, expected",
    [
        ([5, 6, 6, 1, 5, 6], (5, 6), [9, 6, 1, 9]),
        ([7, 7, 7, 7], (7, 7), [9, 9]),
        ([7, 7, 7], (7, 7), [9, 7]),
        ([1, 2], (1, 2), [9]),
        ([1, 2, 1], (1, 2), [9, 1]),
        ([2, 1], (1, 2), [2, 1]),
        ([1], (1, 2), [1]),
        ([], (1, 2), []),
        ([3, 1, 2], (1, 2), [3, 9]),
    ],
    ids=["middle", "aaaa", "aaa", "all", "rest", "reversed", "one", "none", "end"],
)
def test_merge_replaces_left_to_right(build, ids, pair, expected):
    before = list(ids)
    got = build.merge(ids, pair, 9)
    assert list(got) == expected, f"merge({before}, {pair}, 9) is {expected}, got {got}"
    assert ids == before, f"merge changed its argument to {ids}; build a new list"


# training


@pytest.mark.checks("BasicTokenizer")
def test_a_fresh_tokenizer_knows_the_bytes(build):
    for tokenizer in both(build):
        text = "hé"
        got = list(tokenizer.encode(text))
        assert got == [104, 195, 169], f"without training {text!r} is its bytes, got {got}"
        assert tokenizer.decode(got) == text, f"{got} should decode to {text!r}"
        assert dict(tokenizer.merges) == {}, "a fresh tokenizer has no merges"


@pytest.mark.checks("BasicTokenizer")
def test_basic_training_by_hand(build):
    # the example of the Wikipedia article on byte pair encoding; a = 97, b = 98
    tokenizer = build.BasicTokenizer()
    tokenizer.train("aaabdaaabac", 259)
    must_have_merges(
        tokenizer.merges, {(97, 97): 256, (256, 97): 257, (257, 98): 258}, "aaabdaaabac"
    )
    got = list(tokenizer.encode("aaabdaaabac"))
    assert got == [258, 100, 258, 97, 99], f"should be [258, 100, 258, 97, 99], got {got}"


@pytest.mark.checks("BasicTokenizer")
@pytest.mark.parametrize(
    "text", ["abcbcab", "xyxyzz zz", "abab baba", "aaaa bbbb", "mississippi"], ids=repr
)
def test_basic_training_takes_the_first_of_equals(build, text):
    tokenizer = quietly(build.BasicTokenizer(), text, 262)
    must_have_merges(tokenizer.merges, merges_by_the_book([text], 6), text)


@pytest.mark.checks("BasicTokenizer")
def test_a_run_holds_a_pair_at_every_place(build):
    # aaaa holds aa at three places, though only two can be merged; bc stands there twice, and first
    for tokenizer in both(build):
        tokenizer.train("bc1bc2aaaa", 257)
        must_have_merges(tokenizer.merges, {(97, 97): 256}, "bc1bc2aaaa")


@pytest.mark.checks("BasicTokenizer")
def test_basic_training_merges_like_minbpe(build):
    draw = random.Random(0)
    for alphabet in ("ab", "abc ", "aé", "a", "ab\n", "😀x"):
        for _ in range(6):
            text = "".join(draw.choices(alphabet, k=draw.randrange(2, 120)))
            tokenizer = quietly(build.BasicTokenizer(), text, 290)
            must_have_merges(tokenizer.merges, merges_by_the_book([text], 34), text)


@pytest.mark.checks("BasicTokenizer")
def test_training_numbers_tokens_from_256_and_knows_their_bytes(build):
    for tokenizer in both(build):
        tokenizer.train(TEXT, 280)
        ids = list(tokenizer.merges.values())
        assert ids == list(range(256, 280)), f"24 merges get the ids 256 to 279, got {ids}"
        assert len(tokenizer.vocab) == 280, f"280 tokens expected, vocab has {len(tokenizer.vocab)}"
        for byte in range(256):
            assert tokenizer.vocab[byte] == bytes([byte]), f"id {byte} should stand for its byte"
        for (left, right), new in tokenizer.merges.items():
            want = tokenizer.vocab[left] + tokenizer.vocab[right]
            assert tokenizer.vocab[new] == want, (
                f"id {new} is made of {left} and {right}, so its bytes are {want}, "
                f"got {tokenizer.vocab[new]}"
            )


@pytest.mark.checks("BasicTokenizer")
@pytest.mark.parametrize("size", [255, 0, -1], ids=str)
def test_a_vocabulary_below_the_bytes_is_refused(build, size):
    for tokenizer in both(build):
        try:
            tokenizer.train(TEXT, size)
        except ValueError:
            continue
        pytest.fail(
            f"train with vocab_size {size} should raise ValueError: the bytes alone take 256 ids",
            pytrace=False,
        )


@pytest.mark.checks("BasicTokenizer")
def test_a_vocabulary_of_256_learns_nothing(build):
    for tokenizer in both(build):
        tokenizer.train(TEXT, 256)
        assert dict(tokenizer.merges) == {}, "with vocab_size 256 there is nothing to merge"


@pytest.mark.checks("BasicTokenizer")
@pytest.mark.parametrize("text", ["abab", "a", ""], ids=repr)
def test_training_ends_early_with_a_warning(build, text):
    for tokenizer in both(build):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tokenizer.train(text, 300)
        expected = merges_by_the_book([text], 44)
        assert len(tokenizer.merges) == len(expected), (
            f"{text!r} has only {len(expected)} pairs to merge, got {len(tokenizer.merges)} merges"
        )
        assert caught, "when no pair is left, training should end with a warning (warnings.warn)"


@pytest.mark.checks("BasicTokenizer")
def test_training_again_starts_anew(build):
    for tokenizer in both(build):
        tokenizer.train("zzzz yyyy", 258)
        tokenizer.train(TEXT, 270)
        fresh = type(tokenizer)()
        fresh.train(TEXT, 270)
        must_have_merges(tokenizer.merges, dict(fresh.merges), TEXT)
        assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


@pytest.mark.checks("BasicTokenizer")
def test_training_says_what_it_merges_when_asked(build, capsys):
    for tokenizer in both(build):
        tokenizer.train(TEXT, 258)
        silent = capsys.readouterr().out
        tokenizer.train(TEXT, 258, verbose=True)
        spoken = capsys.readouterr().out
        assert not silent, f"without verbose nothing should be printed, got {silent!r}"
        assert "257" in spoken, f"verbose=True should print every merge, got {spoken!r}"


# encoding and decoding


@pytest.mark.checks("BasicTokenizer")
@pytest.mark.parametrize(
    "text",
    ["", "a", " ", "\n", "\r\n", "\0", TEXT, UNICODE, "a" * 1000],
    ids=["empty", "a", "space", "newline", "crlf", "nul", "play", "unicode", "run"],
)
def test_what_is_encoded_decodes_to_itself(build, text):
    for tokenizer in both(build):
        tokenizer.train(TEXT + UNICODE, 320)
        got = tokenizer.decode(tokenizer.encode(text))
        assert got == text, f"{text[:60]!r} came back as {got[:60]!r}"


@pytest.mark.checks("BasicTokenizer")
def test_encoding_merges_in_the_order_of_training(build):
    # training on this learns (b, c) before (a, b): the longest or leftmost match would be wrong
    tokenizer = build.BasicTokenizer()
    tokenizer.train("bcbcbcbc abab", 258)
    got = list(tokenizer.encode("abc"))
    assert got == [97, 256], (
        f"with the merges bc -> 256 and then another, 'abc' is [97, 256], got {got}: the merge "
        "learned first goes first, wherever it stands"
    )


@pytest.mark.checks("BasicTokenizer")
def test_encoding_does_not_prefer_the_longest_token(build):
    # cd five times, ab four times, abc twice, everything else once
    text = "cd1cd2cd3cd4cd5ab6ab7abc8abc9"
    for tokenizer in both(build):
        tokenizer.train(text, 259)
        must_have_merges(tokenizer.merges, {(99, 100): 256, (97, 98): 257, (257, 99): 258}, text)
        got = list(tokenizer.encode("abcd"))
        assert got == [257, 256], (
            f"with cd -> 256, ab -> 257 and abc -> 258, learned in this order, 'abcd' is ab, cd: "
            f"[257, 256], got {got}. The longest token that fits, abc, leaves a d that training "
            "never left: merge what was learned first"
        )


@pytest.mark.checks("BasicTokenizer")
def test_encoding_replays_the_training(build):
    draw = random.Random(1)
    for alphabet in ("ab", "abc", "aé", "abcd "):
        text = "".join(draw.choices(alphabet, k=400))
        for tokenizer in both(build):
            quietly(tokenizer, text, 300)
            for _ in range(20):
                probe = "".join(draw.choices(alphabet.replace(" ", ""), k=draw.randrange(30)))
                ids = list(probe.encode("utf-8"))
                for pair, new in tokenizer.merges.items():
                    i = 0
                    while i < len(ids) - 1:
                        if (ids[i], ids[i + 1]) == tuple(pair):
                            ids[i : i + 2] = [new]
                        i += 1
                got = list(tokenizer.encode(probe))
                assert got == ids, f"{probe!r} should be {ids}, got {got}: lowest merge first"


@pytest.mark.checks("BasicTokenizer")
def test_decoding_part_of_a_character_gives_the_replacement_character(build):
    for tokenizer in both(build):
        for ids, expected in (
            ([195], "\ufffd"),
            ([97, 195], "a\ufffd"),
            ([169, 98], "\ufffdb"),
            ([240, 159, 152], "\ufffd"),
            ([255, 97], "\ufffda"),
        ):
            got = tokenizer.decode(ids)
            assert got == expected, (
                f"the bytes {ids} are not valid UTF-8 and decode to {expected!r}, got {got!r}: "
                'use errors="replace"'
            )
        assert tokenizer.decode([195, 169]) == "é", "bytes are joined before they are decoded"
        assert tokenizer.decode([]) == "", "no ids decode to an empty text"


@pytest.mark.checks("BasicTokenizer")
@pytest.mark.parametrize("bad", [300, 100_000, -1], ids=str)
def test_decoding_an_unknown_id_is_a_value_error(build, bad):
    for tokenizer in both(build):
        tokenizer.train(TEXT, 270)
        try:
            got = tokenizer.decode([97, bad])
        except ValueError:
            continue
        except Exception as error:
            pytest.fail(
                f"id {bad} is outside the vocabulary: ValueError expected, got "
                f"{type(error).__name__}",
                pytrace=False,
            )
        pytest.fail(
            f"id {bad} is outside the vocabulary: ValueError expected, it decoded to {got!r}",
            pytrace=False,
        )


# RegexTokenizer


@pytest.mark.checks("RegexTokenizer")
def test_regex_training_by_hand(build):
    # chunks "ab", " ab", " ab": (a, b) occurs three times, then " " + "ab" twice
    tokenizer = quietly(build.RegexTokenizer(), "ab ab ab", 300)
    must_have_merges(tokenizer.merges, {(97, 98): 256, (32, 256): 257}, "ab ab ab")
    got = list(tokenizer.encode("ab ab"))
    assert got == [256, 257], f"'ab ab' should be [256, 257], got {got}"


@pytest.mark.checks("RegexTokenizer")
def test_no_merge_crosses_a_chunk(build):
    tokenizer = quietly(build.RegexTokenizer(), "dog. dog. dog! dog? 12 12 it's it's " * 5, 400)
    for token in tokenizer.vocab.values():
        text = token.decode("utf-8", errors="replace")
        kinds = {
            "letter" if c.isalpha() else "digit" if c.isdigit() else "sign"
            for c in text.lstrip(" '")
        }
        assert len(kinds) <= 1, (
            f"the token {text!r} glues different kinds of characters together: is the text split "
            "by the pattern, and is each chunk merged by itself?"
        )


@pytest.mark.checks("RegexTokenizer")
def test_repeated_chunks_count_each_time(build):
    tokenizer = build.RegexTokenizer()
    tokenizer.train("xy xy xy xy xy ab abz abw", 258)
    first = next(iter(tokenizer.merges))
    assert tuple(first) == (120, 121), (
        f"'xy' occurs five times and 'ab' three, so (120, 121) is merged first, got {first}: "
        "every chunk counts as often as it occurs"
    )


@pytest.mark.checks("RegexTokenizer")
def test_regex_training_merges_like_minbpe(build):
    draw = random.Random(2)
    words = ["ab", "ba", " aab", " ab", "  ", "\n", "é", " é", "12", "!", "'s", " abc"]
    for _ in range(25):
        text = "".join(draw.choices(words, k=draw.randrange(1, 60)))
        chunks = regex.findall(build.GPT2_PATTERN, text)
        tokenizer = quietly(build.RegexTokenizer(), text, 290)
        must_have_merges(tokenizer.merges, merges_by_the_book(chunks, 34), text)


# Written down once, so that a change of the merge order cannot go unseen.
GOLDEN_MERGES = [
    (114, 101),
    (101, 100),
    (101, 97),
    (32, 97),
    (116, 104),
    (112, 258),
    (261, 107),
    (108, 108),
    (115, 111),
    (264, 108),
    (265, 118),
    (266, 257),
]
GOLDEN_TEXT = "First Citizen: resolved to speak further."
GOLDEN_IDS = [
    70,
    105,
    114,
    115,
    116,
    32,
    67,
    105,
    116,
    105,
    122,
    101,
    110,
    58,
    32,
    256,
    267,
    32,
    116,
    111,
    32,
    115,
    262,
    32,
    102,
    117,
    114,
    260,
    101,
    114,
    46,
]


@pytest.mark.checks("RegexTokenizer")
def test_regex_golden_merges_and_ids(build):
    tokenizer = build.RegexTokenizer()
    tokenizer.train(TEXT, 268)
    must_have_merges(
        tokenizer.merges, {pair: 256 + i for i, pair in enumerate(GOLDEN_MERGES)}, TEXT
    )
    got = list(tokenizer.encode(GOLDEN_TEXT))
    assert got == GOLDEN_IDS, f"{GOLDEN_TEXT!r} should be\n{GOLDEN_IDS}\ngot\n{got}"


GPT2_PIECES = [
    "Hello",
    " world",
    "'s",
    "   ",
    " x",
    " =",
    " 123",
    "!!",
    " \n",
    " tab",
    "'ll",
    "\n\n",
]
GPT4_PIECES = ["Hello", " world", "'S", "   ", " x", " =", " ", "123", "4", "!!", " \n", "'LL", "x"]


@pytest.mark.checks("RegexTokenizer")
@pytest.mark.parametrize(
    "name, pieces",
    [("GPT2_PATTERN", GPT2_PIECES), ("GPT4_PATTERN", GPT4_PIECES)],
    ids=["gpt2", "gpt4"],
)
def test_the_pattern_cuts_as_openais_does(build, name, pieces):
    text = "".join(pieces)
    tokenizer = quietly(build.RegexTokenizer(getattr(build, name)), text, 400)
    got = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
    assert got == pieces, (
        f"trained on {text!r} until no pair is left, every piece that {name} cuts is one token:\n"
        f"{pieces}\ngot\n{got}"
    )


@pytest.mark.checks("RegexTokenizer")
def test_another_pattern_can_be_given(build):
    tokenizer = build.RegexTokenizer(r"\d|\D+")
    tokenizer.train("11 11 11 ab ab", 259)
    assert all(b"11" not in token for token in tokenizer.vocab.values()), (
        "the pattern \\d|\\D+ puts every digit into a chunk of its own, yet '11' was merged: "
        "is the pattern that was given used?"
    )
    assert build.RegexTokenizer(build.GPT4_PATTERN).decode([72, 105]) == "Hi"


# special tokens


def with_specials(build, cls="RegexTokenizer"):
    tokenizer = getattr(build, cls)()
    tokenizer.train(TEXT, 270)
    tokenizer.register_special_tokens(SPECIALS)
    return tokenizer


@pytest.mark.checks("RegexTokenizer")
def test_special_tokens_get_their_own_ids(build):
    tokenizer = with_specials(build)
    got = list(tokenizer.encode("a<|endoftext|>b", allowed_special="all"))
    assert got == [97, 1000, 98], f"'a<|endoftext|>b' should be [97, 1000, 98], got {got}"
    got = list(tokenizer.encode("<|end|><|endoftext|>", allowed_special="all"))
    assert got == [1001, 1000], f"two specials in a row should be [1001, 1000], got {got}"
    got = list(tokenizer.encode("\n<|endoftext|>\n", allowed_special="all"))
    assert got == [10, 1000, 10], f"the newlines around it stay: [10, 1000, 10], got {got}"
    assert tokenizer.decode([97, 1000, 98]) == "a<|endoftext|>b", "specials decode to their text"


@pytest.mark.checks("RegexTokenizer")
def test_the_longest_special_token_wins(build):
    tokenizer = with_specials(build)
    got = list(tokenizer.encode("x<|end|>!y", allowed_special="all"))
    assert got == [120, 1002, 121], (
        f"'<|end|>' and '<|end|>!' both begin here; the longer is meant: "
        f"[120, 1002, 121], got {got}"
    )


@pytest.mark.checks("RegexTokenizer")
def test_a_special_token_in_the_text_raises_by_default(build):
    tokenizer = with_specials(build)
    for allowed in ({}, {"allowed_special": "none_raise"}, {"allowed_special": {"<|end|>"}}):
        try:
            got = tokenizer.encode("a<|endoftext|>", **allowed)
        except ValueError as error:
            assert "<|endoftext|>" in str(error), (
                f"the error should name the token, it says {error}"
            )
            continue
        pytest.fail(
            f"'a<|endoftext|>' with {allowed or 'nothing'} allowed should raise ValueError: "
            f"a text must not smuggle in control tokens; got {got}",
            pytrace=False,
        )
    got = list(tokenizer.encode("plain"))
    assert tokenizer.decode(got) == "plain", "a text without specials is encoded as ever"


@pytest.mark.checks("RegexTokenizer")
def test_special_tokens_can_be_plain_text(build):
    tokenizer = with_specials(build)
    text = "a<|endoftext|>b<|end|>!"
    got = list(tokenizer.encode(text, allowed_special="none"))
    assert not set(got) & {1000, 1001, 1002}, f'with "none" no special id may come out, got {got}'
    assert tokenizer.decode(got) == text, "as plain text it should decode to itself"
    fresh = build.RegexTokenizer()
    fresh.train(TEXT, 270)
    assert got == list(fresh.encode(text)), "with no specials registered the text encodes the same"


@pytest.mark.checks("RegexTokenizer")
def test_a_set_allows_some_special_tokens(build):
    tokenizer = with_specials(build)
    got = list(tokenizer.encode("a<|endoftext|>b", allowed_special={"<|endoftext|>"}))
    assert got == [97, 1000, 98], f"the allowed special should be one id, got {got}"


@pytest.mark.checks("RegexTokenizer")
def test_an_unknown_way_to_allow_specials_is_refused(build):
    tokenizer = with_specials(build)
    with pytest.raises(ValueError):
        tokenizer.encode("a", allowed_special="some")


# files


@pytest.mark.checks("RegexTokenizer")
@pytest.mark.parametrize("cls", ["BasicTokenizer", "RegexTokenizer"])
def test_a_saved_tokenizer_loads_as_it_was(build, cls, tmp_path):
    tokenizer = with_specials(build, cls)
    tokenizer.save(str(tmp_path / "t"))
    loaded = getattr(build, cls)()
    loaded.train("something else", 258)
    loaded.load(str(tmp_path / "t.model"))
    must_have_merges(loaded.merges, dict(tokenizer.merges), TEXT)
    for text in (TEXT, UNICODE):
        assert list(loaded.encode(text)) == list(tokenizer.encode(text)), "other ids after loading"
    got = list(loaded.encode("a<|end|>", allowed_special="all"))
    assert got == [97, 1001], f"the special tokens should be in the file; 'a<|end|>' gave {got}"
    assert loaded.decode([258, 1001]) == tokenizer.decode([258, 1001]), "other text after loading"


@pytest.mark.checks("RegexTokenizer")
def test_the_file_is_minbpes(build, tmp_path):
    tokenizer = build.RegexTokenizer()
    tokenizer.train("ab ab ab", 258)
    tokenizer.register_special_tokens({"<|end|>": 258})
    tokenizer.save(str(tmp_path / "t"))
    got = (tmp_path / "t.model").read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
    expected = ["minbpe v1", build.GPT2_PATTERN, "1", "<|end|> 258", "97 98", "32 256"]
    assert [line for line in got if line] == expected, (
        f"the .model file should hold the lines\n{expected}\ngot\n{got}"
    )


@pytest.mark.checks("RegexTokenizer")
def test_loading_takes_the_files_pattern(build, tmp_path):
    text = "ab12 ab12 ab12 12ab"
    saved = quietly(build.RegexTokenizer(r"\S+|\s+"), text, 262)
    saved.save(str(tmp_path / "t"))
    loaded = build.RegexTokenizer()
    loaded.load(str(tmp_path / "t.model"))
    assert list(loaded.encode(text)) == list(saved.encode(text)), (
        "a loaded tokenizer should split with the pattern in the file, not with its own"
    )


# tiktoken


@pytest.mark.checks("RegexTokenizer")
@pytest.mark.parametrize("cls", ["BasicTokenizer", "RegexTokenizer"])
def test_to_tiktoken_gives_the_same_ids(build, cls):
    tokenizer = with_specials(build, cls)
    encoding = tokenizer.to_tiktoken("ours")
    for text in ("a", TEXT, UNICODE, "speak speaker speakers"):
        got, expected = encoding.encode(text), list(tokenizer.encode(text))
        assert got == expected, f"{text[:40]!r}: tiktoken gives {got[:9]}, we give {expected[:9]}"
    got = encoding.encode("a<|end|>", allowed_special="all")
    assert got == [97, 1001], f"the special tokens should go along; 'a<|end|>' gave {got}"


@pytest.mark.checks("RegexTokenizer")
def test_from_tiktoken_gives_the_same_ids(build):
    by_size = [bytes([b]) for b in (*range(97, 123), *range(97), *range(123, 256))]
    extra = [b"he", b"th", b"the", b"34", b" the", b"er", b"ther", b" t", b"\xc3\xa9"]
    encoding = tiktoken.Encoding(
        "shuffled",
        pat_str=build.GPT4_PATTERN,
        special_tokens={"<|end|>": 500},
        mergeable_ranks={token: rank for rank, token in enumerate(by_size + extra)},
    )
    tokenizer = build.RegexTokenizer.from_tiktoken(encoding)
    for text in ("a", "the other there then", "thé 1234 THE\n\n", UNICODE):
        got, expected = list(tokenizer.encode(text)), encoding.encode(text)
        assert got == expected, (
            f"{text!r}: tiktoken gives {expected}, the recovered tokenizer {got}. In tiktoken a "
            "byte's id need not be its value, and merges are known by their bytes alone"
        )
        assert tokenizer.decode(got) == text
    got = list(tokenizer.encode("a<|end|>", allowed_special="all"))
    assert got == encoding.encode("a<|end|>", allowed_special="all"), "specials should come along"


# CharTokenizer


@pytest.mark.checks("CharTokenizer")
def test_char_tokens_are_the_characters_of_the_text(build):
    tokenizer = build.CharTokenizer("hello, hé")
    for text in ("hello", "hé, hé", ""):
        ids = list(tokenizer.encode(text))
        assert len(ids) == len(text), f"{text!r} has {len(text)} characters, got {len(ids)} ids"
        assert tokenizer.decode(ids) == text, f"{text!r} came back as {tokenizer.decode(ids)!r}"
    ids = sorted(set(tokenizer.encode("hello, hé")))
    assert ids == list(range(7)), f"the 7 distinct characters get the ids 0 to 6, got {ids}"


@pytest.mark.checks("CharTokenizer")
def test_char_ids_do_not_depend_on_the_order_of_the_text(build):
    got, again = (list(build.CharTokenizer(text).encode("abc")) for text in ("abc", "cab"))
    assert got == again, f"sort the characters: 'abc' is {got} after 'abc' but {again} after 'cab'"


@pytest.mark.checks("CharTokenizer")
def test_an_unseen_character_is_named(build):
    try:
        got = build.CharTokenizer("abc").encode("abz")
    except ValueError as error:
        assert "z" in str(error), f"the error should name the character 'z', it says: {error}"
    except Exception as error:
        pytest.fail(
            f"an unseen character should raise ValueError, got {type(error).__name__}",
            pytrace=False,
        )
    else:
        pytest.fail(f"an unseen character should raise ValueError, got {got}", pytrace=False)


@pytest.mark.checks("CharTokenizer")
def test_an_unknown_char_id_is_a_value_error(build):
    for bad in (3, -1):
        try:
            got = build.CharTokenizer("abc").decode([0, bad])
        except ValueError:
            continue
        except Exception as error:
            pytest.fail(
                f"id {bad} of 3 characters: ValueError expected, got {type(error).__name__}",
                pytrace=False,
            )
        pytest.fail(f"id {bad} of 3 characters: ValueError expected, got {got!r}", pytrace=False)
