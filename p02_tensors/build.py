"""A small PyTorch: tensors on NumPy arrays, broadcasting, and automatic differentiation.

An operation computes its result with NumPy and keeps, for every input, the function that turns
the gradient with respect to the result (the upstream gradient) into the gradient with respect to
that input: a vector-Jacobian product, in short vjp. `backward` calls these functions from the
result to the leaves. Sixteen operations have a vjp of their own, the others are made of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Shape = tuple[int, ...]
VJP = Callable[[np.ndarray], np.ndarray]
Edges = Sequence[tuple["Tensor", VJP]]


# 1. Broadcasting


def align(shape: Shape, ndim: int) -> Shape:
    """Rule 1: shapes are aligned at the right; an axis that is missing on the left has size 1."""
    return (1,) * (ndim - len(shape)) + tuple(shape)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that all broadcast to. Rule 2: size 1 becomes any size. Rule 3: no other does.

    >>> broadcast_shapes((3, 1, 5), (4, 5))
    (3, 4, 5)
    """
    ndim = max(len(shape) for shape in shapes)
    result = []
    for sizes in zip(*(align(shape, ndim) for shape in shapes), strict=True):
        others = set(sizes) - {1}
        if len(others) > 1:
            raise RuntimeError(f"shapes {' and '.join(map(str, shapes))} do not broadcast")
        result.append(others.pop() if others else 1)
    return tuple(result)


def broadcast_to(array: np.ndarray, shape: Shape) -> np.ndarray:
    """A view of `array` in `shape`, without a copy: the stride of a broadcast axis is 0."""
    sizes = align(array.shape, len(shape))
    if broadcast_shapes(sizes, shape) != shape:
        raise RuntimeError(f"shape {array.shape} does not broadcast to {shape}")
    steps = zip(sizes, shape, align(array.strides, len(shape)), strict=True)
    strides = [stride if before == after else 0 for before, after, stride in steps]
    return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)


def unbroadcast(array: np.ndarray, shape: Shape) -> np.ndarray:
    """The vjp of broadcasting: sum over every axis that was broadcast, so the shape is `shape`.

    >>> unbroadcast(np.ones((2, 3)), (3,)).tolist()
    [2.0, 2.0, 2.0]
    """
    sizes = zip(align(shape, array.ndim), array.shape, strict=True)
    axes = tuple(axis for axis, (before, after) in enumerate(sizes) if before != after)
    return array.sum(axes, keepdims=True).reshape(shape)


# 2. Tensors


