"""`lenet5-1998`: LeNet-5 as its paper has it, 60,000 trainable parameters.

    28x28, two pixels of border -> 32x32; black ink becomes 1.175, white paper -0.1
    C1   6 maps 28x28, 5x5                                    156
    S2   6 maps 14x14, f(c_k sum of a 2x2 window + b_k)        12
    C3   16 maps 10x10, 5x5, each from some maps of S2      1,516
    S4   16 maps 5x5, as S2                                    32
    C5   120 maps 1x1, 5x5                                 48,120
    F6   84                                                10,164
    RBF  10: y_i = sum_j (x_j - w_ij)^2, w_i a fixed picture of digit i, 7x12 cells of -1 and +1

Layers up to F6 pass on f(a) = 1.7159 tanh(2a/3). The cost is the paper's equation 9,

    C = y_D + log(e^-j + sum_i e^-y_i),    D the right class, j > 0:

the distance from the right picture, and a second part that pushes wrong classes away; e^-j stands
for what is no digit. The net returns -y, so that the largest score names the class.

Weights start with the deviation 1 / sqrt(F) of F inputs, as "Efficient BackProp" (LeCun, Bottou, Orr
and Muller, 1998) asks for this very f. The paper's own [-2.4/F, 2.4/F) lets the states of C5 and F6
begin near 0; on Fashion-MNIST ten epochs ended at 89.1 % from it and at 89.8 % from this one (seed 0).
"""

from __future__ import annotations

import numpy as np

import trine
import trine.functional as F
from trine import nn
from trine.models.registry import system

AMPLITUDE, SLOPE = 1.7159, 2.0 / 3.0
PAPER, INK = -0.1, 1.175
"""What 0 and 1 become, so that pixels have a mean of about 0 and a variance of about 1."""
RUBBISH = 0.1
"""The j of the cost."""

SEEN_BY = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip
"""Table I of the paper: which maps of S2 each map of C3 sees, 60 kernels in all."""

PICTURES = """
..###.. ...##.. .#####. .#####. .....#. ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ....##. ##..... .##.... ##...## ##...## ##...##
##...## .####.. ##...## .....## ...###. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## ..####. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. .....## ....##. .##.##. ######. ##..... ....##. .##.##. ##...##
##...## ...##.. ....##. ..####. ##..##. ##...## ######. ...##.. ..###.. ##..###
##...## ...##.. ...##.. ....##. ##..##. .....## ##...## ...##.. .##.##. .####.#
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## ....##. .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ....##. ##...## .##.##. ..##... ##...## ....##.
..###.. .###### ####### .#####. ....##. .#####. ..###.. ..##... .#####. .####..
"""
"""The ten digits side by side, twelve lines of seven cells each."""


def pictures() -> np.ndarray:
    """Return the codes of the output units, (10, 84) of -1 and +1."""
    lines = [line.split() for line in PICTURES.split("\n") if line.strip()]
    cells = [[list(lines[row][digit]) for row in range(12)] for digit in range(10)]
    return np.where(np.array(cells) == "#", 1.0, -1.0).reshape(10, 84).astype(np.float32)


def squash(a: trine.Tensor) -> trine.Tensor:
    """Return f(a) = 1.7159 tanh(2a/3), which has f(1) = 1 and f(-1) = -1."""
    return (a * SLOPE).tanh() * AMPLITUDE


def limit(fan_in: int) -> float:
    """Return sqrt(3/F): weights drawn evenly up to it have the deviation 1/sqrt(F)."""
    return float((3.0 / fan_in) ** 0.5)


def start_(layer: nn.Module, fan_in: int) -> None:
    """Draw the weights of units of F inputs from [-sqrt(3/F), sqrt(3/F))."""
    nn.init.uniform_(layer.weight, -limit(fan_in), limit(fan_in))
    nn.init.zeros_(layer.bias)


class Subsampling(nn.Module):
    """Sums of 2x2 windows, times a coefficient of the map, plus a bias: both are learned."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(trine.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(trine.zeros(channels, 1, 1))

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """(N, C, H, W) -> (N, C, H/2, W/2)."""
        return F.avg_pool2d(x, 2, divisor_override=1) * self.weight + self.bias


class TableConv(nn.Module):
    """A 5x5 convolution in which each output map sees only the input maps of a table.

    weight: (kernels, 25), one row for each entry of the table in its order; bias: (maps,).
    """

    def __init__(self, table: tuple[tuple[int, ...], ...], in_channels: int) -> None:
        super().__init__()
        sizes = np.array([len(seen) for seen in table])
        kernels = int(sizes.sum())
        self.weight = nn.Parameter(trine.zeros(kernels, 25))
        self.bias = nn.Parameter(trine.zeros(len(table)))
        rows = np.full((len(table), in_channels), kernels)  # the row of zeros: not seen
        rows[np.repeat(np.arange(len(table)), sizes), np.concatenate(table)] = np.arange(kernels)
        self.register_buffer("rows", trine.tensor(rows), persistent=False)
        limits = np.repeat([limit(25 * size) for size in sizes], sizes)
        nn.init.uniform_(self.weight, -1.0, 1.0)
        with trine.no_grad():
            self.weight.mul_(trine.tensor(limits[:, None], dtype=self.weight.dtype))

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """(N, C, H, W) -> (N, maps, H - 4, W - 4)."""
        with_zeros = F.pad(self.weight, (0, 0, 0, 1))
        kernels = F.embedding(self.rows, with_zeros).reshape(*self.rows.shape, 5, 5)
        return F.conv2d(x, kernels, self.bias)


class LeNet1998(nn.Module):
    """The net of the paper for images (N, 1, 28, 28) of 0 (paper) to 1 (ink)."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = TableConv(SEEN_BY, 6)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.register_buffer("codes", trine.tensor(pictures()))
        for layer, fan_in in ((self.c1, 25), (self.c5, 400), (self.f6, 120)):
            start_(layer, fan_in)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return (N, 10), minus the squared distances from the ten pictures."""
        x = F.pad(x * (INK - PAPER) + PAPER, (2, 2, 2, 2), value=PAPER)
        x = squash(self.s2(squash(self.c1(x))))
        x = squash(self.s4(squash(self.c3(x))))
        x = squash(self.c5(x)).flatten(1)
        x = squash(self.f6(x))
        return -(x.unsqueeze(1) - self.codes).square().sum(2)


def map_cost(scores: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
    """Return equation 9 of the paper as a mean over scores -y (N, 10) and their classes (N,).

    It is the cross-entropy of eleven classes, of which the last, rubbish, has the score -j and is
    never right.
    """
    return F.cross_entropy(F.pad(scores, (0, 1), value=-RUBBISH), target)


@system(
    "lenet5-1998",
    family="convolutional",
    year=1998,
    source="source notes 001; LeCun et al., Gradient-based learning applied to document recognition",
    summary="LeNet-5 as published: table of connections, trained subsampling, RBF output, 60,000",
    data="digits",
    loss=map_cost,
    optimizer="adam",
    lr=2e-3,
    schedule="cosine",
    batch_size=32,
    epochs=25,
    expected={"test_accuracy": 0.975},
)
def build() -> LeNet1998:
    """Return the net at its start."""
    return LeNet1998()
