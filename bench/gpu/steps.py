"""Tables T3, T4 and T5: whole training steps, time to an accuracy, and what a launch costs.

    python -m trine.bench.gpu.steps [--out DIR] [--minutes M] [--data-dir DIR] [--without-torch] [--dry-run]

T4 trains LeNet-5 on Fashion-MNIST to 90 % where its files are at hand (`trine data` tells where they
are looked for); nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import trine
from trine.backends.cases.tolerances import ROUNDED
from trine.bench.gpu import accuracy, overheads, peer
from trine.bench.gpu.nets import DRY_NETS, NETS, WIDE_NETS
from trine.bench.gpu.session import DryRun, Minutes, Out, Precisions, Session, chosen, titled
from trine.bench.gpu.stopwatch import Stopwatch, Timed
from trine.bench.models import Model
from trine.bench.steps import ALLOWED, CHECKED, initial_weights, make_train

T3 = "T3: training steps"
ABOUT = (
    "Microseconds of one training step (zero_grad, forward, loss, backward, step) on a batch that lies "
    "on the device, many in a row; `vs` columns are that peer's time over this row's. `error` is the "
    "largest relative error of the first losses against float64."
)
BOTH = {
    "fp32": "float32 strict on both sides.",
    "tf32": "On both sides factors of float32's products are rounded to TF32.",
    "bf16": "Ours by `trine.precision`, PyTorch by torch.autocast: factors are rounded to bfloat16, weights "
    "and optimiser stay float32; PyTorch's activations are bfloat16 too, ours are not.",
}
"""Precision -> what is alike."""
SHARES = {"fp32": 0.45, "tf32": 0.6, "bf16": 0.75}
"""Of the time; a precision begins no net after it."""
HOWS = {"trine eager": "eager", "trine graph": "captured"}
PEERS = {
    "torch eager": "eager",
    "torch channels_last": "channels_last",
    "torch compile": "compile",
    "torch graph": "graph",
}
ON_CPU = ("torch eager", "torch channels_last")
"""Peers that a dry run can have."""

Train = Callable[[], Any]


def losses(train: Train, count: int) -> list[float]:
    """Return the losses of so many steps."""
    return [float(train().item()) for _ in range(count)]


def worst(got: list[float], wanted: list[float]) -> float:
    """Return the largest relative error."""
    return max(abs(a - b) / abs(b) for a, b in zip(got, wanted, strict=True))


class Steps:
    """Times the steps of nets and writes table T3."""

    def __init__(self, session: Session, torch: Any) -> None:
        self.session, self.torch = session, torch
        self.watch = Stopwatch(session)
        self.checked = 6 if session.dry_run else CHECKED + 2
        """Steps whose losses are compared: the last ones are replays, ours and PyTorch's."""

    def fill(self, precision: str, nets: dict[str, Model]) -> None:
        """Write the table of a precision, as far as its time goes."""
        session, title = self.session, titled(T3, precision)
        if precision not in session.backend.precisions:
            session.note(f"{title}: left out, {session.backend.why_fp32()}.")
            return
        session.table(title, f"{ABOUT} {BOTH[precision]}")
        missed = []
        for name, model in nets.items():
            if session.over(SHARES[precision]):
                missed.append(name)
                continue
            with (
                trine.precision(precision, backend="cupy"),
                peer.at(self.torch, precision),
                peer.released(self.torch),
            ):
                self.net(title, precision, name, model)
        if missed:
            session.note(f"{title}: no time for {', '.join(missed)}.")

    def net(self, title: str, precision: str, name: str, model: Model) -> None:
        """Check and time a net's step in every form."""
        allowed = ROUNDED.get(precision, ALLOWED)
        batch = model.batches[0]
        weights = initial_weights(model, 0)
        truth = losses(self._truth(model, batch, weights), self.checked)
        forms, errors = {}, {}
        for form, make in self._makers(model, batch, weights, precision).items():
            try:
                train = make()
                errors[form] = worst(losses(train, self.checked), truth)
            except Exception as error:  # one form that cannot be is a line, not the run's end
                text = next(iter(str(error).splitlines()), "")
                say = self.session.note if form in PEERS else self.session.fail
                say(f"{title}: {name} by {form}: {type(error).__name__}: {text}")
                continue
            if errors[form] <= allowed:
                forms[form] = Timed(train)
            elif form in HOWS:
                self.session.fail(f"{title}: {name} by {form}: error {errors[form]:.1e}")
        times = self.watch.in_a_row(forms)
        for form, wrong in errors.items():
            facts: dict[str, Any] = {}
            if form in times:
                taken = times[form]
                facts = {"us": taken.median, "p10": taken.low, "p90": taken.high}
                facts |= {
                    f"vs {other}": times[other].median / taken.median
                    for other in PEERS
                    if other in times
                }
                facts |= {"MHz": taken.clock, "clock drifted": taken.drifted or None}
            self.session.add(
                title, net=name, batch=batch, what=model.summary, form=form, right=form in times,
                error=wrong, **facts,
            )  # fmt: skip

    def _truth(self, model: Model, batch: int, weights: dict[str, Any]) -> Train:
        """Return steps in float64: PyTorch's on the device, else those of the numpy backend."""
        if self.torch is None:
            return make_train(model, batch, "numpy", "float64", weights, 0)
        from trine.bench.peers import torch_steps  # noqa: PLC0415  torch is there

        place = peer.place(self.session)
        return torch_steps.make_train(model, batch, weights, 0, place, "eager", self.torch.float64)

    def _makers(
        self, model: Model, batch: int, weights: dict[str, Any], precision: str
    ) -> dict[str, Callable[[], Train]]:
        found: dict[str, Callable[[], Train]] = {
            form: lambda how=how: make_train(model, batch, "cupy", "float32", weights, 0, how)  # type: ignore[misc]
            for form, how in HOWS.items()
        }
        if self.torch is None:
            return found
        from trine.bench.peers import torch_steps  # noqa: PLC0415  torch is there

        place, images = peer.place(self.session), _draws_images(model, batch)
        autocast = self.torch.bfloat16 if precision == "bf16" else None
        for form, how in PEERS.items():
            if (form in ON_CPU or not self.session.dry_run) and (how != "channels_last" or images):
                found[form] = lambda how=how: torch_steps.make_train(  # type: ignore[misc]
                    model, batch, weights, 0, place, how, autocast=autocast
                )
        return found


