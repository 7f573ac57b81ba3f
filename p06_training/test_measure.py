"""measure.py: its computations and what its parts print; nothing here is timed."""

import random
import re

import pytest
import torch

from p05_gpt import run
from p06_training import load_checkpoint, measure, train


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Run the parts on a tiny text and model, in a temporary folder."""
    draw = random.Random(0)
    text = "\n".join(" ".join(draw.choices(["to", "be", "or", "not"], k=8)) for _ in range(100))
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    flags = ["--data", str(tmp_path / "text.txt"), "--n-layer=1", "--n-head=1", "--n-embd=8"]
    flags += ["--block-size=8", "--batch-size=4", "--tokenizer=char", "--device=cpu"]
    args = train.parse_flags(flags)[1]
    loaded = run.load_data(args)
    monkeypatch.setattr(measure, "data", lambda: (args, loaded))
    monkeypatch.chdir(tmp_path)


def test_a_ring_all_reduce_sends_every_byte_about_twice():
    n_bytes, latency, bandwidth = 8e6, 1e-4, 1e9
    # 4 workers: 2 * 3 messages of a quarter of the bytes
    expected = 6 * (1e-4 + 2e6 / 1e9)
    assert measure.exchange_seconds(4, n_bytes, latency, bandwidth) == pytest.approx(expected)
    assert measure.exchange_seconds(1, n_bytes, latency, bandwidth) == 0
    many = measure.exchange_seconds(10**6, n_bytes, 0.0, bandwidth)
    assert many == pytest.approx(2 * n_bytes / bandwidth, rel=1e-5), "however many they are"


def test_the_bare_step_is_that_of_the_loop(small, tmp_path):
    constant = {"steps": 6, "warmup_steps": 0, "max_lr": 4e-3, "min_lr": 4e-3}
    bare, _ = measure.new_run(tmp_path / "a", clip=1e9, **constant)
    loop, _ = measure.new_run(tmp_path / "b", clip=1e9, **constant)
    for group in bare.optimizer.param_groups:  # what lr_at gives the loop
        group["lr"] = 4e-3
    assert measure.bare_steps(bare, 6) > 0
    for _ in range(6):
        loop.step()
    for a, b in zip(bare.model.parameters(), loop.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_looped_steps_include_log_and_warnings(small, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(measure.Trainer, "warnings", lambda self: asked.append(1) or [])
    trainer, job = measure.new_run(tmp_path, eval_every=10**6, checkpoint_every=10**6)
    assert measure.looped_steps(trainer, job, 40) > 0
    assert trainer.steps_done == 40 and len(asked) == 2
    assert (tmp_path / "metrics.jsonl").read_text("utf-8").count("\n") == 40


def test_overhead_and_checkpoint_print_their_shares(small, capsys):
    assert measure.main(["overhead", "checkpoint", "--repeats", "1"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"in the loop +\d+\.\d\d ms +[+-]\d+\.\d%", said), said
    assert re.search(r"\d+\.\d\d% of the run's time", said), said
    assert re.search(r"Muon \d+\.\d ms, where torch.optim.Muon takes \d", said), said
    assert "every 250 steps" in said and "at most every 100" in said, "the defaults"


def test_the_measured_checkpoint_has_the_state_of_all_optimizers(small, tmp_path):
    trainer, _ = measure.new_run(tmp_path)
    measure.bare_steps(trainer, 2)
    state = load_checkpoint(trainer.save(tmp_path / "checkpoints"))
    optimizers = state["loop"]["optimizer"]["optimizers"]
    assert len(optimizers) == 2 and all(one["state"] for one in optimizers)


def test_plan_names_the_number_of_workers_where_the_exchange_takes_over(
    small, monkeypatch, capsys, tmp_path
):
    # 1 ms a message and hardly anything for the bytes: 2 (n - 1) ms against 100 ms of work
    monkeypatch.setattr(measure, "measured_exchange", lambda: [(1, 2e-3), (10**9, 1.002e0)])
    monkeypatch.setattr(measure, "step_times", lambda: (0.04, 0.005))
    assert measure.main(["plan"]) == 0
    said = capsys.readouterr().out
    assert "a message costs 1000 us, and 4.00 GB/s go through" in said
    found = re.findall(r"than the work from ([\d,]+) workers on", said)
    # 100 ms: 64 workers take 126; shared out 100 ms at 85; 1 ms: 2 workers take 2
    assert found == ["64", "64", "2"]
    assert (tmp_path / "runs/p06_training/measure/plan.png").read_bytes()[:4] == b"\x89PNG"


def test_scaling_compares_speeds_and_losses(small, monkeypatch, capsys):
    def rows(processes, threads, *flags):
        pace = 0.1 / (processes * threads)
        return [
            {"step": i, "seconds": pace * i, "train_loss": 4.0 - 1e-5 * (processes > 1)}
            for i in range(20)
        ]

    monkeypatch.setattr(measure, "trained", rows)
    assert measure.main(["scaling", "--steps", "20"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line[:9].strip()]
    assert ["1", "1", "320", "1.00", "0.0e+00"] in lines
    assert ["2", "1", "640", "2.00", "1.0e-05"] in lines


def test_recipe_takes_the_first_validation_below(small, monkeypatch, capsys, tmp_path):
    losses = {10: 1.9, 20: 1.8857, 30: 1.8, 40: 1.5, 50: 1.55}
    monkeypatch.setattr(measure, "recipe_seconds", lambda steps, seed: 80.0)
    monkeypatch.setattr(
        measure,
        "trained",
        lambda *_: [
            {"step": s, "seconds": s / 4.0} | ({"val_nats_per_char": losses[s], "val_loss": 4.0})
            for s in losses
        ],
    )
    assert measure.main(["recipe", "--seeds", "1"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"30 +1\.8000 +7\.5 s +0\.094 +1\.5000 +12 s", said), said
    assert (tmp_path / "runs/p06_training/measure/recipe.png").exists()


def test_finetune_compares_with_the_same_steps_from_scratch(small, monkeypatch, capsys, tmp_path):
    sizes = ("--n-layer=1", "--n-head=1", "--n-embd=8", "--block-size=8", "--vocab-size=260")
    monkeypatch.setattr(measure, "BASE", (f"--data={tmp_path / 'text.txt'}", *sizes))
    calls, main = [], train.main
    monkeypatch.setattr(train, "main", lambda argv: calls.append(argv) or main(argv))
    monkeypatch.setattr(train, "sample_text", lambda *_: "")
    monkeypatch.setattr(run, "draw_losses", lambda *_: None)
    monkeypatch.setattr(measure, "python_reference", lambda: "def f(x):\n    return x\n" * 60)
    flags = ["--seeds", "1", "--base-steps", "3", "--tune-steps", "2"]
    assert measure.main(["finetune", *flags]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ +1( +\d\.\d{4}){3}$", said, re.M) and "after 3 steps" in said
    found = re.search(
        r"reference is ([\d,]+) tokens of the first text's and ([\d,]+) of its own", said
    )
    assert found and found[1] != found[2]
    base, tuned, scratch = calls
    assert tuned[tuned.index("--init-from") + 1] == base[1] and "--init-from" not in scratch
    assert all(run[run.index("--steps") + 1] == "2" for run in (tuned, scratch))


def test_python_reference_has_100_000_characters():
    text = measure.python_reference()
    assert len(text) == 100_000 and "assert" in text and text.isprintable() is False


@pytest.mark.parametrize("argv, part", [(["speed"], "speed"), (["--seeds", "0"], "--seeds")])
def test_bad_arguments_are_reported_in_one_line(argv, part, capsys):
    with pytest.raises(SystemExit) as ended:
        measure.main(argv)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and part in said
