"""A mask of zeros and minus infinities that is added; softmax by way of the log-softmax."""

from functools import lru_cache

import torch
from torch import Tensor, nn


def log_softmax(x: Tensor, dim: int) -> Tensor:
    top = x.detach().amax(dim=dim, keepdim=True)
    log_sum = top + (x - top).exp().sum(dim=dim, keepdim=True).log()
    return x - log_sum


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    return log_softmax(x, dim).exp()


@lru_cache(maxsize=8)
def causal_mask(T: int) -> Tensor:
    rows = [[past <= now for past in range(T)] for now in range(T)]
    return torch.tensor(rows, dtype=torch.bool).reshape(T, T)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    d = q.size(-1)
    logits = (q / d**0.25) @ (k / d**0.25).transpose(-1, -2)
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
        bias[~mask] = -torch.inf
        logits = logits + bias
    return softmax(logits, dim=-1)


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> Tensor:
    w = attention_weights(q, k, mask)
    return w.matmul(v)


class SelfAttention(nn.Module):
    """One causal head."""

    def __init__(self, n_embd: int, head_size: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(n_embd, head_size)
        self.to_k = nn.Linear(n_embd, head_size)
        self.to_v = nn.Linear(n_embd, head_size)

    def forward(self, x: Tensor) -> Tensor:
        mask = causal_mask(x.size(1)).to(x.device)
        return scaled_dot_product_attention(self.to_q(x), self.to_k(x), self.to_v(x), mask)


class CausalSelfAttention(nn.Module):
    """Heads folded into the batch, (B * nh, T, hs), so that every product is a 3-d one."""

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        if n_embd % n_head != 0:
            raise ValueError(f"{n_embd} channels do not divide into {n_head} heads")
        self.n_head = n_head
        self.to_q = nn.Linear(n_embd, n_embd)
        self.to_k = nn.Linear(n_embd, n_embd)
        self.to_v = nn.Linear(n_embd, n_embd)
        self.out = nn.Linear(n_embd, n_embd)

    def fold(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        x = x.reshape(B, T, self.n_head, C // self.n_head).permute(0, 2, 1, 3)
        return x.reshape(B * self.n_head, T, C // self.n_head)

    def unfold(self, x: Tensor) -> Tensor:
        BH, T, hs = x.shape
        x = x.reshape(BH // self.n_head, self.n_head, T, hs).permute(0, 2, 1, 3)
        return x.reshape(BH // self.n_head, T, self.n_head * hs)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.fold(self.to_q(x)), self.fold(self.to_k(x)), self.fold(self.to_v(x))
        mask = causal_mask(x.size(1)).to(x.device)
        return self.out(self.unfold(scaled_dot_product_attention(q, k, v, mask)))
