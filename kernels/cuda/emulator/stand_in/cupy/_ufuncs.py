"""CuPy's ufuncs that Trine may use: the elementwise functions, with CuPy's few keywords."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ._array import compute, ndarray
from ._operators import check_operand


class ufunc:  # noqa: N801  CuPy's name
    """An elementwise function."""

    def __init__(self, name: str, numpy_name: str) -> None:
        self._numpy: np.ufunc = getattr(np, numpy_name)
        self.name = f"cupy_{name}"
        self.__name__ = name
        self.nin, self.nout = self._numpy.nin, self._numpy.nout
        operands = ("x",) if self.nin == 1 else ("x1", "x2")
        self.__signature__ = inspect.Signature(
            [
                *(inspect.Parameter(x, inspect.Parameter.POSITIONAL_ONLY) for x in operands),
                inspect.Parameter("out", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None),
                inspect.Parameter("casting", inspect.Parameter.KEYWORD_ONLY, default="same_kind"),
                inspect.Parameter("dtype", inspect.Parameter.KEYWORD_ONLY, default=None),
            ]
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute; takes `out`, `casting` and `dtype`, and raises TypeError for other keywords."""
        out = kwargs.pop("out", None)
        casting = kwargs.pop("casting", "same_kind")
        dtype = kwargs.pop("dtype", None)
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if len(args) == self.nin + 1 and out is None:
            *args, out = args  # type: ignore[assignment]
        if len(args) != self.nin:
            raise TypeError(f"{self.name} takes {self.nin} arguments, got {len(args)}")
        check_operand(*args)
        if any(isinstance(value, (list, tuple)) for value in args):
            raise TypeError(f"Unsupported type {[type(value) for value in args]}")
        if isinstance(out, tuple):
            (out,) = out
        if out is not None and not isinstance(out, ndarray):
            raise TypeError("return arrays must be of ArrayType")

        def function(*operands: Any) -> Any:
            more = {} if dtype is None else {"dtype": dtype, "casting": casting}
            return self._numpy(*operands, **more)

        return compute(function, *args, out=out)

    def __repr__(self) -> str:
        return f"<ufunc '{self.name}'>"

    def reduce(
        self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> Any:
        """Reduce along directions; CuPy has it for add, multiply, maximum and minimum."""
        if self.__name__ not in ("add", "multiply", "maximum", "minimum"):
            raise NotImplementedError(f"reduce is not supported for {self.name}")
        reduce: Any = self._numpy.reduce
        return compute(lambda a: reduce(a, axis, dtype, keepdims=keepdims), array, out=out)

    def reduceat(
        self, array: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None
    ) -> Any:
        """Reduce between indices; CuPy has it for add."""
        if self.__name__ != "add":
            raise NotImplementedError(f"reduceat is not supported for {self.name}")
        return compute(lambda a, i: np.add.reduceat(a, i, axis, dtype), array, indices, out=out)


_NAMES = [
    "absolute", "add", "bitwise_and", "bitwise_or", "bitwise_xor", "cbrt", "ceil", "copysign",
    "cos", "cosh", "equal", "exp", "exp2", "expm1", "floor", "floor_divide", "fmax", "fmin",
    "fmod", "greater", "greater_equal", "hypot", "invert", "isfinite", "isinf", "isnan",
    "left_shift", "less", "less_equal", "log", "log10", "log1p", "log2", "logaddexp",
    "logical_and", "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "multiply",
    "negative", "not_equal", "power", "reciprocal", "remainder", "right_shift", "rint", "sign",
    "signbit", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "true_divide",
    "trunc",
]  # fmt: skip
UFUNCS = {name: ufunc(name, name) for name in _NAMES}
UFUNCS["abs"] = UFUNCS["absolute"]
UFUNCS["divide"] = UFUNCS["true_divide"]
UFUNCS["mod"] = UFUNCS["remainder"]
