"""CUDA C++ kernels (`*.cu`), the headers that they share (`include/`) and their emulator."""
