// One block's tile of a matrix product, C_mn = sum_k A_mk B_kn: the core of linear layers, matmul,
// convolution (implicit GEMM) and the recurrent products. Loaders (slices.h) know where A and B lie.
//
// The order of each sum is that of k: results do not depend on the grid.
#pragma once
#include "slices.h"

template <class T, int n> struct alignas(sizeof(T) * n) Pack {
    T at[n];
};

// rows x columns of C a block, from slices of `depth`; down x across of them a thread. `least_blocks` of a
// multiprocessor are what registers must leave room for; 0 leaves that to the compiler.
template <int rows_, int columns_, int depth_, int down_, int across_> struct Tile {
    static constexpr bool tensor = false;
    static constexpr int least_blocks = 0;
    static constexpr int rows = rows_, columns = columns_, depth = depth_, down = down_, across = across_, slots = 3;
    static constexpr int threads_down = rows / down, threads_across = columns / across;
    static constexpr int threads = threads_down * threads_across;
};
using Large = Tile<128, 128, 8, 8, 8>;
using Small = Tile<64, 64, 16, 4, 4>;
using Step = Tile<16, 32, 32, 2, 4>;  // a few sequences by a few units of a recurrent net

template <class T, class Shape> struct GemmTile {
    static constexpr int words = 16 / (int)sizeof(T);  // the widest load from shared memory
    static constexpr int down_pack = Shape::down < words ? Shape::down : words;
    static constexpr int across_pack = Shape::across < words ? Shape::across : words;

    // Packs of a thread lie apart, so that those of neighbours lie together: no bank conflicts.
    static __device__ __forceinline__ int place(int i, int thread, int threads, int pack) {
        return i / pack * (threads * pack) + thread * pack + i % pack;
    }
    // Where the thread's i-th row and j-th column lie in the tile.
    static __device__ __forceinline__ int row(int i) {
        return place(i, threadIdx.x / Shape::threads_across, Shape::threads_down, down_pack);
    }
    static __device__ __forceinline__ int column(int j) {
        return place(j, threadIdx.x % Shape::threads_across, Shape::threads_across, across_pack);
    }
    // The inverse: which thread across has a column of the tile, and as its how-manieth.
    static __device__ __forceinline__ int owner(int column) {
        return column % (Shape::threads_across * across_pack) / across_pack;
    }
    static __device__ __forceinline__ int rank(int column) {
        return column / (Shape::threads_across * across_pack) * across_pack + column % across_pack;
    }

    // Adds the products of depths begin <= k < end to `sum`; once a kernel, by all threads.
    template <class A, class B>
    static __device__ __forceinline__ void multiply(
        const A& a, const B& b, int first_row, int first_column, int begin, int end,
        T (&sum)[Shape::down][Shape::across]
    ) {
        using SliceA = Slice<T, Shape, A::deep, Shape::rows>;
        using SliceB = Slice<T, Shape, B::deep, Shape::columns>;
        each_slice<T, Shape>(a, b, first_row, first_column, begin, end, [&](const T* slice_a, const T* slice_b) {
#pragma unroll
            for (int k = 0; k < Shape::depth; k++) {
                Pack<T, down_pack> left[Shape::down / down_pack];
                Pack<T, across_pack> right[Shape::across / across_pack];
#pragma unroll
                for (int i = 0; i < Shape::down / down_pack; i++)
                    left[i] = *(const Pack<T, down_pack>*)(slice_a + SliceA::place(row(i * down_pack), k));
#pragma unroll
                for (int j = 0; j < Shape::across / across_pack; j++)
                    right[j] = *(const Pack<T, across_pack>*)(slice_b + SliceB::place(column(j * across_pack), k));
#pragma unroll
                for (int i = 0; i < Shape::down; i++)
#pragma unroll
                    for (int j = 0; j < Shape::across; j++)
                        sum[i][j] += left[i / down_pack].at[i % down_pack] * right[j / across_pack].at[j % across_pack];
            }
        });
    }
};

// The part of a product that this block computes: a grid holds (split, batch, row, column) of tiles.
// `layer` counts the matrices that are written, those of the first split first.
template <class Shape> struct TilePlace {
    int row, column, begin, end, batch, split;
    long long layer;

    __device__ __forceinline__ TilePlace(int rows, int columns, int depth, int splits) {
        const int tiles_down = (rows - 1) / Shape::rows + 1, tiles_across = (columns - 1) / Shape::columns + 1;
        const int tile = blockIdx.x / tiles_across;
        column = (int)(blockIdx.x % tiles_across) * Shape::columns;
        row = tile % tiles_down * Shape::rows;
        layer = tile / tiles_down;
        const int batches = gridDim.x / tiles_across / tiles_down / splits;
        batch = (int)layer % batches;
        split = (int)layer / batches;
        // Whole slices a split, so that only the last one is ragged.
        const int share = ((depth - 1) / Shape::depth / splits + 1) * Shape::depth;
        begin = min((long long)split * share, (long long)depth);
        end = min((long long)begin + share, (long long)depth);
    }
};

// A matrix whose lines have neighbours in depth (deep) or whose depths have neighbours in line.
template <class T, bool deep_> struct Matrix {
    static constexpr bool deep = deep_, plain = true, widens = true;
    const T* at;
    int lines, depth;
    long long stride;

    struct Line {
        long long offset;
        bool inside;
    };
    struct Walk {
        int depth, step;
        __device__ __forceinline__ void next() { depth += step; }
    };
    __device__ __forceinline__ Line line(int i) const { return {deep ? i * stride : i, i < lines}; }
    __device__ __forceinline__ Walk walk(int depth, int step) const { return {depth, step}; }
    __device__ __forceinline__ bool wide() const {
        return is_aligned(at) && stride % 4 == 0 && (deep ? depth : lines) % 4 == 0;
    }
    __device__ __forceinline__ bool inside(const Line& line, const Walk& walk) const {
        return line.inside && walk.depth < depth;
    }
    __device__ __forceinline__ long long offset(const Line& line, const Walk& walk) const {
        return line.offset + (deep ? walk.depth : walk.depth * stride);
    }
    __device__ __forceinline__ const T* find(const Line& line, const Walk& walk) const {
        return inside(line, walk) ? at + offset(line, walk) : nullptr;
    }
    __device__ __forceinline__ T get(const Line& line, const Walk& walk) const { return value_at(find(line, walk)); }
};
