"""Where the faces are: scikit-image's LBP cascade, on a picture shrunk as far as the smallest face allows.

The cascade (local binary patterns, boosted as in Viola and Jones, CVPR 2001) comes with scikit-image, so that
nothing has to be downloaded. It finds upright faces seen from the front. In a video it searches the whole
frame only now and then, and in between around the places where faces were: a tenth of the work.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

_WINDOW = 30  # pixels of the smallest face in the shrunk picture; the cascade itself was trained with 24
_MARGIN = 1.05  # of the square that is read to the cascade's, so that faces fill it as in the training sets
_LEAST = 160  # pixels: pictures with a shorter side are enlarged, or close faces are too coarse to be found
_LONGEST = 1200  # pixels: a panorama is shrunk further
_AROUND = 0.25  # of the shorter side: what is put around a still picture, for faces that fill it


class Box(NamedTuple):
    """The square of a face, in pixels of its picture; it may stand out over the picture's edge.

    Args:
        left: first column.
        top: first row.
        side: width and height.
    """

    left: int
    top: int
    side: int

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return self.left + self.side / 2, self.top + self.side / 2

    def holds(self, point: tuple[float, float]) -> bool:
        """Return whether a point (x, y) lies inside.

        Args:
            point: in pixels of the picture.
        """
        return 0 <= point[0] - self.left < self.side and 0 <= point[1] - self.top < self.side


def whole(height: int, width: int) -> Box:
    """Return the central square of a picture: what the training sets keep of it.

    Args:
        height: in pixels.
        width: in pixels.
    """
    side = min(height, width)
    return Box((width - side) // 2, (height - side) // 2, side)


class Detector:
    """Finds faces in grey pictures.

    Args:
        smallest: side of the smallest face that is looked for, as a share of the picture's shorter side. Half
            of it takes four times as long.
        agreeing: how many overlapping windows must agree that there is a face; more miss more, and are
            mistaken less often.
        step: how far apart windows are tried, in pixels of the shrunk picture at the smallest size; 1.25
            takes half the time of 1, and with ``agreeing=2`` finds as many; 1.5 misses one in ten more.

    Raises:
        ValueError: ``smallest`` is outside of 0.02 to 1, or ``step`` of 1 to 2.
    """

    def __init__(self, smallest: float = 0.1, agreeing: int = 3, step: float = 1.0) -> None:
        if not 0.02 <= smallest <= 1:
            raise ValueError(f"smallest is a share of the shorter side, from 0.02 to 1, not {smallest}")
        if not 1 <= step <= 2:
            raise ValueError(f"step is from 1 to 2, not {step}")
        self.smallest, self.agreeing, self.step = smallest, agreeing, step

    def find(self, grey: np.ndarray, around: float = _AROUND) -> list[Box]:
        """Return the faces of a picture, the largest first.

        Args:
            grey: uint8 ``[H, W]``.
            around: how much edge is put around the picture, as a share of its shorter side.
        """
        shorter = min(grey.shape)
        target = float(np.clip(shorter, _LEAST, max(_LEAST, _WINDOW / self.smallest)))
        target = min(target, max(_LONGEST * shorter / max(grey.shape), 1.0))
        small, edge = _resized(grey, target / shorter), round(target * around)
        smallest = max(24, round(self.smallest * target))
        largest = min(small.shape) + edge
        windows = self._windows(np.pad(small, edge, mode="edge"), smallest, largest, self.agreeing)
        return _apart([_box(window, -edge, -edge, shorter / target) for window in windows])

    def find_again(self, grey: np.ndarray, box: Box) -> Box | None:
        """Return where a face is now, searching around the place where it was; None where it is gone.

        Args:
            grey: uint8 ``[H, W]``, the frame.
            box: the face in the frame before.
        """
        side = round(box.side * 1.7)
        left, top = (round(middle - side / 2) for middle in box.center)
        rows = np.arange(top, top + side).clip(0, grey.shape[0] - 1)
        columns = np.arange(left, left + side).clip(0, grey.shape[1] - 1)
        scale = 1.3 * _WINDOW / box.side
        small = _resized(grey[rows[:, None], columns], scale)
        windows = self._windows(small, _WINDOW, round(1.6 * _WINDOW), max(1, self.agreeing - 1))
        found = [_box(window, 0, 0, 1 / scale) for window in windows]
        found = [each._replace(left=each.left + left, top=each.top + top) for each in found]
        return min(found, key=lambda each: _distance(each, box), default=None)

    def _windows(self, grey: np.ndarray, smallest: int, largest: int, agreeing: int) -> list[dict[str, int]]:
        if min(grey.shape) <= smallest:
            return []
        sizes = (smallest, smallest), (max(largest, smallest), max(largest, smallest))
        return _cascade().detect_multi_scale(grey, 1.2, self.step, *sizes, min_neighbor_number=agreeing)


@functools.cache
def _cascade() -> Any:
    # imported here: two tenths of a second, and only finding faces needs it
    from skimage import data, feature

    return feature.Cascade(data.lbp_frontal_face_cascade_filename())


def _resized(grey: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    kind = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(grey).resize((width, height), kind))


def _box(window: dict[str, int], left: int, top: int, scale: float) -> Box:
    """Return a window of the shrunk picture as the square to read in the picture itself."""
    side = window["width"] * _MARGIN
    x, y = window["c"] + window["width"] / 2 + left, window["r"] + window["height"] / 2 + top
    return Box(round((x - side / 2) * scale), round((y - side / 2) * scale), round(side * scale))


def _apart(boxes: list[Box]) -> list[Box]:
    """Return boxes of different faces: of those that lie on each other only the largest."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.side):
        if not any(other.holds(box.center) or box.holds(other.center) for other in kept):
            kept.append(box)
    return kept


