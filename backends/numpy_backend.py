"""The NumPy backend: the reference itself, readable and always there."""

from __future__ import annotations

import numpy as np

from trine.backends.base import Backend


class NumpyBackend(Backend):
    """The reference on the CPU by NumPy."""

    name = "numpy"
    device = "cpu"

    def __init__(self) -> None:
        super().__init__(np)
