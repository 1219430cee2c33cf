"""Panels: sliders and buttons in front of plain functions that draw.

Every panel is one line in a notebook, and what it calls is a plain function that the cell above has called
already: without a browser, or without widgets, nothing is missed. Only ipywidgets' own controls are used, and
figures are PNG in an ``Image``, so that JupyterLab, Notebook, VS Code, Colab and Voilà show the same.
"""

from helpers.widgets.explorers import (
    action_unit_mixer,
    browse,
    compare_losses,
    draw_edges,
    explain,
    faces_browser,
    heat_maps,
    hog_explorer,
    loss_explorer,
    mix,
    score_edges,
)
from helpers.widgets.panel import Panel, choice, figure, log_slider, slider, tick
from helpers.widgets.trainer import Trainer, draw_training, trainer
from helpers.widgets.webcam import camera
