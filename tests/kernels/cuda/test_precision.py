"""Products by tensor cores: what TF32 and bfloat16 factors give, element by element, and who refuses them.

The sharp test is that against the rounded factors' own product in float64, which the kernels must meet
as closely as float32 allows; that says which rounding it is. Against the exact product the error must
stay below what rounding both factors of each term can do.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import trine
from trine import Trainer, backends, nn, optim
from trine.backends.cases.tolerances import TABLE, tolerance
from trine.backends.op import OPS
from trine.compare import compare_backends
from trine.data import ArrayDataset, DataLoader
from trine.kernels import registry
from trine.kernels.cuda import tiles

MODES = ("tf32", "bf16")
UNIT = {"tf32": 2.0**-11, "bf16": 2.0**-8}
"""The relative error of a factor."""

PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
RNG = np.random.default_rng(21)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def rounded(x, mode):
    """Return x in the precision of a mode, ties away from zero for TF32 and to even for bfloat16."""
    bits = x.view(np.uint32)
    to_even = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    found = (bits + 0x1000) & 0xFFFFE000 if mode == "tf32" else to_even
    return np.where(np.isfinite(x), found.astype(np.uint32).view(np.float32), x)


def reference(op, *arrays, **attrs):
    """Return the op's outputs in float64."""
    with np.errstate(all="ignore"):
        wide = [a if a is None or a.dtype.kind != "f" else a.astype(np.float64) for a in arrays]
        out = OPS[op].reference(backends.get_backend("numpy"), *wide, **attrs)
    return out if isinstance(out, tuple) else (out,)


def run(cuda, op, *arrays, **attrs):
    """Return the kernel's outputs on the host."""
    device = [None if a is None else cuda.xp.asarray(a) for a in arrays]
    out = getattr(cuda, op)(*device, **attrs)
    return [cuda.to_numpy(a) for a in (out if isinstance(out, tuple) else (out,))]


