"""safetensors files: contents, atomic writing, damage."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import trine
from trine import nn
from trine.nn import serialization


def test_a_state_survives_the_file_byte_by_byte(backend_name: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, dtype="float64"))
    file = tmp_path / "model.safetensors"
    nn.save_file(model.state_dict(), file, {"seed": "3"})
    loaded = nn.load_file(file)
    for name, tensor in model.state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert loaded[name].tobytes() == tensor.numpy().tobytes()
    twin = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, dtype="float64"))
    twin.load_state_dict(loaded)
    np.testing.assert_array_equal(twin[0].weight.detach().numpy(), model[0].weight.detach().numpy())
    assert b'"seed":"3"' in file.read_bytes()
    assert list(tmp_path.iterdir()) == [file]


def test_transposed_and_strided_arrays_are_not_scrambled(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    file = tmp_path / "arrays.safetensors"
    tensors = {
        "fortran": np.asfortranarray(array),
        "turned": array.transpose(2, 0, 1),
        "strided": array[:, ::2, ::-1],
        "tensor": trine.tensor(array).permute(1, 0, 2),
        "scalar": np.float32(3),
    }
    nn.save_file(tensors, file)
    loaded = nn.load_file(file)
    for name, value in tensors.items():
        np.testing.assert_array_equal(loaded[name], np.asarray(value))
    assert loaded["scalar"].shape == ()


def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    nn.save_file({"a": np.ones(3, np.float32)}, file)
    order: list[str] = []
    sync, rename = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        order.append("fsync")
        sync(descriptor)

    def replace(source: str, target: str) -> None:
        order.append("rename")
        rename(source, target)

    monkeypatch.setattr(serialization.os, "fsync", fsync)
    monkeypatch.setattr(serialization.os, "replace", replace)
    nn.save_file({"a": np.full(3, 2, np.float32)}, file)
    assert order == ["fsync", "rename", "fsync"]

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serialization.os, "fsync", full_disk)
    with pytest.raises(OSError, match="the disk is full"):
        nn.save_file({"a": np.zeros(3, np.float32)}, file)
    np.testing.assert_array_equal(nn.load_file(file)["a"], [2, 2, 2])
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "header"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "model.safetensors"
    nn.save_file({"a": np.ones(100, np.float32)}, file)
    content = file.read_bytes()
    bad = {
        "cut": content[:-10],
        "empty": b"",
        "text": b"these are no weights at all",
        "header": b"\xff" * 8 + content[8:],
    }[damage]
    file.write_bytes(bad)
    with pytest.raises(trine.CheckpointError, match=r"\[load_file\] expected a safetensors file"):
        nn.load_file(file)
    with pytest.raises(FileNotFoundError):
        nn.load_file(tmp_path / "none.safetensors")
