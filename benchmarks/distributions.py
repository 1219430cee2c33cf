"""Every loss against a label distribution, trained alike and judged by every score.

    python -m benchmarks.distributions ferplus --data FOLDER [--faces 4000] [--epochs 4] [--seeds 3]
    python -m benchmarks.distributions synthetic [--faces 10000] [--epochs 8] [--seeds 3]
    python -m benchmarks.distributions longer [--faces 24000] [--epochs 6] [--seeds 1]

All networks learn from the shares of ten people's votes, on the same faces, in the same order and number of
steps; the epoch is chosen on validation faces by the loss that was trained. The first two parts compare the
losses on real and on drawn faces. The third trains one loss for longer on drawn faces, and asks how much of
the distance from the class shares to the best possible divergence it covers. Writes
data/results/distributions_<part>.json, anew after each training.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
import torch
from scipy import stats

from helpers import datasets, emotions, files, losses, metrics, models, runtime, training
from helpers.batches import Augment

NETWORK = {"stem": "unshuffle", "dropout": 0.1}
LARGE = {"stem": "unshuffle", "dropout": 0.1, "convs": 2, "widths": (24, 48, 96, 192)}
CONFIG = training.Config(
    batch_size=64,
    lr=4e-3,
    weight_decay=0.05,
    monitor="loss",
    augment=Augment(rotation=8, translation=0.06, scale=0.08, brightness=0.1, contrast=0.2, erasing=0),
)
JUDGED_SEED = 1_000_001  # of the drawn faces that are scored: other people than any trained on
SAME = ("cross-entropy",)  # has the gradient of "kl", so the same network comes out
DEFAULTS = {"ferplus": (4000, 4, 3), "synthetic": (10_000, 8, 3), "longer": (24_000, 6, 1)}
"""Faces to learn from (where they are drawn, a tenth of them for validation), epochs, seeds."""


def learned_from_votes(faces: datasets.FaceSet) -> datasets.FaceSet:
    """Return the faces with the shares of their votes as their distribution.

    Args:
        faces: with votes.
    """
    shares = faces.votes / faces.votes.sum(axis=1, keepdims=True)
    return replace(faces, distribution=shares.astype(np.float32))


def parts_of(options: argparse.Namespace) -> tuple[datasets.FaceSet, ...]:
    """Return training, validation and judged faces.

    Args:
        options: of the command line.
    """
    if options.part == "ferplus":
        train, validation, judged = datasets.load("ferplus", options.data, rule="distribution").splits(seed=0)
        rows = np.random.default_rng(0).permutation(len(train))[: options.faces]
        return train.select(np.sort(rows)), validation, judged
    drawn = datasets.load("synthetic", options.data, num_faces=options.faces)
    judged = datasets.load("synthetic", options.data, num_faces=4000, seed=JUDGED_SEED)
    return tuple(map(learned_from_votes, drawn.splits(test=0.0)[:2])) + (learned_from_votes(judged),)


def terms(classes: tuple[str, ...]) -> dict[str, losses.Loss]:
    """Return the losses that are compared, and as the first the usual one: cross-entropy of one label.

    Args:
        classes: names in label order.
    """
    every = losses.divergences(classes)
    shared = {name: losses.on_distribution(every[name]) for name in every if name not in SAME}
    return {"labels": losses.on_labels()} | shared


def train(
    parts: tuple[datasets.FaceSet, ...], loss: losses.Loss, seed: int, epochs: int, network: Mapping
) -> tuple[torch.nn.Module, float]:
    """Return a trained network and the CPU seconds it took.

    Args:
        parts: training and validation faces.
        loss: function of outputs and targets.
        seed: of weights, order and augmentation.
        epochs: passes over the training faces.
        network: its options.
    """
    torch.manual_seed(seed)
    model = models.create("face-cnn", len(parts[0].classes), **network)
    started = time.process_time()
    training.fit(model, *parts, loss, {}, replace(CONFIG, epochs=epochs, seed=seed), progress=False)
    return model, time.process_time() - started


def judge(truth: np.ndarray, q: np.ndarray, distances: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of each face, ``[N]`` by name.

    Args:
        truth: p, ``[N, K]``.
        q: predicted, ``[N, K]``.
        distances: between the classes.
    """
    found = {name: score(truth, q) for name, score in metrics.distribution_scores(distances).items()}
    most = truth >= truth.max(axis=1, keepdims=True)  # of tied classes either is right
    return found | {"accuracy": most[np.arange(len(q)), q.argmax(axis=1)].astype(float)}


