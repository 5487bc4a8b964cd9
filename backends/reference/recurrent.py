"""The LSTM over a whole sequence.

T steps, N sequences, I inputs, H units. The 4H rows of the weights are the gates in the order input
i, forget f, candidate g, output o (PyTorch's), and there are two biases, whose sum counts. The
textbook form stacks [g, i, f, o] with one bias b: take its blocks in the order 1, 2, 0, 3, b_ih = b
and b_hh = 0.
"""

from __future__ import annotations

from typing import Any

from trine.backends.op import op
from trine.dtypes import Array, DType

Outputs = dict[str, tuple[tuple[int, ...], DType]]


def _lstm_outputs(x: Array, h0: Array, **_: Any) -> Outputs:
    steps, hidden = x.shape[0], h0.shape
    return {
        "h": ((steps, *hidden), x.dtype),
        "c": ((steps, *hidden), x.dtype),
        "gates": ((steps, hidden[0], 4 * hidden[1]), x.dtype),
    }


def _lstm_backward_outputs(
    x: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, **_: Any
) -> Outputs:
    return {
        "grad_x": (x.shape, x.dtype),
        "grad_h0": (h0.shape, x.dtype),
        "grad_c0": (c0.shape, x.dtype),
        "grad_w_ih": (w_ih.shape, x.dtype),
        "grad_w_hh": (w_hh.shape, x.dtype),
        "grad_b": ((w_ih.shape[0],), x.dtype),
    }


class RecurrentOps:
    """Recurrent nets on `self.xp`."""

    xp: Any
    matmul: Any
    sigmoid: Any

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
    ) -> tuple[Array, Array, Array]:
        """Hidden states, cell states and gates of an LSTM at every step.

            z_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh
            i, f, o = logistic(z), g = tanh(z), each on its block of z_t
            c_t = f c_(t-1) + i g
            h_t = o tanh(c_t)

        x: (T, N, I), h0, c0: (N, H), w_ih: (4H, I), w_hh: (4H, H), biases: (4H,)
        -> h, c: (T, N, H), gates: (T, N, 4H) after their activations, in the order i, f, g, o.
        """
        xp = self.xp
        steps, (batch, units) = x.shape[0], h0.shape
        z_x = self.matmul(x.reshape(steps * batch, x.shape[2]), w_ih, trans_b=True)
        for bias in (b_ih, b_hh):
            if bias is not None:
                z_x = z_x + bias
        z_x = z_x.reshape(steps, batch, 4 * units)
        h = xp.empty((steps, batch, units), x.dtype)
        c = xp.empty((steps, batch, units), x.dtype)
        gates = xp.empty((steps, batch, 4 * units), x.dtype)
        h_t, c_t = h0, c0
        for t in range(steps):
            z = z_x[t] + self.matmul(h_t, w_hh, trans_b=True)
            i, f = self.sigmoid(z[:, :units]), self.sigmoid(z[:, units : 2 * units])
            g, o = xp.tanh(z[:, 2 * units : 3 * units]), self.sigmoid(z[:, 3 * units :])
            c_t = f * c_t + i * g
            h_t = o * xp.tanh(c_t)
            h[t], c[t], gates[t] = h_t, c_t, xp.concatenate([i, f, g, o], axis=1)
        return h, c, gates

    @op(outputs=_lstm_backward_outputs)
    def lstm_backward(
        self,
        grad_h: Array,
        grad_c_last: Array,
        x: Array,
        h0: Array,
        c0: Array,
        w_ih: Array,
        w_hh: Array,
        h: Array,
        c: Array,
        gates: Array,
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Gradients of `lstm`, from the last step to the first.

            dh  = grad_h_t + W_hh^T dz_(t+1)
            do  = dh tanh(c_t),   dc = dh o (1 - tanh^2 c_t) + what comes from t + 1
            di  = dc g,   dg = dc i,   df = dc c_(t-1),   and dc f goes to t - 1
            dz  = (di i (1 - i), df f (1 - f), dg (1 - g^2), do o (1 - o))
            dx_t = W_ih^T dz_t,   dW = sum_t dz_t [x_t; h_(t-1)]^T,   db = sum dz_t

        grad_h: (T, N, H) of every hidden state, grad_c_last: (N, H) of the last cell state; h, c and
        gates are the outputs of `lstm`. grad_b serves each of the two biases.
        """
        xp = self.xp
        steps, batch, units = h.shape
        dz = xp.empty(gates.shape, gates.dtype)
        dh_next, dc_next = xp.zeros(h0.shape, h0.dtype), grad_c_last
        for t in range(steps - 1, -1, -1):
            i, f = gates[t, :, :units], gates[t, :, units : 2 * units]
            g, o = gates[t, :, 2 * units : 3 * units], gates[t, :, 3 * units :]
            c_before = c[t - 1] if t > 0 else c0
            tanh_c = xp.tanh(c[t])
            dh = grad_h[t] + dh_next
            do = dh * tanh_c
            dc = dh * o * (1 - tanh_c * tanh_c) + dc_next
            di, dg, df = dc * g, dc * i, dc * c_before
            dz[t, :, :units] = di * i * (1 - i)
            dz[t, :, units : 2 * units] = df * f * (1 - f)
            dz[t, :, 2 * units : 3 * units] = dg * (1 - g * g)
            dz[t, :, 3 * units :] = do * o * (1 - o)
            dh_next, dc_next = self.matmul(dz[t], w_hh), dc * f
        flat = dz.reshape(steps * batch, 4 * units)
        h_before = xp.concatenate([h0[None], h[:-1]], axis=0).reshape(steps * batch, units)
        grad_w_ih = self.matmul(flat, x.reshape(steps * batch, x.shape[2]), trans_a=True)
        grad_w_hh = self.matmul(flat, h_before, trans_a=True)
        return (
            self.matmul(flat, w_ih).reshape(x.shape),
            dh_next,
            dc_next,
            grad_w_ih,
            grad_w_hh,
            flat.sum(axis=0),
        )
