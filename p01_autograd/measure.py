"""What a graph of single numbers costs: python -m p01_autograd.measure

Without a name every part, half a minute together:

    size       time and memory of a forward and a backward pass against the nodes of the graph
    chain      the same for a chain of a thousand to a million nodes, the deepest graph there is
    micrograd  one network on both engines (needs it: pip install micrograd)
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import math
import random
import statistics
import sys
import time
import tracemalloc
from argparse import Namespace
from typing import TYPE_CHECKING

from p01_autograd import nn
from p01_autograd.build import Value, topological_order
from p01_autograd.lab.cli import at_least, measure
from p01_autograd.lab.figures import HEALTHY, REFERENCE, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = [4, 8, 16, 32, 64]
INPUTS, POINTS = 2, 10
COMPARED = [16, 16]  # hidden units of the network that runs on both engines
IN_A_ROW = 5  # passes
CHAINS = [1_000, 10_000, 100_000, 1_000_000]  # nodes

Points = list[list[float]]


def forward(model: nn.MLP, points: Points) -> Value:
    """The sum of the squared outputs: a graph of about two nodes per parameter and point."""
    return sum(model(point) ** 2 for point in points)


def inputs(seed: int = 0) -> Points:
    """POINTS points of INPUTS numbers each, drawn from [-1, 1)."""
    draw = random.Random(seed)
    return [[draw.uniform(-1, 1) for _ in range(INPUTS)] for _ in range(POINTS)]


def seconds(model: nn.MLP, points: Points) -> tuple[float, float]:
    """The seconds that one forward and one backward pass take."""
    start = time.perf_counter()
    result = forward(model, points)
    middle = time.perf_counter()
    result.backward()
    return middle - start, time.perf_counter() - middle


def memory(model: nn.MLP, points: Points) -> int:
    """Bytes at the peak of a forward and a backward pass."""
    gc.collect()
    tracemalloc.start()
    forward(model, points).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def floats_only(model: nn.MLP, points: Points) -> float:
    """The seconds that the forward pass takes on plain floats, without a graph."""
    layers = [
        [([w.data for w in n.w], n.b.data, n.nonlin) for n in layer.neurons]
        for layer in model.layers
    ]
    start = time.perf_counter()
    for x in points:
        for layer in layers:
            x = [sum(w * xi for w, xi in zip(ws, x)) + b for ws, b, _ in layer]
            x = [max(0.0, xi) if n[2] else xi for xi, n in zip(x, layer)]
    return time.perf_counter() - start


def grow(repeats: int) -> list[dict]:
    """One row for each width of the network."""
    rows = []
    for width in WIDTHS:
        random.seed(0)
        model, points = nn.MLP(INPUTS, [width, width, 1]), inputs()
        times = [seconds(model, points) for _ in range(repeats)]
        rows.append(
            {
                "width": width,
                "nodes": len(topological_order(forward(model, points))),
                "forward": statistics.median(t[0] for t in times),
                "backward": statistics.median(t[1] for t in times),
                "bytes": memory(model, points),
                "floats": statistics.median(floats_only(model, points) for _ in range(repeats)),
            }
        )
    return rows


def exponent(rows: list[dict], what: str) -> float:
    """The slope of log(what) against log(nodes), by least squares; 1 is proportional."""
    xs = [math.log(row["nodes"]) for row in rows]
    ys = [math.log(row[what]) for row in rows]
    mx, my = statistics.mean(xs), statistics.mean(ys)
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / sum((x - mx) ** 2 for x in xs)


def against_micrograd(repeats: int) -> dict[str, float] | None:
    """micrograd's network on its own Value and on ours: {"speed", "memory"}, as ratios.

    None if micrograd is not installed. Several passes are timed in a row, so that the time in which
    the garbage collector frees micrograd's cycles counts as micrograd's.
    """
    if importlib.util.find_spec("micrograd") is None:
        return None
    theirs = importlib.import_module("micrograd.nn")
    theirs_value = theirs.Value
    points, times, models, peaks = inputs(), {"ours": [], "micrograd": []}, {}, {}
    for name, value in (("micrograd", theirs_value), ("ours", Value)):
        theirs.Value = value  # micrograd's layers look the name up when they are made
        random.seed(0)
        models[name] = theirs.MLP(INPUTS, [*COMPARED, 1])
    for _ in range(repeats):
        for name, model in models.items():
            gc.collect()
            times[name].append(sum(sum(seconds(model, points)) for _ in range(IN_A_ROW)))
    for name, model in models.items():
        peaks[name] = memory(model, points)
    theirs.Value = theirs_value
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {
        "speed": medians["micrograd"] / medians["ours"],
        "memory": peaks["ours"] / peaks["micrograd"],
    }


def chain(nodes: int) -> tuple[Value, Value]:
    """x and (((x * 1.0) + 0.0) * 1.0) ...: every node has the one before it as an input."""
    x = result = Value(1.0)
    one, zero = Value(1.0), Value(0.0)
    for _ in range(nodes // 2):
        result = result * one + zero
    return x, result


def draw_size(rows: list[dict]) -> Figure:
    """Milliseconds and megabytes against the number of nodes."""
    figure, (left, right) = subplots(1, 2, width=9.6, height=4.0)
    nodes = [row["nodes"] for row in rows]
    left.loglog(nodes, [1e3 * row["backward"] for row in rows], "o-", color=HEALTHY)
    left.loglog(nodes, [1e3 * row["forward"] for row in rows], "s--", color=HEALTHY)
    left.loglog(nodes, [1e3 * row["floats"] for row in rows], ":", color=REFERENCE)
    left.set(xlabel="nodes in the graph", ylabel="milliseconds")
    left.legend(["backward", "forward", "plain floats"])
    right.loglog(nodes, [row["bytes"] / 1e6 for row in rows], "o-", color=HEALTHY)
    right.set(xlabel="nodes in the graph", ylabel="megabytes")
    return figure


# The parts


def measure_size(flags: Namespace) -> Figure:
    rows = grow(flags.repeats)
    print(f"an MLP {INPUTS}-width-width-1 on {POINTS} points; per node of the graph")
    print("width    nodes  forward us  backward us  bytes  forward over plain floats")
    for row in rows:
        n = row["nodes"]
        print(
            f"{row['width']:5} {n:8,} {1e6 * row['forward'] / n:11.2f}"
            f" {1e6 * row['backward'] / n:12.2f} {row['bytes'] / n:6.0f}"
            f" {row['forward'] / row['floats']:13.1f}x"
        )
    for what in ("forward", "backward", "bytes"):
        print(f"{what} grows like nodes ** {exponent(rows, what):.2f}")
    return draw_size(rows)


def measure_chain(flags: Namespace) -> None:
    print("per node: forward us  backward us  the same without Python's garbage collector")
    for n in CHAINS:
        print(f"{n:9,}", end="")
        for collector in (True, False):
            times = []
            for _ in range(min(3, flags.repeats)):
                gc.collect()
                if not collector:
                    gc.disable()
                start = time.perf_counter()
                _, result = chain(n)
                middle = time.perf_counter()
                result.backward()
                times.append((middle - start, time.perf_counter() - middle))
                gc.enable()
                del result
            for column in zip(*times):
                print(f" {1e6 * statistics.median(column) / n:10.2f}", end="")
        print()


def measure_micrograd(flags: Namespace) -> None:
    ratio = against_micrograd(flags.repeats)
    if ratio is None:
        print("micrograd is not installed; with it (pip install micrograd) both are compared")
    else:
        print(
            f"micrograd's MLP on both: ours is {ratio['speed']:.1f} times as fast "
            f"and takes {ratio['memory']:.2f} of the memory"
        )


PARTS = {"size": measure_size, "chain": measure_chain, "micrograd": measure_micrograd}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = (("--repeats", at_least(1), 7, "the median is shown"),)
    return measure("p01_autograd", __doc__, PARTS, options=options, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
