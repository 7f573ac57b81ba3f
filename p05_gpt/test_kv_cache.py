"""The cache changes the cost of a text, never the text."""

import copy

import pytest
import torch

from p05_gpt.build import GPT
from p05_gpt.kv_cache import CachedGPT
from p05_gpt.sampling import generate

V, BLOCK = 50, 12


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GPT(V, 32, 4, 2, BLOCK)
    with torch.no_grad():  # larger weights, so that the next token depends on all before it
        for parameter in model.blocks.parameters():
            parameter.mul_(2)
        model.pos_emb.weight.normal_()
    return model


def prompt(B, T, seed=0):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def count_positions(model):
    """Count the positions that the head computes, call by call, with a hook."""
    seen = []
    hook = model.head.register_forward_hook(lambda layer, given, out: seen.append(out.shape[1]))
    return seen, hook


@pytest.mark.parametrize("T", [1, 5, BLOCK], ids=lambda T: f"T={T}")
def test_the_first_call_gives_the_logits_of_the_model(model, T):
    idx = prompt(2, T)
    assert torch.allclose(CachedGPT(model)(idx), model(idx), atol=1e-5)


@pytest.mark.parametrize("pieces", [[1] * BLOCK, [5, 1, 1, 4], [3, 9]], ids=str)
def test_reading_in_pieces_gives_the_logits_of_the_whole_text(model, pieces):
    cached, idx, read = CachedGPT(model), prompt(3, sum(pieces)), 0
    expected = model(idx)
    for n in pieces:
        got = cached(idx[:, : read + n])
        assert got.shape == (3, n, V)
        assert torch.allclose(got, expected[:, read : read + n], atol=1e-5)
        read += n


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {}, {"temperature": 1.5, "top_k": 9}, {"top_p": 0.8}], ids=str
)
@pytest.mark.parametrize("T", [1, 5, BLOCK + 3], ids=lambda T: f"T={T}")
def test_the_text_is_the_same_within_the_context_and_beyond(model, T, sampling):
    for seed in range(2):
        idx, n = prompt(2, T, seed), BLOCK + 6
        plain, cached = (
            generate(m, idx, n, generator=torch.Generator().manual_seed(seed), **sampling)
            for m in (model, CachedGPT(model))
        )
        assert torch.equal(plain, cached)


def test_a_new_token_costs_one_position_until_the_context_is_full(model):
    seen, hook = count_positions(model)
    generate(CachedGPT(model), prompt(1, 4), BLOCK)
    hook.remove()
    within = BLOCK - 4
    assert seen == [4] + [1] * within + [BLOCK] * (BLOCK - 1 - within)


def test_another_text_is_read_from_its_start(model):
    cached, idx = CachedGPT(model), prompt(2, 8)
    cached(idx)
    for other in (prompt(2, 9, seed=5), prompt(1, 9), idx, idx[:, :6]):
        assert torch.allclose(cached(other), model(other), atol=1e-5)


def test_after_forget_everything_is_computed_again(model):
    cached, idx = CachedGPT(model), prompt(1, 8)
    cached(idx[:, :7])
    cached.forget()
    assert cached(idx).shape[1] == 8


def test_more_than_the_context_is_refused_as_by_the_model(model):
    with pytest.raises(IndexError):
        model(prompt(1, BLOCK + 1))
    with pytest.raises(ValueError, match="context length of 12"):
        CachedGPT(model)(prompt(1, BLOCK + 1))


def test_a_model_with_other_parts_is_refused(model):
    other = copy.deepcopy(model)
    other.blocks[1].norm = other.blocks[1].ln_1
    del other.blocks[1].ln_1
    with pytest.raises(ValueError, match="needs a model with the parts"):
        CachedGPT(other)


def test_the_cache_has_two_numbers_per_block_channel_and_token(model):
    cached = CachedGPT(model)
    cached(prompt(2, 10))
    numbers = sum(part.numel() for kept in cached.kept for part in kept)
    assert numbers == 2 * 2 * 2 * 10 * 32
