"""Functional: primitives with derivatives written in tensor operations; Tensor is only a handle."""

import functools
import operator
from contextlib import contextmanager

import numpy as np

NO_GRAD = 0


@contextmanager
def no_grad():
    global NO_GRAD
    NO_GRAD += 1
    try:
        yield
    finally:
        NO_GRAD -= 1


class Tensor:
    """`origin` is None for a leaf, else (primitive, inputs, options)."""

    __array_ufunc__ = None
    __slots__ = ("__weakref__", "depth", "grad", "origin", "requires_grad", "values")

    def __init__(self, values, origin=None, requires_grad=False):
        if requires_grad and values.dtype not in (np.float32, np.float64):
            raise TypeError("requires_grad is for float32 and float64")
        self.values = values
        self.origin = origin
        self.requires_grad = requires_grad
        self.depth = 0 if origin is None else 1 + max(t.depth for t in origin[1])
        self.grad = None

    def __hash__(self):
        return object.__hash__(self)

    def __getattr__(self, name):
        if name in ("shape", "ndim", "dtype", "tolist", "item"):
            return getattr(self.values, name)
        raise AttributeError(f"Tensor has no {name!r}")

    def __len__(self):
        return len(self.values)

    def __bool__(self):
        return bool(self.values)

    def numpy(self):
        return self.values

    def detach(self):
        return Tensor(self.values)

    def backward(self, gradient=None):
        assert self.requires_grad, "nothing to differentiate"
        if gradient is None:
            assert self.values.size == 1, "backward() without a gradient needs one number"
            gradient = ones(self.shape, dtype=self.dtype)
        with no_grad():
            for leaf, g in adjoints(self, gradient).items():
                if leaf.origin is None:
                    leaf.grad = tensor(g) if leaf.grad is None else add(leaf.grad, g)


# ---- differentiation -----------------------------------------------------------------------------


def history(root):
    """All tensors that `root` depends on, later ones first."""
    seen = {root}
    todo = [root]
    for t in todo:
        for parent in t.origin[1] if t.origin else ():
            if parent.requires_grad and parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return sorted(seen, key=lambda t: -t.depth)


def adjoints(root, seed):
    result = {root: seed}
    for t in history(root):
        if t.origin is None:
            continue
        f, inputs, options = t.origin
        for parent, rule in zip(inputs, f.rules(len(inputs))):
            if parent.requires_grad:
                part = rule(result[t], t.detach(), *[i.detach() for i in inputs], **options)
                result[parent] = add(result[parent], part) if parent in result else part
    return result


def primitive(f):
    @functools.wraps(f)
    def wrapped(*inputs, **options):
        with np.errstate(all="ignore"):
            values = np.asarray(f(*[t.values for t in inputs], **options))
        if NO_GRAD or not any(t.requires_grad for t in inputs):
            return Tensor(values)
        return Tensor(values, (wrapped, inputs, options), True)

    def derivatives(*rules):
        wrapped.rules = lambda n: rules

    wrapped.derivatives = derivatives
    return wrapped


# ---- shapes --------------------------------------------------------------------------------------


def _two(s, t):
    if len(s) < len(t):
        s, t = t, s
    out = list(s)
    for i in range(len(t)):
        a, b = s[~i], t[~i]
        if a != b and a != 1 and b != 1:
            raise ValueError(f"shapes {s} and {t} do not broadcast")
        out[~i] = a if b == 1 else b
    return tuple(out)


def broadcast_shapes(*shapes):
    return functools.reduce(_two, map(tuple, shapes), ())


def unbroadcast(array, shape):
    array = array.reshape((-1, *array.shape[array.ndim - len(shape) :])).sum(axis=0)
    stretched = [i for i in range(len(shape)) if shape[i] != array.shape[i]]
    return functools.reduce(lambda a, i: a.sum(axis=i, keepdims=True), stretched, array)


def _args(args):
    return tuple(args[0]) if args and isinstance(args[0], (tuple, list)) else args


@primitive
def reshape_(x, shape):
    return x.reshape(shape)


@primitive
def permute_(x, dims):
    return x.transpose(dims)


@primitive
def expand_(x, shape):
    padded = (1,) * (len(shape) - x.ndim) + x.shape
    reps = [1 if have == want else want for have, want in zip(padded, shape)]
    return np.tile(x.reshape(padded), reps)


@primitive
def fold_(x, shape):
    return unbroadcast(x, shape)


reshape_.derivatives(lambda g, out, x, shape: reshape_(g, shape=x.shape))
permute_.derivatives(
    lambda g, out, x, dims: permute_(g, dims=[dims.index(i) for i in range(len(dims))])
)
expand_.derivatives(lambda g, out, x, shape: fold_(g, shape=x.shape))
fold_.derivatives(lambda g, out, x, shape: expand_(g, shape=x.shape))


def reshape(x, *shape):
    return reshape_(x, shape=_args(shape))


def permute(x, *dims):
    return permute_(x, dims=tuple(d % x.ndim for d in _args(dims)))


