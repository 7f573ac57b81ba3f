"""Who looks at whom: python -m p04_attention.heatmap "First Citizen:"

Trains two attention layers of four heads on the characters of Tiny Shakespeare, draws each head's
weights on your text before and after training, and measures on text it was not trained on what
each head has learned to look at. About ten seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from p01_autograd.lab.cli import Parser, UsageError, at_least, print_anything

from . import build, lm

N_EMBD, N_HEAD, BLOCK_SIZE, BATCH_SIZE, LR = 128, 4, 64, 8, 3e-3
TEXT = "First Citizen:\nWe are accounted poor"
WINDOWS = 32  # of validation text, for the table


def train(steps: int, seed: int) -> torch.nn.Module:
    """The model after `steps` steps; the same seed begins with the same weights."""
    return lm.train(
        lambda: build.CausalSelfAttention(N_EMBD, N_HEAD),
        seed,
        n_embd=N_EMBD,
        block_size=BLOCK_SIZE,
        batch_size=BATCH_SIZE,
        steps=steps,
        lr=LR,
    ).model


def weights(model: torch.nn.Module, idx: torch.Tensor) -> torch.Tensor:
    """The attention weights of every layer and head on idx (B, T): (layers, B, nh, T, T)."""
    with torch.no_grad(), lm.watched(build) as seen:
        model(idx)
    return torch.stack(seen.weights)


def patterns(idx: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a head may look at, as bool (B, T, T) from each position to those not after it."""
    B, T = idx.shape
    t, s = torch.arange(T)[:, None], torch.arange(T)
    same = (idx[:, :, None] == idx[:, None, :]) & (s < t)
    found = {"previous": s == t - 1, "first": (s == 0) & (t >= s), "itself": s == t}
    return {name: where.expand(B, T, T) for name, where in found.items()} | {"same": same}


def shares(weights: torch.Tensor, idx: torch.Tensor) -> dict[str, torch.Tensor]:
    """The share of attention that goes to each pattern: weights (..., B, nh, T, T) -> (..., nh).

    A mean over the positions from the third on, where previous, first and itself differ. `same`
    is the same character, earlier in the text.
    """
    return {
        name: (weights * where[:, None]).sum(-1)[..., 2:].mean((-3, -1))
        for name, where in patterns(idx).items()
    }


def draw(before: torch.Tensor, after: torch.Tensor, text: str):
    """A map for each head, weights (layers, nh, T, T): a row is a query, a column a key."""
    from p01_autograd.lab.figures import subplots

    layers, heads, T, _ = before.shape
    drawing, axes = subplots(2 * layers, heads, width=2.9 * heads, height=5.8 * layers)
    ticks = [repr(char)[1:-1] for char in text]
    for layer in range(layers):
        for row, (name, maps) in enumerate((("before", before), ("after", after))):
            for head in range(heads):
                ax = axes[2 * layer + row][head]
                ax.imshow(maps[layer, head].numpy(), cmap="Blues", vmin=0, vmax=1)
                ax.set_title(f"layer {layer + 1}, head {head + 1}, {name}", size=10)
                ax.set_xticks(range(T), ticks, size=6)
                ax.set_yticks(range(T), ticks if head == 0 else [], size=6)
                ax.tick_params(length=0)
                ax.grid(False)
        axes[2 * layer][0].set_ylabel("query")
        axes[2 * layer + 1][0].set_ylabel("query")
    for ax in axes[-1]:
        ax.set_xlabel("key")
    return drawing


def main(argv=None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python -m p04_attention.heatmap",
        description="Draw what each head looks at in your text, before and after training.",
    )
    parser.add_argument("text", nargs="?", default=TEXT, help=f"default: {TEXT!r}")
    parser.add_argument("--steps", type=at_least(1), default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=at_least(0), default=1337, help="default: %(default)s")
    flags = parser.parse_args(argv)
    tokenizer, _, _ = lm.corpus()
    try:
        idx = torch.tensor([tokenizer.encode(flags.text)])
        if not 2 <= len(flags.text) <= BLOCK_SIZE:
            raise UsageError(
                f"the text has {len(flags.text)} characters; give 2 to {BLOCK_SIZE} of them"
            )
    except (UsageError, ValueError) as error:
        parser.error(str(error))
    models = {"before": train(0, flags.seed), "after": train(flags.steps, flags.seed)}
    judged = lm.validation(BLOCK_SIZE, WINDOWS)[:, :-1]
    even = build.causal_mask(BLOCK_SIZE) / torch.arange(1, BLOCK_SIZE + 1)[:, None]
    rows = [("looking everywhere alike", shares(even.expand(len(judged), 1, -1, -1), judged))]
    for name, model in models.items():
        found = shares(weights(model, judged), judged)
        for layer in range(len(model.attention)):
            for head in range(N_HEAD):
                row = {what: share[layer, head] for what, share in found.items()}
                rows.append((f"{name}: layer {layer + 1}, head {head + 1}", row))
    print(f"share of attention, on {WINDOWS} windows of {BLOCK_SIZE} characters of unseen text")
    print(f"{'':26}" + "".join(f"{what:>10}" for what in rows[0][1]))
    for name, row in rows:
        print(f"{name:26}" + "".join(f"{share.item():10.2f}" for share in row.values()))
    maps = [weights(model, idx)[:, 0] for model in models.values()]
    path = Path("runs/p04_attention/heatmap.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(*maps, flags.text).savefig(path)
    print(f"figure: {path.as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
