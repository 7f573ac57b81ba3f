"""What the training loop costs, and what it achieves: python -m p06_training.measure

Without a name it runs overhead, checkpoint, scaling and plan, in about a minute on an idle machine;
with --all also recipe and finetune, which train for longer:

    overhead    the time that schedule, clipping, logging and warnings add to a bare step
    checkpoint  the share of a run's time that saving takes
    scaling     two processes against one: tokens per second, and whether the losses agree
    plan        a step on 1, 8, 64 and 1,024 workers, extrapolated from this machine
    recipe      the default run's time to the loss of nanoGPT's CPU recipe, and its final loss
    finetune    from Shakespeare to Python's reference, against as many steps from scratch
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace

import torch
from torch import distributed, multiprocessing

from p01_autograd.lab.cli import UsageError, at_least, measure
from p05_gpt import run
from p05_gpt.build import get_batch, loss
from p05_gpt.measure import RECIPE_LOSS, RECIPE_STEPS, recipe_seconds, seconds

from . import train
from .build import clip_grad_norm
from .checkpoints import save_checkpoint
from .doctor import diagnose
from .trainer import Trainer

WORKERS = (1, 8, 64, 1024)
WHOLE = ("--eval-tokens", "1000000")  # every validation reads the whole validation part
FASTER = 100  # speed of the third plan's workers, in cores of this machine
SIZES = (1, 1_000, 30_000, 1_000_000, 3_000_000)  # floats in a measured all-reduce


@functools.cache
def data():
    """The settings of the default run, and its corpus, a run.Data."""
    args = train.parse_flags(["--device", "cpu"])[1]
    return args, run.load_data(args)


def new_run(folder: Path, **changed) -> tuple[Trainer, train.Job]:
    """A Trainer with the default settings, and the Job that train.train_and_log needs."""
    args, corpus = data()
    config = run.config_of(args, corpus, torch.device("cpu")) | changed
    config = SimpleNamespace(**config | {"torch_version": str(torch.__version__)})
    model = train.build_model(config)
    optimizer = train.build_optimizer(model, config)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    settings = vars(config)
    job = train.Job(folder, corpus, config=settings, began_with=settings)
    return Trainer(model, optimizer, corpus.train_ids, corpus.val_ids, config), job


# overhead


def bare_steps(trainer: Trainer, n: int) -> float:
    """Seconds for n bare steps: batch, forward pass, backward pass, update."""
    config, loop = trainer.recipe, trainer.loop
    start = time.perf_counter()
    for _ in range(n):
        x, y = get_batch(loop.train_ids, config.block_size, config.batch_size, loop.generator)
        trainer.optimizer.zero_grad()
        loss(trainer.model(x), y).backward()
        trainer.optimizer.step()
    return time.perf_counter() - start


def looped_steps(trainer: Trainer, job: train.Job, n: int) -> float:
    """Seconds for n steps of the training command, with schedule, clipping, log and warnings."""
    until = trainer.steps_done + n
    stop = SimpleNamespace(is_set=lambda: trainer.steps_done >= until)
    before = trainer.seconds
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        stderr, sys.stderr = sys.stderr, nowhere  # the bar
        try:
            train.train_and_log(trainer, stop, job)
        finally:
            sys.stderr = stderr
    return trainer.seconds - before


def overhead(args):
    """Time bare steps and the loop in turn, with a log as long as at the end of a default run."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, job = new_run(Path(folder), steps=10**6, eval_every=10**6, checkpoint_every=10**6)
        trainer.recipe.warmup_steps = 10**6  # the rate does not matter here
        length = train.parse_flags([])[1].steps
        row = {"step": 0, "seconds": 0.0, "train_loss": 4.0, "lr": 4e-3, "grad_norm": 0.5}
        trainer.metrics = [row | {"step": step} for step in range(1, length + 1)]
        trainer.steps_done = trainer.loop.steps_done = length
        bare_steps(trainer, 5)
        bare, looped = [], []
        for _ in range(args.repeats):
            bare.append(bare_steps(trainer, 20) / 20)
            looped.append(looped_steps(trainer, job, 20) / 20)
        parameters = list(trainer.model.parameters())
        clip = seconds(lambda: clip_grad_norm(parameters, 1.0), 20)
        warn = seconds(lambda: diagnose(trainer.metrics), 3) / 20
        muon = trainer.optimizer.optimizers[1]
        theirs = torch.optim.Muon(muon.param_groups[0]["params"], ns_steps=train.MUON_STEPS)
        one, other = seconds(muon.step, 20), seconds(theirs.step, 20)
    both = [b / a - 1 for a, b in zip(bare, looped, strict=True)]
    print(
        f"bare step      {1e3 * median(bare):7.2f} ms\n"
        f"in the loop    {1e3 * median(looped):7.2f} ms   {median(both):+.1%} "
        f"({min(both):+.1%} to {max(both):+.1%} in {len(both)} rounds of 20 steps)\n"
        f"of which: clipping {1e3 * clip:.2f} ms, warnings {1e3 * warn:.2f} ms a step (the doctor "
        f"reads {len(trainer.metrics):,} rows every 20 steps)\n"
        f"in both: Muon {1e3 * one:.1f} ms, where torch.optim.Muon takes {1e3 * other:.1f} ms"
    )


