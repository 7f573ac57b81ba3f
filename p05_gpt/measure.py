"""What a GPT costs, and what its choices are worth: python -m p05_gpt.measure

Without a name it runs count, memory, speed, cache and sampling, under a minute together. The other
parts train models for minutes; they run by name or with --all:

    count     parameters and floating-point operations by part, counted and by formula
    memory    bytes of weights, gradients, optimizer state and activations in a training step
    speed     tokens per second, and the share of the machine's best matrix product
    cache     time per new token by length of the text, with and without a key-value cache
    sampling  entropy and repetition by temperature, of the newest run or --run
    grid      loss by parameters, data and steps, with fitted power laws
    choices   six alternatives in the code, trained beside ours
    init      the default run with PyTorch's initialisation and with init_weights
    faster    an ablation of what makes the default run fast
    recipe    the time of the default run and of nanoGPT's CPU recipe to the recipe's loss
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import mean, median

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from p01_autograd.lab.cli import at_least, measure
from p01_autograd.lab.sabotage import Sabotage, sabotaged
from p04_attention.build import CausalSelfAttention, causal_mask
from p04_attention.measure import FusedAttention

from . import build, costs, run
from .build import GPT, evaluate, get_batch, loss
from .init import init_weights
from .kv_cache import CachedGPT
from .sample import newest_run
from .sampling import evaluating, next_token
from .train import DEFAULT_OUT, new_model, parse_flags, training_steps

# The default run
VOCAB, N_EMBD, N_HEAD, N_LAYER, BLOCK_SIZE, BATCH_SIZE = 2048, 128, 4, 4, 64, 12

TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
LENGTHS = (16, 32, 64, 128, 256, 512)
RECIPE_STEPS, RECIPE_LOSS = 2000, 1.8857
FASTER_STEPS = 300
BESIDE = {"textcoords": "offset points", "size": 10}  # for a label beside a point


def default_model(block_size: int = BLOCK_SIZE) -> GPT:
    torch.manual_seed(1337)
    return GPT(VOCAB, N_EMBD, N_HEAD, N_LAYER, block_size)


def random_batch(batch_size: int = BATCH_SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1337)
    return torch.randint(VOCAB, (2, batch_size, BLOCK_SIZE), generator=generator).unbind()


# count


def counted_parameters(model: GPT) -> dict[str, int]:
    """The number of parameters in the model's tensors, by the parts of costs.parameters."""
    found = Counter()
    for name, parameter in model.named_parameters():
        part = next(
            (p for p in ("tok_emb", "pos_emb", "head", "attn", "mlp") if p in name), "norms"
        )
        found["attention" if part == "attn" else part] += parameter.numel()
    return dict(found)


