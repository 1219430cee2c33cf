"""The panel that trains a network: watch it, stop it, go on."""

from __future__ import annotations

import inspect
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets
from matplotlib.figure import Figure
from torch import nn

from helpers import plotting, training
from helpers.training import History
from helpers.widgets.panel import Panel, choice, figure, log_slider, png, slider, tick

KNOBS: dict[str, Callable[[Any], ipywidgets.Widget]] = {
    "lr": partial(log_slider, "learning rate", low=-5, high=0),
    "optimizer": lambda value: choice("optimiser", training.config.OPTIMIZERS, value),
    "batch_size": lambda value: choice("batch size", sorted({16, 32, 64, 128, 256, value}), value),
    "epochs": lambda value: slider("epochs", value, 1, max(30, value), 1),
    "weight_decay": partial(log_slider, "weight decay", low=-5, high=0),
    "frozen": partial(tick, "backbone frozen"),
    "lr_decay": partial(slider, "rate, stage below", low=0.05, high=1.0),
    "temperature": partial(log_slider, "temperature", low=-1, high=1),
    "seed": partial(slider, "seed", low=0, high=99, step=1),
    "dropout": partial(slider, "dropout", low=0.0, high=0.9),
    "augmentation": partial(slider, "augmentation", low=0.0, high=2.0),
    "label_smoothing": partial(slider, "label smoothing", low=0.0, high=0.5),
    "labels_weight": partial(slider, "weight: labels", low=0.0, high=5.0),
    "valence_weight": partial(slider, "weight: valence", low=0.0, high=5.0),
    "arousal_weight": partial(slider, "weight: arousal", low=0.0, high=5.0),
}
"""The settings that have a control of their own, by the name of the argument."""


def draw_training(history: History, last: int = 0) -> Figure:
    """Draw the losses at the left, other scores on validation at the right, up to ``last`` or the epoch."""
    drawn = figure(8.4, 3.0)
    left, right = drawn.add_axes((0.07, 0.19, 0.31, 0.7)), drawn.add_axes((0.44, 0.19, 0.31, 0.7))
    last = max(last, len(history.epochs), 2)
    for ax, title in ((left, "loss"), (right, "scores")):
        ax.set(xlim=(0.7, last + 0.3), title=title, xlabel="epoch")
    if history.epochs:
        other = ("epoch", "lr", "seconds", "images_per_second", "train_")  # curves draws training beside each
        names = [name for name in history.epochs[0] if not name.startswith(other)]
        falling = [name for name in names if name.endswith("loss")]
        rising = [name for name in names if name not in falling] or [history.monitor]
        plotting.curves(history.frame(), falling, ax=left).set_ylabel("")
        plotting.curves(history.frame(), rising, best=history.best_epoch, ax=right).set_ylabel("")
        # beside both, for the curves may be anywhere
        left.legend(fontsize=8, handlelength=3, title="left", loc="upper left", bbox_to_anchor=(2.24, 1.08))
        right.legend(fontsize=8, handlelength=3, title="right", loc="lower left", bbox_to_anchor=(1.04, -0.2))
    else:
        left.text(0.5, 0.5, "Train draws\nthe curves", ha="center", va="center", transform=left.transAxes)
    return drawn


