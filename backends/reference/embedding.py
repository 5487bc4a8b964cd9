"""Rows of a table by number, and the gradient that adds up in each row."""

from __future__ import annotations

from typing import Any

from trine.backends.op import op
from trine.dtypes import Array, DType

Outputs = dict[str, tuple[tuple[int, ...], DType]]


def _embedding_outputs(weight: Array, indices: Array) -> Outputs:
    return {"out": ((*indices.shape, weight.shape[1]), weight.dtype)}


def _embedding_backward_outputs(
    grad_out: Array, indices: Array, *, num_embeddings: int, **_: Any
) -> Outputs:
    return {"grad_weight": ((num_embeddings, grad_out.shape[1]), grad_out.dtype)}


class EmbeddingOps:
    """Embedding on `self.xp`."""

    xp: Any

    @op(outputs=_embedding_outputs)
    def embedding(self, weight: Array, indices: Array) -> Array:
        """out[...] = weight[indices[...]].

        weight: (V, D), indices: int64 (...) from 0 to V - 1 -> out: (..., D).
        """
        return weight[indices]

    @op(outputs=_embedding_backward_outputs)
    def embedding_backward(
        self, grad_out: Array, indices: Array, *, num_embeddings: int, padding_idx: int
    ) -> Array:
        """grad_weight[v] = sum of grad_out[m] over all m with indices[m] = v, in order of m.

        The row `padding_idx` (-1: none) stays zero. grad_out: (M, D), indices: (M,) -> (V, D).
        """
        xp = self.xp
        # Equal numbers are made neighbours in their order, then each run is summed: no atomics. Run v
        # goes from starts[v] to starts[v + 1]; a row of zeros at the end keeps every start in range.
        order = xp.argsort(indices, kind="stable")
        starts = xp.searchsorted(indices[order], xp.arange(num_embeddings + 1))
        rows = xp.concatenate([grad_out[order], xp.zeros((1, grad_out.shape[1]), grad_out.dtype)])
        sums = xp.add.reduceat(rows, starts, axis=0)[:-1]
        used = starts[1:] > starts[:-1]
        if padding_idx >= 0:
            used[padding_idx] = False
        return xp.where(used[:, None], sums, grad_out.dtype.type(0))
