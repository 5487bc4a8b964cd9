"""The table of systems: a line a system, from the command line, kept for those not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trine import models
from trine.bench import model_table
from trine.bench.model_table import data_hash, measure
from trine.models.measured import Measured, read


def test_a_system_is_trained_and_described() -> None:
    line = measure(models.get("xor"), "numpy")
    assert line.name == "xor"
    assert line.backend == "numpy"
    assert line.parameters == 9
    assert line.result.startswith("test accuracy 100")
    assert line.short == ""
    assert line.seconds > 0
    assert len(line.data_hash) == 32


def test_a_system_is_trained_on_other_data_for_other_epochs() -> None:
    line = measure(models.get("vanishing-gradient"), "numpy", data="digits", epochs=1)
    assert (line.data, line.epochs) == ("digits", 1)
    assert line.data_hash == data_hash(models.get("vanishing-gradient"), "digits")
    assert line.cpu_seconds > 0


def test_a_system_without_training_is_explained() -> None:
    line = measure(models.get("single-neuron"), "numpy")
    assert line.result == "4 numbers as in the source"
    assert line.epochs == 0


def test_the_data_hash_is_of_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    system = models.get("two-digit")
    before = data_hash(system)
    assert data_hash(system) == before
    splits = system.splits()
    splits.test.x[0, 0, 0, 0] = 0.5
    monkeypatch.setattr(type(system), "splits", lambda *_: splits)
    assert data_hash(system) != before


def test_lines_are_kept_and_written(tmp_path: Path) -> None:
    kept = Measured("hand", "f", "made", "00", 1, "numpy", 1, 1.0, "r", "", "s", "c")
    gone = Measured("no-such-system", "f", "made", "00", 1, "numpy", 1, 1.0, "r", "", "s", "c")
    file = tmp_path / "m.json"
    file.write_text(json.dumps([kept.as_dict(), gone.as_dict()]))
    app = model_table.typer.Typer()
    app.command()(model_table.main)
    command = ["xor", "--out", str(tmp_path / "m.md"), "--json", str(file), "--backend", "numpy"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert [line.name for line in read(file)] == ["hand", "xor"]
    assert read(file)[0] == kept
    page = (tmp_path / "m.md").read_text()
    assert "| `hand` |" in page
    assert "| `xor` |" in page


def test_what_ships_is_of_systems_that_exist() -> None:
    for line in read():
        assert line.name in models.names()
        if line.parameters < 1_000_000:
            assert line.parameters == models.get(line.name).parameters
