"""Cases of batch, layer, group and local response normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trine.backends.cases.case import OpCase, Rng, Sample, Samples, register
from trine.dtypes import DType

EPS = {"eps": 1e-5}

BATCH = ((4, 3, 5), (2, 1, 1), (33, 31, 1), (1, 7, 257), (3, 5, 32), (257, 2, 3), (2, 3, 9000))
LAYER = ((5, 7), (1, 1), (1, 31), (33, 257), (70, 32), (3, 8192), (0, 4))
GROUP = (((2, 6, 5), 1), ((2, 6, 5), 3), ((2, 6, 5), 6), ((1, 4, 257), 2), ((33, 32, 1), 8),
         ((3, 4, 3000), 4), ((0, 4, 3), 2))  # fmt: skip

Shapes = tuple[tuple[tuple[int, ...], dict[str, Any]], ...]

BATCH_CALLS: Shapes = tuple((shape, EPS) for shape in BATCH)
LAYER_CALLS: Shapes = tuple((shape, EPS) for shape in LAYER)
GROUP_CALLS: Shapes = tuple((shape, {"groups": groups, **EPS}) for shape, groups in GROUP)


def _draw(rng: Rng, dtype: DType, shape: tuple[int, ...], centre: float = 0.0) -> Any:
    return rng.normal(centre, 1, shape).astype(dtype)


def _forward(calls: Shapes) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for shape, attrs in calls:
            weight, bias = (_draw(rng, dtype, shape[1:2]) for _ in range(2))
            label = f"{shape} {attrs.get('groups', '')}".strip()
            x = _draw(rng, dtype, shape, 0.5)
            found.append(Sample(label, (x, weight, bias), attrs))
            found.append(Sample(f"{label}, plain", (x, None, None), attrs))
        shape, attrs = calls[0]
        weight, bias = (_draw(rng, dtype, shape[1:2]) for _ in range(2))
        far = _draw(rng, dtype, shape, 30.0)
        found.append(Sample("far from zero", (far, weight, bias), attrs))
        found.append(Sample("constant", (np.full(shape, 3, dtype), weight, bias), attrs))
        faulty = _draw(rng, dtype, shape)
        faulty.flat[1] = np.nan
        return [*found, Sample("NaN", (faulty, weight, bias), attrs)]

    return samples


def _given(rng: Rng, dtype: DType, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return a mean and a variance for each channel that are not those of the batch."""
    return _draw(rng, dtype, shape[1:2]), rng.uniform(0.1, 2, shape[1:2]).astype(dtype)


def _evaluated(backward: bool, shapes: tuple[tuple[int, ...], ...]) -> Samples:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for shape in shapes:
            for weighted in (True, False):
                affine = [_draw(rng, dtype, shape[1:2]) if weighted else None for _ in range(2)]
                x = _draw(rng, dtype, shape, 0.5)
                arrays = (x, *affine, *_given(rng, dtype, shape))
                if backward:
                    arrays = (_draw(rng, dtype, shape), x, affine[0], *_given(rng, dtype, shape))
                found.append(Sample(f"{shape} {'' if weighted else 'plain'}".strip(), arrays, EPS))
        faulty = _draw(rng, dtype, (4, 3, 5))
        faulty.flat[:2] = np.nan, np.inf
        arrays = (faulty, None, None, *_given(rng, dtype, (4, 3, 5)))
        if backward:
            arrays = (_draw(rng, dtype, (4, 3, 5)), faulty, None, *_given(rng, dtype, (4, 3, 5)))
        return [*found, Sample("NaN and Inf", arrays, EPS)]

    return samples


IMAGES = {"tiny": (8, 6, 144), "typical": (32, 64, 784), "large": (64, 256, 784)}


def _evaluated_timed(backward: bool) -> Samples:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for label, shape in IMAGES.items():
            sample = _evaluated(backward, (shape,))(rng, dtype)[0]
            found.append(Sample(label, sample.args, sample.attrs))
        return found

    return samples


