"""Samples by inverting the cumulative distribution; log-sum-exp by hand; heads as one einsum."""

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, n_embd, n_head):
        super().__init__()
        assert n_embd % n_head == 0, "heads must divide the embedding"
        self.h = n_head
        self.query = nn.Linear(n_embd, n_embd)
        self.key = nn.Linear(n_embd, n_embd)
        self.value = nn.Linear(n_embd, n_embd)
        self.proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(2, (self.h, -1)) for layer in (self.query, self.key, self.value)
        )
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
        i = torch.arange(x.shape[1], device=x.device)
        scores = scores.masked_fill(i[:, None] < i[None, :], float("-inf"))
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
        return self.proj(mixed.flatten(2))


class Residual(nn.Module):
    """x + f(norm(x))."""

    def __init__(self, n_embd, f):
        super().__init__()
        self.norm = nn.LayerNorm(n_embd)
        self.f = f

    def forward(self, x):
        return x + self.f(self.norm(x))


class Block(nn.Sequential):
    def __init__(self, n_embd, n_head):
        hidden = 4 * n_embd
        mlp = nn.Sequential(nn.Linear(n_embd, hidden), nn.ReLU(), nn.Linear(hidden, n_embd))
        super().__init__(Residual(n_embd, Attention(n_embd, n_head)), Residual(n_embd, mlp))


class GPT(nn.Module):
    def __init__(self, vocab, n_embd, n_head, n_layer, block_size):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab, n_embd)
        self.pos_emb = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*(Block(n_embd, n_head) for _ in range(n_layer)))
        self.ln_f = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab, bias=False)

    @property
    def block_size(self):
        return self.pos_emb.weight.shape[0]

    def forward(self, idx):
        x = self.tok_emb(idx)
        x = x + self.pos_emb(torch.arange(idx.shape[1], device=idx.device))
        return self.head(self.ln_f(self.blocks(x)))


def costs(logits, targets):
    """Nats for each token, (B, T)."""
    top = logits.amax(dim=-1, keepdim=True).detach()
    log_sum = top[..., 0] + (logits - top).exp().sum(dim=-1).log()
    b = torch.arange(targets.shape[0])[:, None]
    t = torch.arange(targets.shape[1])[None, :]
    return log_sum - logits[b, t, targets]


def loss(logits, targets):
    return costs(logits, targets).mean()


def get_batch(data, block_size, batch_size, generator):
    if len(data) <= block_size:
        raise ValueError("the data is shorter than one window and its next token")
    uniform = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    first = (uniform * (len(data) - block_size)).long()
    x = torch.empty(batch_size, block_size, dtype=data.dtype)
    y = torch.empty(batch_size, block_size, dtype=data.dtype)
    for row, i in enumerate(first.tolist()):
        x[row] = data[i : i + block_size]
        y[row] = data[i + 1 : i + 1 + block_size]
    return x, y


def evaluate(model, data, block_size):
    mode = model.training
    model.train(False)
    total, done = 0.0, 0
    try:
        while done < len(data) - 1:
            piece = data[done : done + block_size + 1]
            with torch.no_grad():
                total += costs(model(piece[None, :-1]), piece[None, 1:]).sum().item()
            done += len(piece) - 1
    finally:
        model.train(mode)
    return total / done


def generate(model, idx, max_new_tokens, temperature=1.0, top_k=None, generator=None):
    if temperature < 0:
        raise ValueError("a temperature is not negative")
    mode = model.training
    model.train(False)
    out = torch.zeros(idx.shape[0], idx.shape[1] + max_new_tokens, dtype=idx.dtype)
    out[:, : idx.shape[1]] = idx
    with torch.no_grad():
        for t in range(idx.shape[1], out.shape[1]):
            logits = model(out[:, max(0, t - model.block_size) : t])[:, -1].double()
            logits, order = logits.sort(dim=-1, descending=True)
            if top_k is not None:
                logits = logits[:, :top_k]
            if temperature == 0:
                place = torch.zeros(len(out), 1, dtype=torch.long)
            else:
                cdf = (logits / temperature).softmax(-1).cumsum(-1)
                u = torch.rand(len(out), 1, generator=generator, dtype=torch.double)
                place = torch.searchsorted(cdf, u * cdf[:, -1:], right=True)
                place = place.clamp(max=cdf.shape[-1] - 1)
            out[:, t] = order.gather(-1, place)[:, 0]
    model.train(mode)
    return out
