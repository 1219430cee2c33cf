"""The panel of notebooks 03 to 05: train a network, watch it, stop it, go on."""

from __future__ import annotations

import inspect
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from helpers import plotting, training
from helpers.training import History
from helpers.widgets.panel import (
    FITTING,
    STILL,
    beside,
    choice,
    figure,
    line,
    log_slider,
    one_line,
    png,
    slider,
    tick,
)

Fit = Callable[..., History]
"""Trains: takes settings by name, and ``run``, ``stop``, ``progress``, ``on_epoch`` for ``training.fit``."""

KNOBS: dict[str, Callable[[Any], ipywidgets.Widget]] = {
    "lr": lambda value: log_slider("learning rate", value, -5, 0),
    "optimizer": lambda value: choice("optimiser", training.config.OPTIMIZERS, value),
    "batch_size": lambda value: choice("batch size", sorted({16, 32, 64, 128, 256, value}), value),
    "epochs": lambda value: slider("epochs", value, 1, max(30, value), 1),
    "dropout": lambda value: slider("dropout", float(value), 0.0, 0.9),
    "augmentation": lambda value: slider("augmentation", float(value), 0.0, 2.0),
    "label_smoothing": lambda value: slider("label smoothing", float(value), 0.0, 0.5),
    "frozen": lambda value: tick("body frozen", value),
    "lr_decay": lambda value: slider("rate, stage below", float(value), 0.05, 1.0),
    "labels_weight": lambda value: slider("weight: labels", float(value), 0.0, 5.0),
    "valence_weight": lambda value: slider("weight: valence", float(value), 0.0, 5.0),
    "arousal_weight": lambda value: slider("weight: arousal", float(value), 0.0, 5.0),
    "seed": lambda value: slider("seed", value, 0, 99, 1),
}
"""The settings that have a control, by the name of the argument."""

_NO_SCORE = {"epoch", "lr", "seconds", "images_per_second"}
"""What a history tells of an epoch beside losses and scores."""


def draw_training(history: History, last: int = 0) -> Figure:
    """Draw at the left what should fall, the losses, and at the right the other scores on validation.

    Args:
        history: what has happened so far, perhaps nothing.
        last: the epoch at which the axis ends; 0 for wherever the training is.
    """
    drawn = figure(8.4, 3.0)
    left, right = drawn.add_axes((0.07, 0.19, 0.31, 0.7)), drawn.add_axes((0.44, 0.19, 0.31, 0.7))
    last = max(last, len(history.epochs), 2)
    for ax, title in ((left, "loss"), (right, "on validation")):
        ax.set(xlim=(0.7, last + 0.3), title=title, xlabel="epoch")
    if history.epochs:
        names = [name for name in history.epochs[0] if name not in _NO_SCORE]
        falling = [name for name in names if name.endswith("loss")]
        rising = [name for name in names if name not in falling] or [history.monitor]
        plotting.curves(history.frame(), falling, ax=left)
        plotting.curves(history.frame(), rising, best=history.best_epoch, ax=right)
        right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))  # the curves may be anywhere
    return drawn


