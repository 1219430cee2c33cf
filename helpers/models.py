"""The networks: the workbook's own CNN, torchvision's and timm's, with any stem, heads and weights."""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers import one_of
from helpers.weights import NoWeights as NoWeights
from helpers.weights import load, own, pretrained

# How the workbook's batches are normalised: the same as batches.MEAN and batches.STD.
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
# Mean and standard deviation of red, green and blue in [0, 1] that pretrained networks expect.
PIXELS = {"workbook": ((PIXEL_MEAN,) * 3, (PIXEL_STD,) * 3), "inception": ((0.5,) * 3, (0.5,) * 3)}
PIXELS |= {"imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
# Each pretrained network's first convolution, the normalisation of its weights, and its dropout.
BACKBONES = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50"), ("conv1", "imagenet", 0.0)),
    "efficientnet_b0": ("features.0.0", "imagenet", 0.2),
    "efficientnet_lite0": ("conv_stem", "inception", 0.2),
    "vit_b_16": ("conv_proj", "imagenet", 0.0),
}
# By class of network the layers that are its head; how a block's parameters begin, between stem and head.
HEADS = {"ResNet": ("fc",), "EfficientNet": ("classifier",), "VisionTransformer": ("heads",)}
HEADS |= {"FaceCNN": ("dense", "head")}
BLOCK = re.compile(r"((?:layer|blocks\.|features\.|encoder\.layers\.encoder_layer_)\d+)|conv_head|bn2")
NAMES = ("face-cnn", "face-cnn-fast", *BACKBONES)
"""What :func:`create` knows."""

# chosen for FER2013 and some thirty epochs
FAST = {"stem": "unshuffle", "convs": 2, "pool_first": True, "readout": "mean+max"}
GRID = 6  # cells a side of the "grid" readout: the map of three blocks behind "unshuffle" at 48 pixels


def create(
    name: str, num_classes: int | Mapping[str, int], in_channels: int = 1, **options: object
) -> nn.Module:
    """Return a network by name, its head randomly initialised.

    ``net.spec`` is what it was made from: ``create(**net.spec)`` makes it again. ``net.origin`` says in one
    line where its weights come from.

    Options of "face-cnn" and "face-cnn-fast": ``widths``, channels of each block, which halves the image;
    ``convs``, convolutions in a block; ``stem``, "conv" or "unshuffle" (2 by 2 pixels become channels first,
    the last block does not pool: a third of the time); ``standardise``, each image to mean 0 and standard
    deviation 1; ``equalise``, a layer :class:`Equalise` in its place; ``contrast``, radius in pixels of a
    :class:`LocalContrast`, 0 for none; ``pool_first``, pool before batch norm; ``readout``, "mean" over the
    map, "mean+max", or "grid", the mean of each of 6 by 6 cells; ``head_width``; ``dropout`` before each
    dense layer, in [0, 1); ``weights``, "fer2013" or "ferplus" for the workbook's own, whose shape it takes.

    Options of the others: ``weights``, None for random ones, "DEFAULT" for ImageNet's, or a file (.pth, .pt,
    .safetensors); ``stem``, "standard", "stride1" (the same kernels at every pixel, not every second) or
    "small" (a new 3x3 convolution of stride 1 and no first pooling; the transformer: patches of 8 pixels);
    ``dropout`` before the head, None for the network's own; ``resize``, side length in pixels that images are
    brought to inside the network; ``pixels``, the normalisation it expects, "workbook", "imagenet" or
    "inception", None for that of its weights; ``image_size`` in pixels, which only the transformer must know.

    Args:
        name: one of :data:`NAMES`.
        num_classes: number of outputs, or head name to outputs (the network then returns a dict).
        in_channels: 1 for grey images, 3 for RGB.
        options: see above.
    """
    if one_of("network", name, NAMES) in BACKBONES:
        net = _backbone(name, num_classes, in_channels, **options)
    else:
        tensors, shape = own(str(weights)) if (weights := options.pop("weights", None)) else ({}, {})
        options = shape | options
        net = FaceCNN(num_classes, in_channels, **(FAST if name == "face-cnn-fast" else {}) | options)
        if weights:
            load(net, name, tensors, "head", str(weights))
            net.origin, options["weights"] = f"the workbook's weights for {weights}", weights
    if isinstance(options.get("weights"), Path):
        options["weights"] = options["weights"].name
    if hasattr(net, "preprocess"):  # the normalisation must stay where weights come from elsewhere
        options["pixels"] = net.preprocess.pixels
    net.spec = {"name": name, "num_classes": num_classes, "in_channels": in_channels, **options}
    return net


