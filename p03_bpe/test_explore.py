"""The explorer: nothing of the text is lost or let loose, and mistakes end with one line."""

import os
import re

import pytest

from p03_bpe import GPT2_PATTERN, GPT4_PATTERN, RegexTokenizer, explore

TEXT = "O <b>naïve</b> & 東京\n\n  x\t'S 12345 \x1b[31m<|endoftext|>\n"


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """A short corpus, a small vocabulary for GPT-2, an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explore, "load_corpus", lambda: "the three thistles\nthe thing\n" * 40)
    gpt2 = RegexTokenizer()
    gpt2.train("the thing and  the other thing", 262)
    gpt2.register_special_tokens({"<|endoftext|>": 262})
    monkeypatch.setattr(explore, "gpt2_encoding", lambda: gpt2.to_tiktoken("gpt2"))


def run(capsys, *argv):
    assert explore.main([*argv, "--vocab-size", "270"]) == 0
    return capsys.readouterr().out


def test_every_view_shows_the_whole_text_and_escapes_it(capsys, tmp_path):
    out = run(capsys, TEXT)
    assert "\x1b" not in out, "a control character reached the terminal"
    text = (tmp_path / "runs/p03_bpe/explore.html").read_text(encoding="utf-8")
    assert "<b>" not in text and "src=" not in text and "href=" not in text
    columns = re.findall(r"<pre>(.*?)</pre>", text, re.S)
    assert len(columns) == 3
    for column in columns:
        bytes_ = "".join(re.findall(r"bytes ([0-9a-f ]+)\"", column))
        assert bytes.fromhex(bytes_).decode("utf-8") == TEXT
    assert "&lt;" in columns[0] and "\\u001b" in columns[0]


def test_the_counts_are_those_of_the_tokenizers(capsys):
    out = run(capsys, "the thing")
    (ours, gpt2, newer) = explore.views(270)
    for view in (ours, gpt2, newer):
        (line,) = [line for line in out.splitlines() if line.startswith(view.name)]
        assert f" {len(view.tokens('the thing'))} tokens of " in line
    assert (ours.tokenizer.pattern, newer.tokenizer.pattern) == (GPT2_PATTERN, GPT4_PATTERN)


def test_colours_only_on_a_terminal_and_not_against_the_readers_wish(capsys, monkeypatch):
    monkeypatch.setattr(explore.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[48;5;" in run(capsys, "the thing")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run(capsys, "the thing")


def test_the_tree_of_a_token_ends_in_its_bytes(capsys):
    view = explore.trained("ours", GPT2_PATTERN, 259, ["the the then the"])
    (i,) = [i for i, _ in view.tokens("the")]
    assert list(explore.tree(view, i)) == [
        "the  id 257, merge 2 of 3, when the pair stood there 4 times",
        "├─ th  id 256, merge 1 of 3, when the pair stood there 4 times",
        "│  ├─ t  byte 116",
        "│  └─ h  byte 104",
        "└─ e  byte 101",
    ]
    assert "├─ th  id" in run(capsys, "the", "--merges")


def test_whitespace_is_counted_in_the_given_code(capsys, tmp_path):
    code = "def f(x):\n        return x\n" * 3
    (tmp_path / "code.py").write_bytes(code.encode("utf-8"))
    out = run(capsys, "code.py", "--whitespace")
    assert "GPT-4's  ···|·if|·x|1|·==|·|123|45|·and|·(|self|.IT|'S|):⏎|·······|·return|⏎" in out
    assert "code.py takes" in out


@pytest.mark.parametrize(
    "argv, says",
    [
        (["no/such.txt"], "there is no file no/such.txt"),
        (["gone.txt"], "add --text"),
        (["."], "is a folder"),
        ([""], "the text is empty"),
        (["empty.txt"], "empty.txt is empty"),
        (["latin.txt"], "is not UTF-8: byte 0xe9 at position 1"),
        ([], "give a text"),
        (["x", "--vocab-size", "255"], "use 256 or more"),
        (["x", "--merges", "--whitespace"], "not allowed with"),
        (["x", "--out", "empty.txt/page.html"], "cannot write"),
    ],
    ids=["path", "file", "folder", "nothing", "empty", "latin", "none", "size", "two", "out"],
)
def test_mistakes_end_with_one_line(argv, says, capsys, tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes(b"h\xe9")
    with pytest.raises(SystemExit) as end:
        explore.main(argv)
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.count("\n") == 1 and says in err


def test_a_reader_who_has_seen_enough_gets_no_traceback(monkeypatch):
    """python -m p03_bpe.explore TEXT --merges | head -1"""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(explore.sys, "stdout", pipe)
        assert explore.main(["the thing", "--merges", "--vocab-size", "270"]) == 0


def test_a_text_that_looks_like_a_file_can_be_given():
    assert explore.read("gone.txt", literally=True) == "gone.txt"
    assert explore.read("Is this a dagger?", literally=False) == "Is this a dagger?"
