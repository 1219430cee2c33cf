"""FER2013: 48 by 48 grey faces in seven classes, as csv or folders; and FER+, ten votes for each of them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helpers import did_you_mean, emotions
from helpers.datasets import reading
from helpers.datasets.faceset import FaceSet, Rejection

SIDE = 48
LAYOUTS = ("auto", "csv", "folders")
CSV_PLACES = ("fer2013.csv", "icml_face_data.csv", "train.csv")
USAGES = {"training": "Training", "publictest": "PublicTest", "privatetest": "PrivateTest"}
NUM_RATERS = 10
RULES = ("majority", "drop", "distribution")
VOTES = (*emotions.FERPLUS8, "unknown", "nf")  # the last two, "no face", are no classes
_EMOTIONS = {f"{i}{end}".encode(): i for i in range(7) for end in ("", ".0")}  # pandas writes 3.0 beside gaps
_BLOCK = 16  # rows whose pixels are parsed at once: as many as a core's cache holds
_NAME = "image name"  # blank where the authors of FER+ saw no face
_ADVICE = "the two files must be of one release, in their original order; get both again"


def files(root: Path, layout: str = "auto") -> list[Path]:
    """Return what is read: the csv, or every file of the image folders."""
    if layout not in LAYOUTS:
        raise ValueError(f"unknown {layout=}{did_you_mean(layout, LAYOUTS)}; known: {', '.join(LAYOUTS)}")
    if layout != "folders":
        try:
            return [csv_file(root)]
        except FileNotFoundError:
            if layout == "csv":
                raise
    folder = _folder(root)  # beside the folders, other sets may lie in the root
    parts = [part for part in reading.entries(folder) if part.is_dir() and (folder != root or _split(part))]
    return [file for part in parts for file in reading.visible(part)]


def csv_file(root: Path) -> Path:
    """Return where the csv lies."""

    def fits(path: Path) -> bool:
        if not path.is_file() or path.name != "train.csv":  # many sets have a file of that name
            return path.is_file()
        with open(path, "rb") as stream:
            return b"pixels" in stream.readline(200)

    return reading.first(root, CSV_PLACES, "fer2013", fits)


def _split(folder: Path) -> str:
    return reading.SPLITS.get(reading.plain(folder.name), "") if folder.is_dir() else ""


def _folder(root: Path) -> Path:
    """Return the folder that holds a folder of training faces."""
    for folder in (*reading.folders(root, "fer2013"), root):
        named = folder == root or reading.plain(folder.name).startswith(("fer2013", "archive"))
        if named and any(_split(part) == "train" for part in reading.entries(folder)):
            return folder
    return reading.first(root, (*CSV_PLACES, "train/happy"), "fer2013", lambda _: False)  # it raises


def read(root: Path, pixels: reading.Pixels, layout: str = "auto") -> FaceSet:
    """Read the csv ("auto": where there is one, "csv"), or the "folders" ``train|validation|test/<class>/*``.

    PublicTest is the validation part where there is a PrivateTest, else the test part.
    """
    found = files(root, layout)
    if layout == "folders" or [file for file in found if file.name not in CSV_PLACES]:
        labelled, rejected = reading.tree(_folder(root), root, found, emotions.FER7)
        return reading.face_set("fer2013", root, labelled, rejected, emotions.FER7, pixels)
    table = read_csv(found[0], pixels)
    told = {"split": table.split, "source": table.source, "rejected": tuple(table.rejected)}
    return FaceSet("fer2013", pixels.close(), table.emotion, emotions.FER7, **told)


class Table(NamedTuple):
    """The rows of a csv that could be read: emotion, Usage, split, number, where from; and the others."""

    emotion: np.ndarray
    usage: np.ndarray
    split: np.ndarray
    row: np.ndarray
    source: np.ndarray
    rejected: list[Rejection]


def read_csv(path: Path, pixels: reading.Pixels, keep: dict[int, object] | None = None) -> Table:
    """Read ``emotion,pixels[,Usage]``, in any order of columns; a malformed row is set aside.

    Only images of rows in ``keep`` are kept. Without Usage, as in Kaggle's train.csv, all is Training.
    """
    good, bad = [], []
    with open(path, "rb", buffering=1 << 20) as lines:
        top = lines.readline()
        names, separator = reading.header(
            path, top, top.decode("utf-8-sig", "replace"), ("emotion", "pixels")
        )
        numbered = enumerate(lines, start=2)
        while block := list(islice(numbered, _BLOCK)):
            rows, texts = [], []
            for number, line in block:
                try:
                    if line.strip():
                        emotion, usage, text = _fields(line, names, separator.encode())
                        rows.append((emotion, usage, number))
                        texts.append(text)
                except ValueError as error:
                    bad.append((number, str(error)))
            parsed = _parsed_at_once(texts)
            if parsed is None:  # something is wrong with one of them: row by row
                parsed, one_by_one, rows = [], zip(rows, texts, strict=True), []
                for row, text in one_by_one:
                    try:
                        parsed.append(parse_pixels(text))
                        rows.append(row)
                    except ValueError as error:
                        bad.append((row[2], str(error)))
            good += rows
            wanted = [keep is None or row[2] in keep for row in rows]
            pixels.add(np.array(parsed, dtype=np.uint8).reshape(-1, SIDE, SIDE)[wanted])
    emotion, usage, row = zip(*good, strict=True) if good else ((), (), ())
    usage, row = np.array(usage, dtype=str), np.array(row, dtype=np.int64)
    public = "validation" if (usage == "PrivateTest").any() else "test"
    split = np.select([usage == "Training", usage == "PublicTest"], ["train", public], default="test")
    source = np.array([f"{path.name}:{number}" for number in row.tolist()], dtype=str)
    remedy = "correct the row, or get the csv again"
    rejected = [Rejection(path.name, number, reason, remedy) for number, reason in sorted(bad)]
    return Table(np.array(emotion, dtype=np.int64), usage, split, row, source, rejected)


def _fields(line: bytes, names: list[str], separator: bytes) -> tuple[int, str, bytes]:
    """Return emotion, Usage and the text of the pixels of one line."""
    fields = line.rstrip(b"\r\n").split(separator)
    if len(fields) != len(names):
        raise ValueError(f"{len(fields)} fields instead of {len(names)}")
    emotion, usage = fields[names.index("emotion")].strip(b' "'), "Training"
    if "usage" in names:
        usage = fields[names.index("usage")].strip(b' "').decode("utf-8", "replace")
    if emotion not in _EMOTIONS:
        raise ValueError(f"emotion {_quote(emotion)} is not one of 0 to 6")
    if usage.lower() not in USAGES:
        raise ValueError(f"Usage {usage[:20]!r} is not known{did_you_mean(usage, USAGES.values())}")
    return _EMOTIONS[emotion], USAGES[usage.lower()], fields[names.index("pixels")].strip(b' "')


def _parsed_at_once(texts: list[bytes]) -> np.ndarray | None:
    """Return the pixels of rows, ``[R, 2304]``, or None where any of them is not as it should be.

    A set has 74 million pixels; what is wrong with which of them is left to :func:`parse_pixels`.
    """
    code, each = np.frombuffer(b"  " + b" ".join(texts) + b" ", dtype=np.uint8), SIDE * SIDE
    digit = code - ord("0")  # wraps: everything that is no digit becomes 10 or more
    is_digit = digit < 10
    last = np.flatnonzero(is_digit[:-1] > is_digit[1:])  # where each number ends
    row_ends = np.cumsum([len(text) + 1 for text in texts])
    if len(last) != each * len(texts) or not np.array_equal(last[each - 1 :: each], row_ends):
        return None
    tens, hundreds = digit[last - 1], digit[last - 2]
    two = tens < 10
    three = two & (hundreds < 10)
    value = digit[last] + np.uint16(10) * (tens * two) + np.uint16(100) * (hundreds * three)
    num_digits, spaces = np.count_nonzero(is_digit), np.count_nonzero(code == ord(" "))
    longer = num_digits != len(last) + np.count_nonzero(two) + np.count_nonzero(three)
    wrong = longer or num_digits + spaces != len(code) or value.max(initial=0) > 255
    return None if wrong else value.astype(np.uint8).reshape(-1, each)


def parse_pixels(text: bytes) -> np.ndarray:
    """Turn 2304 whole numbers from 0 to 255 and spaces into uint8; or say which of them is wrong."""
    words = [word for word in text.split(b" ") if word]
    for word in words:
        if not word.isdigit():
            raise ValueError(f"{_quote(word)} among the pixels is no whole number")
    if len(words) != SIDE * SIDE:
        raise ValueError(f"{len(words)} pixels instead of {SIDE * SIDE}")
    for word in words:
        if len(word) > 3 or int(word) > 255:
            raise ValueError(f"pixel {_quote(word)} is not from 0 to 255")
    return np.array([int(word) for word in words], dtype=np.uint8)


def _quote(text: bytes) -> str:
    return repr(text[:20].decode("utf-8", "replace"))


def ferplus_files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: the pixels and the votes."""
    return [csv_file(root), reading.first(root, ("fer2013new.csv",), "ferplus", Path.is_file)]


def read_ferplus(root: Path, pixels: reading.Pixels, rule: str = "majority", min_votes: int = 1) -> FaceSet:
    """Read the faces with their votes; the distribution is the votes over the eight classes, summing to 1.

    A face is left out, whatever the rule, when it has no file name in FER+ (no face in it) or when
    "unknown" or "no face" has more votes than any class.

    Args:
        root: the data folder.
        pixels: where the images go.
        rule: which faces have a label, the class with the most votes: "majority", those where it has more
            than half of all votes; "drop", those where it is not tied with another; "distribution", all (of
            tied classes, the first in the order of ``emotions.FERPLUS8``).
        min_votes: fewer votes for a class than this are taken for slips and not counted (FER+'s authors: 2).

    Raises:
        ValueError: no rule is called that, or the two files do not belong together.
    """
    if rule not in RULES:
        raise ValueError(f"unknown {rule=}{did_you_mean(rule, RULES)}; known: {', '.join(RULES)}")
    pixels_file, votes_file = ferplus_files(root)
    lines, rejected = reading.table(votes_file, ("usage", _NAME, *VOTES))
    there, votes = {row for row, _ in lines} | {rejection.row for rejection in rejected}, {}
    for row, fields in lines:
        try:
            votes[row] = _judged(fields, rule, min_votes)
        except reading.Refused as error:
            rejected.append(Rejection(votes_file.name, row, error.reason, error.remedy))
    table = read_csv(pixels_file, pixels, votes)
    unread = {rejection.row for rejection in table.rejected}  # a row can be malformed in both files
    usage = dict(zip(table.row.tolist(), table.usage.tolist(), strict=True))
    if len(there) != len(usage) + len(unread):
        raise ValueError(
            f"fer2013.csv has {len(usage) + len(unread)} rows, {votes_file.name} {len(there)}; {_ADVICE}"
        )
    if odd := there ^ (usage.keys() | unread):  # a blank line would leave a face without votes, in silence
        raise ValueError(f"row {min(odd)} is blank in one of fer2013.csv and {votes_file.name}; {_ADVICE}")
    for row, fields in lines:
        if fields["usage"].lower() != usage.get(row, fields["usage"]).lower():
            both = f"{usage[row]!r} in fer2013.csv, {fields['usage']!r} in {votes_file.name}"
            raise ValueError(f"row {row} is {both}; {_ADVICE}")
    kept = np.array([row in votes for row in table.row.tolist()], dtype=bool)
    counts = np.array([votes[row] for row in table.row[kept].tolist()], dtype=np.int64).reshape(-1, 8)
    labels, before = counts.argmax(axis=1), np.array(emotions.FER7)[table.emotion[kept]]
    same = before == np.array(emotions.FERPLUS8)[labels]
    if len(same) >= 200 and same.mean() < 0.4:  # a shifted or shuffled file agrees by chance alone
        share = f"{same.mean():.0%} of the faces have one label in both (usually 64%)"
        raise ValueError(f"{votes_file.name} is for other faces: {share}; {_ADVICE}")
    told = {"votes": counts, "distribution": counts / counts.sum(axis=1, keepdims=True)}
    told |= {"split": table.split[kept], "source": table.source[kept]}
    told["rejected"] = (*table.rejected, *(each for each in rejected if each.row not in unread))
    return FaceSet("ferplus", pixels.close(), labels, emotions.FERPLUS8, **told)


def _judged(fields: dict[str, str], rule: str, min_votes: int) -> np.ndarray:
    """Return the votes for the eight classes, or refuse the row."""
    for column in VOTES:
        if not (fields[column].isascii() and fields[column].isdigit()):
            raise reading.Refused(f"{fields[column][:20]!r} is no number of votes", "correct the row")
    votes = np.array([int(fields[column][:9]) for column in VOTES])
    if votes.sum() > NUM_RATERS:
        raise reading.Refused(f"{votes.sum()} votes of {NUM_RATERS} raters", "correct the row")
    if not fields[_NAME]:
        raise reading.Refused("has no file name: FER+ found no face in it", "nothing: the image is no use")
    votes[votes < min_votes] = 0
    top, other = votes[:8].max(), votes[8:].max()
    if other > top or top == 0:
        raise reading.Refused("most votes name no expression", "nothing: nobody knows what it shows")
    if rule == "majority" and 2 * top <= votes.sum():
        raise reading.Refused(f"{top} of {votes.sum()} votes are no majority", "another rule keeps it")
    tied = [name for name, count in zip(VOTES, votes[:8], strict=False) if count == top]
    if rule == "drop" and len(tied) > 1:
        raise reading.Refused(f"{' and '.join(tied)} are tied", "rule='distribution' keeps it")
    return votes[:8]
