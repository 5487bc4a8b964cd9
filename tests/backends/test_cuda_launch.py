"""Launching CUDA kernels: signatures read from the source, arguments in the declared types."""

from __future__ import annotations

import numpy as np
import pytest

from trine.backends.cuda_launch import Launch, Parameter, make_cuda_launch, marshal, parse_signature
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
