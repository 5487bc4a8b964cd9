"""CUDA C++ kernels (`*.cu`) with their launches beside them; importing this registers all of them.

`include/` holds the headers that they share, `emulator/` runs them on the CPU.
"""

from trine.kernels.cuda import (  # noqa: F401  each registers its kernels
    elementwise,
    local_response,
    nms,
    regions,
)
