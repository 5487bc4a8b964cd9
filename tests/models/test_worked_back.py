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
from trine.models.formulas import backward_formulas, formula
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


def smoothed_loss(out, target):
    return F.cross_entropy(out, target, label_smoothing=0.2)


def test_smoothed_labels_stand_in_the_formulas_of_cross_entropy():
    """y is 1 - s + s/K at the label and s/K elsewhere: 0.85 and 0.05 of four classes for s = 0.2."""
    trine.seed(0)
    with trine.use("numpy"):
        model = nn.Sequential(nn.Linear(3, 4)).to(dtype="float64")
        x, target = trine.randn(2, 3, dtype="float64"), trine.tensor([2, 0])
        anatomy = record(model, x, target, loss=smoothed_loss)
    scores, loss = anatomy.parts
    wanted = [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]
    logs = scores.output - np.log(np.exp(scores.output).sum(axis=1, keepdims=True))
    assert loss.output == pytest.approx(-(np.array(wanted) * logs).sum(axis=1).mean())
    assert formula(loss) == (
        "C = -sum over k of y[k] log( exp z1[k] / sum exp z1 ),  y = 0.85 at t, 0.05 elsewhere"
    )
    assert backward_formulas(loss) == ["dC/dz1 = softmax(z1) - y,  / batch   (BP1)"]
    for sample in (0, 1):
        found = [SUM.match(line) for line in worked_back(loss, anatomy, sample)]
        assert [total(line["terms"]) for line in found] == pytest.approx(
            scores.delta[sample], abs=1e-6
        )
        assert [line["terms"].split()[2] for line in found] == [f"{y:g})" for y in wanted[sample]]


def test_targets_that_are_probabilities_are_not_written_as_labels():
    trine.seed(0)
    with trine.use("numpy"):
        x, target = trine.ones(2, 3), trine.full((2, 4), 0.25)
        anatomy = record(nn.Sequential(nn.Linear(3, 4)), x, target, loss=F.cross_entropy)
    assert worked_back(anatomy.parts[-1], anatomy, 0) == []


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
