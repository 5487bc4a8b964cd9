// What the compiler's instrumentation calls: -fsanitize=thread reports every load and store,
// -fsanitize=bounds,alignment,... the undefined operations. Both with our functions, not the
// sanitizers' libraries.
#pragma once
#include "shadow.h"

#define TRINE_HOOK(name, function, n, mode) \
    extern "C" void __tsan_##name##n(void* a) { function((uintptr_t)a, n, mode, (uintptr_t)CALLER); }
#define TRINE_HOOKS(n)                                            \
    TRINE_HOOK(read, access, n, kRead)                            \
    TRINE_HOOK(write, access, n, kWrite)                          \
    TRINE_HOOK(unaligned_read, access, n, kRead)                  \
    TRINE_HOOK(unaligned_write, access, n, kWrite)                \
    TRINE_HOOK(volatile_read, strong_access, n, kRead)            \
    TRINE_HOOK(volatile_write, strong_access, n, kWrite)          \
    TRINE_HOOK(unaligned_volatile_read, strong_access, n, kRead)  \
    TRINE_HOOK(unaligned_volatile_write, strong_access, n, kWrite)
TRINE_HOOKS(1)
TRINE_HOOKS(2)
TRINE_HOOKS(4)
TRINE_HOOKS(8)
TRINE_HOOKS(16)
extern "C" void __tsan_read_range(void* a, size_t n) {
    if (n) access((uintptr_t)a, (unsigned)n, kRead, (uintptr_t)CALLER);
}
extern "C" void __tsan_write_range(void* a, size_t n) {
    if (n) access((uintptr_t)a, (unsigned)n, kWrite, (uintptr_t)CALLER);
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}

struct SourcePlace {
    const char* file;
    uint32_t line, column;
};
#define TRINE_UNDEFINED(name, kind, text)                                                                 \
    extern "C" void __ubsan_handle_##name(SourcePlace*, void*, void*) { FAIL(CALLER, kind, text); }        \
    extern "C" void __ubsan_handle_##name##_abort(SourcePlace*, void*, void*) { FAIL(CALLER, kind, text); }
TRINE_UNDEFINED(add_overflow, "int-overflow", "a signed sum overflows")
TRINE_UNDEFINED(sub_overflow, "int-overflow", "a signed difference overflows")
TRINE_UNDEFINED(mul_overflow, "int-overflow", "a signed product overflows")
TRINE_UNDEFINED(negate_overflow, "int-overflow", "the negation of a signed integer overflows")
TRINE_UNDEFINED(divrem_overflow, "divide-by-zero", "an integer division by zero, or of the smallest integer by -1")
TRINE_UNDEFINED(shift_out_of_bounds, "bad-shift", "a shift by a negative count or by the width and more, or of a negative value")

static void index_outside(long long index, void* pc) {
    FAIL(pc, "out-of-bounds", "index %lld of an array whose size is declared", index);
}
extern "C" void __ubsan_handle_out_of_bounds(SourcePlace*, void* index) { index_outside((long long)index, CALLER); }
extern "C" void __ubsan_handle_out_of_bounds_abort(SourcePlace*, void* index) { index_outside((long long)index, CALLER); }

struct TypeMismatch {
    SourcePlace place;
    void* type;
    unsigned char log_alignment, kind;
};
static void misaligned(const TypeMismatch* m, void* address, void* pc) {
    FAIL(pc, "misaligned", "an access that needs a multiple of %d bytes, at one of %d", 1 << m->log_alignment,
         (int)((uintptr_t)address & -(uintptr_t)address & 0xffff));
}
extern "C" void __ubsan_handle_type_mismatch_v1(TypeMismatch* m, void* address) { misaligned(m, address, CALLER); }
extern "C" void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch* m, void* address) { misaligned(m, address, CALLER); }
