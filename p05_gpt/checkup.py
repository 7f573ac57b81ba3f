"""Black-box tests for any language model: python -m p05_gpt.checkup TARGET

    python -m p05_gpt.checkup runs/p05_gpt         a training run's model
    python -m p05_gpt.checkup my/p05_gpt.py        a file with the listing's names
    python -m p05_gpt.checkup mymodel:make --vocab 50257 --block-size 128
    python -m p05_gpt.checkup --demo               every sabotage of chapters 4 and 5

A law is a property of every sound language model. Each is a function that does one experiment on a
Subject and returns a Finding or None, without assumptions about the model's parts. The thresholds
lie between the values measured on sound and on broken models (python -m p05_gpt.test_checkup).
Shapes: B batch, T time, V vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import nn
from tqdm import tqdm

from p01_autograd.lab.cli import Parser, UsageError, at_least, print_anything
from p01_autograd.lab.sabotage import sabotaged
from p01_autograd.lab.threads import use_free_cores
from p04_attention.laws import Attention, attentions, difference, moved

from . import break_it, build, mine, run
from .init import init_weights
from .train import ignoring_closed_pipe, run_command

MOVES = 2e-5  # a changed output, as a share of the logits' spread; rounding causes up to 3e-6
SEEN = 1e-6  # an output that should change, in the same unit; exactly 0 if nothing connects the two
OWN = 0.5, 0.25  # effect of a token on its own output over that of the past, fresh and trained
FIRST_LOSS = 0.7, 0.1  # largest deviation from ln V: nats, share of ln V
STEPS, RATES, TOKENS = 150, (3e-3, 1e-2), 128  # of overfitting one batch
BY_HEART = 0.25  # largest final loss, as a share of ln V; sound models come below 0.12
SCALE_OFF = 0.05  # largest relative error of the attention scale
HANDED_ON = 0.3  # least cosine of a block's input and output; sound above 0.9, no residual 0.07
GAIN = 1.5  # largest share of a block's input in its output; sound 1.0, input added twice 2
GROWTH, LARGE = 2.0, 10.0  # a stream explodes: growth factor of every block, final size
CLEAR = 0.85  # largest cost of the next token over that of others; right 0, mixed up 0.94
CYCLE = 23  # period of the text in which each token determines the next


@dataclass(frozen=True)
class Finding:
    """What is wrong, the measured evidence, and which line to look at."""

    name: str
    evidence: str
    advice: str


LOOKS_LIKE = {
    "sees the future": "p04_attention: no_mask mask_with_zero mask_after_softmax no_transpose",
    "ignores the past": "p05_gpt: no_attention no_blocks",
    "blind to order": "p05_gpt: no_pos_emb",
    "ignores the token itself": "p05_gpt: no_attention_residual no_mlp_residual no_tok_emb",
    "first loss is off": "p05_gpt: no_small_init",
    "parameters without gradient": "p05_gpt: no_mlp no_ln_1 no_ln_f no_pos_emb",
    "targets are not the next token": "p05_gpt: targets_not_shifted targets_shifted_by_two",
    "softmax over the wrong axis": "p04_attention: softmax_over_queries no_softmax",
    "scores are not scaled": "p04_attention: no_scale scaled_by_n_embd",
}


def finding(name: str, evidence: str, look_at: str) -> Finding:
    """A Finding; its advice ends with the sabotages of this book that have the same symptom."""
    project, _, names = LOOKS_LIKE.get(name, "").partition(": ")
    similar = f"; it looks like python -m {project}.break_it {names}" if names else ""
    return Finding(name, evidence, look_at + similar)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean nats per token: logits (B, T, V), targets (B, T) -> scalar."""
    return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def windows(data: torch.Tensor, block_size: int, batch_size: int, generator=None):
    """Random windows of data (N,) and their targets: (batch_size, block_size) each."""
    starts = torch.randint(len(data) - block_size, (batch_size,), generator=generator)
    at = starts[:, None] + torch.arange(block_size)
    return data[at], data[at + 1]


