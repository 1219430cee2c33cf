"""Scores of a predicted distribution over classes against the true one, face by face.

p is the truth and q the prediction, both ``[N, K]`` with rows that sum to 1; every distance is float64
``[N]``, so that its mean is the score of a set and ``bootstrap(np.mean, ...)`` its interval.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from scipy.optimize import linprog, minimize_scalar
from scipy.sparse import block_diag, identity, kron, vstack
from scipy.spatial import HalfspaceIntersection
from scipy.special import entr, rel_entr

from helpers.metrics import given
from helpers.metrics.probabilities import log_softmax

_FEW = 8
"""Classes up to which the corners of the dual are listed: (2K - 2)! / (K - 1)!², which is 3,432 for eight."""
_AT_ONCE = 64  # faces in one linear program


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


def js_divergence(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence (Lin 1991), in nats: at most log 2, and alike both ways.

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: shapes that differ.
    """
    p, q = given.same_shape(truth, predicted)
    middle = (p + q) / 2
    return (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=-1) / 2


def squared_error(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the mean over classes of (p - q)².

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: shapes that differ.
    """
    p, q = given.same_shape(truth, predicted)
    return ((p - q) ** 2).mean(axis=-1)


def total_variation(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return half the sum of |p - q|: the largest difference in the probability of any event, in [0, 1].

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: shapes that differ.
    """
    p, q = given.same_shape(truth, predicted)
    return abs(p - q).sum(axis=-1) / 2


def chebyshev(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the largest |p - q|, in [0, 1].

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: shapes that differ.
    """
    p, q = given.same_shape(truth, predicted)
    return abs(p - q).max(axis=-1)


def clark(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the root of the sum of ((p - q) / (p + q))², 0 / 0 being 0; at most the root of K.

    A class to which nobody gave a vote counts 1 however small the prediction is, so votes with zeros make
    this and :func:`canberra` large for everybody.

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: shapes that differ.
    """
    return np.sqrt((_relative(truth, predicted) ** 2).sum(axis=-1))


def canberra(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the sum of |p - q| / (p + q), 0 / 0 being 0; at most K.

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: shapes that differ.
    """
    return abs(_relative(truth, predicted)).sum(axis=-1)


def cosine(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the cosine of the angle between p and q: 1 is best, 0 is worst.

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: shapes that differ.
    """
    p, q = given.same_shape(truth, predicted)
    return (p * q).sum(axis=-1) / (np.linalg.norm(p, axis=-1) * np.linalg.norm(q, axis=-1))


def intersection(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the sum of the smaller of p and q: 1 is best; 1 less :func:`total_variation`.

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.

    Raises:
        ValueError: shapes that differ.
    """
    return np.minimum(*given.same_shape(truth, predicted)).sum(axis=-1)


def _relative(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    p, q = given.same_shape(truth, predicted)
    return np.divide(p - q, p + q, out=np.zeros_like(p), where=p + q > 0)


# ---------------------------------------------------------------- earth moved


def emd(truth: np.ndarray, predicted: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return the earth mover's distance (Wasserstein-1): the least cost of carrying q to where p is. Exact.

    By duality (Kantorovich and Rubinstein) it is the largest of sum f (p - q) over all functions f of the
    classes whose values differ by no more than the distance. The largest is at a corner of the set of these
    functions; up to eight classes all corners are listed, for more a linear program is solved.

    Args:
        truth: p, ``[N, K]``, each row sums to 1.
        predicted: q, ``[N, K]``, each row sums to 1.
        distances: ``[K, K]``, symmetric, 0 on the diagonal only, no way round shorter than the direct one;
            see ``emotions.distances``.

    Returns:
        float64 ``[N]`` in the unit of the distances.

    Raises:
        ValueError: shapes that do not fit, or distances that are none.
    """
    p, q = given.same_shape(truth, predicted)
    distances = np.asarray(distances, dtype=np.float64)
    _check_distances(distances, p.shape[1])
    if len(distances) > _FEW:
        parts = [slice(first, first + _AT_ONCE) for first in range(0, len(p), _AT_ONCE)]
        return np.concatenate([_cheapest_plans(p[rows], q[rows], distances) for rows in parts])
    corners = _corners(distances.tobytes())
    return np.concatenate(
        [((p[rows] - q[rows]) @ corners.T).max(axis=1) for rows in _blocks(len(p), len(corners))]
    )


def _blocks(num: int, width: int) -> list[slice]:
    step = max(1, 4_000_000 // width)
    return [slice(first, first + step) for first in range(0, num, step)]


@cache
def _corners(distances: bytes) -> np.ndarray:
    """Return the corners ``[V, K]`` of the set of functions with f_i - f_j <= d_ij and f = 0 at the last."""
    cost = np.frombuffer(distances)
    cost = cost.reshape(int(len(cost) ** 0.5), -1)
    size = len(cost)
    if size < 3:  # too flat for Qhull
        farthest = np.eye(size)[0] * cost[0, -1]
        return np.stack([farthest, -farthest])
    i, j = np.nonzero(~np.eye(size, dtype=bool))
    sides = (np.eye(size)[i] - np.eye(size)[j])[:, :-1]
    halves = np.column_stack([sides, -cost[i, j]])
    found = HalfspaceIntersection(halves, np.zeros(size - 1), qhull_options="QJ Pp")
    corners = found.intersections[np.isfinite(found.intersections).all(axis=1)]
    return np.column_stack([corners, np.zeros(len(corners))])


def _cheapest_plans(p: np.ndarray, q: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return the cost of the cheapest plan of each face: one linear program of as many blocks."""
    size = len(distances)
    rows, columns = kron(identity(size), np.ones((1, size))), kron(np.ones((1, size)), identity(size))
    marginals = block_diag([vstack([rows, columns])] * len(p), format="csr")
    wanted = np.concatenate([p, q], axis=1).ravel()
    answer = linprog(np.tile(distances.ravel(), len(p)), A_eq=marginals, b_eq=wanted, method="highs-ds")
    if answer.status != 0:
        raise ValueError(f"no plan carries the prediction to the truth ({answer.message}); do rows sum to 1?")
    return (answer.x.reshape(len(p), -1) * distances.ravel()).sum(axis=1)


def _check_distances(distances: np.ndarray, size: int) -> None:
    if distances.shape != (size, size):
        raise ValueError(f"distances must be {size} x {size}, not {distances.shape}")
    around = (distances[:, :, None] + distances[None]).min(axis=1)
    apart = distances[~np.eye(size, dtype=bool)]
    direct = np.allclose(distances, np.minimum(distances, around)) and np.allclose(distances, distances.T)
    if not direct or (apart <= 0).any() or distances.diagonal().any():
        raise ValueError("distances must be symmetric, 0 on the diagonal only, and no way round shorter")


# ---------------------------------------------------------------- how much is known


def entropy(distribution: np.ndarray) -> np.ndarray:
    """Return the entropy of each distribution, in nats: 0 is certain, log K knows nothing.

    Args:
        distribution: ``[N, K]``, each row sums to 1.
    """
    return entr(np.asarray(distribution, dtype=np.float64)).sum(axis=-1)


def split_half(votes: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return what one random half of the raters said of each face, and what the other half said.

    Of an odd number, one rater is left out. How well one half foretells the other is what people reach.

    Args:
        votes: counts ``[N, K]``; each face has two votes or more.
        seed: of the halves.

    Returns:
        two tables of shares, float64 ``[N, K]``.

    Raises:
        ValueError: not counts, or a face with fewer than two votes.
    """
    votes = np.asarray(votes)
    if votes.ndim != 2 or (votes < 0).any() or (votes != np.round(votes)).any():
        raise ValueError(f"votes must be counts [faces, classes], not {votes.dtype} of shape {votes.shape}")
    if (votes.sum(axis=1) < 2).any():
        raise ValueError("a face has fewer than two votes; leave it out first")
    rng, halves = np.random.default_rng(seed), np.zeros((2, *votes.shape))
    for row, counts in enumerate(votes.astype(np.int64)):
        half = counts.sum() // 2
        halves[0, row] = rng.multivariate_hypergeometric(counts, half)
        left = (counts - halves[0, row]).astype(np.int64)
        halves[1, row] = rng.multivariate_hypergeometric(left, half)
    return tuple(halves / halves.sum(axis=2, keepdims=True))


def smoothed(
    distribution: np.ndarray, prior: np.ndarray, num_votes: float, weight: float = 1.0
) -> np.ndarray:
    """Return shares of a few votes mixed with a prior that counts as ``weight`` more votes.

    What nobody of five chose is not impossible; without this its divergence would be infinite.

    Args:
        distribution: shares ``[N, K]``.
        prior: ``[K]``, sums to 1.
        num_votes: how many votes the shares are of.
        weight: of the prior, in votes.
    """
    shares = np.asarray(distribution, dtype=np.float64)
    return (num_votes * shares + weight * np.asarray(prior)) / (num_votes + weight)


def temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Return the number by which logits should be divided (Guo et al. 2017, arXiv 1706.04599).

    It makes the mean of -sum p log q smallest; above 1 the network was too sure. It changes no argmax. Fit it
    on validation faces.

    Args:
        logits: ``[N, K]``.
        truth: labels, integers ``[N]``, or p, ``[N, K]``, each row summing to 1.

    Returns:
        the temperature, from 0.01 to 100.

    Raises:
        ValueError: shapes that do not fit.
    """
    logits, truth = np.asarray(logits, dtype=np.float64), np.asarray(truth)
    p = np.eye(logits.shape[1])[truth] if truth.ndim == 1 else truth
    given.same_shape(p, logits)

    def loss(log_temperature: float) -> float:
        return float(-(p * log_softmax(logits / np.exp(log_temperature))).sum(axis=1).mean())

    found = minimize_scalar(
        loss, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


# ---------------------------------------------------------------- all of them

HIGHER_IS_BETTER = ("cosine", "intersection")


def distribution_scores(distances: np.ndarray) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Return every score of this room by name: functions of truth and prediction ``[N, K]`` to ``[N]``.

    Of "cosine" and "intersection" more is better, of the others less.

    Args:
        distances: ``[K, K]`` between the classes, for the earth mover's distance.
    """
    return {
        "KL": kl_divergence,
        "JS": js_divergence,
        "EMD": partial(emd, distances=distances),
        "MSE": squared_error,
        "TV": total_variation,
        "Chebyshev": chebyshev,
        "Clark": clark,
        "Canberra": canberra,
        "cosine": cosine,
        "intersection": intersection,
    }
