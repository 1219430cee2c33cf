"""Where the faces of an image are: scikit-image's LBP cascade (Viola and Jones, CVPR 2001)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WINDOW = 30  # pixels of the smallest face in the shrunk image; the cascade itself was trained with 24
MARGIN = 1.05  # of the square that is read to the cascade's, so that faces fill it as in the training sets
SHORTEST = 160  # pixels: images with a shorter side are enlarged, or close faces are too coarse to be found
LONGEST = 1200  # pixels: a panorama is shrunk further
AROUND = 0.25  # of the shorter side: what is put around an image, for faces that fill it


class Box(NamedTuple):
    """The square of a face, in pixels of its image; it may stand out over the image's edge."""

    left: int
    top: int
    side: int

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return self.left + self.side / 2, self.top + self.side / 2

    def holds(self, point: tuple[float, float]) -> bool:
        """Return whether a point (x, y) lies inside."""
        return 0 <= point[0] - self.left < self.side and 0 <= point[1] - self.top < self.side

    def meets(self, other: Box) -> bool:
        """Return whether one of two boxes holds the centre of the other."""
        return self.holds(other.center) or other.holds(self.center)


@dataclass(frozen=True)
class Detector:
    """Finds upright faces seen from the front in grey images: scikit-image's LBP cascade.

    ``smallest``: side of the smallest face as a share of the image's shorter side; half of it takes four
    times as long. ``agreeing``: how many overlapping windows must agree; more miss more faces.
    ``step``: pixels between windows; 1.25 takes half the time of 1, and with ``agreeing=2`` finds as many.
    """

    smallest: float = 0.1
    agreeing: int = 3
    step: float = 1.0

    def __post_init__(self) -> None:
        if not 0.02 <= self.smallest <= 1:
            raise ValueError(f"smallest is a share of the shorter side, from 0.02 to 1, not {self.smallest}")
        if not 1 <= self.step <= 2:
            raise ValueError(f"step is from 1 to 2, not {self.step}")

    def find(self, grey: np.ndarray, around: float = AROUND) -> list[Box]:
        """Return the faces of an image uint8 ``[H, W]``, the largest first."""
        shorter = min(grey.shape)
        target = float(np.clip(shorter, SHORTEST, max(SHORTEST, WINDOW / self.smallest)))
        target = min(target, max(LONGEST * shorter / max(grey.shape), 1.0))
        small, edge = _resized(grey, target / shorter), round(target * around)
        smallest = max(24, round(self.smallest * target))
        padded = np.pad(small, edge, mode="edge")
        windows = self._windows(padded, smallest, min(small.shape) + edge, self.agreeing)
        apart: list[Box] = []  # of windows that lie on each other only the largest
        for box in sorted((_box(each, -edge, shorter / target) for each in windows), key=lambda b: -b.side):
            if not any(box.meets(other) for other in apart):
                apart.append(box)
        return apart

    def find_again(self, grey: np.ndarray, box: Box) -> Box | None:
        """Return where a face of the frame before is now, searched around its place; None: gone."""
        side = round(box.side * 1.7)
        left, top = (round(middle - side / 2) for middle in box.center)
        rows = np.arange(top, top + side).clip(0, grey.shape[0] - 1)
        columns = np.arange(left, left + side).clip(0, grey.shape[1] - 1)
        scale = 1.3 * WINDOW / box.side
        small = _resized(grey[rows[:, None], columns], scale)
        windows = self._windows(small, WINDOW, round(1.6 * WINDOW), max(1, self.agreeing - 1))
        found = [_box(window, 0, 1 / scale) for window in windows]
        found = [each._replace(left=each.left + left, top=each.top + top) for each in found]
        return min(found, key=lambda each: math.dist(each.center, box.center), default=None)

    def _windows(self, grey: np.ndarray, smallest: int, largest: int, agreeing: int) -> list[dict[str, int]]:
        if min(grey.shape) <= smallest:
            return []
        sizes = (smallest, smallest), (max(largest, smallest), max(largest, smallest))
        return _cascade().detect_multi_scale(grey, 1.2, self.step, *sizes, min_neighbor_number=agreeing)


@functools.cache
def _cascade() -> Any:
    from skimage import data, feature  # two tenths of a second, and only finding faces needs it

    return feature.Cascade(data.lbp_frontal_face_cascade_filename())


def _resized(grey: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    kind = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(grey).resize((width, height), kind))


def _box(window: dict[str, int], shift: int, scale: float) -> Box:
    """Return a window of the shrunk image as the square to read in the image itself."""
    side = window["width"] * MARGIN
    x, y = window["c"] + window["width"] / 2 + shift, window["r"] + window["height"] / 2 + shift
    return Box(round((x - side / 2) * scale), round((y - side / 2) * scale), round(side * scale))
