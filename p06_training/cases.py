"""Evaluate the doctor on short runs with known faults: python -m p06_training.cases

A run's seed determines its text, tokenizer, model, optimizer, learning rate, batch and length. The
thresholds in doctor.py were tuned on seeds below HELD_OUT; the others are held out.
"""

from __future__ import annotations

import csv
import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from tqdm import tqdm

from p01_autograd.lab.cli import (
    Parser,
    UsageError,
    at_least,
    output_folder,
    print_anything,
    quiet_end,
)
from p03_bpe import CharTokenizer, RegexTokenizer
from p03_bpe.corpus import load_corpus

from .build import Trainer
from .doctor import Finding, diagnose
from .logs import read_log
from .train import build_model, build_optimizer

HELD_OUT = 5000  # the first held-out seed


def make(case: str, seed: int) -> list[dict]:
    """Train a run of this case; returns its metrics."""
    draw = random.Random(f"{case} {seed}")
    scenario = draw.choice(CASES[case])
    short = scenario in (memorised, trained_on_both, validated_on_training_text)
    text = load_corpus()[draw.randrange(900_000) :][:100_000] if short else some_text(draw)
    tokenizer = CharTokenizer(text)
    if draw.random() < 0.3:
        tokenizer = RegexTokenizer()
        tokenizer.train(text[:60_000], draw.choice([300, 400, 600, 1000]))
    ids = torch.tensor(tokenizer.encode(text))
    recipe = some_recipe(draw, len(tokenizer.vocab))
    if short:  # a text that can be memorised
        ids = ids[: draw.randrange(1500, 3000)]
        recipe.n_layer, recipe.n_embd, recipe.batch_size, recipe.block_size = 2, 64, 16, 32
        recipe.steps, recipe.eval_every = 500, 20
        recipe.max_lr, recipe.dropout = draw.choice([4e-3, 6e-3]), 0.0
        recipe.min_lr = recipe.max_lr / 10
    cut = int(0.8 * len(ids))
    model = build_model(recipe)
    optimizer = build_optimizer(model, recipe)
    trainer = Trainer(model, optimizer, ids[:cut], ids[cut:][:4000], recipe)
    return list(scenario(trainer, draw))


