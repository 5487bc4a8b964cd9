// Bringing slices of the operands of a product to shared memory, while an earlier one is multiplied.
//
// What differs between products is where the elements of their operands lie. A loader knows it. It
// calls a row of A or a column of B a line, and k the depth:
//
//   Line line(int i)                where line i begins
//   Walk walk(int depth, int step)  a place along the depth, which `next()` moves by `step`
//   T get(line, walk)               the element, 0 outside
//   deep                            whether neighbours in depth are neighbours in memory
//   plain                           whether elements go as they lie in memory, where
//                                   `const T* find(line, walk)` has them, null outside
//   widens, bool wide()             whether it may know four neighbours to be there together and
//                                   aligned, and whether they are
//
// Plain elements of 4 bytes are copied by cp.async where the hardware has it, four at a time where they
// lie alike in both memories; others pass through registers. Neighbouring threads take neighbours in
// memory: a deep operand has one depth and several lines a thread, any other one line and several
// depths. In both cases a thread's depths lie evenly, over all slices, so no loader divides in the loop.
#pragma once
#include "async_copy.h"

// The element at a place that a loader found.
template <class T> __device__ __forceinline__ T value_at(const T* place) { return place ? *place : T(0); }

__device__ __forceinline__ bool is_aligned(const void* p) { return (unsigned long long)p % 16 == 0; }

// How slices of so many lines of an operand lie: depth by depth; or line by line, for tensor cores and
// deep operands. The padding keeps threads that read together apart in the banks.
template <class T, class Shape, bool deep, int lines> struct Slice {
    static constexpr bool by_line = Shape::tensor && deep;
    static constexpr int padding = by_line ? 4 : Shape::tensor ? 8 : 16 / (int)sizeof(T);
    static constexpr int stride = (by_line ? Shape::depth : lines) + padding;
    static constexpr int size = stride * (by_line ? lines : Shape::depth);

    static __device__ __forceinline__ int place(int line, int depth) {
        return by_line ? line * stride + depth : depth * stride + line;
    }
};

// The share of one thread in bringing slices of an operand.
template <class T, class Shape, class Loader, int lines_of_slice>
struct Feed : Slice<T, Shape, Loader::deep, lines_of_slice> {
    using Base = Slice<T, Shape, Loader::deep, lines_of_slice>;
    static constexpr bool deep = Loader::deep, async = has_copy_async && Loader::plain && sizeof(T) == 4;
    static constexpr bool widens = async && Loader::widens && deep == Base::by_line;
    static constexpr int depth = Shape::depth, threads = Shape::threads, lines = lines_of_slice;
    static constexpr int count = lines * depth / threads;
    static constexpr int quads_of_lines = lines < 4 ? 1 : lines / 4, quads_of_depth = depth < 4 ? 1 : depth / 4;

    const Loader& loader;
    const bool wide;
    const int line_0, depth_0, line_step, depth_step;
    typename Loader::Line line[deep ? count : 1];
    typename Loader::Walk walk;
    T held[count];

    __device__ __forceinline__ Feed(const Loader& from, int first_line, int first_depth)
        : Feed(from, first_line, first_depth, is_wide(from)) {}
    __device__ __forceinline__ Feed(const Loader& from, int first_line, int first_depth, bool four)
        : loader(from), wide(four),
          line_0(deep   ? (int)threadIdx.x / (four ? quads_of_depth : depth)
                 : four ? (int)threadIdx.x % quads_of_lines * 4
                        : (int)threadIdx.x % lines),
          depth_0(!deep  ? (int)threadIdx.x / (four ? quads_of_lines : lines)
                  : four ? (int)threadIdx.x % quads_of_depth * 4
                         : (int)threadIdx.x % depth),
          line_step((four ? 4 : 1) * threads / depth), depth_step((four ? 4 : 1) * threads / lines),
          walk(from.walk(first_depth + depth_0, deep ? depth : depth_step)) {
#pragma unroll
        for (int i = 0; i < (deep ? count : 1); i++)
            if (!wide || i < count / 4 || !deep) line[i] = loader.line(first_line + line_0 + i * line_step);
    }
    static __device__ __forceinline__ bool is_wide(const Loader& from) {
        if constexpr (widens) return from.wide();
        else return false;
    }

