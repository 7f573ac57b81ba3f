"""Optimizers with the names, settings and steps of torch.optim.

`p.grad` has the shape of p, in units of the loss (nats) per unit of p; so do the moments. `lr` is
the learning rate. A parameter whose gradient is None stays as it is, and so do its moments.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from p02_tensors.torch_like import Tensor, no_grad


class SGD:
    """p -= lr * velocity, with velocity = momentum * velocity + gradient."""

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.0):
        self.parameters, self.lr, self.momentum = list(parameters), lr, momentum
        self.velocity: dict[Tensor, Tensor] = {}

    def zero_grad(self) -> None:
        """Set every gradient to None."""
        for p in self.parameters:
            p.grad = None

    @no_grad()
    def step(self) -> None:
        """Change every parameter in place by its gradient."""
        for p in self.parameters:
            if p.grad is None:
                continue
            step = p.grad
            if self.momentum:
                before = self.velocity.get(p)
                step = step.clone() if before is None else self.momentum * before + step
                self.velocity[p] = step
            p[...] = p - self.lr * step


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    A step multiplies p by 1 - lr * weight_decay, then p -= lr * m_hat / (sqrt(v_hat) + eps). m and
    v are running means of the gradient and of its square, with decay rates `betas`; m_hat and v_hat
    are m and v after bias correction.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        self.parameters, self.lr, self.betas, self.eps = list(parameters), lr, betas, eps
        self.weight_decay = weight_decay
        self.moments: dict[Tensor, tuple] = {}  # steps taken, m, v

    zero_grad = SGD.zero_grad

    @no_grad()
    def step(self) -> None:
        """Change every parameter in place by its gradient."""
        beta1, beta2 = self.betas
        for p in self.parameters:
            if p.grad is None:
                continue
            t, m, v = self.moments.get(p, (0, 0.0, 0.0))
            t = t + 1
            grad = self.decay(p, p.grad)
            m = beta1 * m + (1 - beta1) * grad
            v = beta2 * v + (1 - beta2) * grad * grad
            self.moments[p] = t, m, v
            m_hat = m / (1 - beta1**t)  # both start at zero, which is too small
            v_hat = v / (1 - beta2**t)
            p[...] = p.array - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)

    def decay(self, p: Tensor, grad: Tensor) -> np.ndarray:
        """Apply the weight decay to p; returns the gradient that enters the moments."""
        p[...] = p.array * (1 - self.lr * self.weight_decay)
        return grad.array


class Adam(AdamW):
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient (L2 regularisation)."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def decay(self, p: Tensor, grad: Tensor) -> np.ndarray:
        return grad.array + self.weight_decay * p.array
