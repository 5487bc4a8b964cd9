// The activations that fused ops apply, and their derivatives from the result.
#pragma once

enum Activation { NONE, RELU, SIGMOID, TANH };

template <class T> __device__ __forceinline__ T activate(T z, int activation) {
    switch (activation) {
    case RELU: return z < T(0) ? T(0) : z;  // NaN stays NaN
    case SIGMOID: return T(1) / (T(1) + exp(-z));
    case TANH: return tanh(z);
    default: return z;
    }
}

// Tiles keep many sums a thread, in loops that are written out. Of the activations only those of one instruction
// are applied there; exp and tanh, which are long, follow in a loop over what was stored, written once.
__device__ __forceinline__ bool is_long(int activation) { return activation == SIGMOID || activation == TANH; }

template <class T> __device__ __forceinline__ T activate_if_short(T z, int activation) {
    return activation == RELU && z < T(0) ? T(0) : z;
}

// act'(z) times an error, from y = act(z).
template <class T> __device__ __forceinline__ T activate_backward(T error, T y, int activation) {
    switch (activation) {
    case RELU: return y > T(0) ? error : T(0);
    case SIGMOID: return error * (y * (T(1) - y));
    case TANH: return error * (T(1) - y * y);
    default: return error;
    }
}
