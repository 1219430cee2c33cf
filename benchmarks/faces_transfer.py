"""What drawn faces teach about real ones: a network that saw only drawn faces, tested on FER2013.

    python -m benchmarks.faces_transfer transfer --data FOLDER     train on drawn faces, test on PublicTest
    python -m benchmarks.faces_transfer ablation --data FOLDER     the same, parts of the renderer off
    python -m benchmarks.faces_transfer few --data FOLDER          500 real faces after drawn ones

The network of the first two learns nothing from real faces; the renderer's constants did: it was tuned by
eye, on mean images and on these figures over FER2013's Training rows (the ablation is still read there).
The best epoch is chosen on drawn faces. Writes data/results/faces_<what>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from helpers import datasets, emotions, faces, files, losses, metrics, models, runtime, training
from helpers.batches import Augment

AUGMENT = Augment(rotation=8, translation=0.07, scale=0.1, brightness=0.1, contrast=0.25, erasing=0.3)

OFF = {
    "everything on": {},
    "heads never turn": {"yaw": 0.0, "pitch": 0.0, "roll": 0.0},
    "one light": {"light_x": 0.0, "light_y": -0.4, "ambient": 0.5, "exposure": 1.15},
    "no relief": {"relief": 0.0, "shine": 0.0},
    "no lines of age, no skin texture": {"age": 0.0, "eye_bags": 0.0, "skin_texture": 0.0},
    "no hair": {
        "bald": 1.0,
        "beard": 0.0,
        "moustache": 0.0,
        "hairline": -1.3,
        "fringe": 0.0,
        "hair_length": 0.0,
    },
    "nothing in the way": {"glasses": 0.0, "hand": 0.0, "strand": 0.0, "watermark": 0.0},
    "one camera": {"blur": 0.0, "noise": 0.0, "contrast": 1.0},
    "one person": {name: t.mean if t.share > 0.5 else 0.0 for name, t in faces.IDENTITY.items()},
}
"""Parts of the renderer held at one value, for the ablation."""


@dataclass(frozen=True)
class Set:
    """What a training loop needs of a set of faces; see ``datasets.FaceSet``."""

    images: np.ndarray
    labels: np.ndarray
    distribution: np.ndarray | None = None
    valence_arousal: None = None
    classes: tuple[str, ...] = emotions.FER7

    def __len__(self) -> int:
        return len(self.images)


def drawn(num_faces: int, seed: int, fixed: dict[str, float]) -> Set:
    """Return drawn faces, as many of each expression, two of each person, with their true distributions.

    Args:
        num_faces: how many.
        seed: which.
        fixed: traits held at one value.
    """
    made = faces.sample(num_faces, seed, balance="uniform", faces_per_person=2, ambiguity=0.5, fixed=fixed)
    p = made.class_probabilities
    return Set(made.images.numpy(), p.argmax(1).numpy(), p.numpy())


def learn(
    model: torch.nn.Module, train: Set, validation: Set, epochs: int, lr: float, seed: int, loss
) -> float:
    """Train a network and return the CPU seconds that it took.

    Args:
        model: the network.
        train: faces to learn from.
        validation: faces that choose the epoch.
        epochs: passes.
        lr: highest learning rate.
        seed: of order and augmentation.
        loss: of (outputs, targets).
    """
    config = training.Config(
        epochs=epochs, lr=lr, weight_decay=0.05, ema=0.99, augment=AUGMENT, seed=seed, monitor="recall"
    )
    score = {"recall": metrics.on_labels(metrics.balanced_accuracy)}
    start = time.process_time()
    training.fit(model, train, validation, loss, score, config, progress=False)
    return time.process_time() - start


def tested(model: torch.nn.Module, real: Set) -> dict[str, object]:
    """Return macro recall and accuracy on real faces with 95 % intervals, and the recall of each class.

    Args:
        model: the network.
        real: the faces.
    """
    predictions = training.predict(model, real, tta="flip").argmax(1)
    hit = predictions == real.labels
    each = {name: float(hit[real.labels == c].mean()) for c, name in enumerate(emotions.FER7)}
    scores = {"macro_recall": metrics.balanced_accuracy, "accuracy": metrics.accuracy}
    found = {name: metrics.bootstrap(score, real.labels, predictions) for name, score in scores.items()}
    return {name: [i.value, i.low, i.high] for name, i in found.items()} | {"recall": each}


def from_drawn(
    options: argparse.Namespace, seed: int, fixed: dict[str, float]
) -> tuple[torch.nn.Module, float]:
    """Return a network trained on drawn faces only, and the CPU seconds that it took.

    Args:
        options: the command line's.
        seed: of faces, network and training.
        fixed: traits held at one value.
    """
    train, validation = (drawn(n, 1000 + 2 * seed + k, fixed) for k, n in enumerate((options.faces, 1000)))
    torch.manual_seed(seed)
    model = models.create("face-cnn-fast", 7)
    took = learn(
        model,
        train,
        validation,
        options.epochs,
        3e-3,
        seed,
        losses.on_distribution(losses.soft_cross_entropy),
    )
    return model, took


def real_parts(options: argparse.Namespace) -> tuple[Set, Set]:
    """Return FER2013's Training and PublicTest rows.

    Args:
        options: the command line's.
    """
    train, _, test = datasets.load("fer2013", options.data).splits(validation=0, leaks="keep")
    return tuple(Set(np.asarray(part.images), part.labels) for part in (train, test))


def some(part: Set, num: int, seed: int) -> Set:
    """Return a random choice of faces.

    Args:
        part: from what.
        num: how many.
        seed: which.
    """
    chosen = np.random.default_rng(seed).permutation(len(part))[:num]
    return Set(part.images[chosen], part.labels[chosen])


def transfer(options: argparse.Namespace) -> list[dict]:
    """Train on drawn faces, test on PublicTest, once for each seed.

    Args:
        options: the command line's.
    """
    _, test = real_parts(options)
    rows = []
    for seed in range(options.seeds):
        model, took = from_drawn(options, seed, {})
        rows.append({"seed": seed, "cpu_seconds": took} | tested(model, test))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def ablation(options: argparse.Namespace) -> list[dict]:
    """Train with parts of the renderer off, test on 5,000 Training rows.

    Args:
        options: the command line's.
    """
    real = some(real_parts(options)[0], 5000, 0)
    rows = []
    wanted = tuple(options.only or [""])
    for name, fixed in ((name, fixed) for name, fixed in OFF.items() if name.startswith(wanted)):
        for seed in range(options.seeds):
            model, _ = from_drawn(options, seed, fixed)
            rows.append({"off": name, "seed": seed} | tested(model, real))
            print(f"{name:34} {seed}  {rows[-1]['macro_recall'][0]:.3f}", flush=True)
    return rows


def few(options: argparse.Namespace) -> list[dict]:
    """Fine-tune on a few real faces after drawn ones, and train the same network on those few alone.

    Args:
        options: the command line's.
    """
    real, test = real_parts(options)
    rows = []
    for seed in range(options.seeds):
        chosen = some(real, options.real + 300, seed)
        train, validation = (
            Set(chosen.images[part], chosen.labels[part]) for part in (slice(300, None), slice(300))
        )
        for start in ("drawn faces", "scratch"):
            torch.manual_seed(seed)
            model = (
                from_drawn(options, seed, {})[0]
                if start == "drawn faces"
                else models.create("face-cnn-fast", 7)
            )
            lr = 1e-3 if start == "drawn faces" else 3e-3
            learn(
                model, train, validation, options.real_epochs, lr, seed, losses.on_labels(label_smoothing=0.1)
            )
            rows.append({"start": start, "seed": seed} | tested(model, test))
            print(f"{start:12} {seed}  {rows[-1]['accuracy']}", flush=True)
    return rows


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    work = {"transfer": transfer, "ablation": ablation, "few": few}
    parser.add_argument("what", choices=work)
    parser.add_argument("--data", required=True, help="folder that holds FER2013")
    parser.add_argument("--faces", type=int, default=16_000, help="drawn faces to train on")
    parser.add_argument("--epochs", type=int, default=8, help="passes over them")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--real", type=int, default=500, help="real faces to fine-tune on; 300 more choose the epoch"
    )
    parser.add_argument("--real-epochs", type=int, default=30)
    parser.add_argument("--only", nargs="*", help="some of the rows of the ablation, by their first words")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    record = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.faces_transfer", *sys.argv[1:]]),
        "machine": runtime.machine(),
        "rows": work[options.what](options),
    }
    with files.replacing(f"data/results/faces_{options.what}.json") as file:
        file.write(json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
