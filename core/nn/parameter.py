"""Parameters: the tensors that a module learns."""

from __future__ import annotations

from typing import Any, Self

import numpy.typing as npt

from trine.backends import Backend
from trine.creation import zeros
from trine.dtypes import as_dtype, is_float
from trine.tensor import Tensor


class Parameter(Tensor):
    """A tensor that modules register when it is assigned to one of their attributes.

    It shares the elements of `data`, and requires a gradient unless told otherwise. An optimiser
    turns it into a view of a flat buffer. Raises TypeError for anything but a tensor, and for
    integer tensors that shall have gradients.
    """

    __slots__ = ("_owner",)

    _owner: object | None
    """Token of the flat buffer, and so of the optimiser, that holds the elements."""

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        if not isinstance(data, Tensor):
            raise TypeError(
                f"[Parameter] expected a tensor, got {type(data).__name__}. Make one: "
                "nn.Parameter(trine.tensor(...))."
            )
        super().__init__(data.data, data.backend, requires_grad)
        self._owner = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = super().__deepcopy__(memo)
        copy._owner = None
        return copy

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def new_parameter(
    shape: tuple[int, ...],
    *,
    dtype: npt.DTypeLike | None = None,
    backend: str | Backend | None = None,
) -> Parameter:
    """Return a parameter of zeros for a layer to initialise; raises TypeError for non-floats."""
    wanted = as_dtype(dtype)
    if not is_float(wanted):
        raise TypeError(
            f"[nn] expected float32 or float64 parameters, got {wanted.name}. Choose one of them."
        )
    return Parameter(zeros(shape, dtype=wanted, backend=backend))
