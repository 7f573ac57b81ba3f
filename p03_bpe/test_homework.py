"""What can be checked of the chapter's homework.

    pytest p03_bpe --build my/p03_bpe.py --homework 3

A check is skipped as long as the file does not have what the homework asks for.
"""

import pytest

from p01_autograd.lab.homework import written

WORDS = "It's a word, and another one:  they'll do.\n\n    Indented, with naïve words."
TABLE = "\n".join(f"row {n}: {n * n} {n * 1234567} {n}.5" for n in range(1, 60))


@pytest.mark.homework(3)
def test_every_digit_is_a_piece_of_its_own(build):
    (pattern,) = written(build, "DIGIT_PATTERN")
    tokenizer = build.RegexTokenizer(pattern)
    tokenizer.train(TABLE, 320)
    ids = tokenizer.encode(TABLE)
    assert tokenizer.decode(ids) == TABLE, "decode(encode(text)) is not the text"
    for id in ids:
        token = tokenizer.decode([id])
        digits = sum(character.isdigit() for character in token)
        assert digits == 0 or len(token) == 1, (
            f"{token!r} is one token; a digit should be one by itself, without a space before it"
        )


@pytest.mark.homework(3)
def test_text_without_digits_is_cut_as_before(build):
    (pattern,) = written(build, "DIGIT_PATTERN")
    found = []
    for one in (pattern, build.GPT2_PATTERN):
        tokenizer = build.RegexTokenizer(one)
        tokenizer.train(WORDS * 3, 290)
        found.append([tokenizer.decode([id]) for id in tokenizer.encode(WORDS)])
    assert found[0] == found[1], (
        f"without a digit the tokens should be those of GPT2_PATTERN,\n{found[1]}\nbut are\n"
        f"{found[0]}"
    )
