"""`cnn-003`: the convolutional network of source notes 003, with every error formula written out.

    28x28x3 -> conv 5x5 -> 6 maps 24x24 -> average 2x2 -> conv 5x5 -> 12 maps 8x8 -> average 2x2
            -> 192 -> full -> 10,  logistic throughout,  C = 1/2 sum (h - y)^2

The functions below are the formulas (3-9) to (3-17) in order, from the output back to the first
filters, as plain sums over NumPy arrays of one image: maps (C, H, W), kernels (K, C, 5, 5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import trine
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, draw_normal, half_squared_error, made_splits, one_hot, values
from trine.models.explanation import Explanation
from trine.models.registry import system
from trine.random import integers, make_key, stream_id, uniform

SOURCE = "source notes 003, equations 3-5 to 3-17"
Maps = npt.NDArray[np.float64]


def output_delta(h: Maps, y: Maps) -> Maps:
    """Return dC/dz of the output (10,): (h - y) (.) h (1 - h)."""
    return (h - y) * h * (1.0 - h)


def full_weight_gradient(delta: Maps, f: Maps) -> Maps:
    """Return dC/dW of the full layer (10, 192): delta f^T."""
    return np.outer(delta, f)


def full_bias_gradient(delta: Maps) -> Maps:
    """Return dC/db of the full layer (10,): delta."""
    return delta


def feature_error(weight: Maps, delta: Maps, shape: tuple[int, ...]) -> Maps:
    """Return dC/df of the 192 features as the maps they came from: W^T delta."""
    return (weight.T @ delta).reshape(shape)


def spread_error(error: Maps, size: int = 2) -> Maps:
    """Return dC/da in front of average pooling: each error shared evenly by its window."""
    return np.kron(error, np.ones((1, size, size))) / size**2


def logistic_delta(error: Maps, a: Maps) -> Maps:
    """Return dC/dz of a logistic layer: dC/da (.) a (1 - a)."""
    return error * a * (1.0 - a)


def kernel_gradient(x: Maps, delta: Maps) -> Maps:
    """Return dC/dk (K, C, R, S): the cross-correlation sum_ij x_c(i+r)(j+s) delta_kij."""
    rows, columns = delta.shape[1:]
    size_r, size_s = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    gradient = np.zeros((delta.shape[0], x.shape[0], size_r, size_s))
    for r, s in np.ndindex(size_r, size_s):
        window = x[:, r : r + rows, s : s + columns]
        gradient[:, :, r, s] = np.einsum("kij,cij->kc", delta, window)
    return gradient


def conv_bias_gradient(delta: Maps) -> Maps:
    """Return dC/db of a convolution (K,): the sum of delta over its map."""
    total: Maps = delta.sum(axis=(1, 2))
    return total


def input_error(delta: Maps, kernels: Maps) -> Maps:
    """Return dC/dx of a convolution (C, H, W).

    delta, padded by F - 1 zeros, convolved with the kernels turned by 180 degrees, summed over
    the maps k: sum_k sum_rs delta_k(i-r)(j-s) w_kcrs.
    """
    size_r, size_s = kernels.shape[2:]
    border = ((0, 0), (size_r - 1, size_r - 1), (size_s - 1, size_s - 1))
    padded = np.pad(delta, border)
    turned = kernels[:, :, ::-1, ::-1]
    rows, columns = delta.shape[1] + size_r - 1, delta.shape[2] + size_s - 1
    error = np.zeros((kernels.shape[1], rows, columns))
    for r, s in np.ndindex(size_r, size_s):
        window = padded[:, r : r + rows, s : s + columns]
        error += np.einsum("kij,kc->cij", window, turned[:, :, r, s])
    return error


class Cnn003(nn.Module):
    """Two logistic convolutions with average pooling and a full logistic layer: 4,198 parameters.

    The convolutions start with four times Glorot's weights, since the logistic function's slope is
    at most 1/4; from PyTorch's start the net stays at 10% for several epochs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 12, 5)
        self.pool = nn.AvgPool2d(2)
        self.full = nn.Linear(192, 10)
        for layer, gain in ((self.conv1, 4.0), (self.conv2, 4.0), (self.full, 1.0)):
            nn.init.xavier_uniform_(layer.weight, gain=gain)
            nn.init.zeros_(layer.bias)

    def trace(self, x: trine.Tensor) -> dict[str, trine.Tensor]:
        """Return every layer's weighted input z and output for images (N, 3, 28, 28)."""
        z1 = self.conv1(x)
        c1 = z1.sigmoid()
        s1 = self.pool(c1)
        z2 = self.conv2(s1)
        c2 = z2.sigmoid()
        s2 = self.pool(c2)
        f = s2.flatten(1)
        z3 = self.full(f)
        return {"z1": z1, "c1": c1, "s1": s1, "z2": z2, "c2": c2, "s2": s2, "f": f, "z3": z3,
                "h": z3.sigmoid()}  # fmt: skip

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        return self.trace(x)["h"]


SEGMENTS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
"""The bars that are lit for 0 to 9: a top, b c right, d bottom, e f left, g middle."""

_BARS = {
    "a": (slice(0, 3), slice(0, 11)),
    "b": (slice(0, 10), slice(8, 11)),
    "c": (slice(8, 18), slice(8, 11)),
    "d": (slice(15, 18), slice(0, 11)),
    "e": (slice(8, 18), slice(0, 3)),
    "f": (slice(0, 10), slice(0, 3)),
    "g": (slice(8, 11), slice(0, 11)),
}


