"""Small csv files with a header: labels, votes, legends."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from helpers import did_you_mean, images
from helpers.datasets.faceset import Refused, Rejection

Row = tuple[int, dict[str, str]]


def read(path: Path, columns: tuple[str, ...]) -> tuple[list[Row], list[Rejection]]:
    """Read a csv, a row a line; a row with too few or too many fields is set aside.

    Args:
        path: the file, in UTF-8.
        columns: names that its first row must have, in any order and casing; others may stand beside them.

    Returns:
        For each good row its number (the header is row 1) and its fields by column, stripped; and the others.

    Raises:
        ValueError: the file is something else: a git-lfs pointer, a web page, a table with other columns.
    """
    data = path.read_bytes()
    refuse_stand_in(path, data)
    first, *lines = data.decode("utf-8-sig", "replace").split("\n")
    names = header(path, first.split(","), columns)
    good, rejected = [], []
    for row, line in enumerate(lines, start=2):
        fields = _fields(line)
        if len(fields) == len(names):
            good.append((row, {name: field.strip() for name, field in zip(names, fields, strict=True)}))
        elif fields:
            reason = f"{len(fields)} fields instead of {len(names)}"
            rejected.append(Rejection(path.name, row, reason, "correct the row"))
    return good, rejected


def _fields(line: str) -> list[str]:
    """Return one line's fields; a quote that is not closed ends with its line, so that it spoils no other."""
    try:
        return next(csv.reader([line.rstrip("\r")]), [])
    except csv.Error:  # longer than any field should be
        return ["?"]


def sort_out(
    path: Path, rows: list[tuple[int, object]], judge: Callable[[object], object]
) -> tuple[list[tuple[int, object]], list[Rejection]]:
    """Pass each row through a function; what it refuses is set aside.

    Args:
        path: where the rows are from.
        rows: number and content of each.
        judge: returns what becomes of a row's content, or raises ``Refused``.

    Returns:
        Number and result for each row that passed; and the others.
    """
    passed, rejected = [], []
    for row, content in rows:
        try:
            passed.append((row, judge(content)))
        except Refused as error:
            rejected.append(Rejection(path.name, row, error.reason, error.remedy))
    return passed, rejected


def header(path: Path, found: list[str], columns: tuple[str, ...]) -> list[str]:
    """Return the names of a first row, in lower case, if those that are needed are among them.

    Args:
        path: for the message.
        found: the first row's fields.
        columns: the names that are needed, in lower case.

    Raises:
        ValueError: one is missing.
    """
    names = [name.strip(' "\r\n').lower() for name in found]
    for column in columns:
        if column not in names:
            hint = did_you_mean(column, names).replace("did you mean", "nearest is").rstrip("?")
            raise ValueError(f"{path}: first row has no column {column!r}{hint}; needs {', '.join(columns)}")
    return names


def refuse_stand_in(path: Path, head: bytes) -> None:
    """Raise if a file's first bytes show that it is no table at all.

    Args:
        path: for the message.
        head: the first bytes.

    Raises:
        ValueError: a git-lfs pointer, a web page, a UTF-16 or compressed file, or nothing.
    """
    kind = images.stand_in(head)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        kind = ("is in UTF-16", "save it in UTF-8")
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf")):
        kind = ("is an archive", "unpack it first")
    if kind:
        raise ValueError(f"{path}: {kind[0]}; {kind[1]}")
