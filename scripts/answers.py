"""Measure the numbers in the answers to the homework: python scripts/answers.py p01_autograd 2

The answers are in each project's NOTES.md.
"""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import p01_autograd.lab.startup  # noqa: E402, F401  isort: skip

from p01_autograd.lab.cli import Parser, print_anything  # noqa: E402
from p01_autograd.lab.sabotage import Sabotage, sabotaged  # noqa: E402

SEEDS = (1337, 1338, 1339)


def edit(project: str, name: str, old: str, new: str):
    """A copy of the project's build.py with one piece of text replaced, as a module."""
    return sabotaged(project, Sabotage(name, old, new, "", None, ""))


def one_hidden_layer() -> None:
    """p01, 2: the sabotage no_order on a network with one hidden layer."""
    import random

    from p01_autograd import break_it
    from p01_autograd.demo import hinge_loss, train, two_moons

    no_order = next(s for s in break_it.SABOTAGES if s.name == "no_order")
    broken = sabotaged("p01_autograd", no_order)
    for hidden in ([8], [8, 8]):
        for seed in SEEDS:
            found = {}
            for name, build in (("healthy", break_it.shipped_build), ("no_order", broken)):
                random.seed(seed)
                model = break_it.layers_on(build).MLP(2, [*hidden, 1])
                points, labels = two_moons(60, seed=seed)
                hinge_loss(model, points, labels).backward()
                of_all = [p.grad for p in model.parameters()]
                model.zero_grad()
                hinge_loss(model, points[:1], labels[:1]).backward()
                of_one = [p.grad for p in model.parameters()]
                model.zero_grad()
                found[name] = of_all, of_one, train(model, points, labels, 100, 1.0)[-1]
            off = [
                sum(math.isclose(a, b, abs_tol=1e-12) for a, b in zip(*pair))
                for pair in zip(found["healthy"][:2], found["no_order"][:2])
            ]
            print(
                f"hidden {hidden!s:7} seed {seed}: right gradients {off[0]:3} of "
                f"{len(of_all)} for 60 points, {off[1]:3} for one; loss after 100 steps healthy "
                f"{found['healthy'][2]:.3f}, no_order {found['no_order'][2]:.3f}",
                flush=True,
            )


def listings() -> str:
    """The text of all six listings, Python code to train a tokenizer on."""
    paths = sorted(ROOT.glob("p0*_*/build.py"))
    return "".join(path.read_text(encoding="utf-8") for path in paths)


def runs_of_spaces() -> None:
    """p03, 1: the longest run of spaces that has a token."""
    from p03_bpe import GPT2_PATTERN, GPT4_PATTERN, RegexTokenizer

    for name, pattern in (("GPT2_PATTERN", GPT2_PATTERN), ("GPT4_PATTERN", GPT4_PATTERN)):
        tokenizer = RegexTokenizer(pattern)
        tokenizer.train(listings(), 1024)
        runs = sorted(len(b) for b in tokenizer.vocab.values() if b and not b.strip(b" "))
        print(f"{name}, 1,024 tokens, the six listings: runs of {runs} spaces")


def another_language() -> None:
    """p03, 2: characters per token of a tokenizer that was trained on another language."""
    from p03_bpe import RegexTokenizer
    from p03_bpe.corpus import load_corpus

    text = load_corpus()
    python, judged = listings(), text[-100_000:]
    for name, spent in (("Python", python), ("Tiny Shakespeare", text[: len(python)])):
        tokenizer = RegexTokenizer()
        tokenizer.train(spent, 1024)
        for what, one in (("Tiny Shakespeare", judged), ("Python", python)):
            share = len(one) / len(tokenizer.encode(one))
            print(f"1,024 tokens of {len(spent):,} characters of {name}: {what} {share:.2f}")


