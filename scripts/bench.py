"""Benchmarks of every project against libraries from PyPI or PyTorch itself.

    python scripts/bench.py              every row; about four minutes on two cores
    python scripts/bench.py p03 p04      the rows of these projects
    python scripts/bench.py busy         commands beside other programs that keep the cores busy

A row times ours and the other implementation in turn, so that a slow moment affects both. It shows
the median times, the median of the ratios (below 1: ours is faster) and their interquartile range.
Rows whose library is missing are skipped. To have all of them: pip install micrograd tokenizers,
and put a clone of karpathy/minbpe on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import p01_autograd.lab.startup  # noqa: F401  isort: skip
from p01_autograd.lab.cli import Parser, at_least, print_anything

Pairs = Iterator[tuple[float, float]]  # seconds: ours, the other one


def by_turns(ours: Callable, other: Callable, repeats: int, warmup: bool = True) -> Pairs:
    """Time both in turn, alternating which runs first, after one warm-up turn."""
    for turn in range(-1 if warmup else 0, repeats):
        seconds = {}
        for call in (ours, other) if turn % 2 else (other, ours):
            gc.collect()
            start = time.perf_counter()
            call()
            seconds[call] = time.perf_counter() - start
        if turn >= 0:
            yield seconds[ours], seconds[other]


# Rows: each a function of the number of repeats that yields pairs


def scalar_network(repeats: int) -> Pairs:
    """micrograd's layers on our Value and on its own: forward and backward on ten points."""
    from p01_autograd.build import Value
    from p01_autograd.measure import forward, inputs

    theirs = importlib.import_module("micrograd.nn")
    their_value, points, models = theirs.Value, inputs(), []
    try:
        for value in (Value, their_value):
            theirs.Value = value  # micrograd's layers look this name up when they are created
            random.seed(0)
            models.append(theirs.MLP(2, [16, 16, 1]))
    finally:
        theirs.Value = their_value

    def passes(model):  # several, so that collecting micrograd's reference cycles is included
        for _ in range(5):
            forward(model, points).backward()

    ours, other = (functools.partial(passes, model) for model in models)
    return by_turns(ours, other, repeats)


def tensor_step(repeats: int) -> Pairs:
    """A training step of the default GPT on p02_tensors and on PyTorch, with equal weights."""
    from p05_gpt import engine

    args, ids = engine.default_run("--steps", str(repeats + 1))
    steps = engine.losses_of_both(args, ids, args.vocab_size)
    next(steps)  # warm-up
    return ((ours, theirs) for (_, theirs), (_, ours) in steps)


def bpe_training(vocab_size: int, repeats: int) -> Pairs:
    """Train BPE on Tiny Shakespeare, against Hugging Face's tokenizers (Rust)."""
    from p03_bpe import RegexTokenizer
    from p03_bpe.corpus import load_corpus

    hugging = importlib.import_module("tokenizers")
    text = load_corpus()

    def other():
        tokenizer = hugging.Tokenizer(hugging.models.BPE())
        tokenizer.pre_tokenizer = hugging.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = hugging.pre_tokenizers.ByteLevel.alphabet()
        trainer = hugging.trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator([text], trainer)

    return by_turns(lambda: RegexTokenizer().train(text, vocab_size), other, repeats)


def minbpe_training(repeats: int) -> Pairs:
    """Train BPE on the first 100,000 characters, against minbpe, which takes half a minute."""
    from p03_bpe import GPT2_PATTERN, RegexTokenizer
    from p03_bpe.corpus import load_corpus

    theirs, text = importlib.import_module("minbpe").RegexTokenizer, load_corpus()[:100_000]
    ours, other = (kind(GPT2_PATTERN) for kind in (RegexTokenizer, theirs))
    yield from by_turns(
        lambda: ours.train(text, 1024), lambda: other.train(text, 1024), min(repeats, 3), False
    )
    assert list(ours.merges) == list(other.merges)


