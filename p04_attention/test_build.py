"""Is what I typed right? `pytest p04_attention` asks that of attention, in the book's order."""

import math

import pytest
import torch
from torch.nn import functional as F

from p04_attention.laws import MOVED, moved


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rows(x):
    """A tensor as a learner reads it: rounded, one row a line."""
    if x.dim() < 2:
        return str([round(value, 4) for value in x.tolist()])
    return "\n".join("    " + rows(row) for row in x.reshape(-1, x.shape[-1])[:6])


def close(got, expected, atol=1e-5):
    return torch.allclose(got.to(expected.dtype), expected, atol=atol, equal_nan=True)


def alike(got, mistake, atol):
    """Whether this is what came; a row that the mistake turns into NaN may be anything."""
    if got.shape != mistake.shape or not mistake.isfinite().any():
        return False
    clear = mistake.isfinite()
    return close(got[clear], mistake[clear], atol)


def must_equal(what, got, expected, mistakes=None, otherwise="", atol=1e-5):
    """`mistakes` is {reason: result}; a reason is given where its result is the one that came."""
    assert isinstance(got, torch.Tensor), f"{what} should be a tensor, got {kind_of(got)}"
    assert got.shape == expected.shape, (
        f"{what} should have shape {tuple(expected.shape)}, got {tuple(got.shape)}"
    )
    if close(got, expected, atol):
        return
    reasons = [
        f"The usual reason: {reason}."
        for reason, result in (mistakes or {}).items()
        if alike(got, result, atol)
    ]
    said = f"{what} should be\n{rows(expected)}\nbut is\n{rows(got)}"
    pytest.fail("\n".join([said, *(reasons or [otherwise])[:1]]).rstrip(), pytrace=False)


ARGUMENTS = {
    "softmax": ("x", "dim"),
    "attention_weights": ("q", "k", "mask"),
    "scaled_dot_product_attention": ("q", "k", "v", "mask"),
}


def ask(build, name, *arguments):
    """What the function of that name returns. What spoils every other finding is said first."""
    before = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    got = getattr(build, name)(*arguments)
    for argument, now, then in zip(ARGUMENTS[name], arguments, before):
        if isinstance(now, torch.Tensor) and not torch.equal(now, then):
            pytest.fail(
                f"{name} changed its argument {argument} in place; make a new tensor", pytrace=False
            )
    must_be_a_tensor(name, got)
    again = getattr(build, name)(*arguments)
    if got.shape == again.shape and not close(got, again.detach()):
        pytest.fail(
            f"two calls of {name} with the same arguments differ: it should depend on them alone. "
            "Is there dropout in it?",
            pytrace=False,
        )
    return got


def must_be_a_tensor(what, got):
    assert isinstance(got, torch.Tensor), f"{what} should return a tensor, got {kind_of(got)}"


def kind_of(x):
    return "nothing: is there a return?" if x is None else f"a {type(x).__name__}"


def plural(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def gradients(what, result, upstream, inputs):
    assert result.requires_grad, (
        f"{what} is cut off from the graph and has no gradient. Was .detach(), .data, "
        "torch.no_grad or NumPy used?"
    )
    found = torch.autograd.grad((result * upstream).sum(), inputs, allow_unused=True)
    return [torch.zeros_like(x) if grad is None else grad for grad, x in zip(found, inputs)]


def for_function(name, step):
    """The marks of a test: the function it is about, and the step of the chapter."""

    def decorate(test):
        return pytest.mark.step(step)(pytest.mark.checks(name)(test))

    return decorate


# Step 1: softmax

about_softmax = for_function("softmax", 1)


@about_softmax
def test_softmax_keeps_the_shape(build):
    for shape in ((3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)):
        got = ask(build, "softmax", randn(*shape))
        assert got.shape == shape, f"softmax of shape {shape} came back as {tuple(got.shape)}"


@about_softmax
def test_softmax_of_three_scores_by_hand(build):
    x = torch.tensor([0.0, math.log(2), math.log(5)])  # exp gives 1, 2, 5
    mistakes = {
        "the logarithm of the softmax was returned": F.log_softmax(x, -1),
        "the exponentials are not divided by their sum": x.exp(),
        "the scores are divided by their sum without exp": x / x.sum(),
    }
    expected = torch.tensor([0.125, 0.25, 0.625])
    must_equal("softmax([0, ln 2, ln 5])", ask(build, "softmax", x), expected, mistakes)


@about_softmax
def test_softmax_works_along_the_last_dimension_by_default(build):
    x = randn(3, 3)
    mistakes = {
        "it works along dimension 0; the default is dim=-1": F.softmax(x, 0),
        "it normalizes over all elements at once": F.softmax(x.view(-1), 0).view(3, 3),
    }
    expected = F.softmax(x, -1)
    must_equal("softmax of a (3, 3) tensor", ask(build, "softmax", x), expected, mistakes)


@about_softmax
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3], ids=lambda dim: f"dim={dim}")
def test_softmax_works_along_the_dimension_asked_for(build, dim):
    for shape in ((3, 3, 3), (2, 3, 4)):
        x = randn(*shape, seed=1)
        mistakes = {f"it works along dim {other}": F.softmax(x, other) for other in range(3)}
        expected = F.softmax(x, dim)
        what = f"softmax(x, {dim}), x of shape {shape},"
        must_equal(what, ask(build, "softmax", x, dim), expected, mistakes)


