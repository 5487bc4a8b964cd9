"""Tables T1, T2 and T6: every op and every convolution layer against PyTorch, and the share that wins.

    python -m trine.bench.gpu.kernels [--precision P]... [--minutes M] [--without-torch] [--dry-run]

Each precision has tables of its own: both sides round alike, or neither does. Each table has a share of
the time; what it leaves goes to the next ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

import trine
from trine.backends import cases
from trine.backends.cases import Sample
from trine.backends.cases.check import preferring
from trine.backends.dispatch import float_dtype
from trine.backends.op import OPS
from trine.bench.candidates import needed_bytes
from trine.bench.gpu import floors, judged, peer, shapes
from trine.bench.gpu.session import DryRun, Minutes, Out, Precisions, Session, chosen, titled
from trine.bench.gpu.stopwatch import Stopwatch, Timed, Times
from trine.bench.peers import PeerCall

T1, T2, T6 = "T1: kernels", "T2: convolution layers", "T6: share of calls that win"
ABOUT = {
    T1: "Microseconds of one call, L2 cache cold, median with 10th and 90th percentile; `eager` and "
    "`best` are PyTorch's time over ours, the best of its layouts and its compiler. Errors are relative "
    "to float64. Registers and shared memory: cuda-kernels.md.",
    T2: "As T1, each layer forward and both gradients.",
    T6: "The share of the calls of T1 and T2, by the kernel that serves them by default, that are right "
    "and more than p times as fast as PyTorch; calls that PyTorch has no function for do not count.",
}
BOTH = {
    "fp32": "float32 strict on both sides.",
    "tf32": "Ours by `trine.precision`, PyTorch by its flags for products and cuDNN: on both sides factors "
    "of float32 are rounded to TF32.",
    "bf16": "Ours reads float32 and rounds factors to bfloat16, results are float32. `torch` has its "
    "operands in bfloat16, so half the bytes to read, and rounds its results too; `torch autocast` has "
    "operands of float32, as ours.",
}
"""Precision -> what is alike."""
MARKS = (0.0, 0.8, 1.0, 1.5, 2.0)
END = 0.95
"""Of the time, for the tables."""


@dataclass(frozen=True)
class Work:
    """An op on some calls, which are made when their turn comes: some take gigabytes."""

    op: str
    samples: Callable[[], list[Sample]]
    about: dict[str, str]

    @property
    def name(self) -> str:
        """What a note calls it."""
        return " ".join([self.op, *self.about.values()])


@dataclass(frozen=True)
class Stage:
    """A table in a precision, and its part of the time."""

    title: str
    precision: str
    part: float


STAGES = (
    Stage(T2, "fp32", 3),
    Stage(T2, "tf32", 2),
    Stage(T2, "bf16", 2),
    Stage(T1, "tf32", 1),
    Stage(T1, "bf16", 1),
    Stage(T1, "fp32", 5),
)


class Bench:
    """Times calls and writes rows."""

    def __init__(self, session: Session, torch: Any) -> None:
        self.session, self.torch = session, torch
        self.backend = session.backend
        self.watch = Stopwatch(session)
        self.floors = floors.measure(session, self.watch, torch)
        self.mode = "fp32"
        self.won: dict[str, list[tuple[bool, float, float]]] = {}
        """By precision, of each call that PyTorch has too: right, its time over ours, eager and best."""

    def fill(self, stage: Stage, end: float) -> None:
        """Write a table until that share of the run's time is gone; name what is left."""
        session, self.mode = self.session, stage.precision
        title = titled(stage.title, self.mode)
        if self.mode not in self.backend.precisions:
            session.note(f"{title}: left out, {self.backend.why_fp32()}.")
            return
        session.table(title, f"{ABOUT[stage.title]} {BOTH[self.mode]}")
        missed = []
        for work in works(stage, session.dry_run):
            if session.over(end):
                missed.append(work.name)
                continue
            for sample in work.samples():
                with trine.precision(self.mode, backend="cupy"), peer.at(self.torch, self.mode):
                    self.row(title, work.op, sample, **work.about)
        if missed:
            session.note(f"{title}: no time for {'; '.join(missed)}.")

    def row(self, title: str, op: str, sample: Sample, **about: Any) -> None:
        """Write the rows of an op on a sample; what it raises is a row, not the run's end."""
        try:
            self._rows(title, op, sample, about)
        except Exception as error:
            text = next(iter(str(error).splitlines()), "")
            self.session.fail(f"{title}: {op}, {sample.label}: {type(error).__name__}: {text}")
            self.session.add(title, op=op, **about, shape=sample.label, right=False)

    def _rows(self, title: str, op: str, sample: Sample, about: dict[str, Any]) -> None:
        """Check and time every kernel of an op on a sample, and PyTorch beside."""
        backend = self.backend
        wanted = judged.expected(backend, op, sample)
        peers, theirs = self._peers(op, sample, wanted)
        arrays = judged.on_device(backend, sample)
        errors, timed = {}, {}
        default = self._default(op, sample)
        for kernel in list(self._kernels(op, sample, default)):
            errors[kernel] = self._error(op, kernel, sample, wanted)
            timed[kernel] = Timed(
                lambda: getattr(backend, op)(*arrays, **sample.attrs),
                lambda kernel=kernel: preferring(op, kernel),  # type: ignore[misc]
            )
        timed |= {name: Timed(call.call) for name, call in peers.items()}
        with peer.released(self.torch):
            times = self.watch.cold(timed)
        for kernel, wrong in errors.items():
            facts = self._facts(op, sample, wanted, times, kernel, wrong, theirs)
            self.session.add(
                title, op=op, **about, kernel=kernel, default=kernel == default, **facts
            )
            if not facts["right"]:
                self.session.fail(f"{title}: {op} by {kernel}, {sample.label}: error {wrong:.1e}")
            if kernel == default and any(e <= judged.fails(op, self.mode) for e in theirs.values()):
                won = (facts["right"], facts.get("eager", 0.0), facts.get("best", 0.0))
                self.won.setdefault(self.mode, []).append(won)

    def _peers(
        self, op: str, sample: Sample, wanted: list[Any]
    ) -> tuple[dict[str, PeerCall], dict[str, float]]:
        """Return PyTorch's calls and their errors; one that it cannot do is a note."""
        calls, errors = {}, {}
        for name, call in peer.calls(self.session, self.torch, op, sample, self.mode).items():
            try:
                errors[name] = judged.error(call.outputs(call.call()), wanted)
            except RuntimeError as error:
                text = next(iter(str(error).splitlines()), "")
                self.session.note(f"{op}, {sample.label}, {self.mode}, {name}: {text}")
                continue
            if errors[name] > judged.fails(op, self.mode):
                self.session.note(
                    f"{op}, {sample.label}, {self.mode}: {name} is off by {errors[name]:.1e}"
                )
            calls[name] = call
        return calls, errors

    def _kernels(self, op: str, sample: Sample, default: str) -> Iterable[str]:
        """Yield the kernels that serve a call in this precision, and the one that does by default."""
        spec = OPS[op]
        call = spec.bind(tuple(judged.on_device(self.backend, sample)), sample.attrs)
        for launcher in self.backend.launchers(spec):
            wanted = launcher.entry.precision == self.mode or launcher.name == default
            if wanted and launcher.refusal(spec, call, float_dtype(spec, call)) is None:
                yield launcher.name

    def _default(self, op: str, sample: Sample) -> str:
        arrays = judged.on_device(self.backend, sample)
        getattr(self.backend, op)(*arrays, **sample.attrs)
        return self.backend.ran[op]

    def _error(self, op: str, kernel: str, sample: Sample, wanted: list[Any]) -> float:
        arrays = judged.on_device(self.backend, sample)
        with preferring(op, kernel), judged.poisoned(self.backend):
            result = getattr(self.backend, op)(*arrays, **sample.attrs)
        got = judged.results(OPS[op], arrays, result)
        return judged.error([self.backend.to_numpy(a) for a in got], wanted)

    def _facts(
        self, op: str, sample: Sample, wanted: list[Any], times: dict[str, Times], kernel: str,
        wrong: float, theirs: dict[str, float],
    ) -> dict[str, Any]:  # fmt: skip
        """Return what a row says of a kernel; no time for one that is wrong."""
        ours, case = times[kernel], cases.get(op)
        right = wrong <= judged.allowed(op, self.mode, theirs.get("torch"))
        found: dict[str, Any] = {
            "shape": sample.label, "right": right, "error": wrong,
            "error torch": theirs.get("torch"),
        }  # fmt: skip
        if not right:
            return found
        flops, nbytes = case.flops(sample), needed_bytes(case, sample, (wanted, []), "float32")
        seconds = 1e-6 * ours.median
        found |= {"us": ours.median, "p10": ours.low, "p90": ours.high}
        known = {n: times[n].median for n, e in theirs.items() if e <= judged.fails(op, self.mode)}
        found |= {f"{name} us": value for name, value in known.items()}
        if known:
            found["eager"] = known.get("torch", min(known.values())) / ours.median
            found["best"] = min(known.values()) / ours.median
        found |= {"GB/s": nbytes / seconds / 1e9, "TFLOP/s": flops / seconds / 1e12 or None}
        bounds = {"memory": nbytes / self.floors["copy"]}
        if flops and self.mode in self.floors:
            bounds["compute"] = flops / self.floors[self.mode]
        bound = max(bounds, key=lambda name: bounds[name])
        found |= {"% roof": 100 * bounds[bound] / seconds, "bound": bound}
        return found | {"MHz": ours.clock, "clock drifted": ours.drifted or None}

    def shares(self) -> None:
        """Write table T6 of the calls so far."""
        self.session.table(T6, ABOUT[T6])
        if not self.won:
            self.session.note("T6 needs PyTorch beside.")
        for mode, won in self.won.items():
            for column, peer_name in ((1, "PyTorch eager"), (2, "PyTorch's best")):
                shares = {
                    f"fast_{mark:g}": sum(w[0] and w[column] > mark for w in won) / len(won)
                    for mark in MARKS
                }
                self.session.add(T6, precision=mode, against=peer_name, calls=len(won), **shares)


