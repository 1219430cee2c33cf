"""Who is told how a training goes: TensorBoard always, Weights & Biases when asked; by the same names."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

BEST = "best/"
"""What stands before the name of a score of the best epoch."""


class Tracker:
    """Whoever is told how a training goes; each call may be left as it is here."""

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Note the settings, plain values by name, before the first epoch."""

    def epoch(self, epoch: int, scores: Mapping[str, float], figures: Mapping[str, Figure]) -> None:
        """Note an epoch, from 1, with its scores, and the figures that were drawn after it."""

    def end(self, settings: Mapping[str, Any], best: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Note the scores of the best epoch and the files that make up the result, and end."""

    def pause(self) -> None:
        """End for now: the training was stopped, and may go on."""


class TensorBoard(Tracker):
    """Writes event files to a folder, one an epoch, so that a training that is killed leaves whole ones."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def epoch(self, epoch: int, scores: Mapping[str, float], figures: Mapping[str, Figure]) -> None:
        """Note an epoch; a later one that a killed training had noted is taken back."""
        with self._writer(purge_step=epoch) as writer:
            for name, value in scores.items():
                writer.add_scalar(name, value, epoch)
            for name, figure in figures.items():
                writer.add_figure(name, figure, epoch)

    def end(self, settings: Mapping[str, Any], best: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Write the line of the HPARAMS table: the settings beside the scores of the best epoch."""
        from torch.utils.tensorboard.summary import hparams

        scores = {BEST + name: value for name, value in best.items()}
        with self._writer() as writer:
            for name, value in scores.items():
                writer.add_scalar(name, value, int(best["epoch"]))
            for part in hparams(dict(settings), scores):
                writer.file_writer.add_summary(part)

    def _writer(self, **options: Any) -> Any:
        # imported here: it takes a second, and only a kept training needs it
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.folder, **options)


class WandB(Tracker):
    """Tells Weights & Biases; a training that is resumed goes on under the same id.

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
        try:
            self.wandb = importlib.import_module("wandb")  # an optional package
        except ImportError:
            raise ImportError("wandb is missing: pip install wandb; TensorBoard works without it") from None
        self.folder, self.run = Path(folder), None
        self.about = {
            "dir": str(folder),
            "project": allowed(project),
            "name": self.folder.name,
            "tags": [tag[:64] for tag in tags],  # wandb refuses longer ones
            "mode": "online" if online else "offline",
            "resume": "allow",
        }

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Open the run and send the settings."""
        # of the folder and of what is trained, so that a training that starts anew is a run of its own
        identity = sorted((name, value) for name, value in settings.items() if name.startswith("identity."))
        number = hashlib.sha256(f"{self.folder.resolve()} {identity}".encode()).hexdigest()[:16]
        self.run = self.wandb.init(id=number, config=dict(settings), **self.about)

    def epoch(self, epoch: int, scores: Mapping[str, float], figures: Mapping[str, Figure]) -> None:
        """Note an epoch."""
        shown = {name: self.wandb.Image(figure) for name, figure in figures.items()}
        self.run.log({**scores, **shown}, step=epoch)

    def end(self, settings: Mapping[str, Any], best: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Note the scores of the best epoch, hand over the files, and end."""
        self.run.summary.update({BEST + name: value for name, value in best.items()})
        artifact = self.wandb.Artifact(allowed(self.folder.name), type="model")
        for path in kept:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact)
        self.pause()

    def pause(self) -> None:
        """Close the connection."""
        self.run.finish()


def allowed(name: str) -> str:
    """Return a name that W&B takes: letters, digits, ``_ . -``, at most 128 of them."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128] or "run"
