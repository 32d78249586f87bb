"""Metrics against scikit-learn and against their definitions written out."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from facedistill.evaluation.metrics import (
    Roc,
    auc,
    closest_far,
    eer,
    far_key,
    histogram,
    rates_at,
    roc_points,
    tar_at_far,
)


def scores(seed: int, decimals: int, genuine: int = 300, impostors: int = 700) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping scores; few decimals make many ties."""
    rng = np.random.default_rng(seed)
    return rng.normal(0.6, 0.2, genuine).round(decimals), rng.normal(0.2, 0.2, impostors).round(decimals)


def brute_tar_at_far(genuine: np.ndarray, impostor: np.ndarray, far: float) -> float:
    """Every impostor score tried as the threshold, and just above them all."""
    allowed = [t for t in impostor if (impostor >= t).sum() <= round(far * len(impostor), 9)]
    return (genuine >= min(allowed)).mean() if allowed else (genuine > impostor.max()).mean()


@pytest.mark.parametrize("decimals", [1, 2, 12])
@pytest.mark.parametrize("far", [0.1, 0.01, 0.004, 0.002])
def test_tar_at_far_is_that_of_the_lowest_impostor_score_allowed(decimals: int, far: float) -> None:
    for seed in range(5):
        genuine, impostor = scores(seed, decimals)
        point = tar_at_far(Roc.of(genuine, impostor), far)
        assert point is not None
        assert point.tar == brute_tar_at_far(genuine, impostor, far)
        assert (point.far, point.tar) == ((impostor >= point.threshold).mean(), (genuine >= point.threshold).mean())
        assert point.far <= far


def test_tar_at_far_counts_whole_impostors() -> None:
    genuine, impostor = scores(0, 12, impostors=3000)
    point = tar_at_far(Roc.of(genuine, impostor), 1e-3)
    assert point is not None
    assert point.impostors == 3
    assert point.far == 3 / 3000
    assert point.threshold == np.sort(impostor)[-3]
    assert point.tar == (genuine >= np.sort(impostor)[-3]).mean()


def test_rounding_loses_no_impostor() -> None:
    assert 0.29 * 100 < 29
    genuine, impostor = scores(0, 12, impostors=100)
    point = tar_at_far(Roc.of(genuine, impostor), 0.29)
    assert point is not None
    assert (point.impostors, point.far) == (29, 0.29)


def test_far_below_one_impostor_is_not_measurable() -> None:
    genuine, impostor = scores(0, 12, impostors=99)
    assert tar_at_far(Roc.of(genuine, impostor), 1e-2) is None
    genuine, impostor = scores(0, 12, impostors=100)
    assert tar_at_far(Roc.of(genuine, impostor), 1e-2) is not None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_at_the_top_are_refused_together(dtype: type) -> None:
    roc = Roc.of(np.array([0.3, 0.3, 0.1], dtype), np.full(10, 0.3, dtype))
    point = tar_at_far(roc, 0.5)
    assert point is not None
    assert (point.far, point.tar) == (0, 0)
    assert point.threshold > dtype(0.3)


def test_a_float32_threshold_separates_what_it_was_calibrated_on() -> None:
    genuine, impostor = (s.astype(np.float32) for s in scores(3, 12))
    roc = Roc.of(genuine, impostor)
    point = tar_at_far(roc, 0.01)
    assert point is not None
    assert rates_at(roc, point.threshold) == (point.far, point.tar)


def insightface_point(genuine: np.ndarray, impostor: np.ndarray, far: float) -> tuple[float, float]:
    """The lines of its eval_ijbc.py that print a TAR."""
    label = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    fpr, tpr, _ = roc_curve(label, np.r_[genuine, impostor])
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    _, min_index = min(zip(abs(fpr - far), range(len(fpr))))
    return fpr[min_index], tpr[min_index]


@pytest.mark.parametrize("decimals", [1, 2, 12])
@pytest.mark.parametrize("far", [1e-6, 1e-3, 0.0104, 0.1, 0.5, 0.97])
def test_closest_far_is_what_insightface_prints(decimals: int, far: float) -> None:
    for seed in range(10):
        genuine, impostor = scores(seed, decimals, genuine=40)
        assert closest_far(Roc.of(genuine, impostor), far) == insightface_point(genuine, impostor, far)


