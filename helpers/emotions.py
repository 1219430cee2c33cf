"""The words for expressions: vocabularies, aliases, positions on the circumplex, and one colour each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from helpers import did_you_mean

FER7 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""FER2013, in the order of the ``emotion`` column of its csv (0 to 6)."""

FERPLUS8 = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""FER+, in the order of its vote columns; "unknown" and "NF" (no face) are not classes."""

AFFECTNET8 = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
"""AffectNet, in the order of its ``exp`` codes 0 to 7; 8 to 10 (none, uncertain, no face) are not classes."""

FUSED13 = AFFECTNET8 + ("serene", "contemplative", "secure", "untroubled", "quiet")
"""AffectNetFused, in the order of the thirteen values of a ``*_prob_rank.txt`` file."""

_MERGED = ("anger+disgust", "fear+sadness", "happiness", "neutral+surprise")
MERGED4 = {name: tuple(name.split("+")) for name in _MERGED}
"""The four-class merge that student projects use; contempt has no place in it."""

_ALIASES = {
    "anger": "angry angered an", "disgust": "disgusted di", "fear": "fearful afraid scared fe af",
    "happiness": "happy joy ha", "sadness": "sad sa", "surprise": "surprised su",
    "neutral": "none_expressed calm ne", "contempt": "contemptuous co", "serene": "serenity",
    "contemplative": "contemplation", "secure": "security", "untroubled": "", "quiet": "quietness",
}  # fmt: skip
_CANONICAL = {word: name for name, words in _ALIASES.items() for word in (name, *words.split())}

CIRCUMPLEX = {
    "neutral": (-0.03, -0.02), "happiness": (0.67, 0.08), "sadness": (-0.63, -0.27), "surprise": (0.18, 0.70),
    "fear": (-0.12, 0.76), "disgust": (-0.68, 0.45), "anger": (-0.43, 0.55), "contempt": (-0.51, 0.58),
}  # fmt: skip
"""Mean (valence, arousal) of each AffectNet class, both in [-1, 1] (counted on its annotations)."""

COLORS = {
    "anger": "#d55e00", "disgust": "#009e73", "fear": "#cc79a7", "happiness": "#e6b800", "sadness": "#0072b2",
    "surprise": "#56b4e9", "neutral": "#7a7a7a", "contempt": "#7a1f52", "serene": "#44aa99",
    "contemplative": "#5c7f8f", "secure": "#117733", "untroubled": "#9fc46b", "quiet": "#a9b4c2",
    "anger+disgust": "#d55e00", "fear+sadness": "#0072b2", "neutral+surprise": "#7a7a7a",
}  # fmt: skip
"""One colour a class, the same in every figure; told apart by the colour-blind, too (after Okabe and Ito)."""


def canonical(word: str) -> str:
    """Return the workbook's name for an expression, in any casing, noun or adjective ("Happy", "joy")."""
    key = word.strip().lower()
    if key in _CANONICAL:
        return _CANONICAL[key]
    hint, known = did_you_mean(key, _CANONICAL), ", ".join(_ALIASES)
    raise ValueError(f"unknown expression {word!r}{hint}; known: {known}")


def merge_index(classes: tuple[str, ...], groups: Mapping[str, tuple[str, ...]] = MERGED4) -> np.ndarray:
    """Return for each class the index of the group it belongs to, int64 ``[K]``, -1 where it has none."""
    owner = {name: i for i, members in enumerate(groups.values()) for name in members}
    return np.array([owner.get(name, -1) for name in classes], dtype=np.int64)


def distances(classes: tuple[str, ...], places: Mapping[str, tuple[float, float]] = CIRCUMPLEX) -> np.ndarray:
    """Return how far each class is from each on the plane of valence and arousal, float64 ``[K, K]``.

    ``places`` are (valence, arousal) by name, both in [-1, 1]; see :func:`places_of` for classes without one.
    """
    if lost := ", ".join(name for name in classes if name not in places):
        known = ", ".join(places)
        raise ValueError(f"no place in valence and arousal for {lost}; known: {known}; give places")
    at = np.array([places[name] for name in classes], dtype=np.float64)
    return np.linalg.norm(at[:, None] - at[None], axis=2)


def places_of(
    classes: tuple[str, ...], distribution: np.ndarray, valence_arousal: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Return where the faces of each class are: their mean valence and arousal, weighted by its probability.

    Faces ``[N, 2]`` of which either is NaN (unknown) are left out, and so are classes that no face has.
    """
    known = ~np.isnan(valence_arousal).any(axis=1)
    weight = distribution[known].astype(np.float64)
    total, summed = weight.sum(axis=0), weight.T @ valence_arousal[known]
    means = {name: at / share for name, at, share in zip(classes, summed, total, strict=True) if share > 0}
    return {name: (float(at[0]), float(at[1])) for name, at in means.items()}
