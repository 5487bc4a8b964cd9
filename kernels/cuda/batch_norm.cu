// Batch normalisation of (N, C, L) over N and L, with given moments as well, and the gradients.
//
// A channel that one team does takes one launch. Otherwise channels are cut into chunks: moments (or
// sums) of chunks, their joining in order, and a pass that applies them.
#include "chunks.h"
#include "moments.h"

template <class Team, class T>
__device__ __forceinline__ void normalise(
    const T* x, T* out, const Spread& spread, const Chunk& chunk, T mean, T rstd, T weight, T bias
) {
    for (long long p = chunk.begin + Team::rank(); p < chunk.end; p += Team::size()) {
        const long long i = spread.offset(p);
        out[i] = (x[i] - mean) * rstd * weight + bias;
    }
}

template <class T, class Team>
__global__ void batch_norm(
    const T* __restrict__ x_ncl, const T* __restrict__ weight_c, const T* __restrict__ bias_c, T* __restrict__ out_ncl,
    T* __restrict__ mean_c, T* __restrict__ var_c, long long count, long long channels, long long inner, T eps
) {
    const Spread spread{count, channels, inner};
    const Chunk chunk(spread.length());
    for (long long first = Team::first(); first < channels; first += Team::step()) {
        const long long c = first + Team::offset(), start = spread.start(c);
        const bool is_there = c < channels;
        const Chunk own = is_there ? chunk : chunk.none();
        const Moments<T> found = moments<Team>(x_ncl + start, spread, own.begin, own.end);
        if (!is_there) continue;  // after its part in the team's sums; the loop ends for all of the block
        const T n = T(spread.length()), mean = found.sum / n, var = found.deviations / n;
        normalise<Team>(
            x_ncl + start, out_ncl + start, spread, own, mean, inverse_deviation(var, eps),
            weight_c ? weight_c[c] : T(1), bias_c ? bias_c[c] : T(0)
        );
        if (Team::rank() == 0) {
            mean_c[c] = mean;
            var_c[c] = var;
        }
    }
}

template <class T, class Team>
__global__ void batch_moments(
    const T* __restrict__ x_ncl, T* __restrict__ sum_kc, T* __restrict__ deviations_kc, long long count,
    long long channels, long long inner
) {
    const Spread spread{count, channels, inner};
    const Chunk chunk(spread.length());
    for (long long first = Team::first(); first < channels; first += Team::step()) {
        const long long c = first + Team::offset();
        const Chunk own = c < channels ? chunk : chunk.none();
        const Moments<T> found = moments<Team>(x_ncl + spread.start(c), spread, own.begin, own.end);
        if (c < channels && Team::rank() == 0) {
            sum_kc[blockIdx.y * channels + c] = found.sum;
            deviations_kc[blockIdx.y * channels + c] = found.deviations;
        }
    }
}

// Chan, Golub and LeVeque's formula for many chunks: deviations of the parts, and of their means.
template <class T>
__global__ void join_moments(
    const T* __restrict__ sum_kc, const T* __restrict__ deviations_kc, T* __restrict__ mean_c, T* __restrict__ var_c,
    long long chunks, long long channels, long long length
) {
    const long long size = (length + chunks - 1) / chunks;
    for (long long c = first_of_grid(); c < channels; c += step_of_grid()) {
        T sum = 0, deviations = 0;
        for (long long k = 0; k < chunks; k++) sum += sum_kc[k * channels + c];
        const T mean = sum / T(length);
        for (long long k = 0; k < chunks && k * size < length; k++) {
            const T n = T(length - k * size < size ? length - k * size : size);
            const T away = sum_kc[k * channels + c] / n - mean;
            deviations += deviations_kc[k * channels + c] + n * away * away;
        }
        mean_c[c] = mean;
        var_c[c] = deviations / T(length);
    }
}

template <class T, class Team>
__global__ void batch_norm_eval(
    const T* __restrict__ x_ncl, const T* __restrict__ weight_c, const T* __restrict__ bias_c,
    const T* __restrict__ mean_c, const T* __restrict__ var_c, T* __restrict__ out_ncl, long long count,
    long long channels, long long inner, T eps
) {
    const Spread spread{count, channels, inner};
    const Chunk chunk(spread.length());
    for (long long first = Team::first(); first < channels; first += Team::step()) {
        const long long c = first + Team::offset(), start = spread.start(c);
        if (c >= channels) continue;
        normalise<Team>(
            x_ncl + start, out_ncl + start, spread, chunk, mean_c[c], inverse_deviation(var_c[c], eps),
            weight_c ? weight_c[c] : T(1), bias_c ? bias_c[c] : T(0)
        );
    }
}

