// Pooling of boxes (image, x1, y1, x2, y2). In a gradient a block owns a plane of the input and goes
// through the boxes in order: nothing is added by atomics. Where elements lie is computed in double,
// without fused operations, as on every other backend.
#include "numbers.h"

#define FAR_AWAY 1e6  // coordinates beyond this many pixels count as this

// The number of a box's image; -1 if there is no such image.
template <class T> __device__ __forceinline__ int image_of(const T* box, int batch) {
    return box[0] >= T(0) && box[0] < T(batch) ? (int)box[0] : -1;
}

// A coordinate in pixels, not too far away; NaN stays NaN.
template <class T> __device__ __forceinline__ double scaled(T v, double spatial_scale) {
    const double y = __dmul_rn((double)v, spatial_scale);
    return y < -FAR_AWAY ? -FAR_AWAY : y > FAR_AWAY ? FAR_AWAY : y;
}

// --- maximum -------------------------------------------------------------------------------------

// Rounded to whole pixels, halves away from zero.
template <class T> __device__ __forceinline__ long long pixel(T v, double spatial_scale) {
    const double y = scaled(v, spatial_scale);
    if (y != y) return (long long)FAR_AWAY;
    return (long long)(y >= 0 ? floor(y + 0.5) : ceil(y - 0.5));
}

// The elements of a box along an axis: the first, and how many.
struct Span {
    long long start, length;
};

template <class T> __device__ __forceinline__ Span span_of(T low, T high, double spatial_scale) {
    const long long start = pixel(low, spatial_scale), length = pixel(high, spatial_scale) - start + 1;
    return {start, length < 1 ? 1 : length};
}

__device__ __forceinline__ long long cut(long long v, int size) { return v < 0 ? 0 : v > size ? size : v; }

// floor(p L / P), and the ceiling, for p >= 0.
__device__ __forceinline__ long long floor_part(long long p, long long length, int parts) { return p * length / parts; }
__device__ __forceinline__ long long ceil_part(long long p, long long length, int parts) {
    return (p * length + parts - 1) / parts;
}

template <class T>
__global__ void roi_pool(
    const T* __restrict__ x_nchw, const T* __restrict__ boxes_k5, T* __restrict__ out_kcpq, int* __restrict__ argmax_kcpq,
    long long n, int batch, int channels, int height, int width, int rows, int columns, double spatial_scale
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const int q = (int)(i % columns), p = (int)(i / columns % rows);
        const long long plane = i / columns / rows;
        const T* box = boxes_k5 + plane / channels * 5;
        const int image = image_of(box, batch);
        T best = 0;
        int place = -1;
        if (image >= 0) {
            const Span h = span_of(box[2], box[4], spatial_scale), w = span_of(box[1], box[3], spatial_scale);
            const int top = (int)cut(h.start + floor_part(p, h.length, rows), height);
            const int below = (int)cut(h.start + ceil_part(p + 1, h.length, rows), height);
            const int left = (int)cut(w.start + floor_part(q, w.length, columns), width);
            const int right = (int)cut(w.start + ceil_part(q + 1, w.length, columns), width);
            const T* x_hw = x_nchw + (image * (long long)channels + plane % channels) * height * width;
            for (int at_h = top; at_h < below; ++at_h)
                for (int at_w = left; at_w < right; ++at_w) {
                    const int at = at_h * width + at_w;
                    const T value = x_hw[at];
                    if (place < 0 || value > best || (value != value && best == best)) {  // NaN wins
                        best = value;
                        place = at;
                    }
                }
        }
        out_kcpq[i] = best;
        argmax_kcpq[i] = place;
    }
}

