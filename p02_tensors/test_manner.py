"""What we ask of our own files beyond what is right: dtypes, digits, memory, errors that help."""

import math
import warnings

import numpy as np
import pytest

import p02_tensors as torch
from p02_tensors import broadcast_shapes, build

# The listing


def leaf(*shape):
    numbers = np.random.default_rng(0).uniform(0.5, 2, shape)
    return build.tensor(numbers, requires_grad=True)  # an array keeps float64


def test_float64_keeps_its_digits():
    assert build.tensor(0.1, dtype=np.float64).item() == 0.1
    x = leaf(3, 4)
    y = (0.1 * x.log() + 2 / x - x**1.5).softmax(1).max(0).mean()
    assert y.dtype == np.float64
    y.backward()
    step, slopes = 1e-6, np.zeros((3, 4))
    for i in np.ndindex(3, 4):
        for sign in (1, -1):
            moved = x.data.copy()
            moved[i] += sign * step
            z = build.tensor(moved)
            found = (0.1 * z.log() + 2 / z - z**1.5).softmax(1).max(0).mean().item()
            slopes[i] += sign * found / (2 * step)
    assert np.allclose(x.grad.numpy(), slopes, rtol=1e-6, atol=1e-9)


LINES = ("x + 1", "0.1 * x", "1 - x", "x / 3", "2 / x", "x**2", "2**x", "-x", "x.exp()", "x.sqrt()")
LINES += ("x.mean(0)", "x.softmax(1)", "x.max(1)", "x @ x", "build.where(x > 0, x, 0.5)", "x[0]")


@pytest.mark.parametrize("line", LINES)
def test_float32_stays_float32_and_so_does_its_gradient(line):
    x = build.tensor(leaf(3, 3).data.astype(np.float32), requires_grad=True)
    y = eval(line, {"x": x, "build": build})
    assert y.dtype == np.float32
    y.backward(build.ones(*y.shape))
    assert x.grad.dtype == np.float32 and x.grad.shape == x.shape and not x.grad.requires_grad


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("x + build.ones(2, 1)", (2, 0)),
        ("x * 2", (2, 0, 3)),
        ("x.sum()", (2, 0)),
        ("x.sum(1)", (2, 0)),
        ("x.expand(0, 3)", (1, 3)),
        ("x.reshape(0, 5)", (2, 0)),
        ("x.permute(1, 0, 2)", (2, 0, 3)),
        ("build.cat([x, build.zeros(2, 0)], 1)", (2, 3)),
        ("x @ build.ones(0, 3)", (2, 0)),
    ],
    ids=str,
)
def test_empty_tensors_have_values_and_gradients(line, shape):
    x = build.tensor(np.ones(shape, np.float32), requires_grad=True)
    y = eval(line, {"x": x, "build": build})
    y.backward(build.ones(*y.shape))
    assert x.grad.shape == shape


def test_an_expanded_array_shares_its_memory_and_is_read_only():
    x = build.ones(1, 3)
    tall = x.expand(1_000_000, 3)
    assert np.shares_memory(tall.numpy(), x.numpy()) and tall.numpy().strides[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        tall.numpy()[0] = 1.0


def test_arrays_are_shared_where_pytorch_shares_them():
    x = build.zeros(2, 3)
    for view in (x.detach(), x.reshape(3, 2), x.transpose(0, 1), x[1:]):
        assert np.shares_memory(view.numpy(), x.numpy())


def test_a_second_backward_adds_as_much_again():
    x = leaf(3)
    y = (x * x).sum()
    y.backward()
    first = x.grad.numpy().copy()
    y.backward()
    assert np.allclose(x.grad.numpy(), 2 * first)


def test_both_sides_of_where_may_be_numbers():
    got = build.where(build.tensor([True, False]), 0.0, -math.inf)
    assert got.tolist() == [0.0, -math.inf] and got.dtype == np.float32


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x + build.ones(2)", r"\(2, 3\) and \(2,\) do not broadcast"),
        ("x.expand(4, 3)", r"\(2, 3\) and \(4, 3\) do not broadcast"),
        ("x.expand(3)", "does not broadcast|shapes"),
        ("x @ build.ones(3)", r"two axes needed, got \(2, 3\) and \(3,\)"),
        ("x.backward()", "does not require a gradient"),
        ("leaf(2, 3).backward()", r"shape \(2, 3\) needs a gradient of that shape"),
        ("leaf(2, 3).backward(build.ones(3))", r"gradient \(3,\) for shape \(2, 3\)"),
        ("x.sum(2)", "out of bounds"),
    ],
    ids=lambda text: text,
)
def test_an_error_of_the_listing_says_what_was_wrong(line, says):
    with pytest.raises((RuntimeError, ValueError), match=says):
        eval(line, {"x": build.ones(2, 3), "build": build, "leaf": leaf})


