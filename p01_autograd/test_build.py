"""Is what I typed right? `pytest p01_autograd` asks that of the engine, in the book's order."""

import math
import numbers
import operator
import random

import pytest


def close(got, expected, tolerance=1e-9):
    return abs(got - expected) <= tolerance * max(1.0, abs(expected))


def named(got, mistakes):
    """The likely reason: the mistake among {reason: numbers} that gives exactly what we got."""
    for reason, wrong in mistakes.items():
        if any(close(got, number) for number in (wrong if isinstance(wrong, tuple) else (wrong,))):
            return f"\nThe usual reason: {reason}."
    return ""


def must_equal(what, got, expected, mistakes=None):
    assert isinstance(got, numbers.Real), (
        f"{what} should be the number {expected}, but is a {type(got).__name__}: {got}"
    )
    assert close(got, expected), f"{what} should be {expected}, but is {got}" + named(
        got, mistakes or {}
    )


def value_of(build, result, what):
    assert isinstance(result, build.Value), (
        f"{what} should be a Value, got a {type(result).__name__}: {result}"
    )
    return result.data


# 1. A number and its gradient


@pytest.mark.step(1)
@pytest.mark.checks("Value")
def test_value_holds_its_number_and_a_gradient_of_zero(build):
    a = build.Value(2.5)
    must_equal("Value(2.5).data", a.data, 2.5)
    must_equal("the grad of a new Value", a.grad, 0.0)


# Powers and minus, of which - and / are made


@pytest.mark.step(4)
@pytest.mark.checks("Value.__pow__")
@pytest.mark.parametrize(
    "base, n",
    [(3.0, 2), (2.0, 3), (2.0, -1), (4.0, 0.5), (-2.0, 3), (-2.0, -2), (1.7, 0), (0.0, 2)],
    ids=str,
)
def test_power_with_a_number_as_the_exponent(build, base, n):
    got = value_of(build, build.Value(base) ** n, f"Value({base}) ** {n}")
    must_equal(f"Value({base}) ** {n}", got, base**n, {"base times exponent": base * n})


@pytest.mark.step(4)
@pytest.mark.checks("Value.__neg__")
def test_minus_in_front_of_a_value(build):
    must_equal("-Value(3.0)", value_of(build, -build.Value(3.0), "-Value(3.0)"), -3.0)
    must_equal("-Value(-0.5)", (-build.Value(-0.5)).data, 0.5)


# The operators, forward: + and * in step 2, the others in step 4

OPERATORS = {
    "+": ("add", operator.add, 4.0, 3.0),
    "*": ("mul", operator.mul, 4.0, 3.0),
    "-": ("sub", operator.sub, 4.0, 3.0),
    "/": ("truediv", operator.truediv, 5.0, 2.0),
}


def operators(reflected=""):
    """A case for each operator, in the step that writes it, about `__add__` or `__radd__`."""
    cases = []
    for symbol, (name, function, a, b) in OPERATORS.items():
        step = pytest.mark.step(2 if symbol in "+*" else 4)
        checks = pytest.mark.checks(f"Value.__{reflected}{name}__")
        cases.append(pytest.param(symbol, function, a, b, id=symbol, marks=[step, checks]))
    return pytest.mark.parametrize("symbol, function, a, b", cases)


@operators()
def test_an_operator_on_two_values(build, symbol, function, a, b):
    got = value_of(build, function(build.Value(a), build.Value(b)), f"Value({a}) {symbol} ...")
    must_equal(f"Value({a}) {symbol} Value({b})", got, function(a, b))


@operators()
def test_an_operator_with_a_number_on_the_right(build, symbol, function, a, b):
    got = value_of(build, function(build.Value(a), b), f"Value({a}) {symbol} {b}")
    must_equal(f"Value({a}) {symbol} {b}", got, function(a, b))
    must_equal(f"Value({a}) {symbol} 2", function(build.Value(a), 2).data, function(a, 2))


@operators(reflected="r")
def test_an_operator_with_a_number_on_the_left(build, symbol, function, a, b):
    got = value_of(build, function(a, build.Value(b)), f"{a} {symbol} Value({b})")
    must_equal(
        f"{a} {symbol} Value({b})",
        got,
        function(a, b),
        {"the operands are the wrong way round in the reflected operator": function(b, a)},
    )


