"""Scores of predictions, each a pure function of arrays, and how sure one can be of them.

The truth comes first, the prediction second. N faces, K classes. ``labels`` and ``predictions`` are classes,
integers ``[N]`` from 0 to K - 1; ``probabilities`` are ``[N, K]`` with rows that sum to 1; ``votes`` are
counts ``[N, K]``, how many raters chose each class. Numbers (valence, arousal) are ``[N]`` or ``[N, D]``, and
their score a number or ``[D]``; faces whose truth is NaN, unknown, are left out. Distributions p (true) and q
are ``[N, K]``, and their score ``[N]``. What does not fit raises a ``ValueError`` of one line.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import numpy as np
import scipy

from helpers.metrics.distributions import (
    Array,
    Score,
    alike,
    distribution_scores,
    emd,
    entropy,
    fleiss_kappa,
    kl_divergence,
    krippendorff_alpha,
    rater_accuracy,
    ratio,
    smoothed,
    split_half,
    tally,
)

DIMENSIONS = ("valence", "arousal")


@dataclass(frozen=True)
class Interval:
    """A score with its interval; as text "0.652 [0.636, 0.667]", or ``f"{score:.1%}"``."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        value, low, high = (format(number, spec or ".3f") for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


def bootstrap(
    statistic: Callable,
    *arrays: Array,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: Array | None = None,
) -> Interval:
    """Return a statistic of the arrays with its percentile bootstrap interval (Efron 1979).

    Faces are sampled with replacement, as many as there are, the same rows of all arrays ``[N, ...]``; a
    sample on which the statistic is NaN is left out. :func:`macro_f1` and :func:`balanced_accuracy` average
    over the same classes on each sample, so that one without a rare class does not score higher for it.
    ``groups`` are integers ``[N]``, equal for faces of one person: whole groups are sampled, which is right
    where faces are not independent, and wider. A negative one (unknown) is a group of its own. ``level`` is
    the share of the samples inside the interval.
    """
    arrays, num = tuple(np.asarray(array) for array in arrays), len(arrays[0])
    lengths = {len(each) for each in (*arrays, arrays[0] if groups is None else groups)}
    if lengths != {num} or not num or resamples < 1 or not 0 < level < 1:
        given = f"lengths {sorted(lengths)}, {resamples} resamples, level {level}"
        raise ValueError(f"bootstrap needs arrays of one length and a level in (0, 1), not {given}")
    value, rng, found = float(statistic(*arrays)), np.random.default_rng(seed), []
    if statistic in (macro_f1, balanced_accuracy):
        classes = np.unique(arrays[:2] if statistic is macro_f1 else arrays[0])
        statistic = partial(statistic, classes=classes)
    alone = -1 - np.arange(num)  # another negative number for each face
    each = alone if groups is None else np.where(np.asarray(groups) < 0, alone, groups)
    _, owner, sizes = np.unique(each, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    for _ in range(resamples):
        chosen = rng.integers(len(sizes), size=len(sizes))
        rows = chosen if groups is None else np.concatenate([members[i] for i in chosen])
        found.append(float(statistic(*(array[rows] for array in arrays))))
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def mcnemar(labels: Array, predictions_a: Array, predictions_b: Array) -> float:
    """Return the exact McNemar (1947) p-value: how likely two equally good models differ this much.

    Two-sided. Only faces that one model has right and the other wrong count; each is then a fair coin.
    """
    labels, predictions_a = _classes(labels, predictions_a)
    right_a, right_b = labels == predictions_a, labels == _classes(labels, predictions_b)[1]
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return min(1.0, 2.0 * float(scipy.special.bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


PerClass = namedtuple("PerClass", "precision recall f1 support")
"""Scores of each class, four arrays ``[K]``; 0 where there is nothing to divide by."""


def confusion(labels: Array, predictions: Array, num_classes: int | None = None) -> Array:
    """Return how many faces of each class (row) were predicted as each (column): int64 ``[K, K]``."""
    labels, predictions = _classes(labels, predictions)
    size = int(max(labels.max(), predictions.max())) + 1
    if size > (num_classes or size):
        raise ValueError(f"class {size - 1} does not fit num_classes={num_classes}, counted from 0")
    size = num_classes or size
    return np.bincount(labels * size + predictions, minlength=size * size).reshape(size, size)


def accuracy(labels: Array, predictions: Array) -> float:
    """Return the share of faces whose class was predicted."""
    labels, predictions = _classes(labels, predictions)
    return float((labels == predictions).mean())


def per_class(labels: Array, predictions: Array, num_classes: int | None = None) -> PerClass:
    """Return precision, recall, F1 and support (number of faces) of each class."""
    table = confusion(labels, predictions, num_classes)
    hits, support, predicted = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    parts = ((hits, predicted), (hits, support), (2 * hits, support + predicted))
    return PerClass(*(_share(*each) for each in parts), support)


def macro_f1(labels: Array, predictions: Array, classes: Sequence[int] | None = None) -> float:
    """Return the mean F1 over ``classes``, or over all that occur among the labels or the predictions."""
    classes = np.union1d(labels, predictions) if classes is None else classes
    return float(_over(classes, labels, predictions).f1[classes].mean())


def weighted_f1(labels: Array, predictions: Array) -> float:
    """Return the mean F1 of the classes, each weighted by its number of faces."""
    found = per_class(labels, predictions)
    return float(found.f1 @ found.support / found.support.sum())


def balanced_accuracy(labels: Array, predictions: Array, classes: Sequence[int] | None = None) -> float:
    """Return the mean recall over ``classes``, or over all that occur among the labels ("macro recall")."""
    classes = np.unique(labels) if classes is None else classes
    return float(_over(classes, labels, predictions).recall[classes].mean())


def _over(classes: Sequence[int], *answers: Array) -> PerClass:
    return per_class(*answers, max(int(np.max(each)) for each in (classes, *answers)) + 1)


def cohens_kappa(labels: Array, predictions: Array) -> float:
    """Return Cohen's kappa (1960), agreement above that of the class frequencies: 1 is full, 0 is chance."""
    shares = confusion(labels, predictions) / len(labels)
    chance = shares.sum(axis=0) @ shares.sum(axis=1)
    return ratio(shares.trace() - chance, 1 - chance)


Curve = namedtuple("Curve", "x y area")
"""What a threshold trades for what, from the strictest on: two arrays ``[T]`` and the area."""


def roc(positive: Array, score: Array) -> Curve:
    """Return false positive rate (x) and recall (y) of every threshold on a score, and the area (AUC).

    ``positive`` says which faces have the class, bool ``[N]``; a higher ``score`` ``[N]`` is more of it. The
    area is the probability that a face of the class scores higher than another one (Hanley and McNeil 1982):
    .5 for a score without information; NaN where the faces are of one kind only.
    """
    from sklearn import metrics  # late: it takes a second to load

    x, y, _ = metrics.roc_curve(positive, score, pos_label=True, drop_intermediate=False)
    return Curve(x, y, float(metrics.auc(x, y)))


def precision_recall(positive: Array, score: Array) -> Curve:
    """Return recall (x) and precision (y) of every threshold on a score, and the average precision.

    The area is each threshold's precision times the recall it adds (Davis and Goadrich 2006); a score without
    information gets the share of the class.
    """
    from sklearn import metrics

    precision, recall, _ = metrics.precision_recall_curve(positive, score, pos_label=True)
    x, y = recall[-2::-1], precision[-2::-1]  # the last of its points is that of no threshold
    return Curve(x, y, float(np.diff(x, prepend=0.0) @ y) if np.any(positive) else float("nan"))


def softmax(logits: Array) -> Array:
    """Return the probabilities that logits ``[..., K]`` stand for, in float64."""
    return scipy.special.softmax(np.asarray(logits, dtype=np.float64), axis=-1)


def log_loss(labels: Array, probabilities: Array) -> float:
    """Return the mean of -log p(label), in nats: 0 is perfect, log K a uniform guess; at most 36 a face."""
    labels, probabilities = _probable(labels, probabilities)
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0)).mean())


