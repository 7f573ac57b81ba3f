"""Project 4: scaled dot-product and multi-head causal attention."""

from .build import (
    CausalSelfAttention,
    SelfAttention,
    attention_weights,
    causal_mask,
    scaled_dot_product_attention,
    softmax,
)

__all__ = [
    "CausalSelfAttention",
    "SelfAttention",
    "attention_weights",
    "causal_mask",
    "scaled_dot_product_attention",
    "softmax",
]
