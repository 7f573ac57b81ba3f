"""A table of vector-Jacobian products keyed by operation name; a node stores the name."""

import contextlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

float32 = np.dtype("float32")
float64 = np.dtype("float64")
int64 = np.dtype("int64")

settings = {"grad": True}


@contextlib.contextmanager
def no_grad():
    old = settings["grad"]
    settings["grad"] = False
    try:
        yield
    finally:
        settings["grad"] = old


def broadcast_shapes(*shapes):
    out = []
    for shape in shapes:
        shape = list(shape)
        short = min(len(out), len(shape))
        out = shape[: len(shape) - short] + out if len(shape) > len(out) else out
        for i in range(-1, -short - 1, -1):
            if out[i] == 1:
                out[i] = shape[i]
            elif shape[i] not in (1, out[i]):
                raise ValueError(f"shape {tuple(shape)} does not broadcast with {tuple(out)}")
    return tuple(out)


def spread(a, shape):
    """`a` with its dimensions of size 1 repeated up to `shape`."""
    return np.broadcast_to(a, shape)


def unbroadcast(array, shape):
    lead = array.ndim - len(shape)
    summed = [i for i in range(array.ndim) if i < lead or shape[i - lead] == 1]
    return np.asarray(array.sum(axis=tuple(summed))).reshape(shape)


def keep(a, f, dim):
    return spread(f(a, axis=dim, keepdims=True), a.shape)


def softmax_array(a, dim):
    e = np.exp(a - keep(a, np.max, dim))
    return e / keep(e, np.sum, dim)


def log_softmax_array(a, dim):
    a = a - keep(a, np.max, dim)
    return a - np.log(keep(np.exp(a), np.sum, dim))


def scatter(g, x, index):
    z = np.zeros_like(x)
    np.add.at(z, index, g)
    return z


def undo_sum(g, x, dim, keepdim):
    if dim is not None and not keepdim:
        g = np.expand_dims(g, dim)
    return spread(g.reshape((1,) * x.ndim) if dim is None else g, x.shape)


def power_rule(g, out, x, y):
    with np.errstate(all="ignore"):
        dx = np.where(y == 0, np.zeros_like(x), y * np.power(x, y - 1))
        dy = np.where(x == 0, np.zeros_like(x), out * np.log(x))
    return g * dx, g * dy


FORWARD = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
    "matmul": lambda x, y: x @ y,
    "neg": lambda x: -x,
    "exp": lambda x: np.exp(x),
    "log": lambda x: np.log(x),
    "tanh": lambda x: np.tanh(x),
    "relu": lambda x: np.where(x < 0, np.zeros_like(x), x),
    "sqrt": lambda x: np.sqrt(x),
    "sum": lambda x, dim, keepdim: x.sum(axis=dim, keepdims=keepdim),
    "reshape": lambda x, shape: x.reshape(shape),
    "permute": lambda x, dims: x.transpose(dims),
    "expand": lambda x, shape: spread(x, shape),
    "cast": lambda x, dtype: x.astype(dtype),
    "index": lambda x, index: x[index],
    "where": lambda x, y, condition: np.where(condition, x, y),
    "cat": lambda *xs, dim: np.concatenate(xs, axis=dim),
    "softmax": softmax_array,
    "log_softmax": log_softmax_array,
}

# name -> function of the output's gradient, the output, the inputs and the options
VJP = {
    "add": lambda g, out, x, y: (g, g),
    "sub": lambda g, out, x, y: (g, -g),
    "mul": lambda g, out, x, y: (g * y, g * x),
    "div": lambda g, out, x, y: (g / y, -g * out / y),
    "pow": power_rule,
    "matmul": lambda g, out, x, y: (g @ y.swapaxes(-1, -2), x.swapaxes(-1, -2) @ g),
    "neg": lambda g, out, x: (-g,),
    "exp": lambda g, out, x: (g * out,),
    "log": lambda g, out, x: (g / x,),
    "tanh": lambda g, out, x: (g - g * out * out,),
    "relu": lambda g, out, x: (np.where(x > 0, g, np.zeros_like(g)),),
    "sqrt": lambda g, out, x: (g / (out + out),),
    "sum": lambda g, out, x, dim, keepdim: (undo_sum(g, x, dim, keepdim),),
    "reshape": lambda g, out, x, shape: (g.reshape(x.shape),),
    "permute": lambda g, out, x, dims: (g.transpose(np.argsort(dims)),),
    "expand": lambda g, out, x, shape: (unbroadcast(g, x.shape),),
    "cast": lambda g, out, x, dtype: (g.astype(x.dtype),),
    "index": lambda g, out, x, index: (scatter(g, x, index),),
    "where": lambda g, out, x, y, condition: (
        np.where(condition, g, np.zeros_like(g)),
        np.where(condition, np.zeros_like(g), g),
    ),
    "cat": lambda g, out, *xs, dim: np.split(
        g, np.cumsum([x.shape[dim] for x in xs])[:-1], axis=dim
    ),
    "softmax": lambda g, out, x, dim: (out * (g - keep(g * out, np.sum, dim)),),
    "log_softmax": lambda g, out, x, dim: (g - np.exp(out) * keep(g, np.sum, dim),),
}


