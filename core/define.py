"""A differentiable op of one's own: two functions, and the framework checks, times and trains it.

    def swish(b, x, *, beta: float = 1.0):
        return x * b.sigmoid(x * beta)

    def swish_backward(b, grad_out, x, out, *, beta: float = 1.0):
        gate = b.sigmoid(x * beta)
        return grad_out * (gate + beta * out * (1 - gate))

    swish = trine.define_op(swish, swish_backward)

`b` is the backend: `b.xp` is its array module, `b.sigmoid` and the like its ops. The backward
function names what it needs: `grad_out`, any of the inputs, `out`; it returns one gradient for each
input that can have one, in order. Both functions become ops of the contract, so kernels for any
backend can be registered for them under their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from trine.autograd import Op, apply, define
from trine.backends.base import define_backend_op
from trine.backends.op import OutputRule, make_spec
from trine.dtypes import Array, is_float
from trine.tensor import Tensor


def _like_first(*arrays: Array, **call: Any) -> dict[str, Any]:
    x = next(a for a in (*arrays, *call.values()) if hasattr(a, "dtype"))
    return {"out": (x.shape, x.dtype)}


def define_op(
    forward: Callable[..., Array],
    backward: Callable[..., Any],
    *,
    name: str | None = None,
    outputs: OutputRule | None = None,
    backward_outputs: OutputRule | None = None,
) -> Callable[..., Tensor]:
    """Define a differentiable op and return the function that applies it to tensors.

    forward(b, *arrays, **attributes) -> out and backward(b, grad_out, ..., **attributes) -> the
    gradient, or a tuple of them, of the inputs with a float dtype in order. Both serve as the
    reference on every backend. `outputs` and `backward_outputs` state shapes and dtypes for
    kernels; by default one output like the first input.

    Raises ValueError for a name that is taken, and for a backward function that asks for anything
    but grad_out, the inputs and out.
    """
    op_name = name or forward.__name__
    spec = make_spec(forward, name=op_name, outputs=outputs or _like_first, user=True)
    gradient = make_spec(
        backward,
        name=f"{op_name}_backward",
        outputs=backward_outputs or _like_first,
        user=True,
    )
    allowed = {"grad_out", "out", *spec.arrays}
    unknown = [array for array in gradient.arrays if array not in allowed]
    if unknown or "grad_out" not in gradient.arrays:
        raise ValueError(
            f"[define_op] expected the gradient of {op_name} to take grad_out and any of "
            f"{', '.join([*spec.arrays, 'out'])}, got {', '.join(gradient.arrays)}. Rename its "
            "parameters."
        )
    define_backend_op(spec)
    define_backend_op(gradient)

    def run(backend: Any, *arrays: Array, **attributes: Any) -> tuple[Array, tuple[Array, ...]]:
        out = getattr(backend, op_name)(*arrays, **attributes)
        known = {**dict(zip(spec.arrays, arrays, strict=False)), "out": out}
        return out, (tuple(known.get(a) for a in gradient.arrays[1:]), arrays)

    def run_backward(
        backend: Any,
        saved: Any,
        grads: tuple[Array, ...],
        needs: tuple[bool, ...],
        **attributes: Any,
    ) -> list[Array | None]:
        needed, arrays = saved
        results = getattr(backend, gradient.name)(grads[0], *needed, **attributes)
        queue = iter(results if isinstance(results, tuple) else (results,))
        return [
            next(queue, None) if array is not None and is_float(array.dtype) else None
            for array in arrays
        ]

    if gradient.arrays[0] != "grad_out":
        raise ValueError(
            f"[define_op] expected grad_out as the first array of {gradient.name}, got "
            f"{gradient.arrays[0]}. Move it to the front."
        )
    keeps = tuple(i for i, array in enumerate(spec.arrays) if array in gradient.arrays)
    record: Op = define(op_name, run, run_backward, keeps=keeps)

    def function(*tensors: Tensor | None, **attributes: Any) -> Tensor:
        signature = inspect.signature(forward)
        signature.bind(None, *tensors, **attributes)  # the Python error names what is wrong
        result: Tensor = apply(record, *tensors, **attributes)
        return result

    function.__name__ = function.__qualname__ = op_name
    function.__doc__ = forward.__doc__
    return function
