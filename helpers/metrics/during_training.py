"""Scores as the training loop takes them: functions of what a network put out and of the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from helpers.metrics import given
from helpers.metrics.probabilities import softmax


def on_labels(statistic: Callable[[np.ndarray, np.ndarray], float], key: str = "labels") -> Callable:
    """Return ``metric(outputs, targets) -> float`` from a function of labels and predicted classes.

    ``training.fit(..., metrics={"accuracy": on_labels(accuracy), "macro F1": on_labels(macro_f1)})``.

    Args:
        statistic: a function of integers ``[N]`` and ``[N]``, such as :func:`accuracy`.
        key: the target's name, and the head's where the network has several.
    """

    def metric(outputs: np.ndarray | Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]) -> float:
        logits = outputs[key] if isinstance(outputs, Mapping) else outputs
        return statistic(targets[key], logits.argmax(axis=1))

    return metric


def on_probabilities(statistic: Callable[[np.ndarray, np.ndarray], float], key: str = "labels") -> Callable:
    """Return ``metric(outputs, targets) -> float`` from a function of a target and predicted probabilities.

    Args:
        statistic: a function of a target and probabilities ``[N, K]``, such as :func:`log_loss`.
        key: the target's name, and the head's where the network has several.
    """

    def metric(outputs: np.ndarray | Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]) -> float:
        logits = outputs[key] if isinstance(outputs, Mapping) else outputs
        return float(np.mean(statistic(targets[key], softmax(logits))))

    return metric


def on_dimension(
    statistic: Callable[[np.ndarray, np.ndarray], float], name: str, key: str = "valence_arousal"
) -> Callable:
    """Return ``metric(outputs, targets) -> float`` from a function of true and predicted valence or arousal.

    Args:
        statistic: a function of two arrays ``[N]``, such as :func:`ccc`.
        name: "valence" or "arousal"; also the head's name where each of the two has its own.
        key: the target's name, and the head's where one head gives both.

    Raises:
        ValueError: another name.
    """
    column = given.dimension(name)

    def metric(outputs: np.ndarray | Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]) -> float:
        own = isinstance(outputs, Mapping) and name in outputs
        both = outputs[key] if isinstance(outputs, Mapping) and not own else outputs
        return statistic(targets[key][:, column], outputs[name][:, 0] if own else both[:, column])

    return metric
