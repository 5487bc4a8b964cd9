"""The loop: what a step does, what is averaged, when it ends, and what it says when it breaks down."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import Trainer, nn, optim
from trine.backends.base import Backend
from trine.backends.dispatch import FallbackWarning
from trine.backends.op import OPS
from trine.data import ArrayDataset, DataLoader
from trine.errors import BackendError, DivergenceError
from trine.training import Callback, accuracy, checkpoint


def weights(trainer):
    return {k: v.numpy().copy() for k, v in trainer.model.state_dict().items()}


def same(one, other):
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def plain(tiny, out=None, lr=0.1, double=False, **options):
    """A linear model under gradient descent, whose steps can be written out."""
    trine.seed(1)
    net = nn.Linear(4, 3)
    if double:
        net.to(dtype="float64")
    options = {"progress": "none", **options}
    return Trainer(net, optim.SGD(net.parameters(), lr=lr), out=out, **options)


def by_hand(w, b, x, y, lr):
    """One step of softmax regression in NumPy; returns weights, bias, mean loss and hits."""
    z = x @ w.T + b
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(y))
    loss, hits = -np.log(p[rows, y]).mean(), (z.argmax(1) == y).sum()
    p[rows, y] -= 1
    return w - lr * p.T @ x / len(y), b - lr * p.mean(0), loss, hits


def test_an_epoch_equals_the_equations(tiny, backend_name):
    run = plain(tiny, double=True)
    w, b = (weights(run)[k] for k in ("weight", "bias"))
    loader, test = tiny.loaders()
    loss = hits = 0.0
    for x, y, _ in loader.epoch(0):
        w, b, mean, right = by_hand(w, b, x.astype(np.float64), y, 0.1)
        loss, hits = loss + mean * len(y), hits + right  # the last batch has 2 samples, not 8
    summary = run.fit(loader, test, epochs=1)
    np.testing.assert_allclose(weights(run)["weight"], w, rtol=1e-12)
    np.testing.assert_allclose(weights(run)["bias"], b, rtol=1e-12)
    assert summary.train_loss == pytest.approx(loss / 50, rel=1e-12)
    assert summary.metrics["train_accuracy"] == hits / 50
    z = test.dataset.x.astype(np.float64) @ w.T + b
    assert summary.test_accuracy == (z.argmax(1) == test.dataset.y).mean()
    assert run.evaluate(test)["loss"] == pytest.approx(summary.test_loss, rel=1e-12)


def test_accumulation_equals_the_big_batch(tiny, backend_name):
    one, many = plain(tiny, double=True), plain(tiny, double=True, accumulate=4)
    a = one.fit(DataLoader(tiny.dataset(), 32, shuffle=True), epochs=2)
    b = many.fit(DataLoader(tiny.dataset(), 8, shuffle=True), epochs=2)
    assert a.steps == b.steps == 4  # 32 samples, and 18 as 8 + 8 + 2
    for name, value in weights(one).items():
        np.testing.assert_allclose(weights(many)[name], value, rtol=1e-13, err_msg=name)
    assert a.train_loss == pytest.approx(b.train_loss, rel=1e-13)


def test_accumulation_of_sums(tiny):
    def loss(output, target):
        return F.cross_entropy(output, target, reduction="sum")

    options = {"loss": loss, "loss_reduction": "sum", "double": True, "lr": 0.01}
    one, many = plain(tiny, **options), plain(tiny, accumulate=2, **options)
    a = one.fit(DataLoader(tiny.dataset(), 10), epochs=1)
    b = many.fit(DataLoader(tiny.dataset(), 5), epochs=1)
    np.testing.assert_allclose(weights(many)["weight"], weights(one)["weight"], rtol=1e-13)
    assert a.train_loss == pytest.approx(b.train_loss, rel=1e-13)
    assert a.train_loss < 3  # a mean over samples


def test_clipping_bounds_the_step(tiny, backend_name):
    run = plain(tiny, lr=1.0, clip_norm=1e-3)
    before = weights(run)
    run.fit(DataLoader(tiny.dataset(), 50), epochs=1)
    moved = math.sqrt(sum(float(((v - before[k]) ** 2).sum()) for k, v in weights(run).items()))
    assert moved == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("interval", "rates"), [("step", [0.1, 0.2, 0.4, 0.8]), ("epoch", [0.1, 0.1, 0.2, 0.2])]
)
def test_the_schedule_is_a_function_of_the_step_or_epoch(tiny, interval, rates):
    seen = []

    class Look(Callback):
        def on_step_end(self, trainer):
            seen.append(trainer.optimizer.param_groups[0]["lr"])

    schedule = optim.LambdaLR(0.1, lambda t: 2.0**t, interval=interval)
    run = plain(tiny, lr=9.0, schedule=schedule, callbacks=[Look()])
    run.fit(DataLoader(tiny.dataset(), 25), epochs=2)
    assert seen == pytest.approx(rates)


def test_evaluation_leaves_randomness_and_mode_alone(tiny, backend_name):
    """Training with and without a test set is the same training, even if evaluation draws."""

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = tiny.model(batch_norm=False)

        def forward(self, x):
            trine.random.default_generator().key()
            return self.body(x)

    runs = []
    for test in (None, tiny.loaders()[1]):
        trine.seed(11)
        runs.append(tiny.trainer(net=Noisy()))
        runs[-1].fit(tiny.loaders()[0], test, epochs=2)
        assert runs[-1].model.training
    same(weights(runs[0]), weights(runs[1]))


def test_the_seed_of_a_run_decides(tiny):
    a, b, c, d = (tiny.trainer(seed=s) for s in (5, 5, 6, None))
    for run in (a, b, c):
        trine.random.default_generator().key()
        run.fit(*tiny.loaders(), epochs=1)
    same(weights(a), weights(b))
    assert not np.array_equal(weights(a)["0.weight"], weights(c)["0.weight"])
    trine.seed(77)
    d.fit(*tiny.loaders(), epochs=1)
    assert trine.random.default_generator().state()["seed"] == 77


def test_callbacks_come_in_order(tiny):
    calls = []

    class Spy(Callback):
        def on_train_start(self, trainer):
            calls.append("start")

        def on_step_end(self, trainer):
            calls.append(f"step {trainer.step}")

        def on_evaluate(self, trainer, metrics):
            calls.append(f"evaluate {sorted(metrics)}")

        def on_epoch_end(self, trainer, metrics):
            calls.append(f"epoch {sorted(metrics)}")

        def on_train_end(self, trainer):
            calls.append("end")

    loaders = DataLoader(tiny.dataset(), 25), DataLoader(tiny.dataset(), 25)
    plain(tiny, callbacks=[Spy()]).fit(*loaders, epochs=1)
    assert calls == [
        "start",
        "step 1",
        "step 2",
        "evaluate ['accuracy', 'loss']",
        "epoch ['test_accuracy', 'test_loss', 'train_accuracy', 'train_loss']",
        "end",
    ]


# Early stopping and best weights


class Script(Callback):
    """Makes the evaluations come out as written."""

    def __init__(self, losses):
        self.losses = losses
        self.weights = []

    def on_evaluate(self, trainer, metrics):
        metrics["loss"] = self.losses[trainer.epoch]
        self.weights.append(weights(trainer))


@pytest.mark.parametrize(
    ("losses", "options", "epochs", "best"),
    [
        ([3, 2, 2.5, 2.4, 1, 0], {"patience": 2}, 4, 2),
        ([3, 2, 2.5, 1.9, 2, 2], {"patience": 2}, 6, 4),
        ([3, 2.95, 2.91, 0, 0, 0], {"patience": 2, "min_delta": 0.1}, 3, 1),
        ([math.nan, math.nan, 1, 1, 1, 1], {"patience": 3}, 6, 3),
        ([math.nan, math.nan, 1, 1, 1, 1], {"patience": 2}, 2, None),
        ([2, math.nan, 1, math.inf, 3, 0.5], {}, 6, 6),
        ([1, 2, 3, 3, 3, 3], {"mode": "max", "patience": 3}, 6, 3),
    ],
)
def test_early_stopping(tiny, losses, options, epochs, best):
    script = Script(losses)
    run = plain(tiny, callbacks=[script], restore_best=True, **options)
    loaders = DataLoader(tiny.dataset(), 25), DataLoader(tiny.dataset(), 25)
    summary = run.fit(*loaders, epochs=6)
    assert (summary.epochs, summary.best_epoch) == (epochs, best)
    assert (summary.stopped is None) == (epochs == 6)
    if best is not None:
        assert summary.best == summary.test_loss == losses[best - 1]
        same(weights(run), script.weights[best - 1])


def test_patience_survives_a_resume(tiny, tmp_path):
    losses = [1, 2, 3, 4, 5, 6]
    loaders = DataLoader(tiny.dataset(), 25), DataLoader(tiny.dataset(), 25)
    for epochs in (2, 6):
        run = plain(tiny, tmp_path, callbacks=[Script(losses)], patience=3)
        summary = run.fit(*loaders, epochs=epochs, resume="auto")
    assert (summary.epochs, summary.best_epoch) == (4, 1)
    assert "test_loss" in summary.stopped


def test_best_weights_come_back_even_after_an_error(tiny):
    class Fail(Callback):
        def on_step_end(self, trainer):
            if trainer.epoch == 2:
                raise RuntimeError("on purpose")

    script = Script([1, 2, 3])
    run = plain(tiny, callbacks=[script, Fail()], restore_best=True)
    with pytest.raises(RuntimeError, match="on purpose"):
        run.fit(*tiny.loaders(), epochs=3)
    same(weights(run), script.weights[0])


def test_the_monitor_must_exist_and_have_a_direction(tiny):
    with pytest.raises(ValueError, match=r"\[Trainer\] expected monitor among train_loss"):
        plain(tiny, patience=1).fit(tiny.loaders()[0], epochs=1)
    with pytest.raises(ValueError, match=r"\[monitor\] expected mode 'min' or 'max' for 'test_f1'"):
        plain(tiny, monitor="test_f1")
    with pytest.raises(ValueError, match="patience"):
        plain(tiny, patience=0)


# Numbers that are not finite


class Steps(Callback):
    """Notes the steps that were done."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, trainer):
        self.seen.append(trainer.step)


