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
_EMOTIONS = {f"{i}{end}".encode(): i for i in range(7) for end in ("", ".0")}  # pandas writes 3.0 beside gaps
_BLOCK = 16  # rows whose pixels are parsed at once: as many as a core's cache holds


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
    return reading.first(root, CSV_PLACES, "fer2013", _is_csv)


def _is_csv(path: Path) -> bool:
    if not path.is_file() or path.name != "train.csv":  # many sets have a file of that name
        return path.is_file()
    with open(path, "rb") as stream:
        return b"pixels" in stream.readline(200)


def _split(folder: Path) -> str:
    return reading.SPLITS.get(reading.plain(folder.name), "")


def _folder(root: Path) -> Path:
    """Return the folder that holds a folder of training faces."""
    for folder in (*reading.folders(root, "fer2013"), root):
        named = folder == root or reading.plain(folder.name).startswith(("fer2013", "archive"))
        if named and any(_split(part) == "train" for part in reading.entries(folder) if part.is_dir()):
            return folder
    return reading.first(root, (*CSV_PLACES, "train/happy"), "fer2013", lambda _: False)  # it raises


def read(root: Path, pixels: reading.Pixels, layout: str = "auto") -> FaceSet:
    """Read the csv (in "auto" where there is one), or the folders ``train|validation|test/<class>/*``.

    PublicTest is the validation part where there is a PrivateTest, else the test part.

    Args:
        root: the data folder.
        pixels: where the images go.
        layout: "auto", "csv" or "folders".
    """
    found = files(root, layout)
    if layout == "folders" or [file.name for file in found if file.name not in CSV_PLACES]:
        labelled, rejected = reading.tree(_folder(root), root, found, emotions.FER7)
        return reading.face_set("fer2013", root, labelled, rejected, emotions.FER7, pixels)
    table = read_csv(found[0], pixels)
    return FaceSet(
        "fer2013",
        images=pixels.close(),
        labels=table.emotion,
        classes=emotions.FER7,
        split=splits(table.usage),
        source=table.source,
        rejected=tuple(table.rejected),
    )


def splits(usage: np.ndarray) -> np.ndarray:
    """Return "train", "validation" or "test" for each Usage of the csv."""
    public = "validation" if (usage == "PrivateTest").any() else "test"
    return np.select([usage == "Training", usage == "PublicTest"], ["train", public], default="test")


class Table(NamedTuple):
    """The rows of a csv that could be read (emotion, Usage, number, where from), and the others."""

    emotion: np.ndarray
    usage: np.ndarray
    row: np.ndarray
    source: np.ndarray
    rejected: list[Rejection]


def read_csv(path: Path, pixels: reading.Pixels, keep: dict[int, object] | None = None) -> Table:
    """Read ``emotion,pixels[,Usage]``, in any order of columns; a malformed row is set aside.

    Only images of rows in ``keep`` are kept. Without Usage, as in Kaggle's train.csv, all is Training.
    """
    good, rejected = [], []
    with open(path, "rb", buffering=1 << 20) as lines:
        top = lines.readline()
        names, separator = reading.header(
            path, top, top.decode("utf-8-sig", "replace"), ("emotion", "pixels")
        )
        numbered = enumerate(lines, start=2)
        while block := list(islice(numbered, _BLOCK)):
            rows = []
            for number, line in block:
                try:
                    if line.strip():
                        rows.append((number, *_fields(line, names, separator.encode())))
                except ValueError as error:
                    rejected.append(_rejection(path, number, error))
            parsed = _parsed_at_once([row[3] for row in rows])
            if parsed is None:  # something is wrong with one of them: row by row
                parsed, fine = [], []
                for row in rows:
                    try:
                        parsed.append(parse_pixels(row[3]))
                        fine.append(row)
                    except ValueError as error:
                        rejected.append(_rejection(path, row[0], error))
                rows = fine
            good += [row[:3] for row in rows]
            wanted = [i for i, row in enumerate(rows) if keep is None or row[0] in keep]
            pixels.add(np.array(parsed, dtype=np.uint8).reshape(-1, SIDE, SIDE)[wanted])
    row, emotion, usage = zip(*good, strict=True) if good else ((), (), ())
    source = np.array([f"{path.name}:{number}" for number in row], dtype=str)
    numbers = (np.array(column, dtype=np.int64) for column in (emotion, row))
    return Table(next(numbers), np.array(usage, dtype=str), next(numbers), source, sorted(rejected, key=_row))


def _row(rejection: Rejection) -> int:
    return rejection.row


def _rejection(path: Path, number: int, error: ValueError) -> Rejection:
    return Rejection(path.name, number, str(error), "correct the row, or get the csv again")


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
    code = np.frombuffer(b"  " + b" ".join(texts) + b" ", dtype=np.uint8)
    digit = code - ord("0")  # wraps: everything that is no digit becomes 10 or more
    is_digit = digit < 10
    last = np.flatnonzero(is_digit[:-1] > is_digit[1:])  # where each number ends
    row_ends = np.cumsum([len(text) + 1 for text in texts])
    each = SIDE * SIDE
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
    return np.array(words, dtype="S3").astype(np.uint8)


def _quote(text: bytes) -> str:
    return repr(text[:20].decode("utf-8", "replace"))


# --- FER+

