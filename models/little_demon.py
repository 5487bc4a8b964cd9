"""`little-demon`: three filters, 69 parameters, and 6x6 images of 1, 2 and 3."""

from __future__ import annotations

from itertools import combinations

import numpy as np

import trine
from trine import nn
from trine.data import Splits
from trine.models.desk import (
    Desk,
    draw_order,
    flipped,
    half_squared_error,
    made_splits,
    one_hot,
    values,
)
from trine.models.explanation import Explanation
from trine.models.registry import system

SOURCE = "source notes 000 and 004"
IMAGES = 96

_STROKES = {
    1: ("..#...", ".##...", "..#...", "..#...", "..#...", ".###.."),
    2: (".###..", "#...#.", "...#..", "..#...", ".#....", "#####."),
    3: (".###..", "#...#.", "..##..", "....#.", "#...#.", ".###.."),
}


def template(digit: int) -> np.ndarray:
    """Return the clean 6x6 image of 1, 2 or 3."""
    return np.array([[c == "#" for c in row] for row in _STROKES[digit]], dtype=np.float32)


def images() -> Splits:
    """Make the images: each digit at its place or one cell to the right, up to two cells flipped.

    Of the 2 (1 + 36 + 630) images of each digit a fixed permutation gives 32 for training and 32
    for the test, no image twice; the digits take turns. Classes 0, 1, 2 stand for 1, 2, 3.
    """
    flips = [cells for n in range(3) for cells in combinations(range(36), n)]
    drawn = []
    for digit in (1, 2, 3):
        order = draw_order(f"little-demon {digit}", 2 * len(flips))[: 2 * IMAGES // 3]
        places = [np.roll(template(digit), shift, axis=1) for shift in (0, 1)]
        drawn.append([flipped(places[k % 2], flips[k // 2]) for k in order])
    x = np.stack([drawn[i % 3][i // 3] for i in range(2 * IMAGES)])[:, None]
    y = np.arange(2 * IMAGES, dtype=np.int64) % 3
    about = "6x6 images of 1, 2 and 3, shifted by up to one cell, up to two cells flipped"
    return made_splits("little-demon", x, y, train=IMAGES, num_classes=3, description=about)


class LittleDemon(nn.Module):
    """Three 3x3 filters, logistic, 2x2 maximum, three logistic outputs: 69 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.pool = nn.MaxPool2d(2)
        self.output = nn.Linear(12, 3)

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        maps = self.conv(x).sigmoid()
        return self.output(self.pool(maps).flatten(1)).sigmoid()


def explain(backend: str = "numpy", dtype: str = "float64") -> Explanation:
    """Follow one image through the network and check the gradients by the source's sums."""
    desk = Desk(backend, dtype)
    note = Explanation(
        "little-demon",
        "The little demon: convolution, pooling and their errors by hand",
        SOURCE,
        backend,
        dtype,
        [
            "z_ij = sum_rs w_rs x_(i+r)(j+s) + b      a = s(z)       6x6 -> 4x4",
            "p = max of each 2x2 window                              4x4 -> 2x2",
            "out_k = s(sum w a_p + b_k)      C = 1/2 sum (t - out)^2",
            "delta_out = (out - t) out (1 - out)",
            "delta_conv = W^T delta_out at the maximum of the window, 0 elsewhere, times a (1 - a)",
            "dC/dw_rs = sum_ij delta_ij x_(i+r)(j+s)      dC/db = sum_ij delta_ij",
        ],
    )
    model = LittleDemon()
    desk.place(model)
    x = desk.tensor(template(2)[None, None])
    z = model.conv(x)
    z.retain_grad()
    a = z.sigmoid()
    pooled = model.pool(a)
    out = model.output(pooled.flatten(1)).sigmoid()
    target = one_hot(desk.integers([1]), 3, out)
    half_squared_error(out, target).backward()

    image, maps, o = template(2).astype(np.float64), values(a)[0], values(out)[0]
    delta_out = (o - values(target)[0]) * o * (1.0 - o)
    back = (values(model.output.weight).T @ delta_out).reshape(3, 2, 2)
    delta = np.zeros_like(maps)
    for f, i, j in np.ndindex(3, 2, 2):
        window = maps[f, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        r, s = np.unravel_index(window.argmax(), (2, 2))
        delta[f, 2 * i + r, 2 * j + s] = back[f, i, j]
    delta *= maps * (1.0 - maps)
    by_sum = np.zeros((3, 3, 3))
    for r, s in np.ndindex(3, 3):
        by_sum[:, r, s] = (delta * image[r : r + 4, s : s + 4]).sum(axis=(1, 2))
    note.agree("delta_conv", "error by hand - autograd", delta, values(z.grad)[0])
    note.agree(
        "dC/dw", "sum_ij delta_ij x_(i+r)(j+s) - autograd", by_sum,
        values(model.conv.weight.grad)[:, 0],
    )  # fmt: skip
    note.agree(
        "dC/db", "sum_ij delta_ij - autograd", delta.sum(axis=(1, 2)), values(model.conv.bias.grad)
    )
    note.agree(
        "dC/dW", "delta_out p^T - autograd", np.outer(delta_out, values(pooled).ravel()),
        values(model.output.weight.grad),
    )  # fmt: skip
    note.matrices["x, a clean 2"] = template(2)
    note.matrices["map of filter 1"] = maps[0]
    note.matrices["its maxima"] = values(pooled)[0, 0]
    note.matrices["delta of filter 1"] = delta[0]
    return note


@system(
    "little-demon",
    family="worked example",
    year=1989,
    source=SOURCE,
    summary="6x6 images of 1, 2, 3 by three filters and a 2x2 maximum: 69 parameters, 96 images",
    data=images,
    loss=half_squared_error,
    optimizer="adam",
    lr=0.1,
    batch_size=32,
    epochs=60,
    expected={"test_accuracy": 0.95},
    explain=explain,
)
def build() -> LittleDemon:
    """Return the network at PyTorch's default start."""
    return LittleDemon()
