"""Regions of images: pooling a box to a fixed size, and picking boxes that do not overlap.

Boxes of pooling are (K, 5) rows (image, x1, y1, x2, y2) in the type of the images. Where their
elements lie is decided in float64 for both types, so that all backends pool the same elements.
A box of an image that does not exist pools zeros, and so does what lies outside of the image.
Coordinates end at a million pixels, and NaN lies outside.
"""

from __future__ import annotations

from typing import Any

from trine.backends.op import op
from trine.backends.reference.windows import Pair
from trine.dtypes import Array, DType, float64, int32, int64

Outputs = dict[str, tuple[tuple[int, ...], DType]]

FAR = 1e6
"""Coordinates beyond this many pixels count as this."""


def _pooled_shape(x: Array, boxes: Array, output_size: Pair) -> tuple[int, ...]:
    return (boxes.shape[0], x.shape[1], *output_size)


def _roi_pool_outputs(x: Array, boxes: Array, *, output_size: Pair, **_: Any) -> Outputs:
    shape = _pooled_shape(x, boxes, output_size)
    return {"out": (shape, x.dtype), "argmax": (shape, int32)}


def _roi_align_outputs(x: Array, boxes: Array, *, output_size: Pair, **_: Any) -> Outputs:
    return {"out": (_pooled_shape(x, boxes, output_size), x.dtype)}


def _backward_outputs(grad_out: Array, *_: Any, batch: int, input_size: Pair, **__: Any) -> Outputs:
    return {"grad_x": ((batch, grad_out.shape[1], *input_size), grad_out.dtype)}


def _nms_outputs(boxes: Array, scores: Array, **_: Any) -> Outputs:
    return {"indices": (scores.shape, int64), "count": ((), int64)}


