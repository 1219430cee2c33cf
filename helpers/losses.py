"""Training losses: functions of tensors, in log space and in float32 at least; each is a mean over the batch.

B faces, K classes. ``logits`` are ``[B, K]`` of any float type, q is their softmax. A label ``distribution``
p is ``[B, K]``, each row 0 or more with the sum 1. ``on_labels``, ``on_distribution`` and ``on_dimension``
make of them the ``loss(outputs, targets)`` that ``training.fit`` takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from helpers import emotions, one_of

Outputs = Tensor | Mapping[str, Tensor]
Loss = Callable[[Outputs, Mapping[str, Tensor]], Tensor]
Divergence = Callable[[Tensor, Tensor], Tensor]


def _head(outputs: Outputs, name: str) -> Tensor:
    return outputs[name] if isinstance(outputs, Mapping) else outputs


def _float(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()  # half has too few digits for sums


@lru_cache(maxsize=64)
def _copy(constant: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a constant on a device, sent there once and not at each step."""
    return constant.to(dtype=dtype).to(device=device)  # in two steps, since MPS has no float64


def cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Return the mean of -log q(label), in nats, with smoothing s of -(1 - s) log q(label) - s mean(log q).

    With a ``weight`` ``[K]`` it is the mean weighted by the weight of each face's label; 0 where all are 0.
    """
    log_q, num_classes = torch.log_softmax(_float(logits), dim=1), logits.shape[1]
    if labels.ndim != 1 or labels.is_floating_point():
        what = f"labels must be integers [B], not {labels.dtype} {list(labels.shape)}"
        raise ValueError(f"{what}; take argmax(dim=1) of one-hot rows, losses.on_distribution for shares")
    fits = (labels >= 0) & (labels < num_classes)
    if labels.device.type == "cpu" and not fits.all():
        row = int((~fits).nonzero()[0])
        raise ValueError(f"labels must be from 0 to {num_classes - 1}; row {row} has {int(labels[row])}")
    labels = labels.long().clamp(0, num_classes - 1)
    each = (label_smoothing - 1) * log_q.gather(1, labels[:, None])[:, 0] - label_smoothing * log_q.mean(1)
    # an accelerator would have to be waited for: there the loss becomes NaN, and training.fit names the face
    each = torch.where(fits, each, torch.nan)
    if weight is None:
        return each.mean()
    if len(weight) != num_classes:
        raise ValueError(f"{len(weight)} weights for {num_classes} classes")
    of_label = _copy(weight, each.device, each.dtype)[labels]
    return (each * of_label).sum() / of_label.sum().clamp(min=torch.finfo(each.dtype).tiny)


def class_weights(labels: np.ndarray, num_classes: int, power: float = 1.0) -> Tensor:
    """Return float32 ``[K]``: 1 / count ** power of each class, scaled to a mean of 1 per face (0 for none).

    Power 1 makes all classes count alike (scikit-learn's "balanced"), 0.5 goes half the way.
    """
    labels = np.asarray(labels)
    if not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"class_weights needs labels from 0 to {num_classes - 1}, one or more")
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0.0)
    return torch.tensor(weights * len(labels) / (weights @ counts), dtype=torch.float32)


def on_labels(
    *, label_smoothing: float = 0.0, weight: Tensor | Sequence[float] | None = None, key: str = "labels"
) -> Loss:
    """Return ``loss(outputs, targets)``: the cross-entropy of the labels.

    ``label_smoothing``, in [0, 1], is the share of the target that is spread evenly over all classes (Szegedy
    et al. 2016); ``weight`` K numbers of 0 or more, see :func:`class_weights`; ``key`` the target's name, and
    the head's where the network has several.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], not {label_smoothing}")
    weight = None if weight is None else torch.as_tensor(weight)
    if weight is not None and (weight.ndim != 1 or not bool((weight >= 0).all())):
        raise ValueError(f"weight must be one number of 0 or more for each class, not {weight.tolist()}")
    how = {"label_smoothing": label_smoothing, "weight": weight}
    return lambda outputs, targets: cross_entropy(_head(outputs, key), targets[key], **how)


def _compared(logits: Tensor, distribution: Tensor) -> tuple[Tensor, Tensor]:
    """Return p and log q; a row of p that is no distribution is refused, on an accelerator it becomes NaN."""
    log_q = torch.log_softmax(_float(logits), dim=1)
    if distribution.shape != log_q.shape:
        shapes = f"targets {list(distribution.shape)}, logits {list(log_q.shape)}"
        raise ValueError(f"targets must have the shape of the logits: {shapes}")
    p = distribution.to(log_q)
    fits = ((p.sum(dim=1) - 1).abs() <= 1e-2) & (p >= 0).all(dim=1)  # bfloat16 sums are off by up to .01
    if p.device.type == "cpu" and not fits.all():
        row = int((~fits).nonzero()[0])
        sums = f"row {row} sums to {p[row].sum():.4g}, with {p[row].min():.4g} as its least"
        raise ValueError(f"targets must be 0 or more and sum to 1; {sums}; divide counts by their sum")
    return torch.where(fits[:, None], p, torch.nan), log_q


def squared_error(logits: Tensor, distribution: Tensor) -> Tensor:
    """Return the mean over faces and classes of (p - q)² (the Brier score divided by K)."""
    p, log_q = _compared(logits, distribution)
    return (p - log_q.exp()).square().mean()


def absolute_error(logits: Tensor, distribution: Tensor) -> Tensor:
    """Return the mean over faces of sum |p - q|: twice the total variation, at most 2."""
    p, log_q = _compared(logits, distribution)
    return (p - log_q.exp()).abs().sum(dim=1).mean()


def soft_cross_entropy(logits: Tensor, distribution: Tensor) -> Tensor:
    """Return the mean of -sum p log q, in nats; where q = p it is smallest, the entropy of p."""
    p, log_q = _compared(logits, distribution)
    return -(p * log_q).sum(dim=1).mean()


def kl_divergence(logits: Tensor, distribution: Tensor) -> Tensor:
    """Return the mean of sum p log(p / q), in nats; its gradient is that of :func:`soft_cross_entropy`."""
    p, log_q = _compared(logits, distribution)
    return (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean()


def reverse_kl(logits: Tensor, distribution: Tensor, floor: float = 1e-3) -> Tensor:
    """Return the mean of sum q log(q / p'), p' = (1 - floor) p + floor / K, since p may be 0."""
    p, log_q = _compared(logits, distribution)
    return (log_q.exp() * (log_q - torch.log((1 - floor) * p + floor / p.shape[1]))).sum(dim=1).mean()


def js_divergence(logits: Tensor, distribution: Tensor) -> Tensor:
    """Return the mean of half the KL divergences of p and q from (p + q) / 2, in nats, at most log 2."""
    p, log_q = _compared(logits, distribution)
    log_m = torch.logaddexp(p.log(), log_q) - math.log(2)  # q itself is 0 in float32 for a logit of -104
    return (torch.xlogy(p, p) - p * log_m + log_q.exp() * (log_q - log_m)).sum(dim=1).mean() / 2


def emd(
    logits: Tensor, distribution: Tensor, distances: Tensor, epsilon: float = 0.1, steps: int = 30
) -> Tensor:
    """Return the mean Sinkhorn divergence, a smooth earth mover's distance: 0 where q = p.

    OT(p, q) = min over plans P of <P, distances> + epsilon KL(P | p q), by repeated log-sum-exp (Cuturi 2013,
    arXiv 1306.0895), less half of OT(p, p) and OT(q, q) (Feydy et al. 2019, arXiv 1810.08278). ``distances``
    ``[K, K]`` are those of ``emotions.distances``; ``metrics.emd`` is the exact distance.
    """
    p, log_q = _compared(logits, distribution)
    if distances.shape != (p.shape[1], p.shape[1]):
        raise ValueError(f"distances must be {p.shape[1]} x {p.shape[1]}, not {list(distances.shape)}")
    cost, log_p = _copy(distances, p.device, p.dtype), p.log()

    def least(log_weight: Tensor, potential: Tensor, width: Tensor) -> Tensor:
        return -width * torch.logsumexp((log_weight + potential / width)[..., None, :] - cost / width, dim=-1)

    with torch.no_grad():  # the derivative of OT by a distribution is its potential, whatever led there
        # f and g between p and q, [B, K]; own: of each with itself, [2, B, K]
        f, g, both = torch.zeros_like(p), torch.zeros_like(p), torch.stack([log_p, log_q])
        own, start = torch.zeros_like(both), cost.max().clamp(min=epsilon)  # a tensor still: nothing waits
        for step in range(steps):  # the first quarter with a larger epsilon that falls to the one asked for
            width = epsilon * (start / epsilon) ** max(0.0, 1 - step / max(steps // 4, 1))
            own = (own + least(both, own, width)) / 2
            # averages settle what p and q have in common, steps that go too far on purpose the rest (Thibault
            # et al. 2017, arXiv 1711.01851); the first half takes both from before, the second one by one
            if step < steps // 2:
                f, g = (f + least(log_q, g, width)) / 2, (g + least(log_p, f, width)) / 2
            else:
                f = f + 1.6 * (least(log_q, g, width) - f)
                g = g + 1.6 * (least(log_p, f, width) - g)
    return (p * (f - own[0]) + log_q.exp() * (g - own[1])).sum(dim=1).mean()


def divergences(
    classes: tuple[str, ...], places: Mapping[str, tuple[float, float]] = emotions.CIRCUMPLEX
) -> dict[str, Divergence]:
    """Return each loss against a distribution by name; "emd" moves between the classes' ``places``."""
    distances = torch.from_numpy(emotions.distances(classes, places))
    return {
        "mse": squared_error,
        "l1": absolute_error,
        "cross-entropy": soft_cross_entropy,
        "kl": kl_divergence,
        "reverse-kl": reverse_kl,
        "js": js_divergence,
        "emd": lambda logits, p: emd(logits, p, distances),
        "kl+emd": lambda logits, p: kl_divergence(logits, p) + emd(logits, p, distances),
        "js+l1": lambda logits, p: js_divergence(logits, p) + 0.5 * absolute_error(logits, p),
    }


def on_distribution(divergence: Divergence = kl_divergence, *, head: str = "labels") -> Loss:
    """Return ``loss(outputs, targets)``: a divergence of a head's logits from the label distribution."""
    return lambda outputs, targets: divergence(_head(outputs, head), targets["distribution"])


def mse(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error of ``[B]`` or ``[B, D]`` where the truth is known (not NaN), else 0."""
    known, predicted = ~truth.isnan(), _float(predicted)
    # where, not a product: NaN times 0 is NaN, in the gradient too
    error = torch.where(known, predicted - truth.to(predicted).nan_to_num(), 0.0)
    return error.square().sum() / known.sum().clamp(min=1)


def ccc_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - CCC (``metrics.ccc``, variances divided by n), mean over columns of ``[B]`` or ``[B, D]``.

    0 is identity, 1 no relation, 2 the opposite. Rows whose truth is NaN (unknown) are left out;
    a column with fewer than two known rows, or where both sides are constant and equal, counts as 0.
    """
    if truth.ndim == 1:
        predicted, truth = predicted[:, None], truth[:, None]
    predicted, known = _float(predicted), ~truth.isnan()
    num = known.sum(dim=0)
    x, y = (torch.where(known, values, 0.0) for values in (predicted, truth.to(predicted)))
    mean_x, mean_y = (values.sum(dim=0) / num.clamp(min=1) for values in (x, y))
    dx, dy = (torch.where(known, values - mean, 0.0) for values, mean in ((x, mean_x), (y, mean_y)))
    spread = (dx.square() + dy.square()).sum(dim=0) + num * (mean_x - mean_y).square()
    counted = (num >= 2) & (spread > 0)
    concordance = 2 * (dx * dy).sum(dim=0) / torch.where(counted, spread, 1.0)
    return torch.where(counted, 1 - concordance, 0.0).mean()


def on_dimension(name: str, distance: Divergence = mse) -> Loss:
    """Return ``loss(outputs, targets)``: ``mse`` or ``ccc_loss`` of the head "valence" or "arousal"."""
    column = ("valence", "arousal").index(one_of("dimension", name, ("valence", "arousal")))
    return lambda outputs, targets: distance(outputs[name].squeeze(1), targets["valence_arousal"][:, column])


def weighted_sum(terms: Mapping[str, Loss], weights: Mapping[str, float]) -> Loss:
    """Return ``loss(outputs, targets)``: losses by name, each times its weight, or times 1."""
    factors = {name: float(weights.get(name, 1.0)) for name in terms}
    if not terms or set(weights) - set(terms) or min(factors.values()) < 0:
        known = ", ".join(terms) or "no task"
        raise ValueError(f"weights must be 0 or more, each for one of {known}, not {dict(weights)}")
    return lambda outputs, targets: sum(w * terms[name](outputs, targets) for name, w in factors.items())


class UncertaintyWeighted(nn.Module):
    """Several losses whose weights are learned with the network: Kendall, Gal and Cipolla, arXiv 1705.07115.

    With s the learned log sigma² of a task's noise, a loss in ``squared`` (squared errors) counts exp(-s) / 2
    times, any other exp(-s) times, and each task adds s / 2 (equations 7 and 10), or all weights would fall
    to 0. The s move ``speed`` times as fast as Adam would move them, which a short training needs.
    """

    def __init__(self, terms: Mapping[str, Loss], squared: Collection[str] = (), speed: float = 1.0) -> None:
        super().__init__()
        if not terms or set(squared) - set(terms) or not speed > 0:
            what = f"{list(terms)}, {squared}, {speed}"
            raise ValueError(f"needs tasks, squared among them and a speed above 0, not {what}")
        self.terms, self.speed = dict(terms), speed
        self.slow = nn.Parameter(torch.zeros(len(terms)))  # s / speed, from sigma = 1
        halves = torch.tensor([0.5 if name in squared else 1.0 for name in terms])
        self.register_buffer("factor", halves, persistent=False)

    def forward(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses and of s / 2."""
        values = torch.stack([term(outputs, targets) for term in self.terms.values()])
        s = self.slow * self.speed
        # a loss of exactly 0 had nothing to judge by: no task's noise may be learned from it
        return torch.where(values == 0, values, self.factor * torch.exp(-s) * values + s / 2).sum()

    def weights(self) -> dict[str, float]:
        """Return what each task's loss is multiplied with now."""
        now = self.factor * torch.exp(-self.slow.detach() * self.speed)
        return dict(zip(self.terms, now.tolist(), strict=True))
