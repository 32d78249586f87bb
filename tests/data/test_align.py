"""Alignment against what can be written down: loops, formulas and images that are linear in x and y."""

import math

import numpy as np
import pytest

from facedistill.data.align import TEMPLATE, align, similarity, warp


def umeyama(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Umeyama (1991), as scikit-image's SimilarityTransform estimates it, by a singular value decomposition."""
    mean_p, mean_t = points.mean(0), target.mean(0)
    p, t = points - mean_p, target - mean_t
    covariance = t.T @ p / len(p)
    sign = np.array([1.0, 1.0 if np.linalg.det(covariance) >= 0 else -1.0])
    u, s, v = np.linalg.svd(covariance)
    scaled = (u @ np.diag(sign) @ v) * (s @ sign) / p.var(axis=0).sum()
    return np.column_stack([scaled, mean_t - scaled @ mean_p])


def sampled(pixels: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear, pixel centres at whole numbers, black outside."""
    left, top = math.floor(x), math.floor(y)
    total = np.zeros(3)
    for i, wy in ((top, top + 1 - y), (top + 1, y - top)):
        for j, wx in ((left, left + 1 - x), (left + 1, x - left)):
            if 0 <= i < pixels.shape[0] and 0 <= j < pixels.shape[1]:
                total += wx * wy * pixels[i, j]
    return total


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def turned(degrees: float, scale: float, x: float, y: float) -> np.ndarray:
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[a, -b, x], [b, a, y]])


@pytest.mark.parametrize("seed", range(10))
def test_similarity_is_umeyamas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = 100 * rng.normal(size=(5, 2)) + 50
    np.testing.assert_allclose(similarity(points, TEMPLATE), umeyama(points, TEMPLATE), atol=1e-9)


def test_similarity_recovers_a_transform() -> None:
    known = turned(33, 0.7, 12, -5)
    points = np.linalg.solve(known[:, :2], TEMPLATE.T - known[:, 2:]).T
    np.testing.assert_allclose(similarity(points.astype(np.float32), TEMPLATE), known, atol=1e-4)


def test_mirrored_points_are_not_reflected() -> None:
    mirrored = TEMPLATE * [-1, 1] + [112, 0]
    found = similarity(mirrored, TEMPLATE)
    assert np.linalg.det(found[:, :2]) > 0
    np.testing.assert_allclose(found, umeyama(mirrored, TEMPLATE), atol=1e-9)


@pytest.mark.parametrize("points", [np.full((5, 2), 3.0), np.full((5, 2), np.nan), TEMPLATE * [1, np.inf]])
def test_landmarks_of_no_face_are_named(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no face has such landmarks"):
        align(noise(50, 50), points)


def test_a_face_in_its_place_stays_as_it_is() -> None:
    pixels = noise(112, 112)
    np.testing.assert_array_equal(align(pixels, TEMPLATE), pixels)
    np.testing.assert_array_equal(align(noise(150, 130), np.add(TEMPLATE, (7, 20))), noise(150, 130)[20:132, 7:119])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_face_is_turned_back(quarters: int) -> None:
    upright = noise(112, 112)
    x, y = TEMPLATE.T
    points = {1: (y, 111 - x), 2: (111 - x, 111 - y), 3: (111 - y, x)}[quarters]  # np.rot90 turns counter-clockwise
    np.testing.assert_array_equal(align(np.rot90(upright, quarters).copy(), np.stack(points, axis=1)), upright)


@pytest.mark.parametrize(("height", "width"), [(9, 14), (1, 6), (6, 1), (30, 30)])
def test_warp_equals_a_loop_with_black_around(height: int, width: int) -> None:
    pixels = noise(height, width)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        transform = turned(rng.uniform(0, 360), rng.uniform(0.4, 2), *rng.uniform(-5, 20, 2))
        back = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))
        expected = [[sampled(pixels, *(back @ [x, y, 1])[:2]) for x in range(16)] for y in range(16)]
        assert np.abs(warp(pixels, transform, 16) - np.array(expected)).max() <= 0.501  # rounded, not cut off


def test_a_linear_image_stays_linear() -> None:
    y, x = np.mgrid[:160, :200]
    pixels = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    placed = turned(-20, 1.1, 60, 40)  # the template's place in the image
    points = TEMPLATE @ placed[:, :2].T + placed[:, 2]
    face = align(pixels, points).astype(np.float64)
    y, x = np.mgrid[:112, :112]
    from_x, from_y = (row[0] * x + row[1] * y + row[2] for row in placed)
    inside = (from_x >= 0) & (from_x <= 199) & (from_y >= 0) & (from_y <= 159)
    assert inside.mean() > 0.8
    expected = np.stack([from_x, from_y, 255 - from_x], axis=-1)
    assert np.abs(face - expected)[inside].max() <= 0.501


def test_the_edge_fades_into_black() -> None:
    white = np.full((10, 10, 3), 255, np.uint8)
    moved = warp(white, np.array([[1, 0, 0.25], [0, 1, 0]]), 10)  # 0.25 to the right
    assert moved[:, 0, 0].tolist() == [191] * 10  # 0.75 * 255
    assert (moved[:, 1:] == 255).all()


def test_a_face_outside_the_image_is_black() -> None:
    assert not align(noise(50, 50), TEMPLATE - 500).any()
    assert not align(noise(50, 50), TEMPLATE + 500).any()


def test_the_rest_of_a_large_photo_does_not_matter() -> None:
    photo = noise(900, 1200)
    points = TEMPLATE * 1.37 @ turned(10, 1, 0, 0)[:, :2].T + [600, 400]
    crop = photo[300:700, 450:850].copy()
    difference = align(photo, points).astype(int) - align(crop, points - [450, 300])
    assert np.abs(difference).max() <= 1  # coordinates are float32


def test_another_size_scales_the_template() -> None:
    pixels = noise(224, 224)
    np.testing.assert_array_equal(align(pixels, TEMPLATE * 2, 224), pixels)
    assert align(pixels, TEMPLATE, 64).shape == (64, 64, 3)
