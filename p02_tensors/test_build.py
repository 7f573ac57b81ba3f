"""Is what I typed right? `pytest p02_tensors` asks that of the tensors, in the book's order.

Most checks are a line of code that runs twice, on PyTorch's tensors and on yours: shapes, values
and gradients must be the same. `torch` in such a line is one library, then the other; x, y and z
are random float32 tensors, p and q positive ones.
"""

import math
import re

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of infinity and NaN

# To four axes, with size 1; square ones, where an axis taken for another goes unnoticed.
SHAPES = [(), (1,), (4,), (2, 3), (3, 3), (2, 1, 3, 2)]
PAIRS = [
    ((), ()),
    ((2, 3), (2, 3)),
    ((3, 3), (3,)),
    ((3,), (2, 3)),
    ((3, 3), (3, 1)),
    ((2, 3), ()),
    ((), (4,)),
    ((2, 1), (1, 3)),
    ((4, 1, 3), (2, 1)),
]


def numbers(shape, seed=0, positive=False):
    """The same float32 numbers every time, in (-2, 2) or in (0.5, 2)."""
    rng = np.random.default_rng([seed, *shape])
    found = rng.uniform(0.5, 2, shape) if positive else rng.uniform(-2, 2, shape)
    return np.asarray(found, np.float32)


def array(x):
    """A copy of the values of a tensor of either library."""
    return np.array(x.detach().numpy())


def shown(values):
    text = np.array2string(np.asarray(values), precision=4, suppress_small=True, threshold=40)
    return "\n".join("    " + line for line in text.splitlines()[:8])


def close(a, b):
    """Of one shape, with values that agree as well as float32 allows."""
    return np.shape(a) == np.shape(b) and np.allclose(a, b, 1e-4, 1e-5, equal_nan=True)


def must_equal(what, got, expected, reasons=()):
    """Shapes and values agree; a reason is told where its wrong values are the ones that came."""
    got, expected = np.asarray(got), np.asarray(expected)
    told = [f"\n{reason}" for wrong, reason in reasons if close(got, wrong)][:1]
    assert got.shape == expected.shape, (
        f"{what} should have shape {expected.shape}, got {got.shape}" + "".join(told)
    )
    assert close(got, expected), (
        f"{what} should be\n{shown(expected)}\nbut is\n{shown(got)}" + "".join(told)
    )


def must_be_tensor(build, what, got):
    assert isinstance(got, build.Tensor), f"{what} should be a Tensor, got {type(got).__name__}"


def leaf(build, values):
    """A float32 tensor that requires a gradient."""
    return build.tensor(np.asarray(values, np.float32), requires_grad=True)


def upstream(build, values):
    """What is given to backward."""
    return build.tensor(np.asarray(values, np.float32))


def gradient_of(what, x):
    """x.grad as an array, or a sentence about what it is instead."""
    assert x.grad is not None, f"{what}: .grad is None, no gradient was recorded"
    assert hasattr(x.grad, "detach"), f".grad should be a Tensor, got {type(x.grad).__name__}"
    return array(x.grad)


def run(library, line, inputs, view):
    """The line's result, and the leaves that its tensors come from."""
    leaves, names = {}, {"torch": library, "math": math}
    for name, values in inputs.items():
        if view == "permuted":  # laid out in memory in the opposite order
            values = values.transpose()
        elif view == "sliced":  # every other row of a larger tensor
            values = np.repeat(values, 2, axis=0)
        leaf = library.tensor(values.copy(), requires_grad=True)
        leaves[name] = names[name] = leaf
        if view == "permuted":
            names[name] = leaf.permute(*reversed(range(values.ndim)))
        elif view == "sliced":
            names[name] = leaf[::2]
    return eval(line, names), leaves


def agree(build, line, *shapes, view=""):
    """The line gives what it gives in PyTorch, and so do the gradients of all its tensors."""
    names = [name for name in "pqxyz" if re.search(rf"\b{name}\b", line)]
    inputs = {
        name: numbers(shape, seed, positive=name in "pq")
        for seed, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }
    given = " and ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
    what = f"{line} with {given}" if names else line
    what += f", {view} views," if view else ""
    mirrored = re.fullmatch(r"([\d.]+) ([-/]) ([px])", line)  # 2 - x
    expected, their_leaves = run(torch, line, inputs, view)
    weights = numbers(tuple(expected.shape), seed=9)
    if expected.requires_grad:
        expected.backward(torch.tensor(weights))
    before = {name: array(leaf) for name, leaf in their_leaves.items()}
    got, our_leaves = run(build, line, inputs, view)
    must_be_tensor(build, what, got)
    values = array(got)
    must_keep(what, our_leaves, before)
    reasons = []
    if mirrored:
        number, operator, name = mirrored.groups()
        wrong = eval(f"{name} {operator} {number}", {name: inputs[name]})
        reasons = [(wrong, f"This is {name} {operator} {number}: the operands are swapped")]
    must_equal(what, values, array(expected), reasons)
    if not expected.requires_grad:
        return
    assert got.requires_grad, f"{what} should require a gradient: is the graph cut?"
    got.backward(build.tensor(weights))
    must_keep(f"backward of {what}", our_leaves, before)
    must_equal(f"{what}, after its backward,", array(got), values)
    for name in names:
        if their_leaves[name].grad is not None:
            must_equal(
                f"the gradient with respect to {name} of {what}, for a random upstream gradient,",
                gradient_of(what, our_leaves[name]),
                array(their_leaves[name].grad),
            )


def must_keep(what, leaves, before):
    """No operation writes into its inputs."""
    for name, leaf in leaves.items():
        assert np.array_equal(array(leaf), before[name], equal_nan=True), (
            f"{what} changed {name} itself: an operation writes into a new array"
        )


def must_refuse(build, line, reason, **arrays):
    """The line raises an error; any will do, a number instead is a silent wrong answer."""
    names = {name: build.tensor(values) for name, values in arrays.items()}
    try:
        got = eval(line, {"torch": build, **names})
    except NotImplementedError:
        raise
    except Exception:
        return
    given = ", ".join(f"{name} of shape {np.shape(values)}" for name, values in arrays.items())
    result = f"a result of shape {tuple(got.shape)}" if hasattr(got, "shape") else repr(got)
    pytest.fail(
        f"{line}{', ' + given if given else ''} should raise an error, it gave {result}\n{reason}",
        pytrace=False,
    )


def lines(*texts):
    return pytest.mark.parametrize("line", texts, ids=texts)


def outcome(call):
    """What a call gives, or the error that it raises, in words."""
    try:
        return call()
    except NotImplementedError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"


# 1. Broadcasting


