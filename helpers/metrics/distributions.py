"""Scores of a predicted distribution over classes against the true one, face by face."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from helpers.metrics import given


def kl_divergence(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return for each face the Kullback-Leibler divergence of the prediction from the truth, in nats.

    The sum over classes of p log(p / q), with 0 log 0 = 0; infinite where q is 0 and p is not.

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.

    Returns:
        float64 ``[N]``, 0 or more.

    Raises:
        ValueError: shapes that differ.
    """
    return rel_entr(*given.same_shape(truth, predicted)).sum(axis=-1)
