"""Is what I typed right? `pytest p02_tensors` asks that of the tensors, in the book's order.

Most checks are a line of code that runs twice, on your tensors and on PyTorch's: shapes, dtypes,
values and gradients must be the same. `torch` in such a line is one library, then the other; x, y
and z are random tensors, p and q positive ones.
"""

import math
import re

import numpy as np
import pytest
import torch

from p02_tensors.watch import Broadcast, watched

TOLERANCE = {"float32": (1e-4, 1e-5), "float64": (1e-9, 1e-11)}  # relative, absolute

# To four axes, with sizes 0 and 1; square ones, where an axis taken for another goes unnoticed.
SHAPES = [(), (1,), (4,), (2, 3), (3, 3), (3, 1), (2, 3, 4), (2, 1, 3, 2), (0,), (2, 0, 3)]
PAIRS = [
    ((), ()),
    ((4,), (4,)),
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((3, 3), (3,)),
    ((3, 3), (3, 1)),
    ((2, 3), ()),
    ((), (4,)),
    ((2, 1), (1, 3)),
    ((1, 1), (3,)),
    ((4, 1, 3), (2, 1)),
    ((2, 1, 3, 1), (4, 1, 2)),
    ((0,), (1,)),
    ((2, 0), (2, 1)),
]


def numbers(shape, seed=0, positive=False):
    """The same float64 numbers every time, in (-2, 2) or in (0.5, 2)."""
    rng = np.random.default_rng([seed, *shape])
    return np.asarray(rng.uniform(0.5, 2, shape) if positive else rng.uniform(-2, 2, shape))


def array(x):
    """The values of a tensor of either library."""
    return np.asarray(x.detach().numpy())


def shown(values):
    text = np.array2string(np.asarray(values), precision=4, suppress_small=True, threshold=40)
    return "\n".join("    " + line for line in text.splitlines()[:8])


def must_equal(what, got, expected, tolerance="float32", hint=""):
    """Shapes and values agree; got and expected are NumPy arrays, or what makes one."""
    got, expected = np.asarray(got), np.asarray(expected)
    rtol, atol = TOLERANCE[tolerance]
    assert got.shape == expected.shape, (
        f"{what} should have shape {expected.shape}, got {got.shape}" + hint
    )
    assert np.allclose(got, expected, rtol, atol, equal_nan=True), (
        f"{what} should be\n{shown(expected)}\nbut is\n{shown(got)}" + hint
    )


def run(library, line, inputs, dtype, view="whole"):
    """The line's result, and the leaves that its tensors come from."""
    leaves, names = {}, {"torch": library, "math": math}
    for name, values in inputs.items():
        if view == "permuted":  # laid out in memory in the opposite order
            values = values.transpose()
        elif view == "sliced":  # every other row of a larger tensor
            values = np.repeat(values, 2, axis=0)
        leaf = library.tensor(values, dtype=getattr(library, dtype), requires_grad=True)
        leaves[name] = names[name] = leaf
        if view == "permuted":
            names[name] = leaf.permute(*reversed(range(values.ndim)))
        elif view == "sliced":
            names[name] = leaf[::2]
    return eval(line, names), leaves


def agree(build, line, *shapes, view="whole", hint=""):
    """The line gives what it gives in PyTorch, and so do the gradients of all its tensors."""
    hint = f"\n{hint}" if hint else ""
    names = [name for name in "pqxyz" if re.search(rf"\b{name}\b", line)]
    assert len(names) == len(shapes), f"{line} has tensors {names}, shapes {shapes}"
    inputs = {
        name: numbers(shape, seed, positive=name in "pq")
        for seed, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }
    for dtype in TOLERANCE:
        given = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
        what = f"{line} with {dtype} {given}" if names else line
        what += f", {view} views," if view != "whole" else ""
        expected, their_leaves = run(torch, line, inputs, dtype, view)
        got, our_leaves = run(build, line, inputs, dtype, view)
        must_be_tensor(build, what, got, expected)
        exact = expected.dtype == torch.float64
        must_equal(what, array(got), array(expected), "float64" if exact else "float32", hint)
        if not expected.requires_grad:
            continue
        assert got.requires_grad, (
            f"{what} should require a gradient: is the graph cut, or requires_grad lost?{hint}"
        )
        weights = numbers(tuple(expected.shape), seed=9)
        for library, result in ((torch, expected), (build, got)):
            weight = library.tensor(weights, dtype=getattr(library, dtype))
            (result * weight).sum().backward()
        for name in names:
            mine, theirs = our_leaves[name].grad, their_leaves[name].grad
            if theirs is None:
                continue
            assert mine is not None, f"{what}: no gradient reaches {name}{hint}"
            must_equal(
                f"the gradient for {name} of (w * {line}).sum(), w random, {dtype} {given},",
                array(mine),
                array(theirs),
                dtype,
                hint,
            )


def must_be_tensor(build, what, got, expected):
    """A tensor of the module under test, of the dtype that PyTorch's has."""
    assert isinstance(got, build.Tensor), f"{what} should be a Tensor, got {type(got).__name__}"
    dtype = str(expected.dtype).removeprefix("torch.")
    assert got.dtype == getattr(build, dtype), f"{what} should be {dtype}, got {got.dtype}"


def must_refuse(build, line, reason, **arrays):
    """The line raises an error that a reader can act on."""
    names = {name: build.tensor(values) for name, values in arrays.items()}
    try:
        got = eval(line, {"torch": build, **names})
    except NotImplementedError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError):
        return
    given = ", ".join(f"{name} of shape {np.shape(values)}" for name, values in arrays.items())
    result = f"a result of shape {tuple(got.shape)}" if hasattr(got, "shape") else repr(got)
    pytest.fail(
        f"{line}{', ' + given if given else ''} should raise an error, it gave {result}\n{reason}",
        pytrace=False,
    )


def lines(*texts):
    return pytest.mark.parametrize("line", texts, ids=texts)


def leaf(build, values, dtype="float64"):
    return build.tensor(values, dtype=getattr(build, dtype), requires_grad=True)


# broadcast_shapes


@pytest.mark.checks("broadcast_shapes")
@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (((3,), (3,)), (3,)),
        (((2, 3), (3,)), (2, 3)),
        (((3,), (2, 3)), (2, 3)),
        (((3, 3), (3,)), (3, 3)),
        (((), (2, 3)), (2, 3)),
        (((), ()), ()),
        (((2, 1), (1, 3)), (2, 3)),
        (((4, 1, 3), (2, 1)), (4, 2, 3)),
        (((1,), (5,)), (5,)),
        (((1, 1), (1,)), (1, 1)),
        (((0,), (1,)), (0,)),
        (((1,), (0,)), (0,)),
        (((2, 0), (1, 1)), (2, 0)),
        (((5, 1, 4, 1), (3, 1, 2)), (5, 3, 4, 2)),
        (((2, 3),), (2, 3)),
        (((2, 1), (1, 3), (4, 1, 1)), (4, 2, 3)),
        (((3,), (1,), (2, 1)), (2, 3)),
    ],
    ids=str,
)
def test_broadcast_shapes_aligns_right_and_stretches_ones(build, shapes, expected):
    got = build.broadcast_shapes(*shapes)
    assert isinstance(got, tuple), f"broadcast_shapes should give a tuple, got {type(got).__name__}"
    reason = ""
    if len(shapes[0]) != len(shapes[-1]):
        reason = "\nShapes are aligned at the right: missing axes are added on the left"
    if 0 in expected:
        reason = "\nSize 1 becomes the other size, and that may be 0: not the larger of the two"
    assert got == expected, (
        f"broadcast_shapes{shapes} should be {expected}, got {got}{reason}".replace(",)}", ")")
    )


@pytest.mark.checks("broadcast_shapes")
@pytest.mark.parametrize(
    "shapes",
    [
        ((2,), (3,)),
        ((2, 3), (2,)),
        ((3, 2), (3,)),
        ((2, 3), (2, 4)),
        ((2, 3), (4, 3)),
        ((4,), (2,)),
        ((0,), (2,)),
        ((2, 3), (1, 3), (3, 3)),
    ],
    ids=str,
)
def test_broadcast_shapes_refuses_all_others(build, shapes):
    try:
        got = build.broadcast_shapes(*shapes)
    except NotImplementedError:
        raise
    except (RuntimeError, ValueError):
        return
    text = " and ".join(map(str, shapes))
    pytest.fail(
        f"the shapes {text} do not fit, yet broadcast_shapes gave {got}\n"
        "Align them at the right: where the sizes differ, one of them has to be 1",
        pytrace=False,
    )


# unbroadcast


