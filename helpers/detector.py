"""Where faces are: scikit-image's LBP cascade (Viola and Jones, CVPR 2001), in an image or frame by frame."""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WINDOW = 30  # pixels of the smallest face in the shrunk image; the cascade itself was trained with 24
MARGIN = 1.05  # of the square that is read to the cascade's, so that faces fill it as in the training sets
SHORTEST = 160  # pixels: images with a shorter side are enlarged, or close faces are too coarse to be found
LONGEST = 1200  # pixels: a panorama is shrunk further
AROUND = 0.25  # of the shorter side: what is put around an image, for faces that fill it


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
        padded, smallest = np.pad(small, edge, mode="edge"), max(24, round(self.smallest * target))
        found = self._windows(
            padded, (smallest, min(small.shape) + edge), self.agreeing, shorter / target, -edge
        )
        apart: list[Box] = []  # of windows that lie on each other only the largest
        for box in sorted(found, key=lambda box: -box.side):
            if not any(box.meets(other) for other in apart):
                apart.append(box)
        return apart

    def find_again(self, grey: np.ndarray, box: Box) -> Box | None:
        """Return where a face of the frame before is now, searched around its place; None: gone."""
        side = round(box.side * 1.7)
        left, top = (round(middle - side / 2) for middle in box.center)
        rows = np.arange(top, top + side).clip(0, grey.shape[0] - 1)
        columns = np.arange(left, left + side).clip(0, grey.shape[1] - 1)
        small = _resized(grey[rows[:, None], columns], scale := 1.3 * WINDOW / box.side)
        found = self._windows(small, (WINDOW, round(1.6 * WINDOW)), max(1, self.agreeing - 1), 1 / scale)
        found = [each._replace(left=each.left + left, top=each.top + top) for each in found]
        return min(found, key=lambda each: math.dist(each.center, box.center), default=None)

    def _windows(
        self, grey: np.ndarray, sides: tuple[int, int], agreeing: int, scale: float, shift: int = 0
    ) -> list[Box]:
        """Return the windows found in a shrunk image as squares to read in the image itself."""
        if min(grey.shape) <= sides[0]:
            return []
        sizes = [(side, side) for side in (sides[0], max(sides))]
        found = _cascade().detect_multi_scale(grey, 1.2, self.step, *sizes, min_neighbor_number=agreeing)
        boxes = []
        for window in found:
            side = window["width"] * MARGIN
            x, y = window["c"] + window["width"] / 2 + shift, window["r"] + window["height"] / 2 + shift
            boxes.append(Box(*(round(number * scale) for number in (x - side / 2, y - side / 2, side))))
        return boxes


@functools.cache
def _cascade() -> Any:
    from skimage import data, feature  # two tenths of a second, and only finding faces needs it

    return feature.Cascade(data.lbp_frontal_face_cascade_filename())


def _resized(grey: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    kind = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(grey).resize((width, height), kind))


@dataclass
class Tracker:
    """Follows faces from frame to frame.

    The whole frame is searched once in ``every`` frames, in between only around known faces: a tenth of the
    work. A face may be missing for ``patience`` frames; a box keeps ``inertia`` of its place, or it trembles.
    """

    detector: Detector = field(default_factory=lambda: Detector(smallest=1 / 6, agreeing=2, step=1.25))
    every: int = 10
    patience: int = 10
    inertia: float = 0.6
    boxes: dict[int, Box] = field(default_factory=dict)
    missing: dict[int, int] = field(default_factory=dict)
    frames: int = 0
    people: int = 0

    def update(self, grey: np.ndarray) -> dict[int, Box]:
        """Return the faces of the next frame, uint8 ``[H, W]``, by a number that stays with each."""
        for number, old in list(self.boxes.items()):
            if (new := self.detector.find_again(grey, old)) is not None:
                share = self.inertia if math.dist(old.center, new.center) < 0.3 * old.side else 0.0
                mixed = [round(share * a + (1 - share) * b) for a, b in zip(old, new, strict=True)]
                self.boxes[number], self.missing[number] = Box(*mixed), 0
            elif self.missing[number] >= self.patience:
                del self.boxes[number], self.missing[number]
            else:
                self.missing[number] += 1
        for box in self.detector.find(grey, around=0.0) if self.frames % self.every == 0 else ():
            if not any(box.meets(other) for other in self.boxes.values()):
                self.people += 1
                self.boxes[self.people], self.missing[self.people] = box, 0
        self.frames += 1
        return dict(self.boxes)


def video_frames(path: str | Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the frames of a video file as uint8 ``[3, H, W]`` of RGB, each with its time in seconds."""
    cv2, path = _opencv(), Path(path).expanduser()
    if not path.is_file():
        raise VideoError(f"{path}: no such file; check its name")
    source, number = cv2.VideoCapture(str(path)), 0
    try:
        rate = source.get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate < 1000 else 25.0  # a damaged head may claim anything
        while (frame := _grab(cv2, source)) is not None:
            yield frame, number / rate
            number += 1
    finally:
        source.release()
    if not number:
        raise VideoError(f"{path}: no video that can be read; save it as MP4 or AVI")


def camera_frames(index: int = 0) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the frames of a camera as uint8 ``[3, H, W]`` of RGB, each with the seconds since the first."""
    cv2, began = _opencv(), None
    source = cv2.VideoCapture(index)
    try:
        while (frame := _grab(cv2, source)) is not None:
            began = began or time.perf_counter()
            yield frame, time.perf_counter() - began
    finally:
        source.release()
    if began is None:
        advice = "plug it in or close that program"
        raise VideoError(f"camera {index} is not there, or another program uses it; {advice}")
    raise VideoError(f"camera {index} went away; plug it in and start again")


def _grab(cv2: ModuleType, source: Any) -> np.ndarray | None:
    read, frame = source.read()
    return np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)) if read else None


def _opencv() -> ModuleType:
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise ImportError('videos and cameras need OpenCV: pip install "opencv-python<5"') from None
    cv2.utils.logging.setLogLevel(0)  # what goes wrong is said once, by the errors here
    return cv2
