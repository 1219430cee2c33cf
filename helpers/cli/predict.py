"""The command ``predict``: what a trained network predicts for images."""

from __future__ import annotations

import json as to_json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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

    Exit status: 0 every image was read (also where it shows no face), 1 an image could not be read (the
    others were), 2 a mistake in the words.

    Args:
        files: images (BMP, GIF, JPEG, PNG, PPM, TIFF or WebP), folders of them, or patterns
        run: a folder that a training left, or a weights file (default: the latest in runs/)
        whole: each image is one face, cut out already; look for none
        annotate: folder in which each image is kept with its faces framed
        heat: with --annotate, lay over each face where the network looked
        table: one line a face (this is what you get anyway)
        json: all numbers, as JSON
    """
    films = [name for name in files if Path(name).suffix.lower() in VIDEOS]
    if films:
        raise ValueError(f"{films[0]} is a video: python3 -m helpers webcam --video {films[0]}")
    if table and json:
        raise ValueError("--table or --json, not both")
    if heat and not annotate:
        raise ValueError("--heat is drawn into images: add --annotate FOLDER")
    from helpers.predictor import image_files

    paths = [path for name in files for path in image_files(name)]
    stems = [path.stem for path in paths]
    twice = [path for path in paths if stems.count(path.stem) > 1]
    if annotate and twice:
        raise ValueError(f"--annotate would write {twice[0]} and {twice[1]} to one file: do them one by one")
    reader, found, failed = loaded(run), [], 0
    for path in paths:
        try:
            reading = reader.image(path, whole=whole, heat=heat)
        except ValueError as error:
            print(error, file=sys.stderr)
            failed += 1
            continue
        found.append({"file": str(path), **reading.record()})
        if not json:
            print("\n".join(lines(str(path), reading)), flush=True)
        if annotate:
            keep(reading, annotate / f"{path.stem}.png")
    if json:
        print(to_json.dumps(found, indent=1))
    return 1 if failed else 0


def loaded(run: Path | None) -> Predictor:
    """Return the predictor of a run; where none is named, of the latest that can be made again."""
    from helpers.cli import short
    from helpers.predictor import Predictor, runs

    if run is not None:
        return Predictor.load(run)
    problem: Exception | None = None
    for folder in [*runs(), None]:
        try:
            reader = Predictor.load(folder)
        except (OSError, ValueError) as error:  # a network that was built by hand, or an old record
            problem = problem or error
        else:
            print(f"network: {short(folder) if folder else 'data/weights'}", file=sys.stderr)
            return reader
    raise problem


def lines(name: str, reading: Reading) -> Iterator[str]:
    """Yield what the table says of an image."""
    if not reading.faces:
        yield f"{name}  {reading}"
    for number, face in enumerate(reading.faces, start=1):
        order = (-face.distribution).argsort()
        rest = ", ".join(f"{face.classes[k]} {face.distribution[k]:.2f}" for k in order[1:3])
        which = f"  face {number} of {len(reading.faces)}" if len(reading.faces) > 1 else ""
        yield f"{name}{which}  {face}  (then {rest})"


def keep(reading: Reading, path: Path) -> None:
    """Write the annotated image as PNG."""
    from PIL import Image

    from helpers import files

    with files.replacing(path) as file:
        Image.fromarray(reading.annotated().transpose(1, 2, 0)).save(file, format="png")