def counted_flops(model: GPT, idx: torch.Tensor, backward: bool = False) -> dict[str, int]:
    """FLOPs of matrix products as PyTorch's FlopCounterMode counts them, by part.

    With `backward` the `total` includes the backward pass.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        logits = model(idx)
        if backward:
            loss(logits, idx).backward()
    by_module = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}

    def of(end: str) -> int:
        return sum(n for name, n in by_module.items() if name.endswith(end))

    linear = sum(of(f"attn.{part}") for part in ("query", "key", "value", "proj"))
    return {
        "attention": linear,
        "scores and mixtures": of(".attn") - linear,
        "mlp": of(".mlp"),
        "head": of(".head"),
        "total": by_module["Global"],
    }


def count(args) -> None:
    model, T = default_model(), BLOCK_SIZE
    numbers, flops = counted_parameters(model), counted_flops(model, random_batch(1)[0])
    formula = costs.parameters(VOCAB, N_EMBD, N_LAYER, BLOCK_SIZE)
    formula_flops = costs.forward_flops(VOCAB, N_EMBD, N_LAYER, T)
    n_all, flops_all = sum(numbers.values()), flops["total"]
    print(
        f"{'part':20} {'parameters':>11} {'formula':>11} {'share':>6}   "
        f"{'flops/token':>11} {'formula':>11} {'share':>6}"
    )
    for part in dict.fromkeys([*formula, *formula_flops]):
        n, f = numbers.get(part, 0), flops.get(part, 0)
        print(
            f"{part:20} {n:11,} {formula.get(part, 0):11,} {n / n_all:6.1%}   "
            f"{f // T:11,} {formula_flops.get(part, 0) // T:11,} {f / flops_all:6.1%}"
        )
    print(
        f"{'all':20} {n_all:11,} {sum(formula.values()):11,} {'':6}   "
        f"{flops_all // T:11,} {sum(formula_flops.values()) // T:11,}"
    )
    both = counted_flops(default_model(), random_batch(1)[0], backward=True)["total"]
    step = costs.training_flops(VOCAB, N_EMBD, N_LAYER, T, BATCH_SIZE)
    print(
        f"forward and backward pass: {both / flops_all:.2f} times the forward pass; "
        f"a training step of {BATCH_SIZE} windows of {T}: {step / 1e9:.2f} GFLOP\n"
        f"the rule of thumb, 6 x parameters x tokens, gives "
        f"{6 * n_all * BATCH_SIZE * T / 1e9:.2f} GFLOP"
    )


# memory


def saved_bytes(model: GPT, idx: torch.Tensor, targets: torch.Tensor) -> dict[str, int]:
    """Bytes that the forward pass saves for the backward pass, by part, parameters excluded."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept, part = {}, "embeddings"

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept.setdefault(storage.data_ptr(), (part, storage.nbytes()))
        return tensor

    def entering(name):
        def hook(*_):
            nonlocal part
            part = name

        return hook

    hooks = []
    for block in model.blocks:
        hooks.append(block.attn.register_forward_pre_hook(entering("attention")))
        hooks.append(block.mlp.register_forward_pre_hook(entering("mlp")))
        for norm in (block.ln_1, block.ln_2):
            hooks.append(norm.register_forward_pre_hook(entering("norms and the stream")))
    hooks.append(model.ln_f.register_forward_pre_hook(entering("norms and the stream")))
    hooks.append(model.head.register_forward_pre_hook(entering("head and loss")))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss(model(idx), targets)
    for hook in hooks:
        hook.remove()
    found = Counter()
    for name, size in kept.values():
        found[name] += size
    del value
    return dict(found)


def memory(args) -> None:
    model = default_model()
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    saved = saved_bytes(model, *random_batch())
    rows = {"weights": weights, "gradients": weights, "AdamW's two means": 2 * weights}
    rows |= {f"activations: {part}": size for part, size in saved.items()}
    for name, size in rows.items():
        print(f"{name:35} {size / 1e6:8.2f} MB")
    print(
        f"{'together':35} {sum(rows.values()) / 1e6:8.2f} MB; "
        f"activations are {sum(saved.values()) / sum(rows.values()):.0%} of it"
    )


# speed


