"""Paint a face on a flat sheet: relief, skin, features; then light it.

Everything soft is a sum of bumps, each a product of a row and a column, so the whole relief is one matrix
product. What has an edge is painted in a band of rows between curves of :mod:`helpers.faces.shape`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from helpers.faces.shape import Shape, brow, lids, lips
from helpers.faces.truth import constant

LEFT, TOP, WIDTH, HEIGHT = -1.0, -1.2, 2.0, 2.6  # the sheet, in face units
DENSITY = 1.25  # pixels of the sheet per pixel of the image
_LUMINANCE = (0.299, 0.587, 0.114)  # Rec. 601, as Pillow converts RGB to grey


def inks(person: dict[str, Tensor], color: bool) -> dict[str, Tensor]:
    """Return a person's colours, float ``[N, 3 or 1, 1, 1]`` in [0, 1]; grey ones are their luminances."""

    def tint(shade: Tensor, *powers: float) -> Tensor:
        return shade[:, None] ** constant(powers, shade)

    skin, teeth = tint(person["skin"], 0.8, 1.15, 1.5), person["teeth"][:, None]
    lip = skin * person["lip_shade"][:, None] * constant((1.08, 0.88, 0.92), skin)
    colours = {
        "skin": skin,
        "shadow": skin * constant((0.42, 0.34, 0.32), skin),
        "lip": lip * 1.08,
        "upper lip": lip * 0.82,
        "hair": tint(person["hair_shade"], 0.85, 1.1, 1.4),
        "brow": tint(0.5 * person["hair_shade"].clamp(max=0.4), 0.85, 1.1, 1.4),
        "white": teeth * 0.25 + 0.45 + 0 * skin,
        "iris": tint(person["iris_shade"], 1.0, 0.95, 0.95),
        "teeth": teeth * constant((1.0, 0.97, 0.9), skin),
        "mouth": 0.09 * constant((1.3, 0.8, 0.8), skin) + 0 * skin,
        "tongue": 0.45 * constant((1.1, 0.6, 0.6), skin) + 0 * skin,
        "black": 0.04 + 0 * skin,
    }
    if not color:
        luminance = constant(_LUMINANCE, skin)
        colours = {name: (rgb * luminance).sum(-1, keepdim=True) for name, rgb in colours.items()}
    return {name: rgb[:, :, None, None] for name, rgb in colours.items()}


class Sheet(Shape):
    """The sheet that a face is painted on, with the curves of its shape over the sheet's columns."""

    def __init__(self, units: Tensor, person: dict, texture: dict, size: int, color: bool) -> None:
        density = DENSITY * size / 2  # pixels per face unit
        columns, rows = round(WIDTH * density), round(HEIGHT * density)
        x = (torch.arange(columns, device=units.device) + 0.5) / density + LEFT
        super().__init__(x[None, None], units, person)
        self.y = ((torch.arange(rows, device=units.device) + 0.5) / density + TOP)[None, :, None]
        self.edge = 2 / size  # an edge is as soft as a pixel of the image is wide
        self.density, self.texture, self.ink = density, texture, inks(person, color)
        self.pixels = self.ink["skin"].expand(-1, -1, rows, columns).clone()

    def band(self, top: float, bottom: float) -> Band:
        """Return the rows between two heights, to paint in."""
        first, last = (round((y - TOP) * self.density) for y in (top, bottom))
        return Band(self.pixels[:, :, first:last], self.y[:, first:last], self.edge)


class Band:
    """Some rows of a sheet: pixels ``[N, C, h, W]``, painted in place, at the heights y ``[1, h, 1]``."""

    def __init__(self, pixels: Tensor, y: Tensor, edge: float) -> None:
        self.pixels, self.y, self.edge = pixels, y, edge

    def paint(self, cover: Tensor, ink: Tensor) -> None:
        """Lay an ink over the rows, as thick as ``cover`` ``[N, h, W]`` says."""
        self.pixels.lerp_(ink, cover[:, None])

    def below(self, curve: Tensor, soft: float = 0.0) -> Tensor:
        """Return 1 below a curve ``[N, 1, W]``, 0 above, with a soft edge."""
        return (self.y - curve).div_(max(self.edge, soft)).add_(0.5).clamp_(0, 1)

    def between(self, upper: Tensor, lower: Tensor) -> Tensor:
        """Return 1 between two curves, less where they are closer than a pixel."""
        return self.below(upper).sub_(self.below(lower)).clamp_(min=0)

    def along(self, curve: Tensor, half_width: Tensor | float) -> Tensor:
        """Return a soft line along a curve ``[N, 1, W]``, never thinner than the image can show."""
        half = torch.as_tensor(half_width).clamp(min=0.5 * self.edge)
        return bell((self.y - curve).div_(half)).mul_(torch.as_tensor(half_width) / half)


