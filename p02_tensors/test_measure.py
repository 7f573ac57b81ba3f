"""What measure.py counts, and what the import costs."""

import subprocess
import sys

import numpy as np
import pytest

from p02_tensors import measure


@pytest.mark.parametrize("n", [2, 5])
def test_the_three_ways_are_the_same_product(n):
    a, b = np.random.default_rng(0).standard_normal((2, n, n))
    numbers, *tensors = (make(a, b) for make in measure.WAYS.values())
    for result in tensors:
        assert result.item() == pytest.approx(numbers.data) == pytest.approx((a @ b).sum())


@pytest.mark.parametrize("n", [2, 5])
def test_nodes_are_counted(n):
    a, b = np.ones((2, n, n))
    nodes = [measure.count_nodes(make(a, b)) for make in measure.WAYS.values()]
    # 2 n^2 numbers, n^3 products, n^3 - 1 additions; sum is two nodes, the second a reshape
    assert nodes[0] == 2 * n**2 + n**3 + n**3 - 1
    assert nodes[1] == 11 and nodes[2] == 5


def test_memory_is_that_of_the_largest_buffers():
    a, b = np.ones((2, 32, 32))
    cube, square = 32**3 * 8, 32**2 * 8
    assert cube < measure.peak_bytes(measure.from_broadcasting, a, b) < 6 * cube
    assert square < measure.peak_bytes(measure.from_matmul, a, b) < 12 * square


def test_the_command_prints_a_row_for_each_size_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "SIZES", (2, 4))
    assert measure.main(["matmul", "--repeats", "1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows if row[0:1] in (["2"], ["4"])] == [
        [size, name] for size in "24" for name in measure.WAYS
    ]
    assert rows[-1] == ["figure:", "runs/p02_tensors/measure/matmul.png"]
    assert (tmp_path / rows[-1][1]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("argv", [["what"], ["--repeats", "0"]], ids=" ".join)
def test_a_mistake_ends_with_one_line(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        measure.main(argv)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1


def test_importing_the_library_imports_numpy_and_nothing_heavy():
    code = "import sys, p02_tensors; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "matplotlib", "pytest", "tqdm", "tiktoken", "regex"}


def test_the_import_is_timed(capsys):
    assert measure.main(["import", "--repeats", "1"]) == 0
    (line,) = [row for row in capsys.readouterr().out.splitlines() if "p02_tensors" in row]
    assert "without torch" in line and 0 < float(line.split()[2]) < 2000
