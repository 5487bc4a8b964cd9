"""The operators of a device array: each is a ufunc of the package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np


class Operators:
    """What an array inherits so that `x + y` and the like are `add(x, y)`."""


def is_operand(value: Any) -> bool:
    """Return whether CuPy computes with it: device arrays and numbers, no arrays of the host."""
    return not isinstance(value, np.ndarray)


def check_operand(*values: Any) -> None:
    """Raise TypeError for arrays of the host, as CuPy does."""
    for value in values:
        if isinstance(value, (tuple, list)):
            check_operand(*value)
        elif not is_operand(value):
            raise TypeError(f"Unsupported type {type(value)}")


def _binary(name: str) -> Callable[..., Any]:
    """Return the operator's method, by the package's ufunc."""

    def method(self: Operators, other: Any) -> Any:
        return _by_ufunc(name, self, other)

    return method


def _reflected(name: str) -> Callable[..., Any]:
    def method(self: Operators, other: Any) -> Any:
        return _by_ufunc(name, other, self)

    return method


def _in_place(name: str) -> Callable[..., Any]:
    def method(self: Operators, other: Any) -> Any:
        return _by_ufunc(name, self, other, out=self)

    return method


def _unary(name: str) -> Callable[..., Any]:
    def method(self: Operators) -> Any:
        return _by_ufunc(name, self)

    return method


def _by_ufunc(name: str, *args: Any, **kwargs: Any) -> Any:
    function = getattr(sys.modules[__package__ or "cupy"], name)
    if any(not is_operand(value) for value in args):
        return NotImplemented if name == "matmul" else function(*args, **kwargs)
    return function(*args, **kwargs)


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "matmul": "matmul",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift",
    "rshift": "right_shift",
}  # fmt: skip
for _operator, _name in _OPERATORS.items():
    setattr(Operators, f"__{_operator}__", _binary(_name))
    setattr(Operators, f"__r{_operator}__", _reflected(_name))
    setattr(Operators, f"__i{_operator}__", _in_place(_name))
for _operator, _name in {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal",
    "ne": "not_equal",
}.items():  # fmt: skip
    setattr(Operators, f"__{_operator}__", _binary(_name))
for _operator, _name in {"neg": "negative", "abs": "absolute", "invert": "invert"}.items():
    setattr(Operators, f"__{_operator}__", _unary(_name))
