"""`bam`: a memory of pairs of patterns, read from either side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import trine
from trine import nn
from trine.data import Splits
from trine.models.desk import Desk, made_splits, values
from trine.models.explanation import Explanation
from trine.models.figures import Images
from trine.models.hopfield import decided, overlap_loss, random_patterns, with_flips
from trine.models.registry import system

SOURCE = "source notes 001; Kosko, Bidirectional associative memories, 1988"
LETTERS = {
    "T": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    "X": "#...# #...# .#.#. ..#.. .#.#. #...# #...#",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "O": ".###. #...# #...# #...# #...# #...# .###.",
}
CODE = 16


class BAM(nn.Learner):
    """Kosko's memory of pairs: W = sum_mu y^mu x^mu^T, y <- sign(W x), x <- sign(W^T y), and again.

    E = -y^T W x never rises, whatever W is.
    """

    def __init__(self, units_x: int, units_y: int, rounds: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(trine.zeros(units_y, units_x))
        self.rounds = rounds

    def forward(self, x: trine.Tensor) -> trine.Tensor:
        """Return the y (n, units_y) in which a recall from x (n, units_x) ends."""
        *_, (_, y) = self.recall(x=x)
        return y

    def backward_recall(self, y: trine.Tensor) -> trine.Tensor:
        """Return the x in which a recall from y ends."""
        *_, (x, _) = self.recall(y=y)
        return x

    def recall(
        self, *, x: trine.Tensor | None = None, y: trine.Tensor | None = None
    ) -> Iterator[tuple[trine.Tensor, trine.Tensor]]:
        """Start from one side, the other being 0, and yield (x, y) after each side's change."""
        given = x if x is not None else y
        units_y, units_x = self.weight.shape
        like = {"dtype": given.dtype, "backend": given.backend}
        if x is None:
            x = trine.zeros(len(given), units_x, **like)
        if y is None:
            y = trine.zeros(len(given), units_y, **like)
        from_x = given is x
        with trine.no_grad():
            for half in range(2 * self.rounds):
                if (half % 2 == 0) == from_x:
                    y = decided(x @ self.weight.T, y)
                else:
                    x = decided(y @ self.weight, x)
                yield x, y

    def learn(self, input: trine.Tensor, target: trine.Tensor) -> trine.Tensor:
        """Store a batch of pairs; returns what y was before, by one product."""
        with trine.no_grad():
            output = (input @ self.weight.T).sign()
            self.descend(self.weight, -(target.T @ input))
            return output


def letter_pairs() -> Splits:
    """Return four 7x5 letters with orthogonal codes of 16 units; for the test two cells are flipped."""
    letters = np.stack(
        [
            np.array([1.0 if cell == "#" else -1.0 for cell in text.replace(" ", "")])
            for text in LETTERS.values()
        ]
    ).astype(np.float32)
    unit = np.arange(CODE)
    codes = np.stack([np.where(unit >> bit & 1, -1.0, 1.0) for bit in range(len(LETTERS))])
    x = np.concatenate([letters, with_flips(letters, "bam flips", 2 / letters.shape[1])])
    y = np.tile(codes, (2, 1)).astype(np.float32)
    about = "7x5 letters T, X, L, O and their codes; for the test two cells of each are flipped"
    return made_splits("letter-pairs", x, y, train=len(LETTERS), description=about)


def show_bam(model: nn.Module, splits: Splits) -> Explanation:
    """Recall codes from letters and letters from codes; follow the energy."""
    desk = Desk.of(model)
    note = Explanation(
        "bam", "A memory of pairs, read in both directions", SOURCE,
        desk.backend, desk.dtype,
        [
            "W = sum_mu y^mu x^mu^T      y <- sign(W x)      x <- sign(W^T y)      until nothing changes",
            "E = -y^T W x never rises",
        ],
    )  # fmt: skip
    letters = np.asarray(splits.train.x, np.float64)
    codes = np.asarray(splits.train.y, np.float64)
    noisy = desk.tensor(splits.test.x)
    note.agree(
        "y", "recalled from the letters - stored", values(model(desk.tensor(letters))), codes
    )
    back = values(model.backward_recall(desk.tensor(codes)))
    note.agree("x", "recalled from the codes - stored", back, letters)
    note.agree(
        "y", "recalled from letters with two cells flipped - stored", values(model(noisy)), codes
    )
    *_, (repaired, _) = model.recall(x=noisy)
    note.agree("x", "the flipped letters, repaired - stored", values(repaired), letters)
    weight = values(model.weight)
    start = random_patterns("bam start", (64, letters.shape[1]))
    rises = [
        -np.einsum("ny,yx,nx->n", values(y), weight, values(x))
        for x, y in model.recall(x=desk.tensor(start))
    ]
    note.at_most(
        "dE", "largest rise in recalls from 64 random states", np.diff(rises, axis=0).max(), 0.0
    )
    note.drawings["recall"] = Images(
        "A bidirectional associative memory",
        {
            "start: two cells flipped": values(noisy).reshape(-1, 7, 5),
            "code recalled from it": values(model(noisy)).reshape(-1, 4, 4),
            "letter recalled from the code alone": back.reshape(-1, 7, 5),
        },
    )
    return note


@system(
    "bam",
    family="associative memory",
    year=1988,
    source=SOURCE,
    summary="four letters and their codes, each recalled from the other",
    data=letter_pairs,
    loss=overlap_loss,
    metrics=(),
    lr=1.0,
    batch_size=len(LETTERS),
    epochs=1,
    shows=show_bam,
)
def build_bam() -> BAM:
    """Return a memory of 35 and 16 units that has stored nothing yet."""
    return BAM(35, CODE)
