// Layer and group normalisation: each row of neighbouring elements by its own moments.
//
// A row is one of `groups` parts of an example; its element i belongs to channel
// (row % groups) * per_group + i / inner. Layer normalisation has one group and inner = 1.
#include "chunks.h"
#include "moments.h"

struct Channels {
    long long groups, per_group, inner;
    __device__ __forceinline__ long long first(long long row) const {
        return groups == 1 ? 0 : (row - quotient(row, groups) * groups) * per_group;
    }
    __device__ __forceinline__ long long within(long long i) const { return inner == 1 ? i : quotient(i, inner); }
};

template <class T, class Team>
__global__ void row_norm(
    const T* __restrict__ x_rl, const T* __restrict__ weight_c, const T* __restrict__ bias_c, T* __restrict__ out_rl,
    T* __restrict__ mean_r, T* __restrict__ rstd_r, long long rows, long long groups, long long per_group,
    long long inner, T eps
) {
    const long long length = per_group * inner;
    const Spread spread{1, 1, length};
    const Channels channels{groups, per_group, inner};
    for (long long row = Team::first(); row < rows; row += Team::step()) {
        const T* x_l = x_rl + row * length;
        const Moments<T> found = moments<Team>(x_l, spread, 0, length);
        const T mean = found.sum / T(length), rstd = inverse_deviation(found.deviations / T(length), eps);
        const long long first = channels.first(row);
        for (long long i = Team::rank(); i < length; i += Team::size()) {
            T y = (x_l[i] - mean) * rstd;
            if (weight_c) y *= weight_c[first + channels.within(i)];
            if (bias_c) y += bias_c[first + channels.within(i)];
            out_rl[row * length + i] = y;
        }
        if (Team::rank() == 0) {
            mean_r[row] = mean;
            rstd_r[row] = rstd;
        }
    }
}

template <class T, class Team>
__global__ void row_norm_grad_x(
    const T* __restrict__ grad_out_rl, const T* __restrict__ x_rl, const T* __restrict__ weight_c,
    const T* __restrict__ mean_r, const T* __restrict__ rstd_r, T* __restrict__ grad_x_rl, long long rows,
    long long groups, long long per_group, long long inner
) {
    const long long length = per_group * inner;
    const Channels channels{groups, per_group, inner};
    for (long long row = Team::first(); row < rows; row += Team::step()) {
        const T* grad_l = grad_out_rl + row * length;
        const T* x_l = x_rl + row * length;
        const T mean = mean_r[row], rstd = rstd_r[row];
        const long long first = channels.first(row);
        T through_mean = 0, through_var = 0;
        for (long long i = Team::rank(); i < length; i += Team::size()) {
            const T grad = weight_c ? grad_l[i] * weight_c[first + channels.within(i)] : grad_l[i];
            through_mean += grad;
            through_var += grad * ((x_l[i] - mean) * rstd);
        }
        through_mean = Team::template reduce<Sum>(through_mean) / T(length);
        through_var = Team::template reduce<Sum>(through_var) / T(length);
        for (long long i = Team::rank(); i < length; i += Team::size()) {
            const T grad = weight_c ? grad_l[i] * weight_c[first + channels.within(i)] : grad_l[i];
            grad_x_rl[row * length + i] = rstd * (grad - through_mean - (x_l[i] - mean) * rstd * through_var);
        }
    }
}

// Sums over examples n and inner of (count, groups * per_group, inner), of chunk k at k * channels.
template <class T, class Team>
__global__ void row_norm_grad_affine(
    const T* __restrict__ grad_out_ncl, const T* __restrict__ x_ncl, const T* __restrict__ mean_ng,
    const T* __restrict__ rstd_ng, T* __restrict__ grad_weight_kc, T* __restrict__ grad_bias_kc, long long count,
    long long groups, long long per_group, long long inner
) {
    const long long channels = groups * per_group;
    const Spread spread{count, channels, inner};
    const Chunk chunk(spread.length());
    for (long long first = Team::first(); first < channels; first += Team::step()) {
        const long long c = first + Team::offset(), start = spread.start(c);
        const long long group = groups == 1 ? 0 : quotient(c, per_group);
        T grad_weight = 0, grad_bias = 0;
        if (c < channels)
            for (long long p = chunk.begin + Team::rank(); p < chunk.end; p += Team::size()) {
                const long long i = start + spread.offset(p);
                const long long row = (inner == 1 ? p : quotient(p, inner)) * groups + group;
                const T grad = grad_out_ncl[i];
                grad_weight += grad * ((x_ncl[i] - mean_ng[row]) * rstd_ng[row]);
                grad_bias += grad;
            }
        grad_weight = Team::template reduce<Sum>(grad_weight);
        grad_bias = Team::template reduce<Sum>(grad_bias);
        if (c < channels && Team::rank() == 0) {
            grad_weight_kc[blockIdx.y * channels + c] = grad_weight;
            grad_bias_kc[blockIdx.y * channels + c] = grad_bias;
        }
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
