"""Optimiser steps in place on flat buffers, by PyTorch's formulas.

lr, scale and norm are float64 arrays (1,), step an int64 array (1,) that counts this step already:
numbers that change from step to step stay on the device. They are combined in float64, then rounded
once to the parameters' dtype. g = scale * grad throughout; where scale is not finite (a gradient was
NaN or Inf) nothing is changed at all.
"""

from __future__ import annotations

from typing import Any

from trine.backends.op import op
from trine.dtypes import Array, DType, float64

CHUNK = 4096
"""Elements that are summed together before chunks are added up: fixed, so sums repeat bit for bit."""


def _sum_squares_outputs(x: Array) -> dict[str, tuple[tuple[int, ...], DType]]:
    return {"out": ((1,), float64)}


class OptimiserOps:
    """Optimiser steps on `self.xp`. All vectors are 1-D of one length and one float dtype."""

    xp: Any

    @op(mutates=("param", "momentum_buffer"))
    def sgd_step(
        self,
        param: Array,
        grad: Array,
        momentum_buffer: Array | None,
        lr: Array,
        step: Array,
        scale: Array,
        *,
        momentum: float,
        dampening: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        """g += weight_decay p;  b = momentum b + (1 - dampening) g (b = g at step 1);  p -= lr d.

        d is g without momentum, b with it, g + momentum b with Nesterov's. momentum_buffer is None
        if and only if momentum is 0.
        """
        xp, dtype = self.xp, param.dtype.type
        ok = xp.isfinite(scale)
        g = grad * scale.astype(param.dtype)
        if weight_decay:
            g = g + dtype(weight_decay) * param
        if momentum_buffer is not None:
            later = dtype(momentum) * momentum_buffer + dtype(1 - dampening) * g
            buffer = xp.where(step == 1, g, later)
            momentum_buffer[...] = xp.where(ok, buffer, momentum_buffer)
            g = g + dtype(momentum) * buffer if nesterov else buffer
        param[...] = xp.where(ok, param - lr.astype(param.dtype) * g, param)

    @op(mutates=("param", "exp_avg", "exp_avg_sq"))
    def adam_step(
        self,
        param: Array,
        grad: Array,
        exp_avg: Array,
        exp_avg_sq: Array,
        lr: Array,
        step: Array,
        scale: Array,
        *,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        """Adam (Kingma and Ba, 2015), or AdamW (Loshchilov and Hutter, 2019) if `decoupled`.

        decoupled: p *= 1 - lr weight_decay;   otherwise: g += weight_decay p
        m += (1 - beta1) (g - m);   v = beta2 v + (1 - beta2) g^2
        p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
        """
        xp, kind = self.xp, param.dtype
        dtype = kind.type
        ok = xp.isfinite(scale)
        g = grad * scale.astype(kind)
        p = param
        if weight_decay and decoupled:
            p = p * (1 - lr * weight_decay).astype(kind)
        elif weight_decay:
            g = g + dtype(weight_decay) * p
        m = exp_avg + dtype(1 - beta1) * (g - exp_avg)
        v = dtype(beta2) * exp_avg_sq + dtype(1 - beta2) * g * g
        t = step.astype(float64)
        step_size = (lr / (1 - beta1**t)).astype(kind)
        unbias = (1 / xp.sqrt(1 - beta2**t)).astype(kind)
        p = p - step_size * (m / (xp.sqrt(v) * unbias + dtype(eps)))
        param[...] = xp.where(ok, p, param)
        exp_avg[...] = xp.where(ok, m, exp_avg)
        exp_avg_sq[...] = xp.where(ok, v, exp_avg_sq)

    @op(mutates=("param", "square_avg", "momentum_buffer", "grad_avg"))
    def rmsprop_step(
        self,
        param: Array,
        grad: Array,
        square_avg: Array,
        momentum_buffer: Array | None,
        grad_avg: Array | None,
        lr: Array,
        scale: Array,
        *,
        alpha: float,
        eps: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """RMSprop (Tieleman and Hinton, 2012); centred (Graves, 2013) if there is a grad_avg.

            g += weight_decay p;   v = alpha v + (1 - alpha) g^2
            centred: a += (1 - alpha) (g - a), and v - a^2 stands for v below
            b = momentum b + g / (sqrt(v) + eps);   p -= lr b

        momentum_buffer is None if and only if momentum is 0; then b = g / (sqrt(v) + eps). v - a^2
        is never below 0 but for rounding, and is taken as 0 there.
        """
        xp, dtype = self.xp, param.dtype.type
        ok = xp.isfinite(scale)
        g = grad * scale.astype(param.dtype)
        if weight_decay:
            g = g + dtype(weight_decay) * param
        v = dtype(alpha) * square_avg + dtype(1 - alpha) * g * g
        square_avg[...] = xp.where(ok, v, square_avg)
        if grad_avg is not None:
            a = grad_avg + dtype(1 - alpha) * (g - grad_avg)
            grad_avg[...] = xp.where(ok, a, grad_avg)
            v = xp.maximum(v - a * a, dtype(0))
        update = g / (xp.sqrt(v) + dtype(eps))
        if momentum_buffer is not None:
            update = dtype(momentum) * momentum_buffer + update
            momentum_buffer[...] = xp.where(ok, update, momentum_buffer)
        param[...] = xp.where(ok, param - lr.astype(param.dtype) * update, param)

    @op(mutates=("param", "state_sum"))
    def adagrad_step(
        self,
        param: Array,
        grad: Array,
        state_sum: Array,
        lr: Array,
        step: Array,
        scale: Array,
        *,
        lr_decay: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        """Adagrad (Duchi, Hazan and Singer, 2011).

        g += weight_decay p;  s += g^2;  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)
        """
        xp, dtype = self.xp, param.dtype.type
        ok = xp.isfinite(scale)
        g = grad * scale.astype(param.dtype)
        if weight_decay:
            g = g + dtype(weight_decay) * param
        s = state_sum + g * g
        rate = (lr / (1 + (step - 1) * lr_decay)).astype(param.dtype)
        param[...] = xp.where(ok, param - rate * (g / (xp.sqrt(s) + dtype(eps))), param)
        state_sum[...] = xp.where(ok, s, state_sum)

    @op(mutates=("param",))
    def unit_step(self, param: Array, grad: Array, norm: Array, lr: Array, scale: Array) -> None:
        """p -= lr grad / norm: a step of length lr against the gradient, whatever its size.

        norm: float64 (1,), the Euclidean norm of the whole gradient, of which `grad` may be a part.
        A norm of 0 makes no step, nor does one that is not finite. A scale multiplies gradient and
        norm alike, so a finite one has no effect.
        """
        xp = self.xp
        ok = xp.isfinite(scale) & xp.isfinite(norm) & (norm > 0)
        rate = (lr / xp.where(ok, norm, 1.0)).astype(param.dtype)
        param[...] = xp.where(ok, param - rate * grad, param)

    @op(outputs=_sum_squares_outputs)
    def sum_squares(self, x: Array) -> Array:
        """sum_i x_i^2 in float64: chunks of 4096 elements, then the chunks in order.

        x: 1-D -> float64 (1,).
        """
        xp = self.xp
        chunks = -(-x.size // CHUNK)
        padded = xp.zeros(chunks * CHUNK, float64)
        padded[: x.size] = x
        squares = (padded * padded).reshape(chunks, CHUNK)
        return squares.sum(axis=1).sum(keepdims=True)
