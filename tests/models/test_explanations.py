"""Worked examples: every number that a source prints, on every CPU backend and float type."""

from __future__ import annotations

import numpy as np
import pytest

import trine
from trine import models
from trine.models.desk import Desk, draw_normal
from trine.models.explanation import Explanation, Row, printed_tolerance
from trine.models.gradients import LAYERS, WIDTH, delta_norms

SMALL = (
    "cnn-003",
    "dft-net",
    "epoch",
    "five-layer",
    "hadamard",
    "hand",
    "hebb",
    "linear-approximation",
    "little-demon",
    "lstm",
    "mcculloch-pitts",
    "pca",
    "role-of-w-and-b",
    "signal-flow",
    "single-neuron",
    "taylor-net",
    "unit-length-step",
    "vanishing-gradient",
)
TRAINED = ("linear-regression", "logistic-regression", "two-digit", "xor")


def test_every_explanation_is_tested() -> None:
    explained = {name for name in models.names() if models.get(name).explain}
    assert explained == {*SMALL, *TRAINED}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", [*SMALL, *TRAINED])
def test_numbers(name: str, dtype: str, backend_name: str) -> None:
    explain = models.get(name).explain
    assert explain is not None
    explanation = explain(backend=backend_name, dtype=dtype)
    assert explanation.failures() == []
    assert any(row.reference is not None for row in explanation.rows)
    assert (explanation.backend, explanation.dtype) == (backend_name, dtype)


def rows(explanation: Explanation) -> dict[str, Row]:
    return {row.symbol: row for row in explanation.rows}


def test_hand_quotes_the_source(backend_name: str) -> None:
    found = rows(models.explain("hand", backend=backend_name))
    assert found["net_h1"].value == pytest.approx(0.3775, abs=1e-12)
    assert found["w5"].value == pytest.approx(0.358916480, abs=1e-9)
    assert found["w1"].value == pytest.approx(0.149780716, abs=1e-9)
    assert found["E"].value == pytest.approx(0.29102777369359933, abs=1e-15)


def test_hand_steps() -> None:
    start = models.explain("hand", step=0)
    assert start.failures() == []
    assert rows(start)["E"].value == pytest.approx(0.298371109, abs=1e-9)
    with pytest.raises(ValueError, match=r"\[hand\] expected a number of steps of at least 0"):
        models.explain("hand", step=-1)


def test_hand_trains_on_its_own_backend_whatever_the_default() -> None:
    found = []
    for default in ("numpy", "numba"):
        with trine.use(default):
            found.append(rows(models.explain("hand", backend="numpy", step=30))["E"].value)
    assert found[0] == found[1]
    assert found[0] == pytest.approx(0.09913, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_hand_after_ten_thousand_steps(dtype: str, backend_name: str) -> None:
    end = models.explain("hand", backend=backend_name, dtype=dtype, step=10_000)
    assert end.failures() == []
    found = rows(end)
    tolerance, of_error = {"float64": (1e-9, 1e-14), "float32": (1e-6, 1e-9)}[dtype]
    assert found["E"].value == pytest.approx(3.510187783e-05, abs=of_error, rel=0)
    assert found["out_o1"].value == pytest.approx(0.015913620, abs=tolerance)
    assert found["out_o2"].value == pytest.approx(0.984064274, abs=tolerance)


@pytest.mark.parametrize("activation", ["logistic", "relu"])
@pytest.mark.parametrize("deviation", [0.7, 4.0])
def test_error_norms_are_those_of_the_recursion(
    activation: str, deviation: float, backend_name: str
) -> None:
    """|delta^l| of ten layers, by BP1 and BP2 written out for the same weights."""
    signal, signals, slopes, weights = draw_normal("vanishing input", (64, WIDTH)), [], [], []
    for layer in range(LAYERS + 1):
        size = WIDTH if layer < LAYERS else 10
        weights.append(draw_normal(f"vanishing {layer}", (size, WIDTH)) * deviation / WIDTH**0.5)
        z = signal @ weights[-1].T
        signal = 1.0 / (1.0 + np.exp(-z)) if activation == "logistic" else np.maximum(z, 0.0)
        slopes.append(signal * (1.0 - signal) if activation == "logistic" else (z > 0) * 1.0)
        signals.append(z)
    power = np.exp(signals[-1] - signals[-1].max(axis=1, keepdims=True))
    delta = (power / power.sum(axis=1, keepdims=True) - np.eye(10)[np.arange(64) % 10]) / 64
    norms = []
    for layer in range(LAYERS - 1, -1, -1):
        delta = (delta @ weights[layer + 1]) * slopes[layer]
        norms.insert(0, np.linalg.norm(delta))
    found = delta_norms(Desk(backend_name, "float64"), activation, deviation)
    assert found == pytest.approx(np.array(norms), rel=1e-8)


def test_a_wrong_number_is_noticed() -> None:
    note = Explanation("x", "x", "x", "numpy", "float64")
    note.quote("a", "", 0.37759, "0.3775")
    assert note.ok
    note.quote("b", "", 0.37761, "0.3775")
    note.quote("c", "", float("nan"), "0.3775")
    note.agree("d", "", [1.0, 2.0], [1.0, 2.001])
    note.truth("e", "", False)
    assert [line.split(":")[0] for line in note.failures()] == ["b", "c", "max |d|", "e"]
    assert "DIFFERS FROM 0.3775" in note.text()
    assert 'class="wrong"' in note.html()


def test_a_property_holds_or_not() -> None:
    note = Explanation("n", "t", "s", "numpy", "float64")
    note.truth("a", "is largest", True)
    assert note.ok
    assert "yes  = yes" in note.text()
    note.truth("b", "is least", False)
    assert note.failures() == ["b: not so: is least"]
    assert "no  DIFFERS FROM yes" in note.text()


def test_float32_is_compared_more_loosely_than_float64() -> None:
    for dtype, ok in (("float64", False), ("float32", True)):
        note = Explanation("x", "x", "x", "numpy", dtype)
        note.quote("a", "", 0.123456789 + 5e-8, "0.123456789")
        assert note.ok is ok


@pytest.mark.parametrize(
    ("text", "tolerance"), [("0.3775", 1e-4), ("4.5439e-05", 1e-9), ("12", 1.0)]
)
def test_printed_digits_set_the_tolerance(text: str, tolerance: float) -> None:
    assert printed_tolerance(text) == pytest.approx(tolerance)


def test_text_html_and_json_show_the_same() -> None:
    explanation = models.explain("hand")
    data = explanation.json()
    text, page = explanation.text(), explanation.html()
    assert data["ok"] is True
    for row in data["rows"]:
        assert row["symbol"] in text
        assert row["symbol"] in page
    assert page.startswith("<!doctype html>")
    assert "0.298371109" in text


def test_markup_in_a_symbol_is_escaped() -> None:
    note = Explanation("x", "a < b", "x", "numpy", "float64")
    note.show("<script>", "", 1.0)
    assert "<script>" not in note.html()


def test_figures_have_one_point_a_layer() -> None:
    figure = models.explain("vanishing-gradient").figure
    assert figure is not None
    assert figure.log_y
    assert [len(curve.y) for curve in figure.curves] == [10] * 5


def test_saving_a_figure(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("matplotlib")
    figure = models.explain("role-of-w-and-b").figure
    assert figure is not None
    path = tmp_path / "curves.svg"
    figure.save(str(path))
    assert "w = 4" in path.read_text() or path.stat().st_size > 5000
