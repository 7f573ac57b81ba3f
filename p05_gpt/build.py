"""A GPT in twenty lines, with its loss, batches, validation and sampling.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2, 2019).
Shapes: B batch, T time, C channels (n_embd), V vocabulary; N the length of a corpus in tokens.
"""

from __future__ import annotations

import torch
from torch import nn

from p04_attention.build import CausalSelfAttention

# 1. Block


class Block(nn.Module):
    """A transformer block: attention between positions, then an MLP on each: (B, T, C) -> same.

    Both read a LayerNorm of the residual stream and add their output to the stream.
    """

    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd)
        self.attn = CausalSelfAttention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd)
        self.mlp = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


# 2. GPT


class GPT(nn.Module):
    """Token ids (B, T) int64 -> logits (B, T, V), a score for every possible next token.

    Its parts are `tok_emb`, `pos_emb`, `blocks`, `ln_f` and `head`. Raises IndexError for T above
    block_size: pos_emb has no such position.
    """

    def __init__(self, vocab: int, n_embd: int, n_head: int, n_layer: int, block_size: int):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab, n_embd)
        self.pos_emb = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*[Block(n_embd, n_head) for _ in range(n_layer)])
        self.ln_f = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab, bias=False)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        B, T = idx.shape
        pos = torch.arange(T, device=idx.device)  # (T,)
        x = self.tok_emb(idx) + self.pos_emb(pos)  # (B, T, C) + (T, C)
        x = self.blocks(x)  # (B, T, C)
        x = self.ln_f(x)  # (B, T, C)
        return self.head(x)  # (B, T, V)


# 3. loss


def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats per token: logits (B, T, V), targets (B, T) -> scalar."""
    return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


# 4. get_batch


def get_batch(
    data: torch.Tensor, block_size: int, batch_size: int, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random windows of `data` (N,) int64: inputs x and targets y, each (batch_size, block_size).

    y is x shifted by one token. Every window is equally likely, including the last one, whose
    final target is the last token of `data`.
    """
    starts = torch.randint(len(data) - block_size, (batch_size,), generator=generator)
    at = starts[:, None] + torch.arange(block_size)  # (batch_size, block_size)
    return data[at], data[at + 1]


# 5. evaluate


def evaluate(model: nn.Module, data: torch.Tensor, block_size: int) -> float:
    """Mean loss over all N - 1 predictions of `data` (N,) int64, in nats per token; deterministic.

    The windows do not overlap; the shorter last one is weighted by its length. The model is put
    into evaluation mode, and its own mode is restored.
    """
    x, y = data[:-1], data[1:]
    whole = len(x) // block_size * block_size  # predictions in full windows
    batches = []
    if whole:
        windows = (part[:whole].view(-1, block_size).split(32) for part in (x, y))
        batches = list(zip(*windows, strict=True))  # 32 windows go through the model at once
    if whole < len(x):
        batches.append((x[None, whole:], y[None, whole:]))
    training = model.training
    model.eval()
    with torch.no_grad():
        total = sum(loss(model(x), y).item() * y.numel() for x, y in batches)
    model.train(training)
    return total / len(x)


# 6. generate


def generate(
    model: GPT,
    idx: torch.Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Continue idx (B, T) int64: returns (B, T + max_new_tokens), the given tokens first.

    Each new token is sampled from the model's distribution, given the last block_size tokens. The
    model is put into evaluation mode, and its own mode is restored.
    """
    block_size = model.pos_emb.num_embeddings
    training = model.training
    model.eval()
    with torch.no_grad():
        for _ in range(max_new_tokens):
            logits = model(idx[:, -block_size:])[:, -1]  # (B, V)
            new = next_token(logits, temperature, top_k, generator)  # (B, 1)
            idx = torch.cat([idx, new], dim=1)
    model.train(training)
    return idx


def next_token(
    logits: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Sample a token for each row of logits: (B, V) -> (B, 1) int64.

    `temperature` divides the logits; 0 is greedy. `top_k` keeps the k likeliest tokens, all of them
    if k is above V.
    """
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    logits = logits / temperature
    if top_k is not None:
        kept = logits.topk(min(top_k, logits.shape[-1])).values  # (B, k), the likeliest first
        logits = logits.masked_fill(logits < kept[:, -1:], float("-inf"))
    probs = nn.functional.softmax(logits, dim=-1)  # (B, V)
    return torch.multinomial(probs, 1, generator=generator)
