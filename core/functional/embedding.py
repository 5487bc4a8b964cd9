"""Embedding: rows of a table by number."""

from __future__ import annotations

from typing import Any

from trine.autograd import apply, define
from trine.backends import Backend
from trine.dtypes import Array
from trine.functional.checks import check_values, require_float, require_tensor
from trine.tensor import Tensor

Saved = tuple[Any, ...]


def _embedding(
    be: Backend, weight: Array, indices: Array, *, padding_idx: int
) -> tuple[Array, Saved]:
    return be.embedding(weight, indices), (weight.shape, indices)


def _embedding_backward(
    be: Backend, saved: Saved, grads: Saved, needs: Saved, *, padding_idx: int
) -> Saved:
    (rows, columns), indices = saved
    grad_out = be.reshape(grads[0], shape=(indices.size, columns))
    flat = be.reshape(indices, shape=(indices.size,))
    grad_weight = be.embedding_backward(
        grad_out, flat, num_embeddings=rows, padding_idx=padding_idx
    )
    return grad_weight, None


def _embedding_composed(weight: Tensor, indices: Tensor, *, padding_idx: int) -> Tensor:
    if padding_idx >= 0:  # the row counts with its value, but is a constant
        rows = weight.backend.arange(0, weight.shape[0], 1, indices.dtype)
        is_padding = (Tensor._wrap(rows, weight.backend) == padding_idx).unsqueeze(1)
        constant = weight.detach() * is_padding.astype(weight.dtype)
        weight = weight * (~is_padding).astype(weight.dtype) + constant
    return weight[indices]


EMBEDDING = define(
    "embedding", _embedding, _embedding_backward, keeps=(1,), composed=_embedding_composed
)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Look up rows of a table: out[...] = weight[input[...]].

    The gradient of a row is the sum over all places where it was looked up, and zero for the row
    `padding_idx` (negative: from the end). input: integers, any shape (...); weight: (V, D) -> out
    (..., D). Raises TypeError for a float input, ValueError for numbers out of range (not checked
    on a GPU, which would have to wait).
    """
    op = "embedding"
    require_tensor(op, "input", input)
    require_float(op, "weight", weight)
    if input.dtype.kind not in "iu":
        raise TypeError(
            f"[{op}] expected input of integers, got {input.dtype.name}. Convert it with input.long()."
        )
    if weight.ndim != 2:
        raise ValueError(
            f"[{op}] expected weight of shape (V, D), got {weight.shape}. Pass one row a number."
        )
    rows = weight.shape[0]
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise ValueError(
            f"[{op}] expected padding_idx from {-rows} to {rows - 1} for weight {weight.shape}, got "
            f"{padding_idx}. Choose a row that exists."
        )
    indices = input.data

    def check() -> None:
        if not (indices.min() >= 0 and indices.max() < rows):
            raise ValueError(
                f"[{op}] expected numbers from 0 to {rows - 1}, the rows of weight {weight.shape}, "
                f"got {indices.min()} to {indices.max()}. Check the vocabulary."
            )

    check_values(input, check)
    return apply(  # type: ignore[no-any-return]
        EMBEDDING,
        weight,
        input.long(),
        padding_idx=-1 if padding_idx is None else padding_idx % rows,
    )
