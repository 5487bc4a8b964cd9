"""Dropout."""

from __future__ import annotations

from typing import Any

from trine.autograd import apply, define
from trine.backends import Backend
from trine.dtypes import Array, float32
from trine.functional.checks import device_key, require_float
from trine.joining import where
from trine.tensor import Tensor

Saved = tuple[Any, ...]


def _dropout(be: Backend, x: Array, *, key: Array, p: float) -> tuple[Array, Saved]:
    return be.dropout(x, key, p=p), ()


def _dropout_backward(
    be: Backend, saved: Saved, grads: Saved, needs: Saved, *, key: Array, p: float
) -> Saved:
    return (be.dropout_backward(grads[0], key, p=p),)


def _dropout_composed(x: Tensor, *, key: Array, p: float) -> Tensor:
    be = x.backend
    uniform = Tensor._wrap(be.random_uniform(key, shape=x.shape, dtype=float32), be)
    return where(uniform >= p, x * (1 / (1 - p) if p < 1 else 0.0), 0.0)


DROPOUT = define("dropout", _dropout, _dropout_backward, composed=_dropout_composed)


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, key: Array | None = None
) -> Tensor:
    """Set elements to zero with probability p and divide the others by 1 - p.

    Element i, counted in row-major order, is kept where the i-th float32 uniform of the Philox draw
    `key` is at least p: the same mask on every backend and in every dtype. key: uint32 (5,), see
    `trine.random.make_key`, on the host or on the input's device; without one the default generator
    gives its next. Outside training, or with p = 0, the input comes back as it is and nothing is
    drawn. Raises ValueError for p outside [0, 1] or another key, TypeError for integers.
    Source: Srivastava et al., 2014.
    """
    require_float("dropout", "input", input)
    if not 0 <= p <= 1:
        raise ValueError(
            f"[dropout] expected p from 0 to 1, got {p}. It is the probability of a zero."
        )
    if not training or p == 0:
        return input
    on_device = device_key("dropout", input, key)
    return apply(DROPOUT, input, key=on_device, p=float(p))  # type: ignore[no-any-return]
