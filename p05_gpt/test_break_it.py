"""The experiment is deterministic, its alarm recognises curves, its figure and commands work."""

import copy
import math
from functools import partial
from types import SimpleNamespace

import pytest

from p01_autograd.lab.sabotage import main, sabotaged
from p05_gpt import break_it, build
from p05_gpt.break_it import NOTHING, SABOTAGES, SMOOTH, alarm, experiment, figure

BY_NAME = {sabotage.name: sabotage for sabotage in SABOTAGES}
NO_HARM = {"no_ln_f"}  # predicted to look like the healthy run
VOCAB, BIGRAM = 65, 2.5
START = math.log(VOCAB)

short = partial(experiment, steps=4)


@pytest.fixture(scope="module", autouse=True)
def small_corpus():
    """A twentieth of the training text and a tenth of the validation text."""
    tokenizer, train_ids, val_ids, _ = break_it.corpus()
    train_ids, val_ids = train_ids[:50_000], val_ids[:2000]
    bigram = break_it.run.bigram_loss(train_ids, val_ids, len(tokenizer.vocab))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(break_it, "corpus", lambda: (tokenizer, train_ids, val_ids, bigram))
        patch.setattr(break_it, "WRITTEN", 20)
        yield


@pytest.fixture(scope="module")
def healthy():
    return short(build, seed=1)


def test_the_same_seed_gives_the_same_numbers(healthy):
    assert short(build, seed=1) == healthy
    assert short(build, seed=2).curve != healthy.curve


def test_the_numbers_are_those_of_a_fresh_model_on_characters(healthy):
    assert len(healthy.curve) == 4 and len(healthy.fast_curve) == 2
    assert healthy.first_loss == healthy.curve[0] == pytest.approx(START, rel=0.1)
    assert healthy.train_loss == pytest.approx(sum(healthy.curve) / 4)
    assert 2.4 < healthy.bigram < healthy.val_loss < START + 0.2
    assert healthy.sample


@pytest.mark.parametrize(
    "curve, said",
    [
        ([START] + [2.2] * 2 * SMOOTH, NOTHING),
        ([START] + [2.2] * SMOOTH + [math.nan], "NaN or infinite"),
        ([1.2 * START] + [2.2] * 2 * SMOOTH, "a wrong start"),
        ([START] + [0.5] * 2 * SMOOTH, "too good"),
        ([START] + [2.6] * 2 * SMOOTH, "stuck"),
        ([START] + [2.6] * SMOOTH + [2.2] * SMOOTH, NOTHING),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_alarm_recognises_a_curve(curve, said):
    assert alarm(curve, VOCAB, BIGRAM) == said


@pytest.mark.parametrize("name", ["zeroed_init", "targets_shifted_by_two", "no_small_init"])
def test_a_broken_module_trains_on_the_same_text_with_other_losses(name, healthy):
    sabotage = BY_NAME[name]
    broken = short(**{sabotage.module: sabotaged("p05_gpt", sabotage)}, seed=1)
    assert broken.bigram == healthy.bigram and broken.curve != healthy.curve


@pytest.mark.parametrize("name", BY_NAME)
def test_a_healthy_run_does_not_have_the_symptom(name, healthy):
    trained = copy.copy(healthy)
    trained.val_loss, trained.train_loss, trained.curve_shows = 2.2, 2.17, NOTHING
    trained.bigram = BIGRAM
    assert BY_NAME[name].symptom(trained, trained) == (name in NO_HARM)


def test_the_figure_shows_both_runs_even_if_one_failed(healthy, tmp_path):
    error = SimpleNamespace(error="ValueError: no")
    for broken in ([healthy, healthy], [error, error]):
        drawing = figure([healthy, healthy], broken)
        assert len(drawing.axes) == 2 and all(ax.get_xlabel() for ax in drawing.axes)
        drawing.savefig(tmp_path / "figure.png")


def test_the_command_lists_every_sabotage_and_shows_an_edit(capsys):
    arguments = "p05_gpt", SABOTAGES, experiment, figure, "val_loss"
    assert main(*arguments, argv=[]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in BY_NAME)
    assert main(*arguments, argv=["--diff", "no_mlp"]) == 0
    assert "-        x = x + self.mlp(self.ln_2(x))" in capsys.readouterr().out


def test_run_lengths_are_multiples_of_the_averaging_windows():
    assert break_it.STEPS % SMOOTH == 0 and break_it.STEPS // 2 % break_it.EVERY == 0
