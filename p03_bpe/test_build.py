"""Is what I typed right? `pytest p03_bpe` asks that of the tokenizers, in the book's order."""

import random
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
SPECIALS = {"<|endoftext|>": 1000, "<|end|>": 1001, "<|pad|>": 1002}

# Written out here once more, so that a slip in the patterns of build.py is seen.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def of_both(step):
    """The test is about BasicTokenizer, in this step, and about RegexTokenizer, in step 6."""
    basic = (pytest.mark.step(step), pytest.mark.checks("BasicTokenizer"))
    of_regex = (pytest.mark.step(6), pytest.mark.checks("RegexTokenizer"))
    kinds = [
        pytest.param("BasicTokenizer", marks=basic, id="basic"),
        pytest.param("RegexTokenizer", marks=of_regex, id="regex"),
    ]
    return pytest.mark.parametrize("kind", kinds)


# What is expected, worked out by counting


def count(chunks):
    counts = {}
    for ids in chunks:
        for pair in pairwise(ids):
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def replace(ids, pair, new):
    out = []
    for token in ids:
        out.append(token)
        if tuple(out[-2:]) == pair and len(out) > 1:
            out[-2:] = [new]
    return out


def states(chunks, n=10_000):
    """For each of the first n merges: the chunks and the counts before it, and the pair."""
    chunks = [list(chunk.encode("utf-8")) for chunk in chunks]
    for new in range(256, 256 + n):
        counts = count(chunks)
        if not counts:
            return
        pair = max(counts, key=counts.get)
        yield chunks, counts, pair
        chunks = [replace(ids, pair, new) for ids in chunks]


def merges_of(chunks, n=10_000):
    return {pair: 256 + i for i, (_, _, pair) in enumerate(states(chunks, n))}


def replayed(chunk, merges):
    """The ids of a chunk: each merge of the training again, in its order."""
    ids = list(chunk.encode("utf-8"))
    for pair, new in merges.items():
        ids = replace(ids, pair, new)
    return ids


def pieces(kind, text, pattern=GPT2):
    return [text] if kind == "BasicTokenizer" else regex.findall(pattern, text)


# What came, and why it may have


def fresh(build, kind, *args):
    """A new tokenizer of the build."""
    tokenizer = getattr(build, kind)(*args)
    left = list(tokenizer.merges)
    assert not left, (
        f"a new tokenizer has {len(left)} merges before it was trained: do all tokenizers share "
        "one dict (of the class, or a default argument)?"
    )
    return tokenizer


def trained(build, kind, text, n, *args):
    """A new tokenizer that was asked for n merges, and those that it has, right or wrong.

    What does not ask about training goes by these, so that a slip there is said once.
    """
    tokenizer = fresh(build, kind, *args)
    tokenizer.train(text, 256 + len(merges_of(pieces(kind, text, *args), n)))
    return tokenizer, {tuple(pair): new for pair, new in tokenizer.merges.items()}


def must_learn(build, kind, text, n):
    """A new tokenizer that has learned the first n merges of the text."""
    tokenizer, merges = trained(build, kind, text, n)
    chunks = pieces(kind, text)
    must_have_merges(merges, chunks, len(merges_of(chunks, n)))
    return tokenizer


def must_have_merges(merges, chunks, n):
    """The first n merges of the chunks, or what came instead."""
    got = [(tuple(pair), new) for pair, new in merges.items()]
    text = "".join(chunks)[:50]
    for i, (now, counts, pair) in enumerate(states(chunks, n)):
        assert i < len(got), (
            f"training on {text!r} stopped after {len(got)} merges, {pair} still occurs "
            f"{times(counts[pair])}"
            + (": pairs that occur once are merged as well" if counts[pair] == 1 else "")
        )
        came, new = got[i]
        assert came == pair, (
            f"merge {i + 1} of {text!r} should be {pair}, which occurs {times(counts[pair])}; "
            f"yours is {came}, which occurs {times(counts.get(came, 0))}"
            + reason(now, counts, pair, came)
        )
        assert new == 256 + i, f"merge {i + 1}, of {pair}, gets the id {256 + i}, yours is {new}"
    assert len(got) == n, f"{text!r} should give {n} merges, yours gave {len(got)}"


