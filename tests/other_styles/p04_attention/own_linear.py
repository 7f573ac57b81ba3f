"""No nn.Linear: a projection of its own for all heads at once, one weight and bias per head."""

import math

import torch


def softmax(x, dim=-1):
    x = x - x.amax(dim=dim, keepdim=True)
    total = torch.logsumexp(x, dim=dim, keepdim=True)
    return torch.exp(x - total)


def causal_mask(T):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for t in range(T):
        mask[t, : t + 1] = True
    return mask


def attention_weights(q, k, mask=None):
    assert q.shape[-1] == k.shape[-1], f"q {tuple(q.shape)} and k {tuple(k.shape)} differ in size"
    q = q * q.shape[-1] ** -0.5
    scores = q @ k.transpose(-1, -2)
    if mask is not None:
        assert mask.dtype == torch.bool, "the mask has to be boolean"
        scores = scores.masked_fill(~mask, -math.inf)
    return softmax(scores, dim=-1)


def scaled_dot_product_attention(q, k, v, mask=None):
    assert k.shape[-2] == v.shape[-2], "as many values as keys"
    return attention_weights(q, k, mask) @ v


class Heads(torch.nn.Module):
    """(B, T, C) -> (B, nh, T, hs)."""

    def __init__(self, n_head, n_in, n_out):
        super().__init__()
        bound = 1 / math.sqrt(n_in)
        self.weight = torch.nn.Parameter((2 * torch.rand(n_head, n_in, n_out) - 1) * bound)
        self.bias = torch.nn.Parameter((2 * torch.rand(n_head, 1, n_out) - 1) * bound)

    def forward(self, x):
        return x.unsqueeze(1) @ self.weight + self.bias


class SelfAttention(torch.nn.Module):
    def __init__(self, n_embd, head_size):
        super().__init__()
        self.q = Heads(1, n_embd, head_size)
        self.k = Heads(1, n_embd, head_size)
        self.v = Heads(1, n_embd, head_size)

    def forward(self, x):
        assert x.dim() == 3, f"x has to be (B, T, C), not {tuple(x.shape)}"
        mask = causal_mask(x.shape[1]).to(x.device)
        y = scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), mask)
        return y.squeeze(1)


class CausalSelfAttention(torch.nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        assert n_embd % n_head == 0, f"{n_embd} / {n_head} is not a whole number"
        size = n_embd // n_head
        self.q = Heads(n_head, n_embd, size)
        self.k = Heads(n_head, n_embd, size)
        self.v = Heads(n_head, n_embd, size)
        self.out = Heads(n_head, size, n_embd)

    def forward(self, x):
        mask = causal_mask(x.shape[1]).to(x.device)
        y = scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), mask)  # (B, nh, T, hs)
        # What each head adds to the output: the same as joining the heads and projecting once.
        return (y @ self.out.weight + self.out.bias).sum(dim=1)
