"""The command line: every command that --help shows runs and reports as DESIGN promises."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import trine
from trine.cli import output
from trine.cli.app import app

RUNNER = CliRunner()
COMMANDS = [
    "train", "predict", "models", "data", "explain", "compare", "gradcheck", "graph", "check",
    "bench", "profile", "doctor", "warmup", "cache", "version",
]  # fmt: skip


def invoke(*arguments, code=0):
    result = RUNNER.invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def last_json(result):
    return json.loads(result.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of the smallest trainable network on digits."""
    out = tmp_path_factory.mktemp("run") / "mlp"
    result = invoke(
        "train",
        "mlp",
        "--backend",
        "numpy",
        "--epochs",
        1,
        "--out",
        out,
        "--progress",
        "none",
        "--json",
    )
    return out, last_json(result)


def test_help_shows_exactly_what_works():
    text = invoke("--help").stdout
    for command in COMMANDS:
        assert f" {command} " in text, command
        assert "--help" in invoke(command, "--help").stdout


def test_train_reports_and_leaves_a_run(run):
    out, report = run
    expected = {
        "model", "data", "backend", "device", "dtype", "seed", "epochs", "steps", "train_loss",
        "test_loss", "test_accuracy", "seconds", "samples_per_second", "compile_seconds", "out",
    }  # fmt: skip
    assert expected <= set(report)
    assert (report["model"], report["data"], report["backend"]) == ("mlp", "digits", "numpy")
    assert report["steps"] == 45
    assert report["test_accuracy"] > 0.5
    assert {"config.json", "metrics.jsonl", "timing.jsonl", "last.safetensors"} <= {
        p.name for p in out.iterdir()
    }
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 1
    assert not any("second" in key for key in metrics[0])


def test_train_takes_its_options(tmp_path):
    result = invoke(
        "train", "mlp", "--backend", "numpy", "--epochs", 1, "--batch-size", 128, "--lr", 0.05,
        "--optimizer", "sgd", "--seed", 3, "--dtype", "float64", "--out", tmp_path / "r",
        "--progress", "none", "--json",
    )  # fmt: skip
    report = last_json(result)
    assert (report["dtype"], report["seed"], report["steps"]) == ("float64", 3, 12)
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert (config["optimizer"], config["lr"], config["batch_size"]) == ("sgd", 0.05, 128)


