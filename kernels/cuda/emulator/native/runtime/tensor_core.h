// mma.sync and ldmatrix, with the fragments' layouts of the PTX manual; cp.async.
//
// Products are summed in double and rounded once: the order and the rounding of a real tensor core
// are not specified.
#pragma once
#include "warps.h"

enum MmaShape { kF16_16x8x16, kBf16_16x8x16, kF16_16x8x8, kBf16_16x8x8, kTf32_16x8x8, kTf32_16x8x4, kF64_8x8x4 };

static double from_half(uint16_t h) {
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    double value = exponent == 0    ? ldexp(mantissa, -24)
                   : exponent == 31 ? (mantissa ? (double)__builtin_nanf("") : (double)__builtin_inff())
                                    : ldexp(1024 + mantissa, exponent - 25);
    return h >> 15 ? -value : value;
}
static double from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static double from_tf32(uint32_t bits) { return from_bits(bits & 0xffffe000u); }  // the unit ignores the low bits

// Element i of a lane's fragment of A, B, and where it lies in the matrix.
static double element(int shape, const void* fragment, int i) {
    switch (shape) {
        case kF64_8x8x4: return ((const double*)fragment)[i];
        case kTf32_16x8x8:
        case kTf32_16x8x4: return from_tf32(((const uint32_t*)fragment)[i]);
        case kF16_16x8x16:
        case kF16_16x8x8: return from_half(((const uint16_t*)fragment)[i]);
        default: return from_bits((uint32_t)((const uint16_t*)fragment)[i] << 16);
    }
}

static void complete_matrix(int shape, Thread** lanes) {
    const bool wide = shape == kF64_8x8x4, tf32 = shape == kTf32_16x8x8 || shape == kTf32_16x8x4;
    const int M = wide ? 8 : 16, N = 8;
    const int K = shape == kF16_16x8x16 || shape == kBf16_16x8x16 ? 16 : wide || shape == kTf32_16x8x4 ? 4 : 8;
    double A[16][16] = {}, B[16][8] = {};
    for (int lane = 0; lane < kWarp; lane++) {
        const int group = lane / 4, t = lane % 4;
        for (int i = 0; i < M * K / kWarp; i++) {
            int row = group, column = t;
            if (tf32) row += 8 * (i & 1), column += 4 * (i / 2);
            else if (!wide) row += 8 * (i / 2 & 1), column = 2 * t + (i & 1) + 8 * (i / 4);
            A[row][column] = element(shape, lanes[lane]->warp_call.in[0], i);
        }
        for (int i = 0; i < K * N / kWarp; i++) {
            int row = t;
            if (tf32) row += 4 * i;
            else if (!wide) row = 2 * t + (i & 1) + 8 * (i / 2);
            B[row][group] = element(shape, lanes[lane]->warp_call.in[1], i);
        }
    }
    for (int lane = 0; lane < kWarp; lane++) {
        const int group = lane / 4, t = lane % 4;
        double sums[4];
        for (int i = 0; i < M * N / kWarp; i++) {
            const int row = group + 8 * (i / 2), column = 2 * t + (i & 1);
            const void* c = lanes[lane]->warp_call.in[2];
            sums[i] = wide ? ((const double*)c)[i] : (double)((const float*)c)[i];
            for (int k = 0; k < K; k++) sums[i] += A[row][k] * B[k][column];
        }
        for (int i = 0; i < M * N / kWarp; i++) {
            if (wide) ((double*)lanes[lane]->warp_call.out)[i] = sums[i];
            else ((float*)lanes[lane]->warp_call.out)[i] = (float)sums[i];
        }
    }
}

extern "C" void trine_mma(int line, int shape, void* d, const void* a, const void* b, const void* c) {
    auto& call = current->warp_call;
    call.out = d;
    call.in[0] = a;
    call.in[1] = b;
    call.in[2] = c;
    enter_warp(line, kMatrix, 0xffffffffu, 0, shape, 32, CALLER);
}

static bool in_shared(uintptr_t address) {
    const Region& dynamic = active->dynamic_region;
    return address - shared_low < shared_size || address - (dynamic.low - kSlack) < dynamic.size + 2 * kSlack;
}

static void complete_load_matrix(int count, int transposed, Thread** lanes) {
    for (int lane = 0; lane < kWarp; lane++)
        for (int m = 0; m < count; m++)
            for (int half = 0; half < 2; half++) {
                const int near = lane / 4, far = 2 * (lane % 4) + half;
                const int row = transposed ? far : near, column = transposed ? near : far;
                const uint16_t* source = (const uint16_t*)lanes[8 * m + row]->warp_call.in[0];
                ((uint16_t*)lanes[lane]->warp_call.out)[2 * m + half] = source[column];
            }
}

extern "C" void trine_ldmatrix(int line, unsigned* out, int count, int transposed, const void* row) {
    const uintptr_t address = (uintptr_t)row;
    current->warp_call.out = out;
    current->warp_call.in[0] = row;
    if ((int)current->lane < 8 * count) {  // the other lanes' addresses are not used
        if (!in_shared(address)) FAIL(CALLER, "out-of-bounds", "ldmatrix from an address that is not shared memory");
        if (address % 16) FAIL(CALLER, "misaligned", "ldmatrix from a row whose address is no multiple of 16");
        access(address, 16, kRead, (uintptr_t)CALLER);
    }
    enter_warp(line, kLoadMatrix, 0xffffffffu, 0, count, transposed, CALLER);
}

// --- cp.async: the bytes arrive when the thread waits for them, and until then nobody may touch them

static void mark_in_flight(uintptr_t address, unsigned size, bool in_flight) {
    if (!settings.checked) return;
    const bool fixed = address - shared_low < shared_size;
    Region& r = fixed ? active->static_region : active->dynamic_region;
    const uintptr_t offset = address - r.low;
    for (size_t i = offset / r.granule; i <= (offset + size - 1) / r.granule; i++) r.cells[i].in_flight = in_flight;
}

extern "C" void trine_copy_async(void* to, const void* from, unsigned size, unsigned from_size, void* pc) {
    const uintptr_t target = (uintptr_t)to, source = (uintptr_t)from, place = (uintptr_t)pc;
    if (!in_shared(target)) FAIL(pc, "out-of-bounds", "cp.async to an address that is not shared memory");
    if (target % size || source % size) FAIL(pc, "misaligned", "cp.async of %u bytes at an address that is no multiple of it", size);
    if (from_size) access(source, from_size, kRead, place);
    access(target, size, kWrite, place);
    mark_in_flight(target, size, true);
    current->copies.push_back({(char*)to, (const char*)from, size, from_size, place, current->copy_group});
}
extern "C" void trine_copy_commit() { current->copy_group++; }
extern "C" void trine_copy_wait(int groups_left) {
    auto& copies = current->copies;
    size_t kept = 0;
    for (size_t i = 0; i < copies.size(); i++) {
        Copy& c = copies[i];
        if (c.group >= current->copy_group - groups_left) {
            copies[kept++] = c;
            continue;
        }
        mark_in_flight((uintptr_t)c.to, c.size, false);
        access((uintptr_t)c.to, c.size, kWrite, c.pc);
        memcpy(c.to, c.from, c.from_size);
        memset(c.to + c.from_size, 0, c.size - c.from_size);
    }
    copies.resize(kept);
}