@pytest.mark.step(1)
@pytest.mark.checks("broadcast_shapes")
@pytest.mark.parametrize(
    "cases",
    [
        [(((3,), (3,)), (3,)), (((), ()), ()), (((2, 3),), (2, 3))],
        [(((2, 1), (1, 3)), (2, 3)), (((1,), (5,)), (5,))],
        [
            (((2, 3), (3,)), (2, 3)),
            (((3,), (2, 3)), (2, 3)),
            (((3, 3), (3,)), (3, 3)),
            (((), (2, 3)), (2, 3)),
            (((4, 1, 3), (2, 1)), (4, 2, 3)),
            (((5, 1, 4, 1), (3, 1, 2)), (5, 3, 4, 2)),
        ],
        [(((0,), (1,)), (0,)), (((1,), (0,)), (0,)), (((2, 0), (1, 1)), (2, 0))],
        [(((2, 1), (1, 3), (4, 1, 1)), (4, 2, 3)), (((3,), (1,), (2, 1)), (2, 3))],
    ],
    ids=["equal", "size one", "missing axes", "size zero", "three shapes"],
)
def test_broadcast_shapes_aligns_right_and_widens_ones(build, cases):
    for shapes, expected in cases:
        got = outcome(lambda shapes=shapes: tuple(build.broadcast_shapes(*shapes)))
        reason = ""
        if 0 in expected:
            reason = "\nSize 1 becomes the other size, and that may be 0: not the larger of the two"
        elif len({len(shape) for shape in shapes}) > 1:
            reason = "\nShapes are aligned at the right: missing axes are added on the left"
        call = f"broadcast_shapes({', '.join(map(str, shapes))})"
        assert got == expected, f"{call} should be {expected}, got {got}{reason}"


@pytest.mark.step(1)
@pytest.mark.checks("broadcast_shapes")
def test_broadcast_shapes_refuses_all_others(build):
    for shapes in (
        ((2,), (3,)),
        ((2, 3), (2,)),
        ((3, 2), (3,)),
        ((2, 3), (4, 3)),
        ((4,), (2,)),
        ((0,), (2,)),
        ((2, 3), (1, 3), (3, 3)),
    ):
        text = ", ".join(map(str, shapes))
        reason = "Align them at the right: where two sizes differ, one of them has to be 1"
        must_refuse(build, f"torch.broadcast_shapes({text})", reason)


@pytest.mark.step(1)
@pytest.mark.checks("unbroadcast")
def test_unbroadcast_of_two_rows_by_hand(build):
    g = np.array([[1.0, 2.0, 4.0], [10.0, 20.0, 40.0]])
    for shape, expected, reason in (
        ((3,), [11.0, 22.0, 44.0], "The row was used twice: its gradient is the sum of both uses"),
        ((2, 1), [[7.0], [70.0]], "The column was used three times; its axis stays, with size 1"),
        ((), 77.0, "The number was used six times"),
        ((2, 3), g, "Nothing was broadcast"),
    ):
        got = build.unbroadcast(g.copy(), shape)
        what = f"unbroadcast of [[1, 2, 4], [10, 20, 40]] to shape {shape}"
        must_equal(what, got, expected, [(got, reason)])


@pytest.mark.step(1)
@pytest.mark.checks("unbroadcast")
def test_unbroadcast_sums_over_every_axis_that_was_broadcast(build):
    for large, small in (
        ((3,), (1,)),
        ((3, 3), (3,)),
        ((3, 3), (3, 1)),
        ((3, 3), (1, 3)),
        ((2, 3, 4), (3, 1)),
        ((2, 3, 4), (1, 1, 4)),
        ((2, 1, 4), (1, 4)),
        ((2, 3, 4, 5), (3, 1, 1)),
        ((), ()),
    ):
        g = numbers(large)
        x = torch.zeros(small, requires_grad=True)
        x.expand(large).backward(torch.tensor(g))
        got = build.unbroadcast(g.copy(), small)
        must_equal(f"unbroadcast of an array {large} to {small}", got, x.grad.numpy())


# 2. Tensors


@pytest.mark.step(2)
@pytest.mark.checks("tensor")
def test_tensor_has_the_shape_and_the_values_of_its_data(build):
    for text, shape in (
        ("3", ()),
        ("[1, 2, 3]", (3,)),
        ("[[1, 2, 3], [4, 5, 6]]", (2, 3)),
        ("[[[1.5]]]", (1, 1, 1)),
        ("[]", (0,)),
        ("np.arange(6).reshape(3, 2)", (3, 2)),
        ("np.arange(6).reshape(3, 2).T", (2, 3)),
    ):
        data = eval(text)
        x = build.tensor(data)
        must_be_tensor(build, f"tensor({text})", x)
        assert tuple(x.shape) == shape, f"tensor({text}).shape should be {shape}, got {x.shape}"
        assert x.ndim == len(shape), f"tensor({text}).ndim should be {len(shape)}, got {x.ndim}"
        must_equal(f"tensor({text})", array(x), data)


@pytest.mark.step(2)
@pytest.mark.checks("tensor")
def test_tensor_infers_its_dtype(build):
    for data, dtype, reason in (
        ([1.5, 2], "float32", "Python's floats become float32"),
        (1.5, "float32", "Python's floats become float32"),
        ([1, 2], "int64", "Python's integers stay integers, so that they can be indices"),
        ([True, False], "bool", "bools stay bools, so that they can be masks"),
        (np.ones(2, np.float32), "float32", "an array keeps its dtype"),
    ):
        got = np.dtype(build.tensor(data).dtype)
        same = got.kind == "i" if dtype == "int64" else got == dtype
        assert same, f"tensor({data!r}).dtype should be {dtype}, got {got}: {reason}"


@pytest.mark.step(2)
@pytest.mark.checks("tensor")
def test_tensor_takes_the_dtype_asked_for(build):
    for dtype in (np.dtype("float32"), np.dtype("float64"), np.dtype("int64"), np.dtype("bool")):
        x = build.tensor([0, 1, 2], dtype=dtype)
        assert np.dtype(x.dtype) == dtype, f"tensor(..., dtype={dtype}) has dtype {x.dtype}"
        must_equal(f"tensor([0, 1, 2], dtype={dtype})", array(x), np.array([0, 1, 2], dtype))


@pytest.mark.step(2)
@pytest.mark.checks("tensor")
def test_tensor_copies_its_data(build):
    data = np.zeros(3, np.float32)
    x = build.tensor(data)
    data[0] = 7
    assert array(x)[0] == 0, "changing the array afterwards changed the tensor: copy the data"


@pytest.mark.step(2)
@pytest.mark.checks("tensor")
def test_tensor_requires_a_gradient_only_when_asked(build):
    assert not build.tensor([1.0]).requires_grad, "tensor([1.0]) should not require a gradient"
    x = build.tensor([1.0], requires_grad=True)
    assert x.requires_grad, "tensor([1.0], requires_grad=True) should require a gradient"
    assert x.grad is None, f"before backward, .grad should be None, got {x.grad}"


@pytest.mark.step(2)
@pytest.mark.checks("tensor")
def test_tensor_refuses_lists_of_different_lengths(build):
    must_refuse(build, "torch.tensor([[1, 2], [3]])", "The rows have different lengths")


