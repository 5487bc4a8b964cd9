// Random words and dropout: a thread draws a block of four words, for four neighbouring elements.
#include "numbers.h"
#include "philox.h"

// A kernel's name has its type, though words have none.
template <class T>
__global__ void random_bits(const unsigned* __restrict__ key, unsigned* __restrict__ out_n, long long n) {
    for (long long block = first_of_grid(); block * 4 < n; block += step_of_grid()) {
        const Words words = philox(key, (unsigned)block);
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (block * 4 + k < n) out_n[block * 4 + k] = words.w[k];
    }
}

// out = x * scale where the element's uniform is at least p, 0 elsewhere (also where x is NaN).
template <class T>
__global__ void dropout(
    const T* __restrict__ x_n, const unsigned* __restrict__ key, T* __restrict__ out_n, long long n, float p, T scale
) {
    for (long long block = first_of_grid(); block * 4 < n; block += step_of_grid()) {
        const Words words = philox(key, (unsigned)block);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const long long i = block * 4 + k;
            if (i < n) out_n[i] = uniform(words.w[k]) >= p ? x_n[i] * scale : T(0);
        }
    }
}
