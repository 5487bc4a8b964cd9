// Loaders for convolutions as products, and ways to multiply where one side has few lines.
//
// An image is met by a window at (outer, i, j) and, within it, at another (outer, i, j): at the plane
// of both outers, in row first + i_line * move + i_depth * move, and alike along the width. Which of the
// two is the line and which the depth, and what the moves are, makes the three ops of a convolution.
#pragma once
#include "gemm_tile.h"

// A place in three nested loops, moved evenly without a division.
struct Nest {
    int outer, i, j;
    int outer_step, i_step, j_step, i_count, j_count;
    int depth, step;

    __device__ __forceinline__ Nest(int from, int by, int rows, int columns)
        : i_count(rows), j_count(columns), depth(from), step(by) {
        const int plane = rows * columns;
        outer = from / plane, i = from % plane / columns, j = from % columns;
        outer_step = by / plane, i_step = by % plane / columns, j_step = by % columns;
    }
    __device__ __forceinline__ void next() {
        depth += step;
        j += j_step, i += i_step, outer += outer_step;
        if (j >= j_count) j -= j_count, i++;
        if (i >= i_count) i -= i_count, outer++;
    }
};

struct Loop {  // what one of the two sides adds
    int i_count, j_count, i_move, j_move;
    long long plane_move;
};

// Elements of images met by windows; 0 in the padding.
template <class T, bool deep_> struct Patches {
    static constexpr bool deep = deep_, plain = true, widens = false;
    const T* at;
    int lines, depth, height, width, first_row, first_column;
    Loop along_line, along_depth;

    struct Line {
        long long offset;
        int row, column;
    };
    using Walk = Nest;
    __device__ __forceinline__ Line line(int index) const {
        if (index >= lines) return {0, -(1 << 30), 0};  // a row that no move brings inside
        const Nest place(index, 0, along_line.i_count, along_line.j_count);
        return {place.outer * along_line.plane_move, first_row + place.i * along_line.i_move,
                first_column + place.j * along_line.j_move};
    }
    __device__ __forceinline__ Walk walk(int from, int step) const {
        return {from, step, along_depth.i_count, along_depth.j_count};
    }
    __device__ __forceinline__ const T* find(const Line& line, const Walk& walk) const {
        const int row = line.row + walk.i * along_depth.i_move, column = line.column + walk.j * along_depth.j_move;
        if (walk.depth >= depth) return nullptr;
        if ((unsigned)row >= (unsigned)height || (unsigned)column >= (unsigned)width) return nullptr;
        return at + line.offset + walk.outer * along_depth.plane_move + (long long)row * width + column;
    }
    __device__ __forceinline__ T get(const Line& line, const Walk& walk) const { return value_at(find(line, walk)); }
};

// Lines that lie evenly, with a nest of depths: kernels by input channel, errors by output channel.
template <class T> struct Nested {
    static constexpr bool deep = true, plain = true, widens = false;
    const T* at;
    int lines, depth;
    long long line_move;
    Loop along_depth;

    struct Line {
        long long offset;
        bool inside;
    };
    using Walk = Nest;
    __device__ __forceinline__ Line line(int index) const { return {index * line_move, index < lines}; }
    __device__ __forceinline__ Walk walk(int from, int step) const {
        return {from, step, along_depth.i_count, along_depth.j_count};
    }
    __device__ __forceinline__ const T* find(const Line& line, const Walk& walk) const {
        if (!line.inside || walk.depth >= depth) return nullptr;
        return at + line.offset + walk.outer * along_depth.plane_move + (long long)walk.i * along_depth.i_move
                  + walk.j * along_depth.j_move;
    }
    __device__ __forceinline__ T get(const Line& line, const Walk& walk) const { return value_at(find(line, walk)); }
};

