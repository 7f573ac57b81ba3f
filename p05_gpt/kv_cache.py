"""A key-value cache, which computes each token once: `generate(CachedGPT(model), idx, n)`.

Attention needs only the keys and values of earlier tokens, and the causal mask keeps these from
changing: no later token can affect an earlier position. With them cached, a new token costs a
forward pass over one token, not over the whole text.

Within the context length, the text is that of `generate(model, idx, n)`. (The logits agree up to
rounding, so a sampled token differs only if its draw falls within about 1e-5 of a boundary.) Beyond
it the window slides: every token moves to another position, and since positions are learned
embeddings, all cached keys and values become invalid. From there on each new token costs a pass
over the whole window, as without a cache. (Models that cache beyond their context use relative
positions, or restart from a shorter window, which gives a different text.)

Memory: 2 * n_layer * B * T * C floats.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from p04_attention.build import scaled_dot_product_attention

from .build import GPT


def can_cache(model: nn.Module) -> bool:
    """Whether the model has the parts that CachedGPT uses; a reader's own may have others."""

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
    """CachedGPT(model) if it gives the same logits on a test input, else the model itself.

    A reader's model may have parts of the same names and use them differently.
    """
    if can_cache(model):
        with contextlib.suppress(Exception), torch.no_grad():
            cached, T = CachedGPT(model.eval()), min(16, model.pos_emb.num_embeddings)
            vocab, device = model.tok_emb.num_embeddings, model.pos_emb.weight.device
            idx = torch.arange(T, device=device)[None] * 7 % vocab  # (1, T), any tokens
            ours = [cached(idx[:, :n]) for n in range(1, T + 1)]  # T of (1, 1, V)
            if torch.allclose(torch.cat(ours, dim=1), model(idx), rtol=1e-4, atol=1e-4):
                cached.forget()
                return cached
    return model


class CachedGPT(nn.Module):
    """A GPT with a key-value cache: (B, T) int64 -> logits of the new tokens, (B, T_new, V).

    If idx continues the last input, only the tokens after it are computed; otherwise the cache is
    emptied and all of idx is. Call `forget()` after the model's weights have changed. Raises
    ValueError for a model without the parts of the book's GPT, and for T above the context length.
    """

    def __init__(self, model: GPT):
        super().__init__()
        if not can_cache(model):
            raise ValueError("CachedGPT needs a model with the parts of p05_gpt.GPT")
        self.model = model
        self.pos_emb = model.pos_emb  # from which `generate` takes the context length
        self.forget()

    def forget(self) -> None:
        """Empty the cache."""
        self.read = None  # (B, T): the tokens whose keys and values are cached
        self.kept = [None] * len(self.model.blocks)  # per block: keys and values, (B, nh, T, hs)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        if not self.continues(idx):
            self.forget()
        T, start = idx.shape[1], 0 if self.read is None else self.read.shape[1]
        block_size = self.pos_emb.num_embeddings
        if T > block_size:
            raise ValueError(f"{T} tokens exceed the context length of {block_size}")
        x = self.model.tok_emb(idx[:, start:]) + self.pos_emb.weight[start:T]  # (B, T - start, C)
        for i, block in enumerate(self.model.blocks):
            x = x + self.attend(i, block.attn, block.ln_1(x))
            x = x + block.mlp(block.ln_2(x))
        self.read = idx.clone()
        return self.model.head(self.model.ln_f(x))  # (B, T - start, V)

    def continues(self, idx: torch.Tensor) -> bool:
        """Whether idx is the cached text followed by at least one new token."""
        if self.read is None:
            return False
        start = self.read.shape[1]
        return start < idx.shape[1] and torch.equal(idx[:, :start], self.read)

    def attend(self, i: int, attn: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Block i's attention from the new tokens to all: (B, T - start, C) -> the same shape."""
        q, k, v = (attn.split_heads(part(x)) for part in (attn.query, attn.key, attn.value))
        if self.kept[i] is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(self.kept[i], (k, v), strict=True))
        self.kept[i] = k, v  # (B, nh, T, hs) each
        new, T = q.shape[2], k.shape[2]
        mask = torch.ones(new, T, dtype=torch.bool, device=x.device).tril(T - new)  # (new, T)
        y = scaled_dot_product_attention(q, k, v, mask)  # (B, nh, T - start, hs)
        return attn.proj(y.transpose(1, 2).reshape(x.shape))
