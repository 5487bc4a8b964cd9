"""Launches of nms.cu: non-maximum suppression without a word to the host."""

from __future__ import annotations

import numpy as np

from trine.dtypes import Array, int64
from trine.kernels.cuda.launch import Launch, Launches, Scratch, blocks
from trine.kernels.registry import cuda_kernel

THREADS = 128
KEEP_THREADS = 256
BITS = 64
"""Boxes in a word of marks."""


def _nms(
    boxes: Array, scores: Array, iou_threshold: float, indices: Array, count: Array
) -> Launches:
    size = scores.size
    words = -(-size // BITS)
    order, marks = Scratch((size,), int64), Scratch((size, words), np.dtype(np.uint64))
    dropped = Scratch((words,), np.dtype(np.uint64))
    keep = Launch(
        (1,), (KEEP_THREADS,), (order, marks, dropped, indices, count, size, words),
        function="nms_keep<{T}>",
    )  # fmt: skip
    if not size:
        return keep
    return (
        Launch(
            blocks(size, THREADS), (THREADS,), (scores, order, size), function="nms_order<{T}>"
        ),
        Launch(
            blocks(size * words, THREADS), (THREADS,),
            (boxes, order, marks, size, words, iou_threshold), function="nms_marks<{T}>",
        ),
        keep,
    )  # fmt: skip


cuda_kernel(
    "nms",
    name="bits",
    source="nms.cu",
    function="nms_keep<{T}>",
    launch=_nms,
)