def bell(z: Tensor) -> Tensor:
    """Return exp(-z²)."""
    return z.square().neg_().exp_()


def window(t: Tensor, low: float, high: float, soft: float) -> Tensor:
    """Return 1 where t lies from low to high, falling to 0 over ``soft`` outside."""
    rising, falling = (t - (low - soft)).div_(soft), (t - (high + soft)).div_(-soft)
    return rising.clamp_(0, 1) * falling.clamp_(0, 1)


def stretched(texture: Tensor, shape: torch.Size, mode: str = "bilinear") -> Tensor:
    """Return a random field ``[N, 1, rows, columns]`` stretched to ``[N, *shape]``."""
    return functional.interpolate(texture, shape, mode=mode, align_corners=False)[:, 0]


def relief(s: Sheet) -> tuple[Tensor, Tensor, Tensor]:
    """Return how far the face stands out at each pixel and its slopes in x and y, ``[N, H, W]`` each."""
    p, part = s.person, lips(s)
    ridge = p.brow_y - 0.5 * s.mean("middle brow up") + 0.04
    nose, tip = 0.135 * p.nose_height, p.nose_y - s.mean("nose up")
    wide = p.nose_width * (1 + s.move("nostrils wide"))
    below = part.bottom.amax(-1, keepdim=True)
    chin = p.chin_y + s.mean("jaw down") - 0.13 - s.mean("chin up")

    def pair(x: Tensor | float, half: float, out: Tensor | float) -> Tensor:
        return out * bell((s.away - x) / half)

    bumps = [  # amount over the columns, height, half the extent in y
        (pair(0.33, 0.22, 0.045), ridge, 0.075),
        (pair(p.eye_x, 0.17, -0.09 * p.deep_eyes), p.eye_y - 0.03, 0.11),
        (pair(0.15, 0.06, -0.05 * p.deep_eyes), p.eye_y - 0.02, 0.09),
        (pair(p.eye_x, 0.12, 0.05), p.eye_y, 0.08),
        (pair(0.0, 0.085, 0.85 * nose), 0.5 * (tip + p.eye_y) - 0.05, 0.24),
        (pair(0.0, 0.1, 0.8 * nose), tip, 0.1),
        (pair(wide - 0.05, 0.055, 0.45 * nose), tip + 0.035, 0.06),
        (pair(0.0, 0.16, -0.25 * nose), tip + 0.15, 0.06),
        (pair(0.5, 0.17, 0.075 * p.cheekbones), p.eye_y + 0.25, 0.14),
        (pair(0.38, 0.15, s.move("cheek up")), p.eye_y + 0.24 - 0.3 * s.mean("cheek up"), 0.1),
        (pair(0.44, 0.15, s.move("smile cheek")), tip + 0.06, 0.15),
        (pair(0.0, 0.28, 0.06 + 0 * p.age), p.mouth_y - 0.03, 0.17),
        (pair(0.0, 0.17, 0.04 + 0 * p.age), below - 0.035, 0.05),
        (pair(0.0, 0.2, -0.05 + 0 * p.age), below + 0.06, 0.045),
        (pair(0.0, 0.16, 0.07 + s.mean("chin up")), chin, 0.11),
        (pair(0.64, 0.17, -0.05 * p.cheekbones), 0.5 * (p.mouth_y + tip) + 0.05, 0.25),
        (pair(0.75, 0.13, -0.05 + 0 * p.age), p.brow_y, 0.22),
        (pair(0.0, 0.45, 0.05 + 0 * p.age), p.brow_y - 0.25, 0.2),
        (pair(0.26, 0.1, -0.03 * p.age), p.mouth_y + 0.16, 0.12),
    ]
    amounts, heights, extents = zip(*bumps, strict=True)
    rows, centre = (torch.cat(torch.broadcast_tensors(*each), 1) for each in (amounts, heights))
    extent = constant(extents, rows)[None, :, None]
    z = (s.y.transpose(1, 2) - centre) / extent
    columns = bell(z)
    steep = -2 * z / extent * columns
    across = torch.gradient(rows, spacing=1 / s.density, dim=2)[0]
    return columns.mT @ rows, columns.mT @ across, steep.mT @ rows


