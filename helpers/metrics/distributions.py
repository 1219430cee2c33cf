"""Scores of label distributions against each other, face by face, and of raters against each other.

Distributions p (true) and q are ``[N, K]``, and their score ``[N]``; votes are counts ``[N, K]``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import scipy

Array = np.ndarray
Score = Callable[[Array, Array], Any]


def entropy(distribution: Array) -> Array:
    """Return the entropy of each distribution, in nats: 0 is certain, log K is uniform."""
    return scipy.special.entr(np.asarray(distribution, dtype=np.float64)).sum(axis=-1)


def kl_divergence(truth: Array, predicted: Array) -> Array:
    """Return the Kullback-Leibler divergence sum p log(p / q), in nats; infinite where only q is 0."""
    return scipy.special.rel_entr(*alike(truth, predicted)).sum(axis=-1)


def emd(truth: Array, predicted: Array, distances: Array) -> Array:
    """Return the exact earth mover's distance (Wasserstein-1), the least cost of moving q to where p is.

    By Kantorovich and Rubinstein it is the largest sum f (p - q) over functions f of the classes that differ
    by no more than ``distances`` ``[K, K]``, a metric such as ``emotions.distances``. It is at a corner of
    their set: up to eight classes all corners are listed, for more a linear program is solved.
    """
    p, q = alike(truth, predicted)
    cost, size = np.asarray(distances, dtype=np.float64), p.shape[-1]
    detour = (cost[:, :, None] + cost[None]).min(axis=1) if cost.shape == (size, size) else -1
    positive = (cost + np.eye(len(cost)) > 0).all() and not cost.diagonal().any()
    if not (cost <= detour + 1e-8).all() or not np.allclose(cost, cost.T) or not positive:
        what = f"{size} x {size}, symmetric, 0 on the diagonal only, and no detour shorter"
        raise ValueError(f"distances must be {what}")
    if size > 8:  # there are (2K - 2)! / (K - 1)!² corners: 3,432 for eight classes, 2.7 million for thirteen
        parts = [_cheapest_plans(p[i : i + 64], q[i : i + 64], cost) for i in range(0, len(p), 64)]
    else:
        corners = _corners(cost.tobytes(), size).T
        parts = [((p - q)[i : i + 1024] @ corners).max(axis=1) for i in range(0, len(p), 1024)]
    return np.concatenate(parts)


@cache
def _corners(distances: bytes, size: int) -> Array:
    """Return the corners ``[V, K]`` of the set of functions with f_i - f_j <= d_ij and f = 0 at the last."""
    cost = np.frombuffer(distances).reshape(size, size)
    if size < 3:  # too flat for Qhull
        return np.array([[1.0, 0.0], [-1.0, 0.0]])[:, :size] * cost[0, -1]
    i, j = np.nonzero(~np.eye(size, dtype=bool))
    halves = np.column_stack([(np.eye(size)[i] - np.eye(size)[j])[:, :-1], -cost[i, j]])
    found = scipy.spatial.HalfspaceIntersection(halves, np.zeros(size - 1), qhull_options="QJ Pp")
    corners = found.intersections[np.isfinite(found.intersections).all(axis=1)]
    return np.pad(corners, ((0, 0), (0, 1)))


def _cheapest_plans(p: Array, q: Array, distances: Array) -> Array:
    """Return the cost of the cheapest plan of each face: one linear program of as many blocks."""
    one, every = scipy.sparse.identity(len(distances)), np.ones((1, len(distances)))
    sums = scipy.sparse.vstack([scipy.sparse.kron(one, every), scipy.sparse.kron(every, one)])
    marginals = scipy.sparse.block_diag([sums] * len(p), format="csr")
    cost, wanted = np.tile(distances.ravel(), len(p)), np.concatenate([p, q], axis=1).ravel()
    plan = scipy.optimize.linprog(cost, A_eq=marginals, b_eq=wanted, method="highs-ds")
    if plan.status != 0:
        raise ValueError(f"no plan moves the prediction to the truth ({plan.message}); do rows sum to 1?")
    return (plan.x * cost).reshape(len(p), -1).sum(axis=1)


def distribution_scores(distances: Array) -> dict[str, Score]:
    """Return every score of a distribution by name: functions of truth and prediction ``[N, K]`` to ``[N]``.

    KL and JS are in nats, EMD in the unit of ``distances`` ``[K, K]``, MSE is the mean over classes, TV the
    total variation. Of cosine and intersection (1 - TV) more is better, of the others less.
    """

    def relative(p: Array, q: Array) -> Array:
        return abs(p - q) / np.where(p + q > 0, p + q, 1)

    formulas: dict[str, Score] = {
        "KL": kl_divergence,
        "JS": lambda p, q: (kl_divergence(p, (p + q) / 2) + kl_divergence(q, (p + q) / 2)) / 2,
        "EMD": partial(emd, distances=distances),
        "MSE": lambda p, q: ((p - q) ** 2).mean(axis=-1),
        "L1": lambda p, q: abs(p - q).sum(axis=-1),
        "TV": lambda p, q: abs(p - q).sum(axis=-1) / 2,
        "Chebyshev": lambda p, q: abs(p - q).max(axis=-1),
        "Clark": lambda p, q: np.linalg.norm(relative(p, q), axis=-1),
        "Canberra": lambda p, q: relative(p, q).sum(axis=-1),
        "cosine": lambda p, q: (p * q).sum(-1) / (np.linalg.norm(p, axis=-1) * np.linalg.norm(q, axis=-1)),
        "intersection": lambda p, q: np.minimum(p, q).sum(axis=-1),
    }
    return {name: lambda p, q, each=each: each(*alike(p, q)) for name, each in formulas.items()}


def fleiss_kappa(votes: Array) -> float:
    """Return Fleiss' kappa (1971), the raters' agreement above that of the class frequencies (0).

    The number of raters may differ from face to face; faces with fewer than two votes are left out.
    """
    votes = _votes(votes)
    raters = votes.sum(axis=1)
    agreement = (((votes**2).sum(axis=1) - raters) / (raters * (raters - 1))).mean()
    chance = ((votes.sum(axis=0) / votes.sum()) ** 2).sum()
    return ratio(agreement - chance, 1 - chance)


def krippendorff_alpha(votes: Array) -> float:
    """Return Krippendorff's alpha for nominal data, 1 - observed / expected disagreement (2011).

    Expected is that of two of all votes drawn *without* replacement (n - 1, where kappa has n). NaN where
    only one class was ever chosen; :func:`tally` makes votes of labels and predictions.
    """
    votes = _votes(votes)
    raters, total, of_class = votes.sum(axis=1), votes.sum(), votes.sum(axis=0)
    same = ((votes * (votes - 1)).sum(axis=1) / (raters - 1)).sum()
    expected = (of_class * (of_class - 1)).sum() / (total - 1)
    return 1 - (total - same) / (total - expected) if expected < total else float("nan")


def rater_accuracy(votes: Array, strict: bool = False) -> float:
    """Return how often one rater names the class that most other raters of the face name: a human ceiling.

    Every rater of every face is held out once; of several leading classes each counts in part. ``strict``
    counts a rater only where more than half of the others agree.
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
    return ratio(score, weight)


