"""The project's goals against PyTorch on this machine, as one table: whole calls and whole steps.

    python -m trine.bench.peer_table --out bench/results/cpu-torch.md --json bench/results/cpu-torch

Every ratio is PyTorch's time over ours for the same work in the same run, taken in turns; the table
gives the median of several runs. A second table gives each convolution kernel's rounding error beside
PyTorch's, against float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from trine import bench
from trine.atomic import make_folder, write_text
from trine.backends import get_backend
from trine.backends.cases import Sample, get
from trine.backends.cases.check import preferring, reference
from trine.backends.op import OPS
from trine.bench import shapes as named
from trine.bench.environment import thread_count
from trine.bench.harness import STANDARD, samples
from trine.bench.peers import Peer, load
from trine.bench.pinning import restart
from trine.bench.results import BenchResult, Report
from trine.kernels import registry

CONV = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")
FEW = ("lenet-1", "lenet-2", "image-3-32")
DEEP = ("block-64-32", "resnet-64-56", "resnet-128-28", "resnet-256-14")
OTHER = ("alexnet-1", "down-64-128", "pointwise-256-14")
TIE = (0.9, 1.1)


@dataclass(frozen=True)
class Work:
    """A line of the table: the calls whose times add up, and what was aimed at."""

    what: str
    ops: tuple[str, ...]
    shape: str
    least: float
    aim: float
    kernel: str = "default"


def _both(op: str) -> tuple[str, str]:
    return op, f"{op}_backward"


WORKS = (
    *(Work(f"conv2d forward, {s}", CONV[:1], s, 1.3, 2) for s in FEW),
    *(Work(f"conv2d forward, {s}", CONV[:1], s, 1.1, 1.5) for s in DEEP),
    *(Work(f"conv2d forward, {s}", CONV[:1], s, 1.6, 2, "winograd4") for s in DEEP),
    *(Work(f"conv2d forward, {s}", CONV[:1], s, 0.9, 1.2) for s in OTHER),
    *(Work(f"{op}, depthwise-64-32", (op,), "depthwise-64-32", 2, 3) for op in CONV),
    *(Work(f"conv2d both ways, {s}", CONV, s, 1.6, 2) for s in (*FEW, *DEEP, *OTHER)),
    Work("max pool 2x2 both ways", _both("max_pool2d"), "pool-2", 6, 8),
    Work("max pool 3x3 stride 2 both ways", _both("max_pool2d"), "pool-3-2", 6, 8),
    Work("average pool 2x2 both ways", _both("avg_pool2d"), "pool-2", 6, 8),
    *(
        Work(f"{op} both ways, {s}", _both(op), s, 1.3, 2)
        for op in ("batch_norm", "layer_norm", "group_norm", "cross_entropy")
        for s in ("typical", "large")
    ),
)
STEPS = {
    "lstm": (1.3, 2), "lstm-long": (1.3, 2), "lenet5": (2.5, 4), "mlp": (2, 3),
    "mlp-small": (4, 10), "alexnet-small": (1.4, 2),
}  # fmt: skip
"""Model -> (at least, aim) for its whole training step."""


def default_kernel(op: str, sample: Sample, backend: str = "numba") -> str:
    """Return the kernel that serves a call when nobody chooses."""
    served = get_backend(backend)
    getattr(served, op)(*sample.args, **sample.attrs)
    return served.ran[op]


def _time_of(report: Report, work: Work, defaults: dict[tuple[str, str], str]) -> float | None:
    """Return PyTorch's time over ours for a line; None without all times."""
    ours = theirs = 0.0
    for op in work.ops:
        wanted = work.kernel if work.kernel != "default" else defaults[op, work.shape]
        rows = [r for r in report if r.op == op and r.shape == work.shape and r.rounds]
        mine = [r for r in rows if r.side == "trine" and r.kernel == wanted]
        peer = [r for r in rows if r.side == "torch"]
        if not mine or not peer:
            return None
        ours, theirs = ours + mine[0].median, theirs + peer[0].median
    return theirs / ours


def _defaults(seed: int = 0) -> dict[tuple[str, str], str]:
    found = {}
    for op, shape in {(op, w.shape) for w in WORKS for op in w.ops}:
        for sample in samples(get(op), "float32", seed, (shape,)):
            found[op, shape] = default_kernel(op, sample)
    return found


def runs(count: int, seconds: float) -> Iterator[tuple[Report, Report]]:
    """Yield reports of kernels and of training steps."""
    for number in range(count):

        def tell(what: str, number: int = number) -> None:
            typer.echo(f"run {number + 1} of {count}: {what}", err=True)

        parts = []
        for standard in (False, True):  # frozen shapes, and those that every op has
            works = [work for work in WORKS if (work.shape in STANDARD) == standard]
            ops = list(dict.fromkeys(op for work in works for op in work.ops))
            shapes = list(dict.fromkeys(work.shape for work in works))
            parts.append(
                bench.run(
                    ops,
                    ["numba"],
                    shapes=shapes,
                    seconds=seconds,
                    vs=["torch"],
                    reference=False,
                    progress=tell,
                )
            )
        kernels = replace(parts[0], results=[row for part in parts for row in part])
        steps = bench.run(
            (), ["numba"], seconds=4 * seconds, vs=["torch"], models=list(STEPS), progress=tell
        )
        yield kernels, steps


def verdict(ratio: float, least: float, aim: float) -> str:
    """Say how a ratio stands to its goals."""
    if ratio >= aim:
        return "aim reached"
    if ratio >= least:
        return "reached"
    return "short" + (" (a tie)" if TIE[0] <= ratio <= TIE[1] else "")


