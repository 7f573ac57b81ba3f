"""What init_weights sets: sizes, and that learning can begin from them."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from p05_gpt.build import GPT

V, C, HEADS, LAYERS, BLOCK = 500, 64, 4, 4, 32


def tokens(*shape, seed=0):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model(build):
    torch.manual_seed(0)
    model = GPT(V, C, HEADS, LAYERS, BLOCK)
    build.init_weights(model)
    return model


def test_a_fresh_model_knows_nothing(model):
    logits = model(tokens(4, BLOCK)).detach().reshape(-1, V)
    first = F.cross_entropy(logits, tokens(4 * BLOCK, seed=1)).item()
    assert abs(first - math.log(V) - 1 / 6) < 0.1, (
        f"the first loss is {first:.2f}; ln {V} + 1/6 is {math.log(V) + 1 / 6:.2f}"
    )


def test_every_weight_begins_to_learn(model):
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.dim() > 1}
    for step in range(3):  # where one of two factors starts at zero, the other has to wait
        logits = model(tokens(2, BLOCK, seed=step)).reshape(-1, V)
        model.zero_grad()
        F.cross_entropy(logits, tokens(2 * BLOCK, seed=step + 10)).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
    moved = dict(model.named_parameters())
    assert not [name for name, old in before.items() if torch.equal(old, moved[name])]


def test_the_sizes_are_those_that_the_docstring_names(model):
    spread = {name: p.std().item() for name, p in model.named_parameters() if p.dim() > 1}
    linear = 1 / math.sqrt(3 * C)
    expected = {
        "tok_emb.weight": 1.0,
        "pos_emb.weight": 0.02,
        "head.weight": linear,
        "blocks.0.attn.query.weight": linear,
        "blocks.3.mlp.0.weight": linear,
        "blocks.3.attn.proj.weight": linear / math.sqrt(2 * LAYERS),
        "blocks.0.mlp.2.weight": linear / 2 / math.sqrt(2 * LAYERS),
    }
    for name, size in expected.items():
        assert spread[name] == pytest.approx(size, rel=0.05), name
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif "ln_" in name:
            assert (p == 1).all(), name


def test_parts_of_another_kind_stay_as_they_are(build):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.tok_emb = nn.Embedding(V, C)
            self.pos_emb = nn.Parameter(torch.ones(1, BLOCK, C))
            self.blocks = nn.ModuleList([nn.Linear(C, C, bias=False), nn.LayerNorm(C)])
            self.head = nn.Parameter(torch.ones(C, V))

    model = Other()
    build.init_weights(model)
    assert (model.pos_emb == 1).all() and (model.head == 1).all()
    assert (model.blocks[1].weight == 1).all()
    assert model.blocks[0].weight.std().item() == pytest.approx(1 / math.sqrt(3 * C), rel=0.05)
