"""Is what I typed right? `pytest p05_gpt` checks the GPT, in the book's order."""

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from p04_attention.laws import MOVED, moved

V, C, HEADS, LAYERS, BLOCK = 11, 16, 2, 3, 8
MANY = 4000  # samples per distribution


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tokens(*shape, seed=0, vocab=V):
    return torch.randint(vocab, shape, generator=seeded(seed))


def stream(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def gap(a, b):
    return (a - b).abs().max().item()


REFUSED = object()


def refused(call, *args, **kwargs):
    """The result of a call, or REFUSED for any error but NotImplementedError."""
    try:
        return call(*args, **kwargs)
    except NotImplementedError:
        raise
    except Exception:
        return REFUSED


def sharpened(module, example, factor=3.0):
    """The module in evaluation mode with larger weights, so that every part has an effect."""
    module.eval()
    draw = seeded(1)  # one for all parameters, or blocks of equal shapes would be equal
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                std = factor / math.sqrt(max(parameter.shape[1:]))
                parameter.copy_(std * torch.randn(parameter.shape, generator=draw))
        first, second = module(example), module(example)
    if not torch.equal(first, second):
        pytest.fail(
            "after model.eval() the same input gave two different results: something is random.\n"
            "Does dropout stay on? nn.Dropout checks self.training; F.dropout(x, p) does not, so "
            "write F.dropout(x, p, self.training)",
            pytrace=False,
        )
    return module


def block(build):
    torch.manual_seed(0)
    return sharpened(build.Block(C, HEADS), stream(2, 3, C))


def gpt(build, block_size=BLOCK):
    torch.manual_seed(0)
    model = build.GPT(V, C, HEADS, LAYERS, block_size)
    if isinstance(getattr(model, "blocks", None), list | tuple):
        pytest.fail(PLAIN_LIST, pytrace=False)
    return sharpened(model, tokens(1, min(3, block_size)))


PLAIN_LIST = (
    "blocks is a plain list: its parameters are not registered with the model, so no optimizer "
    "would train them.\nUse nn.Sequential(*blocks) or nn.ModuleList(blocks)"
)


def heads_make_no_difference(one, four, example):
    """Whether modules with 1 and with 4 heads compute the same from the same weights."""
    four = sharpened(four, example)
    try:
        one.eval().load_state_dict(four.state_dict())
    except RuntimeError:  # other shapes: each head has weights of its own
        return False
    return torch.allclose(one(example), four(example), atol=1e-6)


# Block


@pytest.mark.step(1)
@pytest.mark.checks("Block")
def test_block_keeps_the_shape(build):
    for B, T in ((2, 5), (1, 1), (3, 20)):
        got = build.Block(C, HEADS)(stream(B, T, C))
        assert got.shape == (B, T, C), (
            f"Block({C}, {HEADS}) turned {(B, T, C)} into {tuple(got.shape)}"
        )


@pytest.mark.step(1)
@pytest.mark.checks("Block")
@torch.no_grad()
def test_block_is_causal(build):
    module, x = block(build), stream(2, 6, C)
    changed = x.clone()
    changed[:, 4] = stream(2, C, seed=1)
    early = [t for t in range(4) if moved(module, x, changed)[:, t].max() >= MOVED]
    assert not early, (
        f"changing token 4 changed the block's output at the earlier positions {early}:\n"
        "only attention may read other positions, and only earlier ones"
    )


@pytest.mark.step(1)
@pytest.mark.checks("Block")
@torch.no_grad()
def test_block_treats_each_text_of_a_batch_by_itself(build):
    module, x = block(build), stream(3, 4, C)
    whole, alone = module(x), torch.cat([module(x[i : i + 1]) for i in range(3)])
    assert torch.allclose(whole, alone, atol=1e-4), (
        f"the block's output for a text in a batch of 3 differs from that for the text alone by up "
        f"to {gap(whole, alone):.3f}: something mixes the rows of the batch"
    )


@pytest.mark.step(1)
@pytest.mark.checks("Block")
def test_block_adds_attention_then_the_mlp_to_the_stream(build):
    module, x = block(build), stream(2, 5, C)
    (module(x) * stream(2, 5, C, seed=2)).sum().backward()
    idle = without_gradient(module)
    assert not idle, (
        f"the block's output does not depend on {idle}: "
        "is each part called, and its output added to x?"
    )
    with torch.no_grad():
        changed = x.clone()
        changed[:, 0] = stream(2, C, seed=1)
        assert gap(module(changed)[:, 1:], module(x)[:, 1:]) > 1e-3, (
            "changing token 0 does not change the outputs after it: attention's output is not "
            "added to x"
        )
        alone = lone_tokens()
        assert bend(module, alone) > 0.1, (
            "what the block adds to a single token is a linear function of its LayerNorm: the two "
            "layers of the MLP need a GELU (or ReLU) between them, since two Linears in a row are "
            "one"
        )
        # For one token attention is a matrix times LayerNorm(x); only its sum with x has a size.
        small, large = (module(size * x[:, :1]) - size * x[:, :1] for size in (0.1, 1e3))
        assert gap(small, large) > 0.05, (
            "the block adds the same to a token that is ten thousand times as large: the MLP does "
            "not read the sum of x and attention's output.\n"
            "First x = x + attention, then the MLP reads a LayerNorm of that x"
        )
        wide = [p for p in module.parameters() if p.numel() == 4 * C * C]
        if len(wide) == 2:  # otherwise the check of the number of weights fails
            bends = []
            for _ in range(2):
                for p in wide:
                    p *= 20
                bends.append(bend(module, alone))
            assert bends[1] > 100 * bends[0], (
                "with the weights of both layers of the MLP 20 times as large, its output should "
                f"be about 400 times as large, got {bends[1] / bends[0]:.3g} times: is there a "
                "GELU (or ReLU) between them, which does not saturate?"
            )


def without_gradient(module):
    """The names of the parameters without a gradient, the first six spelled out."""
    idle = [
        name
        for name, p in module.named_parameters()
        if p.grad is None or (p.dim() > 1 and not p.grad.any())
    ]
    return ", ".join(idle[:6]) + (f" and {len(idle) - 6} more" if len(idle) > 6 else "")


def lone_tokens():
    """Twelve texts of one token each, on a circle of vectors with mean 0 and variance 1."""
    basis = torch.linalg.qr(torch.cat([torch.ones(1, C), stream(2, C)]).T).Q[:, 1:].T
    turn = torch.linspace(0, 2 * math.pi, 13)[:12, None]
    return math.sqrt(C) * (turn.cos() * basis[0] + turn.sin() * basis[1])[:, None]  # (12, 1, C)


def bend(module, x):
    """How far the block's output on lone tokens is from linear, for large x."""
    found = module(1e3 * x)[:, 0]  # (12, C)
    turn = torch.linspace(0, 2 * math.pi, 13)[:12]
    straight = torch.stack([torch.ones(12), turn.cos(), turn.sin()], dim=1)  # (12, 3)
    return (found - straight @ torch.linalg.lstsq(straight, found).solution).abs().max().item()


@pytest.mark.step(1)
@pytest.mark.checks("Block")
@torch.no_grad()
def test_block_keeps_the_stream_beside_what_the_parts_find(build):
    """Both parts read a LayerNorm, so for a very large stream only x itself is large."""
    module, x, size = block(build), stream(2, 5, C), 1e6
    got, changed = module(size * x), x.clone()
    changed[:, 0] = stream(2, C, seed=1)
    moved = gap(module(size * changed)[:, 1:], got[:, 1:]) / got.abs().max()
    times = (got * x).sum() / (size * x.square().sum())
    if torch.allclose(got / size, times * x, atol=1e-3) and abs(times) > 1e-3:
        return  # the factor is the next check's
    if gap(got.mean(-1), torch.zeros(1)) < 1e-3 and gap(got.std(-1), got.std(-1).mean()) < 1e-2:
        why = "a LayerNorm comes after the sum; only the inputs of attention and MLP need one"
    elif got.abs().max() < 1e-3 * size:
        part = "attention" if moved > 0.01 else "the MLP"
        why = f"the output of {part} replaces x instead of being added: x = x + ..."
    else:
        part = "attention" if moved > 1e-4 else "the MLP"
        why = f"{part} reads x itself and grows with it: it should read a LayerNorm of x"
    pytest.fail(
        f"for an input {size:,.0f} times as large the block should return that input plus the "
        f"outputs of attention and MLP, which LayerNorm keeps small; it returns something else:\n"
        f"{why}",
        pytrace=False,
    )


@pytest.mark.step(1)
@pytest.mark.checks("Block")
@torch.no_grad()
def test_block_hands_on_the_stream_once(build):
    """The output contains x exactly once, not twice or half of it."""
    module, x, size = block(build), stream(2, 5, C), 1e6
    got = module(size * x) / size
    times = ((got * x).sum() / x.square().sum()).item()
    scaled = abs(times) > 1e-3 and torch.allclose(got, times * x, atol=1e-3)
    assert not scaled or abs(times - 1) < 1e-3, (
        f"the output contains the input x {times:.3g} times: it is added more than once, or scaled;"
        " x = x + ... adds a part's output to x itself, once"
    )


@pytest.mark.step(1)
@pytest.mark.checks("Block")
@torch.no_grad()
def test_block_normalises_what_each_part_reads(build):
    module, x = block(build), stream(2, 5, C)
    moved = module(x + 7) - module(x)
    uneven = gap(moved, moved.mean(-1, keepdim=True))
    assert uneven < 1e-3, (
        "adding 7 to every channel of x changes what attention and MLP add by up to "
        f"{uneven:.3f}; LayerNorm removes such a shift.\n"
        "Do both attention and MLP read a LayerNorm of x?"
    )


@pytest.mark.step(1)
@pytest.mark.checks("Block")
@torch.no_grad()
def test_block_lets_attention_read_the_normalised_stream(build):
    """A later token sees an earlier one through attention alone, so through ln_1 alone."""
    module, x = block(build), stream(2, 4, C)
    before = module(x)[:, 1:]
    results = {}
    for size in (3.0, 1e5, 1e7):
        louder = x.clone()
        louder[:, 0] *= size
        results[size] = module(louder)[:, 1:]
    assert gap(results[3.0], before) < 1e-3, (
        "making token 0 three times as large changed the outputs after it by up to "
        f"{gap(results[3.0], before):.3f}: attention should read a LayerNorm of x, "
        "which removes the size.\n"
        + (
            "Does attention come first, and the MLP after it?"
            if gap(results[1e5], results[1e7]) < 0.05 * before.abs().max()
            else "Does attention read x itself, without LayerNorm?"
        )
    )


@pytest.mark.step(1)
@pytest.mark.checks("Block")
def test_block_passes_gradients_to_its_input(build):
    torch.manual_seed(0)
    module, step = build.Block(C, HEADS).eval(), 5e-4
    x, along, downstream = (stream(2, 5, C, seed=seed) for seed in (0, 1, 2))
    with torch.no_grad():
        ahead, back = ((module(x + s * along) * downstream).sum().item() for s in (step, -step))
    expected = (ahead - back) / (2 * step)
    x.requires_grad_()
    (module(x) * downstream).sum().backward()
    got = 0.0 if x.grad is None else (x.grad * along).sum().item()
    assert math.isclose(got, expected, rel_tol=0.05, abs_tol=0.1), (
        f"the derivative of the output along one direction of x is {expected:.3f}, and by the "
        f"gradient with respect to x it is {got:.3f}:\n"
        "is x, or something computed from it, cut off from the graph (detach, .data)?"
    )


@pytest.mark.step(1)
@pytest.mark.checks("Block")
def test_block_gives_attention_its_number_of_heads(build):
    torch.manual_seed(0)
    assert not heads_make_no_difference(build.Block(C, 1), build.Block(C, 4), stream(2, 5, C)), (
        f"Block({C}, 1) and Block({C}, 4) with the same weights have equal outputs: "
        "does attention get n_head?"
    )


@pytest.mark.step(1)
@pytest.mark.checks("Block")
def test_block_has_a_layer_norm_for_each_part(build):
    norms = [m for m in build.Block(C, HEADS).modules() if isinstance(m, nn.LayerNorm)]
    if norms:  # a reader's own LayerNorm is covered by the checks above
        assert len(norms) == 2, f"a block has 2 LayerNorms, one for each part; found {len(norms)}"


@pytest.mark.step(1)
@pytest.mark.checks("Block")
def test_block_has_an_mlp_four_times_as_wide(build):
    numbers = sum(p.numel() for p in build.Block(C, HEADS).parameters())
    low, high = 12 * C * C, 12 * C * C + 13 * C  # biases are optional
    assert low <= numbers <= high, (
        f"Block({C}, {HEADS}) needs 4 C^2 weights for attention and 8 C^2 for an MLP of width 4 C, "
        f"together {low}, or up to {high} with biases and LayerNorms; it has {numbers}"
    )


# GPT


def vectors(part):
    """The table (V, C) of an embedding, which may be an Embedding or a Parameter."""
    table = part if isinstance(part, torch.Tensor) else part.weight
    return table.reshape(-1, table.shape[-1])


def scores(head, x):
    """The head's output, which may be a module or a matrix (V, C) or (C, V)."""
    if not isinstance(head, torch.Tensor):
        return head(x)
    return x @ (head if head.shape[0] == C else head.T)


def weights_of(part):
    return [part] if isinstance(part, torch.Tensor) else list(part.parameters())


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
def test_gpt_has_the_parts_of_the_book(build):
    model = build.GPT(V, C, HEADS, LAYERS, BLOCK)
    missing = [
        name
        for name in ("tok_emb", "pos_emb", "blocks", "ln_f", "head")
        if not hasattr(model, name)
    ]
    assert not missing, (
        "GPT should have the attributes tok_emb, pos_emb, blocks, ln_f and head; "
        f"missing: {', '.join(missing)}"
    )
    assert not isinstance(model.blocks, list | tuple), PLAIN_LIST
    for name, size, what in (("tok_emb", V, "tokens"), ("pos_emb", BLOCK, "positions")):
        shape = tuple(vectors(getattr(model, name)).shape)
        assert shape == (size, C), (
            f"{name} should hold a vector of {C} for each of {size} {what}, got {shape}"
        )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
@pytest.mark.parametrize("B, T", [(1, 1), (2, 5), (3, BLOCK)], ids=["1x1", "2x5", "3x8"])
def test_gpt_scores_every_token_at_every_position(build, B, T):
    got = build.GPT(V, C, HEADS, LAYERS, BLOCK)(tokens(B, T))
    shape = tuple(got.shape) if isinstance(got, torch.Tensor) else f"a {type(got).__name__}"
    assert shape == (B, T, V), f"ids {(B, T)} should give logits {(B, T, V)}, got {shape}"


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
@torch.no_grad()
def test_gpt_returns_scores_and_no_probabilities(build):
    got = gpt(build)(tokens(2, BLOCK))
    for dim, over in ((-1, "tokens"), (1, "positions"), (0, "texts")):
        for values, name in ((got, "softmax"), (got.exp(), "log_softmax")):
            sums = values.sum(dim)
            assert not (values.min() >= 0 and torch.allclose(sums, torch.ones(1), atol=1e-4)), (
                f"forward applies a {name} over the {over}; it should return the head's output "
                "unchanged, since the cross-entropy has its own softmax"
            )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
@torch.no_grad()
def test_gpt_is_embeddings_blocks_norm_and_head_in_this_order(build):
    model, idx = gpt(build), tokens(2, BLOCK - 1)
    for parameter in model.ln_f.parameters():
        parameter.add_(torch.linspace(0.5, 1.5, C))
    tok, table = vectors(model.tok_emb)[idx], vectors(model.pos_emb)
    pos = table[: idx.shape[1]]

    def finish(x, n_blocks=LAYERS, norm=model.ln_f):
        blocks = list(model.blocks)
        for layer in blocks[:n_blocks] if n_blocks >= 0 else blocks[::-1]:
            x = layer(x)
        return scores(model.head, norm(x))

    expected, got = finish(tok + pos), model(idx)
    mistakes = {
        "the position embeddings are not added": finish(tok),
        "the token embeddings are not used": finish(pos.expand_as(tok)),
        "ln_f is not applied": finish(tok + pos, norm=lambda x: x),
        "the blocks are not applied": finish(tok + pos, 0),
        "only the first block is applied": finish(tok + pos, 1),
        "the last block is not applied": finish(tok + pos, LAYERS - 1),
        "the blocks are applied in the wrong order": finish(tok + pos, -1),
        "the positions count backwards": finish(tok + pos.flip(0)),
        "every token has the first position": finish(tok + pos[:1]),
        "the positions count from 1": finish(tok + table[1:]),
        "the embeddings are multiplied, not added": finish(tok * pos),
        "ln_f is applied before the blocks": finish(model.ln_f(tok + pos), norm=lambda x: x),
        "a softmax is applied to the scores": expected.softmax(-1),
        "a softmax over the positions is applied to the scores": expected.softmax(1),
        "a log_softmax is applied to the scores": expected.log_softmax(-1),
    }
    reason = next(
        (why for why, wrong in mistakes.items() if torch.allclose(got, wrong, atol=1e-4)), ""
    )
    assert torch.allclose(got, expected, atol=1e-4), (
        "GPT should return head(ln_f(blocks(tok_emb + pos_emb))); "
        + (reason or f"its output differs by up to {gap(got, expected):.3f}")
    )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
def test_gpt_refuses_more_tokens_than_its_context(build):
    model = build.GPT(V, C, HEADS, LAYERS, BLOCK)
    got = refused(model, tokens(1, BLOCK + 1))
    if got is REFUSED:
        return
    pytest.fail(
        f"{BLOCK + 1} tokens exceed the context length of {BLOCK}, and the model returns "
        f"{tuple(got.shape)} without an error:\n"
        + (
            "is the text cut off?"
            if got.shape[1] == BLOCK
            else "there is no embedding for the last position; which one is used?"
        ),
        pytrace=False,
    )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
@torch.no_grad()
def test_gpt_starts_by_knowing_nothing(build):
    torch.manual_seed(0)
    model = build.GPT(500, 64, 4, 4, 32).eval()
    logits = model(tokens(4, 32, vocab=500))
    first = F.cross_entropy(logits.reshape(-1, 500), tokens(4, 32, seed=1, vocab=500).reshape(-1))
    assert abs(first / math.log(500) - 1) < 0.05, (
        f"the loss of a fresh model with 500 tokens should be near ln 500 = {math.log(500):.2f}, "
        f"got {first:.2f}: its first guesses are confident and wrong. Are its initial weights "
        "small?"
    )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
def test_gpt_has_as_many_blocks_as_asked_for_each_with_its_own_weights(build):
    for n_layer in (1, 3):
        model = build.GPT(V, C, HEADS, n_layer, BLOCK)
        assert len(model.blocks) == n_layer, f"asked for {n_layer} blocks, got {len(model.blocks)}"
        assert not isinstance(model.blocks, list | tuple), PLAIN_LIST
        numbers = sum(p.numel() for p in model.blocks.parameters())
        low, high = (n_layer * size for size in (12 * C * C, 12 * C * C + 13 * C))
        assert low <= numbers <= high, (
            f"{n_layer} blocks should have {n_layer} x 12 C^2 = {low} weights, or up to {high} "
            f"with biases and LayerNorms; found {numbers}: is one block used several times?"
        )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
def test_gpt_gives_its_blocks_their_number_of_heads(build):
    torch.manual_seed(0)
    one, four = (build.GPT(V, C, n_head, 1, BLOCK) for n_head in (1, 4))
    assert not heads_make_no_difference(one, four, tokens(2, BLOCK)), (
        f"GPT({V}, {C}, 1, 1, {BLOCK}) and GPT({V}, {C}, 4, 1, {BLOCK}) with the same weights have "
        "equal outputs: do the blocks get n_head?"
    )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
@torch.no_grad()
def test_gpt_knows_the_position_of_a_token(build):
    model = gpt(build)
    logits = model(torch.full((1, BLOCK), 3))[0]
    same = [t for t in range(1, BLOCK) if torch.allclose(logits[t], logits[0], atol=1e-5)]
    assert not same, (
        f"the same token at positions 0 and {same} gets the same logits: attention alone does not "
        "know the order. Is pos_emb added to tok_emb?"
    )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
@torch.no_grad()
def test_gpt_knows_which_token_stands_there(build):
    logits = gpt(build)(torch.arange(V)[:, None])[:, 0]
    same = [(a, b) for a in range(V) for b in range(a) if gap(logits[a], logits[b]) < 1e-4]
    assert not same, (
        f"different tokens get the same logits, in {len(same)} of {V * (V - 1) // 2} pairs: "
        "is tok_emb used?"
    )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
@torch.no_grad()
def test_gpt_is_causal(build):
    model, idx = gpt(build), tokens(2, BLOCK)
    changed = idx.clone()
    changed[:, 5] = (changed[:, 5] + 1) % V
    assert moved(model, idx, changed)[:, :5].max() < MOVED, (
        "changing token 5 changed the logits at positions 0 to 4: the model sees the future"
    )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
@torch.no_grad()
def test_gpt_treats_each_text_of_a_batch_by_itself(build):
    model, idx = gpt(build), tokens(3, BLOCK)
    whole, alone = model(idx), torch.cat([model(idx[i : i + 1]) for i in range(3)])
    assert torch.allclose(whole, alone, atol=1e-4), (
        f"the logits of a text in a batch of 3 differ from those of the text alone by up to "
        f"{gap(whole, alone):.3f}: something mixes the rows of the batch"
    )


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
def test_gpt_trains_every_parameter(build):
    model = gpt(build)
    F.cross_entropy(model(tokens(4, BLOCK)).reshape(-1, V), tokens(4 * BLOCK, seed=1)).backward()
    idle = without_gradient(model)
    assert not idle, f"no gradient reaches {idle}: unused, or cut off from the graph"


@pytest.mark.step(2)
@pytest.mark.checks("GPT")
def test_every_weight_of_a_fresh_gpt_begins_to_learn(build):
    torch.manual_seed(0)
    model = build.GPT(V, C, HEADS, LAYERS, BLOCK)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.dim() > 1}
    for step in range(6):  # if one of two factors starts at zero, the other learns a step later
        logits = model(tokens(4, BLOCK, seed=step)).reshape(-1, V)
        model.zero_grad()
        F.cross_entropy(logits, tokens(4 * BLOCK, seed=step + 10)).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad if p.grad is not None else 0
    moved = dict(model.named_parameters())
    idle = [name for name, old in before.items() if torch.equal(old, moved[name])]
    assert not idle, (
        f"after six steps {len(idle)} of {len(before)} weights of a fresh model are unchanged, "
        f"{idle[0]} among them: where everything starts at zero, every gradient is zero"
    )


