"""How sure is an error: mixtures whose errors are known."""

import numpy as np
import pytest

from facedistill.cleaning.evidence import judge, parting


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("low", [True, False])
def test_the_flagged_ones_have_the_precision_asked_for(share: float, low: bool) -> None:
    rng = np.random.default_rng(1)
    wrong = rng.random(20_000) < share
    sign = 1 if low else -1
    scores = sign * np.where(wrong, rng.normal(0, 0.1, 20_000), rng.normal(0.45, 0.1, 20_000))
    found = judge(scores, sign * rng.normal(0, 0.1, 5_000), 0.95, low)
    assert wrong[found.flagged].mean() == pytest.approx(0.95, abs=0.04)
    assert found.flagged[wrong].mean() > 0.8
    assert found.power == pytest.approx(found.flagged[wrong].mean(), abs=0.05)
    assert found.share == pytest.approx(share, rel=0.2)
    worst_first = np.argsort(sign * scores)
    assert (np.diff(found.probability[worst_first]) <= 1e-12).all()


def test_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(2)
    wrong = rng.random(50_000) < 0.2
    scores = np.where(wrong, rng.normal(0, 0.15, 50_000), rng.normal(0.4, 0.15, 50_000))
    found = judge(scores, rng.normal(0, 0.15, 20_000), 0.95, low=True)
    for least, most in ((0.3, 0.5), (0.5, 0.7), (0.7, 0.9)):
        some = (found.probability > least) & (found.probability < most)
        assert wrong[some].mean() == pytest.approx(found.probability[some].mean(), abs=0.06)


def test_more_precision_flags_fewer() -> None:
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(0, 0.15, 500), rng.normal(0.4, 0.15, 5_000)])
    counts = [judge(scores, rng.normal(0, 0.15, 2_000), p, low=True).flagged.sum() for p in (0.7, 0.9, 0.99)]
    assert counts[0] > counts[1] > counts[2] > 0


def test_without_errors_nothing_is_flagged() -> None:
    rng = np.random.default_rng(4)
    found = judge(rng.normal(1, 0.05, 1_000), rng.normal(0, 0.05, 1_000), 0.95, low=True)
    assert not found.flagged.any() and found.share == 0 and found.power == 0
    assert not judge(np.zeros(0), np.zeros(0), 0.95, low=True).flagged.any()
    assert not judge(np.ones(5), np.zeros(0), 0.95, low=True).flagged.any()
    assert not judge(np.ones(5), np.ones(3) - 1, 0.95, low=True).flagged.any()


def test_scores_that_do_not_tell_errors_flag_nothing() -> None:
    rng = np.random.default_rng(5)
    found = judge(rng.normal(0, 1, 1_000), rng.normal(0, 1, 1_000), 0.95, low=True)
    assert found.share > 0.9 and not found.flagged.any() and not found.probability.any()


def test_features_are_weighted_by_what_they_tell() -> None:
    """Two normal groups of the same spread: the best weights are the difference of means over the variances."""
    rng = np.random.default_rng(6)
    errors = rng.normal([0, 0, 0, 7], [1, 2, 1, 0], (20_000, 4))
    others = rng.normal([2, 2, 0, 7], [1, 2, 1, 0], (20_000, 4))
    weights = parting(errors, others)
    assert weights[1] / weights[0] == pytest.approx(0.25, abs=0.02) and weights[0] > 0
    assert weights[2] == pytest.approx(0, abs=0.03) and weights[3] == 0
    assert parting(errors[:0], others).tolist() == [0, 0, 0, 0]


def test_sure_findings_do_not_pay_for_doubtful_ones() -> None:
    """Errors far from all sound scores: the precision asked for would allow 25 false ones, and needs none."""
    rng = np.random.default_rng(7)
    scores = np.concatenate([rng.normal(0, 0.05, 500), rng.normal(1, 0.1, 5_000)])
    found = judge(scores, rng.normal(0, 0.05, 2_000), 0.95, low=True)
    assert found.flagged[:500].all() and found.flagged[500:].sum() <= 1
