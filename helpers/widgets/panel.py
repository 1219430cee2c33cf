"""What every panel is made of: controls at the left, a figure at the right, one line of text below it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from helpers import plotting

DPI = 80
STILL = "a panel: run this cell to move its sliders"  # where neither widgets nor images are shown


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches, for axes at fixed places; pyplot does not know it."""
    return Figure(figsize=(width, height), dpi=DPI, layout="none", facecolor="white")


def png(drawn: Figure) -> bytes:
    """Return a figure as a PNG file in full colour, packed lightly: whoever moves a slider waits for it."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


class Panel(ipywidgets.HBox):
    """Controls that call a function which draws.

    The first figure is drawn when the panel is made, and an error in that is raised: a mistake in a callback
    must not wait for a browser. Later errors are written below the figure, and the panel lives on.

    Args:
        draw: takes the controls' values by name and returns a figure, see :func:`figure`.
        controls: name of an argument to its control, see :func:`slider`, :func:`choice` and :func:`tick`.
        above: further widgets above the controls; ``below`` are those below.
        tell: takes the same values and returns the line below the figure; it may take longer.
    """

    def __init__(
        self,
        draw: Callable[..., Figure],
        controls: Mapping[str, ipywidgets.Widget],
        above: Sequence[ipywidgets.Widget] = (),
        below: Sequence[ipywidgets.Widget] = (),
        tell: Callable[..., str] = lambda **_: "",
    ) -> None:
        self.draw, self.controls, self.tell, self._held = draw, dict(controls), tell, False
        fitting = {"object_fit": "contain", "max_width": "100%", "align_self": "flex-start", "margin": "0"}
        self.image, self.note = ipywidgets.Image(format="png", layout=fitting), ipywidgets.HTML()
        self._draw()
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        left = ipywidgets.VBox([*above, *self.controls.values(), *below], layout={"max_width": "100%"})
        right = ipywidgets.VBox([self.image, self.note], layout={"flex": "1 1 400px", "min_width": "0px"})
        super().__init__([left, right], layout={"flex_flow": "row wrap"})

    def values(self) -> dict[str, Any]:
        """Return the current settings, by the name of the argument, for later cells to take."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values: Any) -> None:
        """Move several controls, and draw once."""
        self._held = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.refresh()

    def refresh(self) -> None:
        """Draw anew; what goes wrong is written below the figure that was there."""
        with self.errors_shown():
            self.say("")
            self._draw()

    @contextmanager
    def errors_shown(self) -> Iterator[None]:
        """Write an error below the figure in one line: no front end shows what a callback raises."""
        try:
            yield
        except Exception as error:  # whatever it is, the reader goes on with another setting
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            self.say(kind + str(error).strip().split("\n")[0], wrong=True)

    def say(self, text: str, wrong: bool = False) -> None:
        """Write the line below the figure, in red where something went wrong."""
        self.note.value = line(text, wrong)

    def still(self) -> bytes:
        """Return a PNG of the panel, controls and figure, for readers without a kernel."""
        shown = np.asarray(Image.open(io.BytesIO(self.image.value)))
        height = max(len(shown), 22 * len(self.controls) + 10)
        drawn = figure((shown.shape[1] + 330) / DPI, height / DPI)
        drawn.figimage(shown, 330, height - len(shown))
        ax = drawn.add_axes((0, 0, 330 / drawn.bbox.width, 1), xlim=(0, 330), ylim=(height, 0))
        ax.axis("off")
        for y, control in zip(range(16, height, 22), self.controls.values(), strict=False):
            ax.text(134, y, control.description, ha="right", va="center", size=8.5)
            if not hasattr(control, "max"):  # a choice, or a box to tick
                ax.text(146, y, getattr(control, "label", control.value), va="center", size=8.5)
                continue
            values = np.atleast_1d(control.value)
            at = np.log10(values) if isinstance(control, ipywidgets.FloatLogSlider) else values
            share = (at - control.min) / max(control.max - control.min, 1e-9)
            ax.plot([146, 266], [y, y], color="#bbbbbb", linewidth=3)
            ax.plot(146 + 120 * share, 0 * share + y, "o", color=plotting.ACCENT, markersize=7)
            ax.text(276, y, " – ".join(f"{value:.3g}" for value in values), va="center", size=8.5)
        return plotting.packed(png(drawn))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the live view and, for a saved notebook, an image of it."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        still = base64.b64encode(self.still()).decode()
        return {"text/plain": STILL, "image/png": still, "application/vnd.jupyter.widget-view+json": view}

    _ipython_display_ = None  # of ipywidgets 7, which would go before the bundle

    def _draw(self) -> None:
        values = self.values()
        self.image.value = png(self.draw(**values))
        self.say(self.tell(**values))

    def _changed(self, _: object) -> None:
        if not self._held:
            self.refresh()


def line(text: str, wrong: bool = False) -> str:
    """Return a line of text, which is no markup, for an ``HTML`` widget."""
    color = "#b00020" if wrong else "#444444"
    return f'<span style="color:{color}">{html.escape(text)}</span>' if text else ""


def slider(
    label: str, value: float, low: float, high: float, step: float = 0.05, live: bool = True
) -> ipywidgets.Widget:
    """Return a slider, of whole numbers where value and step are whole.

    ``label``, at most 22 letters, stands before it; ``live``: the figure follows while it is dragged.
    """
    options = {"value": value, "min": low, "max": high, "step": step, **look(label, continuous_update=live)}
    if isinstance(value, int) and isinstance(step, int):
        return ipywidgets.IntSlider(**options)
    return ipywidgets.FloatSlider(readout_format=".2f", **options)


def log_slider(label: str, value: float, low: float, high: float, live: bool = True) -> ipywidgets.Widget:
    """Return a slider on a scale of powers of ten, from 10**low to 10**high."""
    options = {"min": low, "max": high, "step": 0.1, "readout_format": ".2g", "continuous_update": live}
    return ipywidgets.FloatLogSlider(value=value, base=10, **look(label, **options))


def choice(label: str, options: Any, value: Any = None) -> ipywidgets.Dropdown:
    """Return a list of values or (text, value) pairs to choose from, the first or ``value`` at first."""
    start = {} if value is None else {"value": value}
    return ipywidgets.Dropdown(options=options, **start, **look(label))


def tick(label: str, value: bool) -> ipywidgets.Checkbox:
    """Return a box that is ticked or not."""
    return ipywidgets.Checkbox(value=value, **look(label))


def look(label: str, **options: Any) -> dict[str, Any]:
    """Return options by which all controls stand in line; a slider's track gets 250 pixels and more."""
    layout = {"width": "500px", "max_width": "100%"}
    return {"description": label, "style": {"description_width": "150px"}, "layout": layout, **options}
