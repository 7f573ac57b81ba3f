"""The symptoms show on less text; the figure survives a run that ended with an error."""

import math
from dataclasses import fields
from types import SimpleNamespace

import pytest

from p01_autograd.lab.sabotage import compare
from p03_bpe import break_it, build
from p03_bpe.bigram import bigram_loss
from p03_bpe.break_it import SABOTAGES


@pytest.fixture(autouse=True)
def less_text(monkeypatch):
    sizes = {"TRAIN": 5_000, "VALIDATION": 2_000, "CODE": 5_000, "VOCAB": 320}
    for name, size in sizes.items():
        monkeypatch.setattr(break_it, name, size)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_the_symptom_shows(sabotage):
    result = compare("p03_bpe", sabotage, break_it.experiment, [1337])
    assert result.there == 1, (result.healthy, result.broken)


def test_by_rank_is_what_encoding_should_give():
    tokenizer = build.RegexTokenizer(build.GPT4_PATTERN)
    tokenizer.train("the other there, then\n" * 3, 262)
    for text in ("the thing", "other\n\n  then"):
        assert break_it.by_rank(tokenizer, text) == tokenizer.encode(text)


def test_a_pair_seen_in_training_costs_less():
    seen, unseen = bigram_loss([1, 2] * 9, [1, 2, 1], 3), bigram_loss([1, 2], [2, 2], 3)
    assert 0 < seen < unseen


def test_a_bigram_model_by_hand():
    # 0 had one successor, and that was 1; alone 1 has (1 + 1) / (3 + 2), which weighs one more
    got = bigram_loss([0, 1, 0], [0, 1], 2, [1])
    assert abs(got + math.log((1 + 2 / 5) / 2)) < 1e-12


def test_the_figure_leaves_out_runs_that_ended_with_an_error():
    numbers = dict.fromkeys((field.name for field in fields(break_it.Numbers)), 0.5)
    healthy = [break_it.Numbers(**numbers)]
    drawing = break_it.figure(healthy, [SimpleNamespace(error="ValueError: x")])
    assert [len(ax.patches) for ax in drawing.axes] == [3, 5]
