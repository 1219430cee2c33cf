"""FER2013: 48 by 48 grey faces in seven classes, as csv or folders; and FER+, ten votes for each of them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from helpers import did_you_mean, emotions, one_of
from helpers.datasets import reading
from helpers.datasets.faceset import FaceSet, Rejection

SIDE = 48
CSV_PLACES = ("fer2013.csv", "icml_face_data.csv", "train.csv")
USAGES = {"training": "Training", "publictest": "PublicTest", "privatetest": "PrivateTest"}
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
    return [file for part in parts for file in reading.visible(part)]


def csv_file(root: Path) -> Path:
    """Return where the csv lies."""

    def fits(path: Path) -> bool:
        if path.is_file() and path.name == "train.csv":  # many sets have a file of that name
            with open(path, "rb") as stream:
                return b"pixels" in stream.readline(200)
        return path.is_file()

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
    columns, rejected = read_csv(found[0], pixels)
    columns = {name: columns[name] for name in ("labels", "split", "source")}
    return FaceSet("fer2013", pixels.close(), classes=emotions.FER7, rejected=tuple(rejected), **columns)


def read_csv(
    path: Path, pixels: reading.Pixels, keep: dict[int, object] | None = None
) -> tuple[dict[str, np.ndarray], list[Rejection]]:
    """Read ``emotion,pixels[,Usage]``, in any order of columns; a malformed row is set aside.

    Only images of rows in ``keep`` are kept. Without Usage, as in Kaggle's train.csv, all is Training.
    """
    good, bad = [], []
    with open(path, "rb", buffering=1 << 20) as lines:
        top = lines.readline()
        text = top.decode("utf-8-sig", "replace")
        names, separator = reading.header(path, top, text, ("emotion", "pixels"))
        numbered = ((number, line) for number, line in enumerate(lines, start=2) if line.strip())
        while block := list(islice(numbered, _BLOCK)):
            rows, faces = _block(block, names, separator.encode(), bad)
            good += rows
            pixels.add(faces[[keep is None or number in keep for _, _, number in rows]])
    emotion, usage, row = zip(*good, strict=True) if good else ((), (), ())
    usage = np.array(usage, dtype=str)
    public = "validation" if (usage == "PrivateTest").any() else "test"
    split = np.select([usage == "Training", usage == "PublicTest"], ["train", public], default="test")
    source = np.array([f"{path.name}:{number}" for number in row], dtype=str)
    remedy = "correct the row, or get the csv again"
    rejected = [Rejection(path.name, number, reason, remedy) for number, reason in sorted(bad)]
    columns = {"labels": np.array(emotion, dtype=np.int64), "split": split, "source": source}
    return columns | {"usage": usage, "row": np.array(row, dtype=np.int64)}, rejected


def _block(
    lines: list[tuple[int, bytes]], names: list[str], separator: bytes, bad: list[tuple[int, str]]
) -> tuple[list[tuple[int, str, int]], np.ndarray]:
    """Return emotion, Usage and number of the good rows, and their images; the others go to ``bad``."""
    rows, texts = [], []
    for number, line in lines:
        try:
            emotion, usage, text = _fields(line, names, separator)
            rows.append((emotion, usage, number))
            texts.append(text)
        except ValueError as error:
            bad.append((number, str(error)))
    parsed = _parsed(texts)
    if parsed is None:  # something is wrong with one of them: row by row
        each = [_parsed([text]) for text in texts]
        for (*_, number), text, one in zip(rows, texts, each, strict=True):
            bad += [(number, _wrong(text))] if one is None else []
        rows = [row for row, one in zip(rows, each, strict=True) if one is not None]
        parsed = np.array([one for one in each if one is not None], dtype=np.uint8)
    return rows, parsed.reshape(-1, SIDE, SIDE)


def _fields(line: bytes, names: list[str], separator: bytes) -> tuple[int, str, bytes]:
    """Return emotion, Usage and the text of the pixels of one line."""
    fields = line.rstrip(b"\r\n").split(separator)
    if len(fields) != len(names):
        raise ValueError(f"{len(fields)} fields instead of {len(names)}")
    named = {name: field.strip(b' "') for name, field in zip(names, fields, strict=True)}
    emotion, usage = named["emotion"], named.get("usage", b"Training").decode("utf-8", "replace")
    if emotion not in _EMOTIONS:
        raise ValueError(f"emotion {emotion[:20].decode('utf-8', 'replace')!r} is not one of 0 to 6")
    if usage.lower() not in USAGES:
        raise ValueError(f"Usage {usage[:20]!r} is not known{did_you_mean(usage, USAGES.values())}")
    return _EMOTIONS[emotion], USAGES[usage.lower()], named["pixels"]


def _parsed(texts: list[bytes]) -> np.ndarray | None:
    """Return the pixels of rows, ``[R, 2304]``, or None where any of them is not as it should be.

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
    return None if wrong else value.astype(np.uint8).reshape(-1, each)


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
    usage = dict(zip(table["row"].tolist(), table["usage"].tolist(), strict=True))
    kept = np.array([row in votes for row in usage], dtype=bool)
    counts = np.array([votes[row] for row in usage if row in votes], dtype=np.int64).reshape(-1, 8)
    labels, before = counts.argmax(axis=1), np.array(emotions.FER7)[table["labels"][kept]]
    same, problem = before == np.array(emotions.FERPLUS8)[labels], ""
    told = {row: fields["usage"] for row, fields in lines}
    moved = [row for row, word in told.items() if word.lower() != usage.get(row, word).lower()]
    if odd := there ^ (usage.keys() | both):  # in silence, a face would be left without votes
        problem = f"row {min(odd)} is in one of {pixels_file.name} and {votes_file.name} alone"
    elif moved:
        problem = f"row {moved[0]} has another Usage in {pixels_file.name} than in {votes_file.name}"
    elif len(same) >= 200 and same.mean() < 0.4:  # a shifted or shuffled file agrees by chance alone
        problem = f"{votes_file.name} is for other faces: {same.mean():.0%} have one label in both, not 64%"
    if problem:
        raise ValueError(f"{problem}; both must be of one release, in their original order; get both again")
    told = {"votes": counts, "distribution": counts / counts.sum(axis=1, keepdims=True)}
    told |= {name: table[name][kept] for name in ("split", "source")}
    rejected = (*unread, *(each for each in rejected if each.row not in both))
    return FaceSet("ferplus", pixels.close(), labels, emotions.FERPLUS8, rejected=rejected, **told)


def _judged(fields: dict[str, str], rule: str, min_votes: int) -> np.ndarray:
    """Return the votes for the eight classes, or refuse the row."""
    for column in VOTES:
        if not (fields[column].isascii() and fields[column].isdigit()):
            raise reading.Refused(f"{fields[column][:20]!r} is no number of votes", "correct the row")
    votes = np.array([int(fields[column][:9]) for column in VOTES])
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
