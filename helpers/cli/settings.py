"""What a training is told: one frozen record, which flags, YAML files and named configurations fill."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from helpers import cli, one_of
from helpers.cli import says

LOSSES = {
    "expression": ("cross-entropy",),
    "multitask": ("mse", "ccc"),
    "distribution": ("kl", "reverse-kl", "cross-entropy", "js", "mse", "l1", "emd", "kl+emd", "js+l1"),
}
"""Task to the losses that it can be trained with, the usual one first."""
_BY_TASK = "; ".join(f"{task}: {', '.join(names)}" for task, names in LOSSES.items())

Data = Literal[
    "synthetic", "fer2013", "ferplus", "muxspace", "rafdb", "affectnet", "affectnet_fused", "folder"
]
Network = Literal[
    "face-cnn", "face-cnn-fast", "resnet18", "resnet34", "resnet50", "efficientnet_b0", "efficientnet_lite0",
    "vit_b_16", "hog-svm",
]  # fmt: skip
Schedule = Literal["one-cycle", "cosine", "step", "plateau", "constant"]


@dataclass(frozen=True)
class Settings:
    """All that decides how a training goes; a field is a flag, and a name in a YAML file."""

    data: Data = says("synthetic", "the data set")
    root: str = says("data", "the folder that holds it")
    image_size: int = says(48, "side length of the images, in pixels")
    options: dict[str, Any] = says(dict, "an option of the data set, such as num_faces 8000 or color true")
    merge: Literal["none", "4"] = says("none", "4: anger+disgust, fear+sadness, happiness, neutral+surprise")
    leaks: Literal["drop", "keep"] = says("drop", "copies of training images in the test images: drop, keep")
    split_seed: int = says(0, "which of the possible splits, where the set has no official one")
    task: Literal["expression", "multitask", "distribution"] = says("expression", "what is learned")
    model: Network = says("face-cnn", "the network, or hog-svm")
    pretrained: bool = says(False, "start from ImageNet weights")
    dropout: float | None = says(None, "share of features dropped before the head")
    model_options: dict[str, Any] = says(dict, "an option of the network, such as stem small")
    loss: str = says("", f"the training loss, by default the task's first; {_BY_TASK}")
    balance: Literal["fixed", "learned"] = says("fixed", "multitask: losses added as they are, or weighted")
    label_smoothing: float = says(0.0, "share of the target spread over all classes")
    class_weights: float = says(0.0, "1: rare classes count as much as common ones; 0: images count alike")
    augment: Literal["none", "v1", "v2"] = says("v1", "v1: shift, flip, turn, zoom, light; v2: erasing, too")
    epochs: int = says(10, "passes over the training images")
    frozen_epochs: int = says(0, "epochs before these, in which only the head is trained")
    frozen_lr: float = says(1e-3, "highest learning rate in those")
    batch_size: int = says(128, "images a step")
    lr: float = says(1e-3, "highest learning rate")
    lr_decay: float = says(1.0, "learning rate of each stage as a share of that of the stage after it")
    optimizer: Literal["adamw", "adam", "sgd", "muon"] = says("adamw", "the optimiser")
    weight_decay: float = says(0.01, "pull of the weights towards zero")
    momentum: float = says(0.9, "of SGD and Muon")
    schedule: Schedule = says("one-cycle", "of the learning rate")
    warmup: float | None = says(None, "rise of the learning rate: a share, or epochs (one-cycle: 0.2)")
    step_size: int = says(0, "step: epochs between two drops; 0: drops at 50 and 75 %")
    gamma: float = says(0.1, "step: factor of each drop")
    plateau_patience: int = says(3, "plateau: epochs without progress before a drop")
    plateau_factor: float = says(0.5, "plateau: factor of each drop")
    plateau_monitor: str = says("", "plateau: what it watches, loss or a score (default: the monitor)")
    ema: float = says(0.0, "decay a step of a running mean of the weights, which then is the result")
    patience: int = says(0, "early stopping: epochs without progress after which training ends; 0: never")
    monitor: str = says("", "the validation score that selects the best epoch (default: the task's)")
    grad_clip: float = says(0.0, "largest norm of the gradient; 0: no limit")
    compile: bool = says(False, "torch.compile the network, where that works")
    amp: bool = says(True, "half precision, where the machine is faster with it")
    seed: int = says(0, "of weights, order, augmentation and dropout")
    device: Literal["auto", "cpu", "cuda", "mps"] = says("auto", "where to compute")


KINDS = inspect.get_annotations(Settings, eval_str=True)
RANGES = {
    "image_size": (8, 1024), "frozen_epochs": (0, 10_000), "label_smoothing": (0.0, 0.99),
    "class_weights": (0.0, 10.0), "dropout": (0.0, 0.99), "split_seed": (0, 2**32 - 1),
}  # fmt: skip
"""Those that ``training.Config`` does not check."""


def merged(*layers: Mapping[str, Any]) -> Settings:
    """Return the settings that several layers make, a later one over an earlier one; ValueError in one line.

    Of options the single ones are replaced, not all of them.
    """
    settings = Settings()
    for layer in layers:
        for word, value in layer.items():
            name = cli.choose("setting", cli.FLAGS.get(cli.key(word), word), KINDS)
            value = value if value is None else cli.convert(value, KINDS[name], name)
            value = getattr(settings, name) | value if isinstance(value, dict) else value
            settings = replace(settings, **{name: value})
    for name, (low, high) in RANGES.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}, not {value}")
    if settings.model == "hog-svm":
        if settings.task != "expression":
            raise ValueError(f"hog-svm learns expressions alone, not the task {settings.task}")
        for name in settings.model_options:
            one_of("option of hog-svm", name, ("C", "gamma"))
    losses = LOSSES[settings.task]
    loss = cli.choose(f"loss for the task {settings.task}", settings.loss or losses[0], losses)
    return replace(settings, loss=loss)


def from_file(path: Path) -> dict[str, Any]:
    """Return what a YAML file of "name: value" lines sets."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("write the values out, it has aliases (*name)")  # a few can be gigabytes
        return dict(yaml.safe_load(text))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML, lines of 'name: value': {error}") from None


