"""Pooling of boxes and picking of boxes: by hand, against loops, against torchvision."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import trine
import trine.functional as F
from trine import nn


def t64(values: Any) -> trine.Tensor:
    return trine.tensor(values, "float64")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def draw_boxes(rng: np.random.Generator, count: int, images: int, size: float) -> Any:
    """Return boxes (K, 5), some across the edges; corners in order."""
    corners = np.sort(rng.uniform(-0.3 * size, 1.3 * size, (count, 2, 2)), axis=1).reshape(-1, 4)
    return np.column_stack([rng.integers(0, images, count), corners])


def pool_loop(x: Any, boxes: Any, size: tuple[int, int], scale: float) -> Any:
    """Return the maxima by loops over bins, from the definition."""
    c, height, width = x.shape[1:]
    out = np.zeros((len(boxes), c, *size))
    for k, (image, *corners) in enumerate(boxes):
        x1, y1, x2, y2 = (math.copysign(math.floor(abs(v * scale) + 0.5), v) for v in corners)
        h, w = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for p, q in np.ndindex(*size):
            rows = range(int(y1 + p * h // size[0]), int(y1 + math.ceil((p + 1) * h / size[0])))
            columns = range(int(x1 + q * w // size[1]), int(x1 + math.ceil((q + 1) * w / size[1])))
            rows = [r for r in rows if 0 <= r < height]
            columns = [s for s in columns if 0 <= s < width]
            if rows and columns:
                out[k, :, p, q] = x[int(image)][:, rows][:, :, columns].max((1, 2))
    return out


def sample(plane: Any, y: float, x: float) -> float:
    """Interpolate in one plane; 0 more than a pixel outside."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total = 0.0
    for h, w in itertools.product((int(y), int(y) + 1), (int(x), int(x) + 1)):
        weight = (1 - abs(y - h)) * (1 - abs(x - w))
        if weight > 0:
            total += weight * plane[h, w]
    return total


