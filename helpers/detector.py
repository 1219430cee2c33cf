"""Where faces are: scikit-image's LBP cascade (Viola and Jones, CVPR 2001), in an image or frame by frame."""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WINDOW = 30  # pixels of the smallest face in the shrunk image; the cascade itself was trained with 24
MARGIN = 1.05  # of the square that is read to the cascade's, so that faces fill it as in the training sets
SHORTEST = 160  # pixels: images with a shorter side are enlarged, or close faces are too coarse to be found
LONGEST = 1200  # pixels: a panorama is shrunk further
AROUND = 0.25  # of the shorter side: what is put around an image, for faces that fill it
EVERY = 10  # frames: how often the whole of one is searched
PATIENCE = 10  # frames that a face may be missing
INERTIA = 0.6  # the share of its place that a box keeps from one frame to the next, or it would tremble


class VideoError(ValueError):
    """A video or a camera cannot be used; its text is one line."""


class Box(NamedTuple):
    """The square of a face, in pixels of its image; it may stand out over the image's edge."""

    left: int
    top: int
    side: int

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return self.left + self.side / 2, self.top + self.side / 2

    def meets(self, other: Box) -> bool:
        """Return whether one of two boxes holds the centre of the other."""
        apart = [abs(a - b) for a, b in zip(self.center, other.center, strict=True)]
        return max(apart) < max(self.side, other.side) / 2


@dataclass(frozen=True)
class Detector:
    """Finds upright faces seen from the front in grey images.

    ``smallest``: side of the smallest face as a share of the image's shorter side; half of it takes four
    times as long. ``agreeing``: how many overlapping windows must agree; more miss more faces.
    ``step``: pixels between windows; 1.25 takes half the time of 1, and with ``agreeing=2`` finds as many.
    """

    smallest: float = 0.1
    agreeing: int = 3
    step: float = 1.0

    def __post_init__(self) -> None:
        if not 0.02 <= self.smallest <= 1 or not 1 <= self.step <= 2:
            found = f"{self.smallest} and {self.step}"
            raise ValueError(f"smallest is a share from 0.02 to 1 and step from 1 to 2, not {found}")

    def find(self, grey: np.ndarray, around: float = AROUND) -> list[Box]:
        """Return the faces of an image uint8 ``[H, W]``, the largest first."""
        shorter = min(grey.shape)
        target = float(np.clip(shorter, SHORTEST, max(SHORTEST, WINDOW / self.smallest)))
        target = min(target, max(LONGEST * shorter / max(grey.shape), 1.0))
        small, edge = _resized(grey, target / shorter), round(target * around)
        sides = max(24, round(self.smallest * target)), min(small.shape) + edge
        padded = np.pad(small, edge, mode="edge")
        apart: list[Box] = []  # of windows that lie on each other only the largest
        found = self._windows(padded, sides, self.agreeing, shorter / target, (-edge, -edge))
        for box in sorted(found, key=lambda box: -box.side):
            if not any(box.meets(other) for other in apart):
                apart.append(box)
        return apart

    def find_again(self, grey: np.ndarray, box: Box) -> Box | None:
        """Return where a face of the frame before is now, searched around its place; None: gone."""
        side, scale = round(box.side * 1.7), 1.3 * WINDOW / box.side
        left, top = (round(middle - side / 2) for middle in box.center)
        rows = np.arange(top, top + side).clip(0, grey.shape[0] - 1)
        columns = np.arange(left, left + side).clip(0, grey.shape[1] - 1)
        small, sides = _resized(grey[rows[:, None], columns], scale), (WINDOW, round(1.6 * WINDOW))
        corner = left * scale, top * scale
        found = self._windows(small, sides, max(1, self.agreeing - 1), 1 / scale, corner)
        return min(found, key=lambda each: math.dist(each.center, box.center), default=None)

    def _windows(
        self, grey: np.ndarray, sides: tuple[int, int], agreeing: int, scale: float, corner: tuple
    ) -> list[Box]:
        """Return the windows in a part of the shrunk image, from a corner on, as boxes of the image."""
        if min(grey.shape) <= sides[0]:
            return []
        sizes, boxes = [(side, side) for side in (sides[0], max(sides))], []
        found = _cascade().detect_multi_scale(grey, 1.2, self.step, *sizes, min_neighbor_number=agreeing)
        for window in found:
            side, wide = window["width"] * MARGIN, window["width"]
            left, top = (at + window[key] + (wide - side) / 2 for at, key in zip(corner, "cr", strict=True))
            boxes.append(Box(*(round(number * scale) for number in (left, top, side))))
        return boxes


