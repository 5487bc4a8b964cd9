"""The one table of tolerances: how far a kernel's result may lie from the float64 reference.

The reference is computed in float64 from the very inputs of the kernel (rounded to its dtype). The
error of an output is max |got - reference| / max |reference| over its finite elements: by that
measure an output of zeros has the error 1 and fails every class, however small the numbers are.
NaN and Inf must stand in the same places.

Class, float32, float64, and why:

    exact        0       0       elements are moved, compared or counted
    elementwise  2e-6    1e-14   one rounding a step, a few steps, and a transcendental of 4 ulp
    reduction    1e-5    1e-13   sums of up to some 10^4 terms of mixed sign in any order
    normalise    5e-5    1e-12   differences of nearly equal sums, divided by their spread
    recurrent    5e-5    1e-12   errors of one step go into the next

A kernel that rounds the factors of its products (`precision`, float32 only) has its own instead:

    tf32         4e-3            2^-11 a factor, so 2^-10 of each product; four times that, since a sum
                                 of mixed sign may be less than its terms, and steps of a net add up
    bf16         3.2e-2          2^-8 a factor, so 2^-7 of each product; four times that

and recurrent ops twice that, since errors of one step go into the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trine.errors import suggest

TABLE: dict[str, dict[str, float]] = {
    "exact": {"float32": 0.0, "float64": 0.0},
    "elementwise": {"float32": 2e-6, "float64": 1e-14},
    "reduction": {"float32": 1e-5, "float64": 1e-13},
    "normalise": {"float32": 5e-5, "float64": 1e-12},
    "recurrent": {"float32": 5e-5, "float64": 1e-12},
}


ROUNDED = {"tf32": 4e-3, "bf16": 3.2e-2}


def tolerance(name: str, dtype: str, precision: str = "fp32") -> float:
    """Return the entry of a class, dtype and precision; raises ValueError for an unknown class."""
    if name not in TABLE:
        raise suggest("tolerances", "class", name, TABLE)
    if precision in ROUNDED:
        return ROUNDED[precision] * (2.0 if name == "recurrent" else 1.0)
    return TABLE[name][dtype]


def compare(got: npt.NDArray[Any], reference: npt.NDArray[Any], allowed: float) -> str | None:
    """Return None if an output is close enough, else a line that names the worst element."""
    if got.shape != reference.shape:
        return f"shape {got.shape} instead of {reference.shape}"
    if got.size == 0:
        return None
    if reference.dtype.kind != "f":
        wrong = np.argwhere(got != reference)
        return None if not len(wrong) else _element(got, reference, tuple(wrong[0]), "differs")
    with np.errstate(over="ignore"):  # what the kernel's type cannot hold is Inf there
        b = reference.astype(got.dtype if got.dtype.kind == "f" else np.float64)
    a, b = got.astype(np.float64), np.where(np.isinf(b), b, reference).astype(np.float64)
    special = ~np.isfinite(b) | ~np.isfinite(a)
    same = np.equal(a, b) | (np.isnan(a) & np.isnan(b))
    wrong = np.argwhere(special & ~same)
    if len(wrong):
        return _element(got, reference, tuple(wrong[0]), "differs where one is not finite")
    error = np.where(special, 0.0, np.abs(np.where(special, 0.0, a) - np.where(special, 0.0, b)))
    scale = np.max(np.abs(np.where(special, 0.0, b)))
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    relative = error[worst] / scale if scale else (0.0 if error[worst] == 0 else np.inf)
    if relative <= allowed:
        return None
    return _element(got, reference, worst, f"relative error {relative:.3g} above {allowed:.3g}")


def _element(got: Any, reference: Any, place: Any, text: str) -> str:
    index = tuple(int(i) for i in place)
    return f"element {index}: got {got[index]!r}, reference {reference[index]!r}; {text}"