@operators()
def test_an_operator_leaves_its_operands_alone(build, symbol, function, a, b):
    left, right = build.Value(a), build.Value(b)
    grads = left.grad, right.grad
    out = function(left, right)
    assert out is not left and out is not right, f"{symbol} gave back one of its operands"
    assert (left.data, right.data) == (a, b), f"{symbol} changed the data of its operands"
    assert (left.grad, right.grad) == grads, f"{symbol} changed the grad of its operands"
    twice = function(left, left)
    must_equal(f"x {symbol} x with x = Value({a})", twice.data, function(a, a))


FUNCTIONS = {
    "exp": (math.exp, [0.0, 1.0, -2.0, 3.5]),
    "log": (math.log, [1.0, math.e, 0.1, 40.0]),
    "tanh": (math.tanh, [0.0, 0.5, -1.5, 4.0, 400.0, -1000.0]),
    "relu": (lambda x: max(x, 0.0), [2.0, 0.3, -1.0, -0.2, 0.0]),
}


FUNCTION_CASES = [
    pytest.param(
        *(name, x),
        id=f"{name}({x:.3g})",
        marks=[pytest.mark.checks(f"Value.{name}"), pytest.mark.step(5)],
    )
    for name, (_, places) in FUNCTIONS.items()
    for x in places
]


@pytest.mark.parametrize("name, x", FUNCTION_CASES)
def test_a_function_of_a_value(build, name, x):
    a = build.Value(x)
    grad = a.grad
    got = value_of(build, getattr(a, name)(), f"Value({x}).{name}()")
    mistakes = {
        "log to the base 10": math.log10(x) if x > 0 else math.nan,
        "log to the base 2": math.log2(x) if x > 0 else math.nan,
        "the sign is wrong": -FUNCTIONS[name][0](x),
        "this is a leaky relu": 0.01 * x,
        "the absolute value instead of the positive part": abs(x),
    }
    must_equal(f"Value({x:.6g}).{name}()", got, FUNCTIONS[name][0](x), mistakes)
    assert (a.data, a.grad) == (x, grad), f"{name} changed the Value that it was called on"


@pytest.mark.step(5)
@pytest.mark.checks("Value.__rpow__")
@pytest.mark.parametrize("base, n", [(2, 3.0), (10.0, -1.0), (0.5, 2.5)], ids=str)
def test_power_with_a_value_as_the_exponent_of_a_number(build, base, n):
    got = value_of(build, base ** build.Value(n), f"{base} ** Value({n})")
    must_equal(
        f"{base} ** Value({n})", got, base**n, {"base and exponent are swapped": float(n) ** base}
    )


# topological_order


def diamond(build):
    """a feeds b and c, which meet in d; a path of three edges and one of two."""
    a = build.Value(3.0)
    b = a * 2.0
    c = b + a
    d = c * b
    return a, b, c, d


def positions(order):
    return {id(node): i for i, node in enumerate(order)}


@pytest.mark.step(3)
@pytest.mark.checks("topological_order")
def test_topological_order_of_a_single_value(build):
    a = build.Value(1.0)
    order = list(build.topological_order(a))
    assert len(order) == 1 and order[0] is a, (
        f"of a Value that is no operation's result it should be [that Value], got {order}"
    )


@pytest.mark.step(3)
@pytest.mark.checks("topological_order")
def test_topological_order_puts_every_input_before_its_result(build):
    values = a, b, c, d = diamond(build)
    place = positions(build.topological_order(d))
    for name, value in zip("abcd", values, strict=True):
        assert id(value) in place, f"b = a * 2; c = b + a; d = c * b: {name} is missing"
    for first, second, text in ((a, b, "a, b"), (b, c, "b, c"), (a, c, "a, c"), (c, d, "c, d")):
        assert place[id(first)] < place[id(second)], (
            f"b = a * 2; c = b + a; d = c * b: the order of {text} is wrong; "
            "an input has to come before what is computed from it"
        )


