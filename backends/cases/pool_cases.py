"""Cases of maximum, average and adaptive average pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trine.backends.cases.activation_cases import normal
from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.backends.reference.windows import Pair, output_sizes
from trine.dtypes import DType, int32, uint8


@dataclass(frozen=True)
class Layer:
    """A pooling of images of a shape."""

    shape: tuple[int, int, int, int]
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    @property
    def label(self) -> str:
        """The numbers that are not at their defaults."""
        words = [f"{self.shape} by {self.kernel}, stride {self.stride}"]
        if self.padding != (0, 0):
            words.append(f"padding {self.padding}")
        if self.dilation != (1, 1):
            words.append(f"dilation {self.dilation}")
        return ", ".join(words + ["ceil_mode"] * self.ceil_mode)

    @property
    def size(self) -> Pair:
        """Height and width of the input."""
        return self.shape[2], self.shape[3]

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output."""
        sizes = output_sizes(
            self.size, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )
        return (*self.shape[:2], *sizes)

    @property
    def window(self) -> dict[str, Any]:
        """The attributes that the ops of this file share."""
        return {"kernel_size": self.kernel, "stride": self.stride, "padding": self.padding}


LAYERS = (
    Layer((0, 2, 4, 4), (2, 2), (2, 2)),
    Layer((1, 1, 1, 1), (1, 1), (1, 1)),
    Layer((2, 3, 28, 28), (2, 2), (2, 2)),
    Layer((2, 3, 9, 7), (2, 2), (2, 2)),
    Layer((2, 3, 9, 7), (2, 2), (2, 2), ceil_mode=True),
    Layer((2, 3, 9, 8), (3, 3), (2, 2), (1, 1)),
    Layer((2, 3, 10, 8), (3, 3), (2, 2), (1, 1), ceil_mode=True),
    Layer((1, 2, 7, 6), (3, 2), (1, 1)),
    Layer((1, 2, 11, 9), (2, 3), (3, 4), (1, 0)),
    Layer((1, 2, 11, 9), (2, 3), (4, 3), (1, 1), ceil_mode=True),
    Layer((1, 2, 5, 6), (5, 6), (5, 6)),
    Layer((33, 31, 3, 3), (2, 2), (1, 1)),
    Layer((1, 1, 33, 257), (2, 2), (2, 2)),
    Layer((1, 2, 40, 40), (4, 4), (1, 1), (2, 2)),
    Layer((1, 1, 20, 18), (17, 16), (1, 1)),  # more than 256 elements: a wider argmax
)
"""One element, no image, windows that overlap, leave gaps, or reach past the end."""

DILATED = (
    Layer((2, 2, 9, 8), (2, 2), (1, 1), dilation=(2, 3)),
    Layer((2, 2, 11, 10), (3, 2), (2, 3), (1, 1), (2, 2)),
    Layer((2, 2, 11, 10), (3, 2), (2, 3), (1, 1), (2, 1), ceil_mode=True),
    Layer((1, 2, 1, 1), (2, 2), (1, 1), (1, 1), (2, 2)),  # all padding: -inf, argmax 0
)
"""Only maximum pooling has holes."""

TIMED = (
    ("tiny", Layer((8, 6, 28, 28), (2, 2), (2, 2))),
    ("typical", Layer((64, 16, 28, 28), (2, 2), (2, 2))),
    ("large", Layer((32, 64, 112, 112), (3, 3), (2, 2), (1, 1))),
)

Make = Callable[[Rng, DType, Layer], tuple[tuple[Any, ...], dict[str, Any]]]


def _timed(call: Make) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        return [Sample(label, *call(rng, dtype, layer)) for label, layer in TIMED]

    return samples


def _max_call(rng: Rng, dtype: DType, layer: Layer) -> tuple[tuple[Any, ...], dict[str, Any]]:
    attrs = {**layer.window, "dilation": layer.dilation, "ceil_mode": layer.ceil_mode}
    return (normal(rng, dtype, layer.shape),), attrs


def _max_pool2d(rng: Rng, dtype: DType) -> list[Sample]:
    found = [Sample(layer.label, *_max_call(rng, dtype, layer)) for layer in LAYERS + DILATED]
    for layer in (LAYERS[4], LAYERS[5], LAYERS[13], DILATED[1]):
        (x,), attrs = _max_call(rng, dtype, layer)
        values = {
            "ties": np.round(x),
            "all equal": np.zeros_like(x),
            "signed zeros": np.where(x > 0, 0.0, -0.0).astype(dtype),
            "NaN": np.where(x > 1, np.nan, x).astype(dtype),
            "-inf": np.full_like(x, -np.inf),
            "NaN and infinities": rng.choice([np.nan, -np.inf, np.inf, 0.0], x.shape).astype(dtype),
        }
        found.extend(Sample(f"{layer.label}, {n}", (v,), attrs) for n, v in values.items())
    return found


