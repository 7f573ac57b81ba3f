"""The library does what PyTorch does, on our core and on cores in other styles.

A line of code runs on PyTorch and on the library: shapes, dtypes, values and gradients agree.
"""

import contextlib
import importlib
import importlib.util
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

STYLES = Path(__file__).resolve().parents[1] / "tests/other_styles/p02_tensors"
OTHERS = [path for path in sorted(STYLES.glob("*.py")) if path.stem not in ("__init__", "mutants")]
TOLERANCE = {"float32": (1e-4, 1e-5), "float64": (1e-8, 1e-10)}


@contextlib.contextmanager
def imported_on(path):
    """p02_tensors, imported anew with another file in build.py's place."""
    before = {name: m for name, m in sys.modules.items() if name.startswith("p02_tensors")}
    for name in before:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location("p02_tensors.build", path)
    core = sys.modules["p02_tensors.build"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    try:
        yield importlib.import_module("p02_tensors")
    finally:
        for name in [name for name in sys.modules if name.startswith("p02_tensors")]:
            del sys.modules[name]
        sys.modules.update(before)


@pytest.fixture(scope="module", params=["build", *(path.stem for path in OTHERS)])
def lib(request):
    """The library, on each core."""
    if request.param == "build":
        yield importlib.import_module("p02_tensors")
    else:
        with imported_on(STYLES / f"{request.param}.py") as library:
            yield library


def numbers(shape, seed=0, positive=False):
    """The same float64 numbers every time, in (-2, 2) or in (0.5, 2)."""
    rng = np.random.default_rng([seed, *shape])
    return np.asarray(rng.uniform(0.5, 2, shape) if positive else rng.uniform(-2, 2, shape))


def array(x):
    return np.array(x.detach().numpy())


def must_equal(what, got, expected, dtype):
    rtol, atol = TOLERANCE.get(dtype, TOLERANCE["float64"])
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, PyTorch's {expected.shape}"
    assert np.allclose(got, expected, rtol, atol, equal_nan=True), (
        f"{what} is\n{got}\nPyTorch's\n{expected}"
    )


def run(library, line, inputs, dtype):
    leaves = {
        name: library.tensor(values, dtype=getattr(library, dtype), requires_grad=True)
        for name, values in inputs.items()
    }
    return eval(line, {"torch": library, "math": math, **leaves}), leaves


def agree(lib, line, *shapes):
    names = [name for name in "pqxyz" if re.search(rf"\b{name}\b", line)]
    inputs = {
        name: numbers(shape, seed, positive=name in "pq")
        for seed, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }
    for dtype in TOLERANCE:
        what = f"{line} with {dtype} {dict(zip(names, shapes))}"
        expected, theirs = run(torch, line, inputs, dtype)
        got, ours = run(lib, line, inputs, dtype)
        assert isinstance(got, lib.Tensor), f"{what} is {type(got)}"
        name = str(expected.dtype).removeprefix("torch.")
        assert got.dtype == getattr(lib, name), f"{what} is {got.dtype}, PyTorch's {name}"
        must_equal(what, array(got), array(expected), name)
        assert got.requires_grad == expected.requires_grad, f"{what}: {got.requires_grad}"
        if expected.requires_grad:
            weights = numbers(tuple(expected.shape), seed=9)
            expected.backward(torch.tensor(weights, dtype=expected.dtype))
            got.backward(lib.tensor(weights, dtype=got.dtype))
            for name, leaf in ours.items():
                if theirs[name].grad is not None:
                    gradient = array(leaf.grad), array(theirs[name].grad)
                    must_equal(f"{what}: gradient with respect to {name}", *gradient, dtype)


GROUPS = {
    "making": [
        ("torch.full((2, 3), 1.5)",),
        ("torch.full((), 2.0)",),
        ("torch.full((2,), 3)",),
        ("torch.full((2,), 3, dtype=torch.float64)",),
        ("torch.zeros((2, 3))",),
        ("torch.zeros(())",),
        ("torch.zeros(2, dtype=torch.int64)",),
        ("torch.ones(2, 3, requires_grad=True)",),
        ("torch.ones(2, 2, dtype=torch.bool)",),
        ("torch.arange(0, 1, 0.25)",),
        ("torch.arange(3, dtype=torch.float64)",),
        ("torch.tensor([True, False])",),
        ("torch.tensor([torch.tensor(1), torch.tensor(2)])",),
    ],
    "dtypes": [
        ("torch.tensor([1, 2]) + 1",),
        ("torch.tensor([1, 2]) * 2.5",),
        ("torch.tensor([1, 2]) / 2",),
        ("torch.tensor([7, 8]) / torch.tensor([2, 2])",),
        ("torch.tensor([1, 2]) + torch.tensor([True, False])",),
        ("torch.tensor([1.0, 2.0]) + torch.tensor([1, 2])",),
        ("torch.tensor([1.0, 2.0]) + torch.tensor([1.0, 2.0], dtype=torch.float64)",),
        ("torch.tensor([2, 3]) ** 2",),
        ("torch.tensor([True, False]) * 2",),
        ("torch.tensor([1, 2]).exp()",),
        ("torch.tensor([-1, 0, 2]).relu()",),
        ("torch.tensor([0, 1, 2]).float()",),
        ("torch.tensor([1.9, -1.9]).long()",),
        ("torch.tensor([0.0, 0.5]).to(torch.bool)",),
        ("x.to(torch.float64) * 2", (2, 3)),
        ("x.long() + 1", (2, 3)),
        ("(x > 0) & (x < 1) | ~(x > -1)", (2, 3)),
    ],
    "arithmetic": [
        ("x - 0.1", ()),
        ("0.1 / p", (2, 3)),
        ("p**0.5", (2, 3)),
        ("x**0", (2, 3)),
        ("2**x", (2, 3)),
        ("p**y", (2, 1), (3,)),
        ("x.masked_fill(x > 0, 2.0) * x", (2, 3)),
        ("torch.where(x > 0, y, z)", (2, 1), (3,), (4, 1, 1)),
        ("torch.where(x > 0, 0.0, -math.inf)", (2, 3)),
        ("torch.where(x > 0, x, 0.1)", (4,)),
        ("x.relu() * x.tanh() + p.log() / p.sqrt()", (2, 3), (2, 3)),
    ],
    "shapes": [
        ("x.expand(-1, 4)", (3, 1)),
        ("x.expand((2, -1, -1))", (3, 1)),
        ("x.reshape((3, 2))", (2, 3)),
        ("x.reshape(())", (1, 1)),
        ("x.view(3, -1) * 2", (2, 3)),
        ("x.permute((1, 0))", (2, 3)),
        ("x.T", (2, 3)),
        ("x.squeeze()", (1, 3, 1)),
        ("x.squeeze()", (1, 1)),
        ("x.squeeze(-2)", (2, 1, 1, 3)),
        ("x.unsqueeze(-1)", (2, 3)),
        ("x.unsqueeze(1)", (2, 3)),
        ("x.unsqueeze(0)", ()),
        ("x.clone() * x", (2, 3)),
        ("x.transpose(0, 1).contiguous().view(-1)", (2, 3)),
        ("x.split(2)[1]", (3, 2)),
        ("x.split([1, 2], 1)[1]", (2, 3)),
    ],
    "indexing": [
        ("x[None]", (2, 3)),
        ("x[:, None]", (2, 3)),
        ("x[None, 1, None]", (2, 3)),
        ("x[..., 0]", (2, 3, 4)),
        ("x[1:, ..., None]", (2, 3)),
        ("x[None, torch.tensor([0, 1])]", (2, 3)),
        ("x[torch.tensor([0, 1])[:, None] + torch.arange(2)]", (3, 2)),
        ("x[torch.tensor([[0], [1]]), torch.tensor([2, 0])]", (3, 4)),
        ("x[torch.tensor([], dtype=torch.int64)]", (3, 4)),
        ("x[0, :, torch.tensor([1, 0])]", (2, 3, 4)),
        ("x[torch.tensor([0, 1]), 1:]", (2, 3)),
        ("x[torch.tensor([True, False, True])]", (3, 3)),
        ("x[x > 0]", (3, 3)),
        ("x[:, torch.tensor([True, False, True])]", (3, 3)),
        ("x[[0, 0, 1]]", (2, 3)),
    ],
    "reductions": [
        *[
            (f"x.{name}({dims})", (2, 3, 4))
            for name in ("sum", "mean", "amax")
            for dims in ("", "1", "(0, 2)", "(-1, 0), keepdim=True")
        ],
        ("x.var(1)", (2, 3)),
        ("x.var()", (2, 3)),
        ("x.var(-1, unbiased=False, keepdim=True)", (2, 3)),
        ("x.max(1).values", (2, 3)),
        ("x.max(-1, keepdim=True)[0]", (2, 3)),
        ("x.max(0).indices", (2, 3)),
        ("x.min(0).values", (2, 3)),
        ("x.min(1, keepdim=True).indices", (2, 3)),
        ("x.max() * x.min()", (2, 3)),
        ("x.max(y)", (2, 3), (3,)),
        ("x.min(y)", (2, 3), (3,)),
        ("x.argmax()", (2, 3)),
        ("x.argmax(keepdim=True)", (2, 3)),
        ("x.argmax(1, keepdim=True)", (2, 3)),
        ("x.argmin(0)", (2, 3)),
        ("torch.tensor([[True, False], [True, True]]).sum(1)",),
        ("x.log_softmax(-1)", (2, 3)),
    ],
    "matrices": [
        ("x @ y", (3,), (3,)),
        ("x @ y", (2, 3), (3,)),
        ("x @ y", (3,), (5, 3, 4)),
        ("x @ y", (2, 1, 3), (3,)),
        ("x @ y", (5, 2, 3), (3, 4)),
        ("x @ y", (2, 1, 2, 3), (4, 3, 2)),
        ("x.matmul(y.T)", (4, 3), (2, 3)),
    ],
    "joining": [
        ("torch.tril(x)", (3, 4)),
        ("torch.tril(x, diagonal=-1)", (2, 3, 3)),
        ("torch.triu(x, 1)", (3, 3)),
        ("torch.tril(torch.ones(3, 3, dtype=torch.bool))",),
        ('torch.triu(torch.full((3, 3), float("-inf")), 1)',),
        ("torch.cat([torch.tensor([1, 2]), torch.tensor([0.5])])",),
        ("torch.stack([x, y], -1)", (2, 3), (2, 3)),
        ("torch.stack([x, x])", ()),
    ],
}
EMPTY = [
    ("0.1 - x", (2, 0, 3)),
    ("x + y", (2, 0), (2, 1)),
    ("x.reshape(0, 5)", (2, 0)),
    ("x.permute(1, 0, 2)", (2, 0, 3)),
    ("x.sum()", (2, 0)),
    ("x.mean()", (0,)),
    ("x.softmax(dim=-1)", (0, 3)),
    ("x.softmax(1)", (2, 0)),
    ("x @ y", (0, 2), (2, 3)),
    ("torch.cat([x, y], 1)", (2, 3), (2, 0)),
]


@pytest.mark.parametrize("group", GROUPS)
def test_a_line_does_what_it_does_in_torch(lib, group):
    for line, *shapes in GROUPS[group]:
        agree(lib, line, *shapes)


def test_a_line_on_empty_tensors_does_what_it_does_in_torch():
    for line, *shapes in EMPTY:
        agree(importlib.import_module("p02_tensors"), line, *shapes)


def test_powers_of_zero_have_finite_gradients(lib):
    for line in ("x**2", "x**1", "x**0", "x**1.5"):
        x, y = lib.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
        for z, library in ((x, lib), (y, torch)):
            eval(line, {"x": z}).backward(library.ones(2))
        must_equal(f"the gradient of {line} at 0", array(x.grad), array(y.grad), "float32")
    x = lib.tensor([0.0, 0.0, 2.0], requires_grad=True)
    y = lib.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x**y).sum().backward()
    must_equal("d x**y / dy", array(y.grad), np.array([0.0, 0.0, 8 * math.log(2)]), "float32")