class Trainer(ipywidgets.HBox):
    """Settings, three buttons, a progress bar and the curves as they grow.

    A training runs in a thread, so that the kernel answers meanwhile; in Colab, which shows nothing of what
    threads do, in the foreground, where the interrupt button stops it.

    Args:
        fit: takes the settings by name, and ``run``, ``stop``, ``progress`` and ``on_epoch``.
        controls: name of a setting to its control.
        run: the folder that the training is kept in; None for one that goes with the panel.
    """

    def __init__(self, fit: Fit, controls: dict[str, ipywidgets.Widget], run: str | Path | None = None):
        self.fit, self.controls = fit, controls
        self._temporary = tempfile.TemporaryDirectory() if run is None else None
        self.run = Path(self._temporary.name if self._temporary else run)
        self.history: History | None = None
        self.stop = training.Stop()
        self.thread: threading.Thread | None = None
        self._settings: dict[str, Any] = {}
        self.buttons = {
            name: ipywidgets.Button(description=name, button_style=look, layout={"width": "96px"})
            for name, look in (("Train", "primary"), ("Stop", "danger"), ("Continue", ""))
        }
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "300px"})
        self.note = ipywidgets.HTML("press Train")
        empty = png(draw_training(History("loss")))
        self.picture = ipywidgets.Image(value=empty, format="png", layout=FITTING)
        for name, action in (("Train", self.start), ("Stop", self._ask_to_stop), ("Continue", self.go_on)):
            self.buttons[name].on_click(lambda _, action=action: action())
        self._enable("Train")
        left = [*controls.values(), ipywidgets.HBox([*self.buttons.values()]), self.bar]
        super().__init__(**beside(left, [self.picture, self.note]))

    def __repr__(self) -> str:
        return STILL

    @property
    def settings(self) -> dict[str, Any]:
        """What the controls stand at, by the name of the argument."""
        return {name: control.value for name, control in self.controls.items()}

    def start(self) -> None:
        """Train anew with the settings as they are."""
        training.Run(self.run).forget()
        self._settings = self.settings
        self._begin()

    def go_on(self) -> None:
        """Go on where the training was stopped, with the settings it had."""
        for name, value in self._settings.items():
            self.controls[name].value = value
        self._begin()

    def _begin(self) -> None:
        if self.thread is not None and self.thread.is_alive():
            return
        self.stop = training.Stop()
        self._enable("Stop")
        self._say("starting …")
        self.bar.value = 0.0
        if "google.colab" in sys.modules:
            self._work()
            return
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _ask_to_stop(self) -> None:
        self.stop.request()
        self._say("stopping …")

    def _work(self) -> None:
        watch = {"progress": self._progress, "on_epoch": self._epoch, "stop": self.stop, "run": self.run}
        try:
            self.history = self.fit(**self._settings, **watch)
        except Exception as error:  # whatever it is, the reader changes a setting and trains again
            self._say(one_line(error), wrong=True)
            self._enable("Train")
            return
        self._epoch(self.history)
        self._say(("stopped; " if self.history.stopped else "done; ") + self._best(self.history))
        self.bar.value = self.bar.value if self.history.stopped else 1.0
        self._enable("Train", *["Continue"] * self.history.stopped)

    def _progress(self, share: float, values: dict[str, float | str]) -> None:
        self.bar.value = share
        words = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        if not self.stop.requested:
            self._say(" · ".join(words))

    def _epoch(self, history: History) -> None:
        self.history = history
        self.picture.value = png(draw_training(history, self._settings.get("epochs", 0)))

    def _best(self, history: History) -> str:
        if history.best is None:
            return "not one epoch was finished"
        best = f"best {history.monitor} {history.best[history.monitor]:.3f} in epoch {history.best_epoch}"
        return f"{best} of {len(history.epochs)}"

    def _enable(self, *names: str) -> None:
        for name, button in self.buttons.items():
            button.disabled = name not in names

    def _say(self, text: str, wrong: bool = False) -> None:
        self.note.value = line(text, wrong)


def trainer(fit: Fit, run: str | Path | None = None, **choices: Any) -> Trainer:
    """Return the panel for a function that trains: a control for each argument that is in ``KNOBS``.

    Args:
        fit: takes settings by name, each with a default, and hands ``**watch`` on to ``training.fit``.
        run: the folder that the training is kept in; None for one that goes with the panel.
        **choices: name of a further argument to the values it can have: ``backbone=("face-cnn", ...)``.

    Raises:
        ValueError: the function has no argument that can be set here.
    """
    defaults = {
        name: each.default
        for name, each in inspect.signature(fit).parameters.items()
        if each.default is not inspect.Parameter.empty
    }
    controls = {
        name: choice(name.replace("_", " "), values, defaults.get(name)) for name, values in choices.items()
    }
    controls |= {name: KNOBS[name](value) for name, value in defaults.items() if name in KNOBS}
    if not controls:
        raise ValueError(f"{fit.__name__} has none of the settings {', '.join(KNOBS)} as an argument")
    return Trainer(fit, controls, run)
