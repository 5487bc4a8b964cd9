"""The loader: its order is a pure function of (seed, epoch), and its thread always ends."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from trine.data import ArrayDataset, DataLoader


@pytest.fixture
def dataset():
    return ArrayDataset(np.arange(23.0).reshape(23, 1), np.arange(23) % 3, 3)


def loader_threads():
    return [t for t in threading.enumerate() if t.name == "trine-loader"]


def order(loader, epoch, start=0):
    return np.concatenate([i for _, _, i in loader.epoch(epoch, start)])


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_every_sample_once_and_in_order(dataset, prefetch):
    loader = DataLoader(dataset, 5, shuffle=True, seed=4, prefetch=prefetch)
    first = order(loader, 0)
    assert sorted(first) == list(range(23))
    assert (first != np.arange(23)).any()
    np.testing.assert_array_equal(first, order(loader, 0))
    assert (first != order(loader, 1)).any()
    assert (first != order(DataLoader(dataset, 5, shuffle=True, seed=5), 0)).any()


def test_the_order_of_a_seed_is_fixed():
    """Other runs are compared with it, so it may not change between versions."""
    data = ArrayDataset(np.zeros((8, 1)), np.zeros(8))
    got = DataLoader(data, 8, shuffle=True, seed=0).order(0).tolist()
    assert got == ORDER_OF_SEED_0


ORDER_OF_SEED_0 = [0, 7, 2, 4, 1, 5, 6, 3]


def test_starting_inside_an_epoch_gives_the_rest(dataset):
    loader = DataLoader(dataset, 5, shuffle=True)
    np.testing.assert_array_equal(order(loader, 3, start=2), order(loader, 3)[10:])


def test_last_batch_and_length(dataset):
    assert [len(x) for x, _, _ in DataLoader(dataset, 5).epoch(0)] == [5, 5, 5, 5, 3]
    dropped = DataLoader(dataset, 5, drop_last=True)
    assert len(dropped) == len(list(dropped.epoch(0))) == 4


def test_iterating_counts_epochs(dataset):
    loader = DataLoader(dataset, 23, shuffle=True)
    (first, _), (second, _) = next(iter(loader)), next(iter(loader))
    np.testing.assert_array_equal(first[:, 0], order(loader, 0))
    np.testing.assert_array_equal(second[:, 0], order(loader, 1))


def test_batches_are_copies(dataset):
    x, _, indices = next(iter(DataLoader(dataset, 5).epoch(0)))
    x[...] = -1
    assert dataset.x[indices].min() >= 0


def test_transform_is_told_index_epoch_and_seed(dataset):
    seen = []

    def transform(sample, index, epoch, seed):
        seen.append((index, epoch, seed))
        return sample + 100 * epoch

    loader = DataLoader(dataset, 10, seed=9, transform=transform)
    batches = list(loader.epoch(2))
    assert seen == [(i, 2, 9) for i in range(23)]
    assert batches[0][0][0, 0] == 200


def test_stopping_early_ends_the_thread(dataset):
    for _ in range(20):
        batches = DataLoader(dataset, 1, prefetch=2).epoch(0)
        next(batches)
        batches.close()
    deadline = time.monotonic() + 5
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not loader_threads()


def test_errors_reach_the_consumer(dataset):
    def broken(sample, index, epoch, seed):
        if index == 7:
            raise RuntimeError("sample 7 is broken")
        return sample

    with pytest.raises(RuntimeError, match="sample 7 is broken"):
        list(DataLoader(dataset, 2, transform=broken).epoch(0))
    assert not loader_threads()


def test_a_slow_consumer_meets_a_bounded_queue(dataset):
    made = []

    def note(sample, index, epoch, seed):
        made.append(index)
        return sample

    batches = DataLoader(dataset, 1, prefetch=2, transform=note).epoch(0)
    next(batches)
    time.sleep(0.2)
    assert len(made) <= 5
    batches.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": 50, "drop_last": True}, "at least 50 samples"),
        ({"prefetch": -1}, "prefetch"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_options(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        DataLoader(dataset, **options)
