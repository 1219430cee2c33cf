"""From settings to what ``training.fit`` takes: faces, network, loss, scores; and what is kept of them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
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
from helpers.cli import choose
from helpers.cli.settings import Settings

V1 = Augment(rotation=8, translation=0.06, scale=0.08, brightness=0.1, contrast=0.2, erasing=0)
AUGMENTS = {"none": None, "v1": V1, "v2": replace(V1, erasing=0.25, perspective=0.2)}
FAST = {"train": 256, "validation": 128, "test": 128}
"""Images of each part that ``--fast`` keeps."""
MONITORS = {"expression": "accuracy", "multitask": "mean score", "distribution": "KL"}
"""Task to the validation score that selects its best epoch."""
LESS_IS_BETTER = {"loss", "log", "calibration", "RMSE", "MAE", "KL", "JS", "EMD", "MSE", "L1", "TV"}
LESS_IS_BETTER |= {"Chebyshev", "Clark", "Canberra"}
"""First words of the scores of which less is better."""

Splits = dict[str, datasets.FaceSet]
Score = Callable[[Any, Mapping[str, np.ndarray]], Any]
"""A function of outputs and targets that gives a number, or ``[N]`` of which the mean is the score."""


def less_is_better(score: str) -> bool:
    """Whether the best value of a score, such as "RMSE valence", is its lowest."""
    return score.split()[0] in LESS_IS_BETTER


# ---------------------------------------------------------------- what is trained on


def load_set(settings: Settings, fast: bool = False) -> datasets.FaceSet:
    """Return the whole set that settings name."""
    options = dict(settings.options)
    if fast and settings.data == "synthetic":
        options["num_faces"] = min(sum(FAST.values()), options.get("num_faces", 4000))
    faces = datasets.load(settings.data, settings.root, settings.image_size, **options)
    needed = {"multitask": "valence_arousal", "distribution": "distribution"}.get(settings.task)
    if needed and getattr(faces, needed) is None:
        raise ValueError(f"{settings.data} has no {needed}, which the task {settings.task} learns")
    return faces.merged() if settings.merge == "4" else faces


def split(settings: Settings, faces: datasets.FaceSet, fast: bool = False) -> Splits:
    """Return the training, validation and test faces of a set; with ``fast`` a few of them."""
    parts = faces.splits(settings.split_seed, leaks=settings.leaks)
    parts = dict(zip(("train", "validation", "test"), parts, strict=True))
    return {name: _few(part, FAST[name]) for name, part in parts.items()} if fast else parts


def load_faces(settings: Settings, fast: bool = False) -> Splits:
    """Return the training, validation and test faces that settings name."""
    return split(settings, load_set(settings, fast), fast)


def _few(faces: datasets.FaceSet, num: int) -> datasets.FaceSet:
    """Return some faces, spread over the whole set."""
    return faces.select(np.unique(np.linspace(0, len(faces) - 1, min(num, len(faces))).astype(int)))


def make_network(settings: Settings, faces: datasets.FaceSet) -> nn.Module:
    """Return the network that settings name, for such faces."""
    options = dict(settings.model_options)
    if settings.pretrained:
        options.setdefault("weights", "DEFAULT")
    if settings.dropout is not None:
        options.setdefault("dropout", settings.dropout)
    if settings.model == "vit_b_16":
        options.setdefault("image_size", settings.image_size)
    num_classes = len(faces.classes)
    heads = {"labels": num_classes, "valence": 1, "arousal": 1}
    outputs = heads if settings.task == "multitask" else num_classes
    runtime.seed_everything(settings.seed)
    try:
        return models.create(settings.model, outputs, 3 if faces.images.ndim == 4 else 1, **options)
    except TypeError as error:  # Python's own words for an argument that is not there
        raise ValueError(f"{settings.model}: {str(error).split(') ')[-1].split('() ')[-1]}") from None


def make_loss(settings: Settings, train: datasets.FaceSet) -> Callable:
    """Return the training loss; the classes of the training faces may be weighed."""
    if settings.task == "distribution":
        known = losses.divergences(train.classes, places(train, needed="emd" in settings.loss))
        return losses.on_distribution(known[settings.loss])
    weight = None
    if settings.class_weights:
        weight = losses.class_weights(train.labels, len(train.classes), settings.class_weights)
        weight = weight.to(runtime.device(settings.device))
    on_labels = losses.on_labels(label_smoothing=settings.label_smoothing, weight=weight)
    if settings.task == "expression":
        return on_labels
    distance = {"mse": losses.mse, "ccc": losses.ccc_loss}[settings.loss]
    terms = {name: losses.on_dimension(name, distance) for name in ("valence", "arousal")}
    terms["labels"] = on_labels
    if settings.balance == "learned":
        squared = ("valence", "arousal") if settings.loss == "mse" else ()
        return losses.UncertaintyWeighted(terms, squared, speed=10)
    return losses.weighted_sum(terms, {})


def places(train: datasets.FaceSet, needed: bool = True) -> dict[str, tuple[float, float]]:
    """Return valence and arousal of each class: the mean over its members, or over its faces."""
    merged = {
        name: tuple(np.mean([emotions.CIRCUMPLEX[member] for member in members], axis=0).tolist())
        for name, members in emotions.MERGED4.items()
    }
    known = {**emotions.CIRCUMPLEX, **merged}
    if train.valence_arousal is not None:
        known = emotions.places_of(train.classes, train.distribution, train.valence_arousal) | known
    lost = [name for name in train.classes if name not in known]
    if lost and needed:
        raise ValueError(
            f"the earth mover's distance needs valence and arousal of {', '.join(lost)}: put them beside the "
            "distributions, or take a loss without emd"
        )
    return known | dict.fromkeys(lost, (0.0, 0.0))


# ---------------------------------------------------------------- how it is scored


def make_scores(
    task: str, classes: np.ndarray, probabilities: bool = True, distances: np.ndarray | None = None
) -> dict[str, Score]:
    """Return every score of a task by name.

    Args:
        task: the task.
        classes: integers, those that occur: macro F1 averages over the same ones on each bootstrap sample.
        probabilities: whether the outputs are logits.
        distances: ``[K, K]`` between the classes for the earth mover's distance, which takes seconds.
    """
    of_labels = {
        "accuracy": lambda true, predicted: (true == predicted).astype(float),
        "balanced accuracy": partial(metrics.balanced_accuracy, classes=classes),
        "macro F1": partial(metrics.macro_f1, classes=classes),
        "weighted F1": metrics.weighted_f1,
        "Cohen's kappa": metrics.cohens_kappa,
        "Krippendorff's alpha": lambda *raters: metrics.krippendorff_alpha(metrics.tally(*raters)),
    }
    scores: dict[str, Score] = {name: metrics.on_labels(score) for name, score in of_labels.items()}
    if probabilities:
        scores["log loss"] = metrics.on_probabilities(metrics.log_loss)
        scores["calibration error"] = metrics.on_probabilities(metrics.expected_calibration_error)
    if task == "distribution":
        for name, score in metrics.distribution_scores(distances).items():
            if name != "EMD" or distances is not None:
                scores[name] = _on_distribution(score)
    if task == "multitask":
        for title in ("RMSE", "MAE", "R2", "Pearson", "SAGR", "CCC"):
            for name in ("valence", "arousal"):
                scores[f"{title} {name}"] = metrics.on_dimension(getattr(metrics, title.lower()), name)
        parts = [_mean(scores[name]) for name in ("accuracy", "CCC valence", "CCC arousal")]
        scores["mean score"] = lambda outputs, targets: float(np.mean([f(outputs, targets) for f in parts]))
    return scores


def _on_distribution(score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Score:
    return lambda outputs, targets: score(targets["distribution"], metrics.softmax(of_labels(outputs)))


def _mean(score: Score) -> Callable[..., float]:
    return lambda outputs, targets: float(np.mean(score(outputs, targets)))


def of_labels(outputs: Any) -> np.ndarray:
    """Return the logits of the expressions, ``[N, K]``, of one head or of several."""
    return outputs["labels"] if isinstance(outputs, Mapping) else outputs


def make_config(settings: Settings, fast: bool = False) -> training.Config:
    """Return how to train, with ``fast`` for one epoch; ValueError for a value outside its range."""
    known = ("loss", *make_scores(settings.task, np.arange(2)))
    monitor, watched = (
        choose(f"score of the task {settings.task}", word, known) if word else ""
        for word in (settings.monitor or MONITORS[settings.task], settings.plateau_monitor)
    )
    same = {each.name for each in fields(training.Config)} & {each.name for each in fields(Settings)}
    return training.Config(
        **{
            name: getattr(settings, name)
            for name in same - {"epochs", "augment", "monitor", "plateau_monitor"}
        },
        epochs=1 if fast else settings.epochs,
        augment=AUGMENTS[settings.augment],
        monitor=monitor,
        plateau_monitor=watched,
        minimise=less_is_better(monitor),
        precision="auto" if settings.amp else "float32",
    )


def check(settings: Settings) -> None:
    """Refuse values and options outside their range, before any data is read."""
    make_config(settings)
    known = inspect.signature(datasets.LAYOUTS[settings.data].read).parameters
    known = [name for name, each in known.items() if each.default is not each.empty]
    for name in settings.options:
        if name not in known:
            near = f"{did_you_mean(name, known)}; known: {', '.join(known) or 'none'}"
            raise ValueError(f"{settings.data} has no option {name!r}{near}")
    for name in settings.model_options if settings.model == "hog-svm" else ():
        if name not in ("C", "gamma"):
            raise ValueError(f"hog-svm has no option {name!r}; known: C, gamma")


# ---------------------------------------------------------------- training


def train(
    settings: Settings,
    faces: Splits,
    run: training.Run,
    fast: bool = False,
    progress: bool = True,
    **start: Any,
) -> training.History:
    """Train the network that settings name, or go on where it was stopped."""
    model = make_network(settings, faces["train"])
    found = make_scores(settings.task, np.unique(faces["validation"].labels))
    scores = {name: _mean(score) for name, score in found.items()}
    run.about["num_parameters"] = models.num_parameters(model)

    def fit(config: training.Config, run: training.Run, **how: Any) -> training.History:
        parts, loss = (faces["train"], faces["validation"]), make_loss(settings, faces["train"])
        how |= {"device": settings.device, "progress": progress}
        return training.fit(model, *parts, loss, scores, config, run=run, **how)

    config = make_config(settings, fast)
    if settings.frozen_epochs:
        first = replace(
            config, epochs=1 if fast else settings.frozen_epochs, lr=settings.frozen_lr, patience=0
        )
        models.freeze(model)
        if progress:
            print("first the head alone:")
        history = fit(first, training.Run(run.folder / "head"))
        models.unfreeze(model)
        if history.stopped:
            return history
    return fit(config, run, figures=figures(faces["validation"]), **start)


def figures(validation: datasets.FaceSet) -> dict[str, Callable]:
    """Return what is drawn of the validation faces after each better epoch: a confusion, some faces."""
    names = np.array(validation.classes)
    shown, meant = validation.images[:8], names[validation.labels[:8]]

    def confusion(outputs: Any, targets: Mapping[str, np.ndarray], ax: Any) -> Any:
        found = metrics.confusion(targets["labels"], of_labels(outputs).argmax(1), len(validation.classes))
        return plotting.confusion(found, validation.classes, ax)

    def samples(outputs: Any, targets: Mapping[str, np.ndarray], ax: Any) -> Any:
        p = metrics.softmax(of_labels(outputs)[: len(shown)])
        return plotting.mistakes(shown, meant, names[p.argmax(axis=1)], p.max(axis=1), columns=4, ax=ax)

    return {"confusion": confusion, "samples": samples}


def train_svm(settings: Settings, faces: Splits, run: training.Run) -> None:
    """Fit a support vector machine on the HOG features of the training faces, and keep it as ``svm.npz``."""
    train_faces = faces["train"]
    options = {"C": 3.0, "gamma": "scale", **settings.model_options}
    features = hog.hog(grey(train_faces.images))
    machine = hog.SVM.fit(features, train_faces.labels, train_faces.classes, **options)
    described = {**run.about["sizes"], "classes": list(train_faces.classes)}
    described |= {"image_size": settings.image_size, "channels": 1}
    model = {"class": "SVM", "name": "hog-svm", **options}
    run.save_config({"model": model, "faces": described, "machine": runtime.machine()})
    machine.save(run.folder / "svm.npz")
    run.mark_finished({"ended": "fitted"})


def grey(images: np.ndarray) -> np.ndarray:
    """Return images in grey, uint8 ``[N, H, W]``, of ``[N, H, W]`` or ``[N, 3, H, W]``."""
    return images if images.ndim == 3 else np.round(images.mean(axis=1)).astype(np.uint8)


def keep_audit(faces: Splits, folder: Path) -> None:
    """Write ``audit.json``: what the audit of the splits counts, as tables of columns and rows."""
    found = datasets.audit(faces)
    tables = {
        "balance": found.balance.reset_index(),
        "duplicates": found.duplicates,
        "subjects": found.subjects,
        "brightness": found.brightness.reset_index(),
        "rejects": found.rejects.groupby(["split", "kind"]).size().rename("faces").reset_index(),
        "conflicts": found.conflicts.groupby("split").size().rename("faces").reset_index(),
    }
    content = {name: json.loads(table.to_json(orient="split", index=False)) for name, table in tables.items()}
    with files.replacing(folder / "audit.json") as file:
        file.write(json.dumps(content, indent=1).encode())
