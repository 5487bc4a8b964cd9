"""Boxes: anchors, coding, overlaps, and average precision worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trine.models.boxes import (
    Detections,
    average_precision,
    average_precisions,
    clip,
    decode,
    encode,
    make_anchors,
    overlaps,
)
from trine.models.detector import CODE_SCALE

rng = np.random.default_rng(0)


def some_boxes(count: int) -> np.ndarray:
    low = rng.uniform(0, 50, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, 40, (count, 2))], axis=1)


def test_anchors_of_one_cell() -> None:
    found = make_anchors(1, 1, 16, (32.0,), (0.25, 1.0, 4.0))
    # area 32^2 around (8, 8); ratio is height / width: 64x16, 32x32, 16x64
    expected = [(-24, 0, 40, 16), (-8, -8, 24, 24), (0, -24, 16, 40)]
    np.testing.assert_allclose(found, expected)


def test_anchors_go_by_row_column_size_ratio() -> None:
    found = make_anchors(2, 3, 4, (4.0, 8.0), (1.0,))
    assert found.shape == (12, 4)
    np.testing.assert_allclose(found[0], (0, 0, 4, 4))
    np.testing.assert_allclose(found[1], (-2, -2, 6, 6))
    np.testing.assert_allclose(found[2], (4, 0, 8, 4))
    np.testing.assert_allclose(found[6], (0, 4, 4, 8))


def test_a_code_by_hand() -> None:
    anchor, box = np.array([0.0, 0.0, 10.0, 20.0]), np.array([5.0, 10.0, 25.0, 20.0])
    # centres (5, 10) and (15, 15); sizes (10, 20) and (20, 10)
    expected = [10 / 10, 5 / 20, math.log(2), math.log(0.5)]
    np.testing.assert_allclose(encode(box, anchor), expected, rtol=1e-12)
    np.testing.assert_allclose(
        encode(box, anchor, CODE_SCALE), np.array(expected) * (10, 10, 5, 5), rtol=1e-12
    )


@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0, 1.0), CODE_SCALE])
def test_decoding_undoes_encoding(scale: tuple[float, float, float, float]) -> None:
    boxes, anchors = some_boxes(100), some_boxes(100)
    found = decode(encode(boxes, anchors, scale), anchors, scale)
    np.testing.assert_allclose(found, boxes, rtol=1e-10, atol=1e-10)


def test_the_code_zero_is_the_anchor_and_huge_codes_stay_finite() -> None:
    anchors = some_boxes(5)
    np.testing.assert_allclose(decode(np.zeros((5, 4)), anchors), anchors)
    assert np.isfinite(decode(np.full((5, 4), 1e6), anchors)).all()


def test_overlaps_by_hand() -> None:
    a = np.array([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 2.0, 2.0]])
    b = np.array([[2.0, 2.0, 6.0, 6.0], [0.0, 0.0, 4.0, 4.0], [10.0, 10.0, 12.0, 12.0]])
    np.testing.assert_allclose(overlaps(a, b), [[4 / 28, 1.0, 0.0], [0.0, 4 / 16, 0.0]])
    assert overlaps(a, np.zeros((0, 4))).shape == (2, 0)


def test_clipping_takes_width_for_columns_and_height_for_rows() -> None:
    found = clip(np.array([[-5.0, -5.0, 100.0, 100.0]]), 20, 30)
    np.testing.assert_allclose(found, [[0, 0, 30, 20]])


def test_average_precision_by_hand() -> None:
    # Best first: right, wrong, right, wrong, right; four to be found.
    #   recall     1/4   1/4   2/4   2/4   3/4
    #   precision   1    1/2   2/3   1/2   3/5      from there on at most: 1, 2/3, 2/3, 3/5, 3/5
    scores = np.array([0.3, 0.9, 0.5, 0.8, 0.7])
    hits = np.array([True, True, False, False, True])
    expected = 0.25 * 1 + 0.25 * 2 / 3 + 0.25 * 3 / 5
    assert average_precision(scores, hits, 4) == pytest.approx(expected, abs=1e-12)


def test_precision_that_rises_later_counts_for_earlier_recalls() -> None:
    scores, hits = np.array([0.9, 0.8, 0.7]), np.array([False, True, True])
    # precision 0, 1/2, 2/3 at recall 0, 1/2, 1: 2/3 everywhere
    assert average_precision(scores, hits, 2) == pytest.approx(2 / 3)
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0.0
    assert math.isnan(average_precision(scores, hits, 0))


def test_average_precisions_over_images_by_hand() -> None:
    truth = [
        np.array([[0, 0, 0, 10, 10], [1, 20, 20, 30, 30]], dtype=float),
        np.array([[0, 0, 0, 10, 10]], dtype=float),
    ]
    found = [
        Detections(
            np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], dtype=float),
            np.array([0.9, 0.8, 0.7]),
            np.array([0, 0, 0]),  # right; the same box again; a box of another kind
        ),
        Detections(
            np.array([[0, 0, 10, 5.5], [0, 0, 10, 4.0]]), np.array([0.6, 0.95]), np.array([0, 0])
        ),
    ]
    # Kind 0 by score: 0.95 overlaps by 0.4, wrong; 0.9 right; 0.8 and 0.7 wrong; 0.6 right (0.55).
    # precision 0, 1/2, 1/3, 1/4, 2/5 at recall 0, 1/2, 1/2, 1/2, 1
    found_by_class = average_precisions(found, truth, 2)
    assert found_by_class[0] == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 5, abs=1e-12)
    assert found_by_class[1] == 0.0
    assert average_precisions(found, truth, 2, overlap=0.6)[0] == pytest.approx(0.5 * 1 / 2)
