"""Checking gradients against finite differences, in float64.

For a function f of tensors and a random upstream gradient v, the analytic gradient of <v, f> along a
random direction u is compared with (F(x + h u) - F(x - h u)) / 2h, where F = <v, f>. Inputs that are
small are also checked element by element.

Where f has a kink (relu at 0, ties of a maximum), the slopes ahead and behind differ by the same
amount however small the step is, whereas curvature makes them differ in proportion to it; and a
kink beside the point makes the slope depend on the step. So slopes of two steps tell: a direction
across a kink is drawn anew, an element there is left out, and both are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.autograd import no_grad
from trine.dtypes import is_float
from trine.tensor import Tensor, grad

SMALL = 64
"""Inputs with at most this many elements are checked element by element too."""

DIRECTIONS = 4
ATTEMPTS = 8
STEPS = (1e-6, 2.5e-7)
NOISE = 8 * float(np.finfo(np.float64).eps) / STEPS[1]
"""What rounding F leaves in a slope, for each unit of the sum of |v f|."""

Moves = list[npt.NDArray[Any]]


@dataclass
class GradcheckResult:
    """What came of a check; true if all gradients are right."""

    ok: bool
    checked: int = 0
    kinks: int = 0
    worst: float = 0.0
    failure: str = ""
    wrong: bool = False
    """Whether a slope was found wrong; a check can also fail for want of a point without kinks."""

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if not self.ok:
            return self.failure
        note = f", {self.kinks} kinks stepped around" if self.kinks else ""
        return f"gradients are right: {self.checked} slopes, worst relative error {self.worst:.1e}{note}"


def gradcheck(
    function: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    *,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    seed: int = 0,
    names: Sequence[str] | None = None,
    raise_exception: bool = True,
) -> GradcheckResult:
    """Check the gradients of `function(*inputs)` with respect to the inputs that require them.

    A slope is right if |analytic - numeric| <= atol + rtol |numeric| + rounding of the difference.
    The function returns a tensor or a tuple of them, the same ones for the same inputs. A module
    may stand for the function: a float64 copy of it is checked in the mode (train or eval) it is
    in, its parameters included. `names` are what the inputs are called in messages.

    Raises TypeError for float32 inputs or outputs, whose differences prove nothing; ValueError if
    nothing requires a gradient or the function is not deterministic; and AssertionError, with the
    worst element, for a wrong gradient (unless `raise_exception` is False).
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    calls = names or [f"input {i}" for i in range(len(given))]
    named = list(zip(calls, given, strict=True))
    if hasattr(function, "named_parameters"):
        function = deepcopy(function).to(dtype="float64")  # type: ignore[attr-defined]
        named += [(f"parameter {name}", p) for name, p in function.named_parameters()]  # type: ignore[attr-defined]
    wanted = {id(t): (name, t) for name, t in reversed(named) if t.requires_grad}
    if not wanted:
        raise ValueError(
            "[gradcheck] expected an input that requires a gradient, got none. Call requires_grad_()."
        )
    for name, t in wanted.values():
        if t.dtype != "float64":
            raise TypeError(
                f"[gradcheck] expected {name} in float64, got {t.dtype.name}, whose differences prove "
                "nothing. Make it with dtype='float64', or convert a module: model.double()."
            )
    checker = _Checker(function, given, list(reversed(wanted.values())), seed, rtol, atol)
    result = checker.run()
    if not result.ok and raise_exception:
        raise AssertionError(result.failure)
    return result


def _outputs(found: Any) -> Iterator[Tensor]:
    """Yield the float tensors of a result, tuples in tuples included."""
    if isinstance(found, tuple | list):
        for item in found:
            yield from _outputs(item)
    elif isinstance(found, Tensor) and is_float(found.dtype):
        if found.dtype != "float64":
            raise TypeError(
                f"[gradcheck] expected outputs in float64, got {found.dtype.name}, whose differences "
                "prove nothing. Find what changes the dtype inside of the function."
            )
        yield found


