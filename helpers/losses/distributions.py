"""Losses against a distribution over classes: what several people said of a face, or what is true of it.

p is the target and q, the softmax of the logits, the prediction. All are means over the batch, computed from
log q in float32 (float64 for float64 logits), so that logits of ten thousand and targets of exactly 0 give
finite values and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch

from helpers import emotions
from helpers.losses import given
from helpers.losses.transport import emd

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A loss of logits ``[B, K]`` and distributions ``[B, K]``."""

FLOOR = 1e-3
"""Share of an even distribution that :func:`reverse_kl` mixes into its target."""


def squared_error(logits: torch.Tensor, distribution: torch.Tensor) -> torch.Tensor:
    """Return the mean over faces and classes of (p - q)² (the Brier score divided by K).

    Args:
        logits: of q, ``[B, K]``, any float type.
        distribution: p, ``[B, K]``, each row sums to 1.

    Raises:
        ValueError: a row of the target is no distribution.
    """
    log_q = given.log_softmax(logits)
    return (given.distribution(distribution, log_q) - log_q.exp()).square().mean()


def absolute_error(logits: torch.Tensor, distribution: torch.Tensor) -> torch.Tensor:
    """Return the mean over faces of sum |p - q|: twice the total variation, at most 2.

    Args:
        logits: of q, ``[B, K]``, any float type.
        distribution: p, ``[B, K]``, each row sums to 1.

    Raises:
        ValueError: a row of the target is no distribution.
    """
    log_q = given.log_softmax(logits)
    return (given.distribution(distribution, log_q) - log_q.exp()).abs().sum(dim=1).mean()


def soft_cross_entropy(logits: torch.Tensor, distribution: torch.Tensor) -> torch.Tensor:
    """Return the mean of -sum p log q over the classes, in nats; smallest, the entropy of p, where q = p.

    Args:
        logits: of q, ``[B, K]``, any float type.
        distribution: p, ``[B, K]``, each row sums to 1.

    Returns:
        a float32 scalar (float64 for float64 logits).

    Raises:
        ValueError: a row of the target is no distribution.
    """
    log_q = given.log_softmax(logits)
    return -(given.distribution(distribution, log_q) * log_q).sum(dim=1).mean()


def kl_divergence(logits: torch.Tensor, distribution: torch.Tensor) -> torch.Tensor:
    """Return the mean Kullback-Leibler divergence of q from p, sum p log(p / q), in nats: 0 where q = p.

    Its gradient equals that of :func:`soft_cross_entropy`; the value differs by the entropy of p.

    Args:
        logits: of q, ``[B, K]``, any float type.
        distribution: p, ``[B, K]``, each row sums to 1; zeros are allowed.

    Returns:
        a float32 scalar (float64 for float64 logits).

    Raises:
        ValueError: a row of the target is no distribution.
    """
    log_q = given.log_softmax(logits)
    p = given.distribution(distribution, log_q)
    return (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean()


def reverse_kl(logits: torch.Tensor, distribution: torch.Tensor, floor: float = FLOOR) -> torch.Tensor:
    """Return the mean of sum q log(q / p), in nats: the divergence the other way.

    It is infinite wherever p is 0 and q is not, which is everywhere for a softmax and votes. So the target is
    mixed with a little of an even distribution, (1 - floor) p + floor / K, and q is drawn to that.

    Args:
        logits: of q, ``[B, K]``, any float type.
        distribution: p, ``[B, K]``, each row sums to 1; zeros are allowed.
        floor: share of the even distribution, in (0, 1].

    Raises:
        ValueError: a row of the target is no distribution.
    """
    log_q = given.log_softmax(logits)
    p = given.distribution(distribution, log_q)
    log_p = torch.log((1 - floor) * p + floor / p.shape[1])
    return (log_q.exp() * (log_q - log_p)).sum(dim=1).mean()


def js_divergence(logits: torch.Tensor, distribution: torch.Tensor) -> torch.Tensor:
    """Return the mean Jensen-Shannon divergence (Lin 1991), in nats: 0 where q = p, at most log 2.

    Half the KL divergence of each from m = (p + q) / 2. log m comes from log p and log q without leaving log
    space; computed from probabilities, log q alone would be -infinity for a logit of -104.

    Args:
        logits: of q, ``[B, K]``, any float type.
        distribution: p, ``[B, K]``, each row sums to 1; zeros are allowed.

    Raises:
        ValueError: a row of the target is no distribution.
    """
    log_q = given.log_softmax(logits)
    p = given.distribution(distribution, log_q)
    log_m = torch.logaddexp(p.log(), log_q) - math.log(2)
    of_p = torch.xlogy(p, p) - p * log_m
    of_q = log_q.exp() * (log_q - log_m)
    return (of_p + of_q).sum(dim=1).mean() / 2


def combined(*parts: tuple[float, Divergence]) -> Divergence:
    """Return the weighted sum of several divergences.

    Args:
        parts: weights, 0 or more, each with its divergence.

    Raises:
        ValueError: no part, or a negative weight.
    """
    if not parts or min(weight for weight, _ in parts) < 0:
        raise ValueError(f"needs parts with weights of 0 or more, not {[weight for weight, _ in parts]}")
    return lambda logits, distribution: sum(w * part(logits, distribution) for w, part in parts)


def divergences(
    classes: tuple[str, ...], places: Mapping[str, tuple[float, float]] = emotions.CIRCUMPLEX
) -> dict[str, Divergence]:
    """Return every loss against a distribution by name, ready to be called with logits and targets.

    Args:
        classes: K names, in label order.
        places: name to (valence, arousal), between which the earth is moved.

    Raises:
        ValueError: a class without a place.
    """
    moved = partial(emd, distances=torch.from_numpy(emotions.distances(classes, places)))
    return {
        "mse": squared_error,
        "l1": absolute_error,
        "cross-entropy": soft_cross_entropy,
        "kl": kl_divergence,
        "reverse-kl": reverse_kl,
        "js": js_divergence,
        "emd": moved,
        "kl+emd": combined((1.0, kl_divergence), (1.0, moved)),
        "js+l1": combined((1.0, js_divergence), (0.5, absolute_error)),
    }


def on_distribution(divergence: Divergence = kl_divergence, *, head: str = "labels") -> given.Loss:
    """Return ``loss(outputs, targets)``: a divergence from the label distribution.

    Args:
        divergence: a function of logits ``[B, K]`` and distributions ``[B, K]``.
        head: the head that gives the logits, where the network has several.
    """
    return lambda outputs, targets: divergence(given.of_head(outputs, head), targets["distribution"])