@pytest.mark.step(2)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("zeros", marks=pytest.mark.checks("zeros")),
        pytest.param("ones", marks=pytest.mark.checks("ones")),
    ],
)
def test_zeros_and_ones_fill_a_shape(build, name):
    for sizes in ("2, 3", "3", "0, 2"):
        line = f"torch.{name}({sizes})"
        expected, got = eval(line), eval(line, {"torch": build})
        must_be_tensor(build, line, got)
        must_equal(line, array(got), expected.numpy())
        assert np.dtype(got.dtype) == np.float32, f"{line} should be float32, got {got.dtype}"
        assert not got.requires_grad, f"{line} should not require a gradient"


@pytest.mark.step(2)
@pytest.mark.checks("arange")
def test_arange_counts_as_range_does(build):
    for line in (
        "torch.arange(5)",
        "torch.arange(2, 7)",
        "torch.arange(1, 10, 3)",
        "torch.arange(1, 11, 3)",
    ):
        expected, got = eval(line), eval(line, {"torch": build})
        must_be_tensor(build, line, got)
        must_equal(line, array(got), expected.numpy())
        kind = np.dtype(got.dtype).kind
        assert kind == "i", f"{line} should hold integers, for indexing; its dtype is {got.dtype}"


@pytest.mark.step(2)
@pytest.mark.checks("randn")
def test_randn_is_standard_normal(build):
    x = build.randn(100, 100)
    must_be_tensor(build, "randn(100, 100)", x)
    assert tuple(x.shape) == (100, 100), f"randn(100, 100) has shape {x.shape}"
    values = array(x)
    assert np.dtype(x.dtype) == np.float32, f"randn should give float32, got {x.dtype}"
    mean, deviation, within = values.mean(), values.std(), (abs(values) < 1).mean()
    assert abs(mean) < 0.06, f"the mean of 10,000 draws should be about 0, it is {mean:.3f}"
    assert abs(deviation - 1) < 0.06, f"their deviation should be about 1, it is {deviation:.3f}"
    assert abs(within - 0.683) < 0.03, (
        f"68 % of normal draws lie within one deviation of the mean, here {within:.0%}"
    )
    again = array(build.randn(100, 100))
    assert not np.array_equal(values, again), "randn gives the same numbers at every call"


@pytest.mark.step(2)
@pytest.mark.checks("Tensor.item")
def test_item_is_a_python_number(build):
    for data, kind in ((2.5, float), ([[3]], int), ([True], bool)):
        got = build.tensor(data).item()
        assert type(got) is kind, (
            f"tensor({data}).item() should be of type {kind.__name__}, got {type(got).__name__}"
        )
        assert got == np.asarray(data).item(), f"tensor({data}).item() gave {got}"
    must_refuse(build, "x.item()", "Only a single element is one number", x=[1.0, 2.0])


@pytest.mark.step(2)
@pytest.mark.checks("Tensor.tolist")
def test_tolist_gives_nested_lists(build):
    for data in (1.5, [1, 2], [[1.5, 2.5], [3.5, 4.5]], [], [[True], [False]]):
        got = build.tensor(data).tolist()
        assert got == data, f"tensor({data}).tolist() should be {data}, got {got}"


@pytest.mark.step(2)
@pytest.mark.checks("Tensor.numpy")
def test_numpy_gives_an_array(build):
    got = build.tensor([[1.5, 2.5]]).numpy()
    assert isinstance(got, np.ndarray), f"numpy() should give an array, got {type(got).__name__}"
    must_equal("tensor([[1.5, 2.5]]).numpy()", got, [[1.5, 2.5]])


@pytest.mark.step(2)
@pytest.mark.checks("Tensor.detach")
def test_detach_has_the_values_and_requires_no_gradient(build):
    x = leaf(build, [2.0, 3.0])
    d = x.detach()
    must_be_tensor(build, "x.detach()", d)
    must_equal("x.detach()", array(d), [2.0, 3.0])
    assert not d.requires_grad, "a detached tensor should not require a gradient"
    assert x.requires_grad, "x.detach() should leave x itself as it is"


# 3. The graph


@pytest.mark.step(3)
@pytest.mark.checks("Tensor.backward")
def test_backward_of_a_tensor_itself(build):
    x = leaf(build, [[1.0, 2.0]])
    x.backward(upstream(build, [[3.0, -4.0]]))
    must_be_tensor(build, "x.grad", x.grad)
    must_equal("x.grad after x.backward([[3, -4]])", array(x.grad), [[3.0, -4.0]])
    for values in (2.0, [2.0]):
        x = leaf(build, values)
        x.backward()
        must_equal("x.grad after x.backward(), dx/dx,", gradient_of("x", x), np.ones_like(values))


@pytest.mark.step(3)
@pytest.mark.checks("Tensor.backward")
def test_backward_needs_one_element_or_a_gradient(build):
    for x, reason in (
        (leaf(build, [1.0, 2.0]), "two numbers have no single derivative: it asks for a gradient"),
        (build.tensor(1.0), "x does not require a gradient"),
    ):
        try:
            x.backward()
        except NotImplementedError:
            raise
        except Exception:
            continue
        pytest.fail(f"x.backward() should raise an error: {reason}", pytrace=False)


# 4. Shapes


@pytest.mark.step(4)
@pytest.mark.checks("Tensor.expand")
@pytest.mark.parametrize(
    "cases",
    [
        [("x.expand(2, 3)", (3,)), ("x.expand(3, 3)", (3,)), ("x.expand(2, 3)", ())],
        [("x.expand(2, 3)", (1, 3)), ("x.expand(3, 3)", (3, 1))],
        [("x.expand(4, 2, 3)", (2, 1)), ("x.expand(2, 4, 3, 2)", (2, 1, 3, 1))],
        [("x.expand(5)", (5,)), ("x.expand(2, 3).expand(4, 2, 3)", (1, 3))],
    ],
    ids=["missing axes", "size one", "both", "twice and not at all"],
)
def test_expand_agrees_with_torch(build, cases):
    for line, shape in cases:
        agree(build, line, shape)


@pytest.mark.step(4)
@pytest.mark.checks("Tensor.expand")
def test_expand_refuses_what_does_not_broadcast(build):
    for line in ("x.expand(4, 3)", "x.expand(2, 6)", "x.expand(3)", "x.expand(3, 2)"):
        must_refuse(build, line, "Only axes of size 1 broadcast", x=np.ones((2, 3)))


@pytest.mark.step(4)
@pytest.mark.checks("Tensor.reshape")
def test_reshape_agrees_with_torch(build):
    for line, shape in (
        ("x.reshape(3, 2)", (2, 3)),
        ("x.reshape(-1)", (2, 3)),
        ("x.reshape(3, -1)", (2, 3)),
        ("x.reshape(4, 3, 2)", (2, 3, 4)),
        ("x.reshape(1, 1)", ()),
        ("x.reshape(6).reshape(2, 3)", (3, 2)),
    ):
        agree(build, line, shape)


