"""Benchmarking ops: enumerate, check, time, check again, judge.

A kernel gets a time only if it passes its op's check before, gives the right numbers on other
inputs after, and does not beat what the machine can do at most. What is timed is a call of the op
through the backend, allocation of outputs included, up to the end of the device's work, with its
inputs in the caches as far as they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from trine.backends import get_backend
from trine.backends.cases import OpCase, Sample, get
from trine.backends.op import OPS
from trine.bench import limits
from trine.bench import shapes as named
from trine.bench.candidates import Candidate, KernelCandidate, PeerCandidate, judge, reference
from trine.bench.environment import environment
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
    progress: Progress = lambda what: None,
) -> Report:
    """Time kernels, references, peers and training steps; return a report.

    `shapes` names those to time: "tiny", "typical", "large" (the default is these three), "peers"
    for all frozen shapes of `trine.bench.shapes`, or one of their names. `seconds` is the time for
    each candidate and shape; `vs` names peers ("torch", "jax"); `models` names training steps
    (`trine.bench.steps.MODELS`). `roofs` replaces the measured limits. Ops without timing shapes
    are left out.

    Raises ValueError for an unknown op, shape, peer or model, BackendError for a backend or peer
    that cannot run.
    """
    ops, peers = list(ops), [load(name) for name in vs]
    check_shapes(shapes)
    check_models(models)
    found = _Limits(roofs)
    if found.roofs is not None:
        for peer in peers:
            peer.set_threads(found.roofs.threads)
    results: list[BenchResult] = []
    for op in ops:
        case = get(op)
        for sample in samples(case, dtype, seed, shapes):
            progress(f"{op}, {sample.label}")
            results += _time_sample(case, sample, dtype, seed, backends, peers, seconds, found)
    results += time_models(models, backends, peers, seconds=seconds, progress=progress)
    _require_peers(results, ops, vs)
    return Report(results, environment(peers), found.roofs)


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
    case: OpCase, sample: Sample, dtype: str, seed: int, backends: Sequence[str],
    peers: Sequence[Peer], seconds: float, found: _Limits,
) -> list[BenchResult]:  # fmt: skip
    known = reference(OPS[case.op], sample)
    candidates: list[Candidate] = [
        KernelCandidate(get_backend(name), kernel, case, sample, dtype, known)
        for name in backends
        for kernel in _kernel_names(case.op, name)
    ]
    candidates += [PeerCandidate(peer, case, sample, dtype, known) for peer in peers]
    ready = [c for c in candidates if c.prepare()]
    time_together(ready, seconds)
    fresh = next(s for s in samples(case, dtype, seed + 1, (sample.label,)))
    other = reference(OPS[case.op], fresh)
    for candidate in ready:
        candidate.recheck(fresh, other)
        found.judge(candidate.result)
    return [c.result for c in candidates if c.serves]


def _require_peers(results: Sequence[BenchResult], ops: Sequence[str], vs: Sequence[str]) -> None:
    """Raise ValueError if a peer was asked for that has none of the ops."""
    for name in vs:
        if ops and not any(r.side == name for r in results):
            raise ValueError(
                f"[--vs] expected ops that {name} is compared on, got {', '.join(ops)}. Choose "
                "others, or leave --vs out."
            )