@pytest.mark.checks("unbroadcast")
def test_unbroadcast_of_two_rows_by_hand(build):
    g = np.array([[1.0, 2.0, 4.0], [10.0, 20.0, 40.0]])
    must_equal(
        "unbroadcast of [[1, 2, 4], [10, 20, 40]] to shape (3,)",
        build.unbroadcast(g, (3,)),
        [11.0, 22.0, 44.0],
        hint="\nThe row was used twice, so its gradient is the sum of both uses",
    )
    must_equal(
        "unbroadcast of [[1, 2, 4], [10, 20, 40]] to shape (2, 1)",
        build.unbroadcast(g, (2, 1)),
        [[7.0], [70.0]],
        hint="\nThe column was used three times; its axis stays, with size 1",
    )
    must_equal(
        "unbroadcast of [[1, 2, 4], [10, 20, 40]] to shape ()", build.unbroadcast(g, ()), 77.0
    )


@pytest.mark.checks("unbroadcast")
@pytest.mark.parametrize(
    ("large", "small"),
    [
        ((3,), (3,)),
        ((3,), (1,)),
        ((3, 3), (3,)),
        ((3, 3), (3, 1)),
        ((3, 3), (1, 3)),
        ((2, 3, 4), (3, 1)),
        ((2, 3, 4), (1, 1, 4)),
        ((2, 3, 4), (1,)),
        ((2, 3, 4), ()),
        ((2, 1, 4), (1, 4)),
        ((1, 1, 4), (4,)),
        ((2, 3, 4, 5), (3, 1, 1)),
        ((0, 3), (3,)),
        ((2, 0), (2, 1)),
        ((), ()),
    ],
    ids=lambda shape: str(shape),
)
def test_unbroadcast_is_the_transpose_of_stretching(build, large, small):
    g, x = numbers(large), numbers(small, seed=1)
    got = build.unbroadcast(g.copy(), small)
    expected = torch.zeros(small, dtype=torch.float64, requires_grad=True)
    (expected.expand(large) * torch.tensor(g)).sum().backward()
    what = f"unbroadcast of an array {large} to {small}"
    must_equal(what, got, expected.grad.numpy(), "float64")
    stretched = np.broadcast_to(x, large)
    assert math.isclose((np.asarray(got) * x).sum(), (g * stretched).sum(), abs_tol=1e-9), what


# tensor


@pytest.mark.checks("tensor")
@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("3", ()),
        ("[1, 2, 3]", (3,)),
        ("[[1, 2, 3], [4, 5, 6]]", (2, 3)),
        ("[[[1.5]]]", (1, 1, 1)),
        ("[]", (0,)),
        ("[[], []]", (2, 0)),
        ("(1.0, 2.0)", (2,)),
        ("np.arange(6).reshape(3, 2)", (3, 2)),
    ],
    ids=lambda value: str(value),
)
def test_tensor_has_the_shape_and_the_values_of_its_data(build, text, shape):
    data = eval(text)
    x = build.tensor(data)
    assert isinstance(x, build.Tensor), f"tensor should give a Tensor, got {type(x).__name__}"
    assert tuple(x.shape) == shape, f"tensor({text}) should be {shape}, got {tuple(x.shape)}"
    must_equal(f"tensor({text})", array(x), data)


@pytest.mark.checks("tensor")
@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"),
        ([1.5, 2], "float32"),
        ([], "float32"),
        (3, "int64"),
        ([1, 2], "int64"),
        (True, "bool"),
        ([True, False], "bool"),
        (np.ones(2, np.float32), "float32"),
        (np.ones(2, bool), "bool"),
        (np.ones(2, np.int64), "int64"),
    ],
    ids=lambda value: str(value),
)
def test_tensor_infers_its_dtype(build, data, dtype):
    got = build.tensor(data).dtype
    assert got == getattr(build, dtype), (
        f"tensor({data!r}) should be {dtype}, got {got}\n"
        "Python's floats become float32, its integers int64"
    )


@pytest.mark.checks("tensor")
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_tensor_takes_the_dtype_asked_for(build, dtype):
    for data in ([0, 1, 2], np.array([0.0, 1.0, 2.0])):
        x = build.tensor(data, dtype=getattr(build, dtype))
        assert x.dtype == getattr(build, dtype), f"tensor(..., dtype={dtype}) gave {x.dtype}"
        must_equal(f"tensor([0, 1, 2], dtype={dtype})", array(x), np.array([0, 1, 2], dtype))
    x = build.tensor(0.1, dtype=build.float64)
    assert x.item() == 0.1, (
        f"tensor(0.1, dtype=float64) should hold 0.1 to 16 digits, it holds {x.item():.17f}\n"
        "The number went through float32 on its way"
    )


@pytest.mark.checks("tensor")
def test_tensor_copies_its_data(build):
    data = np.zeros(3, np.float32)
    x = build.tensor(data)
    data[0] = 7
    assert array(x)[0] == 0, "changing the array afterwards changed the tensor: copy the data"


@pytest.mark.checks("tensor")
def test_tensor_requires_a_gradient_only_when_asked(build):
    assert not build.tensor([1.0]).requires_grad, "tensor([1.0]) should not require a gradient"
    x = build.tensor([1.0], requires_grad=True)
    assert x.requires_grad, "tensor([1.0], requires_grad=True) should require a gradient"
    assert x.grad is None, f"before backward, .grad should be None, got {x.grad}"


@pytest.mark.checks("tensor")
def test_tensor_refuses_lists_of_different_lengths(build):
    must_refuse(build, "torch.tensor([[1, 2], [3]])", "The rows have different lengths")


# full, zeros, ones, arange


@pytest.mark.checks("full")
@lines(
    "torch.full((2, 3), 1.5)",
    "torch.full((), 2.0)",
    "torch.full((2,), 3)",
    "torch.full((0, 2), 1.0)",
    "torch.full((2,), 3, dtype=torch.float64)",
    "torch.full((2,), 3.0, requires_grad=True)",
)
def test_full_agrees_with_torch(build, line):
    agree(build, line)


@pytest.mark.checks("zeros")
@lines(
    "torch.zeros(2, 3)",
    "torch.zeros((2, 3))",
    "torch.zeros(3)",
    "torch.zeros(())",
    "torch.zeros(0, 2)",
    "torch.zeros(2, dtype=torch.int64)",
    "torch.zeros(2, requires_grad=True)",
)
def test_zeros_agrees_with_torch(build, line):
    agree(build, line)


@pytest.mark.checks("ones")
@lines(
    "torch.ones(2, 3)",
    "torch.ones((2, 3))",
    "torch.ones(3)",
    "torch.ones(())",
    "torch.ones(2, dtype=torch.float64)",
    "torch.ones(2, 2, dtype=torch.bool)",
    "torch.ones(2, 3, requires_grad=True)",
)
def test_ones_agrees_with_torch(build, line):
    agree(build, line)


@pytest.mark.checks("arange")
@lines(
    "torch.arange(5)",
    "torch.arange(2, 7)",
    "torch.arange(1, 10, 3)",
    "torch.arange(1, 11, 3)",
    "torch.arange(5, 0, -2)",
    "torch.arange(0)",
    "torch.arange(3.0)",
    "torch.arange(0, 1, 0.25)",
    "torch.arange(3, dtype=torch.float32)",
    "torch.arange(3, dtype=torch.float64)",
)
def test_arange_agrees_with_torch(build, line):
    agree(build, line)


# chance

DRAWS = {
    "randn": "torch.randn(2, 3)",
    "rand": "torch.rand(2, 3)",
    "randint": "torch.randint(0, 1000, (2, 3))",
}


@pytest.mark.checks("manual_seed")
@pytest.mark.parametrize("line", DRAWS.values(), ids=DRAWS)
def test_manual_seed_starts_the_numbers_over(build, line):
    def draw(seed=None):
        if seed is not None:
            build.manual_seed(seed)
        return array(eval(line, {"torch": build})).tolist()

    first, second, again, other = draw(1), draw(), draw(1), draw(2)
    assert first == again, f"after manual_seed(1), {line} gave {first}, then {again}"
    assert first != second, f"{line} gives the same numbers every time it is called"
    assert first != other, f"{line} gives the same numbers after manual_seed(1) and (2)"


@pytest.mark.checks("randn")
@lines(
    "torch.randn(2, 3)",
    "torch.randn((2, 3))",
    "torch.randn(4)",
    "torch.randn(0, 2)",
    "torch.randn(2, dtype=torch.float64)",
    "torch.randn(2, requires_grad=True)",
)
def test_randn_has_the_shape_asked_for(build, line):
    same_kind(build, line)


@pytest.mark.checks("rand")
@lines("torch.rand(2, 3)", "torch.rand((2, 3))", "torch.rand(4)", "torch.rand(0, 2)")
def test_rand_has_the_shape_asked_for(build, line):
    same_kind(build, line)


@pytest.mark.checks("randint")
@lines("torch.randint(5, (2, 3))", "torch.randint(2, 5, (4,))", "torch.randint(0, 5, (0, 2))")
def test_randint_has_the_shape_asked_for(build, line):
    same_kind(build, line)


def same_kind(build, line):
    got, expected = eval(line, {"torch": build}), eval(line)
    must_be_tensor(build, line, got, expected)
    assert tuple(got.shape) == tuple(expected.shape), (
        f"{line} should have shape {tuple(expected.shape)}, got {tuple(got.shape)}"
    )
    assert got.requires_grad == expected.requires_grad, (
        f"requires_grad of {line} should be {expected.requires_grad}, got {got.requires_grad}"
    )


