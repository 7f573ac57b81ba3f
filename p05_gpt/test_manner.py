"""What our own listing does beyond what the chapter teaches; `--build` requires none of it."""

import inspect

import pytest
import torch

from p05_gpt import build

V, C, HEADS, LAYERS, BLOCK = 11, 16, 2, 2, 8


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build.GPT(V, C, HEADS, LAYERS, BLOCK)


def tokens(*shape):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(0))


def test_the_listing_has_the_statements_of_the_book():
    """GPT, statement for statement, apart from type hints and comments."""
    source = "\n".join(line.split("  #")[0] for line in inspect.getsource(build.GPT).splitlines())
    statements = [
        "super().__init__()",
        "self.tok_emb = nn.Embedding(vocab, n_embd)",
        "self.pos_emb = nn.Embedding(block_size, n_embd)",
        "self.blocks = nn.Sequential(*[Block(n_embd, n_head) for _ in range(n_layer)])",
        "self.ln_f = nn.LayerNorm(n_embd)",
        "self.head = nn.Linear(n_embd, vocab, bias=False)",
        "B, T = idx.shape",
        "pos = torch.arange(T, device=idx.device)",
        "x = self.tok_emb(idx) + self.pos_emb(pos)",
        "x = self.blocks(x)",
        "x = self.ln_f(x)",
        "return self.head(x)",
    ]
    lines = [line.strip() for line in source.splitlines()]
    docstring = lines.index('"""', 1)
    code = [line for line in lines[docstring + 1 :] if line and not line.startswith("def ")]
    assert code == statements


def test_evaluate_returns_a_float_and_builds_no_graph(model):
    grads = []
    model.ln_f.register_forward_hook(lambda *_: grads.append(torch.is_grad_enabled()))
    assert type(build.evaluate(model, tokens(30), BLOCK)) is float
    build.generate(model, tokens(1, 2), 3)
    assert grads and not any(grads)


def test_evaluate_and_get_batch_draw_nothing_from_the_global_random_state(model):
    state = torch.get_rng_state()
    build.evaluate(model, tokens(30), BLOCK)
    build.get_batch(tokens(30), BLOCK, 4, torch.Generator().manual_seed(0))
    build.generate(model, tokens(1, 2), 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("windows", [1, 31, 32, 33, 70])
def test_evaluate_gives_the_model_at_most_32_windows_at_once(model, windows):
    sizes = []
    model.register_forward_hook(lambda layer, given, out: sizes.append(tuple(given[0].shape)))
    build.evaluate(model, tokens(windows * BLOCK + 1), BLOCK)
    assert sum(B for B, _ in sizes) == windows and max(B for B, _ in sizes) <= 32


def test_temperature_zero_is_greedy(model):
    idx = tokens(2, 3)
    greedy = build.generate(model, idx, 9, temperature=0)
    assert torch.equal(greedy, build.generate(model, idx, 9, top_k=1))
