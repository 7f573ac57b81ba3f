"""Neurons made of Values: a multilayer perceptron, as in micrograd (Karpathy 2020)."""

import random

from p01_autograd.build import Value


class Module:
    """Something with parameters."""

    def parameters(self) -> list[Value]:
        """Every Value that training may change, always in the same order."""
        return []

    def zero_grad(self) -> None:
        """Set the gradient of every parameter back to zero."""
        for p in self.parameters():
            p.grad = 0.0


class Neuron(Module):
    """The weighted sum of `nin` numbers plus a bias, through a ReLU if `nonlin`.

    Weights are drawn with standard deviation sqrt(2 / nin), which keeps the size of a signal the
    same through layers of ReLUs (He et al. 2015); the bias begins at zero.
    """

    def __init__(self, nin: int, nonlin: bool = True):
        self.w = [Value(random.gauss(0, (2 / nin) ** 0.5)) for _ in range(nin)]
        self.b = Value(0.0)
        self.nonlin = nonlin

    def __call__(self, x) -> Value:
        """x: `nin` Values or numbers; any other count is a ValueError."""
        if len(x) != len(self.w):
            raise ValueError(f"a neuron of {len(self.w)} inputs was given {len(x)} numbers")
        total = sum((w * xi for w, xi in zip(self.w, x)), self.b)
        return total.relu() if self.nonlin else total

    def parameters(self) -> list[Value]:
        return [*self.w, self.b]


class Layer(Module):
    """`nout` neurons that see the same `nin` numbers."""

    def __init__(self, nin: int, nout: int, nonlin: bool = True):
        self.neurons = [Neuron(nin, nonlin) for _ in range(nout)]

    def __call__(self, x) -> Value | list[Value]:
        """A list of `nout` Values, or one Value if `nout` is 1."""
        out = [neuron(x) for neuron in self.neurons]
        return out[0] if len(out) == 1 else out

    def parameters(self) -> list[Value]:
        return [p for neuron in self.neurons for p in neuron.parameters()]


class MLP(Module):
    """Layers one after the other, `nouts` neurons wide; the last one is linear."""

    def __init__(self, nin: int, nouts: list[int]):
        sizes = [nin, *nouts]
        last = len(nouts) - 1
        self.layers = [Layer(sizes[i], sizes[i + 1], nonlin=i != last) for i in range(len(nouts))]

    def __call__(self, x) -> Value | list[Value]:
        """x: `nin` Values or numbers."""
        for layer in self.layers:
            out = layer(x)
            x = out if isinstance(out, list) else [out]
        return out

    def parameters(self) -> list[Value]:
        return [p for layer in self.layers for p in layer.parameters()]
