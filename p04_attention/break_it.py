"""Break attention a line at a time: python -m p04_attention.break_it

Each variant trains a small language model made of two attention layers on the characters of Tiny
Shakespeare (lm.py), with projections of unit variance. A few seconds a run.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from p01_autograd.lab.sabotage import Sabotage, main

from . import build as shipped
from . import lm

N_EMBD, N_HEAD, BLOCK_SIZE, BATCH_SIZE, STEPS, LR = 128, 2, 32, 16, 500, 3e-3
DEPTH = 8  # layers of the untrained stack whose norms are followed
LEAK = 1e-4  # relative change of earlier outputs that counts as seeing the future
SMOOTH = 25  # steps in one point of a figure
SAMPLE = 120  # characters


@dataclass
class Numbers:
    """Numbers of one module; losses in nats per character, weights those before training."""

    val_loss: float  # of the model as trained
    future_hidden: float  # the trained weights in the shipped attention, which hides the future
    bigram: float  # counting pairs of characters
    entropy: float  # mean over the rows of weights; nan where a weight is negative
    largest_weight: float  # mean over the rows
    smallest_weight: float
    row_sum_off: float  # the largest distance of a row's sum from 1
    score_gradient: float  # norm of the gradient that reaches the scores
    leak: float  # relative change of earlier outputs when the last token changes
    growth: float  # root mean square after DEPTH layers over that before them
    growth_bare: float  # the same without LayerNorm
    sample: str
    curve: list[float]  # training loss of every step
    entropies: list[float]  # of the weights, every lm.VAL_EVERY steps
    hidden: list[float]  # the loss with the future hidden, as often
    norms: list[float]  # after 0 .. DEPTH layers
    norms_bare: list[float]


def experiment(build, seed: int = 1337) -> Numbers:
    """Measure the module's attention before training, then train a model of it."""

    def layer():
        return build.CausalSelfAttention(N_EMBD, N_HEAD)

    settings = dict(n_embd=N_EMBD, block_size=BLOCK_SIZE, batch_size=BATCH_SIZE, lr=LR)
    judged = lm.validation(BLOCK_SIZE)
    fresh = lm.train(layer, seed, steps=0, **settings).model
    with lm.watched(build) as seen:
        lm.loss(fresh, judged[:16]).backward()
    weights = torch.cat(seen.weights).detach()
    honest = lm.train(
        lambda: shipped.CausalSelfAttention(N_EMBD, N_HEAD), seed, steps=0, **settings
    ).model
    entropies, hidden = [], []

    def look(model):
        with lm.watched(build) as now:
            model(judged[:16, :-1])
        entropies.append(lm.entropy(torch.cat(now.weights)).mean().item())
        honest.load_state_dict(model.state_dict())
        hidden.append(lm.loss(honest, judged).item())

    run = lm.train(layer, seed, steps=STEPS, look=look, **settings)
    norms, norms_bare = (through_depth(layer, seed, normed) for normed in (True, False))
    return Numbers(
        val_loss=run.val[-1][1],
        future_hidden=hidden[-1],
        bigram=lm.bigram_loss(),
        entropy=lm.entropy(weights).mean().item(),
        largest_weight=weights.amax(-1).mean().item(),
        smallest_weight=weights.min().item(),
        row_sum_off=(weights.sum(-1) - 1).abs().max().item(),
        score_gradient=math.sqrt(sum(s.grad.square().sum().item() for s in seen.scores))
        if seen.scores
        else math.nan,
        leak=leak(fresh, judged[:16, :-1]),
        growth=norms[-1] / norms[0],
        growth_bare=norms_bare[-1] / norms_bare[0],
        sample=lm.sample(run.model, SAMPLE, BLOCK_SIZE, seed),
        curve=run.train,
        entropies=entropies,
        hidden=hidden,
        norms=norms,
        norms_bare=norms_bare,
    )


def leak(model: nn.Module, idx: torch.Tensor) -> float:
    """Relative change of all outputs but the last when the last token changes."""
    changed = idx.clone()
    changed[:, -1] = (idx[:, -1] + 1) % model.tok_emb.num_embeddings
    with torch.no_grad():
        before, after = model(idx)[:, :-1], model(changed)[:, :-1]
    return ((after - before).norm() / before.norm()).item()


def through_depth(layer, seed: int, normed: bool) -> list[float]:
    """Root mean square of x after 0 .. DEPTH untrained layers x + attention(x or LayerNorm(x))."""
    torch.manual_seed(seed)
    x = torch.randn(4, BLOCK_SIZE, N_EMBD)
    norms = [x.square().mean().sqrt().item()]
    with torch.no_grad():
        for _ in range(DEPTH):
            attention = layer()
            for weight in attention.parameters():
                nn.init.normal_(weight, std=N_EMBD**-0.5)
            x = x + attention(nn.functional.layer_norm(x, (N_EMBD,)) if normed else x)
            norms.append(x.square().mean().sqrt().item())
    return norms


