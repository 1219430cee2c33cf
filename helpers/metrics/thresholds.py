"""What a threshold on a score trades for what: ROC, precision and recall."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from helpers.metrics import given


class Curve(NamedTuple):
    """What a threshold trades for what, from the strictest to the most generous, one entry a threshold.

    Args:
        x: rate of false alarms (ROC) or recall (precision and recall).
        y: recall (ROC) or precision.
        area: under the curve, from 0 to 1.
    """

    x: np.ndarray
    y: np.ndarray
    area: float


def roc(positive: np.ndarray, score: np.ndarray) -> Curve:
    """Return the rate of false alarms and the recall of every threshold on a score, from (0, 0) to (1, 1).

    The area is the chance that a face of the class scores higher than one of another class, equal scores
    counted half (Hanley and McNeil 1982): 0.5 for any score that knows nothing, however rare the class.

    Args:
        positive: bool ``[N]``, which faces have the class.
        score: ``[N]``, higher is more of it; NaN nowhere.

    Returns:
        the curve, of NaN where either side has no face.

    Raises:
        ValueError: not two equally long, non-empty rows, or a score that is NaN.
    """
    hits, alarms = _above_each_threshold(positive, score)
    x, y = (_out_of(np.append(0, counts)) for counts in (alarms, hits))
    return Curve(x, y, float(np.diff(x) @ (y[1:] + y[:-1]) / 2))


def precision_recall(positive: np.ndarray, score: np.ndarray) -> Curve:
    """Return recall and precision of every threshold on a score, from the strictest on.

    The area is the average precision: each threshold's precision times the recall it adds. Straight lines
    between the points, as in ROC, would promise what no threshold keeps (Davis and Goadrich 2006). A score
    that knows nothing gets the class's share of the faces.

    Args:
        positive: bool ``[N]``, which faces have the class.
        score: ``[N]``, higher is more of it; NaN nowhere.

    Returns:
        the curve; recall and area are NaN where no face has the class.

    Raises:
        ValueError: as :func:`roc`.
    """
    hits, alarms = _above_each_threshold(positive, score)
    precision, recall = hits / (hits + alarms), _out_of(hits)
    return Curve(recall, precision, float(np.diff(recall, prepend=0.0) @ precision))


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return for each class, against all others, the area under its ROC curve; see :func:`roc`.

    Args:
        labels: integers ``[N]``.
        probabilities: ``[N, K]``, each row sums to 1.

    Returns:
        float64 ``[K]``; NaN for a class that no face has, or every one.

    Raises:
        ValueError: shapes that do not fit.
    """
    return _of_each_class(roc, labels, probabilities)


def average_precision(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return for each class, against all others, its average precision; see :func:`precision_recall`.

    Args:
        labels: integers ``[N]``.
        probabilities: ``[N, K]``, each row sums to 1.

    Returns:
        float64 ``[K]``; NaN for a class that no face has.

    Raises:
        ValueError: shapes that do not fit.
    """
    return _of_each_class(precision_recall, labels, probabilities)


def _above_each_threshold(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many faces of the class, and how many others, reach each distinct score, highest first."""
    positive, score = np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)
    if score.ndim != 1 or positive.shape != score.shape or not len(score) or np.isnan(score).any():
        raise ValueError(f"need one score for each face and none of them NaN, not {score.shape} scores")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # of faces that score alike
    hits = np.cumsum(positive[order])[last]
    return hits, np.flatnonzero(last) + 1 - hits


def _out_of(counts: np.ndarray) -> np.ndarray:
    return counts / counts[-1] if counts[-1] else np.full(len(counts), np.nan)


def _of_each_class(
    curve: Callable[[np.ndarray, np.ndarray], Curve], labels: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    labels, probabilities = given.probable(labels, probabilities)
    return np.array([curve(labels == k, probabilities[:, k]).area for k in range(probabilities.shape[1])])
