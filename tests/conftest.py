"""Shared fixtures: every test that asks for `backend_name` runs on every CPU backend, strictly."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trine
from trine import backends
from trine.backends import get_backend, probe
from trine.kernels import registry
from trine.kernels.cuda import emulator

NO_GPU = "no GPU: "
DRY_RUN = bool(os.environ.get("TRINE_GPU_DRY_RUN"))
"""Whether the emulator takes the GPU's place in tests marked `gpu`, in the whole process."""
if DRY_RUN and str(emulator.stand_in_folder()) not in sys.path:
    sys.path.insert(0, str(emulator.stand_in_folder()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip `gpu` tests where no GPU is usable."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    result = probe("cupy")
    if not result.ok:
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason=f"{NO_GPU}{result.reason}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud how many GPU cases did not run."""
    reports = terminalreporter.stats.get("skipped", [])  # those of other processes too
    skipped = sum(NO_GPU in str(report.longrepr) for report in reports)
    if skipped:
        terminalreporter.write_line(f"{skipped} GPU test(s) skipped: no usable GPU on this machine")
    if DRY_RUN:
        terminalreporter.write_line("Dry run: the emulator stood for the GPU.")


@pytest.fixture(params=["numpy", "numba"])
def backend_name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A CPU backend as the default, strict: a fallback on the reference is an error."""
    name: str = request.param
    backend = get_backend(name)
    backend.strict = True
    with trine.use(name):
        yield name
    backend.strict = False


@pytest.fixture
def train_system(tmp_path: Path) -> Callable[..., Any]:
    """Return train_system(name, backend, **options): a run of `trine train`, finished.

    The options are those of `trine.cli.train.Options`. The run's model is in evaluation mode.
    """
    from trine.cli.train import Options, prepare

    def train(name: str, backend: str, **options: Any) -> Any:
        options = {"out": tmp_path / name, "progress": "none", **options}
        run = prepare(Options(name, backend=backend, **options))
        run.trainer.fit(run.train_loader, run.test_loader, epochs=run.epochs)
        run.model.eval()
        return run

    return train


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    """Start each test from seed 0; leave no backend chosen and no kernel preferred to the next."""
    trine.seed(0)
    yield
    backends._process_default = None
    registry._preferred.clear()
    registry._touch()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The emulator's package `cupy`, fresh, in place of the real one."""

    def imported() -> list[str]:
        return [name for name in sys.modules if name == "cupy" or name.startswith("cupy.")]

    for name in imported():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(emulator.stand_in_folder()))
    yield importlib.import_module("cupy")
    for name in imported():
        del sys.modules[name]


@pytest.fixture
def cupy_backend(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The cupy backend over the emulator's stand-in, which refuses hidden copies to the host."""
    monkeypatch.setattr(stand_in._streams.machine, "refuse_implicit_reads", True)
    monkeypatch.delitem(sys.modules, "trine.backends.cupy_backend", raising=False)
    monkeypatch.setattr(backends, "_instances", dict(backends._instances))
    monkeypatch.setattr(backends, "_probes", {"cupy": backends.Probe(True, "stand-in")})
    backends._instances.pop("cupy", None)
    yield backends.get_backend("cupy")
    sys.modules.pop("trine.backends.cupy_backend", None)