def check_product(cuda, mode, op, a, b, *, count=1, **attrs):
    """Run an op that multiplies a by b; check its first `count` outputs in both ways."""
    with trine.precision(mode, backend="cupy"):
        got = run(cuda, op, a, b, **attrs)[:count]
        assert cuda.ran[op].endswith(f"_{mode}")
    exact = reference(op, a, b, **attrs)[:count]
    sizes = reference(op, np.abs(a), np.abs(b), **attrs)[:count]
    meant = reference(op, rounded(a, mode), rounded(b, mode), **attrs)[:count]
    most = (1 + UNIT[mode]) ** 2 - 1 + 1e-6
    for mine, right, size, near in zip(got, exact, sizes, meant, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_array_less(np.abs(mine - near), 1e-6 * size + 1e-30)
        np.testing.assert_array_less(np.abs(mine - right), most * size + 1e-30)
        assert np.abs(mine - right).max() > 1e-6 * size.max()  # it is not float32's own error


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_every_layout_over_several_tiles(cuda, mode, trans_a, trans_b):
    a = normal(*((17, 70) if trans_a else (70, 17)))
    b = normal(*((66, 17) if trans_b else (17, 66)))
    check_product(cuda, mode, "matmul", a, b, trans_a=trans_a, trans_b=trans_b)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("trans", [(False, False), (True, True)])
def test_aligned_operands_go_four_at_a_time(cuda, order, mode, trans):
    a, b = (
        normal(*((36, 68) if trans[0] else (68, 36))),
        normal(*((8, 36) if trans[1] else (36, 8))),
    )
    check_product(cuda, mode, "matmul", a, b, trans_a=trans[0], trans_b=trans[1])


@pytest.mark.parametrize("mode", MODES)
def test_large_tiles_and_batches(cuda, monkeypatch, mode):
    monkeypatch.setattr(tiles, "MANY_BLOCKS", 1)
    a, b = normal(2, 130, 20), normal(20, 132)
    check_product(cuda, mode, "matmul", a, b, trans_a=False, trans_b=False)


@pytest.mark.parametrize("mode", MODES)
def test_the_layer_and_its_gradients(cuda, order, mode):
    """300 rows are a deep sum for the weights' gradient; activations act on the sums as in float32."""
    x, weight, grad, y = normal(600, 9), normal(11, 9), normal(600, 11), normal(600, 11)
    y[np.abs(y) < 0.1] = 0
    kept = np.where(y > 0, grad, np.float32(0))
    with trine.precision(mode, backend="cupy"):
        (out,) = run(cuda, "linear", x, weight, normal(11) * 0, activation="relu")
        grad_x, grad_weight, grad_bias = run(
            cuda, "linear_backward", grad, x, weight, y, activation="relu"
        )
        assert cuda.ran["linear_backward"] == f"tiles_{mode}"
    x_r, weight_r, kept_r = (rounded(a, mode).astype(np.float64) for a in (x, weight, kept))
    for got, want in (
        (out, np.maximum(x_r @ weight_r.T, 0)),
        (grad_x, kept_r @ weight_r),
        (grad_weight, kept_r.T @ x_r),
        (grad_bias, kept.sum(0, dtype=np.float64)),  # no product: exact as ever
    ):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "kernel", "changes"),
    [
        ((2, 18, 9, 7), (20, 3, 2), {"padding": (1, 0)}),
        ((1, 36, 8, 9), (36, 3, 3), {"stride": (2, 3), "padding": (2, 1), "groups": 2}),
    ],
)
def test_convolution_and_its_gradients(cuda, mode, shape, kernel, changes):
    for op in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "conv_transpose2d"):
        registry.prefer(op, f"implicit_gemm_{mode}")
    k, r, s = kernel
    attrs = {**PLAIN, **changes}
    x, weight = normal(*shape), normal(k, shape[1] // attrs["groups"], r, s)
    delta = normal(*reference("conv2d", x, weight, None, activation="none", **attrs)[0].shape)
    check_product(cuda, mode, "conv2d", x, weight, activation="none", **attrs)
    check_product(cuda, mode, "conv2d_input_grad", delta, weight, input_size=shape[2:], **attrs)
    check_product(cuda, mode, "conv2d_weight_grad", delta, x, kernel_size=(r, s), **attrs)
    check_product(cuda, mode, "conv_transpose2d", delta, weight, output_padding=(0, 0), **attrs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("op", "blocks"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
@pytest.mark.parametrize("units", [36, 11])
def test_recurrent_nets_both_ways(cuda, mode, op, blocks, units):
    """Several tiles of sequences and units, with lengths; against float64 within the table."""
    steps, batch, inputs = 3, 34, 5
    lengths = np.array([1 + i % steps for i in range(batch)])
    states = [normal(batch, units) for _ in range(1 + (op == "lstm"))]
    weights = [normal(blocks * units, n) / np.float32(n**0.5) for n in (inputs, units)]
    arrays = (
        normal(steps, batch, inputs),
        *states,
        *weights,
        None,
        normal(blocks * units),
        lengths,
    )
    with trine.precision(mode, backend="cupy"):
        got = run(cuda, op, *arrays)
        wanted = reference(op, *arrays)
        out, saved = got[0], got[1 + len(states) :]
        grads = [normal(*out.shape), *(normal(*s.shape) for s in states)]
        back = (*grads, *arrays[: 1 + len(states)], *weights, out, *saved, lengths)
        got += run(cuda, f"{op}_backward", *back)
        assert (cuda.ran[op], cuda.ran[f"{op}_backward"]) == (f"steps_{mode}",) * 2
    for mine, right in zip(got, (*wanted, *reference(f"{op}_backward", *back)), strict=True):
        allowed = tolerance("recurrent", "float32", mode) * np.abs(right).max()
        assert np.abs(mine - right).max() <= allowed
    assert np.abs(got[0] - wanted[0]).max() > TABLE["recurrent"]["float32"]


@pytest.mark.parametrize("mode", MODES)
def test_hostile_numbers(cuda, mode):
    """NaN and Inf stay what they are in their row and column; the smallest numbers do no harm."""
    a, b = normal(20, 24), normal(24, 20)
    a[3, 5] = np.nan
    a[4, 6], b[6, 7] = np.inf, np.abs(b[6, 7]) + 1
    a[5] = np.float32(1e-42)
    a[6, ::2] = np.float32(1e-41)
    b[:, 9] = np.finfo(np.float32).tiny
    a[7, 0] = np.array(0x7F800001, np.uint32).view(np.float32)  # a NaN that cutting bits makes Inf
    with trine.precision(mode, backend="cupy"):
        (got,) = run(cuda, "matmul", a, b, trans_a=False, trans_b=False)
    (want,) = reference("matmul", a, b, trans_a=False, trans_b=False)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got[np.isinf(want)], want[np.isinf(want)])
    finite = np.isfinite(want)
    (size,) = reference("matmul", np.abs(a), np.abs(b), trans_a=False, trans_b=False)
    most = ((1 + UNIT[mode]) ** 2 - 1 + 1e-6) * size + 1e-36  # subnormal factors may be 0
    assert (np.abs(got[finite] - want[finite]) <= most[finite]).all()


@pytest.mark.parametrize("mode", MODES)
def test_large_sums(cuda, mode):
    """20,000 terms of one sign: the sum's error is that of its factors, not that of adding them up."""
    a, b = np.abs(normal(3, 20_000)), np.abs(normal(5, 20_000))
    with trine.precision(mode, backend="cupy"):
        (got,) = run(cuda, "linear", a, b, None, activation="none")
    (want,) = reference("linear", a, b, None, activation="none")
    assert (np.abs(got / want - 1)).max() < 2 * UNIT[mode] / 10  # errors of factors cancel


def test_fp32_and_float64_are_what_they_were(cuda):
    """The modes change products of float32 only, and only while they last."""
    a, b = normal(9, 30), normal(30, 7)
    attrs = {"trans_a": False, "trans_b": False}
    wide = [x.astype(np.float64) for x in (a, b)]
    (before,) = run(cuda, "matmul", a, b, **attrs)
    (wide_before,) = run(cuda, "matmul", *wide, **attrs)
    assert cuda.precision == "fp32"
    assert [launcher.name for launcher in cuda.launchers(OPS["matmul"])] == ["tiles"]
    with trine.precision("tf32", backend="cupy"):
        (inside,) = run(cuda, "matmul", a, b, **attrs)
        (wide_inside,) = run(cuda, "matmul", *wide, **attrs)
        assert cuda.ran["matmul"] == "tiles"
    (after,) = run(cuda, "matmul", a, b, **attrs)
    assert inside.tobytes() != before.tobytes() == after.tobytes()
    assert wide_inside.tobytes() == wide_before.tobytes()


def test_small_channels_stay_direct_and_exact(cuda):
    x, weight = normal(1, 1, 6, 6), normal(4, 1, 3, 3)
    exact = run(cuda, "conv2d", x, weight, None, activation="none", **PLAIN)
    with trine.precision("bf16", backend="cupy"):
        again = run(cuda, "conv2d", x, weight, None, activation="none", **PLAIN)
        assert cuda.ran["conv2d"] == "direct"
    assert exact[0].tobytes() == again[0].tobytes()


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_backends_without_tensor_cores_refuse(name):
    with pytest.raises(
        trine.BackendError, match=rf"\[precision\] expected fp32 on {name}, got tf32: .* cupy"
    ):
        trine.precision("tf32", backend=name)
    with trine.use(name), pytest.raises(trine.BackendError, match="expected fp32"):
        trine.precision("bf16")
    assert trine.precision("fp32", backend=name).mode == "fp32"
    with pytest.raises(ValueError, match=r"\[precision\].*tf23"):
        trine.precision("tf23", backend=name)


def test_devices_without_them_refuse(cuda, monkeypatch):
    monkeypatch.setattr(cuda, "capability", 75)
    with pytest.raises(trine.BackendError, match=r"capability 7\.5, and .* need 8\.0"):
        trine.precision("bf16", backend="cupy")
    registry.prefer("matmul", "tiles_tf32")
    run(cuda, "matmul", normal(2, 3), normal(3, 2), trans_a=False, trans_b=False)
    assert cuda.ran["matmul"] == "tiles"
    assert cuda.precision == "fp32"


def test_a_captured_step_is_recorded_anew_in_another_mode(cuda):
    weight = trine.tensor(normal(5, 4), backend="cupy")

    @trine.capture
    def step(x):
        return x @ weight.T

    x = trine.tensor(normal(3, 4), backend="cupy")
    exact = [step(x).numpy().tobytes() for _ in range(6)]
    replays = step.replays
    assert replays
    with trine.precision("bf16", backend="cupy"):
        coarse = [step(x).numpy().tobytes() for _ in range(6)]
        assert step.captured
    assert len(set(exact)) == len(set(coarse)) == 1
    assert exact[0] != coarse[0]
    assert step(x).numpy().tobytes() == exact[0]


def test_a_run_names_its_mode(cuda, tmp_path):
    """In its configuration, where another mode cannot continue it, and in its summary."""
    x, y = normal(8, 5), np.arange(8) % 3
    summaries = []
    for mode in ("tf32", "tf32", "fp32"):
        trine.seed(0)
        model = nn.Linear(5, 3).to("cupy")
        trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.1), out=tmp_path / "run")
        loader = DataLoader(ArrayDataset(x, y), 4)
        with trine.precision(mode, backend="cupy"), trine.use("cupy"):
            if mode == "fp32":
                with pytest.raises(trine.CheckpointError, match="precision 'tf32', got 'fp32'"):
                    trainer.fit(loader, epochs=3, resume="auto")
                continue
            epochs = 1 + len(summaries)
            summaries.append(trainer.fit(loader, epochs=epochs, resume="auto"))
            assert cuda.ran["linear"] == "tiles_tf32"
    assert [s.precision for s in summaries] == ["tf32", "tf32"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == "tf32"


@pytest.mark.parametrize("mode", MODES)
def test_comparing_backends_allows_for_the_rounding(cuda, mode):
    model, x = nn.Linear(40, 6), trine.tensor(normal(9, 40), backend="numpy")
    pair = ("numpy", "cupy")
    exact = compare_backends(model, x, backends=pair)
    assert exact
    with trine.precision(mode, backend="cupy"):
        coarse = compare_backends(model, x, backends=pair)
    assert coarse
    assert coarse.layers[0].error > exact.layers[0].tolerance
