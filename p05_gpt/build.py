"""A GPT in twenty lines, its loss, its data, its measure and its voice.

Sources: Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2, 2019) for
the architecture and its initialisation; Holtzman et al., "The Curious Case of Neural Text
Degeneration" (2020) for top-p sampling.
Shapes: B batch, T time, C channels (n_embd), V vocabulary; N the length of a corpus in tokens.
"""

from __future__ import annotations

import math
from contextlib import contextmanager

import torch
from torch import nn

from p04_attention.build import CausalSelfAttention


class Block(nn.Module):
    """Attention moves information between positions, the MLP works on each: (B, T, C) -> same.

    Both read a normalised copy of the residual stream and add what they found to it.
    """

    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd)
        self.attn = CausalSelfAttention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd)
        self.mlp = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT(nn.Module):
    """Token ids in, a score for every possible next token out: (B, T) int64 -> (B, T, V).

    Raises ValueError when T is above block_size: there is no embedding for such a position.
    """

    def __init__(self, vocab: int, n_embd: int, n_head: int, n_layer: int, block_size: int):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab, n_embd)
        self.pos_emb = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*[Block(n_embd, n_head) for _ in range(n_layer)])
        self.ln_f = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab, bias=False)
        init_weights(self)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        T = idx.shape[1]
        block_size = self.pos_emb.num_embeddings
        if T > block_size:
            raise ValueError(f"{T} tokens do not fit into a context of {block_size}")
        tokens = self.tok_emb(idx)  # (B, T, C)
        positions = self.pos_emb.weight[:T]  # (T, C)
        x = tokens + positions  # (B, T, C)
        x = self.blocks(x)  # (B, T, C)
        x = self.ln_f(x)  # (B, T, C)
        return self.head(x)  # (B, T, V)


def init_weights(model: nn.Module) -> None:
    """Set the sizes that the parts start with: those of PyTorch's Linear, and of a calm stream.

    A Linear gets variance 1 / (3 * inputs), so normalised inputs give outputs of variance 1/3. For
    the head this means nearly equal logits and a first loss of about ln(V) + 1/6. The two
    projections of a block that write into the stream start smaller by sqrt(2 * n_layer): together
    the 2 * n_layer writes are then as large as one. Token embeddings have variance 1, so that
    these writes adjust a token and do not drown it. Position embeddings start near zero and grow
    as they are needed.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name == "tok_emb.weight":
            nn.init.normal_(parameter)
        elif name == "pos_emb.weight":
            nn.init.normal_(parameter, std=0.02)
        elif ".ln_" not in name and not name.startswith("ln_f"):
            std = 1 / math.sqrt(3 * parameter.shape[1])
            if name.endswith(("attn.proj.weight", "mlp.2.weight")):
                std = std / math.sqrt(2 * len(model.blocks))
            nn.init.normal_(parameter, std=std)


def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats per token: logits (B, T, V), targets (B, T) -> scalar."""
    return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def get_batch(
    data: torch.Tensor, block_size: int, batch_size: int, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random windows of `data` (N,) int64: inputs x and targets y, each (batch_size, block_size).

    y is x one token later. Every window is equally likely, the last one included, whose final
    target is the last token of `data`. Raises ValueError when not even one window fits.
    """
    n_windows = len(data) - block_size
    if n_windows < 1:
        raise ValueError(
            f"{len(data)} tokens are too few: a window of {block_size} needs {block_size + 1}"
        )
    starts = torch.randint(n_windows, (batch_size,), generator=generator)
    at = starts[:, None] + torch.arange(block_size)  # (batch_size, block_size)
    return data[at], data[at + 1]


@contextmanager
def evaluating(model: nn.Module):
    """Without dropout and without gradients; afterwards each module is in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def evaluate(model: nn.Module, data: torch.Tensor, block_size: int, batch_size: int = 32) -> float:
    """Mean nats per token over all N - 1 predictions of `data` (N,), the same every time.

    The windows do not overlap; the shorter last one counts by its length. `batch_size` windows go
    through the model at once. Raises ValueError when there is nothing to predict.
    """
    n_predictions = len(data) - 1
    if n_predictions < 1:
        raise ValueError(f"{len(data)} tokens leave nothing to predict; evaluate needs 2 or more")
    whole = n_predictions // block_size * block_size  # predictions in full windows
    x = data[:whole].view(-1, block_size)
    y = data[1 : whole + 1].view(-1, block_size)
    batches = list(zip(x.split(batch_size), y.split(batch_size), strict=True)) if whole else []
    if whole < n_predictions:
        batches.append((data[None, whole:-1], data[None, whole + 1 :]))
    with evaluating(model):
        total = sum(loss(model(x), y).item() * y.numel() for x, y in batches)
    return total / n_predictions


def generate(
    model: nn.Module,
    idx: torch.Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Continue idx (B, T): returns (B, T + max_new_tokens), the given tokens first.

    Each new token is drawn from the model's distribution over the next one, given the last
    block_size tokens. The model's mode and the global random state are left as they were: without
    a `generator` the draws start from the global state but do not move it. See next_token for
    temperature, top_k and top_p.
    """
    if idx.shape[1] == 0:
        raise ValueError("generate needs at least one token to continue")
    if generator is None:
        generator = torch.Generator()
        generator.set_state(torch.get_rng_state())
    block_size = model.pos_emb.num_embeddings
    with evaluating(model):
        for _ in range(max_new_tokens):
            logits = model(idx[:, -block_size:])[:, -1]  # (B, V)
            new = next_token(logits, temperature, top_k, top_p, generator)  # (B, 1)
            idx = torch.cat([idx, new], dim=1)
    return idx


def next_token(
    logits: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draw a token for each row of logits: (B, V) -> (B, 1) int64.

    temperature 0 takes the likeliest token; above 0 it divides the logits. top_k keeps the k
    likeliest (above V: all); of those, top_p keeps the fewest that together reach probability p.
    Raises ValueError outside temperature >= 0, top_k >= 1, 0 < top_p <= 1.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 or above, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be 1 or above, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    logits, order = logits.sort(dim=-1, descending=True)  # likeliest first
    logits = (logits - logits[:, :1]) / temperature  # the largest is 0: no overflow
    if top_k is not None:
        logits = logits[:, :top_k]
    probs = nn.functional.softmax(logits, dim=-1)
    if top_p is not None:
        likelier = probs.cumsum(-1) - probs  # what the tokens before this one already hold
        probs = probs.masked_fill(likelier >= top_p, 0.0)
    if generator is not None:
        probs = probs.to(generator.device)
    choice = torch.multinomial(probs, 1, generator=generator)  # (B, 1), a place in the order
    return order.gather(-1, choice.to(order.device))
