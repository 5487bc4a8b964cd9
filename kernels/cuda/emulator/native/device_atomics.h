// Atomics: all fibers share one thread of the system, so a plain read and write is atomic; the
// runtime is told, so that it knows an atomic from a plain access and sees the address's faults.
#pragma once

#define TRINE_ATOMIC(name, expression)                                                             \
    template <class T> TRINE_UNCHECKED T name(T* p, std::common_type_t<T> value) {                 \
        trine_touch_atomic(p, sizeof(T), __builtin_return_address(0));                              \
        T old = *p;                                                                                \
        *p = (T)(expression);                                                                      \
        return old;                                                                                \
    }                                                                                              \
    template <class T> TRINE_UNCHECKED T name##_block(T* p, std::common_type_t<T> value) {         \
        trine_touch_atomic(p, sizeof(T), __builtin_return_address(0));                              \
        T old = *p;                                                                                \
        *p = (T)(expression);                                                                      \
        return old;                                                                                \
    }
TRINE_ATOMIC(atomicAdd, old + value)
TRINE_ATOMIC(atomicSub, old - value)
TRINE_ATOMIC(atomicExch, value)
TRINE_ATOMIC(atomicMin, value < old ? value : old)
TRINE_ATOMIC(atomicMax, old < value ? value : old)
TRINE_ATOMIC(atomicAnd, old & value)
TRINE_ATOMIC(atomicOr, old | value)
TRINE_ATOMIC(atomicXor, old ^ value)
TRINE_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
TRINE_ATOMIC(atomicDec, (old == 0 || old > value) ? value : old - 1)
#undef TRINE_ATOMIC
template <class T> TRINE_UNCHECKED T atomicCAS(T* p, std::common_type_t<T> expected, std::common_type_t<T> value) {
    trine_touch_atomic(p, sizeof(T), __builtin_return_address(0));
    T old = *p;
    if (old == expected) *p = value;
    return old;
}
