"""nanoGPT's way: _init_weights, a fused c_attn, F.scaled_dot_product_attention, no biases."""

import math

import torch
import torch.nn as nn
from torch.nn import functional as F


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        assert n_embd % n_head == 0
        self.c_attn = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.c_proj = nn.Linear(n_embd, n_embd, bias=False)
        self.n_head = n_head

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class MLP(nn.Module):
    def __init__(self, n_embd):
        super().__init__()
        self.c_fc = nn.Linear(n_embd, 4 * n_embd, bias=False)
        self.gelu = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(4 * n_embd, n_embd, bias=False)

    def forward(self, x):
        x = self.c_fc(x)
        x = self.gelu(x)
        return self.c_proj(x)


class Block(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd, bias=False)
        self.attn = CausalSelfAttention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd, bias=False)
        self.mlp = MLP(n_embd)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT(nn.Module):
    def __init__(self, vocab, n_embd, n_head, n_layer, block_size):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab, n_embd)
        self.pos_emb = nn.Embedding(block_size, n_embd)
        self.blocks = nn.ModuleList([Block(n_embd, n_head) for _ in range(n_layer)])
        self.ln_f = nn.LayerNorm(n_embd, bias=False)
        self.head = nn.Linear(n_embd, vocab, bias=False)
        self.register_buffer("positions", torch.arange(block_size), persistent=False)
        self.apply(self._init_weights)
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * n_layer))

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)

    def forward(self, idx):
        t = idx.size(1)
        if t > len(self.positions):
            raise ValueError(f"Cannot forward sequence of length {t} > {len(self.positions)}")
        x = self.tok_emb(idx) + self.pos_emb(self.positions[:t])
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


def loss(logits, targets):
    return F.cross_entropy(logits.transpose(1, 2), targets)


def get_batch(data, block_size, batch_size, generator=None):
    ix = torch.randint(len(data) - block_size, (batch_size,), generator=generator).tolist()
    pieces = torch.stack([data[i : i + 1 + block_size] for i in ix])
    return pieces[:, :block_size], pieces[:, 1:]


def evaluate(model, data, block_size):
    """The whole windows in batches of 32, then what is left over."""
    was_training, n = model.training, len(data) - 1
    whole = n // block_size
    x = data[: whole * block_size].view(whole, block_size)
    y = data[1 : whole * block_size + 1].view(whole, block_size)
    pairs = list(zip(x.split(32), y.split(32))) if whole else []
    if whole * block_size < n:
        pairs.append((data[None, whole * block_size : n], data[None, whole * block_size + 1 :]))
    model.eval()
    with torch.no_grad():
        total = sum(loss(model(a), b).item() * b.numel() for a, b in pairs)
    model.train(was_training)
    return total / n


@torch.inference_mode()
def generate(model, idx, max_new_tokens, temperature=1.0, top_k=None, generator=None):
    was_training = model.training
    model.eval()
    for _ in range(max_new_tokens):
        idx_cond = idx[:, -len(model.positions) :]
        logits = model(idx_cond)[:, -1, :]
        if temperature == 0.0:
            top_k, temperature = 1, 1.0
        logits = logits / temperature
        if top_k is not None:
            v, _ = torch.topk(logits, min(top_k, logits.size(-1)), sorted=True)
            logits = torch.where(logits < v[:, -1:], -float("inf"), logits)
        probs = F.softmax(logits, dim=-1)
        idx_next = torch.multinomial(probs, 1, generator=generator)
        idx = torch.cat((idx, idx_next), dim=1)
    model.train(was_training)
    return idx.clone()