def times(n):
    return "once" if n == 1 else f"{n} times"


def reason(chunks, counts, pair, came):
    """Why another pair may have been merged; "" if nothing that is known gives this one."""
    if counts.get(came) == counts[pair]:
        return (
            "\nOf equals, the one that occurs first in the sequence as it is now is merged: are "
            "pairs counted in the order of the sequence, and is the first of the largest taken?"
        )
    glued = count([[token for ids in chunks for token in ids]])
    if came not in counts and came in glued:
        return "\nIt is there only across the end of a chunk: is each chunk counted by itself?"
    once = count([list(ids) for ids in dict.fromkeys(map(tuple, chunks))])
    if len(chunks) > 1 and came == max(once, key=once.get):
        return "\nDoes every chunk count as often as it occurs in the text?"
    apart = {}
    for ids in chunks:
        last = None
        for i, here in enumerate(pairwise(ids)):
            if here == last and here[0] == here[1] and ids[i - 1] == here[0]:
                last = None
                continue
            apart[here] = apart.get(here, 0) + 1
            last = here
    if came == max(apart, key=apart.get):
        return "\nA run such as aaaa holds the pair aa at three places, and all of them count"
    if came == min(counts, key=counts.get):
        return "\nIs the pair with the largest count taken?"
    if all(token < 256 for ids in chunks for token in ids):
        characters = count([[ord(c) for c in bytes(ids).decode("utf-8")] for ids in chunks])
        if came == max(characters, key=characters.get):
            return "\nAre the bytes of the text (its UTF-8) merged, not its characters?"
    return ""


def must_be(got, expected, text, why=""):
    got = list(got)
    assert got == expected, f"{text!r} should be {expected}, got {got}{why}"


# 1. get_stats


@pytest.mark.step(1)
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
    got = build.get_stats(list(ids))
    assert got is not None, "get_stats returned nothing: is there a return?"
    assert dict(got) == expected, f"the pairs of {ids} are {expected}, got {dict(got)}"


@pytest.mark.step(1)
@pytest.mark.checks("get_stats")
def test_get_stats_adds_to_counts_it_is_given(build):
    got = build.get_stats([1, 2, 3], {(1, 2): 5})
    assert dict(got) == {(1, 2): 6, (2, 3): 1}, (
        f"[1, 2, 3] added to {{(1, 2): 5}} gives {{(1, 2): 6, (2, 3): 1}}, got {dict(got)}"
    )


@pytest.mark.step(1)
@pytest.mark.checks("get_stats")
def test_get_stats_starts_from_nothing_each_time(build):
    build.get_stats([1, 2, 3])
    again = build.get_stats([4, 5])
    assert dict(again) == {(4, 5): 1}, (
        f"a new call should give {{(4, 5): 1}}, got {dict(again)}: a default of {{}} in the "
        "signature is shared by all calls"
    )


# 2. merge


@pytest.mark.step(2)
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
        ([300, 1000, 300, 1000], (300, 1000), [9, 9]),
    ],
    ids=["middle", "aaaa", "aaa", "all", "rest", "reversed", "one", "none", "end", "large"],
)
def test_merge_replaces_left_to_right(build, ids, pair, expected):
    given = [int(str(i)) for i in ids]  # other objects than those in the pair
    got = build.merge(given, pair, 9)
    assert given == ids, f"merge changed its argument {ids} to {given}; build a new list"
    assert got is not None, "merge returned nothing: is there a return?"
    assert list(got) == expected, f"merge({ids}, {pair}, 9) is {expected}, got {list(got)}"


# 3. Training


@pytest.mark.step(3)
@pytest.mark.checks("BasicTokenizer")
def test_basic_training_by_hand(build):
    # the example of the Wikipedia article on byte pair encoding; a = 97, b = 98
    expected = {(97, 97): 256, (256, 97): 257, (257, 98): 258}
    tokenizer = must_learn(build, "BasicTokenizer", "aaabdaaabac", 3)
    assert {tuple(pair): new for pair, new in tokenizer.merges.items()} == expected