    // By cp.async: the elements are on their way into a slice.
    __device__ __forceinline__ void send(T* slice) {
        if constexpr (widens)
            if (wide) return copy<4>(slice);
        copy<1>(slice);
    }
    template <int elements> __device__ __forceinline__ void copy(T* slice) {
        constexpr int copies = count / elements, copy_lines = deep ? copies : 1, copy_depths = deep ? 1 : copies;
        constexpr int bytes = elements * (int)sizeof(T);
#pragma unroll
        for (int d = 0; d < copy_depths; d++) {
#pragma unroll
            for (int i = 0; i < copy_lines; i++) {
                const T* const from = loader.find(line[i], walk);
                copy_async<bytes>(
                    slice + Base::place(line_0 + i * line_step, depth_0 + d * depth_step), from, from ? bytes : 0);
            }
            walk.next();
        }
    }

    // Through registers, first the one, then the other.
    static constexpr int own_lines = deep ? count : 1, own_depths = deep ? 1 : count;
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int d = 0; d < own_depths; d++) {
#pragma unroll
            for (int i = 0; i < own_lines; i++) held[d * own_lines + i] = loader.get(line[i], walk);
            walk.next();
        }
    }
    __device__ __forceinline__ void put(T* slice) {
#pragma unroll
        for (int d = 0; d < own_depths; d++)
#pragma unroll
            for (int i = 0; i < own_lines; i++)
                slice[Base::place(line_0 + i * line_step, depth_0 + d * depth_step)] = held[d * own_lines + i];
    }
};

// Calls use(slice of A, slice of B) for all depths begin <= k < end in turn; once a kernel, by all threads.
// A's lines begin at first_row, B's at first_column.
template <class T, class Shape, class A, class B, class Use>
__device__ __forceinline__ void each_slice(
    const A& a, const B& b, int first_row, int first_column, int begin, int end, Use use
) {
    using FeedA = Feed<T, Shape, A, Shape::rows>;
    using FeedB = Feed<T, Shape, B, Shape::columns>;
    // One slot is read, the others are on their way: one by registers, more by cp.async.
    constexpr bool async = FeedA::async || FeedB::async;
    constexpr int slots = async ? Shape::slots : 2;
    alignas(16) __shared__ T slice_a[slots][FeedA::size];
    alignas(16) __shared__ T slice_b[slots][FeedB::size];
    if (begin >= end) return;
    const int slices = (end - begin - 1) / Shape::depth + 1;
    FeedA feed_a(a, first_row, begin);
    FeedB feed_b(b, first_column, begin);
    const auto send = [&](int slot) {
        if constexpr (FeedA::async) feed_a.send(slice_a[slot]);
        if constexpr (FeedB::async) feed_b.send(slice_b[slot]);
    };
    const auto fetch = [&] {
        if constexpr (!FeedA::async) feed_a.fetch();
        if constexpr (!FeedB::async) feed_b.fetch();
    };
    const auto put = [&](int slot) {
        if constexpr (!FeedA::async) feed_a.put(slice_a[slot]);
        if constexpr (!FeedB::async) feed_b.put(slice_b[slot]);
    };
    // A slice is asked for `ahead` turns before it is used; one by registers only one turn before.
    constexpr int ahead = slots - 1;
    int now = 0, fill = 0, put_to = 0;
    for (int slice = -ahead; slice < slices; slice++) {
        if (slice >= 0) {
            if constexpr (async) copy_async_wait<ahead - 1>();
            __syncthreads();  // this slice is there for all, and all are through with the one before
        }
        if constexpr (async) {
            if (slice + ahead < slices) send(fill);
            copy_async_commit();  // an empty group, too, is counted
            fill = fill + 1 == slots ? 0 : fill + 1;
        }
        const bool more = slice >= -1 && slice + 1 < slices;
        if (more) fetch();
        if (slice >= 0) {
            use(slice_a[now], slice_b[now]);
            now = now + 1 == slots ? 0 : now + 1;
        }
        if (more) {
            put(put_to);
            put_to = put_to + 1 == slots ? 0 : put_to + 1;
        }
    }
}