NOT_A_CLASS = ("unknown", "nf")  # "no face"
NUM_RATERS = 10
RULES = ("majority", "drop", "distribution")
_COLUMNS = (*emotions.FERPLUS8, *NOT_A_CLASS)
_NAME = "image name"  # blank where the authors saw no face
_PARTS = ("FER2013Train", "FER2013Valid", "FER2013Test")  # images, as FER+'s own script writes them
_ADVICE = "the two files must be of one release, in their original order; get both again"


def ferplus_files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: the votes, and the csv with the pixels or every image."""
    votes = reading.first(root, ("fer2013new.csv",), "ferplus", Path.is_file)
    tops = {top / part for top in (votes.parent, votes.parent / "data", root) for part in _PARTS}
    try:
        return [votes, csv_file(root)]
    except FileNotFoundError:
        found = [file for top in sorted(filter(Path.is_dir, tops)) for file in reading.visible(top)]
        if not found:
            raise
        return [votes, *(file for file in found if file.suffix != ".csv")]


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
    votes_file, *found = ferplus_files(root)
    lines, rejected = reading.table(votes_file, ("usage", _NAME, *_COLUMNS))
    torn, votes = {rejection.row for rejection in rejected}, {}
    for row, fields in lines:
        try:
            votes[row] = _judge(fields, rule, min_votes)
        except reading.Refused as error:
            rejected.append(Rejection(votes_file.name, row, error.reason, error.remedy))
    if found[0].suffix != ".csv":
        return _from_folders(
            root, pixels, found, [line for line in lines if line[0] in votes], votes, rejected
        )
    table = read_csv(found[0], pixels, votes)
    _check_same_rows(table, lines, torn)
    kept = np.array([i for i, row in enumerate(table.row.tolist()) if row in votes], dtype=np.int64)
    counts = np.array([votes[row] for row in table.row[kept].tolist()], dtype=np.int64).reshape(-1, 8)
    same = np.array(emotions.FER7)[table.emotion[kept]] == np.array(emotions.FERPLUS8)[counts.argmax(axis=1)]
    if len(same) >= 200 and same.mean() < 0.4:  # a shifted or shuffled file agrees by chance alone
        share = f"{same.mean():.0%} of the faces have one label in both (usually 64%)"
        raise ValueError(f"fer2013new.csv is for other faces: {share}; {_ADVICE}")
    unread = {rejection.row for rejection in table.rejected}  # a row can be malformed in both files
    return FaceSet(
        "ferplus",
        images=pixels.close(),
        labels=counts.argmax(axis=1),
        classes=emotions.FERPLUS8,
        split=splits(table.usage)[kept],
        source=table.source[kept],
        distribution=(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32),
        votes=counts,
        rejected=(*table.rejected, *(each for each in rejected if each.row not in unread)),
    )


def _from_folders(
    root: Path, pixels: reading.Pixels, found: list[Path], lines: list, votes: dict, rejected: list[Rejection]
) -> FaceSet:
    """Join the votes with image files by their names; four names repeat, and only the first has the file."""
    named, listed = {file.name: file for file in found}, []
    for row, fields in lines:
        file, counts = named.pop(fields[_NAME], None), votes[row]
        if file is None:
            reason = f"no image {fields[_NAME]!r}, or an earlier row has it"
            rejected.append(Rejection("fer2013new.csv", row, reason, "get the file, or remove the row"))
            continue
        values = {"votes": counts, "distribution": np.float32(counts / counts.sum())}
        split = splits(np.array([USAGES.get(fields["usage"].lower(), "Training"), "PrivateTest"]))[0]
        listed.append(reading.Found(file, emotions.FERPLUS8[counts.argmax()], str(split), values=values))
    return reading.face_set("ferplus", root, listed, rejected, emotions.FERPLUS8, pixels)


def _judge(fields: dict[str, str], rule: str, min_votes: int) -> np.ndarray:
    """Return the votes for the eight classes, or refuse the row."""
    for column in _COLUMNS:
        if not (fields[column].isascii() and fields[column].isdigit()):
            raise reading.Refused(f"{fields[column][:20]!r} is no number of votes", "correct the row")
    votes = np.array([int(fields[column][:9]) for column in _COLUMNS])
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
    tied = [name for name, count in zip(_COLUMNS, votes[:8], strict=False) if count == top]
    if rule == "drop" and len(tied) > 1:
        raise reading.Refused(f"{' and '.join(tied)} are tied", "rule='distribution' keeps it")
    return votes[:8]


def _check_same_rows(table: Table, lines: list[tuple[int, dict[str, str]]], torn: set[int]) -> None:
    pixels = {*table.row.tolist(), *(rejection.row for rejection in table.rejected)}
    votes = {*(row for row, _ in lines), *torn}
    if len(pixels) != len(votes):
        raise ValueError(f"fer2013.csv has {len(pixels)} rows, fer2013new.csv {len(votes)}; {_ADVICE}")
    if odd := pixels ^ votes:  # a blank line in one of them would leave a face without votes, in silence
        raise ValueError(f"row {min(odd)} is blank in one of fer2013.csv and fer2013new.csv; {_ADVICE}")
    usage = dict(zip(table.row.tolist(), table.usage.tolist(), strict=True))
    for row, fields in lines:
        if fields["usage"].lower() != usage.get(row, fields["usage"]).lower():
            both = f"{usage[row]!r} in fer2013.csv, {fields['usage']!r} in fer2013new.csv"
            raise ValueError(f"row {row} is {both}; {_ADVICE}")