@of_both(3)
def test_training_takes_the_first_of_equals(build, kind):
    for text in ("abcbcab", "xyxyzz zz", "abab baba", "aaaa bbbb", "mississippi"):
        must_learn(build, kind, text, 6)


@of_both(3)
def test_a_run_holds_a_pair_at_every_place(build, kind):
    # aaaa holds aa at three places, though only two can be merged; bc stands there twice, and first
    must_learn(build, kind, "bc1bc2aaaa", 1)


@pytest.mark.step(3)
@pytest.mark.checks("BasicTokenizer")
def test_basic_training_merges_like_minbpe(build):
    draw = random.Random(0)
    for alphabet in ("ab", "abc ", "aé", "a", "ab\n", "😀x"):
        for _ in range(6):
            text = "".join(draw.choices(alphabet, k=draw.randrange(2, 120)))
            must_learn(build, "BasicTokenizer", text, 34)


@of_both(3)
def test_pairs_that_occur_once_are_merged_too(build, kind):
    must_learn(build, kind, "abcd", 3)


@of_both(3)
def test_training_ends_when_no_pair_is_left(build, kind):
    for text in ("abab", "a", ""):
        n = len(merges_of([text]))
        tokenizer = fresh(build, kind)
        try:
            tokenizer.train(text, 300)
        except (ValueError, IndexError, KeyError, TypeError, StopIteration) as error:
            pytest.fail(
                f"{text!r} has {n} pairs to merge, 44 were asked for: when no pair is left, "
                f"training ends with those; yours ended with {type(error).__name__}: {error}",
                pytrace=False,
            )
        must_have_merges(tokenizer.merges, [text], n)


@of_both(3)
def test_a_token_has_the_bytes_of_its_two_parts(build, kind):
    tokenizer, merges = trained(build, kind, TEXT, 24)
    expected = bytes_of(merges)
    assert len(tokenizer.vocab) == len(expected), (
        f"after {len(merges)} merges {len(expected)} tokens expected, vocab has "
        f"{len(tokenizer.vocab)}"
    )
    for i, token in expected.items():
        assert tokenizer.vocab[i] == token, (
            f"vocab[{i}] should be {token!r}, got {tokenizer.vocab[i]!r}"
        )


def bytes_of(merges):
    vocab = {byte: bytes([byte]) for byte in range(256)}
    for (left, right), new in merges.items():
        vocab[new] = vocab[left] + vocab[right]
    return vocab


@of_both(3)
def test_a_vocabulary_below_the_bytes_is_refused(build, kind):
    tokenizer = fresh(build, kind)
    tokenizer.train(TEXT, 256)
    for size in (255, 0, -1):
        try:
            tokenizer.train(TEXT, size)
        except Exception:
            continue
        pytest.fail(
            f"train with vocab_size {size} should be an error: the bytes alone take 256 ids; it "
            f"ended with a vocabulary of {len(tokenizer.vocab)}",
            pytrace=False,
        )


@of_both(3)
def test_a_vocabulary_of_256_learns_nothing(build, kind):
    tokenizer = fresh(build, kind)
    tokenizer.train(TEXT, 256)
    assert dict(tokenizer.merges) == {}, "with vocab_size 256 there is nothing to merge"


@of_both(3)
def test_training_again_starts_anew(build, kind):
    first = merges_of(pieces(kind, "zzzz yyyy"), 2)
    again = merges_of(pieces(kind, TEXT), 14)
    tokenizer = fresh(build, kind)
    tokenizer.train("zzzz yyyy", 258)
    tokenizer.train(TEXT, 270)
    kept = [pair for pair in map(tuple, tokenizer.merges) if pair in first and pair not in again]
    assert not kept, (
        f"the merges {kept} of an earlier text are still there: train begins with an empty dict"
    )
    n = len(tokenizer.merges)
    assert n == 14, f"14 merges were asked for in the second training, there are {n}"
    assert len(tokenizer.vocab) == 270, (
        f"after the second training there are 270 tokens, vocab has {len(tokenizer.vocab)}"
    )


