"""The sizes that the weights of a GPT start with, where they are not PyTorch's own.

The listing takes what PyTorch gives; the training commands call `init_weights(model)` once.
`python -m p05_gpt.measure init` trains with both.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2, 2019), for
the smaller writes to the residual stream.
"""

from __future__ import annotations

import math

from torch import nn

SMALL = 0.02


def init_weights(model: nn.Module) -> None:
    """Set a GPT's weights: those of PyTorch's Linear in size, and a calm residual stream.

    A Linear gets variance 1 / (3 * inputs), so normalised inputs give outputs of variance 1/3. For
    the head this means nearly equal logits and a first loss of about ln(V) + 1/6. The two
    projections of a block that write into the stream start smaller by sqrt(2 * n_layer): together
    the 2 * n_layer writes are then as large as one. Token embeddings have variance 1, so that
    these writes adjust a token and do not drown it. Position embeddings start near zero and grow
    as they are needed. Parts of a reader's model that have other names or kinds stay as they are.
    """
    for name, part in model.named_modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=SMALL if name == "pos_emb" else 1.0)
        elif isinstance(part, nn.Linear):
            std = 1 / math.sqrt(3 * part.in_features)
            if name.endswith(("attn.proj", "mlp.2")):
                std = std / math.sqrt(2 * len(model.blocks))
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
