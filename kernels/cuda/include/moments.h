// Mean and variance in two passes over what a team reads, the second of them from a cache: as accurate
// as the reference far from zero, where sums of squares lose all digits.
#pragma once
#include "rows.h"

template <class T> struct Moments {
    T sum;         // of the elements
    T deviations;  // sum of (x - mean)^2
};

// Over positions [begin, end) of the row that starts at x; all of a team take part.
template <class Team, class T>
__device__ __forceinline__ Moments<T> moments(const T* x, const Spread& spread, long long begin, long long end) {
    T sum = 0, deviations = 0;
    for (long long p = begin + Team::rank(); p < end; p += Team::size()) sum += x[spread.offset(p)];
    sum = Team::template reduce<Sum>(sum);
    const T mean = sum / T(end - begin);
    for (long long p = begin + Team::rank(); p < end; p += Team::size()) {
        const T centred = x[spread.offset(p)] - mean;
        deviations += centred * centred;
    }
    return {sum, Team::template reduce<Sum>(deviations)};
}

template <class T> __device__ __forceinline__ T inverse_deviation(T var, T eps) { return T(1) / sqrt(var + eps); }
