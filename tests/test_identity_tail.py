"""The study of people with few and many photos: its split, its threshold, and one run of it from end to end."""

import argparse
from pathlib import Path

import identity_tail
import numpy as np
import pytest
from PIL import Image

from facedistill.data import open_source
from studies import TEST, column, files, results
from tiny_world import Tiny


def _faces(folder: Path, counts: list[int]) -> str:
    source = open_source(f"synthetic:identities={len(counts)},images={max(counts)},size=32")
    for key, label in zip(source.keys, source.labels.tolist(), strict=True):
        name, _, image = key.partition("/")
        if int(image) < counts[label]:
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(source.read(source.keys.index(key)))).save(folder / name / f"{image}.png")
    return str(folder)


def test_two_images_of_each_person_are_kept_apart(tmp_path: Path) -> None:
    data = _faces(tmp_path / "faces", [3, 4, 9, 6])
    (tmp_path / "runs").mkdir()
    seen, known = identity_tail.split(data, tmp_path / "runs")
    assert known.class_names == seen.class_names == ["id000001", "id000002", "id000003"]
    assert np.bincount(known.labels).tolist() == [2, 2, 2]
    assert identity_tail.images_seen(seen, known).tolist() == [2, 7, 4]
    assert not set(seen.keys) & set(known.keys)


def test_the_share_of_accepted_people_equals_that_of_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(0)
    labels, counts = np.repeat(np.arange(60), 2), rng.permutation([2] * 20 + [5] * 20 + [30] * 20)
    centres = rng.normal(size=(60, 8))
    probe, teacher = (
        each / np.linalg.norm(each, axis=1, keepdims=True)
        for each in (centres[labels] + rng.normal(size=(120, 8)) for _ in range(2))
    )
    found = identity_tail.by_kind(probe, teacher, labels, counts)
    for side, gallery in (("student", probe), ("teacher", teacher)):
        pairs = [(i, j) for i in range(120) for j in range(120) if i != j]
        others = sorted((float(probe[i] @ gallery[j]) for i, j in pairs if labels[i] != labels[j]), reverse=True)
        threshold = others[int(identity_tail.FAR * len(others))]
        for kind, (low, high) in identity_tail.KINDS.items():
            mates = [(i, j) for i, j in pairs if labels[i] == labels[j] and low <= counts[labels[i]] <= high]
            right = np.mean([probe[i] @ gallery[j] > threshold for i, j in mates])
            value, least, most = found[side][kind]
            assert value == pytest.approx(right, abs=1e-4) and least <= value <= most


@pytest.mark.slow
def test_the_study_of_few_people(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity_tail, "SIZE", 32)
    monkeypatch.setattr(identity_tail, "BATCH", 12)
    some = {name: identity_tail.METHODS[name] for name in ("scratch", "ldam", "l2kd", list(identity_tail.METHODS)[-1])}
    monkeypatch.setattr(identity_tail, "METHODS", some)
    folder = tmp_path / "runs"
    args = argparse.Namespace(data=str(tiny.photos), teacher=str(tiny.teacher), lfw=TEST, runs=str(folder), threads=1)
    vars(args).update(seeds=[0], epochs=1, only=None)
    identity_tail.run(args)
    before = files(folder)
    identity_tail.run(args)
    assert files(folder) == before and len(before) == len(identity_tail.METHODS)
    table = identity_tail.table(results(monkeypatch, identity_tail, folder)["runs"])
    assert column(table, 1) == list(some) and column(table, 2) == ["1"] * len(before)
    assert "S→S, 4 to 9" in table and "10 and more" not in table  # all people have six images
