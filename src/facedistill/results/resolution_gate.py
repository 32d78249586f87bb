"""The gate of low resolution: what a model gains on faces of few pixels must not be paid for at full resolution."""

from collections.abc import Sequence

from facedistill.evaluation import declaration
from facedistill.results.reading import Entry, estimate, full_resolution, headline

MOST = 0.01  # that a model may lose
JUDGED = ("student", "model")


def lost_at_full_resolution(entries: Sequence[Entry]) -> list[str]:
    """Return a line for each evaluation whose model, against itself, loses more than a point on its baseline.

    Args:
        entries: the results of one set by one protocol. Without low resolution among them, there is nothing to judge.
    """
    full = full_resolution(entries)
    path = headline(full)
    if path is None or len(full) == len(entries):
        return []
    own = {(e.run, e.result["probe"]): e.result for e in full if e.result["probe"] == e.result["gallery"]}
    lines = []
    for (run, name), result in own.items():
        baseline, value = own.get((run, "baseline")), estimate(result, path)
        other = None if baseline is None else estimate(baseline, path)
        if name in JUDGED and value and other and other["value"] - value["value"] > MOST:
            points = f"{100 * (other['value'] - value['value']):.1f} points of {declaration(result).label(path)}"
            whose = f"{run}: the {name}" if run else f"The {name}"
            lines.append(f"{whose} loses {points} at full resolution against the baseline (gate: {100 * MOST:.0f})")
    return lines