def _skin(s: Sheet) -> None:
    p, band = s.person, s.band(TOP, TOP + HEIGHT)
    band.pixels.mul_(1 + (p.skin_texture * stretched(s.texture["skin"], band.pixels.shape[-2:]))[:, None])
    band = s.band(-0.6, 0.1)
    socket = bell((s.away - p.eye_x) / 0.2) * 0.26 * p.deep_eyes
    depth = bell((band.y - 0.6 * p.eye_y - 0.4 * p.brow_y) / 0.11)
    band.paint((socket * depth).clamp(max=0.8), s.ink["shadow"])
    corner = bell((s.away - 0.145) / 0.06) * 0.45 * p.deep_eyes
    band.paint((corner * bell((band.y - p.eye_y + 0.05) / 0.12)).clamp(max=0.8), s.ink["shadow"])
    bags = bell((s.away - p.eye_x) / 0.13) * (0.35 * p.eye_bags + 0.12)
    band.paint(bags * bell((band.y - p.eye_y - 0.12) / 0.05), s.ink["shadow"])


def _lines(s: Sheet) -> None:
    p, ink = s.person, s.ink["shadow"]
    forehead = s.band(-0.8, -0.4)
    depth = (s.move("forehead lines") * (0.45 + 0.55 * p.age) + 0.08 * p.age) * window(s.away, 0, 0.3, 0.2)
    wave = torch.cos((forehead.y - p.brow_y + 0.1 * s.x**2) * 52).clamp(min=0)
    forehead.paint(wave * depth * window(forehead.y - p.brow_y, -0.28, -0.1, 0.05) * 0.6, ink)
    frown = s.band(-0.62, -0.25)
    upright = bell((s.away - 0.055) / 0.022) * (s.move("frown lines") * 0.75 + 0.12 * p.age)
    frown.paint(upright * bell((frown.y - p.brow_y - 0.03) / 0.09), ink)
    bridge = s.band(-0.35, 0.1)
    wrinkles = torch.cos((bridge.y - p.eye_y + 0.5 * s.away) * 60).clamp(min=0)
    wrinkles = wrinkles * bell((bridge.y - p.eye_y - 0.1) / 0.11)
    bridge.paint(wrinkles * s.move("nose wrinkles") * bell((s.away - 0.05) / 0.1) * 0.6, ink)
    band, (_, lower, t) = s.band(-0.5, 0.12), lids(s)
    under = band.along(lower + 0.05 - 0.02 * t**2, 0.018) * window(t, -0.9, 0.9, 0.3)
    band.paint(under * (s.move("lid line") * 0.7 + 0.25 * p.age), ink)
    out = (s.away - p.eye_x - p.eye_width).clamp(min=0)
    rays = torch.cos((band.y - p.eye_y - 0.02) / (0.05 + 0.9 * out) * 3.14).clamp(min=0)
    rays = rays * bell((band.y - p.eye_y - 0.02) / 0.12)
    band.paint(rays * window(out, 0.06, 0.14, 0.05) * s.move("crow's feet") * (0.3 + 0.5 * p.age), ink)