@about_softmax
def test_softmax_sums_to_one_and_is_positive(build):
    weights = ask(build, "softmax", 5 * randn(4, 7, seed=3))
    assert (weights > 0).all(), f"softmax gave a weight that is not positive:\n{rows(weights)}"
    sums = weights.sum(-1)
    assert torch.allclose(sums, torch.ones(4)), (
        f"each row should sum to 1, the sums are {rows(sums)}"
    )


@about_softmax
@pytest.mark.parametrize("shift", [100.0, 1000.0, -1000.0], ids=lambda shift: f"{shift:g}")
def test_softmax_is_not_changed_by_a_constant(build, shift):
    x = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    got = ask(build, "softmax", x + shift)
    assert torch.allclose(got, torch.full((2, 4), 0.25), atol=1e-4), (
        f"softmax of four equal scores of {shift:g} should be 0.25 each, got\n{rows(got)}\n"
        "exp overflows above 88 and vanishes below -104: subtract the largest score first"
    )


@about_softmax
def test_softmax_survives_rows_of_very_different_size(build):
    x = torch.tensor([[-2000.0, -2000.0], [0.0, 0.0], [2000.0, 2000.0]])
    got = ask(build, "softmax", x)
    reason = "The usual reason: the largest score of the whole tensor is subtracted, not each row's"
    assert torch.allclose(got, torch.full((3, 2), 0.5), atol=1e-3), (
        f"softmax of the rows {x.tolist()} should be 0.5 everywhere, got\n{rows(got)}"
        + (f"\n{reason}" if close(got[2], torch.tensor([0.5, 0.5])) else "")
    )


@about_softmax
def test_softmax_gives_no_weight_to_minus_infinity(build):
    got = ask(build, "softmax", torch.tensor([[-math.inf, 0.0, 0.0], [3.0, -math.inf, -math.inf]]))
    must_equal(
        "softmax of a row with -inf in it",
        got,
        torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]),
        otherwise="exp(-inf) is 0: what is masked must get no weight and make no NaN",
    )


@about_softmax
def test_softmax_has_the_right_gradient(build):
    for scale, shift in ((1.0, 0.0), (3.0, 200.0)):
        x = (scale * randn(3, 5, seed=4, dtype=torch.float64) + shift).requires_grad_()
        upstream = randn(3, 5, seed=5, dtype=torch.float64)
        (expected,) = gradients("", F.softmax(x, -1), upstream, [x])
        (got,) = gradients("softmax", ask(build, "softmax", x), upstream, [x])
        must_equal(
            "the gradient of softmax",
            got,
            expected,
            otherwise="Is a part of it detached that should not be?",
        )


@about_softmax
def test_softmax_agrees_with_torch(build):
    x = 10 * randn(2, 3, 4, 5, seed=7)
    expected = F.softmax(x, -1)
    must_equal("softmax(x)", ask(build, "softmax", x), expected, atol=1e-6)


# Step 2: causal_mask

about_the_mask = for_function("causal_mask", 2)


@about_the_mask
@pytest.mark.parametrize("T", [1, 2, 5], ids=lambda T: f"T={T}")
def test_causal_mask_is_square_and_bool(build, T):
    mask = build.causal_mask(T)
    assert mask.shape == (T, T), f"causal_mask({T}) should be {(T, T)}, got {tuple(mask.shape)}"
    assert mask.dtype == torch.bool, f"causal_mask should hold True and False, got {mask.dtype}"


