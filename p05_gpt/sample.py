"""Generate text from a trained GPT: python -m p05_gpt.sample --prompt "ROMEO:" --tokens 200"""

from __future__ import annotations

import argparse
import codecs
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from p01_autograd.lab.cli import Parser, UsageError, at_least, print_anything

from . import mine, run
from .kv_cache import CachedGPT, can_cache, with_cache
from .sampling import stream
from .train import DEFAULT_OUT, run_command


def temperature(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    number = number_in(text)
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"{text} is out of range; use 0 (greedy) or above")
    return number


def probability(text: str) -> float:
    """An argparse type: a number above 0 and at most 1."""
    number = number_in(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; use a number above 0, at most 1")
    return number


def some_text(text: str) -> str:
    """An argparse type: a text that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give at least one character")
    return text


def number_in(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def newest_run(default: str) -> Path:
    """The folder of the newest finished run among `default`, `default-2`, ...

    Raises UsageError if there is none.
    """
    parent, name = Path(default).parent, Path(default).name
    finished = [path.parent for path in parent.glob(f"{name}*/model.pt")]
    if not finished:
        raise UsageError(f"there is no run in {parent}; train first: python -m p05_gpt.train")
    return max(finished, key=lambda folder: (folder / "model.pt").stat().st_mtime)


def prompt_of(args) -> str:
    """The prompt; for "-" the content of standard input, without its final newline."""
    if args.prompt != "-":
        return args.prompt
    try:
        content = getattr(sys.stdin, "buffer", sys.stdin).read()
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except (AttributeError, OSError):
        raise UsageError("there is no standard input to read; give the text to --prompt") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not UTF-8 text (byte {error.start}); convert it to UTF-8 first"
        ) from None
    return text.replace("\r\n", "\n").removesuffix("\n")


def sample(args, folder: Path) -> None:
    """Print one or more continuations of the prompt, token by token."""
    prompt = prompt_of(args)
    _, tokenizer, model = run.read_run(folder)
    if args.cache and not can_cache(model):
        raise UsageError(
            "--cache needs a model with the parts of the book's, and this run's has others; use "
            "--no-cache"
        )
    if args.cache is None:
        model = with_cache(model)
    elif args.cache:
        model = CachedGPT(model)
    idx = run.prompt_ids(tokenizer, prompt)
    for i in range(args.samples):
        seed = args.seed + i
        if args.samples > 1:
            print(f"--- sample {i + 1} of {args.samples}, seed {seed}")
        print(prompt, end="", flush=True)
        ids = stream(
            model,
            idx,
            args.tokens,
            generator=torch.Generator().manual_seed(seed),
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
        )
        for piece in until(args.stop, decoded(tokenizer, ids)):
            print(piece, end="", flush=True)
        print()


def decoded(tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Decode ids to text piece by piece, up to the end of the document.

    The bytes of an incomplete character are held until the next token completes it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in ids:
        if token == run.end_of_text(tokenizer):
            break
        piece = tokenizer.vocab[token]
        yield decoder.decode(piece) if isinstance(piece, bytes) else piece
    yield decoder.decode(b"", final=True)


def until(stop: str | None, pieces: Iterable[str]) -> Iterator[str]:
    """The text before `stop`; a piece that may be the beginning of `stop` is held back.

    >>> "".join(until("\\n\\n", ["one\\n", "two\\n", "\\nthree"]))
    'one\\ntwo'
    """
    held = ""
    for piece in pieces:
        held += piece
        if stop is None:
            waiting = 0
        elif stop in held:
            yield held.partition(stop)[0]
            return
        else:
            ends = (n for n in range(len(stop) - 1, 0, -1) if held.endswith(stop[:n]))
            waiting = next(ends, 0)
        cut = len(held) - waiting
        yield held[:cut]
        held = held[cut:]
    yield held


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python -m p05_gpt.sample", description="Generate text from a trained GPT."
    )
    add = parser.add_argument
    add("--run", metavar="DIR", help=f"a run's folder; default: the newest {DEFAULT_OUT}*")
    add(
        "--prompt",
        default="",
        metavar="TEXT",
        help="the text to continue; -: standard input, without its final newline; default: the "
        "start of a document, or a newline",
    )
    add("--tokens", type=at_least(1), default=500, metavar="N", help="default: %(default)s")
    add(
        "--temperature",
        type=temperature,
        default=1.0,
        metavar="X",
        help="0: greedy, always the likeliest token; above 1: a flatter distribution; "
        "default: %(default)s",
    )
    add("--top-k", type=at_least(1), metavar="N", help="sample from the N likeliest tokens only")
    add(
        "--top-p",
        type=probability,
        metavar="P",
        help="sample from the smallest set of likeliest tokens with total probability P",
    )
    add("--stop", type=some_text, metavar="TEXT", help="stop before this text")
    add(
        "--samples",
        type=at_least(1),
        default=1,
        metavar="N",
        help="number of texts, each with the next seed; default: %(default)s",
    )
    add(
        "--cache",
        action=argparse.BooleanOptionalAction,
        help="cache keys and values: the same text, faster until it fills the context; default: on "
        "if the model supports it",
    )
    add("--seed", type=at_least(0), default=1337, metavar="N", help="default: %(default)s")
    args = parser.parse_args(argv)

    def command() -> int:
        folder = newest_run(DEFAULT_OUT) if args.run is None else Path(args.run)
        with run.one_thread():
            mine.call_with(mine.files_of_run(folder), sample, args, folder)
        return 0

    try:
        return run_command(parser, command)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
