"""Compare a wheel's contents with the files that git tracks: `python compare_wheel.py WHEEL`.

A package that was forgotten in pyproject.toml shows only here: every tracked file of the package's
folders must be in the wheel, and the wheel must hold nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

FOLDERS = {
    "core/": "trine/",
    "backends/": "trine/backends/",
    "kernels/": "trine/kernels/",
    "models/": "trine/models/",
    "bench/": "trine/bench/",
}
NOT_SHIPPED = ("bench/results/", "bench/suite/")


def tracked(root: Path) -> set[str]:
    """Return the tracked files of the package's folders under the names they have in a wheel."""
    done = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True)
    names = set()
    for line in done.stdout.splitlines():
        for folder, package in FOLDERS.items():
            if line.startswith(folder) and not line.startswith(NOT_SHIPPED):
                names.add(package + line.removeprefix(folder))
    return names


def shipped(wheel: Path) -> set[str]:
    """Return the files of a wheel without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def main() -> int:
    """Print the differences; 1 if there are any."""
    expected, found = tracked(Path(__file__).parent.parent), shipped(Path(sys.argv[1]))
    for name in sorted(expected - found):
        print(f"tracked but not in the wheel: {name}")
    for name in sorted(found - expected):
        print(f"in the wheel but not tracked: {name}")
    print(f"{len(expected & found)} files agree")
    return int(expected != found)


if __name__ == "__main__":
    sys.exit(main())
