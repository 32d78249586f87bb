"""Groups of sets, e.g. the four of RFW: are they recognised equally well?"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from facedistill.evaluation.figures import estimate
from facedistill.evaluation.protocols import declaration


def group_results(name: str, results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the grouped figure over the sets of the group `name`, one entry for each protocol and pair of models.

    Args:
        results: results of the evaluation JSON on the sets of the group. A result is left out if its protocol declares
            no grouped figure (such as accuracy), or if it lacks that figure.

    Returns:
        {"group", "protocol", "probe", "gallery", "resolution" (if set), "sets": {set: value}, "mean", "std" (over the
        sets, ddof 0), "skewed_error_ratio" (largest error over smallest; absent if the smallest is 0)}.
    """
    entries: dict[str, dict[str, Any]] = {}
    for result in results:
        figure = declaration(result).grouped
        found = figure and estimate(result, figure.key, figure)
        if found:
            who = {key: result[key] for key in ("protocol", "probe", "gallery")}
            if "resolution" in result["settings"]:
                who["resolution"] = result["settings"]["resolution"]
            declared = {key: result[key] for key in ("declared",) if key in result}
            entry = entries.setdefault(repr(who), {"group": name, **who, "sets": {}, **declared})
            entry["sets"][result["set"]] = found["value"]
    return [entry | _spread(list(entry["sets"].values())) for entry in entries.values()]


def _spread(values: list[float]) -> dict[str, float]:
    errors = [1 - value for value in values]
    found = {"mean": float(np.mean(values)), "std": float(np.std(values))}
    return found | ({"skewed_error_ratio": max(errors) / min(errors)} if min(errors) > 0 else {})
