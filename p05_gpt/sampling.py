"""Sampling beyond the listing: top-p, checked arguments, no side effects.

The package exports this `generate`. It wraps the listing's (or a reader's in its place) so that it
can be called during training: afterwards each module's mode and the global random state are what
they were.

Source: Holtzman et al., "The Curious Case of Neural Text Degeneration" (2020), for top-p.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from . import build


def generate(
    model: nn.Module,
    idx: torch.Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Continue idx (B, T) int64: returns (B, T + max_new_tokens), the given tokens first.

    As the listing's `generate`, with nucleus sampling: after temperature and top_k, `top_p` keeps
    the smallest set of likeliest tokens whose probabilities sum to at least top_p. Without a
    `generator`, sampling starts from the global random state and does not change it. Raises
    ValueError for an empty idx and unless temperature >= 0, top_k >= 1 and 0 < top_p <= 1.
    """
    if idx.shape[1] == 0:
        raise ValueError("generate needs at least one token to continue")
    temperature = checked(temperature, top_k, top_p)
    if temperature > 0 and top_p is not None:
        model = Nucleus(model, temperature, top_k, top_p)
    gpus = [idx.device] if idx.device.type == "cuda" else []
    with torch.random.fork_rng(gpus), evaluating(model):
        generator = on_device(generator, idx.device)
        return build.generate(model, idx, max_new_tokens, temperature, top_k, generator)


def stream(
    model: nn.Module,
    idx: torch.Tensor,
    max_new_tokens: int,
    generator: torch.Generator | None = None,
    **sampling,
) -> Iterator[int]:
    """Yield the new tokens of `generate` for idx (1, T), one at a time."""
    generator = on_device(generator, idx.device)
    for _ in range(max_new_tokens):
        idx = generate(model, idx, 1, generator=generator, **sampling)
        yield int(idx[0, -1])


def next_token(
    logits: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Sample a token for each row of logits: (B, V) -> (B, 1) int64; arguments as in generate."""
    temperature = checked(temperature, top_k, top_p)
    if temperature > 0 and top_p is not None:
        logits = nucleus(logits, temperature, top_k, top_p)
    if generator is not None:
        generator = on_device(generator, logits.device)
    return build.next_token(logits, temperature, top_k, generator)


def on_device(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """A generator for `device`: the given one if it fits, else one seeded from it.

    Without a generator the global random state takes its place.
    """
    if generator is not None and generator.device.type == device.type:
        return generator
    if generator is None and device.type == "cpu":
        return torch.Generator().set_state(torch.get_rng_state())
    seed = torch.randint(2**62, (), generator=generator).item()
    return torch.Generator(device).manual_seed(seed)


def checked(temperature: float, top_k: int | None, top_p: float | None) -> float:
    """Check the arguments; returns the temperature, 0 where float32 could not divide by it."""
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 or above, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be 1 or above, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    return temperature if temperature > 1e-30 else 0.0


def nucleus(
    logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float
) -> torch.Tensor:
    """Set the logits outside the top-p nucleus to -inf: (..., V) -> the same shape."""
    ordered, order = logits.sort(dim=-1, descending=True)  # likeliest first
    if top_k is not None:
        ordered = ordered[..., :top_k]
    probs = nn.functional.softmax(ordered / temperature, dim=-1)
    likelier = probs.cumsum(-1) - probs  # the total probability of the likelier tokens
    ordered = ordered.masked_fill(likelier >= top_p, float("-inf"))
    nothing = torch.full_like(logits, float("-inf"))
    return nothing.scatter(-1, order[..., : ordered.shape[-1]], ordered)


class Nucleus(nn.Module):
    """A model whose logits outside the top-p nucleus are -inf: (B, T) -> (B, 1, V)."""

    def __init__(self, model: nn.Module, temperature: float, top_k: int | None, top_p: float):
        super().__init__()
        self.model, self.kept = model, (temperature, top_k, top_p)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return nucleus(self.model(idx)[:, -1:], *self.kept)  # (B, 1, V): the next token's only

    def __getattr__(self, name):
        """The model's own attributes, such as pos_emb, which has the context length."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


@contextmanager
def evaluating(model: nn.Module):
    """Evaluation mode without gradients; afterwards each module is back in its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
