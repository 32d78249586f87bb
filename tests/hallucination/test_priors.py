"""Priors: rendered ones, an index of pseudo-labels, what does not fit, and their mirror images."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facedistill.data import open_dataset
from facedistill.errors import UsageError, UserError
from facedistill.hallucination.priors import (
    MIRRORED_CLASSES,
    MIRRORED_LANDMARKS,
    mirrored,
    open_priors,
    read_index,
    require_priors,
    resized_classes,
    scaled,
)
from facedistill.recipe import Data

NAMES = ["ann/1.jpg", "ann/2.png", "bob/1.jpg"]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes an index of three images of 112 x 112, with changes."""

    def index(tar: bool = True, **changes: Any) -> Path:
        rng = np.random.default_rng(0)
        arrays: dict[str, Any] = {
            "names": np.array(NAMES),
            "landmarks": rng.uniform(0, 111, (3, 68, 2)).astype(np.float16),
            "score": np.ones(3),
        }
        maps = {
            name: np.full((112, 112), i, np.uint8) for i, name in enumerate(("ann/1.png", "ann/2.png", "bob/1.png"))
        }
        maps |= changes.pop("maps", {})
        np.savez(tmp_path / "landmarks68.npz", **(arrays | changes))
        pictures = {name: _png(m) if isinstance(m, np.ndarray) else m for name, m in maps.items() if m is not None}
        if tar:
            with tarfile.open(tmp_path / "parsing.tgz", "w:gz") as archive:
                for name, content in pictures.items():
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
        else:
            for name, content in pictures.items():
                file = tmp_path / "parsing" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        return tmp_path

    return index


def _png(classes: np.ndarray) -> bytes:
    image, stored = Image.fromarray(classes, "P"), io.BytesIO()
    image.putpalette([i for k in range(256) for i in (k, 255 - k, 0)])  # colours that are not the classes
    image.save(stored, "PNG", bits=4 if classes.max() < 16 else 8)
    return stored.getvalue()


@pytest.mark.parametrize("tar", [True, False])
def test_an_index_gives_the_images_asked_for(write: Write, tar: bool) -> None:
    folder = write(tar=tar)
    stored = np.load(folder / "landmarks68.npz")["landmarks"].astype(np.float32)
    priors = read_index(folder, ["bob/1.jpg", "ann/1.jpg"], 112)
    points, classes = priors.of(np.array([1, 0]))
    assert points.dtype == np.float32 and np.allclose(points, stored[[0, 2]], atol=1e-4)
    assert classes.shape == (2, 112, 112) and classes.dtype == np.uint8
    assert (classes[0] == 0).all() and (classes[1] == 2).all()


