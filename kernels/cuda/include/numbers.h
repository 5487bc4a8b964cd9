// Numbers of both types, and positions in a grid, for all kernels.
#pragma once

template <class T> struct Numbers;

template <> struct Numbers<float> {
    static __device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
};

template <> struct Numbers<double> {
    static __device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000LL); }
};

// The first element of this thread, and how far its elements lie apart, in a loop over a whole grid.
__device__ __forceinline__ long long first_of_grid() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ long long step_of_grid() { return (long long)gridDim.x * blockDim.x; }
