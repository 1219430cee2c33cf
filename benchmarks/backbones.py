"""What each network, and each way to feed it, learns in the same time: faces of 48 pixels, weights by chance.

    python -m benchmarks.backbones fer2013 --data FOLDER [--seconds 60]

Each gets the same CPU seconds, counted on its own training steps, so a network that needs ten times as long
for a face sees a tenth of the faces. It is asked about validation faces, cut from Training; the
test faces are not read. With weights from elsewhere the order may be another: this says what a network costs
one who has none. Writes data/results/backbones_<set>.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from benchmarks import records
from benchmarks.transfer import AUGMENT, NET, Pictures, learn, scores
from helpers import datasets, files, models, training

CHOICES = {
    "ours": NET,
    "face-cnn": {"name": "face-cnn"},
    **{name: {"name": name} for name in models.NAMES[2:]},
    "resnet18, stride1": {"name": "resnet18", "stem": "stride1"},
    "resnet18, small": {"name": "resnet18", "stem": "small"},
    "resnet18, resize=96": {"name": "resnet18", "resize": 96},
}
"""What is compared, all at 48 pixels; the transformer has nine patches of 16 pixels there."""
BATCH = 32


def create(choice: str, seed: int) -> nn.Module:
    """Return a network with weights by chance.

    Args:
        choice: one of ``CHOICES``.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    return models.create(**{"num_classes": 7, **CHOICES[choice]})


def config(choice: str, seed: int) -> training.Config:
    """Return how a network is trained: its recipe, without what only trained weights need.

    Args:
        choice: one of ``CHOICES``.
        seed: of the order.
    """
    recipe = training.RECIPES[CHOICES[choice]["name"]]
    plain = {"epochs": 1, "batch_size": BATCH, "lr_decay": 1.0, "schedule": "one-cycle", "warmup": 0.2}
    return replace(recipe, **plain, augment=AUGMENT, monitor="loss", patience=0, seed=seed)


def seconds_for(choice: str, faces: Pictures, seed: int) -> float:
    """Return the CPU seconds that the training on some faces takes.

    Args:
        choice: one of ``CHOICES``.
        faces: the faces, a few batches.
        seed: of the weights.
    """
    model = create(choice, seed)
    some = faces.some(np.arange(2 * BATCH))
    learn(model, some, some, config(choice, seed))  # what is done once only
    start = time.process_time()
    learn(model, faces, some, config(choice, seed))
    return time.process_time() - start


def trained(choice: str, real: Pictures, seconds: float, seed: int) -> tuple[nn.Module, dict]:
    """Return a network trained for so many CPU seconds, and how many faces it saw in which time.

    Args:
        choice: one of ``CHOICES``.
        real: faces to learn from.
        seconds: of training.
        seed: of weights and order.
    """
    trial = 4 * BATCH
    num = int(seconds / seconds_for(choice, real.some(np.arange(trial)), seed) * trial) // BATCH * BATCH
    order = np.random.default_rng(seed).permutation(len(real))
    seen = np.resize(order, max(num, 2 * BATCH))  # from the start again where the set is too small
    model, start = create(choice, seed), time.process_time()
    learn(model, real.some(seen), real.some(order[:BATCH]), config(choice, seed))
    return model, {"faces_seen": len(seen), "cpu_seconds": time.process_time() - start}


def measured(choice: str, real: Pictures, held: datasets.FaceSet, options: argparse.Namespace) -> dict:
    """Return what a network reaches and what it costs.

    Args:
        choice: one of ``CHOICES``.
        real: faces to learn from.
        held: validation faces.
        options: the command line's.
    """
    model, seen = trained(choice, real, options.seconds, options.seed)
    start = time.process_time()
    said = training.predict(model, held).argmax(1)
    speed = len(held) / (time.process_time() - start)
    cost = {
        "parameters": models.num_parameters(model),
        "flops": models.flops(model, 48),
        "step_memory_32": models.step_memory(model, 32),
        "faces_a_cpu_second": speed,
    }
    found = {"choice": choice, **seen, **cost, **scores(held.labels, said)}
    print(f"{choice:22} {seen['faces_seen']:6,} faces {found['accuracy']['value']:.3f}", flush=True)
    return found


def main() -> None:
    """Train each for the same time and keep the figures."""
    parser = records.options(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds for each")
    parser.add_argument("--validation", type=int, default=2_000, help="faces it is asked about")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, validation, _ = datasets.load(options.name, options.data).splits(seed=options.seed)
    real, held = Pictures(train.images, train.labels), validation.select(slice(options.validation))
    always = np.full(len(held), np.bincount(train.labels).argmax())
    record = records.circumstances(options)
    record |= {
        "seconds": options.seconds,
        "validation_faces": len(held),
        "majority": scores(held.labels, always),
        "rows": [],
    }
    for choice in CHOICES:
        record["rows"].append(measured(choice, real, held, options))
        with files.replacing(f"data/results/backbones_{options.name}.json") as file:
            file.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
