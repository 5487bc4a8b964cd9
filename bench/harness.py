"""Benchmarking ops: enumerate, check, time, check again, judge.

A kernel gets a time only if it passes its op's check before, gives the right numbers on other
inputs after, and does not beat what the machine can do at most. What is timed is a call of the op
through the backend, allocation of outputs included, up to the end of the device's work, with its
inputs in the caches as far as they fit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from trine.backends import get_backend
from trine.backends.cases import OpCase, Sample, get
from trine.backends.cases.check import reference as truth
from trine.backends.op import OPS
from trine.bench import limits
from trine.bench import shapes as named
from trine.bench.candidates import Candidate, KernelCandidate, PeerCandidate, judge
from trine.bench.environment import environment, thread_count
from trine.bench.limits import Roofs
from trine.bench.peers import Peer, load
from trine.bench.results import BenchResult, Report
from trine.bench.steps import check_models, time_models
from trine.bench.timing import time_together
from trine.errors import suggest
from trine.kernels import registry

Progress = Callable[[str], None]
"""Told what is being done now."""

STANDARD = ("tiny", "typical", "large")
"""The shapes that every op with timing shapes has."""


def run(
    ops: Iterable[str] = (),
    backends: Sequence[str] = ("numpy", "numba"),
    *,
    shapes: Sequence[str] = (),
    seconds: float = 0.5,
    dtype: str = "float32",
    seed: int = 0,
    vs: Sequence[str] = (),
    models: Sequence[str] = (),
    roofs: Roofs | None = None,
    reference: bool = True,
    progress: Progress = lambda what: None,
) -> Report:
    """Time kernels, references, peers and training steps; return a report.

    `shapes` names those to time: "tiny", "typical", "large" (the default is these three), "peers"
    for all frozen shapes of `trine.bench.shapes`, or one of their names. `seconds` is the time for
    each candidate and shape; `vs` names peers ("torch", "jax"); `models` names training steps
    (`trine.bench.steps.MODELS`). `roofs` replaces the measured limits. `reference` says whether the
    plain bodies of ops are timed beside the kernels. Ops without such a shape are left out, with a
    note.

    Raises ValueError for an unknown op, shape, peer or model, BackendError for a backend or peer
    that cannot run.
    """
    notes = [
        f"{name} was imported before trine's thread layer: its OpenMP serves both and its threads "
        "may spin and disturb either side. Call trine.bench.run before importing it."
        for name in vs
        if name in sys.modules and "numba.np.ufunc.omppool" not in sys.modules
    ]
    ops, peers = list(ops), [load(name) for name in vs]
    check_shapes(shapes)
    check_models(models)
    found = _Limits(roofs)
    count = thread_count()
    for peer in peers:
        if count is not None:
            peer.set_threads(count)
    results: list[BenchResult] = []
    for op in ops:
        case = get(op)
        wanted = samples(case, dtype, seed, shapes)
        if not wanted:
            notes.append(f"{op} has no timing shape {' or '.join(shapes)}".rstrip() + ": left out.")
        for sample in wanted:
            progress(f"{op}, {sample.label}")
            names = [
                (backend, kernel)
                for backend in backends
                for kernel in _kernel_names(case.op, backend)
                if reference or kernel != "reference"
            ]
            results += _time_sample(case, sample, dtype, seed, names, peers, seconds, found)
    steps = time_models(models, backends, peers, seconds=seconds, progress=progress)
    for row in steps:
        found.judge(row)
    results += steps
    _require_peers(results, ops, vs)
    return Report(results, environment(peers), found.roofs, notes)


def check_shapes(names: Sequence[str]) -> None:
    """Raise ValueError for a shape that nothing is named after."""
    for name in names:
        if name not in (*STANDARD, "peers", *named.names()):
            raise suggest("bench", "shape", name, (*STANDARD, "peers", *named.names()))


def samples(case: OpCase, dtype: str, seed: int, wanted: Sequence[str]) -> list[Sample]:
    """Return the samples of an op whose names are wanted."""
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    standard = list(case.timing(rng, kind)) if case.timing is not None else []
    chosen = set(wanted) or set(STANDARD)
    found = [s for s in standard if s.label in chosen]
    return found + named.samples(
        case.op, lambda name: name in chosen or "peers" in chosen, seed, kind
    )


class _Limits:
    """The roofs, and another look at them before a time is refused."""

    def __init__(self, given: Roofs | None) -> None:
        self.fixed = given is not None
        self.roofs = given if given is not None else limits.calibrate()

    def judge(self, result: BenchResult) -> None:
        """Enter the roof into a row; take its times away if they are impossible."""
        if self.roofs is None:
            return
        impossible = judge(result, self.roofs)
        if impossible is not None and not self.fixed:
            # The machine may have been in a slow phase when it was measured.
            self.roofs = limits.calibrate(again=True)
            assert self.roofs is not None
            impossible = judge(result, self.roofs)
        if impossible is not None:
            result.fail(f"too fast to be true: {impossible}")


def _kernel_names(op: str, backend: str) -> list[str]:
    get_backend(backend).launchers(OPS[op])  # the backend's kernels are registered now
    return ["reference", *(k.name for k in registry.kernels(op, backend))]


def _time_sample(
    case: OpCase, sample: Sample, dtype: str, seed: int, names: Sequence[tuple[str, str]],
    peers: Sequence[Peer], seconds: float, found: _Limits,
) -> list[BenchResult]:  # fmt: skip
    known = truth(OPS[case.op], sample)
    candidates: list[Candidate] = [
        KernelCandidate(get_backend(backend), kernel, case, sample, dtype, known)
        for backend, kernel in names
    ]
    candidates += [PeerCandidate(peer, case, sample, dtype, known) for peer in peers]
    ready = [c for c in candidates if _is_ready(c)]
    time_together(ready, seconds)
    fresh = next(s for s in samples(case, dtype, seed + 1, (sample.label,)))
    other = truth(OPS[case.op], fresh)
    for candidate in ready:
        candidate.recheck(fresh, other)
        found.judge(candidate.result)
    return [c.result for c in candidates if c.serves]


def _is_ready(candidate: Candidate) -> bool:
    """Check a candidate; what it raises is the error of its row, not the end of the run."""
    try:
        return candidate.prepare()
    except Exception as error:
        text = next(iter(str(error).splitlines()), "")
        candidate.result.error = f"raised {type(error).__name__}: {text}"
        return False


def _require_peers(results: Sequence[BenchResult], ops: Sequence[str], vs: Sequence[str]) -> None:
    """Raise ValueError if a peer was asked for that has none of the ops."""
    for name in vs:
        if ops and not any(r.side == name for r in results):
            raise ValueError(
                f"[--vs] expected ops that {name} is compared on, got {', '.join(ops)}. Choose "
                "others, or leave --vs out."
            )
