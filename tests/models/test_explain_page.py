"""The page of an explanation: its formulas, its slider, and the source's numbers in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import trine
from trine import models
from trine.models.lesson import lesson_of
from trine.models.mathml import mathml

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
EXAMPLES = (
    "hand", "xor", "signal-flow", "single-neuron", "two-digit", "little-demon", "cnn-003", "lstm",
)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("z1 = W1 a0 + b1", "<msub><mi>W</mi><mn>1</mn></msub>"),
        ("delta_h = W_o^T delta_o", "<msubsup><mi>W</mi><mrow><mi>o</mi></mrow>"),
        ("a (.) b", "<mo>⊙</mo>"),
        ("dC/dz1", "<mrow><mo>∂</mo><mi>C</mi></mrow><mo>/</mo><mrow><mo>∂</mo>"),
        ("h_(t-1)", "<msub><mi>h</mi><mrow><mrow><mi>t</mi><mo>−</mo><mn>1</mn>"),
        ("6x6 -> 4x4", "<mn>6×6</mn>"),
        ("a < b & c", "<mo>&lt;</mo>"),
        ("di i", '<mi>i</mi></mrow><mspace width="0.25em"/><mi>i</mi>'),
        ("sum over t of z", "</mtext><mi>t</mi><mtext>"),
        ("mean of each window", "<mtext>&#160;of&#160;</mtext>"),
    ],
)
def test_formulas_become_mathml(line: str, expected: str) -> None:
    found = mathml(line)
    assert expected in found
    assert found.count("<mrow>") == found.count("</mrow>")


class Cells(HTMLParser):
    """Collects the text of every element that a script may change, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: dict[tuple[str, int], str] = {}
        self.links: list[str] = []
        self.text = ""
        self._open: tuple[str, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        whole = "data-q" in given and "data-short" not in given  # the drawing has three digits
        self._open = (given["data-q"], int(given["data-i"])) if whole else None

    def handle_data(self, data: str) -> None:
        self.text += data + " "
        if self._open is not None and self._open not in self.cells:
            self.cells[self._open] = data.strip()
            self._open = None


def shown(file: Path, fragment: str = "") -> Cells:
    """Return what a browser shows of a page."""
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={file.parent / 'profile'}", f"file://{file}{fragment}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    cells = Cells()
    cells.feed(done.stdout)
    return cells


def write(name: str, file: Path, steps: int) -> None:
    explanation = models.explain(name)
    explanation.anatomies = lesson_of(models.get(name), "numpy", "float64", steps)
    file.write_text(explanation.html(), encoding="utf-8")


def test_the_hand_computed_numbers_stand_in_the_browser(tmp_path: Path) -> None:
    write("hand", tmp_path / "hand.html", 3)
    start = shown(tmp_path / "hand.html", "#step=0").cells
    source = {
        ("z1", 0): 0.3775, ("a1", 0): 0.593269992, ("a1", 1): 0.596884378,
        ("z2", 0): 1.105905967, ("a2", 0): 0.751365070, ("a2", 1): 0.772928465,
        ("cost", 0): 0.298371109, ("dC/da2", 0): 0.74136507, ("act'(z2)", 0): 0.186815602,
        ("dC/dz2", 0): 0.138498562, ("dC/dW2", 0): 0.082167041, ("dC/da1", 0): 0.036350306,
        ("act'(z1)", 0): 0.241300709, ("dC/dW1", 0): 0.000438568, ("W2'", 0): 0.358916480,
        ("W2'", 1): 0.408666186, ("W2'", 2): 0.511301270, ("W2'", 3): 0.561370121,
        ("W1'", 0): 0.149780716, ("W1'", 3): 0.29950229,
    }  # fmt: skip
    for key, value in source.items():
        # The browser's numbers have six digits.
        assert float(start[key]) == pytest.approx(value, rel=5.1e-6), key
    after = shown(tmp_path / "hand.html", "#step=1").cells
    assert float(after["cost", 0]) == pytest.approx(0.29102777369359933, rel=5.1e-6)
    assert float(after["W2", 0]) == pytest.approx(0.358916480, rel=5.1e-6)
    assert float(shown(tmp_path / "hand.html").cells["cost", 0]) < 0.2910


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_has_a_page_with_its_numbers(name: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write(name, file, 2)
    assert file.stat().st_size < 2_000_000
    page = shown(file)
    explanation = models.explain(name)
    for row in explanation.rows:
        assert row.ok
        if row.printed is not None:
            assert f"= {row.printed}" in page.text
    assert "DIFFERS" not in page.text
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert len(page.cells) > 5


def test_lenet5_is_explained_on_a_small_page(tmp_path: Path) -> None:
    with trine.use("numpy"):
        trine.seed(0)
        system = models.get("lenet5")
        splits = system.splits()
        explanation = models.explain_model(
            system.build(), trine.tensor(splits.test.x[:1]), splits.test.y[:1], rate=1e-3
        )
    text = explanation.html()
    assert len(text.encode()) < 2_000_000
    assert re.search(r"z1\[1,14,12\] = ", text)
    assert text.count("data:image/png;base64,") > 20  # the maps
    assert "://" not in re.sub(r'xmlns="[^"]*"', "", text)
