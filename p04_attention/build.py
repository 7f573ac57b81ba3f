"""Scaled dot-product attention and its causal, multi-head form.

Source: Vaswani et al., "Attention Is All You Need" (2017), sections 3.2.1 and 3.2.2.
Shapes: B batch, T time, C channels (n_embd), nh heads, hs head size; Tq queries, Tk keys.
"""

from __future__ import annotations

import math

import torch
from torch import nn

# 1. softmax: scores into weights


def softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Turn scores into weights that are positive and sum to one along `dim`; shape unchanged.

    Subtracting the largest score cancels in the fraction, so it changes neither the result nor
    its gradient. It keeps exp from overflowing: the largest exponent is then 0.

    >>> softmax(torch.tensor([0.0, 0.0, 1000.0])).tolist()
    [0.0, 0.0, 1.0]
    """
    exps = (x - x.detach().amax(dim, keepdim=True)).exp()
    return exps / exps.sum(dim, keepdim=True)


# 2. causal_mask: the past and oneself


def causal_mask(T: int) -> torch.Tensor:
    """Who may attend to whom: row t is True up to column t, the past and itself. Bool (T, T).

    >>> causal_mask(3).tolist()
    [[True, False, False], [True, True, False], [True, True, True]]
    """
    return torch.tril(torch.ones(T, T, dtype=torch.bool))


# 3. attention_weights: scaled, masked, normalized


def attention_weights(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """How much each query takes from each key: (..., Tq, hs), (..., Tk, hs) -> (..., Tq, Tk).

    A dot product of hs independent terms has variance hs; dividing by its root keeps the scores
    at variance one, where the softmax still has a gradient. `mask` is bool, broadcastable to
    (..., Tq, Tk), True where the query may attend; elsewhere the weight is exactly zero.
    """
    hs = q.shape[-1]
    scores = q @ k.transpose(-2, -1) / math.sqrt(hs)  # (..., Tq, hs) @ (..., hs, Tk)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return softmax(scores, dim=-1)  # (..., Tq, Tk)


# 4. scaled_dot_product_attention: a mixture of values


def scaled_dot_product_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """The mixture of values that each query asks for: v (..., Tk, d_v) -> (..., Tq, d_v)."""
    return attention_weights(q, k, mask) @ v  # (..., Tq, Tk) @ (..., Tk, d_v)


# 5. SelfAttention: one causal head


class SelfAttention(nn.Module):
    """One causal head: (B, T, n_embd) -> (B, T, head_size), for any T."""

    def __init__(self, n_embd: int, head_size: int):
        super().__init__()
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)  # (B, T, hs) each
        mask = causal_mask(x.shape[1]).to(x.device)  # (T, T)
        return scaled_dot_product_attention(q, k, v, mask)  # (B, T, hs)


# 6. CausalSelfAttention: many heads side by side


class CausalSelfAttention(nn.Module):
    """`n_head` causal heads side by side, n_embd / n_head channels each: (B, T, C) -> (B, T, C).

    Raises ValueError when n_embd is not divisible by n_head.
    """

    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        if n_embd % n_head != 0:
            raise ValueError(f"n_embd {n_embd} cannot be divided among {n_head} heads")
        self.n_head = n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.proj = nn.Linear(n_embd, n_embd, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = (self.split_heads(part(x)) for part in (self.query, self.key, self.value))
        mask = causal_mask(T).to(x.device)  # (T, T), the same for every head
        y = scaled_dot_product_attention(q, k, v, mask)  # (B, nh, T, hs)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))  # the heads side by side again

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """Give each head its own slice of the channels: (B, T, C) -> (B, nh, T, hs)."""
        B, T, C = x.shape
        return x.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
