"""The primitive ops and their gradients, a line or two each.

A rule is written against `b`, a namespace of primitive ops: the backend itself on arrays, or
`Traced` on tensors when gradients shall be differentiable. g is the gradient of the output; the
arguments after `needs` are what the op keeps. Broadcasting is the engine's business.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from trine.autograd import Node, Op, apply
from trine.dtypes import Array, DType

if TYPE_CHECKING:
    from trine.backends import Backend
    from trine.tensor import Tensor

PRIMITIVES: dict[str, Op] = {}


def _primitive(
    name: str,
    backward: Callable[..., Any],
    keeps: tuple[int, ...] = (),
    *,
    shapes: bool = False,
    keeps_out: bool = False,
    view: bool = False,
) -> None:
    def forward(backend: Backend, *arrays: Array, **attrs: Any) -> Array:
        return getattr(backend, name)(*arrays, **attrs)

    PRIMITIVES[name] = Op(
        name, forward, backward, keeps, shapes, keeps_out, primitive=True, view=view
    )


class Traced:
    """The primitives on tensors, under the names they have on a backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(apply, PRIMITIVES[name])

    def made_by(self, node: Node, array: Array) -> Tensor:
        """Return a tensor around a node's saved output that continues the graph there."""
        tensor = self._tensor(array)
        tensor.requires_grad, tensor.node = True, node
        return tensor

    def sum_to(self, x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
        """Sum what broadcasting repeated."""
        extra = x.ndim - len(shape)
        axes = tuple(i for i in range(x.ndim) if i < extra or (shape[i - extra] == 1 != x.shape[i]))
        total = self.sum(x, axis=axes, keepdims=True) if axes else x
        result: Tensor = self.reshape(total, shape=shape)
        return result

    def mask(self, name: str, x: Tensor, y: Tensor, dtype: DType) -> Tensor:
        """Return a comparison as numbers; it is constant almost everywhere."""
        return self._tensor(_mask(self.backend, name, x.data, y.data, dtype))

    def constant(self, value: float, dtype: DType) -> Tensor:
        """Return a number as a tensor without axes."""
        return self._tensor(self.backend.full((), value, dtype))

    def _tensor(self, array: Array) -> Tensor:
        from trine.tensor import Tensor  # noqa: PLC0415  tensors use these rules

        return Tensor._wrap(array, self.backend)


def _mask(backend: Backend, name: str, x: Array, y: Array, dtype: DType) -> Array:
    return backend.astype(getattr(backend, name)(x, y), dtype=dtype)


def _c(b: Any, value: float, like: Any) -> Any:
    """Return a number in the type of `like`."""
    return b.constant(value, like.dtype)


def _m(b: Any, name: str, x: Any, y: Any) -> Any:
    """Return a comparison as 0 and 1 in the type of x."""
    return b.mask(name, x, y, x.dtype)


def _div_rule(b: Any, g: Any, needs: Any, x: Any, y: Any) -> Any:
    grad_x = b.div(g, y) if needs[0] else None
    grad_y = b.neg(b.div(b.mul(g, b.div(x, y)), y)) if needs[1] else None
    return grad_x, grad_y


def _pow_rule(b: Any, g: Any, needs: Any, x: Any, y: Any, out: Any) -> Any:
    grad_x = grad_y = None
    zero = _c(b, 0.0, x)
    if needs[0]:
        # y x^(y-1); zero for y = 0 also at x = 0, where the power alone is infinite
        power = b.pow(x, b.sub(y, _c(b, 1.0, y)))
        grad_x = b.mul(g, b.where(_plain(b, "equal", y, zero), zero, b.mul(y, power)))
    if needs[1]:
        grad_y = b.mul(g, b.where(_plain(b, "equal", out, zero), zero, b.mul(out, b.log(x))))
    return grad_x, grad_y


def _plain(b: Any, name: str, x: Any, y: Any) -> Any:
    """Return a comparison as a condition for `where`."""
    if isinstance(b, Traced):
        return b._tensor(getattr(b.backend, name)(x.data, y.data))
    return getattr(b, name)(x, y)


_SLOPES: dict[str, Callable[..., Any]] = {
    "relu": lambda b, y: _m(b, "greater", y, _c(b, 0.0, y)),
    "sigmoid": lambda b, y: b.mul(y, b.sub(_c(b, 1.0, y), y)),
    "tanh": lambda b, y: b.sub(_c(b, 1.0, y), b.mul(y, y)),
}
"""act'(z) from y = act(z)."""


def _activation_rule(name: str) -> Callable[..., Any]:
    def rule(b: Any, g: Any, needs: Any, y: Any) -> Any:
        if isinstance(b, Traced):
            return (b.mul(g, _SLOPES[name](b, y)),)
        return (b.act_backward(g, y, activation=name),)

    return rule


def _extreme_pair(name: str) -> Callable[..., Any]:
    def rule(b: Any, g: Any, needs: Any, x: Any, y: Any) -> Any:
        # Ties give half to each side, as in PyTorch.
        half = b.mul(_m(b, "equal", x, y), _c(b, 0.5, x))
        wins = b.add(_m(b, name, x, y), half)
        loses = b.sub(_c(b, 1.0, x), wins)
        return (b.mul(g, wins) if needs[0] else None), (b.mul(g, loses) if needs[1] else None)

    return rule


def _expand(b: Any, g: Any, x: Any, axis: tuple[int, ...] | None, keepdims: bool) -> Any:
    """Repeat a reduced array over the axes that were reduced."""
    if not keepdims:
        axes = range(len(x.shape)) if axis is None else [a % len(x.shape) for a in axis]
        shape = tuple(1 if i in set(axes) else size for i, size in enumerate(x.shape))
        g = b.reshape(g, shape=shape)
    return b.broadcast_to(g, shape=x.shape)


def _sum_rule(
    b: Any, g: Any, needs: Any, x: Any, *, axis: Any = None, keepdims: bool = False
) -> Any:
    return (_expand(b, g, x, axis, keepdims),)


def _extreme_rule(
    b: Any, g: Any, needs: Any, x: Any, out: Any, *, axis: Any = None, keepdims: bool = False
) -> Any:
    # Ties share the gradient evenly.
    mask = _m(b, "equal", x, _expand(b, out, x, axis, keepdims))
    count = _expand(b, b.sum(mask, axis=axis, keepdims=keepdims), x, axis, keepdims)
    return (b.mul(_expand(b, g, x, axis, keepdims), b.div(mask, count)),)


def _matmul_rule(
    b: Any, g: Any, needs: Any, x: Any, y: Any, *, trans_a: bool = False, trans_b: bool = False
) -> Any:
    grad_x = grad_y = None
    if needs[0]:
        grad_x = (
            b.matmul(y, g, trans_a=trans_b, trans_b=True)
            if trans_a
            else b.matmul(g, y, trans_a=False, trans_b=not trans_b)
        )
    if needs[1]:
        grad_y = (
            b.matmul(g, x, trans_a=True, trans_b=trans_a)
            if trans_b
            else b.matmul(x, g, trans_a=not trans_a, trans_b=False)
        )
    return grad_x, grad_y


def _concat_rule(b: Any, g: Any, needs: Any, *arrays: Any, axis: int) -> Any:
    grads, start = [], 0
    for array, needed in zip(arrays, needs, strict=True):
        stop = start + array.shape[axis]
        index = [slice(None)] * len(g.shape)
        index[axis] = slice(start, stop)
        grads.append(b.getitem(g, index=tuple(index)) if needed else None)
        start = stop
    return grads


def _pad_rule(
    b: Any, g: Any, needs: Any, x: Any, *, widths: Any, mode: str = "constant", value: float = 0.0
) -> Any:
    if mode == "constant":
        index = tuple(slice(a, a + n) for (a, _), n in zip(widths, x.shape, strict=True))
        return (b.getitem(g, index=index),)
    # A reflected element is a copy of an inner one: its error goes back there, axis by axis.
    shape = list(g.shape)
    for axis, (before, after) in enumerate(widths):
        if before or after:
            source = np.pad(np.arange(x.shape[axis]), (before, after), mode="reflect")
            backend = b.backend if isinstance(b, Traced) else b
            index = (slice(None),) * axis + (backend.asarray(source),)
            shape[axis] = x.shape[axis]
            g = b.scatter_add(g, index=index, shape=tuple(shape))
    return (g,)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort([a % len(axes) for a in axes]))


