"""Is what I typed right? `pytest p05_gpt` asks that of the GPT, in the book's order."""

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

V, C, HEADS, LAYERS, BLOCK = 11, 16, 2, 3, 8


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tokens(*shape, seed=0, vocab=V):
    return torch.randint(vocab, shape, generator=seeded(seed))


def sharpened(module, factor=3.0):
    """The same module without dropout and with larger weights, so that every part is felt."""
    module.eval()
    draw = seeded(1)  # one for all, or blocks of equal shapes would be equal
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=factor / math.sqrt(parameter.shape[-1]), generator=draw)
    return module


def block(build):
    return sharpened(build.Block(C, HEADS))


def gpt(build, block_size=BLOCK):
    torch.manual_seed(0)
    return sharpened(build.GPT(V, C, HEADS, LAYERS, block_size))


def gap(a, b):
    return (a - b).abs().max().item()


# Block


def stream(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


@pytest.mark.checks("Block")
def test_block_keeps_the_shape(build):
    for B, T in ((2, 5), (1, 1), (3, 20)):
        got = build.Block(C, HEADS)(stream(B, T, C))
        assert got.shape == (B, T, C), (
            f"Block({C}, {HEADS}) turned {(B, T, C)} into {tuple(got.shape)}"
        )


@pytest.mark.checks("Block")
def test_block_is_causal(build):
    module, x = block(build), stream(1, 6, C)
    before, changed = module(x), x.clone()
    changed[:, 4] += 1
    assert gap(module(changed)[:, :4], before[:, :4]) < 1e-5, (
        "changing token 4 changed what the block puts out at positions 0 to 3: only attention may "
        "look at other positions, and only at earlier ones"
    )


@pytest.mark.checks("Block")
def test_block_without_weights_passes_the_stream_through(build):
    module, x = block(build), stream(2, 5, C)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Linear):
                for parameter in layer.parameters():
                    parameter.zero_()
    assert torch.allclose(module(x), x), (
        "with all Linear weights at zero neither part finds anything, so the block should return x "
        "unchanged.\nIs each part added to x (x = x + ...), and is x itself left without LayerNorm?"
    )


@pytest.mark.checks("Block")
def test_block_normalises_what_each_part_reads(build):
    module, x = block(build), stream(2, 5, C)
    found = module(x) - x
    shifted = module(x + 7) - (x + 7)
    assert torch.allclose(found, shifted, atol=1e-3), (
        "adding 7 to every channel changed what the parts add to the stream by up to "
        f"{gap(found, shifted):.3f}: LayerNorm removes such a shift.\n"
        "Do both attention and MLP read a LayerNorm of x?"
    )
    large, larger = module(1e4 * x) - 1e4 * x, module(1e5 * x) - 1e5 * x
    assert gap(large, larger) < 0.1 * large.abs().max() + 0.1, (
        "a stream ten times as large makes the parts add more: LayerNorm removes the size.\n"
        "Does a part read x itself, without LayerNorm?"
    )


@pytest.mark.checks("Block")
@pytest.mark.parametrize("n_embd, n_head", [(16, 3), (12, 5)], ids=["16 in 3", "12 in 5"])
def test_block_gives_attention_its_number_of_heads(build, n_embd, n_head):
    build.Block(n_embd, 4)
    try:
        build.Block(n_embd, n_head)
    except Exception:
        return
    pytest.fail(
        f"{n_embd} channels cannot be divided among {n_head} heads, and yet Block({n_embd}, "
        f"{n_head}) complains of nothing: does attention get n_head?",
        pytrace=False,
    )


@pytest.mark.checks("Block")
def test_block_has_a_layer_norm_for_each_part(build):
    norms = [m for m in build.Block(C, HEADS).modules() if isinstance(m, torch.nn.LayerNorm)]
    if norms:  # a LayerNorm of one's own is held by the law above
        assert len(norms) == 2, f"a block has 2 LayerNorms, one for each part; found {len(norms)}"


@pytest.mark.checks("Block")
def test_block_has_an_mlp_four_times_as_wide(build):
    weights = sum(p.numel() for p in build.Block(C, HEADS).parameters() if p.dim() > 1)
    assert weights == 12 * C * C, (
        f"Block({C}, {HEADS}) needs 4 C^2 weights for attention and 8 C^2 for an MLP that is 4 C "
        f"wide, together {12 * C * C}; it has {weights}"
    )


