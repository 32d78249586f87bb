"""Upgrades of a gallery: vectors that stay, vectors that are mapped, thresholds that are never another pair's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from check_toys import Patterns, RedEye, red_eye
from facedistill.data.dataset import Dataset
from facedistill.errors import UserError
from facedistill.gallery import Gallery, Mapping
from facedistill.gallery.upgrade import keep_vectors, map_vectors
from facedistill.models.model import Model

OLD, NEW = red_eye(space="a"), red_eye(backbone=RedEye(seed=1), space="b")  # NEW has the same values in another order
WIDE = red_eye(backbone=RedEye(seed=1), space="c", projection=nn.Linear(16, 24, bias=False))
OTHERS = Dataset(Patterns(people=240))  # images to fit and calibrate with
SAME = red_eye(std=140.0, space="a")


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    """Twenty people with two vectors each, enrolled by OLD, and OLD's own threshold."""
    found = Gallery.create(tmp_path / "people.gallery", space="a", dim=16)
    for name, vectors in _vectors(OLD).items():
        found.add(name, vectors, made_by=OLD.fingerprint())
    found.set_threshold(OLD.fingerprint(), OLD.fingerprint(), far=1e-3, value=0.777)
    return found


def _vectors(model: Model) -> dict[str, np.ndarray]:
    people = Dataset(Patterns(people=20, photos=2, grey=True))
    vectors = model.embed(people.batch(range(len(people))).images).numpy()
    return {name: vectors[2 * i : 2 * i + 2] for i, name in enumerate(people.class_names)}


def _stored(gallery: Gallery) -> np.ndarray:
    with Gallery.open(gallery.path) as found:
        return np.array(found.matrix()[0])


@pytest.mark.parametrize("new", [NEW, WIDE])
def test_mapped_vectors_are_where_the_new_model_puts_the_photos(new: Model, gallery: Gallery, tmp_path: Path) -> None:
    said = map_vectors(gallery, OLD, new, OTHERS, tmp_path / "map.safetensors")
    truth = np.concatenate(list(_vectors(new).values()))
    stored = _stored(gallery)
    assert (gallery.space, gallery.dim) == (new.space, new.embedding_dim) and stored.shape == truth.shape
    assert (stored * truth).sum(1).min() > (0.97 if new is NEW else 0.9)  # WIDE bends: lengths are lost before it
    assert "40 vectors mapped to space" in said and "840 images through both models" in said
    mapping = Mapping.load(tmp_path / "map.safetensors")
    assert (mapping.old, mapping.new) == ("a", new.space)
    np.testing.assert_allclose(mapping(np.concatenate(list(_vectors(OLD).values()))), stored, atol=1e-5)


def test_old_thresholds_go_and_new_ones_are_measured_between_the_new_model_and_the_mapped_vectors(
    gallery: Gallery,
) -> None:
    said = map_vectors(gallery, OLD, NEW, OTHERS)
    (pair,) = gallery.thresholds
    (made_by,) = gallery.models()
    assert pair == (NEW.fingerprint(), made_by) and made_by not in (OLD.fingerprint(), NEW.fingerprint())
    found = {threshold.far: threshold.value for threshold in gallery.thresholds[pair]}
    assert set(found) == {1e-2, 1e-3, 1e-4} and 0.777 not in found.values()
    assert "thresholds of the new model in this gallery, from 360 images" in said
    # At that threshold, about one in 100 comparisons of two enrolled people's vectors by NEW's own photos passes.
    strangers = np.stack([vectors[0] for vectors in _vectors(NEW).values()])
    stored, people, _ = gallery.matrix()
    scores = strangers @ stored.T
    other = np.arange(20)[:, None] != people
    assert (scores[other] >= found[1e-2]).mean() < 0.05


def test_without_people_no_threshold_is_made_and_none_is_left(gallery: Gallery) -> None:
    unlabelled = Patterns(people=240)
    unlabelled.labels, unlabelled.class_names = np.zeros(len(unlabelled.keys), np.int64), ["photos"]
    said = map_vectors(gallery, OLD, NEW, Dataset(unlabelled))
    assert gallery.thresholds == {} and "no threshold was made" in said and "1,200 images" in said


@pytest.mark.parametrize("data", [OTHERS, None])
def test_a_model_of_the_same_space_leaves_every_vector_and_gets_its_own_thresholds(
    data: Dataset | None, gallery: Gallery
) -> None:
    before = _stored(gallery)
    said = keep_vectors(gallery, OLD, SAME, data)
    assert np.array_equal(before, _stored(gallery)) and "its 40 vectors stay as they are" in said
    old, pair = (OLD.fingerprint(),) * 2, (SAME.fingerprint(), OLD.fingerprint())
    assert [t.value for t in gallery.thresholds[old]] == [0.777]  # still right for the old model
    assert (pair in gallery.thresholds) == (data is not None)
    assert ("no threshold was made (without images of people)" in said) == (data is None)


def test_what_is_refused_changes_nothing(gallery: Gallery) -> None:
    before = _stored(gallery)
    for act, expected in (
        (lambda: map_vectors(gallery, NEW, OLD, OTHERS), "holds vectors of space a, but the old model is of space b"),
        (lambda: keep_vectors(gallery, NEW, NEW, None), "holds vectors of space a, but the old model is of space b"),
        (lambda: map_vectors(gallery, SAME, NEW, OTHERS), "40 of 40 vectors were made by other models than --from"),
        (lambda: map_vectors(gallery, OLD, NEW, Dataset(Patterns(people=20))), "needs at least 200 images"),
    ):
        with pytest.raises(UserError, match=expected):
            act()
    assert np.array_equal(before, _stored(gallery)) and gallery.space == "a" and len(gallery.thresholds) == 1


@pytest.fixture(autouse=True)
def _fixed() -> None:
    torch.manual_seed(0)
