"""The steps of a chapter: its listing, cut at the numbered section comments of build.py.

    # 3. The chain rule, from the result to the inputs

What is defined below such a comment, functions and methods alike, is what that step writes. A
comment inside a class cuts the class. What stands above the first comment belongs to step 1.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

SECTION = re.compile(r"^ *# (\d+)\. (.+?)\s*$")
STUB = "raise NotImplementedError"


@dataclass
class Step:
    """One step: its number and title, and what it writes, as `f` or `Class.f`."""

    number: int
    title: str
    names: list[str] = field(default_factory=list)


def steps(source: str) -> list[Step]:
    """The steps of a listing, in order; one step without a title where there are no sections."""
    found: dict[int, Step] = {}
    starts: list[tuple[int, int]] = []  # (line, step)
    for line, text in enumerate(source.splitlines(), 1):
        if section := SECTION.match(text):
            number = int(section[1])
            found.setdefault(number, Step(number, section[2]))
            starts.append((line, number))
    found = found or {1: Step(1, "")}
    for name, node in definitions(ast.parse(source)):
        found[step_of_line(starts, node.lineno)].names.append(name)
    return [found[number] for number in sorted(found)]


def definitions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef]]:
    """Functions and methods by their names, in the order of the file."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            found += [
                (f"{node.name}.{part.name}", part)
                for part in node.body
                if isinstance(part, ast.FunctionDef)
            ]
    return found


def step_of_line(starts: list[tuple[int, int]], line: int) -> int:
    """The number of the last section comment above a line."""
    above = [number for start, number in starts if start < line]
    return above[-1] if above else min((number for _, number in starts), default=1)


def up_to(source: str, last: int) -> str:
    """The listing up to step `last`, with a stub in place of every later body.

    Only bodies change: decorators, defaults, constants and aliases stay.
    """
    later = {name for step in steps(source) if step.number > last for name in step.names}
    return stubbed(source, later)


def stubbed(source: str, names: set[str]) -> str:
    """The source with the bodies of `names` taken out; docstrings stay."""
    lines = source.splitlines()
    for name, node in reversed(definitions(ast.parse(source))):
        if name in names:
            first, last, text = stub(node, lines)
            lines[first - 1 : last] = text
    return "\n".join(lines).rstrip() + "\n"


def stub(node: ast.FunctionDef, lines: list[str]) -> tuple[int, int, list[str]]:
    """The edit (first line, last line, new text) that leaves a stub where the body was."""
    indent = " " * (node.col_offset + 4)
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        return first.end_lineno + 1, last_line(node, lines), [indent + STUB]
    if first.lineno == node.lineno:  # def f(self): return 1
        head = lines[first.lineno - 1][: first.col_offset].rstrip()
        above, below = (
            line.strip() for line in [*lines, ""][node.lineno - 2 : node.lineno + 1 : 2]
        )
        before = [""] if above and above[-1] != ":" and above[0] != "@" else []
        after = [""] if below and not below.startswith(("def ", "@")) else []
        return first.lineno, last_line(node, lines), [*before, head, indent + STUB, *after]
    start = first.lineno
    while lines[start - 2].strip() == "" or lines[start - 2].lstrip().startswith("#"):
        start -= 1
    return start, last_line(node, lines), [indent + STUB]


def last_line(node, lines: list[str]) -> int:
    """The last line of a definition, comments at its end included, section comments not."""
    last = node.end_lineno
    for number in range(last + 1, len(lines) + 1):
        line = lines[number - 1]
        if line.strip() and not line.startswith(" " * (node.col_offset + 1) + " "):
            break
        if line.strip():
            if not line.lstrip().startswith("#") or SECTION.match(line):
                break
            last = number
    return last
