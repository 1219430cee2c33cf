"""Paint a face on a flat sheet: relief, skin, features; then light it.

Everything soft is a sum of bumps, each a product of a row and a column, so the whole relief is one matrix
product. What has an edge is painted in a band of rows between curves of :mod:`helpers.faces.shape`.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional

from helpers.faces.shape import Shape, brow, lids, lips
from helpers.faces.truth import constant

LEFT, TOP, WIDTH, HEIGHT = -1.0, -1.2, 2.0, 2.6  # the sheet, in face units


def inks(person: dict[str, Tensor], color: bool) -> dict[str, Tensor]:
    """Return a person's colours, float ``[N, 3 or 1, 1, 1]`` in [0, 1]; grey ones are their luminances."""

    def tint(shade: Tensor, *powers: float) -> Tensor:
        return shade[:, None] ** constant(powers, shade)

    skin, teeth = tint(person["skin"], 0.8, 1.15, 1.5), person["teeth"][:, None]
    lip = skin * person["lip_shade"][:, None] * constant((1.08, 0.88, 0.92), skin)
    inks = {
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
        luminance = constant((0.299, 0.587, 0.114), skin)  # Rec. 601, as Pillow converts RGB to grey
        inks = {name: (rgb * luminance).sum(-1, keepdim=True) for name, rgb in inks.items()}
    return {name: rgb[:, :, None, None] for name, rgb in inks.items()}


class Sheet(Shape):
    """What a face is painted on, a band of rows at a time: ``pixels`` at the heights y ``[1, h, 1]``."""

    def __init__(self, units: Tensor, person: dict, texture: dict, size: int, color: bool) -> None:
        self.density = 1.25 * size / 2  # pixels per face unit: more than the image has
        columns, rows = round(WIDTH * self.density), round(HEIGHT * self.density)
        x = (torch.arange(columns, device=units.device) + 0.5) / self.density + LEFT
        super().__init__(x[None, None], units, person)
        self.rows = ((torch.arange(rows, device=units.device) + 0.5) / self.density + TOP)[None, :, None]
        self.edge = 2 / size  # an edge is as soft as a pixel of the image is wide
        self.texture, self.ink, p = texture, inks(person, color), self.person
        self.whole = self.ink["skin"].expand(-1, -1, rows, columns).clone()
        self.mouth, self.lids, self.brow = lips(self), lids(self), brow(self)
        self.corner = p.mouth_width + self.move("corner out")
        self.tip, self.wide = p.nose_y - self.mean("nose up"), p.nose_width * (1 + self.move("nostrils wide"))

    def take(self, top: float, bottom: float) -> None:
        """Take the rows between two heights, to paint in."""
        first, last = (round((y - TOP) * self.density) for y in (top, bottom))
        self.pixels, self.y = self.whole[:, :, first:last], self.rows[:, first:last]

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
    p, tip, nose = s.person, s.tip, 0.135 * s.person.nose_height
    ridge = p.brow_y - 0.5 * s.mean("middle brow up") + 0.04
    below = s.mouth.bottom.amax(-1, keepdim=True)
    chin = p.chin_y + s.mean("jaw down") - 0.13 - s.mean("chin up")
    bumps = (  # x of the middle and half the extent, how far it stands out; the same in y
        (0.33, 0.22, 0.045, ridge, 0.075),
        (p.eye_x, 0.17, -0.09 * p.deep_eyes, p.eye_y - 0.03, 0.11),
        (0.15, 0.06, -0.05 * p.deep_eyes, p.eye_y - 0.02, 0.09),
        (p.eye_x, 0.12, 0.05, p.eye_y, 0.08),
        (0.0, 0.085, 0.85 * nose, 0.5 * (tip + p.eye_y) - 0.05, 0.24),
        (0.0, 0.1, 0.8 * nose, tip, 0.1),
        (s.wide - 0.05, 0.055, 0.45 * nose, tip + 0.035, 0.06),
        (0.0, 0.16, -0.25 * nose, tip + 0.15, 0.06),
        (0.5, 0.17, 0.075 * p.cheekbones, p.eye_y + 0.25, 0.14),
        (0.38, 0.15, s.move("cheek up"), p.eye_y + 0.24 - 0.3 * s.mean("cheek up"), 0.1),
        (0.44, 0.15, s.move("smile cheek"), tip + 0.06, 0.15),
        (0.0, 0.28, 0.06, p.mouth_y - 0.03, 0.17),
        (0.0, 0.17, 0.04, below - 0.035, 0.05),
        (0.0, 0.2, -0.05, below + 0.06, 0.045),
        (0.0, 0.16, 0.07 + s.mean("chin up"), chin, 0.11),
        (0.64, 0.17, -0.05 * p.cheekbones, 0.5 * (p.mouth_y + tip) + 0.05, 0.25),
        (0.75, 0.13, -0.05, p.brow_y, 0.22),
        (0.0, 0.45, 0.05, p.brow_y - 0.25, 0.2),
        (0.26, 0.1, -0.03 * p.age, p.mouth_y + 0.16, 0.12),
    )
    amounts = [out * bell((s.away - x) / half) for x, half, out, *_ in bumps]
    rows, centre = (torch.cat(torch.broadcast_tensors(*each), 1) for each in (amounts, [b[3] for b in bumps]))
    extent = constant(tuple(bump[4] for bump in bumps), rows)[None, :, None]
    z = (s.rows.transpose(1, 2) - centre) / extent
    columns = bell(z)
    steep = -2 * z / extent * columns
    across = torch.gradient(rows, spacing=1 / s.density, dim=2)[0]
    return columns.mT @ rows, columns.mT @ across, steep.mT @ rows


def _skin(s: Sheet) -> None:
    p, ink = s.person, s.ink["shadow"]
    s.take(TOP, TOP + HEIGHT)
    s.pixels.mul_(1 + (p.skin_texture * stretched(s.texture["skin"], s.pixels.shape[-2:]))[:, None])
    s.take(-0.6, 0.1)
    depth = bell((s.y - 0.6 * p.eye_y - 0.4 * p.brow_y) / 0.11)
    socket = bell((s.away - p.eye_x) / 0.2) * 0.26 * p.deep_eyes * depth
    corner = bell((s.away - 0.145) / 0.06) * 0.45 * p.deep_eyes * bell((s.y - p.eye_y + 0.05) / 0.12)
    s.paint(socket.clamp(max=0.8), ink)
    s.paint(corner.clamp(max=0.8), ink)
    bags = bell((s.away - p.eye_x) / 0.13) * (0.35 * p.eye_bags + 0.12)
    s.paint(bags * bell((s.y - p.eye_y - 0.12) / 0.05), ink)

    s.take(-0.8, -0.4)  # lines of the forehead, between the brows, across the nose, below and beside the eyes
    depth = (s.move("forehead lines") * (0.45 + 0.55 * p.age) + 0.08 * p.age) * window(s.away, 0, 0.3, 0.2)
    wave = torch.cos((s.y - p.brow_y + 0.1 * s.x**2) * 52).clamp(min=0)
    s.paint(wave * depth * window(s.y - p.brow_y, -0.28, -0.1, 0.05) * 0.6, ink)
    s.take(-0.62, -0.25)
    frown = bell((s.away - 0.055) / 0.022) * (s.move("frown lines") * 0.75 + 0.12 * p.age)
    s.paint(frown * bell((s.y - p.brow_y - 0.03) / 0.09), ink)
    s.take(-0.35, 0.1)
    wrinkles = torch.cos((s.y - p.eye_y + 0.5 * s.away) * 60).clamp(min=0)
    wrinkles = wrinkles * bell((s.y - p.eye_y - 0.1) / 0.11)
    s.paint(wrinkles * s.move("nose wrinkles") * bell((s.away - 0.05) / 0.1) * 0.6, ink)
    s.take(-0.5, 0.12)
    _, lower, t = s.lids
    under = s.along(lower + 0.05 - 0.02 * t**2, 0.018) * window(t, -0.9, 0.9, 0.3)
    s.paint(under * (s.move("lid line") * 0.7 + 0.25 * p.age), ink)
    out = (s.away - p.eye_x - p.eye_width).clamp(min=0)
    rays = torch.cos((s.y - p.eye_y - 0.02) / (0.05 + 0.9 * out) * 3.14).clamp(min=0)
    rays = rays * bell((s.y - p.eye_y - 0.02) / 0.12)
    s.paint(rays * window(out, 0.06, 0.14, 0.05) * s.move("crow's feet") * (0.3 + 0.5 * p.age), ink)


def _cheeks_and_nose(s: Sheet) -> None:
    p, ink, tip, wide = s.person, s.ink["shadow"], s.tip, s.wide
    s.take(0.0, 1.0)
    t = ((s.y - tip) / (p.mouth_y - tip)).clamp(-0.5, 1.3)
    outwards = 0.35 * t + 0.65 * t.clamp(min=0) ** 2
    fold = p.nose_width * 1.15 + (s.corner + 0.07 - p.nose_width) * outwards + 0.03
    depth = (0.06 + 0.3 * p.age + s.move("nasolabial fold")).clamp(max=1) * 0.85
    s.paint(bell((s.away - fold) / 0.035) * window(t, 0, 0.85, 0.25) * depth, ink)
    down = s.y - (p.mouth_y - s.move("corner up") * 0.65)
    ends = bell((s.away - s.corner - 0.035) / 0.03) * bell(down / 0.06)
    s.paint(ends * s.move("dimple").clamp(max=0.9) * 0.8, ink)
    sag = bell((s.away - s.corner - 0.03 - 0.3 * down) / 0.03) * window(down, 0.02, 0.13, 0.04)
    s.paint(sag * (s.move("corner line") * 0.6 + 0.2 * p.age), ink)
    pebbles = torch.cos(s.x * 30) * torch.cos((s.y - p.chin_y) * 28)
    pebbles = pebbles * bell(s.x / 0.16) * bell((s.y - p.chin_y + 0.15) / 0.09)
    s.paint(pebbles.clamp(min=0) * s.mean("chin pebbles") * 0.35, ink)
    s.take(-0.35, 0.55)
    holes = bell((s.away - 0.46 * wide) / (0.26 * wide))
    s.paint(holes * bell((s.y - tip - 0.085 + 0.12 * s.away) / 0.026) * 0.65, ink * 0.6)
    wings = bell((s.away - wide - 0.005 + 2.5 * (s.y - tip - 0.03) ** 2) / 0.025)
    s.paint(wings * bell((s.y - tip - 0.03) / 0.06) * 0.65, ink)
    s.paint(bell((s.away - 0.105) / 0.04) * window(s.y, p.eye_y, tip, 0.1) * 0.1, ink)
    s.paint(bell(s.x / 0.05) * window(s.y, p.eye_y - 0.15, tip, 0.1) * 0.22, s.ink["skin"] * 1.4)
    s.paint(bell((s.away - wide + 0.02) / 0.05) * bell((s.y - tip - 0.02) / 0.09) * 0.2, ink)


def _beard_and_mouth(s: Sheet) -> None:
    p, part, across = s.person, s.mouth, s.mouth.t.abs()
    s.take(0.0, 1.4)
    rough = stretched(s.texture["skin"], s.pixels.shape[-2:])
    cheek = (0.62 - 1.25 * (s.away - 0.3).clamp(min=0)).minimum(part.bottom + 0.06)
    around = (s.away - 0.75 * p.mouth_width).clamp(min=0) * 3
    jaw = s.below(torch.maximum(cheek, part.bottom + 0.05 - around), 0.16)
    lip = s.along(part.top - 0.045 + 0.5 * s.x**2, 0.04) * window(s.away, 0, 0.8 * p.mouth_width, 0.08)
    cover = torch.maximum(p.beard * torch.maximum(jaw, lip), p.moustache * lip)
    s.paint(cover * (0.8 + 0.15 * rough).clamp(0, 1), s.ink["hair"])
    s.take(0.3, 1.3)
    raised, stretch, dropped = (s.mean(f) for f in ("upper lip up", "corner out", "lower lip down"))
    inside = window(across, 0, 0.99, 0.02)
    s.paint(s.between(part.top, part.line) * inside, s.ink["upper lip"])
    s.paint(s.between(part.line, part.bottom) * inside, s.ink["lip"])
    hollow = s.between(part.inner_up, part.inner_down) * inside
    s.paint(hollow, s.ink["mouth"])
    height = (0.08 + 0.45 * s.move("corner up").clamp(min=0) + raised) * part.arch.sqrt()
    gaps = 1 - 0.12 * torch.cos(s.x * 90).clamp(min=0) ** 4
    upper = hollow * (1 - s.below(part.inner_up + height * p.teeth, 0.02)) * gaps
    show = (0.45 + 3 * stretch + 4 * raised).clamp(0, 1) * window(across, 0, 0.8, 0.15)
    s.paint(upper * show, s.ink["teeth"])
    clenched = (stretch * 4 + raised * 4).clamp(0, 0.9) * window(across, 0, 0.75, 0.15)
    lower = hollow * s.below(part.inner_down - 0.06 * part.arch.sqrt(), 0.02) * gaps
    s.paint(lower * clenched, s.ink["teeth"] * 0.9)
    back = part.inner_down - 0.3 * (part.inner_down - part.inner_up) + 1.0 * s.x**2
    tongue = hollow * s.below(back, 0.05) * (dropped / 0.25).clamp(0, 1)
    s.paint(tongue * (1 - clenched) * 0.5, s.ink["tongue"])
    seam = s.along(part.line, 0.016) * window(across, 0, 1.04, 0.04) * (1 - hollow)
    s.paint(seam * (1 - (dropped / 0.06).clamp(0, 0.85)) * 0.65, s.ink["shadow"] * 0.6)
    shine = s.along(0.4 * part.line + 0.6 * part.bottom, 0.02) * bell(s.x / 0.12) * (1 - hollow)
    s.paint(shine * (0.12 + 0.3 * p.make_up) * (1 - s.mean("lips thin")).clamp(min=0), s.ink["white"])


def _eyes_and_brows(s: Sheet, v: SimpleNamespace) -> None:
    p, (upper, lower, t) = s.person, s.lids
    s.take(-0.5, 0.1)
    lid = s.between(upper - p.crease, upper) * window(t, -0.9, 1.05, 0.15)
    s.paint(lid * (0.08 + 0.45 * p.make_up), s.ink["shadow"])
    opening = s.between(upper, lower) * window(t.abs(), 0, 1, 0.06)
    s.paint(opening, s.ink["white"])
    across = (s.away - p.eye_x) * s.x.sign() - 0.45 * v.gaze_x * p.eye_width
    down = s.y - p.eye_y - 0.4 * v.gaze_y * p.eye_open + 0.01
    radius = (across.square() + down.square()).sqrt()
    s.paint(opening * ((p.iris - radius) / s.edge + 0.5).clamp(0, 1), s.ink["iris"] * 0.8)
    s.paint(opening * ((0.48 * p.iris - radius) / s.edge + 0.5).clamp(0, 1), s.ink["black"])
    shade = 1 - 0.45 * (1 - s.below(upper + 0.02, 0.05))
    s.paint(opening * (1 - shade), s.ink["black"])
    glint = bell((across + 0.025) / 0.022) * bell((down + 0.03) / 0.02)
    s.paint(opening * glint * 0.9, s.ink["white"] * 0 + 1)
    lash = s.along(upper - 0.006, 0.02 + 0.014 * p.make_up) * window(t, -0.98, 1.12, 0.06)
    s.paint(lash * (0.6 + 0.35 * p.make_up), s.ink["black"])
    rim = s.along(lower + 0.006, 0.012) * window(t, -0.9, 1.05, 0.1)
    s.paint(rim * (0.35 + 0.4 * p.make_up), s.ink["shadow"])
    fold = s.along(upper - p.crease - 0.01 * t, 0.016) * window(t, -0.85, 1.1, 0.15)
    s.paint(fold * 0.35, s.ink["shadow"])
    s.take(-0.78, -0.1)
    line, t = s.brow
    taper = p.brow_thickness * (1.1 - 0.55 * t.clamp(0, 1) ** 2)
    s.paint(s.along(line, taper) * window(t, 0.04, 0.86, 0.1) * p.brow_density, s.ink["brow"])


def _hair_and_glasses(s: Sheet) -> None:
    p, some = s.person, s.person.glasses.flatten().nonzero()[:, 0]  # few wear any
    s.take(TOP, 1.3)
    strands = stretched(s.texture["hair"], s.pixels.shape[-2:])
    temple = (s.away - 0.8 * p.face_width).clamp(min=0)
    line = p.hairline + p.hairline_round * (s.away - 0.15).clamp(min=0) ** 2 + 4 * temple - 0.7 * p.bald
    sweep = (0.25 + 0.75 * (s.x - p.parting) * p.parting.sign()).clamp(0, 1)
    line = line + p.fringe * (1 - 0.5 * (p.parting.abs() > 0.2) * (1 - sweep)) * window(s.away, 0, 0.55, 0.2)
    cover = 1 - s.below(line + 0.02 * strands * (1 + 1.5 * (p.fringe > 0)), 0.11)
    edge = p.face_width * (0.99 - 0.16 * p.hair_close) - 0.02 * strands
    locks = ((s.away - edge) / 0.05 + 0.5).clamp(0, 1) * (p.hair_length > 0)
    locks = locks * (1 - s.below(p.hair_length, 0.1))
    shine = 1 + 0.5 * bell((s.y + 0.98 + 0.15 * s.away**2) / 0.1)
    s.paint(torch.maximum(cover, locks), s.ink["hair"] * (shine + p.hair_contrast * strands)[:, None])
    s.take(-0.6, 0.15)
    down = s.y - p.eye_y[some]
    across = (s.away - p.eye_x[some]) / (p.eye_width[some] * 1.65)
    ring = (across**4 + ((down - 0.03) / 0.19) ** 4).clamp(min=1e-6) ** 0.25
    bridge = bell((down + 0.02) / 0.02) * window(s.away, 0, 0.12, 0.02)
    arms = bell((down + 0.05) / 0.025) * window(s.away, 0.6, 2, 0.03)
    cover = torch.maximum(bell((ring - 1) / 0.09), torch.maximum(bridge, arms)) * p.glasses[some]
    s.pixels[some] = s.pixels[some].lerp(s.ink["black"][some] * 1.5, cover[:, None])


def painted(units: Tensor, person: dict, v: SimpleNamespace, texture: dict, size: int, color: bool) -> Sheet:
    """Paint faces on their sheets, unlit; the arguments are those of ``camera.images``."""
    sheet = Sheet(units, person, texture, size, color)
    _skin(sheet)
    _cheeks_and_nose(sheet)
    _beard_and_mouth(sheet)
    _eyes_and_brows(sheet, v)
    _hair_and_glasses(sheet)
    return sheet


def lit(s: Sheet, v: SimpleNamespace) -> Tensor:
    """Light the sheet in place, ``[N, C, H, W]``: Lambert, light from around, a little shine."""
    out, slope_x, slope_y = relief(s)
    round_x = (s.x / s.person.face_width).clamp(-1, 1) * 0.93
    slope_x.mul_(v.relief).sub_(round_x / (1 - round_x**2).sqrt())
    slope_y.mul_(v.relief).sub_(0.4 * s.rows)
    to_x, to_y = v.light_x - torch.sin(v.yaw), v.light_y
    facing = (slope_x * to_x).addcmul_(slope_y, to_y).neg_().add_(1)
    length = slope_x.square_().addcmul_(slope_y, slope_y).add_(1).rsqrt_()
    lambert = facing.mul_(length).mul_((1 + to_x**2 + to_y**2).rsqrt()).clamp_(min=0)
    hollow = out.mul_(2.2 * v.relief).add_(1).clamp_(0.4, 1.25)  # what lies deep gets less light
    glint = (lambert**4).pow_(3).mul_(s.person.shine)
    shade = hollow.mul_(v.ambient * v.exposure).addcmul_(lambert, (1.12 - v.ambient) * v.exposure)
    return s.whole.mul_(shade[:, None]).add_(glint[:, None])
