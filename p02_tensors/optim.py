"""Optimizers, as in torch.optim."""

from __future__ import annotations

import numpy as np

from p02_tensors.torch_like import no_grad


class SGD:
    def __init__(self, parameters, lr: float = 1e-3, momentum: float = 0.0):
        self.parameters, self.lr, self.momentum = list(parameters), lr, momentum
        self.velocity = {}

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    @no_grad()
    def step(self) -> None:
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
    """Adam with weight decay that does not pass through the moments (Loshchilov and Hutter)."""

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        self.parameters, self.lr, self.betas, self.eps = list(parameters), lr, betas, eps
        self.weight_decay, self.moments = weight_decay, {}

    zero_grad = SGD.zero_grad

    @no_grad()
    def step(self) -> None:
        beta1, beta2 = self.betas
        for p in self.parameters:
            if p.grad is None:
                continue
            t, m, v = self.moments.get(p, (0, 0.0, 0.0))
            t = t + 1
            grad = self.decay(p)
            m = beta1 * m + (1 - beta1) * grad
            v = beta2 * v + (1 - beta2) * grad * grad
            self.moments[p] = t, m, v
            m_hat = m / (1 - beta1**t)  # both start at zero, which is too small
            v_hat = v / (1 - beta2**t)
            p[...] = p.array - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)

    def decay(self, p) -> np.ndarray:
        """Shrink p; returns the gradient that the moments see."""
        p[...] = p.array * (1 - self.lr * self.weight_decay)
        return p.grad.array


class Adam(AdamW):
    """Kingma and Ba (2015); here weight decay is part of the gradient."""

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def decay(self, p) -> np.ndarray:
        return p.grad.array + self.weight_decay * p.array
