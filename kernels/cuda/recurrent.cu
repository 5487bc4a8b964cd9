// One step of a recurrent net and of its gradient: the recurrent product with the gates fused to it.
//
// T steps, N sequences, H units. What all steps share (the inputs' product, the weights' gradients) are
// plain products, see recurrent.py. Within a step no block reads what another one writes: the state
// before a step is read from `out`, where each step has a place of its own.
#include "product.h"
#include "tensor_tile.h"

enum Cell { RNN, GRU, LSTM };

template <class Count> __device__ __forceinline__ bool alive(const Count* lengths_n, int n, int t) {
    return !lengths_n || t < lengths_n[n];
}

// The states before a step, `before` being the step that ran before it: there a sequence has its first
// state where it has not begun (in reverse, beyond its length).
template <class T, class Count> struct States {
    static constexpr bool deep = true, plain = true, widens = true;
    const T *out_tnh, *first_nh;
    const Count* lengths_n;
    int before, steps, sequences, units;

    struct Line {
        const T* at;
    };
    struct Walk {
        int depth, step;
        __device__ __forceinline__ void next() { depth += step; }
    };
    __device__ __forceinline__ const T* of(int n) const {
        const bool begun = before >= 0 && before < steps && alive(lengths_n, n, before);
        return begun ? out_tnh + ((long long)before * sequences + n) * units : first_nh + (long long)n * units;
    }
    __device__ __forceinline__ Line line(int n) const { return {n < sequences ? of(n) : nullptr}; }
    __device__ __forceinline__ Walk walk(int depth, int step) const { return {depth, step}; }
    __device__ __forceinline__ bool wide() const {
        return is_aligned(out_tnh) && is_aligned(first_nh) && units % 4 == 0;
    }
    __device__ __forceinline__ const T* find(const Line& line, const Walk& walk) const {
        return line.at && walk.depth < units ? line.at + walk.depth : nullptr;
    }
    __device__ __forceinline__ T get(const Line& line, const Walk& walk) const { return value_at(find(line, walk)); }
};

// How the columns of a tile hold the gates of units: four columns a unit, all of them one thread's. Which unit
// of the tile and which gate a column is of; which units are the thread's, and which of its sums their gates.
template <class T, class Shape> struct Gates {
    using Gemm = GemmTile<T, Shape>;
    static constexpr int units_of_tile = Shape::columns / 4, own_units = 1;
    static __device__ __forceinline__ int unit_of(int column) { return Gemm::owner(column); }
    static __device__ __forceinline__ int gate_of(int column) { return Gemm::rank(column); }
    static __device__ __forceinline__ int own_unit(int) { return (int)threadIdx.x % Shape::threads_across; }
    static __device__ __forceinline__ int sum_of(int, int gate) { return gate; }
};
template <class T, Precision precision, int rows, int depth, int warps_down, int slots>
struct Gates<T, TensorTile<precision, rows, 32, depth, warps_down, 1, slots>> {
    static constexpr int units_of_tile = 8, own_units = 2;
    static __device__ __forceinline__ int unit_of(int column) { return column % 8; }
    static __device__ __forceinline__ int gate_of(int column) { return column / 8; }
    static __device__ __forceinline__ int own_unit(int u) { return (int)threadIdx.x % 4 * 2 + u; }
    static __device__ __forceinline__ int sum_of(int u, int gate) { return 2 * gate + u; }
};

// The rows of W_hh in the order of those columns.
template <class T, class Shape, int gates> struct GateRows {
    static constexpr bool deep = true, plain = true, widens = true;
    const T* at;
    int units;

    using Base = Matrix<T, true>;
    using Line = typename Base::Line;
    using Walk = typename Base::Walk;
    __device__ __forceinline__ Line line(int column) const {
        using Order = Gates<T, Shape>;
        const int in_tile = column % Shape::columns, gate = Order::gate_of(in_tile);
        const int unit = column / Shape::columns * Order::units_of_tile + Order::unit_of(in_tile);
        return {((long long)gate * units + unit) * units, gate < gates && unit < units};
    }
    __device__ __forceinline__ Walk walk(int depth, int step) const { return {depth, step}; }
    __device__ __forceinline__ bool wide() const { return is_aligned(at) && units % 4 == 0; }
    __device__ __forceinline__ const T* find(const Line& line, const Walk& walk) const {
        return line.inside && walk.depth < units ? at + line.offset + walk.depth : nullptr;
    }
    __device__ __forceinline__ T get(const Line& line, const Walk& walk) const { return value_at(find(line, walk)); }
};

