"""What notebook 05 compares, with several seeds, and how far a longer training gets.

    python -m benchmarks.multitask comparisons [--faces 2500] [--epochs 6] [--seeds 3]
    python -m benchmarks.multitask longer [--faces 40000] [--epochs 8] [--seeds 3]
    python -m benchmarks.multitask shorter [--faces 10000] [--epochs 8] [--seeds 3]

The comparisons of losses, heads and augmentation share faces, steps and network, the one that the notebook
trains. The longer training has more faces, a larger network, the shares of ten people's votes in place of one
word, and a fourth head for the action units, which is thrown away afterwards; the shorter one is the same on
a quarter of the faces, so that what more of them bring can be read off. All are trained on drawn faces and
scored on 4,000 others, of other people; the best epoch is chosen on validation faces cut from the training
ones. Writes data/results/multitask_<part>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from helpers import datasets, faces, files, losses, metrics, models, runtime, training
from helpers.batches import Augment

V1 = Augment(rotation=8, translation=0.06, scale=0.08, brightness=0.1, contrast=0.2, erasing=0)
V2 = replace(V1, erasing=0.25, perspective=0.2)
CONFIG = training.Config(batch_size=64, lr=4e-3, weight_decay=0.05, monitor="mean score", augment=V1)
HEADS = {"labels": 7, "valence": 1, "arousal": 1}
SCORES = {
    "labels": ("accuracy", metrics.on_labels(metrics.accuracy)),
    "valence": ("CCC valence", metrics.on_dimension(metrics.ccc, "valence")),
    "arousal": ("CCC arousal", metrics.on_dimension(metrics.ccc, "arousal")),
}
UNITS_WEIGHT = 20.0  # of their squared errors, which are about .05 for somebody who knows nothing
JUDGED_SEED = 1_000_002  # of the faces that are scored: other people than any trained or tried on


def terms(distance: losses.Loss, heads: Iterable[str] = HEADS) -> dict[str, losses.Loss]:
    """Return the loss of each head.

    Args:
        distance: of the two numbers.
        heads: which ones.
    """
    every = {name: losses.on_dimension(name, distance) for name in ("valence", "arousal")}
    every["labels"] = losses.on_labels(label_smoothing=0.1)
    return {name: every[name] for name in heads}


def plain(distance: losses.Loss, heads: Iterable[str] = HEADS) -> losses.Loss:
    """Return the sum of the losses of some heads.

    Args:
        distance: of the two numbers.
        heads: which ones.
    """
    return losses.weighted_sum(terms(distance, heads), {})


def thorough() -> losses.Loss:
    """Return the loss of what :func:`with_units` prepares: votes, CCC, and squared errors of the units."""
    every = {
        "labels": lambda said, known: losses.soft_cross_entropy(said["labels"], known["distribution"]),
        "units": lambda said, known: losses.mse(said["units"], known["valence_arousal"][:, 2:]),
    }
    return losses.weighted_sum(every | terms(losses.ccc_loss, NUMBERS), {"units": UNITS_WEIGHT})


def with_units(known: datasets.FaceSet) -> datasets.FaceSet:
    """Return drawn faces with the shares of their votes, and the action units behind valence and arousal.

    Args:
        known: with votes and action units.
    """
    shares = known.votes / known.votes.sum(axis=1, keepdims=True)
    numbers = np.concatenate([known.valence_arousal, known.action_units], axis=1)
    return replace(known, distribution=shares.astype(np.float32), valence_arousal=numbers)


def learned() -> losses.Loss:
    """Return squared errors and cross-entropy with learned weights."""
    return losses.UncertaintyWeighted(terms(losses.mse), ("valence", "arousal"), speed=10)


NUMBERS = ("valence", "arousal")


NARROW = {"stem": "unshuffle", "widths": (16, 32, 64), "pool_first": True, "dropout": 0.1}
NARROW |= {"contrast": 4, "readout": "grid"}
DEEP = NARROW | {"widths": (32, 64, 128), "convs": 2, "head_width": 256, "dropout": 0.0}
"""The face-cnn of the notebook's comparisons, and one twice as wide and deep for longer trainings."""


