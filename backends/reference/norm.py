"""Normalisation over the batch, over each row, and over groups of channels.

Variances take two passes (the mean first), so a mean far from zero costs no digits. All of them are
biased: the mean of squares, not divided by n - 1.
"""

from __future__ import annotations

from typing import Any

from trine.backends.op import op
from trine.dtypes import Array, DType

Outputs = dict[str, tuple[tuple[int, ...], DType]]


def _batch_norm_outputs(x: Array, *_: Any, **__: Any) -> Outputs:
    channels = (x.shape[1],)
    return {"out": (x.shape, x.dtype), "mean": (channels, x.dtype), "var": (channels, x.dtype)}


def _like_x(x: Array, *_: Any, **__: Any) -> Outputs:
    return {"out": (x.shape, x.dtype)}


def _layer_norm_outputs(x: Array, *_: Any, **__: Any) -> Outputs:
    rows = (x.shape[0],)
    return {"out": (x.shape, x.dtype), "mean": (rows, x.dtype), "rstd": (rows, x.dtype)}


def _group_norm_outputs(x: Array, *_: Any, groups: int, **__: Any) -> Outputs:
    parts = (x.shape[0], groups)
    return {"out": (x.shape, x.dtype), "mean": (parts, x.dtype), "rstd": (parts, x.dtype)}


def _backward_outputs(grad_out: Array, x: Array, *_: Any, **__: Any) -> Outputs:
    features = (x.shape[1],)
    return {
        "grad_x": (x.shape, x.dtype),
        "grad_weight": (features, x.dtype),
        "grad_bias": (features, x.dtype),
    }


def _local_response_outputs(x: Array, **_: Any) -> Outputs:
    return {"out": (x.shape, x.dtype), "scale": (x.shape, x.dtype)}


def _local_response_backward_outputs(grad_out: Array, x: Array, *_: Any, **__: Any) -> Outputs:
    return {"grad_x": (x.shape, x.dtype)}


def neighbours(size: int) -> tuple[int, int]:
    """Return how many channels before and after its own a window of `size` channels reaches."""
    return size // 2, (size - 1) // 2


def _scale_and_shift(x_hat: Array, weight: Array | None, bias: Array | None) -> Array:
    """x_hat * weight + bias over axis 1, either of them left out if None."""
    shape = (1, -1) + (1,) * (x_hat.ndim - 2)
    if weight is not None:
        x_hat = x_hat * weight.reshape(shape)
    return x_hat if bias is None else x_hat + bias.reshape(shape)


def _input_gradient(grad: Array, x_hat: Array, rstd: Array, axes: tuple[int, ...], n: int) -> Array:
    """dx = rstd (dx_hat - mean(dx_hat) - x_hat mean(dx_hat x_hat)), means over what was normalised.

    The second term is what reaches x through the mean, the third what reaches it through the variance.
    """
    through_mean = grad.sum(axis=axes, keepdims=True) / n
    through_var = (grad * x_hat).sum(axis=axes, keepdims=True) / n
    return rstd * (grad - through_mean - x_hat * through_var)


