"""Losses against one class a face."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from helpers.losses import given


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    label_smoothing: float = 0.0,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean of -log p(label), in nats.

    With smoothing s the target is 1 - s + s/K for the label and s/K for every other class (Szegedy et al.
    2016). With weights each face's loss is multiplied by the weight of its label, and the sum is divided by
    the sum of these weights, so that the scale of the weights does not matter; 0 where all are 0.

    Args:
        logits: ``[B, K]``, any float type.
        labels: integers ``[B]``.
        label_smoothing: s in [0, 1].
        weight: ``[K]``, 0 or more; None: all alike.

    Returns:
        a float32 scalar (float64 for float64 logits).
    """
    log_p = given.log_softmax(logits)
    chosen = -log_p.gather(1, labels[:, None]).squeeze(1)
    each = (1 - label_smoothing) * chosen - label_smoothing * log_p.mean(dim=1)
    if weight is None:
        return each.mean()
    of_label = weight.to(each)[labels]
    return (each * of_label).sum() / of_label.sum().clamp(min=torch.finfo(each.dtype).tiny)


def class_weights(labels: np.ndarray, num_classes: int, power: float = 1.0) -> torch.Tensor:
    """Return weights that make rare classes count more: 1 / (count ** power), scaled to a mean of 1 per face.

    Args:
        labels: integers ``[N]`` of the training faces.
        num_classes: K.
        power: 1 makes all classes count alike ("balanced"), 0.5 goes half the way, 0 none of it.

    Returns:
        float32 ``[K]``; 0 for a class without a face.

    Raises:
        ValueError: no labels, or one outside 0 to K - 1.
    """
    labels = np.asarray(labels)
    if not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"class_weights needs labels from 0 to {num_classes - 1}, one or more")
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0.0)
    return torch.tensor(weights * len(labels) / (weights @ counts), dtype=torch.float32)


def on_labels(
    *, label_smoothing: float = 0.0, weight: torch.Tensor | None = None, key: str = "labels"
) -> given.Loss:
    """Return ``loss(outputs, targets)``: the :func:`cross_entropy` of the labels.

    Args:
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
        weight: ``[K]``, see :func:`class_weights`; None: all alike.
        key: the target's name, and the head's where the network has several.

    Raises:
        ValueError: a smoothing outside [0, 1], or a negative weight.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], not {label_smoothing}")
    if weight is not None and (weight.ndim != 1 or not bool((weight >= 0).all())):
        raise ValueError(f"weight must be one number of 0 or more for each class, not {weight}")

    def loss(outputs: given.Outputs, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        logits = given.of_head(outputs, key)
        return cross_entropy(logits, targets[key], label_smoothing=label_smoothing, weight=weight)

    return loss