@pytest.mark.step(4)
@pytest.mark.checks("Tensor.reshape")
def test_reshape_refuses_another_number_of_elements(build):
    for line in ("x.reshape(4)", "x.reshape(2, 2)", "x.reshape(4, -1)"):
        must_refuse(build, line, "x has 6 elements", x=np.ones((2, 3)))


@pytest.mark.step(4)
@pytest.mark.checks("Tensor.permute")
def test_permute_agrees_with_torch(build):
    for line, shape in (
        ("x.permute(1, 0)", (2, 3)),
        ("x.permute(2, 0, 1)", (2, 3, 4)),
        ("x.permute(1, 2, 0)", (3, 3, 3)),
        ("x.permute(-1, 0, 1)", (3, 3, 3)),
        ("x.permute(3, 1, 0, 2)", (2, 2, 2, 2)),
    ):
        agree(build, line, shape)


@pytest.mark.step(4)
@pytest.mark.checks("Tensor.transpose")
def test_transpose_agrees_with_torch(build):
    for line, shape in (
        ("x.transpose(0, 1)", (3, 3)),
        ("x.transpose(-2, -1)", (2, 3, 4)),
        ("x.transpose(1, 2)", (2, 3, 4, 5)),
        ("x.transpose(0, -1)", (3, 3, 3)),
        ("x.transpose(1, 1)", (2, 3)),
        ("x.transpose(1, 2).reshape(2, 12)", (2, 3, 4)),
    ):
        agree(build, line, shape)


@pytest.mark.step(4)
@pytest.mark.checks("Tensor.transpose")
def test_axes_that_are_not_there_are_refused(build):
    for line in ("x.transpose(0, 3)", "x.permute(0, 0, 1)", "x.permute(0, 1, 3)"):
        must_refuse(build, line, "x has the axes 0, 1 and 2", x=np.ones((2, 3, 4)))


@pytest.mark.step(4)
@pytest.mark.checks("Tensor.permute")
def test_permute_with_an_axis_left_out_is_right_or_refused(build):
    values = numbers((2, 3, 4))
    try:
        got = build.tensor(values).permute(1, 0)
    except NotImplementedError:
        raise
    except Exception:
        return
    must_be_tensor(build, "x.permute(1, 0) with x (2, 3, 4)", got)
    what = "x.permute(1, 0) with x (2, 3, 4), if it is no error,"
    must_equal(what, array(got), values.transpose(1, 0, 2))


# 5. Sum and maximum

DIMS = ["", "0", "1", "2", "-1", "-2", "-3"]
KEPT = [f"{dim}, keepdim=True" for dim in DIMS[1:]]


@pytest.mark.step(5)
@pytest.mark.checks("Tensor.sum")
def test_sum_by_hand(build):
    x = leaf(build, [[1.0, 2.0], [3.0, 4.0]])
    y = x.sum(0)
    reasons = [([3.0, 7.0], "sum(0) adds the rows up, that is along axis 0; this is sum(1)")]
    must_equal("[[1, 2], [3, 4]].sum(0)", array(y), [4.0, 6.0], reasons)
    y.backward(upstream(build, [1.0, 10.0]))
    must_equal(
        "the gradient of x.sum(0) with respect to x, upstream gradient [1, 10],",
        gradient_of("x.sum(0)", x),
        [[1.0, 10.0], [1.0, 10.0]],
        [([[1.0, 1.0], [10.0, 10.0]], "The axis that was summed is axis 0: it comes back there")],
    )
    x = leaf(build, [[1.0, 2.0], [3.0, 4.0]])
    x.sum(1).backward(upstream(build, [1.0, 10.0]))
    must_equal(
        "the gradient of x.sum(1) with respect to x, upstream gradient [1, 10],",
        gradient_of("x.sum(1)", x),
        [[1.0, 1.0], [10.0, 10.0]],
        [([[1.0, 10.0]] * 2, "The axis that was summed is axis 1: without keepdim it is lost")],
    )


@pytest.mark.step(5)
@pytest.mark.checks("Tensor.sum")
@pytest.mark.parametrize("dims", [DIMS, KEPT], ids=["without keepdim", "keepdim"])
def test_sum_agrees_with_torch(build, dims):
    for shape in ((3, 3, 3), (2, 1, 3)):
        for dim in dims:
            agree(build, f"x.sum({dim})", shape)


@pytest.mark.step(5)
@pytest.mark.checks("Tensor.sum")
def test_sum_of_every_shape_and_of_bools(build):
    for shape in SHAPES:
        agree(build, "x.sum()", shape)
    got = build.tensor([[True, True], [False, True]]).sum(1)
    must_equal("the sum of [[True, True], [False, True]] along 1", array(got), [2, 1])


def agree_on_max(build, dim, shape):
    """As agree; the listing's max may give the values alone or, as PyTorch, the indices too."""
    line, values = f"x.max({dim})", numbers(shape)
    theirs = torch.tensor(values.copy(), requires_grad=True)
    expected = eval(line, {"x": theirs})
    expected = expected.values if dim else expected
    weights = numbers(tuple(expected.shape), seed=9)
    expected.backward(torch.tensor(weights))
    ours = leaf(build, values.copy())
    got = eval(line, {"x": ours})
    got = got[0] if isinstance(got, tuple) else got
    must_be_tensor(build, f"{line}, or its first part,", got)
    must_equal(f"{line} with x {shape}", array(got), array(expected))
    got.backward(build.tensor(weights))
    must_equal(
        f"the gradient with respect to x of {line} with x {shape}, for a random upstream gradient,",
        gradient_of(line, ours),
        array(theirs.grad),
    )


@pytest.mark.step(5)
@pytest.mark.checks("Tensor.max")
@pytest.mark.parametrize("dims", [DIMS, KEPT], ids=["without keepdim", "keepdim"])
def test_max_agrees_with_torch(build, dims):
    for shape in ((3, 3, 3), (2, 1, 3)):
        for dim in dims:
            agree_on_max(build, dim, shape)


@pytest.mark.step(5)
@pytest.mark.checks("Tensor.max")
def test_max_gives_equals_one_gradient_together(build):
    for line, total in (("x.max()", 1), ("x.max(0)", 2)):
        x = leaf(build, [[5.0, 1.0], [5.0, 1.0]])
        y = eval(line, {"x": x})
        y = y[0] if isinstance(y, tuple) else y
        y.backward(upstream(build, np.ones(y.shape)))
        got = gradient_of(line, x)
        assert math.isclose(got.sum(), total, rel_tol=1e-5) and (got >= 0).all(), (
            f"the gradient of {line} at [[5, 1], [5, 1]] should sum to {total}, got\n{shown(got)}\n"
            "Equal largest elements share it, or one of them gets it all"
        )


