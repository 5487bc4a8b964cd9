"""Cases of convolution, its gradients and its transpose."""

from __future__ import annotations

from typing import Any

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, register
from trine.backends.reference.windows import output_size as conv_output_size
from trine.dtypes import DType

# N, C, H, W, K, R, S, stride, padding, dilation, groups
GEOMETRIES: tuple[tuple[Any, ...], ...] = (
    (1, 1, 1, 1, 1, 1, 1, (1, 1), (0, 0), (1, 1), 1),
    (2, 1, 28, 28, 6, 5, 5, (1, 1), (2, 2), (1, 1), 1),
    (2, 6, 14, 14, 16, 5, 5, (1, 1), (0, 0), (1, 1), 1),
    (2, 3, 9, 11, 5, 3, 2, (2, 3), (1, 2), (1, 1), 1),
    (1, 4, 9, 8, 6, 3, 3, (1, 1), (1, 1), (2, 1), 2),
    (2, 4, 7, 7, 4, 3, 3, (1, 1), (1, 1), (1, 1), 4),
    (1, 4, 8, 8, 8, 2, 3, (2, 1), (0, 1), (1, 2), 4),
    (1, 3, 17, 17, 4, 5, 5, (4, 4), (2, 2), (1, 1), 1),
    (2, 33, 5, 6, 31, 1, 1, (1, 1), (0, 0), (1, 1), 1),
    (1, 2, 10, 10, 3, 3, 3, (3, 3), (0, 0), (1, 1), 1),
    (0, 2, 5, 5, 3, 3, 3, (1, 1), (0, 0), (1, 1), 1),
    (1, 2, 4, 40, 3, 3, 33, (1, 1), (1, 16), (1, 1), 1),
)
TIMED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("tiny", (64, 1, 28, 28, 6, 5, 5, (1, 1), (2, 2), (1, 1), 1)),
    ("typical", (64, 6, 14, 14, 16, 5, 5, (1, 1), (0, 0), (1, 1), 1)),
    ("large", (32, 64, 32, 32, 64, 3, 3, (1, 1), (1, 1), (1, 1), 1)),
)


def _label(g: tuple[Any, ...]) -> str:
    n, c, h, w, k, r, s, stride, padding, dilation, groups = g
    return f"{n}x{c}x{h}x{w}->{k} {r}x{s} s{stride} p{padding} d{dilation} g{groups}"


class _Data:
    """Arrays for a geometry, scaled so that outputs are of size one."""

    def __init__(self, rng: Rng, dtype: DType, g: tuple[Any, ...]) -> None:
        n, c, h, w, k, r, s, stride, padding, dilation, groups = g
        p = conv_output_size(h, r, stride[0], padding[0], dilation[0])
        q = conv_output_size(w, s, stride[1], padding[1], dilation[1])
        self.x = rng.normal(size=(n, c, h, w)).astype(dtype)
        scale = 1 / np.sqrt(max(c // groups * r * s, 1))
        self.weight = (rng.normal(size=(k, c // groups, r, s)) * scale).astype(dtype)
        self.bias = rng.normal(size=k).astype(dtype)
        self.grad_out = rng.normal(size=(n, k, p, q)).astype(dtype)
        self.geometry = {
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
        }  # fmt: skip
        self.size, self.kernel = (h, w), (r, s)


def _forward(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for i, g in enumerate(GEOMETRIES):
        d = _Data(rng, dtype, g)
        activation = ("none", "relu", "sigmoid", "tanh")[i % 4]
        attrs = {**d.geometry, "activation": activation}
        found.append(Sample(f"{_label(g)} {activation}", (d.x, d.weight, d.bias), attrs))
        found.append(Sample(f"{_label(g)}, no bias", (d.x, d.weight, None), attrs))
    return found


def _input_grad(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(_label(g), (d.grad_out, d.weight), {"input_size": d.size, **d.geometry})
        for g in GEOMETRIES
        for d in (_Data(rng, dtype, g),)
    ]


def _weight_grad(rng: Rng, dtype: DType) -> list[Sample]:
    return [
        Sample(_label(g), (d.grad_out, d.x), {"kernel_size": d.kernel, **d.geometry})
        for g in GEOMETRIES
        for d in (_Data(rng, dtype, g),)
    ]


def _timing(kind: str) -> Any:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for label, g in TIMED:
            d = _Data(rng, dtype, g)
            args, attrs = {
                "forward": ((d.x, d.weight, d.bias), {"activation": "relu"}),
                "input": ((d.grad_out, d.weight), {"input_size": d.size}),
                "weight": ((d.grad_out, d.x), {"kernel_size": d.kernel}),
            }[kind]
            found.append(Sample(label, args, {**attrs, **d.geometry}))
        return found

    return samples


def _forward_flops(sample: Sample) -> int:
    x, weight = sample.args[:2]
    a = sample.attrs
    p, q = (
        conv_output_size(
            x.shape[2 + i], weight.shape[2 + i], a["stride"][i], a["padding"][i], a["dilation"][i]
        )
        for i in (0, 1)
    )
    return 2 * x.shape[0] * p * q * weight.size


def _input_flops(sample: Sample) -> int:
    grad_out, weight = sample.args
    return 2 * grad_out.size * (weight.size // weight.shape[0])


def _weight_flops(sample: Sample) -> int:
    grad_out, x = sample.args
    r, s = sample.attrs["kernel_size"]
    return 2 * grad_out.size * (x.shape[1] // sample.attrs["groups"]) * r * s


register(OpCase("conv2d", _forward, "reduction", _timing("forward"), _forward_flops))
register(OpCase("conv2d_input_grad", _input_grad, "reduction", _timing("input"), _input_flops))
register(OpCase("conv2d_weight_grad", _weight_grad, "reduction", _timing("weight"), _weight_flops))


def _transposed(rng: Rng, dtype: DType) -> list[Sample]:
    found = []
    for stride, padding, extra, dilation, groups in (
        ((1, 1), (0, 0), (0, 0), (1, 1), 1),
        ((2, 3), (1, 1), (1, 2), (1, 1), 2),
        ((2, 2), (0, 1), (0, 1), (2, 1), 1),
    ):
        x = rng.normal(size=(2, 4, 5, 6)).astype(dtype)
        weight = (rng.normal(size=(4, 6 // groups, 3, 2)) / 5).astype(dtype)
        bias = rng.normal(size=6).astype(dtype)
        attrs = {
            "stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation,
            "groups": groups,
        }  # fmt: skip
        found.append(Sample(f"{attrs}", (x, weight, bias), attrs))
        found.append(Sample(f"{attrs}, no bias", (x, weight, None), attrs))
    return found


register(OpCase("conv_transpose2d", _transposed, "reduction"))
