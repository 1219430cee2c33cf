"""One training loop for every notebook: any network, loss of (outputs, targets) and metrics of arrays."""

from helpers.training import config, distributed
from helpers.training.config import RECIPES, Config, lr_factor
from helpers.training.distributed import side_by_side
from helpers.training.evaluation import TTA, Evaluation, evaluate, features, predict, views
from helpers.training.loop import fit
from helpers.training.run import Run, differences, digest
from helpers.training.tracking import History, Stop, TensorBoard, WandB
from helpers.weights import load_weights, save_weights
