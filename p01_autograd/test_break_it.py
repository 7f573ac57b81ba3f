"""The mechanism of sabotage and its command line, on project 1's own sabotages."""

import inspect
import io
import linecache
import re
import sys
import traceback
from types import SimpleNamespace

import pytest

from p01_autograd import Value, break_it
from p01_autograd.break_it import SABOTAGES
from p01_autograd.lab import sabotage
from p01_autograd.lab.sabotage import Comparison, Sabotage, cell, change, compare, diff, sabotaged

BY_NAME = {sabotage.name: sabotage for sabotage in SABOTAGES}


def cut(**changes):
    given = dict(
        name="cut",
        old="upstream[self] = 1.0",
        new="upstream[self] = 2.0",
        predict="Every gradient is twice as large.",
        symptom=lambda healthy, broken: broken.slope == 2 * healthy.slope,
        caught_by="test_backward_starts_from_one",
    )
    return Sabotage(**(given | changes))


def slope(build, seed):
    a = build.Value(3.0)
    (a * seed).backward()
    return SimpleNamespace(slope=a.grad, curve=[1, 2])


def figure(healthy, broken):
    return break_it.subplots()[0]


def main(*argv, sabotages=None, experiment=slope):
    sabotages = sabotages or [cut(), cut(name="other", new="upstream[self] = 3.0")]
    return sabotage.main("p01_autograd", sabotages, experiment, figure, "slope", list(argv))


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# sabotaged


def test_the_module_is_a_fresh_drop_in():
    module = sabotaged("p01_autograd", cut())
    a = module.Value(1.0)
    a.backward()
    assert a.grad == 2.0 and module.Value is not Value
    assert sabotaged("p01_autograd", cut()).Value is not module.Value
    b = Value(1.0)
    b.backward()
    assert b.grad == 1.0, "the shipped module has changed"


def test_the_source_and_the_traceback_show_the_edit():
    module = sabotaged("p01_autograd", cut(new="upstream[self] = 1 / 0"))
    assert "1 / 0" in inspect.getsource(module.Value.backward)
    assert "1 / 0" in inspect.getsource(module)
    linecache.checkcache()
    try:
        module.Value(1.0).backward()
    except ZeroDivisionError:
        assert "upstream[self] = 1 / 0" in traceback.format_exc()


def test_an_edit_can_build_on_another():
    first = sabotaged("p01_autograd", cut())
    line = "from p01_autograd.build import Value"
    second = cut(name="on_cut", old=line, new=line.replace("p01_autograd.build", first.__name__))
    nn = sabotaged("p01_autograd", Sabotage(**(vars(second) | {"module": "nn"})))
    assert nn.Value is first.Value


@pytest.mark.parametrize("old, times", [("no such text", 0), ("self.data", 30)], ids=["0", "many"])
def test_text_that_does_not_stand_there_once_is_an_error(old, times):
    with pytest.raises(ValueError, match=r"p01_autograd/build\.py .* cut .* not once"):
        sabotaged("p01_autograd", cut(old=old))


def test_the_diff_is_a_unified_diff():
    lines = diff("p01_autograd", cut()).splitlines()
    assert lines[0] == "--- p01_autograd/build.py"
    assert "-        upstream[self] = 1.0" in lines and "+        upstream[self] = 2.0" in lines


def test_the_change_in_one_line():
    assert change(cut(old="a = b / c", new="a = b")) == "b / c -> b"
    assert change(cut(old="p.grad = 0", new="")) == "p.grad = 0 -> (nothing)"


# compare


def test_healthy_and_broken_run_with_the_same_seeds():
    seen = []

    def experiment(build, seed):
        seen.append(seed)
        return slope(build, seed)

    result = compare("p01_autograd", cut(), experiment, [5, 6])
    assert sorted(seen) == [5, 5, 6, 6]
    assert [run.slope for run in result.healthy] == [5, 6]
    assert [run.slope for run in result.broken] == [10, 12]
    assert result.there == 2 and result.verdict == "as predicted (2 of 2 seeds)"
    compare("p01_autograd", cut(), experiment, [5])
    assert seen.count(5) == 3, "the healthy run of a seed is made once"


def test_the_verdict_comes_from_the_numbers():
    numbers = [SimpleNamespace(loss=1.0), SimpleNamespace(loss=3.0)]
    never = cut(symptom=lambda healthy, broken: broken.loss > 5)
    some = cut(symptom=lambda healthy, broken: broken.loss > 2)
    gone = cut(symptom=lambda healthy, broken: broken.missing > 2)
    assert Comparison(never, numbers, numbers, 0).verdict == "not as predicted (2 of 2 seeds)"
    assert Comparison(some, numbers, numbers, 0).verdict == "mixed (1 of 2 seeds)"
    assert Comparison(gone, numbers, numbers, 0).verdict == "not as predicted (2 of 2 seeds)"


def test_an_exception_is_a_symptom():
    boom = cut(new="raise OverflowError('too far')", symptom=lambda h, b: hasattr(b, "error"))
    result = compare("p01_autograd", boom, slope, [1])
    assert result.broken[0].error == "OverflowError: too far" and result.there == 1


