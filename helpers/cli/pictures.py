"""The pictures that an evaluation leaves in a run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers import batches, files, gradcam, metrics, plotting
from helpers.cli import experiment
from helpers.cli import settings as told
from helpers.cli.scoring import Answers
from helpers.cli.train import read_record
from helpers.predictor import Predictor

SHOWN = 12
"""Faces in a picture of mistakes, or of heat maps."""


def keep(folder: Path, answers: Answers, root: str | None = None) -> None:
    """Draw what a run said into ``<what>-<split>.png`` files in its folder.

    Args:
        folder: of the run.
        answers: what it said.
        root: where the data is, if not where it was.
    """
    record = read_record(folder)
    settings = told.merged(record["settings"], {"root": root} if root else {})
    images = experiment.load_faces(settings, record.get("fast", False))[answers.split].images
    _charts(folder, answers)
    _faces(folder, answers, images)
    if settings.model != "hog-svm":
        _heat(folder, answers, images)


def write(folder: Path, name: str, size: tuple[float, float], draw: Callable[[Axes], object]) -> None:
    """Write ``<name>.png``.

    Args:
        folder: where to.
        name: the file's name without ending.
        size: width and height in inches.
        draw: draws on an axes.
    """
    with plotting.styled(), files.replacing(folder / f"{name}.png") as file:
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.savefig(file, format="png", bbox_inches="tight", dpi=150)


def _charts(folder: Path, answers: Answers) -> None:
    size, split = len(answers.classes), answers.split
    table = metrics.confusion(answers.labels, answers.predictions, size)
    wide = (2.4 + 0.62 * size, 1.4 + 0.5 * size)
    write(folder, f"confusion-{split}", wide, lambda ax: plotting.confusion(table, answers.classes, ax))
    shares = shares_of(answers)
    there = [k for k in range(size) if 0 < (answers.labels == k).sum() < len(answers.labels)]
    for name, curve, draw in (
        ("roc", metrics.roc, plotting.roc),
        ("precision-recall", metrics.precision_recall, plotting.precision_recall),
    ):
        found = {answers.classes[k]: curve(answers.labels == k, shares[:, k]) for k in there}
        write(folder, f"{name}-{split}", (6.4, 4.0), lambda ax, found=found, draw=draw: draw(found, ax))
    for column, name in enumerate(("valence", "arousal")):
        if name in answers.outputs:
            _agreement(folder, answers, column, name)


def _agreement(folder: Path, answers: Answers, column: int, name: str) -> None:
    truth, given = answers.targets["valence_arousal"][:, column], answers.outputs[name][:, 0]

    def draw(ax: Axes) -> Axes:
        return plotting.agreement(truth, given, answers.labels, answers.classes, name, ax)

    write(folder, f"{name}-{answers.split}", (6.0, 4.4), draw)


def worst(answers: Answers) -> np.ndarray:
    """Return the positions of the mistakes that were made with most confidence, at most ``SHOWN``.

    Args:
        answers: what a run said.
    """
    wrong = np.flatnonzero(answers.predictions != answers.labels)
    return wrong[np.argsort(-confidence(answers)[wrong], kind="stable")][:SHOWN]


def confidence(answers: Answers) -> np.ndarray:
    """Return the share that each given class got, ``[N]`` in [0, 1]: a probability, or a share of the votes.

    Args:
        answers: what a run said.
    """
    return shares_of(answers).max(axis=1)


def shares_of(answers: Answers) -> np.ndarray:
    """Return what each class got, ``[N, K]`` in [0, 1]: probabilities, or shares of the votes.

    Args:
        answers: what a run said.
    """
    given = answers.outputs["labels"]
    return metrics.softmax(given) if answers.probabilities else given / given.sum(axis=1, keepdims=True)


def _faces(folder: Path, answers: Answers, images: np.ndarray) -> None:
    chosen = worst(answers)
    if not len(chosen):
        return
    names = np.array(answers.classes)
    words = names[answers.labels[chosen]], names[answers.predictions[chosen]]

    def draw(ax: Axes) -> Axes:
        return plotting.mistakes(images[chosen], *words, confidence(answers)[chosen], ax=ax)

    write(folder, f"mistakes-{answers.split}", _size(len(chosen)), draw)


def _heat(folder: Path, answers: Answers, images: np.ndarray) -> None:
    """Draw where the network looked: first in faces that it read rightly, then in its worst mistakes."""
    correct = np.flatnonzero(answers.predictions == answers.labels)
    some = np.unique(np.linspace(0, max(0, len(correct) - 1), SHOWN // 2).astype(int))[: len(correct)]
    chosen = np.concatenate([correct[some], worst(answers)[: SHOWN // 2]]).astype(int)
    predictor, names = Predictor.load(folder), np.array(answers.classes)
    shown = torch.tensor(np.asarray(images[chosen])).to(predictor.where)
    pictures = batches.normalise(shown if shown.ndim == 4 else shown[:, None])
    head = "labels" if answers.task == "multitask" else None
    model = predictor.model
    maps = gradcam.grad_cam(model, gradcam.last_map(model), pictures, head=head).cpu().numpy()
    hot = plotting.heated(images[chosen], maps)
    words = names[answers.labels[chosen]], names[answers.predictions[chosen]]
    write(
        folder,
        f"gradcam-{answers.split}",
        _size(len(chosen)),
        lambda ax: plotting.guesses(hot, *words, columns=6, ax=ax),
    )


def _size(num: int) -> tuple[float, float]:
    columns = min(6, num)
    return 1.4 * columns, 1.4 * 1.48 * -(-num // columns)
