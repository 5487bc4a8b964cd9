"""Launches of embedding.cu: rows by number, and their gradient."""

from __future__ import annotations

from trine.dtypes import Array
from trine.kernels.cuda.launch import Launch, Launches, blocks
from trine.kernels.registry import cuda_kernel

SOURCE = "embedding.cu"
THREADS = 256
WARPS = THREADS // 32
ENOUGH_WARPS = 4096
"""As many fill a GPU; with more rows than that a warp owns several, so numbers are read less often."""

MOST_OWN = 64


def _embedding(weight: Array, indices: Array, out: Array) -> Launches:
    if not out.size:
        return ()
    arguments = (weight, indices, out, out.size, *weight.shape)
    return Launch(blocks(out.size, THREADS), (THREADS,), arguments)


def _embedding_backward(
    grad_out: Array, indices: Array, num_embeddings: int, padding_idx: int, grad_weight: Array
) -> Launches:
    if not grad_weight.size:
        return ()
    own = max(1, min(MOST_OWN, num_embeddings // ENOUGH_WARPS))
    count, width = grad_out.shape
    arguments = (grad_out, indices, grad_weight, count, num_embeddings, width, padding_idx, own)
    return Launch(blocks(num_embeddings, own * WARPS), (THREADS,), arguments)


cuda_kernel("embedding", name="gather", source=SOURCE, function="embedding<{T}>", launch=_embedding)
cuda_kernel(
    "embedding_backward",
    name="slices",
    source=SOURCE,
    function="embedding_backward<{T}>",
    launch=_embedding_backward,
)
