"""The checkup: sound models in many styles pass, and each broken one gets its finding.

pytest examines a quick selection; python -m p05_gpt.test_checkup all of SOUND and BROKEN.
"""

import math
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from p01_autograd.lab.cli import UsageError
from p01_autograd.lab.sabotage import sabotaged
from p05_gpt import break_it, build, checkup

V, T = 65, 16


class Model(nn.Module):
    """A small language model whose flags choose its style or break it."""

    def __init__(self, width=32, heads=4, layers=2, std=None, **flags):
        super().__init__()
        self.flags = flags
        self.tokens = nn.Embedding(V, width)
        if flags.get("positions", "learned") == "learned":
            self.positions = nn.Parameter(torch.zeros(T, width) + 0.02 * torch.randn(T, width))
        self.blocks = nn.ModuleList([Block(width, heads, flags) for _ in range(layers)])
        self.norm = norm(width, flags)
        self.head = nn.Linear(width, V, bias=flags.get("bias", False))
        self.drop = nn.Dropout(flags.get("dropout", 0.0))
        for p in self.parameters():
            if std is not None and p.dim() > 1:
                nn.init.normal_(p, std=std)
        if flags.get("tied"):
            self.head.weight = self.tokens.weight
        if flags.get("zero"):
            for block in self.blocks:
                nn.init.zeros_(block.out.weight)
                nn.init.zeros_(block.mlp[-1].weight)

    def forward(self, idx):
        x = self.tokens(idx)
        if hasattr(self, "positions"):
            x = x + self.positions[: idx.shape[1]]
        x = self.drop(x)
        for block in self.blocks:
            x = block(x)
        if self.flags.get("leak"):
            x = x + self.flags["leak"] * x.mean(1, keepdim=True)
        logits = self.head(self.norm(x))
        return {"tuple": (logits, None), "dict": {"logits": logits}}.get(
            self.flags.get("returns"), logits
        )


def norm(width, flags):
    if flags.get("rms"):
        return nn.RMSNorm(width)
    return nn.LayerNorm(width, bias=flags.get("norm_bias", True))


class Block(nn.Module):
    def __init__(self, width, heads, flags):
        super().__init__()
        self.heads, self.flags, bias = heads, flags, flags.get("bias", False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width)
        self.norms = nn.ModuleList([norm(width, flags), norm(width, flags)])
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.ReLU() if flags.get("relu") else nn.GELU(),
            nn.Linear(2 * width, width),
        )
        if flags.get("experts"):
            self.router = nn.Linear(width, flags["experts"])
            self.experts = nn.ModuleList(
                [nn.Sequential(nn.Linear(width, width), nn.SiLU()) for _ in range(flags["experts"])]
            )
        self.drop = nn.Dropout(flags.get("dropout", 0.0))

    def forward(self, x):
        if self.flags.get("post_norm"):
            x = self.norms[0](x + self.attend(x))
            return self.norms[1](x + self.drop(self.mlp(x)))
        x = self.flags.get("residual", 1) * x + self.drop(self.attend(self.norms[0](x)))
        y = self.norms[1](x)
        if self.flags.get("experts"):
            gates = self.router(y).softmax(-1)
            x = x + sum(gates[..., i, None] * expert(y) for i, expert in enumerate(self.experts))
        return self.flags.get("mlp_residual", 1) * x + self.drop(self.mlp(y))

    def attend(self, x):
        B, t, C = x.shape
        hs = C // self.heads
        q, k, v = self.qkv(x).view(B, t, 3, self.heads, hs).permute(2, 0, 3, 1, 4)
        if self.flags.get("positions") == "rotary":
            q, k = rotated(q), rotated(k)
        if self.flags.get("fused"):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).reshape(B, t, C))
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * self.flags.get("scale", hs**-0.5)
        if self.flags.get("positions") == "alibi":
            back = torch.arange(t)[None, :] - torch.arange(t)[:, None]
            scores = scores + back * 0.5 ** (1 + torch.arange(self.heads))[:, None, None]
        future = torch.ones(t, t, dtype=torch.bool).triu(self.flags.get("diagonal", 1))
        scores = scores.masked_fill(future, self.flags.get("masked", -math.inf))
        weights = scores.softmax(self.flags.get("axis", -1))
        weights = F.dropout(weights, self.flags.get("always_dropped", 0.0))
        y = torch.einsum("bhqk,bhkd->bqhd", weights, v)
        return self.out(y.reshape(B, t, C))


