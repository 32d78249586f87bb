"""Paired differences, the compatibility criterion and McNemar's test against their definitions."""

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest  # scikit-learn brings it

from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.paired import compatibility, differences, mcnemar, update_gain
from facedistill.evaluation.protocols.all_pairs import all_pairs
from facedistill.evaluation.protocols.pairs import pair_protocol
from facedistill.evaluation.statistics import Estimate


class Measured(Measurement):
    def __init__(self, numbers: dict[str, Estimate]) -> None:
        self.numbers = numbers

    def to_json(self) -> dict[str, Any]:
        return {}

    def estimates(self) -> dict[str, Estimate]:
        return self.numbers


def estimate(value: float, noise: float = 0.001, seed: int = 0, shared: float = 0.1, resamples: int = 500) -> Estimate:
    """Resamples that all estimates share for the most part."""
    common = np.random.default_rng(99).normal(0, shared, resamples)
    return Estimate(value, value + common + np.random.default_rng(seed).normal(0, noise, resamples))


def test_differences_are_paired() -> None:
    a = Measured({"accuracy": estimate(0.92, seed=1), "tar_at_far.1e-3": estimate(0.8), "map": estimate(1)})
    b = Measured({"tar_at_far.1e-3": estimate(0.8001, seed=2), "accuracy": estimate(0.9, seed=3)})
    found = differences(a, b)
    assert list(found) == ["accuracy", "tar_at_far.1e-3"]
    assert found["accuracy"]["value"] == pytest.approx(0.02)
    mine, theirs = a.numbers["accuracy"].resampled, b.numbers["accuracy"].resampled
    assert found["accuracy"]["ci95"] == pytest.approx(np.quantile(mine - theirs, [0.025, 0.975]))
    assert found["accuracy"]["distinguishable"] is True  # though either interval alone is 0.4 wide
    assert found["tar_at_far.1e-3"]["distinguishable"] is False
    other_way = differences(b, a)["accuracy"]
    assert other_way["value"] == -found["accuracy"]["value"]
    assert other_way["distinguishable"] is True
    assert json.dumps(found, allow_nan=False)


def test_a_model_equals_itself() -> None:
    one = Measured({"accuracy": estimate(0.9)})
    assert differences(one, one)["accuracy"] == {"value": 0, "ci95": [0, 0], "distinguishable": False}


def test_without_resamples_there_is_the_value_alone() -> None:
    nothing, lost = np.empty(0), np.full(5, np.nan)
    for none in (nothing, lost):
        found = differences(*(Measured({"accuracy": Estimate(value, none)}) for value in (0.75, 0.5)))
        assert found == {"accuracy": {"value": 0.25}}


def test_compatibility_is_the_sign_of_a_distinguishable_difference() -> None:
    fars = ["tar_at_far.1e-1", "tar_at_far.1e-2", "tar_at_far.1e-3"]
    baseline = Measured({"accuracy": estimate(0.9)} | dict(zip(fars, map(estimate, (0.9, 0.8, 0.7)))))
    others = (estimate(0.95, seed=1), estimate(0.75, seed=2), estimate(0.7001, seed=3))
    crossed = Measured({"accuracy": estimate(0.95)} | dict(zip(fars, others)))
    found = compatibility(crossed, baseline)
    assert {path: entry.get("compatible") for path, entry in found.items()} == {
        "tar_at_far.1e-1": True,
        "tar_at_far.1e-2": False,
        "tar_at_far.1e-3": None,
    }
    without = {path: {k: v for k, v in entry.items() if k != "compatible"} for path, entry in found.items()}
    assert without == {path: d for path, d in differences(crossed, baseline).items() if path != "accuracy"}
    assert found["tar_at_far.1e-3"]["distinguishable"] is False
    bare, bare_baseline = (Measured({"tar_at_far.1e-1": Estimate(value, np.empty(0))}) for value in (0.75, 0.5))
    assert compatibility(bare, bare_baseline) == {"tar_at_far.1e-1": {"value": 0.25}}


