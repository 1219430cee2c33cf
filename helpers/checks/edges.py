"""Answers to the exercises of notebook 02: histograms, kernels, margins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import distance

from helpers.checks.judging import Case, equals, judge


def check_soft_histogram(answer: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> None:
    """Check a histogram of directions in which each pixel shares its length between the two nearest bins.

    Args:
        answer: lengths ``[P]``, directions ``[P]`` in degrees from 0 to below 180 and the number of bins to
            ``[bins]``. Bin i has its middle at (i + 1/2) * 180 / bins; the half circle is closed.
    """

    def draw(random: np.random.Generator) -> Case:
        num = int(random.integers(3, 7))
        degrees = random.uniform(0, 180, num)
        degrees[0] = random.choice([1.0, 179.0])  # beyond the middle of an outermost bin: the circle closes
        return {"lengths": random.uniform(0, 9, num), "degrees": degrees, "bins": int(random.integers(4, 10))}

    def reference(lengths: np.ndarray, degrees: np.ndarray, bins: int) -> np.ndarray:
        width = 180 / bins
        apart = np.abs(degrees[:, None] - (np.arange(bins) + 0.5) * width)
        apart = np.minimum(apart, 180 - apart)
        return lengths @ np.clip(1 - apart / width, 0, None)

    judge(answer, draw, equals(reference))


def check_rbf_kernel(answer: Callable[[np.ndarray, np.ndarray, float], np.ndarray]) -> None:
    """Check the RBF kernel, exp(-gamma |a - b|²), of every row of a with every row of b.

    Args:
        answer: a ``[N, D]``, b ``[M, D]`` and gamma to ``[N, M]``.
    """

    def draw(random: np.random.Generator) -> Case:
        dims = int(random.integers(2, 5))
        a, b = random.normal(size=(3, dims)), random.normal(size=(2, dims))
        return {"a": a, "b": b, "gamma": float(random.uniform(0.1, 2))}

    def reference(a: np.ndarray, b: np.ndarray, gamma: float) -> np.ndarray:
        return np.exp(-gamma * distance.cdist(a, b, "sqeuclidean"))

    judge(answer, draw, equals(reference))


def check_hinge_loss(answer: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """Check the mean hinge loss, max(0, 1 - side * score).

    Args:
        answer: scores ``[N]`` and sides ``[N]``, -1 or 1, to a number.
    """

    def draw(random: np.random.Generator) -> Case:
        return {"scores": random.normal(0, 2, 6), "sides": random.choice([-1, 1], 6)}

    def reference(scores: np.ndarray, sides: np.ndarray) -> float:
        return float(np.mean([max(0.0, 1 - side * score) for score, side in zip(scores, sides, strict=True)]))

    judge(answer, draw, equals(reference))
