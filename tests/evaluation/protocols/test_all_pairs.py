"""All-pairs against loops over all pairs of images."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from facedistill.evaluation.metrics import auc, eer
from facedistill.evaluation.protocols import all_pairs as module
from facedistill.evaluation.protocols.all_pairs import all_pairs, collect
from facedistill.evaluation.statistics import draws

PERSONS = 15


def example(seed: int = 0, images: int = 60, dim: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models' embeddings of the same images, and labels with a person of one image among them.

    Multiples of 1/64, nearly of unit length: their products are exact in float32, whatever the order of summation.
    """
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(images - 1) % (PERSONS - 1), PERSONS - 1)
    centre = rng.normal(size=(PERSONS, dim))
    both = (centre[labels] + noise * rng.normal(size=(images, dim)) for noise in (0.8, 0.6))
    first, second = (np.round(60 * x / np.linalg.norm(x, axis=1, keepdims=True)) / 64 for x in both)
    return first.astype(np.float32), second.astype(np.float32), labels


def brute(probe: np.ndarray, gallery: np.ndarray, labels: np.ndarray) -> list[tuple[float, int, int]]:
    """(score, person, person) of every comparison."""
    found = []
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i < j or (probe is not gallery and i != j):
                found.append((float(probe[i] @ gallery[j]), labels[i], labels[j]))
    return found


def split(pairs: list[tuple[float, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s for s, a, b in pairs if a == b]), np.array([s for s, a, b in pairs if a != b])


def tar_at(genuine: np.ndarray, impostor: np.ndarray, far: float) -> float:
    allowed = [t for t in impostor if (impostor >= t).sum() <= far * len(impostor) + 1e-9]
    return (genuine >= min(allowed)).mean() if allowed else (genuine > impostor.max()).mean()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("tile", [(7, 5), (16, 16), (1024, 4096)])
def test_counts_and_metrics_equal_brute_force(
    symmetric: bool, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TILE", tile)
    probe, other, labels = example()
    gallery = probe if symmetric else other
    found = all_pairs(probe, gallery, labels, fars=(0.1, 0.01), resamples=0)
    genuine, impostor = split(brute(probe, gallery, labels))
    assert found.roc.pairs == (len(genuine), len(impostor))
    scores, counts = np.unique(impostor, return_counts=True)
    held = found.roc.impostor > 0
    np.testing.assert_array_equal(found.roc.scores[held], scores)
    np.testing.assert_array_equal(found.roc.impostor[held], counts)
    assert {key: point.tar for key, (point, _) in found.tar_at_far.items()} == {
        "1e-1": tar_at(genuine, impostor, 0.1),
        "1e-2": tar_at(genuine, impostor, 0.01),
    }
    y = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    assert auc(found.roc) == pytest.approx(roc_auc_score(y, np.r_[genuine, impostor]), abs=1e-12)


@pytest.mark.parametrize("symmetric", [True, False])
def test_intervals_weigh_each_pair_by_its_persons(symmetric: bool) -> None:
    probe, other, labels = example(1)
    gallery = probe if symmetric else other
    found = all_pairs(probe, gallery, labels, fars=(0.05,), resamples=10)
    pairs = brute(probe, gallery, labels)
    for r, draw in enumerate(draws(PERSONS, 10)):
        repeated = [p for p in pairs for _ in range(draw[p[1]] * (1 if p[1] == p[2] else draw[p[2]]))]
        assert found.tar_at_far["5e-2"][1].resampled[r] == pytest.approx(tar_at(*split(repeated), 0.05))


def test_holding_only_the_highest_impostors_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, other, labels = example(2)
    monkeypatch.setattr(module, "TILE", (7, 5))
    whole = all_pairs(probe, other, labels, fars=(0.01,), resamples=50)
    for held in (1, 100):
        monkeypatch.setattr(module, "HELD_IMPOSTORS", held)
        few = all_pairs(probe, other, labels, fars=(0.01,), resamples=50)
        np.testing.assert_array_equal(few.tar_at_far["1e-2"][1].resampled, whole.tar_at_far["1e-2"][1].resampled)


def test_the_held_impostors_are_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, other, labels = example(3)
    everything = collect(probe, other, labels, held=10**9)
    monkeypatch.setattr(module, "TILE", (7, 5))
    top = collect(probe, other, labels, held=50)
    assert everything.complete
    assert not top.complete
    np.testing.assert_array_equal(top.impostor[:50], everything.impostor[:50])
    assert len(top.impostor) < 60
    assert len(everything.impostor) == everything.roc.pairs[1]


def test_the_same_resamples_for_two_models() -> None:
    probe, _, labels = example()
    first = all_pairs(probe, probe, labels, fars=(0.1,), resamples=20).tar_at_far["1e-1"][1]
    again = all_pairs(probe.copy(), probe.copy(), labels, fars=(0.1,), resamples=20).tar_at_far["1e-1"][1]
    np.testing.assert_allclose(first.resampled, again.resampled, atol=1e-12)  # both directions of a symmetric model


def test_identical_embeddings_tie() -> None:
    """A collapsed model must not look perfect because of rounding in a matrix product."""
    labels = np.repeat(np.arange(300), 3)
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 512))
    vectors = np.repeat(one / np.linalg.norm(one), 900, axis=0).astype(np.float32)
    found = all_pairs(vectors, vectors, labels, fars=(0.1,), resamples=5)
    assert found.tar_at_far["1e-1"][0].tar == 0
    assert (auc(found.roc), eer(found.roc)) == (0.5, 0.5)