@pytest.mark.checks("randn")
def test_randn_is_standard_normal(build):
    build.manual_seed(0)
    x = array(build.randn(100, 100))
    assert abs(x.mean()) < 0.05, f"the mean of 10,000 draws should be about 0, it is {x.mean():.3f}"
    assert abs(x.std() - 1) < 0.05, f"their deviation should be about 1, it is {x.std():.3f}"
    within = (abs(x) < 1).mean()
    assert abs(within - 0.683) < 0.03, (
        f"68 % of normal draws lie within one deviation of the mean, here {within:.0%}"
    )


@pytest.mark.checks("rand")
def test_rand_is_uniform_from_0_to_1(build):
    build.manual_seed(0)
    x = array(build.rand(100, 100))
    assert x.min() >= 0 and x.max() < 1, f"rand should lie in [0, 1): {x.min()} to {x.max()}"
    tenths = np.histogram(x, 10, (0, 1))[0]
    assert tenths.min() > 800, f"10,000 draws should fill each tenth with about 1,000: {tenths}"


@pytest.mark.checks("randint")
def test_randint_reaches_every_integer_below_high(build):
    build.manual_seed(0)
    x = array(build.randint(3, 7, (4000,)))
    counts = {int(value): int((x == value).sum()) for value in np.unique(x)}
    assert set(counts) == {3, 4, 5, 6}, (
        f"randint(3, 7, ...) should give 3, 4, 5 and 6, it gave {sorted(counts)}\n"
        "low is included, high is not"
    )
    assert min(counts.values()) > 800, f"each should come about 1,000 times: {counts}"
    assert array(build.randint(2, (100,))).max() == 1, "randint(2, size) draws from 0 and 1"


# Tensor: what it knows of itself


@pytest.mark.checks("Tensor")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_tensor_knows_its_shape(build, shape):
    x = build.tensor(numbers(shape), dtype=build.float32)
    n = math.prod(shape)
    assert tuple(x.shape) == shape, f"x.shape should be {shape}, got {tuple(x.shape)}"
    assert tuple(x.size()) == shape, f"x.size() should be {shape}, got {tuple(x.size())}"
    assert isinstance(x.size(), tuple), f"x.size() should be a tuple, got {type(x.size())}"
    assert x.ndim == len(shape), f"x.ndim of shape {shape} should be {len(shape)}, got {x.ndim}"
    assert x.numel() == n, f"x.numel() of shape {shape} should be {n}, got {x.numel()}"
    for dim in range(-len(shape), len(shape)):
        assert x.size(dim) == shape[dim], f"x.size({dim}) of {shape} gave {x.size(dim)}"


@pytest.mark.checks("Tensor.item")
def test_item_is_a_python_number(build):
    for data, kind in ((2.5, float), ([[3]], int), ([True], bool)):
        got = build.tensor(data).item()
        assert type(got) is kind, f"tensor({data}).item() should be a {kind}, got {type(got)}"
        assert got == np.asarray(data).item(), f"tensor({data}).item() gave {got}"
    must_refuse(build, "x.item()", "Only a single element is one number", x=[1.0, 2.0])


@pytest.mark.checks("Tensor.tolist")
def test_tolist_gives_nested_lists(build):
    for data in (1.5, [1, 2], [[1.5, 2.5], [3.5, 4.5]], [], [[True], [False]]):
        got = build.tensor(data).tolist()
        assert got == data, f"tensor({data}).tolist() should be {data}, got {got}"


@pytest.mark.checks("Tensor.numpy")
def test_numpy_gives_an_array(build):
    got = build.tensor([[1.5, 2.5]]).numpy()
    assert isinstance(got, np.ndarray), f"numpy() should give an array, got {type(got).__name__}"
    assert got.dtype == np.float32, f"numpy() of a float32 tensor should be so, got {got.dtype}"
    must_equal("tensor([[1.5, 2.5]]).numpy()", got, [[1.5, 2.5]])


@pytest.mark.checks("Tensor.detach")
def test_detach_leaves_the_graph(build):
    x = leaf(build, [2.0, 3.0])
    d = (x * x).detach()
    must_equal("(x * x).detach()", array(d), [4.0, 9.0])
    assert not d.requires_grad, "a detached tensor should not require a gradient"
    assert x.requires_grad, "x.detach() should leave x itself as it is"
    (x * x.detach()).sum().backward()
    must_equal(
        "the gradient of (x * x.detach()).sum() at [2, 3]",
        array(x.grad),
        [2.0, 3.0],
        hint="\nTo backward, the detached factor is a constant",
    )


# Elementwise: two tensors


BINARY = ["x + y", "x - y", "x * y", "x / q", "p**y"]
NAMES = ["__add__", "__sub__", "__mul__", "__truediv__", "__pow__"]
OPERATORS = [
    pytest.param(line, id=line, marks=pytest.mark.checks(f"Tensor.{name}"))
    for line, name in zip(BINARY, NAMES, strict=True)
]


@pytest.mark.parametrize("line", OPERATORS)
@pytest.mark.parametrize("shapes", PAIRS, ids=str)
def test_arithmetic_agrees_with_torch(build, line, shapes):
    agree(build, line, *shapes)


WITH_NUMBERS = {
    "x + 2": "__add__",
    "2 + x": "__add__",
    "x - 0.1": "__sub__",
    "0.1 - x": "__sub__",
    "x * 0.1": "__mul__",
    "0.1 * x": "__mul__",
    "x / 3": "__truediv__",
    "0.1 / p": "__truediv__",
    "p**2": "__pow__",
    "x**2": "__pow__",
    "x**3": "__pow__",
    "p**0.5": "__pow__",
    "p**-1": "__pow__",
    "p**-1.5": "__pow__",
    "x**0": "__pow__",
    "x**1": "__pow__",
    "2**x": "__pow__",
    "0.5**x": "__pow__",
    "-x": "__neg__",
    "-(-x)": "__neg__",
    "x + x": "__add__",
    "x - x": "__sub__",
    "x * x": "__mul__",
    "p / p": "__truediv__",
    "x * x * x + x": "__mul__",
}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, id=line, marks=pytest.mark.checks(f"Tensor.{name}"))
        for line, name in WITH_NUMBERS.items()
    ],
)
def test_arithmetic_with_numbers_and_with_itself_agrees_with_torch(build, line):
    for shape in SHAPES:
        agree(build, line, shape)


@pytest.mark.parametrize("line", OPERATORS)
def test_arithmetic_refuses_shapes_that_do_not_fit(build, line):
    line = line.replace("p", "x").replace("q", "y")
    reason = "Aligned at the right, 3 meets 2. The message should show both shapes"
    must_refuse(build, line, reason, x=np.ones((2, 3)), y=np.ones(2))
    must_refuse(build, line, reason, x=np.ones((2, 3)), y=np.ones((2, 2)))


@pytest.mark.checks("Tensor.__pow__")
@lines("x**2", "x**3", "x**1", "x**0", "x**2.0", "x**1.5")
def test_powers_of_zero_have_finite_gradients(build, line):
    x, y = leaf(build, [0.0, 0.0]), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    eval(line, {"x": x}).sum().backward()
    eval(line, {"x": y}).sum().backward()
    must_equal(f"the gradient of ({line}).sum() at 0", array(x.grad), array(y.grad))


@pytest.mark.checks("Tensor.__pow__")
def test_powers_of_zero_have_finite_gradients_for_their_exponent(build):
    x, y = leaf(build, [0.0, 0.0, 2.0]), leaf(build, [1.0, 2.0, 3.0])
    (x**y).sum().backward()
    must_equal(
        "the gradient of (x**y).sum() for y at x = [0, 0, 2], y = [1, 2, 3]",
        array(y.grad),
        [0.0, 0.0, 8 * math.log(2)],
        hint="\nIt is x**y * log(x), and log(0) is -inf: where x is 0 it has to be 0",
    )


@pytest.mark.checks("Tensor.__add__")
@lines(
    "torch.tensor([1, 2]) + torch.tensor([3, 4])",
    "torch.tensor([1, 2]) + 1",
    "torch.tensor([1, 2]) * 2.5",
    "torch.tensor([1, 2]) * torch.tensor([0.5, 0.5])",
    "torch.tensor([1, 2]) / 2",
    "torch.tensor([7, 8]) / torch.tensor([2, 2])",
    "torch.tensor([1, 2]) + torch.tensor([True, False])",
    "torch.tensor([1.0, 2.0]) + torch.tensor([1, 2])",
    "torch.tensor([1.0, 2.0]) + torch.tensor([1.0, 2.0], dtype=torch.float64)",
    "torch.tensor([2, 3]) ** 2",
)
def test_arithmetic_of_different_dtypes_agrees_with_torch(build, line):
    agree(build, line, hint="bool < int64 < float32 < float64: the result has the larger dtype")


