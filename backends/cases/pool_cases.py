"""Cases of pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.backends import get_backend
from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.dtypes import DType

# shape, kernel, stride, padding, dilation, ceil_mode
GEOMETRIES: tuple[tuple[Any, ...], ...] = (
    ((1, 1, 2, 2), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 7, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 7, 8), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((2, 3, 7, 8), (3, 2), (2, 3), (1, 0), (1, 1), True),
    ((1, 2, 9, 9), (2, 3), (1, 1), (0, 1), (2, 1), False),
    ((1, 2, 10, 5), (3, 3), (3, 3), (1, 1), (1, 1), True),
    ((0, 2, 4, 4), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 1, 20, 20), (17, 17), (1, 1), (0, 0), (1, 1), False),
)


def _attrs(g: tuple[Any, ...]) -> dict[str, Any]:
    return dict(
        zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), g[1:], strict=True)
    )


def _max(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for g in GEOMETRIES:
        found.append(Sample(f"{g}", (rng.normal(size=g[0]).astype(dtype),), _attrs(g)))
        ties = rng.integers(0, 2, g[0]).astype(dtype)
        found.append(Sample(f"{g} with ties", (ties,), _attrs(g)))
    x = rng.normal(size=(1, 1, 6, 6)).astype(dtype)
    x[0, 0, :3, :3], x[0, 0, 4, 4], x[0, 0, 4, 5] = -np.inf, np.nan, np.nan
    found.append(Sample("-inf and NaN", (x,), _attrs(GEOMETRIES[1])))
    found.append(Sample("-inf and NaN, padded", (x,), _attrs(GEOMETRIES[2])))
    return found


def _max_backward(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    numpy = get_backend("numpy")
    for g in GEOMETRIES:
        attrs = _attrs(g)
        out, argmax = numpy.max_pool2d(rng.normal(size=g[0]).astype(dtype), **attrs)
        del attrs["ceil_mode"]
        grad_out = rng.normal(size=out.shape).astype(dtype)
        found.append(Sample(f"{g}", (grad_out, argmax), {"input_size": g[0][2:], **attrs}))
    return found


def _avg_attrs() -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    found = []
    for g in GEOMETRIES:
        if g[4] != (1, 1):
            continue
        attrs = _attrs(g)
        del attrs["dilation"]
        for include, divisor in ((True, 0), (False, 0), (True, 3)):
            found.append((g, {**attrs, "count_include_pad": include, "divisor_override": divisor}))
    return found


def _avg(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(f"{g[0]} {attrs}", (rng.normal(size=g[0]).astype(dtype),), attrs)
        for g, attrs in _avg_attrs()
    ]


def _avg_backward(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    numpy = get_backend("numpy")
    for g, attrs in _avg_attrs():
        shape = numpy.avg_pool2d(np.zeros(g[0], dtype), **attrs).shape
        grad_out = rng.normal(size=shape).astype(dtype)
        found.append(Sample(f"{g[0]} {attrs}", (grad_out,), {"input_size": g[0][2:], **attrs}))
    return found


def _timed(rng: Rng, dtype: DType) -> list[tuple[str, Any, dict[str, Any]]]:
    attrs = {
        "kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1),
        "ceil_mode": False,
    }  # fmt: skip
    sizes = (("tiny", (64, 16, 10, 10)), ("typical", (64, 6, 28, 28)), ("large", (32, 64, 56, 56)))
    return [(label, rng.normal(size=s).astype(dtype), attrs) for label, s in sizes]


def _max_timing(rng: Rng, dtype: DType) -> list[Sample]:
    return [Sample(label, (x,), attrs) for label, x, attrs in _timed(rng, dtype)]


def _max_backward_timing(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for label, x, attrs in _timed(rng, dtype):
        out, argmax = get_backend("numpy").max_pool2d(x, **attrs)
        rest = {k: v for k, v in attrs.items() if k != "ceil_mode"}
        found.append(Sample(label, (out, argmax), {"input_size": x.shape[2:], **rest}))
    return found


def _avg_timing(rng: Rng, dtype: DType) -> list[Sample]:
    extra = {"count_include_pad": True, "divisor_override": 0}
    return [
        Sample(label, (x,), {**{k: v for k, v in attrs.items() if k != "dilation"}, **extra})
        for label, x, attrs in _timed(rng, dtype)
    ]


def _avg_backward_timing(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(
            s.label,
            (np.ascontiguousarray(s.args[0][:, :, ::2, ::2]),),
            {"input_size": s.args[0].shape[2:], **s.attrs},
        )
        for s in _avg_timing(rng, dtype)
    ]


register(OpCase("max_pool2d", _max, "exact", _max_timing))
register(OpCase("max_pool2d_backward", _max_backward, "elementwise", _max_backward_timing))
register(OpCase("avg_pool2d", _avg, "reduction", _avg_timing))
register(OpCase("avg_pool2d_backward", _avg_backward, "elementwise", _avg_backward_timing))


def _adaptive(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(f"{s} to {o}", (rng.normal(size=s).astype(dtype),), {"output_size": o})
        for s, o in (((2, 3, 7, 8), (3, 5)), ((1, 1, 4, 4), (1, 1)), ((1, 2, 3, 3), (5, 3)))
    ]


def _adaptive_backward(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(f"{o} of {s}", (rng.normal(size=(2, 3, *o)).astype(dtype),), {"input_size": s})
        for s, o in (((7, 8), (3, 5)), ((4, 4), (1, 1)), ((3, 3), (5, 3)))
    ]


register(OpCase("adaptive_avg_pool2d", _adaptive, "reduction"))
register(OpCase("adaptive_avg_pool2d_backward", _adaptive_backward, "elementwise"))
