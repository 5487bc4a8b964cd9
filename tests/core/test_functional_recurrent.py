"""Recurrent nets against their equations, written out one by one, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F
from trine.backends import get_backend

T, N, D, H = 4, 2, 3, 5


def logistic(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def t64(values: Any) -> trine.Tensor:
    return trine.tensor(values, "float64")


@pytest.fixture
def case() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(13)
    shapes = {
        "x": (T, N, D), "h0": (N, H), "c0": (N, H),
        "w_ih": (4 * H, D), "w_hh": (4 * H, H), "b_ih": (4 * H,), "b_hh": (4 * H,),
    }  # fmt: skip
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def textbook(case: dict[str, np.ndarray]) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Run the source's equations: one weight matrix [g, i, f, o] on I_t = [x_t; h_(t-1)], one bias.

    Returns the stacked matrix and what each step computed.
    """
    blocks = [slice(k * H, (k + 1) * H) for k in (2, 0, 1, 3)]  # g, i, f, o of PyTorch's i, f, g, o
    both = np.concatenate([case["w_ih"], case["w_hh"]], axis=1)
    weight = np.concatenate([both[block] for block in blocks])
    bias = np.concatenate([(case["b_ih"] + case["b_hh"])[block] for block in blocks])
    h, c, steps = case["h0"], case["c0"], []
    for x in case["x"]:
        joined = np.concatenate([x, h], axis=1)
        z = joined @ weight.T + bias
        g, i = np.tanh(z[:, :H]), logistic(z[:, H : 2 * H])
        f, o = logistic(z[:, 2 * H : 3 * H]), logistic(z[:, 3 * H :])
        before = c
        c = f * c + i * g
        h = o * np.tanh(c)
        steps.append(
            {"I": joined, "g": g, "i": i, "f": f, "o": o, "c": c, "before": before, "h": h}
        )
    return weight, steps


