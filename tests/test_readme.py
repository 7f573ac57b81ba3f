"""The pages are consistent with the code: commands, flags, names, links, images, -k expressions.

No command is run beyond the parsing of its flags.
"""

import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from _pytest.mark import KeywordMatcher
from _pytest.mark.expression import Expression

from p01_autograd.lab.checker import step_of
from p01_autograd.lab.cli import Parser
from p01_autograd.lab.session import in_session

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SYMPTOMS.md")]
PAGES += sorted([*ROOT.glob("p0*/*.md"), *ROOT.glob("data/README.md")])
PROJECTS = sorted(path.parent.name for path in ROOT.glob("p0*/__init__.py"))
STANDS_FOR = re.compile(r"pXX|\.\.\.|[\[<]|\b(NAME|PART|PROJECT|FILE|DIR|RUN_DIR|TEXT)\b")


def code(page: Path):
    """Yield every piece of code on a page: lines of code blocks and code spans."""
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()
        else:
            yield from re.findall(r"`([^`]+)`", line)


def commands():
    """(page, line) of every line of code that calls Python, pytest or torchrun."""
    found = {}
    for page in PAGES:
        for piece in code(page):
            piece = re.split(r"\s{2,}|\s#\s", piece.removeprefix("$ "))[0]  # remarks
            for line in re.split(r"&&|;|\|(?!\|)", piece):
                words = re.sub(r"^\s*(\w+=\S+\s+)+", "", line).split(None, 1)
                if words and words[0] in ("python", "py", "pytest", "torchrun"):
                    found.setdefault(line.strip(), page)
    return [(page, line) for line, page in found.items()]


COMMANDS = commands()
PYTEST = [(page, line) for page, line in COMMANDS if re.match(r"(py\w* -m )?pytest\b", line)]
OTHERS = [(page, line) for page, line in COMMANDS if (page, line) not in PYTEST]


def ids(pairs):
    return [f"{page.parent.name if page.parent != ROOT else ''}: {text}" for page, text in pairs]


class Understood(Exception):
    """Raised once a command has parsed its flags."""


@pytest.mark.parametrize(("page", "line"), OTHERS, ids=ids(OTHERS))
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_command_exists_and_takes_these_flags(page, line, monkeypatch, capsys):
    words = shlex.split(re.sub(r"^(\w+=\S+\s+)+", "", line))
    if words[0] == "torchrun" or "-m" in words:
        module, *arguments = words[words.index("-m") + 1 :]
        if STANDS_FOR.search(module):
            return
        spec = importlib.util.find_spec(module)
        assert spec, f"{page}: there is no module {module}"
        if module.split(".")[0] not in PROJECTS or ".test_" in module:
            return
        file = Path(spec.origin)
    else:
        module, (script, *arguments) = None, words[1:]
        file = ROOT / script
        assert file.is_file(), f"{page}: there is no {script}"
    if any(STANDS_FOR.search(word) for word in arguments):
        return
    source = file.read_text(encoding="utf-8")
    assert re.search(r"\bParser\(|import .*\b(main|measure)\b", source), f"{file} has no Parser"

    def stop(parser, argv=None, namespace=None):
        Parser.understand(parser, argv, namespace)
        raise Understood

    monkeypatch.setattr(Parser, "understand", Parser.parse_args, raising=False)
    monkeypatch.setattr(Parser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [str(file), *arguments])
    run = runpy.run_module if module else runpy.run_path
    try:
        run(module or str(file), run_name="__main__")
    except Understood:
        pass
    except SystemExit as end:
        assert end.code == 0, f"{page}: {line}\n{capsys.readouterr().err}"
    names = [word for word in arguments if re.fullmatch(r"[a-z]\w*", word)]
    if file.name in ("break_it.py", "measure.py"):
        known = names_of(module)
        alone = [a for a in arguments if a in names and not flag_before(a, arguments)]
        assert set(alone) <= known, f"{page}: {line}: there is no {set(alone) - known}"


def flag_before(word, arguments):
    """Whether a word follows a flag that takes a value, such as --run."""
    before = arguments[arguments.index(word) - 1] if arguments.index(word) else ""
    return before.startswith("--") and before not in ("--all", "--diff", "--quiz")


def names_of(module):
    loaded = importlib.import_module(module)
    if module.endswith("measure"):
        return set(getattr(loaded, "PARTS", ()))
    return {sabotage.name for sabotage in loaded.SABOTAGES}


def selected(items, paths, words, step):
    """The number of items that `pytest PATHS -k WORDS --step STEP` would run."""
    chosen = [i for i in items if not paths or str(i.path).startswith(tuple(paths))]
    if step is not None:
        chosen = [item for item in chosen if step_of(item) == step]
    if not words:
        return len(chosen)
    return sum(map(Expression.compile(words).evaluate, map(KeywordMatcher.from_item, chosen)))


def test_every_pytest_line_selects_something():
    asked = []
    for _, line in PYTEST:
        words = shlex.split(line)
        arguments = words[words.index("pytest") + 1 :]
        expression = arguments[arguments.index("-k") + 1] if "-k" in arguments else ""
        flags = ("-k", "--build", "--step", "--homework")
        values = {arguments[i + 1] for i, a in enumerate(arguments) if a in flags}
        step = arguments[arguments.index("--step") + 1] if "--step" in arguments else "N"
        paths = [a for a in arguments if not a.startswith("-") and a not in values]
        if STANDS_FOR.search(line):
            paths = expression = ""
        number = int(step) if step.isdigit() else None
        asked.append(([str(ROOT / path) for path in paths], expression, number))
    folders = [*(ROOT / project for project in PROJECTS), ROOT / "tests"]
    no_doctests = ("-o", "addopts=")
    counts = in_session(
        folders, lambda checker, items: [selected(items, *each) for each in asked], *no_doctests
    )
    for (page, line), count in zip(PYTEST, counts, strict=True):
        assert count, f"{page}: {line} selects no test"


LINKS = [
    (page, target)
    for page in PAGES
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    if not re.match(r"https?:|mailto:", target)
]


@pytest.mark.parametrize(("page", "target"), LINKS, ids=ids(LINKS))
def test_links_exist(page, target):
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    assert path.exists(), f"{page}: {target}"
    if anchor:
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
        anchors = [re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings]
        assert anchor in anchors, f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_images_have_alternative_text_and_are_small(page):
    for alt, target in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        assert len(alt) > 10, f"{page}: {target} needs a text for screen readers"
        assert (page.parent / target).stat().st_size < 100_000, f"{page}: {target} is too large"