@pytest.mark.step(3)
@pytest.mark.checks("topological_order")
def test_topological_order_has_the_root_last(build):
    *_, d = diamond(build)
    order = list(build.topological_order(d))
    assert order[-1] is d, (
        "the root has to be the last" + (", it is the first" * (order[0] is d)) + f": {order}"
    )


@pytest.mark.step(3)
@pytest.mark.checks("topological_order")
def test_topological_order_has_every_node_once(build):
    *_, d = diamond(build)
    order = list(build.topological_order(d))
    assert len(positions(order)) == len(order), (
        f"{len(order)} entries for {len(positions(order))} nodes: a node that is used twice has to "
        "be there once. Are the nodes seen so far remembered?"
    )
    a = build.Value(2.0)
    order = list(build.topological_order(a + a))
    assert len(order) == 2, f"a + a is computed from a alone: 2 nodes in all, got {len(order)}"


@pytest.mark.step(3)
@pytest.mark.checks("topological_order")
def test_topological_order_tells_equal_numbers_apart(build):
    a, b = build.Value(1.0), build.Value(1.0)
    place = positions(build.topological_order(a + b))
    assert id(a) in place and id(b) in place, (
        "of two Values that hold the same number one is missing: nodes are compared by what they "
        "are, not by what they hold"
    )


@pytest.mark.step(3)
@pytest.mark.checks("topological_order")
def test_topological_order_leaves_out_what_the_root_does_not_depend_on(build):
    a, b, c, _ = diamond(build)
    place = positions(build.topological_order(b))
    assert id(a) in place and id(c) not in place, (
        "c = b + a is computed from b, not the other way round"
    )


@pytest.mark.step(3)
@pytest.mark.checks("topological_order")
def test_topological_order_of_random_graphs(build):
    for seed in range(20):
        draw, nodes, edges = random.Random(seed), [build.Value(float(i)) for i in range(3)], []
        for _ in range(30):
            left, right = draw.choice(nodes), draw.choice(nodes)
            nodes.append(left + right)
            edges += [(left, nodes[-1]), (right, nodes[-1])]
        place = positions(build.topological_order(nodes[-1]))
        for parent, child in edges:
            if id(child) in place:
                assert place.get(id(parent), len(place)) < place[id(child)], (
                    "in a random graph an input comes after what is computed from it"
                )


@pytest.mark.step(3)
@pytest.mark.checks("topological_order")
def test_topological_order_does_not_recurse(build):
    a, zero = build.Value(1.0), build.Value(0.0)
    for _ in range(50_000):
        a = a + zero
    order = list(build.topological_order(a))
    assert order[-1] is a and len(order) >= 50_001, f"a chain of 50,001 gave {len(order)} nodes"


# backward

WAIT = "a node passed its gradient on before it was complete. Walk topological_order backward"
FORWARD = "the walk begins at the inputs. It has to begin at the result"
OTHERS_GRAD = "this is the other factor's grad, not its data"
UNREACHED = "no gradient reaches this operand"
ONE_PATH = "the second path replaced the first. Add the gradient to what is there already"


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
def test_backward_starts_from_one(build):
    a = build.Value(5.0)
    a.backward()
    must_equal("the gradient of a value with respect to itself", a.grad, 1.0)


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
def test_backward_of_a_sum(build):
    a, b = build.Value(2.0), build.Value(-3.0)
    c = a + b
    c.backward()
    must_equal("c = a + b: the gradient of c with respect to c", c.grad, 1.0)
    for name, value in (("a", a), ("b", b)):
        must_equal(
            f"c = a + b: the gradient of c with respect to {name}",
            value.grad,
            1.0,
            {FORWARD: 0.0, "local derivative and upstream gradient are added, not multiplied": 2.0},
        )


