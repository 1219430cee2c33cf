"""The one form in which every data set reaches a notebook."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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


@dataclass(frozen=True)
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

    def __len__(self) -> int:
        return len(self.images)
