"""Serial numbers: a node keeps its edges with their pullbacks; backward takes the newest first."""

import heapq
import itertools
from contextlib import contextmanager

import numpy as np

_serial = itertools.count()
_enabled = [True]
_rng = np.random.default_rng()


@contextmanager
def no_grad():
    _enabled.append(False)
    try:
        yield
    finally:
        _enabled.pop()


def broadcast_shapes(*shapes):
    result = ()
    for shape in shapes:
        pairs = itertools.zip_longest(reversed(result), reversed(shape), fillvalue=1)
        merged = []
        for a, b in pairs:
            if a != b and 1 not in (a, b):
                raise ValueError(f"cannot broadcast {shapes}: {a} against {b}")
            merged.append(b if a == 1 else a)
        result = tuple(merged[::-1])
    return result


def _widen(array, shape):
    shape = tuple(shape)
    if array.shape == shape:
        return array
    wide = np.empty(shape, array.dtype)
    wide[...] = array  # an assignment repeats what it is given
    return wide


def unbroadcast(array, shape):
    lead = array.ndim - len(shape)
    for _ in range(lead):
        array = np.add.reduce(array, axis=0)
    for axis, n in enumerate(shape):
        if n == 1 and array.shape[axis] != 1:
            array = np.add.reduce(array, axis=axis, keepdims=True)
    return np.asarray(array)


def _shape(args):
    if len(args) == 1 and not isinstance(args[0], int):
        return tuple(args[0])
    return tuple(args)


def _best_dtype(*dtypes):
    order = ["bool", "int64", "float32", "float64"]
    ranks = [order.index(np.dtype(d).name) for d in dtypes]
    return np.dtype(order[max(ranks)])


