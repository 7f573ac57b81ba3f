"""What the command lines of all projects share: an error is one line and status 2."""

import argparse
import atexit
import contextlib
import functools
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TextIO

from p01_autograd.lab.threads import use_free_cores


class Parser(argparse.ArgumentParser):
    """argparse without the usage block: a mistake ends with one line that says what to do."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The flags; from here on a closed pipe (| head) ends the command without a traceback."""
        quiet_broken_pipes()
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and end with status 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: whole numbers from `low` on."""

    def whole_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
        if number < low:
            raise argparse.ArgumentTypeError(f"{number} is too small; use {low} or more")
        return number

    return whole_number


def positive(text: str) -> float:
    """An argparse type: finite numbers above zero."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text} is out of range; use a finite number above 0")
    return number


class UsageError(Exception):
    """Something the user gave cannot work; the text says what to do. Ends with status 2."""


def output_folder(*parts: str) -> Path:
    """The folder below the current one that a command writes into, made if need be.

    UsageError where nothing can be written there, so ask before a long computation begins.
    """
    path = Path(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or "not possible"
        raise UsageError(f"nothing can be written to {path.resolve()}: {reason}") from None
    return path


def print_anything() -> None:
    """Let print show "?" for what a terminal or a file in an old encoding cannot hold."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def quiet_end() -> None:
    """After a BrokenPipeError: nobody reads what Python still wants to flush at its end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@functools.cache  # once is enough
def quiet_broken_pipes() -> None:
    """End quietly when nobody reads what is printed, also where Python flushes at its end."""
    before = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if issubclass(kind, BrokenPipeError):
            quiet_end()
        else:
            before(kind, error, traceback)

    def flush() -> None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            quiet_end()

    sys.excepthook = hook
    atexit.register(flush)


class UntilUnread:
    """A stream that goes silent when nobody reads it any more (2>&1 | head)."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self.try_to(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self.try_to(self.stream.flush)

    def try_to(self, action: Callable[..., Any], *args: Any) -> None:
        try:
            action(*args)
        except BrokenPipeError:
            with contextlib.suppress(OSError, ValueError):  # a test's stream has no number
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def measure(
    package: str,
    description: str | None,
    parts: dict[str, Callable[[Any], Any]],
    short: tuple[str, ...] | None = None,
    options: Sequence[tuple[str, Callable[[str], Any], Any, str]] = (),
    argv: list[str] | None = None,
) -> int:
    """The command line of a project's measure.py; returns the exit status.

    `parts` are functions by name; each takes the flags, prints, and returns a figure or None.
    Without a name those in `short` are run, and all of them if that is None. `options` are
    more flags, (name, type, default, help) each.
    """
    print_anything()
    parser = Parser(
        prog=f"python -m {package}.measure",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    short = short or tuple(parts)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: {' '.join(short)}")
    parser.add_argument("--all", action="store_true", help="every part")
    for name, kind, default, text in options:
        shown = "" if default is None else "; default: %(default)s"
        parser.add_argument(name, type=kind, default=default, help=text + shown)
    flags = parser.parse_args(argv)
    for name in flags.parts:
        if name not in parts:
            parser.error(f"there is no part {name}; there are {', '.join(parts)}")
    try:
        folder = output_folder("runs", package, "measure")
        use_free_cores()
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    for name in parts if flags.all else flags.parts or short:
        try:
            print(f"\n--- {name}\n", flush=True)
            figure = parts[name](flags)
        except UsageError as error:
            if flags.parts:
                parser.error(str(error))
            print(f"left out: {error}")
            continue
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # | head
            quiet_end()
            return 0
        if figure is not None:
            path = folder / f"{name}.png"
            figure.savefig(path)
            print(f"figure: {path.as_posix()}", flush=True)
    return 0
