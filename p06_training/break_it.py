"""Delete a line of the training loop and see what it was for: python -m p06_training.break_it

The sabotages concern the schedule, clipping, checkpoints, zeroing the gradients, and keeping the
validation part out of training. The experiment is one small run of the Trainer at a high learning
rate that is saved and resumed, and later reads a damaged batch. About five seconds a run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch

from p01_autograd.lab.sabotage import Sabotage, main
from p05_gpt import run
from p05_gpt.build import GPT, evaluate
from p05_gpt.init import init_weights

TRAINING, VALIDATION = 8_000, 800  # characters: few, so that leaked text is memorised
RESUMED, DAMAGED = 100, 180  # steps done before the restart and before the damaged batch
WEIGHT = 100.0  # factor on the gradient of the damaged batch
SMOOTH = 20  # steps averaged into one mean of the training loss
SIZE = {"n_embd": 64, "n_head": 4, "n_layer": 2}
RECIPE = {
    "steps": 300,
    "batch_size": 12,
    "block_size": 32,
    "accumulate": 1,
    "max_lr": 7e-2,  # high: it trains well after a warmup, and not without one
    "min_lr": 7e-4,
    "warmup_steps": 40,
    "clip": 1.0,
    "eval_every": 20,
}


@dataclass
class Numbers:
    """What is measured in one run; losses in nats per character."""

    val_loss: float
    train_loss: float  # mean of the last SMOOTH steps
    loss_after_warmup: float  # mean of the SMOOTH steps after it
    rise_at_restart: float  # mean of the SMOOTH steps after it, minus that of those before
    rise_after_damage: float  # the same, without the damaged batch itself
    last_grad_norm: float  # mean of the last SMOOTH steps
    largest_update: float  # largest update-to-weight ratio of the run
    update_at_restart: float  # update-to-weight ratio of the first step after it
    update_at_damage: float  # update-to-weight ratio of the step with the damaged batch
    norm_at_damage: float  # gradient norm of that step, before clipping
    outlives_a_cut: bool  # whether a checkpoint can be loaded after a save was interrupted
    rows: list[dict]  # as in metrics.jsonl, with "update", the update-to-weight ratio


@cache
def corpus():
    """The training ids, the validation ids and the vocabulary size of a stretch of Shakespeare."""
    text = run.read_text(None)[: TRAINING + VALIDATION]
    tokenizer = run.train_tokenizer("char", text, 0)
    ids = run.encode(tokenizer, text)
    return ids[:TRAINING], ids[TRAINING:], len(tokenizer.vocab)


def new_trainer(build, seed: int):
    """The module's Trainer on a small GPT, with AdamW in PyTorch's default settings."""
    train_ids, val_ids, vocab = corpus()
    recipe = SimpleNamespace(**RECIPE, seed=seed)
    torch.manual_seed(recipe.seed)
    model = GPT(vocab, **SIZE, block_size=recipe.block_size)
    init_weights(model)  # as the training command does
    return build.Trainer(model, torch.optim.AdamW(model.parameters()), train_ids, val_ids, recipe)


def experiment(build, seed: int = 1337) -> Numbers:
    """One run with the module's schedule, clipping, checkpoints and Trainer."""
    trainer, rows = new_trainer(build, seed), []
    while trainer.steps_done < trainer.recipe.steps:
        if trainer.steps_done == RESUMED:
            trainer = resumed(build, trainer)
        rows.append(measured_step(trainer))
    losses = [row["train_loss"] for row in rows]
    warm = RECIPE["warmup_steps"]
    return Numbers(
        val_loss=rows[-1]["val_loss"],
        train_loss=mean(losses[-SMOOTH:]),
        loss_after_warmup=mean(losses[warm : warm + SMOOTH]),
        rise_at_restart=rise(losses, RESUMED),
        rise_after_damage=rise(losses, DAMAGED + 1),
        last_grad_norm=mean([row["grad_norm"] for row in rows[-SMOOTH:]]),
        largest_update=max(row["update"] for row in rows),
        update_at_restart=rows[RESUMED]["update"],
        update_at_damage=rows[DAMAGED]["update"],
        norm_at_damage=rows[DAMAGED]["grad_norm"],
        outlives_a_cut=outlives_a_cut(build, trainer.state()),
        rows=rows,
    )


