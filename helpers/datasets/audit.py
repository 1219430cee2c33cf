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
    """What an audit found, as tables; every one can be empty. Shares are from 0 to 1."""

    rejects: pd.DataFrame  # a row each left-out row or image; kind is the reason without its particulars
    # faces of split with the very pixels of a face of other, in the same split copies beyond the first; of
    # these, blank are one single grey
    duplicates: pd.DataFrame  # split, other, faces, share, blank
    copies: pd.DataFrame  # one row each face that has a twin: group, split, index, source, label
    conflicts: pd.DataFrame  # the rows of copies whose twins have different labels
    subjects: pd.DataFrame  # split, other, subjects in both, faces of theirs in split, share
    balance: pd.DataFrame  # a row each class, a column of counts each split, and share of all
    # a row each split: mean and deviation of the faces' mean grey (0 to 255), mean contrast (a face's own
    # standard deviation), and how many are blank
    brightness: pd.DataFrame
    # a row each class: mean entropy in bits, the share whose likeliest class has at most half (ambiguous),
    # the share whose label is not the likeliest class (label_differs)
    entropy: pd.DataFrame
    # a row each class: unknown faces, mean and standard deviation of the others, and how many have a valence
    # of the other sign than their class usually has (contradicting)
    valence_arousal: pd.DataFrame
    # split, source, other, twin, correlation: near twins in an earlier split, not the pixel-identical ones
    near_duplicates: pd.DataFrame


def audit(faces: FaceSet | Mapping[str, FaceSet] | Sequence[FaceSet], near: bool = False) -> Audit:
    """Count what makes a score on this set better, or worse, than it should be.

    Args:
        faces: a face set (audited by its official split), splits by name, or what ``splits()`` returned.
        near: also look for near duplicates across splits, by 16 by 16 thumbnails; seconds, not a moment.
    """
    if isinstance(faces, FaceSet):
        names = [name for name in (*SPLITS, "") if (faces.split == name).any()]
        parts, owners = {name or "all": faces.select(faces.split == name) for name in names}, {"": faces}
    else:
        owners = dict(faces if isinstance(faces, Mapping) else zip(SPLITS, faces, strict=True))
        parts = {name: part for name, part in owners.items() if len(part)}
    table = pd.concat([_described(name, part) for name, part in parts.items()], ignore_index=True)
    copies = table.loc[table["pixels"].duplicated(keep=False), ["split", "index", "source", "label"]]
    copies.insert(0, "group", table.loc[copies.index].groupby("pixels", sort=False).ngroup())
    copies = copies.sort_values(["group", "split", "index"], ignore_index=True)
    classes = pd.Index(next(iter(parts.values())).classes, name="class")
    balance = pd.DataFrame({n: part["label"].value_counts() for n, part in table.groupby("split")})
    balance = balance.reindex(index=classes, columns=[*parts]).fillna(0).astype(int)
    light = table.groupby("split", sort=False)
    return Audit(
        rejects=_rejects(owners),
        duplicates=_duplicates(table, [*parts]),
        copies=copies,
        conflicts=copies[copies.groupby("group")["label"].transform("nunique") > 1],
        subjects=_subjects(parts),
        balance=balance.assign(share=balance.sum(axis=1) / len(table)),
        brightness=light.agg(
            mean=("light", "mean"), deviation=("light", lambda mean: mean.std(ddof=0)),
            contrast=("contrast", "mean"), blank=("blank", "sum"),
        ),
        entropy=_entropy(parts),
        valence_arousal=_valence_arousal(parts),
        near_duplicates=_near(parts if near else {}),
    )  # fmt: skip


def leaked(test: FaceSet, train: FaceSet) -> np.ndarray:
    """Return which of N test faces are pixel-identical to a training face, bool ``[N]``."""
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


def _grey(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images in grey, uint8 ``[n, H, W]``, a block at a time."""
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start : start + BLOCK]
        yield block if block.ndim == 3 else block.mean(axis=1).astype(np.uint8)


def _thumbnails(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield blocks of float32 ``[n, 256]``: 16 by 16 area means, centred, of length 1."""
    for block in _grey(pixels):
        flat = images.resize(block, 16).reshape(len(block), -1).astype(np.float32)
        flat -= flat.mean(axis=1, keepdims=True)
        yield flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)  # blank: like nothing


