"""Every op on small arrays, for the sanitizers: memory comes straight from the device, without a pool.

    python -m trine.bench.gpu.small --seconds S

A pool's blocks are larger than the arrays in them, so an access past an array would stay inside of
what was allocated. Prints a line of JSON for each op. Run by `trine.bench.gpu.sanitize`.
"""

from __future__ import annotations

import json
import time
from typing import Annotated

import numpy as np
import typer

import trine
from trine import models, optim
from trine.backends import Backend, cases, get_backend
from trine.backends.cases import OpCase, Sample
from trine.backends.cases.check import check_sample
from trine.backends.op import OPS
from trine.kernels import registry

SMALL = 5000
"""Elements of all inputs together."""


def small_samples(case: OpCase, dtype: str, most: int, limit: int = SMALL) -> list[Sample]:
    """Return the first samples of a case whose arrays have few elements, but some."""
    found = []
    for sample in case.samples(np.random.default_rng(0), np.dtype(dtype)):
        sizes = [a.size for a in sample.args if a is not None]
        if 0 < sum(sizes) <= limit and all(sizes):
            found.append(sample)
        if len(found) == most:
            break
    return found


def op_case(backend: Backend, case: OpCase, most: int) -> tuple[int, list[str]]:
    """Check an op's own choice of kernels, and those on tensor cores, on small samples.

    Returns how many checks there were and what failed.
    """
    ran, failed = 0, []
    rounding = [
        k.name
        for k in registry.kernels(case.op, backend.name)
        if k.precision != "fp32" and k.precision in backend.precisions
    ]
    for dtype, kernels in (("float32", [None, *rounding]), ("float64", [None])):
        for sample in small_samples(case, dtype, most):
            for kernel in kernels:
                result = check_sample(backend, case, sample, kernel, dtype)
                ran += result.status != "skipped"
                if not result.ok:
                    failed.append(str(result))
    return ran, failed


def training_steps(count: int) -> list[float]:
    """Return the losses of some steps of the MLP system on made images."""
    trine.seed(0)
    with trine.use("cupy"):
        model = models.get("mlp").build()  # type: ignore[misc]
        optimizer = optim.Adam(model.parameters(), lr=1e-3)
        x, y = trine.rand(4, 1, 28, 28), trine.zeros(4, dtype="int64")
        losses = []
        for _ in range(count):
            optimizer.zero_grad()
            loss = trine.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.item()))
    return losses


def main(
    seconds: Annotated[float, typer.Option(min=0, help="Begin no op after so long.")] = 60,
    samples: Annotated[int, typer.Option(min=1, help="At most so many a dtype.")] = 3,
    only: Annotated[str, typer.Option(help="Ops, separated by commas; all by default.")] = "",
) -> None:
    """Run the ops and print a line for each; exits with 1 if a result is wrong."""
    end = time.monotonic() + seconds
    backend = get_backend("cupy")
    backend.strict = True
    backend.xp.cuda.set_allocator(None)
    wrong = 0
    wanted = set(filter(None, only.split(",")))
    for case in cases.all():
        if OPS[case.op].host_bound or (wanted and case.op not in wanted):
            continue
        if time.monotonic() > end:
            print(json.dumps({"op": case.op, "left_out": True}), flush=True)
            continue
        ran, failed = op_case(backend, case, samples)
        wrong += len(failed)
        print(json.dumps({"op": case.op, "samples": ran, "failed": failed}), flush=True)
    if not wanted:
        print(json.dumps({"op": "training step", "losses": training_steps(2)}), flush=True)
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    typer.run(main)
