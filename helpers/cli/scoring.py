"""What trained networks predict for a part of their faces, kept beside them, and how good that is."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers import datasets, emotions, files, metrics, training
from helpers.cli import experiment
from helpers.cli.settings import Settings, merged
from helpers.cli.train import recorded
from helpers.metrics import Interval

OF_SHARES = tuple(metrics.distribution_scores(np.zeros((2, 2))))
"""The scores of distributions."""
TINY = np.finfo(float).tiny


@dataclass
class Predictions:
    """What one run, or several together, predict for the N faces of a split; K classes."""

    name: str
    weights: Path  # the run's folder or the weights file; of an ensemble the first one's
    task: str
    split: str
    faces: datasets.FaceSet
    outputs: dict[str, np.ndarray]  # head name to [N, ...]; "labels" are logits, or the votes of a machine
    leaked: np.ndarray  # bool [N], which faces are in training too
    floor: dict[str, np.ndarray]  # constant outputs by head, as the training faces suggest them
    probable: bool  # whether "labels" are logits
    digest: str  # of the faces and of what predicted

    def __post_init__(self) -> None:
        self.folder = self.weights if self.weights.is_dir() else self.weights.parent
        self.classes, self.labels, subject = self.faces.classes, self.faces.labels, self.faces.subject
        known = {n: getattr(self.faces, n) for n in ("labels", "valence_arousal", "distribution")}
        self.targets = {name: truth for name, truth in known.items() if truth is not None}
        given = self.outputs["labels"]
        self.predictions = given.argmax(axis=1)
        self.probabilities = metrics.softmax(given) if self.probable else given / given.sum(1, keepdims=True)
        self.confidence = self.probabilities.max(axis=1)
        self.people = subject if subject is not None and (subject >= 0).any() else None


# ---------------------------------------------------------------- predicting


def opened(path: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], Settings]:
    """Return the record of a run or a weights file, and the settings that name its faces and its task."""
    folder = path if path.is_dir() else path.parent
    record = recorded(path) if (folder / "svm.npz").is_file() else training.Run.open(path).record
    settings = record.get("settings")
    if settings is None:  # training.fit in a notebook does not record from which files its faces came
        if "data" not in given:
            raise ValueError(f"{path} does not say which faces it learned from: add --data NAME (and --root)")
        several = isinstance(record["model"].get("num_classes"), dict)
        shares = record.get("config", {}).get("monitor", "") in OF_SHARES
        settings = {"task": "multitask" if several else "distribution" if shares else "expression"}
        settings["image_size"] = record["faces"]["image_size"]
        settings |= {"options": {"color": True}} if record["faces"]["channels"] == 3 else {}
    return record, merged({n: v for n, v in settings.items() if n != "model"}, given)


def predict(
    run: Path, split: str = "test", tta: str = "none", device: str = "auto", given: Mapping | None = None
) -> Predictions:
    """Return what a run predicts, with ``given`` settings; kept in ``<split>/outputs-<tta>.npz``."""
    record, settings = opened(run, given or {})
    folder = run if run.is_dir() else run.parent
    svm = folder / "svm.npz"
    weights = run if run.is_file() else svm if svm.is_file() else folder / "best.safetensors"
    parts, _ = experiment.load_faces(settings, bool(record.get("fast")))
    faces, train = parts[split], parts["train"]
    if faces.classes != tuple(record["faces"]["classes"]):
        learned = record["faces"]["classes"]
        raise ValueError(f"{run} learned {learned}, these faces have {list(faces.classes)}")
    digest = training.digest(faces.digest(), train.digest(), files.sha256(weights), tta, settings.amp)
    path, outputs = folder / split / f"outputs-{tta}.npz", {}
    damaged = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
    with suppress(*damaged), np.load(path, allow_pickle=False) as found:
        outputs = {n: found[n] for n in set(found) - {"digest"} if str(found["digest"]) == digest}
    if not outputs:
        precision = "auto" if settings.amp else "float32"
        outputs = _outputs(weights, faces, tta=tta, device=device, precision=precision)
        with files.replacing(path) as file:
            np.savez_compressed(file, digest=digest, **outputs)
    shares = {"labels": np.bincount(train.labels, minlength=len(train.classes)) / len(train)}
    if train.distribution is not None:
        shares["distribution"] = train.distribution.mean(axis=0)
    floor = {name: np.log(np.maximum(share, TINY)) for name, share in shares.items()}
    if train.valence_arousal is not None:
        floor["valence"], floor["arousal"] = np.nanmean(train.valence_arousal, axis=0)[:, None]
    name, leaked = run.name if run.is_dir() else run.stem, datasets.leaked(faces, train)
    return Predictions(name, run, settings.task, split, faces, outputs, leaked, floor, weights != svm, digest)


def _outputs(weights: Path, faces: datasets.FaceSet, tta: str, **how: str) -> dict[str, np.ndarray]:
    if weights.name == "svm.npz":
        from helpers import hog  # with scikit-learn, which networks do not need

        machine, images = hog.SVM.load(weights), experiment.grey(faces.images)
        views = training.views(torch.from_numpy(images), tta)
        return {"labels": np.mean([machine.votes(machine.features(v.numpy())) for v in views], axis=0)}
    whole = weights.parent if weights.name == "best.safetensors" else weights  # it has the whole record
    outputs = training.predict(training.Run.open(whole).model, faces, tta=tta, **how)
    return outputs if isinstance(outputs, dict) else {"labels": outputs}


def predict_all(runs: list[Path], *how: Any) -> list[Predictions]:
    """Return what several runs predict for the same faces; where names clash, the paths stand for them."""
    found = [predict(run, *how) for run in runs]
    if len({each.name for each in found}) < len(found):
        found = [replace(each, name=run.as_posix()) for each, run in zip(found, runs, strict=True)]
    first = found[0]
    for other in found[1:]:
        if other.task != first.task:
            raise ValueError(f"{first.name} learned the task {first.task}, {other.name} {other.task}")
        if other.classes != first.classes or other.faces.source.tolist() != first.faces.source.tolist():
            raise ValueError(
                f"{first.name} and {other.name} have other {first.split} faces or classes (data, options or "
                "split_seed differ): they cannot be compared"
            )
    return found


def together(found: list[Predictions]) -> Predictions:
    """Return the ensemble: the mean of the probabilities; of valence and arousal, the mean itself."""
    for each in found:
        if not each.probable:
            raise ValueError(f"{each.name} gives votes, no probabilities: it cannot be averaged")
    outputs = {name: np.mean([each.outputs[name] for each in found], axis=0) for name in found[0].outputs}
    outputs["labels"] = np.log(np.maximum(np.mean([each.probabilities for each in found], axis=0), TINY))
    digest = training.digest(*(each.digest for each in found))
    return replace(found[0], name="ensemble", outputs=outputs, digest=digest)


# ---------------------------------------------------------------- scoring


def statistics(found: Predictions) -> dict[str, experiment.Score]:
    """Return the scores that fit some predictions, as functions of outputs and targets."""
    distances = None
    if found.task == "distribution":
        distances = emotions.distances(found.classes, experiment.places(found.faces, needed=False))
    return experiment.make_scores(found.task, np.unique(found.labels), found.probable, distances)


def scores(
    found: Predictions, resamples: int = 1000, only: str = "", rows: Any = slice(None)
) -> dict[str, dict]:
    """Return each score with its 95 % interval, over people where they are known, and its floor."""
    outputs, targets = ({n: v[rows] for n, v in part.items()} for part in (found.outputs, found.targets))
    groups = None if found.people is None else found.people[rows]
    order, results = np.arange(len(targets["labels"])), {}
    constant = {name: np.tile(values, (len(order), 1)) for name, values in found.floor.items()}
    for name, score in statistics(found).items():
        if only not in ("", name):
            continue

        def on(chosen: np.ndarray, score: experiment.Score = score) -> float:
            return score(*({n: v[chosen] for n, v in part.items()} for part in (outputs, targets)))

        values = score(outputs, targets)
        each = (np.mean, values) if np.ndim(values) else (on, order)  # means are quick
        interval = metrics.bootstrap(*each, resamples=resamples, groups=groups)
        shares = constant["distribution" if name in OF_SHARES else "labels"]
        floor = float(np.mean(score({**constant, "labels": shares}, targets)))
        results[name] = {**plain(interval), "floor": floor if np.isfinite(floor) else None}
    return results


def plain(score: Interval) -> dict[str, float | None]:
    """Return an interval for JSON, which knows no NaN."""
    return {name: float(value) if np.isfinite(value) else None for name, value in vars(score).items()}


def evaluate(found: Predictions, resamples: int = 1000) -> dict[str, Any]:
    """Return all that is scored, as plain types; it is what ``evaluation.json`` holds."""

    def share(holds: np.ndarray) -> dict[str, float | None]:
        rows = {"resamples": resamples, "groups": found.people}
        return plain(metrics.bootstrap(np.mean, holds.astype(float), **rows))

    by_class = metrics.per_class(found.labels, found.predictions, len(found.classes))
    content: dict[str, Any] = {"run": found.name, "split": found.split, "task": found.task}
    content |= {"digest": training.digest(found.digest, resamples), "faces": len(found.labels)}
    content |= {"classes": list(found.classes), "scores": scores(found, resamples)}
    content["majority"] = share(found.labels == found.floor["labels"].argmax())
    content["per_class"] = {name: column.tolist() for name, column in by_class._asdict().items()}
    content["confusion"] = metrics.confusion(found.labels, found.predictions, len(found.classes)).tolist()
    content["leaked"] = int(found.leaked.sum())
    if found.faces.name == "synthetic":  # of other sets nobody knows the true probabilities
        content["best_possible"] = share(found.labels == found.faces.distribution.argmax(axis=1))
    if 0 < content["leaked"] < content["faces"] - 1:
        content["without_leaked"] = scores(found, resamples, rows=~found.leaked)
    return content


def evaluated(run: Path, *how: Any, resamples: int = 1000) -> tuple[Predictions, dict[str, Any]]:
    """Return what a run predicts, and its evaluation: the kept one where it fits, else a new one."""
    from helpers.cli.evaluate import keep

    found = predict(run, *how)
    path = found.folder / found.split / "evaluation.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_bytes())
        if content["digest"] == training.digest(found.digest, resamples):
            return found, content
    return found, keep(found, resamples)


def compared(
    found: list[Predictions], score: str = "accuracy", resamples: int = 1000, only: str = ""
) -> list[dict]:
    """Return a row for each run, the best first: its scores, and how its accuracy is to the best one's."""
    rows = [{"run": each.name, "scores": scores(each, resamples, only)} for each in found]
    sign = 1 if experiment.less_is_better(score) else -1
    order = sorted(range(len(rows)), key=lambda i: sign * (rows[i]["scores"][score]["value"] or 0))
    best, others = found[order[0]], order[1:]
    chances = [metrics.mcnemar(best.labels, found[i].predictions, best.predictions) for i in others]
    for i, chance, corrected in zip(others, chances, holm(chances), strict=True):
        rows[i] |= {"accuracy_to_best": plain(gain(found[i], best, resamples))}
        rows[i] |= {"mcnemar": chance, "mcnemar_holm": corrected}
    return [rows[i] for i in order]


def gain(one: Predictions, other: Predictions, resamples: int = 1000) -> Interval:
    """Return by how much one accuracy is above another, face by face, with its 95 % interval."""
    difference = (one.predictions == one.labels).astype(float) - (other.predictions == other.labels)
    return metrics.bootstrap(np.mean, difference, resamples=resamples, groups=one.people)


def holm(chances: list[float]) -> list[float]:
    """Return p-values after Holm's correction (1979) for the number of tests, in the order given."""
    order = np.argsort(chances)
    steps = np.sort(chances) * np.arange(len(chances), 0, -1)
    return np.minimum(np.maximum.accumulate(steps), 1)[np.argsort(order)].tolist()
