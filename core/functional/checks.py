"""Checks of arguments that several functions share, made once, above the backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trine.backends import recording
from trine.dtypes import Array, is_float
from trine.errors import suggest
from trine.random import KEY_WORDS, default_generator, stream_id
from trine.tensor import Tensor

REDUCTIONS = ("none", "mean", "sum")


def require_tensor(op: str, name: str, x: Any) -> None:
    """Raise TypeError unless x is a tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"[{op}] expected {name} to be a tensor, got {type(x).__name__}. Make it one: "
            "trine.tensor(x)."
        )


def require_float(op: str, name: str, x: Any) -> None:
    """Raise TypeError unless x is a tensor of float32 or float64."""
    require_tensor(op, name, x)
    if not is_float(x.dtype):
        raise TypeError(
            f"[{op}] expected {name} of dtype float32 or float64, got {x.dtype.name}. Convert it "
            "with x.float()."
        )


def require_like(op: str, name: str, x: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise unless x is a tensor of a shape and of the dtype of `like`."""
    require_tensor(op, name, x)
    if x.shape != shape:
        raise ValueError(
            f"[{op}] expected {name} of shape {shape} to match input {like.shape}, got {x.shape}. "
            "Reshape it, or check the sizes."
        )
    if x.dtype != like.dtype:
        raise TypeError(
            f"[{op}] expected {name} of dtype {like.dtype.name} to match input, got {x.dtype.name}. "
            f'Convert it with x.astype("{like.dtype.name}").'
        )


def require_reduction(op: str, reduction: str, known: tuple[str, ...] = REDUCTIONS) -> None:
    """Raise ValueError unless the reduction is known."""
    if reduction not in known:
        raise suggest(op, "reduction", str(reduction), known)


def check_values(x: Tensor, check: Callable[[], None]) -> None:
    """Run a check of x's values where reading them costs no wait for a device.

    In a captured step the check is made at every replay.
    """
    if x.device != "cpu" or x.numel() == 0:
        return
    check()
    if recording.current is not None:
        recording.current.call(check)


def device_key(op: str, x: Tensor, key: Array | None) -> Array:
    """Return a draw's key on the device of x; without one the default generator's next of the op.

    Raises ValueError unless it is uint32 (5,).
    """
    if key is None:
        key = default_generator().key(stream_id(op))
    if key.shape != (KEY_WORDS,) or key.dtype.name != "uint32":
        raise ValueError(
            f"[{op}] expected a key of uint32 (5,), got {key.dtype.name} {key.shape}. Make one "
            "with trine.random.make_key(seed, stream, counter)."
        )
    on_device: Array = x.backend.asarray_key(key)
    return on_device