// Step t of a net with gates: the step's z = W_ih x + b_ih comes in, states and gates go out.
template <class T, int cell, class Count, class Shape>
__global__ void __launch_bounds__(64, Shape::least_blocks) gated_step(
    const T* __restrict__ z_tng, const T* __restrict__ h0_nh, const T* __restrict__ c0_nh, const T* __restrict__ w_gh,
    const T* __restrict__ bias_g, const Count* __restrict__ lengths_n, T* out_tnh, T* __restrict__ h_n, T* c_tnh,
    T* __restrict__ c_n, T* __restrict__ gates_tng, int t, int before, int steps, int sequences, int units
) {
    using Gemm = GemmTile<T, Shape>;
    using Order = Gates<T, Shape>;
    constexpr int gates = cell == LSTM ? 4 : 3;
    const int columns = ((units - 1) / Order::units_of_tile + 1) * Shape::columns;
    const TilePlace<Shape> place(sequences, columns, units, 1);
    const States<T, Count> states{out_tnh, h0_nh, lengths_n, before, steps, sequences, units};
    const GateRows<T, Shape, gates> weight{w_gh, units};
    T sum[Shape::down][Shape::across] = {};
    Gemm::multiply(states, weight, place.row, place.column, 0, units, sum);
    const int first_unit = place.column / Shape::columns * Order::units_of_tile;
    const bool first = before < 0 || before >= steps;
#pragma unroll
    for (int i = 0; i < Shape::down; i++) {
        const int n = place.row + Gemm::row(i);
        if (n >= sequences) continue;
        const bool goes_on = alive(lengths_n, n, t);
#pragma unroll
        for (int u = 0; u < Order::own_units; u++) {
            const int unit = first_unit + Order::own_unit(u);
            if (unit >= units) continue;
            const long long sequence = (long long)t * sequences + n, here = sequence * units + unit;
            const long long state = (long long)n * units + unit;
            T* const saved = gates_tng + sequence * 4 * units + unit;
            T z[gates], h = T(0), c = T(0);
            if (cell == LSTM) c = first ? c0_nh[state] : c_tnh[((long long)before * sequences + n) * units + unit];
            T kept[4] = {};
            if (goes_on) {
#pragma unroll
                for (int g = 0; g < gates; g++) {
                    const T recalled = sum[i][Order::sum_of(u, g)];
                    z[g] = bias_g ? recalled + bias_g[g * units + unit] : recalled;
                    // The candidate of a GRU keeps its recalled part, which the reset gate weighs.
                    if (cell == LSTM || g < 2) z[g] += z_tng[sequence * gates * units + g * units + unit];
                }
                if (cell == LSTM) {
                    const T input = activate(z[0], SIGMOID), forget = activate(z[1], SIGMOID);
                    const T candidate = activate(z[2], TANH), output = activate(z[gates - 1], SIGMOID);
                    c = forget * c + input * candidate;
                    h = output * tanh(c);
                    kept[0] = input, kept[1] = forget, kept[2] = candidate, kept[3] = output;
                } else {
                    const T reset = activate(z[0], SIGMOID), update = activate(z[1], SIGMOID), recalled = z[2];
                    const T from_x = z_tng[sequence * gates * units + 2 * units + unit];
                    const T candidate = activate(from_x + reset * recalled, TANH);
                    h = (T(1) - update) * candidate + update * states.of(n)[unit];
                    kept[0] = reset, kept[1] = update, kept[2] = candidate, kept[3] = recalled;
                }
            }
#pragma unroll
            for (int g = 0; g < 4; g++) saved[g * units] = kept[g];
            out_tnh[here] = h;
            if (cell == LSTM) c_tnh[here] = c, c_n[state] = c;
            if (goes_on || first) h_n[state] = goes_on ? h : h0_nh[state];
        }
    }
}

