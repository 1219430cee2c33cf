"""The networks: the workbook's own CNN and torchvision's, with any stem and any set of heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torchvision
from torch import nn

from helpers import did_you_mean

FACE_CNN_STEMS = ("conv", "unshuffle")
TORCHVISION_STEMS = ("standard", "small")
READOUTS = ("mean", "mean+max")

# Where each network keeps its first convolution and its head.
_PLACES = {
    "resnet18": ("conv1", "fc"),
    "resnet34": ("conv1", "fc"),
    "resnet50": ("conv1", "fc"),
    "efficientnet_b0": ("features.0.0", "classifier"),
    "vit_b_16": ("conv_proj", "heads"),
}

FAST = {"stem": "unshuffle", "convs": 2, "pool_first": True, "readout": "mean+max"}
"""The options of "face-cnn-fast": most accuracy for a second of CPU time on FER2013."""

NAMES = ("face-cnn", "face-cnn-fast", *_PLACES)
"""What :func:`create` knows."""


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
        standardise: first bring each picture to mean 0 and spread 1, so that its light does not matter.
        convs: convolutions in a block, one or more.
        pool_first: pool before batch norm and ReLU, which then have a quarter of the work.
        readout: "mean" averages each feature over the map; "mean+max" puts its maximum beside it.
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
        standardise: bool = True,
        convs: int = 1,
        pool_first: bool = False,
        readout: str = "mean",
        head_width: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        _check("stem", stem, FACE_CNN_STEMS)
        _check("readout", readout, READOUTS)
        _check_sizes(widths, convs, dropout)
        self.stem = nn.Sequential(
            nn.InstanceNorm2d(in_channels) if standardise else nn.Identity(),
            nn.PixelUnshuffle(2) if stem == "unshuffle" else nn.Identity(),
        )
        channels = [in_channels * 4 if stem == "unshuffle" else in_channels, *widths]
        pools = [True] * (len(widths) - 1) + [stem == "conv"]
        sizes = zip(channels[:-1], channels[1:], pools, strict=True)
        self.blocks = nn.Sequential(*[_block(a, b, convs, pool, pool_first) for a, b, pool in sizes])
        self.readout = readout
        features = widths[-1] * (2 if readout == "mean+max" else 1)
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
        features = maps.mean(dim=(2, 3))
        if self.readout == "mean+max":
            features = torch.cat([features, maps.amax(dim=(2, 3))], dim=1)
        return self.head(self.dense(features))


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


def create(
    name: str, num_classes: int | Mapping[str, int], in_channels: int = 1, **options: object
) -> nn.Module:
    """Return a network by name, its weights drawn by chance; ``spec`` on it holds what it was made from.

    Args:
        name: one of :data:`NAMES`.
        num_classes: outputs of the one head, or head name to outputs (the network then returns a dict).
        in_channels: 1 for grey pictures, 3 for RGB.
        options: ``stem``, ``dropout`` and more, as :class:`FaceCNN` or :func:`from_torchvision` takes them.

    Raises:
        ValueError: a name or stem that does not exist; the message gives the nearest.
    """
    _check("network", name, NAMES)
    if name in _PLACES:
        net = from_torchvision(name, num_classes, in_channels, **options)
    else:
        net = FaceCNN(num_classes, in_channels, **(FAST if name == "face-cnn-fast" else {}) | options)
    net.spec = {"name": name, "num_classes": num_classes, "in_channels": in_channels, **options}
    return net


def from_torchvision(
    name: str,
    num_classes: int | Mapping[str, int],
    in_channels: int = 1,
    *,
    stem: str = "standard",
    dropout: float | None = None,
    image_size: int = 48,
    weights: str | None = None,
) -> nn.Module:
    """Return one of torchvision's networks with its first and last layer made for faces.

    Args:
        name: "resnet18", "resnet34", "resnet50", "efficientnet_b0" or "vit_b_16".
        num_classes: outputs of the one head, or head name to outputs (the network then returns a dict).
        in_channels: 1 for grey pictures, 3 for RGB.
        stem: "standard" is torchvision's own, made for 224 pixels; "small" is for small pictures: a 3 by 3
            convolution of stride 1 (and in a ResNet no first pooling), for the transformer patches of 8
            pixels in place of 16.
        dropout: share of features dropped before the head, in [0, 1). None: the network's own.
        image_size: height and width in pixels; only the transformer must know.
        weights: torchvision's name for pretrained weights ("DEFAULT"), or None to start from chance.

    Raises:
        ValueError: a name, stem or weights that do not exist, or weights for another picture size.
    """
    stem_path, head_path = _PLACES[_check("network", name, tuple(_PLACES))]
    small = _check("stem", stem, TORCHVISION_STEMS) == "small"
    if name == "vit_b_16":
        net = _vit(small, image_size, weights)
    else:
        net = torchvision.models.get_model(name, weights=weights)
    _replace_stem(net, stem_path, in_channels, small)
    _replace_head(net, head_path, num_classes, dropout)
    return net


def num_parameters(model: nn.Module, trainable_only: bool = False) -> int:
    """Return how many numbers the network learns.

    Args:
        model: any network.
        trainable_only: count only what an optimiser would change (``requires_grad``).
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def _vit(small: bool, image_size: int, weights: str | None) -> nn.Module:
    if weights is not None and (small or image_size != 224):
        raise ValueError(f"vit_b_16 with weights needs image_size=224 (not {image_size}) and no small stem")
    if not small:
        return torchvision.models.vit_b_16(weights=weights, image_size=image_size)
    sizes = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
    return torchvision.models.VisionTransformer(image_size, patch_size=8, **sizes)


