"""torch.nn.MultiheadAttention inside, the Gumbel trick for sampling, the loss by gather."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module):
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


class Block(nn.Module):
    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.ln1 = nn.LayerNorm(n_embd)
        self.mha = nn.MultiheadAttention(n_embd, n_head, batch_first=True)
        self.ln2 = nn.LayerNorm(n_embd)
        self.up = nn.Linear(n_embd, 4 * n_embd)
        self.down = nn.Linear(4 * n_embd, n_embd)

    def attend(self, x: Tensor) -> Tensor:
        T = x.size(1)
        forbidden = torch.full((T, T), True, device=x.device).triu(1)
        return self.mha(x, x, x, attn_mask=forbidden, need_weights=False)[0]

    def think(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(x), approximate="tanh"))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.ln1(x))
        return x + self.think(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, vocab: int, n_embd: int, n_head: int, n_layer: int, block_size: int):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab, n_embd)
        self.pos_emb = nn.Parameter(torch.zeros(1, block_size, n_embd))
        self.blocks = nn.Sequential()
        for i in range(n_layer):
            self.blocks.add_module(f"block{i}", Block(n_embd, n_head))
        self.ln_f = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab)
        for name, p in self.named_parameters():
            if name == "pos_emb" or (name.endswith("weight") and p.dim() == 2):
                nn.init.trunc_normal_(p, std=0.02)

    def forward(self, idx: Tensor) -> Tensor:
        _, T = idx.size()
        assert T <= self.pos_emb.size(1), f"sequence of {T} > block size {self.pos_emb.size(1)}"
        x = self.tok_emb(idx) + self.pos_emb[:, :T]
        return self.head(self.ln_f(self.blocks(x)))


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    log_probs = logits.log_softmax(dim=-1)
    picked = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return -picked.mean()


def get_batch(data: Tensor, block_size: int, batch_size: int, generator):
    windows = data.unfold(0, block_size + 1, 1)  # (N - block_size, block_size + 1), a view
    rows = torch.randint(windows.size(0), (batch_size,), generator=generator)
    chosen = windows[rows]
    return chosen[:, :-1].contiguous(), chosen[:, 1:].contiguous()


def evaluate(model: nn.Module, data: Tensor, block_size: int) -> float:
    n = data.size(0) - 1
    costs = []
    with evaluating(model):
        for start in range(0, n, block_size):
            stop = min(start + block_size, n)
            logits = model(data[start:stop].view(1, -1))
            target = data[start + 1 : stop + 1].view(1, -1)
            costs.append(logits.logsumexp(-1) - logits.gather(-1, target[..., None])[..., 0])
    running = torch.cat(costs, dim=1).double().cumsum(dim=1)  # the sum so far
    return running[0, -1].item() / n


def generate(model, idx, max_new_tokens, temperature=1.0, top_k=None, generator=None):
    context = model.pos_emb.size(1)
    with evaluating(model):
        for _ in range(max_new_tokens):
            logits = model(idx[:, -context:])[:, -1]
            if top_k:
                kth = logits.topk(min(top_k, logits.size(-1))).values.amin(-1, keepdim=True)
                logits = logits.masked_fill(logits < kth, float("-inf"))
            if temperature > 0:
                waiting = torch.empty_like(logits).exponential_(generator=generator)
                logits = logits / temperature - waiting.log()  # plus a standard Gumbel variable
            idx = torch.cat([idx, logits.argmax(-1, keepdim=True)], dim=-1)
    return idx
