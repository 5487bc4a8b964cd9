"""The backward formulas of an anatomy's ops with numbers put in, as `worked` has the forward ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.models.anatomy import Anatomy, Operand, Part
from trine.models.formulas import number, smoothed
from trine.models.worked import (
    SLOPES,
    TERMS,
    WINDOWS,
    shown_windows,
    signed,
    sum_of_products,
    winners,
)  # fmt: skip

Array = npt.NDArray[Any]

LINES = 16
"""Elements of one gradient that are written out."""
CLASSES = 12
"""Scores of a softmax up to which the error of each is written out."""


def worked_back(part: Part, anatomy: Anatomy, sample: int = 0) -> list[str]:
    """Return errors, gradients and new weights with their numbers; empty for large layers.

    Errors are those of one sample; gradients sum over the batch, a product for each sample, and are
    written out where no other op adds to them, as where layers share weights.
    """
    if part.op == "cross_entropy":
        return list(_cross_entropy(part, sample))
    write = WRITERS.get("activation" if part.op in SLOPES else part.op)
    if write is None or part.delta is None or part.delta.ndim < 2 or not part.by_sample:
        return []
    return list(write(part, anatomy, sample))


def _linear(part: Part, anatomy: Anatomy, sample: int) -> Iterator[str]:
    x, weight, delta = part.inputs[0].value, part.inputs[1].value, part.delta
    fused = part.attrs.get("activation", "none") != "none"  # delta is not that of z then
    if delta is None or fused or max(weight.shape) > TERMS or len(x) > TERMS:
        return
    before, symbol = part.inputs[0].symbol, part.inputs[1].symbol
    for i in range(weight.shape[1]):
        total = number(weight[:, i] @ delta[sample])
        yield f"dC/d{before}[{i + 1}] = {sum_of_products(weight[:, i], delta[sample])} = {total}"
    for operand in _once(part, anatomy):
        bias = operand.symbol != symbol
        for index in islice(np.ndindex(*operand.value.shape), LINES):
            row = delta[:, index[0]]
            terms = " + ".join(map(signed, row)) if bias else sum_of_products(row, x[:, index[1]])
            yield _gradient(anatomy, operand, index, ",".join(str(i + 1) for i in index), terms)


def _once(part: Part, anatomy: Anatomy) -> Iterator[Operand]:
    """Yield the parameters with gradients to which no other op adds."""
    uses = Counter(operand.parameter for p in anatomy.parts for operand in p.parameters)
    for operand in part.parameters:
        if operand.parameter in anatomy.grads and uses[operand.parameter] == 1:
            yield operand


def _gradient(
    anatomy: Anatomy, operand: Operand, index: tuple[int, ...], where: str, terms: str
) -> str:
    """Return dC/dW of one element as the sum of its terms, and with a rate W' = W - eta dC/dW."""
    path, symbol = operand.parameter, operand.symbol
    assert path is not None  # it is a parameter
    gradient, new = anatomy.grads[path][index], anatomy.updated(path)
    line = f"dC/d{symbol}[{where}] = {terms} = {number(gradient)}"
    if new is None:
        return line
    return (
        f"{line};  {symbol}'[{where}] = {number(operand.value[index])} - "
        f"{anatomy.rate:g}·{signed(gradient)} = {number(new[index])}"
    )


def _activation(part: Part, anatomy: Anatomy, sample: int) -> Iterator[str]:
    assert part.delta is not None  # the caller saw to it
    delta, slope = part.delta[sample], SLOPES[part.op](part.output[sample])
    if delta.size > TERMS:
        return
    for j, (error, steep) in enumerate(zip(delta.ravel(), slope.ravel(), strict=True), 1):
        product = number(error * steep)
        before = part.inputs[0].symbol
        yield f"dC/d{before}[{j}] = {number(error)}·{signed(steep)} = {product}"


def _conv2d(part: Part, anatomy: Anatomy, sample: int) -> Iterator[str]:
    """The first weights' gradients: sums over samples and places of error times input."""
    x, weight, delta = part.inputs[0].value, part.inputs[1], part.delta
    if delta is None or part.attrs.get("activation", "none") != "none":
        return
    if weight.parameter not in {operand.parameter for operand in _once(part, anatomy)}:
        return
    stride, padding = part.attrs.get("stride", (1, 1)), part.attrs.get("padding", (0, 0))
    dilation = part.attrs.get("dilation", (1, 1))
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    rows, columns = delta.shape[2:]
    for r, s in islice(np.ndindex(*weight.value.shape[2:]), WINDOWS):
        seen = padded[
            :, 0, r * dilation[0] :: stride[0], s * dilation[1] :: stride[1]
        ][:, :rows, :columns]  # fmt: skip
        terms = sum_of_products(delta[:, 0], seen)
        yield _gradient(anatomy, weight, (0, 0, r, s), f"1,1,{r},{s}", terms)


def _max_pool2d(part: Part, anatomy: Anatomy, sample: int) -> Iterator[str]:
    assert part.delta is not None  # the caller saw to it
    where, before = winners(part, sample), part.inputs[0].symbol
    for c, i, j in shown_windows(part.output[sample]):
        h, w = where[c, i, j]
        error = number(part.delta[sample, c, i, j])
        yield f"to dC/d{before}[{c + 1},{h},{w}]: dC/d{part.symbol}[{c + 1},{i},{j}] = {error}"


WRITERS: dict[str, Callable[[Part, Anatomy, int], Iterator[str]]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
    "activation": _activation,
}


def _cross_entropy(part: Part, sample: int) -> Iterator[str]:
    """softmax - y, / batch: y is 1 at the target and 0 elsewhere, unless smoothed."""
    scores, target = part.inputs[0].value, part.inputs[1].value
    plain = len(part.inputs) == 2 and part.attrs.get("reduction", "mean") == "mean"
    plain = plain and target.ndim == 1 and part.symbol == "C"
    plain = plain and not (target == part.attrs.get("ignore_index")).any()
    if not plain or scores.ndim != 2 or scores.shape[1] > CLASSES or len(scores) != part.batch:
        return
    powers = np.exp(scores[sample] - scores[sample].max())
    shares = powers / powers.sum()
    at_target, elsewhere = smoothed(part)
    over = f" / {len(scores)}" if len(scores) > 1 else ""
    for j, share in enumerate(shares):
        y = at_target if j == target[sample] else elsewhere
        error = number((share - y) / len(scores))
        yield f"dC/d{part.inputs[0].symbol}[{j + 1}] = ({number(share)} - {number(y)}){over} = {error}"
