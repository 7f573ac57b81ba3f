"""The layers, the demo and the engine's promises beyond its behaviour."""

import random
import subprocess
import sys

import pytest

from p01_autograd import Value, demo
from p01_autograd.nn import MLP, Layer, Neuron


def test_a_neuron_is_a_weighted_sum_and_a_bias(build):
    neuron = build.Neuron(2, nonlin=False)
    neuron.w[0].data, neuron.w[1].data, neuron.b.data = 2.0, -3.0, 0.5
    assert neuron([1.0, 4.0]).data == 2.0 - 12.0 + 0.5
    assert build.Neuron(2, nonlin=True).nonlin
    neuron.nonlin = True
    assert neuron([1.0, 4.0]).data == 0.0


def test_zero_grad_clears_every_parameter(build):
    model = build.MLP(2, [3, 1])
    model([1.0, -2.0]).backward()
    assert any(p.grad for p in model.parameters())
    model.zero_grad()
    assert not any(p.grad for p in model.parameters())


def test_parameters_are_counted_once_and_in_order(build):
    model = build.MLP(3, [4, 2])
    parameters = model.parameters()
    assert len(parameters) == len(set(map(id, parameters))) == 4 * 4 + 2 * 5
    assert parameters[0] is model.layers[0].neurons[0].w[0]


@pytest.mark.parametrize("sizes", [[1], [3], [3, 1], [1, 1], [1, 3]], ids=str)
def test_an_mlp_gives_a_value_or_a_list_of_them(sizes):
    out = MLP(2, sizes)([0.5, Value(1.0)])
    if sizes[-1] == 1:
        assert isinstance(out, Value)
    else:
        assert len(out) == sizes[-1] and all(isinstance(value, Value) for value in out)


def test_the_last_layer_is_linear():
    model = MLP(2, [4, 4, 1])
    assert [layer.neurons[0].nonlin for layer in model.layers] == [True, True, False]


def test_a_wrong_number_of_inputs_is_named():
    with pytest.raises(ValueError, match="3 inputs was given 2"):
        Neuron(3)([1.0, 2.0])
    with pytest.raises(ValueError, match="2 inputs was given 3"):
        Layer(2, 2)([1.0, 2.0, 3.0])


def test_two_moons_are_learned():
    random.seed(0)
    model, (points, labels) = MLP(2, [8, 1]), demo.two_moons(30, seed=0)
    losses = demo.train(model, points, labels, steps=40, lr=1.0)
    assert losses[-1] < 0.5 * losses[0]
    assert demo.accuracy(model, *demo.two_moons(100, seed=1)) > 0.8


def test_two_moons_are_two_and_the_same_for_the_same_seed():
    points, labels = demo.two_moons(50, noise=0, seed=3)
    assert demo.two_moons(50, noise=0, seed=3) == (points, labels)
    assert labels.count(1) == labels.count(-1) == 25
    for (x, y), label in zip(points, labels):
        cx, cy = (0, 0) if label == 1 else (1, 0.5)
        assert abs((x - cx) ** 2 + (y - cy) ** 2 - 1) < 1e-9


def test_the_demo_runs_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "MLP", lambda nin, nouts: MLP(nin, [2, 1]))
    assert demo.main(["--steps", "2", "--points", "6"]) == 0
    assert "loss" in capsys.readouterr().out
    assert (tmp_path / "runs/p01_autograd/moons.png").stat().st_size > 10_000


def test_a_graph_is_freed_when_it_is_dropped():
    """No cycles: the memory of a step is back before the next one, without the collector."""
    code = (
        "import gc; gc.disable()\n"
        "from p01_autograd import Value\n"
        "a = Value(1.0)\n"
        "b = a\n"
        "for _ in range(100_000): b = b + a\n"
        "b.backward()\n"
        "assert a.grad == 100_001\n"
        "del a, b\n"
        "assert not any(isinstance(thing, Value) for thing in gc.get_objects())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_not_a_number_is_not_hidden():
    assert Value(float("nan")).relu().data != Value(float("nan")).relu().data
