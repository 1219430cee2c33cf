"""What notebook 05 compares, with several seeds, and how far a longer training gets.

    python -m benchmarks.multitask comparisons [--faces 2500] [--epochs 6] [--seeds 3]
    python -m benchmarks.multitask longer [--faces 40000] [--epochs 8] [--seeds 3]

The comparisons of losses, heads and augmentation share faces, steps and network, the one that the notebook
trains. The longer training has more faces, a larger network, the shares of ten people's votes in place of one
label, and a fourth head for the action units, which is thrown away afterwards. All are trained on drawn faces
and scored on 4,000 others, of other people; the best epoch is chosen on validation faces cut from the
training ones. Writes data/results/multitask_<part>.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from benchmarks import records
from helpers import datasets, faces, losses, metrics, models, training
from helpers.batches import Augment

V1 = Augment(rotation=8, translation=0.06, scale=0.08, brightness=0.1, contrast=0.2, erasing=0)
V2 = replace(V1, erasing=0.25, perspective=0.2)
CONFIG = training.Config(batch_size=64, lr=4e-3, weight_decay=0.05, monitor="mean score", augment=V1)
NUMBERS = ("valence", "arousal")
HEADS = {"labels": 7, "valence": 1, "arousal": 1}
SCORES = {
    "labels": ("accuracy", metrics.on_labels(metrics.accuracy)),
    "valence": ("CCC valence", metrics.on_dimension(metrics.ccc, "valence")),
    "arousal": ("CCC arousal", metrics.on_dimension(metrics.ccc, "arousal")),
}
UNITS_WEIGHT = 20.0  # of their squared errors, which are about .05 for a constant prediction
JUDGED_SEED = 1_000_002  # of the faces that are scored: other people than any trained or tried on

NARROW = {"stem": "unshuffle", "widths": (16, 32, 64), "pool_first": True, "dropout": 0.1}
NARROW |= {"contrast": 4, "readout": "grid"}
DEEP = NARROW | {"widths": (32, 64, 128), "convs": 2, "head_width": 256, "dropout": 0.0}
"""The face-cnn of the notebook's comparisons, and one twice as wide and deep for longer trainings."""


def terms(distance: losses.Loss, heads: Iterable[str] = HEADS) -> dict[str, losses.Loss]:
    """Return the loss of each head; ``distance`` is that of valence and arousal."""
    every = {name: losses.on_dimension(name, distance) for name in NUMBERS}
    every["labels"] = losses.on_labels(label_smoothing=0.1)
    return {name: every[name] for name in heads}


def plain(distance: losses.Loss, heads: Iterable[str] = HEADS) -> losses.Loss:
    """Return the sum of the losses of some heads."""
    return losses.weighted_sum(terms(distance, heads), {})


def learned() -> losses.Loss:
    """Return squared errors and cross-entropy with learned weights."""
    return losses.UncertaintyWeighted(terms(losses.mse), NUMBERS, speed=10)


def thorough() -> losses.Loss:
    """Return the loss of what :func:`with_units` prepares: votes, CCC, and squared errors of the units."""
    every = {
        "labels": lambda out, known: losses.soft_cross_entropy(out["labels"], known["distribution"]),
        "units": lambda out, known: losses.mse(out["units"], known["valence_arousal"][:, 2:]),
    }
    return losses.weighted_sum(every | terms(losses.ccc_loss, NUMBERS), {"units": UNITS_WEIGHT})


def with_units(known: datasets.FaceSet) -> datasets.FaceSet:
    """Return drawn faces with the shares of their votes, and the action units behind valence and arousal."""
    shares = known.votes / known.votes.sum(axis=1, keepdims=True)
    numbers = np.concatenate([known.valence_arousal, known.action_units], axis=1)
    return replace(known, distribution=shares.astype(np.float32), valence_arousal=numbers)


RUNS = {
    "CE + MSE": (lambda: plain(losses.mse), HEADS, V1),
    "CE + CCC": (lambda: plain(losses.ccc_loss), HEADS, V1),
    "learned weights": (learned, HEADS, V1),
    "label alone": (lambda: plain(losses.mse, ["labels"]), {"labels": 7}, V1),
    "numbers alone": (lambda: plain(losses.ccc_loss, NUMBERS), dict.fromkeys(NUMBERS, 1), V1),
    "no augmentation": (lambda: plain(losses.ccc_loss), HEADS, None),
    "v2": (lambda: plain(losses.ccc_loss), HEADS, V2),
}
"""Name to (loss, heads, augmentation)."""
LONGER = {"votes + CCC + units": (thorough, HEADS | {"units": len(faces.ACTION_UNITS)}, V1.scaled(0.5))}


class Part(NamedTuple):
    """What one of the two records is made of; ``prepared`` makes the faces ready for the loss."""

    runs: dict[str, tuple]
    network: Mapping[str, object]
    faces: int
    epochs: int
    config: training.Config = CONFIG
    prepared: Callable[[datasets.FaceSet], datasets.FaceSet] = lambda known: known


PARTS = {
    "comparisons": Part(RUNS, NARROW, 2500, 6),
    "longer": Part(LONGER, DEEP, 40_000, 8, replace(CONFIG, lr=3e-3), with_units),
}


def scores_of(heads: Iterable[str]) -> dict[str, Callable]:
    """Return the scores of those heads that have one, and their mean."""
    named = dict(SCORES[head] for head in heads if head in SCORES)
    return named | {"mean score": lambda out, known: np.mean([f(out, known) for f in named.values()])}


