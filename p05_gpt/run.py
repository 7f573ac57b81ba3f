"""A training run's folder: the corpus and tokenizer it starts from, the files that it writes.

`train` and `sample` share this module, and so does every later training loop.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

from p01_autograd.lab.cli import UsageError
from p03_bpe import CharTokenizer, RegexTokenizer, corpus
from p03_bpe.bigram import bigram_loss  # noqa: F401  (the training commands')

from .build import GPT

RUN_FILES = ("config.json", "metrics.jsonl", "tokenizer.model", "tokenizer.vocab", "tokenizer.json")
RUN_FILES += ("model.pt", "loss.png", "sample.txt")


def read_text(path: str | None) -> str:
    """The text of a UTF-8 file, or Tiny Shakespeare where no path is given."""
    if path is None:
        try:
            return corpus.load_corpus()
        except corpus.DataError as error:
            raise UsageError(str(error)) from error
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}; check --data") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; --data takes one text file") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text (byte {error.start}); convert it to UTF-8 first"
        ) from None
    except OSError as error:
        hint = "is a folder" if Path(path).is_dir() else f"cannot be read ({error.strerror})"
        raise UsageError(f"{path} {hint}; --data takes one text file") from None
    if not text.strip():
        raise UsageError(f"{path} is empty; --data takes a text of a few thousand characters")
    return text


def split_text(text: str) -> tuple[str, str]:
    """The first 90 % of the characters to train on, the rest to validate on."""
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


def train_tokenizer(kind: str, text: str, vocab_size: int) -> RegexTokenizer | CharTokenizer:
    """A tokenizer learned from `text` alone: byte-pair encoding ("bpe") or characters ("char")."""
    if kind == "char":
        return CharTokenizer(text)
    tokenizer = RegexTokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a vocabulary that cannot be filled: said below
        tokenizer.train(text, vocab_size)
    if len(tokenizer.vocab) < vocab_size:
        print(
            f"the text has no more pairs to merge: {len(tokenizer.vocab)} tokens, not {vocab_size}"
        )
    return tokenizer


def encode(tokenizer, text: str) -> torch.Tensor:
    """The ids of a corpus as int64 (N,); text that looks like a special token is plain text."""
    if isinstance(tokenizer, CharTokenizer):
        return torch.tensor(tokenizer.encode(text), dtype=torch.int64)
    return torch.tensor(tokenizer.encode(text, allowed_special="none"), dtype=torch.int64)


def load_data(args) -> tuple[object, torch.Tensor, torch.Tensor, float, str]:
    """Read, split and encode the corpus that `args` ask for.

    Returns the tokenizer, the training and validation ids, the validation part's tokens per
    character, and the corpus's SHA-256.
    """
    text = read_text(args.data)
    train_text, val_text = split_text(text)
    if not val_text:
        raise UsageError(f"{len(text)} characters are too few to hold a tenth back; give more text")
    tokenizer = train_tokenizer(args.tokenizer, train_text, args.vocab_size)
    train_ids = encode(tokenizer, train_text)
    try:
        val_ids = encode(tokenizer, val_text)
    except ValueError as error:
        raise UsageError(
            f"the last tenth of the text has a character that the rest does not ({error}); "
            "use --tokenizer bpe"
        ) from None
    if len(train_ids) <= args.block_size or len(val_ids) < 2:
        raise UsageError(
            f"the text is too short: {len(train_ids)} tokens to train on and {len(val_ids)} to "
            f"validate on, where --block-size {args.block_size} needs {args.block_size + 1} and 2; "
            "give more text or a smaller --block-size"
        )
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return tokenizer, train_ids, val_ids, len(val_ids) / len(val_text), digest


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA when there is one, else the CPU; another name must work on this machine.

    At the default size a GPU of Apple's has to be asked for (mps): nobody has measured it yet.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(f"this machine has no device '{name}'; use --device cpu or auto") from None
    return device


def claim_folder(out: str | None, overwrite: bool, default: str, hint: str) -> Path:
    """Make the folder that a run writes to; one that holds a run is left alone.

    Without `out` the next free name is taken: `default`, `default-2`, ... With `overwrite` the
    earlier run's own files are removed and nothing else.
    """
    if out is None and not overwrite:
        folder, n = Path(default), 1
        while folder.exists():
            n += 1
            folder = Path(f"{default}-{n}")
    else:
        folder = Path(out or default)
    try:
        held = [folder / name for name in RUN_FILES if (folder / name).exists()]
        if held and not overwrite:
            raise UsageError(f"{folder} already holds a run; {hint}")
        folder.mkdir(parents=True, exist_ok=True)
        for path in held:
            path.unlink()
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot write to {folder} ({reason}); choose another --out") from None
    return folder


@contextmanager
def stop_signals():
    """An event that Ctrl-C or a polite kill sets, so that a step is finished before stopping.

    A second signal ends the program at once. Only the main thread can wait for signals; in
    another one the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask_to_stop(number, frame):
        stop.set()
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_atomically(path: Path, write) -> None:
    """Call write(file) in memory, then put the whole at `path` in one step."""
    buffer = io.BytesIO()
    write(buffer)
    corpus.write_atomically(path, buffer.getvalue())


