"""The one form in which every data set reaches a notebook, and how it is split."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers import emotions, files, one_of

SPLITS = ("train", "validation", "test")
BLOCK = 2048  # images at a time, so that a memory map need not fit
_IN_MEMORY = 2**30  # bytes of images of which a choice is copied


@dataclass(frozen=True)
class Rejection:
    """A row or image that could not be used; rows count from 1 (a csv's header), 0 means the whole file."""

    file: str
    row: int
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}{f', row {self.row}' if self.row else ''}: {self.reason}; {self.remedy}"


@dataclass(frozen=True, eq=False, repr=False)
class FaceSet:
    """Faces with their labels; N faces of H by W pixels, K classes. Float64 columns become float32.

    What a set does not have is None. ``len(faces) + len(rejected)`` is everything that was found.

    Raises:
        ValueError: a column has another length than ``images``, or a label is no index into ``classes``.
    """

    name: str
    images: np.ndarray  # uint8 [N, H, W] (grey) or [N, 3, H, W] (RGB), possibly memory-mapped and read-only
    labels: np.ndarray  # int64 [N], an index into classes
    classes: tuple[str, ...]  # K canonical names, see helpers.emotions
    split: np.ndarray  # [N] of "train", "validation", "test", or "" without an official split
    source: np.ndarray  # [N], where it is from: "fer2013.csv:17", "train/happy/5.png", "synthetic:3"
    valence_arousal: np.ndarray | None = None  # float32 [N, 2] in [-1, 1], NaN where unknown
    distribution: np.ndarray | None = None  # float32 [N, K] that sums to 1 over classes
    votes: np.ndarray | None = None  # int64 [N, K], how many raters chose each class
    landmarks: np.ndarray | None = None  # float32 [N, 68, 2], (x, y) in pixels in the iBUG order
    action_units: np.ndarray | None = None  # float32 [N, 17] in [0, 1], see faces.ACTION_UNITS
    subject: np.ndarray | None = None  # int64 [N], equal for the same person, -1 where unknown
    rejected: tuple[Rejection, ...] = ()  # what was left out and why
    notes: tuple[str, ...] = ()  # what was changed while it was read, of the whole set, not of a part

    def __post_init__(self) -> None:
        for column, values in self.columns().items():
            if len(values) != len(self.images):
                raise ValueError(f"{self.name}: {len(values)} {column} for {len(self.images)} images")
            if values.dtype == np.float64:  # NumPy's usual type; MPS has none of it, a GPU is slow at it
                object.__setattr__(self, column, values.astype(np.float32))
        labels, num = np.asarray(self.labels), len(self.classes)
        whole = labels.ndim == 1 and (not labels.size or labels.dtype.kind in "iu")
        if not whole or ((labels < 0) | (labels >= num)).any():
            what = f"one index into the {num} classes a face, a whole number from 0 to {num - 1}"
            raise ValueError(f"{self.name}: labels must be {what}")
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        *color, height, width = self.images.shape[1:]
        what = f"{len(self):,} {'RGB' if color else 'grey'} faces of {height} x {width}"
        return f"<FaceSet {self.name}: {what}, {len(self.classes)} classes, {len(self.rejected):,} rejected>"

    def columns(self) -> dict[str, np.ndarray]:
        """Return every array that has one entry a face, by name; those the set does not have are left out."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: values for name, values in named.items() if isinstance(values, np.ndarray | files.Rows)}

    def digest(self) -> str:
        """Return 32 hexadecimal digits that name the content: classes and every column but ``source``."""
        if "_digest" not in vars(self):
            total = hashlib.blake2b(repr(self.classes).encode(), digest_size=16)
            for name, values in self.columns().items():
                if name != "source":
                    total.update(f"{name} {values.dtype.str} {values.shape}".encode())
                    for start in range(0, len(values), BLOCK):
                        total.update(np.ascontiguousarray(values[start : start + BLOCK]))
            object.__setattr__(self, "_digest", total.hexdigest())
        return vars(self)["_digest"]

    def select(self, which: np.ndarray | slice | list[int]) -> FaceSet:
        """Return the faces chosen, every column indexed alike; a slice shares memory, the rest is copied.

        ``which`` is a mask ``[N]``, positions, or a slice. Of memory-mapped images that take more than a
        gigabyte, the choice stays in the file (``files.Rows``).
        """
        which = which if isinstance(which, slice) else np.asarray(which, None if len(which) else np.int64)
        columns = self.columns()
        if isinstance(self.images, np.memmap) and self.images.nbytes > _IN_MEMORY:
            columns["images"] = files.Rows(self.images)
        for name, values in columns.items():
            columns[name] = values.select(which) if isinstance(values, files.Rows) else values[which]
        return replace(self, **columns, rejected=(), notes=())

    def splits(
        self, seed: int = 0, validation: float = 0.1, test: float = 0.2, leaks: str = "drop"
    ) -> tuple[FaceSet, FaceSet, FaceSet]:
        """Return the training, validation and test faces.

        The official split is used where there is one; a part that it lacks is cut from its training faces. A
        cut is stratified by class, and faces of one person or with identical pixels stay on one side of it.

        Args:
            seed: which of the possible cuts.
            validation: fraction of the faces that are cut from, used where there is no official validation.
            test: the same for the test part.
            leaks: "drop" leaves out what is pixel-identical to a face of a later part and lists it in
                ``rejected`` of the part it left; "keep" is the published protocol, the split as it came.

        Raises:
            ValueError: the fractions leave nothing to train on, or ``leaks`` is neither word.
        """
        if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
            raise ValueError(f"{validation=} and {test=} must be fractions that leave some to train on")
        one_of("leaks", leaks, ("drop", "keep"))
        identity = np.unique(fingerprints(self.images), return_inverse=True)[1].reshape(-1)
        part = np.select([self.split == "validation", self.split == "test"], [1, 2], default=0)
        missing = {i: share for i, share in ((1, validation), (2, test)) if not (part == i).any()}
        here = np.flatnonzero(part == 0)
        people = [] if self.subject is None else [self.subject[here]]
        groups = components(identity[here], *people)
        cut = stratified(self.labels[here], groups, [*missing.values()], seed)
        part[here] = np.array([0, *missing])[cut]
        parts = []
        for number in range(3):
            here = np.flatnonzero(part == number)
            copied = np.isin(identity[here], identity[part > number]) & (leaks == "drop")
            why = f"pixel-identical to a {' or '.join(SPLITS[number + 1 :])} face"
            copies = self.source[here[copied]].tolist()
            gone = tuple(Rejection(source, 0, why, "leaks='keep' leaves it in") for source in copies)
            parts.append(replace(self.select(here[~copied]), rejected=gone))
        return tuple(parts)

    def merged(self, groups: dict[str, tuple[str, ...]] = emotions.MERGED4) -> FaceSet:
        """Return the faces under fewer, broader classes; distributions and votes are added up.

        ``groups`` are new class names to the classes in each; faces of a class in none go to ``rejected``.
        """
        groups = {name: tuple(emotions.canonical(word) for word in words) for name, words in groups.items()}
        index = emotions.merge_index(self.classes, groups)
        kept = index[self.labels] >= 0
        left = zip(self.source[~kept].tolist(), self.labels[~kept], strict=True)
        why = [(source, 0, f"{self.classes[label]!r} is in no group") for source, label in left]
        gone = tuple(Rejection(*each, "add it to a group to keep it") for each in why)
        faces, member = self.select(kept), index[:, None] == np.arange(len(groups))  # [K, groups]
        columns = {"labels": index[faces.labels], "classes": tuple(groups)}
        if faces.votes is not None:
            columns["votes"] = faces.votes @ member.astype(np.int64)
        if faces.distribution is not None:
            share = faces.distribution @ member.astype(np.float32)
            total = share.sum(axis=1, keepdims=True)  # below 1 where some of it was in no group
            even = np.full_like(share, 1 / len(groups))
            columns["distribution"] = np.divide(share, total, out=even, where=total > 0)
        return replace(faces, **columns, rejected=self.rejected + gone)


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Return a 16-byte hash of each image's pixels, ``S16 [N]``: equal where, and only where, they are."""
    hashes = [hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in images]
    return np.array(hashes, dtype="S16")