def digits() -> None:
    """p03, 3: the cost of one token per digit in a table of numbers."""
    import random

    from p03_bpe import GPT2_PATTERN, RegexTokenizer

    draw = random.Random(1337)

    def table():
        return "\n".join(
            f"{year}  {draw.randrange(10**6):,}  {draw.random():.3f}" for year in range(1800, 2000)
        )

    text, judged = table(), table()
    for name, pattern in (
        ("GPT2_PATTERN", GPT2_PATTERN),
        ("a digit, a token", GPT2_PATTERN.replace(r" ?\p{N}+", r"\p{N}")),
    ):
        tokenizer = RegexTokenizer(pattern)
        with warnings.catch_warnings(action="ignore"):  # single digits leave nothing to merge
            tokenizer.train(text, 512)
        ids = tokenizer.encode(judged)
        print(f"{name}: {len(ids)} tokens for {len(judged)} characters of another table")


def windows() -> None:
    """p04, 1: attention limited to the last 16, 4 and 1 positions."""
    import torch

    from p04_attention import break_it, build

    class Windowed(build.CausalSelfAttention):
        window = 0

        def forward(self, x):
            B, T, C = x.shape
            q, k, v = (self.split_heads(part(x)) for part in (self.query, self.key, self.value))
            mask = build.causal_mask(T) & ~build.causal_mask(T).roll(self.window, 0)
            for t in range(min(T, self.window)):
                mask[t] = build.causal_mask(T)[t]
            y = build.scaled_dot_product_attention(q, k, v, mask)
            return self.proj(y.transpose(1, 2).reshape(B, T, C))

    for window in (break_it.BLOCK_SIZE, 16, 4, 1):
        kind = type("Windowed", (Windowed,), {"window": window})
        print_attention(f"window {window}", kind, torch)


def print_attention(name, kind, torch) -> None:
    """Train break_it's model with this attention class and print its loss and size."""
    from p04_attention import break_it, lm

    run = lm.train(
        lambda: kind(break_it.N_EMBD, break_it.N_HEAD), 1337, n_embd=break_it.N_EMBD,
        block_size=break_it.BLOCK_SIZE, batch_size=break_it.BATCH_SIZE, lr=break_it.LR,
        steps=break_it.STEPS,
    )  # fmt: skip
    weights = sum(p.numel() for p in kind(break_it.N_EMBD, break_it.N_HEAD).parameters())
    print(
        f"{name}: {run.val[-1][1]:.3f} nats per character after {break_it.STEPS} steps, "
        f"{weights:,} weights in a layer",
        flush=True,
    )


