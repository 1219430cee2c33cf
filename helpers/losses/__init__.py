"""What training makes small: functions of tensors, computed in float32 and in log space.

``on_labels``, ``on_distribution`` and ``on_valence_arousal`` turn them into the ``loss(outputs, targets)``
that :func:`helpers.training.fit` takes; ``weighted_sum`` and ``UncertaintyWeighted`` make one of several.
"""

from helpers.losses.dimensions import ccc_loss, mse, on_dimension, on_valence_arousal
from helpers.losses.distributions import (
    Divergence,
    absolute_error,
    combined,
    divergences,
    js_divergence,
    kl_divergence,
    on_distribution,
    reverse_kl,
    soft_cross_entropy,
    squared_error,
)
from helpers.losses.given import Loss, Outputs
from helpers.losses.labels import class_weights, cross_entropy, on_labels
from helpers.losses.tasks import UncertaintyWeighted, weighted_sum
from helpers.losses.transport import emd

__all__ = [
    "Divergence",
    "Loss",
    "Outputs",
    "UncertaintyWeighted",
    "absolute_error",
    "ccc_loss",
    "class_weights",
    "combined",
    "cross_entropy",
    "divergences",
    "emd",
    "js_divergence",
    "kl_divergence",
    "mse",
    "on_dimension",
    "on_distribution",
    "on_labels",
    "on_valence_arousal",
    "reverse_kl",
    "soft_cross_entropy",
    "squared_error",
    "weighted_sum",
]
