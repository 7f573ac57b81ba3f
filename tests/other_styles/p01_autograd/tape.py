"""A Wengert list: one global tape of everything computed, read backwards."""

import math
import weakref

_tape = []  # weak references to the Values, in the order in which they were made
_limit = 10_000


class Value:
    def __init__(self, data, *made_from):
        global _limit
        self.data = data
        self.grad = 0.0
        self._made_from = made_from  # (Value, derivative) pairs
        _tape.append(weakref.ref(self))
        if len(_tape) > _limit:
            _tape[:] = [r for r in _tape if r() is not None]
            _limit = max(10_000, 2 * len(_tape))

    def __repr__(self):
        return f"Value(data={self.data}, grad={self.grad})"

    def __add__(self, other):
        if isinstance(other, Value):
            return Value(self.data + other.data, (self, 1), (other, 1))
        return Value(self.data + other, (self, 1))

    def __mul__(self, other):
        if isinstance(other, Value):
            return Value(self.data * other.data, (self, other.data), (other, self.data))
        return Value(self.data * other, (self, other))

    def __sub__(self, other):
        if isinstance(other, Value):
            return Value(self.data - other.data, (self, 1), (other, -1))
        return Value(self.data - other, (self, 1))

    def __truediv__(self, other):
        if isinstance(other, Value):
            y = self.data / other.data
            return Value(y, (self, 1 / other.data), (other, -y / other.data))
        return Value(self.data / other, (self, 1 / other))

    def __pow__(self, n):
        if isinstance(n, Value):
            return (self.log() * n).exp()
        y = math.pow(self.data, n)
        return Value(y, (self, n * math.pow(self.data, n - 1) if n else 0.0))

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other):
        return Value(other - self.data, (self, -1))

    def __rtruediv__(self, other):
        return Value(other / self.data, (self, -other / self.data**2))

    def __rpow__(self, base):
        y = math.pow(base, self.data)
        return Value(y, (self, y * math.log(base) if base else 0.0))

    def __neg__(self):
        return Value(-self.data, (self, -1))

    def exp(self):
        y = math.exp(self.data)
        return Value(y, (self, y))

    def log(self):
        return Value(math.log(self.data), (self, 1 / self.data))

    def tanh(self):
        y = math.tanh(self.data)
        return Value(y, (self, 1 - y**2))

    def relu(self):
        if self.data > 0:
            return Value(self.data, (self, 1))
        return Value(0.0, (self, 0))

    def backward(self):
        adjoint = {self: 1.0}
        for reference in reversed(_tape):
            node = reference()
            if node not in adjoint:
                continue
            for source, derivative in node._made_from:
                adjoint[source] = adjoint.get(source, 0.0) + derivative * adjoint[node]
        for node, gradient in adjoint.items():
            node.grad += gradient


def topological_order(root):
    needed, order = {root}, []
    for reference in reversed(_tape):
        node = reference()
        if node in needed:
            order.append(node)
            needed.update(source for source, _ in node._made_from)
    return order[::-1]
