"""What a start is worth to a network that then sees few real labels: label efficiency on FER2013.

    python -m benchmarks.transfer fer2013 --data FOLDER [--starts scratch drawn imagenet] [--labels 100 ...]

Starts: "scratch" (random weights); "drawn" (trained on drawn faces first; its body frozen, and fine-tuned);
"imagenet" (EfficientNet-Lite0 with ImageNet weights at 96 pixels; frozen, and fine-tuned from that head).
A label is a label: of those allowed, a fifth is kept from training, and the accuracy on it picks the epoch.
PublicTest (its pixel-identical twins are left out of Training) is read at the end of each training, and
nothing is chosen on it. 0 labels means all. Writes data/results/transfer_fer2013.json after each training;
rows of other starts and numbers of labels stay in it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from benchmarks import records
from helpers import datasets, files, losses, metrics, models, training
from helpers.batches import Augment

SMALL = {"name": "face-cnn-fast", "num_classes": 7, "widths": (16, 32, 64, 128), "dropout": 0.1}
LITE0 = {"name": "efficientnet_lite0", "num_classes": 7, "weights": "DEFAULT", "resize": 96}
STEPS = {100: 160, 300: 260, 1000: 450, 3000: 800, 0: 1800}
"""Steps of 32 labels by their number; 0, all of them: 64 a step."""
TUNING = {100: 12, 300: 8, 1000: 5, 3000: 3}
"""Passes in which all of EfficientNet-Lite0 learns: as many as some 40 minutes of one core allow."""

FEATURES: list = []  # of the test faces and their mirror images, once they are known

AUGMENT = Augment(rotation=8, translation=0.07, scale=0.1, brightness=0.1, contrast=0.25, erasing=0.2)
SCRATCH = training.Config(
    batch_size=32, lr=3e-3, weight_decay=0.05, ema=0.98, schedule="one-cycle", warmup=0.2, augment=AUGMENT
)
FINE = replace(SCRATCH, lr=2e-3, lr_decay=0.7)
HEAD = replace(SCRATCH, lr=2e-3, augment=None)
WHOLE = replace(SCRATCH, lr=1e-3, lr_decay=0.8, ema=0.0, schedule="cosine", warmup=0.1, grad_clip=1.0)
SCORES = {"accuracy": metrics.accuracy, "macro_recall": metrics.balanced_accuracy}


def learn(model: torch.nn.Module, parts: list, config: training.Config, loss: object = None) -> None:
    """Train a network in place on the first part; the second picks the epoch."""
    accuracy = {"accuracy": metrics.on_labels(metrics.accuracy)}
    loss = loss or losses.on_labels(label_smoothing=0.1)
    training.fit(model, *parts, loss, accuracy, config, progress=False)


def trained_on_drawn(seed: int, num: int = 5_000, epochs: int = 6) -> torch.nn.Module:
    """Return a network that has seen drawn faces only; its epoch is picked on faces of other people."""
    how = {"balance": "uniform", "faces_per_person": 2, "ambiguity": 0.5}
    parts = [
        datasets.load("synthetic", num_faces=n, seed=500 + 2 * seed + i, **how)
        for i, n in enumerate((num, 800))
    ]
    torch.manual_seed(seed)
    model, plan = models.create(**SMALL), replace(SCRATCH, epochs=epochs, batch_size=64, seed=seed)
    learn(model, parts, replace(plan, monitor="loss"), losses.on_distribution(losses.soft_cross_entropy))
    return model


def from_small(parts: list, num: int, seed: int, drawn: bool) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield each start of the small network with what it ends as."""
    size = 32 if num else 64
    plan = {"epochs": max(1, round(STEPS[num] / (len(parts[0]) // size))), "batch_size": size, "seed": seed}
    torch.manual_seed(seed)
    scratch, frozen, fine = (models.create(**SMALL) for _ in range(3))
    if not drawn:
        learn(scratch, parts, replace(SCRATCH, **plan))
        yield "scratch", scratch
        return
    body = models.split(trained_on_drawn(seed))[0].state_dict()
    for model in (frozen, fine):
        models.split(model)[0].load_state_dict(body)
    kept = [replace(part, images=training.features(frozen, part)) for part in parts]
    learn(models.split(frozen)[1], kept, replace(HEAD, **plan))
    yield "drawn faces, frozen", frozen
    learn(fine, parts, replace(FINE, **plan))
    yield "drawn faces, fine-tuned", fine


def from_imagenet(
    parts: list, num: int, seed: int, test: datasets.FaceSet
) -> Iterator[tuple[str, torch.nn.Module | np.ndarray]]:
    """Yield EfficientNet-Lite0 after phase 1, its body frozen, and after phase 2, all of it at lower rates.

    Of the first only the predictions, from features of the test faces that are computed once for all seeds.
    """
    torch.manual_seed(seed)
    model = models.create(**LITE0)
    if not FEATURES:
        mirrored = replace(test, images=np.asarray(test.images)[..., ::-1].copy())
        FEATURES.extend(replace(view, images=training.features(model, view)) for view in (test, mirrored))
    kept = [replace(part, images=training.features(model, part)) for part in parts]
    head = models.split(model)[1]
    epochs = max(1, round(STEPS[num] / (len(parts[0]) // 32)))
    learn(head, kept, replace(HEAD, epochs=epochs, seed=seed))
    yield "ImageNet, frozen", sum(metrics.softmax(training.predict(head, view)) for view in FEATURES)
    learn(model, parts, replace(WHOLE, epochs=TUNING[num], seed=seed))
    yield "ImageNet, fine-tuned", model


def scores(labels: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, float]]:
    """Return scores with 95 % intervals over faces."""
    found = {name: metrics.bootstrap(score, labels, predicted) for name, score in SCORES.items()}
    return {name: {"value": i.value, "low": i.low, "high": i.high} for name, i in found.items()}


def summary(rows: list[dict], score: str = "accuracy") -> list[dict]:
    """Return for each start and number of labels the mean over seeds with its interval by Student's t.

    "gain" is the difference to scratch, "over_drawn" that to the fine-tuned drawn faces, both with the same
    labels, so that seeds are paired.
    """
    found = []
    against = {"gain": "scratch", "over_drawn": "drawn faces, fine-tuned"}
    for start, labels in dict.fromkeys((each["start"], each["labels"]) for each in rows):
        ours = _by_seed(rows, start, labels, score)
        entry = {"start": start, "labels": labels, "seeds": len(ours), score: over_seeds(list(ours.values()))}
        for name, other in against.items():
            theirs = _by_seed(rows, other, labels, score)
            paired = [value - theirs[seed] for seed, value in ours.items() if seed in theirs]
            if start != other and paired and (name == "gain" or start.startswith("ImageNet")):
                entry[name] = over_seeds(paired)
        found.append(entry)
    return found


def _by_seed(rows: list[dict], start: str, labels: int, score: str) -> dict[int, float]:
    same = (each for each in rows if (each["start"], each["labels"]) == (start, labels))
    return {each["seed"]: each[score]["value"] for each in same}


def over_seeds(values: list[float], level: float = 0.95) -> dict[str, float | None]:
    """Return a mean with its interval by Student's t; a single value has none."""
    mean, num = float(np.mean(values)), len(values)
    if num < 2:
        return {"value": mean, "low": None, "high": None}
    half = float(stats.t.ppf((1 + level) / 2, num - 1) * np.std(values, ddof=1) / num**0.5)
    return {"value": mean, "low": mean - half, "high": mean + half}


def main() -> None:
    """Measure, print and keep the figures."""
    parser = records.options(__doc__)
    parser.add_argument("--starts", nargs="+", default=["scratch", "drawn", "imagenet"])
    parser.add_argument("--labels", type=int, nargs="+", choices=STEPS, default=[100, 300, 1000, 3000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    train, _, test = datasets.load(options.name, options.data).splits(seed=0, validation=0)
    path = Path(f"data/results/transfer_{options.name}.json")
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
    for start in options.starts:
        for num in options.labels:
            for seed in options.seeds:
                chosen = np.random.default_rng(seed).permutation(len(train))[: num or len(train)]
                parts = [train.select(chosen[len(chosen) // 5 :]), train.select(chosen[: len(chosen) // 5])]
                ends = from_imagenet(parts, num, seed, test) if start == "imagenet" else None
                ends = ends or from_small(parts, num, seed, drawn=start == "drawn")
                measure(ends, test, {"labels": len(chosen), "seed": seed}, record["rows"])
                keep(path, options, record)


def measure(ends: Iterator, test: datasets.FaceSet, about: dict, rows: list[dict]) -> None:
    """Put the test scores of each network in place of an earlier row of the same kind, and print them."""
    started = time.process_time()
    for name, model in ends:
        row = {"start": name, **about, "cpu_seconds": time.process_time() - started}
        outputs = model if isinstance(model, np.ndarray) else training.predict(model, test, tta="flip")
        row |= scores(test.labels, outputs.argmax(1))
        key = [name, *about.values()]
        rows[:] = [each for each in rows if [each["start"], each["labels"], each["seed"]] != key] + [row]
        print(*key, f"{row['accuracy']['value']:.3f} {row['cpu_seconds']:.0f} s", flush=True)
        started = time.process_time()


def keep(path: Path, options: argparse.Namespace, record: dict) -> None:
    """Write the record."""
    record |= {"networks": {"small": SMALL, "imagenet": LITE0}, "tuning_epochs": TUNING}
    record["measured"] = record.get("measured", {}) | {
        start: records.circumstances(options) for start in options.starts
    }
    record["summary"] = summary(record["rows"])
    files.write(path, json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
