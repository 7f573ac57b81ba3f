"""The functions of a network, with the names and signatures of torch.nn.functional.

Shapes: N rows, V classes, C channels; `...` is any number of axes. Losses are in nats.
"""

from __future__ import annotations

import math

import numpy as np

from p02_tensors.torch_like import Tensor, arange, float32, linear_at, ones, rand, where


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: x (..., inputs), weight (outputs, inputs) -> (..., outputs)."""
    y = x @ weight.transpose(0, 1)
    return y if bias is None else y + bias


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Row ids[...] of weight (V, C) -> (..., C); IndexError for an id outside of 0 to V - 1."""
    wrong = ids[(ids < 0) | (ids >= len(weight))]
    if len(wrong):
        raise IndexError(f"embedding: id {wrong[0].item()} is outside of {len(weight)} rows")
    return weight[ids]


def relu(x: Tensor) -> Tensor:
    """x where it is positive, else 0."""
    return x.relu()


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times the probability that a standard normal number is below x (Hendrycks, Gimpel 2016).

    approximate: "none", or "tanh" as in GPT-2; RuntimeError for anything else.
    """
    if approximate == "tanh":
        return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
    if approximate != "none":
        raise RuntimeError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    array = x.array
    below = 0.5 * (1 + erf(array / math.sqrt(2)))
    density = np.exp(-0.5 * array * array) / math.sqrt(2 * math.pi)
    return linear_at(array * below, (x, below + array * density))


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, which NumPy lacks: the standard library's, one number at a time.

    In float32 it is formula 7.1.26 of Abramowitz and Stegun's Handbook (1964), wrong by at most
    1.5e-7 before rounding: a few operations on all numbers at once.
    """
    if x.dtype != float32:
        return np.array([math.erf(number) for number in x.flat], x.dtype).reshape(x.shape)
    t = 1 / (1 + 0.3275911 * abs(x))
    tail = np.zeros_like(x)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + factor) * t
    return np.copysign(1 - tail * np.exp(-x * x), x)


def softmax(x: Tensor, dim: int, dtype: np.dtype | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along dim."""
    return x.softmax(dim, dtype)


def log_softmax(x: Tensor, dim: int, dtype: np.dtype | None = None) -> Tensor:
    """The logarithm of softmax along dim."""
    return x.log_softmax(dim, dtype)


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Mean nats per target: logits (N, V) or (N, V, ...), targets (N,) or (N, ...) int64 -> scalar.

    Targets equal to `ignore_index` do not count; `weight` (V,) weights the classes. Targets of
    floats, in the shape of the logits, are class probabilities. `reduction` is "mean", "sum" or
    "none" (a loss for each target). ValueError if the shapes do not fit, IndexError for a target
    outside of 0 to V - 1.
    """
    axis = 1 if logits.ndim > 1 else 0
    one_each = logits.shape[:axis] + logits.shape[axis + 1 :]
    soft = targets.dtype.kind == "f"
    if logits.ndim == 0 or targets.shape != (logits.shape if soft else one_each):
        raise ValueError(
            f"cross_entropy: logits (N, V) need targets (N,), got {logits.shape}, {targets.shape}"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction is mean, sum or none, not {reduction!r}")

    def rows(x: Tensor) -> Tensor:  # (N, V, ...) -> (N * ..., V)
        order = [i for i in range(x.ndim) if i != axis]
        return x.permute(*order, axis).reshape(-1, x.shape[axis])

    scores = rows(logits).log_softmax(-1)
    n, n_classes = scores.shape
    weight = ones(n_classes, dtype=scores.dtype) if weight is None else weight
    if soft:
        nats, total = -(scores * rows(targets) * weight).sum(-1), n
    else:
        ids = targets.reshape(-1)
        counted = ids != ignore_index
        wrong = ids[counted & ((ids < 0) | (ids >= n_classes))].tolist()
        if wrong:
            raise IndexError(f"cross_entropy: target {wrong[0]} is outside of {n_classes} classes")
        ids = where(counted, ids, 0)
        weights = where(counted, weight[ids], 0.0)
        nats, total = where(counted, -scores[arange(n), ids], 0.0) * weights, weights.sum()
    if reduction == "none":
        return nats.reshape(one_each)
    return nats.sum() / total if reduction == "mean" else nats.sum()


def layer_norm(
    x: Tensor,
    shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the last axes, `shape`; then scaled by weight and shifted by bias.

    RuntimeError if x does not end in `shape`. The variance is divided by n, not n - 1.
    """
    if x.shape[x.ndim - len(shape) :] != tuple(shape):
        raise RuntimeError(f"layer_norm: {x.shape} does not end in {tuple(shape)}")
    axes = tuple(range(-len(shape), 0))
    far = x - x.mean(axes, keepdim=True)
    y = far / ((far * far).mean(axes, keepdim=True) + eps).sqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """In training, zero each element with probability p and divide the others by 1 - p.

    ValueError if p is not in [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must lie in [0, 1], got {p}")
    if not training or p == 0:
        return x
    kept = rand(*x.shape) >= p
    return where(kept, x / (1 - p), 0.0) if p < 1 else x * 0.0
