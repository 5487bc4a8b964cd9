"""Networks made of series, integrals and waves."""

from __future__ import annotations

import math

import numpy as np
import pytest

import trine
from trine import models
from trine.models.fourier import (
    CONVENTIONS,
    NOISE,
    UNITS,
    DftNet,
    FourierNet,
    as_real,
    complex_signals,
    dft_matrix,
    series_error,
    side_by_side,
    signal,
)
from trine.models.function_nets import (
    Integrating,
    TaylorNet,
    degree,
    integral_matrix,
    motions,
    nodes,
)
from trine.nn import init

# Taylor


def test_the_taylor_net_with_a_functions_derivatives_is_its_series(backend_name: str) -> None:
    model = TaylorNet(3)
    model.load_state_dict({"sum.weight": np.array([[2.0, -1.0, 4.0, 12.0]])})
    x = np.array([[-1.0], [0.0], [0.5]])
    with trine.no_grad():
        y = model(trine.tensor(x, dtype="float32")).numpy()
    assert y == pytest.approx(2 - x + 4 * x**2 / 2 + 12 * x**3 / 6, abs=1e-6)


def test_the_series_of_e_needs_order_six_for_a_thousandth() -> None:
    note = models.explain("taylor-net")
    errors = {row.symbol: row.value for row in note.rows}
    assert errors["N = 5"] == pytest.approx(1.6152e-3, abs=1e-7)
    assert errors["N = 6"] == pytest.approx(2.2627e-4, abs=1e-8)


def test_taylor_net_learns_the_exponential(train_system, backend_name: str) -> None:
    run = train_system("taylor-net", backend_name)
    assert run.system.shows(run.model, run.splits).failures() == []
    x = np.linspace(-1.0, 1.0, 77, dtype=np.float32)[:, None]
    with trine.no_grad():
        y = run.model(trine.tensor(x)).numpy()
    assert np.abs(y - np.exp(x)).max() <= 1e-3
    assert run.model.sum.weight.detach().numpy()[0, :3] == pytest.approx(np.ones(3), abs=0.02)


# Integrals


def test_the_integral_matrix_is_exact_for_polynomials() -> None:
    t = nodes()
    for power in range(len(t)):
        assert integral_matrix() @ t**power == pytest.approx(
            t ** (power + 1) / (power + 1), abs=1e-13
        )


def test_degree_of_a_polynomial() -> None:
    t = nodes()
    assert degree(np.ones_like(t)) == 0
    for power in range(1, 9):
        assert degree(3.0 - t + 0.1 * t**power) == max(power, 1)


@pytest.mark.parametrize("power", range(6))
def test_each_integrating_layer_raises_the_degree_by_one(power: int, backend_name: str) -> None:
    layer, t = Integrating(), nodes()
    init.constant_(layer.weight, 2.0)
    init.constant_(layer.constant, -1.0)
    a, expected = t**power, t**power
    with trine.no_grad():
        signal_ = trine.tensor(a[None], dtype="float32")
        for count in range(1, 4):
            signal_ = layer(signal_)
            coefficients = np.polynomial.polynomial.polyfit(t, expected, 11)
            integral = np.polynomial.polynomial.polyint(coefficients)
            expected = 2.0 * np.polynomial.polynomial.polyval(t, integral) - 1.0
            assert signal_.numpy()[0] == pytest.approx(expected, abs=1e-5)
            assert degree(signal_.numpy()[0]) == power + count


def test_motions_obey_their_equation() -> None:
    splits, t = motions(), nodes()
    a, s = splits.train.x.astype(np.float64), splits.train.y.astype(np.float64)
    fits = [np.polynomial.Polynomial(np.polynomial.polynomial.polyfit(t, one, 7)) for one in s]
    for fit, acceleration in zip(fits, a, strict=True):
        assert fit.deriv(2)(t) == pytest.approx(1.5 * acceleration, abs=1e-3)
        assert fit.deriv()(0.0) == pytest.approx(-0.5, abs=1e-4)
        assert fit(0.0) == pytest.approx(0.25, abs=1e-5)


def test_integral_net_learns_the_motion(train_system, backend_name: str) -> None:
    run = train_system("integral-net", backend_name)
    assert run.system.parameters == 4
    note = run.system.shows(run.model, run.splits)
    assert note.failures() == []
    assert [row.value for row in note.rows if row.symbol == "degree"] == [
        power + layer for power in range(6) for layer in (1, 2)
    ]


# Waves


def test_the_fourier_net_is_a_sum_of_waves(backend_name: str) -> None:
    model = FourierNet(2)
    model.load_state_dict(
        {
            "frequency": np.array([1.0, 2.5]),
            "mix.weight": np.array([[0.5, 0.0, 0.0, -2.0]]),
            "mix.bias": np.array([0.25]),
        }
    )
    x = np.array([[0.0], [0.2], [0.9]])
    with trine.no_grad():
        y = model(trine.tensor(x, dtype="float32")).numpy()
    expected = 0.25 + 0.5 * np.cos(2 * math.pi * x) - 2.0 * np.sin(5 * math.pi * x)
    assert y == pytest.approx(expected, abs=1e-5)


def test_fourier_net_fits_where_a_fixed_series_does_not(train_system, backend_name: str) -> None:
    run = train_system("fourier-net", backend_name)
    note = run.system.shows(run.model, run.splits)
    assert note.failures() == []
    fixed = series_error(run.splits, UNITS)
    x = np.linspace(0.02, 0.98, 200)
    with trine.no_grad():
        y = run.model(trine.tensor(x[:, None], dtype="float32")).numpy()[:, 0]
    assert np.sqrt(np.mean((y - signal(x)) ** 2)) < 0.6 * NOISE
    assert fixed > 1.5 * NOISE


@pytest.mark.parametrize("n", [1, 2, 15, 16])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_dft_net_is_the_fft(n: int, convention: str, backend_name: str) -> None:
    x = complex_signals("test", 3, n)
    spectrum = np.fft.fft(x, norm=convention)  # type: ignore[call-overload]
    there = DftNet.fixed(n, convention).float()
    back = DftNet.fixed(n, convention, inverse=True).float()
    with trine.no_grad():
        found = there(trine.tensor(side_by_side(x), dtype="float32"))
        assert found.numpy() == pytest.approx(side_by_side(spectrum), abs=1e-5)
        assert back(found).numpy() == pytest.approx(side_by_side(x), abs=1e-5)


def test_the_dft_matrix_over_the_root_is_unitary() -> None:
    w = dft_matrix(16) / 4.0
    assert w @ w.conj().T == pytest.approx(np.eye(16), abs=1e-14)
    real = as_real(w)
    assert real @ real.T == pytest.approx(np.eye(32), abs=1e-14)


def test_dft_net_learns_the_transform(train_system, backend_name: str) -> None:
    run = train_system("dft-net", backend_name)
    assert run.system.shows(run.model, run.splits).failures() == []
    weight = run.model.linear.weight.detach().numpy()
    assert weight == pytest.approx(as_real(dft_matrix(16)) / 4.0, abs=1e-5)
