"""The command ``predict``: what a trained network reads in pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli.status import short

if TYPE_CHECKING:
    from helpers.predictor import Predictor, Reading

TEXT = """\
Find the faces in pictures and say what a trained network reads in them: one line a face.

Exit status: 0 every picture was read (also where it shows no face), 1 a picture could not be read (the
others were), 2 a mistake in the words.
"""
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``predict``.

    Args:
        parser: the command's own.
    """
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="pictures: BMP, GIF, JPEG, PNG, PPM, TIFF or WebP")
    add_run(parser)
    add("--whole", action="store_true", help="each picture is one face, cut out already; look for none")
    add("--annotate", type=Path, metavar="FOLDER", help="keep each picture there with its faces framed")
    add("--heat", action="store_true", help="with --annotate: lay over each face where the network looked")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--table", action="store_true", help="one line a face (this is what you get anyway)")
    kind.add_argument("--json", action="store_true", help="all numbers, as JSON")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the trained network.

    Args:
        parser: the command's own.
    """
    text = "a folder that a training left (default: the latest in runs/)"
    parser.add_argument("--run", type=Path, default=None, metavar="FOLDER", help=text)


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant.

    Args:
        arguments: as :func:`declare` has them parsed.

    Raises:
        ValueError: an unknown option, a video, ``--heat`` with nothing to draw it on, or two pictures that
            would be kept under one name.
    """
    if arguments.rest:
        name = arguments.command
        raise ValueError(f"unknown option {arguments.rest[0]!r}; python3 -m helpers {name} --help lists them")
    films = [name for name in arguments.files if Path(name).suffix.lower() in VIDEOS]
    if films:
        raise ValueError(f"{films[0]} is a video: python3 -m helpers webcam --video {films[0]}")
    stems = [Path(name).stem for name in arguments.files]
    twice = [name for name in arguments.files if stems.count(Path(name).stem) > 1]
    if arguments.annotate and twice:
        raise ValueError(f"--annotate would write {twice[0]} and {twice[1]} to one file: do them one by one")
    if arguments.heat and not arguments.annotate:
        raise ValueError("--heat is drawn into pictures: add --annotate FOLDER")


def loaded(run: Path | None) -> Predictor | None:
    """Return the predictor of a run, the latest where none is named; say why there is none on stderr.

    Args:
        run: the folder, or None.
    """
    from helpers.predictor import Predictor, runs

    try:
        if run is not None:
            return Predictor.load(run)
        return _latest(runs())
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return None


def _latest(known: list[Path]) -> Predictor:
    from helpers.predictor import Predictor

    problems = []
    for folder in known:
        try:
            predictor = Predictor.load(folder)
        except ValueError as error:  # a network that was built by hand, or an old record: the next may do
            problems.append(str(error))
        else:
            print(f"network: {short(folder)}", file=sys.stderr)
            return predictor
    raise ValueError(problems[0] if problems else "no trained network in runs/; run notebook 03 first")


def perform(arguments: argparse.Namespace) -> int:
    """Read the pictures and print what was found; return the exit status.

    Args:
        arguments: as :func:`check` left them.
    """
    predictor = loaded(arguments.run)
    if predictor is None:
        return 1
    found, failed = [], 0
    for name in arguments.files:
        try:
            reading = predictor.image(name, whole=arguments.whole, heat=arguments.heat)
        except ValueError as error:
            print(error, file=sys.stderr)
            failed += 1
            continue
        found.append({"file": name, **reading.record()})
        if not arguments.json:
            print("\n".join(lines(name, reading)), flush=True)
        if arguments.annotate:
            keep(reading, arguments.annotate / f"{Path(name).stem}.png")
    if arguments.json:
        print(json.dumps(found, indent=1))
    return 1 if failed else 0


def lines(name: str, reading: Reading) -> Iterator[str]:
    """Yield what the table says of a picture.

    Args:
        name: the file.
        reading: what was found in it.
    """
    if not reading.faces:
        yield f"{name}  {reading}"
    for number, face in enumerate(reading.faces, start=1):
        order = (-face.distribution).argsort()
        rest = ", ".join(f"{face.classes[k]} {face.distribution[k]:.2f}" for k in order[1:3])
        which = f"  face {number} of {len(reading.faces)}" if len(reading.faces) > 1 else ""
        yield f"{name}{which}  {face}  (then {rest})"


def keep(reading: Reading, path: Path) -> None:
    """Write the annotated picture as PNG.

    Args:
        reading: what was found.
        path: the file.
    """
    from PIL import Image

    from helpers import files

    with files.replacing(path) as file:
        Image.fromarray(reading.annotated().transpose(1, 2, 0)).save(file, format="png")