# 4. Encoding and decoding


@of_both(4)
def test_a_fresh_tokenizer_knows_the_bytes(build, kind):
    tokenizer = fresh(build, kind)
    must_be(tokenizer.encode("hé"), [104, 195, 169], "hé", ": without training it is its bytes")
    got = tokenizer.decode([104, 195, 169])
    assert got == "hé", f"[104, 195, 169] should decode to 'hé', got {got!r}"


@pytest.mark.step(4)
@pytest.mark.checks("BasicTokenizer")
def test_encoding_by_hand(build):
    # trained right: [258, 100, 258, 97, 99]
    tokenizer, merges = trained(build, "BasicTokenizer", "aaabdaaabac", 3)
    for text in ("aaabdaaabac", "ba", "aab"):
        must_be(tokenizer.encode(text), replayed(text, merges), text)


@of_both(4)
def test_what_is_encoded_decodes_to_itself(build, kind):
    tokenizer, _ = trained(build, kind, UNICODE + TEXT[:250], 40)
    for text in ("a", " ", "\n", "a b", "\r\n", "\0", UNICODE, TEXT, "a" * 300, ""):
        got = tokenizer.decode(tokenizer.encode(text))
        assert got == text, f"{text[:60]!r} came back as {got[:60]!r}"


@of_both(4)
def test_encoding_merges_in_the_order_of_training(build, kind):
    # training on this learns bc before ab: the leftmost match would be wrong
    tokenizer, merges = trained(build, kind, "bc1bc2bc3bc4ab5ab", 2)
    got, expected = list(tokenizer.encode("abc")), replayed("abc", merges)
    assert got == expected, f"with the merges {merges} 'abc' should be {expected}, got {got}" + (
        "\nbc was learned before ab, so it goes first, wherever it stands"
        if got == [257, 99]
        else ""
    )


@of_both(4)
def test_encoding_does_not_prefer_the_longest_token(build, kind):
    # cd five times, ab four times, abc twice, everything else once: ab, cd
    tokenizer, merges = trained(build, kind, "cd1cd2cd3cd4cd5ab6ab7abc8abc9", 3)
    got, expected = list(tokenizer.encode("abcd")), replayed("abcd", merges)
    assert got == expected, f"with the merges {merges} 'abcd' should be {expected}, got {got}" + (
        "\nThe longest token that fits, abc, leaves a d that training never left: merge what "
        "was learned first"
        if got == [258, 100]
        else ""
    )


@of_both(4)
def test_encoding_replays_the_training(build, kind):
    draw = random.Random(1)
    for alphabet in ("ab", "abc", "aé", "abcd "):
        text = "".join(draw.choices(alphabet, k=200))
        tokenizer, merges = trained(build, kind, text, 40)
        for _ in range(20):
            probe = "".join(draw.choices(alphabet.replace(" ", ""), k=draw.randrange(30)))
            must_be(
                tokenizer.encode(probe),
                replayed(probe, merges),
                probe,
                ": the merges of the training, in their order",
            )


@of_both(4)
def test_encoding_uses_the_newest_training(build, kind):
    tokenizer, _ = trained(build, kind, "abababcc", 1)
    tokenizer.encode("abcc")
    tokenizer.train("ccccab", 257)
    merges = {tuple(pair): new for pair, new in tokenizer.merges.items()}
    must_be(
        tokenizer.encode("abcc"),
        replayed("abcc", merges),
        "abcc",
        f", after training again, with the merges {merges}: is something kept from before?",
    )


@of_both(4)
def test_decoding_part_of_a_character_gives_the_replacement_character(build, kind):
    tokenizer = fresh(build, kind)
    for ids, expected in (
        ([195], "\ufffd"),
        ([97, 195], "a\ufffd"),
        ([169, 98], "\ufffdb"),
        ([240, 159, 152], "\ufffd"),
        ([255, 97], "\ufffda"),
    ):
        try:
            got = tokenizer.decode(ids)
        except UnicodeDecodeError:
            got = "a UnicodeDecodeError"
        assert got == expected, (
            f"the bytes {ids} are not valid UTF-8 and decode to {expected!r}, got {got!r}"
            + ("" if "\ufffd" in got else ': use errors="replace"')
        )


