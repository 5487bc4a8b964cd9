"""Choosing between tensors and joining them."""

from __future__ import annotations

from collections.abc import Sequence

from trine.autograd import apply
from trine.dtypes import bool_, promote
from trine.primitives import PRIMITIVES as P
from trine.tensor import Tensor
from trine.tensor_methods import Number, result_dtype


def where(condition: Tensor, x: Tensor | Number, y: Tensor | Number) -> Tensor:
    """Return x where the condition holds and y elsewhere, broadcast."""
    anchor = x if isinstance(x, Tensor) else y if isinstance(y, Tensor) else condition
    first, second = anchor._operand("where", x), anchor._operand("where", y)
    dtype = result_dtype(first, second)
    return apply(  # type: ignore[no-any-return]
        P["where"], condition.astype(bool_), first.astype(dtype), second.astype(dtype)
    )


def maximum(x: Tensor, y: Tensor | Number) -> Tensor:
    """The larger of each pair."""
    return x._binary("maximum", y)  # type: ignore[no-any-return]


def minimum(x: Tensor, y: Tensor | Number) -> Tensor:
    """The smaller of each pair."""
    return x._binary("minimum", y)  # type: ignore[no-any-return]


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors along an axis.

    Raises ValueError for no tensors or shapes that differ elsewhere.
    """
    if not tensors:
        raise ValueError("[cat] expected at least one tensor, got none. Pass a list of tensors.")
    first = tensors[0]
    axis = first._axis("cat", dim)
    for other in tensors[1:]:
        if other.ndim != first.ndim or any(
            a != b
            for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True))
            if i != axis
        ):
            raise ValueError(
                f"[cat] expected shapes that agree except at dim {axis}, got {first.shape} and "
                f"{other.shape}. Reshape one of them."
            )
    dtype = promote(*(t.dtype for t in tensors))
    return apply(  # type: ignore[no-any-return]
        P["concat"], *(t.astype(dtype) for t in tensors), axis=axis
    )


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis."""
    return cat([t.unsqueeze(dim) for t in tensors], dim)
