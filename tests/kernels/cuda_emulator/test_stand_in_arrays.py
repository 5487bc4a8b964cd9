"""The stand-in's arrays: what CuPy gives and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from trine.kernels.cuda import emulator


@pytest.fixture
def cp(stand_in):
    return stand_in


@pytest.fixture
def x(cp):
    return cp.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))


def test_product_code_finds_it_by_the_path_alone():
    code = "import cupy; print(cupy.__file__); print(float(cupy.asarray([1.5, 2]).sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=emulator.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    file, total = done.stdout.split()
    assert file.startswith(str(emulator.stand_in_folder()))
    assert total == "3.5"


def test_results_are_arrays_of_the_device(cp, x):
    for value in (x.sum(), x[0], x[0, 0], x + 1, x.T, cp.exp(x), x.reshape(-1), x > 3, -x, 2 * x):
        assert type(value) is cp.ndarray
    assert x.sum().shape == x[1, 2].shape == ()
    assert x.sum().dtype == np.float32


def test_operators_are_numpys(cp, x):
    a = cp.asnumpy(x)
    np.testing.assert_array_equal((2 - x / 3 + x**2 % 5).get(), 2 - a / 3 + a**2 % 5)
    np.testing.assert_array_equal((x @ x.T).get(), a @ a.T)
    np.testing.assert_array_equal((np.float32(2) * x).get(), 2 * a)
    whole = cp.arange(6)
    np.testing.assert_array_equal(((whole & 3) << 1).get(), (np.arange(6) & 3) << 1)
    x += 1
    x *= x
    np.testing.assert_array_equal(x.get(), (a + 1) ** 2)


def test_types_follow_numpys_rules(cp, x):
    assert (x * 2.5).dtype == np.float32
    assert (x + cp.zeros(4)).dtype == np.float64
    assert (cp.arange(3) / 2).dtype == np.float64
    assert cp.sum(cp.ones(3, bool)).dtype == np.int64
    assert cp.add(x, x, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize(
    "mix",
    [
        lambda cp, x, a: x + a,
        lambda cp, x, a: a + x,
        lambda cp, x, a: cp.add(x, a),
        lambda cp, x, a: cp.where(x > 0, x, a),
        lambda cp, x, a: cp.concatenate([x, a]),
        lambda cp, x, a: cp.exp(a),
        lambda cp, x, a: x.__setitem__(slice(None), a),
        lambda cp, x, a: cp.matmul(x.T, a),
    ],
)
def test_arrays_of_the_host_are_refused(cp, x, mix):
    with pytest.raises(TypeError, match="Unsupported type"):
        mix(cp, x, np.ones((3, 4), np.float32))


def test_it_does_not_become_a_numpy_array(cp, x):
    with pytest.raises(TypeError, match=r"Implicit conversion .* use `\.get\(\)`"):
        np.asarray(x)
    assert type(np.exp(x)) is cp.ndarray
    assert type(np.concatenate([x, x])) is cp.ndarray
    with pytest.raises(TypeError):
        np.lexsort(x)


@pytest.mark.parametrize(
    "call",
    [
        lambda cp, x: cp.add(x, x, where=x > 0),
        lambda cp, x: cp.sum(x, where=x > 0),
        lambda cp, x: x.sum(initial=0),
        lambda cp, x: cp.exp(x, subok=True),
        lambda cp, x: cp.max(x, initial=0),
        lambda cp, x: cp.empty_like(x, device="gpu"),
        lambda cp, x: x.astype(np.float64, subok=False),
        lambda cp, x: cp.ones_like(x, subok=True),
        lambda cp, x: cp.add(x),
        lambda cp, x: cp.exp([1.0]),
        lambda cp, x: cp.where(True, x, x),
    ],
)
def test_keywords_and_forms_that_cupy_lacks(cp, x, call):
    with pytest.raises(TypeError):
        call(cp, x)


@pytest.mark.parametrize(
    "name", ["lexsort", "vectorize", "asfortranarray_", "ma", "testing", "add_"]
)
def test_names_that_are_not_on_the_list(cp, name):
    assert not hasattr(cp, name)


def test_sorts_that_cupy_lacks(cp, x):
    np.testing.assert_array_equal(cp.argsort(-x[0]).get(), [3, 2, 1, 0])
    with pytest.raises(ValueError, match="kind must be"):
        cp.argsort(x, kind="mergesort")
    with pytest.raises(NotImplementedError):
        cp.subtract.reduce(x)
    with pytest.raises(NotImplementedError):
        cp.multiply.reduceat(x, cp.asarray([0]))


def test_index_arrays_wrap_around(cp, x):
    """CuPy does not raise for indices out of range; code must not rely on either."""
    np.testing.assert_array_equal(x[cp.asarray([3, 4, -1])].get(), x.get()[[0, 1, 2]])
    np.testing.assert_array_equal(cp.take(x, cp.asarray([5]), axis=1).get(), x.get()[:, [1]])
    index = cp.asarray([[0], [7], [-1]])
    np.testing.assert_array_equal(cp.take_along_axis(x, index, 1).get(), [[0], [7], [11]])
    np.testing.assert_array_equal(x[:, None, cp.asarray([6])].get(), x.get()[:, None, [2]])
    np.testing.assert_array_equal(x[..., cp.asarray([5])].get(), x.get()[..., [1]])
    x[cp.asarray([4])] = 0
    assert x.get()[1].tolist() == [0, 0, 0, 0]
    with pytest.raises(IndexError):
        x[3]
    with pytest.raises(IndexError):
        x[cp.asarray([0.5])]


def test_slices_are_views_and_index_arrays_copy(cp, x):
    view, copied = x[1:], x[cp.asarray([1, 2])]
    view[0, 0] = 100
    assert x.get()[1, 0] == 100
    assert copied.get()[0, 0] == 4
    assert view.base is x
    assert x.T.data.ptr == x.data.ptr
    assert x[1:].data.ptr == x.data.ptr + 16


def test_ascontiguousarray_adds_a_direction(cp):
    assert cp.ascontiguousarray(cp.asarray(1.0)).shape == (1,)


def test_empty_is_poisoned_and_aligned(cp):
    """Not with -1, which kernels write on purpose."""
    assert np.isnan(cp.empty(3, np.float32).get()).all()
    assert np.isnan(cp.empty(3, np.float64).get()).all()
    for dtype in (np.int32, np.int64, np.uint8):
        assert not np.isin(cp.empty(8, dtype).get(), (-1, 0, 1)).any()
    assert all(cp.empty(n).data.ptr % 256 == 0 for n in range(1, 20))


def test_crossings_are_counted(cp, x):
    machine = cp._streams.machine
    before = machine.uploads, machine.downloads, machine.syncs, machine.implicit_reads
    cp.asarray([1, 2])
    x.get()
    cp.cuda.get_current_stream().synchronize()
    float(x.sum())
    x[x > 3]
    cp.where(x > 3)
    after = machine.uploads, machine.downloads, machine.syncs, machine.implicit_reads
    assert np.subtract(after, before).tolist() == [1, 1, 1, 3]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: float(x.sum()),
        lambda x: int(x.sum()),
        lambda x: bool(x.sum()),
        lambda x: x[0, 0].item(),
        lambda x: x.tolist(),
        lambda x: [1, 2][x.sum().astype(int)],
        lambda x: x[x > 3],
        lambda x: x.nonzero(),
    ],
)
def test_hidden_reads_can_be_refused(cp, x, read):
    read(x * 0)
    cp._streams.machine.refuse_implicit_reads = True
    with pytest.raises(cp._errors.HiddenSyncError, match="no hidden copy"):
        read(x * 0)


def test_the_pool_counts_what_arrays_hold(cp):
    pool = cp.get_default_memory_pool()
    held = pool.used_bytes()
    a = cp.empty(1000, np.float32)
    view = a[10:]
    assert pool.used_bytes() - held == 4096
    del a
    assert pool.used_bytes() - held == 4096  # the view keeps the memory
    del view
    assert pool.used_bytes() == held
    total = pool.total_bytes()
    b = cp.empty(900, np.float32)
    assert pool.total_bytes() == total  # served by the block that was freed
    del b
    pool.free_all_blocks()
    assert pool.total_bytes() == pool.used_bytes()


def test_memory_runs_out(cp):
    cp.get_default_memory_pool().set_limit(size=2**20)
    cp.empty(2**19, np.uint8)
    with pytest.raises(cp.cuda.memory.OutOfMemoryError, match="Out of memory allocating 2,097,152"):
        cp.empty(2**21, np.uint8)


def test_views_of_a_flat_buffer(cp):
    flat = cp.zeros(10, np.float32)
    part = cp.ndarray((2, 3), np.float32, flat.data + 8)
    part[...] = 1
    assert flat.get().tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    assert flat.view(np.uint32).get()[2] == 0x3F800000
    flat.data.copy_from_device_async(part.data, 8)
    (flat.data + 36).memset_async(0xFF, 4)
    assert flat.get()[:3].tolist() == [1, 1, 1]
    assert np.isnan(flat.get()[9])


def test_the_device(cp):
    runtime = cp.cuda.runtime
    assert runtime.getDeviceCount() == 1
    assert b"emulator" in runtime.getDeviceProperties(0)["name"]
    free, total = runtime.memGetInfo()
    assert 0 < free <= total
    with pytest.raises(runtime.CUDARuntimeError, match="invalid device ordinal"):
        cp.cuda.Device(1)
    start, end = cp.cuda.Event(), cp.cuda.Event()
    start.record()
    end.record()
    assert cp.cuda.get_elapsed_time(start, end) >= 0


# --- kernels

SCALE = r"""
template <typename T> __global__ void scale(const T* x, T* out, T by, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = x[i] * by;
}
__device__ int calls;
extern "C" __global__ void count(const int* skip) { if (!skip) atomicAdd(&calls, 1); }
extern "C" __global__ void __launch_bounds__(128) shared(float* out) {
  extern __shared__ float space[];
  space[threadIdx.x] = 1.0f;
  out[threadIdx.x] = space[threadIdx.x];
}
"""


@pytest.fixture
def module(cp):
    return cp.RawModule(
        code=SCALE, options=("--std=c++17",), name_expressions=("scale<float>", "scale<double>")
    )


def test_kernels_run(cp, module, x):
    out = cp.empty_like(x)
    scale = module.get_function("scale<float>")
    scale((1,), (32,), (x, out, np.float32(2), np.int32(12)))
    np.testing.assert_array_equal(out.get(), 2 * x.get())
    with pytest.raises(emulator.KernelError, match="out-of-bounds"):
        scale((1,), (32,), (x, out, np.float32(2), np.int32(13)))


def test_a_view_bounds_what_a_kernel_may_touch(cp, module, x):
    scale = module.get_function("scale<float>")
    scale((1,), (32,), (x[0], x[2], np.float32(2), np.int32(4)))
    np.testing.assert_array_equal(x.get()[2], [0, 2, 4, 6])
    with pytest.raises(emulator.KernelError, match="out-of-bounds"):
        scale((1,), (32,), (x[0], x[2], np.float32(2), np.int32(5)))


def test_kernel_arguments(cp, module, x):
    scale = module.get_function("scale<float>")
    with pytest.raises(TypeError, match="Unsupported type"):
        scale((1,), (32,), (x.get(), x, np.float32(2), np.int32(1)))
    with pytest.raises(TypeError, match="floating-point number of 4 bytes for by"):
        scale((1,), (32,), (x, x, 2.0, np.int32(1)))
    with pytest.raises(TypeError, match="unexpected keyword"):
        scale((1,), (32,), (x, x, np.float32(2), np.int32(1)), stream=None)
    count = module.get_function("count")
    count((1,), (4,), (np.uintp(0),))  # a null pointer, as Trine passes None
    pointer = module.get_global("calls")
    assert cp.ndarray((1,), np.int32, pointer).get()[0] == 4
    out = cp.empty(12, np.float32)
    scale((1,), (32,), (x.data + 16, out, np.float32(2), np.int32(8)))
    with pytest.raises(emulator.KernelError, match="out-of-bounds"):
        scale((1,), (32,), (x.data + 16, out, np.float32(2), np.int32(9)))


def test_launches_that_the_driver_refuses(cp, module):
    shared = module.get_function("shared")
    out = cp.empty(128, np.float32)
    error = cp.cuda.driver.CUDADriverError
    with pytest.raises(error, match="launch_bounds"):
        shared((1,), (129,), (out,), shared_mem=516)
    with pytest.raises(error, match="dynamic shared memory"):
        shared((1,), (32,), (out,), shared_mem=60_000)
    shared.max_dynamic_shared_size_bytes = 60_000
    shared((1,), (32,), (out,), shared_mem=60_000)
    with pytest.raises(error, match="at most 232448"):
        shared.max_dynamic_shared_size_bytes = 300_000
    with pytest.raises(error, match="named symbol not found"):
        module.get_function("nothing")


def test_code_that_does_not_compile(cp):
    module = cp.RawModule(code='extern "C" __global__ void k() { wrong; }')
    with pytest.raises(cp.cuda.compiler.CompileException, match="wrong"):
        module.compile()
    with pytest.raises(TypeError, match="Exactly one"):
        cp.RawModule()


def test_raw_kernels(cp):
    code = 'extern "C" __global__ void k(int* x) { x[threadIdx.x] = threadIdx.x; }'
    out = cp.zeros(4, np.int32)
    cp.RawKernel(code, "k")((1,), (4,), (out,))
    assert out.get().tolist() == [0, 1, 2, 3]


def test_cooperative_groups(cp):
    code = """
    #include <cooperative_groups.h>
    extern "C" __global__ void k(int* x, int* y) {
      x[blockIdx.x] = blockIdx.x;
      cooperative_groups::this_grid().sync();
      y[blockIdx.x] = x[gridDim.x - 1 - blockIdx.x];
    }"""
    x, y = cp.zeros(4, np.int32), cp.zeros(4, np.int32)
    kernel = cp.RawModule(code=code, enable_cooperative_groups=True).get_function("k")
    kernel((4,), (1,), (x, y))
    assert y.get().tolist() == [3, 2, 1, 0]
    with pytest.raises(emulator.KernelError, match="unsupported"):
        cp.RawModule(code=code).get_function("k")((4,), (1,), (x, y))