class FaceCNN(nn.Module):
    """Blocks of convolution, batch norm, ReLU and pooling, then two dense layers: see :func:`create`."""

    origin = "randomly initialised"

    def __init__(
        self,
        num_classes: int | Mapping[str, int] = 7,
        in_channels: int = 1,
        widths: Sequence[int] = (32, 64, 128, 256),
        *,
        stem: str = "conv",
        contrast: int = 0,
        standardise: bool = True,
        equalise: bool = False,
        convs: int = 1,
        pool_first: bool = False,
        readout: str = "mean",
        head_width: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        unshuffle = one_of("stem", stem, ("conv", "unshuffle")) == "unshuffle"
        self.readout = one_of("readout", readout, ("mean", "mean+max", "grid"))
        if not widths or min(*widths, convs) < 1 or not 0 <= dropout < 1:
            raise ValueError("widths and convs must be 1 or more, dropout must be in [0, 1)")
        standard = nn.InstanceNorm2d(in_channels) if standardise else nn.Identity()
        standard = Equalise() if equalise else standard
        fold = nn.PixelUnshuffle(2) if unshuffle else nn.Identity()
        self.stem = nn.Sequential(LocalContrast(contrast) if contrast else nn.Identity(), standard, fold)
        self.blocks, channels = nn.Sequential(), in_channels * 4 if unshuffle else in_channels
        for number, width in enumerate(widths, start=1):
            layers: list[nn.Module] = []
            for inputs in [channels, *[width] * (convs - 1)]:  # no bias: batch norm subtracts it again
                conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            if number < len(widths) or not unshuffle:
                layers.insert(1 if pool_first else len(layers), nn.MaxPool2d(2))
            self.blocks.append(nn.Sequential(*layers))
            channels = width
        features = channels * {"mean": 1, "mean+max": 2, "grid": GRID**2}[readout]
        layers = [nn.Dropout(dropout), nn.Linear(features, head_width), nn.ReLU(), nn.Dropout(dropout)]
        self.dense = nn.Sequential(*layers)
        self.head = head(head_width, num_classes)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Return logits ``[B, num_classes]``, or a dict of them; images are at least 16 pixels a side."""
        maps = self.blocks(self.stem(images))
        if self.readout == "grid":
            if maps.shape[2:] != (GRID, GRID):  # enlarged first, so that the size of any map divides
                maps = functional.avg_pool2d(functional.interpolate(maps, scale_factor=GRID), maps.shape[2:])
            features = maps.flatten(1)
        else:
            features = maps.mean(dim=(2, 3))
        if self.readout == "mean+max":
            features = torch.cat([features, maps.amax(dim=(2, 3))], dim=1)
        return self.head(self.dense(features))


class Equalise(nn.Module):
    """Each pixel's rank in its image: histogram equalisation, after which no change of light is left.

    A rank does not change with brightness, contrast or gamma; through it no gradient passes.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return ranks ``[B, C, H, W]`` of 256 levels, evenly spread with mean 0 and standard deviation 1."""
        flat = images.detach().float().flatten(2)
        low, high = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
        level = ((flat - low) / (high - low).clamp(min=1e-6) * 255).round().long()
        count = torch.zeros(*flat.shape[:2], 256, device=flat.device)
        count = count.scatter_add_(2, level, torch.ones_like(flat))
        share = (count.cumsum(2) - count / 2) / flat.shape[2]  # of pixels darker than a level, half of it own
        return ((share.gather(2, level) - 0.5) * 12**0.5).reshape(images.shape).to(images.dtype)


class LocalContrast(nn.Module):
    """Each pixel less the mean of its surroundings, divided by their spread (Jarrett et al. 2009)."""

    def __init__(self, radius: int = 4) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised images ``[B, C, H, W]``: slow changes of light cancel, edges stay."""
        with torch.autocast(images.device.type, enabled=False):  # half precision is too coarse for a mean
            down, across = (self._blur(size, images) for size in images.shape[2:])
            centred = images - down.T @ images @ across
            spread = (down.T @ centred.square() @ across).clamp(min=0).sqrt()
            return centred / (spread + 0.125)  # eight levels of grey: less is noise

    def _blur(self, size: int, images: Tensor) -> Tensor:
        """Return the matrix ``[size, size]`` of a box mean applied twice, mirrored at the ends."""
        # one matrix a side is faster than to slide a box; made on the device, so that nothing is copied there
        rows = torch.eye(size, device=images.device)[None]
        for _ in range(2):
            rows = functional.pad(rows, (self.radius, self.radius), mode="reflect")
            rows = functional.avg_pool1d(rows, 2 * self.radius + 1, stride=1)
        return rows[0].to(images.dtype)


class Heads(nn.ModuleDict):
    """One linear layer a name on the same features: ``[B, outputs]`` by head name."""

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return the outputs of every head."""
        return {name: layer(features) for name, layer in self.items()}


def head(in_features: int, num_classes: int | Mapping[str, int]) -> nn.Module:
    """Return the last layer on so many features: logits, or a dict of them by head name of a mapping."""
    if not isinstance(num_classes, Mapping):
        return nn.Linear(in_features, num_classes)
    return Heads({name: nn.Linear(in_features, size) for name, size in num_classes.items()})


class Preprocess(nn.Module):
    """Resizes, and turns the workbook's normalisation into the one that a pretrained network expects."""

    def __init__(self, size: int | None, pixels: str, in_channels: int) -> None:
        super().__init__()
        self.size, self.pixels = size, pixels
        mean, std = torch.tensor(PIXELS[pixels])[:, :, None, None]
        if in_channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        # buffers move to the device with the network; not saved, since they follow from `pixels`
        self.register_buffer("scale", PIXEL_STD / std, persistent=False)
        self.register_buffer("shift", (PIXEL_MEAN - mean) / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return images ``[B, C, H, W]`` as the network expects them."""
        if self.size is not None and images.shape[-1] != self.size:
            shrunk, size = self.size < images.shape[-1], (self.size, self.size)
            images = functional.interpolate(images, size, mode="bilinear", antialias=shrunk)
        return images if self.pixels == "workbook" else images * self.scale + self.shift


def _backbone(
    name: str,
    num_classes: int | Mapping[str, int],
    in_channels: int,
    *,
    stem: str = "standard",
    dropout: float | None = None,
    image_size: int = 48,
    resize: int | None = None,
    weights: str | Path | None = None,
    pixels: str | None = None,
) -> nn.Module:
    """Return a network of torchvision or timm with its first and last layer made for faces."""
    stem_path, normalisation, own_dropout = BACKBONES[name]
    one_of("stem", stem, ("standard", "stride1", "small"))
    pixels = one_of("pixels", pixels or ("workbook" if weights is None else normalisation), tuple(PIXELS))
    if name == "vit_b_16" and (stem == "stride1" or (stem == "small" and weights is not None)):
        raise ValueError("vit_b_16: no stem of stride 1, weights for patches of 16 pixels; take 'standard'")
    net = _published(name, resize or image_size, 8 if stem == "small" else 16)
    (head_path,), net.origin = HEADS[type(net).__name__], FaceCNN.origin
    if weights is not None:
        tensors, net.origin = pretrained(name, weights)
        load(net, name, tensors, head_path, str(weights))

    old = net.get_submodule(stem_path)
    size, stride, padding = old.kernel_size, old.stride, old.padding
    if name != "vit_b_16" and stem != "standard":
        size, stride, padding = ((3, 3), (1, 1), (1, 1)) if stem == "small" else (size, (1, 1), padding)
    conv = type(old)(in_channels, old.out_channels, size, stride, padding, bias=old.bias is not None)
    if name == "vit_b_16" or stem != "small":
        # a grey image is an RGB image of equal channels: the sum over the kernel sees it the same
        summed = {"weight": old.weight.sum(1, keepdim=True)} if in_channels == 1 else {}
        conv.load_state_dict(old.state_dict() | summed)
    net.set_submodule(stem_path, conv)
    if stem == "small" and hasattr(net, "maxpool"):
        net.maxpool = nn.Identity()

    linear = [layer for layer in net.get_submodule(head_path).modules() if isinstance(layer, nn.Linear)]
    share, new = own_dropout if dropout is None else dropout, head(linear[-1].in_features, num_classes)
    net.set_submodule(head_path, nn.Sequential(nn.Dropout(share), new) if share else new)
    if resize is not None or pixels != "workbook":
        net.preprocess = Preprocess(resize, pixels, in_channels)
        net.register_forward_pre_hook(lambda net, inputs: net.preprocess(inputs[0]))
    return net


def _published(name: str, image_size: int, patch_size: int) -> nn.Module:
    """Return a randomly initialised network of 1,000 classes; its library takes seconds to import."""
    if name == "efficientnet_lite0":
        return importlib.import_module("timm").create_model("tf_efficientnet_lite0")
    library = importlib.import_module("torchvision.models")
    if name == "vit_b_16":
        return library.VisionTransformer(image_size, patch_size, 12, 12, 768, 3072)
    return library.get_model(name, weights=None)


def _heads(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a network's last layers, of an unknown network none."""
    return next((HEADS[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in HEADS), ())


def split(model: nn.Module, head: str | None = None) -> tuple[nn.Module, nn.Module]:
    """Return a network's body, from images to features, and its head, from features to outputs.

    Both share their layers with the network, and ``head(body(images))`` is ``model(images)``. ``head`` is a
    name in ``model.named_modules()``, None where the workbook knows the network.
    """
    names = _heads(model) if head is None else (head,)
    if not names:
        inside = ", ".join(name for name, child in model.named_children() if list(child.parameters()))
        raise ValueError(f"say which part of this {type(model).__name__} is the head: one of {inside}")
    parts = [model.get_submodule(name) for name in names]
    return functools.reduce(_without, names, model), parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def _without(module: nn.Module, path: str) -> nn.Module:
    """Return a twin that shares everything but the named layer, which passes on what it gets."""
    first, _, rest = path.partition(".")
    twin = copy.copy(module)
    inner = _without(module.get_submodule(first), rest) if rest else nn.Identity()
    twin.__dict__["_modules"] = {**module._modules, first: inner}
    return twin


def freeze(model: nn.Module, head: str | None = None) -> nn.Module:
    """Return the same network with its body frozen: only the head (as for :func:`split`) learns.

    A frozen part stays in evaluation mode in training, too: its batch norm would move its running means.
    ``model.requires_grad_(True)`` lets everything learn again.
    """
    split(model, head)[0].requires_grad_(False)
    model.register_forward_pre_hook(_keep_frozen_in_eval)
    return model


def _keep_frozen_in_eval(model: nn.Module, _inputs: object = None) -> None:
    for child in model.children() if model.training else ():  # any loop calls model.train() before a step
        learns = [weights.requires_grad for weights in child.parameters()]
        if learns and not any(learns):
            child.eval()
        elif not all(learns):
            _keep_frozen_in_eval(child)


def stages(model: nn.Module) -> list[list[str]]:
    """Return the names of a network's parameters by stage, from the image to the head; else by part."""

    def stage(name: str) -> str | bool | None:
        if not _heads(model):
            return name.partition(".")[0]
        found = BLOCK.match(name)
        return found and (found[1] or True)  # None before the first block and behind the last

    named = itertools.groupby((name for name, _ in model.named_parameters()), stage)
    return [list(names) for _, names in named]


def num_parameters(model: nn.Module, trainable_only: bool = False) -> int:
    """Return how many parameters a network has, or how many of them an optimiser would change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def flops(model: nn.Module, image_size: int = 48, in_channels: int = 1) -> int:
    """Return the floating-point operations of a forward pass: a multiplication and an addition are two.

    Counted are convolutions, matrix products and attention, of one image of so many pixels a side.
    """
    twin, counter = copy.deepcopy(model).cpu().eval(), FlopCounterMode(display=False)
    # the counter does not see attention in its fused kernels; gradients and MATH keep it out of them
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        twin.requires_grad_(True)(torch.zeros(1, in_channels, image_size, image_size))
    return counter.get_total_flops()


def step_memory(model: nn.Module, batch_size: int, image_size: int = 48, in_channels: int = 1) -> int:
    """Return the bytes that a training step with AdamW holds at its peak, in float32.

    Counted, not measured: the weights, a gradient and AdamW's two means for each that learns, and what the
    forward pass keeps for the backward pass; without what a library takes for itself.
    """
    twin, held = copy.deepcopy(model).cpu().train(), {}
    own = {weights.untyped_storage().data_ptr() for weights in twin.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor  # none is freed, so that no address comes again
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        twin(torch.zeros(batch_size, in_channels, image_size, image_size))
    kept = sum(each.untyped_storage().nbytes() for place, each in held.items() if place not in own)
    return 4 * (num_parameters(model) + 3 * num_parameters(model, trainable_only=True)) + kept
