"""Bare parameters: positions and MLP without nn.Embedding and nn.Linear; ReLU; a loop of blocks."""

import math

import torch
from torch import nn
from torch.nn.functional import log_softmax, nll_loss, softmax


def normal(*shape, std=0.02):
    return nn.Parameter(torch.randn(*shape) * std)


class Attention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        if n_embd % n_head:
            raise ValueError(f"{n_embd} is not a multiple of {n_head}")
        self.n_head = n_head
        self.qkv = normal(n_embd, 3 * n_embd)
        self.out = normal(n_embd, n_embd)

    def forward(self, x):
        B, T, C = x.shape
        qkv = (x @ self.qkv).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(C // self.n_head)
        future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
        weights = softmax(scores.masked_fill(future, -torch.inf), dim=-1)
        return (weights @ v).transpose(1, 2).reshape(B, T, C) @ self.out


class MLP(nn.Module):
    def __init__(self, n_embd):
        super().__init__()
        self.w1, self.b1 = normal(n_embd, 4 * n_embd), nn.Parameter(torch.zeros(4 * n_embd))
        self.w2, self.b2 = normal(4 * n_embd, n_embd), nn.Parameter(torch.zeros(n_embd))

    def forward(self, x):
        return torch.relu(x @ self.w1 + self.b1) @ self.w2 + self.b2


class Block(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(n_embd), Attention(n_embd, n_head)
        self.norm2, self.mlp = nn.LayerNorm(n_embd), MLP(n_embd)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocab, n_embd, n_head, n_layer, block_size):
        super().__init__()
        self.block_size = block_size
        self.tok_emb = normal(vocab, n_embd)
        self.pos_emb = normal(block_size, n_embd)
        self.blocks = nn.ModuleList([Block(n_embd, n_head) for _ in range(n_layer)])
        self.ln_f = nn.LayerNorm(n_embd)
        self.head = normal(n_embd, vocab)

    def forward(self, idx):
        T = idx.shape[1]
        if T > self.block_size:
            raise ValueError(f"{T} tokens, and the model sees at most {self.block_size}")
        x = self.tok_emb[idx] + self.pos_emb[:T]
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x) @ self.head


def loss(logits, targets):
    return nll_loss(log_softmax(logits, dim=-1).transpose(1, 2), targets)


def get_batch(data, block_size, batch_size, generator):
    last = data.numel() - block_size - 1
    if last < 0:
        raise ValueError(f"{data.numel()} tokens are too few for windows of {block_size}")
    start = torch.randint(0, last + 1, (batch_size, 1), generator=generator)
    at = start + torch.arange(block_size)
    return data[at], data[at + 1]


def evaluate(model, data, block_size):
    mode = model.training
    model.eval()
    losses, counts = [], []
    with torch.inference_mode():
        inputs = data[:-1].split(block_size)
        targets = data[1:].split(block_size)
        for x, y in zip(inputs, targets):
            losses.append(loss(model(x.unsqueeze(0)), y.unsqueeze(0)).double())
            counts.append(len(y))
    model.train(mode)
    counts = torch.tensor(counts, dtype=torch.double)
    return float((torch.stack(losses) * counts).sum() / counts.sum())


def generate(model, idx, max_new_tokens, temperature=1.0, top_k=None, generator=None):
    mode = model.training
    model.eval()
    try:
        with torch.no_grad():
            for _ in range(max_new_tokens):
                logits = model(idx[:, -model.block_size :])[:, -1]
                idx = torch.cat([idx, choose(logits, temperature, top_k, generator)], dim=1)
    finally:
        model.train(mode)
    return idx


def choose(logits, temperature, top_k, generator):
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    if top_k is not None and top_k < logits.shape[-1]:
        threshold = logits.sort(descending=True).values[:, top_k - 1 : top_k]
        logits = torch.where(logits >= threshold, logits, -torch.inf)
    return torch.multinomial(softmax(logits / temperature, -1), 1, generator=generator)
