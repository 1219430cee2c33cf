"""Where everything lies on a face: curves that are painted and that landmarks sit on, moved by action units.

A face is described from the front on a flat sheet, in face units (see :mod:`helpers.faces.people`). Curves
are heights y over columns x, so a curve costs a row of numbers, not an image.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from helpers.faces.truth import constant, rows

MOVES = {
    "brow": {
        "inner brow up": {1: 0.155, 4: -0.09, 9: -0.04},  # face units, as are all lengths
        "middle brow up": {1: 0.04, 2: 0.08, 4: -0.06, 5: 0.015},
        "outer brow up": {1: -0.045, 2: 0.11, 4: -0.03},
        "brows together": {4: 0.06, 9: 0.02},
        "forehead lines": {1: 0.22, 2: 0.22},  # how dark a line is, 0 to 1
        "frown lines": {4: 0.8},
    },
    "eye": {
        "upper lid up": {5: 1.0, 7: -0.22, 6: -0.15},  # share of the opening at rest
        "lower lid up": {6: 0.5, 7: 0.55, 9: 0.2, 5: -0.2},  # the same
        "cheek up": {6: 0.11},  # how far a bulge stands out
        "crow's feet": {6: 0.7},  # how dark
        "lid line": {6: 0.5, 7: 0.35},
        "outer corner down": {1: 0.03, 15: 0.015, 12: 0.008},
    },
    "nose": {
        "nose up": {9: 0.055, 10: 0.02},
        "nostrils wide": {9: 0.15, 10: 0.08},  # share of the width
        "nose wrinkles": {9: 0.9},  # how dark
    },
    "mouth": {
        "corner out": {12: 0.12, 14: 0.02, 15: 0.015, 20: 0.1, 26: -0.075, 24: -0.03, 10: 0.02, 23: -0.015},
        "corner up": {12: 0.14, 14: 0.03, 15: -0.075, 20: -0.03},
        "upper lip up": {10: 0.065, 9: 0.035, 12: 0.03, 25: 0.03, 26: 0.055},
        "lower lip down": {25: 0.07, 20: 0.025, 12: 0.025, 17: -0.03, 26: 0.3},
        "lips thin": {12: 0.25, 15: 0.1, 20: 0.3, 23: 0.5, 24: 0.7},  # share of their height
        "jaw down": {26: 0.22},
        "chin up": {17: 0.045, 12: 0.02},
        "smile cheek": {12: 0.1},  # how far a bulge stands out
        "nasolabial fold": {9: 0.55, 10: 0.6, 12: 0.7, 20: 0.15},  # how dark, as are the next four
        "dimple": {14: 0.9, 12: 0.6},
        "corner line": {15: 0.7, 20: 0.3},
        "chin pebbles": {17: 0.7, 24: 0.15},
    },
}
"""What each action unit (FACS number) does to each part of a region at full intensity; moves add up."""

REGIONS = tuple(MOVES)
"""The regions of the masks, in their order."""

_PARTS = {part: moves for parts in MOVES.values() for part, moves in parts.items()}
_ROW = {part: row for row, part in enumerate(_PARTS)}
_REACH = rows(*_PARTS.values())


def jaw_drop(units: Tensor) -> Tensor:
    """Return how far action units ``[N, 17, 2]`` pull the jaw down, ``[N, 1, 1]``."""
    by_side = torch.einsum("u,nus->ns", constant(_REACH, units)[_ROW["jaw down"]], units)
    return by_side.mean(1)[:, None, None]


def upright(numbers: dict[str, Tensor]) -> SimpleNamespace:
    """Return numbers ``[N]`` by name as attributes ``[N, 1, 1]``."""
    return SimpleNamespace(**{name: value[:, None, None] for name, value in numbers.items()})


class Shape:
    """Curves over columns x ``[N or 1, 1, W]`` of people, ``[N]`` each, with action units ``[N, 17, 2]``."""

    def __init__(self, x: Tensor, units: Tensor, person: dict[str, Tensor]) -> None:
        self.x, self.away, self.person = x, x.abs(), upright(person)
        self._side = (x / 0.3).clamp(-0.5, 0.5) + 0.5  # 0 on the left, 1 on the right, blended over the nose
        self._moves = torch.einsum("pu,nus->pns", constant(_REACH, units), units)[..., None, None]

    def move(self, part: str) -> Tensor:
        """Return how far a part is moved at each column, ``[N, 1, W]``."""
        left, right = self._moves[_ROW[part]].unbind(1)
        return left + (right - left) * self._side

    def mean(self, part: str) -> Tensor:
        """Return the mean move of both sides, ``[N, 1, 1]``."""
        return self._moves[_ROW[part]].mean(1)


def brow(s: Shape) -> tuple[Tensor, Tensor]:
    """Return the middle line of the brows and the place t along them: 0 at the inner end, 1 at the outer."""
    p = s.person
    t = (s.away - p.brow_inner + s.move("brows together")) / p.brow_length
    b = t.clamp(0, 1)  # the three lifts are the control points of a Bézier curve
    lift = (1 - b) ** 2 * s.move("inner brow up") + b**2 * s.move("outer brow up")
    lift = lift + 2 * b * (1 - b) * s.move("middle brow up")
    arch = p.brow_arch * (1 - ((t - 0.58) / 0.8) ** 2)
    return p.brow_y - lift - arch - p.brow_tilt * (t - 0.5), t


def lids(s: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Return the edges of the lids, and t across an eye: -1 at the inner corner, 1 at the outer."""
    p = s.person
    t = (s.away - p.eye_x) / p.eye_width
    axis = p.eye_y - (p.eye_tilt - 0.7 * s.move("outer corner down")) * t
    arch = (1 - t.abs() ** 2.2).clamp(min=0)
    upper = p.eye_open * (1 + s.move("upper lid up")) * (1 - p.lids_down)
    lower = p.eye_open * (0.75 - s.move("lower lid up")) * (1 + 0.5 * p.lids_down)
    return axis - upper * arch * (1 - 0.12 * t), axis + lower * arch * (1 + 0.1 * t), t