def trace(module, x):
    """The inputs and outputs of every LayerNorm and Linear, in the order of the calls."""
    calls, hooks = [], []
    for layer in module.modules():
        if isinstance(layer, torch.nn.LayerNorm | torch.nn.Linear):
            hooks.append(
                layer.register_forward_hook(
                    lambda layer, given, out: calls.append((layer, given[0], out))
                )
            )
    with torch.no_grad():
        out = module(x)
    for hook in hooks:
        hook.remove()
    return calls, out


@pytest.mark.checks("Block")
def test_block_adds_attention_then_the_mlp_to_the_stream(build):
    module, x = block(build), stream(2, 5, C)
    later = x.clone()
    later[:, 0] += stream(2, C, seed=1)
    assert gap(module(later)[:, 1:], module(x)[:, 1:]) > 1e-3, (
        "what token 0 is makes no difference to the tokens after it: attention is not added to x"
    )
    module(x).square().sum().backward()
    idle = [name for name, p in module.named_parameters() if p.grad is None]
    assert not idle, (
        f"what the block returns does not depend on {', '.join(idle)}: the MLP is not added to x"
    )
    calls, out = trace(module, x)
    norms = [i for i, (layer, _, _) in enumerate(calls) if isinstance(layer, torch.nn.LayerNorm)]
    if len(norms) != 2 or norms[1] + 2 >= len(calls) or norms[1] < 2:
        return  # not made of nn.LayerNorm and nn.Linear: the laws hold it
    first, second = norms
    assert calls[first][0] is not calls[second][0], (
        "attention and MLP share one LayerNorm; each part has its own"
    )
    assert torch.allclose(calls[first][1], x), "the first LayerNorm should read the stream x itself"
    moved = trace(module, later)[0][second][1] - calls[second][1]
    assert gap(moved[:, 1:], torch.zeros(1)) > 1e-3, (
        "the second LayerNorm does not see what token 0 is at the positions after it: the "
        "attention comes first, then the MLP"
    )
    attended = calls[second - 1][2]
    assert torch.allclose(calls[second][1], x + attended, atol=1e-5), (
        "the second LayerNorm should read x + attention: first the attention is added to the "
        "stream, then the MLP reads the sum"
    )
    assert torch.allclose(calls[second + 1][1], calls[second][2]), (
        "the MLP should read the second LayerNorm"
    )
    assert torch.allclose(out, x + attended + calls[-1][2], atol=1e-5), (
        "the block should return x + attention + MLP"
    )


@pytest.mark.checks("Block")
def test_block_has_a_nonlinearity_in_its_mlp(build):
    calls, _ = trace(block(build), stream(2, 5, C))
    ups = [
        out
        for layer, _, out in calls
        if isinstance(layer, torch.nn.Linear) and layer.out_features == 4 * C
    ]
    downs = [
        given
        for layer, given, _ in calls
        if isinstance(layer, torch.nn.Linear) and layer.in_features == 4 * C
    ]
    if len(ups) != 1 or len(downs) != 1:
        return  # projections that are not called as modules
    accepted = [F.gelu(ups[0]), F.gelu(ups[0], approximate="tanh"), F.relu(ups[0]), F.silu(ups[0])]
    assert any(torch.allclose(downs[0], want, atol=1e-4) for want in accepted), (
        "between the two layers of the MLP there should be a GELU (or ReLU)"
        + (
            ": there is nothing"
            if torch.allclose(downs[0], ups[0])
            else "; something else is there"
        )
    )


# GPT


def position_vectors(model):
    """pos_emb as a table, be it an Embedding or a Parameter."""
    table = model.pos_emb if isinstance(model.pos_emb, torch.Tensor) else model.pos_emb.weight
    return table.reshape(-1, table.shape[-1])


@pytest.mark.checks("GPT")
def test_gpt_has_the_parts_of_the_book(build):
    model = build.GPT(V, C, HEADS, LAYERS, BLOCK)
    missing = [
        name
        for name in ("tok_emb", "pos_emb", "blocks", "ln_f", "head")
        if not hasattr(model, name)
    ]
    assert not missing, (
        f"GPT should have the attributes tok_emb, pos_emb, blocks, ln_f and head; "
        f"missing: {', '.join(missing)}"
    )
    assert position_vectors(model).shape == (BLOCK, C), (
        f"pos_emb should hold a vector of {C} for each of {BLOCK} positions, "
        f"got {tuple(position_vectors(model).shape)}"
    )


