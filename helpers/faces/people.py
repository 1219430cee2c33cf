"""Who is drawn and how they are seen: everything random about a face, by tables of identity and view.

Lengths are in face units: the eyes of an average face lie 0.37 left and right of the middle and 0.17 above
it, its mouth 0.53 below, its chin at 1.0. A frame of scale 1 shows -1 to 1, the crop of FER2013. x goes
right, y down.

A random number is a hash of (seed, stream, index, counter), so face 7,000 is the same drawn alone or among
ten thousand others.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from helpers import emotions, one_of
from helpers.faces.truth import ACTION_UNITS, PROTOTYPES, answers, au_column, constant, rows

_MASK = 0xFFFFFFFF


def _mix(bits: Any) -> Any:  # an int or int64 numbers
    # "lowbias32" by Chris Wellons (public domain); products wrap in int64, the low 32 bits stay right
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D & _MASK
    bits = (bits ^ (bits >> 15)) * 0x846CA68B & _MASK
    return bits ^ (bits >> 16)


def uniform(seed: int, stream: str, index: Tensor, num: int) -> Tensor:
    """Return float32 ``[N, num]``, uniform on (0, 1), for faces or people ``[N]``; no two streams agree."""
    key = _mix(_mix(seed & _MASK) ^ zlib.crc32(stream.encode()))
    row = _mix(_mix(index & _MASK) ^ key)
    counter = _mix(torch.arange(1, num + 1, device=index.device) * 0x9E3779B9 & _MASK)
    return ((_mix(row[:, None] ^ counter) >> 8).float() + 0.5) / 2**24


def normal(seed: int, stream: str, index: Tensor, num: int) -> Tensor:
    """Return float32 ``[N, num]``, standard normal, as :func:`uniform`."""
    return torch.special.ndtri(uniform(seed, stream, index, num))


class Trait(NamedTuple):
    """One number of a person or a view: normal, cut to a range, and 0 in all but a share of the draws."""

    mean: float
    spread: float
    low: float
    high: float
    share: float = 1.0


IDENTITY = {
    "face_width": Trait(0.8, 0.05, 0.68, 0.93),  # half the width at the cheekbones
    "jaw": Trait(0.79, 0.06, 0.66, 0.92),  # width at the mouth, a share of the width at the cheekbones
    "chin_y": Trait(1.0, 0.05, 0.88, 1.12),
    "eye_x": Trait(0.365, 0.02, 0.31, 0.42),  # half the distance of the pupils
    "eye_y": Trait(-0.165, 0.03, -0.25, -0.08),
    "eye_width": Trait(0.165, 0.014, 0.125, 0.205),  # half the width of an eye
    "eye_open": Trait(0.064, 0.014, 0.034, 0.105),  # half its opening at rest
    "eye_tilt": Trait(0.006, 0.014, -0.03, 0.035),  # how much higher the outer corner lies
    "eye_bags": Trait(0.25, 0.2, 0.0, 0.9),  # how dark
    "crease": Trait(0.05, 0.018, 0.015, 0.09),  # how far the fold lies above the upper lid
    "iris": Trait(0.076, 0.006, 0.06, 0.092),  # radius
    "iris_shade": Trait(0.13, 0.1, 0.04, 0.5),  # albedo
    "brow_y": Trait(-0.33, 0.042, -0.44, -0.25),
    "brow_inner": Trait(0.11, 0.03, 0.04, 0.18),  # x of the inner end
    "brow_length": Trait(0.49, 0.03, 0.4, 0.56),
    "brow_thickness": Trait(0.04, 0.013, 0.014, 0.075),  # half of it
    "brow_arch": Trait(0.045, 0.025, -0.01, 0.1),
    "brow_tilt": Trait(0.005, 0.036, -0.06, 0.09),  # how much higher the outer end lies
    "brow_density": Trait(0.75, 0.2, 0.2, 1.0),
    "nose_y": Trait(0.215, 0.04, 0.12, 0.31),  # the tip
    "nose_width": Trait(0.17, 0.024, 0.12, 0.24),  # half of it
    "nose_height": Trait(1.0, 0.25, 0.45, 1.6),  # how far it stands out, relative
    "cheekbones": Trait(1.0, 0.4, 0.2, 2.0),  # how far they stand out, relative
    "deep_eyes": Trait(1.0, 0.35, 0.3, 1.9),  # how deep the sockets are, relative
    "mouth_y": Trait(0.525, 0.032, 0.45, 0.62),
    "mouth_width": Trait(0.285, 0.028, 0.22, 0.35),  # half of it
    "mouth_curve": Trait(0.0, 0.02, -0.045, 0.045),  # how much higher the corners lie at rest
    "lip_upper": Trait(0.06, 0.016, 0.025, 0.105),  # height
    "lip_lower": Trait(0.075, 0.018, 0.035, 0.13),  # height
    "lip_shade": Trait(0.84, 0.1, 0.5, 1.05),  # of the skin's albedo
    "teeth": Trait(0.85, 0.12, 0.5, 1.1),  # albedo
    "skin": Trait(0.6, 0.16, 0.2, 0.9),  # albedo
    "skin_texture": Trait(0.035, 0.02, 0.0, 0.1),
    "shine": Trait(0.08, 0.08, 0.0, 0.35),
    "hair_shade": Trait(0.28, 0.22, 0.02, 0.85),  # albedo
    "hair_contrast": Trait(0.22, 0.12, 0.05, 0.6),  # of the strands
    "hairline": Trait(-0.93, 0.12, -1.2, -0.68),  # y
    "hairline_round": Trait(0.9, 0.5, 0.0, 2.2),  # how fast it falls to the temples
    "hair_volume": Trait(0.14, 0.1, 0.02, 0.5),  # how far it stands out
    "hair_length": Trait(0.9, 0.5, 0.1, 2.0, share=0.38),  # how far it hangs below the temples
    "fringe": Trait(0.3, 0.1, 0.1, 0.5, share=0.2),  # how far it falls over the forehead
    "hair_close": Trait(0.5, 0.4, 0.0, 1.4),  # how far long hair hides the cheeks
    "parting": Trait(0.0, 0.3, -0.6, 0.6),  # x
    "bald": Trait(1.0, 0.0, 0.0, 1.0, share=0.07),
    "beard": Trait(0.55, 0.3, 0.1, 1.0, share=0.22),
    "moustache": Trait(0.6, 0.25, 0.2, 1.0, share=0.15),
    "age": Trait(0.35, 0.28, 0.0, 1.0),  # depth of lines
    "make_up": Trait(0.5, 0.25, 0.1, 1.0, share=0.25),
    "glasses": Trait(0.8, 0.2, 0.3, 1.0, share=0.1),
    "child": Trait(0.7, 0.25, 0.2, 1.0, share=0.14),  # 0 grown up, 1 a small child
    "lids_down": Trait(0.0, 0.1, 0.0, 0.3),  # how far the lids hang, a share of the opening
    "expressive": Trait(1.0, 0.12, 0.7, 1.3),  # how far the face moves for the same action unit
}
"""What makes a person; the same in every image of them."""

VIEW = {
    "yaw": Trait(0.0, 0.19, -0.7, 0.7),  # radians, positive to the right of the image
    "pitch": Trait(0.0, 0.12, -0.4, 0.4),  # radians, positive down
    "roll": Trait(0.0, 0.11, -0.45, 0.45),  # radians, positive clockwise
    "scale": Trait(1.08, 0.07, 0.85, 1.3),
    "shift_x": Trait(0.0, 0.035, -0.12, 0.12),
    "shift_y": Trait(0.0, 0.04, -0.12, 0.12),
    "gaze_x": Trait(0.0, 0.3, -1.0, 1.0),  # shares of the way from the middle to the corner of the eye
    "gaze_y": Trait(0.05, 0.2, -0.5, 0.7),  # positive down
    "light_x": Trait(0.0, 0.5, -1.4, 1.4),  # where the light comes from; the viewer is at (0, 0, 1)
    "light_y": Trait(-0.4, 0.4, -1.3, 0.6),
    "relief": Trait(0.9, 0.28, 0.25, 1.6),  # how strongly light and shadow show the shape
    "ambient": Trait(0.45, 0.15, 0.12, 0.8),  # share of light from everywhere
    "exposure": Trait(1.1, 0.18, 0.6, 1.5),
    "background": Trait(0.58, 0.32, 0.02, 1.0),
    "background_slope": Trait(0.0, 0.2, -0.5, 0.5),
    "background_texture": Trait(0.1, 0.12, 0.0, 0.4),
    "neck": Trait(0.75, 0.2, 0.3, 1.1),  # brightness, relative to the face
    "clothes": Trait(0.35, 0.3, 0.03, 0.95),  # albedo
    "contrast": Trait(1.0, 0.17, 0.6, 1.5),
    "blur": Trait(-0.15, 0.45, -1.0, 1.0),  # share of a 3 × 3 mean; below 0 it sharpens
    "noise": Trait(0.003, 0.009, 0.0, 0.035),  # standard deviation, of white
    "hand": Trait(1.0, 0.0, 0.0, 1.0, share=0.2),  # before the face
    "hand_x": Trait(0.0, 0.5, -0.9, 0.9),
    "hand_y": Trait(0.85, 0.2, 0.45, 1.2),
    "strand": Trait(0.8, 0.2, 0.3, 1.0, share=0.04),  # of hair, across the face
    "watermark": Trait(0.4, 0.12, 0.15, 0.65, share=0.07),
    "watermark_y": Trait(0.3, 0.35, -0.8, 0.9),
}
"""What makes an image of them; new for each face."""


def _draw(table: dict[str, Trait], seed: int, stream: str, index: Tensor) -> dict[str, Tensor]:
    deviates = normal(seed, stream, index, len(table)).unbind(-1)
    presence = uniform(seed, stream + " presence", index, len(table)).unbind(-1)
    drawn = {}
    for (name, trait), deviate, chance in zip(table.items(), deviates, presence, strict=True):
        value = (trait.mean + trait.spread * deviate).clamp(trait.low, trait.high)
        drawn[name] = torch.where(chance < trait.share, value, 0.0)
    return drawn


def identities(seed: int, subject: Tensor) -> dict[str, Tensor]:
    """Return the numbers of ``IDENTITY``, float32 ``[N]`` each, for people ``[N]`` of a seed."""
    p = _draw(IDENTITY, seed, "identity", subject)
    child, grown = p["child"], p["child"] == 0
    smaller = {"brow_thickness": 0.5, "nose_height": 0.5, "jaw": -0.06, "mouth_width": 0.12}
    smaller |= {"nose_width": 0.15, "age": 1, "iris": -0.12, "eye_open": -0.15}
    p |= {name: p[name] * (1 - share * child) for name, share in smaller.items()}
    p |= {name: p[name] + by * child for name, by in (("eye_y", 0.06), ("brow_y", 0.06), ("nose_y", 0.03))}
    fair = ((p["skin"] - 0.25) / 0.35).clamp(0.15, 1)  # few are both dark and fair-haired
    p |= {"shine": p["shine"] * grown, "hair_shade": p["hair_shade"] * fair}
    # towards 1: a heavy jaw and brow, short hair, perhaps a beard
    heavy = torch.sigmoid(2 * normal(seed, "build", subject, 1)[:, 0])
    p |= {name: p[name] * ((heavy < 0.6) | ~grown) for name in ("make_up", "hair_length")}
    return p | {name: p[name] * (heavy > 0.4) * grown for name in ("beard", "moustache", "bald")}


def views(seed: int, index: Tensor) -> dict[str, Tensor]:
    """Return the numbers of ``VIEW``, float32 ``[N]`` each, for faces ``[N]`` of a seed."""
    return _draw(VIEW, seed, "view", index)


def moving(sides: Tensor, person: dict[str, Tensor]) -> Tensor:
    """Return how far this person's face moves for these intensities."""
    return (sides * person["expressive"][:, None, None]).clamp(0, 1.2)


