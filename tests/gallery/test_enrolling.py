"""Enrolling and identifying: real image files, a teacher and its student, photos with two faces and with none."""

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from drawn_detector import photo, save_detector
from facedistill.data import open_source
from facedistill.errors import UserError
from facedistill.gallery import Gallery, calibrate, enroll, enrolling, identify
from facedistill.models import Model, load_model, save_model
from tiny_world import Tiny

STRANGERS = "synthetic:identities=40,images=4,size=32,seed=1,first=900"


@pytest.fixture(scope="module")
def teacher(tiny: Tiny) -> Model:
    return load_model(tiny.teacher)


@pytest.fixture(scope="module")
def student(tiny: Tiny) -> Model:
    return load_model(tiny.student)


def jpegs(folder: Path, size: int = 112, people: int = 4, images: int = 3) -> Path:
    """A folder per person with aligned crops as JPEGs."""
    source = open_source(f"synthetic:identities={people},images={images},size={size},seed=1")
    for i, label in enumerate(source.labels.tolist()):
        file = folder / source.class_names[label] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = source.read(i)
        assert isinstance(pixels, np.ndarray)
        Image.fromarray(pixels).save(file, quality=95)
    return folder


def test_the_vectors_are_the_models(tmp_path: Path, tiny: Tiny, teacher: Model) -> None:
    done = enroll(tmp_path / "g", tiny.photos, teacher)
    with Gallery.open(tmp_path / "g") as gallery:
        assert (gallery.space, gallery.flip) == (teacher.space, "sum")
        assert gallery.models() == {teacher.fingerprint(): done.added}
        vectors, person, names = gallery.matrix()
    assert done.added == 72 and not done.refused and done.people == len(names) == 12
    for place, name in enumerate(names):
        files = sorted((tiny.photos / name).iterdir())
        pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]).transpose(0, 3, 1, 2)
        expected = teacher.embed(torch.from_numpy(pixels)).numpy()
        found = vectors[person == place]
        assert np.abs((found @ expected.T).max(axis=1) - 1).max() < 1e-5


def test_the_same_photos_add_nothing_and_new_ones_are_taken_in(tmp_path: Path, teacher: Model) -> None:
    photos = jpegs(tmp_path / "photos")
    assert enroll(tmp_path / "g", photos, teacher).added == 12
    before = (tmp_path / "g").read_bytes()
    again = enroll(tmp_path / "g", photos, teacher)
    assert (again.added, again.known, again.refused) == (0, 12, {}) and (tmp_path / "g").read_bytes() == before
    first = sorted(photos.iterdir())[0]
    Image.open(next(first.iterdir())).rotate(3).save(first / "turned.jpg")
    shutil.copy(next(first.glob("[0-9]*.jpg")), first / "a copy.jpg")
    more = enroll(tmp_path / "g", photos, teacher)
    assert (more.added, more.known, more.people) == (1, 13, 1)


def test_a_photo_of_two_names_is_refused(tmp_path: Path, teacher: Model) -> None:
    photos = jpegs(tmp_path / "photos", people=2)
    one, other = sorted(photos.iterdir())
    shutil.copy(next(one.iterdir()), other / "wrong.jpg")
    done = enroll(tmp_path / "g", photos, teacher)
    assert done.added == 6 and done.refused == {f"{other.name}/wrong.jpg": f"the same image is enrolled as {one.name}"}
    assert enroll(tmp_path / "g", photos, teacher).refused == done.refused


