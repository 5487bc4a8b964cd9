// Local response normalisation of (N, C, L): one thread an element. Neighbouring threads read
// neighbouring elements of each channel of the window, which the caches hold for the next channels.
#include "numbers.h"

// Powers of 3/4, which every published net takes, are two square roots.
template <class T> __device__ __forceinline__ T shrink(T x, T scale, T beta) {
    if (beta != T(0.75)) return x * pow(scale, -beta);
    const T root = sqrt(scale);
    return x / (root * sqrt(root));
}

template <class T>
__global__ void local_response(
    const T* __restrict__ x_ncl, T* __restrict__ out_ncl, T* __restrict__ scale_ncl, long long n, long long channels,
    long long length, long long before, long long after, T factor, T beta, T k
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const long long c = i / length % channels;
        const long long first = c < before ? -c : -before, last = channels - 1 - c < after ? channels - 1 - c : after;
        T sum = 0;
        for (long long j = first; j <= last; ++j) {
            const T x = x_ncl[i + j * length];
            sum += x * x;
        }
        const T scale = k + factor * sum;
        scale_ncl[i] = scale;
        out_ncl[i] = shrink(x_ncl[i], scale, beta);
    }
}

// What each channel adds to the gradients of its window: g x s^(-beta - 1).
template <class T>
__global__ void local_response_terms(
    const T* __restrict__ grad_out_ncl, const T* __restrict__ x_ncl, const T* __restrict__ scale_ncl,
    T* __restrict__ terms_ncl, long long n, T beta
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid())
        terms_ncl[i] = shrink(grad_out_ncl[i], scale_ncl[i], beta) * x_ncl[i] / scale_ncl[i];
}

template <class T>
__global__ void local_response_backward(
    const T* __restrict__ grad_out_ncl, const T* __restrict__ x_ncl, const T* __restrict__ scale_ncl,
    const T* __restrict__ terms_ncl, T* __restrict__ grad_x_ncl, long long n, long long channels, long long length,
    long long before, long long after, T factor, T beta
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const long long c = i / length % channels;
        const long long first = c < before ? -c : -before, last = channels - 1 - c < after ? channels - 1 - c : after;
        T sum = 0;
        for (long long j = first; j <= last; ++j) sum += terms_ncl[i + j * length];
        grad_x_ncl[i] = shrink(grad_out_ncl[i], scale_ncl[i], beta) - factor * x_ncl[i] * sum;
    }
}
