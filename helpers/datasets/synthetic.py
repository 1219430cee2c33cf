"""Drawn faces: no download, and everything about them is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers import emotions
from helpers.datasets.faceset import FaceSet


def files(root: Path, **_options: object) -> list[Path]:
    """Return what the faces depend on: the program that draws them."""
    return sorted((Path(__file__).parents[1] / "faces").glob("*.py"))


def read(
    root: Path,
    image_size: int,
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
        image_size: side of the images in pixels.
        num_faces: how many.
        seed: which faces.
        color: RGB instead of grey.
        balance: how often each expression is meant: "fer2013", "uniform", or weights by class name.
        faces_per_person: pictures of each person.
        ambiguity: how much raters guess; 1 is the usual rater, 0.1 nearly always names the likeliest class.
        label_noise: share of answers that are slips.
        va_noise: standard deviation of the annotated valence and arousal around the true ones.
    """
    from helpers import faces  # it brings PyTorch along, which reading a file does not need

    drawn = faces.sample(
        num_faces,
        seed,
        image_size,
        color,
        balance=balance,
        faces_per_person=faces_per_person,
        ambiguity=ambiguity,
        label_noise=label_noise,
        va_noise=va_noise,
    )
    return FaceSet(
        "synthetic",
        images=np.asarray(drawn.images, dtype=np.uint8),
        labels=np.asarray(drawn.labels, dtype=np.int64),
        classes=emotions.FER7,
        split=np.full(num_faces, "", dtype="U10"),
        source=np.array([f"synthetic:{i}" for i in range(num_faces)]),
        valence_arousal=np.asarray(drawn.valence_arousal, dtype=np.float32),
        distribution=np.asarray(drawn.class_probabilities, dtype=np.float32),
        votes=np.asarray(drawn.votes, dtype=np.int64),
        landmarks=np.asarray(drawn.landmarks, dtype=np.float32),
        action_units=np.asarray(drawn.action_units, dtype=np.float32),
        subject=np.asarray(drawn.subject, dtype=np.int64),
    )
