"""From a painted sheet to an image: the turned head, what is behind and before it, and the landmarks."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional

from helpers.faces import paint, people
from helpers.faces.paint import HEIGHT, LEFT, TOP, WIDTH, bell, stretched, window
from helpers.faces.shape import Shape, brow, jaw_drop, lids, lips, outline, regions, upright
from helpers.faces.truth import constant


def textures(seed: int, subject: Tensor, index: Tensor, size: int) -> dict[str, Tensor]:
    """Return the random fields of images, some of them their people's, normal ``[N, 1, rows, columns]``."""
    fields = {"skin": (subject, 40, 30), "hair": (subject, 3, 44), "background": (index, 5, 5)}
    fields |= {"grain": (index, size, size), "letters": (index, 5, 36)}
    return {
        name: people.normal(seed, name, owner, rows * columns).view(-1, 1, rows, columns)
        for name, (owner, rows, columns) in fields.items()
    }


def framed(view: dict[str, Tensor], units: Tensor) -> dict[str, Tensor]:
    """Return the view as a face detector would crop it: it follows the turned face and the open jaw."""
    drop = jaw_drop(units)[:, 0, 0]
    right, down = 0.4 * torch.sin(view["yaw"]), 0.2 * torch.sin(view["pitch"]) + 0.22 * drop
    scale = view["scale"] * (1 - 0.15 * drop)
    return view | {"shift_x": view["shift_x"] - right, "shift_y": view["shift_y"] - down, "scale": scale}


# --- where a point of the face is seen ---


def _tilt(y: Tensor, v: SimpleNamespace) -> Tensor:
    """Return how far down the head's pitch moves what is seen at height y."""
    return torch.sin(v.pitch) * 0.36 * (1 - 0.45 * y.square())


def _chin_shift(w: Tensor, v: SimpleNamespace) -> Tensor:
    """Return how far aside yaw moves the outline at height w: the chin lies before the axis of the neck."""
    return torch.sin(v.yaw) * 0.22 * (w + 0.4).clamp(0, 1.3)


def _turned(x: Tensor, y: Tensor, p: SimpleNamespace, v: SimpleNamespace, drop: Tensor) -> SimpleNamespace:
    """Return which point u, w of the sheet, a stack of turned discs, is at x, y; its angle and depth."""
    w = y - _tilt(y, v)
    half, slope = outline(w, p, drop)
    aside = x - _chin_shift(w, v)
    distance = (half - aside.abs()) * (1 + slope.square()).rsqrt()
    half = half.clamp(min=0.35)
    angle = torch.asin((aside / half).clamp(-0.999, 0.999)) - v.yaw
    u = torch.sin(angle.clamp(-1.5, 1.5)) * half
    nose = bell(u / 0.17) * bell((w - p.nose_y + 0.03) / 0.24) * p.nose_height
    u, w = u - 0.15 * torch.sin(v.yaw) * nose, w - 0.1 * torch.sin(v.pitch) * nose
    return SimpleNamespace(u=u, w=w, angle=angle, distance=distance)


# --- layers of the image, from back to front ---