def test_resume_continues(run, tmp_path):
    out = tmp_path / "r"
    arguments = ("train", "mlp", "--backend", "numpy", "--out", out, "--progress", "none", "--json")
    invoke(*arguments, "--epochs", 1)
    report = last_json(invoke(*arguments, "--epochs", 2, "--resume", "auto"))
    assert (report["epochs"], report["steps"]) == (2, 90)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "lenet"), "Did you mean 'lenet5'"),
        (("train", "mlp", "--data", "nothing-like-it"), "expected a known data set"),
        (("train", "single-neuron"), "expected a system that trains"),
        (("train", "mlp", "--kernel", "conv2d"), "expected OP=NAME"),
        (("train", "mlp", "--kernel", "conv=x"), "expected a known op"),
        (("train", "mlp", "--optimizer", "adan"), "Did you mean 'adam'"),
        (("train", "mlp", "--kernel-file", "/nowhere.py"), "found no file"),
        (("predict", "/nowhere", "digits:0"), "expected the folder of a training run"),
        (("explain", "hopfield"), "expected a system that learns by gradients"),
        (("explain", "lenet"), "Did you mean 'lenet5'"),
        (("explain", "hand", "--sample", "1"), "expected a sample of the lesson, below 1"),
        (("explain", "pca", "--step", "3"), "expected an example that is trained in steps"),
        (("explain", "xor", "--html", "/nowhere/page.html"), "/nowhere"),
        (("compare", "mlp", "--backends", "numpy"), "expected two backends"),
        (("check", "conv3d"), "expected a known op"),
        (("check", "--backend", "cuda"), "expected a known backend"),
        (("bench", "relu", "--shape", "huge"), "expected a known shape"),
        (("bench", "--model", "lenet"), "Did you mean 'lenet5'"),
        (("bench", "--vs", "caffe"), "expected a known peer"),
        (("bench", "--compare", "/a.json", "/b.json"), "found no file"),
        (("profile", "lenet"), "Did you mean 'lenet5'"),
        (
            ("train", "mlp", "--backend", "numba", "--precision", "tf32"),
            "[precision] expected fp32 on numba, got tf32",
        ),
        (
            ("train", "mlp", "--backend", "numpy", "--precision", "bf16", "--dtype", "float64"),
            "[precision] expected fp32 with float64, got bf16",
        ),
    ],
)
def test_wrong_use_is_one_line(arguments, message):
    done = subprocess.run(
        [sys.executable, "-c", "from trine.cli import main; main()", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_explicit_backend_never_falls_back(tmp_path):
    if trine.available()["cupy"].ok:
        pytest.skip("this machine has a GPU")
    done = subprocess.run(
        [sys.executable, "-c", "from trine.cli import main; main()", "train", "mlp", "--backend", "cupy",
         "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "cupy backend" in errors[0]
    assert "To mend it" in errors[0]


def test_auto_says_what_it_took(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from trine.cli import main; main()", "train", "mlp", "--epochs", "1",
         "--out", str(tmp_path), "--progress", "none"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "backend: " in done.stderr


def test_predict(run, tmp_path):
    out, _ = run
    rows = last_json(invoke("predict", out, "digits:0", "digits:7", "--backend", "numpy", "--json"))
    assert [r["input"] for r in rows] == ["digits:0", "digits:7"]
    assert all(0 <= r["class"] <= 9 and 0 < r["probability"] <= 1 for r in rows)
    splits = trine.data.load("digits")
    np.save(tmp_path / "two.npy", splits.test.x[:2])
    more = last_json(invoke("predict", out, tmp_path / "two.npy", "--backend", "numpy", "--json"))
    assert more[0]["class"] == rows[0]["class"]
    assert len(more) == 2


def test_predict_writes_on_by_seed_and_refuses_what_classifies_nothing(tmp_path):
    novel = "It was a fine day. She went to the house of her friend, and stayed there. " * 60
    (tmp_path / "novel.txt").write_text(novel)
    train = ("--backend", "numpy", "--epochs", 1, "--progress", "none", "--out")
    invoke("train", "char-rnn", "--data", tmp_path / "novel.txt", *train, tmp_path / "r")
    asked = ("predict", tmp_path / "r", "She went", "--backend", "numpy")
    texts = [last_json(invoke(*asked, "--seed", seed, "--json"))[0]["text"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("She went") and len(text) == 8 + 300 for text in texts)
    assert "She went" in invoke(*asked).stdout
    invoke("train", "linear-regression", *train, tmp_path / "l")
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    refused = RUNNER.invoke(app, ["predict", str(tmp_path / "l"), str(tmp_path / "x.npy")])
    assert "linear-regression gives (2, 1) numbers, no classes" in str(refused.exception)


def test_models_lists_all():
    rows = last_json(invoke("models", "--json"))
    assert {"name", "family", "parameters", "data"} <= set(rows[0])
    by_name = {row["name"]: row for row in rows}
    assert by_name["lenet5"]["parameters"] == 61706
    assert {"hand", "xor", "lstm", "two-digit", "little-demon", "cnn-003", "mlp"} <= set(by_name)
    assert "lenet5" in invoke("models").stdout


def test_data_lists_sets():
    rows = last_json(invoke("data", "--json"))
    assert {r["name"] for r in rows} >= {"digits", "mnist", "fashion-mnist"}


def test_explain_prints_and_writes(tmp_path):
    page = tmp_path / "hand.html"
    result = invoke("explain", "hand", "--step", 1, "--backend", "numpy", "--html", page)
    assert "0.298371109" in result.stdout
    assert page.read_text().startswith("<!doctype html>")
    assert last_json(invoke("explain", "hand", "--backend", "numpy", "--json"))["ok"]
    assert "hand" in invoke("explain", "--list").stdout


def test_tables_are_not_cut_at_eighty_columns(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(output, "console", Console(file=screen, width=80))
    invoke("explain", "--list")
    words = set(re.findall(r"[\w,-]+", screen.getvalue()))
    for row in last_json(invoke("explain", "--list", "--json")):
        for text in row.values():
            assert set(re.findall(r"[\w,-]+", text)) <= words


def test_explain_a_run(run):
    out, _ = run
    result = invoke("explain", out, "--sample", 2, "--backend", "numpy")
    assert "mlp" in result.stdout


def test_compare_agrees():
    result = last_json(invoke("compare", "mlp", "--json"))
    assert result["agree"]


def test_gradcheck():
    result = last_json(invoke("gradcheck", "little-demon", "--json"))
    assert result["ok"], result


def test_graph_shows_the_recorded_ops():
    nodes = last_json(invoke("graph", "mlp", "--json"))
    ops = [n["op"] for n in nodes]
    assert "linear" in ops
    assert ops[-1] == "cross_entropy"
    assert invoke("graph", "mlp", "--dot").stdout.startswith("digraph {")


def test_graph_is_drawn(tmp_path):
    file = tmp_path / "lenet5.svg"
    nodes = last_json(invoke("graph", "lenet5", "--svg", str(file), "--json"))
    drawing = ElementTree.parse(file).getroot()
    tags = [element.tag.rpartition("}")[2] for element in drawing.iter()]
    assert tags.count("rect") == len(nodes)
    assert tags.count("line") == sum(isinstance(i, int) for n in nodes for i in n["inputs"])
    boxes = [element.text for element in drawing.iter() if element.tag.endswith("}text")]
    assert boxes[::2] == [node["op"] for node in nodes]
    leaves = [g[0].text for g in drawing if g.tag.endswith("}g")]
    assert "0.weight, 0.bias" in leaves[0]


def test_check_and_bench_one_op(tmp_path):
    counts = last_json(invoke("check", "relu", "--json"))
    assert counts["passed"] > 0
    assert counts["failed"] == 0
    file = tmp_path / "bench.json"
    invoke(
        "bench", "relu", "--backend", "numpy", "--shape", "tiny", "--seconds", 0.02, "--json", file
    )
    assert json.loads(file.read_text())["results"]


def test_bench_writes_a_page_and_compares(tmp_path):
    old, page = tmp_path / "old.json", tmp_path / "page.html"
    invoke(
        "bench", "relu", "--backend", "numpy", "--shape", "tiny", "--seconds", 0.02, "--json", old,
        "--html", page,
    )  # fmt: skip
    assert "<title>trine bench: 1 rows</title>" in page.read_text()
    assert "0 faster, 0 slower, 1 same" in invoke("bench", "--compare", old, old).stdout
    value = json.loads(old.read_text())
    row = value["results"][0]
    for name in ("median", "p10", "p90"):
        row[name] *= 10
    row["rounds"] = [10 * t for t in row["rounds"]]
    new = tmp_path / "new.json"
    new.write_text(json.dumps(value))
    assert "1 slower" in invoke("bench", "--compare", old, new, code=1).stdout


def test_a_kernel_file_stands_in_the_same_table(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import numpy as np\n"
        "from trine.kernels import kernel\n"
        "@kernel('sigmoid', backend='numpy', name='from-a-file')\n"
        "def sigmoid(x, out):\n"
        "    out[...] = 0.5 * (1 + np.tanh(0.5 * x))\n"
    )
    code = (
        "from trine.cli.app import app\n"
        "app(['bench', 'sigmoid', '--backend', 'numpy', '--shape', 'tiny', '--seconds', '0.02',"
        f" '--kernel-file', {str(mine)!r}], standalone_mode=False)\n"
    )  # a process of its own: the kernel would stay in this one's registry
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from-a-file" in done.stdout
    assert "reference" in done.stdout


def test_bench_pins_the_allocator_of_its_process(tmp_path):
    file = tmp_path / "bench.json"
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "TRINE_BENCH"))}
    code = "from trine.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "bench", "relu", "--backend", "numpy", "--shape", "tiny",
         "--seconds", "0.02", "--json", str(file)],
        capture_output=True, text=True, check=False, env=environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    malloc = json.loads(file.read_text())["environment"]["malloc"]
    assert malloc["pinned"] == sys.platform.startswith("linux")


def test_profile_shows_a_step(tmp_path):
    trace = tmp_path / "trace.json"
    arguments = ("profile", "mlp", "--backend", "numpy", "--steps", 2, "--batch-size", 8)
    report = last_json(invoke(*arguments, "--trace", trace, "--json"))
    assert (report["model"], report["backend"], report["steps"]) == ("mlp", "numpy", 2)
    rows = {(r["phase"], r["op"]): r for r in report["rows"]}
    assert rows["forward", "linear"]["calls"] == 4
    assert {"backward", "forward", "update"} == {r["phase"] for r in report["rows"]}
    assert report["seconds"] > report["outside_ops"] > 0
    names = {e["name"] for e in json.loads(trace.read_text())["traceEvents"]}
    assert {"forward", "linear", "adam_step"} <= names
    assert "outside of ops" in invoke(*arguments).stdout


def test_doctor_and_matrix():
    report = last_json(invoke("doctor", "--json"))
    assert report["backends"]["numpy"]["usable"]
    assert "conv2d" in invoke("doctor", "--ops").stdout


def test_warmup_and_cache_clear(tmp_path):
    environment = {**os.environ, "TRINE_CACHE_DIR": str(tmp_path)}
    code = (
        "from trine.cli.app import app\n"
        "app(['warmup', 'hand'], standalone_mode=False)\n"
        "app(['cache', 'clear'], standalone_mode=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stdout
    assert not list(Path(tmp_path).rglob("*.nbi"))


def test_version():
    assert invoke("version").stdout.strip() == trine.__version__


def test_completion_completes_systems():
    from trine.cli.app import complete_op, complete_system

    assert complete_system("len") == ["lenet5", "lenet5-1998"]
    assert "conv2d" in complete_op("conv")
