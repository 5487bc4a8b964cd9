"""A run that was stopped, killed or damaged goes on to the same bytes as an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import trine
from trine import nn, optim
from trine.errors import CheckpointError
from trine.training import Callback, StopAt, checkpoint, load_weights

FILES = ("last.safetensors", "best.safetensors", "metrics.jsonl", "config.json")
WORKER = Path(__file__).with_name("training_run.py")


def same_files(one, other, files=FILES):
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("stop", [3, 7, 11, 20])  # 7 steps an epoch: inside one and between two
def test_n_and_m_steps_are_n_plus_m(tiny, backend_name, tmp_path, optimizer, stop):
    tiny.trainer(tmp_path / "whole", optimizer).fit(*tiny.loaders(), epochs=3)
    summary = tiny.trainer(tmp_path / "parts", optimizer).fit(
        *tiny.loaders(), epochs=3, max_steps=stop
    )
    assert (summary.steps, summary.stopped) == (stop, f"max_steps={stop}")
    trine.random.default_generator().key()  # what happens between the two does not matter
    second = tiny.trainer(tmp_path / "parts", optimizer)
    summary = second.fit(*tiny.loaders(), epochs=3, resume="auto")
    assert (summary.steps, summary.epochs, summary.stopped) == (21, 3, None)
    same_files(tmp_path / "whole", tmp_path / "parts")


def test_accumulation_resumes_between_steps(tiny, tmp_path):
    tiny.trainer(tmp_path / "whole", accumulate=3).fit(*tiny.loaders(), epochs=2)
    tiny.trainer(tmp_path / "parts", accumulate=3).fit(*tiny.loaders(), epochs=2, max_steps=4)
    facts = checkpoint.load(tmp_path / "parts" / "last.safetensors")[1]
    assert (facts["epoch"], facts["batch"], facts["step"]) == (1, 3, 4)
    tiny.trainer(tmp_path / "parts", accumulate=3).fit(*tiny.loaders(), epochs=2, resume="auto")
    same_files(tmp_path / "whole", tmp_path / "parts")


def test_epochs_may_grow(tiny, tmp_path):
    tiny.trainer(tmp_path / "whole").fit(*tiny.loaders(), epochs=4)
    tiny.trainer(tmp_path / "grown").fit(*tiny.loaders(), epochs=2)
    tiny.trainer(tmp_path / "grown").fit(*tiny.loaders(), epochs=4, resume="auto")
    same_files(tmp_path / "whole", tmp_path / "grown", FILES[:3])


def test_a_finished_run_stays_as_it_is(tiny, tmp_path):
    first = tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=2)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    again = tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=2, resume="auto")
    assert before == {name: (tmp_path / name).read_bytes() for name in FILES}
    assert (again.steps, again.metrics) == (first.steps, first.metrics)


def test_what_a_callback_ended_stays_ended(tiny, tmp_path):
    stop = [StopAt("train_loss", 100.0)]
    first = tiny.trainer(tmp_path, callbacks=stop).fit(*tiny.loaders(), epochs=3)
    assert first.epochs == 1
    assert first.stopped.startswith("train_loss reached")
    again = tiny.trainer(tmp_path, callbacks=stop).fit(*tiny.loaders(), epochs=3, resume="auto")
    assert (again.epochs, again.stopped) == (1, first.stopped)
    more = tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=4, resume="auto")
    assert (more.epochs, more.stopped) == (4, None)


def test_a_run_continues_from_another_folder(tiny, tmp_path):
    tiny.trainer(tmp_path / "whole").fit(*tiny.loaders(), epochs=2)
    tiny.trainer(tmp_path / "old").fit(*tiny.loaders(), epochs=2, max_steps=10)
    old = {f.name: f.read_bytes() for f in (tmp_path / "old").iterdir()}
    new = tiny.trainer(tmp_path / "new")
    new.fit(*tiny.loaders(), epochs=2, resume=tmp_path / "old")
    same_files(tmp_path / "whole", tmp_path / "new")
    assert old == {f.name: f.read_bytes() for f in (tmp_path / "old").iterdir()}


def test_a_new_run_replaces_the_old_one(tiny, tmp_path):
    tiny.trainer(tmp_path / "a").fit(*tiny.loaders(), epochs=2)
    tiny.trainer(tmp_path / "b").fit(*tiny.loaders(), epochs=3)
    tiny.trainer(tmp_path / "b").fit(*tiny.loaders(), epochs=2)
    same_files(tmp_path / "a", tmp_path / "b")


def test_timing_is_apart_from_metrics(tiny, tmp_path):
    tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=2)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert set(rows[0]) == {
        "epoch", "step", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
        "gradient_norm",
    }  # fmt: skip
    times = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert all(row["seconds"] > 0 for row in times)


# What does not fit


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"accumulate": 2}, r"trainer.accumulate 1, got 2"),
        ({"clip_norm": 1.0}, r"trainer.clip_norm None, got 1.0"),
        ({"optimizer": "momentum"}, r"trainer.optimizer 'Adam', got 'SGD'"),
        ({"config": {"data": "digits"}}, r"data 'made', got 'digits'"),
        ({"seed": 6}, r"trainer.seed 5, got 6"),
    ],
)
def test_another_configuration_is_refused(tiny, tmp_path, change, named):
    tiny.trainer(tmp_path, config={"data": "made"}).fit(*tiny.loaders(), epochs=1)
    other = tiny.trainer(tmp_path, **{"config": {"data": "made"}, **change})
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=rf"\[resume\] expected the run's .*{named}"):
        other.fit(*tiny.loaders(), epochs=2, resume="auto")
    assert before == {f.name: f.read_bytes() for f in tmp_path.iterdir()}


def test_another_batch_size_is_refused(tiny, tmp_path):
    tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=1)
    with pytest.raises(CheckpointError, match=r"trainer.batch_size 8, got 4"):
        tiny.trainer(tmp_path).fit(*tiny.loaders(4), epochs=2, resume="auto")


def test_another_model_is_refused_untouched(tiny, tmp_path):
    tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=1)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    before = net[0].weight.detach().numpy().copy()
    with pytest.raises(CheckpointError, match=r"the model of the run .* \(9 difference"):
        tiny.trainer(tmp_path, net=net).fit(*tiny.loaders(), epochs=2, resume="auto")
    np.testing.assert_array_equal(net[0].weight.detach().numpy(), before)


def test_metrics_that_were_cut_are_missed(tiny, tmp_path):
    tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=2)
    os.truncate(tmp_path / "metrics.jsonl", 10)
    with pytest.raises(CheckpointError, match=r"metrics.jsonl.* found 10\. Restore"):
        tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=3, resume="auto")


# Damaged files


def damage(file, how):
    content = file.read_bytes()
    if how == "flipped":
        place = len(content) * 3 // 4
        content = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
    file.write_bytes({"flipped": content, "cut": content[:-40], "empty": b""}[how])


@pytest.mark.parametrize("how", ["flipped", "cut", "empty"])
def test_a_damaged_last_falls_back_to_the_previous(tiny, tmp_path, caplog, how):
    tiny.trainer(tmp_path / "whole").fit(*tiny.loaders(), epochs=3)
    tiny.trainer(tmp_path / "hurt").fit(*tiny.loaders(), epochs=3)
    damage(tmp_path / "hurt" / "last.safetensors", how)
    caplog.clear()
    tiny.trainer(tmp_path / "hurt").fit(*tiny.loaders(), epochs=3, resume="auto")
    assert "last.safetensors" in caplog.text
    assert "Going on from" in caplog.text
    assert "step 14" in caplog.text
    same_files(tmp_path / "whole", tmp_path / "hurt")


def test_two_damaged_files_name_both_and_the_remedy(tiny, tmp_path):
    tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=2)
    damage(tmp_path / "last.safetensors", "cut")
    damage(tmp_path / "previous.safetensors", "flipped")
    with pytest.raises(
        CheckpointError, match=r"last\.safetensors.*previous\.safetensors.*Start anew"
    ):
        tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=3, resume="auto")


def test_best_is_no_state_of_a_run(tiny, tmp_path):
    tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=1)
    (tmp_path / "best.safetensors").replace(tmp_path / "last.safetensors")
    with pytest.raises(CheckpointError, match="kind 'best'"):
        tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=2, resume="auto")


def test_load_weights_prefers_the_best(tiny, tmp_path):
    run = tiny.trainer(tmp_path, restore_best=True, mode="max")  # the worst loss: an early epoch
    run.fit(*tiny.loaders(), epochs=3)
    net = tiny.model()
    load_weights(net, tmp_path)
    for name, value in run.model.state_dict().items():
        np.testing.assert_array_equal(net.state_dict()[name].numpy(), value.numpy(), err_msg=name)
    last = checkpoint.part(checkpoint.load(tmp_path / "last.safetensors")[0], "model.")
    assert not np.array_equal(last["0.weight"], net[0].weight.detach().numpy())


def test_load_weights_says_what_does_not_fit(tiny, tmp_path):
    with pytest.raises(CheckpointError, match="found none"):
        load_weights(tiny.model(), tmp_path)
    tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=1)
    with pytest.raises(CheckpointError, match=r"\[load_weights\].*best\.safetensors.*unexpected"):
        load_weights(nn.Sequential(nn.Linear(4, 3)), tmp_path)


# Kills and signals


def start(out, seconds=0.004, backend="numpy"):
    process = subprocess.Popen(
        [sys.executable, str(WORKER), str(out), backend, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line == "training\n", process.stderr.read()
    return process


@pytest.mark.slow
def test_killed_at_random_moments(tiny, tmp_path):
    with trine.use("numpy"):
        whole = tiny.trainer(tmp_path / "whole", checkpoint_every=2)
        whole.fit(*tiny.loaders(), epochs=tiny.EPOCHS)
    rng = random.Random(os.environ.get("TRINE_KILL_SEED", "0"))
    out = tmp_path / "killed"
    killed = 0
    for _ in range(int(os.environ.get("TRINE_KILLS", "3"))):
        process = start(out, 0.02)
        try:
            process.wait(timeout=rng.uniform(0.0, 0.35))
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        process.communicate()
        if process.returncode == 0:  # it was through before the kill; the next one starts anew
            same_files(tmp_path / "whole", out)
            for file in out.iterdir():
                file.unlink()
    assert killed
    process = start(out, 0.0)
    assert process.wait(timeout=60) == 0, process.communicate()
    process.communicate()
    same_files(tmp_path / "whole", out)


def test_sigterm_stops_a_process_and_saves(tmp_path):
    process = start(tmp_path, 0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert "SIGTERM" in process.communicate()[1]
    assert checkpoint.load(tmp_path / "last.safetensors")[1]["step"] < 28


class Raise(Callback):
    """Sends this process a signal: after a step, or when a chosen forward pass has run."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_step_end(self, trainer):
        if trainer.step == self.step:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_training_saves_and_stops(tiny, backend_name, tmp_path, capfd, number):
    tiny.trainer(tmp_path / "whole").fit(*tiny.loaders(), epochs=2)
    before = signal.getsignal(number)
    stopped = tiny.trainer(tmp_path / "parts", callbacks=[Raise(number, 10)], progress="auto").fit(
        *tiny.loaders(), epochs=2
    )
    assert signal.getsignal(number) is before
    assert (stopped.steps, stopped.interrupted, stopped.stopped) == (10, True, number.name)
    told = capfd.readouterr()
    assert "--resume auto" in told.err
    assert str(tmp_path / "parts") in told.err
    assert told.out == ""
    tiny.trainer(tmp_path / "parts").fit(*tiny.loaders(), epochs=2, resume="auto")
    same_files(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_an_evaluation_saves_and_stops(tiny, backend_name, tmp_path, number):
    tiny.trainer(tmp_path / "whole").fit(*tiny.loaders(), epochs=2)
    run = tiny.trainer(tmp_path / "parts")
    evaluated = []

    def hook(module, args, output):
        if not module.training:
            evaluated.append(1)
            if len(evaluated) == 2:  # the second of four batches
                signal.raise_signal(number)

    run.model.register_forward_hook(hook)
    stopped = run.fit(*tiny.loaders(), epochs=2)
    assert len(evaluated) == 2
    assert (stopped.steps, stopped.epochs, stopped.interrupted) == (7, 0, True)
    tiny.trainer(tmp_path / "parts").fit(*tiny.loaders(), epochs=2, resume="auto")
    same_files(tmp_path / "whole", tmp_path / "parts")


def test_the_second_ctrl_c_quits_at_once(tiny, tmp_path):
    steps = []

    class Twice(Callback):
        def on_step_end(self, trainer):
            steps.append(trainer.step)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        tiny.trainer(tmp_path, callbacks=[Twice()]).fit(*tiny.loaders(), epochs=2)
    assert steps == [1]
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_another_thread_installs_no_handler(tiny):
    seen = []

    class Look(Callback):
        def on_step_end(self, trainer):
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    run = tiny.trainer(callbacks=[Look()])
    thread = threading.Thread(target=lambda: run.fit(*tiny.loaders(), epochs=1))
    thread.start()
    thread.join()
    assert len(seen) == 7
    assert set(seen) == {before}


def test_optimizer_state_comes_back(tiny, tmp_path):
    """Byte-equal files could hide a state that is neither saved nor used: look at it."""
    tiny.trainer(tmp_path).fit(*tiny.loaders(), epochs=1, max_steps=3)
    arrays, facts = checkpoint.load(tmp_path / "last.safetensors")
    moments = {n: a for n, a in arrays.items() if n.startswith("optimizer.")}
    assert {n.split(".")[-1] for n in moments} == {"exp_avg", "exp_avg_sq", "steps"}
    assert all(a.any() for a in moments.values())
    assert facts["random"]["counter"] == 3  # one dropout mask a step
    assert facts["sums"]["loss"][1] == 24
    fresh = tiny.trainer(tmp_path)
    fresh.fit(*tiny.loaders(), epochs=1, resume="auto", max_steps=3)
    now = fresh.optimizer.state_dict()["arrays"]
    for name, array in now.items():
        np.testing.assert_array_equal(array, moments[f"optimizer.{name}"])
    assert isinstance(fresh.optimizer, optim.Adam)
