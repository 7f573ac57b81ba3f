"""What can be checked of the chapter's homework.

    pytest p01_autograd --build my/p01_autograd.py --homework 1

A check is skipped as long as the file does not have what the homework asks for.
"""

import math
import random

import pytest

from p01_autograd import break_it
from p01_autograd.demo import train, two_moons
from p01_autograd.lab.homework import variant, written
from p01_autograd.lab.steps import shipped_text

FUNCTIONS = {  # name: call, value, derivative
    "sigmoid": (lambda x: x.sigmoid(), lambda x: 1 / (1 + math.exp(-x)), None),
    "sin": (lambda x: x.sin(), math.sin, math.cos),
    "__abs__": (abs, abs, lambda x: math.copysign(1.0, x)),
}


@pytest.mark.homework(1)
@pytest.mark.parametrize("x", [-2.5, -0.3, 0.7, 3.0])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_new_function_has_its_value_and_its_derivative(build, name, x):
    written(build, f"Value.{name}")
    call, value, derivative = FUNCTIONS[name]
    expected = value(x)
    slope = derivative(x) if derivative else expected * (1 - expected)
    leaf = build.Value(x)
    result = call(leaf)
    assert isinstance(result, build.Value), f"{name} gave a {type(result).__name__}, no Value"
    assert math.isclose(result.data, expected, abs_tol=1e-12), (
        f"{name} of {x} should be {expected:.6f}, got {result.data:.6f}"
    )
    result.backward()
    assert math.isclose(leaf.grad, slope, abs_tol=1e-9), (
        f"the derivative of {name} at {x} should be {slope:.6f}, got {leaf.grad:.6f}"
    )


@pytest.mark.homework(1)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_new_function_works_inside_an_expression(build, name):
    written(build, f"Value.{name}")
    call, value, _ = FUNCTIONS[name]

    def slope(x, h=1e-5):
        above, below = (value(2 * at) * at for at in (x + h, x - h))
        return (above - below) / (2 * h)

    for x in (-0.8, 0.6):
        leaf = build.Value(x)
        (call(2 * leaf) * leaf).backward()
        assert math.isclose(leaf.grad, slope(x), abs_tol=1e-6), (
            f"the derivative of {name}(2 * x) * x at {x} should be {slope(x):.6f}, got "
            f"{leaf.grad:.6f}: the upstream gradient has to be multiplied in"
        )


def last_loss(build):
    """Of a short run on two moons, as in break_it."""
    random.seed(1337)
    model = break_it.layers_on(build).MLP(2, [8, 1])
    return train(model, *two_moons(30, seed=1337), steps=40, lr=1.0)[-1]


@pytest.mark.homework(3)
def test_the_seventh_sabotage_shows_in_its_check_and_in_no_loss_curve(build):
    pair, check = written(build, "seventh", "check_seventh")
    broken = variant("p01_autograd", "seventh", pair)
    source = shipped_text("p01_autograd")
    for known in break_it.SABOTAGES:
        same = known.module == "build" and source.replace(known.old, known.new)
        assert source.replace(*pair) != same, f"that is {known.name}, one of the six"
    try:
        check(break_it.shipped_build)
    except AssertionError as error:
        pytest.fail(f"check_seventh refuses the healthy engine: {error}", pytrace=False)
    try:
        check(broken)
    except AssertionError:
        pass
    else:
        pytest.fail("check_seventh accepts the broken engine", pytrace=False)
    healthy, found = last_loss(break_it.shipped_build), last_loss(broken)
    assert abs(found - healthy) < 0.05, (
        f"the loss curve shows it: it ends at {found:.3f}, the healthy one at {healthy:.3f}"
    )


def derivative(build, function, x, order):
    """The derivative of that order at x: the gradient's gradient's ... gradient."""
    leaf = build.Value(x)
    result = function(leaf)
    for _ in range(order):
        leaf.grad = build.Value(0.0)
        result.backward()
        result = leaf.grad
    return result.data


@pytest.mark.homework(4)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x**3", [12.0, 12.0, 6.0]),
        ("x*x*x", [12.0, 12.0, 6.0]),
        ("1/x", [-0.25, 0.25, -0.375]),
        ("x.log()", [0.5, -0.25, 0.25]),
        ("(2*x).exp()", [2 * math.exp(4), 4 * math.exp(4), 8 * math.exp(4)]),
        ("(x*x).relu()", [4.0, 2.0, 0.0]),
        ("(0*x + x).tanh()", None),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_the_gradient_can_be_differentiated_again(build, text, expected):
    leaf = build.Value(2.0)
    (leaf * leaf).backward()
    if not isinstance(leaf.grad, build.Value):
        pytest.skip("grad is a number still, not a Value")
    if expected is None:
        y = math.tanh(2.0)
        expected = [1 - y * y, -2 * y * (1 - y * y), (6 * y * y - 2) * (1 - y * y)]
    names = ["first", "second", "third"]
    for order, (name, value) in enumerate(zip(names, expected), 1):
        got = derivative(build, lambda x: eval(text, {"x": x}), 2.0, order)
        assert math.isclose(got, value, rel_tol=1e-9, abs_tol=1e-12), (
            f"the {name} derivative of {text} at 2 should be {value:.6f}, got {got:.6f}"
            + ("\nAre the local derivatives Values as well?" if order > 1 and got == 0 else "")
        )