class Subject:
    """The model under examination: makes fresh copies, random inputs and checked logits.

    The arguments are those of `examine`. Raises UsageError for a model that cannot be examined.
    """

    def __init__(self, make, vocab, block_size, loss=None, get_batch=None, seed=1337):
        self.make, self.vocab, self.block_size, self.seed = make, vocab, block_size, seed
        self.loss, self.get_batch = loss, get_batch
        self.generator = torch.Generator().manual_seed(seed)
        self.with_targets = False  # whether the model needs targets to return all logits
        self.model = self.fresh()
        if self.fresh() is self.model:
            raise UsageError("make() returns the same model twice; let it build a fresh one")
        self.logits_size = self.read_first(self.tokens(2, block_size)).shape[-1]
        self.lengths = [block_size]
        for T in (block_size // 2, 1):
            with contextlib.suppress(UsageError):
                if 0 < T < block_size:
                    self.forward(self.model.eval(), self.tokens(2, T))
                    self.lengths.append(T)

    def fresh(self, seed: int = 0) -> nn.Module:
        """A new model in training mode, made with the examination's seed plus `seed`."""
        torch.manual_seed(self.seed + seed)
        with errors_from("make()"):
            model = self.make()
        if not isinstance(model, nn.Module):
            raise UsageError(f"make() returned {described(model)}, not an nn.Module")
        return model.train()

    def tokens(self, B: int, T: int) -> torch.Tensor:
        """Random ids (B, T)."""
        return torch.randint(self.vocab, (B, T), generator=self.generator)

    def others(self, idx: torch.Tensor) -> torch.Tensor:
        """Random ids that differ from idx in every place, (B, T)."""
        shift = torch.randint(1, max(self.vocab, 2), idx.shape, generator=self.generator)
        return (idx + shift) % self.vocab

    def forward(self, model: nn.Module, idx: torch.Tensor) -> torch.Tensor:
        """The model's logits (B, T, V), float32 on the CPU; raises UsageError for anything else."""
        parameter = next(model.parameters(), None)
        device = idx.device if parameter is None else parameter.device
        arguments = (idx.to(device).contiguous(),) * (2 if self.with_targets else 1)
        with errors_from(f"the model, given ids {tuple(idx.shape)}"):
            output = model(*arguments)
        logits = logits_of(output)
        if not isinstance(logits, torch.Tensor):
            raise UsageError(f"the model returned {described(output)}, not logits (B, T, V)")
        if logits.dim() == 2 and len(logits) == idx.numel() and self.with_targets:
            logits = logits.reshape(*idx.shape, -1)
        if logits.shape[:-1] != idx.shape or logits.shape[-1] < self.vocab:
            B, T = idx.shape
            raise UsageError(
                f"the model returned {described(logits)} for ids ({B}, {T}) and a vocabulary of "
                f"{self.vocab}, not logits ({B}, {T}, {self.vocab})"
            )
        if not logits.is_floating_point():
            raise UsageError(f"the model returned {described(logits)}, not floating-point logits")
        return logits if logits.device.type == "meta" else logits.to("cpu").float()

    def read_first(self, idx: torch.Tensor) -> torch.Tensor:
        """The first logits; a model that returns only the last position's is given targets."""
        try:
            logits = self.forward(self.model, idx)
        except UsageError as error:
            self.with_targets = True
            try:
                logits = self.forward(self.model, idx)
            except UsageError:
                raise error from None
        if logits.device.type == "meta":
            raise UsageError("the model is on the meta device, without data; move it to the CPU")
        return logits

    def measured(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss in nats per token, by the given function or by cross-entropy."""
        if self.loss is None:
            return cross_entropy(logits, targets)
        with errors_from(f"loss, given logits {tuple(logits.shape)} and targets"):
            value = self.loss(logits, targets.contiguous())
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise UsageError(f"loss returned {described(value)}, not one number")
        return value

    def function(self, model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda idx: self.forward(model, idx)[..., : self.vocab]

    def modes(self):
        """Yield (name, function from ids to logits): fresh and trained model, in either mode."""
        for when, model in (("fresh", self.model), ("trained", self.trained.model)):
            for mode in ("evaluation", "training"):
                model.train(mode == "training")
                yield f"{when}, in {mode}", self.function(model)
            model.eval()

    @cached_property
    def trained(self) -> Training:
        """The model overfitted on random tokens, at the first of RATES that succeeds."""
        for rate in RATES:
            training = Training(self, rate)
            if training.success:
                break
        return training

    @cached_property
    def randomness(self) -> float:
        """The difference between two evaluations of the same ids, as a share of the spread."""
        function = self.function(self.model.eval())

        def later(x):
            torch.manual_seed(self.seed + 1)
            function(self.others(x))
            return function(x)

        return difference(function, self.tokens(2, self.block_size), later).max().item()

    @cached_property
    def blocks(self) -> list[Step]:
        """What each block of the fresh model does to the residual stream."""
        return through_blocks(self)

    @cached_property
    def watched(self) -> list[Attention]:
        """The attention calls of the fresh model on random ids."""
        return attentions_on(self, self.model, self.tokens(2, prime_length(self)))


class Training:
    """Overfits one batch of random tokens with AdamW, in evaluation mode to avoid dropout."""

    def __init__(self, subject: Subject, rate: float):
        self.rate, self.losses = rate, []
        self.model = subject.fresh().eval()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.without_gradient = {n for n, p in self.model.named_parameters() if p.requires_grad}
        T = min(subject.block_size, TOKENS)
        if len(subject.lengths) == 1:
            T = subject.block_size
        text = subject.tokens(math.ceil(TOKENS / T), T + 1)
        self.goal = BY_HEART * math.log(subject.vocab)
        if not parameters:
            return
        fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=fused)
        for _ in range(STEPS):
            batch_loss = subject.measured(subject.forward(self.model, text[:, :-1]), text[:, 1:])
            self.losses.append(batch_loss.item())
            if not math.isfinite(self.losses[-1]) or self.losses[-1] < self.goal / 2:
                break
            optimizer.zero_grad()
            with errors_from("backward"):
                batch_loss.backward()
            self.without_gradient -= with_gradient(self.model, self.without_gradient)
            optimizer.step()

    @property
    def success(self) -> bool:
        return bool(self.losses) and self.losses[-1] < self.goal


# The laws, causes before consequences


def not_a_number(s: Subject) -> Finding | None:
    """Logits, loss and gradients are finite, at any length, before and during training."""
    look_at = (
        "rows of scores that are masked entirely, a division by zero, the logarithm or square root "
        "of zero, uninitialised weights"
    )
    for name, p in s.model.named_parameters():
        if not p.isfinite().all():
            return finding("not a number", f"{name} starts with NaN or infinite values", look_at)
    for T in s.lengths:
        for mode in (False, True):
            logits = s.forward(s.model.train(mode), s.tokens(2, T))[..., : s.vocab]
            if not logits.isfinite().all():
                share = 1 - logits.isfinite().float().mean().item()
                mode_name = "training" if mode else "evaluation"
                evidence = (
                    f"{share:.0%} of the logits of {T} tokens are NaN or infinite ({mode_name})"
                )
                return finding("not a number", evidence, look_at)
    model, text = s.fresh(), s.tokens(2, s.block_size + 1)
    loss = s.measured(s.forward(model, text[:, :-1]), text[:, 1:])
    if not loss.isfinite():
        return finding("not a number", f"the first loss is {loss.item()}", look_at)
    if loss.requires_grad:
        with errors_from("backward"):
            loss.backward()
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not finite(p.grad)]
    if bad:
        evidence = f"the loss is {loss.item():.2f}; NaN or infinite gradients: {listed(bad)}"
        return finding("not a number", evidence, look_at)
    losses = s.trained.losses
    if losses and not math.isfinite(losses[-1]):
        evidence = (
            f"the loss is {losses[0]:.2f} at first and {losses[-1]} after {len(losses)} steps"
        )
        return finding("not a number", f"{evidence} at learning rate {s.trained.rate}", look_at)
    return None


def sees_the_future(s: Subject) -> Finding | None:
    """Changing the tokens from position p on changes no output before p."""
    for mode, function in s.modes():
        for T in s.lengths:
            idx = s.tokens(2, T)
            for p in sorted({1, T // 3, T // 2, T - 3, T - 1} & set(range(1, T))):
                changed = idx.clone()
                changed[:, p:] = s.others(idx[:, p:])
                before = moved(function, idx, changed)[:, :p].amax(0)
                if before.max() > MOVES:
                    return finding(
                        "sees the future",
                        f"changing the tokens from position {p} on changes the earlier output at "
                        f"position {int(before.argmax())} by {before.max():.2g} of the logits' "
                        f"spread ({T} tokens, {mode})",
                        "the causal mask: it must set the scores above the diagonal, and only "
                        "those, to -inf before the softmax; then each reshape that could mix "
                        "positions, and each mean or norm over the time axis",
                    )
    return None


def batch_rows_mix(s: Subject) -> Finding | None:
    """A row's output depends neither on the other rows of the batch nor on its place among them."""
    look_at = (
        "each view, reshape and transpose that touches the batch axis; each mean, norm or softmax "
        "over it, BatchNorm included; anything indexed by the row's number"
    )
    for mode, function in s.modes():
        idx = s.tokens(3, s.block_size)
        changed = idx.clone()
        changed[1] = s.others(idx[1])
        other = moved(function, idx, changed)[[0, 2]].max().item()
        if other > MOVES:
            evidence = (
                f"changing the second row changes the outputs of the first and third by "
                f"{other:.2g} of the spread"
            )
            return finding("batch rows mix", f"{evidence} ({mode})", look_at)
        if "evaluation" in mode and s.randomness <= MOVES:  # dropout depends on the order of rows
            turned = difference(function, idx, lambda x, f=function: f(x[[2, 0, 1]])[[1, 2, 0]])
            if turned.max() > 10 * MOVES:
                evidence = f"reordering the rows changes their outputs by {turned.max():.2g}"
                return finding("batch rows mix", f"{evidence} of the spread ({mode})", look_at)
    return None


def ignores_the_past(s: Subject) -> Finding | None:
    """Changing the tokens before the last one changes the last output."""
    T = s.block_size
    if T < 2 or s.vocab < 2 or influence(s, s.model)[1] > SEEN or not s.trained.losses:
        return None
    effect = influence(s, s.trained.model)[1]
    if effect > SEEN:
        return None  # output projections that are initialised to zero
    return finding(
        "ignores the past",
        f"changing all {T - 1} earlier tokens changes the last output by {effect:.1g} of the "
        f"logits' spread, even after {len(s.trained.losses)} training steps",
        "whether each block adds attention's output to the residual stream, and whether attention "
        "mixes values over the time axis (after the transpose, heads come before time)",
    )


def ignores_the_token_itself(s: Subject) -> Finding | None:
    """Changing a token changes its own output, and each block passes its input on.

    In a fresh model with small embeddings the past may have far more effect than the token itself,
    but not after some training.
    """
    look_at = (
        "the residual connections x + attention(...) and x + mlp(...), the token embedding in the "
        "input of the first block, a mask that excludes the diagonal"
    )
    fresh, trained = influence(s, s.model), influence(s, s.trained.model)
    if all(own <= share * past or own < SEEN for (own, past), share in zip((fresh, trained), OWN)):
        evidence = (
            f"changing a token changes its own output by {fresh[0]:.2g} of the logits' spread, "
            f"changing all tokens before it by {fresh[1]:.2g}; after training by {trained[0]:.2g} "
            f"and {trained[1]:.2g}"
        )
        return finding("ignores the token itself", evidence, look_at)
    cosines = [step.cosine for step in s.blocks] if s.watched else []
    lost = [n for n, cosine in enumerate(cosines, 1) if abs(cosine) < HANDED_ON]
    if not lost:
        return None
    evidence = (
        f"the output of block {', '.join(map(str, lost))} of {len(cosines)} does not contain its "
        f"input: their cosine is {min(map(abs, cosines)):.2f}, with a residual connection near 1"
    )
    return finding("ignores the token itself", evidence, look_at)


def blind_to_order(s: Subject) -> Finding | None:
    """On one token repeated, logits or attention weights differ between positions.

    (Rotary positions and ALiBi give equal logits there, but not uniform weights.) For a model
    without observable attention: exchanging two earlier tokens changes the last output.
    """
    if s.block_size < 3 or s.vocab < 3 or not s.trained.success:
        return None
    if influence(s, s.trained.model)[1] < SEEN:
        return None
    model = s.trained.model.eval()
    T = prime_length(s)
    seen = attentions_on(s, model, s.tokens(3, 1).expand(3, T).contiguous())
    with torch.no_grad():
        logits = s.function(model)(s.tokens(3, 1).expand(3, T).contiguous())
    apart = (logits - logits[:, :1]).abs().max() / logits.std().clamp(min=1e-30)
    idx = s.tokens(3, T)
    idx[:, -3] = s.others(idx[:, -2:-1])[:, 0]
    swapped = idx.clone()
    swapped[:, [-3, -2]] = idx[:, [-2, -3]]
    exchange = moved(s.function(model), idx, swapped)[:, -1].max().item()
    uniform = bool(seen) and all(is_uniform(a.weights) for a in seen)
    if apart > 1e-4 or not (uniform or exchange < SEEN):
        return None
    weights = f" and the attention weights ({len(seen)} calls) are uniform" if uniform else ""
    exchanged = f"; exchanging two tokens changes the next output by {exchange:.1g} of the spread"
    return finding(
        "blind to order",
        f"on one token repeated {T} times the logits at all positions are equal within {apart:.1g} "
        f"of their spread{weights}{'' if uniform else exchanged}",
        "the sum of token and position embeddings; whether positions count along the time axis "
        "(arange(T)), not along rows or heads; rotary or ALiBi on the scores",
    )


def parameters_without_gradient(s: Subject) -> Finding | None:
    """Every parameter gets a nonzero gradient, in the first batches or while overfitting one."""
    model = s.fresh()
    left = {name for name, p in model.named_parameters() if p.requires_grad}
    total = len(left)
    if not left:
        evidence = "the model has no trainable parameter"
        return finding("parameters without gradient", evidence, "nn.Parameter, requires_grad")
    left &= s.trained.without_gradient
    for _ in range(4):
        if not left:
            return None
        text = s.tokens(4, s.block_size + 1)
        model.zero_grad()
        loss = s.measured(s.forward(model, text[:, :-1]), text[:, 1:])
        if loss.requires_grad:
            loss.backward()
        left -= with_gradient(model, left)
    if not left:
        return None
    return finding(
        "parameters without gradient",
        f"{len(left)} of {total} get none, in fresh models and while one overfits a batch: "
        f"{listed(in_order(model, left))}",
        "whether forward uses them; a detach, .data or no_grad on their way to the loss; two "
        "factors that are both initialised to zero",
    )


def random_in_evaluation(s: Subject) -> Finding | None:
    """After model.eval() the same ids give the same logits, whatever was computed in between."""
    if s.randomness <= MOVES:
        return None
    return finding(
        "random in evaluation",
        f"the same ids twice after model.eval(): the logits differ by {s.randomness:.2g} of their "
        f"spread",
        "dropout that ignores self.training (functional dropout, dropout_p of scaled_dot_"
        "product_attention); modules in a plain list, which eval() does not reach; state that "
        "forward keeps between calls",
    )


def state_is_incomplete(s: Subject) -> Finding | None:
    """Loading a model's state_dict makes a model of another seed compute the same."""
    model, idx = s.fresh(), s.tokens(2, s.block_size)
    with torch.no_grad():
        for _ in range(3):
            s.forward(model, s.tokens(4, s.block_size))
    state = {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in model.state_dict().items()
    }
    loaded = s.fresh(seed=1)
    look_at = (
        "modules in a plain list or dict (nn.ModuleList, nn.ModuleDict), tensors that are neither "
        "nn.Parameter nor register_buffer"
    )
    try:
        loaded.load_state_dict(state)
    except Exception as error:
        evidence = f"load_state_dict refuses the output of state_dict: {first_line(error)}"
        return finding("state is incomplete", evidence, look_at)
    off = difference(s.function(model.eval()), idx, s.function(loaded.eval())).max().item()
    if off <= 10 * MOVES:
        return None
    evidence = f"a model of another seed that loads this one's state_dict differs by {off:.2g}"
    return finding("state is incomplete", f"{evidence} of the logits' spread", look_at)


def first_loss_is_off(s: Subject) -> Finding | None:
    """A fresh model knows nothing: its loss on random tokens is near ln V."""
    T = s.block_size
    text = s.tokens(math.ceil(512 / T), T + 1)
    with torch.no_grad():
        logits = s.forward(s.model.eval(), text[:, :-1])
        own, given = cross_entropy(logits, text[:, 1:]), s.measured(logits, text[:, 1:])
    guess = math.log(s.vocab)
    room = max(FIRST_LOSS[0], FIRST_LOSS[1] * guess) + math.log(s.logits_size / s.vocab)
    if abs(given - guess) <= room:
        return None
    spread = logits[..., : s.vocab].std(-1).mean()
    look_at = (
        f"the initialisation: the logits have a standard deviation of {spread:.2g}; it should be "
        "0.6 or less"
    )
    if abs(own - guess) <= room:
        look_at = f"loss: cross-entropy of the same logits is {own:.2f}, the mean over all tokens"
    evidence = f"the first loss is {given:.2f}; a uniform guess costs ln {s.vocab} = {guess:.2f}"
    return finding("first loss is off", evidence, look_at)


def softmax_over_the_wrong_axis(s: Subject) -> Finding | None:
    """Attention weights sum to 1 over the keys."""
    for n, a in enumerate(s.watched):
        if a.sums_over in ("keys", "neither"):
            continue
        sums = a.weights.float().sum(-1)
        along = f"; they sum to 1 along {a.sums_over}" if "softmax" not in a.sums_over else ""
        what = "no softmax between scores and values: " if not along else ""
        return finding(
            "softmax over the wrong axis",
            f"{what}attention weights (call {n + 1} of {len(s.watched)}) sum over the keys to "
            f"{sums.min():.2f} to {sums.max():.2f}, not to 1{along}",
            "the dim of attention's softmax: the last one of scores (..., Tq, Tk)",
        )
    return None


def scores_are_not_scaled(s: Subject) -> Finding | None:
    """Attention scores are dot products divided by the square root of the head size."""
    for n, a in enumerate(s.watched):
        if a.scale is None or abs(a.scale * math.sqrt(a.head_size) - 1) <= SCALE_OFF:
            continue
        return finding(
            "scores are not scaled",
            f"scores are {a.scale:.4g} times the dot products; with a head size of {a.head_size} "
            f"the factor is 1 / sqrt({a.head_size}) = {a.head_size**-0.5:.4g} (call {n + 1} of "
            f"{len(s.watched)})",
            "q @ k.transpose(-2, -1) / math.sqrt(hs): divided once, by the square root of the head "
            "size, not of n_embd",
        )
    return None


def stream_grows(s: Subject) -> Finding | None:
    """A block adds its input once, and the residual stream does not explode with depth."""
    gains = [step.gain for step in s.blocks if math.isfinite(step.gain)]
    sizes = [step.after for step in s.blocks]
    ratios = [b / max(a, 1e-30) for a, b in pairwise(sizes)]  # the first may meet small embeddings
    if gains and median(gains) > GAIN:
        evidence = f"a block's output contains {median(gains):.2f} times its input"
    elif ratios and min(ratios) > GROWTH and sizes[-1] > LARGE:
        evidence = f"it grows by a factor of at least {min(ratios):.2f} per block"
    else:
        return None
    return finding(
        "stream grows",
        f"{evidence}; root mean square of the stream after each block: "
        f"{', '.join(f'{x:.3g}' for x in sizes)}",
        "each block's sum x + f(norm(x)), with x once; the LayerNorm before attention and before "
        "the MLP; the size of their output projections",
    )


def cannot_learn_by_heart(s: Subject) -> Finding | None:
    """The model overfits one batch of random tokens, at one of two learning rates."""
    t = s.trained
    if t.success or not t.losses:
        return None
    return finding(
        "cannot learn by heart",
        f"{len(t.losses)} steps on one batch of {TOKENS} random tokens take the loss from "
        f"{t.losses[0]:.2f} to {t.losses[-1]:.2f} (AdamW at {t.rate}; at {RATES[0]} no better)",
        "a softmax before the loss, which has its own; weights that are cut off from the loss; a "
        "layer that discards its input; then the initialisation",
    )


def targets_are_not_the_next_token(s: Subject) -> Finding | None:
    """Where each token determines the next, the loss is lowest for logits that predict it."""
    if s.loss is None and s.get_batch is None:
        return None
    costs = costs_of_certainty(s)
    best = min(range(len(costs)), key=costs.__getitem__)
    if best == 1 and costs[1] < CLEAR * median(costs):
        return None
    what = {0: "the token itself", 1: "the next one", 2: "the next but one"}
    what[len(costs) - 1] = "the one before"
    return finding(
        "targets are not the next token",
        f"in a text in which each token determines the next, logits that are certain of the next "
        f"one cost {costs[1]:.2f}, those certain of {what.get(best, f'the one {best} places on')} "
        f"{costs[best]:.2f}, and the median is {median(costs):.2f}",
        "y = data[start + 1 : start + 1 + block_size] in get_batch; in loss, logits (B, T, V) and "
        "targets (B, T) must be flattened in the same order",
    )


LAWS = (
    sees_the_future, batch_rows_mix, ignores_the_past, ignores_the_token_itself, blind_to_order,
    softmax_over_the_wrong_axis, scores_are_not_scaled, parameters_without_gradient,
    random_in_evaluation, state_is_incomplete, first_loss_is_off, stream_grows,
    targets_are_not_the_next_token, cannot_learn_by_heart,
)  # fmt: skip


def examine(
    make: Callable[[], nn.Module],
    vocab: int,
    block_size: int,
    *,
    loss: Callable | None = None,
    get_batch: Callable | None = None,
    seed: int = 1337,
) -> list[Finding]:
    """Examine a language model as a black box; returns [] if nothing is wrong.

    `make()` returns a fresh nn.Module that maps ids (B, T) int64 to logits (B, T, V), to a tuple
    whose first element they are, or to an object with `.logits`. `loss(logits, targets) -> scalar`
    and `get_batch(data, block_size, batch_size, generator) -> x, y` are examined too, if given.
    Raises UsageError, with a message of one line, if the model cannot be examined. Restores the
    global random state.
    """
    state = torch.get_rng_state()
    try:
        with torch.enable_grad():
            subject = Subject(make, vocab, block_size, loss, get_batch, seed)
            found = not_a_number(subject)
            found = [found] if found else [f for f in (law(subject) for law in LAWS) if f]
    finally:
        torch.set_rng_state(state)
    return found


# Measurements


def influence(s: Subject, model: nn.Module) -> tuple[float, float]:
    """How much the last output changes with the last token, and with all tokens before it."""
    idx = s.tokens(8, s.block_size)
    itself, past = idx.clone(), idx.clone()
    itself[:, -1] = s.others(idx[:, -1])
    past[:, :-1] = s.others(idx[:, :-1])
    function = s.function(model.eval())
    return tuple(moved(function, idx, to)[:, -1].mean().item() for to in (itself, past))


def attentions_on(s: Subject, model: nn.Module, idx: torch.Tensor) -> list[Attention]:
    """The attention calls of model(idx) in evaluation mode.

    Gradients stay enabled: without them PyTorch's encoder layers run as one fused operation.
    """
    model.eval()
    arguments = (idx,) * (2 if s.with_targets else 1)
    device = next(model.parameters(), idx).device
    return attentions(model, *(argument.to(device) for argument in arguments))


def prime_length(s: Subject) -> int:
    """A number of tokens that differs from all other sizes in the model, if there is one."""
    if len(s.lengths) == 1:
        return s.block_size
    sizes = {size for p in s.model.parameters() for size in p.shape} - {s.block_size}
    for T in (31, 29, 23, 19, 17, 13, 11, 7, 5):
        if T <= s.block_size and T not in sizes:
            return T
    return s.block_size


def is_uniform(weights: torch.Tensor) -> bool:
    """Whether the nonzero weights of each row are equal."""
    weights = weights.float()
    shown = weights > 1e-9
    high = weights.amax(-1)
    low = weights.masked_fill(~shown, math.inf).amin(-1)
    return bool((high - low <= 1e-3 * high).all())


@dataclass(frozen=True)
class Step:
    """What one block does to the residual stream.

    `before` and `after` are its root mean square. On a very large input, which LayerNorm hides from
    attention and MLP, a block with a residual connection returns `gain` times the input, in the
    same direction (`cosine` near 1).
    """

    before: float
    after: float
    gain: float
    cosine: float


def through_blocks(s: Subject) -> list[Step]:
    """A Step for each block of the fresh model, on random ids; [] if no blocks are found.

    Blocks are modules of one class in one list, with submodules, that map (B, T, C) to the same
    shape, each on a different input (unlike the experts of a mixture, which share one).
    """
    best: list[Step] = []
    idx = s.tokens(2, s.block_size)
    for parent in list(s.model.modules()):
        children = list(parent.children())
        if not children or len({type(child) for child in children}) > 1:
            continue
        if not isinstance(parent, nn.ModuleList | nn.Sequential) or not list(
            children[0].children()
        ):
            continue
        calls = recorded(s, list(dict.fromkeys(children)), idx)
        inputs = [call[1] for call in calls]
        if not calls or any(torch.equal(a, b) for a, b in pairwise(inputs)):
            continue
        steps = [step_of(*call) for call in calls]
        best = max(best, steps, key=len)
    return best


def recorded(s: Subject, blocks: list[nn.Module], idx: torch.Tensor) -> list[tuple]:
    """(function that calls the block again on another input, its input, its output) per call."""
    calls = []

    def note(block, args, kwargs, output):
        output = output[0] if isinstance(output, tuple | list) else output
        given = next((a for a in (*args, *kwargs.values()) if is_stream(a, idx)), None)
        if given is None or not is_stream(output, idx) or given.shape != output.shape:
            return

        def again(x):
            new_args = [x if a is given else a for a in args]
            out = block.forward(*new_args, **{k: x if a is given else a for k, a in kwargs.items()})
            return out[0] if isinstance(out, tuple | list) else out

        calls.append((again, given.clone(), output.clone()))

    hooks = [block.register_forward_hook(note, with_kwargs=True) for block in blocks]
    try:
        with torch.no_grad():
            s.forward(s.model.eval(), idx)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def step_of(again, given: torch.Tensor, output: torch.Tensor) -> Step:
    """Measure a Step; gain and cosine are those of an input 1000 times as large."""

    def size(x):
        return x.double().square().mean().sqrt().item()

    gain = cosine = math.nan
    with contextlib.suppress(Exception), torch.no_grad():
        large = again(1000 * given).double() / 1000
        product = (large * given.double()).mean().item()
        gain, cosine = product / size(given) ** 2, product / (size(given) * size(large))
    return Step(size(given), size(output), gain, cosine)


def is_stream(x, idx: torch.Tensor) -> bool:
    """Whether x has a vector for each of these ids: (B, T, C) or (T, B, C)."""
    shape = tuple(getattr(x, "shape", ()))
    return len(shape) == 3 and shape[:2] in (tuple(idx.shape), tuple(idx.shape[::-1]))


def costs_of_certainty(s: Subject) -> list[float]:
    """The loss, on a periodic text, of logits that predict the token 0, 1, 2, ... places ahead.

    The batches come from `get_batch` and the loss from `loss`, where they are given.
    """
    n = min(s.vocab, CYCLE)
    cycle = torch.randperm(s.vocab, generator=s.generator)[:n]
    place = torch.zeros(s.vocab, dtype=torch.int64)
    place[cycle] = torch.arange(n)
    T = s.block_size
    with errors_from("get_batch"):
        B = max(2, 512 // T)
        data = cycle.repeat(8 + 2 * B * T // n)  # also enough for windows side by side
        x, y = (s.get_batch or windows)(data, T, B, s.generator)
    if not isinstance(x, torch.Tensor) or x.is_floating_point():
        raise UsageError(f"get_batch returned {described(x)}, not ids, which are integers")
    costs = []
    for k in range(n):
        certain = cycle[(place[x] + k) % n]
        logits = 10.0 * nn.functional.one_hot(certain, s.logits_size)
        with torch.no_grad():
            costs.append(s.measured(logits, y).item())
    return costs


def with_gradient(model: nn.Module, names: set[str]) -> set[str]:
    """Those of the named parameters that have a nonzero gradient."""
    return {
        name
        for name, p in model.named_parameters()
        if name in names and p.grad is not None and bool((p.grad != 0).any())
    }


def in_order(model: nn.Module, names: set[str]) -> list[str]:
    return [name for name, _ in model.named_parameters() if name in names]


def listed(names: list[str]) -> str:
    """The first four names and the number of the others."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def finite(x: torch.Tensor) -> bool:
    return bool(x.isfinite().all())


# Outputs and errors


def logits_of(output):
    """The logits in a model's output: a tensor, a tuple, a dict or an object."""
    if isinstance(output, dict):
        return output.get("logits")
    if isinstance(output, tuple | list):
        return output[0] if output else None
    return getattr(output, "logits", output)


@contextlib.contextmanager
def errors_from(who: str):
    """Turn any error raised inside into a UsageError of one line that begins with `who`."""
    try:
        yield
    except UsageError:
        raise
    except NotImplementedError as error:
        if str(error):
            raise UsageError(f"{who} raises NotImplementedError: {first_line(error)}") from error
        raise UsageError(f"{who} is not written yet") from error
    except (Exception, SystemExit) as error:
        message = f"{who} raises {type(error).__name__}: {first_line(error)}"
        raise UsageError(message) from error


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "without a message"


def described(x) -> str:
    """A value in a few words."""
    if isinstance(x, torch.Tensor):
        return f"a tensor {tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}"
    if isinstance(x, tuple | list) and x:
        return f"a {type(x).__name__} that begins with {described(x[0])}"
    return "None" if x is None else f"a {type(x).__name__}"


# The command line


def in_run(folder: Path) -> list[Finding]:
    """The findings on a training run: NaN in its weights, then its code with its sizes."""
    with errors_from(f"the model of {folder}"):
        config, tokenizer, trained = run.read_run(folder)
    vocab, T = len(tokenizer.vocab), config["block_size"]
    bad = [name for name, p in trained.named_parameters() if not p.isfinite().all()]
    if bad:
        evidence = f"in model.pt {listed(bad)} holds NaN or infinite values"
        return [finding("not a number", evidence, "the run's curve: python -m p06_training.doctor")]
    sizes = vocab, config["n_embd"], config["n_head"], config["n_layer"], T
    make = maker(build.GPT, sizes, init_weights)
    return examine(make, vocab, T, loss=build.loss, get_batch=build.get_batch)


def maker(GPT, sizes: tuple, init: Callable | None = None) -> Callable[[], nn.Module]:
    """A `make` function that returns GPT(*sizes), initialised by `init`."""

    def make():
        model = GPT(*sizes)
        if init:
            init(model)
        return model

    return make


def in_file(path: Path, vocab: int, block_size: int) -> list[Finding]:
    """The findings on a file with GPT or make, and on its loss and get_batch if it has them."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    sys.path += [str(Path.cwd()), str(path.resolve().parent)]
    spec = importlib.util.spec_from_file_location(f"{path.stem}_examined", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with errors_from(str(path)):
        spec.loader.exec_module(module)
    if hasattr(module, "GPT"):
        make = maker(module.GPT, (vocab, 64, 4, 2, block_size))
    elif hasattr(module, "make"):
        make = module.make
    else:
        raise UsageError(
            f"{path} has neither GPT(vocab, n_embd, n_head, n_layer, block_size) nor make()"
        )
    loss, get_batch = (getattr(module, name, None) for name in ("loss", "get_batch"))
    return examine(make, vocab, block_size, loss=loss, get_batch=get_batch)


def in_module(target: str, vocab: int | None, block_size: int | None) -> list[Finding]:
    """The findings on the model that module:function returns."""
    name, _, function = target.partition(":")
    if vocab is None or block_size is None:
        raise UsageError(f"{target} needs --vocab N and --block-size N, the sizes of its model")
    sys.path.insert(0, str(Path.cwd()))
    with errors_from(name):
        module = importlib.import_module(name)
    make = getattr(module, function, None)
    if not callable(make):
        raise UsageError(f"{name} has no function {function}")
    return examine(make, vocab, block_size)


def findings_on(args) -> list[Finding]:
    """The findings on the command line's target."""
    target = Path(args.target)
    if target.is_dir():
        return mine.call_with(mine.files_of_run(target), in_run, target)
    if ":" in args.target and not target.exists():
        return in_module(args.target, args.vocab, args.block_size)
    return in_file(target, args.vocab or 65, args.block_size or 32)


def variants():
    """Yield (name, p05_gpt.build with the sabotage, init_weights) for chapters 4 and 5."""
    from p04_attention.break_it import SABOTAGES as ATTENTION

    yield "healthy", build, init_weights
    for sabotage in ATTENTION:
        if sabotage.module == "build":
            name = sabotaged("p04_attention", sabotage).__name__
            edit = replace(sabotage, old="from p04_attention.build", new=f"from {name}")
            yield sabotage.name, sabotaged("p05_gpt", edit), init_weights
    for sabotage in break_it.SABOTAGES:
        if sabotage.module == "build":
            yield sabotage.name, sabotaged("p05_gpt", sabotage), init_weights
        elif sabotage.module == "init":
            yield sabotage.name, build, sabotaged("p05_gpt", sabotage).init_weights


# Sabotages of evaluate and generate, which are not part of an examination.
NOT_EXAMINED = ("divided_by_batches", "first_position_read", "always_the_likeliest")


def demo(steps: int = break_it.STEPS) -> list[dict[str, str]]:
    """A row per sabotage: its name, break_it.alarm of its training curve, and the findings."""
    vocab, T = len(break_it.corpus()[0].vocab), break_it.BLOCK_SIZE
    sizes = vocab, break_it.N_EMBD, break_it.N_HEAD, break_it.N_LAYER, T
    rows = []
    for name, gpt, init in tqdm(list(variants()), leave=False, delay=2, unit="sabotage"):
        make = maker(gpt.GPT, sizes, init)
        try:
            _, curve = break_it.trained(gpt, 1337, steps, init=init)
            shown = break_it.alarm(curve, vocab, break_it.corpus()[3])
        except (RuntimeError, IndexError) as error:  # the first step raises it
            shown = type(error).__name__
        if name in NOT_EXAMINED:
            names = "not examined"
        else:
            try:
                found = examine(make, vocab, T, loss=gpt.loss, get_batch=gpt.get_batch)
                names = ", ".join(f.name for f in found) or break_it.NOTHING
            except UsageError:
                names = "the error, in one line"
        rows.append({"sabotage": name, "the_curve_shows": shown, "an_examination_finds": names})
    return rows


def print_rows(rows: list[dict[str, str]]) -> None:
    """Print the rows of the demo as an aligned table."""
    names = {name: name.replace("_", " ") for name in rows[0]}
    for row in [names, *rows]:
        widths = [max(len(r[name]) for r in [names, *rows]) for name in names]
        print("  ".join(row[n].ljust(w) for n, w in zip(names, widths)).rstrip())


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 0 without findings, 1 with findings, 2 for an unusable target."""
    print_anything()
    parser = Parser(
        prog="python -m p05_gpt.checkup", description="Black-box tests for a language model."
    )
    add = parser.add_argument
    add("target", nargs="?", metavar="TARGET", help="a run's folder, a file, or module:function")
    add("--vocab", type=at_least(2), metavar="N", help="vocabulary size; default for a file: 65")
    add("--block-size", type=at_least(1), metavar="N", help="context length; for a file: 32")
    add("--demo", action="store_true", help="examine every sabotage of chapters 4 and 5")
    args = parser.parse_args(argv)

    def command() -> int:
        if args.demo:
            use_free_cores()
            print_rows(demo())
            return 0
        if args.target is None:
            raise UsageError("say what to examine: a run's folder, a file, module:function, --demo")
        found = findings_on(args)
        with ignoring_closed_pipe():
            for f in found:
                print(f"{f.name}: {f.evidence}")
                print(f"    look at: {f.advice}")
            if not found:
                print(f"nothing found: {len(LAWS) + 1} laws hold")
        return 1 if found else 0

    try:
        return run_command(parser, command)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