@pytest.mark.checks("Tensor.__lt__")
@lines(
    "x < y",
    "x <= y",
    "x > y",
    "x >= y",
    "x == y",
    "x != y",
    "(x < y) == (y > x)",
)
def test_comparisons_agree_with_torch(build, line):
    for shapes in PAIRS:
        agree(build, line, *shapes)


@pytest.mark.checks("Tensor.__lt__")
@lines("x < 2", "2 < x", "x <= 2", "x > 2", "x >= 2", "2 >= x", "x == 2", "x != 2")
def test_comparisons_with_a_number_by_hand(build, line):
    got = eval(line, {"x": build.tensor([1, 2, 3])})
    assert got.dtype == build.bool, f"{line} should be bool, got {got.dtype}"
    expected = eval(line, {"x": np.array([1, 2, 3])}).tolist()
    assert got.tolist() == expected, f"{line}, x = [1, 2, 3], should be {expected}: {got.tolist()}"


# backward


@pytest.mark.checks("Tensor.backward")
def test_backward_of_a_product_by_hand(build):
    x, y = leaf(build, 2.0), leaf(build, 5.0)
    (x * y + x).backward()
    assert isinstance(x.grad, build.Tensor), f".grad should be a Tensor, got {type(x.grad)}"
    assert x.grad.item() == 6.0, f"d(x*y + x)/dx at (2, 5) should be 5 + 1, got {x.grad.item()}"
    assert y.grad.item() == 2.0, f"d(x*y + x)/dy at (2, 5) should be 2, got {y.grad.item()}"


@pytest.mark.checks("Tensor.backward")
def test_backward_adds_up_where_paths_meet(build):
    x = leaf(build, 3.0)
    a = x * 2
    b = a * a
    c = a + b
    (c * b).backward()  # (2x + 4x^2) 4x^2 = 8x^3 + 16x^4
    assert x.grad.item() == 24 * 9 + 64 * 27, (
        f"d/dx of 8x^3 + 16x^4 at 3 should be {24 * 9 + 64 * 27}, got {x.grad.item()}\n"
        "A node may pass its gradient on only when all its uses have added to it"
    )


@pytest.mark.checks("Tensor.backward")
def test_backward_adds_to_the_gradient_that_is_there(build):
    x = leaf(build, [1.0, 2.0])
    (x * x).sum().backward()
    first = x.grad
    kept = array(first).copy()
    (x * 3).sum().backward()
    must_equal(
        "after the backward of (x * x).sum() and of (x * 3).sum(), x.grad at [1, 2]",
        array(x.grad),
        [5.0, 7.0],
        hint="\nGradients add up until they are set to None",
    )
    x.grad = None
    (x * 3).sum().backward()
    must_equal("after x.grad = None and the backward of (x * 3).sum()", array(x.grad), [3.0, 3.0])
    assert kept.tolist() == [2.0, 4.0]


@pytest.mark.checks("Tensor.backward")
def test_backward_keeps_the_gradients_of_two_tensors_apart(build):
    x, y = leaf(build, [1.0, 1.0]), leaf(build, [1.0, 1.0])
    (x + y).sum().backward()
    (x * 5).sum().backward()
    must_equal(
        "y.grad after the backward of (x + y).sum() and of (x * 5).sum()",
        array(y.grad),
        [1.0, 1.0],
        hint="\nx and y share one buffer for their gradients: do not add in place to what was "
        "passed on",
    )
    x, y = leaf(build, [1.0, 1.0]), leaf(build, [1.0, 1.0])
    a, b = x * 1, y * 1
    ((a + b) + a * 5).sum().backward()
    must_equal("y.grad of ((a + b) + a * 5).sum(), b = y * 1,", array(y.grad), [1.0, 1.0])
    x, y = leaf(build, [1.0, 1.0]), leaf(build, [1.0, 1.0])
    a, b = x * 1, y * 1
    (a * 5 + (b + a)).sum().backward()
    must_equal("y.grad of (a * 5 + (b + a)).sum(), b = y * 1,", array(y.grad), [1.0, 1.0])
    for x, y in ((leaf(build, 1.0), leaf(build, 1.0)), (leaf(build, [1.0]), leaf(build, [1.0]))):
        (x + y).sum().backward()
        assert x.grad is not y.grad and not np.shares_memory(array(x.grad), array(y.grad)), (
            "after (x + y).sum().backward() x.grad and y.grad are one buffer: what scales the "
            "gradients in place, as clipping does, would scale it twice"
        )


@pytest.mark.checks("Tensor.backward")
def test_backward_leaves_constants_alone(build):
    x, c = leaf(build, [1.0, 2.0]), build.tensor([3.0, 4.0], dtype=build.float64)
    y = x * c
    assert y.requires_grad, "x * c requires a gradient, since x does"
    assert not (c * c).requires_grad, "c * c does not require a gradient, since c does not"
    y.sum().backward()
    assert c.grad is None, f"c does not require a gradient, yet c.grad is {c.grad}"
    must_equal("the gradient of (x * c).sum() for x", array(x.grad), [3.0, 4.0])


@pytest.mark.checks("Tensor.backward")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backward_gives_gradients_of_the_tensors_shape_and_dtype(build, dtype):
    for shape in SHAPES:
        x = leaf(build, numbers(shape), dtype)
        (x * x * 0.5 + 1).sum().backward()
        assert tuple(x.grad.shape) == shape, (
            f"x.grad of x {shape} should have its shape, got {tuple(x.grad.shape)}"
        )
        assert x.grad.dtype == x.dtype, f"x.grad of a {dtype} x should be so, got {x.grad.dtype}"
        assert not x.grad.requires_grad, "x.grad should not require a gradient itself"


@pytest.mark.checks("Tensor.backward")
def test_backward_takes_the_gradient_of_a_larger_result(build):
    x = leaf(build, [1.0, 2.0])
    (x * x).backward(build.tensor([1.0, 10.0], dtype=build.float64))
    must_equal("x.grad after (x * x).backward([1, 10]), x = [1, 2],", array(x.grad), [2.0, 40.0])


@pytest.mark.checks("Tensor.backward")
def test_backward_needs_one_number_or_a_gradient(build):
    x = leaf(build, [1.0, 2.0])
    for result, reason in (
        (x * x, "two numbers have no single derivative: ask for a gradient"),
        (build.tensor(1.0) * 2, "nothing in it requires a gradient"),
    ):
        try:
            result.backward()
        except NotImplementedError:
            raise
        except (RuntimeError, ValueError, AssertionError):
            continue
        pytest.fail(f"backward should raise an error: {reason}", pytrace=False)


@pytest.mark.checks("Tensor.backward")
def test_backward_of_a_chain_of_ten_thousand_operations(build):
    x = leaf(build, 1.0)
    y = x
    for _ in range(10_000):
        y = y + 0.5
    y.backward()
    assert x.grad.item() == 1.0, f"d(x + 0.5 + 0.5 + ...)/dx should be 1, got {x.grad.item()}"


@pytest.mark.checks("Tensor.backward")
def test_backward_visits_a_node_once_however_many_paths_lead_there(build):
    x = leaf(build, 1.0)
    y = x
    for _ in range(60):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**60, f"after 60 doublings dy/dx should be 2^60: {x.grad.item()}"


# no_grad


@pytest.mark.checks("no_grad")
def test_no_grad_records_nothing_inside_and_everything_after(build):
    x = leaf(build, [1.0, 2.0])
    with build.no_grad():
        inside = x * 2
    after = x * 2
    assert not inside.requires_grad, "inside no_grad, x * 2 should not require a gradient"
    assert after.requires_grad, "after no_grad, x * 2 should require a gradient again"
    assert x.requires_grad, "no_grad should leave x itself as it is"
    must_equal("x * 2 inside no_grad", array(inside), [2.0, 4.0])


@pytest.mark.checks("no_grad")
def test_no_grad_ends_where_its_block_ends(build):
    x = leaf(build, [1.0, 2.0])
    with build.no_grad():
        with build.no_grad():
            pass
        assert not (x * 2).requires_grad, "an inner no_grad must not end the outer one"
    try:
        with build.no_grad():
            raise KeyError
    except KeyError:
        pass
    assert (x * 2).requires_grad, "an error that leaves the block must end no_grad, too"


@pytest.mark.checks("no_grad")
def test_no_grad_can_stand_above_a_function(build):
    x = leaf(build, [1.0, 2.0])

    @build.no_grad()
    def twice(x):
        return x * 2

    for _ in range(2):
        assert not twice(x).requires_grad, "under @no_grad() a function should record nothing"
        assert (x * 2).requires_grad, "after a function under @no_grad() recording goes on"


# Elementwise: one tensor


@pytest.mark.checks("Tensor.to")
@lines("x.to(torch.float64)", "x.to(torch.float32)", "x.float()", "(x * 3).long()", "x.long() + 1")
def test_dtypes_are_changed_as_in_torch(build, line):
    for shape in SHAPES:
        agree(build, line, shape, hint="long() rounds towards zero")