def _line(what: str, kernel: str, values: Sequence[float], least: float, aim: float) -> str:
    middle = float(np.median(values))
    spread = " ".join(f"{v:.2f}" for v in values)
    return (
        f"| {what} | {kernel} | **{middle:.2f}** | {spread} | {least} | {aim} "
        f"| {verdict(middle, least, aim)} |"
    )


def kernel_lines(reports: Sequence[Report]) -> list[str]:
    """Return the lines of kernels, and the geometric mean over the ten dense convolutions."""
    defaults = _defaults()
    lines, dense = [], []
    for work in WORKS:
        found = [_time_of(report, work, defaults) for report in reports]
        values = [v for v in found if v is not None]
        name = work.kernel
        if name == "default":
            name = ", ".join(dict.fromkeys(defaults[op, work.shape] for op in work.ops))
        if not values:
            lines.append(f"| {work.what} | {name} | no time | | {work.least} | {work.aim} | |")
            continue
        lines.append(_line(work.what, name, values, work.least, work.aim))
        if work.ops == CONV:
            dense.append(values)
    means = [float(np.exp(np.log(run).mean())) for run in zip(*dense, strict=False)]
    if means:
        lines.append(_line("conv2d both ways, geometric mean of the ten", "", means, 1.6, 2))
    return lines


def step_lines(reports: Sequence[Report]) -> list[str]:
    """Return the lines of training steps, with times and peak memory."""
    lines = []
    for row in (r for r in reports[0] if r.side == "trine"):
        least, aim = STEPS[row.op.removeprefix("step ")]
        values = [v for v in (_ratio(report, row) for report in reports) if v is not None]
        if values:
            lines.append(_line(f"{row.op}, {row.shape}", row.kernel, values, least, aim))
    for row in (r for r in reports[0] if r.side == "trine" and r.peak_memory):
        other = next(r for r in reports[0] if r.side == "torch" and r.key == row.key)
        if other.peak_memory and row.peak_memory:
            share = row.peak_memory / other.peak_memory
            lines.append(
                f"| {row.op}, {row.shape}, peak memory ours / PyTorch's | {row.kernel} | **{share:.2f}** "
                f"| {row.peak_memory / 1e6:.0f} and {other.peak_memory / 1e6:.0f} MB | 1.0 | 0.7 "
                f"| {'reached' if share <= 1 else 'short'} |"
            )
    return lines


def _ratio(report: Report, row: BenchResult) -> float | None:
    mine = next(
        r for r in report if r.side == "trine" and (r.key, r.kernel) == (row.key, row.kernel)
    )
    return report.ratio(mine, "torch")


# --- rounding -----------------------------------------------------------------------------------


def _rms(value: Any, wanted: Any) -> float:
    return float(np.sqrt(np.mean((value - wanted) ** 2) / np.mean(wanted**2)))


def error_lines(peer: Peer) -> list[str]:
    """Return each convolution kernel's rms error relative to the rms of the float64 result."""
    lines = ["| op | shape | PyTorch | ours, by kernel |", "|---|---|---|---|"]
    backend = get_backend("numba")
    for op in CONV:
        for sample in named.samples(op, lambda name: True, 0, np.dtype("float32")):
            known = reference(OPS[op], sample)
            wanted = np.asarray(known[0][0])
            call = peer.build(op, sample)
            theirs = "" if call is None else f"{_rms(call.outputs(call.call())[0], wanted):.1e}"
            ours = []
            for entry in registry.kernels(op, "numba"):
                with preferring(op, entry.name):
                    out = getattr(backend, op)(*sample.args, **sample.attrs)
                if backend.ran[op] == entry.name:
                    ours.append(f"{entry.name} {_rms(out, wanted):.1e}")
            lines.append(f"| {op} | {sample.label} | {theirs} | {', '.join(ours)} |")
    return lines


def main(
    out: Annotated[Path, typer.Option(help="Write the tables here (Markdown).")],
    json: Annotated[Path, typer.Option(help="Begin of the names of the runs' files.")],
    count: Annotated[int, typer.Option("--runs", min=1, help="Runs.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each candidate.")] = 0.5,
) -> None:
    """Time every work of the table against PyTorch and write the tables."""
    restart()
    for file in (out, json):
        make_folder(file.parent)
    kernels, steps = [], []
    for number, (a, b) in enumerate(runs(count, seconds), 1):
        bench.write_json(a, json.with_name(f"{json.name}-kernels-{number}.json"))
        bench.write_json(b, json.with_name(f"{json.name}-steps-{number}.json"))
        kernels.append(a)
        steps.append(b)
        command = f"--runs {count} --seconds {seconds} --out {out} --json {json}"
        write_text(out, "\n".join(page(command, kernels, steps)))  # of the runs so far


def page(command: str, kernels: Sequence[Report], steps: Sequence[Report]) -> list[str]:
    """Return the lines of the file."""
    machine = kernels[0].environment
    return [
        "# Against PyTorch on the CPU",
        "",
        f"`python -m trine.bench.peer_table {command}`; {len(kernels)} run(s).",
        "",
        f"{machine['cpu']['model']} ({', '.join(machine['cpu']['flags'])}), {thread_count()} threads, "
        f"PyTorch {machine['packages']['torch']}. Above 1 is faster than PyTorch; 0.9 to 1.1 is a tie. "
        "The median of the runs counts.",
        "",
        "| work | kernel | PyTorch / ours | runs | at least | aim | |",
        "|---|---|---|---|---|---|---|",
        *kernel_lines(kernels),
        *step_lines(steps),
        "",
        "## Rounding of float32 convolutions",
        "",
        "rms(error) / rms(result), against float64 on the same inputs.",
        "",
        *error_lines(load("torch")),
        "",
    ]


if __name__ == "__main__":
    typer.run(main)
