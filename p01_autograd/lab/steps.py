"""The steps of a chapter: its listing, cut at the numbered section comments of build.py.

    # 3. The chain rule, from the result to the inputs

What is defined below such a comment, functions and methods alike, is what that step writes. A
comment inside a class cuts the class. What stands above the first comment belongs to step 1.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = sorted(path.parent.name for path in ROOT.glob("p[0-9][0-9]_*/__init__.py"))
SECTION = re.compile(r"^ *# (\d+)\. (.+?)\s*$")
STUB = "raise NotImplementedError"
Definition = ast.FunctionDef | ast.ClassDef


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


@dataclass
class Section:
    """The lines below a section comment, the comment included, counted from 1."""

    number: int
    first: int
    last: int
    cls: str = ""  # the class that it is inside of


def sections(source: str) -> list[Section]:
    """The sections of a listing, in the order of the file; the lines above the first are in none.

    A section inside a class ends with the class.
    """
    lines, tree = source.splitlines(), ast.parse(source)
    matches = [(n, SECTION.match(text)) for n, text in enumerate(lines, 1)]
    starts = [(n, int(match[1])) for n, match in matches if match]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found = []
    for (start, number), (following, _) in zip(starts, [*starts[1:], (len(lines) + 1, 0)]):
        inside = [c for c in classes if c.lineno < start <= last_line(c, lines)]
        last = min([following - 1, *(last_line(c, lines) for c in inside)])
        while last > start and not lines[last - 1].strip():
            last -= 1
        found.append(Section(number, start, last, inside[0].name if inside else ""))
    return found


def only(source: str, last: int) -> str:
    """The listing without the sections of the steps after `last`."""
    lines = source.splitlines()
    for section in reversed(sections(source)):
        if section.number > last:
            del lines[section.first - 1 : section.last]
    return tidy(lines)


def with_step(mine: str, listing: str, number: int) -> str:
    """The text `mine` with what it lacks of a step of `listing`; SyntaxError if it is no Python."""
    for section in sections(listing):
        if section.number == number:
            mine = with_section(mine, listing, section)
    return mine


def with_section(mine: str, listing: str, section: Section) -> str:
    """The text `mine` with the definitions of a section that it lacks, in their class if any."""
    lines, theirs, tree = mine.splitlines(), listing.splitlines(), ast.parse(mine)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    have = {*classes, *(name for name, _ in definitions(tree))}
    body, prefix = ast.parse(listing).body, ""
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == section.cls:
            body, prefix = node.body, f"{section.cls}."
    nodes = [
        node
        for node in body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and section.first < node.lineno <= section.last
    ]
    lacking = [node for node in nodes if prefix + node.name not in have]
    if not lacking:
        return mine
    new = ["", *theirs[section.first - 1 : section.last]]
    if len(lacking) < len(nodes):
        new = []
        for node in lacking:
            new += ["", *theirs[first_line(node) - 1 : last_line(node, theirs)]]
    if section.cls in classes:
        at = last_line(classes[section.cls], lines)
        lines[at:at] = new
    else:
        lines += ["", *new]
    return tidy(lines)


def tidy(lines: list[str]) -> str:
    """The lines as a text, with two blank lines at most in a row and one newline at its end."""
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).rstrip() + "\n"


def first_line(node: Definition) -> int:
    """The first line of a definition, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


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
    return tidy(lines)


def stub(node: ast.FunctionDef, lines: list[str]) -> tuple[int, int, list[str]]:
    """The edit (first line, last line, new text) that leaves a stub where the body was."""
    indent = " " * (node.col_offset + 4)
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        return (first.end_lineno or 0) + 1, last_line(node, lines), [indent + STUB]
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


def last_line(node: Definition, lines: list[str]) -> int:
    """The last line of a definition, comments at its end included, section comments not."""
    last = node.end_lineno or node.lineno
    for number in range(last + 1, len(lines) + 1):
        line = lines[number - 1]
        if line.strip() and not line.startswith(" " * (node.col_offset + 1) + " "):
            break
        if line.strip():
            section = SECTION.match(line) and not isinstance(node, ast.ClassDef)
            if not line.lstrip().startswith("#") or section:
                break
            last = number
    return last


# The shipped listing


@functools.cache
def shipped_text(project: str) -> str:
    """Our build.py, from the repository's history if the reader has typed over the file."""
    path = ROOT / project / "build.py"
    if sabotages_find_their_text(project):
        return path.read_text(encoding="utf-8")
    command = ["git", "-C", str(ROOT), "show", f"HEAD:{project}/build.py"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=10)
        return done.stdout.decode("utf-8").replace("\r\n", "\n")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""


def sabotages_find_their_text(project: str) -> bool:
    """Whether every sabotage's old text is there once; read, not run, so that nothing can fail."""
    path = ROOT / project / "break_it.py"
    if not path.is_file():
        return True
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Sabotage":
            given = {
                key.arg: key.value.value
                for key in call.keywords
                if isinstance(key.value, ast.Constant) and isinstance(key.value.value, str)
            }
            source = ROOT / project / f"{given.get('module', 'build')}.py"
            old = given.get("old")
            if old is not None and source.read_text(encoding="utf-8").count(old) != 1:
                return False
    return True
