"""The table of systems: a line a system, from the command line, kept for those not run."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trine import models
from trine.bench import model_page, model_table
from trine.bench.model_page import page
from trine.bench.model_table import data_hash, measure
from trine.cli.app import app
from trine.models.measured import Measured, Reached, read


def test_a_system_is_trained_and_described() -> None:
    line = measure(models.get("xor"), "numpy")
    assert line.name == "xor"
    assert line.backend == "numpy"
    assert line.parameters == 9
    assert line.reached[0] == Reached("test accuracy", "1.0000", ">= 1")
    assert line.result.startswith("test accuracy: 1.0000 (>= 1); ")
    assert line.short == ""
    assert line.seconds > 0
    assert len(line.data_hash) == 32


def test_a_system_is_trained_on_other_data_for_other_epochs() -> None:
    line = measure(models.get("vanishing-gradient"), "numpy", data="digits", epochs=1)
    assert (line.data, line.epochs) == ("digits", 1)
    assert line.data_hash == data_hash(models.get("vanishing-gradient"), "digits")
    assert line.cpu_seconds > 0
    assert [figure.wanted for figure in line.reached] == [
        "<= 0.0001",
        ">= 1,000",
        ">= 0.1",
        "<= 10",
    ]


def test_a_system_without_training_is_explained() -> None:
    line = measure(models.get("single-neuron"), "numpy")
    assert line.reached == (Reached("numbers as in the source", "4", "of 4"),)
    assert line.epochs == 0


def test_figures_say_how_close_and_counts_are_whole() -> None:
    row = {"symbol": "n", "formula": "weights", "value": 60965224.0, "reference": 60965224.0,
           "tolerance": 0.0, "relation": "=", "ok": True}  # fmt: skip
    assert model_table._figure(row) == Reached("n, weights", "60,965,224", "= 60,965,224")
    near = row | {"value": 1.51234, "reference": 1.5, "tolerance": 0.075}
    assert model_table._figure(near) == Reached("n, weights", "1.512", "= 1.5 within 0.075")
    one = row | {"value": 1.0, "reference": 1.0}
    assert model_table._figure(one) == Reached("n, weights", "1", "= 1")
    truth = one | {"value": 0.0, "relation": "is", "ok": False}
    assert model_table._figure(truth) == Reached("weights", "no", "yes")


def test_the_data_hash_is_of_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    system = models.get("two-digit")
    before = data_hash(system)
    assert data_hash(system) == before
    splits = system.splits()
    splits.test.x[0, 0, 0, 0] = 0.5
    monkeypatch.setattr(type(system), "splits", lambda *_: splits)
    assert data_hash(system) != before


def test_a_further_run_has_a_bound_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"test_accuracy": 0.5, "backend": "numpy", "epochs": 1, "data": "fashion-mnist"}
    asked: list[list[str]] = []
    monkeypatch.setattr(model_table, "_run", lambda command: asked.append(command) or report)
    monkeypatch.setattr(model_table, "data_hash", lambda *_: "00")
    line = measure(models.get("lenet5"), "numpy", "fashion-mnist")
    assert asked[0][asked[0].index("--epochs") + 1] == "10"
    assert line.reached == (Reached("test accuracy", "0.5000", ">= 0.89, asked of Trine"),)
    assert line.short == "test accuracy 50.00% is below 89.0%"


def test_a_run_that_fails_is_a_line_and_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model_table, "RUN", "import sys; sys.exit('no memory' if 'xor' in sys.argv else 0)"
    )
    out, file = tmp_path / "m.md", tmp_path / "m.json"
    done = table("xor", "hand", out=out, json=file)
    assert done.exit_code == 1
    assert "failed: xor, hand" in done.output
    hand, xor = read(file)
    assert "no report" in hand.failed
    assert "no memory" in xor.failed
    assert (xor.reached, xor.short) == ((), "")
    assert "**failed: exit 1: no memory**" in out.read_text()


def test_a_figure_that_is_no_number_fails_its_line_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_table, "_run", lambda _: {**REPORT, "test_accuracy": None})
    out, file = tmp_path / "m.md", tmp_path / "m.json"
    assert table("xor", out=out, json=file).exit_code == 1
    (line,) = read(file)
    assert "unreadable report" in line.failed
    assert (
        table("xor", "--render", out=out, json=file).exit_code == 0
    )  # nothing ran, nothing failed


def test_a_commit_while_a_system_runs_marks_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["abc", "def"])
    monkeypatch.setattr(model_table, "commit", lambda *_: next(commits))
    monkeypatch.setattr(model_table, "_run", lambda _: REPORT)
    assert measure(models.get("xor"), "numpy").commit == "abc-dirty"


def test_resume_skips_what_this_commit_has_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, file = tmp_path / "m.md", tmp_path / "m.json"
    monkeypatch.setattr(model_table, "commit", lambda *_: "abc")
    monkeypatch.setattr(model_table, "_run", lambda _: REPORT)
    assert table("xor", "hand", out=out, json=file).exit_code == 0
    monkeypatch.setattr(model_table, "_run", lambda _: 1 / 0)
    done = table("xor", "hand", "--resume", out=out, json=file)
    assert done.exit_code == 0
    assert "xor: measured already" in done.output
    ran = REPORT["backend"], REPORT["epochs"]
    assert "measured already" in table(
        "xor", "--resume", "--backend", ran[0], "--epochs", str(ran[1]), out=out, json=file
    ).output  # fmt: skip
    monkeypatch.setattr(model_table, "_run", lambda _: REPORT)
    for option, value in (("--backend", "cupy"), ("--epochs", str(ran[1] + 1))):
        other = table("xor", "--resume", option, value, out=out, json=file)
        assert "measured already" not in other.output
    monkeypatch.setattr(model_table, "commit", lambda *_: "def")
    monkeypatch.setattr(model_table, "_run", lambda _: REPORT)
    assert "measured already" not in table("xor", "--resume", out=out, json=file).output
    assert [line.commit for line in read(file)] == ["abc", "def"]


def test_the_table_does_not_make_its_own_tree_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*command: str) -> None:
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "bench").mkdir()
    for name in ("bench/code.py", "models.md"):
        (tmp_path / name).write_text("")
    git("init")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "c")
    monkeypatch.setattr(model_table, "__file__", str(tmp_path / "bench" / "code.py"))
    clean = model_table.commit()
    assert len(clean) == 12
    (tmp_path / "models.md").write_text("a table")
    assert model_table.commit() == f"{clean}-dirty"
    assert model_table.commit((tmp_path / "models.md",)) == clean
    (tmp_path / "bench" / "code.py").write_text("pass")
    assert model_table.commit((tmp_path / "models.md",)) == f"{clean}-dirty"


REPORT = {"test_accuracy": 1.0, "test_loss": 0.0, "backend": "numpy", "epochs": 400}


def table(*arguments: str, out: Path, json: Path) -> Any:
    """Run the command, on numpy unless the arguments say otherwise."""
    app = model_table.typer.Typer()
    app.command()(model_table.main)
    files = ["--out", str(out), "--json", str(json)]
    return CliRunner().invoke(app, ["--backend", "numpy", *files, *arguments])


def line(name: str, **changes: Any) -> Measured:
    """Return a line of the table."""
    about = Measured(
        name,
        "f",
        "made",
        "0123456789",
        1,
        "numpy",
        1,
        1.0,
        (Reached("e", "1", "<= 2"),),
        "",
        "s",
        "c",
    )
    return replace(about, **changes)


def test_lines_are_kept_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_table, "_run", lambda _: REPORT)
    file = tmp_path / "m.json"
    kept = line("hand")
    file.write_text(json.dumps([kept.as_dict(), line("no-such-system").as_dict()]))
    assert table("xor", out=tmp_path / "m.md", json=file).exit_code == 0
    assert [line.name for line in read(file)] == ["hand", "xor"]
    assert read(file)[0] == kept
    page = (tmp_path / "m.md").read_text()
    assert "| `hand` |" in page
    assert "| `xor` |" in page


def test_a_line_shows_some_figures_and_how_many_more_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_page, "FIGURES", 3)
    figures = tuple(Reached(f"|e{i}|", f"{i}", "= 0") for i in range(5))
    text = page([line("a", reached=figures, short="e4", cpu_seconds=2.5)])
    row = next(row for row in text.splitlines() if row.startswith("| `a`"))
    assert "\\|e0\\|: **0** (= 0)<br>\\|e1\\|: **1** (= 0)<br>\\|e2\\|" in row
    assert "e3" not in row
    assert "<br>2 more<br>**short: e4**" in row
    assert "| made 01234567 | numpy | 1 | 1 (2.5) |" in row
    assert "Everything was measured at commit `c`." in text
    assert "at commit" not in page([line("a"), line("b", commit="d")])


def test_trine_models_lists_what_was_measured() -> None:
    rows = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout.splitlines()[-1])
    assert [row["name"] for row in rows] == models.names()
    wanted = {"name", "family", "year", "source", "parameters", "data", "result"}
    assert all(wanted <= set(row) for row in rows)
    results = {row.name: row.result for row in read() if row.data == models.get(row.name).data_name}
    assert {row["name"]: row["result"] for row in rows if row["name"] in results} == results


def test_what_ships_is_of_systems_that_exist() -> None:
    for row in read():
        assert row.name in models.names()
        if row.parameters < 1_000_000:
            assert row.parameters == models.get(row.name).parameters
