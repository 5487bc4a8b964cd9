"""The two stages of Faster R-CNN: proposals from anchors, then a class and a box for each.

    trunk       images -> feature maps, a cell for every `stride` pixels
    proposals   at each cell, for each anchor: is there an object (2 scores), and where (a code)
                the best boxes, by non-maximum suppression -> the regions that are looked at
    regions     each pooled from the maps to a fixed size -> full layers
                -> scores of the ground and K classes, and a code for each class

Which boxes go on to the second stage depends on numbers, so these are read from the device in
between, and regions are constants to autograd: no error goes back through their corners.
Source: Ren, He, Girshick and Sun, Faster R-CNN, 2015; source notes 003.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import trine
import trine.functional as F
from trine import nn
from trine.models.boxes import Detections, Floats, Scale, clip, decode, make_anchors

CODE_SCALE: Scale = (10.0, 10.0, 5.0, 5.0)
"""Codes of the second stage times this have a deviation of about 1."""
PROPOSAL_OVERLAP = 0.7
DETECTION_OVERLAP = 0.3
"""Above which overlap the lesser of two boxes is dropped: of proposals, of detections of a class."""
LOWEST_SCORE = 0.05


@dataclass(frozen=True)
class Settings:
    """Sizes of a detector; the defaults are the paper's."""

    classes: int = 20
    stride: int = 16
    sizes: tuple[float, ...] = (128.0, 256.0, 512.0)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    candidates: int = 6000
    """Anchors of an image whose boxes enter the suppression, by falling score."""
    proposals: int = 300
    """Regions of an image that leave it."""
    anchor_batch: int = 256
    region_batch: int = 128
    """Anchors and regions of an image that are learned from."""
    pooled: int = 7
    align: bool = False
    """RoIAlign instead of RoIPool."""


class FirstStage(NamedTuple):
    """What the first stage says of N images with A anchors each."""

    features: trine.Tensor
    """(N, C, H, W)"""
    scores: trine.Tensor
    """(N, A, 2): ground, object."""
    codes: trine.Tensor
    """(N, A, 4), relative to the anchors."""
    anchors: Floats
    """(A, 4)"""
    proposals: list[Floats]
    """(K_n, 4) for each image."""
    detector: Detector
    """Has the second stage."""


class ProposalNet(nn.Module):
    """A 3x3 convolution and ReLU, then scores and codes of every anchor by 1x1 convolutions."""

    def __init__(self, channels: int, hidden: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1)
        self.score = nn.Conv2d(hidden, 2 * anchors, 1)
        self.code = nn.Conv2d(hidden, 4 * anchors, 1)
        for layer in (self.conv, self.score, self.code):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, features: trine.Tensor) -> tuple[trine.Tensor, trine.Tensor]:
        """(N, C, H, W) -> scores (N, H W anchors, 2), codes (N, H W anchors, 4)."""
        x = self.conv(features, "relu")
        n = x.shape[0]
        scores = self.score(x).permute(0, 2, 3, 1).reshape(n, -1, 2)
        codes = self.code(x).permute(0, 2, 3, 1).reshape(n, -1, 4)
        return scores, codes