class Tensor:
    """An array, and where it came from: a list of (tensor, pullback)."""

    __array_priority__ = 1000
    __array_ufunc__ = None

    def __init__(self, array, edges=(), requires_grad=False):
        self._array = np.asarray(array)
        self._edges = []
        if _enabled[-1]:
            self._edges = [(t, pull) for t, pull in edges if t.requires_grad]
        self.requires_grad = requires_grad or bool(self._edges)
        if self.requires_grad and not np.issubdtype(self._array.dtype, np.floating):
            raise RuntimeError(f"{self._array.dtype} tensors cannot require gradients")
        self.grad = None
        self._number = next(_serial)

    @property
    def shape(self):
        return self._array.shape

    @property
    def ndim(self):
        return self._array.ndim

    @property
    def dtype(self):
        return self._array.dtype

    def __repr__(self):
        return "tensor(" + np.array2string(self._array, precision=4, separator=", ") + ")"

    def __len__(self):
        return len(self._array)

    def __bool__(self):
        return bool(self._array)

    def __hash__(self):
        return id(self)

    def item(self):
        return self._array.item()

    def tolist(self):
        return self._array.tolist()

    def numpy(self):
        return self._array

    def detach(self):
        return Tensor(self._array)

    def backward(self, gradient=None):
        if not self.requires_grad:
            raise RuntimeError("no tensor in this expression requires a gradient")
        if gradient is None:
            if self._array.size != 1:
                raise RuntimeError("only a scalar has an implied gradient of one")
            gradient = ones(*self.shape, dtype=self.dtype)
        # A child is always younger than its parents, so the highest number is complete.
        totals = {self._number: gradient._array}
        queue, waiting = [-self._number], {self._number: self}
        while queue:
            number = -heapq.heappop(queue)
            node, g = waiting.pop(number), totals.pop(number)
            if not node._edges:
                old = 0 if node.grad is None else node.grad._array
                node.grad = Tensor(np.asarray(old + g).astype(node.dtype))
            for parent, pull in node._edges:
                part = pull(g)
                assert part.shape == parent.shape, (part.shape, parent.shape)
                if parent._number in waiting:
                    totals[parent._number] = totals[parent._number] + part
                else:
                    totals[parent._number] = part
                    waiting[parent._number] = parent
                    heapq.heappush(queue, -parent._number)

    # -- arithmetic

    def _with(self, other):
        """self and other, and their arrays in one dtype and one shape."""
        if not isinstance(other, Tensor):
            raw = np.asarray(other)
            kind = np.float32 if raw.dtype.kind == "f" else raw.dtype
            other = Tensor(raw.astype(_best_dtype(self.dtype, kind)))
        dtype = _best_dtype(self.dtype, other.dtype)
        shape = broadcast_shapes(self.shape, other.shape)
        a = _widen(self._array.astype(dtype, copy=False), shape)
        b = _widen(other._array.astype(dtype, copy=False), shape)
        return self, other, a, b

    def _fit(self, g):
        return unbroadcast(np.asarray(g), self.shape).astype(self.dtype, copy=False)

    def __add__(self, other):
        x, y, a, b = self._with(other)
        return Tensor(a + b, [(x, x._fit), (y, y._fit)])

    def __sub__(self, other):
        x, y, a, b = self._with(other)
        return Tensor(a - b, [(x, x._fit), (y, lambda g: y._fit(-g))])

    def __mul__(self, other):
        x, y, a, b = self._with(other)
        return Tensor(a * b, [(x, lambda g: x._fit(g * b)), (y, lambda g: y._fit(g * a))])

    def __truediv__(self, other):
        x, y, a, b = self._with(other)
        if a.dtype.kind != "f":
            a, b = a.astype(np.float32), b.astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            out = a / b
        return Tensor(out, [(x, lambda g: x._fit(g / b)), (y, lambda g: y._fit(-g * a / b**2))])

    def __pow__(self, other):
        x, y, a, b = self._with(other)
        with np.errstate(all="ignore"):
            out = a**b

        def to_base(g):
            with np.errstate(all="ignore"):
                slope = np.asarray(b * a ** (b - 1))
            slope[b == 0] = 0
            return x._fit(g * slope)

        def to_exponent(g):
            with np.errstate(all="ignore"):
                slope = out * np.log(a)
            slope = np.asarray(slope)
            slope[(a == 0) & (b >= 0)] = 0
            return y._fit(g * slope)

        return Tensor(out, [(x, to_base), (y, to_exponent)])

    def __neg__(self):
        return Tensor(-self._array, [(self, lambda g: -g)])

    def __radd__(self, other):
        return self + other

    def __rmul__(self, other):
        return self * other

    def __rsub__(self, other):
        return -self + other

    def __rtruediv__(self, other):
        return self._with(other)[1] / self

    def __rpow__(self, other):
        return self._with(other)[1] ** self

    def __eq__(self, other):
        *_, a, b = self._with(other)
        return Tensor(a == b)

    def __ne__(self, other):
        *_, a, b = self._with(other)
        return Tensor(a != b)

    def __lt__(self, other):
        *_, a, b = self._with(other)
        return Tensor(a < b)

    def __le__(self, other):
        *_, a, b = self._with(other)
        return Tensor(a <= b)

    def __gt__(self, other):
        *_, a, b = self._with(other)
        return Tensor(a > b)

    def __ge__(self, other):
        *_, a, b = self._with(other)
        return Tensor(a >= b)

    # -- elementwise functions

    def exp(self):
        y = np.exp(self._array)
        return Tensor(y, [(self, lambda g: g * y)])

    def log(self):
        x = self._array
        with np.errstate(divide="ignore", invalid="ignore"):
            return Tensor(np.log(x), [(self, lambda g: g / x)])

    def tanh(self):
        y = np.tanh(self._array)
        return Tensor(y, [(self, lambda g: g * (1 - y) * (1 + y))])

    def relu(self):
        x = self._array
        return Tensor(np.where(x > 0, x, x * 0), [(self, lambda g: np.where(x > 0, g, g * 0))])

    def sqrt(self):
        return self**0.5

    # -- reductions

    def sum(self, dim=None, keepdim=False):
        axes = tuple(range(self.ndim)) if dim is None else dim
        axes = (axes,) if isinstance(axes, int) else axes
        axes = {a % self.ndim for a in axes}
        ones_there = [1 if i in axes else n for i, n in enumerate(self.shape)]
        y = np.add.reduce(self._array, axis=tuple(axes), keepdims=keepdim)
        if self._array.dtype.kind == "b":
            y = self._array.sum(axis=tuple(axes), keepdims=keepdim)
        return Tensor(y, [(self, lambda g: _widen(np.reshape(g, ones_there), self.shape))])

    def mean(self, dim=None, keepdim=False):
        y = self.sum(dim, keepdim)
        return y * (y._array.size / self._array.size)

    def max(self, dim=None, keepdim=False):
        x = self._array
        if dim is None:
            at = np.unravel_index(np.argmax(x), x.shape)

            def pull(g):
                z = np.zeros_like(x)
                z[at] = g
                return z

            return Tensor(x[at], [(self, pull)])
        at = np.argmax(x, axis=dim, keepdims=True)
        one_hot = np.zeros(x.shape, bool)
        np.put_along_axis(one_hot, at, True, axis=dim)

        def pull_rows(g):
            return _widen(g.reshape(at.shape), x.shape) * one_hot

        shape = at.shape if keepdim else np.squeeze(at, dim).shape
        values = np.take_along_axis(x, at, dim).reshape(shape)
        return Tensor(values, [(self, pull_rows)]), Tensor(at.reshape(shape))

    def softmax(self, dim):
        x = self._array
        e = np.exp(x - _widen(x.max(axis=dim, keepdims=True), x.shape))
        p = e / _widen(e.sum(axis=dim, keepdims=True), x.shape)

        def pull(g):
            gp = g * p
            return gp - p * _widen(gp.sum(axis=dim, keepdims=True), p.shape)

        return Tensor(p, [(self, pull)])

    def log_softmax(self, dim):
        x = self._array
        x = x - _widen(x.max(axis=dim, keepdims=True), x.shape)
        y = x - _widen(np.log(np.exp(x).sum(axis=dim, keepdims=True)), x.shape)

        def pull(g):
            return g - np.exp(y) * _widen(g.sum(axis=dim, keepdims=True), y.shape)

        return Tensor(y, [(self, pull)])

    # -- shapes

    def reshape(self, *shape):
        return Tensor(self._array.reshape(_shape(shape)), [(self, lambda g: g.reshape(self.shape))])

    def transpose(self, i, j):
        return Tensor(np.swapaxes(self._array, i, j), [(self, lambda g: np.swapaxes(g, i, j))])

    def permute(self, *dims):
        dims = [d % self.ndim for d in _shape(dims)]

        def pull(g):
            return np.moveaxis(g, range(len(dims)), dims)

        return Tensor(np.transpose(self._array, dims), [(self, pull)])

    def expand(self, *shape):
        shape = list(_shape(shape))
        if len(shape) < self.ndim:
            raise ValueError(f"cannot expand {self.shape} to {shape}")
        for i, n in enumerate(reversed(self.shape), 1):
            if shape[-i] == -1:
                shape[-i] = n
            if n not in (1, shape[-i]):
                raise ValueError(f"cannot expand size {n} to {shape[-i]}")
        return Tensor(_widen(self._array, shape), [(self, self._fit)])

    def __getitem__(self, index):
        def plain(i):
            return i._array if isinstance(i, Tensor) else i

        index = tuple(map(plain, index)) if isinstance(index, tuple) else plain(index)

        def pull(g):
            z = np.zeros_like(self._array)
            np.add.at(z, index, g)
            return z

        return Tensor(self._array[index], [(self, pull)])

    def masked_fill(self, mask, value):
        value = value.item() if isinstance(value, Tensor) else value
        shape = broadcast_shapes(self.shape, mask.shape)
        mask = _widen(mask._array, shape)
        out = np.array(_widen(self._array, shape))
        out[mask] = value

        def pull(g):
            g = np.array(g)
            g[mask] = 0
            return self._fit(g)

        return Tensor(out, [(self, pull)])

    def matmul(self, other):
        if self.ndim == 0 or other.ndim == 0:
            raise ValueError("matmul takes vectors and matrices")
        if self.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
            raise ValueError(f"matmul of {self.shape} with {other.shape}")
        if self.ndim == 1 and other.ndim == 1:
            return (self * other).sum()
        if other.ndim == 1:
            return self.matmul(other.reshape(-1, 1)).sum(-1)
        if self.ndim == 1:
            return self.reshape(1, -1).matmul(other).sum(-2)
        a, b = self._array, other._array
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = _widen(a, batch + a.shape[-2:]), _widen(b, batch + b.shape[-2:])

        def to_left(g):
            return self._fit(np.einsum("...ij,...kj->...ik", g, b))

        def to_right(g):
            return other._fit(np.einsum("...ij,...ik->...jk", a, g))

        return Tensor(a @ b, [(self, to_left), (other, to_right)])

    def __matmul__(self, other):
        return self.matmul(other)

    def __rmatmul__(self, other):
        return tensor(other).matmul(self)


