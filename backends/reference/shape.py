"""Shape, joining and indexing: primitives that move elements without computing."""

from __future__ import annotations

from typing import Any, Literal

from trine.backends.op import op
from trine.backends.reference import rules
from trine.dtypes import Array, DType, int64

Index = Any
"""What stands in x[...]: ints, slices, None, Ellipsis, integer or boolean arrays, or a tuple."""

PadMode = Literal["constant", "reflect"]


def is_basic_index(index: Index) -> bool:
    """Return whether an index selects each element at most once, without arrays."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, (int, slice)) for p in parts)


class ShapeOps:
    """Shape primitives on `self.xp`; results may be views of their inputs."""

    xp: Any

    def reshape(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        """Another shape of the same elements in row-major order; -1 stands for the rest."""
        return x.reshape(rules.resolve_shape(x.shape, shape))

    def transpose(self, x: Array, *, axes: tuple[int, ...]) -> Array:
        """out[i_axes[0], ...] = x[i_0, ...]: the axes in another order."""
        return x.transpose(axes)

    def broadcast_to(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        """Repeat x along new or unit axes, as a read-only view."""
        return self.xp.broadcast_to(x, shape)

    def concat(self, *arrays: Array, axis: int) -> Array:
        """Join arrays along an axis."""
        return self.xp.concatenate(arrays, axis=axis)

    def pad(
        self,
        x: Array,
        *,
        widths: tuple[tuple[int, int], ...],
        mode: PadMode = "constant",
        value: float = 0.0,
    ) -> Array:
        """Add elements before and after each axis: a constant, or the reflected inside."""
        if mode == "constant":
            return self.xp.pad(x, widths, mode="constant", constant_values=value)
        return self.xp.pad(x, widths, mode=mode)

    def getitem(self, x: Array, *, index: Index) -> Array:
        """x[index]."""
        return self.xp.asarray(x[index])

    def scatter_add(self, grad: Array, *, index: Index, shape: tuple[int, ...]) -> Array:
        """Return zeros of `shape` to which grad is added at [index]: the gradient of getitem.

        Elements that an index names several times add up in the order of the index.
        """
        out = self.xp.zeros(shape, grad.dtype)
        if is_basic_index(index):
            out[index] = grad
            return out
        size = out.size
        positions = self.xp.arange(size, dtype=int64).reshape(shape)[index].reshape(-1)
        values = grad.reshape(-1)
        if positions.size == 0:
            return out
        # Equal positions are made neighbours in their order, then each run is summed: no atomics.
        order = self.xp.argsort(positions, kind="stable")
        positions, values = positions[order], values[order]
        first = self.xp.concatenate(
            [self.xp.ones(1, dtype=bool), positions[1:] != positions[:-1]], axis=0
        )
        starts = self.xp.flatnonzero(first)
        flat = out.reshape(-1)
        flat[positions[starts]] = self.xp.add.reduceat(values, starts)
        return flat.reshape(shape)

    def one_hot(self, indices: Array, *, num_classes: int, dtype: DType) -> Array:
        """out[..., k] = 1 where indices[...] = k, else 0; no row for a number out of range."""
        classes = self.xp.arange(num_classes, dtype=indices.dtype)
        return (indices[..., None] == classes).astype(dtype)

    @op(outputs=rules.matmul)
    def matmul(self, x: Array, y: Array, *, trans_a: bool = False, trans_b: bool = False) -> Array:
        """x @ y over the last two axes, either of them transposed first; batches broadcast."""
        a = x.swapaxes(-1, -2) if trans_a else x
        b = y.swapaxes(-1, -2) if trans_b else y
        return self.xp.matmul(a, b)
