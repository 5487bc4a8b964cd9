"""Geometry of kernels over rows: which team of include/rows.h does a row, in how many blocks."""

from __future__ import annotations

from dataclasses import dataclass

from trine.kernels.cuda.launch import blocks

WARPS = 8
"""Rows of a block of warps."""

LONGEST_WARP_ROW = 1024
COLUMNS, COLUMN_THREADS = 32, 8
FEW_CHANNELS = 8
MANY_BLOCKS = 1024
"""Enough blocks for any GPU of today to be full; rows are cut into chunks until there are as many."""

CHUNK_BLOCK, CHUNK_COLUMN = 4096, 256
"""The fewest positions that a chunk is worth, for a block and for a block of columns."""

MAX_CHUNKS = 1024


@dataclass(frozen=True)
class Team:
    """Who works on rows: a type of include/rows.h and its geometry."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    chunks: int = 1
    """Into how many parts each row is cut, along y of the grid."""


def row_team(rows: int, length: int, step: int = 1) -> Team:
    """Return the team for rows whose elements lie `step` apart, all of a row by one team."""
    if step > 1:
        return Team("ColumnRow", blocks(rows, COLUMNS), (COLUMNS, COLUMN_THREADS))
    if length <= LONGEST_WARP_ROW:
        return Team("WarpRow", blocks(rows, WARPS), (32 * WARPS,))
    return Team("BlockRow", blocks(rows, 1), (256 if length <= 8192 else 512,))


def chunked_team(rows: int, length: int, step: int) -> Team:
    """Return the team for reducing rows, cut into chunks where whole rows leave a GPU idle.

    `step` lies between neighbouring positions of a row, in elements.
    """
    team = row_team(rows, length, step)
    worth = CHUNK_COLUMN if team.name == "ColumnRow" else CHUNK_BLOCK
    most = min(MAX_CHUNKS, max(1, MANY_BLOCKS // team.grid[0]))
    chunks = max(1, min(most, length // worth))
    return Team(team.name, (team.grid[0], chunks), team.block, chunks)


def channel_team(count: int, channels: int, inner: int, outer: int = 1) -> Team:
    """Return the team for reducing (outer, count, channels, inner) over count and inner, in chunks."""
    # Planes of fewer elements than a warp are read across channels, whose elements are neighbours,
    # unless there are so few that most lanes would stand idle.
    together = channels < FEW_CHANNELS or inner >= COLUMNS
    return chunked_team(outer * channels, count * inner, 1 if together else inner * channels)
