"""Operations are classes with a forward and a backward; nodes are ordered by their depth."""

import math
from abc import ABC, abstractmethod


class Operation(ABC):
    def __call__(self, *inputs):
        inputs = tuple(i if isinstance(i, Value) else Value(i) for i in inputs)
        result = Value(self.forward(*(i.data for i in inputs)))
        self.inputs = inputs
        result.operation = self
        result.depth = 1 + max(i.depth for i in inputs)
        return result

    @abstractmethod
    def forward(self, *numbers): ...

    @abstractmethod
    def backward(self, gradient): ...


class Add(Operation):
    def forward(self, a, b):
        return a + b

    def backward(self, gradient):
        return gradient, gradient


class Subtract(Operation):
    def forward(self, a, b):
        return a - b

    def backward(self, gradient):
        return gradient, -gradient


class Multiply(Operation):
    def forward(self, a, b):
        self.a, self.b = a, b
        return a * b

    def backward(self, gradient):
        return gradient * self.b, gradient * self.a


class Divide(Operation):
    def forward(self, a, b):
        self.a, self.b = a, b
        return a / b

    def backward(self, gradient):
        return gradient / self.b, -gradient * self.a / self.b**2


class Power(Operation):
    """A Value to the power of a number."""

    def __init__(self, n):
        self.n = n

    def forward(self, a):
        self.a = a
        return math.pow(a, self.n)

    def backward(self, gradient):
        if self.n == 0:
            return (0.0,)
        return (gradient * self.n * math.pow(self.a, self.n - 1),)


class Exponential(Operation):
    """A number to the power of a Value; e unless said."""

    def __init__(self, base=math.e):
        if base <= 0:
            raise ValueError(f"base {base} of an exponential has to be positive")
        self.base = base

    def forward(self, a):
        self.out = math.exp(a) if self.base == math.e else math.pow(self.base, a)
        return self.out

    def backward(self, gradient):
        return (gradient * self.out * math.log(self.base),)


class Log(Operation):
    def forward(self, a):
        if a <= 0:
            raise ValueError(f"log of {a}")
        self.a = a
        return math.log(a)

    def backward(self, gradient):
        return (gradient / self.a,)


class Tanh(Operation):
    def forward(self, a):
        self.out = math.tanh(a)
        return self.out

    def backward(self, gradient):
        return (gradient * (1 - self.out * self.out),)


class ReLU(Operation):
    def forward(self, a):
        self.open = a > 0
        return a if self.open else 0.0

    def backward(self, gradient):
        return (gradient if self.open else 0.0,)


class Value:
    def __init__(self, data):
        self.data = data
        self.grad = 0
        self.operation = None
        self.depth = 0

    def __add__(self, other):
        return Add()(self, other)

    def __radd__(self, other):
        return Add()(other, self)

    def __sub__(self, other):
        return Subtract()(self, other)

    def __rsub__(self, other):
        return Subtract()(other, self)

    def __mul__(self, other):
        return Multiply()(self, other)

    def __rmul__(self, other):
        return Multiply()(other, self)

    def __truediv__(self, other):
        return Divide()(self, other)

    def __rtruediv__(self, other):
        return Divide()(other, self)

    def __neg__(self):
        return Subtract()(0.0, self)

    def __pow__(self, n):
        return Power(n)(self)

    def __rpow__(self, base):
        return Exponential(base)(self)

    def exp(self):
        return Exponential()(self)

    def log(self):
        return Log()(self)

    def tanh(self):
        return Tanh()(self)

    def relu(self):
        return ReLU()(self)

    def backward(self):
        gradients = {self: 1.0}
        for value in reversed(topological_order(self)):
            gradient = gradients[value]
            value.grad += gradient
            if value.operation is None:
                continue
            parts = value.operation.backward(gradient)
            for source, part in zip(value.operation.inputs, parts):
                gradients[source] = gradients.get(source, 0.0) + part


def topological_order(root):
    found = [root]
    known = {id(root)}
    for value in found:  # grows while it is walked
        for source in value.operation.inputs if value.operation else ():
            if id(source) not in known:
                known.add(id(source))
                found.append(source)
    found.sort(key=lambda value: value.depth)
    return found