class NormOps:
    """Normalisation on `self.xp`."""

    xp: Any

    @op(outputs=_batch_norm_outputs)
    def batch_norm(
        self, x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float
    ) -> tuple[Array, Array, Array]:
        """y = (x - mean_c) / sqrt(var_c + eps) weight_c + bias_c, over all of a channel.

        x: (N, C, L), weight, bias: (C,) -> out: (N, C, L), mean, var (biased): (C,).
        """
        n = x.shape[0] * x.shape[2]
        mean = x.sum(axis=(0, 2)) / n
        centred = x - mean[:, None]
        var = (centred * centred).sum(axis=(0, 2)) / n
        x_hat = centred * self._rstd(var, eps)[:, None]
        return _scale_and_shift(x_hat, weight, bias), mean, var

    @op(outputs=_backward_outputs)
    def batch_norm_backward(
        self,
        grad_out: Array,
        x: Array,
        weight: Array | None,
        mean: Array,
        var: Array,
        *,
        eps: float,
    ) -> tuple[Array, Array, Array]:
        """Gradients of `batch_norm` by x, weight and bias; mean and var are its outputs."""
        rstd = self._rstd(var, eps)[:, None]
        x_hat = (x - mean[:, None]) * rstd
        grad_weight = (grad_out * x_hat).sum(axis=(0, 2))
        grad_bias = grad_out.sum(axis=(0, 2))
        grad = _scale_and_shift(grad_out, weight, None)
        n = x.shape[0] * x.shape[2]
        return _input_gradient(grad, x_hat, rstd, (0, 2), n), grad_weight, grad_bias

    @op(outputs=_like_x)
    def batch_norm_eval(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        mean: Array,
        var: Array,
        *,
        eps: float,
    ) -> Array:
        """y = (x - mean_c) / sqrt(var_c + eps) weight_c + bias_c with moments that are given.

        x: (N, C, L), all others (C,) -> out: (N, C, L).
        """
        x_hat = (x - mean[:, None]) * self._rstd(var, eps)[:, None]
        return _scale_and_shift(x_hat, weight, bias)

    @op(outputs=_backward_outputs)
    def batch_norm_eval_backward(
        self,
        grad_out: Array,
        x: Array,
        weight: Array | None,
        mean: Array,
        var: Array,
        *,
        eps: float,
    ) -> tuple[Array, Array, Array]:
        """Gradients of `batch_norm_eval` by x, weight and bias; mean and var are constants."""
        rstd = self._rstd(var, eps)[:, None]
        grad_weight = (grad_out * ((x - mean[:, None]) * rstd)).sum(axis=(0, 2))
        grad = _scale_and_shift(grad_out, weight, None)
        return grad * rstd, grad_weight, grad_out.sum(axis=(0, 2))

    @op(outputs=_layer_norm_outputs)
    def layer_norm(
        self, x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float
    ) -> tuple[Array, Array, Array]:
        """y = (x - mean_m) rstd_m weight + bias over each row, rstd = 1 / sqrt(var + eps).

        x: (M, D), weight, bias: (D,) -> out: (M, D), mean, rstd: (M,).
        """
        mean = x.sum(axis=1) / x.shape[1]
        centred = x - mean[:, None]
        rstd = self._rstd((centred * centred).sum(axis=1) / x.shape[1], eps)
        return _scale_and_shift(centred * rstd[:, None], weight, bias), mean, rstd

    @op(outputs=_backward_outputs)
    def layer_norm_backward(
        self, grad_out: Array, x: Array, weight: Array | None, mean: Array, rstd: Array
    ) -> tuple[Array, Array, Array]:
        """Gradients of `layer_norm` by x, weight and bias; mean and rstd are its outputs."""
        x_hat = (x - mean[:, None]) * rstd[:, None]
        grad = _scale_and_shift(grad_out, weight, None)
        grad_x = _input_gradient(grad, x_hat, rstd[:, None], (1,), x.shape[1])
        return grad_x, (grad_out * x_hat).sum(axis=0), grad_out.sum(axis=0)

    @op(outputs=_group_norm_outputs)
    def group_norm(
        self,
        x: Array,
        weight: Array | None = None,
        bias: Array | None = None,
        *,
        groups: int,
        eps: float,
    ) -> tuple[Array, Array, Array]:
        """y = (x - mean_ng) rstd_ng weight_c + bias_c over each group of C / groups channels.

        x: (N, C, L), weight, bias: (C,) -> out: (N, C, L), mean, rstd: (N, groups).
        """
        grouped = x.reshape(x.shape[0], groups, (x.shape[1] // groups) * x.shape[2])
        mean = grouped.sum(axis=2) / grouped.shape[2]
        centred = grouped - mean[:, :, None]
        rstd = self._rstd((centred * centred).sum(axis=2) / grouped.shape[2], eps)
        x_hat = (centred * rstd[:, :, None]).reshape(x.shape)
        return _scale_and_shift(x_hat, weight, bias), mean, rstd

    @op(outputs=_backward_outputs)
    def group_norm_backward(
        self,
        grad_out: Array,
        x: Array,
        weight: Array | None,
        mean: Array,
        rstd: Array,
        *,
        groups: int,
    ) -> tuple[Array, Array, Array]:
        """Gradients of `group_norm` by x, weight and bias; mean and rstd are its outputs."""
        size = (x.shape[1] // groups) * x.shape[2]
        shape = (x.shape[0], groups, size)
        x_hat = (x.reshape(shape) - mean[:, :, None]) * rstd[:, :, None]
        grad = _scale_and_shift(grad_out, weight, None).reshape(shape)
        grad_x = _input_gradient(grad, x_hat, rstd[:, :, None], (2,), size).reshape(x.shape)
        grad_weight = (grad_out * x_hat.reshape(x.shape)).sum(axis=(0, 2))
        return grad_x, grad_weight, grad_out.sum(axis=(0, 2))

    @op(outputs=_local_response_outputs)
    def local_response_norm(
        self, x: Array, *, size: int, alpha: float, beta: float, k: float
    ) -> tuple[Array, Array]:
        """y_c = x_c s_c^-beta with s_c = k + alpha / size sum_j x_j^2 over `size` channels around c.

        j goes from c - size // 2 to c + (size - 1) // 2, as far as there are such channels; what is
        missing counts as 0 (PyTorch's rule). x: (N, C, L) -> out, scale (the s): (N, C, L).
        Source: Krizhevsky, Sutskever and Hinton, 2012.
        """
        sums = self._over_channels(x * x, *neighbours(size))
        scale = x.dtype.type(k) + x.dtype.type(alpha / size) * sums
        return x * scale ** x.dtype.type(-beta), scale

    @op(outputs=_local_response_backward_outputs)
    def local_response_norm_backward(
        self,
        grad_out: Array,
        x: Array,
        scale: Array,
        *,
        size: int,
        alpha: float,
        beta: float,
    ) -> Array:
        """dx_j = g_j s_j^-beta - 2 alpha beta / size x_j sum_c g_c x_c s_c^(-beta - 1).

        c goes over the channels whose windows hold j: from j - (size - 1) // 2 to j + size // 2.
        scale: the s of `local_response_norm`.
        """
        before, after = neighbours(size)
        shrunk = grad_out * scale ** x.dtype.type(-beta)
        through_scale = self._over_channels(shrunk * x / scale, after, before)
        return shrunk - x.dtype.type(2 * alpha * beta / size) * x * through_scale

    def _over_channels(self, x: Array, before: int, after: int) -> Array:
        """Sum each channel with those up to `before` in front of it and `after` behind it."""
        channels = x.shape[1]
        total = self.xp.zeros_like(x)
        for shift in range(-min(before, channels - 1), min(after, channels - 1) + 1):
            first, last = max(0, -shift), channels - max(0, shift)
            total[:, first:last] += x[:, first + shift : last + shift]
        return total

    def _rstd(self, var: Array, eps: float) -> Array:
        return 1 / self.xp.sqrt(var + var.dtype.type(eps))
