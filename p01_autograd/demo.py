"""Two moons: a small network learns to classify the points of two half circles.

    python -m p01_autograd.demo

Draws the decision boundary and the loss into runs/p01_autograd/moons.png.
"""

from __future__ import annotations

import math
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from p01_autograd.lab.cli import Parser, at_least, positive, print_anything
from p01_autograd.lab.figures import BROKEN, HEALTHY, subplots
from p01_autograd.nn import MLP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from p01_autograd.build import Value

Points = list[tuple[float, float]]
Labels = list[int]  # 1 or -1


def two_moons(n: int, noise: float = 0.1, seed: int = 0) -> tuple[Points, Labels]:
    """n points on two interleaved half circles of radius 1, and the half circle of each.

    `noise` is the standard deviation of the normal noise added to each coordinate.
    """
    draw = random.Random(seed)
    points, labels = [], []
    for i in range(n):
        angle, label = draw.uniform(0, math.pi), 1 if i % 2 == 0 else -1
        x, y = math.cos(angle), math.sin(angle)
        if label == -1:
            x, y = 1 - x, 0.5 - y
        points.append((x + draw.gauss(0, noise), y + draw.gauss(0, noise)))
        labels.append(label)
    return points, labels


def hinge_loss(model: MLP, points: Points, labels: Labels) -> Value:
    """The mean of max(0, 1 - label * score): zero once every point is right by a margin of 1."""
    return sum((1 - y * model(p)).relu() for p, y in zip(points, labels)) / len(points)


def accuracy(model: MLP, points: Points, labels: Labels) -> float:
    """The share of the points whose score has the sign of their label."""
    right = sum((model(p).data > 0) == (y > 0) for p, y in zip(points, labels))
    return right / len(points)


def train(model: MLP, points: Points, labels: Labels, steps: int, lr: float) -> list[float]:
    """Gradient descent on the whole data set; returns the loss before every step."""
    from tqdm import tqdm

    losses = []
    for _ in tqdm(range(steps), disable=None, leave=False, delay=2, unit="step"):
        loss = hinge_loss(model, points, labels)
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= lr * p.grad
        losses.append(loss.data)
    return losses


def draw(model: MLP, points: Points, labels: Labels, losses: list[float]) -> Figure:
    """The decision boundary with the points, and the loss over the steps."""
    figure, (left, right) = subplots(1, 2, width=9.6, height=4.0)
    xs = [-1.6 + 4.2 * i / 60 for i in range(61)]
    ys = [-1.2 + 2.9 * i / 40 for i in range(41)]
    scores = [[model((x, y)).data for x in xs] for y in ys]
    left.contourf(xs, ys, scores, levels=[-1e9, 0, 1e9], colors=[BROKEN, HEALTHY], alpha=0.2)
    left.contour(xs, ys, scores, levels=[0], colors="black", linewidths=1)
    for label, colour, marker in ((1, HEALTHY, "o"), (-1, BROKEN, "^")):
        chosen = [p for p, y in zip(points, labels) if y == label]
        left.scatter(*zip(*chosen), color=colour, marker=marker, s=18)
    left.set(title="decision boundary", xlabel="x", ylabel="y")
    left.grid(False)
    right.plot(losses, color=HEALTHY)
    right.set(title="hinge loss", xlabel="step", ylabel="loss", ylim=(0, None))
    return figure


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(prog="python -m p01_autograd.demo", description="Learn two moons.")
    parser.add_argument("--points", type=at_least(2), default=100, help="default: 100")
    parser.add_argument("--steps", type=at_least(1), default=100, help="default: 100")
    parser.add_argument("--lr", type=positive, default=1.0, help="learning rate; default: 1")
    parser.add_argument("--seed", type=at_least(0), default=1337, help="default: 1337")
    flags = parser.parse_args(argv)
    random.seed(flags.seed)
    points, labels = two_moons(flags.points, seed=flags.seed)
    unseen = two_moons(400, seed=flags.seed + 1)
    model = MLP(2, [16, 16, 1])
    print(f"{len(model.parameters())} parameters, {len(points)} points, {flags.steps} steps")
    start = time.perf_counter()
    losses = train(model, points, labels, flags.steps, flags.lr)
    seconds = time.perf_counter() - start
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last, in {seconds:.0f} s")
    print(f"right on {accuracy(model, *unseen):.1%} of 400 points it has not seen")
    path = Path("runs/p01_autograd/moons.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(model, points, labels, losses).savefig(path)
    print(f"figure: {path.as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
