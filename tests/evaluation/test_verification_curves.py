"""A verification measurement's JSON and estimates against its parts."""

import json

import numpy as np
import pytest

from facedistill.evaluation.metrics import Roc, auc, closest_far, eer, rates_at, tar_at_far
from facedistill.evaluation.statistics import Estimate
from facedistill.evaluation.verification import Verification

FARS = (0.1, 0.01, 1e-6)


def scores(seed: int = 0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.6 + shift, 0.2, 200), rng.normal(0.2 + shift, 0.2, 500)


def measured(seed: int = 0, resamples: int = 50, shift: float = 0.0, **folds: object) -> Verification:
    """Resamples made up: the one of FAR f is f plus noise."""
    noise = np.random.default_rng(seed).normal(0, 0.01, (resamples, len(FARS)))
    return Verification.at(Roc.of(*scores(seed, shift)), FARS, np.array(FARS) + noise, 10 + noise, **folds)


def test_the_json_of_each_far() -> None:
    roc = Roc.of(*scores())
    found = measured().to_json()["tar_at_far"]
    assert list(found) == ["1e-1", "1e-2"]  # 500 impostors do not measure 1e-6
    for f, far in enumerate((0.1, 0.01)):
        point = tar_at_far(roc, far)
        assert point is not None
        noise = np.random.default_rng(0).normal(0, 0.01, (50, 3))[:, f]
        closest = closest_far(roc, far)
        assert list(found.values())[f] == {
            "value": point.tar,
            "ci95": pytest.approx(np.quantile(far + noise, [0.025, 0.975])),
            "impostors": 500 * far,
            "far": far,
            "threshold": point.threshold,
            "threshold_ci95": pytest.approx(np.quantile(10 + noise, [0.025, 0.975])),
            "closest": {"tar": closest[1], "far": closest[0]},
        }


def test_the_other_keys() -> None:
    accuracy = Estimate(0.9, np.linspace(0.8, 1, 41))
    found = measured(accuracy=accuracy, std=0.02, decisions=np.ones(700, bool)).to_json()
    roc = Roc.of(*scores())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == ["pairs", "genuine", "accuracy", "std", "ci95", "tar_at_far", "eer", "auc", "curves"]
    assert (found["pairs"], found["genuine"]) == (700, 200)
    assert (found["accuracy"], found["std"]) == (0.9, 0.02)
    assert found["ci95"] == pytest.approx([0.805, 0.995])
    assert (found["eer"], found["auc"]) == (eer(roc), auc(roc))
    curve, drawn = found["curves"]["roc"], found["curves"]["scores"]
    whole = set(zip(*(rates.tolist() for rates in roc.curve())))
    assert set(zip(curve["far"], curve["tar"])) <= whole
    assert (curve["far"][0], curve["far"][-1], curve["tar"][-1]) == (1 / 500, 1, 1)
    assert (drawn["low"], drawn["high"]) == (roc.scores[0], roc.scores[-1])
    assert [len(drawn[kind]) for kind in ("genuine", "impostor")] == [100, 100]
    assert [sum(drawn[kind]) for kind in ("genuine", "impostor")] == [200, 500]


def test_without_resamples_there_are_no_intervals() -> None:
    text = json.dumps(measured(resamples=0, accuracy=Estimate(0.9, np.empty(0)), std=0.1).to_json(), allow_nan=False)
    assert "ci95" not in text
    assert "null" not in text


def test_without_the_thresholds_of_resamples_they_are_absent() -> None:
    roc = Roc.of(*scores())
    point = tar_at_far(roc, 0.1)
    assert point is not None
    found = Verification(roc, {"1e-1": (point, Estimate(point.tar, np.ones(3)))}).to_json()["tar_at_far"]["1e-1"]
    assert "ci95" in found
    assert "threshold_ci95" not in found


def test_one_kind_of_pair_has_a_histogram_and_no_pair_has_none() -> None:
    some, none = scores()[0], np.array([])
    for roc in (Roc.of(some, none), Roc.of(none, some)):
        found = Verification.at(roc, FARS, np.empty((0, 3)), np.empty((0, 3))).to_json()
        assert set(found) == {"pairs", "genuine", "tar_at_far", "curves"}
        assert found["tar_at_far"] == {}
        assert set(found["curves"]) == {"scores"}
        assert sum(found["curves"]["scores"]["genuine"] + found["curves"]["scores"]["impostor"]) == 200
    nothing = Verification.at(Roc.of(none, none), FARS, np.empty((0, 3)), np.empty((0, 3))).to_json()
    assert nothing == {"pairs": 0, "genuine": 0, "tar_at_far": {}}


def test_estimates_have_the_paths_of_the_json() -> None:
    accuracy = Estimate(0.9, np.linspace(0.8, 1, 50))
    one = measured(accuracy=accuracy, std=0.02)
    found, values = one.estimates(), one.to_json()
    assert list(found) == ["accuracy", "tar_at_far.1e-1", "tar_at_far.1e-2"]
    assert found["accuracy"] is accuracy
    for path, estimate in list(found.items())[1:]:
        at = values["tar_at_far"][path.removeprefix("tar_at_far.")]
        assert (estimate.value, estimate.ci95) == (at["value"], at["ci95"])
    assert "accuracy" not in measured().estimates()


def test_rates_at_the_thresholds_of_another() -> None:
    probe, gallery = measured(1), measured(2, shift=0.1)
    found = probe.at_thresholds_of(gallery)
    assert list(found) == ["1e-1", "1e-2"]
    for key, at in found.items():
        point = gallery.tar_at_far[key][0]
        assert at["threshold"] == point.threshold
        assert (at["far"], at["tar"]) == rates_at(probe.roc, point.threshold)
        assert at["far"] < float(key)
    none = Verification.at(Roc.of(scores()[0], np.array([])), FARS, np.empty((0, 3)), np.empty((0, 3)))
    assert none.at_thresholds_of(gallery) == {}
