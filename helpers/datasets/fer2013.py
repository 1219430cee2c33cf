"""FER2013: 48 by 48 grey faces in seven classes, as the challenge's csv or as image folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from helpers import did_you_mean, emotions, images
from helpers.datasets import find, pictures, tables
from helpers.datasets.faceset import FaceSet, Rejection

SIDE = 48
LAYOUTS = ("auto", "csv", "folders")
CSV_PLACES = ("fer2013.csv", "fer2013/fer2013.csv", "icml_face_data.csv", "fer2013/icml_face_data.csv")
FOLDERS = ("fer2013", "FER2013", "archive", ".")
USAGES = ("Training", "PublicTest", "PrivateTest")
_COLUMNS = ("emotion", "pixels", "usage")
_EMOTIONS = {str(i).encode(): i for i in range(len(emotions.FER7))}
_USAGES = {usage.lower().encode(): usage for usage in USAGES}
_BLOCK = 16  # rows whose pixels are parsed at once: as many as a core's cache holds
_REMEDY = "correct the row, or get the csv again"


def files(root: Path, layout: str = "auto") -> list[Path]:
    """Return what is read: the csv, or every file of the image folders."""
    if layout not in LAYOUTS:
        hint = did_you_mean(layout, LAYOUTS)
        raise ValueError(f"unknown layout {layout!r}{hint}; known: {', '.join(LAYOUTS)}")
    return [csv_file(root)] if _is_csv(root, layout) else _pictures(root)


def csv_file(root: Path) -> Path:
    """Return where the csv lies.

    Args:
        root: the data folder.

    Raises:
        FileNotFoundError: it is nowhere.
    """
    return find.first(root, CSV_PLACES, "fer2013")


def read(root: Path, image_size: int, layout: str = "auto") -> FaceSet:
    """Read the csv (in "auto" where there is one), or the folders ``train|validation|test/<class>/*``.

    In the csv, PublicTest is the validation part where there is a PrivateTest, else the test part.

    Args:
        root: the data folder.
        image_size: side of the images in pixels.
        layout: "auto", "csv" or "folders".
    """
    if not _is_csv(root, layout):
        found, rejected = pictures.tree(_folder(root), root, files(root, layout), emotions.FER7)
        return pictures.face_set("fer2013", root, found, rejected, emotions.FER7, image_size)
    table = read_csv(csv_file(root))
    return FaceSet(
        "fer2013",
        images=images.resize(table.images, image_size),
        labels=table.emotion,
        classes=emotions.FER7,
        split=splits(table.usage),
        source=table.source(),
        rejected=tuple(table.rejected),
    )


def _is_csv(root: Path, layout: str) -> bool:
    return layout == "csv" or (layout == "auto" and any((root / place).exists() for place in CSV_PLACES))


def _folder(root: Path) -> Path:
    """Return the folder that holds a folder of training faces."""
    for folder in (root / place for place in FOLDERS):
        if folder.is_dir() and any(_split(inside) == "train" for inside in folder.iterdir()):
            return folder
    return find.first(root, (*CSV_PLACES, "fer2013/train"), "fer2013")  # it raises


def _pictures(root: Path) -> list[Path]:
    parts = sorted(inside for inside in _folder(root).iterdir() if inside.is_dir() and _split(inside))
    return [file for part in parts for file in find.visible(part)]


def _split(folder: Path) -> str | None:
    return pictures.SPLITS.get(folder.name.lower())


def splits(usage: np.ndarray) -> np.ndarray:
    """Return "train", "validation" or "test" for each Usage of the csv.

    Args:
        usage: ``[N]`` of "Training", "PublicTest", "PrivateTest".
    """
    public = "validation" if (usage == "PrivateTest").any() else "test"
    return np.select([usage == "Training", usage == "PublicTest"], ["train", public], default="test")


@dataclass(frozen=True)
class Table:
    """The rows of a csv that could be read, and the others.

    Args:
        file: its name.
        images: uint8 ``[N, 48, 48]``.
        emotion: int64 ``[N]``, an index into ``emotions.FER7``.
        usage: ``[N]`` of ``USAGES``.
        row: int64 ``[N]``, counted from 1, the header's.
        rejected: one entry a malformed row.
    """

    file: str
    images: np.ndarray
    emotion: np.ndarray
    usage: np.ndarray
    row: np.ndarray
    rejected: list[Rejection]

    def source(self) -> np.ndarray:
        """Return where each face is from, "fer2013.csv:17"."""
        return np.array([f"{self.file}:{row}" for row in self.row], dtype=str)


def read_csv(path: Path) -> Table:
    """Read ``emotion,pixels,Usage``, in any order of columns, row by row; a malformed row is set aside.

    Args:
        path: the csv.

    Raises:
        ValueError: the file is no csv of that kind at all.
    """
    good, rejected = [], []
    with open(path, "rb", buffering=1 << 20) as lines:
        order, width = _header(path, lines.readline())
        numbered = ((number, line) for number, line in enumerate(lines, start=2) if line.strip())
        while block := list(islice(numbered, _BLOCK)):
            for number, row in _rows(block, order, width):
                if isinstance(row, ValueError):
                    rejected.append(Rejection(path.name, number, str(row), _REMEDY))
                else:
                    good.append((*row, number))
    pixels, emotion, usage, row = zip(*good, strict=True) if good else ((), (), (), ())
    return Table(
        path.name,
        images=np.array(pixels, dtype=np.uint8).reshape(-1, SIDE, SIDE),
        emotion=np.array(emotion, dtype=np.int64),
        usage=np.array(usage, dtype=str),
        row=np.array(row, dtype=np.int64),
        rejected=rejected,
    )


def _header(path: Path, line: bytes) -> tuple[list[int], int]:
    """Return the places of the three columns, and how many columns there are."""
    tables.refuse_stand_in(path, line)
    names = tables.header(path, line.decode("utf-8-sig", "replace").split(","), _COLUMNS)
    return [names.index(column) for column in _COLUMNS], len(names)


def _rows(
    block: list[tuple[int, bytes]], order: list[int], width: int
) -> Iterator[tuple[int, tuple[np.ndarray, int, str] | ValueError]]:
    """Yield for each numbered line its pixels, emotion and Usage, or what is wrong with it."""
    parted = [(number, _attempt(_fields, line, order, width)) for number, line in block]
    texts = [fields[0] for _, fields in parted if not isinstance(fields, ValueError)]
    together = iter(_parsed_at_once(texts))
    for number, fields in parted:
        if not isinstance(fields, ValueError):
            text, *rest = fields
            pixels = next(together, None)
            pixels = _attempt(parse_pixels, text) if pixels is None else pixels
            fields = pixels if isinstance(pixels, ValueError) else (pixels, *rest)
        yield number, fields


def _attempt(work: Callable, *given: object) -> object:
    try:
        return work(*given)
    except ValueError as error:
        return error


def _fields(line: bytes, order: list[int], width: int) -> tuple[bytes, int, str]:
    fields = line.rstrip(b"\r\n").split(b",")
    if len(fields) != width:
        raise ValueError(f"{len(fields)} fields instead of {width}")
    emotion, pixels, usage = (fields[place].strip(b' "') for place in order)
    if emotion not in _EMOTIONS:
        raise ValueError(f"emotion {_quote(emotion)} is not one of 0 to 6")
    if usage.lower() not in _USAGES:
        word = usage.decode("utf-8", "replace")
        raise ValueError(f"Usage {_quote(usage)} is not known{did_you_mean(word, USAGES)}")
    return pixels, _EMOTIONS[emotion], _USAGES[usage.lower()]


def _parsed_at_once(texts: list[bytes]) -> np.ndarray | tuple[()]:
    """Return the pixels of rows, ``[R, 2304]``, or nothing where any of them is not as it should be.

    A set has 74 million pixels; what is wrong with which of them is left to :func:`parse_pixels`.
    """
    if not texts:
        return ()
    code = np.frombuffer(b"  " + b" ".join(texts) + b" ", dtype=np.uint8)
    digit = code - ord("0")  # wraps: everything that is no digit becomes 10 or more
    is_digit = digit < 10
    last = np.flatnonzero(is_digit[:-1] > is_digit[1:])  # where each number ends
    rows_end = np.cumsum([len(text) + 1 for text in texts])
    if len(last) != SIDE * SIDE * len(texts) or not np.array_equal(
        last[SIDE * SIDE - 1 :: SIDE * SIDE], rows_end
    ):
        return ()
    tens, hundreds = digit[last - 1], digit[last - 2]
    two = tens < 10
    three = two & (hundreds < 10)
    value = digit[last] + np.uint16(10) * (tens * two) + np.uint16(100) * (hundreds * three)
    num_digits = np.count_nonzero(is_digit)
    spaces = np.count_nonzero(code == ord(" "))
    longer = num_digits != len(last) + np.count_nonzero(two) + np.count_nonzero(three)
    if longer or num_digits + spaces != len(code) or value.max() > 255:
        return ()
    return value.astype(np.uint8).reshape(len(texts), -1)


def parse_pixels(text: bytes) -> np.ndarray:
    """Turn ``b"70 80 255 ..."`` into pixels.

    Args:
        text: 2304 whole numbers from 0 to 255, separated by spaces.

    Returns:
        uint8 ``[2304]``.

    Raises:
        ValueError: it is anything else.
    """
    code = np.frombuffer(b"   %b " % text, dtype=np.uint8)
    digit = code - ord("0")  # wraps: everything that is no digit becomes 10 or more
    is_digit = digit < 10
    stray = ~is_digit & (code != ord(" "))
    if stray.any():
        word = _word_at(text, int(stray.argmax()) - 3)
        raise ValueError(f"{_quote(word)} among the pixels is no whole number")
    units, tens, hundreds, more = (is_digit[3 - back : -1 - back] for back in range(4))
    last = np.flatnonzero(units & ~is_digit[4:])  # where each number ends
    if len(last) != SIDE * SIDE:
        raise ValueError(f"{len(last)} pixels instead of {SIDE * SIDE}")
    number = (digit * is_digit).astype(np.uint16)
    value = (number[3:-1] + 10 * number[2:-2] + 100 * number[1:-3] * tens)[last]
    wrong = (value > 255) | (tens & hundreds & more)[last]
    if wrong.any():
        raise ValueError(f"pixel {_quote(_word_at(text, int(last[wrong][0])))} is not from 0 to 255")
    return value.astype(np.uint8)


def _word_at(text: bytes, place: int) -> bytes:
    return text[text.rfind(b" ", 0, place) + 1 :].split(b" ", 1)[0]


def _quote(text: bytes) -> str:
    return repr(text[:20].decode("utf-8", "replace"))
