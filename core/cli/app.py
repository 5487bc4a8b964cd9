"""The command line's tree: every command with its options; the work is in the modules beside."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trine.cli.output import console, emit_json, table

if TYPE_CHECKING:
    from trine.models.measured import Measured

app = typer.Typer(
    name="trine",
    help="Train neural networks with one layer code on NumPy, Numba or CuPy.\n\n"
    "Start with: trine train lenet5",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(help="The folder of compiled kernels.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


class BackendChoice(StrEnum):
    """What --backend takes."""

    auto = "auto"
    numpy = "numpy"
    numba = "numba"
    cupy = "cupy"


class CaptureChoice(StrEnum):
    """What --capture takes."""

    auto = "auto"
    on = "on"
    off = "off"


class DtypeChoice(StrEnum):
    """What --dtype takes."""

    float32 = "float32"
    float64 = "float64"


class PrecisionChoice(StrEnum):
    """What --precision takes."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


class ProgressChoice(StrEnum):
    """What --progress takes."""

    auto = "auto"
    none = "none"


def complete_system(incomplete: str) -> list[str]:
    """Complete the name of a system."""
    from trine import models

    return [name for name in models.names() if name.startswith(incomplete)]


def complete_op(incomplete: str) -> list[str]:
    """Complete the name of an op."""
    from trine.backends.op import OPS

    return sorted(name for name in OPS if name.startswith(incomplete))


JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON value as the last line of stdout.")
]
SystemName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A system; `trine models` lists them.", autocompletion=complete_system
    ),
]
OpNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[OP]...", help="Ops; all by default.", autocompletion=complete_op),
]
BackendFlag = Annotated[
    BackendChoice, typer.Option("--backend", help="auto: cupy if usable, else numba, else numpy.")
]
DeviceFlag = Annotated[int, typer.Option("--device", min=0, help="Which GPU, for cupy.")]
KernelFiles = Annotated[
    list[Path] | None,
    typer.Option("--kernel-file", help="A Python file with kernels or ops of yours. Repeatable."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where data files lie (else $TRINE_DATA, else cached)."),
]
Dtype = Annotated[
    DtypeChoice, typer.Option("--dtype", help="Element type of weights and activations.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of weights, order and dropout.")]


@app.command()
def train(
    name: SystemName,
    data: Annotated[str | None, typer.Option(help="Data set; by default the system's own.")] = None,
    data_dir: DataDir = None,
    backend: BackendFlag = BackendChoice.auto,
    device: DeviceFlag = 0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training data.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, unit, rmsprop, adagrad, adam or adamw.")
    ] = None,
    seed: Seed = 0,
    dtype: Dtype = DtypeChoice.float32,
    precision: Annotated[
        PrecisionChoice,
        typer.Option(help="tf32, bf16: products by tensor cores, weights still float32 (cupy)."),
    ] = PrecisionChoice.fp32,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    capture: Annotated[
        CaptureChoice,
        typer.Option(help="Record a step once and replay it: the same numbers, sooner."),
    ] = CaptureChoice.auto,
    kernel: Annotated[
        list[str] | None, typer.Option(metavar="OP=NAME", help="Prefer a kernel. Repeatable.")
    ] = None,
    kernel_file: KernelFiles = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/NAME.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="auto|DIR", help="Continue the run found there.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Save plots in the run's folder.")] = False,
    progress: Annotated[
        ProgressChoice, typer.Option(help="How to show progress.")
    ] = ProgressChoice.auto,
    json: JsonFlag = False,
) -> None:
    """Train a system and leave config, metrics and checkpoints in a folder.

    trine train lenet5

    trine train lenet5 --data fashion-mnist --epochs 5 --backend numba

    trine train mlp --resume auto
    """
    from trine.cli import train as work

    work.run(
        work.Options(
            name=name,
            data=data,
            data_dir=data_dir,
            backend=backend.value,
            device=device,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            seed=seed,
            dtype=dtype.value,
            precision=precision.value,
            threads=threads,
            kernels=tuple(kernel or ()),
            kernel_files=tuple(kernel_file or ()),
            out=out,
            resume=resume,
            plot=plot,
            progress=progress.value,
            capture=capture.value,
        ),
        json=json,
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="An .npy file, or DATA:INDEX of a test set; a text for a model of language.",
        ),
    ],
    data_dir: DataDir = None,
    backend: BackendFlag = BackendChoice.auto,
    device: DeviceFlag = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a text that is written.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Classify inputs with the trained model of a run, or let it go on with a text.

    trine predict runs/lenet5 digits:0 digits:1

    trine predict runs/lenet5 my_images.npy

    trine predict runs/char-lstm "It is a truth universally" --seed 3

    trine predict runs/text-cnn "she went ___ the house"
    """
    from trine.cli import predict as work

    work.run(
        run, inputs, data_dir=data_dir, backend=backend.value, device=device, seed=seed, json=json
    )


def _first_figures(line: Measured | None, count: int = 2) -> str:
    """Return the first figures that a system reached, and how many more there are."""
    if line is None:
        return ""
    if line.failed:
        return line.result
    more = len(line.reached) - count
    figures = "; ".join(map(str, line.reached[:count]))
    return figures + (f"; {more} more" if more > 0 else "")


@app.command()
def models(json: JsonFlag = False) -> None:
    """List the systems that can be trained or explained, and what came of training each."""
    from trine import models as registry
    from trine.models import measured

    rows: list[dict[str, Any]] = []
    known = {(line.name, line.data): line for line in measured.read()}
    for name in registry.names():
        system = registry.get(name)
        line = known.get((name, system.data_name or ""))
        commands = [
            c for c, can in (("train", system.trainable), ("explain", system.explain)) if can
        ]
        rows.append(
            {
                "name": name,
                "family": system.family,
                "year": system.year,
                "parameters": line.parameters if line is not None else system.parameters,
                "data": system.data_name,
                "commands": commands,
                "result": line.result if line is not None else None,
                "short": line.short if line is not None else None,
                "seconds": line.seconds if line is not None else None,
                "source": system.source,
                "summary": system.summary,
            }
        )
    if json:
        emit_json(rows)
        return
    table(
        None,
        ("name", "family", "year", "source", "parameters", "data", "measured"),
        [
            (r["name"], r["family"], r["year"], r["source"], r["parameters"] or "", r["data"] or "",
             _first_figures(known.get((r["name"], r["data"] or ""))) or " ".join(r["commands"]))
            for r in rows
        ],
    )  # fmt: skip


@app.command()
def data(data_dir: DataDir = None, json: JsonFlag = False) -> None:
    """List the data sets, and whether their files are here."""
    from trine.cli import inspect as work

    work.data(data_dir, json=json)


@app.command()
def explain(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="EXAMPLE|RUN",
            help="A worked example, another system, or the folder of a run.",
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Which test sample of a run, or sample of a lesson.")
    ] = 0,
    step: Annotated[int | None, typer.Option(min=0, help="Training steps of an example.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page as well.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the numbers for a spreadsheet.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the worked examples.")] = False,
    backend: BackendFlag = BackendChoice.auto,
    device: DeviceFlag = 0,
    dtype: Dtype = DtypeChoice.float64,
    json: JsonFlag = False,
) -> None:
    """Show the numbers behind an example, or a run's model layer by layer.

    trine explain hand --step 1

    trine explain runs/lenet5 --sample 3 --html lenet5.html
    """
    from trine.cli import explain as work

    work.run(
        target,
        sample=sample,
        step=step,
        html=html,
        csv=csv,
        list_examples=list_,
        backend=backend.value,
        device=device,
        dtype=dtype.value,
        json=json,
    )


@app.command()
def compare(
    name: SystemName,
    backends: Annotated[
        str, typer.Option(help="Two backends, the first is the measure.")
    ] = "numpy,numba",
    data_dir: DataDir = None,
    seed: Seed = 0,
    dtype: Dtype = DtypeChoice.float32,
    kernel_file: KernelFiles = None,
    json: JsonFlag = False,
) -> None:
    """Name the first layer at which two backends part."""
    from trine.cli import inspect as work

    work.compare(
        name,
        backends,
        data_dir=data_dir,
        seed=seed,
        dtype=dtype.value,
        kernel_files=tuple(kernel_file or ()),
        json=json,
    )


@app.command()
def gradcheck(
    name: SystemName,
    backend: BackendFlag = BackendChoice.numpy,
    device: DeviceFlag = 0,
    data_dir: DataDir = None,
    seed: Seed = 0,
    kernel_file: KernelFiles = None,
    json: JsonFlag = False,
) -> None:
    """Check a model's gradients against finite differences in float64."""
    from trine.cli import inspect as work

    work.gradcheck(
        name,
        backend=backend.value,
        device=device,
        data_dir=data_dir,
        seed=seed,
        kernel_files=tuple(kernel_file or ()),
        json=json,
    )


@app.command()
def graph(
    name: SystemName,
    dot: Annotated[bool, typer.Option("--dot", help="Print Graphviz text instead.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Draw it into an SVG file as well.")] = None,
    json: JsonFlag = False,
) -> None:
    """Show the recorded graph of a model's loss: ops, shapes and edges.

    trine graph lenet5 --svg lenet5.svg
    """
    from trine.cli import inspect as work

    work.graph(name, dot=dot, svg=svg, json=json)


