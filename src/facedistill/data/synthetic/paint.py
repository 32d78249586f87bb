"""Paint a synthetic face on the surface of its head, add a background and a covering, and photograph it.

Pictures are (3, size, size) float32, painted in place. Every mask is a soft edge about one pixel wide, so that small
pictures are not jagged. Symmetric features are painted once, on the face folded at its middle. Units: `face_surface`.
"""

import math
from types import SimpleNamespace

import numpy as np

from facedistill.data.synthetic.surface import Array, Plane, Surface, bump, camera_plane, cast, edge, rotation, shade


def colour(*rgb: float) -> Array:
    """Return a colour that broadcasts over a picture."""
    return np.array(rgb, np.float32).reshape(3, 1, 1)


LIGHT_SKIN, DARK_SKIN = colour(0.95, 0.77, 0.67), colour(0.36, 0.23, 0.17)
WHITE, EYE_WHITE, PUPIL, TEETH = (
    colour(1, 1, 1),
    colour(0.9, 0.88, 0.86),
    colour(0.07, 0.05, 0.05),
    colour(0.88, 0.85, 0.8),
)
# The shares of red, green and blue that a shadow removes.
GREY, WARM, BROWN, RED, BLUSH = (
    colour(*c) for c in [(1, 1, 1), (0.8, 1, 1), (0.6, 0.85, 1), (0.22, 0.62, 0.52), (0.1, 0.6, 0.5)]
)
EARS_COVERED = 0.3  # hair longer than this hides the ears


def draw_face(who: SimpleNamespace, shot: SimpleNamespace, size: int) -> Array:
    """Render the person `who` (traits) under the conditions `shot` as RGB uint8 (size, size, 3)."""
    plane = camera_plane(shot, size)
    head = cast(who, shot, plane)
    skin = (
        LIGHT_SKIN + (DARK_SKIN - LIGHT_SKIN) * min(max(who.melanin + shot.tan, 0), 1) + who.hue * colour(0, -0.5, 0.5)
    )
    hair = np.clip(who.hair_colour * shot.hair_gain, 0, 1)

    face = np.empty((3, size, size), np.float32)
    face[:] = skin
    for paint, box in [
        (_skin, (0.8, -1.0, 0.6)),
        (_beard, (0.9, -1.1, 0.0)),
        (_nose, (0.3, -0.55, 0.2)),
        (_mouth, (0.5, -0.85, -0.25)),
        (_eyes, (0.6, -0.15, 0.4)),
        (_brows, (0.75, 0.05, 0.6)),
        (_glasses, (0.9, -0.3, 0.4)),
        (_mask, (0.9, -1.2, 0.2)),
    ]:
        spot = _box(head, *box)
        paint(face[(slice(None), *spot)], who, shot, head.crop(spot), hair)
    _front_hair(face, who, shot, head, hair)
    _near_ear(face, who, head, skin)
    face *= shade(head, shot)

    picture = _background(shot, size)
    _body(picture, who, shot, plane, skin)
    _back_hair(picture, who, shot, plane, hair)
    _ears(picture, who, shot, plane, skin)
    _mix(picture, face, head.inside)
    _hand(picture, shot, plane, skin)
    return _photograph(picture, shot)


