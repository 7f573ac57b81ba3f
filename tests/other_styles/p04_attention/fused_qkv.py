"""One fused projection for query, key and value, split afterwards, as in nanoGPT."""

import math

import torch
import torch.nn as nn


def softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    largest = torch.max(x, dim=dim, keepdim=True).values
    powers = torch.exp(x - largest)
    return powers / torch.sum(powers, dim=dim, keepdim=True)


def causal_mask(T: int) -> torch.Tensor:
    return torch.tril(torch.ones(T, T)) == 1


def attention_weights(q, k, mask=None):
    att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
    if mask is not None:
        att = att.masked_fill(mask == 0, float("-inf"))
    return softmax(att, dim=-1)


def scaled_dot_product_attention(q, k, v, mask=None):
    return attention_weights(q, k, mask) @ v


class SelfAttention(nn.Module):
    def __init__(self, n_embd, head_size):
        super().__init__()
        self.c_attn = nn.Linear(n_embd, 3 * head_size)

    def forward(self, x):
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        return scaled_dot_product_attention(q, k, v, causal_mask(x.size(1)).to(x.device))


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        assert n_embd % n_head == 0
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.n_head = n_head
        self.n_embd = n_embd

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        mask = causal_mask(T).to(x.device)
        y = scaled_dot_product_attention(q, k, v, mask)
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        return self.c_proj(y)