def resumed(build, trainer):
    """A new Trainer, as in a new process, resumed from a checkpoint of the old one."""
    with tempfile.TemporaryDirectory() as folder:
        build.save_checkpoint(Path(folder, "step.pt"), trainer.state())
        again = new_trainer(build, trainer.recipe.seed)
        again.load_state(build.load_checkpoint(Path(folder, "step.pt")))
    return again


def outlives_a_cut(build, state: dict) -> bool:
    """Whether a checkpoint can be loaded after a crash with half of the next one written."""

    def dies(file):
        os.ftruncate(file, os.fstat(file).st_size // 2)
        raise OSError("the machine died")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "step.pt")
        build.save_checkpoint(path, state)
        with suppress(OSError), patch.object(os, "fsync", dies):
            build.save_checkpoint(path, state)
        try:
            return bool(build.load_checkpoint(path))
        except (OSError, ValueError):
            return False


def measured_step(trainer) -> dict:
    """A step's row with its update-to-weight ratio, every eval_every steps with val_loss."""
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with damaged(trainer) if trainer.steps_done == DAMAGED else nullcontext():
        row = trainer.step()
    if trainer.steps_done % trainer.recipe.eval_every == 0:
        row["val_loss"] = evaluate(trainer.model, trainer.val_ids, trainer.recipe.block_size)
    after = trainer.model.parameters()
    moved = sum((a - b).square().sum().item() for a, b in zip(after, before, strict=True))
    return row | {"update": (moved / sum(b.square().sum().item() for b in before)) ** 0.5}


@contextmanager
def damaged(trainer):
    """Damage the batches inside: token 0 everywhere, and gradients multiplied by WEIGHT."""
    kept = trainer.train_ids
    trainer.train_ids = torch.zeros_like(kept)

    def weigh(model, read, logits):
        logits.register_hook(lambda grad: WEIGHT * grad)

    hook = trainer.model.register_forward_hook(weigh)
    try:
        yield
    finally:
        hook.remove()
        trainer.train_ids = kept


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def rise(losses: list[float], step: int) -> float:
    """Mean loss of the SMOOTH steps from `step` on, minus that of the SMOOTH before step - 1."""
    return mean(losses[step : step + SMOOTH]) - mean(losses[step - 1 - SMOOTH : step - 1])


def figure(healthy: list[Numbers], broken: list[Numbers]):
    """Plot loss, gradient norm, update-to-weight ratio and learning rate by step."""
    from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

    fig, axes = subplots(2, 2, width=9.0, height=6.0)
    panels = (
        ("train_loss", "loss (nats/char), dots: validation"),
        ("grad_norm", "gradient norm"),
        ("update", "update / weights"),
        ("lr", "learning rate"),
    )
    for ax, (name, title) in zip(axes.flat, panels, strict=True):
        for runs, color, side in ((healthy, HEALTHY, "healthy"), (broken, BROKEN, "broken")):
            found = [numbers.rows for numbers in runs if hasattr(numbers, "rows")]
            for i, rows in enumerate(found):
                label = side if i == 0 else None
                steps, values = [row["step"] for row in rows], [row[name] for row in rows]
                ax.plot(steps, values, color=color, lw=1, alpha=0.7, label=label)
                if name == "train_loss":
                    seen = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
                    ax.plot(*zip(*seen, strict=True), ".", color=color, ms=5)
        for step, what in ((RESUMED, "resumed"), (DAMAGED, "damaged")):
            ax.axvline(step, color=REFERENCE, ls=":", lw=1, zorder=0)
            if name == "train_loss":
                ax.annotate(what, (step, 5.5), (3, 0), textcoords="offset points", size=9)
        ax.set_title(title, size=12)
        ax.set(xlabel="step")
        if name in ("grad_norm", "update"):
            ax.set(yscale="log")
    axes[0, 0].set_ylim(1.5, 6)
    axes[1, 1].legend()
    return fig


