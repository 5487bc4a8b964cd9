"""The commands for a GPU, run dry through the emulator, and the parts that need none."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trine import nn
from trine.backends import cases, get_backend
from trine.backends.op import OPS
from trine.bench.gpu import judged, kernels, nets, pages, sanitize, shapes, steps
from trine.bench.gpu.session import chosen, titled
from trine.bench.gpu.small import small_samples
from trine.bench.steps import initial_weights, make_train
from trine.kernels import registry
from trine.kernels.cuda import emulator

ROOT = Path(__file__).parents[2]
needs_emulator = pytest.mark.skipif(
    emulator.unavailable() is not None, reason="the CUDA emulator cannot run here"
)


def dry(command, folder, *options):
    """Run a command dry; return what it wrote."""
    words = [sys.executable, "-m", f"trine.bench.gpu.{command}", "--dry-run", "--out", folder]
    done = subprocess.run(
        [*map(str, words), *options], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"gpu-{command}.dry-run.json", f"gpu-{command}.dry-run.md"]
    page = (folder / names[1]).read_text()
    assert "DRY RUN: no GPU" in page
    assert "not come to its end" not in page
    value = json.loads((folder / names[0]).read_text())
    assert value["dry_run"]
    assert value["finished"]
    assert value["environment"]["gpu"]["name"] == "Trine's emulator (no GPU)"
    assert set(value["environment"]) >= {"commit", "python", "packages"}
    return value["tables"], page


@needs_emulator
def test_kernels(tmp_path):
    tables, _ = dry("kernels", tmp_path)
    torch = importlib.util.find_spec("torch") is not None
    for precision in registry.PRECISIONS:
        layers = tables[titled(kernels.T2, precision)]
        rows = tables[titled(kernels.T1, precision)] + layers
        assert [row["op"] for row in layers if row["default"]] == list(shapes.CONV)
        assert {row["op"] for row in rows} == {*shapes.DRY_OPS[precision], *shapes.CONV}
        assert all(row["right"] and row["us"] > 0 for row in rows)
        own = [row for row in rows if row["kernel"].endswith(f"_{precision}")]
        if precision == "fp32":
            assert not any(row["kernel"].endswith(("_tf32", "_bf16")) for row in rows)
            assert all(row["error"] < 1e-5 for row in rows)
        else:
            assert {row["op"] for row in own} == {"matmul", *shapes.CONV}
            assert all(judged.GOOD["fp32"] < row["error"] < judged.GOOD[precision] for row in own)
        if torch and precision != "tf32":  # a CPU has none
            limits = (0, 1e-5) if precision == "fp32" else (1e-5, 1e-2)
            assert all(limits[0] <= row["error torch"] <= limits[1] for row in rows)
    if torch:
        assert [row["fast_0"] for row in tables[kernels.T6]] == [1] * 6


@needs_emulator
def test_steps(tmp_path):
    tables, page = dry("steps", tmp_path)
    for precision in registry.PRECISIONS:
        rows = tables[titled(steps.T3, precision)]
        assert {row["form"] for row in rows} >= {"trine eager", "trine graph"}
        assert all(row["right"] and row["us"] > 0 for row in rows), rows
        ours = [row["error"] for row in rows if row["form"] in steps.HOWS]
        assert min(ours) > 1e-5 if precision != "fp32" else max(ours) < 1e-5
    assert {row["net"] for row in tables[steps.T3]} == set(nets.DRY_NETS)
    assert len(tables["T5: launch overheads"]) >= 6
    assert "T3: " not in page.split("## T5")[1], "a form of a step failed"


@needs_emulator
def test_sanitize(tmp_path):
    tables, _ = dry("sanitize", tmp_path)
    (row,) = tables["Sanitizers"]
    assert row["well"]
    assert row["ops"] == len(sanitize.DRY_OPS.split(","))


@needs_emulator
def test_tests(tmp_path):
    """A few of the tests for a GPU; the others differ in op and system only."""
    words = "(lstm and bytes_of_eager) or (float64 and [softmax])"
    tables, page = dry("tests", tmp_path, "-k", words)
    rows = tables["Tests"]
    assert len(rows) == 2
    assert {row["outcome"] for row in rows} == {"passed"}
    assert "2 of 2 tests, 0 failed." in page


@needs_emulator
def test_the_emulator_is_not_taken_for_a_gpu(tmp_path):
    """With the stand-in on the path but not dry: an error, and no file."""
    done = subprocess.run(
        [sys.executable, "-m", "trine.bench.gpu.kernels", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=emulator.environment(),
    )  # fmt: skip
    assert done.returncode != 0
    assert "expected a GPU, but `cupy` is" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("precision", "theirs", "limit"),
    [
        ("fp32", None, 1e-5), ("fp32", 1e-7, 1e-5), ("fp32", 2e-5, 4e-5), ("fp32", 1e-3, 1e-4),
        ("tf32", None, 4e-3), ("tf32", 1e-4, 1e-3), ("tf32", 1e-3, 2e-3), ("tf32", 1, 4e-3),
        ("bf16", 1e-3, 1e-2), ("bf16", 1e-2, 2e-2), ("bf16", 1, 3.2e-2),
    ],
)  # fmt: skip
def test_ours_may_be_twice_as_wrong_as_pytorch_within_bounds(precision, theirs, limit):
    assert judged.allowed("matmul", precision, theirs) == pytest.approx(limit)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_precision_has_the_ops_with_kernels_of_it(cupy_backend, precision):
    """All of them: in table T1, or by layers in T2."""
    with_kernels = {k.op for k in registry.all_kernels() if k.precision == precision}
    timed = shapes.ops(False, precision)
    assert {"matmul", "linear", "lstm"} <= set(timed) < set(shapes.ops(False))
    assert with_kernels == {*timed, *shapes.CONV}
    stage = kernels.Stage(kernels.T2, precision, 1)
    assert len(kernels.works(stage, False)) == 3 * sum(map(len, shapes.LAYERS.values()))


def test_every_table_has_a_part_of_the_time():
    found = {(stage.title, stage.precision) for stage in kernels.STAGES}
    assert found == {(t, p) for t in (kernels.T1, kernels.T2) for p in registry.PRECISIONS}
    assert all(stage.part > 0 for stage in kernels.STAGES)
    assert set(steps.SHARES) == set(registry.PRECISIONS)


def test_precisions_are_asked_for_by_name():
    assert chosen(None) == registry.PRECISIONS
    assert chosen(["bf16"]) == ("bf16",)
    with pytest.raises(ValueError, match=r"\[--precision\] expected a known precision, got 'tf23'"):
        chosen(["tf23"])


@needs_emulator
def test_one_precision_alone_and_what_had_no_time(tmp_path):
    """A tenth of a minute is over before the last op; those that are left are named."""
    tables, page = dry("kernels", tmp_path, "--precision", "tf32", "--minutes", "0.1")
    assert set(tables) - {kernels.T6} <= {
        "Floors", titled(kernels.T1, "tf32"), titled(kernels.T2, "tf32")
    }  # fmt: skip
    done = {row["op"] for title in tables for row in tables[title] if "op" in row}
    wanted = {*shapes.DRY_OPS["tf32"], *shapes.CONV}
    left = set(re.findall(r"\w+", " ".join(re.findall("no time for (.*)", page))))
    assert wanted - done == wanted & left


def test_rows_become_a_table():
    rows = [{"a": 1.23456, "b": "x|y"}, {"a": 12345.6, "c": 1e-7, "b": None}]
    assert pages.table(rows) == [
        "| a | b | c |", "|---|---|---|", "| 1.23 | x\\|y |  |", "| 12,346 |  | 1.0e-07 |",
    ]  # fmt: skip


def test_what_the_sanitizers_say_is_read():
    said = [
        "========= COMPUTE-SANITIZER",
        '{"op": "relu", "samples": 4, "failed": []}',
        '{"op": "sum", "samples": 4, "failed": ["sum on cupy: wrong"]}',
        '{"op": "nms", "left_out": true}',
        "========= ERROR SUMMARY: 2 errors",
    ]
    assert sanitize.read(said) == {
        "ops": 2, "left_out": ["nms"], "wrong": ["sum on cupy: wrong"], "errors": 2,
    }  # fmt: skip
    races = ["========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"]
    assert sanitize.read(races)["errors"] == 1
    assert sanitize.read([])["errors"] is None, "a tool that did not run found nothing"


@pytest.mark.parametrize(
    ("mine", "found"),
    [
        ([1.0, 2.0], 0), ([1.0, 2.0 + 1e-6], 4.5e-7), ([0.0, 0.0], 1), ([np.nan, 2.0], np.inf),
        ([1.0], np.inf),
    ],
)  # fmt: skip
def test_errors_are_relative_to_the_size_of_the_result(mine, found):
    wanted = [np.array([1.0, 2.0])]
    assert judged.error([np.array(mine)], wanted) == pytest.approx(found, rel=0.01)
    assert judged.error([np.array([1, 3])], [np.array([1, 2])]) == np.inf


def test_every_shape_that_is_timed_can_be_drawn():
    """But the largest: those are made on the machine that times them."""
    for found in shapes.LAYERS.values():
        for layer in found.values():
            assert min(layer.out_size) > 0
    assert set(shapes.EXTRA) <= set(OPS)
    assert set(shapes.CONV).isdisjoint(shapes.ops(False))
    for op in ("layer_norm", "matmul"):
        for draw in list(shapes.EXTRA[op].values())[-1:]:
            arrays, attrs = draw(np.random.default_rng(0), np.dtype("float32")) if op == "matmul" else (
                (np.ones((2, 3), "f"), np.ones(3, "f"), np.ones(3, "f")), {"eps": 1e-5}
            )  # fmt: skip
            getattr(get_backend("numpy"), op)(*arrays, **attrs)
    assert all(small_samples(cases.get(op), "float32", 1) for op in shapes.ops(False))


@pytest.mark.parametrize("name", ["mlp", "lenet5"])
def test_the_nets_of_table_t3_train(name):
    net = nets.NETS[name]
    step = make_train(net, 2, "numpy", "float64", initial_weights(net, 0), 0)
    first = step().item()
    for _ in range(3):
        last = step().item()
    assert np.isfinite(last)
    assert last < first


def test_resnet20_has_the_layers_of_the_paper():
    """19 convolutions of 3x3 and a full layer; two shortcuts of 1x1 where the width doubles."""
    model = nets.NETS["resnet20"].build(nn)
    filters = [p.shape for p in model.parameters() if p.ndim == 4]
    assert sum(shape[2:] == (3, 3) for shape in filters) == 19
    assert sum(shape[2:] == (1, 1) for shape in filters) == 2
    assert sum(p.numel() for p in model.parameters()) == 272_474