def lips(s: Shape) -> SimpleNamespace:
    """Return the edges of the lips, and t across them: 0 in the middle, -1 and 1 at the corners."""
    p = s.person
    t = (s.x / (p.mouth_width + s.move("corner out"))).clamp(-1.2, 1.2)
    arch = (1 - t**2).clamp(min=0)
    smile = s.move("corner up") * (t.abs() ** 1.7 - 0.15)
    line = p.mouth_y - smile - s.mean("chin up") - p.mouth_curve * t**2
    open_up = s.mean("upper lip up").clamp(min=0) * (0.5 * arch + 0.5 * arch.sqrt())
    open_down = s.mean("lower lip down").clamp(min=0) * (0.3 * arch + 0.7 * arch.sqrt())
    apart = ((s.mean("lower lip down") - 0.008) / 0.03).clamp(0, 1)  # lips that do not part rise together
    full = 1 - s.move("lips thin").clamp(max=0.85)
    inner_up, inner_down = line - open_up * apart, line + open_down * apart
    bow = 1 - 0.22 * torch.exp(-((s.x / 0.05) ** 2)) + 0.1 * torch.exp(-(((s.away - 0.09) / 0.05) ** 2))
    upper = p.lip_upper * full * (0.35 * arch + 0.65 * arch.sqrt()) * bow
    bottom = inner_down + p.lip_lower * full * arch.sqrt() * (0.6 + 0.4 * arch)
    edges = {"top": inner_up - upper - open_up * (1 - apart) * 0.6, "bottom": bottom, "line": line}
    return SimpleNamespace(**edges, inner_up=inner_up, inner_down=inner_down, t=t, arch=arch)


def outline(y: Tensor, p: SimpleNamespace, drop: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return half the width of the head at heights y, and its slope; the jaw drops."""
    widest = -0.1  # the square of the width is a curve of the fourth power of the way from there
    low = y > widest
    reach = torch.where(low, p.chin_y + drop - widest, 1.2)  # to the chin, or to the crown
    bend = torch.where(low, (0.87 - p.jaw**2) / 0.23, 0.2)  # of the jaw: it is ``jaw`` wide at the mouth
    t = ((y - widest) / reach).clamp(-1, 1)
    half = p.face_width * (1 - bend * t**2 - (1 - bend) * t**4).clamp(min=1e-4).sqrt()
    slope = -(p.face_width**2) * (bend * t + 2 * (1 - bend) * t**3) / (reach * half)
    return half, slope


def regions(u: Tensor, w: Tensor, p: SimpleNamespace) -> Tensor:
    """Return which points ``[N, H, W]`` lie in each of ``REGIONS``, ``[N, 4, H, W]``; these may overlap."""
    away = u.abs()
    brows = (away < 0.68) & (w > p.brow_y - 0.32) & (w < p.eye_y - 0.03)
    eyes = (away < 0.72) & (w > p.eye_y - 0.22) & (w < p.eye_y + 0.4)
    nose = (away < p.nose_width + 0.16) & (w > p.eye_y - 0.12) & (w < p.nose_y + 0.22)
    return torch.stack([brows, eyes, nose, (away < 0.72) & (w > p.nose_y - 0.12)], 1)