def _folds(s: Sheet) -> None:
    p, ink, band, part = s.person, s.ink["shadow"], s.band(0.0, 1.0), lips(s)
    tip, corner = p.nose_y - s.mean("nose up"), p.mouth_width + s.move("corner out")
    t = ((band.y - tip) / (p.mouth_y - tip)).clamp(-0.5, 1.3)
    outwards = 0.35 * t + 0.65 * t.clamp(min=0) ** 2
    fold = p.nose_width * 1.15 + (corner + 0.07 - p.nose_width) * outwards + 0.03
    depth = (0.06 + 0.3 * p.age + s.move("nasolabial fold")).clamp(max=1) * 0.85
    band.paint(bell((s.away - fold) / 0.035) * window(t, 0, 0.85, 0.25) * depth, ink)
    ends = bell((s.away - corner - 0.035) / 0.03)
    height = part.line.amin(-1, keepdim=True) * 0 + p.mouth_y - s.move("corner up") * 0.65
    band.paint(ends * bell((band.y - height) / 0.06) * s.move("dimple").clamp(max=0.9) * 0.8, ink)
    down = band.y - height
    sag = bell((s.away - corner - 0.03 - 0.3 * down) / 0.03) * window(down, 0.02, 0.13, 0.04)
    band.paint(sag * (s.move("corner line") * 0.6 + 0.2 * p.age), ink)
    pebbles = torch.cos(s.x * 30) * torch.cos((band.y - p.chin_y) * 28)
    pebbles = pebbles * bell(s.x / 0.16) * bell((band.y - p.chin_y + 0.15) / 0.09)
    band.paint(pebbles.clamp(min=0) * s.mean("chin pebbles") * 0.35, ink)


def _nose(s: Sheet) -> None:
    p, ink, band = s.person, s.ink["shadow"], s.band(-0.35, 0.55)
    tip, wide = p.nose_y - s.mean("nose up"), p.nose_width * (1 + s.move("nostrils wide"))
    holes = bell((s.away - 0.46 * wide) / (0.26 * wide))
    band.paint(holes * bell((band.y - tip - 0.085 + 0.12 * s.away) / 0.026) * 0.65, ink * 0.6)
    wings = bell((s.away - wide - 0.005 + 2.5 * (band.y - tip - 0.03) ** 2) / 0.025)
    band.paint(wings * bell((band.y - tip - 0.03) / 0.06) * 0.65, ink)
    band.paint(bell((s.away - 0.105) / 0.04) * window(band.y, p.eye_y, tip, 0.1) * 0.1, ink)
    band.paint(bell(s.x / 0.05) * window(band.y, p.eye_y - 0.15, tip, 0.1) * 0.22, s.ink["skin"] * 1.4)
    band.paint(bell((s.away - wide + 0.02) / 0.05) * bell((band.y - tip - 0.02) / 0.09) * 0.2, ink)


def _beard(s: Sheet) -> None:
    p, band, part = s.person, s.band(0.0, 1.4), lips(s)
    rough = stretched(s.texture["skin"], band.pixels.shape[-2:])
    cheek = (0.62 - 1.25 * (s.away - 0.3).clamp(min=0)).minimum(part.bottom + 0.06)
    around = (s.away - 0.75 * p.mouth_width).clamp(min=0) * 3
    jaw = band.below(torch.maximum(cheek, part.bottom + 0.05 - around), 0.16)
    lip = band.along(part.top - 0.045 + 0.5 * s.x**2, 0.04) * window(s.away, 0, 0.8 * p.mouth_width, 0.08)
    cover = torch.maximum(p.beard * torch.maximum(jaw, lip), p.moustache * lip)
    band.paint(cover * (0.8 + 0.15 * rough).clamp(0, 1), s.ink["hair"])


