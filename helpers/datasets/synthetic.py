"""Drawn faces: no download, and everything about them is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers import emotions
from helpers.datasets.faceset import FaceSet
from helpers.datasets.reading import Pixels

_COLUMNS = ("valence_arousal", "votes", "landmarks", "action_units", "subject")


def files(root: Path, **_options: object) -> list[Path]:
    """Return what is read: nothing."""
    return []


def read(
    root: Path,
    pixels: Pixels,
    num_faces: int = 4000,
    seed: int = 0,
    color: bool = False,
    balance: str | dict[str, float] = "fer2013",
    faces_per_person: int = 20,
    ambiguity: float = 1.0,
    label_noise: float = 0.03,
    va_noise: float = 0.1,
) -> FaceSet:
    """Draw faces by ``faces.sample``; the label is one rater's, the distribution the true p(class | face)."""
    from helpers import faces  # it brings PyTorch along, which reading a file does not need

    options = {"balance": balance, "faces_per_person": faces_per_person, "ambiguity": ambiguity}
    options |= {"label_noise": label_noise, "va_noise": va_noise}
    drawn = faces.sample(num_faces, seed, pixels.size, color, **options)
    pixels.add(np.asarray(drawn.images, dtype=np.uint8))
    columns = {name: np.asarray(getattr(drawn, name)) for name in (*_COLUMNS, "labels")}
    columns |= {"distribution": np.asarray(drawn.class_probabilities), "split": np.full(num_faces, "", "U10")}
    source = np.array([f"synthetic:{i}" for i in range(num_faces)])
    return FaceSet("synthetic", images=pixels.close(), classes=emotions.FER7, source=source, **columns)