def seconds(call, repeats: int) -> float:
    """The median time of a call in seconds, after one warm-up call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def peak_flops() -> tuple[float, int]:
    """The rate of the fastest square matrix product, in FLOP/s, and its size."""
    found = []
    for n in (256, 512, 1024, 2048):
        a, b = torch.randn(2, n, n).unbind()
        found.append((2 * n**3 / seconds(lambda a=a, b=b: a @ b, 20), n))
    return max(found)


def speed(args) -> None:
    model, (x, y) = default_model(), random_batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    times = {"forward": [], "loss": [], "backward": [], "optimizer": []}
    for _ in range(60):
        marks = [time.perf_counter()]
        logits = model(x)
        marks.append(time.perf_counter())
        batch_loss = loss(logits, y)
        marks.append(time.perf_counter())
        optimizer.zero_grad()
        batch_loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        marks.append(time.perf_counter())
        for name, before, after in zip(times, marks, marks[1:], strict=False):
            times[name].append(after - before)
    parts = {name: median(found[10:]) for name, found in times.items()}
    step = sum(parts.values())
    with evaluating(model):
        evaluation = seconds(lambda: model(x), 30)
    peak, n = peak_flops()
    rate = costs.training_flops(VOCAB, N_EMBD, N_LAYER, BLOCK_SIZE, BATCH_SIZE) / step
    print(
        f"a training step on {torch.get_num_threads()} threads: {1e3 * step:.1f} ms ("
        + ", ".join(f"{name} {1e3 * part:.1f}" for name, part in parts.items())
        + ")"
    )
    print(
        f"{x.numel() / step:,.0f} tokens/s in training, {x.numel() / evaluation:,.0f} in "
        f"evaluation\n{rate / 1e9:.0f} GFLOP/s of matrix products in training; the best product, "
        f"{n} x {n}, reaches {peak / 1e9:.0f}: a share of {rate / peak:.0%}"
    )


# cache


def cache(args):
    """The time of the n-th token, computed from the whole text and with a key-value cache."""
    model = default_model(max(LENGTHS)).eval()
    idx = torch.randint(VOCAB, (1, max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    plain, cached = [], []
    print(f"{'length':>6} {'plain':>9} {'cached':>9} {'ratio':>6} {'kept':>9}   (one text)")
    with torch.no_grad():
        for n in LENGTHS:
            reader = CachedGPT(model)
            reader(idx[:, : n - 1])
            before = reader.read, list(reader.kept)

            def one_more(reader=reader, before=before, n=n):
                reader.read, reader.kept = before[0], list(before[1])
                reader(idx[:, :n])

            plain.append(seconds(lambda n=n: model(idx[:, :n]), 30))
            cached.append(seconds(one_more, 30))
            size = sum(part.numel() * 4 for kept in before[1] for part in kept)
            print(
                f"{n:6} {1e3 * plain[-1]:6.2f} ms {1e3 * cached[-1]:6.2f} ms "
                f"{plain[-1] / cached[-1]:6.1f} {size / 1e3:6.0f} kB"
            )

    from p01_autograd.lab.figures import HEALTHY, REFERENCE, subplots

    figure, ax = subplots()
    ax.plot(LENGTHS, [1e3 * t for t in plain], color=REFERENCE, marker="o", label="plain")
    ax.plot(LENGTHS, [1e3 * t for t in cached], color=HEALTHY, marker="o", label="cached")
    ax.set(xscale="log", yscale="log", xlabel="length of the text", title="ms per new token")
    ax.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100) if min(cached) < t / 1e3 < max(plain)]
    ax.set_yticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.legend()
    return figure


# sampling


def written(model: GPT, start: torch.Tensor, temperature: float, n: int, generator):
    """Sample n tokens after start (B, 1): returns them, (B, n), and their mean entropy in nats.

    The entropy is that of the distributions the tokens were drawn from, 0 at temperature 0.
    """
    idx, entropies = start, []
    with evaluating(model):
        for _ in range(n):
            logits = model(idx[:, -model.pos_emb.num_embeddings :])[:, -1]  # (B, V)
            if temperature > 0:
                drawn_from = torch.distributions.Categorical(logits=logits / temperature)
                entropies.append(drawn_from.entropy().mean().item())
            idx = torch.cat([idx, next_token(logits, temperature, generator=generator)], dim=1)
    return idx[:, 1:], sum(entropies) / n


def repetition(rows: torch.Tensor, n: int = 4) -> float:
    """The share of n-grams that occur earlier in the same text: rows (B, T) -> 0 to 1."""
    shares = []
    for row in rows.tolist():
        runs = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
        shares.append(1 - len(set(runs)) / len(runs))
    return sum(shares) / len(shares)


def sampling(args):
    """Measure eight texts at each temperature from one trained model."""
    folder = newest_run(DEFAULT_OUT) if args.run is None else Path(args.run)
    config, tokenizer, model = run.read_run(folder)
    known = set(run.read_text(config["data"]).split())
    start = run.prompt_ids(tokenizer, "").expand(8, 1)
    rows = []
    print(
        f"{folder}: eight texts of {args.tokens} tokens at each temperature\n"
        f"{'temperature':>11} {'entropy':>8} {'repetition':>10} {'known words':>11}"
    )
    for temperature in TEMPERATURES:
        generator = torch.Generator().manual_seed(1337)
        new, entropy = written(model, start, temperature, args.tokens, generator)
        words = [word for row in new.tolist() for word in tokenizer.decode(row).split()[1:-1]]
        spelled = sum(word in known for word in words) / max(1, len(words))
        rows.append((entropy, repetition(new)))
        print(f"{temperature:11.2f} {entropy:8.2f} {rows[-1][1]:10.1%} {spelled:11.1%}")
    print(
        "entropy: nats, of the distributions drawn from; repetition: 4-grams of tokens that occur\n"
        "earlier in the text; known words: between two spaces, found in the corpus"
    )

    from p01_autograd.lab.figures import BROKEN, HEALTHY, subplots

    figure, ax = subplots()
    ax.plot(TEMPERATURES, [e for e, _ in rows], color=HEALTHY, marker="o", label="entropy")
    ax.set(xlabel="temperature", ylabel="entropy, nats")
    right = ax.twinx()
    right.set_ylabel("repeated, %", color=BROKEN)
    right.plot(
        TEMPERATURES,
        [100 * r for _, r in rows],
        color=BROKEN,
        marker="s",
        ls="--",
        label="repetition",
    )
    right.grid(False)
    lines = [*ax.get_lines(), *right.get_lines()]
    ax.legend(lines, [line.get_label() for line in lines], loc="center right")
    return figure


# grid


def fitted(x: list[float], y: list[float]) -> tuple[float, float]:
    """Slope and intercept of the least-squares line of y against x."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    slope = over / sum((a - mean_x) ** 2 for a in x)
    return slope, mean_y - slope * mean_x


