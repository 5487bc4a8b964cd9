// Convolution and its two gradients as implicit products: the images' patches are never written out.
//
// N images, C input and K output channels, R x S kernels, H x W inputs, P x Q outputs; stride (a, b),
// padding, dilation (e, f), groups. Each product has a batch of one group's matrices.
#include "patches.h"
#include "product.h"
#include "tensor_tile.h"

// z_k(npq) = sum_crs w_k(crs) x_(crs)(npq), then bias and activation.
template <class T, class Shape>
__global__ void __launch_bounds__(256, Shape::least_blocks) conv2d(
    const T* __restrict__ x_nchw, const T* __restrict__ weight_kcrs, const T* __restrict__ bias_k,
    T* __restrict__ out_nkpq, int n, int c, int h, int w, int k, int r, int s, int p, int q, int stride_a, int stride_b,
    int padding_a, int padding_b, int dilation_e, int dilation_f, int groups, int activation
) {
    using Gemm = GemmTile<T, Shape>;
    const int group_c = c / groups, group_k = k / groups, depth = group_c * r * s, pixels = n * p * q;
    const long long plane = (long long)h * w, out_plane = (long long)p * q;
    const TilePlace<Shape> place(group_k, pixels, depth, 1);
    const int first_k = place.batch * group_k;
    const Matrix<T, true> weight{weight_kcrs + (long long)first_k * depth, group_k, depth, depth};
    const Patches<T, false> x{
        x_nchw + place.batch * group_c * plane, pixels, depth, h, w, -padding_a, -padding_b,
        {p, q, stride_a, stride_b, c * plane}, {r, s, dilation_e, dilation_f, plane}};
    T sum[Shape::down][Shape::across] = {};
    Gemm::multiply(weight, x, place.row, place.column, 0, depth, sum);
#pragma unroll
    for (int j = 0; j < Shape::across; j++) {
        const int pixel = place.column + Gemm::column(j);
        if (pixel >= pixels) continue;
        const int image = pixel / (p * q), in_plane = pixel % (p * q);
#pragma unroll
        for (int i = 0; i < Shape::down; i++) {
            const int row = place.row + Gemm::row(i);
            if (row >= group_k) continue;
            const int channel = first_k + row;
            const T z = bias_k ? sum[i][j] + bias_k[channel] : sum[i][j];
            out_nkpq[((long long)image * k + channel) * out_plane + in_plane] = activate_if_short(z, activation);
        }
    }
    if (!is_long(activation)) return;
#pragma unroll 1
    for (int j = 0; j < Shape::across; j++) {
        const int pixel = place.column + Gemm::column(j);
        if (pixel >= pixels) continue;
        const int image = pixel / (p * q), in_plane = pixel % (p * q);
#pragma unroll 1
        for (int i = 0; i < Shape::down; i++) {
            const int row = place.row + Gemm::row(i);
            if (row >= group_k) continue;
            T& z = out_nkpq[((long long)image * k + first_k + row) * out_plane + in_plane];
            z = activate(z, activation);
        }
    }
}

// Which taps of a kernel meet the pixels of one residue of the stride along an axis, and where.
struct Residue {
    int first, step, taps;   // the taps: first, first + step, ...
    int pixels;              // of this residue
    int from, move;          // pixel i meets output from + i by the first tap, and `move` on by each next

    __device__ __forceinline__ Residue(int residue, int size, int kernel, int stride, int padding, int dilation) {
        // t = pixel + padding - tap * dilation must be a multiple of the stride. Taps that do lie evenly.
        int a = stride, b = dilation;
        while (b) {
            const int rest = a % b;
            a = b, b = rest;
        }
        step = stride / a;
        first = 0;
        while (first < step && first < kernel && (residue + padding - first * dilation) % stride) first++;
        const bool none = first >= kernel || (residue + padding - first * dilation) % stride;
        taps = none ? 0 : (kernel - 1 - first) / step + 1;
        pixels = residue < size ? (size - 1 - residue) / stride + 1 : 0;
        from = none ? 0 : (residue + padding - first * dilation) / stride;
        move = -(step * dilation / stride);
    }
};