@pytest.mark.checks("GPT")
@pytest.mark.parametrize("B, T", [(1, 1), (2, 5), (3, BLOCK)], ids=["1x1", "2x5", "3x8"])
def test_gpt_scores_every_token_at_every_position(build, B, T):
    got = build.GPT(V, C, HEADS, LAYERS, BLOCK)(tokens(B, T))
    assert got.shape == (B, T, V), (
        f"ids {(B, T)} should give logits {(B, T, V)}, got {tuple(got.shape)}"
    )


@pytest.mark.checks("GPT")
def test_gpt_refuses_more_tokens_than_its_context(build):
    try:
        build.GPT(V, C, HEADS, LAYERS, BLOCK)(tokens(1, BLOCK + 1))
    except ValueError:
        return
    except Exception as error:
        pytest.fail(
            f"{BLOCK + 1} tokens in a context of {BLOCK} should raise ValueError, "
            f"got {type(error).__name__}: {error}",
            pytrace=False,
        )
    pytest.fail(
        f"{BLOCK + 1} tokens in a context of {BLOCK} should raise ValueError", pytrace=False
    )


@pytest.mark.checks("GPT")
def test_gpt_starts_by_knowing_nothing(build):
    torch.manual_seed(0)
    model = build.GPT(500, 64, 4, 4, 32).eval()
    logits = model(tokens(4, 32, vocab=500)).detach()
    first = F.cross_entropy(logits.reshape(-1, 500), tokens(4, 32, seed=1, vocab=500).reshape(-1))
    assert abs(first / math.log(500) - 1) < 0.05, (
        f"the loss of a fresh model with 500 tokens should be near ln 500 = {math.log(500):.2f}, "
        f"got {first:.2f}: its first guesses are confident and wrong. Does it start small?"
    )


@pytest.mark.checks("GPT")
def test_gpt_has_as_many_blocks_as_asked_for_each_with_its_own_weights(build):
    for n_layer in (1, 3):
        model = build.GPT(V, C, HEADS, n_layer, BLOCK)
        assert len(model.blocks) == n_layer, f"asked for {n_layer} blocks, got {len(model.blocks)}"
        weights = sum(p.numel() for p in model.blocks.parameters() if p.dim() > 1)
        assert weights == n_layer * 12 * C * C, (
            f"{n_layer} blocks should have {n_layer} x 12 C^2 weights, found {weights}: "
            "is one block used several times?"
        )


@pytest.mark.checks("GPT")
@pytest.mark.parametrize("n_embd, n_head", [(16, 3), (12, 5)], ids=["16 in 3", "12 in 5"])
def test_gpt_gives_its_blocks_their_number_of_heads(build, n_embd, n_head):
    build.GPT(V, n_embd, 4, LAYERS, BLOCK)
    try:
        build.GPT(V, n_embd, n_head, LAYERS, BLOCK)
    except Exception:
        return
    pytest.fail(
        f"{n_embd} channels cannot be divided among {n_head} heads, and yet GPT({V}, {n_embd}, "
        f"{n_head}, {LAYERS}, {BLOCK}) complains of nothing: do the blocks get n_head?",
        pytrace=False,
    )


@pytest.mark.checks("GPT")
def test_gpt_knows_the_position_of_a_token(build):
    model = gpt(build)
    logits = model(torch.full((1, BLOCK), 3))[0]
    same = [t for t in range(1, BLOCK) if torch.allclose(logits[t], logits[0], atol=1e-5)]
    assert not same, (
        f"the same token at positions 0 and {same} gets the same scores: attention cannot tell "
        "the order by itself. Is pos_emb added to tok_emb?"
    )


@pytest.mark.checks("GPT")
def test_gpt_knows_which_token_stands_there(build):
    logits = gpt(build)(torch.arange(V)[:, None])[:, 0]
    assert gap(logits[1:], logits[:-1]) > 1e-3 and all(
        gap(logits[a], logits[b]) > 1e-4 for a in range(V) for b in range(a)
    ), "two different tokens get the same scores: is tok_emb used?"


