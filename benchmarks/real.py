"""How good the workbook's methods are on real faces, and on faces of another collection.

    python -m benchmarks.real cnn fer2013 --data FOLDER        the small CNN
    python -m benchmarks.real hog-svm muxspace --data FOLDER   HOG and an RBF SVM, C and gamma by validation
    python -m benchmarks.real cross fer2013 --data FOLDER      trained on FER2013, tested on Muxspace too

Every choice is made on validation faces cut from the training ones, and the test faces are read once. Across
collections the seven shared classes count, matched by name; the epoch is picked by macro recall, the mean
over classes, which does not depend on how frequent each class is. Writes data/results/<what>_<set>.json.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch

from benchmarks import records
from helpers import datasets, emotions, hog, losses, metrics, models, training
from helpers.batches import Augment

SETS = ("fer2013", "muxspace")
CLASSES = emotions.FER7
NETWORK = {"dropout": 0.2}  # of face-cnn-fast
AUGMENT = Augment(rotation=8, translation=0.07, scale=0.07, brightness=0.05, contrast=0.15, erasing=0.1)
CONFIG = training.Config(
    epochs=25, batch_size=256, lr=8e-3, optimizer="muon", weight_decay=0.05, ema=0.996, augment=AUGMENT
)
CONFIGS = {"fer2013": CONFIG, "muxspace": replace(CONFIG, epochs=40, batch_size=128, ema=0.99)}
"""Of Muxspace there is a sixth of the faces: more passes over them, and smaller steps."""
COSTS, GAMMA_FACTORS = (1.0, 3.0, 10.0), (1.0, 2.0, 4.0)  # gamma in units of hog.gamma_scale


def fitted(
    parts: tuple[datasets.FaceSet, datasets.FaceSet],
    config: training.Config,
    network: dict[str, object] = NETWORK,
    monitor: Callable = metrics.accuracy,
    weighted: bool = False,
) -> tuple[torch.nn.Module, dict]:
    """Return face-cnn-fast trained on (training, validation) faces, and what it took."""
    train = parts[0]
    torch.manual_seed(config.seed)
    model = models.create("face-cnn-fast", len(train.classes), **network)
    weight = losses.class_weights(train.labels, len(train.classes), power=0.5) if weighted else None
    loss, score = losses.on_labels(label_smoothing=0.1, weight=weight), metrics.on_labels(monitor)
    wall, cpu = time.perf_counter(), time.process_time()
    history = training.fit(model, *parts, loss, {"score": score}, replace(config, monitor="score"))
    took = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return model, {"network": network, "config": asdict(config), **took, "best": history.best}


def cnn(name: str, data: str, seed: int, epochs: int = 0) -> tuple[str, dict]:
    """Train the small CNN, and predict with the mean over 18 views of a face."""
    *learned, test = datasets.load(name, data).splits(seed=seed, leaks="keep")
    config = replace(CONFIGS[name], seed=seed, epochs=epochs or CONFIGS[name].epochs)
    model, made = fitted(tuple(learned), config)
    predicted = training.predict(model, test, tta="shift").argmax(axis=1)
    return f"cnn_{name}", {"training": made, **records.test_scores(test, predicted, learned)}


def hog_svm(name: str, data: str, seed: int, grid_faces: int = 12_000) -> tuple[str, dict]:
    """Choose C and gamma by validation accuracy, then fit to training and validation faces together."""
    train, validation, test = datasets.load(name, data).splits(seed=seed, leaks="keep")
    rows = np.random.default_rng(seed).permutation(len(train))[:grid_faces]
    some = train.select(np.sort(rows))
    features, unseen, tried = hog.hog(some.images), hog.hog(validation.images), []
    for C, factor in itertools.product(COSTS, GAMMA_FACTORS):
        gamma = factor * hog.gamma_scale(features)
        predicted = hog.SVM.fit(features, some.labels, some.classes, C=C, gamma=gamma).predict(unseen)
        tried.append({"C": C, "gamma_factor": factor})
        tried[-1]["accuracy"] = metrics.accuracy(validation.labels, predicted)
        print(tried[-1], flush=True)
    best = max(tried, key=lambda point: point["accuracy"])
    features = hog.hog(np.concatenate([train.images, validation.images]))
    labels = np.concatenate([train.labels, validation.labels])
    gamma = best["gamma_factor"] * hog.gamma_scale(features)
    machine = hog.SVM.fit(features, labels, train.classes, C=best["C"], gamma=gamma)
    scores = records.test_scores(test, machine.predict(hog.hog(test.images)), [train, validation])
    return f"hog_svm_{name}", {"hog": hog.DEFAULTS, "validation": tried, "chosen": best, **scores}


def shared(part: datasets.FaceSet) -> datasets.FaceSet:
    """Return the faces of the seven classes, numbered as FER2013 numbers them."""
    number = np.array([CLASSES.index(name) if name in CLASSES else -1 for name in part.classes])
    labels = number[part.labels]
    kept = part.select(labels >= 0)
    return replace(kept, labels=labels[labels >= 0], classes=CLASSES, distribution=None, votes=None)


def cross(name: str, data: str, seed: int, steps: int = 3000) -> tuple[str, dict]:
    """Train on one set and test on both; what is lost is a difference of two independent samples."""
    parts = {each: tuple(map(shared, datasets.load(each, data).splits(seed=seed))) for each in SETS}
    train, validation, _ = parts[name]
    config = replace(CONFIG, batch_size=64, lr=3e-3, optimizer="adamw", ema=0.995, seed=seed)
    config = replace(config, epochs=max(1, round(steps / (len(train) // 64))))
    network = {"widths": (24, 48, 96, 192), **NETWORK}
    model, made = fitted((train, validation), config, network, metrics.balanced_accuracy, weighted=True)
    found, drawn = {}, {}
    for each in sorted(SETS, key=lambda other: other != name):
        test = parts[each][2]
        predicted = training.predict(model, test, tta="flip").argmax(1)
        for title, score in {"accuracy": metrics.accuracy, "macro_recall": metrics.balanced_accuracy}.items():
            value = records.interval(score, test.labels, predicted, groups=test.subject)
            found.setdefault(each, {"faces": len(test)})[title] = value
            drawn.setdefault(title, []).append(value)
    lost = {title: difference(*pair) for title, pair in drawn.items()}
    return f"cross_set_{name}", {"classes": CLASSES, "training": made, "test": found, "drop": lost}


def difference(own: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Return own less other with a 95 % interval; the half widths of independent samples add as squares."""
    value = own["value"] - other["value"]
    below = np.hypot(own["value"] - own["low"], other["high"] - other["value"])
    above = np.hypot(own["high"] - own["value"], other["value"] - other["low"])
    return {"value": value, "low": float(value - below), "high": float(value + above)}


def main() -> None:
    """Train, read the test faces once, and write the record."""
    parser = records.parser(__doc__, epochs=0, steps=3000, grid_faces=12_000)
    parser.add_argument("what", choices=("cnn", "hog-svm", "cross"))
    parser.add_argument("set", choices=SETS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    place = options.set, options.data, options.seed
    if options.what == "cnn":
        name, record = cnn(*place, options.epochs)
    elif options.what == "hog-svm":
        name, record = hog_svm(*place, options.grid_faces)
    else:
        name, record = cross(*place, options.steps)
    records.write(name, {"set": options.set, **records.circumstances(options), **record})
    print({key: value for key, value in record.items() if key.startswith(("test", "drop"))})


if __name__ == "__main__":
    main()