def works(stage: Stage, dry_run: bool) -> list[Work]:
    """Return what a table is of: convolution layers, or ops that have kernels of its precision."""
    if stage.title == T2:
        return [
            Work(op, lambda op=op, layer=layer: [shapes.convolutions(op, layer)],  # type: ignore[misc]
                 {"net": net, "layer": name})
            for net, found in (shapes.DRY_LAYERS if dry_run else shapes.LAYERS).items()
            for name, layer in found.items()
            for op in shapes.CONV
        ]  # fmt: skip
    return [
        Work(op, lambda op=op: shapes.kernel_samples(op, dry_run), {})  # type: ignore[misc]
        for op in shapes.ops(dry_run, stage.precision)
    ]


def run(session: Session, torch: Any, precisions: Iterable[str]) -> None:
    """Fill the tables as far as the time goes."""
    bench = Bench(session, torch)
    stages = [stage for stage in STAGES if stage.precision in precisions]
    whole, gone = sum(stage.part for stage in stages), 0.0
    for stage in stages:
        gone += stage.part
        bench.fill(stage, END * gone / whole)
    bench.shares()


def main(
    out: Out = None,
    precision: Precisions = None,
    minutes: Minutes = 7.0,
    without_torch: Annotated[bool, typer.Option("--without-torch", help="No peer.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Time every op and convolution layer against PyTorch; exits with 1 if a kernel is wrong."""
    session = Session("kernels", "CUDA kernels against PyTorch", out, minutes, dry_run)
    torch = peer.load(session, not without_torch)
    run(session, torch, chosen(precision))
    session.finish()
    raise SystemExit(session.failed)


if __name__ == "__main__":
    typer.run(main)
