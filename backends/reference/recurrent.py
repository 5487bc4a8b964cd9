"""Recurrent nets over a whole sequence: the plain one, the GRU and the LSTM.

T steps, N sequences, I inputs, H units. The rows of the weights are blocks of H, one a gate, in
PyTorch's order: reset r, update z, candidate n (GRU); input i, forget f, candidate g, output o
(LSTM, with two biases whose sum counts; the textbook form stacks [g, i, f, o] with one bias b: take
its blocks in the order 1, 2, 0, 3, b_ih = b and b_hh = 0).

With `reverse` the steps run from T - 1 to 0. `lengths` (N,) gives each sequence its own number of
steps: at t >= lengths[n] the state stays as it is, the output is zero and x does not count, be it
NaN. In reverse the state therefore stays the first one until the sequence's own last element.
"""

from __future__ import annotations

from typing import Any, Literal

from trine.backends.op import op
from trine.dtypes import Array, DType

Outputs = dict[str, tuple[tuple[int, ...], DType]]
Nonlinearity = Literal["tanh", "relu"]


def _rnn_outputs(x: Array, h0: Array, **_: Any) -> Outputs:
    return {"out": ((x.shape[0], *h0.shape), x.dtype), "h_n": (h0.shape, x.dtype)}


def _gru_outputs(x: Array, h0: Array, **_: Any) -> Outputs:
    gates = (x.shape[0], h0.shape[0], 4 * h0.shape[1])
    return {**_rnn_outputs(x, h0), "gates": (gates, x.dtype)}


def _lstm_outputs(x: Array, h0: Array, **_: Any) -> Outputs:
    found = _gru_outputs(x, h0)
    return {
        "out": found["out"],
        "h_n": found["h_n"],
        "c_n": found["h_n"],
        "c": found["out"],
        "gates": found["gates"],
    }


def _weight_grads(x: Array, w_ih: Array, w_hh: Array, biases: tuple[str, ...]) -> Outputs:
    return {
        "grad_w_ih": (w_ih.shape, x.dtype),
        "grad_w_hh": (w_hh.shape, x.dtype),
        **dict.fromkeys(biases, ((w_ih.shape[0],), x.dtype)),
    }


def _input_grad(x: Array, input_grad: bool) -> Outputs:
    return {"grad_x": (x.shape if input_grad else (0, *x.shape[1:]), x.dtype)}


def _rnn_backward_outputs(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, input_grad: bool, **_: Any
) -> Outputs:
    grads = {**_input_grad(x, input_grad), "grad_h0": (h0.shape, x.dtype)}
    return {**grads, **_weight_grads(x, w_ih, w_hh, ("grad_b",))}


def _gru_backward_outputs(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, input_grad: bool, **_: Any
) -> Outputs:
    grads = {**_input_grad(x, input_grad), "grad_h0": (h0.shape, x.dtype)}
    return {**grads, **_weight_grads(x, w_ih, w_hh, ("grad_b_ih", "grad_b_hh"))}


def _lstm_backward_outputs(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, input_grad: bool, **_: Any
) -> Outputs:
    grads = {
        **_input_grad(x, input_grad),
        "grad_h0": (h0.shape, x.dtype),
        "grad_c0": (h0.shape, x.dtype),
    }
    return {**grads, **_weight_grads(x, w_ih, w_hh, ("grad_b",))}


def _order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


