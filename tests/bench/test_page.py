"""The page stands alone, and a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from trine import bench
from trine.bench.page import page
from trine.kernels import kernel

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture
def report(own_table, quick, machine):
    @kernel("matmul", backend="numpy", name="<zeros>")
    def zeros(x, y, trans_a, trans_b, out):
        out[...] = 0

    return quick(["relu", "matmul"], roofs=machine(1e14, 1e14))


class Checker(HTMLParser):
    """Collects tags that are open and whatever could load something."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self):
        super().__init__()
        self.stack, self.links, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def test_it_is_well_formed_and_loads_nothing(report):
    text = page(report)
    checker = Checker()
    checker.feed(text)
    assert checker.stack == []
    assert checker.links == []
    assert not {"script", "link", "img", "iframe"} & set(checker.tags)
    assert "url(" not in text
    assert "://" not in re.sub(r"<dd>.*?</dd>", "", text)
    assert "&lt;zeros&gt;" in text
    assert "<zeros>" not in text
    assert checker.tags.count("tr") == len(report) + 2  # and a head for each op


def test_the_roofline_has_a_point_for_each_row_with_arithmetic(report):
    text = page(report)
    timed = [r for r in report if r.rounds and r.flops and r.bytes]
    assert len(timed) == 1
    assert text.count('class="point"') == 1
    assert text.count('class="roof"') == 3  # the peak and two levels of memory
    for coordinate in re.findall(r' c[xy]="([^"]+)"', text):
        assert 0 <= float(coordinate) <= 900


def test_without_limits_there_is_no_roofline(report):
    report.roofs = None
    assert "<svg" not in page(report)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_chromium_shows_it(report, tmp_path):
    path = tmp_path / "report.html"
    bench.write_html(report, path)
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=1000", "--dump-dom",
         path.as_uri()],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    dom = done.stdout
    assert f"<title>trine bench: {len(report)} rows</title>" in dom
    assert dom.count("<tr") == len(report) + 2
    assert dom.count('class="point"') == 1
    assert "no time: " in dom
