"""Train the GPT in a loop that can run unattended: python -m p06_training.train

As p05_gpt.train, with the same files, plus a warmup and cosine schedule, gradient clipping, Muon or
AdamW, crash-safe checkpoints and an exact --resume. Under torchrun training is data-parallel:

    torchrun --standalone --nproc-per-node 2 -m p06_training.train
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import errno
import io
import json
import math
import os
import shlex
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import distributed, nn
from tqdm import tqdm

from p01_autograd.lab.cli import (
    Parser,
    UntilUnread,
    UsageError,
    at_least,
    positive,
    print_anything,
)
from p01_autograd.lab.threads import use_free_cores
from p05_gpt import mine, run
from p05_gpt.build import GPT
from p05_gpt.init import init_weights
from p05_gpt.train import (
    add_flags,
    call_everything,
    ignoring_closed_pipe,
    new_model,
    preview,
    sample_text,
    set_eval_tokens,
    validation_loss,
)

from .checkpoints import CheckpointError, load_checkpoint, remove_unfinished, save_checkpoint
from .distributed import in_many_processes
from .muon import Combined, Muon
from .trainer import MAY_DIFFER, Trainer

DEFAULT_OUT = "runs/p06_training"
USES = ("p03_bpe", "p04_attention", "p05_gpt", "p06_training")  # what --mine can replace
MUON_FACTOR = 3.0  # Muon's learning rate over AdamW's
MUON_STEPS = 3  # Newton-Schulz iterations; the default of five costs more, with equal losses here
MAX_CONSECUTIVE_SKIPS = 20  # skipped steps in a row that end the run
PRESETS = {
    "default": {"batch_size": 16, "steps": 2000, "eval_every": 100},
    "long": {
        "vocab_size": 1024,
        "n_layer": 6,
        "n_head": 6,
        "n_embd": 192,
        "block_size": 96,
        "batch_size": 20,
        "steps": 6000,
        "max_lr": 6e-3,
        "dropout": 0.4,
        "eval_every": 300,
    },
}


def parse_flags(argv: list[str] | None) -> tuple[Parser, argparse.Namespace, dict]:
    """The parser, all flags, and those given on the command line."""
    parser = Parser(
        prog="python -m p06_training.train",
        description="Train a GPT on a text; --resume continues a run that was stopped or killed.",
    )
    add_flags(parser, DEFAULT_OUT)
    add = parser.add_argument
    add(
        "--preset",
        choices=PRESETS,
        default="default",
        help="long: a larger model with dropout, half an hour; default: %(default)s",
    )
    add(
        "--optimizer",
        choices=("adamw", "muon"),
        default="muon",
        help="muon: for the matrices in the blocks, AdamW for the rest; default: %(default)s",
    )
    add(
        "--max-lr",
        type=positive,
        default=8e-3,
        metavar="RATE",
        help=f"AdamW's learning rate after the warmup; Muon's is {MUON_FACTOR:g} times that; "
        "default: %(default)s",
    )
    add(
        "--min-lr",
        type=positive,
        metavar="RATE",
        help="learning rate at the end of the cosine; default: a hundredth of --max-lr",
    )
    add(
        "--warmup-steps",
        type=at_least(0),
        metavar="N",
        help="default: a two-hundredth of --steps",
    )
    add(
        "--clip",
        type=positive,
        default=1.0,
        metavar="NORM",
        help="maximum gradient norm; default: %(default)s",
    )
    add(
        "--accumulate",
        type=at_least(1),
        default=1,
        metavar="N",
        help="batches per step, whose gradients are averaged; default: %(default)s",
    )
    add("--weight-decay", type=fraction, default=0.1, metavar="X", help="default: %(default)s")
    add(
        "--dropout",
        type=fraction,
        default=0.0,
        metavar="P",
        help="dropout probability on token embeddings and on the outputs of attention and MLP; "
        "default: %(default)s",
    )
    add(
        "--checkpoint-every",
        type=at_least(1),
        default=250,
        metavar="N",
        help="steps between checkpoints; default: %(default)s",
    )
    add(
        "--init-from",
        metavar="RUN",
        help="start from the weights, sizes and tokenizer of another run of p05 or p06",
    )
    add(
        "--resume",
        action="store_true",
        help="continue the run in --out from its newest good checkpoint",
    )
    parser.set_defaults(**PRESETS["default"])
    preset = parser.parse_args(argv).preset
    parser.set_defaults(**PRESETS[preset])
    args = parser.parse_args(argv)
    set_eval_tokens(args, args.batch_size * args.block_size * args.accumulate)
    if args.min_lr is None:
        args.min_lr = args.max_lr / 100
    if args.warmup_steps is None:
        args.warmup_steps = math.ceil(args.steps / 200)
    not_given = object()
    parser.set_defaults(**dict.fromkeys(vars(args), not_given))
    given = vars(parser.parse_args(argv)).items()
    return parser, args, {key: value for key, value in given if value is not not_given}


def fraction(text: str) -> float:
    """An argparse type: a number of at least 0 and below 1."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; use a number from 0 to below 1")
    return number


