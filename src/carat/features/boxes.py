"""Boxes of faces in pictures: where to look, what is plausible, which face goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

SHARES = (1.0, 0.6)
"""Sides of the squares that are searched one after another, as shares of the picture's shorter side."""
OVERLAP = 0.5
"""Overlap of neighboring squares."""
CONTEXT = 3.0
"""Side of the square around a face in which its landmarks are found, in sizes of the face."""
ASPECTS = (0.45, 1.3)
"""Smallest and largest width of a face divided by its height."""
MIN_SIZE = 24
"""Smallest size of a face in pixels."""
MAX_SHIFT = 0.75
"""Distance that a face moves at most from step to step, in its own sizes."""
MAX_GROWTH = 1.6
"""Ratio of its sizes at most from step to step."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def size(self) -> float:
        """Length of the longer side."""
        return max(self.width, self.height)

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the rectangle."""
        return self.x + self.width / 2, self.y + self.height / 2

    def is_plausible(self) -> bool:
        """Whether it has the size and the shape of a face."""
        return self.size >= MIN_SIZE and ASPECTS[0] <= self.width / max(self.height, 1e-6) <= ASPECTS[1]

    def continues(self, other: Box) -> bool:
        """Whether it may be the same face as another box one step before."""
        (x, y), (x2, y2) = self.center, other.center
        near = np.hypot(x - x2, y - y2) <= MAX_SHIFT * max(self.size, other.size)
        ratio = self.size / max(other.size, 1e-6)
        return bool(near and 1 / MAX_GROWTH <= ratio <= MAX_GROWTH)

    def overlaps(self, other: Box) -> bool:
        """Whether more than half of what either covers is covered by both."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        both = max(width, 0) * max(height, 0)
        return both > 0.5 * (self.width * self.height + other.width * other.height - both)

    def shifted(self, x: float, y: float) -> Box:
        """The rectangle moved by a distance."""
        return Box(self.x + x, self.y + y, self.width, self.height)


@dataclass(frozen=True)
class Crop:
    """A part of a picture with its position."""

    x: int
    y: int
    pixels: NDArray[np.uint8]


def squares(pixels: NDArray[np.uint8], share: float) -> Iterator[Crop]:
    """Overlapping squares of a picture (H, W, 3), whose side is a share of its shorter side."""
    height, width = pixels.shape[:2]
    side = max(1, round(share * min(height, width)))
    for y, x in product(_starts(height, side), _starts(width, side)):
        yield Crop(x, y, np.ascontiguousarray(pixels[y : y + side, x : x + side]))


def _starts(length: int, side: int) -> list[int]:
    """Evenly spaced starts of pieces that cover a length with at least `OVERLAP`."""
    steps = int(np.ceil((length - side) / (side * (1 - OVERLAP)) - 1e-9))
    return [round((length - side) * i / steps) for i in range(steps + 1)] if steps else [0]


def around(pixels: NDArray[np.uint8], box: Box) -> Crop:
    """The square around a face, moved inside the picture where it would stick out."""
    height, width = pixels.shape[:2]
    side = min(max(round(CONTEXT * box.size), 1), height, width)
    (x, y) = box.center
    left = min(max(round(x - side / 2), 0), width - side)
    top = min(max(round(y - side / 2), 0), height - side)
    return Crop(left, top, np.ascontiguousarray(pixels[top : top + side, left : left + side]))
