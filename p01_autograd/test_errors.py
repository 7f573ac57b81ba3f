"""What the engine says where a result does not exist: the operation and its operands.

A reader's own engine may word it as it likes; test_build.py asks only for the kind of error.
"""

import pytest

from p01_autograd import Value

CASES = {
    "log of zero": (lambda: Value(0.0).log(), ValueError, "log of Value(data=0.0"),
    "log of a negative number": (lambda: Value(-2.5).log(), ValueError, "log of Value(data=-2.5"),
    "division by a Value": (lambda: Value(3.5) / Value(0.0), ZeroDivisionError, "Value(data=3.5"),
    "division by a number": (lambda: Value(3.5) / 0, ZeroDivisionError, "/ 0: division by zero"),
    "division of a number": (lambda: 3.5 / Value(0.0), ZeroDivisionError, "Value(data=3.5"),
    "an exponent that is a Value": (lambda: Value(2.0) ** Value(3.0), TypeError, "has to be a num"),
    "a complex power": (lambda: Value(-8.0) ** 0.5, ValueError, "** 0.5: no such power"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_error_names_the_operation_and_the_operands(case):
    call, kind, says = CASES[case]
    with pytest.raises(kind) as caught:
        call()
    assert says in str(caught.value)


def test_a_constant_has_no_slope_even_at_zero():
    a = Value(0.0)
    (a**0).backward()
    assert a.grad == 0.0