def test_what_is_no_aligned_face_is_refused_with_its_measure(tmp_path: Path, teacher: Model) -> None:
    photos = jpegs(tmp_path / "photos", people=1)
    folder = next(photos.iterdir())
    good = Image.open(next(folder.iterdir()))
    good.filter(ImageFilter.GaussianBlur(6)).save(folder / "blurred.png")
    good.resize((12, 12)).save(folder / "tiny.png")
    good.resize((900, 600)).save(folder / "photo.png")
    (folder / "cut.jpg").write_bytes(next(folder.glob("[0-9]*.jpg")).read_bytes()[:900])
    done = enroll(tmp_path / "g", photos, teacher)
    refused = {Path(key).name: why for key, why in done.refused.items()}
    assert done.added == 3 and sorted(refused) == ["blurred.png", "cut.jpg", "photo.png", "tiny.png"]
    assert refused["blurred.png"].startswith("blurred: sharpness ") and "less than 5" in refused["blurred.png"]
    assert refused["tiny.png"] == "tiny: 12 x 12 pixels for a model that takes 32 x 32"
    assert refused["photo.png"].startswith("900 x 600 pixels: a photo, not an aligned face")
    assert refused["cut.jpg"].startswith("cannot be read")


def noisy(image: Image.Image, seed: int) -> Image.Image:
    """Drawn faces are smooth; noise makes them sharp, and no two photos alike."""
    noise = np.random.default_rng(seed).integers(-30, 30, (*image.size[::-1], 3))
    pixels = np.asarray(image).astype(int)
    marked = (pixels[..., 0] > 250) & (pixels[..., 1] < 5)
    return Image.fromarray(np.where(marked[..., None], pixels, (pixels + noise).clip(0, 250)).astype(np.uint8))


def test_faces_are_found_in_photos(tmp_path: Path, teacher: Model) -> None:
    pytest.importorskip("onnx")
    detector = save_detector(tmp_path / "d.onnx")
    folder = tmp_path / "photos" / "ada"
    folder.mkdir(parents=True)
    for name, corners in (("one", [(96, 96)]), ("two", [(64, 96), (224, 96)]), ("none", [])):
        noisy(photo((320, 240), corners), len(corners)).save(folder / f"{name}.png")
    done = enroll(tmp_path / "g", folder.parent, teacher, detector=detector)
    assert done.added == 1
    assert {Path(key).name: why for key, why in done.refused.items()} == {
        "two.png": "2 people (80, 80 pixels); crop the one who is meant",
        "none.png": "no face",
    }
    with Gallery.open(tmp_path / "g") as gallery:
        gallery.set_threshold(teacher.fingerprint(), teacher.fingerprint(), far=1e-3, value=0.9)
        answers = identify(gallery, [folder], teacher, far=1e-3, detector=detector)
    told = [(Path(one.photo).name, one.face, one.faces, one.refused) for one in answers]
    assert told == [("none.png", 1, 1, "no face"), ("one.png", 1, 1, ""), ("two.png", 1, 2, ""), ("two.png", 2, 2, "")]
    assert answers[1].accepted and answers[1].hits[0] == ("ada", pytest.approx(1, abs=1e-5))
    assert "two.png, face 2 of 2: " in answers[3].text()


def test_a_person_is_named(tmp_path: Path, teacher: Model) -> None:
    photos = jpegs(tmp_path / "photos", people=2)
    one, other = sorted(photos.iterdir())
    assert enroll(tmp_path / "g", next(one.iterdir()), teacher, name="Ada").added == 1
    assert enroll(tmp_path / "g", one, teacher, name="Ada").added == 2
    assert enroll(tmp_path / "g", other, teacher, name="Bob").people == 1
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.names() == ["Ada", "Bob"] and len(gallery) == 6


def test_spaces_do_not_mix(tmp_path: Path, tiny: Tiny, teacher: Model, student: Model) -> None:
    photos = jpegs(tmp_path / "photos", people=2)
    enroll(tmp_path / "g", photos, teacher)
    stranger = load_model(tiny.teacher)
    stranger.space = "another"
    with pytest.raises(UserError, match=f"vectors of space {teacher.space}, and this model is of space another"):
        enroll(tmp_path / "g", photos, stranger)
    with Gallery.open(tmp_path / "g") as gallery:
        with pytest.raises(UserError, match="facedistill upgrade"):
            identify(gallery, [photos], stranger)
        assert enroll(tmp_path / "g", photos, student).added == 6  # the same space: its own vectors
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.models() == {teacher.fingerprint(): 6, student.fingerprint(): 6}


