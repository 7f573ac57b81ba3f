"""micrograd's closures: every operation leaves a `_backward` on its result."""

import math


class Value:
    def __init__(self, data, _children=()):
        self.data = data
        self.grad = 0.0
        self._prev = _children
        self._backward = lambda: None
        self._out_grad = 0.0  # what has arrived in the backward pass that is under way

    def __repr__(self):
        return f"Value(data={self.data}, grad={self.grad})"

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data + other.data, (self, other))

        def _backward():
            self._out_grad += out._out_grad
            other._out_grad += out._out_grad

        out._backward = _backward
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data * other.data, (self, other))

        def _backward():
            self._out_grad += other.data * out._out_grad
            other._out_grad += self.data * out._out_grad

        out._backward = _backward
        return out

    def __pow__(self, other):
        assert isinstance(other, (int, float)), "only int and float powers for now"
        out = Value(self.data**other, (self,))
        assert not isinstance(out.data, complex), "a root of a negative number"

        def _backward():
            if other != 0:
                self._out_grad += other * self.data ** (other - 1) * out._out_grad

        out._backward = _backward
        return out

    def __rpow__(self, other):
        assert other > 0, "only positive numbers to the power of a Value"
        return (self * math.log(other)).exp()

    def exp(self):
        out = Value(math.exp(self.data), (self,))

        def _backward():
            self._out_grad += out.data * out._out_grad

        out._backward = _backward
        return out

    def log(self):
        out = Value(math.log(self.data), (self,))

        def _backward():
            self._out_grad += out._out_grad / self.data

        out._backward = _backward
        return out

    def tanh(self):
        out = Value(math.tanh(self.data), (self,))

        def _backward():
            self._out_grad += (1 - out.data**2) * out._out_grad

        out._backward = _backward
        return out

    def relu(self):
        out = Value(0 if self.data < 0 else self.data, (self,))

        def _backward():
            self._out_grad += (out.data > 0) * out._out_grad

        out._backward = _backward
        return out

    def backward(self):
        topo = topological_order(self)
        for v in topo:
            v._out_grad = 0.0
        self._out_grad = 1.0
        for v in reversed(topo):
            v._backward()
        for v in topo:
            v.grad += v._out_grad

    def __neg__(self):
        return self * -1

    def __radd__(self, other):
        return self + other

    def __sub__(self, other):
        return self + (-other)

    def __rsub__(self, other):
        return other + (-self)

    def __rmul__(self, other):
        return self * other

    def __truediv__(self, other):
        return self * other**-1

    def __rtruediv__(self, other):
        return other * self**-1


def topological_order(root):
    topo, visited = [], set()
    stack = [(root, False)]
    while stack:
        v, children_are_in = stack.pop()
        if children_are_in:
            topo.append(v)
        elif v not in visited:
            visited.add(v)
            stack.append((v, True))
            for child in v._prev:
                stack.append((child, False))
    return topo
