"""Einsum: every product is named by its letters, and no tensor is ever transposed by hand."""

from torch import arange, einsum, exp, inf, nn


def softmax(x, dim=-1):
    e = exp(x - x.amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)


def causal_mask(T):
    t = arange(T)
    return t[:, None] >= t[None, :]


def attention_weights(q, k, mask=None):
    s = einsum("...qd,...kd->...qk", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        s = s.masked_fill(mask.logical_not(), -inf)
    return softmax(s)


def scaled_dot_product_attention(q, k, v, mask=None):
    return einsum("...qk,...kd->...qd", attention_weights(q, k, mask), v)


class SelfAttention(nn.Module):
    def __init__(self, n_embd, head_size):
        super().__init__()
        self.wq = nn.Linear(n_embd, head_size, bias=False)
        self.wk = nn.Linear(n_embd, head_size, bias=False)
        self.wv = nn.Linear(n_embd, head_size, bias=False)

    def forward(self, x):
        mask = causal_mask(x.shape[-2]).to(x.device)
        return scaled_dot_product_attention(self.wq(x), self.wk(x), self.wv(x), mask)


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        if n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} is not divisible by n_head={n_head}")
        self.n_head = n_head
        self.wq = nn.Linear(n_embd, n_embd, bias=False)
        self.wk = nn.Linear(n_embd, n_embd, bias=False)
        self.wv = nn.Linear(n_embd, n_embd, bias=False)
        self.wo = nn.Linear(n_embd, n_embd, bias=False)

    def forward(self, x):
        q, k, v = (w(x).unflatten(-1, (self.n_head, -1)) for w in (self.wq, self.wk, self.wv))
        s = einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        s = s.masked_fill(~causal_mask(x.shape[1]).to(x.device), -inf)
        y = einsum("bhqk,bkhd->bqhd", softmax(s), v)
        return self.wo(y.flatten(2))
