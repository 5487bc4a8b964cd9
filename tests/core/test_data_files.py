"""Data sets: the shipped digits, files that are right, and every way in which files are wrong."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import struct

import numpy as np
import pytest

from trine.data import ArrayDataset, Vocabulary, austen, describe, load, load_text, names, read_idx
from trine.data.austen import load_austen
from trine.data.digits import enlarge, raw_digits, test_members
from trine.data.sources import PARTS, SOURCES
from trine.data.text import CHARACTERS, PLAIN, UNKNOWN, contexts, windows, words
from trine.errors import DataError

test_members.__test__ = False


def idx_bytes(array):
    codes = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
    code = codes[array.dtype.str[1:]]
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    """Four small files named as MNIST's, two of them plain."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 4)):
        images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        name = PARTS[f"{part}-images"]
        (tmp_path / name).write_bytes(gzip.compress(idx_bytes(images)))
        name = PARTS[f"{part}-labels"].removesuffix(".gz")
        (tmp_path / name).write_bytes(idx_bytes(labels))
    return tmp_path


# Digits


def test_digits_are_whole():
    images, labels = raw_digits()
    assert images.shape == (1797, 8, 8)
    assert images.max() == 16
    np.testing.assert_array_equal(
        np.bincount(labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    )
    assert int(images.astype(int).sum()) == 561718


def test_the_split_is_fixed_and_stratified():
    _, labels = raw_digits()
    chosen = test_members(labels)
    assert chosen.sum() == 359
    share = np.bincount(labels[chosen]) / np.bincount(labels)
    assert np.abs(share - 0.2).max() < 0.004
    # The rule is part of the interface: other runs are compared on this very split.
    np.testing.assert_array_equal(np.flatnonzero(chosen)[:8], FIRST_TESTED)


FIRST_TESTED = [1, 13, 30, 31, 33, 40, 43, 49]


def test_digits_are_images():
    splits = load("digits")
    assert splits.train.x.shape == (1438, 1, 28, 28)
    assert splits.train.x.dtype == np.float32
    assert splits.train.x.min() >= 0
    assert splits.train.x.max() <= 1
    assert splits.num_classes == 10
    assert "CC BY" in splits.licence


def test_file_order_keeps_the_last_writers_apart():
    images, labels = raw_digits()
    splits = load("digits-file-order")
    np.testing.assert_array_equal(splits.test.y, labels[-359:])
    np.testing.assert_array_equal(splits.train.x, enlarge(images[:-359]))


def test_enlarging_interpolates():
    flat = enlarge(np.full((1, 8, 8), 16))
    np.testing.assert_allclose(flat[0, 0, 2:-2, 2:-2], 1, atol=1e-6)
    assert flat[0, 0, :2].sum() == flat[0, 0, :, -2:].sum() == 0
    ramp = enlarge(np.broadcast_to(np.arange(8) * 2, (1, 8, 8)))[0, 0, 10, 2:-2]
    np.testing.assert_allclose(np.diff(ramp[1:-1]), 2 / 16 / 3, rtol=1e-4)


# Files


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_round_trip(tmp_path, dtype, packed):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = idx_bytes(array)
    file = tmp_path / "a"
    file.write_bytes(gzip.compress(content) if packed else content)
    got = read_idx(file)
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, array)


GOOD = idx_bytes(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"<!doctype html><html>", "web page"),
        (gzip.compress(b"<html>not found</html>", mtime=0), "web page"),
        (b"\x89PNG\r\n", "Is it another format"),
        (GOOD[:-1], "truncated"),
        (GOOD + b"x", "too long"),
        (GOOD[:6], "ends in them"),
        (gzip.compress(GOOD, mtime=0)[:-6], "may be truncated"),
        (b"\x1f\x8b" + b"garbage" * 3, "may be truncated"),
        (b"\0\0\x08\x01" + struct.pack(">I", 2**32 - 1), "truncated"),
        (b"\0\0\x07\x01" + struct.pack(">I", 0), "another format"),
    ],
)
def test_wrong_idx_files(tmp_path, content, message):
    file = tmp_path / "images.gz"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(file)
    assert str(caught.value).startswith("[idx] expected ")
    assert str(file) in str(caught.value)


def test_missing_idx_file(tmp_path):
    with pytest.raises(DataError, match="found no"):
        read_idx(tmp_path / "none")


