"""Faster R-CNN: sizes, proposals, targets, cost; made scenes and what segmentation is judged by."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import trine
from trine import models, nn
from trine.models import faster_rcnn
from trine.models.boxes import encode, overlaps
from trine.models.detector import Detector
from trine.models.detector_cost import (
    UNASKED,
    anchor_cost,
    code_cost,
    draw_batch,
    label_anchors,
    label_regions,
    two_stage_cost,
)
from trine.models.faster_rcnn import FULL_PARAMETERS, SMALL, small, true_rows
from trine.models.segmentation import class_ious
from trine.models.shapes import KINDS, draw_scenes, shape_boxes
from trine.nn import init


@pytest.fixture(scope="module")
def scenes() -> tuple[np.ndarray, np.ndarray]:
    made = draw_scenes("test", 6, 64, most=3, sides=faster_rcnn.SMALL_SIDES)
    return made.images, made.boxes


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_size() -> None:
    system = models.get("faster-rcnn")
    assert system.build is not None
    assert system.loss is models.get("faster-rcnn-small").loss  # the same code
    with trine.use("numpy"), init.skipped():
        model = system.build()
    assert isinstance(model, Detector)
    assert count(model) == FULL_PARAMETERS == 137_078_239
    trunk, head = count(model.trunk), count(model.head)
    assert trunk == 14_714_688  # VGG16's convolutions
    # Simonyan and Zisserman, 2014: VGG16 for a thousand classes has 138 million.
    assert trunk + head + (4096 + 1) * 1000 == 138_357_544
    # Ren et al., section 3.1: proposals take 3x3x512x512 + 512x(4+2)x9 = 2.4 million weights.
    biases = 512 + (4 + 2) * 9
    assert count(model.rpn) - biases == 3 * 3 * 512 * 512 + 512 * (4 + 2) * 9
    assert (model.rpn.score.out_channels, model.rpn.code.out_channels) == (18, 36)
    # Section 3.1: three sizes and three ratios; 300 proposals, of which the head knows 20 classes.
    s = model.settings
    assert (s.sizes, s.ratios) == ((128.0, 256.0, 512.0), (0.5, 1.0, 2.0))
    assert (s.proposals, s.align) == (300, False)
    assert count(model.score) + count(model.code) == (4096 + 1) * (20 + 1) * (1 + 4)


def test_first_stage_proposes_boxes_in_the_image(scenes, backend_name: str) -> None:  # type: ignore[no-untyped-def]
    stage = small()(trine.tensor(scenes[0]))
    anchors = 16 * 16 * 6
    assert stage.features.shape == (6, 64, 16, 16)
    assert (stage.scores.shape, stage.codes.shape) == ((6, anchors, 2), (6, anchors, 4))
    assert stage.anchors.shape == (anchors, 4)
    for boxes in stage.proposals:
        assert 0 < len(boxes) <= SMALL.proposals
        assert boxes.min() >= 0
        assert boxes.max() <= 64
        assert (boxes[:, 2:] - boxes[:, :2]).min() >= SMALL.stride
        shared = overlaps(boxes, boxes) - np.eye(len(boxes))
        assert shared.max() <= 0.7 + 1e-6


def test_proposals_follow_scores_and_codes(scenes) -> None:  # type: ignore[no-untyped-def]
    with trine.use("numpy"):
        model = small()
        anchors = faster_rcnn.first_stage(model, scenes[0][:1]).anchors
        scores, codes = np.zeros((1, len(anchors), 2)), np.zeros((1, len(anchors), 4))
        wanted = np.array([10.0, 12.0, 40.0, 36.0])
        near = 777
        scores[0, near, 1] = 5.0
        codes[0, near] = encode(wanted, anchors[near])
        found = model._propose(trine.tensor(scores), trine.tensor(codes), anchors, (64, 64))
    np.testing.assert_allclose(found[0][0], wanted, atol=1e-9)


def test_rows_of_scores_belong_to_their_anchors() -> None:
    """A cell's score map (2 A, H, W) comes out in the order of the anchors: row, column, anchor."""
    with trine.use("numpy"):
        model = small()
        net = model.rpn
        features = np.random.default_rng(0).normal(size=(1, 64, 3, 5)).astype(np.float32)
        scores, codes = net(trine.tensor(features))
        maps = net.score(net.conv(trine.tensor(features), "relu")).detach().numpy()
        code_maps = net.code(net.conv(trine.tensor(features), "relu")).detach().numpy()
    row, column, anchor = 2, 3, 4
    place = (row * 5 + column) * 6 + anchor
    np.testing.assert_allclose(
        scores.detach().numpy()[0, place], maps[0, 2 * anchor : 2 * anchor + 2, row, column]
    )
    np.testing.assert_allclose(
        codes.detach().numpy()[0, place], code_maps[0, 4 * anchor : 4 * anchor + 4, row, column]
    )