def of_a_set(truth: np.ndarray, q: np.ndarray) -> dict[str, float]:
    """Return the scores that only a whole set has.

    Args:
        truth: p, ``[N, K]``.
        q: predicted, ``[N, K]``.
    """
    labels = truth.argmax(axis=1)
    entropies = metrics.entropy(truth), metrics.entropy(q)
    constant = np.ptp(entropies[1]) == 0
    return {
        "hard calibration error": metrics.expected_calibration_error(labels, q),
        "soft calibration error": metrics.expected_calibration_error(truth, q),
        "entropy, mean": float(entropies[1].mean()),
        "entropy, rank correlation": 0.0 if constant else float(stats.spearmanr(*entropies).statistic),
    }


def row(
    truth: np.ndarray, answers: list[np.ndarray], distances: np.ndarray, people: np.ndarray | None
) -> dict:
    """Return the scores of several networks that differ in their seed: mean, and two kinds of interval.

    Args:
        truth: p, ``[N, K]``.
        answers: predicted, ``[N, K]`` a seed.
        distances: between the classes.
        people: who is in each face, or None.
    """
    each = [judge(truth, q, distances) for q in answers]
    sets = [of_a_set(truth, q) for q in answers]
    faces = {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}
    found = {name: metrics.bootstrap(np.mean, values, groups=people) for name, values in faces.items()}
    return {
        "mean": {name: score.value for name, score in found.items()} | _mean(sets),
        "interval_over_faces": {name: [score.low, score.high] for name, score in found.items()},
        "seeds": [
            {name: float(values.mean()) for name, values in one.items()} | extra
            for one, extra in zip(each, sets, strict=True)
        ],
    }


def _mean(records: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([record[name] for record in records])) for name in records[0]}


def references(parts: tuple[datasets.FaceSet, ...], distances: np.ndarray, data: str) -> dict[str, dict]:
    """Return what knows nothing, what knows the class shares, and what people or the truth itself reach.

    Args:
        parts: training, validation and judged faces.
        distances: between the classes.
        data: folder of the drawn faces.
    """
    learned, _, judged = parts
    truth, people = judged.distribution.astype(np.float64), judged.subject
    prior = learned.distribution.mean(axis=0, dtype=np.float64)
    even = np.full_like(truth, 1 / truth.shape[1])
    rows = {"uniform": row(truth, [even], distances, people)}
    rows["class shares"] = row(truth, [np.tile(prior / prior.sum(), (len(truth), 1))], distances, people)
    if judged.name == "synthetic":
        known = datasets.load("synthetic", data, num_faces=4000, seed=JUDGED_SEED).distribution
        rows["best possible (Bayes)"] = row(truth, [known.astype(np.float64)], distances, people)
    return rows


def halves(judged: datasets.FaceSet, prior: np.ndarray, answers: Mapping[str, list], distances) -> dict:
    """Return how well five raters foretell the five others, and how well networks do the same task.

    Args:
        judged: faces with votes.
        prior: ``[K]``, mixed into the five votes with the weight of one.
        answers: name to the predictions of each seed.
        distances: between the classes.
    """
    enough = judged.votes.sum(axis=1) >= 2
    some, others = metrics.split_half(judged.votes[enough], seed=0)
    raters = metrics.smoothed(some, prior, 5)
    rows = {"five raters": row(others, [raters], distances, None)}
    for name, each in answers.items():
        rows[name] = row(others, [q[enough] for q in each], distances, None)
    return {name: found["mean"] for name, found in rows.items()}


