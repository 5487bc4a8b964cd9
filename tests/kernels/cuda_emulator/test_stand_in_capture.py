"""Stream capture: recorded, replayed on what the arrays hold then, refused where CUDA refuses."""

from __future__ import annotations

import numpy as np
import pytest

from trine.kernels.cuda import emulator

CODE = r"""
extern "C" __global__ void step(float* w, const float* g, const float* rate, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) w[i] -= rate[0] * g[i];
}
"""


@pytest.fixture
def cp(stand_in):
    return stand_in


@pytest.fixture
def stream(cp):
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        yield stream


def test_nothing_runs_until_the_graph_is_launched(cp, stream):
    step = cp.RawModule(code=CODE).get_function("step")
    w, g, rate = cp.ones(4, np.float32), cp.ones(4, np.float32), cp.full(1, 0.5, np.float32)
    stream.begin_capture()
    assert stream.is_capturing()
    step((1,), (32,), (w, g, rate, np.int32(4)))
    w += 10
    w[0] = 7
    graph = stream.end_capture()
    assert not stream.is_capturing()
    assert w.get().tolist() == [1, 1, 1, 1]
    graph.launch()
    assert w.get().tolist() == [7, 10.5, 10.5, 10.5]
    rate[...] = 1
    g[...] = 2
    graph.launch()
    assert w.get().tolist() == [7, 18.5, 18.5, 18.5]


def test_results_of_a_capture_come_with_the_launch(cp, stream):
    x = cp.asarray(np.arange(4, dtype=np.float32))
    (x * 2).sum()  # leaves its blocks in the pool
    stream.begin_capture()
    doubled = x * 2
    total = doubled.sum()
    graph = stream.end_capture()
    assert np.isnan(doubled.get()).all()
    graph.launch()
    assert (doubled.get().tolist(), total.get()) == ([0, 2, 4, 6], 12)
    x[...] = 1
    graph.launch()
    assert total.get() == 8


def test_a_fault_shows_at_the_launch_of_the_graph(cp, stream):
    step = cp.RawModule(code=CODE).get_function("step")
    w, rate = cp.ones(4, np.float32), cp.ones(1, np.float32)
    stream.begin_capture()
    step((1,), (32,), (w, w, rate, np.int32(5)))
    graph = stream.end_capture()
    with pytest.raises(emulator.KernelError, match="out-of-bounds"):
        graph.launch()


REFUSED = {
    "synchronising the stream": lambda cp, x: cp.cuda.get_current_stream().synchronize(),
    "synchronising the device": lambda cp, x: cp.cuda.Device(0).synchronize(),
    "synchronising by the runtime": lambda cp, x: cp.cuda.runtime.deviceSynchronize(),
    "an event": lambda cp, x: cp.cuda.Event().synchronize(),
    "asking whether it is done": lambda cp, x: cp.cuda.get_current_stream().done,
    "a copy to the host": lambda cp, x: x.get(),
    "asnumpy": lambda cp, x: cp.asnumpy(x),
    "a copy from the host": lambda cp, x: x.set(np.zeros((4, 4), np.float32)),
    "asarray of the host": lambda cp, x: cp.asarray([1.0]),
    "float": lambda cp, x: float(x[0, 0]),
    "item": lambda cp, x: x[0, 0].item(),
    "a mask": lambda cp, x: x[x > 0],
    "nonzero": lambda cp, x: cp.nonzero(x),
    "matmul": lambda cp, x: x @ x,
    "dot": lambda cp, x: x.dot(x),
    "tensordot": lambda cp, x: cp.tensordot(x, x),
    "einsum": lambda cp, x: cp.einsum("ij,jk", x, x),
    "sorting": lambda cp, x: cp.argsort(x),
    "an allocation outside the pool": lambda cp, x: cp.empty(10**6),
    "giving memory back": lambda cp, x: cp.get_default_memory_pool().free_all_blocks(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cuda_refuses_in_a_capture(cp, stream, what):
    x = cp.ones((4, 4), np.float32)
    for _ in range(2):
        if "memory" not in what:
            REFUSED[what](cp, x)  # outside of a capture it works, and leaves its blocks in the pool
    stream.begin_capture()
    if what != "an allocation outside the pool":
        error, message = cp.cuda.runtime.CUDARuntimeError, "not permitted while a stream captures"
    else:
        cp.get_default_memory_pool()._free.clear()
        error, message = cp.cuda.runtime.CUDARuntimeError, "the pool cannot serve"
    with pytest.raises(error, match=message):
        REFUSED[what](cp, x)
    with pytest.raises(error, match="StreamCaptureInvalidated"):
        stream.end_capture()


def test_allocations_that_the_pool_serves(cp, stream):
    x = cp.ones(1000, np.float32)
    warm = x + 1
    del warm
    stream.begin_capture()
    y = x + 1
    stream.end_capture().launch()
    assert y.get()[0] == 2


def test_the_pool_is_each_streams_own(cp):
    warm = cp.empty(1000, np.float32)  # in the null stream
    del warm
    with cp.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        with pytest.raises(
            cp.cuda.runtime.CUDARuntimeError, match="run the step once in this stream"
        ):
            cp.empty(1000, np.float32)


def test_which_streams_capture(cp):
    error = cp.cuda.runtime.CUDARuntimeError
    with pytest.raises(error, match="the null stream cannot capture"):
        cp.cuda.Stream.null.begin_capture()
    stream = cp.cuda.Stream(non_blocking=True)
    with pytest.raises(error, match="does not capture"):
        stream.end_capture()
    stream.begin_capture()
    with pytest.raises(error, match="captures already"):
        stream.begin_capture()
    x = cp.zeros(3)
    x += 1  # in the null stream, which a non-blocking stream leaves alone: it runs at once
    stream.end_capture()
    assert x.get().tolist() == [1, 1, 1]


def test_work_in_the_null_stream_spoils_the_capture_of_a_blocking_one(cp):
    error = cp.cuda.runtime.CUDARuntimeError
    x = cp.zeros(3)
    stream = cp.cuda.Stream()
    stream.begin_capture()
    with pytest.raises(error, match=r"Stream\(non_blocking=True\)"):
        x += 1
    with pytest.raises(error, match="Invalidated"):
        stream.end_capture()


def test_a_graph_whose_memory_went_to_another_array(cp, stream):
    x = cp.ones(1000, np.float32)
    warm = x + 1
    del warm
    stream.begin_capture()
    y = x + 1
    graph = stream.end_capture()
    graph.launch()
    del y
    graph.launch()  # nobody else uses that memory yet
    other = x + 5
    with pytest.raises(RuntimeError, match="Keep references to all arrays that a graph uses"):
        graph.launch()
    assert other.get()[0] == 6
