"""Upgrades of a gallery: vectors that stay, are mapped, or are made again; thresholds that are never another pair's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from check_toys import Patterns, RedEye, red_eye
from facedistill.data.dataset import Dataset
from facedistill.errors import UsageError, UserError
from facedistill.gallery import Gallery, Mapping, upgrade
from facedistill.models.model import Model

OLD, NEW = red_eye(space="a"), red_eye(backbone=RedEye(seed=1), space="b")  # NEW has the same values in another order
WIDENING = nn.Linear(16, 24, bias=False)
WIDENING.weight = nn.Parameter(torch.randn(24, 16, generator=torch.Generator().manual_seed(0)))
WIDE = red_eye(backbone=RedEye(seed=1), space="c", projection=WIDENING)
SAME = red_eye(std=140.0, space="a")
ALBUMS = Dataset(Patterns(people=25, photos=3, grey=True))  # the twenty enrolled people, and five more


def _written(folder: Path, images: Dataset, people: bool = True) -> str:
    """The images as PNG, in a folder for each person or all in one."""
    for i, key in enumerate(images.keys):
        place = folder / (images.class_names[images.labels[i]] if people else "photos")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.image(i)).save(place / f"{key}.png")
    return str(folder)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> str:
    """1,200 images of nobody who is enrolled, without names."""
    return _written(tmp_path_factory.mktemp("others"), Dataset(Patterns(people=240)), people=False)


@pytest.fixture(scope="module")
def albums(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _written(tmp_path_factory.mktemp("albums"), ALBUMS)


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
def test_mapped_vectors_are_where_the_new_model_puts_the_photos(
    new: Model, gallery: Gallery, others: str, tmp_path: Path
) -> None:
    said = upgrade(gallery, OLD, new, others, out=tmp_path / "map.safetensors")
    truth = np.concatenate(list(_vectors(new).values()))
    stored = _stored(gallery)
    assert (gallery.space, gallery.dim) == (new.space, new.embedding_dim) and stored.shape == truth.shape
    assert (stored * truth).sum(1).min() > (0.97 if new is NEW else 0.85)  # WIDE bends: lengths are lost before it
    assert "40 vectors mapped to space" in said and "1,200 images through both models" in said
    mapping = Mapping.load(tmp_path / "map.safetensors")
    assert (mapping.old, mapping.new) == ("a", new.space)
    np.testing.assert_allclose(mapping(np.concatenate(list(_vectors(OLD).values()))), stored, atol=1e-5)


def test_old_thresholds_go_and_the_new_one_is_of_the_new_model_and_the_mapped_vectors(
    gallery: Gallery, others: str
) -> None:
    said = upgrade(gallery, OLD, NEW, others)
    ((pair, (threshold,)),) = gallery.thresholds.items()
    (made_by,) = gallery.models()
    assert pair == (NEW.fingerprint(), made_by) and made_by not in (OLD.fingerprint(), NEW.fingerprint())
    assert threshold.far == 1e-4 and threshold.value != 0.777
    assert f"at FAR 0.0001: {threshold.value:.3f}" in said
    # NEW's own embeddings of the strangers: one in 10,000 of their comparisons with the mapped vectors passes.
    strangers = Dataset(Patterns(people=240))
    scores = NEW.embed(strangers.batch(range(len(strangers))).images).numpy() @ gallery.matrix()[0].T
    assert (scores >= threshold.value - 1e-6).sum() == pytest.approx(1e-4 * scores.size, abs=1.01)


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_model_of_the_same_space_leaves_every_vector_and_gets_a_threshold_of_its_own(
    calibrated: bool, gallery: Gallery, others: str
) -> None:
    before = _stored(gallery)
    said = upgrade(gallery, OLD, SAME, others if calibrated else None)
    assert np.array_equal(before, _stored(gallery)) and "its 40 vectors stay as they are" in said
    old, pair = (OLD.fingerprint(),) * 2, (SAME.fingerprint(), OLD.fingerprint())
    assert [t.value for t in gallery.thresholds[old]] == [0.777]  # still right for the old model
    assert (pair in gallery.thresholds) == calibrated
    assert ("no threshold of the new model was calibrated (no --data)" in said) != calibrated


def test_images_that_cannot_calibrate_do_not_undo_the_upgrade(gallery: Gallery, tmp_path: Path) -> None:
    few = _written(tmp_path / "few", Dataset(Patterns(people=2)))
    said = upgrade(gallery, OLD, SAME, few)
    assert "stay as they are" in said and "no threshold of the new model was calibrated (" in said
    assert "cannot measure a false-accept rate of 0.0001" in said and "--calibrate STRANGERS" in said


def test_what_is_refused_changes_nothing(gallery: Gallery, others: str, tmp_path: Path) -> None:
    before = _stored(gallery)
    few = _written(tmp_path / "few", Dataset(Patterns(people=20)))
    for models, data, expected in (
        ((NEW, OLD), others, "holds vectors of space a, but the old model is of space b"),
        ((NEW, NEW), None, "holds vectors of space a, but the old model is of space b"),
        ((SAME, NEW), others, "40 of 40 vectors are by other models than --from"),
        ((OLD, NEW), few, "needs at least 200 images"),
        ((OLD, NEW), None, r"give --data IMAGES .* or --photos DIR .*measures which is good enough"),
    ):
        with pytest.raises(UsageError if data is None and models[0] is OLD else UserError, match=expected):
            upgrade(gallery, *models, data)
    assert np.array_equal(before, _stored(gallery)) and gallery.space == "a" and len(gallery.thresholds) == 1


def test_an_argument_that_would_do_nothing_is_refused(
    gallery: Gallery, others: str, albums: str, tmp_path: Path
) -> None:
    file = tmp_path / "map.safetensors"
    for new, photos in ((SAME, None), (NEW, albums)):
        with pytest.raises(UsageError, match=r"--map .*map\.safetensors: no map is made where"):
            upgrade(gallery, OLD, new, others, photos, out=file)
    with pytest.raises(UsageError, match="--detector finds faces in photos; give --photos, too"):
        upgrade(gallery, OLD, NEW, others, detector="yunet")
    empty = Gallery.create(tmp_path / "empty.gallery", space="a", dim=16)
    with pytest.raises(UserError, match="nobody is enrolled"):
        upgrade(empty, OLD, NEW, others)
    assert not file.exists() and gallery.space == "a"


def test_a_student_that_its_teacher_did_not_tie_is_told_why(gallery: Gallery) -> None:
    student = red_eye(space="d", made={"method": "rkd", "teachers": ["a"]})
    with pytest.raises(UsageError, match=r"no term of rkd ties the student to its teacher's space.*0\.1% mAP"):
        upgrade(gallery, OLD, student)


def test_enrolled_again_everybody_has_the_new_models_vectors_of_the_photos(
    gallery: Gallery, albums: str, others: str
) -> None:
    said = upgrade(gallery, OLD, WIDE, others, albums)
    with Gallery.open(gallery.path) as found:
        stored, people, names = found.matrix()
        assert names == [f"person{i:03d}" for i in range(20)] and found.models() == {WIDE.fingerprint(): 60}
    truth = WIDE.embed(ALBUMS.batch(range(60)).images).numpy()
    assert people.tolist() == np.repeat(np.arange(20), 3).tolist()
    for person in range(20):  # in any order: file names are not numbers
        same = stored[people == person] @ truth[3 * person : 3 * person + 3].T
        assert np.allclose(same.max(1), 1, atol=1e-5) and sorted(same.argmax(1)) == [0, 1, 2]
    assert list(gallery.thresholds) == [(WIDE.fingerprint(),) * 2] and (gallery.space, gallery.dim) == ("c", 24)
    assert "20 people enrolled again, 60 vectors of space c" in said and "5 people of " in said
    assert not list(gallery.path.parent.glob("*.upgrade*"))


def test_stopped_and_called_again_it_goes_on_with_the_images_that_are_left(
    gallery: Gallery, albums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _stored(gallery)
    with monkeypatch.context() as patch:
        patch.setattr(Gallery, "become", _stop)
        with pytest.raises(KeyboardInterrupt):
            upgrade(gallery, OLD, NEW, photos=albums)
    assert np.array_equal(before, _stored(gallery)) and gallery.space == "a"  # the old vectors serve until the end
    gallery.forget("person003")  # meanwhile: must not come back
    said = upgrade(gallery, OLD, NEW, photos=albums)
    assert "60 images were enrolled already" in said and gallery.space == "b"
    assert gallery.names() == [f"person{i:03d}" for i in range(20) if i != 3] and len(gallery) == 57


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_begun_with_another_model_it_starts_anew(
    gallery: Gallery, albums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Gallery, "become", _stop)
        with pytest.raises(KeyboardInterrupt):
            upgrade(gallery, OLD, NEW, photos=albums)
    upgrade(gallery, OLD, WIDE, photos=albums)
    assert gallery.models() == {WIDE.fingerprint(): 60} and gallery.dim == 24


def test_somebody_enrolled_meanwhile_is_not_lost(
    gallery: Gallery, albums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = Model.embed

    def meanwhile(self: Model, *arguments: object) -> object:
        with Gallery.open(gallery.path) as other:
            other.add("person024", np.ones(16), made_by=OLD.fingerprint())
        return embed(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Model, "embed", meanwhile)
        with pytest.raises(UserError, match="people were added or forgotten meanwhile; run this again to resume"):
            upgrade(gallery, OLD, NEW, photos=albums)
    assert gallery.space == "a" and "person024" in gallery.names()
    upgrade(gallery, OLD, NEW, photos=albums)
    assert len(gallery.names()) == 21 and gallery.space == "b"


def test_nobody_is_lost_for_want_of_a_photo(gallery: Gallery, tmp_path: Path) -> None:
    five = Dataset(Patterns(people=5, photos=3, grey=True))
    with pytest.raises(UserError, match=r"no photos of 15 of 20 people \(.*person005.*\); nothing was changed"):
        upgrade(gallery, OLD, NEW, photos=_written(tmp_path / "five", five))
    spoilt = Path(_written(tmp_path / "spoilt", ALBUMS))
    for photo in (spoilt / "person007").iterdir():
        photo.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"no photo was accepted of 1 of 20 people \(person007\): .*cannot be read"):
        upgrade(gallery, OLD, NEW, photos=str(spoilt))
    assert gallery.space == "a" and len(gallery) == 40


def test_a_gallery_of_other_numbers_does_not_take_its_place(gallery: Gallery, tmp_path: Path) -> None:
    other = Gallery.create(tmp_path / "int8.gallery", space="b", dim=16, precision="int8")
    with pytest.raises(UserError, match="another precision or flip"):
        gallery.become(other)
    assert len(gallery) == 40
