"""How a training goes: its history, who may stop it, and who is told (notebook, TensorBoard, W&B)."""

from __future__ import annotations

import hashlib
import importlib
import math
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

BEST = "best/"
"""What stands before the name of a score of the best epoch."""

Watch = Callable[[float, dict[str, float | str]], None]
"""Is told the share of the training that is done, from 0 to 1, and what there is to show beside it."""


@dataclass
class History:
    """The epochs of one training.

    Args:
        monitor: the metric that picks the best epoch.
        lower_is_better: whether less of it is better.
        epochs: one record an epoch: "epoch" (from 1), "lr", "train_loss", "loss" and the metrics (on the
            validation set), the metrics on the training steps ("train_accuracy"), "seconds",
            "images_per_second".
        stopped: whether it was stopped before its end.
        ended: why it ended: "all epochs", "early stopping" or "stopped"; "" as long as it has not.
    """

    monitor: str
    lower_is_better: bool = False
    epochs: list[dict[str, float]] = field(default_factory=list)
    stopped: bool = False
    ended: str = ""

    @property
    def best(self) -> dict[str, float] | None:
        """The record of the best epoch, the earliest where several are equal; None before the first."""
        return self.best_by(self.monitor, self.lower_is_better)

    @property
    def best_epoch(self) -> int:
        """The number of the best epoch, from 1; 0 before the first."""
        return int(self.best["epoch"]) if self.best else 0

    def best_by(self, name: str, lower_is_better: bool) -> dict[str, float] | None:
        """Return the first record with the best of a score; NaN is worse than any other."""
        sign = 1 if lower_is_better else -1
        rank = lambda record: (math.isnan(record[name]), sign * record[name])  # noqa: E731
        return min(self.epochs, key=rank, default=None)

    def frame(self) -> pd.DataFrame:
        """Return one row an epoch."""
        return pd.DataFrame(self.epochs)


class Stop:
    """A request to end a training at the next batch; a Stop button calls :meth:`request`."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, *_: object) -> None:
        """Ask the training to end after the batch it is at."""
        self.requested = True

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Let Ctrl-C, or a notebook's interrupt button, ask for the stop instead of raising anywhere."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self.request)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class Display:
    """Says how far a training is: a line an epoch, and a bar where somebody looks; all of it on stdout."""

    def __init__(self, shown: bool | Watch, total: int, done: int) -> None:
        self.watch, self.lines = shown if callable(shown) else None, shown is True
        self.total, self.first, self.done, self.told = total, done, done, 0.0
        self.started, self.cell = time.perf_counter(), None
        shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
        if self.lines and hasattr(shell, "kernel"):  # one output that is written over, and saved as it ends
            from IPython.display import display

            self.cell = display({"text/plain": ""}, raw=True, display_id=True)
        self.bar = bool(self.watch or self.cell or (self.lines and sys.stdout.isatty()))

    def step(self, values: Callable[[], dict[str, float | str]]) -> None:
        """Count a step; show what there is to show several times a second."""
        self.done, now = self.done + 1, time.perf_counter()
        if not self.bar or now - self.told < 0.2:
            return
        self.told, shown = now, values()
        if self.watch:
            self.watch(self.done / self.total, shown)
            return
        words = " · ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
        form = "{percentage:3.0f}% |{bar:20}| {remaining} left · {postfix}"
        how = {"initial": self.first, "bar_format": form, "postfix": words, "ncols": 110}
        bar = tqdm.format_meter(self.done, self.total, now - self.started, **how)
        if self.cell:
            self.cell.update({"text/plain": bar}, raw=True)
        else:
            print(f"\r\x1b[K{bar}", end="", flush=True)

    def say(self, line: str, last: bool = False) -> None:
        """Write a line that stays."""
        if self.cell and last:
            self.cell.update({"text/plain": line}, raw=True)
        elif self.lines:
            print(("\r\x1b[K" if sys.stdout.isatty() else "") + line, flush=True)


class TensorBoard:
    """Writes event files to a folder, one an epoch, so that a training that is killed leaves whole ones.

    A tracker is anything with these methods, and ``begin(settings)`` and ``pause()`` where it needs them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def epoch(self, epoch: int, scores: Mapping[str, float], figures: Mapping[str, Path]) -> None:
        """Note an epoch, from 1, and the PNG files drawn after it; a killed training's later ones go."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second; only a kept training needs it

        with SummaryWriter(self.folder, purge_step=epoch) as writer:
            for name, value in scores.items():
                writer.add_scalar(name, value, epoch)
            for name, path in figures.items():
                with Image.open(path) as image:
                    writer.add_image(name, np.asarray(image.convert("RGB")), epoch, dataformats="HWC")

    def end(self, settings: Mapping[str, Any], best: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Write the line of the HPARAMS table: the settings beside the scores of the best epoch."""
        from torch.utils.tensorboard import SummaryWriter

        scores = {BEST + name: value for name, value in best.items()}
        with SummaryWriter(self.folder) as writer:
            writer.add_hparams(dict(settings), scores, run_name=".", global_step=int(best["epoch"]))


class WandB:
    """Tells Weights & Biases, under ``project`` and ``tags``; a training that is resumed keeps its id.

    Its files go to the run's folder, under ``wandb/``; not ``online``, they stay there until ``wandb sync``.
    """

    def __init__(self, folder: str | Path, project: str, tags: Sequence[str] = (), online: bool = False):
        try:
            self.wandb = importlib.import_module("wandb")  # an optional package
        except ImportError:
            raise ImportError("wandb is missing: pip install wandb; TensorBoard works without it") from None
        self.folder, self.run, mode = Path(folder), None, "online" if online else "offline"
        self.about = {"dir": str(folder), "project": _allowed(project), "mode": mode, "resume": "allow"}
        self.about |= {"name": self.folder.name, "tags": [tag[:64] for tag in tags]}  # it refuses longer ones

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Open the run and send the settings, by an id of the folder and of what is trained in it."""
        identity = sorted((name, value) for name, value in settings.items() if name.startswith("identity."))
        number = hashlib.sha256(f"{self.folder.resolve()} {identity}".encode()).hexdigest()[:16]
        self.run = self.wandb.init(id=number, config=dict(settings), **self.about)

    def epoch(self, epoch: int, scores: Mapping[str, float], figures: Mapping[str, Path]) -> None:
        """Note an epoch."""
        shown = {name: self.wandb.Image(str(path)) for name, path in figures.items()}
        self.run.log({**scores, **shown}, step=epoch)

    def end(self, settings: Mapping[str, Any], best: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Note the scores of the best epoch, hand over the files, and end."""
        self.run.summary.update({BEST + name: value for name, value in best.items()})
        artifact = self.wandb.Artifact(_allowed(self.folder.name), type="model")
        for path in kept:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact)
        self.pause()

    def pause(self) -> None:
        """Close the connection."""
        self.run.finish()


def _allowed(name: str) -> str:
    """Return a name that W&B takes: letters, digits, ``_ . -``, at most 128 of them."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:128] or "run"
