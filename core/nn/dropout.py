"""Dropout."""

from __future__ import annotations

import trine.functional as F
from trine import random
from trine.nn.checks import require_probability
from trine.nn.module import Module
from trine.tensor import Tensor


class Dropout(Module):
    """In training, sets elements to zero with probability p and divides the others by 1 - p.

    Masks come from the default generator in the stream ("dropout", path of this module): two
    dropouts of a model never share one, and every backend draws the same.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        require_probability("Dropout", p)
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements in training; return the input in evaluation."""
        if not self.training or self.p == 0:
            return input
        key = random.default_generator().key(self.stream("dropout"))
        return F.dropout(input, self.p, True, key)

    def extra_repr(self) -> str:
        """The probability of a zero."""
        return f"p={self.p}"
