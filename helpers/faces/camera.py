"""From a painted sheet to a picture: the turned head, what is behind and before it, the camera."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional

from helpers.faces import chance, paint
from helpers.faces.paint import HEIGHT, LEFT, TOP, WIDTH, bell, stretched, window
from helpers.faces.shape import moved, outline, regions


def textures(seed: int, subject: Tensor, index: Tensor, size: int) -> dict[str, Tensor]:
    """Return the random fields of a picture, standard normal, ``[N, 1, rows, columns]``.

    Args:
        seed: the seed of the set.
        subject: int64 ``[N]``, whose skin and hair.
        index: int64 ``[N]``, which picture.
        size: pixels along a side.
    """
    shapes = {"skin": (40, 30), "hair": (3, 44), "background": (5, 5), "grain": (size, size)}
    shapes |= {"letters": (5, 36)}
    owner = dict.fromkeys(shapes, index) | {"skin": subject, "hair": subject}
    return {
        name: chance.normal(seed, name, owner[name], rows * columns).view(-1, 1, rows, columns)
        for name, (rows, columns) in shapes.items()
    }


def named(numbers: dict[str, Tensor]) -> SimpleNamespace:
    """Return numbers ``[N]`` as attributes ``[N, 1, 1]``."""
    return SimpleNamespace(**{name: value[:, None, None] for name, value in numbers.items()})


def jaw_drop(units: Tensor) -> Tensor:
    """Return how far the jaw is down, in face units, ``[N, 1, 1]``."""
    return moved("jaw down", units).mean(1)[:, None, None]


def framed(view: dict[str, Tensor], units: Tensor) -> dict[str, Tensor]:
    """Return the view as a face detector would crop it: it follows the turned face and the open jaw."""
    right, down = (
        0.4 * torch.sin(view["yaw"]),
        0.2 * torch.sin(view["pitch"]) + 0.22 * jaw_drop(units)[:, 0, 0],
    )
    scale = view["scale"] * (1 - 0.15 * jaw_drop(units)[:, 0, 0])
    return view | {"shift_x": view["shift_x"] - right, "shift_y": view["shift_y"] - down, "scale": scale}


def head_frame(size: int, v: SimpleNamespace) -> tuple[Tensor, Tensor]:
    """Return for each pixel its place beside an upright, unscaled head, ``[N, size, size]`` each."""
    axis = (torch.arange(size, device=v.yaw.device) + 0.5) * 2 / size - 1
    x, y = axis[None, None, :] - v.shift_x, axis[None, :, None] - v.shift_y
    cos, sin = torch.cos(v.roll), torch.sin(v.roll)
    return (x * cos + y * sin) / v.scale, (y * cos - x * sin) / v.scale


def tilt(y: Tensor, v: SimpleNamespace) -> Tensor:
    """Return how far down the head's pitch moves what is seen at height y."""
    return torch.sin(v.pitch) * 0.36 * (1 - 0.45 * y.square())


def chin_shift(w: Tensor, v: SimpleNamespace) -> Tensor:
    """Return how far aside yaw moves the outline at height w: the chin lies before the axis of the neck."""
    return torch.sin(v.yaw) * 0.22 * (w + 0.4).clamp(0, 1.3)


def turned(x: Tensor, y: Tensor, p: SimpleNamespace, v: SimpleNamespace, drop: Tensor) -> SimpleNamespace:
    """Return which point of the sheet a place beside the head shows: the head is a stack of turned discs.

    Args:
        x: places beside the head, in face units.
        y: the same.
        p: the person.
        v: the view.
        drop: how far the jaw is down.

    Returns:
        u and w, the point of the sheet; half, the head's half width there; aside, the place's distance from
        the middle; distance, how far inside the outline it lies.
    """
    w = y - tilt(y, v)
    half, slope = outline(w, p, drop)
    aside = x - chin_shift(w, v)
    distance = (half - aside.abs()) * (1 + slope.square()).rsqrt()
    half = half.clamp(min=0.35)
    angle = torch.asin((aside / half).clamp(-0.999, 0.999)) - v.yaw
    u = torch.sin(angle.clamp(-1.5, 1.5)) * half
    nose = bell(u / 0.17) * bell((w - p.nose_y + 0.03) / 0.24) * p.nose_height
    return SimpleNamespace(
        angle=angle,
        u=u - 0.15 * torch.sin(v.yaw) * nose,
        w=w - 0.1 * torch.sin(v.pitch) * nose,
        distance=distance,
        half=half,
        aside=aside,
    )


