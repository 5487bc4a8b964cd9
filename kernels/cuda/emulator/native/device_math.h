// CUDA's device functions that the C library lacks, or names otherwise.
//
// The fast intrinsics (`__expf`, ...) compute the exact function: their error on a GPU is not
// modelled. Sums and products are never contracted to an FMA (-ffp-contract=off).
#pragma once

// glibc declares some of these names itself.
#define __expf trine__expf
#define __exp10f trine__exp10f
#define __logf trine__logf
#define __log2f trine__log2f
#define __log10f trine__log10f
#define __sinf trine__sinf
#define __cosf trine__cosf
#define __tanf trine__tanf
#define __tanhf trine__tanhf
#define __powf trine__powf
#define __sincosf trine__sincosf
#define __isnan trine__isnan
#define __isinf trine__isinf

#define TRINE_F1(name, expression) static inline float name(float x) { return expression; }
#define TRINE_D1(name, expression) static inline double name(double x) { return expression; }
TRINE_F1(__expf, expf(x))
TRINE_F1(__exp10f, powf(10.0f, x))
TRINE_F1(__logf, logf(x))
TRINE_F1(__log2f, log2f(x))
TRINE_F1(__log10f, log10f(x))
TRINE_F1(__sinf, sinf(x))
TRINE_F1(__cosf, cosf(x))
TRINE_F1(__tanf, tanf(x))
TRINE_F1(__tanhf, tanhf(x))
TRINE_F1(rsqrtf, 1.0f / sqrtf(x))
TRINE_F1(__frsqrt_rn, 1.0f / sqrtf(x))
TRINE_F1(__frcp_rn, 1.0f / x)
TRINE_F1(__fsqrt_rn, sqrtf(x))
TRINE_F1(__saturatef, x > 0.0f ? (x > 1.0f ? 1.0f : x) : 0.0f)
TRINE_F1(normcdff, 0.5f * erfcf(-x * 0.70710678118654752f))
TRINE_F1(sinpif, sinf(3.14159265358979f * x))
TRINE_F1(cospif, cosf(3.14159265358979f * x))
TRINE_D1(rsqrt, 1.0 / sqrt(x))
TRINE_D1(__drcp_rn, 1.0 / x)
TRINE_D1(__dsqrt_rn, sqrt(x))
TRINE_D1(normcdf, 0.5 * erfc(-x * 0.70710678118654752440))
#undef TRINE_F1
#undef TRINE_D1
static inline void __sincosf(float x, float* s, float* c) { *s = sinf(x); *c = cosf(x); }
static inline float __powf(float a, float b) { return powf(a, b); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

template <class To, class From> static inline To trine_reinterpret(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}
static inline int __float_as_int(float x) { return trine_reinterpret<int>(x); }
static inline unsigned __float_as_uint(float x) { return trine_reinterpret<unsigned>(x); }
static inline float __int_as_float(int x) { return trine_reinterpret<float>(x); }
static inline float __uint_as_float(unsigned x) { return trine_reinterpret<float>(x); }
static inline long long __double_as_longlong(double x) { return trine_reinterpret<long long>(x); }
static inline double __longlong_as_double(long long x) { return trine_reinterpret<double>(x); }
static inline int __double2int_rn(double x) { return (int)nearbyint(x); }
static inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline unsigned __float2uint_rn(float x) { return (unsigned)nearbyintf(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __double2float_rn(double x) { return (float)x; }
static inline double __hiloint2double(int hi, int lo) {
    return trine_reinterpret<double>(((uint64_t)(unsigned)hi << 32) | (unsigned)lo);
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
static inline int __mulhi(int a, int b) { return (int)(((int64_t)a * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= ((x >> i) & 1u) << (31 - i);
    return reversed;
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s) {
    return (unsigned)(((((uint64_t)hi << 32) | lo) << (s & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned s) {
    return (unsigned)((((uint64_t)hi << 32) | lo) >> (s & 31));
}

#define TRINE_MIN_MAX(T)                                                                           \
    static inline T min(T a, T b) { return b < a ? b : a; }                                        \
    static inline T max(T a, T b) { return a < b ? b : a; }
TRINE_MIN_MAX(int)
TRINE_MIN_MAX(unsigned)
TRINE_MIN_MAX(long)
TRINE_MIN_MAX(unsigned long)
TRINE_MIN_MAX(long long)
TRINE_MIN_MAX(unsigned long long)
#undef TRINE_MIN_MAX
static inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
static inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
static inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
static inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
// As CUDA's: of a number and a NaN, the number.
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(float a, double b) { return fmin(a, b); }
static inline double min(double a, float b) { return fmin(a, b); }
static inline double max(float a, double b) { return fmax(a, b); }
static inline double max(double a, float b) { return fmax(a, b); }