@of_both(4)
def test_bytes_are_joined_before_they_are_decoded(build, kind):
    tokenizer = fresh(build, kind)
    got = tokenizer.decode([195, 169])
    assert got == "é", f"[195, 169] are the two bytes of 'é', got {got!r}"
    got = tokenizer.decode([])
    assert got == "", f"no ids decode to an empty text, got {got!r}"


@of_both(4)
@pytest.mark.parametrize("bad", [300, -1], ids=str)
def test_an_unknown_id_is_refused(build, kind, bad):
    tokenizer, _ = trained(build, kind, TEXT[:200], 14)
    tokenizer.decode([97])
    try:
        got = tokenizer.decode([97, bad])
    except Exception:
        return
    pytest.fail(
        f"id {bad} is not in the vocabulary of 270 tokens: an error expected, it decoded to "
        f"{got!r}",
        pytrace=False,
    )


# 5. Files


@pytest.mark.step(5)
@pytest.mark.checks("BasicTokenizer")
def test_the_file_is_minbpes(build, tmp_path):
    tokenizer, merges = trained(build, "BasicTokenizer", "aaabdaaabac", 3)
    tokenizer.save(str(tmp_path / "t"))
    must_hold(tmp_path, ["minbpe v1", "", "0", *(f"{left} {right}" for left, right in merges)])


def must_hold(folder, expected):
    """The lines of the file that was saved as `t`."""
    path, there = folder / "t.model", sorted(file.name for file in folder.iterdir())
    assert path.is_file(), f"save('t') should write t.model, there is {there or 'no file'}"
    got = path.read_bytes().decode("utf-8").replace("\r\n", "\n").rstrip("\n").split("\n")
    assert got == expected, f"the .model file should hold the lines\n{expected}\ngot\n{got}"


@pytest.mark.step(5)
@pytest.mark.checks("BasicTokenizer")
def test_a_file_of_minbpe_is_read(build, tmp_path):
    path = tmp_path / "theirs.model"
    path.write_bytes(b"minbpe v1\n\n0\n97 97\n256 97\n257 98\n")
    tokenizer = fresh(build, "BasicTokenizer")
    tokenizer.train("zzyy", 258)
    tokenizer.load(str(path))
    got = {tuple(pair): new for pair, new in tokenizer.merges.items()}
    expected = {(97, 97): 256, (256, 97): 257, (257, 98): 258}
    assert got == expected, f"the merges in the file are {expected}, after loading got {got}"
    must_be(tokenizer.encode("aaabd"), [258, 100], "aaabd", " after loading")
    got = tokenizer.decode([258, 100])
    assert got == "aaabd", f"[258, 100] should decode to 'aaabd' after loading, got {got!r}"


@of_both(5)
def test_a_saved_tokenizer_loads_as_it_was(build, kind, tmp_path):
    tokenizer, merges = trained(build, kind, TEXT, 24)
    tokenizer.save(str(tmp_path / "t"))
    loaded = fresh(build, kind)
    loaded.train("something else", 258)
    loaded.load(str(tmp_path / "t.model"))
    got = [(tuple(pair), new) for pair, new in loaded.merges.items()]
    assert got == list(merges.items()), f"{merges} were saved, {dict(got)} loaded"
    for text in ("resolved speaker", UNICODE):
        expected = [i for chunk in pieces(kind, text) for i in replayed(chunk, merges)]
        must_be(loaded.encode(text), expected, text, " after loading")
        got = loaded.decode(expected)
        assert got == text, f"{expected} should decode to {text!r} after loading, got {got!r}"


