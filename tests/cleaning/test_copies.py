"""Copies of images, exact, altered and mirrored."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facedistill.cleaning.copies import find_copies, first_of_groups
from facedistill.cleaning.pictures import altered, look
from facedistill.data import open_dataset
from planted_people import draw_people, pattern_teacher


def test_copies_are_found_also_under_another_name(tmp_path: Path) -> None:
    draw_people(tmp_path, 12, 8)
    (tmp_path / "p00" / "x.png").write_bytes((tmp_path / "p00" / "3.png").read_bytes())
    with Image.open(tmp_path / "p01" / "2.png") as image:
        image.resize((28, 28), Image.Resampling.BILINEAR).save(tmp_path / "p01" / "x.jpg", quality=70)
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "p02" / "x.png")
    dataset = open_dataset(tmp_path)
    model = pattern_teacher()
    batch = dataset.batch(range(len(dataset)))
    raw = (model(batch.images) + model(batch.images.flip(-1))).detach().numpy()
    units = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    rows = np.arange(len(dataset))
    known = altered(dataset.source, rows, np.random.default_rng(0))
    found = find_copies(units, look(dataset.source, rows), known, 0.95)
    pairs = {tuple(sorted((dataset.keys[a], dataset.keys[b]))) for a, b in found.pairs[found.flagged]}
    original = "p01/2.png"
    expected = {("p00/3.png", "p00/x.png"), (original, "p01/x.jpg"), (original, "p02/x.png")}
    assert expected <= pairs <= expected | {("p01/x.jpg", "p02/x.png")}


def test_an_unreadable_image_has_no_pixels(tmp_path: Path) -> None:
    draw_people(tmp_path, 1, 2)
    (tmp_path / "p00" / "1.png").write_bytes(b"no image")
    seen = look(open_dataset(tmp_path).source, np.arange(2))
    assert seen.small.any(1).tolist() == [True, False] and seen.content[1] == b""
    assert np.linalg.norm(seen.small[0]) == pytest.approx(1, abs=1e-5)


def test_groups() -> None:
    pairs = np.array([[5, 3], [3, 4], [0, 2], [7, 6], [6, 2]])
    assert first_of_groups(pairs, 9).tolist() == [0, 1, 0, 3, 3, 3, 0, 0, 8]
    assert first_of_groups(np.zeros((0, 2), np.int64), 3).tolist() == [0, 1, 2]
