"""`faster-rcnn` over VGG16's convolutions, and `faster-rcnn-small`, which trains in a minute.

`trine.models.detector` has the two stages, `detector_cost` what they learn, `boxes` how the result
is judged: mAP, the mean over the classes of the average precision at an overlap of 0.5.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

import trine
from trine import nn
from trine.data import Splits
from trine.models.boxes import Detections, Floats, average_precisions, clip, overlaps
from trine.models.desk import Desk
from trine.models.detector import Detector, FirstStage, Settings
from trine.models.detector_cost import label_anchors, two_stage_cost
from trine.models.explanation import Explanation
from trine.models.figures import Images
from trine.models.registry import system
from trine.models.shapes import KINDS, shape_boxes

SOURCE = "source notes 003; Ren, He, Girshick and Sun, Faster R-CNN, 2015"
SMALL = Settings(
    classes=len(KINDS), stride=4, sizes=(16.0, 26.0), ratios=(0.5, 1.0, 2.0), candidates=100,
    proposals=20, anchor_batch=64, region_batch=32, pooled=4, align=True,
)  # fmt: skip
SMALL_SIZE, SMALL_SIDES = 64, (16, 32)
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Maps of the 3x3 convolutions; 0 is a 2x2 maximum."""
FULL_SIZE, FULL_SIDES = 224, (80, 140)
FULL_PARAMETERS = 137_078_239


def small() -> Detector:
    """Return a detector of three kinds in images (N, 3, 64, 64): four convolutions, 64 maps."""
    trunk = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    head = nn.Sequential(nn.Linear(64 * SMALL.pooled**2, 128), nn.ReLU())
    return Detector(trunk, 64, 64, head, 128, SMALL)


def full(classes: int = 20) -> Detector:
    """Return the paper's detector over VGG16, from He's start: its weights are not at hand."""
    layers: list[nn.Module] = []
    channels = 3
    for maps in VGG16:
        if maps == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        conv = nn.Conv2d(channels, maps, 3, padding=1)
        nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
        layers += [conv, nn.ReLU()]
        channels = maps
    settings = Settings(classes=classes)
    head = nn.Sequential(
        nn.Linear(channels * settings.pooled**2, 4096), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5),
    )  # fmt: skip
    return Detector(nn.Sequential(*layers), channels, 512, head, 4096, settings)


def first_stage(model: Detector, x: Floats) -> FirstStage:
    """Return the first stage's output for images."""
    with trine.no_grad():
        stage: FirstStage = model(Desk.of(model).tensor(x))
    return stage


def detect(model: Detector, x: Floats, batch: int = 50) -> list[Detections]:
    """Return what is found in images, some at a time."""
    desk = Desk.of(model)
    found: list[Detections] = []
    for first in range(0, len(x), batch):
        found += model.detect(desk.tensor(x[first : first + batch]))
    return found


def true_rows(y: Floats) -> list[Floats]:
    """Return each image's rows (kind, left, top, right, bottom) without those that stand for none."""
    return [np.asarray(rows[rows[:, 0] >= 0], dtype=np.float64) for rows in y]


def recall_of(proposals: list[Floats], truth: list[Floats], overlap: float = 0.5) -> float:
    """Return the share of the true boxes that some proposal overlaps by so much."""
    hits = [
        (overlaps(boxes, rows[:, 1:]).max(axis=0, initial=0.0) >= overlap)
        for boxes, rows in zip(proposals, truth, strict=True)
    ]
    return float(np.concatenate(hits).mean())


def show_small(model: Detector, splits: Splits) -> Explanation:
    """Measure mAP on the test set, and draw anchors, proposals and detections."""
    desk = Desk.of(model)
    note = Explanation(
        "faster-rcnn-small", "Anchors, proposals, detections", SOURCE, desk.backend, desk.dtype,
        ["AP = sum_k (r_k - r_(k-1)) max over r >= r_k of precision(r)      mAP = its mean"],
    )  # fmt: skip
    truth = true_rows(splits.test.y)
    found = detect(model, splits.test.x)
    precisions = average_precisions(found, truth, len(KINDS))
    for name, precision in zip(KINDS, precisions, strict=True):
        note.show(f"AP {name}", "average precision at overlap 0.5, test set", precision)
    note.at_least("mAP@0.5", "mean over the classes", precisions.mean(), 0.8)
    shown = splits.test.x[:8]
    stage = first_stage(model, shown)
    note.show("recall", f"boxes among {SMALL.proposals} proposals, first images",
              recall_of(stage.proposals, truth[:8]))  # fmt: skip
    rows = first_stage_rows(truth[:8], stage.anchors, stage.proposals)
    rows["found, score 0.5 and more"] = [list(one.boxes[one.scores >= 0.5]) for one in found[:8]]
    note.drawings["boxes"] = with_boxes("Faster R-CNN on made shapes", shown, rows)
    return note


