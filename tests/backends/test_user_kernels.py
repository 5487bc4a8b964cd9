"""A user's file with a kernel and a differentiable op: checked, timed, trained with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"

OWN_OP = '''
import trine
from trine import nn
from trine.backends.cases import OpCase, Sample, register
from trine.kernels import kernel


def swish(b, x, *, beta: float = 1.0):
    """x * sigmoid(beta x)."""
    return x * b.sigmoid(x * x.dtype.type(beta))


def swish_backward(b, grad_out, x, out, *, beta: float = 1.0):
    beta = x.dtype.type(beta)
    gate = b.sigmoid(x * beta)
    return grad_out * (gate + beta * out * (1 - gate))


apply_swish = trine.define_op(swish, swish_backward)


def samples(rng, dtype):
    return [Sample(f"{s}", (rng.normal(size=s).astype(dtype),), {"beta": 1.5})
            for s in ((), (33,), (4, 5, 6))]


def timing(rng, dtype):
    return [Sample("typical", (rng.normal(size=10_000).astype(dtype),), {"beta": 1.5})]


register(OpCase("swish", samples, "elementwise", timing))


@kernel("swish", backend="numba", name="loop")
def swish_loop(x, beta, out):
    flat, result = x.reshape(-1), out.reshape(-1)
    for i in range(flat.size):
        result[i] = flat[i] / (1 + math.exp(-beta * flat[i]))
'''


def trine_command(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "from trine.cli import main; main()", *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def readme_kernel(tmp_path_factory):
    """The kernel that the README shows, as a file."""
    blocks = re.findall(r"```python\n(# mine\.py.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 1
    file = tmp_path_factory.mktemp("user") / "mine.py"
    file.write_text(blocks[0])
    return file


def test_the_readme_kernel_is_right(readme_kernel):
    done = trine_command(
        "check", "max_pool2d", "--backend", "numba", "--kernel-file", readme_kernel
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"max_pool2d\W+numba\W+mine", done.stdout)


def test_the_readme_kernel_is_timed(readme_kernel, tmp_path):
    file = tmp_path / "bench.json"
    done = trine_command(
        "bench", "max_pool2d", "--backend", "numba", "--kernel-file", readme_kernel,
        "--shape", "tiny", "--seconds", 0.02, "--json", file,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    mine = [r for r in json.loads(file.read_text())["results"] if r["kernel"] == "mine"]
    assert len(mine) == 1
    assert all(r["median"] > 0 and r["error"] is None for r in mine)


def test_training_with_the_readme_kernel_gives_the_same_numbers(readme_kernel, tmp_path):
    """Same seed with and without it: the losses agree, and the user's kernel was the one that ran."""
    losses = []
    for extra in ((), ("--kernel-file", readme_kernel, "--kernel", "max_pool2d=mine")):
        done = trine_command(
            "train", "lenet5", "--backend", "numba", "--epochs", 1, "--progress", "none",
            "--out", tmp_path / f"r{len(losses)}", "--json", *extra,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        losses.append(json.loads(done.stdout.splitlines()[-1])["train_loss"])
    assert losses[0] == losses[1]
    assert "max_pool2d on numba (mine)" in done.stderr


def test_a_wrong_kernel_fails_with_its_worst_element_and_gets_no_time(readme_kernel, tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(readme_kernel.read_text().replace("value > best", "value < best"))
    done = trine_command("check", "max_pool2d", "--backend", "numba", "--kernel-file", wrong)
    assert done.returncode == 1
    assert re.search(r"FAILED max_pool2d on numba \(mine, float32\).*element \(", done.stdout)
    timed = trine_command(
        "bench", "max_pool2d", "--backend", "numba", "--kernel-file", wrong, "--shape", "tiny",
        "--seconds", 0.02,
        "--json", tmp_path / "b.json",
    )  # fmt: skip
    assert timed.returncode == 1
    rows = [
        r for r in json.loads((tmp_path / "b.json").read_text())["results"] if r["kernel"] == "mine"
    ]
    assert all(r["median"] is None and r["error"] for r in rows)


def test_an_op_of_ones_own(tmp_path):
    """Forward, backward, case and kernel in one file: check, bench, gradcheck and training."""
    file = tmp_path / "swish.py"
    file.write_text("import math\n" + OWN_OP)
    done = trine_command("check", "swish", "--kernel-file", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"swish\W+numba\W+loop", done.stdout)
    done = trine_command("bench", "swish", "--kernel-file", file, "--seconds", 0.02)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loop" in done.stdout
    code = f"""
import numpy as np, sys
import trine
import trine.functional as F
from trine import nn, optim
from trine.kernels import load_file
load_file({str(file)!r})
apply_swish = sys.modules["trine_user_kernels_swish"].apply_swish
x = trine.tensor(np.random.default_rng(0).normal(size=(4, 3)), requires_grad=True, backend="numba")
trine.gradcheck(lambda t: apply_swish(t, beta=1.5), [x])
trine.use("numba")
trine.seed(0)
first, second = nn.Linear(2, 8), nn.Linear(8, 2)
optimizer = optim.Adam([*first.parameters(), *second.parameters()], lr=0.05)
x, y = trine.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), trine.tensor([0, 1, 1, 0])
for _ in range(200):
    optimizer.zero_grad()
    loss = F.cross_entropy(second(apply_swish(first(x), beta=1.5)), y)
    loss.backward()
    optimizer.step()
assert float(loss) < 0.05, float(loss)
assert trine.get_backend("numba").ran["swish"] == "loop"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_documented_op_runs():
    """docs/own-op.md shows code that works."""
    text = (README.parent / "docs" / "own-op.md").read_text()
    block = re.findall(r"```python\n(# swish\.py.*?)```", text, flags=re.DOTALL)[0]
    code = block + (
        "\nimport numpy as np\n"
        "x = trine.tensor(np.linspace(-2, 2, 5), requires_grad=True, backend='numpy')\n"
        "trine.gradcheck(apply_swish, [x])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