def test_a_threshold_is_of_this_pair_or_there_is_none(
    tmp_path: Path, tiny: Tiny, teacher: Model, student: Model
) -> None:
    probe, by = student.fingerprint(), teacher.fingerprint()
    enroll(tmp_path / "g", tiny.photos, teacher)
    image = sorted(sorted(tiny.photos.iterdir())[0].iterdir())[0]
    with Gallery.open(tmp_path / "g") as gallery:
        gallery.set_threshold(by, by, far=1e-2, value=0.1)  # of another pair
        with pytest.raises(UserError, match=r"no threshold at a false-accept rate of 0.01 .* it has none"):
            identify(gallery, [image], student, far=1e-2)
        gallery.set_threshold(probe, by, far=1e-3, value=0.5)
        with pytest.raises(UserError, match=r"it has one at 0\.001"):
            identify(gallery, [image], student, far=1e-2)
        student.thresholds = [
            {"far": 1e-2, "value": 0.9, "probe": probe, "gallery": by, "flip": "none"},
            {"far": 1e-2, "value": 0.25, "interval": [0.2, 0.3], "probe": probe, "gallery": by, "flip": "sum"},
        ]
        try:
            (answer,) = identify(gallery, [image], student, far=1e-2)
        finally:
            student.thresholds = []
        assert answer.threshold is not None and answer.threshold.value == 0.25
        enroll(tmp_path / "g", jpegs(tmp_path / "more"), student)
        with pytest.raises(UserError, match=f"enrolled by {probe}"):  # the second pair has none
            identify(gallery, [image], student, far=1e-3)


def test_calibration_is_the_quantile_of_strangers(tmp_path: Path, tiny: Tiny, teacher: Model, student: Model) -> None:
    enroll(tmp_path / "g", tiny.photos, teacher)
    source = open_source(STRANGERS)
    with Gallery.open(tmp_path / "g") as gallery:
        (found,) = calibrate(gallery, student, STRANGERS, 1e-2)
        vectors = gallery.matrix()[0]
        assert gallery.thresholds == {(student.fingerprint(), teacher.fingerprint()): [found]}
        with pytest.raises(UserError, match=r"11,520 comparisons .* cannot measure .* 100,000 are needed"):
            calibrate(gallery, student, STRANGERS, 1e-5)
        pixels = np.stack([source.read(i) for i in range(len(source))]).transpose(0, 3, 1, 2)
        scores = (student.embed(torch.from_numpy(pixels)).numpy() @ vectors.T).ravel()
        assert len(scores) == 11_520 and found.impostors == 115
        assert found.value == pytest.approx(np.sort(scores)[-115], abs=1e-6)
        assert found.interval is not None and found.interval[0] < found.value < found.interval[1]
        answers = identify(gallery, sorted(tiny.photos.iterdir())[:2], student, far=1e-2)
        assert [one.accepted for one in answers] == [one.hits[0].score >= found.value for one in answers]
        (together,) = identify(gallery, sorted(tiny.photos.iterdir())[:1], student, far=1e-2, together=True)
        assert together.photo == "6 photos" and together.hits


def test_people_of_the_same_name_are_no_strangers(tmp_path: Path, tiny: Tiny, teacher: Model) -> None:
    """Calibrated on the enrolled photos themselves, a person's own vectors do not count."""
    enroll(tmp_path / "g", tiny.photos, teacher)
    with Gallery.open(tmp_path / "g") as gallery:
        (found,) = calibrate(gallery, teacher, tiny.photos, 1e-2)
        vectors, person, _ = gallery.matrix()
    scores = (vectors @ vectors.T)[person[:, None] != person]
    assert found.impostors == len(scores) // 100
    # Every pair is there twice. Rounding decides whether both are equal; if so, neither may pass when one is too many.
    last, before = np.sort(scores)[-found.impostors], np.sort(scores)[1 - found.impostors]
    assert min(abs(found.value - last), abs(found.value - before)) < 1e-5


