"""FER2013: 48 by 48 grey faces in seven classes, as the challenge's csv or as image folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers import did_you_mean, emotions, images
from helpers.datasets import find
from helpers.datasets.faceset import FaceSet, Rejection

SIDE = 48
COLUMNS = ("emotion", "pixels", "usage")
USAGES = ("Training", "PublicTest", "PrivateTest")
REMEDY = "correct the row, or get the csv again"
_EMOTIONS = {str(i).encode(): i for i in range(len(emotions.FER7))}
_USAGES = {usage.lower().encode(): usage for usage in USAGES}


def files(root: Path, **_options) -> list[Path]:
    """Return what is read: the csv."""
    return [find.first(root, ("fer2013.csv", "fer2013/fer2013.csv", "icml_face_data.csv"), "fer2013")]


def read(root: Path, image_size: int) -> FaceSet:
    """Read the csv; PublicTest is the validation part where there is a PrivateTest, else the test part.

    Args:
        root: the data folder.
        image_size: side of the images in pixels.
    """
    (path,) = files(root)
    table = read_csv(path)
    return FaceSet(
        "fer2013",
        images=images.resize(table["images"], image_size),
        labels=table["emotion"],
        classes=emotions.FER7,
        split=splits(table["usage"]),
        source=np.array([f"{path.name}:{row}" for row in table["row"]], dtype=str),
        rejected=tuple(table["rejected"]),
    )


def splits(usage: np.ndarray) -> np.ndarray:
    """Return "train", "validation" or "test" for each Usage of the csv.

    Args:
        usage: ``[N]`` of "Training", "PublicTest", "PrivateTest".
    """
    public = "validation" if (usage == "PrivateTest").any() else "test"
    return np.select([usage == "Training", usage == "PublicTest"], ["train", public], default="test")


def read_csv(path: Path) -> dict:
    """Read ``emotion,pixels,Usage`` (in any order of columns) row by row; a malformed row is set aside.

    Args:
        path: the csv.

    Returns:
        ``images`` uint8 ``[N, 48, 48]``, ``emotion`` int64 ``[N]``, ``usage`` ``[N]``, ``row`` int64 ``[N]``
        (the header is row 1) and ``rejected``, a list.

    Raises:
        ValueError: the file is no csv of that kind at all.
    """
    good, rejected = [], []
    with open(path, "rb", buffering=1 << 20) as lines:
        order, width = _header(path, lines.readline())
        for number, line in enumerate(lines, start=2):
            try:
                if line.strip():
                    good.append((*_row(line, order, width), number))
            except ValueError as error:
                rejected.append(Rejection(path.name, number, str(error), REMEDY))
    pixels, emotion, usage, row = zip(*good, strict=True) if good else ((), (), (), ())
    return {
        "images": np.array(pixels, dtype=np.uint8).reshape(-1, SIDE, SIDE),
        "emotion": np.array(emotion, dtype=np.int64),
        "usage": np.array(usage, dtype=str),
        "row": np.array(row, dtype=np.int64),
        "rejected": rejected,
    }


def _header(path: Path, line: bytes) -> tuple[list[int], int]:
    """Return the places of the three columns, and how many columns there are."""
    images.check_is_data(path, line)
    names = [name.strip(' "\r\n').lower() for name in line.decode("utf-8-sig", "replace").split(",")]
    for column in COLUMNS:
        if column not in names:
            found = ", ".join(names)[:80]
            raise ValueError(f"{path}: first row has no {column!r} ({found}); expected emotion,pixels,Usage")
    return [names.index(column) for column in COLUMNS], len(names)


def _row(line: bytes, order: list[int], width: int) -> tuple[np.ndarray, int, str]:
    fields = line.rstrip(b"\r\n").split(b",")
    if len(fields) != width:
        raise ValueError(f"{len(fields)} fields instead of {width}")
    emotion, pixels, usage = (fields[place].strip(b' "') for place in order)
    if emotion not in _EMOTIONS:
        raise ValueError(f"emotion {_quote(emotion)} is not one of 0 to 6")
    if usage.lower() not in _USAGES:
        word = usage.decode("utf-8", "replace")
        raise ValueError(f"Usage {_quote(usage)} is not known{did_you_mean(word, USAGES)}")
    return parse_pixels(pixels), _EMOTIONS[emotion], _USAGES[usage.lower()]


def parse_pixels(text: bytes) -> np.ndarray:
    """Turn ``b"70 80 255 ..."`` into pixels; all digits of a row at once, since a set has 74 million.

    Args:
        text: 2304 whole numbers from 0 to 255, separated by spaces.

    Returns:
        uint8 ``[2304]``.

    Raises:
        ValueError: it is anything else.
    """
    code = np.frombuffer(b"    %b " % text, dtype=np.uint8)
    digit = code - ord("0")  # wraps: everything that is no digit becomes 10 or more
    is_digit = digit < 10
    stray = ~is_digit & (code != ord(" "))
    if stray.any():
        raise ValueError(
            f"{_quote(_word_at(text, int(stray.argmax()) - 4))} among the pixels is no whole number"
        )
    last = np.flatnonzero(is_digit[:-1] & ~is_digit[1:])  # where each number ends
    if len(last) != SIDE * SIDE:
        raise ValueError(f"{len(last)} pixels instead of {SIDE * SIDE}")
    tens, hundreds = is_digit[last - 1], is_digit[last - 1] & is_digit[last - 2]
    number = digit.astype(np.uint16)
    value = number[last] + 10 * tens * number[last - 1] + 100 * hundreds * number[last - 2]
    wrong = (value > 255) | (hundreds & is_digit[last - 3])
    if wrong.any():
        raise ValueError(f"pixel {_quote(_word_at(text, int(last[wrong][0]) - 4))} is not from 0 to 255")
    return value.astype(np.uint8)


def _word_at(text: bytes, place: int) -> bytes:
    return text[text.rfind(b" ", 0, place) + 1 :].split(b" ", 1)[0]


def _quote(text: bytes) -> str:
    return repr(text[:20].decode("utf-8", "replace"))
