"""Activations as layers."""

from __future__ import annotations

import trine.functional as F
from trine.nn.module import Module
from trine.tensor import Tensor


class ReLU(Module):
    """max(z, 0)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to every element."""
        return F.relu(input)


class Sigmoid(Module):
    """1 / (1 + e^-z)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to every element."""
        return F.sigmoid(input)


class Tanh(Module):
    """tanh z."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to every element."""
        return F.tanh(input)


class SiLU(Module):
    """z sigmoid(z)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to every element."""
        return F.silu(input)


class LeakyReLU(Module):
    """z for z > 0, negative_slope z else."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to every element."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """The slope."""
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """z for z > 0, alpha (e^z - 1) else."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to every element."""
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        """The factor."""
        return f"alpha={self.alpha}"


class Softplus(Module):
    """ln(1 + e^(beta z)) / beta; z itself where beta z is above the threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to every element."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Beta and the threshold."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardtanh(Module):
    """z limited to [min_val, max_val]."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__()
        self.min_val, self.max_val = min_val, max_val

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to every element."""
        return F.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """The limits."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class _AlongAxis(Module):
    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class Softmax(_AlongAxis):
    """e^z / sum e^z along an axis, by default the last."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply it along the axis."""
        return F.softmax(input, self.dim)


class LogSoftmax(_AlongAxis):
    """z - ln sum e^z along an axis, by default the last."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply it along the axis."""
        return F.log_softmax(input, self.dim)
