"""Wrong calls, each with its message: the same kind of error and the same words on every backend."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import BackendError, CheckpointError, DataError, DivergenceError, GraphError, nn, optim
from trine.data import ArrayDataset, DataLoader, load
from trine.kernels import kernel, load_file, prefer
from trine.training import Trainer, checkpoint


def t(*shape, dtype="float32"):
    return trine.zeros(*shape, dtype=dtype)


def labels(*values):
    return trine.tensor(list(values))


CALLS = {
    # shapes
    "linear-weight": (
        lambda: F.linear(t(64, 784), t(128, 28)),
        ValueError,
        r"\[linear\] expected weight \(out, 784\) to match input \(64, 784\), got \(128, 28\)",
    ),
    "linear-bias": (
        lambda: F.linear(t(2, 3), t(4, 3), t(3)),
        ValueError,
        r"\[linear\] expected bias of shape \(4,\)",
    ),
    "conv-rank": (
        lambda: F.conv2d(t(3, 8, 8), t(4, 3, 3, 3)),
        ValueError,
        r"\[conv2d\] expected input \(N, C, H, W\), got shape \(3, 8, 8\)",
    ),
    "conv-channels": (
        lambda: F.conv2d(t(1, 3, 8, 8), t(4, 2, 3, 3)),
        ValueError,
        r"\[conv2d\] expected weight \(K, 3/1, R, S\)",
    ),
    "conv-kernel-too-large": (
        lambda: F.conv2d(t(1, 1, 4, 4), t(1, 1, 5, 5)),
        ValueError,
        r"\[conv2d\] expected a kernel that fits the padded height 4, got 5",
    ),
    "conv-stride": (
        lambda: F.conv2d(t(1, 1, 4, 4), t(1, 1, 3, 3), stride=0),
        ValueError,
        r"\[conv2d\] expected stride as an int >= 1",
    ),
    "conv-padding-word": (
        lambda: F.conv2d(t(1, 1, 4, 4), t(1, 1, 3, 3), padding="some"),
        ValueError,
        r'\[conv2d\] expected padding as numbers, "valid" or "same", got \'some\'',
    ),
    "conv-groups": (
        lambda: F.conv2d(t(1, 4, 4, 4), t(3, 2, 3, 3), groups=2),
        ValueError,
        r"\[conv2d\] expected weight \(K, 4/2, R, S\), K a multiple of 2",
    ),
    "transposed-output-padding": (
        lambda: F.conv_transpose2d(t(1, 2, 4, 4), t(2, 1, 3, 3), output_padding=1),
        ValueError,
        r"\[conv_transpose2d\] expected output_padding below stride or dilation",
    ),
    "pool-padding": (
        lambda: F.max_pool2d(t(1, 1, 4, 4), 2, padding=2),
        ValueError,
        r"\[max_pool2d\] expected padding of at most half the kernel",
    ),
    "pool-window": (
        lambda: F.avg_pool2d(t(1, 1, 3, 3), 4),
        ValueError,
        r"\[avg_pool2d\] expected a window that fits the padded height 3, got 4",
    ),
    "loss-shapes": (
        lambda: F.mse_loss(t(4, 1), t(4)),
        ValueError,
        r"\[mse_loss\] expected target of the shape of input, \(4, 1\), got \(4,\)",
    ),
    "add-shapes": (
        lambda: t(3) + t(4),
        ValueError,
        r"\[add\] expected shapes that broadcast, got \(3,\) and \(4,\)",
    ),
    "matmul-shapes": (
        lambda: t(2, 3) @ t(2, 3),
        ValueError,
        r"\[matmul\] expected inner sizes to agree",
    ),
    "reshape": (
        lambda: t(6).reshape(4, -1),
        ValueError,
        r"\[reshape\] expected a shape of 6 elements",
    ),
    "batch-norm-one-value": (
        lambda: nn.BatchNorm2d(2)(t(1, 2, 1, 1)),
        ValueError,
        r"\[batch_norm\] expected",
    ),
    "layer-norm-shape": (
        lambda: F.layer_norm(t(2, 5), (4,)),
        ValueError,
        r"\[layer_norm\] expected",
    ),
    "group-norm-groups": (
        lambda: F.group_norm(t(2, 5, 3), 2),
        ValueError,
        r"\[group_norm\] expected",
    ),
    # labels
    "label-too-large": (
        lambda: F.cross_entropy(t(2, 3), labels(0, 3)),
        ValueError,
        r"\[cross_entropy\] expected .*3",
    ),
    "label-negative": (
        lambda: F.cross_entropy(t(2, 3), labels(0, -1)),
        ValueError,
        r"\[cross_entropy\] expected .*-1",
    ),
    "label-count": (
        lambda: F.cross_entropy(t(2, 3), labels(0, 1, 2)),
        ValueError,
        r"\[cross_entropy\] expected",
    ),
    "embedding-index": (
        lambda: F.embedding(labels(0, 9), t(4, 2)),
        ValueError,
        r"\[embedding\] expected .*9",
    ),
    # dtypes and kinds
    "conv-integers": (
        lambda: F.conv2d(t(1, 1, 4, 4, dtype="int64"), t(1, 1, 3, 3)),
        TypeError,
        r"\[conv2d\] expected input of dtype float32 or float64, got int64",
    ),
    "mixed-dtypes": (
        lambda: F.linear(t(2, 3), t(4, 3, dtype="float64")),
        TypeError,
        r"\[linear\] expected weight of dtype float32 to match input, got float64",
    ),
    "numpy-array": (
        lambda: t(2) * np.ones(2),
        TypeError,
        r"\[mul\] expected a tensor or a number, got ndarray",
    ),
    "integer-gradient": (
        lambda: t(2, dtype="int64").requires_grad_(),
        TypeError,
        r"\[requires_grad_\] expected float32 or float64, got int64",
    ),
    "unknown-dtype": (lambda: t(2, dtype="bfloat16"), TypeError, r"\[dtype\] expected one of"),
    "text-data": (lambda: trine.tensor(["a"]), TypeError, r"\[(asarray|dtype)\] expected"),
    "dropout-p": (lambda: F.dropout(t(2), p=1.5), ValueError, r"\[dropout\] expected"),
    "unknown-activation": (
        lambda: F.linear(t(1, 2), t(1, 2), activation="rely"),
        ValueError,
        r"\[linear\] expected a known activation, got 'rely'. Did you mean 'relu'\?",
    ),
    # autograd
    "backward-of-constant": (
        lambda: t(1).backward(),
        GraphError,
        r"\[backward\] expected a tensor that",
    ),
    "backward-of-many": (
        lambda: (t(2).requires_grad_() * 2).backward(),
        ValueError,
        r"\[backward\] expected a scalar, got shape \(2,\)",
    ),
    "in-place-leaf": (
        lambda: t(2).requires_grad_().add_(1),
        GraphError,
        r"\[add_\] expected a tensor that may be changed in place",
    ),
    "numpy-of-graph": (lambda: t(2).requires_grad_().numpy(), GraphError, r"\[numpy\] expected"),
    "second-derivative-of-fused": (
        lambda: trine.grad(
            F.max_pool2d(t(1, 1, 2, 2).requires_grad_(), 2).sum(), [], create_graph=True
        ),
        GraphError,
        r"\[max_pool2d\] expected an op that can be differentiated twice",
    ),
    # modules and optimisers
    "state-dict": (
        lambda: nn.Linear(2, 3).load_state_dict({"weight": np.zeros((3, 3), np.float32)}),
        ValueError,
        r"(?s)weight.*bias|bias.*weight",
    ),
    "no-parameters": (lambda: optim.SGD([], lr=0.1), ValueError, r"\[SGD\] expected at least one"),
    "learning-rate": (
        lambda: optim.Adam(nn.Linear(1, 1).parameters(), lr=-1),
        ValueError,
        r"expected a learning rate >= 0, got -1",
    ),
    "batch-size": (
        lambda: DataLoader(ArrayDataset(np.zeros((2, 1)), np.zeros(2)), 0),
        ValueError,
        r"\[DataLoader\] expected batch_size as an int >= 1, got 0",
    ),
    # data
    "nan-in-data": (
        lambda: ArrayDataset(np.array([[1.0], [np.nan]]), np.array([0, 1])),
        DataError,
        r"expected finite samples, got nan at \(1, 0\)",
    ),
    "label-out-of-range": (
        lambda: ArrayDataset(np.zeros((2, 1)), np.array([0, 12]), 10),
        DataError,
        r"expected labels from 0 to 9, got 12 at sample 1",
    ),
    "lengths-differ": (
        lambda: ArrayDataset(np.zeros((3, 1)), np.zeros(2, int), 2),
        DataError,
        r"expected as many targets as samples, got 3 samples and 2 targets",
    ),
    "unknown-data": (lambda: load("digit"), ValueError, r"Did you mean 'digits'\?"),
    # names
    "unknown-model": (
        lambda: trine.models.get("lenet"),
        ValueError,
        r"expected a known system, got 'lenet'. Did you mean 'lenet5'\?",
    ),
    "unknown-backend": (lambda: trine.use("nunpy"), ValueError, r"Did you mean 'numpy'\?"),
    "unknown-kernel": (
        lambda: prefer("conv2d", "winogard"),
        ValueError,
        r"\[prefer\] expected a known kernel of conv2d, got 'winogard'",
    ),
    "kernel-backend": (
        lambda: kernel("relu", backend="gpu", name="x")(lambda x, out: None),
        ValueError,
        r"\[kernel\] expected a known backend, got 'gpu'",
    ),
    "kernel-file": (
        lambda: load_file("/nowhere/mine.py"),
        FileNotFoundError,
        r"\[kernel-file\] expected a Python file with kernels, found no file",
    ),
    "seed": (lambda: trine.seed(-1), ValueError, r"\[random\] expected seed from 0 to 2\^64 - 1"),
}


def test_there_are_at_least_forty():
    assert len(CALLS) >= 40


@pytest.mark.parametrize("name", CALLS)
def test_wrong_call(backend_name, name):
    call, error, message = CALLS[name]
    with pytest.raises(error, match=message) as caught:
        call()
    text = str(caught.value)
    assert re.match(r"\[[\w./-]+\] ", text), text  # [op] first
    if error in (ValueError, TypeError):
        assert type(caught.value) in (ValueError, TypeError, DataError)


@pytest.mark.parametrize("name", CALLS)
def test_the_words_are_the_same_on_every_backend(name):
    texts = set()
    for backend in ("numpy", "numba"):
        with trine.use(backend), pytest.raises(CALLS[name][1]) as caught:
            CALLS[name][0]()
        texts.add(f"{type(caught.value).__name__}: {caught.value}")
    assert len(texts) == 1, texts


def test_backend_without_a_device():
    result = trine.available()["cupy"]
    if result.ok:
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match=re.escape(result.reason)):
        trine.tensor([1.0], backend="cupy")


# Files and folders


def small_run(out, **options):
    rng = np.random.default_rng(0)
    data = ArrayDataset(rng.normal(size=(12, 3)).astype(np.float32), np.arange(12) % 2, 2)
    model = nn.Linear(3, 2)
    trainer = Trainer(
        model, optim.SGD(model.parameters(), lr=0.1), out=out, progress="none", **options
    )
    return trainer, DataLoader(data, 4)


def test_corrupt_checkpoints(backend_name, tmp_path):
    trainer, loader = small_run(tmp_path)
    trainer.fit(loader, epochs=2)
    last, previous = tmp_path / checkpoint.LAST, tmp_path / checkpoint.PREVIOUS
    content = bytearray(last.read_bytes())
    content[-3] ^= 1
    last.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        checkpoint.load(last)
    previous.write_bytes(previous.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(previous)
    with pytest.raises(CheckpointError, match=r"expected a readable checkpoint"):
        small_run(tmp_path)[0].fit(loader, epochs=3, resume="auto")


def test_a_checkpoint_of_another_run(tmp_path):
    trainer, loader = small_run(tmp_path, config={"lr": 0.1})
    trainer.fit(loader, epochs=1)
    with pytest.raises(CheckpointError, match=r"\[resume\] expected the run's lr 0.1, got 0.2"):
        small_run(tmp_path, config={"lr": 0.2})[0].fit(loader, epochs=2, resume="auto")


def test_resuming_nothing(tmp_path):
    trainer, loader = small_run(tmp_path)
    with pytest.raises(CheckpointError, match="found none"):
        trainer.fit(loader, epochs=1, resume=tmp_path / "empty")


def test_full_disk(monkeypatch, tmp_path):
    trainer, loader = small_run(tmp_path)
    trainer.fit(loader, epochs=1)
    before = (tmp_path / checkpoint.LAST).read_bytes()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"(full|No space left)"):
        trainer._save()
    monkeypatch.undo()
    assert (tmp_path / checkpoint.LAST).read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_unwritable_folder(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is wanted")
    trainer, loader = small_run(blocked / "run")
    with pytest.raises(OSError, match=re.escape(str(blocked))):
        trainer.fit(loader, epochs=1)


def test_nan_in_training_names_the_place(backend_name, tmp_path):
    trainer, loader = small_run(tmp_path)
    with trine.no_grad():
        trainer.model.weight.fill_(float("inf"))
    before = trainer.model.weight.detach().numpy().copy()
    with pytest.raises(
        DivergenceError, match=r"\[train\] .*parameter weight; the update was not applied"
    ):
        trainer.fit(loader, epochs=1)
    np.testing.assert_array_equal(trainer.model.weight.detach().numpy(), before)
    assert (tmp_path / checkpoint.SNAPSHOT).is_file()


def test_missing_data_says_which_file_goes_where(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TRINE_DATA", raising=False)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz.*--data-dir"):
        load("mnist", data_dir=tmp_path, download=False)


def test_unreadable_predict_input(tmp_path):
    from trine.cli.predict import read_input

    with pytest.raises(FileNotFoundError, match="DATA:INDEX"):
        read_input(str(tmp_path / "no.npy"), None)
    Path(tmp_path / "text.npy").write_text("hello")
    with pytest.raises(ValueError, match=r"."):
        read_input(str(tmp_path / "text.npy"), None)