def _draws_images(model: Model, batch: int) -> bool:
    return bool(model.draw(np.random.default_rng(0), batch)[0].ndim == 4)


def run(session: Session, torch: Any, precisions: Iterable[str], data_dir: Path | None) -> None:
    """Fill the tables as far as the time goes."""
    steps = Steps(session, torch)
    for precision in precisions:
        if session.dry_run:
            nets = DRY_NETS if precision == "fp32" else dict(list(DRY_NETS.items())[:1])
        else:
            nets = NETS | (WIDE_NETS if precision == "bf16" else {})
        steps.fill(precision, nets)
    overheads.run(session, steps.watch, torch)
    accuracy.run(session, data_dir)


def main(
    out: Out = None,
    precision: Precisions = None,
    minutes: Minutes = 7.0,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where Fashion-MNIST's files lie, for T4.")
    ] = None,
    without_torch: Annotated[bool, typer.Option("--without-torch", help="No peer.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Time training steps against PyTorch; exits with 1 if a step of ours is wrong."""
    session = Session("steps", "Training steps on a GPU against PyTorch", out, minutes, dry_run)
    run(session, peer.load(session, not without_torch), chosen(precision), data_dir)
    session.finish()
    raise SystemExit(session.failed)


if __name__ == "__main__":
    typer.run(main)