def _mouth(s: Sheet) -> None:
    p, band, part = s.person, s.band(0.3, 1.3), lips(s)
    raised, stretch, dropped = (s.mean(f) for f in ("upper lip up", "corner out", "lower lip down"))
    inside = window(part.t.abs(), 0, 0.99, 0.02)
    band.paint(band.between(part.top, part.line) * inside, s.ink["upper lip"])
    band.paint(band.between(part.line, part.bottom) * inside, s.ink["lip"])
    hollow = band.between(part.inner_up, part.inner_down) * inside
    band.paint(hollow, s.ink["mouth"])
    height = (0.08 + 0.45 * s.move("corner up").clamp(min=0) + raised) * part.arch.sqrt()
    gaps = 1 - 0.12 * torch.cos(s.x * 90).clamp(min=0) ** 4
    upper = hollow * (1 - band.below(part.inner_up + height * p.teeth, 0.02)) * gaps
    show = (0.45 + 3 * stretch + 4 * raised).clamp(0, 1) * window(part.t.abs(), 0, 0.8, 0.15)
    band.paint(upper * show, s.ink["teeth"])
    clenched = (stretch * 4 + raised * 4).clamp(0, 0.9) * window(part.t.abs(), 0, 0.75, 0.15)
    lower = hollow * band.below(part.inner_down - 0.06 * part.arch.sqrt(), 0.02) * gaps
    band.paint(lower * clenched, s.ink["teeth"] * 0.9)
    back = part.inner_down - 0.3 * (part.inner_down - part.inner_up) + 1.0 * s.x**2
    tongue = hollow * band.below(back, 0.05) * (dropped / 0.25).clamp(0, 1)
    band.paint(tongue * (1 - clenched) * 0.5, s.ink["tongue"])
    seam = band.along(part.line, 0.016) * window(part.t.abs(), 0, 1.04, 0.04) * (1 - hollow)
    band.paint(seam * (1 - (dropped / 0.06).clamp(0, 0.85)) * 0.65, s.ink["shadow"] * 0.6)
    shine = band.along(0.4 * part.line + 0.6 * part.bottom, 0.02) * bell(s.x / 0.12) * (1 - hollow)
    band.paint(shine * (0.12 + 0.3 * p.make_up) * (1 - s.mean("lips thin")).clamp(min=0), s.ink["white"])


def _eyes_and_brows(s: Sheet, gaze_x: Tensor, gaze_y: Tensor) -> None:
    p, band = s.person, s.band(-0.5, 0.1)
    upper, lower, t = lids(s)
    lid = band.between(upper - p.crease, upper) * window(t, -0.9, 1.05, 0.15)
    band.paint(lid * (0.08 + 0.45 * p.make_up), s.ink["shadow"])
    opening = band.between(upper, lower) * window(t.abs(), 0, 1, 0.06)
    band.paint(opening, s.ink["white"])
    across = (s.away - p.eye_x) * s.x.sign() - 0.45 * gaze_x * p.eye_width
    down = band.y - p.eye_y - 0.4 * gaze_y * p.eye_open + 0.01
    radius = (across.square() + down.square()).sqrt()
    band.paint(opening * ((p.iris - radius) / band.edge + 0.5).clamp(0, 1), s.ink["iris"] * 0.8)
    band.paint(opening * ((0.48 * p.iris - radius) / band.edge + 0.5).clamp(0, 1), s.ink["black"])
    shade = 1 - 0.45 * (1 - band.below(upper + 0.02, 0.05))
    band.paint(opening * (1 - shade), s.ink["black"])
    glint = bell((across + 0.025) / 0.022) * bell((down + 0.03) / 0.02)
    band.paint(opening * glint * 0.9, s.ink["white"] * 0 + 1)
    lash = band.along(upper - 0.006, 0.02 + 0.014 * p.make_up) * window(t, -0.98, 1.12, 0.06)
    band.paint(lash * (0.6 + 0.35 * p.make_up), s.ink["black"])
    rim = band.along(lower + 0.006, 0.012) * window(t, -0.9, 1.05, 0.1)
    band.paint(rim * (0.35 + 0.4 * p.make_up), s.ink["shadow"])
    fold = band.along(upper - p.crease - 0.01 * t, 0.016) * window(t, -0.85, 1.1, 0.15)
    band.paint(fold * 0.35, s.ink["shadow"])
    band, (line, t) = s.band(-0.78, -0.1), brow(s)
    taper = p.brow_thickness * (1.1 - 0.55 * t.clamp(0, 1) ** 2)
    band.paint(band.along(line, taper) * window(t, 0.04, 0.86, 0.1) * p.brow_density, s.ink["brow"])


