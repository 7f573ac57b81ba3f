"""What every training run shares: corpus, tokenizer, device, and the files in the run's folder.

Used by this project's `train` and `sample` and by project 6's `train`.
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
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from p01_autograd.lab.cli import UsageError
from p03_bpe import CharTokenizer, RegexTokenizer, corpus
from p03_bpe.bigram import bigram_loss  # noqa: F401  (the training commands')

from .build import GPT

RUN_FILES = ("config.json", "metrics.jsonl", "tokenizer.model", "tokenizer.vocab", "tokenizer.json")
RUN_FILES += ("model.pt", "loss.png", "sample.txt")


END = "<|endoftext|>"  # the special token between two documents
PIECE = 1 << 18  # characters that a tokenizer reads at once


def read_documents(data: str | list[str] | None) -> list[str]:
    """The texts of UTF-8 files and folders, or Tiny Shakespeare for None.

    Raises UsageError for a path that cannot be read.
    """
    try:
        if data is None:
            return [corpus.load_corpus()]
        documents, notes = corpus.read_documents([data] if isinstance(data, str) else data)
    except corpus.DataError as error:
        raise UsageError(str(error)) from error
    for note in notes:
        print(note)
    return documents


def read_text(data: str | list[str] | None) -> str:
    """The documents of `read_documents`, concatenated."""
    return "".join(read_documents(data))


def split_text(text: str) -> tuple[str, str]:
    """Split at 90 % of the characters: the training part, the validation part."""
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


def split_documents(documents: list[str]) -> tuple[list[str], list[str]]:
    """Split several documents at 90 % of all characters; the document at the cut is divided."""
    first, second, left = [], [], int(0.9 * sum(map(len, documents)))
    for text in documents:
        cut = min(max(left, 0), len(text))
        left -= len(text)
        first += [text[:cut]] if cut else []
        second += [text[cut:]] if cut < len(text) else []
    return first, second


def progress(total: int, what: str, unit: str = "B") -> tqdm:
    """A progress bar that appears after two seconds; `unit` "B" counts characters."""
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=True,
        delay=2,
        leave=False,
        dynamic_ncols=True,
    )


def pieces(text: str, bar: tqdm) -> Iterator[str]:
    """The text in pieces of PIECE characters; advances the bar."""
    for start in range(0, len(text), PIECE):
        piece = text[start : start + PIECE]
        yield piece
        bar.update(len(piece))


def train_tokenizer(
    kind: str, text: str | list[str], vocab_size: int
) -> RegexTokenizer | CharTokenizer:
    """Train a tokenizer on a text or on documents; `kind` is "bpe" or "char".

    `vocab_size` is ignored for "char". If the text has too few pairs to reach it, training stops
    early and a line says so.
    """
    documents = [text] if isinstance(text, str) else text
    if kind == "char":
        tokenizer = CharTokenizer("".join(set().union(*documents)))
    else:
        tokenizer = RegexTokenizer()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a vocabulary that stays smaller is reported below
            train_bpe(tokenizer, documents, vocab_size)
        if (found := len(tokenizer.vocab)) < vocab_size:
            print(f"the text has no more pairs to merge: {found} tokens, not {vocab_size}")
    return tokenizer


def train_bpe(tokenizer: RegexTokenizer, documents: list[str], vocab_size: int) -> None:
    """Learn the merges, piece by piece if the tokenizer supports it."""
    if not hasattr(tokenizer, "encode_iterable"):  # a reader's own
        tokenizer.train("".join(documents), vocab_size)
        return
    with progress(sum(map(len, documents)), "learning the tokenizer") as bar:
        tokenizer.train((piece for text in documents for piece in pieces(text, bar)), vocab_size)


def end_of_text(tokenizer) -> int | None:
    """The id of the special token END; None if the tokenizer lacks it."""
    return getattr(tokenizer, "special_tokens", {}).get(END)


def add_end_of_text(tokenizer) -> None:
    """Register END as the tokenizer's last token, unless it has it already."""
    if end_of_text(tokenizer) is None:
        specials = getattr(tokenizer, "special_tokens", {})
        tokenizer.register_special_tokens({**specials, END: len(tokenizer.vocab)})


def encode(tokenizer, text: str) -> torch.Tensor:
    """Encode a text to ids (N,) int64; special tokens in the text are treated as plain text."""
    return encode_documents(tokenizer, [text])