def align_loop(
    x: Any, boxes: Any, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Any:
    """Return the means by loops over samples, from the definition."""
    out = np.zeros((len(boxes), x.shape[1], *size))
    for k, (image, *corners) in enumerate(boxes):
        x1, y1, x2, y2 = (v * scale - 0.5 * aligned for v in corners)
        h, w = y2 - y1, x2 - x1
        if not aligned:
            h, w = max(h, 1.0), max(w, 1.0)
        rows = ratio if ratio > 0 else math.ceil(h / size[0])
        columns = ratio if ratio > 0 else math.ceil(w / size[1])
        for c, p, q in np.ndindex(*out.shape[1:]):
            values = [
                sample(
                    x[int(image), c],
                    y1 + (p + (i + 0.5) / rows) * h / size[0],
                    x1 + (q + (j + 0.5) / columns) * w / size[1],
                )
                for i in range(rows)
                for j in range(columns)
            ]
            out[k, c, p, q] = sum(values) / max(1, len(values))
    return out


def test_roi_pool_by_hand(backend_name):
    """A box of 3 x 4 elements in 2 x 2 bins: rows 0-1 and 1-2, columns 0-1 and 2-3 of the box."""
    x = t64(np.arange(30.0).reshape(1, 1, 5, 6)).requires_grad_()
    out = F.roi_pool(x, t64([[0, 1, 2, 4, 4]]), 2)
    np.testing.assert_array_equal(out.detach().numpy()[0, 0], [[20, 22], [26, 28]])
    (out * t64([[[[1.0, 2.0], [3.0, 4.0]]]])).sum().backward()
    expected = np.zeros(30)
    expected[[20, 22, 26, 28]] = 1, 2, 3, 4
    np.testing.assert_array_equal(x.grad.numpy().ravel(), expected)


def test_roi_pool_rounds_halves_away_from_zero(backend_name):
    x = t64(np.arange(16.0).reshape(1, 1, 4, 4))
    out = F.roi_pool(x, t64([[0, 1, 1, 3, 3], [0, 5, 5, 5, 5], [0, -1, -1, -1, -1]]), 1, 0.5)
    # 0.5 .. 1.5 becomes 1 .. 2, 2.5 becomes 3; -0.5 becomes -1, where nothing is
    np.testing.assert_array_equal(out.numpy().ravel(), [10, 15, 0])


def test_roi_pool_gives_the_gradient_of_shared_maxima_and_ties(backend_name):
    x = t64(np.zeros((1, 1, 2, 2))).requires_grad_()
    F.roi_pool(x, t64([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]), (3, 3)).sum().backward()
    # The box of one pixel gives 9 to it; in the whole box bins 0 and 1 of each axis begin at 0.
    np.testing.assert_array_equal(x.grad.numpy()[0, 0], [[13, 2], [2, 1]])


def test_roi_align_by_hand(backend_name):
    """On a ramp x + 10 y interpolation is exact: each bin has the ramp's value at its centre."""
    ramp = np.arange(8.0) + 10 * np.arange(6.0)[:, None]
    out = F.roi_align(t64(ramp[None, None]), t64([[0, 1, 2, 5, 4]]), 2, sampling_ratio=2)
    np.testing.assert_allclose(out.numpy()[0, 0], [[27, 29], [37, 39]], rtol=1e-15)
    moved = F.roi_align(t64(ramp[None, None]), t64([[0, 1, 2, 5, 4]]), 2, 1.0, 2, True)
    np.testing.assert_allclose(moved.numpy()[0, 0], [[21.5, 23.5], [31.5, 33.5]], rtol=1e-15)


def test_roi_align_gradient_by_hand(backend_name):
    """One sample at (0.5, 0.25): weights 1/2 down, 3/4 and 1/4 across."""
    x = t64(np.zeros((1, 1, 3, 3))).requires_grad_()
    out = F.roi_align(x, t64([[0, -0.25, 0, 0.75, 1]]), 1, sampling_ratio=1)
    out.sum().backward()
    expected = [[0.375, 0.125, 0], [0.375, 0.125, 0], [0, 0, 0]]
    np.testing.assert_allclose(x.grad.numpy()[0, 0], expected, rtol=1e-15)


def test_roi_align_at_the_edges(backend_name):
    """Samples up to a pixel outside have the border's value, further ones count as 0."""
    x = t64(np.full((1, 1, 4, 4), 3.0))
    boxes = t64([[0, -1.5, 0, -0.5, 1], [0, -1.6, 0, -0.6, 1], [0, 3.5, 3.5, 4.5, 4.5]])
    out = F.roi_align(x, boxes, 1, sampling_ratio=1)
    np.testing.assert_array_equal(out.numpy().ravel(), [3, 0, 3])


@pytest.mark.parametrize(("size", "scale"), [((1, 1), 1.0), ((3, 2), 1.0), ((7, 7), 0.5)])
def test_roi_pool(backend_name, rng, check_gradients, size, scale):
    x, boxes = rng.normal(size=(2, 3, 6, 7)), draw_boxes(rng, 9, 2, 7 / scale)
    out = F.roi_pool(t64(x), t64(boxes), size, scale)
    np.testing.assert_array_equal(out.numpy(), pool_loop(x, boxes, size, scale))
    check_gradients(lambda a: F.roi_pool(a, t64(boxes), size, scale), t64(x))
    module = nn.RoIPool(size, scale)
    np.testing.assert_array_equal(module(t64(x), t64(boxes)).numpy(), out.numpy())


@pytest.mark.parametrize(("ratio", "aligned"), [(-1, False), (-1, True), (2, False), (3, True)])
@pytest.mark.parametrize(("size", "scale"), [((1, 1), 1.0), ((3, 2), 1.0), ((4, 5), 0.5)])
def test_roi_align(backend_name, rng, check_gradients, size, scale, ratio, aligned):
    x, boxes = rng.normal(size=(2, 2, 6, 7)), draw_boxes(rng, 6, 2, 7 / scale)

    def align(x: trine.Tensor) -> trine.Tensor:
        return F.roi_align(x, t64(boxes), size, scale, ratio, aligned)

    expected = align_loop(x, boxes, size, scale, ratio, aligned)
    np.testing.assert_allclose(align(t64(x)).numpy(), expected, rtol=1e-11, atol=1e-12)
    check_gradients(align, t64(x))
    module = nn.RoIAlign(size, scale, ratio, aligned)
    np.testing.assert_array_equal(module(t64(x), t64(boxes)).numpy(), align(t64(x)).numpy())


@pytest.mark.parametrize("pool", [F.roi_pool, F.roi_align])
def test_boxes_as_a_list(backend_name, rng, pool):
    x, boxes = t64(rng.normal(size=(3, 2, 5, 5))), draw_boxes(rng, 4, 3, 5)
    boxes[:, 0] = [0, 0, 2, 2]
    parts = [t64(boxes[boxes[:, 0] == i, 1:].reshape(-1, 4)) for i in range(3)]
    np.testing.assert_array_equal(pool(x, parts, 2).numpy(), pool(x, t64(boxes), 2).numpy())
    assert pool(x, [t64(np.zeros((0, 4)))] * 3, (2, 3)).shape == (0, 2, 2, 3)
    assert pool(t64(np.zeros((0, 2, 5, 5))), [], 2).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("pool", [F.roi_pool, F.roi_align])
def test_boxes_are_constants(backend_name, rng, pool):
    x, boxes = t64(rng.normal(size=(1, 2, 5, 5))), t64([[0, 0, 0, 3, 3]]).requires_grad_()
    assert not pool(x, boxes, 2).requires_grad
    assert not pool(x, [boxes[:, 1:]], 2).requires_grad


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("scale", "ratio"), [(1.0, -1), (0.25, 2), (0.0625, 3)])
def test_pooling_is_torchvisions(backend_name, rng, dtype, scale, ratio):
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("torchvision").ops
    x = rng.normal(size=(2, 5, 17, 13)).astype(dtype)
    boxes = draw_boxes(rng, 40, 2, 17 / scale).astype(dtype)
    upstream = rng.normal(size=(40, 5, 7, 4)).astype(dtype)
    calls = [("roi_pool", ())] + [("roi_align", (ratio, aligned)) for aligned in (False, True)]
    for name, how in calls:
        mine, yours = trine.tensor(x).requires_grad_(), torch.from_numpy(x).requires_grad_()
        got = getattr(F, name)(mine, trine.tensor(boxes), (7, 4), scale, *how)
        wanted = getattr(theirs, name)(yours, torch.from_numpy(boxes), (7, 4), scale, *how)
        (got * trine.tensor(upstream)).sum().backward()
        (wanted * torch.from_numpy(upstream)).sum().backward()
        near = {"rtol": 0, "atol": 2e-5 if dtype == "float32" else 1e-12}
        np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), **near)
        np.testing.assert_allclose(mine.grad.numpy(), yours.grad.numpy(), **near)


