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
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
PIECE = 1 << 18  # characters that are read by a tokenizer at once


def read_documents(data: str | list[str] | None) -> list[str]:
    """The texts of UTF-8 files and folders, or Tiny Shakespeare where none is given."""
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
    """The same as one text."""
    return "".join(read_documents(data))


def split_text(text: str) -> tuple[str, str]:
    """The first 90 % of the characters to train on, the rest to validate on."""
    cut = int(0.9 * len(text))
    return text[:cut], text[cut:]


def split_documents(documents: list[str]) -> tuple[list[str], list[str]]:
    """The same of several: the document in which the cut falls is in both parts."""
    first, second, left = [], [], int(0.9 * sum(map(len, documents)))
    for text in documents:
        cut = min(max(left, 0), len(text))
        left -= len(text)
        first += [text[:cut]] if cut else []
        second += [text[cut:]] if cut < len(text) else []
    return first, second


def progress(total: int, what: str, unit: str = "B") -> tqdm:
    """A bar for what takes more than two seconds."""
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
    """The text in pieces, the bar moving along."""
    for start in range(0, len(text), PIECE):
        piece = text[start : start + PIECE]
        yield piece
        bar.update(len(piece))


def train_tokenizer(
    kind: str, text: str | list[str], vocab_size: int
) -> RegexTokenizer | CharTokenizer:
    """A tokenizer learned from a text or from documents: byte-pair encoding or "char".

    Between documents stands END, so that several give the tokenizer that token too.
    """
    documents = [text] if isinstance(text, str) else text
    if kind == "char":
        tokenizer = CharTokenizer("".join(set().union(*documents)))
    else:
        tokenizer = RegexTokenizer()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a vocabulary that cannot be filled: said below
            train_bpe(tokenizer, documents, vocab_size)
        if (found := len(tokenizer.vocab)) < vocab_size:
            print(f"the text has no more pairs to merge: {found} tokens, not {vocab_size}")
    return tokenizer


def train_bpe(tokenizer: RegexTokenizer, documents: list[str], vocab_size: int) -> None:
    """Learn the merges, piece by piece where the tokenizer can."""
    if not hasattr(tokenizer, "encode_iterable"):  # a reader's own
        tokenizer.train("".join(documents), vocab_size)
        return
    with progress(sum(map(len, documents)), "learning the tokenizer") as bar:
        tokenizer.train((piece for text in documents for piece in pieces(text, bar)), vocab_size)


def end_of_text(tokenizer) -> int | None:
    """The id of END, if the tokenizer has it."""
    return getattr(tokenizer, "special_tokens", {}).get(END)


def add_end_of_text(tokenizer) -> None:
    """Give the tokenizer END, after all its other tokens."""
    if end_of_text(tokenizer) is None:
        specials = getattr(tokenizer, "special_tokens", {})
        tokenizer.register_special_tokens({**specials, END: len(tokenizer.vocab)})


def encode(tokenizer, text: str) -> torch.Tensor:
    """The ids of a corpus as int64 (N,); text that looks like a special token is plain text."""
    return encode_documents(tokenizer, [text])


def encode_documents(tokenizer, documents: list[str]) -> torch.Tensor:
    """The ids of documents as int64 (N,), END between them: 8 bytes a token and no more."""
    ids = array("q")
    with progress(sum(map(len, documents)), "encoding the text") as bar:
        for i, text in enumerate(documents):
            if i > 0:
                ids.append(end_of_text(tokenizer))
            for part in encoded_parts(tokenizer, text, bar):
                ids.extend(part)
    return torch.frombuffer(ids, dtype=torch.int64) if ids else torch.empty(0, dtype=torch.int64)


def encoded_parts(tokenizer, text: str, bar: tqdm) -> Iterator[Iterable[int]]:
    """The ids of a text, in parts."""
    if isinstance(tokenizer, CharTokenizer):
        yield from map(tokenizer.encode, pieces(text, bar))
    elif hasattr(tokenizer, "encode_iterable"):
        yield tokenizer.encode_iterable(pieces(text, bar), allowed_special="none")
    else:  # a reader's own
        yield tokenizer.encode(text, allowed_special="none")


def load_data(args, tokenizer=None) -> tuple[object, torch.Tensor, torch.Tensor, float, str]:
    """Read, split and encode the corpus that `args` ask for, with a given or a new tokenizer.

    Returns the tokenizer, the training and validation ids, the validation part's tokens per
    character, and the corpus's SHA-256.
    """
    documents = read_documents(args.data)
    digest, n_characters = digest_of(documents), sum(map(len, documents))
    train_texts, val_texts = split_documents(documents)
    several = len(documents) > 1
    del documents
    if not val_texts or not train_texts:
        raise UsageError(f"{n_characters} characters are too few to hold a tenth back; give more")
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
    return tokenizer, train_ids, val_ids, len(val_ids) / sum(map(len, val_texts)), digest


def digest_of(documents: list[str]) -> str:
    """The SHA-256 of the documents, END between them."""
    digest = hashlib.sha256()
    for i, text in enumerate(documents):
        digest.update(END.encode() if i > 0 else b"")
        for start in range(0, len(text), PIECE):
            digest.update(text[start : start + PIECE].encode("utf-8"))
    return digest.hexdigest()


def spread(ids: torch.Tensor, n: int, block_size: int, stretches: int = 8) -> torch.Tensor:
    """About n of the ids, in stretches of whole windows that lie evenly over all: (N,) -> (n,).

    Where two stretches meet, one prediction is of the wrong text: seven of all.
    """
    length = max(n // stretches // block_size, 1) * block_size
    count = max(n // length, 1)
    if n >= len(ids) or count * length >= len(ids):
        return ids
    starts = [round(i * (len(ids) - length) / max(count - 1, 1)) for i in range(count)]
    return torch.cat([ids[start : start + length] for start in starts])


@contextmanager
def showing_calls(model: torch.nn.Module, total: int, what: str, positions: bool = True):
    """Meanwhile a bar moves with every call of the model: by the positions it reads, or by one."""
    with progress(total, what, "token") as bar:

        def count(module, given, out) -> None:
            bar.update(given[0].numel() if positions else 1)

        hook = model.register_forward_hook(count)
        try:
            yield
        finally:
            hook.remove()


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


def check_dtype(dtype: str, device: torch.device) -> None:
    """Refuse a dtype that the device cannot compute in."""
    try:
        with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            (torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)).sum().item()
    except (RuntimeError, NotImplementedError, TypeError):
        raise UsageError(f"{device} cannot compute in {dtype}; leave --dtype away") from None


def autocast(model: torch.nn.Module, dtype: str) -> torch.nn.Module:
    """The model itself; with bfloat16 its products are computed in that, its weights stay float32.

    The logits are float32 again, so that losses and draws are not rounded.
    """
    if dtype != "float32":
        forward, device = model.forward, next(model.parameters()).device.type

        def in_low_precision(idx: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device, getattr(torch, dtype)):
                return forward(idx).float()

        model.forward = in_low_precision
    return model


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

    A second signal ends the program at once, also where the signal was ignored before, as a
    shell does for a job in the background. Only the main thread can wait for signals; in
    another one the event is never set.
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
    """The prompt as ids (1, T); an empty one starts a document, or from a newline.

    With characters of which none is a newline, it starts from the first token.
    """
    if not prompt and (end := end_of_text(tokenizer)) is not None:
        return torch.tensor([[end]])
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
