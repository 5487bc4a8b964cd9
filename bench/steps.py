"""Whole training steps through the public API, against the same model in torch eager.

A step is zero_grad, forward, loss, backward, step: no data loading. Ours runs as it stands ("eager")
and by `trine.capture` ("captured"). Before a step is timed its first losses are held against those of
a float64 run on the numpy backend from the same weights; after, the loss must be finite. The peak
memory is that of another process which does the same steps with compiled kernels at hand.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import trine
import trine.functional as F
from trine import nn, optim
from trine.backends import cases, dispatch, get_backend
from trine.bench import memory
from trine.bench.models import MODELS, Model
from trine.bench.peers import Peer
from trine.bench.results import BenchResult
from trine.bench.timing import pool_of, time_together
from trine.errors import suggest

CHECKED = 5
"""Steps whose losses are compared: the last has felt every gradient of a captured step's replay."""
ALLOWED = 1e-4
"""Relative error of a float32 loss: some hundred roundings, far from what a wrong gradient does."""

KNOWN = frozenset(case.op for case in cases.all())
"""Ops whose arithmetic is declared."""

Step = Callable[[], float]
"""Does a training step to its end and returns the loss before it."""
Weights = dict[str, Any]


def initial_weights(model: Model, seed: int) -> Weights:
    """Return the parameters from which every side starts, as NumPy arrays."""
    with trine.use("numpy"):
        trine.seed(seed)
        return {name: p.numpy().copy() for name, p in model.build(nn).state_dict().items()}


HOWS = ("eager", "captured")
"""How a step of ours is run."""


def make_train(
    model: Model, batch: int, backend: str, dtype: str, weights: Weights, seed: int,
    how: str = "eager",
) -> Callable[[], trine.Tensor]:  # fmt: skip
    """Return what does a training step of a model on a backend of ours; it waits for nothing."""
    x, y = model.draw(np.random.default_rng(seed), batch)
    with trine.use(backend):
        network = model.build(nn)
        network.to(dtype=dtype)
        network.load_state_dict({k: trine.tensor(v, dtype=dtype) for k, v in weights.items()})
        inputs = trine.tensor(x, dtype=dtype)
        target = trine.tensor(y, dtype=dtype if y.dtype.kind == "f" else None)
        optimizer = model.optimizer(optim, network.parameters())

    def train(x: trine.Tensor, y: trine.Tensor) -> trine.Tensor:
        optimizer.zero_grad()
        loss: trine.Tensor = model.loss(F, network, x, y)
        loss.backward()
        optimizer.step()
        return loss

    run = trine.capture(train) if how == "captured" else train

    def step() -> trine.Tensor:
        with trine.use(backend):
            return run(inputs, target)

    return step


def make_step(
    name: str, batch: int, backend: str, dtype: str, weights: Weights, seed: int,
    how: str = "eager",
) -> Step:  # fmt: skip
    """Return a training step of a named model on a backend of ours, done to its end."""
    train = make_train(MODELS[name], batch, backend, dtype, weights, seed, how)
    return lambda: float(train().item())


def arithmetic(step: Step) -> float:
    """Return the arithmetic of a step of ours: the sum over its ops by their definitions."""
    total = 0.0

    def count(backend: Any, spec: Any, run: Any, arrays: Any, attributes: Any) -> Any:
        nonlocal total
        if spec.name in KNOWN:
            total += cases.get(spec.name).flops(cases.Sample("", arrays, attributes))
        return run(backend, arrays, attributes)

    before = dispatch.observe(count)
    try:
        step()
    finally:
        dispatch.observe(before)
    return total


class StepCandidate:
    """Training steps of one side; a candidate like a kernel."""

    def __init__(self, side: str, pool: str, result: BenchResult, make: Callable[[], Step]) -> None:
        self.side, self.pool, self.result, self.make = side, pool, result, make
        self.step: Step | None = None

    def prepare(self, expected: Sequence[float]) -> bool:
        """Compare the first losses with the float64 run; False if they differ."""
        self.step = self.make()
        for number, wanted in enumerate(expected):
            got = self.step()
            if not abs(got - wanted) <= ALLOWED * abs(wanted):
                self.result.error = (
                    f"the loss of step {number} is {got:.7g}, in float64 it is {wanted:.7g}"
                )
                return False
        return True

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Nothing to set up."""
        yield

    def call(self) -> Any:
        """Do a step."""
        assert self.step is not None
        return self.step()

    def recheck(self) -> None:
        """Take the times away if the training has gone astray."""
        loss = self.call()
        if not np.isfinite(loss):
            self.result.fail(f"wrong after timing: the loss is {loss}")


def check_models(names: Sequence[str]) -> None:
    """Raise ValueError for an unknown model."""
    for name in names:
        if name not in MODELS:
            raise suggest("--model", "model", name, MODELS)


def time_models(
    names: Sequence[str],
    backends: Sequence[str],
    peers: Sequence[Peer],
    *,
    seconds: float,
    seed: int = 0,
    progress: Callable[[str], None] = lambda what: None,
) -> list[BenchResult]:
    """Time the training steps of models at their batch sizes, on backends and in peers.

    Peers without models (jax) are left out. Raises ValueError for an unknown model.
    """
    check_models(names)
    results = []
    for name in names:
        weights = initial_weights(MODELS[name], seed)
        for batch in MODELS[name].batches:
            progress(f"step {name}, batch {batch}")
            found = _candidates(name, batch, backends, peers, weights, seed)
            truth = make_step(name, batch, "numpy", "float64", weights, seed)
            expected = [truth() for _ in range(CHECKED)]
            flops = arithmetic(truth)
            for candidate in found:
                candidate.result.flops = candidate.result.work = flops
            ready = [c for c in found if c.prepare(expected)]
            time_together(ready, seconds)
            for candidate in ready:
                candidate.recheck()
                candidate.result.peak_memory = memory.of_steps(
                    candidate.side, name, batch, candidate.result.kernel
                )
            results += [c.result for c in found]
    return results


def peer_step(
    peer: str, name: str, batch: int, weights: Weights, seed: int
) -> Callable[[], Step] | None:
    """Return what makes a peer's step; None if the peer has no models."""
    if peer != "torch":
        return None
    module = importlib.import_module("trine.bench.peers.torch_steps")
    return lambda: module.make_step(MODELS[name], batch, weights, seed)


def _candidates(
    name: str, batch: int, backends: Sequence[str], peers: Sequence[Peer], weights: Weights,
    seed: int,
) -> list[StepCandidate]:  # fmt: skip
    def row(backend: str, how: str, side: str) -> BenchResult:
        return BenchResult(f"step {name}", backend, how, "float32", f"batch {batch}", side=side)

    def ours(backend: str, how: str) -> Callable[[], Step]:
        return lambda: make_step(name, batch, backend, "float32", weights, seed, how)

    found = [
        StepCandidate(b, pool_of(b), row(b, how, "trine"), ours(b, how))
        for b in backends
        for how in HOWS
        if how == "eager" or get_backend(b).device == "cpu"
    ]
    for peer in peers:
        make = peer_step(peer.name, name, batch, weights, seed)
        if make is not None:
            result = row(peer.name, "eager", peer.name)
            found.append(StepCandidate(peer.name, peer.name, result, make))
    return found