@pytest.mark.parametrize("op", ["roi_pool", "roi_align"])
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f(trine.zeros(3, 4, 4), trine.zeros(1, 5), 2), ValueError,
         r"expected input \(N, C, H, W\)"),
        (lambda f: f(trine.zeros(1, 3, 0, 4), trine.zeros(1, 5), 2), ValueError,
         "expected images with elements"),
        (lambda f: f(trine.zeros(1, 3, 4, 4), trine.zeros(1, 4), 2), ValueError,
         r"expected boxes \(K, 5\) as \(image, x1, y1, x2, y2\), .* got shape \(1, 4\)"),
        (lambda f: f(trine.zeros(1, 3, 4, 4), trine.zeros(1, 5, dtype="float64"), 2), TypeError,
         "expected boxes of dtype float32 to match input, got float64"),
        (lambda f: f(trine.zeros(2, 3, 4, 4), trine.full((1, 5), 2.0), 2), ValueError,
         "expected images from 0 to 1 in the first column of boxes, .* got 2 to 2"),
        (lambda f: f(trine.zeros(0, 3, 4, 4), trine.zeros(1, 5), 2), ValueError,
         "expected boxes of images, got 1 boxes but input"),
        (lambda f: f(trine.zeros(2, 3, 4, 4), [trine.zeros(1, 4)], 2), ValueError,
         "expected a tensor of boxes for each of the 2 images"),
        (lambda f: f(trine.zeros(1, 3, 4, 4), [trine.zeros(1, 5)], 2), ValueError,
         r"expected boxes\[0\] of shape \(K, 4\)"),
        (lambda f: f(trine.zeros(1, 3, 4, 4), [[1, 2, 3, 4]], 2), TypeError,
         r"expected boxes\[0\] to be a tensor, got list"),
        (lambda f: f(trine.zeros(1, 3, 4, 4), 7, 2), TypeError, "expected boxes to be a tensor"),
        (lambda f: f(trine.zeros(1, 3, 4, 4), trine.zeros(1, 5), 0), ValueError,
         "expected output_size as an int >= 1"),
    ],
)  # fmt: skip
def test_pooling_errors(backend_name, op, call, error, message):
    with pytest.raises(error, match=rf"\[{op}\] {message}"):
        call(getattr(F, op))


def test_sampling_ratio_error(backend_name):
    with pytest.raises(TypeError, match=r"\[roi_align\] expected sampling_ratio as an int"):
        F.roi_align(trine.zeros(1, 3, 4, 4), trine.zeros(1, 5), 2, 1.0, 2.0)


