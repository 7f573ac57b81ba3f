"""Write my/PROJECT.py: what you will type, with the bodies left to you.

    python scripts/blank.py p04_attention
    pytest p04_attention --build my/p04_attention.py

It is cut from the project's build.py: signatures, docstrings, imports and constants stay, bodies
and private helpers go.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from p01_autograd.lab.steps import last_line, stub  # noqa: E402


def blank(source: str, package: str) -> str:
    """The text of a module without its bodies."""
    tree, lines = ast.parse(source), source.splitlines()
    keep = needed_for_import(tree)
    edits = []  # (first line, last line, what stands there instead), counted from 1
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
    for first, last, text in sorted(edits, reverse=True):
        lines[first - 1 : last] = text
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).rstrip() + "\n"


def needed_for_import(tree: ast.Module) -> set[str]:
    """The private names and the helpers that run when the module is imported."""
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
    """A function's body becomes a stub; a class is gone through part by part."""
    if isinstance(node, ast.FunctionDef):
        return [stub(node, lines)]
    edits = []
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and is_private(part.name):
            edits.append((first_line(part), last_line(part, lines), []))
        elif isinstance(part, ast.FunctionDef):
            edits.append(stub(part, lines))
    return edits


def first_line(node) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    projects = sorted(path.parent.name for path in ROOT.glob("p[0-9][0-9]_*/build.py"))
    choice = ", ".join(projects)
    if argv in (["-h"], ["--help"]):
        print(f"{__doc__}\nprojects: {choice}")
        return 0
    if len(argv) != 1:
        print(f"blank.py takes one project: {choice}", file=sys.stderr)
        return 2
    project = argv[0].rstrip("/\\")
    if project not in projects:
        print(f"blank.py: there is no project {project}; there are {choice}", file=sys.stderr)
        return 2
    target = Path("my") / f"{project}.py"
    source = (ROOT / project / "build.py").read_text(encoding="utf-8")
    try:
        target.parent.mkdir(exist_ok=True)
        with open(target, "x", encoding="utf-8", newline="\n") as file:
            file.write(blank(source, project))
    except FileExistsError:
        print(f"blank.py: {target.as_posix()} is there already and is left alone", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"blank.py: {target.as_posix()} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    print(
        f"{target.as_posix()} is yours to write; to check it:\n"
        f"    pytest {project} --build {target.as_posix()}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
