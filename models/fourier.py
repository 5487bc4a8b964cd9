"""`fourier-net` and `dft-net`: a signal as a sum of waves, with learned or with fixed frequencies."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, draw_normal, half_squared_error, made_splits, values
from trine.models.explanation import Explanation
from trine.models.figures import Curve, Figure
from trine.models.registry import system
from trine.random import make_key, stream_id, uniform

SOURCE = "source notes 001"
Array = npt.NDArray[np.float64]

WAVES = ((1.0, 2.3, 0.3), (0.6, 5.6, 1.1), (0.3, 9.4, -0.5))
"""Amplitude, frequency in cycles on [0, 1], and phase of the made signal's waves."""
NOISE = 0.02
UNITS = 12


def signal(x: Array) -> Array:
    """Return sum_k A_k sin(2 pi f_k x + phase_k) of WAVES."""
    return np.sum([a * np.sin(2.0 * math.pi * f * x + p) for a, f, p in WAVES], axis=0)


def waves(train: int = 600, test: int = 300) -> Splits:
    """Make random points x of [0, 1] and the signal there, with normal noise of deviation 0.02.

    No frequency is a whole number, so that the signal is not periodic on [0, 1] and a Fourier
    series with fixed frequencies fits it badly near the ends.
    """
    n = train + test
    x = uniform(make_key(0, stream_id("fourier-net x")), (n, 1), "float64")
    y = signal(x) + NOISE * draw_normal("fourier-net noise", (n, 1))
    about = "three waves and noise at random points"
    features, targets = x.astype(np.float32), y.astype(np.float32)
    return made_splits("waves", features, targets, train=train, description=about)


class FourierNet(nn.Module):
    """y = c + sum_k a_k cos(2 pi f_k x) + b_k sin(2 pi f_k x); all of c, a, b and f are learned.

    The frequencies start at 1 ... K, those of a Fourier series, and the amplitudes near 0.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(trine.arange(1, units + 1, dtype="float32"))
        self.mix = nn.Linear(2 * units, 1)
        nn.init.normal_(self.mix.weight, std=0.01)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return y (N, 1) at points x (N, 1)."""
        angle = x * (self.frequency * (2.0 * math.pi))
        return self.mix(trine.cat([angle.cos(), angle.sin()], 1))


def series_error(splits: Splits, units: int) -> float:
    """Return the test error (root mean square) of the best series with the frequencies 1 ... K."""

    def waves_at(x: Array) -> Array:
        angle = 2.0 * math.pi * x * np.arange(1, units + 1)
        return np.concatenate([np.ones_like(x), np.cos(angle), np.sin(angle)], axis=1)

    (x, y), (x_test, y_test) = (
        (np.asarray(part.x, np.float64), np.asarray(part.y, np.float64))
        for part in (splits.train, splits.test)
    )
    best = np.linalg.lstsq(waves_at(x), y, rcond=None)[0]
    return float(np.sqrt(np.mean((waves_at(x_test) @ best - y_test) ** 2)))


def shows_fourier(model: FourierNet, splits: Splits) -> Explanation:
    """Compare the test error with the noise, and with the best series of fixed frequencies."""
    desk = Desk.of(model)
    note = Explanation(
        "fourier-net",
        "What the Fourier network has learned",
        SOURCE,
        desk.backend,
        desk.dtype,
        ["y = c + sum_k a_k cos(2 pi f_k x) + b_k sin(2 pi f_k x)"],
    )
    y = np.asarray(splits.test.y, np.float64)
    error = np.sqrt(np.mean((values(model(desk.tensor(splits.test.x))) - y) ** 2))
    note.at_most("error", "root mean square on the test set; the noise is 0.02", error, 1.2 * NOISE)
    fixed = series_error(splits, UNITS)
    note.at_most("error", "below that of the best series of fixed frequencies", error, fixed)
    cosine, sine = np.split(values(model.mix.weight)[0], 2)
    amplitude = np.hypot(cosine, sine)
    frequency = values(model.frequency)
    for k in np.argsort(-amplitude)[:6]:
        note.show(f"f_{k + 1}", f"learned with amplitude {amplitude[k]:.3f}", frequency[k])
    note.notes.append(
        "The signal's waves: "
        + "; ".join(f"frequency {f:g} with amplitude {a:g}" for a, f, _ in WAVES)
        + ". Neighbouring units may share one of them."
    )
    x = np.linspace(0.0, 1.0, 400)
    note.figure = Figure(
        "A made signal and the Fourier network",
        "x",
        "y",
        [
            Curve("signal without noise", x, signal(x)),
            Curve("network", x, values(model(desk.tensor(x[:, None])))[:, 0]),
        ],
    )
    return note