def calibration(truth: Array, probabilities: Array, num_bins: int = 15) -> Array:
    """Return faces, mean confidence and accuracy of bins of equal width, ``[num_bins, 3]``; 0 in empty ones.

    A face falls in the bin (low, high] of its largest probability. ``truth`` are labels or distributions; by
    a distribution a prediction is right to the share p of its class: with votes, of the raters who agree.
    """
    truth = np.asarray(truth)
    labels, probabilities = _probable(truth.argmax(axis=1) if truth.ndim == 2 else truth, probabilities)
    confidence, predictions = probabilities.max(axis=1), probabilities.argmax(axis=1)
    right = truth[np.arange(len(labels)), predictions] if truth.ndim == 2 else labels == predictions
    edges = np.linspace(0, 1, num_bins + 1)
    owner = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    faces, *sums = (np.bincount(owner, each, num_bins) for each in (np.ones(len(owner)), confidence, right))
    return np.stack([faces, *(_share(each, faces) for each in sums)], axis=1)


def expected_calibration_error(truth: Array, probabilities: Array, num_bins: int = 15) -> float:
    """Return the mean distance of confidence from accuracy (Guo et al. 2017, arXiv 1706.04599), in [0, 1].

    By labels the hard calibration error, by distributions the soft one: 0 for a network that knows p exactly.
    """
    faces, confidence, right = calibration(truth, probabilities, num_bins).T
    return float((faces * abs(confidence - right)).sum() / faces.sum())


