"""Local derivatives computed in the forward pass and stored on the edges; slots, no closures."""

from __future__ import annotations

import math
from collections.abc import Iterator


class Value:
    __slots__ = ("data", "grad", "parents", "slopes")

    def __init__(self, data: float, parents: tuple = (), slopes: tuple = ()):
        self.data = float(data)
        self.grad = 0.0
        self.parents = parents
        self.slopes = slopes

    @staticmethod
    def lift(x) -> Value:
        if isinstance(x, Value):
            return x
        if isinstance(x, (int, float)):
            return Value(x)
        raise TypeError(f"cannot compute with {type(x).__name__}")

    def __add__(self, other):
        other = Value.lift(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __sub__(self, other):
        other = Value.lift(other)
        return Value(self.data - other.data, (self, other), (1.0, -1.0))

    def __mul__(self, other):
        other = Value.lift(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def __truediv__(self, other):
        other = Value.lift(other)
        quotient = self.data / other.data
        return Value(quotient, (self, other), (1.0 / other.data, -quotient / other.data))

    def __pow__(self, other):
        """Also `Value ** Value`; the base is then not negative."""
        if isinstance(other, Value):
            power = math.pow(self.data, other.data)
            base_slope = other.data * math.pow(self.data, other.data - 1) if other.data else 0.0
            exponent_slope = power * math.log(self.data) if self.data else 0.0
            return Value(power, (self, other), (base_slope, exponent_slope))
        slope = other * math.pow(self.data, other - 1) if other else 0.0
        return Value(math.pow(self.data, other), (self,), (slope,))

    def __radd__(self, other):
        return Value.lift(other) + self

    def __rsub__(self, other):
        return Value.lift(other) - self

    def __rmul__(self, other):
        return Value.lift(other) * self

    def __rtruediv__(self, other):
        return Value.lift(other) / self

    def __rpow__(self, other):
        return Value.lift(other) ** self

    def __neg__(self):
        return Value(-self.data, (self,), (-1.0,))

    def exp(self):
        e = math.exp(self.data)
        return Value(e, (self,), (e,))

    def log(self):
        return Value(math.log(self.data), (self,), (1.0 / self.data,))

    def tanh(self):
        t = math.tanh(self.data)
        return Value(t, (self,), (1.0 - t * t,))

    def relu(self):
        return Value(max(0.0, self.data), (self,), (1.0 if self.data > 0 else 0.0,))

    def backward(self) -> None:
        flow = {self: 1.0}
        for node in reversed(topological_order(self)):
            arrived = flow.pop(node)
            node.grad += arrived
            for parent, slope in zip(node.parents, node.slopes):
                flow[parent] = flow.get(parent, 0.0) + slope * arrived

    def __repr__(self):
        return f"Value({self.data:g})"


def topological_order(root: Value) -> list[Value]:
    order: list[Value] = []
    seen = {root}
    path: list[tuple[Value, Iterator[Value]]] = [(root, iter(root.parents))]
    while path:
        node, unvisited = path[-1]
        parent = next(unvisited, None)
        if parent is None:
            order.append(node)
            path.pop()
        elif parent not in seen:
            seen.add(parent)
            path.append((parent, iter(parent.parents)))
    return order
