"""The shape of a synthetic head and the light on it: a tapered ellipsoid with relief, ray cast for every pixel.

Units: the head is about two units high. In face coordinates (the head's own frame) X points to the viewer's right, Y up
and Z out of the face; the camera looks along -Z. All operations are elementwise numpy on (size, size) float32 arrays;
traits and conditions are Python floats, which never widen an array to float64. Colours are RGB 0..1, shape (3, 1, 1).
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

Array = np.ndarray

FRAME = 1.0  # half the height of the picture ...
CENTRE = -0.06  # ... and the height at its middle


@dataclass
class Plane:
    """The camera's picture: coordinates of every pixel, and the size of one."""

    x: Array
    y: Array
    pixel: float


@dataclass
class Surface:
    """The part of the head that each pixel sees."""

    x: Array  # face coordinates of the point hit ...
    y: Array
    front: Array  # ... and its Z: negative behind the ears
    depth: Array  # towards the camera
    inside: Array  # coverage 0..1
    pixel: float

    def crop(self, box: tuple[slice, slice]) -> "Surface":
        """Return the part of the surface in a box of pixels."""
        x, y, front, depth, inside = (a[box] for a in (self.x, self.y, self.front, self.depth, self.inside))
        return Surface(x, y, front, depth, inside, self.pixel)


def edge(distance: Array, width: float) -> Array:
    """Return the coverage 0..1 of a region with the signed `distance` (positive inside), soft over `width`."""
    return np.clip(distance * (1 / width) + 0.5, 0, 1)


def bump(x: Array, y: Array, cx: float, cy: float, rx: float, ry: float) -> Array:
    """Return a Gaussian hill of height 1 at (cx, cy) with radii rx, ry."""
    dx, dy = (x - cx) * (1 / rx), (y - cy) * (1 / ry)
    return np.exp(-(dx * dx + dy * dy))


def camera_plane(shot: SimpleNamespace, size: int) -> Plane:
    """Return the head-unit coordinates of every pixel after shift, zoom and roll."""
    pixel = 2 * FRAME / size / shot.zoom
    line = (np.arange(size, dtype=np.float32) + (0.5 - size / 2)) * pixel
    across, down = line[None, :] - shot.shift_x, line[:, None] + shot.shift_y
    cos, sin = math.cos(shot.roll), math.sin(shot.roll)
    return Plane(cos * across + sin * down, sin * across - cos * down + CENTRE, pixel)


def rotation(shot: SimpleNamespace) -> list[list[float]]:
    """Return the matrix (3 x 3) that turns face coordinates into camera coordinates: yaw, then pitch."""
    cy, sy, cp, sp = math.cos(shot.yaw), math.sin(shot.yaw), math.cos(shot.pitch), math.sin(shot.pitch)
    return [[cy, 0.0, sy], [-sp * sy, cp, sp * cy], [-cp * sy, -sp, cp * cy]]


def cast(who: SimpleNamespace, shot: SimpleNamespace, plane: Plane) -> Surface:
    """Intersect the ray of every pixel with the head.

    The head is X^2 / w(Y)^2 + Y^2 h(Y) + Z^2 / d^2 = 1. With w and h taken at the last estimate of Y, the depth is the
    root of a quadratic. It converges in a few rounds; the last two add the relief.
    """
    r = rotation(shot)
    x0, y0, z0 = (r[0][i] * plane.x + r[1][i] * plane.y for i in range(3))
    rx, ry, rz = r[2]
    deep = 1 / who.head_depth**2
    depth = np.full_like(plane.x, 0.6)
    for step in range(4):
        y = y0 + ry * depth
        wide, high = 1 / half_width(who, y) ** 2, height_weight(who, shot, y)
        xw, yh = x0 * wide, y0 * high
        a = 1 / (rx * rx * wide + ry * ry * high + rz * rz * deep)
        b = (rx * xw + ry * yh + (rz * deep) * z0) * a
        hit = b * b - (x0 * xw + y0 * yh + deep * z0 * z0 - 1) * a
        depth = np.copysign(np.sqrt(np.abs(hit)), hit) - b  # outside the outline the surface keeps falling
        if step > 1:
            depth = depth + rz * _relief(who, shot, x0 + rx * depth, y)
    x, y = x0 + rx * depth, y0 + ry * depth
    inside = edge(hit / a * 0.36 - 0.7 * plane.pixel, plane.pixel)
    return Surface(x + who.asymmetry * y, y + who.asymmetry * x, z0 + rz * depth, depth, inside, plane.pixel)