# loss


def scalar(got, what):
    """The loss as a number; fails if it is anything but a tensor with shape ()."""
    came = (
        f"a tensor of shape {tuple(got.shape)}"
        if isinstance(got, torch.Tensor)
        else f"a {type(got).__name__}"
    )
    assert isinstance(got, torch.Tensor) and got.dim() == 0, (
        f"{what} should be a tensor of shape (), so that backward() can start from it; got {came}"
    )
    return got.item()


@pytest.mark.step(3)
@pytest.mark.checks("loss")
def test_loss_is_a_tensor_of_one_number(build):
    logits = stream(2, 3, V).requires_grad_()
    got = build.loss(logits, tokens(2, 3))
    scalar(got, "the loss")
    assert got.requires_grad, "the loss does not depend on the logits: no gradient can flow"


@pytest.mark.step(3)
@pytest.mark.checks("loss")
def test_loss_of_two_predictions_by_hand(build):
    # probabilities 1/2, 1/4, 1/4 for the first token and 1/10, 1/10, 8/10 for the second
    probabilities = torch.tensor([[[2.0, 1.0, 1.0], [1.0, 1.0, 8.0]]])
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    logits = (probabilities * 3).log()
    again = probabilities.log_softmax(-1)[0]
    expected = (math.log(2) + math.log(10 / 8)) / 2
    got = scalar(build.loss(logits, torch.tensor([[0, 2]])), "the loss")
    reasons = {
        2 * expected: "that is the sum, not the mean",
        expected / math.log(2): "that is in bits",
        expected / math.log(10): "that is a logarithm to base 10",
        -expected: "the sign is wrong",
        (1 / 2 + 8 / 10) / 2: "those are probabilities; the loss is minus their logarithm",
        math.log(10 / 8): "that is the last token's loss alone",
        math.log(4): "that is the first token's loss with the second one's target",
        -(again[0, 0] + again[1, 2]).item() / 2: "a softmax is applied before the cross-entropy, "
        "which has its own",
    }
    reason = next((f": {why}" for value, why in reasons.items() if abs(got - value) < 1e-4), "")
    assert abs(got - expected) < 1e-5, (
        f"with probabilities 1/2 and 8/10 for the right tokens the loss is (ln 2 + ln 1.25) / 2 = "
        f"{expected:.4f} nats per token, got {got:.4f}{reason}"
    )