@about_the_mask
def test_causal_mask_of_three_by_hand(build):
    expected = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 1, 1]])
    mistakes = {
        "the mask is upside down: True means may attend, so the past is True": 1 - expected,
        "row and column are exchanged: tril, not triu": expected.T,
        "the diagonal is missing: a position attends to itself": expected - torch.eye(3),
        "nothing is hidden": torch.ones(3, 3),
    }
    must_equal(
        "causal_mask(3), 1 for True,", build.causal_mask(3).float(), expected, mistakes=mistakes
    )


@about_the_mask
def test_causal_mask_lets_position_t_see_t_plus_one_positions(build):
    counts = build.causal_mask(40).sum(-1).tolist()
    assert counts == list(range(1, 41)), (
        f"the rows of causal_mask(40) should allow 1, 2, ... 40 positions, they allow {counts}"
    )


# Step 3: attention_weights

about_weights = for_function("attention_weights", 3)


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
    scales = {
        "the scores are not divided by the root of the head size": 1,
        "the scores are divided by the head size, not by its root": hs,
        "the scores are multiplied by the root of the head size": 1 / math.sqrt(hs),
        "the scores are divided by the root of the number of keys": math.sqrt(k.shape[-2]),
    }
    return {why: weights_by_the_book(q, k, mask, scale) for why, scale in scales.items()} | {
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
        "there is no softmax, and -inf stands where the mask is": scores.masked_fill(
            ~allowed, -math.inf
        ),
        "a causal mask is applied though none was given": weights_by_the_book(
            q, k, everyone.tril()
        ),
    }


def must_weigh(build, what, q, k, mask=None, more=None, otherwise=""):
    """attention_weights(q, k, mask) is what it should be, or the mistake is named."""
    expected = weights_by_the_book(q, k, mask)
    mistakes = (more or {}) | weight_mistakes(q, k, mask)
    arguments = (q, k) if mask is None else (q, k, mask)
    got = ask(build, "attention_weights", *arguments)
    must_equal(what, got, expected, mistakes, otherwise)
    return got


@about_weights
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 2)], ids=str)
def test_attention_weights_have_a_row_for_each_query(build, lead):
    q, k = randn(*lead, 4, 8), randn(*lead, 6, 8, seed=1)
    got = ask(build, "attention_weights", q, k)
    assert got.shape == (*lead, 4, 6), (
        f"q {tuple(q.shape)} and k {tuple(k.shape)} should give weights {(*lead, 4, 6)}, "
        f"got {tuple(got.shape)}"
    )


@about_weights
def test_attention_weights_of_one_query_by_hand(build):
    # head size 4, so the scores 2 ln 3 and 0 are halved; exp gives 3 and 1
    q = torch.tensor([[2 * math.log(3), 0.0, 0.0, 0.0]])
    k = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    must_equal(
        "the weights of scores 2 ln 3 and 0, head size 4,",
        ask(build, "attention_weights", q, k),
        torch.tensor([[0.75, 0.25]]),
        weight_mistakes(q, k),
    )


@about_weights
@pytest.mark.parametrize("hs", [4, 16, 64, 256], ids=lambda hs: f"hs={hs}")
def test_scores_are_divided_by_the_root_of_the_head_size(build, hs):
    q, k = randn(1, 5, hs, seed=2), randn(1, 7, hs, seed=3)
    must_weigh(build, f"the weights for head size {hs}", q, k)


@about_weights
def test_the_softmax_runs_over_the_keys(build):
    must_weigh(
        build,
        "the weights of five queries over seven keys",
        randn(2, 5, 8, seed=4),
        randn(2, 7, 8, seed=5),
        otherwise="Each row should sum to 1: the softmax is along the last dimension, and nothing "
        "is changed after it.",
    )


@about_weights
def test_queries_ask_and_keys_answer(build):
    q, k = randn(5, 8, seed=6), randn(5, 8, seed=7)
    exchanged = {
        "q and k are exchanged: the rows belong to the queries": weights_by_the_book(k, q),
        "q is multiplied with itself, not with k": weights_by_the_book(q, q),
    }
    must_weigh(build, "the weights of q and k", q, k, more=exchanged)


@about_weights
def test_masked_positions_get_no_weight_and_the_rest_sums_to_one(build):
    q, k, mask = randn(2, 4, 8, seed=8), randn(2, 4, 8, seed=9), torch.ones(4, 4).bool().tril()
    got = must_weigh(build, "the weights under a causal mask", q, k, mask)
    assert (got[:, ~mask] == 0).all(), (
        f"a masked position should get exactly 0; there the largest is {got[:, ~mask].max()}\n"
        "Fill with -inf before the softmax"
    )


