"""The 68 landmarks in the iBUG order: read off the curves that are painted, seen by the same camera."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from helpers.faces import camera
from helpers.faces.shape import Shape, brow, lids, lips, outline

_OUTWARD = (1.0, 0.75, 0.5, 0.25, 0.0)  # along a brow
_NOSTRILS = (-0.8, -0.42, 0.0, 0.42, 0.8)  # shares of half the nose's width
_OUTER_LIP = (-1.0, -0.66, -0.24, 0.0, 0.24, 0.66, 1.0)  # shares of half the mouth's width
_INNER_LIP = (-0.9, -0.4, 0.0, 0.4, 0.9)


class _Reader:
    def __init__(self, units: Tensor, person: dict[str, Tensor]) -> None:
        self.units, self.person = units, person
        self.sides = self.at(torch.tensor([-1.0, 1.0], device=units.device).expand(len(units), 1, 2))

    def at(self, x: Tensor) -> Shape:
        return Shape(x, self.units, self.person)

    def of_side(self, part: str, x: Tensor) -> Tensor:
        """How far a part is moved on the side of each column, not blended over the nose."""
        left, right = self.sides.move(part).split(1, -1)
        return torch.where(x < 0, left, right)


def _brows(r: _Reader) -> tuple[Tensor, Tensor]:
    p = r.sides.person
    along = torch.tensor([*_OUTWARD, *_OUTWARD[::-1]], device=r.units.device) * 0.82 + 0.05
    sign = torch.tensor([-1.0] * 5 + [1.0] * 5, device=along.device)
    x = sign * (p.brow_inner + p.brow_length * along - r.of_side("brows together", sign))
    return x, brow(r.at(x))[0]


def _nose(r: _Reader) -> tuple[Tensor, Tensor]:
    p = r.sides.person
    tip = p.nose_y - r.sides.mean("nose up")
    bridge = tip - (tip - p.eye_y) * torch.tensor([1.0, 0.66, 0.33, 0.0], device=tip.device)
    share = torch.tensor(_NOSTRILS, device=tip.device)
    below = tip + torch.tensor([0.075, 0.1, 0.115, 0.1, 0.075], device=tip.device)
    x = p.nose_width * share * (1 + r.of_side("nostrils wide", share))
    return torch.cat([0 * bridge, x], -1), torch.cat([bridge, below], -1)


def _eyes(r: _Reader) -> tuple[Tensor, Tensor]:
    p = r.sides.person
    across = torch.tensor(
        [1, 0.35, -0.35, -1, -0.35, 0.35, -1, -0.35, 0.35, 1, 0.35, -0.35], device=r.units.device
    )
    sign = torch.tensor([-1.0] * 6 + [1.0] * 6, device=across.device)
    x = sign * (p.eye_x + across * p.eye_width)
    upper, lower, _ = lids(r.at(x))
    rim = torch.tensor([0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1], device=across.device, dtype=torch.bool)
    return x, torch.where(rim, lower, upper)


def _mouth(r: _Reader) -> tuple[Tensor, Tensor]:
    outer, inner = _OUTER_LIP[5:0:-1], _INNER_LIP[3:0:-1]
    share = torch.tensor([*_OUTER_LIP, *outer, *_INNER_LIP, *inner], device=r.units.device)
    x = share * (r.sides.person.mouth_width + r.of_side("corner out", share))
    part = lips(r.at(x))
    rows = torch.stack([part.top, part.bottom, part.inner_up, part.inner_down])
    pick = torch.tensor([0] * 7 + [1] * 5 + [2] * 5 + [3] * 3, device=x.device)
    return x, rows.gather(0, pick.expand_as(x)[None])[0]


def _jaw(p: SimpleNamespace, v: SimpleNamespace, drop: Tensor) -> tuple[Tensor, Tensor]:
    angle = (
        torch.linspace(-1.0, 1.0, 17, device=drop.device) * 1.66
    )  # a little above the widest place, down to the chin
    w = -0.1 + (p.chin_y + drop + 0.1) * torch.cos(angle)
    half, _ = outline(w, p, drop)
    y = w.expand_as(half)
    for _ in range(8):  # the tilt of the head is undone by repeating the camera's own formula
        y = w + camera.tilt(y, v)
    aside = half * angle.sign() * (angle.abs() > 1e-6)
    return aside + camera.chin_shift(w, v), y


def _beside_head(
    u: Tensor, w: Tensor, p: SimpleNamespace, v: SimpleNamespace, drop: Tensor
) -> tuple[Tensor, Tensor]:
    """Where a point of the sheet is seen: the camera's map, undone by repeated correction."""
    x, y = u + torch.sin(v.yaw) * 0.8, w + camera.tilt(w, v)
    for _ in range(14):  # within a tenth of a pixel at 48 pixels
        place = camera.turned(x, y, p, v, drop)
        x, y = x + 0.8 * (u - place.u), y + 0.8 * (w - place.w)
    return x, y


def landmarks(units: Tensor, person: dict[str, Tensor], view: dict[str, Tensor], size: int) -> Tensor:
    """Return the 68 landmarks of each face, float32 ``[N, 68, 2]``: (x, y) in pixels, pixel centres at whole
    numbers.

    Points on the jaw lie on the visible outline of the head, the others on the skin, hidden or not.

    Args:
        units: float ``[N, 17, 2]``, action units of the left and the right of the picture.
        person: the numbers of ``people.IDENTITY``, float ``[N]`` each.
        view: the numbers of ``people.VIEW``, float ``[N]`` each.
        size: pixels along a side.
    """
    reader, v, drop = _Reader(units, person), camera.named(view), camera.jaw_drop(units)
    parts = [_brows(reader), _nose(reader), _eyes(reader), _mouth(reader)]
    u, w = (torch.cat(axis, -1) for axis in zip(*parts, strict=True))
    p = reader.sides.person
    places = zip(_jaw(p, v, drop), _beside_head(u, w, p, v, drop), strict=True)
    x, y = (torch.cat(pair, -1) for pair in places)
    cos, sin = torch.cos(v.roll) * v.scale, torch.sin(v.roll) * v.scale
    seen = torch.stack([x * cos - y * sin + v.shift_x, x * sin + y * cos + v.shift_y], -1)[:, 0]
    return (seen + 1) * size / 2 - 0.5
