"""Drawn faces: no download, and everything about them is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers import emotions
from helpers.datasets.faceset import FaceSet
from helpers.datasets.reading import Pixels


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
    """Draw faces; the label is one rater's, the distribution is the true p(class | face).

    Args:
        root: not used.
        pixels: where the images go.
        num_faces: how many.
        seed: which faces.
        color: RGB instead of grey.
        balance: how often each expression is meant: "fer2013", "uniform", or weights by class name.
        faces_per_person: images of each person.
        ambiguity: how much raters guess; 1 is the usual rater, 0.1 nearly always names the likeliest class.
        label_noise: share of answers that are slips.
        va_noise: standard deviation of the annotated valence and arousal around the true ones.
    """
    from helpers import faces  # it brings PyTorch along, which reading a file does not need

    options = {"balance": balance, "faces_per_person": faces_per_person, "ambiguity": ambiguity}
    options |= {"label_noise": label_noise, "va_noise": va_noise}
    drawn = faces.sample(num_faces, seed, pixels.size, color, **options)
    pixels.add(np.asarray(drawn.images, dtype=np.uint8))
    columns = ("valence_arousal", "votes", "landmarks", "action_units", "subject")
    return FaceSet(
        "synthetic",
        images=pixels.close(),
        labels=np.asarray(drawn.labels),
        classes=emotions.FER7,
        split=np.full(num_faces, "", dtype="U10"),
        source=np.array([f"synthetic:{i}" for i in range(num_faces)]),
        distribution=np.asarray(drawn.class_probabilities),
        **{name: np.asarray(getattr(drawn, name)) for name in columns},
    )
