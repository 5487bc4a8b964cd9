"""Launching CUDA kernels: signatures read from the source, arguments in the declared types."""

from __future__ import annotations

import numpy as np
import pytest

from trine.backends.cuda_launch import (
    Launch,
    Parameter,
    Scratch,
    make_cuda_launch,
    marshal,
    parse_signature,
    prepare,
)
from trine.kernels.registry import CudaSource, Kernel

SOURCE = """
// __global__ void scale(int wrong)
template <typename T>
__global__ void __launch_bounds__(256) scale(const T* __restrict__ x_n, T* out_n,
                                             const int n, T factor, unsigned long long seed) {
  /* body */
}
extern "C" __global__ void plain(float* x, bool flag) {}
"""


def test_signature_is_read_from_the_source():
    assert parse_signature(SOURCE, "scale<{T}>") == (
        Parameter("x_n", "T", True),
        Parameter("out_n", "T", True),
        Parameter("n", "int", False),
        Parameter("factor", "T", False),
        Parameter("seed", "unsigned long long", False),
    )
    assert parse_signature(SOURCE, "plain")[1] == Parameter("flag", "bool", False)


def test_missing_function_and_unreadable_parameter():
    with pytest.raises(ValueError, match=r"\[cuda_kernel\] expected `__global__ void other"):
        parse_signature(SOURCE, "other")
    with pytest.raises(ValueError, match="parameters like"):
        parse_signature("__global__ void f(int n[3]) {}", "f")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scalars_take_the_declared_types(dtype):
    x = np.ones(3, dtype)
    arguments = marshal(
        parse_signature(SOURCE, "scale"), (x, x, 3, 0.5, 2**40), dtype, "scale.mine"
    )
    assert [type(a) for a in arguments[2:]] == [np.int32, np.dtype(dtype).type, np.uint64]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 0, 3, 0.5), TypeError, "expected 5 kernel arguments"),
        ((1.5, np.ones(2), 3, 0.5, 1), TypeError, r"expected an array for `T\* x_n`"),
        ((np.ones(2), np.ones(2), np.ones(2), 0.5, 1), TypeError, "expected a number for `int n`"),
        ((np.ones(2), np.ones(2), 2**31, 0.5, 1), ValueError, "expected n to fit `int`"),
        ((np.ones(2), np.ones(2), 1.5, 0.5, 1), ValueError, "expected n to fit `int`"),
        ((np.ones(2), np.ones(2), 1, 0.5, -1), ValueError, "expected seed to fit"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        marshal(parse_signature(SOURCE, "scale"), arguments, "float32", "scale.mine")


def test_launch_compiles_each_instance_once(tmp_path):
    path = tmp_path / "scale.cu"
    path.write_text(SOURCE)
    calls, compiled = [], []

    def launch(x, factor, out):
        return Launch(grid=(1,), block=(32,), arguments=(x, out, x.size, factor, 0))

    def compile_module(source, options, expression):
        compiled.append((source, options, expression))
        return lambda grid, block, args, shared_mem: calls.append((grid, block, args, shared_mem))

    entry = Kernel(
        "scale", "cupy", "mine", launch, ("x", "factor", "out"),
        cuda=CudaSource(path, "scale<{T}>", launch, ("-lineinfo",)),
    )  # fmt: skip
    run = make_cuda_launch(entry, compile_module, np.empty)
    x = np.ones(4, np.float32)
    run(x=x, factor=2.0, out=np.empty_like(x), unused=1)
    run(x=x, factor=2.0, out=np.empty_like(x))
    run(x=x.astype(np.float64), factor=2.0, out=np.empty(4))
    assert [c[2] for c in compiled] == ["scale<float>", "scale<double>"]
    assert compiled[0][1] == ("-lineinfo",)
    grid, block, args, shared = calls[0]
    assert (grid, block, shared) == ((1,), (32,), 0)
    assert args[2] == 4
    assert isinstance(args[3], np.float32)


def address(array):
    return array.ctypes.data


@pytest.fixture
def parts(tmp_path):
    """A kernel that is launched twice over scratch memory, and what was launched."""
    path = tmp_path / "scale.cu"
    path.write_text(SOURCE)
    calls = []

    def launch(x, factor, out):
        memory = Scratch((2, *x.shape), x.dtype)
        flat = x.reshape(-1)
        return [
            Launch((7,), (32,), (flat, memory, x.size, factor, 0), shared_bytes=64),
            Launch((1,), (64,), (memory, out, x.size, factor, 1)),
        ]

    def compile_module(source, options, expression):
        return lambda grid, block, args, shared_mem: calls.append((grid, block, args, shared_mem))

    entry = Kernel(
        "scale", "cupy", "mine", launch, ("x", "factor", "out"),
        cuda=CudaSource(path, "scale<{T}>", launch),
    )  # fmt: skip
    return make_cuda_launch(entry, compile_module, np.empty), calls


def test_prepared_launches_are_those_of_the_call_with_other_arrays(parts):
    run, calls = parts
    x, out = np.ones((4, 2), np.float32), np.empty((4, 2), np.float32)
    again = prepare(run(x=x, factor=2.5, out=out), (x, out), np.empty, address)
    made = [np.zeros((4, 2), np.float32) for _ in range(2)]
    again(*made)
    first, second = calls[:2], calls[2:]
    assert [(c[0], c[1], c[3]) for c in first] == [(c[0], c[1], c[3]) for c in second]
    assert second[0][2][0] is made[0]
    assert second[1][2][1] is made[1]
    assert second[0][2][1] is second[1][2][0]  # the same scratch memory, and not that of the call
    assert second[0][2][1].shape == (2, 4, 2)
    assert second[0][2][1] is not first[0][2][1]
    assert [type(a) for a in second[0][2][2:]] == [np.int32, np.float32, np.uint64]
    assert [a.item() for c in second for a in c[2][2:]] == [8, 2.5, 0, 8, 2.5, 1]


def test_calls_that_cannot_be_repeated_blindly_are_not_prepared(parts):
    run, _ = parts
    x = np.ones(6, np.float32)
    same = run(x=x, factor=1.0, out=x)
    assert prepare(same, (x, x), np.empty, address) is None  # one memory under two names
    out = np.empty(6, np.float32)
    part = run(x=x[2:], factor=1.0, out=out)
    assert prepare(part, (x, out), np.empty, address) is None  # a part of an array
    assert prepare(part, (out,), np.empty, address) is None  # an array of its own
    assert prepare(part, (x[2:], out), np.empty, address) is not None
