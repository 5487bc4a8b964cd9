"""CUDA C++ kernels (`*.cu`) with their launches beside them; importing this registers all of them.

`include/` holds the headers that they share, `emulator/` runs them on the CPU.
"""

from trine.kernels.cuda import (  # noqa: F401  register their kernels
    batch_norm,
    bias_act,
    convolution,
    cross_entropy,
    elementwise,
    embedding,
    local_response,
    nms,
    optimiser,
    pooling,
    primitives,
    products,
    random,
    recurrent,
    reductions,
    regions,
    row_norm,
    softmax,
)
