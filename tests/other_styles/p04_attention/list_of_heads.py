"""A ModuleList of single heads, each with its own projections, joined and projected."""

import torch
from torch import nn


def softmax(x, dim=-1):
    x = x - x.max(dim, keepdim=True)[0]
    return x.exp() / x.exp().sum(dim, keepdim=True)


def causal_mask(T):
    return ~torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)


def attention_weights(query, key, mask=None):
    head_size = key.shape[-1]
    scores = torch.matmul(query, key.mT) / head_size**0.5
    if mask is not None:
        scores[(~mask).expand_as(scores)] = float("-inf")
    return softmax(scores)


def scaled_dot_product_attention(query, key, value, mask=None):
    return torch.matmul(attention_weights(query, key, mask), value)


class SelfAttention(nn.Module):
    def __init__(self, n_embd, head_size):
        super().__init__()
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)

    def forward(self, x):
        T = x.shape[1]
        mask = causal_mask(T).to(x.device)
        return scaled_dot_product_attention(self.query(x), self.key(x), self.value(x), mask)


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        head_size, rest = divmod(n_embd, n_head)
        if rest != 0:
            raise ValueError("the heads have to share the embedding evenly")
        self.heads = nn.ModuleList(SelfAttention(n_embd, head_size) for _ in range(n_head))
        self.proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))