def test_nan_in_the_data_names_the_layer_and_touches_nothing(tiny, backend_name, tmp_path):
    data = tiny.dataset()
    data.x[17, 2] = np.nan
    loader = DataLoader(data, 8, shuffle=True, seed=3)
    bad = int(np.flatnonzero(loader.order(0) == 17)[0]) // 8
    clean = plain(tiny)
    clean.fit(loader, epochs=1, max_steps=bad)
    run = plain(tiny, tmp_path, callbacks=[Steps()])
    with pytest.raises(DivergenceError) as caught:
        run.fit(loader, epochs=1)
    assert run.callbacks[0].seen == list(range(1, bad + 1))  # on the CPU each step is checked
    text = str(caught.value)
    assert f"step {bad + 1} (epoch 1)" in text
    assert "the input batch, and so in the output of layer model (Linear)" in text
    assert "was not applied" in text
    assert "--lr" in text
    same(weights(run), weights(clean))
    arrays, facts = checkpoint.load(tmp_path / checkpoint.SNAPSHOT)
    assert 17 in arrays["batch.0.indices"]
    assert np.isnan(arrays["batch.0.x"]).sum() == 1
    same(checkpoint.part(arrays, "model."), weights(clean))
    assert facts["step"] == bad


class Break(nn.Module):
    """Turns finite numbers into Inf."""

    def forward(self, x):
        return (x * 0 + 100.0).exp()