@system(
    "fourier-net",
    family="function network",
    year=1988,
    source=f"{SOURCE}; Gallant and White, 1988",
    summary="a sum of waves whose frequencies, amplitudes and phases are learned",
    data=waves,
    loss=F.mse_loss,
    metrics=(),
    optimizer="adam",
    lr=0.02,
    schedule="cosine",
    batch_size=50,
    epochs=80,
    shows=shows_fourier,
)
def build_fourier() -> FourierNet:
    """Return the net of 12 waves: 37 parameters."""
    return FourierNet(UNITS)


POINTS = 16
CONVENTIONS = {"backward": 0.0, "ortho": -0.5, "forward": -1.0}
"""NumPy's names of the conventions, and the power of N in the factor of the transform there."""


def dft_matrix(n: int) -> npt.NDArray[np.complex128]:
    """Return W (n, n) with W_kj = e^(-2 pi i k j / n)."""
    # k j is reduced first: the angle of a large product would be rounded.
    turns = np.outer(np.arange(n), np.arange(n)) % n / n
    return np.asarray(np.exp(-2j * math.pi * turns))


def as_real(matrix: npt.NDArray[np.complex128]) -> Array:
    """Return [[Re, -Im], [Im, Re]]: what a complex matrix does to [Re x; Im x]."""
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def side_by_side(x: npt.NDArray[np.complex128]) -> Array:
    """Return complex rows (m, n) as real rows (m, 2n): real parts, then imaginary parts."""
    return np.concatenate([x.real, x.imag], axis=1)


class DftNet(nn.Module):
    """One linear layer from the points of a complex signal to its spectrum, (m, 2n) -> (m, 2n).

        X_k = factor sum_j W_kj x_j,    W_kj = e^(-2 pi i k j / n)

    `factor` is n^(-1/2) where W / sqrt(n) is unitary ("ortho"), 1 for the unnormalised spectrum
    ("backward") and 1/n ("forward"), NumPy's names.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * n, 2 * n, bias=False)

    @classmethod
    def fixed(cls, n: int, convention: str, *, inverse: bool = False) -> DftNet:
        """Return the net whose weights are those of the transform, or of its inverse."""
        matrix = dft_matrix(n) * float(n) ** CONVENTIONS[convention]
        if inverse:
            matrix = dft_matrix(n).conj() * float(n) ** (-1.0 - CONVENTIONS[convention])
        model = cls(n).to(dtype="float64")
        model.load_state_dict({"linear.weight": as_real(matrix)})
        return model

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return the spectra of signals, real parts before imaginary parts."""
        return self.linear(x)


def complex_signals(purpose: str, count: int, n: int) -> npt.NDArray[np.complex128]:
    """Return signals (count, n) whose real and imaginary parts are standard normal."""
    real, imaginary = (
        draw_normal(f"{purpose} re", (count, n)),
        draw_normal(f"{purpose} im", (count, n)),
    )
    return np.asarray(real + 1j * imaginary)


