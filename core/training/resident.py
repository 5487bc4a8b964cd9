"""Data sets that stay on the device: brought there once, batches gathered there by their numbers.

Copying each batch from the host costs more than a small step does. A data set that takes no more
than a quarter of the device's free memory is therefore uploaded when it is first used, as a whole and
in the model's float type; after that an epoch costs one more upload, the order of its samples. The
batches have the same bytes as those that come from the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from trine import nn
from trine.backends import Backend
from trine.data import ArrayDataset, DataLoader
from trine.dtypes import Array, DType
from trine.errors import BackendError
from trine.tensor import Tensor
from trine.training.batches import Batch

CHOICES = ("auto", "on", "off")
SHARE = 0.25
"""Of the device's free memory: the rest is for weights, activations and other data sets."""


class OnDevice:
    """One data set on the device."""

    def __init__(self, dataset: ArrayDataset, backend: Backend, floats: DType) -> None:
        self._backend, self._floats = backend, floats
        self._host = (dataset.x, dataset.y)
        self._arrays = [backend.asarray(a, _type_there(a, floats)) for a in self._host]
        self._in_order: Array | None = None

    def serves(self, dataset: ArrayDataset, backend: Backend, floats: DType) -> bool:
        """Return whether these are the data set's arrays as a model of that type needs them."""
        same = self._host[0] is dataset.x and self._host[1] is dataset.y
        return same and self._backend is backend and self._floats == floats

    def epoch(self, loader: DataLoader, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on; samples and targets are tensors."""
        order, size = loader.order(epoch), loader.batch_size
        there = self._bring(order, loader.shuffle)
        for batch in range(start, len(loader)):
            place = slice(batch * size, (batch + 1) * size)
            x, y = (self._gather(array, there[place]) for array in self._arrays)
            yield x, y, order[place]

    def _bring(self, order: npt.NDArray[np.int64], shuffled: bool) -> Array:
        """Return the order of the samples on the device."""
        if shuffled:
            return self._backend.asarray(order)
        if self._in_order is None:  # the same in every epoch
            self._in_order = self._backend.asarray(order)
        return self._in_order

    def _gather(self, array: Array, indices: Array) -> Tensor:
        """Return the samples of some numbers; floats by the kernel that gathers rows of a table."""
        backend, shape = self._backend, array.shape[1:]
        if array.dtype.kind != "f":
            return Tensor(backend.getitem(array, index=indices), backend)
        table = backend.reshape(array, shape=(len(array), math.prod(shape)))
        rows = backend.embedding(table, indices)
        return Tensor(backend.reshape(rows, shape=(len(indices), *shape)), backend)


class Feed:
    """Where a trainer's batches come from: the device, where the data set stays there, or the host.

    choice: "auto" keeps there what fits; "on" raises BackendError for what does not; "off" copies
    every batch. Where the CPU computes there is nothing to keep.
    """

    def __init__(self, model: nn.Module, choice: str) -> None:
        self._model, self._choice = model, choice
        self.forget()

    def forget(self) -> None:
        """Let go of all that is on the device."""
        self._known: dict[int, tuple[ArrayDataset, OnDevice | None]] = {}
        self._copies = False

    @property
    def on_device(self) -> bool:
        """Whether all batches since `forget` came from data sets on the device."""
        return bool(self._known) and not self._copies

    def epoch(self, loader: DataLoader, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch, from number `start` on."""
        held = self._find(loader)
        self._copies = self._copies or held is None
        return loader.epoch(epoch, start) if held is None else held.epoch(loader, epoch, start)

    def _find(self, loader: DataLoader) -> OnDevice | None:
        parameter = next(iter(self._model.parameters()))
        backend, floats = parameter.backend, parameter.dtype
        if self._choice == "off" or backend.device == "cpu":
            return None
        reason = _own_way(loader)
        if reason is None:
            dataset = loader.dataset
            known, held = self._known.get(id(dataset), (None, None))
            if known is dataset and (held is None or held.serves(dataset, backend, floats)):
                return held
            self._known.pop(id(dataset), None)
            held = None  # its memory is free before the next is taken
            reason = _too_large(dataset, backend, floats)
            if reason is None:
                held = OnDevice(dataset, backend, floats)
            if reason is None or self._choice == "auto":
                self._known[id(dataset)] = dataset, held
                return held
        if self._choice == "on":
            raise BackendError(
                f"[Trainer] expected a data set that can stay on {backend.device}, but {reason}. "
                'Pass data_on_device="auto".'
            )
        return None


def host(array: Any) -> npt.NDArray[Any]:
    """Return a part of a batch as an array on the host."""
    if isinstance(array, Tensor):
        return array.backend.to_numpy(array.data)
    found: npt.NDArray[Any] = array
    return found


def _own_way(loader: DataLoader) -> str | None:
    """Return in words why only the loader can make its batches, if so."""
    if type(loader) is not DataLoader:
        return f"{type(loader).__name__} makes batches in its own way"
    return "its loader transforms samples on the host" if loader.transform is not None else None


def _too_large(dataset: ArrayDataset, backend: Backend, floats: DType) -> str | None:
    """Return in words why a data set does not fit, if it does not."""
    needed = sum(a.size * _type_there(a, floats).itemsize for a in (dataset.x, dataset.y))
    free = backend.free_memory()
    if free is None or needed <= SHARE * free:
        return None
    return (
        f"{dataset.name} takes {needed / 2**20:.0f} MiB, more than a quarter of the "
        f"{free / 2**20:.0f} MiB that are free"
    )


def _type_there(array: npt.NDArray[Any], floats: DType) -> DType:
    """Return the type that an array has on the device: the model's, if it holds floats."""
    return floats if array.dtype.kind == "f" else array.dtype
