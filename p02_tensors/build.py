"""A tiny PyTorch: tensors on NumPy buffers, with broadcasting and reverse-mode autograd.

Every elementwise operation first stretches its operands to one shape (`broadcast_shapes`,
`Tensor.expand`), so NumPy only ever sees equal shapes. Every operation with a gradient keeps, for
each input, the function that turns the output's gradient into that input's.
Source of the names and rules: PyTorch's documentation, "Broadcasting semantics", "Type promotion".
"""

from __future__ import annotations

import builtins
import contextlib
from collections import namedtuple

import numpy as np

float32, float64 = np.dtype("float32"), np.dtype("float64")
int64, bool = np.dtype("int64"), np.dtype("bool")

grad_enabled = True
rng = np.random.default_rng(0)


# 1. Broadcasting: three rules


def broadcast_shapes(*shapes) -> tuple[int, ...]:
    """The common shape: align right, size 1 stretches, anything else is an error.

    >>> broadcast_shapes((3, 1, 5), (4, 5))
    (3, 4, 5)
    """
    result = []
    for axis in range(1, max(map(len, shapes), default=0) + 1):
        sizes = {shape[-axis] for shape in shapes if len(shape) >= axis} - {1}
        if len(sizes) > 1:
            raise RuntimeError(clash(shapes, axis))
        result.append(sizes.pop() if sizes else 1)
    return tuple(reversed(result))


def clash(shapes, axis: int) -> str:
    """The shapes, one under the other, and a mark below the axis that does not fit."""
    width = max(len(str(size)) for shape in shapes for size in shape) + 2
    ndim = max(map(len, shapes))
    rows = ["".join(f"{s:>{width}}" for s in ("",) * (ndim - len(s_)) + tuple(s_)) for s_ in shapes]
    mark = " " * (width * (ndim - axis + 1) - 1) + "^"
    lines = "\n".join([*rows, mark])
    return f"shapes {' and '.join(map(str, map(tuple, shapes)))} do not broadcast:\n{lines}"


def unbroadcast(array: np.ndarray, shape) -> np.ndarray:
    """Undo a broadcast in the backward direction: sum over every axis that was stretched.

    >>> unbroadcast(np.ones((2, 3)), (3,)).tolist()
    [2.0, 2.0, 2.0]
    """
    new = array.ndim - len(shape)
    stretched = [new + i for i, size in enumerate(shape) if size == 1 and array.shape[new + i] != 1]
    axes = (*range(new), *stretched)
    return array.sum(axes, keepdims=True).reshape(shape) if axes else array


def stretch(array: np.ndarray, shape) -> np.ndarray:
    """`array` as `shape` without a copy: along a stretched axis the stride is zero."""
    if broadcast_shapes(array.shape, shape) != tuple(shape):
        raise RuntimeError(f"expand: {array.shape} does not stretch to {tuple(shape)}")
    new = len(shape) - array.ndim
    strides = [
        0 if i < new or array.shape[i - new] != size else array.strides[i - new]
        for i, size in enumerate(shape)
    ]
    return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)


# 2. The tensor and its graph


class no_grad(contextlib.ContextDecorator):
    """Inside, operations are not recorded: `with no_grad():` or `@no_grad()`."""

    def __enter__(self):
        global grad_enabled
        self.before, grad_enabled = [*getattr(self, "before", []), grad_enabled], False

    def __exit__(self, *error):
        global grad_enabled
        grad_enabled = self.before.pop()


def topological_order(root: Tensor) -> list[Tensor]:
    """Every tensor that root depends on, inputs first, root last; no recursion."""
    order, seen, stack = [], {id(root)}, [(root, iter(root._edges))]
    while stack:
        node, edges = stack[-1]
        for parent, _ in edges:
            if id(parent) not in seen:
                seen.add(id(parent))
                stack.append((parent, iter(parent._edges)))
                break
        else:
            order.append(node)
            stack.pop()
    return order