def _behind(image: Tensor, x: Tensor, y: Tensor, s: paint.Sheet, v: SimpleNamespace, light: Tensor) -> Tensor:
    """The hair behind the head, neck, clothes, and what stands out of the ears behind the cheeks."""
    p, edge = s.person, s.edge
    volume = p.hair_volume + 0.03
    volume = volume * (1 - p.bald) * (1 + 0.12 * stretched(s.texture["hair"], x.shape[-2:], "bicubic"))
    end = torch.where(p.hair_length > 0, p.hair_length, 0.12)  # short hair narrows to nothing there
    across = x / (p.face_width + volume * ((end - y) / 0.3).clamp(0, 1))
    radius = across.square() + torch.where(y > -0.1, 0.0, ((y + 0.1) / (1.2 + volume)).square())
    hair = ((1 - radius) / (2.5 * edge) + 0.5).clamp(0, 1) * ((end - y) / 0.1 + 0.5).clamp(0, 1)
    image = image.lerp(s.ink["hair"] * light, (hair * (1 - p.bald))[:, None])
    throat = x + 0.1 * torch.sin(v.yaw)
    neck = ((0.62 * p.face_width - throat.abs()) / edge + 0.5).clamp(0, 1) * (y > 0.3)
    image = image.lerp(s.ink["skin"] * v.neck[:, None] * light, neck[:, None])
    shoulder = ((y - 1.15 - 0.35 * (0.5 - x.abs()).clamp(min=0) + 0.05 * x.abs()) / edge + 0.5).clamp(0, 1)
    image = image.lerp(v.clothes[:, None] * light, shoulder[:, None])
    w = y - _tilt(y, v) + 0.02
    side = torch.where(x < 0, -1.0, 1.0)
    across = (x - 1.03 * p.face_width * torch.sin(1.62 * side + v.yaw)) / 0.09
    return _ear(image, across.square() + (w / 0.18).square(), 0.5, s, light)


def _ear(image: Tensor, radius: Tensor, dark: float, s: paint.Sheet, light: Tensor) -> Tensor:
    """Paint an ear where no hair hides it; ``radius`` is the square of the distance, 1 at its rim."""
    cover = ((1 - radius) / 0.3).clamp(0, 1) * (s.person.hair_length == 0)
    return image.lerp(s.ink["skin"] * light * (dark + 0.35 * radius.clamp(0, 1))[:, None], cover[:, None])


def _side(image: Tensor, place: SimpleNamespace, s: paint.Sheet, light: Tensor) -> Tensor:
    """The side of the head, seen when it turns: hair behind the temple, and an ear."""
    back = place.angle.abs()
    temple = ((back - 1.22 - 0.25 * (place.w + 0.2).clamp(min=0)) / 0.1).clamp(0, 1)
    hair = temple * ((0.12 - place.w) / 0.15).clamp(0, 1)
    image = image.lerp(s.ink["hair"] * light, (hair * (1 - s.person.bald))[:, None])
    return _ear(image, ((back - 1.55) / 0.17) ** 2 + ((place.w + 0.06) / 0.2) ** 2, 0.55, s, light)


def _hand(image: Tensor, x: Tensor, y: Tensor, s: paint.Sheet, v: SimpleNamespace, light: Tensor) -> None:
    """Four fingers laid on the face from below, in the images that have a hand."""
    rows = v.hand.flatten().nonzero()[:, 0]
    aside, down, side = x[rows] - v.hand_x[rows], y[rows] - v.hand_y[rows], v.hand_x[rows].sign()
    along, across = aside * 0.5 * side + down * 0.87, aside * 0.87 - down * 0.5 * side
    palm = (1 - (across.abs() / 0.36).clamp(max=2).square()).clamp(min=0)
    bulge = palm * ((along - 0.15) / 0.1).clamp(0, 1)
    for middle, tip in ((-0.2, -0.3), (-0.07, -0.42), (0.07, -0.4), (0.2, -0.26)):
        beyond = (tip - along).clamp(min=0)
        bulge = torch.maximum(bulge, 1 - (beyond.square() + (across - middle).square()) / 0.075**2)
    cover = (bulge / (2 * s.edge / 0.075) + 0.5).clamp(0, 1) * (bulge > -1)
    ink = s.ink["skin"][rows] * light[rows] * (0.45 + 0.55 * bulge.clamp(0, 1).sqrt())[:, None]
    image[rows] = image[rows].lerp(ink, cover[:, None])