def tensor(data, dtype=None, requires_grad=False):
    if isinstance(data, Tensor):
        data = data._array
    elif dtype is None and not isinstance(data, np.ndarray):
        dtype = np.float32 if np.asarray(data).dtype.kind == "f" else None
    return Tensor(np.array(data, dtype), requires_grad=requires_grad)


def zeros(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(np.full(_shape(shape), 0, dtype), requires_grad=requires_grad)


def ones(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(np.full(_shape(shape), 1, dtype), requires_grad=requires_grad)


def randn(*shape, dtype=np.float32, requires_grad=False):
    numbers = np.asarray(_rng.normal(size=_shape(shape)))
    return Tensor(numbers.astype(dtype), requires_grad=requires_grad)


def arange(start, stop=None, step=1, dtype=None, requires_grad=False):
    start, stop = (0, start) if stop is None else (start, stop)
    floats = any(isinstance(n, float) for n in (start, stop, step))
    array = np.arange(start, stop, step, dtype or (np.float32 if floats else np.int64))
    return Tensor(array, requires_grad=requires_grad)


def cat(tensors, dim=0):
    edges, start = [], 0
    for t in tensors:
        end = start + t.shape[dim]

        def pull(g, start=start, end=end):
            return np.take(g, range(start, end), axis=dim)

        edges.append((t, pull))
        start = end
    return Tensor(np.concatenate([t._array for t in tensors], axis=dim), edges)


def where(condition, a, b):
    if not isinstance(a, Tensor):
        a = tensor(a) if not isinstance(b, Tensor) else b._with(a)[1]
    a, b, x, y = a._with(b)
    shape = broadcast_shapes(condition.shape, x.shape)
    c, x, y = (_widen(array, shape) for array in (condition._array, x, y))
    out = np.array(y)
    out[c] = x[c]
    to_a = (a, lambda g: a._fit(np.where(c, g, g * 0)))
    to_b = (b, lambda g: b._fit(np.where(c, g * 0, g)))
    return Tensor(out, [to_a, to_b])