def result(array, *edges) -> Tensor:
    """A tensor made by an operation; `edges` are (input, function: gradient -> gradient)."""
    out = Tensor(np.asarray(array))
    if grad_enabled and out.dtype.kind == "f":
        out._edges = tuple(edge for edge in edges if edge[0].requires_grad)
        out.requires_grad = len(out._edges) > 0
    return out


def promote(a, b) -> tuple[Tensor, Tensor]:
    """Two operands, at least one of them a tensor, as tensors of one dtype.

    bool < integer < float. Within a kind a tensor with axes outranks one without, and that a
    number.
    """
    ranks = {}
    for x in (a, b):
        rank = -1 if not isinstance(x, Tensor) else x.ndim > 0
        x = as_tensor(x)
        ranks[rank] = max(ranks.get(rank, bool), x.dtype, key=RANK.index)
    dtype = bool
    for rank in sorted(ranks, reverse=True):
        if "bif".index(ranks[rank].kind) > "bif".index(dtype.kind) or rank == max(ranks):
            dtype = ranks[rank]
    return as_tensor(a).to(dtype), as_tensor(b).to(dtype)


RANK = [bool, int64, float32, float64]


def as_tensor(x) -> Tensor:
    return x if isinstance(x, Tensor) else tensor(x)


def together(a, b) -> tuple[Tensor, Tensor]:
    """Two operands with one dtype and one shape."""
    a, b = promote(a, b)
    shape = a.shape if a.shape == b.shape else broadcast_shapes(a.shape, b.shape)
    return a.expand(shape), b.expand(shape)


def floating(x: Tensor) -> Tensor:
    return x if x.dtype.kind == "f" else x.to(float32)


def axis_of(dim: int, ndim: int) -> int:
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise IndexError(f"dim {dim} is out of range for a tensor of {ndim} dimensions")
    return dim % max(ndim, 1)


def axes_of(dim, ndim: int) -> tuple[int, ...]:
    """dim (None, a number or several) as axes counted from the left; None or () means all."""
    dims = (dim,) if isinstance(dim, int) else tuple(range(ndim)) if dim is None else tuple(dim)
    axes = tuple(axis_of(d, ndim) for d in dims)
    if len(set(axes)) != len(axes):
        raise RuntimeError(f"dim {dim} names an axis twice")
    return tuple(range(ndim)) if not axes or ndim == 0 else axes


