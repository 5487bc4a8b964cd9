"""What the table and the JSON say, and which files are read."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from trine import bench
from trine.bench.files import SCHEMA
from trine.kernels import kernel


@pytest.fixture
def report(own_table, quick):
    @kernel("relu", backend="numpy", name="zeros")
    def zeros(x, out):
        out[...] = 0

    return quick()


def shown(report):
    console = Console(width=200, record=True, file=io.StringIO())
    bench.print_table(report, console)
    return console.export_text()


def test_the_table_shows_rows_limits_and_failures(report):
    text = shown(report)
    assert "reference" in text
    assert "no time for relu, tiny, numpy zeros" in text
    assert "Limits measured" in text
    assert "% roof" in text


def test_a_busy_machine_is_named(report):
    report.results[0].disturbed = True
    assert "quiet machine" in shown(report)


ROW = {
    "op": str, "shape": str, "arrays": list, "backend": str, "kernel": str, "side": str,
    "dtype": str, "median": (float, type(None)), "p10": (float, type(None)),
    "p90": (float, type(None)), "calls": int, "rounds": list, "quantiles": list,
    "rejected_rounds": int, "disturbed": bool, "page_faults": (float, type(None)),
    "flops": (int, float), "work": (int, float), "bytes": (int, float),
    "roof": (float, type(None)), "percent_of_roof": (float, type(None)),
    "bound": (str, type(None)), "peak_memory": (int, type(None)), "ratio": dict,
    "error": (str, type(None)),
}  # fmt: skip
ENVIRONMENT = {
    "trine", "python", "platform", "cpu", "cpus", "threads", "malloc", "load", "packages",
}  # fmt: skip


def test_the_json_has_the_fields_of_its_schema(report, tmp_path):
    path = tmp_path / "results.json"
    bench.write_json(report, path)
    saved = json.loads(path.read_text())
    assert set(saved) == {"schema", "environment", "limits", "notes", "results"}
    assert saved["schema"] == SCHEMA == 2
    assert set(saved["environment"]) == ENVIRONMENT
    assert set(saved["environment"]["cpu"]) == {"model", "flags"}
    assert {"count", "layer"} <= set(saved["environment"]["threads"])
    assert saved["environment"]["malloc"]["pinned"] in (True, False)
    assert saved["environment"]["packages"]["numpy"] == np.__version__
    assert set(saved["limits"]) == {"threads", "peak", "peak_limit", "levels", "launch"}
    for row in saved["results"]:
        assert set(row) == set(ROW)
        for name, kind in ROW.items():
            assert isinstance(row[name], kind), name
    rows = {row["kernel"]: row for row in saved["results"]}
    assert rows["zeros"]["median"] is None
    assert rows["zeros"]["error"]
    timed = rows["reference"]
    assert timed["p10"] <= timed["median"] <= timed["p90"]
    assert timed["quantiles"] == sorted(timed["quantiles"])
    assert len(timed["quantiles"]) <= 201
    assert timed["arrays"] == ["(1000,)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "which is something else"),
        ('{"a": 1}', "which is something else"),
        ('{"schema": 99, "results": []}', "expected schema 1 to 2, got schema 99"),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        bench.read_json(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no file"):
        bench.read_json(tmp_path / "none.json")
