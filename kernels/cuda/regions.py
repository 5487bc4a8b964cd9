"""Launches of regions.cu: pooling of boxes and its gradients."""

from __future__ import annotations

import math

from trine.dtypes import Array, int32
from trine.kernels.cuda import tiles
from trine.kernels.cuda.launch import Launch, Launches, Scratch, blocks
from trine.kernels.registry import cuda_kernel

Pair = tuple[int, int]

THREADS = 256
PLANE_THREADS = 128
"""Of a block that owns a plane; a box reaches some hundred elements."""
WEIGHT_THREADS = 64
SOURCE = "regions.cu"


def _pool(
    x: Array, boxes: Array, output_size: Pair, spatial_scale: float, out: Array, argmax: Array
) -> Launches:
    if not out.size:
        return ()
    tiles.check("roi_pool", pixels_of_a_plane=math.prod(x.shape[2:]))
    arguments = (x, boxes, out, argmax, out.size, *x.shape, *output_size, spatial_scale)
    return Launch(blocks(out.size, THREADS), (THREADS,), arguments)


def _pool_backward(
    grad_out: Array, argmax: Array, boxes: Array, batch: int, input_size: Pair, grad_x: Array
) -> Launches:
    if not grad_x.size:
        return ()
    tiles.check("roi_pool_backward", pixels_of_a_plane=math.prod(input_size))
    k, channels, rows, columns = grad_out.shape
    sizes = (batch * channels, k, batch, channels, input_size[0] * input_size[1], rows * columns)
    arguments = (grad_out, argmax, boxes, grad_x, *sizes)
    return Launch(blocks(batch * channels, 1), (PLANE_THREADS,), arguments)


class _Weights:
    """The launches that make the weights of both axes, and the memory that these fill."""

    def __init__(
        self, boxes: Array, output_size: Pair, input_size: Pair, scale: float,
        sampling_ratio: int, aligned: bool,
    ) -> None:  # fmt: skip
        tiles.check(
            "roi_align",
            pixels_of_a_plane=math.prod(input_size),
            weights_of_a_box=max(map(math.prod, zip(output_size, input_size, strict=True))),
        )
        k = boxes.shape[0]
        self.weights, self.reaches, self.extents, self.launches = [], [], [], []
        for bins, size, axis in zip(output_size, input_size, (2, 1), strict=True):
            weights = Scratch((k, bins, size), boxes.dtype)
            reach, extent = Scratch((k, bins, 2), int32), Scratch((k, 2), int32)
            how = (k, bins, size, axis, scale, sampling_ratio, aligned)
            self.launches.append(
                Launch(
                    blocks(k, 1), (WEIGHT_THREADS,), (boxes, weights, reach, extent, *how),
                    function="roi_weights<{T}>",
                )
            )  # fmt: skip
            self.weights.append(weights)
            self.reaches.append(reach)
            self.extents.append(extent)


def _align(
    x: Array, boxes: Array, output_size: Pair, spatial_scale: float, sampling_ratio: int,
    aligned: bool, out: Array,
) -> Launches:  # fmt: skip
    if not out.size:
        return ()
    made = _Weights(boxes, output_size, x.shape[2:], spatial_scale, sampling_ratio, aligned)
    tables = (*made.weights, *made.reaches)
    arguments = (x, boxes, *tables, out, out.size, *x.shape, *output_size)
    return (*made.launches, Launch(blocks(out.size, THREADS), (THREADS,), arguments))


def _align_backward(
    grad_out: Array, boxes: Array, batch: int, input_size: Pair, spatial_scale: float,
    sampling_ratio: int, aligned: bool, grad_x: Array,
) -> Launches:  # fmt: skip
    if not grad_x.size:
        return ()
    k, channels, *size = grad_out.shape
    rows, columns = size
    made = _Weights(boxes, (rows, columns), input_size, spatial_scale, sampling_ratio, aligned)
    sizes = (batch * channels, k, batch, channels, *input_size, rows, columns)
    arguments = (grad_out, boxes, *made.weights, *made.extents, grad_x, *sizes)
    planes = Launch(blocks(batch * channels, 1), (PLANE_THREADS,), arguments)
    return (*made.launches, planes) if k else planes


for _op, _launch in (
    ("roi_pool", _pool),
    ("roi_pool_backward", _pool_backward),
    ("roi_align", _align),
    ("roi_align_backward", _align_backward),
):
    cuda_kernel(_op, name="planes", source=SOURCE, function=f"{_op}<{{T}}>", launch=_launch)
