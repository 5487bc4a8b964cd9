// Who works on a row: kernels over rows are written once and instantiated for each kind of team.
//
//     for (long long first = Team::first(); first < rows; first += Team::step()) {
//         const long long row = first + Team::offset();   // may lie beyond the last: then do nothing,
//         ...                                             // but take part in Team::reduce
//         for (long long i = Team::rank(); i < length; i += Team::size()) ...
//         total = Team::template reduce<Sum>(total);
//
// WarpRow: short rows of neighbouring elements, one a warp. BlockRow: long ones, one a block.
// ColumnRow: rows whose elements lie apart, 32 neighbouring rows a block, so that its lanes read
// neighbours. `rows.py` beside the kernels chooses.
#pragma once
#include "reduce.h"

struct WarpRow {
    static __device__ __forceinline__ int rank() { return threadIdx.x % WARP; }
    static __device__ __forceinline__ int size() { return WARP; }
    static __device__ __forceinline__ int offset() { return 0; }
    static __device__ __forceinline__ long long first() {
        return (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    }
    static __device__ __forceinline__ long long step() { return (long long)gridDim.x * (blockDim.x / WARP); }
    template <class Op, class T> static __device__ __forceinline__ T reduce(T value) { return reduce_warp<Op>(value); }
};

struct BlockRow {
    static __device__ __forceinline__ int rank() { return threadIdx.x; }
    static __device__ __forceinline__ int size() { return blockDim.x; }
    static __device__ __forceinline__ int offset() { return 0; }
    static __device__ __forceinline__ long long first() { return blockIdx.x; }
    static __device__ __forceinline__ long long step() { return gridDim.x; }
    template <class Op, class T> static __device__ __forceinline__ T reduce(T value) { return reduce_block<Op>(value); }
};

struct ColumnRow {
    static __device__ __forceinline__ int rank() { return threadIdx.y; }
    static __device__ __forceinline__ int size() { return blockDim.y; }
    static __device__ __forceinline__ int offset() { return threadIdx.x; }
    static __device__ __forceinline__ long long first() { return (long long)blockIdx.x * blockDim.x; }
    static __device__ __forceinline__ long long step() { return (long long)gridDim.x * blockDim.x; }
    template <class Op, class T> static __device__ __forceinline__ T reduce(T value) {
        return reduce_along_y<Op>(value);
    }
};

// a / b of numbers that are not negative, in 32 bits where they fit: in 64 it takes some 70 instructions.
__device__ __forceinline__ long long quotient(long long a, long long b) {
    return ((a | b) >> 32) == 0 ? (long long)((unsigned)a / (unsigned)b) : a / b;
}

// Where position p of row r lies in an array (outer, count, kept, inner), rows being (outer, kept) and
// positions (count, inner): every reduction over axes has this form, or is several of it.
struct Spread {
    long long count, kept, inner;

    __device__ __forceinline__ long long length() const { return count * inner; }
    __device__ __forceinline__ long long start(long long row) const {
        const long long outer = kept == 1 ? row : quotient(row, kept);
        return (outer * count * kept + (row - outer * kept)) * inner;
    }
    __device__ __forceinline__ long long offset(long long p) const {
        if (inner == 1) return p * kept;
        if (kept == 1) return p;
        const long long c = quotient(p, inner);
        return c * kept * inner + (p - c * inner);
    }
};

// The part [begin, end) of a row that the blocks of one blockIdx.y do.
struct Chunk {
    long long begin, end;
    __device__ __forceinline__ Chunk(long long length) {
        const long long size = (length + gridDim.y - 1) / gridDim.y;
        begin = size * blockIdx.y;
        if (begin > length) begin = length;
        end = begin + size < length ? begin + size : length;
    }
    __device__ __forceinline__ Chunk none() const {
        Chunk empty = *this;
        empty.end = empty.begin;
        return empty;
    }
};