def minbpe_encoding(repeats: int) -> Pairs:
    """Encode Tiny Shakespeare, against minbpe with the same merges."""
    from p03_bpe import GPT2_PATTERN, RegexTokenizer
    from p03_bpe.corpus import load_corpus

    other = importlib.import_module("minbpe").RegexTokenizer(GPT2_PATTERN)
    ours, text = RegexTokenizer(), load_corpus()
    ours.train(text, 1024)
    other.merges = ours.merges
    return by_turns(lambda: ours.encode(text), lambda: other.encode(text), min(repeats, 3), False)


def bpe_encoding(repeats: int) -> Pairs:
    """Encode Tiny Shakespeare, against tiktoken with the same merges."""
    from p03_bpe import RegexTokenizer
    from p03_bpe.corpus import load_corpus

    text, tokenizer = load_corpus(), RegexTokenizer()
    tokenizer.train(text, 2048)
    theirs = tokenizer.to_tiktoken("bench")
    return by_turns(lambda: tokenizer.encode(text), lambda: theirs.encode(text), repeats)


def attention(B: int, T: int, C: int, n_head: int, repeats: int) -> Pairs:
    """Forward and backward pass of an attention layer, ours and with PyTorch's fused kernel."""
    import torch

    from p04_attention import BlockedSelfAttention
    from p04_attention.measure import FusedAttention

    x, upstream = torch.randn(B, T, C, requires_grad=True), torch.randn(B, T, C)

    def passes(module):
        for _ in range(10):
            module(x).backward(upstream)

    ours, other = BlockedSelfAttention(C, n_head), FusedAttention(C, n_head)
    return by_turns(lambda: passes(ours), lambda: passes(other), repeats)


def time_to_loss(module: str, repeats: int) -> Pairs:
    """A default run's time to the loss of nanoGPT's CPU recipe, against the recipe's; one per seed.

    Both from the start of the process, with imports, corpus and tokenizer.
    """
    for seed in range(1, min(repeats, 3) + 1):
        theirs = seconds_of_the_recipe(seed)
        yield seconds_to_loss(module, seed), theirs


def seconds_of_the_recipe(seed: int) -> float:
    """The recipe's time: everything before its first step, and ten times 200 of its 2,000 steps."""
    code = "from p01_autograd.lab.threads import use_free_cores\n"
    code += "from p05_gpt.measure import recipe_seconds\nuse_free_cores()\n"
    code += f"print(recipe_seconds(200, {seed}))"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    all_steps = float(done.stdout.split()[-1])
    return time.perf_counter() - start - all_steps / 10 + all_steps


def seconds_to_loss(module: str, seed: int) -> float:
    """The time of a training command to the recipe's loss; it is killed when it gets there."""
    from p05_gpt.measure import RECIPE_LOSS

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", module, "--seed", str(seed), "--out", f"{folder}/run"]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                for row in metrics(Path(folder, "run", "metrics.jsonl")):
                    if row.get("val_nats_per_char", RECIPE_LOSS) < RECIPE_LOSS:
                        return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"python -m {module} --seed {seed} did not get below {RECIPE_LOSS}")


