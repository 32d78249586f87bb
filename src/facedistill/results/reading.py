"""What the evaluation JSON says, in the words of its tables and pages: who, under which condition, which figure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

FEW_IMPOSTORS = 20  # fewer do not decide a threshold
# Every figure with an interval that a result may hold, in the order of the columns; {} is the rate, rank or count.
METRICS = {
    "accuracy": "accuracy",
    "std": "std of folds",
    "tar_at_far": "TAR at FAR {}",
    "rank": "rank {}",
    "tpir_at_fpir": "TPIR at FPIR {}",
    "recall_at": "recall at {}",
    "map": "mAP",
    "r_precision": "R-precision",
    "knn": "vote of {}",
    "top1": "top 1",
    "top5": "top 5",
    "per_class": "mean of classes",
    "eer": "EER",
    "auc": "AUC",
}
FALLING = ("tar_at_far", "tpir_at_fpir")  # the easy rate first


class Entry(NamedTuple):
    """A result and the run it is of; no run where there is only one."""

    run: str
    result: dict[str, Any]

    @property
    def name(self) -> str:
        """Of a series: the run, or the pair of models where there is one run, or all have it alike."""
        return who(self.result) if self.run in ("", EVERY) else self.run


Block = tuple[str, str]  # set, protocol
EVERY = "every run"  # what they all have alike


def measured(evaluations: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of runs: published figures are shown beside them, and left out of whatever compares."""
    return {run: evaluation for run, evaluation in evaluations.items() if "published" not in evaluation}


def blocks(evaluations: Mapping[str, dict[str, Any]]) -> dict[Block, list[Entry]]:
    """All results by set and protocol; of several runs those of one pair of models and one resolution side by side.

    A result that is the same in every run (the teacher's own) stands there once.
    """
    found: dict[Block, dict[tuple[str, str], list[Entry]]] = {}
    runs = measured(evaluations).values()
    for run, evaluation in evaluations.items():
        for result in evaluation["results"]:
            alike = found.setdefault((result["set"], result["protocol"]), {})
            entries = alike.setdefault((condition(result), who(result)), [])
            if not any(result == other for _, other in entries):
                everywhere = len(runs) > 1 and all(result in e["results"] for e in runs)
                entries.append(Entry(EVERY if everywhere else run, result))
    return {block: [entry for entries in alike.values() for entry in entries] for block, alike in found.items()}


def each(
    evaluations: Mapping[str, dict[str, Any]], key: str, block: Block | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """The entries of a list of the JSON, each with its run; those of one set and protocol if that is given."""
    return [
        (run, one)
        for run, evaluation in evaluations.items()
        for one in evaluation.get(key, [])
        if block is None or (one["set"], one["protocol"]) == block
    ]


def who(result: Mapping[str, Any]) -> str:
    return f"{result['probe']} → {result['gallery']}"


def condition(of: Mapping[str, Any]) -> str:
    """The low resolution of a result or a difference in words, "" for images as they are."""
    at = of.get("settings", of).get("resolution")
    if not at:
        return ""
    probe, gallery = at.get("probe"), at.get("gallery")
    sides = (
        f"both {probe} px" if probe == gallery else ", ".join(f"{side} {at[side]} px" for side in SIDES if side in at)
    )
    return ", ".join([sides, *(f"{key} {value}" for key, value in at.items() if key not in SIDES)])


SIDES = ("probe", "gallery")


def full_resolution(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if not condition(entry.result)]


def estimate(result: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """The figure at a path such as "tar_at_far.1e-3" with its "value" and, where known, "ci95"."""
    found: Any = result
    for key in path.split(".", 1):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    if not isinstance(found, Mapping):
        found = {"value": found} | ({"ci95": result["ci95"]} if path == "accuracy" and "ci95" in result else {})
    return found if "value" in found else None


def paths(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """The paths of all figures that any of the results has, in the order of METRICS."""
    found = set()
    for result in results:
        for key in METRICS.keys() & result.keys():
            found |= {f"{key}.{of}" for of in result[key]} if "{}" in METRICS[key] else {key}
    return sorted(found, key=order)


def order(path: str) -> tuple[int, float]:
    """The place of a figure among the columns: as in METRICS, then by rate, rank or count; unknown ones last."""
    key, _, of = path.partition(".")
    if key not in METRICS:
        return len(METRICS), 0
    return list(METRICS).index(key), (-float(of) if key in FALLING else float(of)) if of else 0


def metric(path: str) -> str:
    """A path in words: "tar_at_far.1e-3" -> "TAR at FAR 1e-3"; an unknown one as it is."""
    key, _, of = path.partition(".")
    return METRICS[key].format(of) if key in METRICS else path


def few(figure: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Whether too few pairs or probes decide the threshold for the figure of that result to be trusted.

    Where both directions are pooled, "impostors" counts each pair of images twice.
    """
    enough = FEW_IMPOSTORS * (2 if "directions" in result.get("settings", {}) else 1)
    return any(figure.get(key, enough) < enough for key in ("impostors", "non_mated"))


def rate(entries: Sequence[Entry]) -> str | None:
    """The lowest target FAR that all results have and that enough impostor pairs decide in all of them: "1e-4"."""
    fars = [path.partition(".")[2] for path in _trusted(entries) if path.startswith("tar_at_far.")]
    return min(fars, key=float, default=None)


def headline(entries: Sequence[Entry]) -> str | None:
    """The path of the figure that a set is summed up by, one that all its results have and that can be trusted.

    Accuracy over the folds of a list of pairs; else TAR at the lowest FAR; else the first.
    """
    found, far = _trusted(entries), rate(entries)
    return f"tar_at_far.{far}" if far and "accuracy" not in found else next(iter(found), None)


def _trusted(entries: Sequence[Entry]) -> list[str]:
    results = [result for _, result in entries]
    return [
        path
        for path in paths(results)
        if all((of := estimate(result, path)) is not None and not few(of, result) for result in results)
    ]


def distinguishable(difference: Mapping[str, Any]) -> bool | None:
    """Whether the interval of a difference leaves out 0; None where there is no interval to tell by."""
    if "distinguishable" in difference:
        return bool(difference["distinguishable"])
    ends = difference.get("ci95")
    return None if ends is None else ends[0] > 0 or ends[1] < 0


PROTOCOLS = ("all-pairs", "templates 1:1", "pairs", "templates 1:N", "identification", "retrieval", "classification")


def leading(found: Mapping[Block, Sequence[Entry]]) -> dict[str, str]:
    """For each set the protocol it is summed up by: the one that says most."""
    chosen: dict[str, str] = {}
    for name, protocol in sorted(found, key=lambda block: _place(block[1])):
        chosen.setdefault(name, protocol)
    return {name: chosen[name] for name, _ in found}


def _place(protocol: str) -> int:
    return PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS)


def percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def interval(ci95: Sequence[float] | None, digits: int = 2) -> str:
    return "" if ci95 is None else f"[{percent(ci95[0], digits)}, {percent(ci95[1], digits)}]"


def points(value: float) -> str:
    """A difference of two fractions in points, with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def power(rate: float) -> str:
    """A small rate with three digits: 8.603e-07 -> "8.60e-7"."""
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}" if rate else "0"