// A block owns a plane and goes through the boxes of its image in order. Bins of one box that share
// their maximum are added, in order, by the thread of the first of them. No barrier stands between two
// planes: the next one is other memory.
template <class T>
__global__ void roi_pool_backward(
    const T* __restrict__ grad_out_kcpq, const int* __restrict__ argmax_kcpq, const T* __restrict__ boxes_k5, T* grad_x_nchw,
    long long planes, int boxes, int batch, int channels, int area, int bins
) {
    for (long long plane = blockIdx.x; plane < planes; plane += gridDim.x) {
        const int image = (int)(plane / channels), c = (int)(plane % channels);
        T* grad_x_hw = grad_x_nchw + plane * area;
        for (int i = threadIdx.x; i < area; i += blockDim.x) grad_x_hw[i] = 0;
        for (int k = 0; k < boxes; ++k) {
            if (image_of(boxes_k5 + k * 5LL, batch) != image) continue;
            const long long first = ((long long)k * channels + c) * bins;
            const int* argmax_pq = argmax_kcpq + first;
            const T* grad_out_pq = grad_out_kcpq + first;
            __syncthreads();  // what the box before has added is there
            for (int bin = threadIdx.x; bin < bins; bin += blockDim.x) {
                const int place = argmax_pq[bin];
                bool leads = place >= 0;
                for (int other = 0; leads && other < bin; ++other) leads = argmax_pq[other] != place;
                if (!leads) continue;
                T sum = grad_x_hw[place];
                for (int other = bin; other < bins; ++other)
                    if (argmax_pq[other] == place) sum += grad_out_pq[other];
                grad_x_hw[place] = sum;
            }
        }
    }
}

// --- mean of samples -----------------------------------------------------------------------------

// What each element along an axis counts for in each bin (K, P, size), where a bin's elements lie
// (K, P, 2), and a box's (K, 2): from, and behind the last. A block takes a box; `axis` is 1 or 2.
template <class T>
__global__ void roi_weights(
    const T* __restrict__ boxes_k5, T* weights_kps, int* reach_kp2, int* extent_k2, int boxes, int bins, int size, int axis,
    double spatial_scale, int sampling_ratio, bool aligned
) {
    for (int k = blockIdx.x; k < boxes; k += gridDim.x) {
        T* weights_ps = weights_kps + (long long)k * bins * size;
        int* reach_p2 = reach_kp2 + (long long)k * bins * 2;
        for (int i = threadIdx.x; i < bins * size; i += blockDim.x) weights_ps[i] = 0;
        __syncthreads();
        const double offset = aligned ? 0.5 : 0.0;
        const double start = scaled(boxes_k5[k * 5LL + axis], spatial_scale) - offset;
        double length = scaled(boxes_k5[k * 5LL + axis + 2], spatial_scale) - offset - start;
        if (!aligned && length < 1) length = 1;
        const double step = length / bins, samples = sampling_ratio > 0 ? sampling_ratio : ceil(step);
        for (int p = threadIdx.x; p < bins; p += blockDim.x) {
            const double base = __dadd_rn(start, __dmul_rn(p, step));
            int first = size, behind = 0;
            double i = 0;
            if (sampling_ratio == 0) {  // a large box has many samples outside of the image
                const double skipped = floor((-1 - base) / (step / samples) - 0.5);
                if (skipped > 0) i = skipped;
            }
            for (; i < samples; i += 1) {
                double y = __dadd_rn(base, __dmul_rn(i + 0.5, step) / samples);
                if (y > size && sampling_ratio == 0) break;
                if (!(y >= -1 && y <= size)) continue;
                y = y < 0 ? 0 : y > size - 1 ? size - 1 : y;
                const int lower = (int)y, upper = lower + 1 < size ? lower + 1 : size - 1;
                weights_ps[p * size + lower] += T((1 - (y - lower)) / samples);
                weights_ps[p * size + upper] += T((y - lower) / samples);
                if (lower < first) first = lower;
                if (upper >= behind) behind = upper + 1;
            }
            reach_p2[p * 2] = first;
            reach_p2[p * 2 + 1] = behind;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int first = size, behind = 0;
            for (int p = 0; p < bins; ++p) {
                if (reach_p2[p * 2] < first) first = reach_p2[p * 2];
                if (reach_p2[p * 2 + 1] > behind) behind = reach_p2[p * 2 + 1];
            }
            extent_k2[k * 2LL] = first;
            extent_k2[k * 2LL + 1] = behind;
        }
    }
}

