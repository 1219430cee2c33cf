"""FER+: the faces of FER2013, each judged by ten people; its votes are joined row for row with the csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers import did_you_mean, emotions, images
from helpers.datasets import fer2013, find, tables
from helpers.datasets.faceset import FaceSet, Refused, Rejection

NOT_A_CLASS = ("unknown", "nf")  # "no face"
NUM_RATERS = 10
RULES = ("majority", "drop", "distribution")
PLACES = tuple(f"{top}fer2013new.csv" for top in ("", "ferplus/", "FERPlus/", "fer2013/"))
_ADVICE = "the two files must be of one release, in their original order; get both again"
_COLUMNS = (*emotions.FERPLUS8, *NOT_A_CLASS)
_NAME = "image name"  # blank where the authors saw no face


def files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: the pixels and the votes."""
    return [fer2013.csv_file(root), find.first(root, PLACES, "ferplus")]


def read(root: Path, image_size: int, rule: str = "majority", min_votes: int = 1) -> FaceSet:
    """Read the faces with their votes; the distribution is the votes over the eight classes, summing to 1.

    A face is left out, whatever the rule, when it has no file name in FER+ (no face in it) or when
    "unknown" or "no face" has more votes than any class.

    Args:
        root: the data folder.
        image_size: side of the images in pixels.
        rule: which faces have a label, the class with the most votes: "majority", those where it has more
            than half of all votes; "drop", those where it is not tied with another; "distribution", all (of
            tied classes, the first in the order of ``emotions.FERPLUS8``).
        min_votes: fewer votes for a class than this are taken for slips and not counted (FER+'s authors: 2).

    Raises:
        ValueError: no rule is called that, or the two files do not belong together.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}{did_you_mean(rule, RULES)}; known: {', '.join(RULES)}")
    pixels_file, votes_file = files(root)
    table = fer2013.read_csv(pixels_file)
    lines, torn = tables.read(votes_file, ("usage", _NAME, *_COLUMNS))
    _check_same_rows(table, lines, torn)
    judged, refused = tables.sort_out(votes_file, lines, lambda fields: _judge(fields, rule, min_votes))
    kept, votes = _joined(table.row, dict(judged))
    _check_agreement(table.emotion[kept], votes)
    unread = {rejection.row for rejection in table.rejected}  # a row can be malformed in both files
    return FaceSet(
        "ferplus",
        images=images.resize(table.images[kept], image_size),
        labels=votes.argmax(axis=1),
        classes=emotions.FERPLUS8,
        split=fer2013.splits(table.usage)[kept],
        source=table.source()[kept],
        distribution=(votes / votes.sum(axis=1, keepdims=True)).astype(np.float32),
        votes=votes,
        rejected=(*table.rejected, *(r for r in (*torn, *refused) if r.row not in unread)),
    )


def _joined(rows: np.ndarray, votes: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the rows that have votes, and their votes int64 ``[n, 8]``."""
    kept = [i for i, row in enumerate(rows.tolist()) if row in votes]
    joined = [votes[row] for row in rows[kept].tolist()]
    return np.array(kept, dtype=np.int64), np.array(joined, dtype=np.int64).reshape(-1, 8)


def _judge(fields: dict[str, str], rule: str, min_votes: int) -> np.ndarray:
    """Return the votes for the eight classes, or refuse the row."""
    votes = np.array([_count(fields[column]) for column in _COLUMNS])
    if votes.sum() > NUM_RATERS:
        raise Refused(f"{votes.sum()} votes of {NUM_RATERS} raters", "correct the row")
    if not fields[_NAME]:
        raise Refused("has no file name: FER+ found no face in it", "nothing: the picture is no use")
    votes[votes < min_votes] = 0
    top, other = votes[:8].max(), votes[8:].max()
    if other > top or top == 0:
        raise Refused("most votes name no expression", "nothing: nobody knows what it shows")
    if rule == "majority" and 2 * top <= votes.sum():
        raise Refused(f"{top} of {votes.sum()} votes are no majority", "another rule keeps it")
    tied = [name for name, count in zip(_COLUMNS, votes[:8], strict=False) if count == top]
    if rule == "drop" and len(tied) > 1:
        raise Refused(f"{' and '.join(tied)} are tied", "rule='distribution' keeps it")
    return votes[:8]


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise Refused(f"{text[:20]!r} is no number of votes", "correct the row")
    return int(text[:9])


def _check_same_rows(table: fer2013.Table, lines: list[tables.Row], torn: list[Rejection]) -> None:
    pixels = {*table.row.tolist(), *(rejection.row for rejection in table.rejected)}
    votes = {*(row for row, _ in lines), *(rejection.row for rejection in torn)}
    if len(pixels) != len(votes):
        raise ValueError(f"{table.file} has {len(pixels)} rows, fer2013new.csv {len(votes)}; {_ADVICE}")
    if odd := pixels ^ votes:  # a blank line in one of them would leave a face without votes, in silence
        raise ValueError(f"row {min(odd)} is blank in one of {table.file} and fer2013new.csv; {_ADVICE}")
    usage = dict(zip(table.row.tolist(), table.usage.tolist(), strict=True))
    for row, fields in lines:
        if fields["usage"].lower() != usage.get(row, fields["usage"]).lower():
            both = f"{usage[row]!r} in {table.file}, {fields['usage']!r} in fer2013new.csv"
            raise ValueError(f"row {row} is {both}; {_ADVICE}")


def _check_agreement(emotion: np.ndarray, votes: np.ndarray) -> None:
    """Raise if the votes fit other faces: a shifted or shuffled file agrees by chance alone."""
    same = np.array(emotions.FER7)[emotion] == np.array(emotions.FERPLUS8)[votes.argmax(axis=1)]
    if len(same) >= 200 and same.mean() < 0.4:
        share = f"{same.mean():.0%} of the faces have one label in both (usually 64%)"
        raise ValueError(f"fer2013new.csv is for other faces: {share}; {_ADVICE}")