def figure(healthy: list[Numbers], broken: list[Numbers]):
    """Left the loss against steps, with the future hidden again where that makes a difference.

    Right the entropy of the weights; where weights are negative and have none, the size of the
    untrained stream.
    """
    from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

    drawing, (left, right) = subplots(1, 2, width=9.6)
    no_entropy = any(math.isnan(run.entropy) for run in broken if not hasattr(run, "error"))
    bigram = healthy[0].bigram
    left.axhline(bigram, color=REFERENCE, ls="--", lw=1)
    left.annotate("bigram model", (0, bigram), (4, -12), ("axes fraction", "data"),
                  "offset points", color=REFERENCE, size=10)  # fmt: skip
    for runs, color, side in ((healthy, HEALTHY, "healthy"), (broken, BROKEN, "broken")):
        for i, run in enumerate(run for run in runs if not hasattr(run, "error")):
            smooth = [
                sum(run.curve[a:b]) / SMOOTH
                for a, b in pairwise(range(0, len(run.curve) + 1, SMOOTH))
            ]
            looks = [lm.VAL_EVERY * n for n in range(len(run.hidden))]
            label = side if i == 0 else None
            left.plot(looks[1:], smooth[: len(looks) - 1], color=color, label=label)
            if run.leak > LEAK:
                hidden = f"{label}, future hidden again" if label else None
                left.plot(looks, run.hidden, color=color, ls=":", label=hidden)
            if no_entropy:
                right.plot(run.norms, color=color, label=label)
                bare = f"{label}, no LayerNorm" if label else None
                right.plot(run.norms_bare, color=color, ls=":", label=bare)
            else:
                right.plot(looks, run.entropies, color=color, label=label)
    left.set(xlabel="step", ylabel="loss, nats per character")
    left.set_ylim(0, min(max(left.get_ylim()[1], 4), 12))
    if no_entropy:
        right.set(xlabel="layers", ylabel="root mean square, untrained", yscale="log")
        right.set_ylim(0.5, 1e6)
    else:
        even = lm.uniform_entropy(BLOCK_SIZE)
        right.axhline(even, color=REFERENCE, ls="--", lw=1)
        right.annotate("uniform weights", (1, even), (-4, 3), ("axes fraction", "data"),
                       "offset points", ha="right", color=REFERENCE, size=10)  # fmt: skip
        right.set(xlabel="step", ylabel="entropy of the weights, nats")
        right.set_ylim(0, max(right.get_ylim()[1], 1.1 * even))
    for ax in (left, right):
        ax.legend(fontsize=10)
    return drawing


