"""`hopfield`: a memory that falls back into the patterns that it stored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

import trine
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, draw_normal, draw_order, made_splits, values
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure, Images
from trine.models.registry import system

Array = npt.NDArray[np.float64]
SOURCE = "source notes 001; Hopfield, PNAS 79, 1982"
HEIGHT, WIDTH = 25, 20
N = HEIGHT * WIDTH
STORED = 25
CAPACITY = 0.138
"""The load P / N up to which patterns stay stable: Amit, Gutfreund and Sompolinsky, 1985."""
LOADS = (0.08, 0.11, 0.125, 0.135, 0.145, 0.155, 0.17, 0.19)


def overlap_loss(output: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
    """Return 1 - m with the mean overlap m = 1/N sum_i x_i xi_i of states and patterns (n, N)."""
    return 1.0 - (output * target).mean()


def decided(field: trine.Tensor, before: trine.Tensor) -> trine.Tensor:
    """Return the sign of a field; a unit without a field stays what it was."""
    return trine.where(field == 0, before, field.sign())


def couplings(patterns: trine.Tensor) -> trine.Tensor:
    """Return W = sum_mu xi^mu xi^mu^T without the diagonal: (..., P, N) -> (..., N, N)."""
    units = patterns.shape[-1]
    others = 1.0 - trine.eye(units, dtype=patterns.dtype, backend=patterns.backend)
    return (patterns.transpose(-2, -1) @ patterns) * others


def visits(weight: trine.Tensor, x: trine.Tensor, sweep: int = 0) -> Iterator[trine.Tensor]:
    """Let the units decide one after another, in place, and yield the states after each.

    x_i <- sign(sum_j w_ij x_j). weight: (N, N) for all states x (n, N), or (n, N, N), a network a
    state. The order is a permutation that depends on the number of the sweep alone.
    """
    for unit in draw_order("hopfield sweep", x.shape[1], sweep):
        i = int(unit)
        x[:, i] = decided((weight[..., i, :] * x).sum(dim=-1), x[:, i])
        yield x


def settle(weight: trine.Tensor, x: trine.Tensor, sweeps: int) -> trine.Tensor:
    """Return the states after so many sweeps over all units."""
    x = x.clone()
    for sweep in range(sweeps):
        for _ in visits(weight, x, sweep):
            pass
    return x


class Hopfield(nn.Learner):
    """N units of +-1, all connected: W = sum_mu xi^mu xi^mu^T, without the diagonal.

    Recall changes one unit at a time, so that E = -1/2N x^T W x never rises. The usual 1/N stands
    in the energy, not in W: so all fields are whole numbers, exact on every backend, ties too.
    """

    def __init__(self, units: int, sweeps: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(trine.zeros(units, units))
        self.sweeps = sweeps

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return where the states (n, N) end."""
        return settle(self.weight.detach(), x, self.sweeps)

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """Store a batch of patterns; returns what they were before, changed by all units at once."""
        with trine.no_grad():
            self.descend(self.weight, -couplings(input))
            return decided(input @ self.weight, input)

    def energy(self, x: trine.Tensor) -> trine.Tensor:
        """Return E = -1/2N x^T W x of states (n, N)."""
        with trine.no_grad():
            return (x @ self.weight * x).sum(dim=-1) * (-0.5 / x.shape[1])


# Data