@pytest.mark.step(3)
@pytest.mark.checks("Value.__mul__")
def test_multiplication_has_the_other_factor_as_its_derivative(build):
    for x, y in ((2.0, 5.0), (-0.7, 1.3), (0.0, 4.0)):
        a, b = build.Value(x), build.Value(y)
        (a * b).backward()
        for name, value, other, own in (("a", a, y, x), ("b", b, x, y)):
            must_equal(
                f"a * b at a = {x}, b = {y}: the gradient with respect to {name}",
                value.grad,
                other,
                {
                    "the factor's own value instead of the other's": own,
                    OTHERS_GRAD: 0.0,
                    "this is the product, not its derivative": x * y,
                },
            )


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
def test_backward_multiplies_along_a_path(build):
    a = build.Value(2.0)
    b = a * 3.0
    c = b * 4.0
    d = c * 5.0
    d.backward()
    must_equal("d = a * 3 * 4 * 5: the gradient of d with respect to d", d.grad, 1.0)
    must_equal("d = a * 3 * 4 * 5: the gradient of d with respect to a * 3 * 4", c.grad, 5.0)
    must_equal(
        "d = a * 3 * 4 * 5: the gradient of d with respect to a * 3",
        b.grad,
        20.0,
        {"the upstream gradient is not multiplied in": 4.0, FORWARD: 0.0},
    )
    must_equal(
        "d = a * 3 * 4 * 5: the gradient of d with respect to a",
        a.grad,
        60.0,
        {
            "the local derivatives are added along the path, not multiplied": 12.0,
            "the upstream gradient is not multiplied in": 3.0,
        },
    )


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
@pytest.mark.parametrize(
    "text, make, expected, one_path",
    [
        pytest.param(*case, id=case[0])
        for case in [
            ("a + a", lambda a: a + a, 2.0, (1.0,)),
            ("a * a", lambda a: a * a, 6.0, (3.0,)),
            ("a * a * a", lambda a: a * a * a, 27.0, (9.0,)),
            ("a * 2 + a", lambda a: a * 2 + a, 3.0, (2.0, 1.0)),
            ("(a + 1) * (a + 2)", lambda a: (a + 1) * (a + 2), 9.0, (4.0, 5.0)),
        ]
    ],
)
def test_backward_adds_up_where_a_value_is_used_twice(build, text, make, expected, one_path):
    a = build.Value(3.0)
    make(a).backward()
    reason = {ONE_PATH: one_path}
    must_equal(f"a = 3: the gradient of {text} with respect to a", a.grad, expected, reason)


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
def test_backward_waits_until_all_has_arrived(build):
    a, b, _, d = diamond(build)
    d.backward()
    text = "a = 3; b = 2a; c = b + a; d = c * b: the gradient of d with respect to"
    must_equal(f"{text} b", b.grad, 15.0, {WAIT: 9.0, FORWARD: 0.0})
    must_equal(f"{text} a", a.grad, 36.0, {WAIT: (24.0, 18.0, 6.0)})
    a = build.Value(2.0)
    deep = a * 3.0
    late = deep + 1.0
    for _ in range(5):
        late = late + 0.0
    (late * deep + deep + a).backward()
    must_equal(
        "x = 3a: the gradient of (x + 1) * x + x + a with respect to a at a = 2",
        a.grad,
        43.0,
        {WAIT: (25.0, 22.0, 4.0, 1.0)},
    )


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
def test_backward_goes_through_each_node_once(build):
    a = build.Value(1.0)
    b = a
    for _ in range(100):
        b = b + b
    b.backward()
    must_equal("a doubled 100 times: the gradient with respect to a", a.grad, 2.0**100)


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
def test_backward_twice_adds_the_gradient_twice(build):
    a = build.Value(3.0)
    b = a * a
    c = b * b * a
    c.backward()
    must_equal("c = a * a * a * a * a at a = 3: the gradient with respect to a", a.grad, 405.0)
    c.backward()
    must_equal(
        "the same after a second c.backward(), which adds to the first,",
        a.grad,
        810.0,
        {
            "backward sets the gradients back to zero; that is zero_grad's work": 405.0,
            "the first call's gradients in the nodes between were passed on again. Keep those of "
            "one call apart from `grad`": (2835.0, 1458.0, 1863.0),
        },
    )


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
def test_backward_of_two_results_adds_up(build):
    a, b = build.Value(2.0), build.Value(7.0)
    shared = a * b
    (shared * 3.0).backward()
    (shared + a).backward()
    text = "x = ab; backward of 3x, then of x + a: both gradients together with respect to"
    must_equal(f"{text} a", a.grad, 29.0)
    must_equal(f"{text} b", b.grad, 8.0)


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
def test_backward_of_a_part_leaves_the_rest_alone(build):
    a, b = build.Value(2.0), build.Value(3.0)
    c = a * 5.0
    d = c * b
    c.backward()
    must_equal("c = 5a, d = cb, c.backward(): the grad of b", b.grad, 0.0)
    must_equal("c = 5a, d = cb, c.backward(): the grad of d", d.grad, 0.0)
    must_equal("c = 5a, d = cb, c.backward(): the grad of a", a.grad, 5.0)