SABOTAGES = [
    Sabotage(
        name="no_warmup",
        old="return max_lr * (step + 1) / warmup_steps",
        new="return max_lr",
        predict="AdamW's first steps move every weight by the whole rate, whatever its gradient: "
        "the largest update of the run is its first, and the loss never makes up for it.",
        symptom=lambda healthy, broken: (
            broken.rows[0]["update"] == broken.largest_update
            and broken.val_loss > healthy.val_loss + 0.05
        ),
        caught_by="test_lr_at_the_first_step_already_learns",
        looks_like=("bad beginning",),
        shows=("largest_update", "val_loss"),
        fault="suboptimal learning rate",
        tell="The largest update of the whole run is the first, and the rate of step 1 is the "
        "highest. Without bias correction Adam's first step is longer than its rate.",
        named_by="doctor: no warmup",
    ),
    Sabotage(
        name="constant_rate",
        old="return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))",
        new="return max_lr",
        predict="The same curve as with the cosine at first; then it stays where the steps are too "
        "long to settle, while the other one sinks.",
        symptom=lambda healthy, broken: (
            abs(broken.loss_after_warmup - healthy.loss_after_warmup) < 0.02
            and broken.val_loss > healthy.val_loss + 0.05
        ),
        caught_by="test_lr_at_half_way_down_is_half_way_between",
        looks_like=("stops higher",),
        shows=("loss_after_warmup", "val_loss"),
        fault="suboptimal learning rate",
        tell="The curve is that of a healthy run until after the warmup, and the rate at the end "
        "is still the highest.",
        named_by="doctor: plateau from the start",
    ),
    Sabotage(
        name="no_clipping",
        old="            grad.mul_(max_norm / norm)\n",
        new="            pass\n",
        predict="The same until the damaged batch. It ruins the weights, and AdamW's second moment "
        "remembers it for a thousand steps: every later update is too small to repair it.",
        symptom=lambda healthy, broken: (
            broken.rise_after_damage > 0.3
            and broken.rows[-1]["update"] < healthy.rows[-1]["update"]
            and broken.val_loss > healthy.val_loss + 0.05
        ),
        caught_by="test_clip_grad_norm_scales_all_gradients_by_one_factor",
        looks_like=("lost after a step",),
        shows=("rise_after_damage", "val_loss"),
        fault="suboptimal tuning of hyperparameters",
        tell="A single step with a gradient norm many times the usual one; afterwards updates "
        "are smaller than before. With a rate that is too high, updates stay large.",
    ),
    Sabotage(
        name="weights_alone_resumed",
        old="""\
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["batches"])
""",
        new="",
        predict="A jump of the loss at the restart: AdamW's moments start from zero, as in a run "
        "without a warmup. And the batches begin again with the first.",
        symptom=lambda healthy, broken: (
            broken.rise_at_restart > healthy.rise_at_restart + 0.1
            and broken.update_at_restart > 3 * healthy.update_at_restart
        ),
        caught_by="test_Trainer_goes_on_exactly_where_its_state_was_taken",
        looks_like=("restart",),
        shows=("rise_at_restart", "val_loss"),
        fault="missing API call",
        tell="The first loss after the restart is still right; the updates after it are several "
        "times too long. At a low rate it leaves no mark.",
    ),
    Sabotage(
        name="batches_from_the_start",
        old="""        self.generator.set_state(state["batches"])
""",
        new="",
        predict="The resumed run reads the batches of the first part again. No curve shows it: "
        "the loss at the restart is what it would have been, give or take a batch.",
        symptom=lambda healthy, broken: (
            broken.rows[RESUMED]["train_loss"] != healthy.rows[RESUMED]["train_loss"]
            and abs(broken.rise_at_restart - healthy.rise_at_restart) < 0.1
            and abs(broken.val_loss - healthy.val_loss) < 0.1
        ),
        caught_by="test_Trainer_goes_on_exactly_where_its_state_was_taken",
        looks_like=("nothing",),
        shows=("rise_at_restart", "val_loss"),
        fault="wrongly implemented data batching",
        tell="The loss of the first step after the restart is, to the last digit, that of no "
        "later step of an uninterrupted run: compare exactly.",
    ),
    Sabotage(
        name="no_zero_grad",
        old="        self.optimizer.zero_grad()\n",
        new="",
        predict="Every step follows the sum of all gradients so far. Clipping and AdamW hide its "
        "size, so the loss still falls, but slowly; the norm stays high and gives it away.",
        symptom=lambda healthy, broken: (
            broken.last_grad_norm > 2 * healthy.last_grad_norm
            and broken.val_loss > healthy.val_loss + 0.2
        ),
        caught_by="test_Trainer_forgets_the_gradients_of_the_step_before",
        looks_like=("norm", "stops higher"),
        shows=("last_grad_norm", "val_loss"),
        fault="missing API call",
        tell="The norm grows in the first steps, and clipping then hides it from the weights. A "
        "rate that is too high makes the loss noisy, not the norm large.",
        named_by="doctor: gradients accumulating",
    ),
    Sabotage(
        name="leak",
        old="self.train_ids = train_ids",
        new="self.train_ids = torch.cat([train_ids, val_ids])",
        predict="The validation loss is better than it can be: as low as the training loss, where "
        "that of a sound run of this length lies above it.",
        symptom=lambda healthy, broken: (
            broken.val_loss < healthy.val_loss - 0.02
            and broken.val_loss - broken.train_loss < 0.6 * (healthy.val_loss - healthy.train_loss)
        ),
        caught_by="test_Trainer_never_trains_on_the_validation_part",
        looks_like=("validation below",),
        shows=("train_loss", "val_loss"),
        fault="incorrect split into training and validation data",
        tell="The training loss is that of a slightly larger text; search the training part for "
        "lines of the validation part. With `validated_on_training_text` the training losses are "
        "the same to the last digit.",
    ),
    Sabotage(
        name="validated_on_training_text",
        old="self.val_ids = val_ids",
        new="self.val_ids = train_ids",
        predict="No text is held back: the validation loss is that of the training text, below a "
        "true one, and cannot show memorisation. Training is the same.",
        symptom=lambda healthy, broken: (
            broken.train_loss == healthy.train_loss and broken.val_loss < healthy.val_loss - 0.05
        ),
        caught_by="test_Trainer_run_validates_every_eval_every_steps_and_at_the_end",
        looks_like=("validation below",),
        shows=("train_loss", "val_loss"),
        fault="missing validation set",
        tell="The training losses are those of a sound run to the last digit: only the text that "
        "is evaluated differs. Compare the number of tokens evaluated.",
    ),
    Sabotage(
        name="written_in_place",
        old='partial = path.with_name(f".{path.name}.partial")',
        new="partial = path",
        predict="Nothing shows as long as nothing goes wrong. A machine that dies while it saves "
        "leaves half a file under the name of the last good one, and nothing to resume from.",
        symptom=lambda healthy, broken: (
            healthy.outlives_a_cut
            and not broken.outlives_a_cut
            and broken.val_loss == healthy.val_loss
        ),
        caught_by="test_save_checkpoint_that_fails_says_so_and_leaves_the_one_before",
        looks_like=("no checkpoint", "nothing"),
        shows=("outlives_a_cut", "val_loss"),
        fault="reference to a checkpoint that does not exist",
        tell="While it saves there is one file, not two. Kill the process in the middle of a "
        "save and load what is there.",
    ),
]


if __name__ == "__main__":
    sys.exit(main("p06_training", SABOTAGES, experiment, figure, damage="val_loss"))
