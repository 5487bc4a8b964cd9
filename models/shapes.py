"""Made scenes with a known answer: rectangles, ellipses and triangles, their masks and boxes.

A scene is an RGB picture. Its ground has one dark colour (each channel 0 to 0.25); every shape has
a bright one (0.4 to 1), a width and a height in whole pixels, and a place at which its box meets no
other box; normal noise of deviation 0.05 lies over all. A pixel belongs to a shape if its centre
does. All numbers come from Philox streams named after the scenes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trine.data import Splits
from trine.models.desk import draw_normal, made_splits
from trine.random import integers, make_key, stream_id, uniform

KINDS = ("rectangle", "ellipse", "triangle")
NOISE = 0.05
TRIES = 12
"""Places that are tried for a shape; one that fits at none of them is left out."""
NOTHING = -1.0
"""What fills the rows of `Scenes.boxes` for which there is no shape."""


@dataclass(frozen=True)
class Scenes:
    """Pictures and what is in them.

    images: float32 (N, 3, S, S). masks: int64 (N, S, S), 0 for the ground and k + 1 for kind k.
    boxes: float32 (N, M, 5), rows (kind, left, top, right, bottom) in pixels, the edges of the
    picture being 0 and S, then rows of -1.
    """

    images: npt.NDArray[np.float32]
    masks: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]


def covered(kind: int, box: tuple[int, int, int, int], size: int) -> npt.NDArray[np.bool_]:
    """Return which pixels (S, S) a shape covers that touches all four sides of its box."""
    left, top, right, bottom = box
    x = (np.arange(size) + 0.5)[None, :]
    y = (np.arange(size) + 0.5)[:, None]
    across = np.abs(x - (left + right) / 2) / ((right - left) / 2)  # 0 in the middle, 1 at a side
    down = (y - top) / (bottom - top)  # 0 at the top, 1 at the bottom
    if KINDS[kind] == "ellipse":
        return across**2 + (2 * down - 1) ** 2 <= 1
    within = (down >= 0) & (down <= 1)
    if KINDS[kind] == "triangle":
        return within & (across <= down)
    return within & (across <= 1)


def draw_scenes(
    name: str, count: int, size: int, *, most: int, sides: tuple[int, int], fewest: int = 1
) -> Scenes:
    """Make scenes of `fewest` to `most` shapes whose sides have sides[0] to sides[1] pixels.

    The same name gives the same scenes; a smaller count gives the first of them only if it is
    drawn with all others, so take parts of one call.
    """
    stream = stream_id(f"shapes {name}")
    keys = [make_key(0, stream, draw) for draw in range(4)]
    number = integers(keys[0], fewest, most + 1, (count,))
    kinds = integers(keys[1], 0, len(KINDS), (count, most))
    places = uniform(keys[2], (count, most, TRIES, 4), "float64")
    colours = uniform(keys[3], (count, most + 1, 3))
    images = np.float32(NOISE) * draw_normal(f"shapes {name} noise", (count, 3, size, size))
    images = images.astype(np.float32) + 0.25 * colours[:, 0, :, None, None]
    masks = np.zeros((count, size, size), dtype=np.int64)
    boxes = np.full((count, most, 5), NOTHING, dtype=np.float32)
    for n in range(count):
        taken: list[tuple[int, int, int, int]] = []
        for shape in range(number[n]):
            box = _free_place(places[n, shape], size, sides, taken)
            if box is None:
                continue
            kind = int(kinds[n, shape])
            inside = covered(kind, box, size)
            ground = 0.25 * colours[n, 0]
            images[n] += (0.4 + 0.6 * colours[n, shape + 1] - ground)[:, None, None] * inside
            masks[n][inside] = kind + 1
            boxes[n, len(taken)] = (kind, *box)
            taken.append(box)
    return Scenes(images, masks, boxes)


def _free_place(
    places: npt.NDArray[np.float64], size: int, sides: tuple[int, int],
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int] | None:  # fmt: skip
    """Return the first proposed box that meets none of those taken."""
    low, high = sides
    for place in places:
        width, height = (int(low + u * (high - low + 1)) for u in place[:2])
        left, top = int(place[2] * (size - width + 1)), int(place[3] * (size - height + 1))
        right, bottom = left + width, top + height
        if all(right <= a or c <= left or bottom <= b or d <= top for a, b, c, d in taken):
            return left, top, right, bottom
    return None


def shape_masks(train: int = 800, test: int = 200, size: int = 32) -> Splits:
    """Return scenes of one or two shapes with the class of every pixel, int64 (N, S, S)."""
    scenes = draw_scenes("masks", train + test, size, most=2, sides=(10, 18))
    about = f"{size}x{size} pictures of rectangles, ellipses and triangles, a class for each pixel"
    return made_splits("shape-masks", scenes.images, scenes.masks, train=train, description=about)


def shape_boxes(train: int, test: int, size: int, sides: tuple[int, int]) -> Splits:
    """Return scenes of one to three shapes with rows (kind, left, top, right, bottom)."""
    scenes = draw_scenes("boxes", train + test, size, most=3, sides=sides)
    about = f"{size}x{size} pictures of one to three rectangles, ellipses and triangles, with boxes"
    return made_splits("shape-boxes", scenes.images, scenes.boxes, train=train, description=about)


def shape_classes(train: int, test: int, size: int) -> Splits:
    """Return scenes of a single shape, from a third to two thirds of the picture, and its kind."""
    scenes = draw_scenes("one", train + test, size, most=1, sides=(size // 3, 2 * size // 3))
    kinds = scenes.boxes[:, 0, 0].astype(np.int64)
    about = f"{size}x{size} pictures of one rectangle, ellipse or triangle"
    return made_splits(
        "shape-classes", scenes.images, kinds, train=train, description=about,
        num_classes=len(KINDS),
    )  # fmt: skip
