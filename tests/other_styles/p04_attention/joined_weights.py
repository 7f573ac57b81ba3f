"""Three separate Linears whose weights are joined at every call into a single product."""

import torch
from torch import nn
from torch.nn import functional as F


def softmax(x, dim=-1):
    peak, _ = x.max(dim=dim, keepdim=True)
    unnormalized = (x - peak).exp()
    return unnormalized * unnormalized.sum(dim=dim, keepdim=True).reciprocal()


def causal_mask(T):
    positions = torch.arange(T)
    return torch.le(positions.unsqueeze(0), positions.unsqueeze(1))


def attention_weights(q, k, mask=None):
    scores = q.matmul(k.transpose(-1, -2))
    scores = scores.mul(k.new_tensor(k.size(-1)).rsqrt())
    if mask is not None:
        scores = torch.where(mask, scores, scores.new_tensor(float("-inf")))
    return softmax(scores, -1)


def scaled_dot_product_attention(q, k, v, mask=None):
    weights = attention_weights(q, k, mask)
    return weights @ v


def joined(x, *linears):
    """What the Linears give for `x`, each its own tensor, in one matrix product."""
    weight = torch.cat([linear.weight for linear in linears])
    sizes = [linear.out_features for linear in linears]
    return F.linear(x, weight).split(sizes, dim=-1)


class SelfAttention(nn.Module):
    def __init__(self, n_embd, head_size):
        super().__init__()
        self.q = nn.Linear(n_embd, head_size, bias=False)
        self.k = nn.Linear(n_embd, head_size, bias=False)
        self.v = nn.Linear(n_embd, head_size, bias=False)

    def forward(self, x):
        q, k, v = joined(x, self.q, self.k, self.v)
        return scaled_dot_product_attention(q, k, v, causal_mask(x.size(1)).to(x.device))


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        self.n_head = n_head
        self.head_size = n_embd // n_head
        if self.head_size * n_head != n_embd:
            raise ValueError(f"{n_head} heads cannot share {n_embd} channels")
        self.q = nn.Linear(n_embd, n_embd, bias=False)
        self.k = nn.Linear(n_embd, n_embd, bias=False)
        self.v = nn.Linear(n_embd, n_embd, bias=False)
        self.proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        B, T, C = x.size()
        split = [
            part.reshape(B, T, self.n_head, self.head_size).movedim(2, 1)
            for part in joined(x, self.q, self.k, self.v)
        ]
        y = scaled_dot_product_attention(*split, mask=causal_mask(T).to(x.device))
        return self.proj(y.movedim(1, 2).reshape(B, T, C))
