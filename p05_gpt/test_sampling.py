"""The package's generate: the listing's, with top-p and without side effects."""

import pytest
import torch

from p05_gpt import build as listing

V, BLOCK = 11, 8
N = 4000


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tokens(*shape, seed=0):
    return torch.randint(V, shape, generator=seeded(seed))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = listing.GPT(V, 16, 2, 2, BLOCK)
    with torch.no_grad():
        model.head.weight.mul_(4)  # so that some tokens are likelier than others
    return model.eval()


@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0}, {"temperature": 1.7}, {"top_k": 3}, {"temperature": 0.4, "top_k": 5}],
    ids=str,
)
def test_without_top_p_it_is_the_listing(build, model, sampling):
    idx = tokens(2, 3)
    ours = build.generate(model, idx, 20, generator=seeded(1), **sampling)
    assert torch.equal(ours, listing.generate(model, idx, 20, generator=seeded(1), **sampling))


@pytest.mark.parametrize(
    "sampling",
    [
        {"top_p": 0.6},
        {"top_p": 1.0},
        {"top_p": 1e-6},
        {"temperature": 2.0, "top_p": 0.8},
        {"top_k": 4, "top_p": 0.7},
    ],
    ids=str,
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(build, model, sampling):
    idx = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        logits = model(idx)[0, -1] / sampling.get("temperature", 1.0)
    probs, order = logits.softmax(-1).sort(descending=True)
    probs[sampling.get("top_k", V) :] = 0
    probs = probs / probs.sum()
    kept = torch.where(probs.cumsum(-1) - probs < sampling["top_p"], probs, 0.0)
    expected = torch.zeros(V).scatter(0, order, kept / kept.sum())
    drawn = build.generate(model, idx.expand(N, 3), 1, generator=seeded(5), **sampling)[:, -1]
    got = torch.bincount(drawn, minlength=V) / N
    assert (got - expected).abs().max() < 0.04
    assert not got[expected == 0].any()


def test_next_token_draws_what_generate_draws(build, model):
    idx = tokens(3, 4)
    for sampling in ({}, {"temperature": 0.0}, {"top_p": 0.7}, {"top_k": 2, "temperature": 3.0}):
        with torch.no_grad():
            new = build.next_token(model(idx)[:, -1], generator=seeded(2), **sampling)
        text = build.generate(model, idx, 1, generator=seeded(2), **sampling)
        assert torch.equal(new, text[:, -1:])


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_modes_and_random_state_are_restored(build, training):
    torch.manual_seed(0)
    model = listing.GPT(V, 16, 2, 2, BLOCK).train(training)
    model.blocks[0].train(not training)  # a frozen part keeps its own mode
    for generator in (None, seeded(0)):
        for sampling in ({}, {"top_p": 0.5}):
            state = torch.get_rng_state()
            build.generate(model, tokens(1, 2), 5, generator=generator, **sampling)
            assert torch.equal(state, torch.get_rng_state())
            assert model.training == training == model.blocks[1].training
            assert model.blocks[0].training == (not training)


def test_the_mode_is_restored_when_the_model_fails(build):
    model = listing.GPT(V, 16, 2, 2, BLOCK).train()
    model.ln_f = None
    with pytest.raises(TypeError):
        build.generate(model, tokens(1, 2), 5)
    assert model.training


def test_without_a_generator_the_text_follows_the_global_seed(build, model):
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(build.generate(model, tokens(1, 2), 30))
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
    ids=str,
)
def test_invalid_arguments_raise_value_error(build, model, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build.generate(model, tokens(1, 2), 3, **wrong)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build.next_token(torch.zeros(1, V), **wrong)


def test_an_empty_text_is_a_value_error(build, model):
    with pytest.raises(ValueError, match="at least one token"):
        build.generate(model, torch.empty(1, 0, dtype=torch.int64), 3)


@pytest.mark.parametrize("temperature", [1e-40, 1e-300, 1e30], ids=str)
def test_extreme_temperatures_work(build, model, temperature):
    text = build.generate(model, tokens(1, 2), 5, temperature=temperature, generator=seeded(0))
    if temperature < 1:
        assert torch.equal(text, build.generate(model, tokens(1, 2), 5, temperature=0))


def test_a_readers_own_generate_gets_top_p_as_well(build, model, monkeypatch):
    """Gumbel noise from the global state, and the context length by another name."""

    def generate(model, idx, max_new_tokens, temperature=1.0, top_k=None, generator=None):
        for _ in range(max_new_tokens):
            logits = model(idx[:, -model.pos_emb.weight.shape[0] :])[:, -1] / temperature
            noise = -torch.empty_like(logits).exponential_(generator=generator).log()
            idx = torch.cat([idx, (logits + noise).argmax(-1, keepdim=True)], dim=1)
        return idx

    monkeypatch.setattr(listing, "generate", generate)
    greedy = build.generate(model, tokens(2, 3), 9, top_p=1e-6)
    monkeypatch.undo()
    assert torch.equal(greedy, build.generate(model, tokens(2, 3), 9, temperature=0))
