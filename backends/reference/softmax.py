"""Softmax, its logarithm, and the cross-entropy of logits against class labels.

Each row is shifted by its maximum before anything is raised to a power, so logits of any finite size
are safe; -inf stands for "impossible" and gets probability 0.
"""

from __future__ import annotations

from typing import Any, Literal

from trine.backends.op import op
from trine.dtypes import Array, DType

Reduction = Literal["none", "mean", "sum"]
"""How losses of examples become one; kernels receive the position in this list."""

Outputs = dict[str, tuple[tuple[int, ...], DType]]


def _like_x(x: Array, **_: Any) -> Outputs:
    return {"out": (x.shape, x.dtype)}


def _like_out(grad_out: Array, out: Array, **_: Any) -> Outputs:
    return {"grad_x": (out.shape, out.dtype)}


def _cross_entropy_outputs(
    logits: Array, target: Array, weight: Array | None = None, *, reduction: Reduction, **_: Any
) -> Outputs:
    loss = target.shape if reduction == "none" else ()
    return {"loss": (loss, logits.dtype), "log_probs": (logits.shape, logits.dtype)}


def _cross_entropy_backward_outputs(
    grad_out: Array, log_probs: Array, *_: Any, **__: Any
) -> Outputs:
    return {"grad_logits": (log_probs.shape, log_probs.dtype)}


class SoftmaxOps:
    """Softmax and cross-entropy on `self.xp`."""

    xp: Any

    @op(outputs=_like_x)
    def softmax(self, x: Array, *, axis: int) -> Array:
        """y_k = exp(x_k - max x) / sum_j exp(x_j - max x) along an axis.

        A row that is -inf throughout, or holds NaN or +inf, gives NaN.
        """
        if x.size == 0:
            return x.copy()
        power = self.xp.exp(x - x.max(axis=axis, keepdims=True))
        return power / power.sum(axis=axis, keepdims=True)

    @op(outputs=_like_out)
    def softmax_backward(self, grad_out: Array, out: Array, *, axis: int) -> Array:
        """dx_k = y_k (dy_k - sum_j dy_j y_j)."""
        return out * (grad_out - (grad_out * out).sum(axis=axis, keepdims=True))

    @op(outputs=_like_x)
    def log_softmax(self, x: Array, *, axis: int) -> Array:
        """y_k = s_k - ln sum_j exp s_j with s = x - max x, along an axis."""
        if x.size == 0:
            return x.copy()
        shifted = x - x.max(axis=axis, keepdims=True)
        return shifted - self.xp.log(self.xp.exp(shifted).sum(axis=axis, keepdims=True))

    @op(outputs=_like_out)
    def log_softmax_backward(self, grad_out: Array, out: Array, *, axis: int) -> Array:
        """dx_k = dy_k - exp(y_k) sum_j dy_j."""
        return grad_out - self.xp.exp(out) * grad_out.sum(axis=axis, keepdims=True)

    @op(outputs=_cross_entropy_outputs)
    def cross_entropy(
        self,
        logits: Array,
        target: Array,
        weight: Array | None = None,
        *,
        ignore_index: int,
        label_smoothing: float,
        reduction: Reduction,
    ) -> tuple[Array, Array]:
        """Cross-entropy of rows of logits against class labels, and the log-softmax of the rows.

        With y the label, l the log-softmax, w the class weights (1 without) and s the smoothing,
            loss_n = -(1 - s) w_y l_y - s/C sum_k w_k l_k,   0 where y = ignore_index;
        "mean" is sum_n loss_n / sum_n w_y(n) over rows not ignored (NaN if none is left), "sum" the
        sum. logits: (M, C), target: int64 (M,), weight: (C,) -> loss: () or (M,), log_probs: (M, C).
        A label out of range makes its row's loss and gradient NaN.
        """
        xp, dtype = self.xp, logits.dtype.type
        log_probs = self.log_softmax(logits, axis=1)
        counts, row_weight, label = self._labels(log_probs, target, weight, ignore_index)
        picked = xp.take_along_axis(log_probs, label[:, None], axis=1)[:, 0]
        loss = -dtype(1 - label_smoothing) * row_weight * picked
        if label_smoothing:
            spread = log_probs if weight is None else log_probs * weight
            loss = loss - dtype(label_smoothing / logits.shape[1]) * spread.sum(axis=1)
        loss = xp.where(counts, loss, dtype(0))
        if reduction == "sum":
            loss = loss.sum()
        elif reduction == "mean":
            loss = loss.sum() / row_weight.sum()
        return xp.asarray(loss), log_probs

    @op(outputs=_cross_entropy_backward_outputs)
    def cross_entropy_backward(
        self,
        grad_out: Array,
        log_probs: Array,
        target: Array,
        weight: Array | None = None,
        *,
        ignore_index: int,
        label_smoothing: float,
        reduction: Reduction,
    ) -> Array:
        """Gradient of `cross_entropy` by the logits.

        With q_k = (1 - s) w_y [k = y] + s/C w_k, the weight of -l_k in the row's loss,
            dz_k = g_n (p_k sum_j q_j - q_k),   p = exp(l),
        and g_n = dloss_n, dloss, or dloss / sum_n w_y(n) by the reduction; 0 for rows ignored.
        """
        xp, dtype = self.xp, log_probs.dtype.type
        classes = log_probs.shape[1]
        counts, row_weight, label = self._labels(log_probs, target, weight, ignore_index)
        is_label = label[:, None] == xp.arange(classes, dtype=label.dtype)
        q = xp.where(is_label, dtype(1 - label_smoothing) * row_weight[:, None], dtype(0))
        if label_smoothing:
            q = q + dtype(label_smoothing / classes) * (dtype(1) if weight is None else weight)
        grad = xp.exp(log_probs) * q.sum(axis=1, keepdims=True) - q
        row_grad = grad_out / row_weight.sum() if reduction == "mean" else grad_out
        row_grad = xp.broadcast_to(row_grad, target.shape)
        return xp.where(counts[:, None], row_grad[:, None] * grad, dtype(0))

    def _labels(
        self, log_probs: Array, target: Array, weight: Array | None, ignore_index: int
    ) -> tuple[Array, Array, Array]:
        """Return which rows count, the weight w_y of each (0 if ignored), and a safe label."""
        xp, dtype = self.xp, log_probs.dtype.type
        counts = target != ignore_index
        in_range = (target >= 0) & (target < log_probs.shape[1])
        label = xp.where(in_range & counts, target, 0)
        row_weight = xp.ones(target.shape, log_probs.dtype) if weight is None else weight[label]
        row_weight = xp.where(in_range, row_weight, dtype("nan"))
        return counts, xp.where(counts, row_weight, dtype(0)), label
