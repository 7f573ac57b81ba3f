"""Project 4: scaled dot-product and multi-head causal attention."""

import p01_autograd.lab.quick_torch  # noqa: F401  isort: skip

from .blocked import BlockedSelfAttention, masked_attention
from .build import (
    CausalSelfAttention,
    SelfAttention,
    attention_weights,
    causal_mask,
    scaled_dot_product_attention,
    softmax,
)

__all__ = [
    "BlockedSelfAttention",
    "CausalSelfAttention",
    "SelfAttention",
    "attention_weights",
    "causal_mask",
    "masked_attention",
    "scaled_dot_product_attention",
    "softmax",
]
