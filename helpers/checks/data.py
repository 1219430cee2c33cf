"""Answers to the exercises of notebook 01: landmarks, raters, copies, people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from helpers.checks.judging import Case, equals, judge


def check_eye_opening(answer: Callable[[np.ndarray], np.ndarray]) -> None:
    """Check how wide the eyes are open: mean distance of the lids over the distance of the outer corners.

    Args:
        answer: landmarks ``[N, 68, 2]`` in pixels to ``[N]``.
    """

    def draw(random: np.random.Generator) -> Case:
        return {"landmarks": random.uniform(0, 48, (random.integers(2, 6), 68, 2))}

    def reference(landmarks: np.ndarray) -> np.ndarray:
        upper, lower = landmarks[:, [37, 38, 43, 44]], landmarks[:, [41, 40, 47, 46]]
        lids = np.linalg.norm(upper - lower, axis=2).mean(axis=1)
        return lids / np.linalg.norm(landmarks[:, 36] - landmarks[:, 45], axis=1)

    judge(answer, draw, equals(reference))


def check_rater_agreement(answer: Callable[[np.ndarray], np.ndarray]) -> None:
    """Check the probability that two different raters of a face, picked at random, chose the same class.

    Args:
        answer: votes ``[N, K]``, at least two a face, to ``[N]``.
    """

    def draw(random: np.random.Generator) -> Case:
        votes = random.integers(0, 5, (3, random.integers(2, 5)))
        votes[:, 0] += 2
        return {"votes": votes}

    def reference(votes: np.ndarray) -> np.ndarray:
        raters = votes.sum(axis=1)
        return (votes * (votes - 1)).sum(axis=1) / (raters * (raters - 1))

    judge(answer, draw, equals(reference))


def check_without_copies(answer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """Check the mask of the training faces that are not pixel for pixel the same as any test face.

    Args:
        answer: training images ``[N, H, W]`` and test images ``[M, H, W]`` to true and false ``[N]``.
    """

    def draw(random: np.random.Generator) -> Case:
        train, test = (random.integers(0, 256, (num, 6, 6), dtype=np.uint8) for num in (8, 5))
        train[random.permutation(8)[:3]] = test[random.integers(0, 5, 3)]
        near = train[0].copy()
        near[0, 0] ^= 1  # one grey level in one pixel: no copy
        test[4] = near
        return {"train": train, "test": test}

    def reference(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return ~(train[:, None] == test[None]).all(axis=(2, 3)).any(axis=1)

    judge(answer, draw, equals(reference))


def check_split_by_person(answer: Callable[[np.ndarray, float, int], np.ndarray]) -> None:
    """Check a mask of test faces that puts nobody on both sides and holds about the share asked for.

    Args:
        answer: subject ``[N]``, share of the faces and seed to true and false ``[N]``.
    """

    def draw(random: np.random.Generator) -> Case:
        people = random.choice(10_000, 60, replace=False)
        subject = random.permutation(np.repeat(people, random.integers(3, 9, 60)))
        return {
            "subject": subject,
            "share": float(random.choice([0.2, 0.3])),
            "seed": int(random.integers(1000)),
        }

    def complaint(case: Case, result: Any) -> str | None:
        subject, share, seed = case.values()
        mask = np.asarray(result)
        if mask.dtype.kind != "b" or mask.shape != subject.shape:
            return f"true and false of shape {subject.shape} were expected, {mask.dtype} {mask.shape} came"
        if both := len(np.intersect1d(subject[mask], subject[~mask])):
            return f"{both} people are on both sides"
        if abs(mask.mean() - share) > 0.05:
            return f"{mask.mean():.0%} of the faces are test faces"
        return _by_seed(mask, subject, share, seed)

    def _by_seed(mask: np.ndarray, subject: np.ndarray, share: float, seed: int) -> str | None:
        if not np.array_equal(mask, answer(subject.copy(), share, seed)):
            return "the same seed gave another split the second time"
        others = [answer(subject.copy(), share, seed + i) for i in (1, 2, 3)]
        return "other seeds give the same split" if all(np.array_equal(mask, o) for o in others) else None

    judge(answer, draw, complaint)