def write_json(path: Path, values: dict) -> None:
    """One flat object, a key a line."""
    text = json.dumps(values, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def config_of(args, tokenizer, device: torch.device, digest: str) -> dict:
    """Everything needed to repeat the run: every flag, the corpus, the software, the machine."""
    flags = {key: value for key, value in vars(args).items() if key not in ("out", "overwrite")}
    return flags | {
        "device": str(device),
        "vocab": len(tokenizer.vocab),
        "corpus_sha256": digest,
        "torch_version": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def read_run(folder: Path) -> tuple[dict, object, GPT]:
    """Load a run's config, tokenizer and model; raises UsageError where they do not fit."""
    if not folder.is_dir():
        raise UsageError(f"there is no run folder {folder}; train first: python -m p05_gpt.train")
    part = "config.json"
    try:
        config = json.loads((folder / part).read_text(encoding="utf-8"))
        sizes = [config[f"n_{name}"] for name in ("embd", "head", "layer")]
        part = "the tokenizer"
        tokenizer = load_tokenizer(folder, config["tokenizer"])
        part = "model.pt"
        weights = torch.load(folder / part, map_location="cpu", weights_only=True)
        part = "model.pt, beside this config and tokenizer,"
        model = GPT(len(tokenizer.vocab), *sizes, config["block_size"])
        model.load_state_dict(weights)
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise UsageError(f"{folder} has no {name}: not a finished run; choose another") from None
    except NotImplementedError:
        raise
    except Exception:  # damaged files raise whatever their parser happens to raise
        raise UsageError(
            f"{part} in {folder} is damaged or of another run; train again or choose another run"
        ) from None
    return config, tokenizer, model


def save_tokenizer(tokenizer, folder: Path) -> None:
    """Write tokenizer.model (byte-pair encoding) or tokenizer.json (characters)."""
    tokenizer.save(str(folder / "tokenizer"))


def load_tokenizer(folder: Path, kind: str):
    """The tokenizer that save_tokenizer wrote."""
    if kind == "char":
        tokenizer, path = CharTokenizer(""), folder / "tokenizer.json"
    else:
        tokenizer, path = RegexTokenizer(), folder / "tokenizer.model"
    tokenizer.load(str(path))
    return tokenizer


def prompt_ids(tokenizer, prompt: str) -> torch.Tensor:
    """The prompt as ids (1, T); an empty one starts from a newline, or from the first token."""
    if not prompt:
        try:
            return encode(tokenizer, "\n")[None]
        except ValueError:  # characters, and none of them a newline
            return torch.zeros(1, 1, dtype=torch.int64)
    try:
        return encode(tokenizer, prompt)[None]
    except ValueError as error:
        raise UsageError(f"the prompt cannot be encoded: {error}") from None


def draw_losses(metrics: list[dict], vocab: int, bigram: float, path: Path) -> None:
    """Both curves over the steps, between the loss of guessing and the loss of counting pairs."""
    from p01_autograd.lab.figures import HEALTHY, REFERENCE, subplots

    fig, ax = subplots()
    steps = [row["step"] for row in metrics]
    ax.plot(
        steps,
        [row["train_loss"] for row in metrics],
        color=HEALTHY,
        alpha=0.3,
        lw=0.8,
        label="training batch",
    )
    evaluated = [row for row in metrics if "val_loss" in row]
    ax.plot(
        [row["step"] for row in evaluated],
        [row["val_loss"] for row in evaluated],
        color=HEALTHY,
        marker=".",
        label="validation",
    )
    for value, name in ((math.log(vocab), f"uniform guess, ln {vocab}"), (bigram, "bigram model")):
        ax.axhline(value, color=REFERENCE, ls="--", lw=1)
        ax.annotate(
            name,
            (1, value),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color=REFERENCE,
            xytext=(-4, 2),
            textcoords="offset points",
        )
    ax.set(xlabel="step", ylabel="loss (nats per token)")
    ax.legend(loc="center right")
    write_atomically(path, lambda file: fig.savefig(file, format="png"))