def root_loss(output, target):
    """Finite at 0, where its gradient is not."""
    return (output * 0.0).abs().sqrt().sum()


def infinite_loss(output, target):
    """Infinite with the gradient 0: a constant is added."""
    return output.sum() * 0.0 + math.inf


@pytest.mark.parametrize(
    ("build", "loss", "place"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), Break(), nn.Linear(4, 3)), None,
         r"the output of layer 1 \(Break\)"),
        (lambda: nn.Sequential(nn.Linear(4, 3)), root_loss, r"the gradient of 0\.bias"),
        (lambda: nn.Sequential(nn.Linear(4, 3)), infinite_loss, "the loss, all layers being finite"),
    ],
)  # fmt: skip
def test_the_first_place_is_named(tiny, backend_name, build, loss, place):
    net = build()
    before = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    run = tiny.trainer(net=net, loss=loss)
    with pytest.raises(DivergenceError, match=place):
        run.fit(*tiny.loaders(), epochs=1)
    same(before, weights(run))
    assert run.step == 0


def test_the_second_part_of_an_accumulated_step_is_found(tiny):
    data = tiny.dataset()
    data.x[10] = np.inf
    run = plain(tiny, accumulate=3)
    before = weights(run)
    with pytest.raises(DivergenceError, match="step 1 "):
        run.fit(DataLoader(data, 8), epochs=1)
    same(before, weights(run))


@pytest.fixture
def device(cupy_backend):
    """The cupy backend over the stand-in, which refuses to be read on the host in passing."""
    with trine.use("cupy") as backend:
        yield backend


def test_a_device_is_read_rarely_and_nan_still_changes_nothing(tiny, device, tmp_path):
    data = tiny.dataset(160)
    data.x[12] = np.nan  # the second of 20 batches
    loader = DataLoader(data, 8)
    clean = plain(tiny, log_every=5)
    clean.fit(loader, epochs=1, max_steps=1)
    expected = weights(clean)
    run = plain(tiny, tmp_path, log_every=5)
    with pytest.raises(DivergenceError, match=r"step 2 \(epoch 1\).*the input batch"):
        run.fit(loader, epochs=1)
    same(expected, weights(run))  # later steps were suppressed on the device
    assert 12 in checkpoint.load(tmp_path / checkpoint.SNAPSHOT)[0]["batch.0.indices"]


