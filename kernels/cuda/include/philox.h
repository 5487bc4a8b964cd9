// Philox 4x32-10 (Salmon and others, 2011), by the key array of trine.random: uint32 (5,) of the
// seed's two words, the draw's two and the stream. Block b of a draw is words 4b to 4b + 3.
#pragma once

struct Words {
    unsigned w[4];
};

__device__ __forceinline__ Words philox(const unsigned* __restrict__ key, unsigned block) {
    unsigned c0 = block, c1 = key[2], c2 = key[3], c3 = key[4], k0 = key[0], k1 = key[1];
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// A word as a float32 uniform in [0, 1), exactly: 24 bits.
__device__ __forceinline__ float uniform(unsigned word) { return (float)(word >> 8) * 0x1p-24f; }
