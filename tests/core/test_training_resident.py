"""Data sets that stay on the device: copied once, the same batches as from the host."""

from __future__ import annotations

import numpy as np
import pytest

import trine
from trine import nn, optim
from trine.data import ArrayDataset, DataLoader
from trine.errors import BackendError, DivergenceError
from trine.kernels.cuda import emulator
from trine.training import Callback, Trainer
from trine.training.checkpoint import SNAPSHOT, load

pytestmark = pytest.mark.skipif(
    emulator.unavailable() is not None, reason="the CUDA emulator cannot run here"
)
SAMPLES, BATCH, EPOCHS = 21, 8, 3


def dataset(seed=0):
    """Return samples in float64, which a float32 model gets in float32."""
    rng = np.random.default_rng(seed)
    return ArrayDataset(rng.normal(size=(SAMPLES, 2, 3)), rng.integers(0, 3, SAMPLES), 3, "made")


def run(backend, choice, loader=None, test_loader=None, **options):
    """Train a layer; return the trainer, the summary, uploads and the weights."""
    with trine.use(backend):
        trine.seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
        engine = trine.backends.get_backend(backend)
    trainer = Trainer(
        model, optim.SGD(model.parameters(), lr=0.1), progress="none", data_on_device=choice,
        strict=True, **options,
    )  # fmt: skip
    loader = loader or DataLoader(dataset(), BATCH, shuffle=True)
    engine.counters.reset()
    summary = trainer.fit(loader, test_loader, epochs=EPOCHS)
    weights = {k: v.detach().numpy().tobytes() for k, v in model.state_dict().items()}
    return trainer, summary, engine.counters.uploads, weights


def test_the_same_training_with_fewer_copies(cupy_backend):
    """Off: samples and targets of each batch. On: of each data set, and the order of its samples."""
    test_loader = DataLoader(dataset(1), BATCH)
    _, off, copied, want = run("cupy", "off", test_loader=test_loader)
    for choice in ("auto", "on"):
        _, on, there, got = run("cupy", choice, test_loader=test_loader)
        assert got == want
        assert on.metrics == off.metrics
        assert (off.data_on_device, on.data_on_device) == (False, True)
        batches = 2 * 3 * EPOCHS
        assert copied - there == 2 * batches - (2 * 2 + EPOCHS + 1)


def test_batches_have_the_bytes_of_the_host(cupy_backend):
    seen = {}

    class Batches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            found.append(x.detach().numpy().copy())
            return self.layer(x.reshape(len(x), 6))

    for backend, choice in (("numpy", "auto"), ("cupy", "off"), ("cupy", "on")):
        found = []
        with trine.use(backend):
            model = Batches()
        loader = DataLoader(dataset(), BATCH, shuffle=True, seed=4)
        trainer = Trainer(
            model, optim.SGD(model.parameters()), progress="none", data_on_device=choice
        )
        trainer.fit(loader, epochs=2)
        seen[backend, choice] = found
    first, *others = seen.values()
    assert [len(x) for x in first] == [8, 8, 5] * 2
    for other in others:
        assert [x.dtype for x in other] == [np.float32] * 6
        assert [x.tobytes() for x in other] == [x.tobytes() for x in first]


def test_what_does_not_fit_is_copied_batch_by_batch(cupy_backend, monkeypatch):
    _, _, copied, want = run("cupy", "off")
    needed = dataset().x.size * 4 + SAMPLES * 8
    monkeypatch.setattr(cupy_backend, "free_memory", lambda: 4 * needed - 1, raising=False)
    _, summary, uploads, got = run("cupy", "auto")
    assert (summary.data_on_device, uploads, got) == (False, copied, want)
    with pytest.raises(BackendError, match=r"\[Trainer\] expected .* more than a quarter of the"):
        run("cupy", "on")
    monkeypatch.setattr(cupy_backend, "free_memory", lambda: 4 * needed)
    assert run("cupy", "on")[1].data_on_device


def test_loaders_that_make_their_batches_themselves_do_so(cupy_backend):
    def negative(sample, index, epoch, seed):
        return -sample

    class Own(DataLoader):
        pass

    for loader in (DataLoader(dataset(), BATCH, transform=negative), Own(dataset(), BATCH)):
        assert not run("cupy", "auto", loader)[1].data_on_device
        with pytest.raises(BackendError, match=r"transforms samples|in its own way"):
            run("cupy", "on", loader)


def test_other_samples_given_to_a_data_set_are_seen(cupy_backend):
    class Swap(Callback):
        def on_epoch_end(self, trainer, metrics):
            loader.dataset.x = -loader.dataset.x

    results = []
    for choice in ("off", "on"):
        loader = DataLoader(dataset(), BATCH, shuffle=True)
        results.append(run("cupy", choice, loader, callbacks=[Swap()])[3])
    assert results[0] == results[1]
    assert results[0] != run("cupy", "on")[3]


def test_a_bad_sample_is_found_and_saved(cupy_backend, tmp_path):
    made = dataset()
    made.x[3] = np.nan  # the data set itself would refuse it
    with pytest.raises(DivergenceError, match="the input batch"):
        run("cupy", "on", DataLoader(made, BATCH), out=tmp_path)
    arrays, _ = load(tmp_path / SNAPSHOT)
    np.testing.assert_array_equal(arrays["batch.0.x"], made.x[:BATCH].astype(np.float32))
    np.testing.assert_array_equal(arrays["batch.0.indices"], np.arange(BATCH))


def test_memory_is_given_back_at_the_end(cupy_backend, stand_in):
    pool = stand_in.get_default_memory_pool()
    trainer, *_ = run("cupy", "on")
    held = pool.used_bytes()
    trainer.evaluate(DataLoader(dataset(1), BATCH))
    assert pool.used_bytes() > held, "kept for the next evaluation"
    trainer.fit(DataLoader(dataset(), BATCH), epochs=1)
    assert pool.used_bytes() <= held


@pytest.mark.parametrize("choice", ["auto", "on"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_on_the_cpu_nothing_changes(backend, choice):
    want = run(backend, "off")
    got = run(backend, choice)
    assert got[2:] == want[2:]
    assert not got[1].data_on_device


def test_an_unknown_choice_is_an_error():
    with pytest.raises(ValueError, match=r"\[Trainer\] expected a known data_on_device"):
        run("numpy", "yes")
