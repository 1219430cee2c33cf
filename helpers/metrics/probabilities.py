"""Logits made probabilities, and how good these are where the truth is one class."""

from __future__ import annotations

import numpy as np

from helpers.metrics import given


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithms of the probabilities that logits stand for, in float64.

    Args:
        logits: ``[..., K]``.
    """
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities that logits stand for, in float64; each row sums to 1.

    Args:
        logits: ``[..., K]``.
    """
    return np.exp(log_softmax(logits))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of -log p(label), in nats: 0 is perfect, log K is what an even guess gives.

    Probabilities under 2.2e-16 count as 2.2e-16, so that one impossible face costs 36 nats and not infinity.

    Args:
        labels: integers ``[N]``.
        probabilities: ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: shapes that do not fit.
    """
    labels, probabilities = given.probable(labels, probabilities)
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0)).mean())


def calibration(truth: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> np.ndarray:
    """Return what a reliability diagram shows: confidence beside accuracy, in bins of equal width.

    A face falls in the bin (low, high] of its largest probability. Where the truth is a distribution, a
    prediction is right to the share p of its class: with votes, the share of raters who said the same.

    Args:
        truth: labels, integers ``[N]``, or distributions ``[N, K]``.
        probabilities: ``[N, K]``, each row sums to 1.
        num_bins: number of bins from 0 to 1.

    Returns:
        float64 ``[num_bins, 3]``: faces, mean confidence, accuracy; 0 in empty bins.

    Raises:
        ValueError: shapes that do not fit.
    """
    truth = np.asarray(truth)
    labels = truth.argmax(axis=1) if truth.ndim == 2 else truth
    labels, probabilities = given.probable(labels, probabilities)
    confidence, said = probabilities.max(axis=1), probabilities.argmax(axis=1)
    right = truth[np.arange(len(said)), said] if truth.ndim == 2 else labels == said
    edges = np.linspace(0, 1, num_bins + 1)
    owner = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    faces, confident, hits = (
        np.bincount(owner, weights, num_bins) for weights in (np.ones(len(labels)), confidence, right)
    )
    return np.stack([faces, given.share(confident, faces), given.share(hits, faces)], axis=1)


def expected_calibration_error(truth: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> float:
    """Return the mean distance of confidence from accuracy (Naeini et al. 2015; Guo et al. 2017), in [0, 1].

    Given labels it asks for one right class, given distributions for the share of it: the hard and the soft
    calibration error. A network that knew p exactly has 0 of the soft one.

    Args:
        truth: labels, integers ``[N]``, or distributions ``[N, K]``.
        probabilities: ``[N, K]``, each row sums to 1.
        num_bins: number of bins of equal width; the value depends on it.

    Raises:
        ValueError: shapes that do not fit.
    """
    faces, confident, hits = calibration(truth, probabilities, num_bins).T
    return float((faces * abs(confident - hits)).sum() / faces.sum())
