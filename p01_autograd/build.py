"""A scalar autograd engine: reverse-mode differentiation of anything that is made of numbers.

Every operation makes a new `Value` with an edge to each operand, and on the edge the local
derivative: how much the result moves when that operand moves. `backward` walks the edges from the
result to its inputs and, by the chain rule, multiplies along a path and adds where paths meet
(Linnainmaa 1970; Rumelhart, Hinton and Williams 1986).
"""

import math


class Value:
    """A number that remembers what it was made of.

    `data` is the number and `grad` the derivative, with respect to it, of whatever `backward` was
    called on. Plain numbers may stand on either side of `+ - * /` and on one side of `**`.
    `_inputs` are the operands and `_locals` the local derivatives, one for each; `_flow` is what
    has come to a node in the `backward` that is under way, apart from what `grad` held before.

    >>> a, b = Value(2.0), Value(-3.0)
    >>> c = a * b + a**2
    >>> c.backward()
    >>> c.data, a.grad, b.grad
    (-2.0, 1.0, 2.0)
    """

    __slots__ = ("_flow", "_inputs", "_locals", "data", "grad")

    def __init__(self, data, _inputs=(), _locals=()):
        self.data, self.grad = data, 0.0
        self._inputs, self._locals = _inputs, _locals

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def __pow__(self, n):
        if isinstance(n, Value): raise TypeError(f"{self} ** {n}: the exponent has to be a number")
        if self.data < 0 and n % 1: raise ValueError(f"{self} ** {n}: no such power of a negative")
        return Value(self.data**n, (self,), (n * self.data ** (n - 1) if n else 0.0,))

    def __truediv__(self, other):
        if (other.data if isinstance(other, Value) else other) == 0:
            raise ZeroDivisionError(f"{self} / {other}: division by zero")
        return self * other**-1

    def log(self):
        if self.data <= 0: raise ValueError(f"log of {self}: it has to be positive")
        return Value(math.log(self.data), (self,), (1 / self.data,))

    def exp(self): return Value(e := math.exp(self.data), (self,), (e,))
    def tanh(self): return Value(t := math.tanh(self.data), (self,), (1 - t * t,))
    def relu(self): return Value(max(self.data, 0.0), (self,), (1.0 if self.data > 0 else 0.0,))

    def __rpow__(self, b): return Value(p := b**self.data, (self,), (p * Value(b).log().data,))
    def __neg__(self): return self * -1
    def __sub__(self, other): return self + -other
    def __rsub__(self, other): return -self + other
    def __rtruediv__(self, other): return Value(other) / self
    __radd__, __rmul__ = __add__, __mul__
    def __repr__(self): return f"Value(data={self.data}, grad={self.grad})"

    def backward(self):
        """Add the derivative of this value to the `grad` of all that it was made of."""
        order = topological_order(self)
        for node in order: node._flow = 0.0
        self._flow = 1.0
        for node in reversed(order):
            node.grad += (upstream := node._flow)
            for parent, local in zip(node._inputs, node._locals):
                parent._flow += local * upstream


def topological_order(root):
    """All that `root` was made of, inputs first and `root` last, every node once.

    A node goes back on the stack under its inputs, and a None on top of it: where the None comes
    up, all inputs have their place. Nothing recurses, so a graph may be as deep as memory allows.
    """
    order, seen, stack = [], set(), [root]
    while stack:
        if (node := stack.pop()) is None:
            order.append(stack.pop())
        elif node not in seen:
            seen.add(node)
            stack += (node, None, *node._inputs)
    return order
