"""From settings to what ``training.fit`` takes: faces, network, loss, scores; and what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from helpers import datasets, emotions, files, losses, metrics, models, plotting, runtime, training
from helpers.batches import Augment
from helpers.cli import choose
from helpers.cli.settings import Settings

V1 = Augment(rotation=8, translation=0.06, scale=0.08, brightness=0.1, contrast=0.2, erasing=0)
AUGMENTS = {"none": None, "v1": V1, "v2": replace(V1, erasing=0.25, perspective=0.2)}
FAST = {"train": 256, "validation": 128, "test": 128}
"""Images of each part that ``--fast`` keeps."""
MONITORS = {"expression": "accuracy", "multitask": "mean score", "distribution": "KL"}
"""Task to the validation score that selects its best epoch."""

Splits = dict[str, datasets.FaceSet]
Score = Callable[[Any, Mapping[str, np.ndarray]], Any]
"""A function of outputs and targets that gives a number, or ``[N]`` of which the mean is the score."""


def less_is_better(score: str) -> bool:
    """Whether the best value of a score, such as "RMSE valence", is its lowest."""
    of_shares = set(metrics.distribution_scores(np.zeros((2, 2)))) - {"cosine", "intersection"}
    return score.split()[0] in {"loss", "log", "calibration", "RMSE", "MAE"} | of_shares


def load_faces(settings: Settings, fast: bool = False) -> tuple[Splits, str]:
    """Return the training, validation and test faces that settings name, and a line on what was left out."""
    options = dict(settings.options)
    if fast and settings.data == "synthetic":
        options["num_faces"] = min(sum(FAST.values()), options.get("num_faces", 4000))
    faces = datasets.load(settings.data, settings.root, settings.image_size, **options)
    needed = {"multitask": "valence_arousal", "distribution": "distribution"}.get(settings.task)
    if needed and getattr(faces, needed) is None:
        raise ValueError(f"{settings.data} has no {needed}, which the task {settings.task} learns")
    whole = faces.merged() if settings.merge == "4" else faces
    parts = dict(zip(FAST, whole.splits(settings.split_seed, leaks=settings.leaks), strict=True))
    for name, part in parts.items() if fast else ():  # a few, spread over the whole part
        few = np.linspace(0, len(part) - 1, min(FAST[name], len(part)))
        parts[name] = part.select(np.unique(few.astype(int)))
    return parts, datasets.left_out(whole)


def make_network(settings: Settings, faces: datasets.FaceSet) -> nn.Module:
    """Return the network that settings name, for such faces."""
    options = {"weights": "DEFAULT"} if settings.pretrained else {}
    options |= {} if settings.dropout is None else {"dropout": settings.dropout}
    options |= {"image_size": settings.image_size} if settings.model == "vit_b_16" else {}
    options |= settings.model_options
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
    if settings.balance == "fixed":
        return losses.weighted_sum(terms, {})
    squared = ("valence", "arousal") if settings.loss == "mse" else ()
    return losses.UncertaintyWeighted(terms, squared, speed=10)


def places(train: datasets.FaceSet, needed: bool = True) -> dict[str, tuple[float, float]]:
    """Return valence and arousal of each class: the mean over its members, or over its faces."""
    spots = emotions.CIRCUMPLEX
    known = {name: np.mean([spots[each] for each in of], axis=0) for name, of in emotions.MERGED4.items()}
    known |= spots
    if train.valence_arousal is not None:
        known = emotions.places_of(train.classes, train.distribution, train.valence_arousal) | known
    lost = [name for name in train.classes if name not in known]
    if lost and needed:
        raise ValueError(
            f"the earth mover's distance needs valence and arousal of {', '.join(lost)}: put them beside the "
            "distributions, or take a loss without emd"
        )
    return known | dict.fromkeys(lost, (0.0, 0.0))


def make_scores(
    task: str, classes: np.ndarray, probabilities: bool = True, distances: np.ndarray | None = None
) -> dict[str, Score]:
    """Return every score of a task by name; EMD, which takes seconds, where there are distances."""
    on_labels = {  # those that average over classes take the same ones on each bootstrap sample
        "accuracy": lambda true, predicted: (true == predicted).astype(float),
        "balanced accuracy": partial(metrics.balanced_accuracy, classes=classes),
        "macro F1": partial(metrics.macro_f1, classes=classes),
        "weighted F1": metrics.weighted_f1,
        "Cohen's kappa": metrics.cohens_kappa,
        "Krippendorff's alpha": lambda *raters: metrics.krippendorff_alpha(metrics.tally(*raters)),
    }
    scores: dict[str, Score] = {name: metrics.on_labels(score) for name, score in on_labels.items()}
    if probabilities:
        scores["log loss"] = metrics.on_probabilities(metrics.log_loss)
        scores["calibration error"] = metrics.on_probabilities(metrics.expected_calibration_error)
    if task == "distribution":
        for name, score in metrics.distribution_scores(distances).items():
            if name != "EMD" or distances is not None:
                scores[name] = lambda outputs, targets, score=score: score(
                    targets["distribution"], metrics.softmax(of_labels(outputs))
                )
    if task == "multitask":
        for title in ("RMSE", "MAE", "R2", "Pearson", "SAGR", "CCC"):
            for name in ("valence", "arousal"):
                scores[f"{title} {name}"] = metrics.on_dimension(getattr(metrics, title.lower()), name)
        parts = [scores[name] for name in ("accuracy", "CCC valence", "CCC arousal")]
        scores["mean score"] = lambda *both: float(np.mean([np.mean(score(*both)) for score in parts]))
    return scores


def of_labels(outputs: Any) -> np.ndarray:
    """Return the logits of the expressions, ``[N, K]``, of one head or of several."""
    return outputs["labels"] if isinstance(outputs, Mapping) else outputs


def make_config(settings: Settings, fast: bool = False) -> training.Config:
    """Return how to train, with ``fast`` for one epoch; ValueError for a value outside its range."""
    what, known = f"score of the task {settings.task}", ("loss", *make_scores(settings.task, np.arange(2)))
    watched = settings.plateau_monitor and choose(what, settings.plateau_monitor, known)
    monitor = choose(what, settings.monitor or MONITORS[settings.task], known)
    same = {each.name for each in fields(training.Config)} & {each.name for each in fields(Settings)}
    values = {name: getattr(settings, name) for name in same} | {"augment": AUGMENTS[settings.augment]}
    values |= {"monitor": monitor, "plateau_monitor": watched, "minimise": less_is_better(monitor)}
    values |= {"epochs": 1} if fast else {}
    return training.Config(**values, precision="auto" if settings.amp else "float32")


def train(
    settings: Settings, faces: Splits, run: training.Run, fast: bool, progress: bool, **start: Any
) -> training.History:
    """Train the network that settings name, or go on where it was stopped."""
    parts, config = (faces["train"], faces["validation"]), make_config(settings, fast)
    model, found = make_network(settings, parts[0]), make_scores(settings.task, np.unique(parts[1].labels))
    scores = {name: lambda *both, score=score: float(np.mean(score(*both))) for name, score in found.items()}
    run.about["num_parameters"] = models.num_parameters(model)
    how = {"device": settings.device, "progress": progress}
    if settings.frozen_epochs:
        epochs = 1 if fast else settings.frozen_epochs
        first = replace(config, epochs=epochs, lr=settings.frozen_lr, patience=0)
        models.freeze(model)
        print("first the head alone:\n" if progress else "", end="")
        loss, head = make_loss(settings, parts[0]), training.Run(run.folder / "head")
        history = training.fit(model, *parts, loss, scores, first, run=head, **how)
        model.requires_grad_(True)
        if history.stopped:
            return history
    loss, drawn = make_loss(settings, parts[0]), figures(parts[1])
    return training.fit(model, *parts, loss, scores, config, run=run, figures=drawn, **how, **start)


def figures(validation: datasets.FaceSet) -> dict[str, Callable]:
    """Return what is drawn of the validation faces after each better epoch: a confusion, some faces."""
    names, shown = np.array(validation.classes), validation.images[:8]

    def confusion(outputs: Any, targets: Mapping[str, np.ndarray], ax: Any) -> Any:
        found = metrics.confusion(targets["labels"], of_labels(outputs).argmax(1), len(names))
        return plotting.confusion(found, validation.classes, ax)

    def samples(outputs: Any, targets: Mapping[str, np.ndarray], ax: Any) -> Any:
        p, meant = metrics.softmax(of_labels(outputs)[:8]), names[validation.labels[:8]]
        return plotting.mistakes(shown, meant, names[p.argmax(axis=1)], p.max(axis=1), columns=4, ax=ax)

    return {"confusion": confusion, "samples": samples}


def train_svm(settings: Settings, faces: Splits, run: training.Run) -> None:
    """Fit a support vector machine on the HOG features of the training faces, and keep it as ``svm.npz``."""
    from helpers import hog  # with scikit-learn, which takes a second to load

    train, options = faces["train"], {"C": 3.0, "gamma": "scale", **settings.model_options}
    machine = hog.SVM.fit(hog.hog(grey(train.images)), train.labels, train.classes, **options)
    described = {**run.about["sizes"], "classes": list(train.classes), "channels": 1}
    described["image_size"] = settings.image_size
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
    tables = {"balance": found.balance.reset_index(), "brightness": found.brightness.reset_index()}
    tables |= {"duplicates": found.duplicates, "subjects": found.subjects}
    tables["conflicts"] = found.conflicts.value_counts("split").reset_index()
    tables["rejects"] = found.rejects.value_counts(["split", "kind"]).reset_index()
    content = {name: json.loads(table.to_json(orient="split", index=False)) for name, table in tables.items()}
    files.write(folder / "audit.json", json.dumps(content, indent=1))
