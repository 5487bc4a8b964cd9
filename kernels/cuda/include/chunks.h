// The second half of reductions over rows in chunks: parts are added in their order.
#pragma once
#include "rows.h"

// out_r = sum of part_kr over chunks k; one thread a row.
template <class T>
__device__ __forceinline__ void add_chunks(const T* part_kr, T* out_r, long long chunks, long long rows) {
    for (long long r = first_of_grid(); r < rows; r += step_of_grid()) {
        T sum = part_kr[r];
        for (long long k = 1; k < chunks; k++) sum += part_kr[k * rows + r];
        out_r[r] = sum;
    }
}