# From flags to a Job. Only rank 0 reads and writes files.


@dataclass
class Job:
    """A run that is ready to start or to resume; rank 0 broadcasts it to all processes."""

    folder: Path
    data: run.Data
    config: dict  # the settings of this part of the run
    began_with: dict  # config.json, the settings of its first part
    weights: dict | None = None  # of the run in --init-from
    whole: torch.Tensor | None = None  # val_ids, if earlier validations read only a part of them


def open_run(args, given: dict, processes: int) -> Job:
    """The run that the flags specify; raises UsageError before anything is written."""
    folder = Path(args.out or DEFAULT_OUT)
    config = tokenizer = weights = None
    if args.resume:
        args, config = settings_of(folder, given)
        if args.init_from is not None:
            tokenizer = tokenizer_of(folder, args.tokenizer)
    elif args.init_from is not None:
        args, tokenizer, weights = read_source(args, given)
    check(args, processes)
    device = run.pick_device(args.device)
    run.check_dtype(args.dtype, device)
    data = run.load_data(args, tokenizer)
    if config is not None and data.sha256 != config["corpus_sha256"]:
        raise UsageError(
            f"the text is not the one that the run in {folder} started with; give that with --data"
        )
    if config is None:
        model = run.autocast(new_model(args, len(data.tokenizer.vocab)).to(device), args.dtype)
        call_everything(model, args, data.train_ids)  # what cannot run ends here, without a folder
        claim_folder(folder, args.overwrite)
    if device.type == "cpu":
        use_free_cores(config["threads"] if config else None)
    fresh = run.config_of(args, data, device)
    del fresh["resume"]
    fresh["torch_version"] = str(torch.__version__)  # a plain string, as a checkpoint holds it
    if config is None:
        mine.copy_into_run(folder)
        run.save_tokenizer(data.tokenizer, folder)
        run.write_json(folder / "config.json", fresh)
    return Job(folder, data, config=fresh, began_with=config or fresh, weights=weights)


NOT_SETTINGS = {"out", "overwrite", "resume"}  # flags that are not in config.json
SIZES = ("n_layer", "n_head", "n_embd", "block_size", "tokenizer", "vocab_size")


def read_source(args, given: dict) -> tuple[argparse.Namespace, object, dict]:
    """The flags with the sizes of the run in --init-from, its tokenizer and its weights."""
    source = Path(args.init_from)
    if source.resolve() == Path(args.out or DEFAULT_OUT).resolve():
        raise UsageError("--init-from and --out are the same folder; choose another --out")
    config, tokenizer, model = run.read_run(source)
    wanted = {key: value for key, value in PRESETS[args.preset].items() if "preset" in given}
    wanted |= given
    other = [
        f"--{key.replace('_', '-')} {wanted[key]} (it has {config[key]})"
        for key in SIZES
        if key in wanted and key in config and wanted[key] != config[key]
    ]
    if other:
        raise UsageError(
            f"the run in {source} has another size or tokenizer: {', '.join(other)}; omit these "
            "flags to use its own"
        )
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise UsageError(f"the weights in {source} are NaN or infinite; choose another run")
    sizes = {key: config[key] for key in SIZES if key in config}
    args = argparse.Namespace(**vars(args) | sizes)
    if "eval_tokens" not in given:
        args.eval_tokens = None
        set_eval_tokens(args, args.batch_size * args.block_size * args.accumulate)
    return args, tokenizer, model.state_dict()