template <class T>
__global__ void roi_align(
    const T* __restrict__ x_nchw, const T* __restrict__ boxes_k5, const T* __restrict__ u_kph, const T* __restrict__ v_kqw,
    const int* __restrict__ reach_kp2, const int* __restrict__ reach_kq2, T* __restrict__ out_kcpq, long long n, int batch,
    int channels, int height, int width, int rows, int columns
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) {
        const int q = (int)(i % columns), p = (int)(i / columns % rows);
        const long long plane = i / columns / rows, k = plane / channels;
        const int image = image_of(boxes_k5 + k * 5, batch);
        T sum = 0;
        if (image >= 0) {
            const T* x_hw = x_nchw + (image * (long long)channels + plane % channels) * height * width;
            const T *u_h = u_kph + (k * rows + p) * height, *v_w = v_kqw + (k * columns + q) * width;
            const int* reach_h = reach_kp2 + (k * rows + p) * 2;
            const int* reach_w = reach_kq2 + (k * columns + q) * 2;
            for (int h = reach_h[0]; h < reach_h[1]; ++h) {
                if (u_h[h] == T(0)) continue;
                T row = 0;
                for (int w = reach_w[0]; w < reach_w[1]; ++w)
                    if (v_w[w] != T(0)) row += v_w[w] * x_hw[h * width + w];
                sum += u_h[h] * row;
            }
        }
        out_kcpq[i] = sum;
    }
}

// A block owns a plane and goes through the boxes of its image in order; a thread takes elements of
// the part of the plane that the box reaches.
template <class T>
__global__ void roi_align_backward(
    const T* __restrict__ grad_out_kcpq, const T* __restrict__ boxes_k5, const T* __restrict__ u_kph,
    const T* __restrict__ v_kqw, const int* __restrict__ extent_kh2, const int* __restrict__ extent_kw2, T* grad_x_nchw,
    long long planes, int boxes, int batch, int channels, int height, int width, int rows, int columns
) {
    for (long long plane = blockIdx.x; plane < planes; plane += gridDim.x) {
        const int image = (int)(plane / channels), c = (int)(plane % channels);
        T* grad_x_hw = grad_x_nchw + plane * height * width;
        for (int i = threadIdx.x; i < height * width; i += blockDim.x) grad_x_hw[i] = 0;
        for (long long k = 0; k < boxes; ++k) {
            if (image_of(boxes_k5 + k * 5, batch) != image) continue;
            const int top = extent_kh2[k * 2], left = extent_kw2[k * 2];
            const int across = extent_kw2[k * 2 + 1] - left, count = (extent_kh2[k * 2 + 1] - top) * across;
            if (across <= 0 || extent_kh2[k * 2 + 1] <= top) continue;
            const T* grad_out_pq = grad_out_kcpq + (k * channels + c) * rows * columns;
            __syncthreads();  // what the box before has added is there
            for (int i = threadIdx.x; i < count; i += blockDim.x) {
                const int h = top + i / across, w = left + i % across;
                T sum = 0;
                for (int p = 0; p < rows; ++p) {
                    const T u = u_kph[(k * rows + p) * height + h];
                    if (u == T(0)) continue;
                    T row = 0;
                    for (int q = 0; q < columns; ++q) {
                        const T v = v_kqw[(k * columns + q) * width + w];
                        if (v != T(0)) row += v * grad_out_pq[p * columns + q];
                    }
                    sum += u * row;
                }
                grad_x_hw[h * width + w] += sum;
            }
        }
        __syncthreads();
    }
}
