"""The command ``webcam``: what a trained network predicts for the faces before a camera, or in a video."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from helpers.predictor import Reading


def webcam(
    *,
    camera: int = 0,
    video: Path | None = None,
    run: Path | None = None,
    out: Path = Path("runs/webcam"),
    text: bool = False,
) -> int:
    """Watch a camera, or a video in its place, and frame the faces with what a trained network predicts.

    In the window q quits and s keeps the image. Images stay on this machine, and none is kept unless asked.
    Needs OpenCV: pip install "opencv-python<5". Where it has no window (opencv-python-headless, or a machine
    without a screen), --text prints a line whenever the labels change.

    Exit status: 0 ended by q, Ctrl-C or the end of the video, 1 the camera or the video failed, 2 a mistake
    in the words.

    Args:
        camera: which camera
        video: a video in place of the camera
        run: a folder that a training left, or a weights file (default: the latest in runs/)
        out: where s keeps images
        text: no window, print the labels
    """
    if camera < 0:
        raise ValueError(f"--camera is a number from 0, not {camera}")
    from helpers.cli.predict import loaded

    reader = loaded(run)
    source = reader.video(video) if video else reader.camera(camera)
    try:
        return tell(source) if text else watch(source, window(), out)
    except KeyboardInterrupt:
        return 0
    except (ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def watch(source: Iterable[Reading], show: Callable[[np.ndarray], str], out: Path) -> int:
    """Show frame after frame until q or the end; ``show`` returns the pressed key, s keeps an image."""
    from helpers.cli import short
    from helpers.cli.predict import keep

    for reading in source:
        key = show(reading.annotated())
        if key == "q":
            break
        if key == "s":
            free = next(path for i in itertools.count() if not (path := out / f"{i:03d}.png").exists())
            keep(reading, free)
            print(f"kept {short(free)}")
    return 0


def tell(source: Iterable[Reading]) -> int:
    """Print a line whenever the labels change."""
    before: list[str] | None = None
    for reading in source:
        labels = [face.label for face in reading.faces]
        if labels != before:
            print(f"{reading.seconds:7.2f} s  {reading if labels else 'no face'}", flush=True)
        before = labels
    return 0


def window() -> Callable[[np.ndarray], str]:
    """Return what shows an image ``[3, H, W]`` in a window, and returns the key that was pressed."""
    advice = 'to see the camera: pip install "opencv-python<5" (not headless), or add --text'
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise ImportError(f"OpenCV is missing; {advice}") from None
    try:
        cv2.namedWindow("Reading Faces")
    except cv2.error:
        raise ImportError(f"this OpenCV has no window here; {advice}") from None

    def show(picture: np.ndarray) -> str:
        cv2.imshow("Reading Faces", cv2.cvtColor(picture.transpose(1, 2, 0), cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1)
        closed = cv2.getWindowProperty("Reading Faces", cv2.WND_PROP_VISIBLE) < 1
        return "q" if closed else chr(key & 255) if key >= 0 else ""

    return show