def spectra(train: int = 2000, test: int = 200) -> Splits:
    """Make normal complex signals of 16 points and their spectra W x / sqrt(16) by NumPy's FFT."""
    x = complex_signals("dft-net", train + test, POINTS)
    inputs, targets = side_by_side(x), side_by_side(np.fft.fft(x, norm="ortho"))
    about = "complex noise and its spectrum"
    return made_splits(
        "spectra", inputs.astype(np.float32), targets.astype(np.float32),
        train=train, description=about,
    )  # fmt: skip


def explain_dft(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Compare the net with NumPy's FFT in each convention, forward and back."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "dft-net",
        "The discrete Fourier transform is a linear layer",
        SOURCE,
        backend,
        dtype,
        [
            "W_kj = e^(-2 pi i k j / N)",
            "unitary:       X = W x / sqrt(N)          x = W* X / sqrt(N)",
            "unnormalised:  X_k = sum_j W_kj x_j       x = W* X / N",
        ],
    )
    for n in (POINTS, 15):
        x = complex_signals("dft-net example", 4, n)
        for convention, power in CONVENTIONS.items():
            spectrum = np.fft.fft(x, norm=convention)
            there = desk.place(DftNet.fixed(n, convention))(desk.tensor(side_by_side(x)))
            formula = f"N = {n}, {convention}: factor N^{power:g}, net - FFT"
            note.agree("X_k", formula, values(there), side_by_side(spectrum), 1e-5)
            back = desk.place(DftNet.fixed(n, convention, inverse=True))(there)
            note.agree(
                "x_j", f"N = {n}, {convention}: and back", values(back), side_by_side(x), 1e-5
            )
    weight = values(desk.place(DftNet.fixed(POINTS, "ortho")).linear.weight)
    note.agree("U U^T", "W / sqrt(N) is unitary", weight @ weight.T, np.eye(2 * POINTS))
    return note


def shows_dft(model: DftNet, splits: Splits) -> Explanation:
    """Compare the learned weights with W / sqrt(N), and the spectra with the FFT."""
    desk = Desk.of(model)
    note = Explanation(
        "dft-net",
        "A linear layer has learned the discrete Fourier transform",
        SOURCE,
        desk.backend,
        desk.dtype,
        ["X = U x    U = W / sqrt(N)    W_kj = e^(-2 pi i k j / N)"],
    )
    ortho = as_real(dft_matrix(POINTS)) / math.sqrt(POINTS)
    note.agree("U", "learned - W / sqrt(N)", values(model.linear.weight), ortho, 1e-5)
    x = np.asarray(splits.test.x, np.float64)
    signals = x[:, :POINTS] + 1j * x[:, POINTS:]
    found = values(model(desk.tensor(x)))
    for convention, power in CONVENTIONS.items():
        factor = float(POINTS) ** (power - CONVENTIONS["ortho"])
        expected = side_by_side(np.fft.fft(signals, norm=convention))
        # Spectra are compared by their size: unnormalised ones are sqrt(N) times as large.
        size = max(1.0, float(np.abs(expected).max()))
        note.agree(
            "X_k", f"{convention}: learned net, times {factor:g} - FFT, over the largest",
            found * factor / size, expected / size, 1e-5,
        )  # fmt: skip
    rows = np.arange(POINTS)
    note.figure = Figure(
        "Learned weights of X_1 and X_3, real part",
        "j",
        "weight of Re x_j",
        [Curve(f"X_{k}", rows, values(model.linear.weight)[k, :POINTS]) for k in (1, 3)],
    )
    return note


@system(
    "dft-net",
    family="function network",
    year=1805,
    source=SOURCE,
    summary="a linear layer learns the discrete Fourier transform from signals and spectra",
    data=spectra,
    loss=half_squared_error,
    metrics=(),
    optimizer="sgd",
    lr=0.4,
    batch_size=100,
    epochs=10,
    explain=explain_dft,
    shows=shows_dft,
)
def build_dft() -> DftNet:
    """Return the layer for 16 complex points, with random weights."""
    return DftNet(POINTS)
