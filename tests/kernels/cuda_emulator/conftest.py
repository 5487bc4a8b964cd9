"""The emulator's own tests: each fault is planted and seen caught, and a near-miss passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from trine.kernels.cuda import emulator


@pytest.fixture(autouse=True, scope="session")
def _needs_a_compiler() -> None:
    reason = emulator.unavailable()
    if reason is not None:
        pytest.skip(f"no CUDA emulator: {reason}")


@dataclass
class Source:
    """A `.cu` with many kernels, compiled once, whose lines are known by comments `// at: name`."""

    code: str
    module: emulator.Module

    def line(self, mark: str) -> str:
        """Return `file:line` of the line that is marked so."""
        marked = [
            i for i, text in enumerate(self.code.splitlines(), 1) if text.endswith(f"// at: {mark}")
        ]
        assert len(marked) == 1, f"{mark} marks {len(marked)} lines"
        return f"{self.module.name}:{marked[0]}"

    def run(
        self, kernel: str, arguments: Sequence[Any], grid: int = 1, block: int = 32, **more: Any
    ) -> emulator.Counts:
        """Launch a kernel."""
        return self.module.kernel(kernel).launch((grid,), (block,), arguments, **more)

    def fault(self, kernel: str, arguments: Sequence[Any], **more: Any) -> emulator.KernelError:
        """Launch a kernel that must fail and return its fault."""
        with pytest.raises(emulator.KernelError) as caught:
            self.run(kernel, arguments, **more)
        return caught.value


@pytest.fixture(scope="session")
def compile_source() -> Callable[..., Source]:
    """Compile a source under a name."""

    def compile_it(name: str, code: str, **more: Any) -> Source:
        return Source(code, emulator.Module(code, name=name, **more))

    return compile_it
