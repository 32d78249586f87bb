"""Images that show nobody: planted among real faces, and among drawn ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from facedistill.cleaning import clean
from facedistill.cleaning.people import People
from facedistill.cleaning.unclear import Known, Spoiled, find_unclear
from facedistill.data import open_dataset, open_source
from facedistill.models import load_model
from planted_people import clouds, draw_people

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_short_and_lonely_embeddings_are_found() -> None:
    units, labels = clouds(100, 10, seed=1)
    rng = np.random.default_rng(2)
    lengths = rng.normal(15, 1.5, len(labels))
    nobody = rng.permutation(len(labels))[:50]
    stray, _ = clouds(550, 1, seed=3)
    units[nobody], lengths[nobody] = stray[:50], rng.normal(9, 1, 50)
    lengths[nobody[0]] = 15  # a stranger, no spoiled image
    known = Known(stray[50:], rng.normal(9, 1, 500), rng.integers(0, 100, 500))
    found = find_unclear(People.of(units, labels, 100), lengths, known, 0.95)
    assert np.isin(np.flatnonzero(found.flagged), nobody).mean() >= 0.95
    assert found.flagged[nobody].mean() >= 0.9


def test_spoiled_images_are_a_corner_or_blurred(tmp_path: Path) -> None:
    draw_people(tmp_path, 2, 4)
    source = open_dataset(tmp_path).source
    spoiled = Spoiled(source, np.array([5, 2]))
    original = [np.asarray(open_dataset(tmp_path).image(i)) for i in (5, 2)]
    corner, blurred = spoiled.read(0), spoiled.read(1)
    assert spoiled.keys == [source.keys[5], source.keys[2]] and spoiled.labels.tolist() == [1, 0]
    assert corner.shape == blurred.shape == original[0].shape
    corners = [original[0][y, x] for y in (0, -1) for x in (0, -1)]
    assert any(np.abs(corner[y, x] - c.astype(int)).max() < 25 for c, (y, x) in zip(
        corners, [(0, 0), (0, -1), (-1, 0), (-1, -1)], strict=True))  # fmt: skip
    assert (
        np.abs(np.diff(blurred.astype(int), axis=1)).mean()
        < 0.5 * np.abs(np.diff(original[1].astype(int), axis=1)).mean()
    )
    assert np.array_equal(spoiled.read(1), blurred)  # the same each time, so that its embedding can be kept


@pytest.mark.skipif(not SHARED.exists(), reason="the shared faces are not here")
def test_real_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LFW's people with most images; a tenth is planted: parts of scenes, and faces of 8 pixels."""
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    lfw = open_dataset(SHARED / "verification" / "lfw.bin")
    people = np.argsort(-np.bincount(lfw.labels))[:40]
    rng, planted = np.random.default_rng(0), set()
    for person in people.tolist():
        (tmp_path / "faces" / f"p{person}").mkdir(parents=True)
        for i, row in enumerate(np.flatnonzero(lfw.labels == person)[:10].tolist()):
            image, name = Image.fromarray(lfw.image(row)), f"p{person}/{i}.png"
            if i == 9:
                planted.add(name)
                if person % 2:
                    image = image.resize((8, 8), Image.Resampling.BOX).resize((112, 112), Image.Resampling.BICUBIC)
                else:
                    small = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
                    image = small.resize((112, 112), Image.Resampling.BICUBIC).filter(ImageFilter.SHARPEN)
            image.save(tmp_path / "faces" / name)
    clean(tmp_path / "faces", load_model(SHARED / "models" / "mobilefacenet128.onnx"), tmp_path / "out")
    left_out = set(open_dataset(tmp_path / "faces").keys) - set(open_source(tmp_path / "out").keys)
    assert len(left_out & planted) >= 0.9 * len(planted)
    assert len(left_out - planted) <= 0.02 * len(lfw.labels[:400])
