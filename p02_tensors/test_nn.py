"""Modules and functions of a network, held to PyTorch's."""

import math

import numpy as np
import pytest
import torch

import p02_tensors
from p02_tensors import functional, nn


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def both(values, requires_grad=True):
    """The same float64 numbers in both libraries."""
    return (
        p02_tensors.tensor(values, dtype=p02_tensors.float64, requires_grad=requires_grad),
        torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad),
    )


def array(x):
    """The values of a tensor of either library."""
    return np.asarray(x.detach().numpy())


def must_agree(pairs, got, expected, tolerance=1e-9):
    """Values, and the gradients of all `pairs` of (our tensor, theirs)."""
    assert got.shape == tuple(expected.shape)
    assert np.allclose(array(got), array(expected), tolerance, tolerance)
    weights = numbers(*got.shape, seed=9)
    (got * p02_tensors.tensor(weights)).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    for mine, theirs in pairs:
        assert np.allclose(array(mine.grad), array(theirs.grad), tolerance, tolerance)


def copied(ours, theirs):
    """Give our module the weights of a PyTorch one, in float64."""
    theirs = theirs.double()
    for parameter in ours.parameters():
        parameter.data = parameter.data.double()
    ours.load_state_dict({k: p02_tensors.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return ours, theirs


MODULES = {
    "Linear": (lambda nn: nn.Linear(4, 3), (2, 5, 4)),
    "Linear of a vector": (lambda nn: nn.Linear(4, 3), (4,)),
    "Linear without bias": (lambda nn: nn.Linear(4, 3, bias=False), (2, 4)),
    "LayerNorm": (lambda nn: nn.LayerNorm(4), (2, 5, 4)),
    "LayerNorm over two axes": (lambda nn: nn.LayerNorm((5, 4)), (2, 5, 4)),
    "ReLU": (lambda nn: nn.ReLU(), (2, 3)),
    "Tanh": (lambda nn: nn.Tanh(), (2, 3)),
    "GELU": (lambda nn: nn.GELU(), (2, 3)),
    "GELU by tanh": (lambda nn: nn.GELU(approximate="tanh"), (2, 3)),
    "Dropout of nothing": (lambda nn: nn.Dropout(0.0), (2, 3)),
    "Sequential": (
        lambda nn: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)),
        (3, 4),
    ),
}


@pytest.mark.parametrize(("make", "shape"), MODULES.values(), ids=MODULES)
def test_a_module_does_what_torchs_does(make, shape):
    mine, theirs = copied(make(nn), make(torch.nn))
    assert list(mine.state_dict()) == list(theirs.state_dict())
    x, y = both(numbers(*shape))
    weights = list(zip(mine.parameters(), theirs.parameters(), strict=True))
    must_agree([(x, y), *weights], mine(x), theirs(y))


def test_an_embedding_adds_up_the_gradients_of_a_token_that_comes_twice():
    mine, theirs = copied(nn.Embedding(5, 3), torch.nn.Embedding(5, 3))
    ids = [[0, 4, 4], [2, 0, 4]]
    got, expected = mine(p02_tensors.tensor(ids)), theirs(torch.tensor(ids))
    must_agree([(mine.weight, theirs.weight)], got, expected)
    assert mine.num_embeddings == 5 and mine.embedding_dim == 3


def test_new_weights_are_spread_as_torchs():
    p02_tensors.manual_seed(0)
    layer = nn.Linear(400, 300)
    for values in map(array, (layer.weight, layer.bias)):
        assert abs(values).max() <= 1 / math.sqrt(400)
        assert abs(values.std() * math.sqrt(3 * 400) - 1) < 0.1
    assert abs(array(nn.Embedding(100, 50).weight).std() - 1) < 0.05


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(p02_tensors.ones(3))
        self.first = nn.Linear(3, 3)
        self.blocks = nn.ModuleList([nn.Linear(3, 3, bias=False) for _ in range(2)])
        self.last = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1))

    def forward(self, x):
        x = self.first(x * self.scale)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def test_parameters_are_named_after_the_attributes_that_hold_them():
    names = ["scale", "first.weight", "first.bias", "blocks.0.weight", "blocks.1.weight"]
    names += ["last.1.weight", "last.1.bias"]
    assert list(Net().state_dict()) == names
    assert [name for name, _ in Net().named_parameters()] == names
    net = Net()
    net.tied = net.first
    assert len(net.parameters()) == len(names), "a shared parameter counts once"