def tokenizer_of(folder: Path, kind: str):
    """The tokenizer of the run in `folder`; raises UsageError."""
    try:
        return run.load_tokenizer(folder, kind)
    except (OSError, ValueError) as error:
        raise UsageError(f"the tokenizer in {folder} cannot be read ({error})") from None


def with_end_of_text(weights: dict, expected: dict) -> dict:
    """Extend the weights to the shapes of `expected`, by a row for the token END.

    That row is the mean of the others. It is needed if the weights come from a run on one document
    and this run has several.
    """
    weights = dict(weights)
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            weights[name] = torch.cat([tensor, tensor.mean(0, keepdim=True)])
    return weights


def check(args, processes: int) -> None:
    """Raise UsageError for flags that exclude each other."""
    if args.n_embd % args.n_head != 0:
        raise UsageError(
            f"--n-embd {args.n_embd} cannot be divided among --n-head {args.n_head} heads; "
            f"use a multiple of {args.n_head}"
        )
    if args.min_lr > args.max_lr:
        raise UsageError(f"--min-lr {args.min_lr:g} is above --max-lr {args.max_lr:g}; lower it")
    if args.warmup_steps > args.steps:
        raise UsageError(
            f"--warmup-steps {args.warmup_steps} is more than --steps {args.steps}; "
            "the learning rate would never reach --max-lr"
        )
    if processes > args.batch_size * args.accumulate:
        raise UsageError(
            f"{processes} processes cannot share {args.batch_size * args.accumulate} windows per "
            "step; use fewer processes or a larger --batch-size"
        )


def claim_folder(folder: Path, overwrite: bool) -> None:
    """Create the folder of a new run; an earlier run's files are removed only with `overwrite`."""
    hint = "use --resume to continue it, --overwrite, or another folder with --out"
    saved = folder / "checkpoints"
    try:
        held = [*saved.glob("*.pt"), *saved.glob(".*.partial")]
        if held and not overwrite:
            raise UsageError(f"{saved} already holds checkpoints; {hint}")
        run.claim_folder(str(folder), overwrite, DEFAULT_OUT, hint)
        for path in held:
            path.unlink()
        saved.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot write to {folder} ({reason}); choose another --out") from None


def settings_of(folder: Path, given: dict) -> tuple[argparse.Namespace, dict]:
    """The flags of the run in `folder`, and its config.

    Raises UsageError if the flags given now disagree with them, except for those in MAY_DIFFER.
    """
    if given.get("overwrite"):
        raise UsageError("--resume and --overwrite exclude each other; omit one")
    try:
        config = json.loads((folder / "config.json").read_bytes().decode("utf-8"))
        flags = {key: config[key] for key in vars(parse_flags([])[1]) if key not in NOT_SETTINGS}
        for key in ("corpus_sha256", "threads", "torch_version"):
            config[key]
        check_settings(flags)
    except FileNotFoundError:
        raise UsageError(f"there is no run in {folder} to resume; omit --resume") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UsageError(
            f"{folder / 'config.json'} is damaged or from another program ({reason}); "
            "start again with another --out"
        ) from None
    other = {
        key: value
        for key, value in given.items()
        if key not in NOT_SETTINGS | MAY_DIFFER and value != config[key]
    }
    if other:
        named = ", ".join(
            f"--{key.replace('_', '-')} {value} (it has {config[key]})"
            for key, value in other.items()
        )
        why = "; the cosine ends at the last step, so --steps affects every learning rate so far"
        why = why if "steps" in other else ""
        raise UsageError(
            f"the run in {folder} has other settings: {named}{why}. Omit these flags to continue "
            "it, or start a new run with another --out"
        )
    flags |= {key: value for key, value in given.items() if key in MAY_DIFFER}
    return argparse.Namespace(**flags, out=str(folder), overwrite=False, resume=True), config


