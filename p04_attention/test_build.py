"""Is what I typed right? `pytest p04_attention` asks that of attention, in the book's order."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rows(x):
    """A tensor as a learner reads it: rounded, one row a line."""
    if x.dim() < 2:
        return str([round(value, 4) for value in x.tolist()])
    return "\n".join("    " + rows(row) for row in x.reshape(-1, x.shape[-1])[:6])


def named(got, mistakes, otherwise=""):
    """The likely reason: the mistake among {reason: result} that gives exactly what we got."""
    for reason, result in mistakes.items():
        if result.shape == got.shape and torch.allclose(got, result, atol=1e-5, equal_nan=True):
            return f"\nThe usual reason: {reason}."
    return f"\n{otherwise}" if otherwise else ""


def must_equal(what, got, expected, mistakes=None, otherwise="", atol=1e-5):
    assert isinstance(got, torch.Tensor), f"{what} should be a tensor, got {type(got).__name__}"
    assert got.shape == expected.shape, (
        f"{what} should have shape {tuple(expected.shape)}, got {tuple(got.shape)}"
    )
    assert torch.allclose(got, expected, atol=atol), (
        f"{what} should be\n{rows(expected)}\nbut is\n{rows(got)}"
        + named(got, mistakes or {}, otherwise)
    )


# softmax


@pytest.mark.checks("softmax")
def test_softmax_keeps_the_shape(build):
    for shape in ((3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)):
        got = build.softmax(randn(*shape))
        assert got.shape == shape, f"softmax of shape {shape} came back as {tuple(got.shape)}"


@pytest.mark.checks("softmax")
def test_softmax_of_three_scores_by_hand(build):
    x = torch.tensor([0.0, math.log(2), math.log(5)])  # exp gives 1, 2, 5
    mistakes = {
        "the logarithm of the softmax was returned": F.log_softmax(x, -1),
        "the exponentials are not divided by their sum": x.exp(),
        "the scores are divided by their sum without exp": x / x.sum(),
    }
    must_equal(
        "softmax([0, ln 2, ln 5])", build.softmax(x), torch.tensor([0.125, 0.25, 0.625]), mistakes
    )


@pytest.mark.checks("softmax")
def test_softmax_works_along_the_last_dimension_by_default(build):
    x = randn(3, 3)
    must_equal(
        "softmax of a (3, 3) tensor",
        build.softmax(x),
        F.softmax(x, -1),
        {
            "it works along dimension 0; the default is dim=-1": F.softmax(x, 0),
            "it normalises over all elements at once": F.softmax(x.view(-1), 0).view(3, 3),
        },
    )


@pytest.mark.checks("softmax")
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3], ids=lambda dim: f"dim={dim}")
def test_softmax_works_along_the_dimension_asked_for(build, dim):
    x = randn(3, 3, 3, seed=1)
    mistakes = {f"it works along dim {other}": F.softmax(x, other) for other in range(3)}
    must_equal(
        f"softmax(x, dim={dim}), x of shape (3, 3, 3),",
        build.softmax(x, dim),
        F.softmax(x, dim),
        mistakes,
    )
    x = randn(2, 3, 4, seed=2)
    must_equal(
        f"softmax(x, dim={dim}), x of shape (2, 3, 4),",
        build.softmax(x, dim=dim),
        F.softmax(x, dim),
    )


@pytest.mark.checks("softmax")
def test_softmax_sums_to_one_and_is_positive(build):
    weights = build.softmax(5 * randn(4, 7, seed=3))
    assert (weights > 0).all(), f"softmax gave a weight that is not positive:\n{rows(weights)}"
    sums = weights.sum(-1)
    assert torch.allclose(sums, torch.ones(4)), (
        f"each row should sum to 1, the sums are {rows(sums)}"
    )


@pytest.mark.checks("softmax")
@pytest.mark.parametrize("shift", [100.0, 1000.0, -1000.0], ids=lambda shift: f"{shift:g}")
def test_softmax_is_not_changed_by_a_constant(build, shift):
    x = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    got = build.softmax(x + shift)
    assert torch.allclose(got, torch.full((2, 4), 0.25), atol=1e-4), (
        f"softmax of four equal scores of {shift:g} should be 0.25 each, got\n{rows(got)}\n"
        "exp overflows above 88 and vanishes below -104: subtract the largest score first"
    )


@pytest.mark.checks("softmax")
def test_softmax_survives_rows_of_very_different_size(build):
    x = torch.tensor([[-2000.0, -2000.0], [0.0, 0.0], [2000.0, 2000.0]])
    got = build.softmax(x)
    assert torch.allclose(got, torch.full((3, 2), 0.5), atol=1e-3), (
        f"softmax of the rows {x.tolist()} should be 0.5 everywhere, got\n{rows(got)}\n"
        "The usual reason: the largest score of the whole tensor is subtracted, not each row's own"
    )


@pytest.mark.checks("softmax")
def test_softmax_gives_no_weight_to_minus_infinity(build):
    got = build.softmax(torch.tensor([[-math.inf, 0.0, 0.0], [3.0, -math.inf, -math.inf]]))
    must_equal(
        "softmax of a row with -inf in it",
        got,
        torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]),
        otherwise="exp(-inf) is 0: what is masked must get no weight and make no NaN",
    )


@pytest.mark.checks("softmax")
def test_softmax_has_the_right_gradient(build):
    for scale, shift in ((1.0, 0.0), (3.0, 200.0)):
        x = (scale * randn(3, 5, seed=4, dtype=torch.float64) + shift).requires_grad_()
        upstream = randn(3, 5, seed=5, dtype=torch.float64)
        weights = build.softmax(x)
        assert weights.requires_grad, (
            "softmax cut the graph: its result has no gradient. Was .detach(), .data or NumPy used?"
        )
        (got,) = torch.autograd.grad((weights * upstream).sum(), x)
        (expected,) = torch.autograd.grad((F.softmax(x, -1) * upstream).sum(), x)
        must_equal(
            "the gradient of softmax",
            got,
            expected,
            otherwise="Is a part of it detached that should not be?",
        )


@pytest.mark.checks("softmax")
def test_softmax_leaves_its_input_and_dtype_alone(build):
    x = randn(2, 3, seed=6)
    before = x.clone()
    build.softmax(x)
    assert torch.equal(x, before), "softmax changed its argument in place; make a new tensor"
    got = build.softmax(x.double())
    assert got.dtype == torch.float64, f"softmax of float64 should be float64, got {got.dtype}"


@pytest.mark.checks("softmax")
def test_softmax_agrees_with_torch(build):
    x = 10 * randn(2, 3, 4, 5, seed=7, dtype=torch.float64)
    must_equal("softmax(x)", build.softmax(x), F.softmax(x, -1), atol=1e-12)


# causal_mask


@pytest.mark.checks("causal_mask")
@pytest.mark.parametrize("T", [1, 2, 5], ids=lambda T: f"T={T}")
def test_causal_mask_is_square_and_bool(build, T):
    mask = build.causal_mask(T)
    assert mask.shape == (T, T), f"causal_mask({T}) should be {(T, T)}, got {tuple(mask.shape)}"
    assert mask.dtype == torch.bool, f"causal_mask should hold True and False, got {mask.dtype}"


@pytest.mark.checks("causal_mask")
def test_causal_mask_of_three_by_hand(build):
    got = build.causal_mask(3).int()
    expected = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    reason = named(
        got.float(),
        {
            "the mask is upside down: True means may attend, so the past is True": 1
            - expected.float(),
            "row and column are exchanged: tril, not triu": expected.T.float(),
            "the diagonal is missing: a position attends to itself": torch.tensor(
                [[0.0, 0, 0], [1, 0, 0], [1, 1, 0]]
            ),
        },
    )
    assert torch.equal(got.long(), expected.long()), (
        f"causal_mask(3) should be {expected.bool().tolist()}, got {got.bool().tolist()}{reason}"
    )


@pytest.mark.checks("causal_mask")
def test_causal_mask_lets_position_t_see_t_plus_one_positions(build):
    counts = build.causal_mask(40).sum(-1).tolist()
    assert counts == list(range(1, 41)), (
        f"the rows of causal_mask(40) should allow 1, 2, ... 40 positions, they allow {counts}"
    )


# attention_weights


def weights_by_the_book(q, k, mask=None, scale=None):
    scores = q @ k.transpose(-2, -1) / (math.sqrt(q.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return F.softmax(scores, -1)


def weight_mistakes(q, k, mask=None):
    """What the usual slips in attention_weights give, by reason."""
    hs, everyone = q.shape[-1], torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    allowed = everyone if mask is None else mask
    scores = q @ k.transpose(-2, -1) / math.sqrt(hs)
    full = F.softmax(scores, -1)
    return {
        "the scores are not divided by the root of the head size": weights_by_the_book(
            q, k, mask, 1
        ),
        "the scores are divided by the head size, not by its root": weights_by_the_book(
            q, k, mask, hs
        ),
        "the scores are multiplied by the root of the head size": weights_by_the_book(
            q, k, mask, 1 / math.sqrt(hs)
        ),
        "the scores are divided by the root of the number of keys": weights_by_the_book(
            q, k, mask, math.sqrt(k.shape[-2])
        ),
        "the softmax runs over the queries (dim=-2), not over the keys (dim=-1)": F.softmax(
            scores.masked_fill(~allowed, -math.inf), -2
        ),
        "the mask is not applied": full,
        "the mask is upside down: True means may attend": weights_by_the_book(q, k, ~allowed),
        "the mask is applied after the softmax: the rows no longer sum to 1": full * allowed,
        "masked scores are set to 0; exp(0) is 1, so use -inf": F.softmax(
            scores.masked_fill(~allowed, 0.0), -1
        ),
        "there is no softmax": scores.masked_fill(~allowed, 0.0),
        "a causal mask is applied though none was given": weights_by_the_book(
            q, k, everyone.tril()
        ),
    }


@pytest.mark.checks("attention_weights")
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 2)], ids=str)
def test_attention_weights_have_a_row_for_each_query(build, lead):
    q, k = randn(*lead, 4, 8), randn(*lead, 6, 8, seed=1)
    got = build.attention_weights(q, k)
    assert got.shape == (*lead, 4, 6), (
        f"q {tuple(q.shape)} and k {tuple(k.shape)} should give weights {(*lead, 4, 6)}, "
        f"got {tuple(got.shape)}"
    )


@pytest.mark.checks("attention_weights")
def test_attention_weights_of_one_query_by_hand(build):
    # head size 4, so the scores 2 ln 3 and 0 are halved; exp gives 3 and 1
    q = torch.tensor([[2 * math.log(3), 0.0, 0.0, 0.0]])
    k = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    must_equal(
        "the weights of scores 2 ln 3 and 0, head size 4,",
        build.attention_weights(q, k),
        torch.tensor([[0.75, 0.25]]),
        weight_mistakes(q, k),
    )


@pytest.mark.checks("attention_weights")
@pytest.mark.parametrize("hs", [4, 16, 64, 256], ids=lambda hs: f"hs={hs}")
def test_scores_are_divided_by_the_root_of_the_head_size(build, hs):
    q, k = randn(1, 5, hs, seed=2), randn(1, 7, hs, seed=3)
    must_equal(
        f"the weights for head size {hs}",
        build.attention_weights(q, k),
        weights_by_the_book(q, k),
        weight_mistakes(q, k),
    )


@pytest.mark.checks("attention_weights")
def test_the_softmax_runs_over_the_keys(build):
    got = build.attention_weights(randn(2, 5, 8, seed=4), randn(2, 5, 8, seed=5))
    sums = got.sum(-1)
    assert torch.allclose(sums, torch.ones(2, 5), atol=1e-5), (
        f"the weights of each query should sum to 1 over the keys; the rows sum to\n{rows(sums)}\n"
        "Is the softmax along the last dimension, and is nothing changed after it?"
    )


@pytest.mark.checks("attention_weights")
def test_queries_ask_and_keys_answer(build):
    q, k = randn(5, 8, seed=6), randn(5, 8, seed=7)
    expected = weights_by_the_book(q, k)
    must_equal(
        "the weights of q and k",
        build.attention_weights(q, k),
        expected,
        {"q and k are exchanged: the rows belong to the queries": weights_by_the_book(k, q)}
        | weight_mistakes(q, k),
    )


@pytest.mark.checks("attention_weights")
def test_masked_positions_get_no_weight_and_the_rest_sums_to_one(build):
    q, k, mask = randn(2, 4, 8, seed=8), randn(2, 4, 8, seed=9), torch.ones(4, 4).bool().tril()
    before = mask.clone()
    got = build.attention_weights(q, k, mask)
    assert torch.equal(mask, before), "attention_weights changed the mask in place"
    must_equal(
        "the weights under a causal mask",
        got,
        weights_by_the_book(q, k, mask),
        weight_mistakes(q, k, mask),
    )
    assert (got[:, ~mask] == 0).all(), (
        f"a masked position should get exactly 0; there the largest is {got[:, ~mask].max()}\n"
        "Fill with -inf before the softmax"
    )


@pytest.mark.checks("attention_weights")
def test_a_mask_is_stronger_than_any_score(build):
    q = torch.tensor([[300.0, 0.0, 0.0, 0.0]])
    k = torch.tensor([[-400.0, 0.0, 0.0, 0.0], [300.0, 0.0, 0.0, 0.0]])
    got = build.attention_weights(q, k, torch.tensor([[True, False]]))
    must_equal(
        "the weights of scores -60,000 (allowed) and 45,000 (masked)",
        got,
        torch.tensor([[1.0, 0.0]]),
        weight_mistakes(q, k, torch.tensor([[True, False]])),
        otherwise="Masked scores must become -inf; a number such as -1e4 is not enough",
    )


@pytest.mark.checks("attention_weights")
@pytest.mark.parametrize("shape", [(4, 6), (1, 6), (2, 1, 4, 6), (2, 3, 4, 6), (3, 4, 6)], ids=str)
def test_a_mask_is_broadcast_over_the_leading_dimensions(build, shape):
    q, k = randn(2, 3, 4, 8, seed=10), randn(2, 3, 6, 8, seed=11)
    mask = randn(*shape, seed=12) > 0
    mask[..., 0] = True  # every query may attend somewhere
    must_equal(
        f"the weights under a mask of shape {shape}",
        build.attention_weights(q, k, mask),
        weights_by_the_book(q, k, mask),
        weight_mistakes(q, k, mask),
    )


@pytest.mark.checks("attention_weights")
def test_without_a_mask_every_key_is_seen(build):
    q, k = randn(4, 8, seed=13), randn(4, 8, seed=14)
    got = build.attention_weights(q, k)
    assert (got > 0).all(), f"without a mask every weight is positive, got\n{rows(got)}" + named(
        got, weight_mistakes(q, k)
    )


@pytest.mark.checks("attention_weights")
def test_attention_weights_survive_large_scores(build):
    q, k = 1e4 * randn(3, 8, seed=15), randn(3, 8, seed=16)
    got = build.attention_weights(q, k)
    assert torch.isfinite(got).all(), (
        f"scores in the ten thousands gave\n{rows(got)}\nexp overflowed: subtract each row's "
        "largest score first, as softmax does"
    )
    must_equal("the weights of scores in the thousands", got, weights_by_the_book(q, k))
    q, k = 3 * randn(3, 8, seed=15), 10 * randn(3, 8, seed=16)
    got = build.attention_weights(q, k)
    must_equal("the weights of scores about 30", got, weights_by_the_book(q, k))


@pytest.mark.checks("attention_weights")
def test_attention_weights_pass_gradients_to_queries_and_keys(build):
    q, k = randn(4, 8, seed=17).requires_grad_(), randn(4, 8, seed=18).requires_grad_()
    mask, upstream = torch.ones(4, 4).bool().tril(), randn(4, 4, seed=19)
    got = torch.autograd.grad((build.attention_weights(q, k, mask) * upstream).sum(), (q, k))
    expected = torch.autograd.grad((weights_by_the_book(q, k, mask) * upstream).sum(), (q, k))
    for name, mine, theirs in zip("qk", got, expected, strict=True):
        must_equal(f"the gradient of the weights with respect to {name}", mine, theirs)


# scaled_dot_product_attention


@pytest.mark.checks("scaled_dot_product_attention")
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 2)], ids=str)
def test_attention_output_has_a_row_for_each_query(build, lead):
    q, k, v = randn(*lead, 4, 8), randn(*lead, 6, 8, seed=1), randn(*lead, 6, 5, seed=2)
    got = build.scaled_dot_product_attention(q, k, v)
    assert got.shape == (*lead, 4, 5), (
        f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} should give {(*lead, 4, 5)}, "
        f"got {tuple(got.shape)}"
    )


@pytest.mark.checks("scaled_dot_product_attention")
def test_attention_mixes_values_by_hand(build):
    q = torch.tensor([[2 * math.log(3), 0.0, 0.0, 0.0]])  # weights 3/4 and 1/4, as above
    k = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    v = torch.tensor([[4.0, 0.0, 8.0], [0.0, 4.0, 8.0]])
    got = build.scaled_dot_product_attention(q, k, v)
    mistakes = {why: w @ v for why, w in weight_mistakes(q, k).items()}
    must_equal(
        "three quarters of [4, 0, 8] and one of [0, 4, 8]",
        got,
        torch.tensor([[3.0, 1.0, 8.0]]),
        mistakes,
    )


@pytest.mark.checks("scaled_dot_product_attention")
def test_equal_values_come_out_unchanged(build):
    q, k, v = randn(2, 4, 8), randn(2, 6, 8, seed=1), torch.ones(2, 6, 3) * 7
    must_equal(
        "a mixture of values that are all 7",
        build.scaled_dot_product_attention(q, k, v),
        torch.full((2, 4, 3), 7.0),
        otherwise="The weights of a query must sum to 1, and multiply v",
    )


@pytest.mark.checks("scaled_dot_product_attention")
def test_attention_does_not_depend_on_the_order_of_the_keys(build):
    q, k, v = randn(4, 8), randn(6, 8, seed=1), randn(6, 5, seed=2)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    must_equal(
        "attention over the same keys and values in another order",
        build.scaled_dot_product_attention(q, k[order], v[order]),
        build.scaled_dot_product_attention(q, k, v),
    )


@pytest.mark.checks("scaled_dot_product_attention")
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "causal"])
@pytest.mark.parametrize(
    "lead, Tq, Tk, hs, d_v",
    [((), 5, 5, 8, 8), ((2,), 5, 5, 16, 4), ((2, 3), 4, 4, 8, 8), ((2, 3), 3, 7, 32, 5)],
    ids=["2-D", "3-D", "4-D", "Tq<Tk"],
)
def test_attention_agrees_with_torch(build, lead, Tq, Tk, hs, d_v, masked):
    q, k, v = randn(*lead, Tq, hs), randn(*lead, Tk, hs, seed=1), randn(*lead, Tk, d_v, seed=2)
    mask = torch.ones(Tq, Tk).bool().tril() if masked else None
    inputs = [tensor.requires_grad_() for tensor in (q, k, v)]
    got = build.scaled_dot_product_attention(*inputs, mask)
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
    mistakes = {why: w @ v for why, w in weight_mistakes(q, k, mask).items()}
    mistakes["the result is the weights, not the mixture of values"] = weights_by_the_book(
        q, k, mask
    )
    must_equal("scaled_dot_product_attention", got, expected, mistakes)
    upstream = randn(*lead, Tq, d_v, seed=3)
    got_grads = torch.autograd.grad((got * upstream).sum(), inputs)
    expected_grads = torch.autograd.grad((expected * upstream).sum(), inputs)
    for name, mine, theirs in zip("qkv", got_grads, expected_grads, strict=True):
        must_equal(f"the gradient with respect to {name}", mine, theirs)


@pytest.mark.checks("scaled_dot_product_attention")
def test_attention_leaves_its_arguments_alone(build):
    tensors = [randn(2, 4, 8), randn(2, 4, 8, seed=1), randn(2, 4, 8, seed=2)]
    tensors.append(torch.ones(4, 4).bool().tril())
    before = [tensor.clone() for tensor in tensors]
    build.scaled_dot_product_attention(*tensors)
    for name, now, then in zip(("q", "k", "v", "mask"), tensors, before, strict=True):
        assert torch.equal(now, then), f"{name} was changed in place; make a new tensor"


# both modules: the laws of causal attention


def one_head(build):
    torch.manual_seed(0)
    return sharpened(build.SelfAttention(12, 8))


def four_heads(build):
    torch.manual_seed(0)
    return sharpened(build.CausalSelfAttention(12, 4))


def sharpened(module):
    """The module without dropout and with larger weights, so that attention has preferences."""
    module.eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3)
    return module


MODULES = [
    pytest.param(one_head, id="SelfAttention", marks=pytest.mark.checks("SelfAttention")),
    pytest.param(
        four_heads, id="CausalSelfAttention", marks=pytest.mark.checks("CausalSelfAttention")
    ),
]


def rms(x):
    return x.square().mean().sqrt()


@pytest.mark.parametrize("make", MODULES)
def test_a_later_token_cannot_change_an_earlier_output(build, make):
    attention, x = make(build), randn(2, 6, 12, seed=1)
    before = attention(x)
    for t in range(6):
        changed_input = x.clone()
        changed_input[:, t] = randn(2, 12, seed=2 + t)
        change = (attention(changed_input) - before).abs().amax((0, 2))
        changed = [at for at in range(t) if change[at] > 1e-4 * rms(before)]
        assert not changed, (
            f"changing token {t} changed the output at positions {changed}, all before it:\n"
            "attention looks into the future. Is the mask applied before the softmax, and are the "
            "heads split with a transpose?"
        )
        assert change[t] > 1e-4 * rms(before), (
            f"changing token {t} did not change the output at position {t}: a position attends to "
            "itself, too"
        )


@pytest.mark.parametrize("make", MODULES)
def test_every_earlier_token_is_seen(build, make):
    attention, x = make(build), randn(1, 5, 12, seed=1)
    before = attention(x)[:, -1]
    for t in range(4):
        changed_input = x.clone()
        changed_input[:, t] = randn(1, 12, seed=2 + t)
        assert (attention(changed_input)[:, -1] - before).abs().max() > 1e-5 * rms(before), (
            f"changing token {t} did not change the last output: the past is not seen. Is the mask "
            "upside down, or does each position attend to itself alone?"
        )


@pytest.mark.parametrize("make", MODULES)
def test_the_order_of_the_past_does_not_matter(build, make):
    attention, x = make(build), randn(2, 6, 12, seed=1)
    shuffled = x[:, [2, 0, 4, 1, 3, 5]]
    must_equal(
        "the last output after the past was shuffled",
        attention(shuffled)[:, -1],
        attention(x)[:, -1],
        otherwise="Attention takes a weighted sum over the past: only positions that are "
        "mixed up with channels or heads could tell the order",
    )


@pytest.mark.parametrize("make", MODULES)
def test_one_sequence_does_not_see_another_of_the_batch(build, make):
    attention, x = make(build), randn(3, 5, 12, seed=1)
    together = attention(x)
    alone = torch.cat([attention(x[i : i + 1]) for i in range(3)])
    must_equal(
        "three sequences in one batch, compared with each alone,",
        together,
        alone,
        otherwise="Do the reshapes keep the batch dimension apart?",
    )


@pytest.mark.parametrize("make", MODULES)
def test_a_constant_sequence_gives_a_constant_output(build, make):
    attention = make(build)
    token = randn(2, 1, 12, seed=1)
    alone = attention(token)
    must_equal(
        "six times the same token, at each position,",
        attention(token.expand(2, 6, 12)),
        alone.expand(2, 6, alone.shape[-1]),
        otherwise="A mixture of equal values is that value: do the weights sum to 1?",
    )


@pytest.mark.parametrize("make", MODULES)
def test_a_lone_token_is_only_projected(build, make):
    attention, x, y = make(build), randn(1, 1, 12, seed=1), randn(1, 1, 12, seed=2)
    must_equal(
        "the output for the mean of two tokens, each a sequence of its own,",
        attention((x + y) / 2),
        (attention(x) + attention(y)) / 2,
        otherwise="With one token the only weight is 1 and the output is linear in the "
        "token: nothing but the projections may act on the values",
    )


@pytest.mark.parametrize("make", MODULES)
def test_any_length_works_one_after_the_other(build, make):
    attention, x = make(build), randn(2, 80, 12, seed=1)
    whole = attention(x)
    for T in (7, 1, 80, 3):
        got = attention(x[:, :T])
        must_equal(
            f"the output for the first {T} tokens, taken alone,",
            got,
            whole[:, :T],
            otherwise="Is the mask made for the length at hand?",
        )


@pytest.mark.parametrize("make", MODULES)
def test_every_parameter_learns(build, make):
    attention = make(build)
    attention(randn(2, 6, 12, seed=1)).square().sum().backward()
    idle = [
        name
        for name, parameter in attention.named_parameters()
        if parameter.dim() > 1 and (parameter.grad is None or not parameter.grad.any())
    ]
    assert not idle, f"no gradient reaches {', '.join(idle)}: unused, or cut off from the graph"


def run_with_hooks(attention, x):
    """The output, the features that Linears made of x, and what the last Linear was given."""
    seen, hooks = [], []
    for module in attention.modules():
        if isinstance(module, torch.nn.Linear):
            hooks.append(
                module.register_forward_hook(
                    lambda _, inputs, output: seen.append((inputs[0].detach(), output.detach()))
                )
            )
    with torch.no_grad():
        attention(x)
    for hook in hooks:
        hook.remove()
    of_x = [out for given, out in seen if given.shape == x.shape and torch.equal(given, x)]
    others = [given for given, out in seen if not torch.equal(given.reshape(-1), x.reshape(-1))]
    features = torch.cat(of_x, -1) if of_x else None
    return features, others[-1] if others else None


def head_layouts(features, n_head):
    """All ways in which (B, T, 3 * C) features can hold q, k and v of n_head heads."""
    B, T, width = features.shape
    hs = width // (3 * n_head)
    by_part = features.view(B, T, 3, n_head, hs).permute(2, 0, 3, 1, 4)
    by_head = features.view(B, T, n_head, 3, hs).permute(3, 0, 2, 1, 4)
    strided = features.view(B, T, 3, hs, n_head).permute(2, 0, 4, 1, 3)
    yield from itertools.chain.from_iterable(
        itertools.permutations(layout) for layout in (by_part, by_head, strided)
    )


def mixtures(features, n_head, weights=weights_by_the_book):
    """The heads' outputs (B, T, C), for each way the features can be laid out."""
    B, T, _ = features.shape
    mask = torch.ones(T, T).bool().tril()
    for q, k, v in head_layouts(features, n_head):  # (B, nh, T, hs) each
        y = weights(q, k, mask) @ v
        yield y.transpose(1, 2).reshape(B, T, -1)
        yield y.permute(0, 2, 3, 1).reshape(B, T, -1)