class _Checker:
    def __init__(
        self,
        function: Callable[..., Any],
        given: list[Tensor],
        wanted: list[tuple[str, Tensor]],
        seed: int,
        rtol: float,
        atol: float,
    ) -> None:
        self.function, self.given = function, given
        self.names, self.wanted = [n for n, _ in wanted], [t for _, t in wanted]
        self.rtol, self.atol = rtol, atol
        self.rng = np.random.default_rng(seed)
        self.starts = [np.array(t.backend.to_numpy(t.data)) for t in self.wanted]
        outs = list(_outputs(function(*given)))
        self.upstream = [self.rng.normal(size=out.shape) for out in outs]
        hosts = [np.array(out.detach().numpy()) for out in outs]
        sizes = [np.abs(v * out).sum() for v, out in zip(self.upstream, hosts, strict=True)]
        self.noise = NOISE * float(sum(sizes))
        self.middle = self.value([np.zeros(s.shape) for s in self.starts], 0.0)
        if not self.middle == self.value([np.zeros(s.shape) for s in self.starts], 0.0):
            raise ValueError(
                "[gradcheck] expected the same finite outputs for the same inputs, got others in a "
                "second call. Call eval() where dropout acts, and keep the inputs in the domain."
            )
        seeds = [
            Tensor(out.backend.asarray(v, "float64"), out.backend)
            for out, v in zip(outs, self.upstream, strict=True)
        ]
        pairs = [(out, v) for out, v in zip(outs, seeds, strict=True) if out.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(self.wanted)
        if pairs:
            found = grad([o for o, _ in pairs], self.wanted, [v for _, v in pairs])
        self.grads = [
            np.zeros(t.shape) if g is None else np.array(g.detach().numpy())
            for t, g in zip(self.wanted, found, strict=True)
        ]
        self.result = GradcheckResult(True)

    def value(self, moves: Moves, step: float) -> float:
        """Return F(x + step * moves); the inputs are put back afterwards."""
        try:
            for t, start, move in zip(self.wanted, self.starts, moves, strict=True):
                t.backend.assign(t.data, t.backend.asarray(start + step * move, "float64"))
            with no_grad():
                outs = [np.asarray(out.numpy()) for out in _outputs(self.function(*self.given))]
            return float(sum((v * out).sum() for v, out in zip(self.upstream, outs, strict=True)))
        finally:
            for t, start in zip(self.wanted, self.starts, strict=True):
                t.backend.assign(t.data, t.backend.asarray(start, "float64"))

    def allowed(self, numeric: float) -> float:
        return self.atol + self.rtol * abs(numeric) + self.noise

    def slope(self, moves: Moves) -> float | None:
        """Return the numeric slope along `moves`, or None at a kink."""
        ahead = [(self.value(moves, h) - self.middle) / h for h in STEPS]
        behind = [(self.middle - self.value(moves, -h)) / h for h in STEPS]
        wide, narrow = ((a + b) / 2 for a, b in zip(ahead, behind, strict=True))
        wide_jump, narrow_jump = (abs(a - b) for a, b in zip(ahead, behind, strict=True))
        allowed = self.allowed(narrow)
        if not (abs(wide - narrow) <= allowed):  # NaN included
            return None
        if narrow_jump > allowed and narrow_jump > wide_jump / 2:
            return None
        return wide

    def along(self, i: int, element: tuple[int, ...]) -> Moves:
        moves = [np.zeros(g.shape) for g in self.grads]
        moves[i][element] = 1.0
        return moves

    def run(self) -> GradcheckResult:
        if not any(g.size for g in self.grads):
            return self.result
        if not self.check_directions():
            return self.result
        for i, grads in enumerate(self.grads):
            if grads.size > SMALL:
                continue
            for element in np.ndindex(grads.shape):
                numeric = self.slope(self.along(i, element))
                if numeric is None:
                    self.result.kinks += 1
                elif not self.judge(float(grads[element]), numeric, f"of {self.at(i, element)}"):
                    self.name_worst_element()
                    return self.result
        return self.result

    def check_directions(self) -> bool:
        for _ in range(DIRECTIONS):
            for _ in range(ATTEMPTS):
                moves = [self.rng.uniform(0.2, 1, g.shape) * self.rng.choice([-1, 1], g.shape)
                         for g in self.grads]  # fmt: skip
                numeric = self.slope(moves)
                if numeric is not None:
                    break
                self.result.kinks += 1
            else:
                self.result.ok = False
                self.result.failure = (
                    "[gradcheck] expected a point without kinks, met one in each of "
                    f"{ATTEMPTS} directions. Move the inputs away from kinks and ties."
                )
                return False
            analytic = sum(float((g * m).sum()) for g, m in zip(self.grads, moves, strict=True))
            if not self.judge(analytic, numeric, "along a random direction"):
                self.name_worst_element()
                return False
        return True

    def judge(self, analytic: float, numeric: float, where: str) -> bool:
        error = abs(analytic - numeric)
        relative = error / max(abs(numeric), 1e-12)
        self.result.checked += 1
        if error <= self.allowed(numeric):
            if error > self.atol:
                self.result.worst = max(self.result.worst, relative)
            return True
        self.result.ok, self.result.wrong = False, True
        self.result.failure = (
            f"[gradcheck] expected the slope {numeric:.9g} {where}, got {analytic:.9g} (relative error "
            f"{relative:.2e}). Look at the op's backward."
        )
        return False

    def at(self, i: int, element: tuple[int, ...]) -> str:
        return f"{self.names[i]} at {element}"

    def name_worst_element(self) -> None:
        """Add the element with the largest error to the failure, so that it can be found."""
        worst, line = 0.0, ""
        for i, grads in enumerate(self.grads):
            flat = np.arange(grads.size)
            if grads.size > SMALL:
                flat = self.rng.choice(flat, SMALL, replace=False)
            for n in flat:
                element = tuple(int(k) for k in np.unravel_index(int(n), grads.shape))
                numeric = self.slope(self.along(i, element))
                if numeric is None:
                    continue
                analytic = float(grads[element])
                error = abs(analytic - numeric) if np.isfinite(analytic) else np.inf
                if error > max(worst, self.allowed(numeric)):
                    worst = error
                    line = (
                        f" Worst element: {self.at(i, element)}: analytic {analytic:.9g}, numeric "
                        f"{numeric:.9g}, relative error {error / max(abs(numeric), 1e-12):.2e}."
                    )
        self.result.failure += line