# 6. Arithmetic

ARITHMETIC = {
    "__add__": ("x + y", "x + 2"),
    "__mul__": ("x * y", "x * 0.1"),
    "__pow__": ("x**2", "x**3", "p**0.5", "p**-1", "p**-1.5", "x**1"),
    "__neg__": ("-x",),
    "__sub__": ("x - y", "x - 0.1"),
    "__truediv__": ("x / q", "x / 3"),
    "__radd__": ("2 + x", "0.5 + x"),
    "__rmul__": ("3 * x",),
    "__rsub__": ("2 - x",),
    "__rtruediv__": ("0.1 / p", "2 / p"),
}
WITH_ITSELF = {"__add__": ["x + x"], "__mul__": ["x * x"], "__truediv__": ["p / p"]}
MISFITS = {
    "__add__": ["x + y"],
    "__mul__": ["x * y"],
    "__sub__": ["x - y"],
    "__truediv__": ["x / y"],
}


def operators(table):
    return pytest.mark.parametrize(
        "line",
        [
            pytest.param(line, id=line, marks=pytest.mark.checks(f"Tensor.{name}"))
            for name, found in table.items()
            for line in found
        ],
    )


@pytest.mark.step(6)
@operators(ARITHMETIC)
def test_arithmetic_agrees_with_torch(build, line):
    if re.search(r"[yq]", line):
        for shapes in PAIRS:
            agree(build, line, *shapes)
    else:
        for shape in ((), (2, 3)):
            agree(build, line, shape)


@pytest.mark.step(6)
@operators(MISFITS)
def test_arithmetic_refuses_shapes_that_do_not_fit(build, line):
    reason = "Aligned at the right, the sizes 3 and 2 meet"
    must_refuse(build, line, reason, x=np.ones((2, 3)), y=np.ones(2))
    must_refuse(build, line, reason, x=np.ones((2, 3)), y=np.ones((2, 2)))


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.__mul__")
def test_arithmetic_of_integers(build):
    for line in ("x + 1", "2 * x", "x * 2.5", "x / 2", "x - x", "x**2"):
        expected = eval(line, {"x": torch.tensor([[1, 2], [3, 5]])})
        got = eval(line, {"x": build.tensor([[1, 2], [3, 5]])})
        must_equal(f"{line} with x = [[1, 2], [3, 5]]", array(got), expected.numpy())


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.__lt__")
@lines("x < y", "x <= y", "x > y", "x >= y", "x == y", "x != y")
def test_comparisons_agree_with_torch(build, line):
    for a, b in (
        ([[1, 2, 3]], [[2], [3]]),
        ([1.0, 2.0, 3.0], 2.0),
        ([1, 2, 3], [3, 2, 1]),
    ):
        expected = eval(line, {"x": torch.tensor(a), "y": torch.tensor(b)})
        for other in ("a tensor", "a number") if np.ndim(b) == 0 else ("a tensor",):
            y = b if other == "a number" else build.tensor(b)
            got = eval(line, {"x": build.tensor(a), "y": y})
            what = f"{line} with x = {a} and y = {b}, {other},"
            must_be_tensor(build, what, got)
            must_equal(what, array(got), expected.numpy())
            assert np.dtype(got.dtype) == bool, f"{what} should be bools, got {got.dtype}"


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.backward")
def test_backward_of_a_product_by_hand(build):
    x, y = leaf(build, 2.0), leaf(build, 5.0)
    (x * y + x).backward()
    reasons = [(5.0, "One use of x is missing: the gradients of all uses are added")]
    must_equal("d(x*y + x)/dx at (2, 5)", gradient_of("x*y + x", x), 6.0, reasons)
    must_equal("d(x*y + x)/dy at (2, 5)", gradient_of("x*y + x", y), 2.0)


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.backward")
def test_backward_adds_up_where_paths_meet(build):
    x = leaf(build, 3.0)
    a = x * 2
    b = a * a
    c = a + b
    (c * b).backward()  # (2x + 4x^2) 4x^2 = 8x^3 + 16x^4
    must_equal("d/dx of 8x^3 + 16x^4 at 3", gradient_of("8x^3 + 16x^4", x), 24 * 9 + 64 * 27)


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.backward")
def test_backward_adds_to_the_gradient_that_is_there(build):
    x = leaf(build, [1.0, 2.0])
    one = upstream(build, [1.0, 1.0])
    (x * x).backward(one)
    (x * 3).backward(one)
    must_equal(
        "x.grad after the backward of x * x and then of x * 3, x = [1, 2],",
        gradient_of("x * 3", x),
        [5.0, 7.0],
        [([3.0, 3.0], "The second backward replaced the gradient of the first")],
    )
    x.grad = None
    (x * 3).backward(one)
    must_equal("after x.grad = None and the backward of x * 3, x.grad", array(x.grad), [3.0, 3.0])


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.backward")
def test_a_second_backward_adds_as_much_again_or_is_refused(build):
    x = leaf(build, [1.0, 2.0])
    one, y = upstream(build, [1.0, 1.0]), x * x
    z = y * 3 + y
    z.backward(one)
    first = gradient_of("4 * x * x", x)
    try:
        z.backward(one)
    except Exception:
        return
    must_equal(
        "x.grad after z.backward() twice, z = 4 * x * x,",
        array(x.grad),
        2 * first,
        [(first, "The second backward did nothing"), (3 * first, "What the first left was added")],
    )


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.backward")
@lines("(a + b) + a * 5", "a * 5 + (b + a)", "(a + b) * 1 + a * 5", "(b + a) + (a + a) * 2.5")
def test_backward_keeps_the_gradients_of_two_tensors_apart(build, line):
    x, y = leaf(build, [1.0, 1.0]), leaf(build, [1.0, 1.0])
    eval(line, {"a": x * 1, "b": y * 1}).backward(upstream(build, [1.0, 1.0]))
    reason = "a and b share one array for their gradients: what is added to one shows in the other"
    for name, leaf_, expected in (("x", x, [6.0, 6.0]), ("y", y, [1.0, 1.0])):
        got = gradient_of(line, leaf_)
        what = f"{name}.grad of {line}, a = x * 1, b = y * 1,"
        must_equal(what, got, expected, [([6.0, 6.0], reason)] if name == "y" else ())


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.backward")
def test_the_gradients_of_two_leaves_are_two_arrays(build):
    x, y = leaf(build, [1.0]), leaf(build, [1.0])
    (x + y).backward()
    (x * 5).backward()
    reason = "x and y share one array for their gradients: copy before adding in place"
    must_equal(
        "y.grad after the backward of x + y and of x * 5",
        gradient_of("x + y", y),
        [1.0],
        [([6.0], reason)],
    )
    shared = np.shares_memory(x.grad.detach().numpy(), y.grad.detach().numpy())
    x, y = leaf(build, [1.0]), leaf(build, [1.0])
    (x + y).backward()
    shared = shared or np.shares_memory(x.grad.detach().numpy(), y.grad.detach().numpy())
    assert not shared, (
        "after (x + y).backward() x.grad and y.grad are one array: what scales the gradients in "
        "place, as clipping does, would scale it twice"
    )


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.backward")
def test_backward_leaves_constants_alone(build):
    x, c = leaf(build, [1.0, 2.0]), build.tensor([3.0, 4.0])
    y = x * c
    assert y.requires_grad, "x * c requires a gradient, since x does"
    assert not (c * c).requires_grad, "c * c does not require a gradient, since c does not"
    y.backward(upstream(build, [1.0, 1.0]))
    assert c.grad is None, f"c does not require a gradient, yet c.grad is {c.grad}"
    must_equal("the gradient of x * c with respect to x", gradient_of("x * c", x), [3.0, 4.0])


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.detach")
def test_a_detached_factor_is_a_constant(build):
    x = leaf(build, [2.0, 3.0])
    (x * x.detach()).backward(upstream(build, [1.0, 1.0]))
    must_equal(
        "the gradient of x * x.detach() at [2, 3]",
        gradient_of("x * x.detach()", x),
        [2.0, 3.0],
        [([4.0, 6.0], "The detached factor is still in the graph")],
    )


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.backward")
def test_backward_of_a_chain_of_ten_thousand_operations(build):
    x = leaf(build, 1.0)
    y = x
    for _ in range(10_000):
        y = y + 0.5
    y.backward()
    must_equal("d(x + 0.5 + 0.5 + ...)/dx", gradient_of("x + 0.5 + ...", x), 1.0)


