"""The last layer: one, or one a name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class Heads(nn.ModuleDict):
    """One linear layer a name on the same features.

    Args:
        in_features: width of the features.
        num_outputs: head name to its number of outputs.
    """

    def __init__(self, in_features: int, num_outputs: Mapping[str, int]) -> None:
        super().__init__({name: nn.Linear(in_features, size) for name, size in num_outputs.items()})

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``[B, outputs]`` by head name.

        Args:
            features: ``[B, in_features]``.
        """
        return {name: layer(features) for name, layer in self.items()}


def head(in_features: int, num_classes: int | Mapping[str, int]) -> nn.Module:
    """Return the last layer: a number gives one tensor of logits, a mapping one tensor for each name.

    Args:
        in_features: width of the features.
        num_classes: outputs, or head name to outputs.

    Raises:
        ValueError: no head, or one without outputs.
    """
    sizes = num_classes.values() if isinstance(num_classes, Mapping) else [num_classes]
    if not sizes or min(sizes) < 1:
        raise ValueError(f"num_classes must be 1 or more for each head, not {num_classes!r}")
    if isinstance(num_classes, Mapping):
        return Heads(in_features, num_classes)
    return nn.Linear(in_features, num_classes)
