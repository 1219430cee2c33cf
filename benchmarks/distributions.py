"""Every loss against a label distribution, trained alike and judged by every score.

    python -m benchmarks.distributions ferplus --data FOLDER [--faces 8000] [--epochs 4] [--seeds 3]
    python -m benchmarks.distributions synthetic [--faces 10000] [--epochs 8] [--seeds 3]

All networks learn from the shares of ten people's votes, on the same faces, in the same order and number of
steps; the epoch is chosen on validation faces by the loss that was trained. Writes
data/results/distributions_<set>.json, anew after each training. How near to the best possible divergence a
longer training comes is measured by ``benchmarks.cycles``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
import torch
from scipy import stats

from benchmarks import records
from helpers import datasets, emotions, losses, metrics, models, training
from helpers.batches import Augment

NETWORK = {"stem": "unshuffle", "dropout": 0.1}
AUGMENT = Augment(rotation=8, translation=0.06, scale=0.08, brightness=0.1, contrast=0.2, erasing=0)
CONFIG = training.Config(batch_size=64, lr=4e-3, weight_decay=0.05, monitor="loss", augment=AUGMENT)
JUDGED_SEED = 1_000_002  # of the drawn faces that are scored: other people than any trained or tried on
SAME = ("cross-entropy",)  # has the gradient of "kl", so the same network comes out
DEFAULTS = {"ferplus": (8000, 4), "synthetic": (10_000, 8)}
"""Faces to learn from (where they are drawn, a tenth of them for validation), and epochs."""


def learned_from_votes(faces: datasets.FaceSet) -> datasets.FaceSet:
    """Return the faces with the shares of their votes as their distribution."""
    shares = faces.votes / faces.votes.sum(axis=1, keepdims=True)
    return replace(faces, distribution=shares.astype(np.float32))


def parts_of(options: argparse.Namespace) -> tuple[datasets.FaceSet, ...]:
    """Return training, validation and judged faces."""
    if options.set == "ferplus":
        train, validation, judged = datasets.load("ferplus", options.data, rule="distribution").splits(seed=0)
        rows = np.random.default_rng(0).permutation(len(train))[: options.faces]
        return train.select(np.sort(rows)), validation, judged
    drawn = datasets.load("synthetic", options.data, num_faces=options.faces)
    judged = datasets.load("synthetic", options.data, num_faces=4000, seed=JUDGED_SEED)
    return tuple(map(learned_from_votes, (*drawn.splits(test=0.0)[:2], judged)))


def terms(classes: tuple[str, ...]) -> dict[str, losses.Loss]:
    """Return the losses that are compared, and as the first the usual one: cross-entropy of one label."""
    every = losses.divergences(classes)
    shared = {name: losses.on_distribution(every[name]) for name in every if name not in SAME}
    return {"labels": losses.on_labels()} | shared


def train(
    parts: tuple[datasets.FaceSet, ...], loss: losses.Loss, seed: int, epochs: int
) -> tuple[torch.nn.Module, float]:
    """Return a trained network and the CPU seconds it took."""
    torch.manual_seed(seed)
    model = models.create("face-cnn", len(parts[0].classes), **NETWORK)
    started = time.process_time()
    training.fit(model, *parts, loss, {}, replace(CONFIG, epochs=epochs, seed=seed), progress=False)
    return model, time.process_time() - started


def judge(p: np.ndarray, q: np.ndarray, distances: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of each face, ``[N]`` by name, for true p and predicted q ``[N, K]``."""
    found = {name: score(p, q) for name, score in metrics.distribution_scores(distances).items()}
    most = p >= p.max(axis=1, keepdims=True)  # of tied classes either is right
    return found | {"accuracy": most[np.arange(len(q)), q.argmax(axis=1)].astype(float)}


def of_a_set(p: np.ndarray, q: np.ndarray) -> dict[str, float]:
    """Return the scores that only a whole set has."""
    entropies = metrics.entropy(p), metrics.entropy(q)
    constant = np.ptp(entropies[1]) == 0
    return {
        "hard calibration error": metrics.expected_calibration_error(p.argmax(axis=1), q),
        "soft calibration error": metrics.expected_calibration_error(p, q),
        "entropy, mean": float(entropies[1].mean()),
        "entropy, rank correlation": 0.0 if constant else float(stats.spearmanr(*entropies).statistic),
    }


