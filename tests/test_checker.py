"""The checker and the blank files, as a reader sees them."""

import ast
import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from p01_autograd.break_it import SABOTAGES
from p01_autograd.lab import hint, steps
from p01_autograd.lab.checker import is_check, step_of, variant
from p01_autograd.lab.loading import run_file
from p01_autograd.lab.sabotage import edited
from p01_autograd.lab.session import failures, in_session

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = sorted(path.parent.name for path in ROOT.glob("p[0-9][0-9]_*/build.py"))
ENGINE = (ROOT / "p01_autograd/build.py").read_text(encoding="utf-8")
QUICK = "not hundred_thousand and not recurse and not pytorch"  # without the slow checks


def listing(project):
    return (ROOT / project / "build.py").read_text(encoding="utf-8")


def load_blank():
    spec = importlib.util.spec_from_file_location("blank", ROOT / "scripts/blank.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


blank = load_blank()


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Run `pytest PROJECT --build FILE` in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def check(project, file, text=None, *more):
        if text is not None:
            Path(file).parent.mkdir(exist_ok=True)
            Path(file).write_text(text, encoding="utf-8")
            more += () if "-k" in more else ("-k", QUICK)
        capsys.readouterr()
        projects = [str(ROOT / name) for name in project.split()]
        status = pytest.main(["-p", "no:cacheprovider", *projects, "--build", file, *more])
        return int(status), *capsys.readouterr()

    return check


def engine(*edits):
    text = ENGINE
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


# All projects


def test_the_summary_of_a_file_that_is_right(check):
    status, out, err = check("p01_autograd", str(ROOT / "p01_autograd/build.py"), None, "-k", QUICK)
    assert status == 0 and not err, out[-3000:]
    assert "\n3. Backward " in out and " pass\n" in out
    passed, of, total, word = next(
        line for line in out.splitlines() if line.endswith("pass")
    ).split()
    assert passed == total and (of, word) == ("of", "pass") and f"{total} passed" in out


def test_checks_of_one_step(check, capsys):
    status, out, _ = check("p01_autograd", "my/x.py", ENGINE, "--step", "2")
    assert status == 0 and "2. Sums and products" in out and "Backward" not in out
    status, _, err = check("p01_autograd", "my/x.py", ENGINE, "--step", "9")
    assert status == 4 and "there is no step 9; there are 1, 2, 3, 4, 5" in err
    for given in (["--build", "my/x.py"], []):
        status = pytest.main(["-q", str(ROOT / "p01_autograd"), *given, "-k", "no_such_check"])
        assert status == pytest.ExitCode.NO_TESTS_COLLECTED
        says = "no check was selected; the chapter's steps are --step 1, --step 2"
        assert says in capsys.readouterr().out


@functools.cache
def failures_by_step(project):
    """{step: failures of its checks on the listing up to it, with stubs after it}."""

    def work(checker, items):
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            chapter = steps.steps(listing(project))
            for step in chapter:
                file = Path(folder, f"{project}_up_to_{step.number}.py")
                text = steps.up_to(listing(project), step.number)
                later = sum(len(other.names) for other in chapter if other.number > step.number)
                assert text.count(steps.STUB) == later
                file.write_text(text, encoding="utf-8")
                checks = [item for item in items if step_of(item) == step.number]
                assert checks, f"step {step.number} has no check"
                found[step.number] = failures(checker, run_file(file, project), checks)
        return found

    return in_session([ROOT / project / "test_build.py"], work)


@pytest.mark.parametrize(
    "project, step",
    [(project, step.number) for project in PROJECTS for step in steps.steps(listing(project))],
    ids=str,
)
def test_a_step_needs_nothing_of_a_later_one(project, step):
    """The listing up to a step, with stubs after it, passes the checks of that step."""
    found = failures_by_step(project)[step]
    assert not found, next(iter(found.values())).text


@pytest.mark.parametrize("project", PROJECTS)
def test_a_blank_file_parses_and_fails_every_check(project, tmp_path):
    text = blank.blank(listing(project), project)
    for node in ast.walk(ast.parse(text)):
        assert not (isinstance(node, ast.ImportFrom) and node.level), "a relative import in my/"
    file = tmp_path / f"{project}.py"
    file.write_text(text, encoding="utf-8")

    def work(checker, items):
        checks = [item for item in items if is_check(item)]
        found = failures(checker, run_file(file, project), checks)
        return {item.name: found[item].text if item in found else "passes" for item in checks}

    for check, text in in_session([ROOT / project / "test_build.py"], work).items():
        assert text.startswith("not written yet: "), f"{check}: {text}"


def test_the_summary_of_a_blank_file(check):
    status, out, _ = check("p01_autograd", "my/x.py", blank.blank(ENGINE, "p01_autograd"))
    assert status == 1 and "Traceback" not in out
    assert "\n0 of " in out and "; next: Value\n" in out, out[-1500:]
    assert "not written yet: " in out and " passed" not in out


# Runs that cannot start: one line, nonzero status


@pytest.mark.parametrize(
    "projects, file, text, says",
    [
        ("p01_autograd", "my/x.py", None, "there is no such file; python scripts/blank.py p01_aut"),
        ("p01_autograd", "no.such.module", None, "there is no such module"),
        ("p01_autograd", ".", None, "is a folder"),
        ("p01_autograd", "my/x.py", "def f(:\n", "my/x.py:1 does not parse"),
        ("p01_autograd", "my/x.py", "\nimport nunpy\n", "x.py:2: it imports nunpy, which is not"),
        ("p01_autograd", "my/x.py", "1 / 0\n", "my/x.py:1: ZeroDivisionError"),
        ("p01_autograd", "my/x.py", "exit()\n", "SystemExit"),
        ("p01_autograd", "my/x.py", "while True: pass\n", "importing it does not finish"),
        ("p01_autograd", "my/x.py", "x = 1\n", "has none of the names of p01_autograd: Value, top"),
        ("p01_autograd p03_bpe", "my/x.py", "x = 1\n", "needs one project, 2 selected"),
    ],
    ids="missing module folder syntax import error exit loop names two".split(),  # noqa: SIM905
)
def test_an_unusable_build_is_reported_in_one_line(check, projects, file, text, says):
    status, out, err = check(projects, file, text, "--limit", "1")
    assert status not in (0, 1) and not out.strip()
    assert err.strip().count("\n") == 0 and says in err, err


def test_a_notebook_is_read_as_its_code_cells(check):
    head, body = ENGINE.split("class Value:")
    cells = [
        {"cell_type": "markdown", "source": ["class Value is next"]},
        {"cell_type": "code", "source": ["%load_ext autoreload\n", "!pip list\n", head]},
        {"cell_type": "code", "source": f"class Value:{body}"},
    ]
    status, out, err = check("p01_autograd", "my/x.ipynb", json.dumps({"cells": cells}))
    assert status == 0, out + err
    status, _, err = check("p01_autograd", "my/y.ipynb", "{}")
    assert status == 4 and "y.ipynb is not a Jupyter notebook" in err


@pytest.mark.parametrize(
    "encoding, says",
    [("utf-16", "is in UTF-16, as PowerShell's > writes it"), ("latin-1", "is not in UTF-8")],
)
def test_a_file_in_another_encoding_is_reported(check, encoding, says):
    Path("x.py").write_text(f"{ENGINE}# caf\N{LATIN SMALL LETTER E WITH ACUTE}\n", encoding)
    status, out, err = check("p01_autograd", "x.py")
    assert status == 4 and not out and "x.py" in err and says in err and "save it as UTF-8" in err


# What a reader sees


def test_a_half_written_file(check):
    text = blank.blank(ENGINE, "p01_autograd")
    stub = "        raise NotImplementedError\n"
    text = text.replace(stub, "        self.data, self.grad = data, 0.0\n", 1)
    status, out, _ = check("p01_autograd", "my/p01_autograd.py", text)
    assert status == 1
    assert "checking my/p01_autograd.py (p01_autograd)" in out
    assert "1. A number and its gradient     1 of 1\n" in out
    assert "2. Sums and products             0 of 8   not written yet" in out
    assert "pass; next: Value.__add__" in out
    assert "Error" not in out, "a stub should not be reported as an error"


def test_a_missing_name_is_not_written_yet(check):
    text = ENGINE[: ENGINE.index("def topological_order")]
    text = text.replace("    def __neg__(self) -> Value: return self * -1\n", "").replace(
        "__add__", "added"
    )
    text = text.replace("__radd__, ", "plus, ")
    _, out, _ = check("p01_autograd", "my/p01_autograd.py", text)
    for name in ("topological_order", "Value.__add__", "Value.__neg__", "Value.__radd__"):
        assert name in out
    assert "TypeError" not in out


def test_a_missing_method_without_an_inherited_one_is_not_written_yet(check):
    text = listing("p03_bpe").replace("    def save(", "    def saved(")
    _, out, _ = check("p03_bpe", "my/p03_bpe.py", text, "-k", "save or load")
    assert "not written yet: BasicTokenizer.save, RegexTokenizer.save\n" in out
    assert "AttributeError" not in out


def test_an_assertion_of_the_reader_is_shown(check):
    text = engine(("        y = math.tanh(self.data)\n", "        assert self.data > 9\n"))
    _, out, _ = check("p01_autograd", "my/p01_autograd.py", text, "-k", "function_of_a_value")
    assert "    your own assert failed:\n    my/p01_autograd.py:" in out
    assert ", in Value.tanh\n        assert self.data > 9\n" in out


def test_one_cause_has_one_title(check):
    """A `train` without its early stop is reported once, not for each method that uses it."""
    stop = "            if not counts:\n                break\n"
    text = listing("p03_bpe")
    assert text.count(stop) == 1
    _, out, _ = check("p03_bpe", "my/p03_bpe.py", text.replace(stop, ""), "-k", QUICK)
    titles = [line for line in out.splitlines() if line.startswith("training ends when")]
    assert len(titles) == 1 and out.count("when no pair is left, training ends with those") == 1
    assert out.count("also wrong: ") <= 1 and "; next: BasicTokenizer\n" in out


NO_NEG, NO_EXP = ("def __neg__(", "def negative("), ("def exp(", "def export(")


@pytest.mark.parametrize(
    "edits, following",
    [
        ([("self.data + other.data,", "self.data + 1,")], "Value.__add__"),
        ([("self * other**-1", "self * other")], "Value.__truediv__"),
        ([NO_EXP, NO_NEG], "Value.__neg__"),
        ([NO_NEG, ("1 - y * y", "1 - y")], "Value.tanh"),
    ],
    ids=["wrong", "wrong, last operator", "missing", "missing and wrong"],
)
def test_next_is_the_first_that_is_wrong_or_else_missing(check, edits, following):
    _, out, _ = check("p01_autograd", "my/x.py", engine(*edits))
    assert f" pass; next: {following}\n" in out


def test_the_findings_come_before_the_hint(check):
    _, out, _ = check("p01_autograd", "my/p01_autograd.py", in_other_words("assigned"))
    lines = out.splitlines()
    says = "this is what assigned looks like: python -m p01_autograd.break_it assigned"
    assert says in lines
    assert " pass; next: " in lines[lines.index(says) - 1], (
        "the summary should come before the hint"
    )


def test_a_wrong_answer_is_reported_without_pytests_output(check):
    text = engine(("return self + -other", "return -self + other"))
    status, out, _ = check("p01_autograd", "my/p01_autograd.py", text)
    assert status == 1
    assert "an operator on two values [-]\n    Value(4.0) - Value(3.0) should be 1.0, but" in out
    assert "   Value.__sub__\n" in out and "; next: Value.__sub__" in out
    for internal in ("Traceback", "assert ", "test_build.py:", "conftest", "fixture"):
        assert internal not in out
    longest = max(len(part.splitlines()) for part in out.split("\n\n")[:-1])
    assert longest <= 24, f"a finding has {longest} lines, more than a screen"


def test_an_exception_is_reported_with_the_readers_own_line(check):
    text = engine(("math.tanh(self.data)", "math.tanhh(self.data)"))
    _, out, _ = check("p01_autograd", "my/p01_autograd.py", text)
    assert "AttributeError: module 'math' has no attribute 'tanhh'" in out
    assert ", in Value.tanh\n" in out and "math.tanhh(self.data)" in out
    assert out.count("no attribute 'tanhh'") == 1, "an error should be reported once"


def test_output_of_the_readers_code_is_shown_with_its_failure(check):
    text = engine(("return self * -1", "print('I am', self.data); return self * 1"))
    _, out, _ = check("p01_autograd", "my/p01_autograd.py", text)
    assert "your code printed:\n        I am 3.0" in out


def test_a_loop_that_never_ends_is_named(check):
    text = engine(("    while stack:\n", "    while True:\n        stack.append(root)\n"))
    text = text.replace("stack.append(root)", "continue")
    some = ("--limit", "0.1", "-k", "operator or topological_order and not recurse")
    status, out, _ = check("p01_autograd", "my/p01_autograd.py", text, *some)
    assert status == 1
    assert "topological_order did not finish within 0.1 s: is there a loop that never ends?" in out
    assert "not run: 3 checks of topological_order did not finish" in out
    assert "\n2. Sums and products             8 of 8\n" in out, "the other checks should run"


def test_recursion_without_end_is_named(check):
    text = engine(("return self + -other", "return self - other"))
    _, out, _ = check("p01_autograd", "my/p01_autograd.py", text)
    assert "Value.__sub__ calls itself too deeply (RecursionError)" in out


def test_a_file_may_import_its_neighbour_and_a_module_may_be_dotted(check):
    Path("mine").mkdir()
    Path("mine/pieces_of_mine.py").write_text("import math\n", encoding="utf-8")
    text = engine(("import math\n", "from pieces_of_mine import math\n"))
    status, out, _ = check("p01_autograd", "mine/engine.py", text)
    assert status == 0 and "checking mine/engine.py (p01_autograd)" in out
    status, out, _ = check("p01_autograd", "p01_autograd.build", None, "-k", "exp or log")
    assert status == 0 and "checking p01_autograd.build (p01_autograd)" in out


def in_other_words(name):
    """Our engine with a sabotage in it, in another formatting and with another name."""
    (sabotage,) = [sabotage for sabotage in SABOTAGES if sabotage.name == name]
    text = edited("p01_autograd", sabotage)[1]
    return ast.unparse(ast.parse(text)).replace("upstream", "from_above")


def test_the_hint_recognises_every_sabotage_in_another_formatting(tmp_path):
    names = [sabotage.name for sabotage in SABOTAGES if sabotage.module == "build"]

    def work(checker, items):
        checker.items = checks = [item for item in items if is_check(item)]
        said = {}
        for name in names:
            file = tmp_path / f"{name}.py"
            file.write_text(in_other_words(name), encoding="utf-8")
            found = failures(checker, run_file(file, "p01_autograd"), checks)
            checker.results = {item.nodeid: found.get(item) for item in checks}
            said[name] = hint.known_sabotage(checker, "p01_autograd", variant)
        return said

    said = in_session([ROOT / "p01_autograd/test_build.py"], work, "-k", QUICK)
    assert said == {name: name for name in names}


def test_there_is_no_hint_for_other_mistakes(check):
    text = engine(("1 - y * y", "1 - y"))
    status, out, _ = check("p01_autograd", "my/p01_autograd.py", text)
    assert status == 1 and "Value.tanh" in out and "this is what" not in out


# Typing straight into build.py


@pytest.fixture
def clone(tmp_path):
    """A copy of project 1 to type into; returns a function that runs a command there."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    here = shutil.copytree(ROOT / "p01_autograd", tmp_path / "p01_autograd")

    def run(text, *command):
        (here / "build.py").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, encoding="utf-8"
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_typing_into_build_py(clone):
    unfinished = blank.blank(ENGINE, "p01_autograd")
    status, out, _ = clone(unfinished, "pytest", "p01_autograd", "-k", QUICK)
    assert status == 1 and "\n0 of " in out and " pass; next: Value\n" in out
    (why,) = [line for line in out.splitlines() if "only test_build.py is run" in line]
    assert "git checkout p01_autograd/build.py" in why
    assert "Traceback" not in out and "Error" not in out

    in_other_words = ast.unparse(ast.parse(ENGINE)).replace("upstream", "from_above")
    status, out, _ = clone(in_other_words, "pytest", "p01_autograd", "-k", "exp or log")
    assert status == 0 and "only test_build.py is run" in out

    status, out, err = clone(in_other_words, "p01_autograd.break_it", "assigned")
    assert status == 2 and not out and err.count("\n") == 1
    assert "git checkout p01_autograd/build.py" in err

    status, out, err = clone("def f(:\n", "pytest", "p01_autograd")
    assert status not in (0, 1) and "p01_autograd/build.py:1 does not parse" in err
    assert err.strip().count("\n") == 0


# Blank files


def test_blank_keeps_what_is_not_to_be_typed():
    text = blank.blank(
        '"""Doc."""\n\nfrom .other import thing\n\nLIMIT = 3\n\n\n'
        "def f(x):\n    '''Says.\n    '''\n    return _help(x)\n\n\n"
        "def _help(x):\n    return x\n\n\nclass A:\n    size = 2\n\n"
        "    def g(self): return 1\n    def h(self): return 2\n\n"
        "    def _own(self):\n        pass\n",
        "p09_x",
    )
    assert text == (
        '"""Doc."""\n\nfrom p09_x.other import thing\n\nLIMIT = 3\n\n\n'
        "def f(x):\n    '''Says.\n    '''\n    raise NotImplementedError\n\n\n"
        "class A:\n    size = 2\n\n    def g(self):\n        raise NotImplementedError\n\n"
        "    def h(self):\n        raise NotImplementedError\n"
    )


def test_blank_never_overwrites(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert blank.main(["p04_attention/"]) == 0
    assert "p04_attention --build my/p04_attention.py" in capsys.readouterr().out
    Path("my/p04_attention.py").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        blank.main(["p04"])
    assert end.value.code == 2 and "is left alone" in capsys.readouterr().err
    assert Path("my/p04_attention.py").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("argv", [[], ["p07_moe"], ["p01", "--step", "9"]], ids=str)
def test_blank_says_what_there_is(argv, capsys):
    with pytest.raises(SystemExit) as end:
        blank.main(argv)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and not out and err.count("\n") == 1


def test_a_blank_file_grows_by_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, whole = Path("my/p01_autograd.py"), blank.blank(ENGINE, "p01_autograd")
    assert blank.main(["p01", "--step", "2"]) == 0
    first = file.read_text(encoding="utf-8")
    assert "# 2. Sums and products" in first and "# 3." not in first and "def tanh" not in first
    mine = first.replace("raise NotImplementedError", "pass  # mine")
    file.write_text(mine, encoding="utf-8")
    for step in "345":
        assert blank.main(["p01", "--step", step]) == 0
    grown = file.read_text(encoding="utf-8")
    assert grown.count("pass  # mine") == first.count("raise NotImplementedError")
    names = [name for name, _ in steps.definitions(ast.parse(whole))]
    assert sorted(name for name, _ in steps.definitions(ast.parse(grown))) == sorted(names)
    capsys.readouterr()
    assert blank.main(["p01", "--step", "5"]) == 0
    assert "has all of step 5" in capsys.readouterr().out
    assert file.read_text(encoding="utf-8") == grown


def test_helpers_that_no_check_asks_for_are_marked_as_optional():
    text = "def f(x):\n    return g(x)\n\n\ndef g(x):\n    return x\n"
    assert blank.blank(text, "p09_x", {"g"}).count(blank.OPTIONAL + "\ndef g(x)") == 1