@pytest.mark.step(3)
@pytest.mark.checks("loss")
def test_loss_of_a_uniform_guess_is_the_log_of_the_vocabulary(build):
    got = scalar(build.loss(torch.full((2, 3, 7), 5.0), tokens(2, 3, vocab=7)), "the loss")
    assert abs(got - math.log(7)) < 1e-5, (
        f"with equal logits for 7 tokens the loss is ln 7 = 1.9459, got {got:.4f}"
    )


@pytest.mark.step(3)
@pytest.mark.checks("loss")
@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["x1", "x1000"])
def test_loss_agrees_with_torch(build, scale):
    logits, targets = scale * stream(3, 4, V), tokens(3, 4)
    kept = logits.clone().requires_grad_(), targets.clone()
    costs = F.cross_entropy(kept[0].transpose(1, 2), kept[1], reduction="none")  # (B, T)
    (theirs,) = torch.autograd.grad(costs.mean(), kept[0])
    logits.requires_grad_()
    result = build.loss(logits, targets)
    assert torch.equal(logits, kept[0]) and torch.equal(targets, kept[1]), (
        "loss changed its arguments; it should leave logits and targets as they are"
    )
    got, expected = scalar(result, "the loss"), costs.mean().item()
    flat = kept[0].detach()
    reasons = {
        "that is the sum, not the mean": costs.sum(),
        "that is the sum over each text, then the mean over the batch": costs.sum(1).mean(),
        "a softmax is applied before the cross-entropy, which has its own": F.cross_entropy(
            flat.softmax(-1).transpose(1, 2), targets
        ),
        "the targets are shifted once more, and get_batch has done that": F.cross_entropy(
            flat[:, :-1].transpose(1, 2), targets[:, 1:]
        ),
        "only the last position is counted": costs[:, -1].mean(),
    }
    close = {why: abs(got - value.item()) < 1e-4 * abs(got) for why, value in reasons.items()}
    if not math.isfinite(got):
        close = {"exp of a large number is infinite: subtract the largest logit first": True}
    reason = next((f":\n{why}" for why, same in close.items() if same), "")
    assert math.isclose(got, expected, rel_tol=1e-4), (
        f"with logits of size {scale:g} the loss is {expected:.5f} nats per token, got {got:.5f}"
        f"{reason}"
    )
    assert result.requires_grad, "the loss does not depend on the logits: no gradient can flow"
    (mine,) = torch.autograd.grad(result, logits)
    assert torch.allclose(mine, theirs, atol=1e-6), (
        f"the gradient of the loss with respect to the logits differs from PyTorch's by up to "
        f"{gap(mine, theirs):.2g}"
    )