# 6. RegexTokenizer


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_regex_training_by_hand(build):
    # chunks "ab", " ab", " ab": (a, b) occurs three times, then " " + "ab" twice
    expected = {(97, 98): 256, (32, 256): 257}
    tokenizer = must_learn(build, "RegexTokenizer", "ab ab ab", 2)
    assert {tuple(pair): new for pair, new in tokenizer.merges.items()} == expected
    must_be(tokenizer.encode("ab ab"), [256, 257], "ab ab")


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_no_merge_crosses_a_chunk(build):
    text = "dog. dog. dog! dog? 12 12 it's it's " * 5
    _, merges = trained(build, "RegexTokenizer", text, 10_000)
    for token in bytes_of(merges).values():
        text = token.decode("utf-8", errors="replace")
        kinds = {
            "letter" if c.isalpha() else "digit" if c.isdigit() else "sign"
            for c in text.lstrip(" '")
        }
        assert len(kinds) <= 1, (
            f"the token {text!r} glues different kinds of characters together: is the text split "
            "by the pattern, and is each chunk merged by itself?"
        )


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_repeated_chunks_count_each_time(build):
    # xy occurs five times, but in two different chunks; ab in three
    must_learn(build, "RegexTokenizer", "xy xy xy xy xy ab abz abw", 2)


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_encoding_cuts_the_text_with_the_pattern_that_was_given(build):
    # training merges a and b within the chunk "ab!"; in "ab" they are two chunks
    tokenizer, _ = trained(build, "RegexTokenizer", "ab!", 1, "ab!|a|b")
    got = list(tokenizer.encode("ab"))
    assert got == [97, 98], (
        f"the pattern ab!|a|b cuts 'ab' into 'a' and 'b', so its ids are [97, 98], got {got}: does "
        "encode cut the text, and with the pattern that was given?"
    )


# The last word is merged last: a wrong cut before it leaves it in parts.
GPT2_PIECES = [
    *("We", "'re", " Hello", " world", "'s", "   ", " x", " =", " 123", "!!", " \n", " tab"),
    *("'ll", "'ve", "'d", "'m", "'t", " 東京", "\n\n", " qwertyuiop"),
]
GPT4_PIECES = [
    *("We", "'RE", " Hello", "(world", "'S", "   ", " x", " =", " ", "123", "4", "!!\n", " \n"),
    *("'LL", "x", "'ve", "'D", "'m", "'t", "\tif", " 東京", "\n\n", " qwertyuiop"),
]


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
@pytest.mark.parametrize(
    "name, expected",
    [("GPT2_PATTERN", GPT2_PIECES), ("GPT4_PATTERN", GPT4_PIECES)],
    ids=["gpt2", "gpt4"],
)
def test_the_pattern_cuts_as_openais_does(build, name, expected):
    text = "".join(expected)
    tokenizer = fresh(build, "RegexTokenizer", getattr(build, name))
    tokenizer.train(text, 256 + len(merges_of(expected)))
    got = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
    same = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), len(expected))
    assert got == expected, (
        f"training on {text!r} until no pair is left makes one token of every piece that {name} "
        f"cuts. From token {same} on they should be\n{expected[same : same + 4]}\nbut are\n"
        f"{got[same : same + 4]}"
    )


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_regex_training_merges_like_minbpe(build):
    draw = random.Random(2)
    words = ["ab", "ba", " aab", " ab", "  ", "\n", "é", " é", "12", "!", "'s", " abc"]
    for _ in range(25):
        text = "".join(draw.choices(words, k=draw.randrange(1, 60)))
        must_learn(build, "RegexTokenizer", text, 34)


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
    *(70, 105, 114, 115, 116, 32, 67, 105, 116, 105, 122, 101, 110, 58, 32, 256, 267, 32, 116),
    *(111, 32, 115, 262, 32, 102, 117, 114, 260, 101, 114, 46),
]


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_regex_golden_merges_and_ids(build):
    tokenizer = must_learn(build, "RegexTokenizer", TEXT, 12)
    assert list(map(tuple, tokenizer.merges)) == GOLDEN_MERGES
    must_be(tokenizer.encode(GOLDEN_TEXT), GOLDEN_IDS, GOLDEN_TEXT)


