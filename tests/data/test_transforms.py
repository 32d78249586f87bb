"""Changes of one image, against their definitions."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from facedistill.data import transforms
from facedistill.data.transforms import blurred, covered, moved, noise, recoloured


def smooth(height: int = 40, width: int = 48) -> np.ndarray:
    """A picture that changes slowly, so that half a pixel is some grey values."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 100 * np.sin(x / 6 + c) * np.cos(y / 7 - c) for c in range(3)]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def expected_of(image: np.ndarray, angle: float, scale: float, across: float, down: float) -> np.ndarray:
    """OpenCV, with the map written from its definition: turn and scale about the middle, then shift."""
    height, width = image.shape[:2]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    turn = np.deg2rad(angle)
    back = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / scale
    offset = middle - back @ middle + [across, down]
    matrix = np.column_stack([back, offset]).astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


@given(angle=st.floats(-45, 45), scale=st.floats(1.0, 1.4), across=st.floats(-9, 9), down=st.floats(-9, 9))
@settings(max_examples=40)
def test_moved_is_what_opencv_does(angle: float, scale: float, across: float, down: float) -> None:
    found = np.asarray(moved(smooth(), angle, scale, across, down)).astype(int)
    assert np.abs(found - expected_of(smooth(), angle, scale, across, down)).max() <= 4  # cv2 rounds to 1/32 of a pixel


def test_the_two_ways_to_move_meet() -> None:
    found = np.asarray(moved(smooth(), 1e-6, 1.2, 3.3, -4.1)).astype(int)
    assert np.abs(found - np.asarray(moved(smooth(), 0.0, 1.2, 3.3, -4.1))).max() <= 1


def test_a_whole_shift_is_exact_and_repeats_the_edge() -> None:
    image = smooth()
    found = np.asarray(moved(image, across=3, down=-2))
    assert np.array_equal(found[2:, :-3], image[:-2, 3:])
    assert np.array_equal(found[0, :-3], image[0, 3:]) and np.array_equal(found[5, -1], image[3, -1])
    assert np.array_equal(np.asarray(moved(image)), image)


def test_padding_is_numpys() -> None:
    for margin in (1, 3, 50):
        expected = np.pad(smooth(), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        assert np.array_equal(transforms._padded(smooth(), margin), expected)


@given(st.floats(0.5, 1.5), st.floats(0.5, 1.5), st.floats(0, 1.5), st.floats(0.8, 1.2))
@settings(max_examples=30)
def test_recoloured_by_its_formula(brightness: float, contrast: float, saturation: float, gain: float) -> None:
    image = smooth()
    found = recoloured(Image.fromarray(image), brightness, contrast, saturation, (gain, 1, 1))
    x = image.astype(float)
    grey = x @ [0.299, 0.587, 0.114]
    x = grey[..., None] + saturation * (x - grey[..., None])
    x = 127.5 + contrast * (x * [gain, 1, 1] - 127.5)
    expected = np.clip(brightness * x, 0, 255)
    np.testing.assert_allclose(np.asarray(found), expected, atol=0.51)


def test_no_saturation_is_grey() -> None:
    found = np.asarray(recoloured(Image.fromarray(smooth()), saturation=0.0)).astype(int)
    assert np.ptp(found, axis=-1).max() == 0 and found.std() > 10


def test_noise_has_its_deviation_in_any_size() -> None:
    rng = np.random.default_rng(1)
    for shape in ((112, 112, 3), (600, 600, 3)):  # the second is larger than the table
        found = noise(shape, 8.0, rng)
        assert found.shape == shape and found.std() == pytest.approx(8, rel=0.02) and abs(found.mean()) < 0.1
    assert not np.array_equal(noise((9, 9, 3), 8.0, rng), noise((9, 9, 3), 8.0, rng))


def test_covered_is_a_rectangle_of_the_share() -> None:
    image = np.full((100, 80, 3), 7, np.uint8)
    found = covered(image, 0.2, 2.0, (0.5, 0.5), np.array([1, 2, 3], np.uint8))
    rows, columns = np.nonzero((found != 7).any(-1))
    high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert high * wide == len(rows) == pytest.approx(0.2 * 8000, rel=0.03) and high / wide == pytest.approx(2, rel=0.05)
    assert found[50, 40].tolist() == [1, 2, 3] and (image == 7).all()
    corner = covered(image, 0.2, 1.0, (0.0, 1.0), np.zeros(3, np.uint8))
    assert (corner == 0).all(-1).sum() == pytest.approx(0.05 * 8000, rel=0.1)  # a quarter of it is inside


def test_blurred_has_the_deviation_it_is_asked_for() -> None:
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    for sigma in (0.8, 2.0):
        spread = np.asarray(blurred(Image.fromarray(point), sigma)).astype(float)[..., 0]
        across = spread.sum(0) / spread.sum()
        assert np.sqrt((across * (np.arange(41) - 20) ** 2).sum()) == pytest.approx(sigma, rel=0.05)