@pytest.mark.step(3)
@pytest.mark.checks("Value.backward")
def test_backward_through_a_chain_of_a_hundred_thousand(build):
    a, one = build.Value(1.0), build.Value(1.0)
    b = a
    for _ in range(100_000):
        b = b + one
    b.backward()
    must_equal("a + 1 + 1 + ... 100,000 times: the gradient with respect to a", a.grad, 1.0)


# Local derivatives, in the step that writes each

DERIVATIVES = {
    # expression: (step, method, the same of two Values, its derivative by a, by b)
    "a+2": (3, "Value.__add__", lambda a, b: a + 2, lambda a, b: 1, None),
    "2+a": (3, "Value.__radd__", lambda a, b: 2 + a, lambda a, b: 1, None),
    "a*4": (3, "Value.__mul__", lambda a, b: a * 4, lambda a, b: 4, None),
    "4*a": (3, "Value.__rmul__", lambda a, b: 4 * a, lambda a, b: 4, None),
    "a**3": (4, "Value.__pow__", lambda a, b: a**3, lambda a, b: 3 * a**2, None),
    "a**2": (4, "Value.__pow__", lambda a, b: a**2, lambda a, b: 2 * a, None),
    "a**1": (4, "Value.__pow__", lambda a, b: a**1, lambda a, b: 1, None),
    "a**0": (4, "Value.__pow__", lambda a, b: a**0, lambda a, b: 0, None),
    "a**-2": (4, "Value.__pow__", lambda a, b: a**-2, lambda a, b: -2 * a**-3, None),
    "a**0.5": (4, "Value.__pow__", lambda a, b: a**0.5, lambda a, b: 0.5 * a**-0.5, None),
    "-a": (4, "Value.__neg__", lambda a, b: -a, lambda a, b: -1, None),
    "a-b": (4, "Value.__sub__", lambda a, b: a - b, lambda a, b: 1, lambda a, b: -1),
    "a-2": (4, "Value.__sub__", lambda a, b: a - 2, lambda a, b: 1, None),
    "2-a": (4, "Value.__rsub__", lambda a, b: 2 - a, lambda a, b: -1, None),
    "a/b": (4, "Value.__truediv__", lambda a, b: a / b, lambda a, b: 1 / b, lambda a, b: -a / b**2),
    "a/4": (4, "Value.__truediv__", lambda a, b: a / 4, lambda a, b: 0.25, None),
    "4/a": (4, "Value.__rtruediv__", lambda a, b: 4 / a, lambda a, b: -4 / a**2, None),
    "2**a": (5, "Value.__rpow__", lambda a, b: 2**a, lambda a, b: 2**a * math.log(2), None),
    "exp(a)": (5, "Value.exp", lambda a, b: a.exp(), lambda a, b: math.exp(a), None),
    "log(a)": (5, "Value.log", lambda a, b: a.log(), lambda a, b: 1 / a, None),
    "tanh(a)": (5, "Value.tanh", lambda a, b: a.tanh(), lambda a, b: 1 - math.tanh(a) ** 2, None),
}
DERIVATIVE_CASES = [
    pytest.param(text, id=text, marks=[pytest.mark.step(step), pytest.mark.checks(method)])
    for text, (step, method, *_) in DERIVATIVES.items()
]


def multiplication_is_right(build):
    """Whether a case may be multiplied by 10: a broken `*` has its own check."""
    a = build.Value(3.0)
    b = a * 10.0
    b.backward()
    return close(b.data, 30.0) and close(a.grad, 10.0)