def check_settings(settings: dict) -> None:
    """Raise ValueError for a value in config.json that the command line would reject."""
    argv = []
    for key, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            argv += [f"--{key.replace('_', '-')}", *map(str, values)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            taken = vars(parse_flags(argv)[1])
    except SystemExit:
        raise ValueError(said.getvalue().strip().split(": ", 1)[-1]) from None
    for key, value in settings.items():
        if taken[key] != value:
            raise ValueError(f"{key} is {value!r}")


def build_model(config: SimpleNamespace) -> GPT:
    """The initialised GPT of a config, with dropout, on its device."""
    torch.manual_seed(config.seed)
    model = GPT(config.vocab, config.n_embd, config.n_head, config.n_layer, config.block_size)
    if config.preset != "long":  # PyTorch's own weights start slower and end better
        init_weights(model)
    if config.dropout:
        parts = [part for block in model.blocks for part in (block.attn, block.mlp)]
        for part in (model.tok_emb, *parts):
            part.register_forward_hook(
                lambda part, _, out: nn.functional.dropout(out, config.dropout, part.training)
            )
    return model.to(config.device)


def build_optimizer(model: GPT, config) -> torch.optim.Optimizer | Combined:
    """AdamW, or Muon for the matrices in the blocks and AdamW for the rest.

    Weight decay applies to matrices only.
    """
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    if config.optimizer == "adamw":
        matrices = []
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.max_lr, betas=(0.9, 0.95), fused=True)
    if not matrices:
        return adamw
    muon = Muon(
        [{"params": matrices, "lr_factor": MUON_FACTOR}],
        lr=config.max_lr,
        weight_decay=config.weight_decay,
        momentum=0.9,
        ns_steps=MUON_STEPS,
    )
    return Combined(adamw, muon)


# Processes