def test_named_sets_are_found_in_a_folder(idx_folder, monkeypatch):
    splits = load("mnist", data_dir=idx_folder)
    assert splits.train.x.shape == (6, 1, 28, 28)
    assert splits.test.y.dtype == np.int64
    monkeypatch.setenv("TRINE_DATA", str(idx_folder))
    assert len(load("fashion-mnist").train) == 6
    rows = {row["name"]: row for row in describe()}
    assert rows["mnist"]["here"] == str(idx_folder)


def test_mislabelled_files_are_refused(idx_folder):
    labels = idx_folder / PARTS["train-labels"].removesuffix(".gz")
    labels.write_bytes(idx_bytes(np.array([0, 1, 2, 3, 4, 10], np.uint8)))
    with pytest.raises(DataError, match="labels from 0 to 9, got 10 at sample 5"):
        load("mnist", data_dir=idx_folder)
    labels.write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match="got 6 samples and 5 targets"):
        load("mnist", data_dir=idx_folder)
    labels.write_bytes(idx_bytes(np.zeros((6, 28, 28), np.uint8)))
    with pytest.raises(DataError, match="mixed up"):
        load("mnist", data_dir=idx_folder)


def test_without_a_network_the_message_says_what_goes_where(tmp_path, monkeypatch):
    import pooch

    def offline(*_args, **_kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", offline)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TRINE_DATA", raising=False)
    with pytest.raises(DataError) as caught:
        load("mnist", data_dir=tmp_path)
    message = str(caught.value)
    for name in PARTS.values():
        assert name in message
    assert str(tmp_path) in message
    assert "ConnectionError" in message


def test_downloads_are_checked(tmp_path, monkeypatch):
    import pooch

    asked = []

    def fetch(url, known_hash, fname, path):
        asked.append((url, known_hash))
        file = path / fname
        path.mkdir(parents=True, exist_ok=True)
        shape = (3, 28, 28) if "images" in fname else (3,)
        file.write_bytes(gzip.compress(idx_bytes(np.zeros(shape, np.uint8))))
        return str(file)

    monkeypatch.setattr(pooch, "retrieve", fetch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TRINE_DATA", raising=False)
    assert len(load("mnist").train) == 3
    assert all(known.startswith("md5:") and len(known) == 36 for _, known in asked)
    count = len(asked)
    load("mnist")
    assert len(asked) == count  # once only


# Folders


def test_a_folder_of_npz_files(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", x=rng.integers(0, 255, (5, 4, 4)).astype(np.uint8),
                 y=np.arange(5) % 3)  # fmt: skip
    splits = load(str(tmp_path))
    assert splits.train.x.shape == (5, 1, 4, 4)
    assert splits.train.x.max() <= 1
    assert splits.num_classes == 3


def test_a_folder_of_idx_files(idx_folder):
    assert load(str(idx_folder)).train.x.shape == (6, 1, 28, 28)


def test_wrong_folders(tmp_path):
    with pytest.raises(DataError, match=r"train.npz and test.npz, or train-images"):
        load(str(tmp_path))
    np.savez(tmp_path / "train.npz", x=np.zeros((2, 1)))
    np.savez(tmp_path / "test.npz", x=np.zeros((2, 1)), y=np.zeros(2))
    with pytest.raises(DataError, match="expected arrays x and y"):
        load(str(tmp_path))
    np.savez(tmp_path / "train.npz", x=np.array([{"a": 1}, None], dtype=object), y=np.zeros(2))
    with pytest.raises(DataError, match="NumPy archive of numbers"):
        load(str(tmp_path))
    (tmp_path / "train.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match="NumPy archive"):
        load(str(tmp_path))
    np.savez(tmp_path / "train.npz", x=np.full((2, 1), np.inf), y=np.zeros(2))
    with pytest.raises(DataError, match="expected finite samples"):
        load(str(tmp_path))


def test_unknown_names_and_known_ones():
    with pytest.raises(ValueError, match="Did you mean 'fashion-mnist'"):
        load("fashion_mnist")
    assert set(names()) == {"digits", "digits-file-order", "austen", *SOURCES}


# Arrays


@pytest.mark.parametrize(
    ("x", "y", "classes", "message"),
    [
        (np.zeros((2, 1)), np.array(["a", "b"]), None, "targets as numbers"),
        (np.zeros((0, 1)), np.zeros(0), None, "at least one sample"),
        (np.zeros((2, 1)), np.array([0.0, 1.0]), 2, "integer labels"),
        (np.zeros((2, 1)), np.array([-1, 1]), 2, "got -1 at sample 0"),
        (np.float64(3), np.zeros(1), None, "got a single number"),
        (np.zeros((2, 1)), np.array([0.0, np.inf]), None, r"got inf at \(1,\)"),
    ],
)
def test_wrong_arrays(x, y, classes, message):
    with pytest.raises(DataError, match=message):
        ArrayDataset(x, y, classes)


# Text


def test_austen_is_whole_and_its_split_fixed():
    text = load_austen()
    parts = [text.train, text.validation, text.test]
    assert [len(part.split("\n\n")) for part in parts] == [93, 12, 11]
    # In the file the last chapter of one part and the first of the next have a line between them.
    assert sum(len(part) for part in parts) == 1_559_463 - 2
    assert text.train.startswith("It is a truth universally acknowledged, that a single man")
    digest = hashlib.sha256("".join(parts).encode()).hexdigest()
    assert digest == "39b7b4538f5cc4591b72c64e7773f9446be8d5a6c297f7c9bcfe8684993b4cb1"


def test_a_damaged_text_is_refused(monkeypatch, tmp_path):
    load_austen.cache_clear()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "austen.bz2").write_bytes(bz2.compress(b"short"))
    monkeypatch.setattr(austen.resources, "files", lambda _: tmp_path)
    with pytest.raises(DataError, match=r"\[austen\] expected 116 chapters"):
        load_austen()
    (tmp_path / "files" / "austen.bz2").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"\[austen\].*Install trine again"):
        load_austen()