# checkpoint


def checkpoint(args):
    """Time the regular checkpoint, and the best checkpoint and its weights at a validation."""
    with tempfile.TemporaryDirectory(dir=runs_folder()) as folder:
        trainer, _ = new_run(Path(folder))
        bare_steps(trainer, 3)  # so that the optimizers have their state
        step = median(bare_steps(trainer, 1) for _ in range(20))
        place = Path(folder) / "checkpoints"
        save = seconds(lambda: trainer.save(place), 7)
        best = seconds(lambda: save_checkpoint(place / "best.pt", trainer.state()), 7)
        weights = seconds(lambda: train.save_weights(trainer.model, Path(folder)), 7)
        size = (place / "best.pt").stat().st_size
    every, eval_every = trainer.recipe.checkpoint_every, trainer.recipe.eval_every
    share = (save / every + (best + weights) / eval_every) / step
    print(
        f"{size / 1e6:.1f} MB in {1e3 * save:.0f} ms every {every} steps; the best one and its "
        f"weights in {1e3 * (best + weights):.0f} ms at most every {eval_every}\n"
        f"a step takes {1e3 * step:.1f} ms: {share:.2%} of the run's time"
    )


def runs_folder() -> str:
    """The folder of runs, so that their disk is the one measured."""
    Path("runs").mkdir(exist_ok=True)
    return "runs"


# scaling


def trained(processes: int, threads: int, *flags) -> list[dict]:
    """The metrics of a training command, under torchrun if there is more than one process."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *(torchrun if processes > 1 else [])]
        command += ["-m", "p06_training.train", "--device", "cpu", "--out", f"{folder}/run", *flags]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, encoding="utf-8"
        )
        if done.returncode:
            raise UsageError(f"the run ended with: {done.stderr.strip().splitlines()[-1:]}")
        lines = Path(folder, "run", "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def scaling(args):
    """Train the same batches with one thread, with two threads, and with two processes."""
    n = args.steps
    flags = ["--steps", str(n), "--eval-every", str(10 * n)]
    config = data()[0]
    tokens = config.batch_size * config.block_size
    first = None
    print(f"{'processes':>9} {'threads':>7} {'tokens/s':>9} {'times':>6} {'losses differ by':>17}")
    for processes, threads in ((1, 1), (1, 2), (2, 1)):
        rows = trained(processes, threads, *flags)
        late = [b["seconds"] - a["seconds"] for a, b in pairwise(rows[4:-1])]
        speed, losses = tokens / median(late), [row["train_loss"] for row in rows]
        first = first or (speed, losses)
        apart = max(abs(a - b) for a, b in zip(first[1], losses, strict=True))
        print(f"{processes:9} {threads:7} {speed:9,.0f} {speed / first[0]:6.2f} {apart:17.1e}")
    print(
        f"{config.batch_size} windows of {config.block_size} per step in total; the last column is "
        f"the largest difference of {n} losses from the first line's"
    )


# plan


def exchanges(rank: int, folder: str, sizes: tuple[int, ...], found) -> None:
    """Run in each of two processes: put the median time of an all-reduce per size into `found`."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    for size in sizes:
        numbers = torch.zeros(size)
        taken = seconds(lambda numbers=numbers: distributed.all_reduce(numbers), 15)
        if rank == 0:
            found.put((size, taken))
    distributed.barrier()
    distributed.destroy_process_group()


def measured_exchange() -> list[tuple[int, float]]:
    """Measure all-reduces between two processes of this machine: (floats, seconds) per size."""
    context = multiprocessing.get_context("spawn")
    found = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(exchanges, (folder, SIZES, found), nprocs=2)
    return [found.get() for _ in SIZES]