def multi_query() -> None:
    """p04, 2: multi-query attention, with one key and one value for all heads."""
    import torch
    from torch import nn

    from p04_attention import build

    class MultiQuery(build.CausalSelfAttention):
        def __init__(self, n_embd, n_head):
            super().__init__(n_embd, n_head)
            self.key = nn.Linear(n_embd, n_embd // n_head, bias=False)
            self.value = nn.Linear(n_embd, n_embd // n_head, bias=False)

        def forward(self, x):
            B, T, C = x.shape
            k, v = self.key(x)[:, None], self.value(x)[:, None]  # (B, 1, T, hs), shared by heads
            q = self.split_heads(self.query(x))
            y = build.scaled_dot_product_attention(q, k, v, build.causal_mask(T))
            return self.proj(y.transpose(1, 2).reshape(B, T, C))

    print_attention("a key for each head", build.CausalSelfAttention, torch)
    print_attention("one key for all", MultiQuery, torch)


def tied() -> None:
    """p05, 1: the first loss of a tied model by the standard deviation of its matrix."""
    import torch

    from p05_gpt.build import GPT, loss

    V, C = 512, 128
    idx = torch.randint(V, (16, 65), generator=torch.Generator().manual_seed(1337))
    for name, std in (("1", 1.0), ("1 / sqrt(C)", C**-0.5), ("0.02", 0.02)):
        torch.manual_seed(1337)
        model = GPT(V, C, 4, 4, 64)
        model.head.weight = model.tok_emb.weight
        torch.nn.init.normal_(model.head.weight, std=std)
        with torch.no_grad():
            first = loss(model(idx[:, :-1]), idx[:, 1:]).item()
        print(f"standard deviation {name}: first loss {first:.2f}; ln V is {math.log(V):.2f}")


def depth() -> None:
    """p05, 2: loss by the number of layers, with and without init_weights."""
    from p05_gpt import break_it, build
    from p05_gpt.init import init_weights

    for n_layer in (2, 4, 8, 16):
        for name, init in (("init_weights", init_weights), ("PyTorch's own", None)):
            _, curve = break_it.trained(build, 1337, 150, n_layer=n_layer, init=init)
            last = break_it.mean(curve[-20:])
            print(f"{n_layer:2} layers, {name:13}: {last:.3f} after 150 steps", flush=True)


def clip_that_follows() -> None:
    """p06, 2: the damaged batch of no_clipping, clipped to the median of recent norms."""
    from p06_training import break_it, build

    old = "clip_grad_norm(self.model.parameters(), recipe.clip)"
    kept = "self.norms = [*getattr(self, 'norms', []), {}][-100:]"
    norm = "float(clip_grad_norm(self.model.parameters(), {}))"
    following = edit(
        "p06_training",
        "following",
        f"        grad_norm = float({old})\n",
        "        usual = sorted(getattr(self, 'norms', [])) or [recipe.clip]\n"
        f"        grad_norm = {norm.format('usual[len(usual) // 2]')}\n"
        f"        {kept.format('grad_norm')}\n",
    )
    no_clipping = next(s for s in break_it.SABOTAGES if s.name == "no_clipping")
    for name, module in (
        ("clip at 1", build),
        ("clip at the median of a hundred", following),
        ("no_clipping", sabotaged("p06_training", no_clipping)),
    ):
        found = break_it.experiment(module)
        print(
            f"{name}: the loss rises by {found.rise_after_poison:+.2f} after the damaged batch, "
            f"{found.val_loss:.2f} nats per character at the end",
            flush=True,
        )


def parts_not_divided() -> None:
    """p06, 3: gradient accumulation without dividing by the number of parts."""
    from p06_training import break_it, build

    broken = edit("p06_training", "not_divided", " / recipe.accumulate  # the", "  # the")
    before = break_it.RECIPE["accumulate"]
    break_it.RECIPE["accumulate"] = 4
    try:
        for name, module in (("divided", build), ("not divided", broken)):
            found = break_it.experiment(module)
            print(
                f"{name}: first training loss {found.rows[0]['train_loss']:.2f}, gradient norm "
                f"{found.rows[0]['grad_norm']:.2f}, {found.val_loss:.2f} nats per character at the "
                "end",
                flush=True,
            )
    finally:
        break_it.RECIPE["accumulate"] = before


ANSWERS = {
    ("p01_autograd", 2): one_hidden_layer,
    ("p03_bpe", 1): runs_of_spaces,
    ("p03_bpe", 2): another_language,
    ("p03_bpe", 3): digits,
    ("p04_attention", 1): windows,
    ("p04_attention", 2): multi_query,
    ("p05_gpt", 1): tied,
    ("p05_gpt", 2): depth,
    ("p06_training", 2): clip_that_follows,
    ("p06_training", 3): parts_not_divided,
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python scripts/answers.py",
        description="Measure the numbers in the answer to a homework.",
    )
    parser.add_argument("project", metavar="PROJECT")
    parser.add_argument("number", type=int, metavar="N", help="number of the homework")
    flags = parser.parse_args(argv)
    if (flags.project, flags.number) not in ANSWERS:
        known = ", ".join(f"{project} {number}" for project, number in ANSWERS)
        parser.error(f"nothing is measured for it; there are {known}")
    ANSWERS[flags.project, flags.number]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
