"""Scores of predicted classes against true ones: accuracy, recall, F1, kappa."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from helpers.metrics import given


class PerClass(NamedTuple):
    """Scores of each class, four arrays ``[K]``.

    Args:
        precision: of the faces given this class, the share that has it; 0 where none was given it.
        recall: of the faces of this class, the share that was found; 0 where there is none.
        f1: harmonic mean of the two; 0 where both are 0.
        support: how many faces have this class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


def confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Return how many faces of each class (row) were given each class (column).

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.
        num_classes: K; None: one more than the largest class that occurs.

    Returns:
        int64 ``[K, K]``.

    Raises:
        ValueError: not two equally long, non-empty rows of classes from 0 to K - 1.
    """
    labels, predictions = given.classes_of(labels, predictions)
    largest = max(labels.max(), predictions.max())
    size = int(largest) + 1 if num_classes is None else num_classes
    if largest >= size:
        raise ValueError(f"class {largest} does not fit num_classes={size}; classes are counted from 0")
    return np.bincount(labels * size + predictions, minlength=size * size).reshape(size, size)


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the share of faces whose class was found.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.

    Raises:
        ValueError: as :func:`confusion`.
    """
    labels, predictions = given.classes_of(labels, predictions)
    return float((labels == predictions).mean())


def per_class(labels: np.ndarray, predictions: np.ndarray, num_classes: int | None = None) -> PerClass:
    """Return precision, recall, F1 and support of each class.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.
        num_classes: K; None: one more than the largest class that occurs.

    Raises:
        ValueError: as :func:`confusion`.
    """
    table = confusion(labels, predictions, num_classes)
    hits, support, said = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    return PerClass(
        given.share(hits, said), given.share(hits, support), given.share(2 * hits, support + said), support
    )


def macro_f1(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[int] | None = None) -> float:
    """Return the mean F1 of several classes, each counted alike.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.
        classes: those that are averaged; one that occurs nowhere counts as 0. None: all that occur among the
            labels or the predictions.

    Raises:
        ValueError: as :func:`confusion`.
    """
    if classes is None:
        classes = np.union1d(labels, predictions)
    return float(
        per_class(labels, predictions, given.room_for(classes, labels, predictions)).f1[classes].mean()
    )


def balanced_accuracy(
    labels: np.ndarray, predictions: np.ndarray, classes: Sequence[int] | None = None
) -> float:
    """Return the mean recall of several classes ("macro recall"), each counted alike.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.
        classes: those that are averaged; one without a label counts as 0. None: all that occur among the
            labels.

    Raises:
        ValueError: as :func:`confusion`.
    """
    if classes is None:
        classes = np.unique(labels)
    room = given.room_for(classes, labels, predictions)
    return float(per_class(labels, predictions, room).recall[classes].mean())


def cohens_kappa(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return Cohen's kappa (1960): agreement above what the two class frequencies alone would give.

    1 is full agreement, 0 is what chance gives; NaN where both know only one class, the same.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.

    Raises:
        ValueError: as :func:`confusion`.
    """
    table = confusion(labels, predictions)
    shares = table / table.sum()
    by_chance = float(shares.sum(axis=0) @ shares.sum(axis=1))
    return (float(shares.trace()) - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")
