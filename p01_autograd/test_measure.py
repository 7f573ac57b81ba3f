"""The measurements of project 1."""

from p01_autograd import measure


def test_the_exponent_of_a_power_law():
    rows = [{"nodes": n, "seconds": 3 * n**1.5} for n in (10, 100, 1000)]
    assert abs(measure.exponent(rows, "seconds") - 1.5) < 1e-9


def test_the_command_prints_a_row_for_each_width(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "WIDTHS", [2, 4])
    assert measure.main(["--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "nodes **" in out and "micrograd" in out
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["2", "4"]
    assert (tmp_path / "runs/p01_autograd/measure.png").exists()