@pytest.mark.step(6)
@pytest.mark.checks("Tensor.backward")
def test_backward_visits_a_node_once_however_many_paths_lead_there(build):
    x = leaf(build, 1.0)
    y = x
    for _ in range(60):
        y = y + y
    y.backward()
    must_equal("dy/dx after 60 doublings", gradient_of("y + y", x), 2.0**60)


@pytest.mark.step(6)
@operators(WITH_ITSELF)
def test_arithmetic_of_a_tensor_with_itself_agrees_with_torch(build, line):
    agree(build, line, (2, 3))


# 7. Functions


@pytest.mark.step(7)
@operators(
    {
        "exp": ["x.exp()"],
        "log": ["p.log()"],
        "tanh": ["x.tanh()"],
        "relu": ["x.relu()"],
        "sqrt": ["p.sqrt()"],
        "mean": ["x.mean()"],
    }
)
def test_functions_of_one_tensor_agree_with_torch(build, line):
    for shape in SHAPES:
        agree(build, line, shape)


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.__rpow__")
def test_powers_of_a_number_agree_with_torch(build):
    for line in ("2**x", "0.5**x"):
        for shape in ((), (2, 3)):
            agree(build, line, shape)


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.__pow__")
def test_a_tensor_as_exponent_is_right_or_refused(build):
    try:
        eval("p**y", {"p": leaf(build, [2.0]), "y": leaf(build, [3.0])})
    except NotImplementedError:
        raise
    except Exception:
        return
    agree(build, "p**y", (2, 3), (3,))


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.exp")
def test_exp_log_and_sqrt_at_their_limits(build):
    for line, data, expected in (
        ("exp", [-1000.0, 0.0, 1000.0], [0.0, 1.0, math.inf]),
        ("log", [0.0, 1.0], [-math.inf, 0.0]),
        ("sqrt", [0.0, 4.0], [0.0, 2.0]),
        ("exp", [0, 1], [1.0, math.e]),
    ):
        got = getattr(build.tensor(data), line)()
        must_equal(f"tensor({data}).{line}()", array(got), expected)


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.tanh")
def test_tanh_of_large_numbers_is_one(build):
    for size in (20.0, 100.0, 1000.0):
        x = leaf(build, [-size, size])
        y = x.tanh()
        y.backward(upstream(build, [1.0, 1.0]))
        reason = "exp overflows: is tanh written with exp of 2x? np.tanh does not overflow"
        got, grad = array(y), gradient_of("tanh", x)
        told = [(got, reason)] if np.isnan(got).any() else ()
        must_equal(f"tanh of -{size:g} and {size:g}", got, [-1.0, 1.0], told)
        told = [(grad, reason)] if np.isnan(grad).any() else ()
        must_equal(f"the gradient of tanh at -{size:g} and {size:g}", grad, [0.0, 0.0], told)


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.relu")
def test_relu_is_flat_below_and_at_zero(build):
    x = leaf(build, [-2.0, 0.0, 3.0])
    y = x.relu()
    y.backward(upstream(build, [1.0, 1.0, 1.0]))
    must_equal("x after x.relu()", array(x), [-2.0, 0.0, 3.0])
    must_equal("relu of [-2, 0, 3]", array(y), [0.0, 0.0, 3.0])
    must_equal("the gradient of relu at [-2, 0, 3]", gradient_of("relu", x), [0.0, 0.0, 1.0])


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.mean")
def test_mean_agrees_with_torch(build):
    for shape in ((3, 3, 3), (2, 1, 3)):
        for dim in (*DIMS, *KEPT):
            agree(build, f"x.mean({dim})", shape)


SHIFTED = "exp overflows above 88 and vanishes below -104: subtract each row's largest score first"


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.log_softmax")
def test_log_softmax_agrees_with_torch(build):
    for shape in ((3, 3), (2, 1, 3, 2)):
        for dim in (0, 1, -1, -2):
            agree(build, f"x.log_softmax({dim})", shape)


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.log_softmax")
@pytest.mark.parametrize("gap", [100.0, 200.0, 10000.0], ids=lambda gap: f"{gap:g}")
def test_log_softmax_stays_finite_where_softmax_rounds_to_zero(build, gap):
    x = leaf(build, [0.0, gap])
    y = x.log_softmax(0)
    rounded = "A softmax that was rounded to 0 has the logarithm -inf: take that of the sum instead"
    reasons = [([-math.inf, 0.0], rounded)]
    reasons += [([-math.inf, last], SHIFTED) for last in (-math.inf, math.nan)]
    reasons += [([math.nan, math.nan], SHIFTED)]
    must_equal(f"log_softmax of [0, {gap:g}]", array(y), [-gap, 0.0], reasons)
    y.backward(upstream(build, [1.0, 1.0]))
    must_equal(
        f"the gradient of its sum at [0, {gap:g}]", gradient_of("log_softmax", x), [1.0, -1.0]
    )


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.softmax")
def test_softmax_of_three_scores_by_hand(build):
    x = build.tensor([0.0, math.log(2), math.log(5)])  # exp gives 1, 2, 5
    must_equal("softmax of [0, ln 2, ln 5]", array(x.softmax(0)), [0.125, 0.25, 0.625])


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.softmax")
def test_softmax_agrees_with_torch(build):
    for shape in ((3, 3), (2, 1, 3, 2)):
        for dim in (0, 1, -1, -2):
            agree(build, f"x.softmax({dim})", shape)


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.softmax")
@pytest.mark.parametrize("shift", [100.0, 1000.0, -1000.0, 1e30], ids=lambda shift: f"{shift:g}")
def test_softmax_is_not_changed_by_a_constant(build, shift):
    got = array(build.tensor([[shift, shift], [-shift, -shift]]).softmax(-1))
    must_equal(
        f"softmax of two equal scores of {shift:g} and of {-shift:g}",
        got,
        np.full((2, 2), 0.5),
        [(got, SHIFTED)] if np.isnan(got).any() or (got == 0).any() else (),
    )


