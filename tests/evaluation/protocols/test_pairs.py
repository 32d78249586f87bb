"""The 10-fold protocol against a brute force: loops over folds and thresholds, as insightface writes it."""

import numpy as np
import pytest

from facedistill.errors import UserError
from facedistill.evaluation.metrics import auc
from facedistill.evaluation.options import Thresholds
from facedistill.evaluation.protocols.pairs import THRESHOLD_GRID, boundaries, fold_of, pair_protocol
from facedistill.evaluation.statistics import draws


def example(pairs: int = 205, images: int = 90, people: int = 20, dim: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    persons = rng.integers(0, people, images)
    centre = rng.normal(size=(people, dim))
    index = rng.integers(0, images, (pairs, 2))
    index[::2, 1] = [rng.choice(np.flatnonzero(persons == persons[i])) for i in index[::2, 0]]
    return {
        "probe": unit(centre[persons] + 0.7 * rng.normal(size=(images, dim))),
        "gallery": unit(centre[persons] + 0.5 * rng.normal(size=(images, dim))),
        "pairs": index,
        "same": persons[index[:, 0]] == persons[index[:, 1]],
        "persons": persons,
    }


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def brute_folds(distance: np.ndarray, same: np.ndarray, fold: np.ndarray, thresholds: np.ndarray) -> list[float]:
    right = brute_decisions(distance, same, fold, thresholds)
    return [float(right[fold == k].mean()) for k in np.unique(fold)]


def brute_decisions(distance: np.ndarray, same: np.ndarray, fold: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    right = np.zeros(len(fold), bool)
    for k in range(10):
        test, train = fold == k, fold != k
        best, best_threshold = -1.0, 0.0
        for t in thresholds:
            accuracy = float(((distance[train] < t) == same[train]).sum())
            if accuracy > best:
                best, best_threshold = accuracy, t
        right[test] = (distance[test] < best_threshold) == same[test]
    return right


def brute_fold_of(pairs: int) -> np.ndarray:
    return np.concatenate([np.full(len(part), k) for k, part in enumerate(np.array_split(np.arange(pairs), 10))])


def distances(a: np.ndarray, b: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.array([((a[i].astype(float) - b[j].astype(float)) ** 2).sum() for i, j in pairs])


def test_folds_are_those_of_sklearn() -> None:
    from sklearn.model_selection import KFold

    for n in (10, 11, 6000, 6009):
        for k, (_, test) in enumerate(KFold(10, shuffle=False).split(np.zeros(n))):
            assert (np.flatnonzero(fold_of(n) == k) == test).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("thresholds", ["grid", "exact"])
def test_accuracy_and_std_equal_brute_force(seed: int, levels: int | None, thresholds: Thresholds) -> None:
    e = example(seed=seed)
    if levels:  # embeddings that tie, at distances that lie on the grid or beside it
        e["probe"] = unit(np.round(e["probe"] * levels) + 1e-9)
    found = pair_protocol(e["probe"], e["probe"], e["pairs"], e["same"], thresholds=thresholds, resamples=0)
    distance = distances(e["probe"], e["probe"], e["pairs"])
    every = np.arange(0, 4, 0.01) if thresholds == "grid" else np.append(np.unique(distance), 9)
    expected = brute_folds(distance, e["same"], brute_fold_of(len(distance)), every)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(np.mean(expected), abs=1e-15)
    assert found.std == pytest.approx(np.std(expected), abs=1e-15)
    decisions = brute_decisions(distance, e["same"], brute_fold_of(len(distance)), every)
    assert found.decisions is not None
    assert found.decisions.dtype == bool
    np.testing.assert_array_equal(found.decisions, decisions)


def test_a_distance_on_a_threshold_is_not_below_it() -> None:
    """Genuine at distance 1 exactly, impostors just above: only a threshold above 1 is right, and < decides it."""
    at_one = np.sqrt(THRESHOLD_GRID[100])
    vectors = np.array([[0.0], [at_one], [np.sqrt(1.005)]])
    assert THRESHOLD_GRID[100] == 1
    pairs = np.array([[0, 1], [0, 2]] * 10)
    found = pair_protocol(vectors, vectors, pairs, np.array([True, False] * 10), resamples=0)
    assert found.accuracy is not None
    assert found.accuracy.value == 0.5  # both lie between the thresholds 1.00 and 1.01
    exact = pair_protocol(vectors, vectors, pairs, np.array([True, False] * 10), thresholds="exact", resamples=0)
    assert exact.accuracy is not None
    assert exact.accuracy.value == 1


def test_boundaries_separate_neighbouring_floats() -> None:
    low, high = 1.0, np.nextafter(1.0, 2)
    t = boundaries(np.array([high, low, low]))
    assert len(t) == 3
    assert [(low < x, high < x) for x in t] == [(False, False), (True, False), (True, True)]


def test_asymmetric_pools_both_directions_within_the_fold() -> None:
    e = example()
    found = pair_protocol(e["probe"], e["gallery"], e["pairs"], e["same"], resamples=0)
    there = distances(e["probe"], e["gallery"], e["pairs"])
    back = distances(e["gallery"], e["probe"], e["pairs"])
    fold = brute_fold_of(len(there))
    expected = brute_folds(np.r_[there, back], np.r_[e["same"], e["same"]], np.r_[fold, fold], np.arange(0, 4, 0.01))
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(np.mean(expected), abs=1e-15)
    assert sum(found.roc.pairs) == 2 * len(there)
    assert found.decisions is not None
    assert found.decisions.shape == (2 * len(there),)


@pytest.mark.parametrize("with_persons", [True, False])
def test_intervals_come_from_repeated_pairs(with_persons: bool) -> None:
    e = example(pairs=80)
    persons = e["persons"] if with_persons else None
    found = pair_protocol(e["probe"], e["probe"], e["pairs"], e["same"], persons=persons, fars=[0.1], resamples=8)
    distance, same, fold = distances(e["probe"], e["probe"], e["pairs"]), e["same"], brute_fold_of(80)
    assert found.accuracy is not None
    tar, thresholds = found.tar_at_far["1e-1"][1].resampled, found.thresholds["1e-1"].resampled
    for r, draw in enumerate(draws(20 if with_persons else 80, 8)):
        a, b = (e["persons"][e["pairs"][:, side]] for side in (0, 1)) if with_persons else (np.arange(80),) * 2
        weight = [draw[i] if s or not with_persons else draw[i] * draw[j] for i, j, s in zip(a, b, same)]
        d, s, f = (np.repeat(x, weight) for x in (distance, same, fold))
        assert found.accuracy.resampled[r] == pytest.approx(np.mean(brute_folds(d, s, f, np.arange(0, 4, 0.01))))
        allowed = [(d[s] <= t).mean() for t in d[~s] if (d[~s] <= t).sum() <= 0.1 * (~s).sum() + 1e-9]
        assert tar[r] == pytest.approx(max(allowed) if allowed else (d[s] < d[~s].min()).mean())
        assert (d[s] <= 2 - 2 * thresholds[r] + 1e-12).mean() == pytest.approx(tar[r])


def test_a_fold_of_genuine_pairs_only() -> None:
    e = example(pairs=100)
    order = np.argsort(~e["same"], kind="stable")  # all genuine pairs first: the first folds have no impostor
    found = pair_protocol(e["probe"], e["probe"], e["pairs"][order], e["same"][order], resamples=20)
    expected = brute_folds(
        distances(e["probe"], e["probe"], e["pairs"][order]),
        e["same"][order],
        brute_fold_of(100),
        np.arange(0, 4, 0.01),
    )
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(np.mean(expected))
    assert found.accuracy.ci95 is not None


def test_no_impostors() -> None:
    e = example()
    e["same"][:] = True
    json = pair_protocol(e["probe"], e["probe"], e["pairs"], e["same"], resamples=5).to_json()
    assert 0.98 < json["accuracy"] <= 1  # a fold's farthest pair may lie beyond the threshold of the others
    assert json["genuine"] == json["pairs"] == 205
    assert json["tar_at_far"] == {}
    assert "eer" not in json
    assert "auc" not in json


def test_identical_embeddings_are_chance() -> None:
    e = example(pairs=200)
    e["same"] = np.arange(200) % 2 == 0
    vectors = np.ones_like(e["probe"]) / np.sqrt(6)
    found = pair_protocol(vectors, vectors, e["pairs"], e["same"], resamples=5)
    assert found.accuracy is not None
    assert found.accuracy.value == 0.5
    assert found.tar_at_far["1e-1"][0].tar == 0
    assert auc(found.roc) == 0.5


def test_too_few_pairs() -> None:
    e = example(pairs=9)
    with pytest.raises(UserError, match="at least 10"):
        pair_protocol(e["probe"], e["probe"], e["pairs"], e["same"])
