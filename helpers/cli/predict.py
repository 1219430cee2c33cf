"""The commands ``predict`` and ``webcam``: what a trained network predicts for images, a camera, a video."""

from __future__ import annotations

import importlib
import itertools
import json as to_json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import short

if TYPE_CHECKING:
    from helpers.predictor import Predictor, Reading

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


def predict(
    files: list[str],
    *,
    run: Path | None = None,
    whole: bool = False,
    annotate: Path | None = None,
    heat: bool = False,
    table: bool = False,
    json: bool = False,
) -> int:
    """Find the faces in images and print what a trained network predicts, one line a face.

    Exit status: 1 an image could not be read (the others were), 2 a mistake in the words.

    Args:
        files: images (BMP, GIF, JPEG, PNG, PPM, TIFF or WebP), folders of them, or patterns
        run: a folder that a training left, a weights file, or ferplus (default: fer2013, which comes along)
        whole: each image is one face, cut out already; look for none
        annotate: folder in which each image is kept with its faces framed
        heat: with --annotate, lay over each face where the network looked
        table: one line a face (this is what you get anyway)
        json: all numbers, as JSON
    """
    if films := [name for name in files if Path(name).suffix.lower() in VIDEOS]:
        raise ValueError(f"{films[0]} is a video: python3 -m helpers webcam --video {films[0]}")
    if table and json:
        raise ValueError("--table or --json, not both")
    if heat and not annotate:
        raise ValueError("--heat is drawn into images: add --annotate FOLDER")
    from helpers.predictor import image_files

    paths, found = [path for name in files for path in image_files(name)], []
    by_stem = {path.stem: path for path in reversed(paths)}
    for path in paths if annotate else ():
        if path != by_stem[path.stem]:
            both = f"{by_stem[path.stem]} and {path}"
            raise ValueError(f"--annotate would write {both} to one file: do them one by one")
    reader = loaded(run)
    for path in paths:
        try:
            reading = reader.image(path, whole=whole, heat=heat)
        except ValueError as error:
            print(error, file=sys.stderr)
            continue
        found.append({"file": str(path), **reading.record()})
        if not json:
            print("\n".join(lines(str(path), reading)), flush=True)
        if annotate:
            reading.save(annotate / f"{path.stem}.png")
    if json:
        print(to_json.dumps(found, indent=1))
    return int(len(found) < len(paths))


def loaded(run: Path | None) -> Predictor:
    """Return the predictor of a run; where none is named, the network for photographs that comes along."""
    from helpers.predictor import Predictor

    if run is None:
        print("network: FER2013's seven classes (data/weights/fer2013.md); another by --run", file=sys.stderr)
    return Predictor.load(run)


def lines(name: str, reading: Reading) -> list[str]:
    """Return what the table says of an image."""
    rows, num = [], len(reading.faces)
    for number, face in enumerate(reading.faces, start=1):
        order = (-face.distribution).argsort()
        rest = ", ".join(f"{face.classes[k]} {face.distribution[k]:.2f}" for k in order[1:3])
        rows.append(f"{name}{f'  face {number} of {num}' if num > 1 else ''}  {face}  (then {rest})")
    return rows or [f"{name}  {reading}"]


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
    without a screen), --text prints a line whenever the labels change. Exit status: 1 the camera or the video
    failed, 2 a mistake in the words.

    Args:
        camera: which camera
        video: a video in place of the camera
        run: a folder that a training left, a weights file, or ferplus (default: fer2013, which comes along)
        out: where s keeps images
        text: no window, print the labels
    """
    if camera < 0:
        raise ValueError(f"--camera is a number from 0, not {camera}")
    reader = loaded(run)
    source = reader.video(video) if video else reader.camera(camera)
    try:
        tell(source) if text else watch(source, out)
    except KeyboardInterrupt:
        pass
    except (ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def watch(source: Iterable[Reading], out: Path) -> None:
    """Show frame after frame in a window until it is closed or q is pressed; s keeps an image in ``out``."""
    try:
        cv2 = importlib.import_module("cv2")
        cv2.namedWindow("Reading Faces")
    except Exception as error:  # cv2.error, where OpenCV is there but without windows
        what = "OpenCV is missing" if isinstance(error, ImportError) else "this OpenCV has no window here"
        advice = 'to see the camera: pip install "opencv-python<5" (not headless), or add --text'
        raise ImportError(f"{what}; {advice}") from None
    for reading in source:
        cv2.imshow("Reading Faces", cv2.cvtColor(reading.annotated().transpose(1, 2, 0), cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 255
        if key == ord("q") or cv2.getWindowProperty("Reading Faces", cv2.WND_PROP_VISIBLE) < 1:
            break
        if key == ord("s"):
            path = next(path for i in itertools.count() if not (path := out / f"{i:03d}.png").exists())
            reading.save(path)
            print(f"kept {short(path)}")


def tell(source: Iterable[Reading]) -> None:
    """Print a line whenever the labels change."""
    before = None
    for reading in source:
        labels = [face.label for face in reading.faces]
        if labels != before:
            print(f"{reading.seconds:7.2f} s  {reading if labels else 'no face'}", flush=True)
        before = labels
