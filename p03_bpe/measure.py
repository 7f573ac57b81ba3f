"""What a tokenizer costs, and what its vocabulary buys. Parts:

knee        compression against the size of the vocabulary, and where more stops paying
merges      the first hundred merges: what they join, and how often it occurred
time        seconds a merge, from the first to the last, in both forms of the algorithm
growth      training time against the length of the text
whitespace  how the number of tokens moves with spaces, tabs and blank lines
speed       against minbpe's algorithm, tiktoken and HuggingFace tokenizers (a minute and more)
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import re
import subprocess
import sys
import time
from itertools import chain

from p01_autograd.lab.cli import measure
from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

from . import build
from .build import GPT2_PATTERN, GPT4_PATTERN, get_stats, merge
from .corpus import load_corpus
from .fast import BasicTokenizer, RegexTokenizer, learn_merges, printable

SIZES = [256, 288, 320, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384]
KNEE = 0.05  # a doubling that saves less than this share of the tokens no longer pays


def seconds(function, repeats: int = 1) -> float:
    """The least of some timings of a call."""
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def trained(text: str, vocab_size: int, cls=RegexTokenizer):
    tokenizer = cls()
    tokenizer.train(text, vocab_size)
    return tokenizer


def smaller(tokenizer: RegexTokenizer, vocab_size: int) -> RegexTokenizer:
    """The tokenizer as it was when it had learned so many tokens."""
    other = RegexTokenizer(tokenizer.pattern)
    other.merges = dict(list(tokenizer.merges.items())[: vocab_size - 256])
    other.build_vocab()
    return other


# The parts


def knee(args):
    """Compression of the text trained on and of the last tenth, which training has not seen."""
    text = load_corpus()
    seen, unseen = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    full, rows = trained(seen, SIZES[-1]), []
    print(
        "vocabulary  characters a token  unseen text  tokens saved by doubling  tokens never used"
    )
    for size in SIZES:
        tokenizer = smaller(full, size)
        ids = tokenizer.encode(unseen)
        rows.append((size, len(seen) / len(tokenizer.encode(seen)), len(unseen) / len(ids)))
        half = next((there for at, _, there in rows if 2 * at == size), None)
        saved = f"{1 - half / rows[-1][2]:.1%}" if half else "-"
        used = len({i for i in ids if i > 255})
        unused = f"{1 - used / (size - 256):.0%}" if size > 256 else "-"
        print(f"{size:10,} {rows[-1][1]:19.2f} {rows[-1][2]:12.2f} {saved:>25} {unused:>18}")
    gains = {
        size: 1 - at / there
        for size, there in curve(rows)
        for s, at in curve(rows)
        if 2 * s == size
    }
    at = next((size // 2 for size, saved in gains.items() if saved < KNEE), SIZES[-1])
    print(f"the knee, after which doubling saves less than {KNEE:.0%} of the tokens: {at:,}")

    figure, ax = subplots()
    sizes = [size for size, *_ in rows]
    ax.plot(sizes, [row[1] for row in rows], "--", color=REFERENCE, label="text trained on")
    ax.plot(sizes, [row[2] for row in rows], "o-", color=HEALTHY, label="unseen text")
    ax.axvline(at, color=BROKEN, lw=1.5, ls=":", label=f"knee: {at:,}")
    ax.set(xscale="log", xlabel="vocabulary, tokens", ylabel="characters a token")
    ax.set_xticks([256, 1024, 4096, 16384], ["256", "1,024", "4,096", "16,384"])
    ax.minorticks_off()
    ax.legend()
    return figure


def curve(rows):
    return [(size, unseen) for size, _, unseen in rows]


def merges(args):
    """A hundred merges of Tiny Shakespeare."""
    tokenizer, chunks = RegexTokenizer(), RegexTokenizer().split(load_corpus())
    found = list(learn_merges(chunks, 100))
    tokenizer.merges = {pair: 256 + i for i, (pair, _) in enumerate(found)}
    tokenizer.build_vocab()
    shown = [
        f"{n + 1:3} {'|'.join(visible(tokenizer.vocab[i]) for i in pair):9} {count:6,}"
        for n, (pair, count) in enumerate(found)
    ]
    for row in range(25):
        print("   ".join(shown[row::25]))
    tokens = [tokenizer.vocab[256 + i] for i in range(100)]
    kinds = {
        "a space and what follows": sum(
            token[:1] == b" " and token.strip() != b"" for token in tokens
        ),
        "within a word": sum(token.isalpha() for token in tokens),
    }
    kinds["other"] = 100 - sum(kinds.values())
    print("they join: " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()))
    print(f"counts: {found[0][1]:,} for the first, {found[-1][1]:,} for the hundredth")

    figure, ax = subplots()
    ax.plot(range(1, 101), [count for _, count in found], "o", ms=3, color=HEALTHY)
    ax.set(xscale="log", yscale="log", xlabel="merge", ylabel="occurrences")
    return figure


def visible(token: bytes) -> str:
    """A token with its spaces as dots."""
    return printable(token).replace(" ", "·")


def stamps(pairs) -> dict[int, float]:
    """Seconds from the start until each merge was known."""
    start = time.perf_counter()
    return {n: time.perf_counter() - start for n, _ in enumerate(pairs, 1)}


def time_(args):
    """The listing reads the text for each merge; the quick form, the places of the pair."""
    text = load_corpus()[:100_000]
    chunks, listing = RegexTokenizer().split(text), build.RegexTokenizer()
    until = {n: seconds(lambda n=n: listing.train(text, 256 + n)) for n in (1, 11, 30, 40)}
    forms = {
        "build.py": (until, REFERENCE),
        "fast.py, one chunk": (stamps(learn_merges([text], 2048)), BROKEN),
        "fast.py, chunks": (stamps(learn_merges(chunks, 2048)), HEALTHY),
    }
    print("milliseconds on 100,000 characters")
    print(f"{'':18} until the first     a merge: first ten  31st to 40th  last hundred of 2,048")
    for name, (at, _) in forms.items():
        n = max(at)
        last = f"{10 * (at[n] - at[n - 100]):14.3f}" if n > 100 else f"{'-':>14}"
        print(
            f"{name:19} {1e3 * at[1]:15.1f} {1e3 * (at[11] - at[1]) / 10:23.3f}"
            f" {1e3 * (at[40] - at[30]) / 10:13.3f} {last}"
        )

    figure, ax = subplots()
    for name, (at, colour) in forms.items():
        ax.plot(list(at), list(at.values()), color=colour, label=name)
    ax.set(xscale="log", yscale="log", xlabel="merges", ylabel="seconds since the start")
    ax.legend()
    return figure


def growth(args):
    """Training a vocabulary of 1,024 on longer and longer beginnings of the text."""
    text, rows = load_corpus(), []
    print("characters     ours   times  without split   times")
    for times in (1, 2, 4, 8):
        part = text[: 100_000 * times]
        ours = seconds(lambda part=part: trained(part, 1024), 3)
        basic = seconds(lambda part=part: trained(part, 1024, BasicTokenizer), 3)
        rows.append((len(part), ours, basic))
        print(
            f"{len(part):10,} {ours:6.3f} s {ours / rows[0][1]:6.2f} {basic:12.3f} s"
            f" {basic / rows[0][2]:6.2f}"
        )

    figure, ax = subplots()
    sizes = [n for n, *_ in rows]
    ax.loglog(sizes, [row[1] for row in rows], "o-", color=HEALTHY, label="RegexTokenizer")
    ax.loglog(sizes, [row[2] for row in rows], "s--", color=HEALTHY, label="BasicTokenizer")
    line = [rows[0][1] * n / sizes[0] for n in sizes]
    ax.loglog(sizes, line, ":", color=REFERENCE, label="as fast as the text")
    ax.set(xlabel="characters", ylabel="seconds")
    ax.legend()
    return figure


WHITESPACE = {
    "as it is": lambda code: code,
    "two spaces for four": lambda code: re.sub(r"(?m)^ +", lambda m: m[0][::2], code),
    "a tab for four": lambda code: code.replace("    ", "\t"),
    "indentation gone": lambda code: re.sub(r"(?m)^ +", "", code),
    "spaces at line ends": lambda code: code.replace("\n", "  \n"),
    "blank lines doubled": lambda code: code.replace("\n\n", "\n\n\n\n"),
    "spaces gone": lambda code: code.replace(" ", ""),
}


def whitespace(args):
    """Half of Python's argparse.py is trained on, and the other half written in other ways."""
    import inspect

    code = inspect.getsource(argparse)
    half = len(code) // 2
    tokenizers = [RegexTokenizer(GPT2_PATTERN), RegexTokenizer(GPT4_PATTERN)]
    for tokenizer in tokenizers:
        tokenizer.train([load_corpus()[:half], code[:half]], 2048)
    rows = []
    print("tokens of code      characters   GPT-2's pattern       GPT-4's pattern")
    for name, rewrite in WHITESPACE.items():
        text = rewrite(code[half:])
        counts = [len(tokenizer.encode(text)) for tokenizer in tokenizers]
        rows.append((name, counts))
        changes = [f"{n:8,} {n / rows[0][1][t] - 1:+7.1%}" for t, n in enumerate(counts)]
        print(f"{name:20} {len(text):9,}  {changes[0]}      {changes[1]}")

    figure, ax = subplots()
    for t, (colour, name) in enumerate(((REFERENCE, "GPT-2's"), (HEALTHY, "GPT-4's"))):
        heights = [counts[t] / 1e3 for _, counts in rows]
        at = [i + 0.4 * t - 0.2 for i in range(len(rows))]
        ax.barh(at, heights, 0.4, color=colour, label=name)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows], size=10)
    ax.invert_yaxis()
    ax.set(xlabel="thousand tokens")
    ax.legend()
    return figure