def _backdrop(x: Tensor, v: SimpleNamespace, texture: dict[str, Tensor], size: int) -> Tensor:
    blobs = stretched(texture["background"], (size, size))
    return (v.background + v.background_slope * x + v.background_texture * blobs).clamp(0, 1)[:, None]


def _behind(image: Tensor, x: Tensor, y: Tensor, s: paint.Sheet, v: SimpleNamespace, light: Tensor) -> Tensor:
    """Neck, clothes and the hair behind the head."""
    p, edge = s.person, s.edge
    image = image.lerp(s.ink["hair"] * light, _mane(x, y, s)[:, None])
    throat = x + 0.1 * torch.sin(v.yaw)
    neck = ((0.62 * p.face_width - throat.abs()) / edge + 0.5).clamp(0, 1) * (y > 0.3)
    image = image.lerp(s.ink["skin"] * v.neck[:, None] * light, neck[:, None])
    shoulder = ((y - 1.15 - 0.35 * (0.5 - x.abs()).clamp(min=0) + 0.05 * x.abs()) / edge + 0.5).clamp(0, 1)
    image = image.lerp(v.clothes[:, None] * light, shoulder[:, None])
    return _ears(image, x, y, s, v, light)


def _ears(image: Tensor, x: Tensor, y: Tensor, s: paint.Sheet, v: SimpleNamespace, light: Tensor) -> Tensor:
    """What stands out of the ears behind the cheeks, where hair does not hide them."""
    p = s.person
    w = y - tilt(y, v) + 0.02
    side = torch.where(x < 0, -1.0, 1.0)
    across = (x - 1.03 * p.face_width * torch.sin(1.62 * side + v.yaw)) / 0.09
    ear = across.square() + (w / 0.18).square()
    cover = ((1 - ear) / 0.3).clamp(0, 1) * (p.hair_length == 0)
    return image.lerp(s.ink["skin"] * light * (0.5 + 0.35 * ear.clamp(0, 1))[:, None], cover[:, None])


def _mane(x: Tensor, y: Tensor, s: paint.Sheet) -> Tensor:
    """How much hair is seen behind the head: an outline that narrows to nothing where short hair ends."""
    p = s.person
    strands = stretched(s.texture["hair"], x.shape[-2:], "bicubic")
    volume = (p.hair_volume + 0.03) * (1 - p.bald) * (1 + 0.12 * strands)
    end = torch.where(p.hair_length > 0, p.hair_length, 0.12)
    low = y > -0.1
    across = x / (p.face_width + volume * ((end - y) / 0.3).clamp(0, 1))
    radius = across.square() + torch.where(low, 0.0, ((y + 0.1) / (1.2 + volume)).square())
    return (
        ((1 - radius) / (2.5 * s.edge) + 0.5).clamp(0, 1) * ((end - y) / 0.1 + 0.5).clamp(0, 1) * (1 - p.bald)
    )


def _side(image: Tensor, place: SimpleNamespace, s: paint.Sheet, light: Tensor) -> Tensor:
    """The side of the head, seen when it turns: hair behind the temple, and an ear."""
    p, back = s.person, place.angle.abs()
    hair = ((back - 1.22 - 0.25 * (place.w + 0.2).clamp(min=0)) / 0.1).clamp(0, 1) * (
        (0.12 - place.w) / 0.15
    ).clamp(0, 1)
    image = image.lerp(s.ink["hair"] * light, (hair * (1 - p.bald))[:, None])
    ear = ((back - 1.55) / 0.17) ** 2 + ((place.w + 0.06) / 0.2) ** 2
    cover = ((1 - ear) / 0.3).clamp(0, 1) * (p.hair_length == 0)
    return image.lerp(s.ink["skin"] * light * (0.55 + 0.35 * ear.clamp(0, 1))[:, None], cover[:, None])


def _rows(numbers: SimpleNamespace, rows: Tensor, *names: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: getattr(numbers, name)[rows] for name in names})


_FINGERS = ((-0.2, -0.3), (-0.07, -0.42), (0.07, -0.4), (0.2, -0.26))  # how far across, and where the tip is