@pytest.mark.checks("GPT")
def test_gpt_is_causal(build):
    model, idx = gpt(build), tokens(2, BLOCK)
    before, changed = model(idx), idx.clone()
    changed[:, 5] = (changed[:, 5] + 1) % V
    assert gap(model(changed)[:, :5], before[:, :5]) < 1e-4, (
        "changing token 5 changed the scores at positions 0 to 4: the model sees the future"
    )
    assert gap(model(changed)[:, 5:], before[:, 5:]) > 1e-4, "changing token 5 changed nothing"


@pytest.mark.checks("GPT")
def test_gpt_is_embeddings_blocks_norm_and_head_in_this_order(build):
    model, idx = gpt(build), tokens(2, BLOCK - 1)
    with torch.no_grad():
        for parameter in model.ln_f.parameters():
            parameter.add_(torch.linspace(0.5, 1.5, C))
        tok, pos = model.tok_emb(idx), position_vectors(model)[: idx.shape[1]]

        def finish(x, n_blocks=LAYERS, norm=model.ln_f):
            blocks = list(model.blocks)
            for layer in blocks[:n_blocks] if n_blocks >= 0 else blocks[::-1]:
                x = layer(x)
            return model.head(norm(x))

        expected, got = finish(tok + pos), model(idx)
        mistakes = {
            "the position embeddings are not added": finish(tok),
            "the token embeddings are not used": finish(pos.expand_as(tok)),
            "ln_f is not applied": finish(tok + pos, norm=lambda x: x),
            "the blocks are not applied": finish(tok + pos, 0),
            "only the first block is applied": finish(tok + pos, 1),
            "the blocks are applied in the wrong order": finish(tok + pos, -1),
            "the positions count backwards": finish(tok + pos.flip(0)),
            "a softmax is applied to the logits; cross-entropy does that": expected.softmax(-1),
            "a log_softmax is applied to the logits": expected.log_softmax(-1),
        }
    reason = next(
        (why for why, wrong in mistakes.items() if torch.allclose(got, wrong, atol=1e-4)), ""
    )
    assert torch.allclose(got, expected, atol=1e-4), (
        "GPT should give head(ln_f(blocks(tok_emb + pos_emb))); it gives something else"
        + (f".\nThe usual reason: {reason}" if reason else "")
    )


@pytest.mark.checks("GPT")
def test_every_parameter_of_gpt_learns(build):
    model = gpt(build)
    F.cross_entropy(model(tokens(4, BLOCK)).reshape(-1, V), tokens(4 * BLOCK, seed=1)).backward()
    idle = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or (p.dim() > 1 and not p.grad.any())
    ]
    assert not idle, f"no gradient reaches {', '.join(idle)}: unused, or cut off from the graph"


@pytest.mark.checks("GPT")
def test_every_weight_of_a_fresh_gpt_begins_to_learn(build):
    torch.manual_seed(0)
    model = build.GPT(V, C, HEADS, LAYERS, BLOCK)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.dim() > 1}
    for step in range(6):  # where one of two factors starts at zero, the other has to wait
        logits = model(tokens(4, BLOCK, seed=step)).reshape(-1, V)
        model.zero_grad()
        F.cross_entropy(logits, tokens(4 * BLOCK, seed=step + 10)).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad if p.grad is not None else 0
    moved = dict(model.named_parameters())
    idle = [name for name, old in before.items() if torch.equal(old, moved[name])]
    assert not idle, (
        f"after six steps {len(idle)} of {len(before)} weights of a fresh model are still what "
        f"they were, {idle[0]} among them: where everything starts at zero, nothing gets a gradient"
    )


# loss


@pytest.mark.checks("loss")
def test_loss_of_two_predictions_by_hand(build):
    # probabilities 1/2, 1/4, 1/4 for the first token and 1/10, 1/10, 8/10 for the second
    logits = torch.tensor([[[2.0, 1.0, 1.0], [1.0, 1.0, 8.0]]]).log()
    got = build.loss(logits, torch.tensor([[0, 2]]))
    expected = (math.log(2) + math.log(10 / 8)) / 2
    assert isinstance(got, torch.Tensor) and got.dim() == 0, "loss should be a scalar tensor"
    assert abs(got.item() - expected) < 1e-5, (
        f"probabilities 1/2 and 8/10 for the right tokens should cost (ln 2 + ln 1.25) / 2 = "
        f"{expected:.4f} nats per token, got {got.item():.4f}"
        + (": that is the sum, not the mean" if abs(got.item() - 2 * expected) < 1e-4 else "")
        + (": that is in bits" if abs(got.item() - expected / math.log(2)) < 1e-4 else "")
    )