RUNS = {
    "CE + MSE": (lambda: plain(losses.mse), HEADS, V1),
    "CE + CCC": (lambda: plain(losses.ccc_loss), HEADS, V1),
    "learned weights": (learned, HEADS, V1),
    "word alone": (lambda: plain(losses.mse, ["labels"]), {"labels": 7}, V1),
    "numbers alone": (lambda: plain(losses.ccc_loss, NUMBERS), dict.fromkeys(NUMBERS, 1), V1),
    "no augmentation": (lambda: plain(losses.ccc_loss), HEADS, None),
    "v2": (lambda: plain(losses.ccc_loss), HEADS, V2),
}
"""Name to (loss, heads, augmentation)."""
LONGER = {"votes + CCC + units": (thorough, HEADS | {"units": len(faces.ACTION_UNITS)}, V1.scaled(0.5))}


class Part(NamedTuple):
    """What one of the two records is made of.

    Args:
        runs: name to (loss, heads, augmentation).
        network: options of face-cnn.
        faces: to draw.
        epochs: passes over them.
        config: how to train, but for epochs, augmentation and seed.
        prepared: makes the faces ready for the loss.
    """

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
PARTS["shorter"] = PARTS["longer"]._replace(faces=10_000)


def scores_of(heads: Iterable[str]) -> dict[str, training.evaluation.Metric]:
    """Return the scores of those heads that have one, and their mean.

    Args:
        heads: their names.
    """
    named = dict(SCORES[head] for head in heads if head in SCORES)
    return named | {
        "mean score": lambda outputs, targets: np.mean([f(outputs, targets) for f in named.values()])
    }


def train(
    sets: tuple[datasets.FaceSet, ...], part: Part, run: tuple, seed: int, epochs: int
) -> tuple[torch.nn.Module, float]:
    """Return a network trained with one seed, and the CPU seconds it took.

    Args:
        sets: training and validation faces.
        part: whose network and settings.
        run: loss, heads and augmentation.
        seed: of weights, order and augmentation.
        epochs: passes over the training faces.
    """
    make_loss, heads, augment = run
    torch.manual_seed(seed)
    model = models.create("face-cnn", heads, **part.network)
    config, started = replace(part.config, epochs=epochs, augment=augment, seed=seed), time.process_time()
    ready = map(part.prepared, sets)
    training.fit(model, *ready, make_loss(), scores_of(heads), config, progress=False)
    return model, time.process_time() - started


def judge(outputs: dict[str, np.ndarray], judged: datasets.FaceSet, heads: Iterable[str]) -> dict[str, float]:
    """Return what answers for faces of other people score.

    Args:
        outputs: head to its outputs.
        judged: the faces.
        heads: which heads.
    """
    targets = {"labels": judged.labels, "valence_arousal": judged.valence_arousal}
    found = {name: float(score(outputs, targets)) for name, score in scores_of(heads).items()}
    del found["mean score"]
    for i, name in enumerate(NUMBERS):
        if name in outputs:
            truth, said = judged.valence_arousal[:, i], outputs[name][:, 0]
            found[f"RMSE {name}"] = float(metrics.rmse(truth, said))
            found[f"within-class CCC {name}"] = float(metrics.within_class_ccc(judged.labels, truth, said))
    if "units" in outputs:  # how much of each muscle it sees
        explained = metrics.r2(judged.action_units, outputs["units"]).tolist()
        found |= {f"R² {unit}": share for unit, share in zip(faces.ACTION_UNITS, explained, strict=True)}
    return found


