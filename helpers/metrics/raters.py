"""How far people agree with each other."""

from __future__ import annotations

import numpy as np


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
