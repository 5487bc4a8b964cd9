// __half and __half2: stored in 16 bits, computed in float and rounded to nearest, ties to even.
#pragma once

struct alignas(2) __half {
    uint16_t bits;
    __half() = default;
    __half(float value) : bits(encode(value)) {}
    __half(double value) : bits(encode((float)value)) {}
    __half(int value) : bits(encode((float)value)) {}
    operator float() const { return decode(bits); }

    static uint16_t encode(float value) {
        const uint32_t word = __float_as_uint(value), sign = (word >> 16) & 0x8000u, rest = word & 0x7fffffffu;
        if (rest > 0x7f800000u) return 0x7fffu;                        // NaN
        if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);    // rounds to infinity
        if (rest < 0x38800000u) {                                      // below 2^-14: a multiple of 2^-24
            const float scaled = __uint_as_float(rest) * 16777216.0f;
            return (uint16_t)(sign | (uint32_t)nearbyintf(scaled));
        }
        const uint32_t odd = (rest >> 13) & 1u;
        return (uint16_t)(sign | ((rest - 0x38000000u + 0xfffu + odd) >> 13));
    }
    static float decode(uint16_t half) {
        const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, mantissa = half & 1023u;
        if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | (mantissa << 13));
        if (exponent) return __uint_as_float(sign | ((exponent + 112u) << 23) | (mantissa << 13));
        const float magnitude = (float)mantissa * 5.9604644775390625e-8f;  // 2^-24
        return sign ? -magnitude : magnitude;
    }
};
typedef __half half;
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half2 half2;

static inline __half __float2half(float x) { return __half(x); }
static inline __half __float2half_rn(float x) { return __half(x); }
static inline float __half2float(__half x) { return (float)x; }
static inline __half __double2half(double x) { return __half(x); }
static inline unsigned short __half_as_ushort(__half x) { return x.bits; }
static inline __half __ushort_as_half(unsigned short x) {
    __half h;
    h.bits = x;
    return h;
}
static inline __half2 __float2half2_rn(float x) { return {__half(x), __half(x)}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline __half2 __half2half2(__half x) { return {x, x}; }
static inline __half __low2half(__half2 v) { return v.x; }
static inline __half __high2half(__half2 v) { return v.y; }
static inline float __low2float(__half2 v) { return (float)v.x; }
static inline float __high2float(__half2 v) { return (float)v.y; }
static inline float2 __half22float2(__half2 v) { return {(float)v.x, (float)v.y}; }
static inline __half2 __float22half2_rn(float2 v) { return {__half(v.x), __half(v.y)}; }

#define TRINE_HALF(name, symbol)                                                                      \
    static inline __half name(__half a, __half b) { return __half((float)a symbol (float)b); }        \
    static inline __half2 name##2(__half2 a, __half2 b) { return {name(a.x, b.x), name(a.y, b.y)}; }  \
    static inline __half operator symbol(__half a, __half b) { return name(a, b); }                   \
    static inline __half2 operator symbol(__half2 a, __half2 b) { return name##2(a, b); }
TRINE_HALF(__hadd, +)
TRINE_HALF(__hsub, -)
TRINE_HALF(__hmul, *)
TRINE_HALF(__hdiv, /)
#undef TRINE_HALF
static inline __half __h2div(__half a, __half b) { return __hdiv(a, b); }
static inline __half __hneg(__half a) { return __half(-(float)a); }
static inline __half __habs(__half a) { return __half(fabsf((float)a)); }
static inline __half __hmax(__half a, __half b) { return __half(fmaxf((float)a, (float)b)); }
static inline __half __hmin(__half a, __half b) { return __half(fminf((float)a, (float)b)); }
static inline bool __hgt(__half a, __half b) { return (float)a > (float)b; }
static inline bool __hlt(__half a, __half b) { return (float)a < (float)b; }
static inline bool __hisnan(__half a) { return (float)a != (float)a; }
// Exact in double but for sums of very unequal terms; then rounded once.
static inline __half __hfma(__half a, __half b, __half c) {
    const double exact = (double)(float)a * (float)b + (double)(float)c;
    float once = (float)exact;  // round to odd, so that the second rounding is the only one that counts
    if ((double)once != exact && !(__float_as_uint(once) & 1u))
        once = nextafterf(once, (double)once < exact ? __uint_as_float(0x7f800000u) : __uint_as_float(0xff800000u));
    return __half(once);
}
static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
