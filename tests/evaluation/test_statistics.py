"""The bootstrap against its definition written out, pair by pair."""

from collections.abc import Iterator

import numpy as np
import pytest

from facedistill.evaluation.statistics import (
    Estimate,
    TooFewImpostors,
    Weights,
    draws,
    pair_weights,
    paired_difference,
    resampled_mean,
    resampled_points,
)


def brute_point(genuine: np.ndarray, impostor: np.ndarray, w: Weights, far: float) -> tuple[float, float]:
    """TAR and threshold: repeat each pair as often as its weight says, then try every impostor score."""
    genuine, impostor = np.repeat(genuine, w.genuine), np.repeat(impostor, w.impostor)
    allowed = [t for t in impostor if (impostor >= t).sum() <= round(far * len(impostor), 9)]
    threshold = min(allowed) if allowed else np.nextafter(impostor.max(), np.inf)
    return (genuine >= threshold).mean(), threshold


def example(decimals: int) -> tuple[np.ndarray, np.ndarray, list[Weights]]:
    rng = np.random.default_rng(0)
    genuine = -np.sort(-rng.normal(0.6, 0.2, 60).round(decimals))
    impostor = -np.sort(-rng.normal(0.2, 0.2, 150).round(decimals))
    weights = []
    for _ in range(40):
        wg, wi = rng.integers(0, 4, 60), rng.integers(0, 3, 150)
        weights.append(Weights(wg, wi, wi.sum()))
    return genuine, impostor, weights


@pytest.mark.parametrize("decimals", [1, 12])
def test_resampled_points_are_those_of_the_repeated_pairs(decimals: int) -> None:
    genuine, impostor, weights = example(decimals)
    fars = (0.3, 0.1, 0.01)
    tar, thresholds = resampled_points(genuine, impostor, fars, iter(weights), complete=True)
    expected = np.array([[brute_point(genuine, impostor, w, far) for far in fars] for w in weights])
    np.testing.assert_allclose(tar, expected[..., 0], atol=1e-12)
    np.testing.assert_array_equal(thresholds, expected[..., 1])


def test_scores_may_be_whole_numbers() -> None:
    """As all-pairs gives them: the threshold is a number of the same scale, just above a tie that may not pass."""
    top = np.array([7, 7, 7, 4], np.int32)
    weights = [Weights(np.ones(2, int), np.array(w), sum(w)) for w in ([1, 1, 1, 1], [0, 0, 1, 3])]
    tar, thresholds = resampled_points(np.array([8, 7], np.int32), top, (0.5,), iter(weights), complete=True)
    assert tar.tolist() == [[0.5], [1]]
    assert thresholds.tolist() == [[np.nextafter(7, 8)], [7]]


def test_the_thresholds_of_no_resample() -> None:
    one = np.array([0.5])
    found = resampled_points(one, one, (0.1, 0.2), iter([]), complete=True)
    assert [part.shape for part in found] == [(0, 2), (0, 2)]


def test_rounding_loses_no_impostor() -> None:
    """0.29 * 100 is 28.999999999999996; every impostor separates two genuine pairs, so each one counts."""
    genuine, impostor = np.arange(100, 0, -1) + 0.5, np.arange(100.0, 0, -1)
    ones = Weights(np.ones(100, int), np.ones(100, int), 100)
    assert resampled_points(genuine, impostor, (0.29,), iter([ones]), complete=True)[0].item() == 0.29


def test_the_highest_impostors_are_enough_or_it_says_so() -> None:
    genuine, impostor, weights = example(12)

    def cut(number: int) -> Iterator[Weights]:
        return (Weights(w.genuine, w.impostor[:number], w.impostor_total) for w in weights)

    whole = resampled_points(genuine, impostor, (0.1,), iter(weights), complete=True)
    top = resampled_points(genuine, impostor[:40], (0.1,), cut(40), complete=False)
    np.testing.assert_array_equal(top, whole)
    with pytest.raises(TooFewImpostors):
        resampled_points(genuine, impostor[:10], (0.1,), cut(10), complete=False)


def test_a_resample_without_genuine_or_impostor_weight_has_no_value() -> None:
    one = np.array([0.5])
    weights = [Weights(np.array([0]), np.array([1]), 1), Weights(np.array([1]), np.array([0]), 0)]
    assert np.isnan(resampled_points(one, one, (0.1,), iter(weights), complete=True)).all()


def test_resampled_mean_is_that_of_the_repeated_clusters() -> None:
    rng = np.random.default_rng(0)
    clusters = 10 * rng.integers(0, 8, 50) - 3  # any numbers
    values = rng.normal(size=50)
    values[::7] = np.nan
    found = resampled_mean(values, clusters, 30, seed=2)
    for r, draw in enumerate(draws(len(np.unique(clusters)), 30, 2)):
        repeated = np.repeat(values, draw[np.unique(clusters, return_inverse=True)[1]])
        assert found[r] == pytest.approx(np.nanmean(repeated), abs=1e-12)


def test_resampled_mean_of_nothing() -> None:
    found = resampled_mean(np.array([1.0, np.nan]), np.array([0, 1]), 40)
    assert set(found[np.isfinite(found)]) == {1}  # a resample that draws the second cluster twice has no value
    assert np.isnan(found).any()
    assert np.isnan(resampled_mean(np.array([np.nan]), np.array([0]), 3)).all()


def test_pair_weights_with_and_without_persons() -> None:
    same = np.array([True, False, False])
    persons = np.array([[0, 0], [0, 1], [2, 1]])
    assert pair_weights(persons, same)(np.array([3, 2, 0])).tolist() == [3, 6, 0]
    assert pair_weights(np.array([[0], [1], [2]]), same)(np.array([3, 2, 0])).tolist() == [3, 2, 0]


def test_draws_depend_on_seed_and_number_alone() -> None:
    first, again, other = list(draws(50, 5, seed=1)), list(draws(50, 5, seed=1)), list(draws(50, 5, seed=2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:3], list(draws(50, 3, seed=1)))
    assert not np.array_equal(first, other)
    assert all(draw.sum() == 50 for draw in first)
    assert np.mean([(draw == 0).mean() for draw in draws(200, 50)]) == pytest.approx(np.exp(-1), abs=0.02)


def test_interval_and_paired_difference() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.1, 1000)
    a, b = Estimate(0.91, 0.91 + shared), Estimate(0.9, 0.9 + shared + rng.normal(0, 0.001, 1000))
    low, high = a.ci95 or (0, 0)
    assert low == pytest.approx(0.91 - 0.196, abs=0.02)
    assert high == pytest.approx(0.91 + 0.196, abs=0.02)
    difference = paired_difference(a, b)
    assert difference.value == pytest.approx(0.01)
    assert min(difference.ci95 or [0]) > 0  # the intervals overlap widely, the paired one excludes 0
    assert Estimate(0.5, np.array([np.nan])).ci95 is None
    assert Estimate(0.5, np.array([np.nan, 0.25])).ci95 == [0.25, 0.25]
