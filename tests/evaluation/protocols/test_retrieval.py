"""Retrieval against loops over queries, and scikit-learn where nothing ties."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from facedistill.evaluation.protocols import retrieval as module
from facedistill.evaluation.protocols.retrieval import Retrieval, retrieve
from facedistill.evaluation.statistics import draws


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def example(seed: int, dim: int, coarse: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models' embeddings of the same 60 images, and labels, three of which stand alone.

    Coarse ones are multiples of 1/16, so that their products are exact and many of them tie.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(57) % 11, [50, 60, 70]]))
    centre = rng.normal(size=(71, dim))
    both = [unit(centre[labels] + noise * rng.normal(size=(60, dim))) for noise in (0.9, 0.7)]
    first, second = ((np.round(15 * x) / 16).astype(np.float32) if coarse else x for x in both)
    return first, second, labels


def brute(probe: np.ndarray, gallery: np.ndarray, labels: np.ndarray) -> dict[int, dict[str, float]]:
    """Every measure of every query that is not alone."""
    found = {}
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        others.sort(key=lambda j: (-float(probe[i] @ gallery[j]), labels[j] == labels[i], j))
        right = [labels[j] == labels[i] for j in others]
        if not any(right):
            continue
        hits = [place for place, hit in enumerate(right) if hit]
        votes = [labels[j] for j in others[:5]]
        winner = max(votes, key=votes.count)  # the first of equals
        found[i] = {
            "first": hits[0],
            "map": np.mean([(n + 1) / (place + 1) for n, place in enumerate(hits)]),
            "r_precision": np.mean(right[: len(hits)]),
            "knn.5": winner == labels[i],
        }
    return found


def values(found: Retrieval) -> dict[str, float]:
    return {name: estimate.value for name, estimate in found.estimates().items()}


def means(queries: list[dict[str, float]]) -> dict[str, float]:
    recall = {f"recall_at.{k}": float(np.mean([q["first"] < k for q in queries])) for k in (1, 5, 10)}
    return recall | {name: float(np.mean([q[name] for q in queries])) for name in ("map", "r_precision", "knn.5")}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("held", [1, 200, 2**21])
def test_equals_brute_force(seed: int, coarse: bool, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_SCORES", held)
    probe, other, labels = example(seed, 4, coarse)
    for gallery in (probe, other):
        found = retrieve(probe, gallery, labels, resamples=0)
        assert (found.queries, found.alone) == (57, 3)
        assert values(found) == pytest.approx(means(list(brute(probe, gallery, labels).values())), abs=1e-12)


def test_average_precision_is_that_of_sklearn_where_nothing_ties() -> None:
    probe, gallery, labels = example(0, 32, coarse=False)
    score = probe.astype(np.float64) @ gallery.T
    expected = []
    for i in range(len(labels)):
        others = np.arange(len(labels)) != i
        if (labels[others] == labels[i]).any():
            expected.append(average_precision_score(labels[others] == labels[i], score[i, others]))
    found = retrieve(probe, gallery, labels, resamples=0)
    assert found.map is not None
    assert found.map.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert 0.2 < found.map.value < 0.99


def test_intervals_repeat_the_queries_of_the_drawn_classes() -> None:
    probe, gallery, labels = example(3, 4, coarse=True)
    found = retrieve(probe, gallery, labels, resamples=20)
    queries = brute(probe, gallery, labels)
    kind = np.unique(labels[list(queries)], return_inverse=True)[1]
    for r, draw in enumerate(draws(11, 20)):
        repeated = [query for query, k in zip(queries.values(), kind, strict=True) for _ in range(draw[k])]
        expected = means(repeated)
        for name, estimate in found.estimates().items():
            assert estimate.resampled[r] == pytest.approx(expected[name], abs=1e-12)


def test_a_tie_goes_against_the_right_image() -> None:
    """A collapsed model: every image of another class stands before those of the own one."""
    same = np.repeat(unit(np.random.default_rng(0).normal(size=(1, 128))), 90, axis=0)
    labels = np.arange(90) // 3
    found = retrieve(same, same, labels, resamples=0)
    expected = {"map": pytest.approx((1 / 88 + 2 / 89) / 2)}
    assert values(found) == dict.fromkeys(found.estimates(), 0) | expected


@pytest.mark.parametrize("queries", [1, 2, 1000])
def test_copies_of_an_embedding_tie_wherever_they_stand(queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each right image has a copy of another class: no query may find the right one first.

    In float32 the products of a single query round some copies apart.
    """
    rng = np.random.default_rng(1)
    pairs = unit(np.repeat(rng.normal(size=(50, 64)), 2, axis=0) + 0.5 * rng.normal(size=(100, 64)))
    place = rng.permutation(206)
    embeddings = np.concatenate([pairs, pairs, unit(rng.normal(size=(6, 64)))])[place]
    labels = np.concatenate([np.arange(100) // 2, 1000 + np.arange(106)])[place]
    monkeypatch.setattr(module, "HELD_SCORES", queries * len(labels))
    found = retrieve(embeddings, embeddings, labels, ks=(1, 2, 3), resamples=0)
    assert found.queries == 100
    assert [found.recall_at[k].value for k in (1, 2, 3)] == [0, 0, 1]  # its own copy, the mate's copy, the mate


def test_of_tied_classes_the_nearest_wins_the_vote() -> None:
    angle = np.deg2rad([0, 1, 2, 3, 4, 5, 90, 90])
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    labels = np.array([0, 0, 1, 1, 0, 2, 3, 3])  # the first image: 0 1 1 0 2, two votes each, 0 is nearest
    assert brute(x, x, labels)[0]["knn.5"]
    found = retrieve(x, x, labels, resamples=0)
    assert values(found)["knn.5"] == pytest.approx(means(list(brute(x, x, labels).values()))["knn.5"])


def test_json_has_every_estimate_at_its_path_and_no_nan() -> None:
    probe, gallery, labels = example(0, 4, coarse=True)
    found = retrieve(probe, gallery, labels, resamples=10)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert list(written) == ["queries", "alone", "recall_at", "map", "r_precision", "knn"]
    for path, estimate in found.estimates().items():
        at = written
        for key in path.split("."):
            at = at[key]
        assert at == {"value": estimate.value, "ci95": estimate.ci95}


@pytest.mark.parametrize("images", [0, 1, 6])
def test_nothing_to_find(images: int) -> None:
    x = unit(np.random.default_rng(0).normal(size=(images, 4)))
    found = retrieve(x, x, np.arange(images), resamples=5)
    assert found.to_json() == {"queries": 0, "alone": images, "recall_at": {}, "knn": {}}
    assert found.estimates() == {}


def test_one_class_finds_itself() -> None:
    x = unit(np.random.default_rng(0).normal(size=(20, 4)))
    assert set(values(retrieve(x, x, np.zeros(20, np.int64), resamples=5)).values()) == {1.0}


def test_what_a_small_set_cannot_fail_is_absent() -> None:
    x = unit(np.random.default_rng(0).normal(size=(5, 4)))
    found = retrieve(x, x, np.array([0, 0, 1, 1, 2]), resamples=5).to_json()
    assert list(found["recall_at"]) == ["1"]  # 5 nearest of 4 hold everything
    assert found["knn"] == {}
