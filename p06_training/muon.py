"""Muon in float32, batched over matrices of equal shape.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
Shapes: n matrices of R rows and C columns.
"""

from __future__ import annotations

from collections import defaultdict

import torch


class Muon(torch.optim.Muon):
    """torch.optim.Muon in float32: the same arguments, state and, up to rounding, updates.

    PyTorch's own computes in bfloat16, one matrix at a time, which takes most of a training step on
    a CPU without bfloat16 instructions. `adjust_lr_fn` must have its default: the learning rate of
    a tall matrix is multiplied by sqrt(R / C). A parameter group may have an "lr_factor" that
    multiplies its learning rate, since a schedule sets the same "lr" for all groups.
    """

    @torch.no_grad()
    def step(self) -> None:
        """Update each matrix that has a gradient by its orthogonalised momentum."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for (R, C), alike in shapes.items():
                grads = torch.stack([parameter.grad for parameter in alike])  # (n, R, C)
                means = torch.stack([self.momentum_of(parameter) for parameter in alike])
                means.lerp_(grads, 1 - group["momentum"])
                for parameter, mean in zip(alike, means, strict=True):
                    self.momentum_of(parameter).copy_(mean)
                update = grads.lerp_(means, group["momentum"]) if group["nesterov"] else means
                update = orthogonal(
                    update, group["ns_coefficients"], group["ns_steps"], group["eps"]
                )
                lr = group["lr"] * group.get("lr_factor", 1.0)
                rate = lr * max(1.0, R / C) ** 0.5
                for parameter, change in zip(alike, update, strict=True):
                    parameter.mul_(1 - lr * group["weight_decay"])
                    parameter.add_(change, alpha=-rate)

    def momentum_of(self, parameter: torch.Tensor) -> torch.Tensor:
        """The momentum buffer, a moving average of the gradients that starts at zero: (R, C)."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


class Combined:
    """Several optimizers with the interface of one: param_groups, zero_grad, step, state_dict."""

    def __init__(self, *optimizers: torch.optim.Optimizer):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict) -> None:
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def orthogonal(
    x: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Approximate the nearest orthogonal matrices of x: (n, R, C) -> the same shape.

    Newton-Schulz iteration: singular vectors stay, and each step maps every singular value s to
    a s + b s^3 + c s^5, which brings it near 1. Tall matrices are transposed, since wide ones are
    cheaper. `eps` avoids 0 / 0 for a matrix of zeros.
    """
    a, b, c = coefficients
    if x.shape[1] > x.shape[2]:
        return orthogonal(x.mT, coefficients, steps, eps).mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)  # all singular values are at most 1
    for _ in range(steps):
        squares = x @ x.mT  # (n, R, R)
        odd = torch.baddbmm(squares, squares, squares, beta=b, alpha=c)  # b xx' + c (xx')^2
        x = torch.baddbmm(x, odd, x, beta=a)
    return x