template <class T, class Count, class Shape>
__global__ void __launch_bounds__(64, Shape::least_blocks) plain_step(
    const T* __restrict__ z_tnh, const T* __restrict__ h0_nh, const T* __restrict__ w_hh, const T* __restrict__ bias_h,
    const Count* __restrict__ lengths_n, T* out_tnh, T* __restrict__ h_n, int t, int before, int steps, int sequences,
    int units, int activation
) {
    using Gemm = GemmTile<T, Shape>;
    const TilePlace<Shape> place(sequences, units, units, 1);
    const States<T, Count> states{out_tnh, h0_nh, lengths_n, before, steps, sequences, units};
    const Matrix<T, true> weight{w_hh, units, units, units};
    T sum[Shape::down][Shape::across] = {};
    Gemm::multiply(states, weight, place.row, place.column, 0, units, sum);
    const bool first = before < 0 || before >= steps;
#pragma unroll
    for (int i = 0; i < Shape::down; i++) {
        const int n = place.row + Gemm::row(i);
#pragma unroll
        for (int j = 0; j < Shape::across; j++) {
            const int unit = place.column + Gemm::column(j);
            if (n >= sequences || unit >= units) continue;
            const long long here = ((long long)t * sequences + n) * units + unit, state = (long long)n * units + unit;
            const bool goes_on = alive(lengths_n, n, t);
            const T z = sum[i][j] + z_tnh[here];
            const T h = goes_on ? activate(bias_h ? z + bias_h[unit] : z, activation) : T(0);
            out_tnh[here] = h;
            if (goes_on || first) h_n[state] = goes_on ? h : h0_nh[state];
        }
    }
}