_COSINE = {"schedule": "cosine", "warmup": 0.05, "lr": 1e-4}
_COLOR = {"pretrained": True, "options": {"color": True}}
_FER2013 = {"data": "fer2013", "batch_size": 64, "label_smoothing": 0.1, "augment": "v2", "lr": 2e-3}
_SMALL_STEM = {**_FER2013, "model_options": {"stem": "small"}, "epochs": 30}
_FAST = {"augment": "v1", "batch_size": 256, "lr": 8e-3, "optimizer": "muon", "ema": 0.996}
_FOUR = {"data": "fer2013", "merge": "4", "batch_size": 64, "optimizer": "adam", "weight_decay": 1e-5}
_STEP = {"schedule": "step", "step_size": 7, "gamma": 0.1, "epochs": 20}
_MUXSPACE = {"data": "muxspace", "class_weights": 0.5, "batch_size": 64}
_TRANSFER = {**_MUXSPACE, **_COLOR, **_COSINE, "image_size": 112, "warmup": 0.1, "frozen_epochs": 5}
_AFFECTNET = {**_COSINE, "data": "affectnet", "task": "multitask", "image_size": 224, "pretrained": True}
_AFFECTNET |= {"options": {"color": True, "num_classes": 7}, "dropout": 0.3}  # neutral to anger: codes 0 to 6
_AFFECTNET |= {"label_smoothing": 0.1, "batch_size": 32, "weight_decay": 1e-5}
_FUSED = {**_COLOR, **_COSINE, "data": "affectnet_fused", "task": "distribution", "epochs": 10}
_BACKBONES = {  # the transformer's weights are for images of 224 pixels
    "": {"model": "resnet18", "image_size": 112, "batch_size": 64},
    "-resnet50": {"model": "resnet50", "image_size": 112, "batch_size": 64},
    "-efficientnet": {"model": "efficientnet_b0", "image_size": 112, "batch_size": 64},
    "-vit": {"model": "vit_b_16", "image_size": 224, "batch_size": 16},
}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    # seven classes of FER2013
    "fer2013-hog-svm": {"data": "fer2013", "model": "hog-svm"},
    "fer2013-cnn": {**_FER2013, "model": "face-cnn", "epochs": 40, "dropout": 0.3},
    "fer2013-fast": {**_FER2013, **_FAST, "model": "face-cnn-fast", "epochs": 25, "weight_decay": 0.05},
    "fer2013-resnet18": {**_SMALL_STEM, "model": "resnet18"},
    "fer2013-resnet34": {**_SMALL_STEM, "model": "resnet34"},
    "fer2013-efficientnet": {**_SMALL_STEM, "model": "efficientnet_b0"},
    # four merged classes, from scratch, grey, 48 pixels, the learning rate in steps
    "4class-hog-svm": {"data": "fer2013", "merge": "4", "model": "hog-svm"},
    "resnet18-4class": {**_FOUR, **_STEP, "model": "resnet18"},
    # Muxspace in three ways
    "muxspace-hog-svm": {"data": "muxspace", "model": "hog-svm"},
    "muxspace-cnn": {**_MUXSPACE, "model": "face-cnn", "epochs": 30, "lr": 2e-3},
    "muxspace-resnet18": {**_TRANSFER, "model": "resnet18", "epochs": 10},
    # expression, valence and arousal on AffectNet
    "resnet50-e34": {**_AFFECTNET, "model": "resnet50", "epochs": 34},
    "efficientnet-e34": {**_AFFECTNET, "model": "efficientnet_b0", "epochs": 34},
    "resnet50-v2-e15": {**_AFFECTNET, "model": "resnet50", "augment": "v2", "epochs": 15},
    "resnet50-v2-e10": {**_AFFECTNET, "model": "resnet50", "augment": "v2", "epochs": 10},
    # thirteen shares on AffectNetFused: fused-kl, fused-kl-resnet50, ...
    **{
        f"fused-{loss}{ending}": {**_FUSED, **backbone, "loss": loss}
        for ending, backbone in _BACKBONES.items()
        for loss in LOSSES["distribution"]
    },
}
"""What five student projects train: data, task, network, schedule and epochs are theirs, batch size and
learning rate what is usual. "fer2013-fast" is the workbook's own: a quarter of an hour on one core."""