def colour_digits(train: int = 2000, test: int = 500) -> Splits:
    """Make RGB images (N, 3, 28, 28) of 0 to 9 in seven bars of three pixels' width, 18 x 11.

    Image i shows digit i % 10 at row 5 and column 8, moved by -2 to 2 both ways, in a random
    colour (each channel 0.4 to 1) on black, plus normal noise of deviation 0.1.
    """
    n = train + test
    key = [make_key(0, stream_id("cnn-003"), draw) for draw in range(3)]
    moves = integers(key[0], -2, 3, (n, 2))
    colours = 0.4 + 0.6 * uniform(key[1], (n, 3))
    x = 0.1 * draw_normal("cnn-003 noise", (n, 3, 28, 28)).astype(np.float32)
    y = np.arange(n, dtype=np.int64) % 10
    glyphs = np.zeros((10, 18, 11), dtype=np.float32)
    for digit, lit in enumerate(SEGMENTS):
        for bar in lit:
            glyphs[digit][_BARS[bar]] = 1.0
    for i in range(n):
        top, left = 5 + moves[i, 0], 8 + moves[i, 1]
        x[i, :, top : top + 18, left : left + 11] += colours[i, :, None, None] * glyphs[y[i]]
    about = "RGB 28x28 images of digits in seven bars, random place and colour, with noise"
    return made_splits("colour-digits", x, y, train=train, num_classes=10, description=about)


def by_formulas(net: dict[str, Maps], state: dict[str, Maps], y: Maps) -> dict[str, Maps]:
    """Return all errors and gradients for one image by the formulas (3-9) to (3-17)."""
    g: dict[str, Maps] = {}
    g["z3"] = output_delta(net["h"], y)
    g["full.weight"] = full_weight_gradient(g["z3"], net["f"])
    g["full.bias"] = full_bias_gradient(g["z3"])
    g["s2"] = feature_error(state["full.weight"], g["z3"], net["s2"].shape)
    g["c2"] = spread_error(g["s2"])
    g["z2"] = logistic_delta(g["c2"], net["c2"])
    g["conv2.weight"] = kernel_gradient(net["s1"], g["z2"])
    g["conv2.bias"] = conv_bias_gradient(g["z2"])
    g["s1"] = input_error(g["z2"], state["conv2.weight"])
    g["c1"] = spread_error(g["s1"])
    g["z1"] = logistic_delta(g["c1"], net["c1"])
    g["conv1.weight"] = kernel_gradient(net["x"], g["z1"])
    g["conv1.bias"] = conv_bias_gradient(g["z1"])
    return g


_FORMULAS = {
    "z3": "(h - y) (.) h (1 - h)",
    "full.weight": "delta f^T",
    "full.bias": "delta",
    "s2": "W^T delta, reshaped to 12 maps 4x4",
    "c2": "each error / 4 to the four cells of its window",
    "z2": "error (.) c2 (1 - c2)",
    "conv2.weight": "sum_ij delta_ij s1_(i+r)(j+s)",
    "conv2.bias": "sum_ij delta_ij",
    "s1": "delta padded by 4, with kernels turned by 180 degrees, over 12 maps",
    "c1": "each error / 4 to the four cells of its window",
    "z1": "error (.) c1 (1 - c1)",
    "conv1.weight": "sum_ij delta_ij x_(i+r)(j+s)",
    "conv1.bias": "sum_ij delta_ij",
}


def explain(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Compare every error formula with autograd on one image."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "cnn-003",
        "Back-propagation through convolution and average pooling",
        SOURCE,
        backend,
        dtype,
        [
            "z_k = sum_c x_c * k_kc + b_k (cross-correlation)      c = s(z)      s = mean of 2x2",
            "18 and 72 kernels 5x5: 3*6*25 + 6 + 6*12*25 + 12 + 192*10 + 10 = 4198 parameters",
            "C = 1/2 sum_j (h_j - y_j)^2",
        ],
    )
    model = Cnn003()
    desk.place(model)
    x = colour_digits(10, 10).train.x[3:4]
    net = model.trace(desk.tensor(x))
    for tensor in net.values():
        tensor.retain_grad()
    target = one_hot(desk.integers([3]), 10, net["h"])
    cost = half_squared_error(net["h"], target)
    cost.backward()
    note.show("C", "1/2 sum (h - y)^2", cost.item())
    seen = {name: values(tensor)[0] for name, tensor in net.items()}
    seen["x"] = np.asarray(x[0], dtype=np.float64)
    state = {name: values(p) for name, p in model.named_parameters()}
    expected: dict[str, Any] = {name: p.grad for name, p in model.named_parameters()}
    for name, formula in by_formulas(seen, state, values(target)[0]).items():
        found = values(expected[name]) if name in expected else values(net[name].grad)[0]
        note.agree(f"dC/d{name}", _FORMULAS[name], formula, found)
    note.matrices["kernel 1, red"] = state["conv1.weight"][0, 0]
    note.matrices["h"] = seen["h"]
    return note


@system(
    "cnn-003",
    family="convolutional",
    year=1989,
    source=SOURCE,
    summary="two logistic convolutions with average pooling on RGB 28x28: 4,198 parameters",
    data=colour_digits,
    loss=half_squared_error,
    optimizer="adam",
    lr=0.01,
    batch_size=25,
    epochs=6,
    expected={"test_accuracy": 0.95},
    explain=explain,
)
def build() -> Cnn003:
    """Return the network at its start."""
    return Cnn003()
