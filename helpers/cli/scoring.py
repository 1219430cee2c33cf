"""What trained networks predict for a part of their faces, kept beside them, and how good that is."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers import datasets, emotions, files, hog, metrics, training
from helpers.cli import choose, experiment
from helpers.cli.settings import Settings, merged
from helpers.cli.train import recorded
from helpers.metrics import Interval


@dataclass(frozen=True)
class Predictions:
    """What one run, or several together, predict for the N faces of a split; K classes.

    Args:
        name: of the run.
        weights: the run's folder or the weights file; of an ensemble the first one's.
        task: "expression", "multitask" or "distribution".
        split: "validation" or "test".
        faces: the faces.
        outputs: head name to ``[N, ...]``; "labels" are logits, or the votes of a machine.
        leaked: bool ``[N]``, which faces are in training too.
        floor: what is known without looking, from the training faces: constant outputs by head name.
        probable: whether "labels" are logits.
        digest: of the faces and of what predicted.
    """

    name: str
    weights: Path
    task: str
    split: str
    faces: datasets.FaceSet
    outputs: dict[str, np.ndarray]
    leaked: np.ndarray
    floor: dict[str, np.ndarray]
    probable: bool
    digest: str

    @property
    def folder(self) -> Path:
        """Where its files go."""
        return self.weights if self.weights.is_dir() else self.weights.parent

    @property
    def classes(self) -> tuple[str, ...]:
        """K names."""
        return self.faces.classes

    @property
    def labels(self) -> np.ndarray:
        """Integers ``[N]``, the annotated classes."""
        return self.faces.labels

    @property
    def targets(self) -> dict[str, np.ndarray]:
        """What is true, by name."""
        names = ("labels", "valence_arousal", "distribution")
        return {name: getattr(self.faces, name) for name in names if getattr(self.faces, name) is not None}

    @property
    def predictions(self) -> np.ndarray:
        """Integers ``[N]``, the predicted classes."""
        return self.outputs["labels"].argmax(axis=1)

    @property
    def probabilities(self) -> np.ndarray:
        """The share of each class, ``[N, K]``; of a machine that has no probabilities its votes."""
        given = self.outputs["labels"]
        return metrics.softmax(given) if self.probable else given / given.sum(axis=1, keepdims=True)

    @property
    def confidence(self) -> np.ndarray:
        """The share of the predicted class, ``[N]``."""
        return self.probabilities.max(axis=1)

    @property
    def people(self) -> np.ndarray | None:
        """Integers ``[N]``: who is in each face, where anybody is known."""
        subject = self.faces.subject
        return subject if subject is not None and (subject >= 0).any() else None


# ---------------------------------------------------------------- predicting


def opened(path: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], Settings]:
    """Return the record of a run or a weights file, and the settings that name its faces and its task.

    A run of ``training.fit`` in a notebook says what it learned, not from which files: ``given`` does.
    """
    folder = path if path.is_dir() else path.parent
    record = recorded(path) if (folder / "svm.npz").is_file() else training.Run.open(path).record
    settings = record.get("settings")
    if settings is None:
        if "data" not in given:
            raise ValueError(f"{path} does not say which faces it learned from: add --data NAME (and --root)")
        outputs, monitor = record["model"].get("num_classes"), record.get("config", {}).get("monitor", "")
        shares = monitor in metrics.distribution_scores(np.zeros((2, 2)))
        task = "multitask" if isinstance(outputs, dict) else "distribution" if shares else "expression"
        settings = {"task": task, "image_size": record["faces"]["image_size"]}
        settings |= {"options": {"color": True}} if record["faces"]["channels"] == 3 else {}
    return record, merged({n: v for n, v in settings.items() if n != "model"}, given)


def predict(
    run: Path,
    split: str = "test",
    tta: str = "none",
    device: str = "auto",
    given: Mapping[str, Any] | None = None,
) -> Predictions:
    """Return what a run predicts for a split of its faces; kept in ``<split>/outputs-<tta>.npz``.

    Args:
        run: a run's folder, or a weights file.
        split: "validation" or "test".
        tta: as in ``training.predict``.
        device: where to compute.
        given: settings in place of those recorded, such as "root".
    """
    record, settings = opened(run, given or {})
    folder = run if run.is_dir() else run.parent
    svm = folder / "svm.npz"
    weights = run if run.is_file() else svm if svm.is_file() else folder / "best.safetensors"
    parts = experiment.load_faces(settings, bool(record.get("fast")))
    faces, train = parts[split], parts["train"]
    if faces.classes != tuple(record["faces"]["classes"]):
        raise ValueError(
            f"{run} learned {record['faces']['classes']}, these faces have {list(faces.classes)}"
        )
    digest = training.digest(faces.digest(), train.digest(), files.sha256(weights), tta, settings.amp)
    path = folder / split / f"outputs-{tta}.npz"
    outputs = _kept(path, digest)
    if outputs is None:
        precision = "auto" if settings.amp else "float32"
        outputs = _outputs(weights, faces, tta=tta, device=device, precision=precision)
        with files.replacing(path) as file:
            np.savez_compressed(file, digest=digest, **outputs)
    name, leaked = run.name if run.is_dir() else run.stem, datasets.leaked(faces, train)
    about = (outputs, leaked, _known_before(train), weights != svm, digest)
    return Predictions(name, run, settings.task, split, faces, *about)


def _outputs(weights: Path, faces: datasets.FaceSet, tta: str, **how: str) -> dict[str, np.ndarray]:
    if weights.name == "svm.npz":
        machine, images = hog.SVM.load(weights), experiment.grey(faces.images)
        views = training.views(torch.from_numpy(images), tta)
        return {"labels": np.mean([machine.votes(machine.features(v.numpy())) for v in views], axis=0)}
    whole = weights.parent if weights.name == "best.safetensors" else weights  # it has the whole record
    outputs = training.predict(training.Run.open(whole).model, faces, tta=tta, **how)
    return outputs if isinstance(outputs, dict) else {"labels": outputs}


def _known_before(train: datasets.FaceSet) -> dict[str, np.ndarray]:
    """Return what the training faces say of any face: shares as logits, mean valence and arousal."""
    tiny = np.finfo(float).tiny
    floor = {"labels": np.bincount(train.labels, minlength=len(train.classes)) / len(train)}
    if train.distribution is not None:
        floor["distribution"] = train.distribution.mean(axis=0)
    floor = {name: np.log(np.maximum(shares, tiny)) for name, shares in floor.items()}
    if train.valence_arousal is not None:
        floor["valence"], floor["arousal"] = np.nanmean(train.valence_arousal, axis=0)[:, None]
    return floor


def _kept(path: Path, digest: str) -> dict[str, np.ndarray] | None:
    """Return the outputs that are kept, when they are of these very faces and weights."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return arrays if str(arrays.pop("digest", "")) == digest else None


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
    shares = np.mean([each.probabilities for each in found], axis=0)
    outputs["labels"] = np.log(np.maximum(shares, np.finfo(float).tiny))
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
    order, floors, results = np.arange(len(targets["labels"])), _floors(found, targets), {}
    for name, score in statistics(found).items():
        if only not in ("", name):
            continue
        values = score(outputs, targets)

        def on(chosen: np.ndarray, score: experiment.Score = score) -> float:
            return score(
                {n: v[chosen] for n, v in outputs.items()}, {n: v[chosen] for n, v in targets.items()}
            )

        each = (np.mean, values) if np.ndim(values) else (on, order)  # means are quick
        interval = metrics.bootstrap(*each, resamples=resamples, groups=groups)
        of_shares = name in metrics.distribution_scores(np.zeros((2, 2)))
        floor = float(np.mean(score(floors["distribution" if of_shares else "labels"], targets)))
        results[name] = {**plain(interval), "floor": floor if np.isfinite(floor) else None}
    return results


