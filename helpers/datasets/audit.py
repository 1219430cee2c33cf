"""What is wrong with a data set, as tables: look here before you believe a score."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd

from helpers import emotions, images
from helpers.datasets.faceset import BLOCK, SPLITS, FaceSet, fingerprints

NEAR = 0.96
"""Correlation of two 16 by 16 thumbnails from which they are, on FER2013, nearly always one photograph."""


@dataclass(frozen=True)
class Audit:
    """What an audit found; every table can be empty.

    Args:
        rejects: one row each left-out row or image: ``split, file, row, reason, remedy, kind`` (the reason
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
        entropy: a row each class: mean entropy of the label distribution in bits, the share of faces whose
            likeliest class has at most half of it (``ambiguous``) and of faces whose label is not their
            likeliest class (``label_differs``); empty without distributions.
        valence_arousal: a row each class: ``unknown`` faces, mean and standard deviation of the others, and
            how many have a valence of the other sign than their class usually has (``contradicting``).
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
    valence_arousal: pd.DataFrame
    near_duplicates: pd.DataFrame


Parts = FaceSet | Mapping[str, FaceSet] | Sequence[FaceSet]


def audit(faces: Parts, near: bool = False) -> Audit:
    """Count what makes a score on this set better, or worse, than it should be.

    Args:
        faces: a face set (audited by its official split), splits by name, or what ``splits()`` returned.
        near: also look for near duplicates across splits, see :func:`most_alike`; seconds, not a moment.
    """
    if isinstance(faces, FaceSet):
        names = [name for name in (*SPLITS, "") if (faces.split == name).any()]
        parts, owners = {name or "all": faces.select(faces.split == name) for name in names}, {"": faces}
    else:
        owners = dict(faces if isinstance(faces, Mapping) else zip(SPLITS, faces, strict=True))
        parts = {name: part for name, part in owners.items() if len(part)}
    pixels = {name: fingerprints(part.images) for name, part in parts.items()}
    copies = _copies(parts, pixels)
    return Audit(
        rejects=_rejects(owners),
        duplicates=_duplicates(parts, pixels),
        copies=copies,
        conflicts=copies[copies.groupby("group")["label"].transform("nunique") > 1],
        subjects=_subjects(parts),
        balance=_balance(parts),
        brightness=_brightness(parts),
        entropy=_entropy(parts),
        valence_arousal=_valence_arousal(parts),
        near_duplicates=_near(parts if near else {}),
    )


def leaked(test: FaceSet, train: FaceSet) -> np.ndarray:
    """Return which test faces are pixel-identical to a training face.

    Args:
        test: the faces to mark, N of them.
        train: the faces they may have been copied from.

    Returns:
        bool ``[N]``.
    """
    return np.isin(fingerprints(test.images), fingerprints(train.images))


def left_out(faces: FaceSet, most: int = 3) -> str:
    """Return what was left out of a set, a line for each of the commonest reasons; "" where nothing was."""
    if not faces.rejected:
        return ""
    first = {rejection.reason: rejection for rejection in reversed(faces.rejected)}
    reasons = Counter(rejection.reason for rejection in faces.rejected).most_common()
    lines = [f"{num:,} times: {first[reason]}" for reason, num in reasons[:most]]
    total = len(faces) + len(faces.rejected)
    more = [f"and {len(reasons) - most:,} more reasons"] if len(reasons) > most else []
    return "\n  ".join([f"{len(faces.rejected):,} of {total:,} rows or images are left out", *lines, *more])


def most_alike(faces: FaceSet, others: FaceSet) -> tuple[np.ndarray, np.ndarray]:
    """Find for each face the other one that looks most like it: one photo with another crop or watermark.

    Args:
        faces: N faces.
        others: the faces to look among, at least one.

    Returns:
        float32 ``[N]``, the correlation of their 16 by 16 thumbnails (``NEAR`` and above is suspicious in
        photographs; drawn faces are all alike), and int64 ``[N]``, the position among the others.
    """
    theirs, best, where = _thumbnails(others.images), [], []
    for block in _grey(faces.images):
        alike = _thumbnails(block) @ theirs.T
        best.append(alike.max(axis=1))
        where.append(alike.argmax(axis=1))
    return np.concatenate(best), np.concatenate(where)


def _thumbnails(pixels: np.ndarray) -> np.ndarray:
    """Return float32 ``[N, 256]``: 16 by 16 area means (of RGB: of its mean), centred, of length 1."""
    flat = np.concatenate([images.resize(block, 16) for block in _grey(pixels)])
    flat = flat.reshape(len(pixels), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)  # a blank one is like nothing


def _grey(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images in grey, uint8 ``[n, H, W]``, a block at a time."""
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start : start + BLOCK]
        yield block if block.ndim == 3 else block.mean(axis=1).astype(np.uint8)


def _is_blank(pixels: np.ndarray) -> np.ndarray:
    flat = [block.reshape(len(block), -1) for block in _grey(pixels)]
    return np.concatenate([block.min(axis=1) == block.max(axis=1) for block in flat])


def _rejects(owners: dict[str, FaceSet]) -> pd.DataFrame:
    rows = [
        {"split": split, **vars(rejection)} for split, part in owners.items() for rejection in part.rejected
    ]
    table = pd.DataFrame(rows, columns=["split", "file", "row", "reason", "remedy"])
    return table.assign(kind=[re.sub(r"'[^']*'|\d+", "…", reason) for reason in table["reason"]])


def _duplicates(parts: dict[str, FaceSet], pixels: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    for (split, here), (other, there) in product(pixels.items(), repeat=2):
        same = pd.Series(here).duplicated().to_numpy() if split == other else np.isin(here, there)
        blank = int((same & _is_blank(parts[split].images)).sum())
        rows.append((split, other, int(same.sum()), same.mean(), blank))
    return pd.DataFrame(rows, columns=["split", "other", "faces", "share", "blank"])


def _copies(parts: dict[str, FaceSet], pixels: dict[str, np.ndarray]) -> pd.DataFrame:
    tables = []
    for name, part in parts.items():
        columns = {"split": name, "index": np.arange(len(part)), "source": part.source}
        tables.append(
            pd.DataFrame(columns | {"label": np.array(part.classes)[part.labels], "pixels": pixels[name]})
        )
    table = pd.concat(tables, ignore_index=True)
    table = table[table.groupby("pixels")["pixels"].transform("size") > 1]
    table.insert(0, "group", table.groupby("pixels", sort=False).ngroup())
    return table.drop(columns="pixels").sort_values(["group", "split", "index"], ignore_index=True)


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
        grey = [block.reshape(len(block), -1) for block in _grey(part.images)]
        mean = np.concatenate([block.mean(axis=1) for block in grey])
        contrast = np.concatenate([block.std(axis=1, dtype=np.float32) for block in grey])
        rows[name] = (mean.mean(), mean.std(), contrast.mean(), int(_is_blank(part.images).sum()))
    columns = ["mean", "deviation", "contrast", "blank"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("split")


def _entropy(parts: dict[str, FaceSet]) -> pd.DataFrame:
    rows, names = {}, ["faces", "entropy", "ambiguous", "label_differs"]
    labels, share, classes = _columns(parts, "distribution")
    for label in np.unique(labels):
        here = share[labels == label]
        bits = -np.sum(here * np.log2(here, out=np.zeros_like(here), where=here > 0), axis=1)
        means = (bits.mean(), (here.max(axis=1) <= 0.5).mean(), (here.argmax(axis=1) != label).mean())
        rows[classes[label]] = (len(here), *means)
    return pd.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis("class")


def _valence_arousal(parts: dict[str, FaceSet]) -> pd.DataFrame:
    rows, names = {}, ["faces", "unknown", "valence", "arousal", "valence_sd", "arousal_sd", "contradicting"]
    labels, values, classes = _columns(parts, "valence_arousal")
    for label in np.unique(labels):
        here = values[labels == label]
        known = here[~np.isnan(here).any(axis=1)]
        usual = emotions.CIRCUMPLEX.get(classes[label], (0, 0))[0]
        against = int((known[:, 0] * np.sign(usual) < 0).sum()) if abs(usual) > 0.3 else 0
        spread = [*known.mean(axis=0)[:2], *known.std(axis=0)[:2]] if len(known) else [np.nan] * 4
        rows[classes[label]] = (len(here), len(here) - len(known), *spread, against)
    return pd.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis("class")


def _columns(parts: dict[str, FaceSet], name: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the labels and one column of all parts that have it."""
    have = [part for part in parts.values() if getattr(part, name) is not None]
    if not have:
        return np.empty(0, dtype=np.int64), np.empty((0, 0)), ()
    values = np.concatenate([getattr(part, name) for part in have])
    return np.concatenate([part.labels for part in have]), values, have[0].classes


def _near(parts: dict[str, FaceSet]) -> pd.DataFrame:
    tables = [pd.DataFrame(columns=["split", "source", "other", "twin", "correlation"])]
    for early, late in combinations(parts, 2):
        part, others = parts[late], parts[early]
        alike, where = most_alike(part, others)
        near = np.flatnonzero((alike >= NEAR) & ~leaked(part, others))
        columns = {"split": late, "source": part.source[near], "other": early, "correlation": alike[near]}
        tables.append(pd.DataFrame(columns | {"twin": others.source[where[near]]}))
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
