// Sums and extrema over the lanes of a warp, the threads of a block, or one axis of a block.
//
// Each combines in an order that the geometry fixes, so results repeat bit for bit. All threads of
// the warp or block must call; all of them get the result.
#pragma once
#include "numbers.h"

constexpr unsigned WHOLE_WARP = 0xffffffffu;
constexpr int WARP = 32;
constexpr int MOST_THREADS_Y = 256;  // of a block whose threads are combined along y

struct Sum {
    template <class T> static __device__ __forceinline__ T nothing() { return T(0); }
    template <class T> static __device__ __forceinline__ T combine(T a, T b) { return a + b; }
};

// The largest value; NaN if any is, which fmax would drop.
struct Largest {
    template <class T> static __device__ __forceinline__ T nothing() { return -Numbers<T>::infinity(); }
    template <class T> static __device__ __forceinline__ T combine(T a, T b) { return a > b || a != a ? a : b; }
};

struct Smallest {
    template <class T> static __device__ __forceinline__ T nothing() { return Numbers<T>::infinity(); }
    template <class T> static __device__ __forceinline__ T combine(T a, T b) { return a < b || a != a ? a : b; }
};

__device__ __forceinline__ float from_lane_xor(float value, int lanes) {
    return __shfl_xor_sync(WHOLE_WARP, value, lanes);
}
__device__ __forceinline__ double from_lane_xor(double value, int lanes) {
    return __shfl_xor_sync(WHOLE_WARP, value, lanes);
}

template <class Op, class T> __device__ __forceinline__ T reduce_warp(T value) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) value = Op::combine(value, from_lane_xor(value, lanes));
    return value;
}

// For blocks along x of whole warps.
template <class Op, class T> __device__ __forceinline__ T reduce_block(T value) {
    __shared__ T part_w[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    value = reduce_warp<Op>(value);
    __syncthreads();  // parts of the call before have been read
    if (lane == 0) part_w[warp] = value;
    __syncthreads();
    value = lane < (int)blockDim.x / WARP ? part_w[lane] : Op::template nothing<T>();
    return reduce_warp<Op>(value);  // by every warp for itself: no third barrier
}

// Along y for each x; blockDim.y is a power of 2, the block has at most 256 threads.
template <class Op, class T> __device__ __forceinline__ T reduce_along_y(T value) {
    __shared__ T part_yx[MOST_THREADS_Y];
    const int own = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();  // results of the call before have been read
    part_yx[own] = value;
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.y < half) part_yx[own] = Op::combine(part_yx[own], part_yx[own + half * blockDim.x]);
    }
    __syncthreads();
    return part_yx[threadIdx.x];
}