// Few rows, such as one kernel a group: each thread has a column for itself, and only A is shared.
template <int rows_, int depth_> struct Direct {
    static constexpr bool tensor = false;
    static constexpr int least_blocks = 1;  // for more of them the compiler would spill some registers
    static constexpr int rows = rows_, columns = 128, depth = depth_, down = rows_, across = 1, threads = 128;
};
using Direct1 = Direct<1, 128>;
using Direct8 = Direct<8, 16>;
using Direct16 = Direct<16, 16>;

template <class T, int rows_, int depth_> struct GemmTile<T, Direct<rows_, depth_>> {
    using Shape = Direct<rows_, depth_>;
    static constexpr int words = 16 / (int)sizeof(T), pack = rows_ < words ? rows_ : words;

    static __device__ __forceinline__ int row(int i) { return i; }
    static __device__ __forceinline__ int column(int) { return threadIdx.x; }
    template <class A, class B>
    static __device__ __forceinline__ void multiply(
        const A& a, const B& b, int first_row, int first_column, int begin, int end, T (&sum)[rows_][1]
    ) {
        using FeedA = Feed<T, Shape, A, rows_>;
        alignas(16) __shared__ T slice[FeedA::size];
        if (begin >= end) return;
        FeedA feed(a, first_row, begin);
        const typename B::Line line = b.line(first_column + threadIdx.x);
        typename B::Walk walk = b.walk(begin, 1);
        for (int k_0 = begin; k_0 < end; k_0 += depth_) {
            feed.fetch();
            __syncthreads();  // the slice before has been read
            feed.put(slice);
            __syncthreads();
            const int depths = min(depth_, end - k_0);
            for (int k = 0; k < depths; k++, walk.next()) {
                const T right = b.get(line, walk);
#pragma unroll
                for (int i = 0; i < rows_ / pack; i++) {
                    const Pack<T, pack> left = *(const Pack<T, pack>*)(slice + FeedA::place(i * pack, k));
#pragma unroll
                    for (int v = 0; v < pack; v++) sum[i * pack + v][0] += left.at[v] * right;
                }
            }
        }
    }
};

// Few elements of deep sums, such as the gradient of one kernel a group: a block adds four of a row.
struct Deep {
    static constexpr int least_blocks = 0;
    static constexpr int rows = 1, columns = 4, depth = 1, down = 1, across = 4, threads = 256;
};

template <class T> struct GemmTile<T, Deep> {
    // The sums are the first thread's; for the others they lie outside of every matrix.
    static __device__ __forceinline__ int row(int) { return threadIdx.x ? 1 << 30 : 0; }
    static __device__ __forceinline__ int column(int j) { return j; }
    template <class A, class B>
    static __device__ __forceinline__ void multiply(
        const A& a, const B& b, int first_row, int first_column, int begin, int end, T (&sum)[1][4]
    ) {
        __shared__ T parts[4][8];
        const typename A::Line left = a.line(first_row);
        typename B::Line right[4];
#pragma unroll
        for (int j = 0; j < 4; j++) right[j] = b.line(first_column + j);
        typename A::Walk walk_a = a.walk(begin + threadIdx.x, 256);
        typename B::Walk walk_b = b.walk(begin + threadIdx.x, 256);
        for (long long k = begin + (int)threadIdx.x; k < end; k += 256, walk_a.next(), walk_b.next()) {
            const T value = a.get(left, walk_a);
#pragma unroll
            for (int j = 0; j < 4; j++) sum[0][j] += value * b.get(right[j], walk_b);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            for (int lane = 16; lane; lane /= 2) sum[0][j] += __shfl_xor_sync(0xffffffffu, sum[0][j], lane);
            if (threadIdx.x % 32 == 0) parts[j][threadIdx.x / 32] = sum[0][j];
        }
        __syncthreads();
        if (threadIdx.x) return;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            sum[0][j] = parts[j][0];
            for (int warp = 1; warp < 8; warp++) sum[0][j] += parts[j][warp];
        }
    }
};
