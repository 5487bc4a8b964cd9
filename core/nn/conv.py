"""Convolutions."""

from __future__ import annotations

from typing import Literal

import numpy.typing as npt

import trine.functional as F
from trine.backends import Backend
from trine.errors import suggest
from trine.nn import init
from trine.nn.checks import Size, pair, require_positive
from trine.nn.module import Module
from trine.nn.parameter import Parameter, new_parameter
from trine.tensor import Tensor

PaddingMode = Literal["zeros", "reflect"]


class _Conv(Module):
    """What both convolutions share: sizes, parameters and the text about them."""

    bias: Parameter | None
    padding: tuple[int, int] | str

    def _build(
        self,
        weight_shape: tuple[int, int],
        bias: bool,
        dtype: npt.DTypeLike | None,
        backend: str | Backend | None,
    ) -> None:
        shape = (*weight_shape, *self.kernel_size)
        self.weight = new_parameter(shape, dtype=dtype, backend=backend)
        self.register_parameter(
            "bias",
            new_parameter((self.out_channels,), dtype=dtype, backend=backend) if bias else None,
        )
        self.reset_parameters()

    def _sizes(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        dilation: Size,
        groups: int,
    ) -> None:
        layer = type(self).__name__
        require_positive(layer, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"[{layer}] expected channels that {groups} groups divide, got {in_channels} in and "
                f"{out_channels} out. Change groups or channels."
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair(layer, "kernel_size", kernel_size)
        self.stride = pair(layer, "stride", stride)
        self.dilation = pair(layer, "dilation", dilation)

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.default_linear_(self.weight, self.bias)

    def extra_repr(self) -> str:
        """Channels, kernel and whatever differs from the defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={self.kernel_size}"]
        parts.append(f"stride={self.stride}")
        if self.padding != (0, 0):
            parts.append(f"padding={self.padding!r}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={self.dilation}")
        if getattr(self, "output_padding", (0, 0)) != (0, 0):
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if getattr(self, "padding_mode", "zeros") != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class Conv2d(_Conv):
    """Cross-correlation of images with kernels; see `trine.functional.conv2d`.

    weight: (out, in / groups, R, S), bias: (out,); input (N, in, H, W) -> (N, out, P, Q). padding:
    numbers, "valid" or "same" (either case, any stride). Weight and bias start from [-k, k) with
    k = 1 / sqrt(in / groups R S), as in PyTorch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__()
        self._sizes(in_channels, out_channels, kernel_size, stride, dilation, groups)
        if isinstance(padding, str):
            if padding.lower() not in ("same", "valid"):
                raise suggest("Conv2d", "padding", padding, ("same", "valid"))
            self.padding = padding.lower()
        else:
            self.padding = pair("Conv2d", "padding", padding, 0)
        if padding_mode not in ("zeros", "reflect"):
            raise suggest("Conv2d", "padding_mode", padding_mode, ("zeros", "reflect"))
        self.padding_mode: PaddingMode = padding_mode
        self._build((out_channels, in_channels // groups), bias, dtype, backend)

    def forward(self, input: Tensor, activation: str = "none") -> Tensor:
        """Convolve; then an activation that `F.conv2d` can fuse."""
        return F.conv2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.padding_mode,
            activation,
        )


class ConvTranspose2d(_Conv):
    """Transposed convolution: the adjoint of `Conv2d` with the same numbers.

    weight: (in, out / groups, R, S), bias: (out,); input (N, in, H, W) -> (N, out, P, Q) with
    P = (H - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1. Starts as in PyTorch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__()
        self._sizes(in_channels, out_channels, kernel_size, stride, dilation, groups)
        self.padding = pair("ConvTranspose2d", "padding", padding, 0)
        self.output_padding = pair("ConvTranspose2d", "output_padding", output_padding, 0)
        self._build((in_channels, out_channels // groups), bias, dtype, backend)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve, transposed."""
        assert not isinstance(self.padding, str)
        return F.conv_transpose2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )
