"""Rules for all projects: which imports are allowed, and how long listings and pages may be."""

import ast
import re
from pathlib import Path

import pytest

from p01_autograd.lab.steps import steps

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = sorted(path.name for path in ROOT.glob("p0[1-6]_*") if (path / "__init__.py").exists())
MODULES = [path for project in PROJECTS for path in sorted((ROOT / project).glob("*.py"))]
SHIPPED = [path for path in MODULES if not path.name.startswith("test_")]

# The earlier projects that a project may import.
USES = {
    "p01_autograd": set(),
    "p02_tensors": {"p01_autograd"},
    "p03_bpe": {"p01_autograd"},
    "p04_attention": {"p01_autograd", "p03_bpe"},
    "p05_gpt": {"p01_autograd", "p02_tensors", "p03_bpe", "p04_attention"},
    "p06_training": {"p01_autograd", "p02_tensors", "p03_bpe", "p04_attention", "p05_gpt"},
}
LINES_TO_TYPE = {  # the most lines of code in build.py
    "p01_autograd": 50,
    "p02_tensors": 220,
    "p03_bpe": 150,
    "p04_attention": 55,
    "p05_gpt": 100,
    "p06_training": 130,
}
LINES_OF_A_CHAPTER_PAGE = 150
FIRST_USE = {"numpy": "p02_tensors", "torch": "p04_attention"}  # the first to import a library


def imports(path, top_level_only=False):
    """Yield the top-level packages that a file imports; a relative import is its own project."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield path.parent.name if node.level else node.module.split(".")[0]


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", SHIPPED, ids=ids(SHIPPED))
def test_a_project_imports_only_earlier_ones(path):
    project = path.parent.name
    others = {name for name in imports(path) if name in PROJECTS} - {project}
    assert others <= USES[project], f"{path} imports {others - USES[project]}"


@pytest.mark.parametrize("path", SHIPPED, ids=ids(SHIPPED))
def test_libraries_appear_where_the_book_introduces_them(path):
    for library, first in FIRST_USE.items():
        if path.parent.name < first:
            assert library not in set(imports(path)), f"{path} imports {library} before {first}"
    if path.parent.name == "p01_autograd":
        third_party = {"numpy", "torch", "tqdm", "matplotlib", "regex", "tiktoken"}
        assert not third_party & set(imports(path, top_level_only=True)), path


def code_lines(source):
    """The numbers of the lines that are not blank, comment or docstring."""
    tree = ast.parse(source)
    lines = set()
    for node in ast.walk(tree):
        if hasattr(node, "lineno"):
            lines |= set(range(node.lineno, node.end_lineno + 1))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            first = body[0]
            if isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                lines -= set(range(first.lineno, first.end_lineno + 1))
    text = source.splitlines()
    return [n for n in sorted(lines) if text[n - 1].strip() and text[n - 1].strip()[0] != "#"]


@pytest.mark.parametrize("project", PROJECTS)
def test_a_listing_is_typed_in_an_afternoon(project):
    lines = len(code_lines((ROOT / project / "build.py").read_text(encoding="utf-8")))
    assert lines <= LINES_TO_TYPE[project], f"{project}/build.py has {lines} lines of code"


@pytest.mark.parametrize("project", PROJECTS)
def test_the_sections_of_a_listing_are_the_steps_of_its_chapter(project):
    page = (ROOT / project / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| *(\d+) *\| *([^|]+?) *\|.*--step (\d+)", page, re.MULTILINE)
    listing = steps((ROOT / project / "build.py").read_text(encoding="utf-8"))
    assert [int(number) for number, _, _ in rows] == [step.number for step in listing]
    for (number, text, shown), step in zip(rows, listing, strict=True):
        assert number == shown
        plain = text.replace("`", "").replace("*", "")
        assert plain.lower().startswith(step.title.replace("`", "").lower()), (text, step.title)


@pytest.mark.parametrize("project", PROJECTS)
def test_a_chapter_page_has_at_most_150_lines(project):
    lines = (ROOT / project / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES_OF_A_CHAPTER_PAGE, f"{project}/README.md has {len(lines)} lines"


def test_gpt_has_at_most_twenty_lines():
    source = (ROOT / "p05_gpt/build.py").read_text(encoding="utf-8")
    (gpt,) = [n for n in ast.parse(source).body if getattr(n, "name", None) == "GPT"]
    assert len(code_lines(ast.get_source_segment(source, gpt))) <= 20


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_no_line_is_longer_than_a_hundred_characters(path):
    long = [n for n, line in enumerate(path.read_text("utf-8").splitlines(), 1) if len(line) > 100]
    assert not long, f"{path}: lines {long}"
