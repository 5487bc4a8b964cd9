"""Convolutions whose products fill several tiles and ragged ends, by tiles and directly."""

from __future__ import annotations

import numpy as np
import pytest

from trine.kernels import registry
from trine.kernels.cuda import tiles

RNG = np.random.default_rng(12)
PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}

LAYERS = [
    ((2, 5, 9, 11), (70, 3, 2), {"padding": (1, 0)}),
    ((1, 4, 15, 12), (18, 3, 3), {"stride": (2, 3), "padding": (2, 1), "groups": 2}),
    ((2, 3, 12, 13), (5, 3, 3), {"stride": (2, 2), "dilation": (2, 3), "padding": (3, 2)}),
    ((1, 6, 7, 8), (6, 3, 3), {"stride": (2, 1), "padding": (1, 1), "groups": 6}),
    ((1, 3, 9, 9), (4, 2, 2), {"stride": (4, 3), "dilation": (2, 2)}),
]
"""Several row tiles; groups; strides and dilations with a common factor; depthwise; gaps."""


def normal(shape, dtype="float32"):
    return RNG.normal(size=shape).astype(dtype)


def arrays(layer, dtype="float32"):
    shape, (k, r, s), changes = layer
    attrs = {**PLAIN, **changes}
    sizes = [
        (shape[2 + i] + 2 * attrs["padding"][i] - attrs["dilation"][i] * ((r, s)[i] - 1) - 1)
        // attrs["stride"][i]
        + 1
        for i in (0, 1)
    ]
    weight = normal((k, shape[1] // attrs["groups"], r, s), dtype)
    return normal(shape, dtype), weight, normal((shape[0], k, *sizes), dtype), attrs


def all_ops(agrees, layer, dtype="float32"):
    x, weight, delta, attrs = arrays(layer, dtype)
    bias = normal((weight.shape[0],), dtype)
    ran = [agrees("conv2d", x, weight, bias, activation="relu", **attrs)]
    ran.append(agrees("conv2d_input_grad", delta, weight, input_size=x.shape[2:], **attrs))
    ran.append(agrees("conv2d_weight_grad", delta, x, kernel_size=weight.shape[2:], **attrs))
    agrees("conv_transpose2d", delta, weight, None, output_padding=(0, 0), **attrs)
    return ran


@pytest.mark.parametrize("layer", LAYERS)
def test_kernels_chosen_by_shape(agrees, order, layer):
    all_ops(agrees, layer)


@pytest.mark.parametrize("layer", LAYERS[1:4])
def test_tiles_serve_every_shape(agrees, order, layer):
    for op in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d"):
        registry.prefer(op, "implicit_gemm")
    assert all_ops(agrees, layer) == ["implicit_gemm"] * 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_tiles(agrees, monkeypatch, dtype):
    monkeypatch.setattr(tiles, "MANY_BLOCKS", 1)
    layer = ((2, 17, 9, 10), (130, 2, 2), {"stride": (1, 2), "padding": (1, 0)})
    assert all_ops(agrees, layer, dtype) == ["implicit_gemm"] * 3


def test_few_channels_and_depthwise_run_directly(agrees):
    assert all_ops(agrees, LAYERS[3]) == ["direct"] * 3


def test_deep_sums_are_cut_and_added_in_order(agrees, order):
    layer = ((3, 4, 20, 20), (20, 2, 2), {"padding": (1, 1)})
    assert all_ops(agrees, layer)[2] == "implicit_gemm"


def test_more_pixels_than_an_index_counts_are_refused(cuda):
    with pytest.raises(
        ValueError, match=r"\[conv2d\] expected at most .* output pixels, got .*batch"
    ):
        tiles.check("conv2d", output_pixels=2**31)
