"""The synthetic faces: a pure function of their numbers, and not solved by colour or raw pixels."""

import pickle
from typing import Any

import numpy as np
import pytest

from facedistill.data.synthetic.faces import (
    CLIP,
    CONDITIONS,
    TRAITS,
    SyntheticFaces,
    contact_sheet,
    draw_person,
    draw_shot,
)
from facedistill.data.synthetic.paint import draw_face
from facedistill.errors import UserError


def test_same_numbers_give_the_same_pixels() -> None:
    one, two = (SyntheticFaces(identities=3, images=2, size=48, seed=5) for _ in range(2))
    assert np.array_equal(one.render(range(6)), two.render(range(6)))
    assert one.fingerprint == two.fingerprint
    assert not np.array_equal(one.read(0), SyntheticFaces(3, 2, 48, seed=6).read(0))


def test_read_and_render_agree() -> None:
    source = SyntheticFaces(identities=2, images=3, size=48)
    batch = source.render([4, 0, 4])
    assert batch.shape == (3, 48, 48, 3)
    assert np.array_equal(batch, np.stack([source.read(4), source.read(0), source.read(4)]))


def test_more_people_or_photographs_leave_the_others_as_they_are() -> None:
    few, many = SyntheticFaces(2, 2, 48), SyntheticFaces(5, 4, 48)
    for key in few.keys:
        assert np.array_equal(few.read(few.keys.index(key)), many.read(many.keys.index(key)))


def test_first_moves_the_range_of_people() -> None:
    whole, part = (
        SyntheticFaces(identities=4, images=2, size=48),
        SyntheticFaces(identities=2, images=2, size=48, first=2),
    )
    assert part.class_names == ["id000002", "id000003"]
    assert np.array_equal(part.render(range(4)), whole.render(range(4, 8)))
    assert not set(part.class_names) & set(SyntheticFaces(identities=2, images=2).class_names)


def test_what_a_source_promises() -> None:
    source = SyntheticFaces(identities=3, images=2, size=48)
    assert len(source) == 6
    assert source.keys[3] == "id000001/0001" and len(set(source.keys)) == 6
    assert source.labels.dtype == np.int64 and source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert pickle.loads(pickle.dumps(source)).fingerprint == source.fingerprint
    changes: list[dict[str, Any]] = [{}, {"size": 64}, {"seed": 1}, {"first": 9}, {"images": 3}]
    prints = {SyntheticFaces(**options).fingerprint for options in changes}
    assert len(prints) == 5
    with pytest.raises(IndexError):
        source.read(6)


@pytest.mark.parametrize("size", [16, 48, 64, 112])
def test_sizes(size: int) -> None:
    image = SyntheticFaces(identities=1, images=1, size=size).read(0)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8


def test_a_smaller_picture_shows_the_same_photograph() -> None:
    """Up to noise: 112 averaged down to 56 looks like 56, and unlike the person's next photograph."""
    large = SyntheticFaces(1, 2, 112).render(range(2)).astype(float).reshape(2, 56, 2, 56, 2, 3).mean((2, 4))
    small = SyntheticFaces(1, 2, 56).render(range(2)).astype(float)
    assert np.abs(large - small)[0].mean() < 9 < 20 < np.abs(large[0] - small[1]).mean()


def test_photographs_of_a_person_differ_and_the_person_does_not() -> None:
    source = SyntheticFaces(identities=1, images=4, size=48)
    images = source.render(range(4)).astype(int)
    assert all(np.abs(images[i] - images[j]).mean() > 5 for i in range(4) for j in range(i))
    assert vars(draw_person(0, 7)).keys() >= TRAITS.keys()
    assert vars(draw_shot(0, 7, 1)).keys() >= CONDITIONS.keys()
    assert draw_shot(0, 7, 0).yaw != draw_shot(0, 7, 1).yaw


def test_no_extreme_draw_breaks_the_picture() -> None:
    """Every trait and condition at one end of its range: no overflow, no division by zero, no NaN cast to 8 bits."""
    rng = np.random.default_rng(0)
    for k in range(150):
        who, shot = draw_person(11, k), draw_shot(11, k, 0)
        for drawn, table in [(who, TRAITS), (shot, CONDITIONS)]:
            for name, (mean, spread) in table.items():
                setattr(drawn, name, mean + spread * CLIP * rng.choice([-1, 1]).item())
        with np.errstate(all="raise", under="ignore"):
            assert draw_face(who, shot, 32).std() > 8


def test_people_are_told_apart_by_many_independent_traits() -> None:
    """No trait follows from another, and in units of their spread the nearest two of 300 people are far apart."""
    geometry = [name for name in TRAITS if name not in {"melanin", "hue", "blush", "lip_colour"}]
    people = np.array([[getattr(draw_person(0, k), name) for name in geometry] for k in range(300)])
    people = (people - people.mean(0)) / people.std(0)
    correlation = people.T @ people / 300 - np.eye(len(geometry))
    nearest = min(np.square(people[:k] - people[k]).sum(1).min() for k in range(1, 300))
    assert len(geometry) > 50 and np.abs(correlation).max() < 0.3 and nearest > 5**2


@pytest.mark.parametrize("feature", ["pixels", "pixels minus mean", "mean colour", "colour histogram", "hair colour"])
def test_colour_and_raw_pixels_do_not_solve_the_pairs(feature: str, faces: np.ndarray) -> None:
    vectors = FEATURES[feature](faces)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    assert 0.5 <= best_accuracy(vectors @ vectors.T, np.repeat(np.arange(60), 8)) <= 0.70


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(0)


def _histogram(faces: np.ndarray) -> np.ndarray:
    bins = (faces // 64) @ np.array([16, 4, 1])
    return _centred(np.sqrt(np.stack([np.bincount(b.ravel(), minlength=64) for b in bins])))


FEATURES = {
    "pixels": lambda f: f.reshape(len(f), -1).astype(np.float32),
    "pixels minus mean": lambda f: _centred(f.reshape(len(f), -1).astype(np.float32)),
    "mean colour": lambda f: _centred(f.mean((1, 2))),
    "colour histogram": _histogram,
    "hair colour": lambda f: _centred(f[:, :6, 12:36].mean((1, 2))),
}


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return SyntheticFaces(identities=60, images=8, size=48, seed=3).render(range(480))


def best_accuracy(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy over all pairs at the best threshold: an upper bound of any pair protocol's."""
    upper = np.triu_indices(len(labels), 1)
    same = (labels[:, None] == labels)[upper]
    genuine, impostor = np.sort(similarity[upper][same]), np.sort(similarity[upper][~same])
    thresholds = np.quantile(similarity[upper], np.linspace(0, 1, 500))
    accepted = 1 - np.searchsorted(genuine, thresholds) / len(genuine)
    rejected = np.searchsorted(impostor, thresholds) / len(impostor)
    return float(((accepted + rejected) / 2).max())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size is 0, expected 16 to 112"),
        ({"size": 224}, "size is 224, expected 16 to 112"),
        ({"identities": 0}, "identities is 0, expected at least 1"),
        ({"images": -1}, "images is -1, expected at least 1"),
        ({"identities": 10**9}, "1,000,000,000 x 20 images, expected at most 10,000,000 in all"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"first": -5}, "first is -5, expected at least 0"),
    ],
)
def test_senseless_numbers_are_one_clear_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SyntheticFaces(**options)


def test_contact_sheet_has_a_row_a_person() -> None:
    source = SyntheticFaces(identities=3, images=4, size=32)
    sheet = contact_sheet(source, identities=2, images=3)
    assert sheet.size == (96, 64)
    assert np.array_equal(np.asarray(sheet)[32:, :32], source.read(4))
