"""What Faster R-CNN learns: targets for anchors and regions, and the cost of both stages.

An anchor is an object if it overlaps a true box by 0.7 or more, or more than any other anchor does;
it is ground if it overlaps none by 0.3; the others are not asked. A region is of the class of the
true box that it overlaps most, by 0.5 or more, else ground. Of each, a random batch an image counts:

    C = CE(anchor scores) + sum smooth(t - t*) / anchors + CE(region scores) + sum smooth(t - t*) / regions

with codes t of the objects only, smooth(d) = d^2 / 2 beta near 0 and |d| beyond. The true boxes
join the regions. (Anchors that leave the image are asked too: in small images most do.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import trine
import trine.functional as F
from trine import random
from trine.models.boxes import PLAIN, Floats, encode, overlaps
from trine.models.detector import CODE_SCALE, FirstStage, like

Labels = npt.NDArray[np.int64]
OBJECT_OVERLAP, GROUND_OVERLAP, CLASS_OVERLAP = 0.7, 0.3, 0.5
OBJECT_SHARE, CLASS_SHARE = 0.5, 0.25
"""The largest part of a batch of anchors, and of regions, that may be objects."""
ANCHOR_BETA, REGION_BETA = 1.0 / 9.0, 1.0
"""Up to which difference of codes the cost is a parabola."""
UNASKED = -100
"""The label that cross-entropy leaves out."""
STREAM = random.stream_id("faster-rcnn batch")


def label_anchors(anchors: Floats, boxes: Floats) -> tuple[Labels, Labels]:
    """Return 1 for object, 0 for ground or UNASKED for each anchor, and its nearest box's number."""
    if len(boxes) == 0:
        return np.zeros(len(anchors), np.int64), np.zeros(len(anchors), np.int64)
    shared = overlaps(anchors, boxes)
    most = shared.max(axis=1)
    labels = np.where(most < GROUND_OVERLAP, 0, UNASKED)
    labels[most >= OBJECT_OVERLAP] = 1
    best = shared.max(axis=0)
    labels[((shared == best) & (best > 0)).any(axis=1)] = 1
    return labels.astype(np.int64), shared.argmax(axis=1)


def draw_batch(
    objects: Labels, ground: Labels, count: int, share: float, *, anew: bool
) -> tuple[Labels, Labels]:
    """Return up to `count` members in all, objects being at most that share of it.

    They are drawn anew by the default generator, or, as an evaluation needs, always in one order.
    """

    def draw(members: Labels, number: int) -> Labels:
        key = random.default_generator().key(STREAM) if anew else random.make_key(0, STREAM)
        return members[random.permutation(key, len(members))[:number]]

    chosen = draw(objects, int(count * share))
    return chosen, draw(ground, count - len(chosen))


def code_cost(
    codes: trine.Tensor, wanted: Floats, counts: npt.NDArray[np.bool_], beta: float
) -> trine.Tensor:
    """Return the sum of smooth(codes - wanted) over the rows (..., 4) that count."""
    target = like(np.where(counts[..., None], wanted, 0.0), codes)
    weight = like(counts[..., None], codes)
    losses = F.smooth_l1_loss(codes, target.expand(codes.shape), reduction="none", beta=beta)
    return (losses * weight).sum()


def anchor_cost(stage: FirstStage, truth: list[Floats], batch: int) -> trine.Tensor:
    """Return the cost of the first stage for true rows (kind, box) of each image."""
    labels, wanted = [], []
    for boxes in (rows[:, 1:] for rows in truth):
        label, nearest = label_anchors(stage.anchors, boxes)
        chosen = draw_batch(
            np.flatnonzero(label == 1), np.flatnonzero(label == 0), batch, OBJECT_SHARE,
            anew=stage.detector.training,
        )  # fmt: skip
        asked = np.full(len(label), UNASKED)
        asked[chosen[0]], asked[chosen[1]] = 1, 0
        labels.append(asked)
        near = boxes[nearest] if len(boxes) else stage.anchors
        wanted.append(encode(near, stage.anchors, PLAIN))
    every = np.stack(labels)
    scores = stage.scores.reshape(-1, 2)
    target = trine.tensor(every.reshape(-1), dtype="int64", backend=scores.backend)
    cost = F.cross_entropy(scores, target, ignore_index=UNASKED)
    places = code_cost(stage.codes, np.stack(wanted), every == 1, ANCHOR_BETA)
    return cost + places * (1.0 / max(int((every != UNASKED).sum()), 1))


def label_regions(regions: Floats, rows: Floats) -> tuple[Labels, Labels]:
    """Return kind + 1 or 0 for the ground for each region, and its nearest box's number."""
    if len(rows) == 0:
        return np.zeros(len(regions), np.int64), np.zeros(len(regions), np.int64)
    shared = overlaps(regions, rows[:, 1:])
    nearest = shared.argmax(axis=1)
    kinds = rows[nearest, 0].astype(np.int64) + 1
    return np.where(shared.max(axis=1) >= CLASS_OVERLAP, kinds, 0), nearest


def region_cost(stage: FirstStage, truth: list[Floats], batch: int) -> trine.Tensor:
    """Return the cost of the second stage on a batch of the first one's proposals."""
    regions, labels, wanted = [], [], []
    for proposals, rows in zip(stage.proposals, truth, strict=True):
        candidates = np.concatenate([proposals, rows[:, 1:]])
        label, nearest = label_regions(candidates, rows)
        chosen = np.concatenate(
            draw_batch(
                np.flatnonzero(label > 0), np.flatnonzero(label == 0), batch, CLASS_SHARE,
                anew=stage.detector.training,
            )
        )  # fmt: skip
        regions.append(candidates[chosen])
        labels.append(label[chosen])
        near = rows[nearest[chosen], 1:] if len(rows) else candidates[chosen]
        wanted.append(encode(near, candidates[chosen], CODE_SCALE))
    label = np.concatenate(labels)
    scores, codes = stage.detector.classify(stage.features, regions)
    target = trine.tensor(label, dtype="int64", backend=scores.backend)
    counts = (np.arange(scores.shape[1]) == label[:, None]) & (label > 0)[:, None]
    places = code_cost(codes, np.concatenate(wanted)[:, None], counts, REGION_BETA)
    return F.cross_entropy(scores, target) + places * (1.0 / max(len(label), 1))


def two_stage_cost(stage: FirstStage, target: trine.Tensor) -> trine.Tensor:
    """Return the cost of both stages; target (N, M, 5) has rows (kind, box), kind < 0 for none."""
    rows = target.detach().numpy().astype(np.float64)
    truth = [one[one[:, 0] >= 0] for one in rows]
    settings = stage.detector.settings
    first = anchor_cost(stage, truth, settings.anchor_batch)
    return first + region_cost(stage, truth, settings.region_batch)
