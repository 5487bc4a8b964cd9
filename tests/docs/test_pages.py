"""The guide's pages: every block of Python runs, every link leads somewhere, every file named exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"^```\w+\n// (\w+\.cu)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"`((?:core|backends|kernels|models|bench|tests)/[\w/.]+\.\w+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[\w-]*)?\)")


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=names)
def test_blocks_of_python_run_in_order(page: Path, tmp_path: Path) -> None:
    """In a process of their own, since pages register kernels and ops."""
    text = page.read_text(encoding="utf-8")
    source = ""
    for match in BLOCK.finditer(text):
        line = text[: match.start()].count("\n") + 1
        source += "\n" * (line - source.count("\n")) + match[1]  # on the lines of the page
    for file, content in NAMED.findall(text):  # files that the page's Python reads
        (tmp_path / file).write_text(content, encoding="utf-8")
    script = tmp_path / "page.py"
    script.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{names(page)}: {done.stderr}"
    for figure in tmp_path.glob("*.svg"):  # a figure that the page draws is the one it shows
        assert figure.read_text() == (page.parent / "figures" / figure.name).read_text()


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_files_and_links_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file in FILE.findall(text):
        assert (ROOT / file).is_file(), f"{names(page)} names {file}"
    for link in LINK.findall(text):
        assert (page.parent / link).is_file(), f"{names(page)} links {link}"


def test_both_languages_show_the_same_code() -> None:
    english, chinese = (
        BLOCK.findall((ROOT / "docs" / "learn" / f"by-hand{end}.md").read_text(encoding="utf-8"))
        for end in ("", ".zh")
    )
    assert english
    plain = [re.sub(r"#.*", "", block) for block in english]
    assert [re.sub(r"#.*", "", block) for block in chinese] == plain
