"""measure.py: its counts, its formulas, its commands and their refusals."""

import math
from types import SimpleNamespace

import pytest
import torch

from p05_gpt import build, costs, measure, test_build
from p05_gpt.build import GPT
from p05_gpt.sampling import generate

SIZES = [(50, 16, 4, 2, 8), (11, 24, 3, 3, 5)]  # vocab, n_embd, n_head, n_layer, block_size


@pytest.mark.parametrize("vocab, n_embd, n_head, n_layer, block_size", SIZES, ids=str)
def test_the_formulas_agree_with_the_counts(vocab, n_embd, n_head, n_layer, block_size):
    model = GPT(vocab, n_embd, n_head, n_layer, block_size)
    expected = costs.parameters(vocab, n_embd, n_layer, block_size)
    assert measure.counted_parameters(model) == expected
    for T in (block_size, 3):
        counted = measure.counted_flops(model, torch.zeros(1, T, dtype=torch.int64))
        formula = costs.forward_flops(vocab, n_embd, n_layer, T)
        assert counted == formula | {"total": sum(formula.values())}


def test_a_training_step_is_three_forward_passes():
    vocab, n_embd, n_head, n_layer, T = SIZES[0]
    model, idx = GPT(vocab, n_embd, n_head, n_layer, T), torch.zeros(3, T, dtype=torch.int64)
    counted = measure.counted_flops(model, idx, backward=True)["total"]
    assert counted == costs.training_flops(vocab, n_embd, n_layer, T, 3)


def test_a_matrix_product_costs_two_flops_per_term():
    # V=1, C=1, one block, T=1: 4 + 2 * 4 weights in Linears, 1 in the head, 1 score, 1 mixture
    assert sum(costs.forward_flops(1, 1, 1, 1).values()) == 2 * (4 + 8 + 1 + 2)


def test_saved_bytes_hold_the_logits_and_grow_with_the_batch():
    vocab, n_embd, n_head, n_layer, T = SIZES[0]
    model = GPT(vocab, n_embd, n_head, n_layer, T)
    one, four = (
        measure.saved_bytes(model, *torch.zeros(2, B, T, dtype=torch.int64)) for B in (1, 4)
    )
    # log_softmax keeps its result, the head its input
    assert one["head and loss"] >= 4 * T * (vocab + n_embd)
    # GELU keeps its input, the second Linear its own: 4 C each; the first one reads C
    assert one["mlp"] >= n_layer * 4 * T * (4 + 4) * n_embd
    for part in ("attention", "mlp", "norms and the stream"):
        # masks and the mean of the loss do not grow with the batch
        assert four[part] == pytest.approx(4 * one[part], rel=0.05), part


def test_repetition_is_the_share_of_repeated_ngrams():
    assert measure.repetition(torch.tensor([[1, 2, 3, 4, 5, 6, 7]])) == 0
    # the runs of four in 1 1 1 1 1 1: three times the same, two of them came before
    assert measure.repetition(torch.tensor([[1, 1, 1, 1, 1, 1]])) == pytest.approx(2 / 3)
    assert measure.repetition(torch.tensor([[1, 1, 1, 1], [1, 2, 3, 4]])) == 0


def test_fitted_is_the_least_squares_line():
    assert measure.fitted([0, 1, 3], [1, 3, 7]) == pytest.approx((2, 1))
    assert measure.fitted([0, 1, 2], [0, 3, 0]) == pytest.approx((0, 1))


def test_written_draws_what_generate_draws_and_its_entropy_grows_with_temperature():
    torch.manual_seed(0)
    model = GPT(50, 16, 2, 2, 8)
    start, found = torch.zeros(4, 1, dtype=torch.int64), []
    for temperature in (0.0, 0.5, 1.0, 2.0):
        a, b = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
        new, entropy = measure.written(model, start, temperature, 20, a)
        expected = generate(model, start, 20, temperature=temperature, generator=b)
        assert torch.equal(new, expected[:, 1:])
        found.append(entropy)
    assert found == sorted(found) and found[0] == 0 and found[-1] < math.log(50)