# The library


def test_shapes_that_do_not_fit_are_shown_aligned_with_the_axis_marked():
    with pytest.raises(RuntimeError) as error:
        broadcast_shapes((8, 1, 6, 1), (12, 1, 5), (5, 1))
    assert str(error.value).splitlines() == [
        "shapes (8, 1, 6, 1) and (12, 1, 5) and (5, 1) do not fit:",
        "   8   1   6   1",
        "      12   1   5",
        "           5   1",
        "           ^",
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x + torch.ones(2)", "add: shapes (2, 3) and (2,) do not fit"),
        ("x / torch.ones(4, 3)", "divide: shapes (2, 3) and (4, 3) do not fit"),
        ("torch.where(x > 0, x, torch.ones(2))", "where: shapes (2, 3) and (2, 3) and (2,)"),
        ("x @ x", "matmul: (2, 3) @ (2, 3), the inner sizes differ"),
        ("x @ torch.ones(3, 4, dtype=torch.float64)", "matmul: one dtype needed, got float32"),
        ("x @ torch.tensor(1.0)", "matmul: both need an axis, got (2, 3) and ()"),
        ("x.expand(4, 3)", "expand: (2, 3) cannot become (4, 3)"),
        ("x.reshape(4, -1)", "reshape: (2, 3) does not fit into (4, -1)"),
        ("x.T.view(6)", "view: (3, 2) is not laid out in this order; use reshape"),
        ("x.permute(0)", "permute: (0,) does not order 2 axes"),
        ("x.sum(2)", "dim 2 is out of range: 2 axes have dims -2 to 1"),
        ("x.sum((0, 0))", "dim (0, 0) names an axis twice"),
        ("x[2]", "index into shape (2, 3): "),
        ("x[torch.ones(2)]", "an index is made of integers or bools, got float32"),
        ("torch.cat([x, torch.ones(2, 4)])", "cat along dim 0: the other sizes differ in [(2, 3),"),
        ("torch.stack([x, torch.ones(3)])", "stack: one shape needed, got [(2, 3), (3,)]"),
        ("torch.tril(torch.ones(3))", "tril and triu need two axes, got shape (3,)"),
        ("x.masked_fill(x, 0.0)", "need a bool mask, got float32"),
        ("x.item()", "item: one element needed, this has shape (2, 3)"),
        ("torch.arange(3).mean()", "mean: floats needed, got int64"),
        ("torch.zeros(0).max()", "max of no elements, shape (0,)"),
        ("x.backward()", "this tensor does not require grad"),
        ("(w * w).backward()", "backward: (2, 3) is not one element; give a gradient"),
        ("(w * w).backward(torch.ones(3))", "backward: gradient (3,) for a tensor (2, 3)"),
        ("w.numpy()", "requires grad; use detach().numpy()"),
        ("torch.tensor([1], requires_grad=True)", "only floats can require gradients"),
        ("torch.tensor([[1], [1, 2]])", "lists inside have different lengths"),
        ("torch.tensor('ten')", "numbers needed"),
        ("w.__setitem__(0, 1.0)", "requires grad; use no_grad()"),
        ("torch.nn.functional.layer_norm(x, (2,))", "layer_norm: (2, 3) does not end in (2,)"),
    ],
    ids=lambda value: value if "torch" in value or "x" in value else "",
)
def test_an_error_says_what_was_wrong(line, says):
    names = {"torch": torch, "x": torch.ones(2, 3), "w": torch.ones(2, 3, requires_grad=True)}
    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)) as error:
        eval(line, names)
    assert says in str(error.value)


def test_a_graph_that_was_used_up_says_so():
    w = torch.ones(2, requires_grad=True)
    y = (w * w).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert w.grad.tolist() == [4.0, 4.0]
    with pytest.raises(RuntimeError, match="used up; use retain_graph=True"):
        y.backward()


@pytest.mark.parametrize("ids", [[0, 5], [-1, 0]], ids=["too large", "negative"])
def test_an_embedding_refuses_ids_outside_its_table(ids):
    with pytest.raises(IndexError, match=r"embedding: id -?\d is outside of 5 rows"):
        torch.nn.Embedding(5, 3)(torch.tensor(ids))


def test_infinity_and_nan_come_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = torch.tensor([0.0, 1000.0, -1.0], requires_grad=True)
        y = x.exp() + x.log() + 1 / x + x.sqrt()
        y.sum().backward()
        assert not math.isfinite(y.sum().item())
