"""Train the network in data/weights on FER2013's Training faces, and read PublicTest once.

    python -m benchmarks.weights --data FOLDER --epochs 50 --threads 1

One body, two heads: "labels" learns FER2013's label, "distribution" what ten raters of FER+ said about the
same face. Weights, epoch and temperature come from Training alone. An interrupted training goes on.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageOps
from skimage.exposure import equalize_hist

from benchmarks import records
from benchmarks.real import shared
from helpers import datasets, emotions, losses, metrics, models, training, weights
from helpers.batches import Augment

HEADS = {"labels": "fer2013", "distribution": "ferplus"}  # what the network is called that a head becomes
NETWORK = {"widths": (40, 80, 160, 320), "equalise": True, "dropout": 0.3}  # of face-cnn-fast
AUGMENT = Augment(rotation=10, translation=0.08, scale=0.1, brightness=0.05, contrast=0.15, erasing=0.15)
STEPS = {"batch_size": 256, "lr": 8e-3, "optimizer": "muon", "weight_decay": 0.05, "ema": 0.996}
UNSURE = 0.5  # weight of an even distribution beside the label, where FER+ has no votes for a face


def votes_beside(data: str) -> datasets.FaceSet:
    """Return FER2013 with the shares of FER+'s votes over its eight classes as distribution."""
    fer, plus = datasets.load("fer2013", data), datasets.load("ferplus", data)
    place = {source: row for row, source in enumerate(plus.source.tolist())}
    row = np.array([place.get(source, -1) for source in fer.source.tolist()])
    label = np.array([plus.classes.index(name) for name in fer.classes])[fer.labels]
    num = len(plus.classes)
    shares = UNSURE * np.eye(num)[label] + (1 - UNSURE) / num
    votes = plus.votes[row[row >= 0]]
    shares[row >= 0] = votes / votes.sum(axis=1, keepdims=True)
    return replace(fer, distribution=shares)


def trained(train: datasets.FaceSet, validation: datasets.FaceSet, config: training.Config) -> training.Run:
    """Return the run of the training, begun, gone on with, or read."""
    torch.manual_seed(config.seed)
    heads = {"labels": len(train.classes), "distribution": train.distribution.shape[1]}
    model, run = models.create("face-cnn-fast", heads, **NETWORK), training.Run("runs/weights_fer2013")
    label = losses.on_labels(label_smoothing=0.1)
    votes = losses.on_distribution(losses.kl_divergence, head="distribution")
    terms = losses.weighted_sum({"labels": label, "votes": votes}, {"labels": 1.0, "votes": 1.0})
    scores = {"accuracy": metrics.on_labels(metrics.accuracy)}
    training.fit(model, train, validation, terms, scores, config, run=run)
    return training.Run.open(run.folder)


def calibrated(run: training.Run, validation: datasets.FaceSet) -> dict[str, float]:
    """Write each head with the body as a network, its logits divided by a temperature; return that."""
    model, logits, found = run.model, training.predict(run.model, validation), {}
    truth = {"labels": validation.labels, "distribution": validation.distribution}
    for (head, name), classes in zip(HEADS.items(), (validation.classes, emotions.FERPLUS8), strict=True):
        found[name] = metrics.temperature(logits[head], truth[head])
        tensors = {key: values for key, values in model.state_dict().items() if not key.startswith("head.")}
        for part, values in model.head[head].named_parameters():
            tensors[f"head.{part}"] = values.detach() / found[name]
        half = {k: each.half() if each.is_floating_point() else each for k, each in tensors.items()}
        spec = {"name": "face-cnn-fast", "num_classes": len(classes), "in_channels": 1, **NETWORK}
        faces = {"classes": classes, "image_size": validation.images.shape[-1], "channels": 1}
        record = json.dumps({"model": spec, "faces": faces})
        training.save_weights(half, weights.FOLDER / f"{name}.safetensors", record=record)
    return found


def judged(name: str, faces: datasets.FaceSet) -> dict[str, object]:
    """Return what a network of data/weights scores on labelled faces, by one view and by the mean of 18."""
    net, found = training.Run.open(weights.FOLDER / f"{name}.safetensors").model, {"faces": len(faces)}
    for views, tta in {"one_view": "none", "18_views": "shift"}.items():
        p = metrics.softmax(training.predict(net, faces, tta=tta))
        arrays = faces.labels, p.argmax(axis=1)
        found[views] = {
            "accuracy": records.interval(metrics.accuracy, *arrays, groups=faces.subject),
            "macro_recall": records.interval(metrics.balanced_accuracy, *arrays, groups=faces.subject),
            "calibration_error": metrics.expected_calibration_error(faces.labels, p),
            "confusion": metrics.confusion(*arrays, len(faces.classes)).tolist(),
        }
    return found


def main() -> None:
    """Train, calibrate, write the weights, read the test faces once, and write the record."""
    options = records.parser(__doc__, epochs=50).parse_args()
    torch.set_num_threads(options.threads)
    train, validation, test = votes_beside(options.data).splits(seed=options.seed, leaks="drop")
    how = {**STEPS, "augment": AUGMENT, "monitor": "accuracy", "seed": options.seed}
    run = trained(train, validation, training.Config(epochs=options.epochs, **how))
    found = {"temperature": calibrated(run, validation), "validation": judged("fer2013", validation)}
    even = np.stack([np.asarray(ImageOps.equalize(Image.fromarray(image))) for image in test.images])
    ranked = np.stack([np.uint8(255 * equalize_hist(image)) for image in test.images])
    copies = {"test": test.images, "test_equalised_by_pillow": even, "test_equalised_by_skimage": ranked}
    found |= {name: judged("fer2013", replace(test, images=images)) for name, images in copies.items()}
    found["muxspace"] = judged("fer2013", shared(datasets.load("muxspace", options.data)))
    plus = datasets.load("ferplus", options.data)
    found["ferplus_test"] = judged("ferplus", plus.splits(leaks="drop")[2])
    made = {"network": NETWORK, "best": run.scores, "epochs": options.epochs}
    records.write("weights_fer2013", {**records.circumstances(options), "training": made, **found})


if __name__ == "__main__":
    main()
