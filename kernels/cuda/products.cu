// The fully connected layer, its gradients, and matrix products.
#include "product.h"
#include "tensor_tile.h"

// out = act(A B + bias). A is (m, k), or (k, m) if not deep_a; B is (n, k), or (k, n) if not deep_b. The
// batch has three axes, of which those that an operand lacks have stride 0 there. Splits of k are
// written one after another, for add_parts.
template <class T, class Shape, bool deep_a, bool deep_b>
__global__ void __launch_bounds__(256, Shape::least_blocks) product(
    const T* __restrict__ a_bmk, const T* __restrict__ b_bkn, const T* __restrict__ bias_n, T* __restrict__ out_bmn,
    int m, int n, int k, int splits, int activation, int batch_1, int batch_2, long long a_0, long long a_1,
    long long a_2, long long b_0, long long b_1, long long b_2
) {
    const TilePlace<Shape> place(m, n, k, splits);
    const int i_2 = place.batch % batch_2, rest = place.batch / batch_2, i_1 = rest % batch_1, i_0 = rest / batch_1;
    const Matrix<T, deep_a> a{a_bmk + i_0 * a_0 + i_1 * a_1 + i_2 * a_2, m, place.end, deep_a ? k : m};
    const Matrix<T, deep_b> b{b_bkn + i_0 * b_0 + i_1 * b_1 + i_2 * b_2, n, place.end, deep_b ? k : n};
    product_block(place, a, b, bias_n, out_bmn, m, n, activation);
}

// As product, with the error before an activation as A; without batches, bias and activation of its own.
template <class T, class Shape, bool deep_a>
__global__ void __launch_bounds__(256, Shape::least_blocks) delta_product(
    const T* __restrict__ grad_mk, const T* __restrict__ y_mk, const T* __restrict__ b_kn, T* __restrict__ out_mn,
    int m, int n, int k, int splits, int activation
) {
    const TilePlace<Shape> place(m, n, k, splits);
    const Delta<T, deep_a> a(Matrix<T, deep_a>{grad_mk, m, place.end, deep_a ? k : m}, y_mk, activation);
    const Matrix<T, false> b{b_kn, n, place.end, n};
    product_block(place, a, b, (const T*)nullptr, out_mn, m, n, NONE);
}

// The sum of a product's splits, in their order, then bias and activation.
template <class T>
__global__ void add_parts(
    const T* __restrict__ parts_smn, const T* __restrict__ bias_n, T* __restrict__ out_mn, long long size, int columns,
    int splits, int activation
) {
    for (long long i = first_of_grid(); i < size; i += step_of_grid()) {
        T sum = T(0);
        for (int s = 0; s < splits; s++) sum += parts_smn[s * size + i];
        out_mn[i] = activate(bias_n ? sum + bias_n[i % columns] : sum, activation);
    }
}

// The bias gradient: the errors before the activation, summed over the rows, 32 columns a block.
template <class T>
__global__ void delta_sum(
    const T* __restrict__ grad_mn, const T* __restrict__ y_mn, T* __restrict__ out_n, int rows, int columns,
    int activation
) {
    __shared__ T parts[16][33];
    const int column = blockIdx.x * 32 + threadIdx.x;
    T sum = T(0);
    if (column < columns)
        for (long long row = threadIdx.y; row < rows; row += 16) {
            const long long i = row * columns + column;
            sum += activate_backward(grad_mn[i], y_mn[i], activation);
        }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= columns) return;
    for (int i = 1; i < 16; i++) sum += parts[i][threadIdx.x];
    out_n[column] = sum;
}
