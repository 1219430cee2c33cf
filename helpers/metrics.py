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
from functools import cache, partial, wraps
from typing import Any

import numpy as np
import scipy

Array = np.ndarray
Score = Callable[[Array, Array], Any]
PerClass = namedtuple("PerClass", "precision recall f1 support")
"""Scores of each class, four arrays ``[K]``; 0 where there is nothing to divide by."""
Curve = namedtuple("Curve", "x y area")
"""What a threshold trades for what, from the strictest on: two arrays ``[T]`` and the area."""


@dataclass(frozen=True)
class Interval:
    """A score with its interval; as text "0.652 [0.636, 0.667]", or ``f"{score:.1%}"``."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str = "") -> str:
        value, low, high = (format(number, spec or ".3f") for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    __str__ = __format__


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
    ``groups`` are integers ``[N]``, equal for faces of one person, which are sampled together: right where
    faces are not independent, and wider; a negative one is unknown, alone. ``level``: the share inside.
    """
    arrays, num = [np.asarray(array) for array in arrays], len(arrays[0])
    owner = np.full(num, -1) if groups is None else np.asarray(groups)
    lengths = {len(each) for each in (*arrays, owner)}
    if lengths != {num} or not num or not 0 < level < 1:
        raise ValueError(f"bootstrap takes one length and a level in (0, 1), not {sorted(lengths)}, {level}")
    value, rng, found = float(statistic(*arrays)), np.random.default_rng(seed), []
    if statistic in (macro_f1, balanced_accuracy):
        statistic = partial(statistic, classes=np.unique(arrays if statistic is macro_f1 else arrays[0]))
    alone = np.where(owner < 0, -1 - np.arange(num), owner)  # another negative number for each face
    _, owner, sizes = np.unique(alone, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    for _ in range(resamples):
        chosen = rng.integers(len(sizes), size=len(sizes))
        rows = chosen if groups is None else np.concatenate([members[i] for i in chosen])
        found.append(float(statistic(*(array[rows] for array in arrays))))
    low, high = np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def mcnemar(labels: Array, predictions_a: Array, predictions_b: Array) -> float:
    """Return the exact two-sided McNemar (1947) p-value, of the faces that only one model has right."""
    right_a, right_b = (np.equal(*_classes(labels, each)) for each in (predictions_a, predictions_b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return min(1.0, 2.0 * float(scipy.special.bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def confusion(labels: Array, predictions: Array, num_classes: int | None = None) -> Array:
    """Return how many faces of each class (row) were predicted as each (column): int64 ``[K, K]``."""
    labels, predictions = _classes(labels, predictions)
    highest = max(labels.max(), predictions.max())
    if (size := num_classes or highest + 1) <= highest:
        raise ValueError(f"class {highest} does not fit num_classes={num_classes}, counted from 0")
    return np.bincount(labels * size + predictions, minlength=size * size).reshape(size, size)


def accuracy(labels: Array, predictions: Array) -> float:
    """Return the share of faces whose class was predicted."""
    return float(np.equal(*_classes(labels, predictions)).mean())


def per_class(labels: Array, predictions: Array, num_classes: int | None = None) -> PerClass:
    """Return precision, recall, F1 and support (number of faces) of each class."""
    table = confusion(labels, predictions, num_classes)
    hits, support, predicted = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(support, 1)
    return PerClass(precision, recall, 2 * hits / np.maximum(support + predicted, 1), support)


def macro_f1(labels: Array, predictions: Array, classes: Sequence[int] | None = None) -> float:
    """Return the mean F1 over ``classes``, or over all that occur among the labels or the predictions."""
    classes = np.union1d(labels, predictions) if classes is None else classes
    size = 1 + max(map(np.max, (classes, labels, predictions)))
    return float(per_class(labels, predictions, size).f1[classes].mean())


def weighted_f1(labels: Array, predictions: Array) -> float:
    """Return the mean F1 of the classes, each weighted by its number of faces."""
    found = per_class(labels, predictions)
    return float(np.average(found.f1, weights=found.support))


def balanced_accuracy(labels: Array, predictions: Array, classes: Sequence[int] | None = None) -> float:
    """Return the mean recall over ``classes``, or over all that occur among the labels ("macro recall")."""
    classes = np.unique(labels) if classes is None else classes
    size = 1 + max(map(np.max, (classes, labels, predictions)))
    return float(per_class(labels, predictions, size).recall[classes].mean())


def cohens_kappa(labels: Array, predictions: Array) -> float:
    """Return Cohen's kappa (1960), agreement above that of the class frequencies: 1 is full, 0 is chance."""
    shares = confusion(labels, predictions) / len(labels)
    chance = shares.sum(axis=0) @ shares.sum(axis=1)
    return _ratio(shares.trace() - chance, 1 - chance)


def roc(positive: Array, score: Array) -> Curve:
    """Return false positive rate (x) and recall (y) of every threshold, and the area (AUC); .5 is chance.

    It is how likely a face that is ``positive`` scores higher than one that is not (Hanley and McNeil 1982).
    """
    from sklearn import metrics  # late: it takes a second to load

    x, y, _ = metrics.roc_curve(positive, score, pos_label=True, drop_intermediate=False)
    return Curve(x, y, float(metrics.auc(x, y)))


def precision_recall(positive: Array, score: Array) -> Curve:
    """Return recall (x), precision (y), average precision (Davis and Goadrich 2006): chance is the share."""
    from sklearn import metrics

    precision, recall, _ = metrics.precision_recall_curve(positive, score, pos_label=True)
    x, y = recall[-2::-1], precision[-2::-1]  # the last of its points is that of no threshold
    return Curve(x, y, float(np.diff(x, prepend=0.0) @ y) if np.any(positive) else float("nan"))


def softmax(logits: Array) -> Array:
    """Return the probabilities that logits ``[..., K]`` stand for, in float64."""
    return scipy.special.softmax(np.asarray(logits, dtype=np.float64), axis=-1)


def log_loss(labels: Array, probabilities: Array) -> float:
    """Return the mean of -log p(label), in nats: 0 is perfect, log K a uniform guess; at most 36 a face."""
    labels, p = _probable(labels, probabilities)
    return float(-np.log(np.clip(p[np.arange(len(p)), labels], np.finfo(np.float64).eps, 1.0)).mean())


def calibration(truth: Array, probabilities: Array, num_bins: int = 15) -> Array:
    """Return faces, mean confidence and accuracy of bins of equal width, ``[num_bins, 3]``; 0 in empty ones.

    A face falls in the bin (low, high] of its largest probability. ``truth`` are labels or distributions, by
    which a prediction is right to the share p of its class: with votes, of the raters who agree.
    """
    truth = np.asarray(truth)
    labels, p = _probable(truth.argmax(axis=1) if truth.ndim == 2 else truth, probabilities)
    confidence, predictions = p.max(axis=1), p.argmax(axis=1)
    right = truth[np.arange(len(p)), predictions] if truth.ndim == 2 else labels == predictions
    owner = np.digitize(confidence.clip(max=1), np.linspace(0, 1, num_bins + 1), right=True) - 1
    faces, *sums = (np.bincount(owner, each, num_bins) for each in (np.ones(len(p)), confidence, right))
    return np.stack([faces, *(each / np.maximum(faces, 1) for each in sums)], axis=1)


def expected_calibration_error(truth: Array, probabilities: Array, num_bins: int = 15) -> float:
    """Return the mean distance of confidence from accuracy (Guo et al. 2017, arXiv 1706.04599), in [0, 1]."""
    faces, confidence, right = calibration(truth, probabilities, num_bins).T
    return float(np.average(abs(confidence - right), weights=faces))


def temperature(logits: Array, truth: Array) -> float:
    """Return by what, .01 to 100, to divide logits so that their cross-entropy is least (Guo et al. 2017)."""
    p, logits = _alike(np.eye(np.shape(logits)[1])[truth] if np.ndim(truth) == 1 else truth, logits)
    found = scipy.optimize.minimize_scalar(
        lambda log_t: -(p * scipy.special.log_softmax(logits / np.exp(log_t), axis=1)).sum(axis=1).mean(),
        bounds=np.log([0.01, 100]),
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def _by_column(statistic: Score) -> Callable[..., Any]:
    """Make of a score of known numbers one of ``[N]`` or ``[N, D]``, NaN where nothing is known."""

    @wraps(statistic)
    def score(*arrays: Array) -> float | Array:
        *labels, x, y = (*map(np.asarray, arrays[:-2]), *_alike(*arrays[-2:]))
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
    """Return R² (n or n - 1 cancels): 0 for predicting the truth's mean, NaN where the truth is constant."""
    return 1 - _ratio(((truth - predicted) ** 2).sum(), (_centred(truth) ** 2).sum())


@_by_column
def pearson(truth: Array, predicted: Array) -> float:
    """Return Pearson's correlation (n or n - 1 cancels): the CCC after the best shift and stretch."""
    x, y = _centred(truth), _centred(predicted)
    return _ratio(x @ y, ((x @ x) * (y @ y)) ** 0.5)


@_by_column
def ccc(truth: Array, predicted: Array) -> float:
    """Return Lin's concordance correlation coefficient (1989): 1 is identity, 0 no relation.

    2 cov / (var + var + (difference of means)²), variances and covariance divided by n, as Lin does (not by
    n - 1): shrinking, stretching and shifting all cost. NaN where both sides are constant and equal.
    """
    x, y, apart = _centred(truth), _centred(predicted), truth.mean() - predicted.mean()
    return _ratio(2 * np.mean(x * y), np.mean(x**2) + np.mean(y**2) + apart**2)


@_by_column
def sagr(truth: Array, predicted: Array) -> float:
    """Return the share of faces whose sign is right, 0 a sign of its own (Nicolaou, Gunes, Pantic 2011)."""
    return np.mean(np.sign(truth) == np.sign(predicted))


@_by_column
def within_class_ccc(labels: Array, truth: Array, predicted: Array) -> float:
    """Return the mean :func:`ccc` within the classes, by known faces: 0 for one value a class."""
    parts = [(truth[labels == k], predicted[labels == k]) for k in np.unique(labels)]
    found = [(ccc(*pair), len(pair[0])) for pair in parts if len(pair[0]) > 1]
    scores, weights = np.array(found).reshape(-1, 2).T
    known = ~np.isnan(scores)
    return _ratio(scores[known] @ weights[known], weights[known].sum())


def entropy(distribution: Array) -> Array:
    """Return the entropy of each distribution, in nats: 0 is certain, log K is uniform."""
    return scipy.special.entr(np.asarray(distribution, dtype=np.float64)).sum(axis=-1)


def kl_divergence(truth: Array, predicted: Array) -> Array:
    """Return the Kullback-Leibler divergence sum p log(p / q), in nats; infinite where only q is 0."""
    return scipy.special.rel_entr(*_alike(truth, predicted)).sum(axis=-1)


def emd(truth: Array, predicted: Array, distances: Array) -> Array:
    """Return the exact earth mover's distance (Wasserstein-1), the least cost of moving q to where p is.

    By Kantorovich and Rubinstein it is the largest sum f (p - q) over functions f of the classes that differ
    by no more than ``distances`` ``[K, K]``, a metric such as ``emotions.distances``.
    """
    p, q = _alike(truth, predicted)
    cost, size = np.asarray(distances, dtype=np.float64), p.shape[-1]
    shortest = scipy.sparse.csgraph.shortest_path(cost) if cost.shape == (size, size) else np.nan
    if not np.allclose(cost, cost.T) or not np.allclose(cost, shortest):
        raise ValueError(f"distances must be {size} x {size}, symmetric, 0 on the diagonal, without a detour")
    if 2 < size <= 8:  # (2K - 2)! / (K - 1)!² corners: 3,432 for eight classes, 2.7 million for thirteen
        corners, parts = _corners(cost.tobytes(), size).T, np.array_split(p - q, 1 + len(p) // 1024)
        return np.concatenate([(part @ corners).max(axis=1) for part in parts])
    sums = np.concatenate([np.kron(np.eye(size), np.ones(size)), np.kron(np.ones(size), np.eye(size))])
    both = np.concatenate([p, q * p.sum(axis=1, keepdims=True) / q.sum(axis=1, keepdims=True)], axis=1)
    plans = (scipy.optimize.linprog(cost.ravel(), A_eq=sums[:-1], b_eq=each[:-1]) for each in both)
    return np.array([plan.fun for plan in plans])  # the last sum follows from the others, but for a digit


@cache
def _corners(distances: bytes, size: int) -> Array:
    """Return the corners ``[V, K]`` of the set of functions with f_i - f_j <= d_ij and f = 0 at the last."""
    cost = np.frombuffer(distances).reshape(size, size)
    i, j = np.nonzero(~np.eye(size, dtype=bool))
    halves = np.column_stack([(np.eye(size)[i] - np.eye(size)[j])[:, :-1], -cost[i, j]])
    found = scipy.spatial.HalfspaceIntersection(halves, np.zeros(size - 1), qhull_options="QJ Pp")
    corners = found.intersections[np.isfinite(found.intersections).all(axis=1)]
    return np.pad(corners, ((0, 0), (0, 1)))


def distribution_scores(distances: Array) -> dict[str, Score]:
    """Return every score of a distribution by name: functions of truth and prediction ``[N, K]`` to ``[N]``.

    KL and JS are in nats, EMD in the unit of ``distances`` ``[K, K]``, MSE is the mean over classes, TV the
    total variation. Of cosine and intersection (1 - TV) more is better, of the others less.
    """
    formulas: dict[str, Score] = {
        "KL": kl_divergence,
        "JS": lambda p, q: (kl_divergence(p, (p + q) / 2) + kl_divergence(q, (p + q) / 2)) / 2,
        "EMD": partial(emd, distances=distances),
        "MSE": lambda p, q: ((p - q) ** 2).mean(axis=-1),
        "L1": lambda p, q: abs(p - q).sum(axis=-1),
        "TV": lambda p, q: abs(p - q).sum(axis=-1) / 2,
        "Chebyshev": lambda p, q: abs(p - q).max(axis=-1),
        "Clark": lambda p, q: np.linalg.norm((p - q) / np.maximum(p + q, 1e-300), axis=-1),
        "Canberra": lambda p, q: (abs(p - q) / np.maximum(p + q, 1e-300)).sum(axis=-1),
        "cosine": lambda p, q: (p * q).sum(-1) / (np.linalg.norm(p, axis=-1) * np.linalg.norm(q, axis=-1)),
        "intersection": lambda p, q: np.minimum(p, q).sum(axis=-1),
    }
    return {name: lambda p, q, each=each: each(*_alike(p, q)) for name, each in formulas.items()}


def fleiss_kappa(votes: Array) -> float:
    """Return Fleiss' kappa (1971): the raters' agreement, 0 for that of chance; single votes do not count."""
    votes = _votes(votes)
    raters = votes.sum(axis=1)
    agreement = (((votes**2).sum(axis=1) - raters) / (raters * (raters - 1))).mean()
    chance = ((votes.sum(axis=0) / votes.sum()) ** 2).sum()
    return _ratio(agreement - chance, 1 - chance)


def krippendorff_alpha(votes: Array) -> float:
    """Return Krippendorff's alpha (2011) of nominal votes: chance draws without replacement (n - 1)."""
    votes = _votes(votes)
    raters, total, of_class = votes.sum(axis=1), votes.sum(), votes.sum(axis=0)
    same = ((votes * (votes - 1)).sum(axis=1) / (raters - 1)).sum()
    return 1 - _ratio(total - same, total - (of_class * (of_class - 1)).sum() / (total - 1))


def rater_accuracy(votes: Array, strict: bool = False) -> float:
    """Return how often one rater names the class that most other raters of the face name: a human ceiling.

    Every rater is held out once; several leading classes count in part; ``strict`` asks for a majority.
    """
    votes = _votes(votes)
    others = votes[:, None] - np.eye(votes.shape[1], dtype=int)  # [N, held out, K]
    leads = others == others.max(axis=2, keepdims=True)
    majority = 2 * others.max(axis=2) > others.sum(axis=2)
    weight = votes / votes.sum(axis=1, keepdims=True) * (majority | (not strict))
    return _ratio((np.einsum("nkk->nk", leads) / leads.sum(axis=2) * weight).sum(), weight.sum())


def split_half(votes: Array, seed: int = 0) -> tuple[Array, Array]:
    """Return the shares ``[N, K]`` of a random half of each face's raters, and of the other half of them."""
    votes = np.asarray(votes)
    if len(_votes(votes)) < len(votes):
        raise ValueError("a face has fewer than two votes; leave it out first")
    rng, halves = np.random.default_rng(seed), np.zeros((2, *votes.shape), dtype=np.int64)
    for row, counts in enumerate(votes.astype(np.int64)):
        halves[0, row] = rng.multivariate_hypergeometric(counts, counts.sum() // 2)
        halves[1, row] = rng.multivariate_hypergeometric(counts - halves[0, row], counts.sum() // 2)
    return tuple(halves / halves.sum(axis=2, keepdims=True))


def smoothed(shares: Array, prior: Array, num_votes: float) -> Array:
    """Return shares ``[N, K]`` of a few votes mixed with a prior ``[K]`` that counts as one vote more."""
    return (num_votes * np.asarray(shares) + np.asarray(prior)) / (num_votes + 1)


def tally(*answers: Array, num_classes: int | None = None) -> Array:
    """Return how many raters chose each class, int64 ``[N, K]``, of one ``[N]`` a rater; negative is none."""
    rows = np.stack(answers)
    size = int(rows.max()) + 1 if num_classes is None else num_classes
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or rows.max() >= size:
        raise ValueError(f"answers must be rows of classes from 0 to {size - 1}, not {rows.dtype}")
    return (rows[:, :, None] == np.arange(size)).sum(axis=0)


def on_labels(statistic: Score, key: str = "labels") -> Callable:
    """Return ``metric(outputs, targets)`` of a score of labels; ``key`` names the target and the head."""
    return lambda outputs, targets: statistic(targets[key], _head(outputs, key).argmax(axis=1))


def on_probabilities(statistic: Score, key: str = "labels") -> Callable:
    """Return ``metric(outputs, targets)`` of a score of targets and probabilities, such as a log loss."""
    return lambda outputs, targets: float(np.mean(statistic(targets[key], softmax(_head(outputs, key)))))


def on_dimension(statistic: Score, name: str) -> Callable:
    """Return the same of a score of numbers; the head is "valence", "arousal" or "valence_arousal"."""
    column = ("valence", "arousal").index(name)

    def metric(outputs: Array | Mapping[str, Array], targets: Mapping[str, Array]) -> float:
        own = isinstance(outputs, Mapping) and name in outputs
        predicted = outputs[name][:, 0] if own else _head(outputs, "valence_arousal")[:, column]
        return statistic(targets["valence_arousal"][:, column], predicted)

    return metric


def _head(outputs: Array | Mapping[str, Array], name: str) -> Array:
    return outputs[name] if isinstance(outputs, Mapping) else outputs


def _classes(labels: Array, predictions: Array) -> tuple[Array, Array]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not len(labels):
        shapes = f"{labels.shape}, {predictions.shape}; take argmax(axis=1) of logits first"
        raise ValueError(f"labels and predictions must be equally long rows of classes, not {shapes}")
    if any(each.dtype.kind not in "iu" or each.min() < 0 for each in (labels, predictions)):
        raise ValueError("classes must be integers from 0 on; drop faces without a label first")
    return labels.astype(np.int64), predictions.astype(np.int64)


def _probable(labels: Array, probabilities: Array) -> tuple[Array, Array]:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not np.allclose(p.sum(axis=1), 1.0, atol=1e-4):
        raise ValueError("probabilities must be [N, K] with rows that sum to 1; take softmax of logits first")
    return _classes(labels, p.argmax(axis=1))[0], p


def _votes(votes: Array) -> Array:
    votes = np.asarray(votes)
    if votes.ndim != 2 or (votes < 0).any() or (votes != np.round(votes)).any():
        raise ValueError(f"votes must be counts [faces, classes], not {votes.dtype} of shape {votes.shape}")
    votes = votes[votes.sum(axis=1) >= 2].astype(np.int64)  # one vote agrees with nobody
    if not len(votes):
        raise ValueError("no face has two votes; agreement needs at least two raters of the same face")
    return votes


def _alike(truth: Array, predicted: Array) -> tuple[Array, Array]:
    x, y = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"truth {x.shape} and prediction {y.shape} must have the same shape")
    return x, y


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _centred(x: Array) -> Array:
    return x - x.mean() if np.ptp(x) else np.zeros_like(x)  # the mean of equal numbers may be a digit off
