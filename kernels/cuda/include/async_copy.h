// cp.async through small wrappers: copies from global to shared memory that run on by themselves.
//
// The bytes are there for the issuing thread after copy_async_wait<n>(), which leaves at most the n
// youngest groups under way, and for the others after a barrier that follows it. `from_bytes` below
// the size reads only so many and fills up with zeros. (CUDA 8.0 and later hardware.)
#pragma once

constexpr bool has_copy_async = __CUDA_ARCH__ >= 800;

#ifdef TRINE_EMULATOR

template <int bytes> TRINE_UNCHECKED static void copy_async(void* to, const void* from, int from_bytes = bytes) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    trine_copy_async(to, from, bytes, (unsigned)from_bytes, __builtin_return_address(0));
}
static inline void copy_async_commit() { trine_copy_commit(); }
template <int groups_left> static inline void copy_async_wait() { trine_copy_wait(groups_left); }

#else

template <int bytes> __device__ __forceinline__ void copy_async(void* to, const void* from, int from_bytes = bytes) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    const unsigned target = (unsigned)__cvta_generic_to_shared(to);
    if (bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(from_bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target), "l"(from), "n"(bytes), "r"(from_bytes) : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int groups_left> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
}

#endif
