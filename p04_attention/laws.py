"""Laws of any causal sequence module, asked from outside: ids or vectors in, vectors out.

`moved` changes an input and sees which outputs move. `attentions` watches the scores and weights
of a forward pass, whatever they are called inside: every operation passes a TorchDispatchMode,
which follows products of two activations up to the mixture of values that they weigh.
Shapes: B batch, T time, hs head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MOVED = 1e-4  # relative change above which an output has moved
SUM_OFF = 1e-2  # how far from 1 the weights of a mixture may sum
SAME_LENGTH = 1e-2  # relative spread of lengths below which vectors have been normalised


Function = Callable[[torch.Tensor], torch.Tensor]


def moved(function: Function, x: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """How far each output moves when the input x becomes `changed`: -> (B, T). See difference."""
    return difference(function, x, lambda _: function(changed.clone()))


def difference(function: Function, x: torch.Tensor, other: Function) -> torch.Tensor:
    """How far other(x) is from function(x), at each place: outputs (B, T, ...) -> (B, T).

    The root mean square of the difference, in units of the spread of all outputs. Both start from
    the same random state, so dropout drops the same.
    """
    state = torch.get_rng_state()
    with torch.no_grad():
        before = function(x.clone()).double().flatten(2)
        torch.set_rng_state(state)
        after = other(x.clone()).double().flatten(2)
    over_places, over_channels = before.std((0, 1)).square().mean(), before.std(-1).square().mean()
    spread = torch.maximum(over_places, over_channels).sqrt()
    return (after - before).square().mean(-1).sqrt() / spread.clamp(min=1e-30)


@dataclass(frozen=True)
class Attention:
    """One attention of a forward pass, as it was computed.

    `scale` is the factor between dot products and scores, None where it cannot be told: learned,
    bent by a function, or the vectors had been normalised. `weights` (..., Tq, Tk) are those that
    weigh the values. `sums_over` says along what they sum to 1: "keys", "queries", "another axis",
    "neither", or "no softmax" where the scores themselves are the weights.
    """

    scale: float | None
    head_size: int
    weights: torch.Tensor
    sums_over: str


def attentions(module: torch.nn.Module, x: torch.Tensor, *more) -> list[Attention]:
    """Every attention in module(x, *more), in order; T is taken to be the number of keys.

    Let T be a number that is no other size of the module, a prime for instance: that is how scores
    are told from other products. Attention by other means (linear, recurrent) is not seen.
    """
    watch = Watch(x.shape[1], module)
    with watch:
        module(x, *more)
    return watch.seen


@dataclass(frozen=True)
class Trace:
    """What is known of a tensor: the factor since its projection, the scores that it comes from."""

    kind: str  # "vector", "parameter", "scores", "weights"
    factor: float | None = 1.0
    head_size: int = 0
    axis: str = ""  # of the softmax, where it cannot be the keys'


PASSED_ON = {
    "clone", "_to_copy", "copy", "cat", "stack", "repeat", "index", "index_select", "gather", "add",
    "sub", "rsub", "masked_fill", "where", "maximum", "minimum", "clamp", "neg", "expand", "roll",
    "contiguous", "slice_scatter", "select_scatter", "native_dropout", "dropout", "nan_to_num",
    "constant_pad_nd", "tril", "triu", "flip", "scatter", "bernoulli", "_reshape_copy", "fill",
    "complex", "view_as_complex", "view_as_real", "bitwise_and", "convert_element_type", "special",
    "repeat_interleave", "clone_preserve", "new_zeros_like", "baddbmm_add", "lerp", "ones_like",
}  # fmt: skip
BENT = {"tanh", "sigmoid", "relu", "gelu", "silu", "softplus", "elu", "pow", "square", "threshold"}
SUMS = {"sum", "amax", "max", "mean", "logsumexp", "reciprocal", "min", "amin"}


class Watch(TorchDispatchMode):
    """Follows scores from the product of queries and keys to the mixture of values.

    A view shares its storage with what it is a view of, and its trace. Every tensor is kept until
    the end, or another could take its place.
    """

    def __init__(self, T: int, module: torch.nn.Module):
        super().__init__()
        self.T = T
        self.seen: list[Attention] = []
        self.kept: list = []
        self.traces = {address(p): Trace("parameter", None) for p in module.parameters()}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        with torch.no_grad():
            self.follow(name if name.startswith("_") else name.rstrip("_"), func, args, kwargs, out)
        self.kept.append(out)
        return out

    def trace(self, x) -> Trace | None:
        return self.traces.get(address(x)) if isinstance(x, torch.Tensor) else None

    def follow(self, name, func, args, kwargs, out) -> None:
        """What the operation does to the traces of its inputs."""
        if name.startswith("_scaled_dot_product"):
            return self.fused(func, args, kwargs)
        if name in ("mm", "bmm"):
            return self.product(args[0], args[1], out, 1.0)
        if name in ("addmm", "baddbmm"):
            return self.product(args[1], args[2], out, kwargs.get("alpha", 1))
        traces = [t for t in map(self.trace, tree_leaves((args, kwargs))) if t]
        if not traces and name in ("mul", "div") and isinstance(args[0], torch.Tensor):
            traces = [Trace("vector")] if any(map(is_number, args[:2])) else []
        out = out[0] if isinstance(out, tuple | list) and out else out
        if not traces or not isinstance(out, torch.Tensor):
            return None
        scores = [t for t in traces if t.kind in ("scores", "weights")]
        main = scores[0] if scores else traces[0]
        if name in ("_softmax", "_safe_softmax"):
            if main.kind == "scores":
                axis = self.axis(args[0].shape, args[1])
                self.traces[address(out)] = replace(main, kind="weights", axis=axis)
        elif name in ("exp", "exp2"):
            if main.kind == "scores":
                self.traces[address(out)] = replace(main, kind="weights")
        elif name in ("mul", "div"):
            self.scaled(name, args, out, main)
        elif name in BENT and main.kind == "scores":
            kind = "scores" if name == "tanh" else "weights"
            self.traces[address(out)] = replace(main, kind=kind, factor=None)
        elif name in PASSED_ON and (main.kind != "parameter" or len(traces) == count(args)):
            self.traces[address(out)] = main
        return None

    def scaled(self, name, args, out, main: Trace) -> None:
        """A product or quotient: of numbers it changes the factor, of tensors of all else."""
        at = int(self.trace(args[1]) is main or is_number(args[0]))
        other = args[1 - at]
        if main.kind == "parameter":
            if self.trace(other) or not isinstance(other, torch.Tensor):
                self.traces[address(out)] = main
            return
        factor = main.factor
        by = self.trace(other)
        if by and by.kind == "parameter" and (main.kind == "scores" or count_of(other) == 1):
            factor = None  # learned
        elif factor is not None and not (by and by.kind == "scores"):
            number = the_number(other)
            if number is not None:
                factor = factor * number if name == "mul" else factor / number if at == 0 else None
        self.traces[address(out)] = replace(main, factor=factor)

    def axis(self, shape, dim: int) -> str:
        """Which axis a softmax over `dim` ran along, if not that of keys or queries."""
        along_last_two = dim % len(shape) >= len(shape) - 2
        fits = self.T <= shape[dim] < self.T * self.T
        return "" if along_last_two and fits else "another axis"

    def product(self, a, b, out, alpha) -> None:
        """Two activations make scores; weights and values make a mixture; all else a new vector."""
        for weights, trace in ((a, self.trace(a)), (b.transpose(-2, -1), self.trace(b))):
            if trace and trace.kind in ("scores", "weights"):
                if weights.shape[-1] == self.T:
                    self.mixture(weights.detach(), trace)
                return
        traces = self.trace(a), self.trace(b)
        if any(t and t.kind == "parameter" for t in traces):
            return
        if self.T in out.shape[-2:] or out.shape[-1] % self.T == 0:
            factors = [t.factor if t else 1.0 for t in traces]
            factor = None if None in factors else factors[0] * factors[1] * alpha
            if same_length(a) or same_length(b.transpose(-2, -1)):
                factor = None
            self.traces[address(out)] = Trace("scores", factor, a.shape[-1])

    def mixture(self, weights, trace: Trace) -> None:
        """Record the weights that values are mixed with."""
        if trace.kind == "scores":
            sums_over = "keys" if sums_to_one(weights, -1) else "no softmax"
        elif sums_to_one(weights, -1):
            sums_over = "keys"
        elif sums_to_one(weights, -2):
            sums_over = "queries"
        else:
            sums_over = trace.axis or "neither"
        self.seen.append(Attention(trace.factor, trace.head_size, weights, sums_over))

    def fused(self, func, args, kwargs) -> None:
        """PyTorch's own attention: the weights it does not show are computed again."""
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args)) | kwargs
        q, k = given["query"].detach(), given["key"].detach()
        if k.shape[-2] != self.T:
            return
        factors = [t.factor if t else 1.0 for t in (self.trace(q), self.trace(k))]
        scale = given.get("scale")
        scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
        if q.shape[1] != k.shape[1]:
            k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        scores = scale * q @ k.transpose(-2, -1)
        mask = given.get("attn_mask", given.get("attn_bias"))
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -math.inf)
        elif mask is not None:
            scores = scores + mask
        if given.get("is_causal"):
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        unknown = None in factors or same_length(q) or same_length(k)
        factor = None if unknown else factors[0] * factors[1] * scale
        self.seen.append(Attention(factor, q.shape[-1], scores.softmax(-1), "keys"))


def address(x: torch.Tensor) -> int:
    """Where the tensor's numbers lie: the same for all of its views."""
    return x.untyped_storage()._cdata


def count(args) -> int:
    return sum(isinstance(x, torch.Tensor) for x in tree_leaves(args))


def count_of(x) -> int:
    return x.numel() if isinstance(x, torch.Tensor) else 1


def is_number(x) -> bool:
    return not isinstance(x, torch.Tensor) or x.numel() == 1


def the_number(x) -> float | None:
    """The one number that x is or is full of, else None."""
    if isinstance(x, int | float):
        return float(x)
    if isinstance(x, torch.Tensor) and x.numel() and not x.is_complex() and x.min() == x.max():
        return float(x.min())
    return None


def sums_to_one(weights: torch.Tensor, dim: int) -> bool:
    return bool(((weights.float().sum(dim) - 1).abs() < SUM_OFF).all())


def same_length(vectors: torch.Tensor) -> bool:
    """Whether all vectors (..., hs) have one length, as queries and keys after a norm have."""
    lengths = vectors.detach().float().norm(dim=-1)
    return bool(lengths.std() < SAME_LENGTH * lengths.mean()) and vectors.shape[-1] > 1