@pytest.mark.checks("loss")
def test_loss_of_a_uniform_guess_is_the_log_of_the_vocabulary(build):
    got = build.loss(torch.full((2, 3, 7), 5.0), tokens(2, 3, vocab=7)).item()
    assert abs(got - math.log(7)) < 1e-5, (
        f"equal logits for 7 tokens cost ln 7 = 1.9459, got {got:.4f}"
    )


@pytest.mark.checks("loss")
@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["x1", "x1000"])
def test_loss_agrees_with_torch(build, scale):
    logits = (scale * stream(3, 4, V)).requires_grad_()
    targets = tokens(3, 4)
    got, expected = build.loss(logits, targets), F.cross_entropy(logits.transpose(1, 2), targets)
    assert torch.allclose(got, expected, rtol=1e-5), (
        f"logits of size {scale:g} cost {expected.item():.5f} nats per token, "
        f"got {got.item():.5f}.\n"
        "Is every position counted once, against the target of the same position, without a "
        "softmax of its own before the cross-entropy?"
    )
    (mine,) = torch.autograd.grad(got, logits)
    (theirs,) = torch.autograd.grad(expected, logits)
    assert torch.allclose(mine, theirs, atol=1e-6), "the gradient of the loss is not PyTorch's"


# get_batch


@pytest.mark.checks("get_batch")
def test_a_batch_holds_windows_and_the_same_windows_one_token_later(build):
    data = torch.arange(100, 200)
    x, y = build.get_batch(data, 8, 5, seeded(0))
    assert x.shape == (5, 8) and y.shape == (5, 8), (
        f"block_size 8 and batch_size 5 should give (5, 8) twice, "
        f"got {tuple(x.shape)} and {tuple(y.shape)}"
    )
    assert x.dtype == y.dtype == torch.int64, f"token ids are int64, got {x.dtype}, {y.dtype}"
    assert torch.equal(x[:, 1:], x[:, :-1] + 1), (
        "each row of x should be a run of consecutive tokens"
    )
    assert torch.equal(y, x + 1), (
        f"the targets of\n    {x[0].tolist()}\nare the tokens that follow each,\n    "
        f"{(x[0] + 1).tolist()}\nbut y is\n    {y[0].tolist()}"
    )


@pytest.mark.checks("get_batch")
def test_every_window_of_a_batch_is_equally_likely(build):
    generator, N, block_size = seeded(1), 13, 4
    counts = Counter()
    for _ in range(20):
        x, _ = build.get_batch(torch.arange(N), block_size, 450, generator)
        counts.update(x[:, 0].tolist())
    expected = set(range(N - block_size))  # the last window starts at 8 and its last target is 12
    assert set(counts) == expected, (
        f"windows of {block_size} in {N} tokens can start at 0 to {N - block_size - 1}, the last "
        f"target being the last token; over 9,000 draws yours started at {sorted(counts)}"
    )
    low, high = min(counts.values()), max(counts.values())
    assert low > 840 and high < 1160, (
        f"each of the 9 windows should come about 1,000 times in 9,000, yours came {low} to {high} "
        "times: draw the starts uniformly"
    )


@pytest.mark.checks("get_batch")
def test_the_only_window_of_the_shortest_text_is_found(build):
    x, y = build.get_batch(torch.arange(5), 4, 3, seeded(0))
    assert x.tolist() == [[0, 1, 2, 3]] * 3 and y.tolist() == [[1, 2, 3, 4]] * 3, (
        f"5 tokens hold exactly one window of 4 with its targets; "
        f"got x {x.tolist()}, y {y.tolist()}"
    )


@pytest.mark.checks("get_batch")
def test_a_batch_depends_on_its_generator_alone(build):
    data = torch.arange(1000)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, _ = build.get_batch(data, 8, 4, seeded(7))
    assert torch.equal(state, torch.get_rng_state()), (
        "get_batch moved the global random state; draw with generator=generator"
    )
    torch.manual_seed(1)
    b, _ = build.get_batch(data, 8, 4, seeded(7))
    assert torch.equal(a, b), "two generators with one seed should give the same batch"
    generator = seeded(7)
    c, d = (build.get_batch(data, 8, 4, generator)[0] for _ in range(2))
    assert torch.equal(a, c) and not torch.equal(c, d), "the next draw should give another batch"


