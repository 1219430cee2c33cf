"""What training makes small: functions of tensors, computed in float32 and in log space.

``on_labels``, ``on_distribution`` and ``on_valence_arousal`` turn them into the ``loss(outputs, targets)``
that :func:`helpers.training.fit` takes; ``weighted_sum`` and ``UncertaintyWeighted`` make one of several.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Outputs = torch.Tensor | Mapping[str, torch.Tensor]
Loss = Callable[[Outputs, Mapping[str, torch.Tensor]], torch.Tensor]


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
    log_p = _log_softmax(logits)
    chosen = -log_p.gather(1, labels[:, None]).squeeze(1)
    each = (1 - label_smoothing) * chosen - label_smoothing * log_p.mean(dim=1)
    if weight is None:
        return each.mean()
    of_label = weight.to(each)[labels]
    return (each * of_label).sum() / of_label.sum().clamp(min=torch.finfo(each.dtype).tiny)


def soft_cross_entropy(logits: torch.Tensor, distribution: torch.Tensor) -> torch.Tensor:
    """Return the mean of -sum p log q over the classes, in nats; smallest, the entropy of p, where q = p.

    Args:
        logits: of q, ``[B, K]``, any float type.
        distribution: p, ``[B, K]``, each row sums to 1.

    Returns:
        a float32 scalar (float64 for float64 logits).
    """
    log_q = _log_softmax(logits)
    return -(distribution.to(log_q) * log_q).sum(dim=1).mean()


def kl_divergence(logits: torch.Tensor, distribution: torch.Tensor) -> torch.Tensor:
    """Return the mean Kullback-Leibler divergence of q from p, in nats: 0 where q = p.

    Its gradient equals that of :func:`soft_cross_entropy`; the value differs by the entropy of p.

    Args:
        logits: of q, ``[B, K]``, any float type.
        distribution: p, ``[B, K]``, each row sums to 1; zeros are allowed.

    Returns:
        a float32 scalar (float64 for float64 logits).
    """
    log_q = _log_softmax(logits)
    p = distribution.to(log_q)
    return (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean()


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
    predicted, truth = _as_float(predicted).reshape(-1, columns), truth.reshape(-1, columns)
    known = ~truth.isnan()
    num = known.sum(dim=0)
    x, y = (torch.where(known, values, 0.0) for values in (predicted, truth.to(predicted)))
    mean_x, mean_y = (values.sum(dim=0) / num.clamp(min=1) for values in (x, y))
    dx, dy = (torch.where(known, values - mean, 0.0) for values, mean in ((x, mean_x), (y, mean_y)))
    spread = (dx.square() + dy.square()).sum(dim=0) + num * (mean_x - mean_y).square()
    counted = (num >= 2) & (spread > 0)
    concordance = 2 * (dx * dy).sum(dim=0) / torch.where(counted, spread, 1.0)
    return torch.where(counted, 1 - concordance, 0.0).mean()


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


# ---------------------------------------------------------------- for the training loop


def on_labels(
    *, label_smoothing: float = 0.0, weight: torch.Tensor | None = None, key: str = "labels"
) -> Loss:
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

    def loss(outputs: Outputs, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        logits = _of_head(outputs, key)
        return cross_entropy(logits, targets[key], label_smoothing=label_smoothing, weight=weight)

    return loss


def on_distribution(divergence: Callable = kl_divergence, *, head: str = "labels") -> Loss:
    """Return ``loss(outputs, targets)``: a divergence from the label distribution.

    Args:
        divergence: a function of logits ``[B, K]`` and distributions ``[B, K]``.
        head: the head that gives the logits, where the network has several.
    """
    return lambda outputs, targets: divergence(_of_head(outputs, head), targets["distribution"])


def on_valence_arousal(distance: Callable = mse, *, key: str = "valence_arousal") -> Loss:
    """Return ``loss(outputs, targets)``: a distance from valence and arousal, unknown values left out.

    Args:
        distance: a function of predicted and true values ``[B, 2]``: :func:`mse` or :func:`ccc_loss`.
        key: the target's name, and the head's where the network has several.
    """
    return lambda outputs, targets: distance(_of_head(outputs, key), targets[key])


def on_dimension(name: str, distance: Callable = mse, *, key: str = "valence_arousal") -> Loss:
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


# ---------------------------------------------------------------- several tasks


def weighted_sum(terms: Mapping[str, Loss], weights: Mapping[str, float]) -> Loss:
    """Return ``loss(outputs, targets)``: several losses, each times a weight that stays.

    Args:
        terms: name of a task to its loss.
        weights: name of a task to its weight, 0 or more; a task without one weighs 1.

    Raises:
        ValueError: no task, or a weight that is negative or belongs to no task.
    """
    factors = {name: float(weights.get(name, 1.0)) for name in terms}
    if not terms or set(weights) - set(terms) or min(factors.values()) < 0:
        known = ", ".join(terms) or "no task"
        raise ValueError(f"weights must be 0 or more, each for one of {known}, not {dict(weights)}")

    def loss(outputs: Outputs, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return sum(factors[name] * term(outputs, targets) for name, term in terms.items())

    return loss


class UncertaintyWeighted(nn.Module):
    """Several losses whose weights are learned with the network: Kendall, Gal and Cipolla 2018.

    Each task i has a noise level sigma_i, learned as s_i = log sigma_i². A regression's squared error counts
    with exp(-s) / 2, a classification's cross-entropy with exp(-s), and each task adds s / 2 (equations 7 and
    10 of arXiv 1705.07115, as their code has it), without which all weights would fall to 0. Where the
    squared error is as good as it gets, sigma² is that error: what is noisy counts less.

    ``training.fit`` trains these numbers with the network. The loss itself can fall below 0.

    Args:
        terms: name of a task to its loss.
        squared: names of the tasks whose loss is a squared error; the others count as cross-entropies.
        speed: the s move so many times as fast as Adam's learning rate would move them; a short training
            needs it, since Adam moves a number by about its learning rate a step, however large its gradient.

    Raises:
        ValueError: no task, a name in ``squared`` that is none, or a speed that is not above 0.
    """

    def __init__(self, terms: Mapping[str, Loss], squared: Collection[str] = (), speed: float = 1.0) -> None:
        super().__init__()
        if not terms or set(squared) - set(terms) or not speed > 0:
            raise ValueError(
                f"needs tasks, squared among them and a speed above 0, not {list(terms)}, {squared}, {speed}"
            )
        self.terms, self.speed = dict(terms), speed
        self.slow = nn.Parameter(torch.zeros(len(terms)))  # s / speed, from sigma = 1
        halves = torch.tensor([0.5 if name in squared else 1.0 for name in terms])
        self.register_buffer("factor", halves, persistent=False)

    def forward(self, outputs: Outputs, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of the losses and of s / 2.

        Args:
            outputs: what the network put out.
            targets: the batch's targets by name.
        """
        values = torch.stack([term(outputs, targets) for term in self.terms.values()])
        s = self.slow * self.speed
        each = self.factor * torch.exp(-s) * values + s / 2
        # a loss of exactly 0 had nothing to judge by: no task's noise may be learned from it
        return torch.where(values == 0, values, each).sum()

    def weights(self) -> dict[str, float]:
        """Return what each task's loss is multiplied with now."""
        now = self.factor * torch.exp(-self.slow.detach() * self.speed)
        return dict(zip(self.terms, now.tolist(), strict=True))


# ---------------------------------------------------------------- shared


def _of_head(outputs: Outputs, name: str) -> torch.Tensor:
    return outputs[name] if isinstance(outputs, Mapping) else outputs


def _as_float(values: torch.Tensor) -> torch.Tensor:
    # half precision has too few digits for sums and logarithms
    return values if values.dtype == torch.float64 else values.float()


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return functional.log_softmax(_as_float(logits), dim=1)


def _known_error(predicted: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # where, not a product: NaN times 0 is NaN, in the gradient too
    known = ~truth.isnan()
    predicted = _as_float(predicted)
    return torch.where(known, predicted - truth.to(predicted).nan_to_num(), 0.0), known