# get_batch


@pytest.mark.step(4)
@pytest.mark.checks("get_batch")
def test_a_batch_holds_windows_and_the_same_windows_one_token_later(build):
    data = torch.arange(100, 200)
    x, y = build.get_batch(data, 8, 5, seeded(0))
    assert torch.equal(data, torch.arange(100, 200)), "get_batch changed the data"
    assert x.shape == (5, 8) and y.shape == (5, 8), (
        f"with block_size 8 and batch_size 5, x and y should have shape (5, 8), "
        f"got {tuple(x.shape)} and {tuple(y.shape)}"
    )
    assert x.dtype == y.dtype == torch.int64, f"token ids are int64, got {x.dtype}, {y.dtype}"
    assert torch.equal(x[:, 1:], x[:, :-1] + 1), (
        f"each row of x should be a run of consecutive tokens; the first is\n    {x[0].tolist()}"
    )
    reason = ""
    if torch.equal(y, x):
        reason = "\ny is x itself: the model would be shown its targets"
    elif torch.equal(y, x + 2):
        reason = "\ny is two tokens later"
    assert torch.equal(y, x + 1), (
        f"the targets of\n    {x[0].tolist()}\nare the next tokens,\n    "
        f"{(x[0] + 1).tolist()}\nbut y is\n    {y[0].tolist()}{reason}"
    )


