"""What the default run costs against a known recipe, in one run: python -m p05_gpt.measure

The recipe is the one for a CPU in nanoGPT's README: characters, four layers, four heads, 128
channels, 12 windows of 64, 2,000 steps of AdamW with clipping, PyTorch's fused attention. It ends
at 1.8857 nats per character. Its time is taken from some of its steps, without any validation;
ours is the time in the training loop until a validation is below that loss, validations included.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

from p01_autograd.cli import Parser, at_least
from p04_attention.build import CausalSelfAttention

from . import run
from .build import GPT, get_batch, loss
from .train import parse_flags, training_steps

RECIPE_STEPS, RECIPE_LOSS = 2000, 1.8857


class FusedAttention(CausalSelfAttention):
    """The same projections around PyTorch's kernel, as nanoGPT has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self.split_heads(part(x)) for part in (self.query, self.key, self.value))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(x.shape))


def recipe_seconds(n_steps: int, seed: int) -> float:
    """Seconds that the recipe's 2,000 training steps take, from `n_steps` of them."""
    text = run.split_text(run.read_text(None))[0]
    data = run.encode(run.train_tokenizer("char", text, 0), text)
    torch.manual_seed(seed)
    model = GPT(int(data.max()) + 1, 128, 4, 4, 64)
    for block in model.blocks:
        block.attn = FusedAttention(128, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    generator = torch.Generator().manual_seed(seed)
    start = 0.0
    for step in range(-20, n_steps):  # the first twenty warm up
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
    """The metrics of the default run's first validation below the recipe's loss."""
    _, args = parse_flags(["--seed", str(seed), "--device", "cpu"])
    tokenizer, train_ids, val_ids, tokens_per_char, _ = run.load_data(args)
    torch.manual_seed(seed)
    model = GPT(len(tokenizer.vocab), args.n_embd, args.n_head, args.n_layer, args.block_size)
    for row in training_steps(args, model, train_ids, val_ids, tokens_per_char, tokenizer):
        if row.get("val_nats_per_char", RECIPE_LOSS) < RECIPE_LOSS:
            return row
    raise RuntimeError(f"the default run with seed {seed} did not get below {RECIPE_LOSS}")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(prog="python -m p05_gpt.measure", description="Cost against a known recipe.")
    parser.add_argument("--seeds", type=at_least(1), default=3, metavar="N", help="default: 3")
    parser.add_argument("--recipe-steps", type=at_least(1), default=200, metavar="N",
                        help="steps of the recipe that are timed; default: %(default)s")
    args = parser.parse_args(argv)
    lines = []
    for seed in range(1, args.seeds + 1):
        recipe, ours = recipe_seconds(args.recipe_steps, seed), our_row(seed)
        lines.append(f"{seed:4} {recipe:9.1f} s {ours['step']:6} {ours['val_nats_per_char']:10.4f} "
                     f"{ours['seconds']:8.1f} s {ours['seconds'] / recipe:8.3f}")
    print("\nseed   recipe to    ours: below 1.8857 at         ratio\n"
          f"          {RECIPE_LOSS}    step  nats/char       time   of times")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
