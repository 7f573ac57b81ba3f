"""See how a text falls into tokens: python -m p03_bpe.explore "Is this a dagger?"

The same text under three tokenizers: ours with GPT-2's pattern, trained on the first nine tenths of
Tiny Shakespeare; GPT-2's own 50,257 tokens; and ours again, cut by GPT-4's pattern. In the terminal
a token is a coloured stretch (or stands between bars), with a dot for each space in it; in the HTML
page the mouse shows its id and bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from p01_autograd.lab.cli import Parser, UsageError, at_least, print_anything

from .build import GPT2_PATTERN, GPT4_PATTERN
from .corpus import DataError, gpt2_encoding, load_corpus
from .fast import Pair, RegexTokenizer, learn_merges, printable

PAGE = Path("runs/p03_bpe/explore.html")
IN_TERMINAL, IN_PAGE, TREES = 2_000, 20_000, 8  # characters, characters, tokens with their merges
BACKGROUNDS = (153, 222, 157, 217, 183)  # of the terminal's 256 colours
COLOURS = ("#bfe0ff", "#ffe0a3", "#c4efc0", "#ffc9c9", "#dcd0ff")
FILE_NAME = re.compile(r"\S*[/\\]\S*|\S+\.[A-Za-z]\w{0,4}")  # what is meant as a file


@dataclass
class View:
    """A tokenizer, under the name it is shown by, with how often each pair stood when merged."""

    name: str
    tokenizer: RegexTokenizer
    counts: dict[Pair, int] = field(default_factory=dict)

    def tokens(self, text: str) -> list[tuple[int, bytes]]:
        """The id and the bytes of each token; special tokens are plain text."""
        vocab = self.tokenizer.vocab
        return [(i, vocab[i]) for i in self.tokenizer.encode(text, allowed_special="none")]


def trained(name: str, pattern: str, vocab_size: int, texts: list[str]) -> View:
    """A tokenizer trained on texts, with the counts that training saw."""
    tokenizer = RegexTokenizer(pattern)
    chunks = (chunk for text in texts for chunk in tokenizer.split(text))
    counts = dict(learn_merges(chunks, vocab_size - 256))
    tokenizer.merges = {pair: 256 + n for n, pair in enumerate(counts)}
    tokenizer.build_vocab()
    return View(name, tokenizer, counts)


def views(vocab_size: int, more: str = "") -> list[View]:
    """The three tokenizers; ours also read the text `more`."""
    texts = [training_part(), more]
    gpt2 = RegexTokenizer.from_tiktoken(gpt2_encoding())
    return [
        trained(f"ours, GPT-2's pattern, {vocab_size:,} tokens", GPT2_PATTERN, vocab_size, texts),
        View(f"GPT-2's own, {len(gpt2.vocab):,} tokens", gpt2),
        trained(f"ours, GPT-4's pattern, {vocab_size:,} tokens", GPT4_PATTERN, vocab_size, texts),
    ]


# Tokens side by side


def visible(token: bytes) -> str:
    r"""A token as text: dots for spaces, signs for tabs and line ends, bytes of a cut character.

    >>> visible(b" a\n"), visible(b"\xc3")
    ('·a⏎', '<C3>')
    """
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return f"<{token.hex(' ').upper()}>"
    signs = {" ": "·", "\n": "⏎", "\t": "⇥"}
    return "".join(signs.get(char) or printable(char.encode("utf-8")) for char in text)


def in_terminal(tokens: list[bytes], colour: bool) -> str:
    """The tokens one after another; a line ends where the text's does."""
    parts = []
    for n, token in enumerate(tokens):
        shown = visible(token)
        if colour:
            shown = f"\x1b[48;5;{BACKGROUNDS[n % len(BACKGROUNDS)]}m\x1b[38;5;16m{shown}\x1b[0m"
        else:
            shown = f"|{shown}"
        parts.append(shown + "\n" * token.count(b"\n"))
    return "".join(parts).removeprefix("|").rstrip("\n")


def report(view: View, text: str) -> str:
    """How many tokens a text takes, in one line."""
    tokens = len(view.tokens(text))
    return f"{tokens:,} token{'s' * (tokens != 1)} of {len(text) / tokens:.2f} characters"


STYLE = """
body { font: 16px/1.7 system-ui, sans-serif; margin: 2rem; color: #111; background: #fff }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 2rem }
pre { font: 14px/1.8 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
span { border-radius: 3px; padding: 1px 0 }
"""


