// Products of matrices with what is fused to them: an activation's derivative on A, bias and activation.
#pragma once
#include "activation.h"
#include "gemm_tile.h"
#include "numbers.h"

// The error before an activation, from the error behind it and the activation's result y.
template <class T, bool deep_> struct Delta : Matrix<T, deep_> {
    static constexpr bool plain = false, widens = false;
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
                    activate_if_short(bias_n ? sum[i][j] + bias_n[column] : sum[i][j], activation);
        }
    }
    if (!is_long(activation)) return;
#pragma unroll 1
    for (int i = 0; i < Shape::down; i++) {
        const int row = place.row + Gemm::row(i);
#pragma unroll 1
        for (int j = 0; j < Shape::across; j++) {
            const int column = place.column + Gemm::column(j);
            if (row >= rows || column >= columns) continue;
            T& z = out[(long long)row * columns + column];
            z = activate(z, activation);
        }
    }
}
