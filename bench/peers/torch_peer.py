"""PyTorch's functions for the ops of the contract, forward and backward, on the CPU.

Backward ops call the very function that torch's autograd calls, with what its forward pass saved;
where that is not exposed (LSTM), autograd itself walks a graph that is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from trine.bench.peers import Peer, PeerCall, torch_optimisers, torch_windows
from trine.bench.peers.torch_calls import ACTIVATIONS, aten, host, make_call, slope, tensor


def _per_channel(z: Any, bias: Any) -> Any:
    return z + bias.reshape(1, -1, *[1] * (z.ndim - 2))


def bias_act(x: Any, bias: Any, activation: str) -> PeerCall:
    """f(x + bias)."""
    return make_call(lambda x, b: ACTIVATIONS[activation](_per_channel(x, b)), x, bias)


def bias_act_backward(grad_out: Any, out: Any, activation: str) -> PeerCall:
    """Gradients of x and bias."""

    def run(delta: Any, out: Any) -> Any:
        dz = slope(delta, out, activation)
        return dz, dz.sum(dim=[0, *range(2, dz.ndim)])

    return make_call(run, grad_out, out)


def matmul(x: Any, y: Any, trans_a: bool = False, trans_b: bool = False) -> PeerCall:
    """x y, either transposed."""
    return make_call(lambda a, b: (a.mT if trans_a else a) @ (b.mT if trans_b else b), x, y)


def linear(x: Any, weight: Any, bias: Any, activation: str) -> PeerCall:
    """f(x W^T + b)."""
    return make_call(lambda x, w, b: ACTIVATIONS[activation](F.linear(x, w, b)), x, weight, bias)


def linear_backward(grad_out: Any, x: Any, weight: Any, out: Any, activation: str) -> PeerCall:
    """Gradients of input, weight and bias."""

    def run(delta: Any, x: Any, weight: Any, out: Any) -> Any:
        dz = slope(delta, out, activation)
        return dz @ weight, dz.T @ x, dz.sum(0)

    return make_call(run, grad_out, x, weight, out)


def cross_entropy(
    logits: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float,
    reduction: str,
) -> PeerCall:  # fmt: skip
    """The loss; torch keeps its log-probabilities to itself."""
    return make_call(
        lambda z, t, w: F.cross_entropy(
            z, t, w, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        ),
        logits, target.astype(np.int64), weight,
    )  # fmt: skip


def cross_entropy_backward(
    grad_out: Any, log_probs: Any, target: Any, weight: Any, ignore_index: int,
    label_smoothing: float, reduction: str,
) -> PeerCall | None:  # fmt: skip
    """Gradient of the logits by the two functions of torch's own backward pass."""
    if label_smoothing or reduction != "mean" or weight is not None:
        return None
    count = torch.tensor(float((target != ignore_index).sum()), dtype=tensor(log_probs).dtype)

    def run(delta: Any, log_probs: Any, target: Any) -> Any:
        inner = aten.nll_loss_backward(delta, log_probs, target, None, 1, ignore_index, count)
        return aten._log_softmax_backward_data(inner, log_probs, 1, log_probs.dtype)

    return make_call(run, grad_out, log_probs, target.astype(np.int64))


def batch_norm(x: Any, weight: Any, bias: Any, eps: float) -> PeerCall:
    """Normalisation by the batch's statistics, with those that training saves."""
    return make_call(
        lambda x, w, b: aten.native_batch_norm(x, w, b, None, None, True, 0.1, eps),
        x, weight, bias, shown=2,
    )  # fmt: skip


def batch_norm_backward(
    grad_out: Any, x: Any, weight: Any, mean: Any, var: Any, eps: float
) -> PeerCall:
    """Gradients of input, weight and bias."""
    rstd = (1 / np.sqrt(var.astype(np.float64) + eps)).astype(var.dtype)
    return make_call(
        lambda d, x, w, mean, rstd: aten.native_batch_norm_backward(
            d, x, w, None, None, mean, rstd, True, eps, [True, True, True]
        ),
        grad_out, x, weight, mean, rstd,
    )  # fmt: skip


def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> PeerCall:
    """Normalisation of rows."""
    return make_call(
        lambda x, w, b: aten.native_layer_norm(x, [x.shape[1]], w, b, eps), x, weight, bias, shown=1
    )


