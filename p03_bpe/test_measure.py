"""The measurements, on little text."""

import pytest

from p03_bpe import BasicTokenizer, RegexTokenizer, measure

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n" * 60


@pytest.fixture(autouse=True)
def little(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "load_corpus", lambda: TEXT)


def test_the_knee_is_where_doubling_stops_paying(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(measure, "SIZES", [256, 264, 272, 288, 296])
    assert measure.main(["knee"]) == 0
    rows = capsys.readouterr().out.splitlines()[4:]
    assert rows[0].split()[:3] == ["256", "1.00", "1.00"]
    seen = [float(row.split()[1]) for row in rows[:5]]
    assert seen == sorted(seen), "a larger vocabulary never compresses what it was trained on less"
    assert (tmp_path / "runs/p03_bpe/measure/knee.png").read_bytes()[:4] == b"\x89PNG"


def test_a_smaller_tokenizer_is_the_one_that_training_passed_through():
    full = measure.trained(TEXT, 300)
    assert measure.smaller(full, 270).encode(TEXT) == measure.trained(TEXT, 270).encode(TEXT)


@pytest.mark.parametrize("cls", [BasicTokenizer, RegexTokenizer], ids=["basic", "regex"])
def test_what_stands_for_minbpe_gives_our_ids(cls):
    tokenizer = measure.trained(TEXT, 290, cls)
    assert measure.as_minbpe(tokenizer, TEXT[:500]) == tokenizer.encode(TEXT[:500])


def test_every_way_to_write_the_code_changes_it():
    code = "def f():\n    return 1\n\n"
    written = [rewrite(code) for rewrite in measure.WHITESPACE.values()]
    assert len(set(written)) == len(written) and written[0] == code


def test_an_unknown_part_ends_with_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        measure.main(["cost"])
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.count("\n") == 1 and "there is no part cost" in err