def _replace_stem(net: nn.Module, path: str, in_channels: int, small: bool) -> None:
    old = net.get_submodule(path)
    size, stride, padding = old.kernel_size, old.stride, old.padding
    if small and not isinstance(net, torchvision.models.VisionTransformer):
        size, stride, padding = (3, 3), (1, 1), (1, 1)
    if small and isinstance(net, torchvision.models.ResNet):
        net.maxpool = nn.Identity()
    new = nn.Conv2d(in_channels, old.out_channels, size, stride, padding, bias=old.bias is not None)
    if size == old.kernel_size:
        _copy_stem(old, new)
    _put(net, path, new)


@torch.no_grad()
def _copy_stem(old: nn.Conv2d, new: nn.Conv2d) -> None:
    # A grey picture is an RGB picture whose channels are equal: the sum over the kernel sees it the same.
    if new.in_channels == 1:
        new.weight.copy_(old.weight.sum(dim=1, keepdim=True))
    elif new.in_channels == old.in_channels:
        new.weight.copy_(old.weight)
    if old.bias is not None:
        new.bias.copy_(old.bias)


def _replace_head(
    net: nn.Module, path: str, num_classes: int | Mapping[str, int], dropout: float | None
) -> None:
    parts = list(net.get_submodule(path).modules())
    in_features = next(part.in_features for part in reversed(parts) if isinstance(part, nn.Linear))
    own = next((part.p for part in parts if isinstance(part, nn.Dropout)), 0.0)
    share = own if dropout is None else dropout
    new = head(in_features, num_classes)
    _put(net, path, nn.Sequential(nn.Dropout(share), new) if share else new)


def _put(net: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, new)


def _check(what: str, word: str, known: Sequence[str]) -> str:
    if word not in known:
        raise ValueError(f"unknown {what} {word!r}{did_you_mean(word, known)}; known: {', '.join(known)}")
    return word


def _check_sizes(widths: Sequence[int], convs: int, dropout: float) -> None:
    if not widths or min(widths) < 1 or convs < 1:
        raise ValueError(f"a network needs widths and convs of 1 or more, not widths={widths}, convs={convs}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), not {dropout}")