def test_no_checkpoint_is_written_over_a_bad_step(tiny, device, tmp_path):
    data = tiny.dataset(160)
    data.x[12] = np.nan
    run = plain(tiny, tmp_path, log_every=100, checkpoint_every=4)
    with pytest.raises(DivergenceError, match="step 2 "):
        run.fit(DataLoader(data, 8), epochs=1)
    assert not (tmp_path / checkpoint.LAST).exists()


def test_a_device_is_read_once_in_log_every_steps(tiny, device):
    run = plain(tiny, log_every=10)
    loader = DataLoader(tiny.dataset(160), 8)
    run.fit(loader, epochs=1)
    device.counters.reset()
    run.fit(loader, epochs=1)
    looks = 2  # 20 steps
    means = 3  # of loss, accuracy and norm, at the end of the epoch: for results and for the norm
    assert device.counters.syncs == looks + 2 * means


# Memory, strictness, arguments


def fill_memory(self, *args, **kwargs):
    raise MemoryError


def test_out_of_memory_names_the_batch_and_the_tensors(tiny, backend_name, monkeypatch):
    run = plain(tiny)
    monkeypatch.setattr(nn.Linear, "forward", fill_memory)
    monkeypatch.setattr(Backend, "memory_report", lambda self: "Largest live arrays: some.")
    with pytest.raises(BackendError, match=r"batches of 8 samples .* below 8.*arrays: some"):
        run.fit(*tiny.loaders(), epochs=1)


def test_an_allocator_out_of_memory_names_the_batch_too(tiny, monkeypatch):
    def empty(*args, **kwargs):
        raise MemoryError

    allocator = trine.default_backend().allocator
    monkeypatch.setattr(allocator, "_lend", empty)
    data = ArrayDataset(np.ones((200, 4), np.float32), np.zeros(200, np.int64), 3)
    net = nn.Linear(4, 50)
    monkeypatch.setattr(allocator, "pooled_bytes", 20_000)
    run = Trainer(net, optim.SGD(net.parameters(), lr=0.1), progress="none")
    with pytest.raises(BackendError, match=r"batches of 150 samples.*for an array \(150, 50\)"):
        run.fit(DataLoader(data, 150), epochs=1)


def test_strict_makes_a_fallback_an_error_and_else_it_is_counted(tiny, monkeypatch):
    with trine.use("numba") as backend:
        backend.counters.reset()
        for launcher in backend.launchers(OPS["cross_entropy"]):
            monkeypatch.setattr(launcher, "supports", lambda **call: False)
        with pytest.raises(BackendError, match="strict"):
            plain(tiny, strict=True).fit(*tiny.loaders(), epochs=1)
        assert not backend.strict
        with pytest.warns(FallbackWarning):
            plain(tiny).fit(*tiny.loaders(), epochs=1)
        summary = plain(tiny).fit(*tiny.loaders(), epochs=1)  # counts its own only
        (reason,) = summary.fallbacks
        assert reason.startswith("cross_entropy: ")
        assert summary.fallbacks[reason] == 7 + 4  # steps, and batches of the evaluation
        backend.counters.reset()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate >= 1, got 0"),
        ({"checkpoint_every": -1}, "checkpoint_every >= 1, got -1"),
        ({"clip_norm": 0.0}, "clip_norm > 0, got 0.0"),
        ({"loss_reduction": "none"}, "known loss_reduction"),
        ({"metrics": ("acuracy",)}, "Did you mean 'accuracy'"),
    ],
)
def test_wrong_arguments(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        plain(tiny, **options)


def test_a_loss_that_is_no_scalar(tiny):
    def loss(output, target):
        return F.cross_entropy(output, target, reduction="none")

    with pytest.raises(ValueError, match=r"loss as a scalar tensor, got \(8,\)"):
        plain(tiny, loss=loss).fit(*tiny.loaders(), epochs=1)


def test_accuracy_counts_hits():
    scores = trine.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 2.0], [0.0, 0.0, 1.0]])
    hits, count = accuracy(scores, trine.tensor([1, 1, 2]))
    assert (hits.item(), count) == (2, 3)
    rows = trine.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    hits, count = accuracy(scores, rows)
    assert (hits.item(), count) == (2, 3)
    hits, count = accuracy(trine.tensor([[0.9], [0.2]]), trine.tensor([[1.0], [1.0]]))
    assert (hits.item(), count) == (1, 2)


def test_summary_and_metrics_agree(tiny, tmp_path):
    summary = plain(tiny, tmp_path).fit(*tiny.loaders(), epochs=2)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["test_loss"] == summary.test_loss
    assert row["step"] == summary.steps == 14
    assert summary.seconds > 0
    assert summary.samples_per_second > 0
    assert summary.fallbacks == {}