def grid(args):
    """Vary parameters, data and steps one at a time, starting from the small model of break_it."""
    from tqdm import tqdm

    from .break_it import BLOCK_SIZE, N_LAYER, STEPS, corpus, trained

    _, train_ids, val_ids, _ = corpus()
    axes = {
        "parameters": ("n_embd", [16, 32, 64, 128]),
        "characters": ("fraction", [1 / 256, 1 / 64, 1 / 16, 1 / 4]),
        "steps": ("steps", [175, 350, 700, 1400]),
    }
    cells = [(name, flag, value) for name, (flag, values) in axes.items() for value in values]
    found = {name: [] for name in axes}
    base = {}  # finished runs by their flags, since two series share one
    for name, flag, value in tqdm(cells, desc="training", leave=False):
        flags = {"steps": STEPS, flag: value}
        key = tuple(sorted(flags.items() - {("n_embd", 64)}))
        if key not in base:
            model, curve = trained(build, 1337, **flags)
            size = sum(parameter.numel() for parameter in model.parameters())
            at = sum(curve[-50:]) / 50
            base[key] = size, at, evaluate(model, val_ids, BLOCK_SIZE)
        size, train_loss, val_loss = base[key]
        amount = {"parameters": size, "characters": round(value * len(train_ids)), "steps": value}
        found[name].append((amount[name], train_loss, val_loss))
    for name, points in found.items():
        slope, _ = fitted([math.log(n) for n, _, _ in points], [math.log(v) for *_, v in points])
        print(f"{name:>10} {'training':>9} {'validation':>10}")
        for n, train_loss, val_loss in points:
            print(f"{n:10,} {train_loss:9.3f} {val_loss:10.3f}")
        print(
            f"   fitted: validation loss ~ {name}^{slope:.3f}; twice as many: {2**slope - 1:+.1%}\n"
        )
    print(
        f"all else as in break_it.py: 64 channels, {N_LAYER} blocks, {STEPS} steps, "
        f"{len(train_ids):,} characters"
    )

    from p01_autograd.lab.figures import BROKEN, HEALTHY, REFERENCE, subplots

    figure, ax = subplots()
    colors = HEALTHY, BROKEN, REFERENCE
    for (name, points), mark, color in zip(found.items(), "os^", colors, strict=True):
        x = [n / points[0][0] for n, *_ in points]
        y = [v for *_, v in points]
        slope, start = fitted([math.log(n) for n in x], [math.log(v) for v in y])
        line = [math.exp(start) * n**slope for n in x]
        ax.plot(x, y, mark, color=color, label=name)
        ax.plot(x, line, color=color, lw=1)
        ax.annotate(f"{slope:+.3f}", (x[-1], line[-1]), (6, 0), color=color, va="center", **BESIDE)
    ax.set(xscale="log", yscale="log", xlabel="times as many", title="validation loss, nats/char")
    ax.set_xticks(ticks := [1, 4, 16, 64], [str(n) for n in ticks])
    ax.set_yticks(ticks := [2, 2.5, 3, 4], [str(n) for n in ticks])
    ax.minorticks_off()
    ax.margins(x=0.15)
    ax.legend(title="fitted exponents beside the lines", title_fontsize=10)
    return figure