def _both(rule_x: Callable[..., Any], rule_y: Callable[..., Any]) -> Callable[..., Any]:
    """Make a rule for two inputs from one for each, run only where needed."""

    def rule(b: Any, g: Any, needs: Any, *kept: Any) -> Any:
        return (
            rule_x(b, g, *kept) if needs[0] else None,
            rule_y(b, g, *kept) if needs[1] else None,
        )

    return rule


_primitive("add", lambda b, g, n: (g, g))
_primitive("sub", _both(lambda b, g: g, lambda b, g: b.neg(g)))
_primitive("mul", _both(lambda b, g, x, y: b.mul(g, y), lambda b, g, x, y: b.mul(g, x)), (0, 1))
_primitive("div", _div_rule, (0, 1))
_primitive("pow", _pow_rule, (0, 1), keeps_out=True)
_primitive("maximum", _extreme_pair("greater"), (0, 1))
_primitive("minimum", _extreme_pair("less"), (0, 1))
_primitive("neg", lambda b, g, n: (b.neg(g),))
_primitive("abs", lambda b, g, n, x: (b.mul(g, b.sign(x)),), (0,))
_primitive("sign", lambda b, g, n: (b.mul(g, _c(b, 0.0, g)),))
_primitive("floor", lambda b, g, n: (b.mul(g, _c(b, 0.0, g)),))
_primitive("exp", lambda b, g, n, y: (b.mul(g, y),), keeps_out=True)
_primitive("expm1", lambda b, g, n, y: (b.mul(g, b.add(y, _c(b, 1.0, y))),), keeps_out=True)
_primitive("log", lambda b, g, n, x: (b.div(g, x),), (0,))
_primitive("log1p", lambda b, g, n, x: (b.div(g, b.add(x, _c(b, 1.0, x))),), (0,))
_primitive("sqrt", lambda b, g, n, y: (b.div(b.mul(g, _c(b, 0.5, y)), y),), keeps_out=True)
_primitive("sin", lambda b, g, n, x: (b.mul(g, b.cos(x)),), (0,))
_primitive("cos", lambda b, g, n, x: (b.neg(b.mul(g, b.sin(x))),), (0,))
_primitive("tanh", _activation_rule("tanh"), keeps_out=True)
_primitive("sigmoid", _activation_rule("sigmoid"), keeps_out=True)
_primitive("relu", _activation_rule("relu"), keeps_out=True)
_primitive("softplus", lambda b, g, n, x: (b.mul(g, b.sigmoid(x)),), (0,))
_primitive(
    "where",
    lambda b, g, n, c: (
        None,
        b.where(c, g, _c(b, 0.0, g)) if n[1] else None,
        b.where(c, _c(b, 0.0, g), g) if n[2] else None,
    ),
    (0,),
)
_primitive("sum", _sum_rule, shapes=True)
_primitive("max", _extreme_rule, (0,), keeps_out=True)
_primitive("min", _extreme_rule, (0,), keeps_out=True)
_primitive("matmul", _matmul_rule, (0, 1))
_primitive(
    "reshape", lambda b, g, n, x, *, shape: (b.reshape(g, shape=x.shape),), shapes=True, view=True
)
_primitive("transpose", lambda b, g, n, *, axes: (b.transpose(g, axes=_inverse(axes)),), view=True)
_primitive("broadcast_to", lambda b, g, n, *, shape: (g,), view=True)
_primitive("concat", _concat_rule, shapes=True)
_primitive("pad", _pad_rule, shapes=True)
_primitive(
    "getitem",
    lambda b, g, n, x, *, index: (b.scatter_add(g, index=index, shape=x.shape),),
    shapes=True,
    view=True,
)
_primitive("scatter_add", lambda b, g, n, *, index, shape: (b.getitem(g, index=index),))
_primitive("astype", lambda b, g, n, x, *, dtype: (b.astype(g, dtype=x.dtype),), shapes=True)
_primitive("clone", lambda b, g, n: (g,))
