// Products of matrices with what is fused to them: an activation's derivative on A, bias and activation.
#pragma once
#include "activation.h"
#include "gemm_tile.h"
#include "numbers.h"

// The error before an activation, from the error behind it and the activation's result y.
template <class T, bool deep_> struct Delta : Matrix<T, deep_> {
    using Base = Matrix<T, deep_>;
    const T* y;
    int activation;

    __device__ __forceinline__ Delta(const Base& error, const T* result, int by)
        : Base(error), y(result), activation(by) {}
    __device__ __forceinline__ T get(const typename Base::Line& line, const typename Base::Walk& walk) const {
        if (!this->inside(line, walk)) return T(0);
        const long long offset = this->offset(line, walk);
        return activate_backward(this->at[offset], y[offset], activation);
    }
};

// out = act(A B + bias), A rows x depth, B depth x columns, in as many layers as TilePlace has.
template <class T, class Shape, class A, class B>
__device__ __forceinline__ void product_block(
    const TilePlace<Shape>& place, const A& a, const B& b, const T* bias_n, T* out_mn, int rows, int columns,
    int activation
) {
    using Gemm = GemmTile<T, Shape>;
    T sum[Shape::down][Shape::across] = {};
    Gemm::multiply(a, b, place.row, place.column, place.begin, place.end, sum);
    T* const out = out_mn + place.layer * rows * columns;
#pragma unroll
    for (int i = 0; i < Shape::down; i++) {
        const int row = place.row + Gemm::row(i);
#pragma unroll
        for (int j = 0; j < Shape::across; j++) {
            const int column = place.column + Gemm::column(j);
            if (row < rows && column < columns)
                out[(long long)row * columns + column] =
                    activate(bias_n ? sum[i][j] + bias_n[column] : sum[i][j], activation);
        }
    }
}

// The sum of the splits of a product, in their order, then bias and activation.
template <class T>
__device__ __forceinline__ void add_parts_of_grid(
    const T* parts_smn, const T* bias_n, T* out_mn, long long size, int columns, int splits, int activation
) {
    for (long long i = first_of_grid(); i < size; i += step_of_grid()) {
        T sum = T(0);
        for (int s = 0; s < splits; s++) sum += parts_smn[s * size + i];
        out_mn[i] = activate(bias_n ? sum + bias_n[i % columns] : sum, activation);
    }
}

// The sums of a matrix's columns, 32 of them a block of 32 x 16 threads.
template <class T, class Element>
__device__ __forceinline__ void add_rows_of_block(const Element& element, T* out_n, int rows, int columns) {
    __shared__ T parts[16][33];
    const int column = blockIdx.x * 32 + threadIdx.x;
    T sum = T(0);
    if (column < columns)
        for (long long row = threadIdx.y; row < rows; row += 16) sum += element(row * columns + column);
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= columns) return;
    for (int i = 1; i < 16; i++) sum += parts[i][threadIdx.x];
    out_n[column] = sum;
}