CHECKS = [
    test_build.test_block_adds_attention_then_the_mlp_to_the_stream,
    test_build.test_gpt_starts_by_knowing_nothing,
    test_build.test_gpt_is_embeddings_blocks_norm_and_head_in_this_order,
    test_build.test_every_weight_of_a_fresh_gpt_begins_to_learn,
    test_build.test_gpt_trains_every_parameter,
]


@pytest.mark.parametrize("name", list(measure.other_choices()))
def test_the_other_choices_differ_and_pass_the_checks(name):
    module, init = measure.other_choices()[name]

    def initialised(*sizes):
        model = module.GPT(*sizes)
        if init:
            init(model)
        return model

    choice = SimpleNamespace(Block=module.Block, GPT=initialised)
    for check in CHECKS:
        check(choice)
    torch.manual_seed(0)
    theirs = initialised(*SIZES[0])
    torch.manual_seed(0)
    ours = build.GPT(*SIZES[0])
    measure.init_weights(ours)
    idx = torch.arange(8)[None]
    same = torch.equal(theirs(idx), ours(idx)) and theirs.state_dict().keys() == (
        ours.state_dict().keys()
    )
    assert same == (name == "ours")


def test_init_prints_both_and_their_difference(monkeypatch, capsys):
    def rows(set_weights, seed, *flags):
        loss = 1.5 if set_weights is measure.init_weights else 1.75
        return [{"train_loss": 7.8}, {"val_nats_per_char": loss}]

    monkeypatch.setattr(measure, "rows_of_run", rows)
    assert measure.main(["init", "--seeds", "2", "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "seed 1, init_weights: 1.5000" in said and "1.5000- 1.5000  -0.2500" in said
    assert "after 2 steps" in said and "first loss, PyTorch's own: 7.80" in said


def test_the_default_sizes_are_those_of_the_training_command():
    from p05_gpt.train import parse_flags

    _, args = parse_flags([])
    sizes = args.vocab_size, args.n_embd, args.n_head, args.n_layer, args.block_size
    assert (*sizes, args.batch_size) == (
        measure.VOCAB,
        measure.N_EMBD,
        measure.N_HEAD,
        measure.N_LAYER,
        measure.BLOCK_SIZE,
        measure.BATCH_SIZE,
    )


def test_the_command_prints_its_parts_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "LENGTHS", (4, 8))
    assert measure.main(["count", "memory", "cache"]) == 0
    said = capsys.readouterr().out
    assert "1,323,776" in said and "2,228,224" in said and "AdamW" in said
    assert said.rstrip().endswith("figure: runs/p05_gpt/measure/cache.png")
    assert (tmp_path / "runs/p05_gpt/measure/cache.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("attention", [measure.FirstAttention, measure.FusedAttention])
def test_attention_written_otherwise_computes_the_same(attention):
    torch.manual_seed(0)
    ours, x = build.CausalSelfAttention(16, 2), torch.randn(2, 9, 16)
    other = attention(16, 2)
    other.load_state_dict(ours.state_dict())
    torch.testing.assert_close(other(x), ours(x))


def test_faster_prints_steps_and_losses(monkeypatch, capsys):
    monkeypatch.setattr(measure, "FASTER_STEPS", 1)
    monkeypatch.setattr(measure, "by_turns", lambda calls, n: {name: 0.001 for name in calls})
    monkeypatch.setattr(measure, "short_run", lambda init, seed, *flags: float(len(flags)))
    assert measure.main(["faster", "--seeds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[-3:] == ["1.0", "2.000", "2.000-2.000"] for line in lines)
    assert any(line.startswith("GPT-2") and "as ours" in line for line in lines)


@pytest.mark.parametrize(
    "argv, part",
    [
        (["weight"], "weight"),
        (["--seeds", "0"], "--seeds"),
        (["--tokens", "3"], "--tokens"),
        (["sampling"], "train first"),
        (["sampling", "--run", "nowhere"], "no run folder"),
    ],
    ids=str,
)
def test_bad_arguments_are_reported_in_one_line(argv, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        measure.main(argv)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and part in said
