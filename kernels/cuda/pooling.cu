// Pooling and its gradients: a thread an element of the result, no matter how windows overlap.
//
// Index is the type of positions in an array: int where they fit, as 64-bit divisions take several
// times as long. Planes are images' channels, H x W before and P x Q after pooling.
#include "numbers.h"

// Along an axis: the taps of a window that lie inside the input, of `kernel` at from, from + dilation, ...
struct Taps {
    int first, end;
    __device__ __forceinline__ Taps(int from, int size, int kernel, int dilation) {
        first = from < 0 ? (-from + dilation - 1) / dilation : 0;
        end = from < size ? min(kernel, (size - 1 - from) / dilation + 1) : 0;
    }
};

// Along an axis: the windows that reach over a place of the padded input (those with holes may miss it).
struct Windows {
    int first, last;
    __device__ __forceinline__ Windows(int place, int count, int reach, int stride) {
        first = place < reach ? 0 : (place - reach) / stride + 1;
        last = min(place / stride, count - 1);
    }
};

template <class T, class Arg, class Index>
__global__ void max_pool2d(
    const T* __restrict__ x_nchw, T* __restrict__ out_ncpq, Arg* __restrict__ argmax_ncpq, long long size, int h, int w,
    int p, int q, int r, int s, int stride_a, int stride_b, int padding_a, int padding_b, int dilation_e, int dilation_f
) {
    for (long long n = first_of_grid(); n < size; n += step_of_grid()) {
        const Index i = (Index)n, row = i / q;
        const int y = (int)(row % p) * stride_a - padding_a, x = (int)(i % q) * stride_b - padding_b;
        const T* const plane = x_nchw + (long long)(row / p) * h * w;
        const Taps down(y, h, r, dilation_e), across(x, w, s, dilation_f);
        T best = -Numbers<T>::infinity();
        int place = 0;
        bool found = false;  // or a window of -inf would have no maximum
        for (int j = down.first; j < down.end; j++) {
            const T* const line = plane + (long long)(y + j * dilation_e) * w + x;
            for (int k = across.first; k < across.end; k++) {
                const T value = line[k * dilation_f];
                if (found && !(value > best) && !(value != value && best == best)) continue;
                best = value, place = j * s + k, found = true;
            }
        }
        out_ncpq[n] = best;
        argmax_ncpq[n] = (Arg)place;
    }
}

// dx of an element: the errors of the windows that it is the maximum of, by rising tap.
template <class T, class Arg, class Index>
__global__ void max_pool2d_backward(
    const T* __restrict__ grad_ncpq, const Arg* __restrict__ argmax_ncpq, T* __restrict__ grad_nchw, long long size,
    int h, int w, int p, int q, int r, int s, int stride_a, int stride_b, int padding_a, int padding_b, int dilation_e,
    int dilation_f
) {
    for (long long n = first_of_grid(); n < size; n += step_of_grid()) {
        const Index i = (Index)n, row = i / w;
        const int y = (int)(row % h) + padding_a, x = (int)(i % w) + padding_b;
        const long long plane = (long long)(row / h) * p * q;
        const Windows down(y, p, dilation_e * (r - 1) + 1, stride_a), across(x, q, dilation_f * (s - 1) + 1, stride_b);
        T sum = T(0);
        for (int j = down.last; j >= down.first; j--) {
            const int below = y - j * stride_a;
            if (dilation_e != 1 && below % dilation_e) continue;
            for (int k = across.last; k >= across.first; k--) {
                const int beside = x - k * stride_b;
                if (dilation_f != 1 && beside % dilation_f) continue;
                const long long window = plane + (long long)j * q + k;
                if (argmax_ncpq[window] == below / dilation_e * s + beside / dilation_f) sum += grad_ncpq[window];
            }
        }
        grad_nchw[n] = sum;
    }
}

// How many elements along an axis a window averages: with the padding, but nothing past it, or without.
__device__ __forceinline__ int averaged(int from, int size, int kernel, int padding, bool with_padding) {
    const int low = with_padding ? -padding : 0, high = with_padding ? size + padding : size;
    return min(from + kernel, high) - max(from, low);
}

