"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from trine.autograd import apply, define
from trine.backends import Backend
from trine.dtypes import Array
from trine.functional.checks import require_float
from trine.tensor import Tensor

Saved = tuple[Any, ...]


def _softmax(be: Backend, x: Array, *, axis: int) -> tuple[Array, Saved]:
    out = be.softmax(x, axis=axis)
    return out, (out,)


def _softmax_backward(be: Backend, saved: Saved, grads: Saved, needs: Saved, *, axis: int) -> Saved:
    return (be.softmax_backward(grads[0], saved[0], axis=axis),)


def _shifted(x: Tensor, axis: int) -> Tensor:
    return x - x.detach().amax(axis, keepdim=True)


def _softmax_composed(x: Tensor, *, axis: int) -> Tensor:
    power = _shifted(x, axis).exp()
    return power / power.sum(axis, keepdim=True)


def _log_softmax(be: Backend, x: Array, *, axis: int) -> tuple[Array, Saved]:
    out = be.log_softmax(x, axis=axis)
    return out, (out,)


def _log_softmax_backward(
    be: Backend, saved: Saved, grads: Saved, needs: Saved, *, axis: int
) -> Saved:
    return (be.log_softmax_backward(grads[0], saved[0], axis=axis),)


def log_softmax_composed(x: Tensor, *, axis: int) -> Tensor:
    """Return the log-softmax in primitives."""
    shifted = _shifted(x, axis)
    return shifted - shifted.exp().sum(axis, keepdim=True).log()


SOFTMAX = define("softmax", _softmax, _softmax_backward, composed=_softmax_composed)
LOG_SOFTMAX = define(
    "log_softmax", _log_softmax, _log_softmax_backward, composed=log_softmax_composed
)


def softmax(input: Tensor, dim: int, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Turn scores into probabilities along an axis.

    y_k = exp(x_k) / sum_j exp(x_j), computed on x - max x. input: any shape, float; with `dtype` it
    is converted first. A row that is -inf throughout gives NaN. Raises ValueError for an axis that
    does not exist, TypeError for integers.
    """
    x = input if dtype is None else input.astype(dtype)
    require_float("softmax", "input", x)
    return apply(SOFTMAX, x, axis=x._axis("softmax", dim))  # type: ignore[no-any-return]


def log_softmax(input: Tensor, dim: int, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Logarithm of the softmax along an axis, exact where the softmax itself would round to 0.

    y_k = x_k - ln sum_j exp(x_j). Shapes, dtypes and errors are those of `softmax`.
    """
    x = input if dtype is None else input.astype(dtype)
    require_float("log_softmax", "input", x)
    return apply(LOG_SOFTMAX, x, axis=x._axis("log_softmax", dim))  # type: ignore[no-any-return]
