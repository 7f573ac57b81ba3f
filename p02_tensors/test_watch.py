"""Whatever the tests ask of the library, no elementwise NumPy call is ever given two shapes."""

from pathlib import Path

import numpy as np
import pytest

from p01_autograd.lab.sabotage import Sabotage, sabotaged
from p02_tensors import build
from p02_tensors.watch import Broadcast, watched

FOLDER = Path(__file__).resolve().parent
TESTS = ("test_build.py", "test_torch_like.py", "test_nn.py", "test_optim.py")
OTHER_CORES = ("closures", "functional", "op_classes", "serial_numbers", "vjp_table")


def test_the_whole_suite_passes_on_a_numpy_that_refuses_to_broadcast(capsys):
    options = ["-q", "-x", "-p", "p02_tensors.watch", "--tb=short", "-p", "no:cacheprovider"]
    options += ["-k", f"not ({' or '.join(OTHER_CORES)})"]
    status = pytest.main([*options, *(str(FOLDER / name) for name in TESTS)])
    said = capsys.readouterr()
    assert status == 0, said.out[-3000:] + said.err


def numpy_broadcasts():
    """Our core, had it left the broadcasting of two operands to NumPy."""
    edit = Sabotage(
        name="numpy_broadcasts",
        old="return self.expand(*shape), other.expand(*shape)",
        new="return self, other",
        predict="",
        symptom=None,
        caught_by="",
    )
    return sabotaged("p02_tensors", edit)


LINES = ("x + y", "x * 2", "-x / y", "x - y", "x == y", "x.softmax(0)")


@pytest.mark.parametrize("line", LINES)
def test_the_watch_sees_a_library_that_lets_numpy_broadcast(line):
    def run(module):
        with watched(module):
            eval(line, {"x": module.tensor(np.ones((2, 3))), "y": module.tensor(np.ones((2, 1)))})

    run(build)
    with pytest.raises(Broadcast, match="shapes"):
        run(numpy_broadcasts())


def test_the_watch_ends_with_its_block():
    with watched(build):
        assert build.np is not np
    assert build.np is np


def test_a_broadcast_tensor_takes_no_memory():
    row = build.ones(1, 3)
    tall = row.expand(1_000_000, 3)
    assert tall.shape == (1_000_000, 3) and np.shares_memory(tall.numpy(), row.numpy())
    assert tall.numpy().strides[0] == 0 and not tall.numpy().flags.writeable
    assert (tall + row).shape == tall.shape
