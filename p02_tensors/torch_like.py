"""The rest of the library: PyTorch's names, dtypes, signatures and errors on the core, build.py.

A `Tensor` here holds a tensor of the core, and every operation with a gradient is made of the
core's. Nothing but the listing's public names is used of the core, so your own file in build.py's
place carries all of this.
"""

from __future__ import annotations

import builtins
import contextlib
import itertools
import math
import operator
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from p02_tensors import build

float32, float64 = np.dtype("float32"), np.dtype("float64")
int64, bool = np.dtype("int64"), np.dtype("bool")

RANK = [bool, int64, float32, float64]  # where two dtypes meet, the later one wins

Shape = tuple[int, ...]
Dim = int | Shape | None  # an axis, several, or all
Sizes = Any  # several ints, or one tuple of them
Data = Any  # a number, (nested) lists or an array
Operand = Any  # a tensor of the core or a number

Extreme = namedtuple("Extreme", "values indices")
unbroadcast = build.unbroadcast


# Shapes


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that all broadcast to; RuntimeError, with the axis marked, where two do not fit."""
    message = mismatch(shapes)
    if message:
        raise RuntimeError(message)
    return build.broadcast_shapes(*map(tuple, shapes))


def mismatch(shapes: Sequence[Shape]) -> str:
    """The shapes, one under the other, and a mark below the axis that does not fit; "" if none."""
    ndim = max(map(len, shapes))
    rows = [[""] * (ndim - len(shape)) + list(shape) for shape in shapes]
    wrong = [i for i in range(ndim) if len({row[i] for row in rows} - {"", 1}) > 1]
    if not wrong:
        return ""
    width = max(len(str(size)) for shape in shapes for size in shape) + 2
    lines = ["".join(f"{size:>{width}}" for size in row) for row in rows]
    lines.append("^".rjust(width * (wrong[0] + 1)))
    return f"shapes {' and '.join(str(tuple(s)) for s in shapes)} do not fit:\n" + "\n".join(lines)


def as_shape(sizes: tuple) -> Shape:
    """zeros(2, 3) and zeros((2, 3)) mean the same."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes


def axis_of(dim: int, ndim: int) -> int:
    """dim counted from the left; a tensor without axes lets it be 0 or -1."""
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise IndexError(f"dim {dim} is out of range: {ndim} axes have dims {-ndim} to {ndim - 1}")
    return dim % max(ndim, 1)


def axes_of(dim: Dim, ndim: int) -> Shape:
    """dim (a number, several, or None for all) as axes counted from the left."""
    dims = (dim,) if isinstance(dim, int) else dim or range(ndim)
    axes = tuple(axis_of(d, ndim) for d in dims)
    if len(set(axes)) != len(axes):
        raise RuntimeError(f"dim {dim} names an axis twice")
    return axes if ndim else ()


def reduced_shape(shape: Shape, axes: Shape, keepdim: builtins.bool) -> Shape:
    """The shape after a reduction over these axes."""
    if keepdim:
        return tuple(1 if i in axes else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in axes)


# From the core and back


def operation(name: str, function: Callable, *operands: object) -> Tensor:
    """The core's result as a Tensor; infinity and NaN come without a warning."""
    try:
        with np.errstate(all="ignore"):
            return Tensor(function(*operands), is_leaf=False)
    except Exception:
        message = mismatch([tuple(x.shape) for x in operands if isinstance(x, build.Tensor)])
        if message:
            raise RuntimeError(f"{name}: {message}") from None
        raise


def values(core: build.Tensor) -> np.ndarray:
    """The array of a tensor of the core."""
    return core.detach().numpy()


def cast(core: build.Tensor, dtype: np.dtype) -> build.Tensor:
    """A tensor of the core in another dtype; the gradient passes where floats become wider."""
    if core.dtype == dtype:
        return core
    if not (core.requires_grad and dtype.kind == "f"):
        return build.tensor(values(core).astype(dtype))
    result = core + build.tensor(0.0, dtype)
    if result.dtype != dtype:
        raise RuntimeError(f"to: {core.dtype} cannot become {dtype} in the graph; detach it first")
    return result