// dx_c(nhw) = sum_krs w_(krs)c delta_(krs)(nhw), for each residue of (h, w) by the stride a product of
// its own: only the taps that meet its pixels are multiplied. With a bias it is the transposed
// convolution.
template <class T, class Shape>
__global__ void __launch_bounds__(256, Shape::least_blocks) conv2d_input_grad(
    const T* __restrict__ delta_nkpq, const T* __restrict__ weight_kcrs, const T* __restrict__ bias_c,
    T* __restrict__ grad_nchw, int n, int c, int h, int w, int k, int r, int s, int p, int q, int stride_a,
    int stride_b, int padding_a, int padding_b, int dilation_e, int dilation_f, int groups
) {
    using Gemm = GemmTile<T, Shape>;
    const int group_c = c / groups, group_k = k / groups;
    const int most = n * ((h - 1) / stride_a + 1) * ((w - 1) / stride_b + 1);
    const TilePlace<Shape> place(group_c, most, 1, 1);
    const int group = place.batch % groups, residue = place.batch / groups;
    const Residue down(residue / stride_b, h, r, stride_a, padding_a, dilation_e);
    const Residue across(residue % stride_b, w, s, stride_b, padding_b, dilation_f);
    const int class_plane = down.pixels * across.pixels, pixels = n * class_plane;
    if (place.column >= pixels) return;
    const int depth = group_k * down.taps * across.taps, first_c = group * group_c, kernel = r * s;
    const long long delta_plane = (long long)p * q;
    const Nested<T> weight{
        weight_kcrs + (long long)group * group_k * group_c * kernel + down.first * s + across.first,
        group_c, depth, kernel,
        {down.taps, across.taps, down.step * s, across.step, (long long)group_c * kernel}};
    const Patches<T, false> delta{
        delta_nkpq + group * group_k * delta_plane, pixels, depth, p, q, down.from, across.from,
        {down.pixels, across.pixels, 1, 1, k * delta_plane},
        {down.taps, across.taps, down.move, across.move, delta_plane}};
    T sum[Shape::down][Shape::across] = {};
    Gemm::multiply(weight, delta, place.row, place.column, 0, depth, sum);
#pragma unroll
    for (int j = 0; j < Shape::across; j++) {
        const int pixel = place.column + Gemm::column(j);
        if (pixel >= pixels) continue;
        const int image = pixel / class_plane, in_class = pixel % class_plane;
        const int y = residue / stride_b + in_class / across.pixels * stride_a;
        const int x = residue % stride_b + in_class % across.pixels * stride_b;
#pragma unroll
        for (int i = 0; i < Shape::down; i++) {
            const int row = place.row + Gemm::row(i);
            if (row >= group_c) continue;
            const int channel = first_c + row;
            const T z = bias_c ? sum[i][j] + bias_c[channel] : sum[i][j];
            grad_nchw[(((long long)image * c + channel) * h + y) * w + x] = z;
        }
    }
}

// dw_k(crs) = sum_npq delta_k(npq) x_(npq)(crs); splits of npq are written one after another.
template <class T, class Shape>
__global__ void __launch_bounds__(256, Shape::least_blocks) conv2d_weight_grad(
    const T* __restrict__ delta_nkpq, const T* __restrict__ x_nchw, T* __restrict__ grad_kcrs, int n, int c, int h,
    int w, int k, int r, int s, int p, int q, int stride_a, int stride_b, int padding_a, int padding_b, int dilation_e,
    int dilation_f, int groups, int splits
) {
    const int group_c = c / groups, group_k = k / groups, columns = group_c * r * s, depth = n * p * q;
    const long long plane = (long long)h * w, out_plane = (long long)p * q;
    const TilePlace<Shape> place(group_k, columns, depth, splits);
    const Nested<T> delta{
        delta_nkpq + place.batch * group_k * out_plane, group_k, place.end, out_plane, {p, q, q, 1, k * out_plane}};
    const Patches<T, true> x{
        x_nchw + place.batch * group_c * plane, columns, place.end, h, w, -padding_a, -padding_b,
        {r, s, dilation_e, dilation_f, plane}, {p, q, stride_a, stride_b, c * plane}};
    product_block(place, delta, x, (const T*)nullptr, grad_kcrs, group_k, columns, NONE);
}
