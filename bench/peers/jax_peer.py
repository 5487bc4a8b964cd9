"""JAX's functions for the main ops, compiled by `jax.jit`, on the CPU; each call is waited for.

Backward ops run the transposed function alone, as a training step would: `jax.vjp` of a linear map
needs no forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from trine.bench.peers import Peer, PeerCall

jax.config.update("jax_enable_x64", True)  # else float64 samples would be computed in float32

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda z: z, "relu": lambda z: jnp.maximum(z, 0), "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
}  # fmt: skip


def _call(function: Callable[..., Any], *arrays: Any) -> PeerCall:
    """Make a call of a compiled function on arrays of JAX's."""
    held = [jnp.asarray(np.ascontiguousarray(a)) for a in arrays]
    compiled = jax.jit(function)

    def outputs(result: Any) -> list[Any]:
        several = list(result) if isinstance(result, (tuple, list)) else [result]
        return [np.asarray(r) for r in several]

    return PeerCall(lambda: jax.block_until_ready(compiled(*held)), outputs)


def _convolve(x: Any, weight: Any, a: dict[str, Any]) -> Any:
    return lax.conv_general_dilated(
        x, weight, a["stride"], [(p, p) for p in a["padding"]], rhs_dilation=a["dilation"],
        feature_group_count=a["groups"], dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )  # fmt: skip


def conv2d(x: Any, weight: Any, bias: Any, activation: str, **geometry: Any) -> PeerCall | None:
    """Convolution with bias and activation."""
    if bias is None:
        return None
    f = ACTIVATIONS[activation]
    return _call(lambda x, w, b: f(_convolve(x, w, geometry) + b[:, None, None]), x, weight, bias)


def conv2d_input_grad(grad_out: Any, weight: Any, input_size: Any, **geometry: Any) -> PeerCall:
    """Gradient of the input: the convolution is linear in it."""
    shape = (grad_out.shape[0], weight.shape[1] * geometry["groups"], *input_size)
    like = jax.ShapeDtypeStruct(shape, grad_out.dtype)

    def run(delta: Any, weight: Any) -> Any:
        return jax.linear_transpose(lambda x: _convolve(x, weight, geometry), like)(delta)[0]

    return _call(run, grad_out, weight)


def conv2d_weight_grad(grad_out: Any, x: Any, kernel_size: Any, **geometry: Any) -> PeerCall:
    """Gradient of the weight: the convolution is linear in it."""
    shape = (grad_out.shape[1], x.shape[1] // geometry["groups"], *kernel_size)
    like = jax.ShapeDtypeStruct(shape, x.dtype)

    def run(delta: Any, x: Any) -> Any:
        return jax.linear_transpose(lambda w: _convolve(x, w, geometry), like)(delta)[0]

    return _call(run, grad_out, x)


def linear(x: Any, weight: Any, bias: Any, activation: str) -> PeerCall | None:
    """f(x W^T + b)."""
    if bias is None:
        return None
    return _call(lambda x, w, b: ACTIVATIONS[activation](x @ w.T + b), x, weight, bias)


def matmul(x: Any, y: Any, trans_a: bool = False, trans_b: bool = False) -> PeerCall:
    """x y, either transposed."""
    return _call(lambda a, b: (a.mT if trans_a else a) @ (b.mT if trans_b else b), x, y)


def max_pool2d(
    x: Any, kernel_size: Any, stride: Any, padding: Any = (0, 0), dilation: Any = (1, 1),
    ceil_mode: bool = False,
) -> PeerCall | None:  # fmt: skip
    """Maxima, without their places."""
    if ceil_mode:
        return None
    return _call(
        lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 1, *kernel_size), (1, 1, *stride),
            ((0, 0), (0, 0), *((p, p) for p in padding)), window_dilation=(1, 1, *dilation),
        ),
        x,
    )  # fmt: skip


def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> PeerCall | None:
    """Normalisation of rows, with the statistics that a backward pass needs."""
    if weight is None or bias is None:
        return None

    def run(x: Any, weight: Any, bias: Any) -> Any:
        mean = x.mean(1, keepdims=True)
        rstd = lax.rsqrt(((x - mean) ** 2).mean(1, keepdims=True) + eps)
        return (x - mean) * rstd * weight + bias, mean[:, 0], rstd[:, 0]

    return _call(run, x, weight, bias)


def _axis_function(function: Callable[..., Any]) -> Callable[..., PeerCall]:
    return lambda x, axis: _call(lambda x: function(x, axis=axis), x)


def _elementwise(function: Callable[..., Any]) -> Callable[..., PeerCall]:
    return lambda *arrays: _call(function, *arrays)


def _reduction(function: Callable[..., Any]) -> Callable[..., PeerCall]:
    return lambda x, axis=None, keepdims=False: _call(
        lambda x: function(x, axis=axis, keepdims=keepdims), x
    )


def _set_threads(count: int) -> None:
    """Nothing: XLA's pool is as large as the process's CPUs when it starts."""


FUNCTIONS: dict[str, Callable[..., PeerCall | None]] = {
    **{
        name: _elementwise(getattr(jnp, name))
        for name in ("abs", "exp", "log", "sqrt", "tanh", "add", "maximum", "minimum")
    },
    "sub": _elementwise(jnp.subtract), "mul": _elementwise(jnp.multiply),
    "div": _elementwise(jnp.divide), "sigmoid": _elementwise(jax.nn.sigmoid),
    "relu": _elementwise(ACTIVATIONS["relu"]),
    "sum": _reduction(jnp.sum), "max": _reduction(jnp.max), "min": _reduction(jnp.min),
    "softmax": _axis_function(jax.nn.softmax), "log_softmax": _axis_function(jax.nn.log_softmax),
    **{
        function.__name__: function
        for function in (
            conv2d, conv2d_input_grad, conv2d_weight_grad, linear, matmul, max_pool2d, layer_norm,
        )
    },
}  # fmt: skip

PEER = Peer("jax", jax.__version__, FUNCTIONS, _set_threads)
