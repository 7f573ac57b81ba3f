"""The functions of a network, as in torch.nn.functional."""

from __future__ import annotations

import math

import numpy as np

from p02_tensors import build
from p02_tensors.build import Tensor, arange, where


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., inputs), weight (outputs, inputs) -> (..., outputs)."""
    y = x @ weight.transpose(0, 1)
    return y if bias is None else y + bias


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Row ids[...] of weight (V, C) -> (..., C)."""
    return weight[ids]


def relu(x: Tensor) -> Tensor:
    return x.relu()


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times the probability that a standard normal number is below x."""
    if approximate == "tanh":
        return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
    if approximate != "none":
        raise RuntimeError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    below = 0.5 * (1 + erf(x.detach() / math.sqrt(2)))
    density = (-0.5 * x.detach() * x.detach()).exp() / math.sqrt(2 * math.pi)
    slope = below + x.detach() * density
    return build.result((x.detach() * below)._array, (x, lambda g: g * slope))


def erf(x: Tensor) -> Tensor:
    """The error function; the standard library has it for one number at a time."""
    values = np.fromiter(map(math.erf, x.reshape(-1).tolist()), x.dtype, x.numel())
    return Tensor(values.reshape(x.shape))


def softmax(x: Tensor, dim: int) -> Tensor:
    return x.softmax(dim)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    return x.log_softmax(dim)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean nats per target: logits (N, V), targets (N,) int64 -> scalar."""
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"cross_entropy: logits (N, V) and targets (N,) needed, "
            f"got {logits.shape} and {targets.shape}"
        )
    return -logits.log_softmax(-1)[arange(len(targets)), targets].mean()


def layer_norm(x: Tensor, shape, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 over the last axes, `shape`; then scaled and shifted."""
    if x.shape[x.ndim - len(shape) :] != tuple(shape):
        raise RuntimeError(f"layer_norm: {x.shape} does not end in {tuple(shape)}")
    axes = tuple(range(-len(shape), 0))
    far = x - x.mean(axes, keepdim=True)
    y = far / ((far * far).mean(axes, keepdim=True) + eps).sqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element with probability p and divide the others by 1 - p."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must lie in [0, 1], got {p}")
    if not training or p == 0:
        return x
    kept = build.rand(*x.shape) >= p
    return where(kept, x / (1 - p), 0.0) if p < 1 else x * 0.0
