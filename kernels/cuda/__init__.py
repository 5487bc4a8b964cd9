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
    optimiser,
    pooling,
    primitives,
    products,
    random,
    recurrent,
    reductions,
    row_norm,
    softmax,
)