@pytest.mark.step(4)
@pytest.mark.checks("get_batch")
def test_every_window_of_a_batch_is_equally_likely(build):
    generator, N, block_size = seeded(1), 13, 4
    counts = Counter()
    for _ in range(20):
        try:
            x, _ = build.get_batch(torch.arange(N), block_size, 450, generator)
        except (IndexError, RuntimeError) as error:
            if isinstance(error, NotImplementedError):
                raise
            pytest.fail(
                f"one of 9,000 windows of {block_size} in {N} tokens ended in "
                f"{type(error).__name__}: {error}.\nThe last window with all its targets starts at "
                f"{N - block_size - 1}",
                pytrace=False,
            )
        counts.update(x[:, 0].tolist())
    expected = set(range(N - block_size))  # the last window starts at 8 and its last target is 12
    assert set(counts) == expected, (
        f"windows of {block_size} in {N} tokens can start at 0 to {N - block_size - 1}, where the "
        f"last target is the last token; of 9,000 windows yours started at {sorted(counts)}"
    )
    low, high = min(counts.values()), max(counts.values())
    assert low > 840 and high < 1160, (
        f"each of the 9 windows should be drawn about 1,000 times in 9,000, yours were drawn {low} "
        f"to {high} times: draw the starts uniformly"
    )


