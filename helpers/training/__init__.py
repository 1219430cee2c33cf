"""One training loop for every notebook: any network, loss of (outputs, targets) and metrics of arrays."""

from helpers.training.config import Config, lr_factor
from helpers.training.evaluation import Evaluation, evaluate, predict
from helpers.training.history import History
from helpers.training.loop import Stop, fit
from helpers.training.run import Run, load_weights, save_weights

__all__ = [
    "Config",
    "Evaluation",
    "History",
    "Run",
    "Stop",
    "evaluate",
    "fit",
    "load_weights",
    "lr_factor",
    "predict",
    "save_weights",
]
