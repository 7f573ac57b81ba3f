"""Dataclass nodes that store an operation's name; Kahn's algorithm counts the uses of each."""

import math
from collections import Counter, deque
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Value:
    data: float
    op: str = "input"
    args: tuple = ()
    grad: float = 0.0

    def local_gradients(self):
        """The derivative of this node with respect to each of its arguments."""
        x = self.args[0].data if self.args else None
        match self.op:
            case "input":
                return ()
            case "+":
                return 1.0, 1.0
            case "*":
                return self.args[1].data, x
            case "/":
                return 1.0 / self.args[1].data, -x / self.args[1].data ** 2
            case "**":
                n = self.args[1].data
                by_base = n * x ** (n - 1) if n != 0 else 0.0
                by_exponent = self.data * math.log(x) if x > 0 else 0.0
                return by_base, by_exponent
            case "neg":
                return (-1.0,)
            case "exp":
                return (self.data,)
            case "log":
                return (1.0 / x,)
            case "tanh":
                return (1.0 - self.data**2,)
            case "relu":
                return (float(x > 0),)
        raise NotImplementedError(self.op)

    def __add__(self, other):
        a, b = both(self, other)
        return Value(a.data + b.data, "+", (a, b))

    def __mul__(self, other):
        a, b = both(self, other)
        return Value(a.data * b.data, "*", (a, b))

    def __truediv__(self, other):
        a, b = both(self, other)
        return Value(a.data / b.data, "/", (a, b))

    def __pow__(self, other):
        a, b = both(self, other)
        result = a.data**b.data
        if isinstance(result, complex):
            raise ValueError(f"{a.data} ** {b.data} is not a real number")
        return Value(result, "**", (a, b))

    def __neg__(self):
        return Value(-self.data, "neg", (self,))

    def __sub__(self, other):
        return self + -other

    def __radd__(self, other):
        return Value(other) + self

    def __rsub__(self, other):
        return Value(other) - self

    def __rmul__(self, other):
        return Value(other) * self

    def __rtruediv__(self, other):
        return Value(other) / self

    def __rpow__(self, other):
        if other < 0:
            raise ValueError(f"a negative base has no derivative: {other}")
        return Value(other) ** self

    def exp(self):
        return Value(math.exp(self.data), "exp", (self,))

    def log(self):
        return Value(math.log(self.data), "log", (self,))

    def tanh(self):
        return Value(math.tanh(self.data), "tanh", (self,))

    def relu(self):
        return Value(self.data if self.data > 0 else 0.0, "relu", (self,))

    def backward(self):
        gradient = Counter()
        gradient[self] = 1.0
        for node in reversed(topological_order(self)):
            for arg, slope in zip(node.args, node.local_gradients()):
                gradient[arg] += gradient[node] * slope
        for node, total in gradient.items():
            node.grad += total


def both(a, b):
    return a if isinstance(a, Value) else Value(a), b if isinstance(b, Value) else Value(b)


def topological_order(root):
    uses = Counter({root: 0})
    queue = deque([root])
    while queue:
        for arg in queue.popleft().args:
            if arg not in uses:
                queue.append(arg)
            uses[arg] += 1
    order = deque()
    ready = deque([root])
    while ready:
        node = ready.popleft()
        order.appendleft(node)
        for arg in node.args:
            uses[arg] -= 1
            if uses[arg] == 0:
                ready.append(arg)
    return list(order)
