// Optimiser steps in place over flat buffers, and the sum of squares that clipping needs.
//
// What changes from step to step is read from the device: lr, scale and norm (float64), step (int64).
// They are combined in float64 and rounded once, as in the reference. If the scale is not finite a
// gradient was NaN or Inf, and nothing is changed.
#include "reduce.h"

__device__ __forceinline__ bool is_finite(double x) { return x - x == 0.0; }

template <class T>
__global__ void sgd_step(
    T* __restrict__ param_n, const T* __restrict__ grad_n, T* __restrict__ momentum_buffer_n,
    const double* __restrict__ lr, const long long* __restrict__ step, const double* __restrict__ scale, long long n,
    T momentum, T undampened, bool nesterov, T weight_decay
) {
    if (!is_finite(scale[0])) return;
    const T factor = T(scale[0]), rate = T(lr[0]);
    const bool is_first = step[0] == 1;
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const T p = param_n[i];
        T g = grad_n[i] * factor;
        if (weight_decay != T(0)) g += weight_decay * p;
        if (momentum_buffer_n) {
            const T b = is_first ? g : momentum * momentum_buffer_n[i] + undampened * g;
            momentum_buffer_n[i] = b;
            g = nesterov ? g + momentum * b : b;
        }
        param_n[i] = p - rate * g;
    }
}

template <class T>
__global__ void adam_step(
    T* __restrict__ param_n, const T* __restrict__ grad_n, T* __restrict__ exp_avg_n, T* __restrict__ exp_avg_sq_n,
    const double* __restrict__ lr, const long long* __restrict__ step, const double* __restrict__ scale, long long n,
    double beta1, double beta2, T new1, T new2, T eps, double weight_decay, bool decoupled
) {
    if (!is_finite(scale[0])) return;
    __shared__ T step_size, unbias, kept;
    if (threadIdx.x == 0) {  // two powers in float64: once a block
        const double t = (double)step[0];
        step_size = T(lr[0] / (1.0 - pow(beta1, t)));
        unbias = T(1.0 / sqrt(1.0 - pow(beta2, t)));
        kept = T(1.0 - lr[0] * weight_decay);
    }
    __syncthreads();
    const T factor = T(scale[0]), decay = T(weight_decay), old2 = T(beta2);
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        T p = param_n[i], g = grad_n[i] * factor;
        if (weight_decay != 0.0) {
            if (decoupled) p *= kept;
            else g += decay * p;
        }
        const T old_m = exp_avg_n[i];
        const T m = old_m + new1 * (g - old_m);
        const T v = old2 * exp_avg_sq_n[i] + new2 * g * g;
        exp_avg_n[i] = m;
        exp_avg_sq_n[i] = v;
        param_n[i] = p - step_size * (m / (sqrt(v) * unbias + eps));
    }
}

template <class T>
__global__ void rmsprop_step(
    T* __restrict__ param_n, const T* __restrict__ grad_n, T* __restrict__ square_avg_n,
    T* __restrict__ momentum_buffer_n, T* __restrict__ grad_avg_n, const double* __restrict__ lr,
    const double* __restrict__ scale, long long n, T alpha, T renewed, T eps, T momentum, T weight_decay
) {
    if (!is_finite(scale[0])) return;
    const T factor = T(scale[0]), rate = T(lr[0]);
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const T p = param_n[i];
        T g = grad_n[i] * factor;
        if (weight_decay != T(0)) g += weight_decay * p;
        T v = alpha * square_avg_n[i] + renewed * g * g;
        square_avg_n[i] = v;
        if (grad_avg_n) {
            const T old_a = grad_avg_n[i];
            const T a = old_a + renewed * (g - old_a);
            grad_avg_n[i] = a;
            v = Largest::combine(v - a * a, T(0));  // below 0 by rounding only; NaN stays
        }
        T update = g / (sqrt(v) + eps);
        if (momentum_buffer_n) {
            update += momentum * momentum_buffer_n[i];
            momentum_buffer_n[i] = update;
        }
        param_n[i] = p - rate * update;
    }
}

template <class T>
__global__ void adagrad_step(
    T* __restrict__ param_n, const T* __restrict__ grad_n, T* __restrict__ state_sum_n, const double* __restrict__ lr,
    const long long* __restrict__ step, const double* __restrict__ scale, long long n, double lr_decay, T eps,
    T weight_decay
) {
    if (!is_finite(scale[0])) return;
    const T factor = T(scale[0]), rate = T(lr[0] / (1.0 + (double)(step[0] - 1) * lr_decay));
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const T p = param_n[i];
        T g = grad_n[i] * factor;
        if (weight_decay != T(0)) g += weight_decay * p;
        const T s = state_sum_n[i] + g * g;
        state_sum_n[i] = s;
        param_n[i] = p - rate * (g / (sqrt(s) + eps));
    }
}

template <class T>
__global__ void unit_step(
    T* __restrict__ param_n, const T* __restrict__ grad_n, const double* __restrict__ norm,
    const double* __restrict__ lr, const double* __restrict__ scale, long long n
) {
    if (!(is_finite(scale[0]) && is_finite(norm[0]) && norm[0] > 0.0)) return;
    const T rate = T(lr[0] / norm[0]);
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) param_n[i] -= rate * grad_n[i];
}

// part_k = sum of squares of chunk k, in float64; a block a chunk of `size` elements.
template <class T>
__global__ void sum_squares(
    const T* __restrict__ x_n, double* __restrict__ part_k, long long n, long long chunks, int size
) {
    for (long long k = blockIdx.x; k < chunks; k += gridDim.x) {
        const long long begin = k * size, end = begin + size < n ? begin + size : n;
        double sum = 0.0;
        for (long long i = begin + threadIdx.x; i < end; i += blockDim.x) sum += (double)x_n[i] * (double)x_n[i];
        sum = reduce_block<Sum>(sum);
        if (threadIdx.x == 0) part_k[k] = sum;
    }
}

// One block. A kernel's name has its type though this one needs none: sums are in float64.
template <class T>
__global__ void add_parts(const double* __restrict__ part_k, double* __restrict__ out, long long chunks) {
    double sum = 0.0;
    for (long long k = threadIdx.x; k < chunks; k += blockDim.x) sum += part_k[k];
    sum = reduce_block<Sum>(sum);
    if (threadIdx.x == 0) out[0] = sum;
}
