"""Answers to the exercises of notebook 05: valence and arousal, known and unknown."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from helpers import metrics
from helpers.checks.judging import Case, equals, judge


def check_masked_mse(answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Check the mean squared error over what is known; 0 where nothing is.

    Args:
        answer: predicted ``[N, 2]`` and truth ``[N, 2]``, NaN where unknown, to a number.
    """

    def draw(random: np.random.Generator) -> Case:
        predicted, truth = (torch.tensor(random.uniform(-1, 1, (4, 2))) for _ in range(2))
        truth[torch.tensor(random.random((4, 2)) < random.choice([0.3, 1.0]))] = torch.nan
        return {"predicted": predicted, "truth": truth}

    def reference(predicted: torch.Tensor, truth: torch.Tensor) -> float:
        known = ~truth.isnan()
        return float((predicted - truth)[known].square().mean()) if known.any() else 0.0

    judge(answer, draw, equals(reference))


def check_sign_agreement(answer: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """Check the share of faces whose sign is right (SAGR); 0 is a sign of its own.

    Args:
        answer: predicted ``[N]`` and truth ``[N]`` to a number.
    """

    def draw(random: np.random.Generator) -> Case:
        predicted, truth = random.choice([-0.7, -0.1, 0.0, 0.2, 0.9], (2, 9))
        return {"predicted": predicted, "truth": truth}

    judge(answer, draw, equals(lambda predicted, truth: metrics.sagr(truth, predicted)))


def check_class_means(answer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Check the prediction that knows the class and nothing else: each face gets the mean of its class.

    Args:
        answer: truth ``[N]`` and labels ``[N]``, in which some classes may be missing, to ``[N]``.
    """

    def draw(random: np.random.Generator) -> Case:
        return {"truth": random.uniform(-1, 1, 10), "labels": random.choice([0, 2, 5], 10)}

    def reference(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.array([truth[labels == label].mean() for label in labels])

    judge(answer, draw, equals(reference))


def check_ccc(answer: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """Check the concordance correlation (Lin 1989), variances divided by n.

    Args:
        answer: predicted ``[N]`` and truth ``[N]`` to a number.
    """

    def draw(random: np.random.Generator) -> Case:
        truth = random.uniform(-1, 1, 8)
        predicted = random.uniform(-1.5, 1.5) * truth + random.normal(0, 0.3, 8) + random.normal(0, 0.5)
        return {"predicted": predicted, "truth": truth}

    judge(answer, draw, equals(lambda predicted, truth: metrics.ccc(truth, predicted), tolerance=1e-6))