def promote(a: Tensor | Data, b: Tensor | Data) -> tuple[Operand, Operand]:
    """Two operands, at least one of them a tensor, as the core's tensors of one dtype.

    bool < integer < float. Within a kind a tensor with axes outranks one without, and that one
    a number: float32 (3,) times float64 () is float32. A number stays one.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype:
        return a.core, b.core
    a, b = (x.item() if isinstance(x, np.generic) else x for x in (a, b))
    ranks = {}
    for x in (a, b):
        rank = x.ndim > 0 if isinstance(x, Tensor) else -1
        x = x if isinstance(x, Tensor) else tensor(x)
        ranks[rank] = max(ranks.get(rank, bool), x.dtype, key=RANK.index)
    dtype = ranks.pop(max(ranks))
    for rank in sorted(ranks, reverse=True):
        if "bif".index(ranks[rank].kind) > "bif".index(dtype.kind):
            dtype = ranks[rank]
    return as_core(a, dtype), as_core(b, dtype)


def as_core(x: Tensor | Data, dtype: np.dtype) -> Operand:
    """A tensor, cast; a number as it is; anything else as a tensor of the core."""
    if isinstance(x, Tensor):
        return cast(x.core, dtype)
    return x if isinstance(x, int | float) else tensor(x, dtype).core


def elementwise(name: str, function: Callable) -> tuple[Callable, Callable]:
    """An operator's method, and the method for operands in the other order."""
    return (
        lambda self, other: operation(name, function, *promote(self, other)),
        lambda self, other: operation(name, function, *promote(other, self)),
    )


def floating(name: str) -> Callable[[Tensor], Tensor]:
    """The method for a function of the core; integers become float32 first."""
    function = getattr(build.Tensor, name)
    return lambda self: operation(name, function, self.floats().core)


def without_gradient(function: np.ufunc) -> Callable[..., Tensor]:
    """The method for a function of NumPy that has no gradient."""

    def method(self: Tensor, *others: Tensor) -> Tensor:
        shape = broadcast_shapes(self.shape, *(x.shape for x in others))
        return tensor(function(*(x.expand(shape).array for x in (self, *others))))

    return method


def linear_at(value: np.ndarray, *slopes: tuple[Tensor, Any]) -> Tensor:
    """A tensor of these values whose gradient with respect to each x is its slope, elementwise.

    value + slope * (x - x.detach()): what is added is zero, and has the gradient.
    """
    result = tensor(value)
    for x, slope in slopes:
        if x.requires_grad:
            result = result + tensor(slope) * (x - x.detach())
    return result


