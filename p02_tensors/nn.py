"""Modules with the names, parameters and initial weights of torch.nn.

Shapes: B batch, T time, C channels, V vocabulary; `...` is any number of leading axes. Parameters
are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace

from p02_tensors import functional, torch_like
from p02_tensors.torch_like import Tensor, no_grad


class Parameter(Tensor):
    """A tensor that training changes: a copy of `data`. A Module finds it among its attributes."""

    def __init__(self, data: Tensor, requires_grad: bool = True):
        super().__init__(torch_like.tensor(data, requires_grad=requires_grad).core)


class Module:
    """Base class of networks: finds the Parameters and Modules among its attributes, in order.

    A subclass defines `forward`. `training` is True until `eval()`.
    """

    forward: Callable[..., Tensor]

    def __init__(self) -> None:
        self.training = True

    def __call__(self, *args: Tensor) -> Tensor:
        return self.forward(*args)

    def children(self) -> list[Module]:
        """The modules among the attributes."""
        return [part for part in vars(self).values() if isinstance(part, Module)]

    def modules(self) -> list[Module]:
        """This module and all modules inside it."""
        return [self, *(module for part in self.children() for module in part.modules())]

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its name, such as "blocks.0.weight"."""
        for name, part in vars(self).items():
            if isinstance(part, Parameter):
                yield prefix + name, part
        for name, part in vars(self).items():
            if isinstance(part, Module):
                yield from part.named_parameters(f"{prefix}{name}.")

    def parameters(self) -> list[Parameter]:
        """Every parameter; one that two modules share comes once."""
        return list({id(p): p for _, p in self.named_parameters()}.values())

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all inside it to training, or to evaluation."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """train(False): dropout passes its input on."""
        return self.train(False)

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by name, outside the graph; they share memory with the module's."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy the values into the parameters; RuntimeError if a name or a shape differs."""
        own = dict(self.named_parameters())
        if own.keys() != state.keys():
            differ = sorted(own.keys() ^ state.keys())
            raise RuntimeError(f"load_state_dict: these names are on one side only: {differ}")
        for name, parameter in own.items():
            if parameter.shape != tuple(state[name].shape):
                raise RuntimeError(f"{name}: {state[name].shape} given, {parameter.shape} needed")
        with no_grad():
            for name, parameter in own.items():
                parameter[...] = state[name]


class Linear(Module):
    """x @ weight.T + bias: (..., in_features) -> (..., out_features).

    weight (out_features, in_features) and bias (out_features,) are uniform within
    1 / sqrt(in_features) of zero.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        bound = 1 / math.sqrt(max(in_features, 1))
        self.weight = Parameter((torch_like.rand(out_features, in_features) * 2 - 1) * bound)
        self.bias = Parameter((torch_like.rand(out_features) * 2 - 1) * bound) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class Embedding(Module):
    """Rows of weight (V, C), standard normal: ids (...) int64 -> (..., C).

    IndexError for an id outside of 0 to V - 1.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = Parameter(torch_like.randn(num_embeddings, embedding_dim))

    def forward(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self.weight)


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axes, `normalized_shape`, then scaled and shifted.

    The shape stays. weight (ones) and bias (zeros) have `normalized_shape` (Ba et al. 2016).
    """

    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5):
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.shape = tuple(shape)
        self.eps = eps
        self.weight = Parameter(torch_like.ones(self.shape))
        self.bias = Parameter(torch_like.zeros(self.shape))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class ModuleList(Module):
    """A list of modules whose parameters are found; it has no forward."""

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__()
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.children())

    def __len__(self) -> int:
        return len(self.children())

    def __getitem__(self, i: int) -> Module:
        return self.children()[i]


class Sequential(ModuleList):
    """Modules one after the other: the output of each is the input of the next."""

    def __init__(self, *modules: Module):
        super().__init__(modules)

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x


class ReLU(Module):
    """max(x, 0), elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


class Tanh(Module):
    """tanh(x), elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


class GELU(Module):
    """x times the standard normal distribution function at x; approximate: "none" or "tanh"."""

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x, self.approximate)


class Dropout(Module):
    """In training, zero each element with probability p and divide the others by 1 - p."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.p, self.training)


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale the gradients so that their common 2-norm is at most max_norm.

    Returns the norm before clipping, a scalar. Parameters without a gradient are left out.
    """
    found = [(p, p.grad) for p in parameters if p.grad is not None]
    total = math.sqrt(sum((grad * grad).sum().item() for _, grad in found))
    scale = min(max_norm / (total + 1e-6), 1.0)
    for p, grad in found:
        p.grad = grad * scale
    return torch_like.tensor(total)


@no_grad()
def normal_(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill x in place with normal numbers; returns x."""
    x[...] = torch_like.randn(*x.shape) * std + mean
    return x


@no_grad()
def zeros_(x: Tensor) -> Tensor:
    """Fill x in place with zeros; returns x."""
    x[...] = 0.0
    return x


utils = SimpleNamespace(clip_grad_norm_=clip_grad_norm_)
init = SimpleNamespace(normal_=normal_, zeros_=zeros_)
