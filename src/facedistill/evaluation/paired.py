"""Two models on one set: paired differences, McNemar's test, the criterion of backward compatibility."""

from typing import Any

import numpy as np

from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.statistics import Estimate, paired_difference
from facedistill.evaluation.verification import TAR, Verification


def differences(a: Measurement, b: Measurement) -> dict[str, dict[str, Any]]:
    """Return a - b in every number that both measured, by its path: {"value", "ci95", "distinguishable"}.

    The interval is paired: both must come from one set, with the same resamples and seed. A difference is
    distinguishable if its interval excludes 0. Without resamples, only the value is returned.
    """
    theirs = b.estimates()
    found: dict[str, dict[str, Any]] = {}
    for path, mine in a.estimates().items():
        if path in theirs:
            difference = paired_difference(mine, theirs[path])
            found[path] = {"value": difference.value}
            if ci95 := difference.ci95:
                found[path] |= {"ci95": ci95, "distinguishable": ci95[0] > 0 or ci95[1] < 0}
    return found


def compatibility(student_teacher: Measurement, baseline: Measurement, key: str = TAR.key) -> dict[str, dict[str, Any]]:
    """Judge backward compatibility: is TAR(student probe, teacher gallery) above TAR(baseline, baseline)?

    Returns the `differences` in TAR at each FAR, with "compatible", true or false, if they are distinguishable.
    `key` names the family of figures that is judged; "" judges none.
    """
    found = differences(student_teacher, baseline)
    return {
        path: difference | ({"compatible": difference["value"] > 0} if difference.get("distinguishable") else {})
        for path, difference in found.items()
        if path.partition(".")[0] == key
    }


def update_gain(crossed: Verification, old: Verification, new: Verification) -> dict[str, Estimate]:
    """Return (TAR(crossed) - TAR(old)) / (TAR(new) - TAR(old)) at each FAR: 0 as good as before, 1 as good as possible.

    For a student and its teacher's gallery: (S/T - S/S) / (T/T - S/S); for an upgrade: (new/old - old/old) / (new/new -
    old/old). (The update gain of arXiv 2003.11942, there of accuracies.) A FAR at which `new` is not above
    `old` is absent. All three must come from one set, with the same resamples and seed.
    """
    found = {}
    for far in crossed.tar_at_far.keys() & old.tar_at_far.keys() & new.tar_at_far.keys():
        gained, possible = (paired_difference(m.tar_at_far[far][1], old.tar_at_far[far][1]) for m in (crossed, new))
        if possible.value > 0:
            resampled = np.divide(
                gained.resampled,
                possible.resampled,
                out=np.full(len(gained.resampled), np.nan),
                where=possible.resampled > 0,
            )
            found[far] = Estimate(gained.value / possible.value, resampled)
    return dict(sorted(found.items()))


def mcnemar(a_right: np.ndarray, b_right: np.ndarray) -> dict[str, Any]:
    """Return McNemar's exact test on the decisions of two models about the same pairs, both bool (P,).

    It has the numbers of pairs that only a, and only b, decides correctly, and "p": the probability of counts at least
    that far apart if both models are equally good (two-sided, binomial). It treats pairs as independent, but pairs of
    one person are not: the intervals of `differences` are more careful.
    """
    a_only, b_only = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    return {"a_only": a_only, "b_only": b_only, "p": _two_sided(a_only, b_only)}


def _two_sided(a: int, b: int) -> float:
    """Return P(min(X, n - X) <= min(a, b)), X binomial with n = a + b fair trials. Exact, because it uses integers."""
    n, ways, total = a + b, 1, 1
    for k in range(min(a, b)):
        ways = ways * (n - k) // (k + 1)
        total += ways
    return min(1.0, 2 * total / 2**n)
