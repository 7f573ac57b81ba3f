"""Neurons made of Values: a multilayer perceptron, as in micrograd (Karpathy 2020)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from p01_autograd.build import Value

Inputs = Sequence[Value | float]


class Module:
    """Base of whatever has parameters."""

    def parameters(self) -> list[Value]:
        """The Values that training changes, always in the same order."""
        return []

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to zero, as before each `backward` of training."""
        for p in self.parameters():
            p.grad = 0.0


class Neuron(Module):
    """The weighted sum of `nin` inputs plus a bias, followed by a ReLU if `nonlin`.

    Weights are drawn from a normal distribution of standard deviation sqrt(2 / nin), which keeps
    the variance of a signal the same through layers of ReLUs (He et al. 2015). The bias begins at
    zero.
    """

    def __init__(self, nin: int, nonlin: bool = True):
        self.w = [Value(random.gauss(0, (2 / nin) ** 0.5)) for _ in range(nin)]
        self.b = Value(0.0)
        self.nonlin = nonlin

    def __call__(self, x: Inputs) -> Value:
        """x: `nin` Values or numbers. ValueError for any other count."""
        if len(x) != len(self.w):
            raise ValueError(f"a neuron of {len(self.w)} inputs was given {len(x)} numbers")
        total = sum((w * xi for w, xi in zip(self.w, x)), self.b)
        return total.relu() if self.nonlin else total

    def parameters(self) -> list[Value]:
        return [*self.w, self.b]


class Layer(Module):
    """`nout` neurons on the same `nin` inputs."""

    def __init__(self, nin: int, nout: int, nonlin: bool = True):
        self.neurons = [Neuron(nin, nonlin) for _ in range(nout)]

    def __call__(self, x: Inputs) -> Value | list[Value]:
        """A list of `nout` Values; the Value itself if `nout` is 1. ValueError as in Neuron."""
        out = [neuron(x) for neuron in self.neurons]
        return out[0] if len(out) == 1 else out

    def parameters(self) -> list[Value]:
        return [p for neuron in self.neurons for p in neuron.parameters()]


class MLP(Module):
    """A multilayer perceptron: layers of `nouts` neurons one after the other, the last one linear.

    MLP(2, [16, 16, 1]) has two inputs, two hidden layers of 16 neurons and one output.
    """

    def __init__(self, nin: int, nouts: Sequence[int]):
        sizes = [nin, *nouts]
        last = len(nouts) - 1
        self.layers = [Layer(sizes[i], sizes[i + 1], nonlin=i != last) for i in range(len(nouts))]

    def __call__(self, x: Inputs) -> Value | list[Value]:
        """x: `nin` Values or numbers; the last layer's output, as in Layer."""
        for layer in self.layers:
            out = layer(x)
            x = out if isinstance(out, list) else [out]
        return out

    def parameters(self) -> list[Value]:
        return [p for layer in self.layers for p in layer.parameters()]
