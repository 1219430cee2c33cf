"""What trained networks say about a part of their faces, kept beside them, and how good that is."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers import datasets, files, hog, metrics, training
from helpers.cli import experiment
from helpers.cli import settings as told
from helpers.cli.train import read_record
from helpers.metrics import Interval
from helpers.predictor import Predictor

FROM_LABELS = ("labels", "valence_arousal", "distribution")


@dataclass(frozen=True)
class Answers:
    """What one run, or several together, said about N faces of K classes.

    Args:
        name: of the run.
        task: what was learned: a key of ``settings.LOSSES``.
        classes: K names.
        split: "validation" or "test".
        outputs: head name to ``[N, ...]``; "labels" are logits, of a machine that has none its votes.
        targets: what is true, by name.
        source: ``[N]``, where each face is from.
        subject: integers ``[N]``, negative where nobody is known.
        leaked: bool ``[N]``, which faces stand in training too.
        majority: the class that most training faces have.
        probabilities: whether "labels" are logits.
        best: integers ``[N]``, the likeliest class of each face, where the true probabilities are known.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    split: str
    outputs: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    source: np.ndarray
    subject: np.ndarray
    leaked: np.ndarray
    majority: int
    probabilities: bool
    best: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """Integers ``[N]``, the annotated classes."""
        return self.targets["labels"]

    @property
    def predictions(self) -> np.ndarray:
        """Integers ``[N]``, the classes that were given."""
        return self.outputs["labels"].argmax(axis=1)

    def select(self, which: np.ndarray) -> Answers:
        """Return the answers about some of the faces.

        Args:
            which: a mask or positions.
        """
        columns = {name: getattr(self, name)[which] for name in ("source", "subject", "leaked")}
        columns["best"] = None if self.best is None else self.best[which]
        for name in ("outputs", "targets"):
            columns[name] = {key: values[which] for key, values in getattr(self, name).items()}
        return replace(self, **columns)


# ---------------------------------------------------------------- asking a run


def check(folders: list[Path]) -> None:
    """Refuse folders that hold no finished training.

    Args:
        folders: of the runs.

    Raises:
        FileNotFoundError: there is no run, or none of its epochs was finished.
        ValueError: its record is damaged, or was not made by ``train``.
    """
    for folder in folders:
        if "settings" not in read_record(folder):
            raise ValueError(
                f"{folder} was not made by python3 -m helpers train: it does not say which faces it was for"
            )
        if not _weights(folder).is_file():
            raise FileNotFoundError(f"no epoch of {folder} was finished; the command that made it goes on")


def ask(
    folder: Path, split: str, tta: str = "none", root: str | None = None, device: str = "auto"
) -> Answers:
    """Return what a run says about a part of its faces; what it said is kept in ``outputs-<split>.npz``.

    Args:
        folder: of the run.
        split: "validation" or "test".
        tta: as in ``training.predict``.
        root: where the data is, if not where it was.
        device: where to compute.

    Raises:
        FileNotFoundError: the data is not there.
        ValueError: the run cannot be read.
    """
    record, weights = read_record(folder), files.sha256(_weights(folder))
    settings = told.merged(record["settings"], {"root": root} if root else {})
    path = folder / f"outputs-{split}{'' if tta == 'none' else '-' + tta}.npz"
    kept = _read(path, weights)
    if kept is None:
        faces = experiment.load_faces(settings, record.get("fast", False))
        kept = _columns(faces[split], faces["train"])
        for name, values in _outputs(folder, settings, faces[split], tta, device).items():
            kept["output " + name] = values
        with files.replacing(path) as file:
            np.savez_compressed(file, weights=weights, **kept)
    return _answers(folder.name, settings.task, split, record["faces"]["classes"], kept, settings.model)


def ask_all(folders: list[Path], split: str, *how: str | None) -> list[Answers]:
    """Return what several runs say about a part of their faces; where names clash, the paths stand for them.

    Args:
        folders: of the runs.
        split: "validation" or "test".
        how: ``tta``, ``root`` and ``device`` as :func:`ask` takes them.
    """
    names = [folder.name for folder in folders]
    unique = len(set(names)) == len(names)
    everybody = [ask(folder, split, *how) for folder in folders]
    if unique:
        return everybody
    return [replace(each, name=folder.as_posix()) for each, folder in zip(everybody, folders, strict=True)]


def _weights(folder: Path) -> Path:
    machine = folder / "svm.npz"
    return machine if machine.exists() else folder / "best.safetensors"


def _read(path: Path, weights: str) -> dict[str, np.ndarray] | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None  # damaged: it is made again
    return arrays if str(arrays.pop("weights", "")) == weights else None


def _columns(faces: datasets.FaceSet, train: datasets.FaceSet) -> dict[str, np.ndarray]:
    found = {f"target {n}": getattr(faces, n) for n in FROM_LABELS if getattr(faces, n) is not None}
    nobody = np.full(len(faces), -1)
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if faces.name == "synthetic":  # of other sets nobody knows the true probabilities
        found["best"] = faces.distribution.argmax(axis=1)
    return found | {
        "source": faces.source.astype(str),
        "subject": nobody if faces.subject is None else faces.subject,
        "leaked": datasets.leaked(faces, train),
        "majority": np.array(counts.argmax()),
    }


