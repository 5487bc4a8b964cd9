// Rows of a table by number, and the gradient that adds up in each row, in order and without atomics.
#include "rows.h"

// A number out of range gives a row of NaN: a fault that shows, instead of memory of others.
template <class T>
__global__ void embedding(
    const T* __restrict__ weight_vd, const long long* __restrict__ index_m, T* __restrict__ out_md, long long n,
    long long vocabulary, long long width
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const long long m = quotient(i, width), v = index_m[m];
        const bool in_range = v >= 0 && v < vocabulary;
        out_md[i] = in_range ? weight_vd[v * width + (i - m * width)] : Numbers<T>::infinity() - Numbers<T>::infinity();
    }
}

// A warp owns `own` neighbouring rows of the gradient. It looks through all numbers, 32 at a time, and
// adds what belongs to its rows in the order in which it comes; lanes own columns.
template <class T>
__global__ void embedding_backward(
    const T* __restrict__ grad_out_md, const long long* __restrict__ index_m, T* grad_weight_vd, long long count,
    long long vocabulary, long long width, long long padding_idx, int own
) {
    const int lane = WarpRow::rank();
    for (long long slice = WarpRow::first(); slice * own < vocabulary; slice += WarpRow::step()) {
        const long long begin = slice * own, end = begin + own < vocabulary ? begin + own : vocabulary;
        for (long long i = begin * width + lane; i < end * width; i += WARP) grad_weight_vd[i] = T(0);
        __syncwarp(WHOLE_WARP);  // a lane's columns are other elements than those it has cleared
        for (long long m0 = 0; m0 < count; m0 += WARP) {
            const long long v = m0 + lane < count ? index_m[m0 + lane] : -1;
            unsigned mine = __ballot_sync(WHOLE_WARP, v >= begin && v < end && v != padding_idx);
            while (mine) {
                const int from = __ffs((int)mine) - 1;
                mine &= mine - 1;
                const long long row = __shfl_sync(WHOLE_WARP, v, from), m = m0 + from;
                for (long long d = lane; d < width; d += WARP)
                    grad_weight_vd[row * width + d] += grad_out_md[m * width + d];
            }
        }
    }
}
