"""What was read in a picture: its faces, as numbers, as a line of text and drawn into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from helpers import emotions, plotting
from helpers.predictor.detection import Box

NO_FACE = "no face found: it must look at the camera, upright (one close-up face: take the whole picture)"
"""What is said of a picture without a face."""


@dataclass(frozen=True)
class Face:
    """One face and what the network says of it.

    Args:
        box: where it is.
        classes: names of the K expressions.
        distribution: float32 ``[K]``, their probabilities.
        valence: in [-1, 1]; None where the network does not give it.
        arousal: in [-1, 1]; None where the network does not give it.
        heat_map: float32 ``[size, size]`` over the box, what spoke for the likeliest class; None unless asked
            for.
        number: which face of a video this is, the same from frame to frame; None in a picture.
    """

    box: Box
    classes: tuple[str, ...]
    distribution: np.ndarray
    valence: float | None = None
    arousal: float | None = None
    heat_map: np.ndarray | None = None
    number: int | None = None

    @property
    def label(self) -> str:
        """The likeliest expression."""
        return self.classes[int(self.distribution.argmax())]

    @property
    def probability(self) -> float:
        """How likely that one is, to the network."""
        return float(self.distribution.max())

    def record(self) -> dict[str, Any]:
        """Return the face as plain types, for JSON."""
        numbers = {} if self.number is None else {"number": self.number}
        places = {"valence": self.valence, "arousal": self.arousal}
        return numbers | {
            "box": dict(zip(("left", "top", "side"), map(int, self.box), strict=True)),
            "label": self.label,
            "distribution": {
                name: round(float(p), 4) for name, p in zip(self.classes, self.distribution, strict=True)
            },
            **{name: round(value, 3) for name, value in places.items() if value is not None},
        }

    def __str__(self) -> str:
        text = f"{self.label} {self.probability:.2f}"
        if self.valence is not None:
            text += f", valence {self.valence:+.2f}, arousal {self.arousal:+.2f}"
        return text


@dataclass(frozen=True)
class Reading:
    """A picture, or a frame, with its faces.

    Args:
        picture: uint8 ``[3, H, W]`` of RGB.
        faces: the largest first.
        seconds: when the frame was, from the start of its video; None for a picture.
    """

    picture: np.ndarray
    faces: tuple[Face, ...]
    seconds: float | None = None

    def record(self) -> dict[str, Any]:
        """Return the reading as plain types, for JSON."""
        time = {} if self.seconds is None else {"seconds": round(self.seconds, 3)}
        height, width = self.picture.shape[1:]
        faces = [face.record() for face in self.faces]
        return time | {"width": int(width), "height": int(height), "faces": faces}

    def annotated(self) -> np.ndarray:
        """Return the picture with a box around each face, what was read in it, and its heat where known.

        Returns:
            uint8 ``[3, H, W]``.
        """
        image = Image.fromarray(np.ascontiguousarray(self.picture.transpose(1, 2, 0)))
        pen = ImageDraw.Draw(image)
        for face in self.faces:
            if face.heat_map is not None:
                _warm(image, face.box, face.heat_map)
        for face in self.faces:
            _frame(pen, face, image.size)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def __str__(self) -> str:
        return "; ".join(map(str, self.faces)) or NO_FACE


def _warm(image: Image.Image, box: Box, heat_map: np.ndarray) -> None:
    heat = Image.fromarray(heat_map.astype(np.float32)).resize(
        (box.side, box.side), Image.Resampling.BILINEAR
    )
    square = (box.left, box.top, box.left + box.side, box.top + box.side)
    pixels = np.asarray(image.crop(square)).transpose(2, 0, 1)
    glowing = plotting.heated(pixels[None], np.asarray(heat)[None])[0]
    image.paste(Image.fromarray(np.ascontiguousarray(glowing.transpose(1, 2, 0))), square[:2])


def _frame(pen: ImageDraw.ImageDraw, face: Face, size: tuple[int, int]) -> None:
    """Draw a box in the colour of its expression, and above it (below, where there is no room) the words."""
    box, unit = face.box, max(1, round(min(size) / 240))
    color = emotions.COLORS.get(face.label, plotting.ACCENT)
    right, bottom = box.left + box.side - 1, box.top + box.side - 1
    pen.rectangle((box.left, box.top, right, bottom), outline=color, width=2 * unit)
    font = ImageFont.load_default(size=max(10, 9 * unit))
    wide, high = pen.textbbox((0, 0), str(face), font=font)[2:]
    x = max(0, min(box.left, size[0] - wide - 4))
    y = box.top - high - 4 if box.top >= high + 4 else max(0, min(bottom, size[1] - high - 4))
    pen.rectangle((x, y, x + wide + 4, y + high + 4), fill=color)
    pen.text((x + 2, y + 1), str(face), fill="white", font=font)
