"""Weights that somebody else has trained: torchvision's, from the torch hub cache, or a file of your own."""

from __future__ import annotations

import http.client
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from helpers import files
from helpers.models.words import check

ENDINGS = (".pth", ".pt", ".safetensors")
"""What a file of weights may be called; any other word is one of torchvision's names."""

PATIENCE = 20.0
"""Seconds without a byte after which a server counts as out of reach."""


class NoWeights(OSError):
    """The weights cannot be had; the message says which, where they were looked for, and what to do."""


def pretrained(name: str, weights: str | Path = "DEFAULT", progress: bool = True) -> dict[str, Tensor]:
    """Return weights for one of torchvision's networks, as tensors by name; nothing in a file is executed.

    Torchvision's own are taken from the torch hub cache (``torch.hub.get_dir()``; ``TORCH_HOME`` moves it),
    and loaded down into it where they are not there yet.

    Args:
        name: the network, as torchvision calls it.
        weights: torchvision's name for them ("DEFAULT", "IMAGENET1K_V1"), or a file that ends in .pth, .pt or
            .safetensors.
        progress: show a bar while they are loaded down.

    Raises:
        NoWeights: they are not there and cannot be loaded down; the caller can go on without.
        ValueError: torchvision has none of that name, or the file is damaged or holds more than weights.
    """
    if Path(weights).suffix in ENDINGS:
        return read(Path(weights).expanduser())
    from torchvision.models import get_model_weights  # only here: it takes seconds to import

    known = get_model_weights(name).__members__
    url = known[check("weights", str(weights), tuple(known))].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.exists():
        _load_down(name, url, path, progress)
    tensors = read(path)
    _compare_with_its_name(path)
    return tensors


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file of weights.

    Args:
        path: a file that ``torch.save(model.state_dict(), ...)`` wrote, or safetensors.

    Raises:
        NoWeights: there is no such file.
        ValueError: it is damaged, or holds more than weights.
    """
    if not path.is_file():
        raise NoWeights(f"no file {_shown(path)}; give the path of one that ends in {' '.join(ENDINGS)}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes lead to errors of any kind
        raise ValueError(_why_not(path, str(error))) from None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"{_shown(path)} holds more than weights; save model.state_dict() alone")
    return tensors


def _why_not(path: Path, error: str) -> str:
    if "Unsupported global" in error or "Unsupported class" in error:
        what = "holds more than weights, and to load it could run code"
        return f"{_shown(path)} {what}; take a file of model.state_dict() alone"
    size = path.stat().st_size
    return f"{_shown(path)} is damaged or cut off ({size:,} bytes); delete it and load it down again"


def _load_down(name: str, url: str, path: Path, progress: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _patience():
            torch.hub.download_url_to_file(url, str(path), _digits(path), progress)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        why = str(getattr(error, "reason", error)).split("\n")[0]
        raise NoWeights(
            f"no pretrained weights for {name}: {path.name} is not in {_shown(path.parent)} and could not be "
            f"loaded down ({why}); get {url} elsewhere and put it there, or give a file as weights="
        ) from None


@contextmanager
def _patience() -> Iterator[None]:
    """Give up on a server that is silent; torch.hub would wait for as long as the system does."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _compare_with_its_name(path: Path) -> None:
    """Warn where a file's SHA-256 does not begin with the digits in its name, as torchvision's all do.

    What is loaded down has been compared already; what somebody put into the cache has not.
    """
    digest = files.sha256(path)
    if not digest.startswith(_digits(path) or ""):
        what = f"is not the file that was published under this name: its SHA-256 begins with {digest[:8]}"
        warnings.warn(f"{_shown(path)} {what}; it is used as it is", stacklevel=4)


def _digits(path: Path) -> str | None:
    found = re.search(r"-([a-f0-9]{8,})\.", path.name)
    return found.group(1) if found else None


def _shown(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)
