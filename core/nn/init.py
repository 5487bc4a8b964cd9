"""Initial values of parameters, in place; PyTorch's names and formulas.

All numbers are drawn on the host from the default generator's stream "init", in the order of the
calls: the same seed gives the same bytes on every backend. Uniforms have 24 random bits in float64
too, so that a float32 and a float64 model start from the same weights up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from trine import random
from trine.dtypes import float32, float64
from trine.errors import suggest
from trine.tensor import Tensor

Fan = Literal["fan_in", "fan_out"]
T = TypeVar("T", bound=Tensor)

INIT_STREAM = random.stream_id("init")

GAINS = {
    "linear": 1.0,
    "conv2d": 1.0,
    "conv_transpose2d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}

_drawing = True


@contextmanager
def skipped() -> Iterator[None]:
    """Draw nothing inside the block: parameters stay zero, be it to be counted or to be loaded."""
    global _drawing  # noqa: PLW0603  read where numbers would be drawn
    before, _drawing = _drawing, False
    try:
        yield
    finally:
        _drawing = before


def _fill(tensor: T, values: npt.NDArray[np.float64]) -> T:
    backend = tensor.backend
    backend.assign(tensor.data, backend.asarray(values, tensor.dtype))
    tensor._bump()
    return tensor


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0) -> T:
    """Fill with values drawn evenly from [a, b)."""
    if not _drawing:
        return tensor
    key = random.default_generator().key(INIT_STREAM)
    draws = random.uniform(key, tensor.shape, float32).astype(float64)
    return _fill(tensor, a + (b - a) * draws)


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Fill with normal values."""
    if not _drawing:
        return tensor
    key = random.default_generator().key(INIT_STREAM)
    return _fill(tensor, mean + std * random.normal(key, tensor.shape, float64))


def constant_(tensor: T, val: float) -> T:
    """Fill with one value."""
    tensor.backend.assign(tensor.data, val)
    tensor._bump()
    return tensor


def zeros_(tensor: T) -> T:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: T) -> T:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def fans(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight (out, in, ...): in and out times the kernel's size.

    Raises ValueError for fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ValueError(
            f"[init] expected a weight with at least two axes, got shape {tensor.shape}. Use uniform_ "
            "or constant_ for biases."
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which weights before a nonlinearity are enlarged.

    1 for linear and sigmoid, 5/3 for tanh, sqrt(2) for relu, sqrt(2 / (1 + param^2)) for
    leaky_relu (slope 0.01). Raises ValueError for an unknown name.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1.0 + slope * slope))
    if nonlinearity not in GAINS:
        raise suggest("init", "nonlinearity", nonlinearity, [*GAINS, "leaky_relu"])
    return GAINS[nonlinearity]


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """Fill from [-a, a), a = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """Fill with normals of deviation gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))))


def _kaiming_std(tensor: Tensor, a: float, mode: Fan, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise suggest("init", "mode", mode, ("fan_in", "fan_out"))
    fan = fans(tensor)[0 if mode == "fan_in" else 1]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    tensor: T, a: float = 0.0, mode: Fan = "fan_in", nonlinearity: str = "leaky_relu"
) -> T:
    """Fill from [-b, b), b = gain sqrt(3 / fan) (He et al., 2015); `a` is leaky_relu's slope."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: T, a: float = 0.0, mode: Fan = "fan_in", nonlinearity: str = "leaky_relu"
) -> T:
    """Fill with normals of deviation gain / sqrt(fan) (He et al., 2015)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def default_linear_(weight: Tensor, bias: Tensor | None) -> None:
    """Initialise as PyTorch does for Linear and Conv: both from [-k, k), k = 1 / sqrt(fan_in)."""
    kaiming_uniform_(weight, a=math.sqrt(5.0))
    if bias is not None:
        fan_in = fans(weight)[0]
        bound = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
        uniform_(bias, -bound, bound)