def _max_backward_call(
    rng: Rng, dtype: DType, layer: Layer
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Point each window at one of its elements that lies inside the input."""
    inside = []
    for i in (0, 1):
        starts = np.arange(layer.out_shape[2 + i]) * layer.stride[i] - layer.padding[i]
        places = starts[:, None] + np.arange(layer.kernel[i]) * layer.dilation[i]
        inside.append((places >= 0) & (places < layer.size[i]))  # (P, R), (Q, S)
    here = inside[0][:, None, :, None] & inside[1][None, :, None, :]  # (P, Q, R, S)
    scores = rng.random((*layer.out_shape, layer.kernel[0] * layer.kernel[1]))
    scores[..., :] *= here.reshape(*here.shape[:2], -1)
    index = uint8 if layer.kernel[0] * layer.kernel[1] <= 256 else int32
    argmax = scores.argmax(-1).astype(index)
    attrs = {"input_size": layer.size, **layer.window, "dilation": layer.dilation}
    return (normal(rng, dtype, layer.out_shape), argmax), attrs


def _max_pool2d_backward(rng: Rng, dtype: DType) -> list[Sample]:
    return [Sample(a.label, *_max_backward_call(rng, dtype, a)) for a in LAYERS + DILATED]


def _avg_call(rng: Rng, dtype: DType, layer: Layer) -> tuple[tuple[Any, ...], dict[str, Any]]:
    attrs = {
        **layer.window, "ceil_mode": layer.ceil_mode, "count_include_pad": True,
        "divisor_override": 0,
    }  # fmt: skip
    return (normal(rng, dtype, layer.shape),), attrs


def _avg_backward_call(
    rng: Rng, dtype: DType, layer: Layer
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    _, attrs = _avg_call(rng, dtype, layer)
    return (normal(rng, dtype, layer.out_shape),), {"input_size": layer.size, **attrs}


def _averages(call: Make) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for layer in LAYERS:
            arrays, attrs = call(rng, dtype, layer)
            found.append(Sample(layer.label, arrays, attrs))
            if layer.padding != (0, 0) or layer.ceil_mode:
                inside = {**attrs, "count_include_pad": False}
                found.append(Sample(f"{layer.label}, without padding", arrays, inside))
                for divisor in (7, -3):
                    given = {**attrs, "divisor_override": divisor}
                    found.append(Sample(f"{layer.label}, divisor {divisor}", arrays, given))
        return found

    return samples


BINS: tuple[tuple[tuple[int, int, int, int], Pair], ...] = (
    ((0, 2, 4, 4), (2, 2)), ((1, 1, 1, 1), (1, 1)), ((2, 3, 7, 5), (1, 1)), ((2, 3, 7, 5), (3, 2)),
    ((2, 3, 7, 5), (7, 5)), ((1, 2, 2, 3), (5, 4)), ((33, 31, 4, 4), (1, 1)),
    ((1, 1, 33, 257), (4, 32)),
)  # fmt: skip
"""(shape, output_size): one bin, uneven ones, as many as elements, more than elements."""

TIMED_BINS = (
    ("tiny", ((8, 16, 7, 7), (1, 1))),
    ("typical", ((64, 256, 7, 7), (1, 1))),
    ("large", ((64, 256, 14, 14), (6, 6))),
)


def _bins(
    rng: Rng, dtype: DType, backward: bool, shape: tuple[int, int, int, int], bins: Pair
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if backward:
        return (normal(rng, dtype, (*shape[:2], *bins)),), {"input_size": shape[2:]}
    return (normal(rng, dtype, shape),), {"output_size": bins}


def _adaptive(backward: bool) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        return [
            Sample(f"{shape} to {bins}", *_bins(rng, dtype, backward, shape, bins))
            for shape, bins in BINS
        ]

    return samples


def _adaptive_timed(backward: bool) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        return [
            Sample(label, *_bins(rng, dtype, backward, shape, bins))
            for label, (shape, bins) in TIMED_BINS
        ]

    return samples


register(OpCase("max_pool2d", _max_pool2d, "exact", _timed(_max_call)))
register(
    OpCase("max_pool2d_backward", _max_pool2d_backward, "elementwise", _timed(_max_backward_call))
)
register(OpCase("avg_pool2d", _averages(_avg_call), "reduction", _timed(_avg_call)))
register(
    OpCase(
        "avg_pool2d_backward",
        _averages(_avg_backward_call),
        "reduction",
        _timed(_avg_backward_call),
    )
)
for _backward in (False, True):
    register(
        OpCase(
            f"adaptive_avg_pool2d{'_backward' * _backward}", _adaptive(_backward), "reduction",
            _adaptive_timed(_backward),
        )
    )  # fmt: skip
