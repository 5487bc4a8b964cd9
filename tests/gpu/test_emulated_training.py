"""Training on the cupy backend without a GPU, through the emulator: numpy's numbers, captured too."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from trine.kernels.cuda import emulator

pytestmark = pytest.mark.skipif(
    emulator.unavailable() is not None, reason="the CUDA emulator cannot run here"
)
TOLERANCE = 1e-5
"""Relative, of a float32 loss: two orders of summation, a few steps."""

EAGER_LAUNCHES = 15
"""Fewer kernels than any of these steps launches by itself."""


def test_lenet5_for_three_steps_gives_the_losses_of_numpy(cupy_backend, train):
    want = train("numpy", "lenet5", 12, 4, steps=3)
    got = train("cupy", "lenet5", 12, 4, steps=3)
    assert got.summary.steps == len(got.losses) == 3
    np.testing.assert_allclose(got.losses, want.losses, rtol=TOLERANCE)
    ours = ("conv2d", "conv2d_weight_grad", "max_pool2d_backward", "linear_backward", "adam_step")
    assert all(cupy_backend.ran[op] != "reference" for op in ours)


@pytest.mark.parametrize(
    ("system", "count", "batch"), [("lenet5", 11, 2), ("mlp", 11, 2), ("lstm", 21, 4)]
)
def test_captured_steps_are_replayed_and_give_the_bytes_of_eager_ones(
    cupy_backend, stand_in, train, system, count, batch
):
    """An epoch has five whole batches and a smaller one; the second ends after two.

    Of the whole ones two warm up, one is recorded and one compared, then there are replays; the
    smaller one runs as it stands. A replay is one launch, beside that which gathers the batch.
    """
    want = train("numpy", system, count, batch, steps=8)
    eager = train("cupy", system, count, batch, steps=8)
    captured = train("cupy", system, count, batch, "on", steps=8, machine=stand_in._streams.machine)
    np.testing.assert_allclose(eager.losses, want.losses, rtol=TOLERANCE)
    assert captured.losses.tobytes() == eager.losses.tobytes()
    assert captured.weights == eager.weights
    assert captured.summary.steps == 8
    assert (eager.summary.replayed_steps, captured.summary.replayed_steps) == (0, 1 + 2)
    assert captured.summary.data_on_device
    assert captured.launches[[3, 5, 6]].tolist() == [2, 2, 2]  # [i]: those of step i + 1, from 0
    assert captured.launches[4] > EAGER_LAUNCHES, "the last batch of the epoch"


def test_the_command_trains_captured_on_a_folder_of_ones_own(tmp_path, samples):
    """As a user would: a folder of NPZ files, in a process where the stand-in is `cupy`."""
    few = samples("lenet5", 9)  # an epoch: four whole batches of two, and one of one
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", x=few.x, y=few.y)
    reports = {}
    for backend in ("numpy", "cupy"):
        command = [
            sys.executable, "-c", "from trine.cli import main; main()", "train", "lenet5",
            "--data", tmp_path, "--backend", backend, "--capture", "on", "--epochs", 2,
            "--batch-size", 2, "--out", tmp_path / backend, "--progress", "none", "--json",
        ]  # fmt: skip
        done = subprocess.run(
            [str(part) for part in command], env=emulator.environment(), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        reports[backend] = json.loads(done.stdout.splitlines()[-1])
    numpy, cupy = reports["numpy"], reports["cupy"]
    assert (cupy["backend"], cupy["device"]) == ("cupy", "cuda:0")
    assert cupy["steps"] == numpy["steps"] == 10
    assert cupy["replayed_steps"] == 4
    assert cupy["data_on_device"]
    assert not cupy["fallbacks"]
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(cupy[name], numpy[name], rtol=10 * TOLERANCE)
