"""Every Numba kernel against the reference in float64, with odd shapes and hostile values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from trine.backends import Backend, get_backend
from trine.backends.recording import LaunchRecorder
from trine.kernels import registry
from trine.kernels.numba import jit
from trine.kernels.numba.softmax import group_room, softmax_groups
from trine.kernels.numba.vectors import VECTOR_BYTES

Pair = tuple[int, int]


@dataclass
class Call:
    """An op, its arrays in float64, and its attributes."""

    op: str
    arrays: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        shapes = "x".join(str(a.shape) for a in self.arrays if a is not None)
        return f"{self.op}-{self.note or shapes}"

    def in_dtype(self, dtype: str) -> list[Any]:
        """Return copies of the arrays, all floats but an optimiser's numbers in a dtype."""
        copies: list[Any] = []
        for array in self.arrays:
            is_number = self.op.endswith("_step") and array is not None and array.size == 1
            if array is None or array.dtype.kind != "f" or is_number:
                copies.append(None if array is None else array.copy())
            else:
                copies.append(array.astype(dtype))
        return copies


def _normal(seed: int, *shape: int) -> Any:
    # Rounded to float32, so that both dtypes see the same numbers.
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(np.float64)


# N, C, H, W, K, kernel, stride, padding, dilation, groups
CONVOLUTIONS: list[tuple[int, int, int, int, int, Pair, Pair, Pair, Pair, int]] = [
    (3, 1, 28, 28, 6, (5, 5), (1, 1), (2, 2), (1, 1), 1),
    (2, 6, 14, 14, 16, (5, 5), (1, 1), (0, 0), (1, 1), 1),
    (2, 3, 9, 11, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 4, 9, 11, 6, (3, 2), (2, 3), (2, 1), (2, 1), 2),
    (3, 6, 7, 8, 6, (3, 3), (1, 2), (1, 0), (1, 2), 6),
    (1, 1, 600, 3, 1, (1, 3), (1, 1), (0, 1), (1, 1), 1),
    (1, 2, 3, 600, 3, (2, 3), (1, 1), (0, 1), (1, 1), 1),
    (2, 5, 12, 12, 7, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (1, 3, 31, 29, 5, (11, 11), (4, 4), (2, 2), (1, 1), 1),
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (1, 2, 3, 3, 2, (5, 5), (3, 3), (4, 4), (1, 1), 2),
    (0, 3, 8, 8, 2, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    # enough channels for pixels to be gathered tap by tap
    (2, 32, 9, 7, 40, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (3, 33, 10, 31, 35, (3, 2), (2, 1), (1, 1), (1, 2), 1),
    (1, 64, 5, 27, 66, (1, 1), (1, 1), (0, 0), (1, 1), 2),
    (2, 32, 3, 50, 32, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (1, 40, 30, 2, 33, (3, 2), (3, 2), (2, 1), (1, 1), 1),
    # Winograd: several small images side by side, an odd rest of them, a border of every width
    (5, 32, 5, 6, 34, (3, 3), (1, 1), (1, 0), (1, 1), 1),
    (17, 36, 3, 2, 32, (3, 3), (1, 1), (2, 1), (1, 1), 1),
    # depthwise: rows of several vectors and of less than one, few rows, up to the end of memory,
    # more images than chunks of sums, more taps than sums in registers, every stride
    (2, 4, 9, 41, 4, (3, 3), (1, 1), (1, 1), (1, 1), 4),
    (2, 3, 5, 7, 3, (3, 3), (1, 1), (1, 1), (1, 1), 3),
    (3, 2, 4, 5, 2, (3, 3), (1, 1), (0, 0), (1, 1), 2),
    (9, 3, 6, 6, 3, (3, 3), (1, 1), (2, 2), (1, 1), 3),
    (2, 2, 9, 19, 4, (5, 5), (2, 2), (2, 2), (1, 1), 2),
    (2, 3, 11, 33, 3, (3, 3), (2, 2), (1, 1), (2, 2), 3),
    (1, 2, 10, 40, 6, (2, 4), (3, 2), (1, 3), (1, 1), 2),
    # lines of whole vectors and of a rest, few and odd channels, lines that meet no error
    (3, 2, 7, 8, 5, (3, 3), (1, 1), (0, 0), (1, 1), 1),
    (2, 3, 20, 17, 9, (3, 5), (1, 1), (1, 2), (1, 1), 1),
    (2, 6, 6, 40, 9, (3, 3), (1, 1), (1, 1), (1, 1), 3),
    (2, 2, 8, 33, 3, (2, 1), (1, 1), (0, 0), (7, 1), 1),
    (1, 5, 30, 26, 25, (3, 2), (1, 1), (2, 1), (2, 1), 1),
    (2, 1, 5, 24, 17, (5, 1), (1, 1), (4, 0), (1, 1), 1),
    (9, 24, 6, 9, 2, (2, 2), (1, 1), (1, 1), (1, 1), 1),
    # 1x1 with many channels: a tile of pixels that ends where an image does, one vector of pixels
    (3, 130, 5, 5, 133, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (1, 140, 2, 4, 129, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (2, 3, 2, 9, 3, (3, 3), (1, 1), (1, 1), (1, 1), 3),  # depthwise, two rows
]
ACTIVATIONS = ("none", "relu", "sigmoid", "tanh")


def convolutions() -> Iterator[Call]:
    """Yield convolutions and both of their gradients."""
    for i, (n, c, h, w, k, kernel, stride, padding, dilation, groups) in enumerate(CONVOLUTIONS):
        x, weight = _normal(i, n, c, h, w), _normal(i + 50, k, c // groups, *kernel) / 4
        out = tuple(
            (size + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1
            for a, size in enumerate((h, w))
        )
        error = _normal(i + 99, n, k, *out)
        shared = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        bias = _normal(i + 10, k) if i % 3 else None
        activation = ACTIVATIONS[i % 4]
        yield Call("conv2d", [x, weight, bias], {**shared, "activation": activation})
        yield Call("conv2d_input_grad", [error, weight], {"input_size": (h, w), **shared})
        yield Call("conv2d_weight_grad", [error, x], {"kernel_size": kernel, **shared})
        more = tuple(
            size - (out[a] - 1) * stride[a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1
            for a, size in enumerate((h, w))
        )
        bias = _normal(i + 11, c) if i % 2 else None
        yield Call("conv_transpose2d", [error, weight, bias], {"output_padding": more, **shared})
    shared = {"stride": (1, 1), "dilation": (1, 1), "groups": 1}
    for i, (n, c, h, w, k, *padding) in enumerate(
        [(5, 64, 5, 6, 64, 1, 0), (17, 72, 3, 2, 68, 2, 1), (2, 64, 33, 20, 72, 0, 0)]
    ):  # channels enough for Winograd's weight gradient: images by themselves, and several together
        error = _normal(i, n, k, h + 2 * padding[0] - 2, w + 2 * padding[1] - 2)
        how = {"kernel_size": (3, 3), "padding": tuple(padding), **shared}
        yield Call("conv2d_weight_grad", [error, _normal(i + 5, n, c, h, w)], how)
    bad = _normal(3, 2, 2, 8, 8)
    bad[0, 0, 3, 3], bad[1, 1, 0, 7] = np.nan, np.inf
    error, weight = _normal(4, 2, 3, 8, 8), _normal(5, 3, 2, 3, 3)
    shared = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    yield Call("conv2d", [bad, weight, None], {**shared, "activation": "none"}, "nan")
    yield Call("conv2d_weight_grad", [error, bad], {"kernel_size": (3, 3), **shared}, "nan")
    bad, error = bad.reshape(2, 2, 4, 16)[..., :11].copy(), _normal(4, 2, 2, 4, 11)
    shared["groups"] = 2  # the last vector of a row reads beyond it
    yield Call("conv2d_weight_grad", [error, bad], {"kernel_size": (3, 3), **shared}, "nan beside")


# N, C, H, W, kernel, stride, padding, dilation, ceil_mode
POOLS: list[tuple[int, int, int, int, Pair, Pair, Pair, Pair, bool]] = [
    (2, 3, 28, 28, (2, 2), (2, 2), (0, 0), (1, 1), False),
    (2, 3, 9, 7, (3, 3), (2, 2), (1, 1), (1, 1), False),
    (1, 2, 9, 7, (2, 2), (2, 2), (0, 0), (1, 1), False),
    (1, 2, 9, 7, (2, 2), (2, 2), (0, 0), (1, 1), True),
    (1, 2, 9, 7, (3, 2), (2, 3), (1, 1), (1, 1), True),
    (1, 2, 13, 12, (3, 2), (1, 1), (1, 0), (2, 3), False),
    (1, 1, 20, 21, (17, 16), (3, 3), (8, 8), (1, 1), True),
    (1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1), False),
    (3, 2, 7, 5, (7, 5), (7, 5), (0, 0), (1, 1), False),
    (2, 2, 5, 6, (7, 8), (1, 1), (1, 1), (1, 1), False),
    (2, 2, 5, 6, (6, 6), (9, 9), (1, 1), (1, 1), False),
    (0, 2, 4, 4, (2, 2), (2, 2), (0, 0), (1, 1), False),
    # rows narrower than a vector, and planes shorter than one, up to the end of memory
    (3, 4, 10, 10, (2, 2), (2, 2), (0, 0), (1, 1), False),
    (5, 3, 2, 3, (2, 2), (2, 2), (0, 0), (1, 1), False),
    (3, 2, 5, 4, (2, 3), (1, 1), (0, 0), (1, 1), False),
    (2, 2, 6, 39, (3, 3), (2, 2), (0, 1), (1, 1), True),
    # 3 x 3 that lie 2 apart: whole vectors of pairs, and a rest; a row above and one below the plane
    (2, 2, 6, 40, (3, 3), (2, 2), (1, 1), (1, 1), False),
    (3, 1, 7, 36, (3, 3), (2, 2), (0, 0), (1, 1), True),
    (2, 3, 4, 5, (3, 3), (2, 2), (1, 0), (1, 1), False),
    (2, 2, 3, 34, (3, 3), (2, 2), (0, 1), (1, 1), True),
    (2, 2, 8, 50, (2, 4), (1, 3), (1, 2), (1, 1), False),
    (1, 2, 6, 23, (2, 2), (2, 1), (1, 1), (3, 2), True),
]


def pools(reference: Any) -> Iterator[Call]:
    """Yield max and average pooling; the gradient of max pooling needs a reference's argmax."""
    for i, (n, c, h, w, kernel, stride, padding, dilation, ceil) in enumerate(POOLS):
        x = np.round(_normal(i, n, c, h, w))  # many ties
        if i < 2:
            x[0, 0, 0, :5], x[1, 1, 4, 4], x[1, 2] = np.nan, np.inf, -np.inf
        place = {"kernel_size": kernel, "stride": stride, "padding": padding}
        yield Call("max_pool2d", [x], {**place, "dilation": dilation, "ceil_mode": ceil})
        out, argmax = reference.max_pool2d(x, **place, dilation=dilation, ceil_mode=ceil)
        sizes = {"input_size": (h, w), **place}
        error = _normal(i + 7, *out.shape)
        yield Call("max_pool2d_backward", [error, argmax], {**sizes, "dilation": dilation})
        if dilation != (1, 1):
            continue
        for include, override in ((True, 0), (False, 0), (True, 3)):
            how = {"count_include_pad": include, "divisor_override": override, "ceil_mode": ceil}
            x = _normal(i, n, c, h, w)
            note = f"{i}{include}{override}"
            yield Call("avg_pool2d", [x], {**place, **how}, note)
            yield Call("avg_pool2d_backward", [error], {**sizes, **how}, note)


def rowwise() -> Iterator[Call]:
    """Yield bias and activation, softmax and cross-entropy."""
    for shape in ((5, 7), (3, 4, 6, 5), (2, 1, 33), (0, 3), (70, 10), (19, 3, 8, 9), (2, 2, 2100)):
        for activation in ACTIVATIONS:
            x, bias = 3 * _normal(1, *shape), _normal(2, shape[1])
            out = np.tanh(x)  # serves every rule
            choice = {"activation": activation}
            yield Call("bias_act", [x, bias], choice, f"{shape}{activation}")
            yield Call("bias_act", [x, None], choice, f"{shape}{activation}-plain")
            yield Call(
                "bias_act_backward", [_normal(3, *shape), out], choice, f"{shape}{activation}"
            )
    for size in (0, 1, 4097, 9001):
        for name in ACTIVATIONS[1:]:
            x = _normal(4, size)
            yield Call(name, [20 * x])
            how = {"activation": name}
            yield Call("act_backward", [_normal(5, size), np.tanh(x)], how, f"{size}{name}")
    special = np.array([[np.nan, 1.0, 2.0], [-np.inf, 0.0, 1.0], [-np.inf] * 3, [np.inf, 1.0, 2.0]])
    for i, x in enumerate(
        (
            _normal(4, 5, 9) * 20,
            _normal(5, 3, 4, 6),
            special,
            _normal(6, 300, 1),
            _normal(6, 130, 40) * 40,
            _normal(6, 3, 1100, 70),
        )
    ):
        for axis in (-1, 0, 1):
            for op in ("softmax", "log_softmax"):
                yield Call(op, [x], {"axis": axis}, f"{i}{axis}")
                out = _normal(7, *x.shape) / 9
                yield Call(
                    f"{op}_backward", [_normal(8, *x.shape), out], {"axis": axis}, f"{i}{axis}"
                )
    yield from _cross_entropies()


def _cross_entropies() -> Iterator[Call]:
    logits = _normal(9, 33, 10) * 5
    target = np.random.default_rng(1).integers(0, 10, 33)
    target[3:9] = -100
    wrong = target.copy()
    wrong[0] = 10
    nothing = np.full(33, -100)
    for i, labels in enumerate((target, wrong, nothing)):
        for weight in (None, np.abs(_normal(10, 10))):
            for smoothing in (0.0, 0.1):
                for reduction in ("none", "mean", "sum"):
                    how = {
                        "ignore_index": -100,
                        "label_smoothing": smoothing,
                        "reduction": reduction,
                    }
                    note = f"{i}{weight is None}{smoothing}{reduction}"
                    yield Call("cross_entropy", [logits, labels, weight], how, note)
                    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
                    log_probs = log_probs.astype(np.float32).astype(np.float64)
                    grad = _normal(11, 33) if reduction == "none" else np.array(1.5)
                    arrays = [grad, log_probs, labels, weight]
                    yield Call("cross_entropy_backward", arrays, how, note)


# N, C, L: planes and columns, one part and several, beyond a piece, a block and a tile of rows
BATCHES: list[tuple[int, int, int]] = [
    (5, 3, 40), (2, 20, 2081), (40, 1, 64), (3, 2, 1), (70, 5, 1), (100, 130, 9), (33, 1100, 1),
]  # fmt: skip
# N, C, L, groups
GROUPS: list[tuple[int, int, int, int]] = [
    (3, 6, 40, 2), (2, 4, 1100, 2), (2, 6, 7, 3), (150, 4, 1, 2), (1, 3, 2081, 3), (0, 4, 20, 2),
]  # fmt: skip
ROWS = [(5, 7), (1, 1), (600, 33), (3, 2081), (0, 3)]


def norms() -> Iterator[Call]:
    """Yield normalisations, also of numbers whose mean is a thousand times their spread."""
    for centre in (0.0, 1000.0):
        for n, c, length in BATCHES:
            x = _far(centre, n, c, length)
            yield from _normalised("batch_norm", x, x.mean(axis=(0, 2)), x.var(axis=(0, 2)), {})
            yield from _evaluated(x)
        for shape in ROWS:
            x = _far(centre, *shape)
            yield from _normalised("layer_norm", x, x.mean(1), 1 / np.sqrt(x.var(1) + 1e-5), {})
        for n, c, length, groups in GROUPS:
            x = _far(centre, n, c, length)
            rows = x.reshape(n, groups, c // groups * length)
            rstd = 1 / np.sqrt(rows.var(2) + 1e-5)
            yield from _normalised("group_norm", x, rows.mean(2), rstd, {"groups": groups})
    for op, shape, axes in (("layer_norm", (3, 2081), 1), ("batch_norm", (300, 33, 1), (0, 2))):
        x = _normal(1, *shape)  # a beginning far from the rest misleads who takes its mean for all
        x.flat[:64] += 1000
        spread = x.var(axes) if op == "batch_norm" else 1 / np.sqrt(x.var(axes) + 1e-5)
        yield from _normalised(op, x, x.mean(axes), spread, {})
    for bad in (np.nan, np.inf):
        for op, shape, choice in (
            ("batch_norm", (3, 2, 40), {}), ("batch_norm", (5, 3, 2), {}), ("layer_norm", (3, 9), {}),
            ("group_norm", (2, 4, 40), {"groups": 2}),
        ):  # fmt: skip
            x = _normal(1, *shape)
            x.flat[5] = bad
            yield Call(op, [x, None, None], {"eps": 1e-5, **choice}, f"{shape}{bad}")
            if op == "batch_norm":
                yield from _evaluated(x)


def _evaluated(x: Any) -> Iterator[Call]:
    c = x.shape[1]
    weight, bias, mean, var = (_normal(i, c) for i in (5, 6, 7, 8))
    for w, b in ((weight, bias), (None, None)):
        note = f"{x.shape}{x.flat[5] > 9}{np.isnan(x).any()}{w is None}"
        near = mean + np.round(x.flat[0]) if np.isfinite(x).all() else mean
        moments = [a.astype(np.float32).astype(np.float64) for a in (near, var * var)]
        yield Call("batch_norm_eval", [x, w, b, *moments], {"eps": 1e-5}, note)
        arrays = [_normal(9, *x.shape), x, w, *moments]
        yield Call("batch_norm_eval_backward", arrays, {"eps": 1e-5}, note)


def _far(centre: float, *shape: int) -> Any:
    return (_normal(1, *shape) + centre).astype(np.float32).astype(np.float64)


def _normalised(op: str, x: Any, mean: Any, spread: Any, choice: dict[str, Any]) -> Iterator[Call]:
    weight, bias, error = _normal(2, x.shape[1]), _normal(3, x.shape[1]), _normal(4, *x.shape)
    mean, spread = (a.astype(np.float32).astype(np.float64) for a in (mean, spread))
    taken = {**choice, "eps": 1e-5} if op == "batch_norm" else choice
    for w, b in ((weight, bias), (None, None)):
        note = f"{x.shape}{x.max() > 9 if x.size else ''}{w is None}{choice.get('groups', '')}"
        yield Call(op, [x, w, b], {"eps": 1e-5, **choice}, note)
        yield Call(f"{op}_backward", [error, x, w, mean, spread], taken, note)


def responses() -> Iterator[Call]:
    """Yield local response normalisation: windows of any size, powers that are roots and others."""
    for i, (shape, size, beta) in enumerate((
        ((2, 7, 5), 5, 0.75), ((1, 1, 1), 4, 0.75), ((3, 9, 1100), 3, 0.75), ((2, 4, 33), 8, 1.3),
        ((0, 3, 4), 5, 0.75), ((1, 5, 600), 2, 0.5),
    )):  # fmt: skip
        x, error = _normal(i, *shape), _normal(i + 20, *shape)
        how = {"size": size, "alpha": 0.5, "beta": beta}
        scale = 1 + np.abs(_normal(i + 40, *shape))
        yield Call("local_response_norm", [x], {**how, "k": 2.0})
        yield Call("local_response_norm_backward", [error, x, scale], how)
    x[0, 2, 7] = np.nan
    yield Call("local_response_norm", [x], {**how, "k": 2.0}, "nan")


def regions(reference: Any) -> Iterator[Call]:
    """Yield pooling of boxes: across edges, upside down, of no size, of images that do not exist."""
    for i, (n, c, h, w, k, size) in enumerate((
        (2, 3, 9, 8, 20, (3, 2)), (1, 1, 1, 1, 2, (1, 1)), (2, 5, 40, 33, 9, (7, 7)),
        (3, 2, 4, 5, 60, (5, 6)), (2, 3, 4, 4, 0, (2, 2)),
    )):  # fmt: skip
        x, error = np.round(4 * _normal(i, n, c, h, w)) / 4, _normal(i + 20, k, c, *size)
        corners = np.round(2 * _normal(i + 40, k, 4) * [w, h, w, h]) / 2 + [0, 0, w, h]
        boxes = np.concatenate([np.arange(k)[:, None] % (n + 1), corners], axis=1)
        boxes[:: max(1, k // 3), 1:] = [0.5, 0, w - 1.5, h]
        sizes = {"batch": n, "input_size": (h, w)}
        for scale in (1.0, 0.5):
            note = f"{i}-{scale}"
            place = {"output_size": size, "spatial_scale": scale}
            yield Call("roi_pool", [x, boxes], place, note)
            argmax = reference.roi_pool(x, boxes, **place)[1]
            yield Call("roi_pool_backward", [error, argmax, boxes], sizes, note)
            for ratio, aligned in ((0, False), (0, True), (2, False), (3, True)):
                how = {"spatial_scale": scale, "sampling_ratio": ratio, "aligned": aligned}
                note = f"{i}-{scale}-{ratio}-{aligned}"
                yield Call("roi_align", [x, boxes], {"output_size": size, **how}, note)
                yield Call("roi_align_backward", [error, boxes], {**sizes, **how}, note)


def suppressions() -> Iterator[Call]:
    """Yield non-maximum suppression: many overlaps, ties, NaN."""
    for count in (0, 1, 90, 500):
        corner = np.round(9 * _normal(count, count, 2))
        boxes = np.concatenate([corner, corner + np.round(_normal(1, count, 2) ** 2 * 4)], axis=1)
        scores = np.round(2 * _normal(2, count), 1).astype(np.float32).astype(np.float64)
        scores[5:7], boxes[9:11, 0] = np.nan, np.nan
        for threshold in (0.0, 0.5):
            how = {"iou_threshold": threshold}
            yield Call("nms", [boxes, scores], how, f"{count}-{threshold}")


def draws() -> Iterator[Call]:
    """Yield random bits, dropout and embedding."""
    key = np.array([7, 0, 3, 0, 123456], np.uint32)
    for n in (0, 1, 3, 4, 5, 4096, 9001):
        yield Call("random_bits", [key], {"n": n}, str(n))
    for p in (0.0, 0.1, 0.5, 1.0):
        for shape in ((3, 5), (9001,), (0, 2)):
            x = _normal(1, *shape)
            yield Call("dropout", [x, key], {"p": p}, f"{shape}{p}")
            yield Call("dropout_backward", [x, key], {"p": p}, f"{shape}{p}")
    for count, rows, width in ((50, 7, 5), (0, 3, 2), (33, 40, 1)):
        indices = np.random.default_rng(2).integers(0, rows, count)
        yield Call("embedding", [_normal(3, rows, width), indices])
        for padding in (-1, 2):
            how = {"num_embeddings": rows, "padding_idx": padding}
            note = f"{count}{padding}"
            yield Call("embedding_backward", [_normal(4, count, width), indices], how, note)


def steps() -> Iterator[Call]:
    """Yield optimiser steps of about two chunks."""
    n = 4096 + 33

    def vectors(count: int) -> list[Any]:
        return [_normal(i, n) for i in range(count)]

    for scale_value in (1.0, 0.37, float("nan")):
        lr, scale = np.array([0.05]), np.array([scale_value])
        for t in (1, 7):
            step = np.array([t])
            for decay in (0.0, 0.01):
                note = f"{scale_value}-{t}-{decay}"
                for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
                    p, g, b = vectors(3)
                    how = {"momentum": momentum, "dampening": 0.0 if nesterov else 0.1}
                    how = {**how, "nesterov": nesterov, "weight_decay": decay}
                    buffer = b if momentum else None
                    arrays = [p, g, buffer, lr, step, scale]
                    yield Call("sgd_step", arrays, how, f"{note}-{momentum}{nesterov}")
                for decoupled in (False, True):
                    p, g, m, v = vectors(4)
                    how = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
                    how = {**how, "weight_decay": decay, "decoupled": decoupled}
                    arrays = [p, g, m, np.abs(v), lr, step, scale]
                    yield Call("adam_step", arrays, how, f"{note}-{decoupled}")
                p, g, v, b, a = vectors(5)
                for momentum in (0.0, 0.9):
                    for mean in (None, a / 9):
                        how = {"alpha": 0.99, "eps": 1e-8, "momentum": momentum}
                        how = {**how, "weight_decay": decay}
                        arrays = [p, g, np.abs(v), b if momentum else None, mean, lr, scale]
                        yield Call("rmsprop_step", arrays, how, f"{note}-{momentum}{mean is None}")
                how = {"lr_decay": 0.1, "eps": 1e-10, "weight_decay": decay}
                yield Call("adagrad_step", [p, g, np.abs(v), lr, step, scale], how, note)
        for norm in (0.0, 3.0, np.inf):
            p, g = vectors(2)
            arrays = [p, g, np.array([norm]), lr, scale]
            yield Call("unit_step", arrays, {}, f"{scale_value}-{norm}")
    for size in (0, 1, 4096, 10001):
        yield Call("sum_squares", [_normal(5, size)])


def products() -> Iterator[Call]:
    """Yield matrix products, some large enough to be cut into parts."""
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((3, 4), (4, 5)),
        ((0, 4), (4, 2)),
        ((2, 0), (0, 3)),
        ((701, 150), (150, 301)),
        ((301, 150), (150, 701)),
        ((5, 1, 300, 70), (3, 70, 200)),
    ]
    for i, (a, b) in enumerate(shapes):
        for trans_a, trans_b in ((False, False), (True, False), (False, True)):
            x, y = _normal(i, *a), _normal(i + 1, *b)
            x = np.ascontiguousarray(x.swapaxes(-1, -2)) if trans_a else x
            y = np.ascontiguousarray(y.swapaxes(-1, -2)) if trans_b else y
            how = {"trans_a": trans_a, "trans_b": trans_b}
            yield Call("matmul", [x, y], how, f"{i}{trans_a}{trans_b}")


def layers() -> Iterator[Call]:
    """Yield fully connected layers: sizes around a tile's, empty ones, each activation."""
    sizes = [(1, 1, 1), (3, 5, 7), (64, 12, 3), (33, 65, 31), (130, 40, 100), (4, 0, 3), (0, 4, 3)]
    for i, (rows, inputs, units) in enumerate(sizes):
        x, weight = _normal(i, rows, inputs), _normal(i + 20, units, inputs) / 4
        how = {"activation": ACTIVATIONS[i % 4]}
        yield Call("linear", [x, weight, _normal(i + 40, units) if i % 3 else None], how)
        error, out = _normal(i + 60, rows, units), np.tanh(_normal(i + 80, rows, units))
        yield Call("linear_backward", [error, x, weight, out], how)
        yield Call("linear_weight_grad", [error, x, out], how)


def recurrences() -> Iterator[Call]:
    """Yield recurrent nets: odd sizes, both directions, ragged lengths."""
    sizes = ((5, 3, 4, 7), (3, 9, 5, 26), (2, 1, 3, 8), (1, 6, 2, 12))
    for i, (steps, batch, inputs, units) in enumerate(sizes):
        lengths = np.random.default_rng(i).integers(1, steps + 1, batch)
        states = (steps, batch, units)
        for op, blocks in (("rnn", 1), ("gru", 3), ("lstm", 4)):
            rows = blocks * units
            x = _normal(i, steps, batch, inputs)
            first = [_normal(i + 1, batch, units), _normal(i + 2, batch, units)]
            first = first if op == "lstm" else first[:1]
            weights = [_normal(i + 3, rows, inputs) / 2, _normal(i + 4, rows, units) / 4]
            biases = [_normal(i + 5, rows), _normal(i + 6, rows)]
            grads = [_normal(i + 7, *states), *(_normal(i + 8, batch, units) for _ in first)]
            gates = np.abs(np.tanh(_normal(i + 9, steps, batch, 4 * units)))
            out, c = np.tanh(_normal(i + 10, *states)), _normal(i + 11, *states)
            saved = {"rnn": [out], "gru": [out, gates], "lstm": [out, c, gates]}[op]
            for reverse in (False, True):
                for ends in (None, lengths):
                    hows: list[dict[str, Any]] = [{"reverse": reverse}]
                    if op == "rnn":
                        hows = [{**hows[0], "nonlinearity": n} for n in ("tanh", "relu")]
                    for how in hows:
                        note = f"{i}-{ends is None}-{how}"
                        yield Call(op, [x, *first, *weights, *biases, ends], how, note)
                        arrays = [*grads, x, *first, *weights, *saved, ends]
                        yield Call(f"{op}_backward", arrays, how, note)


CALLS = [
    *products(),
    *layers(),
    *convolutions(),
    *pools(get_backend("numpy")),
    *rowwise(),
    *norms(),
    *responses(),
    *regions(get_backend("numpy")),
    *suppressions(),
    *recurrences(),
    *draws(),
    *steps(),
]
TOLERANCE = {"float32": 4e-6, "float64": 1e-13}
"""Of the largest element: sums of up to 10^3 products, each rounded to 6e-8 or 1e-16."""
ERRORS = {"winograd4": 4}
"""F(4x4) multiplies inputs and sums by up to 8: it runs only where it is asked for by name."""


@pytest.fixture
def numba_backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The numba backend, strict, which hands out poisoned outputs."""
    backend = get_backend("numba")

    def poisoned(shape: tuple[int, ...], dtype: Any) -> Any:
        return np.full(shape, np.nan if dtype.kind == "f" else 113, dtype)

    monkeypatch.setattr(backend, "empty", poisoned)
    monkeypatch.setattr(backend, "strict", True)
    return backend


def run(backend: Backend, call: Call, arrays: list[Any]) -> list[Any]:
    """Return the outputs of a call, or the arrays that it changed."""
    result = getattr(backend, call.op)(*arrays, **call.attributes)
    if result is None:
        return [a for a in arrays if a is not None]
    return list(result) if isinstance(result, tuple) else [result]


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Compare relative to the largest finite element; NaN and Inf must be in the same places."""
    assert found.shape == expected.shape
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected)
        return
    finite = np.isfinite(expected)
    scale = np.abs(expected[finite]).max(initial=1e-30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_kernels_equal_the_reference(call: Call, dtype: str, numba_backend: Backend) -> None:
    """Each kernel of the op that serves the call; at least one must."""
    expected = run(get_backend("numpy"), call, call.in_dtype("float64"))
    served = 0
    for entry in registry.kernels(call.op, "numba"):
        registry.prefer(call.op, entry.name)
        arrays = call.in_dtype(dtype)
        before = [None if a is None else a.copy() for a in arrays]
        found = run(numba_backend, call, arrays)
        assert numba_backend.ran[call.op] != "reference"
        served += numba_backend.ran[call.op] == entry.name
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours, theirs, TOLERANCE[dtype] * ERRORS.get(entry.name, 1))
            if theirs.dtype.kind == "f" and call.op != "sum_squares" and ours.size != 1:
                assert ours.dtype == dtype
        if not call.op.endswith("_step"):
            for array, copy in zip(arrays, before, strict=True):
                if array is not None:
                    np.testing.assert_array_equal(array, copy)
    assert served


def _same_bytes(call: Call, backend: Backend, dtype: str) -> None:
    arrays = call.in_dtype(dtype)
    results = []
    for grain in (1 << 62, 0):  # always serial, always parallel
        for entry in _parallel_functions():
            entry.grain = grain
        results.append([r.tobytes() for r in run(backend, call, [
            None if a is None else a.copy() for a in arrays
        ])])  # fmt: skip
    assert results[0] == results[1]


def _parallel_functions() -> list[jit.Parallel]:
    return [f for f in jit.all_parallel() if f.py_func.__module__.startswith("trine.")]


@pytest.fixture
def _grains_restored() -> Iterator[None]:
    grains = [(f, f.grain) for f in _parallel_functions()]
    yield
    for function, grain in grains:
        function.grain = grain


@pytest.mark.slow
@pytest.mark.usefixtures("_grains_restored")
@pytest.mark.parametrize("op", sorted({call.op for call in CALLS}))
def test_serial_and_parallel_give_the_same_bytes(op: str, numba_backend: Backend) -> None:
    for call in CALLS:
        if call.op == op:
            for dtype in ("float32", "float64"):  # what may be reordered differs between them
                _same_bytes(call, numba_backend, dtype)


def test_every_kernel_is_called_here() -> None:
    registered = {k.op for k in registry.all_kernels() if k.backend == "numba" and not k.user}
    assert registered == {call.op for call in CALLS}


def test_optimiser_steps_are_the_reference_bit_for_bit(numba_backend: Backend) -> None:
    for call in steps():
        if call.op == "sum_squares":
            continue
        found = run(numba_backend, call, call.in_dtype("float32"))
        expected = run(get_backend("numpy"), call, call.in_dtype("float32"))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=str(call))


def _other_numbers(array: Any) -> Any:
    """Return other floats of the same shape; labels, indices and lengths stay."""
    if array is None or array.dtype.kind != "f":
        return array
    return np.random.default_rng(array.size).permutation(array.ravel()).reshape(array.shape) * 1.25


def _poison_scratch() -> None:
    for buffer in jit._scratch.buffers.values():
        if buffer.dtype.kind == "f":
            buffer.fill(np.nan)


@pytest.mark.parametrize("op", sorted({call.op for call in CALLS}))
def test_a_recorded_kernel_repeats_on_other_numbers(op: str) -> None:
    """What Python does between launches must not depend on numbers, or the kernel must say so."""
    backend = get_backend("numba")
    calls = [call for call in CALLS if call.op == op]
    for call in calls[:: -(-len(calls) // 12)]:
        for entry in registry.kernels(op, "numba"):
            registry.prefer(op, entry.name)
            arrays = call.in_dtype("float32")
            with LaunchRecorder(backend).recording_all() as recording:
                found = run(backend, call, arrays)
            other = [_other_numbers(a) for a in call.in_dtype("float32")]
            expected = run(backend, call, [None if a is None else a.copy() for a in other])
            for array, value in zip(arrays, other, strict=True):
                if array is not None:
                    array[...] = value
            _poison_scratch()
            for array in found:
                if not any(array is a for a in arrays):
                    array.fill(113)
            recording.run()
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.tobytes() == theirs.tobytes(), f"{call} by {backend.ran[op]}"


@pytest.mark.parametrize("inner", [1, 2, 7, 8, 9, 13])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_column_of_a_softmax_belongs_to_one_group(inner: int, dtype: str) -> None:
    """Groups are shared among threads, and one that scales what another has scaled is wrong."""
    outer, classes = 3, 5
    x = _normal(1, outer, classes, inner).astype(dtype)
    size = x.itemsize
    lanes = VECTOR_BYTES // size
    groups = outer * -(-inner // lanes) if inner >= lanes else -(-outer * inner // lanes)
    room = np.empty(group_room(classes, inner, size), dtype)
    written = np.zeros(x.shape, int)
    for group in range(groups):
        out = np.full(x.shape, np.nan, dtype)
        softmax_groups(
            x.dtype.type(0), size, x.ctypes.data, outer, classes, inner, 0, group, group + 1, room,
            out.ctypes.data,
        )  # fmt: skip
        written += ~np.isnan(out)
    assert (written == 1).all()
