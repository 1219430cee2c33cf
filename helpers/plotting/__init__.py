"""Every figure of the workbook: data in, a matplotlib ``Axes`` out, one style.

Call :func:`style` once in a notebook. Each function takes numbers that are already computed and an
optional ``ax`` to draw on; without one it makes a figure of a size that suits it. It returns the axes, so
that a caller can add to what is there, and leaves no other trace in pyplot.
"""

from helpers.plotting.distributions import beside, beside_key, reliability, simplex
from helpers.plotting.gradients import arrows, directions
from helpers.plotting.heat import heated, perturbation
from helpers.plotting.labels import class_balance, distribution, ridges, scatter
from helpers.plotting.look import ACCENT, FAINT, INK, MARKERS, MUTED, TILE, Scored, color, style, styled
from helpers.plotting.pictures import (
    LANDMARK_PARTS,
    face,
    face_grid,
    face_rows,
    guesses,
    landmarks,
    misplaced,
    mistakes,
    pictures,
)
from helpers.plotting.plane import circumplex, circumplex_confusions, circumplex_errors
from helpers.plotting.progress import curves, heat_map, learning_curve, lr_finder
from helpers.plotting.results import (
    agreement,
    class_scores,
    confusion,
    precision_recall,
    roc,
    scores,
    subgroups,
)

__all__ = [
    "ACCENT",
    "FAINT",
    "INK",
    "LANDMARK_PARTS",
    "MARKERS",
    "MUTED",
    "Scored",
    "TILE",
    "agreement",
    "arrows",
    "beside",
    "beside_key",
    "circumplex",
    "circumplex_confusions",
    "circumplex_errors",
    "class_balance",
    "class_scores",
    "color",
    "confusion",
    "curves",
    "directions",
    "distribution",
    "face",
    "face_grid",
    "face_rows",
    "heat_map",
    "heated",
    "landmarks",
    "learning_curve",
    "lr_finder",
    "misplaced",
    "guesses",
    "mistakes",
    "perturbation",
    "pictures",
    "precision_recall",
    "reliability",
    "ridges",
    "roc",
    "scatter",
    "scores",
    "simplex",
    "style",
    "styled",
    "subgroups",
]
