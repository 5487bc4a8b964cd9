"""Table T5: what the host spends on a launch, and what a node of a graph costs on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import trine
from trine.bench.gpu.session import Session
from trine.bench.gpu.stopwatch import Stopwatch, Timed

T5 = "T5: launch overheads"
ABOUT = (
    "Microseconds. `host` is the host's time a call while the device keeps up, on arrays of 256 "
    "elements; `device` the time of many in a row between events."
)
SIZE = 256
NODES = 50
EMPTY = 'extern "C" __global__ void empty(int n) {}'


def host_time(call: Callable[[], Any], wait: Callable[[], Any], count: int) -> float:
    """Return the microseconds of the host for a call: the median of several batches."""
    call()
    found = []
    for _ in range(5):
        wait()
        started = time.perf_counter()
        for _ in range(count):
            call()
        found.append(1e6 * (time.perf_counter() - started) / count)
    return float(np.median(found))


def run(session: Session, watch: Stopwatch, torch: Any) -> None:
    """Fill table T5."""
    session.table(T5, ABOUT)
    backend, xp = session.backend, session.backend.xp
    count = 2 if session.dry_run else 200
    nodes = 3 if session.dry_run else NODES
    x = xp.ones(SIZE, dtype=np.float32)
    empty = xp.RawModule(code=EMPTY).get_function("empty")
    arguments = (np.int32(1),)
    tensor = trine.ones(SIZE, backend="cupy")
    wanting = trine.ones(SIZE, backend="cupy", requires_grad=True)
    calls: dict[str, Callable[[], Any]] = {
        "CuPy RawKernel, empty": lambda: empty((1,), (32,), arguments),
        "CuPy's own add": lambda: xp.add(x, x),
        "trine backend, relu": lambda: backend.relu(x),
        "trine tensor, relu": tensor.relu,
        "trine tensor, relu with tape": wanting.relu,
    }
    wait = session.cuda.get_current_stream().synchronize
    calls["trine graph, each node of a chain"] = _chain(tensor, nodes)
    if torch is not None and not session.dry_run:
        t = torch.ones(SIZE, device="cuda")
        calls["torch, relu"] = lambda: torch.relu(t)
        calls["torch graph, each node of a chain"] = _torch_chain(torch, t, nodes)
    for name, call in calls.items():
        each = nodes if "each node" in name else 1
        device = watch.in_a_row({name: Timed(call)}, 0.1)[name]
        session.add(
            T5, what=name, host=host_time(call, wait, count) / each, device=device.median / each
        )


def _chain(x: Any, nodes: int) -> Callable[[], Any]:
    """Return a captured step of so many small dependent ops."""

    @trine.capture
    def chain(x: Any) -> Any:
        for _ in range(nodes):
            x = x.relu()
        return x

    for _ in range(6):
        chain(x)
    return lambda: chain(x)


def _torch_chain(torch: Any, x: Any, nodes: int) -> Callable[[], Any]:
    graph = torch.cuda.CUDAGraph()
    torch.relu(x)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        y = x
        for _ in range(nodes):
            y = torch.relu(y)
    held = [y]  # the graph knows addresses only

    def replay() -> Any:
        graph.replay()
        return held

    return replay
