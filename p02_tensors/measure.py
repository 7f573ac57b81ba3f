"""What one node for a whole product saves, and what the import costs: python -m p02_tensors.measure

    matmul    the same product of matrices from single numbers (project 1), as multiply and sum of
              expanded tensors, and as one node: nodes, memory and time of forward and backward
    import    seconds that `import p02_tensors` takes in a fresh Python, and NumPy's part of it

What the GPT's training step costs on these tensors: python -m p05_gpt.engine
"""

from __future__ import annotations

import functools
import gc
import operator
import subprocess
import sys
import time
import tracemalloc
from argparse import Namespace
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from p01_autograd.build import Value, topological_order
from p01_autograd.lab.cli import at_least, measure
from p02_tensors.build import Tensor, tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (4, 8, 16, 32, 64)


# matmul


def from_numbers(a: np.ndarray, b: np.ndarray) -> Value:
    """The sum of all elements of a @ b; every multiplication and every addition is a node."""
    rows = [[Value(x) for x in row] for row in a.tolist()]
    columns = [[Value(x) for x in column] for column in b.T.tolist()]
    add = functools.partial(functools.reduce, operator.add)
    return add(add(x * y for x, y in zip(row, column)) for row in rows for column in columns)


def from_broadcasting(a: np.ndarray, b: np.ndarray) -> Tensor:
    """The same in a few nodes, one of which holds all n * n * n products."""
    n = len(a)
    left = tensor(a, requires_grad=True).reshape(n, n, 1)
    right = tensor(b, requires_grad=True).reshape(1, n, n)
    products = left * right  # (n, n, n)
    return products.sum(1).sum()


def from_matmul(a: np.ndarray, b: np.ndarray) -> Tensor:
    """The same in one node and the sum."""
    return (tensor(a, requires_grad=True) @ tensor(b, requires_grad=True)).sum()


Way = Callable[[np.ndarray, np.ndarray], Value | Tensor]
WAYS: dict[str, Way] = {
    "numbers": from_numbers,
    "broadcast": from_broadcasting,
    "matmul": from_matmul,
}


def count_nodes(result: Value | Tensor) -> int:
    """The number of nodes in the graph of a result."""
    if isinstance(result, Value):
        return len(topological_order(result))
    return len(result.topological_order())


def seconds(make: Way, a: np.ndarray, b: np.ndarray, repeats: int) -> float:
    """The median time of one forward and one backward pass."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        make(a, b).backward()
        times.append(time.perf_counter() - start)
    return median(times)


def peak_bytes(make: Way, a: np.ndarray, b: np.ndarray) -> int:
    """Memory at the peak of forward and backward; NumPy reports its buffers to tracemalloc."""
    gc.collect()
    tracemalloc.start()
    make(a, b).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def matmul(args: Namespace) -> Figure:
    """One row for each size and way."""
    found: dict[str, list[tuple[int, int, float]]] = {name: [] for name in WAYS}
    print(f"{'n':>4} {'made of':>10} {'nodes':>9} {'memory':>12} {'time':>13}")
    for n in SIZES:
        a, b = np.random.default_rng(n).standard_normal((2, n, n))
        for name, make in WAYS.items():
            make(a, b).backward()  # warms up
            nodes, peak = count_nodes(make(a, b)), peak_bytes(make, a, b)
            took = seconds(make, a, b, args.repeats)
            found[name].append((nodes, peak, took))
            print(f"{n:4} {name:>10} {nodes:9,} {peak / 1e3:9,.1f} kB {1e3 * took:10,.3f} ms")
    (*_, numbers), (*_, broadcast), (*_, one) = found.values()
    print(
        f"at n = {SIZES[-1]} single numbers take {numbers[1] / one[1]:,.0f} times the memory of "
        f"one node and {numbers[2] / one[2]:,.0f} times its time;\n"
        f"multiply and sum {broadcast[1] / one[1]:,.0f} and {broadcast[2] / one[2]:,.0f} times"
    )

    from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

    figure, axes = subplots(1, 2, width=9.6)
    for ax, which, unit, label in (
        (axes[0], 1, 1e3, "kB at the peak"),
        (axes[1], 2, 1e-3, "milliseconds"),
    ):
        for (name, rows), colour in zip(found.items(), (REFERENCE, BROKEN, HEALTHY)):
            ax.plot(SIZES, [row[which] / unit for row in rows], "o-", color=colour, label=name)
        ax.set(xscale="log", yscale="log", xlabel="n, of n x n matrices", ylabel=label)
        ax.set_xticks(SIZES, [str(n) for n in SIZES])
        ax.minorticks_off()
    axes[0].legend()
    return figure


# import

FRESH = """
import time
start = time.perf_counter()
import {module}
took = time.perf_counter() - start
import sys
print(took, "torch" in sys.modules)
"""


def import_time(args: Namespace) -> None:
    """The median over fresh interpreters."""
    for module in ("numpy", "p02_tensors"):
        runs = []
        for _ in range(args.repeats):
            command = [sys.executable, "-c", FRESH.format(module=module)]
            runs.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        took = median(float(run.split()[0]) for run in runs)
        loaded = "with" if any("True" in run for run in runs) else "without"
        print(f"import {module:12} {1e3 * took:6.0f} ms, {loaded} torch")


PARTS = {"matmul": matmul, "import": import_time}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = (("--repeats", at_least(1), 5, "the median is shown"),)
    return measure("p02_tensors", __doc__, PARTS, options=options, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
