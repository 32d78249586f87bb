"""What a rendered face shows and where: 68 landmarks and 13 classes, from the same formulas as the painters'.

Landmarks are in the iBUG order, classes in RIM's (arXiv 1905.10777): 0 background, 1 hair, 2 skin, 3 upper lip, 4 lower
lip, 5 left eye, 6 right eye, 7 left ear, 8 right ear, 9 nose, 10 mouth, 11 right brow, 12 left brow. Left and right are
the person's own; a cloth mask, a hand, the neck and clothes are background. Landmarks behind a covering are given where
they are.
"""

from types import SimpleNamespace

import numpy as np

from facedistill.data.synthetic.paint import (
    EARS_COVERED,
    back_hair_mask,
    brow_line,
    brow_mask,
    cloth_mask,
    ear_radius,
    front_hair_mask,
    hand_mask,
    lid_lines,
    lip_lines,
    mouth_half,
    near_ear_radius,
)
from facedistill.data.synthetic.surface import (
    Array,
    Plane,
    Surface,
    camera_plane,
    cast,
    edge,
    half_width,
    height_weight,
)

BACKGROUND, HAIR, SKIN, UPPER_LIP, LOWER_LIP, LEFT_EYE, RIGHT_EYE, LEFT_EAR, RIGHT_EAR, NOSE, MOUTH = range(11)
RIGHT_BROW, LEFT_BROW = 11, 12
SHOWN = 0.5  # of a pixel: what covers more of it is its class


def face_priors(who: SimpleNamespace, shot: SimpleNamespace, size: int) -> tuple[Array, Array]:
    """Return the landmarks (x, y) in pixels, float32 (68, 2), and the class of every pixel, uint8 (size, size).

    (0, 0) is the centre of the first pixel.
    """
    plane = camera_plane(shot, size)
    head = cast(who, shot, plane)
    return _projected(_points(who, shot), head), _classes(who, shot, plane, head)


def _classes(who: SimpleNamespace, shot: SimpleNamespace, plane: Plane, head: Surface) -> Array:
    found = np.zeros(plane.x.shape, np.uint8)
    ears, hair = who.hair_length < EARS_COVERED, who.hair_dense > SHOWN
    if hair:
        found[back_hair_mask(who, shot, plane) > SHOWN] = HAIR
    for sign, ear in ((-1, RIGHT_EAR), (1, LEFT_EAR)) if ears else ():
        found[ear_radius(who, shot, plane, sign) < 1] = ear
    face = _face_classes(who, shot, head)
    if shot.mask:
        face[cloth_mask(who, shot, head) > SHOWN] = BACKGROUND
    if hair:
        face[front_hair_mask(who, shot, head) > SHOWN] = HAIR
    if ears:
        near = near_ear_radius(who, head) < 1
        face[near] = np.where(head.x > 0, LEFT_EAR, RIGHT_EAR)[near]
    inside = head.inside > SHOWN
    found[inside] = face[inside]
    if shot.hand:
        found[hand_mask(shot, plane)[0] > SHOWN] = BACKGROUND
    return found


def _face_classes(who: SimpleNamespace, shot: SimpleNamespace, head: Surface) -> Array:
    """Return the class of every pixel as if the whole picture were the bare face."""
    side = np.abs(head.x)
    left = head.x > 0  # the person's left is the viewer's right
    found = np.full(head.x.shape, SKIN, np.uint8)

    # The painters have no mask of the nose: it widens from the bridge at the eyes to the wings.
    root, base = who.eye_y, who.nose_y - 0.085
    along = (root - head.y) / (root - base)
    width = who.bridge_width * 0.8 + (who.nose_width * 1.1 - who.bridge_width * 0.8) * np.clip(along, 0, 1)
    found[(along > 0) & (along < 1) & (side < width)] = NOSE

    soft, x = max(head.pixel, 0.02), head.x / mouth_half(who, shot)
    line, gap, top, low = lip_lines(who, shot, x)
    y = head.y - who.mouth_y - line
    lips = edge(top - y, soft) * edge(y + low, soft) * edge(1 - np.abs(x), 0.08) > SHOWN
    found[lips] = np.where(y > 0, UPPER_LIP, LOWER_LIP)[lips]
    found[lips & (np.abs(y) < gap)] = MOUTH

    x = (side - who.eye_x) / who.eye_width
    y = head.y - who.eye_y - who.eye_tilt * x
    arch, top, low = lid_lines(who, shot, x)
    eyes = (edge(top - y, head.pixel) * edge(y - low, head.pixel) > SHOWN) & (arch > 0)
    found[eyes] = np.where(left, LEFT_EYE, RIGHT_EYE)[eyes]

    brows = brow_mask(who, shot, head) > SHOWN
    found[brows] = np.where(left, LEFT_BROW, RIGHT_BROW)[brows]
    return found


