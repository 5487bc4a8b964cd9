"""Launches of products.cu: the fully connected layer, its gradients, and matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trine.dtypes import Array
from trine.kernels.cuda import tiles
from trine.kernels.cuda.launch import Launch, Launches, Scratch, blocks

SOURCE = "products.cu"
ADD_THREADS = 256
SUM_BLOCK = (32, 16)

BATCH_AXES = 3
"""Axes that a batch may have once neighbours with the same strides are one."""

Strides = tuple[int, ...]


def _flag(value: bool) -> str:
    return "true" if value else "false"


def product(
    op: str, a: Any, b: Any, bias: Any, out: Any, sizes: tuple[int, int, int], *,
    deep: tuple[bool, bool] = (True, True), activation: int = 0, precision: str = "fp32",
) -> list[Launch]:  # fmt: skip
    """Return the launches of out = act(a b + bias) for sizes (m, n, k), without a batch.

    `deep` says of a and of b whether k is the last axis.
    """
    m, n, k = sizes
    tiles.check(op, rows=m, columns=n, terms_of_a_sum=k)
    tile = tiles.choose(m, n, precision=precision)
    splits = tiles.splits_of(tile, m, n, k)
    function = f"product<{{T}}, {tile.name}, {_flag(deep[0])}, {_flag(deep[1])}>"
    batch = (1, 1, 0, 0, 0, 0, 0, 0)
    grid = tile.grid(op, m, n, splits)
    if splits == 1:
        arguments = (a, b, bias, out, m, n, k, 1, activation, *batch)
        return [Launch(grid, (tile.threads,), arguments, function=function, source=SOURCE)]
    parts = Scratch((splits, m, n), a.dtype)
    arguments = (a, b, None, parts, m, n, k, splits, 0, *batch)
    return [
        Launch(grid, (tile.threads,), arguments, function=function, source=SOURCE),
        add_parts(parts, bias, out, columns=n, activation=activation),
    ]


def add_parts(parts: Scratch, bias: Any, out: Any, *, columns: int, activation: int = 0) -> Launch:
    """Return the launch that adds the splits of a product."""
    size = math.prod(parts.shape[1:])
    arguments = (parts, bias, out, size, columns, parts.shape[0], activation)
    return Launch(
        blocks(size, ADD_THREADS),
        (ADD_THREADS,),
        arguments,
        function="add_parts<{T}>",
        source=SOURCE,
    )


def _linear(precision: str) -> Callable[..., Launches]:
    def launch(
        x: Array, weight: Array, bias: Array | None, activation: int, out: Array
    ) -> Launches:
        if not out.size:
            return ()
        sizes = (*out.shape, x.shape[1])
        return product(
            "linear", x, weight, bias, out, sizes, activation=activation, precision=precision
        )

    return launch


def _delta_product(
    op: str, delta: tuple[Array, Array, int], b: Array, out: Array, *, deep: bool, precision: str
) -> list[Launch]:
    """Return the launches of out = delta b, or of delta^T b if not deep."""
    if not out.size:
        return []
    grad_out, y, activation = delta
    (m, n), k = out.shape, b.shape[0]
    tiles.check(op, rows=m, columns=n, terms_of_a_sum=k)
    tile = tiles.choose(m, n, precision=precision)
    splits = tiles.splits_of(tile, m, n, k)
    target = out if splits == 1 else Scratch((splits, m, n), out.dtype)
    launch = Launch(
        tile.grid(op, m, n, splits),
        (tile.threads,),
        (grad_out, y, b, target, m, n, k, splits, activation),
        function=f"delta_product<{{T}}, {tile.name}, {_flag(deep)}>",
    )
    if isinstance(target, Scratch):
        return [launch, add_parts(target, None, out, columns=n)]
    return [launch]


def delta_sum(delta: tuple[Any, Any, int], out: Array) -> list[Launch]:
    """Return the launch that sums errors (before the activation of a result y) over their rows."""
    if not out.size:
        return []
    grad_out, y, activation = delta
    *outer, columns = grad_out.shape
    rows = math.prod(outer)
    arguments = (grad_out, y, out, rows, columns, activation)
    grid = (-(-columns // SUM_BLOCK[0]),)  # the kernel has no loop over columns
    return [Launch(grid, SUM_BLOCK, arguments, function="delta_sum<{T}>", source=SOURCE)]


def _linear_backward(precision: str) -> Callable[..., Launches]:
    def launch(
        grad_out: Array, x: Array, weight: Array, out: Array, activation: int, grad_x: Array,
        grad_weight: Array, grad_bias: Array,
    ) -> Launches:  # fmt: skip
        delta, op = (grad_out, out, activation), "linear_backward"
        return [
            *_delta_product(op, delta, weight, grad_x, deep=True, precision=precision),
            *_delta_product(op, delta, x, grad_weight, deep=False, precision=precision),
            *delta_sum(delta, grad_bias),
        ]

    return launch


def _linear_weight_grad(precision: str) -> Callable[..., Launches]:
    def launch(
        grad_out: Array, x: Array, out: Array, activation: int, grad_weight: Array, grad_bias: Array
    ) -> Launches:
        delta, op = (grad_out, out, activation), "linear_weight_grad"
        return [
            *_delta_product(op, delta, x, grad_weight, deep=False, precision=precision),
            *delta_sum(delta, grad_bias),
        ]

    return launch


def _batch_strides(shape: tuple[int, ...], batch: tuple[int, ...]) -> Strides:
    """Return how far a batch axis moves a contiguous operand of a shape; 0 where it is repeated."""
    own = (1,) * (len(batch) + 2 - len(shape)) + shape
    return tuple(
        0 if own[i] == 1 else math.prod(own[i + 1 :]) for i in range(len(batch))
    )  # fmt: skip


def _merge(
    batch: tuple[int, ...], a: Strides, b: Strides
) -> tuple[list[int], list[int], list[int]]:
    """Return sizes and strides of a batch after neighbouring axes that move alike became one."""
    sizes: list[int] = []
    moves: tuple[list[int], list[int]] = ([], [])
    for size, *strides in zip(batch, a, b, strict=True):
        if size == 1:
            continue
        if sizes and all(m[-1] == s * size for m, s in zip(moves, strides, strict=True)):
            sizes[-1] *= size
            for m, s in zip(moves, strides, strict=True):
                m[-1] = s
            continue
        sizes.append(size)
        for m, s in zip(moves, strides, strict=True):
            m.append(s)
    return sizes, *moves


def _few_axes(x: Array, y: Array, trans_a: bool, trans_b: bool) -> bool:
    batch = _batch_of(x, y)
    merged = _merge(batch, _batch_strides(x.shape, batch), _batch_strides(y.shape, batch))
    return min(x.ndim, y.ndim) >= 2 and len(merged[0]) <= BATCH_AXES


def _batch_of(x: Array, y: Array) -> tuple[int, ...]:
    pairs = zip(x.shape[-3::-1], y.shape[-3::-1], strict=False)
    longer = max(x.shape[:-2], y.shape[:-2], key=len)
    common = [b if a == 1 else a for a, b in pairs][::-1]
    return (*longer[: len(longer) - len(common)], *common)


def _matmul(precision: str) -> Callable[..., Launches]:
    def launch(x: Array, y: Array, trans_a: bool, trans_b: bool, out: Array) -> Launches:
        if not out.size:
            return ()
        (m, n), k = out.shape[-2:], x.shape[-2 if trans_a else -1]
        batch = out.shape[:-2]
        deep = (not trans_a, bool(trans_b))
        if math.prod(batch) == 1:
            return product("matmul", x, y, None, out, (m, n, k), deep=deep, precision=precision)
        sizes, a, b = _merge(batch, _batch_strides(x.shape, batch), _batch_strides(y.shape, batch))
        missing = BATCH_AXES - len(sizes)
        sizes, a, b = ([fill] * missing + list(v) for fill, v in ((1, sizes), (0, a), (0, b)))
        layers = math.prod(batch)
        tiles.check("matmul", rows=m, columns=n, terms_of_a_sum=k)
        tile = tiles.choose(m, n, layers, precision)
        return Launch(
            tile.grid("matmul", m, n, layers),
            (tile.threads,),
            (x, y, None, out, m, n, k, 1, 0, *sizes[1:], *a, *b),
            function=f"product<{{T}}, {tile.name}, {_flag(deep[0])}, {_flag(deep[1])}>",
        )

    return launch


for _op, _make, _function, _serves in (
    ("linear", _linear, "product<{T}, SMALL, true, true>", None),
    ("linear_backward", _linear_backward, "delta_product<{T}, SMALL, true>", None),
    ("linear_weight_grad", _linear_weight_grad, "delta_product<{T}, SMALL, false>", None),
    ("matmul", _matmul, "product<{T}, SMALL, true, false>", _few_axes),
):
    tiles.in_every_precision(
        _op, name="tiles", source=SOURCE, function=_function, make=_make, supports=_serves
    )