# choices


def choice(name: str, old: str, new: str, module: str = "build"):
    """A copy of build.py, or of init.py, with one line changed."""
    edit = Sabotage(name, old, new, "", lambda healthy, other: False, "", module)
    return sabotaged("p05_gpt", edit)


def gpt2_init(model: GPT) -> None:
    """GPT-2's initialisation: std 0.02, residual projections smaller by sqrt(2 * n_layer)."""
    init_weights(model)  # for the biases, which are 0 in both
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            small = math.sqrt(2 * len(model.blocks)) if "proj" in name or "mlp.2" in name else 1
            nn.init.normal_(weight, std=0.02 / small)


def other_choices() -> dict:
    """Alternatives that every check accepts: name -> (module, initialisation)."""
    head = "self.head = nn.Linear(n_embd, vocab"
    full_size = choice(
        "full_size", "std = std / math.sqrt(2 * len(model.blocks))", "std = std / 1", "init"
    )
    large_positions = choice("large_positions", "SMALL = 0.02", "SMALL = 1.0", "init")
    return {
        "ours": (build, init_weights),
        "a head with bias": (choice("bias", f"{head}, bias=False)", f"{head})"), init_weights),
        "ReLU for GELU": (choice("relu", "nn.GELU()", "nn.ReLU()"), init_weights),
        "PyTorch's own initialisation": (build, None),
        "GPT-2's initialisation": (build, gpt2_init),
        "blocks that write at full size": (build, full_size.init_weights),
        "positions of variance one": (build, large_positions.init_weights),
    }


def choices(args) -> None:
    """Train the small model of break_it with each choice and each seed."""
    from tqdm import tqdm

    from .break_it import BLOCK_SIZE, STEPS, corpus, trained

    others, seeds = other_choices(), range(1337, 1337 + args.seeds)
    losses = {name: [] for name in others}
    bar = tqdm([(n, s) for n in others for s in seeds], desc="training", leave=False)
    for name, seed in bar:
        module, init = others[name]
        model, _ = trained(module, seed, STEPS, init=init)
        losses[name].append(evaluate(model, corpus()[2], BLOCK_SIZE))
    print_choices(losses, "validation loss, nats per character", "to ours")


def print_choices(losses: dict[str, list[float]], title: str, difference: str) -> None:
    """Print a row per choice: mean, range, and the mean difference to the first choice."""
    first = next(iter(losses.values()))
    print(f"{title:36} {'mean':>7} {'range':>15} {difference:>8}")
    for name, found in losses.items():
        change = mean(a - b for a, b in zip(found, first, strict=True))
        print(
            f"{name:36} {mean(found):7.4f} {min(found):7.4f}-{max(found):7.4f} {change:+8.4f}",
            flush=True,
        )


# init