def speed(args):
    """Ratios of times measured in one go."""
    text, short = load_corpus(), load_corpus()[:100_000]
    print("training a vocabulary of 1,024 on 100,000 characters")
    for cls in (RegexTokenizer, BasicTokenizer):
        listing = getattr(build, cls.__name__)
        plain = seconds(lambda listing=listing: trained(short, 1024, listing))
        ours = seconds(lambda cls=cls: trained(short, 1024, cls), 3)
        print(
            f"  {cls.__name__:15} {ours:7.3f} s, minbpe's algorithm {plain:6.2f} s:"
            f" {plain / ours:.0f} times as fast"
        )
    print(f"training on all {len(text):,} characters")
    for size in (1024, 8192):
        ours = seconds(lambda size=size: trained(text, size), 5)
        print(f"  {size:5,} tokens: {ours:6.3f} s{against_rust(text, size, ours)}")
    print("encoding all characters, against minbpe's algorithm and tiktoken on the same merges")
    for size in (1024, 8192):
        encoding_race(text, trained(text, size))
    basic = trained(text, 1024, BasicTokenizer)
    ours, plain = seconds(lambda: basic.encode(short)), seconds(lambda: as_minbpe(basic, short))
    print(
        f"the same without split, 1,024 tokens, 100,000 characters: {ours:.3f} s, minbpe's"
        f" algorithm {plain:.1f} s: {plain / ours:.0f} times as fast"
    )
    print("peak memory of a process that trains on all characters, libraries included")
    for cls in ("RegexTokenizer", "BasicTokenizer"):
        print(
            f"  {cls:15}", *(f"{size:6,} tokens {peak(cls, size):4.0f} MB" for size in (1024, 8192))
        )


