"""Write my/PROJECT.py: what you will type, with the bodies left to you.

    python scripts/blank.py p04_attention
    python scripts/blank.py p04_attention --step 2       the first two steps; later: --step 3
    pytest p04_attention --build my/p04_attention.py

The file is generated from the project's build.py: signatures, docstrings, imports and constants
stay, bodies and private helpers are removed. A function that no check uses is marked as optional.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from p01_autograd.lab.cli import Parser, UsageError
from p01_autograd.lab.steps import (
    PROJECTS,
    ROOT,
    definitions,
    first_line,
    last_line,
    only,
    shipped_text,
    steps,
    stub,
    tidy,
    with_step,
)

OPTIONAL = "# Optional: a helper of the book's listing; yours may do without it."
COMPLETE = ("__repr__", "__format__")  # kept: printing is not part of the lesson


def blank(source: str, package: str, helpers: frozenset | set = frozenset()) -> str:
    """The text of a module without its bodies; `helpers` are marked as optional."""
    tree, lines = ast.parse(source), source.splitlines()
    keep = needed_for_import(tree)
    edits = []  # (first line, last line, new lines), counted from 1
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if is_private(node.name) and node.name not in keep:
                edits.append((first_line(node), last_line(node, lines), []))
            elif node.name not in keep:
                edits += edits_inside(node, lines)
        elif isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            edits.append((node.lineno, node.end_lineno, []))
        elif isinstance(node, ast.ImportFrom) and node.level:
            absolute = re.sub(r"from\s+\.+\s*", f"from {package}.", lines[node.lineno - 1], count=1)
            edits.append(
                (node.lineno, node.lineno, [absolute.replace(f"{package}. ", f"{package} ")])
            )
    for name, node in definitions(tree):
        if name in helpers:
            at = first_line(node)
            edits.append((at, at - 1, [" " * node.col_offset + OPTIONAL]))
    for first, last, text in sorted(edits, reverse=True):
        lines[first - 1 : last] = text
    return tidy(lines)


def needed_for_import(tree: ast.Module) -> set[str]:
    """The private names and the functions that the module uses when it is imported."""
    used = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            parts = [
                *node.decorator_list,
                *node.args.defaults,
                *filter(None, node.args.kw_defaults),
            ]
        elif isinstance(node, ast.ClassDef):
            parts = [*node.decorator_list, *node.bases]
            parts += [part for part in node.body if not isinstance(part, ast.FunctionDef)]
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    parts += [*part.decorator_list, *part.args.defaults]
        else:
            parts = [node]
        for part in parts:
            used |= {name.id for name in ast.walk(part) if isinstance(name, ast.Name)}
    return used & {
        n.name for n in tree.body if isinstance(n, ast.FunctionDef) or is_private_class(n)
    }


def is_private_class(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and is_private(node.name)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def edits_inside(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> list:
    """The edits that turn a function, or each method of a class, into a stub."""
    if isinstance(node, ast.FunctionDef):
        return [stub(node, lines)]
    edits = []
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and is_private(part.name):
            edits.append((first_line(part), last_line(part, lines), []))
        elif isinstance(part, ast.FunctionDef) and part.name not in COMPLETE:
            edits.append(stub(part, lines))
    return edits


def optional(project: str, source: str) -> set[str]:
    """The functions of a listing that its checks never use: helpers that may be left out."""
    checks = (ROOT / project / "test_build.py").read_text(encoding="utf-8")
    helpers = set()
    for step in steps(source):
        for name in step.names:
            last = name.rpartition(".")[2]
            implied = last.endswith("__") or last == "forward"
            if not implied and not re.search(rf"[.\"]{last}\b", checks):
                helpers.add(name)
    return helpers


def whole_name(text: str) -> str:
    """The full name of a project given as p04_attention, p04 or a path; raises UsageError."""
    name = Path(text).name
    found = [project for project in PROJECTS if project == name or project[:3] == name]
    if not found:
        raise UsageError(f"there is no project {text}; there are {', '.join(PROJECTS)}")
    return found[0]


def command(project: str, target: Path) -> str:
    """The pytest command that checks a file, relative to the current folder."""
    try:
        folder = os.path.relpath(ROOT / project)
    except ValueError:  # another drive of Windows
        folder = str(ROOT / project)
    return shlex.join(["pytest", Path(folder).as_posix(), "--build", target.as_posix()])


def write(target: Path, text: str, mode: str = "x") -> None:
    """Write a new file, or overwrite it with mode "w"; raises UsageError if that fails."""
    try:
        target.parent.mkdir(exist_ok=True)
        with open(target, mode, encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        if not target.exists():
            where = target.parent.as_posix()
            raise UsageError(
                f"{where} is a file, and {where}/ has to be a folder; move it"
            ) from None
        raise UsageError(f"{target.as_posix()} is there already and is left alone") from None
    except OSError as error:
        raise UsageError(f"{target.as_posix()} cannot be written: {error.strerror}") from None


def uncover(target: Path, text: str, number: int) -> str:
    """Add what a file lacks of the blank `text` up to a step; returns a line to print."""
    name = target.as_posix()
    if not target.exists():
        write(target, only(text, number))
        return f"{name} is yours to write, up to step {number}"
    mine = target.read_text(encoding="utf-8")
    try:
        more = with_step(mine, text, number)
    except SyntaxError as error:
        raise UsageError(f"{name}:{error.lineno} does not parse: {error.msg}") from None
    if more == mine:
        return f"{name} has all of step {number}"
    write(target, more, "w")
    return f"{name} has the stubs of step {number} now; the rest is as it was"


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(
        prog="python scripts/blank.py",
        description="Write my/PROJECT.py: what you will type, with the bodies left to you.",
    )
    parser.add_argument("project", metavar="PROJECT", help=", ".join(PROJECTS))
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="only up to this step; to a file that is there already, add what it lacks of the step",
    )
    flags = parser.parse_args(argv)
    try:
        project = whole_name(flags.project)
        target, source = Path("my") / f"{project}.py", shipped_text(project)
        text = blank(source, project, optional(project, source))
        if flags.step is None:
            write(target, text)
            print(f"{target.as_posix()} is yours to write; to check it:")
        else:
            known = [step.number for step in steps(source)]
            if flags.step not in known:
                shown = ", ".join(map(str, known))
                raise UsageError(f"{project} has no step {flags.step}; it has {shown}")
            print(f"{uncover(target, text, flags.step)}; to check it:")
    except UsageError as error:
        parser.error(str(error))
    more = "" if flags.step is None else f" --step {flags.step}"
    print(f"    {command(project, target)}{more}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
