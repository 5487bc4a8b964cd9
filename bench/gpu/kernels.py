"""Tables T1, T2 and T6: every op and every convolution layer against PyTorch, and the share that wins.

python -m trine.bench.gpu.kernels [--out DIR] [--minutes M] [--without-torch] [--dry-run]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from trine.backends import cases
from trine.backends.cases import Sample
from trine.backends.cases.check import preferring
from trine.backends.dispatch import float_dtype
from trine.backends.op import OPS
from trine.bench.candidates import needed_bytes
from trine.bench.gpu import floors, judged, peer, shapes
from trine.bench.gpu.session import DryRun, Minutes, Out, Session
from trine.bench.gpu.stopwatch import Stopwatch, Timed, Times
from trine.bench.peers import PeerCall

T1, T2, T6 = "T1: kernels", "T2: convolution layers", "T6: share of calls that win"
ABOUT = {
    T1: "Microseconds of one call, float32 strict on both sides, L2 cache cold, median with 10th and 90th "
    "percentile; `eager` and `best` are PyTorch's time over ours, the best of its layouts and its "
    "compiler. Errors are relative to float64. Registers and shared memory: cuda-kernels.md.",
    T2: "As T1, each layer forward and both gradients.",
    T6: "The share of the calls of T1 and T2, by the kernel that serves them by default, that are right "
    "and more than p times as fast as PyTorch; calls that PyTorch has no function for do not count.",
}
MARKS = (0.0, 0.8, 1.0, 1.5, 2.0)
LAYERS_SHARE = 0.45
"""Of the time, for T2."""


class Bench:
    """Times calls and writes rows."""

    def __init__(self, session: Session, torch: Any) -> None:
        self.session, self.torch = session, torch
        self.backend = session.backend
        self.watch = Stopwatch(session)
        self.floors = floors.measure(session, self.watch, torch)
        for title in (T1, T2, T6):
            session.table(title, ABOUT[title])
        self.won: list[tuple[bool, float, float]] = []
        """Of each call that PyTorch has too: right, PyTorch's time over ours, eager and best."""

    def row(self, title: str, op: str, sample: Sample, **about: Any) -> None:
        """Write the rows of an op on a sample; what it raises is a row, not the run's end."""
        try:
            self._rows(title, op, sample, about)
        except Exception as error:
            text = next(iter(str(error).splitlines()), "")
            self.session.fail(f"{op}, {sample.label}: {type(error).__name__}: {text}")
            self.session.add(title, op=op, **about, shape=sample.label, right=False)

    def _rows(self, title: str, op: str, sample: Sample, about: dict[str, Any]) -> None:
        """Check and time every kernel of an op on a sample, and PyTorch beside."""
        backend = self.backend
        wanted = judged.expected(backend, op, sample)
        peers, theirs = self._peers(op, sample, wanted)
        arrays = judged.on_device(backend, sample)
        errors, timed = {}, {}
        for kernel in list(self._kernels(op, sample)):
            errors[kernel] = self._error(op, kernel, sample, wanted)
            timed[kernel] = Timed(
                lambda: getattr(backend, op)(*arrays, **sample.attrs),
                lambda kernel=kernel: preferring(op, kernel),  # type: ignore[misc]
            )
        timed |= {name: Timed(call.call) for name, call in peers.items()}
        with peer.released(self.torch):
            times = self.watch.cold(timed)
        default = self._default(op, sample)
        for kernel, wrong in errors.items():
            facts = self._facts(op, sample, wanted, times, kernel, wrong, theirs)
            self.session.add(
                title, op=op, **about, kernel=kernel, default=kernel == default, **facts
            )
            if not facts["right"]:
                self.session.fail(f"{op} by {kernel}, {sample.label}: error {wrong:.1e}")
            if kernel == default and any(e <= judged.FAILS for e in theirs.values()):
                self.won.append((facts["right"], facts.get("eager", 0.0), facts.get("best", 0.0)))

    def _peers(
        self, op: str, sample: Sample, wanted: list[Any]
    ) -> tuple[dict[str, PeerCall], dict[str, float]]:
        """Return PyTorch's calls and their errors; one that it cannot do is a note."""
        calls, errors = {}, {}
        for name, call in peer.calls(self.session, self.torch, op, sample).items():
            try:
                errors[name] = judged.error(call.outputs(call.call()), wanted)
            except RuntimeError as error:
                text = next(iter(str(error).splitlines()), "")
                self.session.note(f"{op}, {sample.label}, {name}: {text}")
                continue
            if errors[name] > judged.FAILS:
                self.session.note(f"{op}, {sample.label}: {name} is off by {errors[name]:.1e}")
            calls[name] = call
        return calls, errors

    def _kernels(self, op: str, sample: Sample) -> Iterable[str]:
        """Yield the kernels that serve a call."""
        spec = OPS[op]
        call = spec.bind(tuple(judged.on_device(self.backend, sample)), sample.attrs)
        for launcher in self.backend.launchers(spec):
            if launcher.refusal(spec, call, float_dtype(spec, call)) is None:
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
        right = wrong <= judged.allowed(theirs.get("torch"))
        found: dict[str, Any] = {
            "shape": sample.label, "right": right, "error": wrong,
            "error torch": theirs.get("torch"),
        }  # fmt: skip
        if not right:
            return found
        flops, nbytes = case.flops(sample), needed_bytes(case, sample, (wanted, []), "float32")
        seconds = 1e-6 * ours.median
        found |= {"us": ours.median, "p10": ours.low, "p90": ours.high}
        known = {name: times[name].median for name in theirs if theirs[name] <= judged.FAILS}
        found |= {f"{name} us": value for name, value in known.items()}
        if known:
            found["eager"] = known.get("torch", min(known.values())) / ours.median
            found["best"] = min(known.values()) / ours.median
        found |= {"GB/s": nbytes / seconds / 1e9, "TFLOP/s": flops / seconds / 1e12 or None}
        bounds = {"memory": nbytes / self.floors["copy"]}
        if flops and "fp32" in self.floors:
            bounds["compute"] = flops / self.floors["fp32"]
        bound = max(bounds, key=lambda name: bounds[name])
        found |= {"% roof": 100 * bounds[bound] / seconds, "bound": bound}
        return found | {"MHz": ours.clock, "clock drifted": ours.drifted or None}

    def shares(self) -> None:
        """Write table T6 of the calls so far."""
        if not self.won:
            self.session.note("T6 needs PyTorch beside.")
            return
        for column, peer_name in ((1, "PyTorch eager"), (2, "PyTorch's best")):
            shares = {
                f"fast_{mark:g}": sum(w[0] and w[column] > mark for w in self.won) / len(self.won)
                for mark in MARKS
            }
            self.session.add(T6, against=peer_name, calls=len(self.won), **shares)