SABOTAGES = [
    Sabotage(
        name="no_scale",
        old="scores = q @ k.transpose(-2, -1) / math.sqrt(hs)",
        new="scores = q @ k.transpose(-2, -1)",
        predict="Scores have the variance of the head size, the softmax saturates: weights near 0 "
        "and 1, entropy falls, little gradient gets through, and the loss stays higher.",
        symptom=lambda healthy, broken: (
            broken.entropy < 0.5 * healthy.entropy and broken.val_loss > healthy.val_loss + 0.03
        ),
        caught_by="test_scores_are_divided_by_the_root_of_the_head_size",
        looks_like=("stops higher", "counting pairs"),
        shows=("entropy", "val_loss"),
        fault="wrong network architecture",
        tell="Look at the weights of a fresh model: they are near 0 and 1. Those of a healthy "
        "one are nearly even, and without attention there are none.",
        named_by="checkup: scores are not scaled",
    ),
    Sabotage(
        name="no_mask",
        old='    if mask is not None:\n        scores = scores.masked_fill(~mask, float("-inf"))\n',
        new="",
        predict="The next character stands in the input: the loss falls below anything honest. "
        "With the future hidden again the model is worse than counting pairs, and its text is "
        "garbage.",
        symptom=lambda healthy, broken: (
            broken.val_loss < healthy.val_loss - 0.5 and broken.future_hidden > broken.bigram
        ),
        caught_by="test_masked_positions_get_no_weight_and_the_rest_sums_to_one",
        looks_like=("too good", "text"),
        shows=("val_loss", "future_hidden"),
        fault="wrong network architecture",
        tell="Rows of weights sum to 1 and the upper triangle is not 0. With "
        "`mask_after_softmax` the triangle is 0 and the rows are short; the loss is lowest "
        "here.",
        named_by="checkup: sees the future",
    ),
    Sabotage(
        name="no_softmax",
        old="    if mask is not None:\n"
        '        scores = scores.masked_fill(~mask, float("-inf"))\n'
        "    return softmax(scores, dim=-1)",
        new="    return scores if mask is None else scores * mask",
        predict="Weights are negative and unbounded, no mixture any more: each layer multiplies "
        "three things that grow with its input. Without LayerNorm the stream explodes.",
        symptom=lambda healthy, broken: (
            broken.smallest_weight < 0 and not broken.growth_bare < 100 * healthy.growth_bare
        ),
        caught_by="test_attention_weights_of_one_query_by_hand",
        looks_like=("stops higher", "counting pairs"),
        shows=("val_loss", "growth_bare"),
        fault="missing softmax activation function",
        tell="Weights below 0 or above 1. With `no_scale` they are between 0 and 1 and sum to 1.",
        named_by="checkup: softmax over the wrong axis",
    ),
    Sabotage(
        name="softmax_over_queries",
        old="return softmax(scores, dim=-1)",
        new="return softmax(scores, dim=-2)",
        predict="Each key shares itself out among the queries: rows no longer sum to 1, and what "
        "later queries take is missing earlier. The future leaks in.",
        symptom=lambda healthy, broken: broken.row_sum_off > 0.1 and broken.leak > LEAK,
        caught_by="test_the_softmax_runs_over_the_keys",
        looks_like=("too good",),
        shows=("val_loss", "future_hidden"),
        fault="wrong API usage",
        tell="Columns of weights sum to 1, rows do not. In the other leaks either rows sum to 1 "
        "or the upper triangle is 0.",
        named_by="checkup: softmax over the wrong axis",
    ),
    Sabotage(
        name="mask_after_softmax",
        old="    if mask is not None:\n"
        '        scores = scores.masked_fill(~mask, float("-inf"))\n'
        "    return softmax(scores, dim=-1)",
        new="    weights = softmax(scores, dim=-1)\n"
        "    return weights if mask is None else weights * mask",
        predict="Rows sum to less than 1, early ones to almost nothing; the future is in the "
        "denominator and leaks by it.",
        symptom=lambda healthy, broken: broken.row_sum_off > 0.1 and broken.leak > LEAK,
        caught_by="test_masked_positions_get_no_weight_and_the_rest_sums_to_one",
        looks_like=("too good",),
        shows=("val_loss", "future_hidden"),
        fault="wrong network architecture",
        tell="The upper triangle is 0 and rows sum to less than 1, the first ones to almost "
        "nothing.",
        named_by="checkup: sees the future",
    ),
    Sabotage(
        name="mask_with_zero",
        old='scores.masked_fill(~mask, float("-inf"))',
        new="scores.masked_fill(~mask, 0.0)",
        predict="A score of 0 is a score like others: exp(0) is 1, the future gets its share. The "
        "loss falls below anything honest.",
        symptom=lambda healthy, broken: (
            broken.val_loss < healthy.val_loss - 0.5 and broken.leak > LEAK
        ),
        caught_by="test_masked_positions_get_no_weight_and_the_rest_sums_to_one",
        looks_like=("too good",),
        shows=("val_loss", "future_hidden"),
        fault="wrong network architecture",
        tell="Rows sum to 1, and all weights of the upper triangle of a row are equal: those of "
        "a score of 0.",
        named_by="checkup: sees the future",
    ),
    Sabotage(
        name="scaled_by_n_embd",
        old="y = scaled_dot_product_attention(q, k, v, mask)",
        new="y = scaled_dot_product_attention(q, k / math.sqrt(self.n_head), v, mask)",
        predict="Divided by the root of all channels, not of a head's: with two heads the scores "
        "are smaller by 1.4, the weights flatter. Little or no harm.",
        symptom=lambda healthy, broken: (
            broken.entropy > healthy.entropy and abs(broken.val_loss - healthy.val_loss) < 0.1
        ),
        caught_by="test_many_heads_are_causal_attention_on_slices_of_the_channels",
        looks_like=("nothing",),
        shows=("entropy", "val_loss"),
        fault="wrong network architecture",
        tell="With one head nothing differs; with h heads the scores are smaller by the root of h.",
        named_by="checkup: scores are not scaled",
    ),
    Sabotage(
        name="no_transpose",
        old="return x.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)",
        new="return x.view(B, self.n_head, T, C // self.n_head)",
        predict="The shape is right and the content is not: a head gets pieces of one half of the "
        "tokens, and hands them to positions that come earlier. The future leaks.",
        symptom=lambda healthy, broken: broken.leak > LEAK,
        caught_by="test_a_later_token_cannot_change_an_earlier_output",
        looks_like=("too good",),
        shows=("val_loss", "future_hidden"),
        fault="right size, wrong order of dimensions",
        tell="The mask and the rows of the weights are right. With one head nothing leaks; with "
        "two, outputs move that are far from the token that was changed.",
        named_by="checkup: sees the future",
    ),
]


if __name__ == "__main__":
    sys.exit(main("p04_attention", SABOTAGES, experiment, figure, damage="future_hidden"))