@pytest.mark.step(4)
@pytest.mark.checks("get_batch")
def test_the_only_window_of_the_shortest_text_is_found(build):
    x, y = build.get_batch(torch.arange(5), 4, 3, seeded(0))
    assert x.tolist() == [[0, 1, 2, 3]] * 3 and y.tolist() == [[1, 2, 3, 4]] * 3, (
        f"5 tokens contain exactly one window of 4 with its targets; "
        f"got x {x.tolist()}, y {y.tolist()}"
    )


@pytest.mark.step(4)
@pytest.mark.checks("get_batch")
def test_a_text_without_a_whole_window_gives_no_batch(build):
    got = refused(build.get_batch, torch.arange(4), 4, 3, seeded(0))
    if got is REFUSED:
        return
    pytest.fail(
        "4 tokens contain no window of 4 with its targets, and yet get_batch returns "
        f"x {got[0].tolist()}, y {got[1].tolist()} without an error",
        pytrace=False,
    )


@pytest.mark.step(4)
@pytest.mark.checks("get_batch")
def test_a_batch_depends_on_its_generator_alone(build):
    data = torch.arange(1000)
    torch.manual_seed(0)
    a, _ = build.get_batch(data, 8, 4, seeded(7))
    torch.manual_seed(1)
    b, _ = build.get_batch(data, 8, 4, seeded(7))
    assert torch.equal(a, b), (
        "generators with the same seed should give the same batch; pass generator=generator to "
        "torch.randint"
    )
    generator = seeded(7)
    c, d = (build.get_batch(data, 8, 4, generator)[0] for _ in range(2))
    assert torch.equal(a, c) and not torch.equal(c, d), "the next call should give another batch"


@pytest.mark.step(4)
@pytest.mark.checks("get_batch")
def test_the_windows_of_a_batch_are_drawn_one_by_one(build):
    x, _ = build.get_batch(torch.arange(10_000), 4, 64, seeded(3))
    starts = x[:, 0].tolist()
    assert len(set(starts)) > 55, (
        f"64 windows of 10,000 tokens have only {len(set(starts))} different starts"
    )
    assert len({b - a for a, b in pairwise(starts)}) > 40, (
        "the windows of a batch are at equal distances; draw a start for each"
    )


# evaluate


def mean_loss(model, data, block_size):
    """The mean loss with each prediction counted once, which evaluate should return."""
    n, total = len(data) - 1, 0.0
    whole = n // block_size * block_size
    with torch.no_grad():
        for first, last, size in ((0, whole, block_size), (whole, n, n - whole)):
            if first < last:
                x = data[first:last].view(-1, size)
                y = data[first + 1 : last + 1]
                total += F.cross_entropy(model(x).reshape(-1, V), y, reduction="sum").item()
    return total / n


def number(got):
    """The result of evaluate as a float."""
    try:
        return float(got)
    except (TypeError, ValueError, RuntimeError):
        came = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
        pytest.fail(f"evaluate should return one number, got {came}", pytrace=False)


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5)


