"""What a GPT costs by its formula: numbers of weights, floating-point operations and bytes.

A Linear from a to b channels is a*b weights, and for each token a*b multiplications and as many
additions: 2*a*b operations. The backward pass does every product twice, once for the gradient of
each factor, so a training step is three forward passes. Norms, GELU and softmax are not counted.
"""

from __future__ import annotations


def parameters(vocab: int, n_embd: int, n_layer: int, block_size: int) -> dict[str, int]:
    """The number of weights of each part of GPT, the blocks' parts together."""
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
    """Floating-point operations of a forward pass over T tokens, by part.

    Attention computes all T * T scores, those under the mask too.
    """
    V, C, L = vocab, n_embd, n_layer
    return {
        "attention": T * L * 2 * 4 * C**2,
        "scores and mixtures": T * L * 2 * 2 * T * C,
        "mlp": T * L * 2 * 8 * C**2,
        "head": T * 2 * C * V,
    }


def training_flops(vocab: int, n_embd: int, n_layer: int, T: int, batch_size: int) -> int:
    """Floating-point operations of one training step on batch_size windows of T tokens."""
    return 3 * batch_size * sum(forward_flops(vocab, n_embd, n_layer, T).values())
