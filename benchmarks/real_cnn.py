"""How good the small CNN is on real faces, as the workbook reports it.

    python -m benchmarks.real_cnn fer2013 --data FOLDER
    python -m benchmarks.real_cnn muxspace --data FOLDER

The best epoch is chosen on validation faces that are cut from the training ones; the test faces are read
once, at the end. Counts CPU seconds of the training. Writes data/results/cnn_<set>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
from dataclasses import asdict

import numpy as np
import torch

from benchmarks.real_hog_svm import scores
from helpers import datasets, files, losses, metrics, models, runtime, training
from helpers.batches import Augment

AUGMENT = Augment(rotation=8, translation=0.07, scale=0.07, brightness=0.05, contrast=0.15, erasing=0.1)


def train(parts: tuple[datasets.FaceSet, ...], options: argparse.Namespace) -> tuple[torch.nn.Module, dict]:
    """Return the trained network, and what it took.

    Args:
        parts: training and validation faces.
        options: the command line's.
    """
    config = training.Config(
        epochs=options.epochs,
        batch_size=64,
        lr=0.05,
        optimizer="sgd",
        weight_decay=5e-4,
        ema=0.999,
        augment=AUGMENT,
        seed=options.seed,
    )
    torch.manual_seed(options.seed)
    model = models.create("face-cnn-fast", len(parts[0].classes), dropout=0.2)
    watch = time.perf_counter(), time.process_time()

    def tell(history: training.History) -> None:
        latest = history.epochs[-1]
        print(
            f"epoch {latest['epoch']}: {latest['accuracy']:.4f}, {time.process_time() - watch[1]:.0f} CPU-s"
        )

    history = training.fit(
        model,
        *parts,
        losses.on_labels(label_smoothing=0.1),
        {"accuracy": metrics.on_labels(metrics.accuracy)},
        config,
        run=options.run,
        progress=False,
        on_epoch=tell,
    )
    took = {"seconds": time.perf_counter() - watch[0], "cpu_seconds": time.process_time() - watch[1]}
    made = {"network": "face-cnn-fast", "dropout": 0.2, "label_smoothing": 0.1, "config": asdict(config)}
    return model, {**made, **took, "best": history.best}


def main() -> None:
    """Train, read the test once, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=("fer2013", "muxspace"))
    parser.add_argument("--data", required=True, help="folder that holds the set")
    parser.add_argument("--epochs", type=int, default=38)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--run", help="folder to keep the training in, and to go on from")
    parser.add_argument("--leaks", choices=("keep", "drop"), default="keep")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = datasets.load(options.name, options.data).splits(seed=options.seed, leaks=options.leaks)
    *learned, test = parts
    model, made = train(tuple(learned), options)
    predicted = training.predict(model, test, tta="flip").argmax(axis=1)
    seen = np.concatenate([part.labels for part in learned])
    copied = datasets.leaked(test, learned[0]) | datasets.leaked(test, learned[1])
    majority = int(np.bincount(seen).argmax())
    record = {
        "set": options.name,
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.real_cnn", *sys.argv[1:]]),
        "seed": options.seed,
        "machine": runtime.machine(),
        "faces": dict(zip(("train", "validation", "test"), map(len, parts), strict=True)),
        "training": made,
        "test": scores(test, predicted, majority),
        "test_without_leaked": scores(test.select(~copied), predicted[~copied], majority),
        "leaked": int(copied.sum()),
        "per_class_f1": dict(
            zip(
                test.classes,
                metrics.per_class(test.labels, predicted, len(test.classes)).f1.round(4).tolist(),
                strict=True,
            )
        ),
    }
    with files.replacing(f"data/results/cnn_{options.name}.json") as file:
        file.write(json.dumps(record, indent=1).encode())
    print(json.dumps({key: record[key] for key in ("test", "test_without_leaked")}, indent=1))


if __name__ == "__main__":
    main()