def join_processes(device: str) -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) without torchrun.

    Raises UsageError if the processes are to compute on more GPUs than this machine has.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    on_gpus = torch.cuda.is_available() and device in ("auto", "cuda")
    if on_gpus:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
        if here > (gpus := torch.cuda.device_count()):
            raise UsageError(
                f"{here} processes need a GPU each, and this machine has {gpus}; "
                f"use --nproc-per-node {gpus}, or --device cpu"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(
        "nccl" if on_gpus else "gloo", timeout=datetime.timedelta(minutes=10)
    )
    return distributed.get_rank(), distributed.get_world_size()


def from_rank_0(make, rank: int, processes: int):
    """Call make() in rank 0 and broadcast its result; a UsageError is raised in all ranks."""
    box = [None]
    if rank == 0:
        try:
            box = [make()]
        except UsageError as error:
            box = [error]
    if processes > 1:
        distributed.broadcast_object_list(box)
    if isinstance(box[0], UsageError):
        raise box[0]
    return box[0]


# The run


def train(args, given: dict, rank: int, processes: int) -> int:
    """Start or resume a run; returns the exit status."""
    job = from_rank_0(lambda: open_run(args, given, processes), rank, processes)
    folder, config = job.folder, SimpleNamespace(**job.config)
    train_ids, val_ids = (ids.to(config.device) for ids in (job.data.train_ids, job.data.val_ids))
    model = build_model(config)
    if job.weights is not None:
        model.load_state_dict(with_end_of_text(job.weights, model.state_dict()))
    run.autocast(model, config.dtype)
    some_ids = run.spread_sample(val_ids, config.eval_tokens, config.block_size)
    torch.manual_seed(config.seed + rank)  # each process has its own dropout
    trainer = Trainer(model, build_optimizer(model, config), train_ids, some_ids, config)
    job.whole = None if some_ids is val_ids else val_ids
    if args.resume:
        note, state = from_rank_0(lambda: resume_run(trainer, job), rank, processes)
        if rank > 0:
            trainer.load_state(state)
    elif rank == 0:
        trainer.save(folder / "checkpoints")  # so that --resume always finds one
    if rank > 0:
        with run.stop_signals() as stop:
            for _ in trainer.run(stop_condition(stop, trainer)):
                pass
        return 0
    vocab, n_parameters = config.vocab, sum(p.numel() for p in model.parameters())
    bigram = run.bigram_loss(job.data.train_ids, job.data.val_ids, vocab)
    say(
        f"{n_parameters:,} parameters on {config.device}"
        + (f" in {processes} processes" if processes > 1 else "")
        + f"; {len(train_ids):,} tokens to train on, "
        f"{len(val_ids):,} to validate on, a vocabulary of {vocab:,}\n"
        f"guessing costs {math.log(vocab):.3f} nats per token, a bigram model {bigram:.3f}; "
        + (f"the weights are those of {config.init_from}; " if job.weights else "")
        + (note if args.resume else f"writing to {folder}")
    )
    with run.stop_signals() as stop:
        train_and_log(trainer, stop, job)
    return finish(trainer, job, bigram)


def resume_run(trainer: Trainer, job: Job) -> tuple[str, dict]:
    """Load the newest good checkpoint and truncate metrics.jsonl to its step.

    Returns a line to print and the state. Raises UsageError if no checkpoint is good.
    """
    folder = job.folder
    try:
        path, complaints = trainer.resume(folder / "checkpoints")
    except CheckpointError as error:
        raise UsageError(
            f"no good checkpoint to resume from: {error}; start again with --overwrite or another "
            "--out"
        ) from None
    for complaint in complaints:
        print(f"warning: not used: {complaint}; resuming from {path.name}", file=sys.stderr)
    for key in ("device", "threads", "torch_version"):
        before, now = job.began_with[key], job.config[key]
        if before != now:
            print(
                f"warning: {key} was {before} and is now {now}: the last digits will differ",
                file=sys.stderr,
            )
    trainer.metrics = read_metrics(folder / "metrics.jsonl", trainer.steps_done)
    if len(trainer.metrics) < trainer.steps_done:
        print(
            f"warning: metrics.jsonl has {len(trainer.metrics)} of the first "
            f"{trainer.steps_done} steps; continuing without the others",
            file=sys.stderr,
        )
    trainer.warnings()  # printed before the run was stopped
    lines = "".join(json.dumps(row) + "\n" for row in trainer.metrics)
    try:
        remove_unfinished(folder / "checkpoints")
        run.write_atomically(folder / "metrics.jsonl", lambda file: file.write(lines.encode()))
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror})") from None
    return f"resuming {folder} after step {trainer.steps_done}", trainer.state()


def read_metrics(path: Path, steps_done: int) -> list[dict]:
    """The rows of the first `steps_done` steps, one per step; damaged lines are skipped."""
    rows = {}
    try:
        lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            row = json.loads(line)
            if 1 <= row["step"] <= steps_done:
                rows[row["step"]] = row
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was killed while writing it
    return [rows[step] for step in sorted(rows)]


def stop_condition(stop, trainer: Trainer):
    """A function that returns whether to stop before the last step."""
    return lambda: stop.is_set() or trainer.consecutive_skips >= MAX_CONSECUTIVE_SKIPS


