"""Checks of the chapter's homework.

    pytest p05_gpt --build my/p05_gpt.py --homework 1

A check is skipped until the file has what the homework asks for.
"""

import math

import pytest
import torch

from p01_autograd.lab.homework import written


def tied(build, vocab, n_embd):
    torch.manual_seed(1337)
    model = build.GPT(vocab, n_embd, 4, 2, 16)
    if model.head.weight is not model.tok_emb.weight:
        pytest.skip("head.weight and tok_emb.weight are still two matrices")
    return model


@pytest.mark.homework(1)
@pytest.mark.parametrize(("vocab", "n_embd"), [(65, 32), (512, 128)], ids=["small", "larger"])
def test_a_tied_model_starts_at_ln_v(build, vocab, n_embd):
    model = tied(build, vocab, n_embd)
    idx = torch.randint(vocab, (16, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first = build.loss(model(idx[:, :-1]), idx[:, 1:]).item()
    assert abs(first - math.log(vocab)) < 0.3, (
        f"the first loss on random tokens is {first:.2f}, and ln {vocab} is {math.log(vocab):.2f}: "
        "the head needs small initial weights, with a standard deviation of about 1 / sqrt(n_embd) "
        "or less"
    )


@pytest.mark.homework(1)
def test_a_tied_matrix_learns_from_both_ends(build):
    model = tied(build, 50, 32)
    idx = torch.randint(10, (2, 9), generator=torch.Generator().manual_seed(1))
    build.loss(model(idx[:, :-1]), idx[:, 1:]).backward()
    grad = model.tok_emb.weight.grad
    assert grad is not None, "the tied matrix has no gradient"
    assert grad[10:].abs().max() > 0, (
        "tokens that are not in the text get no gradient from the head"
    )


def rotated(build, T=8, hs=8, seed=0):
    (rotate,) = written(build, "rotate")
    x = torch.randn(2, 3, T, hs, generator=torch.Generator().manual_seed(seed))
    got = rotate(x.clone())
    assert got.shape == x.shape, (
        f"rotate should keep the shape {tuple(x.shape)}, got {tuple(got.shape)}"
    )
    return rotate, x, got


@pytest.mark.homework(3)
def test_a_rotation_keeps_lengths_and_the_first_position(build):
    _, x, got = rotated(build)
    off = (got.norm(dim=-1) - x.norm(dim=-1)).abs().max().item()
    assert off < 1e-4, f"a rotation keeps the length of every vector; one changed by {off:.2g}"
    off = (got[:, :, 0] - x[:, :, 0]).abs().max().item()
    assert off < 1e-5, f"position 0 has angle 0 and should not change; it changed by {off:.2g}"


@pytest.mark.homework(3)
def test_scores_depend_on_the_distance_alone(build):
    rotate, _, _ = rotated(build)
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 1, 1, 8, generator=generator).expand(1, 1, 9, 8) for _ in range(2))
    scores = (rotate(q.clone()) @ rotate(k.clone()).transpose(-2, -1))[0, 0]
    off = (scores[1:, 1:] - scores[:-1, :-1]).abs().max().item()
    assert off < 1e-4, (
        f"moving a query and a key by one position each changes their score by up to {off:.2g}; "
        "it should depend on their distance alone"
    )
    spread = (scores[-1].max() - scores[-1].min()).item()
    assert spread > 1e-3, "the score is the same at every distance: it ignores positions"


@pytest.mark.homework(3)
def test_a_rotation_can_start_later(build):
    rotate, x, got = rotated(build)
    later = rotate(x[:, :, 3:].clone(), 3)
    off = (later - got[:, :, 3:]).abs().max().item()
    assert off < 1e-4, (
        f"rotate(x[:, :, 3:], 3) should equal rotate(x)[:, :, 3:], as a key-value cache needs; "
        f"they differ by up to {off:.2g}"
    )
