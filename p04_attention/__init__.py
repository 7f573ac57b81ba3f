"""Project 4: scaled dot-product and multi-head causal attention."""

import p01_autograd.lab.threads  # noqa: F401  isort: skip

import torch

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

# glibc, the C library of most Linux systems, gives the memory that a step frees back to the system
# and asks for it again in the next one. Freeing a block of this size, which is never written to,
# makes it keep up to twice as much. Elsewhere this does nothing.
torch.empty(31 << 20, dtype=torch.uint8)
