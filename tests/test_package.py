"""The package as a whole: what importing costs, which way imports go, what is where."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"core": "trine", "backends": "trine.backends", "kernels": "trine.kernels",
           "models": "trine.models", "bench": "trine.bench"}  # fmt: skip

# The floors of the house, the ground first. A module may import from its own floor and those below.
FLOORS = [
    ("trine.errors", "trine.dtypes", "trine.random", "trine.atomic"),
    ("trine.kernels",),
    ("trine.backends",),
    ("trine.autograd", "trine.primitives", "trine.tensor_methods", "trine.tensor", "trine.joining",
     "trine.creation"),
    ("trine.functional", "trine.define", "trine.gradcheck", "trine.capture"),
    ("trine.nn", "trine.optim", "trine.data"),
    ("trine.compare", "trine.training", "trine.models", "trine.bench",
     "trine.profiler"),
    ("trine.cli",),
]  # fmt: skip


def floor(module: str) -> int | None:
    """Return the floor of a module; None for the package's own front door."""
    if module == "trine":
        return None
    for number, names in enumerate(FLOORS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    raise AssertionError(f"{module} has no floor: add it to FLOORS")


def modules():
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            if "stand_in" in parts:
                continue  # a package `cupy` of its own, which nothing of ours imports as ours
            name = ".".join([package, *(p for p in parts if p != "__init__")])
            yield name, file


def imports(file: Path):
    """Yield the modules that a file imports when it runs; imports for types alone are left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for_types.update(id(child) for statement in node.body for child in ast.walk(statement))
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            # The emulator's package is imported as `cupy`, so it cannot name itself by its place.
            assert "stand_in" in file.parts, f"relative import in {file}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                child = f"{node.module}.{alias.name}"
                yield child if child in KNOWN else node.module


KNOWN = {name for name, _ in modules()}

# Imports against the order, each inside a function and for one stated reason.
EXCEPTIONS = {
    ("trine.autograd", "trine.tensor"): "same floor",
}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_imports_point_downwards(name):
    file = dict(modules())[name]
    here = floor(name)
    if here is None:
        return
    for imported in imports(file):
        if not imported.startswith("trine") or imported == "trine":
            continue
        there = floor(imported)
        assert there is None or there <= here, f"{name} imports {imported}, which is above it"


def test_the_order_is_the_documented_one():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert (
        "cli -> bench, models, training -> nn, optim, data -> functional -> tensor, autograd"
        in text
    )


HEAVY = (
    "numba",
    "llvmlite",
    "cupy",
    "matplotlib",
    "pooch",
    "typer",
    "rich",
    "safetensors",
    "scipy",
)


def test_importing_is_light():
    """How long it takes is in the benchmarks: bench/suite."""
    code = "import json, sys, trine; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert "trine" in loaded
    assert not [m for m in loaded if m.split(".")[0] in HEAVY]


@pytest.mark.parametrize("module", ["numba", "cupy"])
def test_jit_and_gpu_packages_are_imported_in_one_place(module):
    allowed = {
        "numba": ("trine.kernels.numba", "trine.backends.threads"),
        "cupy": ("trine.backends.cupy_backend", "trine.backends.cupy_probe"),
    }[module]
    for name, file in modules():
        if name == "trine.backends" and module == "numba":
            continue  # the probe asks whether it imports
        if any(name == a or name.startswith(a + ".") for a in allowed):
            continue
        found = [i for i in imports(file) if i == module or i.startswith(module + ".")]
        assert not found, f"{name} imports {found}"


def test_every_package_is_listed():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name for name, file in modules() if file.name == "__init__.py"}
    assert packages <= set(settings["packages"])


def test_no_pickle_and_no_names_of_other_packages():
    for name, file in modules():
        text = file.read_text(encoding="utf-8")
        assert "import pickle" not in text, name
        assert "allow_pickle=True" not in text, name
        assert file.name not in {"numpy.py", "numba.py", "cupy.py"}, name


def test_public_names_exist():
    import trine

    for name in trine.__all__:
        assert getattr(trine, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        trine.nonsense  # noqa: B018


def test_types_are_shipped():
    assert (ROOT / "core" / "py.typed").exists()