# 6. Special tokens


def with_specials(build):
    tokenizer, merges = trained(build, "RegexTokenizer", TEXT, 14)
    tokenizer.register_special_tokens(dict(SPECIALS))
    return tokenizer, merges


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
@pytest.mark.parametrize(
    "text, expected",
    [
        ("a<|endoftext|>b", [97, 1000, 98]),
        ("<|end|><|endoftext|>", [1001, 1000]),
        ("\n<|endoftext|>\n", [10, 1000, 10]),
        ("x <|end|> y", [120, 32, 1001, 32, 121]),
        ("", []),
    ],
    ids=["between", "in a row", "newlines", "spaces", "empty"],
)
def test_special_tokens_get_their_own_ids(build, text, expected):
    tokenizer, _ = with_specials(build)
    must_be(tokenizer.encode(text, allowed_special="all"), expected, text)
    got = tokenizer.decode(expected)
    assert got == text, f"{expected} should decode to {text!r}, got {got!r}"


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
@pytest.mark.parametrize(
    "allowed", [{}, {"allowed_special": "none_raise"}], ids=["default", "none_raise"]
)
def test_a_special_token_in_the_text_raises_by_default(build, allowed):
    tokenizer, merges = with_specials(build)
    expected = replayed("plain", merges)
    must_be(tokenizer.encode("plain", **allowed), expected, "plain")
    try:
        got = tokenizer.encode("a<|endoftext|>", **allowed)
    except Exception:
        return
    pytest.fail(
        "'a<|endoftext|>', with nothing allowed, should be an error: a text must not smuggle in "
        f"control tokens; got {got}",
        pytrace=False,
    )


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_special_tokens_can_be_plain_text(build):
    tokenizer, merges = with_specials(build)
    text = "a<|endoftext|>b<|pad|>"
    expected = [i for chunk in pieces("", text) for i in replayed(chunk, merges)]
    must_be(tokenizer.encode(text, allowed_special="none"), expected, text, ', with "none" allowed')


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_a_set_allows_some_special_tokens(build):
    tokenizer, merges = with_specials(build)
    must_be(
        tokenizer.encode("a<|endoftext|>b", allowed_special={"<|endoftext|>"}),
        [97, 1000, 98],
        "a<|endoftext|>b",
        ", with '<|endoftext|>' allowed",
    )
    try:
        got = list(tokenizer.encode("a<|endoftext|>b<|end|>", allowed_special={"<|endoftext|>"}))
    except Exception:
        return
    assert 1001 not in got, (
        f"only '<|endoftext|>' is allowed, yet '<|end|>' became its id 1001: {got}"
    )
    rest = [i for chunk in pieces("", "b<|end|>") for i in replayed(chunk, merges)]
    must_be(
        got,
        [97, 1000, *rest],
        "a<|endoftext|>b<|end|>",
        ", or an error: with '<|endoftext|>' alone allowed, '<|end|>' is no special token",
    )


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
@pytest.mark.parametrize("name", ["GPT2_PATTERN", "GPT4_PATTERN"], ids=["gpt2", "gpt4"])
def test_ids_are_those_of_tiktoken(build, name):
    pattern = getattr(build, name)
    tokenizer, merges = trained(build, "RegexTokenizer", TEXT + UNICODE, 60, pattern)
    ranks = {token: i for i, token in bytes_of(merges).items()}
    theirs = tiktoken.Encoding(
        name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=SPECIALS
    )
    tokenizer.register_special_tokens(dict(SPECIALS))
    for text in (TEXT, UNICODE, "We'll SPEAK, 12345 speakers\r\n\t<|pad|><|end|><|endoftext|>\n"):
        expected = theirs.encode(text, allowed_special="all")
        got = list(tokenizer.encode(text, allowed_special="all"))
        same = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), 0)
        assert got == expected, (
            f"{text[:60]!r}: from token {same} on tiktoken gives {expected[same : same + 6]}, "
            f"yours {got[same : same + 6]}"
        )


