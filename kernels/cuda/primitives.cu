// Elementwise primitives with NumPy's broadcasting: unary functions, pairs, comparisons, a choice.
//
// The function is an argument and not a template's, so that a backend compiles four kernels and not
// eighty; all threads take the same branch, in kernels that wait for memory.
#include "rows.h"

enum Unary { NEG, ABS, SIGN, FLOOR, EXP, EXPM1, LOG, LOG1P, SQRT, SOFTPLUS };
enum Trigonometric { SIN, COS };
enum Test { LOGICAL_NOT, ISFINITE };
enum Binary { ADD, SUB, MUL, DIV, MAXIMUM, MINIMUM };
enum Comparison { EQUAL, NOT_EQUAL, GREATER, GREATER_EQUAL, LESS, LESS_EQUAL, LOGICAL_AND, LOGICAL_OR };

template <class T> __device__ __forceinline__ T unary_function(T x, int function) {
    switch (function) {
    case NEG: return -x;
    case ABS: return fabs(x);
    case SIGN: return x > T(0) ? T(1) : x < T(0) ? T(-1) : x == T(0) ? T(0) : x;
    case FLOOR: return floor(x);
    case EXP: return exp(x);
    case EXPM1: return expm1(x);
    case LOG: return log(x);
    case LOG1P: return log1p(x);
    case SQRT: return sqrt(x);
    default: return Largest::combine(x, T(0)) + log1p(exp(-fabs(x)));
    }
}

template <class T>
__global__ void unary(const T* __restrict__ x_n, T* __restrict__ out_n, long long n, int function) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) out_n[i] = unary_function(x_n[i], function);
}

// By themselves, since reducing a large angle takes memory of a thread's own.
template <class T>
__global__ void trigonometric(const T* __restrict__ x_n, T* __restrict__ out_n, long long n, int function) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid())
        out_n[i] = function == SIN ? sin(x_n[i]) : cos(x_n[i]);
}

template <class T>
__global__ void test(const T* __restrict__ x_n, bool* __restrict__ out_n, long long n, int function) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const T x = x_n[i];
        out_n[i] = function == ISFINITE ? x - x == T(0) : x == T(0);
    }
}

// Where element i of a result of (rest, n1, n2, n3) elements lies; sizes of axes that it lacks are 0.
struct Place {
    long long i0, i1, i2, i3;
    __device__ __forceinline__ Place(long long i, long long n1, long long n2, long long n3)
        : i0(0), i1(0), i2(0), i3(i) {
        if (n3 == 0) return;
        i2 = quotient(i, n3);
        i3 = i - i2 * n3;
        if (n2 == 0) return;
        i1 = quotient(i2, n2);
        i2 -= i1 * n2;
        if (n1 == 0) return;
        i0 = quotient(i1, n1);
        i1 -= i0 * n1;
    }
    __device__ __forceinline__ long long of(long long s0, long long s1, long long s2, long long s3) const {
        return i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3;
    }
};

template <class T> __device__ __forceinline__ T binary_function(T x, T y, int function) {
    switch (function) {
    case ADD: return x + y;
    case SUB: return x - y;
    case MUL: return x * y;
    case DIV: return x / y;
    case MAXIMUM: return Largest::combine(x, y);
    default: return Smallest::combine(x, y);
    }
}

template <class T>
__global__ void binary(
    const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ out, long long n, int function, long long n1,
    long long n2, long long n3, long long x0, long long x1, long long x2, long long x3, long long y0, long long y1,
    long long y2, long long y3
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const Place at(i, n1, n2, n3);
        out[i] = binary_function(x[at.of(x0, x1, x2, x3)], y[at.of(y0, y1, y2, y3)], function);
    }
}

// floor(x / y) of the exact quotient: x / y rounds, and could round up to an integer.
template <class T> __device__ __forceinline__ T floor_of_quotient(T x, T y) {
    if (y == T(0)) return x / y;
    const T rest = fmod(x, y);
    T whole = (x - rest) / y;
    if (rest != T(0) && (y < T(0)) != (rest < T(0))) whole -= T(1);
    if (whole == T(0)) return copysign(T(0), x / y);
    const T down = floor(whole);
    return whole - down > T(0.5) ? down + T(1) : down;
}

template <class T>
__global__ void floor_div(
    const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ out, long long n, long long n1, long long n2,
    long long n3, long long x0, long long x1, long long x2, long long x3, long long y0, long long y1,
    long long y2, long long y3
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const Place at(i, n1, n2, n3);
        out[i] = floor_of_quotient(x[at.of(x0, x1, x2, x3)], y[at.of(y0, y1, y2, y3)]);
    }
}

template <class T>
__global__ void power(
    const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ out, long long n, long long n1, long long n2,
    long long n3, long long x0, long long x1, long long x2, long long x3, long long y0, long long y1,
    long long y2, long long y3
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const Place at(i, n1, n2, n3);
        out[i] = pow(x[at.of(x0, x1, x2, x3)], y[at.of(y0, y1, y2, y3)]);
    }
}

template <class T> __device__ __forceinline__ bool holds(T x, T y, int comparison) {
    switch (comparison) {
    case EQUAL: return x == y;
    case NOT_EQUAL: return x != y;
    case GREATER: return x > y;
    case GREATER_EQUAL: return x >= y;
    case LESS: return x < y;
    case LESS_EQUAL: return x <= y;
    case LOGICAL_AND: return x != T(0) && y != T(0);
    default: return x != T(0) || y != T(0);
    }
}

template <class T>
__global__ void comparison(
    const T* __restrict__ x, const T* __restrict__ y, bool* __restrict__ out, long long n, int function, long long n1,
    long long n2, long long n3, long long x0, long long x1, long long x2, long long x3, long long y0, long long y1,
    long long y2, long long y3
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const Place at(i, n1, n2, n3);
        out[i] = holds(x[at.of(x0, x1, x2, x3)], y[at.of(y0, y1, y2, y3)], function);
    }
}

template <class T>
__global__ void choose(
    const bool* __restrict__ condition, const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ out,
    long long n, long long n1, long long n2, long long n3, long long c0, long long c1, long long c2,
    long long c3, long long x0, long long x1, long long x2, long long x3, long long y0, long long y1, long long y2,
    long long y3
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const Place at(i, n1, n2, n3);
        out[i] = condition[at.of(c0, c1, c2, c3)] ? x[at.of(x0, x1, x2, x3)] : y[at.of(y0, y1, y2, y3)];
    }
}
