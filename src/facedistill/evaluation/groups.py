"""Sets that belong together, as the four of RFW do: are they recognised equally well?"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from facedistill.evaluation.figures import estimate
from facedistill.evaluation.protocols import declaration


def group_results(name: str, results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The grouped figure over the sets of the group `name`, one entry for each protocol and pair of models.

    Args:
        results: of the evaluation JSON, on the sets of the group; those whose protocol declares no figure as grouped
            (accuracy is one), or that lack it, are left out.

    Returns:
        {"group", "protocol", "probe", "gallery", "resolution" (where it was set), "sets": {set: value}, "mean",
        "std" (over the sets, ddof 0), "skewed_error_ratio" (largest error over smallest; absent where that is 0)}.
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