def rotated(x):
    """Rotary position embedding: rotates pairs of channels by an angle proportional to position."""
    t, hs = x.shape[-2:]
    angle = torch.arange(t)[:, None] * 100.0 ** (-torch.arange(hs // 2) / (hs // 2))
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.gru = nn.Embedding(V, 32), nn.GRU(32, 32, batch_first=True)
        self.head = nn.Linear(32, V)

    def forward(self, idx):
        return self.head(self.gru(self.tokens(idx))[0])


class Encoder(nn.Module):
    """PyTorch's own layers with a causal mask."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.tokens, self.positions = nn.Embedding(V, 32), nn.Embedding(T, 32)
        self.head = nn.Linear(32, V)

    def forward(self, idx):
        t = idx.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(t)
        return self.head(self.layers(self.tokens(idx) + self.positions.weight[:t], mask))


def names(make, **given):
    return [finding.name for finding in checkup.examine(make, V, T, **given)]


SOUND = {
    "plain": dict(),
    "fused, N(0, 0.02), biased": dict(fused=True, std=0.02, bias=True),
    "rotary, RMSNorm, fused": dict(positions="rotary", rms=True, fused=True),
    "rotary by hand, tied": dict(positions="rotary", tied=True, std=0.02),
    "ALiBi, ReLU": dict(positions="alibi", relu=True),
    "post-norm": dict(post_norm=True),
    "one layer": dict(layers=1),
    "width 16": dict(width=16, heads=2, layers=3),
    "dropout 0.5": dict(dropout=0.5),
    "experts": dict(experts=3),
    "projections that begin at zero": dict(zero=True),
    "LayerNorm without bias, a tuple": dict(norm_bias=False, returns="tuple"),
    "one head, a dict": dict(heads=1, returns="dict"),
}


SOUND = {name: lambda flags=flags: Model(**flags) for name, flags in SOUND.items()}
SOUND |= {"recurrent": Recurrent, "PyTorch's encoder": Encoder}
QUICK = ["rotary, RMSNorm, fused", "projections that begin at zero", "recurrent"]


@pytest.mark.parametrize("make", [SOUND[name] for name in QUICK], ids=QUICK)
def test_nothing_is_found_on_a_sound_model(make):
    assert checkup.examine(make, V, T) == []


def test_batches_of_floats_are_an_error_in_one_line():
    def floats(*args):
        x, y = build.get_batch(*args)
        return x.float(), y

    with pytest.raises(UsageError, match=r"get_batch returned .*not ids"):
        checkup.examine(lambda: build.GPT(V, 32, 4, 2, T), V, T, get_batch=floats)


def test_nothing_is_found_on_the_books_gpt_its_loss_and_its_batches():
    found = checkup.examine(
        lambda: build.GPT(V, 32, 4, 2, T), V, T, loss=build.loss, get_batch=build.get_batch
    )
    assert found == []


class Softmaxed(Model):
    def forward(self, idx):
        return super().forward(idx).softmax(-1)


class Detached(Model):
    def forward(self, idx):
        return self.head(self.norm(self.tokens(idx).detach() + self.blocks[0](self.tokens(idx))))


class Unregistered(Model):
    def __init__(self):
        super().__init__()
        hidden = [nn.Linear(32, 32)]
        self.extra = lambda x: x + hidden[0](x)

    def forward(self, idx):
        return super().forward(idx) + self.extra(self.tokens(idx)).mean(-1, keepdim=True) * 3


class Mixed(Model):
    def forward(self, idx):
        logits = super().forward(idx)
        return logits + logits.mean(0, keepdim=True)


class Blind(Model):
    def __init__(self):
        super().__init__(positions="none")


class Alone(Model):
    """Blocks that see one token each."""

    def forward(self, idx):
        return torch.cat([super(Alone, self).forward(idx[:, i : i + 1]) for i in range(T)], 1)[
            :, : idx.shape[1]
        ]


BROKEN = {
    "mask of -5": ("sees the future", lambda: Model(masked=-5.0)),
    "diagonal 2": ("sees the future", lambda: Model(diagonal=2)),
    "diagonal 0": ("not a number", lambda: Model(diagonal=0)),
    "a mean over time": ("sees the future", lambda: Model(leak=0.01)),
    "a mean over rows": ("batch rows mix", Mixed),
    "no positions": ("blind to order", Blind),
    "no attention residual": ("ignores the token itself", lambda: Model(residual=0)),
    "no MLP residual": ("ignores the token itself", lambda: Model(mlp_residual=0)),
    "x twice": ("stream grows", lambda: Model(residual=2)),
    "axis -2": ("softmax over the wrong axis", lambda: Model(axis=-2, masked=-1e9)),
    "axis 1": ("softmax over the wrong axis", lambda: Model(axis=1, masked=-1e9)),
    "no scale": ("scores are not scaled", lambda: Model(scale=1.0)),
    "scale without root": ("scores are not scaled", lambda: Model(scale=1 / 8)),
    "N(0, 1)": ("first loss is off", lambda: Model(std=1.0)),
    "dropout in evaluation": ("random in evaluation", lambda: Model(always_dropped=0.3)),
    "softmax in forward": ("cannot learn by heart", lambda: Softmaxed(width=16, layers=1)),
    "a block left out": ("parameters without gradient", Detached),
    "a Linear in a list": ("state is incomplete", Unregistered),
}


@pytest.mark.parametrize("name, make", BROKEN.values(), ids=BROKEN)
def test_a_broken_model_breaks_its_law(name, make):
    law = getattr(checkup, name.replace(" ", "_"))
    assert law(checkup.Subject(make, V, T)).name == name


def test_a_model_that_sees_one_token_ignores_the_past():
    class Bigram(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(V, V)
            nn.init.normal_(self.table.weight, std=0.1)

        def forward(self, idx):
            return self.table(idx)

    assert "ignores the past" in names(Bigram)


def batches(shift):
    def get_batch(data, block_size, batch_size, generator=None):
        starts = torch.randint(len(data) - block_size - 2, (batch_size,), generator=generator)
        at = starts[:, None] + torch.arange(block_size)
        return data[at], data[at + shift]

    return get_batch


@pytest.mark.parametrize(
    "shift, said",
    [(0, "certain of the token itself 0.00"), (2, "certain of the next but one 0.00")],
    ids=["0", "2"],
)
def test_targets_other_than_the_next_token_are_found(shift, said):
    subject = checkup.Subject(Model, V, T, get_batch=batches(shift))
    assert said in checkup.targets_are_not_the_next_token(subject).evidence
    subject = checkup.Subject(Model, V, T, get_batch=batches(1))
    assert checkup.targets_are_not_the_next_token(subject) is None


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, targets: F.cross_entropy(logits.reshape(-1, V), targets.T.reshape(-1)),
        lambda logits, targets: F.cross_entropy(logits.reshape(len(targets), V, -1), targets),
    ],
    ids=["targets", "logits"],
)
def test_a_loss_that_pairs_logits_with_other_targets_is_found(loss):
    law = checkup.targets_are_not_the_next_token
    assert law(checkup.Subject(Model, V, T, loss=loss)) is not None


def test_adjacent_windows_can_be_examined():
    """Like those of first_windows_only, which need a text as long as a batch."""
    sabotage = next(s for s in break_it.SABOTAGES if s.name == "first_windows_only")
    subject = checkup.Subject(Model, V, T, get_batch=sabotaged("p05_gpt", sabotage).get_batch)
    assert checkup.targets_are_not_the_next_token(subject) is None


def test_a_summed_loss_is_off():
    def loss(logits, targets):
        return F.cross_entropy(logits.reshape(-1, V), targets.reshape(-1), reduction="sum")

    found = checkup.first_loss_is_off(checkup.Subject(Model, V, T, loss=loss))
    assert found.advice.startswith("loss: cross-entropy of the same logits is 4.")


def test_the_random_state_is_restored_and_findings_are_deterministic():
    before = torch.get_rng_state()
    first = checkup.examine(lambda: Model(leak=0.01), V, T)
    assert torch.equal(before, torch.get_rng_state())
    torch.randn(5)
    assert checkup.examine(lambda: Model(leak=0.01), V, T) == first


def test_the_sabotages_that_a_finding_names_exist():
    from p04_attention.break_it import SABOTAGES as ATTENTION

    known = {"p04_attention": ATTENTION, "p05_gpt": break_it.SABOTAGES}
    for line in checkup.LOOKS_LIKE.values():
        project, _, similar = line.partition(": ")
        assert set(similar.split()) <= {sabotage.name for sabotage in known[project]}, line


# What cannot be examined


class Raises(nn.Module):
    def forward(self, idx):
        raise ValueError("no such thing\nand more")


class Wants(nn.Module):
    def forward(self, idx, mask, cache):
        return idx


ONE = Raises()


class Last(nn.Module):
    def forward(self, idx):
        return torch.zeros(len(idx), V)


@pytest.mark.parametrize(
    "make, said",
    [
        (Raises, "the model, given ids (2, 16) raises ValueError: no such thing"),
        (Wants, "raises TypeError: Wants.forward() missing"),
        (Last, "returned a tensor (2, 65) of float32 for ids (2, 16)"),
        (lambda: "a model", "make() returned a str, not an nn.Module"),
        (lambda: ONE, "make() returns the same model twice"),
        (lambda: build.GPT(V, 32, 4, 2, T // 2), "given ids (2, 16) raises"),
        (lambda: build.GPT(V // 2, 32, 4, 2, T), "raises IndexError"),
        (lambda: Model().to("meta"), "meta"),
    ],
    ids=["raises", "arguments", "shape", "no module", "same", "context", "vocabulary", "device"],
)
def test_a_model_that_cannot_be_examined_is_reported_in_one_line(make, said):
    with pytest.raises(UsageError) as error:
        checkup.examine(make, V, T)
    assert said in str(error.value) and "\n" not in str(error.value)


def run(capsys, *argv):
    try:
        status = checkup.main(list(argv))
    except SystemExit as error:
        status = error.code
    out = capsys.readouterr()
    return status, out.out, out.err


def test_the_command_examines_a_file(tmp_path, capsys):
    file = tmp_path / "my_gpt.py"
    file.write_text("from p05_gpt.build import GPT, loss\n", encoding="utf-8")
    assert run(capsys, str(file), "--block-size", "16")[:2] == (
        0,
        "nothing found: 15 laws hold\n",
    )
    file.write_text(
        "from p05_gpt import build\nfrom p05_gpt.build import GPT, get_batch\n"
        "def loss(logits, targets):\n    return 2 * build.loss(logits, targets)\n",
        encoding="utf-8",
    )
    status, out, _ = run(capsys, str(file), "--block-size", "16")
    assert status == 1 and out.startswith("first loss is off: the first loss is 8.")


@pytest.mark.parametrize(
    "text, said",
    [
        ("import nothing_of_that_name", "raises ModuleNotFoundError"),
        ("x = 1", "has neither GPT("),
        ("def GPT(*sizes):\n    raise NotImplementedError", "make() is not written yet"),
        ("raise SystemExit(5)", "SystemExit"),
    ],
    ids=["import", "names", "blank", "exit"],
)
def test_the_command_ends_with_one_line(tmp_path, capsys, text, said):
    file = tmp_path / "my_gpt.py"
    file.write_text(text, encoding="utf-8")
    status, _, err = run(capsys, str(file))
    assert status == 2 and said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "argv, said",
    [
        (["no/such/file.py"], "there is no file"),
        (["nothing_of_that_name:make", "--vocab", "9", "--block-size", "8"], "ModuleNotFoundError"),
        (["math:make", "--vocab", "9", "--block-size", "8"], "math has no function make"),
        (["math:make"], "needs --vocab N and --block-size N"),
        ([], "say what to examine"),
        ([str(checkup.Path(__file__).parent)], "has no config.json"),
    ],
    ids=["file", "module", "function", "sizes", "nothing", "folder"],
)
def test_an_unusable_target_is_reported_in_one_line(capsys, argv, said):
    status, _, err = run(capsys, *argv)
    assert status == 2 and said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "sabotage, law",
    [
        ("no_scale", checkup.scores_are_not_scaled),
        ("no_mlp_residual", checkup.ignores_the_token_itself),
        ("no_small_init", checkup.first_loss_is_off),
    ],
    ids=["p04", "p05", "init"],
)
def test_the_demo_examines_the_sabotaged_gpt(sabotage, law):
    variants = {name: rest for name, *rest in checkup.variants()}
    for name, breaks in ((sabotage, True), ("healthy", False)):
        gpt, init = variants[name]
        make = checkup.maker(gpt.GPT, (V, 32, 4, 2, T), init)
        assert (law(checkup.Subject(make, V, T)) is not None) is breaks, name


def test_the_demo_has_a_row_for_every_sabotage(monkeypatch):
    kept = ("no_mask", "loss_not_flattened", "always_the_likeliest")
    variants = [v for v in checkup.variants() if v[0] in kept]
    monkeypatch.setattr(checkup, "variants", lambda: variants)
    monkeypatch.setattr(break_it, "trained", lambda *args, **kwargs: (None, [4.2]))
    monkeypatch.setattr(break_it, "alarm", lambda *args: "nothing")
    monkeypatch.setattr(checkup, "not_a_number", checkup.sees_the_future)  # the first law is enough
    rows = {row["sabotage"]: row["an_examination_finds"] for row in checkup.demo()}
    assert list(rows) == list(kept) and rows["no_mask"] == "sees the future"
    assert rows["loss_not_flattened"] == "the error, in one line"
    assert rows["always_the_likeliest"] == "not examined"
    assert set(checkup.NOT_EXAMINED) <= {sabotage.name for sabotage in break_it.SABOTAGES}


if __name__ == "__main__":
    start, clean, named = time.perf_counter(), 0, 0
    for style, make in SOUND.items():
        found = names(make)
        clean += not found
        print(f"{style:40} {', '.join(found) or 'nothing found'}")
    for sabotage, (name, make) in BROKEN.items():
        found = names(make)
        named += name in found
        print(f"{sabotage:40} {', '.join(found)}")
    print(
        f"{clean} of {len(SOUND)} sound models without a finding, {named} of {len(BROKEN)} named, "
    )
    print(f"{(time.perf_counter() - start) / (len(SOUND) + len(BROKEN)):.1f} s a model")
