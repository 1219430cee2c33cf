"""The panels of notebook 01: look through a set of faces, and draw one from its action units."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure

from helpers import emotions, faces, plotting
from helpers.datasets import FaceSet
from helpers.faces import truth
from helpers.widgets.panel import Panel, choice, figure, look, slider

COLUMNS, ROWS = 8, 3
ALL = "all"

MOVEMENTS = {
    "AU1": "inner brow up",
    "AU2": "outer brow up",
    "AU4": "brows together",
    "AU5": "upper lid up",
    "AU6": "cheeks up",
    "AU7": "lids tight",
    "AU9": "nose wrinkled",
    "AU10": "upper lip up",
    "AU12": "lip corners up",
    "AU14": "dimples",
    "AU15": "corners down",
    "AU17": "chin up",
    "AU20": "lips stretched",
    "AU23": "lips tight",
    "AU24": "lips pressed",
    "AU25": "lips apart",
    "AU26": "jaw dropped",
}
"""What each action unit does, in plain words."""


def browse(
    parts: FaceSet | Mapping[str, FaceSet],
    split: str = "",
    expression: str = ALL,
    person: int = -1,
    brightness: tuple[float, float] = (0, 255),
    doubt: tuple[float, float] = (0, 4),
    page: int = 1,
    rows: int = ROWS,
) -> Figure:
    """Draw a page of the faces that fit.

    Args:
        parts: a set, or the name of a split to its faces.
        split: which of them; "" is the first.
        expression: a class, or "all".
        person: a subject's number, or -1 for anybody.
        brightness: from and to, the mean of a face's pixels in grey levels.
        doubt: from and to, the entropy of a face's label distribution in bits; counts where the set has one.
        page: from 1; beyond the last it is the last.
        rows: of faces on a page.
    """
    chosen = parts if isinstance(parts, FaceSet) else parts[split or next(iter(parts))]
    fits = np.ones(len(chosen), dtype=bool)
    if expression != ALL:
        fits &= chosen.labels == chosen.classes.index(expression)
    if person >= 0 and chosen.subject is not None:
        fits &= chosen.subject == person
    if tuple(brightness) != (0, 255):
        light = chosen.images.reshape(len(chosen), -1).mean(axis=1)
        fits &= (light >= brightness[0]) & (light <= brightness[1])
    if chosen.distribution is not None and tuple(doubt) != (0, 4):
        p = chosen.distribution
        bits = -np.sum(p * np.log2(np.where(p > 0, p, 1)), axis=1)
        fits &= (bits >= doubt[0]) & (bits <= doubt[1])
    fitting = np.flatnonzero(fits)
    pages = max(1, -(-len(fitting) // (COLUMNS * rows)))
    page = min(max(page, 1), pages)
    shown = fitting[(page - 1) * COLUMNS * rows : page * COLUMNS * rows]
    drawn, top = figure(7.8, 0.35 + 1.14 * rows), 0.35 / (0.35 + 1.14 * rows)
    words = f"{len(fitting):,} of {len(chosen):,} faces · page {page} of {pages}"
    drawn.text(0.01, 1 - top / 2, words, va="center")
    if len(shown):
        titles = [chosen.classes[label] for label in chosen.labels[shown]]
        ax = drawn.add_axes((0.01, 0.01, 0.98, 0.98 - top))
        plotting.face_grid(chosen.images[shown], titles, COLUMNS, ax=ax)
    else:
        drawn.text(0.5, 0.5, "no face fits; widen a range", ha="center", va="center")
    return drawn


def faces_browser(parts: FaceSet | Mapping[str, FaceSet]) -> Panel:
    """Return the panel that looks through faces by class, split, person, brightness and doubt.

    Args:
        parts: a set, or the name of a split to its faces.
    """
    splits = {"": parts} if isinstance(parts, FaceSet) else dict(parts)
    first = next(iter(splits.values()))
    controls = {
        "split": choice("split", [(name or "whole set", name) for name in splits]),
        "expression": choice("expression", [ALL, *first.classes]),
        "brightness": ipywidgets.IntRangeSlider(value=(0, 255), min=0, max=255, **look("brightness")),
    }
    if first.subject is not None:
        most = max(int(part.subject.max(initial=0)) for part in splits.values())
        controls["person"] = slider("person (-1: all)", -1, -1, most, 1)
    if first.distribution is not None:
        bits = {"value": (0, 4), "min": 0, "max": 4, "step": 0.1}
        controls["doubt"] = ipywidgets.FloatRangeSlider(**bits, **look("doubt (bits)"))
    pages = max(-(-len(part) // (COLUMNS * ROWS)) for part in splits.values())
    controls["page"] = slider("page", 1, 1, pages, 1)
    return Panel(lambda **values: browse(splits, **values), controls)


def mix(action_units: Mapping[str, float] | None = None, turn: float = 0.0, upright: bool = False) -> Figure:
    """Draw the face that these action units make, and its place on the circumplex.

    Args:
        action_units: name to intensity in [0, 1]; the others are 0.
        turn: of the head to the right of the image, in radians, from -0.7 to 0.7.
        upright: put the plane below the face, not beside it.

    Raises:
        ValueError: an unknown action unit, or a value out of its range.
    """
    units = torch.zeros(1, len(faces.ACTION_UNITS))
    for name, value in (action_units or {}).items():
        units[0, truth.au_column(name)] = value
    face = faces.render(units, view={"yaw": turn}, size=144)[0].numpy()
    [place], [p] = faces.valence_arousal(units).numpy(), faces.class_probabilities(units).numpy()
    drawn = figure(4.6, 7.6) if upright else figure(7.4, 3.6)
    above = drawn.add_axes((0.16, 0.52, 0.82, 0.45) if upright else (0.01, 0.02, 0.44, 0.9))
    plane = drawn.add_axes((0.16, 0.07, 0.82, 0.42) if upright else (0.56, 0.17, 0.42, 0.81))
    first, second = np.argsort(-p)[:2]
    plotting.face(face, ", ".join(f"{emotions.FER7[k]} {p[k]:.0%}" for k in (first, second)), ax=above)
    names = {name: emotions.CIRCUMPLEX[name] for name in emotions.FER7}
    plotting.circumplex(place[None], np.zeros(1, dtype=int), (emotions.FER7[first],), names, ax=plane)
    ring = {"markerfacecolor": "none", "markeredgewidth": 2.5, "zorder": 10}
    plane.plot(*place, marker="o", markersize=14, color=plotting.ACCENT, **ring)
    return drawn


def action_unit_mixer() -> Panel:
    """Return the panel that draws a face live from seventeen action units, and moves its dot."""
    units = {name: slider(f"{name[2:]} {MOVEMENTS[name]}", 0.0, 0.0, 1.0) for name in faces.ACTION_UNITS}
    start = choice("start from", emotions.FER7, "neutral")

    def draw(turn: float, **action_units: float) -> Figure:
        return mix(action_units, turn, upright=True)

    panel = Panel(draw, {"turn": slider("turn of the head", 0.0, -0.7, 0.7), **units}, above=[start])

    def take(_: object) -> None:
        prototype = next(units for name, _, units in truth.PROTOTYPES if name == start.value)
        panel.set(**{name: prototype.get(int(name[2:]), 0.0) for name in units})

    start.observe(take, names="value")
    return panel