@about_weights
def test_a_mask_is_stronger_than_any_score(build):
    q, k, mask = randn(1, 4, seed=8), randn(2, 4, seed=9), torch.tensor([[True, False]])
    must_weigh(build, "the weights under a mask that hides the second key", q, k, mask)
    for masked in (45_000.0, -70_000.0):
        q = torch.tensor([[300.0, 0.0, 0.0, 0.0]])
        k = torch.tensor([[-400.0, 0.0, 0.0, 0.0], [masked / 150, 0.0, 0.0, 0.0]])
        must_equal(
            f"the weights of scores -60,000 (allowed) and {masked:,.0f} (masked)",
            ask(build, "attention_weights", q, k, mask),
            torch.tensor([[1.0, 0.0]]),
            otherwise="Masked scores must become -inf; a number such as -1e4 is not enough",
        )


@about_weights
@pytest.mark.parametrize("shape", [(4, 6), (1, 6), (2, 1, 4, 6), (2, 3, 4, 6), (3, 4, 6)], ids=str)
def test_a_mask_is_broadcast_over_the_leading_dimensions(build, shape):
    q, k = randn(2, 3, 4, 8, seed=10), randn(2, 3, 6, 8, seed=11)
    mask = randn(*shape, seed=12) > 0
    mask[..., 0] = True  # every query may attend somewhere
    must_weigh(build, f"the weights under a mask of shape {shape}", q, k, mask)


@about_weights
def test_attention_weights_survive_large_scores(build):
    overflow = "exp overflowed: subtract each row's largest score first, as softmax does"
    q, k = 1e4 * randn(3, 8, seed=15), randn(3, 8, seed=16)
    must_weigh(build, "the weights of scores in the thousands", q, k, otherwise=overflow)
    q, k = 3 * randn(3, 8, seed=15), 10 * randn(3, 8, seed=16)
    must_weigh(build, "the weights of scores about 30", q, k)


@about_weights
def test_attention_weights_pass_gradients_to_queries_and_keys(build):
    q, k = randn(4, 8, seed=17).requires_grad_(), randn(4, 8, seed=18).requires_grad_()
    mask, upstream = torch.ones(4, 4).bool().tril(), randn(4, 4, seed=19)
    expected = gradients("", weights_by_the_book(q, k, mask), upstream, (q, k))
    weights = ask(build, "attention_weights", q, k, mask)
    got = gradients("what attention_weights returns", weights, upstream, (q, k))
    for name, mine, theirs in zip("qk", got, expected, strict=True):
        must_equal(f"the gradient of the weights with respect to {name}", mine, theirs)


# Step 4: scaled_dot_product_attention

about_attention = for_function("scaled_dot_product_attention", 4)


def mixture_mistakes(q, k, v, mask=None):
    weights = {why: w @ v for why, w in weight_mistakes(q, k, mask).items()}
    whole = "the result is the weights, not the mixture of values"
    return {**weights, whole: weights_by_the_book(q, k, mask)}


@about_attention
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 2)], ids=str)
def test_attention_output_has_a_row_for_each_query(build, lead):
    q, k, v = randn(*lead, 4, 8), randn(*lead, 6, 8, seed=1), randn(*lead, 6, 5, seed=2)
    got = ask(build, "scaled_dot_product_attention", q, k, v)
    assert got.shape == (*lead, 4, 5), (
        f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} should give {(*lead, 4, 5)}, "
        f"got {tuple(got.shape)}"
    )


@about_attention
def test_attention_mixes_values_by_hand(build):
    q = torch.tensor([[2 * math.log(3), 0.0, 0.0, 0.0]])  # weights 3/4 and 1/4, as above
    k = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    v = torch.tensor([[4.0, 0.0, 8.0], [0.0, 4.0, 8.0]])
    must_equal(
        "three quarters of [4, 0, 8] and one of [0, 4, 8]",
        ask(build, "scaled_dot_product_attention", q, k, v),
        torch.tensor([[3.0, 1.0, 8.0]]),
        mixture_mistakes(q, k, v),
    )