def several(sizes) -> tuple:
    """view(2, 3) and view((2, 3)) mean the same."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes



def spent(grad):
    raise RuntimeError("backward: this graph was used up; the first needs retain_graph=True")


Extreme = namedtuple("Extreme", "values indices")


class Tensor:
    """An n-dimensional array that remembers how it was made."""

    def __init__(self, data: np.ndarray, requires_grad=False):
        if requires_grad and data.dtype.kind != "f":
            raise RuntimeError(f"only floating point can require gradients: {data.dtype}")
        self._array, self.requires_grad = data, requires_grad
        self.grad: Tensor | None = None
        self._edges = ()

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    T = property(lambda self: self.permute(*reversed(range(self.ndim))))
    device = property(lambda self: "cpu")
    is_leaf = property(lambda self: not self._edges)

    @property
    def data(self) -> Tensor:
        return self.detach()

    def __repr__(self):
        text = np.array2string(self._array, separator=", ", precision=4, prefix="tensor(")
        return f"tensor({text}{', requires_grad=True' if self.requires_grad else ''})"

    def __len__(self):
        if self.ndim == 0:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self):
        return builtins.bool(self.item())

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    __index__ = __int__
    __hash__ = object.__hash__
    __array_ufunc__ = None  # NumPy arrays leave `array * tensor` to us

    def size(self, dim=None):
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        return self._array.size

    def dim(self) -> int:
        return self.ndim

    def item(self):
        if self.numel() != 1:
            raise RuntimeError(f"item: one element needed, this has shape {self.shape}")
        return self._array.item()

    def tolist(self):
        return self._array.tolist()

    def numpy(self) -> np.ndarray:
        if self.requires_grad:
            raise RuntimeError("numpy: this tensor requires grad; use detach().numpy()")
        return self._array

    def detach(self) -> Tensor:
        return Tensor(self._array)

    def requires_grad_(self, requires_grad=True) -> Tensor:
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(f"only floating point can require gradients: {self.dtype}")
        self.requires_grad = requires_grad
        return self

    def backward(self, gradient: Tensor | None = None, retain_graph=False) -> None:
        """Add d self / d leaf to the `.grad` of every leaf that requires it."""
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor does not require grad")
        if gradient is None and self.numel() != 1:
            raise RuntimeError(f"backward: one element or a gradient needed, shape is {self.shape}")
        if gradient is not None and gradient.shape != self.shape:
            raise RuntimeError(f"backward: gradient {gradient.shape} for a tensor {self.shape}")
        grads = {id(self): full(self.shape, 1.0, self.dtype) if gradient is None else gradient}
        with no_grad():
            for node in reversed(topological_order(self)):
                grad = grads.pop(id(node))
                if not node._edges:
                    node.grad = grad.clone() if node.grad is None else node.grad + grad
                for parent, pull in node._edges:
                    more = pull(grad)
                    have = grads.get(id(parent))
                    grads[id(parent)] = more if have is None else have + more
                if node._edges and not retain_graph:
                    node._edges = ((SPENT, spent),)  # its buffers can go

    # 3. Elementwise operations: operands of one shape, one NumPy call

    def to(self, dtype) -> Tensor:
        if not isinstance(dtype, np.dtype) or dtype == self.dtype:  # a device: there is one
            return self
        return result(self._array.astype(dtype), (self, lambda g: g.to(self.dtype)))

    def float(self) -> Tensor:
        return self.to(float32)

    def double(self) -> Tensor:
        return self.to(float64)

    def long(self) -> Tensor:
        return self.to(int64)

    def bool(self) -> Tensor:
        return self.to(bool)

    def __add__(self, other):
        a, b = together(self, other)
        return result(np.add(a._array, b._array), (a, lambda g: g), (b, lambda g: g))

    def __sub__(self, other):
        a, b = together(self, other)
        return result(np.subtract(a._array, b._array), (a, lambda g: g), (b, lambda g: -g))

    def __mul__(self, other):
        a, b = together(self, other)
        return result(np.multiply(a._array, b._array), (a, lambda g: g * b), (b, lambda g: g * a))

    def __truediv__(self, other):
        a, b = (floating(x) for x in together(self, other))
        with np.errstate(all="ignore"):
            out = np.divide(a._array, b._array)
        return result(out, (a, lambda g: g / b), (b, lambda g: -g * (a / b) / b))

    def __pow__(self, other):
        a, b = together(self, other)
        with np.errstate(all="ignore"):
            out = result(np.power(a._array, b._array))
        out_ = out.detach()
        return result(
            out._array,
            (a, lambda g: where(b == 0, 0.0, g * b * a ** (b - 1))),
            (b, lambda g: where((a == 0) & (b >= 0), 0.0, g * out_ * a.log())),
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other):
        return as_tensor(other).__sub__(self) if isinstance(other, Tensor) else (-self) + other

    def __rtruediv__(self, other):
        a, b = promote(other, self)
        return a / b

    def __rpow__(self, other):
        a, b = promote(other, self)
        return a**b

    def __neg__(self):
        return result(np.negative(self._array), (self, lambda g: -g))

    def compare(self, other, ufunc) -> Tensor:
        a, b = together(self, other)
        return result(ufunc(a._array, b._array))

    def __eq__(self, other):
        return self.compare(other, np.equal)

    def __ne__(self, other):
        return self.compare(other, np.not_equal)

    def __lt__(self, other):
        return self.compare(other, np.less)

    def __le__(self, other):
        return self.compare(other, np.less_equal)

    def __gt__(self, other):
        return self.compare(other, np.greater)

    def __ge__(self, other):
        return self.compare(other, np.greater_equal)

    def __and__(self, other):
        return self.compare(other, np.bitwise_and)

    def __or__(self, other):
        return self.compare(other, np.bitwise_or)

    def __invert__(self):
        return result(np.invert(self._array))

    def unary(self, ufunc) -> np.ndarray:
        with np.errstate(all="ignore"):  # inf and nan come without a warning, as in PyTorch
            return np.asarray(ufunc(floating(self)._array))

    def exp(self) -> Tensor:
        out = Tensor(self.unary(np.exp))
        return result(out._array, (floating(self), lambda g: g * out))

    def log(self) -> Tensor:
        x = floating(self)
        return result(self.unary(np.log), (x, lambda g: g / x))

    def tanh(self) -> Tensor:
        out = Tensor(self.unary(np.tanh))
        return result(out._array, (floating(self), lambda g: g * (1 - out * out)))

    def sqrt(self) -> Tensor:
        out = Tensor(self.unary(np.sqrt))
        return result(out._array, (floating(self), lambda g: g / (2 * out)))

    def relu(self) -> Tensor:
        zero = stretch(np.zeros((), self.dtype), self.shape)
        out = np.maximum(self._array, zero)
        return result(out, (self, lambda g: g * (self > 0)))

    def masked_fill(self, mask: Tensor, value) -> Tensor:
        """`value` where mask is True; no gradient flows through those places."""
        return where(mask, as_tensor(value).to(self.dtype), self)

    # 4. Shapes: views of the same buffer

    def expand(self, *sizes) -> Tensor:
        """Stretch axes of size 1, and add axes on the left; -1 keeps a size. Copies nothing."""
        sizes = several(sizes)
        new = len(sizes) - self.ndim
        shape = tuple(self.shape[i - new] if s == -1 else s for i, s in enumerate(sizes))
        if shape == self.shape:
            return self
        pull = lambda g: Tensor(unbroadcast(g._array, self.shape))  # noqa: E731
        return result(stretch(self._array, shape), (self, pull))

    def reshape(self, *sizes) -> Tensor:
        sizes = several(sizes)
        try:
            array = self._array.reshape(sizes)
        except ValueError:
            raise RuntimeError(f"reshape: {self.shape} does not fit into {sizes}") from None
        return result(array, (self, lambda g: g.reshape(self.shape)))

    def view(self, *sizes) -> Tensor:
        """reshape that never copies."""
        out = self.reshape(*sizes)
        if out.numel() and not np.may_share_memory(out._array, self._array):
            raise RuntimeError(f"view: {self.shape} is not laid out in this order; use reshape")
        return out

    def permute(self, *dims) -> Tensor:
        dims = several(dims)
        axes = tuple(axis_of(d, self.ndim) for d in dims)
        if sorted(axes) != list(range(self.ndim)):
            raise RuntimeError(f"permute: {dims} is no order of {self.ndim} axes")
        back = tuple(axes.index(i) for i in range(self.ndim))
        return result(self._array.transpose(axes), (self, lambda g: g.permute(back)))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        axes = list(range(self.ndim))
        i, j = axis_of(dim0, self.ndim), axis_of(dim1, self.ndim)
        if axes:
            axes[i], axes[j] = axes[j], axes[i]
        return self.permute(axes)

    def squeeze(self, dim=None) -> Tensor:
        axes = axes_of(dim, self.ndim) if dim != () else ()
        return self.reshape([s for i, s in enumerate(self.shape) if s != 1 or i not in axes])

    def unsqueeze(self, dim: int) -> Tensor:
        at = axis_of(dim, self.ndim + 1)
        return self.reshape((*self.shape[:at], 1, *self.shape[at:]))

    def contiguous(self) -> Tensor:
        return self if self._array.flags.c_contiguous else self.clone()

    def clone(self) -> Tensor:
        return result(self._array.copy(), (self, lambda g: g))

    def __getitem__(self, key) -> Tensor:
        key = tuple(map(plain_index, key if isinstance(key, tuple) else (key,)))
        try:
            array = self._array[key]
        except IndexError as error:
            raise IndexError(f"index into shape {self.shape}: {error}") from None

        def pull(g):
            full = np.zeros(self.shape, g.dtype)
            if any(isinstance(part, np.ndarray) for part in key):
                np.add.at(full, key, g._array)  # the same place may have been taken twice
            else:
                full[key] = g._array
            return Tensor(full)

        return result(array, (self, pull))

    def __setitem__(self, key, value) -> None:
        if self.requires_grad and grad_enabled:
            raise RuntimeError("writing into a tensor that requires grad; use no_grad()")
        key = tuple(map(plain_index, key if isinstance(key, tuple) else (key,)))
        shape = self._array[key].shape
        self._array[key] = stretch(as_tensor(value)._array, shape)

    def split(self, size, dim: int = 0) -> tuple[Tensor, ...]:
        axis = axis_of(dim, self.ndim)
        before, n = (slice(None),) * axis, self.shape[axis]
        sizes = [size] * max(-(-n // size), 1) if isinstance(size, int) else size
        ends = [builtins.sum(sizes[: i + 1]) for i in range(len(sizes))]
        return tuple(self[(*before, slice(e - s, e))] for s, e in zip(sizes, ends, strict=True))

    # 5. Reductions

    def sum(self, dim=None, keepdim=False) -> Tensor:
        x = self if self.dtype.kind == "f" else self.to(int64)
        axes = axes_of(dim, self.ndim)
        kept = tuple(1 if i in axes else s for i, s in enumerate(self.shape))
        out = x._array.sum(axes, keepdims=keepdim)
        return result(out, (x, lambda g: g.reshape(kept).expand(self.shape)))

    def mean(self, dim=None, keepdim=False) -> Tensor:
        if self.dtype.kind != "f":
            raise RuntimeError(f"mean needs floating point, got {self.dtype}; use float()")
        total = self.sum(dim, keepdim)
        return total / count(self.shape, axes_of(dim, self.ndim))

    def var(self, dim=None, unbiased=True, *, correction=None, keepdim=False) -> Tensor:
        """Mean squared distance from the mean, dividing by n - correction (1 unless told)."""
        if isinstance(dim, builtins.bool):
            dim, unbiased = None, dim
        axes = axes_of(dim, self.ndim)
        less = int(unbiased) if correction is None else correction
        far = self - self.mean(axes, keepdim=True)
        return (far * far).sum(axes, keepdim) / max(count(self.shape, axes) - less, 0)

    def max(self, dim=None, keepdim=False):
        """The largest element; with `dim`, (values, indices) along it; or elementwise."""
        return extreme(self, dim, keepdim, np.max, np.argmax, np.greater_equal)

    def min(self, dim=None, keepdim=False):
        return extreme(self, dim, keepdim, np.min, np.argmin, np.less_equal)

    def argmax(self, dim=None, keepdim=False) -> Tensor:
        axis = None if dim is None else axis_of(dim, self.ndim)
        if self.numel() == 0 and (axis is None or self.shape[axis] == 0):
            raise IndexError(f"argmax of no elements, shape {self.shape}")
        if self.ndim == 0:
            return Tensor(np.asarray(0))
        return Tensor(np.asarray(self._array.argmax(axis, keepdims=keepdim)))

    def softmax(self, dim: int) -> Tensor:
        """exp(x) / sum(exp(x)); the largest x is subtracted first, so exp cannot overflow."""
        if self.numel() == 0:
            return self * 1.0
        exps = (self - self.detach().max(dim, keepdim=True).values).exp()
        return exps / exps.sum(dim, keepdim=True)

    def log_softmax(self, dim: int) -> Tensor:
        if self.numel() == 0:
            return self * 1.0
        x = self - self.detach().max(dim, keepdim=True).values
        return x - x.exp().sum(dim, keepdim=True).log()

    # 6. Matrices

    def matmul(self, other: Tensor) -> Tensor:
        """(..., n, k) @ (..., k, m) -> (..., n, m); leading axes broadcast, vectors lose theirs."""
        a, b = self, other
        if a.ndim == 0 or b.ndim == 0:
            raise RuntimeError(f"matmul: both need an axis, got {a.shape} and {b.shape}")
        if a.dtype != b.dtype:
            raise RuntimeError(f"matmul: one dtype needed, got {a.dtype} and {b.dtype}")
        if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
            raise RuntimeError(f"matmul: {a.shape} @ {b.shape}, the inner sizes differ")
        if a.ndim == 1:
            return (a.unsqueeze(0) @ b).squeeze(-2 if b.ndim > 1 else 0)
        if b.ndim == 1:
            return (a @ b.unsqueeze(1)).squeeze(-1)
        if a.ndim > 2 and b.ndim == 2:  # one large product instead of many small ones
            return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[-1])
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
        return result(
            np.matmul(a._array, b._array),
            (a, lambda g: g @ b.detach().transpose(-2, -1)),
            (b, lambda g: a.detach().transpose(-2, -1) @ g),
        )

    __matmul__ = matmul


SPENT = Tensor(np.zeros(()))


def count(shape, axes) -> int:
    """How many elements a reduction over `axes` takes together."""
    n = 1
    for axis in axes:
        n *= shape[axis] if shape else 1
    return n


def plain_index(part):
    if isinstance(part, list):
        part = tensor(part)
    if isinstance(part, Tensor):
        if part.dtype.kind == "f":
            raise IndexError(f"an index is made of integers or bools, got {part.dtype}")
        return part._array
    return part


def extreme(x: Tensor, dim, keepdim, reduce, arg, at_least):
    if isinstance(dim, Tensor):
        a, b = together(x, dim)
        wins = Tensor(at_least(a._array, b._array))
        share = where(a == b, 0.5, where(wins, 1.0, 0.0)).to(a.dtype)
        out = np.where(wins._array, a._array, b._array)
        return result(out, (a, lambda g: g * share), (b, lambda g: g * (1 - share)))
    if dim is None:
        if x.numel() == 0:
            raise RuntimeError(f"max or min of no elements, shape {x.shape}; give a dim")
        out = Tensor(np.asarray(reduce(x._array)))

        def pull(g):  # equal largest elements share the gradient
            ties = (x.detach() == out).to(x.dtype)
            return ties * (g / ties.sum())

        return result(out._array, (x, pull))
    axis = axis_of(dim, x.ndim)
    flat = x.unsqueeze(0) if x.ndim == 0 else x
    if flat.shape[axis] == 0:
        raise IndexError(f"max or min over the empty axis {dim} of {x.shape}")
    at = arg(flat._array, axis, keepdims=True)
    out = np.take_along_axis(flat._array, at, axis)

    def pull_one(g):
        full = np.zeros(flat.shape, g.dtype)
        np.put_along_axis(full, at, g.reshape(at.shape)._array, axis)
        return Tensor(full.reshape(x.shape))

    shape = at.shape if keepdim and x.ndim else x.shape[:axis] + x.shape[axis + 1 :]
    return Extreme(result(out.reshape(shape), (x, pull_one)), Tensor(at.reshape(shape)))


# 7. Making and joining tensors


def tensor(data, dtype=None, requires_grad=False) -> Tensor:
    """A tensor with its own copy of `data`: a number, (nested) lists, or a NumPy array.

    >>> tensor([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    if isinstance(data, Tensor):
        data = data._array
    kept = isinstance(data, np.ndarray | np.generic)
    if isinstance(data, list | tuple):
        data = nested(data)
    try:
        array = np.array(data)
    except ValueError:
        raise ValueError("tensor: the lists inside have different lengths") from None
    if dtype is None:
        if array.dtype.kind == "f":
            dtype = float64 if kept and array.dtype == float64 else float32
        else:
            dtype = {"b": bool, "i": int64, "u": int64}.get(array.dtype.kind)
        if dtype is None:
            raise TypeError(f"tensor: no tensor can hold {array.dtype} data")
    return Tensor(array.astype(dtype), requires_grad)


def nested(data):
    """Lists of tensors as lists of numbers."""
    if isinstance(data, list | tuple):
        return [nested(part) for part in data]
    return data.tolist() if isinstance(data, Tensor) else data


def full(shape, value, dtype=None, requires_grad=False) -> Tensor:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return Tensor(np.full(shape, value, dtype or tensor(value).dtype), requires_grad)


def zeros(*shape, dtype=None, requires_grad=False) -> Tensor:
    return full(several(shape), 0, dtype or float32, requires_grad)


def ones(*shape, dtype=None, requires_grad=False) -> Tensor:
    return full(several(shape), 1, dtype or float32, requires_grad)


def arange(start, end=None, step=1, dtype=None) -> Tensor:
    start, end = (0, start) if end is None else (start, end)
    whole = all(isinstance(x, int) for x in (start, end, step))
    return Tensor(np.arange(start, end, step).astype(dtype or (int64 if whole else float32)))


def tril(x: Tensor, diagonal=0) -> Tensor:
    """x with zeros above the diagonal."""
    return where(Tensor(np.tri(*x.shape[-2:], diagonal, dtype=bool)), x, as_tensor(0).to(x.dtype))


def triu(x: Tensor, diagonal=0) -> Tensor:
    """x with zeros below the diagonal."""
    below = Tensor(np.tri(*x.shape[-2:], diagonal - 1, dtype=bool))
    return where(below, as_tensor(0).to(x.dtype), x)


def where(condition: Tensor, a, b) -> Tensor:
    """a where the condition is True, b elsewhere; the three broadcast together."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a, b = as_tensor(a), as_tensor(b)
    a, b = promote(a, b)
    shape = broadcast_shapes(condition.shape, a.shape, b.shape)
    mask, a, b = condition.expand(shape), a.expand(shape), b.expand(shape)
    zero = stretch(np.zeros((), a.dtype), shape)
    return result(
        np.where(mask._array, a._array, b._array),
        (a, lambda g: Tensor(np.where(mask._array, g._array, zero))),
        (b, lambda g: Tensor(np.where(mask._array, zero, g._array))),
    )


def cat(tensors, dim=0) -> Tensor:
    """Join along an existing axis; all other sizes are equal."""
    dtype = max((x.dtype for x in tensors), key=RANK.index)
    tensors = [x.to(dtype) for x in tensors if x.shape != (0,)] or list(tensors)
    axis = axis_of(dim, tensors[0].ndim)
    shapes = [x.shape for x in tensors]
    if len({(*s[:axis], *s[axis + 1 :]) for s in shapes}) > 1 or not all(shapes):
        raise RuntimeError(f"cat along dim {dim}: the other sizes differ in {shapes}")
    ends = np.cumsum([0, *(s[axis] for s in shapes)]).tolist()
    before = (slice(None),) * axis
    edges = [
        (x, lambda g, part=(*before, slice(start, end)): g[part])
        for x, start, end in zip(tensors, ends, ends[1:], strict=False)
    ]
    return result(np.concatenate([x._array for x in tensors], axis), *edges)


def stack(tensors, dim=0) -> Tensor:
    """Join along a new axis."""
    if len({x.shape for x in tensors}) > 1:
        raise RuntimeError(f"stack: one shape needed, got {[x.shape for x in tensors]}")
    return cat([x.unsqueeze(dim) for x in tensors], dim if dim >= 0 else dim + tensors[0].ndim + 1)


# 8. Chance


def manual_seed(seed: int) -> None:
    """Start the random numbers over."""
    global rng
    rng = np.random.default_rng(seed)


def randn(*shape, dtype=None, requires_grad=False) -> Tensor:
    """Standard normal numbers."""
    return Tensor(rng.standard_normal(several(shape), dtype or float32), requires_grad)


def rand(*shape, dtype=None, requires_grad=False) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return Tensor(rng.random(several(shape), dtype or float32), requires_grad)


def randint(low, high=None, size=None, *, generator=None) -> Tensor:
    """Integers from low (0 if left out) up to high - 1."""
    if size is None:
        low, high, size = 0, low, high
    return Tensor(rng.integers(low, high, tuple(size)))
