"""How far a network gets on faces of another collection: FER2013 to Muxspace, and back.

    python -m benchmarks.cross_set fer2013 --data FOLDER [--steps 3000]     trained on FER2013
    python -m benchmarks.cross_set muxspace --data FOLDER                   trained on Muxspace

The same network and augmentation for both; the seven classes that both sets have, by name and not by
number. The epoch is chosen on validation faces of the set that was learned. The drop is what is lost between
the test faces of its own set and those of the other one; its interval draws both again, whole people where
the set names them. Accuracy depends on how frequent each class is, macro recall (the mean over classes) does
not: both are kept. Writes data/results/cross_set_<trained on>.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch

from benchmarks import records
from helpers import datasets, emotions, files, losses, metrics, models, training
from helpers.batches import Augment

SETS = ("fer2013", "muxspace")
CLASSES = emotions.FER7
NET = {"name": "face-cnn-fast", "num_classes": 7, "widths": (24, 48, 96, 192), "dropout": 0.2}
AUGMENT = Augment(rotation=8, translation=0.07, scale=0.1, brightness=0.1, contrast=0.25, erasing=0.2)
SCORES = {"accuracy": metrics.accuracy, "macro_recall": metrics.balanced_accuracy}


def shared(part: datasets.FaceSet) -> datasets.FaceSet:
    """Return the faces of the seven classes, numbered as FER2013 numbers them, whatever their set does.

    Args:
        part: faces of any set that has these classes.

    Raises:
        ValueError: the set lacks one of them.
    """
    if missing := set(CLASSES) - set(part.classes):
        raise ValueError(f"{part.name} has no {', '.join(sorted(missing))}")
    number = np.array([CLASSES.index(name) if name in CLASSES else -1 for name in part.classes])
    labels = number[part.labels]
    kept = part.select(labels >= 0)
    return replace(kept, labels=labels[labels >= 0], classes=CLASSES, distribution=None, votes=None)


def scores(labels: np.ndarray, said: np.ndarray, groups: np.ndarray | None) -> dict[str, dict[str, float]]:
    """Return accuracy and macro recall with 95 % intervals.

    Args:
        labels: the true classes.
        said: the predicted ones.
        groups: who is who, or None.
    """
    found = {name: metrics.bootstrap(f, labels, said, groups=groups) for name, f in SCORES.items()}
    return {name: {"value": i.value, "low": i.low, "high": i.high} for name, i in found.items()}


def drop(
    own: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    other: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    statistic: Callable[[np.ndarray, np.ndarray], float] = metrics.balanced_accuracy,
    resamples: int = 1000,
) -> dict[str, float]:
    """Return what is lost from the own set to the other, with a 95 % interval; each is drawn on its own.

    Args:
        own: labels, predictions and people of the set that was learned.
        other: the same of the other set.
        statistic: of labels and predictions.
        resamples: draws of each.
    """
    values = [statistic(*part[:2]) for part in (own, other)]
    draws = [_draws(part, statistic, resamples, seed) for seed, part in enumerate((own, other))]
    low, high = np.nanquantile(draws[0] - draws[1], [0.025, 0.975])
    return {"value": float(values[0] - values[1]), "low": float(low), "high": float(high)}


def _draws(part: tuple, statistic: Callable, resamples: int, seed: int) -> np.ndarray:
    labels, said, people = part
    people = (
        np.arange(len(labels))
        if people is None
        else np.where(people < 0, -1 - np.arange(len(labels)), people)
    )
    order = np.argsort(people, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(people[order])) + 1)
    random, classes = np.random.default_rng(seed), np.unique(labels)
    found = np.empty(resamples)
    for i in range(resamples):
        rows = np.concatenate([groups[g] for g in random.integers(len(groups), size=len(groups))])
        if statistic is metrics.balanced_accuracy:  # the same classes on each draw
            found[i] = metrics.balanced_accuracy(labels[rows], said[rows], classes=classes)
        else:
            found[i] = statistic(labels[rows], said[rows])
    return found


def learn(options: argparse.Namespace, train: datasets.FaceSet, validation: datasets.FaceSet) -> tuple:
    """Return a network trained on one set, and how.

    Args:
        options: the command line's.
        train: faces to learn from.
        validation: faces of the same set that pick the epoch.
    """
    epochs = max(1, round(options.steps / (len(train) // 64)))
    config = training.Config(
        epochs=epochs,
        batch_size=64,
        lr=3e-3,
        weight_decay=0.05,
        ema=0.995,
        augment=AUGMENT,
        seed=options.seed,
        monitor="recall",
    )
    torch.manual_seed(options.seed)
    model, start = models.create(**NET), time.process_time()
    loss = losses.on_labels(label_smoothing=0.1, weight=losses.class_weights(train.labels, 7, power=0.5))
    recall = {"recall": metrics.on_labels(metrics.balanced_accuracy)}
    history = training.fit(model, train, validation, loss, recall, config, progress=False)
    took = {"cpu_seconds": time.process_time() - start, "best": history.best}
    return model, {"network": NET, "config": asdict(config), **took}


def main() -> None:
    """Train on one set, answer on both, and write the figures."""
    parser = records.options(__doc__)
    parser.add_argument("--steps", type=int, default=3000, help="of 64 faces")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = {name: datasets.load(name, options.data).splits(seed=options.seed) for name in SETS}
    train, validation, _ = map(shared, parts[options.name])
    model, made = learn(options, train, validation)
    answers, found = {}, {}
    for name in (options.name, *(name for name in SETS if name != options.name)):
        test = shared(parts[name][2])
        said = training.predict(model, test, tta="flip").argmax(1)
        people = test.subject
        answers[name] = test.labels, said, people
        majority = np.full(len(test), np.bincount(train.labels).argmax())
        table = metrics.confusion(test.labels, said, 7)
        found[name] = {"faces": len(test), **scores(*answers[name])}
        found[name] |= {"majority": scores(test.labels, majority, people), "confusion": table.tolist()}
    lost = {name: drop(*answers.values(), statistic) for name, statistic in SCORES.items()}
    record = {**records.circumstances(options), "classes": CLASSES, "training": made}
    with files.replacing(f"data/results/cross_set_{options.name}.json") as file:
        file.write(json.dumps({**record, "test": found, "drop": lost}, indent=1).encode())
    print(json.dumps(lost))


if __name__ == "__main__":
    main()