@about_attention
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
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
    upstream = randn(*lead, Tq, d_v, seed=3)
    expected_grads = gradients("", expected, upstream, inputs)
    mistakes = mixture_mistakes(q, k, v, mask)
    arguments = inputs if mask is None else [*inputs, mask]
    got = ask(build, "scaled_dot_product_attention", *arguments)
    must_equal("scaled_dot_product_attention", got, expected, mistakes)
    got_grads = gradients("scaled_dot_product_attention's result", got, upstream, inputs)
    for name, mine, theirs in zip("qkv", got_grads, expected_grads, strict=True):
        must_equal(f"the gradient with respect to {name}", mine, theirs)


@about_attention
def test_a_mixture_of_equal_values_is_that_value(build):
    q, k, v = randn(2, 4, 8), randn(2, 6, 8, seed=1), torch.full((2, 6, 3), 7.0)
    must_equal(
        "a mixture of values that are all 7",
        ask(build, "scaled_dot_product_attention", q, k, v),
        torch.full((2, 4, 3), 7.0),
        otherwise="The weights of a query must sum to 1, and multiply v",
    )


# Steps 5 and 6: the modules. They are looked at from outside: what goes in, what comes out, and
# the numbers in their parameters, whatever these are called and however they are laid out.


def run(module, x):
    """The module's output; what spoils every other finding is said first."""
    before = x.clone()
    first = module(x)
    if not torch.equal(x, before):
        pytest.fail("forward changed its input in place; make a new tensor", pytrace=False)
    must_be_a_tensor("forward", first)
    if not close(first, module(x).detach()):
        pytest.fail(
            "two calls in evaluation mode with the same input differ: dropout that is still on? "
            "(F.dropout needs training=self.training.) Or is something kept from call to call?",
            pytrace=False,
        )
    return first


def made(kind, *sizes):
    """A module with the same weights every time, in evaluation mode."""
    torch.manual_seed(1)
    return kind(*sizes).eval()


