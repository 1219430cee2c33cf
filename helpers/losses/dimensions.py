"""Losses of numbers, such as valence and arousal, of which some are not known."""

from __future__ import annotations

from collections.abc import Callable

import torch

from helpers.losses import given


def mse(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error over all values that are known.

    Args:
        predicted: ``[B]`` or ``[B, D]``.
        truth: the same shape; NaN where unknown.

    Returns:
        a float32 scalar; 0, with a gradient of 0, where nothing is known.
    """
    error, known = _known_error(predicted, truth)
    return error.square().sum() / known.sum().clamp(min=1)


def ccc_loss(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return 1 - CCC of the batch, mean over columns: 0 is identity, 1 no relation, 2 the opposite.

    CCC as in :func:`helpers.metrics.ccc` (variances divided by n), on the rows of each column that are known.
    A column with fewer than two known rows, or where both sides are constant and equal, counts as 0.

    Args:
        predicted: ``[B]`` or ``[B, D]``.
        truth: the same shape; NaN where unknown.

    Returns:
        a float32 scalar.
    """
    columns = truth.shape[1] if truth.ndim == 2 else 1
    predicted, truth = given.as_float(predicted).reshape(-1, columns), truth.reshape(-1, columns)
    known = ~truth.isnan()
    num = known.sum(dim=0)
    x, y = (torch.where(known, values, 0.0) for values in (predicted, truth.to(predicted)))
    mean_x, mean_y = (values.sum(dim=0) / num.clamp(min=1) for values in (x, y))
    dx, dy = (torch.where(known, values - mean, 0.0) for values, mean in ((x, mean_x), (y, mean_y)))
    spread = (dx.square() + dy.square()).sum(dim=0) + num * (mean_x - mean_y).square()
    counted = (num >= 2) & (spread > 0)
    concordance = 2 * (dx * dy).sum(dim=0) / torch.where(counted, spread, 1.0)
    return torch.where(counted, 1 - concordance, 0.0).mean()


def on_valence_arousal(distance: Callable = mse, *, key: str = "valence_arousal") -> given.Loss:
    """Return ``loss(outputs, targets)``: a distance from valence and arousal, unknown values left out.

    Args:
        distance: a function of predicted and true values ``[B, 2]``: :func:`mse` or :func:`ccc_loss`.
        key: the target's name, and the head's where the network has several.
    """
    return lambda outputs, targets: distance(given.of_head(outputs, key), targets[key])


def on_dimension(name: str, distance: Callable = mse, *, key: str = "valence_arousal") -> given.Loss:
    """Return ``loss(outputs, targets)`` of a head that gives valence alone, or arousal alone.

    Args:
        name: "valence" or "arousal": the head, with one output.
        distance: a function of predicted and true values ``[B]``, the truth NaN where unknown: :func:`mse` or
            :func:`ccc_loss`.
        key: the target's name.

    Raises:
        ValueError: another name.
    """
    if name not in ("valence", "arousal"):
        raise ValueError(f"unknown dimension {name!r}; known: valence, arousal")
    column = ("valence", "arousal").index(name)
    return lambda outputs, targets: distance(outputs[name].squeeze(1), targets[key][:, column])


def _known_error(predicted: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # where, not a product: NaN times 0 is NaN, in the gradient too
    known = ~truth.isnan()
    predicted = given.as_float(predicted)
    return torch.where(known, predicted - truth.to(predicted).nan_to_num(), 0.0), known