def tensor(data: object, dtype: np.dtype | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor with its own copy of `data`: a number, (nested) lists or a NumPy array.

    Python's floats become float32; an array keeps its dtype.

    >>> tensor([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    array = np.array(data, dtype)
    if dtype is None and array.dtype == np.float64 and not isinstance(data, np.ndarray):
        array = array.astype(np.float32)
    return Tensor(array, requires_grad)


def zeros(*shape: int, dtype: type = np.float32, requires_grad: bool = False) -> Tensor:
    """zeros(2, 3) has shape (2, 3)."""
    return Tensor(np.zeros(shape, dtype), requires_grad)


def ones(*shape: int, dtype: type = np.float32, requires_grad: bool = False) -> Tensor:
    """ones(2, 3) has shape (2, 3)."""
    return Tensor(np.ones(shape, dtype), requires_grad)


def randn(*shape: int, requires_grad: bool = False) -> Tensor:
    """Standard normal float32 numbers."""
    return Tensor(np.random.standard_normal(shape).astype(np.float32), requires_grad)


def arange(*bounds: float) -> Tensor:
    """Numbers as in Python's range: arange(end), arange(start, end), arange(start, end, step)."""
    array = np.arange(*bounds)
    return Tensor(array.astype(np.float32) if array.dtype == np.float64 else array)


def as_tensor(x: Tensor | float, like: Tensor | float) -> Tensor:
    """A number as a tensor, of the dtype of `like` if that holds floats."""
    dtype = like.dtype if isinstance(like, Tensor) and like.dtype.kind == "f" else None
    return x if isinstance(x, Tensor) else tensor(x, dtype)


class Tensor:
    """An array that remembers how it was made; `grad` is the gradient with respect to it.

    `data` is the NumPy array. `edges` holds a pair for every input that requires a gradient: the
    input, and the vjp that turns the upstream gradient into the gradient with respect to it.
    """

    grad_enabled = True

    def __init__(self, data: np.ndarray, requires_grad: bool = False, edges: Edges = ()) -> None:
        self.data = np.asarray(data)
        self.shape, self.ndim, self.dtype = self.data.shape, self.data.ndim, self.data.dtype
        self.requires_grad, self.edges = requires_grad, edges
        self.grad: Tensor | None = None

    def numpy(self) -> np.ndarray:
        """The array itself, not a copy."""
        return self.data

    def tolist(self) -> list | float:
        """Nested lists of Python numbers."""
        return self.data.tolist()

    def item(self) -> float:
        """The only element, as a Python number."""
        return self.data.item()

    def detach(self) -> Tensor:
        """The same array, outside the graph."""
        return Tensor(self.data)

    def __repr__(self) -> str:
        return f"tensor({self.tolist()})"

    # 3. The graph

    @staticmethod
    def record(data: np.ndarray, *edges: tuple[Tensor, VJP]) -> Tensor:
        """The result of an operation, with the edges to those inputs that require a gradient."""
        kept = [edge for edge in edges if edge[0].requires_grad and Tensor.grad_enabled]
        return Tensor(data, len(kept) > 0, kept)

    def topological_order(self) -> list[Tensor]:
        """All that this tensor was made of: every tensor after its inputs, this one last."""
        order, stack = {}, [self]
        while stack:
            waiting = [parent for parent, _ in stack[-1].edges if parent not in order]
            stack += waiting
            if not waiting:
                order[stack.pop()] = None
        return list(order)

    def backward(self, gradient: Tensor | None = None) -> None:
        """Add the gradient with respect to every leaf to the leaf's `grad`.

        `gradient` is the upstream gradient to begin with and has the shape of this tensor; a
        single element needs none and begins with 1.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor does not require a gradient")
        if gradient is None and self.data.size != 1:
            raise RuntimeError(f"backward: shape {self.shape} needs a gradient of that shape")
        upstream = {self: np.ones_like(self.data) if gradient is None else gradient.data}
        for node in reversed(self.topological_order()):
            g = upstream.pop(node)
            if g.shape != node.shape:
                raise RuntimeError(f"backward: gradient {g.shape} for shape {node.shape}")
            if not node.edges:
                node.grad = Tensor(np.array(g) if node.grad is None else node.grad.data + g)
            for parent, vjp in node.edges:
                more = vjp(g)
                upstream[parent] = upstream[parent] + more if parent in upstream else more

    # 4. Shapes

    def expand(self, *shape: int) -> Tensor:
        """Broadcast to `shape`, without a copy."""
        if shape == self.shape:
            return self
        data = broadcast_to(self.data, shape)
        return Tensor.record(data, (self, lambda g: unbroadcast(g, self.shape)))

    def reshape(self, *shape: int) -> Tensor:
        """The elements in the same order in another shape; one size may be -1."""
        return Tensor.record(self.data.reshape(shape), (self, lambda g: g.reshape(self.shape)))

    def permute(self, *dims: int) -> Tensor:
        """The axes in the order `dims`."""
        inverse = np.argsort([dim % self.ndim for dim in dims])
        return Tensor.record(self.data.transpose(dims), (self, lambda g: g.transpose(inverse)))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Swap two axes."""
        dims = list(range(self.ndim))
        dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
        return self.permute(*dims)

    # 5. Sum and maximum

    def sum(self, dim: int | Shape | None = None, keepdim: bool = False) -> Tensor:
        """The sum of all elements, or along dim; keepdim leaves that axis, with size 1."""
        kept = self.data.sum(dim, keepdims=True)
        total = Tensor.record(kept, (self, lambda g: broadcast_to(g, self.shape)))
        return total if keepdim else total.reshape(*kept.squeeze(dim).shape)

    def max(self, dim: int | Shape | None = None, keepdim: bool = False) -> Tensor:
        """The largest of all elements, or along dim; equal ones share the gradient."""
        kept = self.data.max(dim, keepdims=True)

        def vjp(g: np.ndarray) -> np.ndarray:
            largest = (self.data == broadcast_to(kept, self.shape)).astype(g.dtype)
            return largest * broadcast_to(g / largest.sum(dim, keepdims=True), self.shape)

        largest = Tensor.record(kept, (self, vjp))
        return largest if keepdim else largest.reshape(*kept.squeeze(dim).shape)

    # 6. Arithmetic

    def broadcast(self, other: Tensor | float) -> tuple[Tensor, Tensor]:
        """Both operands as tensors of one shape."""
        other = as_tensor(other, self)
        shape = broadcast_shapes(self.shape, other.shape)
        return self.expand(*shape), other.expand(*shape)

    def __add__(self, other: Tensor | float) -> Tensor:
        a, b = self.broadcast(other)
        return Tensor.record(a.data + b.data, (a, lambda g: g), (b, lambda g: g))

    def __mul__(self, other: Tensor | float) -> Tensor:
        a, b = self.broadcast(other)
        data = a.data * b.data
        return Tensor.record(data, (a, lambda g: g * b.data), (b, lambda g: g * a.data))

    def __pow__(self, exponent: Tensor | float) -> Tensor:
        if isinstance(exponent, Tensor):  # the base has to be positive; see step 7
            return (exponent * self.log()).exp()
        data = self.data**exponent
        return Tensor.record(data, (self, lambda g: g * exponent * self.data ** (exponent - 1)))

    def __neg__(self) -> Tensor:
        return self * -1

    def __sub__(self, other: Tensor | float) -> Tensor:
        return self + -other

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return self * other**-1.0

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: float) -> Tensor:
        return -self + other

    def __rtruediv__(self, other: float) -> Tensor:
        return self**-1.0 * other

    def compare(self, function: np.ufunc, other: Tensor | float) -> Tensor:
        """A tensor of bools; nothing to differentiate."""
        a, b = self.broadcast(other)
        return Tensor(function(a.data, b.data))

    __hash__ = object.__hash__

    def __eq__(self, other: Tensor | float) -> Tensor:
        return self.compare(np.equal, other)

    def __ne__(self, other: Tensor | float) -> Tensor:
        return self.compare(np.not_equal, other)

    def __lt__(self, other: Tensor | float) -> Tensor:
        return self.compare(np.less, other)

    def __le__(self, other: Tensor | float) -> Tensor:
        return self.compare(np.less_equal, other)

    def __gt__(self, other: Tensor | float) -> Tensor:
        return self.compare(np.greater, other)

    def __ge__(self, other: Tensor | float) -> Tensor:
        return self.compare(np.greater_equal, other)

    # 7. Functions

    def exp(self) -> Tensor:
        """e to the power of x, elementwise."""
        data = np.exp(self.data)
        return Tensor.record(data, (self, lambda g: g * data))

    def log(self) -> Tensor:
        """The natural logarithm, elementwise."""
        return Tensor.record(np.log(self.data), (self, lambda g: g / self.data))

    def tanh(self) -> Tensor:
        """The hyperbolic tangent, elementwise."""
        data = np.tanh(self.data)
        return Tensor.record(data, (self, lambda g: g * (1 - data * data)))

    def relu(self) -> Tensor:
        """max(x, 0), elementwise; at 0 the derivative is 0."""
        return Tensor.record(np.maximum(self.data, 0), (self, lambda g: g * (self.data > 0)))

    def __rpow__(self, base: float) -> Tensor:
        return (self * math.log(base)).exp()

    def sqrt(self) -> Tensor:
        """The square root, elementwise."""
        return self**0.5

    def mean(self, dim: int | Shape | None = None, keepdim: bool = False) -> Tensor:
        """The mean of all elements, or along dim; keepdim as in sum."""
        total = self.sum(dim, keepdim)
        return total / (self.data.size / total.data.size)

    def log_softmax(self, dim: int) -> Tensor:
        """The logarithm of softmax; the largest score is subtracted so that exp cannot overflow."""
        shifted = self - self.detach().max(dim, keepdim=True)
        return shifted - shifted.exp().sum(dim, keepdim=True).log()

    def softmax(self, dim: int) -> Tensor:
        """exp(x) / sum(exp(x)) along dim."""
        return self.log_softmax(dim).exp()

    # 8. Matrix products

    def matmul(self, other: Tensor) -> Tensor:
        """(..., n, k) @ (..., k, m) -> (..., n, m); leading axes broadcast."""
        if self.ndim < 2 or other.ndim < 2:
            raise RuntimeError(f"matmul: two axes needed, got {self.shape} and {other.shape}")
        batch = broadcast_shapes(self.shape[:-2], other.shape[:-2])
        a = self.expand(*batch, *self.shape[-2:])
        b = other.expand(*batch, *other.shape[-2:])
        a_t, b_t = a.data.swapaxes(-2, -1), b.data.swapaxes(-2, -1)
        return Tensor.record(a.data @ b.data, (a, lambda g: g @ b_t), (b, lambda g: a_t @ g))

    __matmul__ = matmul

    # 9. Indexing, choosing, joining

    def __getitem__(self, key: object) -> Tensor:
        """x[1], x[:, 2:], x[integer tensor, ...]; an element read twice gets both gradients."""
        parts = key if isinstance(key, tuple) else (key,)
        index = tuple(part.data if isinstance(part, Tensor) else part for part in parts)

        def vjp(g: np.ndarray) -> np.ndarray:
            full = np.zeros(self.shape, g.dtype)
            np.add.at(full, index, g)
            return full

        return Tensor.record(self.data[index], (self, vjp))

    def masked_fill(self, mask: Tensor, value: float) -> Tensor:
        """`value` where mask is True; no gradient passes there."""
        return where(mask, value, self)


def where(condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """a where the condition is True, b elsewhere; the three broadcast together."""
    a, b = as_tensor(a, b), as_tensor(b, a)
    shape = broadcast_shapes(condition.shape, a.shape, b.shape)
    mask, a, b = (x.expand(*shape) for x in (condition, a, b))
    edges = (a, lambda g: np.where(mask.data, g, 0)), (b, lambda g: np.where(mask.data, 0, g))
    return Tensor.record(np.where(mask.data, a.data, b.data), *edges)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join along an existing axis; all other sizes are equal."""
    ends = np.cumsum([x.shape[dim] for x in tensors])
    edges = [(x, lambda g, i=i: np.split(g, ends, dim)[i]) for i, x in enumerate(tensors)]
    return Tensor.record(np.concatenate([x.data for x in tensors], dim), *edges)


# 10. Without a graph


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Inside `with no_grad():` operations are not recorded."""
    before, Tensor.grad_enabled = Tensor.grad_enabled, False
    try:
        yield
    finally:
        Tensor.grad_enabled = before
