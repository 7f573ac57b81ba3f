"""A scalar autograd engine: reverse-mode differentiation of any expression made of numbers.

Every operation makes a new `Value` with an edge to each of its inputs, and on the edge the local
derivative: how fast the result changes with that input. `backward` walks the edges from the result
to its inputs and applies the chain rule: multiply along a path, add where paths meet
(Linnainmaa 1970; Rumelhart, Hinton and Williams 1986).
"""

from __future__ import annotations

import math


class Value:
    """A number that remembers what it was computed from.

    `data` is the number. `grad` is the gradient, with respect to this value, of whatever `backward`
    was called on. Plain numbers may stand on either side of `+ - * /` and on one side of `**`.
    `_inputs` are the operands, and `_locals` the local derivatives, one for each operand.

    >>> a, b = Value(2.0), Value(-3.0)
    >>> c = a * b + a**2
    >>> c.backward()
    >>> c.data, a.grad, b.grad
    (-2.0, 1.0, 2.0)
    """

    # 1. A number and its gradient

    def __init__(self, data: float, _inputs: tuple = (), _locals: tuple = ()):
        self.data, self.grad = float(data), 0.0
        self._inputs, self._locals = _inputs, _locals

    def __repr__(self) -> str: return f"Value(data={self.data}, grad={self.grad})"
    def __format__(self, spec: str) -> str: return format(self.data, spec) if spec else repr(self)

    # 2. Sums and products

    def __add__(self, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    __radd__, __rmul__ = __add__, __mul__  # 2 + x and 2 * x

    # 3. Backward

    def backward(self) -> None:
        """Add to every node's `grad` the gradient of this value with respect to that node."""
        order = topological_order(self)
        upstream = dict.fromkeys(order, 0.0)  # gradients accumulated during this backward call
        upstream[self] = 1.0
        for node in reversed(order):
            node.grad += upstream[node]
            for parent, local in zip(node._inputs, node._locals):
                upstream[parent] += local * upstream[node]

    # 4. Powers, minus and division

    def __pow__(self, n: float) -> Value:
        return Value(self.data**n, (self,), (n * self.data ** (n - 1) if n else 0.0,))

    def __neg__(self) -> Value: return self * -1
    def __sub__(self, other: Value | float) -> Value: return self + -other
    def __rsub__(self, other: float) -> Value: return -self + other
    def __truediv__(self, other: Value | float) -> Value: return self * other**-1
    def __rtruediv__(self, other: float) -> Value: return self**-1 * other

    # 5. Functions

    def exp(self) -> Value:
        y = math.exp(self.data)
        return Value(y, (self,), (y,))

    def tanh(self) -> Value:
        y = math.tanh(self.data)
        return Value(y, (self,), (1 - y * y,))

    def log(self) -> Value: return Value(math.log(self.data), (self,), (1 / self.data,))
    def relu(self) -> Value: return Value(max(self.data, 0.0), (self,), (float(self.data > 0),))
    def __rpow__(self, base: float) -> Value: return (self * math.log(base)).exp()


# 3. Backward: every node after its inputs


def topological_order(root: Value) -> list[Value]:
    """Everything `root` was computed from, inputs first, `root` last, each node once.

    A node that comes off the stack for the first time goes back on it, marked as expanded, with
    its inputs on top. When it comes off again, all its inputs are in the order. Nothing recurses,
    so a graph may be as deep as memory allows.
    """
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node._inputs)
    return order
