"""From action units, a person and a view to pixels.

A face is painted on a flat canvas in face units (see :mod:`helpers.faces.people`), lit as if the canvas were curved,
then seen: turned, tilted, scaled, put before a background, blurred.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from helpers.faces.truth import ACTION_UNITS

CANVAS = 1.25  # the canvas shows -1.25 to 1.25 face units
SUPERSAMPLE = 2  # screen samples per pixel and axis


class Face:
    """A painted canvas, with what the painters need: coordinates, action units of each side, the person.

    Args:
        units: float ``[N, 17, 2]``, action units of the left and the right of the picture.
        person: the numbers of ``people.IDENTITY``, float ``[N]`` each.
        resolution: pixels along a side of the canvas.
    """

    def __init__(self, units: Tensor, person: dict[str, Tensor], resolution: int) -> None:
        step = 2 * CANVAS / resolution
        axis = (torch.arange(resolution, device=units.device) + 0.5) * step - CANVAS
        self.x, self.y = axis[None, None, :], axis[None, :, None]
        self.pixel = step
        self.person = {name: value[:, None, None] for name, value in person.items()}
        self._units = units[:, :, None, :, None]
        self.albedo = self.person["skin"] * torch.ones(1, resolution, resolution, device=units.device)
        self.height = torch.zeros_like(self.albedo)

    def unit(self, number: int) -> Tensor:
        """Return an action unit for each column, ``[N, 1, W]``: the left one left of the middle, blended in between."""
        left, right = self._units[:, ACTION_UNITS.index(f"AU{number}")].unbind(2)
        side = (self.x / 0.2).clamp(-1, 1) / 2 + 0.5
        return left * (1 - side) + right * side

    def mean(self, number: int) -> Tensor:
        """Return the mean of both sides of an action unit, ``[N, 1, 1]``."""
        return self._units[:, ACTION_UNITS.index(f"AU{number}")].mean(2)

    def paint(self, cover: Tensor, shade: Tensor | float) -> None:
        """Lay a colour over the canvas where ``cover`` is 1."""
        self.albedo = self.albedo + cover * (shade - self.albedo)

    def below(self, curve: Tensor, softness: float = 0.0) -> Tensor:
        """Return 1 where y lies below a curve ``[N, 1, W]``, anti-aliased over one canvas pixel or ``softness``."""
        return ((self.y - curve) / max(self.pixel, softness) + 0.5).clamp(0, 1)

    def stroke(self, curve: Tensor, half_width: Tensor | float) -> Tensor:
        """Return a soft line along a curve ``[N, 1, W]``."""
        return torch.exp(-(((self.y - curve) / half_width) ** 2))


def jaw(y: Tensor, person: dict[str, Tensor], drop: Tensor) -> Tensor:
    """Return half the width of the head at each height."""
    chin = person["chin_y"] + drop
    upper = person["face_width"] * (1 - ((y + 0.15).clamp(max=0) / 1.1) ** 2).clamp(min=0.0).sqrt()
    t = ((y + 0.15) / (chin + 0.15)).clamp(0, 1)
    bulge = person["jaw_width"] / person["face_width"]
    return torch.where(
        y < -0.15, upper, person["face_width"] * (1 - t ** (2.2 + 3 * (bulge - 0.6))).clamp(min=0).sqrt()
    )


def _brows(face: Face) -> None:
    p, u = face.person, face.unit
    t = (face.x.abs() - 0.12) / 0.46  # 0 at the inner end, 1 at the outer
    inner, outer = (1 - t).clamp(0, 1), t.clamp(0, 1)
    lift = u(1) * 0.13 * inner + u(2) * 0.12 * outer - u(4) * (0.1 * inner + 0.03) - u(9) * 0.05 * inner
    curve = p["brow_y"] - lift - p["brow_arch"] * (1 - (2 * t - 1.2) ** 2)
    reach = ((t + 0.05 + 0.12 * u(4)) / 0.08).clamp(0, 1) * ((1.0 - t) / 0.25).clamp(0, 1)
    face.paint(face.stroke(curve, p["brow_thickness"]) * reach * 0.85, p["hair_shade"] * 0.7)


def _eyes(face: Face) -> None:
    p, u = face.person, face.unit
    t = (face.x.abs() - p["eye_x"]) / p["eye_width"]
    arch = (1 - t**2).clamp(min=0)
    opening = p["eye_open"] * (1 + 0.75 * u(5) - 0.25 * u(7) - 0.15 * u(6))
    axis = p["eye_y"] - p["eye_tilt"] * t
    upper = axis - opening * arch
    lower = axis + opening * 0.75 * arch * (1 - 0.35 * u(6) - 0.4 * u(7))
    inside = face.below(upper) * (1 - face.below(lower)) * (t.abs() < 1)
    face.paint(inside, 0.85)
    radius = ((t * p["eye_width"]) ** 2 + (face.y - axis) ** 2).sqrt()
    disc = ((p["iris"] - radius) / face.pixel + 0.5).clamp(0, 1)
    pupil = ((p["iris"] * 0.45 - radius) / face.pixel + 0.5).clamp(0, 1)
    face.paint(inside * disc, p["iris_shade"])
    face.paint(inside * pupil, 0.03)
    near = (t.abs() < 1.12).float()
    face.paint(face.stroke(upper, 0.022) * near * 0.8, 0.1)
    face.paint(face.stroke(lower, 0.015) * near * 0.4, p["skin"] * 0.5)
    face.paint(face.stroke(upper - 0.06, 0.02) * near * 0.35, p["skin"] * 0.5)


def _nose(face: Face) -> None:
    p = face.person
    tip = p["nose_y"] - 0.03 * face.mean(9)
    t = face.x / p["nose_width"]
    face.height += (
        0.12 * torch.exp(-((face.x / 0.09) ** 2)) * face.below(tip - 0.4, 0.4) * (1 - face.below(tip, 0.1))
    )
    face.height += 0.06 * torch.exp(-(t**2) * 1.5 - ((face.y - tip) / 0.1) ** 2)
    hole = torch.exp(
        -(((face.x.abs() - 0.5 * p["nose_width"]) / 0.04) ** 2) - ((face.y - tip - 0.07) / 0.025) ** 2
    )
    face.paint(hole * 0.75, p["skin"] * 0.25)
    wrinkle = face.stroke(-0.2 + 0 * face.x, 0.02) + face.stroke(-0.12 + 0 * face.x, 0.02)
    face.paint(wrinkle * face.unit(9) * 0.5 * torch.exp(-((face.x / 0.12) ** 2)), p["skin"] * 0.5)


def _cheeks(face: Face) -> None:
    u, p = face.unit, face.person
    fold = p["nose_width"] + 0.06 + 0.25 * (face.y - p["nose_y"]) + 0.08 * u(12)
    along = torch.exp(-(((face.y - 0.4) / 0.16) ** 2))
    depth = 0.12 + 0.2 * p["age"] + 0.5 * u(12) + 0.5 * u(10) + 0.4 * u(9) + 0.2 * u(14)
    face.paint(
        torch.exp(-(((face.x.abs() - fold) / 0.03) ** 2)) * along * depth.clamp(0, 0.8), p["skin"] * 0.45
    )
    frown = torch.exp(-(((face.x.abs() - 0.06) / 0.02) ** 2) - ((face.y + 0.42) / 0.08) ** 2)
    face.paint(frown * (u(4) * 0.6 + 0.1 * p["age"]), p["skin"] * 0.45)


def _mouth(face: Face) -> None:
    p, u, m = face.person, face.unit, face.mean
    half = p["mouth_width"] * (1 + 0.22 * u(12) + 0.18 * u(20) - 0.15 * m(26) - 0.08 * u(24) + 0.05 * u(14))
    t = (face.x / half).clamp(-1.3, 1.3)
    arch = (1 - t**2).clamp(min=0)
    corner = 0.1 * u(12) - 0.09 * u(15) + 0.02 * u(14) - 0.03 * u(20)
    middle = p["mouth_y"] - corner * t**2 + 0.03 * m(12) - 0.03 * m(17) - 0.02 * m(9)
    part = 0.04 * m(25) + 0.02 * m(10)
    upper_in = middle - (part + 0.02 * m(12) * m(25)) * arch
    lower_in = middle + (part + 0.27 * m(26)) * arch
    thin = 1 - 0.45 * m(23) - 0.6 * m(24) - 0.25 * m(12)
    top = upper_in - p["lip_upper"] * thin * arch * (1 - 0.2 * torch.exp(-((face.x / 0.05) ** 2)))
    bottom = lower_in + p["lip_lower"] * thin * arch.sqrt()
    within = (t.abs() < 1).float()
    face.paint(face.below(top) * (1 - face.below(bottom)) * within, p["skin"] * p["lip_shade"])
    hollow = face.below(upper_in) * (1 - face.below(lower_in)) * within
    face.paint(hollow, 0.06)
    teeth = (
        hollow
        * (1 - face.below(upper_in + 0.07, 0.02))
        * (0.3 + 0.7 * m(12) + 0.5 * m(20) + 0.5 * m(10)).clamp(max=1)
    )
    face.paint(teeth, 0.85)
    face.paint(
        face.stroke(middle, 0.014) * (t.abs() < 1.05) * (1 - hollow) * (0.7 - 2 * part).clamp(0.1), 0.12
    )
    face.height += 0.03 * face.stroke(bottom + 0.02, 0.05) * arch


def _beard(face: Face) -> None:
    p = face.person
    area = face.below(0.35 + 0.0 * face.x, 0.2) * (face.x.abs() > 0).float()
    edge = ((face.x.abs() / p["face_width"]) ** 2 + ((face.y - 0.1) / 0.9) ** 2 - 0.25).clamp(0, 0.2) / 0.2
    face.paint(area * edge * p["beard"] * 0.7, p["hair_shade"])


def _hair(face: Face) -> None:
    p = face.person
    line = p["hairline"] + 0.9 * (face.x.abs() - 0.35).clamp(min=0)
    face.paint(1 - face.below(line, 0.06), p["hair_shade"])
    face.paint(
        ((face.x.abs() - 0.92 * p["face_width"]) / 0.06).clamp(0, 1) * (p["hair_length"] > 0.3),
        p["hair_shade"],
    )


def _glasses(face: Face) -> None:
    p = face.person
    dx, dy = face.x.abs() - p["eye_x"], face.y - p["eye_y"] - 0.02
    ring = ((dx / 0.26).abs() ** 3 + (dy / 0.17).abs() ** 3 + 1e-6) ** (1 / 3)
    bridge = torch.exp(-(((face.y - p["eye_y"] + 0.03) / 0.02) ** 2)) * (face.x.abs() < 0.11)
    frame = torch.exp(-(((ring - 1) / 0.09) ** 2)).maximum(bridge)
    face.paint(frame * 0.9 * p["glasses"], 0.08)


_PAINTERS = (_nose, _cheeks, _mouth, _eyes, _beard, _brows, _hair, _glasses)


def canvas(units: Tensor, person: dict[str, Tensor], resolution: int) -> Face:
    """Paint faces from the front, unlit.

    Args:
        units: float ``[N, 17, 2]``, action units of the left and the right of the picture, in [0, 1].
        person: the numbers of ``people.IDENTITY``, float ``[N]`` each.
        resolution: pixels along a side of the canvas.
    """
    face = Face(units, person, resolution)
    for painter in _PAINTERS:
        painter(face)
    return face


def lit(face: Face, view: dict[str, Tensor]) -> Tensor:
    """Return the canvas under a light (Lambert), ``[N, 1, H, W]``.

    Args:
        face: the painted canvas.
        view: the numbers of ``people.VIEW``, float ``[N]`` each.
    """
    v = {name: value[:, None, None] for name, value in view.items()}
    slope_x = torch.gradient(face.height, spacing=face.pixel, dim=2)[0] - face.x
    slope_y = torch.gradient(face.height, spacing=face.pixel, dim=1)[0] - 0.6 * face.y
    light_x, light_y = v["light_x"] - torch.sin(v["yaw"]), v["light_y"]
    strength = (light_x**2 + light_y**2 + 1).sqrt()
    lambert = (1 - slope_x * light_x - slope_y * light_y) / (1 + slope_x**2 + slope_y**2).sqrt() / strength
    return (face.albedo * (v["ambient"] + (1 - v["ambient"]) * lambert.clamp(min=0) * 1.1) * v["exposure"])[
        :, None
    ]


def _screen(size: int, view: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    num = size * SUPERSAMPLE
    axis = (torch.arange(num, device=view["yaw"].device) + 0.5) * 2 / num - 1
    x, y = axis[None, None, :] - view["shift_x"], axis[None, :, None] - view["shift_y"]
    cos, sin = torch.cos(view["roll"]), torch.sin(view["roll"])
    return (x * cos + y * sin) / view["scale"], (y * cos - x * sin) / view["scale"]


def _turn(
    x: Tensor, y: Tensor, person: dict[str, Tensor], view: dict[str, Tensor], drop: Tensor
) -> tuple[Tensor, ...]:
    y = y - 0.35 * torch.sin(view["pitch"]) * (1 - 0.5 * y**2)
    half = jaw(y, person, drop)
    centre = torch.sin(view["yaw"]) * 0.25 * (y + 0.3).clamp(0, 1)
    sine = ((x - centre) / half.clamp(min=0.3)).clamp(-1, 1)
    angle = torch.asin(sine) - view["yaw"]
    inside = ((half - (x - centre).abs()) / 0.03 + 0.5).clamp(0, 1)
    return torch.sin(angle.clamp(-1.5, 1.5)) * half.clamp(min=0.3), y, inside


def seen(paint: Tensor, units: Tensor, person: dict, view: dict, size: int) -> Tensor:
    """Return the canvas as the camera sees it, ``[N, C, size, size]`` in [0, 1].

    Args:
        paint: the lit canvas, ``[N, C, H, W]``.
        units: float ``[N, 17, 2]``, action units.
        person: the numbers of ``people.IDENTITY``, float ``[N]`` each.
        view: the numbers of ``people.VIEW``, float ``[N]`` each.
        size: pixels along a side.
    """
    p = {name: value[:, None, None] for name, value in person.items()}
    v = {name: value[:, None, None] for name, value in view.items()}
    drop = 0.16 * units[:, ACTION_UNITS.index("AU26")].mean(-1)[:, None, None]
    x, y = _screen(size, v)
    u, w, inside = _turn(x, y, p, v, drop)
    grid = torch.stack(torch.broadcast_tensors(u, w), -1) / CANVAS
    face = functional.grid_sample(paint, grid, align_corners=False, padding_mode="border")
    back = (v["background"] + v["background_slope"] * x).clamp(0, 1)
    mane = (1 - ((x / 1.02) ** 2 + ((y + 0.2) / 1.05) ** 2)).clamp(-0.1, 0) / 0.1 + 1
    long = ((1.0 - x.abs()) / 0.1).clamp(0, 1) * (y > -0.2) * ((p["hair_length"] - y) / 0.1).clamp(0, 1)
    back = back + torch.maximum(mane * (y < 0.1 + p["hair_length"]), long) * (p["hair_shade"] - back)
    image = back[:, None] + inside[:, None] * (face - back[:, None])
    return functional.avg_pool2d(image, SUPERSAMPLE)
