"""The networks: the workbook's own CNN and torchvision's, with any stem, any set of heads, any first weights.

``models.create(name, num_classes)`` makes one; :func:`split`, :func:`freeze` and :func:`stages` take one that
is trained to a new task; :func:`flops` and :func:`step_memory` say what it costs.
"""

from helpers.models.backbones import PIXEL_MEAN, PIXEL_STD, TORCHVISION_STEMS, Lens, from_torchvision
from helpers.models.catalogue import NAMES, create
from helpers.models.cost import flops, num_parameters, step_memory
from helpers.models.face_cnn import FACE_CNN_STEMS, FAST, READOUTS, FaceCNN, LocalContrast
from helpers.models.heads import Heads, head
from helpers.models.tuning import freeze, split, stages, unfreeze
from helpers.models.weights import NoWeights, pretrained

__all__ = [
    "FACE_CNN_STEMS",
    "FAST",
    "NAMES",
    "PIXEL_MEAN",
    "PIXEL_STD",
    "READOUTS",
    "TORCHVISION_STEMS",
    "FaceCNN",
    "LocalContrast",
    "Heads",
    "Lens",
    "NoWeights",
    "create",
    "flops",
    "freeze",
    "from_torchvision",
    "head",
    "num_parameters",
    "pretrained",
    "split",
    "stages",
    "step_memory",
    "unfreeze",
]