def _box(head: Surface, reach: float, low: float, high: float) -> tuple[slice, slice]:
    """Return the pixels that hold all of the face with |X| < reach and low < Y < high: painting less is faster."""
    within = (np.abs(head.x) < reach) & (head.y > low) & (head.y < high)
    rows, columns = np.flatnonzero(within.any(1)), np.flatnonzero(within.any(0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _mix(picture: Array, paint: Array, mask: Array) -> None:
    """Blend `paint` (a colour or a picture) into `picture` where `mask` is 1."""
    picture += mask * (paint - picture)


def _darken(picture: Array, mask: Array, shadow: Array = GREY) -> None:
    """Remove the share `mask * shadow` of the light."""
    picture *= 1 - mask * shadow


def _ridge(distance: Array, width: float) -> Array:
    """Return a soft line where `distance` is 0."""
    t = distance * (1 / width)
    return np.exp(-t * t)


# ---------------------------------------------------------------- on the face


def _skin(face: Array, who: SimpleNamespace, shot: SimpleNamespace, head: Surface, hair: Array) -> None:
    """Paint blush, the folds from nose to mouth, moles, freckles."""
    x, y, side = head.x, head.y, np.abs(head.x)
    _darken(face, who.blush * bump(side, y, who.cheek_x, who.nose_y + 0.02, 0.18, 0.15), BLUSH)
    line = side - (who.nose_width + 0.05 + 0.55 * (who.nose_y - y))
    fold = _ridge(line, 0.036) * edge(who.nose_y + 0.02 - y, 0.1) * edge(y - who.mouth_y - 0.02, 0.15)
    _darken(face, min(max(who.fold + 0.15 * shot.smile, 0), 0.5) * fold)
    for mx, my, radius, depth in who.moles:
        _darken(face, depth * edge(radius - np.hypot(x - mx, y - my), max(head.pixel, 0.02)), BROWN)
    if who.freckles > 0:
        dots = np.sin(x * 47 + who.phase[0]) * np.sin(y * 43 + who.phase[1] + 2 * np.sin(x * 9 + who.phase[2]))
        _darken(face, who.freckles * bump(side, y, 0.2, who.nose_y + 0.12, 0.3, 0.2) * edge(dots - 0.55, 0.3), BROWN)


def _beard(face: Array, who: SimpleNamespace, shot: SimpleNamespace, head: Surface, hair: Array) -> None:
    if who.beard == 0:
        return
    x, y = head.x, head.y
    jaw = edge(who.mouth_y + 0.06 - y + 0.9 * np.maximum(np.abs(x) - 0.34, 0), 0.2)
    upper = who.moustache * bump(x, y, 0, (who.nose_y + who.mouth_y) / 2, who.mouth_width * 1.15, 0.06)
    grain = 0.85 + 0.15 * np.sin(x * 71 + 5 * np.sin(y * 31 + who.phase[0])) * np.sin(y * 59 + who.phase[1])
    _mix(face, hair * 0.8, who.beard * shot.shaving * np.maximum(jaw, upper) * grain)


def _nose(face: Array, who: SimpleNamespace, shot: SimpleNamespace, head: Surface, hair: Array) -> None:
    """Paint nostrils, the crease round the wings, and the shadow below the tip."""
    side, width = np.abs(head.x), who.nose_width
    nostril = bump(side, head.y, width * 0.52, who.nose_y - 0.055, width * 0.26, 0.022)
    wing = np.hypot((side - width * 0.62) * (2 / width), (head.y - who.nose_y) * (1 / 0.08))
    crease = _ridge(wing - 1, 0.17) * edge(side - width * 0.7, 0.06)
    under = bump(head.x, head.y, 0, who.nose_y - 0.085, width, 0.035)
    _darken(face, 0.6 * nostril, WARM)
    _darken(face, 0.2 * crease + 0.15 * under, WARM)


def mouth_half(who: SimpleNamespace, shot: SimpleNamespace) -> float:
    """Return half the width of the mouth."""
    return who.mouth_width * (1 + 0.16 * shot.smile - 0.1 * shot.mouth_open)


def lip_lines(who: SimpleNamespace, shot: SimpleNamespace, x: Array) -> tuple[Array, Array, Array, Array]:
    """Return, at x from -1 to 1 across the mouth, its middle line above mouth_y, and from there half the opening, the
    height of the upper lip and the depth of the lower one."""
    arch = np.maximum(1 - x * x, 0)
    line = (who.mouth_curve + 0.06 * shot.smile) * (x * x - 0.4)
    gap = 0.075 * shot.mouth_open * arch
    bow = 1 - who.bow * _ridge(x, 0.2)
    top = gap + who.upper_lip * np.sqrt(arch) * bow * (1 - 0.35 * np.abs(x))
    return line, gap, top, gap + who.lower_lip * arch


def _mouth(face: Array, who: SimpleNamespace, shot: SimpleNamespace, head: Surface, hair: Array) -> None:
    """Paint two lips with a bow, opened and curved by the expression, teeth between them and a shadow below."""
    half, soft = mouth_half(who, shot), max(head.pixel, 0.02)
    x = head.x * (1 / half)
    line, gap, top, low = lip_lines(who, shot, x)
    y = head.y - who.mouth_y - line
    lips = edge(top - y, soft) * edge(y + low, soft) * edge(1 - np.abs(x), 0.08)
    _darken(face, min(max(who.lip_colour + shot.lipstick, 0.1), 0.95) * lips, RED)
    line = _ridge(np.maximum(np.abs(y) - gap, 0), 0.5 * soft + 0.008) * edge(1.05 - np.abs(x), 0.1)
    _darken(face, 0.65 * line, WARM)
    if shot.mouth_open > 0.15:
        _mix(face, TEETH, shot.teeth * edge(gap - np.abs(y), soft) * edge(y + 0.3 * gap, soft))
    _darken(face, 0.25 * bump(head.x, head.y, 0, who.mouth_y - who.lower_lip - 0.07, half * 0.5, 0.03))


def lid_lines(who: SimpleNamespace, shot: SimpleNamespace, x: Array) -> tuple[Array, Array, Array]:
    """Return, at x from -1 (inner corner) to 1 (outer) across an eye, its arch 0..1, and its lids above its middle."""
    arch = np.maximum(1 - x * x, 0)
    top = who.lid_top * shot.eye_open * arch * (1 + who.lid_skew * x)
    low = -who.lid_low * (0.4 + 0.6 * shot.eye_open) * (1 - 0.3 * max(shot.smile, 0)) * arch
    return arch, top, low


def _eyes(face: Array, who: SimpleNamespace, shot: SimpleNamespace, head: Surface, hair: Array) -> None:
    """Paint white, iris, pupil and glint in the opening of the lids, with crease, lashes, shadow and bag round it."""
    sign, soft = np.sign(head.x), head.pixel
    x = (np.abs(head.x) - who.eye_x) * (1 / who.eye_width)
    y = head.y - who.eye_y - who.eye_tilt * x
    arch, top, low = lid_lines(who, shot, x)
    _darken(face, who.eye_bag * bump(x, y, 0, -who.lid_low - 0.05, 0.9, 0.045), WARM)
    _darken(face, who.eye_shadow * bump(x, y, 0, who.lid_top, 1.1, 0.08), WARM)
    _darken(face, who.crease * arch * _ridge(y - top - who.crease_gap, 0.5 * soft + 0.006))

    gaze_x, gaze_y = sign * x * who.eye_width - shot.gaze_x, y - (shot.gaze_y + 0.15 * who.lid_top)
    radius = np.hypot(gaze_x, gaze_y)
    ball = np.empty_like(face)
    ball[:] = EYE_WHITE
    _mix(ball, who.iris_colour, edge(who.iris - radius, soft))
    _mix(ball, PUPIL, edge(who.iris * 0.45 - radius, soft))
    _mix(ball, WHITE, 0.8 * edge(0.016 - np.hypot(gaze_x + 0.02, gaze_y - 0.02), soft))
    _darken(ball, 0.4 * edge(y - top + 0.03, 0.05))
    _mix(face, ball, edge(top - y, soft) * edge(y - low, soft) * (arch > 0))

    _darken(face, 0.8 * _ridge(y - top, 0.5 * soft + who.lashes) * edge(1.04 - np.abs(x), 0.1))
    _darken(face, 0.3 * _ridge(y - low, 0.5 * soft + 0.005) * arch)


def _brows(face: Array, who: SimpleNamespace, shot: SimpleNamespace, head: Surface, hair: Array) -> None:
    """Paint arched brows that thin outwards, raised or knitted by the expression."""
    _mix(face, hair * 0.75, who.brow_dense * brow_mask(who, shot, head))


def brow_line(who: SimpleNamespace, shot: SimpleNamespace, along: Array, sign: Array) -> Array:
    """Return the height of a brow, at `along` from 0 (inner end) to 1 (outer); `sign` is its side."""
    line = who.brow_y + 0.05 * shot.brow_raise + who.brow_uneven * sign
    return line + who.brow_arch * 4 * along * (1 - along) + who.brow_tilt * along - 0.05 * shot.frown * (1 - along)


def brow_mask(who: SimpleNamespace, shot: SimpleNamespace, head: Surface) -> Array:
    along = (np.abs(head.x) - who.brow_x) * (1 / who.brow_length)
    line = brow_line(who, shot, along, np.sign(head.x))
    thick = who.brow_thick * (1 - who.brow_thin * np.clip(along, 0, 1) ** 2)
    return edge(thick - np.abs(head.y - line), 0.02 + head.pixel) * edge(0.5 - np.abs(along - 0.5), 0.12)


def _glasses(face: Array, who: SimpleNamespace, shot: SimpleNamespace, head: Surface, hair: Array) -> None:
    """Paint two rounded frames, a bridge and temples; the lenses may be tinted."""
    if not shot.glasses:
        return
    side, power = np.abs(head.x), shot.lens_power
    dx, dy = np.abs(side - who.eye_x - 0.01) * (1 / shot.lens_x), np.abs(head.y - who.eye_y + 0.02) * (1 / shot.lens_y)
    within = (1 - (dx**power + dy**power) ** (1 / power)) * shot.lens_y
    rim = edge(shot.rim - np.abs(within), head.pixel)
    bar = edge(shot.rim - np.abs(head.y - who.eye_y - 0.03), head.pixel) * edge(
        np.abs(side - who.eye_x) - shot.lens_x, 0.02
    )
    _mix(face, shot.rim_colour, shot.lens_tint * edge(within, head.pixel))
    _mix(face, shot.rim_colour, np.maximum(rim, bar))


def _mask(face: Array, who: SimpleNamespace, shot: SimpleNamespace, head: Surface, hair: Array) -> None:
    """Paint a cloth with pleats from the nose down."""
    if not shot.mask:
        return
    pleats = 1 - 0.12 * np.sin((head.y + 0.2 * (head.x * head.x)) * 22)
    _mix(face, shot.mask_colour * pleats, 0.97 * cloth_mask(who, shot, head))


def cloth_mask(who: SimpleNamespace, shot: SimpleNamespace, head: Surface) -> Array:
    return edge(who.nose_y + 0.12 + shot.mask_height - 0.45 * (head.x * head.x) - head.y, 0.05)


# ---------------------------------------------------------------- hair and ears


def _hairline(who: SimpleNamespace, shot: SimpleNamespace, head: Surface) -> Array:
    """Return the height where hair begins: forehead, widow's peak, parting, wisps, temples; lower behind the ears."""
    x, side = head.x, np.abs(head.x)
    temple = np.maximum(side - who.temple_x, 0)
    line = who.hairline - shot.fringe - who.widow_peak * _ridge(x, 0.14) + who.parting * np.tanh(x * 4)
    line = line + 0.03 * who.wisps * np.sin(x * 23 + who.phase[0]) + 4 * who.recede * side * side
    line = line - 20 * who.sideburn * temple * temple - 6 * np.maximum(0.22 - head.front, 0)
    return np.maximum(line, -0.1 - who.hair_length)


def _strands(who: SimpleNamespace, x: Array, y: Array) -> Array:
    """Return light and dark strands, 0.7..1.2."""
    flow = x * 38 + np.sin(y * (6 + 5 * who.curl) + who.phase[1]) * (3 * who.curl)
    return 0.95 + 0.16 * np.sin(flow + who.phase[2]) + 0.08 * np.sin(flow * 2.3 + y * 17)


def _front_hair(face: Array, who: SimpleNamespace, shot: SimpleNamespace, head: Surface, hair: Array) -> None:
    """Paint the hair on the head, whose strands run together at the crown, and the shadow below it."""
    above = head.y - _hairline(who, shot, head)
    _darken(face, 0.25 * who.hair_dense * edge(above + 0.06, 0.12))
    strands = _strands(who, head.x / np.maximum(1.7 - head.y, 0.3), head.y)
    _mix(face, hair * strands, who.hair_dense * edge(above, 0.05 + head.pixel))


def front_hair_mask(who: SimpleNamespace, shot: SimpleNamespace, head: Surface) -> Array:
    return edge(head.y - _hairline(who, shot, head), 0.05 + head.pixel)


def _back_hair(picture: Array, who: SimpleNamespace, shot: SimpleNamespace, plane: Plane, hair: Array) -> None:
    """Paint the volume of hair behind the head: a cap, and for long hair curtains beside the neck."""
    mask = back_hair_mask(who, shot, plane)
    _mix(picture, hair * (0.75 * shot.flat_light) * _strands(who, plane.x, plane.y), who.hair_dense * mask)


def back_hair_mask(who: SimpleNamespace, shot: SimpleNamespace, plane: Plane) -> Array:
    cx, cy = _place(shot, 0, 0.12, -0.25)
    dx = (plane.x - cx) * (1 / (who.head_width + who.hair_volume))
    dy = (plane.y - cy) * (1 / (who.crown - 0.1 + who.hair_volume))
    dy = np.where(dy > 0, dy, dy * (1 - who.hair_length))
    return edge(0.9 - 0.9 * np.hypot(dx, dy), 0.04 + plane.pixel) * edge(plane.y - 0.35 + 1.8 * who.hair_length, 0.25)


def _ears(picture: Array, who: SimpleNamespace, shot: SimpleNamespace, plane: Plane, skin: Array) -> None:
    """Paint the ears that stand out beside the head."""
    if who.hair_length >= EARS_COVERED:
        return
    for sign in (-1, 1):
        radius = ear_radius(who, shot, plane, sign)
        _mix(picture, skin * (0.92 * shot.flat_light), edge((1 - radius) * (0.6 * who.ear_size), plane.pixel))
        _darken(picture, 0.3 * _ridge(radius - 0.55, 0.17), WARM)


def ear_radius(who: SimpleNamespace, shot: SimpleNamespace, plane: Plane, sign: int) -> Array:
    """Return the distance from the middle of an ear beside the head; 1 at its edge."""
    cx, cy = _place(shot, sign * (who.head_width + who.ear_out), who.ear_y, -0.12)
    width = who.ear_size * 0.5 * (1 - sign * math.sin(shot.yaw))
    return np.hypot((plane.x - cx) * (1 / width), (plane.y - cy) * (1 / (1.55 * who.ear_size)))


def _near_ear(face: Array, who: SimpleNamespace, head: Surface, skin: Array) -> None:
    """Paint the ear on the side of the head when the face is turned away."""
    if who.hair_length >= EARS_COVERED:
        return
    radius = near_ear_radius(who, head)
    _mix(face, skin * 0.95, edge((1 - radius) * who.ear_size, head.pixel))
    _darken(face, 0.35 * (_ridge(radius - 1.05, 0.14) + _ridge(radius - 0.5, 0.17)), WARM)


def near_ear_radius(who: SimpleNamespace, head: Surface) -> Array:
    """Return the distance from the middle of the ear on the side of the head; 1 at its edge."""
    return np.hypot((head.front + 0.02) * (1 / who.ear_size), (head.y - who.ear_y) * (1 / (1.55 * who.ear_size)))


def _place(shot: SimpleNamespace, x: float, y: float, z: float) -> tuple[float, float]:
    """Return where the camera sees a point of the head."""
    r = rotation(shot)
    return r[0][0] * x + r[0][1] * y + r[0][2] * z, r[1][0] * x + r[1][1] * y + r[1][2] * z


# ---------------------------------------------------------------- round the face


def _background(shot: SimpleNamespace, size: int) -> Array:
    """Return a gradient between two colours with a few soft blobs, round and square."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = line[None, :], line[:, None]
    ramp = np.clip(0.5 + 0.5 * (shot.slope[0] * x + shot.slope[1] * y), 0, 1)
    picture = shot.back[0] + ramp * (shot.back[1] - shot.back[0])
    for cx, cy, radius, square, blob in shot.blobs:
        distance = np.maximum(np.abs(x - cx), np.abs(y - cy)) if square else np.hypot(x - cx, y - cy)
        _mix(picture, blob, 0.8 * edge(radius - distance, shot.bokeh))
    return picture


def _body(picture: Array, who: SimpleNamespace, shot: SimpleNamespace, plane: Plane, skin: Array) -> None:
    """Paint a neck in the shadow of the chin, and clothes."""
    neck = edge(who.neck - np.abs(plane.x + 0.1 * shot.yaw), 0.03 + plane.pixel) * (plane.y < -0.2)
    _mix(picture, skin * (0.62 * shot.flat_light), neck)
    side = np.abs(plane.x)
    collar = shot.collar - 0.35 * np.maximum(side - 0.3, 0) ** 2 + shot.neckline * np.minimum(side - 0.4, 0)
    _mix(picture, shot.clothes * shot.flat_light, edge(collar - plane.y, 0.03 + plane.pixel))


def _hand(picture: Array, shot: SimpleNamespace, plane: Plane, skin: Array) -> None:
    """Paint a bar in front of the face: a few fingers, or a held object."""
    if not shot.hand:
        return
    mask, across = hand_mask(shot, plane)
    fingers = 0.55 + 0.45 * np.abs(np.cos(across * (1.5 * math.pi / shot.hand_width)))
    _mix(picture, (skin if shot.hand_is_skin else shot.clothes) * shot.flat_light * fingers, mask)


def hand_mask(shot: SimpleNamespace, plane: Plane) -> tuple[Array, Array]:
    """Return the mask of the bar, and the distance from its middle line."""
    cos, sin = math.cos(shot.hand_angle), math.sin(shot.hand_angle)
    dx, dy = plane.x - shot.hand_x, plane.y - shot.hand_y
    across, along = cos * dx + sin * dy, cos * dy - sin * dx
    return edge(np.minimum(shot.hand_width - np.abs(across), along), 0.02 + plane.pixel), across


def _photograph(picture: Array, shot: SimpleNamespace) -> Array:
    """Apply exposure, white balance, blur, saturation, contrast and noise; return 8 bits, channels last."""
    picture = 1.1 - 1.1 * np.exp(picture * (-1.35 * shot.gain))  # bright parts saturate gently
    picture = _blur(picture, shot.blur * picture.shape[-1] / 112)
    grey = picture.mean(0)
    picture = (grey + (picture - grey) * shot.saturation - 0.5) * shot.contrast + (0.5 + shot.brightness)
    noise = np.random.default_rng(shot.noise_seed).standard_normal(picture.shape, dtype=np.float32)
    picture = np.clip(picture + noise * shot.noise, 0, 1) * 255 + 0.5
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(1, 2, 0))


def _blur(picture: Array, sigma: float) -> Array:
    """Apply a Gaussian blur that reaches three pixels, along columns, then along rows."""
    if sigma < 0.25:
        return picture
    taps = [math.exp(-(k * k) / (2 * sigma * sigma)) for k in range(4)]
    total = taps[0] + 2 * sum(taps[1:])
    for _ in range(2):
        n = picture.shape[1]
        padded = np.pad(picture, ((0, 0), (3, 3), (0, 0)), mode="edge")
        picture = padded[:, 3 : 3 + n] * (taps[0] / total)
        for k in range(1, 4):
            picture += (padded[:, 3 - k : 3 - k + n] + padded[:, 3 + k : 3 + k + n]) * (taps[k] / total)
        picture = picture.swapaxes(1, 2)
    return picture