def temperature(logits: Array, truth: Array) -> float:
    """Return by what, .01 to 100, to divide logits (Guo et al. 2017); above 1 they were too confident.

    It minimises the cross-entropy to labels or distributions and changes no prediction; fit it on validation.
    """
    logits, truth = np.asarray(logits, dtype=np.float64), np.asarray(truth)
    p, logits = alike(np.eye(logits.shape[1])[truth] if truth.ndim == 1 else truth, logits)

    def loss(log_t: float) -> float:
        return float(-(p * scipy.special.log_softmax(logits / np.exp(log_t), axis=1)).sum(axis=1).mean())

    bounds = np.log(0.01), np.log(100)
    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=bounds, options={"xatol": 1e-6}).x))


def _by_column(statistic: Score) -> Callable[..., Any]:
    """Make of a score of known numbers one of ``[N]`` or ``[N, D]``, NaN where nothing is known."""

    @wraps(statistic)
    def score(*arrays: Array) -> float | Array:
        *labels, x, y = (*map(np.asarray, arrays[:-2]), *alike(*arrays[-2:]))
        if any(len(each) != len(x) for each in labels):
            raise ValueError(f"{len(labels[0])} labels for {len(x)} faces")
        if x.ndim == 2:
            return np.array([score(*labels, x[:, i], y[:, i]) for i in range(x.shape[1])])
        known = ~np.isnan(x)
        if not known.any() or np.isnan(y[known]).any():  # no prediction of a known face is no score either
            return float("nan")
        return float(statistic(*(each[known] for each in (*labels, x, y))))

    return score


@_by_column
def rmse(truth: Array, predicted: Array) -> float:
    """Return the root of the mean squared error."""
    return np.sqrt(np.mean((truth - predicted) ** 2))


@_by_column
def mae(truth: Array, predicted: Array) -> float:
    """Return the mean absolute error."""
    return np.mean(np.abs(truth - predicted))


@_by_column
def r2(truth: Array, predicted: Array) -> float:
    """Return R², 1 - sum of squared errors / sum of squares about the truth's mean (n or n - 1 cancels).

    0 for predicting that mean, below 0 for worse; NaN where the truth is constant.
    """
    return 1 - ratio(((truth - predicted) ** 2).sum(), (_centred(truth) ** 2).sum())


@_by_column
def pearson(truth: Array, predicted: Array) -> float:
    """Return Pearson's correlation (n or n - 1 cancels): the CCC after the best shift and stretch."""
    x, y = _centred(truth), _centred(predicted)
    return ratio(x @ y, ((x @ x) * (y @ y)) ** 0.5)