def must_be_a_mixture(got, features, n_head, what):
    """`got` is what n_head causal heads make of the features, in one of the usual layouts."""
    if any(torch.allclose(got, want, atol=1e-4) for want in mixtures(features, n_head)):
        return
    reasons = {
        why: (lambda q, k, mask, why=why: weight_mistakes(q, k, mask)[why])
        for why in weight_mistakes(torch.ones(1, 2), torch.ones(1, 2))
    }
    width = features.shape[-1] // 3
    reasons["the scores are divided by the root of n_embd, not of the head size"] = (
        lambda q, k, mask: weights_by_the_book(q, k, mask, math.sqrt(width))
    )
    likely = "Are the heads split, scaled by their own size, masked, and joined again in order?"
    for why, weights in reasons.items():
        if any(
            torch.allclose(got, want, atol=1e-4) for want in mixtures(features, n_head, weights)
        ):
            likely = f"The usual reason: {why}."
            break
    for wrong in (1, 2, 3, 4, 6, 12):
        if (
            width % wrong == 0
            and wrong != n_head
            and any(torch.allclose(got, want, atol=1e-4) for want in mixtures(features, wrong))
        ):
            likely = f"It works like {wrong} head(s) where {n_head} were asked for."
    pytest.fail(
        f"{what} is not what {n_head} causal head(s) make of its queries, keys and values.\n"
        f"{likely}",
        pytrace=False,
    )


