"""What each network makes of the same CPU time, from chance: accuracy beside cost, for notebook 04.

    python -m benchmarks.backbones --data FOLDER [--seconds 180] [--faces 400000]

Each network, and a ResNet-18 with each of its stems, first shows how many faces a CPU second it trains on;
then, anew from chance, it gets as many drawn faces as its seconds allow, none of them twice, and the learning
rate falls to zero with the last. It learns from the shares of ten people's votes and is tried on other
people's faces. One seed, one thread; the intervals are over the people of the tried faces. Writes
data/results/backbones.json, anew after each network.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, astuple, replace

import numpy as np
import torch

from benchmarks import cycles, distributions, multitask
from helpers import datasets, files, losses, metrics, models, runtime, training

NETWORKS: Mapping[str, tuple[dict, float]] = {
    "ours, notebook 04": (
        {"name": "face-cnn-fast", "widths": (16, 32, 64, 128), "convs": 1, "contrast": 4},
        3e-3,
    ),
    "ours, deep": ({"name": "face-cnn", **multitask.DEEP}, 3e-3),
    "face-cnn": ({"name": "face-cnn"}, 3e-3),
    "resnet18": ({"name": "resnet18"}, 1e-3),
    "resnet18, stride1": ({"name": "resnet18", "stem": "stride1"}, 1e-3),
    "resnet18, small": ({"name": "resnet18", "stem": "small"}, 1e-3),
    "resnet18, resize=96": ({"name": "resnet18", "resize": 96}, 1e-3),
    "resnet34": ({"name": "resnet34"}, 1e-3),
    "resnet50": ({"name": "resnet50"}, 1e-3),
    "efficientnet_b0": ({"name": "efficientnet_b0"}, 2e-3),
    "vit_b_16": ({"name": "vit_b_16"}, 2e-4),
}
"""Name to what ``models.create`` makes, and its highest learning rate."""

CONFIG = training.Config(
    epochs=1, batch_size=64, weight_decay=0.05, monitor="loss", augment=cycles.CONFIG.augment
)
PACE = 8  # batches that show the pace
LOSS = losses.on_distribution(losses.soft_cross_entropy)


def learn(spec: Mapping, learned: datasets.FaceSet, validation: datasets.FaceSet, lr: float) -> tuple:
    """Return a network that has seen every face once, and the CPU seconds of its training steps.

    Args:
        spec: arguments of ``models.create``.
        learned: faces to learn from.
        validation: a few faces that the training loop wants; nothing is chosen on them.
        lr: highest learning rate.
    """
    torch.manual_seed(0)
    model = models.create(num_classes=7, **spec)
    started = time.process_time()
    training.fit(model, learned, validation, LOSS, {}, replace(CONFIG, lr=lr), progress=False)
    return model, time.process_time() - started


def faces_for(spec: Mapping, faces: datasets.FaceSet, few: datasets.FaceSet, seconds: float) -> int:
    """Return how many faces a network trains on in so many CPU seconds, whole batches.

    Args:
        spec: arguments of ``models.create``.
        faces: to train on meanwhile.
        few: for validation.
        seconds: to spend.
    """
    size = CONFIG.batch_size
    steps = (1, 1, 1 + PACE)  # the first call also sets up what the later ones find
    _, short, long = (learn(spec, faces.select(slice(0, n * size)), few, 1e-4)[1] for n in steps)
    pace = (long - short) / PACE
    return min(len(faces), max(1, int(seconds / pace)) * size)


def measured(name: str, parts: tuple[datasets.FaceSet, ...], seconds: float) -> dict:
    """Return what a network makes of its seconds.

    Args:
        name: of ``NETWORKS``.
        parts: faces to learn from, for validation, and to be tried on, the last with the exact p.
        seconds: to spend.
    """
    spec, lr = NETWORKS[name]
    learned, few, judged = parts
    num = faces_for(spec, learned, few, seconds)
    model, spent = learn(spec, learned.select(slice(0, num)), few, lr)
    q, who = metrics.softmax(training.predict(model, judged)), judged.subject
    hits = 1.0 * (q.argmax(axis=1) == judged.labels)
    prior = learned.distribution.mean(axis=0, dtype=np.float64)
    return {
        "spec": {key: value for key, value in spec.items() if key != "name"} | {"lr": lr},
        "parameters": models.num_parameters(model),
        "flops": models.flops(model, judged.images.shape[-1]),
        "faces": num,
        "cpu_seconds": spent,
        "accuracy": list(astuple(metrics.bootstrap(np.mean, hits, groups=who))),
        "way": list(astuple(distributions.way(judged.distribution.astype(np.float64), q, prior, who))),
    }


def main() -> None:
    """Measure each network, and write the record after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data", help="folder that holds the cache of drawn faces")
    parser.add_argument("--seconds", type=float, default=180, help="CPU seconds that each network trains")
    parser.add_argument("--faces", type=int, default=400_000, help="to draw and learn from")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    drawn = datasets.load("synthetic", options.data, num_faces=options.faces)
    drawn = distributions.learned_from_votes(drawn)
    judged = datasets.load("synthetic", options.data, num_faces=4000, seed=distributions.JUDGED_SEED)
    parts = drawn.select(slice(0, -20)), drawn.select(slice(-20, None)), judged
    words = ["FOLDER" if word == options.data else word for word in sys.argv[1:]]
    record = {
        "set": "synthetic",
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.backbones", *words]),
        "machine": runtime.machine(),
        "config": asdict(CONFIG),
        "seconds": options.seconds,
        "judged": len(judged),
        "best possible": multitask.ceiling(judged),
        "networks": {},
    }
    for name in options.networks:
        record["networks"][name] = found = measured(name, parts, options.seconds)
        with files.replacing("data/results/backbones.json") as file:
            file.write(json.dumps(record, indent=1).encode())
        print(
            f"{name:20}", {key: found[key] for key in ("faces", "cpu_seconds", "accuracy", "way")}, flush=True
        )


if __name__ == "__main__":
    main()