# 6. Files, with a pattern and special tokens


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_the_file_holds_pattern_and_special_tokens(build, tmp_path):
    tokenizer, merges = trained(build, "RegexTokenizer", "ab ab ab", 2)
    tokenizer.register_special_tokens({"<|end|>": 258})
    tokenizer.save(str(tmp_path / "t"))
    lines = [f"{left} {right}" for left, right in merges]
    must_hold(tmp_path, ["minbpe v1", build.GPT2_PATTERN, "1", "<|end|> 258", *lines])


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_loading_takes_the_files_special_tokens(build, tmp_path):
    saved, _ = with_specials(build)
    saved.save(str(tmp_path / "t"))
    loaded = fresh(build, "RegexTokenizer")
    loaded.register_special_tokens({"<|old|>": 500})
    loaded.load(str(tmp_path / "t.model"))
    text = "a<|pad|><|endoftext|>"
    must_be(loaded.encode(text, allowed_special="all"), [97, 1002, 1000], text, " after loading")
    got = loaded.decode([97, 1002, 1000])
    assert got == text, f"[97, 1002, 1000] should decode to {text!r} after loading, got {got!r}"
    got = list(loaded.encode("<|old|>", allowed_special="all"))
    assert 500 not in got, (
        "'<|old|>' was registered before loading and is not in the file, yet it became its id 500"
    )


@pytest.mark.step(6)
@pytest.mark.checks("RegexTokenizer")
def test_loading_takes_the_files_pattern(build, tmp_path):
    text, pattern = "ab12 ab12 ab12 12ab", r"\S+|\s+"
    saved, merges = trained(build, "RegexTokenizer", text, 6, pattern)
    expected = [i for chunk in pieces("", text, pattern) for i in replayed(chunk, merges)]
    saved.save(str(tmp_path / "t"))
    loaded = fresh(build, "RegexTokenizer")
    loaded.load(str(tmp_path / "t.model"))
    must_be(
        loaded.encode(text),
        expected,
        text,
        ": a loaded tokenizer splits with the pattern in the file, not with its own",
    )


# 7. CharTokenizer


@pytest.mark.step(7)
@pytest.mark.checks("CharTokenizer")
def test_char_tokens_are_the_characters_of_the_text(build):
    tokenizer = build.CharTokenizer("hello, hé")
    for text in ("hello", "hé, hé", ""):
        ids = list(tokenizer.encode(text))
        assert len(ids) == len(text), f"{text!r} has {len(text)} characters, got {len(ids)} ids"
        got = tokenizer.decode(ids)
        assert got == text, f"{text!r} came back as {got!r}"


@pytest.mark.step(7)
@pytest.mark.checks("CharTokenizer")
def test_char_ids_follow_the_order_of_the_characters(build):
    characters = [chr(i) for i in [*range(32, 127), 233, 937, 26481, 128512]]
    text = characters * 2
    random.Random(3).shuffle(text)
    got = list(build.CharTokenizer("".join(text)).encode("".join(characters)))
    assert got == list(range(len(characters))), (
        f"the {len(characters)} distinct characters, sorted, get the ids 0 to "
        f"{len(characters) - 1}, got {got[:12]} ...: a set alone has another order in every run"
    )


@pytest.mark.step(7)
@pytest.mark.checks("CharTokenizer")
def test_an_unseen_character_is_refused(build):
    tokenizer = build.CharTokenizer("abc")
    tokenizer.encode("ab")
    try:
        got = tokenizer.encode("abz")
    except Exception:
        return
    pytest.fail(f"'z' is not among 'abc': an error expected, 'abz' gave {got}", pytrace=False)


@pytest.mark.step(7)
@pytest.mark.checks("CharTokenizer")
@pytest.mark.parametrize("bad", [3, -1], ids=str)
def test_an_unknown_char_id_is_refused(build, bad):
    tokenizer = build.CharTokenizer("abc")
    tokenizer.decode([0])
    try:
        got = tokenizer.decode([0, bad])
    except Exception:
        return
    pytest.fail(f"id {bad} of 3 characters: an error expected, got {got!r}", pytrace=False)