def page(shown: list[View], text: str) -> str:
    """One HTML file that needs no other; whatever the text holds is escaped."""
    part, columns = text[:IN_PAGE], []
    for view in shown:
        spans = []
        for n, (i, token) in enumerate(view.tokens(part)):
            title = html.escape(f"id {i}, bytes {token.hex(' ')}")
            ends = "\n" * token.count(b"\n")
            spans.append(
                f'<span class="c{n % len(COLOURS)}" title="{title}">'
                f"{html.escape(visible(token))}</span>{ends}"
            )
        columns.append(
            f"<section><h2>{html.escape(view.name)}</h2><p>{report(view, text)}</p>"
            f"<pre>{''.join(spans)}</pre></section>"
        )
    style = STYLE + "".join(f".c{n} {{ background: {c} }}\n" for n, c in enumerate(COLOURS))
    note = "" if part == text else f"<p>The first {IN_PAGE:,} of {len(text):,} characters.</p>"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Tokens</title>'
        f"<style>{style}</style></head>\n<body><h1>Tokens</h1>{note}\n<main>\n"
        + "\n".join(columns)
        + "\n</main></body></html>\n"
    )


def show_tokens(text: str, vocab_size: int, out: Path) -> None:
    """The text under the three tokenizers, here and in a page."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    shown = views(vocab_size)
    for view in shown:
        print(f"{view.name}: {report(view, text)}")
        print(in_terminal([token for _, token in view.tokens(text[:IN_TERMINAL])], colour) + "\n")
    if len(text) > IN_TERMINAL:
        print(f"shown are the first {IN_TERMINAL:,} characters")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(shown, text), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {out} ({error.strerror}); see --out") from None
    print(f"page: {out.as_posix()}")


# Merges


def tree(view: View, i: int) -> Iterator[str]:
    """A token and what it was merged from, a line each."""
    merges, vocab = view.tokenizer.merges, view.tokenizer.vocab
    parents = {new_id: pair for pair, new_id in merges.items()}
    waiting = [(i, "", "")]
    while waiting:
        i, stem, branch = waiting.pop()
        line = f"{stem}{branch}{visible(vocab[i])}"
        if i not in parents:
            yield f"{line}  byte {vocab[i][0]}" if i in view.tokenizer.byte_ids else line
            continue
        number = list(merges).index(parents[i]) + 1
        seen = view.counts.get(parents[i])
        times = f", when the pair stood there {seen:,} times" if seen else ""
        yield f"{line}  id {i}, merge {number:,} of {len(merges):,}{times}"
        stem += {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        left, right = parents[i]
        waiting += [(right, stem, "└─ "), (left, stem, "├─ ")]


def show_merges(text: str, vocab_size: int) -> None:
    """How the tokens of the text came to be, with each tokenizer."""
    for view in views(vocab_size):
        print(f"{view.name}: {report(view, text)}\n")
        found = list(dict.fromkeys(i for i, _ in view.tokens(text)))
        for i in found[:TREES]:
            print("\n".join(tree(view, i)) + "\n")
        if len(found) > TREES:
            print(f"shown are {TREES} of {len(found):,} different tokens\n")


# Whitespace

APART = GPT2_PATTERN.replace(r" ?\p", r"\p").replace(" ?[", "[")  # no space goes with a word
RUNS = (1, 2, 4, 8, 12, 16)  # spaces
LINE = "    if x1 == 12345 and (self.IT'S):\n        return\n"


def show_whitespace(name: str, code: str, vocab_size: int) -> None:
    """What the patterns do to spaces, in the tokens of prose and of real code."""
    import optparse

    more = inspect.getsource(optparse)  # ours must have seen some code, too
    shown = views(vocab_size, more)
    ours, gpt2 = shown[:2]
    seen, prose = training_part(), load_corpus()[len(training_part()) :]
    apart = trained("spaces by themselves", APART, vocab_size, [seen, more])

    print("Why GPT-2 glues a space to the word that follows\n")
    tokens = [token for _, token in gpt2.tokens(prose)]
    glued = sum(token[:1] == b" " and len(token) > 1 for token in tokens)
    with_space, without = (len(view.tokens(prose)) for view in (ours, apart))
    say(
        f"""In GPT-2's pattern a piece is " ?\\p{{L}}+": letters, and one space before them if there
        is one. So the space between two words needs no token of its own, and decoding no rule that
        puts it back. Of GPT-2's tokens for the last tenth of Tiny Shakespeare
        {share(glued, len(tokens))} begin with such a space. Ours takes {with_space:,} tokens for it
        with a vocabulary of {vocab_size:,}; trained with every space as a piece of its own,
        {without:,} ({without / with_space - 1:+.0%}). The price: a word at the start of a line is
        another token than the same word within it."""
    )
    for word in ("speak", " speak"):
        print(f"    GPT-2's ids of {word!r}: {[i for i, _ in gpt2.tokens(word)]}")

    print("\nWhat it does to runs of spaces\n")
    tokens = [token for _, token in gpt2.tokens(code)]
    blank = sum(token.strip() == b"" for token in tokens)
    runs_known = sum(
        len(token) > 1 and set(token) == {32} for token in gpt2.tokenizer.vocab.values()
    )
    say(
        f"""The last space of a run goes with the word: "\\s+(?!\\S)" leaves it there. What stands
        before it, a line end included, is a piece. Of GPT-2's {len(gpt2.tokenizer.vocab):,} tokens
        {runs_known} are runs of two spaces or more, so indentation is paid for space by space: of
        its tokens for {name} {share(blank, len(tokens))} are blanks. Ours have read {len(more):,}
        characters of Python beside Shakespeare (optparse.py), where such runs are frequent, and
        merged them. Tokens for a word behind so many spaces:"""
    )
    print(f"    {'spaces':35}", *(f"{n:4}" for n in RUNS))
    for view in shown:
        counts = (len(view.tokens(" " * n + "return")) for n in RUNS)
        print(f"    {view.name:35}", *(f"{n:4}" for n in counts))

    print("\nWhat the newer pattern changed\n")
    print(f"    GPT-2's  {pieces(GPT2_PATTERN, LINE)}")
    print(f"    GPT-4's  {pieces(GPT4_PATTERN, LINE)}\n")
    say(
        f"""A line end goes with the signs or blanks before it, no longer with the indentation after
        it: indentation is the same piece on every line. A word takes along whatever sign stands
        before it, a bracket, a dot or a tab, not only a space. Digits come in threes at most and
        take no space. 'S is cut like 's. Which pattern takes fewer tokens depends on the text and
        on the vocabulary. {name} takes"""
    )
    for view in shown:
        print(f"    {view.name:35} {report(view, code)}")


def training_part() -> str:
    """The part of the corpus that tokenizers are trained on."""
    text = load_corpus()
    return text[: len(text) * 9 // 10]


def say(text: str) -> None:
    print(textwrap.fill(" ".join(text.split()), 90, break_long_words=False) + "\n")


def share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.0%})"


def pieces(pattern: str, text: str) -> str:
    """Where a pattern cuts."""
    return "|".join(visible(chunk.encode("utf-8")) for chunk in RegexTokenizer(pattern).split(text))


# The command line


def read(given: str, literally: bool) -> str:
    """The text of a file, or what was given itself."""
    if not given:
        raise UsageError("the text is empty; give one of at least one character")
    path = Path(given)
    try:
        is_file = not literally and path.is_file()
        if not literally and path.is_dir():
            raise UsageError(f"{given} is a folder; give a file in it, or a text with --text")
    except (OSError, ValueError):  # too long for a name, or a zero in it
        is_file = False
    if is_file:
        try:
            text = path.read_bytes().decode("utf-8")
        except OSError as error:
            raise UsageError(f"cannot read {given}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            raise UsageError(
                f"{given} is not UTF-8: byte 0x{bad:02x} at position {error.start}; save it as "
                "UTF-8 and try again"
            ) from None
    elif not literally and FILE_NAME.fullmatch(given):
        raise UsageError(f"there is no file {given}; if that is the text itself, add --text")
    else:
        text = given
    if not text:
        raise UsageError(f"{given} is empty; give a file that holds text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("the text holds bytes that are not UTF-8") from None
    return text


def show(flags) -> None:
    """The given text, in the way that the flags ask for."""
    text = read(flags.text, flags.literally)
    if flags.whitespace:
        name = "the text" if text == flags.text else Path(flags.text).name
        show_whitespace(name, text, flags.vocab_size)
    elif flags.merges:
        show_merges(text, flags.vocab_size)
    else:
        show_tokens(text, flags.vocab_size, flags.out)


def main(argv=None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python -m p03_bpe.explore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("text", nargs="?", metavar="TEXT_OR_FILE", help="a text, or a UTF-8 file")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--merges", action="store_true", help="how each token came to be")
    what.add_argument(
        "--whitespace",
        action="store_true",
        help="what the patterns do to spaces, on the given file or on Python's argparse.py",
    )
    parser.add_argument("--text", dest="literally", action="store_true", help="it is no file name")
    parser.add_argument(
        "--vocab-size", type=at_least(256), default=1024, help="of our tokenizers; default: 1024"
    )
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE", help=f"default: {PAGE}")
    flags = parser.parse_args(argv)
    try:
        if flags.whitespace and flags.text is None:
            show_whitespace("argparse.py", inspect.getsource(argparse), flags.vocab_size)
        elif flags.text is None:
            parser.error("give a text, or the name of a file")
        else:
            show(flags)
        sys.stdout.flush()
    except (UsageError, DataError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # | head
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
