"""Every network by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from helpers.models.backbones import PLACES, from_torchvision
from helpers.models.face_cnn import FAST, FaceCNN
from helpers.models.words import check

NAMES = ("face-cnn", "face-cnn-fast", *PLACES)
"""What :func:`create` knows."""


def create(
    name: str, num_classes: int | Mapping[str, int], in_channels: int = 1, **options: object
) -> nn.Module:
    """Return a network by name; ``spec`` on it holds what it was made from.

    Its weights are drawn by chance, unless ``weights="DEFAULT"``, or a file, brings trained ones.

    Args:
        name: one of :data:`NAMES`.
        num_classes: outputs of the one head, or head name to outputs (the network then returns a dict).
        in_channels: 1 for grey pictures, 3 for RGB.
        options: ``stem``, ``dropout``, ``weights``, ``resize`` and more, as :class:`FaceCNN` or
            :func:`from_torchvision` takes them.

    Raises:
        ValueError: a name or stem that does not exist; the message gives the nearest.
        NoWeights: trained weights were asked for and cannot be had.
    """
    check("network", name, NAMES)
    if name in PLACES:
        net = from_torchvision(name, num_classes, in_channels, **options)
    else:
        net = FaceCNN(num_classes, in_channels, **(FAST if name == "face-cnn-fast" else {}) | options)
    if isinstance(options.get("weights"), Path):
        options["weights"] = options["weights"].name
    if hasattr(net, "lens"):  # what reads pictures must stay where weights come from elsewhere
        options["pixels"] = net.lens.pixels
    net.spec = {"name": name, "num_classes": num_classes, "in_channels": in_channels, **options}
    return net