def some_text(draw) -> str:
    """A stretch of Shakespeare, of Python code, or of random words."""
    size = draw.choice([40_000, 100_000, 400_000])
    kind = draw.choice(["shakespeare", "shakespeare", "python", "words"])
    if kind == "shakespeare":
        text = load_corpus()
    elif kind == "python":
        paths = sorted(Path(random.__file__).parent.glob("[a-z]*.py"))
        text = "".join(path.read_text(encoding="utf-8") for path in draw.sample(paths, 40))
    else:
        letters = "etaoinshrdlucmfw"
        words = ["".join(draw.choices(letters, k=draw.randint(2, 8))) for _ in range(500)]
        text = " ".join(draw.choices(words, [1 / (i + 1) for i in range(500)], k=size // 4))
    start = draw.randrange(max(1, len(text) - size))
    return text[start : start + size]


def some_recipe(draw, vocab: int) -> SimpleNamespace:
    """A random recipe within the range that a reader would choose."""
    steps = draw.choice([120, 160, 200, 250, 350])
    max_lr = draw.choice([1e-3, 2e-3, 4e-3, 8e-3])
    return SimpleNamespace(
        vocab=vocab,
        n_layer=draw.choice([1, 2, 3]),
        n_head=2,
        n_embd=draw.choice([32, 48, 64]),
        block_size=draw.choice([16, 32, 48]),
        batch_size=draw.choice([4, 8, 12, 16]),
        accumulate=1,
        steps=steps,
        optimizer=draw.choice(["adamw", "muon"]),
        max_lr=max_lr,
        min_lr=max_lr / draw.choice([1, 10, 100]),
        warmup_steps=draw.choice([steps // 50, steps // 20, steps // 10]),
        clip=draw.choice([1.0, 1e9]),
        eval_every=draw.choice([10, 20, 25, 60]),
        seed=draw.randrange(10_000),
        weight_decay=0.1,
        dropout=draw.choice([0.0, 0.0, 0.1, 0.2]),
        device="cpu",
    )


# Scenarios: each takes a trainer before its first step and yields a row for every step


def healthy(trainer, draw) -> Iterator[dict]:
    yield from trainer.run()


def healthy_and_long(trainer, draw):
    trainer.recipe.steps, trainer.recipe.eval_every = draw.choice([500, 700]), 50
    yield from trainer.run()


def healthy_on_little_text(trainer, draw):
    trainer.train_ids = trainer.train_ids[: draw.choice([15_000, 25_000])]
    trainer.recipe.dropout = 0.1
    yield from trainer.run()


def healthy_without_warmup(trainer, draw):
    trainer.recipe.warmup_steps, trainer.recipe.min_lr = 0, trainer.recipe.max_lr / 100
    yield from trainer.run()


def gradient_ascent(trainer, draw):
    """Gradient ascent, from the start or from a random step on."""
    if draw.random() < 0.5:
        yield from until(trainer, random_step(trainer, draw))
    for parameter in trainer.model.parameters():
        parameter.register_hook(torch.neg)
    yield from trainer.run()


def growing_rate(trainer, draw):
    recipe, growth = trainer.recipe, draw.choice([500, 1500])
    for step in range(1, recipe.steps + 1):
        recipe.max_lr = recipe.min_lr = 1e-3 * growth ** (step / recipe.steps)
        yield from until(trainer, step)


def poisoned(trainer, draw):
    """One to three batches of random tokens."""
    yield from until(trainer, random_step(trainer, draw))
    kept = trainer.train_ids
    trainer.train_ids = torch.randint(trainer.recipe.vocab, kept.shape)
    yield from until(trainer, trainer.steps_done + draw.choice([1, 2, 3]))
    trainer.train_ids = kept
    yield from trainer.run()


def two_large_steps(trainer, draw):
    """Two steps at a learning rate of 0.2, early enough to recover."""
    recipe = trainer.recipe
    kept = recipe.max_lr, recipe.min_lr
    yield from until(trainer, recipe.steps // 3)
    recipe.max_lr = recipe.min_lr = 0.2
    yield from until(trainer, trainer.steps_done + 2)
    recipe.max_lr, recipe.min_lr = kept
    yield from trainer.run()


def rate_raised(trainer, draw):
    yield from until(trainer, random_step(trainer, draw))
    trainer.recipe.max_lr, trainer.recipe.min_lr = 0.8, 0.4
    yield from trainer.run()


def noise_on_weights(trainer, draw):
    """Noise on the weights, from which the low rate at the end of the schedule cannot recover."""
    yield from until(trainer, random_step(trainer, draw))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 3 * parameter.std(correction=0))
    trainer.recipe.max_lr = trainer.recipe.min_lr = 2e-5
    yield from trainer.run()


def zero_gradients(trainer, draw):
    for parameter in trainer.model.parameters():
        parameter.register_hook(torch.zeros_like)
    yield from trainer.run()


def shuffled_tokens(trainer, draw):
    """Tokens in random order: only their frequencies can be learned."""
    trainer.recipe.steps = max(200, trainer.recipe.steps)
    trainer.train_ids = trainer.train_ids[torch.randperm(len(trainer.train_ids))]
    yield from trainer.run()


def at_learning_rate(*rates, **changes):
    def scenario(trainer, draw):
        rate = draw.choice(rates)
        trainer.recipe.max_lr, trainer.recipe.min_lr = rate, rate / 10
        vars(trainer.recipe).update(changes)
        yield from trainer.run()

    return scenario


def resumed_without_optimizer(trainer, draw):
    """Resumed at a high rate with the weights alone."""
    recipe = trainer.recipe
    recipe.max_lr, recipe.min_lr, recipe.optimizer = draw.choice([0.05, 0.07, 0.1]), 1e-3, "adamw"
    recipe.warmup_steps, recipe.n_layer, recipe.n_embd = recipe.steps // 8, 2, 64
    trainer.model = build_model(recipe)
    trainer.optimizer = build_optimizer(trainer.model, recipe)
    yield from until(trainer, int(recipe.steps * draw.uniform(0.25, 0.4)))
    trainer.optimizer = build_optimizer(trainer.model, recipe)
    yield from trainer.run()


def resumed_with_old_weights(trainer, draw):
    """Resumed with much older weights at the current step."""
    when = random_step(trainer, draw)
    yield from until(trainer, when // 6)
    old = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    yield from until(trainer, when)
    trainer.model.load_state_dict(old)
    trainer.optimizer = build_optimizer(trainer.model, trainer.recipe)
    yield from trainer.run()


def resumed_without_head(trainer, draw):
    """Resumed without the head and the optimizer's state; half the time the schedule restarts."""
    yield from until(trainer, random_step(trainer, draw))
    trainer.model.head.load_state_dict(build_model(trainer.recipe).head.state_dict())
    trainer.optimizer = build_optimizer(trainer.model, trainer.recipe)
    if draw.random() < 0.5:
        yield from trainer.run()
        return
    done = trainer.steps_done
    trainer.recipe.steps, trainer.steps_done = trainer.recipe.steps - done, 0
    for row in trainer.run():
        yield row | {"step": row["step"] + done}


def memorised(trainer, draw):
    yield from trainer.run()


def trained_on_both(trainer, draw):
    trainer.train_ids = torch.cat([trainer.train_ids, trainer.val_ids])
    yield from trainer.run()


def validated_on_training_text(trainer, draw):
    size = len(trainer.train_ids)
    start = draw.randrange(size // 2)
    trainer.val_ids = trainer.train_ids[start : start + size // 4]
    yield from trainer.run()


def gradients_never_zeroed(trainer, draw):
    trainer.optimizer.zero_grad = lambda: None
    yield from trainer.run()


def nan_or_infinite_weights(trainer, draw):
    yield from until(trainer, random_step(trainer, draw))
    with torch.no_grad():
        draw.choice(list(trainer.model.parameters())).mul_(draw.choice([math.nan, math.inf]))
    yield from until(trainer, trainer.steps_done + 20)


def until(trainer: Trainer, step: int) -> Iterator[dict]:
    rows = trainer.run()
    while trainer.steps_done < min(step, trainer.recipe.steps):
        yield next(rows)


def random_step(trainer: Trainer, draw) -> int:
    """A random step between 35 % and 75 % of the run."""
    return int(trainer.recipe.steps * draw.uniform(0.35, 0.75))


CASES = {
    "healthy": [healthy],
    "healthy, long": [healthy_and_long],
    "healthy, little text": [healthy_on_little_text],
    "healthy, no warmup": [healthy_without_warmup],
    "diverging": [gradient_ascent, growing_rate],
    "spike and recovered": [poisoned, poisoned, two_large_steps],
    "spike and lost": [rate_raised, noise_on_weights],
    "plateau from the start": [zero_gradients, shuffled_tokens],
    "learning rate too high": [at_learning_rate(0.3, 0.6, 1.0)],
    "learning rate too low": [at_learning_rate(1e-5, 2e-5, 5e-5)],
    "no warmup": [at_learning_rate(0.15, 0.2, warmup_steps=0)],
    "jump at a restart": [
        resumed_with_old_weights,
        resumed_without_head,
        resumed_without_optimizer,
    ],
    "memorising": [memorised],
    "leak": [trained_on_both, validated_on_training_text],
    "gradients accumulating": [gradients_never_zeroed],
    "NaN": [nan_or_infinite_weights],
}


def named_right(right: set[str], findings: list[Finding]) -> bool:
    """Whether the first finding has one of the right names; a healthy run has only notes."""
    if "healthy" in right:
        return all(finding.note for finding in findings)
    return bool(findings) and findings[0].name in right


def means(rows: list[dict], k: int) -> list[dict]:
    """The run as a log with means over k rows."""
    out = []
    for i in range(0, len(rows) - k + 1, k):
        part, row = rows[i : i + k], {"step": rows[i + k - 1]["step"]}
        for name in ("train_loss", "lr", "grad_norm", "seconds"):
            values = [row[name] for row in part if name in row]
            row |= {name: sum(values) / len(values)} if values else {}
        vals = [row["val_loss"] for row in part if "val_loss" in row]
        out.append(row | ({"val_loss": vals[-1]} if vals else {}))
    return out


ALTERED = {
    "as logged": lambda rows: rows,
    "second half": lambda rows: rows[len(rows) // 2 :],
    "first 5 % cut off": lambda rows: rows[math.ceil(0.05 * len(rows)) :],
    "means of 10": lambda rows: means(rows, 10),
    "means of 50": lambda rows: means(rows, 50),
}


def judge_public(folder: Path, part: slice) -> None:
    """Evaluate the doctor on the logs that labels.csv in `folder` lists, NAME.csv.gz or NAME.*.

    Its columns are name, kind and label. The label `a | b` accepts either, `ambiguous` accepts any
    finding; the kind `excerpt` marks a part of a run.
    """
    counts: dict[tuple, list[int]] = {}
    try:
        with open(folder / "labels.csv", encoding="utf-8") as file:
            labels = list(csv.DictReader(file))[part]
    except OSError as error:
        raise UsageError(f"{folder / 'labels.csv'} cannot be read ({error.strerror})") from None
    for line in labels:
        name, label = line["name"], line["label"]
        path = next(iter(sorted(folder.glob(f"{name}.*"))), folder / name)
        rows = read_log(path).rows
        group = "excerpt" if line["kind"] == "excerpt" and label != "ambiguous" else "ill"
        group = label if label in ("healthy", "ambiguous") else group
        for how, alter in ALTERED.items():
            kept = alter(rows)
            if not kept:
                continue
            findings = diagnose(kept)
            right = {"healthy"} if label == "ambiguous" else set(map(str.strip, label.split("|")))
            good = named_right(right, findings)
            count = counts.setdefault((group, how), [0, 0])
            count[0], count[1] = count[0] + good, count[1] + 1
            if not good:
                said = [f"{f.name}{' (note)' * f.note} at {f.step}: {f.evidence}" for f in findings]
                print(f"{name}, {how}, {len(kept):,} rows, {label}: {'; '.join(said) or 'healthy'}")
    for (group, how), (good, all_of_them) in sorted(counts.items()):
        what = "without an alarm" if group in ("healthy", "ambiguous") else "named right"
        print(f"{group:10}{how:20}{good:4} of {all_of_them} {what}")


def recorded(case: str, seed: int, folder: Path) -> list[dict]:
    """make(case, seed), cached in a file in `folder`."""
    path = folder / f"{case.replace(' ', '_').replace(',', '')}-{seed}.jsonl"
    if not path.exists():
        lines = "".join(json.dumps(row) + "\n" for row in make(case, seed))
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(lines, encoding="utf-8")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m p06_training.cases", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--each", type=at_least(1), default=4, metavar="N", help="runs per case; default: 4")
    add("--first", type=at_least(0), default=HELD_OUT, metavar="SEED", help="default: %(default)s")
    add("--keep", default="runs/p06_cases", metavar="DIR", help="folder for the curves")
    add("--public", metavar="DIR", help="use the logs listed in DIR/labels.csv instead")
    add("--part", choices=["all", "even", "odd"], default="all", help="which lines of labels.csv")
    args = parser.parse_args(argv)
    print_anything()
    try:
        if args.public:
            every = {"all": (0, 1), "even": (0, 2), "odd": (1, 2)}[args.part]
            judge_public(Path(args.public), slice(every[0], None, every[1]))
        else:
            judge_made(args.first, args.each, output_folder(args.keep))
    except UsageError as error:
        parser.error(str(error))
    except BrokenPipeError:  # | head
        quiet_end()
    return 0


def judge_made(first: int, each: int, folder: Path) -> None:
    """Train `each` runs of every case, diagnose them, and print how many were named right."""
    jobs = [(case, first + i) for case in CASES for i in range(each)]
    said: dict[str, list] = {case: [] for case in CASES}
    for case, seed in tqdm(jobs, unit="run", mininterval=0.1 if sys.stderr.isatty() else 10):
        findings = diagnose(recorded(case, seed, folder))
        said[case].append(findings)
    right = {True: 0, False: 0}  # by whether healthy
    for case, lists in said.items():
        right_names = {"healthy"} if case.startswith("healthy") else {case}
        good = [named_right(right_names, findings) for findings in lists]
        wrong = [
            " + ".join(finding.name for finding in findings) or "healthy"
            for ok, findings in zip(good, lists)
            if not ok
        ]
        right[case.startswith("healthy")] += sum(good)
        print(f"{case:24}{sum(good):3} of {len(lists)}   {'; '.join(wrong)}".rstrip())
    healthy = sum(len(lists) for case, lists in said.items() if case.startswith("healthy"))
    print(f"ill: {right[False]} of {len(jobs) - healthy} named right")
    print(f"healthy: {healthy - right[True]} of {healthy} with a false alarm")


if __name__ == "__main__":
    sys.exit(main())
