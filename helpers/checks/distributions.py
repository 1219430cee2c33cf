"""Answers to the exercises of notebook 06: distances between label distributions, and calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # its parts are imported when they are first used

from helpers.checks.judging import Case, equals, judge


def _pair(random: np.random.Generator) -> Case:
    """Draw two sets of distributions, with exact zeros in them."""
    p, q = random.dirichlet(np.ones(int(random.integers(3, 6))), (2, 3))
    p[0, 0], q[1, 1], p[2, 2], q[2, 2] = 0, 0, 0, 0
    return {"p": p / p.sum(axis=1, keepdims=True), "q": q / q.sum(axis=1, keepdims=True)}


def check_total_variation(answer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Check half the sum of absolute differences: the largest difference in probability of any event.

    Args:
        answer: p ``[N, K]`` and q ``[N, K]`` to ``[N]``.
    """
    judge(answer, _pair, equals(lambda p, q: np.clip(p - q, 0, None).sum(axis=1)))


def check_jensen_shannon(answer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Check the Jensen-Shannon divergence in nats, at most log 2, finite where probabilities are 0.

    Args:
        answer: p ``[N, K]`` and q ``[N, K]`` to ``[N]``.
    """
    judge(answer, _pair, equals(lambda p, q: scipy.spatial.distance.jensenshannon(p, q, axis=1) ** 2))


def check_ordered_emd(answer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Check the earth mover's distance between distributions over classes in a row, one step apart.

    Args:
        answer: p ``[N, K]`` and q ``[N, K]`` to ``[N]``.
    """

    def reference(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        places = np.arange(p.shape[1])
        return np.array(
            [scipy.stats.wasserstein_distance(places, places, *rows) for rows in zip(p, q, strict=True)]
        )

    judge(answer, _pair, equals(reference))


def check_calibration_error(answer: Callable[[np.ndarray, np.ndarray, int], float]) -> None:
    """Check the expected calibration error: mean distance of accuracy from confidence over bins, by faces.

    Args:
        answer: confidence ``[N]`` in (0, 1], right ``[N]`` true or false and the number of bins of equal
            width to a number. A face belongs to the bin (low, high] of its confidence.
    """

    def draw(random: np.random.Generator) -> Case:
        confidence = np.append(random.uniform(0.01, 1, 11), 1.0)
        return {"confidence": confidence, "right": random.random(12) < confidence, "bins": 5}

    def reference(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
        error = 0.0
        for i in range(bins):
            inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
            if inside.any():
                error += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
        return error / len(confidence)

    judge(answer, draw, equals(reference))