@functools.cache
def _cascade() -> Any:
    from skimage import data, feature  # two tenths of a second, and only finding faces needs it

    return feature.Cascade(data.lbp_frontal_face_cascade_filename())


def _resized(grey: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    kind = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(grey).resize((width, height), kind))


class Tracker:
    """Follows faces from frame to frame, and searches mostly around known ones: a tenth of the work."""

    def __init__(self) -> None:
        self.detector = Detector(smallest=1 / 6, agreeing=2, step=1.25)
        self.boxes: dict[int, Box] = {}
        self.seen: dict[int, int] = {}  # in which frame each face was seen last
        self.frames = 0

    def update(self, grey: np.ndarray) -> dict[int, Box]:
        """Return the faces of the next frame, uint8 ``[H, W]``, by a number that stays with each."""
        for number, old in list(self.boxes.items()):
            if (new := self.detector.find_again(grey, old)) is not None:
                kept = INERTIA if math.dist(old.center, new.center) < 0.3 * old.side else 0.0
                mixed = [round(kept * a + (1 - kept) * b) for a, b in zip(old, new, strict=True)]
                self.boxes[number], self.seen[number] = Box(*mixed), self.frames
            elif self.frames - self.seen[number] > PATIENCE:
                del self.boxes[number]
        for box in self.detector.find(grey, around=0.0) if self.frames % EVERY == 0 else ():
            if not any(box.meets(other) for other in self.boxes.values()):
                number = len(self.seen) + 1
                self.boxes[number], self.seen[number] = box, self.frames
        self.frames += 1
        return dict(self.boxes)


def video_frames(path: str | Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the frames of a video file as uint8 ``[3, H, W]`` of RGB, each with its time in seconds."""
    path, number = Path(path).expanduser(), -1
    if not path.is_file():
        raise VideoError(f"{path}: no such file; check its name")
    for number, (frame, rate) in enumerate(_frames(str(path))):
        yield frame, number / (rate if 0 < rate < 1000 else 25.0)  # a damaged head may claim anything
    if number < 0:
        raise VideoError(f"{path}: no video that can be read; save it as MP4 or AVI")


def camera_frames(index: int = 0) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the frames of a camera as uint8 ``[3, H, W]`` of RGB, each with the seconds since the first."""
    began = None
    for frame, _ in _frames(index):
        began = began or time.perf_counter()
        yield frame, time.perf_counter() - began
    if began is None:
        advice = "plug it in or close that program"
        raise VideoError(f"camera {index} is not there, or another program uses it; {advice}")
    raise VideoError(f"camera {index} went away; plug it in and start again")


def _frames(name: str | int) -> Iterator[tuple[np.ndarray, float]]:
    """Yield frame after frame of RGB, and how many a second the source claims to have."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise ImportError('videos and cameras need OpenCV: pip install "opencv-python<5"') from None
    cv2.utils.logging.setLogLevel(0)  # what goes wrong is said once, by the errors here
    source = cv2.VideoCapture(name)
    try:
        while (read := source.read())[0]:
            yield np.ascontiguousarray(read[1].transpose(2, 0, 1)[::-1]), source.get(cv2.CAP_PROP_FPS)
    finally:
        source.release()
