"""Gradient clipping by the total norm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trine.backends import Backend
from trine.dtypes import Array, float64
from trine.optim.optimizer import Optimizer
from trine.tensor import Tensor

EPS = 1e-6
"""Keeps the factor finite for a zero norm; PyTorch's."""


def clip_factor(backend: Backend, norm: Array, max_norm: float) -> Array:
    """Return min(1, max_norm / (norm + 1e-6)), float64 (1,); NaN if the norm is not finite."""
    ratio = backend.div(
        backend.constant(max_norm, float64), backend.add(norm, backend.constant(EPS, float64))
    )
    factor = backend.minimum(ratio, backend.constant(1.0, float64))
    # An infinite norm would give the factor 0, and 0 * inf = NaN in the parameters.
    return backend.add(factor, backend.sub(norm, norm))


def clip_grad_norm_(
    parameters: Optimizer | Iterable[Tensor] | Tensor, max_norm: float, norm_type: float = 2.0
) -> Tensor:
    """Scale gradients so that their total norm is at most `max_norm`; return the norm before.

    The factor is max_norm / (norm + 1e-6) where that is below 1. Given an optimiser, its next step
    applies the factor on the fly, and is suppressed if the norm is NaN or Inf (`max_norm=inf` only
    guards like that). Given parameters, their gradients are multiplied in place, which turns them
    into NaN in that case. Nothing is read by the host. Raises ValueError unless max_norm >= 0 and
    norm_type is 2.
    """
    if norm_type != 2:
        raise ValueError(f"[clip_grad_norm_] expected norm_type 2, got {norm_type}. Use 2.")
    if not max_norm >= 0:
        raise ValueError(f"[clip_grad_norm_] expected max_norm >= 0, got {max_norm}. Change it.")
    if isinstance(parameters, Optimizer):
        backend = parameters.backend
        norm = parameters.grad_norm()
        backend = parameters.backend  # grad_norm may have followed the model to another one
        parameters.set_scale(clip_factor(backend, norm, max_norm))
        return Tensor._wrap(backend.reshape(norm, shape=()), backend)
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = [p.grad for p in given if p.grad is not None]
    if not gradients:
        backend = _backend_of(given)
        return Tensor._wrap(backend.zeros((), float64), backend)
    backend = gradients[0].backend
    total: Any = None
    for gradient in gradients:
        part = backend.sum_squares(backend.reshape(gradient.data, shape=(-1,)))
        total = part if total is None else backend.add(total, part)
    norm = backend.sqrt(total)
    factor = clip_factor(backend, norm, max_norm)
    for gradient in gradients:
        array = gradient.data
        backend.assign(array, backend.mul(array, backend.astype(factor, dtype=array.dtype)))
        gradient._bump()
    return Tensor._wrap(backend.reshape(norm, shape=()), backend)


def _backend_of(tensors: list[Tensor]) -> Backend:
    if not tensors:
        raise ValueError(
            "[clip_grad_norm_] expected parameters, got none. Pass model.parameters() or the optimiser."
        )
    return tensors[0].backend