@app.command()
def check(
    ops: OpNames = None,
    kernel_file: KernelFiles = None,
    backend: Annotated[str, typer.Option(help="all, or one backend.")] = "all",
    emulate: Annotated[
        bool,
        typer.Option(
            "--emulate",
            help="Run CUDA kernels on the CPU and look for races, accesses out of bounds and their "
            "like; needs no GPU, but g++ on x86-64 Linux.",
        ),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check kernels against the float64 reference on hostile inputs.

    trine check max_pool2d --kernel-file mine.py

    trine check --kernel-file mine.py --emulate
    """
    if emulate:
        from trine.cli import emulate as emulation

        emulation.check(tuple(ops or ()), tuple(kernel_file or ()), backend, json=json)
        return
    from trine.cli import kernels as work

    work.check(tuple(ops or ()), tuple(kernel_file or ()), backend, json=json)


@app.command()
def bench(
    ops: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP]...",
            help="Ops; all by default, none with --model.",
            autocompletion=complete_op,
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="all, or one backend.")] = "all",
    kernel_file: KernelFiles = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="tiny, typical or large (all three by default), peers (every frozen layer shape) "
            "or the name of one, e.g. resnet-64-56. Repeatable."
        ),
    ] = None,
    dtype: Annotated[DtypeChoice, typer.Option(help="Element type.")] = DtypeChoice.float32,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Time for each kernel and shape; twice that if busy.")
    ] = 0.5,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    vs: Annotated[
        list[str] | None, typer.Option("--vs", help="A peer: torch or jax. Repeatable.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Time training steps: lenet5, mlp, mlp-small, lstm, lstm-long or alexnet-small. Repeatable."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write results and environment.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with a roofline.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD NEW", help="Measure nothing; compare two files of --json."),
    ] = None,
) -> None:
    """Time kernels that are right, against each other, the machine's limits and peers.

    A kernel is checked against float64 before and after; one that is wrong, or faster than the
    machine can be, gets no time. Candidates take turns; rounds that other processes disturbed are
    taken again. The exit code is 1 if a row has no time, or with --compare if one became slower.

    trine bench conv2d max_pool2d

    trine bench conv2d --shape resnet-64-56 --vs torch

    trine bench max_pool2d --kernel-file mine.py --json new.json --html new.html

    trine bench --model lenet5 --vs torch --backend numba

    trine bench --compare old.json new.json

    Columns: % roof is the time that the measured peak of FMAs, or the bandwidth of the cache or
    memory that holds the data, would allow, in percent of the median; bound says which of them it
    is, or latency if starting the threads takes longer. "torch / it" above 1: faster than torch.
    rounds: how many were quiet of how many.
    """
    from trine.cli import bench as work

    if compare is not None:
        work.compare(*compare)
        return
    work.bench(
        tuple(ops or ()),
        tuple(kernel_file or ()),
        backend,
        shapes=tuple(shape or ()),
        seconds=seconds,
        threads=threads,
        dtype=dtype.value,
        vs=tuple(vs or ()),
        models=tuple(model or ()),
        json=json,
        html=html,
    )


@app.command()
def profile(
    name: SystemName,
    data: Annotated[str | None, typer.Option(help="Data set; by default the system's own.")] = None,
    data_dir: DataDir = None,
    backend: BackendFlag = BackendChoice.auto,
    device: DeviceFlag = 0,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples a step.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps to profile.")] = 10,
    seed: Seed = 0,
    dtype: Dtype = DtypeChoice.float32,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    kernel: Annotated[
        list[str] | None, typer.Option(metavar="OP=NAME", help="Prefer a kernel. Repeatable.")
    ] = None,
    kernel_file: KernelFiles = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write a trace for chrome://tracing or Perfetto.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Show where the time of a training step goes, op by op.

    trine profile lenet5

    trine profile lenet5 --batch-size 512 --trace step.json
    """
    from trine.cli import profile as work
    from trine.cli.train import Options

    work.run(
        Options(
            name=name, data=data, data_dir=data_dir, backend=backend.value, device=device,
            batch_size=batch_size, seed=seed, dtype=dtype.value, threads=threads,
            kernels=tuple(kernel or ()), kernel_files=tuple(kernel_file or ()),
        ),
        steps=steps, trace=trace, json=json,
    )  # fmt: skip


@app.command()
def doctor(
    ops: Annotated[
        bool, typer.Option("--ops", help="Which ops run a kernel and which the reference.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Say what works here, and the line that mends what does not."""
    from trine.cli import doctor as work

    work.run(ops=ops, json=json)


@app.command()
def warmup(
    name: SystemName = "lenet5",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
) -> None:
    """Compile the kernels that a system needs now, so that training starts at once."""
    from trine.cli import train as work

    seconds = work.warmup(name, threads)
    console.print(f"kernels of {name} are ready ({seconds:.1f} s)")


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove compiled kernels; they are compiled again when needed."""
    from trine.kernels import numba as numba_kernels
    from trine.kernels.cuda import emulator

    folder = numba_kernels.cache_dir()
    numba_kernels.clear_cache()
    emulator.clear_cache()
    console.print(f"removed the compiled kernels in {folder}")


@app.command()
def version() -> None:
    """Print the version."""
    import trine

    print(trine.__version__)