def row(p: np.ndarray, seeds: list[np.ndarray], distances: np.ndarray, people: np.ndarray | None) -> dict:
    """Return the scores of networks that differ in their seed: mean, interval over faces, each seed."""
    each = [judge(p, q, distances) for q in seeds]
    sets = [of_a_set(p, q) for q in seeds]
    faces = {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}
    found = {name: metrics.bootstrap(np.mean, values, groups=people) for name, values in faces.items()}
    means = {name: float(np.mean([one[name] for one in sets])) for name in sets[0]}
    whole = zip(each, sets, strict=True)
    return {
        "mean": {name: score.value for name, score in found.items()} | means,
        "interval_over_faces": {name: [score.low, score.high] for name, score in found.items()},
        "seeds": [{name: float(v.mean()) for name, v in one.items()} | extra for one, extra in whole],
    }


def references(parts: tuple[datasets.FaceSet, ...], distances: np.ndarray, data: str) -> dict[str, dict]:
    """Return the floor (even, class shares) and, of drawn faces, the best possible."""
    learned, _, judged = parts
    p, people = judged.distribution.astype(np.float64), judged.subject
    prior = learned.distribution.mean(axis=0, dtype=np.float64)
    guesses = {"uniform": np.full_like(p, 1 / p.shape[1])}
    guesses["class shares"] = np.tile(prior / prior.sum(), (len(p), 1))
    if judged.name == "synthetic":
        exact = datasets.load("synthetic", data, num_faces=4000, seed=JUDGED_SEED).distribution
        guesses["best possible (Bayes)"] = exact.astype(np.float64)
    return {name: row(p, [q], distances, people) for name, q in guesses.items()}


def halves(
    judged: datasets.FaceSet, prior: np.ndarray, networks: Mapping[str, list], distances: np.ndarray
) -> dict[str, dict]:
    """Return how well five raters predict the five others, and how well all else does the same task."""
    enough = judged.votes.sum(axis=1) >= 2
    some, others = metrics.split_half(judged.votes[enough], seed=0)
    guesses = {"class shares": [np.tile(prior, (len(others), 1))]}
    guesses["five raters"] = [metrics.smoothed(some, prior, 5)]  # the prior counts as one vote
    guesses |= {name: [q[enough] for q in each] for name, each in networks.items()}
    rows = {name: row(others, each, distances, None) for name, each in guesses.items()}
    return {name: {k: found[k] for k in ("mean", "interval_over_faces")} for name, found in rows.items()}


def compare(options: argparse.Namespace, record: dict) -> None:
    """Train every loss with every seed, and write the table after each training."""
    parts = parts_of(options)
    judged, classes = parts[2], parts[0].classes
    distances, p = emotions.distances(classes), judged.distribution.astype(np.float64)
    prior = parts[0].distribution.mean(axis=0, dtype=np.float64)
    prior /= prior.sum()
    known, predicted, spent, rows = references(parts, distances, options.data), {}, {}, {}
    record["faces"] = dict(zip(("train", "validation", "judged"), map(len, parts), strict=True))
    for seed in range(options.seeds):
        for name, loss in terms(classes).items():
            model, seconds = train(parts[:2], loss, seed, options.epochs)
            logits, fitted = (training.predict(model, part) for part in (judged, parts[1]))
            heat = metrics.temperature(fitted, parts[1].distribution)
            spent.setdefault(name, []).append({"cpu_seconds": seconds, "temperature": heat})
            for key, divisor in ((name, 1.0), (f"{name}, T", heat)):
                predicted.setdefault(key, []).append(metrics.softmax(logits / divisor))
                rows[key] = row(p, predicted[key], distances, judged.subject)
            record |= {"references": known, "losses": rows, "trainings": spent}
            records.write(f"distributions_{options.set}", record)
            print(name, seed, {k: round(v, 4) for k, v in rows[name]["seeds"][-1].items()}, flush=True)
    raw = {name: each for name, each in predicted.items() if not name.endswith(", T")}
    record["halves"] = halves(judged, prior, raw, distances)
    records.write(f"distributions_{options.set}", record)


def main() -> None:
    """Compare the losses."""
    parser = records.parser(__doc__, faces=0, epochs=0, seeds=3)
    parser.add_argument("set", choices=DEFAULTS)
    options = parser.parse_args()
    options.faces, options.epochs = (
        given or usual
        for given, usual in zip((options.faces, options.epochs), DEFAULTS[options.set], strict=True)
    )
    torch.set_num_threads(options.threads)
    config = asdict(replace(CONFIG, epochs=options.epochs))
    about = {"network": NETWORK, "config": config, "targets": "shares of the votes"}
    compare(options, {"set": options.set, **records.circumstances(options), **about})


if __name__ == "__main__":
    main()