def test_cells():
    assert cell([1.23456]) == "1.235" and cell([12345]) == "12,345" and cell([True]) == "yes"
    assert cell([1.0, 2.0, 3.0]) == "2 ±1" and cell([float("nan"), 1.0]) == "nan 1"
    assert cell([True, False]) == "1 of 2" and cell(["word", "other"]) == "word"


# The command line


def test_without_a_name_it_lists(capsys):
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cut    = 1.0 -> = 2.0" and lines[1].startswith("other")


def test_one_name(capsys):
    assert main("cut", "--seed", "4") == 0
    out = capsys.readouterr().out
    for part in ("+        upstream[self] = 2.0", "prediction: Every", "slope        4       8"):
        assert part in out
    assert "verdict: as predicted (1 of 1 seeds)" in out
    path = re.search(r"figure: (\S+)", out)[1]
    assert path == "runs/p01_autograd/break_it/cut.png"
    with open(path, "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_all_sorts_by_damage(capsys):
    assert main("--all", "--seeds", "2", "--seed", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["healthy", "other", "cut"]
    assert "not as predicted (2 of 2 seeds)" in lines[2] and "1.5 ±0.5" in lines[1]


def test_diff_runs_nothing(capsys):
    def never(build, seed):
        raise AssertionError

    assert main("--diff", "cut", experiment=never) == 0
    assert capsys.readouterr().out.startswith("--- p01_autograd/build.py")


@pytest.mark.parametrize(
    "argv, says",
    [
        (["nothing"], "there is no sabotage nothing; there are cut, other"),
        (["--diff", "nothing"], "there is no sabotage nothing"),
        (["--seeds", "0"], "use 1 or more"),
        (["--all", "--quiz"], "not allowed with"),
    ],
    ids=["name", "diff", "seeds", "two"],
)
def test_mistakes_end_with_one_line(argv, says, capsys):
    with pytest.raises(SystemExit) as end:
        main(*argv)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and err.count("\n") == 1 and says in err and not out


def test_a_build_that_is_the_readers_own_is_left_alone(capsys):
    with pytest.raises(SystemExit) as end:
        main("cut", sabotages=[cut(old="what the book says")])
    assert end.value.code == 2
    assert "git checkout p01_autograd/build.py" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file in the folder's place", encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        main("cut")
    out, err = capsys.readouterr()
    assert end.value.code == 2 and "nothing can be written to" in err and not out


@pytest.mark.parametrize("argv", [["cut", "--diff"], ["--diff", "cut"]], ids=" ".join)
def test_the_edit_alone(argv, capsys):
    assert main(*argv) == 0
    out = capsys.readouterr().out
    assert "+        upstream[self] = 2.0" in out and "verdict" not in out


def play(monkeypatch, capsys, answers, *argv):
    monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
    assert main("--quiz", *argv) == 0
    return capsys.readouterr().out


def test_the_quiz_keeps_score(monkeypatch, capsys):
    out = play(monkeypatch, capsys, "1\n\n1\n", "--seed", "0")
    wrong = re.search(r"No, it was (\w+)\. Beside it, what (\w+) looks like:\n\n.*\nslope", out)
    assert wrong and wrong[1] != wrong[2] and out.count("Enter: the next question.") == 1
    assert "You named 1 of 2." in out and out.count("Yes.") == 1 and out.count("No, it was") == 1
    out = play(monkeypatch, capsys, "what\ncut\nq\n", "--seed", "0")
    assert "'what' is none of them" in out and "You named" in out


def test_the_quiz_does_not_tell(monkeypatch, capsys):
    out = play(monkeypatch, capsys, "", "--seed", "0")
    question = out[out.index("question 1") : out.index("Which one (")]
    symptoms, options = question[: question.index("  1  cut:")], question
    assert "slope" in symptoms and "runs/p01_autograd/break_it/quiz.png" in symptoms
    assert "cut" not in symptoms and "other" not in symptoms
    assert "other:" in options and "You named 0 of 0." in out


# Project 1's own, on fewer points and with fewer neurons than the command trains


@pytest.mark.parametrize("name", BY_NAME)
def test_the_symptom_shows_on_two_moons(name, monkeypatch):
    monkeypatch.setattr(break_it, "POINTS", 20)
    monkeypatch.setattr(break_it, "HIDDEN", (6, 6))
    steps = 30 if name == "no_zero_grad" else 15  # falls first, then runs away
    monkeypatch.setattr(break_it, "STEPS", steps)
    result = compare("p01_autograd", BY_NAME[name], break_it.experiment, [1337])
    assert result.there == 1, (result.healthy, result.broken)


def test_the_figure_has_a_line_for_each_run():
    runs = [SimpleNamespace(losses=[2.0, 1.0])] * 2
    drawing = break_it.figure(runs, [*runs, SimpleNamespace(error="ValueError")])
    assert len(drawing.axes[0].lines) == 4