def test_another_size_of_images_scales_points_and_keeps_classes(write: Write) -> None:
    checks = np.add.outer(np.arange(112) // 14, np.arange(112) // 14).astype(np.uint8) % 13
    folder = write(maps={"ann/1.png": checks}, landmarks=np.full((3, 68, 2), 55.5))
    points, classes = read_index(folder, ["ann/1.jpg"], 64).of(np.array([0]))
    assert points == pytest.approx(31.5)  # the middle stays the middle
    assert np.array_equal(classes[0], np.add.outer(np.arange(64) // 8, np.arange(64) // 8) % 13)
    twice = write(size=np.array(224), landmarks=np.full((3, 68, 2), 111.5))
    assert read_index(twice, ["ann/1.jpg"], 64).of(np.array([0]))[0] == pytest.approx(31.5)


def test_scaling_there_and_back() -> None:
    points = np.random.default_rng(0).uniform(-5, 120, (4, 68, 2)).astype(np.float32)
    assert scaled(scaled(points, 112, 48), 48, 112) == pytest.approx(points, abs=1e-4)
    classes = np.arange(16, dtype=np.uint8).reshape(4, 4) % 13
    assert np.array_equal(resized_classes(resized_classes(classes, 8), 4), classes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": np.array(NAMES[:2])}, r"\(2,\) names, landmarks of shape \(3, 68, 2\), size 112; expected names"),
        (
            {"landmarks": np.zeros((3, 5, 2))},
            r"landmarks of shape \(3, 5, 2\).*expected names \(N,\) and landmarks \(N, 68",
        ),
        (
            {"names": np.array(["x/1.jpg", *NAMES[1:]])},
            "1 of 3 images have no landmarks, e.g. ann/1.jpg; it names images s",
        ),
        ({"names": np.array([NAMES[0], *NAMES[:2]])}, "ann/1.jpg is named twice; expected every image once"),
        (
            {"landmarks": np.full((3, 68, 2), 300.0)},
            r"ann/1.jpg: a landmark is outside the image of 112 x 112 by more than",
        ),
        ({"landmarks": np.full((3, 68, 2), np.nan)}, "is no number; 3 images have such points"),
        ({"maps": {"bob/1.png": None}}, r"parsing.tgz: bob/1.png is missing; every image needs its parsing map"),
        ({"maps": {"bob/1.png": np.full((112, 112), 13, np.uint8)}}, "bob/1.png has the class 13; expected 0 to 12"),
        (
            {"maps": {"ann/2.png": np.zeros((112, 100), np.uint8)}},
            r"ann/2.png: no parsing map \(mode P, 100 x 112\); exp",
        ),
        (
            {"maps": {"ann/2.png": b"\x89PNG\r\n\x1a\nbroken"}},
            "ann/2.png: no parsing map .*; expected a square palette",
        ),
    ],
)
def test_an_index_that_does_not_fit_is_one_line(write: Write, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_index(write(**changes), NAMES, 112)
    assert "\n" not in str(caught.value)


def test_one_parsing_map_of_two_images(write: Write) -> None:
    folder = write(names=np.array(["ann/1.jpg", "ann/1.jpeg", "bob/1.jpg"]))
    with pytest.raises(UserError, match=r"ann/1\.png would be the parsing map of two images"):
        read_index(folder, ["ann/1.jpg", "ann/1.jpeg"], 112)


def test_missing_and_damaged_files(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder; expected landmarks68.npz and parsing.tgz in it"):
        read_index(tmp_path / "none", NAMES, 112)
    folder = write()
    content = (folder / "parsing.tgz").read_bytes()
    (folder / "parsing.tgz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"parsing.tgz: cannot be read"):
        read_index(folder, NAMES, 112)
    (folder / "landmarks68.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"landmarks68.npz: cannot be read"):
        read_index(folder, NAMES, 112)


def test_rendered_faces_know_theirs() -> None:
    spec = "synthetic:identities=3,images=2,size=48,seed=4"
    data = open_dataset(f"{spec},priors=true").subset([4, 1]).in_memory()
    priors = open_priors(None, Data(f"{spec},priors=true"), data, 48)
    assert priors is not None
    source: Any = open_dataset(spec).source
    for place, i in enumerate((4, 1)):
        points, classes = priors.of(np.array([place]))
        assert np.allclose(points[0], source.priors(i)[0], atol=1e-4) and np.array_equal(
            classes[0], source.priors(i)[1]
        )
    assert open_priors(None, Data(spec), data, 48) is None
    with pytest.raises(
        UsageError, match=r"stage priors needs landmarks and parsing maps: name an index \(hallucination.pr"
    ):
        require_priors(None)


def test_the_mirror_image() -> None:
    assert sorted(MIRRORED_LANDMARKS) == list(range(68)) and (MIRRORED_LANDMARKS[MIRRORED_LANDMARKS] == range(68)).all()
    assert (MIRRORED_CLASSES[MIRRORED_CLASSES] == range(13)).all()
    rng = np.random.default_rng(0)
    points, classes = (
        rng.uniform(0, 31, (2, 68, 2)).astype(np.float32),
        rng.integers(0, 13, (2, 32, 32)).astype(np.uint8),
    )
    flips = np.array([True, False])
    turned, maps = mirrored(points, classes, flips)
    assert np.array_equal(turned[1], points[1]) and np.array_equal(maps[1], classes[1])
    assert turned[0, 36] == pytest.approx([31 - points[0, 45, 0], points[0, 45, 1]])  # outer corners of the eyes
    assert turned[0, 8, 0] == 31 - points[0, 8, 0]  # the chin is its own partner
    left, right = classes[0, :, ::-1] == 5, maps[0] == 6
    assert np.array_equal(left, right)
    again, back = mirrored(turned, maps, flips)
    assert np.allclose(again, points, atol=1e-5) and np.array_equal(back, classes)


def test_a_rendered_face_and_its_mirror_have_their_parts_on_the_right_side() -> None:
    """The person's left is at the image's right, in the mirror image, too: its classes and points change names."""
    source: Any = open_dataset("synthetic:identities=4,images=2,size=64,seed=2").source
    for i in range(8):
        points, classes = (x[None] for x in source.priors(i))
        for p, c in ((points, classes), mirrored(points, classes, np.array([True]))):
            assert p[0, 36, 0] < p[0, 39, 0] < p[0, 42, 0] < p[0, 45, 0] and p[0, 48, 0] < p[0, 54, 0]
            assert p[0, 37, 1] <= p[0, 41, 1] and p[0, 51, 1] < p[0, 57, 1]
            columns = {k: np.nonzero(c[0] == k)[1] for k in (5, 6, 11, 12)}
            if all(len(x) for x in columns.values()):
                assert columns[6].mean() < columns[5].mean() and columns[11].mean() < columns[12].mean()


def test_the_priors_of_the_shared_faces(shared: Path) -> None:
    folder = shared / "priors"
    if not folder.exists():
        pytest.skip("the priors of the real faces are not on this machine")
    names = np.load(folder / "landmarks68.npz")["names"][::4000].tolist()
    points, classes = read_index(folder, names, 112).of(np.arange(len(names)))
    assert points.shape == (len(names), 68, 2) and classes.max() <= 12
    assert (np.abs(points[:, 30] - 56) < 25).all()  # the tip of the nose is near the middle of an aligned crop