def exchange_seconds(workers: int, n_bytes: float, latency: float, bandwidth: float) -> float:
    """The time of a ring all-reduce: 2 (n - 1) messages in sequence, each of 1 / n of the bytes.

    Latency in seconds per message, bandwidth in bytes per second.

    >>> [round(exchange_seconds(n, 1e6, 1e-4, 1e9), 6) for n in (1, 2, 4)]
    [0.0, 0.0012, 0.0021]
    """
    return 2 * (workers - 1) * (latency + n_bytes / workers / bandwidth)


def step_times() -> tuple[float, float]:
    """The time of a step on one core: fixed seconds, and seconds per window."""
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for windows in (4, 24):
            with tempfile.TemporaryDirectory() as folder:
                trainer, _ = new_run(Path(folder), batch_size=windows)
                bare_steps(trainer, 2)
                times.append(median(bare_steps(trainer, 1) for _ in range(12)))
    finally:
        torch.set_num_threads(threads)
    per_window = (times[1] - times[0]) / 20
    return max(0.0, times[0] - 4 * per_window), per_window


def plan(args):
    """Extrapolate three ways to use more workers, with the measured all-reduce as the network."""
    fixed, per_window = step_times()
    found = measured_exchange()
    latency, (size, taken) = found[0][1] / 2, found[-1]
    bandwidth = 4 * size / (taken - 2 * latency)
    with tempfile.TemporaryDirectory() as folder:
        model = new_run(Path(folder))[0].model
    n_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    print("an all-reduce between two processes of this machine")
    for size, taken in found:
        print(f"  {4 * size / 1e3:10,.1f} kB {1e3 * taken:8.2f} ms")
    print(
        f"a message costs {1e6 * latency:.0f} us, and {bandwidth / 1e9:.2f} GB/s go through\n"
        f"a step on one core: {1e3 * fixed:.1f} ms and {1e3 * per_window:.2f} ms a window; "
        f"its gradients are {n_bytes / 1e6:.1f} MB\n"
    )
    ways = {  # windows per worker and step, and the worker's speed in cores
        "12 windows each": (lambda n: 12, 1),
        "1,024 windows shared out": (lambda n: 1024 / n, 1),
        f"12 windows each, workers {FASTER} times as fast": (lambda n: 12, FASTER),
    }
    curves = {}
    for name, (windows, faster) in ways.items():
        print(name)
        print(f"{'workers':>9} {'compute':>12} {'exchange':>12} {'share':>6} {'windows/s':>10}")
        curves[name] = []
        for n in (2**i for i in range(11)):
            compute = (fixed + windows(n) * per_window) / faster
            exchange = exchange_seconds(n, n_bytes, latency, bandwidth)
            curves[name].append((n, compute, exchange))
            if n in WORKERS:
                step = compute + exchange
                print(
                    f"{n:9,} {1e3 * compute:9.1f} ms {1e3 * exchange:9.1f} ms "
                    f"{exchange / step:6.0%} {n * windows(n) / step:10,.0f}"
                )
        over = next((n for n, compute, exchange in curves[name] if exchange > compute), None)
        print(
            f"the exchange takes longer than the work from {over:,} workers on\n"
            if over
            else "the work takes longer than the exchange for all of them\n"
        )
    return draw_plan(curves)


def draw_plan(curves: dict):
    from p01_autograd.lab.figures import BROKEN, HEALTHY, subplots

    figure, axes = subplots(1, len(curves), width=11.0)
    for ax, (name, points) in zip(axes, curves.items(), strict=True):
        n, compute, exchange = zip(*points, strict=True)
        ax.plot(n, [1e3 * t for t in compute], color=HEALTHY, label="compute")
        ax.plot(n[1:], [1e3 * t for t in exchange[1:]], color=BROKEN, ls="--", label="exchange")
        ax.set(xscale="log", yscale="log", xlabel="workers")
        ax.set_xticks(WORKERS, [f"{n:,}" for n in WORKERS])
        ax.minorticks_off()
        ax.set_title(name.replace(", ", ",\n"), size=11)
    axes[0].set_ylabel("ms a step")
    axes[0].legend()
    return figure


# recipe


