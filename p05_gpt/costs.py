"""What a GPT costs, by formula: numbers of parameters and floating-point operations (FLOPs).

A Linear from a to b channels has a*b weights and takes, per token, a*b multiplications and as many
additions: 2*a*b FLOPs. The backward pass computes two products for each one of the forward pass,
one per factor's gradient, so a training step costs three forward passes. LayerNorm, GELU and
softmax are not counted.
"""

from __future__ import annotations


def parameters(vocab: int, n_embd: int, n_layer: int, block_size: int) -> dict[str, int]:
    """The number of parameters of each part of GPT, summed over the blocks.

    With n_embd = C: 4 C^2 per attention (no biases), 8 C^2 + 5 C per MLP (with biases), 2 C per
    LayerNorm.
    """
    V, C, L = vocab, n_embd, n_layer
    return {
        "tok_emb": V * C,
        "pos_emb": block_size * C,
        "attention": L * 4 * C**2,
        "mlp": L * (8 * C**2 + 5 * C),
        "norms": (2 * L + 1) * 2 * C,
        "head": C * V,
    }


def forward_flops(vocab: int, n_embd: int, n_layer: int, T: int) -> dict[str, int]:
    """FLOPs of a forward pass over one window of T tokens, by part.

    All T * T attention scores count, masked ones included.
    """
    V, C, L = vocab, n_embd, n_layer
    return {
        "attention": T * L * 2 * 4 * C**2,
        "scores and mixtures": T * L * 2 * 2 * T * C,
        "mlp": T * L * 2 * 8 * C**2,
        "head": T * 2 * C * V,
    }


def training_flops(vocab: int, n_embd: int, n_layer: int, T: int, batch_size: int) -> int:
    """FLOPs of a training step, forward and backward, on batch_size windows of T tokens."""
    return 3 * batch_size * sum(forward_flops(vocab, n_embd, n_layer, T).values())