# SelfAttention


@pytest.mark.checks("SelfAttention")
@pytest.mark.parametrize("head_size", [1, 8, 20], ids=lambda size: f"head_size={size}")
def test_one_head_gives_head_size_channels(build, head_size):
    got = build.SelfAttention(12, head_size)(randn(2, 5, 12))
    assert got.shape == (2, 5, head_size), (
        f"SelfAttention(12, {head_size}) should turn (2, 5, 12) into (2, 5, {head_size}), "
        f"got {tuple(got.shape)}"
    )


@pytest.mark.checks("SelfAttention")
def test_one_head_has_three_projections(build):
    weights = sum(p.numel() for p in build.SelfAttention(12, 8).parameters() if p.dim() > 1)
    assert weights == 3 * 12 * 8, (
        f"SelfAttention(12, 8) needs three projections of 12 x 8 = {3 * 12 * 8} weights for query, "
        f"key and value, it has {weights}"
    )


@pytest.mark.checks("SelfAttention")
@pytest.mark.parametrize("head_size", [2, 8, 32], ids=lambda size: f"head_size={size}")
def test_one_head_is_causal_attention_on_its_projections(build, head_size):
    torch.manual_seed(1)
    attention = sharpened(build.SelfAttention(12, head_size))
    x = randn(2, 6, 12, seed=1)
    features, _ = run_with_hooks(attention, x)
    if features is not None and features.shape[-1] == 3 * head_size:
        must_be_a_mixture(attention(x).detach(), features, 1, "the output of SelfAttention")


