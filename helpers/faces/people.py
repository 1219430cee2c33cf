"""Who is drawn and how they are seen: every number of an identity and of a view, in one table each.

Lengths are in face units: the eyes of an average face lie 0.36 left and right of the middle and 0.25 above it, its
mouth 0.55 below, its chin at 1.0. A frame of scale 1 shows -1 to 1, the crop of FER2013. x goes right, y goes down.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from helpers import did_you_mean
from helpers.faces import chance


class Trait(NamedTuple):
    """One number of a person or a view: normal around ``mean``, cut to a range.

    Args:
        mean: its average.
        spread: its standard deviation.
        low: its smallest value.
        high: its largest value.
        share: in what share of draws it is there at all; it is 0 in the others.
    """

    mean: float
    spread: float
    low: float
    high: float
    share: float = 1.0


IDENTITY = {
    "face_width": Trait(0.80, 0.05, 0.68, 0.95),  # half the width at the cheekbones
    "jaw_width": Trait(0.60, 0.06, 0.45, 0.78),  # half the width at the mouth
    "chin_y": Trait(1.0, 0.05, 0.88, 1.12),
    "eye_x": Trait(0.36, 0.02, 0.31, 0.41),  # half the distance of the pupils
    "eye_y": Trait(-0.25, 0.03, -0.33, -0.17),
    "eye_width": Trait(0.155, 0.012, 0.12, 0.19),  # half the width of an eye
    "eye_open": Trait(0.062, 0.011, 0.035, 0.09),  # half its opening at rest
    "eye_tilt": Trait(0.0, 0.012, -0.03, 0.03),  # how much higher the outer corner lies
    "iris": Trait(0.075, 0.005, 0.06, 0.09),  # radius
    "iris_shade": Trait(0.28, 0.15, 0.08, 0.6),  # albedo
    "brow_y": Trait(-0.46, 0.03, -0.54, -0.38),
    "brow_thickness": Trait(0.036, 0.012, 0.014, 0.065),  # half of it
    "brow_arch": Trait(0.045, 0.02, 0.0, 0.09),
    "nose_y": Trait(0.22, 0.035, 0.13, 0.3),  # the tip
    "nose_width": Trait(0.16, 0.02, 0.11, 0.22),  # half of it
    "mouth_y": Trait(0.56, 0.03, 0.48, 0.64),
    "mouth_width": Trait(0.29, 0.025, 0.23, 0.35),  # half of it
    "lip_upper": Trait(0.055, 0.014, 0.025, 0.1),  # height
    "lip_lower": Trait(0.075, 0.016, 0.04, 0.12),  # height
    "lip_shade": Trait(0.72, 0.09, 0.5, 0.92),  # of the skin's albedo
    "skin": Trait(0.66, 0.17, 0.2, 0.9),  # albedo
    "hair_shade": Trait(0.16, 0.14, 0.03, 0.75),  # albedo
    "hairline": Trait(-0.86, 0.1, -1.15, -0.6),  # y
    "hair_length": Trait(0.5, 0.6, 0.0, 1.6),  # how far it hangs below the temples
    "beard": Trait(0.6, 0.25, 0.15, 1.0, share=0.2),
    "age": Trait(0.35, 0.25, 0.0, 1.0),  # depth of lines
    "glasses": Trait(1.0, 0.0, 0.0, 1.0, share=0.1),
}
"""What makes a person; the same in every picture of them."""

VIEW = {
    "yaw": Trait(0.0, 0.22, -0.6, 0.6),  # radians, positive to the right of the picture
    "pitch": Trait(0.0, 0.12, -0.35, 0.35),  # radians, positive down
    "roll": Trait(0.0, 0.12, -0.5, 0.5),  # radians, positive clockwise
    "scale": Trait(1.0, 0.08, 0.78, 1.25),
    "shift_x": Trait(0.0, 0.04, -0.12, 0.12),
    "shift_y": Trait(0.0, 0.05, -0.15, 0.15),
    "light_x": Trait(0.0, 0.55, -1.2, 1.2),  # where the light comes from; the viewer is at (0, 0, 1)
    "light_y": Trait(-0.45, 0.35, -1.2, 0.5),
    "ambient": Trait(0.45, 0.12, 0.15, 0.75),  # share of light from everywhere
    "exposure": Trait(1.0, 0.2, 0.55, 1.5),
    "background": Trait(0.5, 0.3, 0.02, 1.0),
    "background_slope": Trait(0.0, 0.25, -0.6, 0.6),
    "contrast": Trait(1.0, 0.15, 0.6, 1.4),
    "blur": Trait(0.3, 0.3, 0.0, 1.0),
    "noise": Trait(0.012, 0.012, 0.0, 0.05),  # standard deviation, of white
}
"""What makes a picture of them; new for each face."""


def _draw(table: dict[str, Trait], seed: int, stream: str, index: Tensor) -> dict[str, Tensor]:
    deviates = chance.normal(seed, stream, index, len(table)).unbind(-1)
    presence = chance.uniform(seed, stream + " presence", index, len(table)).unbind(-1)
    rows = zip(table.items(), deviates, presence, strict=True)
    return {name: _value(trait, z, u) for (name, trait), z, u in rows}


def _value(trait: Trait, deviate: Tensor, presence: Tensor) -> Tensor:
    value = (trait.mean + trait.spread * deviate).clamp(trait.low, trait.high)
    return torch.where(presence < trait.share, value, 0.0)


def identities(seed: int, subject: Tensor) -> dict[str, Tensor]:
    """Return the numbers of ``IDENTITY`` for each person, float32 ``[N]`` each.

    Args:
        seed: the seed of the set.
        subject: int64 ``[N]``; equal numbers give the same person.
    """
    return _draw(IDENTITY, seed, "identity", subject)


def views(seed: int, index: Tensor) -> dict[str, Tensor]:
    """Return the numbers of ``VIEW`` for each picture, float32 ``[N]`` each.

    Args:
        seed: the seed of the set.
        index: int64 ``[N]``, the faces.
    """
    return _draw(VIEW, seed, "view", index)


def average(
    table: dict[str, Trait], given: dict[str, Tensor | float] | None, like: Tensor
) -> dict[str, Tensor]:
    """Return a full set of numbers: the given ones, the mean for the others (0 where most have none).

    Args:
        table: ``IDENTITY`` or ``VIEW``.
        given: some of its names, a number or float ``[N]`` each.
        like: a tensor with N rows, for count, device and type.

    Raises:
        ValueError: a name is not in the table; the message gives the nearest one.
    """
    given = given or {}
    for name in given:
        if name not in table:
            raise ValueError(f"unknown trait {name!r}{did_you_mean(name, table)}; known: {', '.join(table)}")
    default = {name: trait.mean if trait.share > 0.5 else 0.0 for name, trait in table.items()}
    ones = torch.ones_like(like[:, 0])
    return {name: torch.as_tensor(value).to(ones) * ones for name, value in (default | given).items()}