def sharpened(module):
    """The module with larger weights, so that attention has preferences."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3)
    return module


def weights_in(module, smallest):
    """The parameters that hold weights, by name: what has fewer than `smallest` is a bias.

    `smallest` is one head's part of one projection. The sizes in these tests are such that no
    bias has as many, in whatever layout: a head has more channels than there are heads, and than 3.
    """
    return {name: p for name, p in module.named_parameters() if p.numel() >= smallest}


def must_have_weights(what, module, smallest, expected, which):
    found = sum(p.numel() for p in weights_in(module, smallest).values())
    if found == expected:
        return
    reason = "" if found else "\nLayers in a plain list are not found: use nn.ModuleList."
    pytest.fail(f"{what} needs {which} weights, it has {found}{reason}", pytrace=False)


def with_ones(module, smallest):
    """The module with every weight 1 and every bias 0.

    Then each projection of a token is the sum of its channels, in every channel, in whatever
    layout the weights are kept, and the output can be computed by hand.
    """
    large = weights_in(module, smallest)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.fill_(1.0 if name in large else 0.0)
    return module


SUMS = torch.tensor([[0.5, -0.6, 0.9, 0.2, -0.4], [-0.3, 0.7, 0.1, -0.8, 0.6]])
LARGE_SUMS = torch.tensor([[60.0, -90.0, 120.0, 30.0, -40.0], [-70.0, 100.0, 40.0, -110.0, 80.0]])


def tokens_of(sums, C):
    """Tokens (B, T, C) whose channels have these sums (B, T)."""
    x = torch.zeros(*sums.shape, C)
    x[..., 0], x[..., -1] = sums - 2, 2.0
    return x


def must_attend(name, module, x, heads, size):
    """The output for tokens x under weights of 1 is that of causal attention, in every channel."""
    (B, T, C), sums, got = x.shape, x.sum(-1), run(module, x).detach()
    assert got.shape[:2] == (B, T), (
        f"the output of {name} for (B, T) = {(B, T)} has shape {tuple(got.shape)}"
    )
    mask = torch.ones(T, T).bool().tril()
    channels = C if heads else 1  # the output projection adds up so many

    def output(weights):  # (B, T, T) -> the mixture of the values, the sums
        return channels * (weights @ sums[..., None])[..., 0]  # (B, T)

    q = sums[..., None].expand(B, T, size)  # queries and keys alike
    right = weights_by_the_book(q, q, mask)
    found = weight_mistakes(q, q, mask)
    found["the mask hides a position from itself"] = weights_by_the_book(q, q, mask.tril(-1))
    for what, n in (("n_embd", C), ("the number of heads", heads or 1)):
        for why, scale in (("the root of ", math.sqrt(n)), ("", n)):
            why = f"the scores are divided by {why}{what}, not by the root of the head size"
            found[why] = weights_by_the_book(q, q, mask, scale)
    for other in range(1, C + 1 if heads else 1):
        if C % other == 0 and other != heads:
            p = sums[..., None].expand(B, T, C // other)
            why = f"it works like {plural(other, 'head')}, not like {heads}"
            found[why] = weights_by_the_book(p, p, mask)
    mistakes = {why: output(weights) for why, weights in found.items()}
    if heads:
        mistakes["the output projection is not applied"] = output(right) / C
        cut = (B, heads, T, size)
        mixed = sums[..., None].expand(B, T, C).reshape(cut)  # without the transpose
        whole = q[:, None].expand(cut)
        for why, y in (
            (
                "the heads are split without a transpose: view as (B, T, nh, hs), then exchange T "
                "and nh",
                (weights_by_the_book(mixed, mixed, mask) @ mixed).transpose(1, 2),
            ),
            (
                "the heads are joined without a transpose: exchange nh and T, then reshape",
                weights_by_the_book(whole, whole, mask) @ whole,
            ),
        ):
            mistakes[why] = y.reshape(B, T, C).sum(-1)
    likely = (
        "Are the scores of each head divided by the root of its size, masked, and put through a "
        "softmax over the keys? Do values and joined heads stay as they are?"
    )
    if not got.isfinite().all():
        likely = (
            "Did exp overflow (subtract each row's largest score first), or does the mask leave a "
            "row without anything to attend to?"
        )
    for channel in range(got.shape[-1]):
        must_equal(
            f"channel {channel} of the output of {name}, with every weight 1: for tokens whose "
            f"channels sum to\n{rows(sums)}\nit",
            got[..., channel],
            output(right),
            mistakes,
            otherwise=likely,
            atol=1e-3,
        )


def one_head(build):
    return sharpened(made(build.SelfAttention, 12, 8))


def four_heads(build):
    return sharpened(made(build.CausalSelfAttention, 12, 4))


about_one_head = for_function("SelfAttention", 5)
about_many_heads = for_function("CausalSelfAttention", 6)


@about_one_head
@pytest.mark.parametrize("head_size", [1, 8, 20], ids=lambda size: f"head_size={size}")
def test_one_head_gives_head_size_channels(build, head_size):
    got = run(made(build.SelfAttention, 12, head_size), randn(2, 5, 12))
    assert got.shape == (2, 5, head_size), (
        f"SelfAttention(12, {head_size}) should turn (2, 5, 12) into (2, 5, {head_size}), "
        f"got {tuple(got.shape)}"
    )


@about_one_head
def test_one_head_has_three_projections(build):
    must_have_weights(
        "SelfAttention(12, 8)",
        build.SelfAttention(12, 8),
        12 * 8,
        3 * 12 * 8,
        f"three projections, for query, key and value, of 12 x 8, together {3 * 12 * 8}",
    )


@about_one_head
@pytest.mark.parametrize("large", [False, True], ids=["small scores", "large scores"])
@pytest.mark.parametrize("head_size", [4, 9, 25], ids=lambda size: f"head_size={size}")
def test_one_head_is_causal_attention_on_its_projections(build, head_size, large):
    attention = with_ones(made(build.SelfAttention, 12, head_size), 12 * head_size)
    x = tokens_of(LARGE_SUMS if large else SUMS, 12)
    must_attend(f"SelfAttention(12, {head_size})", attention, x, None, head_size)


@about_many_heads
@pytest.mark.parametrize("n_head", [1, 2, 3, 12], ids=lambda n: f"{n} heads")
def test_many_heads_keep_the_shape(build, n_head):
    got = run(made(build.CausalSelfAttention, 12, n_head), randn(2, 5, 12))
    assert got.shape == (2, 5, 12), (
        f"CausalSelfAttention(12, {n_head}) should keep (2, 5, 12), got {tuple(got.shape)}"
    )


@about_many_heads
def test_many_heads_have_four_projections(build):
    C = 36
    for n_head in (1, 4):
        must_have_weights(
            f"CausalSelfAttention({C}, {n_head})",
            build.CausalSelfAttention(C, n_head),
            C * C // n_head,
            4 * C * C,
            f"for query, key, value and output {C} x {C} each, together {4 * C * C}",
        )


@about_many_heads
@pytest.mark.parametrize("large", [False, True], ids=["small scores", "large scores"])
@pytest.mark.parametrize("n_head", [2, 4, 3, 1], ids=lambda n: f"{n} heads")
def test_many_heads_are_causal_attention_on_slices_of_the_channels(build, n_head, large):
    C, size = 36, 36 // n_head
    attention = with_ones(made(build.CausalSelfAttention, C, n_head), C * size)
    x = tokens_of(LARGE_SUMS if large else SUMS, C)
    must_attend(f"CausalSelfAttention({C}, {n_head})", attention, x, n_head, size)


@about_many_heads
@pytest.mark.parametrize("n_head", [1, 2, 3, 4, 12], ids=lambda n: f"{n} heads")
def test_many_heads_each_have_weights_of_their_own(build, n_head):
    """With two tokens, x + u and x, a head adds its weight for the first times what it makes of u.

    For the same u and many x, the second output thus goes in as many directions as there are
    heads, and in no others.
    """
    attention = sharpened(made(build.CausalSelfAttention, 12, n_head))
    x, u = randn(100, 1, 12, seed=1), randn(1, 1, 12, seed=2)
    with torch.no_grad():
        moved = run(attention, torch.cat([x + u, x], 1))[:, 1] - run(attention, x)[:, 0]
    sizes = torch.linalg.svdvals(moved.double())
    heads = int((sizes > 1e-4 * sizes[0]).sum()) if sizes[0] > 1e-5 else 0
    assert heads == n_head, (
        f"CausalSelfAttention(12, {n_head}) works like {plural(heads, 'head')}: for two tokens "
        f"with the same difference the second output moves in {plural(heads, 'direction')}, one "
        "for each head\nthat has weights of its own."
    )


MODULES = [
    pytest.param(
        one_head,
        id="SelfAttention",
        marks=[pytest.mark.checks("SelfAttention"), pytest.mark.step(5)],
    ),
    pytest.param(
        four_heads,
        id="CausalSelfAttention",
        marks=[pytest.mark.checks("CausalSelfAttention"), pytest.mark.step(6)],
    ),
]


def rms(x):
    return x.square().mean().sqrt()


@pytest.mark.parametrize("make", MODULES)
def test_a_later_token_cannot_change_an_earlier_output(build, make):
    attention, x = make(build), randn(2, 6, 12, seed=1)
    run(attention, x)
    for t in range(6):
        changed_input = x.clone()
        changed_input[:, t] = randn(2, 12, seed=2 + t)
        change = moved(attention, x, changed_input).amax(0)  # (T,)
        changed = [at for at in range(t) if not change[at] < MOVED]
        assert not changed, (
            f"changing token {t} changed the output at positions {changed}, all before it:\n"
            "attention looks into the future. Is the mask applied before the softmax, and are the "
            "heads split with a transpose?"
        )
        assert change[t] >= MOVED, (
            f"changing token {t} did not change the output at position {t}: a position attends to "
            "itself, too"
        )


@pytest.mark.parametrize("make", MODULES)
def test_the_mask_holds_for_large_scores(build, make):
    attention, x = make(build), 100 * randn(8, 6, 12, seed=1)
    changed_input = x.clone()
    changed_input[:, 3:] *= -1
    before, after = (run(attention, tokens)[:, :3] for tokens in (x, changed_input))
    must_equal(
        "the first three outputs of large inputs, after all later tokens were changed,",
        after.detach() / rms(before.detach()),
        before.detach() / rms(before.detach()),
        otherwise="They should stay as they are. Masked scores must become -inf; a number such as "
        "-1e4 is not enough",
        atol=1e-3,
    )


@pytest.mark.parametrize("make", MODULES)
def test_every_earlier_token_is_seen(build, make):
    attention, x = make(build), randn(1, 5, 12, seed=1)
    before = run(attention, x)[:, -1]
    for t in range(4):
        changed_input = x.clone()
        changed_input[:, t] = randn(1, 12, seed=2 + t)
        change = (run(attention, changed_input)[:, -1] - before).abs().max()
        assert change > 1e-5 * rms(before), (
            f"changing token {t} did not change the last output: the past is not seen. Is the mask "
            "upside down, or does each position attend to itself alone?"
        )


@pytest.mark.parametrize("make", MODULES)
def test_the_order_of_the_past_does_not_matter(build, make):
    attention, x = make(build), randn(2, 6, 12, seed=1)
    must_equal(
        "the last output after the past was shuffled",
        run(attention, x[:, [2, 0, 4, 1, 3, 5]])[:, -1].detach(),
        run(attention, x)[:, -1].detach(),
        otherwise="Attention takes a weighted sum over the past: only positions that are "
        "mixed up with channels or heads could tell the order",
        atol=1e-4,
    )


@pytest.mark.parametrize("make", MODULES)
def test_one_sequence_does_not_see_another_of_the_batch(build, make):
    attention, x = make(build), randn(3, 5, 12, seed=1)
    must_equal(
        "three sequences in one batch, compared with each alone,",
        run(attention, x).detach(),
        torch.cat([run(attention, x[i : i + 1]) for i in range(3)]).detach(),
        otherwise="Do the reshapes keep the batch dimension apart?",
        atol=1e-4,
    )


@pytest.mark.parametrize("make", MODULES)
def test_a_constant_sequence_gives_a_constant_output(build, make):
    attention, token = make(build), randn(2, 1, 12, seed=1)
    alone = run(attention, token).detach()
    must_equal(
        "six times the same token, at each position,",
        run(attention, token.repeat(1, 6, 1)).detach(),
        alone.expand(2, 6, alone.shape[-1]),
        otherwise="A mixture of equal values is that value: do the weights sum to 1?",
        atol=1e-4,
    )


@pytest.mark.parametrize("make", MODULES)
def test_a_lone_token_is_only_projected(build, make):
    attention, x, y = make(build), randn(1, 1, 12, seed=1), randn(1, 1, 12, seed=2)
    must_equal(
        "the output for the mean of two tokens, each a sequence of its own,",
        run(attention, (x + y) / 2).detach(),
        ((run(attention, x) + run(attention, y)) / 2).detach(),
        otherwise="With one token the only weight is 1 and the output is linear in the "
        "token: nothing but the projections may act on the values",
        atol=1e-4,
    )


@pytest.mark.parametrize("make", MODULES)
def test_any_length_works_one_after_the_other(build, make):
    attention, x = make(build), randn(2, 80, 12, seed=1)
    with torch.no_grad():
        whole = attention(x)
        for T in (7, 1, 80, 3):
            must_equal(
                f"the output for the first {T} tokens, taken alone,",
                attention(x[:, :T]),
                whole[:, :T],
                otherwise="Is the mask made for the length at hand?",
                atol=1e-4,
            )


@pytest.mark.parametrize("make", MODULES)
def test_every_weight_learns(build, make):
    attention = make(build)
    run(attention, randn(2, 6, 12, seed=1)).square().sum().backward()
    idle = [
        name
        for name, parameter in weights_in(attention, 36).items()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not idle, f"no gradient reaches {', '.join(idle)}: unused, or cut off from the graph"


@pytest.mark.parametrize("make", MODULES)
def test_the_gradient_is_the_slope(build, make):
    """Backward against a small step to both sides, for the input and for every weight."""
    attention, x = make(build), randn(2, 6, 12, seed=1).requires_grad_()
    output = run(attention, x)
    upstream = randn(*output.shape, seed=2)
    inputs = {"the input": x} | weights_in(attention, 36)
    found = gradients("the output", output, upstream, list(inputs.values()))
    for (name, tensor), grad in zip(inputs.items(), found, strict=True):
        for seed in range(3):
            direction = randn(*tensor.shape, seed=3 + seed)
            step = 3e-3 * direction * (rms(tensor.detach()) or 1.0)
            ends = []
            for sign in (1, -1, -1, 1):  # there, back, to the other side, back
                with torch.no_grad():
                    tensor += sign * step
                    ends.append((attention(x) * upstream).double().sum().item())
            got, slope = (grad * step).sum().item(), (ends[0] - ends[2]) / 2
            # what a gradient of this size gives in a typical direction
            typical = (grad.norm() * step.norm() / math.sqrt(step.numel())).item()
            assert abs(got - slope) <= 0.05 * max(abs(slope), typical), (
                f"a small step of {name} changes the result by {slope:.4g}, the gradient says "
                f"{got:.4g}\nIs a part cut off from the graph by .detach(), .data, torch.no_grad "
                "or NumPy?"
            )


@about_many_heads
def test_channels_that_do_not_divide_into_heads_are_refused(build):
    for n_embd, n_head in ((10, 3), (4, 8)):
        try:
            build.CausalSelfAttention(n_embd, n_head)(randn(1, 4, n_embd))
        except NotImplementedError:
            raise
        except Exception:  # any refusal will do
            continue
        pytest.fail(
            f"CausalSelfAttention({n_embd}, {n_head}) should be an error: {n_embd} "
            f"channels cannot be divided among {n_head} heads",
            pytrace=False,
        )
