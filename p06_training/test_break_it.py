"""The experiment is deterministic, and its damage affects one batch only."""

import functools
import math

import pytest
import torch

from p01_autograd.lab.sabotage import sabotaged
from p06_training import break_it, build
from p06_training.break_it import SABOTAGES, experiment


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A small model and few steps, which test the experiment and not its verdicts."""
    few = {"steps": 18, "warmup_steps": 4, "eval_every": 6, "batch_size": 4, "block_size": 8}
    train_ids, val_ids, vocab = break_it.corpus()
    monkeypatch.setattr(break_it, "RECIPE", break_it.RECIPE | few)
    monkeypatch.setattr(break_it, "SIZE", {"n_embd": 16, "n_head": 2, "n_layer": 1})
    monkeypatch.setattr(break_it, "corpus", lambda: (train_ids[:2000], val_ids[:100], vocab))
    monkeypatch.setattr(break_it, "SMOOTH", 3)
    monkeypatch.setattr(break_it, "RESUMED", 6)
    monkeypatch.setattr(break_it, "DAMAGED", 12)


def module(name):
    return sabotaged("p06_training", next(s for s in SABOTAGES if s.name == name))


@functools.cache
def healthy():
    """The shipped module's run, once."""
    return experiment(build)


def test_the_seed_determines_the_numbers():
    assert experiment(build) == healthy()
    assert experiment(build, seed=1).val_loss != healthy().val_loss


def test_resuming_from_an_intact_checkpoint_changes_nothing(monkeypatch):
    numbers = healthy()
    monkeypatch.setattr(break_it, "resumed", lambda build, trainer: trainer)
    assert experiment(build) == numbers


def test_the_damage_is_one_batch_with_a_large_gradient():
    trainer = break_it.new_trainer(build, 1)
    kept, norms = trainer.train_ids, []
    for _ in range(2):
        with break_it.damaged(trainer):
            norms.append(trainer.step()["grad_norm"])
        norms.append(trainer.step()["grad_norm"])
    assert trainer.train_ids is kept
    assert min(norms[::2]) > 10 * max(norms[1::2]), norms


def test_the_update_is_measured_against_the_weights():
    trainer = break_it.new_trainer(build, 1)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters())
    trainer.recipe.clip = math.inf
    size = math.sqrt(sum(p.detach().square().sum().item() for p in trainer.model.parameters()))
    row = break_it.measured_step(trainer)
    assert row["update"] == pytest.approx(row["lr"] * row["grad_norm"] / size, rel=1e-3)


@pytest.mark.parametrize("name", [sabotage.name for sabotage in SABOTAGES])
def test_a_sabotage_changes_the_run_from_where_its_line_matters(name):
    whole, broken = (
        [row["train_loss"] for row in run.rows] for run in (healthy(), experiment(module(name)))
    )
    apart = next((i for i in range(len(whole)) if whole[i] != broken[i]), None)
    first = {
        "no_warmup": 1,  # the first update is a larger one
        "constant_rate": 6,  # the cosine leaves max_lr after the first step on it
        "weights_alone_resumed": break_it.RESUMED,
        "batches_from_the_start": break_it.RESUMED,
        "no_zero_grad": 2,  # a second gradient on top of the first
        "leak": 0,
        "validated_on_training_text": None,  # the training is the same
        "written_in_place": None,
    }
    if name not in first:
        assert apart is not None
    assert apart == first.get(name, apart)
    if name == "no_clipping":
        assert apart <= break_it.DAMAGED + 1


def test_a_healthy_run_has_no_symptom():
    numbers = healthy()
    assert not [s.name for s in SABOTAGES if s.symptom(numbers, numbers)]


def test_the_figure_shows_four_curves_of_each_seed():
    runs = [healthy(), healthy()]
    axes = break_it.figure(runs, runs).axes
    assert [ax.get_title().split(" (")[0] for ax in axes] == [
        "loss", "gradient norm", "update / weights", "learning rate",
    ]  # fmt: skip
    assert len(axes[3].lines) == 4 + 2, "two seeds healthy, two broken, and the two events"


def test_a_run_that_ended_with_an_error_is_left_out_of_the_figure():
    runs = [healthy()]
    assert len(break_it.figure(runs, [object()]).axes[3].lines) == 1 + 2
