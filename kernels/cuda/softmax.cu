// Softmax, its logarithm and their gradients along one axis of (outer, classes, inner).
//
// A row is read three times, twice of it from a cache: its maximum, the sum of powers, the result.
#include "rows.h"

template <class T, class Team, bool LOG>
__global__ void softmax(
    const T* __restrict__ x_oci, T* __restrict__ out_oci, long long rows, long long classes, long long inner
) {
    const Spread spread{classes, inner, 1};
    for (long long first = Team::first(); first < rows; first += Team::step()) {
        const long long row = first + Team::offset(), start = spread.start(row);
        const long long length = row < rows ? classes : 0;
        const T* x_c = x_oci + start;
        T* out_c = out_oci + start;
        T largest = Largest::nothing<T>();
        for (long long c = Team::rank(); c < length; c += Team::size())
            largest = Largest::combine(largest, x_c[c * inner]);
        largest = Team::template reduce<Largest>(largest);
        T sum = 0;
        for (long long c = Team::rank(); c < length; c += Team::size()) sum += exp(x_c[c * inner] - largest);
        sum = Team::template reduce<Sum>(sum);
        const T shift = LOG ? log(sum) : T(0);
        for (long long c = Team::rank(); c < length; c += Team::size()) {
            const T shifted = x_c[c * inner] - largest;  // NaN throughout if the row is -inf throughout
            out_c[c * inner] = LOG ? shifted - shift : exp(shifted) / sum;
        }
    }
}

// LOG: dx = dy - exp(y) sum dy; otherwise dx = y (dy - sum dy y).
template <class T, class Team, bool LOG>
__global__ void softmax_backward(
    const T* __restrict__ grad_out_oci, const T* __restrict__ out_oci, T* __restrict__ grad_x_oci, long long rows,
    long long classes, long long inner
) {
    const Spread spread{classes, inner, 1};
    for (long long first = Team::first(); first < rows; first += Team::step()) {
        const long long row = first + Team::offset(), start = spread.start(row);
        const long long length = row < rows ? classes : 0;
        const T* grad_c = grad_out_oci + start;
        const T* out_c = out_oci + start;
        T sum = 0;
        for (long long c = Team::rank(); c < length; c += Team::size())
            sum += LOG ? grad_c[c * inner] : grad_c[c * inner] * out_c[c * inner];
        sum = Team::template reduce<Sum>(sum);
        for (long long c = Team::rank(); c < length; c += Team::size()) {
            const T y = out_c[c * inner], dy = grad_c[c * inner];
            grad_x_oci[start + c * inner] = LOG ? dy - exp(y) * sum : y * (dy - sum);
        }
    }
}
