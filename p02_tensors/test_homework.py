"""What can be checked of the chapter's homework.

    pytest p02_tensors --build my/p02_tensors.py --homework 1

A check is skipped as long as the file does not have what the homework asks for.
"""

import numpy as np
import pytest
import torch

from p01_autograd.lab.homework import written
from p02_tensors.test_build import agree, array, gradient_of, leaf, must_equal, numbers, upstream

LINES = ["x.clamp(-1, 1)", "x.abs()", "x.cumsum(0)", "x.cumsum(1)", "x.cumsum(-1)"]


@pytest.mark.homework(1)
@pytest.mark.parametrize("view", ["", "permuted", "sliced"])
@pytest.mark.parametrize("line", LINES)
def test_a_new_operation_agrees_with_pytorch(build, line, view):
    written(build, "Tensor." + line[2:].partition("(")[0])
    for shape in [(2, 3), (3, 3), (2, 4, 3)]:
        agree(build, line, shape, view=view)


@pytest.mark.homework(1)
@pytest.mark.parametrize(
    "line", ["(x * x).cumsum(1) * x", "(2 * x).abs() * x", "x.clamp(-1, 1)**2"]
)
def test_a_new_operation_works_inside_an_expression(build, line):
    written(build, *(f"Tensor.{name}" for name in ("clamp", "abs", "cumsum") if name in line))
    agree(build, line, (2, 3))


@pytest.mark.homework(2)
def test_add_in_place_writes_into_the_tensor_itself(build):
    written(build, "Tensor.add_")
    x = build.tensor([1.0, 2.0])
    kept = x.numpy()
    x.add_(1)
    must_equal("x.add_(1) with x = [1, 2]", array(x), [2.0, 3.0])
    must_equal("the array that x had before x.add_(1)", kept, [2.0, 3.0])


@pytest.mark.homework(2)
def test_a_write_before_the_use_is_no_mistake(build):
    written(build, "Tensor.add_")
    x = leaf(build, [1.0, 2.0])
    h = x * 1
    h.add_(1)
    (h * h).sum().backward()
    must_equal("the gradient of (h * h).sum(), h = x * 1 + 1,", gradient_of("it", x), [4.0, 6.0])


AFTER = {  # what h, made of x, is used for before something is added to it
    "h * h": lambda h: h * h,
    "h * 3": lambda h: h * 3,
    "h.exp()": lambda h: h.exp(),
    "h.tanh()": lambda h: h.tanh(),
    "h**3": lambda h: h**3,
    "h @ h": lambda h: h @ h,
    "h.relu()": lambda h: h.relu(),
}


@pytest.mark.homework(2)
@pytest.mark.parametrize("use", AFTER)
@pytest.mark.parametrize("what", ["operand", "result"])
def test_backward_refuses_numbers_that_were_overwritten(build, use, what):
    written(build, "Tensor.add_")
    values = numbers((2, 2))
    reference = torch.tensor(values, requires_grad=True)
    AFTER[use](reference * 1).sum().backward()
    x = leaf(build, values)
    h = x * 1
    result = AFTER[use](h)
    (h if what == "operand" else result).add_(1)
    try:
        result.sum().backward()
    except NotImplementedError:
        raise
    except Exception:
        return
    must_equal(
        f"the gradient of ({use}).sum(), with 1 added in place to its {what} before backward,",
        gradient_of("it", x),
        reference.grad.numpy(),
    )


@pytest.mark.homework(3)
@pytest.mark.parametrize("shape", [(2, 3), (4, 8), (2, 5, 4)], ids=str)
def test_layer_norm_agrees_with_pytorch(build, shape):
    (layer_norm,) = written(build, "layer_norm")
    arrays = [numbers(shape), numbers(shape[-1:], 1), numbers(shape[-1:], 2)]
    weights = numbers(shape, 9)
    theirs = [torch.tensor(values, requires_grad=True) for values in arrays]
    expected = torch.nn.functional.layer_norm(theirs[0], shape[-1:], theirs[1], theirs[2])
    expected.backward(torch.tensor(weights))
    ours = [leaf(build, values) for values in arrays]
    got = layer_norm(*ours)
    must_equal(f"layer_norm of shape {shape}", array(got), array(expected))
    if hasattr(got, "edges"):
        inputs = {id(edge[0]) for edge in got.edges}
        assert inputs == {id(x) for x in ours}, "one node: its inputs are x, weight and bias"
    got.backward(upstream(build, weights))
    for name, mine, other in zip(("x", "weight", "bias"), ours, theirs, strict=True):
        what = f"the gradient of layer_norm with respect to {name}"
        must_equal(what, gradient_of(what, mine), np.array(other.grad))