// The gradient of step t. `after` is the step that ran after it, whose errors d come back by W_hh; t
// beyond the steps leaves only that, for the first states. grad_h (and grad_c) carry between launches
// what does not go through W_hh, each element by the same thread. d_x and d_h are the errors of a
// gate's two products; they differ for a GRU only.
template <class T, int cell, class Count, class Shape>
__global__ void __launch_bounds__(64, Shape::least_blocks) step_backward(
    const T* __restrict__ grad_out_tnh, const T* __restrict__ grad_h_n, const T* __restrict__ grad_c_n,
    const T* __restrict__ h0_nh, const T* __restrict__ c0_nh, const T* __restrict__ w_gh, const T* __restrict__ out_tnh,
    const T* __restrict__ c_tnh, const T* __restrict__ gates_tng, const Count* __restrict__ lengths_n, T* d_x_tng,
    T* d_h_tng, T* grad_h_nh, T* grad_c_nh, int t, int before, int after, int steps, int sequences, int units,
    int activation
) {
    using Gemm = GemmTile<T, Shape>;
    constexpr int gates = cell == LSTM ? 4 : cell == GRU ? 3 : 1;
    const bool has_after = after >= 0 && after < steps, has_step = t >= 0 && t < steps;
    const int width = gates * units, depth = has_after ? width : 0;
    const TilePlace<Shape> place(sequences, units, depth, 1);
    const T* const d_after = d_h_tng + (has_after ? (long long)after * sequences * width : 0);
    const Matrix<T, true> errors{d_after, sequences, depth, width};
    const Matrix<T, false> weight{w_gh, units, depth, units};
    T sum[Shape::down][Shape::across] = {};
    Gemm::multiply(errors, weight, place.row, place.column, 0, depth, sum);
    const States<T, Count> states{out_tnh, h0_nh, lengths_n, before, steps, sequences, units};
#pragma unroll
    for (int i = 0; i < Shape::down; i++) {
        const int n = place.row + Gemm::row(i);
#pragma unroll
        for (int j = 0; j < Shape::across; j++) {
            const int unit = place.column + Gemm::column(j);
            if (n >= sequences || unit >= units) continue;
            const long long state = (long long)n * units + unit;
            T dh = has_after ? grad_h_nh[state] : grad_h_n[state];
            if (has_after && alive(lengths_n, n, after)) dh += sum[i][j];
            if (!has_step) {
                grad_h_nh[state] = dh;
                continue;
            }
            const long long sequence = (long long)t * sequences + n, here = sequence * units + unit;
            T d[4] = {}, d_last = T(0);
            T dc = T(0);
            if (cell == LSTM) dc = has_after ? grad_c_nh[state] : grad_c_n[state];
            if (alive(lengths_n, n, t)) {
                const T error = grad_out_tnh[here] + dh;
                const T* const gate = cell == RNN ? nullptr : gates_tng + sequence * 4 * units + unit;
                dh = T(0);
                if (cell == RNN) {
                    d[0] = activate_backward(error, out_tnh[here], activation);
                } else if (cell == GRU) {
                    const T reset = gate[0], update = gate[units];
                    const T candidate = gate[2 * units], recalled = gate[3 * units];
                    d[2] = activate_backward(error * (T(1) - update), candidate, TANH);
                    d[1] = activate_backward(error * (states.of(n)[unit] - candidate), update, SIGMOID);
                    d[0] = activate_backward(d[2] * recalled, reset, SIGMOID);
                    d_last = d[2] * reset;
                    dh = error * update;
                } else {
                    const T input = gate[0], forget = gate[units];
                    const T candidate = gate[2 * units], output = gate[3 * units];
                    const bool begun = before >= 0 && before < steps;
                    const T c_before = begun ? c_tnh[((long long)before * sequences + n) * units + unit] : c0_nh[state];
                    const T tanh_c = tanh(c_tnh[here]);
                    dc += error * output * (T(1) - tanh_c * tanh_c);
                    d[0] = activate_backward(dc * candidate, input, SIGMOID);
                    d[1] = activate_backward(dc * c_before, forget, SIGMOID);
                    d[2] = activate_backward(dc * input, candidate, TANH);
                    d[3] = activate_backward(error * tanh_c, output, SIGMOID);
                    dc *= forget;
                }
            }
            grad_h_nh[state] = dh;
            if (cell == LSTM) grad_c_nh[state] = dc;
#pragma unroll
            for (int g = 0; g < gates; g++) d_x_tng[sequence * width + g * units + unit] = d[g];
            if (cell == GRU) {
                d_h_tng[sequence * width + unit] = d[0];
                d_h_tng[sequence * width + units + unit] = d[1];
                d_h_tng[sequence * width + 2 * units + unit] = d_last;
            }
        }
    }
}

// The state before each step, for the gradient of W_hh.
template <class T, class Count>
__global__ void states_before(
    const T* __restrict__ out_tnh, const T* __restrict__ h0_nh, const Count* __restrict__ lengths_n,
    T* __restrict__ before_tnh, int steps, int sequences, int units, int backwards
) {
    const long long size = (long long)steps * sequences * units;
    for (long long i = first_of_grid(); i < size; i += step_of_grid()) {
        const long long row = i / units;
        const int t = (int)(row / sequences), before = backwards ? t + 1 : t - 1;
        const States<T, Count> states{out_tnh, h0_nh, lengths_n, before, steps, sequences, units};
        before_tnh[i] = states.of((int)(row % sequences))[i % units];
    }
}

// The inputs, 0 beyond their sequences' lengths: what stands there may be NaN, which 0 errors do not undo.
template <class T, class Count>
__global__ void inputs_alive(
    const T* __restrict__ x_tni, const Count* __restrict__ lengths_n, T* __restrict__ kept_tni, int steps,
    int sequences, int inputs
) {
    const long long size = (long long)steps * sequences * inputs;
    for (long long i = first_of_grid(); i < size; i += step_of_grid()) {
        const long long row = i / inputs;
        kept_tni[i] = alive(lengths_n, (int)(row % sequences), (int)(row / sequences)) ? x_tni[i] : T(0);
    }
}
