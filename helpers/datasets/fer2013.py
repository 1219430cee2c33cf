"""FER2013: 48 by 48 grey faces in seven classes, as csv or folders; and FER+, ten votes for each of them."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import did_you_mean, emotions, one_of
from helpers.datasets import reading
from helpers.datasets.faceset import FaceSet, Rejection

SIDE = 48
CSV_PLACES = ("fer2013.csv", "icml_face_data.csv", "train.csv")
USAGES = {name.lower().encode(): name for name in ("Training", "PublicTest", "PrivateTest")}
VOTES = (*emotions.FERPLUS8, "unknown", "nf")  # the last two, "no face", are no classes
_EMOTIONS = {f"{i}{end}".encode(): i for i in range(7) for end in ("", ".0")}  # pandas writes 3.0 beside gaps
_BLOCK = 16  # rows whose pixels are parsed at once: as many as a core's cache holds


def files(root: Path, layout: str = "auto") -> list[Path]:
    """Return what is read: the csv, or every file of the image folders."""
    try:
        if layout in ("auto", "csv"):
            return [csv_file(root)]
    except FileNotFoundError:
        if layout == "csv":
            raise
    one_of("layout", layout, ("auto", "csv", "folders"))
    folder = _folder(root)  # beside the folders, other sets may lie in the root
    parts = [part for part in reading.entries(folder) if part.is_dir() and (folder != root or _split(part))]
    return [file for part in parts for file in reading.visible(Path(part))]


def csv_file(root: Path) -> Path:
    """Return where the csv lies."""

    def fits(path: Path) -> bool:
        if path.is_file() and path.name == "train.csv":  # many sets have a file of that name
            with open(path, "rb") as stream:
                return b"pixels" in stream.readline(200)
        return path.is_file()

    return reading.first(root, CSV_PLACES, "fer2013", fits)


def _split(folder: os.DirEntry) -> str:
    return reading.SPLITS.get(reading.plain(folder.name), "") if folder.is_dir() else ""


def _folder(root: Path) -> Path:
    """Return the folder that holds a folder of training faces."""
    for folder in (*reading.folders(root, "fer2013"), root):
        named = folder == root or reading.plain(folder.name).startswith(("fer2013", "archive"))
        if named and "train" in map(_split, reading.entries(folder)):
            return folder
    return reading.first(root, (*CSV_PLACES, "train/happy"), "fer2013", lambda _: False)  # it raises


def read(root: Path, pixels: reading.Pixels, layout: str = "auto") -> FaceSet:
    """Read the csv ("auto": where there is one, "csv"), or the "folders" ``train|validation|test/<class>/*``.

    PublicTest is the validation part where there is a PrivateTest, else the test part.
    """
    found = files(root, layout)
    if len(found) != 1 or found[0].name not in CSV_PLACES:
        labelled, rejected = reading.tree(_folder(root), root, found, emotions.FER7)
        return reading.face_set("fer2013", root, labelled, rejected, emotions.FER7, pixels)
    table, rejected = read_csv(found[0], pixels)
    about = table["emotion"].to_numpy(), emotions.FER7, *_where(table)
    return FaceSet("fer2013", pixels.close(), *about, rejected=tuple(rejected))


def _where(table: pd.DataFrame) -> list[np.ndarray]:
    return [table[name].to_numpy(dtype=str) for name in ("split", "source")]


def read_csv(
    path: Path, pixels: reading.Pixels, keep: dict[int, object] | None = None
) -> tuple[pd.DataFrame, list[Rejection]]:
    """Read ``emotion,pixels[,Usage]``, in any order of columns; a malformed row is set aside.

    Only images of rows in ``keep`` are kept. Without Usage, as in Kaggle's train.csv, all is Training. The
    table has emotion, usage, row, split and source of each good row.
    """
    good, bad = [], []
    with open(path, "rb", buffering=1 << 20) as lines:
        top = lines.readline()
        text = top.decode("utf-8-sig", "replace")
        names, separator = reading.header(path, top, text, ("emotion", "pixels"))
        numbered = ((number, line) for number, line in enumerate(lines, start=2) if not line.isspace())
        while block := list(islice(numbered, _BLOCK)):
            rows = []
            for number, line in block:
                try:
                    rows.append((*_fields(line, names, separator.encode()), number))
                except ValueError as error:
                    bad.append((number, str(error)))
            faces = _parsed([text for text, *_ in rows])
            if faces is None:  # something is wrong with one of them: row by row
                wrong = [row for row in rows if _parsed([row[0]]) is None]
                bad += [(number, _wrong(text)) for text, *_, number in wrong]
                rows = [row for row in rows if row not in wrong]
                faces = _parsed([text for text, *_ in rows])
            good += [row[1:] for row in rows]
            pixels.add(faces[[keep is None or number in keep for *_, number in rows]])
    table = pd.DataFrame(good, columns=["emotion", "usage", "row"])
    public = "validation" if (table["usage"] == "PrivateTest").any() else "test"
    splits = {"Training": "train", "PublicTest": public, "PrivateTest": "test"}
    source = [f"{path.name}:{number}" for number in table["row"]]
    remedy = "correct the row, or get the csv again"
    rejected = [Rejection(path.name, number, reason, remedy) for number, reason in sorted(bad)]
    return table.assign(split=table["usage"].map(splits), source=source), rejected


def _fields(line: bytes, names: list[str], separator: bytes) -> tuple[bytes, int, str]:
    """Return the text of the pixels of one line, emotion and Usage."""
    fields = line.rstrip(b"\r\n").split(separator)
    if len(fields) != len(names):
        raise ValueError(f"{len(fields)} fields instead of {len(names)}")
    named = dict(zip(names, fields, strict=True))
    emotion, usage = (named.get(name, b"Training").strip(b" \"'") for name in ("emotion", "usage"))
    if emotion not in _EMOTIONS:
        raise ValueError(f"emotion {emotion[:20].decode('utf-8', 'replace')!r} is not one of 0 to 6")
    if usage.lower() not in USAGES:
        usage = usage.decode("utf-8", "replace")
        raise ValueError(f"Usage {usage[:20]!r} is not known{did_you_mean(usage, USAGES.values())}")
    return named["pixels"].strip(b" \"'"), _EMOTIONS[emotion], USAGES[usage.lower()]


def _parsed(texts: list[bytes]) -> np.ndarray | None:
    """Return the images of rows, ``[R, 48, 48]``, or None where any of them is not as it should be.

    A set has 74 million pixels; what is wrong with which of them is left to :func:`_wrong`.
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
    return None if wrong else value.astype(np.uint8).reshape(-1, SIDE, SIDE)


def _wrong(text: bytes) -> str:
    """Say what is wrong with the pixels of a row."""
    words = [word for word in text.split(b" ") if word]
    odd = [word for word in words if not word.isdigit() or len(word) > 3 or int(word) > 255]
    if odd:
        return f"pixel {odd[0][:20].decode('utf-8', 'replace')!r} is no whole number from 0 to 255"
    return f"{len(words)} pixels instead of {SIDE * SIDE}"


def ferplus_files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: the pixels and the votes."""
    return [csv_file(root), reading.first(root, ("fer2013new.csv",), "ferplus", Path.is_file)]


def read_ferplus(root: Path, pixels: reading.Pixels, rule: str = "majority", min_votes: int = 1) -> FaceSet:
    """Read the faces with their votes; the distribution is the votes over the eight classes, summing to 1.

    ``rule`` says which faces have a label, the class with the most votes: "majority", those where it has more
    than half of all votes; "drop", those where it is not tied with another; "distribution", all (of tied
    classes, the first). Fewer than ``min_votes`` are taken for slips and not counted (FER+'s authors: 2).
    """
    one_of("rule", rule, ("majority", "drop", "distribution"))
    pixels_file, votes_file = ferplus_files(root)
    lines, rejected = reading.table(votes_file, ("usage", "image name", *VOTES))
    there, votes = {row for row, _ in lines} | {each.row for each in rejected}, {}
    for row, fields in lines:
        try:
            votes[row] = _judged(fields, rule, min_votes)
        except reading.Refused as error:
            rejected.append(Rejection(votes_file.name, row, *error.args))
    table, unread = read_csv(pixels_file, pixels, votes)
    both = {each.row for each in unread}  # a row can be malformed in both files
    usage, kept = dict(zip(table["row"], table["usage"], strict=True)), table[table["row"].isin(votes)]
    counts = np.array([votes[row] for row in kept["row"]], dtype=np.int64).reshape(-1, 8)
    labels, problem = counts.argmax(axis=1), ""
    same = np.array(emotions.FER7)[kept["emotion"].astype(int)] == np.array(emotions.FERPLUS8)[labels]
    moved = [row for row, each in lines if each["usage"].lower() != usage.get(row, each["usage"]).lower()]
    if odd := there ^ (usage.keys() | both):  # in silence, a face would be left without votes
        problem = f"row {min(odd)} is in one of {pixels_file.name} and {votes_file.name} alone"
    elif moved:
        problem = f"row {moved[0]} has another Usage in {pixels_file.name} than in {votes_file.name}"
    elif len(same) >= 200 and same.mean() < 0.4:  # a shifted or shuffled file agrees by chance alone
        problem = f"{votes_file.name} is for other faces: {same.mean():.0%} have one label in both, not 64%"
    if problem:
        raise ValueError(f"{problem}; both must be of one release, in their original order; get both again")
    told = {"votes": counts, "distribution": counts / counts.sum(axis=1, keepdims=True)}
    told["rejected"] = (*unread, *(each for each in rejected if each.row not in both))
    return FaceSet("ferplus", pixels.close(), labels, emotions.FERPLUS8, *_where(kept), **told)


def _judged(fields: dict[str, str], rule: str, min_votes: int) -> np.ndarray:
    """Return the votes for the eight classes, or refuse the row."""
    words = [fields[column] for column in VOTES]
    if odd := [word for word in words if not (word.isascii() and word.isdigit())]:
        raise reading.Refused(f"{odd[0][:20]!r} is no number of votes", "correct the row")
    votes = np.array([int(word[:9]) for word in words])
    if votes.sum() > 10:
        raise reading.Refused(f"{votes.sum()} votes of 10 raters", "correct the row")
    if not fields["image name"]:  # so the authors of FER+ marked it
        raise reading.Refused("has no file name: FER+ found no face in it", "nothing: the image is no use")
    votes[votes < min_votes] = 0
    top, other = votes[:8].max(), votes[8:].max()
    if other > top or top == 0:
        raise reading.Refused("most votes name no expression", "nothing: nobody knows what it shows")
    if rule == "majority" and 2 * top <= votes.sum():
        raise reading.Refused(f"{top} of {votes.sum()} votes are no majority", "another rule keeps it")
    tied = [name for name, count in zip(emotions.FERPLUS8, votes[:8], strict=True) if count == top]
    if rule == "drop" and len(tied) > 1:
        raise reading.Refused(f"{' and '.join(tied)} are tied", "rule='distribution' keeps it")
    return votes[:8]
