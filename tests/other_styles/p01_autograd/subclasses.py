"""An expression is an object of its own class, as in a symbolic algebra system."""

import math
import operator
from typing import ClassVar


class Value:
    children: ClassVar[tuple] = ()

    def __init__(self, data):
        self.data = data
        self.grad = 0.0

    def partials(self):
        return ()

    def backward(self):
        """The leaves collect over calls; a result shows the gradient of the last call."""
        order = topological_order(self)
        for node in order:
            if node.children:
                node.grad = 0.0
        self.grad += 1.0
        while order:
            node = order.pop()
            for child, partial in zip(node.children, node.partials()):
                child.grad += node.grad * partial

    def __add__(self, other):
        return Sum(self, other)

    def __radd__(self, other):
        return Sum(other, self)

    def __sub__(self, other):
        return Sum(self, Negative(other))

    def __rsub__(self, other):
        return Sum(other, Negative(self))

    def __mul__(self, other):
        return Product(self, other)

    def __rmul__(self, other):
        return Product(other, self)

    def __truediv__(self, other):
        return Product(self, Reciprocal(other))

    def __rtruediv__(self, other):
        return Product(other, Reciprocal(self))

    def __pow__(self, n):
        return Power(self, n)

    def __rpow__(self, base):
        return Exp(Product(self, math.log(base)))

    def __neg__(self):
        return Negative(self)

    def exp(self):
        return Exp(self)

    def log(self):
        return Log(self)

    def tanh(self):
        return Tanh(self)

    def relu(self):
        return ReLU(self)


class Expression(Value):
    def __init__(self, *children):
        self.children = tuple(c if isinstance(c, Value) else Value(c) for c in children)
        super().__init__(self.value(*(c.data for c in self.children)))


class Sum(Expression):
    value = staticmethod(operator.add)

    def partials(self):
        return 1, 1


class Product(Expression):
    value = staticmethod(operator.mul)

    def partials(self):
        a, b = self.children
        return b.data, a.data


class Negative(Expression):
    value = staticmethod(operator.neg)

    def partials(self):
        return (-1,)


class Reciprocal(Expression):
    value = staticmethod(lambda a: 1 / a)

    def partials(self):
        return (-self.data * self.data,)


class Exp(Expression):
    value = staticmethod(math.exp)

    def partials(self):
        return (self.data,)


class Log(Expression):
    value = staticmethod(math.log)

    def partials(self):
        return (1 / self.children[0].data,)


class Tanh(Expression):
    value = staticmethod(math.tanh)

    def partials(self):
        return ((1 - self.data) * (1 + self.data),)


class ReLU(Expression):
    value = staticmethod(lambda a: max(a, 0.0))

    def partials(self):
        return (int(self.data > 0),)


class Power(Expression):
    def __init__(self, base, n):
        if isinstance(n, Value):
            raise TypeError("the exponent has to be a plain number")
        self.n = n
        super().__init__(base)

    def value(self, a):
        return math.pow(a, self.n)

    def partials(self):
        if self.n == 0:
            return (0.0,)
        return (self.n * math.pow(self.children[0].data, self.n - 1),)


def topological_order(root):
    WAITING, DONE = "waiting", "done"
    state, order, stack = {}, [], [root]
    while stack:
        node = stack[-1]
        if state.get(node) is None:
            state[node] = WAITING
            stack += [c for c in node.children if c not in state]
        else:
            stack.pop()
            if state[node] is WAITING:
                state[node] = DONE
                order.append(node)
    return order