def train(
    sets: tuple[datasets.FaceSet, ...], part: Part, run: tuple, seed: int, epochs: int
) -> torch.nn.Module:
    """Return a network trained with one seed."""
    make_loss, heads, augment = run
    torch.manual_seed(seed)
    model = models.create("face-cnn", heads, **part.network)
    config = replace(part.config, epochs=epochs, augment=augment, seed=seed)
    ready = map(part.prepared, sets)
    training.fit(model, *ready, make_loss(), scores_of(heads), config, progress=False)
    return model


def judge(outputs: dict[str, np.ndarray], judged: datasets.FaceSet, heads: Iterable[str]) -> dict[str, float]:
    """Return the scores of outputs for faces of other people."""
    targets = {"labels": judged.labels, "valence_arousal": judged.valence_arousal}
    found = {name: float(score(outputs, targets)) for name, score in scores_of(heads).items()}
    del found["mean score"]
    for name, truth in zip(NUMBERS, judged.valence_arousal.T, strict=True):
        if name in outputs:
            found |= numbers(name, judged.labels, truth, outputs[name][:, 0])
    if "units" in outputs:  # how much of each action unit it sees
        explained = metrics.r2(judged.action_units, outputs["units"]).tolist()
        found |= {f"R² {unit}": share for unit, share in zip(faces.ACTION_UNITS, explained, strict=True)}
    return found


def numbers(name: str, labels: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return RMSE and within-class CCC of valence or arousal."""
    within = metrics.within_class_ccc(labels, truth, predicted)
    rmse = float(metrics.rmse(truth, predicted))
    return {f"RMSE {name}": rmse, f"within-class CCC {name}": float(within)}


def averaged(several: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the mean of the outputs of several networks, of the label its probabilities."""
    mean = {name: np.mean([outputs[name] for outputs in several], axis=0) for name in several[0]}
    if "labels" in mean:
        mean["labels"] = np.mean([metrics.softmax(outputs["labels"]) for outputs in several], axis=0)
    return mean


def over_seeds(scores: list[dict[str, float]], level: float = 0.95) -> dict[str, dict]:
    """Return mean and half width of the 95 % interval of each score over seeds (Student; one seed: None)."""
    table, num = {name: np.array([record[name] for record in scores]) for name in scores[0]}, len(scores)
    wide = stats.t.ppf((1 + level) / 2, num - 1) / num**0.5 if num > 1 else None
    return {
        "mean": {name: float(values.mean()) for name, values in table.items()},
        "half_width": {name: wide and float(wide * values.std(ddof=1)) for name, values in table.items()},
        "seeds": scores,
    }


def ceiling(judged: datasets.FaceSet) -> dict[str, float]:
    """Return what knowing every action unit scores on these faces."""
    truth = faces.valence_arousal(torch.tensor(judged.action_units)).numpy()
    found = {"accuracy": float(judged.distribution.max(axis=1).mean())}
    for name, annotated, exact in zip(NUMBERS, judged.valence_arousal.T, truth.T, strict=True):
        found[f"CCC {name}"] = float(metrics.ccc(annotated, exact))
        found |= numbers(name, judged.labels, annotated, exact)
    return found


def floor(judged: datasets.FaceSet) -> dict[str, float]:
    """Return what the most frequent class and the mean score on these faces."""
    shares, spread = np.bincount(judged.labels) / len(judged.labels), judged.valence_arousal.std(axis=0)
    found = {f"RMSE {name}": float(spread[i]) for i, name in enumerate(NUMBERS)}
    return found | {"accuracy": float(shares.max()), "CCC valence": 0.0, "CCC arousal": 0.0}


def repeated(
    part: Part, run: tuple, parts: tuple[datasets.FaceSet, ...], options: argparse.Namespace
) -> dict:
    """Return the scores of a run over the seeds and together, and the CPU seconds of a training."""
    *sets, judged = parts
    outputs, scores, started = [], [], time.process_time()
    for seed in range(options.seeds):
        model = train(tuple(sets), part, run, seed, options.epochs)
        outputs.append(training.predict(model, judged, tta="flip"))
        scores.append(judge(outputs[-1], judged, run[1]))
        print(" ", {name: round(value, 3) for name, value in scores[-1].items()}, flush=True)
    spent = (time.process_time() - started) / options.seeds
    together = judge(averaged(outputs), judged, run[1])
    found = {"together": together, "cpu_seconds": spent, "augment": run[2] and asdict(run[2])}
    return over_seeds(scores) | found


def main() -> None:
    """Train every run of a part with every seed; write the scores after each."""
    parser = records.parser(__doc__, faces=0, epochs=0, seeds=3)
    parser.add_argument("part", choices=PARTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    part = PARTS[options.part]
    options.epochs = options.epochs or part.epochs
    drawn = datasets.load("synthetic", options.data, num_faces=options.faces or part.faces)
    judged = datasets.load("synthetic", options.data, num_faces=4000, seed=JUDGED_SEED)
    sets = drawn.splits(test=0.0)[:2]
    record = {"set": "synthetic", **records.circumstances(options), "network": dict(part.network)}
    record["faces"] = {"train": len(sets[0]), "validation": len(sets[1]), "judged": len(judged)}
    record["parameters"] = models.num_parameters(models.create("face-cnn", HEADS, **part.network))
    record["config"] = asdict(replace(part.config, epochs=options.epochs, augment=None))
    record |= {"floor": floor(judged), "ceiling": ceiling(judged), "runs": {}}
    for name, run in part.runs.items():
        print(name, flush=True)
        record["runs"][name] = repeated(part, run, (*sets, judged), options)
        records.write(f"multitask_{options.part}", record)


if __name__ == "__main__":
    main()
