"""Closures: every operation hangs a function on its result that sends the gradient on."""

import contextlib

import numpy as np

float32, float64, int64 = np.float32, np.float64, np.int64
_recording = True


@contextlib.contextmanager
def no_grad():
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before


def broadcast_shapes(*shapes):
    sizes = []
    for i in range(1, max((len(s) for s in shapes), default=0) + 1):
        found = {s[-i] for s in shapes if len(s) >= i} - {1}
        if len(found) > 1:
            raise ValueError(f"shapes {shapes} do not broadcast: {found} at dimension {-i}")
        sizes.append(found.pop() if found else 1)
    return tuple(reversed(sizes))


def stretch(array, shape):
    array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    for axis, size in enumerate(shape):
        if array.shape[axis] == 1 and size != 1:
            array = np.repeat(array, size, axis)
    return array


def unbroadcast(array, shape):
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    for axis, size in enumerate(shape):
        if size == 1:
            array = array.sum(axis=axis, keepdims=True)
    return np.asarray(array)


def common_dtype(a, b):
    floats = [d for d in (a, b) if d.kind == "f"]
    if floats:
        return max(floats, key=lambda d: d.itemsize)
    return np.result_type(a, b)


def pair(a, b):
    """Two tensors and their arrays, brought to one dtype and one shape."""
    if not isinstance(a, Tensor):
        a = number(a, b.dtype)
    if not isinstance(b, Tensor):
        b = number(b, a.dtype)
    dtype = common_dtype(a.dtype, b.dtype)
    shape = broadcast_shapes(a.shape, b.shape)
    return a, b, stretch(a.data.astype(dtype), shape), stretch(b.data.astype(dtype), shape)


def number(value, neighbour):
    value = np.asarray(value)
    if neighbour.kind == "f":
        return Tensor(value.astype(neighbour))
    return Tensor(value.astype(np.float32) if value.dtype.kind == "f" else value)


def made_by(array, parents, backward):
    out = Tensor(array)
    if _recording and any(p.requires_grad for p in parents):
        out.requires_grad = True
        out._parents = parents
        out._backward = backward
    return out


def send(t, g):
    if t.requires_grad:
        g = unbroadcast(np.asarray(g), t.shape).astype(t.dtype)
        t._arrived = g if t._arrived is None else t._arrived + g