def run(session: Session, torch: Any) -> None:
    """Fill the tables as far as the time goes."""
    bench = Bench(session, torch)
    layers = shapes.DRY_LAYERS if session.dry_run else shapes.LAYERS
    works = [
        (net, name, op, layer)
        for net, found in layers.items()
        for name, layer in found.items()
        for op in shapes.CONV
    ]
    for number, (net, name, op, layer) in enumerate(works):
        if session.over(LAYERS_SHARE):
            session.note(f"T2: no time for the last {len(works) - number} of {len(works)} calls.")
            break
        bench.row(T2, op, shapes.convolutions(op, layer), net=net, layer=name)
    missed = []
    for op in shapes.ops(session.dry_run):
        if OPS[op].host_bound:
            continue
        if session.over(0.95):
            missed.append(op)
            continue
        for sample in shapes.kernel_samples(op, session.dry_run):
            bench.row(T1, op, sample)
    if missed:
        session.note(f"T1: no time for {', '.join(missed)}.")
    bench.shares()


def main(
    out: Out = None,
    minutes: Minutes = 7.0,
    without_torch: Annotated[bool, typer.Option("--without-torch", help="No peer.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Time every op and convolution layer against PyTorch; exits with 1 if a kernel is wrong."""
    session = Session("kernels", "CUDA kernels against PyTorch", out, minutes, dry_run)
    torch = peer.load(session, not without_torch)
    run(session, torch)
    session.finish()
    raise SystemExit(session.failed)


if __name__ == "__main__":
    typer.run(main)
