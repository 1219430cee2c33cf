"""Scores of predictions, each a pure function of arrays, and how sure one can be of them.

The truth comes first, the prediction second. N faces, K classes; a class is an integer from 0 to K - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr
from scipy.stats import binom

_CHUNK = 4_000_000  # drawn rows held at once by the bootstrap: 32 MB


@dataclass(frozen=True)
class Interval:
    """A score and the interval in which it would fall on other faces of the same kind.

    ``str`` gives ``"0.652 [0.636, 0.667]"``; a format applies to each number: ``f"{score:.1%}"``.

    Args:
        value: the score on the faces at hand.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        value, low, high = (format(number, spec or ".3f") for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


class PerClass(NamedTuple):
    """Scores of each class, four arrays ``[K]``.

    Args:
        precision: of the faces given this class, the share that has it; 0 where none was given it.
        recall: of the faces of this class, the share that was found; 0 where there is none.
        f1: harmonic mean of the two; 0 where both are 0.
        support: how many faces have this class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


# ---------------------------------------------------------------- classes


def confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Return how many faces of each class (row) were given each class (column).

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.
        num_classes: K; None: one more than the largest class that occurs.

    Returns:
        int64 ``[K, K]``.

    Raises:
        ValueError: not two equally long, non-empty rows of classes from 0 to K - 1.
    """
    labels, predictions = _classes(labels, predictions)
    largest = max(labels.max(), predictions.max())
    size = int(largest) + 1 if num_classes is None else num_classes
    if largest >= size:
        raise ValueError(f"class {largest} does not fit num_classes={size}; classes are counted from 0")
    return np.bincount(labels * size + predictions, minlength=size * size).reshape(size, size)


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the share of faces whose class was found.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.

    Raises:
        ValueError: as :func:`confusion`.
    """
    labels, predictions = _classes(labels, predictions)
    return float((labels == predictions).mean())


def per_class(labels: np.ndarray, predictions: np.ndarray, num_classes: int | None = None) -> PerClass:
    """Return precision, recall, F1 and support of each class.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.
        num_classes: K; None: one more than the largest class that occurs.

    Raises:
        ValueError: as :func:`confusion`.
    """
    table = confusion(labels, predictions, num_classes)
    hits, support, given = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    return PerClass(_share(hits, given), _share(hits, support), _share(2 * hits, support + given), support)


def macro_f1(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[int] | None = None) -> float:
    """Return the mean F1 of several classes, each counted alike.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.
        classes: those that are averaged; one that occurs nowhere counts as 0. None: all that occur among the
            labels or the predictions.

    Raises:
        ValueError: as :func:`confusion`.
    """
    if classes is None:
        classes = np.union1d(labels, predictions)
    return float(per_class(labels, predictions, _room_for(classes, labels, predictions)).f1[classes].mean())


def balanced_accuracy(
    labels: np.ndarray, predictions: np.ndarray, classes: Sequence[int] | None = None
) -> float:
    """Return the mean recall of several classes ("macro recall"), each counted alike.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.
        classes: those that are averaged; one without a label counts as 0. None: all that occur among the
            labels.

    Raises:
        ValueError: as :func:`confusion`.
    """
    if classes is None:
        classes = np.unique(labels)
    room = _room_for(classes, labels, predictions)
    return float(per_class(labels, predictions, room).recall[classes].mean())


def cohens_kappa(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return Cohen's kappa (1960): agreement above what the two class frequencies alone would give.

    1 is full agreement, 0 is what chance gives; NaN where both know only one class, the same.

    Args:
        labels: integers ``[N]``.
        predictions: integers ``[N]``.

    Raises:
        ValueError: as :func:`confusion`.
    """
    table = confusion(labels, predictions)
    shares = table / table.sum()
    by_chance = float(shares.sum(axis=0) @ shares.sum(axis=1))
    return (float(shares.trace()) - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


# ---------------------------------------------------------------- probabilities


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
    labels, probabilities = _probable(labels, probabilities)
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0)).mean())


