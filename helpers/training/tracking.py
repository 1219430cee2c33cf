"""Who is told how a training goes: TensorBoard always, Weights & Biases when asked; by the same names."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from matplotlib.figure import Figure

BEST = "best/"
"""What stands before the name of a score of the best epoch."""

Value = str | int | float | bool


class Tracker(Protocol):
    """Whoever is told how a training goes."""

    def epoch(self, epoch: int, scores: Mapping[str, float], figures: Mapping[str, Figure]) -> None:
        """Note an epoch.

        Args:
            epoch: its number, from 1.
            scores: numbers by name.
            figures: those that were drawn after it, by name.
        """

    def end(self, settings: Mapping[str, Value], best: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Note what was reached with which settings, and end.

        Args:
            settings: plain values by name.
            best: the scores of the best epoch.
            kept: the files that make up the result.
        """

    def pause(self) -> None:
        """End for now: the training was stopped, and may go on."""


class TensorBoard:
    """Writes event files, one an epoch, so that a training that is killed leaves whole ones.

    Args:
        folder: where ``tensorboard --logdir`` finds them.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def epoch(self, epoch: int, scores: Mapping[str, float], figures: Mapping[str, Figure]) -> None:
        """Note an epoch; a later one that a killed training had noted is taken back.

        Args:
            epoch: its number, from 1.
            scores: numbers by name.
            figures: those that were drawn after it, by name.
        """
        with self._writer(purge_step=epoch) as writer:
            for name, value in scores.items():
                writer.add_scalar(name, value, epoch)
            for name, figure in figures.items():
                writer.add_figure(name, figure, epoch)

    def end(self, settings: Mapping[str, Value], best: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Write the line of the HPARAMS table: the settings beside the scores of the best epoch.

        Args:
            settings: plain values by name.
            best: the scores of the best epoch.
            kept: not used.
        """
        from torch.utils.tensorboard.summary import hparams

        scores = {BEST + name: value for name, value in best.items()}
        with self._writer() as writer:
            for name, value in scores.items():
                writer.add_scalar(name, value, int(best["epoch"]))
            for part in hparams(dict(settings), scores):
                writer.file_writer.add_summary(part)

    def pause(self) -> None:
        """Do nothing: every file is closed already."""

    def _writer(self, **options: Any) -> Any:
        # imported here: it takes a second, and only a kept training needs it
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.folder, **options)


class WandB:
    """Tells Weights & Biases; a run that is resumed goes on under the same id.

    Args:
        folder: the run's folder; W&B keeps its files in it, under ``wandb/``.
        project: the name of the project there.
        tags: words to find the run by.
        online: send everything to the service now; otherwise it stays on this machine, and ``wandb sync``
            sends it when you say so.

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(self, folder: str | Path, project: str, tags: Sequence[str] = (), online: bool = False):
        self.folder, self.project, self.tags = Path(folder), project, tuple(tags)
        self.mode = "online" if online else "offline"
        self.wandb, self._run = _wandb(), None

    def epoch(self, epoch: int, scores: Mapping[str, float], figures: Mapping[str, Figure]) -> None:
        """Note an epoch.

        Args:
            epoch: its number, from 1.
            scores: numbers by name.
            figures: those that were drawn after it, by name.
        """
        pictures = {name: self.wandb.Image(figure) for name, figure in figures.items()}
        self._open().log({**scores, **pictures}, step=epoch)

    def end(self, settings: Mapping[str, Value], best: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Note the settings and the scores of the best epoch, hand over the files, and end.

        Args:
            settings: plain values by name.
            best: the scores of the best epoch.
            kept: the files that make up the result.
        """
        run = self._open()
        run.config.update(dict(settings), allow_val_change=True)
        run.summary.update({BEST + name: value for name, value in best.items()})
        artefact = self.wandb.Artifact(self.folder.name, type="model")
        for path in kept:
            artefact.add_file(str(path))
        run.log_artifact(artefact)
        self.pause()

    def pause(self) -> None:
        """Close the connection."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _open(self) -> Any:
        if self._run is None:
            number = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]
            about = {"project": self.project, "name": self.folder.name, "tags": list(self.tags), "id": number}
            self._run = self.wandb.init(dir=str(self.folder), mode=self.mode, resume="allow", **about)
        return self._run


def _wandb() -> ModuleType:
    try:
        return importlib.import_module("wandb")  # an optional package
    except ImportError:
        raise ImportError("wandb is missing: pip install wandb; TensorBoard works without it") from None


def plain(record: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Return a nested record as one level of plain values: ``{"augment": {"flip": True}}`` is "augment.flip".

    Args:
        record: what may be written as JSON.
        prefix: what stands before each name.
    """
    found: dict[str, Value] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= plain(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, Value) else str(value)
    return found
