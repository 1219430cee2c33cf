"""What trained networks predict for a part of their faces, kept beside them, and how good that is."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from sklearn.metrics import classification_report

from helpers import batches, datasets, emotions, files, gradcam, hog, metrics, plotting, training
from helpers.cli import experiment, recorded
from helpers.cli.evaluate import How
from helpers.cli.settings import Settings, merged

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
    record: dict[str, Any]  # what config.json says
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
        self.right = (self.predictions == self.labels).astype(float)
        self.probabilities = metrics.softmax(given) if self.probable else given / given.sum(1, keepdims=True)
        self.confidence = self.probabilities.max(axis=1)
        self.people = subject if subject is not None and (subject >= 0).any() else None

    def worst(self) -> np.ndarray:
        """Return the positions of the mistakes, the most confident first."""
        wrong = np.flatnonzero(self.right == 0)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]

    def by_class(self) -> pd.DataFrame:
        """Return precision, recall, F1 and support of each class."""
        columns = metrics.per_class(self.labels, self.predictions, len(self.classes))._asdict()
        return pd.DataFrame(columns, index=pd.Index(self.classes, name="class"))

    def heat(self, chosen: np.ndarray) -> np.ndarray:
        """Return some faces under Grad-CAM of their predicted class."""
        model, images = training.Run.open(self.weights).model, np.asarray(self.faces.images[chosen])
        inputs = batches.normalise(torch.tensor(images if images.ndim == 4 else images[:, None]))
        head = "labels" if self.task == "multitask" else None
        maps = gradcam.grad_cam(model, gradcam.last_map(model), inputs, head=head)
        return plotting.heated(images, maps.cpu().numpy())


def opened(path: Path, how: How) -> tuple[dict[str, Any], Settings]:
    """Return the record of a run or a weights file, and the settings that name its faces and its task."""
    svm = (path / "svm.npz").is_file()
    record = recorded(path / "config.json") if svm else training.Run.open(path).record
    settings = record.get("settings")
    if settings is None:  # training.fit in a notebook does not record from which files its faces came
        if not how.data:
            raise ValueError(f"{path} does not say which faces it learned from: add --data NAME (and --root)")
        several = isinstance(record["model"].get("num_classes"), dict)
        shares = record.get("config", {}).get("monitor", "") in OF_SHARES
        settings = {"task": "multitask" if several else "distribution" if shares else "expression"}
        settings["image_size"] = record["faces"]["image_size"]
        settings |= {"options": {"color": True}} if record["faces"]["channels"] == 3 else {}
    given = {name: getattr(how, name) for name in ("data", "root", "options") if getattr(how, name)}
    return record, merged({n: v for n, v in settings.items() if n != "model"}, given)


def predict(run: Path, split: str, how: How) -> Predictions:
    """Return what a run predicts; kept in ``<split>/outputs-<tta>.npz``."""
    record, settings = opened(run, how)
    folder, svm = run if run.is_dir() else run.parent, run / "svm.npz"
    weights = run if run.is_file() else svm if svm.is_file() else run / "best.safetensors"
    parts, _ = experiment.load_faces(settings, bool(record.get("fast")))
    faces, train = parts[split], parts["train"]
    if faces.classes != tuple(record["faces"]["classes"]):
        learned = record["faces"]["classes"]
        raise ValueError(f"{run} learned {learned}, these faces have {list(faces.classes)}")
    digest = training.digest(faces.digest(), train.digest(), files.sha256(weights), how.tta, settings.amp)
    path, outputs = folder / split / f"outputs-{how.tta}.npz", {}
    damaged = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
    with suppress(*damaged), np.load(path, allow_pickle=False) as found:
        outputs = {n: found[n] for n in set(found) - {"digest"} if str(found["digest"]) == digest}
    if not outputs:
        outputs = _outputs(run, faces, how, "auto" if settings.amp else "float32")
        with files.replacing(path) as file:
            np.savez_compressed(file, digest=digest, **outputs)
    shares = {"labels": np.bincount(train.labels, minlength=len(train.classes)) / len(train)}
    if train.distribution is not None:
        shares["distribution"] = train.distribution.mean(axis=0)
    floor = {name: np.log(np.maximum(share, TINY)) for name, share in shares.items()}
    if train.valence_arousal is not None:
        floor["valence"], floor["arousal"] = np.nanmean(train.valence_arousal, axis=0)[:, None]
    name, leaked = run.name if run.is_dir() else run.stem, datasets.leaked(faces, train)
    about = (record, outputs, leaked, floor, weights != svm, digest)
    return Predictions(name, run, settings.task, split, faces, *about)


def _outputs(run: Path, faces: datasets.FaceSet, how: How, precision: str) -> dict[str, np.ndarray]:
    if (run / "svm.npz").is_file():
        machine, images = hog.SVM.load(run / "svm.npz"), torch.from_numpy(experiment.grey(faces.images))
        votes = [machine.votes(machine.features(v.numpy())) for v in training.views(images, how.tta)]
        return {"labels": np.mean(votes, axis=0)}
    model, about = training.Run.open(run).model, {"device": how.device, "precision": precision}
    outputs = training.predict(model, faces, tta=how.tta, **about)
    return outputs if isinstance(outputs, dict) else {"labels": outputs}


def predict_all(runs: list[Path], split: str, how: How) -> list[Predictions]:
    """Return what several runs predict for the same faces; where names clash, the paths stand for them."""
    found = [predict(run, split, how) for run in runs]
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


def together(found: list[Predictions], choosing: list[Predictions], resamples: int) -> tuple:
    """Return the ensemble, and what it gains over the one that is best on the validation images.

    It is the mean of the probabilities; of valence and arousal, the mean itself.
    """
    for each in found:
        if not each.probable:
            raise ValueError(f"{each.name} gives votes, no probabilities: it cannot be averaged")
    outputs = {name: np.mean([each.outputs[name] for each in found], axis=0) for name in found[0].outputs}
    outputs["labels"] = np.log(np.maximum(np.mean([each.probabilities for each in found], axis=0), TINY))
    mean = replace(found[0], name="ensemble", outputs=outputs)
    best = max(zip(choosing, found, strict=True), key=lambda both: both[0].right.mean())[1]
    chance = metrics.mcnemar(mean.labels, mean.predictions, best.predictions)
    gain = share(mean, mean.right - best.right, resamples)
    return mean, {"best": best.name, "gain": gain, "mcnemar": chance}


def statistics(found: Predictions) -> dict[str, experiment.Score]:
    """Return the scores that fit some predictions, as functions of outputs and targets."""
    distances = None
    if found.task == "distribution":
        distances = emotions.distances(found.classes, experiment.places(found.faces, needed=False))
    return experiment.make_scores(found.task, np.unique(found.labels), found.probable, distances)


def scores(found: Predictions, resamples: int = 1000, rows: Any = slice(None)) -> dict[str, dict]:
    """Return each score with its 95 % interval, over people where they are known, and its floor."""
    outputs, targets = ({n: v[rows] for n, v in part.items()} for part in (found.outputs, found.targets))
    groups = None if found.people is None else found.people[rows]
    order, results = np.arange(len(targets["labels"])), {}
    constant = {name: np.tile(values, (len(order), 1)) for name, values in found.floor.items()}
    for name, score in statistics(found).items():

        def on(chosen: np.ndarray, score: experiment.Score = score) -> float:
            return score(*({n: v[chosen] for n, v in part.items()} for part in (outputs, targets)))

        values = score(outputs, targets)
        each = (np.mean, values) if np.ndim(values) else (on, order)  # means are quick
        shares = constant["distribution" if name in OF_SHARES else "labels"]
        floor = float(np.mean(score({**constant, "labels": shares}, targets)))
        results[name] = plain(metrics.bootstrap(*each, resamples=resamples, groups=groups))
        results[name]["floor"] = floor if np.isfinite(floor) else None
    return results


def share(found: Predictions, values: np.ndarray, resamples: int) -> dict[str, float | None]:
    """Return the mean of a value of each face, with its 95 % interval."""
    return plain(metrics.bootstrap(np.mean, values.astype(float), resamples=resamples, groups=found.people))


def plain(score: metrics.Interval) -> dict[str, float | None]:
    """Return an interval for JSON, which knows no NaN."""
    return {name: float(value) if np.isfinite(value) else None for name, value in vars(score).items()}


def interval(score: dict[str, float | None]) -> metrics.Interval:
    """Return the interval that :func:`plain` made plain."""
    return metrics.Interval(*(np.nan if score[n] is None else score[n] for n in ("value", "low", "high")))


def scored(found: Predictions, resamples: int) -> dict[str, Any]:
    """Return all that is scored, as plain types; it is what ``evaluation.json`` holds."""
    truth, size = found.labels, len(found.classes)
    content = {"run": found.name, "split": found.split, "task": found.task, "faces": len(truth)}
    content |= {"classes": list(found.classes), "scores": scores(found, resamples)}
    content["majority"] = share(found, truth == found.floor["labels"].argmax(), resamples)
    content["per_class"] = found.by_class().to_dict("list")
    content["confusion"] = metrics.confusion(truth, found.predictions, size).tolist()
    content["leaked"] = int(found.leaked.sum())
    if found.faces.name == "synthetic":  # of other sets nobody knows the true probabilities
        content["best_possible"] = share(found, truth == found.faces.distribution.argmax(axis=1), resamples)
    if 0 < content["leaked"] < len(truth) - 1:
        content["without_leaked"] = scores(found, resamples, ~found.leaked)
    return content


def evaluated(run: Path, split: str, how: How) -> tuple[Predictions, dict[str, Any]]:
    """Return what a run predicts, and its evaluation: the kept one where it fits, else a new one."""
    found = predict(run, split, how)
    folder, digest = found.folder / split, training.digest(found.digest, how.resamples)
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((folder / "evaluation.json").read_bytes())
        if content["digest"] == digest:
            return found, content
    content = {"digest": digest, **scored(found, how.resamples)}
    for name, table in tables(found, content).items():
        files.write(folder / f"{name}.csv", table.to_csv(index=False))
    how = {"labels": range(len(found.classes)), "target_names": found.classes, "zero_division": 0}
    report = classification_report(found.labels, found.predictions, digits=3, **how)
    files.write(folder / "classification_report.txt", report)
    for name, size, draw in figures(found, content):
        files.write(folder / f"{name}.png", plotting.png(draw, size, 150))
    # last: by it the evaluation is taken for complete
    files.write(folder / "evaluation.json", json.dumps(content, indent=1))
    return found, content


def figures(
    found: Predictions, content: dict[str, Any]
) -> Iterator[tuple[str, tuple[float, float], Callable[[Axes], object]]]:
    """Yield name, size in inches and plot of each figure of a run's predictions."""
    classes, size = found.classes, len(found.classes)
    table, by_class = np.array(content["confusion"]), found.by_class().drop(columns="support")
    yield "confusion", (2.4 + 0.62 * size, 1.4 + 0.5 * size), partial(plotting.confusion, table, classes)
    yield "per_class", (6.4, 1.2 + 0.4 * size), partial(plotting.class_scores, by_class)
    each = {name: (found.labels == k, found.probabilities[:, k]) for k, name in enumerate(classes)}
    each = {name: on for name, on in each.items() if 0 < on[0].sum() < len(on[0])}
    for name, curve, draw in (
        ("roc", metrics.roc, plotting.roc),
        ("pr", metrics.precision_recall, plotting.precision_recall),
    ):
        yield name, (6.4, 4.0), partial(draw, {name: curve(*on) for name, on in each.items()})
    for column, name in enumerate(("valence", "arousal")):
        if name in found.outputs:
            both = found.targets["valence_arousal"][:, column], found.outputs[name][:, 0]
            yield name, (6.0, 4.4), partial(plotting.agreement, *both, found.labels, classes, name)
    if found.task == "distribution":
        some = np.linspace(0, len(found.labels) - 1, 6).astype(int)
        shares = found.targets["distribution"][some], found.probabilities[some]

        def beside(ax: Axes) -> None:
            figure = ax.figure
            ax.remove()
            for true, given, place in zip(*shares, figure.subplots(2, 3).flat, strict=True):
                plotting.beside(true, {"predicted": given}, classes, place)

        yield "distributions", (14.0, 2.0 + 0.5 * size), beside
    wrong, right = found.worst()[:12], np.flatnonzero(found.predictions == found.labels)
    shown = {"mistakes": (wrong, np.asarray(found.faces.images[wrong]))} if len(wrong) else {}
    if found.probable:
        chosen = np.concatenate([right[:: max(1, len(right) // 6)][:6], wrong[:6]])
        shown["gradcam"] = chosen, found.heat(chosen)
    for name, (some, images) in shown.items():
        words = [np.array(classes)[each[some]] for each in (found.labels, found.predictions)]
        wide = 1.4 * min(6, len(some)), 2.1 * -(-len(some) // 6)
        yield name, wide, partial(plotting.mistakes, images, *words, found.confidence[some], 6)


def tables(found: Predictions, content: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Return what is kept as csv, by name."""
    names, source = np.array(found.classes), found.faces.source
    rows = {"source": source, "label": names[found.labels], "predicted": names[found.predictions]}
    rows = pd.DataFrame(rows | {"confidence": found.confidence})
    shares = pd.DataFrame(found.probabilities, columns=[f"p_{name}" for name in names])
    others = {n: v[:, 0] for n, v in found.outputs.items() if n != "labels" and v.shape[1] == 1}
    kept = {
        "metrics": pd.DataFrame(content["scores"]).T.rename_axis("score").reset_index(),
        "per_class": found.by_class().reset_index(),
        "predictions": pd.concat([rows, shares, pd.DataFrame(others)], axis=1),
        "errors": rows.iloc[found.worst()],
    }
    if found.task == "distribution":
        each = {n: score(found.outputs, found.targets) for n, score in statistics(found).items()}
        kept["distribution_scores"] = pd.DataFrame({"source": source} | {n: each[n] for n in OF_SHARES})
    return kept


def compared(found: list[Predictions], every: list[dict], score: str, resamples: int) -> list[dict]:
    """Return a row for each run, the best first: its scores, and how its accuracy is to the best one's."""
    rows = []
    for each, scored in zip(found, every, strict=True):
        rows.append({"run": each.name, "scores": scored})
        if each.probable and each.name != "ensemble":
            history = training.Run(each.folder).history
            rows[-1] |= {"parameters": each.record.get("num_parameters"), "epochs": len(history)}
            rows[-1]["seconds_per_epoch"] = history["seconds"].median() if len(history) else None
    sign = 1 if experiment.less_is_better(score) else -1
    order = sorted(range(len(rows)), key=lambda i: sign * (every[i][score]["value"] or 0))
    best, others = found[order[0]], order[1:]
    chances = [metrics.mcnemar(best.labels, found[i].predictions, best.predictions) for i in others]
    for i, chance, corrected in zip(others, chances, holm(chances), strict=True):
        rows[i]["accuracy_to_best"] = share(best, found[i].right - best.right, resamples)
        rows[i] |= {"mcnemar": chance, "mcnemar_holm": corrected}
    return [rows[i] for i in order]


def holm(chances: list[float]) -> list[float]:
    """Return p-values after Holm's correction (1979) for the number of tests, in the order given."""
    order = np.argsort(chances)
    steps = np.sort(chances) * np.arange(len(chances), 0, -1)
    return np.minimum(np.maximum.accumulate(steps), 1)[np.argsort(order)].tolist()


def keep_comparison(rows: list[dict], score: str, label: str, path: Path) -> pd.DataFrame:
    """Write a table of all scores and return it; beside it stands a figure of one score of all runs."""
    table = pd.json_normalize(rows, sep=" ").set_index("run")
    table.columns = table.columns.str.replace("^scores | value$", "", regex=True)
    files.write(path.with_suffix(".csv"), table.to_csv())
    seen = {row["run"]: interval(row["scores"][score]) for row in rows}
    files.write(path, drawn(seen, label))
    return table


def drawn(seen: dict[str, metrics.Interval], label: str, *bounds: list[str]) -> bytes:
    """Return a figure of some scores as PNG; bounds are the names of baselines, and of ceilings."""
    draw = partial(plotting.scores, seen, *bounds, label=label)
    return plotting.png(lambda ax: draw(ax=ax), (7.4, 1.2 + 0.4 * len(seen)))
