"""What the scores are given, looked over before anything is computed from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def dimension(name: str) -> int:
    """Return the column of valence or arousal.

    Args:
        name: "valence" or "arousal".

    Raises:
        ValueError: another name.
    """
    if name not in ("valence", "arousal"):
        raise ValueError(f"unknown dimension {name!r}; known: valence, arousal")
    return ("valence", "arousal").index(name)


def room_for(*classes: Sequence[int]) -> int | None:
    """Return how many classes there must be for all of these to be among them; None for none.

    Args:
        classes: integers from 0.
    """
    largest = [np.max(each) for each in classes if len(each)]
    return int(max(largest)) + 1 if largest else None


def classes_of(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return true and predicted classes as int64.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.

    Raises:
        ValueError: not two equally long, non-empty rows of integers from 0.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not len(labels):
        raise ValueError(
            f"labels and predictions must be equally long rows of classes, not {labels.shape} and "
            f"{predictions.shape}; take argmax(axis=1) of logits first"
        )
    if not all(np.issubdtype(each.dtype, np.integer) and each.min() >= 0 for each in (labels, predictions)):
        raise ValueError("classes must be integers from 0 on; drop faces without a label first")
    return labels.astype(np.int64), predictions.astype(np.int64)


def probable(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int64 and probabilities as float64.

    Args:
        labels: integers ``[N]``.
        probabilities: ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: rows that do not sum to 1, or shapes that do not fit.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-4):
        raise ValueError("probabilities must be [N, K] with rows that sum to 1; take softmax of logits first")
    labels, _ = classes_of(labels, probabilities.argmax(axis=1))
    return labels, probabilities


def same_shape(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64.

    Args:
        truth: numbers of any shape.
        predicted: as many.

    Raises:
        ValueError: shapes that differ.
    """
    truth, predicted = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} must have the same shape")
    return truth, predicted


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, 0 where the whole is 0.

    Args:
        part: ``[K]``.
        whole: ``[K]``, 0 or more.
    """
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
