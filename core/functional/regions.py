"""Regions of images under torchvision's names: pooling boxes, and picking boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trine.autograd import apply, define
from trine.backends import Backend
from trine.dtypes import Array
from trine.functional.checks import check_values, require_float, require_like, require_tensor
from trine.functional.conv import require_images
from trine.functional.padding import Pair, pad, pair
from trine.joining import cat
from trine.tensor import Tensor

Boxes = Tensor | Sequence[Tensor]


def _roi_pool(
    be: Backend, x: Array, boxes: Array, *, output_size: Pair, spatial_scale: float
) -> Any:
    out, argmax = be.roi_pool(x, boxes, output_size=output_size, spatial_scale=spatial_scale)
    return out, (argmax, boxes, x.shape)


def _roi_pool_backward(be: Backend, saved: Any, grads: Any, needs: Any, **_: Any) -> Any:
    argmax, boxes, shape = saved
    size = {"batch": shape[0], "input_size": shape[2:]}
    return be.roi_pool_backward(grads[0], argmax, boxes, **size), None


ROI_POOL = define("roi_pool", _roi_pool, _roi_pool_backward, keeps=(1,))


def _roi_align(be: Backend, x: Array, boxes: Array, **how: Any) -> Any:
    return be.roi_align(x, boxes, **how), (boxes, x.shape)


def _roi_align_backward(
    be: Backend, saved: Any, grads: Any, needs: Any, *, output_size: Pair, **how: Any
) -> Any:
    boxes, shape = saved
    size = {"batch": shape[0], "input_size": shape[2:]}
    return be.roi_align_backward(grads[0], boxes, **size, **how), None


ROI_ALIGN = define("roi_align", _roi_align, _roi_align_backward, keeps=(1,))


def roi_pool(
    input: Tensor, boxes: Boxes, output_size: int | Sequence[int], spatial_scale: float = 1.0
) -> Tensor:
    """Cut each box into P x Q bins of whole elements and take the maximum of each.

    Corners are multiplied by `spatial_scale` and rounded; both belong to the box. Bins outside of
    the image give 0; the gradient goes to the first maximum. Boxes are constants.
    input: (N, C, H, W); boxes: (K, 5) rows (image, x1, y1, x2, y2), or for each image a tensor
    (K_n, 4) -> (K, C, P, Q). Raises ValueError for shapes that do not match and for images that do
    not exist (on a GPU, which would have to wait, such boxes give 0), TypeError for other dtypes.
    Source: Girshick, 2015 (Fast R-CNN); torchvision.ops.roi_pool.
    """
    op = "roi_pool"
    size = pair(op, "output_size", output_size, 1)
    rows = _rows(op, input, boxes)
    return apply(  # type: ignore[no-any-return]
        ROI_POOL, input, rows, output_size=size, spatial_scale=float(spatial_scale)
    )


def roi_align(
    input: Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Cut each box into P x Q bins and average samples of each, bilinearly interpolated.

    A bin has `sampling_ratio` samples along each axis, or (0 or less) as many as it has elements,
    rounded up. `aligned` moves boxes by half a pixel, so that pixels' centres are where they belong;
    without it a box is at least one element wide. Samples outside of the image count as 0. Boxes are
    constants. input: (N, C, H, W); boxes: (K, 5) rows (image, x1, y1, x2, y2), or for each image a
    tensor (K_n, 4) -> (K, C, P, Q). Raises as `roi_pool`.
    Source: He et al., 2017 (Mask R-CNN); torchvision.ops.roi_align.
    """
    op = "roi_align"
    size = pair(op, "output_size", output_size, 1)
    if isinstance(sampling_ratio, bool) or not isinstance(sampling_ratio, int):
        raise TypeError(
            f"[{op}] expected sampling_ratio as an int (-1: by the box), got {sampling_ratio!r}. "
            "Correct sampling_ratio."
        )
    rows = _rows(op, input, boxes)
    return apply(  # type: ignore[no-any-return]
        ROI_ALIGN,
        input,
        rows,
        output_size=size,
        spatial_scale=float(spatial_scale),
        sampling_ratio=max(sampling_ratio, 0),
        aligned=bool(aligned),
    )