def _points(who: SimpleNamespace, shot: SimpleNamespace) -> Array:
    """Return the 68 landmarks in face coordinates (X to the viewer's right, Y up), float64 (68, 2)."""
    return np.concatenate([_jaw(who, shot), *_brows(who, shot), _nose(who), *_eyes(who, shot), *_mouth(who, shot)])


def _jaw(who: SimpleNamespace, shot: SimpleNamespace) -> Array:
    """Return 17 points of the outline, from the ear at the viewer's left to the other, evenly by height's angle."""
    turn = np.linspace(0, np.pi, 17)
    high, chin = who.eye_y, who.chin + 0.10 * shot.mouth_open
    y = high - (high + chin) * np.sin(turn)
    x = half_width(who, y) * np.sqrt(np.maximum(1 - y * y * height_weight(who, shot, y), 0)) * -np.sign(np.cos(turn))
    x[8] = 0.0
    return np.stack([x + who.asymmetry * y, y + who.asymmetry * x], 1)


def _brows(who: SimpleNamespace, shot: SimpleNamespace) -> tuple[Array, Array]:
    along = np.linspace(1, 0, 5)
    sides = []
    for sign in (-1, 1):
        x = sign * (who.brow_x + along * who.brow_length)
        sides.append(np.stack([x, brow_line(who, shot, along, np.full(5, sign))], 1))
    return sides[0], sides[1][::-1]


def _nose(who: SimpleNamespace) -> Array:
    bridge = np.stack([np.zeros(4), np.linspace(who.eye_y, who.nose_y + 0.02, 4)], 1)
    across = np.linspace(-0.8, 0.8, 5)
    return np.concatenate([bridge, np.stack([across * who.nose_width, who.nose_y - 0.07 + 0.01 * across**2], 1)])


def _eyes(who: SimpleNamespace, shot: SimpleNamespace) -> tuple[Array, Array]:
    """Return six points of each eye: along the upper lid from its left corner, then back along the lower one."""
    x = np.array([1, 0.35, -0.35, -1, -0.35, 0.35])  # 1 is the outer corner
    _, top, low = lid_lines(who, shot, x)
    y = who.eye_y + who.eye_tilt * x + np.where(np.arange(6) < 3, top, low)
    across = who.eye_x + who.eye_width * x
    other = [3, 2, 1, 0, 5, 4]
    return np.stack([-across, y], 1), np.stack([across, y], 1)[other]


def _mouth(who: SimpleNamespace, shot: SimpleNamespace) -> tuple[Array, Array]:
    """Return 12 points of the outer edge of the lips and 8 of the inner one, each clockwise from the left corner."""
    outer = np.array([-1, -0.66, -0.33, 0, 0.33, 0.66, 1, 0.66, 0.33, 0, -0.33, -0.66])
    inner = np.array([-0.85, -0.4, 0, 0.4, 0.85, 0.4, 0, -0.4])
    found = []
    for x in (outer, inner):
        line, gap, top, low = lip_lines(who, shot, x)
        half = len(x) // 2
        upper = np.arange(len(x)) <= half
        edge_of = np.where(upper, top, -low) if x is outer else np.where(upper, gap, -gap)
        edge_of[[0, half]] = 0
        found.append(np.stack([x * mouth_half(who, shot), who.mouth_y + line + edge_of], 1))
    return found[0], found[1]


def _projected(points: Array, head: Surface) -> Array:
    """Return where points in face coordinates are in the picture: the nearest place that the camera sees, float32.

    A point that is turned away from the camera is on the outline, as in the 2D landmarks of the field.
    """
    rows, columns = np.nonzero(head.inside > SHOWN)
    x, y = head.x[rows, columns], head.y[rows, columns]
    distance = (points[:, :1] - x) ** 2 + (points[:, 1:] - y) ** 2
    nearest = distance.argmin(1)
    rows, columns = rows[nearest], columns[nearest]
    # Within the pixel: how far the point is, by how fast face coordinates change from pixel to pixel.
    xv, xu = (g[rows, columns] for g in np.gradient(head.x))
    yv, yu = (g[rows, columns] for g in np.gradient(head.y))
    dx, dy = points[:, 0] - head.x[rows, columns], points[:, 1] - head.y[rows, columns]
    area = xu * yv - xv * yu
    area = np.where(np.abs(area) < 1e-9, np.inf, area)
    across, down = np.clip((dx * yv - dy * xv) / area, -0.5, 0.5), np.clip((dy * xu - dx * yu) / area, -0.5, 0.5)
    return np.stack([columns + across, rows + down], 1).astype(np.float32)
