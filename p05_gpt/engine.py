"""The GPT on your own tensors: projects 4 and 5 unchanged, with project 2 in place of PyTorch.

    python -m p05_gpt.train --engine p02_tensors --steps 50

trains the same GPT on PyTorch and on `p02_tensors`, from the same weights and on the same batches,
and prints both losses side by side.

    python -m p05_gpt.engine

measures the time and memory of a training step on each, and profiles ours.
"""

from __future__ import annotations

import cProfile
import functools
import pstats
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from types import ModuleType

import torch
from tqdm import tqdm

import p02_tensors
from p01_autograd.lab.cli import Parser, UsageError, at_least, print_anything
from p01_autograd.lab.sabotage import Sabotage, sabotaged
from p01_autograd.lab.threads import use_free_cores

from . import build, run
from .train import ADAMW, learning_rate, new_model, parse_flags, run_command


@functools.cache
def on_our_tensors() -> ModuleType:
    """Copies of p05_gpt.build and p04_attention.build whose `torch` is p02_tensors; the former.

    Only import lines are replaced. Raises UsageError if a file does not have these lines.
    """
    torch_lines = "import torch\nfrom torch import nn\n"
    our_lines = "import p02_tensors as torch\nfrom p02_tensors import nn\n"
    attention_line = "\nfrom p04_attention.build import CausalSelfAttention\n"
    attention = swapped("p04_attention", torch_lines, our_lines)
    our_attention_line = attention_line.replace("p04_attention.build", attention.__name__)
    return swapped("p05_gpt", torch_lines + attention_line, our_lines + our_attention_line)


def swapped(package: str, old: str, new: str) -> ModuleType:
    """A copy of the package's build.py with other import lines, as a module."""
    edit = Sabotage(
        name="on_our_tensors",
        old=old,
        new=new,
        predict="Nothing changes but the time a step takes.",
        symptom=lambda torch_run, our_run: torch_run.loss == our_run.loss,
        caught_by="",
    )
    try:
        return sabotaged(package, edit)
    except ValueError:
        lines = "; ".join(line for line in old.splitlines() if line)
        raise UsageError(f"{package}/build.py needs these import lines: {lines}") from None


def copy_weights(ours, model: torch.nn.Module) -> None:
    """Load the weights of a PyTorch model into one on p02_tensors."""
    state = model.state_dict()
    ours.load_state_dict({name: p02_tensors.tensor(p.numpy()) for name, p in state.items()})


def both_models(args, vocab: int) -> list:
    """The GPT on PyTorch and on p02_tensors with the same weights, from the seed in `args`."""
    sizes = (vocab, args.n_embd, args.n_head, args.n_layer, args.block_size)
    models = [new_model(args, vocab), on_our_tensors().GPT(*sizes)]
    copy_weights(models[1], models[0])
    return models


def losses_of_both(args, train_ids: torch.Tensor, vocab: int):
    """Train both models; yields two pairs (loss, seconds) for each step: torch's and ours.

    Losses are in nats per token. Weights, batches, optimizer and learning rates are those of
    `python -m p05_gpt.train`.
    """
    models = both_models(args, vocab)
    theirs = torch.optim.AdamW(models[0].parameters(), fused=True, **ADAMW)
    ours = p02_tensors.optim.AdamW(models[1].parameters(), **ADAMW)
    generator = torch.Generator().manual_seed(args.seed)
    for step in range(args.steps):
        theirs.param_groups[0]["lr"] = ours.lr = learning_rate(step, args.steps, args.lr)
        x, y = build.get_batch(train_ids, args.block_size, args.batch_size, generator)
        our_x, our_y = p02_tensors.tensor(x.numpy()), p02_tensors.tensor(y.numpy())
        yield (
            one_step(models[0], theirs, build.loss, x, y),
            one_step(models[1], ours, on_our_tensors().loss, our_x, our_y),
        )


def one_step(model, optimizer, loss, x, y) -> tuple[float, float]:
    """One training step on either engine: (loss in nats per token, seconds)."""
    start = time.perf_counter()
    batch_loss = loss(model(x), y)
    optimizer.zero_grad()
    batch_loss.backward()
    optimizer.step()
    return batch_loss.item(), time.perf_counter() - start