def first_stage_rows(
    truth: list[Floats], anchors: Floats, proposals: list[Floats]
) -> dict[str, list[list[Floats]]]:
    """Return what is drawn of the first stage: for each row of pictures, each picture's boxes."""
    objects = [anchors[label_anchors(anchors, rows[:, 1:])[0] == 1] for rows in truth]
    return {
        "truth": [list(rows[:, 1:]) for rows in truth],
        "anchors that count as objects": [list(boxes) for boxes in objects],
        "first 6 proposals": [list(boxes[:6]) for boxes in proposals],
    }


def with_boxes(title: str, x: Floats, rows: dict[str, list[list[Floats]]]) -> Images:
    """Return a drawing of pictures (N, 3, H, W), once for each row of boxes, cut to the pictures."""
    pictures = x.transpose(0, 2, 3, 1).clip(0, 1)
    boxes = {
        name: [[_box(clip(box, *x.shape[2:])) for box in one] for one in images]
        for name, images in rows.items()
    }
    return Images(title, dict.fromkeys(rows, pictures), boxes)


def _box(row: Floats) -> tuple[float, float, float, float]:
    """Return a box in the coordinates of a drawing, where pixel 0 has its middle at 0."""
    left, top, right, bottom = (float(v) - 0.5 for v in row)
    return left, top, right, bottom


def show_full(model: Detector, splits: Splits) -> Explanation:
    """Count the parameters and measure how far the first steps brought the net."""
    desk = Desk.of(model)
    note = Explanation("faster-rcnn", "VGG16's detector: its size and its first steps", SOURCE,
                       desk.backend, desk.dtype)  # fmt: skip
    count = sum(p.numel() for p in model.parameters())
    note.equal("parameters", "with 20 classes and 9 anchors a cell", count, FULL_PARAMETERS, 0.0)
    costs: list[float] = []
    proposals: list[Floats] = []
    for x, y in zip(splits.test.x, splits.test.y, strict=True):
        stage = first_stage(model, x[None])
        with trine.no_grad():
            costs.append(two_stage_cost(stage, desk.tensor(y[None])).item())
        proposals += stage.proposals
    start = math.log(2) + math.log(21)
    note.show("ln 2 + ln 21", "cost of guessing in both stages, without the codes'", start)
    note.at_most("cost", "of both stages on held-out pictures", np.mean(costs), start)
    rows = first_stage_rows(true_rows(splits.test.y), stage.anchors, proposals)
    title = "Faster R-CNN after its first steps, held-out pictures"
    note.drawings["boxes"] = with_boxes(title, splits.test.x, rows)
    return note


@system(
    "faster-rcnn-small",
    family="convolutional",
    year=2015,
    source=SOURCE,
    summary="anchors, proposals, RoIAlign, two stages: finds made shapes in 64x64 pictures",
    data=partial(shape_boxes, 600, 150, SMALL_SIZE, SMALL_SIDES),
    loss=two_stage_cost,
    hold=Detector.held,
    metrics=(),
    optimizer="adam",
    lr=1e-3,
    schedule="cosine",
    batch_size=4,
    epochs=5,
    shows=show_small,
)
def build_small() -> Detector:
    """Return the small detector."""
    return small()


@system(
    "faster-rcnn",
    family="convolutional",
    year=2015,
    source=SOURCE,
    summary="VGG16 and RoIPool, 137,078,239 parameters; a few steps on made 224x224 pictures",
    data=partial(shape_boxes, 12, 4, FULL_SIZE, FULL_SIDES),
    loss=two_stage_cost,
    hold=Detector.held,
    metrics=(),
    optimizer="sgd",
    lr=1e-3,
    batch_size=1,
    epochs=1,
    shows=show_full,
)
def build_full() -> Detector:
    """Return the paper's detector for 20 classes."""
    return full()
