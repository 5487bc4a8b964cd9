// __nv_bfloat16: the upper half of a float, rounded to nearest, ties to even.
#pragma once

struct alignas(2) __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float value) : bits(encode(value)) {}
    __nv_bfloat16(double value) : bits(encode((float)value)) {}
    __nv_bfloat16(int value) : bits(encode((float)value)) {}
    operator float() const { return __uint_as_float((uint32_t)bits << 16); }

    static uint16_t encode(float value) {
        const uint32_t word = __float_as_uint(value);
        if ((word & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;  // NaN
        return (uint16_t)((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
    }
};
typedef __nv_bfloat16 nv_bfloat16;
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
typedef __nv_bfloat162 nv_bfloat162;

static inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
static inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
static inline float __bfloat162float(__nv_bfloat16 x) { return (float)x; }
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) {
    __nv_bfloat16 h;
    h.bits = x;
    return h;
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
static inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
static inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {(float)v.x, (float)v.y}; }
#define TRINE_BFLOAT(name, symbol)                                                                              \
    static inline __nv_bfloat16 name(__nv_bfloat16 a, __nv_bfloat16 b) { return (float)a symbol (float)b; }     \
    static inline __nv_bfloat16 operator symbol(__nv_bfloat16 a, __nv_bfloat16 b) { return name(a, b); }        \
    static inline __nv_bfloat162 name##2(__nv_bfloat162 a, __nv_bfloat162 b) { return {name(a.x, b.x), name(a.y, b.y)}; }
TRINE_BFLOAT(__hadd, +)
TRINE_BFLOAT(__hsub, -)
TRINE_BFLOAT(__hmul, *)
TRINE_BFLOAT(__hdiv, /)
#undef TRINE_BFLOAT
