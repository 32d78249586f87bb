"""The search finds what float64 products over all vectors find, for every score of a person."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from facedistill.errors import UsageError
from facedistill.gallery import Gallery, rows, search
from facedistill.gallery.search import By

DIM = 24


def made(path: Path, precision: str = "float32", count: int = 200) -> Gallery:
    """Clustered people, as faces are, one to five vectors each, added in an order that is not that of the names."""
    rng = np.random.default_rng(3)
    gallery = Gallery.create(path, space="s", dim=DIM, precision=precision)  # type: ignore[arg-type]
    for i in rng.permutation(count).tolist():
        centre = rng.normal(size=DIM)
        gallery.add(f"p{i}", centre + 0.3 * rng.normal(size=(rng.integers(1, 6), DIM)), made_by="m")
    return gallery


def by_hand(gallery: Gallery, probe: np.ndarray, top: int, by: str, k: int) -> list[tuple[str, float]]:
    vectors, person, names = gallery.matrix()
    cosines = vectors.astype(np.float64) @ (probe / np.linalg.norm(probe))
    found = []
    for place, name in enumerate(names):
        own = sorted(cosines[person == place].tolist(), reverse=True)
        score = {"best": own[0], "mean": sum(own) / len(own), "top-mean": sum(own[:k]) / len(own[:k])}[by]
        found.append((-score, name))
    return [(name, -score) for score, name in sorted(found)[:top]]


@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("by", get_args(By))
def test_as_by_hand(tmp_path: Path, by: By, precision: str, fast: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_fast_type", lambda: fast)
    monkeypatch.setattr(search, "BLOCK", 100)  # several blocks, persons across their borders
    probes = np.random.default_rng(4).normal(size=(30, DIM))
    with made(tmp_path / "g", precision) as gallery:
        found = gallery.search(probes, top=7, by=by, k=2)
        for probe, hits in zip(probes, found, strict=True):
            expected = by_hand(gallery, probe, 7, by, 2)
            assert [hit.name for hit in hits] == [name for name, _ in expected]
            assert np.allclose([hit.score for hit in hits], [score for _, score in expected], atol=1e-6)


@pytest.mark.parametrize("by", get_args(By))
def test_equal_scores_are_in_the_order_of_names(tmp_path: Path, by: By, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BLOCK", 7)
    rng = np.random.default_rng(5)
    same = rng.normal(size=DIM)
    names = [f"n{i:02}" for i in range(40)]
    with Gallery.create(tmp_path / "g", space="s", dim=DIM) as gallery:
        for i in rng.permutation(40).tolist():
            gallery.add(names[i], same, made_by="m")
            gallery.add(f"other {i}", -same + rng.normal(size=DIM), made_by="m")
        hits = gallery.search(same + 0.1 * rng.normal(size=DIM), top=12, by=by)[0]
    assert [hit.name for hit in hits] == names[:12] and len({hit.score for hit in hits}) == 1


def test_what_is_added_or_forgotten_meanwhile_is_seen(tmp_path: Path) -> None:
    with made(tmp_path / "g") as gallery, Gallery.open(tmp_path / "g") as other:
        probe = np.random.default_rng(6).normal(size=DIM)
        first = other.search(probe, top=1)[0][0].name
        gallery.add("new", probe, made_by="m")
        assert other.search(probe, top=2)[0][0] == ("new", pytest.approx(1))
        assert other.search(probe, top=2)[0][1].name == first
        gallery.forget("new")
        assert other.search(probe, top=1)[0][0].name == first


def test_fewer_people_than_asked_for_and_none(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", space="s", dim=2) as gallery:
        assert gallery.search(np.eye(2)) == [[], []]
        gallery.add("a", np.eye(2), made_by="m")
        assert gallery.search(np.eye(2), top=5) == [[("a", 1.0)], [("a", 1.0)]]
        with pytest.raises(UsageError, match="top 0"):
            gallery.search(np.eye(2), top=0)


def test_rows_are_taken_from_their_parts() -> None:
    parts = [np.arange(6.0, dtype=np.float32).reshape(3, 2), np.arange(6.0, 14, dtype=np.float32).reshape(4, 2)]
    both = rows.Rows(parts, np.zeros(7, np.int64), 0, 7)
    assert np.array_equal(both.take(np.array([6, 0, 3, 2])), np.concatenate(parts)[[6, 0, 3, 2]])
    seen = [(place, block) for place, block in both.blocks(2)]
    assert np.array_equal(np.concatenate([block for _, block in seen]), np.concatenate(parts))
    assert all(np.array_equal(np.concatenate(parts)[place], block[0]) for place, block in seen)