@pytest.mark.parametrize("labels", [np.zeros(20, np.int64), np.arange(20)])
def test_one_kind_of_pair_gives_counts_only(labels: np.ndarray) -> None:
    probe, _, _ = example(images=20)
    found = all_pairs(probe, probe, labels, resamples=5).to_json()
    assert found["pairs"] == 190
    assert found["genuine"] in (0, 190)
    assert found["tar_at_far"] == {}
    assert json.dumps(found, allow_nan=False)
    assert "eer" not in found
    assert "auc" not in found


def test_a_far_that_too_few_impostors_measure_is_absent() -> None:
    probe, _, labels = example()
    found = all_pairs(probe, probe, labels, fars=(1e-2, 1e-5), resamples=5).to_json()
    assert list(found["tar_at_far"]) == ["1e-2"]


def test_more_scores_than_fit_give_the_same_figures_and_intervals_of_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(150), 10)
    centres = rng.normal(size=(150, 16))
    vectors = (centres[labels] + 1.5 * rng.normal(size=(1500, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = all_pairs(vectors, vectors, labels, fars=(0.1, 0.01), resamples=100)
    monkeypatch.setattr(module, "MOST_HELD", 4000)  # of 6,750 genuine and 223,500 wanted impostor scores
    part = all_pairs(vectors, vectors, labels, fars=(0.1, 0.01), resamples=100)
    a, b = whole.to_json(), part.to_json()
    assert "intervals_from" not in a and b["intervals_from"] == {"genuine": 0.5, "impostors": 1 / 64}
    for key in ("pairs", "genuine", "eer", "auc", "curves"):
        assert a[key] == b[key]
    for far in ("1e-1", "1e-2"):
        for key in ("value", "threshold", "far", "impostors", "closest"):
            assert a["tar_at_far"][far][key] == b["tar_at_far"][far][key]
        np.testing.assert_allclose(a["tar_at_far"][far]["ci95"], b["tar_at_far"][far]["ci95"], atol=0.05)


def test_what_is_held_has_a_bound_for_any_number_of_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 500)
    tally, rng = module.Tally(10**9), np.random.default_rng(0)
    for _ in range(50):
        bins, same = rng.integers(1, module.BINS, size=4000), rng.random(4000) < 0.5
        tally.add(bins, same, np.zeros(4000, np.int32), np.ones(4000, np.int32))
        for share in (tally.genuine, tally.impostor):
            assert sum(part.shape[1] for part in share.parts) <= 2 * 500 + 4000 + 1000
    found = tally.scores()
    assert sum(found.roc.pairs) == 200_000 and len(found.genuine) <= 500 and len(found.impostor) <= 1001
    assert int(found.times.sum()) == pytest.approx(found.roc.pairs[1], rel=0.1)  # each stands for its share
