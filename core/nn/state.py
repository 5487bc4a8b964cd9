"""What `Module` does with its tensors: move them, and load values into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trine.backends import NAMES, Backend, get_backend
from trine.backends.recording import note_move
from trine.dtypes import Array, DType, as_dtype, is_float
from trine.nn.parameter import Parameter
from trine.tensor import Tensor

if TYPE_CHECKING:
    from trine.nn.module import Module


def destination(
    backend: str | Backend | npt.DTypeLike | None, dtype: npt.DTypeLike | None
) -> tuple[Backend | None, DType | None]:
    """Read the arguments of `Module.to`: a backend or its name, a dtype, or both."""
    target: Backend | None = None
    if isinstance(backend, Backend):
        target = backend
    elif isinstance(backend, str) and backend in NAMES:
        target = get_backend(backend)
    elif backend is not None:
        try:
            dtype = as_dtype(backend)
        except TypeError:
            raise ValueError(
                f"[to] expected a backend ({', '.join(NAMES)}) or a float dtype, got {backend!r}. "
                "Name one of them."
            ) from None
    wanted = None if dtype is None else as_dtype(dtype)
    if wanted is not None and not is_float(wanted):
        raise TypeError(
            f"[to] expected float32 or float64 for a module, got {wanted.name}. Integer buffers keep "
            "their dtype."
        )
    return target, wanted


def move(tensor: Tensor, target: Backend | None, dtype: DType | None) -> None:
    """Move a parameter or buffer in place; its gradient moves along."""
    new = tensor.backend if target is None else target
    wanted = dtype if dtype is not None and is_float(tensor.dtype) else tensor.dtype
    if new is tensor.backend and wanted == tensor.dtype:
        return
    gradient = tensor.grad
    old = tensor.backend
    tensor.data = _moved(tensor.data, old, new, wanted)
    tensor.backend = new
    tensor.grad = None
    if isinstance(tensor, Parameter):
        tensor._grad_view = None  # the flat buffer it pointed into stays behind
    if gradient is not None:
        tensor.grad = Tensor(_moved(gradient.data, old, new, wanted), new)
    tensor._bump()
    note_move()


def _moved(array: Array, old: Backend, new: Backend, dtype: DType) -> Array:
    if new is old:
        return new.astype(array, dtype=dtype)
    moved = new.asarray(old.to_numpy(array), dtype)
    return new.copy(moved) if new.device == old.device else moved  # asarray may share memory


def host_array(value: Any) -> npt.NDArray[Any]:
    """Return a tensor of Trine or of PyTorch, an array or numbers as a NumPy array."""
    if isinstance(value, Tensor):
        return value.backend.to_numpy(value.data)
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def load(module: Module, state: Mapping[str, Any], strict: bool) -> tuple[list[str], list[str]]:
    """Copy a state into a module; see `Module.load_state_dict`."""
    if not isinstance(state, Mapping):
        raise TypeError(
            f"[load_state_dict] expected a mapping of names to tensors, got {type(state).__name__}. "
            "Pass what state_dict() or trine.nn.load_file() returned."
        )
    own = targets(module)
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    problems: list[str] = []
    if strict and missing:
        problems.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        problems.append(f"unexpected: {', '.join(unexpected)}")
    values: list[tuple[Tensor, npt.NDArray[Any]]] = []
    for name, tensor in own.items():
        if name not in state:
            continue
        value = host_array(state[name])
        if value.dtype.kind not in "biuf":
            raise TypeError(
                f"[load_state_dict] expected numbers for {name}, got {value.dtype}. Nothing was loaded."
            )
        if value.shape != tensor.shape:
            problems.append(
                f"shape of {name}: the model has {tensor.shape}, the state {value.shape}"
            )
        values.append((tensor, value))
    if problems:
        raise ValueError(
            f"[load_state_dict] expected a state that fits {type(module).__name__}, got "
            f"{'; '.join(problems)}. Nothing was loaded; build the model that the state was saved from."
        )
    # Uploaded before the first is written, so that a failing device leaves the model as it was.
    arrays = [tensor.backend.asarray(value, tensor.dtype) for tensor, value in values]
    for (tensor, _), array in zip(values, arrays, strict=True):
        tensor.backend.assign(tensor.data, array)
        tensor._bump()
    return missing, unexpected


def targets(module: Module) -> dict[str, Tensor]:
    """Return the tensors behind the names of `state_dict`, themselves and not detached."""
    found: dict[str, Tensor] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        lead = f"{path}." if path else ""
        for name, parameter in part._parameters.items():
            if parameter is not None:
                found[lead + name] = parameter
        for name, buffer in part._buffers.items():
            if buffer is not None and name not in part._transient:
                found[lead + name] = buffer
    return found
