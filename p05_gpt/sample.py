"""Let a trained GPT write: python -m p05_gpt.sample --prompt "ROMEO:" --tokens 200"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from p01_autograd.lab.cli import Parser, UsageError, at_least, print_anything

from . import mine, run
from .kv_cache import CachedGPT, can_cache
from .train import DEFAULT_OUT, run_command, sample_text


def temperature(text: str) -> float:
    """An argparse type: finite numbers from 0 on."""
    number = number_in(text)
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"{text} will not do; use 0 (the likeliest) or above")
    return number


def probability(text: str) -> float:
    """An argparse type: numbers above 0 and at most 1."""
    number = number_in(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} will not do; use a number above 0, at most 1")
    return number


def number_in(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def newest_run(default: str) -> Path:
    """The latest finished run among `default`, `default-2`, ...: the one to sample from."""
    parent, name = Path(default).parent, Path(default).name
    finished = [path.parent for path in parent.glob(f"{name}*/model.pt")]
    if not finished:
        raise UsageError(f"there is no run in {parent}; train first: python -m p05_gpt.train")
    return max(finished, key=lambda folder: (folder / "model.pt").stat().st_mtime)


def sample(args, folder: Path) -> str:
    """The prompt and what the run's model makes of it."""
    _, tokenizer, model = run.read_run(folder)
    if args.cache and not can_cache(model):
        raise UsageError("--cache reads the parts of the book's model, and this run has others")
    return sample_text(
        CachedGPT(model) if args.cache else model,
        tokenizer,
        args.prompt,
        args.tokens,
        args.seed,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
    )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(prog="python -m p05_gpt.sample", description="Let a trained GPT write.")
    add = parser.add_argument
    add("--run", metavar="DIR", help=f"a run's folder; default: the newest {DEFAULT_OUT}*")
    add("--prompt", default="", metavar="TEXT", help="what it continues; default: a newline")
    add("--tokens", type=at_least(1), default=500, metavar="N", help="default: %(default)s")
    add(
        "--temperature",
        type=temperature,
        default=1.0,
        metavar="X",
        help="0: always the likeliest token; above 1: bolder; default: %(default)s",
    )
    add("--top-k", type=at_least(1), metavar="N", help="draw among the N likeliest tokens only")
    add(
        "--top-p",
        type=probability,
        metavar="P",
        help="draw among the fewest tokens that together reach probability P",
    )
    add(
        "--cache",
        action="store_true",
        help="keep keys and values: the same text, sooner, until it fills the context; from there "
        "on every token costs a whole window again, as without",
    )
    add("--seed", type=at_least(0), default=1337, metavar="N", help="default: %(default)s")
    args = parser.parse_args(argv)

    def command() -> int:
        folder = newest_run(DEFAULT_OUT) if args.run is None else Path(args.run)
        print(mine.on(mine.kept(folder), sample, args, folder))
        return 0

    try:
        return run_command(parser, command)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