# CausalSelfAttention


@pytest.mark.checks("CausalSelfAttention")
@pytest.mark.parametrize("n_head", [1, 2, 3, 12], ids=lambda n: f"{n} heads")
def test_many_heads_keep_the_shape(build, n_head):
    got = build.CausalSelfAttention(12, n_head)(randn(2, 5, 12))
    assert got.shape == (2, 5, 12), (
        f"CausalSelfAttention(12, {n_head}) should keep (2, 5, 12), got {tuple(got.shape)}"
    )


@pytest.mark.checks("CausalSelfAttention")
def test_channels_that_do_not_divide_into_heads_are_refused(build):
    for n_embd, n_head in ((10, 3), (4, 8)):
        try:
            build.CausalSelfAttention(n_embd, n_head)
        except ValueError:
            continue
        pytest.fail(
            f"CausalSelfAttention({n_embd}, {n_head}) should raise ValueError: {n_embd} "
            f"channels cannot be divided among {n_head} heads",
            pytrace=False,
        )


@pytest.mark.checks("CausalSelfAttention")
def test_many_heads_have_four_projections(build):
    for n_head in (1, 4):
        module = build.CausalSelfAttention(12, n_head)
        weights = sum(p.numel() for p in module.parameters() if p.dim() > 1)
        assert weights == 4 * 12 * 12, (
            f"CausalSelfAttention(12, {n_head}) needs 4 x 12 x 12 = {4 * 12 * 12} weights for "
            f"query, key, value and output, whatever the number of heads; it has {weights}"
        )