def train_both(args) -> int:
    """Run --engine p02_tensors: print both losses, write no files; returns the exit status."""
    if args.out is not None or args.overwrite:
        raise UsageError("--engine p02_tensors writes no run; omit --out and --overwrite")
    if args.device not in ("auto", "cpu"):
        raise UsageError("--engine p02_tensors runs on the CPU; use --device cpu")
    data = run.load_data(args)
    use_free_cores()
    shown = range(0, args.steps, max(args.steps // 10, 1))
    print(f"{'step':>6}  {'torch':>9}  {'p02_tensors':>11}  {'difference':>10}")
    rows = []
    steps = losses_of_both(args, data.train_ids, len(data.tokenizer.vocab))
    for step, row in enumerate(tqdm(steps, total=args.steps, unit="step", leave=False)):
        rows.append(row)
        if step in shown or step + 1 == args.steps:
            (a, _), (b, _) = row
            tqdm.write(f"{step + 1:6}  {a:9.5f}  {b:11.5f}  {b - a:10.1e}")
    worst = max(abs(a - b) for (a, _), (b, _) in rows)
    print(f"largest difference over {args.steps} steps: {worst:.1e} nats\n{times(rows)}")
    return 0


# Time and memory of a step


def times(rows) -> str:
    """The median step time of both engines and their ratio, in one line."""
    theirs, ours = (median(row[i][1] for row in rows) for i in (0, 1))
    return (
        f"a step: {1000 * theirs:.0f} ms on torch, {1000 * ours:.0f} ms on p02_tensors "
        f"({ours / theirs:.1f} times as long), {torch.get_num_threads()} threads"
    )


def our_steps(args, ids: torch.Tensor, steps: int) -> None:
    """Training steps on p02_tensors alone, all on one batch."""
    gpt, model = on_our_tensors(), both_models(args, args.vocab_size)[1]
    optimizer = p02_tensors.optim.AdamW(model.parameters(), **ADAMW)
    x, y = (p02_tensors.tensor(part.numpy()) for part in one_batch(args, ids))
    for _ in range(steps):
        one_step(model, optimizer, gpt.loss, x, y)


def torch_steps(args, ids: torch.Tensor, steps: int) -> None:
    """The same steps on PyTorch alone."""
    model = both_models(args, args.vocab_size)[0]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **ADAMW)
    x, y = one_batch(args, ids)
    for _ in range(steps):
        one_step(model, optimizer, build.loss, x, y)


def one_batch(args, ids: torch.Tensor):
    generator = torch.Generator().manual_seed(args.seed)
    return build.get_batch(ids, args.block_size, args.batch_size, generator)


def default_run(*flags: str):
    """The flags of the default training run, and random tokens (20,000,) in place of a text."""
    _, args = parse_flags([*flags])
    generator = torch.Generator().manual_seed(args.seed)
    return args, torch.randint(args.vocab_size, (20_000,), generator=generator)


def peak() -> int:
    """The peak resident memory of this process, in bytes; raises ImportError on Windows."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage includes the parent's peak
        (line,) = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        return 1024 * int(line)
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_growth(steps) -> int:
    """Bytes by which three training steps raise the peak memory.

    A tiny model is trained first, so that one-time allocations of the libraries do not count.
    """
    steps(*default_run("--n-embd", "8", "--block-size", "4", "--batch-size", "1"), 1)
    before = peak()
    steps(*default_run(), 3)
    return peak() - before


def fresh(call: str) -> str:
    """The result of a call of this module in a new process, as text."""
    code = f"from p05_gpt import engine; print(engine.{call})"
    return subprocess.check_output([sys.executable, "-c", code], text=True, encoding="utf-8")


def memory() -> str:
    """The peak memory that training adds on both engines, and its ratio, in one line."""
    calls = ("peak_growth(engine.torch_steps)", "peak_growth(engine.our_steps)")
    theirs, ours = (int(fresh(call)) for call in calls)
    return (
        f"memory at its peak: {theirs / 1e6:.0f} MB on torch, {ours / 1e6:.0f} MB on p02_tensors "
        f"({ours / theirs:.1f} times as much)"
    )


def profile(steps: int, *flags: str, rows: int = 12) -> str:
    """A profile of our steps by function's own time: calls, milliseconds and share of a step.

    NumPy's elementwise loops count as `elementwise`, its matrix products as `matmul`.
    """
    args, ids = default_run(*flags)
    our_steps(args, ids, 1)  # warm-up
    with cProfile.Profile() as profiler:
        our_steps(args, ids, steps)
    found = [
        (own, calls / steps, function, Path(file).name)
        for (file, _, function), (_, calls, own, *_) in pstats.Stats(profiler).stats.items()
    ]
    total = sum(own for own, *_ in found)
    lines = [f"{'function':44} {'calls':>6} {'ms':>6} {'share':>6}"]
    for own, calls, function, file in sorted(found, reverse=True)[:rows]:
        name = function.strip("<>") if file == "~" else f"{function} ({file})"
        lines.append(f"{name[:44]:44} {calls:6.0f} {1000 * own / steps:6.1f} {own / total:6.1%}")
    rest = sum(own for own, *_ in sorted(found, reverse=True)[rows:])
    lines.append(f"{'all others':44} {'':6} {1000 * rest / steps:6.1f} {rest / total:6.1%}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python -m p05_gpt.engine",
        description="What a training step of the default GPT costs on p02_tensors and on torch.",
    )
    parser.add_argument(
        "--steps",
        type=at_least(1),
        default=20,
        metavar="N",
        help="timed steps, torch and p02_tensors in turn; default: %(default)s",
    )
    steps = parser.parse_args(argv).steps

    def command() -> int:
        args, ids = default_run("--steps", str(steps + 2))
        rows = list(losses_of_both(args, ids, args.vocab_size))[2:]  # the first two warm up
        print(times(rows), flush=True)
        try:
            peak()
            print(memory(), flush=True)
        except ImportError:
            print("memory at its peak: not available on this system")
        print(f"\n{fresh(f'profile({min(steps, 10)})')}", end="")
        return 0

    try:
        return run_command(parser, command)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
