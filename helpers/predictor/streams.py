"""Faces that move: frames of a video or a camera, followed and smoothed over time.

Reading files and cameras needs OpenCV, which the notebooks do without; frames from anywhere else (a browser,
a list) go through :class:`Stream` in the same way.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from helpers import images
from helpers.predictor.detection import Box, Tracker
from helpers.predictor.reading import Face, Reading

Read = Callable[[np.ndarray, list[Box]], list[Face]]
"""What shows the squares of a picture to a network."""


class VideoError(ValueError):
    """A video or a camera cannot be used; its text is one line."""


class Stream:
    """Reads frame after frame of one scene.

    Args:
        read: gives the faces for a picture ``[3, H, W]`` and its boxes.
        memory: seconds after which an impression has faded to a third; 0 shows every frame by itself.
        tracker: what follows the faces.
    """

    def __init__(self, read: Read, memory: float = 0.3, tracker: Tracker | None = None) -> None:
        self.read, self.memory, self.tracker = read, memory, tracker or Tracker()
        self._before: dict[int, tuple[float, np.ndarray]] = {}

    def next(self, picture: np.ndarray, seconds: float) -> Reading:
        """Return what is to be seen in the next frame.

        Args:
            picture: uint8 ``[3, H, W]``.
            seconds: when it was taken; must not go back.
        """
        boxes = self.tracker.update(images.grey(picture))
        found = self.read(picture, list(boxes.values())) if boxes else []
        faces = [self._smoothed(number, face, seconds) for number, face in zip(boxes, found, strict=True)]
        self._before = {number: self._before[number] for number in boxes}
        return Reading(picture, tuple(sorted(faces, key=lambda face: -face.box.side)), seconds)

    def _smoothed(self, number: int, face: Face, seconds: float) -> Face:
        known = face.valence is not None
        now = np.append(face.distribution, [face.valence, face.arousal] if known else [])
        if number in self._before and self.memory > 0:
            then, before = self._before[number]
            kept = math.exp(-max(0.0, seconds - then) / self.memory)
            now = kept * before + (1 - kept) * now
        self._before[number] = seconds, now
        num = len(face.distribution)
        valence, arousal = (float(now[num]), float(now[num + 1])) if known else (None, None)
        smooth = now[:num].astype(np.float32)
        return Face(face.box, face.classes, smooth, valence, arousal, face.heat_map, number)


def video_frames(path: str | Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the frames of a video file as uint8 ``[3, H, W]`` of RGB, each with its time in seconds.

    Args:
        path: the file.

    Raises:
        ImportError: OpenCV is not installed.
        VideoError: the file is not there, or is no video.
    """
    cv2 = _opencv()
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such file; check its name")
    source = cv2.VideoCapture(str(path))
    try:
        rate = source.get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate < 1000 else 25.0  # a damaged head may claim anything
        number = 0
        while (frame := _grab(cv2, source)) is not None:
            yield frame, number / rate
            number += 1
    finally:
        source.release()
    if not number:
        raise VideoError(f"{path}: no video that can be read; save it as MP4 or AVI")


def camera_frames(index: int = 0) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the frames of a camera as uint8 ``[3, H, W]`` of RGB, each with the seconds since the first.

    Args:
        index: which camera, from 0.

    Raises:
        ImportError: OpenCV is not installed.
        VideoError: there is no such camera, another program has it, or it went away.
    """
    cv2 = _opencv()
    source = cv2.VideoCapture(index)
    try:
        frame, began = _grab(cv2, source), time.perf_counter()
        if frame is None:
            raise VideoError(
                f"camera {index} is not there, or another program uses it; plug it in or close that program"
            )
        while frame is not None:
            yield frame, time.perf_counter() - began
            frame = _grab(cv2, source)
    finally:
        source.release()
    raise VideoError(f"camera {index} went away; plug it in and start again")


def _grab(cv2: ModuleType, source: object) -> np.ndarray | None:
    read, frame = source.read()
    return np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)) if read else None


def _opencv() -> ModuleType:
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise ImportError('videos and cameras need OpenCV: pip install "opencv-python<5"') from None
    cv2.utils.logging.setLogLevel(0)  # what goes wrong is said once, by the errors here
    return cv2