def brute_p(a: int, b: int) -> Fraction:
    """The chance of every outcome that is as far from the middle, summed."""
    n = a + b
    return sum(
        (Fraction(math.comb(n, k), 2**n) for k in range(n + 1) if abs(2 * k - n) >= abs(a - b)), start=Fraction(0)
    )


def decisions(a_only: int, b_only: int, both: int = 3, neither: int = 2) -> tuple[np.ndarray, np.ndarray]:
    sizes = (a_only, b_only, both, neither)
    return np.repeat([True, False, True, False], sizes), np.repeat([False, True, True, False], sizes)


@pytest.mark.parametrize("a", range(7))
@pytest.mark.parametrize("b", range(7))
def test_mcnemar_is_the_written_out_sum(a: int, b: int) -> None:
    assert mcnemar(*decisions(a, b)) == {"a_only": a, "b_only": b, "p": float(brute_p(a, b))}


@pytest.mark.parametrize(
    ("a", "b"), [(12, 30), (30, 12), (500, 500), (700, 1300), (2900, 3100), (4000, 8000), (0, 6000)]
)
def test_mcnemar_of_thousands(a: int, b: int) -> None:
    found = mcnemar(*decisions(a, b))
    assert found["p"] == pytest.approx(binomtest(a, a + b).pvalue, rel=1e-9)
    assert 0 <= found["p"] <= 1


def test_mcnemar_of_two_models_on_pairs() -> None:
    rng = np.random.default_rng(0)
    persons = rng.integers(0, 20, 80)
    pairs = rng.integers(0, 80, (300, 2))
    pairs[::2, 1] = [rng.choice(np.flatnonzero(persons == persons[i])) for i in pairs[::2, 0]]
    same = persons[pairs[:, 0]] == persons[pairs[:, 1]]
    centres = rng.normal(size=(20, 8))
    right = []
    for noise in (0.3, 1.2):
        x = centres[persons] + noise * rng.normal(size=(80, 8))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        found = pair_protocol(x, x, pairs, same, resamples=0)
        assert found.decisions is not None
        right.append(found.decisions)
    compared = mcnemar(*right)
    assert compared["a_only"] - compared["b_only"] == right[0].sum() - right[1].sum()
    assert compared["p"] < 1e-6


def test_update_gain_is_the_share_of_the_possible_gain() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(80), 4)
    who = rng.normal(size=(80, 16))[labels]

    def seen(noise: float, seed: int) -> np.ndarray:
        vectors = who + noise * np.random.default_rng(seed).normal(size=who.shape)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    old, new = seen(0.9, 1), seen(0.5, 2)
    measured = [all_pairs(a, b, labels, fars=(1e-2,), resamples=50) for a, b in ((new, old), (old, old), (new, new))]
    crossed, before, after = (m.tar_at_far["1e-2"][1] for m in measured)
    gain = update_gain(*measured)["1e-2"]
    assert before.value < crossed.value < after.value
    assert gain.value == pytest.approx((crossed.value - before.value) / (after.value - before.value))
    expected = (crossed.resampled - before.resampled) / (after.resampled - before.resampled)
    np.testing.assert_allclose(gain.resampled, expected)
    assert update_gain(measured[0], measured[2], measured[1]) == {}  # nothing can be gained


def test_a_resample_in_which_nothing_can_be_gained_has_no_gain() -> None:
    class Fixed:
        def __init__(self, *values: float) -> None:
            self.tar_at_far = {"1e-2": (None, Estimate(values[0], np.array(values[1:])))}

    found: Any = update_gain(*[Fixed(0.5, 0.5, 0.5), Fixed(0.4, 0.4, 0.6), Fixed(0.6, 0.6, 0.6)])  # type: ignore[arg-type]
    assert found["1e-2"].value == pytest.approx(0.5)
    np.testing.assert_allclose(found["1e-2"].resampled, [0.5, np.nan])
