"""Faces that move: the frames of a video or a camera, and where each face of them goes."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from helpers.detector import Box, Detector


class VideoError(ValueError):
    """A video or a camera cannot be used; its text is one line."""


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
            new = self.detector.find_again(grey, old)
            if new is not None:
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
    cv2 = _opencv()
    source = cv2.VideoCapture(index)
    try:
        frame, began = _grab(cv2, source), time.perf_counter()
        if frame is None:
            advice = "plug it in or close that program"
            raise VideoError(f"camera {index} is not there, or another program uses it; {advice}")
        while frame is not None:
            yield frame, time.perf_counter() - began
            frame = _grab(cv2, source)
    finally:
        source.release()
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
