"""Checking gradients against finite differences, in float64.

For a function f of tensors and a random upstream gradient v, the analytic gradient of <v, f> along a
random direction u is compared with (F(x + h u) - F(x - h u)) / 2h. Inputs that are small are also
checked element by element. Where f has a kink (relu at 0, ties of a maximum), the one-sided slopes
differ however small h is: such a direction is drawn anew, and an element there is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import trine
from trine.tensor import Tensor, grad

SMALL = 64
"""Inputs with at most this many elements are checked element by element too."""

DIRECTIONS = 4
ATTEMPTS = 8
STEP = 1e-6
KINK = 1e-3
"""One-sided slopes that differ by more than this, relative to their size, mark a kink."""


@dataclass
class GradcheckResult:
    """What came of a check; true if all gradients are right."""

    ok: bool
    checked: int = 0
    kinks: int = 0
    worst: float = 0.0
    failure: str = ""
    inputs: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if not self.ok:
            return self.failure
        note = f", {self.kinks} kinks stepped around" if self.kinks else ""
        return f"gradients are right: {self.checked} slopes, worst relative error {self.worst:.1e}{note}"


def gradcheck(
    function: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    *,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    seed: int = 0,
    raise_exception: bool = True,
) -> GradcheckResult:
    """Check the gradients of `function(*inputs)` with respect to the inputs that require them.

    A slope is right if |analytic - numeric| <= atol + rtol * |numeric|. The function must be
    deterministic. Raises TypeError for float32 inputs, whose differences prove nothing, ValueError
    if no input requires a gradient, and AssertionError, with the worst element, for a wrong one
    (unless `raise_exception` is False).
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    wanted = [t for t in given if t.requires_grad]
    if not wanted:
        raise ValueError(
            "[gradcheck] expected an input that requires a gradient, got none. Call requires_grad_()."
        )
    for t in wanted:
        if t.dtype != "float64":
            raise TypeError(
                f"[gradcheck] expected float64, got {t.dtype.name}: differences of float32 prove nothing. "
                "Make the inputs with dtype='float64', or convert a module: model.double()."
            )
    checker = _Checker(function, given, wanted, np.random.default_rng(seed), rtol, atol)
    result = checker.run()
    if not result.ok and raise_exception:
        raise AssertionError(result.failure)
    return result


class _Checker:
    def __init__(
        self, function: Any, given: Any, wanted: list[Tensor], rng: Any, rtol: float, atol: float
    ) -> None:
        self.function, self.given, self.wanted, self.rng = function, given, wanted, rng
        self.rtol, self.atol = rtol, atol
        out = function(*given)
        self.upstream = Tensor(
            out.backend.asarray(rng.normal(size=out.shape), "float64"), out.backend
        )
        found = grad((out * self.upstream).sum(), wanted)
        self.grads = [
            np.zeros(t.shape) if g is None else np.array(g.detach().numpy())
            for t, g in zip(wanted, found, strict=True)
        ]
        self.values = [np.array(t.backend.to_numpy(t.data)) for t in wanted]
        self.result = GradcheckResult(True)

    def value(self, moves: list[npt.NDArray[Any]], step: float) -> float:
        """Return <v, f(x + step * moves)>; the inputs are put back afterwards."""
        try:
            for t, start, move in zip(self.wanted, self.values, moves, strict=True):
                t.backend.assign(t.data, t.backend.asarray(start + step * move, "float64"))
            with trine.no_grad():
                return float((self.function(*self.given) * self.upstream).sum())
        finally:
            for t, start in zip(self.wanted, self.values, strict=True):
                t.backend.assign(t.data, t.backend.asarray(start, "float64"))

    def slope(self, moves: list[npt.NDArray[Any]]) -> float | None:
        """Return the numeric slope along `moves`, or None at a kink."""
        middle = self.value(moves, 0.0)
        steps = [STEP, STEP / 4]
        ahead = [(self.value(moves, h) - middle) / h for h in steps]
        behind = [(middle - self.value(moves, -h)) / h for h in steps]
        noise = 1e-9 * max(abs(middle), 1.0) / steps[-1]
        scale = KINK * max(abs(ahead[-1]), abs(behind[-1])) + noise
        jumps = [abs(a - b) for a, b in zip(ahead, behind, strict=True)]
        if min(jumps) > scale or abs(ahead[0] - ahead[1]) > scale:
            return None
        return (ahead[0] + behind[0]) / 2

    def run(self) -> GradcheckResult:
        for _ in range(DIRECTIONS):
            self.along_random_direction()
            if not self.result.ok:
                return self.name_worst_element()
        for i, grads in enumerate(self.grads):
            if grads.size <= SMALL:
                for element in np.ndindex(grads.shape):
                    self.along_element(i, element)
                    if not self.result.ok:
                        return self.name_worst_element()
        return self.result

    def along_random_direction(self) -> None:
        for _ in range(ATTEMPTS):
            moves = [self.rng.uniform(0.2, 1, g.shape) * self.rng.choice([-1, 1], g.shape)
                     for g in self.grads]  # fmt: skip
            numeric = self.slope(moves)
            if numeric is not None:
                analytic = sum(float((g * m).sum()) for g, m in zip(self.grads, moves, strict=True))
                self.judge(analytic, numeric, "along a random direction")
                return
            self.result.kinks += 1
        self.result.ok = False
        self.result.failure = (
            f"[gradcheck] expected a point without kinks, met one in each of {ATTEMPTS} directions. Move "
            "the inputs away from kinks and ties."
        )

    def along_element(self, i: int, element: tuple[int, ...]) -> None:
        moves = [np.zeros(g.shape) for g in self.grads]
        moves[i][element] = 1.0
        numeric = self.slope(moves)
        if numeric is None:
            self.result.kinks += 1
        else:
            self.judge(float(self.grads[i][element]), numeric, f"for input {i} at {element}")

    def judge(self, analytic: float, numeric: float, where: str) -> None:
        error = abs(analytic - numeric)
        relative = error / max(abs(numeric), 1e-12)
        self.result.checked += 1
        if error <= self.atol + self.rtol * abs(numeric):
            if error > self.atol:
                self.result.worst = max(self.result.worst, relative)
            return
        self.result.ok = False
        self.result.failure = (
            f"[gradcheck] expected the slope {numeric:.9g} {where}, got {analytic:.9g} (relative error "
            f"{relative:.2e}). Look at the op's backward."
        )

    def name_worst_element(self) -> GradcheckResult:
        """Look for the element with the largest error, so that a failure can be found."""
        first = self.result.failure
        worst, line = 0.0, ""
        for i, grads in enumerate(self.grads):
            flat = np.arange(grads.size)
            if grads.size > SMALL:
                flat = self.rng.choice(flat, SMALL, replace=False)
            for n in flat:
                element = tuple(int(k) for k in np.unravel_index(int(n), grads.shape))
                moves = [np.zeros(g.shape) for g in self.grads]
                moves[i][element] = 1.0
                numeric = self.slope(moves)
                if numeric is None:
                    continue
                error = abs(float(grads[element]) - numeric)
                if error > worst:
                    worst = error
                    line = (
                        f" Worst element: input {i} at {element}: analytic {float(grads[element]):.9g}, "
                        f"numeric {numeric:.9g}, relative error {error / max(abs(numeric), 1e-12):.2e}."
                    )
        self.result.failure = first + line
        return self.result