def init(args) -> None:
    """Train the default run, or --steps of it, with both initialisations and each seed."""
    kinds = {"PyTorch's own": lambda model: None, "init_weights": init_weights}
    losses, first = {name: [] for name in kinds}, {name: [] for name in kinds}
    flags = ["--steps", str(args.steps), "--eval-every", str(args.steps)] if args.steps else []
    for seed in (1337, *range(1, args.seeds)):
        for name, kind in kinds.items():
            rows = rows_of_run(kind, seed, *flags)
            losses[name].append(rows[-1]["val_nats_per_char"])
            first[name].append(rows[0]["train_loss"])
            print(f"seed {seed}, {name}: {losses[name][-1]:.4f} nats per character", flush=True)
    print()
    print_choices(losses, f"nats per character after {len(rows):,} steps", "to first")
    for name, found in first.items():
        print(
            f"first loss, {name}: {mean(found):.2f} nats per token; ln V is {math.log(VOCAB):.2f}"
        )


def rows_of_run(set_weights, seed: int, *flags: str) -> list[dict]:
    """The metrics of a training run whose model is initialised by set_weights(model)."""
    _, args = parse_flags(["--seed", str(seed), "--device", "cpu", *flags])
    data = run.load_data(args)
    torch.manual_seed(seed)
    sizes = args.n_embd, args.n_head, args.n_layer, args.block_size
    model = GPT(len(data.tokenizer.vocab), *sizes)
    set_weights(model)
    with contextlib.redirect_stdout(io.StringIO()):
        return list(training_steps(args, model, data))


# faster


class FirstAttention(CausalSelfAttention):
    """Attention as one writes it first: all T * T scores, masked_fill, a softmax by hand."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self.split_heads(part(x)) for part in (self.query, self.key, self.value))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, nh, T, T)
        scores = scores.masked_fill(~causal_mask(x.shape[1]), float("-inf"))
        exps = (scores - scores.max(-1, keepdim=True).values.detach()).exp()
        y = exps / exps.sum(-1, keepdim=True) @ v  # (B, nh, T, hs)
        return self.proj(y.transpose(1, 2).reshape(x.shape))


def one_step(vocab: int, attention=CausalSelfAttention, optimizer=None):
    """A function that does one training step of the default run's model."""
    torch.manual_seed(1337)
    model = GPT(vocab, N_EMBD, N_HEAD, N_LAYER, BLOCK_SIZE)
    for block in model.blocks:
        block.attn = attention(N_EMBD, N_HEAD)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **(optimizer or {"fused": True}))
    x, y = (ids % vocab for ids in random_batch())

    def step():
        batch_loss = loss(model(x), y)
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()

    return step


def by_turns(calls: dict, repeats: int) -> dict[str, float]:
    """The median time of each call in seconds, interleaved so that a slow moment affects all."""
    times = {name: [] for name in calls}
    for repeat in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if repeat >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: median(found) for name, found in times.items()}


def short_run(set_weights, seed: int, *flags: str) -> float:
    """Nats per character of the default run, shortened to FASTER_STEPS steps."""
    steps = str(FASTER_STEPS)
    rows = rows_of_run(set_weights, seed, "--steps", steps, "--eval-every", steps, *flags)
    return rows[-1]["val_nats_per_char"]


def faster(args) -> None:
    """Measure the time of a step and the loss after FASTER_STEPS of them, one change at a time."""
    ours, chars = "the default run", "characters for 2,048 tokens"
    steps = by_turns(
        {
            ours: one_step(VOCAB),
            chars: one_step(65),
            "AdamW as PyTorch has it by default": one_step(VOCAB, optimizer={"fused": False}),
            "attention in the plain form": one_step(VOCAB, FirstAttention),
            "PyTorch's fused attention": one_step(VOCAB, FusedAttention),
        },
        60,
    )
    losses = {
        ours: (init_weights,),
        chars: (init_weights, "--tokenizer", "char"),
        "PyTorch's own initialisation": (lambda model: None,),
        "GPT-2's initialisation": (gpt2_init,),
        "a learning rate of 1e-3 for 4e-3": (init_weights, "--lr", "1e-3"),
    }
    seeds = range(1, args.seeds + 1)
    found = {name: [short_run(m, seed, *fl) for seed in seeds] for name, (m, *fl) in losses.items()}
    print(
        f"{'':36} {'ms a step':>9}   nats/char after {FASTER_STEPS} steps, {args.seeds} seeds\n"
        f"{'':36} {'':9}   {'mean':>6} {'range':>13}"
    )
    for name in dict.fromkeys([*steps, *losses]):
        took = f"{1e3 * steps[name]:9.1f}" if name in steps else f"{'as ours':>9}"
        came = found.get(name)
        came = f"{mean(came):6.3f} {min(came):6.3f}-{max(came):5.3f}" if came else "as ours"
        print(f"{name:36} {took}   {came}")


