"""Every public name of the stand-in is one of CuPy's, with parameters that CuPy's has too.

CuPy imports without a driver. It is looked for in this environment, or in that of the interpreter
which TRINE_CUPY_PYTHON names; elsewhere the test is skipped.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys

import pytest

MODULES = (
    "", "cuda", "cuda.runtime", "cuda.memory", "cuda.compiler", "cuda.driver",
    "cuda.graph", "cuda.stream", "cuda.device", "cuda.nvrtc",
)  # fmt: skip

# Asked of the real CuPy: of each name its kind, its signature where Python knows it, the first line
# of its documentation, where CuPy's compiled functions have theirs.
ASK = """
import cupy, inspect, json, sys
def describe(value):
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):
        signature = None
    return [signature, (getattr(value, "__doc__", "") or "").split(chr(10))[0]]
found = {}
for path, names in json.load(sys.stdin).items():
    module, _, owner = path.partition(":")
    target = cupy
    for part in filter(None, [*module.split("."), owner]):
        target = getattr(target, part, None)
    found[path] = {n: describe(getattr(target, n)) for n in names if hasattr(target, n)}
print(json.dumps(found))
"""


def interpreter() -> str:
    chosen = os.environ.get("TRINE_CUPY_PYTHON")
    if chosen:
        return chosen
    if importlib.util.find_spec("cupy_backends") is None:
        pytest.skip("CuPy is not installed; TRINE_CUPY_PYTHON may name an interpreter that has it")
    return sys.executable


def public_names(cupy):
    """The stand-in's public names by module, and of its classes by `module:class`."""
    names = {}
    for path in MODULES:
        module = importlib.import_module(".".join(filter(None, ("cupy", path))))
        names[path] = list(module.__all__)
        for name in names[path]:
            value = getattr(module, name)
            if inspect.isclass(value) and value.__module__.startswith("cupy"):
                members = [n for n in vars(value) if not n.startswith("_")]
                names[f"{path}:{name}"] = [n for n in members if n not in OWN_MEMBERS.get(name, ())]
    return names


# What the stand-in's classes hold for themselves.
OWN_MEMBERS = {"ndarray": {"block"}}
# Made by the package, never by its users.
NO_SIGNATURE = {"PinnedMemoryPointer", "ufunc"}


@pytest.fixture
def compared(stand_in):
    names = public_names(stand_in)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [interpreter(), "-W", "ignore", "-c", ASK],
        input=json.dumps(names),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return names, json.loads(done.stdout)


def test_every_name_is_one_of_cupys(compared):
    names, found = compared
    missing = [
        f"{path} {n}" for path, listed in names.items() for n in listed if n not in found[path]
    ]
    assert not missing, "\n".join(missing)
    assert sum(map(len, names.values())) > 200


def test_parameters_are_those_of_cupy(stand_in, compared):
    names, found = compared
    wrong, judged = [], 0
    for path, listed in names.items():
        module, _, owner = path.partition(":")
        target = importlib.import_module(".".join(filter(None, ("cupy", module))))
        target = getattr(target, owner) if owner else target
        for name in listed:
            value = inspect.getattr_static(target, name)
            if isinstance(value, property) or not callable(value) or name not in found[path]:
                continue
            if name in NO_SIGNATURE:
                continue
            theirs = parameters(*found[path][name], name)
            if theirs is None:
                continue
            mine = parameters(str(inspect.signature(value)), "", name)
            judged += 1
            fault = difference(mine, theirs)
            if fault:
                wrong.append(f"{path} {name}: {fault} ({mine} against {theirs})")
    assert not wrong, "\n".join(wrong)
    assert judged > 120


def parameters(signature, documentation, name):
    """Return [(name, default or None, keyword-only)], or None where nothing is known."""
    text = signature
    if text is None or "*args" in text or "(self, /" in text:
        found = re.match(rf"(?:\w+\.)?(?:ufunc )?{name}(\(.*?\))(?: ->.*)?$", documentation)
        text = found[1] if found else None
    if text is None or "*" in text.replace("*,", "").replace("\\*,", ""):
        return None
    inner = text[1 : text.rindex(")")]
    result, keyword_only = [], False
    for part in (piece.strip().lstrip("\\") for piece in split(inner)):
        if part in ("*", "/", "self", "cls") or part.startswith("_ndarray_base self"):
            keyword_only = keyword_only or part == "*"
            continue
        left, _, default = part.partition("=")
        label = left.split(":")[0].split()[-1]
        result.append((label, plain(default), keyword_only))
    return result


def plain(default):
    return (
        default.strip()
        .strip("'\"")
        .replace("<class float>", "float")
        .replace("<class 'float'>", "float")
    )


def split(text):
    part, depth = "", 0
    for character in text:
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            yield part
            part = ""
        else:
            part += character
    if part.strip():
        yield part


def difference(mine, theirs):
    """Return what is wrong: mine may lack CuPy's last parameters, and has no others."""
    for position, (name, default, keyword_only) in enumerate(mine):
        known = {other[0]: other for other in theirs}
        if name not in known:
            return f"CuPy has no {name}"
        if not keyword_only and (position >= len(theirs) or theirs[position][0] != name):
            return f"{name} is at another place"
        if known[name][1] != default:
            return f"{name} has the default {known[name][1]}"
    return ""


def test_the_comparison_finds_differences():
    theirs = parameters("(a, axis=None, out=None)", "", "f")
    assert difference(parameters("(a, axis=None)", "", "f"), theirs) == ""
    assert "no where" in difference(parameters("(a, where=None)", "", "f"), theirs)
    assert "place" in difference(parameters("(a, out=None)", "", "f"), theirs)
    assert "default" in difference(parameters("(a, axis=0)", "", "f"), theirs)
    compiled = parameters(
        None, "_ndarray_base.swapaxes(self, Py_ssize_t axis1, Py_ssize_t axis2) -> x", "swapaxes"
    )
    assert [p[0] for p in compiled] == ["axis1", "axis2"]
