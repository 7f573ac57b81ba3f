"""What we ask of our own attention beyond the law: good errors, and every float dtype."""

import pytest
import torch

from p04_attention import BlockedSelfAttention, build

MODULES = [build.CausalSelfAttention, BlockedSelfAttention]
HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("module", MODULES)
def test_the_refusal_names_both_numbers(module):
    with pytest.raises(ValueError, match=r"10 .* 3 heads"):
        module(10, 3)
    with pytest.raises(ValueError, match=r"4 .* 8 heads"):
        module(4, 8)


@pytest.mark.parametrize("dtype", [torch.float64, *HALF], ids=str)
def test_functions_keep_the_dtype(dtype):
    q, k, v = (torch.randn(2, 5, 8).to(dtype) for _ in range(3))
    mask = build.causal_mask(5)
    assert build.softmax(q).dtype == dtype
    assert build.attention_weights(q, k, mask).dtype == dtype
    assert build.scaled_dot_product_attention(q, k, v, mask).dtype == dtype


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("module", MODULES)
def test_a_model_in_half_precision(module, dtype):
    attention, x = module(32, 4), torch.randn(2, 70, 32)
    expected = attention(x)
    got = attention.to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    assert torch.allclose(got.float(), expected, atol=0.03)


def test_no_weight_for_the_future_is_exactly_none():
    weights = build.attention_weights(*torch.randn(2, 4, 6, 8), build.causal_mask(6))
    assert not weights[:, ~build.causal_mask(6)].any()


def test_modules_have_the_parameters_that_the_contract_names():
    assert list(build.SelfAttention(12, 8).state_dict()) == [
        f"{name}.weight" for name in ("query", "key", "value")
    ]
    for module in MODULES:
        linears = dict(module(12, 4).named_children())
        assert list(linears) == ["query", "key", "value", "proj"]
        assert all(isinstance(linear, torch.nn.Linear) for linear in linears.values())
