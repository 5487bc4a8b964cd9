// Tensor cores through small wrappers: on a GPU inline PTX, in the emulator plain calls.
//
// A fragment is what one lane holds; the layouts are those of the PTX manual, section "Matrix
// fragments for mma". With group = lane / 4 and t = lane % 4:
//   C, D (16x8)   c[0], c[1]: row group, columns 2t, 2t+1;  c[2], c[3]: row group + 8
//   A f16 (16x16) a[0]: row group, columns 2t, 2t+1;  a[1]: row group + 8;  a[2], a[3]: columns + 8
//   B f16 (16x8)  b[0]: rows 2t, 2t+1 of column group;  b[1]: rows + 8
//   A tf32 (16x8) a[0]: (group, t);  a[1]: (group + 8, t);  a[2]: (group, t + 4);  a[3]: (group + 8, t + 4)
//   B tf32 (8x8)  b[0]: (t, group);  b[1]: (t + 4, group)
//   f64 (8x8x4)   a: (group, t);  b: (t, group);  c[0], c[1]: row group, columns 2t, 2t+1
#pragma once

#ifdef TRINE_EMULATOR

#define mma_f16_16x8x16(d, a, b, c) trine_mma(__LINE__, 0, d, a, b, c)
#define mma_bf16_16x8x16(d, a, b, c) trine_mma(__LINE__, 1, d, a, b, c)
#define mma_tf32_16x8x8(d, a, b, c) trine_mma(__LINE__, 4, d, a, b, c)
#define mma_f64_8x8x4(d, a, b, c) trine_mma(__LINE__, 6, d, a, b, c)
#define ldmatrix_x1(out, row) trine_ldmatrix(__LINE__, out, 1, 0, row)
#define ldmatrix_x2(out, row) trine_ldmatrix(__LINE__, out, 2, 0, row)
#define ldmatrix_x4(out, row) trine_ldmatrix(__LINE__, out, 4, 0, row)
#define ldmatrix_x2_trans(out, row) trine_ldmatrix(__LINE__, out, 2, 1, row)
#define ldmatrix_x4_trans(out, row) trine_ldmatrix(__LINE__, out, 4, 1, row)
static inline unsigned to_tf32(float x) {
    const unsigned bits = __float_as_uint(x);
    if (x != x) return 0x7fffffffu;
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}
static inline unsigned trine_to_bf16(float x) {
    const unsigned bits = __float_as_uint(x);
    return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
static inline unsigned to_bf16_pair(float low, float high) { return trine_to_bf16(low) | trine_to_bf16(high) << 16; }

#else

__device__ __forceinline__ void mma_f16_16x8x16(float* d, const unsigned* a, const unsigned* b, const float* c) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void mma_bf16_16x8x16(float* d, const unsigned* a, const unsigned* b, const float* c) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void mma_tf32_16x8x8(float* d, const unsigned* a, const unsigned* b, const float* c) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void mma_f64_8x8x4(double* d, const double* a, const double* b, const double* c) {
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%4,%5};"
                 : "=d"(d[0]), "=d"(d[1])
                 : "d"(a[0]), "d"(b[0]), "d"(c[0]), "d"(c[1]));
}
__device__ __forceinline__ unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void ldmatrix_x1(unsigned* out, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(out[0]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(unsigned* out, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(unsigned* out, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(unsigned* out, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned* out, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(shared_address(row)) : "memory");
}
// A float as the tensor cores take it: 10 bits of mantissa, rounded to nearest, ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}
// Two floats as bfloat16, rounded to nearest, ties to even; the first in the lower half.
__device__ __forceinline__ unsigned to_bf16_pair(float low, float high) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

#endif