def averaged(several: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the mean of the answers of several networks, of the word its probabilities.

    Args:
        several: the outputs of each by head.
    """
    mean = {name: np.mean([outputs[name] for outputs in several], axis=0) for name in several[0]}
    if "labels" in mean:
        mean["labels"] = np.mean([metrics.softmax(outputs["labels"]) for outputs in several], axis=0)
    return mean


def over_seeds(scores: list[dict[str, float]], level: float = 0.95) -> dict[str, dict]:
    """Return mean and half width of the interval of each score over seeds, by Student's t; one seed has none.

    Args:
        scores: one record a seed.
        level: of the interval.
    """
    table, num = {name: np.array([record[name] for record in scores]) for name in scores[0]}, len(scores)
    wide = stats.t.ppf((1 + level) / 2, num - 1) / num**0.5 if num > 1 else None
    return {
        "mean": {name: float(values.mean()) for name, values in table.items()},
        "half_width": {name: wide and float(wide * values.std(ddof=1)) for name, values in table.items()},
        "seeds": scores,
    }


def ceiling(judged: datasets.FaceSet) -> dict[str, float]:
    """Return what knowing every action unit scores on these faces.

    Args:
        judged: the faces.
    """
    truth = faces.valence_arousal(torch.tensor(judged.action_units)).numpy()
    found = {"accuracy": float(judged.distribution.max(axis=1).mean())}
    for i, name in enumerate(NUMBERS):
        annotated = judged.valence_arousal[:, i]
        found[f"CCC {name}"] = float(metrics.ccc(annotated, truth[:, i]))
        found[f"RMSE {name}"] = float(metrics.rmse(annotated, truth[:, i]))
        within = metrics.within_class_ccc(judged.labels, annotated, truth[:, i])
        found[f"within-class CCC {name}"] = float(within)
    return found


def floor(judged: datasets.FaceSet) -> dict[str, float]:
    """Return what the commonest word and the mean score on these faces.

    Args:
        judged: the faces.
    """
    shares, spread = np.bincount(judged.labels) / len(judged.labels), judged.valence_arousal.std(axis=0)
    found = {f"RMSE {name}": float(spread[i]) for i, name in enumerate(NUMBERS)}
    return found | {"accuracy": float(shares.max()), "CCC valence": 0.0, "CCC arousal": 0.0}


def tell(name: str, values: dict[str, float], seconds: float) -> None:
    """Print one line.

    Args:
        name: of the run.
        values: its scores.
        seconds: of the CPU.
    """
    print(f"{name:20} {seconds:5.0f} CPU-s", {k: round(v, 3) for k, v in values.items()}, flush=True)


def repeated(
    part: Part,
    run: tuple,
    sets: tuple[datasets.FaceSet, ...],
    judged: datasets.FaceSet,
    options: argparse.Namespace,
) -> Iterator[dict]:
    """Train a run with each seed; yield the scores over the seeds so far and together, and the CPU seconds.

    Args:
        part: whose network and settings.
        run: loss, heads and augmentation.
        sets: training and validation faces.
        judged: the faces that are scored.
        options: of the command line.
    """
    answers, scores, seconds = [], [], []
    for seed in range(options.seeds):
        model, spent = train(sets, part, run, seed, options.epochs)
        answers.append(training.predict(model, judged, tta="flip"))
        scores.append(judge(answers[-1], judged, run[1]))
        seconds.append(spent)
        tell(f"  seed {seed}", scores[-1], spent)
        together = judge(averaged(answers), judged, run[1])
        found = {"together": together, "cpu_seconds": float(np.mean(seconds))}
        yield over_seeds(scores) | found | {"augment": run[2] and asdict(run[2])}


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--faces", type=int, help="to draw; a tenth is for validation")
    parser.add_argument("--epochs", type=int, help="passes over them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default="data", help="folder whose cache/ keeps the drawn faces")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", help="file to write")
    options = parser.parse_args()
    options.faces = options.faces or PARTS[options.part].faces
    options.epochs = options.epochs or PARTS[options.part].epochs
    options.out = options.out or f"data/results/multitask_{options.part}.json"
    return options


def circumstances(
    options: argparse.Namespace, sets: tuple[datasets.FaceSet, ...], judged: datasets.FaceSet
) -> dict:
    """Return a record without runs: command, machine, faces, settings, floor and ceiling.

    Args:
        options: of the command line.
        sets: training and validation faces.
        judged: the faces that are scored.
    """
    part = PARTS[options.part]
    words = ["FOLDER" if word == options.data else word for word in sys.argv[1:]]
    config = asdict(replace(part.config, epochs=options.epochs))
    config.pop("augment")  # each run has its own
    return {
        "set": "synthetic",
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.multitask", *words]),
        "machine": runtime.machine(),
        "faces": {"train": len(sets[0]), "validation": len(sets[1]), "judged": len(judged)},
        "network": dict(part.network),
        "parameters": models.num_parameters(models.create("face-cnn", HEADS, **part.network)),
        "config": config,
        "floor": floor(judged),
        "ceiling": ceiling(judged),
        "runs": {},
    }


def main() -> None:
    """Train every run of a part with every seed; write what they score."""
    options = arguments()
    torch.set_num_threads(options.threads)
    part = PARTS[options.part]
    judged = datasets.load("synthetic", options.data, num_faces=4000, seed=JUDGED_SEED)
    started = time.process_time()
    sets = datasets.load("synthetic", options.data, num_faces=options.faces).splits(test=0.0)[:2]
    record = circumstances(options, sets, judged)
    record["cpu_seconds_drawing"] = time.process_time() - started
    for name, run in part.runs.items():
        print(name, flush=True)
        for found in repeated(part, run, sets, judged, options):  # kept, should it be cut short
            record["runs"][name] = found
            with files.replacing(options.out) as file:
                file.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