def layer_norm_backward(grad_out: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> PeerCall:
    """Gradients of input, weight and bias."""
    bias = torch.zeros(x.shape[1], dtype=tensor(x).dtype)
    return make_call(
        lambda d, x, w, mean, rstd: aten.native_layer_norm_backward(
            d, x, [x.shape[1]], mean, rstd, w, bias, [True, True, True]
        ),
        grad_out, x, weight, mean[:, None], rstd[:, None],
    )  # fmt: skip


def group_norm(x: Any, weight: Any, bias: Any, groups: int, eps: float) -> PeerCall:
    """Normalisation of groups of channels."""
    n, c, length = x.shape
    return make_call(
        lambda x, w, b: aten.native_group_norm(x, w, b, n, c, length, groups, eps),
        x, weight, bias,
    )  # fmt: skip


def group_norm_backward(
    grad_out: Any, x: Any, weight: Any, mean: Any, rstd: Any, groups: int
) -> PeerCall:
    """Gradients of input, weight and bias."""
    n, c, length = x.shape
    return make_call(
        lambda d, x, w, mean, rstd: aten.native_group_norm_backward(
            d, x, mean, rstd, w, n, c, length, groups, [True, True, True]
        ),
        grad_out, x, weight, mean, rstd,
    )  # fmt: skip


def embedding(weight: Any, indices: Any) -> PeerCall:
    """Rows of a table."""
    return make_call(F.embedding, indices.astype(np.int64), weight)


def embedding_backward(
    grad_out: Any, indices: Any, num_embeddings: int, padding_idx: int
) -> PeerCall:
    """Gradient of the table."""
    return make_call(
        lambda d, i: aten.embedding_dense_backward(d, i, num_embeddings, padding_idx, False),
        grad_out, indices.astype(np.int64),
    )  # fmt: skip


def _lstm_inputs(*arrays: Any) -> tuple[list[Any], Callable[..., Any]]:
    x, h0, c0, *weights = (tensor(a) for a in arrays)
    weights = [w for w in weights if w is not None]
    inputs = [x, h0[None].contiguous(), c0[None].contiguous(), *weights]
    biased = len(weights) == 4

    def run(train: bool) -> Any:
        return torch._VF.lstm(
            inputs[0], inputs[1:3], inputs[3:], biased, 1, 0.0, train, False, False
        )

    return inputs, run


def lstm(*arrays: Any) -> PeerCall | None:
    """Hidden states of all steps; cell states and gates stay inside."""
    if (arrays[5] is None) != (arrays[6] is None):
        return None
    inputs, run = _lstm_inputs(*arrays)
    for t in inputs:
        t.requires_grad_()  # so that it keeps, as ours does, what the backward pass needs

    return PeerCall(lambda: run(True), lambda result: [host(result[0])])


def lstm_backward(*arrays: Any, **attributes: Any) -> PeerCall | None:
    """None: our samples hold gates that no forward pass made, and torch takes only its own."""
    return None


def _axis_function(function: Callable[..., Any]) -> Callable[..., PeerCall]:
    return lambda x, axis: make_call(lambda x: function(x, axis), x)


def _axis_backward(function: Callable[..., Any]) -> Callable[..., PeerCall]:
    return lambda grad_out, out, axis: make_call(
        lambda d, out: function(d, out, axis, out.dtype), grad_out, out
    )


def _reduction(function: Callable[..., Any]) -> Callable[..., PeerCall | None]:
    def build(x: Any, axis: Any = None, keepdims: bool = False) -> PeerCall | None:
        return make_call(function, x) if axis is None and not keepdims else None

    return build


def _elementwise(function: Callable[..., Any]) -> Callable[..., PeerCall]:
    return lambda *arrays: make_call(function, *arrays)


FUNCTIONS: dict[str, Callable[..., PeerCall | None]] = {
    **{
        name: _elementwise(getattr(torch, name))
        for name in (
            "neg", "abs", "sign", "floor", "exp", "expm1", "log", "log1p", "sqrt", "tanh",
            "sigmoid", "relu", "isfinite", "logical_not", "sin", "cos", "add", "sub", "mul", "div",
            "maximum", "minimum", "greater", "greater_equal", "less", "less_equal", "not_equal",
            "logical_and", "logical_or", "pow",
        )
    },
    "equal": _elementwise(torch.eq), "softplus": _elementwise(F.softplus),
    "sum": _reduction(torch.sum), "max": _reduction(torch.amax), "min": _reduction(torch.amin),
    "softmax": _axis_function(torch.softmax), "log_softmax": _axis_function(torch.log_softmax),
    "softmax_backward": _axis_backward(aten._softmax_backward_data),
    "log_softmax_backward": _axis_backward(aten._log_softmax_backward_data),
    **torch_windows.FUNCTIONS,
    **torch_optimisers.FUNCTIONS,
    **{
        function.__name__: function
        for function in (
            bias_act, bias_act_backward, matmul, linear, linear_backward, cross_entropy,
            cross_entropy_backward, batch_norm, batch_norm_backward, layer_norm,
            layer_norm_backward, group_norm, group_norm_backward, embedding, embedding_backward,
            lstm, lstm_backward,
        )
    },
}  # fmt: skip

PEER = Peer("torch", torch.__version__, FUNCTIONS, torch.set_num_threads)