@pytest.mark.step(5)
@pytest.mark.checks("evaluate")
@pytest.mark.parametrize("N", [2, 5, 9, 12, 33, 300], ids=lambda N: f"{N} tokens")
def test_evaluate_counts_every_prediction_once(build, N):
    model, data = gpt(build), tokens(N, seed=2)
    n, whole = N - 1, (N - 1) // BLOCK * BLOCK
    expected = mean_loss(model, data, BLOCK)
    reasons = {
        f"that is the sum over the {n} predictions": n * expected,
        f"that is divided by {N}, and {N} tokens have {n} predictions": n * expected / N,
    }
    if 0 < whole < n:
        full, rest = mean_loss(model, data[: whole + 1], BLOCK), mean_loss(model, data[whole:], n)
        windows = whole // BLOCK
        left_out = f"the last {n - whole} predictions, an incomplete window, were left out"
        reasons |= {
            left_out: full,
            f"{left_out}, but counted in the divisor": full * whole / n,
            "the shorter last window has the same weight as the others": (windows * full + rest)
            / (windows + 1),
        }
    got = number(build.evaluate(model, data, BLOCK))
    reason = next((f": {why}" for why, value in reasons.items() if close(got, value)), "")
    assert close(got, expected), (
        f"the loss on {N} tokens in windows of {BLOCK} is {expected:.5f} nats per token over {n} "
        f"predictions, got {got:.5f}{reason}"
    )


@pytest.mark.step(5)
@pytest.mark.checks("evaluate")
@pytest.mark.parametrize("block_size", [1, 3, BLOCK], ids=lambda size: f"block_size={size}")
def test_evaluate_cuts_windows_of_the_size_asked_for(build, block_size):
    model, data = gpt(build), tokens(50, seed=3)
    expected = mean_loss(model, data, block_size)
    got = number(build.evaluate(model, data, block_size))
    assert close(got, expected), (
        f"the loss in windows of {block_size} is {expected:.5f} nats per token, got {got:.5f}.\n"
        "Windows do not overlap, and the model sees one window at a time"
    )


def with_dropout(model):
    """The model with a dropout of 0.5 after ln_f."""
    model.ln_f = nn.Sequential(model.ln_f, nn.Dropout(0.5))
    return model.eval()


@pytest.mark.step(5)
@pytest.mark.checks("evaluate")
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_evaluate_switches_dropout_off_and_restores_the_mode(build, training):
    model, data = with_dropout(gpt(build)), tokens(30, seed=4)
    expected = mean_loss(model, data, BLOCK)
    model.train(training)
    first, second = (number(build.evaluate(model, data, BLOCK)) for _ in range(2))
    assert close(first, expected) and close(second, expected), (
        f"the loss of a model with dropout, in {'training' if training else 'evaluation'} mode, is "
        f"{expected:.5f} nats per token without the dropout; evaluate returned {first:.5f} and "
        f"{second:.5f}.\nmodel.eval() switches dropout off"
    )
    mode = "training" if training else "evaluation"
    assert model.training == training == model.ln_f.training, (
        f"the model was in {mode} mode before evaluate, and should be in it afterwards"
    )
    assert all(p.grad is None for p in model.parameters()), "evaluate should leave no gradients"


@pytest.mark.step(5)
@pytest.mark.checks("evaluate")
def test_evaluate_has_no_number_for_a_text_without_predictions(build):
    got = refused(build.evaluate, gpt(build), tokens(1), BLOCK)
    assert got is REFUSED or math.isnan(number(got)), (
        f"one token has no prediction, and yet evaluate returns {number(got)}"
    )


# generate


@torch.no_grad()
def greedy(model, idx, n, window=slice(-BLOCK, None), position=-1):
    """Greedy decoding: the likeliest token at the last position, given the last BLOCK tokens."""
    for _ in range(n):
        likeliest = model(idx[:, window])[:, position].argmax(-1, keepdim=True)
        idx = torch.cat([idx, likeliest], dim=1)
    return idx


@pytest.mark.step(6)
@pytest.mark.checks("generate")
@pytest.mark.parametrize("n", [0, 1, 5], ids=lambda n: f"{n} new")
def test_generate_continues_what_it_is_given(build, n):
    model, idx = gpt(build), tokens(2, 3)
    before = idx.clone()
    got = build.generate(model, idx, n, generator=seeded(0))
    assert torch.equal(idx, before), "generate changed its argument"
    assert got.shape == (2, 3 + n), (
        f"idx of shape (2, 3) and {n} new tokens should give {(2, 3 + n)}, got {tuple(got.shape)}"
    )
    assert torch.equal(got[:, :3], before), "the given tokens should come first, unchanged"
    assert got.dtype == torch.int64 and 0 <= got.min() and got.max() < V, (
        f"new tokens are ids from 0 to {V - 1} in int64; got {got.min()} to {got.max()} in "
        f"{got.dtype}"
    )


@pytest.mark.step(6)
@pytest.mark.checks("generate")
@pytest.mark.parametrize(
    "sampling", [{"top_k": 1}, {"temperature": 1e-6}], ids=["top_k=1", "temperature=1e-6"]
)
def test_generate_without_a_choice_takes_the_likeliest(build, sampling):
    model, idx = gpt(build), tokens(3, 3)
    expected, first = greedy(model, idx, 5), greedy(model, idx, 5, position=0)
    got = build.generate(model, idx, 5, generator=seeded(0), **sampling)
    other = build.generate(model, idx, 5, generator=seeded(1), **sampling)
    reason = ""
    if not torch.equal(got, other):
        reason = "\nanother generator gives another text: it still samples"
    elif torch.equal(got, first):
        reason = "\nthe logits of the first position are used, not those of the last"
    assert torch.equal(got, expected), (
        f"with {sampling} every new token should be the likeliest:\n"
        f"    {expected[0].tolist()}\nyours:\n    {got[0].tolist()}{reason}"
    )