@pytest.mark.checks("Tensor.to")
@lines(
    "torch.tensor([0, 1, 2]).float()",
    "torch.tensor([True, False]).long()",
    "torch.tensor([1.9, -1.9]).long()",
    "torch.tensor([0.0, 0.5]).to(torch.bool)",
    "torch.tensor([1, 2]).to(torch.float64)",
)
def test_dtypes_are_changed_by_hand(build, line):
    agree(build, line)


UNARY = {"exp": "x.exp()", "log": "p.log()", "tanh": "x.tanh()", "sqrt": "p.sqrt()"}
UNARY["relu"] = "x.relu()"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, id=line, marks=pytest.mark.checks(f"Tensor.{name}"))
        for name, line in UNARY.items()
    ],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_functions_of_one_tensor_agree_with_torch(build, line, shape):
    agree(build, line, shape)
    agree(build, f"({line} * 2 + 1) * {line}", shape)


@pytest.mark.checks("Tensor.exp")
@lines("torch.tensor([1, 2]).exp()", "torch.tensor([-1000.0, 0.0, 1000.0]).exp()")
def test_exp_of_integers_and_of_large_numbers(build, line):
    agree(build, line)


@pytest.mark.checks("Tensor.log")
@lines("torch.tensor([1, 2]).log()", "torch.tensor([0.0, 1.0]).log()")
def test_log_of_integers_and_of_zero(build, line):
    agree(build, line)


@pytest.mark.checks("Tensor.tanh")
@pytest.mark.parametrize("size", [20.0, 100.0, 1000.0])
def test_tanh_of_large_numbers_is_one(build, size):
    x = leaf(build, [-size, size], "float32")
    y = x.tanh()
    y.sum().backward()
    hint = "\nexp overflows: is tanh written with exp of 2x? np.tanh does not overflow"
    must_equal(f"tanh of -{size:g} and {size:g}", array(y), [-1.0, 1.0], hint=hint)
    must_equal(f"its gradient at -{size:g} and {size:g}", array(x.grad), [0.0, 0.0], hint=hint)


@pytest.mark.checks("Tensor.relu")
@lines("torch.tensor([-1, 0, 2]).relu()", "torch.tensor([-math.inf, math.inf]).relu()")
def test_relu_of_integers_and_of_infinity(build, line):
    agree(build, line)


@pytest.mark.checks("Tensor.relu")
def test_relu_is_flat_below_and_at_zero(build):
    x = leaf(build, [-2.0, 0.0, 3.0])
    y = x.relu()
    y.sum().backward()
    must_equal("relu of [-2, 0, 3]", array(y), [0.0, 0.0, 3.0])
    must_equal("the gradient of relu at [-2, 0, 3]", array(x.grad), [0.0, 0.0, 1.0])
    must_equal("relu must leave its input alone: x", array(x), [-2.0, 0.0, 3.0])


MASK = "torch.tensor([[True, False, False], [True, True, False]])"


@pytest.mark.checks("Tensor.masked_fill")
@lines(
    f"x.masked_fill({MASK}, 0.5)",
    f"x.masked_fill({MASK}, 7)",
    f'x.masked_fill({MASK}, float("-inf")).exp()',
    "x.masked_fill(torch.tensor([True, False, True]), 0.0)",
    "x.masked_fill(torch.tensor([[True], [False]]), 0.0)",
    "x.masked_fill(torch.tensor(True), 1.0)",
    "x.masked_fill(x > 0, 2.0) * x",
)
def test_masked_fill_agrees_with_torch(build, line):
    agree(build, line, (2, 3), hint="The value goes where the mask is True, and stops the gradient")


@pytest.mark.checks("Tensor.masked_fill")
def test_masked_fill_makes_a_new_tensor(build):
    x = build.tensor([1.0, 2.0])
    x.masked_fill(build.tensor([True, False]), 9.0)
    must_equal("x after x.masked_fill(mask, 9)", array(x), [1.0, 2.0])
    batch = build.tensor(numbers((2, 1, 3, 3)), dtype=build.float32)
    mask = build.tensor(np.tri(3) > 0)
    expected = np.where(np.tri(3) > 0, np.float32(-1), array(batch))
    must_equal(
        "masked_fill of (2, 1, 3, 3) with a mask (3, 3)",
        array(batch.masked_fill(mask, -1)),
        expected,
    )


# Shapes


@pytest.mark.checks("Tensor.expand")
@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("x.expand(2, 3)", (3,)),
        ("x.expand(2, 3)", (1, 3)),
        ("x.expand(3, 3)", (3,)),
        ("x.expand(3, 3)", (3, 1)),
        ("x.expand((4, 2, 3))", (2, 1)),
        ("x.expand(-1, 4)", (3, 1)),
        ("x.expand(2, -1, -1)", (3, 1)),
        ("x.expand(2, 3)", ()),
        ("x.expand(5)", (5,)),
        ("x.expand(2, 4, 3, 2)", (2, 1, 3, 1)),
        ("x.expand(0, 3)", (1, 3)),
        ("x.expand(3, 4) * x", (3, 1)),
    ],
    ids=str,
)
def test_expand_agrees_with_torch(build, line, shape):
    agree(build, line, shape, hint="Its gradient is what unbroadcast makes of the result's")


@pytest.mark.checks("Tensor.expand")
def test_expand_refuses_what_does_not_stretch(build):
    for line in ("x.expand(4, 3)", "x.expand(2, 6)", "x.expand(3)", "x.expand(3, 2)"):
        must_refuse(build, line, "Only axes of size 1 stretch", x=np.ones((2, 3)))


RESHAPES = [
    ("(3, 2)", (2, 3)),
    ("(6,)", (2, 3)),
    ("(-1,)", (2, 3)),
    ("(3, -1)", (2, 3)),
    ("(2, 1, 3)", (2, 3)),
    ("(4, 3, 2)", (2, 3, 4)),
    ("(-1, 4)", (2, 3, 4)),
    ("(1, 1)", ()),
    ("(0, 5)", (2, 0)),
    ("(2, 2, 3, 1)", (3, 4)),
]


@pytest.mark.checks("Tensor.reshape")
@pytest.mark.parametrize(("to", "shape"), RESHAPES, ids=str)
def test_reshape_agrees_with_torch(build, to, shape):
    hint = "The elements stay in the order in which they are read: row by row"
    agree(build, f"x.reshape({to})", shape, hint=hint)
    agree(build, f"x.reshape(*{to}) * 2", shape, hint=hint)


@pytest.mark.checks("Tensor.view")
@pytest.mark.parametrize(("to", "shape"), RESHAPES, ids=str)
def test_view_agrees_with_torch(build, to, shape):
    agree(build, f"x.view({to})", shape)
    agree(build, f"x.view(*{to}) * 2", shape)


@pytest.mark.checks("Tensor.reshape")
def test_reshape_refuses_another_number_of_elements(build):
    for line in ("x.reshape(4)", "x.reshape(2, 2)", "x.view(7)", "x.reshape(4, -1)"):
        must_refuse(build, line, "x has 6 elements", x=np.ones((2, 3)))


@pytest.mark.checks("Tensor.permute")
@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("x.permute(1, 0)", (2, 3)),
        ("x.permute((1, 0))", (2, 3)),
        ("x.permute(2, 0, 1)", (2, 3, 4)),
        ("x.permute(1, 2, 0)", (3, 3, 3)),
        ("x.permute(-1, 0, 1)", (3, 3, 3)),
        ("x.permute(0, 2, 1, 3)", (2, 3, 4, 5)),
        ("x.permute(3, 1, 0, 2)", (2, 2, 2, 2)),
        ("x.permute(0)", (3,)),
        ("x.permute(1, 0, 2)", (2, 0, 3)),
    ],
    ids=str,
)
def test_permute_agrees_with_torch(build, line, shape):
    agree(build, line, shape, hint="The gradient goes back through the inverse permutation")


@pytest.mark.checks("Tensor.transpose")
@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("x.transpose(0, 1)", (2, 3)),
        ("x.transpose(0, 1)", (3, 3)),
        ("x.transpose(-2, -1)", (2, 3, 4)),
        ("x.transpose(1, 2)", (2, 3, 4, 5)),
        ("x.transpose(0, -1)", (3, 3, 3)),
        ("x.transpose(2, 0)", (2, 3, 4)),
        ("x.transpose(1, 1)", (2, 3)),
        ("x.transpose(0, 1)", (0, 2)),
        ("x.transpose(1, 2).reshape(2, 12)", (2, 3, 4)),
    ],
    ids=str,
)
def test_transpose_agrees_with_torch(build, line, shape):
    agree(build, line, shape, hint="Two axes change places, all others stay")


@pytest.mark.checks("Tensor.T")
@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (1, 4), (0, 2)], ids=str)
def test_T_agrees_with_torch(build, shape):
    agree(build, "x.T", shape)


