"""Sets that belong together, as the four of RFW do: are they recognised equally well?"""

from collections.abc import Iterable
from typing import Any

import numpy as np


def group_results(name: str, results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy over the sets of the group `name`, one entry for each protocol and pair of models.

    Args:
        results: of the evaluation JSON, on the sets of the group; those without an accuracy are left out.

    Returns:
        {"group", "protocol", "probe", "gallery", "resolution" (where it was set), "sets": {set: accuracy}, "mean",
        "std" (over the sets, ddof 0), "skewed_error_ratio" (largest error over smallest; absent where that is 0)}.
    """
    entries: dict[str, dict[str, Any]] = {}
    for result in results:
        if "accuracy" in result:
            who = {key: result[key] for key in ("protocol", "probe", "gallery")}
            if "resolution" in result["settings"]:
                who["resolution"] = result["settings"]["resolution"]
            entry = entries.setdefault(repr(who), {"group": name, **who, "sets": {}})
            entry["sets"][result["set"]] = result["accuracy"]
    return [entry | _spread(list(entry["sets"].values())) for entry in entries.values()]


def _spread(accuracies: list[float]) -> dict[str, float]:
    errors = [1 - accuracy for accuracy in accuracies]
    found = {"mean": float(np.mean(accuracies)), "std": float(np.std(accuracies))}
    return found | ({"skewed_error_ratio": max(errors) / min(errors)} if min(errors) > 0 else {})
