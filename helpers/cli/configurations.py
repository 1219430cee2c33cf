"""Named configurations: what five student projects on facial expressions train, each by one word.

Sets, tasks, networks and numbers of epochs in the names are theirs; batch sizes and learning rates are what
is usual for such a network. "fer2013-fast" is the workbook's own: a quarter of an hour on one core, as in
``benchmarks/real_cnn.py``. Whatever is given on the command line takes the place of what stands here.
"""

from __future__ import annotations

from typing import Any

from helpers.cli.settings import LOSSES

_PRETRAINED = {"weights": "DEFAULT"}
_AFFECTNET = {
    "data": "affectnet",
    "image_size": 224,
    "options": {"color": True},
    "task": "multitask",
    "model_options": _PRETRAINED,
    "label_smoothing": 0.1,
    "batch_size": 32,
    "lr": 1e-4,
    "schedule": "cosine",
    "warmup": 0.05,
}
_FER2013 = {"data": "fer2013", "batch_size": 64, "label_smoothing": 0.1, "augment": "v2"}
_MUXSPACE = {"data": "muxspace", "class_weights": 0.5}
_FUSED = {
    "data": "affectnet_fused",
    "image_size": 112,
    "options": {"color": True},
    "task": "distribution",
    "model_options": _PRETRAINED,
    "epochs": 10,
    "batch_size": 64,
    "lr": 1e-4,
    "schedule": "cosine",
    "warmup": 0.05,
}
_BACKBONES = {"resnet18": "", "resnet50": "-resnet50", "efficientnet_b0": "-efficientnet", "vit_b_16": "-vit"}


def _fused(loss: str, model: str) -> dict[str, Any]:
    # the transformer's weights are for pictures of 224 pixels
    size = {"image_size": 224, "batch_size": 16} if model == "vit_b_16" else {}
    return {**_FUSED, "loss": loss, "model": model, **size}


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    # seven classes of FER2013
    "fer2013-cnn": {**_FER2013, "model": "face-cnn", "epochs": 40, "lr": 2e-3},
    "fer2013-fast": {
        **_FER2013,
        "augment": "v1",
        "model": "face-cnn-fast",
        "epochs": 25,
        "batch_size": 256,
        "lr": 8e-3,
        "optimizer": "muon",
        "weight_decay": 0.05,
        "ema": 0.996,
    },
    "fer2013-resnet18": {
        **_FER2013,
        "model": "resnet18",
        "model_options": {"stem": "small"},
        "epochs": 30,
        "lr": 2e-3,
    },
    "fer2013-resnet34": {
        **_FER2013,
        "model": "resnet34",
        "model_options": {"stem": "small"},
        "epochs": 30,
        "lr": 2e-3,
    },
    "fer2013-efficientnet": {
        **_FER2013,
        "model": "efficientnet_b0",
        "model_options": {"stem": "small"},
        "epochs": 30,
        "lr": 2e-3,
    },
    # four merged classes, from scratch, grey, 48 pixels, the learning rate in steps
    "resnet18-4class": {
        "data": "fer2013",
        "merge": "4",
        "model": "resnet18",
        "epochs": 30,
        "batch_size": 64,
        "lr": 1e-3,
        "optimizer": "adam",
        "weight_decay": 1e-4,
        "schedule": "step",
        "warmup": 0.0,
    },
    # Muxspace by three roads
    "muxspace-hog-svm": {"data": "muxspace", "model": "hog-svm"},
    "muxspace-cnn": {**_MUXSPACE, "model": "face-cnn", "epochs": 30, "batch_size": 64, "lr": 2e-3},
    "muxspace-resnet18": {
        **_MUXSPACE,
        "model": "resnet18",
        "image_size": 112,
        "options": {"color": True},
        "model_options": _PRETRAINED,
        "frozen_epochs": 5,
        "epochs": 10,
        "batch_size": 64,
        "lr": 1e-4,
        "schedule": "cosine",
        "warmup": 0.1,
    },
    # expression, valence and arousal on AffectNet
    "resnet50-e34": {**_AFFECTNET, "model": "resnet50", "epochs": 34},
    "efficientnet-e34": {**_AFFECTNET, "model": "efficientnet_b0", "epochs": 34},
    "resnet50-v2-e15": {**_AFFECTNET, "model": "resnet50", "augment": "v2", "epochs": 15},
    "resnet50-v2-e10": {**_AFFECTNET, "model": "resnet50", "augment": "v2", "epochs": 10},
    # thirteen shares on AffectNetFused: fused-kl, fused-kl-resnet50, ...
    **{
        f"fused-{loss}{ending}": _fused(loss, model)
        for model, ending in _BACKBONES.items()
        for loss in LOSSES["distribution"]
    },
}