def _hand(image: Tensor, x: Tensor, y: Tensor, s: paint.Sheet, v: SimpleNamespace, light: Tensor) -> None:
    """Four fingers laid on the face from below, in the pictures that have a hand."""
    rows = v.hand.flatten().nonzero()[:, 0]
    hand = _rows(v, rows, "hand_x", "hand_y")
    aside, down, side = x[rows] - hand.hand_x, y[rows] - hand.hand_y, hand.hand_x.sign()
    along, across = aside * 0.5 * side + down * 0.87, aside * 0.87 - down * 0.5 * side
    palm = (across.abs() / 0.36).clamp(max=2)
    bulge = (1 - palm.square()).clamp(min=0) * ((along - 0.15) / 0.1).clamp(0, 1)
    for middle, tip in _FINGERS:
        beyond = (tip - along).clamp(min=0)
        bulge = torch.maximum(bulge, 1 - (beyond.square() + (across - middle).square()) / 0.075**2)
    cover = (bulge / (2 * s.edge / 0.075) + 0.5).clamp(0, 1) * (bulge > -1)
    shade = 0.45 + 0.55 * bulge.clamp(0, 1).sqrt()
    ink = s.ink["skin"][rows] * light[rows] * shade[:, None]
    image[rows] = image[rows].lerp(ink, cover[:, None])


def _strand(image: Tensor, x: Tensor, y: Tensor, s: paint.Sheet, v: SimpleNamespace) -> None:
    """A lock of hair across the face, in the pictures that have one."""
    rows = v.strand.flatten().nonzero()[:, 0]
    below = y[rows] + 0.9
    lock = bell((x[rows] - s.person.parting[rows] - 0.25 * below - 0.15 * below.square()) / 0.06)
    lock = lock * v.strand[rows] * window(y[rows], -2, 0.4, 0.3)
    image[rows] = image[rows].lerp(s.ink["hair"][rows].expand_as(image[rows]), lock[:, None])


def _watermark(image: Tensor, v: SimpleNamespace, letters: Tensor) -> None:
    """A line of pale letters, in the pictures that have one."""
    rows = v.watermark.flatten().nonzero()[:, 0]
    size = image.shape[-1]
    height = max(3, size // 7)
    strokes = stretched((letters[rows] > 0).float(), (height, size))[:, None] * v.watermark[rows, None]
    first = ((v.watermark_y[rows, 0, 0] + 1) / 2 * (size - height)).long()
    place = first[:, None] + torch.arange(height, device=image.device)
    pale = strokes * (1 - image[rows].mean((1, 2, 3), keepdim=True))
    image[rows[:, None], :, place] += pale.transpose(1, 2)  # [picture, row, channel, column]


def _developed(image: Tensor, v: SimpleNamespace) -> Tensor:
    near = functional.avg_pool2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
    image = image.lerp(near, v.blur[:, None])
    image = ((image - 0.5) * v.contrast[:, None] + 0.5).clamp(min=0)
    # highlights bend before they clip
    return image * (1 + (image / 1.1).square().square()).sqrt().rsqrt() * 1.06


def picture(
    units: Tensor, person: dict, view: dict, texture: dict, size: int, color: bool, exact: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the picture of each face and where its regions lie.

    Args:
        units: float ``[N, 17, 2]``, action units of the left and the right of the picture, in [0, 1].
        person: the numbers of ``people.IDENTITY``, float ``[N]`` each.
        view: the numbers of ``people.VIEW``, float ``[N]`` each.
        texture: random fields, see :func:`textures`.
        size: pixels along a side.
        color: RGB instead of grey.
        exact: as light falls on the sensor, without its grain and not rounded.

    Returns:
        uint8 ``[N, 3 or 1, size, size]`` (float, white at 1, where ``exact``), and bool
        ``[N, 4, size, size]`` over ``shape.REGIONS``.
    """
    sheet = paint.painted(units, person, view, texture, size, color)
    v = named(view)
    x, y = head_frame(size, v)
    place = turned(x, y, sheet.person, v, jaw_drop(units))
    light = (v.exposure * (0.75 + 0.25 * (x * v.light_x).clamp(-1, 1)))[:, None]
    face = _side(_seen(paint.lit(sheet, view), place), place, sheet, light)
    image = _behind(_backdrop(x, v, texture, size).expand_as(face), x, y, sheet, v, light)
    image = image.lerp(face, (place.distance / sheet.edge + 0.5).clamp(0, 1)[:, None])
    _hand(image, x, y, sheet, v, light)
    _strand(image, x, y, sheet, v)
    _watermark(image, v, texture["letters"])
    inside = (place.distance > 0)[:, None]
    image, masks = _developed(image, v), inside & regions(place.u, place.w, sheet.person)
    if exact:
        return image, masks
    grain = texture["grain"] * v.noise[:, None]
    return ((image + grain).clamp(0, 1) * 255 + 0.5).to(torch.uint8), masks


def _seen(sheet: Tensor, place: SimpleNamespace) -> Tensor:
    grid = torch.stack([(place.u - LEFT) / WIDTH, (place.w - TOP) / HEIGHT], -1) * 2 - 1
    return functional.grid_sample(sheet, grid, padding_mode="border", align_corners=False)
