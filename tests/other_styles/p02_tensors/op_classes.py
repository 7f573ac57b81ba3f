"""Operation classes: each a forward and a backward, as in torch.autograd.Function."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided


class no_grad:
    depth = 0

    def __enter__(self):
        no_grad.depth += 1

    def __exit__(self, *exc):
        no_grad.depth -= 1
        return False


# ---- shapes -------------------------------------------------------------------------------------


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    width = max(map(len, shapes), default=0)
    padded = [(1,) * (width - len(s)) + tuple(s) for s in shapes]
    result = []
    for column in zip(*padded):
        wide = [n for n in column if n != 1]
        if any(n != wide[0] for n in wide):
            raise RuntimeError(f"cannot broadcast {' and '.join(map(str, shapes))}")
        result.append(wide[0] if wide else 1)
    return tuple(result)


def broadcast_to(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A view in which a dimension of size 1 is walked with stride 0."""
    new = len(shape) - array.ndim
    strides = [0] * new
    for size, stride, wanted in zip(array.shape, array.strides, shape[new:]):
        strides.append(0 if size == 1 and wanted != 1 else stride)
    return as_strided(array, shape, strides)


def unbroadcast(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    while array.ndim > len(shape):
        array = array.sum(axis=0)
    axes = tuple(i for i, n in enumerate(shape) if n == 1)
    return array.sum(axis=axes, keepdims=True) if axes else array


# ---- operations ---------------------------------------------------------------------------------


class Operation:
    inputs: tuple[Tensor, ...]

    @classmethod
    def apply(cls, *inputs, **options) -> Tensor:
        op = cls()
        op.options = options
        with np.errstate(all="ignore"):
            out = Tensor(np.asarray(op.forward(*[t.array for t in inputs], **options)))
        if no_grad.depth == 0 and any(t.requires_grad for t in inputs):
            op.inputs = inputs
            out.requires_grad = True
            out.creator = op
        return out


class Expand(Operation):
    def forward(self, x, shape):
        self.shape = x.shape
        return broadcast_to(x, shape)

    def backward(self, g):
        return (unbroadcast(g, self.shape),)


class Cast(Operation):
    def forward(self, x, dtype):
        self.dtype = x.dtype
        return x.astype(dtype)

    def backward(self, g):
        return (g.astype(self.dtype),)


class Add(Operation):
    def forward(self, x, y):
        return x + y

    def backward(self, g):
        return g, g


class Sub(Operation):
    def forward(self, x, y):
        return x - y

    def backward(self, g):
        return g, -g


class Mul(Operation):
    def forward(self, x, y):
        self.x, self.y = x, y
        return x * y

    def backward(self, g):
        return g * self.y, g * self.x


class Div(Operation):
    def forward(self, x, y):
        self.y = y
        self.out = x / y
        return self.out

    def backward(self, g):
        return g / self.y, -g * self.out / self.y


class Pow(Operation):
    def forward(self, x, y):
        self.x, self.y, self.out = x, y, x**y
        return self.out

    def backward(self, g):
        x, y = self.x, self.y
        to_x = np.where(y == 0, 0.0, y * x ** np.where(y == 0, 1.0, y - 1))
        to_y = self.out * np.log(np.where(x == 0, 1.0, x))
        return g * to_x, g * to_y


class Neg(Operation):
    def forward(self, x):
        return -x

    def backward(self, g):
        return (-g,)


class Exp(Operation):
    def forward(self, x):
        self.out = np.exp(x)
        return self.out

    def backward(self, g):
        return (g * self.out,)


class Log(Operation):
    def forward(self, x):
        self.x = x
        return np.log(x)

    def backward(self, g):
        return (g / self.x,)


class Tanh(Operation):
    def forward(self, x):
        self.out = np.tanh(x)
        return self.out

    def backward(self, g):
        return (g * (1 - self.out**2),)


class ReLU(Operation):
    def forward(self, x):
        self.on = x > 0
        return x * self.on

    def backward(self, g):
        return (g * self.on,)


class Sqrt(Operation):
    def forward(self, x):
        self.out = np.sqrt(x)
        return self.out

    def backward(self, g):
        return (0.5 * g / self.out,)


class Sum(Operation):
    def forward(self, x, axes, keepdim):
        self.before = x.shape
        self.kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        return x.sum(axis=axes, keepdims=keepdim)

    def backward(self, g):
        return (broadcast_to(g.reshape(self.kept), self.before),)


class Reshape(Operation):
    def forward(self, x, shape):
        self.before = x.shape
        return x.reshape(shape)

    def backward(self, g):
        return (g.reshape(self.before),)


class Permute(Operation):
    def forward(self, x, dims):
        self.dims = dims
        return np.transpose(x, dims)

    def backward(self, g):
        return (np.transpose(g, np.argsort(self.dims)),)


class MatMul(Operation):
    def forward(self, x, y):
        self.x, self.y = x, y
        return np.matmul(x, y)

    def backward(self, g):
        to_x = np.matmul(g, np.swapaxes(self.y, -1, -2))
        to_y = np.matmul(np.swapaxes(self.x, -1, -2), g)
        return to_x, to_y


class Index(Operation):
    def forward(self, x, key):
        self.before, self.dtype, self.key = x.shape, x.dtype, key
        return x[key]

    def backward(self, g):
        grad = np.zeros(self.before, self.dtype)
        np.add.at(grad, self.key, g)
        return (grad,)


class Where(Operation):
    def forward(self, x, y, condition):
        self.condition = condition
        return np.where(condition, x, y)

    def backward(self, g):
        nothing = np.zeros_like(g)
        return np.where(self.condition, g, nothing), np.where(self.condition, nothing, g)


class Cat(Operation):
    def forward(self, *arrays, dim):
        self.dim, self.sizes = dim, [a.shape[dim] for a in arrays]
        return np.concatenate(arrays, axis=dim)

    def backward(self, g):
        return tuple(np.split(g, np.cumsum(self.sizes[:-1]), axis=self.dim))


class LogSoftmax(Operation):
    def forward(self, x, dim):
        self.dim = dim
        top = broadcast_to(x.max(axis=dim, keepdims=True), x.shape)
        total = np.exp(x - top).sum(axis=dim, keepdims=True)
        self.out = x - top - broadcast_to(np.log(total), x.shape)
        return self.out

    def backward(self, g):
        total = broadcast_to(g.sum(axis=self.dim, keepdims=True), g.shape)
        return (g - np.exp(self.out) * total,)


class Softmax(Operation):
    def forward(self, x, dim):
        self.dim = dim
        top = broadcast_to(x.max(axis=dim, keepdims=True), x.shape)
        powers = np.exp(x - top)
        self.out = powers / broadcast_to(powers.sum(axis=dim, keepdims=True), x.shape)
        return self.out

    def backward(self, g):
        mean = broadcast_to((g * self.out).sum(axis=self.dim, keepdims=True), g.shape)
        return ((g - mean) * self.out,)


# ---- the tensor ---------------------------------------------------------------------------------


def lift(value, near: Tensor) -> Tensor:
    """A Python number as a tensor of its neighbour's kind."""
    if isinstance(value, Tensor):
        return value
    value = np.asarray(value)
    if near.array.dtype.kind == "f":
        return Tensor(value.astype(near.array.dtype))
    return Tensor(value.astype(np.float32)) if value.dtype.kind == "f" else Tensor(value)


def align(x, y) -> tuple[Tensor, Tensor]:
    if not isinstance(x, Tensor):
        x = lift(x, y)
    y = lift(y, x)
    kinds = {x.dtype, y.dtype}
    if len(kinds) > 1:
        floats = {d for d in kinds if d.kind == "f"}
        dtype = np.result_type(*(floats or kinds))
        x, y = (t if t.dtype == dtype else Cast.apply(t, dtype=dtype) for t in (x, y))
    shape = broadcast_shapes(x.shape, y.shape)
    x, y = (t if t.shape == shape else Expand.apply(t, shape=shape) for t in (x, y))
    return x, y


def spread(args):
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else tuple(args)


class Tensor:
    __array_ufunc__ = None
    __slots__ = ("array", "creator", "grad", "requires_grad")
    __hash__ = object.__hash__

    def __init__(self, array, requires_grad=False):
        if requires_grad and array.dtype.kind != "f":
            raise TypeError("gradients are for floating-point tensors")
        self.array = array
        self.requires_grad = requires_grad
        self.grad = None
        self.creator = None

    @property
    def shape(self):
        return self.array.shape

    @property
    def ndim(self):
        return self.array.ndim

    @property
    def dtype(self):
        return self.array.dtype

    def __repr__(self):
        return f"Tensor({self.array!r}, requires_grad={self.requires_grad})"

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __bool__(self):
        return bool(self.array.item())

    def __float__(self):
        return float(self.array.item())

    def numpy(self):
        if self.requires_grad:
            raise RuntimeError("this tensor requires grad: use x.detach().numpy()")
        return self.array

    def item(self):
        return self.array.item()

    def tolist(self):
        return self.array.tolist()

    def detach(self):
        return Tensor(self.array)

    def backward(self, gradient=None):
        if not self.requires_grad:
            raise RuntimeError("nothing here requires a gradient")
        if gradient is None and self.array.size > 1:
            raise RuntimeError("a gradient is needed: this is not a scalar")
        first = np.ones_like(self.array) if gradient is None else gradient.array
        gradients = {id(self): first}
        for node in reversed(self._history()):
            g = gradients.pop(id(node))
            if node.creator is None:
                node.grad = Tensor(g.copy() if node.grad is None else node.grad.array + g)
                continue
            with np.errstate(all="ignore"):
                parts = node.creator.backward(g)
            for parent, part in zip(node.creator.inputs, parts):
                if parent.requires_grad:
                    known = gradients.get(id(parent))
                    gradients[id(parent)] = part if known is None else known + part

    def _history(self):
        order, visited = [], {id(self)}
        walk = [(self, iter(self.creator.inputs if self.creator else ()))]
        while walk:
            node, rest = walk[-1]
            for parent in rest:
                if parent.requires_grad and id(parent) not in visited:
                    visited.add(id(parent))
                    walk.append((parent, iter(parent.creator.inputs if parent.creator else ())))
                    break
            else:
                order.append(node)
                walk.pop()
        return order

    def __add__(self, other):
        return Add.apply(*align(self, other))

    def __radd__(self, other):
        return Add.apply(*align(other, self))

    def __sub__(self, other):
        return Sub.apply(*align(self, other))

    def __rsub__(self, other):
        return Sub.apply(*align(other, self))

    def __mul__(self, other):
        return Mul.apply(*align(self, other))

    def __rmul__(self, other):
        return Mul.apply(*align(other, self))

    def __truediv__(self, other):
        x, y = align(self, other)
        if x.dtype.kind != "f":
            x, y = Cast.apply(x, dtype=np.float32), Cast.apply(y, dtype=np.float32)
        return Div.apply(x, y)

    def __rtruediv__(self, other):
        return lift(other, self) / self

    def __pow__(self, other):
        return Pow.apply(*align(self, other))

    def __rpow__(self, other):
        return Pow.apply(*align(other, self))

    def __neg__(self):
        return Neg.apply(self)

    def __eq__(self, other):
        x, y = align(self, other)
        return Tensor(np.asarray(x.array == y.array))

    def __ne__(self, other):
        x, y = align(self, other)
        return Tensor(np.asarray(x.array != y.array))

    def __lt__(self, other):
        x, y = align(self, other)
        return Tensor(np.asarray(x.array < y.array))

    def __le__(self, other):
        x, y = align(self, other)
        return Tensor(np.asarray(x.array <= y.array))

    def __gt__(self, other):
        x, y = align(self, other)
        return Tensor(np.asarray(x.array > y.array))

    def __ge__(self, other):
        x, y = align(self, other)
        return Tensor(np.asarray(x.array >= y.array))

    def exp(self):
        return Exp.apply(self)

    def log(self):
        return Log.apply(self)

    def tanh(self):
        return Tanh.apply(self)

    def relu(self):
        return ReLU.apply(self)

    def sqrt(self):
        return Sqrt.apply(self)

    def sum(self, dim=None, keepdim=False):
        dims = range(self.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
        axes = tuple(d + self.ndim if d < 0 else d for d in dims)
        return Sum.apply(self, axes=axes, keepdim=keepdim)

    def mean(self, dim=None, keepdim=False):
        total = self.sum(dim, keepdim)
        return total / (self.array.size // max(1, total.array.size))

    def max(self, dim=None, keepdim=False):
        if dim is None:
            flat = self.reshape(-1)
            places = np.flatnonzero(flat.array == flat.array.max())  # equal ones share the gradient
            return Index.apply(flat, key=(places,)).sum() / len(places)
        dim %= self.ndim
        at = self.array.argmax(axis=dim)
        grid = np.indices(at.shape)
        key = (*grid[:dim], at, *grid[dim:])
        values, at = Index.apply(self, key=key), Tensor(at)
        if keepdim:
            kept = (*self.shape[:dim], 1, *self.shape[dim + 1 :])
            return values.reshape(kept), at.reshape(kept)
        return values, at

    def reshape(self, *shape):
        return Reshape.apply(self, shape=spread(shape))

    def permute(self, *dims):
        return Permute.apply(self, dims=tuple(d % self.ndim for d in spread(dims)))

    def transpose(self, dim0, dim1):
        dims = list(range(self.ndim))
        dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
        return Permute.apply(self, dims=tuple(dims))

    def expand(self, *shape):
        shape = spread(shape)
        new = len(shape) - self.ndim
        if new < 0:
            raise RuntimeError(f"expand to {shape}: fewer dimensions than {self.shape}")
        wanted = tuple(
            self.shape[i - new] if n == -1 and i >= new else n for i, n in enumerate(shape)
        )
        for have, want in zip(self.shape, wanted[new:]):
            if have not in (1, want):
                raise RuntimeError(f"{self.shape} cannot be expanded to {wanted}")
        return Expand.apply(self, shape=wanted)

    def masked_fill(self, mask, value):
        return where(mask, value, self)

    def softmax(self, dim):
        return Softmax.apply(self, dim=dim)

    def log_softmax(self, dim):
        return LogSoftmax.apply(self, dim=dim)

    def matmul(self, other):
        x = self.reshape(1, -1) if self.ndim == 1 else self
        y = other.reshape(-1, 1) if other.ndim == 1 else other
        if x.ndim == 0 or y.ndim == 0 or x.shape[-1] != y.shape[-2]:
            raise RuntimeError(f"matmul: shapes {self.shape} and {other.shape} do not fit")
        batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
        z = MatMul.apply(
            Expand.apply(x, shape=batch + x.shape[-2:]), Expand.apply(y, shape=batch + y.shape[-2:])
        )
        shape = list(z.shape)
        if other.ndim == 1:
            shape.pop(-1)
        if self.ndim == 1:
            shape.pop(len(batch))
        return z.reshape(shape) if len(shape) < z.ndim else z

    def __matmul__(self, other):
        return self.matmul(other)

    def __rmatmul__(self, other):
        return tensor(other).matmul(self)

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        return Index.apply(self, key=tuple(k.array if isinstance(k, Tensor) else k for k in key))


# ---- making tensors -----------------------------------------------------------------------------


def tensor(data, dtype=None, requires_grad=False):
    if isinstance(data, Tensor):
        data = data.array
    if dtype is None and not isinstance(data, np.ndarray):
        dtype = np.asarray(data).dtype
        dtype = np.float32 if dtype.kind == "f" else dtype
    return Tensor(np.array(data, dtype=dtype), requires_grad)


def zeros(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(np.zeros(spread(shape), dtype), requires_grad)


def ones(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(np.ones(spread(shape), dtype), requires_grad)


def arange(start, end=None, step=1, dtype=None, requires_grad=False):
    if end is None:
        start, end = 0, start
    array = np.arange(start, end, step)
    default = np.float32 if array.dtype.kind == "f" else np.int64
    return Tensor(array.astype(dtype or default), requires_grad)


def randn(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(np.array(np.random.standard_normal(spread(shape)), dtype), requires_grad)


def cat(tensors, dim=0):
    return Cat.apply(*tensors, dim=dim)


def where(condition, x, y):
    if not isinstance(x, Tensor) and not isinstance(y, Tensor):
        x = tensor(x)
    x, y = align(x, y)
    shape = broadcast_shapes(condition.shape, x.shape)
    x, y = Expand.apply(x, shape=shape), Expand.apply(y, shape=shape)
    return Where.apply(x, y, condition=broadcast_to(condition.array, shape))
