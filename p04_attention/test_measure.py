"""The measurements of project 4."""

import pytest
import torch

from p04_attention import build, lm, measure


def test_the_three_forms_compute_the_same():
    plain, *others = measure.forms(32, 4, seed=1).values()
    x = torch.randn(2, 150, 32)
    for other in others:
        other.load_state_dict(plain.state_dict())
        assert torch.allclose(plain(x), other(x), atol=1e-5)


def test_the_exponent_of_a_power_law():
    assert measure.slope([1, 10, 100], [3, 300, 30000]) == pytest.approx(2)


def test_where_a_plateau_begins():
    falling = [(0, 4.0), (25, 3.0), (50, 2.1), (75, 2.04), (100, 2.0), (125, 2.01)]
    assert measure.plateau_step(falling) == 50  # 1.9 of the 2.0 that it gains
    stuck = [(25 * n, max(2.0, 4.0 - n)) for n in range(10)]
    assert measure.flat_step(stuck) == 50
    assert measure.flat_step([(25 * n, 4.0 - n) for n in range(4)]) == 75, "never flat: the last"


def test_ratio_and_loss_come_from_pairs_of_one_seed():
    slow = [(0, 4.0), (25, 3.0), (50, 2.0), (75, 2.0), (100, 2.0)]
    quick = [(0, 4.0), (25, 3.0), (50, 3.0), (75, 3.0), (100, 3.0)]
    found = measure.compared([slow], [quick])
    assert found["ratio"] == [0.5] and found["worse"] == [1.0]


def test_scores_without_the_division_saturate():
    generator = torch.Generator().manual_seed(1)
    scaled = measure.saturation_of(build, 256, generator)
    broken = measure.saturation_of(measure.unscaled(), 256, generator)
    assert scaled["entropy"] > 5 * broken["entropy"]
    assert scaled["gradient"] > 5 * broken["gradient"]


def test_the_language_model_repeats_itself_and_counts_pairs():
    settings = dict(n_embd=16, block_size=8, batch_size=4, steps=3, lr=1e-3)
    runs = [lm.train(lambda: build.CausalSelfAttention(16, 2), 5, **settings) for _ in "ab"]
    assert runs[0].train == runs[1].train and len(runs[0].train) == 3
    assert 2.4 < lm.bigram_loss() < 2.6
    assert lm.entropy(torch.tensor([0.0, 0.5, 0.5])).item() == pytest.approx(0.6931, abs=1e-4)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "HEAD_SIZES", (4, 16))
    monkeypatch.setattr(measure, "LENGTHS", (256, 320))
    monkeypatch.setattr(measure, "SHAPES", ((1, 16, 32, 2),))
    assert measure.main(["--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "theory says 1" in out and "memory grows like T" in out and "over fused" in out
    for part in ("scores", "saturation", "cost"):
        assert (tmp_path / f"runs/p04_attention/measure/{part}.png").exists()
    with pytest.raises(SystemExit) as end:
        measure.main(["nothing"])
    assert end.value.code == 2


def test_plateau_prints_a_row_for_each_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "SIZES", (2, 4))
    monkeypatch.setattr(measure, "SETTINGS", dict(n_embd=8, block_size=8, batch_size=2, steps=5,
                                                  lr=1e-3))  # fmt: skip
    monkeypatch.setattr(lm, "VAL_EVERY", 5)
    measure.print_plateau(measure.plateau_runs([1, 2]))
    rows = [line for line in capsys.readouterr().out.splitlines() if line[:5].strip() in lm.INITS]
    assert len(rows) == 4
