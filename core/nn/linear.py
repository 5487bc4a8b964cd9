"""The fully connected layer."""

from __future__ import annotations

import numpy.typing as npt

import trine.functional as F
from trine.backends import Backend
from trine.nn import init
from trine.nn.checks import require_positive
from trine.nn.module import Module
from trine.nn.parameter import Parameter, new_parameter
from trine.tensor import Tensor


class Linear(Module):
    """y = x W^T + b. weight: (out, in), bias: (out,); input (..., in) -> (..., out).

    Both start from [-k, k) with k = 1 / sqrt(in), as in PyTorch.
    """

    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__()
        require_positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = new_parameter((out_features, in_features), dtype=dtype, backend=backend)
        self.register_parameter(
            "bias", new_parameter((out_features,), dtype=dtype, backend=backend) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.default_linear_(self.weight, self.bias)

    def forward(self, input: Tensor, activation: str = "none") -> Tensor:
        """Multiply by the weight and add the bias; then an activation that `F.linear` can fuse."""
        return F.linear(input, self.weight, self.bias, activation)

    def extra_repr(self) -> str:
        """Sizes and whether there is a bias."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )
