"""The reader's loop: scripts/study.py."""

import importlib.util
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p01_autograd.lab import steps

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = sorted(path.parent.name for path in ROOT.glob("p[0-9][0-9]_*/build.py"))


def load_study():
    sys.path.insert(0, str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("study", ROOT / "scripts/study.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["study"] = module
    spec.loader.exec_module(module)
    return module


study = load_study()


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def so_far(project, step):
    """The listing up to a step, written to my/."""
    file = Path("my") / f"{project}.py"
    file.parent.mkdir(exist_ok=True)
    source = (ROOT / project / "build.py").read_text(encoding="utf-8")
    file.write_text(steps.up_to(source, step), encoding="utf-8")
    return file


@pytest.mark.parametrize("project", PROJECTS)
def test_every_step_has_its_sentence_and_two_hints(project):
    source = (ROOT / project / "build.py").read_text(encoding="utf-8")
    for step in steps.steps(source):
        assert study.sentence_of(project, step.number), f"no row for --step {step.number}"
        hints = study.hints_of(project, step.number)
        assert len(hints) == 2, f"step {step.number} has {len(hints)} hints"
        for line in source.splitlines():
            code = line.strip()
            if len(code) > 25 and not code.startswith(("#", '"', "def ", "class ", "return self")):
                assert code not in " ".join(hints), f"a hint of step {step.number} is the line"


def test_a_sabotage_belongs_to_the_step_whose_line_it_edits():
    assert "wrong_product_rule" in study.sabotages_of("p01_autograd", 2)
    assert {"seed_of_zero", "assigned"} <= set(study.sabotages_of("p01_autograd", 3))
    assert study.sabotages_of("p01_autograd", 1) == []


def run_once(*argv):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts/study.py"), *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def test_without_a_terminal_it_checks_once():
    done = run_once("p01")
    assert done.returncode == 1 and "step 1. A number and its gradient" in done.stdout
    assert "not written yet: Value" in done.stdout and Path("my/p01_autograd.py").is_file()
    so_far("p01_autograd", 9)
    done = run_once()
    assert done.returncode == 1 and "my/p02_tensors.py, step 1" in done.stdout, done.stdout


def test_an_unknown_project_is_one_line():
    done = run_once("p09")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout


def wait_for(runner, seconds=60):
    end = time.monotonic() + seconds
    while (result := runner.result()) is None:
        assert time.monotonic() < end, "no result"
        time.sleep(0.02)
    return result


def test_a_runner_checks_what_the_file_is_now(monkeypatch):
    monkeypatch.setattr(study, "LIMIT", 1)
    runner, file = study.Runner("p01_autograd"), so_far("p01_autograd", 2)
    runner.start(file, 2)
    assert wait_for(runner).passed
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("self.data + other.data", "self.data - other.data"), "utf-8")
    runner.start(file, 2)  # one that is given up
    runner.start(file, 2)
    result = wait_for(runner)
    assert "Value(4.0) + Value(3.0) should be 7.0, but is 1.0" in result.first
    file.write_text("def f(:\n", "utf-8")
    runner.start(file, 2)
    assert "1 does not parse" in wait_for(runner).error
    file.write_text("import os\nos._exit(3)\n", "utf-8")
    runner.start(file, 2)
    assert "without an answer" in wait_for(runner).error or runner.result() is None
    line = "        return Value(self.data + other.data"
    assert text.count(line) == 1
    loop = text.replace(line, f"        while True: pass\n{line}")
    file.write_text(loop, "utf-8")
    runner.start(file, 2)
    assert "did not finish within 1 s" in wait_for(runner).first
    runner.stop()


class Terminal:
    """A study session on a terminal of its own; POSIX only."""

    def __init__(self, *argv):
        import pty

        command = [sys.executable, str(ROOT / "scripts/study.py"), *argv]
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.environ.update(NO_COLOR="1", COLUMNS="60", PYTHONIOENCODING="utf-8")
            os.execv(command[0], command)
        self.text = ""

    def until(self, words, seconds=60):
        """Read until the words are there; what came is thrown away up to them."""
        limit = time.monotonic() + seconds
        while words not in re.sub(r"\s+", " ", self.text):
            assert time.monotonic() < limit, f"{words!r} did not come:\n{self.text}"
            if select.select([self.end], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.end, 4096).decode(errors="replace")
                except OSError:
                    break
        seen, self.text = self.text, ""
        return seen

    def press(self, keys):
        os.write(self.end, keys.encode())


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_an_afternoon_in_a_terminal():
    terminal = Terminal("p01")
    terminal.until("not written yet: Value")
    file = Path("my/p01_autograd.py")
    beside = file.with_suffix(".new")
    beside.write_text(so_far("p01_autograd", 2).read_text("utf-8"), "utf-8")
    os.replace(beside, file)  # as editors that write beside and rename
    seen = terminal.until("q end")
    while "step 3" not in seen:
        seen += terminal.until("q end")
    assert "step 1 passes" in seen or "step 2 passes" in seen
    assert "not written yet: topological_order" in seen
    for line in re.sub(r"\x1b\[\w*", "", seen).splitlines():
        assert len(line) <= 60, line
    terminal.press("d")
    terminal.until("+++ my/p01_autograd.py")
    terminal.press("p")
    seen = terminal.until("q end")
    assert "step 2. Sums and products" in seen and "step 3." not in seen, "it went on by itself"
    terminal.press("b")
    terminal.until("1 wrong_product_rule")
    terminal.press("x")
    terminal.press("q")
    _, status = os.waitpid(terminal.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