class Detector(nn.Module):
    """Faster R-CNN over any trunk.

    trunk: images -> (N, channels, H, W). head: pooled regions (R, channels * pooled^2) -> (R, width).
    """

    def __init__(
        self, trunk: nn.Module, channels: int, hidden: int, head: nn.Module, width: int,
        settings: Settings,
    ) -> None:  # fmt: skip
        super().__init__()
        self.settings = settings
        self._held: list[Floats] | None = None
        self.trunk = trunk
        self.rpn = ProposalNet(channels, hidden, len(settings.sizes) * len(settings.ratios))
        self.head = head
        self.score = nn.Linear(width, settings.classes + 1)
        self.code = nn.Linear(width, 4 * (settings.classes + 1))
        for layer, std in ((self.score, 0.01), (self.code, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, images: trine.Tensor) -> FirstStage:
        """Run the first stage on images (N, 3, H, W)."""
        features = self.trunk(images)
        scores, codes = self.rpn(features)
        s = self.settings
        rows, columns = features.shape[2:]
        anchors = make_anchors(rows, columns, s.stride, s.sizes, s.ratios)
        size = (images.shape[2], images.shape[3])
        proposals = self._held
        if proposals is None:
            proposals = self._propose(scores.detach(), codes.detach(), anchors, size)
        return FirstStage(features, scores, codes, anchors, proposals, self)

    @contextmanager
    def held(self, images: trine.Tensor) -> Iterator[None]:
        """Within the block, propose what is proposed for these images now, whatever the weights.

        The cost is then smooth in the weights, as its gradient has it, which takes regions for
        constants; else a weight that moves a little may change which regions there are.
        """
        with trine.no_grad():
            stage: FirstStage = self(images)
        self._held = stage.proposals
        try:
            yield
        finally:
            self._held = None

    def _propose(
        self, scores: trine.Tensor, codes: trine.Tensor, anchors: Floats, size: tuple[int, int]
    ) -> list[Floats]:
        """Return each image's best boxes that do not overlap much, by falling score."""
        margins = (scores[:, :, 1] - scores[:, :, 0]).numpy()
        coded = codes.numpy()
        found = []
        for margin, code in zip(margins, coded, strict=True):
            best = np.argsort(-margin, kind="stable")[: self.settings.candidates]
            boxes = clip(decode(code[best].astype(np.float64), anchors[best]), *size)
            large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= self.settings.stride
            boxes = boxes[large]
            kept = _suppress(boxes, margin[best][large], PROPOSAL_OVERLAP, scores)
            found.append(boxes[kept[: self.settings.proposals]])
        return found

    def classify(
        self, features: trine.Tensor, regions: list[Floats]
    ) -> tuple[trine.Tensor, trine.Tensor]:
        """Run the second stage on each image's regions, R in all.

        Returns scores (R, classes + 1) and codes (R, classes + 1, 4) relative to the regions.
        """
        s = self.settings
        boxes = [like(one.reshape(-1, 4), features) for one in regions]
        if s.align:
            pooled = F.roi_align(features, boxes, s.pooled, 1 / s.stride, 2, aligned=True)
        else:
            pooled = F.roi_pool(features, boxes, s.pooled, 1 / s.stride)
        x = self.head(pooled.flatten(1))
        return self.score(x), self.code(x).reshape(x.shape[0], s.classes + 1, 4)

    def detect(self, images: trine.Tensor) -> list[Detections]:
        """Return what is in each image: all classes' boxes, best first, after suppression."""
        with trine.no_grad():
            stage = self(images)
            scores, codes = self.classify(stage.features, stage.proposals)
            shares = F.softmax(scores, 1).numpy().astype(np.float64)
            coded = codes.numpy().astype(np.float64)
            found, first = [], 0
            for regions in stage.proposals:
                part = slice(first, first + len(regions))
                first += len(regions)
                found.append(self._pick(shares[part], coded[part], regions, images))
        return found

    def _pick(
        self, shares: Floats, codes: Floats, regions: Floats, images: trine.Tensor
    ) -> Detections:
        """Return the detections of an image from its regions' probabilities and codes."""
        boxes, scores, kinds = [], [], []
        for kind in range(self.settings.classes):
            likely = np.flatnonzero(shares[:, kind + 1] >= LOWEST_SCORE)
            score = shares[likely, kind + 1]
            places = decode(codes[likely, kind + 1], regions[likely], CODE_SCALE)
            places = clip(places, images.shape[2], images.shape[3])
            kept = _suppress(places, score, DETECTION_OVERLAP, images)
            boxes.append(places[kept])
            scores.append(score[kept])
            kinds.append(np.full(len(kept), kind))
        every = np.concatenate(scores)
        order = np.argsort(-every, kind="stable")
        return Detections(
            np.concatenate(boxes)[order],
            every[order],
            np.concatenate(kinds).astype(np.int64)[order],
        )


def like(array: np.ndarray, other: trine.Tensor) -> trine.Tensor:
    """Return an array as a tensor of another one's backend and dtype."""
    return trine.tensor(array, dtype=other.dtype, backend=other.backend)


def _suppress(boxes: Floats, scores: np.ndarray, overlap: float, there: trine.Tensor) -> np.ndarray:
    """Return the positions of the boxes that non-maximum suppression keeps, best first."""
    return F.nms(like(boxes, there), like(scores, there), overlap).numpy()