def _floors(found: Predictions, targets: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return constant outputs: the shares of the labels, and those of the distributions."""
    size, heads = len(targets["labels"]), found.floor
    constant = {name: np.tile(values, (size, 1)) for name, values in heads.items()}
    if "valence" in constant:
        constant["valence_arousal"] = np.concatenate([constant["valence"], constant["arousal"]], axis=1)
    return {
        name: {**constant, "labels": constant[name]}
        for name in ("labels", "distribution")
        if name in constant
    }


def plain(score: Interval) -> dict[str, float | None]:
    """Return an interval for JSON, which knows no NaN."""
    values = {"value": score.value, "low": score.low, "high": score.high}
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def evaluate(found: Predictions, resamples: int = 1000) -> dict[str, Any]:
    """Return all that is scored, as plain types; it is what ``evaluation.json`` holds."""

    def share(holds: np.ndarray) -> dict[str, float | None]:
        rows = {"resamples": resamples, "groups": found.people}
        return plain(metrics.bootstrap(np.mean, holds.astype(float), **rows))

    by_class = metrics.per_class(found.labels, found.predictions, len(found.classes))
    content: dict[str, Any] = {
        "run": found.name,
        "split": found.split,
        "digest": training.digest(found.digest, resamples),
        "task": found.task,
        "faces": len(found.labels),
        "classes": list(found.classes),
        "scores": scores(found, resamples),
        "majority": share(found.labels == found.floor["labels"].argmax()),
        "per_class": {name: column.tolist() for name, column in by_class._asdict().items()},
        "confusion": metrics.confusion(found.labels, found.predictions, len(found.classes)).tolist(),
        "leaked": int(found.leaked.sum()),
    }
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
    try:
        content = json.loads(path.read_bytes())
        if content["digest"] == training.digest(found.digest, resamples):
            return found, content
    except (OSError, ValueError, KeyError, TypeError):
        pass
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


def shared_score(found: list[Predictions], word: str) -> str:
    """Return the score that a word means, which all predictions must have."""
    known = [name for name in statistics(found[0]) if all(name in statistics(each) for each in found[1:])]
    return choose(f"score of the task {found[0].task}", word, known)


def gain(one: Predictions, other: Predictions, resamples: int = 1000) -> Interval:
    """Return by how much one accuracy is above another, face by face, with its 95 % interval."""
    difference = (one.predictions == one.labels).astype(float) - (other.predictions == other.labels)
    return metrics.bootstrap(np.mean, difference, resamples=resamples, groups=one.people)


def ensemble_gain(found: list[Predictions], choosing: list[Predictions], resamples: int) -> dict[str, Any]:
    """Return what the ensemble gains in accuracy over the run that is best on other faces, ``choosing``."""
    best = max(range(len(found)), key=lambda i: (choosing[i].predictions == choosing[i].labels).mean())
    mean = together(found)
    chance = metrics.mcnemar(mean.labels, mean.predictions, found[best].predictions)
    return {"best": found[best].name, "gain": plain(gain(mean, found[best], resamples)), "mcnemar": chance}


def holm(chances: list[float]) -> list[float]:
    """Return p-values after Holm's correction (1979) for the number of tests, in the order given."""
    corrected, floor = [0.0] * len(chances), 0.0
    for rank, i in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        floor = max(floor, min(1.0, chances[i] * (len(chances) - rank)))
        corrected[i] = floor
    return corrected
