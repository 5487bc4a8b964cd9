"""The rules by shape that all launches share: blocks of work, teams of rows and chunks, tiles and splits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trine.kernels.cuda import convolution, pooling, reductions, regions, rows, tiles
from trine.kernels.cuda.launch import blocks


def test_blocks():
    assert [blocks(n, 256) for n in (0, 1, 256, 257, 512)] == [(1,), (1,), (1,), (2,), (2,)]
    assert blocks(2**40, 32) == (2**31 - 1,)


def test_teams_of_rows():
    assert rows.row_team(17, 1024) == rows.Team("WarpRow", (3,), (256,))
    assert rows.row_team(17, 1025) == rows.Team("BlockRow", (17,), (256,))
    assert rows.row_team(17, 8192) == rows.Team("BlockRow", (17,), (256,))
    assert rows.row_team(17, 8193) == rows.Team("BlockRow", (17,), (512,))
    assert rows.row_team(33, 5000, 2) == rows.Team("ColumnRow", (2,), (32, 8))
    assert rows.row_team(33, 5000, 1).name == "BlockRow"


def test_teams_of_rows_in_chunks():
    """As many chunks as fill a GPU, none shorter than is worth a block, at most 1024."""
    team = rows.chunked_team
    assert team(16, 900, 1) == rows.Team("WarpRow", (2, 1), (256,))
    assert team(2, 2 * 4096 - 1, 1) == rows.Team("BlockRow", (2, 1), (256,))
    assert team(2, 2 * 4096, 1) == rows.Team("BlockRow", (2, 2), (256,), 2)
    assert team(300, 50000, 1) == rows.Team("BlockRow", (300, 3), (512,), 3)
    assert team(33, 511, 3) == rows.Team("ColumnRow", (2, 1), (32, 8))
    assert team(33, 512, 3) == rows.Team("ColumnRow", (2, 2), (32, 8), 2)
    assert team(1, 2**30, 1).chunks == 1024
    assert team(2000, 2**20, 1).chunks == 1


def test_channels_are_read_across_where_planes_are_small():
    assert rows.channel_team(600, 8, 31) == rows.chunked_team(8, 600 * 31, 31 * 8)
    assert rows.channel_team(600, 8, 31).name == "ColumnRow"
    assert rows.channel_team(600, 7, 31).name == "BlockRow"
    assert rows.channel_team(600, 8, 32).name == "BlockRow"
    assert rows.channel_team(3, 8, 32, outer=5) == rows.chunked_team(40, 96, 1)


def test_tiles():
    assert [tiles.SMALL.blocks(m, 65) for m in (1, 64, 65)] == [2, 2, 4]
    assert tiles.LARGE.grid("matmul", 129, 128, 3) == (6,)
    with pytest.raises(
        ValueError, match=r"\[matmul\] expected a product of at most 2147483647 tiles"
    ):
        tiles.SMALL.grid("matmul", 2**21, 2**21, 2)
    assert tiles.SMALL.grid("matmul", 64, 64, 2**31 - 1) == (2**31 - 1,)
    assert tiles.choose(128 * 131, 128) is tiles.SMALL
    assert tiles.choose(128 * 132, 128) is tiles.LARGE
    assert tiles.choose(128 * 44, 128, 3) is tiles.LARGE
    tiles.check("linear", rows=tiles.MAX_INDEX)
    with pytest.raises(ValueError, match=r"\[linear\] expected at most .* rows, got"):
        tiles.check("linear", rows=tiles.MAX_INDEX + 1)


class Sized:
    """What a launch table asks of an array, without its memory."""

    dtype = np.dtype(np.float32)

    def __init__(self, *shape):
        self.shape, self.size, self.ndim = shape, math.prod(shape), len(shape)


@pytest.mark.parametrize(
    ("op", "launches"),
    [
        ("roi_pool", lambda side: regions._pool(
            Sized(1, 1, side, 2**15), Sized(1, 5), (1, 1), 1.0, Sized(1, 1, 1, 1), Sized(1, 1, 1, 1)
        )),
        ("roi_pool_backward", lambda side: regions._pool_backward(
            Sized(1, 1, 1, 1), Sized(1, 1, 1, 1), Sized(1, 5), 1, (side, 2**15), Sized(1)
        )),
        ("roi_align", lambda side: regions._align(
            Sized(1, 1, side, 2**15), Sized(1, 5), (1, 1), 1.0, 0, False, Sized(1)
        )),
        ("roi_align", lambda side: regions._align_backward(
            Sized(1, 1, 1, 1), Sized(1, 5), 1, (side, 2**15), 1.0, 0, False, Sized(1)
        )),
        ("roi_align", lambda side: regions._align(
            Sized(1, 1, 2, 2**15), Sized(1, 5), (1, side), 1.0, 0, False, Sized(1)
        )),
        ("adaptive_avg_pool2d", lambda side: pooling._adaptive_avg_pool2d(
            Sized(1, 1, side, 2**15), (1, 1), Sized(1)
        )),
    ],
)  # fmt: skip
def test_what_kernels_count_in_32_bits_is_refused_beyond(op, launches):
    assert launches(2**16 - 1)
    with pytest.raises(ValueError, match=rf"\[{op}\] expected at most .* got 2147483648\. Use a"):
        launches(2**16)


@pytest.mark.parametrize(("count", "chunks"), [(100_000, 390), (2**22, 512)])
def test_chunks_of_a_sum_are_joined_by_as_many_blocks_as_their_columns_need(count, chunks):
    """By whole columns: 512 chunks would be worth two chunks of their own."""
    first, join = reductions._reduce("sum", "Sum")(Sized(count, 40), 0, False, Sized(40))
    assert (first.grid, join.grid) == ((2, chunks), (2, 1))


@pytest.mark.parametrize("groups", [1, 2])
def test_who_serves_a_convolution(groups):
    """Few kernels or channels of a group go direct, and up to 256 weights by a block for four."""
    for count, few in ((16, True), (17, False)):
        assert convolution._few_kernels(Sized(count * groups, 20, 3, 3), groups) == few
        assert convolution._few_channels(Sized(20, count, 3, 3)) == few
        for batch in (1, 100):
            grad_out, x = Sized(batch, count * groups, 9, 9), Sized(batch, 4 * groups, 9, 9)
            assert convolution._few_weights(grad_out, x, (2, 2), groups) == few


def test_splits_of_a_deep_product():
    """As many as fill a GPU, of 256 terms or more, at most 64."""
    assert tiles.splits_of(tiles.SMALL, 64, 64, 511) == 1
    assert tiles.splits_of(tiles.SMALL, 64, 64, 512) == 2
    assert tiles.splits_of(tiles.SMALL, 64, 64, 10**6) == 64
    assert tiles.splits_of(tiles.SMALL, 64 * 10, 64, 10**6, 2) == 6
    assert tiles.splits_of(tiles.SMALL, 64 * 200, 64, 10**6) == 1
    assert tiles.splits_of(tiles.SMALL, 0, 64, 10**6) == 64
