// Reductions of (outer, count, kept, inner) over count and inner, and positions of extrema.
#include "rows.h"

// part_kr: of each chunk k, the result of rows r = (outer, kept); the result itself for one chunk.
template <class T, class Op, class Team>
__global__ void reduce(
    const T* __restrict__ x, T* __restrict__ part_kr, long long rows, long long count, long long kept, long long inner
) {
    const Spread spread{count, kept, inner};
    const Chunk chunk(spread.length());
    for (long long first = Team::first(); first < rows; first += Team::step()) {
        const long long row = first + Team::offset(), start = spread.start(row);
        T value = Op::template nothing<T>();
        if (row < rows)
            for (long long p = chunk.begin + Team::rank(); p < chunk.end; p += Team::size())
                value = Op::combine(value, x[start + spread.offset(p)]);
        value = Team::template reduce<Op>(value);
        if (row < rows && Team::rank() == 0) part_kr[blockIdx.y * rows + row] = value;
    }
}

// A float's value fits exactly, and a struct without gaps is written to shared memory as a whole.
struct Candidate {
    double value;
    long long at;
};

__device__ __forceinline__ Candidate from_lane_xor(Candidate c, int lanes) {
    return {from_lane_xor(c.value, lanes), __shfl_xor_sync(WHOLE_WARP, c.at, lanes)};
}

// The first of the best values; NaN is better than any number, as for NumPy.
template <bool LARGEST> struct FirstBest {
    template <class C> static __device__ __forceinline__ C nothing() {
        return {LARGEST ? -Numbers<double>::infinity() : Numbers<double>::infinity(), 0x7fffffffffffffffLL};
    }
    static __device__ __forceinline__ Candidate combine(Candidate a, Candidate b) {
        const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
        const bool equal = a_nan ? b_nan : a.value == b.value;
        const bool better = a_nan || (!b_nan && (LARGEST ? a.value > b.value : a.value < b.value));
        return (equal ? a.at < b.at : better) ? a : b;
    }
};

template <class T, bool LARGEST, class Team>
__global__ void position(
    const T* __restrict__ x, long long* __restrict__ out_r, long long rows, long long count, long long kept
) {
    using Op = FirstBest<LARGEST>;
    const Spread spread{count, kept, 1};
    for (long long first = Team::first(); first < rows; first += Team::step()) {
        const long long row = first + Team::offset(), start = spread.start(row);
        Candidate best = Op::template nothing<Candidate>();
        if (row < rows)
            for (long long p = Team::rank(); p < count; p += Team::size())
                best = Op::combine(best, Candidate{(double)x[start + p * kept], p});
        best = Team::template reduce<Op>(best);
        if (row < rows && Team::rank() == 0) out_r[row] = best.at;
    }
}