def test_nothing_accepted_is_an_error(tmp_path: Path, teacher: Model) -> None:
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    Image.new("RGB", (112, 112)).save(folder / "black.png")
    with pytest.raises(UserError, match=r"nothing was enrolled; 1 images refused: a/black.png: blurred: sharpness 0.0"):
        enroll(tmp_path / "g", folder.parent, teacher)
    with pytest.raises(UserError, match="no such photo"):
        enroll(tmp_path / "g", tmp_path / "absent.jpg", teacher, name="x")


def test_a_killed_command_goes_on(tmp_path: Path, teacher: Model) -> None:
    """The real command, killed at some moments: whoever is there is there whole, and in the end all are there once."""
    photos = jpegs(tmp_path / "photos", people=40, images=3)
    save_model(teacher, tmp_path / "teacher")
    command = [sys.executable, "-m", "facedistill", "enroll", "g", "photos", "--model", "teacher"]
    rng, environment = random.Random(0), os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(3):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment)
        began = time.monotonic()
        while process.poll() is None and not (tmp_path / "g-wal").exists() and time.monotonic() - began < 60:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "g").exists() and (tmp_path / "g").stat().st_size:
            with Gallery.open(tmp_path / "g") as gallery:
                _, person, names = gallery.matrix()
                assert (np.bincount(person, minlength=len(names)) == 3).all()
    enroll(tmp_path / "g", photos, teacher)
    with Gallery.open(tmp_path / "g") as gallery:
        assert len(gallery) == 120 and len(gallery.names()) == 40
        gallery.check()


def test_one_batch_is_one_transaction(tmp_path: Path, teacher: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person whose photos lie in two batches is added with all of them at once."""
    monkeypatch.setattr(enrolling, "BATCH", 4)
    seen = []
    add = Gallery.add

    def watched(self: Gallery, name: str, vectors: np.ndarray, **rest: object) -> int:
        seen.append((name, len(vectors)))
        return add(self, name, vectors, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Gallery, "add", watched)
    enroll(tmp_path / "g", jpegs(tmp_path / "photos", people=3, images=6), teacher)
    assert [count for _, count in seen] == [6, 6, 6]


def test_real_photos_with_yunet(tmp_path: Path, shared: Path) -> None:
    """Faces of LFW in larger photos: one is enrolled and recognised, two are refused, a tiny one is told so."""
    lfw, teacher = open_source(shared / "verification" / "lfw.bin"), shared / "models" / "mobilefacenet128.onnx"
    model = load_model(teacher)

    def scene(name: str, rows: list[int], side: int = 200) -> Path:
        image = Image.new("RGB", (640, 400), (120, 110, 100))
        for place, row in enumerate(rows):
            face = Image.open(io.BytesIO(lfw.read(row)))  # type: ignore[arg-type]
            image.paste(face.resize((side, side), Image.Resampling.BICUBIC), (60 + 300 * place, 90))
        image.save(tmp_path / name, quality=95)
        return tmp_path / name

    detector = shared / "models" / "yunet_2026may.onnx"
    path = tmp_path / "g"
    assert enroll(path, scene("one.jpg", [0]), model, name="Ada", detector=detector).added == 1
    for photo_, told in (
        (scene("two.jpg", [0, 100]), "2 people"),
        (scene("tiny.jpg", [0], 36), "pixels, less than 40"),
    ):
        with pytest.raises(UserError, match=told):
            enroll(path, photo_, model, name="Ada", detector=detector)
    with Gallery.open(path) as gallery:
        gallery.set_threshold(model.fingerprint(), model.fingerprint(), far=1e-3, value=0.4)
        same, both = scene("again.png", [0], 180), tmp_path / "two.jpg"
        answers = identify(gallery, [same, both], model, far=1e-3, detector=detector)
    assert [Path(one.photo).name for one in answers] == ["again.png", "two.jpg", "two.jpg"]
    assert answers[0].accepted and sorted(one.accepted for one in answers[1:]) == [False, True]