def test_a_module_is_trained_evaluated_and_cleared_with_all_its_parts():
    net = Net()
    assert all(module.training for module in net.modules())
    net.eval()
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())
    net(p02_tensors.ones(2, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_state_dict_is_loaded_whole_or_not_at_all():
    mine, other = Net(), Net()
    mine.load_state_dict(other.state_dict())
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        assert a.tolist() == b.tolist() and a is not b
    state = other.state_dict()
    with pytest.raises(RuntimeError, match=r"first\.weight"):
        mine.load_state_dict({k: v for k, v in state.items() if k != "first.weight"})
    with pytest.raises(RuntimeError, match=r"scale.*\(2,\)"):
        mine.load_state_dict(state | {"scale": p02_tensors.ones(2)})
    kept, last = [p.tolist() for p in mine.parameters()], list(state)[-1]
    with pytest.raises(RuntimeError, match=last):
        mine.load_state_dict({k: v * 2 for k, v in state.items()} | {last: p02_tensors.ones(9)})
    assert [p.tolist() for p in mine.parameters()] == kept


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 1.0])
def test_dropout_keeps_the_mean_and_rests_in_evaluation(p):
    p02_tensors.manual_seed(0)
    x = p02_tensors.ones(100, 100, requires_grad=True)
    dropout = nn.Dropout(p)
    y = dropout(x)
    values = array(y)
    assert set(np.unique(values)) <= {0.0, np.float32(1 / (1 - p)) if p < 1 else 0.0}
    assert abs((values == 0).mean() - p) < 0.02
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), values), "the gradient passes where the value did"
    dropout.eval()
    assert dropout(x) is x
    with pytest.raises(ValueError, match=r"1\.5"):
        functional.dropout(x, 1.5)


FUNCTIONS = {
    "linear": (lambda F, x, y: F.linear(x, y), (2, 4), (3, 4)),
    "softmax": (lambda F, x, y: F.softmax(x, dim=1) * y, (2, 4), (2, 4)),
    "log_softmax": (lambda F, x, y: F.log_softmax(x, dim=0) * y, (2, 4), (2, 4)),
    "relu": (lambda F, x, y: F.relu(x - y), (2, 4), (4,)),
    "gelu": (lambda F, x, y: F.gelu(3 * x) * y, (2, 4), (4,)),
    "gelu by tanh": (lambda F, x, y: F.gelu(3 * x, approximate="tanh") * y, (2, 4), (4,)),
    "layer_norm": (lambda F, x, y: F.layer_norm(x, (4,), y, y), (2, 4), (4,)),
    "layer_norm without weights": (lambda F, x, y: F.layer_norm(x, (4,)) * y, (2, 4), (4,)),
}


@pytest.mark.parametrize(("function", "x", "y"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_does_what_torchs_does(function, x, y):
    (x, x_), (y, y_) = both(numbers(*x)), both(numbers(*y, seed=1))
    got = function(functional, x, y)
    must_agree([(x, x_), (y, y_)], got, function(torch.nn.functional, x_, y_))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(4, 3), (3,), (2, 3, 5), (2, 3, 5, 1)], ids=str)
def test_cross_entropy_does_what_torchs_does(shape, reduction):
    rng = np.random.default_rng(0)
    axis = 1 if len(shape) > 1 else 0
    targets = rng.integers(0, 3, (*shape[:axis], *shape[axis + 1 :]))
    for ignored in (-100, 1):
        if targets.ndim == 0 and ignored == targets:
            continue
        x, y = both(10 * numbers(*shape))
        settings = {"ignore_index": ignored, "reduction": reduction}
        got = functional.cross_entropy(x, p02_tensors.tensor(targets), **settings)
        theirs = torch.nn.functional.cross_entropy(y, torch.tensor(targets), **settings)
        must_agree([(x, y)], got, theirs)


def test_cross_entropy_is_exact_for_logits_of_any_size():
    x = p02_tensors.tensor([[0.0, 1000.0], [5000.0, 0.0]], requires_grad=True)
    loss = functional.cross_entropy(x, p02_tensors.tensor([0, 0]))
    assert loss.item() == 500.0
    loss.backward()
    assert x.grad.tolist() == [[-0.5, 0.5], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("logits", "targets", "says"),
    [
        ((4, 3), [0, 1], r"\(4, 3\).*\(2,\)"),
        ((2, 3), [0, 3], "target 3 is outside of 3 classes"),
        ((2, 3), [0, -1], "target -1"),
    ],
    ids=["another number of targets", "a class too high", "a negative class"],
)
def test_cross_entropy_says_what_is_wrong(logits, targets, says):
    with pytest.raises((ValueError, IndexError), match=says):
        functional.cross_entropy(p02_tensors.zeros(logits), p02_tensors.tensor(targets))


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm_does_what_torchs_does(max_norm):
    (a, a_), (b, b_), (idle, idle_) = (both(numbers(3, 2, seed=i)) for i in range(3))
    for x, y in ((a, b), (a_, b_)):
        (3 * (x * x).sum() + y.sum()).backward()
    got = nn.utils.clip_grad_norm_([a, b, idle], max_norm)
    theirs = torch.nn.utils.clip_grad_norm_([a_, b_, idle_], max_norm)
    assert math.isclose(got.item(), theirs.item(), rel_tol=1e-6)
    for x, y in ((a, a_), (b, b_)):
        assert np.allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-5)


def test_init_writes_into_a_parameter():
    p02_tensors.manual_seed(0)
    weight = nn.Parameter(p02_tensors.ones(100, 100))
    nn.init.normal_(weight, mean=3.0, std=0.5)
    values = array(weight)
    assert abs(values.mean() - 3) < 0.02 and abs(values.std() - 0.5) < 0.02
    nn.init.zeros_(weight)
    assert not array(weight).any() and weight.requires_grad
