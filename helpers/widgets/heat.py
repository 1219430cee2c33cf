"""The panel of notebook 07: where a network looks, by layer and class, on its faces or on your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from helpers import batches, gradcam, metrics, plotting
from helpers.datasets import FaceSet
from helpers.widgets.panel import Panel, choice, figure, one_line, slider

LIKELIEST = "the likeliest"


class Reader(Protocol):
    """What reads pictures: a ``predictor.Predictor``."""

    model: nn.Module
    classes: tuple[str, ...]

    def squares(self, source: bytes) -> np.ndarray:
        """Return the faces of a picture as the network sees them, uint8 ``[F, size, size]``."""


def explain(
    model: nn.Module,
    image: np.ndarray,
    classes: Sequence[str],
    layer: str = "",
    expression: str = LIKELIEST,
    opacity: float = 0.7,
) -> Figure:
    """Draw a face, where a layer of the network found what speaks for a class, and all probabilities.

    Args:
        model: the network; its output is logits, or a dict with "labels".
        image: uint8 ``[size, size]``, or ``[3, size, size]``.
        classes: names of the K classes.
        layer: the layer's name; "" is the one usually asked (``gradcam.last_map``).
        expression: the class that is explained, or "the likeliest".
        opacity: of the heat over the face, in [0, 1].

    Raises:
        ValueError: a layer or class that is not there.
    """
    pictures = batches.normalise(torch.from_numpy(np.array(image)[None]))
    pictures = pictures if pictures.ndim == 4 else pictures[:, None]
    where = next(model.parameters()).device
    with torch.inference_mode():
        out = model.eval()(pictures.to(where))
    head, logits = ("labels", out["labels"]) if isinstance(out, dict) else (None, out)
    p = metrics.softmax(logits.float().cpu().numpy())[0]
    label = int(p.argmax()) if expression == LIKELIEST else list(classes).index(expression)
    maps = gradcam.grad_cam(model, layer or gradcam.last_map(model), pictures.to(where), label, head=head)
    return _drawn(image, maps.cpu().numpy(), p, classes, classes[label], opacity)


def _drawn(
    image: np.ndarray, maps: np.ndarray, p: np.ndarray, classes: Sequence[str], asked: str, opacity: float
) -> Figure:
    drawn = figure(7.8, 2.8)
    bare = image if image.ndim == 3 else np.repeat(image[None], 3, axis=0)
    warm = plotting.heated(image[None], maps)[0]
    mixed = bare + (warm.astype(float) - bare) * min(1.0, opacity / 0.7)
    plotting.face(bare, "what the network sees", ax=drawn.add_axes((0.005, 0.01, 0.3, 0.87)))
    plotting.face(mixed.clip(0, 255), f"for {asked}", ax=drawn.add_axes((0.325, 0.01, 0.3, 0.87)))
    plotting.distribution(p, classes, ax=drawn.add_axes((0.76, 0.12, 0.22, 0.76)))
    return drawn


def layers(model: nn.Module, image: np.ndarray) -> list[str]:
    """Return the names of the layers whose output is a map, coarse blocks only, in the order they run.

    Args:
        model: the network.
        image: uint8, a picture that it takes.
    """
    found: list[str] = []
    depth = 2 if any(name == "blocks" for name, _ in model.named_children()) else 1
    hooks = [
        layer.register_forward_hook(
            lambda _, __, out, name=name: (
                found.append(name)
                if isinstance(out, torch.Tensor) and out.ndim == 4 and min(out.shape[2:]) > 1
                else None
            )
        )
        for name, layer in model.named_modules()
        if name and name.count(".") < depth
    ]
    pictures = batches.normalise(torch.from_numpy(np.array(image)[None]))
    try:
        with torch.inference_mode():
            model.eval()(pictures if pictures.ndim == 4 else pictures[:, None])
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(found))


def heat_maps(reader: Reader, faces: FaceSet) -> Panel:
    """Return the panel with layer, class, face and opacity, and a button for a picture of your own.

    Args:
        reader: what reads pictures: a ``predictor.Predictor``.
        faces: the faces to choose from.
    """
    model, own = reader.model, []
    known = layers(model, faces.images[0])
    usual = gradcam.last_map(model)
    names = known if usual in known else [*known, usual]
    controls = {
        "face": slider("face", 0, 0, len(faces) - 1, 1),
        "layer": choice("layer", names, usual),
        "expression": choice("explain", [LIKELIEST, *reader.classes]),
        "opacity": slider("opacity", 0.7, 0.0, 1.0),
    }
    upload = ipywidgets.FileUpload(
        accept="image/*", multiple=False, description="your own picture", layout={"width": "220px"}
    )

    def draw(face: int, **settings: Any) -> Figure:
        if own and own[0] != face:  # the slider was moved: back to the set's faces
            own.clear()
        return explain(model, own[1] if own else faces.images[face], reader.classes, **settings)

    panel = Panel(draw, controls, others=(upload,))

    def take(_: object) -> None:
        try:
            squares = reader.squares(uploaded(upload.value))
        except ValueError as error:
            panel.say(one_line(error), wrong=True)
            return
        if not len(squares):
            panel.say("no face found in it: it must look at the camera, upright", wrong=True)
            return
        own[:] = [controls["face"].value, squares[0]]
        panel.refresh()
        which = f"the largest of {len(squares)} faces" if len(squares) > 1 else "your picture"
        panel.say(f"{which}; move the slider 'face' to go back")

    upload.observe(take, names="value")
    return panel


def uploaded(value: Any) -> bytes:
    """Return the content of the file that a ``FileUpload`` holds, in ipywidgets 7 and 8 alike.

    Args:
        value: of the control.

    Raises:
        ValueError: it holds none.
    """
    files = list(value.values()) if isinstance(value, dict) else list(value)
    if not files:
        raise ValueError("no file was chosen")
    return bytes(files[-1]["content"])
