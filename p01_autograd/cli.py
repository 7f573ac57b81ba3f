"""What the command lines of all projects share: an error is one line and status 2."""

import argparse
import math
import sys


class Parser(argparse.ArgumentParser):
    """argparse without the usage block: a mistake ends with one line that says what to do."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str):
        """Print one line on stderr and end with status 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def at_least(low: int):
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
        raise argparse.ArgumentTypeError(f"{text} will not do; use a finite number above 0")
    return number


class UsageError(Exception):
    """Something the user gave cannot work; the text says what to do. Ends with status 2."""


def print_anything() -> None:
    """Let print show "?" for what a terminal or a file in an old encoding cannot hold."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