def _hair(s: Sheet) -> None:
    p, band = s.person, s.band(TOP, 1.3)
    strands = stretched(s.texture["hair"], band.pixels.shape[-2:])
    temple = (s.away - 0.8 * p.face_width).clamp(min=0)
    line = p.hairline + p.hairline_round * (s.away - 0.15).clamp(min=0) ** 2 + 4 * temple - 0.7 * p.bald
    sweep = (0.25 + 0.75 * (s.x - p.parting) * p.parting.sign()).clamp(0, 1)
    line = line + p.fringe * (1 - 0.5 * (p.parting.abs() > 0.2) * (1 - sweep)) * window(s.away, 0, 0.55, 0.2)
    cover = 1 - band.below(line + 0.02 * strands * (1 + 1.5 * (p.fringe > 0)), 0.11)
    edge = p.face_width * (0.99 - 0.16 * p.hair_close) - 0.02 * strands
    locks = ((s.away - edge) / 0.05 + 0.5).clamp(0, 1) * (p.hair_length > 0)
    locks = locks * (1 - band.below(p.hair_length + 0 * s.x, 0.1))
    shine = 1 + 0.5 * bell((band.y + 0.98 + 0.15 * s.away**2) / 0.1)
    band.paint(torch.maximum(cover, locks), s.ink["hair"] * (shine + p.hair_contrast * strands)[:, None])


def _glasses(s: Sheet) -> None:
    p, band = s.person, s.band(-0.6, 0.15)
    rows = p.glasses.flatten().nonzero()[:, 0]  # few wear any
    eye_x, eye_y = p.eye_x[rows], p.eye_y[rows]
    across, down = (s.away - eye_x) / (p.eye_width[rows] * 1.65), (band.y - eye_y - 0.03) / 0.19
    ring = (across**4 + down**4).clamp(min=1e-6) ** 0.25
    frame = bell((ring - 1) / 0.09)
    bridge = bell((band.y - eye_y + 0.02) / 0.02) * window(s.away, 0, 0.12, 0.02)
    arms = bell((band.y - eye_y + 0.05) / 0.025) * window(s.away, 0.6, 2, 0.03)
    cover = torch.maximum(frame, torch.maximum(bridge, arms)) * p.glasses[rows]
    band.pixels[rows] = band.pixels[rows].lerp(s.ink["black"][rows] * 1.5, cover[:, None])


def painted(units: Tensor, person: dict, view: dict, texture: dict, size: int, color: bool) -> Sheet:
    """Paint faces on their sheets, unlit; the arguments are those of ``camera.images``."""
    sheet = Sheet(units, person, texture, size, color)
    for painter in (_skin, _lines, _folds, _nose, _beard, _mouth):
        painter(sheet)
    _eyes_and_brows(sheet, view["gaze_x"][:, None, None], view["gaze_y"][:, None, None])
    _hair(sheet)
    _glasses(sheet)
    return sheet


def lit(s: Sheet, view: dict[str, Tensor]) -> Tensor:
    """Light the sheet in place, ``[N, C, H, W]``: Lambert, light from around, a little shine."""
    names = ("light_x", "light_y", "relief", "ambient", "exposure", "yaw")
    light = {name: view[name][:, None, None] for name in names}
    out, slope_x, slope_y = relief(s)
    round_x = (s.x / s.person.face_width).clamp(-1, 1) * 0.93
    slope_x.mul_(light["relief"]).sub_(round_x / (1 - round_x**2).sqrt())
    slope_y.mul_(light["relief"]).sub_(0.4 * s.y)
    to_x, to_y = light["light_x"] - torch.sin(light["yaw"]), light["light_y"]
    facing = (slope_x * to_x).addcmul_(slope_y, to_y).neg_().add_(1)
    length = slope_x.square_().addcmul_(slope_y, slope_y).add_(1).rsqrt_()
    lambert = facing.mul_(length).mul_((1 + to_x**2 + to_y**2).rsqrt()).clamp_(min=0)
    hollow = out.mul_(2.2 * light["relief"]).add_(1).clamp_(0.4, 1.25)  # what lies deep gets less light
    glint = (lambert**4).pow_(3).mul_(s.person.shine)
    shade = hollow.mul_(light["ambient"] * light["exposure"])
    shade.addcmul_(lambert, (1.12 - light["ambient"]) * light["exposure"])
    return s.pixels.mul_(shade[:, None]).add_(glint[:, None])
