"""What every panel is made of: controls at the left, a figure at the right, one line of text below it."""

from __future__ import annotations

import html
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import ipywidgets
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from helpers import runtime

DPI = 80

STILL = "a panel: run this cell to move its sliders"
"""What stands in the place of a panel where there is no kernel, as in a saved notebook."""


FITTING = {"object_fit": "contain", "max_width": "100%", "align_self": "flex-start", "margin": "0"}
"""The layout of a picture that is never wider than its place, and never stretched to fill it."""


def beside(controls: Sequence[ipywidgets.Widget], shown: Sequence[ipywidgets.Widget]) -> dict[str, Any]:
    """Return a panel's children and layout: the figure beside its controls, below in a narrow window.

    Args:
        controls: from top to bottom.
        shown: the figure and what stands below it.
    """
    left = ipywidgets.VBox([*controls], layout={"min_width": "320px"})
    right = ipywidgets.VBox([*shown], layout={"flex": "1 1 400px", "min_width": "0px"})
    return {"children": [left, right], "layout": {"flex_flow": "row wrap"}}


class Canvas(Figure):
    """A figure that can be drawn on again: its axes, with spines and ticks, take longest to make, and stay.

    Args:
        width: in inches.
        height: in inches.
    """

    before: ContextVar[Canvas | None] = ContextVar("before", default=None)
    """What the panel that is drawing showed last, for :func:`figure` to take up."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=DPI, layout="none", facecolor="white")
        FigureCanvasAgg(self)  # kept, and with it what it knows of the sizes of words
        self.size, self.spare = (width, height), {}

    def set_layout_engine(self, *_: Any, **__: Any) -> None:
        """Leave the axes where they are put; each ``savefig`` would bring the style's own layout back."""
        super().set_layout_engine("none")

    def wipe(self) -> None:
        """Take away all that was drawn; axes wait, unseen, until they are asked for again."""
        for ax in self.spare.values():  # nobody has asked for them
            ax.remove()
        for artist in [*self.texts, *(part for ax in self.axes for part in _drawn_in(ax))]:
            artist.remove()
        for ax in self.axes:
            ax.set_visible(False)
        self.spare = {ax.get_position(original=True).bounds: ax for ax in self.axes}

    def add_axes(self, place: tuple[float, float, float, float]) -> Axes:
        """Return axes at a place: those that were there before, where there were some.

        Args:
            place: left, bottom, width and height as shares of the figure.
        """
        ax = self.spare.pop(Bbox.from_bounds(*place).bounds, None)
        if ax is None:
            return super().add_axes(place)
        ax.set_visible(True)
        return ax


def _drawn_in(ax: Axes) -> list[Artist]:
    legend = [] if ax.get_legend() is None else [ax.get_legend()]
    return [*ax.lines, *ax.collections, *ax.patches, *ax.images, *ax.texts, *legend]


def figure(width: float, height: float) -> Figure:
    """Return an empty figure that pyplot knows nothing of, and whose parts stay where they are put.

    Args:
        width: in inches.
        height: in inches.
    """
    before = Canvas.before.get()
    if before is None or before.size != (width, height):
        return Canvas(width, height)
    before.wipe()
    return before


def png(drawn: Figure) -> bytes:
    """Return a figure as a PNG file.

    Args:
        drawn: the figure.
    """
    buffer = io.BytesIO()
    # whoever moves a slider waits for this: axes without a label need not look for a place for it, and packed
    # lightly the file takes a third of the time
    for axis in (axis for ax in drawn.axes for axis in (ax.xaxis, ax.yaxis) if not axis.get_label_text()):
        axis.set_label_coords(0, 0)
    drawn.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def one_line(error: Exception) -> str:
    """Return what an error says in one line.

    Args:
        error: any.
    """
    return str(error).strip().split("\n")[0] or type(error).__name__


def line(text: str, wrong: bool = False) -> str:
    """Return a line of text for an ``HTML`` widget.

    Args:
        text: as it is to be read.
        wrong: whether something went wrong.
    """
    color = "#b00020" if wrong else "#444444"
    return f'<span style="color:{color}">{html.escape(text)}</span>' if text else ""