def _rows(op: str, input: Tensor, boxes: Boxes) -> Tensor:
    """Return boxes as (K, 5), checked."""
    require_images(op, input)
    if 0 in input.shape[2:]:
        raise ValueError(
            f"[{op}] expected images with elements, got input {input.shape}. Check its axes."
        )
    n = input.shape[0]
    if not isinstance(boxes, Tensor):
        return _joined(op, input, boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(
            f"[{op}] expected boxes (K, 5) as (image, x1, y1, x2, y2), or a list with a tensor (K, 4) "
            f"for each image, got shape {boxes.shape}. Put the image's number in front."
        )
    require_like(op, "boxes", boxes, boxes.shape, input)
    if n == 0 and boxes.shape[0]:
        raise ValueError(
            f"[{op}] expected boxes of images, got {boxes.shape[0]} boxes but input {input.shape} has "
            "no image. Pass no boxes."
        )
    images = boxes.data[:, 0]

    def check() -> None:
        if not (images.min() >= 0 and images.max() < n):
            raise ValueError(
                f"[{op}] expected images from 0 to {n - 1} in the first column of boxes, for input "
                f"{input.shape}, got {images.min():g} to {images.max():g}. Check the column."
            )

    check_values(boxes, check)
    return boxes.detach()


def _joined(op: str, input: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """Return the boxes of each image with its number in front."""
    if not isinstance(boxes, (list, tuple)):
        require_tensor(op, "boxes", boxes)
    n = input.shape[0]
    if len(boxes) != n:
        raise ValueError(
            f"[{op}] expected a tensor of boxes for each of the {n} images of input {input.shape}, got "
            f"{len(boxes)}. Pass a tensor (0, 4) for an image without boxes."
        )
    for i, one in enumerate(boxes):
        require_tensor(op, f"boxes[{i}]", one)
        if one.ndim != 2 or one.shape[1] != 4:
            raise ValueError(
                f"[{op}] expected boxes[{i}] of shape (K, 4) as (x1, y1, x2, y2), got {one.shape}. In a "
                "list a box has no image's number."
            )
        require_like(op, f"boxes[{i}]", one, one.shape, input)
    if n == 0:
        return input.detach().reshape(0, 5)
    return cat([pad(one.detach(), (1, 0), value=float(i)) for i, one in enumerate(boxes)])


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return the indices of the boxes that non-maximum suppression keeps, by falling score.

    The best box is kept, all whose overlap (intersection / union) with it is above the threshold are
    dropped, and so on; equal scores go by index. Host-bound: how many are kept depends on values, so
    a GPU is waited for and a captured step must use `nms_padded`.
    boxes: (K, 4) as (x1, y1, x2, y2), scores: (K,) of the same dtype -> int64. Raises ValueError for
    other shapes, TypeError for other dtypes. Source: torchvision.ops.nms.
    """
    indices, count = _nms("nms", boxes, scores, iou_threshold)
    return indices[: int(count.item())]


def nms_padded(boxes: Tensor, scores: Tensor, iou_threshold: float) -> tuple[Tensor, Tensor]:
    """Do what `nms` does without waiting for a device: return (indices, count).

    indices: int64 (K,), those of the kept boxes and then -1; count: int64 (), how many are kept.
    """
    return _nms("nms_padded", boxes, scores, iou_threshold)


def _nms(op: str, boxes: Tensor, scores: Tensor, iou_threshold: float) -> tuple[Tensor, Tensor]:
    require_float(op, "boxes", boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"[{op}] expected boxes of shape (K, 4) as (x1, y1, x2, y2), got {boxes.shape}. Reshape "
            "them."
        )
    require_tensor(op, "scores", scores)
    if scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"[{op}] expected a score for each box of {boxes.shape}, got scores {scores.shape}. Pass "
            f"scores of shape ({boxes.shape[0]},)."
        )
    require_like(op, "scores", scores, scores.shape, boxes)
    found: tuple[Tensor, Tensor] = apply(
        NMS, boxes.detach(), scores.detach(), iou_threshold=float(iou_threshold)
    )
    return found


def _nms_forward(be: Backend, boxes: Array, scores: Array, *, iou_threshold: float) -> Any:
    return be.nms(boxes, scores, iou_threshold=iou_threshold), ()


def _nms_backward(be: Backend, saved: Any, grads: Any, needs: Any, **_: Any) -> Any:
    return None, None  # indices have no gradient


NMS = define("nms", _nms_forward, _nms_backward)
