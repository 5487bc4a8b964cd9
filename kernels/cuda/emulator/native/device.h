// CUDA C++ for g++: force-included before an unmodified `.cu`, so that it compiles for the CPU.
//
// A CUDA thread is a fiber of the runtime. What a kernel asks of the hardware (indices, barriers,
// warp operations, atomics) is a call into the runtime; what it reads and writes is reported to the
// runtime by the compiler's own instrumentation (see runtime/hooks.h).
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <type_traits>
#include <utility>

// NVRTC has no host headers, so a kernel that uses these would fail on a GPU: it fails here too.
#undef INFINITY
#undef NAN
#undef HUGE_VAL
#undef HUGE_VALF
#undef M_PI
#undef M_PI_2
#undef M_E
#undef M_SQRT2
#undef M_SQRT1_2
#undef M_LN2
#undef assert

#define TRINE_EMULATOR 1
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __CUDA_ARCH__ 900

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __constant__ __attribute__((section("trine_constant")))
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// A thread_local in a block is static as well, and a module's thread_locals lie in one segment:
// that segment is the static shared memory. All fibers run on one thread of the system.
#define __shared__ thread_local

// For the shim's own code, whose accesses are not the kernel's.
#define TRINE_UNCHECKED __attribute__((noinline, no_sanitize("thread", "undefined")))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

// What the runtime offers. `line` names the place in errors; calls that meet must be on one line.
extern "C" {
uint3 trine_thread_index() __attribute__((const));
uint3 trine_block_index() __attribute__((const));
uint3 trine_block_dim() __attribute__((const));
uint3 trine_grid_dim() __attribute__((const));
void* trine_dynamic_shared() __attribute__((const));
int trine_block_barrier(int line, int kind, int predicate);
void trine_grid_barrier(int line);
uint64_t trine_warp(int line, int kind, unsigned mask, uint64_t value, int argument, int width);
void trine_fence(int scope);
void trine_yield();
void trine_touch_atomic(const void* address, unsigned size, void* pc);
void trine_touch(const void* address, size_t size, int is_write, void* pc);
void trine_fail(const char* kind, const char* message);
void trine_mma(int line, int shape, void* d, const void* a, const void* b, const void* c);
void trine_ldmatrix(int line, unsigned* out, int count, int transposed, const void* row);
void trine_copy_async(void* to, const void* from, unsigned size, unsigned from_size, void* pc);
void trine_copy_commit();
void trine_copy_wait(int groups_left);
}

#define threadIdx (trine_thread_index())
#define blockIdx (trine_block_index())
#define blockDim (trine_block_dim())
#define gridDim (trine_grid_dim())
static constexpr int warpSize = 32;

// --- barriers and fences

#define __syncthreads() ((void)trine_block_barrier(__LINE__, 0, 0))
#define __syncthreads_count(p) trine_block_barrier(__LINE__, 1, !!(p))
#define __syncthreads_and(p) trine_block_barrier(__LINE__, 2, !!(p))
#define __syncthreads_or(p) trine_block_barrier(__LINE__, 3, !!(p))
static inline void __threadfence_block() { trine_fence(0); }
static inline void __threadfence() { trine_fence(1); }
static inline void __threadfence_system() { trine_fence(2); }
static inline void __nanosleep(unsigned) { trine_yield(); }
#define __trap() trine_fail("assertion", "__trap() was reached")
#define assert(condition) \
    ((condition) ? (void)0 : trine_fail("assertion", "assert(" #condition ") does not hold"))

// --- warp operations: the kinds are those of runtime/warps.h

static inline void trine_syncwarp(int line, unsigned mask = 0xffffffffu) { trine_warp(line, 0, mask, 0, 0, 32); }
#define __syncwarp(...) trine_syncwarp(__LINE__ __VA_OPT__(, ) __VA_ARGS__)

template <class T> static inline T trine_shuffle(int line, int kind, unsigned mask, T value, int argument, int width) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shuffles move values of up to 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = trine_warp(line, kind, mask, bits, argument, width);
    T result;
    __builtin_memcpy(&result, &bits, sizeof(T));
    return result;
}
#define TRINE_SHUFFLE(name, kind)                                                                  \
    template <class T> static inline T name(int line, unsigned mask, T value, int argument, int width = 32) { \
        return trine_shuffle(line, kind, mask, value, argument, width);                             \
    }
TRINE_SHUFFLE(trine_shuffle_index, 1)
TRINE_SHUFFLE(trine_shuffle_up, 2)
TRINE_SHUFFLE(trine_shuffle_down, 3)
TRINE_SHUFFLE(trine_shuffle_xor, 4)
#undef TRINE_SHUFFLE
#define __shfl_sync(...) trine_shuffle_index(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) trine_shuffle_up(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) trine_shuffle_down(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) trine_shuffle_xor(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, p) ((unsigned)trine_warp(__LINE__, 5, mask, !!(p), 0, 32))
#define __any_sync(mask, p) ((int)trine_warp(__LINE__, 6, mask, !!(p), 0, 32))
#define __all_sync(mask, p) ((int)trine_warp(__LINE__, 7, mask, !!(p), 0, 32))
#define __match_any_sync(mask, v) ((unsigned)trine_shuffle<uint64_t>(__LINE__, 8, mask, trine_bits(v), 0, 32))
#define __reduce_add_sync(mask, v) ((decltype(v))trine_warp(__LINE__, 9, mask, (uint64_t)(int64_t)(v), 0, 32))
#define __reduce_min_sync(mask, v) ((decltype(v))trine_warp(__LINE__, 10, mask, (uint64_t)(int64_t)(v), 0, 32))
#define __reduce_max_sync(mask, v) ((decltype(v))trine_warp(__LINE__, 11, mask, (uint64_t)(int64_t)(v), 0, 32))
#define __activemask() \
    (trine_fail("unsupported", "__activemask() has no defined value; pass an explicit mask"), 0u)
template <class T> static inline uint64_t trine_bits(T value) {
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    return bits;
}

// --- copies: calls of the C library are not instrumented, so they are reported here

TRINE_UNCHECKED static void* trine_memcpy(void* to, const void* from, size_t size) {
    trine_touch(from, size, 0, __builtin_return_address(0));
    trine_touch(to, size, 1, __builtin_return_address(0));
    return __builtin_memmove(to, from, size);
}
TRINE_UNCHECKED static void* trine_memset(void* to, int value, size_t size) {
    trine_touch(to, size, 1, __builtin_return_address(0));
    return __builtin_memset(to, value, size);
}
#define memcpy trine_memcpy
#define memmove trine_memcpy
#define memset trine_memset

#include "device_vectors.h"
#include "device_math.h"
#include "device_atomics.h"
#include "device_exports.h"