def compare(options: argparse.Namespace, record: dict) -> None:
    """Train every loss with every seed, and write the table after each training.

    Args:
        options: of the command line.
        record: to which the results are added.
    """
    parts = parts_of(options)
    judged, classes = parts[2], parts[0].classes
    distances, truth = emotions.distances(classes), judged.distribution.astype(np.float64)
    prior = parts[0].distribution.mean(axis=0, dtype=np.float64)
    known, answers, spent, rows = references(parts, distances, options.data), {}, {}, {}
    record["faces"] = dict(zip(("train", "validation", "judged"), map(len, parts), strict=True))
    for seed in range(options.seeds):
        for name, loss in terms(classes).items():
            model, seconds = train(parts[:2], loss, seed, options.epochs, NETWORK)
            logits, fitted = (training.predict(model, part) for part in (judged, parts[1]))
            heat = metrics.temperature(fitted, parts[1].distribution)
            spent.setdefault(name, []).append({"cpu_seconds": seconds, "temperature": heat})
            for key, divisor in ((name, 1.0), (f"{name}, T", heat)):
                answers.setdefault(key, []).append(metrics.softmax(logits / divisor))
                rows[key] = row(truth, answers[key], distances, judged.subject)
            found = {"references": known, "losses": rows, "trainings": spent}
            write(options, record | found)
            tell(f"{name} {seed}", rows[name]["seeds"][-1], seconds)
    write(options, record | found | {"halves": halves(judged, prior, answers, distances)})


def longer(options: argparse.Namespace, record: dict) -> None:
    """Train one loss for long, and write how much of the way to the best possible divergence it goes.

    Args:
        options: of the command line.
        record: to which the results are added.
    """
    parts = parts_of(options)
    judged, classes = parts[2], parts[0].classes
    distances, truth = emotions.distances(classes), judged.distribution.astype(np.float64)
    known = references(parts, distances, options.data)
    low, high = (known[name]["mean"]["KL"] for name in ("best possible (Bayes)", "class shares"))
    record["faces"] = dict(zip(("train", "validation", "judged"), map(len, parts), strict=True))
    answers, spent = [], []
    for seed in range(options.seeds):
        model, seconds = train(parts[:2], terms(classes)[options.loss], seed, options.epochs, LARGE)
        answers.append(metrics.softmax(training.predict(model, judged, tta="flip")))
        spent.append(seconds)
        found = row(truth, answers, distances, judged.subject)
        ways = [(high - one["KL"]) / (high - low) for one in found["seeds"]]
        extra = {"loss": options.loss, "cpu_seconds": spent, "share_of_the_way": ways}
        write(options, record | {"references": known, "network": LARGE, "result": found} | extra)
        tell(f"{options.loss} {seed}: {ways[-1]:.3f} of the way", found["seeds"][-1], seconds)


def write(options: argparse.Namespace, record: dict) -> None:
    """Write the record.

    Args:
        options: of the command line.
        record: plain types.
    """
    with files.replacing(options.out) as file:
        file.write(json.dumps(record, indent=1).encode())


def tell(name: str, scores: Mapping[str, float], seconds: float) -> None:
    """Print one line.

    Args:
        name: of the training.
        scores: by name.
        seconds: of the CPU.
    """
    shown = {key: round(scores[key], 4) for key in ("KL", "EMD", "TV", "cosine", "accuracy")}
    print(f"{name:24} {seconds:5.0f} CPU-s", shown, flush=True)


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=DEFAULTS)
    parser.add_argument(
        "--data", default="data", help="folder that holds the set, or the cache of drawn faces"
    )
    parser.add_argument("--faces", type=int, help="to learn from")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--loss", default="kl", help="of the longer training")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", help="file to write")
    options = parser.parse_args()
    for name, value in zip(("faces", "epochs", "seeds"), DEFAULTS[options.part], strict=True):
        setattr(options, name, getattr(options, name) or value)
    options.out = options.out or f"data/results/distributions_{options.part}.json"
    return options


def main() -> None:
    """Compare the losses, or train one for longer."""
    options = arguments()
    torch.set_num_threads(options.threads)
    words = ["FOLDER" if word == options.data else word for word in sys.argv[1:]]
    record = {
        "set": "ferplus" if options.part == "ferplus" else "synthetic",
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.distributions", *words]),
        "machine": runtime.machine(),
        "network": NETWORK,
        "config": asdict(replace(CONFIG, epochs=options.epochs)),
        "targets": "shares of the votes",
    }
    (longer if options.part == "longer" else compare)(options, record)


if __name__ == "__main__":
    main()