def encode_documents(tokenizer, documents: list[str]) -> torch.Tensor:
    """Encode documents to ids (N,) int64 with END between them, in 8 bytes of memory per token."""
    ids = array("q")
    with progress(sum(map(len, documents)), "encoding the text") as bar:
        for i, text in enumerate(documents):
            if i > 0:
                ids.append(end_of_text(tokenizer))
            for part in encoded_parts(tokenizer, text, bar):
                ids.extend(part)
    return torch.frombuffer(ids, dtype=torch.int64) if ids else torch.empty(0, dtype=torch.int64)


def encoded_parts(tokenizer, text: str, bar: tqdm) -> Iterator[Iterable[int]]:
    """The ids of a text, in parts that follow each other."""
    if isinstance(tokenizer, CharTokenizer):
        yield from map(tokenizer.encode, pieces(text, bar))
    elif hasattr(tokenizer, "encode_iterable"):
        yield tokenizer.encode_iterable(pieces(text, bar), allowed_special="none")
    else:  # a reader's own
        yield tokenizer.encode(text, allowed_special="none")


@dataclass(frozen=True)
class Data:
    """A corpus, split and encoded."""

    tokenizer: object
    train_ids: torch.Tensor  # int64 (N,)
    val_ids: torch.Tensor  # int64 (N,)
    tokens_per_char: float  # of the validation part: from nats per token to nats per character
    sha256: str  # of the whole corpus


def load_data(args, tokenizer=None) -> Data:
    """Read, split and encode the corpus named by `args`; without a tokenizer one is trained.

    `args` has the flags data and block_size, and tokenizer and vocab_size if one is to be trained.
    Raises UsageError for a text that cannot be read or encoded, or is too short for block_size.
    """
    documents = read_documents(args.data)
    digest, n_characters = digest_of(documents), sum(map(len, documents))
    train_texts, val_texts = split_documents(documents)
    several = len(documents) > 1
    del documents
    if not val_texts or not train_texts:
        raise UsageError(
            f"{n_characters} characters are too few to hold out a tenth for validation; "
            "use a longer text"
        )
    given = tokenizer is not None
    if not given:
        tokenizer = train_tokenizer(args.tokenizer, train_texts, args.vocab_size)
    if several:
        add_end_of_text(tokenizer)
    try:
        train_ids = encode_documents(tokenizer, train_texts)
    except ValueError as error:
        raise UsageError(f"the run's tokenizer cannot encode this text: {error}") from None
    try:
        val_ids = encode_documents(tokenizer, val_texts)
    except ValueError as error:
        raise UsageError(
            f"the last tenth of the text has a character that "
            f"{'the tokenizer' if given else 'the rest'} does not ({error}); use --tokenizer bpe"
        ) from None
    if len(train_ids) <= args.block_size or len(val_ids) < 2:
        raise UsageError(
            f"the text is too short: {len(train_ids)} tokens to train on and {len(val_ids)} to "
            f"validate on, where --block-size {args.block_size} needs {args.block_size + 1} and 2; "
            "give more text or a smaller --block-size"
        )
    return Data(tokenizer, train_ids, val_ids, len(val_ids) / sum(map(len, val_texts)), digest)


def digest_of(documents: list[str]) -> str:
    """The SHA-256, in hexadecimal, of the documents with END between them."""
    digest = hashlib.sha256()
    for i, text in enumerate(documents):
        digest.update(END.encode() if i > 0 else b"")
        for start in range(0, len(text), PIECE):
            digest.update(text[start : start + PIECE].encode("utf-8"))
    return digest.hexdigest()