class RecurrentOps:
    """Recurrent nets on `self.xp`."""

    xp: Any
    matmul: Any
    sigmoid: Any

    def _alive(self, lengths: Array | None, steps: int) -> Any:
        """Return whether t < lengths[n] as (T, N, 1), None where all sequences are full."""
        if lengths is None:
            return None
        return (self.xp.arange(steps)[:, None] < lengths[None, :])[:, :, None]

    def _keep(self, alive: Any, new: Array, old: Array | None = None) -> Array:
        """Return `new` where a sequence goes on, elsewhere `old` or 0."""
        if alive is None:
            return new
        return self.xp.where(alive, new, new.dtype.type(0) if old is None else old)

    def _project(self, x: Array, w_ih: Array, *biases: Array | None) -> Array:
        """Return W_ih x_t + biases for all steps: (T, N, rows)."""
        steps, batch, inputs = x.shape
        z = self.matmul(x.reshape(steps * batch, inputs), w_ih, trans_b=True)
        for bias in biases:
            if bias is not None:
                z = z + bias
        return z.reshape(steps, batch, w_ih.shape[0])

    def _before(self, states: Array, first: Array, alive: Any, reverse: bool) -> Array:
        """Return the state before each step, from the states after it."""
        xp = self.xp
        if not reverse:
            return xp.concatenate([first[None], states[:-1]], axis=0)
        states = states if alive is None else xp.where(alive, states, first[None])
        return xp.concatenate([states[1:], first[None]], axis=0)

    def _weight_gradients(
        self, dz: Array, x: Array, dz_h: Array, before: Array, w_ih: Array, input_grad: bool
    ) -> tuple[Array, Array, Array]:
        """Return grad_x, or nothing in its place, grad_w_ih and grad_w_hh of all steps' errors."""
        steps, batch, inputs = x.shape
        flat, flat_h = (d.reshape(steps * batch, d.shape[2]) for d in (dz, dz_h))
        grad_x = self.matmul(flat, w_ih).reshape(x.shape) if input_grad else x[:0]
        grad_w_ih = self.matmul(flat, x.reshape(steps * batch, inputs), trans_a=True)
        states = before.reshape(steps * batch, before.shape[2])
        return grad_x, grad_w_ih, self.matmul(flat_h, states, trans_a=True)

    @op(outputs=_rnn_outputs)
    def rnn(
        self,
        x: Array,
        h0: Array,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None = None,
        b_hh: Array | None = None,
        lengths: Array | None = None,
        *,
        nonlinearity: Nonlinearity = "tanh",
        reverse: bool = False,
    ) -> tuple[Array, Array]:
        """Hidden states of a plain recurrent net at every step, and the last ones.

            h_t = act(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh),  act tanh or ReLU

        x: (T, N, I), h0: (N, H), w_ih: (H, I), w_hh: (H, H), biases: (H,), lengths: (N,)
        -> out: (T, N, H), h_n: (N, H).
        """
        xp = self.xp
        steps, h = x.shape[0], h0
        alive = self._alive(lengths, steps)
        z_x = self._project(self._keep(alive, x), w_ih, b_ih, b_hh)
        out = xp.empty(z_x.shape, x.dtype)
        for t in _order(steps, reverse):
            z = z_x[t] + self.matmul(h, w_hh, trans_b=True)
            new = xp.tanh(z) if nonlinearity == "tanh" else xp.maximum(z, z.dtype.type(0))
            here = None if alive is None else alive[t]
            out[t] = self._keep(here, new)
            h = self._keep(here, new, h)
        return out, h

    @op(outputs=_rnn_backward_outputs)
    def rnn_backward(
        self,
        grad_out: Array,
        grad_h_n: Array,
        x: Array,
        h0: Array,
        w_ih: Array,
        w_hh: Array,
        out: Array,
        lengths: Array | None = None,
        *,
        nonlinearity: Nonlinearity = "tanh",
        reverse: bool = False,
        input_grad: bool = True,
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Gradients of `rnn`, from the last step to the first.

            dz_t = (grad_out_t + W_hh^T dz_(t+1)) act'(z_t),  act' = 1 - h^2 or [h > 0]
            dx_t = W_ih^T dz_t,   dW = sum_t dz_t [x_t; h_(t-1)]^T,   db = sum dz_t

        grad_out: (T, N, H), grad_h_n: (N, H); out is that of `rnn`. grad_b serves both biases.
        Without input_grad, dx is not computed and has no rows.
        """
        xp = self.xp
        steps, dh = x.shape[0], grad_h_n
        alive = self._alive(lengths, steps)
        dz = xp.empty(out.shape, out.dtype)
        for t in _order(steps, not reverse):
            here = None if alive is None else alive[t]
            dh_t = grad_out[t] + dh
            if nonlinearity == "tanh":
                dz_t = dh_t * (1 - out[t] * out[t])
            else:
                dz_t = xp.where(out[t] > 0, dh_t, dh_t.dtype.type(0))
            dz[t] = self._keep(here, dz_t)
            dh = self._keep(here, self.matmul(dz[t], w_hh), dh)
        before = self._before(out, h0, alive, reverse)
        errors = dz, self._keep(alive, x), dz, before, w_ih
        grad_x, *grads = self._weight_gradients(*errors, input_grad)
        return (grad_x, dh, *grads, dz.sum(axis=(0, 1)))

    @op(outputs=_gru_outputs)
    def gru(
        self,
        x: Array,
        h0: Array,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None = None,
        b_hh: Array | None = None,
        lengths: Array | None = None,
        *,
        reverse: bool = False,
    ) -> tuple[Array, Array, Array]:
        """Hidden states of a GRU at every step, the last ones, and the gates.

            r, z = logistic(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), each on its block
            n = tanh(W_in x_t + b_in + r (W_hn h_(t-1) + b_hn))
            h_t = (1 - z) n + z h_(t-1)

        x: (T, N, I), h0: (N, H), w_ih: (3H, I), w_hh: (3H, H), biases: (3H,), lengths: (N,)
        -> out: (T, N, H), h_n: (N, H), gates: (T, N, 4H): r, z, n and W_hn h_(t-1) + b_hn.
        """
        xp = self.xp
        steps, (batch, units), h = x.shape[0], h0.shape, h0
        alive = self._alive(lengths, steps)
        z_x = self._project(self._keep(alive, x), w_ih, b_ih)
        out = xp.empty((steps, batch, units), x.dtype)
        gates = xp.empty((steps, batch, 4 * units), x.dtype)
        for t in _order(steps, reverse):
            z_h = self.matmul(h, w_hh, trans_b=True)
            z_h = z_h if b_hh is None else z_h + b_hh
            r = self.sigmoid(z_x[t, :, :units] + z_h[:, :units])
            z = self.sigmoid(z_x[t, :, units : 2 * units] + z_h[:, units : 2 * units])
            recalled = z_h[:, 2 * units :]
            n = xp.tanh(z_x[t, :, 2 * units :] + r * recalled)
            new = (1 - z) * n + z * h
            here = None if alive is None else alive[t]
            gates[t] = self._keep(here, xp.concatenate([r, z, n, recalled], axis=1))
            out[t] = self._keep(here, new)
            h = self._keep(here, new, h)
        return out, h, gates

    @op(outputs=_gru_backward_outputs)
    def gru_backward(
        self,
        grad_out: Array,
        grad_h_n: Array,
        x: Array,
        h0: Array,
        w_ih: Array,
        w_hh: Array,
        out: Array,
        gates: Array,
        lengths: Array | None = None,
        *,
        reverse: bool = False,
        input_grad: bool = True,
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Gradients of `gru`, from the last step to the first; m stands for W_hn h_(t-1) + b_hn.

            dh = grad_out_t + what comes from t + 1
            dn = dh (1 - z) (1 - n^2),   dz = dh (h_(t-1) - n) z (1 - z),   dr = dn m r (1 - r)
            d_x = (dr, dz, dn),   d_h = (dr, dz, dn r),   and dh z + W_hh^T d_h goes to t - 1
            dx_t = W_ih^T d_x,   dW_ih = sum d_x x_t^T,   dW_hh = sum d_h h_(t-1)^T,   db = sum d

        grad_out: (T, N, H), grad_h_n: (N, H); out and gates are those of `gru`. Without input_grad,
        dx is not computed and has no rows.
        """
        xp = self.xp
        steps, units, dh = x.shape[0], h0.shape[1], grad_h_n
        alive = self._alive(lengths, steps)
        before = self._before(out, h0, alive, reverse)
        d_x = xp.empty((*out.shape[:2], 3 * units), out.dtype)
        d_h = xp.empty(d_x.shape, out.dtype)
        for t in _order(steps, not reverse):
            r, z, n, recalled = (gates[t, :, k * units : (k + 1) * units] for k in range(4))
            dh_t = grad_out[t] + dh
            dn = dh_t * (1 - z) * (1 - n * n)
            dz = dh_t * (before[t] - n) * z * (1 - z)
            dr = dn * recalled * r * (1 - r)
            here = None if alive is None else alive[t]
            d_x[t] = self._keep(here, xp.concatenate([dr, dz, dn], axis=1))
            d_h[t] = self._keep(here, xp.concatenate([dr, dz, dn * r], axis=1))
            dh = self._keep(here, dh_t * z + self.matmul(d_h[t], w_hh), dh)
        errors = d_x, self._keep(alive, x), d_h, before, w_ih
        grad_x, *grads = self._weight_gradients(*errors, input_grad)
        return (grad_x, dh, *grads, d_x.sum(axis=(0, 1)), d_h.sum(axis=(0, 1)))

    @op(outputs=_lstm_outputs)
    def lstm(
        self,
        x: Array,
        h0: Array,
        c0: Array,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None = None,
        b_hh: Array | None = None,
        lengths: Array | None = None,
        *,
        reverse: bool = False,
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Hidden states of an LSTM at every step, the last states, all cell states and the gates.

            z_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh
            i, f, o = logistic(z), g = tanh(z), each on its block of z_t
            c_t = f c_(t-1) + i g
            h_t = o tanh(c_t)

        x: (T, N, I), h0, c0: (N, H), w_ih: (4H, I), w_hh: (4H, H), biases: (4H,), lengths: (N,)
        -> out, c: (T, N, H), h_n, c_n: (N, H), gates: (T, N, 4H) after their activations, in the
        order i, f, g, o. Beyond a sequence's length c repeats its state and gates are 0.
        """
        xp = self.xp
        steps, (batch, units) = x.shape[0], h0.shape
        alive = self._alive(lengths, steps)
        z_x = self._project(self._keep(alive, x), w_ih, b_ih, b_hh)
        out = xp.empty((steps, batch, units), x.dtype)
        c = xp.empty((steps, batch, units), x.dtype)
        gates = xp.empty((steps, batch, 4 * units), x.dtype)
        h_t, c_t = h0, c0
        for t in _order(steps, reverse):
            z = z_x[t] + self.matmul(h_t, w_hh, trans_b=True)
            i, f = self.sigmoid(z[:, :units]), self.sigmoid(z[:, units : 2 * units])
            g, o = xp.tanh(z[:, 2 * units : 3 * units]), self.sigmoid(z[:, 3 * units :])
            here = None if alive is None else alive[t]
            c_t = self._keep(here, f * c_t + i * g, c_t)
            new = o * xp.tanh(c_t)
            h_t = self._keep(here, new, h_t)
            out[t], c[t] = self._keep(here, new), c_t
            gates[t] = self._keep(here, xp.concatenate([i, f, g, o], axis=1))
        return out, h_t, c_t, c, gates

    @op(outputs=_lstm_backward_outputs)
    def lstm_backward(
        self,
        grad_out: Array,
        grad_h_n: Array,
        grad_c_n: Array,
        x: Array,
        h0: Array,
        c0: Array,
        w_ih: Array,
        w_hh: Array,
        out: Array,
        c: Array,
        gates: Array,
        lengths: Array | None = None,
        *,
        reverse: bool = False,
        input_grad: bool = True,
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Gradients of `lstm`, from the last step to the first.

            dh  = grad_out_t + W_hh^T dz_(t+1)
            do  = dh tanh(c_t),   dc = dh o (1 - tanh^2 c_t) + what comes from t + 1
            di  = dc g,   dg = dc i,   df = dc c_(t-1),   and dc f goes to t - 1
            dz  = (di i (1 - i), df f (1 - f), dg (1 - g^2), do o (1 - o))
            dx_t = W_ih^T dz_t,   dW = sum_t dz_t [x_t; h_(t-1)]^T,   db = sum dz_t

        grad_out: (T, N, H), grad_h_n, grad_c_n: (N, H) of the last states; out, c and gates are
        those of `lstm`. grad_b serves each of the two biases. Without input_grad, dx is not computed
        and has no rows.
        """
        xp = self.xp
        steps, units = x.shape[0], h0.shape[1]
        alive = self._alive(lengths, steps)
        c_before = self._before(c, c0, None, reverse)
        dz = xp.empty(gates.shape, gates.dtype)
        dh, dc = grad_h_n, grad_c_n
        for t in _order(steps, not reverse):
            i, f, g, o = (gates[t, :, k * units : (k + 1) * units] for k in range(4))
            tanh_c = xp.tanh(c[t])
            dh_t = grad_out[t] + dh
            do = dh_t * tanh_c
            dc_t = dh_t * o * (1 - tanh_c * tanh_c) + dc
            di, dg, df = dc_t * g, dc_t * i, dc_t * c_before[t]
            errors = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g * g), do * o * (1 - o)]
            here = None if alive is None else alive[t]
            dz[t] = self._keep(here, xp.concatenate(errors, axis=1))
            dh = self._keep(here, self.matmul(dz[t], w_hh), dh)
            dc = self._keep(here, dc_t * f, dc)
        before = self._before(out, h0, alive, reverse)
        errors = dz, self._keep(alive, x), dz, before, w_ih
        grad_x, *grads = self._weight_gradients(*errors, input_grad)
        return (grad_x, dh, dc, *grads, dz.sum(axis=(0, 1)))