# recipe


def recipe_seconds(n_steps: int, seed: int) -> float:
    """Seconds for the recipe's 2,000 training steps, extrapolated from `n_steps` of them.

    The recipe is the CPU example in nanoGPT's README: characters, 4 layers, 4 heads, 128 channels,
    12 windows of 64, 2,000 steps of AdamW with clipping, PyTorch's fused attention. It ends at
    1.8857 nats per character. Its validations are not counted.
    """
    text = run.split_text(run.read_text(None))[0]
    data = run.encode(run.train_tokenizer("char", text, 0), text)
    torch.manual_seed(seed)
    model = GPT(int(data.max()) + 1, 128, 4, 4, 64)
    for block in model.blocks:
        block.attn = FusedAttention(128, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    generator = torch.Generator().manual_seed(seed)
    start = 0.0
    for step in range(-20, n_steps):  # the first twenty are a warm-up
        if step == 0:
            start = time.perf_counter()
        x, y = get_batch(data, 64, 12, generator)
        optimizer.zero_grad()
        batch_loss = loss(model(x), y)
        batch_loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        batch_loss.item()
    return (time.perf_counter() - start) / n_steps * RECIPE_STEPS


def our_row(seed: int) -> dict:
    """The metrics of the default run at its first validation below the recipe's loss."""
    _, args = parse_flags(["--seed", str(seed), "--device", "cpu", "--eval-tokens", "1000000"])
    data = run.load_data(args)
    model = new_model(args, len(data.tokenizer.vocab))
    for row in training_steps(args, model, data):
        if row.get("val_nats_per_char", RECIPE_LOSS) < RECIPE_LOSS:
            return row
    raise RuntimeError(f"the default run with seed {seed} did not get below {RECIPE_LOSS}")


def recipe(args) -> None:
    """Compare times to the recipe's loss; ours includes validation, the recipe's does not."""
    lines = []
    for seed in range(1, args.seeds + 1):
        theirs, ours = recipe_seconds(args.recipe_steps, seed), our_row(seed)
        lines.append(
            f"{seed:4} {theirs:9.1f} s {ours['step']:6} {ours['val_nats_per_char']:10.4f} "
            f"{ours['seconds']:8.1f} s {ours['seconds'] / theirs:8.3f}"
        )
    print(
        f"seed   recipe to    ours: below {RECIPE_LOSS} at         ratio\n"
        f"          {RECIPE_LOSS}    step  nats/char       time   of times"
    )
    print("\n".join(lines))


PARTS = {
    part.__name__: part
    for part in (count, memory, speed, cache, sampling, grid, choices, init, faster, recipe)
}
QUICK = ("count", "memory", "speed", "cache", "sampling")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = (
        ("--run", str, None, f"sampling: a run's folder, the newest {DEFAULT_OUT}* if not given"),
        ("--tokens", at_least(4), 200, "sampling: tokens in a text"),
        ("--seeds", at_least(1), 3, "choices, init, faster, recipe: runs of each"),
        ("--steps", at_least(1), None, "init: steps of a run; the default run's if not given"),
        ("--recipe-steps", at_least(1), 200, "recipe: how many of its steps are timed"),
    )
    return measure("p05_gpt", __doc__, PARTS, QUICK, options=options, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
