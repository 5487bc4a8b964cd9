"""Figures that an explanation carries: curves, points, images and a plane; matplotlib draws them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


class Drawing(ABC):
    """Something to look at that can be saved as an image file."""

    @abstractmethod
    def draw(self, canvas: Any) -> None:
        """Draw on an empty matplotlib figure."""

    def size(self) -> tuple[float, float]:
        """Return width and height in inches."""
        return (7.0, 4.5)

    def save(self, path: str) -> None:
        """Draw into an image file; the name's ending sets the format.

        Raises ImportError, with the line that installs it, where matplotlib is missing.
        """
        try:
            from matplotlib.figure import Figure as Canvas  # noqa: PLC0415 (an optional extra)
        except ImportError as error:
            raise ImportError(
                "[plot] expected matplotlib, which is not installed. Run: pip install 'trine[plot]'"
            ) from error
        canvas = Canvas(figsize=self.size(), layout="constrained")
        self.draw(canvas)
        canvas.savefig(path)


@dataclass(frozen=True)
class Curve:
    """One line of a figure."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Figure(Drawing):
    """A plot of some curves."""

    title: str
    xlabel: str
    ylabel: str
    curves: Sequence[Curve]
    log_y: bool = False

    def draw(self, canvas: Any) -> None:
        """Draw the curves over one another."""
        axes = canvas.add_subplot()
        for curve in self.curves:
            axes.plot(curve.x, curve.y, marker="." if len(curve.x) < 40 else "", label=curve.label)
        if self.log_y:
            axes.set_yscale("log")
        axes.set(title=self.title, xlabel=self.xlabel, ylabel=self.ylabel)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()


@dataclass(frozen=True)
class Points(Drawing):
    """Groups of points in a plane, label -> (n, 2); `names` writes a word beside each point."""

    title: str
    xlabel: str
    ylabel: str
    groups: Mapping[str, Array]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def draw(self, canvas: Any) -> None:
        """Draw every group in its colour."""
        axes = canvas.add_subplot()
        for label, points in self.groups.items():
            axes.scatter(points[:, 0], points[:, 1], s=12, label=label)
            for word, (x, y) in zip(self.names.get(label, ()), points, strict=False):
                axes.annotate(word, (x, y), fontsize=7)
        axes.set(title=self.title, xlabel=self.xlabel, ylabel=self.ylabel)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()


@dataclass(frozen=True)
class Plane(Drawing):
    """A function's values over a rectangle of the plane, and groups of points on it.

    `values` (rows, columns) has its first row at the lower edge; `extent` is left, right, bottom,
    top.
    """

    title: str
    values: Array
    extent: tuple[float, float, float, float]
    groups: Mapping[str, Array] = field(default_factory=dict)
    level: float = 0.5

    def draw(self, canvas: Any) -> None:
        """Draw the values as colours with their contour at the level."""
        axes = canvas.add_subplot()
        shown = axes.imshow(
            self.values, origin="lower", extent=self.extent, aspect="auto", cmap="coolwarm"
        )
        canvas.colorbar(shown)
        if self.values.min() < self.level < self.values.max():
            axes.contour(self.values, levels=[self.level], extent=self.extent, colors="black")
        for label, points in self.groups.items():
            axes.scatter(points[:, 0], points[:, 1], label=label, edgecolors="black")
        axes.set(title=self.title)
        if self.groups:
            axes.legend()


@dataclass(frozen=True)
class Images(Drawing):
    """Rows of images, label -> (n, H, W) grey or (n, H, W, 3) in colour.

    `boxes` gives each image of a row its boxes, drawn over it.
    """

    title: str
    rows: Mapping[str, Array]
    boxes: Mapping[str, Sequence[Sequence[Box]]] = field(default_factory=dict)

    def size(self) -> tuple[float, float]:
        """Return a size at which every image gets about an inch."""
        columns = max(len(images) for images in self.rows.values())
        return (1.0 + 1.0 * columns, 0.6 + 1.1 * len(self.rows))

    def draw(self, canvas: Any) -> None:
        """Draw a row of images under its label, each between its own darkest and brightest."""
        canvas.suptitle(self.title)
        columns = max(len(images) for images in self.rows.values())
        grid = canvas.subplots(len(self.rows), columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes_row, (label, images) in zip(grid, self.rows.items(), strict=True):
            axes_row[0].set_title(label, fontsize=8, loc="left")
            for i, image in enumerate(np.asarray(images)):
                axes_row[i].imshow(image, cmap="gray")
                for left, top, right, bottom in self._boxes(label, i):
                    x, y = (left, right, right, left, left), (top, top, bottom, bottom, top)
                    axes_row[i].plot(x, y, linewidth=1.0, color="tab:red")

    def _boxes(self, label: str, index: int) -> Sequence[Box]:
        rows = self.boxes.get(label, ())
        return rows[index] if index < len(rows) else ()