def train_and_log(trainer: Trainer, stop, job: Job) -> None:
    """Train to the last step or until stopped; write metrics and checkpoints, print progress."""
    config, checkpoints = trainer.recipe, job.folder / "checkpoints"
    tokens_per_step = config.batch_size * config.accumulate * config.block_size
    bar = tqdm(
        initial=trainer.steps_done,
        total=config.steps,
        unit="step",
        desc="training",
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 10,
    )
    with bar, open(job.folder / "metrics.jsonl", "a", encoding="utf-8", newline="\n") as log:
        for row in trainer.run(stop_condition(stop, trainer)):
            if better := row.get("val_loss", math.inf) < trainer.best_loss:
                trainer.best_loss = row["val_loss"]
            if job.whole is not None and trainer.steps_done == config.steps:
                better = last_validation(row, trainer, job, better)
            if "val_loss" in row:
                row["val_nats_per_char"] = row["val_loss"] * job.data.tokens_per_char
                report_validation(row, trainer, bar, job)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if better:
                save_checkpoint(checkpoints / "best.pt", trainer.state())
                save_weights(trainer.model, job.folder)
            if trainer.steps_done % config.checkpoint_every == 0:
                os.fsync(log.fileno())  # so that no checkpoint is ahead of the metrics
                trainer.save(checkpoints)
            if trainer.steps_done % 20 == 0 or "val_loss" in row or trainer.consecutive_skips == 1:
                for finding in trainer.warnings():
                    bar.write(
                        f"warning: {finding.name} since step {finding.step}: {finding.evidence}; "
                        f"{finding.advice}",
                        file=sys.stderr,
                    )
            speed = trainer.steps_done * tokens_per_step / row["seconds"]
            bar.set_postfix_str(
                f"loss {row['train_loss']:.3f}, {speed:,.0f} tokens/s", refresh=False
            )
            bar.update()
        os.fsync(log.fileno())
        trainer.save(checkpoints)


def last_validation(row: dict, trainer: Trainer, job: Job, better: bool) -> bool:
    """Set val_loss to that of the whole validation part; returns whether it is the best.

    The weights that were best on a part of it are evaluated on all of it for comparison.
    """
    model, whole, block_size = trainer.model, job.whole, trainer.recipe.block_size
    row["val_loss"] = validation_loss(model, whole, block_size)
    if better or not math.isfinite(trainer.best_loss):
        return better
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_best(model, job.folder, trainer.recipe.device)
    best_loss = validation_loss(model, whole, block_size)
    model.load_state_dict(last)
    return row["val_loss"] < best_loss


def load_best(model: GPT, folder: Path, device: str) -> None:
    """Load model.pt into the model; raises UsageError if it is missing or damaged."""
    try:
        model.load_state_dict(
            torch.load(folder / "model.pt", map_location=device, weights_only=True)
        )
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        raise UsageError(
            f"{folder / 'model.pt'}, the best weights so far, is {reason}; train again with "
            "another --out"
        ) from None


def report_validation(row: dict, trainer: Trainer, bar, job: Job) -> None:
    """Print the validation loss and a short sample."""
    with ignoring_closed_pipe():
        bar.write(
            f"step {row['step']}: validation {row['val_loss']:.3f} nats per token, "
            f"{row['val_nats_per_char']:.3f} per character"
        )
        if math.isfinite(row["val_loss"]):
            bar.write(f"    {preview(trainer.model, job.data.tokenizer, trainer.recipe.seed)}")


def say(text: str) -> None:
    """Print; a closed pipe (| head) does not stop the run."""
    with ignoring_closed_pipe():
        print(text)


def save_weights(model: GPT, folder: Path) -> None:
    run.write_atomically(folder / "model.pt", lambda file: torch.save(model.state_dict(), file))


