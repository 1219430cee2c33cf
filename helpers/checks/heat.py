"""Answers to the exercises of notebook 07: heat maps and what they are worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # its parts are imported when they are first used

from helpers.checks.judging import Case, equals, judge


def check_weighted_map(answer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Check Grad-CAM's map: what is positive of the sum of a layer's maps, each weighed by its mean slope.

    Args:
        answer: maps ``[C, H, W]`` and the class score's slopes ``[C, H, W]`` to ``[H, W]``.
    """

    def draw(random: np.random.Generator) -> Case:
        maps, slopes = random.normal(size=(2, 3, 2, 2))
        return {"maps": maps, "slopes": slopes}

    def reference(maps: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        return np.clip(np.einsum("c,chw->hw", slopes.mean(axis=(1, 2)), maps), 0, None)

    judge(answer, draw, equals(reference))


def check_pointing_hit(answer: Callable[[np.ndarray, np.ndarray], bool]) -> None:
    """Check whether a heat map's hottest cell lies inside a region (the pointing game, Zhang et al. 2016).

    Args:
        answer: heat ``[H, W]`` and inside ``[H, W]``, true or false, to true or false.
    """

    def draw(random: np.random.Generator) -> Case:
        return {"heat": random.normal(size=(3, 4)), "inside": random.random((3, 4)) < 0.5}

    def reference(heat: np.ndarray, inside: np.ndarray) -> bool:
        return bool(inside[heat == heat.max()][0])

    judge(answer, draw, equals(reference), trials=60)  # a wrong rule is often right by chance


def check_area(answer: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """Check the area under a deletion curve, by trapezoids; the shares need not be evenly spaced.

    Args:
        answer: shares ``[S]``, rising from 0 to 1, and scores ``[S]`` to a number.
    """

    def draw(random: np.random.Generator) -> Case:
        shares = np.concatenate([[0], np.sort(random.uniform(0, 1, 4)), [1]])
        return {"shares": shares, "scores": random.random(6)}

    judge(answer, draw, equals(lambda shares, scores: scipy.integrate.trapezoid(scores, shares)))


def check_rank_correlation(answer: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """Check Spearman's rank correlation of two heat maps, without ties.

    Args:
        answer: a ``[H, W]`` and b ``[H, W]`` to a number.
    """

    def draw(random: np.random.Generator) -> Case:
        a = random.normal(size=(3, 3))
        return {"a": a, "b": np.exp(a) + random.normal(0, 0.5, a.shape)}

    judge(answer, draw, equals(lambda a, b: scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic))
