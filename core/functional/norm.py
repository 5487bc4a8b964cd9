"""Batch, layer, group and local response normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trine.autograd import apply, define, no_grad
from trine.backends import Backend
from trine.backends.reference.norm import neighbours
from trine.dtypes import Array
from trine.functional.checks import require_float, require_like
from trine.functional.padding import pad
from trine.tensor import Tensor

Saved = tuple[Any, ...]


def _over_channels(v: Tensor, ndim: int) -> Tensor:
    """Reshape (C,) so that it broadcasts along axis 1."""
    return v.reshape((1, -1) + (1,) * (ndim - 2))


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x = x * _over_channels(weight, x.ndim)
    return x if bias is None else x + _over_channels(bias, x.ndim)


def _batch_norm(
    be: Backend, x: Array, weight: Array | None, bias: Array | None, *, eps: float
) -> tuple[tuple[Array, Array, Array], Saved]:
    out, mean, var = be.batch_norm(x, weight, bias, eps=eps)
    return (out, mean, var), (x, weight, mean, var)


def _batch_norm_backward(
    be: Backend, saved: Saved, grads: Saved, needs: Saved, *, eps: float
) -> Saved:
    # Mean and variance leave the op for the running statistics only: they get no gradient.
    result: Saved = be.batch_norm_backward(grads[0], *saved, eps=eps)
    return result


def _batch_norm_composed(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean((0, 2), keepdim=True)
    var = (x - mean).square().mean((0, 2), keepdim=True)
    out = _affine((x - mean) / (var + eps).sqrt(), weight, bias)
    return out, mean.flatten(), var.flatten()


def _batch_norm_eval(
    be: Backend,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    mean: Array,
    var: Array,
    *,
    eps: float,
) -> tuple[Array, Saved]:
    return be.batch_norm_eval(x, weight, bias, mean, var, eps=eps), (x, weight, mean, var)


def _batch_norm_eval_backward(
    be: Backend, saved: Saved, grads: Saved, needs: Saved, *, eps: float
) -> Saved:
    # Running statistics are constants, as in PyTorch.
    grad_x, grad_weight, grad_bias = be.batch_norm_eval_backward(grads[0], *saved, eps=eps)
    return grad_x, grad_weight, grad_bias, None, None


def _batch_norm_eval_composed(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    *,
    eps: float,
) -> Tensor:
    rstd = 1 / (var.detach() + eps).sqrt()
    scale = rstd if weight is None else rstd * weight
    return _affine(x - _over_channels(mean.detach(), x.ndim), scale, bias)


def _layer_norm(
    be: Backend, x: Array, weight: Array | None, bias: Array | None, *, eps: float
) -> tuple[Array, Saved]:
    out, mean, rstd = be.layer_norm(x, weight, bias, eps=eps)
    return out, (x, weight, mean, rstd)


def _layer_norm_backward(
    be: Backend, saved: Saved, grads: Saved, needs: Saved, *, eps: float
) -> Saved:
    result: Saved = be.layer_norm_backward(grads[0], *saved)
    return result


def _layer_norm_composed(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float
) -> Tensor:
    mean = x.mean(1, keepdim=True)
    var = (x - mean).square().mean(1, keepdim=True)
    return _affine((x - mean) / (var + eps).sqrt(), weight, bias)


def _group_norm(
    be: Backend, x: Array, weight: Array | None, bias: Array | None, *, groups: int, eps: float
) -> tuple[Array, Saved]:
    out, mean, rstd = be.group_norm(x, weight, bias, groups=groups, eps=eps)
    return out, (x, weight, mean, rstd)


def _group_norm_backward(
    be: Backend, saved: Saved, grads: Saved, needs: Saved, *, groups: int, eps: float
) -> Saved:
    result: Saved = be.group_norm_backward(grads[0], *saved, groups=groups)
    return result


def _group_norm_composed(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, groups: int, eps: float
) -> Tensor:
    grouped = x.reshape(x.shape[0], groups, (x.shape[1] // groups) * x.shape[2])
    mean = grouped.mean(2, keepdim=True)
    var = (grouped - mean).square().mean(2, keepdim=True)
    return _affine(((grouped - mean) / (var + eps).sqrt()).reshape(x.shape), weight, bias)


def _local_response_norm(
    be: Backend, x: Array, *, size: int, alpha: float, beta: float, k: float
) -> tuple[Array, Saved]:
    out, scale = be.local_response_norm(x, size=size, alpha=alpha, beta=beta, k=k)
    return out, (x, scale)


def _local_response_norm_backward(
    be: Backend,
    saved: Saved,
    grads: Saved,
    needs: Saved,
    *,
    size: int,
    alpha: float,
    beta: float,
    k: float,
) -> Saved:
    grad_x = be.local_response_norm_backward(grads[0], *saved, size=size, alpha=alpha, beta=beta)
    return (grad_x,)


def _local_response_norm_composed(
    x: Tensor, *, size: int, alpha: float, beta: float, k: float
) -> Tensor:
    before, after = neighbours(size)
    channels = x.shape[1]
    squares = pad(x.square(), (0, 0, before, after))
    sums = squares[:, :channels]
    for shift in range(1, size):
        sums = sums + squares[:, shift : shift + channels]
    return x * (k + alpha / size * sums) ** -beta


BATCH_NORM = define(
    "batch_norm", _batch_norm, _batch_norm_backward, keeps=(0, 1), composed=_batch_norm_composed
)
BATCH_NORM_EVAL = define(
    "batch_norm_eval",
    _batch_norm_eval,
    _batch_norm_eval_backward,
    keeps=(0, 1, 3, 4),
    composed=_batch_norm_eval_composed,
)
LAYER_NORM = define(
    "layer_norm", _layer_norm, _layer_norm_backward, keeps=(0, 1), composed=_layer_norm_composed
)
GROUP_NORM = define(
    "group_norm", _group_norm, _group_norm_backward, keeps=(0, 1), composed=_group_norm_composed
)

LOCAL_RESPONSE_NORM = define(
    "local_response_norm",
    _local_response_norm,
    _local_response_norm_backward,
    keeps=(0,),
    composed=_local_response_norm_composed,
)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel: y = (x - mean_c) / sqrt(var_c + eps) weight_c + bias_c.

    In training, mean and (biased) variance are the batch's, and the running ones, where given, are
    changed in place: running = (1 - momentum) running + momentum batch, with the unbiased variance.
    Otherwise they are the running ones. input: (N, C) or (N, C, d1, ...); the others: (C,).

    Raises ValueError for shapes that do not match, for one value a channel in training (it has no
    variance) and for missing running statistics in evaluation; TypeError for other dtypes.
    Source: Ioffe and Szegedy, 2015.
    """
    op = "batch_norm"
    _check_channels(op, input, weight, bias)
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if statistic is not None:
            require_like(op, name, statistic, input.shape[1:2], input)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError(
                f"[{op}] expected running_mean and running_var in evaluation, got None. Pass them, or "
                "training=True."
            )
        x = input.reshape(*input.shape[:2], math.prod(input.shape[2:]))
        moments = running_mean.detach(), running_var.detach()
        evaluated: Tensor = apply(BATCH_NORM_EVAL, x, weight, bias, *moments, eps=float(eps))
        return evaluated.reshape(input.shape)
    n, c = input.shape[:2]
    length = math.prod(input.shape[2:])
    if n * length <= 1:
        raise ValueError(
            f"[{op}] expected more than one value a channel in training, got input {input.shape}. Use "
            "a larger batch, or drop the last incomplete one (drop_last=True)."
        )
    x = input.reshape(n, c, length)
    out, mean, var = apply(BATCH_NORM, x, weight, bias, eps=float(eps))
    unbiased = n * length / (n * length - 1)
    with no_grad():
        if running_mean is not None:
            running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        if running_var is not None:
            running_var.mul_(1 - momentum).add_(var, alpha=momentum * unbiased)
    result: Tensor = out.reshape(input.shape)
    return result


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last axes: y = (x - mean) / sqrt(var + eps) weight + bias.

    Mean and biased variance are those of each block of `normalized_shape`, which the last axes of
    input, weight and bias have. Raises ValueError for shapes that do not match, TypeError for other
    dtypes. Source: Ba, Kiros and Hinton, 2016.
    """
    op = "layer_norm"
    require_float(op, "input", input)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    size = math.prod(shape)
    if not shape or input.shape[-len(shape) :] != shape or size == 0:
        raise ValueError(
            f"[{op}] expected input whose last axes are normalized_shape {shape}, with elements, got "
            f"{input.shape}. Change one of them."
        )
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None:
            require_like(op, name, p, shape, input)
    x = input.reshape(math.prod(input.shape[: -len(shape)]), size)
    flat_weight = None if weight is None else weight.flatten()
    flat_bias = None if bias is None else bias.flatten()
    out: Tensor = apply(LAYER_NORM, x, flat_weight, flat_bias, eps=float(eps))
    return out.reshape(input.shape)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each group of channels of each example, then scale and shift each channel.

    y = (x - mean_ng) / sqrt(var_ng + eps) weight_c + bias_c with the biased variance.
    input: (N, C, ...), weight, bias: (C,). Raises ValueError unless num_groups divides C and shapes
    match, TypeError for other dtypes. Source: Wu and He, 2018.
    """
    op = "group_norm"
    _check_channels(op, input, weight, bias)
    n, c = input.shape[:2]
    length = math.prod(input.shape[2:])
    if num_groups < 1 or c % num_groups:
        raise ValueError(
            f"[{op}] expected num_groups that divides the {c} channels of input {input.shape}, got "
            f"{num_groups}. Choose a divisor."
        )
    if c * length == 0:
        raise ValueError(
            f"[{op}] expected elements to normalise, got input {input.shape}. Check its axes."
        )
    x = input.reshape(n, c, length)
    out: Tensor = apply(GROUP_NORM, x, weight, bias, groups=num_groups, eps=float(eps))
    return out.reshape(input.shape)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divide each element by a power of the squares of its neighbours in other channels.

    y_c = x_c / (k + alpha / size sum_j x_j^2)^beta, where j goes over `size` channels around c, from
    c - size // 2 to c + (size - 1) // 2. input: (N, C, ...). Raises ValueError for fewer than three
    axes and for size < 1, TypeError for other dtypes. Source: Krizhevsky, Sutskever and Hinton, 2012.
    """
    op = "local_response_norm"
    require_float(op, "input", input)
    if input.ndim < 3:
        raise ValueError(
            f"[{op}] expected input of shape (N, C, ...) with at least three axes, got {input.shape}. "
            "Add the axes that it lacks."
        )
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(
            f"[{op}] expected size as an int >= 1, the number of channels in a window, got {size!r}. "
            "Correct size."
        )
    x = input.reshape(*input.shape[:2], math.prod(input.shape[2:]))
    out: Tensor = apply(
        LOCAL_RESPONSE_NORM, x, size=size, alpha=float(alpha), beta=float(beta), k=float(k)
    )
    return out.reshape(input.shape)


def _check_channels(op: str, input: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    require_float(op, "input", input)
    if input.ndim < 2:
        raise ValueError(
            f"[{op}] expected input of shape (N, C) or (N, C, ...), got {input.shape}. Add the axes "
            "that it lacks."
        )
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None:
            require_like(op, name, p, input.shape[1:2], input)
