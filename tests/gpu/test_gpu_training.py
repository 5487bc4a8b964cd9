"""Training on a GPU: numpy's losses, the same bytes twice, and the same bytes captured."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.gpu
SYSTEMS = ("lenet5", "mlp", "lstm")
TOLERANCES = {"float32": 1e-5, "float64": 1e-11}
"""Relative, of the mean loss so far."""


@pytest.fixture
def size(dry_run):
    """Samples, batch and steps: twenty steps, the last of them smaller; in a dry run two."""
    return (
        {"count": 6, "batch": 4, "steps": 2}
        if dry_run
        else {"count": 620, "batch": 32, "steps": 20}
    )


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_steps_give_the_losses_of_numpy(train, size, system, dtype):
    want, got = (train(backend, system, dtype=dtype, **size) for backend in ("numpy", "cupy"))
    assert len(got.losses) == size["steps"]
    np.testing.assert_allclose(got.losses, want.losses, rtol=TOLERANCES[dtype])


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_seed_gives_the_same_bytes(train, size, system):
    first, second = (train("cupy", system, **size) for _ in range(2))
    assert first.losses.tobytes() == second.losses.tobytes()
    assert first.weights == second.weights
    assert train("cupy", system, seed=1, **size).weights != first.weights


@pytest.mark.parametrize("system", SYSTEMS)
def test_captured_steps_give_the_bytes_of_eager_ones(train, dry_run, system):
    size = {"count": 10, "batch": 2} if dry_run else {"count": 330, "batch": 32}
    eager, captured = (train("cupy", system, capture=how, **size) for how in ("off", "on"))
    assert captured.summary.replayed_steps > 0
    assert captured.summary.data_on_device
    assert captured.losses.tobytes() == eager.losses.tobytes()
    assert captured.weights == eager.weights
