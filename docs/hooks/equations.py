"""Equations of the guide: set in MathML, and each linked to the line that computes it.

A page holds equations in blocks of plain notation, the notation of `trine explain`. The lines after an
equation that begin with @ name the code that computes it:

    ```equation
    z = W x + b
    @ backends/reference/linear.py LinearOps.linear | z = self.matmul(
    ```

that is a file, in a Python file the function or class, and after a bar a text that exactly one line of
it contains. Line numbers are looked up while the site is built, so they cannot go stale; what is not
found stops the build. The named files become pages of the site, with an anchor on each line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```equation\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
REFERENCE = re.compile(r"@ (?P<file>\S+)(?: (?P<symbol>[\w.]+))?(?: \| (?P<text>.+))?$")
FILE = re.compile(r"`((?:core|backends|kernels|models|bench|tests)/[\w/.]+\.(?:py|cu|h))`")
LANGUAGES = {".py": "python", ".cu": "cuda", ".h": "cuda"}


class Equation(NamedTuple):
    """A line in plain notation and the (file, line) of the code that computes it."""

    text: str
    code: tuple[tuple[str, int], ...]


def equations(block: str) -> list[Equation]:
    """Return a block's equations. Raises ValueError for one without code, or with code not found."""
    found: list[tuple[str, list[tuple[str, int]]]] = []
    for line in filter(None, map(str.strip, block.splitlines())):
        if not line.startswith("@"):
            found.append((line, []))
        elif found:
            found[-1][1].append(resolve(line))
        else:
            raise ValueError(f"[guide] expected an equation before {line!r}. Write it above.")
    for text, code in found:
        if not code:
            raise ValueError(f"[guide] expected a line with @ after {text!r}. Name its code.")
    return [Equation(text, tuple(code)) for text, code in found]


def resolve(reference: str) -> tuple[str, int]:
    """Return (file, line) of `@ file symbol | text`. Raises ValueError where there is no such line."""
    match = REFERENCE.match(reference)
    if match is None:
        raise ValueError(f"[guide] expected `@ file symbol | text`, got {reference!r}. Mend it.")
    file, symbol, text = match["file"], match["symbol"], match["text"]
    if not (ROOT / file).is_file():
        raise ValueError(
            f"[guide] expected a file of the repository, got {file}. Mend {reference!r}."
        )
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    first, last = _span(file, symbol) if symbol else (1, len(lines))
    if text is None:
        return file, first
    hits = [n for n in range(first, last + 1) if text in lines[n - 1]]
    if len(hits) != 1:
        raise ValueError(
            f"[guide] expected one line with {text!r} in {file} {symbol or ''}, found {len(hits)}. "
            f"Mend {reference!r}."
        )
    return file, hits[0]


def _span(file: str, symbol: str) -> tuple[int, int]:
    """Return the first and last line of `function` or `Class.method`."""
    nodes: list[ast.stmt] = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    for name in symbol.split("."):
        named = [
            node
            for node in nodes
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
        ]
        if not named:
            raise ValueError(f"[guide] expected {symbol} in {file}, found no {name}. Name it anew.")
        nodes = named[0].body
    return named[0].lineno, named[0].end_lineno or named[0].lineno


def files_of(markdown: str) -> Iterator[str]:
    """Yield the source files that a page names in its text or by its equations."""
    yield from FILE.findall(FENCED.sub("", markdown))
    for block in BLOCK.findall(markdown):
        for equation in equations(block):
            yield from (file for file, _ in equation.code)


def drawn(block: str, address: Any) -> str:
    """Return a block as HTML; `address(file, line)` is where a line of code is shown."""
    from trine.models.mathml import mathml  # noqa: PLC0415  links are found without it

    rows = []
    for equation in equations(block):
        links = ", ".join(
            f'<a href="{escape(address(file, line))}" title="{file}, line {line}">'
            f"{escape(PurePosixPath(file).name)}:{line}</a>"
            for file, line in equation.code
        )
        rows.append(
            f'<div class="row"><span class="formula">{_upright(mathml(equation.text))}</span>'
            f'<span class="code">{links}</span></div>'
        )
    return f'<div class="equation">{"".join(rows)}</div>'


def _upright(formula: str) -> str:
    """Keep brackets at the size of letters: a stretched one with an exponent leaves its line."""
    for bracket in "()":
        formula = formula.replace(f"<mo>{bracket}</mo>", f'<mo stretchy="false">{bracket}</mo>')
    return formula


# What mkdocs calls.


def _page_of(file: str) -> str:
    return f"source/{file}.md"


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each source file that the guide names."""
    from mkdocs.structure.files import File, InclusionLevel  # noqa: PLC0415  tests have no mkdocs

    pages = [f for f in files.documentation_pages() if not f.src_uri.startswith("source/")]
    for file in sorted({name for page in pages for name in files_of(page.content_string)}):
        source = (ROOT / file).read_text(encoding="utf-8")
        text = (
            "---\nsearch:\n  exclude: true\nhide: [toc]\n---\n\n"
            f'# {file}\n\n~~~~~~{{ .{LANGUAGES[PurePosixPath(file).suffix]} linenums="1" }}\n{source}~~~~~~\n'
        )
        page = File.generated(
            config, _page_of(file), content=text, inclusion=InclusionLevel.NOT_IN_NAV
        )
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Set equations, and link the files that the text names to their pages."""
    from mkdocs.utils import get_relative_url  # noqa: PLC0415

    if page.file.src_uri.startswith("source/"):
        return markdown

    def address(file: str, line: int) -> str:
        url = files.get_file_from_path(_page_of(file)).url
        return f"{get_relative_url(url, page.url)}#__span-0-{line}"

    def linked(match: re.Match[str]) -> str:
        up = "../" * page.file.src_uri.count("/")
        return f"[{match[0]}]({up}{_page_of(match[1])})"

    parts, place = [], 0
    for fence in FENCED.finditer(markdown):
        parts.append(FILE.sub(linked, markdown[place : fence.start()]))
        block = BLOCK.fullmatch(fence[0])
        parts.append(drawn(block[1], address) if block else fence[0])
        place = fence.end()
    return "".join([*parts, FILE.sub(linked, markdown[place:])])