@pytest.mark.parametrize("text", DERIVATIVE_CASES)
def test_local_derivative(build, text):
    _, _, function, by_a, by_b = DERIVATIVES[text]
    upstream_gradients = (1, 10) if multiplication_is_right(build) else (1,)
    for a, b in ((2.0, 5.0), (0.7, -1.3), (3.5, 0.25)):
        for upstream in upstream_gradients:
            x, y = build.Value(a), build.Value(b)
            result = function(x, y)
            (result if upstream == 1 else result * upstream).backward()
            what = text if upstream == 1 else f"10 * ({text})"
            for name, value, law in (("a", x, by_a), ("b", y, by_b)):
                expected = upstream * law(a, b) if law else 0.0
                must_equal(
                    f"{what} at a = {a}, b = {b}: the gradient with respect to {name}",
                    value.grad,
                    expected,
                    {
                        "the upstream gradient is not multiplied in": expected / upstream,
                        "the sign is wrong": -expected,
                        OTHERS_GRAD if "*" in text and "**" not in text else UNREACHED: 0.0,
                        "this is the result, not its derivative": upstream * result.data,
                    },
                )


@pytest.mark.step(5)
@pytest.mark.checks("Value.relu")
def test_relu_passes_the_gradient_only_where_it_is_on(build):
    upstream = 10.0 if multiplication_is_right(build) else 1.0
    for a in (2.0, 0.3, -2.0, -0.3):
        x = build.Value(a)
        y = x.relu()
        (y * upstream if upstream > 1 else y).backward()
        what = f"{upstream:g} * relu(a) at a = {a}: the gradient with respect to a"
        off, on = ("the gradient does not pass", "the gradient passes where relu is off")
        expected = upstream if a > 0 else 0.0
        leak = {"this is a leaky relu": 0.01 * upstream}
        mistakes = {off: 0.0} if a > 0 else {on: upstream} | leak
        must_equal(what, x.grad, expected, mistakes)


@pytest.mark.step(4)
@pytest.mark.checks("Value.__pow__")
@pytest.mark.parametrize("n, slope", [(1, 1.0), (2, 0.0), (3, 0.0)], ids=str)
def test_local_derivative_of_a_power_at_zero(build, n, slope):
    a = build.Value(0.0)
    (a**n).backward()
    must_equal(f"a**{n} at a = 0: the gradient with respect to a", a.grad, slope)


@pytest.mark.step(4)
@pytest.mark.checks("Value.__pow__")
@pytest.mark.parametrize("n", [1, 2, 3, -1, -2], ids=str)
def test_local_derivative_of_a_power_of_a_negative_number(build, n):
    a = build.Value(-2.0)
    (a**n).backward()
    expected = n * (-2.0) ** (n - 1)
    must_equal(f"a**{n} at a = -2: the gradient with respect to a", a.grad, expected)


# What has no value: an exception of any kind, or infinity or NaN, but no finite number


def must_not_be_finite(call, text):
    try:
        got = call()
    except Exception:
        return
    number = getattr(got, "data", got)
    assert not (isinstance(number, numbers.Real) and math.isfinite(number)), (
        f"{text} does not exist and should be an error; it gave {number}"
    )


@pytest.mark.step(5)
@pytest.mark.checks("Value.log")
@pytest.mark.parametrize("x", [0.0, -2.5], ids=str)
def test_log_of_a_number_that_is_not_positive(build, x):
    must_equal("Value(1.0).log()", build.Value(1.0).log().data, 0.0)
    must_not_be_finite(lambda: build.Value(x).log(), f"Value({x}).log()")


@pytest.mark.step(4)
@pytest.mark.checks("Value.__truediv__")
@pytest.mark.parametrize(
    "text, divide",
    [
        ("Value(3.5) / Value({})", lambda build, x: build.Value(3.5) / build.Value(x)),
        ("Value(3.5) / {}", lambda build, x: build.Value(3.5) / x),
        ("3.5 / Value({})", lambda build, x: 3.5 / build.Value(x)),
    ],
    ids=["value-value", "value-number", "number-value"],
)
def test_division_by_zero(build, text, divide):
    must_equal(text.format(0.5), divide(build, 0.5).data, 7.0)
    must_not_be_finite(lambda: divide(build, 0.0), text.format(0.0))