def _watermark(image: Tensor, v: SimpleNamespace, letters: Tensor) -> None:
    """A line of pale letters, in the images that have one."""
    rows = v.watermark.flatten().nonzero()[:, 0]
    size, height = image.shape[-1], max(3, image.shape[-1] // 7)
    strokes = stretched((letters[rows] > 0).float(), (height, size))[:, None] * v.watermark[rows, None]
    first = ((v.watermark_y[rows, 0, 0] + 1) / 2 * (size - height)).long()
    place = first[:, None] + torch.arange(height, device=image.device)
    pale = strokes * (1 - image[rows].mean((1, 2, 3), keepdim=True))
    image[rows[:, None], :, place] += pale.transpose(1, 2)  # [image, row, channel, column]


def images(
    units: Tensor, person: dict, view: dict, texture: dict, size: int, color: bool, exact: bool = False
) -> tuple[Tensor, Tensor]:
    """Return uint8 images ``[N, 3 or 1, size, size]`` and where the ``REGIONS`` lie, ``[N, 4, size, size]``.

    ``units`` ``[N, 17, 2]`` are of the left and the right of the image, the others as in :mod:`people` and
    :func:`textures`. ``exact`` gives the light on the sensor: float, white at 1, without grain.
    """
    v = upright(view)
    sheet = paint.painted(units, person, v, texture, size, color)
    axis = (torch.arange(size, device=v.yaw.device) + 0.5) * 2 / size - 1
    right, down = axis[None, None, :] - v.shift_x, axis[None, :, None] - v.shift_y
    cos, sin = torch.cos(v.roll), torch.sin(v.roll)
    x, y = (right * cos + down * sin) / v.scale, (down * cos - right * sin) / v.scale  # as if it were upright
    place = _turned(x, y, sheet.person, v, jaw_drop(units))
    light = (v.exposure * (0.75 + 0.25 * (x * v.light_x).clamp(-1, 1)))[:, None]
    grid = torch.stack([(place.u - LEFT) / WIDTH, (place.w - TOP) / HEIGHT], -1) * 2 - 1
    face = functional.grid_sample(paint.lit(sheet, v), grid, padding_mode="border", align_corners=False)
    face = _side(face, place, sheet, light)
    blobs = stretched(texture["background"], (size, size))
    backdrop = (v.background + v.background_slope * x + v.background_texture * blobs).clamp(0, 1)[:, None]
    image = _behind(backdrop.expand_as(face), x, y, sheet, v, light)
    image = image.lerp(face, (place.distance / sheet.edge + 0.5).clamp(0, 1)[:, None])
    _hand(image, x, y, sheet, v, light)
    lock = bell((x - sheet.person.parting - 0.25 * (y + 0.9) - 0.15 * (y + 0.9).square()) / 0.06)
    lock = lock * v.strand * window(y, -2, 0.4, 0.3)  # of hair, across the face
    image = image.lerp(sheet.ink["hair"], lock[:, None])
    _watermark(image, v, texture["letters"])
    masks = (place.distance > 0)[:, None] & regions(place.u, place.w, sheet.person)
    near = functional.avg_pool2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
    image = ((image.lerp(near, v.blur[:, None]) - 0.5) * v.contrast[:, None] + 0.5).clamp(min=0)
    image = image * (1 + (image / 1.1).square().square()).sqrt().rsqrt() * 1.06  # highlights bend
    if exact:
        return image, masks
    return ((image + texture["grain"] * v.noise[:, None]).clamp(0, 1) * 255 + 0.5).to(torch.uint8), masks


# --- the 68 landmarks in the iBUG order: read off the curves that are painted, seen by the same camera ---

_LIPS = (-1.0, -0.66, -0.24, 0.0, 0.24, 0.66, 1.0, 0.66, 0.24, 0.0, -0.24, -0.66)  # outer, as shares of
_LIPS += (-0.9, -0.4, 0.0, 0.4, 0.9, 0.4, 0.0, -0.4)  # half the mouth's width; inner


def _on_the_sheet(units: Tensor, person: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the points of brows, nose, eyes and mouth on the sheet, ``[N, 1, 51]`` each."""
    sides = Shape(constant((-1.0, 1.0), units).expand(len(units), 1, 2), units, person)
    p = sides.person

    def of_side(part: str, x: Tensor) -> Tensor:  # not blended over the nose
        left, right = sides.move(part).split(1, -1)
        return torch.where(x < 0, left, right)

    along = constant((1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0), units) * 0.82 + 0.05
    sign = constant((-1.0,) * 5 + (1.0,) * 5, units)
    brow_x = sign * (p.brow_inner + p.brow_length * along - of_side("brows together", sign))
    tip = p.nose_y - sides.mean("nose up")
    bridge = tip - (tip - p.eye_y) * constant((1.0, 0.66, 0.33, 0.0), units)
    share = constant((-0.8, -0.42, 0.0, 0.42, 0.8), units)  # of half the nose's width: the nostrils
    below = tip + constant((0.075, 0.1, 0.115, 0.1, 0.075), units)
    nose_x = p.nose_width * share * (1 + of_side("nostrils wide", share))
    sign = constant((-1.0,) * 6 + (1.0,) * 6, units)
    out = constant((1.0, 0.35, -0.35, -1.0, -0.35, 0.35, -1.0, -0.35, 0.35, 1.0, 0.35, -0.35), units)
    eye_x = sign * (p.eye_x + out * p.eye_width)
    upper, lower, _ = lids(Shape(eye_x, units, person))
    eye_y = torch.where(constant((0, 0, 0, 0, 1, 1) * 2, units) > 0, lower, upper)
    share = constant(_LIPS, units)
    mouth_x = share * (p.mouth_width + of_side("corner out", share))
    lip = lips(Shape(mouth_x, units, person))
    inner = lip.inner_up[..., 12:17], lip.inner_down[..., 17:]
    mouth_y = torch.cat([lip.top[..., :7], lip.bottom[..., 7:12], *inner], -1)
    u = torch.cat([brow_x, 0 * bridge, nose_x, eye_x, mouth_x], -1)
    return u, torch.cat([brow(Shape(brow_x, units, person))[0], bridge, below, eye_y, mouth_y], -1)


def landmarks(units: Tensor, person: dict[str, Tensor], view: dict[str, Tensor], size: int) -> Tensor:
    """Return 68 landmarks, float32 ``[N, 68, 2]``: (x, y) in pixels, whole at pixel centres; see ``images``.

    Points on the jaw lie on the visible outline of the head, the others on the skin, hidden or not.
    """
    p, v, drop = upright(person), upright(view), jaw_drop(units)
    angle = torch.linspace(-1.0, 1.0, 17, device=drop.device) * 1.66  # from ear to ear, by the chin
    w = -0.1 + (p.chin_y + drop + 0.1) * torch.cos(angle)
    half, _ = outline(w, p, drop)
    jaw_x = half * angle.sign() * (angle.abs() > 1e-6) + _chin_shift(w, v)
    jaw_y = w.expand_as(half)
    for _ in range(8):  # the tilt of the head is undone by repeating the camera's own formula
        jaw_y = w + _tilt(jaw_y, v)
    # the others: the camera's map, undone by repeated correction to within a tenth of a pixel at 48 pixels
    u, w = _on_the_sheet(units, person)
    x, y = u + torch.sin(v.yaw) * 0.8, w + _tilt(w, v)
    for _ in range(14):
        place = _turned(x, y, p, v, drop)
        x, y = x + 0.8 * (u - place.u), y + 0.8 * (w - place.w)
    x, y = torch.cat([jaw_x, x], -1), torch.cat([jaw_y, y], -1)
    cos, sin = torch.cos(v.roll) * v.scale, torch.sin(v.roll) * v.scale
    seen = torch.stack([x * cos - y * sin + v.shift_x, x * sin + y * cos + v.shift_y], -1)[:, 0]
    return (seen + 1) * size / 2 - 0.5
