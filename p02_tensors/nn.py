"""Modules, as in torch.nn."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from p02_tensors import functional, torch_like
from p02_tensors.torch_like import Tensor, no_grad


class Parameter(Tensor):
    """A tensor that a module learns."""

    def __init__(self, data: Tensor, requires_grad=True):
        super().__init__(torch_like.tensor(data, requires_grad=requires_grad).core)


class Module:
    """Parameters and modules that are set as attributes are found again, in that order."""

    forward: Callable[..., Any]  # what a module computes: each one has its own

    def __init__(self):
        self.training = True

    def __call__(self, *args):
        return self.forward(*args)

    def children(self):
        return [part for part in vars(self).values() if isinstance(part, Module)]

    def modules(self):
        return [self, *(module for part in self.children() for module in part.modules())]

    def named_parameters(self, prefix=""):
        for name, part in vars(self).items():
            if isinstance(part, Parameter):
                yield prefix + name, part
        for name, part in vars(self).items():
            if isinstance(part, Module):
                yield from part.named_parameters(f"{prefix}{name}.")

    def parameters(self):
        return list({id(p): p for _, p in self.named_parameters()}.values())

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode=True) -> Module:
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
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
    def __init__(self, in_features: int, out_features: int, bias=True):
        super().__init__()
        bound = 1 / math.sqrt(max(in_features, 1))
        self.weight = Parameter((torch_like.rand(out_features, in_features) * 2 - 1) * bound)
        self.bias = Parameter((torch_like.rand(out_features) * 2 - 1) * bound) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class Embedding(Module):
    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = Parameter(torch_like.randn(num_embeddings, embedding_dim))

    def forward(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self.weight)


class LayerNorm(Module):
    def __init__(self, normalized_shape, eps: float = 1e-5):
        super().__init__()
        one = isinstance(normalized_shape, int)
        self.shape = (normalized_shape,) if one else tuple(normalized_shape)
        self.eps = eps
        self.weight = Parameter(torch_like.ones(self.shape))
        self.bias = Parameter(torch_like.zeros(self.shape))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class ModuleList(Module):
    def __init__(self, modules=()):
        super().__init__()
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __iter__(self):
        return iter(self.children())

    def __len__(self):
        return len(self.children())

    def __getitem__(self, i):
        return self.children()[i]


class Sequential(ModuleList):
    def __init__(self, *modules):
        super().__init__(modules)

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x


class ReLU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


class Tanh(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


class GELU(Module):
    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x, self.approximate)


class Dropout(Module):
    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.p, self.training)


def clip_grad_norm_(parameters, max_norm: float) -> Tensor:
    """Scale all gradients together to a norm of at most max_norm; returns the norm before."""
    parameters = [p for p in parameters if p.grad is not None]
    total = math.sqrt(sum((p.grad * p.grad).sum().item() for p in parameters))
    scale = min(max_norm / (total + 1e-6), 1.0)
    for p in parameters:
        p.grad = p.grad * scale
    return torch_like.tensor(total)


@no_grad()
def normal_(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    x[...] = torch_like.randn(*x.shape) * std + mean
    return x


@no_grad()
def zeros_(x: Tensor) -> Tensor:
    x[...] = 0.0
    return x


utils = SimpleNamespace(clip_grad_norm_=clip_grad_norm_)
init = SimpleNamespace(normal_=normal_, zeros_=zeros_)
