// Tiles of a product by tensor cores: factors are rounded to TF32 (10 bits after the point) or bfloat16 (7 bits),
// their products, which are then exact in float32, are added in float32. For float only, on hardware 8.0
// and later.
//
// Slices hold the factors as they are; they are rounded on their way to the fragments (tensor_core.h).
// A thread's sums are the accumulators of its warp's fragments: two rows of each 16, two columns of each 8.
#pragma once
#include "gemm_tile.h"
#include "tensor_core.h"

enum Precision { TF32, BF16 };

// rows x columns of C a block, cut among warps_down x warps_across warps, from slices of `depth`.
template <Precision precision, int rows_, int columns_, int depth_, int warps_down_, int warps_across_, int slots_>
struct TensorTile {
    static constexpr bool tensor = true;
    static constexpr int least_blocks = 1;  // for more of them the compiler would spill some registers
    static constexpr int rows = rows_, columns = columns_, depth = depth_, slots = slots_;
    static constexpr int warps_down = warps_down_, warps_across = warps_across_;
    static constexpr int threads = 32 * warps_down * warps_across;
    static constexpr int down = rows / warps_down / 8, across = columns / warps_across / 4;
};
using LargeTF32 = TensorTile<TF32, 128, 128, 16, 2, 4, 2>;
using SmallTF32 = TensorTile<TF32, 64, 64, 16, 2, 2, 3>;
using StepTF32 = TensorTile<TF32, 32, 32, 32, 2, 1, 2>;
using LargeBF16 = TensorTile<BF16, 128, 128, 16, 2, 4, 2>;
using SmallBF16 = TensorTile<BF16, 64, 64, 16, 2, 2, 3>;
using StepBF16 = TensorTile<BF16, 32, 32, 32, 2, 1, 2>;

// What a precision makes of factors and products. In a step of k a thread has words of 32 bits of each line:
// one factor, of depth k + 4 i, or two, of depths k + 8 i and k + 8 i + 4. Where in a fragment a depth stands
// does not matter as long as both operands agree; so placed, the threads of a warp read other banks.
template <Precision precision> struct Fragments;

template <> struct Fragments<TF32> {
    static constexpr int step = 8;
    template <class Slice> static __device__ __forceinline__ unsigned word(const float* slice, int line, int k, int i) {
        return to_tf32(slice[Slice::place(line, k + 4 * i)]);
    }
    static __device__ __forceinline__ void multiply(float* sum, const unsigned* a, const unsigned* b) {
        mma_tf32_16x8x8(sum, a, b, sum);
    }
};

template <> struct Fragments<BF16> {
    static constexpr int step = 16;
    template <class Slice> static __device__ __forceinline__ unsigned word(const float* slice, int line, int k, int i) {
        return to_bf16_pair(slice[Slice::place(line, k + 8 * i)], slice[Slice::place(line, k + 8 * i + 4)]);
    }
    static __device__ __forceinline__ void multiply(float* sum, const unsigned* a, const unsigned* b) {
        mma_bf16_16x8x16(sum, a, b, sum);
    }
};

template <class T, Precision precision, int rows_, int columns_, int depth_, int warps_down_, int warps_across_, int slots_>
struct GemmTile<T, TensorTile<precision, rows_, columns_, depth_, warps_down_, warps_across_, slots_>> {
    using Shape = TensorTile<precision, rows_, columns_, depth_, warps_down_, warps_across_, slots_>;
    using Cores = Fragments<precision>;

    static __device__ __forceinline__ int lane() { return threadIdx.x % 32; }
    // Where the warp's part of the tile begins.
    static __device__ __forceinline__ int warp_row() {
        return (int)threadIdx.x / 32 / Shape::warps_across * (Shape::rows / Shape::warps_down);
    }
    static __device__ __forceinline__ int warp_column() {
        return (int)threadIdx.x / 32 % Shape::warps_across * (Shape::columns / Shape::warps_across);
    }
    // Where the thread's i-th row and j-th column lie in the tile.
    static __device__ __forceinline__ int row(int i) { return warp_row() + i / 2 * 16 + i % 2 * 8 + lane() / 4; }
    static __device__ __forceinline__ int column(int j) {
        return warp_column() + j / 2 * 8 + lane() % 4 * 2 + j % 2;
    }

    // Adds the products of depths begin <= k < end to `sum`; once a kernel, by all threads.
    template <class A, class B>
    static __device__ __forceinline__ void multiply(
        const A& a, const B& b, int first_row, int first_column, int begin, int end,
        T (&sum)[Shape::down][Shape::across]
    ) {
        using SliceA = Slice<T, Shape, A::deep, Shape::rows>;
        using SliceB = Slice<T, Shape, B::deep, Shape::columns>;
        each_slice<T, Shape>(a, b, first_row, first_column, begin, end, [&](const T* slice_a, const T* slice_b) {
#pragma unroll
            for (int k = 0; k < Shape::depth; k += Cores::step) {
                const int first = k + lane() % 4;
                unsigned left[Shape::down / 2][4], right[Shape::across / 2][2];
#pragma unroll
                for (int m = 0; m < Shape::down / 2; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        left[m][i] = Cores::template word<SliceA>(slice_a, row(2 * m + i % 2), first, i / 2);
#pragma unroll
                for (int n = 0; n < Shape::across / 2; n++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        right[n][i] = Cores::template word<SliceB>(
                            slice_b, warp_column() + 8 * n + lane() / 4, first, i);
#pragma unroll
                for (int m = 0; m < Shape::down / 2; m++)
#pragma unroll
                    for (int n = 0; n < Shape::across / 2; n++) {
                        T* const upper = &sum[2 * m][2 * n];
                        T* const lower = &sum[2 * m + 1][2 * n];
                        T four[4] = {upper[0], upper[1], lower[0], lower[1]};
                        Cores::multiply(four, left[m], right[n]);
                        upper[0] = four[0], upper[1] = four[1], lower[0] = four[2], lower[1] = four[3];
                    }
            }
        });
    }
};