@pytest.mark.checks("get_batch")
def test_the_windows_of_a_batch_are_drawn_one_by_one(build):
    x, _ = build.get_batch(torch.arange(10_000), 4, 64, seeded(3))
    starts = x[:, 0].tolist()
    assert len(set(starts)) > 55, f"64 windows of 10,000 tokens have only {len(set(starts))} starts"
    assert len({b - a for a, b in pairwise(starts)}) > 40, (
        "the windows of a batch lie at equal distances; draw a start for each"
    )


# evaluate


def mean_loss(model, data, block_size):
    """Window by window, each prediction once: what evaluate should give."""
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(data) - 1, block_size):
            x, y = data[start : start + block_size], data[start + 1 : start + block_size + 1]
            x = x[: len(y)]
            total += F.cross_entropy(model(x[None])[0], y, reduction="sum").item()
    return total / (len(data) - 1)


@pytest.mark.checks("evaluate")
@pytest.mark.parametrize("N", [2, 5, 9, 12, 17, 33, 700], ids=lambda N: f"{N} tokens")
def test_evaluate_counts_every_prediction_once(build, N):
    model, data = gpt(build), tokens(N, seed=2)
    got, expected = build.evaluate(model, data, BLOCK), mean_loss(model, data, BLOCK)
    assert isinstance(got, float), f"evaluate should return a float, got {type(got).__name__}"
    whole = (N - 1) // BLOCK * BLOCK
    likely = "Each of the windows counts by its length, the shorter last one included"
    if 0 < whole < N - 1 and abs(got - mean_loss(model, data[: whole + 1], BLOCK)) < 1e-4:
        likely = f"The last {N - 1 - whole} predictions, an incomplete window, were left out"
    assert abs(got - expected) < 1e-4, (
        f"{N} tokens in windows of {BLOCK} cost {expected:.5f} nats per token over {N - 1} "
        f"predictions, got {got:.5f}.\n{likely}"
    )


@pytest.mark.checks("evaluate")
@pytest.mark.parametrize("block_size", [1, 3, BLOCK], ids=lambda size: f"block_size={size}")
def test_evaluate_cuts_windows_of_the_size_asked_for(build, block_size):
    model, data = gpt(build), tokens(400 if block_size == 1 else 50, seed=3)
    got, expected = build.evaluate(model, data, block_size), mean_loss(model, data, block_size)
    assert abs(got - expected) < 1e-4, (
        f"windows of {block_size} cost {expected:.5f} nats per token, got {got:.5f}: each window "
        "starts where the one before it ended and sees nothing of it"
    )


@pytest.mark.checks("evaluate")
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_evaluate_switches_dropout_off_and_restores_the_mode(build, training):
    model, data, modes = gpt(build).train(training), tokens(30, seed=4), []
    model.ln_f.register_forward_hook(
        lambda layer, *_: modes.append((layer.training, torch.is_grad_enabled()))
    )
    state = torch.get_rng_state()
    build.evaluate(model, data, BLOCK)
    assert not any(mode for mode, _ in modes), (
        "the model should be in eval mode while it is measured"
    )
    assert not any(grad for _, grad in modes), "measure under torch.no_grad(): no graph is needed"
    assert model.training == training == model.ln_f.training, (
        f"the model was {'' if training else 'not '}training before, and should be so again"
    )
    assert torch.equal(state, torch.get_rng_state()), "evaluate should draw no random numbers"
    assert all(p.grad is None for p in model.parameters()), "evaluate should leave no gradients"


@pytest.mark.checks("evaluate")
def test_evaluate_gives_the_same_number_every_time(build):
    model, data = gpt(build).train(), tokens(40, seed=5)
    first, second = (build.evaluate(model, data, BLOCK) for _ in range(2))
    assert first == second, f"the same model and data gave {first} and {second}"


# generate


def next_probabilities(model, idx):
    with torch.no_grad():
        return model(idx[:, -BLOCK:])[:, -1].softmax(-1)


