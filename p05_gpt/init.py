"""The sizes that the weights of a GPT start with, where they are not PyTorch's own.

The listing takes what PyTorch gives; the training commands call `init_weights(model)` once.
`python -m p05_gpt.measure init` trains with both.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2, 2019), for
the smaller writes to the residual stream.
"""

from __future__ import annotations

import math

from torch import nn


def init_weights(model: nn.Module) -> None:
    """Set a GPT's weights: those of PyTorch's Linear in size, and a calm residual stream.

    A Linear gets variance 1 / (3 * inputs), so normalised inputs give outputs of variance 1/3. For
    the head this means nearly equal logits and a first loss of about ln(V) + 1/6. The two
    projections of a block that write into the stream start smaller by sqrt(2 * n_layer): together
    the 2 * n_layer writes are then as large as one. Token embeddings have variance 1, so that
    these writes adjust a token and do not drown it. Position embeddings start near zero and grow
    as they are needed. A model whose parts have other names keeps what it has there.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name == "tok_emb.weight":
            nn.init.normal_(parameter)
        elif name in ("pos_emb.weight", "pos_emb"):
            nn.init.normal_(parameter, std=0.02)
        elif parameter.dim() == 2:  # the Linears; a LayerNorm's weight stays 1
            std = 1 / math.sqrt(3 * parameter.shape[1])
            if name.endswith(("attn.proj.weight", "mlp.2.weight")):
                std = std / math.sqrt(2 * len(model.blocks))
            nn.init.normal_(parameter, std=std)