@pytest.mark.step(7)
@pytest.mark.checks("Tensor.softmax")
def test_softmax_gives_no_weight_to_minus_infinity(build):
    x = leaf(build, [[-math.inf, 0.0, 0.0], [3.0, -math.inf, -math.inf]])
    y = x.softmax(-1)
    must_equal("softmax of rows with -inf", array(y), [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    y.backward(upstream(build, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    must_equal(
        "its gradient, upstream gradient [[1, 2, 3], [4, 5, 6]],",
        gradient_of("softmax", x),
        [[0.0, -0.25, 0.25], [0.0, 0.0, 0.0]],
    )


# 8. Matrix products

PRODUCTS = {
    "matrices": [((2, 3), (3, 4)), ((3, 3), (3, 3)), ((1, 1), (1, 1))],
    "batches": [((5, 2, 3), (5, 3, 4)), ((3, 3, 3), (3, 3, 3)), ((2, 3, 2, 3), (2, 3, 3, 2))],
    "batches that broadcast": [
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((1, 2, 3), (5, 3, 4)),
        ((2, 1, 2, 3), (4, 3, 2)),
    ],
}


@pytest.mark.step(8)
@pytest.mark.checks("Tensor.matmul")
def test_matmul_by_hand(build):
    a, b = leaf(build, [[1.0, 2.0], [3.0, 4.0]]), leaf(build, [[5.0, 6.0], [7.0, 8.0]])
    y = a @ b
    must_equal("[[1, 2], [3, 4]] @ [[5, 6], [7, 8]]", array(y), [[19.0, 22.0], [43.0, 50.0]])
    y.backward(upstream(build, [[1.0, 0.0], [0.0, 0.0]]))
    must_equal(
        "the gradient of (a @ b)[0, 0] = a00 b00 + a01 b10 with respect to a",
        gradient_of("a @ b", a),
        [[5.0, 7.0], [0.0, 0.0]],
        [([[5.0, 6.0], [0.0, 0.0]], "It is g @ b transposed, not g @ b")],
    )
    must_equal(
        "the gradient of (a @ b)[0, 0] = a00 b00 + a01 b10 with respect to b",
        gradient_of("a @ b", b),
        [[1.0, 0.0], [2.0, 0.0]],
        [([[1.0, 0.0], [3.0, 0.0]], "It is a transposed @ g, not a @ g")],
    )


@pytest.mark.step(8)
@pytest.mark.checks("Tensor.matmul")
@pytest.mark.parametrize("pairs", PRODUCTS.values(), ids=PRODUCTS)
def test_matmul_agrees_with_torch(build, pairs):
    for shapes in pairs:
        agree(build, "x @ y", *shapes)
    agree(build, "x.matmul(y)", *pairs[0])


@pytest.mark.step(8)
@pytest.mark.checks("Tensor.matmul")
def test_matmul_of_a_tensor_with_itself(build):
    agree(build, "x @ x", (3, 3))
    agree(build, "x @ x.transpose(-2, -1)", (2, 3, 4))


@pytest.mark.step(8)
@pytest.mark.checks("Tensor.matmul")
@pytest.mark.parametrize("pair", [((2, 3), (3,)), ((3,), (3, 4)), ((3, 3, 3), (3,))], ids=str)
def test_matmul_with_a_vector_is_right_or_refused(build, pair):
    try:
        y = build.tensor(numbers(pair[0])) @ build.tensor(numbers(pair[1]))
    except NotImplementedError:
        raise
    except Exception:
        return
    must_be_tensor(build, "x @ y", y)
    agree(build, "x @ y", *pair)


@pytest.mark.step(8)
@pytest.mark.checks("Tensor.matmul")
def test_matmul_refuses_sizes_that_do_not_fit(build):
    reason = "The last size of x has to be the last but one of y"
    for x, y in (((2, 3), (2, 3)), ((2, 3), (1, 3)), ((2, 1), (3, 2))):
        must_refuse(build, "x @ y", reason, x=np.ones(x), y=np.ones(y))
    reason = "The axes before the last two do not fit"
    must_refuse(build, "x @ y", reason, x=np.ones((2, 2, 2)), y=np.ones((3, 2, 2)))


# 9. Indexing, choosing, joining


@pytest.mark.step(9)
@pytest.mark.checks("Tensor.__getitem__")
@pytest.mark.parametrize(
    "keys",
    [
        ["x[0]", "x[-1]", "x[1, 2]", "x[1, 2, 3]", "x[0, -1]"],
        ["x[1:]", "x[:2]", "x[:, 1:3]", "x[:, :-1]", "x[::2]", "x[2:1]", "x[:]"],
        ["x[:, 1]", "x[:, :, -1]", "x[0, :, 1:2]", "x[1:3][0]"],
    ],
    ids=["integers", "slices", "both"],
)
def test_indexing_with_numbers_and_slices_agrees_with_torch(build, keys):
    for line in keys:
        agree(build, line, (4, 4, 4))


@pytest.mark.step(9)
@pytest.mark.checks("Tensor.__getitem__")
@pytest.mark.parametrize(
    "keys",
    [
        ["x[torch.tensor([0, 2])]", "x[torch.tensor([-1, 0])]", "x[torch.tensor(1)]"],
        ["x[torch.tensor([[0], [2]])]", "x[:, torch.tensor([0, 2])]"],
        ["x[torch.arange(3), torch.tensor([0, 2, 1])]"],
    ],
    ids=["rows", "tables", "two tensors"],
)
def test_indexing_with_integer_tensors_agrees_with_torch(build, keys):
    for line in keys:
        agree(build, line, (3, 4))
        agree(build, line, (3, 3, 2))


@pytest.mark.step(9)
@pytest.mark.checks("Tensor.__getitem__")
def test_a_place_that_is_taken_twice_gets_both_gradients(build):
    x = leaf(build, [10.0, 20.0, 30.0])
    y = x[build.tensor([2, 0, 2])]
    must_equal("x[[2, 0, 2]] of x = [10, 20, 30]", array(y), [30.0, 10.0, 30.0])
    y.backward(upstream(build, [1.0, 2.0, 4.0]))
    must_equal(
        "the gradient of x[[2, 0, 2]] with respect to x, upstream gradient [1, 2, 4],",
        gradient_of("x[[2, 0, 2]]", x),
        [2.0, 0.0, 5.0],
        [([2.0, 0.0, 4.0], "The second use overwrote the first: np.add.at adds them up")],
    )
    for line in ("x[torch.tensor([[0, 1], [1, 1]])]", "x[:, torch.tensor([1, 1])]"):
        agree(build, line, (3, 4))
    agree(build, "x[torch.tensor([0, 0]), torch.tensor([2, 2])]", (3, 3, 2))


@pytest.mark.step(9)
@pytest.mark.checks("Tensor.__getitem__")
def test_indexing_outside_is_refused(build):
    for line in ("x[2]", "x[0, 3]", "x[0, 0, 0]", "x[torch.tensor([0, 2])]"):
        must_refuse(build, line, "x has 2 rows and 3 columns", x=np.ones((2, 3)))


MASK = "torch.tensor([[True, False, False], [True, True, False]])"


@pytest.mark.step(9)
@pytest.mark.checks("where")
@pytest.mark.parametrize(
    ("line", "shapes"),
    [
        (f"torch.where({MASK}, x, y)", ((2, 3), (2, 3))),
        (f"torch.where({MASK}, y, x)", ((2, 3), (3,))),
        (f"torch.where({MASK}, x, y)", ((3,), (4, 1, 1))),
        ("torch.where(torch.tensor([True, False, True]), x, y)", ((2, 1), ())),
        (f"torch.where({MASK}, x, 0.5)", ((2, 3),)),
        (f"torch.where({MASK}, 1.0, x)", ((3,),)),
    ],
    ids=str,
)
def test_where_agrees_with_torch(build, line, shapes):
    agree(build, line, *shapes)


@pytest.mark.step(9)
@pytest.mark.checks("Tensor.masked_fill")
@lines(
    f"x.masked_fill({MASK}, 0.5)",
    f"x.masked_fill({MASK}, 7)",
    "x.masked_fill(torch.tensor([True, False, True]), 0.0)",
    "x.masked_fill(torch.tensor([[True], [False]]), 0.0)",
)
def test_masked_fill_agrees_with_torch(build, line):
    agree(build, line, (2, 3))


@pytest.mark.step(9)
@pytest.mark.checks("Tensor.masked_fill")
def test_masked_fill_with_minus_infinity_leaves_finite_gradients(build):
    x = leaf(build, [[1.0, 2.0], [3.0, 4.0]])
    mask = build.tensor([[False, True], [False, False]])
    y = x.masked_fill(mask, -math.inf)
    must_equal("x after x.masked_fill", array(x), [[1.0, 2.0], [3.0, 4.0]])
    must_equal("x.masked_fill(mask, -inf)", array(y), [[1.0, -math.inf], [3.0, 4.0]])
    y.backward(upstream(build, [[1.0, 2.0], [3.0, 4.0]]))
    must_equal("its gradient", gradient_of("masked_fill", x), [[1.0, 0.0], [3.0, 4.0]])


@pytest.mark.step(9)
@pytest.mark.checks("cat")
@pytest.mark.parametrize(
    ("line", "shapes"),
    [
        ("torch.cat([x, y])", ((2,), (3,))),
        ("torch.cat([x, y], 0)", ((2, 3), (1, 3))),
        ("torch.cat([x, y], 1)", ((2, 3), (2, 1))),
        ("torch.cat([x, y], -1)", ((2, 3, 4), (2, 3, 1))),
        ("torch.cat([x, y, z], 1)", ((2, 1), (2, 2), (2, 3))),
        ("torch.cat([x, y, x], 1)", ((3, 3), (3, 3))),
        ("torch.cat([x], 0)", ((2, 3),)),
    ],
    ids=str,
)
def test_cat_agrees_with_torch(build, line, shapes):
    agree(build, line, *shapes)


@pytest.mark.step(9)
@pytest.mark.checks("cat")
def test_cat_refuses_sizes_that_differ(build):
    reason = "All sizes but that of the joined axis have to be equal"
    for line in ("torch.cat([x, y], 0)", "torch.cat([x, y], 2)"):
        must_refuse(build, line, reason, x=np.ones((2, 3)), y=np.ones((2, 4)))


ON_ONE = [
    "x.exp()",
    "x.sum(1)",
    "x.mean(0, keepdim=True)",
    "x.softmax(1)",
    "x.log_softmax(0)",
    "x.reshape(-1)",
    "x.permute(1, 0, 2)",
    "x[1:]",
    "x[:, torch.tensor([0, 0, 1])]",
    "x.expand(2, 4, 4, 4)",
    "torch.cat([x, x], 1)",
]
ON_TWO = ["x + y", "x * y", "x / q", "x @ y"]


@pytest.mark.step(9)
@pytest.mark.checks("Tensor")
@pytest.mark.parametrize("view", ["permuted", "sliced"])
def test_every_operation_takes_views(build, view):
    for line in (*ON_ONE, *ON_TWO):
        agree(build, line, *[(4, 4, 4)] * (2 if line in ON_TWO else 1), view=view)


@pytest.mark.step(9)
@pytest.mark.checks("Tensor")
@lines(*ON_ONE, *ON_TWO, "-x", "x - y", "x**2", "p.log()", "x.tanh()", "x.relu()", "x.max()")
def test_no_operation_changes_its_input(build, line):
    before = {name: numbers((4, 4, 4), positive=name in "pq") for name in "pqxy"}
    leaves = {name: leaf(build, values.copy()) for name, values in before.items()}
    result = outcome(lambda: eval(line, {"torch": build, **leaves}))  # errors have other checks
    must_keep(line, leaves, before)
    if isinstance(result, build.Tensor):
        outcome(lambda: result.backward(upstream(build, np.ones(result.shape))))
        must_keep(f"backward of {line}", leaves, before)


@pytest.mark.step(9)
@pytest.mark.checks("Tensor")
def test_a_small_network_learns_as_it_does_on_torch(build):
    data = {name: numbers(shape, i) for i, (name, shape) in enumerate(
        {"x": (8, 5), "w": (5, 6), "b": (6,), "v": (6, 3)}.items())}  # fmt: skip
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    losses = {}
    for library in (torch, build):
        w, b, v = (data[name].copy() for name in "wbv")
        found = losses[library] = []
        for _ in range(5):
            leaves = [library.tensor(part.copy(), requires_grad=True) for part in (w, b, v)]
            scores = (library.tensor(data["x"]) @ leaves[0] + leaves[1]).tanh() @ leaves[2]
            logp = scores.log_softmax(-1)
            loss = -logp[library.arange(8), library.tensor(labels)].mean()
            loss.backward()
            w, b, v = (part - 0.5 * array(x.grad) for part, x in zip((w, b, v), leaves))
            found.append(loss.item())
    must_equal("the losses of five steps of a small network", losses[build], losses[torch])


# 10. Without a graph


@pytest.mark.step(10)
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


@pytest.mark.step(10)
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