class Tensor:
    __array_ufunc__ = None  # so that array + tensor comes to __radd__

    def __init__(self, data, requires_grad=False):
        self.data = np.asarray(data)
        if requires_grad and self.data.dtype.kind != "f":
            raise RuntimeError("only floating-point tensors can require gradients")
        self.requires_grad = requires_grad
        self.grad = None
        self._parents = ()
        self._backward = None
        self._arrived = None

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    dtype = property(lambda self: self.data.dtype)
    __hash__ = object.__hash__

    def __repr__(self):
        return f"tensor({self.data})"

    def __len__(self):
        return len(self.data)

    def __bool__(self):
        return bool(self.data)

    def numpy(self):
        return self.data

    def tolist(self):
        return self.data.tolist()

    def item(self):
        return self.data.item()

    def detach(self):
        return Tensor(self.data)

    def __add__(self, other):
        a, b, x, y = pair(self, other)

        def backward(g):
            send(a, g)
            send(b, g)

        return made_by(x + y, (a, b), backward)

    def __mul__(self, other):
        a, b, x, y = pair(self, other)

        def backward(g):
            send(a, g * y)
            send(b, g * x)

        return made_by(x * y, (a, b), backward)

    def __truediv__(self, other):
        a, b, x, y = pair(self, other)
        if x.dtype.kind != "f":
            x, y = x.astype(np.float32), y.astype(np.float32)

        def backward(g):
            send(a, g / y)
            send(b, -g * x / (y * y))

        with np.errstate(divide="ignore", invalid="ignore"):
            return made_by(x / y, (a, b), backward)

    def __pow__(self, other):
        a, b, x, y = pair(self, other)
        out = np.asarray(x**y)

        def backward(g):
            with np.errstate(all="ignore"):
                if a.requires_grad:
                    send(a, np.where(y == 0, 0, g * y * x ** (y - 1)))
                if b.requires_grad:
                    send(b, np.where((x == 0) & (y >= 0), 0, g * out * np.log(x)))

        return made_by(out, (a, b), backward)

    def __neg__(self):
        return made_by(-self.data, (self,), lambda g: send(self, -g))

    def __sub__(self, other):
        a, b, x, y = pair(self, other)

        def backward(g):
            send(a, g)
            send(b, -g)

        return made_by(x - y, (a, b), backward)

    def __rsub__(self, other):
        return pair(other, self)[0] - self

    def __rtruediv__(self, other):
        return pair(other, self)[0] / self

    def __rpow__(self, other):
        return pair(other, self)[0] ** self

    __radd__ = __add__
    __rmul__ = __mul__

    def _compare(self, other, ufunc):
        _, _, x, y = pair(self, other)
        return Tensor(ufunc(x, y))

    def __eq__(self, other):
        return self._compare(other, np.equal)

    def __ne__(self, other):
        return self._compare(other, np.not_equal)

    def __lt__(self, other):
        return self._compare(other, np.less)

    def __le__(self, other):
        return self._compare(other, np.less_equal)

    def __gt__(self, other):
        return self._compare(other, np.greater)

    def __ge__(self, other):
        return self._compare(other, np.greater_equal)

    def exp(self):
        out = np.exp(self.data)
        return made_by(out, (self,), lambda g: send(self, g * out))

    def log(self):
        with np.errstate(divide="ignore", invalid="ignore"):
            return made_by(np.log(self.data), (self,), lambda g: send(self, g / self.data))

    def tanh(self):
        out = np.tanh(self.data)
        return made_by(out, (self,), lambda g: send(self, g * (1 - out * out)))

    def relu(self):
        positive = self.data > 0
        out = np.maximum(self.data, 0)
        return made_by(out, (self,), lambda g: send(self, g * positive))

    def sqrt(self):
        out = np.sqrt(self.data)
        return made_by(out, (self,), lambda g: send(self, g / (2 * out)))

    def sum(self, dim=None, keepdim=False):
        dims = tuple(range(self.ndim)) if dim is None else dim
        out = self.data.sum(axis=dims, keepdims=keepdim)
        kept = self.data.sum(axis=dims, keepdims=True).shape

        def backward(g):
            send(self, stretch(g.reshape(kept), self.shape))

        return made_by(out, (self,), backward)

    def mean(self, dim=None, keepdim=False):
        total = self.sum(dim, keepdim)
        return total * (total.data.size / self.data.size)

    def max(self, dim=None, keepdim=False):
        if dim is None:
            flat = self.reshape(-1)
            return flat[int(flat.data.argmax())]
        at = np.expand_dims(self.data.argmax(axis=dim), dim)
        out = np.take_along_axis(self.data, at, dim)

        def backward(g):
            full = np.zeros_like(self.data)
            np.put_along_axis(full, at, g.reshape(at.shape), dim)
            send(self, full)

        if keepdim:
            return made_by(out, (self,), backward), Tensor(at)
        return made_by(out.squeeze(dim), (self,), backward), Tensor(at.squeeze(dim))

    def reshape(self, *shape):
        shape = shape[0] if isinstance(shape[0], (tuple, list)) else shape
        out = self.data.reshape(tuple(shape))
        return made_by(out, (self,), lambda g: send(self, g.reshape(self.shape)))

    def transpose(self, dim0, dim1):
        out = self.data.swapaxes(dim0, dim1)
        return made_by(out, (self,), lambda g: send(self, g.swapaxes(dim0, dim1)))

    def permute(self, *dims):
        dims = dims[0] if isinstance(dims[0], (tuple, list)) else dims
        dims = [d % self.ndim for d in dims]
        back = [dims.index(d) for d in range(self.ndim)]
        out = self.data.transpose(dims)
        return made_by(out, (self,), lambda g: send(self, g.transpose(back)))

    def expand(self, *shape):
        shape = list(shape[0] if isinstance(shape[0], (tuple, list)) else shape)
        for i in range(1, self.ndim + 1):
            shape[-i] = self.shape[-i] if shape[-i] == -1 else shape[-i]
        if broadcast_shapes(self.shape, tuple(shape)) != tuple(shape):
            raise ValueError(f"{self.shape} does not expand to {tuple(shape)}")
        return made_by(stretch(self.data, tuple(shape)), (self,), lambda g: send(self, g))

    def masked_fill(self, mask, value):
        return where(mask, value, self)

    def softmax(self, dim):
        e = np.exp(self.data - stretch(self.data.max(axis=dim, keepdims=True), self.shape))
        out = e / stretch(e.sum(axis=dim, keepdims=True), e.shape)

        def backward(g):
            inner = (g * out).sum(axis=dim, keepdims=True)
            send(self, out * (g - stretch(inner, g.shape)))

        return made_by(out, (self,), backward)

    def log_softmax(self, dim):
        shifted = self.data - stretch(self.data.max(axis=dim, keepdims=True), self.shape)
        total = np.log(np.exp(shifted).sum(axis=dim, keepdims=True))
        out = shifted - stretch(total, shifted.shape)

        def backward(g):
            send(self, g - np.exp(out) * stretch(g.sum(axis=dim, keepdims=True), g.shape))

        return made_by(out, (self,), backward)

    def matmul(self, other):
        if self.ndim == 0 or other.ndim == 0:
            raise ValueError("both arguments of @ need at least one dimension")
        a = self if self.ndim > 1 else self.reshape(1, -1)
        b = other if other.ndim > 1 else other.reshape(-1, 1)
        if a.shape[-1] != b.shape[-2]:
            raise ValueError(f"cannot multiply shapes {self.shape} and {other.shape}")
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        x = stretch(a.data, batch + a.shape[-2:])
        y = stretch(b.data, batch + b.shape[-2:])

        def backward(g):
            send(a, g @ y.swapaxes(-1, -2))
            send(b, x.swapaxes(-1, -2) @ g)

        out = made_by(x @ y, (a, b), backward)
        if self.ndim == 1 or other.ndim == 1:
            rows = () if self.ndim == 1 else a.shape[-2:-1]
            columns = () if other.ndim == 1 else b.shape[-1:]
            out = out.reshape(batch + rows + columns)
        return out

    __matmul__ = matmul

    def __rmatmul__(self, other):
        return tensor(other) @ self

    def __getitem__(self, index):
        if isinstance(index, tuple):
            index = tuple(i.data if isinstance(i, Tensor) else i for i in index)
        elif isinstance(index, Tensor):
            index = index.data

        def backward(g):
            full = np.zeros_like(self.data)
            np.add.at(full, index, g)
            send(self, full)

        return made_by(self.data[index], (self,), backward)

    def backward(self, gradient=None):
        if not self.requires_grad:
            raise RuntimeError("this tensor does not depend on anything that requires a gradient")
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError("backward() of several numbers needs a gradient")
            gradient = Tensor(np.ones_like(self.data))
        order, seen, stack = [], set(), [(self, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((p, False) for p in node._parents if p.requires_grad)
        send(self, gradient.data)
        for node in reversed(order):
            g, node._arrived = node._arrived, None
            if node._backward is None:
                node.grad = Tensor(g if node.grad is None else node.grad.data + g)
            else:
                node._backward(g)


def tensor(data, dtype=None, requires_grad=False):
    array = np.array(data.data if isinstance(data, Tensor) else data)
    if dtype is None and array.dtype == np.float64 and not isinstance(data, (Tensor, np.ndarray)):
        dtype = np.float32
    return Tensor(array.astype(dtype) if dtype else array, requires_grad)


def size_of(shape):
    return tuple(shape[0]) if shape and isinstance(shape[0], (tuple, list)) else shape


def zeros(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(np.zeros(size_of(shape), dtype), requires_grad)


def ones(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(np.ones(size_of(shape), dtype), requires_grad)


def randn(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(
        np.asarray(np.random.standard_normal(size_of(shape))).astype(dtype), requires_grad
    )


def arange(*bounds, dtype=None, requires_grad=False):
    if dtype is None:
        dtype = np.float32 if any(isinstance(b, float) for b in bounds) else np.int64
    return Tensor(np.arange(*bounds).astype(dtype), requires_grad)


def cat(tensors, dim=0):
    tensors = tuple(tensors)
    ends = np.cumsum([t.shape[dim] for t in tensors])[:-1]

    def backward(g):
        for t, part in zip(tensors, np.split(g, ends, axis=dim)):
            send(t, part)

    return made_by(np.concatenate([t.data for t in tensors], axis=dim), tensors, backward)


def where(condition, a, b):
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = tensor(a)
    a, b, x, y = pair(a, b)
    shape = broadcast_shapes(condition.shape, x.shape)
    c, x, y = stretch(condition.data, shape), stretch(x, shape), stretch(y, shape)

    def backward(g):
        zero = np.zeros_like(g)
        send(a, np.where(c, g, zero))
        send(b, np.where(c, zero, g))

    return made_by(np.where(c, x, y), (a, b), backward)