def _outputs(
    folder: Path, settings: told.Settings, faces: datasets.FaceSet, tta: str, device: str
) -> dict[str, np.ndarray]:
    if settings.model == "hog-svm":
        machine, pictures = hog.SVM.load(folder / "svm.npz"), experiment.grey(faces.images)
        views = training.views(torch.from_numpy(pictures), tta)
        return {"labels": np.mean([machine.votes(machine.features(view.numpy())) for view in views], axis=0)}
    model = Predictor.load(folder, device=device).model
    precision = "auto" if settings.amp else "float32"
    found = training.predict(model, faces, tta=tta, device=device, precision=precision)
    return found if isinstance(found, dict) else {"labels": found}


def _answers(
    name: str, task: str, split: str, classes: list[str], kept: Mapping[str, np.ndarray], model: str
) -> Answers:
    def named(kind: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(kind): kept[key] for key in kept if key.startswith(kind)}

    columns = {key: kept[key] for key in ("source", "subject", "leaked")}
    majority, probable = int(kept["majority"]), model != "hog-svm"
    about = {"majority": majority, "probabilities": probable, "best": kept.get("best"), **columns}
    return Answers(name, task, tuple(classes), split, named("output "), named("target "), **about)


# ---------------------------------------------------------------- judging answers


def statistics(answers: Answers) -> dict[str, Callable]:
    """Return the scores that fit the answers, as functions of outputs and targets.

    Args:
        answers: what a run said.
    """
    return experiment.make_scores(answers.task, answers.labels, answers.probabilities)


def judge(answers: Answers, resamples: int = 1000, only: str = "") -> dict[str, Interval]:
    """Return the scores of answers with their 95 % intervals, over people where they are known.

    Args:
        answers: what a run said.
        resamples: bootstrap samples.
        only: the name of one score, for that one alone.
    """
    rows, found = np.arange(len(answers.labels)), {}
    for name, statistic in statistics(answers).items():
        if only not in ("", name):
            continue

        def score(chosen: np.ndarray, statistic: Callable = statistic) -> float:
            some = answers.select(chosen)
            alone = some.outputs["labels"] if len(some.outputs) == 1 else some.outputs
            return statistic(alone, some.targets)

        found[name] = metrics.bootstrap(score, rows, resamples=resamples, groups=groups(answers))
    return found


def groups(answers: Answers) -> np.ndarray | None:
    """Return who is in each face where anybody is known, for the bootstrap; else None.

    Args:
        answers: what a run said.
    """
    return answers.subject if (answers.subject >= 0).any() else None


def right(answers: Answers) -> np.ndarray:
    """Return which faces were given their class, as numbers 0 and 1.

    Args:
        answers: what a run said.
    """
    return (answers.predictions == answers.labels).astype(float)


def gain(better: Answers, worse: Answers, resamples: int = 1000) -> Interval:
    """Return by how much one accuracy is above another, face by face, with its 95 % interval.

    Args:
        better: answers about the same faces.
        worse: answers about the same faces.
        resamples: bootstrap samples.
    """
    difference = right(better) - right(worse)
    return metrics.bootstrap(np.mean, difference, resamples=resamples, groups=groups(better))


def same_faces(everybody: list[Answers]) -> None:
    """Refuse answers that cannot be compared.

    Args:
        everybody: of each run.

    Raises:
        ValueError: they are about other faces, or in other classes.
    """
    first = everybody[0]
    for other in everybody[1:]:
        if other.classes != first.classes:
            raise ValueError(
                f"{first.name} and {other.name} have other classes ({len(first.classes)} and "
                f"{len(other.classes)}): they cannot be compared"
            )
        alike = np.array_equal(first.source, other.source) and np.array_equal(first.labels, other.labels)
        if not alike:
            raise ValueError(
                f"{first.name} and {other.name} have other {first.split} faces (data, its options or "
                "split_seed differ): they cannot be compared"
            )


def as_numbers(score: Interval) -> dict[str, float | None]:
    """Return an interval for JSON, which knows no NaN.

    Args:
        score: a score.
    """
    values: dict[str, Any] = {"value": score.value, "low": score.low, "high": score.high}
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def numbers(answers: Answers, resamples: int = 1000) -> dict[str, Any]:
    """Return all that is scored, as plain types.

    Args:
        answers: what a run said.
        resamples: bootstrap samples.
    """
    scores = judge(answers, resamples)
    majority = _share(answers, answers.labels == answers.majority, resamples)
    size = len(answers.classes)
    by_class = metrics.per_class(answers.labels, answers.predictions, size)
    found: dict[str, Any] = {
        "split": answers.split,
        "task": answers.task,
        "faces": len(answers.labels),
        "classes": list(answers.classes),
        "scores": {name: as_numbers(score) for name, score in scores.items()},
        "majority": majority,
        "per_class": {name: column.tolist() for name, column in by_class._asdict().items()},
        "confusion": metrics.confusion(answers.labels, answers.predictions, size).tolist(),
        "leaked": int(answers.leaked.sum()),
    }
    if answers.best is not None:
        found["best_possible"] = _share(answers, answers.labels == answers.best, resamples)
    if 0 < found["leaked"] < found["faces"] - 1:
        clean = judge(answers.select(~answers.leaked), resamples)
        found["without_leaked"] = {name: as_numbers(score) for name, score in clean.items()}
    return found


def _share(answers: Answers, holds: np.ndarray, resamples: int) -> dict[str, float | None]:
    drawn = {"resamples": resamples, "groups": groups(answers)}
    return as_numbers(metrics.bootstrap(np.mean, holds.astype(float), **drawn))
