"""Equations of the guide: each is linked to a line of code that exists, and is proper MathML."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LEARN = [page for page in PAGES if page.parent.name == "learn"]
FENCE = re.compile(r"^```(\w*)\n.*?^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"`([\w/]+/\w+\.py)`: `(\w+)`")


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("equations", ROOT / "docs/hooks/equations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_equation_leads_to_its_line(page: Path, hook: ModuleType) -> None:
    for block in hook.BLOCK.findall(page.read_text(encoding="utf-8")):
        found = hook.equations(block)  # raises where a symbol or a text is gone
        assert found
        for equation in found:
            for file, line in equation.code:
                assert (ROOT / file).read_text(encoding="utf-8").splitlines()[line - 1].strip()


@pytest.mark.parametrize("page", LEARN, ids=names)
def test_learn_pages_display_equations_in_blocks_only(page: Path) -> None:
    """An indented block would be an equation without a link; other fences are code."""
    text = page.read_text(encoding="utf-8")
    kinds = set(FENCE.findall(text))
    assert kinds <= {"equation", "python", "bash", "cuda"}
    assert not re.search(r"^ {4}\S", FENCE.sub("", text), re.MULTILINE)
    assert not re.search(r"\$\$|\\\[", text), "TeX is not rendered: write an equation block"


def test_the_chapters_of_the_path_have_equations(hook: ModuleType) -> None:
    path = (ROOT / "docs" / "learn" / "index.md").read_text(encoding="utf-8")
    chapters = set(re.findall(r"\((?!\.\.)([\w.-]+\.md)\)", path))
    assert chapters <= {page.name for page in LEARN}
    for name in chapters - {"how-an-op-travels.md"}:
        text = (ROOT / "docs" / "learn" / name).read_text(encoding="utf-8")
        assert hook.BLOCK.search(text), name


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_functions_named_beside_their_file_exist(page: Path, hook: ModuleType) -> None:
    """`core/autograd.py`: `apply`."""
    for file, symbol in NAMED.findall(page.read_text(encoding="utf-8")):
        assert hook.resolve(f"@ {file} {symbol}")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("@ backends/reference/linear.py LinearOps.gone", "found no gone"),
        ("@ backends/reference/linear.py LinearOps.linear | no such text", "found 0"),
        ("@ backends/reference/linear.py | self.matmul(", r"found [2-9]"),
        ("@ backends/reference/gone.py", "a file of the repository"),
    ],
)
def test_references_that_lead_nowhere_are_errors(
    reference: str, message: str, hook: ModuleType
) -> None:
    with pytest.raises(ValueError, match=message):
        hook.resolve(reference)


def test_an_equation_without_code_is_an_error(hook: ModuleType) -> None:
    with pytest.raises(ValueError, match="after 'z = x'"):
        hook.equations("z = x\ny = z\n@ backends/reference/linear.py LinearOps.linear\n")


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_equations_are_drawn_as_mathml(page: Path, hook: ModuleType) -> None:
    for block in hook.BLOCK.findall(page.read_text(encoding="utf-8")):
        html = hook.drawn(block, lambda file, line: f"{file}#{line}")
        root = ElementTree.fromstring(html.replace("&#160;", " "))
        assert len(root.findall(".//math")) == len(root.findall(".//span[@class='code']")) > 0
        assert all(link.get("href") for link in root.findall(".//a"))


def test_both_languages_show_the_same_equations(hook: ModuleType) -> None:
    english, chinese = (
        hook.BLOCK.findall((ROOT / f"docs/learn/by-hand{end}.md").read_text(encoding="utf-8"))
        for end in ("", ".zh")
    )
    assert english == chinese
