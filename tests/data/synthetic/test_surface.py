"""The head's geometry: where things are, which way it turns, where the light falls."""

from types import SimpleNamespace

import numpy as np
import pytest

from facedistill.data.synthetic.faces import CONDITIONS, TRAITS, draw_shot
from facedistill.data.synthetic.surface import Surface, camera_plane, cast, rotation, shade


def average_person() -> SimpleNamespace:
    return SimpleNamespace(**{name: mean for name, (mean, _) in TRAITS.items()})


def plain_shot(**changes: object) -> SimpleNamespace:
    shot = draw_shot(0, 0, 0)
    vars(shot).update({name: mean for name, (mean, _) in CONDITIONS.items()})
    vars(shot).update({"mouth_open": 0.0, "smile": 0.0, "light": [0.0, 0.0, 1.0], **changes})
    return shot


def look(size: int = 64, **changes: object) -> Surface:
    shot = plain_shot(**changes)
    return cast(average_person(), shot, camera_plane(shot, size))


def tip(head: Surface) -> tuple[int, int]:
    """Row and column of the pixel nearest to the camera: the tip of the nose when the head looks ahead."""
    row, column = np.unravel_index(np.argmax(head.depth), head.depth.shape)
    return int(row), int(column)


def test_a_head_that_looks_ahead_is_symmetric_and_shows_its_nose() -> None:
    head = look()
    assert np.allclose(head.depth, head.depth[:, ::-1], atol=1e-4)
    row, column = tip(head)
    assert column in (31, 32) and head.y[row, column] == pytest.approx(TRAITS["nose_y"][0], abs=0.06)
    assert head.inside[row, column] == 1 and head.inside[0, 0] == 0 and head.inside[-1, -1] == 0


def test_without_rotation_face_coordinates_are_the_pixels() -> None:
    shot = plain_shot()
    plane = camera_plane(shot, 64)
    head = look()
    assert np.allclose(head.x, plane.x, atol=1e-6) and np.allclose(head.y, plane.y, atol=1e-6)
    assert np.allclose(head.front, head.depth, atol=1e-6)


@pytest.mark.parametrize(("yaw", "pitch"), [(0.4, 0.0), (-0.4, 0.0), (0.0, 0.25), (0.3, -0.25)])
def test_every_point_lies_where_its_ray_passes(yaw: float, pitch: float) -> None:
    """Rotated back to the camera, the point of the face hit by a pixel projects to that pixel."""
    head = look(yaw=yaw, pitch=pitch)
    shot = plain_shot(yaw=yaw, pitch=pitch)
    plane = camera_plane(shot, 64)
    seen = np.einsum("ij,jyx->iyx", np.array(rotation(shot)), np.stack([head.x, head.y, head.front]))
    for got, expected in zip(seen, (plane.x, plane.y, head.depth)):
        assert np.allclose(got, expected, atol=1e-4)


def test_yaw_turns_the_nose_right_and_pitch_turns_it_up() -> None:
    ahead, right, up = tip(look()), tip(look(yaw=0.3)), tip(look(pitch=0.2))
    assert right[1] > ahead[1] + 4
    assert up[0] < ahead[0] - 2


def test_shift_zoom_and_roll_move_the_picture() -> None:
    assert tip(look(shift_x=0.25))[1] == tip(look())[1] + 8  # a quarter of half the picture's 64 pixels
    assert tip(look(shift_y=0.25))[0] == tip(look())[0] - 8
    assert look(zoom=1.2).inside.sum() > 1.2 * look().inside.sum()
    mirrored = look(roll=-0.2).inside[:, ::-1]
    assert np.allclose(look(roll=0.2).inside, mirrored, atol=1e-3)


def test_the_side_that_faces_the_light_is_brighter() -> None:
    head = look()
    light = shade(head, plain_shot(light=[0.7, 0.0, 0.714]))
    on_face = head.inside == 1
    left, right = on_face & (head.x < -0.3), on_face & (head.x > 0.3)
    assert light[:, right].mean() > 1.3 * light[:, left].mean()
    assert np.isfinite(light).all() and light.min() > 0
