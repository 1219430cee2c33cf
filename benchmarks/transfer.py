"""What drawn faces are worth to a network that then sees few real ones: label efficiency on FER2013.

    python -m benchmarks.transfer fer2013 --data FOLDER [--labels 100 300 1000 3000 0] [--seeds 3]

For each seed a network is trained on drawn faces of its own. Then, with the same real labels: that network
with its body frozen and a new head, that network fine-tuned at rates that fall with depth, and one from
chance. A label is a label: of those allowed, a fifth is kept from training, and the accuracy on it picks the
epoch (of 20 faces the loss picks worse: from chance, networks that say the same of every face). PublicTest
(its pixel-identical twins are left out of Training) is read at the end of each training; nothing was chosen
on it. 0 labels means all of them. Writes data/results/transfer_fer2013.json, after each number of labels and
seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import stats

from benchmarks import records
from helpers import datasets, emotions, faces, files, losses, metrics, models, training
from helpers.batches import Augment

NET = {"name": "face-cnn-fast", "num_classes": 7, "widths": (16, 32, 64, 128), "dropout": 0.1}
AUGMENT = Augment(rotation=8, translation=0.07, scale=0.1, brightness=0.1, contrast=0.25, erasing=0.2)
STEPS = {100: 160, 300: 260, 1000: 450, 3000: 800, 0: 1800}
"""Steps of 32 labels by their number, the same for every start; 0, all of them: five times, 64 a step."""

COMMON = training.Config(batch_size=32, weight_decay=0.05, ema=0.98, augment=AUGMENT)
SCRATCH = replace(COMMON, lr=3e-3)
FINE = replace(COMMON, lr=2e-3, lr_decay=0.7)
HEAD = replace(COMMON, lr=2e-3, augment=None)

SCORES = {"accuracy": metrics.accuracy, "macro_recall": metrics.balanced_accuracy}


@dataclass(frozen=True)
class Pictures:
    """What a training loop needs of a set of faces; see ``datasets.FaceSet``."""

    images: np.ndarray
    labels: np.ndarray
    distribution: np.ndarray | None = None
    valence_arousal: None = None
    classes: tuple[str, ...] = emotions.FER7

    def __len__(self) -> int:
        return len(self.images)

    def some(self, rows: np.ndarray) -> Pictures:
        """Return the faces in these rows.

        Args:
            rows: positions.
        """
        return Pictures(np.asarray(self.images)[rows], self.labels[rows])


def drawn(num: int, seed: int) -> Pictures:
    """Return drawn faces with their true distributions, as many of each expression.

    Args:
        num: how many.
        seed: which.
    """
    made = faces.sample(num, seed, balance="uniform", faces_per_person=2, ambiguity=0.5)
    p = made.class_probabilities
    return Pictures(made.images.numpy(), p.argmax(1).numpy(), p.numpy())


def learn(
    model: torch.nn.Module,
    train: Pictures,
    validation: Pictures,
    config: training.Config,
    loss: Callable | None = None,
) -> None:
    """Train a network in place.

    Args:
        model: the network.
        train: faces to learn from.
        validation: faces that pick the epoch.
        config: how.
        loss: of outputs and targets; by default cross-entropy with a tenth of label smoothing.
    """
    loss = loss or losses.on_labels(label_smoothing=0.1)
    accuracy = {"accuracy": metrics.on_labels(metrics.accuracy)}
    training.fit(model, train, validation, loss, accuracy, config, progress=False)


def pretrained(options: argparse.Namespace, seed: int) -> torch.nn.Module:
    """Return a network that has seen drawn faces only.

    Args:
        options: the command line's.
        seed: of faces, network and training.
    """
    parts = drawn(options.faces, 500 + 2 * seed), drawn(800, 501 + 2 * seed)
    torch.manual_seed(seed)
    model = models.create(**NET)
    config = replace(SCRATCH, epochs=options.epochs, batch_size=64, monitor="loss", seed=seed)
    learn(model, *parts, config, losses.on_distribution(losses.soft_cross_entropy))
    return model


def trainings(
    num: int, train: Pictures, validation: Pictures, source: torch.nn.Module, seed: int
) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield each start with the network it ends with.

    Args:
        num: labels, as asked for.
        train: real faces to learn from.
        validation: real faces that pick the epoch.
        source: the network that has seen drawn faces; it stays as it is.
        seed: of networks and training.
    """
    size = 32 if num else 64
    epochs = max(1, round(STEPS[num] / (len(train) // size)))
    plan = {"epochs": epochs, "batch_size": size, "seed": seed}
    torch.manual_seed(seed)
    scratch, frozen, fine = models.create(**NET), models.create(**NET), models.create(**NET)
    for model in (frozen, fine):
        models.split(model)[0].load_state_dict(models.split(source)[0].state_dict())
    learn(scratch, train, validation, replace(SCRATCH, **plan))
    yield "scratch", scratch
    kept = [replace(part, images=training.features(frozen, part)) for part in (train, validation)]
    learn(models.split(frozen)[1], *kept, replace(HEAD, **plan))
    yield "drawn faces, frozen", frozen
    learn(fine, train, validation, replace(FINE, **plan))
    yield "drawn faces, fine-tuned", fine


def row(real: Pictures, test: datasets.FaceSet, source: torch.nn.Module, num: int, seed: int) -> list[dict]:
    """Return what each start reaches with so many labels.

    Args:
        real: the real faces that labels are drawn from.
        test: the test faces.
        source: the network that has seen drawn faces.
        num: labels, 0 for all.
        seed: which labels.
    """
    chosen = np.random.default_rng(seed).permutation(len(real))[: num or len(real)]
    fifth = len(chosen) // 5
    parts = real.some(chosen[fifth:]), real.some(chosen[:fifth])
    found, start = [], time.process_time()
    for name, model in trainings(num, *parts, source, seed):
        took = time.process_time() - start
        found.append({"start": name, "labels": len(chosen), "seed": seed, "cpu_seconds": took})
        found[-1] |= tested(model, test)
        print(
            f"{len(chosen):6,} {seed} {name:24} {found[-1]['accuracy']['value']:.3f} {took:5.0f} s",
            flush=True,
        )
        start = time.process_time()
    return found


def tested(model: torch.nn.Module, test: datasets.FaceSet) -> dict[str, dict[str, float]]:
    """Return scores on real faces with 95 % intervals over faces.

    Args:
        model: the network.
        test: the faces.
    """
    return scores(test.labels, training.predict(model, test, tta="flip").argmax(1))


def scores(labels: np.ndarray, said: np.ndarray) -> dict[str, dict[str, float]]:
    """Return scores with 95 % intervals over faces.

    Args:
        labels: the true classes.
        said: the predicted ones.
    """
    found = {name: metrics.bootstrap(score, labels, said) for name, score in SCORES.items()}
    return {name: {"value": i.value, "low": i.low, "high": i.high} for name, i in found.items()}


def summary(rows: list[dict], score: str = "accuracy") -> list[dict]:
    """Return for each start and number of labels the mean over seeds and its 95 % interval by Student's t.

    So the interval is over seeds: which labels, which first weights, which drawn faces. "gain" is that of the
    difference to scratch with the same labels.

    Args:
        rows: one record a training.
        score: which score.
    """
    found = []
    for start, labels in dict.fromkeys((each["start"], each["labels"]) for each in rows):
        ours = _by_seed(rows, start, labels, score)
        scratch = _by_seed(rows, "scratch", labels, score)
        gain = [value - scratch[seed] for seed, value in ours.items() if seed in scratch]
        entry = {"start": start, "labels": labels, "seeds": len(ours), score: over_seeds(list(ours.values()))}
        found.append(entry | ({"gain": over_seeds(gain)} if start != "scratch" and gain else {}))
    return found


def _by_seed(rows: list[dict], start: str, labels: int, score: str) -> dict[int, float]:
    same = (each for each in rows if (each["start"], each["labels"]) == (start, labels))
    return {each["seed"]: each[score]["value"] for each in same}


def over_seeds(values: list[float], level: float = 0.95) -> dict[str, float | None]:
    """Return a mean with its interval by Student's t; a single value has none.

    Args:
        values: one a seed.
        level: of the interval.
    """
    mean, num = float(np.mean(values)), len(values)
    if num < 2:
        return {"value": mean, "low": None, "high": None}
    half = float(stats.t.ppf((1 + level) / 2, num - 1) * np.std(values, ddof=1) / num**0.5)
    return {"value": mean, "low": mean - half, "high": mean + half}


def main() -> None:
    """Measure, print and keep the figures."""
    parser = records.options(__doc__)
    parser.add_argument("--faces", type=int, default=5_000, help="drawn faces to start from")
    parser.add_argument("--epochs", type=int, default=6, help="passes over them")
    parser.add_argument("--labels", type=int, nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, _, test = datasets.load(options.name, options.data).splits(seed=0, validation=0)
    real, rows, started = Pictures(train.images, train.labels), [], time.process_time()
    sources = [pretrained(options, seed) for seed in range(options.seeds)]
    about = {
        "drawn_faces": {"faces": options.faces, "epochs": options.epochs},
        "network": NET,
        "steps": STEPS,
    }
    about["drawn_faces"]["cpu_seconds"] = time.process_time() - started
    always = np.full(len(test), np.bincount(train.labels).argmax())
    about["majority"] = scores(test.labels, always)
    for seed, source in enumerate(sources):
        rows.append({"start": "drawn faces alone", "labels": 0, "seed": seed} | tested(source, test))
    for num in options.labels:
        for seed in range(options.seeds):
            rows += row(real, test, sources[seed], num, seed)
            keep(options, about, rows, len(test), time.process_time() - started)


def keep(options: argparse.Namespace, about: dict, rows: list[dict], num: int, cpu_seconds: float) -> None:
    """Write the record.

    Args:
        options: the command line's.
        about: how it was trained.
        rows: one record a training.
        num: test faces.
        cpu_seconds: used so far.
    """
    record = records.circumstances(options) | about | {"test_faces": num, "cpu_seconds": cpu_seconds}
    record |= {"summary": summary(rows), "rows": rows}
    with files.replacing(f"data/results/transfer_{options.name}.json") as file:
        file.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
