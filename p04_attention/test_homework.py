"""What can be checked of the chapter's homework.

    pytest p04_attention --build my/p04_attention.py --homework 1

A check is skipped as long as the file does not have what the homework asks for.
"""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from p01_autograd.lab.homework import written


@pytest.mark.homework(1)
@pytest.mark.parametrize(("T", "window"), [(1, 1), (5, 1), (6, 3), (4, 4), (4, 9)])
def test_a_window_mask_sees_the_last_positions_only(build, T, window):
    (window_mask,) = written(build, "window_mask")
    expected = torch.tensor([[t - window < s <= t for s in range(T)] for t in range(T)])
    got = window_mask(T, window)
    assert got.dtype == torch.bool, f"the mask should be bool, got {got.dtype}"
    assert got.shape == (T, T), f"the mask should have shape ({T}, {T}), got {tuple(got.shape)}"
    assert torch.equal(got, expected), (
        f"window_mask({T}, {window}) should be\n{expected.int()}\nbut is\n{got.int()}"
    )


def multi_query(build, C, nh):
    (cls,) = written(build, "MultiQueryAttention")
    torch.manual_seed(1337)
    return cls(C, nh)


@pytest.mark.homework(2)
def test_one_key_and_one_value_serve_all_heads(build):
    C, nh = 12, 3
    weights = {name: part.shape for name, part in multi_query(build, C, nh).named_parameters()}
    count = sum(shape.numel() for name, shape in weights.items() if name.endswith("weight"))
    expected = 2 * C * C + 2 * C * (C // nh)
    assert count == expected, (
        f"with {C} channels and {nh} heads there should be {expected} weights: C x C for query and "
        f"proj, C x hs for key and value; there are {count}: "
        + ", ".join(f"{name} {tuple(shape)}" for name, shape in weights.items())
    )


@pytest.mark.homework(2)
@pytest.mark.parametrize("nh", [1, 3])
def test_multi_query_attention_by_its_own_projections(build, nh):
    B, T, C = 2, 5, 12
    module = multi_query(build, C, nh)
    for name in ("query", "key", "value", "proj"):
        assert hasattr(module, name), f"the projections are query, key, value and proj; no {name}"
    x = torch.randn(B, T, C)
    got = module(x)
    assert got.shape == x.shape, f"{tuple(x.shape)} should stay so, got {tuple(got.shape)}"
    q, k, v, hs = module.query(x), module.key(x), module.value(x), C // nh
    allowed = torch.ones(T, T, dtype=torch.bool).tril()
    heads = []
    for head in q.split(hs, dim=-1):  # (B, T, hs)
        scores = head @ k.transpose(-2, -1) / math.sqrt(hs)
        heads.append(scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v)
    expected = module.proj(torch.cat(heads, -1))
    off = (got - expected).abs().max().item()
    assert off < 1e-5, (
        f"the output differs by up to {off:.2g} from that of {nh} heads computed one by one from "
        "the module's own projections"
    )


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that any operation returns."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, torch.Tensor):
                self.numbers = max(self.numbers, part.numel())
        return result


@pytest.mark.homework(3)
@pytest.mark.parametrize("block", [1, 7, 16, 100])
@pytest.mark.parametrize("size", [1, 100], ids=["small scores", "large scores"])
def test_blocks_of_keys_give_the_same_mixture(build, block, size):
    (by_blocks,) = written(build, "attention_by_blocks")
    generator = torch.Generator().manual_seed(1337)
    q, k, v = (torch.randn(2, 3, 33, 8, generator=generator) for _ in range(3))
    q = q * size
    expected = (q @ k.transpose(-2, -1) / math.sqrt(8)).softmax(-1) @ v
    got = by_blocks(q, k, v, block)
    assert got.shape == expected.shape, f"expected {tuple(expected.shape)}, got {tuple(got.shape)}"
    assert torch.isfinite(got).all(), "the result is not finite: is the running maximum taken off?"
    off = (got - expected).abs().max().item()
    assert off < 1e-4, (
        f"in blocks of {block} keys the result differs by up to {off:.2g}: when the maximum rises, "
        "what was summed before has to be scaled down by exp(old maximum - new maximum)"
    )


@pytest.mark.homework(3)
def test_blocks_of_keys_never_hold_all_scores(build):
    (by_blocks,) = written(build, "attention_by_blocks")
    T, hs, block = 256, 4, 16
    q, k, v = (torch.randn(1, 1, T, hs) for _ in range(3))
    with Largest() as largest, torch.no_grad():
        by_blocks(q, k, v, block)
    assert largest.numbers <= T * block, (
        f"with T = {T} and blocks of {block} no tensor needs more than T x block = {T * block} "
        f"numbers; one had {largest.numbers}"
    )
