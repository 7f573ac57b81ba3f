"""What we ask of our own engine beyond the chapter: a reader's may do it in another way."""

import math

import pytest

from p01_autograd import Value

REFUSED = {
    "log of zero": (lambda: Value(0.0).log(), ValueError),
    "log of a negative number": (lambda: Value(-2.5).log(), ValueError),
    "division by a Value of zero": (lambda: Value(3.5) / Value(0.0), ZeroDivisionError),
    "division by zero": (lambda: Value(3.5) / 0, ZeroDivisionError),
    "division of a number by zero": (lambda: 3.5 / Value(0.0), ZeroDivisionError),
    "an exponent that is a Value": (lambda: Value(2.0) ** Value(3.0), TypeError),
    "a root of a negative number": (lambda: Value(-8.0) ** 0.5, TypeError),
    "a slope that is infinite": (lambda: Value(0.0) ** 0.5, ZeroDivisionError),
    "a list for a number": (lambda: Value([1, 2]) * 2, TypeError),
    "a text for a number": (lambda: Value("one"), ValueError),
    "zero to the power of a Value": (lambda: 0 ** Value(2.0), ValueError),
    "an exponential beyond float64": (lambda: Value(1000.0).exp(), OverflowError),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_value_is_an_exception(case):
    call, kind = REFUSED[case]
    with pytest.raises(kind):
        call()


def test_a_constant_has_no_slope_even_at_zero():
    a = Value(0.0)
    (a**0).backward()
    assert a.grad == 0.0


def test_whole_numbers_become_floats():
    assert isinstance(Value(2).data, float) and isinstance((Value(2) * 3).data, float)


def test_a_value_prints_its_number_and_its_gradient():
    assert f"{Value(2.0)}" == repr(Value(2.0)) == "Value(data=2.0, grad=0.0)"


def test_a_value_takes_a_format():
    assert f"{Value(1.5):.2f} {Value(-math.pi):8.3f}" == "1.50   -3.142"
