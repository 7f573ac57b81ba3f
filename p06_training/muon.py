"""Muon in float32, all matrices of one shape at once.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
Shapes: n matrices of R rows and C columns.
"""

from __future__ import annotations

from collections import defaultdict

import torch


class Muon(torch.optim.Muon):
    """torch.optim.Muon with its settings, its state and, up to rounding, its steps.

    PyTorch's own computes in bfloat16, matrix by matrix. On a CPU without bfloat16 instructions,
    that of most laptops, this takes most of a training step. `adjust_lr_fn` has its default here:
    the rate of a tall matrix is multiplied by sqrt(R / C). A group may have an "lr_factor" by which
    its rate is multiplied, since a schedule gives all groups the same "lr".
    """

    @torch.no_grad()
    def step(self) -> None:
        """Update each matrix that has a gradient, by a matrix whose singular values are near 1."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for (R, C), alike in shapes.items():
                grads = torch.stack([parameter.grad for parameter in alike])  # (n, R, C)
                means = torch.stack([self.mean_of(parameter) for parameter in alike])
                means.lerp_(grads, 1 - group["momentum"])
                for parameter, mean in zip(alike, means, strict=True):
                    self.mean_of(parameter).copy_(mean)
                update = grads.lerp_(means, group["momentum"]) if group["nesterov"] else means
                update = orthogonal(
                    update, group["ns_coefficients"], group["ns_steps"], group["eps"]
                )
                lr = group["lr"] * group.get("lr_factor", 1.0)
                rate = lr * max(1.0, R / C) ** 0.5
                for parameter, change in zip(alike, update, strict=True):
                    parameter.mul_(1 - lr * group["weight_decay"])
                    parameter.add_(change, alpha=-rate)

    def mean_of(self, parameter: torch.Tensor) -> torch.Tensor:
        """The moving average of the gradients, zero at first: (R, C)."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


class Combined:
    """Several optimizers as one: one list of groups, one step, one state."""

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
    """Bring the singular values of n matrices (n, R, C) near 1 and keep their singular vectors.

    Newton-Schulz: a step replaces each singular value s by a s + b s^3 + c s^5. Wide matrices are
    cheaper, so tall ones are transposed. `eps` avoids 0 / 0 for a matrix of zeros.
    """
    a, b, c = coefficients
    if x.shape[1] > x.shape[2]:
        return orthogonal(x.mT, coefficients, steps, eps).mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)  # no singular value is above one
    for _ in range(steps):
        squares = x @ x.mT  # (n, R, R)
        odd = torch.baddbmm(squares, squares, squares, beta=b, alpha=c)  # b xx' + c (xx')^2
        x = torch.baddbmm(x, odd, x, beta=a)
    return x
