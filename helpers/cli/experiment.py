"""From settings to what ``training.fit`` takes: faces, network, loss, scores; and what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from helpers import (
    datasets,
    did_you_mean,
    emotions,
    files,
    hog,
    losses,
    metrics,
    models,
    plotting,
    runtime,
    training,
)
from helpers.batches import Augment
from helpers.cli.settings import Settings

V1 = Augment(rotation=8, translation=0.06, scale=0.08, brightness=0.1, contrast=0.2, erasing=0)
AUGMENTS = {"none": None, "v1": V1, "v2": replace(V1, erasing=0.25, perspective=0.2)}
FAST = {"train": 256, "validation": 128, "test": 128}
"""Faces of each part that ``--fast`` keeps."""

DISTANCES = {"mse": losses.mse, "ccc": losses.ccc_loss}
"""Losses on valence and arousal by their name on the command line."""

MONITORS = {
    "expression": ("accuracy", False),
    "multitask": ("mean score", False),
    "distribution": ("KL", True),
}
"""Task to the validation score that picks its best epoch, and whether less of it is better."""

Splits = dict[str, datasets.FaceSet]


def load_faces(settings: Settings, fast: bool = False) -> Splits:
    """Return the training, validation and test faces that settings name.

    Args:
        settings: the settings.
        fast: a few hundred of them.

    Raises:
        ValueError: an option that does not exist, or faces without the labels that the task needs.
        FileNotFoundError: the data is not there.
    """
    options = dict(settings.options)
    if fast and settings.data == "synthetic":
        options["num_faces"] = min(sum(FAST.values()), options.get("num_faces", 4000))
    faces = datasets.load(settings.data, settings.root, settings.image_size, **options)
    if settings.merge == "4":
        faces = faces.merged()
    needed = {"multitask": "valence_arousal", "distribution": "distribution"}.get(settings.task)
    if needed and getattr(faces, needed) is None:
        raise ValueError(f"{settings.data} has no {needed}, which the task {settings.task} learns")
    parts = faces.splits(settings.split_seed, leaks=settings.leaks)
    parts = dict(zip(("train", "validation", "test"), parts, strict=True))
    return {name: _few(part, FAST[name]) for name, part in parts.items()} if fast else parts


def _few(faces: datasets.FaceSet, num: int) -> datasets.FaceSet:
    """Return some faces, spread over the whole set."""
    return faces.select(np.unique(np.linspace(0, len(faces) - 1, min(num, len(faces))).astype(int)))


def make_network(settings: Settings, faces: datasets.FaceSet) -> nn.Module:
    """Return the network that settings name, its weights drawn from their seed.

    Args:
        settings: the settings.
        faces: what it will see: its classes and channels.

    Raises:
        ValueError: an option that the network does not have.
    """
    options = dict(settings.model_options)
    if settings.model == "vit_b_16":
        options.setdefault("image_size", settings.image_size)
    num_classes = len(faces.classes)
    heads = {"labels": num_classes, "valence": 1, "arousal": 1}
    runtime.seed_everything(settings.seed)
    try:
        return models.create(
            settings.model,
            heads if settings.task == "multitask" else num_classes,
            3 if faces.images.ndim == 4 else 1,
            **options,
        )
    except TypeError as error:  # Python's own words for an argument that is not there
        raise ValueError(f"{settings.model}: {str(error).split(') ')[-1].split('() ')[-1]}") from None


def make_loss(settings: Settings, train: datasets.FaceSet) -> Callable:
    """Return what the training makes small.

    Args:
        settings: the settings.
        train: the training faces, whose classes may be weighed.
    """
    if settings.task == "distribution":
        known = losses.divergences(train.classes, places(settings.loss, train))
        return losses.on_distribution(known[settings.loss])
    weight = None
    if settings.class_weights:
        weight = losses.class_weights(train.labels, len(train.classes), settings.class_weights)
        weight = weight.to(runtime.device(settings.device))
    on_labels = losses.on_labels(label_smoothing=settings.label_smoothing, weight=weight)
    if settings.task == "expression":
        return on_labels
    distance = DISTANCES[settings.loss]
    terms = {name: losses.on_dimension(name, distance) for name in ("valence", "arousal")}
    terms["labels"] = on_labels
    if settings.balance == "learned":
        squared = ("valence", "arousal") if settings.loss == "mse" else ()
        return losses.UncertaintyWeighted(terms, squared, speed=10)
    return losses.weighted_sum(terms, {})


def places(loss: str, train: datasets.FaceSet) -> dict[str, tuple[float, float]]:
    """Return valence and arousal of each class: of a merged one the mean over its members, else its faces'.

    Args:
        loss: its name; one that moves no earth does not ask where a class lies, and may get any place.
        train: the training faces.

    Raises:
        ValueError: the loss moves earth, and of a class nobody knows where it lies.
    """
    merged = {
        name: tuple(np.mean([emotions.CIRCUMPLEX[member] for member in members], axis=0).tolist())
        for name, members in emotions.MERGED4.items()
    }
    known = {**emotions.CIRCUMPLEX, **merged}
    if train.valence_arousal is not None:
        known = emotions.places_of(train.classes, train.distribution, train.valence_arousal) | known
    lost = [name for name in train.classes if name not in known]
    if lost and "emd" in loss:
        raise ValueError(
            f"{loss} needs the place of {', '.join(lost)}: put valence and arousal beside the"
            " distributions, or take a loss without emd"
        )
    return known | dict.fromkeys(lost, (0.0, 0.0))


def make_scores(task: str, labels: np.ndarray, probabilities: bool = True) -> dict[str, Callable]:
    """Return the scores of a task: functions of outputs and targets, by name.

    Args:
        task: the task.
        labels: integers ``[N]``, of the faces that will be scored: macro F1 is over their classes, so that
            each bootstrap draw averages the same ones.
        probabilities: whether the outputs are logits.
    """
    f1 = partial(metrics.macro_f1, classes=np.unique(labels))
    scores: dict[str, Callable] = {"accuracy": metrics.on_labels(metrics.accuracy)}
    scores["macro F1"] = metrics.on_labels(f1)
    if probabilities:
        scores["log loss"] = metrics.on_probabilities(metrics.log_loss)
        scores["calibration error"] = metrics.on_probabilities(metrics.expected_calibration_error)
    if task == "distribution":
        scores["KL"] = metrics.on_probabilities(metrics.kl_divergence, key="distribution")
    if task == "multitask":
        for statistic in (metrics.ccc, metrics.rmse):
            for name in ("valence", "arousal"):
                title = "CCC" if statistic is metrics.ccc else "RMSE"
                scores[f"{title} {name}"] = metrics.on_dimension(statistic, name)
        parts = [scores[name] for name in ("accuracy", "CCC valence", "CCC arousal")]
        scores["mean score"] = lambda outputs, targets: float(np.mean([f(outputs, targets) for f in parts]))
    return scores


def make_config(settings: Settings, scores: Mapping[str, Any], fast: bool = False) -> training.Config:
    """Return how to train.

    Args:
        settings: the settings.
        scores: those that a monitor may be chosen from.
        fast: for one epoch.

    Raises:
        ValueError: a value outside its range, or a monitor that is no score of the task.
    """
    monitor, minimise = MONITORS[settings.task]
    if settings.monitor:
        known = ("loss", *scores)
        monitor = settings.monitor
        if monitor not in known:
            near = f"{did_you_mean(monitor, known)}; known: {', '.join(known)}"
            raise ValueError(f"the task {settings.task} has no score {monitor!r}{near}")
        minimise = monitor.startswith(LESS_IS_BETTER)
    same = (
        "batch_size",
        "lr",
        "lr_decay",
        "optimizer",
        "weight_decay",
        "momentum",
        "schedule",
        "warmup",
        "ema",
    )
    same += ("patience", "grad_clip", "seed")
    return training.Config(
        epochs=1 if fast else settings.epochs,
        monitor=monitor,
        minimise=minimise,
        augment=AUGMENTS[settings.augment],
        precision="auto" if settings.amp else "float32",
        **{name: getattr(settings, name) for name in same},
    )


LESS_IS_BETTER = ("loss", "log loss", "calibration error", "KL", "RMSE")
"""How the names of scores begin of which less is better."""


def figures(settings: Settings, validation: datasets.FaceSet) -> dict[str, Callable]:
    """Return what is drawn of the validation faces after each better epoch: a confusion, some faces.

    Args:
        settings: the settings.
        validation: the faces.
    """
    names = np.array(validation.classes)
    shown, meant = validation.images[:8], names[validation.labels[:8]]

    def confusion(outputs: Any, targets: Mapping[str, np.ndarray], ax: Any) -> Any:
        found = metrics.confusion(targets["labels"], of_labels(outputs).argmax(1), len(validation.classes))
        return plotting.confusion(found, validation.classes, ax)

    def samples(outputs: Any, targets: Mapping[str, np.ndarray], ax: Any) -> Any:
        said = names[of_labels(outputs)[: len(shown)].argmax(1)]
        return plotting.guesses(shown, meant, said, ax=ax)

    return {"confusion": confusion, "samples": samples}


def of_labels(outputs: Any) -> np.ndarray:
    """Return the logits of the expressions, ``[N, K]``, of one head or of several.

    Args:
        outputs: what a network put out.
    """
    return outputs["labels"] if isinstance(outputs, Mapping) else outputs


# ---------------------------------------------------------------- training


def train(
    settings: Settings, faces: Splits, run: training.Run, fast: bool = False, progress: bool = True
) -> training.History:
    """Train the network that settings name, or go on where it was stopped.

    Args:
        settings: the settings.
        faces: the splits by name.
        run: where to keep it.
        fast: for one epoch.
        progress: show a line that grows.

    Raises:
        ValueError: an option or value that does not exist.
        FloatingPointError: the loss is no number any more.
    """
    model = make_network(settings, faces["train"])
    scores = make_scores(settings.task, faces["validation"].labels)
    config = make_config(settings, scores, fast)
    run.about["num_parameters"] = models.num_parameters(model)

    def fit(config: training.Config, run: training.Run, drawn: Mapping[str, Callable]) -> training.History:
        parts, loss = (faces["train"], faces["validation"]), make_loss(settings, faces["train"])
        about = {"figures": drawn, "device": settings.device, "progress": progress}
        return training.fit(model, *parts, loss, scores, config, run=run, **about)

    if settings.frozen_epochs:
        epochs = 1 if fast else settings.frozen_epochs
        first = replace(config, epochs=epochs, lr=settings.frozen_lr, patience=0)
        history = _train_head(model, run.folder / HEAD, lambda run: fit(first, run, {}))
        if history is not None and history.stopped:
            return history
    return fit(config, run, figures(settings, faces["validation"]))


HEAD = "head"
"""The folder in a run's folder that keeps the epochs in which only the head learned."""


