"""Gradient clipping, through the optimiser and in place."""

from __future__ import annotations

import numpy as np
import pytest

import trine
from trine import nn, optim


def weights(*gradient: float) -> nn.Parameter:
    weight = nn.Parameter(trine.zeros(len(gradient), dtype="float64"))
    (weight * trine.tensor(np.array(gradient))).sum().backward()
    return weight


@pytest.mark.parametrize("max_norm", [1.0, 10.0, 0.0])
def test_the_optimisers_step_is_clipped(backend_name: str, max_norm: float) -> None:
    weight = weights(3.0, -4.0)
    optimizer = optim.SGD([weight], lr=1.0)
    norm = optim.clip_grad_norm_(optimizer, max_norm)
    assert norm.shape == ()
    assert norm.item() == 5.0
    assert weight.grad.tolist() == [3, -4]  # applied on the fly
    optimizer.step()
    factor = min(1.0, max_norm / (5 + 1e-6))
    np.testing.assert_allclose(weight.detach().numpy(), [-3 * factor, 4 * factor], rtol=1e-14)


def test_gradients_of_parameters_are_clipped_in_place(backend_name: str) -> None:
    a, b, c = weights(3.0), weights(-4.0), nn.Parameter(trine.ones(1))
    norm = optim.clip_grad_norm_([a, b, c], 2.5)
    assert norm.item() == 5.0
    factor = 2.5 / (5 + 1e-6)
    np.testing.assert_allclose(a.grad.numpy(), [3 * factor], rtol=1e-14)
    np.testing.assert_allclose(b.grad.numpy(), [-4 * factor], rtol=1e-14)
    assert c.grad is None
    assert optim.clip_grad_norm_([c], 1.0).item() == 0
    assert optim.clip_grad_norm_(weights(1.0), 5.0).item() == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("max_norm", [1.0, np.inf])
def test_a_norm_that_is_not_finite_suppresses_the_step(
    backend_name: str, bad: float, max_norm: float
) -> None:
    weight = weights(1.0, 2.0)
    weight.grad.data[1] = bad
    optimizer = optim.SGD([weight], lr=1.0, momentum=0.9)
    norm = optim.clip_grad_norm_(optimizer, max_norm)
    assert not np.isfinite(norm.item())
    optimizer.step()
    assert weight.tolist() == [0, 0]
    optimizer.zero_grad()
    weight.sum().backward()
    optim.clip_grad_norm_(optimizer, max_norm)
    optimizer.step()
    factor = min(1.0, max_norm / (2**0.5 + 1e-6))
    np.testing.assert_allclose(weight.detach().numpy(), [-factor] * 2, rtol=1e-14)


def test_clipping_waits_for_no_device(backend_name: str) -> None:
    weight = weights(3.0, -4.0)
    optimizer = optim.Adam([weight])
    counters = weight.backend.counters
    before = (counters.downloads, counters.syncs)
    optim.clip_grad_norm_(optimizer, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    assert (counters.downloads, counters.syncs) == before


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="expected max_norm >= 0, got -1"):
        optim.clip_grad_norm_([weights(1.0)], -1)
    with pytest.raises(ValueError, match="expected norm_type 2, got 1"):
        optim.clip_grad_norm_([weights(1.0)], 1, norm_type=1)
    with pytest.raises(ValueError, match="expected parameters, got none"):
        optim.clip_grad_norm_([], 1)