class Trainer(Panel):
    """Settings, three buttons, a progress bar and the curves as they grow; see :func:`trainer`.

    A training runs in a thread, so that the kernel answers meanwhile; in Colab, which shows nothing of what
    threads do, in the foreground, where the interrupt button stops it.
    """

    def __init__(self, fit: Callable[..., History], make: Callable[..., nn.Module], controls: dict) -> None:
        self.stop, self.thread, self.history, self.model = training.Stop(), None, None, None
        self._fit, self._make, self._settings = fit, make, {}
        self._folder = tempfile.TemporaryDirectory()  # it goes with the panel
        self.buttons, actions = {}, {"Train": self.start, "Stop": self.ask_to_stop, "Continue": self.go_on}
        for (name, action), style in zip(actions.items(), ("primary", "danger", ""), strict=True):
            button = ipywidgets.Button(description=name, button_style=style, layout={"width": "96px"})
            button.on_click(self.errors_shown()(action))
            self.buttons[name] = button
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "300px"})
        below = [ipywidgets.HBox([*self.buttons.values()]), self.bar]
        super().__init__(lambda **_: draw_training(History("loss")), controls, below=below)
        self.say("press Train")
        self._enable("Train")

    def _changed(self, _: object) -> None:
        """Draw nothing: a setting counts from the next training on."""

    def fit(self, **settings: Any) -> History:
        """Train with these settings and return the history: ``panel.fit(**panel.values())``."""
        of_make, of_fit = _defaults(self._make), _defaults(self._fit)
        self.model = self._make(**{name: value for name, value in settings.items() if name in of_make})
        rest = {name: value for name, value in settings.items() if name not in of_make or name in of_fit}
        return self._fit(self.model, **rest)

    def start(self, *_: object) -> None:
        """Train anew with the settings as they are."""
        training.Run(self._folder.name).forget()
        self._settings = self.values()
        self._begin()

    def go_on(self, *_: object) -> None:
        """Go on where the training was stopped, with the settings it had."""
        self.set(**self._settings)
        self._begin()

    def ask_to_stop(self, *_: object) -> None:
        """Let the training end with the batch it is at."""
        self.stop.request()
        self.say("stopping …")

    def refresh(self) -> None:
        """Draw the curves of the training so far."""
        last = self._settings.get("epochs", 0)
        self.image.value = png(draw_training(self.history or History("loss"), last))

    def close(self) -> None:
        """Stop the training, if one runs, and take the panel away."""
        self.stop.request()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()
        super().close()

    def _begin(self) -> None:
        if self.thread is not None and self.thread.is_alive():
            return
        self.stop = training.Stop()
        self._enable("Stop")
        self.say("starting …")
        self.bar.value = 0.0
        if "google.colab" in sys.modules:
            self._train()
            return
        self.thread = threading.Thread(target=self._train, daemon=True)  # it ends with the kernel
        self.thread.start()

    def _train(self) -> None:
        watch = {"progress": self._progress, "on_epoch": self._epoch, "stop": self.stop}
        stopped = False
        with self.errors_shown():
            history = self.fit(**self._settings, **watch, run=self._folder.name)
            self._epoch(history)
            stopped, found = history.stopped, "no epoch"
            if best := history.best:
                where = f"in epoch {history.best_epoch} of {len(history.epochs)}"
                found = f"best {history.monitor} {best[history.monitor]:.3f} {where}"
            self.say(f"{'stopped' if stopped else 'done'}; {found}")
            self.bar.value = self.bar.value if stopped else 1.0
        self._enable("Train", *["Continue"] * stopped)

    def _progress(self, share: float, values: dict[str, float | str]) -> None:
        self.bar.value = share
        if not self.stop.requested:
            words = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
            self.say(" · ".join(words))

    def _epoch(self, history: History) -> None:
        self.history = history
        self.refresh()

    def _enable(self, *names: str) -> None:
        for name, button in self.buttons.items():
            button.disabled = name not in names


def trainer(fit: Callable[..., History], make: Callable[..., nn.Module], **choices: Any) -> Trainer:
    """Return the panel for a function that trains: a control for each argument that is in ``KNOBS``.

    ``make`` takes settings by name, each with a default, and returns a fresh network, any ``nn.Module``;
    ``fit`` takes it and more such settings, and hands ``**watch`` on to ``training.fit``. ``choices`` are
    further arguments of either, with the values they can have, or with their control.
    """
    defaults, controls = _defaults(make) | _defaults(fit), {}
    for name, default in defaults.items():
        if isinstance(choices.get(name), ipywidgets.Widget):
            controls[name] = choices[name]
        elif name in choices:
            controls[name] = choice(name.replace("_", " "), choices[name], default)
        elif name in KNOBS:
            controls[name] = KNOBS[name](default)
    missing = sorted(set(choices) - set(controls))
    if missing or not controls:
        lacking = ", ".join(missing or KNOBS)
        raise ValueError(f"no argument {lacking} with a default; known: {', '.join(defaults)}")
    return Trainer(fit, make, controls)


def _defaults(function: Callable) -> dict[str, Any]:
    every = inspect.signature(function).parameters.items()
    return {name: each.default for name, each in every if each.default is not inspect.Parameter.empty}
