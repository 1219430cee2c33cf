"""How much CPU time this workbook needs for the accuracy that the loop everybody writes reaches on FER2013.

    python -m benchmarks.time_to_accuracy --data FOLDER [--budget 1320] [--epochs 3]

First the common loop (Pillow, torchvision transforms, a ``DataLoader``, Adam at 1e-3, float32, the four-block
CNN of notebook 03) trains until its budget of CPU seconds is spent. Then ``training.fit`` trains, for a few
epochs, a network of about the same cost: three blocks at half the resolution, read on a grid. One thread and
one process each, so that CPU seconds count all there is. Both keep the epoch that is best on the same
validation faces; PublicTest is read once, by ours with the mean over each face and its mirror image. The
ratio is one of speed only where the accuracy of ours is no lower. Writes data/results/time_to_accuracy.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from benchmarks import real_cnn, records
from benchmarks.training import common_step, network
from helpers import datasets, metrics, training
from helpers.batches import Augment

NETWORK = {"widths": (32, 64, 128), "readout": "grid", "head_width": 256, "dropout": 0.2}  # of face-cnn-fast
CONFIG = training.Config(  # nearly no augmentation: in a few epochs no face comes often
    batch_size=128,
    lr=8e-3,
    optimizer="muon",
    weight_decay=0.05,
    augment=Augment(rotation=0, translation=0.04, scale=0, brightness=0, contrast=0, erasing=0),
)


def common(parts: list[datasets.FaceSet], options: argparse.Namespace) -> tuple[torch.nn.Module, dict]:
    """Return the network of the common loop at its best epoch, and what it took.

    Args:
        parts: training and validation faces.
        options: the command line's.
    """
    torch.manual_seed(options.seed)
    model, started = network("face-cnn"), time.process_time()
    setting = argparse.Namespace(batch_size=64, workers=0, device="cpu")
    step = common_step("face-cnn", parts[0], setting, model)
    best, weights, epochs = 0.0, model.state_dict(), 0
    while time.process_time() - started < options.budget:
        model.train()
        for _ in range(len(parts[0]) // setting.batch_size):
            step()
        epochs += 1
        answers = training.predict(model, parts[1], precision="float32").argmax(1)
        accuracy = metrics.accuracy(parts[1].labels, answers)
        print(f"epoch {epochs}: {accuracy:.4f}, {time.process_time() - started:.0f} CPU-s", flush=True)
        if accuracy > best:
            best, weights = accuracy, {name: values.clone() for name, values in model.state_dict().items()}
    model.load_state_dict(weights)
    return model, {"epochs": epochs, "cpu_seconds": time.process_time() - started, "validation": best}


def main() -> None:
    """Train both, read the test once, and write the figures."""
    parser = records.options(__doc__, ("fer2013",))
    parser.add_argument("--budget", type=float, default=1320, help="CPU seconds of the common loop")
    parser.add_argument("--epochs", type=int, default=3, help="of ours")
    options = parser.parse_args()
    torch.set_num_threads(1)
    *learned, test = datasets.load(options.name, options.data).splits(seed=options.seed, leaks="keep")
    theirs, their_cost = common(learned, options)
    ours, our_cost = real_cnn.train(
        tuple(learned), replace(CONFIG, epochs=options.epochs, seed=options.seed), NETWORK
    )
    rows = {}
    for name, model, cost, tta in (("common", theirs, their_cost, "none"), ("ours", ours, our_cost, "flip")):
        answers = training.predict(model, test, tta=tta).argmax(1)
        rows[name] = {"training": cost, **records.test_scores(test, answers, learned)}
        print(name, rows[name]["test"]["accuracy"], f"{cost['cpu_seconds']:.0f} CPU-s")
    ratio = their_cost["cpu_seconds"] / our_cost["cpu_seconds"]
    records.write("time_to_accuracy", {**records.circumstances(options), "ratio": ratio, **rows})


if __name__ == "__main__":
    main()