def spread_sample(ids: torch.Tensor, n: int, block_size: int, stretches: int = 8) -> torch.Tensor:
    """A sample of about n ids, in evenly spaced stretches of whole windows: (N,) -> (about n,).

    At the seams between stretches one prediction each, seven in all, crosses from one to the next.
    """
    length = max(n // stretches // block_size, 1) * block_size
    count = max(n // length, 1)
    if n >= len(ids) or count * length >= len(ids):
        return ids
    starts = [round(i * (len(ids) - length) / max(count - 1, 1)) for i in range(count)]
    return torch.cat([ids[start : start + length] for start in starts])


@contextmanager
def progress_of_calls(model: torch.nn.Module, total: int, what: str, positions: bool = True):
    """Show a progress bar that advances with every call of the model.

    By the number of positions that the call reads, or by one if `positions` is false.
    """
    with progress(total, what, "token") as bar:

        def count(module, given, out) -> None:
            bar.update(given[0].numel() if positions else 1)

        hook = model.register_forward_hook(count)
        try:
            yield
        finally:
            hook.remove()


@contextmanager
def one_thread():
    """Compute on one thread: sampling's operations are too small to be worth sharing.

    Threads that wait for each other at every one of them are slow beside another program.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def pick_device(name: str) -> torch.device:
    """The device of --device; "auto" is CUDA if available, else the CPU, never mps.

    Raises UsageError if this machine cannot use it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(f"this machine has no device '{name}'; use --device cpu or auto") from None
    return device


def check_dtype(dtype: str, device: torch.device) -> None:
    """Raise UsageError if the device cannot compute in this dtype."""
    try:
        with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            (torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)).sum().item()
    except (RuntimeError, NotImplementedError, TypeError):
        raise UsageError(f"{device} cannot compute in {dtype}; omit --dtype") from None


def autocast(model: torch.nn.Module, dtype: str) -> torch.nn.Module:
    """Make the model compute its matrix products in `dtype`; returns the same model.

    The weights stay float32. The logits are converted back to float32, so that losses and samples
    are not affected by rounding.
    """
    if dtype != "float32":
        forward, device = model.forward, next(model.parameters()).device.type

        def in_low_precision(idx: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device, getattr(torch, dtype)):
                return forward(idx).float()

        model.forward = in_low_precision
    return model


def claim_folder(out: str | None, overwrite: bool, default: str, hint: str) -> Path:
    """Create the folder that a run writes to.

    Without `out` it is the next free name: `default`, `default-2`, ... With `overwrite` the files
    of an earlier run are removed, and nothing else. Raises UsageError, ending with `hint`, for a
    folder that holds a run, and for one that cannot be written to.
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
    """A threading.Event that SIGINT (Ctrl-C) or SIGTERM sets, so that the current step completes.

    A second signal ends the program at once, even if the signal was ignored before, as a shell
    does for background jobs. Only the main thread receives signals; in another one the event is
    never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    ends = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in ends}

    def ask_to_stop(number, frame):
        stop.set()
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)
        signal.signal(number, before[number] if callable(before[number]) else ends[number])

    for number in before:
        signal.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def write_atomically(path: Path, write) -> None:
    """Call write(file) on a buffer in memory, then move its content to `path` in one step."""
    buffer = io.BytesIO()
    write(buffer)
    corpus.write_atomically(path, buffer.getvalue())


def write_json(path: Path, values: dict) -> None:
    """Write a flat JSON object, one key per line."""
    text = json.dumps(values, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def config_of(args, data: Data, device: torch.device) -> dict:
    """The content of config.json: every flag, the corpus, the software, the machine."""
    flags = {key: value for key, value in vars(args).items() if key not in ("out", "overwrite")}
    return flags | {
        "device": str(device),
        "vocab": len(data.tokenizer.vocab),
        "corpus_sha256": data.sha256,
        "torch_version": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def read_run(folder: Path) -> tuple[dict, object, GPT]:
    """Load a run's config, tokenizer and model, on the CPU.

    Raises UsageError for a missing or damaged file and for files that do not belong together.
    """
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
    except Exception:  # a damaged file can make its parser raise anything
        raise UsageError(
            f"{part} in {folder} is damaged or of another run; train again or choose another run"
        ) from None
    return config, tokenizer, model


def save_tokenizer(tokenizer, folder: Path) -> None:
    """Write tokenizer.model (byte-pair encoding) or tokenizer.json (characters)."""
    tokenizer.save(str(folder / "tokenizer"))


def load_tokenizer(folder: Path, kind: str):
    """Load the tokenizer that save_tokenizer wrote; `kind` is "bpe" or "char"."""
    if kind == "char":
        tokenizer, path = CharTokenizer(""), folder / "tokenizer.json"
    else:
        tokenizer, path = RegexTokenizer(), folder / "tokenizer.model"
    tokenizer.load(str(path))
    return tokenizer


def prompt_ids(tokenizer, prompt: str) -> torch.Tensor:
    """The prompt as ids (1, T).

    An empty prompt becomes END if the tokenizer has it, else a newline, else token 0. Raises
    UsageError for a prompt that the tokenizer cannot encode.
    """
    if not prompt and (end := end_of_text(tokenizer)) is not None:
        return torch.tensor([[end]])
    if not prompt:
        try:
            return encode(tokenizer, "\n")[None]
        except ValueError:  # a character tokenizer without a newline
            return torch.zeros(1, 1, dtype=torch.int64)
    try:
        return encode(tokenizer, prompt)[None]
    except ValueError as error:
        raise UsageError(f"the prompt cannot be encoded: {error}") from None


def draw_losses(metrics: list[dict], vocab: int, bigram: float, path: Path) -> None:
    """Plot training and validation loss by step, with the losses of a uniform guess and bigrams."""
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
