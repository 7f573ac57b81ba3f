"""The doctor on synthetic curves: each fault by its name, healthy curves by none; log formats."""

import json
import math
import os
import random
import sys

import pytest

from p06_training import doctor, logs
from p06_training.doctor import diagnose


def curve(n=300, seed=0, first=4.2, last=2.4, bend=30, noise=0.06, rate=4e-3, every=20):
    """The rows of a healthy run: exponential decay with noise, warmup, a linear decay to zero."""
    draw, rows = random.Random(seed), []
    for i in range(n):
        level = last + (first - last) * math.exp(-i / bend)
        rows.append(
            {
                "step": i + 1,
                "seconds": round(0.01 * (i + 1), 4),
                "train_loss": level + draw.gauss(0, noise),
                "lr": rate * min((i + 1) / 15, 1 - i / n),
                "grad_norm": 0.6 * math.exp(draw.gauss(0, 0.1)),
            }
        )
        if (i + 1) % every == 0:
            rows[-1]["val_loss"] = level + 0.1
    return rows


def add(rows, name, change):
    for i, row in enumerate(rows):
        if name in row:
            row[name] = change(i, row[name])
    return rows


def names(rows, vocab=None):
    """The names of the findings that are not notes."""
    return [finding.name for finding in diagnose(rows, vocab) if not finding.note]


def notes(rows):
    return [finding.name for finding in diagnose(rows) if finding.note]


def diverging():
    return add(curve(), "train_loss", lambda i, loss: loss + max(0, i - 150) * 0.02)


def spike():
    rows = add(curve(), "train_loss", lambda i, loss: loss + 4.0 * (i in (150, 151)))
    return add(rows, "grad_norm", lambda i, norm: norm * (4 if i in (150, 151) else 1))


def lost():
    return add(curve(), "train_loss", lambda i, loss: loss + 3.0 * (i >= 150))


def plateau():
    return curve(last=3.3, bend=8)


def dead():
    return add(curve(last=4.2), "grad_norm", lambda i, norm: 0.0)


def too_high():
    return add(curve(last=3.3, rate=0.5), "train_loss", lambda i, loss: loss + 3 * (3 < i < 20))


def too_low():
    return curve(last=3.0, bend=2000, rate=2e-5)


def no_warmup():
    rows = add(curve(rate=0.1), "lr", lambda i, rate: 0.1 * (1 - i / 300))
    return add(rows, "train_loss", lambda i, loss: loss + 2 * (0 < i < 8))


def restart():
    return add(
        curve(), "train_loss", lambda i, loss: loss + (math.exp((150 - i) / 20) if i >= 150 else 0)
    )


def memorising():
    rows = add(curve(), "train_loss", lambda i, loss: loss - i * 0.004)
    return add(rows, "val_loss", lambda i, loss: loss + i * 0.004)


def leak():
    rows = add(curve(), "train_loss", lambda i, loss: loss - i * 0.0068)
    return add(rows, "val_loss", lambda i, loss: loss - i * 0.0068)


def accumulating():
    return add(curve(), "grad_norm", lambda i, norm: 0.6 * (i + 1))


def zero():
    return add(curve(), "train_loss", lambda i, loss: 0.0 if i >= 150 else loss)


def not_a_number():
    return add(curve(), "train_loss", lambda i, loss: math.nan if i >= 150 else loss)


ILL = {
    "diverging": (diverging, 150),
    "spike and recovered": (spike, 151),
    "spike and lost": (lost, 151),
    "plateau from the start": (plateau, 1),
    "learning rate too high": (too_high, 5),
    "learning rate too low": (too_low, 1),
    "no warmup": (no_warmup, 2),
    "jump at a restart": (restart, 151),
    "memorising": (memorising, 80),
    "leak": (leak, 60),
    "gradients accumulating": (accumulating, 2),
    "NaN": (not_a_number, 151),
    "collapsed": (zero, 151),
}


@pytest.mark.parametrize("name", ILL)
def test_a_fault_is_the_first_finding_with_the_step_where_it_began(name):
    make, step = ILL[name]
    findings = diagnose(make())
    assert [finding.name for finding in findings][:1] == [name]
    assert abs(findings[0].step - step) <= 40
    assert any(char.isdigit() for char in findings[0].evidence) and findings[0].advice


