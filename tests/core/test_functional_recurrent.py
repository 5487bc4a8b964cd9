"""The LSTM against its equations, written out one by one, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F

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