class Tensor:
    """A tensor of the core with everything that PyTorch's has and this project needs."""

    __hash__ = object.__hash__
    __array_ufunc__ = None  # NumPy arrays leave `array * tensor` to us

    def __init__(self, core: build.Tensor, is_leaf: builtins.bool = True):
        self.core, self.is_leaf = core, is_leaf or not core.requires_grad

    # Attributes

    shape = property(lambda self: tuple(self.core.shape))
    dtype = property(lambda self: np.dtype(self.core.dtype))
    ndim = property(lambda self: self.core.ndim)
    requires_grad = property(lambda self: self.core.requires_grad)
    array = property(lambda self: values(self.core))
    device = property(lambda self: "cpu")

    def size(self, dim: int | None = None) -> Shape | int:
        """The shape, or the size of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        text = np.array2string(self.array, separator=", ", precision=4, prefix="tensor(")
        return f"tensor({text}{', requires_grad=True' if self.requires_grad else ''})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> builtins.bool:
        return builtins.bool(self.item())

    def __float__(self) -> builtins.float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind == "f":
            raise TypeError(f"an index is a whole number, this is {self.dtype}")
        return int(self.item())

    def item(self) -> builtins.float:
        """The only element, as a Python number."""
        if self.numel() != 1:
            raise RuntimeError(f"item: one element needed, this has shape {self.shape}")
        return self.array.item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self.array.tolist()

    def numpy(self) -> np.ndarray:
        """The array itself, not a copy, where the core gives it."""
        if self.requires_grad:
            raise RuntimeError("numpy: this tensor requires grad; use detach().numpy()")
        return self.array

    def __array__(
        self, dtype: np.dtype | None = None, copy: builtins.bool | None = None
    ) -> np.ndarray:
        return np.array(self.numpy(), dtype, copy=copy)

    # The graph

    @property
    def grad(self) -> Tensor | None:
        """The gradient with respect to this tensor, or None."""
        return None if self.core.grad is None else Tensor(self.core.grad)

    @grad.setter
    def grad(self, grad: Tensor | None) -> None:
        self.core.grad = None if grad is None else grad.core

    @property
    def data(self) -> Tensor:
        """The same numbers outside the graph; may be set to others."""
        return self.detach()

    @data.setter
    def data(self, data: Tensor) -> None:
        grad = self.core.grad
        self.core = build.tensor(data.array, data.dtype, self.requires_grad)
        self.core.grad = grad

    def detach(self) -> Tensor:
        """The same numbers, outside the graph."""
        return Tensor(self.core.detach())

    def requires_grad_(self, requires_grad: builtins.bool = True) -> Tensor:
        """Turn the recording of gradients on or off, in place."""
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(f"only floats can require gradients, this is {self.dtype}")
        self.core = build.tensor(self.array, self.dtype, requires_grad)
        return self

    def backward(self, gradient: Tensor | None = None, retain_graph: builtins.bool = False) -> None:
        """Add the gradient with respect to every leaf to the leaf's `grad`.

        `gradient` is the upstream gradient, of the shape of self; a single element needs none. The
        graph is freed unless retain_graph. RuntimeError if there is no graph, or a shape differs.
        """
        if not self.requires_grad:
            if not self.is_leaf:
                raise RuntimeError("backward: this graph was used up; use retain_graph=True")
            raise RuntimeError("backward: this tensor does not require grad")
        if gradient is None:
            if self.numel() != 1:
                raise RuntimeError(f"backward: {self.shape} is not one element; give a gradient")
            gradient = ones(self.shape, dtype=self.dtype)
        if gradient.shape != self.shape:
            raise RuntimeError(f"backward: gradient {gradient.shape} for a tensor {self.shape}")
        with np.errstate(all="ignore"):
            self.core.backward(gradient.core)
        if not (retain_graph or self.is_leaf):
            self.core = self.core.detach()

    # Dtypes

    def to(self, *args: object, **named: object) -> Tensor:
        """The same numbers in another dtype, or in a tensor's; of devices there is only one."""
        dtypes = [a.dtype if isinstance(a, Tensor) else a for a in (*args, *named.values())]
        dtype = next((np.dtype(a) for a in dtypes if isinstance(a, np.dtype | type)), self.dtype)
        return self if dtype == self.dtype else operation("to", cast, self.core, dtype)

    def float(self) -> Tensor:
        """As float32."""
        return self.to(float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.to(float64)

    def long(self) -> Tensor:
        """As int64, towards zero."""
        return self.to(int64)

    def bool(self) -> Tensor:
        """False where the element is zero."""
        return self.to(bool)

    def floats(self) -> Tensor:
        """Itself, or float32 where it holds none."""
        return self if self.dtype.kind == "f" else self.to(float32)

    # Elementwise operations

    __add__, __radd__ = elementwise("add", operator.add)
    __sub__, __rsub__ = elementwise("subtract", operator.sub)
    __mul__, __rmul__ = elementwise("multiply", operator.mul)
    __eq__ = elementwise("equal", operator.eq)[0]
    __ne__ = elementwise("not_equal", operator.ne)[0]
    __lt__ = elementwise("less", operator.lt)[0]
    __le__ = elementwise("less_equal", operator.le)[0]
    __gt__ = elementwise("greater", operator.gt)[0]
    __ge__ = elementwise("greater_equal", operator.ge)[0]
    __and__ = without_gradient(np.bitwise_and)
    __or__ = without_gradient(np.bitwise_or)
    __invert__ = without_gradient(np.invert)
    exp, log, tanh, sqrt = map(floating, ("exp", "log", "tanh", "sqrt"))

    def __neg__(self) -> Tensor:
        return operation("negative", operator.neg, self.core)

    def relu(self) -> Tensor:
        """The element where it is positive, else 0; at 0 the slope is 0."""
        return operation("relu", build.Tensor.relu, self.core)

    def __truediv__(self, other: Tensor | Data) -> Tensor:
        other = other.floats() if isinstance(other, Tensor) else other
        return operation("divide", operator.truediv, *promote(self.floats(), other))

    def __rtruediv__(self, other: Data) -> Tensor:
        return operation("divide", operator.truediv, *promote(other, self.floats()))

    def __pow__(self, other: Tensor | Data) -> Tensor:
        a, b = promote(self, other)
        if isinstance(b, build.Tensor):
            return power(Tensor(a), Tensor(b))
        if a.dtype.kind != "f":
            return tensor(values(a) ** b)
        if b == 0:  # at x = 0 the core's gradient of x**0 may be 0 * inf
            return self * 0 + 1
        return operation("power", operator.pow, a, b)

    def __rpow__(self, other: Data) -> Tensor:
        return power(tensor(other, promote(self, other)[0].dtype), self)

    def masked_fill(self, mask: Tensor, value: builtins.float) -> Tensor:
        """`value` where the bool mask is True; no gradient passes through those places."""
        return where(mask, tensor(value, self.dtype), self)

    # Shapes

    def expand(self, *sizes: Sizes) -> Tensor:
        """Broadcast axes of size 1 and add axes on the left; -1 keeps a size."""
        sizes = as_shape(sizes)
        kept = (1,) * (len(sizes) - self.ndim) + self.shape
        shape = tuple(have if size == -1 else size for have, size in zip(kept, sizes, strict=False))
        if shape == self.shape:
            return self
        fits = len(kept) == len(sizes) and all(h in (1, s) for h, s in zip(kept, shape))
        if not fits:
            raise RuntimeError(f"expand: {self.shape} cannot become {tuple(sizes)}")
        return operation("expand", build.Tensor.expand, self.core, *shape)

    def reshape(self, *sizes: Sizes) -> Tensor:
        """The elements in the same order in another shape; one size may be -1."""
        sizes = as_shape(sizes)
        rest = math.prod(size for size in sizes if size != -1)
        if sizes.count(-1) == 1 and rest and self.numel() % rest == 0:
            sizes = tuple(self.numel() // rest if size == -1 else size for size in sizes)
        if min(sizes, default=0) < 0 or math.prod(sizes) != self.numel():
            raise RuntimeError(f"reshape: {self.shape} does not fit into {sizes}")
        if sizes == ():
            return self if self.ndim == 0 else self.sum()  # one element
        return operation("reshape", build.Tensor.reshape, self.core, *sizes)

    def view(self, *sizes: Sizes) -> Tensor:
        """reshape that never copies; RuntimeError where it would have to."""
        out, array = self.reshape(*sizes), self.array
        if not (array.flags.c_contiguous or np.shares_memory(array, array.reshape(out.shape))):
            raise RuntimeError(f"view: {self.shape} is not laid out in this order; use reshape")
        return out

    def permute(self, *dims: Sizes) -> Tensor:
        """The axes in the order `dims`."""
        axes = axes_of(as_shape(dims), self.ndim)
        if len(axes) != self.ndim:
            raise RuntimeError(f"permute: {as_shape(dims)} does not order {self.ndim} axes")
        return operation("permute", build.Tensor.permute, self.core, *axes) if axes else self

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Swap two axes."""
        i, j = axis_of(dim0, self.ndim), axis_of(dim1, self.ndim)
        return (
            operation("transpose", build.Tensor.transpose, self.core, i, j) if self.ndim else self
        )

    @property
    def T(self) -> Tensor:
        """All axes in the opposite order."""
        return self.permute(*reversed(range(self.ndim)))

    def squeeze(self, dim: Dim = None) -> Tensor:
        """Remove the axes of size 1; with dim, only those that it names."""
        axes = () if dim == () else axes_of(dim, self.ndim)
        kept = [s for i, s in enumerate(self.shape) if s != 1 or i not in axes]
        return self.reshape(tuple(kept))

    def unsqueeze(self, dim: int) -> Tensor:
        """Insert an axis of size 1, which becomes axis `dim` of the result."""
        at = axis_of(dim, self.ndim + 1)
        return self.reshape((*self.shape[:at], 1, *self.shape[at:]))

    def clone(self) -> Tensor:
        """A copy; the gradient passes through."""
        return self * 1 if self.requires_grad else tensor(self.array)

    def contiguous(self) -> Tensor:
        """The same tensor with its elements in memory in the order of its shape."""
        if self.array.flags.c_contiguous:
            return self
        return self.reshape(-1).reshape(self.shape)

    def __getitem__(self, key: object) -> Tensor:
        """x[1], x[:, 2:], x[None], x[..., 0], x[bool tensor], x[integer tensor, ...]."""
        whole, key = index(self, key)
        arrays = [isinstance(part, build.Tensor) for part in key]
        first = tuple(slice(None) if array else part for part, array in zip(key, arrays))
        then = tuple(part for part in key if not isinstance(part, int))
        try:
            if any(arrays) and any(isinstance(part, int) for part in key):  # as PyTorch does it
                then = tuple(slice(None) if isinstance(part, slice) else part for part in then)
                return operation("index", operator.getitem, whole[first].core, then)
            return operation("index", operator.getitem, whole.core, key)
        except IndexError as error:
            raise IndexError(f"index into shape {self.shape}: {error}") from None

    def __setitem__(self, key: object, value: Tensor | Data) -> None:
        """Write into the array; views see it, backward does not."""
        if self.requires_grad and no_grad.outside:
            raise RuntimeError("writing into a tensor that requires grad; use no_grad()")
        parts = key if isinstance(key, tuple) else (key,)
        parts = tuple(part.array if isinstance(part, Tensor) else part for part in parts)
        array = self.array
        value = value if isinstance(value, Tensor) else tensor(value, self.dtype)
        array[parts] = value.expand(array[parts].shape).array
        if not np.may_share_memory(array, self.array):  # the core gave a copy
            self.data = tensor(array)

    def split(self, size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Pieces of `size` along dim, the last one possibly smaller; or of the sizes in a list."""
        before, n = (slice(None),) * axis_of(dim, self.ndim), self.shape[dim]
        sizes = [size] * max(-(-n // size), 1) if isinstance(size, int) else size
        starts = itertools.accumulate(sizes, initial=0)
        return tuple(
            self[(*before, slice(a, a + size))] for a, size in zip(starts, sizes, strict=False)
        )

    # Reductions

    def reduced(self, name: str, axes: Shape, keepdim: builtins.bool) -> Tensor:
        """A reduction of the core over these axes, one after the other."""
        out, method = self, getattr(build.Tensor, name)
        if len(axes) == self.ndim and not keepdim:
            return operation(name, lambda core: largest(method(core)), self.core)
        for axis in axes:
            out = operation(name, lambda core, i=axis: largest(method(core, i, True)), out.core)
        return out if keepdim else out.reshape(reduced_shape(self.shape, axes, False))

    def sum(
        self, dim: Dim = None, keepdim: builtins.bool = False, *, dtype: np.dtype | None = None
    ) -> Tensor:
        """Over all elements, or over one axis or several; integers sum to int64."""
        x = self.to(dtype or (self.dtype if self.dtype.kind == "f" else int64))
        return x.reduced("sum", axes_of(dim, x.ndim), keepdim)

    def mean(
        self, dim: Dim = None, keepdim: builtins.bool = False, *, dtype: np.dtype | None = None
    ) -> Tensor:
        """The mean of all elements, or over one axis or several; RuntimeError for integers."""
        x = self.to(dtype or self.dtype)
        if x.dtype.kind != "f":
            raise RuntimeError(f"mean: floats needed, got {x.dtype}; use float()")
        n = math.prod(x.shape[i] for i in axes_of(dim, x.ndim))
        return x.sum(dim, keepdim) / (n or math.nan)

    def var(
        self,
        dim: Dim = None,
        unbiased: builtins.bool = True,
        keepdim: builtins.bool = False,
        *,
        correction: int | None = None,
    ) -> Tensor:
        """The sum of squared distances from the mean, divided by n - correction (default 1)."""
        if self.dtype.kind != "f":
            raise RuntimeError(f"var: floats needed, got {self.dtype}; use float()")
        if isinstance(dim, builtins.bool):
            unbiased, dim = dim, None
        axes = axes_of(dim, self.ndim)
        n = math.prod(self.shape[i] for i in axes)
        far = self - self.mean(axes, keepdim=True)
        fewer = int(unbiased) if correction is None else correction
        return (far * far).sum(axes, keepdim) / (max(n - fewer, 0) or math.nan)

    def max(self, dim: Tensor | int | None = None, keepdim: builtins.bool = False) -> Any:
        """The largest element; (values, indices) along dim; elementwise if dim is a tensor."""
        if isinstance(dim, Tensor):
            return maximum(self, dim)
        if dim is None:
            return self.amax()
        return Extreme(self.amax(dim, keepdim), self.argmax(dim, keepdim))

    def min(self, dim: Tensor | int | None = None, keepdim: builtins.bool = False) -> Any:
        """The smallest element; (values, indices) along dim; elementwise if dim is a tensor."""
        if isinstance(dim, Tensor):
            return -maximum(-self, -dim)
        if dim is None:
            return self.amin()
        return Extreme(self.amin(dim, keepdim), self.argmin(dim, keepdim))

    def amax(self, dim: Dim = None, keepdim: builtins.bool = False) -> Tensor:
        """The largest elements over one axis or several; equal ones share the gradient."""
        axes = axes_of(dim, self.ndim)
        if any(self.shape[i] == 0 for i in axes):
            kind = RuntimeError if dim is None else IndexError
            raise kind(f"max of no elements, shape {self.shape}, over dim {dim}")
        return self.reduced("max", axes, keepdim)

    def amin(self, dim: Dim = None, keepdim: builtins.bool = False) -> Tensor:
        """The smallest elements over one axis or several; equal ones share the gradient."""
        return ~(~self).amax(dim, keepdim) if self.dtype == bool else -(-self).amax(dim, keepdim)

    def argmax(self, dim: int | None = None, keepdim: builtins.bool = False) -> Tensor:
        """The index of the first largest element along dim, or in the flattened tensor."""
        return arg_extreme(np.argmax, self, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: builtins.bool = False) -> Tensor:
        """The index of the first smallest element along dim, or in the flattened tensor."""
        return arg_extreme(np.argmin, self, dim, keepdim)

    def softmax(self, dim: int, dtype: np.dtype | None = None) -> Tensor:
        """exp(x) / sum(exp(x)) along dim."""
        x, axis = self.to(dtype or self.dtype), axis_of(dim, self.ndim)
        if x.numel() == 0 or x.ndim == 0:
            return (x - x.detach()).exp()
        return operation("softmax", build.Tensor.softmax, x.core, axis)

    def log_softmax(self, dim: int, dtype: np.dtype | None = None) -> Tensor:
        """The logarithm of softmax, finite where softmax rounds to 0."""
        x, axis = self.to(dtype or self.dtype), axis_of(dim, self.ndim)
        if x.numel() == 0 or x.ndim == 0:
            return x - x.detach()
        return operation("log_softmax", build.Tensor.log_softmax, x.core, axis)

    # Matrices

    def matmul(self, other: Tensor) -> Tensor:
        """(..., n, k) @ (..., k, m) -> (..., n, m); leading axes broadcast; vectors allowed."""
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
            rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
            return (rows @ b).reshape(*a.shape[:-1], b.shape[-1])
        broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return operation("matmul", operator.matmul, a.core, b.core)

    __matmul__ = matmul

    def __rmatmul__(self, other: Data) -> Tensor:
        return tensor(other, self.dtype) @ self


def largest(found: build.Tensor | tuple) -> build.Tensor:
    """The values that the core's max gives, alone or with the indices as in PyTorch."""
    return found if isinstance(found, build.Tensor) else found[0]


def power(a: Tensor, b: Tensor) -> Tensor:
    """a ** b for any two tensors of one dtype; at a = 0 the gradient with respect to b is 0."""
    shape = broadcast_shapes(a.shape, b.shape)
    a, b = a.expand(shape), b.expand(shape)
    x, n = a.array, b.array
    with np.errstate(all="ignore"):
        value = np.power(x, n)
        slope_a = np.where(n == 0, 0, n * np.power(x, n - 1)) if a.requires_grad else None
        slope_b = np.where((x == 0) & (n >= 0), 0, value * np.log(x)) if b.requires_grad else None
        return linear_at(value, (a, slope_a), (b, slope_b))


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """The elementwise maximum; equal elements share the gradient."""
    return where(a > b, a, where(a == b, (a + b) / 2 if a.floats() is a else a, b))


def arg_extreme(function: Callable, x: Tensor, dim: int | None, keepdim: builtins.bool) -> Tensor:
    """np.argmax or np.argmin along dim, or of the flattened tensor."""
    array, axis = (x.array.reshape(-1), 0) if dim is None else (x.array, axis_of(dim, x.ndim))
    if array.ndim and array.shape[axis] == 0:
        raise IndexError(f"{function.__name__} over the empty axis {dim} of {x.shape}")
    found = function(array, axis) if array.ndim else 0
    axes = axes_of(None if dim is None else axis, x.ndim)
    return tensor(found, int64).reshape(reduced_shape(x.shape, axes, keepdim))


def index(x: Tensor, key: object) -> tuple[Tensor, tuple]:
    """y and k with y[k] = x[key]; k holds ints, slices and integer tensors of the core alone."""
    given = [key_part(part) for part in (key if isinstance(key, tuple) else (key,))]
    masks = [isinstance(part, Tensor) and part.dtype == bool for part in given]
    axes = [part.ndim if mask else 1 for part, mask in zip(given, masks)]
    axes = [0 if part is None or part is ... else n for part, n in zip(given, axes)]
    if sum(axes) > x.ndim:
        raise IndexError(f"{sum(axes)} indices for shape {x.shape}")
    sizes = list(x.shape)
    parts: list[Any] = []
    for part, mask in zip(given, masks):
        if part is None:
            sizes.insert(len(parts), 1)
            parts.append(slice(None))
        elif part is ...:
            parts += [slice(None)] * (x.ndim - sum(axes))
        elif mask:
            if part.shape != tuple(sizes[len(parts) : len(parts) + part.ndim]):
                raise IndexError(f"a mask of shape {part.shape} for shape {x.shape}")
            parts += [tensor(places).core for places in np.nonzero(part.array)]
        else:
            parts.append(part.core if isinstance(part, Tensor) else part)
    return x if len(sizes) == x.ndim else x.reshape(sizes), tuple(parts)


def key_part(part: Any) -> Any:
    """One index of x[...]: None, ..., an int, a slice, or a tensor of integers or bools."""
    if part is None or part is ... or isinstance(part, int | slice):
        return part
    part = part if isinstance(part, Tensor) else tensor(part)
    if part.dtype.kind == "f":
        raise IndexError(f"an index is made of integers or bools, got {part.dtype}")
    return int(part) if part.ndim == 0 and part.dtype == int64 else part


# Making tensors (device is in PyTorch's signatures, so here, too; there is only one)


def tensor(
    data: Data | Tensor,
    dtype: np.dtype | None = None,
    requires_grad: builtins.bool = False,
    device: object = None,
) -> Tensor:
    """A tensor with its own copy of `data`: a number, (nested) lists, arrays or tensors.

    Python's floats become float32; an array keeps float64. ValueError if lists differ in length,
    TypeError for anything but numbers, RuntimeError if integers are to require a gradient.

    >>> tensor([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    try:
        array = np.asarray(plain(data))
    except ValueError:
        raise ValueError("tensor: the lists inside have different lengths") from None
    if dtype is None:
        keeps = isinstance(data, Tensor | np.ndarray | np.generic) and array.dtype == float64
        kinds = {"b": bool, "i": int64, "u": int64, "f": float64 if keeps else float32}
        dtype = kinds.get(array.dtype.kind)
        if dtype is None:
            raise TypeError(f"tensor: numbers needed, got {array.dtype}")
    dtype = np.dtype(dtype)
    if requires_grad and dtype.kind != "f":
        raise RuntimeError(f"only floats can require gradients, this is {dtype}")
    return Tensor(build.tensor(array.astype(dtype, copy=False), dtype, requires_grad))


def plain(data: Data | Tensor) -> object:
    """Tensors, also inside of lists, as arrays."""
    if isinstance(data, list | tuple):
        return [plain(part) for part in data]
    return data.array if isinstance(data, Tensor) else data


def full(
    shape: int | Shape,
    value: builtins.float,
    dtype: np.dtype | None = None,
    requires_grad: builtins.bool = False,
    device: object = None,
) -> Tensor:
    """A tensor of `shape` filled with `value`."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return tensor(np.full(shape, value, dtype or tensor(value).dtype), None, requires_grad)


def zeros(
    *shape: Sizes,
    dtype: np.dtype | None = None,
    requires_grad: builtins.bool = False,
    device: object = None,
) -> Tensor:
    """zeros(2, 3) is a tensor (2, 3) of zeros."""
    return full(as_shape(shape), 0, dtype or float32, requires_grad)


def ones(
    *shape: Sizes,
    dtype: np.dtype | None = None,
    requires_grad: builtins.bool = False,
    device: object = None,
) -> Tensor:
    """ones(2, 3) is a tensor (2, 3) of ones."""
    return full(as_shape(shape), 1, dtype or float32, requires_grad)


def arange(
    start: builtins.float,
    end: builtins.float | None = None,
    step: builtins.float = 1,
    dtype: np.dtype | None = None,
    device: object = None,
) -> Tensor:
    """start (0 if left out), start + step, ... up to end, which is not included."""
    start, end = (0, start) if end is None else (start, end)
    whole = all(isinstance(x, int) for x in (start, end, step))
    return tensor(np.arange(start, end, step), dtype or (int64 if whole else float32))


rng = np.random.default_rng(0)


def manual_seed(seed: int) -> None:
    """Seed the generator of randn, rand, randint and dropout."""
    global rng
    rng = np.random.default_rng(seed)


def randn(
    *shape: Sizes,
    dtype: np.dtype | None = None,
    requires_grad: builtins.bool = False,
    device: object = None,
) -> Tensor:
    """Standard normal numbers in the given shape."""
    numbers = rng.standard_normal(as_shape(shape), dtype or float32)
    return tensor(numbers, dtype or float32, requires_grad)


def rand(
    *shape: Sizes,
    dtype: np.dtype | None = None,
    requires_grad: builtins.bool = False,
    device: object = None,
) -> Tensor:
    """Uniform numbers in [0, 1), in the given shape."""
    return tensor(rng.random(as_shape(shape), dtype or float32), dtype or float32, requires_grad)


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Integers from low (0 if left out) to high - 1, in the shape `size`."""
    low, high, size = (0, low, high) if size is None else (low, high, size)
    return tensor((generator or rng).integers(low, high, tuple(size)))


# Functions of several tensors, and no_grad


def where(condition: Tensor, a: Tensor | Data, b: Tensor | Data) -> Tensor:
    """a where the condition is True, b elsewhere; the three broadcast together."""
    if condition.dtype != bool:
        raise RuntimeError(f"where and masked_fill need a bool mask, got {condition.dtype}")
    a = a if isinstance(a, Tensor) or isinstance(b, Tensor) else tensor(a)
    a, b = promote(a, b)
    like = a if isinstance(a, build.Tensor) else b
    a, b = (x if isinstance(x, build.Tensor) else build.tensor(x, like.dtype) for x in (a, b))
    return operation("where", build.where, condition.core, a, b)


def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """x with zeros above the diagonal of its last two axes."""
    return where(lower_triangle(x, diagonal), x, tensor(0, x.dtype))


def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """x with zeros below the diagonal of its last two axes."""
    return where(lower_triangle(x, diagonal - 1), tensor(0, x.dtype), x)


def lower_triangle(x: Tensor, diagonal: int) -> Tensor:
    """True on the diagonal and below it, for the last two axes of x."""
    if x.ndim < 2:
        raise RuntimeError(f"tril and triu need two axes, got shape {x.shape}")
    rows, columns = x.shape[-2:]
    return tensor(np.tri(rows, columns, diagonal, dtype=bool))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join along an existing axis; all other sizes are equal."""
    dtype = max((x.dtype for x in tensors), key=RANK.index)
    tensors = [x.to(dtype) for x in tensors if x.shape != (0,)] or [tensors[0].to(dtype)]
    axis, shapes = axis_of(dim, tensors[0].ndim), [x.shape for x in tensors]
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1 or () in shapes:
        raise RuntimeError(f"cat along dim {dim}: the other sizes differ in {shapes}")
    return Tensor(build.cat([x.core for x in tensors], axis), is_leaf=False)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join along a new axis; all shapes are equal."""
    if len({x.shape for x in tensors}) > 1:
        raise RuntimeError(f"stack: one shape needed, got {[x.shape for x in tensors]}")
    return cat([x.unsqueeze(dim) for x in tensors], dim)


class no_grad(contextlib.ContextDecorator):
    """Inside, operations are not recorded: `with no_grad():` or `@no_grad()`."""

    outside = True

    def __enter__(self) -> None:
        self.entered = [*getattr(self, "entered", []), (build.no_grad(), no_grad.outside)]
        self.entered[-1][0].__enter__()
        no_grad.outside = False

    def __exit__(self, *error: object) -> None:
        inner, no_grad.outside = self.entered.pop()
        inner.__exit__(*error)