def components(*columns: np.ndarray) -> np.ndarray:
    """Return a group for each face: two share it when a chain of equal entries joins them; < 0 is unknown."""
    num, joined = len(columns[0]), []
    for column in columns:
        known = np.flatnonzero(column >= 0)
        _, first, number = np.unique(column[known], return_index=True, return_inverse=True)
        joined.append((known, known[first][number]))
    here, there = np.hstack(joined)
    graph = coo_array((np.ones(len(here), dtype=bool), (here, there)), shape=(num, num))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def stratified(labels: np.ndarray, groups: np.ndarray, fractions: list[float], seed: int) -> np.ndarray:
    """Return the part of each face: whole groups at a time, with about the same share of each class.

    Groups of several faces are placed first, the largest first, each where it disturbs the wanted counts
    least (chi-square); faces that stand alone then fill each class up to its count. Part 0 gets what the
    fractions leave. (scikit-learn's StratifiedGroupKFold takes half a minute where this takes milliseconds.)
    """
    rng = np.random.default_rng(seed)
    table = np.zeros((int(groups.max(initial=-1)) + 1, int(labels.max(initial=0)) + 1))
    np.add.at(table, (groups, labels), 1)
    size, wanted = table.sum(axis=1), np.outer([1 - sum(fractions), *fractions], table.sum(axis=0))
    placed, lack = np.zeros(len(table), dtype=np.int64), wanted.copy()  # lack: [parts, classes]
    order = rng.permutation(np.flatnonzero(size > 1))
    for group in order[np.argsort(-size[order], kind="stable")]:
        change = ((lack - table[group]) ** 2 - lack**2) / np.maximum(wanted, 1)
        placed[group] = change.sum(axis=1).argmin()
        lack[placed[group]] -= table[group]
    part, alone = placed[groups], size[groups] == 1
    for label in range(table.shape[1]):
        these = rng.permutation(np.flatnonzero(alone & (labels == label)))
        filled = np.bincount(part[~alone & (labels == label)], minlength=len(wanted))
        room = np.maximum(wanted[:, label] - filled, 0)
        room = room if room.sum() else np.eye(len(room))[0]
        edges = np.rint(np.cumsum(room) / room.sum() * len(these))
        part[these] = np.searchsorted(edges, np.arange(len(these)), side="right")
    return part
