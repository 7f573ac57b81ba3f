"""The doctor on drawn curves: each illness by its name, healthy ones by none."""

import json
import math
import random

import pytest

from p06_training import doctor
from p06_training.doctor import diagnose


def curve(n=300, seed=0, first=4.2, last=2.4, bend=30, noise=0.06, rate=4e-3, every=20):
    """The rows of a run as it should be: a bend, noise, warmup and a straight line to zero."""
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


def names(rows):
    return [finding.name for finding in diagnose(rows)]


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
}


@pytest.mark.parametrize("name", ILL)
def test_an_illness_comes_first_and_with_the_step_where_it_began(name):
    make, step = ILL[name]
    findings = diagnose(make())
    assert [finding.name for finding in findings][:1] == [name]
    assert abs(findings[0].step - step) <= 40
    assert any(char.isdigit() for char in findings[0].evidence) and findings[0].advice


def test_no_gradient_is_a_plateau():
    assert names(dead()) == ["plateau from the start"]


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_and_every_beginning_of_it_have_no_finding(noise, seed):
    rows = curve(seed=seed, noise=noise)
    alarms = {n: names(rows[:n]) for n in range(0, len(rows) + 1, 4) if names(rows[:n])}
    assert alarms == {}


@pytest.mark.parametrize("name", ["spike and recovered", "spike and lost", "memorising", "leak"])
def test_the_units_of_the_loss_do_not_matter(name):
    rows = ILL[name][0]()
    for row in rows:
        for key in ("train_loss", "val_loss"):
            if key in row:
                row[key] *= 1 / math.log(2)  # bits
    assert names(rows)[:1] == [name]


def test_a_rate_that_climbs_again_is_a_restart_though_the_loss_shows_nothing():
    rows = add(curve(), "lr", lambda i, rate: 4e-3 * (1 - (i - 150) / 300) if i >= 150 else rate)
    assert [(f.name, abs(f.step - 151) < 3) for f in diagnose(rows)] == [
        ("jump at a restart", True)
    ]


def test_a_high_rate_without_a_warmup_is_named_though_the_loss_shows_nothing():
    rows = add(curve(), "lr", lambda i, rate: 0.05 * (1 - i / 300))
    assert names(rows) == ["no warmup"]
    assert names(add(curve(), "lr", lambda i, rate: 2e-3 * (1 - i / 300))) == []


def test_a_run_without_the_other_columns_is_read_by_its_loss():
    keep = ("step", "train_loss")
    bare = [[{key: row[key] for key in keep} for row in make()] for make in (curve, lost)]
    assert [names(rows) for rows in bare] == [[], ["spike and lost"]]


def test_other_columns_and_the_order_of_rows_do_not_matter():
    rows = [row | {"update_ratio": 1e-3} for row in lost()]
    assert diagnose(rows[::-1]) == diagnose(lost())


@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_a_skipped_step_is_reported(wrong):
    rows = add(curve(), "grad_norm", lambda i, norm: wrong if i == 99 else norm)
    findings = diagnose(rows)
    assert [(finding.name, finding.step) for finding in findings] == [("NaN", 100)]


def write(folder, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("make, status", [(curve, 0), (lost, 1), (not_a_number, 1)])
def test_the_command_says_what_it_finds_and_draws_it(make, status, tmp_path, capsys):
    rows = make()
    write(tmp_path, rows)
    assert doctor.main([str(tmp_path)]) == status
    said = capsys.readouterr().out
    for finding in diagnose(rows):
        assert f"{finding.name}, from step {finding.step}" in said and finding.advice in said
    assert ("healthy" in said) == (status == 0)
    assert (tmp_path / "doctor.png").read_bytes().startswith(b"\x89PNG")


def test_a_last_line_cut_short_is_left_out(tmp_path):
    write(tmp_path, curve())
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 301, "tra')
    assert doctor.main([str(tmp_path)]) == 0


UNREADABLE = [
    None,
    b"",
    b"hello\n",
    b'{"loss": 1}\n',
    b'{"step": "x", "train_loss": 1}\n',
    b"\xff\n",
]
UNREADABLE += [b"[1]\n{}\n", b'{"step": 1, "train_loss": "high"}\n']


@pytest.mark.parametrize("content", UNREADABLE, ids=str)
def test_what_cannot_be_read_ends_with_status_2_and_one_line(content, tmp_path, capsys):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        doctor.main([str(tmp_path)])
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == "" and said.err.count("\n") == 1