class Panel(ipywidgets.HBox):
    """Controls that call a function which draws.

    The first figure is drawn when the panel is made, and an error in that is raised: a mistake in a callback
    must not wait for a browser. Later errors become the line below the figure, and the panel lives on.

    Args:
        draw: takes the controls' values by name and returns a figure.
        controls: name of an argument to its control.
        others: what else stands among the controls, above them.
    """

    def __init__(
        self,
        draw: Callable[..., Figure],
        controls: Mapping[str, ipywidgets.Widget],
        others: tuple[ipywidgets.Widget, ...] = (),
    ) -> None:
        self.draw, self.controls = draw, dict(controls)
        self.picture = ipywidgets.Image(format="png", layout=FITTING)
        self.note = ipywidgets.HTML()
        self._held, self._canvas = False, None
        self._draw()
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        super().__init__(**beside([*others, *self.controls.values()], [self.picture, self.note]))

    def __repr__(self) -> str:
        return STILL

    def values(self) -> dict[str, Any]:
        """Return what the controls stand at, by the name of the argument."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values: Any) -> None:
        """Move several controls, and draw once.

        Args:
            **values: where to, by the name of the argument.
        """
        self._held = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.refresh()

    def refresh(self) -> None:
        """Draw anew; what goes wrong is told below the figure that was there."""
        try:
            self._draw()
            self.say("")
        except Exception as error:  # whatever it is, the reader goes on with another setting
            self.say(one_line(error), wrong=True)

    def show(self, drawn: Figure) -> None:
        """Show a figure.

        Args:
            drawn: the figure.
        """
        self.picture.value = png(drawn)

    def say(self, text: str, wrong: bool = False) -> None:
        """Write the line below the figure.

        Args:
            text: the line, as it is to be read.
            wrong: whether something went wrong.
        """
        self.note.value = line(text, wrong)

    def _draw(self) -> None:
        token = Canvas.before.set(self._canvas)
        self._canvas = None  # what breaks off half-way is not drawn on again
        try:
            with runtime.threads(1):
                drawn = self.draw(**self.values())
                self.show(drawn)
        finally:
            Canvas.before.reset(token)
        self._canvas = drawn if isinstance(drawn, Canvas) else None

    def _changed(self, _: object) -> None:
        if not self._held:
            self.refresh()


def slider(
    label: str, value: float, low: float, high: float, step: float = 0.05, live: bool = True
) -> ipywidgets.Widget:
    """Return a slider of whole numbers, where start and step are whole, or of any.

    Args:
        label: what stands before it.
        value: where it starts.
        low: its left end.
        high: its right end.
        step: from one value to the next.
        live: the figure follows while it is dragged, not only when it is let go.
    """
    whole = isinstance(value, int) and isinstance(step, int)
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    options = {} if whole else {"readout_format": ".2f"}
    return kind(value=value, min=low, max=high, step=step, continuous_update=live, **named(label), **options)


def log_slider(label: str, value: float, low: float, high: float, live: bool = True) -> ipywidgets.Widget:
    """Return a slider on a scale of powers of ten.

    Args:
        label: what stands before it.
        value: where it starts.
        low: exponent of its left end.
        high: exponent of its right end.
        live: as for :func:`slider`.
    """
    options = {"base": 10, "min": low, "max": high, "step": 0.1, "readout_format": ".2g"}
    return ipywidgets.FloatLogSlider(value=value, continuous_update=live, **options, **named(label))


def choice(label: str, options: Any, value: Any = None) -> ipywidgets.Dropdown:
    """Return a list to choose from.

    Args:
        label: what stands before it.
        options: values, or (text, value) pairs.
        value: what is chosen at first; None for the first.
    """
    start = {} if value is None else {"value": value}
    return ipywidgets.Dropdown(options=options, **start, **named(label))


def tick(label: str, value: bool) -> ipywidgets.Checkbox:
    """Return a box that is ticked or not.

    Args:
        label: what stands behind it.
        value: whether it is ticked at first.
    """
    return ipywidgets.Checkbox(value=value, **named(label))


def named(label: str) -> dict[str, Any]:
    """Return the options by which all controls stand in line.

    Args:
        label: what stands before the control.
    """
    return {"description": label, "style": {"description_width": "128px"}, "layout": {"width": "310px"}}


class Latest:
    """Works in a thread, on what was asked for last; what was asked for in between is left out.

    Args:
        work: is given what was asked for.
    """

    def __init__(self, work: Callable[[Any], None]) -> None:
        self.work, self._lock, self._wanted, self._busy = work, threading.Lock(), [], False

    def ask(self, wanted: Any) -> None:
        """Ask for something; return at once.

        Args:
            wanted: handed to the work.
        """
        with self._lock:
            self._wanted = [wanted]
            if self._busy:
                return
            self._busy = True
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._busy = False
                    return
                wanted = self._wanted.pop()
            self.work(wanted)