def test_closest_far_in_ties_and_the_smallest_curves() -> None:
    for genuine, impostor in (
        ([0.9], [0.1]),
        ([0.5], [0.5]),  # one step
        ([0.5, 0.5], [0.5, 0.1]),
        ([0.9, 0.8, 0.7], [0.9, 0.8, 0.7]),  # nothing but equal steps
        ([0.9, 0.6], [0.8, 0.7, 0.5, 0.4]),  # FAR 0.5 with TAR 0.5 and 1
    ):
        for far in (0.01, 0.25, 0.5, 0.75):  # 0.25: as far from 0 as from 0.5
            roc = Roc.of(np.array(genuine), np.array(impostor))
            assert closest_far(roc, far) == insightface_point(np.array(genuine), np.array(impostor), far)
    assert closest_far(Roc.of(np.array([0.9, 0.6]), np.array([0.8, 0.7, 0.5, 0.4])), 0.5) == (0.5, 1)


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_roc_points_are_the_last_up_to_each_far(decimals: int) -> None:
    genuine, impostor = scores(4, decimals)
    far, tar = roc_points(Roc.of(genuine, impostor), 30)
    expected = set()
    for target in 700.0 ** np.linspace(-1, 0, 30):
        passing = [t for t in np.r_[genuine, impostor] if (impostor >= t).mean() <= target + 1e-12]
        point = ((impostor >= min(passing)).mean(), (genuine >= min(passing)).mean())
        expected |= {point} if point[0] > 0 else set()
    np.testing.assert_allclose(np.stack([far, tar], axis=1), sorted(expected), rtol=1e-12)
    assert (far[-1], tar[-1]) == (1, 1)
    assert (np.diff(far) > 0).all()
    if decimals == 12:
        assert far[0] == 1 / 700


def test_roc_points_of_many_scores_are_few_and_exact() -> None:
    genuine, impostor = scores(0, 12, genuine=3000, impostors=200_000)
    roc = Roc.of(genuine, impostor)
    far, tar = roc_points(roc)
    assert 150 < len(far) <= 200
    whole = set(zip(*(rates.tolist() for rates in roc.curve())))
    assert set(zip(far.tolist(), tar.tolist())) <= whole


def test_roc_points_where_everything_ties() -> None:
    far, tar = roc_points(Roc.of(np.full(3, 0.5), np.full(9, 0.5)))
    assert (far.tolist(), tar.tolist()) == ([1], [1])


@pytest.mark.parametrize("decimals", [1, 2, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_histogram_is_numpys(decimals: int, dtype: type[np.floating]) -> None:
    genuine, impostor = (s.astype(dtype) for s in scores(5, decimals))
    low, high, *counts = histogram(Roc.of(genuine, impostor), 17)
    every = np.r_[genuine, impostor]
    assert (low, high) == (every.min(), every.max())
    edges = np.histogram_bin_edges(every, 17)
    assert counts == [np.histogram(kind, edges)[0].tolist() for kind in (genuine, impostor)]
    assert [sum(part) for part in counts] == [300, 700]


def test_the_histogram_of_one_score() -> None:
    low, high, genuine, impostor = histogram(Roc.of(np.full(4, 0.25), np.full(9, 0.25)), 2)
    assert (low, high) == (-0.25, 0.75)
    assert (genuine, impostor) == ([0, 4], [0, 9])


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_auc_and_curve_agree_with_sklearn(decimals: int) -> None:
    genuine, impostor = scores(1, decimals)
    roc = Roc.of(genuine, impostor)
    y = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    far, tar, _ = roc_curve(y, np.r_[genuine, impostor], drop_intermediate=False)
    np.testing.assert_allclose(roc.curve(), (far, tar), atol=1e-15)
    assert auc(roc) == pytest.approx(roc_auc_score(y, np.r_[genuine, impostor]), abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_eer_lies_on_sklearns_roc(decimals: int) -> None:
    genuine, impostor = scores(2, decimals)
    y = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    far, tar, _ = roc_curve(y, np.r_[genuine, impostor])
    error = eer(Roc.of(genuine, impostor))
    assert error is not None
    assert np.interp(error, far, tar) == pytest.approx(1 - error, abs=1e-9)


def test_eer_known_values() -> None:
    assert eer(Roc.of(np.array([0.9, 0.8]), np.array([0.1, 0.2]))) == 0
    assert eer(Roc.of(np.array([0.9, 0.4]), np.array([0.6, 0.1]))) == 0.5
    assert eer(Roc.of(np.full(4, 0.5), np.full(7, 0.5))) == 0.5


def test_one_kind_of_pair_measures_nothing() -> None:
    some, none = np.array([0.1, 0.2]), np.array([])
    for roc in (Roc.of(some, none), Roc.of(none, some)):
        assert auc(roc) is None
        assert eer(roc) is None
        assert tar_at_far(roc, 0.5) is None


@pytest.mark.parametrize(
    ("far", "key"),
    [(0.1, "1e-1"), (0.001, "1e-3"), (1e-5, "1e-5"), (0.025, "2.5e-2"), (5e-4, "5e-4"), (1e-10, "1e-10")],
)
def test_far_key(far: float, key: str) -> None:
    assert far_key(far) == key
    assert float(far_key(far)) == far