def bearing(view: dict[str, Tensor], person: dict[str, Tensor], units: Tensor) -> tuple[dict, dict]:
    """Return view and person as action units ``[N, 17]`` make them.

    Sad mouths and worried brows look down, lids follow the gaze, and hands go to raised inner brows. Labels
    depend on the action units alone, so this adds nothing that a label could be told from.
    """
    inner_brow, frown, lids, pull = (units[:, au_column(name)] for name in ("AU1", "AU4", "AU5", "AU15"))
    low = (0.6 * pull + 0.9 * (inner_brow * frown) * (1 - lids)).clamp(max=1)
    gaze = view["gaze_y"] + 0.5 * low
    moved = (inner_brow > 0.3) | (view["gaze_x"] > 0.25)
    view = view | {"pitch": view["pitch"] + 0.2 * low, "gaze_y": gaze, "hand": view["hand"] * moved}
    return view, person | {"lids_down": person["lids_down"] + 0.15 * low + (gaze - 0.3).clamp(0, 0.8)}


def draw_action_units(seed: int, index: Tensor, balance: Tensor) -> Tensor:
    """Return random action units ``[N, 17, 2]`` of the left and the right of the image, in [0, 1].

    An expression is drawn by the shares ``[7]`` of ``balance``, in one face of five mixed with a second one.
    Its strength varies; each unit is left out now and then, others come in, and the sides differ a little.
    """
    num = len(ACTION_UNITS)
    share = torch.stack([balance[emotions.FER7.index(name)] * part for name, part, _ in PROTOTYPES])
    prototypes = constant(rows(*(units for _, _, units in PROTOTYPES)), balance)
    chances = uniform(seed, "expression", index, 5)
    intended = answers(share.expand(len(index), -1), chances[:, :2])
    blend = torch.where(chances[:, 2] < 1 / 5, 0.2 + 0.3 * chances[:, 3], 0.0)[:, None]
    mean = (1 - blend) * prototypes[intended[:, 0]] + blend * prototypes[intended[:, 1]]
    strength = (0.3 + 1.1 * chances[:, 4:5] ** 0.8).clamp(max=1)
    present, factor = uniform(seed, "variation", index, 2 * num).chunk(2, -1)
    stray, height = uniform(seed, "strays", index, 2 * num).chunk(2, -1)
    level = mean * strength * ((present < 0.92) * (0.7 + 0.6 * factor)) + (stray < 0.05) * 0.55 * height
    tilt = 0.12 * normal(seed, "asymmetry", index, num)
    tilt[:, au_column("AU14")] *= 6  # a dimple is mostly on one side
    return torch.stack([level * (1 + tilt), level * (1 - tilt)], -1).clamp(0, 1)


def average(table: dict[str, Trait], chosen: dict[str, Tensor | float], like: Tensor) -> dict[str, Tensor]:
    """Return all numbers of a table for the rows of ``like``: those chosen, else the mean, 0 if rare."""
    default = {name: trait.mean if trait.share > 0.5 else 0.0 for name, trait in table.items()}
    numbers = default | {one_of("trait", name, table): value for name, value in chosen.items()}
    ones = torch.ones_like(like[:, 0])
    return {name: torch.as_tensor(value).to(ones) * ones for name, value in numbers.items()}