def finish(trainer: Trainer, job: Job, bigram: float) -> int:
    """Write the figure and a sample of the best weights, print the result; returns the status."""
    folder, config, tokenizer = job.folder, trainer.recipe, job.data.tokenizer
    again = f"python -m p06_training.train --resume --out {shlex.quote(str(folder))}"
    if trainer.metrics:
        run.draw_losses(trainer.metrics, config.vocab, bigram, folder / "loss.png")
    if trainer.consecutive_skips >= MAX_CONSECUTIVE_SKIPS:
        print(
            f"ended at step {trainer.steps_done}: the gradient norm has been NaN or infinite for "
            f"{trainer.consecutive_skips} steps. Metrics and checkpoints are in {folder}. Try a "
            "lower --max-lr",
            file=sys.stderr,
        )
        return 1
    if trainer.steps_done < config.steps:
        say(f"stopped after step {trainer.steps_done} of {config.steps}; to resume: {again}")
        return 0
    if not math.isfinite(trainer.best_loss):
        print(
            f"the loss is NaN or infinite; metrics and checkpoints are in {folder}. "
            "Try a lower --max-lr",
            file=sys.stderr,
        )
        return 1
    best = min((row for row in trainer.metrics if "val_loss" in row), key=lambda r: r["val_loss"])
    last = trainer.metrics[-1]
    load_best(trainer.model, folder, config.device)
    if job.whole is not None:
        loss = validation_loss(trainer.model, job.whole, config.block_size)
        best = {"step": load_checkpoint(folder / "checkpoints" / "best.pt")["steps_done"]}
        best |= {"val_loss": loss, "val_nats_per_char": loss * job.data.tokens_per_char}
    with run.progress_of_calls(trainer.model, 500, "writing a sample", positions=False):
        sample = sample_text(trainer.model, tokenizer, "", 500, config.seed)
    run.write_atomically(folder / "sample.txt", lambda file: file.write(sample.encode("utf-8")))
    there = shlex.quote(str(folder))
    say(
        f"\n{sample}\n\n"
        f"after {last['step']} steps and {last['seconds']:.0f} s the best validation loss was "
        f"{best['val_loss']:.4f} nats per token, {best['val_nats_per_char']:.4f} per character, "
        f"at step {best['step']}\n"
        + (
            f"{trainer.skipped} steps with a NaN or infinite gradient norm were skipped\n"
            if trainer.skipped
            else ""
        )
        + f"config, metrics, tokenizer, checkpoints, the best weights, loss.png and sample.txt "
        f"are in {folder}\nto read more: python -m p05_gpt.sample --run {there} --tokens 1000\n"
        f"to check the curve: python -m p06_training.doctor {there}"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    with contextlib.redirect_stderr(UntilUnread(sys.stderr)):
        return command(argv)


def command(argv: list[str] | None) -> int:
    """Run the command and report expected errors in one line; returns the exit status."""
    if int(os.environ.get("RANK", 0)) > 0:
        sys.stdout = io.StringIO()  # only rank 0 prints
    parser, args, given = parse_flags(argv)
    again = f"python -m p06_training.train --resume --out {shlex.quote(args.out or DEFAULT_OUT)}"
    try:
        rank, processes = join_processes(args.device)
    except UsageError as error:  # in every process, since they have not met
        parser.error(str(error))
    try:
        if args.resume:
            files = mine.files_of_run(args.out or DEFAULT_OUT)
        elif args.mine or args.init_from is None:
            files = mine.passing_files(args.mine, USES) if args.mine else {}
        else:
            files = mine.files_of_run(Path(args.init_from))
        status = mine.call_with(files, train, args, given, rank, processes)
    except UsageError as error:
        if rank > 0:
            return 2
        parser.error(str(error))
    except KeyboardInterrupt:
        print(f"stopped at once; to resume from the last checkpoint: {again}", file=sys.stderr)
        return 130
    except NotImplementedError as error:  # a reader's own build.py, not finished yet
        last = traceback.extract_tb(error.__traceback__)[-1]
        parser.error(f"{last.name} in {last.filename}, line {last.lineno}, is not written yet")
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        print(
            f"cannot write {error.filename or 'the files of the run'} ({error.strerror}); the last "
            f"good checkpoint is kept. {'Make room' if full else 'Fix that'}, then: {again}",
            file=sys.stderr,
        )
        return 1
    except RuntimeError as error:
        if processes == 1:
            raise
        reason = str(error).strip().split("\n")[0][:150]
        print(
            f"process {rank}: another process is gone ({reason}); to resume: torchrun ... -m "
            "p06_training.train --resume",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # a regular exit would wait for it
    if in_many_processes():
        distributed.destroy_process_group()
    return status


if __name__ == "__main__":
    sys.exit(main())
