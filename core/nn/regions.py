"""Pooling of boxes under torchvision's names."""

from __future__ import annotations

from collections.abc import Sequence

import trine.functional as F
from trine.nn.checks import Size, pair
from trine.nn.module import Module
from trine.tensor import Tensor


class RoIPool(Module):
    """The maximum of each bin of each box (Girshick, 2015)."""

    def __init__(self, output_size: Size, spatial_scale: float) -> None:
        super().__init__()
        pair("RoIPool", "output_size", output_size)
        self.output_size, self.spatial_scale = output_size, spatial_scale

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """(N, C, H, W) and boxes (K, 5), or a list of (K_n, 4) -> (K, C, *output_size)."""
        return F.roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        """The result's height and width, and the scale of boxes."""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"


class RoIAlign(Module):
    """The mean of interpolated samples of each bin of each box (He et al., 2017)."""

    def __init__(
        self,
        output_size: Size,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        pair("RoIAlign", "output_size", output_size)
        self.output_size, self.spatial_scale = output_size, spatial_scale
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """(N, C, H, W) and boxes (K, 5), or a list of (K_n, 4) -> (K, C, *output_size)."""
        return F.roi_align(
            input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        )

    def extra_repr(self) -> str:
        """The result's height and width, the scale of boxes and how bins are sampled."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