@pytest.mark.checks("Tensor.squeeze")
@pytest.mark.parametrize(
    ("line", "shape"),
    [
        ("x.squeeze()", (1, 3, 1)),
        ("x.squeeze()", (2, 3)),
        ("x.squeeze()", (1, 1)),
        ("x.squeeze(0)", (1, 3, 1)),
        ("x.squeeze(-1)", (1, 3, 1)),
        ("x.squeeze(1)", (1, 3, 1)),
        ("x.squeeze(2)", (2, 1, 1, 3)),
        ("x.squeeze(-2)", (2, 1, 1, 3)),
        ("x.squeeze()", (1, 0)),
    ],
    ids=str,
)
def test_squeeze_agrees_with_torch(build, line, shape):
    agree(build, line, shape, hint="With dim, only that axis goes, and only if its size is 1")


@pytest.mark.checks("Tensor.unsqueeze")
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_unsqueeze_agrees_with_torch(build, dim):
    hint = "A negative dim counts from the right of the result: -1 is its last axis"
    agree(build, f"x.unsqueeze({dim})", (2, 3), hint=hint)
    if dim in (0, -1):
        agree(build, f"x.unsqueeze({dim})", (), hint=hint)


@pytest.mark.checks("Tensor.clone")
@lines(
    "x.clone()",
    "x.clone() * x",
    "x.contiguous()",
    "x.transpose(0, 1).contiguous()",
    "x.transpose(0, 1).contiguous().view(-1)",
)
def test_clone_and_contiguous_agree_with_torch(build, line):
    for shape in ((2, 3), (3, 3), (2, 0)):
        agree(build, line, shape)


@pytest.mark.checks("Tensor.clone")
def test_clone_has_its_own_memory(build):
    x = build.tensor([1.0, 2.0])
    copy = x.clone()
    copy.numpy()[0] = 9.0
    must_equal("x after its clone was changed", array(x), [1.0, 2.0])


@pytest.mark.checks("Tensor.transpose")
@lines("x.transpose(0, 3)", "x.permute(0, 1)", "x.permute(0, 0, 1)", "x.unsqueeze(5)")
def test_axes_that_are_not_there_are_refused(build, line):
    must_refuse(build, line, "x has three axes", x=np.ones((2, 3, 4)))


# Indexing


@pytest.mark.checks("Tensor.__getitem__")
@lines(
    "x[0]",
    "x[-1]",
    "x[1, 2]",
    "x[1, 2, 3]",
    "x[0, -1]",
    "x[1:]",
    "x[:2]",
    "x[:, 1]",
    "x[:, 1:3]",
    "x[:, :-1]",
    "x[::2]",
    "x[:, ::2, 1:]",
    "x[:, :, -1]",
    "x[None]",
    "x[:, None]",
    "x[None, 1, None]",
    "x[0, :, 1:2]",
    "x[2:1]",
    "x[:]",
    "x[1:3][0]",
)
def test_indexing_with_numbers_and_slices_agrees_with_torch(build, line):
    agree(build, line, (3, 4, 5))
    agree(build, line, (4, 4, 4))


@pytest.mark.checks("Tensor.__getitem__")
@lines(
    "x[torch.tensor([0, 2])]",
    "x[torch.tensor([-1, 0])]",
    "x[torch.tensor([0, 0, 0, 2])]",
    "x[torch.tensor([[0, 1], [1, 1]])]",
    "x[torch.tensor(1)]",
    "x[:, torch.tensor([0, 2, 2])]",
    "x[torch.tensor([0, 1]), torch.tensor([2, 0])]",
    "x[torch.tensor([0, 0]), torch.tensor([2, 2])]",
    "x[torch.arange(3), torch.tensor([0, 2, 1])]",
    "x[torch.tensor([[0], [1]]), torch.tensor([2, 0])]",
    "x[torch.tensor([], dtype=torch.int64)]",
    "x[torch.tensor([1, 1])] * x[torch.tensor([0, 1])]",
)
def test_indexing_with_integer_tensors_agrees_with_torch(build, line):
    hint = "A row that is taken twice gets the sum of both gradients (np.add.at)"
    agree(build, line, (3, 4), hint=hint)
    agree(build, line, (3, 3, 2), hint=hint)


@pytest.mark.checks("Tensor.__getitem__")
@lines(
    "x[torch.tensor([True, False, True])]",
    "x[torch.tensor([False, False, False])]",
    "x[x > 0]",
    "x[torch.tensor([[True, False, False], [False, True, True], [True, True, True]])]",
    "x[:, torch.tensor([True, False, True])]",
)
def test_indexing_with_bool_tensors_agrees_with_torch(build, line):
    agree(build, line, (3, 3), hint="Bools select the places that are True")


@pytest.mark.checks("Tensor.__getitem__")
def test_indexing_outside_is_refused(build):
    for line in ("x[2]", "x[0, 3]", "x[0, 0, 0]", "x[torch.tensor([0, 2])]"):
        must_refuse(build, line, "x has 2 rows and 3 columns", x=np.ones((2, 3)))


# Reductions

DIMS = ["", "0", "1", "2", "-1", "-2", "-3"]
KEPT = [f"{dim}, keepdim=True" for dim in DIMS[1:]]
SEVERAL = ["(0, 1)", "(0, 2)", "(-1, 0)", "(1, 2), keepdim=True", "(0, -1), keepdim=True"]
CUBES = [(2, 3, 4), (3, 3, 3), (2, 1, 3)]


def reductions(name, dims, after=""):
    return lines(*(f"x.{name}({dim}){after}" for dim in dims))


@pytest.mark.checks("Tensor.sum")
def test_sum_by_hand(build):
    x = leaf(build, [[1.0, 2.0], [3.0, 4.0]])
    y = x.sum(0)
    must_equal("[[1, 2], [3, 4]].sum(0)", array(y), [4.0, 6.0], hint="\nsum(0) adds the rows up")
    (y * build.tensor([1.0, 10.0], dtype=build.float64)).sum().backward()
    must_equal(
        "the gradient of x.sum(0)[0] + 10 * x.sum(0)[1]",
        array(x.grad),
        [[1.0, 10.0], [1.0, 10.0]],
        hint="\nEvery element of a column moves its sum by as much: stretch the gradient back to "
        "the shape of x",
    )


@pytest.mark.checks("Tensor.sum")
@reductions("sum", [*DIMS, *KEPT, *SEVERAL])
def test_sum_agrees_with_torch(build, line):
    for shape in CUBES:
        agree(build, line, shape)


@pytest.mark.checks("Tensor.sum")
def test_sum_of_integers_bools_and_nothing(build):
    for line in (
        "torch.tensor([1, 2, 3]).sum()",
        "torch.tensor([[True, True], [False, True]]).sum()",
        "torch.tensor([[True, True], [False, True]]).sum(1)",
        "torch.zeros(0).sum()",
        "torch.zeros(2, 0).sum(1)",
        "torch.zeros(2, 0).sum(0)",
    ):
        agree(build, line)
    for shape in SHAPES:
        agree(build, "x.sum()", shape)


@pytest.mark.checks("Tensor.mean")
@reductions("mean", [*DIMS, *KEPT, *SEVERAL])
def test_mean_agrees_with_torch(build, line):
    for shape in CUBES:
        agree(build, line, shape, hint="Divide by as many as were added up")


@pytest.mark.checks("Tensor.mean")
def test_mean_of_every_shape(build):
    for shape in SHAPES:
        agree(build, "x.mean()", shape)
    agree(build, "x.mean(0)", (4,))
    agree(build, "x.mean(1)", (2, 0))


@pytest.mark.checks("Tensor.var")
def test_var_of_three_numbers_by_hand(build):
    x = build.tensor([1.0, 2.0, 6.0])
    must_equal(
        "var of [1, 2, 6], mean 3, squares 4 + 1 + 9,",
        array(x.var()),
        7.0,
        hint="\nvar divides by n - 1, unless it is told unbiased=False",
    )
    must_equal("var(unbiased=False) of [1, 2, 6]", array(x.var(unbiased=False)), 14 / 3)
    must_equal(
        "var of [10001, 10002, 10006] in float32",
        array((x + 10000).var()),
        7.0,
        hint="\nThe mean of the squares minus the square of the mean loses all digits: take the "
        "mean away first",
    )


@pytest.mark.checks("Tensor.var")
@reductions(
    "var",
    [
        "",
        "0",
        "-1",
        "1, keepdim=True",
        "-1, keepdim=True, unbiased=False",
        "unbiased=False",
        "2, unbiased=False",
    ],
)
def test_var_agrees_with_torch(build, line):
    for shape in ((2, 3, 4), (3, 3, 3)):
        agree(build, line, shape)


@pytest.mark.checks("Tensor.max")
@reductions("max", [*DIMS[1:], *KEPT], ".values")
def test_max_values_agree_with_torch(build, line):
    for shape in CUBES:
        agree(build, line, shape, hint="The gradient goes to the largest element alone")


@pytest.mark.checks("Tensor.max")
@reductions("max", [*DIMS[1:], *KEPT], ".indices")
def test_max_indices_agree_with_torch(build, line):
    for shape in CUBES:
        agree(build, line, shape)


@pytest.mark.checks("Tensor.min")
@reductions("min", [*DIMS[1:], *KEPT], ".values")
def test_min_values_agree_with_torch(build, line):
    for shape in CUBES:
        agree(build, line, shape, hint="The gradient goes to the smallest element alone")


@pytest.mark.checks("Tensor.min")
@reductions("min", [*DIMS[1:], *KEPT], ".indices")
def test_min_indices_agree_with_torch(build, line):
    for shape in CUBES:
        agree(build, line, shape)


@pytest.mark.checks("Tensor.amax")
@reductions("amax", [*DIMS, *KEPT, "(0, 2)", "(-1, 0), keepdim=True"])
def test_amax_agrees_with_torch(build, line):
    for shape in CUBES:
        agree(build, line, shape, hint="The gradient goes to the largest element alone")


@pytest.mark.checks("Tensor.amax")
def test_amax_shares_one_gradient_among_equals(build):
    for line in ("x.amax(0).sum()", "x.amax(0, keepdim=True).sum()", "x.amax() * 2"):
        x = leaf(build, [[5.0, 5.0], [5.0, 5.0]])
        eval(line, {"x": x}).backward()
        assert array(x.grad).tolist() == [[0.5, 0.5], [0.5, 0.5]], (
            f"the gradient of {line} where all elements are 5 is 0.5 for each, "
            f"an equal share; got\n{shown(array(x.grad))}"
        )


@pytest.mark.checks("Tensor.max")
@lines("x.max()", "x.min()", "x.max() * x.min()", "x.max(0).values.max()")
def test_max_and_min_of_all_agree_with_torch(build, line):
    for shape in ((1,), (4,), (2, 3), (3, 3), (2, 1, 3, 2)):
        agree(build, line, shape)


@pytest.mark.checks("Tensor.max")
def test_max_shares_one_gradient_among_equals(build):
    for line, total in (("x.max()", 1), ("x.max(0).values.sum()", 2)):
        x = leaf(build, [[5.0, 1.0], [5.0, 1.0]])
        eval(line, {"x": x}).backward()
        got = array(x.grad)
        assert got.sum() == total and (got >= 0).all(), (
            f"the gradient of {line} at [[5, 1], [5, 1]] should sum to {total}, got\n{shown(got)}\n"
            "Equal largest elements share it, or one of them gets it all"
        )


@pytest.mark.checks("Tensor.argmax")
def test_argmax_is_the_first_of_equals(build):
    x = build.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]])
    for line, expected in (
        ("x.argmax()", 1),
        ("x.argmax(1)", [1, 0]),
        ("x.max(1).indices", [1, 0]),
        ("(-x).min(1).indices", [1, 0]),
    ):
        got = eval(line, {"x": x}).tolist()
        assert got == expected, (
            f"{line} of [[1, 3, 3], [2, 2, 0]] is {expected}, the first of equals; got {got}"
        )


@pytest.mark.checks("Tensor.argmax")
@reductions("argmax", [*DIMS, *KEPT, "keepdim=True"])
def test_argmax_agrees_with_torch(build, line):
    for shape in CUBES:
        agree(build, line, shape)


@pytest.mark.checks("Tensor.sum")
@lines(
    "x.sum(2)",
    "x.mean(2)",
    "x.sum(-3)",
    "x.max(2)",
    "x.amax((0, 2))",
    "x.softmax(2)",
    "x.argmax(-3)",
    "x.sum((0, -2))",
)
def test_reductions_refuse_axes_that_are_not_there(build, line):
    must_refuse(build, line, "x has axes 0 and 1, each once", x=np.ones((2, 3)))


# softmax


@pytest.mark.checks("Tensor.softmax")
def test_softmax_of_three_scores_by_hand(build):
    x = build.tensor([0.0, math.log(2), math.log(5)])  # exp gives 1, 2, 5
    must_equal("softmax of [0, ln 2, ln 5]", array(x.softmax(0)), [0.125, 0.25, 0.625])


@pytest.mark.checks("Tensor.softmax")
@lines("x.softmax(0)", "x.softmax(1)", "x.softmax(-1)", "x.softmax(dim=-2)")
def test_softmax_agrees_with_torch(build, line):
    for shape in ((2, 3), (3, 3), (2, 3, 4), (1, 1), (2, 1, 3, 2)):
        agree(build, line, shape)
    agree(build, "x.softmax(-1)", (0, 3))


@pytest.mark.checks("Tensor.softmax")
@pytest.mark.parametrize("shift", [100.0, 1000.0, -1000.0, 1e30], ids=lambda shift: f"{shift:g}")
def test_softmax_is_not_changed_by_a_constant(build, shift):
    x = build.tensor([[shift, shift], [-shift, -shift]])
    must_equal(
        f"softmax of two equal scores of {shift:g} and of {-shift:g}",
        array(x.softmax(-1)),
        np.full((2, 2), 0.5),
        hint="\nexp overflows above 88 and vanishes below -104: subtract each row's largest score",
    )


@pytest.mark.checks("Tensor.softmax")
def test_softmax_gives_no_weight_to_minus_infinity(build):
    x = leaf(build, [[-math.inf, 0.0, 0.0], [3.0, -math.inf, -math.inf]], "float32")
    y = x.softmax(-1)
    must_equal("softmax of rows with -inf", array(y), [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    (y * y).sum().backward()
    assert np.isfinite(array(x.grad)).all(), f"its gradient is\n{shown(array(x.grad))}"


@pytest.mark.checks("Tensor.log_softmax")
@lines("x.log_softmax(0)", "x.log_softmax(1)", "x.log_softmax(-1)", "x.log_softmax(dim=-2)")
def test_log_softmax_agrees_with_torch(build, line):
    for shape in ((2, 3), (3, 3), (2, 3, 4), (1, 1), (2, 1, 3, 2)):
        agree(build, line, shape)
    agree(build, "x.log_softmax(-1)", (0, 3))


@pytest.mark.checks("Tensor.log_softmax")
@pytest.mark.parametrize("gap", [100.0, 200.0, 10000.0], ids=lambda gap: f"{gap:g}")
def test_log_softmax_stays_finite_where_softmax_rounds_to_zero(build, gap):
    x = leaf(build, [0.0, gap], "float32")
    y = x.log_softmax(0)
    must_equal(
        f"log_softmax of [0, {gap:g}]",
        array(y),
        [-gap, 0.0],
        hint="\nThe logarithm of a softmax that was rounded to 0 is -inf: take the logarithm of "
        "the sum instead, after the largest score is subtracted",
    )
    y.sum().backward()
    must_equal(f"the gradient of its sum at [0, {gap:g}]", array(x.grad), [1.0, -1.0])


# matmul

PRODUCTS = [
    ((2, 3), (3, 4)),
    ((3, 3), (3, 3)),
    ((1, 1), (1, 1)),
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((1, 3), (3,)),
    ((3,), (3, 1)),
    ((2, 1, 3), (3,)),
    ((2, 1, 2, 3), (4, 3, 2)),
    ((1, 2, 3), (5, 3, 4)),
    ((3, 3, 3), (3, 3, 3)),
    ((2, 3, 2, 3), (2, 3, 3, 2)),
    ((2, 0), (0, 3)),
    ((0, 2), (2, 3)),
    ((4, 0, 2), (2, 3)),
]


@pytest.mark.checks("Tensor.matmul")
def test_matmul_by_hand(build):
    a, b = leaf(build, [[1.0, 2.0], [3.0, 4.0]]), leaf(build, [[5.0, 6.0], [7.0, 8.0]])
    y = a @ b
    must_equal("[[1, 2], [3, 4]] @ [[5, 6], [7, 8]]", array(y), [[19.0, 22.0], [43.0, 50.0]])
    (y * build.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=build.float64)).sum().backward()
    must_equal(
        "the gradient of (a @ b)[0, 0] = a00 b00 + a01 b10 for a",
        array(a.grad),
        [[5.0, 7.0], [0.0, 0.0]],
        hint="\nIt is g @ b.T, not g @ b",
    )
    must_equal(
        "the gradient of (a @ b)[0, 0] = a00 b00 + a01 b10 for b",
        array(b.grad),
        [[1.0, 0.0], [2.0, 0.0]],
        hint="\nIt is a.T @ g, not a @ g",
    )


@pytest.mark.checks("Tensor.matmul")
@pytest.mark.parametrize("shapes", PRODUCTS, ids=str)
@lines("x @ y", "x.matmul(y)")
def test_matmul_agrees_with_torch(build, line, shapes):
    hint = "The last two axes are multiplied, the ones before are broadcast"
    agree(build, line, *shapes, hint=hint)


@pytest.mark.checks("Tensor.matmul")
def test_matmul_of_a_tensor_with_itself(build):
    agree(build, "x @ x", (3, 3))
    agree(build, "x @ x.transpose(-2, -1)", (2, 3, 4))
    agree(build, "(x @ y).tanh() @ y.T", (2, 3), (3, 4))


@pytest.mark.checks("Tensor.matmul")
def test_matmul_refuses_sizes_that_do_not_fit(build):
    reason = "The last size of x has to be the last but one of y"
    for x, y in (((2, 3), (2, 3)), ((2, 3), (2,)), ((2, 3), (1, 3)), ((2, 1), (3, 2))):
        must_refuse(build, "x @ y", reason, x=np.ones(x), y=np.ones(y))
    must_refuse(build, "x @ y", "One number has no axis to sum over", x=np.ones((2, 2)), y=2.0)
    reason = "The axes before the last two do not fit"
    must_refuse(build, "x @ y", reason, x=np.ones((2, 2, 2)), y=np.ones((3, 2, 2)))


# Functions of several tensors


@pytest.mark.checks("where")
@pytest.mark.parametrize(
    ("line", "shapes"),
    [
        ("torch.where(x > 0, x, y)", ((2, 3), (2, 3))),
        ("torch.where(x > 0, y, x)", ((2, 3), (3,))),
        ("torch.where(x > 0, y, z)", ((2, 1), (3,), (4, 1, 1))),
        ("torch.where(x > 0, y, z)", ((), (3,), (1,))),
        ("torch.where(x > 0, y, 0.0)", ((2, 3), (2, 3))),
        ("torch.where(x > 0, 1.0, y)", ((3, 3), (3,))),
        ("torch.where(x > 0, x, 0.1)", ((4,),)),
        ("torch.where(x > 0, y, z)", ((0,), (1,), ())),
    ],
    ids=str,
)
def test_where_agrees_with_torch(build, line, shapes):
    agree(build, line, *shapes, hint="The first where the condition is True, the second elsewhere")


@pytest.mark.checks("tril")
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (2, 3, 3), (2, 1, 2, 2)], ids=str)
@lines("torch.tril(x)", "torch.tril(x, 1)", "torch.tril(x, -1)", "torch.tril(x, diagonal=-2)")
def test_tril_agrees_with_torch(build, line, shape):
    agree(build, line, shape, hint="tril keeps the diagonal and what is below it")


@pytest.mark.checks("triu")
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (2, 3, 3), (2, 1, 2, 2)], ids=str)
@lines("torch.triu(x)", "torch.triu(x, 1)", "torch.triu(x, -1)", "torch.triu(x, diagonal=2)")
def test_triu_agrees_with_torch(build, line, shape):
    agree(build, line, shape, hint="triu keeps the diagonal and what is above it")


@pytest.mark.checks("triu")
@lines(
    'torch.triu(torch.full((3, 3), float("-inf")), 1)',
    'torch.tril(torch.full((2, 3), float("-inf")), -1)',
)
def test_what_tril_and_triu_take_away_is_zero_even_if_it_was_infinite(build, line):
    agree(build, line, hint="infinity times zero is not a number: choose, do not multiply")


@pytest.mark.checks("tril")
@lines(
    "torch.tril(torch.ones(3, 3, dtype=torch.bool))",
    "torch.tril(torch.ones(3, 3))",
    "torch.triu(torch.ones(2, 2, dtype=torch.int64))",
)
def test_tril_keeps_the_dtype(build, line):
    agree(build, line)


@pytest.mark.checks("cat")
@pytest.mark.parametrize(
    ("line", "shapes"),
    [
        ("torch.cat([x, y])", ((2,), (3,))),
        ("torch.cat([x, y], 0)", ((2, 3), (1, 3))),
        ("torch.cat([x, y], 1)", ((2, 3), (2, 1))),
        ("torch.cat((x, y), dim=-1)", ((2, 3, 4), (2, 3, 1))),
        ("torch.cat([x, y], -2)", ((2, 3, 4), (2, 1, 4))),
        ("torch.cat([x, y, z], 1)", ((2, 1), (2, 2), (2, 3))),
        ("torch.cat([x, x, y], 0)", ((3, 3), (3, 3))),
        ("torch.cat([x, y, x], 1)", ((3, 3), (3, 3))),
        ("torch.cat([x], 0)", ((2, 3),)),
        ("torch.cat([x, y], 0)", ((0, 3), (2, 3))),
        ("torch.cat([x, y], 1)", ((2, 3), (2, 0))),
    ],
    ids=str,
)
def test_cat_agrees_with_torch(build, line, shapes):
    agree(build, line, *shapes, hint="Each tensor gets its own slice of the gradient")


@pytest.mark.checks("stack")
@pytest.mark.parametrize(
    ("line", "shapes"),
    [
        ("torch.stack([x, y])", ((3,), (3,))),
        ("torch.stack([x, y], 1)", ((3,), (3,))),
        ("torch.stack([x, y], -1)", ((2, 3), (2, 3))),
        ("torch.stack([x, y], -2)", ((2, 3), (2, 3))),
        ("torch.stack([x, y, x], 1)", ((3, 3), (3, 3))),
        ("torch.stack([x, y])", ((), ())),
        ("torch.stack([x, x], dim=2)", ((2, 3),)),
        ("torch.stack([x])", ((2, 0),)),
    ],
    ids=str,
)
def test_stack_agrees_with_torch(build, line, shapes):
    agree(build, line, *shapes, hint="The new axis is axis dim of the result")


@pytest.mark.checks("cat")
@lines(
    "torch.cat([torch.tensor([1, 2]), torch.tensor([0.5])])",
    "torch.stack([torch.tensor([True, False]), torch.tensor([2, 3])])",
)
def test_cat_and_stack_of_different_dtypes_agree_with_torch(build, line):
    agree(build, line)


@pytest.mark.checks("cat")
@lines("torch.cat([x, y], 0)", "torch.stack([x, y])", "torch.cat([x, y], 2)")
def test_cat_and_stack_refuse_sizes_that_differ(build, line):
    reason = "All sizes but that of the joined axis have to be equal"
    must_refuse(build, line, reason, x=np.ones((2, 3)), y=np.ones((2, 4)))


# Laws of the whole

ON_ONE = [
    *UNARY.values(),
    "-x",
    "x * 0.5",
    "x.sum(1)",
    "x.sum()",
    "x.mean(0, keepdim=True)",
    "x.var(1)",
    "x.max(1).values",
    "x.amax((0, 1))",
    "x.min(0).indices",
    "x.argmax(0)",
    "x.softmax(1)",
    "x.log_softmax(0)",
    "x.reshape(-1)",
    "x.transpose(0, 1)",
    "x.permute(1, 0, 2)",
    "x.unsqueeze(1)",
    "x[1:, None]",
    "x[:, torch.tensor([0, 0, 1])]",
    "x.masked_fill(x > 0, 0.0)",
    "x.expand(2, 4, 4, 4)",
    "x.clone()",
    "x.contiguous()",
    "torch.tril(x)",
    "torch.cat([x, x], 1)",
    "torch.stack([x, x], 1)",
]
ON_TWO = [*BINARY, "x < y", "x @ y", "torch.where(x > y, x, y)"]


@pytest.mark.checks("Tensor")
@pytest.mark.parametrize("view", ["permuted", "sliced"])
@lines(*ON_ONE, *ON_TWO)
def test_every_operation_takes_views(build, line, view):
    shapes = [(4, 4, 4)] * (2 if line in ON_TWO else 1)
    hint = "x is a view: its elements do not lie in memory in the order of its shape"
    agree(build, line, *shapes, view=view, hint=hint)


@pytest.mark.checks("Tensor")
@lines(*ON_ONE, *ON_TWO)
def test_no_operation_changes_its_input(build, line):
    names = [name for name in "pqxyz" if re.search(rf"\b{name}\b", line)]
    tensors = {
        name: build.tensor(
            numbers((4, 4, 4), seed, positive=name in "pq"),
            dtype=build.float64,
            requires_grad=True,
        )
        for seed, name in enumerate(names)
    }
    before = {name: array(x).copy() for name, x in tensors.items()}
    result = eval(line, {"torch": build, **tensors})
    values = array(result).copy()
    if result.requires_grad:
        (result * result).sum().backward()
    for name in names:
        must_equal(f"{name} after {line} and its backward", array(tensors[name]), before[name])
    must_equal(f"{line} after its backward", array(result), values)


@pytest.mark.checks("broadcast_shapes")
@pytest.mark.parametrize("line", [*BINARY, "x < y", "torch.where(x > 0, x, y)"], ids=str)
def test_elementwise_operations_do_not_lean_on_numpys_broadcasting(build, line):
    names = [name for name in "pqxyz" if re.search(rf"\b{name}\b", line)]
    for shapes in PAIRS:
        with watched(build, ignore_scalars=True):
            tensors = {
                name: build.tensor(numbers(shape, positive=True), requires_grad=True)
                for name, shape in zip(names, shapes, strict=True)
            }
            try:
                result = eval(line, {"torch": build, **tensors})
                if result.requires_grad:
                    result.sum().backward()
            except Broadcast as error:
                pytest.fail(
                    f"{line} with shapes {' and '.join(map(str, shapes))}: {error}\n"
                    "Stretch both operands to broadcast_shapes of the two before NumPy sees them",
                    pytrace=False,
                )
