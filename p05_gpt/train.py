"""Train the GPT: python -m p05_gpt.train

Reads a text (Tiny Shakespeare by default), trains a tokenizer and the model on its first 90 %, and
validates on the rest. Everything is written to the run's folder (see run.py).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sys
import time
import traceback
from pathlib import Path

import torch
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

from . import mine, run
from .build import GPT, evaluate, get_batch, loss
from .init import init_weights
from .sampling import generate

DEFAULT_OUT = "runs/p05_gpt"
ADAMW = {"betas": (0.85, 0.95), "weight_decay": 0.1}
SAMPLE_TOKENS = 500  # length of the sample at the end of a run
BOOK = 1.546  # nats per character of the default run with the book's own files
USES = {  # the projects that --mine can replace, by engine
    "torch": ("p03_bpe", "p04_attention", "p05_gpt"),
    "p02_tensors": ("p01_autograd", "p02_tensors", "p03_bpe"),
}


def add_flags(parser: Parser, default_out: str) -> None:
    """Add the flags that all training commands of the book share."""
    add = parser.add_argument
    add(
        "--data",
        nargs="+",
        metavar="PATH",
        help="UTF-8 texts: files, and folders with all their files; default: Tiny Shakespeare, "
        "fetched once",
    )
    add("--tokenizer", choices=("bpe", "char"), default="bpe", help="default: %(default)s")
    add(
        "--vocab-size",
        type=at_least(256),
        default=2048,
        metavar="N",
        help="tokens to learn with bpe; default: %(default)s",
    )
    for name, default, what in (
        ("layer", 4, "blocks"),
        ("head", 4, "attention heads a block"),
        ("embd", 128, "channels"),
    ):
        add(
            f"--n-{name}",
            type=at_least(1),
            default=default,
            metavar="N",
            help=f"{what}; default: %(default)s",
        )
    add(
        "--block-size",
        type=at_least(1),
        default=64,
        metavar="N",
        help="context length in tokens; default: %(default)s",
    )
    add(
        "--batch-size",
        type=at_least(1),
        default=12,
        metavar="N",
        help="windows a step; default: %(default)s",
    )
    add("--steps", type=at_least(1), default=2400, metavar="N", help="default: %(default)s")
    add(
        "--eval-every",
        type=at_least(1),
        default=200,
        metavar="N",
        help="steps between validations; default: %(default)s",
    )
    add(
        "--eval-tokens",
        type=at_least(2),
        metavar="N",
        help="tokens of the validation part for a validation during training; the last one reads "
        "all of it; default: an eighth of the tokens trained on in between, at least 4096",
    )
    add("--seed", type=at_least(0), default=1337, metavar="N", help="default: %(default)s")
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16: matrix products by autocast, faster for large models on most GPUs; "
        "default: %(default)s",
    )
    add(
        "--device",
        default="auto",
        help="auto (cuda if there is one, else cpu), cpu, cuda or mps; default: %(default)s",
    )
    add("--out", metavar="DIR", help=f"the run's folder; default: {default_out}")
    add("--overwrite", action="store_true", help="replace the run that --out holds")
    mine.add_flag(parser)


def parse_flags(argv: list[str] | None = None):
    """The parser, which prints errors, and the parsed flags."""
    parser = Parser(prog="python -m p05_gpt.train", description="Train a GPT on a text.")
    add_flags(parser, DEFAULT_OUT)
    parser.add_argument(
        "--lr",
        type=positive,
        default=4e-3,
        help="peak learning rate; default: %(default)s",
    )
    parser.add_argument(
        "--engine",
        choices=("torch", "p02_tensors"),
        default="torch",
        help="p02_tensors: train on project 2 and on torch side by side and compare the losses",
    )
    args = parser.parse_args(argv)
    set_eval_tokens(args, args.batch_size * args.block_size)
    return parser, args


def set_eval_tokens(args, tokens_per_step: int) -> None:
    """Set the default of --eval-tokens, with which validation takes about 5 % of the run's time.

    That is an eighth of the training tokens in between: a token costs three times as much in
    training, with its backward pass, as in validation.
    """
    if args.eval_tokens is None:
        args.eval_tokens = max(4096, args.eval_every * tokens_per_step // 8)


def train(args) -> int:
    """Run the training command; returns the exit status. Raises UsageError for bad flags."""
    device = run.pick_device(args.device)
    if args.n_embd % args.n_head != 0:
        raise UsageError(
            f"--n-embd {args.n_embd} cannot be divided among --n-head {args.n_head} heads; "
            f"use a multiple of {args.n_head}"
        )
    run.check_dtype(args.dtype, device)
    if args.engine == "p02_tensors":
        if args.dtype != "float32":
            raise UsageError("--engine p02_tensors computes in float32; omit --dtype")
        from .engine import train_both  # only here: the reader's project 2 may be unfinished

        return train_both(args)
    data = run.load_data(args)
    vocab = len(data.tokenizer.vocab)
    model = run.autocast(new_model(args, vocab).to(device), args.dtype)
    call_everything(model, args, data.train_ids)
    folder = run.claim_folder(
        args.out, args.overwrite, DEFAULT_OUT, "use --overwrite, or another folder with --out"
    )
    if device.type == "cpu":
        use_free_cores()
    mine.copy_into_run(folder)
    run.save_tokenizer(data.tokenizer, folder)
    run.write_json(folder / "config.json", run.config_of(args, data, device))
    bigram = run.bigram_loss(data.train_ids, data.val_ids, vocab)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    with ignoring_closed_pipe():
        print(
            f"{n_parameters:,} parameters on {device}; {len(data.train_ids):,} tokens to train on, "
            f"{len(data.val_ids):,} to validate on, a vocabulary of {vocab:,}\n"
            f"guessing costs {math.log(vocab):.3f} nats per token, a bigram model {bigram:.3f}; "
            f"writing to {folder}"
        )

    metrics = []
    with open(folder / "metrics.jsonl", "w", encoding="utf-8") as log, run.stop_signals() as stop:
        for row in training_steps(args, model, data):
            metrics.append(row)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if stop.is_set() or not math.isfinite(row["train_loss"]):
                break
    return finish(folder, model, data, metrics, bigram, args)


def new_model(args, vocab: int) -> GPT:
    """The initial model of a run, determined by the flags (sizes and seed)."""
    torch.manual_seed(args.seed)
    model = GPT(vocab, args.n_embd, args.n_head, args.n_layer, args.block_size)
    init_weights(model)
    return model


def call_everything(model: GPT, args, train_ids: torch.Tensor) -> None:
    """Call each function of the listing once, so that a missing one ends the run at its start."""
    device = next(model.parameters()).device
    x, y = get_batch(train_ids, args.block_size, 1, torch.Generator())
    x, y = x.to(device), y.to(device)
    loss(model(x), y)
    evaluate(model, train_ids[:2].to(device), args.block_size)
    generate(model, x, 1)


def training_steps(args, model, data: run.Data):
    """Train step by step; yields each step's row of metrics.jsonl.

    Losses are in nats per token, `seconds` is time since the first step, `grad_norm` the norm of
    all gradients.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, fused=True, **ADAMW)
    generator = torch.Generator().manual_seed(args.seed)  # the batches
    device = next(model.parameters()).device
    some_ids = run.spread_sample(data.val_ids, args.eval_tokens, args.block_size)
    tokens_per_step = args.batch_size * args.block_size
    start = time.perf_counter()
    bar = tqdm(
        range(args.steps),
        unit="step",
        desc="training",
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 10,
    )
    model.train()
    for step in bar:
        lr = learning_rate(step, args.steps, args.lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        x, y = get_batch(data.train_ids, args.block_size, args.batch_size, generator)
        batch_loss = loss(model(x.to(device)), y.to(device))
        optimizer.zero_grad()
        batch_loss.backward()
        grad_norm = torch.nn.utils.get_total_norm(
            [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        )
        optimizer.step()

        row = {
            "step": step + 1,
            "seconds": 0.0,
            "train_loss": batch_loss.item(),
            "lr": lr,
            "grad_norm": grad_norm.item(),
        }
        if (step + 1) % args.eval_every == 0 or step + 1 == args.steps:
            last = step + 1 == args.steps
            val_ids = data.val_ids if last else some_ids
            row["val_loss"] = validation_loss(model, val_ids, args.block_size)
            row["val_nats_per_char"] = row["val_loss"] * data.tokens_per_char
            with ignoring_closed_pipe():
                bar.write(
                    f"step {step + 1}: validation {row['val_loss']:.3f} nats per token, "
                    f"{row['val_nats_per_char']:.3f} per character"
                )
                if math.isfinite(row["val_loss"]):
                    bar.write(f"    {preview(model, data.tokenizer, args.seed)}")
        row["seconds"] = round(time.perf_counter() - start, 4)
        speed = (step + 1) * tokens_per_step / row["seconds"]
        bar.set_postfix_str(f"loss {row['train_loss']:.3f}, {speed:,.0f} tokens/s", refresh=False)
        yield row


def validation_loss(model, ids: torch.Tensor, block_size: int) -> float:
    """`evaluate` with a progress bar: nats per token over ids (N,)."""
    with run.progress_of_calls(model, len(ids), "validating"):
        return evaluate(model, ids.to(next(model.parameters()).device), block_size)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """The learning rate of `step`, from 0: linear warmup over 2 % of the steps, then linear decay.

    >>> [round(learning_rate(step, 100, 1.0), 2) for step in (0, 1, 2, 50, 99)]
    [0.5, 0.99, 0.98, 0.5, 0.01]
    """
    return peak * min((step + 1) / max(1, steps // 50), 1 - step / steps)


def preview(model, tokenizer, seed: int, n_tokens: int = 40) -> str:
    """A short sample from the model on one line, line breaks as slashes."""
    text = sample_text(model, tokenizer, "", n_tokens, seed)
    return " / ".join(text.split("\n")).strip(" /")


def sample_text(model, tokenizer, prompt: str, n_tokens: int, seed: int, **sampling) -> str:
    """The prompt and its continuation by `n_tokens` tokens; `sampling` goes to `generate`."""
    idx = run.prompt_ids(tokenizer, prompt).to(next(model.parameters()).device)
    generator = torch.Generator().manual_seed(seed)
    with run.one_thread():
        new = generate(model, idx, n_tokens, generator=generator, **sampling)[0, idx.shape[1] :]
    return prompt + tokenizer.decode(new.tolist())


def finish(folder: Path, model, data: run.Data, metrics: list[dict], bigram: float, args) -> int:
    """Write weights, figure and sample, and print the result; returns the exit status."""
    save_weights(model, folder)
    run.draw_losses(metrics, len(data.tokenizer.vocab), bigram, folder / "loss.png")
    last = metrics[-1]
    val_loss = last.get("val_loss")
    if last["step"] < args.steps:  # stopped before the validation over the whole part
        val_loss = validation_loss(model, data.val_ids, args.block_size)
    if not math.isfinite(val_loss):
        print(
            f"the loss is NaN or infinite at step {last['step']}; metrics and weights are in "
            f"{folder}. Try a lower --lr",
            file=sys.stderr,
        )
        return 1
    with run.progress_of_calls(model, SAMPLE_TOKENS, "writing a sample", positions=False):
        sample = sample_text(model, data.tokenizer, "", SAMPLE_TOKENS, args.seed)
    run.write_atomically(folder / "sample.txt", lambda file: file.write(sample.encode("utf-8")))
    with ignoring_closed_pipe():
        print(
            f"\n{sample}\n\n"
            f"validation loss after {last['step']} steps and {last['seconds']:.0f} s: "
            f"{val_loss:.4f} nats per token, {val_loss * data.tokens_per_char:.4f} nats per "
            "character\n"
            f"{comparison(args)}"
            f"config, metrics, tokenizer, weights, loss.png and sample.txt are in {folder}\n"
            f"to read more: python -m p05_gpt.sample --run {shlex.quote(str(folder))} --tokens 1000"
        )
    return 0


def save_weights(model, folder: Path) -> None:
    """Write model.pt, or model-rescued.pt if another program has that file locked."""
    for name in ("model.pt", "model-rescued.pt"):
        try:
            run.write_atomically(folder / name, lambda file: torch.save(model.state_dict(), file))
            return
        except PermissionError as error:
            print(f"{folder / name} is {error.strerror}", file=sys.stderr)
    raise UsageError(f"the weights could not be written to {folder}")


def comparison(args) -> str:
    """A line that compares a run on the reader's own files with the book's; "" without --mine."""
    if not mine.in_use:
        return ""
    default = vars(parse_flags([])[1])
    free = ("out", "overwrite", "mine", "seed")
    if all(value == default[name] for name, value in vars(args).items() if name not in free):
        return f"the book's own files reach {BOOK} nats per character with these flags\n"
    return "to see what the book's own files reach with these flags, omit --mine\n"


# Pipes, errors and the exit status


@contextlib.contextmanager
def ignoring_closed_pipe():
    """Ignore a closed pipe (| head) while printing; later output goes nowhere."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # a test's stdout has no descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(parser: Parser, command, *args) -> int:
    """Call command(*args), report expected errors in one line, and return the exit status."""
    try:
        with ignoring_closed_pipe():
            return command(*args)
    except UsageError as error:
        parser.error(str(error))
    except NotImplementedError as error:  # a reader's own build.py, not finished yet
        last = traceback.extract_tb(error.__traceback__)[-1]
        parser.error(f"{last.name} in {last.filename}, line {last.lineno}, is not written yet")
    except OSError as error:
        if error.filename is None:
            raise
        parser.exit(1, f"{parser.prog}: {error.filename}: {error.strerror}\n")
    return 0  # the pipe was closed


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser, args = parse_flags(argv)

    def command() -> int:
        files = mine.passing_files(args.mine, USES[args.engine]) if args.mine else {}
        return mine.call_with(files, train, args)

    try:
        with contextlib.redirect_stderr(UntilUnread(sys.stderr)):
            return run_command(parser, command)
    except KeyboardInterrupt:
        print("stopped before the first step; nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
