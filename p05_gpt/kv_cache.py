"""Generation that computes each token once: `generate(CachedGPT(model), idx, n)`.

What attention needs of an earlier token is its key and its value in every block, and these never
change: no later token reaches an earlier position. So they are kept, and a new token costs one
column of work instead of the whole text again.

Within the context the result is that of `generate(model, idx, n)`, token for token. (The scores
agree to rounding, so a draw would have to fall within 1e-5 of a boundary to differ.) At its edge
the window slides, every token moves to another position, and with learned positions nothing that
was kept is right any more: from there on each new token costs a pass over the whole window, as
without the cache. (Models that keep on caching there have relative positions, or start again from
a shorter window and accept another text.)

The price is memory: 2 * n_layer * B * T * C numbers.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from p04_attention.build import scaled_dot_product_attention

from .build import GPT


def can_cache(model: nn.Module) -> bool:
    """Whether the model has the parts that CachedGPT reads; a reader's own may have others."""

    def has(module, *names):
        return all(hasattr(module, name) for name in names)

    return (
        hasattr(model, "blocks")
        and hasattr(model.pos_emb, "num_embeddings")
        and all(
            has(block, "ln_1", "attn", "ln_2", "mlp")
            and has(block.attn, "query", "key", "value", "proj", "split_heads")
            for block in model.blocks
        )
    )


def with_cache(model: nn.Module) -> nn.Module:
    """The model with a cache where that gives the same logits; where it does not, the model.

    A reader's own model may have parts of these names and compute something else with them.
    """
    if can_cache(model):
        with contextlib.suppress(Exception), torch.no_grad():
            cached, T = CachedGPT(model.eval()), min(16, model.pos_emb.num_embeddings)
            vocab, device = model.tok_emb.num_embeddings, model.pos_emb.weight.device
            idx = torch.arange(T, device=device)[None] * 7 % vocab  # any text will do
            ours = [cached(idx[:, :n]) for n in range(1, T + 1)]  # T of (1, 1, V)
            if torch.allclose(torch.cat(ours, dim=1), model(idx), rtol=1e-4, atol=1e-4):
                cached.forget()
                return cached
    return model


class CachedGPT(nn.Module):
    """A GPT that remembers what it has read: (B, T) int64 -> logits of the unread tokens alone.

    A text that continues the last one costs only what it adds; any other is read from its start.
    After a change of the model's weights, `forget()` first.
    """

    def __init__(self, model: GPT):
        super().__init__()
        if not can_cache(model):
            raise ValueError("the cache reads the parts of the book's model; this one has others")
        self.model = model
        self.pos_emb = model.pos_emb  # tells `generate` the context length
        self.forget()

    def forget(self) -> None:
        """Begin with an empty memory."""
        self.read = None  # (B, T): the tokens whose keys and values are kept
        self.kept = [None] * len(self.model.blocks)  # of each block: two of (B, nh, T, hs)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        if not self.continues(idx):
            self.forget()
        T, start = idx.shape[1], 0 if self.read is None else self.read.shape[1]
        block_size = self.pos_emb.num_embeddings
        if T > block_size:
            raise ValueError(f"{T} tokens do not fit into a context of {block_size}")
        x = self.model.tok_emb(idx[:, start:]) + self.pos_emb.weight[start:T]  # (B, T - start, C)
        for i, block in enumerate(self.model.blocks):
            x = x + self.attend(i, block.attn, block.ln_1(x))
            x = x + block.mlp(block.ln_2(x))
        self.read = idx.clone()
        return self.model.head(self.model.ln_f(x))  # (B, T - start, V)

    def continues(self, idx: torch.Tensor) -> bool:
        """Whether idx is the text that was read and at least one token more."""
        if self.read is None:
            return False
        start = self.read.shape[1]
        return start < idx.shape[1] and torch.equal(idx[:, :start], self.read)

    def attend(self, i: int, attn: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Block i's attention of the new tokens to all: (B, T - start, C) -> the same shape."""
        q, k, v = (attn.split_heads(part(x)) for part in (attn.query, attn.key, attn.value))
        if self.kept[i] is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(self.kept[i], (k, v), strict=True))
        self.kept[i] = k, v  # (B, nh, T, hs) each
        new, T = q.shape[2], k.shape[2]
        mask = torch.ones(new, T, dtype=torch.bool, device=x.device).tril(T - new)  # their rows
        y = scaled_dot_product_attention(q, k, v, mask)  # (B, nh, T - start, hs)
        return attn.proj(y.transpose(1, 2).reshape(x.shape))
