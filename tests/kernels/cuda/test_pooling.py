"""Pooling over windows that overlap, leave gaps or lie in the padding, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest

from trine.kernels.cuda import pooling

RNG = np.random.default_rng(13)

WINDOWS = [
    {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0)},
    {"kernel_size": (3, 4), "stride": (1, 2), "padding": (1, 2)},
    {"kernel_size": (2, 3), "stride": (3, 4), "padding": (0, 1)},
]
DILATED = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1), "dilation": (2, 3)}


def normal(shape, dtype="float32"):
    return RNG.normal(size=shape).astype(dtype)


def max_and_back(cuda, agrees, x, window, tolerance="elementwise"):
    agrees("max_pool2d", x, tolerance="exact", **window)
    out, argmax = cuda.max_pool2d(cuda.xp.asarray(x), **window)
    grad, places = normal(out.shape, x.dtype), cuda.to_numpy(argmax)
    window = {k: v for k, v in window.items() if k != "ceil_mode"}
    agrees(
        "max_pool2d_backward", grad, places, input_size=x.shape[2:], tolerance=tolerance, **window
    )


@pytest.mark.parametrize("window", [*WINDOWS, DILATED])
def test_maxima_and_where_their_errors_go(cuda, agrees, order, window):
    max_and_back(cuda, agrees, normal((2, 5, 13, 12)), window)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_windows_past_the_end_and_wide_arguments(cuda, agrees, ceil_mode):
    window = {"kernel_size": (17, 17), "stride": (5, 6), "ceil_mode": ceil_mode}
    max_and_back(cuda, agrees, normal((1, 2, 24, 26), "float64"), window)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("with_padding", [False, True])
@pytest.mark.parametrize("divisor", [0, 5])
def test_averages_and_their_gradients(agrees, order, window, with_padding, divisor):
    attrs = {**window, "count_include_pad": with_padding, "divisor_override": divisor}
    x = normal((3, 2, 11, 10))
    agrees("avg_pool2d", x, ceil_mode=False, **attrs)
    sizes = [
        (x.shape[2 + i] + 2 * window["padding"][i] - window["kernel_size"][i])
        // window["stride"][i]
        + 1
        for i in (0, 1)
    ]
    agrees("avg_pool2d_backward", normal((3, 2, *sizes)), input_size=(11, 10), **attrs)


@pytest.mark.parametrize("bins", [(1, 1), (3, 4), (9, 11), (12, 2)])
def test_adaptive_bins_small_large_and_overlapping(agrees, order, bins):
    agrees("adaptive_avg_pool2d", normal((2, 7, 9, 11)), output_size=bins)
    agrees("adaptive_avg_pool2d_backward", normal((2, 7, *bins)), input_size=(9, 11))


def test_indices_of_64_bits(cuda, agrees, monkeypatch):
    monkeypatch.setattr(pooling, "INT_ELEMENTS", 100)
    max_and_back(cuda, agrees, normal((2, 3, 9, 8)), WINDOWS[1])
    agrees("avg_pool2d", normal((2, 3, 9, 8)), **WINDOWS[1])
    agrees("avg_pool2d_backward", normal((2, 3, 4, 4)), input_size=(8, 8), **WINDOWS[0])
