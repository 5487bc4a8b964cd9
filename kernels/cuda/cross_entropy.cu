// Cross-entropy of rows of logits against labels, and its gradient.
//
// Each row's loss and weight go to scratch memory, and one block adds them in a fixed order.
#include "rows.h"

constexpr int MEAN = 1;  // of the reductions "none", "mean", "sum"

// How a row counts: its label, made safe to read by, and w_y: 0 if ignored, NaN for a label out of range.
template <class T> struct Label {
    bool counts;
    long long label;
    T weight;

    __device__ __forceinline__ Label(long long target, const T* weight_c, long long classes, long long ignore_index) {
        const bool in_range = target >= 0 && target < classes;
        counts = target != ignore_index;
        label = in_range ? target : 0;
        weight = weight_c ? weight_c[label] : T(1);
        if (!in_range) weight = Numbers<T>::infinity() - Numbers<T>::infinity();
        if (!counts) weight = T(0);
    }
};

// `likely` is 1 - smoothing, `spread` smoothing / classes. Writes a row's w_y where weight_m is given.
template <class T, class Team>
__global__ void cross_entropy(
    const T* __restrict__ logits_mc, const long long* __restrict__ target_m, const T* __restrict__ weight_c,
    T* __restrict__ log_probs_mc, T* __restrict__ loss_m, T* __restrict__ weight_m, long long rows, long long classes,
    long long ignore_index, T likely, T spread
) {
    for (long long row = Team::first(); row < rows; row += Team::step()) {
        const T* x_c = logits_mc + row * classes;
        T* out_c = log_probs_mc + row * classes;
        T largest = Largest::nothing<T>();
        for (long long c = Team::rank(); c < classes; c += Team::size()) largest = Largest::combine(largest, x_c[c]);
        largest = Team::template reduce<Largest>(largest);
        T sum = 0;
        for (long long c = Team::rank(); c < classes; c += Team::size()) sum += exp(x_c[c] - largest);
        const T shift = log(Team::template reduce<Sum>(sum));
        T all = 0;  // sum_k w_k l_k
        for (long long c = Team::rank(); c < classes; c += Team::size()) {
            const T log_prob = x_c[c] - largest - shift;
            out_c[c] = log_prob;
            if (spread != T(0)) all += weight_c ? log_prob * weight_c[c] : log_prob;
        }
        if (spread != T(0)) all = Team::template reduce<Sum>(all);
        if (Team::rank() != 0) continue;
        const Label<T> y(target_m[row], weight_c, classes, ignore_index);
        T loss = -likely * y.weight * (x_c[y.label] - largest - shift);
        if (spread != T(0)) loss -= spread * all;
        loss_m[row] = y.counts ? loss : T(0);
        if (weight_m) weight_m[row] = y.weight;
    }
}

// One block: the sum of losses, divided by the sum of weights where there are any.
template <class T>
__global__ void total_loss(
    const T* __restrict__ loss_m, const T* __restrict__ weight_m, T* __restrict__ total, long long rows, int reduction
) {
    T loss = 0, weight = 0;
    for (long long row = threadIdx.x; row < rows; row += blockDim.x) {
        loss += loss_m[row];
        if (reduction == MEAN) weight += weight_m[row];
    }
    loss = reduce_block<Sum>(loss);
    if (reduction == MEAN) weight = reduce_block<Sum>(weight);
    if (threadIdx.x == 0) total[0] = reduction == MEAN ? loss / weight : loss;
}

// One block: the sum of the rows' w_y.
template <class T>
__global__ void total_weight(
    const long long* __restrict__ target_m, const T* __restrict__ weight_c, T* __restrict__ total, long long rows,
    long long classes, long long ignore_index
) {
    T weight = 0;
    for (long long row = threadIdx.x; row < rows; row += blockDim.x)
        weight += Label<T>(target_m[row], weight_c, classes, ignore_index).weight;
    weight = reduce_block<Sum>(weight);
    if (threadIdx.x == 0) total[0] = weight;
}

// dz_k = g_n (p_k sum_j q_j - q_k); g_n is grad_out[n * grad_step], divided by the total weight if given.
template <class T, class Team>
__global__ void cross_entropy_backward(
    const T* __restrict__ grad_out_m, const T* __restrict__ log_probs_mc, const long long* __restrict__ target_m,
    const T* __restrict__ weight_c, const T* __restrict__ total, T* __restrict__ grad_logits_mc, long long rows,
    long long classes, long long ignore_index, T likely, T spread, int grad_step
) {
    for (long long row = Team::first(); row < rows; row += Team::step()) {
        const Label<T> y(target_m[row], weight_c, classes, ignore_index);
        const T* log_prob_c = log_probs_mc + row * classes;
        T* grad_c = grad_logits_mc + row * classes;
        T all = 0;  // sum_j q_j
        for (long long c = Team::rank(); c < classes; c += Team::size()) {
            const T smooth = spread == T(0) ? T(0) : weight_c ? spread * weight_c[c] : spread;
            all += (c == y.label ? likely * y.weight : T(0)) + smooth;
        }
        all = Team::template reduce<Sum>(all);
        const T grad = total ? grad_out_m[row * grad_step] / total[0] : grad_out_m[row * grad_step];
        for (long long c = Team::rank(); c < classes; c += Team::size()) {
            const T smooth = spread == T(0) ? T(0) : weight_c ? spread * weight_c[c] : spread;
            const T q = (c == y.label ? likely * y.weight : T(0)) + smooth;
            grad_c[c] = y.counts ? grad * (exp(log_prob_c[c]) * all - q) : T(0);
        }
    }
}