def test_no_gradient_is_a_plateau():
    assert names(dead()) == ["plateau from the start"]


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_a_healthy_run_and_its_first_parts_have_no_findings(noise):
    rows = curve(seed=3, noise=noise)
    alarms = {n: names(rows[:n]) for n in range(0, len(rows) + 1, 15) if names(rows[:n])}
    assert alarms == {}


# Curves of other kinds of training: each healthy, and with a jump in the middle


def long_pretraining(n=20_000):
    """One row a step: a power law from ln 50,257, with stretches of harder and easier text."""
    draw = random.Random(5)
    return [
        {
            "step": i,
            "train_loss": 3.0
            + 7.8 / (1 + i / 40) ** 0.55
            + draw.gauss(0, 0.06)
            + 0.08 * math.sin(i / 300),
        }
        for i in range(n)
    ]


def fine_tune(n=100):
    """A trained model that improves little and at once, then noise; a row every ten steps."""
    draw = random.Random(6)
    return [
        {
            "step": 10 * i,
            "train_loss": 1.4 + 0.3 * math.exp(-i / 4) + draw.gauss(0, 0.07),
            "lr": 1e-5,
        }
        for i in range(1, n)
    ]


def batch_of_one(n=3000):
    """Skewed noise with a heavy tail: some windows are much harder, none much easier."""
    draw = random.Random(7)
    return [
        {"step": 100 * i, "train_loss": 1.5 + 7.5 / (1 + i) + 0.35 * draw.expovariate(1) ** 1.3}
        for i in range(n)
    ]


def moving_average(n=2000):
    """A moving average, as progress bars show it: each row is close to the one before."""
    draw, mean, rows = random.Random(8), 10.8, []
    for i in range(n):
        mean += 0.05 * (3.5 + 7.3 / (1 + i / 20) + draw.gauss(0, 0.2) - mean)
        rows.append({"step": i, "train_loss": mean})
    return rows