def _distance(a: Box, b: Box) -> float:
    return float(np.hypot(*np.subtract(a.center, b.center)))


@dataclass
class Tracker:
    """Follows faces from frame to frame.

    Args:
        detector: what finds them.
        every: a whole frame is searched once in so many; in between only around the faces that are known.
        patience: frames that a face may be missing before it is given up.
        inertia: how much of its old place and size a box keeps, in [0, 1): boxes of a cascade tremble.
    """

    detector: Detector = field(default_factory=lambda: Detector(smallest=1 / 6, agreeing=2, step=1.25))
    every: int = 10
    patience: int = 10
    inertia: float = 0.6

    def __post_init__(self) -> None:
        self.boxes: dict[int, Box] = {}
        self._missing: dict[int, int] = {}
        self._frames = self._people = 0

    def update(self, grey: np.ndarray) -> dict[int, Box]:
        """Return the faces of the next frame, by a number that stays with each.

        Args:
            grey: uint8 ``[H, W]``.
        """
        for number, box in list(self.boxes.items()):
            self._follow(number, box, self.detector.find_again(grey, box))
        if self._frames % self.every == 0:
            for box in self.detector.find(grey, around=0.0):
                self._welcome(box)
        self._frames += 1
        return dict(self.boxes)

    def _follow(self, number: int, old: Box, new: Box | None) -> None:
        if new is None:
            self._missing[number] += 1
            if self._missing[number] > self.patience:
                del self.boxes[number], self._missing[number]
            return
        share = self.inertia if _distance(old, new) < 0.3 * old.side else 0.0
        mixed = [round(share * a + (1 - share) * b) for a, b in zip(old, new, strict=True)]
        self.boxes[number], self._missing[number] = Box(*mixed), 0

    def _welcome(self, box: Box) -> None:
        if any(other.holds(box.center) or box.holds(other.center) for other in self.boxes.values()):
            return
        self._people += 1
        self.boxes[self._people], self._missing[self._people] = box, 0
