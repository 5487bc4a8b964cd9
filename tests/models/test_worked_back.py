"""Backward formulas with numbers: each line's sum is what the tape computed."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

import trine
import trine.functional as F
from trine import models, nn
from trine.cli.anatomy_view import show_anatomy
from trine.models.anatomy import record
from trine.models.lesson import lesson_of
from trine.models.network_svg import network_svg
from trine.models.snapshots import SUMMARY, quantities
from trine.models.worked import worked
from trine.models.worked_back import worked_back

SUM = re.compile(r"^(dC/d|to |)(?P<name>[^ ]+) = (?P<terms>.*?) = (?P<value>[-\d.e]+)(;.*)?$")


def total(terms: str) -> float:
    """Return what a sum of products with numbers comes to."""
    return float(eval(terms.replace("·", "*")))


@pytest.fixture
def small():
    """A convolution, an average pool and two full layers, all written out whole."""
    trine.seed(1)
    with trine.use("numpy"):
        model = nn.Sequential(
            nn.Conv2d(1, 2, 2, stride=2, padding=1), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2),
        ).to(dtype="float64")  # fmt: skip
        x = trine.randn(2, 1, 3, 3, dtype="float64")
        target = trine.tensor([1, 0])
        yield record(model, x, target, loss=F.cross_entropy, rate=0.5)


@pytest.mark.parametrize("sample", [0, 1])
def test_every_line_holds(small, sample):
    seen = set()
    for part in small.parts:
        for line in worked(part, sample) + worked_back(part, small, sample):
            found = SUM.match(line)
            if found is None or "exp" in line or "tanh" in line:
                continue
            assert total(found["terms"]) == pytest.approx(float(found["value"]), abs=2e-5), line
            seen.add(found["name"].partition("[")[0])
            step = re.search(r"; {1,2}[^=]+' *\[[^]]*\] = (.*) = (.*)$", line)
            if step is not None:
                assert total(step[1]) == pytest.approx(float(step[2]), abs=2e-5)
                seen.add("step")
    assert {"z1", "p1", "z2", "W1", "W2", "b2", "W3", "b3", "a2", "step"} <= seen


def test_lines_end_in_the_tapes_gradients(small):
    part = next(p for p in small.parts if p.symbol == "z3")
    ends = {
        (int(i) - 1, int(j) - 1): float(value)
        for i, j, value in re.findall(
            r"dC/dW3\[(\d),(\d)\] = .*? = ([-\d.e]+);", "\n".join(worked_back(part, small, 0))
        )
    }
    assert len(ends) == 6
    for index, value in ends.items():
        assert value == pytest.approx(small.grads["6.weight"][index], rel=1e-5)
    loss = small.parts[-1]
    errors = [float(line.rpartition(" = ")[2]) for line in worked_back(loss, small, 1)]
    assert errors == pytest.approx(part.delta[1].tolist(), rel=1e-5)


def test_shared_weights_are_not_written_as_one_ops_sum():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.full = nn.Linear(2, 2)

        def forward(self, x):
            return self.full(self.full(x))

    trine.seed(0)
    with trine.use("numpy"):
        anatomy = record(Twice(), trine.ones(1, 2), trine.ones(1, 2), loss=F.mse_loss)
    lines = [line for part in anatomy.parts for line in worked_back(part, anatomy, 0)]
    assert any(line.startswith("dC/da0[1]") for line in lines)
    assert not any(line.startswith("dC/dW") for line in lines)


def test_rows_of_all_steps_are_not_taken_for_a_sample():
    anatomy = lesson_of(models.get("elman"), "numpy", "float64", 0)[0][1]
    part = next(p for p in anatomy.parts if p.symbol == "z2")
    assert len(part.output) == 4 * 12
    assert not part.by_sample
    assert worked(part, 1) == []
    shown = next(q for q in quantities(part, anatomy, 1) if q.symbol == "z2")
    assert shown.meaning == "output, all rows"
    assert np.array_equal(shown.value, part.output)


@pytest.mark.parametrize("name", ["text-cnn", "lenet5-1998", "gru-memory", "googlenet-small"])
def test_systems_without_an_example_are_shown_op_by_op(name):
    note = models.explain(name)
    anatomy = note.anatomies[0][1]
    assert note.ok
    symbols = [part.symbol for part in anatomy.parts]
    assert len(set(symbols)) == len(symbols)
    assert network_svg(anatomy).startswith("<svg")
    screen = io.StringIO()
    show_anatomy(Console(file=screen, width=80), 0, anatomy, 0)
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for part in anatomy.parts:
        assert f"\n{part.symbol}" in text


@pytest.mark.parametrize("name", ["hand", "little-demon", "cnn-003", "lstm"])
def test_examples_fit_a_terminal_of_eighty_columns(name):
    note = models.explain(name)
    assert max(map(len, note.text(80).splitlines())) <= 80
    for row in note.rows:
        assert row.judgement() in re.sub(r"\n +", " ", note.text(80))


class Cells(HTMLParser):
    """Collects the numbers of a page by quantity and place."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: dict[tuple[str, int], float] = {}
        self._open: tuple[str, int] | None = None

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        whole = "data-q" in given and "data-short" not in given
        self._open = (given["data-q"], int(given["data-i"])) if whole else None

    def handle_data(self, data):
        if self._open is not None:
            self.cells.setdefault(self._open, float(data))
            self._open = None


@pytest.mark.parametrize("name", ["hand", "cnn-003", "lstm"])
def test_the_table_has_the_pages_numbers(name):
    note = models.explain(name)
    note.anatomies = lesson_of(models.get(name), "numpy", "float64", 2)
    page = Cells()
    page.feed(note.html())
    last, places = {}, {}
    for row in csv.DictReader(io.StringIO(note.csv())):
        if row["step"] != "2":
            continue
        if row["index"] in SUMMARY:
            last[f"|{row['quantity']}|", SUMMARY.index(row["index"])] = float(row["value"])
        else:
            place = places.get(row["quantity"], 0)
            places[row["quantity"]] = place + 1
            last[row["quantity"], place] = float(row["value"])
    assert page.cells.pop(("cost", 0)) == pytest.approx(last["C", 0], rel=5.1e-6)
    assert set(page.cells) == set(last)
    for key, value in page.cells.items():
        assert value == pytest.approx(last[key], rel=5.1e-6, abs=1e-12), key
