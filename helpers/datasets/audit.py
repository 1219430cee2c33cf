"""What is wrong with a data set, as tables: look here before you believe a score."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd

from helpers import images
from helpers.datasets import splitting
from helpers.datasets.faceset import SPLITS, FaceSet

NEAR = 0.96
"""Correlation of two 16 by 16 thumbnails from which they are, on FER2013, nearly always one photograph."""

_BLOCK = 2048  # faces at a time, so that a memory map need not fit


@dataclass(frozen=True)
class Audit:
    """What an audit found; every table can be empty.

    Args:
        rejects: one row each left-out row or picture: ``split, file, row, reason, remedy, kind`` (the reason
            without its particulars, to count by).
        duplicates: ``split, other, faces, share, blank``: faces of ``split`` with the very pixels of a face
            of ``other``, where both are the same split, copies beyond the first; and how many of those are
            blank (one single grey).
        copies: one row each face that has a twin: ``group, split, index, source, label``.
        conflicts: the rows of ``copies`` whose twins have different labels.
        subjects: ``split, other, subjects, faces, share``: people in both, and their faces in ``split``.
        balance: a row each class, a column of counts each split, and ``share`` of all.
        brightness: a row each split: mean and standard deviation of the faces' mean grey (0 to 255), mean
            contrast (a face's own standard deviation), and how many are ``blank`` (one single grey).
        entropy: a row each class: mean entropy of the label distribution in bits, and the share of faces
            whose likeliest class has at most half of it (``ambiguous``); empty without distributions.
        near_duplicates: ``split, source, other, twin, correlation``: faces of ``split`` with a near twin
            in an earlier split, pixel-identical ones not counted.
    """

    rejects: pd.DataFrame
    duplicates: pd.DataFrame
    copies: pd.DataFrame
    conflicts: pd.DataFrame
    subjects: pd.DataFrame
    balance: pd.DataFrame
    brightness: pd.DataFrame
    entropy: pd.DataFrame
    near_duplicates: pd.DataFrame


Parts = FaceSet | Mapping[str, FaceSet] | Sequence[FaceSet]


def audit(faces: Parts, near: bool = False) -> Audit:
    """Count what makes a score on this set better, or worse, than it should be.

    Args:
        faces: a face set (audited by its official split), splits by name, or what ``splits()`` returned.
        near: also look for near duplicates across splits, see :func:`most_alike`; seconds, not a moment.
    """
    parts = by_split(faces)
    copies = _copies(parts)
    return Audit(
        rejects=_rejects(faces, parts),
        duplicates=_duplicates(parts),
        copies=copies,
        conflicts=copies[copies.groupby("group")["label"].transform("nunique") > 1],
        subjects=_subjects(parts),
        balance=_balance(parts),
        brightness=_brightness(parts),
        entropy=_entropy(parts),
        near_duplicates=_near_pairs(parts if near else {}),
    )


def leaked(test: FaceSet, train: FaceSet) -> np.ndarray:
    """Return which test faces are pixel-identical to a training face.

    Args:
        test: the faces to mark, N of them.
        train: the faces they may have been copied from.

    Returns:
        bool ``[N]``.
    """
    return np.isin(splitting.fingerprints(test.images), splitting.fingerprints(train.images))


def most_alike(faces: FaceSet, others: FaceSet) -> tuple[np.ndarray, np.ndarray]:
    """Find for each face the other one that looks most like it: one photo with another crop or watermark.

    Args:
        faces: N faces.
        others: the faces to look among, at least one.

    Returns:
        float32 ``[N]``, the correlation of their 16 by 16 thumbnails (``NEAR`` and above is suspicious in
        photographs; drawn faces are all alike), and int64 ``[N]``, the position among the others.
    """
    theirs = _thumbnails(others.images)
    best, where = np.empty(len(faces), np.float32), np.empty(len(faces), np.int64)
    for start in range(0, len(faces), _BLOCK):
        here = slice(start, start + _BLOCK)
        alike = _thumbnails(faces.images[here]) @ theirs.T
        best[here], where[here] = alike.max(axis=1), alike.argmax(axis=1)
    return best, where


def by_split(faces: Parts) -> dict[str, FaceSet]:
    """Return non-empty splits by name.

    Args:
        faces: a face set, taken apart by its official split ("all" where it has none); splits by name; or
            train, validation and test in this order.
    """
    if isinstance(faces, FaceSet):
        names = [name for name in (*SPLITS, "") if (faces.split == name).any()]
        parts = {name or "all": faces.select(faces.split == name) for name in names}
    else:
        parts = dict(faces if isinstance(faces, Mapping) else zip(SPLITS, faces, strict=True))
    return {name: part for name, part in parts.items() if len(part)}


def _thumbnails(pixels: np.ndarray) -> np.ndarray:
    """Return float32 ``[N, 256]``: 16 by 16 area means (of RGB: of its mean), centred, of length 1."""
    small = [images.resize(_grey(block), 16) for block in _blocks(pixels)]
    flat = np.concatenate(small).reshape(len(pixels), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)  # a blank one is like nothing


def _grey(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else pixels.mean(axis=1).astype(np.uint8)


def _blocks(pixels: np.ndarray) -> Iterator[np.ndarray]:
    yield from (pixels[start : start + _BLOCK] for start in range(0, len(pixels), _BLOCK))


def _rejects(faces: Parts, parts: dict[str, FaceSet]) -> pd.DataFrame:
    owners = {"": faces} if isinstance(faces, FaceSet) else parts
    rows = [
        (split, r.file, r.row, r.reason, r.remedy, re.sub(r"'[^']*'|\d+", "…", r.reason))
        for split, part in owners.items()
        for r in part.rejected
    ]
    return pd.DataFrame(rows, columns=["split", "file", "row", "reason", "remedy", "kind"])


def _duplicates(parts: dict[str, FaceSet]) -> pd.DataFrame:
    pixels = {name: splitting.fingerprints(part.images) for name, part in parts.items()}
    rows = []
    for (split, here), (other, there) in product(pixels.items(), repeat=2):
        same = _repeats(here) if split == other else np.isin(here, there)
        blank = int((same & _is_blank(parts[split].images)).sum())
        rows.append((split, other, int(same.sum()), same.mean(), blank))
    return pd.DataFrame(rows, columns=["split", "other", "faces", "share", "blank"])


def _repeats(pixels: np.ndarray) -> np.ndarray:
    """Return where an entry stood before."""
    again = np.ones(len(pixels), dtype=bool)
    again[np.unique(pixels, return_index=True)[1]] = False
    return again


def _is_blank(pixels: np.ndarray) -> np.ndarray:
    flat = pixels.reshape(len(pixels), -1)
    return flat.min(axis=1) == flat.max(axis=1)


def _copies(parts: dict[str, FaceSet]) -> pd.DataFrame:
    table = pd.concat([_listing(name, part) for name, part in parts.items()], ignore_index=True)
    table = table[table.groupby("pixels")["pixels"].transform("size") > 1]
    table.insert(0, "group", table.groupby("pixels", sort=False).ngroup())
    return table.drop(columns="pixels").sort_values(["group", "split", "index"], ignore_index=True)


def _listing(split: str, part: FaceSet) -> pd.DataFrame:
    columns = {
        "split": split,
        "index": np.arange(len(part)),
        "source": part.source,
        "label": np.array(part.classes)[part.labels],
        "pixels": splitting.fingerprints(part.images),
    }
    return pd.DataFrame(columns)


def _subjects(parts: dict[str, FaceSet]) -> pd.DataFrame:
    people = {n: p.subject[p.subject >= 0] for n, p in parts.items() if p.subject is not None}
    rows = []
    for (split, here), (other, there) in permutations(people.items(), 2):
        both, faces = np.intersect1d(here, there), int(np.isin(here, there).sum())
        rows.append((split, other, len(both), faces, faces / len(parts[split])))
    return pd.DataFrame(rows, columns=["split", "other", "subjects", "faces", "share"])


def _balance(parts: dict[str, FaceSet]) -> pd.DataFrame:
    classes = next(iter(parts.values())).classes
    counts = {name: np.bincount(part.labels, minlength=len(classes)) for name, part in parts.items()}
    table = pd.DataFrame(counts, index=pd.Index(classes, name="class"))
    return table.assign(share=table.sum(axis=1) / table.to_numpy().sum())


def _brightness(parts: dict[str, FaceSet]) -> pd.DataFrame:
    rows = {}
    for name, part in parts.items():
        grey = [_grey(block).reshape(len(block), -1) for block in _blocks(part.images)]
        mean = np.concatenate([block.mean(axis=1) for block in grey])
        contrast = np.concatenate([block.std(axis=1, dtype=np.float32) for block in grey])
        blank = int(_is_blank(part.images).sum())
        rows[name] = (mean.mean(), mean.std(), contrast.mean(), blank)
    columns = ["mean", "deviation", "contrast", "blank"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("split")


def _entropy(parts: dict[str, FaceSet]) -> pd.DataFrame:
    rows = [
        (np.array(part.classes)[part.labels], part.distribution)
        for part in parts.values()
        if part.distribution is not None
    ]
    if not rows:
        return pd.DataFrame(columns=["faces", "entropy", "ambiguous"])
    label, share = (np.concatenate(columns) for columns in zip(*rows, strict=True))
    bits = -np.sum(share * np.log2(share, out=np.zeros_like(share), where=share > 0), axis=1)
    table = pd.DataFrame({"class": label, "entropy": bits, "ambiguous": share.max(axis=1) <= 0.5})
    means = table.groupby("class", sort=False).mean()
    means.insert(0, "faces", table["class"].value_counts())
    classes = next(iter(parts.values())).classes
    return means.reindex([name for name in classes if name in means.index])


def _near_pairs(parts: dict[str, FaceSet]) -> pd.DataFrame:
    tables = [_near(split, part, other, parts[other]) for split, part, other in _later_first(parts)]
    columns = ["split", "source", "other", "twin", "correlation"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _later_first(parts: dict[str, FaceSet]) -> list[tuple[str, FaceSet, str]]:
    return [(late, parts[late], early) for early, late in combinations(parts, 2)]


def _near(split: str, part: FaceSet, other: str, others: FaceSet) -> pd.DataFrame:
    alike, where = most_alike(part, others)
    near = np.flatnonzero((alike >= NEAR) & ~leaked(part, others))
    columns = {
        "split": split,
        "source": part.source[near],
        "other": other,
        "twin": others.source[where[near]],
        "correlation": alike[near],
    }
    return pd.DataFrame(columns)
