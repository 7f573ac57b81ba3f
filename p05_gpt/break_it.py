"""Delete a line of the GPT and see what it was for: python -m p05_gpt.break_it

One sabotage for every line of Block and GPT that can be deleted or disabled, two for init.py, and
the usual mistakes in the loss, the batches, the validation and the sampling. The experiment trains
a small GPT, initialised by init_weights, on the characters of Tiny Shakespeare, about ten seconds a
run. Alternatives that do no harm (a head with bias, another initialisation) are not sabotages; they
are measured by python -m p05_gpt.measure choices.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch

from p01_autograd.lab.sabotage import Sabotage, main

from . import build as listing
from . import init as shipped_init
from . import run
from .init import init_weights
from .train import learning_rate

N_EMBD, N_HEAD, N_LAYER, BLOCK_SIZE = 64, 4, 4, 32
BATCH_SIZE, STEPS, LR, FAST = 12, 700, 5e-3, 8
VALIDATION = 20_000  # characters
SMOOTH = 50  # steps averaged into one mean of the training loss
EVERY = 10  # steps averaged into one point of a figure
NEAR = 0.03  # nats per character: twice the noise of a mean over SMOOTH steps
TOO_GOOD = 1.0  # nats per character: lower than any honest model of this size reaches
WRITTEN = 160  # characters of the sample
WINDOW = 8  # characters that must occur again to count as a repetition
NOTHING = "nothing"


@dataclass
class Numbers:
    """What is measured on one variant, trained twice; losses in nats per character."""

    val_loss: float
    fast_val_loss: float  # after half the steps at FAST times the learning rate
    train_loss: float  # mean of the last SMOOTH steps
    first_loss: float
    curve_shows: str  # see alarm
    text_loss: float  # of a bigram model on the sample
    text_repeats: float  # share of the sample's windows of WINDOW characters seen before in it
    sample: str
    curve: list[float]  # the training loss of every step
    fast_curve: list[float]
    bigram: float  # the validation loss of a bigram model (counting pairs)


@cache
def corpus():
    """The tokenizer, the training ids, the validation ids, and the loss of a bigram model."""
    train_text, val_text = run.split_text(run.read_text(None))
    tokenizer = run.train_tokenizer("char", train_text, 0)
    train_ids = run.encode(tokenizer, train_text)
    val_ids = run.encode(tokenizer, val_text)[:VALIDATION]
    return tokenizer, train_ids, val_ids, run.bigram_loss(train_ids, val_ids, len(tokenizer.vocab))


def experiment(build=listing, init=shipped_init, seed: int = 1337, steps: int = STEPS) -> Numbers:
    """Train the module's GPT at the usual learning rate and at one that is FAST times as high."""
    tokenizer, train_ids, val_ids, bigram = corpus()
    set_weights = init.init_weights
    model, curve = trained(build, seed, steps, init=set_weights)
    fast, fast_curve = trained(build, seed, steps // 2, lr=FAST * LR, init=set_weights)
    generator = torch.Generator().manual_seed(seed)
    start = run.encode(tokenizer, "\n")[None]
    written = build.generate(model, start, WRITTEN, temperature=0.8, generator=generator)[0]
    sample = tokenizer.decode(written.tolist())
    return Numbers(
        val_loss=build.evaluate(model, val_ids, BLOCK_SIZE),
        fast_val_loss=build.evaluate(fast, val_ids, BLOCK_SIZE),
        train_loss=mean(curve[-SMOOTH:]),
        first_loss=curve[0],
        curve_shows=alarm(curve, len(tokenizer.vocab), bigram),
        text_loss=run.bigram_loss(train_ids, written, len(tokenizer.vocab)),
        text_repeats=repeats(sample),
        sample=sample.strip(),
        curve=curve,
        fast_curve=fast_curve,
        bigram=bigram,
    )


def trained(
    build, seed, steps, lr=LR, n_embd=N_EMBD, n_layer=N_LAYER, fraction=1.0, init=init_weights
):
    """Train the module's GPT: returns the model and the training loss of each step.

    `fraction` is the part of the training text that is used. The seed determines initial weights
    and batches. With init=None the initialisation is PyTorch's.
    """
    from tqdm import trange

    tokenizer, train_ids, _, _ = corpus()
    train_ids = train_ids[: round(fraction * len(train_ids))]
    torch.manual_seed(seed)
    model = build.GPT(len(tokenizer.vocab), n_embd, N_HEAD, n_layer, BLOCK_SIZE)
    if init:
        init(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    curve = []
    for step in trange(steps, desc="training", leave=False, delay=2, disable=None):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, lr)
        x, y = build.get_batch(train_ids, BLOCK_SIZE, BATCH_SIZE, generator)
        batch_loss = build.loss(model(x), y)
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        curve.append(batch_loss.item())
    return model, curve


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def repeats(text: str) -> float:
    """The share of the windows of WINDOW characters that occur earlier in the text."""
    windows = [text[i : i + WINDOW] for i in range(len(text) - WINDOW + 1)]
    return 1 - len(set(windows)) / len(windows)


def alarm(curve: list[float], vocab: int, bigram: float) -> str:
    """What a training curve shows to someone without a healthy one to compare with.

    They know three losses: that of guessing, ln(vocab), where every run begins; that of a bigram
    model, which attention has to beat; and TOO_GOOD.
    """
    if not all(map(math.isfinite, curve)):
        return "NaN or infinite"
    if abs(curve[0] / math.log(vocab) - 1) > 0.1:
        return "a wrong start"
    if min(mean(curve[i : i + SMOOTH]) for i in range(0, len(curve), SMOOTH)) < TOO_GOOD:
        return "too good"
    if mean(curve[-SMOOTH:]) > bigram - NEAR:
        return "stuck"
    return NOTHING


def figure(healthy: list[Numbers], broken: list[Numbers]):
    """Training curves at both learning rates, with the losses of guessing and of a bigram model."""
    from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

    fig, axes = subplots(1, 2, width=9.0)
    guessing = math.log(len(corpus()[0].vocab))
    for ax, name, title in (
        (axes[0], "curve", "training loss, nats per character"),
        (axes[1], "fast_curve", f"at {FAST} times the learning rate"),
    ):
        for value, what in ((guessing, "uniform guess"), (healthy[0].bigram, "bigram model")):
            ax.axhline(value, color=REFERENCE, ls="--", lw=1)
            ax.annotate(
                what,
                (1, value),
                (0, 2),
                ("axes fraction", "data"),
                "offset points",
                ha="right",
                va="bottom",
                color=REFERENCE,
                size=10,
            )
        for runs, color, side in ((healthy, HEALTHY, "healthy"), (broken, BROKEN, "broken")):
            for i, numbers in enumerate(runs):
                curve = getattr(numbers, name, [])
                smooth = [mean(curve[a:b]) for a, b in pairwise(range(0, len(curve) + 1, EVERY))]
                steps = [EVERY * (n + 0.5) for n in range(len(smooth))]
                ax.plot(steps, smooth, color=color, lw=1.5, label=side if i == 0 else None)
        ax.set(xlabel="step", ylim=(0, 5))
        ax.set_title(title, size=12)
    axes[0].legend(loc="lower left")
    return fig


def hidden(healthy: Numbers, broken: Numbers, low: float, high: float = math.inf) -> bool:
    """Worse in validation loss by `low` to `high`, while the training curve shows no alarm."""
    return low < broken.val_loss - healthy.val_loss < high and broken.curve_shows == NOTHING


def harmless(healthy: Numbers, broken: Numbers) -> bool:
    """Worse by less than 0.1 nats per character, and no alarm."""
    return hidden(healthy, broken, -math.inf, 0.1)


def tolerates_high_rate(healthy: Numbers, broken: Numbers) -> bool:
    """Within 0.1 nats per character of healthy at the high learning rate."""
    return broken.fast_val_loss < healthy.fast_val_loss + 0.1


def refused(broken: Numbers, words: str) -> bool:
    """Whether the run ended with an error whose message contains `words`."""
    return words in getattr(broken, "error", "")


SABOTAGES = [
    Sabotage(
        name="no_attention_residual",
        old="x = x + self.attn(self.ln_1(x))",
        new="x = self.attn(self.ln_1(x))",
        predict="The stream is replaced by mixtures of values; every block loses the token itself, "
        "and the loss stays above counting pairs.",
        symptom=lambda healthy, broken: broken.val_loss > broken.bigram,
        caught_by="test_block_keeps_the_stream_beside_what_the_parts_find",
        looks_like=("token frequencies",),
        shows=("val_loss",),
        fault="wrong network architecture",
        tell="Changing the last token hardly moves its own output. With `no_tok_emb` no token "
        "moves any output.",
        named_by="checkup: ignores the token itself",
    ),
    Sabotage(
        name="no_mlp_residual",
        old="x = x + self.mlp(self.ln_2(x))",
        new="x = self.mlp(self.ln_2(x))",
        predict="Each MLP has to carry through what the stream knew; training works, but worse.",
        symptom=lambda healthy, broken: broken.val_loss > healthy.val_loss + 0.05,
        caught_by="test_block_keeps_the_stream_beside_what_the_parts_find",
        looks_like=("counting pairs",),
        shows=("val_loss", "fast_val_loss"),
        fault="wrong network architecture",
        tell="The past does move the outputs, unlike with `no_attention`; at a higher rate "
        "it falls to token frequencies.",
        named_by="checkup: ignores the token itself",
    ),
    Sabotage(
        name="no_attention",
        old="        x = x + self.attn(self.ln_1(x))\n",
        new="",
        predict="No token sees another: the best that is left is counting pairs, no better.",
        symptom=lambda healthy, broken: abs(broken.val_loss - broken.bigram) < 0.05,
        caught_by="test_block_adds_attention_then_the_mlp_to_the_stream",
        looks_like=("counting pairs",),
        shows=("val_loss",),
        fault="wrong network architecture",
        tell="Changing an earlier token moves nothing. The MLPs get gradients; with `no_blocks` "
        "no block does.",
        named_by="checkup: ignores the past",
    ),
    Sabotage(
        name="no_mlp",
        old="        x = x + self.mlp(self.ln_2(x))\n",
        new="",
        predict="Two thirds of a block's weights gone, and only mixtures are left to compute with: "
        "worse, and the curve looks like any other.",
        symptom=lambda healthy, broken: hidden(healthy, broken, 0.02),
        caught_by="test_block_adds_attention_then_the_mlp_to_the_stream",
        looks_like=("slightly worse",),
        shows=("val_loss", "fast_val_loss"),
        fault="missing dense layer",
        tell="Two thirds of the parameters of a block get no gradient (None).",
        named_by="checkup: parameters without gradient",
    ),
    Sabotage(
        name="no_gelu",
        old="nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd)",
        new="nn.Linear(n_embd, 4 * n_embd), nn.Linear(4 * n_embd, n_embd)",
        predict="Two Linears in a row are one: almost as bad as no MLP at all, and invisible.",
        symptom=lambda healthy, broken: hidden(healthy, broken, 0.02),
        caught_by="test_block_adds_attention_then_the_mlp_to_the_stream",
        looks_like=("slightly worse",),
        shows=("val_loss", "fast_val_loss"),
        fault="missing activation function between linear layers",
        tell="All parameters get gradients; the MLP of a + b is the sum of its parts. `no_mlp` "
        "leaves parameters without gradient.",
    ),
    Sabotage(
        name="no_ln_1",
        old="self.attn(self.ln_1(x))",
        new="self.attn(x)",
        predict="The stream begins at variance one, so attention starts well without: no harm at a "
        f"learning rate that suits. But nothing holds the scores: at {FAST} times that it stalls.",
        symptom=lambda healthy, broken: (
            harmless(healthy, broken) and not tolerates_high_rate(healthy, broken)
        ),
        caught_by="test_block_normalises_what_each_part_reads",
        looks_like=("one learning rate",),
        shows=("val_loss", "fast_val_loss"),
        fault="missing normalisation layer",
        tell="ln_1 gets no gradient. Make the stream ten times as large: what attention adds "
        "grows with it.",
        named_by="checkup: parameters without gradient",
    ),
    Sabotage(
        name="no_ln_2",
        old="self.mlp(self.ln_2(x))",
        new="self.mlp(x)",
        predict="As without the other LayerNorm of the block: no harm at a learning rate that "
        f"suits, less than healthy at {FAST} times that.",
        symptom=lambda healthy, broken: (
            harmless(healthy, broken) and not tolerates_high_rate(healthy, broken)
        ),
        caught_by="test_block_normalises_what_each_part_reads",
        looks_like=("one learning rate",),
        shows=("val_loss", "fast_val_loss"),
        fault="missing normalisation layer",
        tell="ln_2 gets no gradient. Less harm at a high rate than without ln_1, since nothing "
        "here goes through a softmax.",
        named_by="checkup: parameters without gradient",
    ),
    Sabotage(
        name="no_layer_norms",
        old="        x = x + self.attn(self.ln_1(x))\n        x = x + self.mlp(self.ln_2(x))\n",
        new="        x = x + self.attn(x)\n        x = x + self.mlp(x)\n",
        predict="Nothing holds the size of what the parts read: worse already at the usual rate.",
        symptom=lambda healthy, broken: broken.val_loss > healthy.val_loss + 0.02,
        caught_by="test_block_normalises_what_each_part_reads",
        looks_like=("one learning rate",),
        shows=("val_loss", "fast_val_loss"),
        fault="missing normalisation layer",
        tell="Neither LayerNorm of a block gets a gradient; with `post_norm` both do.",
        named_by="checkup: parameters without gradient",
    ),
    Sabotage(
        name="post_norm",
        old="        x = x + self.attn(self.ln_1(x))\n        x = x + self.mlp(self.ln_2(x))\n",
        new="        x = self.ln_1(x + self.attn(x))\n        x = self.ln_2(x + self.mlp(x))\n",
        predict="The order of the first Transformer: it needs a longer warmup; at this depth it "
        "trains, a little worse.",
        symptom=lambda healthy, broken: broken.val_loss > healthy.val_loss,
        caught_by="test_block_keeps_the_stream_beside_what_the_parts_find",
        looks_like=("one learning rate",),
        shows=("val_loss", "fast_val_loss"),
        fault="wrong network architecture",
        tell="All parameters get gradients, and the stream has variance one after every block; a "
        "stream that is added to grows.",
    ),
    Sabotage(
        name="one_block",
        old="for _ in range(n_layer)]",
        new="for _ in range(1)]",
        predict="A quarter of the depth costs less than its share: worse, and the curve looks like "
        "any other.",
        symptom=lambda healthy, broken: hidden(healthy, broken, 0.02),
        caught_by="test_gpt_has_as_many_blocks_as_asked_for_each_with_its_own_weights",
        looks_like=("slightly worse",),
        shows=("val_loss", "fast_val_loss"),
        fault="suboptimal network structure",
        tell="Count the parameters: they are those of one block.",
    ),
    Sabotage(
        name="shared_blocks",
        old="*[Block(n_embd, n_head) for _ in range(n_layer)]",
        new="*[Block(n_embd, n_head)] * n_layer",
        predict="One block used four times: as deep, with a quarter of the weights; costs little.",
        symptom=lambda healthy, broken: hidden(healthy, broken, 0.0, 0.15),
        caught_by="test_gpt_has_as_many_blocks_as_asked_for_each_with_its_own_weights",
        looks_like=("slightly worse",),
        shows=("val_loss", "fast_val_loss"),
        fault="suboptimal network structure",
        tell="Count the parameters: one block's, as with `one_block`; but the time of a step is "
        "that of four.",
    ),
    Sabotage(
        name="no_tok_emb",
        old="x = self.tok_emb(idx) + self.pos_emb(pos)  # (B, T, C) + (T, C)",
        new="x = self.pos_emb(pos).expand(B, T, -1)  # (B, T, C)",
        predict="The model is blind: it learns how often each character occurs and nothing else.",
        symptom=lambda healthy, broken: broken.val_loss > broken.bigram + 0.5,
        caught_by="test_gpt_knows_which_token_stands_there",
        looks_like=("token frequencies",),
        shows=("val_loss",),
        fault="discarding important features",
        tell="No token moves any output: two texts get the same scores.",
        named_by="checkup: ignores the token itself",
    ),
    Sabotage(
        name="no_pos_emb",
        old="x = self.tok_emb(idx) + self.pos_emb(pos)  # (B, T, C) + (T, C)",
        new="x = self.tok_emb(idx)  # (B, T, C)",
        predict="Attention sees a bag of characters and cannot say which one was last but one: "
        "worse, between counting pairs and healthy, and the curve looks like any other.",
        symptom=lambda healthy, broken: hidden(healthy, broken, 0.02),
        caught_by="test_gpt_knows_the_position_of_a_token",
        looks_like=("slightly worse",),
        shows=("val_loss", "fast_val_loss"),
        fault="discarding important features",
        tell="Swap two earlier tokens: the last output does not change.",
        named_by="checkup: blind to order",
    ),
    Sabotage(
        name="no_blocks",
        old="        x = self.blocks(x)  # (B, T, C)\n",
        new="",
        predict="From a token's embedding straight to the scores: counting pairs, no better.",
        symptom=lambda healthy, broken: abs(broken.val_loss - broken.bigram) < 0.05,
        caught_by="test_gpt_is_embeddings_blocks_norm_and_head_in_this_order",
        looks_like=("counting pairs",),
        shows=("val_loss",),
        fault="wrong network architecture",
        tell="No parameter of a block gets a gradient. With `no_attention` those of the MLPs do.",
        named_by="checkup: ignores the past",
    ),
    Sabotage(
        name="no_ln_f",
        old="        x = self.ln_f(x)  # (B, T, C)\n",
        new="",
        predict="The stream is near variance one when the head reads it: little or no harm.",
        symptom=lambda healthy, broken: harmless(healthy, broken),
        caught_by="test_gpt_is_embeddings_blocks_norm_and_head_in_this_order",
        looks_like=("nothing",),
        shows=("val_loss", "fast_val_loss"),
        fault="missing normalisation layer",
        tell="ln_f gets no gradient. Loss and curve tell nothing.",
        named_by="checkup: parameters without gradient",
    ),
    Sabotage(
        name="no_small_init",
        old="std = 1 / math.sqrt(3 * part.in_features)",
        new="std = 1.0",
        predict="The first guesses are confident and wrong: the loss starts far above ln V and "
        "the run spends its steps on unlearning.",
        symptom=lambda healthy, broken: (
            broken.first_loss > 1.5 * healthy.first_loss
            and broken.val_loss > healthy.val_loss + 0.1
        ),
        caught_by="test_a_fresh_model_knows_nothing",
        module="init",
        looks_like=("first loss", "stops higher"),
        shows=("first_loss", "val_loss"),
        fault="wrong weights initialisation",
        tell="The scores of a fresh model are large. With `loss_summed` they are small, and the "
        "loss depends on the batch size.",
        named_by="checkup: first loss is off",
    ),
    Sabotage(
        name="zeroed_init",
        old="nn.init.normal_(part.weight, std=std)",
        new="nn.init.zeros_(part.weight)",
        predict="The head learns; behind two zeros in a row nothing ever gets a gradient: "
        "attention and MLP stay at zero for ever, and the model counts pairs.",
        symptom=lambda healthy, broken: abs(broken.val_loss - broken.bigram) < 0.05,
        caught_by="test_every_weight_begins_to_learn",
        module="init",
        looks_like=("counting pairs",),
        shows=("first_loss", "val_loss"),
        fault="wrong weights initialisation",
        tell="The first loss is ln V to the last digit, and the gradients of attention and MLP "
        "are exactly 0 in every step.",
    ),
    Sabotage(
        name="targets_not_shifted",
        old="return data[at], data[at + 1]",
        new="return data[at], data[at]",
        predict="The answer stands in the question: the training loss falls to zero, and on real "
        "predictions the model is worse than guessing.",
        symptom=lambda healthy, broken: broken.train_loss < 0.1 and broken.val_loss > math.log(65),
        caught_by="test_a_batch_holds_windows_and_the_same_windows_one_token_later",
        looks_like=("too good", "validation above", "text"),
        shows=("train_loss", "val_loss"),
        fault="wrong labels",
        tell="Nothing leaks from later tokens, unlike without a mask: print x and y of one "
        "batch, they are equal. It repeats the last token of the prompt.",
        named_by="checkup: targets are not the next token",
    ),
    Sabotage(
        name="targets_shifted_by_two",
        old="return data[at], data[at + 1]",
        new="return data[at], data[(at + 2) % len(data)]",
        predict="It learns to skip a character: its training loss is worse than counting pairs, "
        "its predictions of the next character worse than guessing, its text garbage.",
        symptom=lambda healthy, broken: (
            broken.train_loss > broken.bigram and broken.val_loss > healthy.val_loss + 1
        ),
        caught_by="test_a_batch_holds_windows_and_the_same_windows_one_token_later",
        looks_like=("validation above", "text"),
        shows=("train_loss", "val_loss"),
        fault="wrong labels",
        tell="The training loss is worse than counting pairs, and the text lacks every second "
        "letter: print x and y of one batch.",
        named_by="checkup: targets are not the next token",
    ),
    Sabotage(
        name="mlp_not_wider",
        old="nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd)",
        new="nn.Linear(n_embd, n_embd), nn.GELU(), nn.Linear(n_embd, n_embd)",
        predict="A quarter of the MLP's weights: worse, by less than without any MLP, and the "
        "curve looks like any other.",
        symptom=lambda healthy, broken: hidden(healthy, broken, 0.0, 0.05),
        caught_by="test_block_has_an_mlp_four_times_as_wide",
        looks_like=("slightly worse",),
        shows=("val_loss", "fast_val_loss"),
        fault="suboptimal number of neurons",
        tell="Count the parameters of a block: 6 C² in place of 12 C². All of them get gradients.",
    ),
    Sabotage(
        name="layer_sizes_differ",
        old="nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd)",
        new="nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(n_embd, n_embd)",
        predict="The second Linear expects vectors of another size than the first one gives: "
        "RuntimeError in the first forward pass.",
        symptom=lambda healthy, broken: refused(broken, "shapes cannot be multiplied"),
        caught_by="test_block_keeps_the_shape",
        looks_like=("crash",),
        fault="wrong input or output shape, dimensions of layers differ",
        tell="mat1 is what comes, mat2 the weights: the second number of mat1 and the first of "
        "mat2 have to be equal. The traceback names the layer.",
    ),
    Sabotage(
        name="softmax_twice",
        old="return self.head(x)  # (B, T, V)",
        new="return self.head(x).softmax(-1)  # (B, T, V)",
        predict="The cross-entropy has its own softmax. Of scores between 0 and 1 it makes nearly "
        "even odds: the loss begins at ln V and cannot fall below ln(e + V - 1) - 1, here 3.20.",
        symptom=lambda healthy, broken: (
            abs(broken.first_loss - math.log(65)) < 0.05 and broken.train_loss > 3.2
        ),
        caught_by="test_gpt_returns_scores_and_no_probabilities",
        looks_like=("flat",),
        shows=("first_loss", "train_loss"),
        fault="redundant softmax layer",
        tell="The first loss is ln V, and a floor is never passed: ln(e + V - 1) - 1, 3.20 for "
        "65 tokens. The outputs of the model are all between 0 and 1 and sum to 1.",
        named_by="checkup: cannot learn by heart",
    ),
    Sabotage(
        name="loss_not_flattened",
        old="cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))",
        new="cross_entropy(logits, targets)",
        predict="PyTorch takes the second dimension for the classes, and time stands there: "
        "RuntimeError about the size of the target.",
        symptom=lambda healthy, broken: refused(broken, "Expected target size"),
        caught_by="test_loss_of_two_predictions_by_hand",
        looks_like=("crash",),
        fault="wrong shape of input data",
        tell="The size that it expects has the vocabulary in it: (B, V), where the targets are "
        "(B, T). Where T equals V there is no error, and the loss is another.",
    ),
    Sabotage(
        name="loss_summed",
        old="logits.shape[-1]), targets.reshape(-1))",
        new='logits.shape[-1]), targets.reshape(-1), reduction="sum")',
        predict="Every loss is 384 times as large, the number of targets in a batch. AdamW divides "
        "the size of the gradient out again: for each target the run learns as much as ever.",
        symptom=lambda healthy, broken: (
            broken.first_loss > 100 * healthy.first_loss
            and broken.train_loss / (BATCH_SIZE * BLOCK_SIZE) < healthy.train_loss + 0.05
        ),
        caught_by="test_loss_of_a_uniform_guess_is_the_log_of_the_vocabulary",
        looks_like=("first loss",),
        shows=("first_loss", "train_loss"),
        fault="wrong calculation of the loss",
        tell="The first loss is a multiple of ln V, by the number of targets in a batch, and "
        "doubles with the batch size. The curve has the usual form.",
        named_by="checkup: first loss is off",
    ),
    Sabotage(
        name="nll_of_logits",
        old="nn.functional.cross_entropy(logits",
        new="nn.functional.nll_loss(logits",
        predict="nll_loss expects log-probabilities. Of raw scores it is minus the score of the "
        "target, which has no floor: the loss begins near 0, not at ln V, and falls below it.",
        symptom=lambda healthy, broken: broken.first_loss < 1 and broken.train_loss < 0,
        caught_by="test_loss_of_two_predictions_by_hand",
        looks_like=("first loss",),
        shows=("first_loss", "train_loss"),
        fault="wrong selection of loss function",
        tell="A negative loss: no cross-entropy is below 0. It starts near 0 and falls without "
        "end.",
        named_by="checkup: first loss is off",
    ),
    Sabotage(
        name="first_windows_only",
        old="torch.randint(len(data) - block_size, (batch_size,), generator=generator)",
        new="torch.arange(batch_size) * block_size",
        predict="Every batch holds the same first 384 characters, in order: they are learned by "
        "heart, the training loss goes to zero, and validation becomes worse than guessing.",
        symptom=lambda healthy, broken: broken.train_loss < 0.1 and broken.val_loss > math.log(65),
        caught_by="test_every_window_of_a_batch_is_equally_likely",
        looks_like=("validation above", "too good"),
        shows=("train_loss", "val_loss"),
        fault="not enough training data",
        tell="Two batches are equal. Nothing leaks and y is x one later: the model has learned a "
        "page by heart.",
    ),
    Sabotage(
        name="ids_as_floats",
        old="return data[at], data[at + 1]",
        new="return data[at].float(), data[at + 1]",
        predict="An embedding looks up rows by integers: RuntimeError in the first forward pass.",
        symptom=lambda healthy, broken: refused(broken, "scalar types: Long, Int"),
        caught_by="test_a_batch_holds_windows_and_the_same_windows_one_token_later",
        looks_like=("crash",),
        fault="wrong type of input data, incompatible tensor type",
        tell="The error names the types and no shapes. Ask for x.dtype: int64 for ids.",
    ),
    Sabotage(
        name="divided_by_batches",
        old="return total / len(x)",
        new="return total / len(batches)",
        predict="The training loss is healthy and the validation loss about a thousand times as "
        "large from the first evaluation on: a sum over tokens, divided by the batches.",
        symptom=lambda healthy, broken: (
            broken.train_loss == healthy.train_loss and broken.val_loss > 100 * healthy.val_loss
        ),
        caught_by="test_evaluate_counts_every_prediction_once",
        looks_like=("validation above",),
        shows=("train_loss", "val_loss"),
        fault="wrong performance metric",
        tell="It is there at the first evaluation, before anything is learned, and larger than "
        "ln V: evaluate a fresh model.",
    ),
    Sabotage(
        name="first_position_read",
        old="logits = model(idx[:, -block_size:])[:, -1]",
        new="logits = model(idx[:, -block_size:])[:, 0]",
        predict="Every new character is drawn as the second of the window. Losses are healthy and "
        "the text is garbage, which counting pairs predicts worse than it predicts Shakespeare.",
        symptom=lambda healthy, broken: (
            broken.val_loss == healthy.val_loss and broken.text_loss > healthy.text_loss + 1
        ),
        caught_by="test_generate_without_a_choice_takes_the_likeliest",
        looks_like=("text",),
        shows=("val_loss", "text_loss", "sample"),
        fault="wrong indexing",
        tell="The loss of the prompt is good. At temperature 0 the same token comes again and "
        "again, until the prompt has left the window.",
    ),
    Sabotage(
        name="always_the_likeliest",
        old="return torch.multinomial(probs, 1, generator=generator)",
        new="return probs.argmax(-1, keepdim=True)",
        predict="Losses are healthy; the text falls into a loop and stays there, whatever the "
        "temperature, the seed and top_k.",
        symptom=lambda healthy, broken: (
            broken.val_loss == healthy.val_loss and broken.text_repeats > 0.5
        ),
        caught_by="test_generate_draws_from_the_distribution",
        looks_like=("text",),
        shows=("val_loss", "text_repeats", "sample"),
        fault="wrong API usage",
        tell="Two seeds write the same text, and words are well formed; the text of "
        "`first_position_read` has no words.",
    ),
]


if __name__ == "__main__":
    sys.exit(main("p05_gpt", SABOTAGES, experiment, figure, damage="val_loss"))