template <class T, class Index>
__global__ void avg_pool2d(
    const T* __restrict__ x_nchw, T* __restrict__ out_ncpq, long long size, int h, int w, int p, int q, int r, int s,
    int stride_a, int stride_b, int padding_a, int padding_b, bool with_padding, int divisor
) {
    for (long long n = first_of_grid(); n < size; n += step_of_grid()) {
        const Index i = (Index)n, row = i / q;
        const int y = (int)(row % p) * stride_a - padding_a, x = (int)(i % q) * stride_b - padding_b;
        const T* const plane = x_nchw + (long long)(row / p) * h * w;
        const Taps down(y, h, r, 1), across(x, w, s, 1);
        T sum = T(0);
        for (int j = down.first; j < down.end; j++)
            for (int k = across.first; k < across.end; k++) sum += plane[(long long)(y + j) * w + x + k];
        const long long count = divisor ? divisor
                                        : (long long)averaged(y, h, r, padding_a, with_padding)
                                              * averaged(x, w, s, padding_b, with_padding);
        out_ncpq[n] = sum / T(count);
    }
}

template <class T, class Index>
__global__ void avg_pool2d_backward(
    const T* __restrict__ grad_ncpq, T* __restrict__ grad_nchw, long long size, int h, int w, int p, int q, int r,
    int s, int stride_a, int stride_b, int padding_a, int padding_b, bool with_padding, int divisor
) {
    for (long long n = first_of_grid(); n < size; n += step_of_grid()) {
        const Index i = (Index)n, row = i / w;
        const int y = (int)(row % h) + padding_a, x = (int)(i % w) + padding_b;
        const T* const plane = grad_ncpq + (long long)(row / h) * p * q;
        const Windows down(y, p, r, stride_a), across(x, q, s, stride_b);
        T sum = T(0);
        for (int j = down.last; j >= down.first; j--) {
            const int rows = averaged(j * stride_a - padding_a, h, r, padding_a, with_padding);
            for (int k = across.last; k >= across.first; k--) {
                const int columns = averaged(k * stride_b - padding_b, w, s, padding_b, with_padding);
                sum += plane[(long long)j * q + k] / T(divisor ? divisor : (long long)rows * columns);
            }
        }
        grad_nchw[n] = sum;
    }
}

// Where the bins of adaptive pooling begin and end along an axis; they overlap where sizes do not divide.
__device__ __forceinline__ int bin_begin(int bin, int size, int bins) { return (int)((long long)bin * size / bins); }
__device__ __forceinline__ int bin_end(int bin, int size, int bins) {
    return (int)(((long long)(bin + 1) * size + bins - 1) / bins);
}

// `lanes` neighbouring threads a bin: one for small bins, a warp for large ones.
template <class T, int lanes>
__global__ void adaptive_avg_pool2d(
    const T* __restrict__ x_nchw, T* __restrict__ out_ncpq, long long size, int h, int w, int p, int q
) {
    const int lane = threadIdx.x % lanes;
    for (long long n = first_of_grid() / lanes; n < size; n += step_of_grid() / lanes) {
        const long long row = n / q;
        const int bin_y = (int)(row % p), bin_x = (int)(n % q);
        const int y = bin_begin(bin_y, h, p), x = bin_begin(bin_x, w, q);
        const int columns = bin_end(bin_x, w, q) - x, count = (bin_end(bin_y, h, p) - y) * columns;
        const T* const corner = x_nchw + row / p * h * w + (long long)y * w + x;
        T sum = T(0);
        for (int i = lane; i < count; i += lanes) sum += corner[(long long)(i / columns) * w + i % columns];
        for (int other = lanes / 2; other; other /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
        if (lane == 0) out_ncpq[n] = sum / T(count);
    }
}

template <class T>
__global__ void adaptive_avg_pool2d_backward(
    const T* __restrict__ grad_ncpq, T* __restrict__ grad_nchw, long long size, int h, int w, int p, int q
) {
    for (long long n = first_of_grid(); n < size; n += step_of_grid()) {
        const long long row = n / w, y = row % h, x = n % w;
        const T* const plane = grad_ncpq + row / h * p * q;
        const int last_y = (int)(((y + 1) * p - 1) / h), last_x = (int)(((x + 1) * q - 1) / w);
        T sum = T(0);
        for (int j = (int)(y * p / h); j <= last_y; j++) {
            const int rows = bin_end(j, h, p) - bin_begin(j, h, p);
            for (int k = (int)(x * q / w); k <= last_x; k++)
                sum += plane[(long long)j * q + k] / T((long long)rows * (bin_end(k, w, q) - bin_begin(k, w, q)));
        }
        grad_nchw[n] = sum;
    }
}
