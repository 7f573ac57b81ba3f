"""What each head attends to: python -m p04_attention.heatmap "First Citizen:"

Trains two attention layers of four heads on the characters of Tiny Shakespeare and measures, on
text that they were not trained on, what each head attends to. Two heads are drawn on your text: the
one that attends most to the previous character, and of the others the one that attends most to
earlier occurrences of the same character. Ten seconds; the trained model is kept in
runs/p04_attention, so that another text takes none.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch

from p01_autograd.lab.cli import Parser, UsageError, at_least, print_anything
from p01_autograd.lab.threads import use_free_cores

from . import build, lm

N_EMBD, N_HEAD, BLOCK_SIZE, BATCH_SIZE, LR = 128, 4, 64, 8, 3e-3
TEXT = "First Citizen:\nSpeak."
WINDOWS = 32  # of validation text, for the table
RUNS = Path("runs/p04_attention")


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


def trained(steps: int, seed: int) -> torch.nn.Module:
    """The model after `steps` steps: the one that is kept, or a new one, which is then kept.

    The file's name says by which code it was trained, so that a changed one trains anew.
    """
    code = b"".join(Path(module.__file__).read_bytes() for module in (build, lm))
    code += Path(__file__).read_bytes()
    name = f"heatmap_{steps}_{seed}_{hashlib.sha256(code).hexdigest()[:12]}.pt"
    path = RUNS / name
    model = train(0, seed)
    try:
        model.load_state_dict(torch.load(path, weights_only=True))
        print(f"trained before: {path.as_posix()}")
    except Exception:  # none is kept, or it cannot be read
        model = train(steps, seed)
        RUNS.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    return model


def weights(model: torch.nn.Module, idx: torch.Tensor) -> torch.Tensor:
    """The attention weights of every layer and head on idx (B, T): (layers, B, nh, T, T)."""
    with torch.no_grad(), lm.watched(build) as seen:
        model(idx)
    return torch.stack(seen.weights)


def patterns(idx: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a head may attend to, as bool (B, T, T) from each position to those not after it."""
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


def choose_heads(found: dict[str, torch.Tensor]) -> list[tuple[int, int, str]]:
    """(layer, head, title) of the two heads to draw, from their shares (layers, nh)."""
    chosen = []
    for what in ("previous", "same"):
        share = found[what].clone()
        for layer, head, _ in chosen:
            share[layer, head] = -1
        layer, head = divmod(int(share.argmax()), share.shape[1])
        title = f"layer {layer + 1}, head {head + 1}: {what} {share[layer, head].item():.2f}"
        chosen.append((layer, head, title))
    return chosen


def draw(maps: torch.Tensor, heads: list[tuple[int, int, str]], text: str):
    """The weights of these heads, maps (layers, nh, T, T): a row is a query, a column a key."""
    from p01_autograd.lab.figures import subplots

    drawing, axes = subplots(1, len(heads), width=5.4 * len(heads), height=5.8)
    ticks, size = [repr(char)[1:-1] for char in text], min(12, 340 / len(text))
    for ax, (layer, head, title) in zip(axes, heads, strict=True):
        ax.imshow(maps[layer, head].numpy(), cmap="Blues", vmin=0, vmax=1)
        ax.set_title(title)
        ax.set_xticks(range(len(text)), ticks, size=size)
        ax.set_yticks(range(len(text)), ticks, size=size)
        ax.tick_params(length=0)
        ax.grid(False)
        ax.set(xlabel="key", ylabel="query")
    return drawing


def main(argv=None) -> int:
    """The command line; returns the exit status."""
    print_anything()
    parser = Parser(
        prog="python -m p04_attention.heatmap",
        description="Measure what each head looks at, and draw two of them on your text.",
    )
    parser.add_argument("text", nargs="?", default=TEXT, help=f"default: {TEXT!r}")
    parser.add_argument("--steps", type=at_least(1), default=1000, help="default: %(default)s")
    parser.add_argument("--seed", type=at_least(0), default=1337, help="default: %(default)s")
    flags = parser.parse_args(argv)
    tokenizer, _, _ = lm.corpus()
    try:
        idx = torch.tensor([tokenizer.encode(flags.text)])
        if not 2 <= len(flags.text) <= BLOCK_SIZE:
            count = "1 character" if len(flags.text) == 1 else f"{len(flags.text)} characters"
            raise UsageError(f"the text has {count}; give 2 to {BLOCK_SIZE} of them")
    except (UsageError, ValueError) as error:
        parser.error(str(error))
    use_free_cores()
    models = {"before": train(0, flags.seed), "after": trained(flags.steps, flags.seed)}
    judged = lm.validation(BLOCK_SIZE, WINDOWS)[:, :-1]
    even = build.causal_mask(BLOCK_SIZE) / torch.arange(1, BLOCK_SIZE + 1)[:, None]
    rows = [("uniform attention", shares(even.expand(len(judged), 1, -1, -1), judged))]
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
    path = RUNS / "heatmap.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(weights(models["after"], idx)[:, 0], choose_heads(found), flags.text).savefig(path)
    print(f"figure: {path.as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
