"""The landmarks and classes of rendered faces agree with the pictures, and leave them as they are."""

from types import SimpleNamespace

import numpy as np
import pytest

from facedistill.data.synthetic.faces import SyntheticFaces, draw_person, draw_shot
from facedistill.data.synthetic.paint import draw_face
from facedistill.data.synthetic.priors import (
    BACKGROUND,
    HAIR,
    LEFT_EAR,
    LEFT_EYE,
    LOWER_LIP,
    MOUTH,
    NOSE,
    RIGHT_EYE,
    SKIN,
    UPPER_LIP,
    face_priors,
)


def bare(seed: int, **changes: float) -> tuple[SimpleNamespace, SimpleNamespace]:
    """A person and a plain photograph from the front: nothing covers the face."""
    who, shot = draw_person(seed, 0), draw_shot(seed, 0, 0)
    plain = {"yaw": 0, "pitch": 0, "roll": 0, "shift_x": 0, "shift_y": 0, "noise": 0, "blur": 0, "zoom": 1}
    for name, value in (plain | {"mask": False, "hand": False, "glasses": False, "fringe": 0} | changes).items():
        setattr(shot, name, value)
    return who, shot


def test_the_option_changes_neither_images_nor_fingerprint() -> None:
    plain, with_priors = SyntheticFaces(3, 2, 48), SyntheticFaces(3, 2, 48, priors=True)
    assert np.array_equal(plain.render(range(6)), with_priors.render(range(6)))
    assert plain.fingerprint == with_priors.fingerprint and (plain.has_priors, with_priors.has_priors) == (False, True)


def test_shapes_and_values() -> None:
    source = SyntheticFaces(6, 2, 64, seed=1, priors=True)
    for i in range(12):
        points, classes = source.priors(i)
        assert points.shape == (68, 2) and points.dtype == np.float32 and np.isfinite(points).all()
        assert classes.shape == (64, 64) and classes.dtype == np.uint8 and classes.max() <= 12
        assert {BACKGROUND, SKIN} <= set(classes.ravel())
    with pytest.raises(IndexError):
        source.priors(12)


@pytest.mark.parametrize("seed", range(4))
def test_every_part_is_there_and_where_its_landmarks_are(seed: int) -> None:
    who, shot = bare(seed, mouth_open=1.0, eye_open=1.0)
    points, classes = face_priors(who, shot, 112)
    assert set(range(13)) - {7, 8, HAIR} <= set(classes.ravel())
    for parts, at in (
        ((RIGHT_EYE,), slice(36, 42)),
        ((LEFT_EYE,), slice(42, 48)),
        ((UPPER_LIP, LOWER_LIP, MOUTH), slice(48, 60)),
    ):
        rows, columns = np.nonzero(np.isin(classes, parts))
        box = points[at]
        assert np.abs(columns.min() - box[:, 0].min()) < 2.5 and np.abs(columns.max() - box[:, 0].max()) < 2.5
        assert np.abs(rows.min() - box[:, 1].min()) < 2.5 and np.abs(rows.max() - box[:, 1].max()) < 2.5
    tip = points[30].round().astype(int)
    assert classes[tip[1], tip[0]] == NOSE
    chin = points[8]
    below = np.nonzero(classes[:, round(float(chin[0]))] == SKIN)[0].max()
    assert abs(below - chin[1]) < 2.5
    jaw = points[:17]
    assert (np.diff(jaw[:, 0]) > -1.5).all() and jaw[8, 1] == jaw[:, 1].max()


def test_landmarks_follow_the_head() -> None:
    """What a roll, a shift and a zoom do to the picture, they do to the points: similarity transforms, by hand."""
    size = 112
    who, straight = bare(1)
    before = face_priors(who, straight, size)[0]
    who, moved = bare(1, roll=0.2, shift_x=0.05, shift_y=-0.03, zoom=1.1)
    after = face_priors(who, moved, size)[0]
    middle = (size - 1) / 2
    v = (before - middle) * 2 / size  # head units, y down
    cos, sin = np.cos(0.2), np.sin(0.2)
    x, y = v[:, 0], -v[:, 1]
    # camera_plane: plane = R(roll) (across - shift), so the picture's place of a point is R^-1 plane + shift
    across, down = cos * x + sin * y, -(cos * y - sin * x)
    expected = np.stack([across + 0.05, down - (-0.03)], 1)
    expected = expected * 1.1 * size / 2 + middle
    inner = slice(17, 68)
    error = np.abs(after[inner] - expected[inner])
    shift_in_zoom = np.abs((after[inner] - expected[inner]).mean(0))
    assert (error - shift_in_zoom).max() < 1.2 and shift_in_zoom.max() < 1.2


def test_half_the_size_is_half_the_place() -> None:
    who, shot = bare(2, yaw=0.2)
    large, small = (face_priors(who, shot, size)[0] for size in (112, 56))
    error = np.abs((large + 0.5) / 2 - 0.5 - small).max(1)
    assert error[17:].max() < 0.3 and error[:17].max() < 1.5  # the outline has no more than a pixel


def test_a_turned_head_hides_one_side_and_shows_an_ear() -> None:
    who, shot = bare(0, yaw=0.5)
    who.hair_length = 0.0
    points, classes = face_priors(who, shot, 112)
    nose = points[30, 0]
    left, right = points[16, 0] - nose, nose - points[0, 0]
    assert abs(left - right) > 15  # the far side is foreshortened
    assert np.isin(classes, [LEFT_EAR, LEFT_EAR + 1]).any()


def test_what_covers_the_face_is_background() -> None:
    who, shot = bare(3)
    shot.mask_height = 0.0
    free = face_priors(who, shot, 112)[1]
    shot.mask = True
    masked = face_priors(who, shot, 112)[1]
    mouth = np.isin(free, [UPPER_LIP, LOWER_LIP, MOUTH])
    assert mouth.any() and (masked[mouth] == BACKGROUND).all()
    assert np.array_equal(free == LEFT_EYE, masked == LEFT_EYE)


def test_classes_agree_with_the_colours_of_the_picture() -> None:
    """Skin is painted in one colour here, hair in another: the classes must find both again."""
    who, shot = bare(5, smile=0, tan=0)
    for name in ("melanin", "hue", "blush", "fold", "beard", "recede"):
        setattr(who, name, 0.0)
    who.hair_colour, who.hair_dense = np.zeros((3, 1, 1), np.float32), 1.0
    picture, classes = draw_face(who, shot, 112).astype(float).mean(2), face_priors(who, shot, 112)[1]
    assert picture[classes == HAIR].mean() < 0.5 * picture[classes == SKIN].mean()
    assert picture[np.isin(classes, [11, 12])].mean() < picture[classes == SKIN].mean()