class ValuesAndIndices(NamedTuple):
    values: Any
    indices: Any


@dataclass(eq=False)
class Tensor:
    value: np.ndarray
    requires_grad: bool = False
    op: str = ""
    inputs: tuple = ()
    options: dict = field(default_factory=dict)
    grad: Any = None

    __array_ufunc__ = None

    def __post_init__(self):
        if self.requires_grad and self.value.dtype.kind != "f":
            raise ValueError(f"a tensor of {self.value.dtype} has no gradient")

    @property
    def shape(self):
        return self.value.shape

    @property
    def ndim(self):
        return len(self.value.shape)

    @property
    def dtype(self):
        return self.value.dtype

    def __len__(self):
        return len(self.value)

    def __bool__(self):
        return bool(self.item())

    def numpy(self):
        return self.value

    def item(self):
        if self.value.size != 1:
            raise ValueError(f"item() of a tensor of shape {self.shape}")
        return self.value.item()

    def tolist(self):
        return self.value.tolist()

    def detach(self):
        return Tensor(self.value)

    # ---- operators

    def __add__(self, other):
        return binary("add", self, other)

    def __radd__(self, other):
        return binary("add", other, self)

    def __sub__(self, other):
        return binary("sub", self, other)

    def __rsub__(self, other):
        return binary("sub", other, self)

    def __mul__(self, other):
        return binary("mul", self, other)

    def __rmul__(self, other):
        return binary("mul", other, self)

    def __truediv__(self, other):
        return binary("div", self, other)

    def __rtruediv__(self, other):
        return binary("div", other, self)

    def __pow__(self, other):
        return binary("pow", self, other)

    def __rpow__(self, other):
        return binary("pow", other, self)

    def __neg__(self):
        return apply("neg", self)

    def __eq__(self, other):
        return compare(np.equal, self, other)

    def __ne__(self, other):
        return compare(np.not_equal, self, other)

    def __lt__(self, other):
        return compare(np.less, self, other)

    def __le__(self, other):
        return compare(np.less_equal, self, other)

    def __gt__(self, other):
        return compare(np.greater, self, other)

    def __ge__(self, other):
        return compare(np.greater_equal, self, other)

    __hash__ = object.__hash__

    def exp(self):
        return apply("exp", self)

    def log(self):
        return apply("log", self)

    def tanh(self):
        return apply("tanh", self)

    def relu(self):
        return apply("relu", self)

    def sqrt(self):
        return apply("sqrt", self)

    def softmax(self, dim):
        return apply("softmax", self, dim=dim)

    def log_softmax(self, dim):
        return apply("log_softmax", self, dim=dim)

    def sum(self, dim=None, keepdim=False):
        return apply("sum", self, dim=dim, keepdim=keepdim)

    def mean(self, dim=None, keepdim=False):
        dims = range(self.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
        count = 1
        for d in dims:
            count *= self.shape[d]
        return self.sum(dim, keepdim) / count

    def max(self, dim=None, keepdim=False):
        if dim is None:
            return self.reshape(self.value.size).max(0).values
        dim = dim % self.ndim
        where_ = self.value.argmax(axis=dim)
        kept = [1 if i == dim else n for i, n in enumerate(self.shape)]
        index = list(np.indices(kept))
        index[dim] = where_.reshape(kept)
        values = apply("index", self, index=tuple(index))
        indices = Tensor(where_.reshape(kept))
        if not keepdim:
            values, indices = values.reshape(where_.shape), indices.reshape(where_.shape)
        return ValuesAndIndices(values, indices)

    def reshape(self, *shape):
        return apply("reshape", self, shape=shape[0] if type(shape[0]) in (list, tuple) else shape)

    def permute(self, *dims):
        dims = dims[0] if type(dims[0]) in (list, tuple) else dims
        return apply("permute", self, dims=[d % self.ndim for d in dims])

    def transpose(self, a, b):
        dims = list(range(self.ndim))
        dims[a] = b % self.ndim
        dims[b] = a % self.ndim
        return self.permute(dims)

    def expand(self, *shape):
        shape = tuple(shape[0] if type(shape[0]) in (list, tuple) else shape)
        own = (None,) * (len(shape) - self.ndim) + self.shape
        shape = tuple(o if n == -1 else n for n, o in zip(shape, own))
        return apply("expand", self, shape=shape)

    def masked_fill(self, mask, value):
        return where(mask, value, self)

    def matmul(self, other):
        if not self.ndim or not other.ndim:
            raise ValueError("matmul of a number")
        if self.ndim == 1:
            out = self.reshape(1, len(self)).matmul(other)
            return out[0] if other.ndim == 1 else out.reshape(out.shape[:-2] + out.shape[-1:])
        if other.ndim == 1:
            out = self.matmul(other.reshape(len(other), 1))
            return out.reshape(out.shape[:-1])
        if self.shape[-1] != other.shape[-2]:
            raise ValueError(f"shapes {self.shape} and {other.shape} cannot be multiplied")
        batch = broadcast_shapes(self.shape[:-2], other.shape[:-2])
        x = self.expand(batch + self.shape[-2:])
        y = other.expand(batch + other.shape[-2:])
        return apply("matmul", x, y)

    __matmul__ = matmul

    def __rmatmul__(self, other):
        return tensor(other).matmul(self)

    def __getitem__(self, index):
        if isinstance(index, tuple):
            index = tuple(i.value if isinstance(i, Tensor) else i for i in index)
        elif isinstance(index, Tensor):
            index = index.value
        return apply("index", self, index=index)

    def backward(self, gradient=None):
        if not self.requires_grad:
            raise RuntimeError("backward() from a tensor without history")
        if gradient is None and self.shape != () and self.value.size != 1:
            raise RuntimeError("backward() without a gradient is for scalars")
        seed = np.ones_like(self.value) if gradient is None else gradient.value
        adjoint = {self: seed}
        for node in reversed(ancestors(self)):
            g = adjoint.pop(node)
            if not node.op:
                node.grad = Tensor(np.array(g) if node.grad is None else node.grad.value + g)
                continue
            rule = VJP[node.op]
            arrays = [i.value for i in node.inputs]
            for parent, part in zip(node.inputs, rule(g, node.value, *arrays, **node.options)):
                if parent.requires_grad:
                    adjoint[parent] = adjoint[parent] + part if parent in adjoint else part


def ancestors(root):
    """What `root` was computed from, inputs first, by counting how often each is used."""
    uses, stack, found = {root: 0}, [root], [root]
    while stack:
        for parent in stack.pop().inputs:
            if not parent.requires_grad:
                continue
            if parent not in uses:
                uses[parent] = 0
                stack.append(parent)
                found.append(parent)
            uses[parent] += 1
    order, ready = [], [root]
    while ready:
        node = ready.pop()
        order.append(node)
        for parent in node.inputs:
            if parent.requires_grad:
                uses[parent] -= 1
                if uses[parent] == 0:
                    ready.append(parent)
    return order[::-1]


def apply(op, *inputs, **options):
    with np.errstate(all="ignore"):
        value = np.asarray(FORWARD[op](*[i.value for i in inputs], **options))
    if settings["grad"] and any(i.requires_grad for i in inputs):
        return Tensor(value, True, op, inputs, options)
    return Tensor(value)


def binary(op, x, y):
    x, y = prepare(x, y)
    if op == "div" and x.dtype.kind != "f":
        x, y = apply("cast", x, dtype=float32), apply("cast", y, dtype=float32)
    return apply(op, x, y)


def compare(ufunc, x, y):
    x, y = prepare(x, y)
    return Tensor(np.asarray(ufunc(x.value, y.value)))


def prepare(x, y):
    """Both as tensors of one dtype and one shape."""
    dtypes = [t.dtype for t in (x, y) if isinstance(t, Tensor)]
    numbers = [np.asarray(t) for t in (x, y) if not isinstance(t, Tensor)]
    floats = [d for d in dtypes if d.kind == "f"]
    if floats:
        dtype = max(floats, key=lambda d: d.itemsize)
    elif any(n.dtype.kind == "f" for n in numbers):
        dtype = float32
    else:
        dtype = np.result_type(*dtypes, *[n.dtype for n in numbers])
    x, y = (t if isinstance(t, Tensor) else Tensor(np.asarray(t)) for t in (x, y))
    x, y = (t if t.dtype == dtype else apply("cast", t, dtype=dtype) for t in (x, y))
    shape = broadcast_shapes(x.shape, y.shape)
    return [t if t.shape == shape else apply("expand", t, shape=shape) for t in (x, y)]


def tensor(data, dtype=None, requires_grad=False):
    array = np.array(data.value if isinstance(data, Tensor) else data)
    if dtype is None:
        plain = not isinstance(data, (np.ndarray, Tensor))
        dtype = float32 if plain and array.dtype == float64 else array.dtype
    return Tensor(array.astype(dtype), requires_grad)


def _filled(fill):
    def make(*shape, dtype=float32, requires_grad=False):
        shape = shape[0] if shape and type(shape[0]) in (list, tuple) else shape
        return Tensor(np.asarray(fill(tuple(shape))).astype(dtype), requires_grad)

    return make


zeros = _filled(np.zeros)
ones = _filled(np.ones)
randn = _filled(lambda shape: np.random.normal(size=shape))


def arange(*args, dtype=None, requires_grad=False):
    array = np.arange(*args)
    if dtype is None:
        dtype = float32 if array.dtype.kind == "f" else int64
    return Tensor(array.astype(dtype), requires_grad)


def cat(tensors, dim=0):
    return apply("cat", *tensors, dim=dim)


def where(condition, x, y):
    if not isinstance(x, Tensor) and not isinstance(y, Tensor):
        y = tensor(y)
    x, y = prepare(x, y)
    shape = broadcast_shapes(condition.shape, x.shape)
    options = {"condition": spread(condition.value, shape)}
    return apply("where", x.expand(shape), y.expand(shape), **options)
