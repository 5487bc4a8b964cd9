"""Which of the project's tests concern a change of a kernel: found from registry, headers and tests."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, zip_longest
from pathlib import Path

from launch_mutants import functions_at
from scratch import KERNELS, ROOT

sys.path.insert(0, str(Path(__file__).parents[1]))
from recorded import RecordingModule, launches_of

from trine.backends import get_backend
from trine.backends.cases import all as all_cases
from trine.kernels import registry
from trine.kernels.cuda import emulator
from trine.kernels.cuda.emulator.source import kernels as kernels_of
from trine.kernels.cuda.emulator.source import strip_comments

TESTS = ROOT / "tests" / "kernels" / "cuda"
BY_OP = (
    "test_op_cases.py::test_kernels_agree_with_float64_in_any_order",
    "test_launch_geometry.py::test_a_launch_has_the_threads_that_its_loops_need",
)
"""Tests with a parameter for each op."""
RULES = "test_launch_rules.py"
"""Takes no time, and so comes first."""


@lru_cache(maxsize=1)
def launched() -> dict[str, frozenset[tuple[str, str]]]:
    """Return for each op the files and kernels that its calls launch."""
    sys.path.insert(0, str(emulator.stand_in_folder()))
    import cupy

    cupy.RawModule = RecordingModule
    backend = get_backend("cupy")
    return {
        case.op: frozenset((one.file, one.kernel) for one in launches_of(backend, case.op))
        for case in all_cases()
    }


def includes(name: str) -> set[str]:
    """Return the headers that a source takes in, those of its headers too."""
    text = (KERNELS / name).read_text()
    direct = {f"include/{found}" for found in re.findall(r'#include "(\w+\.h)"', text)}
    return direct.union(*(includes(header) for header in direct))


def imports(module: str) -> set[str]:
    """Return the launch tables that one imports, and those that these import."""
    found = set()
    for node in ast.walk(ast.parse((KERNELS / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "trine.kernels.cuda"
        ):
            names = [(node.module or "").rpartition(".")[2], *(alias.name for alias in node.names)]
            found |= {name for name in names if (KERNELS / f"{name}.py").is_file()}
    return found.union(*(imports(name) for name in found))


def ops_of(name: str, line: int) -> list[str]:
    """Return the ops that a change of this line can change, those of one kernel after another's."""
    code = (KERNELS / name).read_text()
    if name.endswith(".py"):
        return _ops_of_table(name.removesuffix(".py"), functions_at(code, line)[0])
    if name.endswith(".cu"):
        kernel = _kernel_at(code, line)
        users = [op for op, found in launched().items() if (name, kernel) in found]
        return users or _taking_turns([name])
    return _taking_turns(path.name for path in KERNELS.glob("*.cu") if name in includes(path.name))


def _kernel_at(code: str, line: int) -> str | None:
    """Return the kernel that a line lies in, None if it lies in another function."""
    clean = strip_comments(code)
    for kernel in kernels_of(clean):
        found = re.search(rf"\b{kernel.name}\s*\([^)]*\)\s*\{{", clean)
        assert found is not None
        depth, end = 1, found.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(clean[end], 0)
            end += 1
        if clean.count("\n", 0, found.start()) < line <= clean.count("\n", 0, end) + 1:
            return kernel.name
    return None


def _taking_turns(files: Iterable[str]) -> list[str]:
    """Return the ops that launch kernels of files, one of each file in turn."""
    lists = [
        [op for op, found in launched().items() if any(file == f for f, _ in found)]
        for file in sorted(files)
    ]
    return list(dict.fromkeys(op for op in chain(*zip_longest(*lists)) if op is not None))


def _ops_of_table(module: str, function: str) -> list[str]:
    launched()  # the backend's kernels are registered now
    entries = {e.op: e.cuda.launch for e in registry.all_kernels() if e.cuda is not None}
    own = [
        op
        for op, launch in entries.items()
        if launch.__module__.endswith(f".{module}")
        and launch.__qualname__.split(".")[0] == function
    ]
    if own:
        return own
    return [
        op
        for op, launch in entries.items()
        for table in [launch.__module__.rpartition(".")[2]]
        if table == module or module in imports(table)
    ]


def tests_of(name: str, line: int) -> list[str]:
    """Return the tests, as pytest names them, that concern a line: cases first, then whole files."""
    ops = ops_of(name, line)
    assert ops, f"no op launches what line {line} of {name} is about"
    cases = [f"{TESTS / test}[{op}]" for op in ops for test in BY_OP]
    stem = Path(name).stem
    imported = re.compile(
        rf"^from trine\.kernels\.cuda(?:\.{stem}\b| import .*\b{stem}\b)", re.MULTILINE
    )
    files = {}
    for path in sorted(TESTS.glob("test_*.py")):
        text = path.read_text()
        if not any(test.startswith(path.name) for test in BY_OP):
            files[path] = sum(text.count(f'"{op}"') for op in ops)
            files[path] += 1000 * bool(imported.search(text))
    chosen = sorted((path for path, hits in files.items() if hits), key=lambda path: -files[path])
    rules = [
        str(path) for path in chosen if path.name == RULES and imported.search(path.read_text())
    ]
    return [*rules, *cases, *(str(path) for path in chosen if str(path) not in rules)]
