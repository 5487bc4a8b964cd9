// The vector types float2 ... ulonglong4, aligned as in CUDA, and loads with a cache hint.
#pragma once

#define TRINE_VECTORS(T, N, A2, A4)                                                                \
    struct N##1 { T x; };                                                                          \
    struct alignas(A2) N##2 { T x, y; };                                                           \
    struct alignas(A4) N##4 { T x, y, z, w; };                                                     \
    static inline N##1 make_##N##1(T x) { return {x}; }                                            \
    static inline N##2 make_##N##2(T x, T y) { return {x, y}; }                                    \
    static inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define TRINE_VECTOR3(T, N)                                                                        \
    struct N##3 { T x, y, z; };                                                                    \
    static inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }
TRINE_VECTORS(float, float, 8, 16)
TRINE_VECTORS(double, double, 16, 16)
TRINE_VECTORS(signed char, char, 2, 4)
TRINE_VECTORS(unsigned char, uchar, 2, 4)
TRINE_VECTORS(short, short, 4, 8)
TRINE_VECTORS(unsigned short, ushort, 4, 8)
TRINE_VECTORS(int, int, 8, 16)
TRINE_VECTORS(unsigned, uint, 8, 16)
TRINE_VECTORS(long long, longlong, 16, 16)
TRINE_VECTORS(unsigned long long, ulonglong, 16, 16)
TRINE_VECTOR3(float, float)
TRINE_VECTOR3(double, double)
TRINE_VECTOR3(signed char, char)
TRINE_VECTOR3(unsigned char, uchar)
TRINE_VECTOR3(short, short)
TRINE_VECTOR3(unsigned short, ushort)
TRINE_VECTOR3(int, int)
TRINE_VECTOR3(long long, longlong)
TRINE_VECTOR3(unsigned long long, ulonglong)
static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
#undef TRINE_VECTORS
#undef TRINE_VECTOR3

#define TRINE_LOAD(name) template <class T> static inline T name(const T* p) { return *p; }
TRINE_LOAD(__ldg)
TRINE_LOAD(__ldcg)
TRINE_LOAD(__ldca)
TRINE_LOAD(__ldcs)
#undef TRINE_LOAD
#define TRINE_STORE(name) template <class T> static inline void name(T* p, T value) { *p = value; }
TRINE_STORE(__stcg)
TRINE_STORE(__stcs)
TRINE_STORE(__stwb)
#undef TRINE_STORE