@_by_column
def ccc(truth: Array, predicted: Array) -> float:
    """Return Lin's concordance correlation coefficient (1989): 1 is identity, 0 no relation.

    2 cov / (var + var + (difference of means)²), variances and covariance divided by n, as Lin does (not by
    n - 1): shrinking, stretching and shifting all cost. NaN where both sides are constant and equal.
    """
    x, y = truth - truth.mean(), predicted - predicted.mean()
    return ratio(2 * np.mean(x * y), truth.var() + predicted.var() + (truth.mean() - predicted.mean()) ** 2)


@_by_column
def sagr(truth: Array, predicted: Array) -> float:
    """Return the share of faces whose sign is right (SAGR; Nicolaou, Gunes and Pantic 2011).

    A truth of exactly 0 has a sign of its own. Always the same sign often scores .7 and more.
    """
    return np.mean(np.sign(truth) == np.sign(predicted))


@_by_column
def within_class_ccc(labels: Array, truth: Array, predicted: Array) -> float:
    """Return the mean over classes of the :func:`ccc` among the faces of one class: what is known beyond it.

    Each class weighs as much as it has known faces; one with fewer than two is left out. Predicting one value
    for all faces of a class scores 0.
    """
    rows = [labels == k for k in np.unique(labels)]
    found = [(ccc(truth[each], predicted[each]), each.sum()) for each in rows if each.sum() >= 2]
    known = [(score, weight) for score, weight in found if not np.isnan(score)]
    return ratio(sum(score * weight for score, weight in known), sum(weight for _, weight in known))


def _head(outputs: Array | Mapping[str, Array], name: str) -> Array:
    return outputs[name] if isinstance(outputs, Mapping) else outputs


def on_labels(statistic: Score, key: str = "labels") -> Callable:
    """Return ``metric(outputs, targets)`` of a function of labels and predictions, such as :func:`accuracy`.

    ``key`` names the target, and the head where the network has several.
    """
    return lambda outputs, targets: statistic(targets[key], _head(outputs, key).argmax(axis=1))


def on_probabilities(statistic: Score, key: str = "labels") -> Callable:
    """Return ``metric(outputs, targets)`` of a function of targets and probabilities: :func:`log_loss`."""
    return lambda outputs, targets: float(np.mean(statistic(targets[key], softmax(_head(outputs, key)))))


def on_dimension(statistic: Score, name: str) -> Callable:
    """Return ``metric(outputs, targets)`` of a function of true and predicted numbers: :func:`ccc`.

    ``name`` is "valence" or "arousal"; it is a head of its own, or a column of the head "valence_arousal".
    """
    if name not in DIMENSIONS:
        raise ValueError(f"unknown dimension {name!r}; known: valence, arousal")
    key, column = "valence_arousal", DIMENSIONS.index(name)

    def metric(outputs: Array | Mapping[str, Array], targets: Mapping[str, Array]) -> float:
        own = isinstance(outputs, Mapping) and name in outputs
        predicted = outputs[name][:, 0] if own else _head(outputs, key)[:, column]
        return statistic(targets[key][:, column], predicted)

    return metric


def _classes(labels: Array, predictions: Array) -> tuple[Array, Array]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not len(labels):
        shapes = f"{labels.shape} and {predictions.shape}; take argmax(axis=1) of logits first"
        raise ValueError(f"labels and predictions must be equally long rows of classes, not {shapes}")
    if not all(np.issubdtype(each.dtype, np.integer) and each.min() >= 0 for each in (labels, predictions)):
        raise ValueError("classes must be integers from 0 on; drop faces without a label first")
    return labels.astype(np.int64), predictions.astype(np.int64)


def _probable(labels: Array, probabilities: Array) -> tuple[Array, Array]:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not np.allclose(p.sum(axis=1), 1.0, atol=1e-4):
        raise ValueError("probabilities must be [N, K] with rows that sum to 1; take softmax of logits first")
    return _classes(labels, p.argmax(axis=1))[0], p


def _share(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _centred(x: Array) -> Array:
    return x - x.mean() if np.ptp(x) else np.zeros_like(x)  # the mean of equal numbers may be a digit off
