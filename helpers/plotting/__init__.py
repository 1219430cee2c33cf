"""Every figure of the workbook: data in, a matplotlib ``Axes`` out, one style.

Call :func:`style` once in a notebook. Each function takes numbers that are already computed and an optional
``ax`` to draw on; without one it makes a figure of a size that suits it. It returns the axes.
"""

from helpers.plotting.charts import (
    agreement,
    circumplex,
    circumplex_confusions,
    circumplex_errors,
    class_balance,
    class_scores,
    confusion,
    curves,
    heat_map,
    learning_curve,
    lr_finder,
    perturbation,
    precision_recall,
    reliability,
    ridges,
    roc,
    scatter,
    scores,
    subgroups,
)
from helpers.plotting.images import (
    LANDMARK_PARTS,
    arrows,
    beside,
    beside_key,
    directions,
    distribution,
    distributions,
    face,
    face_grid,
    face_rows,
    guesses,
    heat_bar,
    heated,
    landmarks,
    misplaced,
    mistakes,
    pictures,
    simplex,
)
from helpers.plotting.style import (
    ACCENT,
    FAINT,
    INK,
    MARKERS,
    MUTED,
    TILE,
    Scored,
    color,
    packed,
    png,
    style,
    styled,
)