def test_labels_of_anchors() -> None:
    boxes = np.array([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    anchors = np.array(
        [
            [0.0, 0.0, 10.0, 8.0],  # 0.8 of the first
            [0.0, 0.0, 10.0, 5.0],  # 0.5: not asked
            [0.0, 0.0, 10.0, 2.0],  # 0.2: ground
            [54.0, 54.0, 64.0, 64.0],  # 0.22 of the second, but the best it has
            [20.0, 20.0, 30.0, 30.0],
        ]
    )
    labels, nearest = label_anchors(anchors, boxes)
    assert labels.tolist() == [1, UNASKED, 0, 1, 0]
    assert nearest[:4].tolist() == [0, 0, 0, 1]
    assert label_anchors(anchors, boxes[:0])[0].tolist() == [0] * 5


def test_labels_of_regions() -> None:
    rows = np.array([[2, 0.0, 0.0, 10.0, 10.0], [0, 0.0, 0.0, 10.0, 4.0]])
    regions = np.array([[0.0, 0.0, 10.0, 6.0], [0.0, 0.0, 10.0, 4.9], [0.0, 0.0, 3.0, 3.0]])
    labels, nearest = label_regions(regions, rows)
    assert labels.tolist() == [1, 1, 0]  # 0.667 of the second and 0.6 of the first; 0.816; neither
    assert nearest[:2].tolist() == [1, 1]


def test_a_batch_is_drawn_anew_each_time_and_bounded() -> None:
    trine.seed(5)
    objects, ground = np.arange(40), np.arange(100, 200)
    first = draw_batch(objects, ground, 20, 0.25, anew=True)
    assert (len(first[0]), len(first[1])) == (5, 15)
    assert set(first[0]) <= set(objects)
    second = draw_batch(objects, ground, 20, 0.25, anew=True)
    assert not np.array_equal(first[1], second[1])
    trine.seed(5)
    assert np.array_equal(draw_batch(objects, ground, 20, 0.25, anew=True)[1], first[1])
    few = draw_batch(objects[:2], ground[:3], 20, 0.25, anew=False)
    assert (len(few[0]), len(few[1])) == (2, 3)
    drawn = trine.random.default_generator().state()
    still = [draw_batch(objects, ground, 20, 0.25, anew=False)[1] for _ in range(2)]
    assert np.array_equal(*still)
    assert trine.random.default_generator().state() == drawn


def test_cost_of_codes_by_hand(backend_name: str) -> None:
    codes = trine.tensor([[0.5, -2.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]])
    found = code_cost(codes, np.zeros((2, 4)), np.array([True, False]), beta=1.0)
    assert found.item() == pytest.approx(0.5 * 0.25 + (2.0 - 0.5))


def test_a_cost_of_right_answers_is_nearly_nothing(scenes) -> None:  # type: ignore[no-untyped-def]
    with trine.use("numpy"):
        model = small()
        stage = faster_rcnn.first_stage(model, scenes[0][:2])
        truth = true_rows(scenes[1][:2])
        scores, codes = (
            np.zeros((2, *stage.anchors.shape[:1], 2)),
            np.zeros((2, *stage.anchors.shape)),
        )
        for n, rows in enumerate(truth):
            labels, nearest = label_anchors(stage.anchors, rows[:, 1:])
            scores[n, :, 1] = np.where(labels == 1, 20.0, -20.0)
            codes[n] = encode(rows[nearest, 1:], stage.anchors)
        perfect = stage._replace(scores=trine.tensor(scores), codes=trine.tensor(codes))
        assert anchor_cost(perfect, truth, 64).item() < 1e-6
        wrong = stage._replace(scores=trine.tensor(-scores), codes=trine.tensor(codes))
        assert anchor_cost(wrong, truth, 64).item() > 19


def test_untrained_cost_is_that_of_guessing(scenes, backend_name: str) -> None:  # type: ignore[no-untyped-def]
    model, target = small(), trine.tensor(scenes[1])
    stage = model(trine.tensor(scenes[0]))
    cost = two_stage_cost(stage, target)
    guess = math.log(2) + math.log(len(KINDS) + 1)
    assert guess < cost.item() < guess + 1.0  # and something for the codes
    cost.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert np.abs(parameter.grad.numpy()).max() > 0, name


def test_gradients_of_the_cost_are_those_of_differences(backend_name: str) -> None:
    scene = draw_scenes("gradients", 1, 32, most=2, sides=(12, 16))
    model = small().to(dtype="float64").eval()  # evaluation draws the same batches every time
    x = trine.tensor(scene.images, dtype="float64")
    target = trine.tensor(scene.boxes, dtype="float64")
    weights = [model.trunk[0].weight, model.rpn.conv.weight, model.score.weight, model.code.weight]
    with model.held(x):  # proposals are constants to autograd, so they must not move
        trine.gradcheck(lambda *_: two_stage_cost(model(x), target), weights)


def test_proposals_are_held_within_the_block_only(scenes) -> None:  # type: ignore[no-untyped-def]
    with trine.use("numpy"), trine.no_grad():
        model, x = small(), trine.tensor(scenes[0][:1])
        before = model(x).proposals[0]
        with model.held(x):
            model.rpn.score.weight.mul_(-1.0)
            np.testing.assert_array_equal(model(x).proposals[0], before)
        assert not np.array_equal(model(x).proposals[0], before)
    assert models.get("faster-rcnn-small").hold is Detector.held


def test_detections_are_what_the_second_stage_says(scenes, backend_name: str) -> None:  # type: ignore[no-untyped-def]
    model = small()
    with trine.no_grad():
        assert model.score.bias is not None
        model.score.weight.fill_(0.0)
        model.score.bias.copy_(trine.tensor([0.0, -20.0, 3.0, -20.0]))
        model.code.weight.fill_(0.0)
        assert model.code.bias is not None
        codes = np.zeros((len(KINDS) + 1, 4))
        codes[2] = (1.0, 0.0, 0.0, 0.0)  # kind 1: a tenth of the width to the right
        model.code.bias.copy_(trine.tensor(codes.ravel().tolist()))
    stage = faster_rcnn.first_stage(model, scenes[0][:1])
    found = model.detect(trine.tensor(scenes[0][:1]))[0]
    assert set(found.kinds.tolist()) == {1}
    share = math.exp(3) / (math.exp(3) + 1)
    np.testing.assert_allclose(found.scores, share, rtol=1e-5)
    moved = stage.proposals[0].astype(np.float64)
    moved[:, [0, 2]] += 0.1 * (moved[:, 2] - moved[:, 0])[:, None]
    moved[:, [0, 2]] = moved[:, [0, 2]].clip(0, 64)
    known = {tuple(np.round(box, 3)) for box in moved.astype(np.float32)}
    assert {tuple(np.round(box, 3)) for box in found.boxes.astype(np.float32)} <= known
    apart = overlaps(found.boxes, found.boxes) - np.eye(len(found.boxes))
    assert apart.max() <= 0.3 + 1e-6


@pytest.mark.parametrize(
    ("align", "expected"),
    [(False, 6.0), (True, 3.5)],  # the largest of columns 2 to 6; the value at x = 16
)
def test_regions_are_pooled_from_their_own_place(
    align: bool, expected: float, backend_name: str
) -> None:
    """On maps that hold their columns' numbers a region of pixels 8 to 24 is known."""
    settings = replace(SMALL, align=align, pooled=1)
    model = Detector(nn.Identity(), 1, 1, nn.Identity(), 1, settings)
    with trine.no_grad():
        assert model.score.bias is not None
        model.score.weight.fill_(1.0)
    columns = np.broadcast_to(np.arange(16, dtype=np.float32), (1, 1, 16, 16))
    region = np.array([[8.0, 8.0, 24.0, 24.0]])
    scores, codes = model.classify(trine.tensor(np.ascontiguousarray(columns)), [region])
    assert codes.shape == (1, len(KINDS) + 1, 4)
    np.testing.assert_allclose(scores.detach().numpy(), [[expected] * (len(KINDS) + 1)], rtol=1e-6)


def test_showing_the_first_steps_judges_size_and_cost_and_draws() -> None:
    """What `trine train faster-rcnn` prints and draws, with a net that is not of its size."""
    splits = shape_boxes(1, 2, 32, (12, 20))
    with trine.use("numpy"):
        note = faster_rcnn.show_full(small().eval(), splits)
    found = {row.symbol: row for row in note.rows}
    assert found["parameters"].value == 234_328
    assert not found["parameters"].ok
    assert found["cost"].reference == pytest.approx(math.log(2) + math.log(21))
    assert found["cost"].ok  # of guessing among four kinds
    drawing = note.drawings["boxes"]
    truth = [len(rows) for rows in true_rows(splits.test.y)]
    assert [len(boxes) for boxes in drawing.boxes["truth"]] == truth
    assert all(drawing.boxes["first 6 proposals"])


# Scenes


def test_scenes_are_what_their_boxes_and_masks_say() -> None:
    made = draw_scenes("check", 30, 48, most=3, sides=(12, 20))
    assert made.images.dtype == np.float32
    seen = set()
    for image, mask, rows in zip(made.images, made.masks, made.boxes, strict=True):
        boxes = rows[rows[:, 0] >= 0]
        assert 1 <= len(boxes) <= 3
        shared = overlaps(boxes[:, 1:], boxes[:, 1:]) - np.eye(len(boxes))
        assert shared.max() == 0
        covered = np.zeros_like(mask)
        for kind, left, top, right, bottom in boxes.astype(int):
            assert 12 <= right - left <= 20
            assert 12 <= bottom - top <= 20
            part = mask[top:bottom, left:right]
            assert set(np.unique(part)) <= {0, kind + 1}
            assert (part[:, [0, -1]] > 0).any() or KINDS[kind] != "rectangle"
            covered[top:bottom, left:right] = part
            share = (part > 0).mean()
            low, high = {"rectangle": (1, 1), "ellipse": (0.74, 0.84), "triangle": (0.45, 0.56)}[
                KINDS[kind]
            ]
            assert low <= share <= high
            seen.add(kind)
        assert np.array_equal(covered, mask)
        bright = image.mean(axis=0)
        assert bright[mask > 0].mean() > bright[mask == 0].mean() + 0.2
    assert seen == {0, 1, 2}


def test_scenes_are_always_the_same() -> None:
    first, second = (draw_scenes("again", 4, 32, most=2, sides=(8, 12)) for _ in range(2))
    assert first.images.tobytes() == second.images.tobytes()
    assert first.boxes.tobytes() == second.boxes.tobytes()
    assert (
        draw_scenes("other", 4, 32, most=2, sides=(8, 12)).boxes.tobytes() != first.boxes.tobytes()
    )


def test_ious_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 2, 2, 2]])
    found = np.array([[0, 1, 1, 1], [0, 2, 2, 0]])
    # class 0: 2 of 4; class 1: 2 of 3; class 2: 2 of 3; class 3 nowhere
    np.testing.assert_allclose(class_ious(found, truth, 4), [0.5, 2 / 3, 2 / 3, np.nan])
