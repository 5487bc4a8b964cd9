// Bias along axis 1 of (rows, channels, inner) with an activation, and both gradients in one read.
#include "activation.h"
#include "chunks.h"

template <class T>
__global__ void bias_act(
    const T* __restrict__ x_rci, const T* __restrict__ bias_c, T* __restrict__ out_rci, long long n,
    long long channels, long long inner, int activation
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        T z = x_rci[i];
        if (bias_c) {
            const long long rc = inner == 1 ? i : quotient(i, inner);
            z += bias_c[rc - quotient(rc, channels) * channels];
        }
        out_rci[i] = activate(z, activation);
    }
}

template <class T, class Team>
__global__ void bias_act_backward(
    const T* __restrict__ grad_out_rci, const T* __restrict__ out_rci, T* __restrict__ grad_x_rci,
    T* __restrict__ part_kc, long long rows, long long channels, long long inner, int activation
) {
    const Spread spread{rows, channels, inner};
    const Chunk chunk(spread.length());
    for (long long first = Team::first(); first < channels; first += Team::step()) {
        const long long c = first + Team::offset(), start = spread.start(c);
        T sum = 0;
        if (c < channels)
            for (long long p = chunk.begin + Team::rank(); p < chunk.end; p += Team::size()) {
                const long long i = start + spread.offset(p);
                const T grad = activate_backward(grad_out_rci[i], out_rci[i], activation);
                grad_x_rci[i] = grad;
                sum += grad;
            }
        sum = Team::template reduce<Sum>(sum);
        if (c < channels && Team::rank() == 0) part_kc[blockIdx.y * channels + c] = sum;
    }
}

template <class T>
__global__ void grad_bias(
    const T* __restrict__ part_kc, T* __restrict__ grad_bias_c, long long chunks, long long channels
) {
    add_chunks(part_kc, grad_bias_c, chunks, channels);
}
