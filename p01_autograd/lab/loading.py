"""Loads what a reader has typed, a file, a notebook or a module, or says in a line why not."""

from __future__ import annotations

import contextlib
import importlib
import json
import linecache
import sys
import types
from pathlib import Path

from p01_autograd.lab.limits import TimeIsUp, at_most


class CannotLoad(Exception):
    """The text is one line for the reader."""


def load(given: str, project: str, folder: str | Path, limit: float = 30.0) -> types.ModuleType:
    """The module in a file, seen from `folder`, or of a dotted name; CannotLoad if there is none.

    `project` is the package that relative imports in it refer to.
    """
    path = Path(folder, given)
    try:
        with at_most(limit):
            if path.is_dir():
                raise CannotLoad(f"{given} is a folder; give a file in it")
            if path.is_file():
                return run_file(path.resolve(), project)
            if path.suffix in (".py", ".ipynb") or path.name != given:
                raise CannotLoad(
                    f"{given}: there is no such file; "
                    f"python scripts/blank.py {project} writes one to begin with"
                )
            module = importlib.import_module(given)
            if getattr(module, "__path__", None) is not None and module.__file__ is None:
                raise CannotLoad(f"{given} is a folder; give a module in it")
            return module
    except (CannotLoad, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and f"{given}.".startswith(f"{error.name}."):
            raise CannotLoad(f"{given}: there is no such module") from None
        raise CannotLoad(f"{given} cannot be used: {reason(error)}") from None


def run_file(path: Path, project: str) -> types.ModuleType:
    """The module that a file makes, run anew each time."""
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, or my/p04_attention.py would hide the project of that name
    module = types.ModuleType("build_under_test")
    module.__file__, module.__package__ = str(path), project  # "from ." means the project's
    sys.modules[module.__name__] = module
    source = source_of(path)
    lines = source.splitlines(keepends=True)
    linecache.cache[str(path)] = (len(source), None, lines, str(path))
    # Compiled here: a cached .pyc would hide an edit made within the same second.
    exec(compile(source, str(path), "exec"), vars(module))
    return module


def source_of(path: Path) -> str:
    """The Python text of a file, or of a notebook's code cells, one after the other."""
    content = path.read_bytes()
    for mark, encoding in ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):
        if content.startswith(mark):
            raise CannotLoad(
                f"{path.name} is in {encoding}, as PowerShell's > writes it; save it as UTF-8"
            )
    if b"\0" in content:
        raise CannotLoad(f"{path.name} is no text: it holds a zero byte; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise CannotLoad(f"{path.name}:{line} is not in UTF-8; save it as UTF-8") from None
    if path.suffix != ".ipynb":
        return text.replace("\r\n", "\n")
    try:
        cells = [
            cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, TypeError):
        raise CannotLoad(f"{path.name} is not a Jupyter notebook") from None
    cells = [cell if isinstance(cell, str) else "".join(cell) for cell in cells]
    lines = "\n\n".join(cells).splitlines()
    magic = [f"# {line}" if line.lstrip().startswith(("%", "!")) else line for line in lines]
    return "\n".join(magic) + "\n"


def reason(error: BaseException) -> str:
    """One line for a file that does not load."""
    if isinstance(error, SyntaxError):
        where = f"{shown(error.filename)}:{error.lineno}"
        return f"{where} does not parse: {error.msg}: {(error.text or '').strip()}"
    ours = (__file__, str(Path(__file__).with_name("limits.py")))
    frames = [
        f
        for f in traceback_frames(error)
        if f[0] not in ours and "importlib" not in f[0] and not f[0].startswith("<")
    ]
    where = f"{shown(frames[-1][0])}:{frames[-1][1]}: " if frames else ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{where}it imports {error.name}, which is not installed"
    if isinstance(error, TimeIsUp):
        return f"{where}importing it does not finish"
    return f"{where}{type(error).__name__}: {error}".split("\n")[0]


def traceback_frames(error: BaseException) -> list[tuple[str, int, types.FrameType]]:
    """Where an exception came through: (file, line, frame), the innermost last."""
    frames, tb = [], error.__traceback__
    while tb is not None:
        frames.append((tb.tb_frame.f_code.co_filename, tb.tb_lineno, tb.tb_frame))
        tb = tb.tb_next
    return frames


def shown(path: str | Path | None) -> str:
    """A path as the reader would type it from here."""
    with contextlib.suppress(ValueError):
        return Path(path or "?").resolve().relative_to(Path.cwd()).as_posix()
    return str(path)