def _described(split: str, part: FaceSet) -> pd.DataFrame:
    """Return a row a face: where it is from, its label, its pixels' hash, light and contrast."""
    flat = (block.reshape(len(block), -1) for block in _grey(part.images))
    light = [(b.mean(axis=1), b.std(axis=1, dtype=np.float32), np.ptp(b, axis=1) == 0) for b in flat]
    columns = {"split": split, "index": np.arange(len(part)), "source": part.source}
    columns |= {"label": np.array(part.classes)[part.labels], "pixels": fingerprints(part.images)}
    columns["light"], columns["contrast"], columns["blank"] = map(np.concatenate, zip(*light, strict=True))
    return pd.DataFrame(columns)


def _rejects(owners: dict[str, FaceSet]) -> pd.DataFrame:
    rows = [{"split": split, **vars(each)} for split, part in owners.items() for each in part.rejected]
    table = pd.DataFrame(rows, columns=["split", "file", "row", "reason", "remedy"])
    return table.assign(kind=[re.sub(r"'[^']*'|\d+", "…", reason) for reason in table["reason"]])


def _duplicates(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    rows, parts = [], {name: table[table["split"] == name] for name in names}
    for split, other in product(names, repeat=2):
        here = parts[split]["pixels"]
        same = here.duplicated() if split == other else here.isin(parts[other]["pixels"])
        rows.append((split, other, same.sum(), same.mean(), (same & parts[split]["blank"]).sum()))
    return pd.DataFrame(rows, columns=["split", "other", "faces", "share", "blank"])


def _subjects(parts: dict[str, FaceSet]) -> pd.DataFrame:
    people = {n: p.subject[p.subject >= 0] for n, p in parts.items() if p.subject is not None}
    rows = []
    for (split, here), (other, there) in permutations(people.items(), 2):
        both, faces = np.intersect1d(here, there), int(np.isin(here, there).sum())
        rows.append((split, other, len(both), faces, faces / len(parts[split])))
    return pd.DataFrame(rows, columns=["split", "other", "subjects", "faces", "share"])


def _by_class(parts: dict[str, FaceSet], name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return label, code and class of all faces of the parts that have a column, and that column."""
    have = [part for part in parts.values() if getattr(part, name) is not None]
    codes = np.concatenate([part.labels for part in have]) if have else np.empty(0, dtype=int)
    values = np.concatenate([getattr(part, name) for part in have]) if have else np.empty((0, 2))
    labels = pd.Categorical.from_codes(codes, have[0].classes if have else [])
    return pd.DataFrame({"class": labels, "code": codes, "faces": 1}), values


def _entropy(parts: dict[str, FaceSet]) -> pd.DataFrame:
    faces, share = _by_class(parts, "distribution")
    bits = -np.sum(share * np.log2(share, out=np.zeros_like(share), where=share > 0), axis=1)
    differs = share.argmax(axis=1) != faces.pop("code")
    faces = faces.assign(entropy=bits, ambiguous=share.max(axis=1) <= 0.5, label_differs=differs)
    how = {"faces": "size", "entropy": "mean", "ambiguous": "mean", "label_differs": "mean"}
    return faces.groupby("class", observed=True).agg(how)


def _valence_arousal(parts: dict[str, FaceSet]) -> pd.DataFrame:
    faces, values = _by_class(parts, "valence_arousal")
    usual = np.array([emotions.CIRCUMPLEX.get(name, (0, 0))[0] for name in faces["class"]])
    unknown = np.isnan(values).any(axis=1)
    faces["unknown"], known = unknown, np.where(unknown[:, None], np.nan, values)
    for i, name in enumerate(("valence", "arousal")):
        faces[name] = faces[f"{name}_sd"] = known[:, i]
    faces["contradicting"] = (known[:, 0] * np.sign(usual) < 0) & (np.abs(usual) > 0.3)
    how = {"faces": "size", "unknown": "sum", "valence": "mean", "arousal": "mean"}
    how |= dict.fromkeys(("valence_sd", "arousal_sd"), lambda column: column.std(ddof=0))
    return faces.groupby("class", observed=True).agg(how | {"contradicting": "sum"})


def _near(parts: dict[str, FaceSet]) -> pd.DataFrame:
    tables = [pd.DataFrame(columns=["split", "source", "other", "twin", "correlation"])]
    for (early, others), (late, part) in combinations(parts.items(), 2):
        theirs = np.concatenate([*_thumbnails(others.images)]).T
        found = [(alike.argmax(axis=1), alike.max(axis=1)) for alike in
                 (block @ theirs for block in _thumbnails(part.images))]  # fmt: skip
        where, alike = map(np.concatenate, zip(*found, strict=True))
        near = np.flatnonzero((alike >= NEAR) & ~leaked(part, others))
        columns = {"split": late, "source": part.source[near], "other": early}
        columns |= {"twin": others.source[where[near]], "correlation": alike[near]}
        tables.append(pd.DataFrame(columns))
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