def staircase(n=600):
    """Three epochs over little text: the loss drops with each and is constant in between."""
    draw = random.Random(9)
    return [
        {"step": 25 * i, "train_loss": (1.9, 1.4, 0.9)[3 * i // n] + draw.gauss(0, 0.1)}
        for i in range(n)
    ]


def from_the_middle(n=1500):
    """A log that starts at step 30,000 and improves slowly."""
    draw = random.Random(10)
    return [
        {"step": 30_000 + 20 * i, "train_loss": 2.06 - 2e-5 * i + draw.gauss(0, 0.05)}
        for i in range(n)
    ]


STYLES = [long_pretraining, fine_tune, batch_of_one, moving_average, staircase, from_the_middle]


def means(rows, k):
    rows = [rows[i : i + k] for i in range(0, len(rows) - k + 1, k)]
    return [
        {"step": part[-1]["step"], "train_loss": sum(r["train_loss"] for r in part) / k}
        for part in rows
    ]


@pytest.mark.parametrize("make", STYLES, ids=lambda make: make.__name__)
def test_healthy_curves_of_any_kind_and_any_part_have_no_findings(make):
    rows = make()
    n = len(rows)
    parts = {"whole": rows, "second half": rows[n // 2 :], "without its first": rows[n // 20 :]}
    parts |= {"means of 10": means(rows, 10), "means of 50": means(rows, 50)}
    assert {name: names(part) for name, part in parts.items() if names(part)} == {}
    lost = [
        row | {"train_loss": 1.5 * row["train_loss"] + 0.5 if i > n // 2 else row["train_loss"]}
        for i, row in enumerate(rows)
    ]
    assert names(lost)[0] in ("spike and lost", "diverging", "jump at a restart")


def test_a_first_loss_far_above_guessing_is_not_a_leak():
    rows = [
        {"step": 50 * i, "train_loss": 1.39 + 16 / (1 + i), "val_loss": 1.40 + 16 / (1 + i)}
        for i in range(300)
    ]
    assert names(rows, vocab=10_000) == []


def test_the_vocabulary_tells_an_untrained_from_a_trained_model():
    rows = curve(first=2.3, last=2.2, bend=8)  # a trained model, or frequencies of ten tokens
    assert names(rows) == names(rows, vocab=50_257) == []
    assert names(rows, vocab=10) == ["plateau from the start"]


def test_rules_about_the_start_are_skipped_without_one():
    ill = [row | {"step": row["step"] + 5000} for row in too_high()]
    assert not {"learning rate too high", "no warmup"} & set(names(ill))
    _, c = doctor.prepared(ill, None)
    assert "the log starts at step 5001" in doctor.skipped_rules(c)


def test_without_learning_rates_the_evidence_does_not_mention_them():
    draw = random.Random(11)
    losses = [9.2, 144, 55, *(draw.uniform(20, 60) for _ in range(48))]
    wild = [{"step": 20 * i, "train_loss": loss} for i, loss in enumerate(losses)]
    (finding,) = diagnose(wild)
    assert finding.name == "learning rate too high" and "rates" not in finding.evidence


FEW = {
    "NaN": [2.1, 2.2, 2.4, 2.3, math.nan, math.nan, math.nan, math.nan],
    "plateau from the start": [10.8259] * 9,
    "diverging": [1.41, 1.43, 1.46, 1.47, 1.50, 1.53, 1.57, 1.60, 1.63],
    "spike and lost": [1.4, 1.38, 1.41, 1.39, 6.2, 6.4, 6.3, 6.4],
}


@pytest.mark.parametrize("name", FEW)
def test_eight_rows_are_enough_for_obvious_faults(name):
    rows = [{"step": 3000 + 50 * i, "train_loss": loss} for i, loss in enumerate(FEW[name])]
    assert names(rows) == [name]


def test_few_rows_without_an_alarm_are_not_called_healthy():
    rows = curve()[:12]
    assert names(rows) == [] and notes(rows) == ["too few rows"]
    assert notes(curve()) == []


def test_a_spike_of_one_row_is_a_note():
    rows = add(curve(), "train_loss", lambda i, loss: loss + 3 * (i == 150))
    assert (names(rows), notes(rows)) == ([], ["spike and recovered"])


@pytest.mark.parametrize("n", [100_000])
def test_many_rows_fit_into_memory(n):
    """A matrix of all pairs of rows would not fit into memory."""
    assert names(long_pretraining(n)) == []


@pytest.mark.parametrize("name", ["spike and recovered", "spike and lost", "memorising", "leak"])
def test_the_units_of_the_loss_do_not_matter(name):
    rows = ILL[name][0]()
    for row in rows:
        for key in ("train_loss", "val_loss"):
            if key in row:
                row[key] *= 1 / math.log(2)  # bits
    assert diagnose(rows)[0].name == name


def test_a_learning_rate_that_rises_again_is_a_note():
    rows = add(curve(), "lr", lambda i, rate: 4e-3 * (1 - (i - 150) / 300) if i >= 150 else rate)
    (finding,) = diagnose(rows)
    assert finding.note and finding.name == "jump at a restart" and abs(finding.step - 151) < 3


def test_a_high_rate_without_warmup_is_a_note_if_the_loss_shows_no_effect():
    rows = add(curve(), "lr", lambda i, rate: 0.05 * (1 - i / 300))
    assert (names(rows), notes(rows)) == ([], ["no warmup"])
    assert diagnose(add(curve(), "lr", lambda i, rate: 2e-3 * (1 - i / 300))) == []


def test_the_loss_alone_is_enough_for_a_diagnosis():
    keep = ("step", "train_loss")
    bare = [[{key: row[key] for key in keep} for row in make()] for make in (curve, lost)]
    assert [names(rows) for rows in bare] == [[], ["spike and lost"]]


def test_other_columns_and_the_order_of_rows_do_not_matter():
    rows = [row | {"update_ratio": 1e-3} for row in lost()]
    assert diagnose(rows[::-1]) == diagnose(lost())


@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_a_nan_or_infinite_norm_with_finite_losses_is_a_note(wrong):
    rows = add(curve(), "grad_norm", lambda i, norm: wrong if i == 99 else norm)
    (finding,) = diagnose(rows)
    assert (finding.name, finding.step, finding.note) == ("NaN", 100, True)


def write(folder, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("make, status", [(curve, 0), (lost, 1), (not_a_number, 1)])
def test_the_command_prints_its_findings_and_draws_a_figure(make, status, tmp_path, capsys):
    rows = make()
    write(tmp_path, rows)
    assert doctor.main([str(tmp_path)]) == status
    said = capsys.readouterr().out
    for finding in diagnose(rows):
        assert f"{finding.name}, from step {finding.step}" in said and finding.advice in said
    assert ("healthy" in said) == (status == 0)
    assert (tmp_path / "doctor.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def no_figure(monkeypatch):
    monkeypatch.setattr(doctor, "draw", lambda *_: None)


def test_a_truncated_last_line_is_ignored(tmp_path, no_figure):
    write(tmp_path, curve())
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 301, "tra')
    assert doctor.main([str(tmp_path)]) == 0


UNREADABLE = [None, b"", b"hello\n", b'{"loss": 1}\n', b'{"step": "x", "train_loss": 1}\n']
UNREADABLE += [b"\xff\n", b"[1]\n{}\n", b'{"step": 1, "train_loss": "high"}\n', b"\x89PNG\0\1"]


@pytest.mark.parametrize("content", UNREADABLE, ids=str)
def test_an_unreadable_log_ends_with_status_2_and_one_line(content, tmp_path, capsys):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        doctor.main([str(tmp_path)])
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == "" and said.err.count("\n") == 1


def test_the_first_line_names_format_columns_and_skipped_rules(tmp_path, capsys, no_figure):
    file = tmp_path / "any name"
    file.write_text("Step,Value\n" + "".join(f"{i},{3 - i / 100}\n" for i in range(60)), "utf-8")
    assert doctor.main([str(file)]) == 0
    first = capsys.readouterr().out.split("\n")[0]
    assert first.startswith("read CSV: 60 rows, steps 0 to 59, one every 1 step; train_loss (loss)")
    assert "no learning rate" in first and "learning rate too low" in first


@pytest.mark.parametrize("make, status", [(curve, 0), (lost, 1)])
def test_the_status_is_the_verdict_even_if_the_pipe_is_closed(
    make, status, tmp_path, monkeypatch, capfd, no_figure
):
    write(tmp_path, make())
    read, closed = os.pipe()
    os.close(read)
    with open(closed, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert doctor.main([str(tmp_path)]) == status
    monkeypatch.undo()
    assert capfd.readouterr().err == ""


# Common log formats, a few rows of each


def table(line, head="", tail=""):
    return head + "".join(line.format(i=i, loss=f"{3 - i / 10:.4f}") for i in range(1, 9)) + tail


FORMATS = {
    "nanoGPT": table(
        "iter {i}: loss {loss}, time 41.27ms, mfu 17.90%\n",
        "learning_rate = 0.0006\nparameters: 10.65M\nstep 0: train loss 4.2003, val loss 4.24\n",
        "step 8: train loss 2.1111, val loss 2.2500\n",
    ),
    "nanoGPT with units": table(
        "iter {i}: loss {loss} BPC, time 41.27 ms\n",
        tail="step 8: train loss 2.1, val loss 2.25 BPC\n",
    ),
    "llm.c": table(
        "s:{i} trl:{loss} lr:0.000600 norm:0.43\n",
        "s:0 tel:11.0\n",
        "s:8 tel:2.25\ns:8 eval:0.29\n",
    ),
    "llm.c on screen": table(
        "step    {i}/8 | loss {loss} (+0.12z)| norm 0.40 (-0.31z)| lr 6.00e-04 | 9 ms | 4.6% MFU\n",
        "| max_steps | -1 |\n",
        "val loss 2.25\n",
    ),
    "build-nanogpt": table("{i} train {loss}\n", "0 val 11.0\n0 hella 0.25\n", "8 val 2.2500\n"),
    "modded-nanogpt": table(
        "step:{i}/8 train_loss:{loss} train_time:{i}00ms step_avg:100ms\n",
        tail="step:8/8 val_loss:2.2500 train_time:800ms\n",
    ),
    "Megatron": table(
        " iteration {i}/ 8 | consumed samples: 256 | elapsed time per iteration (ms): 123.4 | "
        "learning rate: 6.0E-04 | lm loss: {loss}E+00 | loss scale: 1.0 | grad norm: 1.23 |\n",
        tail=" validation loss at iteration 8 | lm loss value: 2.25E+00\n",
    ),
    "OpenNMT": table(
        "[2018-03-01 12:00:00,123 INFO] Step {i}/100000; acc: 5.5; ppl: 80.1; xent: {loss}; "
        "lr: 0.0006; 123/456 tok/s; 7 sec\n"
    ),
    "mlx": table(
        "Iter {i}: Train loss {loss}, Learning Rate 6.0e-04, It/sec 0.5\n",
        tail="Iter 8: Val loss 2.250, Val took 30.1s\n",
    ),
    "litgpt": table(
        "Epoch 1 | iter {i} step {i} | loss train: {loss}, val: n/a | iter time: 300 ms\n"
    ),
    "Hugging Face": json.dumps(
        {
            "best_metric": 2.25,
            "log_history": [
                {"epoch": 0.1, "learning_rate": 6e-4, "loss": 3 - i / 10, "step": i}
                for i in range(1, 9)
            ]
            + [{"eval_loss": 2.25, "step": 8}, {"train_loss": 2.9, "step": 8}],
        }
    ),
    "Hugging Face on screen": table(
        "{{'loss': {loss}, 'grad_norm': nan, 'learning_rate': 6e-04}}\n"
    ),
    "fairseq": table(
        '2020 | INFO | train_inner | {{"loss": "{loss}", "num_updates": "{i}", "lr": "6e-04"}}\n'
    ),
    "jsonl": table(
        '{{"_step": {i}, "train/loss": {loss}, "train/lr": 6e-4}}\n',
        tail='{"_step": 8, "val/loss": 2.25}',
    ),
    "Lightning": table(
        "0,{i},{loss},,\n",
        "epoch,step,train_loss_step,train_loss_epoch,val_loss\n",
        "0,8,,2.9,2.25\n",
    ),
    "wandb": table(
        '"{i}","{loss}","{loss}","{loss}"\n',
        '"Step","a-run-7 - train/loss","a-run-7 - train/loss__MIN","a-run-7 - train/loss__MAX"\n',
    ),
    "TensorBoard": table("17000000{i}.5,{i},{loss}\n", "Wall time,Step,Value\n"),
    "TensorBoard's JSON": json.dumps([[1.7e9 + i, i, 3 - i / 10] for i in range(1, 9)]),
    "a notebook's table": table("{i}\t{loss}\t2.25\n", "Step\tTraining Loss\tValidation Loss\n"),
    "semicolons": table("{i};{loss};2.25\n", "# made by hand\nIteration;Train Loss;Val Loss\n"),
    "tags": table("{i},train/loss,{loss}\n{i},lr,6e-4\n", "step,tag,value\n", "8,val/loss,2.25\n"),
    "columns": json.dumps({"step": list(range(1, 9)), "loss": [3 - i / 10 for i in range(1, 9)]}),
    "bars": table("| {i} | {loss} |\n", "| step | loss |\n|---|---|\n"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_read(name):
    log = logs.parse(FORMATS[name])
    assert [row["step"] for row in log.rows if row["step"] > 0] == list(range(1, 9))
    losses = [row["train_loss"] for row in log.rows if row["step"] > 0]
    assert losses == pytest.approx([3 - i / 10 for i in range(1, 9)])
    val = [row["val_loss"] for row in log.rows if "val_loss" in row]
    assert not val or val[-1] == 2.25
    assert bool(val) == ("2.25" in FORMATS[name])
    if "lr" in log.rows[-1]:
        assert log.rows[-1]["lr"] == 6e-4


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_encoding_does_not_matter(encoding, tmp_path):
    (tmp_path / "log").write_bytes(FORMATS["nanoGPT"].replace("\n", "\r\n").encode(encoding))
    assert len(logs.read_log(tmp_path / "log").rows) == 8


def test_lines_that_two_processes_write_count_once():
    twice = "".join(2 * line for line in FORMATS["nanoGPT"].splitlines(keepends=True))
    assert logs.parse(twice).rows == logs.parse(FORMATS["nanoGPT"]).rows


def test_rows_after_a_resume_replace_earlier_ones():
    log = logs.parse(table("iter {i}0: loss {loss}\n") + "iter 50: loss 2.4\niter 60: loss 2.3\n")
    assert [row["step"] for row in log.rows] == [10, 20, 30, 40, 50, 60]
    assert log.rows[-1]["train_loss"] == 2.3 and "steps go back 1 time" in log.remarks[0]


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "-nan(ind)", "1.#QNAN", "NAN"])
def test_every_spelling_of_nan(text):
    log = logs.parse(table("step {i} loss {loss}\n", tail=f"step 9 loss {text}\n"))
    assert math.isnan(log.rows[-1]["train_loss"]) and log.rows[-1]["step"] == 9


@pytest.mark.parametrize("text", ["inf", "Infinity", "INF", "1.#INF"])
def test_every_spelling_of_infinity(text):
    log = logs.parse(table("step {i} loss {loss}\n", tail=f"step 9 loss {text}\n"))
    assert log.rows[-1]["train_loss"] == math.inf
