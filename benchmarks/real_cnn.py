"""How good the small CNN is on real faces, as the workbook reports it.

    python -m benchmarks.real_cnn fer2013 --data FOLDER
    python -m benchmarks.real_cnn muxspace --data FOLDER

The best epoch is chosen on validation faces that are cut from the training ones; the test faces are read
once, at the end. Counts CPU seconds of the training. Writes data/results/cnn_<set>.json.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace

import torch

from benchmarks import records
from helpers import datasets, losses, metrics, models, training
from helpers.batches import Augment

AUGMENT = Augment(rotation=8, translation=0.07, scale=0.07, brightness=0.05, contrast=0.15, erasing=0.1)
CONFIG = training.Config(  # some 900 CPU-seconds on FER2013, without half precision
    epochs=25,
    batch_size=256,
    lr=8e-3,
    optimizer="muon",
    weight_decay=0.05,
    ema=0.996,
    augment=AUGMENT,
)
CONFIGS = {"fer2013": CONFIG, "muxspace": replace(CONFIG, epochs=40, batch_size=128, ema=0.99)}
"""Of Muxspace there is a sixth of the faces: more passes over them, and smaller steps."""
NETWORK = {"dropout": 0.2}  # of face-cnn-fast


def train(
    parts: tuple[datasets.FaceSet, ...],
    config: training.Config = CONFIG,
    network: Mapping[str, object] = NETWORK,
    run: str | None = None,
) -> tuple[torch.nn.Module, dict]:
    """Return the trained network, and what it took.

    Args:
        parts: training and validation faces.
        config: how to train.
        network: its options.
        run: folder to keep the training in, or None.
    """
    torch.manual_seed(config.seed)
    model = models.create("face-cnn-fast", len(parts[0].classes), **network)
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
        run=run,
        progress=False,
        on_epoch=tell,
    )
    took = {"seconds": time.perf_counter() - watch[0], "cpu_seconds": time.process_time() - watch[1]}
    made = {"network": "face-cnn-fast", **network, "label_smoothing": 0.1, "config": asdict(config)}
    return model, {**made, **took, "best": history.best}


def main() -> None:
    """Train, read the test once, and write the figures."""
    parser = records.options(__doc__)
    parser.add_argument("--epochs", type=int, help="other than the set's own number")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--run", help="folder to keep the training in, and to go on from")
    parser.add_argument("--leaks", choices=("keep", "drop"), default="keep")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = datasets.load(options.name, options.data).splits(seed=options.seed, leaks=options.leaks)
    *learned, test = parts
    config = replace(CONFIGS[options.name], seed=options.seed)
    if options.epochs:
        config = replace(config, epochs=options.epochs)
    model, made = train(tuple(learned), config, run=options.run)
    predicted = training.predict(model, test, tta="shift").argmax(axis=1)
    record = {
        **records.circumstances(options),
        "faces": dict(zip(("train", "validation", "test"), map(len, parts), strict=True)),
        "training": made,
        **records.test_scores(test, predicted, learned),
    }
    records.write(f"cnn_{options.name}", record)


if __name__ == "__main__":
    main()
