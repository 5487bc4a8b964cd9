"""The chapters on kernels and ops, followed literally: their files written, their commands run, in order.

A block of Python or CUDA that begins with a comment naming a file is that file; a block of bash is
typed. A page's folder is empty at first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trine.kernels.cuda import emulator

ROOT = Path(__file__).parents[2]
STEP = re.compile(
    r"^```(?:(?:python|cuda)\n(?P<comment>#|//) (?P<file>\w+\.\w+)\n(?P<content>.*?)"
    r"|bash\n(?P<commands>.*?))^```$",
    re.DOTALL | re.MULTILINE,
)
PAGES = {  # page: what its commands print
    "own-kernel.md": ("loops", "two-digit on made, numba", "threads"),
    "own-op.md": ("swish",),
    "learn/from-cupy.md": ("root",),
    "learn/backprop.md": (),
}


def steps(page: str) -> list[tuple[str, str]]:
    """Return (file, content) and ("", commands) in the page's order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [
        (m["file"], m["content"]) if m["file"] else ("", m["commands"]) for m in STEP.finditer(text)
    ]


def type_in(commands: str, folder: Path) -> str:
    """Run commands as a reader does, `trine` being the one under test; all must succeed."""
    script = folder / "bin" / "trine"
    if not script.is_file():
        script.parent.mkdir()
        call = f"'{sys.executable}' -c 'from trine.cli import main; main()'"
        script.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_who_types_the_page_succeeds(page: str, tmp_path: Path) -> None:
    found = steps(page)
    assert found
    emulated = any("--emulate" in text for name, text in found if not name)
    if emulated and not emulator_runs():
        pytest.skip("the page's CUDA kernel needs the emulator: g++ and binutils on x86-64 Linux")
    printed = ""
    for name, text in found:
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
        else:
            printed += type_in(text, tmp_path)
    for word in PAGES[page]:
        assert word in printed
    if "trine check" in str(found):
        assert " 0 failed" in printed
    for figure in tmp_path.glob("*.svg"):
        shown = (ROOT / "docs" / page).parent / "figures" / figure.name
        assert figure.read_text() == shown.read_text(), f"copy {figure} to {shown}"


def emulator_runs() -> bool:
    try:
        emulator.require()
    except emulator.ToolchainError:
        return False
    return True


def test_a_wrong_kernel_stops_the_reader(tmp_path: Path) -> None:
    """The commands judge: with a fault planted in the page's kernel the check ends in an error."""
    name, content = next(step for step in steps("own-kernel.md") if step[0])
    assert "x[n, i] * weight[j, i]" in content
    (tmp_path / name).write_text(content.replace("weight[j, i]", "weight[j, i - 1]"))
    with pytest.raises(AssertionError, match="FAILED linear on numba"):
        type_in(f"trine check linear --backend numba --kernel-file {name}", tmp_path)
