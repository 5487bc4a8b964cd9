"""What ops launch, without running it: a RawModule whose kernels only note their launches.

Put it in the place of the stand-in's `cupy.RawModule` before a cupy backend compiles anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trine.backends import cases
from trine.backends.op import OPS
from trine.kernels.cuda.emulator.source import kernels, strip_comments

OP_NAMES = sorted(name for name, spec in OPS.items() if spec.takes_kernels and not spec.user)
"""The ops of the contract that kernels can serve."""


@dataclass(frozen=True)
class Recorded:
    """One launch."""

    file: str
    expression: str
    """The kernel with its template's arguments."""
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    numbers: tuple[tuple[str, int | float], ...]
    """The arguments that are no arrays, with the names of the kernel's parameters."""

    @property
    def kernel(self) -> str:
        """The kernel's name."""
        return self.expression.split("<")[0]


class RecordingModule:
    """In place of `cupy.RawModule`."""

    launches: ClassVar[list[Recorded]] = []
    """Of all modules, in their order."""

    def __init__(self, code: str, **_: Any) -> None:
        named = re.match(r'#line 1 "([^"]+)"', code)
        assert named is not None
        self.file = named[1]
        self.parameters = {k.name: k.parameters for k in kernels(strip_comments(code))}

    def get_function(self, expression: str) -> Any:
        """Return a function that notes how it is called."""
        names = self.parameters[expression.split("<", maxsplit=1)[0]]

        def launch(
            grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], **_: Any
        ) -> None:
            named = zip(names, args, strict=True)
            numbers = tuple(
                (n, value.item()) for n, value in named if isinstance(value, np.generic)
            )
            shapes = [(*shape, 1, 1, 1)[:3] for shape in (grid, block)]
            self.launches.append(Recorded(self.file, expression, *shapes, numbers))

        return launch


def launches_of(backend: Any, op: str) -> list[Recorded]:
    """Return what an op's case launches in float32 on a cupy backend whose modules only record."""
    RecordingModule.launches.clear()
    for sample in cases.get(op).samples(np.random.default_rng(0), np.dtype("float32")):
        arrays = [None if a is None else backend.xp.asarray(a) for a in sample.args]
        getattr(backend, op)(*arrays, **sample.attrs)
    return list(RecordingModule.launches)