def encoding_race(text: str, tokenizer: RegexTokenizer) -> None:
    """The text it was trained on, twice, and the same text as if it had never been seen."""
    n, encoding = 256 + len(tokenizer.merges), tokenizer.to_tiktoken("ours")
    first, again = (
        seconds(lambda: tokenizer.encode(text)),
        seconds(lambda: tokenizer.encode(text), 5),
    )
    fresh = smaller(tokenizer, n)
    unseen = seconds(lambda: fresh.encode(text))
    minbpe = seconds(lambda: as_minbpe(tokenizer, text), 2)
    tiktoken = seconds(lambda: encoding.encode(text), 5)
    if not encoding.encode(text) == tokenizer.encode(text) == as_minbpe(tokenizer, text):
        raise AssertionError("other ids")
    print(f"  {n:,} tokens: minbpe's algorithm {minbpe:.3f} s, tiktoken {tiktoken:.3f} s")
    for what, ours in (
        ("after training on the text", first),
        ("once more", again),
        ("no chunk known beforehand", unseen),
    ):
        print(
            f"    {what:27} {ours:6.3f} s: {minbpe / ours:4.1f} times as fast as minbpe,"
            f" {ours / tiktoken:.1f} times tiktoken's time"
        )


def as_minbpe(tokenizer, text: str) -> list[int]:
    """Encode by minbpe's algorithm: chunk by chunk, counting pairs anew for every merge."""
    ids, merges = [], tokenizer.merges
    for chunk in chain.from_iterable(tokenizer.chunks([text])):
        part = list(chunk.encode("utf-8"))
        while len(part) > 1:
            pair = min(get_stats(part), key=lambda pair: merges.get(pair, float("inf")))
            if pair not in merges:
                break
            part = merge(part, pair, merges[pair])
        ids.extend(part)
    return ids


def against_rust(text: str, size: int, ours: float) -> str:
    """The same training by HuggingFace tokenizers, where that is installed."""
    if importlib.util.find_spec("tokenizers") is None:
        return " (pip install tokenizers compares with a trainer in Rust)"
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    def train():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)

    theirs = seconds(train, 5)
    return f", tokenizers {theirs:6.3f} s: {ours / theirs:.1f} times its time"


PEAK = """
import resource, sys
from pathlib import Path
from p03_bpe import {cls}
from p03_bpe.corpus import load_corpus
{cls}().train(load_corpus(), {size})
status = Path("/proc/self/status")
if status.exists():  # on Linux, ru_maxrss also counts the process that started this one
    print(int(status.read_text().split("VmHWM:")[1].split()[0]) / 1e3)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def peak(cls: str, size: int) -> float:
    """Megabytes at the highest point of a process that trains; nan where nobody says (Windows)."""
    if importlib.util.find_spec("resource") is None:
        return float("nan")
    command = [sys.executable, "-c", PEAK.format(cls=cls, size=size)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


PARTS = {
    part.__name__.rstrip("_"): part for part in (knee, merges, time_, growth, whitespace, speed)
}
QUICK = ("knee", "merges", "time", "growth", "whitespace")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return measure("p03_bpe", __doc__, PARTS, QUICK, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