def half_width(who: SimpleNamespace, y: Array) -> Array:
    """Return half the head's width at height y: cheekbones, temples, and a jaw that narrows towards the chin."""
    low, high = np.maximum(-0.15 - y, 0), np.maximum(y - 0.1, 0)
    at_cheek = (y + 0.12) * 4
    cheek = np.exp(-at_cheek * at_cheek)
    return who.head_width * (1 - who.jaw_taper * low - who.temple * high * high + who.cheek_width * cheek)


def height_weight(who: SimpleNamespace, shot: SimpleNamespace, y: Array) -> Array:
    """Return the factor of Y^2 in the head's equation. Its growth with |Y| makes the jaw pointed or square."""
    chin = who.chin + 0.10 * shot.mouth_open
    down, up = np.maximum(y * (-1 / chin), 0), np.maximum(y * (1 / who.crown), 0)
    return down ** (who.jaw_square - 2) * (1 / chin**2) + np.sqrt(up) * (1 / who.crown**2)


def _relief(who: SimpleNamespace, shot: SimpleNamespace, x: Array, y: Array) -> Array:
    """Return the height of nose, sockets, brow ridge, cheeks, lips and chin above the ellipsoid."""
    side = np.abs(x)
    root = who.eye_y + 0.1
    along = np.clip((root - y) * (1 / (root - who.nose_y)), 0, 1.1)
    ridge = along * who.nose_height + 4 * who.nose_hump * along * np.maximum(1 - along, 0)
    across = x / (who.bridge_width + (who.nose_width * 0.55 - who.bridge_width) * along)
    across = 1 + across * across
    height = ridge * edge(y - (who.nose_y - 0.06), 0.10) / (across * across)
    height += who.nose_tip * bump(x, y, 0, who.nose_y + 0.01, 0.09, 0.08)
    height += 0.05 * bump(side, y, who.nose_width * 0.8, who.nose_y - 0.005, 0.05, 0.055)
    height -= who.socket * bump(side, y, who.eye_x * 0.95, who.eye_y + 0.02, 0.17, 0.1)
    height += who.brow_ridge * bump(side, y, who.eye_x * 0.8, who.brow_y - 0.03, 0.25, 0.07)
    cheek = who.cheek_bone + 0.03 * max(shot.smile, 0)
    height += cheek * bump(side, y, who.cheek_x, who.nose_y + 0.06, 0.16, 0.13)
    height += 0.05 * bump(x, y, 0, who.mouth_y, who.mouth_width * 0.9, 0.13)
    height -= 0.035 * bump(x, y, 0, who.mouth_y - 0.17, 0.14, 0.05)
    return height + who.chin_boss * bump(x, y, 0, 0.17 - who.chin, 0.15, 0.11)


def shade(head: Surface, shot: SimpleNamespace) -> Array:
    """Return the light on every pixel (3, size, size): ambient, coloured key with shadows, weak fill, highlight."""
    slope_y, slope_x = np.gradient(head.depth, head.pixel)
    slope_x, slope_y = np.clip(slope_x, -4, 4), np.clip(-slope_y, -4, 4)
    norm = 1 / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    lx, ly, lz = shot.light
    level = lx * slope_x + ly * slope_y
    key = np.maximum((lz - level) * norm, 0)
    fill = np.maximum((lz + lx * slope_x - 0.2 * slope_y) * norm, 0)
    gloss = np.maximum((lz + 1 - level) * norm * (1 / math.sqrt(2 + 2 * lz)), 0)  # normal . half-way vector
    gloss = gloss * gloss * gloss
    gloss = gloss * gloss * gloss  # to the 9th
    lit = _lit(head, shot)
    return (
        shot.ambient + (shot.fill * fill + shot.gloss * gloss * gloss * lit) + shot.key_colour * (shot.key * key * lit)
    )


def _lit(head: Surface, shot: SimpleNamespace) -> Array:
    """Return 1 where nothing blocks the ray to the light, and less where something does."""
    lx, ly, lz = shot.light
    flat = max(math.hypot(lx, ly), 0.05)
    lit = np.ones_like(head.depth)
    for reach in (0.07, 0.14, 0.22):
        steps = reach / flat / head.pixel
        blocker = np.roll(head.depth, (round(ly * steps), round(-lx * steps)), (0, 1))
        lit = np.minimum(lit, edge(reach * lz / flat + 0.04 - (blocker - head.depth), 0.16))
    return 0.4 + 0.6 * lit
