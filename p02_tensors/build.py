"""A tiny PyTorch: tensors on NumPy buffers, with broadcasting and reverse-mode autograd.

Every elementwise operation first stretches its operands to one shape, so NumPy only ever sees
equal shapes. Every operation with a gradient keeps, for each input, the function that turns the
output's gradient into that input's. Names and rules are PyTorch's.
"""

from __future__ import annotations

import builtins
import contextlib
import itertools
import math
from collections import namedtuple

import numpy as np

from p01_autograd.build import topological_order

float32, float64 = np.dtype("float32"), np.dtype("float64")
int64, bool = np.dtype("int64"), np.dtype("bool")

RANK = [bool, int64, float32, float64]  # where two dtypes meet, the later one wins


# 1. Broadcasting


def align(shape, ndim: int) -> tuple[int, ...]:
    """Rule 1: shapes are aligned at the right; what is missing on the left counts as size 1."""
    return (1,) * (ndim - len(shape)) + tuple(shape)


def broadcast_shapes(*shapes) -> tuple[int, ...]:
    """The shape that all stretch to. Rule 2: size 1 becomes any size. Rule 3: no other does.

    Raises RuntimeError, with the axis marked, where two sizes do not fit.

    >>> broadcast_shapes((3, 1, 5), (4, 5))
    (3, 4, 5)
    """
    ndim = max(map(len, shapes), default=0)
    result = []
    for axis, sizes in enumerate(zip(*(align(shape, ndim) for shape in shapes), strict=True)):
        others = set(sizes) - {1}
        if len(others) > 1:
            raise RuntimeError(clash(shapes, axis))
        result.append(others.pop() if others else 1)
    return tuple(result)


def clash(shapes, axis: int) -> str:
    """The shapes, one under the other, and a mark below the axis that does not fit."""
    ndim = max(map(len, shapes))
    width = max(len(str(size)) for shape in shapes for size in shape) + 2
    rows = [[""] * (ndim - len(shape)) + list(shape) for shape in shapes]
    lines = ["".join(f"{size:>{width}}" for size in row) for row in rows]
    lines.append("^".rjust(width * (axis + 1)))
    return f"shapes {' and '.join(str(tuple(s)) for s in shapes)} do not fit:\n" + "\n".join(lines)


def stretch(array: np.ndarray, shape) -> np.ndarray:
    """`array` as `shape` without a copy: along a stretched axis, one step is 0 bytes."""
    sizes = align(array.shape, len(shape))
    if len(sizes) > len(shape) or any(have not in (1, want) for have, want in zip(sizes, shape)):
        raise RuntimeError(f"expand: {array.shape} cannot become {tuple(shape)}")
    array = array.reshape(sizes)
    steps = zip(array.strides, sizes, shape)
    strides = [stride if have == want else 0 for stride, have, want in steps]
    return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)


def unbroadcast(array: np.ndarray, shape) -> np.ndarray:
    """The way back: sum over every axis that was stretched, so that `array` gets `shape`.

    >>> unbroadcast(np.ones((2, 3)), (3,)).tolist()
    [2.0, 2.0, 2.0]
    """
    sizes = zip(align(shape, array.ndim), array.shape, strict=True)
    stretched = tuple(axis for axis, (was, now) in enumerate(sizes) if was == 1 and now != 1)
    return array.sum(stretched, keepdims=True).reshape(shape)


# 2. Making tensors (device is in PyTorch's signatures, so here, too; there is only one)


def tensor(data, dtype=None, requires_grad=False, device=None) -> Tensor:
    """A tensor with its own copy of `data`: a number, (nested) lists, or a NumPy array.

    Python's floats become float32; an array keeps float64.

    >>> tensor([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    try:
        array = np.array(plain(data))
    except ValueError:
        raise ValueError("tensor: the lists inside have different lengths") from None
    if dtype is None:
        keeps = isinstance(data, Tensor | np.ndarray | np.generic) and array.dtype == float64
        dtype = {"b": bool, "i": int64, "u": int64, "f": float64 if keeps else float32}.get(
            array.dtype.kind
        )
        if dtype is None:
            raise TypeError(f"tensor: numbers needed, got {array.dtype}")
    return Tensor(array.astype(dtype), requires_grad)


def plain(data):
    """Tensors, and lists of them, as what NumPy understands."""
    if isinstance(data, list | tuple):
        return [plain(part) for part in data]
    return data._array if isinstance(data, Tensor) else data


def several(sizes) -> tuple:
    """zeros(2, 3) and zeros((2, 3)) mean the same."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes


def full(shape, value, dtype=None, requires_grad=False, device=None) -> Tensor:
    """A tensor of `shape` with `value` everywhere."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return Tensor(np.full(shape, value, dtype or tensor(value).dtype), requires_grad)


def zeros(*shape, dtype=None, requires_grad=False, device=None) -> Tensor:
    """zeros(2, 3) is a tensor (2, 3) of zeros."""
    return full(several(shape), 0, dtype or float32, requires_grad)


def ones(*shape, dtype=None, requires_grad=False, device=None) -> Tensor:
    """ones(2, 3) is a tensor (2, 3) of ones."""
    return full(several(shape), 1, dtype or float32, requires_grad)


def arange(start, end=None, step=1, dtype=None, device=None) -> Tensor:
    """start (0 if left out), start + step, ... up to, not including, end."""
    start, end = (0, start) if end is None else (start, end)
    whole = all(isinstance(x, int) for x in (start, end, step))
    return Tensor(np.arange(start, end, step).astype(dtype or (int64 if whole else float32)))


rng = np.random.default_rng(0)


def manual_seed(seed: int) -> None:
    """Start the random numbers over."""
    global rng
    rng = np.random.default_rng(seed)


def randn(*shape, dtype=None, requires_grad=False, device=None) -> Tensor:
    """Standard normal numbers."""
    return Tensor(np.asarray(rng.standard_normal(several(shape), dtype or float32)), requires_grad)


def rand(*shape, dtype=None, requires_grad=False, device=None) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return Tensor(np.asarray(rng.random(several(shape), dtype or float32)), requires_grad)


def randint(low, high=None, size=None, *, generator: np.random.Generator | None = None) -> Tensor:
    """Integers from low (0 if left out) up to high - 1."""
    low, high, size = (0, low, high) if size is None else (low, high, size)
    return Tensor(np.asarray((generator or rng).integers(low, high, tuple(size))))


# 3. The graph: what every operation leaves behind

grad_enabled = True


class no_grad(contextlib.ContextDecorator):
    """Inside, operations are not recorded: `with no_grad():` or `@no_grad()`."""

    def __enter__(self):
        global grad_enabled
        self.before, grad_enabled = [*getattr(self, "before", []), grad_enabled], False

    def __exit__(self, *error):
        global grad_enabled
        grad_enabled = self.before.pop()


def result(array, *edges) -> Tensor:
    """What an operation returns. An edge is (input, function: out's gradient -> input's)."""
    out = Tensor(np.asarray(array))
    edges = [edge for edge in edges if edge[0].requires_grad]
    if edges and grad_enabled and out.dtype.kind == "f":
        out._inputs, out._pulls = zip(*edges, strict=True)
        out.requires_grad, out.is_leaf = True, False
    return out


def promote(a, b) -> tuple[Tensor, Tensor]:
    """Two operands, at least one of them a tensor, as tensors of one dtype.

    bool < integer < float. Within a kind a tensor with axes outranks one without, and that one
    a number: float32 (3,) times float64 () is float32.
    """
    ranks = {}
    for x in (a, b):
        rank = x.ndim > 0 if isinstance(x, Tensor) else -1
        x = x if isinstance(x, Tensor) else tensor(x)
        ranks[rank] = max(ranks.get(rank, bool), x.dtype, key=RANK.index)
    dtype = ranks.pop(max(ranks))
    for rank in sorted(ranks, reverse=True):
        if "bif".index(ranks[rank].kind) > "bif".index(dtype.kind):
            dtype = ranks[rank]
    return as_tensor(a, dtype), as_tensor(b, dtype)


def as_tensor(x, dtype) -> Tensor:
    """A number or a tensor as a tensor of that dtype."""
    return x.to(dtype) if isinstance(x, Tensor) else tensor(x, dtype)


def floating(x: Tensor) -> Tensor:
    """Functions such as exp leave the integers."""
    return x if x.dtype.kind == "f" else x.to(float32)


@np.errstate(all="ignore")  # inf and nan come without a warning, as in PyTorch
def elementwise(function, *operands: Tensor) -> tuple:
    """Stretch the operands to one shape and call NumPy: (its array, the stretched operands)."""
    if len({x.shape for x in operands}) > 1:
        try:
            shape = broadcast_shapes(*(x.shape for x in operands))
        except RuntimeError as error:
            raise RuntimeError(f"{function.__name__}: {error}") from None
        operands = [x.expand(shape) for x in operands]
    return np.asarray(function(*(x._array for x in operands))), *operands


def axis_of(dim: int, ndim: int) -> int:
    """dim counted from the left; a tensor without axes lets it be 0 or -1."""
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise IndexError(f"dim {dim} is out of range: {ndim} axes have dims {-ndim} to {ndim - 1}")
    return dim % max(ndim, 1)


def axes_of(dim, ndim: int) -> tuple[int, ...]:
    """dim (a number, several, or None for all) as axes counted from the left."""
    dims = (dim,) if isinstance(dim, int) else dim or range(ndim)
    axes = tuple(axis_of(d, ndim) for d in dims)
    if len(set(axes)) != len(axes):
        raise RuntimeError(f"dim {dim} names an axis twice")
    return axes if ndim else ()


Extreme = namedtuple("Extreme", "values indices")


class Tensor:
    """An array of any number of axes that remembers how it was made."""

    def __init__(self, data: np.ndarray, requires_grad=False):
        self._array, self._inputs, self._pulls = data, (), ()
        self.is_leaf, self.grad = True, None
        self.requires_grad_(requires_grad)

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    data = property(lambda self: self.detach())
    device = property(lambda self: "cpu")

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

    def __index__(self):
        if self.dtype.kind == "f":
            raise TypeError(f"an index is a whole number, this is {self.dtype}")
        return int(self.item())

    __hash__ = object.__hash__
    __array_ufunc__ = None  # NumPy arrays leave `array * tensor` to us

    def size(self, dim=None):
        """The shape, or the size of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """How many elements there are."""
        return self._array.size

    def item(self):
        """The only element, as a Python number."""
        if self.numel() != 1:
            raise RuntimeError(f"item: one element needed, this has shape {self.shape}")
        return self._array.item()

    def tolist(self):
        """Nested lists of Python numbers."""
        return self._array.tolist()

    def numpy(self) -> np.ndarray:
        """The buffer itself, not a copy."""
        if self.requires_grad:
            raise RuntimeError("numpy: this tensor requires grad; use detach().numpy()")
        return self._array

    def detach(self) -> Tensor:
        """The same buffer, outside of the graph."""
        return Tensor(self._array)

    def requires_grad_(self, requires_grad=True) -> Tensor:
        """Ask for a gradient, or no longer."""
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(f"only floats can require gradients, this is {self.dtype}")
        self.requires_grad = requires_grad
        return self

    @np.errstate(all="ignore")
    def backward(self, gradient: Tensor | None = None, retain_graph=False) -> None:
        """Add d self / d leaf to the `.grad` of every leaf that requires it.

        `gradient` (the shape of self) is what self's own gradient is; 1 for a single element.
        The graph is used up unless retain_graph.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor does not require grad")
        if gradient is None:
            if self.numel() != 1:
                raise RuntimeError(f"backward: {self.shape} is not one element; give a gradient")
            gradient = full(self.shape, 1.0, self.dtype)
        if gradient.shape != self.shape:
            raise RuntimeError(f"backward: gradient {gradient.shape} for a tensor {self.shape}")
        grads = {id(self): gradient}
        order = topological_order(self)
        with no_grad():
            while order:
                node = order.pop()
                grad = grads.pop(id(node))
                if node.is_leaf:
                    node.grad = grad.clone() if node.grad is None else node.grad + grad
                elif not node._inputs:
                    raise RuntimeError("backward: this graph was used up; use retain_graph=True")
                for parent, pull in zip(node._inputs, node._pulls, strict=True):
                    more = pull(grad)
                    if more.shape != parent.shape:
                        raise RuntimeError(f"backward: gradient {more.shape} for {parent.shape}")
                    have = grads.get(id(parent))
                    grads[id(parent)] = more if have is None else have + more
                if not retain_graph:
                    node._inputs = node._pulls = ()

    # 4. Elementwise operations

    def to(self, *args, **named) -> Tensor:
        """The same numbers in another dtype, or in a tensor's; of devices there is only one."""
        dtypes = [a.dtype if isinstance(a, Tensor) else a for a in (*args, *named.values())]
        dtype = next((np.dtype(a) for a in dtypes if isinstance(a, np.dtype | type)), self.dtype)
        if dtype == self.dtype:
            return self
        return result(self._array.astype(dtype), (self, lambda g: g.to(self.dtype)))

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

    def __add__(self, other):
        out, a, b = elementwise(np.add, *promote(self, other))
        return result(out, (a, lambda g: g), (b, lambda g: g))

    def __sub__(self, other):
        out, a, b = elementwise(np.subtract, *promote(self, other))
        return result(out, (a, lambda g: g), (b, lambda g: -g))

    def __mul__(self, other):
        out, a, b = elementwise(np.multiply, *promote(self, other))
        return result(out, (a, lambda g: g * b), (b, lambda g: g * a))

    def __truediv__(self, other):
        out, a, b = elementwise(np.divide, *map(floating, promote(self, other)))
        return result(out, (a, lambda g: g / b), (b, lambda g: -g * (a / b) / b))

    def __pow__(self, other):
        out, a, b = elementwise(np.power, *promote(self, other))
        return result(
            out,
            (a, lambda g: where(b == 0, 0.0, g * b * a ** (b - 1))),
            (b, lambda g: where((a == 0) & (b >= 0), 0.0, g * Tensor(out) * a.log())),
        )

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other):
        a, b = promote(other, self)
        return a - b

    def __rtruediv__(self, other):
        a, b = promote(other, self)
        return a / b

    def __rpow__(self, other):
        a, b = promote(other, self)
        return a**b

    def __neg__(self):
        out, x = elementwise(np.negative, self)
        return result(out, (x, lambda g: -g))

    def __eq__(self, other):
        return Tensor(elementwise(np.equal, *promote(self, other))[0])

    def __ne__(self, other):
        return Tensor(elementwise(np.not_equal, *promote(self, other))[0])

    def __lt__(self, other):
        return Tensor(elementwise(np.less, *promote(self, other))[0])

    def __le__(self, other):
        return Tensor(elementwise(np.less_equal, *promote(self, other))[0])

    def __gt__(self, other):
        return Tensor(elementwise(np.greater, *promote(self, other))[0])

    def __ge__(self, other):
        return Tensor(elementwise(np.greater_equal, *promote(self, other))[0])

    def __and__(self, other):
        return Tensor(elementwise(np.bitwise_and, *promote(self, other))[0])

    def __or__(self, other):
        return Tensor(elementwise(np.bitwise_or, *promote(self, other))[0])

    def __invert__(self):
        return Tensor(elementwise(np.invert, self)[0])

    def exp(self) -> Tensor:
        """e to the power of each element."""
        out, x = elementwise(np.exp, floating(self))
        return result(out, (x, lambda g: g * Tensor(out)))

    def log(self) -> Tensor:
        """The natural logarithm."""
        out, x = elementwise(np.log, floating(self))
        return result(out, (x, lambda g: g / x))

    def tanh(self) -> Tensor:
        """The hyperbolic tangent, between -1 and 1."""
        out, x = elementwise(np.tanh, floating(self))
        return result(out, (x, lambda g: g * (1 - Tensor(out) * Tensor(out))))

    def sqrt(self) -> Tensor:
        """The square root."""
        out, x = elementwise(np.sqrt, floating(self))
        return result(out, (x, lambda g: g / (2 * Tensor(out))))

    def relu(self) -> Tensor:
        """The element where it is positive, else 0; at 0 the slope is 0."""
        out, x, _ = elementwise(np.maximum, self, tensor(0, self.dtype))
        return result(out, (x, lambda g: g * (x > 0)))

    def masked_fill(self, mask: Tensor, value) -> Tensor:
        """`value` where the bool mask is True; no gradient flows through those places."""
        return where(mask, as_tensor(value, self.dtype), self)

    # 5. Shapes

    def expand(self, *sizes) -> Tensor:
        """Stretch axes of size 1 and add axes on the left, without a copy; -1 keeps a size."""
        sizes = several(sizes)
        kept = align(self.shape, len(sizes))
        shape = tuple(have if size == -1 else size for have, size in zip(kept, sizes, strict=False))
        if shape == self.shape:
            return self
        out = stretch(self._array, shape)
        return result(out, (self, lambda g: Tensor(unbroadcast(g._array, self.shape))))

    def reshape(self, *sizes) -> Tensor:
        """The elements in the same order in another shape; one size may be -1."""
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
        """The axes in the order `dims`."""
        axes = axes_of(several(dims), self.ndim)
        if len(axes) != self.ndim:
            raise RuntimeError(f"permute: {several(dims)} does not order {self.ndim} axes")
        back = tuple(axes.index(i) for i in range(self.ndim))
        return result(self._array.transpose(axes), (self, lambda g: g.permute(back)))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two axes change places."""
        axes = list(range(self.ndim))
        i, j = axis_of(dim0, self.ndim), axis_of(dim1, self.ndim)
        if axes:
            axes[i], axes[j] = axes[j], axes[i]
        return self.permute(axes)

    @property
    def T(self) -> Tensor:
        """All axes in the opposite order."""
        return self.permute(*reversed(range(self.ndim)))

    def squeeze(self, dim=None) -> Tensor:
        """Without the axes of size 1, or without those of them that dim names."""
        axes = () if dim == () else axes_of(dim, self.ndim)
        return self.reshape([s for i, s in enumerate(self.shape) if s != 1 or i not in axes])

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new axis of size 1, which is axis `dim` of the result."""
        at = axis_of(dim, self.ndim + 1)
        return self.reshape((*self.shape[:at], 1, *self.shape[at:]))

    def clone(self) -> Tensor:
        """A copy, with a gradient that flows back."""
        return result(self._array.copy(), (self, lambda g: g))

    def contiguous(self) -> Tensor:
        """The same tensor with its elements in memory in the order of its shape."""
        return self if self._array.flags.c_contiguous else self.clone()

    def __getitem__(self, key) -> Tensor:
        """x[1], x[:, 2:], x[None], x[..., 0], x[bool tensor], x[integer tensor, ...]."""
        key = index(key)
        arrays = [isinstance(part, np.ndarray) for part in key]
        if any(arrays) and any(isinstance(part, int) for part in key):
            first, then = integers_first(key)
            return self[first][then]
        try:
            array = self._array[key]
        except IndexError as error:
            raise IndexError(f"index into shape {self.shape}: {error}") from None

        def pull(g):
            full = np.zeros(self.shape, g.dtype)
            if any(arrays):
                np.add.at(full, key, g._array)  # a place may have been taken more than once
            else:
                full[key] = g._array
            return Tensor(full)

        return result(array, (self, pull))

    def __setitem__(self, key, value) -> None:
        """Write into the buffer; views see it, backward does not."""
        if self.requires_grad and grad_enabled:
            raise RuntimeError("writing into a tensor that requires grad; use no_grad()")
        place = self._array[index(key)]
        self._array[index(key)] = stretch(as_tensor(value, self.dtype)._array, place.shape)

    def split(self, size, dim: int = 0) -> tuple[Tensor, ...]:
        """Pieces of `size` along dim, the last one smaller if need be; or of the sizes given."""
        before, n = (slice(None),) * axis_of(dim, self.ndim), self.shape[dim]
        sizes = [size] * max(-(-n // size), 1) if isinstance(size, int) else size
        starts = itertools.accumulate(sizes, initial=0)
        return tuple(
            self[(*before, slice(a, a + size))] for a, size in zip(starts, sizes, strict=False)
        )

    # 6. Reductions

    @np.errstate(all="ignore")
    def sum(self, dim=None, keepdim=False, *, dtype=None) -> Tensor:
        """Over all elements, or over one axis or several; integers sum to int64."""
        x = self.to(dtype or (self.dtype if self.dtype.kind == "f" else int64))
        axes = axes_of(dim, self.ndim)
        kept = tuple(1 if i in axes else size for i, size in enumerate(self.shape))
        out = x._array.sum(axes, keepdims=keepdim)
        return result(out, (x, lambda g: g.reshape(kept).expand(x.shape)))

    def mean(self, dim=None, keepdim=False, *, dtype=None) -> Tensor:
        """The sum divided by how many there are."""
        x = self.to(dtype or self.dtype)
        if x.dtype.kind != "f":
            raise RuntimeError(f"mean: floats needed, got {x.dtype}; use float()")
        return x.sum(dim, keepdim) / math.prod(x.shape[i] for i in axes_of(dim, x.ndim))

    def var(self, dim=None, unbiased=True, keepdim=False, *, correction=None) -> Tensor:
        """Squared distance from the mean, summed and divided by n - correction (1 unless told)."""
        if self.dtype.kind != "f":
            raise RuntimeError(f"var: floats needed, got {self.dtype}; use float()")
        if isinstance(dim, builtins.bool):
            dim, unbiased = None, dim
        axes = axes_of(dim, self.ndim)
        n = math.prod(self.shape[i] for i in axes)
        far = self - self.mean(axes, keepdim=True)
        fewer = int(unbiased) if correction is None else correction
        return (far * far).sum(axes, keepdim) / max(n - fewer, 0)

    def max(self, dim=None, keepdim=False):
        """The largest element; (values, indices) along dim; elementwise if dim is a tensor."""
        return extreme(self, dim, keepdim, np.maximum, np.argmax)

    def min(self, dim=None, keepdim=False):
        """The smallest element; (values, indices) along dim; elementwise if dim is a tensor."""
        return extreme(self, dim, keepdim, np.minimum, np.argmin)

    def amax(self, dim=None, keepdim=False) -> Tensor:
        """The largest elements over one axis or several; equal ones share the gradient."""
        return largest(self, dim, keepdim, np.maximum)

    def argmax(self, dim=None, keepdim=False) -> Tensor:
        """Where the first largest element is: along dim, or counted through all elements."""
        if dim is not None:
            return self.max(dim, keepdim).indices
        at = self.reshape(-1).max(0).indices
        return at.reshape((1,) * self.ndim) if keepdim else at

    def argmin(self, dim=None, keepdim=False) -> Tensor:
        """Where the first smallest element is."""
        return (~self if self.dtype == bool else -self).argmax(dim, keepdim)

    def softmax(self, dim: int, dtype=None) -> Tensor:
        """exp(x) / sum(exp(x)) along dim."""
        exps = self.to(dtype or self.dtype).shifted(dim).exp()
        return exps / exps.sum(dim, keepdim=True)

    def log_softmax(self, dim: int, dtype=None) -> Tensor:
        """The logarithm of softmax, which does not become -inf where softmax rounds to 0."""
        x = self.to(dtype or self.dtype).shifted(dim)
        return x - x.exp().sum(dim, keepdim=True).log()

    def shifted(self, dim: int) -> Tensor:
        """x minus its largest element along dim: softmax stays the same, exp cannot overflow."""
        return self - self.detach().amax(dim, keepdim=True) if self.numel() else self

    # 7. Matrices

    @np.errstate(all="ignore")
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
            rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
            return (rows @ b).reshape(*a.shape[:-1], b.shape[-1])
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
        return result(
            np.matmul(a._array, b._array),
            (a, lambda g: g @ b.transpose(-2, -1)),
            (b, lambda g: a.transpose(-2, -1) @ g),
        )

    __matmul__ = matmul

    def __rmatmul__(self, other):
        return as_tensor(other, self.dtype) @ self


def index(key) -> tuple:
    """What stands in x[...] as NumPy understands it."""
    parts = []
    for part in key if isinstance(key, tuple) else (key,):
        part = tensor(part) if isinstance(part, list) else part
        if isinstance(part, Tensor):
            if part.dtype.kind == "f":
                raise IndexError(f"an index is made of integers or bools, got {part.dtype}")
            part = int(part) if part.ndim == 0 and part.dtype == int64 else part._array
        parts.append(part)
    return tuple(parts)


def integers_first(key) -> tuple[tuple, tuple]:
    """x[0, :, array] is x[0][:, array], as in PyTorch; NumPy would move the array's axes ahead."""
    first, then = [], []
    for part in key:
        if isinstance(part, np.ndarray):
            first += [slice(None)] * (part.ndim if part.dtype == bool else 1)
            then.append(part)
        else:
            first.append(part)
            if not isinstance(part, int):
                then.append(part if part is Ellipsis else slice(None))
    return tuple(first), tuple(then)


def extreme(x: Tensor, dim, keepdim: bool, ufunc, arg):
    """max and min: of two tensors, of all elements, or along one axis."""
    if isinstance(dim, Tensor):
        out, a, b = elementwise(ufunc, *promote(x, dim))
        share = where(a == b, 0.5, (a == Tensor(out)).to(a.dtype))  # equal ones share the gradient
        return result(out, (a, lambda g: g * share), (b, lambda g: g * (1 - share)))
    if dim is None:
        return largest(x, None, False, ufunc)
    axis, keepdim = axis_of(dim, x.ndim), keepdim and x.ndim > 0
    x = x if x.ndim else x.unsqueeze(0)
    if x.shape[axis] == 0:
        raise IndexError(f"{ufunc.__name__} over the empty axis {dim} of {x.shape}")
    at = arg(x._array, axis, keepdims=True)
    out = np.take_along_axis(x._array, at, axis)
    shape = at.shape if keepdim else x.shape[:axis] + x.shape[axis + 1 :]

    def pull(g):
        full = np.zeros(x.shape, g.dtype)
        np.put_along_axis(full, at, g._array.reshape(at.shape), axis)
        return Tensor(full)

    return Extreme(result(out.reshape(shape), (x, pull)), Tensor(at.reshape(shape)))


def largest(x: Tensor, dim, keepdim: bool, ufunc) -> Tensor:
    """The largest elements (smallest, with np.minimum) over the axes of dim."""
    axes = axes_of(dim, x.ndim)
    if any(x.shape[i] == 0 for i in axes):
        kind = RuntimeError if dim is None else IndexError
        raise kind(f"{ufunc.__name__} of no elements, shape {x.shape}, over dim {dim}")
    kept = np.asarray(ufunc.reduce(x._array, axes, keepdims=True))

    def pull(g):
        ties = (x.detach() == Tensor(kept)).to(g.dtype)
        return g.reshape(kept.shape) * (ties / ties.sum(axes, keepdim=True))

    return result(kept if keepdim else kept.squeeze(axes), (x, pull))


# 8. Functions of several tensors


def where(condition: Tensor, a, b) -> Tensor:
    """a where the condition is True, b elsewhere; the three broadcast together."""
    if condition.dtype != bool:
        raise RuntimeError(f"where and masked_fill need a bool mask, got {condition.dtype}")
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = tensor(a)
    out, mask, a, b = elementwise(np.where, condition, *promote(a, b))
    return result(out, (a, lambda g: where(mask, g, 0.0)), (b, lambda g: where(mask, 0.0, g)))


def tril(x: Tensor, diagonal=0) -> Tensor:
    """x with zeros above the diagonal of its last two axes."""
    return where(corner(x, diagonal), x, tensor(0, x.dtype))


def triu(x: Tensor, diagonal=0) -> Tensor:
    """x with zeros below the diagonal of its last two axes."""
    return where(corner(x, diagonal - 1), tensor(0, x.dtype), x)


def corner(x: Tensor, diagonal: int) -> Tensor:
    """True on the diagonal and below it, for the last two axes of x."""
    if x.ndim < 2:
        raise RuntimeError(f"tril and triu need two axes, got shape {x.shape}")
    return Tensor(np.tri(*x.shape[-2:], diagonal, dtype=bool))


def cat(tensors, dim=0) -> Tensor:
    """Join along an existing axis; all other sizes are equal."""
    dtype = max((x.dtype for x in tensors), key=RANK.index)
    tensors = [x.to(dtype) for x in tensors if x.shape != (0,)] or [tensors[0].to(dtype)]
    axis, shapes = axis_of(dim, tensors[0].ndim), [x.shape for x in tensors]
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1 or () in shapes:
        raise RuntimeError(f"cat along dim {dim}: the other sizes differ in {shapes}")
    before, start, edges = (slice(None),) * axis, 0, []
    for x in tensors:
        part = (*before, slice(start, start + x.shape[axis]))
        edges.append((x, lambda g, part=part: g[part]))
        start += x.shape[axis]
    return result(np.concatenate([x._array for x in tensors], axis), *edges)


def stack(tensors, dim=0) -> Tensor:
    """Join along a new axis; all shapes are equal."""
    if len({x.shape for x in tensors}) > 1:
        raise RuntimeError(f"stack: one shape needed, got {[x.shape for x in tensors]}")
    return cat([x.unsqueeze(dim) for x in tensors], dim)