def _train_head(model: nn.Module, folder: Path, fit: Callable) -> training.History | None:
    """Train the head on frozen features, unless that is done, and wake the network; return the history."""
    if training.Run(folder).finished:
        training.load_weights(model, folder / "best.safetensors")
        return None
    models.freeze(model)
    history = fit(training.Run(folder))
    models.unfreeze(model)
    return history


def train_svm(settings: Settings, faces: Splits, folder: Path, about: Mapping[str, Any]) -> hog.SVM:
    """Fit a support vector machine on the gradients of the training faces, and keep it as ``svm.npz``.

    Args:
        settings: the settings; options of the model are C and gamma.
        faces: the splits by name.
        folder: where to keep it.
        about: what the record is to say.

    Raises:
        ValueError: an option or value that does not exist.
    """
    for name in settings.model_options:
        if name not in ("C", "gamma"):
            raise ValueError(
                f"hog-svm has no option {name!r}{did_you_mean(name, ['C', 'gamma'])}; known: C, gamma"
            )
    train_faces = faces["train"]
    features = hog.hog(grey(train_faces.images))
    options = {"C": 3.0, "gamma": "scale", **settings.model_options}
    machine = hog.SVM.fit(features, train_faces.labels, train_faces.classes, **options)
    described = {
        **about["sizes"],
        "classes": list(train_faces.classes),
        "image_size": settings.image_size,
        "channels": 1,
    }
    model = {"class": "SVM", "name": "hog-svm", **options}
    record = {"model": model, "faces": described, "machine": runtime.machine()}
    training.Run(folder, about).save_config(record)
    machine.save(folder / "svm.npz")
    return machine


def grey(images: np.ndarray) -> np.ndarray:
    """Return pictures in grey, uint8 ``[N, H, W]``.

    Args:
        images: uint8 ``[N, H, W]`` or ``[N, 3, H, W]``.
    """
    return images if images.ndim == 3 else np.round(images.mean(axis=1)).astype(np.uint8)


def keep_audit(faces: Splits, folder: Path) -> None:
    """Write ``audit.json``: what the audit of the splits counts, as tables of columns and rows.

    Args:
        faces: the splits by name.
        folder: the run's folder.
    """
    found = datasets.audit(faces)
    rejects = found.rejects.groupby(["split", "kind"]).size().rename("faces").reset_index()
    balance = found.balance.reset_index()
    tables = {
        "balance": balance,
        "duplicates": found.duplicates,
        "subjects": found.subjects,
        "brightness": found.brightness.reset_index(),
        "rejects": rejects,
        "conflicts": found.conflicts.groupby("split").size().rename("faces").reset_index(),
    }
    content = {name: json.loads(table.to_json(orient="split", index=False)) for name, table in tables.items()}
    with files.replacing(folder / "audit.json") as file:
        file.write(json.dumps(content, indent=1).encode())