def random_patterns(purpose: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return patterns of +1 and -1, each with probability one half."""
    return np.where(draw_normal(purpose, shape) < 0.0, -1.0, 1.0).astype(np.float32)


def pictures() -> npt.NDArray[np.float32]:
    """Return four pictures of 25x20, each half black: a disc, bars, beams and squares."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    from_centre = np.hypot(row - 12.0, column - 9.5)
    disc = np.where(from_centre < np.sqrt(N / 2 / np.pi), 1.0, -1.0)
    bars = np.where(column // 5 % 2 == 0, 1.0, -1.0)
    beams = np.where(row // 5 % 2 == 0, 1.0, -1.0)
    return np.stack([disc, bars, beams, bars * beams]).reshape(4, N).astype(np.float32)


def with_flips(
    patterns: npt.NDArray[np.float32], purpose: str, share: float
) -> npt.NDArray[np.float32]:
    """Return copies of patterns in each of which that share of the units is inverted."""
    noisy = patterns.copy()
    count = round(share * patterns.shape[1])
    for k, pattern in enumerate(noisy):
        pattern[draw_order(f"{purpose} {k}", len(pattern))[:count]] *= -1.0
    return noisy


def noisy_patterns() -> Splits:
    """Return 25 patterns of 500 units, four of them pictures, and for the test 10% of them flipped."""
    others = random_patterns("hopfield patterns", (STORED - 4, N))
    patterns = np.concatenate([pictures(), others])
    x = np.concatenate([patterns, with_flips(patterns, "hopfield flips", 0.1)])
    y = np.concatenate([patterns, patterns])
    about = "4 pictures and 21 random patterns of 500 units; for the test 10% of them are flipped"
    return made_splits("noisy-patterns", x, y, train=STORED, description=about)


# What it shows


def final_overlaps(
    desk: Desk, units: int, loads: tuple[float, ...], trials: int, most_sweeps: int = 30
) -> list[float]:
    """Return for each load P / N the mean overlap with a stored pattern of where it ends itself.

    Each trial is a network of its own with P random patterns, started at the first of them.
    """
    counts = [round(load * units) for load in loads]
    all_patterns = random_patterns("hopfield load", (trials, max(counts), units))
    found = []
    for count in counts:
        patterns = desk.tensor(all_patterns[:, :count])
        weight = couplings(patterns)
        x = patterns[:, 0].clone()
        for sweep in range(most_sweeps):
            before = x.clone()
            for _ in visits(weight, x, sweep):
                pass
            if bool((x == before).all()):
                break
        found.append(float((x * patterns[:, 0]).mean()))
    return found


def measured_capacity(
    loads: tuple[float, ...], overlaps: list[float], level: float = 0.95
) -> float:
    """Return the load at which the overlap first falls below a level, between the loads on a line.

    The last load where it never does.
    """
    for k in range(1, len(loads)):
        if overlaps[k] < level:
            share = (overlaps[k - 1] - level) / (overlaps[k - 1] - overlaps[k])
            return loads[k - 1] + share * (loads[k] - loads[k - 1])
    return loads[-1]


def energy_trace(model: Hopfield, x: trine.Tensor) -> Array:
    """Return the energy of states after every single visit of two sweeps: (visits, n)."""
    x, weight = x.clone(), model.weight.detach()
    trace = [values(model.energy(x))]
    for sweep in range(2):
        trace += [values(model.energy(after)) for after in visits(weight, x, sweep)]
    return np.array(trace)


def show_hopfield(model: nn.Module, splits: Splits) -> Explanation:
    """Measure recall from flipped bits, the energy on the way, and the capacity."""
    desk = Desk.of(model)
    note = Explanation(
        "hopfield", "Recall, energy and capacity of a Hopfield network", SOURCE, desk.backend,
        desk.dtype,
        [
            "W = sum_mu xi^mu xi^mu^T, w_ii = 0      x_i <- sign(sum_j w_ij x_j), one at a time",
            "E = -1/2N x^T W x never rises      overlap m = 1/N sum_i x_i xi_i",
        ],
    )  # fmt: skip
    x, y = desk.tensor(splits.test.x), np.asarray(splits.test.y, np.float64)
    ended = values(model(x))
    note.show("overlap", "of the flipped patterns at the start", (values(x) * y).mean())
    note.at_least("overlap", "after recall from 10% flipped bits", (ended * y).mean(), 0.99)
    trace = energy_trace(model, x[:8])
    # Whole numbers, until they are divided by N.
    note.at_most(
        "dE", f"largest rise among {trace.size:,} energies", np.diff(trace, axis=0).max(), 0.0
    )
    overlaps = final_overlaps(desk, N, LOADS, trials=100)
    capacity = measured_capacity(LOADS, overlaps)
    note.at_least(
        "capacity", f"load up to which m > 0.95 (theory {CAPACITY})", capacity, 0.85 * CAPACITY
    )
    note.at_most("capacity", "not 15% above theory", capacity, 1.15 * CAPACITY)
    note.matrices["load P / N, mean final overlap of 100 trials"] = np.array([LOADS, overlaps]).T
    note.figure = Figure(
        f"Where a stored pattern ends, N = {N}, 100 trials", "load P / N", "mean final overlap m",
        [Curve("measured", LOADS, overlaps), Curve("m = 0.95", (LOADS[0], LOADS[-1]), (0.95, 0.95))],
    )  # fmt: skip
    steps = range(len(trace))
    note.drawings["energy"] = Figure(
        "Energy on the way back to a pattern", "units visited", "E",
        [Curve(f"pattern {k + 1}", steps, trace[:, k].tolist()) for k in range(4)],
    )  # fmt: skip
    shape = (-1, HEIGHT, WIDTH)
    note.drawings["recall"] = Images(
        "Recall from 10% flipped bits",
        {
            "stored": y[:6].reshape(shape),
            "start": values(x)[:6].reshape(shape),
            "end": ended[:6].reshape(shape),
        },
    )
    return note


@system(
    "hopfield",
    family="associative memory",
    year=1982,
    source=SOURCE,
    summary="25 patterns of 500 units recalled from 10% flipped bits; energy and capacity measured",
    data=noisy_patterns,
    loss=overlap_loss,
    metrics=(),
    lr=1.0,
    batch_size=STORED,
    epochs=1,
    shows=show_hopfield,
)
def build_hopfield() -> Hopfield:
    """Return a network of 500 units that has stored nothing yet."""
    return Hopfield(N)