def split_half(votes: Array, seed: int = 0) -> tuple[Array, Array]:
    """Return the shares ``[N, K]`` of a random half of each face's raters, and of the other half of them."""
    votes = np.asarray(votes)
    if len(_votes(votes)) < len(votes):
        raise ValueError("a face has fewer than two votes; leave it out first")
    rng, halves = np.random.default_rng(seed), np.zeros((2, *votes.shape), dtype=np.int64)
    for row, counts in enumerate(votes.astype(np.int64)):
        half = counts.sum() // 2
        halves[0, row] = rng.multivariate_hypergeometric(counts, half)
        halves[1, row] = rng.multivariate_hypergeometric(counts - halves[0, row], half)
    return tuple(halves / halves.sum(axis=2, keepdims=True))


def smoothed(shares: Array, prior: Array, num_votes: float, weight: float = 1.0) -> Array:
    """Return shares ``[N, K]`` of a few votes mixed with a prior ``[K]`` that counts as ``weight`` votes."""
    mixed = num_votes * np.asarray(shares, dtype=np.float64) + weight * np.asarray(prior)
    return mixed / (num_votes + weight)


def tally(*answers: Array, num_classes: int | None = None) -> Array:
    """Return how many raters chose each class, int64 ``[N, K]``, of one ``[N]`` a rater; negative is none."""
    every = np.stack(answers)
    size = int(every.max()) + 1 if num_classes is None else num_classes
    if every.ndim != 2 or not np.issubdtype(every.dtype, np.integer) or every.max() >= size:
        given = f"{every.dtype} {every.shape}"
        raise ValueError(f"answers must be rows of classes from 0 to {size - 1}, not {given}")
    return (every[:, :, None] == np.arange(size)).sum(axis=0)


def _votes(votes: Array) -> Array:
    """Return the counts of the faces with two votes or more."""
    votes = np.asarray(votes)
    if votes.ndim != 2 or (votes < 0).any() or (votes != np.round(votes)).any():
        raise ValueError(f"votes must be counts [faces, classes], not {votes.dtype} of shape {votes.shape}")
    votes = votes[votes.sum(axis=1) >= 2].astype(np.int64)
    if not len(votes):
        raise ValueError("no face has two votes; agreement needs at least two raters of the same face")
    return votes


def alike(truth: Array, predicted: Array) -> tuple[Array, Array]:
    """Return both as float64; refuse shapes that differ."""
    truth, predicted = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} must have the same shape")
    return truth, predicted


def ratio(part: float, whole: float) -> float:
    """Return part / whole, NaN where the whole is 0."""
    return float(part / whole) if whole > 0 else float("nan")
