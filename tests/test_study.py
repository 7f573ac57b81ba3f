"""The reader's loop: scripts/study.py."""

import importlib
import importlib.util
import os
import re
import select
import subprocess
import sys
import time
import types
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
    assert "other.data" in study.edits_of("p01_autograd", 2)["wrong_product_rule"]
    assert {"seed_of_zero", "assigned"} <= set(study.edits_of("p01_autograd", 3))
    assert study.edits_of("p01_autograd", 1) == {}
    for project in PROJECTS:
        source = (ROOT / project / "build.py").read_text(encoding="utf-8")
        edits = [study.edits_of(project, step.number) for step in steps.steps(source)]
        sabotages = importlib.import_module(f"{project}.break_it").SABOTAGES
        expected = {s.name for s in sabotages if s.module == "build"}
        assert {name for found in edits for name in found} == expected
        assert max(map(len, edits)) <= len(study.CHOICES)


def test_the_suggested_commands_exist():
    for project, (sabotage, _, part, _) in study.AFTERWARDS.items():
        sabotages = importlib.import_module(f"{project}.break_it").SABOTAGES
        assert sabotage in [s.name for s in sabotages]
        assert part in importlib.import_module(f"{project}.measure").PARTS


# Without a terminal


def test_without_a_terminal_it_checks_once():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/study.py"), "p03"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 1 and "step 1. get_stats" in done.stdout, done
    assert "not written yet: get_stats" in done.stdout and Path("my/p03_bpe.py").is_file()
    assert "\x1b" not in done.stdout and not done.stderr


def test_without_a_project_it_is_the_first_started_and_open_one():
    screen = study.Screen()
    assert study.where_was_i(screen) == ("p01_autograd", {})
    so_far("p03_bpe", 9)
    project, known = study.where_was_i(screen)
    assert project == "p04_attention" and known["p03_bpe"].passed
    so_far("p03_bpe", 2)
    project, known = study.where_was_i(screen)
    assert project == "p03_bpe" and known["p03_bpe"].first_open() == 3


def test_an_unknown_project_is_reported_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        study.main(["p09"])
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.err.count("\n") == 1 and not said.out


# The process that checks


def wait_for(runner, complete=False, seconds=60):
    end = time.monotonic() + seconds
    while (result := runner.result()) is None or (complete and not result.complete):
        assert time.monotonic() < end, "no result"
        time.sleep(0.02)
    return result


RIGHT = "counts[pair] = counts.get(pair, 0) + 1"


def test_a_runner_checks_what_the_file_is_now(monkeypatch):
    monkeypatch.setattr(study, "LIMIT", 1)
    runner, file = study.Runner("p03_bpe"), so_far("p03_bpe", 1)
    text = file.read_text(encoding="utf-8")
    assert text.count(RIGHT) == 1

    def verdict(text, step=1):
        file.write_text(text, encoding="utf-8")
        runner.start(file, step)
        return wait_for(runner)

    assert verdict(text).passes(1)  # and the rest of it is given up
    result = verdict(text.replace(RIGHT, RIGHT.replace("+ 1", "+ 2")))
    assert "got {(1, 2): 4" in result.first[1] and not result.complete
    result = wait_for(runner, complete=True)
    assert not result.passes(1) and result.first[2] == "not written yet: merge"
    assert "1 does not parse" in verdict("def f(:\n").error
    assert "has none of the names" in verdict("x = 1\n").error
    assert "without an answer" in verdict("import os\nos._exit(3)\n").error
    result = verdict(text.replace(RIGHT, f"while True: pass\n        {RIGHT}"))
    assert "did not finish within 1 s" in result.first[1] and not result.complete
    result = verdict(text, 3)  # all that is missing of step 3
    assert result.first[3].startswith("not written yet: BasicTokenizer")
    ready = runner.process.pid
    monkeypatch.setattr(runner, "others", [])  # a file that it may import was saved
    assert verdict(text).passes(1) and runner.process.pid != ready
    runner.stop()