def test_forward_is_the_textbooks(backend_name, case):
    _, steps = textbook(case)
    a = {name: t64(value) for name, value in case.items()}
    out, (h_n, c_n) = F.lstm(a["x"], (a["h0"], a["c0"]), a["w_ih"], a["w_hh"], a["b_ih"], a["b_hh"])
    expected = np.stack([step["h"] for step in steps])
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(h_n.numpy(), expected[-1], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(c_n.numpy(), steps[-1]["c"], rtol=1e-12, atol=1e-14)


def test_every_gradient_line_of_the_textbook(backend_name, case):
    weight, steps = textbook(case)
    rng = np.random.default_rng(17)
    grad_h, grad_c = rng.normal(size=(T, N, H)), rng.normal(size=(N, H))

    dh_next, dc_next = np.zeros((N, H)), grad_c
    d_weight, d_bias, d_x = np.zeros_like(weight), np.zeros(4 * H), np.zeros((T, N, D))
    for t in range(T - 1, -1, -1):
        s = steps[t]
        tanh_c = np.tanh(s["c"])
        dh = grad_h[t] + dh_next
        do = dh * tanh_c
        dc = dh * s["o"] * (1 - tanh_c**2) + dc_next
        di, dg, df = dc * s["g"], dc * s["i"], dc * s["before"]
        dc_next = dc * s["f"]
        dz = np.concatenate(
            [
                dg * (1 - s["g"] ** 2),
                di * s["i"] * (1 - s["i"]),
                df * s["f"] * (1 - s["f"]),
                do * s["o"] * (1 - s["o"]),
            ],
            axis=1,
        )
        d_joined = dz @ weight  # dI_t = W^T dz_t
        d_x[t], dh_next = d_joined[:, :D], d_joined[:, D:]
        d_weight += dz.T @ s["I"]
        d_bias += dz.sum(0)
    order = [1, 2, 0, 3]  # i, f, g, o of the source's g, i, f, o
    d_weight = np.concatenate([d_weight[k * H : (k + 1) * H] for k in order])
    d_bias = np.concatenate([d_bias[k * H : (k + 1) * H] for k in order])
    expected = {
        "x": d_x, "h0": dh_next, "c0": dc_next, "w_ih": d_weight[:, :D], "w_hh": d_weight[:, D:],
        "b_ih": d_bias, "b_hh": d_bias,
    }  # fmt: skip

    def gradients() -> dict[str, np.ndarray]:
        a = {name: t64(value).requires_grad_() for name, value in case.items()}
        out, (_, c_n) = F.lstm(
            a["x"], (a["h0"], a["c0"]), a["w_ih"], a["w_hh"], a["b_ih"], a["b_hh"]
        )
        ((out * t64(grad_h)).sum() + (c_n * t64(grad_c)).sum()).backward()
        return {name: tensor.grad.numpy() for name, tensor in a.items()}

    fused = gradients()
    with trine.autograd.composed_ops():
        composed = gradients()
    for name, value in expected.items():
        np.testing.assert_allclose(fused[name], value, rtol=1e-10, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(composed[name], value, rtol=1e-10, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("part", ["output", "h_n", "c_n"])
def test_gradients_by_differences(backend_name, case, check_gradients, part):
    def run(*a: trine.Tensor) -> trine.Tensor:
        out, (h_n, c_n) = F.lstm(a[0], (a[1], a[2]), *a[3:])
        return {"output": out, "h_n": h_n, "c_n": c_n}[part]

    check_gradients(run, *(t64(value) for value in case.values()))


def test_without_state_and_biases(backend_name, case, check_gradients):
    zeros = np.zeros((N, H))
    quiet = {**case, "h0": zeros, "c0": zeros, "b_ih": np.zeros(4 * H), "b_hh": np.zeros(4 * H)}
    _, steps = textbook(quiet)
    out, _ = F.lstm(t64(case["x"]), None, t64(case["w_ih"]), t64(case["w_hh"]))
    np.testing.assert_allclose(out.numpy()[-1], steps[-1]["h"], rtol=1e-12, atol=1e-14)
    check_gradients(
        lambda x, w, v: F.lstm(x, None, w, v)[0],
        t64(case["x"]), t64(case["w_ih"]), t64(case["w_hh"]),
    )  # fmt: skip


def test_float32_stays_and_large_inputs_saturate(backend_name, case):
    x = trine.tensor(case["x"] * 1e4, "float32")
    weights = [trine.tensor(case[name], "float32") for name in ("w_ih", "w_hh")]
    out, (h_n, c_n) = F.lstm(x, None, *weights)
    assert out.dtype == h_n.dtype == c_n.dtype == np.float32
    assert np.isfinite(out.numpy()).all()
    assert (np.abs(out.numpy()) <= 1).all()
    one = F.lstm(trine.zeros(1, 0, D), None, *weights)
    assert one[0].shape == (1, 0, H)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": (T, N)}, ValueError, r"\[lstm\] expected input of shape \(T, N, I\)"),
        ({"x": (0, N, D)}, ValueError, "with T >= 1"),
        ({"w_hh": (4 * H, H + 1)}, ValueError, r"expected w_hh of shape \(4H, H\)"),
        ({"w_ih": (4 * H, D + 1)}, ValueError, r"expected w_ih of shape \(20, 3\)"),
        ({"h0": (N + 1, H)}, ValueError, r"expected h_0 of shape \(2, 5\)"),
        ({"c0": (H,)}, ValueError, r"expected c_0 of shape \(2, 5\)"),
        ({"b_hh": (H,)}, ValueError, r"expected b_hh of shape \(20,\)"),
    ],
)
def test_lstm_errors(backend_name, case, change, error, message):
    a = {name: trine.zeros(change.get(name, value.shape)) for name, value in case.items()}
    with pytest.raises(error, match=message):
        F.lstm(a["x"], (a["h0"], a["c0"]), a["w_ih"], a["w_hh"], a["b_ih"], a["b_hh"])
    wrong = trine.zeros(*case["w_ih"].shape, dtype="float64")
    with pytest.raises(TypeError, match=r"\[lstm\] expected w_ih of dtype float32 to match input"):
        F.lstm(trine.zeros(T, N, D), None, wrong, trine.zeros(4 * H, H))


# --- the plain net and the GRU, ragged lengths, the other direction -------------------------------

BLOCKS = {"rnn": 1, "gru": 3, "lstm": 4}


def step_by_hand(kind: str, x: Any, states: Any, p: dict[str, np.ndarray], relu: bool) -> Any:
    """Return the states after one step of one sequence."""
    z_x, z_h = p["w_ih"] @ x + p["b_ih"], p["w_hh"] @ states[0] + p["b_hh"]
    if kind == "rnn":
        return (np.maximum(z_x + z_h, 0) if relu else np.tanh(z_x + z_h),)
    if kind == "gru":
        (xr, xz, xn), (hr, hz, hn) = np.split(z_x, 3), np.split(z_h, 3)
        r, z = logistic(xr + hr), logistic(xz + hz)
        return ((1 - z) * np.tanh(xn + r * hn) + z * states[0],)
    i, f, g, o = np.split(z_x + z_h, 4)
    c = logistic(f) * states[1] + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(c), c


def by_hand(
    kind: str, p: dict[str, np.ndarray], lengths: list[int], reverse: bool, relu: bool = False
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Run each sequence by itself, over its own elements only."""
    out = np.zeros((T, N, H))
    last = [np.zeros((N, H)) for _ in range(1 + (kind == "lstm"))]
    for n, length in enumerate(lengths):
        states = [p["h0"][n], p["c0"][n]][: len(last)]
        for t in range(length - 1, -1, -1) if reverse else range(length):
            states = step_by_hand(kind, p["x"][t, n], states, p, relu)
            out[t, n] = states[0]
        for mine, state in zip(last, states, strict=True):
            mine[n] = state
    return out, last


def params(kind: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(19)
    rows = BLOCKS[kind] * H
    shapes = {
        "x": (T, N, D), "h0": (N, H), "c0": (N, H),
        "w_ih": (rows, D), "w_hh": (rows, H), "b_ih": (rows,), "b_hh": (rows,),
    }  # fmt: skip
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def run_flat(kind: str, p: dict[str, trine.Tensor], **options: Any) -> tuple[trine.Tensor, ...]:
    """Return (output, h_n) or (output, h_n, c_n)."""
    weights = [p[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    if kind == "lstm":
        out, states = F.lstm(p["x"], (p["h0"], p["c0"]), *weights, **options)
        return out, *states
    return getattr(F, kind)(p["x"], p["h0"], *weights, **options)


KINDS = [("rnn", {}), ("rnn", {"nonlinearity": "relu"}), ("gru", {}), ("lstm", {})]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [T, 2], [1, T]])
def test_each_sequence_runs_over_its_own_elements(backend_name, kind, options, reverse, lengths):
    p = params(kind)
    relu = options.get("nonlinearity") == "relu"
    out, last = by_hand(kind, p, lengths or [T] * N, reverse, relu)
    if lengths:
        for n, length in enumerate(lengths):
            p["x"][length:, n] = np.nan  # is not read
    got, *states = run_flat(
        kind, {k: t64(v) for k, v in p.items()}, lengths=lengths, reverse=reverse, **options
    )
    np.testing.assert_allclose(got.numpy(), out, rtol=1e-12, atol=1e-14)
    for mine, state in zip(states, last, strict=True):
        np.testing.assert_allclose(mine.numpy(), state, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [2, T]])
def test_gradients_of_every_kind(backend_name, check_gradients, kind, options, reverse, lengths):
    p = params(kind)
    names = [name for name in p if kind == "lstm" or name != "c0"]
    rng = np.random.default_rng(3)
    factors = [t64(rng.normal(size=(T, N, H))), t64(rng.normal(size=(N, H))), 1.0]

    def run(*tensors: trine.Tensor) -> trine.Tensor:
        found = run_flat(
            kind, dict(zip(names, tensors, strict=True)), lengths=lengths, reverse=reverse,
            **options,
        )  # fmt: skip
        return sum((a * b).sum() for a, b in zip(found, factors, strict=False))

    inputs = [t64(p[name]) for name in names]
    check_gradients(run, *inputs)
    assert trine.gradcheck(run, [x.requires_grad_() for x in inputs])

    def gradients() -> list[np.ndarray]:
        fresh = [t64(p[name]).requires_grad_() for name in names]
        run(*fresh).backward()
        return [x.grad.numpy() for x in fresh]

    fused = gradients()
    with trine.autograd.composed_ops():
        composed = gradients()
    for name, a, b in zip(names, fused, composed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_gets_no_gradient_and_gives_none(backend_name, kind, reverse):
    """NaN beyond the length reaches nothing; the error of an output beyond it is not used."""
    p = params(kind)
    p["x"][2:, 1] = np.nan
    a = {name: t64(value).requires_grad_() for name, value in p.items()}
    out, *_ = run_flat(kind, a, lengths=trine.tensor([T, 2]), reverse=reverse)
    grad = np.ones((T, N, H))
    grad[2:, 1] = np.nan
    out.backward(t64(grad))
    for name, x in a.items():
        if name != "c0" or kind == "lstm":
            assert np.isfinite(x.grad.numpy()).all(), name
    assert (a["x"].grad.numpy()[2:, 1] == 0).all()


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2, 3], r"\[gru\] expected lengths as 2 whole numbers.*got int64 \(3,\)"),
        (trine.tensor([1.0, 2.0]), r"whole numbers, one a sequence, got float32 \(2,\)"),
        ([0, 2], r"expected lengths from 1 to T = 4, got 0 to 2"),
        ([1, 5], r"expected lengths from 1 to T = 4, got 1 to 5"),
    ],
)
def test_lengths_errors(lengths, message):
    with pytest.raises(ValueError, match=message):
        F.gru(trine.zeros(T, N, D), None, trine.zeros(3 * H, D), trine.zeros(3 * H, H),
              lengths=lengths)  # fmt: skip


def test_rnn_and_gru_errors(backend_name):
    x = trine.zeros(T, N, D)
    with pytest.raises(ValueError, match=r"\[rnn\] expected .*nonlinearity.*'rleu'.*'relu'"):
        F.rnn(x, None, trine.zeros(H, D), trine.zeros(H, H), nonlinearity="rleu")
    with pytest.raises(ValueError, match=r"\[rnn\] expected w_hh of shape \(H, H\)"):
        F.rnn(x, None, trine.zeros(H, D), trine.zeros(H + 1, H))
    with pytest.raises(ValueError, match=r"\[gru\] expected w_hh of shape \(3H, H\).*r, z, n"):
        F.gru(x, None, trine.zeros(4 * H, D), trine.zeros(4 * H, H))
    with pytest.raises(ValueError, match=r"\[gru\] expected h_0 of shape \(2, 5\)"):
        F.gru(x, trine.zeros(N, H + 1), trine.zeros(3 * H, D), trine.zeros(3 * H, H))


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("lengths", [None, [T, 2]])
def test_inputs_that_are_data_get_no_gradient(backend_name, kind, lengths, monkeypatch):
    """Their gradient is not computed; the others are the same bytes."""
    backend, shapes = get_backend(backend_name), []
    backward = getattr(backend, f"{kind}_backward")

    def noted(*arrays: Any, **attributes: Any) -> Any:
        grads = backward(*arrays, **attributes)
        shapes.append(grads[0].shape)
        return grads

    monkeypatch.setattr(backend, f"{kind}_backward", noted)

    def gradients(of_x: bool) -> dict[str, bytes]:
        a = {name: t64(value) for name, value in params(kind).items()}
        for name, x in a.items():
            x.requires_grad_(name != "x" or of_x)
        run_flat(kind, a, lengths=lengths)[0].sum().backward()
        return {name: x.grad.numpy().tobytes() for name, x in a.items() if x.grad is not None}

    everything, weights = gradients(True), gradients(False)
    assert shapes == [(T, N, D), (0, N, D)]
    assert everything.pop("x")
    assert everything == weights
