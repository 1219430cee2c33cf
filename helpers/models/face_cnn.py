"""The workbook's own network, as notebook 03 builds it, with the shortcuts that make it fast."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn
from torch.nn import functional

from helpers.models.heads import head
from helpers.models.words import check

FACE_CNN_STEMS = ("conv", "unshuffle")
READOUTS = ("mean", "mean+max", "grid")

FAST = {"stem": "unshuffle", "convs": 2, "pool_first": True, "readout": "mean+max"}
"""The options of "face-cnn-fast", chosen for FER2013 and some thirty epochs. In three or four, three blocks
that are read on a "grid" go further in the same time (``benchmarks/time_to_accuracy.py``)."""

GRID = 6
"""Cells of a side that "grid" keeps apart: the map of three blocks behind "unshuffle" at 48 pixels."""


class FaceCNN(nn.Module):
    """Blocks of convolution, batch norm, ReLU and pooling, then two dense layers with dropout.

    Each block halves the picture, so four blocks turn 48 pixels into a 3 by 3 map of features. The last
    block's map (``model.blocks[-1]``) is what Grad-CAM reads.

    Args:
        num_classes: outputs of the one head, or head name to outputs: ``{"labels": 7, "valence": 1}``.
        in_channels: 1 for grey pictures, 3 for RGB.
        widths: channels of each block.
        stem: "conv" starts at full resolution; "unshuffle" first turns each 2 by 2 pixels into channels, and
            the last block, which then has nothing left to halve, does not pool. A third of the time.
        contrast: radius in pixels of a :class:`LocalContrast` before everything else; 0 for none.
        standardise: first bring each picture to mean 0 and spread 1, so that its light does not matter.
        convs: convolutions in a block, one or more.
        pool_first: pool before batch norm and ReLU, which then have a quarter of the work.
        readout: "mean" averages each feature over the map; "mean+max" puts its maximum beside it; "grid"
            averages it over each cell of a 6 by 6 grid, so that the dense layers know where it was seen.
        head_width: width of the first dense layer.
        dropout: share of features dropped before each dense layer, in [0, 1).

    Raises:
        ValueError: a stem or readout that does not exist, no block, or a dropout outside its range.
    """

    def __init__(
        self,
        num_classes: int | Mapping[str, int] = 7,
        in_channels: int = 1,
        widths: Sequence[int] = (32, 64, 128, 256),
        *,
        stem: str = "conv",
        contrast: int = 0,
        standardise: bool = True,
        convs: int = 1,
        pool_first: bool = False,
        readout: str = "mean",
        head_width: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        check("stem", stem, FACE_CNN_STEMS)
        check("readout", readout, READOUTS)
        _check_sizes(widths, convs, dropout)
        self.stem = nn.Sequential(
            LocalContrast(contrast) if contrast else nn.Identity(),
            nn.InstanceNorm2d(in_channels) if standardise else nn.Identity(),
            nn.PixelUnshuffle(2) if stem == "unshuffle" else nn.Identity(),
        )
        channels = [in_channels * 4 if stem == "unshuffle" else in_channels, *widths]
        pools = [True] * (len(widths) - 1) + [stem == "conv"]
        sizes = zip(channels[:-1], channels[1:], pools, strict=True)
        self.blocks = nn.Sequential(*[_block(a, b, convs, pool, pool_first) for a, b, pool in sizes])
        self.readout = readout
        features = widths[-1] * {"mean": 1, "mean+max": 2, "grid": GRID**2}[readout]
        self.dense = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(features, head_width), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = head(head_width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return the logits.

        Args:
            images: normalised float ``[B, in_channels, H, W]``; H and W at least 16, even for "unshuffle".

        Returns:
            ``[B, num_classes]``, or one such tensor by head name where the network has named heads.
        """
        maps = self.blocks(self.stem(images))
        return self.head(self.dense(self._read(maps)))

    def _read(self, maps: torch.Tensor) -> torch.Tensor:
        if self.readout == "grid":
            one_each = maps.shape[-2:] == (GRID, GRID)  # whose mean is itself: a tenth of a step saved
            return (maps if one_each else functional.adaptive_avg_pool2d(maps, GRID)).flatten(1)
        mean = maps.mean(dim=(2, 3))
        return torch.cat([mean, maps.amax(dim=(2, 3))], dim=1) if self.readout == "mean+max" else mean


class LocalContrast(nn.Module):
    """Each pixel less the mean of its surroundings, divided by their spread (Jarrett et al. 2009).

    Light that changes slowly over the face cancels; edges stay, faint ones as strong as others.

    Args:
        radius: of the surroundings in pixels: a box of 2 radius + 1, applied twice.
    """

    def __init__(self, radius: int = 4) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return images ``[B, C, H, W]`` of the same shape.

        Args:
            images: normalised.
        """
        with torch.autocast(images.device.type, enabled=False):  # half precision is too coarse for a mean
            centred = images - self._blurred(images)
            spread = self._blurred(centred.square()).clamp(min=0).sqrt()
            return centred / (spread + 0.125)  # eight levels of grey: less is noise

    def _blurred(self, images: torch.Tensor) -> torch.Tensor:
        down, across = (torch.from_numpy(_blur(size, self.radius)).to(images) for size in images.shape[2:])
        return down.T @ images @ across  # one matrix a side: faster than to slide a box


@functools.cache  # of NumPy's arrays: a tensor that is kept while a network is being exported is none
def _blur(size: int, radius: int) -> np.ndarray:
    """Return the matrix ``[size, size]`` that averages a row over a box, twice, mirrored at its ends."""
    rows = np.eye(size)
    for _ in range(2):
        edged = np.pad(rows, ((0, 0), (radius, radius)), mode="reflect")
        rows = sliding_window_view(edged, 2 * radius + 1, axis=1).mean(axis=-1)
    return rows


def _block(in_channels: int, out_channels: int, convs: int, pool: bool, pool_first: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(convs):
        layers += _conv_bn_relu(in_channels if i == 0 else out_channels, out_channels)
    if pool:
        layers.insert(1 if pool_first else len(layers), nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _conv_bn_relu(in_channels: int, out_channels: int) -> list[nn.Module]:
    # no bias: batch norm subtracts it again
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]


def _check_sizes(widths: Sequence[int], convs: int, dropout: float) -> None:
    if not widths or min(widths) < 1 or convs < 1:
        raise ValueError(f"a network needs widths and convs of 1 or more, not widths={widths}, convs={convs}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), not {dropout}")
