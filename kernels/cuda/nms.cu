// Non-maximum suppression on the device: rank the boxes, mark in bits which ones each would drop,
// then go through them in order.
#include "numbers.h"

#define BITS 64  // of a word of marks

// Whether box i comes before box j: by falling score, NaN last, ties by index.
template <class T> __device__ __forceinline__ bool before(T a, int i, T b, int j) {
    const bool a_nan = a != a, b_nan = b != b;
    if (a_nan || b_nan) return a_nan == b_nan ? i < j : b_nan;
    return a > b || (a == b && i < j);
}

// order[rank] = box. Each thread counts who comes before its box: more comparisons than a sort, but
// all of them at once.
template <class T> __global__ void nms_order(const T* __restrict__ scores_k, long long* __restrict__ order_k, int boxes) {
    for (long long i = first_of_grid(); i < boxes; i += step_of_grid()) {
        const T score = scores_k[i];
        int rank = 0;
        for (int j = 0; j < boxes; ++j) rank += before(scores_k[j], j, score, (int)i);
        order_k[rank] = i;
    }
}

// The intersection of two boxes over their union, in double without fused operations.
template <class T> __device__ __forceinline__ double overlap(const T* a, const T* b) {
    const double left = a[0] > b[0] ? a[0] : b[0], right = a[2] < b[2] ? a[2] : b[2];
    const double top = a[1] > b[1] ? a[1] : b[1], below = a[3] < b[3] ? a[3] : b[3];
    const double width = right - left, height = below - top;
    const double common = __dmul_rn(width > 0 ? width : 0, height > 0 ? height : 0);
    const double area_a = __dmul_rn((double)a[2] - a[0], (double)a[3] - a[1]);
    const double area_b = __dmul_rn((double)b[2] - b[0], (double)b[3] - b[1]);
    return common / (__dadd_rn(area_a, area_b) - common);
}

// marks[i][word]: which later ones of 64 ranks the box of rank i drops.
template <class T>
__global__ void nms_marks(
    const T* __restrict__ boxes_k4, const long long* __restrict__ order_k, unsigned long long* __restrict__ marks_kw, int boxes,
    int words, double iou_threshold
) {
    const long long n = (long long)boxes * words;
    for (long long at = first_of_grid(); at < n; at += step_of_grid()) {
        const int i = (int)(at / words), first = (int)(at % words) * BITS;
        const int behind = first + BITS < boxes ? first + BITS : boxes;
        const T* box = boxes_k4 + order_k[i] * 4;
        unsigned long long marks = 0;
        for (int j = first > i ? first : i + 1; j < behind; ++j)
            if (overlap(box, boxes_k4 + order_k[j] * 4) > iou_threshold) marks |= 1ULL << (j - first);
        marks_kw[at] = marks;
    }
}

// One block. In each word of ranks thread 0 decides who is kept; all threads then add up what these
// drop in the words behind.
template <class T>
__global__ void nms_keep(
    const long long* __restrict__ order_k, const unsigned long long* __restrict__ marks_kw, unsigned long long* dropped_w,
    long long* indices_k, long long* count, int boxes, int words
) {
    __shared__ unsigned long long kept;
    __shared__ int found;
    for (int word = threadIdx.x; word < words; word += blockDim.x) dropped_w[word] = 0;
    if (threadIdx.x == 0) found = 0;
    __syncthreads();
    for (int word = 0; word < words; ++word) {
        const int first = word * BITS, size = boxes - first < BITS ? boxes - first : BITS;
        if (threadIdx.x == 0) {
            unsigned long long dropped = dropped_w[word], keeps = 0;
            for (int bit = 0; bit < size; ++bit) {
                if (dropped >> bit & 1) continue;
                keeps |= 1ULL << bit;
                indices_k[found++] = order_k[first + bit];
                dropped |= marks_kw[(long long)(first + bit) * words + word];
            }
            kept = keeps;
        }
        __syncthreads();
        for (int later = word + 1 + threadIdx.x; later < words; later += blockDim.x) {
            unsigned long long dropped = dropped_w[later];
            for (int bit = 0; bit < size; ++bit)
                if (kept >> bit & 1) dropped |= marks_kw[(long long)(first + bit) * words + later];
            dropped_w[later] = dropped;
        }
        __syncthreads();
    }
    for (int i = found + threadIdx.x; i < boxes; i += blockDim.x) indices_k[i] = -1;
    if (threadIdx.x == 0) *count = found;
}
