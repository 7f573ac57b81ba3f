"""Six ways to break backpropagation, each on the same training run on two moons.

python -m p01_autograd.break_it
"""

from __future__ import annotations

import math
import random
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from p01_autograd import build as shipped_build
from p01_autograd import nn as shipped_nn
from p01_autograd.demo import accuracy, train, two_moons
from p01_autograd.lab.figures import BROKEN, HEALTHY, subplots
from p01_autograd.lab.sabotage import Sabotage, main, sabotaged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, LR = 100, 1.0
POINTS, HIDDEN = 60, (8, 8)  # a network of 105 parameters


@dataclass
class Numbers:
    """The results of one training run; losses are mean hinge losses per point."""

    first_loss: float
    lowest_loss: float
    last_loss: float
    accuracy: float  # on 200 unseen points
    steps_to_half: int  # until the loss stays below half of the first one; STEPS if never
    losses: list[float]


SABOTAGES = [
    Sabotage(
        name="assigned",
        old="upstream[parent] += local",
        new="upstream[parent] = local",
        predict="Where paths meet, only one of them counts. Every weight is used by every point, "
        "so each step follows a single point, and most of the loss stays.",
        symptom=lambda healthy, broken: broken.lowest_loss > 0.5 * broken.first_loss,
        caught_by="test_backward_adds_up_where_a_value_is_used_twice",
        looks_like=("stops higher",),
        shows=("first_loss", "last_loss"),
        fault="the framework itself",
        tell="The gradient of a value that is used once is right, that of one used twice is half "
        "of it. `no_order` loses part of a gradient too, but only where paths have "
        "different lengths.",
    ),
    Sabotage(
        name="no_order",
        old="        order = topological_order(self)\n",
        new="        order, seen = [self], {self}\n"
        "        for node in order: "
        "order += [p for p in node._inputs if not (p in seen or seen.add(p))]\n"
        "        order.reverse()  # what is nearest to the result first\n",
        predict="Nodes are taken by their distance from the result. One that is near by one path "
        "and far by another passes its gradient on before all of it has arrived; what comes later "
        "is lost. The loss still falls, and stops higher.",
        symptom=lambda healthy, broken: (
            healthy.last_loss + 0.05 < broken.last_loss < broken.first_loss
        ),
        caught_by="test_backward_waits_until_all_has_arrived",
        looks_like=("stops higher",),
        shows=("first_loss", "last_loss"),
        fault="the framework itself",
        tell="Layer on layer, where all paths are equally long, every gradient is right; a value "
        "used near the result and far from it (a residual) shows the fault. `assigned` "
        "fails already on x + x.",
    ),
    Sabotage(
        name="no_zero_grad",
        old="            p.grad = 0.0",
        new="            pass",
        predict="Every step follows the sum of all gradients since the first: momentum that never "
        "fades. The loss falls as fast as it should, and then runs away again.",
        symptom=lambda healthy, broken: (
            broken.lowest_loss < 0.5 * broken.first_loss < broken.last_loss
        ),
        caught_by="test_zero_grad_clears_every_parameter",
        module="nn",
        looks_like=("falls and rises", "norm"),
        shows=("lowest_loss", "last_loss"),
        fault="missing API call",
        tell="Print the gradient of one weight twice on the same batch without a step between: "
        "the second is twice the first. A learning rate that is too high repeats it "
        "exactly.",
    ),
    Sabotage(
        name="wrong_product_rule",
        old="(other.data, self.data))",
        new="(self.data, other.data))",
        predict="Each factor gets its own value as the derivative: a weight moves by a multiple "
        "of itself, whatever the data say, and grows until the loss is NaN.",
        symptom=lambda healthy, broken: not math.isfinite(broken.last_loss),
        caught_by="test_multiplication_has_the_other_factor_as_its_derivative",
        looks_like=("nan",),
        shows=("last_loss",),
        fault="the framework itself",
        tell="It comes with any data: a weight moves by a multiple of itself. A finite "
        "difference of one product is off. `no_epsilon` is NaN after one step, this one "
        "after several.",
    ),
    Sabotage(
        name="relu_gate_flipped",
        old="float(self.data > 0)",
        new="float(self.data <= 0)",
        predict="The gate lets gradients through where the neuron is off and stops them where it "
        "is on. The hinge of the loss is a relu too, so a point that is wrong teaches nothing.",
        symptom=lambda healthy, broken: not broken.last_loss < 0.5 * broken.first_loss,
        caught_by="test_relu_passes_the_gradient_only_where_it_is_on",
        looks_like=("flat",),
        shows=("first_loss", "last_loss"),
        fault="the framework itself",
        tell="Gradients are there, and of the wrong neurons: those that are off. With "
        "`seed_of_zero` every gradient is 0.",
    ),
    Sabotage(
        name="seed_of_zero",
        old="upstream[self] = 1.0",
        new="upstream[self] = 0.0",
        predict="Zero times anything is zero: no parameter moves, and the loss is a flat line.",
        symptom=lambda healthy, broken: broken.last_loss == broken.first_loss,
        caught_by="test_backward_starts_from_one",
        looks_like=("flat",),
        shows=("first_loss", "last_loss"),
        fault="the framework itself",
        tell="The loss is the same to the last digit in every step, and every gradient is 0. Any "
        "other fault lets the last digits move.",
    ),
]


def experiment(
    build: ModuleType | None = None, nn: ModuleType | None = None, seed: int = 1337
) -> Numbers:
    """Train a small network on two moons with the given engine or the given layers."""
    if nn is None:
        nn = layers_on(build)
    random.seed(seed)
    model = nn.MLP(2, [*HIDDEN, 1])
    points, labels = two_moons(POINTS, seed=seed)
    losses = train(model, points, labels, STEPS, LR)
    above = [step for step, loss in enumerate(losses) if not loss < losses[0] / 2]
    return Numbers(
        first_loss=losses[0],
        lowest_loss=min(losses),
        last_loss=losses[-1],
        accuracy=accuracy(model, *two_moons(200, seed=seed + 1000)),
        steps_to_half=above[-1] + 1,
        losses=losses,
    )


def layers_on(build: ModuleType) -> ModuleType:
    """nn.py on another engine's Value."""
    if build is shipped_build:
        return shipped_nn
    name = build.__name__.rpartition(".")[2]
    swap = Sabotage(
        name=f"on_{name}",
        old="from p01_autograd.build import Value",
        new=f"from {build.__name__} import Value",
        predict="",
        symptom=None,
        caught_by="",
        module="nn",
    )
    return sabotaged("p01_autograd", swap)


def figure(healthy: list, broken: list) -> Figure:
    """The loss over the steps, one line for each run that came to an end."""
    drawing, axes = subplots()
    for runs, colour, name in ((healthy, HEALTHY, "healthy"), (broken, BROKEN, "broken")):
        for i, run in enumerate(run for run in runs if not hasattr(run, "error")):
            axes.plot(run.losses, color=colour, alpha=0.8, label=name if i == 0 else None)
    top = 2 * max(run.losses[0] for run in healthy)
    axes.set(xlabel="step", ylabel="hinge loss", ylim=(0, top))
    axes.legend()
    return drawing


if __name__ == "__main__":
    sys.exit(main("p01_autograd", SABOTAGES, experiment, figure, damage="last_loss"))