def nms_loop(boxes: Any, scores: Any, threshold: float) -> list[int]:
    """Return the kept boxes, from the definition."""
    left = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept = []
    while left:
        best, *rest = left
        kept.append(best)
        left = [i for i in rest if overlap(boxes[best], boxes[i]) <= threshold]
    return kept


def overlap(a: Any, b: Any) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = sum((v[2] - v[0]) * (v[3] - v[1]) for v in (a, b))
    return float(width * height / (both - width * height))


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.0, [3, 0]), (0.25, [3, 0]), (1 / 3, [3, 0, 2]), (0.9, [3, 0, 2, 1])]
)
def test_nms_by_hand(backend_name, threshold, kept):
    """Boxes 4 x 2 side by side: 1 overlaps 0 by 3/5, 2 overlaps it by 1/3; 3 lies elsewhere."""
    boxes = t64([[0, 0, 4, 2], [1, 0, 5, 2], [2, 0, 6, 2], [10, 10, 11, 11]])
    found = F.nms(boxes, t64([0.9, 0.5, 0.6, 1.0]), threshold)
    assert found.numpy().tolist() == kept
    assert found.dtype == np.int64


def test_nms_takes_equal_scores_by_index(backend_name):
    boxes = t64([[0, 0, 1, 1], [5, 5, 6, 6], [0, 0, 1, 1], [9, 9, 9, 9], [9, 9, 9, 9]])
    assert F.nms(boxes, t64([1.0] * 5), 0.5).numpy().tolist() == [0, 1, 3, 4]  # 0 / 0 drops nothing
    assert F.nms(boxes, t64([1.0, np.nan, 2.0, np.nan, 0.0]), 0.5).numpy().tolist() == [2, 4, 1, 3]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 70, 200])
def test_nms(backend_name, rng, dtype, count):
    corner = rng.uniform(0, 30, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 20, (count, 2))], 1).astype(dtype)
    scores = np.round(rng.random(count), 1).astype(dtype)
    expected = nms_loop(boxes.astype(np.float64), scores, 0.4)
    boxes, scores = trine.tensor(boxes), trine.tensor(scores)
    assert F.nms(boxes, scores, 0.4).numpy().tolist() == expected
    indices, kept = F.nms_padded(boxes, scores, 0.4)
    assert kept.item() == len(expected)
    assert indices.numpy().tolist() == expected + [-1] * (count - len(expected))


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
def test_nms_is_torchvisions(backend_name, rng, threshold):
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("torchvision").ops
    corner = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 50, (300, 2))], 1)
    scores = rng.random(300)
    wanted = theirs.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert F.nms(t64(boxes), t64(scores), threshold).numpy().tolist() == wanted.tolist()


def test_nms_has_no_gradient_and_is_captured_padded(backend_name, rng):
    boxes = t64([[0, 0, 4, 2], [1, 0, 5, 2], [2, 0, 6, 2]]).requires_grad_()
    assert not F.nms(boxes, t64([0.9, 0.5, 0.6]).requires_grad_(), 0.5).requires_grad

    @trine.capture
    def step(scores: trine.Tensor) -> Any:
        return F.nms_padded(boxes, scores, 0.5)

    for scores in ([3, 2, 1], [3, 2, 1], [1, 3, 2], [1, 2, 3], [2, 3, 1]):
        indices, count = step(t64(np.array(scores, float)))
        expected = nms_loop(boxes.detach().numpy(), scores, 0.5)
        assert indices.numpy().tolist()[: count.item()] == expected
    if backend_name == "numba":
        assert step.replays


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f(trine.zeros(3, 5), trine.zeros(3), 0.5), ValueError,
         r"expected boxes of shape \(K, 4\) as \(x1, y1, x2, y2\), got \(3, 5\)"),
        (lambda f: f(trine.zeros(3, 4), trine.zeros(4), 0.5), ValueError,
         r"expected a score for each box of \(3, 4\), got scores \(4,\)"),
        (lambda f: f(trine.zeros(3, 4), trine.zeros(3, dtype="float64"), 0.5), TypeError,
         "expected scores of dtype float32 to match input, got float64"),
        (lambda f: f(trine.zeros(3, 4).long(), trine.zeros(3), 0.5), TypeError,
         "expected boxes of dtype float32 or float64"),
        (lambda f: f(trine.zeros(3, 4), [1, 2, 3], 0.5), TypeError, "expected scores to be a tensor"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("op", ["nms", "nms_padded"])
def test_nms_errors(backend_name, op, call, error, message):
    with pytest.raises(error, match=rf"\[{op}\] {message}"):
        call(getattr(F, op))
