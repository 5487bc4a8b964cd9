// Activations by themselves and their gradients: one pass, any size.
#include "activation.h"
#include "numbers.h"

template <class T> __global__ void act(const T* __restrict__ x_n, T* __restrict__ out_n, long long n, int activation) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid()) out_n[i] = activate(x_n[i], activation);
}

template <class T>
__global__ void act_backward(
    const T* __restrict__ grad_out_n, const T* __restrict__ out_n, T* __restrict__ grad_x_n, long long n, int activation
) {
    for (long long i = first_of_grid(); i < n; i += step_of_grid())
        grad_x_n[i] = activate_backward(grad_out_n[i], out_n[i], activation);
}
