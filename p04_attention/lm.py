"""A small language model made of this chapter's attention alone, for its experiments.

Characters of Tiny Shakespeare in, scores for the next character out. Between the embeddings and
the head stand attention layers and nothing else: what it learns beyond pairs of characters, it
learned by attending. Losses are in nats per character.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from p03_bpe import CharTokenizer, bigram
from p03_bpe.corpus import load_corpus

INITS = ("unit", "gpt2")
VAL_EVERY = 25  # steps


class LanguageModel(nn.Module):
    """Embeddings, x + attention(LayerNorm(x)) for each layer, a head: (B, T) -> (B, T, V).

    `layers` are modules (B, T, n_embd) -> (B, T, n_embd). With init "unit" every projection of a
    normalised input has variance one, the case that dividing by the root of the head size is made
    for; with "gpt2" every weight has standard deviation 0.02.
    """

    def __init__(self, layers: list, vocab: int, n_embd: int, block_size: int, init: str = "unit"):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab, n_embd)
        self.pos_emb = nn.Embedding(block_size, n_embd)
        self.norms = nn.ModuleList([nn.LayerNorm(n_embd) for _ in layers])
        self.attention = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                inputs = module.in_features if isinstance(module, nn.Linear) else 1
                nn.init.normal_(module.weight, std=0.02 if init == "gpt2" else inputs**-0.5)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        x = self.tok_emb(idx) + self.pos_emb.weight[: idx.shape[1]]  # (B, T, C)
        for norm, attention in zip(self.norms, self.attention, strict=True):
            x = x + attention(norm(x))
        return self.head(self.norm(x))  # (B, T, V)


def loss(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next characters in windows (B, T + 1)."""
    logits = model(windows[:, :-1])  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@cache
def corpus() -> tuple[CharTokenizer, torch.Tensor, torch.Tensor]:
    """The tokenizer, the ids of the first nine tenths of the text, and those of the rest."""
    text = load_corpus()
    tokenizer = CharTokenizer(text)
    ids = torch.tensor(tokenizer.encode(text))
    split = 9 * len(ids) // 10
    return tokenizer, ids[:split], ids[split:]


def draw(ids: torch.Tensor, block_size: int, n: int, generator) -> torch.Tensor:
    """n random windows of block_size + 1 ids: (n, block_size + 1)."""
    starts = torch.randint(len(ids) - block_size, (n,), generator=generator)
    return ids[starts[:, None] + torch.arange(block_size + 1)]


def validation(block_size: int, n: int = 128) -> torch.Tensor:
    """The windows that every model is judged by: n of them, evenly spread over the last tenth."""
    _, _, ids = corpus()
    starts = torch.linspace(0, len(ids) - block_size - 1, n).long()
    return ids[starts[:, None] + torch.arange(block_size + 1)]


@cache
def bigram_loss() -> float:
    """Nats per character of the bigram model of the training text, the baseline."""
    tokenizer, train, val = corpus()
    return bigram.bigram_loss(train, val, len(tokenizer.vocab))


@dataclass
class Run:
    """A trained model, its training loss at every step, its validation loss at some."""

    model: nn.Module
    train: list[float] = field(default_factory=list)
    val: list[tuple[int, float]] = field(default_factory=list)  # (step, loss)


def train(make_layer, seed, *, n_embd, block_size, batch_size, steps, lr, n_layer=2, init="unit",
          look=None):  # fmt: skip
    """Train a LanguageModel of `n_layer` layers made by `make_layer()`; returns a Run.

    AdamW at a constant rate, which makes no plateau of its own. The same seed gives the same
    weights and the same batches, whatever the code of the layers is. `look(model)` is called,
    without gradients, wherever a validation loss is measured.
    """
    from tqdm import trange

    tokenizer, ids, _ = corpus()
    torch.manual_seed(seed)
    layers = [make_layer() for _ in range(n_layer)]
    model = LanguageModel(layers, len(tokenizer.vocab), n_embd, block_size, init)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)
    generator = torch.Generator().manual_seed(seed)
    judged = validation(block_size)
    run = Run(model)
    for step in trange(steps + 1, desc="training", leave=False, delay=2, disable=None):
        if step % VAL_EVERY == 0:
            with torch.no_grad():
                run.val.append((step, loss(model, judged).item()))
                if look is not None:
                    look(model)
        if step < steps:
            batch_loss = loss(model, draw(ids, block_size, batch_size, generator))
            optimizer.zero_grad()
            batch_loss.backward()
            optimizer.step()
            run.train.append(batch_loss.item())
    return run


def sample(model: nn.Module, n: int, block_size: int, seed: int = 1337) -> str:
    """n characters, each drawn from the model's distribution given those before it."""
    tokenizer, _, _ = corpus()
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([tokenizer.encode("\n")])
    with torch.no_grad():
        for _ in range(n):
            weights = F.softmax(model(ids[:, -block_size:])[:, -1], -1)
            if not weights.isfinite().all():
                break
            ids = torch.cat([ids, torch.multinomial(weights, 1, generator=generator)], 1)
    return tokenizer.decode(ids[0, 1:].tolist())


@contextmanager
def watched(build):
    """The scores and weights of every attention that runs inside the block, layer by layer.

    scores are what softmax is given, and keep their gradient; weights are what attention_weights
    returns, (B, nh, T, T) each.
    """
    seen = SimpleNamespace(scores=[], weights=[])
    softmax, attention_weights = build.softmax, build.attention_weights

    def watched_softmax(x, dim=-1):
        if x.requires_grad:
            x.retain_grad()
        seen.scores.append(x)
        return softmax(x, dim)

    def watched_weights(*args, **kwargs):
        seen.weights.append(attention_weights(*args, **kwargs))
        return seen.weights[-1]

    build.softmax, build.attention_weights = watched_softmax, watched_weights
    try:
        yield seen
    finally:
        build.softmax, build.attention_weights = softmax, attention_weights


def entropy(weights: torch.Tensor) -> torch.Tensor:
    """The entropy of each row of weights, in nats: (..., T) -> (...). Uniform over n: ln n."""
    return -torch.special.xlogy(weights, weights).sum(-1)


def uniform_entropy(T: int) -> float:
    """The mean entropy, in nats, of T causal rows of uniform weights."""
    return sum(math.log(t + 1) for t in range(T)) / T
