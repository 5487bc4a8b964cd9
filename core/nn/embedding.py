"""The embedding layer."""

from __future__ import annotations

import numpy.typing as npt

import trine.functional as F
from trine.backends import Backend
from trine.nn import init
from trine.nn.checks import require_positive
from trine.nn.module import Module
from trine.nn.parameter import new_parameter
from trine.tensor import Tensor


class Embedding(Module):
    """A table whose rows stand for numbers 0 to num_embeddings - 1; starts from N(0, 1).

    Integers (...) -> (..., embedding_dim). The row `padding_idx` starts as zeros and gets no
    gradient; a negative one counts from the end.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: npt.DTypeLike | None = None,
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__()
        require_positive("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"[Embedding] expected padding_idx below {num_embeddings}, got {padding_idx}. Name a "
                "row of the table."
            )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = new_parameter((num_embeddings, embedding_dim), dtype=dtype, backend=backend)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            backend = self.weight.backend
            backend.assign(self.weight.data[self.padding_idx], 0.0)

    def forward(self, input: Tensor) -> Tensor:
        """Look the rows up."""
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Sizes and the padding row."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