def test_what_a_tensor_says_of_itself(lib):
    x = lib.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert x.size() == (2, 2) and x.size(1) == 2 and x.numel() == 4 and x.ndim == 2
    assert len(x) == 2 and [row.tolist() for row in x] == [[1.0, 2.0], [3.0, 4.0]]
    assert x.device == "cpu" and x.to("cpu") is x
    assert repr(x) == "tensor([[1., 2.],\n        [3., 4.]])"
    assert repr(lib.tensor([1.0], requires_grad=True)) == "tensor([1.], requires_grad=True)"
    assert bool(lib.tensor(1)) and int(lib.tensor([3])) == 3 and float(lib.tensor(0.5)) == 0.5
    assert "abc"[lib.tensor(1)] == "b"


def test_one_element_is_formatted_as_a_number(lib):
    assert f"{lib.tensor(1.5):.2f}, {lib.tensor([[3]]):d}" == "1.50, 3"
    assert f"{lib.tensor([1, 2])}" == "tensor([1, 2])"
    with pytest.raises(RuntimeError, match=r"one element needed, this has shape \(2,\)"):
        f"{lib.tensor([1, 2]):.2f}"


@pytest.mark.filterwarnings("error")
def test_numpy_takes_a_tensor(lib):
    x = lib.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert np.asarray(x).tolist() == x.tolist() and np.asarray(x, np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(x), np.asarray(x))
    assert (np.ones(2) * lib.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert (np.float32(2) * lib.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]


@pytest.mark.filterwarnings("error")
def test_matplotlib_draws_a_tensor():
    import p02_tensors as lib

    Figure().add_subplot().imshow(lib.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_a_view_shares_its_memory_and_a_clone_has_its_own():
    import p02_tensors as lib

    x = lib.zeros(2, 3)
    x.view(6)[0] = 1.0
    x.T[2] = 2.0
    x.clone()[1] = 9.0
    assert x.tolist() == [[1.0, 0.0, 2.0], [0.0, 0.0, 2.0]]


def test_writing_into_a_tensor(lib):
    x = lib.zeros(2, 3)
    x[0] = 1.0
    x[:, 1] = lib.tensor([5.0, 6.0])
    x[x > 5] = 7.0
    x[1, lib.tensor([0, 2])] = 2
    assert x.tolist() == [[1.0, 5.0, 1.0], [2.0, 7.0, 2.0]]
    w = lib.ones(2, requires_grad=True)
    with lib.no_grad():
        w[...] = w * 3
    assert w.tolist() == [3.0, 3.0] and w.requires_grad
    with pytest.raises(RuntimeError, match="use no_grad"):
        w[0] = 1.0


def test_data_can_be_set_and_the_gradient_stays(lib):
    w = lib.ones(2, requires_grad=True)
    (w * w).sum().backward()
    w.data = w.data - 0.5 * w.grad
    assert w.tolist() == [0.0, 0.0] and w.requires_grad and w.grad.tolist() == [2.0, 2.0]


def test_no_grad_can_stand_above_a_function(lib):
    x = lib.ones(2, requires_grad=True)

    @lib.no_grad()
    def twice(x):
        return x * 2

    for _ in range(2):
        assert not twice(x).requires_grad and (x * 2).requires_grad


def test_a_graph_is_used_up_by_backward(lib):
    w = lib.ones(2, requires_grad=True)
    y = (w * w).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert w.grad.tolist() == [4.0, 4.0]
    with pytest.raises(RuntimeError, match="used up; use retain_graph=True"):
        y.backward()


@pytest.mark.parametrize(
    "line", ["torch.randn(2, 3)", "torch.rand((2, 3))", "torch.randint(0, 1000, (2, 3))"]
)
def test_manual_seed_starts_the_numbers_over(lib, line):
    def draw(seed=None):
        if seed is not None:
            lib.manual_seed(seed)
        return eval(line, {"torch": lib}).tolist()

    first, second, again, other = draw(1), draw(), draw(1), draw(2)
    assert first == again and first != second and first != other


def test_random_numbers_are_spread_as_they_should(lib):
    lib.manual_seed(0)
    x, u, n = array(lib.randn(100, 100)), array(lib.rand(100, 100)), lib.randint(3, 7, (4000,))
    assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05
    assert u.min() >= 0 and u.max() < 1 and np.histogram(u, 10, (0, 1))[0].min() > 800
    assert np.bincount(array(n)).tolist()[:3] == [0, 0, 0]
    assert set(array(n)) == {3, 4, 5, 6} and np.bincount(array(n))[3:].min() > 800
    assert array(lib.randint(2, (100,))).max() == 1


def test_a_gpt_block_trains_on_it(lib):
    """Embedding, norms, masked attention, GELU, cross-entropy, AdamW: as on PyTorch."""
    losses = {}
    for library in (torch, lib):
        nn = library.nn
        parts = {
            "emb": nn.Embedding(11, 8),
            "pos": nn.Embedding(6, 8),
            "qkv": nn.Linear(8, 24, bias=False),
            "ln": nn.LayerNorm(8),
            "mlp": nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)),
            "head": nn.Linear(8, 11),
        }
        parameters = [p for part in parts.values() for p in part.parameters()]
        with library.no_grad():
            for i, p in enumerate(parameters):
                p[...] = library.tensor(0.5 * numbers(tuple(p.shape), i).astype(np.float32))
        optimizer = library.optim.AdamW(parameters, lr=0.01)
        ids = library.tensor(np.random.default_rng(0).integers(0, 11, (3, 6)))
        losses[library] = []
        for _ in range(8):
            B, T = ids.shape
            x = parts["emb"](ids) + parts["pos"](library.arange(T, device=ids.device))
            q, k, v = (part.view(B, T, 2, 4).transpose(1, 2)
                       for part in parts["qkv"](parts["ln"](x)).split(8, dim=-1))  # fmt: skip
            mask = library.tril(library.ones(T, T, dtype=library.bool))
            scores = q @ k.transpose(-2, -1) / math.sqrt(4)
            scores = scores.masked_fill(mask == 0, float("-inf"))
            x = x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, 8)
            x = x + parts["mlp"](x)
            logits = parts["head"](x)
            loss = nn.functional.cross_entropy(
                logits[:, :-1].reshape(-1, 11), ids[:, 1:].reshape(-1)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[library].append(loss.item())
    assert losses[lib] == pytest.approx(losses[torch], rel=1e-4)
    assert losses[lib][-1] < 0.8 * losses[lib][0]