def _statistics(x: Any, op: str, attrs: dict[str, Any]) -> tuple[Any, Any]:
    """Return what the forward op hands to its gradient: mean, and variance or 1 / deviation."""
    x = x.astype(np.float64)
    if op == "batch_norm":
        return x.mean((0, 2)), x.var((0, 2))
    if op == "group_norm":
        x = x.reshape(x.shape[0], attrs["groups"], x.shape[1] // attrs["groups"] * x.shape[2])
    return x.mean(-1), 1 / np.sqrt(x.var(-1) + attrs["eps"])


def _backward_call(
    rng: Rng, dtype: DType, op: str, shape: tuple[int, ...], attrs: dict[str, Any], weighted: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x, grad_out = _draw(rng, dtype, shape, 0.5), _draw(rng, dtype, shape)
    mean, spread = (s.astype(dtype) for s in _statistics(x, op, attrs))
    weight = _draw(rng, dtype, shape[1:2]) if weighted else None
    taken = {"batch_norm": ("eps",), "layer_norm": (), "group_norm": ("groups",)}[op]
    return (grad_out, x, weight, mean, spread), {name: attrs[name] for name in taken}


def _backward(op: str, calls: Shapes) -> Callable[[Rng, DType], list[Sample]]:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for shape, attrs in calls:
            if op == "batch_norm" and shape[0] * shape[2] == 2:
                continue  # two values become -1 and 1 whatever they are: the gradient is rounding
            for weighted in (True, False):
                arrays, taken = _backward_call(rng, dtype, op, shape, attrs, weighted)
                label = f"{shape} {attrs.get('groups', '')} {'' if weighted else 'plain'}".strip()
                found.append(Sample(label, arrays, taken))
        return found

    return samples


def _timed(op: str, backward: bool) -> Callable[[Rng, DType], list[Sample]]:
    rows = (("tiny", (64, 32)), ("typical", (1024, 768)), ("large", (16384, 1024)))

    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for label, shape in rows if op == "layer_norm" else IMAGES.items():
            attrs = {**EPS, "groups": 2} if op == "group_norm" else EPS
            if backward:
                arrays, attrs = _backward_call(rng, dtype, op, shape, attrs, True)
            else:
                features = shape[1:2]
                arrays = (
                    _draw(rng, dtype, shape), _draw(rng, dtype, features),
                    _draw(rng, dtype, features),
                )  # fmt: skip
            found.append(Sample(label, arrays, attrs))
        return found

    return samples


for _op, _calls in (
    ("batch_norm", BATCH_CALLS),
    ("layer_norm", LAYER_CALLS),
    ("group_norm", GROUP_CALLS),
):
    register(
        OpCase(
            _op,
            _forward(_calls),
            "normalise",
            _timed(_op, False),
            lambda sample: 8 * int(sample.args[0].size),
        )
    )
    register(
        OpCase(
            f"{_op}_backward",
            _backward(_op, _calls),
            "normalise",
            _timed(_op, True),
            lambda sample: 11 * int(sample.args[0].size),
        )
    )

register(
    OpCase(
        "batch_norm_eval",
        _evaluated(False, (*BATCH, (0, 3, 4))),
        "normalise",
        _evaluated_timed(False),
        lambda sample: 2 * int(sample.args[0].size),
    )
)
register(
    OpCase(
        "batch_norm_eval_backward",
        _evaluated(True, (*BATCH, (0, 3, 4))),
        "normalise",
        _evaluated_timed(True),
        lambda sample: 5 * int(sample.args[0].size),
    )
)

ALEXNET = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}
"""The constants of Krizhevsky et al.; with alpha = 1 below, where they show."""

RESPONSES: Shapes = (
    ((1, 1, 1), {**ALEXNET, "alpha": 1.0}),
    ((2, 7, 5), {**ALEXNET, "alpha": 1.0}),
    ((2, 7, 5), {**ALEXNET, "alpha": 1.0, "size": 4}),
    ((2, 7, 5), {**ALEXNET, "alpha": 1.0, "size": 1}),
    ((1, 3, 33), {**ALEXNET, "alpha": 2.0, "size": 9, "beta": 0.5}),
    ((1, 3, 33), {**ALEXNET, "alpha": 2.0, "size": 2, "beta": 1.0}),
    ((3, 33, 31), {**ALEXNET, "alpha": 1.0, "beta": 1.3}),
    ((2, 4, 257), {"size": 3, "alpha": 0.5, "beta": 0.0, "k": 1.0}),
    ((2, 5, 3000), ALEXNET),
    ((3, 2, 70), {"size": 3, "alpha": -0.1, "beta": 0.75, "k": 40.0}),
    ((0, 4, 3), ALEXNET),
    ((2, 0, 3), ALEXNET),
    ((2, 4, 0), ALEXNET),
)
"""One channel, windows that reach beyond all channels, even windows, powers with and without roots."""

PLANES = {"tiny": (2, 16, 144), "typical": (16, 96, 729), "large": (32, 96, 3025)}


def _scale(x: Any, size: int, alpha: float, k: float, **_: Any) -> Any:
    """Return what `local_response_norm` hands to its gradient, from its definition."""
    squares, channels = x.astype(np.float64) ** 2, x.shape[1]
    around = [squares[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1] for c in range(channels)]
    sums = [part.sum(1) for part in around]
    return k + alpha / size * (np.stack(sums, 1) if channels else squares)


def _responses(
    rng: Rng, dtype: DType, shape: tuple[int, ...], attrs: dict[str, Any], backward: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x = _draw(rng, dtype, shape)
    if not backward:
        return (x,), attrs
    scale = _scale(x, **attrs).astype(dtype)
    taken = {name: attrs[name] for name in ("size", "alpha", "beta")}
    return (_draw(rng, dtype, shape), x, scale), taken


def _local(backward: bool) -> Samples:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        found = []
        for shape, attrs in RESPONSES:
            label = f"{shape} size {attrs['size']} beta {attrs['beta']}"
            found.append(Sample(label, *_responses(rng, dtype, shape, attrs, backward)))
        shape, attrs = RESPONSES[1]
        arrays, taken = _responses(rng, dtype, shape, attrs, backward)
        found.append(Sample("zeros", (*(0 * a for a in arrays[:2]), *arrays[2:]), taken))
        for value in (np.nan, np.inf):
            faulty = [a.copy() for a in arrays]
            faulty[0].flat[11] = value
            found.append(Sample(str(value), tuple(faulty), taken))
        if not backward:
            x = np.zeros(shape, dtype)
            x[0, 3] = 1  # 0 / 0 two channels away from it, and nearer ones that are finite
            found.append(Sample("k = 0", (x,), {**attrs, "k": 0.0}))
        return found

    return samples


def _local_timed(backward: bool) -> Samples:
    def samples(rng: Rng, dtype: DType) -> list[Sample]:
        return [
            Sample(label, *_responses(rng, dtype, shape, ALEXNET, backward))
            for label, shape in PLANES.items()
        ]

    return samples


register(
    OpCase(
        "local_response_norm",
        _local(False),
        "reduction",
        _local_timed(False),
        lambda sample: (2 * sample.attrs["size"] + 4) * int(sample.args[0].size),
    )
)
register(
    OpCase(
        "local_response_norm_backward",
        _local(True),
        "reduction",
        _local_timed(True),
        lambda sample: (sample.attrs["size"] + 8) * int(sample.args[0].size),
    )
)