@pytest.mark.checks("generate")
@pytest.mark.parametrize("n", [0, 1, 20], ids=lambda n: f"{n} new")
def test_generate_continues_what_it_is_given(build, n):
    model, idx = gpt(build), tokens(2, 3)
    before = idx.clone()
    got = build.generate(model, idx, n, generator=seeded(0))
    assert got.shape == (2, 3 + n), (
        f"(2, 3) and {n} new tokens make {(2, 3 + n)}, got {tuple(got.shape)}"
    )
    assert torch.equal(got[:, :3], before), "the given tokens should come first, unchanged"
    assert torch.equal(idx, before), "generate changed its argument"
    assert got.dtype == torch.int64 and 0 <= got.min() and got.max() < V, (
        "new tokens are ids below V"
    )


@pytest.mark.checks("generate")
def test_generate_at_temperature_zero_takes_the_likeliest(build):
    model, idx = gpt(build), tokens(3, 2)
    expected = idx
    for _ in range(15):
        likeliest = next_probabilities(model, expected).argmax(-1, keepdim=True)
        expected = torch.cat([expected, likeliest], 1)
    for sampling in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-6}):
        got = build.generate(model, idx, 15, generator=seeded(0), **sampling)
        assert torch.equal(got, expected), (
            f"with {sampling} every new token should be the likeliest after the last {BLOCK}:\n"
            f"    {expected[0].tolist()}\nyours:\n    {got[0].tolist()}\n"
            "Are the scores of the last position taken, and the new token put at the end?"
        )


@pytest.mark.checks("generate")
def test_generate_crops_to_the_context(build):
    model, idx = gpt(build), tokens(2, BLOCK + 9)
    got = build.generate(model, idx, 12, temperature=0)
    short = build.generate(model, idx[:, -BLOCK:], 12, temperature=0)
    assert torch.equal(got[:, -12:], short[:, -12:]), (
        f"only the last {BLOCK} tokens of a longer prompt can be seen, so the continuation should "
        "be that of these tokens alone"
    )


@pytest.mark.checks("generate")
@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_k": 1000},
        {"top_p": 0.6},
        {"top_p": 1.0},
        {"temperature": 1.5, "top_k": 5},
    ],
    ids=lambda sampling: " ".join(f"{k}={v}" for k, v in sampling.items()) or "plain",
)
def test_generate_draws_from_the_distribution(build, sampling):
    model, n = gpt(build), 20_000
    idx = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter *= 0.3  # so that many tokens are likely
        logits = model(idx)[0, -1] / sampling.get("temperature", 1.0)
    expected, order = logits.softmax(-1).sort(descending=True)
    keep = torch.ones(V).bool()
    keep[sampling.get("top_k", V) :] = False
    if "top_p" in sampling:
        keep &= expected.cumsum(-1) - expected < sampling["top_p"]
    expected = expected * keep / (expected * keep).sum()
    expected = torch.zeros(V).scatter(0, order, expected)
    drawn = build.generate(model, idx.expand(n, 3), 1, generator=seeded(5), **sampling)[:, -1]
    got = torch.bincount(drawn, minlength=V) / n
    assert gap(got, expected) < 0.02, (
        f"over {n:,} draws with {sampling} the tokens should come with\n"
        f"    {[round(p, 3) for p in expected.tolist()]}\nbut came with\n"
        f"    {[round(p, 3) for p in got.tolist()]}\n"
        "temperature divides the logits, top_k keeps the k likeliest, top_p the fewest that "
        "reach p (the one that reaches it included); then softmax and draw"
    )


@pytest.mark.checks("generate")
def test_generate_draws_the_same_from_the_same_generator(build):
    model, idx = gpt(build), tokens(2, 3)
    a, b, c = (build.generate(model, idx, 30, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(a, b), "two generators with one seed should give the same text"
    assert not torch.equal(a, c), "another seed should give another text"


@pytest.mark.checks("generate")
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_generate_leaves_the_mode_and_the_random_state_as_they_were(build, training):
    model, modes = gpt(build).train(training), []
    model.ln_f.register_forward_hook(lambda layer, *_: modes.append(layer.training))
    for generator in (None, seeded(0)):
        torch.manual_seed(3)
        state = torch.get_rng_state()
        build.generate(model, tokens(1, 2), 5, generator=generator)
        assert torch.equal(state, torch.get_rng_state()), (
            "generate moved the global random state: a run that samples now and then would no "
            "longer be the same run"
        )
    assert not any(modes), "generate should switch dropout off while it samples: model.eval()"
    assert model.training == training == model.ln_f.training, (
        f"the model was {'' if training else 'not '}training before, and should be so again"
    )
