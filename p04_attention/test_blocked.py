"""The blocked form gives what the plain form gives, and what PyTorch does where that gives NaN."""

import pytest
import torch
from torch.nn import functional as F

from p04_attention import BlockedSelfAttention, CausalSelfAttention, build, masked_attention
from p04_attention.blocked import BLOCK
from p04_attention.measure import kept_bytes


def both(C=32, n_head=4):
    torch.manual_seed(0)
    plain, blocked = CausalSelfAttention(C, n_head), BlockedSelfAttention(C, n_head)
    blocked.load_state_dict(plain.state_dict())
    return plain, blocked


@pytest.mark.parametrize("T", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 22])
def test_outputs_and_gradients_are_those_of_the_plain_form(T):
    found = []
    for module in both():
        x = torch.randn(2, T, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = module(x)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        found.append([y, x.grad, *(p.grad for p in module.parameters())])
    for ours, plain in zip(*found, strict=True):
        assert torch.allclose(ours, plain, atol=1e-4)


def test_it_agrees_in_bfloat16():
    plain, blocked = (module.bfloat16() for module in both())
    x = torch.randn(2, 100, 32).bfloat16()
    assert torch.allclose(plain(x).float(), blocked(x).float(), atol=0.02)


def test_it_keeps_less_for_the_backward_pass():
    plain, blocked = both()
    shape = 1, 8 * BLOCK, 32
    assert kept_bytes(blocked, shape) < 0.75 * kept_bytes(plain, shape)


@pytest.mark.parametrize("shape", [(5, 7), (2, 1, 5, 7), (2, 3, 5, 7), (1, 7)], ids=str)
def test_a_query_that_may_attend_to_nothing_gets_zeros(shape):
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 3, T, 8, requires_grad=True) for T in (5, 7, 7))
    mask = torch.rand(shape) > 0.4
    mask[..., 0, :] = False
    upstream = torch.randn(2, 3, 5, 8)
    results = masked_attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask)
    assert torch.allclose(*results, atol=1e-5) and not results[0][..., 0, :].any()
    for ours, theirs in zip(*(torch.autograd.grad(y, (q, k, v), upstream) for y in results)):
        assert torch.allclose(ours, theirs, atol=1e-5)
    plain = build.scaled_dot_product_attention(q, k, v, mask)
    assert plain[..., 0, :].isnan().all(), "the chapter says that the plain form gives NaN"


def test_large_scores_and_no_mask_at_all():
    q, k, v = 300 * torch.randn(3, 2, 6, 8)
    mask = torch.ones(6, 6, dtype=torch.bool)
    expected = build.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(masked_attention(q, k, v, mask), expected, atol=1e-3, rtol=1e-4)