// dx = rstd (dx_hat - mean(dx_hat) - x_hat mean(dx_hat x_hat)) in TRAINING, else rstd dx_hat, with
// dx_hat = weight dy: both means are the weight times the gradients of bias and weight, over n.
template <class Team, bool TRAINING, class T>
__device__ __forceinline__ void input_gradient(
    const T* grad_out, const T* x, T* grad_x, const Spread& spread, const Chunk& chunk, T mean, T rstd, T weight,
    T grad_weight, T grad_bias
) {
    const T n = T(spread.length()), through_mean = weight * grad_bias / n, through_var = weight * grad_weight / n;
    for (long long p = chunk.begin + Team::rank(); p < chunk.end; p += Team::size()) {
        const long long i = spread.offset(p);
        const T grad = grad_out[i] * weight;
        grad_x[i] = TRAINING ? rstd * (grad - through_mean - (x[i] - mean) * rstd * through_var) : grad * rstd;
    }
}

// Without grad_x_ncl (channels in chunks) only the sums, those of chunk k at k * channels.
template <class T, class Team, bool TRAINING>
__global__ void batch_norm_backward(
    const T* __restrict__ grad_out_ncl, const T* __restrict__ x_ncl, const T* __restrict__ weight_c,
    const T* __restrict__ mean_c, const T* __restrict__ var_c, T* __restrict__ grad_x_ncl,
    T* __restrict__ grad_weight_kc, T* __restrict__ grad_bias_kc, long long count, long long channels,
    long long inner, T eps
) {
    const Spread spread{count, channels, inner};
    const Chunk chunk(spread.length());
    for (long long first = Team::first(); first < channels; first += Team::step()) {
        const long long c = first + Team::offset(), start = spread.start(c);
        const bool is_there = c < channels;
        const Chunk own = is_there ? chunk : chunk.none();
        const T mean = is_there ? mean_c[c] : T(0), rstd = is_there ? inverse_deviation(var_c[c], eps) : T(0);
        T grad_weight = 0, grad_bias = 0;
        for (long long p = own.begin + Team::rank(); p < own.end; p += Team::size()) {
            const long long i = start + spread.offset(p);
            const T grad = grad_out_ncl[i];
            grad_weight += grad * ((x_ncl[i] - mean) * rstd);
            grad_bias += grad;
        }
        grad_weight = Team::template reduce<Sum>(grad_weight);
        grad_bias = Team::template reduce<Sum>(grad_bias);
        if (!is_there) continue;
        if (Team::rank() == 0) {
            grad_weight_kc[blockIdx.y * channels + c] = grad_weight;
            grad_bias_kc[blockIdx.y * channels + c] = grad_bias;
        }
        if (grad_x_ncl)
            input_gradient<Team, TRAINING>(
                grad_out_ncl + start, x_ncl + start, grad_x_ncl + start, spread, own, mean, rstd,
                weight_c ? weight_c[c] : T(1), grad_weight, grad_bias
            );
    }
}

template <class T>
__global__ void join_gradients(
    const T* __restrict__ grad_weight_kc, const T* __restrict__ grad_bias_kc, T* __restrict__ grad_weight_c,
    T* __restrict__ grad_bias_c, long long chunks, long long channels
) {
    add_chunks(grad_weight_kc, grad_weight_c, chunks, channels);
    add_chunks(grad_bias_kc, grad_bias_c, chunks, channels);
}

template <class T, class Team, bool TRAINING>
__global__ void batch_norm_grad_x(
    const T* __restrict__ grad_out_ncl, const T* __restrict__ x_ncl, const T* __restrict__ weight_c,
    const T* __restrict__ mean_c, const T* __restrict__ var_c, const T* __restrict__ grad_weight_c,
    const T* __restrict__ grad_bias_c, T* __restrict__ grad_x_ncl, long long count, long long channels, long long inner,
    T eps
) {
    const Spread spread{count, channels, inner};
    const Chunk chunk(spread.length());
    for (long long first = Team::first(); first < channels; first += Team::step()) {
        const long long c = first + Team::offset(), start = spread.start(c);
        if (c >= channels) continue;
        input_gradient<Team, TRAINING>(
            grad_out_ncl + start, x_ncl + start, grad_x_ncl + start, spread, chunk, mean_c[c],
            inverse_deviation(var_c[c], eps), weight_c ? weight_c[c] : T(1), grad_weight_c[c], grad_bias_c[c]
        );
    }
}
