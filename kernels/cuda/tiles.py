"""How products are cut into tiles: static rules by shape, shared by all that include gemm_tile.h."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trine.kernels.cuda.launch import MAX_BLOCKS, Launches
from trine.kernels.registry import KERNEL_DTYPES, cuda_kernel

MANY_BLOCKS = 132
"""About as many blocks as keep a GPU busy (an H200 has as many multiprocessors)."""

SPLIT_DEPTH = 256
"""The least depth of a product's split: below, adding the parts costs more than it brings."""

MAX_SPLITS = 64

MAX_INDEX = 2**31 - 1 - 1024
"""Rows, columns and depths that kernels count in 32 bits, which a tile may exceed by its own size."""


@dataclass(frozen=True)
class Tile:
    """A `Tile` of gemm_tile.h by its name there."""

    name: str
    rows: int
    columns: int
    threads: int

    def blocks(self, rows: int, columns: int) -> int:
        """Return how many tiles cover a matrix."""
        return -(-rows // self.rows) * -(-columns // self.columns)

    def grid(self, op: str, rows: int, columns: int, layers: int) -> tuple[int]:
        """Return the grid of so many matrices; raises ValueError beyond what a grid can have."""
        blocks = self.blocks(rows, columns) * layers
        if blocks > MAX_BLOCKS:
            raise ValueError(
                f"[{op}] expected a product of at most {MAX_BLOCKS} tiles, got {blocks} for {layers} "
                f"of {rows} x {columns}. Use a smaller batch."
            )
        return (blocks,)


def check(op: str, **counts: int) -> None:
    """Raise ValueError for a count, such as output_pixels=n, that the kernels cannot index."""
    for name, count in counts.items():
        if count > MAX_INDEX:
            raise ValueError(
                f"[{op}] expected at most {MAX_INDEX} {name.replace('_', ' ')}, got {count}. Use a "
                "smaller batch or smaller images."
            )


LARGE = Tile("Large", 128, 128, 256)
SMALL = Tile("Small", 64, 64, 256)
STEP = Tile("Step", 16, 32, 64)

TILES = {
    "fp32": (LARGE, SMALL, STEP),
    "tf32": (
        Tile("LargeTF32", 128, 128, 256), Tile("SmallTF32", 64, 64, 128), Tile("StepTF32", 32, 32, 64),
    ),
    "bf16": (
        Tile("LargeBF16", 128, 128, 256), Tile("SmallBF16", 64, 64, 128), Tile("StepBF16", 32, 32, 64),
    ),
}  # fmt: skip
"""Precision -> the large tile, the small one and that of a recurrent step."""


def choose(rows: int, columns: int, layers: int = 1, precision: str = "fp32") -> Tile:
    """Return the larger tile where it makes blocks enough: it loads less for each product."""
    large, small, _ = TILES[precision]
    return large if large.blocks(rows, columns) * layers >= MANY_BLOCKS else small


def splits_of(tile: Tile, rows: int, columns: int, depth: int, layers: int = 1) -> int:
    """Return into how many parts the depth is cut, where tiles alone leave the GPU idle."""
    blocks = tile.blocks(rows, columns) * layers
    wanted = MANY_BLOCKS // max(blocks, 1)
    return max(1, min(wanted, depth // SPLIT_DEPTH, MAX_SPLITS))


def in_every_precision(
    op: str,
    *,
    name: str,
    source: str,
    function: str,
    make: Callable[[str], Callable[..., Launches]],
    **options: Any,
) -> None:
    """Register the variants of a kernel of products: `name`, and `name_tf32` and `name_bf16`.

    `make` gives the launch function of a precision; SMALL and STEP in `function` stand for its
    tiles. Tensor cores take float32 only.
    """
    for precision, (_, small, step) in TILES.items():
        exact = precision == "fp32"
        cuda_kernel(
            op,
            name=name if exact else f"{name}_{precision}",
            source=source,
            function=function.replace("SMALL", small.name).replace("STEP", step.name),
            launch=make(precision),
            dtypes=KERNEL_DTYPES if exact else ("float32",),
            precision=precision,
            **options,
        )
