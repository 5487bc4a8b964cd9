"""One seed, the same numbers: twenty steps of LeNet-5 across backends, runs and thread counts."""

from __future__ import annotations

import numpy as np
import pytest

import trine
from trine import data, models, optim
from trine.backends import threads
from trine.data import DataLoader

STEPS = 20


def train(backend, dtype, optimizer="adam"):
    """Return the losses of twenty steps and the bytes of the weights after them."""
    trine.seed(0)
    with trine.use(backend):
        system = models.get("lenet5")
        model = system.build().to(backend)
        model.to(dtype=dtype)
        update = {
            "adam": lambda p: optim.Adam(p, lr=1e-3),
            "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        }[optimizer](model.parameters())
        loader = DataLoader(data.load("digits").train, 32, shuffle=True, seed=0)
        losses = []
        for step, (x, y, _) in enumerate(loader.epoch(0)):
            if step == STEPS:
                break
            update.zero_grad()
            loss = system.loss(
                model(trine.tensor(x, dtype=dtype, backend=backend)),
                trine.tensor(y, backend=backend),
            )
            loss.backward()
            update.step()
            losses.append(float(loss))
        weights = b"".join(np.asarray(p.detach()).tobytes() for p in model.parameters())
    return np.array(losses), weights


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_numpy_and_numba_draw_one_curve(dtype, tolerance, optimizer):
    reference, _ = train("numpy", dtype, optimizer)
    jit, _ = train("numba", dtype, optimizer)
    assert reference[-1] < reference[0] - 0.01  # it does learn
    np.testing.assert_allclose(jit, reference, rtol=tolerance)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_same_seed_gives_the_same_bytes(backend):
    first, second = train(backend, "float32"), train(backend, "float32")
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1] == second[1]


def test_any_number_of_threads_gives_the_same_bytes():
    before = threads.get_threads()
    if threads.available_cpus() < 2:
        pytest.skip("one CPU only")
    try:
        runs = []
        for count in (1, 2):
            threads.set_threads(count)
            runs.append(train("numba", "float32"))
    finally:
        threads.set_threads(before)
    assert runs[0][0].tobytes() == runs[1][0].tobytes()
    assert runs[0][1] == runs[1][1]


def test_another_seed_gives_other_numbers():
    losses, _ = train("numpy", "float32")
    trine.seed(1)
    model = models.get("lenet5").build()
    trine.seed(0)
    other = models.get("lenet5").build()
    first, second = next(model.parameters()), next(other.parameters())
    assert (first.detach().numpy() != second.detach().numpy()).any()
    assert np.isfinite(losses).all()