@pytest.mark.step(6)
@pytest.mark.checks("generate")
def test_generate_at_temperature_zero_is_greedy_or_refuses(build):
    model, idx = gpt(build), tokens(3, 2)
    expected = greedy(model, idx, 5)
    got = refused(build.generate, model, idx, 5, temperature=0, generator=seeded(0))
    assert got is REFUSED or torch.equal(got, expected), (
        "temperature 0 should take the likeliest token each time, or be an error:\n"
        f"    {expected[0].tolist()}\nyours:\n    {got[0].tolist()}"
    )


@pytest.mark.step(6)
@pytest.mark.checks("generate")
def test_generate_crops_to_the_context(build):
    model, idx = gpt(build), tokens(2, BLOCK + 9)
    expected = greedy(model, idx, 5)
    mistakes = {
        f"the model is given the first {BLOCK}": slice(0, BLOCK),
        f"the model is given the last {BLOCK - 1}": slice(-BLOCK + 1, None),
        "the model is given the last one alone": slice(-1, None),
    }
    others = {why: greedy(model, idx, 5, window) for why, window in mistakes.items()}
    try:
        got = build.generate(model, idx, 5, top_k=1, generator=seeded(0))
    except (IndexError, RuntimeError, ValueError, AssertionError) as error:
        if isinstance(error, NotImplementedError):
            raise
        pytest.fail(
            f"a text of {BLOCK + 9} tokens with a context length of {BLOCK} ends in "
            f"{type(error).__name__}: give the model its last {BLOCK} tokens, idx[:, -block_size:]",
            pytrace=False,
        )
    reason = next((f"\n{why}" for why, other in others.items() if torch.equal(got, other)), "")
    assert torch.equal(got, expected), (
        f"the likeliest tokens after the last {BLOCK} of {BLOCK + 9} tokens are\n"
        f"    {expected[0, -5:].tolist()}\nyours:\n    {got[0, -5:].tolist()}{reason}"
    )


@pytest.mark.step(6)
@pytest.mark.checks("generate")
@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_k": 1000},
        {"temperature": 1.5, "top_k": 5},
    ],
    ids=lambda sampling: " ".join(f"{k}={v}" for k, v in sampling.items()) or "plain",
)
def test_generate_draws_from_the_distribution(build, sampling):
    model = gpt(build)
    idx = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        for parameter in weights_of(model.head):
            parameter *= 0.3  # so that many tokens are likely
        logits = model(idx)[0, -1]

    def odds(temperature, top_k):
        likeliest = logits.topk(min(top_k, V)).indices
        kept = torch.full((V,), float("-inf")).scatter(0, likeliest, logits[likeliest])
        return (kept / temperature).softmax(-1)

    temperature, top_k = sampling.get("temperature", 1.0), sampling.get("top_k", V)
    expected = odds(temperature, top_k)
    mistakes = {
        "the temperature is not used": odds(1.0, top_k),
        "the logits are multiplied by the temperature, not divided": odds(1 / temperature, top_k),
        "top_k is not used": odds(temperature, V),
        "all tokens are equally likely": torch.full((V,), 1 / V),
        "the logits are used as probabilities, without a softmax": logits.relu()
        / logits.relu().sum(),
        "the likeliest token is always taken, without sampling": odds(temperature, 1),
    }
    drawn = build.generate(model, idx.expand(MANY, 3), 1, generator=seeded(5), **sampling)[:, -1]
    got = torch.bincount(drawn, minlength=V) / MANY
    reason = next((f":\n{why}" for why, odd in mistakes.items() if gap(got, odd) < 0.03), "")
    assert gap(got, expected) < 0.04, (
        f"over {MANY:,} samples with {sampling} the tokens should have the frequencies\n"
        f"    {[round(p, 3) for p in expected.tolist()]}\nyours:\n"
        f"    {[round(p, 3) for p in got.tolist()]}{reason}"
    )


@pytest.mark.step(6)
@pytest.mark.checks("generate")
def test_generate_draws_the_same_from_the_same_generator(build):
    model, idx, texts = gpt(build), tokens(2, 3), []
    for seed in (1, 1, 2):
        torch.manual_seed(len(texts))
        texts.append(build.generate(model, idx, 5, generator=seeded(seed)))
    a, b, c = texts
    assert torch.equal(a, b), (
        "generators with the same seed should give the same text; pass generator=generator to "
        "torch.multinomial"
    )
    assert not torch.equal(a, c), "another seed should give another text"
    generator = seeded(1)
    first, second = (build.generate(model, idx, 5, generator=generator) for _ in range(2))
    assert torch.equal(first, a) and not torch.equal(first, second), (
        "with the same generator the next call should give another text"
    )
    build.generate(model, idx, 2)  # without a generator


@pytest.mark.step(6)
@pytest.mark.checks("generate")
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_generate_switches_dropout_off_and_restores_the_mode(build, training):
    model, idx = with_dropout(gpt(build)), tokens(2, 3)
    expected = greedy(model, idx, 5)
    model.train(training)
    got = build.generate(model, idx, 5, top_k=1, generator=seeded(0))
    assert torch.equal(got, expected), (
        "with dropout in the model generate does not take the likeliest tokens: switch dropout off "
        "with model.eval()"
    )
    mode = "training" if training else "evaluation"
    assert model.training == training == model.ln_f.training, (
        f"the model was in {mode} mode before generate, and should be in it afterwards"
    )
