"""The one form in which every data set reaches a notebook."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from helpers import did_you_mean, emotions, files
from helpers.datasets import splitting

SPLITS = ("train", "validation", "test")
LEAKS = ("drop", "keep")
_IN_MEMORY = 2**30  # bytes of images of which a choice is copied


@dataclass(frozen=True)
class Rejection:
    """A row or picture that could not be used.

    Args:
        file: the file, relative to the data folder where it lies inside it.
        row: the row of the file counted from 1 (a csv's header is row 1), 0 where the whole file is meant.
        reason: what is wrong with it.
        remedy: what the reader can do about it.
    """

    file: str
    row: int
    reason: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}, row {self.row}" if self.row else self.file
        return f"{place}: {self.reason}; {self.remedy}"


class Refused(ValueError):
    """Raised while a row is read: it cannot be used.

    Args:
        reason: what is wrong with it.
        remedy: what the reader can do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True, eq=False, repr=False)
class FaceSet:
    """Faces with their labels; N faces of H by W pixels, K classes.

    Args:
        name: the data set's name.
        images: uint8 ``[N, H, W]`` (grey) or ``[N, 3, H, W]`` (RGB), possibly memory-mapped and read-only.
        labels: int64 ``[N]``, an index into ``classes``.
        classes: K canonical names (see :mod:`helpers.emotions`).
        split: ``[N]`` of "train", "validation", "test", or "" where the set has no official split.
        source: ``[N]``, where each face comes from: "fer2013.csv:17", "train/happy/5.png", "synthetic:3".
        valence_arousal: float32 ``[N, 2]`` in [-1, 1], NaN where unknown; None where the set has none.
        distribution: float32 ``[N, K]`` that sums to 1 over ``classes``; None where the set has none.
        votes: int64 ``[N, K]``, how many raters chose each class; None where the set has none.
        landmarks: float32 ``[N, 68, 2]``, (x, y) in pixels in the iBUG order, NaN where unknown; or None.
        action_units: float32 ``[N, 17]`` in [0, 1], in the order of ``faces.ACTION_UNITS``; drawn faces only.
        subject: int64 ``[N]``, equal for the same person, -1 where unknown; None where the set does not say.
        rejected: what was left out and why; ``len(faces) + len(rejected)`` is everything that was found.
        notes: what was changed while it was read, in sentences; of the whole set, not of a part.

    Raises:
        ValueError: a column has another length than ``images``.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    split: np.ndarray
    source: np.ndarray
    valence_arousal: np.ndarray | None = None
    distribution: np.ndarray | None = None
    votes: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    action_units: np.ndarray | None = None
    subject: np.ndarray | None = None
    rejected: tuple[Rejection, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for column, values in self.columns().items():
            if len(values) != len(self.images):
                raise ValueError(f"{self.name}: {len(values)} {column} for {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        *color, height, width = self.images.shape[1:]
        kind = "RGB" if color else "grey"
        what = f"{len(self):,} {kind} faces of {height} x {width}, {len(self.classes)} classes"
        return f"<FaceSet {self.name}: {what}, {len(self.rejected):,} rejected>"

    def columns(self) -> dict[str, np.ndarray]:
        """Return every array that has one entry a face, by name; those the set does not have are left out."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: values for name, values in named.items() if isinstance(values, np.ndarray | files.Rows)}

    def select(self, which: np.ndarray | slice | list[int]) -> FaceSet:
        """Return the faces chosen, every column indexed alike; a slice shares memory, the rest is copied.

        Of memory-mapped images that take more than a gigabyte, the choice stays in the file (``files.Rows``).

        Args:
            which: a boolean mask ``[N]``, positions, or a slice.

        Raises:
            IndexError: a position or the mask's length does not fit.
        """
        which = which if isinstance(which, slice) else np.asarray(which)
        if isinstance(which, np.ndarray) and which.size == 0:
            which = which.astype(np.int64)
        chosen = {name: values[which] for name, values in self.columns().items() if name != "images"}
        return replace(self, **chosen, images=_chosen(self.images, which), rejected=(), notes=())

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
            leaks: "drop" leaves out what is pixel-identical to a face of a later part (training faces that
                stand in validation or test, validation faces that stand in test) and lists it in ``rejected``
                of the part it left; "keep" is the published protocol, an official split as it came.

        Raises:
            ValueError: the fractions leave nothing to train on, or ``leaks`` is neither word.
        """
        _check_split_options(validation, test, leaks)
        identity = splitting.identical(self.images)
        part = self._parts(identity, {"validation": validation, "test": test}, seed)
        cut = []
        for number in range(len(SPLITS)):
            here = np.flatnonzero(part == number)
            copied = np.isin(identity[here], identity[part > number]) & (leaks == "drop")
            left_out = tuple(_leak(self.source[i], SPLITS[number + 1 :]) for i in here[copied])
            cut.append(replace(self.select(here[~copied]), rejected=left_out))
        return tuple(cut)

    def _parts(self, identity: np.ndarray, fractions: dict[str, float], seed: int) -> np.ndarray:
        """Return for each face 0 (train), 1 (validation) or 2 (test)."""
        part = np.select([self.split == "validation", self.split == "test"], [1, 2], default=0)
        official = bool(np.isin(self.split, SPLITS).any())
        missing = [i for i in (1, 2) if not (official and (part == i).any())]
        here = np.flatnonzero(part == 0)
        people = [] if self.subject is None else [self.subject[here]]
        groups = splitting.components(identity[here], *people)
        wanted = [fractions[SPLITS[i]] for i in missing]
        cut = splitting.stratified(self.labels[here], groups, wanted, seed)
        part[here] = np.array([0, *missing])[cut]
        return part

    def merged(self, groups: dict[str, tuple[str, ...]] = emotions.MERGED4) -> FaceSet:
        """Return the faces under fewer, broader classes; distributions and votes are added up.

        Args:
            groups: new class name to the classes in it; faces of a class in none go to ``rejected``.

        Raises:
            ValueError: a group names a class that no vocabulary knows.
        """
        groups = {name: tuple(emotions.canonical(word) for word in words) for name, words in groups.items()}
        index = emotions.merge_index(self.classes, groups)
        kept = index[self.labels] >= 0
        gone = tuple(
            Rejection(
                str(source), 0, f"{self.classes[label]!r} is in no group", "add it to a group to keep it"
            )
            for source, label in zip(self.source[~kept], self.labels[~kept], strict=True)
        )
        faces = self.select(kept)
        return replace(
            faces,
            labels=index[faces.labels],
            classes=tuple(groups),
            distribution=_share(_add_up(faces.distribution, index, len(groups))),
            votes=_add_up(faces.votes, index, len(groups)),
            rejected=self.rejected + gone,
        )


def _chosen(images: np.ndarray | files.Rows, which: np.ndarray | slice) -> np.ndarray | files.Rows:
    if isinstance(images, np.memmap) and images.nbytes > _IN_MEMORY:
        images = files.Rows(images)
    return images.select(which) if isinstance(images, files.Rows) else images[which]


def _check_split_options(validation: float, test: float, leaks: str) -> None:
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ValueError(
            f"validation={validation} and test={test} must be fractions that leave some to train on"
        )
    if leaks not in LEAKS:
        raise ValueError(f"unknown leaks={leaks!r}{did_you_mean(leaks, LEAKS)}; known: {', '.join(LEAKS)}")


def _leak(source: str, later: tuple[str, ...]) -> Rejection:
    reason = f"pixel-identical to a {' or '.join(later)} face"
    return Rejection(str(source), 0, reason, "leaks='keep' leaves it in")


def _add_up(table: np.ndarray | None, index: np.ndarray, num_groups: int) -> np.ndarray | None:
    if table is None:
        return None
    member = (index[:, None] == np.arange(num_groups)).astype(table.dtype)  # [K, groups]
    return table @ member


def _share(table: np.ndarray | None) -> np.ndarray | None:
    if table is None:
        return None
    total = table.sum(axis=1, keepdims=True)  # below 1 where some of it was in no group
    return np.divide(table, total, out=np.full_like(table, 1 / table.shape[1]), where=total > 0)