def test_characters_of_a_text():
    assert len(CHARACTERS) == 97
    text = "\u201cAh!\u201d \u2014 na\u00efve\n"
    ids = CHARACTERS.encode(text.translate(PLAIN))
    assert "".join(CHARACTERS.decode(ids)) == f'"Ah!" -- na{UNKNOWN}ve\n'


def test_words_of_a_text():
    found = words('"Mr. Darcy\u2019s horse!" said she--\u2014in 1813; it was (very) _lame_.\n')
    expected = "mr. darcy's horse ! said she -- -- in 0 ; it was very lame ."
    assert found == [*expected.split(), "\n"]


def test_the_vocabulary_of_a_text():
    vocabulary = Vocabulary.most_frequent(["b", "a", "b", "c", "a", "b", "d"], 3)
    assert vocabulary.symbols == (UNKNOWN, "b", "a")
    np.testing.assert_array_equal(vocabulary.encode(["a", "c", "b"]), [2, 0, 1])
    assert vocabulary.decode([1, 0]) == ["b", UNKNOWN]
    for wrong in (["a"], ["a", "a", UNKNOWN]):
        with pytest.raises(ValueError, match=r"\[Vocabulary\] expected different symbols"):
            Vocabulary(wrong)


def test_windows_and_contexts():
    inputs, targets = windows(np.arange(12), 5)
    np.testing.assert_array_equal(inputs, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    np.testing.assert_array_equal(targets, inputs + 1)
    before, following = contexts(np.arange(5), 2)
    np.testing.assert_array_equal(before, [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_array_equal(following, [2, 3, 4])
    for cut in (windows, contexts):
        for length in (0, 12):
            with pytest.raises(DataError, match=rf"from 1 to 11 symbols, got {length}"):
                cut(np.arange(12), length)


def test_a_text_file_is_a_data_set(tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("abracadabra simsalabim " * 100, encoding="utf-8")
    splits = load(str(file))
    assert splits.text is not None
    sizes = [len(part) for part in (splits.text.train, splits.text.validation, splits.text.test)]
    assert sizes == [1840, 230, 230]
    assert splits.train.x.shape == splits.train.y.shape == (1839 // 64, 64)
    assert "".join(CHARACTERS.decode(splits.train.x[0, :11])) == "abracadabra"
    np.testing.assert_array_equal(splits.train.x[:, 1:], splits.train.y[:, :-1])
    assert splits.test.x.max() < splits.num_classes == 97


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff\xfe\x00bad" * 20, "\u03bb".encode() * 99]
)
def test_wrong_text(tmp_path, content):
    file = tmp_path / "t.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"\[text\] expected"):
        load_text(file)


def test_a_text_file_must_exist(tmp_path):
    with pytest.raises(DataError, match="found no"):
        load_text(tmp_path / "none.txt")