class RegionOps:
    """Regions on `self.xp`."""

    xp: Any

    def _images(self, boxes: Array, batch: int) -> tuple[Array, Array]:
        """Return each box's image (0 if there is no such image), and whether there is one."""
        exists = (boxes[:, 0] >= 0) & (boxes[:, 0] < batch)
        return self.xp.where(exists, boxes[:, 0], 0).astype(int64), exists

    # Maximum

    def _bins(
        self, low: Array, high: Array, spatial_scale: float, count: int, size: int
    ) -> tuple[Array, Array]:
        """Return the first element of each bin along an axis, and the one behind its last: (K, P).

        A box of L = max(high - low + 1, 1) elements has the bins floor(p L / P) to ceil((p + 1) L / P).
        """
        start, end = (self._pixel(v.astype(float64) * spatial_scale) for v in (low, high))
        length = self.xp.maximum(end - start + 1, 1)[:, None]
        p = self.xp.arange(count)
        first = start[:, None] + p * length // count
        behind = start[:, None] - (-(p + 1) * length) // count
        return self.xp.clip(first, 0, size), self.xp.clip(behind, 0, size)

    def _pixel(self, v: Array) -> Array:
        """Round to whole pixels, halves away from zero."""
        xp = self.xp
        v = xp.clip(xp.where(v >= 0, xp.floor(v + 0.5), xp.ceil(v - 0.5)), -FAR, FAR)
        return xp.where(v == v, v, FAR).astype(int64)  # noqa: PLR0124  NaN

    @op(outputs=_roi_pool_outputs)
    def roi_pool(
        self, x: Array, boxes: Array, *, output_size: Pair, spatial_scale: float
    ) -> tuple[Array, Array]:
        """y_kcpq = max of x_bchw over the bin (p, q) of box k in image b; argmax = h W + w of it.

        Corners are multiplied by `spatial_scale`, rounded, and both belong to the box; bins are cut
        to the image. An empty bin gives 0 and argmax -1; NaN wins; the first of equal ones counts.
        x: (N, C, H, W), boxes: (K, 5) -> out: (K, C, P, Q), argmax: int32 (K, C, P, Q).
        Source: Girshick, 2015 (Fast R-CNN).
        """
        xp = self.xp
        height, width = x.shape[2:]
        image, exists = self._images(boxes, x.shape[0])
        sides = zip((boxes[:, 2], boxes[:, 1]), (boxes[:, 4], boxes[:, 3]), output_size,
                    (height, width), strict=True)  # fmt: skip
        (top, below), (left, right) = (
            self._bins(a, b, spatial_scale, n, m) for a, b, n, m in sides
        )
        # The maximum of each column of a bin's rows first, then the maximum of these.
        best = xp.full((*top.shape, x.shape[1], width), -xp.inf, x.dtype)  # (K, P, C, W)
        row = xp.full(best.shape, -1, int64)
        for r in range(height):
            h = xp.minimum(top + r, height - 1)
            value = x[image[:, None], :, h]
            here = ((top + r < below) & exists[:, None])[:, :, None, None]
            wins = here & (_beats(value, best) | (row < 0))
            best = xp.where(wins, value, best)
            row = xp.where(wins, h[:, :, None, None], row)
        box = xp.arange(boxes.shape[0])[:, None]
        out = xp.full((*left.shape, *best.shape[1:3]), -xp.inf, x.dtype)  # (K, Q, P, C)
        argmax = xp.full(out.shape, -1, int64)
        for s in range(width):
            w = xp.minimum(left + s, width - 1)
            value, place = best[box, :, :, w], row[box, :, :, w] * width + w[:, :, None, None]
            here = (left + s < right)[:, :, None, None] & (place >= 0)
            earlier = ~_beats(out, value) & (place < argmax)
            wins = here & (_beats(value, out) | earlier | (argmax < 0))
            out, argmax = xp.where(wins, value, out), xp.where(wins, place, argmax)
        out = xp.where(argmax < 0, x.dtype.type(0), out).transpose(0, 3, 2, 1)
        argmax = argmax.transpose(0, 3, 2, 1).astype(int32)
        return xp.ascontiguousarray(out), xp.ascontiguousarray(argmax)

    @op(outputs=_backward_outputs)
    def roi_pool_backward(
        self, grad_out: Array, argmax: Array, boxes: Array, *, batch: int, input_size: Pair
    ) -> Array:
        """dx at the maximum of each bin += its error, in the order of boxes and bins; else 0.

        grad_out, argmax: (K, C, P, Q), boxes: (K, 5) -> grad_x: (batch, C, *input_size).
        """
        xp = self.xp
        channels, area = grad_out.shape[1], input_size[0] * input_size[1]
        size = batch * channels * area
        image, exists = self._images(boxes, batch)
        plane = image[:, None] * channels + xp.arange(channels)
        places = plane[:, :, None, None] * area + argmax
        places = xp.where((argmax >= 0) & exists[:, None, None, None], places, size).reshape(-1)
        # As in the gradient of embedding: equal places become neighbours, then each run is summed.
        order = xp.argsort(places, kind="stable")
        starts = xp.searchsorted(places[order], xp.arange(size + 1))
        errors = xp.concatenate([grad_out.reshape(-1)[order], xp.zeros(1, grad_out.dtype)])
        sums = xp.add.reduceat(errors, starts)[:-1]
        used = starts[1:] > starts[:-1]
        grad_x = xp.where(used, sums, grad_out.dtype.type(0))
        return grad_x.reshape(batch, channels, *input_size)

    # Mean of samples

    def _weights(
        self, low: Array, high: Array, spatial_scale: float, count: int, size: int,
        sampling_ratio: int, aligned: bool,
    ) -> Array:  # fmt: skip
        """Return what each element along an axis counts for in each bin: float64 (K, P, size).

        A bin's samples lie evenly in it; each is interpolated between its two neighbours. Those more
        than a pixel outside of the image count for nothing. With `sampling_ratio` 0 a bin of length
        l has ceil(l) samples, of which at most 2 size + 3 can lie in the image.
        """
        xp = self.xp
        start, end = (
            xp.clip(v.astype(float64) * spatial_scale, -FAR, FAR) - 0.5 * aligned
            for v in (low, high)
        )
        length = end - start if aligned else xp.maximum(end - start, 1.0)
        step = (length / count)[:, None]
        base = start[:, None] + xp.arange(count) * step
        if sampling_ratio > 0:
            samples, most = xp.full_like(step, sampling_ratio), sampling_ratio
            first = xp.zeros_like(base)
        else:
            samples, most = xp.ceil(step), 2 * size + 6
            first = xp.maximum(xp.floor((-1 - base) / (step / samples) - 0.5), 0)
        element = xp.arange(size)
        total = xp.zeros((*base.shape, size), float64)
        for number in range(most):
            i = first + number
            y = base + (i + 0.5) * step / samples
            inside = ((i < samples) & (y >= -1) & (y <= size))[:, :, None]
            y = xp.where(inside, xp.clip(y, 0, size - 1)[:, :, None], 0.0)
            lower = xp.floor(y)
            upper = xp.minimum(lower + 1, size - 1)
            part = (element == lower) * (1 - (y - lower)) + (element == upper) * (y - lower)
            total += xp.where(inside, part, 0.0)
        return total / xp.where(samples >= 1, samples, 1.0)[:, :, None]

    def _both_weights(
        self, boxes: Array, spatial_scale: float, output_size: Pair, input_size: Pair,
        sampling_ratio: int, aligned: bool, dtype: DType,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Return the weights of rows (K, P, H) and columns (K, Q, W)."""
        rows, columns = (
            self._weights(
                boxes[:, low], boxes[:, low + 2], spatial_scale, output_size[axis],
                input_size[axis], sampling_ratio, aligned,
            ).astype(dtype)
            for axis, low in ((0, 2), (1, 1))
        )  # fmt: skip
        return rows, columns

    @op(outputs=_roi_align_outputs)
    def roi_align(
        self,
        x: Array,
        boxes: Array,
        *,
        output_size: Pair,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
    ) -> Array:
        """y_kcpq = sum_hw u_kph v_kqw x_bchw: the mean of samples, bilinearly interpolated.

        Box k in image b is scaled (and moved by half a pixel if `aligned`, else at least 1 x 1) and
        cut into P x Q bins; u and v say what each row and column counts for in a bin's samples, of
        which there are `sampling_ratio` along each axis, or ceil(length of a bin) if that is 0.
        Elements with the weight 0 do not count, even if they are NaN.
        x: (N, C, H, W), boxes: (K, 5) -> out: (K, C, P, Q). Source: He et al., 2017 (Mask R-CNN).
        """
        xp = self.xp
        image, exists = self._images(boxes, x.shape[0])
        u, v = self._both_weights(
            boxes, spatial_scale, output_size, x.shape[2:], sampling_ratio, aligned, x.dtype
        )
        u = xp.where(exists[:, None, None], u, 0)
        zero = x.dtype.type(0)
        rows = xp.zeros((*u.shape[:2], x.shape[1], x.shape[3]), x.dtype)  # (K, P, C, W)
        for h in range(x.shape[2]):
            weight = u[:, :, h, None, None]
            rows += xp.where(weight != 0, weight * x[image, :, h][:, None], zero)
        out = xp.zeros((*rows.shape[:3], output_size[1]), x.dtype)  # (K, P, C, Q)
        for w in range(x.shape[3]):
            weight = v[:, None, None, :, w]
            out += xp.where(weight != 0, weight * rows[..., w, None], zero)
        return xp.ascontiguousarray(out.transpose(0, 2, 1, 3))

    @op(outputs=_backward_outputs)
    def roi_align_backward(
        self,
        grad_out: Array,
        boxes: Array,
        *,
        batch: int,
        input_size: Pair,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
    ) -> Array:
        """dx_bchw = sum_kpq u_kph v_kqw delta_kcpq over the boxes of image b.

        grad_out: (K, C, P, Q), boxes: (K, 5) -> grad_x: (batch, C, *input_size).
        """
        xp = self.xp
        image, exists = self._images(boxes, batch)
        u, v = self._both_weights(
            boxes, spatial_scale, grad_out.shape[2:], input_size, sampling_ratio, aligned,
            grad_out.dtype,
        )  # fmt: skip
        errors = xp.matmul(grad_out, v[:, None])  # (K, C, P, W)
        grad_x = xp.zeros((batch, grad_out.shape[1], *input_size), grad_out.dtype)
        for n in range(batch):
            own = xp.where((exists & (image == n))[:, None, None], u, 0)
            grad_x[n] = xp.tensordot(errors, own, axes=((0, 2), (0, 1))).transpose(0, 2, 1)
        return grad_x

    # Picking

    @op(outputs=_nms_outputs)
    def nms(self, boxes: Array, scores: Array, *, iou_threshold: float) -> tuple[Array, Array]:
        """Keep the best box, drop those whose overlap with it is above the threshold, and so on.

        Overlap is intersection / union, in float64 for both types. indices: the kept boxes by falling
        score (equal scores by index, NaN last), then -1; count: how many were kept. How many that is
        depends on values, but the shapes do not: nothing waits for a device, and a step can be
        captured. boxes: (K, 4) as (x1, y1, x2, y2), scores: (K,) -> indices: int64 (K,), count: ().
        """
        xp = self.xp
        order = xp.argsort(-scores, kind="stable")
        left, top, right, below = boxes[order].astype(float64).T
        area = (right - left) * (below - top)
        rank = xp.arange(len(scores))
        kept = xp.ones(len(scores), bool)
        for i in range(len(scores)):
            one = slice(i, i + 1)
            width = xp.minimum(right[one], right) - xp.maximum(left[one], left)
            height = xp.minimum(below[one], below) - xp.maximum(top[one], top)
            common = xp.maximum(width, 0) * xp.maximum(height, 0)
            overlaps = common / (area[one] + area - common) > iou_threshold
            kept = kept & ~(overlaps & (rank > i) & kept[one])
        count = kept.sum(keepdims=True).reshape(())  # an array on every backend
        in_front = xp.argsort(~kept, kind="stable")
        return xp.where(rank < count, order[in_front], -1), count


def _beats(a: Array, b: Array) -> Array:
    """Whether a is greater than b; NaN is greater than any number."""
    return (a > b) | ((a != a) & (b == b))  # noqa: PLR0124
