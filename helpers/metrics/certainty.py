"""How sure one can be of a score: intervals by resampling, and a test of two models on the same faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import bdtr

from helpers.metrics import given
from helpers.metrics.classes import accuracy, balanced_accuracy, macro_f1

_CHUNK = 4_000_000  # drawn rows held at once by the bootstrap: 32 MB


@dataclass(frozen=True)
class Interval:
    """A score and the interval in which it would fall on other faces of the same kind.

    ``str`` gives ``"0.652 [0.636, 0.667]"``; a format applies to each number: ``f"{score:.1%}"``.

    Args:
        value: the score on the faces at hand.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        value, low, high = (format(number, spec or ".3f") for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


def bootstrap(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> Interval:
    """Return a statistic with its percentile bootstrap interval (Efron 1979).

    Faces are drawn again with replacement, as many as there are, and the statistic is computed on each draw;
    the interval leaves out the same share at both ends. A draw on which the statistic is NaN is left out.
    ``np.mean`` and :func:`accuracy` are computed on all draws at once; :func:`macro_f1` and
    :func:`balanced_accuracy` average over the same classes on each, so that a draw which misses a rare class
    is not the better for it.

    Args:
        statistic: a function of the arrays that gives one number.
        arrays: each ``[N, ...]``; one draw takes the same rows of all.
        resamples: number of draws.
        seed: of the draws; the same seed gives the same draws for any statistic.
        level: share of the draws inside the interval.
        groups: integers ``[N]``, equal for faces that belong together (the same person): whole groups are
            drawn, which is right where faces are not independent, and wider. A face whose group is negative
            (unknown) stands on its own; None: all do.

    Raises:
        ValueError: no array, arrays of different length, none or a single row, or a level outside (0, 1).
    """
    arrays = tuple(np.asarray(array) for array in arrays)
    _check_bootstrap(arrays, resamples, level, groups)
    value = float(statistic(*arrays))
    if statistic is accuracy:
        statistic, arrays = np.mean, (arrays[0] == arrays[1],)
    elif statistic is macro_f1:
        statistic = partial(macro_f1, classes=np.union1d(*arrays))
    elif statistic is balanced_accuracy:
        statistic = partial(balanced_accuracy, classes=np.unique(arrays[0]))
    if groups is None:
        drawn = _draws(len(arrays[0]), resamples, seed)
    else:
        drawn = _group_draws(groups, resamples, seed)
    tail = (1 - level) / 2
    low, high = np.nanquantile(_statistics(statistic, arrays, drawn), [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _statistics(
    statistic: Callable[..., float], arrays: tuple[np.ndarray, ...], drawn: Iterator[np.ndarray]
) -> np.ndarray:
    if statistic is np.mean and arrays[0].ndim == 1:
        values = arrays[0].astype(np.float64)
        return np.concatenate([values[rows].mean(axis=-1, keepdims=rows.ndim == 1) for rows in drawn])
    each = (row for rows in drawn for row in np.atleast_2d(rows))
    return np.array([statistic(*(array[row] for array in arrays)) for row in each], dtype=np.float64)


def _draws(num_rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // num_rows)
    for first in range(0, resamples, step):
        yield rng.integers(num_rows, size=(min(step, resamples - first), num_rows))


def _group_draws(groups: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = np.asarray(groups)
    alone = -1 - np.arange(len(groups))  # another negative number for each face
    _, owner, sizes = np.unique(np.where(groups < 0, alone, groups), return_inverse=True, return_counts=True)
    members = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    for _ in range(resamples):
        yield np.concatenate([members[i] for i in rng.integers(len(sizes), size=len(sizes))])


def mcnemar(labels: np.ndarray, predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Return the exact McNemar (1947) p-value: how likely two equally good models differ this much.

    Only faces that one model has right and the other wrong count; if neither is better, each of those is a
    coin toss. Two-sided, from the binomial distribution.

    Args:
        labels: integers ``[N]``.
        predictions_a: integers ``[N]``, of one model.
        predictions_b: integers ``[N]``, of the other, on the same faces.

    Raises:
        ValueError: as :func:`confusion`.
    """
    labels, predictions_a = given.classes_of(labels, predictions_a)
    right_a, right_b = labels == predictions_a, labels == given.classes_of(labels, predictions_b)[1]
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return min(1.0, 2.0 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def _check_bootstrap(
    arrays: tuple[np.ndarray, ...], resamples: int, level: float, groups: np.ndarray | None
) -> None:
    lengths = {len(each) for each in (*arrays, *([] if groups is None else [groups]))}
    if len(lengths) != 1 or min(lengths) < 1:
        raise ValueError(f"bootstrap needs arrays of one length, 1 or more, not {sorted(lengths)}")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples must be 1 or more and level in (0, 1), not {resamples} and {level}")
