"""Torchvision's networks with a first and last layer for faces, from chance or from trained weights.

Torchvision itself is imported where it is used: with what it brings along it takes some five seconds, which
nobody should wait for who wants the workbook's own networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.models.heads import head
from helpers.models.weights import pretrained
from helpers.models.words import check

TORCHVISION_STEMS = ("standard", "stride1", "small")

PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
"""How the workbook's batches are centred and scaled, the same as ``batches.MEAN`` and ``batches.STD``."""

PIXELS = {"workbook": None, "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
"""Means and standard deviations of red, green and blue in [0, 1] that a network expects to be taken out."""

# Where each network keeps its first convolution and its head.
PLACES = {
    "resnet18": ("conv1", "fc"),
    "resnet34": ("conv1", "fc"),
    "resnet50": ("conv1", "fc"),
    "efficientnet_b0": ("features.0.0", "classifier"),
    "vit_b_16": ("conv_proj", "heads"),
}


class Lens(nn.Module):
    """What stands before a network that was trained on other pictures than the workbook's batches.

    Args:
        size: side in pixels that each picture is brought to, bilinearly, or None to leave it.
        pixels: how the network expects them to be normalised: one of ``PIXELS``. Grey pictures are taken
            with the mean of the three channels' numbers.

    Raises:
        ValueError: ``pixels`` is unknown, or the size is not positive.
    """

    def __init__(self, size: int | None = None, pixels: str = "workbook") -> None:
        super().__init__()
        check("pixels", pixels, tuple(PIXELS))
        if size is not None and size < 1:
            raise ValueError(f"resize must be 1 pixel or more, not {size}")
        self.size, self.pixels = size, pixels

    def forward(self, images: Tensor) -> Tensor:
        """Return the pictures as the network expects them.

        Args:
            images: float ``[B, C, H, W]``, C 1 or 3, as the workbook's batches are normalised.
        """
        if self.size is not None and images.shape[-1] != self.size:
            shrunk = self.size < images.shape[-1]
            size = (self.size, self.size)
            images = functional.interpolate(images, size, mode="bilinear", antialias=shrunk)
        if PIXELS[self.pixels] is None:
            return images
        mean, std = (_for_channels(numbers, images) for numbers in PIXELS[self.pixels])
        return images * (PIXEL_STD / std) + (PIXEL_MEAN - mean) / std

    def extra_repr(self) -> str:
        """Return what ``print`` shows of it."""
        return f"size={self.size}, pixels={self.pixels!r}"


def _for_channels(numbers: tuple[float, ...], images: Tensor) -> Tensor:
    each = images.new_tensor(numbers)
    return (each if images.shape[1] == 3 else each.mean(0, keepdim=True))[:, None, None]


def _through_lens(net: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (net.lens(given[0]), *given[1:])


def from_torchvision(
    name: str,
    num_classes: int | Mapping[str, int],
    in_channels: int = 1,
    *,
    stem: str = "standard",
    dropout: float | None = None,
    image_size: int = 48,
    resize: int | None = None,
    weights: str | Path | None = None,
    pixels: str | None = None,
) -> nn.Module:
    """Return one of torchvision's networks with its first and last layer made for faces.

    Args:
        name: "resnet18", "resnet34", "resnet50", "efficientnet_b0" or "vit_b_16".
        num_classes: outputs of the one head, or head name to outputs (the network then returns a dict).
        in_channels: 1 for grey pictures, 3 for RGB. The kernels of a trained first layer are added up over
            the channels for grey: they see a grey picture as they saw it when its three channels were equal.
        stem: "standard" is torchvision's own, made for 224 pixels. "stride1" keeps its kernels, trained ones
            too, but takes every pixel and not every second (not for the transformer). "small" is for small
            pictures: a new 3 by 3 convolution of stride 1 (and in a ResNet no first pooling), for the
            transformer patches of 8 pixels in place of 16.
        dropout: share of features dropped before the head, in [0, 1). None: the network's own.
        image_size: height and width of the pictures in pixels; only the transformer must know. Trained
            places of its patches are interpolated.
        resize: side in pixels that pictures are brought to inside the network, or None.
        weights: torchvision's name for pretrained weights ("DEFAULT"), a file of them, or None to start from
            chance; see :func:`models.pretrained`. The head always starts from chance.
        pixels: how the network expects its pictures, "workbook" or "imagenet". None: "imagenet" with weights.

    Raises:
        ValueError: a name, stem or weights that do not exist, or weights of another network.
        NoWeights: the weights cannot be had.
    """
    stem_path, head_path = PLACES[check("network", name, tuple(PLACES))]
    _check_stem(name, stem, weights)
    net = _empty(name, stem, resize or image_size)
    if weights is not None:
        _fill(net, name, pretrained(name, weights), head_path, str(weights))
    _replace_stem(net, stem_path, in_channels, stem)
    _replace_head(net, head_path, num_classes, dropout)
    pixels = pixels or ("workbook" if weights is None else "imagenet")
    if resize is not None or pixels != "workbook":
        net.lens = Lens(resize, pixels)
        net.register_forward_pre_hook(_through_lens)
    return net


def _check_stem(name: str, stem: str, weights: str | Path | None) -> None:
    check("stem", stem, TORCHVISION_STEMS)
    if name == "vit_b_16" and stem == "stride1":
        raise ValueError("vit_b_16 has no stem of stride 1: it cuts patches; take 'standard' or 'small'")
    if name == "vit_b_16" and stem == "small" and weights is not None:
        raise ValueError(
            "vit_b_16 has weights for patches of 16 pixels only: take stem='standard', and resize"
        )


def _empty(name: str, stem: str, image_size: int) -> nn.Module:
    from torchvision.models import VisionTransformer, get_model, vit_b_16

    if name != "vit_b_16":
        return get_model(name, weights=None)
    if stem == "standard":
        return vit_b_16(weights=None, image_size=image_size)
    sizes = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
    return VisionTransformer(image_size, patch_size=8, **sizes)


def _fill(net: nn.Module, name: str, tensors: dict[str, Tensor], head_path: str, source: str) -> None:
    """Load weights into a network, all but those of its head, which is about to be replaced."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    for key in [key for key in tensors if key.startswith(f"{head_path}.")]:
        del tensors[key]
    if isinstance(net, VisionTransformer) and "encoder.pos_embedding" in tensors:
        tensors = interpolate_embeddings(net.image_size, net.patch_size, tensors)
    for key, mine in net.state_dict().items():
        if key.startswith(f"{head_path}.") or key.endswith("num_batches_tracked"):
            continue
        found = tuple(tensors[key].shape) if key in tensors else "missing"
        if found != tuple(mine.shape):
            what = f"{key} is {found}, not {tuple(mine.shape)}"
            raise ValueError(f"weights={source!r} are of another network than torchvision's {name}: {what}")
    net.load_state_dict(tensors, strict=False)


def _replace_stem(net: nn.Module, path: str, in_channels: int, stem: str) -> None:
    from torchvision.models import ResNet, VisionTransformer

    old = net.get_submodule(path)
    size, stride, padding = old.kernel_size, old.stride, old.padding
    if stem != "standard" and not isinstance(net, VisionTransformer):
        stride = (1, 1)
        if stem == "small":
            size, padding = (3, 3), (1, 1)
    if stem == "small" and isinstance(net, ResNet):
        net.maxpool = nn.Identity()
    new = nn.Conv2d(in_channels, old.out_channels, size, stride, padding, bias=old.bias is not None)
    if size == old.kernel_size:
        _copy_stem(old, new)
    put(net, path, new)


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
    put(net, path, nn.Sequential(nn.Dropout(share), new) if share else new)


def put(net: nn.Module, path: str, new: nn.Module) -> None:
    """Put a layer in the place of another.

    Args:
        net: the network.
        path: the name of the other in ``net.named_modules()``.
        new: the layer.
    """
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, new)
