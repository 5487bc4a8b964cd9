"""Batches in an order that is a pure function of (seed, epoch), made ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from trine.data.dataset import ArrayDataset
from trine.random import make_key, permutation, stream_id

Batch = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int64]]
Transform = Callable[[npt.NDArray[Any], int, int, int], npt.NDArray[Any]]
"""transform(sample, index, epoch, seed) -> sample; random only through its arguments."""


class DataLoader:
    """Cuts a data set into batches.

    With `shuffle` the order of epoch e is the Philox permutation with seed `seed`, stream
    "shuffle" and draw e: nothing needs to be saved or skipped to resume. `prefetch` batches are
    made ahead in a thread (0: none). Batches hold copies. Raises ValueError for a batch size below
    1, or if `drop_last` leaves no batch.
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        prefetch: int = 2,
        transform: Transform | None = None,
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                f"[DataLoader] expected batch_size as an int >= 1, got {batch_size!r}. Correct it."
            )
        if prefetch < 0:
            raise ValueError(
                f"[DataLoader] expected prefetch >= 0, got {prefetch}. Use 0 for none."
            )
        make_key(seed, 0)  # checks the range
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.prefetch = prefetch
        self.transform = transform
        self._next_epoch = 0
        if len(self) == 0:
            raise ValueError(
                f"[DataLoader] expected at least {batch_size} samples for one batch with drop_last, got "
                f"{len(dataset)}. Use a smaller batch."
            )

    def __len__(self) -> int:
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the order of the samples in an epoch."""
        if not self.shuffle:
            return np.arange(len(self.dataset), dtype=np.int64)
        return permutation(make_key(self.seed, stream_id("shuffle"), epoch), len(self.dataset))

    def __iter__(self) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Iterate over (x, y); each pass is the next epoch."""
        epoch = self._next_epoch
        self._next_epoch += 1
        for x, y, _ in self.epoch(epoch):
            yield x, y

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over (x, y, indices) of an epoch, from batch number `start` on."""
        batches = self._make(epoch, start)
        return self._ahead(batches) if self.prefetch else batches

    def _make(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self.order(epoch)
        for batch in range(start, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            x = self.dataset.x[indices]
            if self.transform is not None:
                x = np.stack(
                    [
                        self.transform(sample, int(i), epoch, self.seed)
                        for sample, i in zip(x, indices, strict=True)
                    ]
                )
            yield x, self.dataset.y[indices], indices

    def _ahead(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Run `batches` in a thread; ends it when the consumer stops early or fails."""
        box: queue.Queue[Batch | BaseException | None] = queue.Queue(self.prefetch)
        stopped = threading.Event()

        def put(item: Batch | BaseException | None) -> None:
            while not stopped.is_set():
                try:
                    box.put(item, timeout=0.05)
                except queue.Full:
                    continue
                return

        def work() -> None:
            try:
                for batch in batches:
                    put(batch)
                    if stopped.is_set():
                        return
                put(None)
            except BaseException as error:  # handed to the consumer, who raises it
                put(error)

        thread = threading.Thread(target=work, name="trine-loader", daemon=True)
        thread.start()
        try:
            while (item := box.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            thread.join()
