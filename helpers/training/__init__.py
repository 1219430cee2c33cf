"""One training loop for every notebook: any network, loss of (outputs, targets) and metrics of arrays."""

from helpers.training import distributed
from helpers.training.config import RECIPES, Config, lr_factor
from helpers.training.distributed import side_by_side
from helpers.training.evaluation import TTA, Evaluation, evaluate, features, predict, views
from helpers.training.identity import differences, digest
from helpers.training.loop import fit
from helpers.training.parts import Stop
from helpers.training.run import History, Run, load_weights, save_weights
from helpers.training.tracking import TensorBoard, Tracker, WandB

__all__ = [
    "RECIPES", "TTA", "Config", "Evaluation", "History", "Run", "Stop", "TensorBoard", "Tracker", "WandB",
    "differences", "digest", "distributed", "evaluate", "features", "fit", "load_weights", "lr_factor",
    "predict", "save_weights", "side_by_side", "views",
]  # fmt: skip
