"""Pooling and picking of boxes in CUDA, run by the emulator."""

from __future__ import annotations

import numpy as np

import trine
import trine.functional as F
from trine.backends import get_backend


def test_only_nms_without_padding_waits_for_the_device(cupy_backend):
    boxes = trine.tensor([[0.0, 0, 4, 2], [1, 0, 5, 2], [2, 0, 6, 2]], backend="cupy")
    scores, counters = trine.tensor([0.9, 0.5, 0.6], backend="cupy"), cupy_backend.counters
    counters.reset()
    indices, count = F.nms_padded(boxes, scores, 0.5)
    assert (counters.uploads, counters.downloads, counters.syncs) == (0, 0, 0)
    assert indices.numpy().tolist() == [0, 2, -1]
    assert count.item() == 2
    counters.reset()
    assert F.nms(boxes, scores, 0.5).shape == (2,)
    assert (counters.uploads, counters.downloads, counters.syncs) == (0, 1, 1)


def test_more_boxes_are_dropped_than_a_block_has_threads(check, order):
    rng = np.random.default_rng(2)
    boxes = rng.uniform(0, 2, (700, 4))
    boxes[:, 2:] += 50
    boxes[::90, :2] += 60
    boxes[::90, 2:] += 60
    check("nms", boxes.astype("float32"), rng.normal(size=700).astype("float32"), iou_threshold=0.5)


def test_boxes_of_no_image_give_zeros_where_nobody_looks(cupy_backend):
    """Values on a device are not checked; nothing is read outside of the input."""
    x = trine.tensor(np.ones((1, 1, 4, 4), np.float32), backend="cupy").requires_grad_()
    rows = [[1.0, 0, 0, 3, 3], [-1, 0, 0, 3, 3], [np.nan, 0, 0, 3, 3], [1e9, 0, 0, 3, 3]]
    boxes = trine.tensor(rows, "float32", backend="cupy")
    for out in (F.roi_pool(x, boxes, 2), F.roi_align(x, boxes, 2)):
        assert not out.detach().numpy().any()
        out.sum().backward()
        assert not x.grad.numpy().any()


def test_gradients_have_the_bytes_of_numba(cupy_backend):
    """Both go through the boxes of a plane in order."""
    rng = np.random.default_rng(1)
    corners = np.sort(rng.uniform(-2, 11, (30, 2, 2)), axis=1).reshape(-1, 4)
    boxes = np.column_stack([rng.integers(0, 2, 30), corners]).astype(np.float32)
    x = np.round(rng.normal(size=(2, 2, 9, 9))).astype(np.float32)
    error = rng.normal(size=(30, 2, 7, 3)).astype(np.float32)
    results = []
    for backend in (get_backend("numba"), cupy_backend):
        a, b, g = (backend.asarray(v) for v in (x, boxes, error))
        _, argmax = backend.roi_pool(a, b, output_size=(7, 3), spatial_scale=1.0)
        grad_x = backend.roi_pool_backward(g, argmax, b, batch=2, input_size=(9, 9))
        results.append(backend.to_numpy(grad_x).tobytes())
    assert results[0] == results[1]
