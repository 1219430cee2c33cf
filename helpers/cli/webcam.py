"""The command ``webcam``: what a trained network reads in the faces before a camera, or in a video."""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import predict
from helpers.cli.status import short

if TYPE_CHECKING:
    import numpy as np

    from helpers.predictor import Reading

TEXT = """\
Watch a camera, or a video in its place, and frame the faces with what a trained network reads in them.
In the window q quits and s keeps the picture. Pictures stay on this machine, and none is kept unless asked.

Needs OpenCV: pip install "opencv-python<5". Where it has no window (opencv-python-headless, or a machine
without a screen), --text prints a line whenever what is read changes.

Exit status: 0 ended by q, Ctrl-C or the end of the video, 1 the camera or the video failed, 2 a mistake in
the words.
"""
Show = Callable[["np.ndarray"], str]
"""Shows a picture ``[3, H, W]``, and returns the key that was pressed, or nothing."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``webcam``.

    Args:
        parser: the command's own.
    """
    parser.add_argument("--camera", type=int, default=0, metavar="N", help="which camera (default: 0)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="a video in place of the camera")
    predict.add_run(parser)
    out = Path("runs") / "webcam"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help="where s keeps pictures")
    parser.add_argument("--text", action="store_true", help="no window: print what is read")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant.

    Args:
        arguments: as :func:`declare` has them parsed.

    Raises:
        ValueError: an unknown option, or a negative camera.
    """
    if arguments.rest:
        raise ValueError(f"unknown option {arguments.rest[0]!r}; python3 -m helpers webcam --help lists them")
    if arguments.camera < 0:
        raise ValueError(f"--camera is a number from 0, not {arguments.camera}")


def perform(arguments: argparse.Namespace) -> int:
    """Watch until the end; return the exit status.

    Args:
        arguments: as :func:`check` left them.
    """
    predictor = predict.loaded(arguments.run)
    if predictor is None:
        return 1
    source = predictor.video(arguments.video) if arguments.video else predictor.camera(arguments.camera)
    try:
        return tell(source) if arguments.text else watch(source, window(), arguments.out)
    except KeyboardInterrupt:
        return 0
    except (ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def watch(source: Iterable[Reading], show: Show, out: Path) -> int:
    """Show frame after frame until q or the end; s keeps a picture.

    Args:
        source: the readings.
        show: shows a picture and tells which key was pressed.
        out: the folder for pictures.
    """
    for reading in source:
        key = show(reading.annotated())
        if key == "q":
            break
        if key == "s":
            free = next(path for i in itertools.count() if not (path := out / f"{i:03d}.png").exists())
            predict.keep(reading, free)
            print(f"kept {short(free)}")
    return 0


def tell(source: Iterable[Reading]) -> int:
    """Print a line whenever the labels change.

    Args:
        source: the readings.
    """
    before: list[str] | None = None
    for reading in source:
        labels = [face.label for face in reading.faces]
        if labels != before:
            print(f"{reading.seconds:7.2f} s  {reading if labels else 'no face'}", flush=True)
        before = labels
    return 0


def window() -> Show:
    """Return what shows pictures in a window.

    Raises:
        ImportError: OpenCV is not installed, or has no windows.
    """
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