def metrics(path: Path) -> list[dict]:
    """The rows of a run that is still writing; [] if it has not started."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


ROWS = {  # what is timed: (project, the other implementation, pairs)
    "MLP 2-16-16-1 forward and backward": ("p01", "micrograd", scalar_network),
    "training step of the default GPT": ("p02", "torch", tensor_step),
    "learn 1,024 tokens from 0.1 MB": ("p03", "minbpe", minbpe_training),
    "encode 1.1 MB with 1,024 tokens": ("p03", "minbpe", minbpe_encoding),
    "learn 1,024 tokens from 1.1 MB": ("p03", "tokenizers", functools.partial(bpe_training, 1024)),
    "learn 8,192 tokens from 1.1 MB": ("p03", "tokenizers", functools.partial(bpe_training, 8192)),
    "encode 1.1 MB with 2,048 tokens": ("p03", "tiktoken", bpe_encoding),
    "attention B 12, T 64, C 128": ("p04", "F.sdpa", functools.partial(attention, 12, 64, 128, 4)),
    "attention B 4, T 256, C 256": ("p04", "F.sdpa", functools.partial(attention, 4, 256, 256, 8)),
    "train to 1.8857 nats/char": (
        "p05",
        "nanoGPT recipe",
        functools.partial(time_to_loss, "p05_gpt.train"),
    ),
    "train to 1.8857 nats/char, Muon": (
        "p06",
        "nanoGPT recipe",
        functools.partial(time_to_loss, "p06_training.train"),
    ),
}


# Beside other programs


@contextmanager
def busy_programs(count: int):
    """Run `count` busy programs inside the block."""
    code = "while True: pass"
    programs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def busy(repeats: int) -> None:
    """Time commands beside busy programs: as they run by themselves, and with numbers of threads.

    GNU's OpenMP runtime spins by default; see p01_autograd/lab/startup.py.
    """
    cores = os.cpu_count() or 1
    spinning = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
    spinning |= {"OPENBLAS_NUM_THREADS": str(cores), "OMP_NUM_THREADS": str(cores)}
    numbers = sorted({1, max(cores // 2, 1), cores - cores // 4, max(cores - 1, 1), cores})
    ways = {"as it is": {}, f"{cores} threads, spinning": spinning}
    ways |= {f"{n} thread{'s' * (n > 1)}": {"OMP_NUM_THREADS": str(n)} for n in numbers}
    ours = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with tempfile.TemporaryDirectory() as folder:
        train = ["p05_gpt.train", "--steps", "60", "--eval-every", "60", "--overwrite"]
        engine = ["--engine", "p02_tensors", "--steps", "10"]
        commands = {
            "python -m p05_gpt.train --steps 60": [*train, "--out", folder],
            "... --engine p02_tensors --steps 10": [*train[:1], *engine],
            "pytest p04_attention/test_build.py": ["pytest", "-q", "p04_attention/test_build.py"],
        }
        for what, arguments in commands.items():
            print(f"\n{what:36} {'quiet':>9} {'one busy':>9} {f'{cores} busy':>9}")
            times = {way: {} for way in ways}
            for _ in range(repeats):
                for count in (0, 1, cores):
                    with busy_programs(count):
                        for way, environment in ways.items():
                            start = time.perf_counter()
                            subprocess.run(
                                [sys.executable, "-m", *arguments],
                                env=ours | environment,
                                stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL,
                                check=True,
                            )
                            seconds = time.perf_counter() - start
                            times[way].setdefault(count, []).append(seconds)
            for way, by_count in times.items():
                cells = "".join(f" {shown(statistics.median(t)):>9}" for t in by_count.values())
                print(f"  {way:34}{cells}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python scripts/bench.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    projects = sorted({project for project, *_ in ROWS.values()})
    parser.add_argument(
        "projects", nargs="*", metavar="PROJECT", help=f"{' '.join(projects)}, or busy"
    )
    parser.add_argument("--repeats", type=at_least(1), default=9, help="turns; default: 9")
    flags = parser.parse_args(argv)
    if flags.projects == ["busy"]:
        busy(min(flags.repeats, 3))
        return 0
    chosen = [name[:3] for name in flags.projects] or projects
    for name in chosen:
        if name not in projects:
            parser.error(f"there is no row of {name}; there are {', '.join(projects)}")
    print(f"{'':40} {'ours':>10} {'other':>10}   {'ratio':>7} {'middle half':>14}")
    for what, (project, other, pairs) in ROWS.items():
        if project not in chosen:
            continue
        label = f"{project} {what}"
        try:
            found = list(pairs(flags.repeats))
        except ModuleNotFoundError as error:
            print(f"{label:40} left out: {error.name} is not installed")
            continue
        except KeyboardInterrupt:
            return 130
        print(f"{label:40} {table_cells(found)}   {other}", flush=True)
    return 0


def table_cells(pairs: list[tuple[float, float]]) -> str:
    ratios = [ours / other for ours, other in pairs]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    ours, other = (shown(statistics.median(times)) for times in zip(*pairs, strict=True))
    spread = f"{low:.3g}-{high:.3g}"
    return f"{ours:>10} {other:>10}   {statistics.median(ratios):7.3g} {spread:>14}"


def shown(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