def calibration(labels: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> np.ndarray:
    """Return what a reliability diagram shows: confidence beside accuracy, in bins of equal width.

    A face falls in the bin (low, high] of its largest probability.

    Args:
        labels: integers ``[N]``.
        probabilities: ``[N, K]``, each row sums to 1.
        num_bins: number of bins from 0 to 1.

    Returns:
        float64 ``[num_bins, 3]``: faces, mean confidence, accuracy; 0 in empty bins.

    Raises:
        ValueError: shapes that do not fit.
    """
    labels, probabilities = _probable(labels, probabilities)
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    owner = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    faces, confident, hits = (
        np.bincount(owner, weights, num_bins) for weights in (np.ones(len(labels)), confidence, hit)
    )
    return np.stack([faces, _share(confident, faces), _share(hits, faces)], axis=1)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> float:
    """Return the mean distance of confidence from accuracy (Naeini et al. 2015; Guo et al. 2017), in [0, 1].

    Args:
        labels: integers ``[N]``.
        probabilities: ``[N, K]``, each row sums to 1.
        num_bins: number of bins of equal width; the value depends on it.

    Raises:
        ValueError: shapes that do not fit.
    """
    faces, confident, hits = calibration(labels, probabilities, num_bins).T
    return float((faces * abs(confident - hits)).sum() / faces.sum())


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
    return rel_entr(*_same_shape(truth, predicted)).sum(axis=-1)


# ---------------------------------------------------------------- thresholds


class Curve(NamedTuple):
    """What a threshold trades for what, from the strictest to the most generous, one entry a threshold.

    Args:
        x: rate of false alarms (ROC) or recall (precision and recall).
        y: recall (ROC) or precision.
        area: under the curve, from 0 to 1.
    """

    x: np.ndarray
    y: np.ndarray
    area: float


def roc(positive: np.ndarray, score: np.ndarray) -> Curve:
    """Return the rate of false alarms and the recall of every threshold on a score, from (0, 0) to (1, 1).

    The area is the chance that a face of the class scores higher than one of another class, equal scores
    counted half (Hanley and McNeil 1982): 0.5 for any score that knows nothing, however rare the class.

    Args:
        positive: bool ``[N]``, which faces have the class.
        score: ``[N]``, higher is more of it; NaN nowhere.

    Returns:
        the curve, of NaN where either side has no face.

    Raises:
        ValueError: not two equally long, non-empty rows, or a score that is NaN.
    """
    hits, alarms = _above_each_threshold(positive, score)
    x, y = (_out_of(np.append(0, counts)) for counts in (alarms, hits))
    return Curve(x, y, float(np.diff(x) @ (y[1:] + y[:-1]) / 2))


def precision_recall(positive: np.ndarray, score: np.ndarray) -> Curve:
    """Return recall and precision of every threshold on a score, from the strictest on.

    The area is the average precision: each threshold's precision times the recall it adds. Straight lines
    between the points, as in ROC, would promise what no threshold keeps (Davis and Goadrich 2006). A score
    that knows nothing gets the class's share of the faces.

    Args:
        positive: bool ``[N]``, which faces have the class.
        score: ``[N]``, higher is more of it; NaN nowhere.

    Returns:
        the curve; recall and area are NaN where no face has the class.

    Raises:
        ValueError: as :func:`roc`.
    """
    hits, alarms = _above_each_threshold(positive, score)
    precision, recall = hits / (hits + alarms), _out_of(hits)
    return Curve(recall, precision, float(np.diff(recall, prepend=0.0) @ precision))


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return for each class, against all others, the area under its ROC curve; see :func:`roc`.

    Args:
        labels: integers ``[N]``.
        probabilities: ``[N, K]``, each row sums to 1.

    Returns:
        float64 ``[K]``; NaN for a class that no face has, or every one.

    Raises:
        ValueError: shapes that do not fit.
    """
    return _of_each_class(roc, labels, probabilities)


def average_precision(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return for each class, against all others, its average precision; see :func:`precision_recall`.

    Args:
        labels: integers ``[N]``.
        probabilities: ``[N, K]``, each row sums to 1.

    Returns:
        float64 ``[K]``; NaN for a class that no face has.

    Raises:
        ValueError: shapes that do not fit.
    """
    return _of_each_class(precision_recall, labels, probabilities)


def _above_each_threshold(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many faces of the class, and how many others, reach each distinct score, highest first."""
    positive, score = np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)
    if score.ndim != 1 or positive.shape != score.shape or not len(score) or np.isnan(score).any():
        raise ValueError(f"need one score for each face and none of them NaN, not {score.shape} scores")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # of faces that score alike
    hits = np.cumsum(positive[order])[last]
    return hits, np.flatnonzero(last) + 1 - hits


def _out_of(counts: np.ndarray) -> np.ndarray:
    return counts / counts[-1] if counts[-1] else np.full(len(counts), np.nan)


def _of_each_class(
    curve: Callable[[np.ndarray, np.ndarray], Curve], labels: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    labels, probabilities = _probable(labels, probabilities)
    return np.array([curve(labels == k, probabilities[:, k]).area for k in range(probabilities.shape[1])])


# ---------------------------------------------------------------- valence and arousal


def rmse(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the root of the mean squared error of each column.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN where nothing is known, or a prediction of something known is NaN.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(lambda x, y: float(np.sqrt(np.mean((x - y) ** 2))), truth, predicted)


def ccc(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return Lin's concordance correlation coefficient (1989) of each column.

    2 cov / (var + var + (difference of means)^2), variances and covariance divided by n, as Lin does (not by
    n - 1). 1 is identity, 0 no relation; shrinking, stretching and shifting are all punished.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN where nothing is known, where a prediction of something known is NaN, and
        where both are constant and equal.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(_ccc, truth, predicted)


def mae(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the mean absolute error of each column.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN as in :func:`rmse`.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(lambda x, y: float(np.mean(np.abs(x - y))), truth, predicted)


def r2(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the share of the variance that is explained (R squared) of each column.

    1 - sum of squared errors / sum of squared distances of the truth from its own mean on these faces: 0 for
    predicting that mean, below 0 for anything worse. Both sums are over the same faces, so it does not matter
    whether they are divided by n or by n - 1.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN as in :func:`rmse`, and where the truth is constant.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(lambda x, y: _ratio(_spread(x) - ((x - y) ** 2).sum(), _spread(x)), truth, predicted)


def pearson(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return Pearson's correlation of each column: what CCC would be after the best shift and stretch.

    The degrees of freedom cancel: n or n - 1 gives the same.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN as in :func:`rmse`, and where either side is constant.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(_pearson, truth, predicted)


def sagr(truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the share of faces whose sign is right (SAGR; Nicolaou, Gunes and Pantic 2011) of each column.

    A truth of exactly 0 has the sign 0, which only a prediction of exactly 0 shares. The score of one sign
    for all is that sign's share of the faces, often 0.7 and more.

    Args:
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN as in :func:`rmse`.

    Raises:
        ValueError: shapes that differ.
    """
    return _columns(_sagr, truth, predicted)


def within_class_ccc(labels: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> float | np.ndarray:
    """Return the mean over classes of the CCC among the faces of one class: what is known beyond the class.

    Each class weighs as much as it has known faces; one with fewer than two, or whose CCC is undefined, is
    left out. Whoever gives all faces of a class the same value scores 0, the classes' true means included.
    Variances are divided by n, as in :func:`ccc`.

    Args:
        labels: integers ``[N]``.
        truth: ``[N]`` or ``[N, D]``; faces whose truth is NaN (unknown) are left out.
        predicted: the same shape.

    Returns:
        a number, or ``[D]``; NaN where no class counts, or a prediction of something known is NaN.

    Raises:
        ValueError: shapes that differ.
    """
    x, y = _same_shape(truth, predicted)
    labels, _ = _classes(labels, labels)
    if len(labels) != len(x):
        raise ValueError(f"{len(labels)} labels for {len(x)} faces")
    if x.ndim == 2:
        return np.array([within_class_ccc(labels, x[:, i], y[:, i]) for i in range(x.shape[1])])
    known = ~np.isnan(x)
    if np.isnan(y[known]).any():
        return float("nan")
    rows = [known & (labels == k) for k in np.unique(labels)]
    scored = np.array([(ccc(x[r], y[r]), r.sum()) for r in rows if r.sum() >= 2]).reshape(-1, 2)
    score, weight = scored[~np.isnan(scored[:, 0])].T
    return _ratio(score @ weight, weight.sum())


def _spread(x: np.ndarray) -> float:
    # the mean of equal numbers may differ from them in the last digit
    return float(((x - x.mean()) ** 2).sum()) if np.ptp(x) != 0 else 0.0


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    together = float(((x - x.mean()) * (y - y.mean())).sum())
    return _ratio(together, (_spread(x) * _spread(y)) ** 0.5)


def _sagr(x: np.ndarray, y: np.ndarray) -> float:
    return float("nan") if np.isnan(y).any() else float(np.mean(np.sign(x) == np.sign(y)))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole != 0 else float("nan")


def _ccc(x: np.ndarray, y: np.ndarray) -> float:
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * covariance / spread) if spread != 0 else float("nan")


def _columns(
    statistic: Callable[[np.ndarray, np.ndarray], float], truth: np.ndarray, predicted: np.ndarray
) -> float | np.ndarray:
    x, y = _same_shape(truth, predicted)
    if x.ndim == 2:
        return np.array([_columns(statistic, x[:, i], y[:, i]) for i in range(x.shape[1])])
    known = ~np.isnan(x)
    return statistic(x[known], y[known]) if known.any() else float("nan")


# ---------------------------------------------------------------- raters


def pairwise_agreement(votes: np.ndarray) -> float:
    """Return the chance that two raters of the same face chose the same class, mean over faces.

    Args:
        votes: counts ``[N, K]``, how many raters chose each class; faces with one vote or none are left out.

    Raises:
        ValueError: not a table of counts, or no face has two votes.
    """
    return float(_face_agreement(_votes(votes)).mean())


def fleiss_kappa(votes: np.ndarray) -> float:
    """Return Fleiss' kappa (1971): the raters' agreement above what the class frequencies alone would give.

    The number of raters may differ from face to face; a class's frequency is its share of all votes.

    Args:
        votes: counts ``[N, K]``; faces with one vote or none are left out.

    Returns:
        1 for full agreement, 0 for chance, NaN where only one class was ever chosen.

    Raises:
        ValueError: not a table of counts, or no face has two votes.
    """
    votes = _votes(votes)
    by_chance = float(((votes.sum(axis=0) / votes.sum()) ** 2).sum())
    observed = float(_face_agreement(votes).mean())
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


def krippendorff_alpha(votes: np.ndarray) -> float:
    """Return Krippendorff's alpha for named categories: 1 - observed / expected disagreement.

    Any number of raters, not the same for each face (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability"). The expected disagreement is that of two of the n votes drawn *without* replacement:
    n - 1 stands where :func:`fleiss_kappa` and :func:`cohens_kappa` have n, and alpha is a little higher.

    Args:
        votes: counts ``[N, K]`` (:func:`tally` makes them from answers); faces with one vote or none are
            left out.

    Returns:
        1 for full agreement, 0 for chance, NaN where only one class was ever chosen.

    Raises:
        ValueError: not a table of counts, or no face has two votes.
    """
    votes = _votes(votes)
    raters, total = votes.sum(axis=1), votes.sum()
    alike = ((votes * (votes - 1)).sum(axis=1) / (raters - 1)).sum()
    alike_by_chance = (votes.sum(axis=0) * (votes.sum(axis=0) - 1)).sum() / (total - 1)
    return 1 - (total - alike) / (total - alike_by_chance) if alike_by_chance < total else float("nan")


def tally(*answers: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Return how many of several raters, or models, chose each class for each face.

    Args:
        answers: integers ``[N]``, one array a rater; negative where the rater gave no answer.
        num_classes: K; None: one more than the largest class that occurs.

    Returns:
        int64 ``[N, K]``.

    Raises:
        ValueError: rows that differ in length, or a class that does not fit.
    """
    given = np.stack([np.asarray(each) for each in answers])
    size = int(given.max()) + 1 if num_classes is None else num_classes
    if given.ndim != 2 or not np.issubdtype(given.dtype, np.integer) or given.max() >= size:
        raise ValueError(
            f"answers must be rows of classes from 0 to {size - 1}, not {given.dtype} {given.shape}"
        )
    return (given[:, :, None] == np.arange(size)).sum(axis=0)


def rater_accuracy(votes: np.ndarray, strict: bool = False) -> float:
    """Return how often one rater names the class that most of the face's other raters name: a human ceiling.

    Every rater of every face is held out once. Where several classes lead among the others, naming one of
    them counts as one divided by their number: what drawing lots would give.

    Args:
        votes: counts ``[N, K]``; faces with one vote or none are left out.
        strict: count a held-out rater only where more than half of the others agree.

    Returns:
        a share; NaN where no rater counts.

    Raises:
        ValueError: not a table of counts, or no face has two votes.
    """
    votes = _votes(votes)
    score = weight = 0.0
    for chosen in range(votes.shape[1]):
        rows = votes[votes[:, chosen] > 0]
        others = rows - (np.arange(votes.shape[1]) == chosen)
        best = others.max(axis=1)
        won = (others[:, chosen] == best) / (others == best[:, None]).sum(axis=1)
        counted = rows[:, chosen] / rows.sum(axis=1) * ((2 * best > others.sum(axis=1)) | (not strict))
        score, weight = score + (won * counted).sum(), weight + counted.sum()
    return float(score / weight) if weight else float("nan")


def _face_agreement(votes: np.ndarray) -> np.ndarray:
    raters = votes.sum(axis=1)
    return ((votes**2).sum(axis=1) - raters) / (raters * (raters - 1))


def _votes(votes: np.ndarray) -> np.ndarray:
    votes = np.asarray(votes)
    if votes.ndim != 2 or (votes < 0).any() or (votes != np.round(votes)).any():
        raise ValueError(f"votes must be counts [faces, classes], not {votes.dtype} of shape {votes.shape}")
    votes = votes[votes.sum(axis=1) >= 2].astype(np.int64)
    if not len(votes):
        raise ValueError("no face has two votes; agreement needs at least two raters of the same face")
    return votes


# ---------------------------------------------------------------- how sure


def bootstrap(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> Interval:
    """Return a statistic with its percentile bootstrap interval (Efron 1979).

    Faces are drawn again with replacement, as many as there are, and the statistic is computed on each draw;
    the interval leaves out the same share at both ends. A draw on which the statistic is NaN is left out.
    ``np.mean`` and :func:`accuracy` are computed on all draws at once; :func:`macro_f1` and
    :func:`balanced_accuracy` average over the same classes on each, so that a draw which misses a rare class
    is not the better for it.

    Args:
        statistic: a function of the arrays that gives one number.
        arrays: each ``[N, ...]``; one draw takes the same rows of all.
        resamples: number of draws.
        seed: of the draws; the same seed gives the same draws for any statistic.
        level: share of the draws inside the interval.
        groups: integers ``[N]``, equal for faces that belong together (the same person): whole groups are
            drawn, which is right where faces are not independent, and wider. A face whose group is negative
            (unknown) stands on its own; None: all do.

    Raises:
        ValueError: no array, arrays of different length, none or a single row, or a level outside (0, 1).
    """
    arrays = tuple(np.asarray(array) for array in arrays)
    _check_bootstrap(arrays, resamples, level, groups)
    value = float(statistic(*arrays))
    if statistic is accuracy:
        statistic, arrays = np.mean, (arrays[0] == arrays[1],)
    elif statistic is macro_f1:
        statistic = partial(macro_f1, classes=np.union1d(*arrays))
    elif statistic is balanced_accuracy:
        statistic = partial(balanced_accuracy, classes=np.unique(arrays[0]))
    if groups is None:
        drawn = _draws(len(arrays[0]), resamples, seed)
    else:
        drawn = _group_draws(groups, resamples, seed)
    tail = (1 - level) / 2
    low, high = np.nanquantile(_statistics(statistic, arrays, drawn), [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _statistics(
    statistic: Callable[..., float], arrays: tuple[np.ndarray, ...], drawn: Iterator[np.ndarray]
) -> np.ndarray:
    if statistic is np.mean and arrays[0].ndim == 1:
        values = arrays[0].astype(np.float64)
        return np.concatenate([values[rows].mean(axis=-1, keepdims=rows.ndim == 1) for rows in drawn])
    each = (row for rows in drawn for row in np.atleast_2d(rows))
    return np.array([statistic(*(array[row] for array in arrays)) for row in each], dtype=np.float64)


def _draws(num_rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // num_rows)
    for first in range(0, resamples, step):
        yield rng.integers(num_rows, size=(min(step, resamples - first), num_rows))


def _group_draws(groups: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = np.asarray(groups)
    alone = -1 - np.arange(len(groups))  # another negative number for each face
    _, owner, sizes = np.unique(np.where(groups < 0, alone, groups), return_inverse=True, return_counts=True)
    members = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    for _ in range(resamples):
        yield np.concatenate([members[i] for i in rng.integers(len(sizes), size=len(sizes))])


def mcnemar(labels: np.ndarray, predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Return the exact McNemar (1947) p-value: how likely two equally good models differ this much.

    Only faces that one model has right and the other wrong count; if neither is better, each of those is a
    coin toss. Two-sided, from the binomial distribution.

    Args:
        labels: integers ``[N]``.
        predictions_a: integers ``[N]``, of one model.
        predictions_b: integers ``[N]``, of the other, on the same faces.

    Raises:
        ValueError: as :func:`confusion`.
    """
    labels, predictions_a = _classes(labels, predictions_a)
    right_a, right_b = labels == predictions_a, labels == _classes(labels, predictions_b)[1]
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return min(1.0, 2.0 * float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


# ---------------------------------------------------------------- for the training loop


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
    column = _dimension(name)

    def metric(outputs: np.ndarray | Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]) -> float:
        own = isinstance(outputs, Mapping) and name in outputs
        both = outputs[key] if isinstance(outputs, Mapping) and not own else outputs
        return statistic(targets[key][:, column], outputs[name][:, 0] if own else both[:, column])

    return metric


# ---------------------------------------------------------------- what comes in


def _dimension(name: str) -> int:
    if name not in ("valence", "arousal"):
        raise ValueError(f"unknown dimension {name!r}; known: valence, arousal")
    return ("valence", "arousal").index(name)


def _room_for(*classes: Sequence[int]) -> int | None:
    largest = [np.max(each) for each in classes if len(each)]
    return int(max(largest)) + 1 if largest else None


def _classes(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not len(labels):
        raise ValueError(
            f"labels and predictions must be equally long rows of classes, not {labels.shape} and "
            f"{predictions.shape}; take argmax(axis=1) of logits first"
        )
    if not all(np.issubdtype(each.dtype, np.integer) and each.min() >= 0 for each in (labels, predictions)):
        raise ValueError("classes must be integers from 0 on; drop faces without a label first")
    return labels.astype(np.int64), predictions.astype(np.int64)


def _probable(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-4):
        raise ValueError("probabilities must be [N, K] with rows that sum to 1; take softmax of logits first")
    labels, _ = _classes(labels, probabilities.argmax(axis=1))
    return labels, probabilities


def _same_shape(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} must have the same shape")
    return truth, predicted


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _check_bootstrap(
    arrays: tuple[np.ndarray, ...], resamples: int, level: float, groups: np.ndarray | None
) -> None:
    lengths = {len(each) for each in (*arrays, *([] if groups is None else [groups]))}
    if len(lengths) != 1 or min(lengths) < 1:
        raise ValueError(f"bootstrap needs arrays of one length, 1 or more, not {sorted(lengths)}")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples must be 1 or more and level in (0, 1), not {resamples} and {level}")