def test_without_fork_a_process_is_started_ahead(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    runner = study.Runner("p03_bpe")
    assert runner.context.get_start_method() == "spawn"
    runner.start(so_far("p03_bpe", 2), 2)
    assert wait_for(runner).passes(2)
    runner.stop()


# The screen, from made-up results


class Made(study.Screen):
    """A screen that keeps the text it would print."""

    def __init__(self):
        super().__init__()
        self.shown = ""

    def show(self, lines):
        self.shown = "\n".join(map(self.formatted, lines))


class NoRunner:
    started = waited = 0.0
    asked = None

    def start(self, file, step):
        self.asked = step


@pytest.fixture
def walk():
    """A study of p03 with made-up results of the checks."""
    walk = study.Study("p03_bpe", Made())
    walk.runner = NoRunner()

    def find(passing, alone=None):
        """Send a result in which the steps in `passing` pass; of all steps, or of one alone."""
        counts = {n: (2 * (n in passing), 2) for n in range(1, 8)}
        first = {n: f"step {n} is wrong" for n in counts if n not in passing}
        walk.hear(study.Result(counts, first, complete=alone is None))
        return walk.screen.shown

    def save(passing):
        walk.saved(study.Watched.look(walk.file))
        find(passing, alone=walk.number)
        return find(passing)

    walk.find, walk.save = find, save
    return walk


def test_a_step_that_passes_leads_to_the_next_that_does_not(walk):
    assert "step 1. get_stats" in walk.find([]) and "step 1 is wrong" in walk.screen.shown
    walk.saved(study.Watched.look(walk.file))
    assert walk.runner.asked == 1
    assert "2 checks pass" in walk.find([1], alone=1) and "step 1." in walk.screen.shown
    shown = walk.find([1])
    assert "step 1 passes" in shown and "step 2. merge" in shown and "step 2 is wrong" in shown
    assert "can be broken now: runs_count_once (p, then b)" in shown
    assert "stubs of step 2" in shown and "def merge" in walk.file.read_text("utf-8")
    assert "step 4. Encoding" in walk.save([1, 2, 3])


def test_a_step_that_no_longer_passes_becomes_the_current_one(walk):
    walk.find([1, 2])
    shown = walk.save([2])
    assert "step 1 no longer passes" in shown and "step 1 is wrong" in shown
    assert "step 3. BasicTokenizer" in walk.save([1, 2])


def test_a_visited_step_stays_current_until_the_next_save(walk):
    walk.find([1])
    walk.pressed("n")
    assert "step 3. BasicTokenizer" in walk.screen.shown and walk.step.number == 3
    walk.find([1])
    assert walk.step.number == 3
    assert "step 2 is still open" in walk.save([1, 3]) and walk.step.number == 2
    walk.pressed("p")
    walk.pressed("p")
    assert walk.step.number == 1


def test_the_end_suggests_next_commands_and_an_edit_reopens_steps(walk):
    shown = walk.find(range(1, 8))
    assert "all 14 checks of p03_bpe pass" in shown
    assert (
        re.search(r"break_it no_split +\(about \d+ s\)", shown)
        and "study.py p04_attention" in shown
    )
    assert "all 14 checks" in walk.save(range(1, 8))
    assert "step 2 no longer passes" in walk.save([1, 3, 4, 5, 6, 7])


def test_hints_come_one_by_one_and_stay_until_the_step_passes(walk):
    walk.find([])
    first, second = study.hints_of("p03_bpe", 1)
    for count in (1, 2, 2):
        walk.pressed("h")
        words = " ".join(walk.screen.shown.split())
        assert (first in words, second in words) == (True, count == 2)
    walk.save([])
    assert "hint" not in walk.screen.shown.removesuffix("q end").rpartition("h hint")[0]
    walk.pressed("h")
    assert second in " ".join(walk.screen.shown.split())


def test_the_books_lines_are_asked_for_once(walk):
    walk.find([])
    for key in "sd":
        walk.pressed(key)
        assert RIGHT not in walk.screen.shown and "y shows" in walk.screen.shown
    walk.pressed("x")
    assert "y shows" not in walk.screen.shown
    walk.pressed("s")
    walk.pressed("y")
    assert RIGHT in walk.screen.shown
    walk.pressed("d")
    assert f"-        {RIGHT}" in walk.screen.shown
    walk.find([1])
    walk.pressed("p")
    walk.pressed("d")  # a step that passes
    assert "+++ my/p03_bpe.py" in walk.screen.shown


def test_all_checks_are_a_line_for_each_step(walk):
    walk.find([1, 2])
    walk.pressed("a")
    assert "  2 of  2  1. get_stats" in walk.screen.shown
    assert "  0 of  2  4. Encoding" in walk.screen.shown and "step 3 is wrong" in walk.screen.shown


def test_the_step_can_be_broken_on_the_spot(walk, monkeypatch):
    ran = []
    monkeypatch.setattr(study.subprocess, "run", lambda command, env: ran.append(command[1:]))
    walk.find([1, 2, 3, 4, 5])
    walk.pressed("b")
    assert "1 no_split: " in walk.screen.shown and "4 text_as_specials: " in walk.screen.shown
    walk.pressed("2")
    assert ran == [["-m", "p03_bpe.break_it", "space_thrown_away"]]
    shown = walk.screen.shown = "what it printed"
    walk.draw_again()
    assert walk.screen.shown == shown, "drawn over what the sabotage printed"
    walk.pressed("x")
    assert "step 6. RegexTokenizer" in walk.screen.shown


def test_an_error_is_a_line_and_the_step_stays(walk):
    walk.find([1])
    walk.saved(study.Watched.look(walk.file))
    walk.hear(study.Result(error="my/p03_bpe.py:7 does not parse"))
    assert "step 2. merge" in walk.screen.shown and "7 does not parse" in walk.screen.shown
    assert "step 2 is wrong" not in walk.screen.shown


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_no_line_is_wider_than_the_terminal(walk, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for key in " hhab":
        shown = walk.find([1, 2]) if key == " " else walk.pressed(key) or walk.screen.shown
        assert max(map(len, shown.splitlines())) < min(columns, 100)
    assert re.search(r"p03 \S+ step 3 of 7(  |\n)", shown)  # in one piece
    numbers = walk.screen.formatted(("    [" + ", ".join(["-0.1234"] * 40) + "]", "red"))
    assert len(numbers) < min(columns, 100) and numbers.endswith("-0.1234, ...")


@pytest.mark.parametrize(
    ("names", "blocks"),
    [
        ({"LANG": "en_US.UTF-8"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False),  # as Python sets it
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, False),
        ({"LC_CTYPE": "UTF-8"}, True),  # macOS
        ({}, False),
    ],
    ids=str,
)
def test_blocks_are_for_terminals_that_show_them(monkeypatch, names, blocks):
    for name in ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(encoding="utf-8"))
    assert study.shows_blocks() is blocks or os.name == "nt"


class Terminal:
    """A study session in a pseudo-terminal; POSIX only."""

    def __init__(self, *argv):
        import pty

        command = [sys.executable, str(ROOT / "scripts/study.py"), *argv]
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.environ.update(NO_COLOR="1", COLUMNS="60", PYTHONIOENCODING="utf-8")
            os.execv(command[0], command)
        self.text = ""

    def until(self, words, seconds=60):
        """Read until the words appear; returns the text so far and discards it."""
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

    def end_status(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_an_afternoon_in_a_terminal():
    terminal = Terminal("p03")
    terminal.until("not written yet: get_stats")
    file = Path("my/p03_bpe.py")
    beside = file.with_suffix(".new")
    beside.write_text(so_far("p03_bpe", 2).read_text("utf-8"), "utf-8")
    os.replace(beside, file)  # as editors that write beside and rename
    seen = terminal.until("not written yet: BasicTokenizer")
    assert "step 1 passes" in seen or "step 2 passes" in seen
    for line in re.sub(r"\x1b\[\w*", "", seen).splitlines():
        assert len(line) <= 60, line
    terminal.press("p")
    terminal.until("step 2. merge")
    terminal.press("h")
    terminal.until("hint 1 of 2")
    text = file.read_text("utf-8")
    file.write_text(text.replace(RIGHT, "nothing("), "utf-8")  # in place
    terminal.until("does not parse")
    terminal.press("q")
    assert terminal.end_status() == 0
    terminal = Terminal("p03")
    terminal.until("does not parse")
    terminal.press("\x03")
    assert terminal.end_status() == 130