def recipe(args):
    """Compare times to the recipe's loss; ours includes validation, the recipe's does not."""
    runs = []
    print(
        f"seed   recipe to    ours: below {RECIPE_LOSS} at         ratio   ours, best\n"
        f"          {RECIPE_LOSS}    step  nats/char       time   of times   nats/char    all of it"
    )
    for seed in range(args.seed, args.seed + args.seeds):
        theirs = recipe_seconds(200, seed)
        rows = [
            row
            for row in trained(1, torch.get_num_threads(), "--seed", str(seed), *WHOLE)
            if "val_loss" in row
        ]
        at = next(row for row in rows if row["val_nats_per_char"] < RECIPE_LOSS)
        best = min(row["val_nats_per_char"] for row in rows)
        print(
            f"{seed:4} {theirs:9.1f} s {at['step']:6} {at['val_nats_per_char']:10.4f} "
            f"{at['seconds']:8.1f} s {at['seconds'] / theirs:10.3f} {best:11.4f} "
            f"{rows[-1]['seconds']:10.0f} s",
            flush=True,
        )
        runs.append((theirs, rows))
    print(f"the recipe's time: 200 of its steps, for {RECIPE_STEPS:,}")
    return draw_recipe(runs)


def draw_recipe(runs):
    from p01_autograd.lab.figures import HEALTHY, REFERENCE, subplots

    figure, ax = subplots()
    for i, (theirs, rows) in enumerate(runs):
        ax.plot(
            [row["seconds"] for row in rows],
            [row["val_nats_per_char"] for row in rows],
            color=HEALTHY,
            marker=".",
            lw=1.5,
            label="ours" if i == 0 else None,
        )
        ax.plot(
            theirs,
            RECIPE_LOSS,
            "x",
            color=REFERENCE,
            label="where the recipe ends" if i == 0 else None,
        )
    ax.axhline(RECIPE_LOSS, color=REFERENCE, ls="--", lw=1)
    ax.set(xlabel="seconds of training", ylabel="validation loss (nats per character)")
    ax.legend()
    return figure


# finetune

BASE: tuple[str, ...] = ()  # additional flags of the first run


def python_reference(n: int = 100_000) -> str:
    """The first n characters of the language reference that Python ships for help()."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))[:n]


def last_loss(out: Path, *flags: str) -> float:
    """Train a run; returns its final validation loss in nats per character."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        if train.main(["--out", str(out), "--device", "cpu", *flags]):
            raise UsageError(f"the run ended with: {said.getvalue().strip().splitlines()[-1:]}")
    rows = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(rows[-1])["val_nats_per_char"]


def finetune(args):
    """Train on a second text for the same number of steps: fine-tuned, and from scratch."""
    base_steps, steps = str(args.base_steps), str(args.tune_steps)
    found = []
    print(f"{'seed':>4} {'first text':>10} {'from it':>8} {'from scratch':>12}")
    for seed in range(args.seed, args.seed + args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            base, text = Path(folder, "base"), Path(folder, "reference.txt")
            text.write_text(python_reference(), encoding="utf-8")
            same = ["--seed", str(seed), "--eval-every", "100000"]
            other = [*same, "--data", str(text), "--steps", steps]
            tuned = ["--init-from", str(base)]
            sizes = [flag for flag in BASE if not flag.startswith("--data")]
            found.append(
                (
                    last_loss(base, *same, "--steps", base_steps, *BASE),
                    last_loss(Path(folder, "tuned"), *other, *tuned),
                    last_loss(Path(folder, "scratch"), *other, *sizes),
                )
            )
            tokenizers = [run.read_run(Path(folder, name))[1] for name in ("tuned", "scratch")]
        tokens = [len(run.encode(tokenizer, python_reference())) for tokenizer in tokenizers]
        print("{:4} {:10.4f} {:8.4f} {:12.4f}".format(seed, *found[-1]), flush=True)
    print("mean {:10.4f} {:8.4f} {:12.4f}".format(*map(mean, zip(*found, strict=True))))
    print(
        f"nats per character after {base_steps} steps on the first text and {steps} on 100 kB of "
        "Python's reference, on the tenth held back\n"
        f"the reference is {tokens[0]:,} tokens of the first text's and {tokens[1]:,} of its own"
    )


PARTS = {part.__name__: part for part in (overhead, checkpoint, scaling, plan, recipe, finetune)}
QUICK = ("overhead", "checkpoint", "scaling", "plan")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = (
        ("--repeats", at_least(1), 9, "overhead: rounds"),
        ("--steps", at_least(1), 40, "scaling: steps of a run"),
        ("--seeds", at_least(1), 3, "recipe, finetune: runs"),
        ("--seed", at_least(0), 1, "recipe, finetune: the first seed"),
        ("--base-steps", at_least(1), 300, "finetune: steps on the first text"),
        ("--tune-steps", at_least(1), 100, "finetune: steps on the second"),
    )
    return measure("p06_training", __doc__, PARTS, QUICK, options=options, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
