"""Scores of numbers, such as valence and arousal, of which some are not known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from helpers.metrics import given


def rmse(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the root of the mean squared error of each column.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN where nothing is known, or a prediction of something known is NaN.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(lambda x, y: float(np.sqrt(np.mean((x - y) ** 2))), truth, predicted)


def ccc(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return Lin's concordance correlation coefficient (1989) of each column.

    2 cov / (var + var + (difference of means)^2), variances and covariance divided by n, as Lin does (not by
    n - 1). 1 is identity, 0 no relation; shrinking, stretching and shifting are all punished.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN where nothing is known, where a prediction of something known is NaN, and
        where both are constant and equal.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(_ccc, truth, predicted)


def mae(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the mean absolute error of each column.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN as in :func:`rmse`.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(lambda x, y: float(np.mean(np.abs(x - y))), truth, predicted)


def r2(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the share of the variance that is explained (R squared) of each column.

    1 - sum of squared errors / sum of squared distances of the truth from its own mean on these faces: 0 for
    predicting that mean, below 0 for anything worse. Both sums are over the same faces, so it does not matter
    whether they are divided by n or by n - 1.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN as in :func:`rmse`, and where the truth is constant.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(lambda x, y: _ratio(_spread(x) - ((x - y) ** 2).sum(), _spread(x)), truth, predicted)


def pearson(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return Pearson's correlation of each column: what CCC would be after the best shift and stretch.

    The degrees of freedom cancel: n or n - 1 gives the same.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN as in :func:`rmse`, and where either side is constant.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(_pearson, truth, predicted)


def sagr(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the share of faces whose sign is right (SAGR; Nicolaou, Gunes and Pantic 2011) of each column.

    A truth of exactly 0 has the sign 0, which only a prediction of exactly 0 shares. The score of one sign
    for all is that sign's share of the faces, often 0.7 and more.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN as in :func:`rmse`.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(_sagr, truth, predicted)


def within_class_ccc(labels: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the mean over classes of the CCC among the faces of one class: what is known beyond the class.

    Each class weighs as much as it has known faces; one with fewer than two, or whose CCC is undefined, is
    left out. Whoever gives all faces of a class the same value scores 0, the classes' true means included.
    Variances are divided by n, as in :func:`ccc`.

    Args:
        labels: integers ``[N]``.
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN where no class counts, or a prediction of something known is NaN.

    Raises:
        ValueError: shapes that differ.
    """
    x, y = given.same_shape(truth, predicted)
    labels, _ = given.classes_of(labels, labels)
    if len(labels) != len(x):
        raise ValueError(f"{len(labels)} labels for {len(x)} faces")
    if x.ndim == 2:
        return np.array([within_class_ccc(labels, x[:, i], y[:, i]) for i in range(x.shape[1])])
    known = ~np.isnan(x)
    if np.isnan(y[known]).any():
        return float("nan")
    rows = [known & (labels == k) for k in np.unique(labels)]
    scored = np.array([(ccc(x[r], y[r]), r.sum()) for r in rows if r.sum() >= 2]).reshape(-1, 2)
    score, weight = scored[~np.isnan(scored[:, 0])].T
    return _ratio(score @ weight, weight.sum())


def _spread(x: np.ndarray) -> float:
    # the mean of equal numbers may differ from them in the last digit
    return float(((x - x.mean()) ** 2).sum()) if np.ptp(x) != 0 else 0.0


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    together = float(((x - x.mean()) * (y - y.mean())).sum())
    return _ratio(together, (_spread(x) * _spread(y)) ** 0.5)


def _sagr(x: np.ndarray, y: np.ndarray) -> float:
    return float("nan") if np.isnan(y).any() else float(np.mean(np.sign(x) == np.sign(y)))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole != 0 else float("nan")


def _ccc(x: np.ndarray, y: np.ndarray) -> float:
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * covariance / spread) if spread != 0 else float("nan")


def _columns(
    statistic: Callable[[np.ndarray, np.ndarray], float], truth: np.ndarray, predicted: np.ndarray
) -> float | np.ndarray:
    x, y = given.same_shape(truth, predicted)
    if x.ndim == 2:
        return np.array([_columns(statistic, x[:, i], y[:, i]) for i in range(x.shape[1])])
    known = ~np.isnan(x)
    return statistic(x[known], y[known]) if known.any() else float("nan")
