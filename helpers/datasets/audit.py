"""What is wrong with a data set, as tables: look here before you believe a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

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
    split = dict(iter(table.groupby("split", sort=False)))
    copies = table.loc[table["pixels"].duplicated(keep=False), ["split", "index", "source", "label"]]
    copies.insert(0, "group", table.loc[copies.index].groupby("pixels", sort=False).ngroup())
    copies = copies.sort_values(["group", "split", "index"], ignore_index=True)
    classes = pd.Index(next(iter(parts.values())).classes, name="class")
    balance = pd.DataFrame({name: part["label"].value_counts() for name, part in split.items()})
    balance = balance.reindex(classes).fillna(0).astype(int)
    rejects = [{"split": name, **vars(each)} for name, part in owners.items() for each in part.rejected]
    rejects = pd.DataFrame(rejects, columns=["split", "file", "row", "reason", "remedy"])
    alike, people = _shared(split)
    return Audit(
        rejects=rejects.assign(kind=rejects["reason"].str.replace(r"'[^']*'|\d+", "…", regex=True)),
        duplicates=pd.DataFrame(alike, columns=["split", "other", "faces", "share", "blank"]),
        copies=copies,
        conflicts=copies[copies.groupby("group")["label"].transform("nunique") > 1],
        subjects=pd.DataFrame(people, columns=["split", "other", "subjects", "faces", "share"]),
        balance=balance.assign(share=balance.sum(axis=1) / len(table)),
        brightness=table.groupby("split", sort=False).agg(
            mean=("light", "mean"), deviation=("light", _deviation),
            contrast=("contrast", "mean"), blank=("blank", "sum"),
        ),
        entropy=_by_class(
            table.dropna(subset="entropy"), classes, faces=("entropy", "size"), entropy=("entropy", "mean"),
            ambiguous=("ambiguous", "mean"), label_differs=("label_differs", "mean"),
        ),
        valence_arousal=_by_class(
            table.dropna(subset="unknown"), classes, faces=("unknown", "size"), unknown=("unknown", "sum"),
            valence=("valence", "mean"), arousal=("arousal", "mean"), valence_sd=("valence", _deviation),
            arousal_sd=("arousal", _deviation), contradicting=("contradicting", "sum"),
        ),
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


def _deviation(values: pd.Series) -> float:
    return values.std(ddof=0)


def _by_class(table: pd.DataFrame, classes: pd.Index, **columns: tuple) -> pd.DataFrame:
    found = table.groupby("label").agg(**columns)
    return found.loc[[name for name in classes if name in found.index]].rename_axis("class")


def _grey(part: FaceSet, start: int) -> np.ndarray:
    """Return a block of images in grey, uint8 ``[n, H, W]``."""
    block = part.images[start : start + BLOCK]
    return block if block.ndim == 3 else block.mean(axis=1).astype(np.uint8)


def _described(split: str, part: FaceSet) -> pd.DataFrame:
    """Return a row a face: where it is from, its label, its pixels' hash, and what is to be counted."""
    flat = (_grey(part, i).reshape(-1, np.prod(part.images.shape[-2:])) for i in range(0, len(part), BLOCK))
    light = [(b.mean(axis=1), b.std(axis=1, dtype=np.float32), np.ptp(b, axis=1) == 0) for b in flat]
    columns = {"split": split, "index": np.arange(len(part)), "source": part.source}
    columns |= {"label": np.array(part.classes)[part.labels], "pixels": fingerprints(part.images)}
    columns["light"], columns["contrast"], columns["blank"] = map(np.concatenate, zip(*light, strict=True))
    nothing = dict.fromkeys(("subject", "entropy", "ambiguous", "label_differs"), np.nan)
    nothing |= dict.fromkeys(("unknown", "valence", "arousal", "contradicting"), np.nan)
    columns |= nothing | ({} if part.subject is None else {"subject": part.subject})
    if (share := part.distribution) is not None:
        bits = -np.sum(share * np.log2(share, out=np.zeros_like(share), where=share > 0), axis=1)
        differs = share.argmax(axis=1) != part.labels
        columns |= {"entropy": bits, "ambiguous": share.max(axis=1) <= 0.5, "label_differs": differs}
    if part.valence_arousal is not None:
        unknown = np.isnan(part.valence_arousal).any(axis=1)
        valence, arousal = np.where(unknown, np.nan, part.valence_arousal.T)
        usual = np.array([emotions.CIRCUMPLEX.get(name, (0, 0))[0] for name in part.classes])[part.labels]
        columns |= {"unknown": unknown, "valence": valence, "arousal": arousal}
        columns["contradicting"] = (valence * np.sign(usual) < 0) & (np.abs(usual) > 0.3)
    return pd.DataFrame(columns)


def _shared(parts: dict[str, pd.DataFrame]) -> tuple[list[tuple], list[tuple]]:
    """Return rows of what each two splits share: images, and people where they are known."""
    alike, people = [], []
    for (split, here), (other, there) in product(parts.items(), repeat=2):
        same = here["pixels"].duplicated() if split == other else here["pixels"].isin(there["pixels"])
        alike.append((split, other, same.sum(), same.mean(), (same & here["blank"]).sum()))
        if split != other and here["subject"].notna().all() and there["subject"].notna().all():
            both = here["subject"][here["subject"].isin(there["subject"]) & (here["subject"] >= 0)]
            people.append((split, other, both.nunique(), len(both), len(both) / len(here)))
    return alike, people


def _near(parts: dict[str, FaceSet]) -> pd.DataFrame:
    def thumbnails(part: FaceSet, start: int) -> np.ndarray:  # [n, 256]: area means, centred, of length 1
        flat = images.resize(_grey(part, start), 16).reshape(-1, 256).astype(np.float32)
        flat -= flat.mean(axis=1, keepdims=True)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)  # blank: like nothing

    tables = [pd.DataFrame(columns=["split", "source", "other", "twin", "correlation"])]
    for (early, others), (late, part) in combinations(parts.items(), 2):
        theirs = np.concatenate([thumbnails(others, i) for i in range(0, len(others), BLOCK)]).T
        alike = (thumbnails(part, i) @ theirs for i in range(0, len(part), BLOCK))
        found = [(block.argmax(axis=1), block.max(axis=1)) for block in alike]
        where, alike = map(np.concatenate, zip(*found, strict=True))
        near = np.flatnonzero((alike >= NEAR) & ~leaked(part, others))
        columns = {"split": late, "source": part.source[near], "other": early}
        columns |= {"twin": others.source[where[near]], "correlation": alike[near]}
        tables.append(pd.DataFrame(columns))
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
