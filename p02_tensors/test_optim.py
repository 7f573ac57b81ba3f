"""The optimizers take the steps that PyTorch's take."""

import numpy as np
import pytest
import torch

import p02_tensors

STEPS = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD with momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "Adam": ("Adam", {"lr": 0.1}),
    "Adam with weight decay": ("Adam", {"lr": 0.1, "weight_decay": 0.3}),
    "Adam with other betas": ("Adam", {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-3}),
    "AdamW": ("AdamW", {"lr": 0.1}),
    "AdamW with weight decay": ("AdamW", {"lr": 0.1, "weight_decay": 0.5, "betas": (0.9, 0.95)}),
}


def trajectory(library, optimizer, settings, steps=12):
    """Where two parameters go while they minimise a crooked bowl; one of them joins late."""
    rng = np.random.default_rng(0)
    target = library.tensor(rng.normal(size=(3, 2)), dtype=library.float64)
    start = rng.normal(size=(3, 2)), rng.normal(size=(2,))
    a, b, idle = (
        library.tensor(x, dtype=library.float64, requires_grad=True) for x in (*start, start[1])
    )
    optimizer = optimizer([a, b, idle], **settings)
    places = []
    for step in range(steps):
        optimizer.zero_grad()
        away = a - target
        loss = (away * away).sum() + (a * a * a).mean() + (0.5 * (b * b).sum() if step > 2 else 0)
        loss.backward()
        optimizer.step()
        places.append(np.concatenate([a.tolist(), [b.tolist()], [idle.tolist()]]))
    return np.array(places)


@pytest.mark.parametrize(("name", "settings"), STEPS.values(), ids=STEPS)
def test_an_optimizer_takes_the_steps_of_torchs(build, name, settings):
    got = trajectory(p02_tensors, getattr(build, name), settings)
    expected = trajectory(torch, getattr(torch.optim, name), settings)
    assert np.allclose(got, expected, rtol=1e-9, atol=1e-12), (
        f"{name}({settings}) is off by {abs(got - expected).max(axis=(1, 2))} after each step"
    )


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adams_first_step_is_as_long_as_the_learning_rate(build, name):
    for gradient in (1e-3, 1.0, 1e3):
        x = p02_tensors.tensor([1.0], requires_grad=True)
        optimizer = getattr(build, name)([x], lr=0.01, weight_decay=0.0)
        (x * gradient).sum().backward()
        optimizer.step()
        moved = 1 - x.item()
        assert abs(moved / 0.01 - 1) < 1e-3, (
            f"the first step of {name} at lr 0.01 should be 0.01 whatever the gradient; with "
            f"gradient {gradient:g} it is {moved:.4f}: are the moments divided by 1 - beta^t?"
        )


def test_a_step_moves_no_history_along(build):
    x = p02_tensors.tensor([1.0], requires_grad=True)
    optimizer = build.SGD([x], lr=0.5)
    (x * x).sum().backward()
    optimizer.step()
    assert x.is_leaf and x.requires_grad and x.item() == 0.0
    optimizer.zero_grad()
    assert x.grad is None