def transpose(x, i, j):
    order = list(range(x.ndim))
    order[i], order[j] = order[j], order[i]
    return permute(x, order)


def expand(x, *shape):
    shape = _args(shape)
    lead = len(shape) - x.ndim
    want = tuple(x.shape[i - lead] if n == -1 else n for i, n in enumerate(shape))
    if lead < 0 or _two(x.shape, want) != want:
        raise ValueError(f"{x.shape} cannot be expanded to {shape}")
    return expand_(x, shape=want)


# ---- elementwise ---------------------------------------------------------------------------------


@primitive
def cast_(x, dtype):
    return x.astype(dtype)


cast_.derivatives(lambda g, out, x, dtype: cast_(g, dtype=x.dtype))


def meet(x, y):
    """`x` and `y` as tensors of one shape and one dtype."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        floats = [t.dtype for t in (x, y) if t.dtype.kind == "f"]
        dtype = np.result_type(*floats) if floats else np.result_type(x.dtype, y.dtype)
    else:
        t, number = (x, y) if isinstance(x, Tensor) else (y, x)
        kind = np.asarray(number).dtype.kind
        dtype = t.dtype
        if dtype.kind != "f" and kind == "f":
            dtype = np.dtype("float32")
        elif dtype.kind == "b" and kind == "i":
            dtype = np.dtype("int64")
    x, y = (t if isinstance(t, Tensor) else Tensor(np.asarray(t)) for t in (x, y))
    x, y = (t if t.dtype == dtype else cast_(t, dtype=dtype) for t in (x, y))
    shape = broadcast_shapes(x.shape, y.shape)
    return tuple(t if t.shape == shape else expand_(t, shape=shape) for t in (x, y))


add_, sub_ = primitive(operator.add), primitive(operator.sub)
mul_, div_ = primitive(operator.mul), primitive(operator.truediv)
pow_ = primitive(operator.pow)
negate = primitive(operator.neg)
exp, log, tanh = primitive(np.exp), primitive(np.log), primitive(np.tanh)
sqrt = primitive(np.sqrt)
relu = primitive(lambda x: np.clip(x, 0, None))

add_.derivatives(lambda g, out, x, y: g, lambda g, out, x, y: g)
sub_.derivatives(lambda g, out, x, y: g, lambda g, out, x, y: negate(g))
mul_.derivatives(lambda g, out, x, y: mul_(g, y), lambda g, out, x, y: mul_(g, x))
div_.derivatives(
    lambda g, out, x, y: div_(g, y),
    lambda g, out, x, y: negate(div_(mul_(g, out), y)),
)
pow_.derivatives(
    lambda g, out, x, y: where(y == 0, 0.0, g * y * pow_(x, y - 1)),
    lambda g, out, x, y: where(x == 0, 0.0, g * out * log(x)),
)
negate.derivatives(lambda g, out, x: negate(g))
exp.derivatives(lambda g, out, x: mul_(g, out))
log.derivatives(lambda g, out, x: div_(g, x))
tanh.derivatives(lambda g, out, x: g * (1 - out * out))
sqrt.derivatives(lambda g, out, x: g / out / 2)
relu.derivatives(lambda g, out, x: where(x > 0, g, 0.0))


def add(x, y):
    return add_(*meet(x, y))


def sub(x, y):
    return sub_(*meet(x, y))


def mul(x, y):
    return mul_(*meet(x, y))


def div(x, y):
    x, y = meet(x, y)
    if x.dtype.kind != "f":
        x, y = cast_(x, dtype=np.float32), cast_(y, dtype=np.float32)
    return div_(x, y)


def power(x, y):
    return pow_(*meet(x, y))


def comparison(f):
    def compare(x, y):
        x, y = meet(x, y)
        return Tensor(np.asarray(f(x.values, y.values)))

    return compare


@primitive
def where_(x, y, condition):
    return np.where(condition, x, y)


where_.derivatives(
    lambda g, out, x, y, condition: where_(g, g * 0, condition=condition),
    lambda g, out, x, y, condition: where_(g * 0, g, condition=condition),
)


def where(condition, x, y):
    if not isinstance(x, Tensor) and not isinstance(y, Tensor):
        x, y = tensor(x), tensor(y)
    x, y = meet(x, y)
    shape = broadcast_shapes(condition.shape, x.shape)
    chosen = expand(condition, shape).values
    return where_(expand(x, shape), expand(y, shape), condition=chosen)


def masked_fill(x, mask, value):
    return where(mask, value, x)


# ---- reductions ----------------------------------------------------------------------------------


@primitive
def sum_(x, dims):
    return x.sum(axis=dims, keepdims=True)


sum_.derivatives(lambda g, out, x, dims: expand_(g, shape=x.shape))


def _dims(x, dim):
    dims = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return tuple(d % x.ndim for d in dims)


def total(x, dim=None, keepdim=False):
    dims = _dims(x, dim)
    kept = sum_(x, dims=dims)
    return kept if keepdim else reshape(kept, [n for i, n in enumerate(x.shape) if i not in dims])


def mean(x, dim=None, keepdim=False):
    count = functools.reduce(operator.mul, (x.shape[d] for d in _dims(x, dim)), 1)
    return div(total(x, dim, keepdim), count)


def greatest(x, dim=None, keepdim=False):
    if dim is None:
        return getitem(reshape(x, -1), int(x.values.argmax()))
    at = x.values.argmax(axis=dim)
    kept = Tensor(at.reshape([1 if i == dim % x.ndim else n for i, n in enumerate(x.shape)]))
    column = [1] * x.ndim
    column[dim] = -1
    hits = reshape(arange(x.shape[dim]), column) == kept
    return total(where(hits, x, 0), dim, keepdim), kept if keepdim else Tensor(at)


def softmax(x, dim):
    return exp(log_softmax(x, dim))


def log_softmax(x, dim):
    x = sub(x, Tensor(x.values.max(axis=dim, keepdims=True)))
    return sub(x, log(total(exp(x), dim, keepdim=True)))


# ---- matrices, indices ---------------------------------------------------------------------------

matmul_ = primitive(np.matmul)
matmul_.derivatives(
    lambda g, out, x, y: matmul_(g, transpose(y, -2, -1)),
    lambda g, out, x, y: matmul_(transpose(x, -2, -1), g),
)


def matmul(x, y):
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError("no matrix product with a number")
    a = reshape(x, 1, x.shape[0]) if x.ndim == 1 else x
    b = reshape(y, y.shape[0], 1) if y.ndim == 1 else y
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = matmul_(expand(a, batch + a.shape[-2:]), expand(b, batch + b.shape[-2:]))
    shape = batch + (() if x.ndim == 1 else c.shape[-2:-1]) + (() if y.ndim == 1 else c.shape[-1:])
    return reshape(c, shape)


@primitive
def index_(x, index):
    return x[index]


@primitive
def put_(g, index, shape):
    full = np.zeros(shape, g.dtype)
    np.add.at(full, index, g)
    return full


index_.derivatives(lambda g, out, x, index: put_(g, index=index, shape=x.shape))
put_.derivatives(lambda g, out, x, index, shape: index_(g, index=index))


def getitem(x, index):
    parts = index if isinstance(index, tuple) else (index,)
    return index_(x, index=tuple(i.values if isinstance(i, Tensor) else i for i in parts))


@primitive
def cat_(*xs, dim):
    return np.concatenate(xs, axis=dim)


def _slice_of(k):
    def rule(g, out, *xs, dim):
        start = int(np.sum([x.shape[dim] for x in xs[:k]]))
        index = [slice(None)] * g.ndim
        index[dim] = slice(start, start + xs[k].shape[dim])
        return getitem(g, tuple(index))

    return rule


cat_.rules = lambda n: [_slice_of(k) for k in range(n)]


def cat(tensors, dim=0):
    return cat_(*tensors, dim=dim)


# ---- making tensors, and the methods -------------------------------------------------------------


def tensor(data, dtype=None, requires_grad=False):
    values = np.array(getattr(data, "values", data))
    if dtype is None and values.dtype == np.float64 and not hasattr(data, "dtype"):
        dtype = np.float32
    return Tensor(values.astype(dtype or values.dtype), requires_grad=requires_grad)


def zeros(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(np.zeros(_args(shape), dtype), requires_grad=requires_grad)


def ones(*shape, dtype=np.float32, requires_grad=False):
    return Tensor(np.ones(_args(shape), dtype), requires_grad=requires_grad)


def randn(*shape, dtype=np.float32, requires_grad=False):
    values = np.asarray(np.random.normal(0.0, 1.0, _args(shape)), dtype)
    return Tensor(values, requires_grad=requires_grad)


def arange(*args, dtype=None, requires_grad=False):
    values = np.arange(*args)
    dtype = dtype or (np.int64 if values.dtype.kind == "i" else np.float32)
    return Tensor(values.astype(dtype), requires_grad=requires_grad)


for _name, _f in {"add": add, "sub": sub, "mul": mul, "truediv": div, "pow": power}.items():
    setattr(Tensor, f"__{_name}__", _f)
    setattr(Tensor, f"__r{_name}__", functools.partialmethod(lambda y, f, x: f(x, y), _f))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", comparison(getattr(operator, _name)))
_methods = {
    "__neg__": negate, "__getitem__": getitem, "__matmul__": matmul,
    "__rmatmul__": lambda y, x: matmul(tensor(x), y),
    "exp": exp, "log": log, "tanh": tanh, "relu": relu, "sqrt": sqrt,
    "sum": total, "mean": mean, "max": greatest, "softmax": softmax, "log_softmax": log_softmax,
    "reshape": reshape, "transpose": transpose, "permute": permute, "expand": expand,
    "masked_fill": masked_fill, "matmul": matmul,
}  # fmt: skip
for _name, _f in _methods.items():
    setattr(Tensor, _name, _f)
