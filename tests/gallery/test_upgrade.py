"""Upgrades of a gallery: vectors that stay, vectors that are mapped, thresholds that are never another pair's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from check_toys import Patterns, RedEye, red_eye
from facedistill.data.dataset import Dataset
from facedistill.errors import UsageError, UserError
from facedistill.gallery import Gallery, Mapping
from facedistill.gallery.upgrade import enrol_again, keep_vectors, map_vectors, upgrade
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
        (lambda: map_vectors(gallery, SAME, NEW, OTHERS), "40 of 40 vectors are by other models than --from"),
        (lambda: map_vectors(gallery, OLD, NEW, Dataset(Patterns(people=20))), "needs at least 200 images"),
    ):
        with pytest.raises(UserError, match=expected):
            act()
    assert np.array_equal(before, _stored(gallery)) and gallery.space == "a" and len(gallery.thresholds) == 1


@pytest.fixture(autouse=True)
def _fixed() -> None:
    torch.manual_seed(0)


ALBUMS = Dataset(Patterns(people=25, photos=3, grey=True))  # the twenty enrolled people, and five more


def test_enrolled_again_everybody_has_the_new_models_vectors_of_the_photos(gallery: Gallery) -> None:
    said = enrol_again(gallery, WIDE, ALBUMS, OTHERS)
    with Gallery.open(gallery.path) as found:
        stored, people, names = found.matrix()
        assert names == [f"person{i:03d}" for i in range(20)] and found.models() == {WIDE.fingerprint(): 60}
    truth = WIDE.embed(ALBUMS.batch(range(60)).images).numpy()
    np.testing.assert_allclose(stored, truth, atol=1e-5)
    assert people.tolist() == np.repeat(np.arange(20), 3).tolist()
    assert list(gallery.thresholds) == [(WIDE.fingerprint(),) * 2] and (gallery.space, gallery.dim) == ("c", 24)
    assert "20 people enrolled again, 60 vectors of space c" in said and "5 people of patterns are not in" in said
    assert not list(gallery.path.parent.glob("*.upgrade*"))


def test_stopped_and_called_again_it_goes_on_with_the_people_who_are_left(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, embed = _stored(gallery), Model.embed
    embedded: list[int] = []
    allowed = 7

    def stopping(self: Model, images: torch.Tensor, flip: str = "sum") -> torch.Tensor:
        if len(embedded) == allowed:
            raise KeyboardInterrupt
        embedded.append(len(images))
        return embed(self, images, flip)

    monkeypatch.setattr(Model, "embed", stopping)
    with pytest.raises(KeyboardInterrupt):
        enrol_again(gallery, NEW, ALBUMS)
    assert (
        np.array_equal(before, _stored(gallery)) and gallery.space == "a"
    )  # the old vectors serve until all are there
    gallery.forget("person003")  # meanwhile: must not come back
    embedded.clear()
    allowed = 100
    said = enrol_again(gallery, NEW, ALBUMS)
    assert "6 people were already done" in said and len(embedded) == 13
    assert gallery.names() == [f"person{i:03d}" for i in range(20) if i != 3] and len(gallery) == 57


def test_begun_with_another_model_it_starts_anew(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Gallery, "become", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            enrol_again(gallery, NEW, ALBUMS)
    enrol_again(gallery, WIDE, ALBUMS)
    assert gallery.models() == {WIDE.fingerprint(): 60} and gallery.dim == 24


def test_somebody_enrolled_meanwhile_is_not_lost(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = Model.embed

    def meanwhile(self: Model, images: torch.Tensor, flip: str = "sum") -> torch.Tensor:
        with Gallery.open(gallery.path) as other:
            other.add("person024", np.ones(16), made_by=OLD.fingerprint())
        return embed(self, images, flip)

    with monkeypatch.context() as patch:
        patch.setattr(Model, "embed", meanwhile)
        with pytest.raises(UserError, match="people were added or forgotten meanwhile; run this again to resume"):
            enrol_again(gallery, NEW, ALBUMS)
    assert gallery.space == "a" and "person024" in gallery.names()
    assert "20 people were already done" in enrol_again(gallery, NEW, ALBUMS) and len(gallery.names()) == 21


def test_nobody_is_lost_for_want_of_a_photo(gallery: Gallery) -> None:
    with pytest.raises(UserError, match=r"no photos of 15 of 20 people \(person005.*nothing was changed"):
        enrol_again(gallery, NEW, Dataset(Patterns(people=5, photos=3, grey=True)))
    assert gallery.space == "a" and len(gallery) == 40


def test_the_way_follows_from_what_is_given(gallery: Gallery) -> None:
    with pytest.raises(UsageError, match=r"give --data IMAGES .* or --photos DIR .*measures which is good enough"):
        upgrade(gallery, OLD, NEW)
    assert "stay as they are" in upgrade(gallery, OLD, SAME)
    assert "enrolled again" in upgrade(gallery, OLD, SAME, photos=ALBUMS)
    assert "mapped to space b" in upgrade(gallery, SAME, NEW, data=OTHERS)


def test_a_gallery_of_other_numbers_does_not_take_its_place(gallery: Gallery, tmp_path: Path) -> None:
    other = Gallery.create(tmp_path / "int8.gallery", space="b", dim=16, precision="int8")
    with pytest.raises(UserError, match="another precision or flip"):
        gallery.become(other)
    assert len(gallery) == 40