# The whole engine


@pytest.mark.step(5)
@pytest.mark.checks("the whole engine")
def test_an_expression_with_everything_in_it(build):
    a, b = build.Value(-4.0), build.Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    must_equal("the result of micrograd's example", g.data, 24.70408163265306)
    must_equal("its gradient with respect to a", a.grad, 138.83381924198252)
    must_equal("its gradient with respect to b", b.grad, 645.5772594752186)


@pytest.mark.step(5)
@pytest.mark.checks("the whole engine")
def test_gradients_agree_with_finite_differences(build):
    def neuron(w, x, b):
        return (w * x + b).tanh() * (w * 2 - x).exp() + (x * x + 1).log() / (b**2 + 1)

    at, h = (0.3, -0.8, 0.5), 1e-6
    values = [build.Value(number) for number in at]
    neuron(*values).backward()
    for i, name in enumerate("wxb"):
        ends = []
        for sign in (1, -1):
            moved = [number + sign * h * (i == j) for j, number in enumerate(at)]
            ends.append(neuron(*map(build.Value, moved)).data)
        slope = (ends[0] - ends[1]) / (2 * h)
        assert abs(values[i].grad - slope) < 1e-5, (
            f"a change of {name} by a millionth changes the result {slope:.6f} times as much; "
            f"its grad is {values[i].grad:.6f}"
        )


def random_program(seed):
    """A random expression as a list of steps (name, operands), leaves first."""
    draw = random.Random(seed)
    steps = [("leaf", draw.uniform(0.3, 2.0)) for _ in range(4)]
    for _ in range(25):
        name = draw.choice(["+", "-", "*", "/", "**", "r**", "exp", "log", "tanh", "relu", "neg"])
        left, right = draw.randrange(len(steps)), draw.randrange(len(steps))
        steps.append((name, left, right, draw.choice([2, 3, -1, 0.5])))
    return steps


def run(steps, make):
    """The leaves and the result of a program; `make` turns a number into a leaf."""
    nodes = []
    for name, *rest in steps:
        if name == "leaf":
            nodes.append(make(rest[0]))
            continue
        a, b, n = nodes[rest[0]], nodes[rest[1]], rest[2]
        positive = (a * a + 0.5, b * b + 0.5)
        nodes.append(
            {
                "+": lambda a=a, b=b: a + b,
                "-": lambda a=a, b=b: a - b,
                "*": lambda a=a, b=b, p=positive: a * b / (p[0] + p[1]),
                "/": lambda a=a, p=positive: a / p[1],
                "**": lambda p=positive, n=n: 1 / (p[0] ** n + 1),
                "r**": lambda a=a, n=n: abs(n) ** a.tanh(),
                "exp": lambda a=a: a.tanh().exp(),
                "log": lambda p=positive: p[0].log(),
                "tanh": lambda a=a: a.tanh(),
                "relu": lambda a=a, b=b: (a - b).relu(),
                "neg": lambda a=a: 1.5 - (-a),
            }[name]()
        )
    result = nodes[-1]
    for node in nodes[-5:-1]:
        result = result + node
    return [node for node, step in zip(nodes, steps) if step[0] == "leaf"], result


@pytest.fixture
def torch():
    """PyTorch, imported before the time of a check begins to count."""
    return pytest.importorskip("torch")


@pytest.mark.step(5)
@pytest.mark.checks("the whole engine")
def test_random_graphs_agree_with_pytorch(build, torch):
    def double(number):
        return torch.tensor(number, dtype=torch.float64, requires_grad=True)

    for seed in range(60):
        steps = random_program(seed)
        leaves, ours = run(steps, build.Value)
        ours.backward()
        theirs, result = run(steps, double)
        result.backward()
        must_equal(f"random graph {seed}: the result", ours.data, result.item())
        for i, (leaf, tensor) in enumerate(zip(leaves, theirs)):
            expected = 0.0 if tensor.grad is None else tensor.grad.item()
            must_equal(f"random graph {seed}: the gradient of leaf {i}", leaf.grad, expected)