@pytest.mark.checks("CausalSelfAttention")
@pytest.mark.parametrize("n_head", [1, 2, 4, 12], ids=lambda n: f"{n} heads")
def test_many_heads_are_causal_attention_on_slices_of_the_channels(build, n_head):
    torch.manual_seed(1)
    attention = sharpened(build.CausalSelfAttention(12, n_head))
    x = randn(2, 6, 12, seed=1)
    features, joined = run_with_hooks(attention, x)
    if (
        features is None
        or joined is None
        or features.shape[-1] != 36
        or joined.numel() != x.numel()
    ):
        return  # the projections are not called as modules; the laws above still hold them
    must_be_a_mixture(joined.reshape(x.shape), features, n_head, "what the heads pass on")


@pytest.mark.checks("CausalSelfAttention")
def test_the_last_step_is_a_projection_of_the_joined_heads(build):
    attention = four_heads(build)
    linears = [m for m in attention.modules() if isinstance(m, torch.nn.Linear)]
    outputs = []
    hooks = [m.register_forward_hook(lambda _, i, out: outputs.append(out)) for m in linears]
    got = attention(randn(2, 6, 12, seed=1))
    for hook in hooks:
        hook.remove()
    if outputs:
        last = outputs[-1]
        assert last.shape == got.shape and torch.equal(last, got), (
            "the output should be what the output projection makes of the joined heads, unchanged"
        )
