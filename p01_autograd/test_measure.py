"""The measurements of project 1."""

import gc

import pytest

from p01_autograd import measure


@pytest.fixture(autouse=True)
def a_small_heap():
    """Every measurement collects garbage first; what other tests have imported is left out."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_the_exponent_of_a_power_law():
    rows = [{"nodes": n, "seconds": 3 * n**1.5} for n in (10, 100, 1000)]
    assert abs(measure.exponent(rows, "seconds") - 1.5) < 1e-9


def test_the_command_prints_a_row_for_each_size(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "WIDTHS", [2, 4])
    monkeypatch.setattr(measure, "CHAINS", [10, 20])
    monkeypatch.setattr(measure, "COMPARED", [2])
    monkeypatch.setattr(measure, "IN_A_ROW", 1)
    assert measure.main(["--repeats", "1"]) == 0
    size, chain, micrograd = capsys.readouterr().out.split("--- ")[1:]
    assert [line.split()[0] for line in size.splitlines()[4:6]] == ["2", "4"]
    assert size.count("nodes **") == 3 and "figure: runs/p01_autograd/measure/size.png" in size
    assert (tmp_path / "runs/p01_autograd/measure/size.png").exists()
    assert [line.split()[0] for line in chain.splitlines()[3:5]] == ["10", "20"]
    assert all(len(line.split()) == 5 for line in chain.splitlines()[3:5])
    assert "micrograd" in micrograd.splitlines()[2]


def test_the_derivative_comes_through_the_whole_chain():
    x, result = measure.chain(20)
    result.backward()
    assert x.grad == 1.0 and len(measure.topological_order(result)) == 23


def test_parts_are_chosen_by_name(monkeypatch, capsys):
    monkeypatch.setattr(measure, "CHAINS", [10])
    assert measure.main(["chain", "--repeats", "1"]) == 0
    assert capsys.readouterr().out.count("--- ") == 1


def test_a_part_that_is_not_there_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        measure.main(["depth"])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and not out and err.count("\n") == 1 and "size, chain" in err
