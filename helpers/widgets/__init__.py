"""Panels to play with: sliders and buttons in front of plain functions that draw.

Every panel is one line in a notebook, and what it calls is a plain function that the cell above has called
already: without a browser, or without widgets, nothing is missed. Only ipywidgets' own controls are used and
figures are shown as PNG in an ``Image``, so that JupyterLab, Notebook, VS Code, Colab and Voilà show the
same.
"""

from helpers.widgets.edges import draw_edges, hog_explorer, score_edges
from helpers.widgets.faces import action_unit_mixer, browse, faces_browser, mix
from helpers.widgets.heat import explain, heat_maps
from helpers.widgets.losses import compare_losses, loss_explorer
from helpers.widgets.panel import Panel
from helpers.widgets.trainer import Trainer, draw_training, trainer
from helpers.widgets.webcam import camera

__all__ = [
    "Panel",
    "Trainer",
    "action_unit_mixer",
    "browse",
    "camera",
    "compare_losses",
    "draw_edges",
    "draw_training",
    "explain",
    "faces_browser",
    "heat_maps",
    "hog_explorer",
    "loss_explorer",
    "mix",
    "score_edges",
    "trainer",
]
