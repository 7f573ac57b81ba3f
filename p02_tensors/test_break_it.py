"""The digits, and what the sabotages of project 2 do to a network that reads them."""

import numpy as np
import pytest

from p01_autograd.lab.sabotage import compare
from p02_tensors import break_it
from p02_tensors.break_it import SABOTAGES
from p02_tensors.digits import digits


def test_digits_are_the_same_every_time_and_all_there():
    x, labels = digits(100, seed=1)
    again, same = digits(100, seed=1)
    assert np.array_equal(x, again) and np.array_equal(labels, same)
    assert x.shape == (100, 64) and x.dtype == np.float32 and labels.dtype == np.int64
    assert x.min() == 0 and x.max() == 1 and set(labels) == set(range(10))
    assert not np.array_equal(x, digits(100, seed=2)[0])


def test_digits_can_be_told_apart():
    """The nearest mean image is right far more often than a guess, and not always."""
    x, labels = digits(500, seed=1)
    means = np.stack([x[labels == digit].mean(0) for digit in range(10)])
    unseen, truth = digits(300, seed=2)
    distances = ((unseen[:, None] - means) ** 2).sum(-1)
    assert 0.5 < (distances.argmin(1) == truth).mean() < 0.95


@pytest.fixture(autouse=True)
def a_shorter_run(monkeypatch):
    for name, value in {"STEPS": 120, "TRAINING": 2048, "TEST": 256, "DIRECTIONS": 4}.items():
        monkeypatch.setattr(break_it, name, value)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=[sabotage.name for sabotage in SABOTAGES])
def test_the_symptom_shows_on_digits(sabotage):
    result = compare("p02_tensors", sabotage, break_it.experiment, [7])
    assert result.there == 1, (result.healthy, result.broken)


def test_the_healthy_network_learns_and_its_gradient_is_right():
    (healthy,) = compare("p02_tensors", SABOTAGES[0], break_it.experiment, [7]).healthy
    assert healthy.gradient_error < 1e-6 and healthy.accuracy > 0.9 and healthy.answers_to_one == 1


def test_the_figure_has_two_lines_for_each_run_that_came_to_an_end():
    from types import SimpleNamespace

    runs = [SimpleNamespace(losses=[2.0, 1.0], by_brightness=[1.0] * 5)] * 2
    drawing = break_it.figure(runs, [*runs, SimpleNamespace(error="RuntimeError")])
    assert [len(axes.lines) for axes in drawing.axes] == [4, 4]
