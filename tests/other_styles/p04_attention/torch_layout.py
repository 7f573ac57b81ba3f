"""The parameters of nn.MultiheadAttention: in_proj_weight, in_proj_bias and out_proj."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def softmax(x, dim=-1):
    shifted = torch.exp(torch.sub(x, torch.amax(x, dim, keepdim=True)))
    return torch.div(shifted, torch.sum(shifted, dim, keepdim=True))


def causal_mask(T):
    return torch.ones((T, T), dtype=torch.bool).tril_()


def attention_weights(q, k, mask=None):
    scores = torch.matmul(q, torch.transpose(k, -2, -1)).div(math.sqrt(q.shape[-1]))
    if mask is None:
        return softmax(scores)
    lowest = torch.finfo(scores.dtype).min
    return softmax(torch.where(mask, scores, lowest)) * mask


def scaled_dot_product_attention(q, k, v, mask=None):
    return torch.matmul(attention_weights(q, k, mask), v)


class SelfAttention(nn.Module):
    def __init__(self, n_embd, head_size):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * head_size, n_embd))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * head_size))
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x):
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return scaled_dot_product_attention(q, k, v, causal_mask(x.shape[1]).to(x.device))


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        if n_head < 1 or n_embd % n_head:
            raise ValueError(f"embed_dim {n_embd} must be divisible by num_heads {n_head}")
        self.num_heads = n_head
        self.head_dim = n_embd // n_head
        self.in_proj_weight = nn.Parameter(torch.empty(3 * n_embd, n_embd))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * n_embd))
        self.out_proj = nn.Linear(n_embd, n_embd)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x):
        B, T, C = x.shape
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, T, 3C)
        packed = packed.view(B, T, 3, self.num_heads, self.head_dim)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)  # (B, nh, T, hs) each
        y = scaled_dot_product_attention(q, k, v, causal_mask(T).to(x.device))
        return self.out_proj(y.permute(0, 2, 1, 3).reshape(B, T, C))
